/**
 * When operations time out, with a test clock; and what becomes of the work that is abandoned.
 */
import { describe, expect, it } from "@effect/vitest"
import type { Scope } from "effect"
import {
  Chunk,
  Clock,
  Config,
  ConfigProvider,
  Deferred,
  Duration,
  Effect,
  Exit,
  Fiber,
  Layer,
  Option,
  Schedule,
  Stream,
  Supervisor,
  TestClock
} from "effect"
import {
  MemoryStorage,
  Storage,
  StorageBackend,
  StorageChaos,
  StorageError,
  StorageRetry,
  StorageTimeout
} from "surfing-weights"
import * as StorageContract from "surfing-weights/StorageContract"
import {
  type Call,
  filled,
  type Hooks,
  intercepting,
  noting,
  type Operation,
  operations,
  pattern
} from "../support/intercepting.js"

const options: StorageTimeout.Options = { deadline: "1 minute", idleTimeout: "10 seconds" }

/** A storage with timeouts over one under these hooks, over a memory storage with some objects. */
const setup = (hooks: Hooks, limits: StorageTimeout.Options = options) =>
  Effect.flatMap(filled(), (memory) => StorageTimeout.make(intercepting(memory, hooks), limits))

/** Changes one operation. */
const on = (
  operation: Operation,
  become: <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.Effect<A, E, R>
): Hooks => ({
  around: (effect, call) => call.operation === operation ? become(effect) : effect
})

const turns = (count: number) => Effect.repeatN(Effect.yieldNow(), count)

/** The limit of each operation in milliseconds, and how a failure names the operation and the key. */
const limits: Readonly<Record<Operation, readonly [limit: number, operation: string, key: string | undefined]>> = {
  open: [10_000, "stream", "k"],
  load: [60_000, "load", "k"],
  loadRanges: [60_000, "loadRanges", "k"],
  head: [60_000, "head", "k"],
  save: [60_000, "save", "new"],
  entries: [10_000, "entries", undefined],
  keys: [10_000, "list", undefined],
  listDirectory: [60_000, "listDirectory", undefined],
  remove: [60_000, "remove", "k"],
  removeAll: [60_000, "removeAll", undefined],
  copy: [60_000, "copy", "k"],
  move: [60_000, "move", "k"],
  presign: [60_000, "presign", "k"]
}

const isRead = (operation: Operation) => !["save", "remove", "removeAll", "copy", "move"].includes(operation)

/** Expects a fiber to time out in this many milliseconds from now, and not before. */
const expectLateIn = <A, E>(fiber: Fiber.RuntimeFiber<A, E>, milliseconds: number, what?: string) =>
  Effect.gen(function*() {
    yield* TestClock.adjust(milliseconds - 1)
    expect(fiber.unsafePoll(), what).toBe(null)
    yield* TestClock.adjust(1)
    expect(fiber.unsafePoll(), what).not.toBe(null)
    const error = yield* Effect.flip(Fiber.join(fiber))
    expect(error, what).toBeInstanceOf(StorageError.StorageTimeout)
    return error
  })

