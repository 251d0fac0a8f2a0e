/**
 * How many operations a limited storage runs at once, and when. Time is that of a test clock; where only the order matters,
 * slow operations yield to the scheduler a few times.
 */
import { describe, expect, it } from "@effect/vitest"
import type { Scope } from "effect"
import {
  Chunk,
  Clock,
  Config,
  ConfigProvider,
  Deferred,
  Effect,
  Exit,
  Fiber,
  Layer,
  Stream,
  TestClock,
  TestContext
} from "effect"
import type { StorageError } from "surfing-weights"
import { MemoryStorage, Storage, StorageChaos, StorageLimit } from "surfing-weights"
import * as StorageContract from "surfing-weights/StorageContract"
import { type Call, filled, type Hooks, intercepting, noting, operations, pattern } from "../support/intercepting.js"

const turns = (count: number) => Effect.repeatN(Effect.yieldNow(), count)

/** A limited storage over one under these hooks, over a memory storage with some objects. */
const setup = (options: StorageLimit.Options, hooks: Hooks = {}) =>
  Effect.flatMap(filled(), (memory) => StorageLimit.make(intercepting(memory, hooks), options))

/** How many operations run at once when each yields a few times. */
const makeGauge = () => {
  let now = 0
  let most = 0
  const enter = () => {
    most = Math.max(most, ++now)
  }
  const leave = () => {
    now--
  }
  const hooks: Hooks = {
    around: (effect) =>
      Effect.acquireUseRelease(Effect.sync(enter), () => Effect.zipRight(turns(5), effect), () => Effect.sync(leave)),
    // Not by a scope, which would be closed after the finalizers of the streams around it.
    through: (stream) =>
      Stream.suspend(() => {
        let entered = false
        const entering = Effect.sync(() => {
          enter()
          entered = true
        })
        return Stream.execute(Effect.zipRight(entering, turns(5))).pipe(
          Stream.concat(stream),
          Stream.ensuring(Effect.sync(() => entered && leave()))
        )
      })
  }
  return { hooks, most: () => most, now: () => now }
}

/** Whether a permit is free: an operation ends soon. */
const hasPermit = (storage: Storage.Service) =>
  Effect.raceFirst(Effect.as(storage.exists("k"), true), Effect.as(turns(50), false))

/** Fails where more than one operation runs at once, as if a permit had been released twice. */
const expectOnePermit = (storage: Storage.Service, gauge: ReturnType<typeof makeGauge>) =>
  Effect.gen(function*() {
    expect(yield* hasPermit(storage)).toBe(true)
    yield* Effect.forEach([1, 2, 3], () => storage.exists("k"), { concurrency: "unbounded" })
    expect(gauge.most()).toBe(1)
    expect(gauge.now()).toBe(0)
  })

