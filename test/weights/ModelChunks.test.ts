/**
 * Models in chunks: manifests, loads and streams in memory and on virtual time, and damaged chunks behind caches.
 */
import { describe, expect, it } from "@effect/vitest"
import { Deferred, Duration, Effect, Exit, Fiber, Stream, TestClock } from "effect"
import * as fs from "node:fs"
import * as path from "node:path"
import type { Storage } from "surfing-weights"
import {
  FileSystemStorage,
  MemoryStorage,
  ModelChunks,
  StorageCache,
  StorageChaos,
  StorageError,
  StorageReadOnly
} from "surfing-weights"
import { temporaryDirectory } from "../support/directory.js"
import { type Call, intercepting, noting } from "../support/intercepting.js"
import {
  bytesOf,
  flip,
  on,
  openOn,
  sha256,
  tags,
  tensorsOf,
  text,
  verifyOn,
  withChunks,
  withSource
} from "../support/modelChunks.js"

describe("ModelChunks.writeManifest", () => {
  it.effect("lists all objects of the folder in natural order, without the manifest", () =>
    Effect.gen(function*() {
      const storage = yield* MemoryStorage.make()
      const keys = ["part-10.bin", "part-2.bin", "part-1.bin", "deep/part-3/a"]
      yield* Effect.forEach(keys, (key) => storage.save(key, text(key)))
      for (let i = 0; i < 2; i++) {
        const { chunks } = yield* on(storage)(ModelChunks.writeManifest(""))
        expect(chunks.map(({ key }) => key)).toEqual(["deep/part-3/a", "part-1.bin", "part-2.bin", "part-10.bin"])
      }
      expect(new TextDecoder().decode(yield* (yield* openOn(storage, "")).load("part-10.bin"))).toBe("part-10.bin")
    }))

  it.effect("leaves out objects outside of the folder", () =>
    Effect.gen(function*() {
      const storage = yield* MemoryStorage.make()
      yield* Effect.forEach(["model/a", "model-2/b", "models/c"], (key) => storage.save(key, text(key)))
      const { chunks } = yield* on(storage)(ModelChunks.writeManifest("model"))
      expect(chunks.map(({ name }) => name)).toEqual(["a"])
    }))

  it.effect("reads at most `concurrency` objects at once", () =>
    Effect.gen(function*() {
      let now = 0
      let most = 0
      const storage = intercepting(yield* withChunks(12), {
        through: (stream, { operation }) =>
          operation !== "open" ? stream : Stream.unwrapScoped(
            Effect.acquireRelease(
              Effect.sync(() => void (most = Math.max(most, ++now))),
              () => Effect.sync(() => void now--)
            ).pipe(Effect.zipRight(Effect.sleep("1 second")), Effect.as(stream))
          )
      })
      const fiber = yield* Effect.fork(on(storage)(ModelChunks.writeManifest("model", { concurrency: 3 })))
      yield* TestClock.adjust("1 minute")
      yield* Fiber.join(fiber)
      expect(most).toBe(3)
    }))

  it.effect("keeps the existing manifest when it fails", () =>
    Effect.gen(function*() {
      const memory = yield* withChunks(3)
      const before = yield* memory.load("model/manifest.json")
      yield* memory.save("model/chunk_1", text("other"))
      const storage = yield* StorageChaos.make(memory, [{ operation: "open", key: "model/chunk_2" }])
      const error = yield* Effect.flip(on(storage)(ModelChunks.writeManifest("model")))
      expect(error).toMatchObject({ _tag: "StorageUnavailable", key: "model/chunk_2" })
      expect(yield* memory.load("model/manifest.json")).toEqual(before)
    }))

  it.effect("fails on a read-only storage before it reads a byte", () =>
    Effect.gen(function*() {
      const calls: Array<Call> = []
      const storage = yield* StorageReadOnly.make(noting(yield* withChunks(2), calls))
      calls.length = 0
      const error = yield* Effect.flip(on(storage)(ModelChunks.writeManifest("model")))
      expect(error).toMatchObject({ _tag: "UnsupportedOperation", operation: "writeManifest" })
      expect(calls).toEqual([])
    }))
})

