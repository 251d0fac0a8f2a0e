/**
 * A weight server over memory and over a directory, as clients without this library see it.
 */
import { describe, expect, it } from "@effect/vitest"
import {
  Config,
  ConfigProvider,
  Duration,
  Effect,
  Exit,
  Layer,
  Logger,
  Redacted,
  Schema,
  type Scope,
  Stream
} from "effect"
import { spawnSync } from "node:child_process"
import { createHash } from "node:crypto"
import { once } from "node:events"
import * as http from "node:http"
import { setImmediate } from "node:timers/promises"
import type { StorageBackend } from "surfing-weights"
import { MemoryStorage, Storage, StorageError, WeightServer } from "surfing-weights"
import { storageOnDirectory } from "../support/directory.js"
import { ask, raw, serve, serveLayer, serveOf } from "../support/weightServer.js"

const bytes = (size: number) => Uint8Array.from({ length: size }, (_, i) => (i * 31 + (i >> 8)) % 251)

const failureOf = (json: string) => Schema.decodeSync(Schema.parseJson(StorageError.StorageError))(json)

const writable = { writable: true }

const suite = (name: string, storage: Layer.Layer<Storage.Storage, unknown>) =>
  describe(name, () => {
    const test = (name: string, body: () => Effect.Effect<void, unknown, Storage.Storage | Scope.Scope>) =>
      it.live(name, () => Effect.scoped(body()).pipe(Effect.provide(storage)))

    test("GET returns an object with its etag, time and content type, and HEAD the same without the body", () =>
      Effect.gen(function*() {
        const served = yield* serve()
        const info = yield* served.storage.save("bert/layer_0.bin", bytes(100_000))
        yield* served.storage.save("bert/config.json", new TextEncoder().encode("{}"))
        const got = yield* ask(served, "GET", "/objects/bert/layer_0.bin")
        expect(got.status).toBe(200)
        expect(new Uint8Array(got.body)).toEqual(bytes(100_000))
        expect(got.headers).toMatchObject({
          etag: `"${info.etag}"`,
          "last-modified": info.lastModified.toUTCString(),
          "accept-ranges": "bytes",
          "content-type": "application/octet-stream",
          "content-length": "100000",
          "x-content-type-options": "nosniff"
        })
        const head = yield* ask(served, "HEAD", "/objects/bert/layer_0.bin")
        expect(head.body.length).toBe(0)
        const { connection: _, date: __, ...expected } = got.headers
        expect(head.headers).toMatchObject(expected)
        const config = yield* ask(served, "GET", "/objects/bert/config.json")
        expect(config.headers["content-type"]).toBe("application/json")
      }))

    test("empty objects, objects of one byte and those around the size of a piece arrive whole", () =>
      Effect.gen(function*() {
        const served = yield* serve()
        for (const size of [0, 1, 65_535, 65_536, 65_537, 524_287, 524_288, 524_289, 3_000_000]) {
          yield* served.storage.save("object", bytes(size))
          const got = yield* ask(served, "GET", "/objects/object")
          expect([got.status, got.headers["content-length"]]).toEqual([200, String(size)])
          expect(Buffer.compare(got.body, bytes(size))).toBe(0)
        }
      }))

    test("a range is a 206 with content-range; several ranges, another unit and malformed ranges return the whole object", () =>
      Effect.gen(function*() {
        const served = yield* serve()
        yield* served.storage.save("object", bytes(1000))
        const of = (range: string) => ask(served, "GET", "/objects/object", { range })
        const parts: ReadonlyArray<readonly [string, number, number]> = [
          ["bytes=0-0", 0, 1],
          ["bytes=10-19", 10, 20],
          ["bytes=990-2000", 990, 1000],
          ["bytes=999-", 999, 1000],
          ["bytes=-1", 999, 1000],
          ["bytes=-5000", 0, 1000],
          ["BYTES=0-9", 0, 10],
          ["bytes=0-99999999999999999999999", 0, 1000]
        ]
        for (const [range, start, end] of parts) {
          const got = yield* of(range)
          expect([range, got.status, got.headers["content-range"], got.headers["content-length"]]).toEqual(
            [range, 206, `bytes ${start}-${end - 1}/1000`, String(end - start)]
          )
          expect(new Uint8Array(got.body)).toEqual(bytes(1000).slice(start, end))
        }
        for (const range of ["bytes=0-1,3-4", "lines=0-1", "bytes=5-2", "bytes=", "bytes=-", "bytes=a-b", "0-1"]) {
          const got = yield* of(range)
          expect([range, got.status, got.headers["content-range"], got.body.length]).toEqual([
            range,
            200,
            undefined,
            1000
          ])
        }
        expect((yield* ask(served, "HEAD", "/objects/object", { range: "bytes=0-0" })).status).toBe(200)
      }))

    test("a range that is not satisfiable is a 416 with the size of the object", () =>
      Effect.gen(function*() {
        const served = yield* serve()
        yield* served.storage.save("object", bytes(10))
        for (const range of ["bytes=10-", "bytes=10-20", "bytes=-0", "bytes=99999999999999999999999-"]) {
          const got = yield* ask(served, "GET", "/objects/object", { range })
          expect([range, got.status, got.headers["content-range"]]).toEqual([range, 416, "bytes */10"])
          expect(failureOf(got.text)._tag).toBe("InvalidRange")
        }
        yield* served.storage.save("object", bytes(0))
        expect((yield* ask(served, "GET", "/objects/object", { range: "bytes=0-" })).status).toBe(416)
        const last = yield* ask(served, "GET", "/objects/object", { range: "bytes=-5" })
        expect([last.status, last.headers["content-length"]]).toEqual([200, "0"])
      }))

    test("preconditions hold, fail with a 412 or answer with a 304, as in RFC 9110", () =>
      Effect.gen(function*() {
        const served = yield* serve()
        const { etag, lastModified } = yield* served.storage.save("object", bytes(10))
        const tag = `"${etag}"`
        const now = lastModified.toUTCString()
        const before = new Date(lastModified.getTime() - 60_000).toUTCString()
        const cases: ReadonlyArray<readonly [Record<string, string>, number]> = [
          [{ "if-match": tag }, 200],
          [{ "if-match": "*" }, 200],
          [{ "if-match": `"other", ${tag}` }, 200],
          [{ "if-match": `"other"` }, 412],
          [{ "if-match": `"other", "another"` }, 412],
          [{ "if-match": `W/${tag}` }, 412],
          [{ "if-match": "nonsense" }, 412],
          [{ "if-none-match": tag }, 304],
          [{ "if-none-match": `W/${tag}` }, 304],
          [{ "if-none-match": `"other",${tag}` }, 304],
          [{ "if-none-match": "*" }, 304],
          [{ "if-none-match": `"other"` }, 200],
          [{ "if-none-match": `"other", "another"` }, 200],
          [{ "if-match": tag, "if-none-match": tag }, 304],
          [{ "if-match": `"other"`, "if-none-match": tag }, 412],
          [{ "if-modified-since": now }, 304],
          [{ "if-modified-since": before }, 200],
          [{ "if-modified-since": now, "if-none-match": `"other"` }, 200],
          [{ "if-modified-since": "yesterday" }, 200],
          [{ "if-unmodified-since": now }, 200],
          [{ "if-unmodified-since": before }, 412],
          [{ "if-unmodified-since": before, "if-match": tag }, 200],
          [{ "if-range": tag, range: "bytes=0-1" }, 206],
          [{ "if-range": `"other"`, range: "bytes=0-1" }, 200],
          [{ "if-range": `W/${tag}`, range: "bytes=0-1" }, 200],
          [{ "if-range": now, range: "bytes=0-1" }, 200],
          [{ "if-range": `"other"`, range: "bytes=50-" }, 200],
          [{ "if-match": `"other"`, range: "bytes=50-" }, 412],
          [{ "if-none-match": tag, range: "bytes=50-" }, 304]
        ]
        for (const [headers, status] of cases) {
          const got = yield* ask(served, "GET", "/objects/object", headers)
          expect([headers, got.status]).toEqual([headers, status])
          if (status === 304) expect([got.headers.etag, got.body.length]).toEqual([tag, 0])
          if (status === 412) expect(failureOf(got.text)._tag).toBe("PreconditionFailed")
          if (status === 200) expect(got.body.length).toBe(10)
          if (!("range" in headers)) {
            expect([headers, (yield* ask(served, "HEAD", "/objects/object", headers)).status]).toEqual([
              headers,
              status
            ])
          }
        }
        for (const headers of [{ "if-match": "*" }, { "if-none-match": "*" }, { "if-match": `"a", "b"` }]) {
          expect((yield* ask(served, "GET", "/objects/none", headers)).status).toBe(404)
        }
      }))

    test("keys with unusual characters can be reached, and are not normalized", () =>
      Effect.gen(function*() {
        const served = yield* serve(writable)
        const keys = [
          "a b",
          "a+b",
          "100%",
          "%41",
          "a%2Fb",
          "q?x=1",
          "h#x",
          "quote\"'",
          "emoji \u{1f600}/\ufffd",
          "con",
          "dot.",
          "...",
          "..a",
          "a;b",
          "a&b=c",
          "[x]",
          "back\\slash",
          "x".repeat(200),
          "ü/ü",
          "objects/objects",
          ":80",
          "~"
        ]
        for (const key of keys) {
          const path = `/objects/${key.split("/").map(encodeURIComponent).join("/")}`
          expect([key, (yield* ask(served, "PUT", path, {}, key)).status]).toEqual([key, 200])
          expect([key, (yield* ask(served, "GET", path)).text]).toEqual([key, key])
        }
        expect([...(yield* served.storage.list())].sort()).toEqual([...keys].sort())
        // A slash may be percent-encoded as well.
        expect((yield* ask(served, "GET", "/objects/%C3%BC%2F%C3%BC")).text).toBe("ü/ü")
      }))

    test("an invalid key is a 400, however it is encoded", () =>
      Effect.gen(function*() {
        const served = yield* serve(writable)
        const paths = [
          "/objects/",
          "/objects//etc/passwd",
          "/objects/../secret",
          "/objects/a/../../b",
          "/objects/%2e%2e/secret",
          "/objects/..%2Fsecret",
          "/objects/a/%2E%2E/b",
          "/objects/a%00b",
          "/objects/a%0d%0aX-Injected:%201",
          "/objects/a/",
          "/objects/a//b",
          "/objects/.",
          `/objects/${"x".repeat(1025)}`,
          "/objects/%ZZ",
          "/objects/%",
          "/objects/%C3%28",
          "/objects/%ED%A0%80"
        ]
        for (const path of paths) {
          for (const method of ["GET", "HEAD", "PUT", "DELETE"]) {
            const got = yield* ask(served, method, path, method === "PUT" ? { "content-length": "0" } : {})
            expect([method, path, got.status]).toEqual([method, path, 400])
            expect(got.headers["x-injected"]).toBeUndefined()
          }
        }
        expect(yield* served.storage.list()).toEqual([])
      }))

    test("it is read-only by default, and says so", () =>
      Effect.gen(function*() {
        const served = yield* serve()
        yield* served.storage.save("object", bytes(10))
        for (const method of ["PUT", "DELETE", "POST", "PATCH"]) {
          const got = yield* ask(served, method, "/objects/object", {}, method === "DELETE" ? undefined : "x")
          expect([method, got.status, got.headers.allow]).toEqual([method, 405, "GET, HEAD"])
          expect(failureOf(got.text)._tag).toBe("UnsupportedOperation")
        }
        expect((yield* served.storage.head("object")).size).toBe(10)
        const health = yield* ask(served, "GET", "/health")
        const { attributes, list, objectsWithinObjects } = served.storage.backend.capabilities
        expect(JSON.parse(health.text)).toEqual({
          status: "ok",
          capabilities: {
            write: false,
            list,
            createOnly: false,
            compareAndSwap: false,
            conditionalRemove: false,
            objectsWithinObjects,
            attributes
          }
        })
      }))

    test("PUT saves all or nothing, and DELETE removes, both under their preconditions", () =>
      Effect.gen(function*() {
        const served = yield* serve(writable)
        const put = (headers: Record<string, string>, body: string) => ask(served, "PUT", "/objects/a/b", headers, body)
        const first = yield* put({ "if-none-match": "*" }, "one")
        expect(first.status).toBe(201)
        const info = yield* served.storage.head("a/b")
        expect(JSON.parse(first.text)).toMatchObject({ key: "a/b", size: 3, etag: info.etag })
        expect(first.headers.etag).toBe(`"${info.etag}"`)
        const again = yield* put({ "if-none-match": "*" }, "two")
        expect([again.status, failureOf(again.text)._tag]).toEqual([412, "ObjectAlreadyExists"])
        const other = yield* put({ "if-match": `"other"` }, "two")
        expect([other.status, failureOf(other.text)._tag]).toEqual([412, "PreconditionFailed"])
        expect((yield* put({ "if-match": `"x", "${info.etag}"` }, "two!")).status).toBe(200)
        expect((yield* put({ "if-match": `"x", "${info.etag}"` }, "three")).status).toBe(412)
        expect((yield* put({ "if-match": "*" }, "four")).status).toBe(200)
        expect((yield* put({ "if-none-match": `"x"` }, "five")).status).toBe(501)
        const withoutLength = "PUT /objects/a/b HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        expect(yield* raw(served, withoutLength)).toMatch(/^HTTP\/1.1 411 /)
        expect((yield* put({ "content-range": "bytes 0-3/10" }, "five")).status).toBe(400)
        expect((yield* put({ "transfer-encoding": "chunked" }, "without a length")).status).toBe(200)
        expect(new TextDecoder().decode(yield* served.storage.load("a/b"))).toBe("without a length")
        expect((yield* ask(served, "PUT", "/objects/none", { "if-match": "*" }, "x")).status).toBe(412)
        const remove = (headers: Record<string, string>) => ask(served, "DELETE", "/objects/a/b", headers)
        const { etag } = yield* served.storage.head("a/b")
        const stale = yield* remove({ "if-match": `"x"` })
        expect([stale.status, failureOf(stale.text)._tag]).toEqual([412, "PreconditionFailed"])
        expect((yield* remove({ "if-none-match": `"x"` })).status).toBe(501)
        expect((yield* remove({ "if-unmodified-since": new Date(0).toUTCString() })).status).toBe(412)
        expect((yield* remove({ "if-match": `"x", "${etag}"` })).status).toBe(204)
        expect((yield* remove({ "if-match": "*" })).status).toBe(412)
        expect((yield* remove({})).status).toBe(204)
        expect(yield* served.storage.list()).toEqual([])
      }))

    test("listings are pages or lines of JSON, with prefix, startAfter, delimiter and limit", () =>
      Effect.gen(function*() {
        const served = yield* serve()
        const keys = ["a/1", "a/2", "a/b/3", "b", "c d", "ü"]
        for (const key of keys) yield* served.storage.save(key, bytes(3))
        const page = (query: string) =>
          Effect.map(ask(served, "GET", `/objects${query}`), ({ text }) => {
            const { next, objects, prefixes } = JSON.parse(text) as {
              readonly objects: ReadonlyArray<{ readonly key: string }>
              readonly prefixes: ReadonlyArray<string>
              readonly next?: string
            }
            return [objects.map(({ key }) => key), prefixes, next]
          })
        expect(yield* page("")).toEqual([keys, [], undefined])
        expect(yield* page("?limit=2")).toEqual([["a/1", "a/2"], [], "a/2"])
        expect(yield* page("?limit=2&startAfter=a%2F2")).toEqual([["a/b/3", "b"], [], "b"])
        expect(yield* page("?limit=6")).toEqual([keys, [], undefined])
        expect(yield* page("?prefix=a/")).toEqual([["a/1", "a/2", "a/b/3"], [], undefined])
        expect(yield* page("?prefix=c+d")).toEqual([["c d"], [], undefined])
        expect(yield* page("?prefix=../")).toEqual([[], [], undefined])
        expect(yield* page("?delimiter=/")).toEqual([["b", "c d", "ü"], ["a/"], undefined])
        expect(yield* page("?delimiter=/&prefix=a/")).toEqual([["a/1", "a/2"], ["a/b/"], undefined])
        expect(yield* page("?delimiter=/&limit=1")).toEqual([[], ["a/"], "a/"])
        expect(yield* page("?delimiter=/&limit=1&startAfter=a/")).toEqual([["b"], [], "b"])
        const lines = yield* ask(served, "GET", "/objects", { accept: "application/x-ndjson" })
        expect(lines.headers["content-type"]).toBe("application/x-ndjson")
        const entries = lines.text.trimEnd().split("\n").map((line) => JSON.parse(line) as { readonly key: string })
        expect(entries.map(({ key }) => key)).toEqual(keys)
        expect(entries[0]).toMatchObject({ size: 3, etag: (yield* served.storage.head("a/1")).etag })
        const folders = yield* ask(served, "GET", "/objects?delimiter=/", { accept: "application/x-ndjson" })
        expect(JSON.parse(folders.text.split("\n")[0] ?? "")).toEqual({ prefix: "a/" })
        for (const query of ["?limit=0", "?limit=-1", "?limit=x", "?delimiter=a"]) {
          expect([query, (yield* ask(served, "GET", `/objects${query}`)).status]).toEqual([query, 400])
        }
      }))

    test("a missing object is a 404 with its failure, in a header where the response has no body", () =>
      Effect.gen(function*() {
        const served = yield* serve()
        const got = yield* ask(served, "GET", "/objects/none")
        expect([got.status, failureOf(got.text)]).toMatchObject([404, { _tag: "ObjectNotFound", key: "none" }])
        const head = yield* ask(served, "HEAD", "/objects/none")
        expect(head.status).toBe(404)
        expect(failureOf(decodeURIComponent(String(head.headers["storage-error"])))._tag).toBe("ObjectNotFound")
        const path = yield* ask(served, "GET", "/nowhere")
        expect([path.status, JSON.parse(path.text)]).toEqual([404, { error: "there is nothing at this path" }])
      }))

    test("one connection serves one request after the other, whatever the responses are", () =>
      Effect.gen(function*() {
        const served = yield* serve(writable)
        const { etag } = yield* served.storage.save("object", bytes(1000))
        const agent = yield* Effect.acquireRelease(
          Effect.sync(() => new http.Agent({ keepAlive: true })),
          (agent) => Effect.sync(() => agent.destroy())
        )
        const requests: ReadonlyArray<readonly [number, string, string, http.OutgoingHttpHeaders?]> = [
          [200, "GET", "/objects/object"],
          [200, "HEAD", "/objects/object"],
          [206, "GET", "/objects/object", { range: "bytes=1-2" }],
          [416, "GET", "/objects/object", { range: "bytes=1000-" }],
          [304, "GET", "/objects/object", { "if-none-match": `"${etag}"` }],
          [304, "HEAD", "/objects/object", { "if-none-match": `"${etag}"` }],
          [412, "HEAD", "/objects/object", { "if-match": "\"other\"" }],
          [404, "GET", "/objects/none"],
          [404, "HEAD", "/objects/none"],
          [400, "HEAD", "/objects/%2e%2e"],
          [404, "HEAD", "/nowhere"],
          [405, "POST", "/objects/object"],
          [200, "GET", "/objects", { accept: "application/x-ndjson" }],
          [200, "HEAD", "/objects"],
          [200, "HEAD", "/health"],
          [200, "HEAD", "/metrics"],
          [200, "PUT", "/objects/object"],
          [204, "DELETE", "/objects/object"],
          [200, "GET", "/health"]
        ]
        for (const [at, [status, method, path, headers = {}]] of requests.entries()) {
          const reused = yield* Effect.promise(async () => {
            const request = http.request({ host: "127.0.0.1", port: served.port, method, path, headers, agent }).end()
            const [response] = await once(request, "response") as [http.IncomingMessage]
            await once(response.resume(), "end")
            // Only then the agent has it back.
            await setImmediate()
            return [response.statusCode, request.reusedSocket]
          })
          expect([method, path, ...reused]).toEqual([method, path, status, at > 0])
        }
      }))
  })

