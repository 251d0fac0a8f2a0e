/**
 * How much is asked of a limited storage at once, and when. Where time matters it is virtual; where only order does, what
 * is slow takes some turns of the scheduler.
 */
import { describe, expect, it } from "@effect/vitest"
import type { Scope } from "effect"
import { Chunk, Clock, Deferred, Effect, Exit, Fiber, Layer, Stream, TestClock, TestContext } from "effect"
import type { StorageError } from "surfing-weights"
import { MemoryStorage, Storage, StorageChaos, StorageLimit } from "surfing-weights"
import * as StorageContract from "surfing-weights/StorageContract"
import { type Call, filled, type Hooks, intercepting, noting, operations, pattern } from "../support/intercepting.js"

const turns = (count: number) => Effect.repeatN(Effect.yieldNow(), count)

/** A limited storage over one under these hooks, over a memory in which there is something. */
const setup = (options: StorageLimit.Options, hooks: Hooks = {}) =>
  Effect.flatMap(filled(), (memory) => StorageLimit.make(intercepting(memory, hooks), options))

/** How many operations are under way at once when each takes some turns. */
const makeGauge = () => {
  let now = 0
  let most = 0
  const enter = Effect.sync(() => {
    most = Math.max(most, ++now)
  })
  const leave = Effect.sync(() => void now--)
  const hooks: Hooks = {
    around: (effect) => Effect.acquireUseRelease(enter, () => Effect.zipRight(turns(5), effect), () => leave),
    // Not by a scope: that of a stream which is interrupted is closed after what the streams around it ensure.
    through: (stream) =>
      Stream.suspend(() => {
        let entered = false
        const entering = Effect.tap(enter, () => {
          entered = true
        })
        return Stream.execute(Effect.zipRight(entering, turns(5))).pipe(
          Stream.concat(stream),
          Stream.ensuring(Effect.suspend(() => entered ? leave : Effect.void))
        )
      })
  }
  return { hooks, most: () => most, now: () => now }
}

/** Whether there is a place left: an operation comes to its end before long. */
const hasRoom = (storage: Storage.Service) =>
  Effect.raceFirst(Effect.as(storage.exists("k"), true), Effect.as(turns(50), false))

/** Fails where more than one operation is under way at once, as if a place were given back twice. */
const expectOnePlace = (storage: Storage.Service, gauge: ReturnType<typeof makeGauge>) =>
  Effect.gen(function*() {
    expect(yield* hasRoom(storage)).toBe(true)
    yield* Effect.forEach([1, 2, 3], () => storage.exists("k"), { concurrency: "unbounded" })
    expect(gauge.most()).toBe(1)
    expect(gauge.now()).toBe(0)
  })