describe("StorageTimeout", () => {
  it.effect("names itself around the inner storage, and has its capabilities", () =>
    Effect.gen(function*() {
      const memory = yield* MemoryStorage.make()
      const { backend } = yield* StorageTimeout.make(memory, options)
      expect(backend.name).toBe("Timeout(Memory)")
      expect(backend.capabilities).toEqual(memory.backend.capabilities)
    }))

  it.effect("passes every operation through unchanged, and returns what the storage returns", () =>
    Effect.forEach(operations, ([operation, run]) =>
      Effect.gen(function*() {
        const expected: Array<Call> = []
        const result = yield* run(noting(yield* filled(), expected))
        for (const limits of [options, { deadline: Infinity, idleTimeout: Infinity }]) {
          const calls: Array<Call> = []
          const storage = yield* StorageTimeout.make(noting(yield* filled(), calls), limits)
          expect(yield* run(storage), operation).toEqual(result)
          expect(calls, operation).toEqual(expected)
        }
      })))

  it.effect("fails with StorageTimeout exactly at the limit of an operation, and not before", () =>
    Effect.forEach(operations, ([operation, run]) =>
      Effect.gen(function*() {
        const [limit, name, key] = limits[operation]
        const storage = yield* setup(on(operation, () => Effect.never))
        const error = yield* expectLateIn(yield* Effect.fork(run(storage)), limit, operation)
        expect(error).toMatchObject({ _tag: "StorageTimeout", backend: "Timeout(Memory)", operation: name })
        expect("key" in error ? error.key : undefined, operation).toBe(key)
        expect("limit" in error ? error.limit : undefined, operation).toEqual(Duration.millis(limit))
        expect(StorageError.isRetryable(error)).toBe(true)
        expect(error.message).toContain(
          `on Timeout(Memory): no answer within ${Duration.format(Duration.millis(limit))}`
        )
      })))

  it.effect("does not affect an operation that ends in time", () =>
    Effect.forEach(operations, ([operation, run]) =>
      Effect.gen(function*() {
        const [limit] = limits[operation]
        const plain = yield* setup({})
        const storage = yield* setup(on(operation, Effect.delay(limit - 1)))
        const fiber = yield* Effect.fork(run(storage))
        yield* TestClock.adjust(limit - 1)
        expect(fiber.unsafePoll(), operation).not.toBe(null)
        yield* Fiber.join(fiber)
        // What is saved has the time of its save.
        if (isRead(operation)) expect(yield* Fiber.join(fiber), operation).toEqual(yield* run(plain))
      })))

  it.effect("passes failures, defects and interruptions through", () =>
    Effect.forEach(operations, ([operation, run]) =>
      Effect.gen(function*() {
        const failing = yield* StorageChaos.make(noting(yield* filled(), []), [{ operation, times: 2 }])
        const chaos = yield* StorageTimeout.make(failing, options)
        expect(yield* Effect.flip(run(chaos)), operation).toMatchObject({
          _tag: "StorageUnavailable",
          backend: "Timeout(Chaos(Memory))",
          reason: "injected"
        })
        const defect = new Error("defect")
        const dying = yield* setup(on(operation, () => Effect.die(defect)))
        expect(yield* Effect.exit(run(dying)), operation).toEqual(Exit.die(defect))
        const ending = yield* setup(on(operation, () => Effect.interrupt))
        expect(Exit.isInterrupted(yield* Effect.exit(run(ending))), operation).toBe(true)
      })))

  it.effect("has no limit at Infinity, separately for each option", () =>
    Effect.forEach(operations, ([operation, run]) =>
      Effect.gen(function*() {
        const [limit] = limits[operation]
        const isIdle = limit === 10_000
        const waits = on(operation, Effect.delay("365 days"))
        const endless = yield* setup(
          waits,
          isIdle ? { ...options, idleTimeout: Infinity } : { ...options, deadline: Duration.infinity }
        )
        const fiber = yield* Effect.fork(run(endless))
        yield* TestClock.adjust("364 days")
        expect(fiber.unsafePoll(), operation).toBe(null)
        yield* TestClock.adjust("1 day")
        yield* Fiber.join(fiber)
        const other = yield* setup(
          waits,
          isIdle ? { ...options, deadline: Infinity } : { ...options, idleTimeout: Infinity }
        )
        yield* expectLateIn(yield* Effect.fork(run(other)), limit, operation)
      })))

  it.effect("fails with InvalidOptions unless limits are greater than zero", () =>
    Effect.gen(function*() {
      const memory = yield* MemoryStorage.make()
      const none: ReadonlyArray<Duration.DurationInput> = [0, -1, "0 seconds", "-5 seconds", NaN, Duration.zero, 0n]
      for (const duration of none) {
        for (const limit of ["deadline", "idleTimeout"] as const) {
          const bad = { ...options, [limit]: duration }
          const error = yield* Effect.flip(StorageTimeout.make(memory, bad))
          expect(error).toMatchObject({ _tag: "InvalidOptions", module: "StorageTimeout", option: limit })
          const layer = StorageTimeout.layer(bad).pipe(Layer.provide(MemoryStorage.layer()))
          expect(yield* Effect.flip(Effect.provide(Effect.void, layer))).toEqual(error)
        }
      }
      const error = yield* Effect.flip(StorageTimeout.make(memory, { ...options, deadline: 0 }))
      expect(error.message).toBe("StorageTimeout: deadline must be greater than zero (got 0)")
      yield* StorageTimeout.make(memory, { deadline: 0.5, idleTimeout: 1n })
    }))

  it.effect("is provided by its layers", () =>
    Effect.gen(function*() {
      const configured = StorageTimeout.layerConfig({
        deadline: Config.duration("DEADLINE"),
        idleTimeout: Config.succeed("10 seconds" as const)
      })
      for (const layer of [StorageTimeout.layer(options), configured]) {
        const { backend } = yield* Effect.provide(Storage.Storage, Layer.provide(layer, MemoryStorage.layer()))
        expect(backend.name).toBe("Timeout(Memory)")
      }
      const memory = yield* MemoryStorage.make()
      expect((yield* memory.pipe(StorageTimeout.make(options))).backend.name).toBe("Timeout(Memory)")
    }).pipe(Effect.withConfigProvider(ConfigProvider.fromMap(new Map([["DEADLINE", "1 minute"]])))))
})

