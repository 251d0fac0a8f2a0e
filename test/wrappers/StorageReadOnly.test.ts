/**
 * What a read-only storage lets through, and what it keeps from the storage inside. Where nothing can be saved the
 * contract suite has nothing to read, so reading is tested here.
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

/** A read-only storage over one that notes what it is asked for, and the memory below, in which there is something. */
const setup = Effect.gen(function*() {
  const calls: Array<Call> = []
  const memory = yield* filled()
  const inner = noting(memory, calls)
  return { calls, memory, inner, storage: StorageReadOnly.make(inner) }
})

describe("StorageReadOnly", () => {
  it.effect("shows itself in the name and as one that cannot write", () =>
    Effect.gen(function*() {
      const { storage } = yield* setup
      expect(storage.backend.name).toBe("ReadOnly(Memory)")
      expect(storage.backend.capabilities).toEqual({ ...StorageBackend.readOnly, list: true, presign: true })
      const plain = StorageReadOnly.make(
        Storage.make({
          ...storage.backend,
          name: "Plain",
          capabilities: { ...StorageBackend.full, list: false, objectsWithinObjects: false }
        })
      )
      expect(plain.backend.capabilities).toEqual({ ...StorageBackend.readOnly, objectsWithinObjects: false })
    }))

  it.effect("hands every operation that reads on as it is, and gives what the storage gives", () =>
    Effect.forEach(reading, ([operation, run]) =>
      Effect.gen(function*() {
        const direct = yield* setup
        const expected = yield* run(direct.inner)
        const { calls, storage } = yield* setup
        expect(yield* run(storage), operation).toEqual(expected)
        expect(calls, operation).toEqual(direct.calls)
        expect(calls.map((call) => call.operation)).toEqual([operation])
      })))

  it.effect("refuses every operation that writes, and asks nothing of the storage", () =>
    Effect.forEach(writing, ([operation, run]) =>
      Effect.gen(function*() {
        const { calls, memory, storage } = yield* setup
        const before = yield* Stream.runCollect(memory.entries())
        const error = yield* Effect.flip(run(storage))
        expect(error).toMatchObject({
          _tag: "UnsupportedOperation",
          backend: "ReadOnly(Memory)",
          operation,
          reason: "it is read-only"
        })
        expect(calls, operation).toEqual([])
        expect(yield* Stream.runCollect(memory.entries()), operation).toEqual(before)
      })))

  it.effect("names the key that would change, and not where it would come from", () =>
    Effect.gen(function*() {
      const { storage } = yield* setup
      const keys = yield* Effect.forEach(
        [
          storage.save("to", pattern(3)),
          storage.remove("to"),
          storage.copy("k", "to"),
          storage.move("k", "to"),
          storage.removeAll(["to"])
        ],
        (effect) => Effect.map(Effect.flip(effect), ({ key }) => key)
      )
      expect(keys).toEqual(["to", "to", "to", "to", undefined])
      expect((yield* Effect.flip(storage.save("to", pattern(3)))).message).toBe(
        "save \"to\" on ReadOnly(Memory): it is read-only"
      )
    }))

  it.effect("refuses the same to a wrapper, which asks its backend without looking at what it can do", () =>
    Effect.gen(function*() {
      const { calls, storage: { backend } } = yield* setup
      const attempts: ReadonlyArray<readonly [Operation, Effect.Effect<unknown, StorageError.StorageError>]> = [
        ["save", backend.save("to", pattern(3), {})],
        ["save", backend.save("to", Stream.dieMessage("the source was read"), {})],
        ["remove", backend.remove("k")],
        ["removeAll", backend.removeAll(["k"])],
        ["removeAll", backend.removeAll([])],
        ["copy", backend.copy("k", "to", {})],
        ["move", backend.move("k", "to", {})]
      ]
      for (const [operation, attempt] of attempts) {
        expect(yield* Effect.flip(attempt)).toMatchObject({
          _tag: "UnsupportedOperation",
          backend: "ReadOnly(Memory)",
          operation,
          reason: "it is read-only"
        })
      }
      expect(calls).toEqual([])
    }))

  it.effect("does not begin to read what it will not save", () =>
    Effect.gen(function*() {
      const { storage } = yield* setup
      const error = yield* Effect.flip(storage.save("to", Stream.dieMessage("the source was read")))
      expect(error._tag).toBe("UnsupportedOperation")
    }))

  it.effect("gives URLs to load by, and none to save by", () =>
    Effect.gen(function*() {
      const { calls, storage } = yield* setup
      expect(yield* storage.presign("k", { method: "GET", expiresIn: "1 hour" })).toBe("https://storage.test/")
      expect(calls).toEqual([{ operation: "presign", args: ["k", { method: "GET", expiresIn: "1 hour" }] }])
      const error = yield* Effect.flip(storage.presign("k", { method: "PUT", expiresIn: "1 hour" }))
      expect(error).toMatchObject({ _tag: "UnsupportedOperation", operation: "presign", key: "k" })
      expect(error.message).toContain("read-only")
      expect(calls.length).toBe(1)
    }))

  it.effect("gives no URLs where the storage gives none, and says that it is for that", () =>
    Effect.gen(function*() {
      const storage = StorageReadOnly.make(yield* filled())
      const error = yield* Effect.flip(storage.presign("k", { method: "GET", expiresIn: "1 hour" }))
      expect(error._tag).toBe("UnsupportedOperation")
      expect(error.message).toContain("it gives no URLs")
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

  it.effect("refuses once, whatever is around it", () =>
    Effect.gen(function*() {
      const { calls, storage } = yield* setup
      const folder = yield* StoragePrefix.make(StorageRetry.make(storage, Schedule.recurs(3)), "k")
      expect(folder.backend.name).toBe("Prefix(k, Retry(ReadOnly(Memory)))")
      expect(yield* folder.load("a")).toEqual(pattern(10))
      expect((yield* Effect.flip(folder.remove("a")))._tag).toBe("UnsupportedOperation")
      expect(calls.map(({ operation }) => operation)).toEqual(["load"])
    }))

  it.scopedLive("reads all there is to read in a directory", () =>
    Effect.gen(function*() {
      const directory = yield* Storage.Storage
      const { etag } = yield* directory.save("folder/large", pattern(5_000_000))
      yield* directory.save("small", pattern(3))
      const storage = StorageReadOnly.make(directory)
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

  it.effect("is what its layer provides", () =>
    Effect.gen(function*() {
      const { backend } = yield* Storage.Storage
      expect(backend.name).toBe("ReadOnly(Memory)")
    }).pipe(Effect.provide(Layer.provide(StorageReadOnly.layer, MemoryStorage.layer()))))
})

StorageContract.suite("StorageReadOnly(Memory)", {
  layer: StorageReadOnly.layer.pipe(Layer.provide(MemoryStorage.layer()))
})
