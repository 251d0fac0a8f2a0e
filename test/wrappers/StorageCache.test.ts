/**
 * What a cache serves and keeps, and what it calls the storage for, with a test clock.
 */
import { describe, expect, it } from "@effect/vitest"
import {
  Chunk,
  Config,
  ConfigProvider,
  Deferred,
  Duration,
  Effect,
  Exit,
  Fiber,
  Layer,
  Logger,
  Metric,
  Stream,
  Supervisor,
  TestClock,
  Tracer
} from "effect"
import type { StorageError } from "surfing-weights"
import {
  ByteRange,
  FileSystemStorage,
  MemoryStorage,
  Storage,
  StorageCache,
  StorageChaos,
  StoragePrefix,
  StorageReadOnly
} from "surfing-weights"
import * as StorageContract from "surfing-weights/StorageContract"
import { temporaryDirectory } from "../support/directory.js"
import { type Call, filled, type Hooks, intercepting, noting, operations, pattern } from "../support/intercepting.js"

const turns = (count: number) => Effect.repeatN(Effect.yieldNow(), count)

const KiB = 1024
const MiB = 1024 * KiB

/** Three chunks. */
const large = pattern(2 * MiB + 5)

/** More than an object of `size` bytes takes in the tier. */
const inTier = (size: number) => size + 200

/** A capacity of the tier into which an object of `size` bytes fits. */
const tierFor = (size: number) => size + KiB

interface Setup extends Partial<StorageCache.Options> {
  /** Default: a new one. */
  readonly memory?: Storage.Service
  /** Between the cache and the storage. */
  readonly hooks?: Hooks
  readonly rules?: ReadonlyArray<StorageChaos.Rule>
  readonly tier?: { readonly storage: Storage.Service; readonly capacity: number }
}

/** A cache of 1 MiB of immutable objects, over a memory storage with some objects. */
const setup = ({ hooks = {}, memory: given, rules = [], tier, ...options }: Setup = {}) =>
  Effect.gen(function*() {
    const memory = given ?? (yield* filled())
    const calls: Array<Call> = []
    const inner = noting(intercepting(yield* StorageChaos.make(memory, rules), hooks), calls)
    const storage = yield* StorageCache.make(inner, { capacity: MiB, freshness: "immutable", ...options, tier })
    return {
      memory,
      storage,
      cache: storage.cache,
      calls,
      /** The operations of the storage that were called since the last time. */
      asked: () => calls.splice(0).map(({ operation }) => operation)
    }
  })

/** A second tier in memory. */
const withTier = (
  { capacity = MiB, tierRules = [], ...options }: Setup & { readonly tierRules?: ReadonlyArray<StorageChaos.Rule> } =
    {},
  size = MiB
) =>
  Effect.gen(function*() {
    const kept = yield* MemoryStorage.make()
    const calls: Array<Call> = []
    const storage = noting(yield* StorageChaos.make(kept, tierRules), calls)
    const made = yield* setup({ capacity, ...options, tier: { storage, capacity: size } })
    return { ...made, kept, tierCalls: calls, tierStorage: storage }
  })

const read = <E>(stream: Stream.Stream<Uint8Array, E>) =>
  Effect.map(Stream.runCollect(stream), (chunks) => new Uint8Array(Buffer.concat(Chunk.toArray(chunks))))

/** Compares large objects fast. */
const expectLarge = (bytes: Uint8Array) => expect(Buffer.from(bytes.buffer).equals(large)).toBe(true)

const sizeOf = (storage: Storage.Service) => Stream.runFold(storage.entries(), 0, (sum, { size }) => sum + size)

/** Holds an effect until the gate opens, and says when one has reached it. */
const makeGate = Effect.gen(function*() {
  const reached = yield* Deferred.make<void>()
  const gate = yield* Deferred.make<void>()
  return {
    hold: Effect.zipRight(Deferred.succeed(reached, undefined), Deferred.await(gate)),
    reached: Deferred.await(reached),
    open: Deferred.succeed(gate, undefined)
  }
})

/** Each way to read a whole object. */
const reads = {
  load: (storage: Storage.Service, key = "k", options: Storage.LoadOptions = {}) => storage.load(key, options),
  loadRanges: (storage: Storage.Service, key = "k", options: Storage.LoadOptions = {}) =>
    Effect.map(
      storage.loadRanges(key, [ByteRange.make(0, 4), ByteRange.from(4)], options),
      (parts) => new Uint8Array(Buffer.concat(parts))
    ),
  stream: (storage: Storage.Service, key = "k", options: Storage.LoadOptions = {}) => read(storage.stream(key, options))
}
const eachRead = Object.entries(reads)

describe("StorageCache", () => {
  it.effect("names itself around the inner storage, and has its capabilities", () =>
    Effect.gen(function*() {
      const memory = yield* MemoryStorage.make()
      const storage = yield* StorageCache.make(memory, { capacity: 1 })
      expect(storage.backend.name).toBe("Cache(Memory)")
      expect(storage.backend.capabilities).toEqual(memory.backend.capabilities)
    }))

  it.effect("returns what the storage returns, cold and warm, with a second tier and without", () =>
    Effect.forEach(operations, ([operation, run]) =>
      Effect.gen(function*() {
        const expected = yield* run(intercepting(yield* filled(), {}))
        for (const freshness of ["immutable", "revalidate", { timeToLive: 1 }] as const) {
          const plain = yield* setup({ freshness, hooks: {} })
          expect(yield* run(plain.storage), operation).toEqual(expected)
          const both = yield* withTier({ freshness, capacity: 1 })
          yield* both.storage.load("k")
          yield* both.storage.load("k/a")
          expect(yield* run(both.storage), operation).toEqual(expected)
        }
      }), { discard: true }))

  it.effect("passes other operations through unchanged", () =>
    Effect.forEach(
      operations.filter(([operation]) => !["open", "load", "loadRanges"].includes(operation)),
      ([operation, run]) =>
        Effect.gen(function*() {
          const expected: Array<Call> = []
          yield* run(noting(intercepting(yield* filled(), {}), expected))
          const { calls, storage } = yield* setup()
          yield* run(storage)
          expect(calls, operation).toEqual(expected)
        })
    ))

  it.effect("passes failures through, and calls the storage again", () =>
    Effect.forEach(operations, ([operation, run]) =>
      Effect.gen(function*() {
        // A whole load is an open.
        const struck = { operation: [operation], times: 1 }
        const failing = yield* StorageChaos.make(intercepting(yield* filled(), {}), [struck])
        const expected = yield* Effect.flip(run(failing))
        const { storage } = yield* withTier({ hooks: {} })
        const chaos = yield* StorageChaos.make(intercepting(yield* filled(), {}), [struck])
        const cached = yield* StorageCache.make(chaos, { capacity: MiB, freshness: "immutable" })
        expect(yield* Effect.flip(run(cached)), operation).toMatchObject({
          _tag: expected._tag,
          backend: "Cache(Chaos(Memory))",
          operation: expected.operation
        })
        yield* run(cached)
        yield* run(storage)
      })))

  it.effect("fails with InvalidOptions on options out of bounds", () =>
    Effect.gen(function*() {
      const memory = yield* MemoryStorage.make()
      const tier = (capacity: number | bigint) => ({ storage: memory, capacity: capacity as number })
      const bad: ReadonlyArray<readonly [string, StorageCache.Options]> = [
        ...[0, -1, 0.5, 1.5, NaN, Infinity, 0n, -5n].flatMap((capacity) => [
          ["capacity", { capacity: capacity as number }] as const,
          ["tier.capacity", { capacity: 1, tier: tier(capacity) }] as const
        ]),
        ...[0, -1, "0 seconds", NaN].map((timeToLive) =>
          ["freshness", { capacity: 1, freshness: { timeToLive: timeToLive as number } }] as const
        ),
        ["freshness", { capacity: 1, freshness: "never" as "immutable" }],
        ["shared", { capacity: 1, shared: 1 as never }]
      ]
      for (const [option, options] of bad) {
        const error = yield* Effect.flip(StorageCache.make(memory, options))
        expect(error).toMatchObject({ _tag: "InvalidOptions", module: "StorageCache", option })
        const layer = StorageCache.layer({
          ...options,
          tier: options.tier && { layer: MemoryStorage.layer(), capacity: options.tier.capacity }
        }).pipe(Layer.provide(MemoryStorage.layer()))
        expect(yield* Effect.flip(Effect.provide(Effect.void, layer))).toEqual(error)
      }
      expect((yield* Effect.flip(StorageCache.make(memory, { capacity: 0 }))).message).toBe(
        "StorageCache: capacity must be a whole number of bytes of at least 1 (got 0 bytes)"
      )
      const freshness = { timeToLive: 0n }
      expect((yield* Effect.flip(StorageCache.make(memory, { capacity: 1, freshness }))).message).toBe(
        "StorageCache: freshness must be \"revalidate\", \"immutable\" or { timeToLive } with a duration greater than " +
          "zero (got { timeToLive: 0 })"
      )
      yield* StorageCache.make(memory, { capacity: 1n, freshness: { timeToLive: 0.5 }, tier: tier(1n) })
      yield* StorageCache.make(memory, { capacity: 1, freshness: { timeToLive: Infinity }, shared: undefined })
    }))

  it.effect("fails with InvalidOptions on a second tier that cannot save or list", () =>
    Effect.gen(function*() {
      const memory = yield* MemoryStorage.make()
      const { backend } = memory
      const blind = Storage.make({ ...backend, capabilities: { ...backend.capabilities, list: false } })
      for (const [storage, what] of [[yield* StorageReadOnly.make(memory), "save"], [blind, "list"]] as const) {
        const error = yield* Effect.flip(StorageCache.make(memory, { capacity: 1, tier: { storage, capacity: MiB } }))
        expect(error).toMatchObject({ _tag: "InvalidOptions", option: "tier" })
        expect(error.message).toBe(
          `StorageCache: tier must be a storage that can list and save (${storage.backend.name} cannot ${what})`
        )
      }
    }))

  it.effect("is provided by its layer, together with the cache", () =>
    Effect.gen(function*() {
      const storage = yield* Storage.Storage
      const cache = yield* StorageCache.StorageCache
      expect(storage.backend.name).toBe("Cache(Memory)")
      yield* storage.save("k", pattern(10))
      yield* storage.load("k")
      expect(yield* cache.statistics).toMatchObject({ misses: 1, memory: { objects: 1 }, tier: { objects: 1 } })
    }).pipe(
      Effect.provide(
        StorageCache.layer({ capacity: MiB, tier: { layer: MemoryStorage.layer(), capacity: MiB } }).pipe(
          Layer.provide(MemoryStorage.layer())
        )
      )
    ))
})

