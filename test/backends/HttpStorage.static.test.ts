/**
 * `HttpStorage` on plain web servers: their ranges, etags, dates, attributes, redirects and mistakes.
 */
import { HttpClient } from "@effect/platform"
import { describe, expect, it } from "@effect/vitest"
import { Chunk, Effect, Redacted, Schedule, Stream } from "effect"
import type { StorageError } from "surfing-weights"
import { ByteRange, HttpStorage, type Storage } from "surfing-weights"
import { clients } from "../support/httpClients.js"
import * as StaticServer from "../support/staticServer.js"

const pattern = (length: number, seed = 0) => Uint8Array.from({ length }, (_, i) => (i * 31 + seed + (i >> 8)) % 251)

// More than is read as a whole.
const bytes = pattern(100_000)

/** Much faster than `toEqual`. */
const expectWhole = (got: Uint8Array) => expect(Buffer.compare(got, bytes), "the bytes differ").toBe(0)

const lastModified = new Date("2026-01-02T03:04:05Z")
const strong = { bytes, etag: `"v1"`, lastModified }
const weak = { bytes, etag: `W/"v1"`, lastModified }
const dated = { bytes, lastModified }

const quick = Schedule.intersect(Schedule.spaced("5 millis"), Schedule.recurs(3))

const gather = <Err, R>(stream: Stream.Stream<Uint8Array, Err, R>) =>
  Effect.map(Stream.runCollect(stream), (parts) => new Uint8Array(Buffer.concat(Chunk.toArray(parts))))

const load = (storage: Storage.Service, options?: Storage.LoadOptions) => storage.load("a", options)
const stream = (storage: Storage.Service, options?: Storage.LoadOptions) => gather(storage.stream("a", options))
const reads = [["load", load], ["stream", stream]] as const