describe("the prefix", () => {
  it.effect("that is not a key fails with InvalidKey", () =>
    Effect.gen(function*() {
      const storage = yield* MemoryStorage.make()
      for (const prefix of ["../secrets", "/etc", "a//b", "a/../b"]) {
        const error = yield* Effect.flip(openOn(storage, prefix))
        expect(error).toMatchObject({ _tag: "InvalidKey", key: prefix, operation: "open" })
      }
    }))

  it.effect("without a manifest fails with ObjectNotFound and the key of the manifest", () =>
    Effect.gen(function*() {
      const error = yield* Effect.flip(openOn(yield* MemoryStorage.make()))
      expect(error).toMatchObject({ _tag: "ObjectNotFound", key: "model/manifest.json" })
    }))
})

describe("a manifest", () => {
  const chunk = { name: "a", key: "a.bin", size: 1, sha256: "0".repeat(64) }
  const manifest = (...chunks: ReadonlyArray<unknown>) => ({
    schema: "surfing-weights/model-chunks",
    version: 1,
    chunks
  })
  const b = { ...chunk, name: "b", key: "b.bin" }

  const hostile: ReadonlyArray<readonly [what: string, json: unknown, field: string, reason: string | RegExp]> = [
    ["invalid JSON", "{", "manifest", "it is not JSON in UTF-8; write a new one with ModelChunks.writeManifest"],
    ["invalid UTF-8", new Uint8Array([0x22, 0xff, 0x22]), "manifest", "it is not JSON in UTF-8"],
    ["an array", "[]", "manifest", /Expected/],
    ["null", "null", "manifest", /Expected/],
    ["another schema", { ...manifest(), schema: "other" }, "schema", "\"surfing-weights/model-chunks\""],
    ["no version", { schema: manifest().schema, chunks: [] }, "version", "is missing"],
    [
      "a later version",
      { ...manifest(), version: 2 },
      "version",
      "unsupported version (got 2, this library reads version 1)"
    ],
    ["chunks that are not an array", { ...manifest(), chunks: {} }, "chunks", /Expected/],
    ["a chunk that is null", manifest(chunk, null), "chunks[1]", /Expected/],
    ["an empty name", manifest({ ...chunk, name: "" }), "chunks[0].name", /non empty/],
    ["no key", manifest({ ...chunk, key: undefined }), "chunks[0].key", "is missing"],
    [
      "a key outside of the folder",
      manifest({ ...chunk, key: "../../etc/passwd" }),
      "chunks[0].key",
      "a segment \"..\""
    ],
    [
      "a key outside of the folder further on",
      manifest({ ...chunk, key: "a/../../b" }),
      "chunks[0].key",
      "a segment \"..\""
    ],
    ["an absolute key", manifest({ ...chunk, key: "/etc/passwd" }), "chunks[0].key", "an empty segment"],
    ["a key with NUL", manifest({ ...chunk, key: "a\0" }), "chunks[0].key", "control characters"],
    [
      "the manifest as a chunk",
      manifest({ ...chunk, key: "manifest.json" }),
      "chunks[0].key",
      "the key of the manifest"
    ],
    [
      "a negative size",
      manifest({ ...chunk, size: -1 }),
      "chunks[0].size",
      "must be a whole number of bytes of at least 0 (got -1)"
    ],
    ["half a byte", manifest({ ...chunk, size: 0.5 }), "chunks[0].size", "(got 0.5)"],
    ["a size beyond 2^53", manifest({ ...chunk, size: 1e300 }), "chunks[0].size", "(got 1e+300)"],
    ["a size in a string", manifest({ ...chunk, size: "1" }), "chunks[0].size", /Expected number/],
    ["a short hash", manifest({ ...chunk, sha256: "abc" }), "chunks[0].sha256", "64 lower-case hexadecimal digits"],
    ["an upper-case hash", manifest({ ...chunk, sha256: "A".repeat(64) }), "chunks[0].sha256", "64 lower-case"],
    ["a duplicate name", manifest(chunk, b, { ...b, name: "a", key: "c" }), "chunks[2].name", "\"a\" is in chunks[0]"],
    ["a duplicate key", manifest(chunk, b, { ...b, name: "c" }), "chunks[2].key", "\"b.bin\" is in chunks[1]"],
    [
      "a duplicate tensor",
      manifest({ ...chunk, tensors: ["x", "y"] }, { ...b, tensors: ["z", "y"] }),
      "chunks[1].tensors",
      "\"y\" is in chunks[0]"
    ],
    ["tensors that are not strings", manifest({ ...chunk, tensors: [1] }), "chunks[0].tensors[0]", /Expected string/]
  ]

  for (const [what, json, field, reason] of hostile) {
    it.effect(`with ${what} fails with a ModelChunksError for ${field}`, () =>
      Effect.gen(function*() {
        const storage = yield* MemoryStorage.make()
        const bytes = json instanceof Uint8Array ? json : text(typeof json === "string" ? json : JSON.stringify(json))
        yield* storage.save("model/manifest.json", bytes)
        const error = yield* Effect.flip(openOn(storage))
        expect(error).toMatchObject({
          _tag: "ModelChunksError",
          backend: "Memory",
          operation: "open",
          key: "model/manifest.json",
          field
        })
        expect(error.message).toMatch(reason)
        expect(error.message.startsWith(`open "model/manifest.json" on Memory: ${field}: `)).toBe(true)
        const { failure } = yield* verifyOn(storage)
        expect(failure).toMatchObject({ _tag: "ModelChunksError", operation: "verify", field })
      }))
  }

  it.effect("over the size limit is rejected without being read", () =>
    Effect.gen(function*() {
      const memory = yield* withChunks(1)
      const storage = intercepting(memory, {
        around: (effect, { operation }) =>
          operation !== "open" ? effect : Effect.map(effect, (opened) => ({
            ...opened,
            ...("info" in (opened as object) && { info: { size: 2 ** 40 }, stream: Stream.die("it is read") })
          }))
      })
      const error = yield* Effect.flip(openOn(storage))
      expect(error).toMatchObject({ _tag: "ModelChunksError", field: "manifest" })
      expect(error.message).toContain("1099511627776 bytes")
    }))

  it.effect("may have unknown fields", () =>
    Effect.gen(function*() {
      const storage = yield* MemoryStorage.make()
      yield* storage.save("model/manifest.json", text(JSON.stringify({ ...manifest({ ...chunk, x: 1 }), y: 2 })))
      expect((yield* openOn(storage)).manifest.chunks).toEqual([new ModelChunks.ChunkInfo(chunk)])
    }))
})