describe("StorageTimeout, streams and listings", () => {
  /** A storage whose streams and listings yield an item after each of these waits. */
  const coming = (waits: ReadonlyArray<Duration.DurationInput>) => {
    const slowly = <A>(item: (index: number) => A) =>
      Stream.mapEffect(
        Stream.fromIterable(waits.entries()),
        ([index, wait]) => Effect.delay(Effect.sync(() => item(index)), wait)
      )
    return Effect.flatMap(filled(), (memory) =>
      Effect.flatMap(memory.head("k"), (info) => {
        const { backend } = memory
        return StorageTimeout.make(
          Storage.make({
            ...backend,
            open: () =>
              Effect.succeed(StorageBackend.opened({
                info,
                range: { start: 0, endExclusive: waits.length },
                stream: slowly((index) => Uint8Array.of(index))
              })),
            entries: () => slowly((index) => ({ ...info, key: String(index) })),
            keys: () => slowly(String)
          }),
          options
        )
      }))
  }

  const itemsOf = (storage: Storage.Service) =>
    [
      ["stream", "k", Stream.map(storage.stream("k"), ([byte]) => byte)],
      ["entries", undefined, Stream.map(storage.entries(), ({ key }) => Number(key))],
      ["", undefined, Stream.map(storage.backend.keys({}), Number)]
    ] as const

  const each = <E>(
    waits: ReadonlyArray<Duration.DurationInput>,
    check: (
      items: Stream.Stream<number | undefined, StorageError.StorageError>,
      operation: string,
      key: string | undefined
    ) => Effect.Effect<void, E>
  ) =>
    Effect.flatMap(
      coming(waits),
      (storage) => Effect.forEach(itemsOf(storage), ([operation, key, items]) => check(items, operation, key))
    )

  it.effect("count each wait by itself, however long they take in total", () =>
    each(Array.from({ length: 20 }, () => "9999 millis"), (items, operation) =>
      Effect.gen(function*() {
        const fiber = yield* Effect.fork(Stream.runCollect(items))
        yield* TestClock.adjust("1 hour")
        expect([...(yield* Fiber.join(fiber))], operation).toEqual(Array.from({ length: 20 }, (_, i) => i))
      })))

  it.effect("fail when one item takes too long, after those before it", () =>
    each(["4 seconds", "9 seconds", "1 day"], (items, operation, key) =>
      Effect.gen(function*() {
        const seen: Array<unknown> = []
        const fiber = yield* Effect.fork(Stream.runForEach(items, (item) => Effect.sync(() => void seen.push(item))))
        yield* TestClock.adjust("13 seconds")
        expect(seen, operation).toEqual([0, 1])
        const error = yield* expectLateIn(fiber, 10_000, operation)
        // What a wrapper calls does not leave through an entrance.
        const backend = operation === "" ? "" : "Timeout(Memory)"
        expect(error).toMatchObject({ backend, operation, limit: Duration.seconds(10) })
        expect("key" in error ? error.key : undefined).toBe(key)
        expect(seen, operation).toEqual([0, 1])
      })))

  it.effect("do not count the time of their reader", () =>
    each(["1 second", "9 seconds", "9 seconds", "1 day"], (items, operation) =>
      Effect.gen(function*() {
        const seen: Array<unknown> = []
        const fiber = yield* Effect.fork(
          Stream.runForEach(items, (item) => Effect.delay(Effect.sync(() => void seen.push(item)), "2 minutes"))
        )
        yield* TestClock.adjust("6 minutes")
        yield* TestClock.adjust("19 seconds")
        expect(seen, operation).toEqual([0, 1, 2])
        yield* expectLateIn(fiber, 10_000, operation)
      })))

  it.effect("time out to the millisecond, whenever the wait began", () =>
    Effect.forEach(
      [1, 2500, 9999, 10_000, 10_001, 25_000],
      (pause) =>
        each([0, "1 day"], (items, operation) =>
          Effect.gen(function*() {
            const fiber = yield* Effect.fork(Stream.runForEach(items, () => Effect.sleep(pause)))
            yield* TestClock.adjust(pause)
            yield* expectLateIn(fiber, 10_000, `${operation} after ${pause} ms`)
          }))
    ))

  it.scoped("do not count the time before an opened object is read", () =>
    Effect.gen(function*() {
      const storage = yield* coming(["1 second", "1 day"])
      const { info, range, stream } = yield* storage.open("k")
      expect(info.key).toBe("k")
      expect(range).toEqual({ start: 0, endExclusive: 2 })
      yield* TestClock.adjust("1 hour")
      const fiber = yield* Effect.fork(Stream.runDrain(stream))
      yield* TestClock.adjust("1 second")
      yield* expectLateIn(fiber, 10_000)
    }))

  /** A storage whose streams and listings are these. */
  const of = <E extends StorageError.ListError>(
    bytes: Stream.Stream<Uint8Array<ArrayBuffer>, E>
  ): Effect.Effect<Storage.Service, StorageError.StorageError> =>
    Effect.flatMap(filled(), (memory) => {
      const { backend } = memory
      return StorageTimeout.make(
        Storage.make({
          ...backend,
          open: (key, options) =>
            Effect.map(backend.open(key, options), ({ info, range }) => ({
              info,
              range,
              stream: bytes,
              position: () => 0
            })),
          keys: () => Stream.map(bytes, String)
        }),
        options
      )
    })

  it.effect("keep the chunks of the storage", () =>
    Effect.gen(function*() {
      const chunks = [[1], [], [2, 3], [4]].map((items) =>
        Chunk.unsafeFromArray(items.map((item) => Uint8Array.of(item)))
      )
      const source = Stream.fromChunks(...chunks)
      const storage = yield* of(source)
      const sizes = <A, E>(stream: Stream.Stream<A, E>) =>
        Effect.map(Stream.runCollect(Stream.map(Stream.chunks(stream), Chunk.size)), Chunk.toReadonlyArray)
      expect(yield* sizes(storage.stream("k"))).toEqual(yield* sizes(source))
      expect(yield* storage.list()).toEqual(["1", "2", "3", "4"])
    }))

  it.effect("end and fail as they do in the storage, after the same items", () =>
    Effect.gen(function*() {
      const failure = new StorageError.AccessDenied({ reason: "no" })
      const defect = new Error("defect")
      const ends: ReadonlyArray<Effect.Effect<never, StorageError.AccessDenied>> = [
        Effect.fail(failure),
        Effect.die(defect),
        Effect.interrupt
      ]
      for (const end of ends) {
        const source = Stream.concat(Stream.make(Uint8Array.of(1), Uint8Array.of(2)), Stream.fromEffect(end))
        const storage = yield* of(source)
        const seen: Array<unknown> = []
        const exit = yield* Effect.exit(
          Stream.runForEach(storage.stream("k"), ([byte]) => Effect.sync(() => void seen.push(byte)))
        )
        const expected = yield* Effect.exit(end)
        if (Exit.isInterrupted(expected)) expect(Exit.isInterrupted(exit)).toBe(true)
        else if (end === ends[0]) expect(yield* Effect.flip(exit)).toMatchObject({ _tag: "AccessDenied", reason: "no" })
        else expect(exit).toEqual(expected)
        expect(seen).toEqual([1, 2])
      }
    }))

  it.effect("pull an item only when their reader does", () =>
    Effect.gen(function*() {
      let given = 0
      const source = Stream.repeatEffect(Effect.sync(() => Uint8Array.of(++given)))
      const storage = yield* of(source)
      const items: ReadonlyArray<Stream.Stream<unknown, StorageError.StorageError>> = [
        storage.stream("k"),
        storage.backend.keys({})
      ]
      for (const stream of items) {
        given = 0
        yield* Effect.scoped(Effect.gen(function*() {
          const pull = yield* Stream.toPull(stream)
          yield* turns(20)
          expect(given).toBe(0)
          for (const wanted of [1, 2, 3, 4]) {
            yield* pull
            yield* turns(20)
            expect(given).toBe(wanted)
          }
        }))
      }
    }))

  it.effect("can be run several times, also at once", () =>
    Effect.gen(function*() {
      const storage = yield* setup({ through: (stream) => Stream.tap(stream, () => Effect.sleep("9 seconds")) })
      const stream = storage.stream("k")
      const fiber = yield* Effect.fork(
        Effect.zip(
          Effect.all([Stream.runCollect(stream), Stream.runCollect(stream)], { concurrency: 2 }),
          Stream.runCollect(stream)
        )
      )
      yield* TestClock.adjust("18 seconds")
      const [both, last] = yield* Fiber.join(fiber)
      for (const read of [...both, last]) expect([...read]).toEqual([pattern(10)])
    }))

  it.effect("start a new wait after a reader that was interrupted", () =>
    Effect.scoped(Effect.gen(function*() {
      const storage = yield* coming(["8 seconds", "1 day"])
      const pull = yield* Stream.toPull(storage.stream("k"))
      const impatient = yield* Effect.fork(Effect.timeoutOption(pull, "3 seconds"))
      yield* TestClock.adjust("3 seconds")
      expect(Option.isNone(yield* Fiber.join(impatient))).toBe(true)
      const patient = yield* Effect.fork(pull)
      yield* TestClock.adjust("5 seconds")
      expect([...(yield* Fiber.join(patient))]).toEqual([Uint8Array.of(0)])
    })))
})