describe("StorageLimit", () => {
  it.effect("shows itself in the name and can what the storage can", () =>
    Effect.gen(function*() {
      const memory = yield* MemoryStorage.make()
      const { backend } = yield* StorageLimit.make(memory, { concurrency: 3 })
      expect(backend.name).toBe("Limit(Memory)")
      expect(backend.capabilities).toEqual(memory.backend.capabilities)
    }))

  it.effect("hands every operation on as it is, and gives what the storage gives", () =>
    Effect.forEach(operations, ([operation, run]) =>
      Effect.gen(function*() {
        const expected: Array<Call> = []
        const result = yield* run(noting(yield* filled(), expected))
        for (
          const options of [{ concurrency: 1 }, {
            concurrency: 9,
            requestsPerSecond: Infinity,
            bytesPerSecond: Infinity
          }]
        ) {
          const calls: Array<Call> = []
          const storage = yield* StorageLimit.make(noting(yield* filled(), calls), options)
          expect(yield* run(storage), operation).toEqual(result)
          expect(calls, operation).toEqual(expected)
        }
      })))

  it.effect("passes failures on as they are", () =>
    Effect.forEach(operations, ([operation, run]) =>
      Effect.gen(function*() {
        const chaos = yield* StorageChaos.make(noting(yield* filled(), []), [{ operation, times: 2 }])
        const storage = yield* StorageLimit.make(chaos, {
          concurrency: 1,
          requestsPerSecond: Infinity,
          bytesPerSecond: Infinity
        })
        expect(yield* Effect.flip(run(storage)), operation).toEqual(yield* Effect.flip(run(chaos)))
        yield* run(storage)
      })))

  it.effect("refuses limits that are none when it is built", () =>
    Effect.gen(function*() {
      const memory = yield* MemoryStorage.make()
      const bad: ReadonlyArray<readonly [string, StorageLimit.Options]> = [
        ...[0, -1, 1.5, 0.5, NaN, Infinity, -Infinity].map((concurrency) => ["concurrency", { concurrency }] as const),
        ...[0, -1, NaN, -Infinity].flatMap((limit) => [
          ["requestsPerSecond", { concurrency: 1, requestsPerSecond: limit }] as const,
          ["bytesPerSecond", { concurrency: 1, bytesPerSecond: limit }] as const
        ])
      ]
      for (const [option, options] of bad) {
        const error = yield* Effect.flip(StorageLimit.make(memory, options))
        expect(error).toMatchObject({ _tag: "UnsupportedOperation", backend: "Limit(Memory)", operation: "open" })
        expect(error.message).toContain(option)
        expect(error.message).toMatch(/not (-?\d|NaN|-?Infinity)/)
        const layer = StorageLimit.layer(options).pipe(Layer.provide(MemoryStorage.layer()))
        expect(yield* Effect.flip(Effect.provide(Effect.void, layer))).toEqual(error)
      }
    }))

  it.effect("has the same limits for all that use its layer", () =>
    Effect.gen(function*() {
      const gauge = makeGauge()
      const inner = Layer.effect(
        Storage.Storage,
        Effect.map(MemoryStorage.make(), (memory) => intercepting(memory, gauge.hooks))
      )
      const user = Effect.flatMap(Storage.Storage, (storage) => {
        expect(storage.backend.name).toBe("Limit(Memory)")
        return storage.exists("k")
      })
      yield* Effect.all([user, user, user, user, user], { concurrency: "unbounded" }).pipe(
        Effect.provide(StorageLimit.layer({ concurrency: 2 }).pipe(Layer.provide(inner)))
      )
      expect(gauge.most()).toBe(2)
    }))
})

