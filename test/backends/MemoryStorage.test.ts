/**
 * The contract suite over memory, and what is particular to it.
 */
import { describe, expect, it } from "@effect/vitest"
import { Effect, Stream, TestClock } from "effect"
import { ByteRange, MemoryStorage, Storage } from "surfing-weights"
import * as StorageContract from "surfing-weights/StorageContract"

StorageContract.suite("MemoryStorage", { layer: MemoryStorage.layer() })

describe("MemoryStorage", () => {
  it.effect("is new and empty each time its layer is built", () =>
    Effect.gen(function*() {
      const program = Effect.zipRight(Storage.save("kept", new Uint8Array(3)), Storage.list())
      const layer = MemoryStorage.layer()
      expect(yield* Effect.provide(program, layer)).toEqual(["kept"])
      expect(yield* Effect.provide(Storage.list(), layer)).toEqual([])
    }))

  it.effect("shares nothing with another storage", () =>
    Effect.gen(function*() {
      const one = yield* MemoryStorage.make()
      const other = yield* MemoryStorage.make()
      yield* one.save("key", new Uint8Array(3))
      expect(yield* other.exists("key")).toBe(false)
    }))

  it.effect("shares no bytes with its callers, also where they are Buffers", () =>
    Effect.gen(function*() {
      const storage = yield* MemoryStorage.make()
      const mine = Buffer.from("weights")
      yield* storage.save("key", mine)
      yield* storage.save("streamed", Stream.make(mine))
      mine.fill(0)
      for (const key of ["key", "streamed"]) {
        const loaded = yield* storage.load(key)
        loaded.fill(0)
        const [ranged] = yield* storage.loadRanges(key, [ByteRange.from(0)])
        ranged?.fill(0)
        yield* Stream.runForEach(storage.stream(key), (chunk) => Effect.sync(() => chunk.fill(0)))
        expect(Buffer.from(yield* storage.load(key)).toString()).toBe("weights")
      }
    }))

  it.effect("dates objects by the Clock", () =>
    Effect.gen(function*() {
      yield* TestClock.setTime(1_000_000)
      const storage = yield* MemoryStorage.make()
      expect((yield* storage.save("key", new Uint8Array(3))).lastModified).toEqual(new Date(1_000_000))
      yield* TestClock.adjust("1 minute")
      expect((yield* storage.head("key")).lastModified).toEqual(new Date(1_000_000))
      expect((yield* storage.copy("key", "copy")).lastModified).toEqual(new Date(1_060_000))
    }))

  it.effect("is named Memory and supports everything but presigned URLs", () =>
    Effect.gen(function*() {
      const { backend } = yield* MemoryStorage.make()
      expect(backend.name).toBe("Memory")
      expect(backend.capabilities).toEqual({
        write: true,
        list: true,
        createOnly: true,
        compareAndSwap: true,
        conditionalRemove: true,
        objectsWithinObjects: true,
        attributes: true,
        presign: false
      })
      const error = yield* Effect.flip(Storage.load("missing"))
      expect(error.message).toBe("load \"missing\" on Memory: there is no such object")
    }).pipe(Effect.provide(MemoryStorage.layer())))
})
