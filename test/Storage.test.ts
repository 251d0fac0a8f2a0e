import { describe, expect, it } from "@effect/vitest"
import { Context, Effect, Stream } from "effect"
import type { StorageError } from "surfing-weights"
import { ByteRange, FileSystemStorage, MemoryStorage, Storage, StorageBackend } from "surfing-weights"
import { temporaryDirectory } from "./support/directory.js"

/** A backend that counts what reaches it, over memory. */
const counting = Effect.map(MemoryStorage.make(), ({ backend }) => {
  const calls: Array<string> = []
  const counted = new Proxy(backend, {
    get: (target, name, receiver) => {
      const member: unknown = Reflect.get(target, name, receiver)
      if (typeof member === "function") calls.push(String(name))
      return member
    }
  })
  return { calls, service: Storage.make(counted) }
})

describe("Storage", () => {
  it.effect("refuses bad keys and ranges before the backend hears of them", () =>
    Effect.gen(function*() {
      const { calls, service } = yield* counting
      const bad = "a/../b"
      const attempts: ReadonlyArray<Effect.Effect<unknown, StorageError.StorageError>> = [
        service.load(bad),
        service.loadRanges(bad, []),
        Stream.runDrain(service.stream(bad)),
        Effect.scoped(service.open(bad)),
        service.save(bad, new Uint8Array()),
        service.head(bad),
        service.exists(bad),
        service.remove(bad),
        service.copy(bad, "k"),
        service.copy("k", bad),
        service.move(bad, "k"),
        service.move("k", bad),
        service.load("k", { range: ByteRange.make(4, 4) }),
        service.loadRanges("k", [ByteRange.from(0), ByteRange.last(0)]),
        Stream.runDrain(service.stream("k", { range: ByteRange.from(-1) })),
        Effect.scoped(service.open("k", { range: ByteRange.from(0.5) }))
      ]
      const tags = yield* Effect.forEach(attempts, (attempt) => Effect.map(Effect.flip(attempt), (error) => error._tag))
      expect(tags).toEqual([
        ...Array.from({ length: 12 }, () => "InvalidKey"),
        ...Array.from({ length: 4 }, () => "InvalidRange")
      ])
      expect(calls).toEqual([])
    }))

  it.effect("refuses a size of chunks that is none", () =>
    Effect.gen(function*() {
      const { calls, service } = yield* counting
      for (const chunkSize of [0, -1, 0.5, NaN, Infinity]) {
        for (
          const attempt of [
            Effect.scoped(service.open("k", { chunkSize })),
            Stream.runDrain(service.stream("k", { chunkSize }))
          ]
        ) {
          const error = yield* Effect.flip(attempt)
          expect(error._tag).toBe("UnsupportedOperation")
          expect(error.message).toContain(`chunkSize is a whole number of bytes from 1 up, not ${chunkSize}`)
        }
      }
      expect(calls).toEqual([])
    }))

  it.scoped.each(["memory", "files"])(
    "streams chunks no larger than was asked for: %s",
    (where) =>
      Effect.gen(function*() {
        const storage = where === "memory"
          ? yield* MemoryStorage.make()
          : yield* FileSystemStorage.make({ directory: yield* temporaryDirectory })
        const bytes = Uint8Array.from({ length: 10 }, (_, i) => i)
        yield* storage.save("k", bytes)
        const chunks = [...(yield* Stream.runCollect(storage.stream("k", { chunkSize: 4 })))]
        expect(chunks.map(({ length }) => length)).toEqual([4, 4, 2])
        expect(Buffer.concat(chunks)).toEqual(Buffer.from(bytes))
        const larger = yield* Stream.runCollect(storage.stream("k", { chunkSize: 2 ** 50 }))
        expect(larger.length).toBe(1)
      })
  )

  it.effect("asks no backend to list a prefix that no key can have", () =>
    Effect.gen(function*() {
      const { calls, service } = yield* counting
      expect(yield* service.list("../")).toEqual([])
      expect((yield* Stream.runCollect(service.entries({ prefix: "a//" }))).length).toBe(0)
      expect(yield* service.listDirectory("/")).toEqual({ objects: [], prefixes: [] })
      expect(calls).toEqual([])
    }))

  it.effect("refuses what the backend says it cannot do, and never ignores an option", () =>
    Effect.gen(function*() {
      const { backend } = yield* MemoryStorage.make()
      const service = (capabilities: Partial<StorageBackend.Capabilities>) =>
        Storage.make(StorageBackend.make({ ...backend, capabilities: { ...StorageBackend.full, ...capabilities } }))
      const data = new Uint8Array([1])
      const attempts: ReadonlyArray<Effect.Effect<unknown, StorageError.StorageError>> = [
        service({ write: false }).save("k", data),
        service({ write: false }).remove("k"),
        service({ write: false }).removeAll(["k"]),
        service({ write: false }).copy("k", "j"),
        service({ write: false }).move("k", "j"),
        service({ createOnly: false }).save("k", data, { ifNoneMatch: "*" }),
        service({ createOnly: false }).copy("k", "j", { ifNoneMatch: "*" }),
        service({ compareAndSwap: false }).save("k", data, { ifMatch: "1" }),
        service({ list: false }).list(),
        service({ list: false }).listDirectory(),
        Stream.runDrain(service({ list: false }).entries())
      ]
      for (const attempt of attempts) expect((yield* Effect.flip(attempt))._tag).toBe("UnsupportedOperation")
      yield* service({ createOnly: false, compareAndSwap: false }).save("k", data)
      expect(yield* service({}).list()).toEqual(["k"])
    }))

  it.effect("passes what a source stream needs and fails with on to the caller", () => {
    class Token extends Context.Tag("test/Token")<Token, number>() {}
    const source = Stream.fromEffect(Effect.map(Token, (byte) => new Uint8Array([byte])))
    const saved: Effect.Effect<StorageBackend.ObjectInfo, StorageError.SaveError | "mine", Token | Storage.Storage> =
      Storage.save("k", Stream.concat(source, Stream.fail("mine" as const)))
    return Effect.gen(function*() {
      expect(yield* Effect.flip(saved)).toBe("mine")
      yield* Storage.save("k", source)
      expect(yield* Storage.load("k")).toEqual(new Uint8Array([7]))
    }).pipe(Effect.provideService(Token, 7), Effect.provide(MemoryStorage.layer()))
  })

  it.effect("takes keys to remove from an effect's stream as from a list", () =>
    Effect.gen(function*() {
      yield* Storage.save("a", new Uint8Array([1]))
      expect(yield* Storage.removeAll(Stream.fromEffect(Effect.succeed("a")))).toEqual({ removed: 1, failed: [] })
      expect(yield* Storage.removeAll(new Set(["b"]))).toEqual({ removed: 1, failed: [] })
      expect(yield* Storage.list()).toEqual([])
    }).pipe(Effect.provide(MemoryStorage.layer())))
})
