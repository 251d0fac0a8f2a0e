/**
 * A cache that keeps blocks of objects: what it asks the storage for, and that it never joins two versions.
 */
import { describe, expect, it } from "@effect/vitest"
import { Chunk, Deferred, Effect, Fiber, Option, Stream, TestClock } from "effect"
import { ByteRange, MemoryStorage, Safetensors, Storage, StorageCache, StorageChaos } from "surfing-weights"
import { type Call, filled, type Hooks, intercepting, noting, operations, pattern } from "../support/intercepting.js"

const KiB = 1024
const MiB = 1024 * KiB

const blocks = 1000

/** Ten blocks, and part of another. */
const content = pattern(10_234)
const size = content.byteLength

interface Setup extends Partial<StorageCache.Options> {
  readonly memory?: Storage.Service
  readonly hooks?: Hooks
}

/** A cache of blocks over a memory storage with one object, and what it asks the storage for. */
const setup = ({ hooks = {}, memory: given, ...options }: Setup = {}) =>
  Effect.gen(function*() {
    const memory = given ?? (yield* MemoryStorage.make())
    if (given === undefined) yield* memory.save("k", content, { attributes: { contentType: "a/b" } })
    const calls: Array<Call> = []
    const inner = noting(intercepting(memory, hooks), calls)
    const storage = yield* StorageCache.make(inner, { capacity: MiB, freshness: "immutable", blocks, ...options })
    /** The ranges that were asked for since the last time, in blocks; `all` without a range. */
    const asked = () =>
      calls.splice(0).map(({ args: [, options], operation }) => {
        if (operation !== "open") return operation
        const { range } = options as Storage.LoadOptions
        return range === undefined
          ? "all"
          : range._tag === "Bounded"
          ? `${range.start / blocks}-${range.endExclusive / blocks}`
          : range._tag
      })
    return { memory, storage, cache: storage.cache, calls, asked }
  })

const withTier = (options: Setup & { readonly kept?: Storage.Service } = {}, capacity = MiB) =>
  Effect.gen(function*() {
    const { kept = yield* MemoryStorage.make(), ...rest } = options
    const tierCalls: Array<Call> = []
    const made = yield* setup({ capacity: 1, ...rest, tier: { storage: noting(kept, tierCalls), capacity } })
    return { ...made, kept, tierCalls }
  })

/** Each kind of cache: in memory, and in a second tier alone. */
const kinds = [setup, withTier] as const

const read = <E>(stream: Stream.Stream<Uint8Array, E>) =>
  Effect.map(Stream.runCollect(stream), (chunks) => new Uint8Array(Buffer.concat(Chunk.toArray(chunks))))

/** Each way to read a range. */
const reads = {
  load: (storage: Storage.Service, range: ByteRange.ByteRange, options: Storage.LoadOptions = {}) =>
    storage.load("k", { ...options, range }),
  loadRanges: (storage: Storage.Service, range: ByteRange.ByteRange, options: Storage.LoadOptions = {}) =>
    Effect.map(storage.loadRanges("k", [range], options), ([bytes]) => bytes),
  stream: (storage: Storage.Service, range: ByteRange.ByteRange, options: Storage.LoadOptions = {}) =>
    read(storage.stream("k", { ...options, range })),
  open: (storage: Storage.Service, range: ByteRange.ByteRange, options: Storage.LoadOptions = {}) =>
    Effect.scoped(
      Effect.flatMap(storage.open("k", { ...options, range }), ({ bytes, stream }) =>
        bytes === undefined ? read(stream) : Effect.succeed(bytes.slice()))
    )
}
const eachRead = Object.entries(reads)

/** Nine reads that end within blocks, at their ends, and past the end of the object. */
const ranges = [
  ByteRange.make(0, 1),
  ByteRange.make(999, 1001),
  ByteRange.make(1000, 2000),
  ByteRange.make(2500, 7001),
  ByteRange.make(10_000, 10_234),
  ByteRange.make(9_999, 99_999),
  ByteRange.from(8_000),
  ByteRange.last(500),
  ByteRange.last(99_999)
]

const slice = (range: ByteRange.ByteRange): Uint8Array => {
  switch (range._tag) {
    case "Bounded":
      return content.slice(range.start, range.endExclusive)
    case "From":
      return content.slice(range.start)
    case "Last":
      return content.slice(-range.length)
  }
}