describe("StorageCache, layers", () => {
  it.effect("can be configured, and piped to", () =>
    Effect.gen(function*() {
      const options = { capacity: Config.integer("MEMORY"), freshness: Config.succeed("immutable" as const) }
      const layers = [
        StorageCache.layerConfig(options),
        StorageCache.layerConfig(options, { layer: MemoryStorage.layer(), capacity: Config.integer("DISK") })
      ]
      for (const [index, layer] of layers.entries()) {
        yield* Effect.gen(function*() {
          const storage = yield* Storage.Storage
          const { statistics } = yield* StorageCache.StorageCache
          yield* storage.save("k", pattern(10))
          yield* storage.load("k")
          expect((yield* statistics).tier.objects).toBe(index)
        }).pipe(
          Effect.provide(Layer.provide(layer, MemoryStorage.layer())),
          Effect.withConfigProvider(ConfigProvider.fromMap(new Map([["MEMORY", "1000"], ["DISK", "1000"]])))
        )
      }
      const memory = yield* MemoryStorage.make()
      expect((yield* memory.pipe(StorageCache.make({ capacity: 1 }))).backend.name).toBe("Cache(Memory)")
    }))

  it.effect("build a layer that is under both the storage and the second tier once", () =>
    Effect.gen(function*() {
      let built = 0
      const disk = Layer.effect(
        Storage.Storage,
        Effect.tap(MemoryStorage.make(), () => Effect.sync(() => void built++))
      )
      yield* Effect.flatMap(Storage.Storage, (storage) => storage.save("k", pattern(10))).pipe(
        Effect.provide(
          StorageCache.layer({
            capacity: MiB,
            tier: { layer: StoragePrefix.layer("cache").pipe(Layer.provide(disk)), capacity: MiB }
          }).pipe(Layer.provide(StoragePrefix.layer("models")), Layer.provide(disk))
        )
      )
      expect(built).toBe(1)
      yield* Effect.provide(
        Effect.void,
        StorageCache.layer({ capacity: MiB, tier: { layer: disk, capacity: MiB } }).pipe(Layer.provide(disk))
      )
      expect(built).toBe(2)
    }))
})

describe("StorageCache, bypassCache", () => {
  it.effect("reads from the storage, invalidates the object, and keeps nothing", () =>
    Effect.forEach(eachRead, ([name, run]) =>
      Effect.gen(function*() {
        for (const made of [yield* setup(), yield* withTier({ capacity: 1 })]) {
          yield* made.storage.load("k")
          yield* made.memory.save("k", pattern(20))
          expect(yield* run(made.storage), name).toEqual(pattern(10))
          made.calls.length = 0
          expect(yield* run(made.storage, "k", { bypassCache: true }), name).toEqual(pattern(20))
          expect(made.calls.map(({ args }) => args.at(-1)), name).toEqual([{ bypassCache: true }])
          expect(yield* made.cache.statistics).toMatchObject({ memory: { objects: 0 }, tier: { objects: 0 } })
          expect(yield* run(made.storage), name).toEqual(pattern(20))
        }
      })))
})

describe("StorageCache, in memory", () => {
  it.effect("serves loads, ranges, streams and heads without calling the storage", () =>
    Effect.gen(function*() {
      const { asked, memory, storage } = yield* setup()
      const bytes = pattern(10)
      expect(yield* storage.load("k")).toEqual(bytes)
      expect(asked()).toEqual(["open"])
      for (const [name, run] of eachRead) expect(yield* run(storage), name).toEqual(bytes)
      expect(yield* storage.load("k", { range: ByteRange.make(2, 5) })).toEqual(bytes.slice(2, 5))
      expect(yield* storage.load("k", { range: ByteRange.make(8, 100) })).toEqual(bytes.slice(8))
      expect(yield* storage.load("k", { range: ByteRange.last(100) })).toEqual(bytes)
      expect(yield* storage.loadRanges("k", [ByteRange.last(1), ByteRange.make(0, 3), ByteRange.make(1, 2)])).toEqual([
        bytes.slice(9),
        bytes.slice(0, 3),
        bytes.slice(1, 2)
      ])
      expect(yield* read(storage.stream("k", { range: ByteRange.from(7) }))).toEqual(bytes.slice(7))
      const { info, range } = yield* Effect.scoped(storage.open("k", { range: ByteRange.last(3) }))
      expect(info).toEqual(yield* memory.head("k"))
      expect(range).toEqual({ start: 7, endExclusive: 10 })
      expect(yield* storage.head("k")).toEqual(info)
      expect(yield* storage.exists("k")).toBe(true)
      expect(asked()).toEqual([])
    }))

  it.effect("fails on ranges out of bounds as the storage does", () =>
    Effect.gen(function*() {
      const { memory, storage } = yield* setup()
      yield* storage.load("k")
      for (const range of [ByteRange.from(10), ByteRange.make(11, 12), ByteRange.make(3, 3)]) {
        for (const run of [reads.load, reads.stream]) {
          const { _tag, reason } = yield* Effect.flip(run(storage, "k", { range })).pipe(Effect.filterOrDieMessage(
            (error) => error._tag === "InvalidRange",
            "another failure"
          ))
          expect([_tag, reason]).toEqual([
            "InvalidRange",
            (yield* Effect.flip(run(memory, "k", { range })) as Effect.Effect<StorageError.InvalidRange>).reason
          ])
        }
      }
      expect((yield* Effect.flip(storage.loadRanges("k", [ByteRange.last(1), ByteRange.from(10)])))._tag).toBe(
        "InvalidRange"
      )
    }))

  it.effect("keeps nothing of a range, a head or a listing", () =>
    Effect.gen(function*() {
      const { asked, cache, storage } = yield* withTier()
      yield* storage.load("k", { range: ByteRange.make(0, 9) })
      yield* storage.loadRanges("k", [ByteRange.from(0)])
      yield* read(storage.stream("k", { range: ByteRange.make(0, 9) }))
      yield* read(storage.stream("k", { range: ByteRange.from(1) }))
      yield* storage.head("k")
      yield* storage.list()
      yield* storage.listDirectory()
      expect(yield* cache.statistics).toMatchObject({ hits: 0, memory: { objects: 0 }, tier: { objects: 0 } })
      expect(asked()).toEqual(["load", "loadRanges", "open", "open", "head", "keys", "listDirectory"])
    }))

  it.effect("keeps empty objects", () =>
    Effect.gen(function*() {
      for (const { asked, memory, storage } of [yield* setup(), yield* withTier({ capacity: 1 })]) {
        yield* memory.save("empty", new Uint8Array(0))
        yield* memory.save("other", new Uint8Array(1))
        for (const first of [reads.load, reads.stream]) {
          yield* first(storage, "empty")
          // Evicts it from the first tier, where that has only one byte.
          yield* storage.load("other")
          asked()
          expect(yield* storage.load("empty")).toEqual(new Uint8Array(0))
          expect(yield* read(storage.stream("empty"))).toEqual(new Uint8Array(0))
          expect(yield* storage.loadRanges("empty", [])).toEqual([])
          expect((yield* storage.head("empty")).size).toBe(0)
          expect(asked()).toEqual([])
          yield* storage.remove("empty")
          yield* storage.save("empty", new Uint8Array(0))
        }
      }
    }))

  it.effect("stays within its capacity, and evicts the least recently used first", () =>
    Effect.gen(function*() {
      const { asked, cache, memory, storage } = yield* setup({ capacity: 100 })
      for (const key of ["a", "b", "c", "d"]) yield* memory.save(key, pattern(30))
      for (const key of ["a", "b", "c", "a", "d"]) yield* storage.load(key)
      expect(yield* cache.statistics).toMatchObject({ evictions: 1, memory: { objects: 3, size: 90 } })
      asked()
      for (const key of ["a", "c", "d"]) yield* storage.load(key)
      expect(asked()).toEqual([])
      yield* read(storage.stream("b"))
      expect(asked()).toEqual(["open"])
      yield* storage.load("c")
      yield* storage.load("d")
      expect(asked()).toEqual([])
      expect((yield* cache.statistics).memory).toEqual({ objects: 3, size: 90 })
    }))

  it.effect("keeps an object as large as its capacity, and passes a larger one through", () =>
    Effect.gen(function*() {
      const { asked, cache, memory, storage } = yield* setup({ capacity: 100 })
      yield* memory.save("fits", pattern(100))
      yield* memory.save("large", pattern(101))
      for (const run of [reads.load, reads.stream]) {
        yield* storage.remove("other")
        yield* run(storage, "fits")
        expect(yield* run(storage, "large")).toEqual(pattern(101))
        expect(yield* cache.statistics).toMatchObject({ evictions: 0, memory: { objects: 1, size: 100 } })
        asked()
        yield* run(storage, "fits")
        yield* run(storage, "large")
        expect(asked()).toEqual(["open"])
        yield* storage.save("fits", pattern(100))
      }
    }))
})