describe("Model.load", () => {
  it.effect("fails with ObjectNotFound if the chunk is missing", () =>
    Effect.gen(function*() {
      const storage = yield* withChunks(3)
      yield* storage.remove("model/chunk_1")
      const error = yield* Effect.flip((yield* openOn(storage)).load("chunk_1"))
      expect(error).toMatchObject({ _tag: "ObjectNotFound", key: "model/chunk_1" })
      const { events, failure } = yield* verifyOn(storage)
      expect(tags(events)).toEqual(["Failed chunk_1", "Verified chunk_0", "Verified chunk_2"])
      expect(failure).toMatchObject({ _tag: "ObjectNotFound", key: "model/chunk_1" })
    }))

  it.effect("fails with CorruptObject if the size is wrong, and verify does not read the chunk", () =>
    Effect.gen(function*() {
      const memory = yield* withChunks(2)
      yield* memory.save("model/chunk_1", bytesOf(1, 999))
      const error = yield* Effect.flip((yield* openOn(memory)).load("chunk_1"))
      expect(error).toMatchObject({ _tag: "CorruptObject", problem: "size", key: "model/chunk_1", attempts: 2 })
      expect(error.message).toContain("chunk \"chunk_1\" has 999 bytes, but the manifest says 1000")
      const storage = intercepting(memory, {
        through: (stream, { args: [key] }) => key === "model/chunk_1" ? Stream.die("it is read") : stream
      })
      const { failure } = yield* verifyOn(storage)
      expect(failure).toMatchObject({ _tag: "CorruptObject", problem: "size", operation: "verify" })
    }))

  it.effect("fails with a ModelChunksError for an unknown name, and lists the known ones", () =>
    Effect.gen(function*() {
      const model = yield* openOn(yield* withChunks(13))
      const error = yield* Effect.flip(model.load("layer_0"))
      expect(error).toMatchObject({ _tag: "ModelChunksError", operation: "load", field: "name" })
      expect(error.message).toContain("there is no chunk \"layer_0\"; the chunks are \"chunk_0\", \"chunk_1\"")
      expect(error.message).toContain("\"chunk_11\", …")
      const none = yield* Effect.flip(Stream.runDrain(model.stream({ order: ["chunk_1", "toString"] })))
      expect(none).toMatchObject({ _tag: "ModelChunksError", operation: "stream", field: "order[1]" })
    }))

  it.effect("returns bytes over an ArrayBuffer, which Blob and crypto.subtle accept", () =>
    Effect.gen(function*() {
      const model = yield* openOn(yield* withChunks(1))
      const bytes: Uint8Array<ArrayBuffer> = yield* model.load("chunk_0")
      expect(bytes.buffer).toBeInstanceOf(ArrayBuffer)
      expect(bytes).toEqual(bytesOf(0))
    }))

  it.effect("returns an empty chunk", () =>
    Effect.gen(function*() {
      const storage = yield* MemoryStorage.make()
      yield* storage.save("model/a", new Uint8Array(0))
      yield* on(storage)(ModelChunks.writeManifest("model"))
      expect((yield* (yield* openOn(storage)).load("a")).byteLength).toBe(0)
      expect((yield* verifyOn(storage)).events.map(({ _tag }) => _tag)).toEqual(["Verified"])
    }))

  it.effect("passes on a truncated load without loading again", () =>
    Effect.gen(function*() {
      const calls: Array<Call> = []
      const storage = yield* StorageChaos.make(yield* withChunks(1), [{
        operation: "load",
        times: Infinity,
        error: (struck) => new StorageError.CorruptObject({ ...struck, problem: "truncated", reason: "cut" })
      }])
      const model = yield* openOn(noting(storage, calls))
      calls.length = 0
      const error = yield* Effect.flip(model.load("chunk_0"))
      expect(error).toMatchObject({ _tag: "CorruptObject", problem: "truncated" })
      expect(calls.map(({ operation }) => operation)).toEqual(["load"])
    }))
})

