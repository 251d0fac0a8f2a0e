/**
 * Servers that are not quite S3: responses without a length, listings that are cut off, removals that ignore conditions. Each
 * is played on loopback.
 */
import { describe, expect, it } from "@effect/vitest"
import { Effect, Redacted, Stream } from "effect"
import * as http from "node:http"
import { ByteRange, S3Storage, type StorageError } from "surfing-weights"
import { gather } from "../support/content.js"
import { listen } from "../support/loopback.js"
import { eventually, quick } from "../support/timing.js"

interface Asked {
  readonly method: string
  readonly url: string
  readonly ifMatch: string | undefined
}

/** A storage on a server that responds like this, what the server was asked, and its open connections. */
const on = (respond: (request: http.IncomingMessage, response: http.ServerResponse) => void) =>
  Effect.gen(function*() {
    const asked: Array<Asked> = []
    const { endpoint, sockets } = yield* listen(http.createServer((request, response) => {
      asked.push({ method: request.method ?? "", url: request.url ?? "", ifMatch: request.headers["if-match"] })
      request.resume()
      respond(request, response)
    }))
    const storage = yield* S3Storage.make({
      bucket: "weights",
      endpoint,
      credentials: { accessKeyId: "anybody", secretAccessKey: Redacted.make("anything") },
      retry: quick,
      verify: false
    })
    return { storage, asked, sockets }
  })

const failureOf = <A>(effect: Effect.Effect<A, StorageError.StorageError>) => Effect.flip(effect)

describe("a server that does not send the size of an object", () => {
  it.scopedLive("fails a load and a stream at once, whatever the body is", () =>
    Effect.gen(function*() {
      let sent = 0
      const { asked, sockets, storage } = yield* on(({ method }, response) => {
        response.setHeader("etag", "\"e\"")
        if (method === "HEAD") return response.writeHead(200, { "transfer-encoding": "chunked" }).end()
        const write = () => {
          while (response.write(Buffer.alloc(65_536))) sent += 65_536
        }
        response.on("drain", write)
        return write()
      })
      for (
        const read of [storage.load("a"), gather(storage.stream("a")), storage.load("a", { range: ByteRange.from(1) })]
      ) {
        const failure = yield* failureOf(read)
        expect(failure._tag).toBe("UnexpectedStorageError")
        expect(failure.message).toContain("no response has the size of the object")
      }
      yield* eventually(() => expect(sockets.size).toBe(0))
      // The load, a HEAD, and the first byte alone.
      expect(asked.length).toBe(9)
      expect(sent).toBeLessThan(64 * 1024 * 1024)
    }))

  it.scopedLive("fails head, and what relies on it", () =>
    Effect.gen(function*() {
      const { storage } = yield* on((_, response) => {
        response.writeHead(200, { etag: "\"e\"", "transfer-encoding": "chunked" }).end()
      })
      for (
        const use of [
          storage.head("a"),
          storage.exists("a"),
          storage.loadRanges("a", [ByteRange.last(3)]),
          storage.copy("a", "b")
        ]
      ) {
        const failure = yield* failureOf(Effect.asVoid<unknown, StorageError.StorageError, never>(use))
        expect(failure._tag).toBe("UnexpectedStorageError")
      }
    }))
})

describe("a server that sends no size with a HEAD, and fails the request that would have it", () => {
  it.scopedLive("fails as that request does, and is asked again where that may help", () =>
    Effect.gen(function*() {
      for (
        const [status, code, tag] of [
          [403, "AccessDenied", "AccessDenied"],
          [404, "NoSuchKey", "ObjectNotFound"],
          [503, "SlowDown", "StorageUnavailable"]
        ] as const
      ) {
        let failures = Infinity
        const { asked, storage } = yield* on(({ method }, response) => {
          response.setHeader("etag", "\"e\"")
          if (method === "HEAD") return response.writeHead(200, { "transfer-encoding": "chunked" }).end()
          if (failures-- > 0) return response.writeHead(status).end(`<Error><Code>${code}</Code></Error>`)
          return response.writeHead(206, { "content-range": "bytes 0-0/5", "content-length": 1 }).end("a")
        })
        expect((yield* failureOf(storage.head("a")))._tag).toBe(tag)
        if (tag !== "StorageUnavailable") continue
        failures = 1
        expect((yield* storage.head("a")).size).toBe(5)
        expect(asked.slice(-4).map(({ method }) => method)).toEqual(["HEAD", "GET", "HEAD", "GET"])
      }
    }))
})

describe("a listing that is cut off", () => {
  it.scopedLive("fails if the server sends no continuation token", () =>
    Effect.gen(function*() {
      const { storage } = yield* on((_, response) => {
        response.end(
          "<ListBucketResult><IsTruncated>true</IsTruncated>" +
            "<Contents><Key>a</Key><Size>1</Size><ETag>\"e\"</ETag></Contents></ListBucketResult>"
        )
      })
      for (const list of [storage.list(), storage.listDirectory(), Stream.runCollect(storage.entries())]) {
        const failure = yield* failureOf(Effect.asVoid<unknown, StorageError.StorageError, never>(list))
        expect(failure._tag).toBe("UnexpectedStorageError")
        expect(failure.message).toContain("listed only a part of the keys")
      }
    }))

  it.scopedLive("fails if it is longer than any listing", () =>
    Effect.gen(function*() {
      const { sockets, storage } = yield* on((_, response) => {
        const write = () => {
          while (response.write("<Contents><Key>a</Key></Contents>".repeat(1000))) { /* goes on */ }
        }
        response.on("drain", write)
        write()
      })
      const failure = yield* failureOf(storage.list())
      expect(failure._tag).toBe("UnexpectedStorageError")
      expect(failure.message).toContain("longer than 16777216 bytes")
      yield* eventually(() => expect(sockets.size).toBe(0))
    }))
})