describe("StorageCache, arrays", () => {
  it.effect("returns an array of the caller's own from each load, so that changing it changes no other", () =>
    Effect.gen(function*() {
      const bytes = pattern(10)
      for (const { memory, storage } of [yield* setup(), yield* withTier(), yield* withTier({ capacity: 1 })]) {
        const spoiled = (all: ReadonlyArray<Uint8Array>) => all.forEach((array) => array.fill(255))
        for (let round = 0; round < 3; round++) {
          spoiled([yield* storage.load("k")])
          spoiled([yield* storage.load("k", { range: ByteRange.last(3) })])
          spoiled(yield* storage.loadRanges("k", [ByteRange.from(0), ByteRange.make(2, 4)]))
          spoiled(yield* Effect.all([storage.load("k/a"), storage.load("k/a")], { concurrency: 2 }))
          for (const [name, run] of eachRead) {
            expect(yield* run(storage), name).toEqual(bytes)
            expect(yield* run(storage, "k/a"), name).toEqual(bytes)
          }
        }
        expect(yield* memory.load("k")).toEqual(bytes)
      }
    }))

  it.effect("is not changed by a reader that writes to the chunks of a stream that fills it", () =>
    Effect.gen(function*() {
      for (const { asked, storage } of [yield* setup(), yield* withTier(), yield* withTier({ capacity: 1 })]) {
        yield* Stream.runForEach(storage.stream("k"), (bytes) => Effect.sync(() => void bytes.fill(255)))
        asked()
        expect(yield* storage.load("k")).toEqual(pattern(10))
        expect(asked()).toEqual([])
      }
    }))

  it.effect("returns the cached bytes themselves where they are shared", () =>
    Effect.gen(function*() {
      const { storage } = yield* setup({ shared: true })
      const bytes = yield* storage.load("k")
      expect(yield* storage.load("k")).toBe(bytes)
      const [part, last] = yield* storage.loadRanges("k", [ByteRange.make(1, 3), ByteRange.last(2)])
      expect([part?.buffer, last?.buffer]).toEqual([bytes.buffer, bytes.buffer])
      expect((yield* storage.load("k", { range: ByteRange.make(1, 3) })).buffer).toBe(bytes.buffer)
      expect([part, last]).toEqual([bytes.slice(1, 3), bytes.slice(8)])
      const all = yield* Effect.all([storage.load("k/a"), storage.load("k/a")], { concurrency: 2 })
      expect(all[0]).toBe(all[1])
    }))

  it.effect("streams copies of the cached bytes, and views where they are shared", () =>
    Effect.gen(function*() {
      for (const shared of [true, false]) {
        const { memory, storage } = yield* setup({ shared, capacity: 4 * MiB })
        yield* memory.save("large", large)
        yield* storage.load("large")
        const chunks = yield* Stream.runCollect(storage.stream("large"))
        expect(Chunk.toArray(chunks).map(({ byteLength }) => byteLength)).toEqual([MiB, MiB, 5])
        const again = yield* Stream.runCollect(storage.stream("large", { range: ByteRange.last(7), chunkSize: 4 }))
        expect(Chunk.toArray(again).map(({ byteLength }) => byteLength)).toEqual([4, 3])
        expect(new Set([...chunks, ...again].map(({ buffer }) => buffer)).size).toBe(shared ? 1 : 5)
        expect(Buffer.concat([...chunks]).equals(large)).toBe(true)
        expect(Buffer.concat([...again]).equals(large.subarray(-7))).toBe(true)
      }
    }))

  it.effect("does not copy an object that is not kept for the last caller", () =>
    Effect.gen(function*() {
      const sizes: Array<number> = []
      const { storage } = yield* setup({ capacity: 5 })
      const bytes = yield* storage.load("k")
      bytes.fill(0)
      sizes.push(bytes.byteLength)
      const [one, other] = yield* Effect.all([storage.load("k"), storage.load("k")], { concurrency: 2 })
      one.fill(1)
      expect([sizes, one.buffer === other.buffer, other]).toEqual([[10], false, pattern(10)])
    }))
})