suite("a weight server over memory", MemoryStorage.layer())
suite("a weight server over a directory", storageOnDirectory())

const overMemory = (
  name: string,
  body: () => Effect.Effect<void, unknown, Storage.Storage | Scope.Scope>
) => it.live(name, () => Effect.scoped(body()).pipe(Effect.provide(MemoryStorage.layer())))

/** A storage with some operations replaced. */
const broken = (override: Partial<StorageBackend.StorageBackend>) =>
  Effect.map(MemoryStorage.make(), (memory) => Storage.make({ ...memory.backend, ...override }))

describe("failures", () => {
  const reason = "/srv/weights in bucket-7 at host.internal"
  const cases: ReadonlyArray<readonly [StorageError.LoadError, number]> = [
    [new StorageError.AccessDenied({ reason }), 403],
    [new StorageError.StorageNotFound({ reason }), 502],
    [new StorageError.StorageUnavailable({ reason, retryAfter: Duration.millis(2500) }), 503],
    [new StorageError.StorageTimeout({ limit: Duration.seconds(1) }), 504],
    [new StorageError.CorruptObject({ problem: "checksum", reason: "another checksum" }), 502],
    [new StorageError.UnexpectedStorageError({ reason, cause: new Error(reason) }), 500]
  ]
  /** The log of everything that runs under it. */
  const logged = () => {
    const lines: Array<string> = []
    const logger = Logger.map(Logger.logfmtLogger, (line) => {
      if (!line.includes("level=INFO")) lines.push(line)
    })
    return { lines, logger: Logger.replace(Logger.defaultLogger, logger) }
  }

  for (const [error, status] of cases) {
    it.live(`${error._tag} is a ${status} that names nothing of the server, and is logged in full`, () =>
      Effect.scoped(Effect.gen(function*() {
        const { lines, logger } = logged()
        const storage = yield* broken({ name: "S3(bucket-7)", open: () => Effect.fail(error) })
        const served = yield* Effect.provide(serveOf(storage), logger)
        const got = yield* ask(served, "GET", "/objects/object")
        expect(got.status).toBe(status)
        expect(failureOf(got.text)).toMatchObject({ _tag: error._tag, backend: "WeightServer", key: "object" })
        expect(JSON.stringify([got.text, got.headers])).not.toMatch(/srv|bucket-7|host\.internal/)
        expect(got.headers["retry-after"]).toBe(error._tag === "StorageUnavailable" ? "3" : undefined)
        expect(lines.length).toBe(1)
        expect(lines[0]).toContain(`open \\"object\\" on S3(bucket-7)`)
        if ("reason" in error) expect(lines[0]).toContain(error.reason)
      })))
  }

  it.live("a defect of a storage is a 500 without a stack trace", () =>
    Effect.scoped(Effect.gen(function*() {
      const served = yield* Effect.flatMap(broken({ open: () => Effect.die(new Error("secret inside")) }), serveOf)
      const got = yield* ask(served, "GET", "/objects/object")
      expect([got.status, failureOf(got.text)._tag]).toEqual([500, "UnexpectedStorageError"])
      expect(got.text).not.toMatch(/secret|\bat\b.*\.ts/)
    })))

  it.live("a client never receives all bytes of an object that proves to be corrupt at its end", () =>
    Effect.scoped(Effect.gen(function*() {
      const wrong = new StorageError.CorruptObject({ problem: "checksum", reason: "another checksum" })
      const memory = yield* MemoryStorage.make()
      // More than is read when it is opened.
      const content = new Uint8Array(3 * 1024 * 1024).fill(7)
      yield* memory.save("object", content)
      const storage = Storage.make({
        ...memory.backend,
        open: (key, options) =>
          Effect.map(memory.backend.open(key, options), (opened) => ({
            ...opened,
            stream: Stream.concat(opened.stream, Stream.fail(wrong))
          }))
      })
      const served = yield* serveOf(storage)
      const got = yield* Effect.promise(async () => {
        const response = await fetch(`${served.url}/objects/object`)
        const outcome = await response.arrayBuffer().then(() => "whole", () => "broken off")
        return [response.status, outcome]
      })
      expect(got).toEqual([200, "broken off"])
    })))

  it.live("health is a 503 while the storage cannot be reached", () =>
    Effect.scoped(Effect.gen(function*() {
      const denied = new StorageError.AccessDenied({ reason })
      const storage = yield* broken({ name: "S3(bucket-7)", head: () => Effect.fail(denied) })
      const served = yield* serveOf(storage)
      const got = yield* ask(served, "GET", "/health")
      expect([got.status, failureOf(got.text)._tag]).toEqual([503, "AccessDenied"])
      expect(got.text).not.toMatch(/srv|bucket-7|host\.internal/)
    })))
})

