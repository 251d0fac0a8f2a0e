/**
 * What an upload must be for a weight server to save it, and when one that is refused is told so.
 */
import { HttpRouter, HttpServer, HttpServerRequest, HttpServerResponse } from "@effect/platform"
import { describe, expect, it } from "@effect/vitest"
import { Effect, Layer, Redacted, Scope } from "effect"
import { createHash } from "node:crypto"
import { once } from "node:events"
import * as net from "node:net"
import { MemoryStorage, type Storage, WeightServer } from "surfing-weights"
import { ask, raw, serve, type Served, serveLayer } from "../../support/weightServer.js"

const overMemory = (name: string, body: Effect.Effect<void, unknown, Storage.Storage | Scope.Scope>) =>
  it.live(name, () => Effect.scoped(body).pipe(Effect.provide(MemoryStorage.layer())))

const digest = (algorithm: string, bytes: string): string => createHash(algorithm).update(bytes).digest("base64")

describe("digests", () => {
  const body = "the weights"
  const md5 = digest("md5", body)
  const [sha1, sha256, sha512] = ["sha1", "sha256", "sha512"].map((algorithm) => digest(algorithm, body))
  const other = digest("sha256", "other weights")

  const right: ReadonlyArray<Record<string, string>> = [
    { "content-md5": md5 },
    { "content-digest": `sha-256=:${sha256}:` },
    { "repr-digest": `sha-512=:${sha512}:` },
    { "content-digest": `sha-256=:${sha256}:, sha-512=:${sha512}:,md5=:${md5}:, sha=:${sha1}:` },
    { "content-digest": `SHA-256=:${sha256}:` },
    { "content-digest": `sha-256=:${sha256}:;note=1` },
    { "content-digest": `sha-256=:${sha256}:`, "repr-digest": `sha-256=:${sha256}:`, "content-md5": md5 },
    // Algorithms that are not known are ignored.
    { "content-digest": "unixsum=:AAAA:" },
    { "repr-digest": `future-1=:AAAA:, sha-256=:${sha256}:` },
    { "content-digest": "" }
  ]
  const wrong: ReadonlyArray<Record<string, string>> = [
    { "content-md5": digest("md5", "other weights") },
    { "content-digest": `sha-256=:${other}:` },
    { "repr-digest": `sha-256=:${other}:` },
    { "repr-digest": `sha-512=:${digest("sha512", "other weights")}:` },
    { "content-digest": `md5=:${digest("md5", "other weights")}:` },
    { "content-digest": `sha-256=:${sha256}:, sha-512=:${digest("sha512", "other weights")}:` },
    { "content-digest": `sha-256=:${sha256}:`, "repr-digest": `sha-256=:${other}:` },
    { "content-digest": `sha-256=:${sha256}:`, "content-md5": digest("md5", "other weights") }
  ]
  const malformed: ReadonlyArray<Record<string, string>> = [
    { "content-md5": "hello" },
    { "content-md5": sha256 ?? "" },
    { "content-md5": `${md5}x` },
    { "content-digest": "sha-256" },
    { "content-digest": `sha-256=${sha256}` },
    { "content-digest": `sha-256=:${md5}:` },
    { "content-digest": "sha-256=:*:" },
    { "content-digest": "sha-256=::" },
    { "repr-digest": `sha-256=:${sha256}:,` },
    { "repr-digest": `=:${sha256}:` }
  ]

  const put = (served: Served, headers: Record<string, string>, content = body) =>
    ask(served, "PUT", "/objects/k", { "content-length": content.length, ...headers }, content)

  overMemory(
    "that are right, or not known, let an upload be saved",
    Effect.gen(function*() {
      const served = yield* serve({ writable: true })
      for (const headers of right) {
        yield* served.storage.remove("k")
        expect([headers, (yield* put(served, headers)).status]).toEqual([headers, 200])
        expect(Buffer.from(yield* served.storage.load("k")).toString()).toBe(body)
      }
      // Of an empty object, and of one whose length is not known before.
      const empty = `sha-256=:${digest("sha256", "")}:`
      expect((yield* put(served, { "content-digest": empty }, "")).status).toBe(200)
      const chunked = { "transfer-encoding": "chunked", "content-digest": `sha-256=:${sha256}:` }
      expect((yield* ask(served, "PUT", "/objects/chunked", chunked, body)).status).toBe(200)
      expect(Buffer.from(yield* served.storage.load("chunked")).toString()).toBe(body)
    })
  )

  overMemory(
    "that are wrong or malformed are a 400, and nothing is saved or replaced",
    Effect.gen(function*() {
      const served = yield* serve({ writable: true })
      yield* served.storage.save("k", new TextEncoder().encode("old"))
      for (const headers of wrong) {
        const { status, text } = yield* put(served, headers)
        expect([headers, status]).toEqual([headers, 400])
        expect(text).toMatch(
          /the body does not have the (sha-256|sha-512|md5) of (content-md5|content-digest|repr-digest)/
        )
      }
      for (const headers of malformed) {
        const { status, text } = yield* put(served, headers)
        expect([headers, status]).toEqual([headers, 400])
        expect(text).toMatch(/is malformed/)
      }
      const chunked = { "transfer-encoding": "chunked", "content-digest": `sha-256=:${other}:` }
      expect((yield* ask(served, "PUT", "/objects/chunked", chunked, body)).status).toBe(400)
      expect((yield* put(served, { "content-digest": `sha-256=:${sha256}:` }, "")).status).toBe(400)
      expect(yield* served.storage.list()).toEqual(["k"])
      expect(Buffer.from(yield* served.storage.load("k")).toString()).toBe("old")
    })
  )
})