describe("StorageLimit, concurrency", () => {
  it.effect("asks for so many operations of all kinds at once, and for no more", () =>
    Effect.forEach([1, 2, 7, 1000], (concurrency) =>
      Effect.gen(function*() {
        const gauge = makeGauge()
        const storage = yield* setup({ concurrency }, gauge.hooks)
        const runs = Array.from({ length: 4 }).flatMap(() => operations)
        // What one removes the other does not find; that too takes its time.
        const exits = yield* Effect.forEach(runs, ([, run]) => Effect.exit(run(storage)), { concurrency: "unbounded" })
        expect(exits.filter(Exit.isSuccess).length).toBeGreaterThan(runs.length / 2)
        expect(gauge.most()).toBe(Math.min(concurrency, runs.length))
        expect(gauge.now()).toBe(0)
      })))

  it.effect("lets each operation have its place until it ends, and then no longer", () =>
    Effect.forEach(operations, ([operation, run]) =>
      Effect.gen(function*() {
        const begun = yield* Deferred.make<void>()
        const gate = yield* Deferred.make<void>()
        const held = Effect.zipRight(Deferred.succeed(begun, undefined), Deferred.await(gate))
        const storage = yield* setup({ concurrency: 1 }, {
          around: (effect, call) => call.operation === operation ? Effect.zipRight(held, effect) : effect
        })
        const fiber = yield* Effect.fork(run(storage))
        yield* Deferred.await(begun)
        expect(yield* hasRoom(storage), operation).toBe(false)
        yield* Deferred.succeed(gate, undefined)
        yield* Fiber.join(fiber)
        expect(yield* hasRoom(storage), operation).toBe(true)
      })))

  it.effect("frees the place of an operation that fails, dies or is interrupted", () =>
    Effect.forEach(operations, ([operation, run]) =>
      Effect.gen(function*() {
        const fates = [Effect.die("defect"), Effect.interrupt, Effect.never]
        for (const fate of fates) {
          const storage = yield* setup({ concurrency: 1 }, {
            around: (effect, call) => call.operation === operation ? Effect.zipRight(fate, effect) : effect
          })
          const fiber = yield* Effect.fork(run(storage))
          yield* turns(20)
          expect(Exit.isSuccess(yield* Fiber.interrupt(fiber)), operation).toBe(false)
          if (operation !== "head") expect(yield* hasRoom(storage), operation).toBe(true)
        }
      })))

  it.effect("serves who came first, also before one that asks just when a place is free", () =>
    Effect.gen(function*() {
      const begun: Array<unknown> = []
      const storage = yield* setup({ concurrency: 1 }, {
        around: (effect, call) =>
          Effect.suspend(() => {
            begun.push(call.args[0])
            return Effect.zipRight(turns(5), effect)
          })
      })
      const client = (name: string) =>
        Effect.forEach([0, 1, 2], (round) => storage.exists(`${name}${round}`), { discard: true })
      yield* Effect.all([client("a"), client("b"), client("c")], { concurrency: "unbounded" })
      expect(begun).toEqual(["a0", "b0", "c0", "a1", "b1", "c1", "a2", "b2", "c2"])
    }))

  it.effect("serves in one line whatever is asked for", () =>
    Effect.gen(function*() {
      const begun: Array<string> = []
      const gate = yield* Deferred.make<void>()
      const storage = yield* setup({ concurrency: 1 }, {
        around: (effect, call) =>
          Effect.suspend(() => {
            begun.push(call.operation)
            return Effect.zipRight(Deferred.await(gate), effect)
          })
      })
      const fibers = yield* Effect.forEach(operations, ([, run]) =>
        // What is a stream takes some turns before it asks.
        Effect.zipLeft(Effect.fork(Effect.exit(run(storage))), turns(20)))
      expect(begun.length).toBe(1)
      yield* Deferred.succeed(gate, undefined)
      yield* Fiber.joinAll(fibers)
      expect(begun).toEqual(operations.map(([operation]) => operation))
    }))

  it.effect("forgets who is interrupted while waiting, and serves the next", () =>
    Effect.gen(function*() {
      const begun: Array<unknown> = []
      const gate = yield* Deferred.make<void>()
      const storage = yield* setup({ concurrency: 1 }, {
        around: (effect, call) =>
          Effect.suspend(() => {
            begun.push(call.args[0])
            return Effect.zipRight(Deferred.await(gate), effect)
          })
      })
      const fibers = yield* Effect.forEach(["a", "b", "c", "d"], (key) => Effect.fork(storage.exists(key)))
      yield* turns(20)
      for (const fiber of [fibers[1], fibers[3]]) if (fiber !== undefined) yield* Fiber.interrupt(fiber)
      yield* Deferred.succeed(gate, undefined)
      for (const fiber of [fibers[0], fibers[2]]) if (fiber !== undefined) yield* Fiber.join(fiber)
      expect(begun).toEqual(["a", "c"])
      expect(yield* hasRoom(storage)).toBe(true)
    }))

  it.effect("loses no place where a wait is interrupted, at whatever moment", () =>
    Effect.forEach(
      operations.filter(([operation]) => operation !== "head"),
      ([operation, run]) =>
        Effect.gen(function*() {
          const gauge = makeGauge()
          let gate = yield* Deferred.make<void>()
          const storage = yield* setup({ concurrency: 1, requestsPerSecond: Infinity, bytesPerSecond: Infinity }, {
            around: (effect, call) => {
              const held = gauge.hooks.around?.(effect, call) ?? effect
              return call.operation === "head" && call.args[0] === "held"
                ? Effect.zipRight(Deferred.await(gate), held)
                : held
            },
            through: (stream, call) => gauge.hooks.through?.(stream, call) ?? stream
          })
          for (let moment = 0; moment < 100; moment++) {
            gate = yield* Deferred.make<void>()
            const holder = yield* Effect.fork(storage.exists("held"))
            yield* turns(5)
            // An interruption is noticed where a fiber yields: here that is every few steps, and not always the same ones.
            const waiter = yield* Effect.fork(Effect.withMaxOpsBeforeYield(run(storage), 24 + moment % 9))
            yield* turns(moment % 2 === 0 ? 60 : moment)
            yield* Deferred.succeed(gate, undefined)
            yield* turns(moment)
            yield* Fiber.interrupt(waiter)
            yield* Fiber.join(holder)
            expect(yield* hasRoom(storage), `${operation}, interrupted at moment ${moment}`).toBe(true)
          }
          yield* expectOnePlace(storage, gauge)
        }),
      { discard: true }
    ))
})