describe("attributes", () => {
  const headers = {
    "content-type": "application/x-npy",
    "cache-control": "public, max-age=31536000, immutable",
    "content-disposition": "attachment; filename=\"a.npy\"",
    "content-encoding": "gzip",
    "content-language": "de",
    "x-object-meta-model": "bert",
    "x-object-meta-author": "=?UTF-8?B?SsO8cmdlbg==?="
  }
  const attributes = {
    contentType: "application/x-npy",
    cacheControl: "public, max-age=31536000, immutable",
    contentDisposition: "attachment; filename=\"a.npy\"",
    contentEncoding: "gzip",
    contentLanguage: "de",
    metadata: { model: "bert", author: "J\u00fcrgen" }
  }

  overMemory("PUT keeps them with the object, and GET and HEAD return them", () =>
    Effect.gen(function*() {
      const served = yield* serve(writable)
      const put = yield* ask(served, "PUT", "/objects/a", headers, "bytes")
      expect(JSON.parse(put.text)).toMatchObject({ attributes })
      expect((yield* served.storage.head("a")).attributes).toEqual(attributes)
      for (const [method, range] of [["GET", {}], ["GET", { range: "bytes=0-1" }], ["HEAD", {}]] as const) {
        const got = yield* ask(served, method, "/objects/a", range)
        expect(got.headers).toMatchObject({ ...headers, vary: "accept-encoding" })
        expect(got.headers["x-object-attributes"]).toBe("content-type, cache-control")
        // A saved page must not run on the origin of the server.
        expect(got.headers["content-security-policy"]).toBe("default-src 'none'; sandbox")
      }
    }))

  overMemory(
    "PUT keeps those that a request names, and none that fetch adds to one with a condition",
    () =>
      Effect.gen(function*() {
        const served = yield* serve(writable)
        const saved = (headers: Record<string, string>) =>
          Effect.zipRight(
            ask(served, "PUT", "/objects/a", headers, "bytes"),
            Effect.map(served.storage.head("a"), (info) => info.attributes)
          )
        const [type, cache] = [{ "content-type": "text/plain" }, { "cache-control": "no-cache" }]
        const pragma = { pragma: "no-cache" }
        const names = (names: string) => ({ "x-object-attributes": names })
        const contentType = "text/plain"
        const cacheControl = "no-cache"
        expect(yield* saved({ ...type, ...cache })).toEqual({ contentType, cacheControl })
        expect(yield* saved({ ...type, ...cache, ...pragma })).toEqual({ contentType })
        expect(yield* saved({ ...type, ...cache, ...names("") })).toBeUndefined()
        expect(yield* saved({ ...type, ...cache, ...names("content-type") })).toEqual({ contentType })
        expect(yield* saved({ ...type, ...cache, ...pragma, ...names("content-type, cache-control") }))
          .toEqual({ contentType, cacheControl })
      })
  )

  overMemory(
    "a request that accepts no encoding receives the object's under another name, so that no client decodes",
    () =>
      Effect.gen(function*() {
        const served = yield* serve(writable)
        yield* ask(served, "PUT", "/objects/a", headers, "bytes")
        for (const method of ["GET", "HEAD"]) {
          const got = yield* ask(served, method, "/objects/a", { "accept-encoding": "identity" })
          expect([got.headers["content-encoding"], got.headers["x-object-content-encoding"]]).toEqual([
            undefined,
            "gzip"
          ])
        }
      })
  )

  overMemory(
    "without attributes the defaults are sent, and are not named as the object's",
    () =>
      Effect.gen(function*() {
        const served = yield* serve(writable)
        yield* ask(served, "PUT", "/objects/a", {}, "bytes")
        const got = yield* ask(served, "GET", "/objects/a")
        expect(got.headers).toMatchObject({ "content-type": "application/octet-stream", "cache-control": "no-cache" })
        for (const name of ["x-object-attributes", "vary", "content-security-policy"]) {
          expect(got.headers[name]).toBeUndefined()
        }
        expect((yield* served.storage.head("a")).attributes).toBeUndefined()
      })
  )

  it.live("a storage without attributes ignores the content type, and refuses an encoding and metadata", () =>
    Effect.scoped(Effect.gen(function*() {
      const memory = yield* MemoryStorage.make()
      const storage = Storage.make({
        ...memory.backend,
        capabilities: { ...memory.backend.capabilities, attributes: false }
      })
      const served = yield* serveOf(storage, writable)
      const put = (headers: Record<string, string>) =>
        Effect.map(ask(served, "PUT", "/objects/a", headers, "bytes"), ({ status }) => status)
      expect(yield* put({ "content-type": "application/x-npy", "cache-control": "no-store" })).toBe(200)
      expect((yield* memory.head("a")).attributes).toBeUndefined()
      expect([yield* put({ "content-encoding": "gzip" }), yield* put({ "x-object-meta-a": "b" })]).toEqual([501, 501])
    })))
})