describe("StorageCache, single flight", () => {
  const key = "k"

  /** A cache whose storage opens objects only when the gate opens. */
  const gated = (options: Setup = {}) =>
    Effect.gen(function*() {
      const gate = yield* makeGate
      const made = yield* setup({
        ...options,
        hooks: {
          around: (effect, { operation }) => operation === "open" ? Effect.zipRight(gate.hold, effect) : effect
        }
      })
      return { ...made, gate }
    })

  it.effect("makes one request for 32 fibers that load one object, at whatever moment they yield", () =>
    Effect.forEach([2048, 17, 19, 23, 24, 25, 29, 31], (operations) =>
      Effect.gen(function*() {
        const { asked, cache, gate, storage } = yield* gated()
        const fibers = yield* Effect.forEach(
          Array.from({ length: 32 }),
          () => Effect.fork(Effect.withMaxOpsBeforeYield(storage.load(key), operations))
        )
        yield* gate.reached
        yield* turns(100)
        yield* gate.open
        for (const fiber of fibers) expect(yield* Fiber.join(fiber)).toEqual(pattern(10))
        expect(asked(), `${operations} operations at a time`).toEqual(["open"])
        expect(yield* cache.statistics).toMatchObject({ hits: 0, misses: 32 })
      })))

  it.effect("returns an array of its own to each fiber", () =>
    Effect.gen(function*() {
      const { gate, storage } = yield* gated()
      const fiber = yield* Effect.fork(
        Effect.all(Array.from({ length: 32 }, () => storage.load(key)), { concurrency: "unbounded" })
      )
      yield* gate.open
      expect(new Set((yield* Fiber.join(fiber)).map(({ buffer }) => buffer)).size).toBe(32)
    }))

  it.effect("fails for all that wait, and is started again for the next", () =>
    Effect.gen(function*() {
      const { asked, cache, gate, storage } = yield* gated({ rules: [{ operation: "open" }] })
      const fiber = yield* Effect.fork(
        Effect.forEach(Array.from({ length: 32 }), () => Effect.flip(storage.load(key)), { concurrency: "unbounded" })
      )
      yield* turns(50)
      yield* gate.open
      for (const error of yield* Fiber.join(fiber)) expect(error._tag).toBe("StorageUnavailable")
      expect(asked()).toEqual(["open"])
      expect((yield* cache.statistics).memory.objects).toBe(0)
      expect(yield* storage.load(key)).toEqual(pattern(10))
      expect(asked()).toEqual(["open"])
    }))

  it.effect("goes on when other fibers are interrupted, also the first", () =>
    Effect.gen(function*() {
      const { asked, gate, storage } = yield* gated()
      const fibers = yield* Effect.forEach([0, 1, 2, 3], () => Effect.fork(storage.load(key)))
      yield* turns(50)
      for (const fiber of fibers.slice(0, 3)) {
        expect(Exit.isInterrupted(yield* Fiber.interrupt(fiber))).toBe(true)
      }
      yield* gate.open
      for (const fiber of fibers.slice(3)) expect(yield* Fiber.join(fiber)).toEqual(pattern(10))
      expect(asked()).toEqual(["open"])
    }))

  it.effect("is interrupted when no fiber waits any more, and is started again for the next", () =>
    Effect.gen(function*() {
      const log: Array<string> = []
      let isStuck = true
      const { storage } = yield* setup({
        hooks: {
          around: (effect, { operation }) =>
            operation === "open" && isStuck
              ? Effect.onInterrupt(Effect.never, () => Effect.sync(() => void log.push("interrupted")))
              : effect
        }
      })
      const fibers = yield* Effect.forEach([0, 1], () => Effect.fork(storage.load(key)))
      yield* turns(50)
      for (const fiber of fibers) {
        expect(log).toEqual([])
        yield* Fiber.interrupt(fiber)
      }
      expect(log).toEqual(["interrupted"])
      isStuck = false
      expect(yield* storage.load(key)).toEqual(pattern(10))
    }))

  it.effect("leaves no part of an object and no fiber, at whatever moment the fibers are interrupted", () =>
    Effect.gen(function*() {
      for (let moment = 0; moment < 120; moment += 3) {
        const made = yield* withTier({
          hooks: {
            around: (effect) => Effect.zipRight(turns(3), effect),
            through: (stream) => Stream.tap(stream, () => turns(3))
          }
        })
        const supervisor = yield* Supervisor.track
        const fibers = yield* Effect.forEach(
          [reads.load, reads.load, reads.stream],
          (run) =>
            Effect.fork(Effect.supervised(Effect.withMaxOpsBeforeYield(run(made.storage), 24 + moment % 9), supervisor))
        )
        yield* turns(moment)
        yield* Fiber.interruptAll(fibers)
        yield* turns(20)
        expect(yield* supervisor.value, `moment ${moment}`).toEqual([])
        const { memory, tier } = yield* made.cache.statistics
        expect([0, 1]).toContain(memory.objects)
        expect(yield* sizeOf(made.kept), `moment ${moment}`).toBe(tier.size)
        for (const [name, run] of eachRead) expect(yield* run(made.storage), name).toEqual(pattern(10))
      }
    }))

  it.effect("is not shared by a load that begins after a save with one that began before", () =>
    Effect.gen(function*() {
      const { asked, gate, storage } = yield* gated()
      const before = yield* Effect.fork(storage.load(key))
      yield* gate.reached
      yield* storage.save(key, pattern(20))
      const after = yield* Effect.fork(storage.load(key))
      yield* turns(50)
      yield* gate.open
      yield* Fiber.join(before)
      expect(yield* Fiber.join(after)).toEqual(pattern(20))
      expect(asked()).toEqual(["open", "save", "open"])
    }))

  it.effect("makes one request for 32 fibers that revalidate one object", () =>
    Effect.gen(function*() {
      const { asked, calls, memory, storage } = yield* setup({
        freshness: "revalidate",
        hooks: { around: (effect) => Effect.zipRight(turns(50), effect) }
      })
      const { etag } = yield* memory.head(key)
      yield* storage.load(key)
      asked()
      const all = Effect.forEach(Array.from({ length: 32 }), () => storage.load(key), { concurrency: "unbounded" })
      for (const bytes of yield* all) expect(bytes).toEqual(pattern(10))
      expect(calls.splice(0)).toEqual([{ operation: "open", args: [key, { ifNoneMatch: etag }] }])
      yield* memory.save(key, pattern(20))
      for (const bytes of yield* all) expect(bytes).toEqual(pattern(20))
      expect(asked()).toEqual(["open"])
    }))

  it.effect("is not shared by a load with one that revalidates", () =>
    Effect.gen(function*() {
      const { asked, memory, storage } = yield* setup({
        capacity: 10,
        freshness: "revalidate",
        hooks: {
          around: (effect, { args: [key], operation }) =>
            operation === "open" && key === "k" ? Effect.zipRight(turns(100), effect) : effect
        }
      })
      yield* memory.save("other", pattern(10))
      yield* storage.load("k")
      asked()
      const asking = yield* Effect.fork(storage.load("k"))
      yield* turns(20)
      // Evicts the object.
      yield* storage.load("other")
      expect(yield* storage.load("k")).toEqual(pattern(10))
      expect(yield* Fiber.join(asking)).toEqual(pattern(10))
      expect(asked()).toEqual(["open", "open", "open"])
    }))
})

describe("StorageCache, freshness", () => {
  it.effect("immutable: never calls the storage again", () =>
    Effect.gen(function*() {
      for (const { asked, memory, storage } of [yield* setup(), yield* withTier({ capacity: 1 })]) {
        yield* storage.load("k")
        yield* memory.remove("k")
        asked()
        yield* TestClock.adjust("365 days")
        for (const [name, run] of eachRead) expect(yield* run(storage), name).toEqual(pattern(10))
        expect(yield* storage.exists("k")).toBe(true)
        expect(asked()).toEqual([])
      }
    }))

  it.effect("timeToLive: revalidates when it is over and not before, and then not for as long again", () =>
    Effect.forEach(eachRead, ([name, run]) =>
      Effect.gen(function*() {
        for (
          const { asked, calls, memory, storage } of [
            yield* setup({ freshness: { timeToLive: "10 minutes" } }),
            yield* withTier({ freshness: { timeToLive: "10 minutes" }, capacity: 1 })
          ]
        ) {
          const { etag } = yield* memory.head("k")
          yield* storage.load("k")
          asked()
          yield* TestClock.adjust(Duration.toMillis("10 minutes") - 1)
          expect(yield* run(storage), name).toEqual(pattern(10))
          yield* storage.head("k")
          expect(asked(), name).toEqual([])
          yield* TestClock.adjust(1)
          yield* storage.head("k")
          expect(asked(), name).toEqual(["head"])
          expect(yield* run(storage), name).toEqual(pattern(10))
          expect(calls.splice(0).map(({ args }) => args.at(-1))).toEqual([{ ifNoneMatch: etag }])
          yield* TestClock.adjust(Duration.toMillis("10 minutes") - 1)
          yield* run(storage)
          expect(asked(), name).toEqual([])
          yield* memory.save("k", pattern(20))
          expect((yield* run(storage)).length, name).toBe(10)
          yield* TestClock.adjust(1)
          expect((yield* run(storage)).length, name).toBe(20)
        }
      })))

  it.effect("timeToLive: counts from the response of the storage, however long the bytes take", () =>
    Effect.gen(function*() {
      const slow: Hooks = { through: (stream) => Stream.tap(stream, () => Effect.sleep("9 minutes")) }
      for (const run of [reads.load, reads.stream]) {
        const { asked, storage } = yield* setup({ freshness: { timeToLive: "10 minutes" }, hooks: slow })
        const fiber = yield* Effect.fork(run(storage))
        yield* TestClock.adjust("9 minutes")
        yield* Fiber.join(fiber)
        asked()
        yield* TestClock.adjust("59 seconds")
        yield* storage.load("k")
        expect(asked()).toEqual([])
        yield* TestClock.adjust("1 second")
        yield* storage.load("k")
        expect(asked()).toEqual(["open"])
      }
    }))

  it.effect("revalidate, the default: calls the storage each time, and transfers bytes only when the object has changed", () =>
    Effect.forEach(eachRead, ([name, run]) =>
      Effect.gen(function*() {
        let moved = 0
        const counting: Hooks = {
          through: (stream) => Stream.tap(stream, () => Effect.sync(() => void moved++)),
          around: (effect, { operation }) =>
            operation === "load" || operation === "loadRanges"
              ? Effect.tap(effect, () => Effect.sync(() => void moved++))
              : effect
        }
        const { calls, memory, storage } = yield* withDefaults(counting)
        yield* storage.load("k")
        for (const size of [10, 20]) {
          yield* memory.save("k", pattern(size))
          const { etag } = yield* memory.head("k")
          yield* storage.load("k")
          moved = 0
          calls.length = 0
          for (let round = 0; round < 3; round++) expect(yield* run(storage), name).toEqual(pattern(size))
          expect(moved, name).toBe(0)
          expect(calls.map(({ args }) => args.at(-1)), name).toEqual([
            { ifNoneMatch: etag },
            { ifNoneMatch: etag },
            { ifNoneMatch: etag }
          ])
        }
        yield* memory.save("k", pattern(30))
        expect(yield* run(storage), name).toEqual(pattern(30))
        expect(moved, name).toBeGreaterThan(0)
        yield* memory.remove("k")
        expect((yield* Effect.flip(run(storage)))._tag, name).toBe("ObjectNotFound")
        expect(yield* storage.exists("k")).toBe(false)
      })))

  const withDefaults = (hooks: Hooks) =>
    Effect.gen(function*() {
      const memory = yield* filled()
      const calls: Array<Call> = []
      const storage = yield* StorageCache.make(noting(intercepting(memory, hooks), calls), { capacity: MiB })
      return { calls, memory, storage }
    })

  it.effect("revalidate: returns the range of the object as it is now", () =>
    Effect.gen(function*() {
      for (
        const made of [
          yield* setup({ freshness: "revalidate" }),
          yield* withTier({ freshness: "revalidate", capacity: 1 })
        ]
      ) {
        yield* made.storage.load("k")
        const range = ByteRange.last(3)
        expect(yield* made.storage.load("k", { range })).toEqual(pattern(10).slice(7))
        yield* made.memory.save("k", pattern(20))
        expect(yield* made.storage.load("k", { range })).toEqual(pattern(20).slice(17))
        expect(yield* read(made.storage.stream("k", { range }))).toEqual(pattern(20).slice(17))
        expect(yield* made.storage.loadRanges("k", [range])).toEqual([pattern(20).slice(17)])
        yield* made.memory.save("k", pattern(2))
        expect((yield* Effect.flip(made.storage.load("k", { range: ByteRange.from(5) })))._tag).toBe("InvalidRange")
      }
    }))

  it.effect("revalidate: fails as the storage does, and serves nothing that may be stale", () =>
    Effect.gen(function*() {
      const { cache, storage } = yield* setup({ freshness: "revalidate", rules: [{ operation: "open", times: 0 }] })
      yield* storage.load("k")
      const failing = yield* setup({
        freshness: "revalidate",
        rules: [{ operation: "open", when: "before", times: 2 }]
      })
      expect((yield* Effect.flip(failing.storage.load("k")))._tag).toBe("StorageUnavailable")
      expect((yield* Effect.flip(read(failing.storage.stream("k"))))._tag).toBe("StorageUnavailable")
      expect((yield* failing.cache.statistics).misses).toBe(2)
      expect((yield* cache.statistics).misses).toBe(1)
    }))
})

