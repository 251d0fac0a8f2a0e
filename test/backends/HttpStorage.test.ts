import { FetchHttpClient, HttpServerResponse } from "@effect/platform"
import { describe, expect, it } from "@effect/vitest"
import { Config, ConfigProvider, Context, Effect, Exit, Layer, Redacted, Stream } from "effect"
import { gzipSync } from "node:zlib"
import { ByteRange, HttpStorage, MemoryStorage, Storage, type StorageError, type WeightServer } from "surfing-weights"
import { clients, nodeClient } from "../support/httpClients.js"
import { overMemory } from "../support/httpContract.js"
import { serveOf } from "../support/weightServer.js"

overMemory(nodeClient)

describe("HttpStorage", () => {
  it.scopedLive("uses one connection for one operation after the other, whatever their outcome", () =>
    Effect.gen(function*() {
      const { connections, url } = yield* serveOf(yield* MemoryStorage.make(), { writable: true })
      const { save, ...storage } = Context.get(
        yield* Layer.build(Layer.provide(HttpStorage.layer({ url }), nodeClient[1])),
        Storage.Storage
      )
      const large = new Uint8Array(1_000_000)
      const { etag } = yield* save("object", new Uint8Array([1, 2, 3]))
      yield* save("large", large)
      yield* save("stream", Stream.make(large), { ifNoneMatch: "*" })
      yield* storage.load("object")
      yield* storage.load("large", { range: ByteRange.last(2) })
      yield* Effect.flip(storage.load("none"))
      yield* Effect.flip(storage.load("object", { ifNoneMatch: etag }))
      yield* Stream.runDrain(storage.stream("large"))
      expect([yield* storage.exists("object"), yield* storage.exists("none")]).toEqual([true, false])
      yield* storage.list()
      yield* storage.listDirectory()
      yield* storage.copy("object", "copy")
      yield* storage.remove("object")
      yield* storage.remove("none")
      yield* storage.exists("none")
      expect(connections.length).toBe(1)
    }))
})

describe("a refusal", () => {
  it.scopedLive("reaches the caller with the reason of the server, or of what stands before it", () =>
    Effect.gen(function*() {
      const memory = yield* MemoryStorage.make()
      yield* memory.save("object", new Uint8Array(3))
      const token = Redacted.make("reader-0123456789abcdef")
      const reason = (
        options: WeightServer.Options,
        run: (storage: Storage.Service) => Effect.Effect<unknown, StorageError.StorageError>
      ) =>
        Effect.gen(function*() {
          const { url } = yield* serveOf(memory, { writable: true, ...options })
          const storage = yield* Effect.provide(HttpStorage.make({ url, token }), nodeClient[1])
          const error = yield* Effect.flip(run(storage))
          return `${error._tag}: ${error.message}`
        })
      const load = (storage: Storage.Service) => storage.load("object")
      const saves = [
        (storage: Storage.Service) => storage.save("new", new Uint8Array(10)),
        // More than the server reads of a body that it refuses.
        (storage: Storage.Service) =>
          storage.save("new", Stream.repeatEffect(Effect.succeed(new Uint8Array(1_000_000))).pipe(Stream.take(40)))
      ]
      for (const save of saves) {
        expect(yield* reason({ auth: { tokens: [{ token, scope: "read" }] } }, save)).toMatch(
          /^AccessDenied: .*only allows reading/
        )
      }
      const answering = (response: HttpServerResponse.HttpServerResponse): WeightServer.Options => ({
        auth: () => Effect.succeed(response)
      })
      const text = HttpServerResponse.text
      const json = HttpServerResponse.unsafeJson
      const refusals: ReadonlyArray<readonly [HttpServerResponse.HttpServerResponse, RegExp]> = [
        [text("your plan has no models\n", { status: 403 }), /\(HTTP 403\): your plan has no models$/],
        [json({ error: "your plan has no models" }, { status: 403 }), /\(HTTP 403\): your plan has no models$/],
        [json({ message: "log in again" }, { status: 401 }), /\(HTTP 401\): log in again$/],
        [json({ title: "Forbidden", detail: "not from here" }, { status: 403 }), /\(HTTP 403\): not from here$/],
        [text("<html>Forbidden</html>", { status: 403, contentType: "text/html" }), /\(HTTP 403\)$/],
        [text("x".repeat(500), { status: 403 }), /\(HTTP 403\)$/],
        [text("two\nlines", { status: 403 }), /\(HTTP 403\)$/]
      ]
      for (const [response, message] of refusals) {
        expect(yield* reason(answering(response), load)).toMatch(message)
      }
    }))
})