describe("tokens", () => {
  const reader = "reader-0123456789abcdef"
  const writer = "writer-0123456789abcdef"
  const options: WeightServer.Options = {
    writable: true,
    auth: {
      tokens: [{ token: Redacted.make(reader), scope: "read" }, { token: Redacted.make(writer), scope: "write" }]
    }
  }
  const bearer = (token: string) => ({ authorization: `Bearer ${token}` })

  overMemory(
    "readers read, writers read and write, and clients without a token do neither",
    () =>
      Effect.gen(function*() {
        const served = yield* serve(options)
        const put = (headers: Record<string, string>) =>
          Effect.map(ask(served, "PUT", "/objects/a", headers, "x"), ({ status }) => status)
        const get = (headers: Record<string, string>, path = "/objects/a") =>
          Effect.map(ask(served, "GET", path, headers), ({ status }) => status)
        expect([yield* put({}), yield* put(bearer(reader)), yield* put(bearer(writer))]).toEqual([401, 403, 200])
        expect([yield* get({}), yield* get(bearer(reader)), yield* get(bearer(writer))]).toEqual([401, 200, 200])
        for (const path of ["/objects", "/metrics", "/objects/none", "/", "/nowhere"]) {
          expect([path, yield* get({}, path)]).toEqual([path, 401])
        }
        for (const path of ["/health", "/openapi.json", "/docs"]) {
          expect([path, yield* get({}, path)]).toEqual([path, 200])
        }
        expect((yield* ask(served, "DELETE", "/objects/a", bearer(reader))).status).toBe(403)
        expect((yield* ask(served, "DELETE", "/objects/a", bearer(writer))).status).toBe(204)
      })
  )

  overMemory("a browser at the root is redirected to the docs, which are public", () =>
    Effect.gen(function*() {
      const served = yield* serve(options)
      const accept = "text/html,application/xhtml+xml,*/*;q=0.8"
      const { headers, status } = yield* ask(served, "GET", "/", { accept })
      expect([status, headers.location]).toEqual([302, "docs"])
      expect((yield* ask(served, "GET", "/", { accept: "*/*" })).status).toBe(401)
    }))

  overMemory("unknown tokens are refused, without a hint", () =>
    Effect.gen(function*() {
      const served = yield* serve(options)
      yield* served.storage.save("a", bytes(1))
      const guesses = [
        "Bearer",
        "Bearer ",
        `Bearer ${reader}x`,
        `Bearer ${reader.slice(1)}`,
        `Bearer ${reader.toUpperCase()}`,
        `Basic ${reader}`,
        reader,
        `Bearer ${reader} ${writer}`,
        `Bearer ${reader},${writer}`,
        "Bearer undefined",
        `Bearer ${reader}${reader}`,
        `Bearer ${reader.slice(0, -1)}`
      ]
      for (const authorization of guesses) {
        const got = yield* ask(served, "GET", "/objects/a", { authorization })
        expect([authorization, got.status]).toEqual([authorization, 401])
        expect(got.headers["www-authenticate"]).toMatch(/^Bearer realm="weights"/)
        expect(failureOf(got.text)._tag).toBe("AccessDenied")
        expect(got.text).not.toContain(reader)
      }
    }))

  overMemory(
    "a save without a token sees the 401 also behind a body of several megabytes",
    () =>
      Effect.gen(function*() {
        const served = yield* serve(options)
        const got = yield* ask(served, "PUT", "/objects/a", {}, bytes(8_000_000))
        expect(got.status).toBe(401)
        expect(yield* served.storage.exists("a")).toBe(false)
      })
  )

  overMemory("a middleware decides instead, except on public paths", () =>
    Effect.gen(function*() {
      const { HttpServerRequest, HttpServerResponse } = yield* Effect.promise(() => import("@effect/platform"))
      const served = yield* serve({
        writable: true,
        auth: (app) =>
          Effect.flatMap(HttpServerRequest.HttpServerRequest, ({ headers }) =>
            headers["x-user"] === "ann" ? app : Effect.succeed(HttpServerResponse.empty({ status: 403 })))
      })
      expect((yield* ask(served, "PUT", "/objects/a", {}, "x")).status).toBe(403)
      expect((yield* ask(served, "PUT", "/objects/a", { "x-user": "ann" }, "x")).status).toBe(200)
      expect((yield* ask(served, "GET", "/health")).status).toBe(200)
    }))
})