for (const [name, client] of clients) {
  const on = <A, Err, R>(
    options: Partial<HttpStorage.Options> & { readonly ranges?: boolean },
    test: (storage: Storage.Service, server: StaticServer.StaticServer) => Effect.Effect<A, Err, R>
  ) =>
    Effect.gen(function*() {
      const { ranges, ...rest } = options
      const server = yield* StaticServer.make({ ranges: ranges ?? true })
      const storage = yield* HttpStorage.make({ url: server.url, static: true, retry: quick, ...rest })
      yield* test(storage, server)
    }).pipe(Effect.scoped, Effect.provide(client))

  describe(`HttpStorage on a web server, with ${name}`, () => {
    it.live("sends no request when it is built, and only reads", () =>
      on({}, (storage, { files, requests }) =>
        Effect.gen(function*() {
          expect(requests).toEqual([])
          files.set("/a", strong)
          const refused = [
            storage.list(),
            storage.listDirectory(),
            Stream.runDrain(storage.entries()),
            storage.save("a", bytes),
            storage.remove("a"),
            storage.removeAll(["a"]),
            storage.copy("a", "b"),
            storage.move("a", "b"),
            storage.presign("a", { method: "GET", expiresIn: "1 hour" })
          ]
          for (const effect of refused) {
            expect(yield* Effect.flip<unknown, StorageError.StorageError, never>(effect)).toMatchObject({
              _tag: "UnsupportedOperation"
            })
          }
          expect(requests).toEqual([])
        })))

    it.live("finds keys below its folder, with any characters", () =>
      on({}, (_, { files, url }) =>
        Effect.gen(function*() {
          const storage = yield* HttpStorage.make({ url: `${url}/models/bert/`, static: true })
          expect(storage.backend.name).toBe(`Http(${new URL(url).host}/models/bert)`)
          for (const key of ["a b/c+d", "%41", "?x=1#y", "é/😀", "trailing."]) {
            files.set(`/models/bert/${key.split("/").map(encodeURIComponent).join("/")}`, strong)
            expectWhole(yield* storage.load(key))
          }
          expect(yield* Effect.flip(storage.load("A"))).toMatchObject({ _tag: "ObjectNotFound", key: "A" })
          expect(yield* storage.exists("A")).toBe(false)
        })))

    for (const [what, file] of Object.entries({ strong, weak, dated })) {
      it.live(`reads objects and ranges, and resumes, where the etag is ${what}`, () =>
        on({}, (storage, { answers, files, requests }) =>
          Effect.gen(function*() {
            files.set("/a", file)
            const info = yield* storage.head("a")
            expect(info).toMatchObject({ key: "a", size: 100_000, lastModified })
            for (const [, read] of reads) {
              expectWhole(yield* read(storage))
              expect(yield* read(storage, { ifMatch: info.etag, range: ByteRange.make(10, 20) })).toEqual(
                bytes.subarray(10, 20)
              )
              expect(yield* read(storage, { range: ByteRange.last(7) })).toEqual(bytes.subarray(-7))
              expect(yield* read(storage, { range: ByteRange.from(99_990) })).toEqual(bytes.subarray(99_990))
              expect(yield* Effect.flip(read(storage, { ifNoneMatch: info.etag }))).toMatchObject({
                _tag: "ObjectNotModified"
              })
              expect(yield* Effect.flip(read(storage, { ifMatch: "another" }))).toMatchObject({
                _tag: "PreconditionFailed"
              })
              expect(yield* Effect.flip(read(storage, { range: ByteRange.from(100_000) }))).toMatchObject({
                _tag: "InvalidRange"
              })
              const headers = {
                "content-length": 100_000,
                "last-modified": lastModified.toUTCString(),
                ...("etag" in file && { etag: file.etag })
              }
              answers.push(StaticServer.truncated(200, headers, bytes.subarray(0, 3000)))
              expectWhole(yield* read(storage))
              const { headers: sent } = requests.at(-1) ?? {}
              expect(sent?.range).toBe("bytes=3000-99999")
              expect(sent?.["if-match"]).toBe(file === strong ? `"v1"` : undefined)
            }
            expect(yield* storage.loadRanges("a", [ByteRange.make(0, 5), ByteRange.last(5)])).toEqual([
              bytes.subarray(0, 5),
              bytes.subarray(-5)
            ])
          })))

      it.live(`never joins two versions, where the etag is ${what}`, () =>
        on({}, (storage, { answers, files }) =>
          Effect.gen(function*() {
            for (const [, read] of reads) {
              const headers = {
                "content-length": 100_000,
                "last-modified": lastModified.toUTCString(),
                ...("etag" in file && { etag: file.etag })
              }
              files.set("/a", {
                bytes: pattern(100_000, 7),
                lastModified: new Date("2026-01-02T03:04:06Z"),
                ...("etag" in file && { etag: file.etag.replace("1", "2") })
              })
              answers.push(StaticServer.truncated(200, headers, bytes.subarray(0, 3000)))
              expect(yield* Effect.flip(read(storage))).toMatchObject({ _tag: "PreconditionFailed" })
              expect(answers).toEqual([])
            }
          })))
    }

    it.live("has the attributes of the headers", () =>
      on({}, (storage, { answers }) =>
        Effect.gen(function*() {
          const headers = {
            etag: "\"v1\"",
            "content-length": "3",
            "content-type": "application/wasm",
            "cache-control": "no-store"
          }
          const attributes = { contentType: "application/wasm", cacheControl: "no-store" }
          answers.push((_, response) => response.writeHead(200, headers).end())
          expect((yield* storage.head("a")).attributes).toEqual(attributes)
          answers.push((_, response) => response.writeHead(200, headers).end("abc"))
          const { info } = yield* Effect.scoped(storage.open("a"))
          expect(info.attributes).toEqual(attributes)
        })))

    it.live("compares sizes as well where there is only a date", () =>
      on({}, (storage, { answers, files }) =>
        Effect.gen(function*() {
          files.set("/a", { bytes: pattern(120_000), lastModified })
          const headers = { "content-length": 100_000, "last-modified": lastModified.toUTCString() }
          answers.push(StaticServer.truncated(200, headers, bytes.subarray(0, 3000)))
          expect(yield* Effect.flip(stream(storage))).toMatchObject({ _tag: "PreconditionFailed" })
        })))

    it.live("reads objects with neither etag nor date, and does not resume them", () =>
      on({}, (storage, { answers, files }) =>
        Effect.gen(function*() {
          files.set("/a", { bytes })
          for (const [, read] of reads) {
            expectWhole(yield* read(storage))
            expect(yield* read(storage, { range: ByteRange.make(5, 9) })).toEqual(bytes.subarray(5, 9))
            answers.push(StaticServer.truncated(200, { "content-length": 100_000 }, bytes.subarray(0, 3000)))
            const error = yield* Effect.flip(read(storage))
            expect(error).toMatchObject({ _tag: "UnsupportedOperation" })
            expect(error.message).toContain("neither etag nor date")
          }
          expect((yield* storage.head("a")).etag).not.toBe((yield* storage.head("a")).etag)
        })))

    it.live("cuts a range out of the whole object where the server has no ranges, also to resume", () =>
      on({ ranges: false }, (storage, { answers, files, openSockets }) =>
        Effect.gen(function*() {
          files.set("/a", strong)
          for (const [, read] of reads) {
            expect(yield* read(storage, { range: ByteRange.make(100, 9000) })).toEqual(bytes.subarray(100, 9000))
            expect(yield* read(storage, { range: ByteRange.make(0, 10) })).toEqual(bytes.subarray(0, 10))
            expect(yield* read(storage, { range: ByteRange.last(10) })).toEqual(bytes.subarray(-10))
            expect(yield* Effect.flip(read(storage, { range: ByteRange.from(100_000) }))).toMatchObject({
              _tag: "InvalidRange"
            })
            answers.push(
              StaticServer.truncated(200, { etag: `"v1"`, "content-length": 100_000 }, bytes.subarray(0, 3000))
            )
            expectWhole(yield* read(storage))
            answers.push(
              StaticServer.truncated(200, { etag: `"v0"`, "content-length": 100_000 }, bytes.subarray(0, 3000))
            )
            expect(yield* Effect.flip(read(storage))).toMatchObject({ _tag: "PreconditionFailed" })
          }
          expect(openSockets()).toBeLessThanOrEqual(2)
        })))

    it.live("loads the last bytes of an empty file, and no other range of it", () =>
      on({}, (storage, { files }) =>
        Effect.gen(function*() {
          files.set("/a", { ...strong, bytes: new Uint8Array(0) })
          for (const [, read] of reads) {
            expect((yield* read(storage)).length).toBe(0)
            expect((yield* read(storage, { range: ByteRange.last(5) })).length).toBe(0)
            expect(yield* Effect.flip(read(storage, { range: ByteRange.from(0) }))).toMatchObject({
              _tag: "InvalidRange"
            })
          }
        })))

    const answer = (status: number, headers: Record<string, string> = {}, body = "") => ({ status, headers, body })
    const versioned = { etag: `"v1"`, "last-modified": lastModified.toUTCString() }
    const refusals: ReadonlyArray<
      readonly [StorageError.StorageError["_tag"], ReturnType<typeof answer>, requests: number, message?: string]
    > = [
      ["ObjectNotModified", answer(304), 1],
      ["UnexpectedStorageError", answer(400, {}, "<h1>Bad</h1>"), 1, "HTTP 400"],
      ["AccessDenied", answer(401), 1, "token"],
      ["AccessDenied", answer(403), 1],
      ["ObjectNotFound", answer(404, { "content-type": "application/json" }, `{ "_tag": "AccessDenied" }`), 1],
      ["ObjectNotFound", answer(410), 1],
      ["UnsupportedOperation", answer(405), 1],
      ["StorageUnavailable", answer(408), 4],
      ["PreconditionFailed", answer(412), 1],
      ["InvalidRange", answer(416), 1],
      ["StorageUnavailable", answer(429), 4],
      ["StorageUnavailable", answer(500), 4],
      ["UnsupportedOperation", answer(501), 1],
      ["StorageUnavailable", answer(502, {}, "<h1>Bad gateway</h1>"), 4, "HTTP 502"],
      ["StorageUnavailable", answer(503), 4],
      ["StorageUnavailable", answer(504), 4],
      ["UnexpectedStorageError", answer(204), 1],
      ["UnexpectedStorageError", answer(200, { ...versioned, "content-encoding": "gzip" }, "abc"), 1, "encoded (gzip)"],
      ["UnexpectedStorageError", answer(206, versioned, "abc"), 1, "content-range"],
      ["UnexpectedStorageError", answer(206, { ...versioned, "content-range": "bytes 0-2/*" }, "abc"), 1],
      [
        "UnexpectedStorageError",
        answer(206, { ...versioned, "content-range": "bytes 0-2/9" }, "abc"),
        1,
        "other bytes"
      ]
    ]
    it.live("fails as the status says, and retries what is retryable", () =>
      on({}, (storage, { answers, openSockets, requests }) =>
        Effect.gen(function*() {
          for (const [operation, read] of reads) {
            for (const [tag, { body, headers, status }, count, message = ""] of refusals) {
              for (let i = 0; i < count; i++) {
                answers.push((_, response) => response.writeHead(status, headers).end(body))
              }
              requests.length = 0
              const error = yield* Effect.flip<unknown, StorageError.LoadError, never>(read(storage))
              expect([status, error._tag, requests.length]).toEqual([status, tag, count])
              expect(error.message).toContain(message)
              expect(error).toMatchObject({ operation, key: "a", backend: storage.backend.name })
              expect("attempts" in error ? error.attempts : undefined).toBe(count === 4 ? 4 : undefined)
            }
          }
          expect(openSockets()).toBeLessThanOrEqual(3)
        })))

    it.live("keeps the wait of Retry-After", () =>
      on({ retry: Schedule.recurs(0) }, (storage, { answers }) =>
        Effect.gen(function*() {
          answers.push((_, response) => response.writeHead(503, { "retry-after": "7" }).end())
          const error = yield* Effect.flip(load(storage))
          expect(error.message).toContain("asked to wait 7s")
        })))

    it.live("follows redirects of reads, and sends its token to no other origin", () =>
      on({ token: Redacted.make("s3cret") }, (storage, home) =>
        Effect.gen(function*() {
          const elsewhere = yield* StaticServer.make()
          elsewhere.files.set("/b?signature=x", strong)
          home.files.set("/b", strong)
          const to =
            (status: number, location: string): StaticServer.StaticServer["answers"][number] => (_, response) =>
              response.writeHead(status, { location }).end("moved")
          for (const status of [301, 302, 303, 307, 308]) {
            home.answers.push(to(status, "/b"))
            expect(yield* load(storage, { range: ByteRange.make(1, 4) })).toEqual(bytes.subarray(1, 4))
            expect(home.requests.at(-1)?.headers.authorization).toBe("Bearer s3cret")
            home.answers.push(to(status, `${elsewhere.url}/b?signature=x`))
            expectWhole(yield* stream(storage, { ifMatch: "v1" }))
            home.answers.push(to(status, `${elsewhere.url}/b?signature=x`))
            expect(yield* storage.head("a")).toMatchObject({ key: "a", etag: "v1" })
          }
          expect(elsewhere.requests.length).toBe(10)
          expect(elsewhere.requests.filter(({ headers }) => headers.authorization !== undefined)).toEqual([])
          // An endless one fails, without its URL.
          for (let i = 0; i < 100; i++) home.answers.push(to(302, "/a?signature=x"))
          const error = yield* Effect.flip(load(storage))
          expect(error.message).not.toContain("signature")
          expect(home.answers.length).toBeGreaterThan(0)
        })))

    it.live("sends a token if it has one, and accepts no encoding", () =>
      on({}, (storage, { files, requests, url }) =>
        Effect.gen(function*() {
          files.set("/a", strong)
          yield* load(storage)
          expect(requests[0]?.headers).toMatchObject({ "accept-encoding": "identity" })
          expect(requests[0]?.headers.authorization).toBeUndefined()
          expect(requests[0]?.headers["traceparent"]).toBeUndefined()
          const secret = yield* HttpStorage.make({ url, static: true, token: Redacted.make("abc") })
          yield* load(secret)
          expect(requests[1]?.headers.authorization).toBe("Bearer abc")
        })))
  })
}