/** Compares large arrays fast. */
const expectBytes = (actual: Uint8Array | undefined, expected: Uint8Array, what = "bytes") => {
  if (actual === undefined || Buffer.compare(actual, expected) !== 0) expect.fail(`${what}: not the same`)
}

const turns = (count: number) => Effect.repeatN(Effect.yieldNow(), count)

describe("StorageCache of blocks, reading", () => {
  it.effect("returns what the storage returns, cold and warm, in memory and from a second tier", () =>
    Effect.gen(function*() {
      for (const make of kinds) {
        for (const [name, run] of eachRead) {
          for (const [index, range] of ranges.entries()) {
            const { memory, storage } = yield* make({ freshness: index % 2 === 0 ? "immutable" : "revalidate" })
            for (const time of ["cold", "warm"]) {
              expectBytes(yield* run(storage, range), slice(range), `${name} ${time} ${JSON.stringify(range)}`)
            }
            expectBytes(yield* storage.load("k"), content)
            expectBytes(yield* run(storage, range), slice(range))
            expect(yield* storage.head("k")).toEqual(yield* memory.head("k"))
          }
        }
      }
    }))

  it.effect("does every operation as the storage does", () =>
    Effect.gen(function*() {
      for (const make of kinds) {
        for (const [operation, run] of operations) {
          const { storage } = yield* make({ memory: yield* filled() })
          const expected = yield* run(intercepting(yield* filled(), {}))
          for (const key of ["k", "k/a"]) yield* storage.load(key)
          expect(yield* run(storage), operation).toEqual(expected)
        }
      }
    }))

  it.effect("fetches whole blocks, once, and neighbours that are missing with one request", () =>
    Effect.gen(function*() {
      for (const make of kinds) {
        const { asked, cache, calls, storage } = yield* make()
        const { etag } = yield* storage.head("k")
        calls.length = 0
        yield* storage.load("k", { range: ByteRange.make(2100, 2200) })
        expect(asked()).toEqual(["2-3"])
        yield* storage.load("k", { range: ByteRange.make(1999, 2001) })
        expect(asked()).toEqual(["1-2"])
        yield* read(storage.stream("k", { range: ByteRange.make(5500, 6500) }))
        expect(asked()).toEqual(["5-7"])
        calls.length = 0
        expectBytes(yield* storage.load("k"), content)
        // All of them are of the version that is known.
        expect(calls.map(({ args }) => args[1])).toEqual([
          { range: ByteRange.make(0, 1000), ifMatch: etag },
          { range: ByteRange.make(3000, 5000), ifMatch: etag },
          { range: ByteRange.make(7000, size), ifMatch: etag }
        ])
        calls.length = 0
        for (const [, run] of eachRead) {
          for (const range of ranges) expectBytes(yield* run(storage, range), slice(range))
        }
        expect(asked()).toEqual([])
        const { memory, tier } = yield* cache.statistics
        expect(make === setup ? memory : { ...tier, size }).toEqual({ objects: 1, blocks: 11, size })
      }
    }))

  it.effect("opens a cold object with one request, whatever is read of it", () =>
    Effect.gen(function*() {
      for (const [name, run] of eachRead) {
        const { asked, storage } = yield* setup()
        yield* run(storage, ByteRange.make(1500, 3500))
        expect(asked(), name).toEqual(["1-4"])
        const other = yield* setup()
        yield* run(other.storage, ByteRange.from(7_777))
        expect(other.asked(), name).toEqual(["From"])
      }
      const { asked, storage } = yield* setup()
      expectBytes(yield* storage.load("k"), content)
      expect(asked()).toEqual(["all"])
    }))

  it.effect("fails on ranges out of bounds as the storage does", () =>
    Effect.gen(function*() {
      for (const range of [ByteRange.from(size), ByteRange.make(size + 5000, size + 5001), ByteRange.make(3, 3)]) {
        for (const [name, run] of eachRead) {
          const { memory, storage } = yield* setup()
          const expected = yield* Effect.flip(run(memory, range))
          for (const time of ["cold", "warm"]) {
            const error = yield* Effect.flip(run(storage, range))
            expect({ ...error, operation: "" }, `${name} ${time}`).toMatchObject({
              _tag: "InvalidRange",
              reason: (expected as { reason?: string }).reason
            })
            yield* storage.load("k")
          }
        }
      }
      const { storage } = yield* setup()
      expect((yield* Effect.flip(storage.load("missing")))._tag).toBe("ObjectNotFound")
    }))

  it.effect("keeps empty objects", () =>
    Effect.gen(function*() {
      for (const make of kinds) {
        const { asked, memory, storage } = yield* make()
        yield* memory.save("empty", new Uint8Array(0))
        expectBytes(yield* storage.load("empty"), new Uint8Array(0))
        expect(asked()).toEqual(["all"])
        expectBytes(yield* storage.load("empty"), new Uint8Array(0))
        expectBytes(yield* read(storage.stream("empty")), new Uint8Array(0))
        expect(yield* storage.loadRanges("empty", [])).toEqual([])
        expect(asked()).toEqual([])
      }
    }))

  it.effect("returns arrays of the caller's own, and cached bytes where they are shared", () =>
    Effect.gen(function*() {
      for (const make of kinds) {
        const { storage } = yield* make()
        const spoiled = (all: ReadonlyArray<Uint8Array>) => all.forEach((bytes) => bytes.fill(255))
        for (let round = 0; round < 3; round++) {
          spoiled([yield* storage.load("k"), yield* storage.load("k", { range: ByteRange.make(1000, 2000) })])
          spoiled(yield* storage.loadRanges("k", [ByteRange.make(0, 1000), ByteRange.last(10)]))
          spoiled(Chunk.toArray(yield* Stream.runCollect(storage.stream("k"))))
          expectBytes(yield* storage.load("k"), content)
        }
      }
      const { storage } = yield* setup({ shared: true })
      yield* storage.load("k")
      const range = ByteRange.make(1200, 1300)
      const one = yield* storage.load("k", { range })
      expect((yield* storage.load("k", { range })).buffer).toBe(one.buffer)
      expectBytes(one, slice(range))
    }))

  it.effect("warms with what is missing of an object", () =>
    Effect.gen(function*() {
      const { asked, cache, storage } = yield* setup()
      yield* storage.load("k", { range: ByteRange.make(0, 5000) })
      asked()
      yield* cache.warm(["k"])
      expect(asked()).toEqual([`5-${size / blocks}`])
      yield* cache.warm(["k"])
      expect(asked()).toEqual([])
    }))

  it.effect("counts hits, misses and bytes from the cache", () =>
    Effect.gen(function*() {
      for (const make of kinds) {
        const { cache, storage } = yield* make()
        yield* storage.load("k", { range: ByteRange.make(0, 1500) })
        expect(yield* cache.statistics).toMatchObject({ hits: 0, misses: 1, bytes: 0 })
        yield* storage.load("k", { range: ByteRange.make(500, 2500) })
        expect(yield* cache.statistics).toMatchObject({ hits: 0, misses: 2, bytes: 1500 })
        yield* storage.loadRanges("k", [ByteRange.make(0, 10), ByteRange.make(5, 20)])
        yield* read(storage.stream("k", { range: ByteRange.make(100, 1100) }))
        expect(yield* cache.statistics).toMatchObject({ hits: 2, misses: 2, bytes: 2525 })
      }
    }))

  it.effect("fails with InvalidOptions on blocks that are larger than each tier", () =>
    Effect.gen(function*() {
      const memory = yield* MemoryStorage.make()
      for (const bad of [0, 1.5, -1]) {
        const error = yield* Effect.flip(StorageCache.make(memory, { capacity: 10, blocks: bad }))
        expect(error).toMatchObject({ option: "blocks" })
      }
      const error = yield* Effect.flip(StorageCache.make(memory, { capacity: 10, blocks: 11 }))
      expect(error.message).toBe(
        "StorageCache: blocks must be at most the capacity (got 11 bytes, and a capacity of 10 bytes)"
      )
      const tier = { storage: memory, capacity: 10_000 }
      yield* StorageCache.make(memory, { capacity: 10, blocks: 11n, tier })
    }))
})