describe("StorageTimeout, saves of streams", () => {
  /** A storage with this save. */
  const saving = (save: StorageBackend.StorageBackend["save"]) =>
    Effect.flatMap(
      MemoryStorage.make(),
      ({ backend }) => StorageTimeout.make(Storage.make({ ...backend, save }), options)
    )

  const info = { key: "new", size: 1, lastModified: new Date(0), etag: "1" }

  it.effect("may take as long as their source takes", () =>
    Effect.gen(function*() {
      const storage = yield* setup({})
      const source = Stream.tap(Stream.make(pattern(3), pattern(4), pattern(5)), () => Effect.sleep("2 minutes"))
      const slowToEnd = Stream.concat(source, Stream.execute(Effect.sleep("2 minutes")))
      const fiber = yield* Effect.fork(storage.save("new", slowToEnd))
      yield* TestClock.adjust("8 minutes")
      expect(yield* Fiber.join(fiber)).toMatchObject({ key: "new", size: 12 })
      expect(yield* storage.load("new")).toEqual(
        Uint8Array.from([...pattern(3), ...pattern(4), ...pattern(5)])
      )
    }))

  it.effect("may take any time while the storage takes each chunk in time", () =>
    Effect.gen(function*() {
      const storage = yield* saving((_key, data) =>
        data instanceof Uint8Array ? Effect.succeed(info) : Effect.as(
          Effect.delay(Stream.runForEachChunk(data, () => Effect.sleep("9 seconds")), "9 seconds"),
          info
        )
      )
      const source = Stream.rechunk(Stream.range(1, 20), 1).pipe(Stream.map((byte) => Uint8Array.of(byte)))
      const fiber = yield* Effect.fork(storage.save("new", source))
      yield* TestClock.adjust("1 hour")
      expect(yield* Fiber.join(fiber)).toBe(info)
    }))

  const source = Stream.mapEffect(
    Stream.make(Uint8Array.of(1), Uint8Array.of(2)).pipe(Stream.rechunk(1)),
    (bytes) => Effect.delay(Effect.succeed(bytes), "2 minutes")
  )

  it.effect("fail when the storage does not take the first chunk, the next one, or the end", () =>
    Effect.gen(function*() {
      const stuck: ReadonlyArray<readonly [number, StorageBackend.StorageBackend["save"]]> = [
        [0, () => Effect.never],
        [
          1,
          (_key, data) =>
            data instanceof Uint8Array
              ? Effect.never
              : Stream.runForEach(data, () => Effect.never).pipe(Effect.as(info))
        ],
        [
          2,
          (_key, data) =>
            data instanceof Uint8Array
              ? Effect.never
              : Stream.runForEach(data, ([byte]) => byte === 2 ? Effect.never : Effect.sleep("9 seconds")).pipe(
                Effect.as(info)
              )
        ],
        [
          2,
          (_key, data) =>
            data instanceof Uint8Array ? Effect.never : Effect.zipRight(Stream.runDrain(data), Effect.never)
        ]
      ]
      for (const [index, [chunks, save]] of stuck.entries()) {
        const storage = yield* saving(save)
        const fiber = yield* Effect.fork(storage.save("new", source))
        yield* TestClock.adjust(Duration.minutes(2 * chunks))
        // The third takes some time for the first chunk.
        if (index === 2) yield* TestClock.adjust("9 seconds")
        const error = yield* expectLateIn(fiber, 10_000, `stuck ${index}`)
        expect(error).toMatchObject({
          _tag: "StorageTimeout",
          backend: "Timeout(Memory)",
          operation: "save",
          key: "new",
          limit: Duration.seconds(10)
        })
      }
    }))

  it.effect("fail with the failure of their source", () =>
    Effect.gen(function*() {
      const storage = yield* setup({})
      const late = new StorageError.StorageTimeout({ limit: Duration.seconds(1) })
      for (const failure of ["mine", late]) {
        const failing = Stream.concat(Stream.make(pattern(3)), Stream.fail(failure))
        expect(yield* Effect.flip(storage.save("new", failing))).toBe(failure)
      }
      expect(yield* storage.exists("new")).toBe(false)
      const defect = new Error("defect")
      expect(yield* Effect.exit(storage.save("new", Stream.die(defect)))).toEqual(Exit.die(defect))
    }))

  it.effect("read no more of their source than the storage takes, and close it", () =>
    Effect.gen(function*() {
      let given = 0
      let isOpen = false
      const counting = Stream.acquireRelease(
        Effect.sync(() => {
          isOpen = true
        }),
        () =>
          Effect.sync(() => {
            isOpen = false
          })
      ).pipe(Stream.flatMap(() => Stream.repeatEffect(Effect.sync(() => Uint8Array.of(++given)))))
      const storage = yield* saving((_key, data) =>
        data instanceof Uint8Array ? Effect.succeed(info) : Effect.as(
          Stream.runForEach(data, () => Effect.sleep("9 seconds")),
          info
        )
      )
      const fiber = yield* Effect.fork(storage.save("new", counting))
      for (const wanted of [1, 2, 3]) {
        yield* turns(50)
        expect([given, isOpen]).toEqual([wanted, true])
        yield* TestClock.adjust("9 seconds")
      }
      yield* Fiber.interrupt(fiber)
      expect(isOpen).toBe(false)
      expect(given).toBe(4)
    }))

  it.effect("run their source with its context", () =>
    Effect.gen(function*() {
      const storage = yield* setup({})
      const needing = Stream.fromEffect(Effect.map(Storage.Storage, ({ backend }) => Buffer.from(backend.name)))
      yield* Effect.provideService(storage.save("new", needing), Storage.Storage, storage)
      expect(Buffer.from(yield* storage.load("new")).toString()).toBe("Timeout(Memory)")
    }))
})

