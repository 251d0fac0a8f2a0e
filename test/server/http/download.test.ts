/**
 * The body of a download: one array where the storage can reuse it and nobody else sees the response, in pieces otherwise.
 * How long caches may keep it, and ranges of nothing.
 */
import { FetchHttpClient, HttpMiddleware, HttpRouter, HttpServer, HttpServerResponse } from "@effect/platform"
import * as NodeHttpServer from "@effect/platform-node/NodeHttpServer"
import { describe, expect, it } from "@effect/vitest"
import { Context, Effect, Layer, Option, Redacted, type Scope, Stream } from "effect"
import * as http from "node:http"
import {
  ByteRange,
  HttpStorage,
  MemoryStorage,
  Storage,
  StorageBackend,
  type StorageError,
  WeightServer
} from "surfing-weights"
import { bytes, MiB } from "../../support/content.js"
import { ask, serve, type Served, serveOf } from "../../support/weightServer.js"

const KiB = 1024
const content = bytes(4 * MiB + 5)

/** A storage of `content` that reads into one array where it may, and the arrays that it has read into. */
const reusing = (chunkSize = 512 * KiB) => {
  const arrays = new Set<ArrayBufferLike>()
  const info = { key: "object", size: content.length, lastModified: new Date(0), etag: "1" }
  const read = (range: { readonly start: number; readonly endExclusive: number }, isFree: () => boolean) =>
    Stream.suspend(() => {
      let array: Uint8Array<ArrayBuffer> | undefined
      return Stream.unfold(range.start, (at) => {
        if (at >= range.endExclusive) {
          // As a storage that looks for the end by a read.
          if (isFree()) array?.fill(0)
          return Option.none()
        }
        if (array === undefined || !isFree()) {
          array = new Uint8Array(chunkSize)
          arrays.add(array.buffer)
        }
        const part = content.subarray(at, Math.min(at + chunkSize, range.endExclusive))
        array.set(part)
        return Option.some([array.subarray(0, part.length), at + part.length] as const)
      }).pipe(Stream.rechunk(1))
    })
  const backend = StorageBackend.make({
    name: "Reusing",
    capabilities: { ...StorageBackend.readOnly, list: true },
    open: (_, options) =>
      Effect.map(StorageBackend.checkLoad(info, options), (range) => ({
        info,
        range,
        stream: read(range, () => false),
        reuse: (isFree: () => boolean) => read(range, isFree)
      })),
    save: () => Effect.die("read-only"),
    remove: () => Effect.die("read-only"),
    entries: () => Stream.make(info)
  })
  return { storage: Storage.make(backend), arrays }
}

const count = Math.ceil(content.length / (512 * KiB))

const isContent = (body: Buffer) => Buffer.compare(body, content) === 0

describe("the body of a download", () => {
  it.scopedLive("is read into one array, which is sent before it is written again", () =>
    Effect.gen(function*() {
      const { arrays, storage } = reusing()
      const served = yield* serveOf(storage)
      for (let times = 1; times <= 3; times++) {
        expect(isContent((yield* ask(served, "GET", "/objects/object")).body)).toBe(true)
        expect(arrays.size).toBe(times)
      }
    }))

  it.scopedLive("is read into one array also where a piece is smaller than what the storage reads", () =>
    Effect.gen(function*() {
      const { arrays, storage } = reusing(3 * MiB)
      const served = yield* serveOf(storage)
      expect(isContent((yield* ask(served, "GET", "/objects/object")).body)).toBe(true)
      expect(arrays.size).toBe(1)
    }))

  it.scopedLive("has an array for each chunk where others see it: with a middleware, or within an app", () =>
    Effect.gen(function*() {
      const { arrays, storage } = reusing()
      const kept: Array<Uint8Array> = []
      const keeping = HttpMiddleware.make((app) =>
        Effect.map(app, (response) =>
          response.body._tag === "Stream"
            ? HttpServerResponse.stream(
              Stream.tap(response.body.stream, (chunk) => Effect.sync(() => void kept.push(chunk))),
              { headers: response.headers }
            )
            : response)
      )
      const inApp = Effect.gen(function*() {
        const router = yield* Effect.provideService(WeightServer.router(), Storage.Storage, storage)
        const context = yield* Layer.build(
          NodeHttpServer.layerServer(() => http.createServer(), { host: "127.0.0.1", port: 0 })
        )
        yield* Effect.provide(HttpServer.serveEffect(HttpRouter.use(router, keeping)), context)
        const { address } = Context.get(context, HttpServer.HttpServer)
        return { port: address._tag === "TcpAddress" ? address.port : 0 }
      })
      for (const serving of [serveOf(storage, { auth: (app) => keeping(app) }), inApp]) {
        const served = yield* serving
        kept.length = 0
        arrays.clear()
        expect(isContent((yield* ask(served, "GET", "/objects/object")).body)).toBe(true)
        expect(arrays.size).toBe(count)
        expect(isContent(Buffer.concat(kept))).toBe(true)
      }
    }))

  it.scopedLive("is one array where the object is in memory", () =>
    Effect.gen(function*() {
      const storage = yield* MemoryStorage.make()
      const seen: Array<string> = []
      const middleware: WeightServer.Middleware = (app) =>
        Effect.tap(app, ({ body }) => Effect.sync(() => void seen.push(body._tag)))
      const served = yield* serveOf(storage, { auth: middleware })
      yield* storage.save("small", content.subarray(0, 60_000))
      expect((yield* ask(served, "GET", "/objects/small")).body.length).toBe(60_000)
      expect(seen).toEqual(["Uint8Array"])
    }))
})