describe("StorageCache, preconditions", () => {
  it.effect("are decided by the object in the cache where it is known to match", () =>
    Effect.forEach(eachRead, ([name, run]) =>
      Effect.gen(function*() {
        for (const made of [yield* setup(), yield* withTier({ capacity: 1 })]) {
          const { asked, memory, storage } = made
          yield* storage.load("k")
          asked()
          const { etag } = yield* memory.head("k")
          expect(yield* run(storage, "k", { ifMatch: etag }), name).toEqual(pattern(10))
          expect(yield* run(storage, "k", { ifNoneMatch: "other" }), name).toEqual(pattern(10))
          expect(yield* Effect.flip(run(storage, "k", { ifNoneMatch: etag })), name).toMatchObject({
            _tag: "ObjectNotModified",
            backend: storage.backend.name,
            key: "k"
          })
          expect((yield* Effect.flip(run(storage, "k", { ifMatch: etag, ifNoneMatch: etag })))._tag).toBe(
            "ObjectNotModified"
          )
          expect(asked(), name).toEqual([])
        }
      })))

  it.effect("go to the storage with an etag that is not in the cache", () =>
    Effect.forEach(eachRead, ([name, run]) =>
      Effect.gen(function*() {
        for (const freshness of ["immutable", "revalidate", { timeToLive: "1 hour" }] as const) {
          const { asked, memory, storage } = yield* setup({ freshness })
          yield* storage.load("k")
          const { etag } = yield* memory.save("k", pattern(20))
          asked()
          expect(yield* run(storage, "k", { ifMatch: etag }), name).toEqual(pattern(20))
          expect((yield* Effect.flip(run(storage, "k", { ifMatch: "other" })))._tag, name).toBe("PreconditionFailed")
          expect(asked().length, name).toBe(2)
        }
      })))

  it.effect("go to the storage where the object in the cache may be stale", () =>
    Effect.forEach(eachRead, ([name, run]) =>
      Effect.gen(function*() {
        const { asked, memory, storage } = yield* setup({ freshness: "revalidate" })
        yield* storage.load("k")
        const old = (yield* memory.head("k")).etag
        const { etag } = yield* memory.save("k", pattern(20))
        asked()
        // It is the version with this etag.
        expect(yield* run(storage, "k", { ifMatch: old }), name).toEqual(pattern(10))
        expect(asked(), name).toEqual([])
        expect((yield* Effect.flip(run(storage, "k", { ifNoneMatch: etag })))._tag, name).toBe("ObjectNotModified")
        expect(yield* run(storage, "k", { ifNoneMatch: old }), name).toEqual(pattern(20))
        expect(asked().length, name).toBe(2)
      })))
})

describe("StorageCache, streams", () => {
  const size = large.length

  it.effect("fill the cache when they are read to their end", () =>
    Effect.gen(function*() {
      const memoryOnly = yield* setup({ capacity: size })
      const both = yield* withTier({ capacity: size }, tierFor(size))
      for (const { asked, memory, storage } of [memoryOnly, both]) {
        yield* memory.save("large", large)
        expectLarge(yield* read(storage.stream("large")))
        expect(asked()).toEqual(["open"])
        expectLarge(yield* storage.load("large"))
        expectLarge(yield* read(storage.stream("large")))
        expect(asked()).toEqual([])
      }
      expect((yield* memoryOnly.cache.statistics).memory.objects).toBe(1)
    }))

  it.effect("are not gathered in memory where there is a second tier, which is sent each chunk as it arrives", () =>
    Effect.gen(function*() {
      const given: Array<number> = []
      let taken = 0
      let ahead = 0
      const kept = yield* MemoryStorage.make()
      const tier = Storage.make({
        ...kept.backend,
        save: (key, data, options) =>
          data instanceof Uint8Array ? kept.backend.save(key, data, options) : kept.backend.save(
            key,
            Stream.tap(data, () => Effect.zipRight(turns(20), Effect.sync(() => void taken++))),
            options
          )
      })
      const made = yield* setup({
        capacity: size,
        tier: { storage: tier, capacity: tierFor(size) },
        hooks: {
          through: (stream) =>
            Stream.tap(stream, (bytes) =>
              Effect.sync(() => {
                given.push(bytes instanceof Uint8Array ? bytes.byteLength : NaN)
                ahead = Math.max(ahead, given.length - taken)
              }))
        }
      })
      yield* made.memory.save("large", large)
      yield* Stream.runDrain(made.storage.stream("large"))
      expect(given).toEqual([MiB, MiB, 5])
      expect(ahead).toBeLessThanOrEqual(3)
      expect(taken).toBe(4)
      const statistics = yield* made.cache.statistics
      expect(statistics.memory).toEqual({ objects: 0, size: 0 })
      expect(statistics.tier.objects).toBe(1)
    }))

  it.effect("leave nothing behind when they are abandoned, broken, interrupted or never read", () =>
    Effect.gen(function*() {
      const ends: ReadonlyArray<(storage: Storage.Service) => Effect.Effect<unknown, unknown>> = [
        (storage) => Stream.runHead(storage.stream("large")),
        (storage) => read(Stream.take(storage.stream("large"), 2)),
        (storage) => Effect.flip(read(storage.stream("breaks"))),
        (storage) => Effect.scoped(storage.open("large")),
        (storage) => Effect.exit(Stream.runForEach(storage.stream("large"), () => Effect.die("defect"))),
        (storage) =>
          Effect.flatMap(
            Effect.fork(Stream.runForEach(storage.stream("large"), () => Effect.never)),
            (fiber) => Effect.zipRight(turns(100), Fiber.interrupt(fiber))
          )
      ]
      for (const [index, end] of ends.entries()) {
        const rules = [{ operation: "open", key: "breaks", afterBytes: size - 1 }] as const
        const memoryOnly = yield* setup({ capacity: size, rules })
        const both = yield* withTier({ capacity: size, rules }, tierFor(size))
        for (const { asked, cache, memory, storage } of [memoryOnly, both]) {
          yield* memory.save("large", large)
          yield* memory.save("breaks", large)
          yield* Effect.exit(end(storage))
          yield* turns(100)
          const { memory: inMemory, tier } = yield* cache.statistics
          expect([inMemory, tier], `end ${index}`).toEqual([{ objects: 0, size: 0 }, { objects: 0, size: 0 }])
          asked()
          expectLarge(yield* read(storage.stream("large")))
          expect(asked(), `end ${index}`).toEqual(["open"])
          yield* storage.load("large")
          expect(asked(), `end ${index}`).toEqual([])
        }
        expect((yield* both.kept.list()).length).toBe(1)
      }
    }))

  it.effect("fill the cache once when several run, and one that is abandoned leaves what a load has filled", () =>
    Effect.gen(function*() {
      const { cache, kept, memory, storage } = yield* withTier({ capacity: 1 }, 3 * tierFor(size))
      yield* memory.save("large", large)
      yield* Effect.scoped(Effect.gen(function*() {
        const pull = yield* Stream.toPull(storage.stream("large"))
        yield* pull
        expectLarge(yield* read(storage.stream("large")))
        expectLarge(yield* storage.load("large"))
      }))
      expect((yield* cache.statistics).tier.size).toBe(yield* sizeOf(kept))
      yield* storage.load("large")
      expect(yield* cache.statistics).toMatchObject({ tier: { objects: 1 }, failures: 0 })
      expect(yield* sizeOf(kept)).toBeLessThan(inTier(size))
    }))

  it.effect("fill memory once when several run", () =>
    Effect.scoped(Effect.gen(function*() {
      const { memory, storage } = yield* setup({ capacity: size, shared: true })
      yield* memory.save("large", large)
      const first = yield* Stream.toPull(storage.stream("large"))
      const second = yield* Stream.toPull(storage.stream("large"))
      yield* first
      yield* second
      yield* Effect.exit(Effect.forever(first))
      const kept = yield* storage.load("large")
      yield* Effect.exit(Effect.forever(second))
      expect((yield* storage.load("large")) === kept).toBe(true)
    })))

  it.effect("that do not fit into any tier pass through", () =>
    Effect.gen(function*() {
      const { cache, kept, memory, storage } = yield* withTier({ capacity: 9 }, 50)
      yield* memory.save("large", large)
      expectLarge(yield* read(storage.stream("large")))
      expect(yield* storage.load("k")).toEqual(pattern(10))
      expect((yield* cache.statistics).memory.objects + (yield* kept.list()).length).toBe(0)
    }))
})