describe("StorageCache of blocks, at the same time", () => {
  it.effect("fetches each block once for 32 readers of overlapping ranges", () =>
    Effect.gen(function*() {
      for (const make of kinds) {
        let served = 0
        const { cache, storage } = yield* make({
          hooks: {
            around: (effect) => Effect.zipRight(turns(3), effect),
            through: (stream) =>
              Stream.tap(stream, (bytes) =>
                Effect.zipRight(turns(2), Effect.sync(() => served += (bytes as Uint8Array).length)))
          },
          // Each of the readers has a part that no other has read before.
          ...(make === setup ? {} : { capacity: 100_000 })
        })
        const all = yield* Effect.forEach(
          Array.from({ length: 32 }, (_, index) =>
            index),
          (index) => {
            const range = ByteRange.make(index * 150, index * 150 + 5500)
            const [, run] = eachRead[index % eachRead.length] ?? eachRead[0] ?? expect.fail()
            return Effect.map(run(storage, range), (bytes) => [bytes, slice(range)] as const)
          },
          { concurrency: "unbounded" }
        )
        for (const [bytes, expected] of all) expectBytes(bytes, expected)
        expect(served).toBe(size)
        expect((yield* cache.statistics).failures).toBe(0)
      }
    }))

  it.effect("goes on for other readers when some are interrupted, and ends when all are", () =>
    Effect.gen(function*() {
      const gate = yield* Deferred.make<void>()
      let interrupted = 0
      const hooks: Hooks = {
        through: (stream) =>
          Stream.onEnd(
            Stream.ensuringWith(
              Stream.mapEffect(stream, (bytes) => Effect.as(Deferred.await(gate), bytes)),
              (exit) => Effect.sync(() => void (interrupted += exit._tag === "Failure" ? 1 : 0))
            ),
            Effect.void
          )
      }
      const { asked, storage } = yield* setup({ hooks })
      const fork = Effect.fork(storage.load("k"))
      const [one, two] = [yield* fork, yield* fork]
      yield* turns(200)
      yield* Fiber.interrupt(one)
      expect(interrupted).toBe(0)
      yield* Fiber.interrupt(two)
      expect(interrupted).toBe(1)
      expect(asked()).toEqual(["all"])
      const three = yield* fork
      yield* turns(100)
      const four = yield* fork
      yield* turns(100)
      yield* Fiber.interrupt(three)
      yield* Deferred.succeed(gate, undefined)
      expectBytes(yield* Fiber.join(four), content)
      expect(asked()).toEqual(["all"])
    }))

  it.effect("reads no further than one block ahead of a slow reader", () =>
    Effect.gen(function*() {
      for (const make of kinds) {
        let served = 0
        const { storage } = yield* make({
          hooks: {
            through: (stream) =>
              Stream.mapConcat(stream, (bytes) => {
                const all = bytes as Uint8Array
                return Array.from({ length: Math.ceil(all.length / 100) }, (_, i) => all.slice(i * 100, i * 100 + 100))
              }).pipe(
                Stream.rechunk(1),
                Stream.tap((bytes) => Effect.sync(() => served += bytes.length))
              ) as never
          }
        })
        let consumed = 0
        yield* Stream.runForEach(storage.stream("k"), (bytes) =>
          Effect.gen(function*() {
            yield* turns(300)
            consumed += bytes.length
            expect(served).toBeLessThanOrEqual(consumed + blocks + 100)
          }))
        expect([consumed, served]).toEqual([size, size])
      }
    }))

  it.effect("opens an object without reading it", () =>
    Effect.gen(function*() {
      let served = 0
      const { storage } = yield* setup({
        hooks: { through: (stream) => Stream.tap(stream, () => Effect.sync(() => served++)) }
      })
      yield* Effect.scoped(Effect.zipRight(storage.open("k"), turns(300)))
      expect(served).toBe(0)
    }))
})

