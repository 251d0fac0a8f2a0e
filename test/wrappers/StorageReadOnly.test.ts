/**
 * Which operations a read-only view lets through. The contract suite has nothing to read where nothing can be saved, so
 * reading is tested here.
 */
import { describe, expect, it } from "@effect/vitest"
import { Chunk, Effect, Layer, Schedule, Stream } from "effect"
import type { StorageError } from "surfing-weights"
import {
  ByteRange,
  MemoryStorage,
  Storage,
  StorageBackend,
  StoragePrefix,
  StorageReadOnly,
  StorageRetry
} from "surfing-weights"
import * as StorageContract from "surfing-weights/StorageContract"
import { storageOnDirectory } from "../support/directory.js"
import { type Call, filled, noting, type Operation, operations, pattern } from "../support/intercepting.js"

const writes: ReadonlyArray<Operation> = ["save", "remove", "removeAll", "copy", "move"]

const writing = operations.filter(([operation]) => writes.includes(operation))
const reading = operations.filter(([operation]) => !writes.includes(operation))

/** A read-only view of a storage that records its calls, over a memory storage with some objects. */
const setup = Effect.gen(function*() {
  const calls: Array<Call> = []
  const memory = yield* filled()
  const inner = noting(memory, calls)
  return { calls, memory, inner, storage: yield* StorageReadOnly.make(inner) }
})

const refused = { _tag: "UnsupportedOperation", reason: "the storage is read-only" }