describe("a damaged chunk in a cache", () => {
  /** A cache with a damaged chunk over an origin in which it is intact again. */
  const damaged = (tier?: Storage.Service) =>
    Effect.gen(function*() {
      const origin = yield* withChunks(2)
      const calls: Array<Call> = []
      const storage = yield* StorageCache.make(noting(origin, calls), {
        capacity: tier === undefined ? 1_000_000 : 1,
        freshness: "immutable",
        tier: tier && { storage: tier, capacity: 1_000_000 }
      })
      yield* origin.save("model/chunk_1", flip(bytesOf(1)))
      expect(yield* storage.load("model/chunk_1")).toEqual(flip(bytesOf(1)))
      yield* origin.save("model/chunk_1", bytesOf(1))
      expect(yield* storage.load("model/chunk_1")).toEqual(flip(bytesOf(1)))
      const model = yield* openOn(storage)
      calls.length = 0
      return { cache: storage.cache, calls, model, origin, storage }
    })

  const asked = (calls: ReadonlyArray<Call>) => calls.map(({ args, operation }) => `${operation} ${String(args[0])}`)

  it.effect("is loaded again from an intact origin, once, and evicted from the cache", () =>
    Effect.gen(function*() {
      const { cache, calls, model, storage } = yield* damaged()
      expect(yield* model.load("chunk_1")).toEqual(bytesOf(1))
      expect(asked(calls)).toEqual(["load model/chunk_1"])
      expect((yield* cache.statistics).memory.objects).toBe(1)
      expect(yield* storage.load("model/chunk_1")).toEqual(bytesOf(1))
      expect(yield* model.load("chunk_1")).toEqual(bytesOf(1))
      expect(asked(calls)).toEqual(["load model/chunk_1", "open model/chunk_1"])
    }))

  it.effect("is loaded again by a stream", () =>
    Effect.gen(function*() {
      const { model } = yield* damaged()
      const loaded = yield* Stream.runCollect(model.stream())
      expect([...loaded].map(({ bytes }) => bytes)).toEqual([bytesOf(0), bytesOf(1)])
    }))

  it.scopedLive("is loaded again if it is in the tier on disk", () =>
    Effect.gen(function*() {
      const tier = yield* FileSystemStorage.make({ directory: yield* temporaryDirectory })
      const { cache, calls, model } = yield* damaged(tier)
      expect(yield* model.load("chunk_1")).toEqual(bytesOf(1))
      expect(asked(calls)).toEqual(["load model/chunk_1"])
      expect((yield* tier.list()).some((key) => key.includes("chunk_1"))).toBe(false)
      expect((yield* cache.statistics).failures).toBe(0)
    }))

  it.effect("fails after one more load if it is damaged in the origin too", () =>
    Effect.gen(function*() {
      const { calls, model, origin } = yield* damaged()
      yield* origin.save("model/chunk_1", flip(bytesOf(1)))
      const error = yield* Effect.flip(model.load("chunk_1"))
      expect(error).toMatchObject({ _tag: "CorruptObject", problem: "checksum", attempts: 2 })
      expect(asked(calls)).toEqual(["load model/chunk_1"])
    }))

  it.effect("is bypassed by verify, which reads the origin", () =>
    Effect.gen(function*() {
      const { origin, storage } = yield* damaged()
      expect((yield* verifyOn(storage)).failure).toBeUndefined()
      yield* storage.load("model/chunk_0")
      yield* origin.save("model/chunk_0", flip(bytesOf(0)))
      expect(yield* storage.load("model/chunk_0")).toEqual(bytesOf(0))
      const { failure } = yield* verifyOn(storage)
      expect(failure).toMatchObject({ _tag: "CorruptObject", key: "model/chunk_0", operation: "verify" })
    }))

  it.effect("is bypassed by verify if it is an outdated manifest", () =>
    Effect.gen(function*() {
      const { origin, storage } = yield* damaged()
      const old = yield* openOn(storage)
      yield* origin.save("model/chunk_0", text("other"))
      yield* on(origin)(ModelChunks.writeManifest("model"))
      expect((yield* openOn(storage)).manifest).toEqual(old.manifest)
      expect((yield* verifyOn(storage)).failure).toBeUndefined()
    }))

  it.effect("is bypassed by writeManifest, which hashes the origin", () =>
    Effect.gen(function*() {
      const { storage } = yield* damaged()
      const { chunks } = yield* on(storage)(ModelChunks.writeManifest("model"))
      expect(chunks.map(({ sha256 }) => sha256)).toEqual([sha256(bytesOf(0)), sha256(bytesOf(1))])
    }))
})