describe("StorageLimit", () => {
  it.effect("names itself around the inner storage, and has its capabilities", () =>
    Effect.gen(function*() {
      const memory = yield* MemoryStorage.make()
      const { backend } = yield* StorageLimit.make(memory, { concurrency: 3 })
      expect(backend.name).toBe("Limit(Memory)")
      expect(backend.capabilities).toEqual(memory.backend.capabilities)
    }))

  it.effect("passes every operation through unchanged, and returns what the storage returns", () =>
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

  it.effect("passes failures through", () =>
    Effect.forEach(operations, ([operation, run]) =>
      Effect.gen(function*() {
        const chaos = yield* StorageChaos.make(noting(yield* filled(), []), [{ operation }])
        const storage = yield* StorageLimit.make(chaos, {
          concurrency: 1,
          requestsPerSecond: Infinity,
          bytesPerSecond: Infinity
        })
        expect(yield* Effect.flip(run(storage)), operation).toMatchObject({
          _tag: "StorageUnavailable",
          backend: "Limit(Chaos(Memory))",
          reason: "injected"
        })
        yield* run(storage)
      })))

  it.effect("fails with InvalidOptions on limits out of bounds", () =>
    Effect.gen(function*() {
      const memory = yield* MemoryStorage.make()
      const bad: ReadonlyArray<readonly [string, StorageLimit.Options]> = [
        ...[0, -1, 1.5, 0.5, NaN, Infinity, -Infinity].map((concurrency) => ["concurrency", { concurrency }] as const),
        ...[0, -1, NaN, -Infinity].flatMap((limit) => [
          ["requestsPerSecond", { concurrency: 1, requestsPerSecond: limit }] as const,
          ["bytesPerSecond", { concurrency: 1, bytesPerSecond: limit }] as const
        ]),
        ["concurrency", {} as StorageLimit.Options],
        ["requests", { concurrency: 1, requests: 1 } as StorageLimit.Options]
      ]
      for (const [option, options] of bad) {
        const error = yield* Effect.flip(StorageLimit.make(memory, options))
        expect(error).toMatchObject({ _tag: "InvalidOptions", module: "StorageLimit", option })
        const layer = StorageLimit.layer(options).pipe(Layer.provide(MemoryStorage.layer()))
        expect(yield* Effect.flip(Effect.provide(Effect.void, layer))).toEqual(error)
      }
      const error = yield* Effect.flip(StorageLimit.make(memory, { concurrency: 1.5 }))
      expect(error.message).toBe("StorageLimit: concurrency must be a whole number of at least 1 (got 1.5)")
      yield* StorageLimit.make(memory, { concurrency: 4, requestsPerSecond: undefined, bytesPerSecond: undefined })
    }))

  it.effect("can be piped to, and configured", () =>
    Effect.gen(function*() {
      const memory = yield* MemoryStorage.make()
      expect((yield* memory.pipe(StorageLimit.make({ concurrency: 1 }))).backend.name).toBe("Limit(Memory)")
      const layer = StorageLimit.layerConfig({
        concurrency: Config.integer("CONCURRENCY"),
        bytesPerSecond: Config.number("RATE")
      }).pipe(Layer.provide(MemoryStorage.layer()))
      const nameUnder = (config: Record<string, string>) =>
        Effect.map(Storage.Storage, ({ backend }) => backend.name).pipe(
          Effect.provide(layer),
          Effect.withConfigProvider(ConfigProvider.fromMap(new Map(Object.entries(config))))
        )
      expect(yield* nameUnder({ CONCURRENCY: "4", RATE: "1000" })).toBe("Limit(Memory)")
      expect(yield* Effect.flip(nameUnder({ CONCURRENCY: "0", RATE: "1000" }))).toMatchObject({
        _tag: "InvalidOptions",
        option: "concurrency"
      })
    }))

  it.effect("has the same limits for all users of its layer", () =>
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
  it.effect("runs this many operations of all kinds at once, and no more", () =>
    Effect.forEach([1, 2, 7, 1000], (concurrency) =>
      Effect.gen(function*() {
        const gauge = makeGauge()
        const storage = yield* setup({ concurrency }, gauge.hooks)
        const runs = Array.from({ length: 4 }).flatMap(() => operations)
        // What one removes the other does not find, which takes as long.
        const exits = yield* Effect.forEach(runs, ([, run]) => Effect.exit(run(storage)), { concurrency: "unbounded" })
        expect(exits.filter(Exit.isSuccess).length).toBeGreaterThan(runs.length / 3)
        expect(gauge.most()).toBe(Math.min(concurrency, runs.length))
        expect(gauge.now()).toBe(0)
      })))

  it.effect("lets each operation hold its permit until it ends", () =>
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
        expect(yield* hasPermit(storage), operation).toBe(false)
        yield* Deferred.succeed(gate, undefined)
        yield* Fiber.join(fiber)
        expect(yield* hasPermit(storage), operation).toBe(true)
      })))

  it.effect("releases the permit of an operation that fails, dies or is interrupted", () =>
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
          if (operation !== "head") expect(yield* hasPermit(storage), operation).toBe(true)
        }
      })))

  it.effect("serves the first that came, also before one that asks just when a permit is released", () =>
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

  it.effect("serves operations of all kinds in one queue", () =>
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
        // A stream yields before it asks for a permit.
        Effect.zipLeft(Effect.fork(Effect.exit(run(storage))), turns(20)))
      expect(begun.length).toBe(1)
      yield* Deferred.succeed(gate, undefined)
      yield* Fiber.joinAll(fibers)
      expect(begun).toEqual(operations.map(([operation]) => operation))
    }))

  it.effect("drops waiters that are interrupted, and serves the next", () =>
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
      expect(yield* hasPermit(storage)).toBe(true)
    }))

  it.effect("loses no permit where a wait is interrupted, at whatever moment", () =>
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
            through: (stream) => Stream.concat(Stream.execute(turns(5)), stream)
          })
          for (let moment = 0; moment < 100; moment++) {
            gate = yield* Deferred.make<void>()
            const holder = yield* Effect.fork(storage.exists("held"))
            yield* turns(5)
            // A fiber notices an interruption where it yields: here every few steps, and not always at the same ones.
            const waiter = yield* Effect.fork(Effect.withMaxOpsBeforeYield(run(storage), 24 + moment % 9))
            yield* turns(moment % 2 === 0 ? 60 : moment)
            yield* Deferred.succeed(gate, undefined)
            yield* turns(moment)
            yield* Fiber.interrupt(waiter)
            yield* Fiber.join(holder)
            expect(yield* hasPermit(storage), `${operation}, interrupted at moment ${moment}`).toBe(true)
          }
          yield* expectOnePermit(storage, gauge)
        }),
      { discard: true }
    ))
})