describe("StorageTimeout, late operations", () => {
  /** Uninterruptible until the gate opens; logs when it ends. */
  const stubborn = (gate: Deferred.Deferred<void>, log: Array<string>) => <A, E, R>(effect: Effect.Effect<A, E, R>) =>
    Effect.zipRight(
      Effect.uninterruptible(Effect.zipRight(Deferred.await(gate), Effect.sync(() => void log.push("undone")))),
      effect
    )

  it.effect("are abandoned at once where they only read", () =>
    Effect.forEach(operations.filter(([operation]) => isRead(operation)), ([operation, run]) =>
      Effect.gen(function*() {
        const log: Array<string> = []
        const gate = yield* Deferred.make<void>()
        const storage = yield* setup(on(operation, stubborn(gate, log)))
        yield* expectLateIn(yield* Effect.fork(run(storage)), limits[operation][0], operation)
        expect(log).toEqual([])
        yield* Deferred.succeed(gate, undefined)
        yield* turns(20)
        expect(log, operation).toEqual(["undone"])
      })))

  it.effect("are interrupted, and their cleanup awaited, where they write", () =>
    Effect.forEach(
      operations.filter(([operation]) => !isRead(operation)),
      ([operation, run]) =>
        Effect.gen(function*() {
          const log: Array<string> = []
          const gate = yield* Deferred.make<void>()
          const storage = yield* setup(on(operation, stubborn(gate, log)))
          const fiber = yield* Effect.fork(run(storage))
          yield* TestClock.adjust("1 hour")
          expect(fiber.unsafePoll(), operation).toBe(null)
          yield* Deferred.succeed(gate, undefined)
          const error = yield* Effect.flip(Fiber.join(fiber))
          expect(error).toMatchObject({ _tag: "StorageTimeout", operation, limit: Duration.minutes(1) })
          expect(log).toEqual(["undone"])
        })
    ))

  it.effect("are interrupted, and their cleanup awaited, where they save a stream", () =>
    Effect.gen(function*() {
      const log: Array<string> = []
      const gate = yield* Deferred.make<void>()
      const storage = yield* setup(on("save", stubborn(gate, log)))
      const fiber = yield* Effect.fork(storage.save("new", Stream.make(pattern(3))))
      yield* TestClock.adjust("1 hour")
      expect(fiber.unsafePoll()).toBe(null)
      yield* Deferred.succeed(gate, undefined)
      expect((yield* Effect.flip(Fiber.join(fiber)))._tag).toBe("StorageTimeout")
      expect(log).toEqual(["undone"])
      expect(yield* storage.exists("new")).toBe(false)
    }))

  it.effect("fail also where the caller is uninterruptible", () =>
    Effect.forEach(operations, ([operation, run]) =>
      Effect.gen(function*() {
        const storage = yield* setup(on(operation, () => Effect.never))
        const fiber = yield* Effect.fork(Effect.uninterruptible(run(storage)))
        yield* expectLateIn(fiber, limits[operation][0], operation)
      })))

  /** A storage that acquires something to open an object, and then waits until the gate opens. */
  const opening = (gate: Deferred.Deferred<void>, log: Array<string>) => {
    const note = (event: string) => Effect.sync(() => void log.push(event))
    return Effect.flatMap(filled(), (memory) => {
      const { backend } = memory
      return StorageTimeout.make(
        Storage.make({
          ...backend,
          open: (key, options) =>
            Effect.acquireRelease(note("acquire"), () => note("release")).pipe(
              Effect.zipRight(Effect.acquireRelease(Deferred.await(gate), () => note("release late"))),
              Effect.zipRight(note("go on")),
              Effect.zipRight(backend.open(key, options))
            )
        }),
        options
      )
    })
  }

  it.scoped("release what they open too late at once, while the scope goes on", () =>
    Effect.gen(function*() {
      const log: Array<string> = []
      const gate = yield* Deferred.make<void>()
      const storage = yield* opening(gate, log)
      const open: Effect.Effect<unknown, StorageError.StorageError, Scope.Scope> = storage.open("k")
      yield* expectLateIn(yield* Effect.fork(open), 10_000)
      expect(log).toEqual(["acquire"])
      yield* Deferred.succeed(gate, undefined)
      yield* turns(30)
      expect(log).toEqual(["acquire", "release late", "release"])
    }))

  it.effect("release what they open too late after the scope has ended", () =>
    Effect.gen(function*() {
      const log: Array<string> = []
      const gate = yield* Deferred.make<void>()
      const storage = yield* opening(gate, log)
      yield* expectLateIn(yield* Effect.fork(Stream.runDrain(storage.stream("k"))), 10_000)
      // Not before it has it.
      expect(log).toEqual(["acquire"])
      yield* Deferred.succeed(gate, undefined)
      yield* turns(30)
      expect(log).toEqual(["acquire", "release late", "release"])
    }))

  it.effect("keep what they open in time until the scope ends", () =>
    Effect.gen(function*() {
      const log: Array<string> = []
      const gate = yield* Deferred.make<void>()
      const storage = yield* opening(gate, log)
      yield* Deferred.succeed(gate, undefined)
      yield* Effect.scoped(Effect.gen(function*() {
        const { stream } = yield* storage.open("k")
        expect(log).toEqual(["acquire", "go on"])
        yield* Stream.runDrain(stream)
        expect(log).toEqual(["acquire", "go on"])
      }))
      expect(log).toEqual(["acquire", "go on", "release late", "release"])
    }))

  it.effect("abandon a chunk that is uninterruptible at once, and clean up later", () =>
    Effect.gen(function*() {
      const log: Array<string> = []
      const gate = yield* Deferred.make<void>()
      const storage = yield* setup({
        through: (stream) =>
          Stream.concat(stream, Stream.execute(stubborn(gate, log)(Effect.void))).pipe(
            Stream.ensuring(Effect.sync(() => void log.push("closed")))
          )
      })
      const streams: ReadonlyArray<Effect.Effect<void, StorageError.StorageError>> = [
        Stream.runDrain(storage.stream("k")),
        Stream.runDrain(storage.entries()),
        Effect.asVoid(storage.list())
      ]
      for (const reading of streams) yield* expectLateIn(yield* Effect.fork(reading), 10_000)
      expect(log).toEqual([])
      yield* Deferred.succeed(gate, undefined)
      yield* turns(50)
      expect(log.sort()).toEqual(["closed", "closed", "closed", "undone", "undone", "undone"])
    }))
})