describe("Model.stream", () => {
  const count = 10

  /** A model each chunk of which takes a second to load, and the loads so far. */
  const slow = Effect.gen(function*() {
    const started: Array<string> = []
    const interrupted: Array<string> = []
    const storage = intercepting(yield* withChunks(count), {
      around: (effect, { args: [key], operation }) =>
        operation !== "load" ? effect : Effect.gen(function*() {
          started.push(String(key).slice("model/".length))
          yield* Effect.sleep("1 second")
          return yield* effect
        }).pipe(Effect.onInterrupt(() => Effect.sync(() => void interrupted.push(String(key).slice("model/".length)))))
    })
    return { model: yield* openOn(storage), started, interrupted }
  })

  /** Runs an effect on virtual time, and measures it. */
  const timed = <A, E, R>(effect: Effect.Effect<A, E, R>) =>
    Effect.gen(function*() {
      const fiber = yield* Effect.fork(Effect.timed(effect))
      yield* TestClock.adjust("1 hour")
      return yield* Fiber.join(fiber)
    })

  const names = Array.from({ length: count }, (_, i) => `chunk_${i}`)

  it.effect("loads ahead: takes at most 0.6 of the sequential time if loading and use take equally long", () =>
    Effect.gen(function*() {
      const { model } = yield* slow
      const use = () => Effect.sleep("1 second")
      const [overlapping] = yield* timed(Stream.runForEach(model.stream(), use))
      expect(Duration.toSeconds(overlapping)).toBe(count + 1)
      const [inSequence] = yield* timed(Stream.runForEach(model.stream({ prefetch: 0 }), use))
      expect(Duration.toSeconds(inSequence)).toBe(2 * count)
      expect(Duration.toMillis(overlapping) / Duration.toMillis(inSequence)).toBeLessThanOrEqual(0.6)
    }))

  it.effect("loads ahead over a slow storage", () =>
    Effect.gen(function*() {
      const storage = yield* StorageChaos.make(yield* withChunks(count), [
        { operation: "load", delay: "2 seconds", times: Infinity, error: "none" }
      ])
      const model = yield* openOn(storage)
      const [took] = yield* timed(Stream.runForEach(model.stream(), () => Effect.sleep("2 seconds")))
      expect(Duration.toSeconds(took)).toBe(2 * count + 2)
    }))

  it.effect("emits chunks in the order of the manifest or of `order`, which may repeat names", () =>
    Effect.gen(function*() {
      const { model } = yield* slow
      const namesOf = (options?: ModelChunks.StreamOptions) =>
        Effect.map(timed(Stream.runCollect(model.stream(options))), ([, all]) =>
          [...all].map(({ bytes, chunk }) => {
            expect(bytes).toEqual(bytesOf(Number(chunk.name.slice("chunk_".length))))
            return chunk.name
          }))
      expect(yield* namesOf()).toEqual(names)
      const order = ["chunk_9", "chunk_0", "chunk_0", "chunk_4"]
      for (const prefetch of [0, 1, 2, 20]) expect(yield* namesOf({ order, prefetch })).toEqual(order)
      expect(yield* namesOf({ order: [] })).toEqual([])
    }))

  for (const prefetch of [0, 1, 3]) {
    it.effect(`starts at most ${prefetch} loads beyond the chunk in use with prefetch ${prefetch}`, () =>
      Effect.gen(function*() {
        const { model, started } = yield* slow
        const seen: Array<number> = []
        yield* timed(Stream.runForEach(model.stream({ prefetch }), () =>
          Effect.zipRight(
            Effect.sleep("10 seconds"),
            Effect.sync(() => void seen.push(started.length))
          )))
        expect(seen).toEqual(names.map((_, i) => Math.min(i + 1 + prefetch, count)))
        expect(started).toEqual(names)
      }))
  }

  it.effect("loads the first chunk alone", () =>
    Effect.gen(function*() {
      const { model, started } = yield* slow
      const fiber = yield* Effect.fork(Stream.runForEach(model.stream({ prefetch: 2 }), () => Effect.never))
      yield* TestClock.adjust("900 millis")
      expect(started).toEqual(["chunk_0"])
      yield* TestClock.adjust("100 millis")
      expect(started).toEqual(["chunk_0", "chunk_1", "chunk_2"])
      yield* Fiber.interrupt(fiber)
    }))

  it.effect("interrupts the loads in progress when it is interrupted and when its consumer stops", () =>
    Effect.gen(function*() {
      const { interrupted, model, started } = yield* slow
      const inUse = yield* Deferred.make<void>()
      const fiber = yield* Effect.fork(
        Stream.runForEach(
          model.stream({ prefetch: 2 }),
          () => Effect.zipRight(Deferred.succeed(inUse, undefined), Effect.never)
        )
      )
      yield* TestClock.adjust("1500 millis")
      yield* Deferred.await(inUse)
      expect(Exit.isInterrupted(yield* Fiber.interrupt(fiber))).toBe(true)
      expect(started).toEqual(["chunk_0", "chunk_1", "chunk_2"])
      expect([...interrupted].sort()).toEqual(["chunk_1", "chunk_2"])
      yield* TestClock.adjust("1 hour")
      expect(started).toHaveLength(3)

      started.length = 0
      interrupted.length = 0
      const [, taken] = yield* timed(Stream.runCollect(Stream.take(model.stream(), 2)))
      expect([...taken].map(({ chunk }) => chunk.name)).toEqual(["chunk_0", "chunk_1"])
      expect(started.length - interrupted.length).toBe(2)
    }))

  it.effect("fails at the turn of the chunk that failed to load", () =>
    Effect.gen(function*() {
      const storage = yield* StorageChaos.make(yield* withChunks(4), [{ operation: "load", key: "model/chunk_2" }])
      const seen: Array<string> = []
      const error = yield* (yield* openOn(storage)).stream({ prefetch: 3 }).pipe(
        Stream.runForEach(({ chunk }) => Effect.sync(() => void seen.push(chunk.name))),
        Effect.flip
      )
      expect(error).toMatchObject({ _tag: "StorageUnavailable", key: "model/chunk_2" })
      expect(seen).toEqual(["chunk_0", "chunk_1"])
    }))

  it.effect("keeps the last chunks for the next stream with keepLast, and no others", () =>
    Effect.gen(function*() {
      const { model, started } = yield* slow
      const pass = (options: ModelChunks.StreamOptions) =>
        Effect.gen(function*() {
          started.length = 0
          const [, all] = yield* timed(Stream.runCollect(model.stream(options)))
          return { started: [...started], names: [...all].map(({ chunk }) => chunk.name) }
        })
      expect((yield* pass({ keepLast: 3 })).started).toEqual(names)
      // The last three are not loaded again, any number of times.
      for (let i = 0; i < 2; i++) {
        expect(yield* pass({ keepLast: 3 })).toEqual({ started: names.slice(0, 7), names })
      }
      // In reverse order, the last are the first.
      const back = [...names].reverse()
      expect(yield* pass({ keepLast: 3, order: back })).toEqual({ started: back.slice(3), names: back })
      expect((yield* pass({ keepLast: 0 })).started).toEqual(names.slice(3))
      expect((yield* pass({})).started).toEqual(names)
      // A kept chunk that the next stream does not contain is dropped.
      yield* pass({ keepLast: 2 })
      yield* pass({ order: ["chunk_0"] })
      expect((yield* pass({})).started).toEqual(names)
      // More than there are keeps all.
      yield* pass({ keepLast: 100 })
      expect((yield* pass({})).started).toEqual([])
    }))

  it.effect("accepts options that are undefined", () =>
    Effect.gen(function*() {
      const storage = yield* withChunks(2)
      const model = yield* openOn(storage)
      const options: ModelChunks.StreamOptions = { prefetch: undefined, order: undefined, keepLast: undefined }
      expect(yield* Stream.runCount(model.stream(options))).toBe(2)
      yield* on(storage)(ModelChunks.writeManifest("model", { include: undefined, concurrency: undefined }))
      expect((yield* verifyOn(storage, "model", { concurrency: undefined })).failure).toBeUndefined()
    }))

  it.effect("rejects invalid options", () =>
    Effect.gen(function*() {
      const { model } = yield* slow
      for (
        const [field, value] of [["prefetch", -1], ["prefetch", 0.5], ["keepLast", NaN], ["keepLast", -2]] as const
      ) {
        const error = yield* Effect.flip(Stream.runDrain(model.stream({ [field]: value })))
        expect(error).toMatchObject({ _tag: "ModelChunksError", operation: "stream", field })
        expect(error.message).toContain(`${field}: must be a whole number of at least 0 (got ${value})`)
      }
    }))
})