describe("StorageCache, writes", () => {
  const changes: ReadonlyArray<
    readonly [StorageChaos.Operation, (storage: Storage.Service) => Effect.Effect<unknown, StorageError.StorageError>]
  > = [
    ["save", (storage) => storage.save("k", pattern(20))],
    ["save", (storage) => storage.save("k", Stream.make(pattern(20)))],
    ["remove", (storage) => storage.remove("k")],
    ["removeAll", (storage) => storage.removeAll(["k/a", "k"])],
    ["copy", (storage) => storage.copy("k/b", "k")],
    ["move", (storage) => storage.move("k", "new")],
    ["move", (storage) => storage.move("k/b", "k")]
  ]

  const same = (storage: Storage.Service, memory: Storage.Service) =>
    Effect.gen(function*() {
      for (const [name, run] of eachRead) {
        expect(yield* Effect.option(run(storage)), name).toEqual(yield* Effect.option(run(memory)))
      }
      expect(yield* storage.exists("k")).toBe(yield* memory.exists("k"))
    })

  it.effect("go through, and invalidate what they change", () =>
    Effect.forEach(changes, ([operation, change]) =>
      Effect.gen(function*() {
        for (const made of [yield* setup(), yield* withTier(), yield* withTier({ capacity: 1 })]) {
          yield* made.memory.save("k/b", pattern(15))
          yield* made.storage.load("k")
          yield* change(made.storage)
          expect(made.asked()).toContain(operation)
          expect((yield* made.cache.statistics).tier.objects).toBe(0)
          yield* same(made.storage, made.memory)
        }
      })))

  it.effect("invalidate also when they fail, since they may have been carried out", () =>
    Effect.forEach(changes, ([operation, change]) =>
      Effect.gen(function*() {
        const rules = [{ operation, when: "after" }] as const
        for (const made of [yield* setup({ rules }), yield* withTier({ capacity: 1, rules })]) {
          yield* made.memory.save("k/b", pattern(15))
          yield* made.storage.load("k")
          expect((yield* Effect.flip(change(made.storage)))._tag).toBe("StorageUnavailable")
          yield* same(made.storage, made.memory)
        }
      })))

  it.effect("invalidate also when they are interrupted", () =>
    Effect.forEach(changes, ([operation, change]) =>
      Effect.gen(function*() {
        const made = yield* withTier({
          hooks: {
            around: (effect, call) => call.operation === operation ? Effect.zipLeft(effect, Effect.never) : effect
          }
        })
        yield* made.storage.load("k")
        const fiber = yield* Effect.fork(change(made.storage))
        yield* turns(50)
        yield* Fiber.interrupt(fiber)
        yield* same(made.storage, made.memory)
      })))

  it.effect("keep out loads and streams that were requested before, however they interleave", () =>
    Effect.forEach(changes.slice(1, 4), ([, change]) =>
      Effect.gen(function*() {
        for (let moment = 0; moment < 60; moment += 7) {
          for (const run of [reads.load, reads.stream]) {
            const hooks: Hooks = {
              around: (effect) => Effect.zipLeft(Effect.zipRight(turns(3), effect), turns(3)),
              through: (stream) => Stream.tap(stream, () => turns(7))
            }
            for (const made of [yield* setup({ hooks }), yield* withTier({ hooks, capacity: 1 })]) {
              const fiber = yield* Effect.fork(Effect.withMaxOpsBeforeYield(run(made.storage), 24 + moment % 9))
              yield* turns(moment)
              yield* change(made.storage)
              yield* Effect.exit(Fiber.join(fiber))
              yield* same(made.storage, made.memory)
              expect((yield* made.cache.statistics).failures).toBe(0)
            }
          }
        }
      })))

  it.effect("keep out what is being saved in the second tier", () =>
    Effect.gen(function*() {
      const gate = yield* makeGate
      const kept = yield* MemoryStorage.make()
      // It is saved, but the cache does not know yet.
      const tier = intercepting(kept, {
        around: (effect, { operation }) => operation === "save" ? Effect.zipLeft(effect, gate.hold) : effect
      })
      const { memory, storage } = yield* setup({ capacity: 1, tier: { storage: tier, capacity: MiB } })
      const fiber = yield* Effect.fork(storage.load("k"))
      yield* gate.reached
      yield* storage.save("k", pattern(20))
      yield* gate.open
      yield* Fiber.join(fiber)
      expect(yield* kept.list()).toEqual([])
      yield* same(storage, memory)
    }))
})