describe("a length", () => {
  overMemory(
    "is required, and may be 0",
    Effect.gen(function*() {
      const served = yield* serve({ writable: true })
      const put = (rest: string) =>
        raw(served, `PUT /objects/k HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n${rest}`)
      expect(yield* put("\r\n")).toMatch(/^HTTP\/1.1 411 /)
      expect(yield* raw(served, "PUT /objects/k HTTP/1.0\r\n\r\n")).toMatch(/^HTTP\/1.1 411 /)
      expect(yield* put("Content-Length: x\r\n\r\n")).toMatch(/^HTTP\/1.1 400 /)
      expect(yield* served.storage.list()).toEqual([])
      expect(yield* put("Content-Length: 0\r\n\r\n")).toMatch(/^HTTP\/1.1 200 /)
      expect((yield* served.storage.head("k")).size).toBe(0)
      expect(yield* put("Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n")).toMatch(/^HTTP\/1.1 200 /)
    })
  )
})

describe("a client that waits for 100 Continue", () => {
  const writer = "writer-0123456789abcdef"
  const reader = "reader-0123456789abcdef"

  interface Upload {
    readonly key?: string
    readonly token?: string
    readonly headers?: string
    readonly body?: string
  }

  /** Sends the header of an upload, and the body only when it is asked for. Returns all statuses in order. */
  const upload = ({ port }: Served, { body = "12345", headers = "", key = "there", token = writer }: Upload) =>
    Effect.promise(async () => {
      const socket = net.connect(port, "127.0.0.1").on("error", () => {})
      let got = ""
      socket.on("data", (bytes) => {
        got += bytes.toString("latin1")
        if (got === "HTTP/1.1 100 Continue\r\n\r\n") socket.write(body)
      })
      socket.write(
        `PUT /objects/${key} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: ${body.length}\r\n` +
          `Authorization: Bearer ${token}\r\n${
            headers.includes("Expect:") ? "" : "Expect: 100-continue\r\n"
          }${headers}\r\n`
      )
      await once(socket, "close")
      return [...got.matchAll(/HTTP\/1.1 (\d+)/g)].map(([, status]) => Number(status))
    })

  const served = Effect.gen(function*() {
    const served = yield* serve({
      writable: true,
      maxBodySize: 1000,
      auth: {
        tokens: [{ token: Redacted.make(writer), scope: "write" }, { token: Redacted.make(reader), scope: "read" }]
      }
    })
    yield* served.storage.save("there", new Uint8Array(3))
    return served
  })

  // Each is the first request of its server.
  overMemory(
    "sends the body of an upload that is accepted",
    Effect.gen(function*() {
      const server = yield* served
      expect(yield* upload(server, { key: "k" })).toEqual([100, 200])
      expect(yield* upload(server, { key: "new", headers: "If-None-Match: *\r\n" })).toEqual([100, 201])
      const { etag } = yield* server.storage.head("there")
      expect(yield* upload(server, { headers: `If-Match: "${etag}"\r\n` })).toEqual([100, 200])
      expect(yield* upload(server, { headers: "If-Match: *\r\n" })).toEqual([100, 200])
      const sizes = yield* Effect.forEach(yield* server.storage.list(), (key) => server.storage.head(key))
      expect(sizes.map(({ key, size }) => [key, size])).toEqual([["k", 5], ["new", 5], ["there", 5]])
    })
  )

  const refusals: ReadonlyArray<readonly [status: number, name: string, upload: Upload]> = [
    [401, "a token is unknown", { token: "guess-0123456789abcdef" }],
    [403, "a token only allows reading", { token: reader }],
    [412, "there is an object", { headers: "If-None-Match: *\r\n" }],
    [412, "there is no object", { key: "missing", headers: "If-Match: *\r\n" }],
    [412, "the object is another", { headers: `If-Match: "other"\r\n` }],
    [412, "the object was saved later", { headers: "If-Unmodified-Since: Mon, 01 Jan 2001 00:00:00 GMT\r\n" }],
    [413, "the body is too large", { body: "x".repeat(1001) }],
    [400, "a digest is malformed", { headers: "Content-Digest: sha-256=:x:\r\n" }],
    [400, "it is a part of an object", { headers: "Content-Range: bytes 0-4/10\r\n" }],
    [400, "the key is invalid", { key: "a//b" }],
    [417, "it expects something else", { headers: "Expect: something-else\r\n" }]
  ]

  for (const [status, name, refused] of refusals) {
    overMemory(
      `sends none where ${name}: ${status}`,
      Effect.gen(function*() {
        const server = yield* served
        const start = Date.now()
        expect(yield* upload(server, refused)).toEqual([status])
        // The server does not wait for it.
        expect(Date.now() - start).toBeLessThan(4500)
        expect((yield* server.storage.head("there")).size).toBe(3)
      })
    )
  }

  overMemory(
    "sends none to a server that is not writable, and sends it to an app beside the server",
    Effect.gen(function*() {
      const readOnly = yield* serve()
      expect(yield* upload(readOnly, {})).toEqual([405])
      const scope = yield* Effect.scope
      const app = WeightServer.router({}).pipe(
        Effect.map((weights) =>
          HttpRouter.empty.pipe(
            HttpRouter.mount("/weights", weights),
            HttpRouter.put(
              "/objects/there",
              Effect.flatMap(
                HttpServerRequest.HttpServerRequest,
                ({ text }) => Effect.map(text, HttpServerResponse.text)
              )
            )
          )
        ),
        Effect.map((app) => HttpServer.serve(app)),
        Layer.unwrapScoped
      )
      expect(yield* upload(yield* Scope.extend(serveLayer(app), scope), {})).toEqual([100, 200])
    })
  )
})