// Node's type does not have `cache`.
const uncached = { mode: "cors" as const, cache: "no-cache" }

for (const [name, client] of clients) {
  const connected = <A, E, R>(
    body: (storage: Storage.Service, memory: Storage.Service, url: string) => Effect.Effect<A, E, R>
  ) =>
    Effect.gen(function*() {
      const memory = yield* MemoryStorage.make()
      const { url } = yield* serveOf(memory, { writable: true })
      return yield* body(yield* HttpStorage.make({ url }), memory, url)
    }).pipe(Effect.scoped, Effect.provide(client))

  describe(`HttpStorage with ${name}`, () => {
    it.live("saves no attributes that the client adds to a request", () =>
      connected((storage, memory) =>
        Effect.gen(function*() {
          const bytes = new Uint8Array(1)
          const { etag } = yield* storage.save("object", bytes, { ifNoneMatch: "*" })
          expect((yield* memory.head("object")).attributes).toBeUndefined()
          yield* storage.save("object", bytes, { ifMatch: etag })
          expect((yield* memory.head("object")).attributes).toBeUndefined()
          yield* storage.save("object", bytes)
          expect((yield* memory.head("object")).attributes).toBeUndefined()
          const attributes = { cacheControl: "no-cache" }
          yield* storage.save("other", bytes, { ifNoneMatch: "*", attributes })
          expect((yield* memory.head("other")).attributes).toEqual(attributes)
        })
      ).pipe(Effect.provideService(FetchHttpClient.RequestInit, uncached)))

    it.live("saves and returns attributes, and none where there are none", () =>
      connected((storage, memory) =>
        Effect.gen(function*() {
          const attributes = {
            contentType: "application/octet-stream",
            cacheControl: "no-cache",
            contentDisposition: "attachment; filename=\"a.bin\"",
            contentLanguage: "de",
            metadata: { model: "bert", author: "J\u00fcrgen =?utf-8?q?x?=", empty: "" }
          }
          const none = [undefined, undefined, undefined]
          for (const data of [new Uint8Array([1]), Stream.make(new Uint8Array([1])), new Uint8Array(300_000)]) {
            for (
              const [given, expected] of [[attributes, [attributes, attributes, attributes]], [
                undefined,
                none
              ]] as const
            ) {
              const saved = yield* storage.save("a", data, { attributes: given })
              const opened = yield* Effect.scoped(storage.open("a"))
              const seen = [saved.attributes, (yield* storage.head("a")).attributes, opened.info.attributes]
              expect(seen).toEqual(expected)
              expect((yield* memory.head("a")).attributes).toEqual(given)
            }
          }
          yield* memory.save("config.json", new Uint8Array([1]), { attributes: { contentType: "application/json" } })
          yield* storage.copy("config.json", "copy")
          expect((yield* memory.head("copy")).attributes).toEqual({ contentType: "application/json" })
        })
      ))

    it.live("returns the bytes of an encoded object as they were saved", () =>
      connected((storage) =>
        Effect.gen(function*() {
          const plain = new Uint8Array(300_000).fill(7)
          for (const bytes of [plain.subarray(0, 1000), plain]) {
            const encoded = new Uint8Array(gzipSync(bytes, { level: 0 }))
            yield* storage.save("a", encoded, { attributes: { contentEncoding: "gzip" } })
            expect(Buffer.compare(yield* storage.load("a"), encoded)).toBe(0)
            expect(yield* storage.load("a", { range: ByteRange.last(10) })).toEqual(encoded.subarray(-10))
            const parts = yield* Stream.runCollect(storage.stream("a"))
            expect(Buffer.compare(Buffer.concat([...parts]), encoded)).toBe(0)
            expect((yield* storage.head("a")).attributes).toEqual({ contentEncoding: "gzip" })
          }
        })
      ))

    it.live("removes an object only if it has the etag given", () =>
      connected((storage, memory) =>
        Effect.gen(function*() {
          const { etag } = yield* memory.save("a", new Uint8Array([1]))
          for (const ifMatch of ["another", "\ud800"]) {
            expect(yield* Effect.flip(storage.remove("a", { ifMatch }))).toMatchObject({
              _tag: "PreconditionFailed",
              operation: "remove",
              key: "a"
            })
          }
          yield* storage.remove("a", { ifMatch: etag })
          expect(yield* memory.list()).toEqual([])
          expect(yield* Effect.flip(storage.remove("a", { ifMatch: etag }))).toMatchObject({
            _tag: "PreconditionFailed"
          })
        })
      ))

    it.live("never saves a part of a stream whose source fails, with its size announced or not", () =>
      connected((storage, memory) =>
        Effect.gen(function*() {
          const piece = new Uint8Array(100_000)
          for (const beginning of [Stream.empty, Stream.make(piece), Stream.make(piece, piece, piece)]) {
            for (const size of [undefined, 0, 100_000, 300_000]) {
              const failing = Stream.concat(beginning, Stream.fail("mine" as const))
              const exit = yield* Effect.exit(storage.save("a", failing, { size }))
              expect(Exit.isFailure(exit)).toBe(true)
              const late = Stream.concat(
                beginning,
                Stream.fromEffect(Effect.zipRight(Effect.sleep(20), Effect.fail("late")))
              )
              expect(Exit.isFailure(yield* Effect.exit(storage.save("a", late, { size })))).toBe(true)
            }
          }
          // The server learns a moment later that its client has gone.
          yield* Effect.sleep("100 millis")
          expect(yield* memory.list()).toEqual([])
        })
      ))
  })
}