describe("options", () => {
  const refusal = (options: WeightServer.Options, host?: string) =>
    Effect.scoped(serve(options, host)).pipe(
      Effect.exit,
      Effect.map((exit) =>
        Exit.isFailure(exit) && exit.cause._tag === "Fail" && StorageError.isStorageError(exit.cause.error)
          ? exit.cause.error
          : undefined
      )
    )

  overMemory(
    "a writable server without auth starts only on a loopback address",
    () =>
      Effect.gen(function*() {
        expect(yield* refusal({ writable: true }, "0.0.0.0")).toMatchObject({ _tag: "InvalidOptions", option: "auth" })
        expect(yield* refusal({ writable: true }, "127.0.0.1")).toBeUndefined()
        expect(yield* refusal({}, "0.0.0.0")).toBeUndefined()
        const token = Redacted.make("0123456789abcdef")
        expect(yield* refusal({ writable: true, auth: { tokens: [{ token, scope: "write" }] } }, "0.0.0.0"))
          .toBeUndefined()
        const router = yield* Effect.scoped(Effect.either(WeightServer.router({ writable: true })))
        expect(router._tag).toBe("Left")
      })
  )

  overMemory(
    "an invalid option fails with InvalidOptions, its value and what is allowed",
    () =>
      Effect.gen(function*() {
        const invalid: ReadonlyArray<readonly [WeightServer.Options, option: string, message: string]> = [
          [{ maxTransfers: 0 }, "maxTransfers", "maxTransfers must be a whole number of at least 1 (got 0)"],
          [
            { maxBodySize: 1.5 },
            "maxBodySize",
            "maxBodySize must be a whole number of bytes of at least 1 (got 1.5 bytes)"
          ],
          [{ idleTimeout: 0 }, "idleTimeout", "idleTimeout must be greater than zero and at most 24d"],
          [{ shutdownTimeout: "25 days" }, "shutdownTimeout", "(got 25d)"],
          [{ origins: ["https://a.example/path"] }, "origins.0", `(got "https://a.example/path")`],
          [{ redirect: { expiresIn: "8 days" } }, "redirect.expiresIn", "at least 1s and at most 7d (got 8d)"],
          [{ redirect: { expiresIn: 999 } }, "redirect.expiresIn", "(got 999)"],
          [{ auth: { tokens: [] } }, "auth.tokens", "must have at least one token"],
          [
            { auth: { tokens: [{ token: Redacted.make("short-secret"), scope: "read" }] } },
            "auth.tokens.0.token",
            "16"
          ],
          [{ webSocket: { maxObjectSize: 300 * 1024 * 1024 } }, "webSocket.maxObjectSize", "to 255 MiB"]
        ]
        for (const [options, option, message] of invalid) {
          const error = yield* refusal(options)
          expect(error).toMatchObject({ _tag: "InvalidOptions", module: "WeightServer", option })
          expect(error?.message).toContain(message)
          expect(error?.message).not.toContain("short-secret")
        }
        expect(yield* refusal({ maxTransfers: undefined, auth: undefined, webSocket: undefined })).toBeUndefined()
        expect(yield* refusal({ maxBodySize: 10n, redirect: { expiresIn: "1 minute" } })).toBeUndefined()
      })
  )

  overMemory("layerConfig reads options from the configuration", () =>
    Effect.gen(function*() {
      const token = "reader-0123456789abcdef"
      const fromConfig = (settings: Record<string, string>) =>
        WeightServer.layerConfig({
          maxTransfers: Config.withDefault(Config.integer("MAX_TRANSFERS"), 10),
          auth: Config.map(Config.redacted("READ_TOKEN"), (token) => ({ tokens: [{ token, scope: "read" as const }] }))
        }).pipe(Layer.provide(Layer.setConfigProvider(ConfigProvider.fromMap(new Map(Object.entries(settings))))))
      const served = yield* serveLayer(fromConfig({ READ_TOKEN: token }))
      const status = (headers: Record<string, string>) =>
        Effect.map(ask(served, "GET", "/objects", headers), ({ status }) => status)
      expect([yield* status({}), yield* status({ authorization: `Bearer ${token}` })]).toEqual([401, 200])
      const failures = yield* Effect.forEach([{}, { READ_TOKEN: token, MAX_TRANSFERS: "0" }], (settings) =>
        Effect.flip(serveLayer(fromConfig(settings))))
      expect(JSON.stringify(failures[0])).toContain("READ_TOKEN")
      expect(failures[1]).toMatchObject({ _tag: "InvalidOptions", option: "maxTransfers" })
    }))

  it("the default address is 127.0.0.1:8765", () => {
    expect(WeightServer.defaultAddress).toEqual({ host: "127.0.0.1", port: 8765 })
  })
})