describe("HttpStorage", () => {
  const silent = HttpClient.make(() => Effect.never)
  const open = (options: HttpStorage.Options) =>
    Effect.provideService(HttpStorage.make(options), HttpClient.HttpClient, silent)

  it.effect("fails with InvalidOptions where an option is not allowed, and shows no secret", () =>
    Effect.gen(function*() {
      const invalid: ReadonlyArray<HttpStorage.Options> = [
        { url: "weights.example.com" },
        { url: "ftp://weights.example.com" },
        { url: "https://user:hunter2@weights.example.com" },
        { url: "https://hunter2@weights.example.com" },
        { url: "https://weights.example.com/?token=hunter2" },
        { url: "https://weights.example.com/#hunter2" },
        { url: "https://hunter2:x@:0/" },
        { url: "https://weights.example.com", token: Redacted.make("") },
        { url: "https://weights.example.com", token: Redacted.make("hunter2\r\nx: y") },
        { url: "https://weights.example.com", idleTimeout: 0 },
        { url: "https://weights.example.com", idleTimeout: "25 days" }
      ]
      for (const options of invalid) {
        const error = yield* Effect.flip(open(options))
        const option = options.idleTimeout !== undefined ? "idleTimeout" : options.token !== undefined ? "token" : "url"
        expect(error).toMatchObject({ _tag: "InvalidOptions", module: "HttpStorage", option })
        expect(JSON.stringify(error) + error.message).not.toContain("hunter2")
      }
      yield* open({ url: "https://weights.example.com", static: true, token: undefined, retry: undefined })
      const { backend } = yield* open({ url: "HTTPS://Weights.example.com:443/a/b//", static: true })
      expect(backend.name).toBe("Http(weights.example.com/a/b)")
    }))
})