describe("StorageCache of blocks, freshness", () => {
  it.effect("makes one request for each read that revalidates, however many blocks it has", () =>
    Effect.gen(function*() {
      for (const make of kinds) {
        const { asked, calls, memory, storage } = yield* make({ freshness: "revalidate" })
        yield* storage.load("k")
        const { etag } = yield* memory.head("k")
        calls.length = 0
        expectBytes(yield* storage.load("k"), content)
        expect(calls.map(({ args }) => args[1])).toEqual([{ ifNoneMatch: etag }])
        calls.length = 0
        for (const [name, run] of eachRead) {
          expectBytes(yield* run(storage, ByteRange.make(500, 9500)), content.slice(500, 9500), name)
          expect(asked(), name).toEqual(["0-10"])
        }
        // A read under the etag of the blocks needs none.
        yield* storage.load("k", { ifMatch: etag })
        expect(asked()).toEqual([])
      }
    }))

  it.effect("confirms with the request for what is missing that the rest has not changed", () =>
    Effect.gen(function*() {
      const { asked, memory, storage } = yield* setup({ freshness: "revalidate" })
      yield* storage.load("k", { range: ByteRange.make(0, 4000) })
      asked()
      expectBytes(yield* storage.load("k", { range: ByteRange.make(0, 5000) }), content.slice(0, 5000))
      expect(asked()).toEqual(["4-5"])
      const other = content.map((byte) => byte ^ 1)
      yield* memory.save("k", other)
      // The whole range is read anew, and the old blocks are gone.
      expectBytes(yield* storage.load("k", { range: ByteRange.make(0, 6000) }), other.slice(0, 6000))
      expect(asked()).toEqual(["5-6", "0-6"])
    }))

  it.effect("returns each read the object as it is now, of one version", () =>
    Effect.gen(function*() {
      for (const make of kinds) {
        for (const [name, run] of eachRead) {
          const { cache, memory, storage } = yield* make({ freshness: "revalidate" })
          yield* storage.load("k")
          const other = content.map((byte) => byte ^ 1)
          yield* memory.save("k", other)
          expectBytes(yield* run(storage, ByteRange.make(1500, 3500)), other.slice(1500, 3500), name)
          const { memory: inMemory, tier } = yield* cache.statistics
          expect(inMemory.size === 3000 || tier.blocks === 3, name).toBe(true)
        }
      }
    }))

  it.effect("revalidates when the time to live is over and not before", () =>
    Effect.gen(function*() {
      const { asked, memory, storage } = yield* setup({ freshness: { timeToLive: "1 minute" } })
      const range = ByteRange.make(0, 10)
      yield* storage.load("k", { range })
      yield* memory.save("k", new Uint8Array(size))
      yield* TestClock.adjust("59 seconds")
      expectBytes(yield* storage.load("k", { range }), content.slice(0, 10))
      expect(asked()).toEqual(["0-1"])
      yield* TestClock.adjust("1 second")
      expectBytes(yield* storage.load("k", { range }), new Uint8Array(10))
      expect(asked()).toEqual(["0-1"])
    }))

  it.effect("never joins two versions, where a change is noticed between two requests", () =>
    Effect.gen(function*() {
      for (const make of kinds) {
        const other = content.map((byte) => byte ^ 1)
        const part = ByteRange.make(0, 2000)
        for (const [name, run] of eachRead) {
          const { memory, storage } = yield* make()
          yield* storage.load("k", { range: part })
          yield* memory.save("k", other)
          // What is here may be served, the rest cannot be of the same version: all of it is read anew.
          expectBytes(yield* run(storage, ByteRange.make(0, 4000)), other.slice(0, 4000), name)
          expectBytes(yield* storage.load("k"), other)
        }
        const { memory, storage } = yield* make()
        const { etag } = yield* storage.head("k")
        yield* storage.load("k", { range: part })
        yield* memory.save("k", other)
        expect((yield* Effect.flip(storage.load("k", { ifMatch: etag })))._tag).toBe("PreconditionFailed")
      }
    }))

  it.effect("breaks a stream off whose object changes under it", () =>
    Effect.gen(function*() {
      const { memory, storage } = yield* setup()
      yield* storage.load("k", { range: ByteRange.make(5000, 6000) })
      const failed = yield* Effect.flip(
        Stream.runForEach(storage.stream("k"), () => memory.save("k", new Uint8Array(size)))
      )
      expect(failed._tag).toBe("PreconditionFailed")
      expectBytes(yield* storage.load("k"), new Uint8Array(size))
    }))

  it.effect("keeps the preconditions of the caller", () =>
    Effect.gen(function*() {
      for (const make of kinds) {
        const { asked, memory, storage } = yield* make({ freshness: "revalidate" })
        yield* storage.load("k")
        const { etag } = yield* memory.head("k")
        asked()
        expect((yield* Effect.flip(storage.load("k", { ifNoneMatch: etag })))._tag).toBe("ObjectNotModified")
        expect((yield* Effect.flip(storage.load("k", { ifMatch: "other" })))._tag).toBe("PreconditionFailed")
        expect(asked()).toEqual(["all", "all"])
        expectBytes(yield* storage.load("k", { ifNoneMatch: "other" }), content)
        expectBytes(yield* storage.load("k", { ifMatch: etag }), content)
      }
    }))

  it.effect("reads from the storage itself with bypassCache, and drops all blocks", () =>
    Effect.gen(function*() {
      for (const make of kinds) {
        for (const [name, run] of eachRead) {
          const { cache, calls, memory, storage } = yield* make()
          yield* storage.load("k")
          yield* memory.save("k", new Uint8Array(size))
          calls.length = 0
          const range = ByteRange.make(0, 5)
          expectBytes(yield* run(storage, range, { bypassCache: true }), new Uint8Array(5), name)
          expect(calls.length).toBe(1)
          const { memory: inMemory, tier } = yield* cache.statistics
          expect([inMemory.blocks, tier.blocks]).toEqual([0, 0])
        }
      }
    }))
})