describe("StorageTimeout, interruption from outside", () => {
  /** Every operation, and a save of a stream, by its name on the backend. */
  const all: ReadonlyArray<
    readonly [Operation, (storage: Storage.Service) => Effect.Effect<unknown, StorageError.StorageError>]
  > = [...operations, ["save", (storage) => storage.save("new", Stream.make(pattern(3)))]]

  it.effect("waits for the cleanup", () =>
    Effect.forEach(all, ([operation, run]) =>
      Effect.gen(function*() {
        const log: Array<string> = []
        const cleanUp = Effect.zipRight(turns(30), Effect.sync(() => void log.push("cleaned up")))
        const storage = yield* setup(on(operation, () => Effect.onInterrupt(Effect.never, () => cleanUp)))
        const supervisor = yield* Supervisor.track
        const fiber = yield* run(storage).pipe(
          Effect.ensuring(Effect.sync(() => void log.push("after"))),
          Effect.supervised(supervisor),
          Effect.fork
        )
        yield* turns(50)
        expect((yield* supervisor.value).length, operation).toBeGreaterThan(0)
        const exit = yield* Fiber.interrupt(fiber)
        expect(Exit.isInterrupted(exit), operation).toBe(true)
        expect(log, operation).toEqual(["cleaned up", "after"])
        yield* turns(10)
        expect(yield* supervisor.value, operation).toEqual([])
      })))

  it.effect("waits for the cleanup where a chunk is awaited", () =>
    Effect.gen(function*() {
      const log: Array<string> = []
      const cleanUp = Effect.zipRight(turns(30), Effect.sync(() => void log.push("cleaned up")))
      const storage = yield* setup({
        through: (stream) => Stream.concat(stream, Stream.execute(Effect.onInterrupt(Effect.never, () => cleanUp)))
      })
      const streams: ReadonlyArray<Effect.Effect<void, StorageError.StorageError>> = [
        Stream.runDrain(storage.stream("k")),
        Stream.runDrain(storage.entries()),
        Effect.asVoid(storage.list())
      ]
      for (const reading of streams) {
        log.length = 0
        const supervisor = yield* Supervisor.track
        const fiber = yield* reading.pipe(
          Effect.ensuring(Effect.sync(() => void log.push("after"))),
          Effect.supervised(supervisor),
          Effect.fork
        )
        yield* turns(50)
        yield* Fiber.interrupt(fiber)
        expect(log).toEqual(["cleaned up", "after"])
        yield* turns(10)
        expect(yield* supervisor.value).toEqual([])
      }
    }))

  it.effect("waits for uninterruptible reads until their limit", () =>
    Effect.forEach(operations.filter(([operation]) => isRead(operation)), ([operation, run]) =>
      Effect.gen(function*() {
        const [limit] = limits[operation]
        const storage = yield* setup(on(operation, () => Effect.uninterruptible(Effect.never)))
        const fiber = yield* Effect.fork(run(storage))
        yield* turns(50)
        const interrupting = yield* Effect.fork(Fiber.interrupt(fiber))
        yield* TestClock.adjust(limit - 1)
        expect(interrupting.unsafePoll(), operation).toBe(null)
        yield* TestClock.adjust(limit)
        expect(interrupting.unsafePoll(), operation).not.toBe(null)
      })))

  it.effect("leaves no fiber and nothing open, at whatever moment", () =>
    Effect.gen(function*() {
      let open = 0
      const held = <A, E, R>(effect: Effect.Effect<A, E, R>) =>
        Effect.acquireUseRelease(
          Effect.sync(() => void open++),
          () => Effect.zipRight(turns(3), effect),
          () => Effect.sync(() => void open--)
        )
      const storage = yield* setup({
        around: held,
        through: (stream) =>
          Stream.unwrapScoped(
            Effect.as(
              Effect.acquireRelease(Effect.sync(() => void open++), () => Effect.sync(() => void open--)),
              Stream.concat(Stream.execute(turns(3)), stream)
            )
          )
      })
      const supervisor = yield* Supervisor.track
      for (const [operation, run] of all) {
        for (let moment = 0; moment < 60; moment++) {
          const fiber = yield* run(storage).pipe(
            // A fiber notices an interruption where it yields: here every few steps, and not always at the same ones.
            Effect.withMaxOpsBeforeYield(24 + moment % 9),
            Effect.supervised(supervisor),
            Effect.fork
          )
          yield* turns(moment)
          yield* Fiber.interrupt(fiber)
          expect(open, `${operation}, interrupted at moment ${moment}`).toBe(0)
        }
        yield* turns(100)
        expect(yield* supervisor.value, operation).toEqual([])
      }
    }))

  it.effect("leaves no fiber where an operation ends, fails or times out", () =>
    Effect.forEach(all, ([operation, run]) =>
      Effect.gen(function*() {
        const fates: ReadonlyArray<Hooks> = [
          {},
          on(operation, () => Effect.die("defect")),
          on(operation, () => Effect.never)
        ]
        for (const fate of fates) {
          const storage = yield* setup(fate)
          const supervisor = yield* Supervisor.track
          const fiber = yield* Effect.fork(Effect.supervised(Effect.exit(run(storage)), supervisor))
          yield* TestClock.adjust("1 minute")
          yield* Fiber.join(fiber)
          yield* turns(20)
          expect(yield* supervisor.value, operation).toEqual([])
        }
      })))
})