describe("StorageLimit, streams and listings", () => {
  const MiB = 1024 * 1024

  /** With one place, and an object that comes in three pieces. */
  const single = (hooks: Hooks = {}) =>
    Effect.gen(function*() {
      const gauge = makeGauge()
      const memory = yield* filled()
      yield* memory.save("large", pattern(3 * MiB))
      const chaos = yield* StorageChaos.make(intercepting(memory, hooks), [
        { operation: "open", key: "breaks", afterBytes: MiB + 1 }
      ])
      yield* memory.copy("large", "breaks")
      const storage = yield* StorageLimit.make(intercepting(chaos, gauge.hooks), { concurrency: 1 })
      return { gauge, storage }
    })

  it.effect("has a place from when it is opened until its end", () =>
    Effect.gen(function*() {
      const { gauge, storage } = yield* single()
      const room: Array<boolean> = []
      const reading = Stream.runForEach(
        storage.stream("large"),
        () => Effect.map(hasRoom(storage), (has) => void room.push(has))
      )
      expect(yield* hasRoom(storage)).toBe(true)
      yield* reading
      expect(room).toEqual([false, false, false])
      yield* expectOnePlace(storage, gauge)
    }))

  it.scoped("frees its place at the end, though the scope in which it was opened goes on", () =>
    Effect.gen(function*() {
      const { gauge, storage } = yield* single()
      const { info, stream } = yield* storage.open("large")
      expect(info.size).toBe(3 * MiB)
      expect(yield* hasRoom(storage)).toBe(false)
      yield* Stream.runDrain(stream)
      expect(yield* hasRoom(storage)).toBe(true)
      yield* expectOnePlace(storage, gauge)
    }))

  it.effect("frees its place once, be it read to its end and closed then", () =>
    Effect.gen(function*() {
      const { gauge, storage } = yield* single()
      yield* Effect.scoped(Effect.flatMap(storage.open("large"), ({ stream }) => Stream.runDrain(stream)))
      yield* Effect.scoped(Effect.flatMap(storage.open("large"), ({ stream }) => Stream.runHead(stream)))
      yield* expectOnePlace(storage, gauge)
    }))

  it.effect("has its place until its scope ends where nobody reads it", () =>
    Effect.gen(function*() {
      const { gauge, storage } = yield* single()
      yield* Effect.scoped(Effect.zipRight(
        storage.open("large"),
        Effect.map(hasRoom(storage), (room) => expect(room).toBe(false))
      ))
      yield* expectOnePlace(storage, gauge)
    }))

  /** How the reader of a stream or listing may end before it does. */
  const ends: ReadonlyArray<
    readonly [string, <A, E>(stream: Stream.Stream<A, E>) => Effect.Effect<unknown, unknown>]
  > = [
    ["taken from and left", (stream) => Stream.runDrain(Stream.take(stream, 1))],
    ["not even taken from", (stream) => Stream.runDrain(Stream.take(stream, 0))],
    ["read by one who fails", (stream) => Stream.runForEach(stream, () => Effect.fail("enough"))],
    ["read by one who dies", (stream) => Stream.runForEach(stream, () => Effect.die("enough"))],
    [
      "read by one who is interrupted",
      (stream) =>
        Effect.gen(function*() {
          const fiber = yield* Effect.fork(Stream.runForEach(stream, () => Effect.never))
          yield* turns(30)
          yield* Fiber.interrupt(fiber)
        })
    ],
    [
      "waited for by one who is interrupted",
      (stream) =>
        Effect.gen(function*() {
          const fiber = yield* Effect.fork(Stream.runDrain(stream))
          yield* turns(8)
          yield* Fiber.interrupt(fiber)
        })
    ]
  ]

  it.effect("frees its place however its reader ends", () =>
    Effect.forEach(ends, ([how, end]) =>
      Effect.gen(function*() {
        const { gauge, storage } = yield* single()
        const streams: ReadonlyArray<Stream.Stream<unknown, StorageError.StorageError>> = [
          storage.stream("large"),
          Stream.unwrapScoped(Effect.map(storage.open("large"), ({ stream }) => stream)),
          storage.entries(),
          storage.backend.keys({})
        ]
        for (const [index, stream] of streams.entries()) {
          yield* Effect.exit(end(stream))
          expect(yield* hasRoom(storage), `${how}: ${index}`).toBe(true)
        }
        yield* expectOnePlace(storage, gauge)
      })))

  it.scoped("frees its place when it breaks", () =>
    Effect.gen(function*() {
      const { gauge, storage } = yield* single()
      const { stream } = yield* storage.open("breaks")
      expect((yield* Effect.flip(Stream.runDrain(stream)))._tag).toBe("StorageUnavailable")
      yield* expectOnePlace(storage, gauge)
    }))

  it.scoped("frees its place when it cannot be opened, though the scope goes on", () =>
    Effect.gen(function*() {
      const { gauge, storage } = yield* single()
      expect((yield* Effect.flip(storage.open("missing")))._tag).toBe("ObjectNotFound")
      yield* expectOnePlace(storage, gauge)
      expect((yield* Effect.flip(Stream.runDrain(storage.stream("missing"))))._tag).toBe("ObjectNotFound")
      yield* expectOnePlace(storage, gauge)
    }))

  it.scoped("frees its place when its opening is interrupted, though the scope goes on", () =>
    Effect.gen(function*() {
      const { gauge, storage } = yield* single({
        around: (effect, call) => call.operation === "open" ? Effect.never : effect
      })
      const opening: Effect.Effect<unknown, unknown, Scope.Scope> = storage.open("large")
      const first = yield* Effect.fork(opening)
      const second = yield* Effect.fork(opening)
      yield* turns(20)
      expect(yield* hasRoom(storage)).toBe(false)
      // The one waits for the storage, the other for a place.
      yield* Fiber.interrupt(second)
      yield* Fiber.interrupt(first)
      yield* expectOnePlace(storage, gauge)
    }))

  it.effect("has a place for a listing from its first page to its last", () =>
    Effect.gen(function*() {
      const { gauge, storage } = yield* single()
      const listings: ReadonlyArray<Stream.Stream<unknown, StorageError.StorageError>> = [
        storage.entries({ prefix: "k" }),
        storage.backend.keys({ prefix: "k" })
      ]
      for (const listing of listings) {
        const room: Array<boolean> = []
        yield* Stream.runForEach(listing, () => Effect.map(hasRoom(storage), (has) => void room.push(has)))
        expect(room).toEqual([false, false, false])
        expect(yield* hasRoom(storage)).toBe(true)
      }
      expect(yield* storage.list("k")).toEqual(["k", "k/a", "k/b"])
      yield* expectOnePlace(storage, gauge)
    }))

  it.effect("takes a new place each time that it is run", () =>
    Effect.gen(function*() {
      const { gauge, storage } = yield* single()
      const stream = storage.stream("large")
      yield* Effect.all([Stream.runDrain(stream), Stream.runDrain(stream), Stream.runDrain(storage.entries())], {
        concurrency: "unbounded"
      })
      yield* expectOnePlace(storage, gauge)
    }))
})