describe("StorageCache of blocks, writes", () => {
  const changes = {
    save: (storage: Storage.Service) => storage.save("k", new Uint8Array(5000)),
    remove: (storage: Storage.Service) => storage.remove("k"),
    removeAll: (storage: Storage.Service) => storage.removeAll(["x", "k"]),
    copy: (storage: Storage.Service) => storage.copy("other", "k"),
    "move away": (storage: Storage.Service) => storage.move("k", "moved"),
    "move here": (storage: Storage.Service) => storage.move("other", "k")
  }

  it.effect("remove all blocks of what they change, also when they fail", () =>
    Effect.gen(function*() {
      for (const make of kinds) {
        for (const [name, change] of Object.entries(changes)) {
          for (const fails of [false, true]) {
            const base = yield* MemoryStorage.make()
            yield* base.save("k", content)
            yield* base.save("other", pattern(3000))
            const rules = ["save", "remove", "removeAll", "copy", "move"] as const
            const memory = fails
              ? yield* StorageChaos.make(base, rules.map((operation) => ({ operation, when: "after" })))
              : base
            const { cache, storage } = yield* make({ memory })
            yield* storage.load("k")
            yield* Effect.exit(change(storage))
            const { memory: inMemory, tier } = yield* cache.statistics
            expect([inMemory.blocks, tier.blocks], name).toEqual([0, 0])
            expect(yield* Effect.option(storage.load("k")), name).toEqual(yield* Effect.option(base.load("k")))
          }
        }
      }
    }))

  it.effect("keep out what was requested before, however they interleave", () =>
    Effect.gen(function*() {
      const hooks: Hooks = {
        around: (effect) => Effect.zipLeft(Effect.zipRight(turns(3), effect), turns(3)),
        through: (stream) => Stream.tap(stream, () => turns(7))
      }
      for (let moment = 0; moment < 90; moment += 11) {
        for (const [name, run] of eachRead) {
          for (const make of kinds) {
            const { memory, storage } = yield* make({ hooks })
            if (moment % 2 === 0) yield* storage.load("k", { range: ByteRange.make(3000, 4000) })
            const fiber = yield* Effect.fork(
              Effect.withMaxOpsBeforeYield(run(storage, ByteRange.from(0)), 24 + moment % 9)
            )
            yield* turns(moment)
            yield* storage.save("k", new Uint8Array(size))
            const bytes = yield* Effect.option(Fiber.join(fiber))
            // Of one version, and the new one from now on.
            if (Option.isSome(bytes)) {
              const expected = bytes.value?.[1] === 0 ? new Uint8Array(size) : content
              expectBytes(bytes.value, expected, `${name} ${moment}`)
            }
            expectBytes(yield* storage.load("k"), new Uint8Array(size), `${name} ${moment}`)
            expectBytes(yield* memory.load("k"), new Uint8Array(size))
          }
        }
      }
    }))
})