describe("StorageCache, the second tier", () => {
  it.effect("serves what does not fit into memory, and fills memory with what is loaded from it", () =>
    Effect.gen(function*() {
      const { asked, cache, memory, storage, tierCalls } = yield* withTier({ capacity: 10 })
      yield* memory.save("other", pattern(10))
      yield* storage.load("k")
      yield* storage.load("other")
      asked()
      tierCalls.length = 0
      expect(yield* storage.load("k", { range: ByteRange.last(3) })).toEqual(pattern(10).slice(7))
      expect(yield* storage.loadRanges("k", [ByteRange.last(1)])).toEqual([pattern(10).slice(9)])
      expect(yield* read(storage.stream("k", { range: ByteRange.from(2) }))).toEqual(pattern(10).slice(2))
      expect(tierCalls.map(({ operation }) => operation)).toEqual(["load", "loadRanges", "open"])
      expect(yield* storage.load("k")).toEqual(pattern(10))
      tierCalls.length = 0
      expect(yield* storage.load("k")).toEqual(pattern(10))
      expect(tierCalls).toEqual([])
      expect(asked()).toEqual([])
      expect(yield* cache.statistics).toMatchObject({ hits: 5, misses: 2, evictions: 2, failures: 0 })
    }))

  it.scopedLive("outlives a restart, with the metadata of its objects", () =>
    Effect.gen(function*() {
      const directory = yield* temporaryDirectory
      const tier = { storage: yield* FileSystemStorage.make({ directory }), capacity: MiB }
      const first = yield* setup({ tier })
      const keys = ["k", "k/a", "empty", "k/a/b c/%+#?é👍", "con", "k-", "k+", "trailing."]
      for (const [index, key] of keys.entries()) {
        yield* first.memory.save(key, pattern(index === 2 ? 0 : 10 + index), {
          attributes: { contentType: "a/b", metadata: { note: `"${key}"`, ["__proto__"]: "kept" } }
        })
        yield* first.storage.load(key)
      }
      const second = yield* StorageCache.make(first.storage, {
        capacity: MiB,
        freshness: "immutable",
        tier: { storage: yield* FileSystemStorage.make({ directory }), capacity: MiB }
      })
      for (const [index, key] of keys.entries()) yield* first.memory.save(key, pattern(100 + index))
      first.calls.length = 0
      expect((yield* second.cache.statistics).tier).toEqual((yield* first.cache.statistics).tier)
      for (const [index, key] of keys.entries()) {
        const info = yield* second.head(key)
        expect(info).toEqual(yield* first.storage.head(key))
        expect(info.attributes?.contentType).toBe("a/b")
        expect(Object.entries(info.attributes?.metadata ?? {})).toEqual([["note", `"${key}"`], ["__proto__", "kept"]])
        for (const [name, run] of eachRead) {
          if (index === 2 && name === "loadRanges") continue
          expect(yield* run(second, key), `${name} ${key}`).toEqual(pattern(index === 2 ? 0 : 10 + index))
        }
      }
      expect(first.calls).toEqual([])
    }))

  it.effect("is used after a restart only where the storage says that the object has not changed", () =>
    Effect.forEach(["revalidate", { timeToLive: "1 hour" }] as const, (freshness) =>
      Effect.gen(function*() {
        const made = yield* withTier({ freshness })
        yield* made.storage.load("k")
        const { etag } = yield* made.memory.head("k")
        const restarted = () =>
          StorageCache.make(noting(made.memory, made.calls), {
            capacity: 1,
            freshness,
            tier: { storage: made.tierStorage, capacity: MiB }
          })
        const second = yield* restarted()
        made.calls.length = 0
        expect(yield* second.load("k")).toEqual(pattern(10))
        expect(made.calls.map(({ args }) => args)).toEqual([["k", { ifNoneMatch: etag }]])
        yield* made.memory.save("k", pattern(20))
        expect(yield* (yield* restarted()).load("k")).toEqual(pattern(20))
      })))

  it.effect("stays within its capacity, whatever is loaded, streamed and removed, and after a restart", () =>
    Effect.gen(function*() {
      const capacity = 5000
      const made = yield* withTier({ capacity: 100 }, capacity)
      for (let index = 0; index < 12; index++) yield* made.memory.save(`o${index}`, pattern(index * 300))
      for (let step = 0; step < 150; step++) {
        const key = `o${(step * 7 + (step >> 3)) % 12}`
        if (step % 11 === 10) yield* made.storage.save(key, pattern(300 * (step % 12)))
        else yield* (step % 2 === 0 ? reads.load : reads.stream)(made.storage, key)
        const size = yield* sizeOf(made.kept)
        expect(size).toBeLessThanOrEqual(capacity)
        expect((yield* made.cache.statistics).tier).toEqual({ objects: (yield* made.kept.list()).length, size })
      }
      expect((yield* made.cache.statistics).tier.size).toBeGreaterThan(capacity / 2)
      expect((yield* made.cache.statistics).evictions).toBeGreaterThan(10)
      for (const smaller of [3000, 1200, 100]) {
        const { cache } = yield* StorageCache.make(made.memory, {
          capacity: 1,
          tier: { storage: made.kept, capacity: smaller }
        })
        expect(yield* sizeOf(made.kept)).toBeLessThanOrEqual(smaller)
        expect((yield* cache.statistics).tier.size).toBe(yield* sizeOf(made.kept))
      }
      expect(yield* made.kept.list()).toEqual([])
    }))

  it.effect("evicts what was saved first, after a restart", () =>
    Effect.gen(function*() {
      const made = yield* withTier({ capacity: 1 })
      for (const key of ["k/b", "k", "k/a"]) {
        yield* TestClock.adjust("1 minute")
        yield* made.storage.load(key)
      }
      const size = yield* sizeOf(made.kept)
      yield* StorageCache.make(made.memory, { capacity: 1, tier: { storage: made.kept, capacity: size - 1 } })
      expect(yield* made.kept.list()).toEqual(["k+/a-", "k-"])
    }))

  it.effect("keeps no object whose key is too long for it, nor one that does not fit", () =>
    Effect.gen(function*() {
      const { asked, cache, memory, storage } = yield* withTier({ capacity: 20 }, 1520)
      const long = Array.from({ length: 512 }, () => "a").join("/")
      yield* memory.save(long, pattern(10))
      yield* memory.save("large", pattern(1500))
      for (const key of [long, "large"]) {
        yield* storage.load(key)
        yield* read(storage.stream(key))
      }
      asked()
      expect(yield* storage.load(long)).toEqual(pattern(10))
      expect(asked()).toEqual([])
      expect(yield* cache.statistics).toMatchObject({ failures: 0, tier: { objects: 0 } })
    }))

  it.effect("leaves other objects in its storage alone", () =>
    Effect.gen(function*() {
      const tier = yield* MemoryStorage.make()
      for (const key of ["other", "a/b-", "a+/b", "a-/b-"]) yield* tier.save(key, pattern(3000))
      const { cache, storage } = yield* setup({ capacity: 1, tier: { storage: tier, capacity: 1500 } })
      yield* storage.load("k")
      expect((yield* cache.statistics).tier.objects).toBe(1)
      expect(yield* tier.list()).toEqual(["a+/b", "a-/b-", "a/b-", "k-", "other"])
    }))

  it.effect("replaces objects that are damaged after a crash", () =>
    Effect.gen(function*() {
      const whole = yield* withTier()
      yield* whole.storage.load("k")
      const bytes = yield* whole.kept.load("k-")
      const broken = [
        new Uint8Array(0),
        new Uint8Array(3),
        new Uint8Array(bytes.length),
        bytes.slice(0, -1),
        bytes.slice(1),
        Uint8Array.from([...bytes.slice(0, -1), 255]),
        bytes.map((byte, index) => index === 12 ? byte ^ 0xff : byte)
      ]
      for (const [index, content] of broken.entries()) {
        const tier = yield* MemoryStorage.make()
        yield* tier.save("k-", content)
        const { asked, storage } = yield* setup({ capacity: 1, tier: { storage: tier, capacity: MiB } })
        for (const [name, run] of eachRead) expect(yield* run(storage), `${name} ${index}`).toEqual(pattern(10))
        expect(asked().length, `broken ${index}`).toBeGreaterThan(0)
        yield* storage.load("k")
        asked()
        expect(yield* storage.load("k")).toEqual(pattern(10))
        expect(asked(), `broken ${index}`).toEqual([])
        expect((yield* tier.load("k-")).slice(0, 10)).toEqual(pattern(10))
      }
    }))
})

describe("StorageCache, a second tier that fails", () => {
  const always = { times: Infinity }

  it.effect("has every operation succeed from the storage", () =>
    Effect.forEach(
      [undefined, "open", "load", "loadRanges", "save", "removeAll", "entries"] as const,
      (struck) =>
        Effect.gen(function*() {
          const tierRules = [{ ...always, ...(struck !== undefined && { operation: struck }) }]
          for (const [operation, run] of operations) {
            const made = yield* withTier({ capacity: 1, tierRules })
            yield* made.storage.load("k")
            yield* read(made.storage.stream("k/a"))
            const plain = intercepting(yield* filled(), {})
            expect(yield* run(made.storage), operation).toEqual(yield* run(plain))
            for (const [name, read] of eachRead) {
              expect(yield* Effect.option(read(made.storage)), name).toEqual(yield* Effect.option(read(made.memory)))
            }
          }
        })
    ))

  it.effect("is counted each time and logged once", () =>
    Effect.gen(function*() {
      const logged: Array<string> = []
      const logger = Logger.make(({ logLevel, message }) => void logged.push(`${logLevel.label} ${String(message)}`))
      const { cache, storage } = yield* withTier({ tierRules: [{ operation: "save", ...always }] }).pipe(
        Effect.provide(Logger.replace(Logger.defaultLogger, logger))
      )
      yield* Effect.gen(function*() {
        for (const key of ["k", "k/a", "k/b"]) expect(yield* storage.load(key)).toEqual(pattern(10))
      }).pipe(Effect.provide(Logger.replace(Logger.defaultLogger, logger)))
      expect((yield* cache.statistics).failures).toBe(3)
      expect(logged.length).toBe(1)
      expect(logged[0]).toContain("WARN Cache(Chaos(Memory)): the second tier failed; the storage is used instead")
    }))

  it.effect("drops an object that it fails to read", () =>
    Effect.forEach(["load", "loadRanges", "open"] as const, (operation) =>
      Effect.gen(function*() {
        const { asked, cache, kept, storage } = yield* withTier({ capacity: 1, tierRules: [{ operation }] })
        yield* storage.load("k")
        asked()
        const run = { load: reads.load, loadRanges: reads.loadRanges, open: reads.stream }[operation]
        const range = ByteRange.last(3)
        expect(yield* operation === "loadRanges" ? run(storage) : run(storage, "k", { range })).toEqual(
          operation === "loadRanges" ? pattern(10) : pattern(10).slice(7)
        )
        expect(asked(), operation).toEqual([operation])
        expect(yield* cache.statistics).toMatchObject({ failures: 1, tier: { objects: 0, size: 0 } })
        // It is removed when something else is saved.
        yield* storage.load("k/a")
        expect(yield* kept.list()).toEqual(["k+/a-"])
      })))

  it.effect("has the rest of a stream that breaks read from the storage, of the same version", () =>
    Effect.forEach([0, 1, 4, 9, 10], (afterBytes) =>
      Effect.gen(function*() {
        const { cache, calls, memory, storage } = yield* withTier({
          capacity: 1,
          tierRules: [{ operation: "open", afterBytes }]
        })
        yield* storage.load("k")
        const { etag } = yield* memory.head("k")
        calls.length = 0
        expect(yield* read(storage.stream("k"))).toEqual(pattern(10))
        expect(calls).toEqual(
          afterBytes === 10
            ? []
            : [{ operation: "open", args: ["k", { range: ByteRange.make(afterBytes, 10), ifMatch: etag }] }]
        )
        expect(yield* cache.statistics).toMatchObject({ failures: 1, tier: { objects: 0 } })
        // What broke once is not read again.
        calls.length = 0
        yield* read(storage.stream("k"))
        expect(calls.length).toBe(1)
      })))

  it.effect("never joins two versions where a stream breaks", () =>
    Effect.gen(function*() {
      const { memory, storage } = yield* withTier({ capacity: 1, tierRules: [{ operation: "open", afterBytes: 4 }] })
      yield* storage.load("k")
      yield* memory.save("k", pattern(20))
      expect((yield* Effect.flip(read(storage.stream("k"))))._tag).toBe("PreconditionFailed")
    }))

  it.effect("does not block a stream that fills it", () =>
    Effect.gen(function*() {
      const { cache, kept, memory, storage } = yield* withTier({
        tierRules: [{ operation: "save", afterBytes: MiB }, { operation: "save", key: "k-" }]
      }, 9 * MiB)
      yield* memory.save("large", large)
      expectLarge(yield* read(storage.stream("large")))
      expect(yield* read(storage.stream("k"))).toEqual(pattern(10))
      expect(yield* kept.list()).toEqual([])
      expect((yield* cache.statistics).failures).toBe(2)
      expectLarge(yield* read(storage.stream("large")))
      expect((yield* kept.list()).length).toBe(1)
    }))

  it.effect("saves nothing more while it cannot remove, and makes room when it can again", () =>
    Effect.gen(function*() {
      const made = yield* withTier({ capacity: 1, tierRules: [{ operation: "removeAll", times: 3 }] }, 2500)
      for (let index = 0; index < 9; index++) {
        yield* made.memory.save(`o${index}`, pattern(1000))
        yield* made.storage.load(`o${index}`)
        expect(yield* sizeOf(made.kept)).toBeLessThanOrEqual(2500)
      }
      const { failures, tier } = yield* made.cache.statistics
      expect(failures).toBe(3)
      expect(tier).toEqual({ objects: 2, size: yield* sizeOf(made.kept) })
    }))

  it.effect("saves nothing more until it can remove each object", () =>
    Effect.gen(function*() {
      const tierRules = [{ operation: "removeAll", key: "o0-", times: 4 }] as const
      const made = yield* withTier({ capacity: 1, tierRules }, 2500)
      for (let index = 0; index < 9; index++) {
        yield* made.memory.save(`o${index}`, pattern(1000))
        yield* made.storage.load(`o${index}`)
        expect(yield* sizeOf(made.kept)).toBeLessThanOrEqual(2500)
      }
      expect((yield* made.cache.statistics).tier).toEqual({ objects: 2, size: yield* sizeOf(made.kept) })
    }))

  it.effect("is listed before anything is saved, where that failed at first", () =>
    Effect.gen(function*() {
      const kept = yield* MemoryStorage.make()
      const first = yield* setup({ tier: { storage: kept, capacity: MiB } })
      for (const key of ["k", "k/a"]) yield* first.storage.load(key)
      const tier = yield* StorageChaos.make(kept, [
        { operation: "entries", times: 2 },
        { operation: "removeAll" }
      ])
      const { memory } = first
      const { asked, cache, storage } = yield* setup({ memory, capacity: 1, tier: { storage: tier, capacity: MiB } })
      // What is changed meanwhile is not served from it later.
      yield* storage.save("k", pattern(20))
      expect(yield* storage.load("k")).toEqual(pattern(20))
      expect(yield* cache.statistics).toMatchObject({ failures: 3, tier: { objects: 0 } })
      yield* storage.load("k/b")
      expect((yield* cache.statistics).tier.objects).toBe(2)
      asked()
      expect(yield* storage.load("k/a")).toEqual(pattern(10))
      expect(asked()).toEqual([])
      expect(yield* storage.load("k")).toEqual(pattern(20))
      expect(asked()).toEqual(["open"])
      expect((yield* cache.statistics).failures).toBe(3)
    }))
})