describe("limits", () => {
  overMemory("a body that is too large is a 413, with content-length or without", () =>
    Effect.gen(function*() {
      const served = yield* serve({ writable: true, maxBodySize: 1000 })
      const sizes: ReadonlyArray<readonly [number, number]> = [[1000, 200], [1001, 413], [5_000_000, 413]]
      for (const [size, status] of sizes) {
        for (const headers of [{}, { "transfer-encoding": "chunked" }]) {
          const got = yield* ask(served, "PUT", "/objects/a", headers, bytes(size))
          expect([size, headers, got.status]).toEqual([size, headers, status])
          if (status === 413) expect(failureOf(got.text)._tag).toBe("StorageFull")
        }
      }
      expect((yield* served.storage.head("a")).size).toBe(1000)
    }))

  overMemory("pages of the allowed origins may use it, and those of no others", () =>
    Effect.gen(function*() {
      const served = yield* serve({ writable: true, origins: ["https://app.example"] })
      yield* served.storage.save("a", bytes(5))
      const preflight = (origin: string) =>
        ask(served, "OPTIONS", "/objects/a", {
          origin,
          "access-control-request-method": "GET",
          "access-control-request-headers": "range,if-match"
        })
      const allowed = yield* preflight("https://app.example")
      expect(allowed.status).toBe(204)
      expect(allowed.headers["access-control-allow-origin"]).toBe("https://app.example")
      expect(allowed.headers["access-control-allow-headers"]).toBe("range,if-match")
      expect(allowed.headers["access-control-allow-methods"]).toBe("GET, HEAD, PUT, DELETE")
      expect((yield* preflight("https://evil.example")).headers["access-control-allow-origin"]).toBeUndefined()
      const got = yield* ask(served, "GET", "/objects/a", { origin: "https://app.example", range: "bytes=0-1" })
      expect(got.headers).toMatchObject({ "access-control-allow-origin": "https://app.example" })
      // Also where the origin is not allowed, or caches would answer allowed ones with the same response.
      for (const headers of [{ origin: "https://app.example" }, { origin: "https://evil.example" }, {}]) {
        expect((yield* ask(served, "GET", "/objects/a", headers)).headers.vary).toBe("origin, accept-encoding")
      }
      expect(got.headers["access-control-expose-headers"]).toMatch(/content-range.*etag.*storage-error.*\*/)
      const closed = yield* serve()
      const none = yield* ask(closed, "GET", "/health", { origin: "https://app.example" })
      expect(none.headers["access-control-allow-origin"]).toBeUndefined()
    }))

  overMemory(
    "without auth, writes are refused under names that a web page could have resolved to loopback",
    () =>
      Effect.gen(function*() {
        const served = yield* serve(writable)
        yield* served.storage.save("a", new Uint8Array(3))
        const { port } = served
        for (
          const host of [
            `evil.example:${port}`,
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "192.168.1.2",
            "[::2]"
          ]
        ) {
          for (const method of ["PUT", "DELETE"]) {
            const got = yield* ask(served, method, "/objects/a", { host }, method === "PUT" ? "new" : undefined)
            expect([got.status, failureOf(got.text)], `${method} under ${host}`).toMatchObject([
              403,
              {
                _tag: "AccessDenied",
                reason: "without authorization, writes are allowed only under a loopback name, such as localhost"
              }
            ])
          }
          expect((yield* ask(served, "GET", "/objects/a", { host })).body, `GET under ${host}`).toEqual(Buffer.alloc(3))
        }
        for (
          const host of [
            `localhost:${port}`,
            "weights.localhost",
            "LOCALHOST.",
            `127.0.0.1:${port}`,
            "127.1.2.3",
            `[::1]:${port}`
          ]
        ) {
          expect((yield* ask(served, "PUT", "/objects/a", { host }, host)).status, `PUT under ${host}`).toBeLessThan(
            300
          )
          expect((yield* ask(served, "GET", "/objects/a", { host })).text).toBe(host)
        }
        const open = yield* serve({ writable: true, auth: (app) => app })
        expect((yield* ask(open, "PUT", "/objects/a", { host: "weights.example" }, "new")).status).toBeLessThan(300)
      })
  )
})