describe("StorageCache of blocks, a write during a request", () => {
  it.effect("keeps out what the storage had answered before, whatever asked for it", () =>
    Effect.gen(function*() {
      for (const make of kinds) {
        for (const isCold of [true, false]) {
          for (const [name, run] of [...eachRead, ["last", reads.load]] as const) {
            const answered = yield* Deferred.make<void>()
            const gate = yield* Deferred.make<void>()
            let holds = false
            const { storage } = yield* make({
              hooks: {
                around: (effect, { operation }) =>
                  holds && ["open", "head"].includes(operation)
                    ? Effect.zipLeft(
                      effect,
                      Effect.zipRight(Deferred.succeed(answered, undefined), Deferred.await(gate))
                    )
                    : effect
              }
            })
            if (!isCold) yield* storage.load("k", { range: ByteRange.make(0, 1000) })
            holds = true
            const range = ByteRange.make(0, 3000)
            const fiber = yield* Effect.fork(
              name === "last" ? storage.load("k", { range: ByteRange.last(size) }) : run(storage, range)
            )
            yield* Deferred.await(answered)
            holds = false
            yield* storage.save("k", new Uint8Array(size))
            yield* Deferred.succeed(gate, undefined)
            yield* Effect.exit(Fiber.join(fiber))
            const what = `${name} ${isCold ? "cold" : "warm"}`
            expectBytes(yield* storage.load("k", { range }), new Uint8Array(3000), what)
            expect((yield* storage.head("k")).etag, what).toBe((yield* storage.open("k").pipe(Effect.scoped)).info.etag)
            expectBytes(yield* storage.load("k"), new Uint8Array(size), what)
          }
        }
      }
    }))
})

