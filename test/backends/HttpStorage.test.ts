import { describe, expect, it } from "@effect/vitest"
import { Config, ConfigProvider, Context, Effect, Layer, Redacted, Stream } from "effect"
import { ByteRange, HttpStorage, MemoryStorage, Storage } from "surfing-weights"
import { nodeClient } from "../support/httpClients.js"
import { overMemory } from "../support/httpContract.js"
import { serveOf } from "../support/weightServer.js"

overMemory(nodeClient)

describe("HttpStorage", () => {
  it.scopedLive("does one operation after the other over one connection, whatever comes of them", () =>
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

describe("layerConfig", () => {
  const fromConfig = (settings: Record<string, string>) =>
    HttpStorage.layerConfig({ url: Config.string("WEIGHTS_URL"), token: Config.redacted("WEIGHTS_TOKEN") }).pipe(
      Layer.provide(nodeClient[1]),
      Layer.provide(Layer.setConfigProvider(ConfigProvider.fromMap(new Map(Object.entries(settings)))))
    )

  it.live("takes the address of the server and the token from the configuration", () =>
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

  it.live("fails where the configuration has no address", () =>
    Effect.gen(function*() {
      const failure = yield* Effect.flip(Effect.scoped(Layer.build(fromConfig({ WEIGHTS_TOKEN: "t" }))))
      expect(JSON.stringify(failure)).toContain("WEIGHTS_URL")
    }))
})