describe("StorageTimeout, inside retries", () => {
  const retrying = (hooks: Hooks) => Effect.flatMap(setup(hooks), StorageRetry.make(Schedule.recurs(3)))

  it.effect("limits each attempt by itself", () =>
    Effect.forEach(operations, ([operation, run]) =>
      Effect.gen(function*() {
        const [limit] = limits[operation]
        const begun: Array<number> = []
        const started = yield* Clock.currentTimeMillis
        const storage = yield* retrying(on(operation, (effect) =>
          Effect.flatMap(Clock.currentTimeMillis, (now) => {
            begun.push(now - started)
            return begun.length < 3 ? Effect.never : Effect.delay(effect, limit - 1)
          })))
        const fiber = yield* Effect.fork(run(storage))
        yield* TestClock.adjust(3 * limit - 1)
        yield* Fiber.join(fiber)
        expect(begun, operation).toEqual([0, limit, 2 * limit])
      })))

  it.effect("is exhausted when all attempts time out", () =>
    Effect.gen(function*() {
      const storage = yield* retrying(on("load", () => Effect.never))
      const fiber = yield* Effect.fork(storage.load("k"))
      yield* TestClock.adjust("4 minutes")
      const error = yield* Effect.flip(Fiber.join(fiber))
      expect(error).toMatchObject({ _tag: "StorageTimeout", limit: Duration.minutes(1), attempts: 4 })
      expect(StorageError.isRetryable(error)).toBe(false)
    }))

  it.effect("goes on where a stream was stuck", () =>
    Effect.gen(function*() {
      const memory = yield* filled()
      const calls: Array<Call> = []
      const chaos = yield* StorageChaos.make(noting(memory, calls), [
        { operation: "open", afterBytes: 4, delay: "1 day", error: "none" },
        { operation: "open", afterBytes: 3, delay: "9 seconds", error: "none" }
      ])
      const storage = yield* StorageRetry.make(yield* StorageTimeout.make(chaos, options), Schedule.recurs(1))
      const fiber = yield* Effect.fork(Stream.runCollect(storage.stream("k")))
      yield* TestClock.adjust("19 seconds")
      const pieces = yield* Fiber.join(fiber)
      expect(Buffer.concat(Chunk.toArray(pieces)).equals(pattern(10))).toBe(true)
      expect(calls.map(({ args: [, options] }) => options)).toMatchObject([{}, {
        range: { start: 4, endExclusive: 10 }
      }])
    }))
})

StorageContract.suite("StorageTimeout(Memory)", {
  layer: StorageTimeout.layer(options).pipe(Layer.provide(MemoryStorage.layer()))
})