describe("StorageCache of blocks, the second tier", () => {
  it.effect("serves after a restart what it has, with the metadata, and fetches only the rest", () =>
    Effect.gen(function*() {
      const first = yield* withTier()
      yield* first.storage.load("k", { range: ByteRange.make(0, 4000) })
      const { asked, calls, storage } = yield* withTier({ memory: first.memory, kept: first.kept })
      expect(yield* storage.head("k")).toEqual(yield* first.memory.head("k"))
      expect((yield* storage.head("k")).attributes).toEqual({ contentType: "a/b" })
      expectBytes(yield* storage.load("k", { range: ByteRange.make(5, 3999) }), content.slice(5, 3999))
      expect(asked()).toEqual([])
      expectBytes(yield* storage.load("k"), content)
      expect(calls.map(({ args }) => args[1])).toEqual([
        { range: ByteRange.make(4000, size), ifMatch: (yield* first.memory.head("k")).etag }
      ])
    }))

  it.effect("revalidates after a restart, and serves nothing of another version", () =>
    Effect.gen(function*() {
      const first = yield* withTier({ freshness: "revalidate" })
      yield* first.storage.load("k")
      const second = yield* withTier({ freshness: "revalidate", memory: first.memory, kept: first.kept })
      expectBytes(yield* second.storage.load("k"), content)
      expect(second.asked()).toEqual(["all"])
      yield* first.memory.save("k", new Uint8Array(size))
      const third = yield* withTier({ freshness: "revalidate", memory: first.memory, kept: first.kept })
      const range = ByteRange.make(0, 1500)
      expectBytes(yield* third.storage.load("k", { range }), new Uint8Array(1500))
      expect((yield* third.cache.statistics).tier.blocks).toBe(2)
    }))

  it.effect("fetches a block again whose bytes have changed on disk, and counts it, also before a restart", () =>
    Effect.gen(function*() {
      const kept = yield* MemoryStorage.make()
      const first = yield* withTier({ kept })
      yield* first.storage.load("k")
      const stored = (yield* kept.load("k=3")).byteLength
      for (const position of [0, 500, 999, 1000, 1100, stored - 40, stored - 1]) {
        for (const restarts of [true, false]) {
          // As a disk does it: the etag stays the same.
          let isDamaged = restarts
          const disk = Storage.make({
            ...kept.backend,
            load: (name, options) =>
              Effect.map(kept.backend.load(name, options), (bytes) => {
                if (isDamaged && name === "k=3" && bytes.byteLength === stored) {
                  bytes[position] = (bytes[position] ?? 0) ^ 4
                }
                return bytes
              })
          })
          const { asked, cache, storage } = yield* withTier({ memory: first.memory, kept: disk })
          if (!restarts) yield* storage.load("k")
          isDamaged = true
          for (const [name, run] of eachRead) {
            expectBytes(yield* run(storage, ByteRange.make(0, 3500)), content.slice(0, 3500), `${position} ${name}`)
          }
          expect(asked(), `${position}`).toEqual(["3-4", "3-4", "3-4", "3-4"])
          expect((yield* cache.statistics).failures).toBe(4)
          isDamaged = false
          expectBytes(yield* storage.load("k"), content)
          expect(asked()).toEqual([])
        }
      }
    }))

  it.effect("evicts blocks, the least recently used first, and stays within its capacity", () =>
    Effect.gen(function*() {
      const { asked, cache, kept, storage } = yield* withTier({}, 10_000)
      const first = ByteRange.make(0, 1)
      yield* storage.load("k", { range: first })
      for (let index = 1; index < 10; index++) {
        yield* storage.load("k", { range: ByteRange.make(index * 1000, index * 1000 + 1) })
        yield* storage.load("k", { range: first })
        const stored = yield* Stream.runFold(kept.entries(), 0, (sum, { size }) => sum + size)
        expect(stored).toBeLessThanOrEqual(10_000)
        expect((yield* cache.statistics).tier).toMatchObject({ objects: 1, size: stored })
      }
      expect((yield* cache.statistics).evictions).toBeGreaterThan(0)
      asked()
      yield* storage.load("k", { range: first })
      expect(asked()).toEqual([])
      yield* storage.load("k", { range: ByteRange.make(1000, 1001) })
      expect(asked()).toEqual(["1-2"])
    }))

  it.effect("does without a tier that fails", () =>
    Effect.gen(function*() {
      for (const operation of ["load", "save", "removeAll", "entries"] as const) {
        const kept = yield* StorageChaos.make(yield* MemoryStorage.make(), [{ operation, times: Infinity }])
        const { storage } = yield* withTier({ kept })
        for (let round = 0; round < 3; round++) {
          for (const [name, run] of eachRead) {
            expectBytes(yield* run(storage, ByteRange.from(0)), content, `${operation} ${name}`)
          }
        }
      }
    }))

  it.effect("does not confuse blocks with whole objects, nor with blocks of another size", () =>
    Effect.gen(function*() {
      const { kept, memory, storage } = yield* withTier()
      yield* storage.load("k")
      for (const other of [undefined, 2000, 700, blocks]) {
        const { storage } = yield* withTier({ memory, kept, blocks: other })
        for (const [name, run] of eachRead) {
          for (const range of ranges) expectBytes(yield* run(storage, range), slice(range), name)
        }
        yield* storage.load("k")
      }
      // What is changed through one is never served by another.
      for (const other of [undefined, 2000, blocks]) {
        const { storage } = yield* withTier({ memory, kept, blocks: other })
        yield* storage.load("k")
        const next = pattern(7000 + (other ?? 0))
        yield* storage.save("k", next)
        for (const then of [undefined, 2000, blocks]) {
          expectBytes(yield* (yield* withTier({ memory, kept, blocks: then })).storage.load("k"), next)
        }
      }
    }))

  it.effect("tells keys apart that look like blocks", () =>
    Effect.gen(function*() {
      const { memory, storage, ...made } = yield* withTier()
      const keys = ["a", "a=0", "a=1", "a-", "a=0/b", "a+/b", "a/b", "a=00", "a=0=1"]
      for (const [index, key] of keys.entries()) yield* memory.save(key, pattern(1500 + index))
      for (const key of keys) yield* storage.load(key)
      const again = yield* withTier({ memory, kept: made.kept })
      for (const [index, key] of keys.entries()) expectBytes(yield* again.storage.load(key), pattern(1500 + index), key)
      expect(again.asked()).toEqual([])
    }))
})