describe("StorageCache, observability", () => {
  it.effect("counts in its statistics and as metrics with the labels of the fiber", () =>
    Effect.gen(function*() {
      const { backend } = yield* filled()
      const named = Storage.make({ ...backend, name: "statistics" })
      const storage = yield* StorageCache.make(named, { capacity: 20, freshness: "immutable" })
      const { cache } = storage
      expect(yield* cache.statistics).toEqual({
        hits: 0,
        misses: 0,
        bytes: 0,
        evictions: 0,
        failures: 0,
        memory: { objects: 0, size: 0 },
        tier: { objects: 0, size: 0 }
      })
      yield* storage.load("k")
      yield* storage.load("k")
      yield* storage.load("k", { range: ByteRange.last(3) })
      yield* read(storage.stream("k", { range: ByteRange.last(4) }))
      yield* storage.loadRanges("k", [ByteRange.make(0, 2), ByteRange.last(1)])
      yield* storage.load("k/a")
      yield* storage.load("k/b")
      yield* Effect.exit(storage.load("missing"))
      const statistics = yield* cache.statistics
      expect(statistics).toEqual({
        hits: 4,
        misses: 4,
        bytes: 20,
        evictions: 1,
        failures: 0,
        memory: { objects: 2, size: 20 },
        tier: { objects: 0, size: 0 }
      })
      yield* storage.load("k/b").pipe(Effect.tagMetrics("client", "test"))
      const labelled = (yield* Metric.snapshot).filter(({ metricKey: { name, tags } }) =>
        name === "storage_cache_hits" && tags.some(({ key, value }) => key === "client" && value === "test")
      )
      expect(labelled.map(({ metricState }) => metricState)).toMatchObject([{ count: 1 }])
      const metrics = (yield* Metric.snapshot).filter(({ metricKey: { tags } }) =>
        tags.length === 1 && tags.some(({ key, value }) => key === "backend" && value === "Cache(statistics)")
      )
      const values = Object.fromEntries(metrics.map(({ metricKey: { name }, metricState }) => [name, metricState]))
      for (const what of ["hits", "misses", "bytes", "evictions"] as const) {
        expect(values[`storage_cache_${what}`], what).toMatchObject({ count: statistics[what] })
      }
      // A value that was returned does not change.
      yield* storage.load("k/b")
      expect(statistics.hits).toBe(4)
    }))

  it.effect("sets the outcome in the span of each read", () =>
    Effect.gen(function*() {
      const spans: Array<Tracer.Span> = []
      const native = yield* Effect.tracer
      const tracer = Tracer.make({
        context: (run, fiber) => native.context(run, fiber),
        span: (...args) => {
          const span = native.span(...args)
          spans.push(span)
          return span
        }
      })
      const { memory, storage } = yield* withTier({ capacity: 10, freshness: { timeToLive: "1 hour" } })
      yield* Effect.gen(function*() {
        yield* storage.load("k")
        yield* storage.load("k")
        yield* storage.load("k/a")
        yield* storage.load("k")
        yield* read(storage.stream("k/b"))
        yield* read(storage.stream("k/b"))
        yield* storage.loadRanges("k", [ByteRange.last(1)])
        yield* TestClock.adjust("1 hour")
        yield* storage.load("k")
        yield* memory.save("k", pattern(9))
        yield* TestClock.adjust("1 hour")
        yield* storage.load("k")
        yield* storage.remove("k")
        yield* Effect.exit(storage.load("k"))
      }).pipe(Effect.withTracer(tracer))
      expect(spans.map(({ attributes, name }) => `${name} ${String(attributes.get("storage.cache"))}`)).toEqual([
        "Storage.load miss",
        "Storage.load hit",
        "Storage.load miss",
        "Storage.load hit",
        "Storage.stream miss",
        "Storage.stream hit",
        "Storage.loadRanges hit",
        "Storage.load hit",
        "Storage.save undefined",
        "Storage.load miss",
        "Storage.remove undefined",
        "Storage.load miss"
      ])
    }))
})

describe("StorageCache, warm", () => {
  it.effect("loads objects that are not in the cache, each once, at most four at a time", () =>
    Effect.gen(function*() {
      let now = 0
      let most = 0
      const made = yield* setup({
        hooks: {
          around: (effect) =>
            Effect.acquireUseRelease(
              Effect.sync(() => {
                most = Math.max(most, ++now)
              }),
              () => Effect.zipRight(turns(10), effect),
              () => Effect.sync(() => void now--)
            )
        }
      })
      const keys = Array.from({ length: 12 }, (_, index) => `o${index}`)
      for (const key of keys) yield* made.memory.save(key, pattern(10))
      yield* made.storage.load("o3")
      made.asked()
      yield* made.cache.warm([...keys, ...keys])
      expect(made.asked()).toEqual(Array.from({ length: 11 }, () => "open"))
      expect(most).toBe(4)
      for (const key of keys) yield* made.storage.load(key)
      expect(made.asked()).toEqual([])
      expect((yield* made.cache.statistics).memory.objects).toBe(12)
    }))

  it.effect("does not read what is in the cache, nor what does not fit", () =>
    Effect.gen(function*() {
      for (const freshness of ["immutable", "revalidate"] as const) {
        let moved = 0
        const hooks: Hooks = { through: (stream) => Stream.tap(stream, () => Effect.sync(() => void moved++)) }
        for (
          const made of [
            yield* setup({ capacity: 100, freshness, hooks }),
            yield* withTier({ capacity: 1, freshness, hooks }, 2000)
          ]
        ) {
          yield* made.memory.save("large", pattern(5000))
          yield* made.cache.warm(["k", "k/a"])
          expect(moved).toBe(2)
          moved = 0
          yield* made.cache.warm(["k", "k/a", "large"])
          expect(moved).toBe(0)
          expect(yield* made.storage.load("k")).toEqual(pattern(10))
          moved = 0
        }
      }
    }))

  it.effect("fails with the first failure, and with InvalidKey on an invalid key", () =>
    Effect.gen(function*() {
      const { cache } = yield* setup()
      expect(yield* Effect.flip(cache.warm(["k", "missing"]))).toMatchObject({ _tag: "ObjectNotFound", key: "missing" })
      expect((yield* Effect.flip(cache.warm(["k/../k"])))._tag).toBe("InvalidKey")
      yield* cache.warm([])
    }))
})

StorageContract.suite("StorageCache(Memory)", {
  layer: StorageCache.layer({ capacity: MiB, freshness: "immutable" }).pipe(Layer.provide(MemoryStorage.layer()))
})