describe("metrics and documentation", () => {
  overMemory(
    "metrics are in the text format of Prometheus, with cumulative buckets and escaped labels",
    () =>
      Effect.gen(function*() {
        const { Metric, MetricBoundaries } = yield* Effect.promise(() => import("effect"))
        const seconds = Metric.histogram(
          "test.seconds",
          MetricBoundaries.fromIterable([1, 2, 5]),
          "how \\ long\nit took"
        )
        const tagged = Metric.tagged(seconds, "path", "a\"b\\c\nd")
        for (const value of [0.5, 1.5, 1.7, 9]) yield* Metric.update(tagged, value)
        const served = yield* serve()
        yield* ask(served, "GET", "/objects/none")
        const got = yield* ask(served, "GET", "/metrics")
        expect(got.headers["content-type"]).toBe("text/plain; version=0.0.4; charset=utf-8")
        const lines = got.text.split("\n")
        const label = String.raw`path="a\"b\\c\nd"`
        const from = lines.indexOf(String.raw`# HELP test_seconds how \\ long\nit took`)
        expect(lines.slice(from + 1, from + 8)).toEqual([
          "# TYPE test_seconds histogram",
          `test_seconds_bucket{${label},le="1"} 1`,
          `test_seconds_bucket{${label},le="2"} 3`,
          `test_seconds_bucket{${label},le="5"} 3`,
          `test_seconds_bucket{${label},le="+Inf"} 4`,
          `test_seconds_sum{${label}} 12.7`,
          `test_seconds_count{${label}} 4`
        ])
        expect(got.text).toMatch(
          /^storage_operations_total\{.*operation="open".*outcome="ObjectNotFound".*\} [1-9]/m
        )
        // Each line is a comment or a sample, and each name has its type once, before its samples.
        const types = lines.filter((line) => line.startsWith("# TYPE"))
        expect(new Set(types).size).toBe(types.length)
        for (const line of lines.filter((line) => line !== "" && !line.startsWith("#"))) {
          expect(line).toMatch(/^[a-zA-Z_]\w*(\{(\w+="([^"\\\n]|\\["\\n])*",?)*\})? (-?[\d.e+-]+|[+-]Inf|NaN)$/)
        }
      })
  )

  overMemory(
    "the OpenAPI document has each route of the server, and the page needs no other server",
    () =>
      Effect.gen(function*() {
        interface Document {
          readonly openapi: string
          readonly paths: Readonly<Record<string, Readonly<Record<string, unknown>>>>
          readonly components: { readonly schemas: Readonly<Record<string, unknown>> }
        }
        const methods = (document: Document) => Object.keys(document.paths["/objects/{key}"] ?? {})
        const readOnly = yield* serve()
        const document = JSON.parse((yield* ask(readOnly, "GET", "/openapi.json")).text) as Document
        expect(document.openapi).toBe("3.1.0")
        expect(methods(document)).toEqual(["get", "head"])
        expect(Object.keys(document.paths)).toEqual(["/objects/{key}", "/objects", "/metrics", "/health"])
        const refs = [...JSON.stringify(document).matchAll(/"#\/components\/schemas\/(\w+)"/g)].map(([, name = ""]) =>
          name
        )
        for (const name of refs) expect(document.components.schemas).toHaveProperty(name)
        expect(JSON.stringify(document)).not.toContain("#/$defs")
        const written = yield* serve(writable)
        expect(methods(JSON.parse((yield* ask(written, "GET", "/openapi.json")).text) as Document)).toEqual(
          ["get", "head", "put", "delete"]
        )
        const page = yield* ask(written, "GET", "/docs")
        expect(page.headers["content-type"]).toBe("text/html")
        expect(page.headers["content-security-policy"]).toMatch(/^default-src 'none';.* connect-src 'self'$/)
        expect(page.text).toContain("\"operationId\":\"put\"")
        expect(page.text).not.toMatch(/<(script|link|img)[^>]* (src|href)=/)
      })
  )
})