describe("StorageCache of blocks, tensors", () => {
  it.effect("loads a tensor a hundred times with one fetch of the header and its blocks, also after a restart", () =>
    Effect.gen(function*() {
      const memory = yield* MemoryStorage.make()
      const tensor = (name: string, length: number) => ({
        name,
        dtype: "U8" as const,
        shape: [length],
        data: pattern(length)
      })
      yield* Safetensors.save("model", [tensor("a", 300 * KiB), tensor("b", 500 * KiB), tensor("c", 100 * KiB)]).pipe(
        Effect.provideService(Storage.Storage, memory)
      )
      const kept = yield* MemoryStorage.make()
      for (const requests of [2, 0]) {
        for (const capacity of [MiB, 1]) {
          const calls: Array<Call> = []
          const storage = yield* StorageCache.make(noting(memory, calls), {
            capacity,
            freshness: "immutable",
            blocks: 64 * KiB,
            tier: { storage: requests === 0 || capacity === 1 ? kept : yield* MemoryStorage.make(), capacity: 64 * MiB }
          })
          yield* Effect.gen(function*() {
            for (let time = 0; time < 100; time++) {
              const file = yield* Safetensors.open("model")
              const { bytes } = yield* file.load("b")
              if (time % 33 === 0) expectBytes(bytes, pattern(500 * KiB))
            }
          }).pipe(Effect.provideService(Storage.Storage, storage))
          // The header, and the rest of the blocks of the tensor.
          expect(calls.length).toBe(requests)
        }
      }
    }))
})