describe("StorageLimit, saves of what is read from the same storage", () => {
  const sources: ReadonlyArray<
    readonly [string, (storage: Storage.Service) => Stream.Stream<Uint8Array, StorageError.StorageError>]
  > = [
    ["a stream", (storage) => storage.stream("k")],
    ["streams in turn", (storage) => Stream.concat(storage.stream("k"), storage.stream("k/a"))],
    ["a buffered stream", (storage) => Stream.buffer(storage.stream("k"), { capacity: 2 })],
    ["loads", (storage) => Stream.mapEffect(Stream.make("k", "k/a"), (key) => storage.load(key))],
    [
      "what is listed, at once",
      (storage) =>
        Stream.flatMap(storage.entries({ prefix: "k" }), ({ key }) => storage.stream(key), { concurrency: 3 })
    ],
    [
      "what was saved on the way",
      (storage) => Stream.fromEffect(Effect.zipRight(storage.save("way", storage.stream("k")), storage.load("way")))
    ]
  ]

  it.effect("need no second place", () =>
    Effect.forEach(sources, ([what, source]) =>
      Effect.gen(function*() {
        const storage = yield* setup({ concurrency: 1 })
        const outer = yield* StorageLimit.make(storage, { concurrency: 1 })
        for (const limited of [storage, outer]) {
          const saving = Effect.as(limited.save("new", source(limited)), true)
          expect(yield* Effect.raceFirst(saving, Effect.as(turns(2000), false)), what).toBe(true)
          expect((yield* limited.load("new")).slice(0, 10), what).toEqual(pattern(10))
          expect(yield* hasRoom(limited), what).toBe(true)
        }
      })))

  it.effect("have a place as any other, which those beside them wait for", () =>
    Effect.gen(function*() {
      const storage = yield* setup({ concurrency: 1 })
      const gate = yield* Deferred.make<void>()
      const source = Stream.concat(storage.stream("k"), Stream.execute(Deferred.await(gate)))
      const fiber = yield* Effect.fork(storage.save("new", source))
      yield* turns(50)
      expect(yield* hasRoom(storage)).toBe(false)
      yield* Deferred.succeed(gate, undefined)
      yield* Fiber.join(fiber)
      expect(yield* hasRoom(storage)).toBe(true)
    }))

  it.effect("give who saved no place for what comes after", () =>
    Effect.gen(function*() {
      const gauge = makeGauge()
      const storage = yield* setup({ concurrency: 1 }, gauge.hooks)
      const client = (key: string) =>
        Effect.zipRight(storage.save(key, Stream.make(pattern(3))), Effect.repeatN(storage.exists(key), 3))
      yield* Effect.all([client("a"), client("b"), client("c")], { concurrency: "unbounded" })
      yield* expectOnePlace(storage, gauge)
    }))

  it.effect("free the place where they fail, their source fails, or they are interrupted", () =>
    Effect.gen(function*() {
      const gauge = makeGauge()
      const chaos = yield* StorageChaos.make(yield* filled(), [{ operation: "save", afterBytes: 5 }])
      const storage = yield* StorageLimit.make(intercepting(chaos, gauge.hooks), { concurrency: 1 })
      const source = Stream.make(pattern(10))
      expect((yield* Effect.flip(storage.save("new", source)))._tag).toBe("StorageUnavailable")
      expect(yield* Effect.flip(storage.save("new", Stream.fail("mine")))).toBe("mine")
      const fiber = yield* Effect.fork(storage.save("new", Stream.never))
      yield* turns(50)
      yield* Fiber.interrupt(fiber)
      yield* expectOnePlace(storage, gauge)
    }))
})