describe("StorageReadOnly", () => {
  it.effect("names itself around the inner storage, and has no capability to write", () =>
    Effect.gen(function*() {
      const { storage } = yield* setup
      expect(storage.backend.name).toBe("ReadOnly(Memory)")
      expect(storage.backend.capabilities).toEqual({
        ...StorageBackend.readOnly,
        list: true,
        attributes: true,
        presign: true
      })
      const plain = yield* StorageReadOnly.make(
        Storage.make({
          ...storage.backend,
          name: "Plain",
          capabilities: { ...StorageBackend.full, list: false, attributes: false, objectsWithinObjects: false }
        })
      )
      expect(plain.backend.capabilities).toEqual({ ...StorageBackend.readOnly, objectsWithinObjects: false })
    }))

  it.effect("passes every read through unchanged, and returns what the storage returns", () =>
    Effect.forEach(reading, ([operation, run]) =>
      Effect.gen(function*() {
        const direct = yield* setup
        const expected = yield* run(direct.inner)
        const { calls, storage } = yield* setup
        expect(yield* run(storage), operation).toEqual(expected)
        expect(calls, operation).toEqual(direct.calls)
        expect(calls.map((call) => call.operation)).toEqual([operation])
      })))

  it.effect("refuses every write without calling the storage", () =>
    Effect.forEach(writing, ([operation, run]) =>
      Effect.gen(function*() {
        const { calls, memory, storage } = yield* setup
        const before = yield* Stream.runCollect(memory.entries())
        const error = yield* Effect.flip(run(storage))
        expect(error).toMatchObject({ ...refused, backend: "ReadOnly(Memory)", operation })
        expect(calls, operation).toEqual([])
        expect(yield* Stream.runCollect(memory.entries()), operation).toEqual(before)
      })))

  it.effect("says why, where and about which key", () =>
    Effect.gen(function*() {
      const { storage } = yield* setup
      expect((yield* Effect.flip(storage.save("to", pattern(3)))).message).toBe(
        "save \"to\" on ReadOnly(Memory): the storage is read-only"
      )
    }))

  it.effect("refuses the same to a wrapper, which calls the backend without looking at its capabilities", () =>
    Effect.gen(function*() {
      const { calls, storage: { backend } } = yield* setup
      const attempts: ReadonlyArray<Effect.Effect<unknown, StorageError.StorageError>> = [
        backend.save("to", pattern(3), {}),
        backend.save("to", Stream.dieMessage("the source was read"), {}),
        backend.remove("k", {}),
        backend.removeAll(["k"]),
        backend.removeAll([]),
        backend.copy("k", "to", {}),
        backend.move("k", "to", {})
      ]
      for (const attempt of attempts) expect(yield* Effect.flip(attempt)).toMatchObject(refused)
      expect(calls).toEqual([])
    }))

  it.effect("does not read the source of a save", () =>
    Effect.gen(function*() {
      const { storage } = yield* setup
      const error = yield* Effect.flip(storage.save("to", Stream.dieMessage("the source was read")))
      expect(error).toMatchObject(refused)
    }))

  it.effect("presigns URLs to load, but not to save", () =>
    Effect.gen(function*() {
      const { calls, storage } = yield* setup
      expect(yield* storage.presign("k", { method: "GET", expiresIn: "1 hour" })).toBe("https://storage.test/")
      expect(calls).toEqual([{ operation: "presign", args: ["k", { method: "GET", expiresIn: "1 hour" }] }])
      const error = yield* Effect.flip(storage.presign("k", { method: "PUT", expiresIn: "1 hour" }))
      expect(error).toMatchObject({ ...refused, operation: "presign", key: "k" })
      expect(calls.length).toBe(1)
    }))

  it.effect("does not presign where the storage does not, and says that this is the reason", () =>
    Effect.gen(function*() {
      const storage = yield* StorageReadOnly.make(yield* filled())
      const error = yield* Effect.flip(storage.presign("k", { method: "GET", expiresIn: "1 hour" }))
      expect(error).toMatchObject({ _tag: "UnsupportedOperation", reason: "presigned URLs are not supported" })
    }))

  it.effect("shows what others change in the storage", () =>
    Effect.gen(function*() {
      const { memory, storage } = yield* setup
      yield* memory.save("later", pattern(7))
      expect(yield* storage.load("later")).toEqual(pattern(7))
      yield* memory.remove("k")
      expect(yield* storage.list()).toEqual(["k/a", "k/b", "later"])
      expect(yield* Effect.flip(storage.load("k"))).toMatchObject({ _tag: "ObjectNotFound", key: "k" })
    }))

  it.effect("refuses once under other wrappers, which do not retry it", () =>
    Effect.gen(function*() {
      const { calls, storage } = yield* setup
      const folder = yield* Effect.flatMap(
        storage.pipe(StorageRetry.make(Schedule.recurs(3))),
        StoragePrefix.make("k")
      )
      expect(folder.backend.name).toBe("Prefix(k, Retry(ReadOnly(Memory)))")
      expect(yield* folder.load("a")).toEqual(pattern(10))
      expect(yield* Effect.flip(folder.remove("a"))).toMatchObject(refused)
      expect(calls.map(({ operation }) => operation)).toEqual(["load"])
    }))

  it.scopedLive("reads everything in a directory", () =>
    Effect.gen(function*() {
      const directory = yield* Storage.Storage
      const { etag } = yield* directory.save("folder/large", pattern(5_000_000))
      yield* directory.save("small", pattern(3))
      const storage = yield* StorageReadOnly.make(directory)
      expect(yield* storage.list()).toEqual(["folder/large", "small"])
      expect(Chunk.toArray(yield* Stream.runCollect(storage.entries()))).toEqual([
        yield* directory.head("folder/large"),
        yield* directory.head("small")
      ])
      expect(yield* storage.listDirectory()).toEqual({
        objects: [yield* directory.head("small")],
        prefixes: ["folder/"]
      })
      expect(yield* storage.exists("folder")).toBe(false)
      expect(yield* storage.head("folder/large")).toMatchObject({ etag, size: 5_000_000 })
      const whole = Buffer.from(yield* storage.load("folder/large"))
      expect(whole.equals(pattern(5_000_000))).toBe(true)
      const pieces = yield* Stream.runCollect(storage.stream("folder/large", { ifMatch: etag }))
      expect(Buffer.concat(Chunk.toArray(pieces)).equals(whole)).toBe(true)
      const opened = yield* storage.open("small", { range: ByteRange.last(2) })
      expect(opened).toMatchObject({ info: { key: "small", size: 3 }, range: { start: 1, endExclusive: 3 } })
      const ranges = yield* storage.loadRanges("small", [ByteRange.last(1), ByteRange.make(0, 2)])
      expect(ranges).toEqual([pattern(3).slice(2), pattern(3).slice(0, 2)])
      expect((yield* Effect.flip(storage.load("folder/large", { ifNoneMatch: etag })))._tag).toBe("ObjectNotModified")
      expect((yield* Effect.flip(storage.load("../small")))._tag).toBe("InvalidKey")
      expect((yield* Effect.flip(storage.remove("small")))._tag).toBe("UnsupportedOperation")
      expect(yield* directory.list()).toEqual(["folder/large", "small"])
    }).pipe(Effect.provide(storageOnDirectory({ durability: "relaxed" }))))

  it.effect("is provided by its layer", () =>
    Effect.gen(function*() {
      const { backend } = yield* Storage.Storage
      expect(backend.name).toBe("ReadOnly(Memory)")
    }).pipe(Effect.provide(Layer.provide(StorageReadOnly.layer(), MemoryStorage.layer()))))
})

StorageContract.suite("StorageReadOnly(Memory)", {
  layer: StorageReadOnly.layer().pipe(Layer.provide(MemoryStorage.layer()))
})