describe("StorageLimit, streams and listings", () => {
  const MiB = 1024 * 1024

  /** With one permit, and an object in three chunks. */
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

  it.effect("hold a permit from when they are opened until their end", () =>
    Effect.gen(function*() {
      const { gauge, storage } = yield* single()
      const free: Array<boolean> = []
      const reading = Stream.runForEach(
        storage.stream("large"),
        () => Effect.map(hasPermit(storage), (has) => void free.push(has))
      )
      expect(yield* hasPermit(storage)).toBe(true)
      yield* reading
      expect(free).toEqual([false, false, false])
      yield* expectOnePermit(storage, gauge)
    }))

  it.scoped("release their permit at their end, while the scope in which they were opened goes on", () =>
    Effect.gen(function*() {
      const { gauge, storage } = yield* single()
      const { info, stream } = yield* storage.open("large")
      expect(info.size).toBe(3 * MiB)
      expect(yield* hasPermit(storage)).toBe(false)
      yield* Stream.runDrain(stream)
      expect(yield* hasPermit(storage)).toBe(true)
      yield* expectOnePermit(storage, gauge)
    }))

  it.effect("release their permit once, when they are read to their end and then closed", () =>
    Effect.gen(function*() {
      const { gauge, storage } = yield* single()
      yield* Effect.scoped(Effect.flatMap(storage.open("large"), ({ stream }) => Stream.runDrain(stream)))
      yield* Effect.scoped(Effect.flatMap(storage.open("large"), ({ stream }) => Stream.runHead(stream)))
      yield* expectOnePermit(storage, gauge)
    }))

  it.effect("hold their permit until the scope ends where they are not read", () =>
    Effect.gen(function*() {
      const { gauge, storage } = yield* single()
      yield* Effect.scoped(Effect.zipRight(
        storage.open("large"),
        Effect.map(hasPermit(storage), (isFree) => expect(isFree).toBe(false))
      ))
      yield* expectOnePermit(storage, gauge)
    }))

  /** Ways in which the reader of a stream or listing ends before it does. */
  const ends: ReadonlyArray<
    readonly [string, <A, E>(stream: Stream.Stream<A, E>) => Effect.Effect<unknown, unknown>]
  > = [
    ["taken from and left", (stream) => Stream.runDrain(Stream.take(stream, 1))],
    ["not taken from", (stream) => Stream.runDrain(Stream.take(stream, 0))],
    ["read by a consumer that fails", (stream) => Stream.runForEach(stream, () => Effect.fail("enough"))],
    ["read by a consumer that dies", (stream) => Stream.runForEach(stream, () => Effect.die("enough"))],
    [
      "read by a consumer that is interrupted",
      (stream) =>
        Effect.gen(function*() {
          const fiber = yield* Effect.fork(Stream.runForEach(stream, () => Effect.never))
          yield* turns(30)
          yield* Fiber.interrupt(fiber)
        })
    ],
    [
      "awaited by a consumer that is interrupted",
      (stream) =>
        Effect.gen(function*() {
          const fiber = yield* Effect.fork(Stream.runDrain(stream))
          yield* turns(8)
          yield* Fiber.interrupt(fiber)
        })
    ]
  ]

  it.effect("release their permit however their reader ends", () =>
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
          expect(yield* hasPermit(storage), `${how}: ${index}`).toBe(true)
        }
        yield* expectOnePermit(storage, gauge)
      })))

  it.scoped("release their permit when they break", () =>
    Effect.gen(function*() {
      const { gauge, storage } = yield* single()
      const { stream } = yield* storage.open("breaks")
      expect((yield* Effect.flip(Stream.runDrain(stream)))._tag).toBe("StorageUnavailable")
      yield* expectOnePermit(storage, gauge)
    }))

  it.scoped("release their permit when they fail to open, while the scope goes on", () =>
    Effect.gen(function*() {
      const { gauge, storage } = yield* single()
      expect((yield* Effect.flip(storage.open("missing")))._tag).toBe("ObjectNotFound")
      yield* expectOnePermit(storage, gauge)
      expect((yield* Effect.flip(Stream.runDrain(storage.stream("missing"))))._tag).toBe("ObjectNotFound")
      yield* expectOnePermit(storage, gauge)
    }))

  it.scoped("release their permit when their opening is interrupted, while the scope goes on", () =>
    Effect.gen(function*() {
      const { gauge, storage } = yield* single({
        around: (effect, call) => call.operation === "open" ? Effect.never : effect
      })
      const opening: Effect.Effect<unknown, unknown, Scope.Scope> = storage.open("large")
      const first = yield* Effect.fork(opening)
      const second = yield* Effect.fork(opening)
      yield* turns(20)
      expect(yield* hasPermit(storage)).toBe(false)
      // One waits for the storage, the other for a permit.
      yield* Fiber.interrupt(second)
      yield* Fiber.interrupt(first)
      yield* expectOnePermit(storage, gauge)
    }))

  it.effect("hold a permit from the first page of a listing to its last", () =>
    Effect.gen(function*() {
      const { gauge, storage } = yield* single()
      const listings: ReadonlyArray<Stream.Stream<unknown, StorageError.StorageError>> = [
        storage.entries({ prefix: "k" }),
        storage.backend.keys({ prefix: "k" })
      ]
      for (const listing of listings) {
        const free: Array<boolean> = []
        yield* Stream.runForEach(listing, () => Effect.map(hasPermit(storage), (has) => void free.push(has)))
        expect(free).toEqual([false, false, false])
        expect(yield* hasPermit(storage)).toBe(true)
      }
      expect(yield* storage.list("k")).toEqual(["k", "k/a", "k/b"])
      yield* expectOnePermit(storage, gauge)
    }))

  it.effect("take a new permit each time they are run", () =>
    Effect.gen(function*() {
      const { gauge, storage } = yield* single()
      const stream = storage.stream("large")
      yield* Effect.all([Stream.runDrain(stream), Stream.runDrain(stream), Stream.runDrain(storage.entries())], {
        concurrency: "unbounded"
      })
      yield* expectOnePermit(storage, gauge)
    }))
})