/** When each operation began, in milliseconds. */
const timing = (begun: Array<number>): Hooks => ({
  around: (effect) =>
    Effect.flatMap(Clock.currentTimeMillis, (now) => {
      begun.push(now)
      return effect
    })
})

describe("StorageLimit, requestsPerSecond", () => {
  it.effect("lets operations of all kinds begin evenly spaced", () =>
    Effect.forEach([0.5, 2, 8], (requestsPerSecond) =>
      Effect.gen(function*() {
        const begun: Array<number> = []
        const storage = yield* setup({ concurrency: 100, requestsPerSecond }, timing(begun))
        const started = yield* Clock.currentTimeMillis
        const fiber = yield* Effect.fork(
          Effect.forEach(operations, ([, run]) => Effect.exit(run(storage)), { concurrency: "unbounded" })
        )
        yield* TestClock.adjust("1 minute")
        yield* Fiber.join(fiber)
        expect(begun.map((time) => time - started)).toEqual(operations.map((_, i) => i * 1000 / requestsPerSecond))
      })))

  it.effect("does not save up what was not asked for", () =>
    Effect.gen(function*() {
      const begun: Array<number> = []
      const storage = yield* setup({ concurrency: 100, requestsPerSecond: 2 }, timing(begun))
      yield* storage.exists("k")
      yield* TestClock.adjust("10 seconds")
      const fiber = yield* Effect.fork(
        Effect.forEach([1, 2, 3], () => storage.exists("k"), { concurrency: "unbounded" })
      )
      yield* TestClock.adjust("1 second")
      yield* Fiber.join(fiber)
      yield* TestClock.adjust("200 millis")
      const last = yield* Effect.fork(storage.exists("k"))
      yield* TestClock.adjust("1 second")
      yield* Fiber.join(last)
      expect(begun).toEqual([0, 10_000, 10_500, 11_000, 11_500])
    }))

  it.effect("counts what a save reads on its way, and has no more places for that than there are", () =>
    Effect.gen(function*() {
      const begun: Array<number> = []
      const storage = yield* setup({ concurrency: 1, requestsPerSecond: 2 }, timing(begun))
      const fiber = yield* Effect.fork(
        Effect.all([storage.save("new", storage.stream("k")), storage.exists("k")], { concurrency: "unbounded" })
      )
      yield* TestClock.adjust("2 seconds")
      yield* Fiber.join(fiber)
      expect(begun).toEqual([0, 500, 1000])
    }))

  it.effect("takes no time for who goes away before their turn", () =>
    Effect.gen(function*() {
      const begun: Array<number> = []
      const storage = yield* setup({ concurrency: 100, requestsPerSecond: 1 }, timing(begun))
      yield* storage.exists("k")
      const impatient = yield* Effect.forEach(Array.from({ length: 20 }), () => Effect.fork(storage.exists("k")))
      const opening = yield* Effect.fork(Effect.scoped(storage.open("k")))
      const patient = yield* Effect.fork(storage.exists("k"))
      yield* TestClock.adjust("300 millis")
      yield* Fiber.interruptAll([...impatient, opening])
      yield* TestClock.adjust("10 seconds")
      yield* Fiber.join(patient)
      expect(begun).toEqual([0, 1000])
    }))

  it.effect("serves as many as it may, though each goes away after a while and comes again", () =>
    Effect.gen(function*() {
      const begun: Array<number> = []
      const storage = yield* setup({ concurrency: 8, requestsPerSecond: 1 }, timing(begun))
      const client = Effect.forever(Effect.timeoutOption(storage.exists("k"), "2500 millis"))
      yield* Effect.forEach(Array.from({ length: 8 }), () => Effect.fork(client))
      yield* TestClock.adjust("20 seconds")
      expect(begun).toEqual(Array.from({ length: 21 }, (_, second) => second * 1000))
    }))

  it.effect("is no limit at Infinity", () =>
    Effect.gen(function*() {
      const begun: Array<number> = []
      const storage = yield* setup(
        { concurrency: 100, requestsPerSecond: Infinity, bytesPerSecond: Infinity },
        timing(begun)
      )
      yield* Effect.forEach(operations, ([, run]) => Effect.exit(run(storage)))
      expect(begun).toEqual(operations.map(() => 0))
    }))
})