describe("layerConfig", () => {
  const fromConfig = (settings: Record<string, string>) =>
    HttpStorage.layerConfig({ url: Config.string("WEIGHTS_URL"), token: Config.redacted("WEIGHTS_TOKEN") }).pipe(
      Layer.provide(nodeClient[1]),
      Layer.provide(Layer.setConfigProvider(ConfigProvider.fromMap(new Map(Object.entries(settings)))))
    )

  it.live("reads the URL and the token from the configuration", () =>
    Effect.scoped(Effect.gen(function*() {
      const token = "reader-0123456789abcdef"
      const memory = yield* MemoryStorage.make()
      yield* memory.save("object", new Uint8Array([1, 2, 3]))
      const { url } = yield* serveOf(memory, {
        auth: { tokens: [{ token: Redacted.make(token), scope: "read" }] }
      })
      const loaded = Storage.load("object").pipe(
        Effect.provide(fromConfig({ WEIGHTS_URL: url, WEIGHTS_TOKEN: token }))
      )
      expect(yield* loaded).toEqual(new Uint8Array([1, 2, 3]))
      const denied = Storage.load("object").pipe(
        Effect.provide(fromConfig({ WEIGHTS_URL: url, WEIGHTS_TOKEN: "another-0123456789abcdef" })),
        Effect.flip
      )
      expect(yield* denied).toMatchObject({ _tag: "AccessDenied" })
    })))

  it.live("fails where the configuration has no URL", () =>
    Effect.gen(function*() {
      const failure = yield* Effect.flip(Effect.scoped(Layer.build(fromConfig({ WEIGHTS_TOKEN: "t" }))))
      expect(JSON.stringify(failure)).toContain("WEIGHTS_URL")
    }))
})