const overMemory = (name: string, body: Effect.Effect<void, unknown, Storage.Storage | Scope.Scope>) =>
  it.scopedLive(name, () => Effect.provide(body, MemoryStorage.layer()))

describe("cache-control", () => {
  const fieldsOf = (served: Served, key: string, headers: http.OutgoingHttpHeaders = {}, method = "GET") =>
    Effect.map(
      ask(served, method, `/objects/${key}`, headers),
      ({ headers, status }) => [status, headers["cache-control"], headers.vary] as const
    )

  const withObjects = (options: WeightServer.Options) =>
    Effect.gen(function*() {
      const served = yield* serve(options)
      const plain = yield* served.storage.save("plain", new Uint8Array(10))
      yield* served.storage.save("own", new Uint8Array(10), { attributes: { cacheControl: "public, max-age=5" } })
      return { served, etag: `"${plain.etag}"` }
    })

  overMemory(
    "of an object is its own, or that of the options, or asks caches to ask each time",
    Effect.gen(function*() {
      const forever = "public, max-age=31536000, immutable"
      const { etag, served } = yield* withObjects({ cacheControl: forever })
      expect(yield* fieldsOf(served, "plain")).toEqual([200, forever, undefined])
      expect(yield* fieldsOf(served, "plain", {}, "HEAD")).toEqual([200, forever, undefined])
      expect(yield* fieldsOf(served, "plain", { range: "bytes=0-3" })).toEqual([206, forever, undefined])
      expect(yield* fieldsOf(served, "plain", { "if-none-match": etag })).toEqual([304, forever, undefined])
      expect(yield* fieldsOf(served, "plain", { "if-none-match": etag }, "HEAD")).toEqual([304, forever, undefined])
      expect(yield* fieldsOf(served, "own")).toEqual([200, "public, max-age=5", undefined])
      expect(yield* fieldsOf(served, "own", { "if-none-match": "*" })).toEqual([304, "public, max-age=5", undefined])
      expect(yield* fieldsOf(served, "missing")).toEqual([404, undefined, undefined])
      // It is not taken for an attribute of the object.
      expect((yield* ask(served, "GET", "/objects/plain")).headers["x-object-attributes"]).toBeUndefined()

      const { served: byDefault } = yield* withObjects({})
      expect(yield* fieldsOf(byDefault, "plain")).toEqual([200, "no-cache", undefined])
      expect(yield* fieldsOf(byDefault, "own")).toEqual([200, "public, max-age=5", undefined])
    })
  )

  overMemory(
    "lets no shared cache give objects to others where tokens are required",
    Effect.gen(function*() {
      const token = Redacted.make("reader-0123456789abcdef")
      const auth = { tokens: [{ token, scope: "read" as const }] }
      for (const cacheControl of ["public, max-age=60", "max-age=60", "private, s-maxage=60", "private, PUBLIC"]) {
        const { option, reason } = yield* Effect.flip(withObjects({ auth, cacheControl })) as Effect.Effect<
          StorageError.InvalidOptions
        >
        expect([option, reason]).toEqual(["cacheControl", expect.stringContaining("private")])
      }
      const { served } = yield* withObjects({ auth, cacheControl: "private, max-age=60" })
      const authorization = `Bearer ${Redacted.value(token)}`
      expect(yield* fieldsOf(served, "plain", { authorization })).toEqual([200, "private, max-age=60", "authorization"])
      expect(yield* fieldsOf(served, "own", { authorization })).toEqual([200, "public, max-age=5", "authorization"])
      expect(yield* Effect.flip(withObjects({ cacheControl: "max-age=60\r\nx: y" }))).toMatchObject({
        option: "cacheControl"
      })
    })
  )
})

describe("ranges of an empty object", () => {
  overMemory(
    "are not satisfiable, but for its last bytes, which are all of it",
    Effect.gen(function*() {
      const served = yield* serve()
      yield* served.storage.save("empty", new Uint8Array(0))
      const get = (range: string) =>
        Effect.map(
          ask(served, "GET", "/objects/empty", { range }),
          ({ headers, status }) => [range, status, headers["content-range"]]
        )
      for (const range of ["bytes=0-", "bytes=0-0", "bytes=1-", "bytes=0-99", "bytes=-0"]) {
        expect(yield* get(range)).toEqual([range, 416, "bytes */0"])
      }
      expect(yield* get("bytes=-5")).toEqual(["bytes=-5", 200, undefined])
      const client = yield* HttpStorage.make({ url: served.url })
      expect((yield* client.load("empty", { range: ByteRange.last(5) })).length).toBe(0)
      expect(yield* Effect.flip(client.load("empty", { range: ByteRange.from(0) }))).toMatchObject({
        _tag: "InvalidRange"
      })
    }).pipe(Effect.provide(FetchHttpClient.layer))
  )
})