describe("StorageLimit, bytesPerSecond", () => {
  /** When an effect ends, in milliseconds, where nothing else lets time pass. */
  const timeOf = <A, E>(effect: Effect.Effect<A, E>) =>
    Effect.gen(function*() {
      const fiber = yield* Effect.fork(Effect.zipRight(effect, Clock.currentTimeMillis))
      yield* TestClock.adjust("1 hour")
      return yield* Fiber.join(fiber)
    })

  /** How many bytes were counted, at one a second: who moves none waits for so many seconds. */
  const counted = (storage: Storage.Service) =>
    Effect.gen(function*() {
      const before = yield* Clock.currentTimeMillis
      return ((yield* timeOf(storage.save("empty", new Uint8Array(0)))) - before) / 1000
    })

  it.effect("counts what is loaded and saved, and nothing else", () =>
    Effect.forEach(operations, ([operation, run]) =>
      Effect.gen(function*() {
        const storage = yield* setup({ concurrency: 1, bytesPerSecond: 1 })
        const moved: Readonly<Record<string, number>> = { open: 7, load: 4, loadRanges: 3, save: 5 }
        // Who comes first does not wait.
        yield* run(storage)
        expect(yield* Clock.currentTimeMillis).toBe(0)
        expect(yield* counted(storage), operation).toBe(moved[operation] ?? 0)
      }).pipe(Effect.provide(TestContext.TestContext))))

  it.effect("makes those behind wait for what was moved before them", () =>
    Effect.gen(function*() {
      const storage = yield* setup({ concurrency: 9, bytesPerSecond: 4 })
      const ended: Array<readonly [string, number]> = []
      const note = <A, E>(name: string, effect: Effect.Effect<A, E>) =>
        Effect.zipRight(effect, Effect.map(Clock.currentTimeMillis, (now) => void ended.push([name, now])))
      const fiber = yield* Effect.fork(Effect.all([
        note("load", storage.load("k")),
        note("save", storage.save("new", pattern(2))),
        note("head", storage.head("k")),
        note("again", storage.load("k"))
      ], { concurrency: "unbounded" }))
      yield* TestClock.adjust("1 minute")
      yield* Fiber.join(fiber)
      expect(ended).toEqual([["load", 0], ["head", 0], ["save", 2500], ["again", 3000]])
      yield* TestClock.adjust("1 hour")
      // Time in which nothing was moved is not saved up.
      const now = yield* Clock.currentTimeMillis
      expect(yield* timeOf(Effect.zipRight(storage.load("k"), storage.load("k")))).toBe(now + 2500)
    }))

  it.effect("spreads a stream out in time, piece by piece", () =>
    Effect.gen(function*() {
      const MiB = 1024 * 1024
      const memory = yield* MemoryStorage.make()
      yield* memory.save("large", pattern(3 * MiB + 5))
      const storage = yield* StorageLimit.make(memory, { concurrency: 1, bytesPerSecond: MiB })
      const times: Array<number> = []
      const fiber = yield* Effect.fork(
        Stream.runForEach(storage.stream("large"), () =>
          Effect.map(Clock.currentTimeMillis, (now) => void times.push(now)))
      )
      yield* TestClock.adjust("1 minute")
      yield* Fiber.join(fiber)
      expect(times).toEqual([0, 1000, 2000, 3000])
    }))

  it.effect("takes of a source that is saved no more than may go", () =>
    Effect.gen(function*() {
      const memory = yield* MemoryStorage.make()
      const storage = yield* StorageLimit.make(memory, { concurrency: 1, bytesPerSecond: 2 })
      const times: Array<number> = []
      const source = Stream.fromIterable([3, 0, 4, 1]).pipe(
        Stream.rechunk(1),
        Stream.mapEffect((size) =>
          Effect.map(Clock.currentTimeMillis, (now) => {
            times.push(now)
            return pattern(size)
          })
        )
      )
      expect(yield* timeOf(storage.save("new", source))).toBe(3500)
      expect(times).toEqual([0, 0, 1500, 1500])
      expect(yield* memory.load("new")).toEqual(Uint8Array.from([3, 4, 1].flatMap((size) => [...pattern(size)])))
    }))

  it.effect("counts what is gathered in one chunk of a stream together", () =>
    Effect.gen(function*() {
      const storage = yield* setup({ concurrency: 1, bytesPerSecond: 1 })
      yield* storage.save("new", Stream.fromChunk(Chunk.make(pattern(3), pattern(4))))
      expect(yield* counted(storage)).toBe(7)
    }))

  it.effect("does not count what did not come, and counts what came though nobody waits for it any more", () =>
    Effect.gen(function*() {
      const storage = yield* setup({ concurrency: 9, bytesPerSecond: 1 })
      yield* Effect.flip(storage.load("missing"))
      expect(yield* counted(storage)).toBe(0)
      yield* storage.load("k")
      const fiber = yield* Effect.fork(storage.load("k"))
      yield* TestClock.adjust("3 seconds")
      yield* Fiber.interrupt(fiber)
      expect(yield* counted(storage)).toBe(17)
    }))
})

StorageContract.suite("StorageLimit(Memory)", {
  layer: StorageLimit.layer({ concurrency: 4, requestsPerSecond: Infinity, bytesPerSecond: Infinity }).pipe(
    Layer.provide(MemoryStorage.layer())
  )
})