describe("ModelChunks.verify", () => {
  it.scopedLive("reports its progress within a large chunk every 64 MiB", () =>
    Effect.gen(function*() {
      const directory = yield* temporaryDirectory
      fs.mkdirSync(path.join(directory, "model"))
      const size = 130 * 1024 * 1024
      fs.writeFileSync(path.join(directory, "model", "a"), "a")
      fs.truncateSync(path.join(directory, "model", "a"), size)
      fs.writeFileSync(path.join(directory, "model", "b"), "b")
      const storage = yield* FileSystemStorage.make({ directory })
      yield* on(storage)(ModelChunks.writeManifest("model", { concurrency: 1 }))
      const { events, failure } = yield* verifyOn(storage, "model", { concurrency: 1 })
      expect(failure).toBeUndefined()
      expect(events.map(({ _tag, name }) => `${_tag} ${name}`)).toEqual([
        "Progress a",
        "Progress a",
        "Verified a",
        "Verified b"
      ])
      const verified = events.map((event) => event.verified)
      expect(verified).toEqual([...verified].sort((a, b) => a - b))
      expect(verified.slice(2)).toEqual([size, size + 1])
      expect(events.at(-1)).toEqual(ModelChunks.Event.Verified({ name: "b", verified: size + 1, total: size + 1 }))
    }))

  it.effect("verifies the other chunks if one fails, and fails at once if the storage is missing", () =>
    Effect.gen(function*() {
      const memory = yield* withChunks(5)
      const refused = yield* StorageChaos.make(memory, [{
        operation: "open",
        key: "model/chunk_1",
        error: (struck) => new StorageError.AccessDenied({ ...struck, reason: "no" })
      }])
      const first = yield* verifyOn(refused, "model", { concurrency: 1 })
      expect(first.events.map(({ _tag, name }) => `${_tag} ${name}`)).toEqual([
        "Verified chunk_0",
        "Failed chunk_1",
        "Verified chunk_2",
        "Verified chunk_3",
        "Verified chunk_4"
      ])
      expect(first.events.at(-1)).toMatchObject({ verified: 5000, total: 5000 })
      expect(first.failure).toMatchObject({ _tag: "AccessDenied", key: "model/chunk_1" })
      const gone = yield* StorageChaos.make(memory, [{
        operation: "open",
        key: "model/chunk_1",
        error: (struck) => new StorageError.StorageNotFound({ ...struck, reason: "gone" })
      }])
      const second = yield* verifyOn(gone, "model", { concurrency: 1 })
      expect(tags(second.events)).toEqual(["Verified chunk_0"])
      expect(second.failure).toMatchObject({ _tag: "StorageNotFound" })
    }))

  it.effect("counts a chunk that breaks off as read, once", () =>
    Effect.gen(function*() {
      const storage = yield* StorageChaos.make(yield* withChunks(2), [
        { operation: "open", key: "model/chunk_0", afterBytes: 300 }
      ])
      const { events, failure } = yield* verifyOn(storage, "model", { concurrency: 1 })
      expect(events.map(({ _tag, verified }) => `${_tag} ${verified}`)).toEqual(["Failed 1000", "Verified 2000"])
      expect(failure).toMatchObject({ _tag: "StorageUnavailable" })
    }))

  it.effect("rejects a concurrency of 0", () =>
    Effect.gen(function*() {
      const { failure } = yield* verifyOn(yield* withChunks(1), "model", { concurrency: 0 })
      expect(failure).toMatchObject({ _tag: "ModelChunksError", operation: "verify", field: "concurrency" })
    }))
})