describe("StorageLimit, saves whose source is read from the same storage", () => {
  const sources: ReadonlyArray<
    readonly [string, (storage: Storage.Service) => Stream.Stream<Uint8Array, StorageError.StorageError>]
  > = [
    ["a stream", (storage) => storage.stream("k")],
    ["streams in turn", (storage) => Stream.concat(storage.stream("k"), storage.stream("k/a"))],
    ["a buffered stream", (storage) => Stream.buffer(storage.stream("k"), { capacity: 2 })],
    ["loads", (storage) => Stream.mapEffect(Stream.make("k", "k/a"), (key) => storage.load(key))],
    [
      "listed objects, concurrently",
      (storage) =>
        Stream.flatMap(storage.entries({ prefix: "k" }), ({ key }) => storage.stream(key), { concurrency: 3 })
    ],
    [
      "an object that was saved for it",
      (storage) => Stream.fromEffect(Effect.zipRight(storage.save("way", storage.stream("k")), storage.load("way")))
    ]
  ]

  it.effect("need no second permit", () =>
    Effect.forEach(sources, ([what, source]) =>
      Effect.gen(function*() {
        const storage = yield* setup({ concurrency: 1 })
        const outer = yield* StorageLimit.make(storage, { concurrency: 1 })
        for (const limited of [storage, outer]) {
          const saving = Effect.as(limited.save("new", source(limited)), true)
          expect(yield* Effect.raceFirst(saving, Effect.as(turns(2000), false)), what).toBe(true)
          expect((yield* limited.load("new")).slice(0, 10), what).toEqual(pattern(10))
          expect(yield* hasPermit(limited), what).toBe(true)
        }
      })))

  it.effect("hold a permit, for which other operations wait", () =>
    Effect.gen(function*() {
      const storage = yield* setup({ concurrency: 1 })
      const gate = yield* Deferred.make<void>()
      const source = Stream.concat(storage.stream("k"), Stream.execute(Deferred.await(gate)))
      const fiber = yield* Effect.fork(storage.save("new", source))
      yield* turns(50)
      expect(yield* hasPermit(storage)).toBe(false)
      yield* Deferred.succeed(gate, undefined)
      yield* Fiber.join(fiber)
      expect(yield* hasPermit(storage)).toBe(true)
    }))

  it.effect("leave the fiber no permit for later operations", () =>
    Effect.gen(function*() {
      const gauge = makeGauge()
      const storage = yield* setup({ concurrency: 1 }, gauge.hooks)
      const client = (key: string) =>
        Effect.zipRight(storage.save(key, Stream.make(pattern(3))), Effect.repeatN(storage.exists(key), 3))
      yield* Effect.all([client("a"), client("b"), client("c")], { concurrency: "unbounded" })
      yield* expectOnePermit(storage, gauge)
    }))

  it.effect("release the permit where they fail, their source fails, or they are interrupted", () =>
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
      yield* expectOnePermit(storage, gauge)
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
  it.effect("starts operations of all kinds evenly spaced", () =>
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

  it.effect("does not save up unused slots", () =>
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

  it.effect("counts what a save reads, within the same permit", () =>
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

  it.effect("uses no slot for waiters that are interrupted", () =>
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

  it.effect("uses every slot while waiters give up and come again", () =>
    Effect.gen(function*() {
      const begun: Array<number> = []
      const storage = yield* setup({ concurrency: 8, requestsPerSecond: 1 }, timing(begun))
      const client = Effect.forever(Effect.timeoutOption(storage.exists("k"), "2500 millis"))
      yield* Effect.forEach(Array.from({ length: 8 }), () => Effect.fork(client))
      yield* TestClock.adjust("20 seconds")
      expect(begun).toEqual(Array.from({ length: 21 }, (_, second) => second * 1000))
    }))

  it.effect("is unlimited at Infinity", () =>
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
  /** When an effect ends, in milliseconds, while nothing else adjusts the clock. */
  const timeOf = <A, E>(effect: Effect.Effect<A, E>) =>
    Effect.gen(function*() {
      const fiber = yield* Effect.fork(Effect.zipRight(effect, Clock.currentTimeMillis))
      yield* TestClock.adjust("1 hour")
      return yield* Fiber.join(fiber)
    })

  /** How many bytes were counted, at one per second: the seconds that a save of no bytes is delayed. */
  const counted = (storage: Storage.Service) =>
    Effect.gen(function*() {
      const before = yield* Clock.currentTimeMillis
      return ((yield* timeOf(storage.save("empty", new Uint8Array(0)))) - before) / 1000
    })

  it.effect("counts bytes that are loaded and saved, and nothing else", () =>
    Effect.forEach(operations, ([operation, run]) =>
      Effect.gen(function*() {
        const storage = yield* setup({ concurrency: 1, bytesPerSecond: 1 })
        const moved: Readonly<Record<string, number>> = { open: 7, load: 4, loadRanges: 3, save: 5 }
        // The first is not delayed.
        yield* run(storage)
        expect(yield* Clock.currentTimeMillis).toBe(0)
        expect(yield* counted(storage), operation).toBe(moved[operation] ?? 0)
      }).pipe(Effect.provide(TestContext.TestContext))))

  it.scoped("counts the bytes of an opened object that are in memory when it is opened, and releases its permit", () =>
    Effect.gen(function*() {
      const storage = yield* setup({ concurrency: 1, bytesPerSecond: 1 })
      const { bytes, stream } = yield* storage.open("k")
      expect(bytes).toEqual(pattern(10))
      expect(yield* counted(storage)).toBe(10)
      yield* Stream.runDrain(stream)
      expect(yield* counted(storage)).toBe(0)
    }))

  it.effect("delays operations by the bytes that were moved before", () =>
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
      // Idle time is not saved up.
      const now = yield* Clock.currentTimeMillis
      expect(yield* timeOf(Effect.zipRight(storage.load("k"), storage.load("k")))).toBe(now + 2500)
    }))

  it.effect("delays a stream chunk by chunk", () =>
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

  it.effect("reads the source of a save no faster than the limit", () =>
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

  it.effect("counts all arrays in a chunk of a stream together", () =>
    Effect.gen(function*() {
      const storage = yield* setup({ concurrency: 1, bytesPerSecond: 1 })
      yield* storage.save("new", Stream.fromChunk(Chunk.make(pattern(3), pattern(4))))
      expect(yield* counted(storage)).toBe(7)
    }))

  it.effect("counts bytes that arrived, also if the load is interrupted while it is delayed", () =>
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