describe("a removal with ifMatch", () => {
  const error = (response: http.ServerResponse, status: number, code: string) =>
    response.writeHead(status).end(`<Error><Code>${code}</Code></Error>`)

  /** A server with the object `a` under the etag `now`. */
  const removing = (kind: "honours" | "ignores" | "reports missing objects") =>
    Effect.gen(function*() {
      let isThere = true
      const server = yield* on((request, response) => {
        const isA = request.url === "/weights/a" && isThere
        const condition = kind === "honours" ? request.headers["if-match"] : undefined
        if (!isA && (condition !== undefined || kind === "reports missing objects")) {
          return error(response, 404, "NoSuchKey")
        }
        if (isA && condition !== undefined && condition !== "\"now\"") return error(response, 412, "PreconditionFailed")
        if (isA) isThere = false
        return response.writeHead(204).end()
      })
      return { ...server, isThere: () => isThere }
    })

  it.scopedLive("is done by a server that supports it, which is detected once", () =>
    Effect.gen(function*() {
      const { asked, isThere, storage } = yield* removing("honours")
      expect((yield* failureOf(storage.remove("a", { ifMatch: "before" })))._tag).toBe("PreconditionFailed")
      expect(isThere()).toBe(true)
      // Two to find out.
      expect(asked.length).toBe(3)
      expect(asked.slice(0, 2).every(({ url }) => url.startsWith("/weights/a.surfing-weights-"))).toBe(true)
      yield* storage.remove("a", { ifMatch: "now" })
      expect(isThere()).toBe(false)
      expect((yield* failureOf(storage.remove("a", { ifMatch: "now" })))._tag).toBe("PreconditionFailed")
      expect(asked.slice(3)).toEqual([
        { method: "DELETE", url: "/weights/a", ifMatch: "\"now\"" },
        { method: "DELETE", url: "/weights/a", ifMatch: "\"now\"" }
      ])
    }))

  for (const kind of ["ignores", "reports missing objects"] as const) {
    it.scopedLive(`fails on a server that ${kind}, before it removes anything`, () =>
      Effect.gen(function*() {
        const { asked, isThere, storage } = yield* removing(kind)
        for (const ifMatch of ["before", "now"]) {
          const failure = yield* failureOf(storage.remove("a", { ifMatch }))
          expect(failure._tag).toBe("UnsupportedOperation")
          expect(failure.message).toContain("ifMatch")
        }
        expect(isThere()).toBe(true)
        expect(asked.some(({ url }) => url === "/weights/a")).toBe(false)
        expect(asked.length).toBeLessThanOrEqual(2)
        yield* storage.remove("a")
        expect(isThere()).toBe(false)
      }))
  }

  it.scopedLive("reports a doubt if a response was lost and the object is gone", () =>
    Effect.gen(function*() {
      let removals = 0
      const { storage } = yield* on((request, response) => {
        if (request.headers["if-match"] === undefined) return response.writeHead(204).end()
        if (request.url !== "/weights/a" || removals > 0) return error(response, 404, "NoSuchKey")
        removals++
        return request.socket.destroy()
      })
      expect(yield* failureOf(storage.remove("a", { ifMatch: "now" }))).toMatchObject({
        _tag: "StorageUnavailable",
        attempts: 2
      })
    }))

  it.scopedLive("fails for an etag that no object can have, without a request", () =>
    Effect.gen(function*() {
      const { asked, storage } = yield* removing("honours")
      expect((yield* failureOf(storage.remove("a", { ifMatch: "a\nb" })))._tag).toBe("PreconditionFailed")
      expect(asked).toEqual([])
    }))
})

const listingOf = (key: string, size: number) =>
  "<ListBucketResult xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"><Name>weights</Name><Prefix></Prefix>" +
  `<IsTruncated>false</IsTruncated><Contents><Key>${key}</Key><LastModified>2026-01-01T00:00:00Z</LastModified>` +
  `<ETag>"e"</ETag><Size>${size}</Size></Contents></ListBucketResult>`

describe("a server that keeps the encoding of an upload's signature as the object's", () => {
  it.scopedLive("has objects without it", () =>
    Effect.gen(function*() {
      for (
        const [sent, encoding] of [
          ["aws-chunked", undefined],
          ["AWS-Chunked", undefined],
          ["aws-chunked,gzip", "gzip"],
          ["gzip, aws-chunked", "gzip"],
          ["gzip", "gzip"],
          ["br, gzip", "br, gzip"]
        ] as const
      ) {
        const { storage } = yield* on(({ method, url }, response) => {
          // Of what may be encoded on its way, the size is looked up.
          if (url?.includes("list-type") === true) return response.end(listingOf("a", 3))
          response.writeHead(200, { etag: "\"e\"", "content-length": 3, "content-encoding": sent })
          return response.end(method === "HEAD" ? "" : "abc")
        })
        const { attributes } = yield* storage.head("a")
        expect([sent, attributes?.contentEncoding]).toEqual([sent, encoding])
        expect(Buffer.from(yield* storage.load("a")).toString()).toBe("abc")
      }
    }))
})