describe("ModelChunks.writeManifest on safetensors files", () => {
  it.effect("lists the tensors of each, and none of other files", () =>
    Effect.gen(function*() {
      const storage = yield* withSource(tensorsOf(["a", "b"]))
      yield* storage.save("config.json", text("{}"))
      const { chunks } = yield* on(storage)(ModelChunks.writeManifest("", { include: () => true }))
      expect(chunks.map(({ name, tensors }) => [name, tensors])).toEqual([
        ["config.json", undefined],
        ["source.safetensors", ["a", "b"]]
      ])
      expect((yield* openOn(storage, "")).manifest.chunks).toEqual(chunks)
    }))

  it.effect("fails if one is invalid, and if two have the same tensor", () =>
    Effect.gen(function*() {
      const storage = yield* withSource(tensorsOf(["a", "b"]))
      yield* storage.save("pointer.safetensors", text("version https://git-lfs.github.com/spec/v1"))
      const bad = yield* Effect.flip(on(storage)(ModelChunks.writeManifest("")))
      expect(bad).toMatchObject({ _tag: "SafetensorsError", key: "pointer.safetensors" })
      yield* storage.copy("source.safetensors", "pointer.safetensors")
      const twice = yield* Effect.flip(on(storage)(ModelChunks.writeManifest("")))
      expect(twice).toMatchObject({ _tag: "ModelChunksError", operation: "writeManifest", field: "chunks[1].tensors" })
      expect(twice.message).toContain("\"a\" is in chunks[0] (\"pointer.safetensors\") already")
      expect(yield* storage.exists("manifest.json")).toBe(false)
    }))
})