describe("redirects", () => {
  it.live("GET redirects to a presigned URL where the storage supports them; HEAD is answered by the server", () =>
    Effect.scoped(Effect.gen(function*() {
      const storage = yield* Effect.flatMap(MemoryStorage.make(), (memory) =>
        Effect.succeed(Storage.make({
          ...memory.backend,
          capabilities: { ...memory.backend.capabilities, presign: true },
          presign: (key, { expiresIn, method }) =>
            Effect.succeed(`https://store.example/${key}?${method}&for=${Duration.toSeconds(expiresIn)}`)
        })))
      yield* storage.save("a", bytes(3))
      const served = yield* serveOf(storage, { redirect: { expiresIn: "5 minutes" } })
      const got = yield* ask(served, "GET", "/objects/a", { range: "bytes=50-" })
      expect([got.status, got.headers.location, got.headers["cache-control"]]).toEqual(
        [307, "https://store.example/a?GET&for=300", "no-store"]
      )
      expect((yield* ask(served, "HEAD", "/objects/a")).headers["content-length"]).toBe("3")
      expect((yield* ask(served, "GET", "/objects/a%0d%0a")).status).toBe(400)
      const memory = yield* serveOf(yield* MemoryStorage.make(), { redirect: { expiresIn: "5 minutes" } })
      expect((yield* ask(memory, "GET", "/objects/a")).status).toBe(404)
    })))
})

const hasCurl = spawnSync("curl", ["--version"]).status === 0

describe("clients without this library", () => {
  overMemory("fetch saves, loads, loads a range and lists", () =>
    Effect.gen(function*() {
      const served = yield* serve(writable)
      const weights = bytes(2_000_000)
      yield* Effect.promise(async () => {
        const put = await fetch(`${served.url}/objects/bert/layer%200`, { method: "PUT", body: weights })
        expect(put.status).toBe(200)
        const got = await fetch(`${served.url}/objects/bert/layer%200`)
        const hash = createHash("sha256").update(new Uint8Array(await got.arrayBuffer())).digest("hex")
        expect(hash).toBe(createHash("sha256").update(weights).digest("hex"))
        const part = await fetch(`${served.url}/objects/bert/layer%200`, { headers: { range: "bytes=-16" } })
        expect([part.status, await part.text()]).toEqual([206, new TextDecoder().decode(weights.slice(-16))])
        const page = await (await fetch(`${served.url}/objects?prefix=bert/`)).json()
        expect(page).toMatchObject({ objects: [{ key: "bert/layer 0", size: 2_000_000 }] })
      })
    }))

  const curl = hasCurl ? overMemory : it.skip
  curl("curl receives ranges, preconditions, HEAD and unusual paths as in RFC 9110", () =>
    Effect.gen(function*() {
      const served = yield* serve()
      const { etag } = yield* served.storage.save("a/b c", bytes(1000))
      const { execFile } = yield* Effect.promise(() => import("node:child_process"))
      const status = (...args: ReadonlyArray<string>) =>
        Effect.async<string>((resume) =>
          void execFile("curl", [
            "-s",
            "-o",
            "/dev/null",
            "-w",
            "%{http_code} %{size_download}",
            "--path-as-is",
            ...args
          ], (_, stdout) => resume(Effect.succeed(stdout)))
        )
      const url = `${served.url}/objects/a/b%20c`
      expect(yield* status(url)).toBe("200 1000")
      expect(yield* status("-r", "0-99", url)).toBe("206 100")
      expect(yield* status("-r", "-1", url)).toBe("206 1")
      expect(yield* status("-r", "0-1,5-6", url)).toBe("200 1000")
      expect(yield* status("-I", url)).toBe("200 0")
      expect(yield* status("-H", `If-None-Match: "${etag}"`, url)).toBe("304 0")
      expect((yield* status("-H", "If-Match: \"x\"", url)).slice(0, 3)).toBe("412")
      expect((yield* status("-r", "1000-", url)).slice(0, 3)).toBe("416")
      expect(yield* status(`${served.url}/objects/a%2Fb%20c`)).toBe("200 1000")
      for (const path of ["../etc/passwd", "%2e%2e/etc/passwd", "a%00b", "x".repeat(1025), "%zz"]) {
        expect([path, (yield* status(`${served.url}/objects/${path}`)).slice(0, 3)]).toEqual([path, "400"])
      }
      // As node:http has it: 431 for headers, and for a path, of more than 16 KiB together.
      expect((yield* status("-H", `x: ${"y".repeat(20_000)}`, url)).slice(0, 3)).toBe("431")
      expect((yield* status(`${served.url}/objects/${"x".repeat(20_000)}`)).slice(0, 3)).toBe("431")
    }))

  overMemory(
    "a malformed request, or one that smuggles another, is a 400 and closes the connection",
    () =>
      Effect.gen(function*() {
        const served = yield* serve(writable)
        const requests = [
          "nonsense\r\n\r\n",
          "GET /objects/a HTTP/1.1\r\nHost: x\r\nBad Header: 1\r\n\r\n",
          "PUT /objects/a HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
          "PUT /objects/a HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
          "PUT /objects/a HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab"
        ]
        for (const request of requests) {
          const got = yield* raw(served, request)
          expect([request, got.split("\r\n")[0]]).toEqual([request, "HTTP/1.1 400 Bad Request"])
        }
        expect(yield* served.storage.list()).toEqual([])
        const absolute = yield* raw(served, "GET http://x/health?y HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        expect(absolute).toMatch(/^HTTP\/1.1 200 OK/)
      })
  )
})
