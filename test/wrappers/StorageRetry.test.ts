/**
 * StorageRetry with a test clock, over a memory storage that fails by rules, with the calls between the two recorded.
 */
import { describe, expect, it } from "@effect/vitest"
import {
  Chunk,
  Clock,
  Config,
  ConfigProvider,
  Duration,
  Effect,
  Exit,
  FastCheck,
  Fiber,
  Layer,
  Random,
  Ref,
  Schedule,
  Scope,
  Stream,
  TestClock
} from "effect"
import type { RetryPolicy } from "surfing-weights"
import {
  ByteRange,
  MemoryStorage,
  Storage,
  StorageBackend,
  StorageChaos,
  StorageError,
  StorageRetry
} from "surfing-weights"
import * as StorageContract from "surfing-weights/StorageContract"

const bytes = (length: number) => Uint8Array.from({ length }, (_, i) => (i * 31 + (i >> 8) * 7) % 251)

const gather = <E, R>(stream: Stream.Stream<Uint8Array, E, R>) =>
  Effect.map(Stream.runCollect(stream), (parts) => new Uint8Array(Buffer.concat(Chunk.toArray(parts))))

/** The same storage, which records its calls, and when what it opened is closed. */
const recording = (inner: Storage.Service, log: Array<string>): Storage.Service => {
  const { backend } = inner
  const note = (operation: string, ...details: ReadonlyArray<unknown>) =>
    Effect.sync(() => void log.push([operation, ...details.map((detail) => JSON.stringify(detail))].join(" ")))
  const noted = <A, E, R>(effect: Effect.Effect<A, E, R>, operation: string, ...details: ReadonlyArray<unknown>) =>
    Effect.zipRight(note(operation, ...details), effect)
  return Storage.make({
    name: backend.name,
    capabilities: backend.capabilities,
    open: (key, options) =>
      Effect.zipRight(
        Effect.acquireRelease(note("open", options), () => note("close")),
        backend.open(key, options)
      ),
    load: (key, options) => noted(backend.load(key, options), "load", options),
    loadRanges: (key, ranges, options) => noted(backend.loadRanges(key, ranges, options), "loadRanges"),
    head: (key) => noted(backend.head(key), "head"),
    save: (key, data, options) => noted(backend.save(key, data, options), "save"),
    entries: (options) => Stream.concat(Stream.execute(note("entries", options)), backend.entries(options)),
    keys: (options) => Stream.concat(Stream.execute(note("keys", options)), backend.keys(options)),
    listDirectory: (prefix) => noted(backend.listDirectory(prefix), "listDirectory"),
    remove: (key, options) => noted(backend.remove(key, options), "remove"),
    removeAll: (keys) => noted(backend.removeAll(keys), "removeAll", keys),
    copy: (from, to, options) => noted(backend.copy(from, to, options), "copy"),
    move: (from, to, options) => noted(backend.move(from, to, options), "move"),
    presign: (key, options) => noted(backend.presign(key, options), "presign")
  })
}

/** A retrying storage over a recording one over one with rules over `memory`. */
const setup = (
  rules: ReadonlyArray<StorageChaos.Rule>,
  policy: RetryPolicy.RetryPolicy = Schedule.recurs(3)
) =>
  Effect.gen(function*() {
    const log: Array<string> = []
    const memory = yield* MemoryStorage.make()
    const failing = recording(yield* StorageChaos.make(memory, rules), log)
    return { log, memory, failing, storage: yield* StorageRetry.make(failing, policy) }
  })

const always = (operation: StorageChaos.Operation): StorageChaos.Rule => ({ operation, times: Infinity })

const lost = (operation: StorageChaos.Operation): StorageChaos.Rule => ({ operation, when: "after" })

/** Every operation, by its name on the backend. */
const repeatable: ReadonlyArray<
  readonly [
    operation: StorageChaos.Operation,
    run: (storage: Storage.Service) => Effect.Effect<unknown, StorageError.StorageError>
  ]
> = [
  ["load", (storage) => storage.load("k")],
  ["loadRanges", (storage) => storage.loadRanges("k", [ByteRange.make(0, 2), ByteRange.last(1)])],
  ["head", (storage) => storage.head("k")],
  ["head", (storage) => storage.exists("k")],
  ["save", (storage) => storage.save("new", bytes(3))],
  ["save", (storage) => storage.save("new", bytes(3), { ifNoneMatch: "*" })],
  ["open", (storage) => gather(storage.stream("k"))],
  ["entries", (storage) => Stream.runCollect(storage.entries())],
  ["keys", (storage) => storage.list()],
  ["listDirectory", (storage) => storage.listDirectory()],
  ["remove", (storage) => storage.remove("k")],
  ["removeAll", (storage) => storage.removeAll(["k"])],
  ["copy", (storage) => storage.copy("k", "new")],
  ["copy", (storage) => storage.copy("k", "new", { ifNoneMatch: "*" })],
  ["move", (storage) => storage.move("k", "new")]
]

const count = (log: ReadonlyArray<string>, operation: string) =>
  log.filter((line) => line.split(" ")[0] === operation).length

describe("StorageRetry", () => {
  it.effect("names itself around the inner storage, and has its capabilities", () =>
    Effect.gen(function*() {
      const { failing, storage } = yield* setup([])
      expect(storage.backend.name).toBe("Retry(Chaos(Memory))")
      expect(storage.backend.capabilities).toBe(failing.backend.capabilities)
    }))

  it.effect("retries every operation until it succeeds, and returns what the storage returns", () =>
    Effect.forEach(repeatable, ([operation, run]) =>
      Effect.gen(function*() {
        const { log, memory, storage } = yield* setup([{ operation, times: 3 }])
        yield* memory.save("k", bytes(10))
        const calm = yield* setup([])
        yield* calm.memory.save("k", bytes(10))
        expect(yield* run(storage), operation).toEqual(yield* run(calm.storage))
        expect(count(log, operation), operation).toBe(4)
      })))

  it.effect("fails with the last failure, marked as exhausted, when the policy ends", () =>
    Effect.forEach(repeatable, ([operation, run]) =>
      Effect.gen(function*() {
        const { log, memory, storage } = yield* setup([always(operation)])
        yield* memory.save("k", bytes(10))
        const error = yield* Effect.flip(run(storage))
        expect(error, operation).toMatchObject({
          _tag: "StorageUnavailable",
          backend: "Retry(Chaos(Memory))",
          attempts: 4
        })
        expect(error.message).toContain("gave up after 4 attempts")
        expect(StorageError.isRetryable(error)).toBe(false)
        expect(count(log, operation), operation).toBe(4)
      })))

  it.effect("does not multiply with another retrying storage around it", () =>
    Effect.forEach(repeatable, ([operation, run]) =>
      Effect.gen(function*() {
        const between: Array<string> = []
        const { log, memory, storage } = yield* setup([always(operation)])
        yield* memory.save("k", bytes(10))
        const outer = yield* StorageRetry.make(recording(storage, between), Schedule.recurs(9))
        expect(yield* Effect.flip(run(outer)), operation).toMatchObject({ attempts: 4 })
        expect(count(log, operation), operation).toBe(4)
        expect(count(between, operation), operation).toBe(1)
      })))

  it.effect("never retries a failure that is not retryable", () =>
    Effect.forEach(repeatable, ([operation, run]) =>
      Effect.gen(function*() {
        const { log, memory, storage } = yield* setup([{
          operation,
          times: Infinity,
          error: (struck) => new StorageError.AccessDenied({ ...struck, reason: "no" })
        }])
        yield* memory.save("k", bytes(10))
        const error = yield* Effect.flip(run(storage))
        expect(error, operation).toMatchObject({ _tag: "AccessDenied", reason: "no" })
        expect(count(log, operation), operation).toBe(1)
      })))

  it.effect("can be piped to, and refuses a policy that is not a Schedule", () =>
    Effect.gen(function*() {
      const memory = yield* MemoryStorage.make()
      const piped = yield* memory.pipe(StorageRetry.make(Schedule.recurs(1)))
      expect(piped.backend.name).toBe("Retry(Memory)")
      const error = yield* Effect.flip(StorageRetry.make(memory, 3 as never))
      expect(error).toMatchObject({ _tag: "InvalidOptions", module: "StorageRetry", option: "policy" })
      expect(error.message).toBe("StorageRetry: policy must be a Schedule (got 3)")
    }))

  it.effect("is provided by its layers", () =>
    Effect.gen(function*() {
      const policy = Config.map(Config.integer("RETRIES"), Schedule.recurs)
      const layers = [StorageRetry.layer(), StorageRetry.layerConfig(policy)]
      for (const layer of layers) {
        const { backend } = yield* Effect.provide(Storage.Storage, Layer.provide(layer, MemoryStorage.layer()))
        expect(backend.name).toBe("Retry(Memory)")
      }
    }).pipe(Effect.withConfigProvider(ConfigProvider.fromMap(new Map([["RETRIES", "2"]])))))

  it.effect("never retries mistakes of the caller", () =>
    Effect.gen(function*() {
      const { log, memory, storage } = yield* setup([])
      const { etag } = yield* memory.save("k", bytes(10))
      const mistakes: ReadonlyArray<
        readonly [tag: StorageError.StorageError["_tag"], Effect.Effect<unknown, StorageError.StorageError>]
      > = [
        ["ObjectNotFound", storage.load("missing")],
        ["InvalidRange", storage.load("k", { range: ByteRange.from(10) })],
        ["ObjectNotModified", storage.load("k", { ifNoneMatch: etag })],
        ["PreconditionFailed", storage.load("k", { ifMatch: "other" })],
        ["PreconditionFailed", storage.save("k", bytes(1), { ifMatch: "other" })],
        ["ObjectAlreadyExists", storage.save("k", bytes(1), { ifNoneMatch: "*" })],
        ["ObjectNotFound", storage.copy("missing", "new")],
        ["ObjectNotFound", storage.move("missing", "new")]
      ]
      for (const [tag, effect] of mistakes) {
        log.length = 0
        expect((yield* Effect.flip(effect))._tag).toBe(tag)
        expect(log.length, tag).toBe(1)
      }
    }))

  it.effect("retries a timeout and a truncated body, but not a wrong checksum", () =>
    Effect.gen(function*() {
      const corrupt = (problem: "truncated" | "checksum"): StorageChaos.Rule => ({
        operation: "load",
        error: (struck) => new StorageError.CorruptObject({ ...struck, problem, reason: "bad" })
      })
      const { log, memory, storage } = yield* setup([
        {
          operation: "load",
          error: (struck) => new StorageError.StorageTimeout({ ...struck, limit: Duration.seconds(30) })
        },
        corrupt("truncated"),
        corrupt("checksum")
      ])
      yield* memory.save("k", bytes(10))
      expect(yield* Effect.flip(storage.load("k"))).toMatchObject({ problem: "checksum" })
      expect(count(log, "load")).toBe(3)
    }))

  it.effect("repeats a load with the same options", () =>
    Effect.gen(function*() {
      const { log, memory, storage } = yield* setup([{ operation: "load" }])
      yield* memory.save("k", bytes(10))
      yield* storage.load("k", { range: ByteRange.last(4) })
      expect(log).toEqual(Array(2).fill(`load {"range":{"length":4,"_tag":"Last"}}`))
    }))

  it.effect("waits as the policy says, by default RetryPolicy.default", () =>
    Effect.gen(function*() {
      const begun: Array<number> = []
      const memory = yield* MemoryStorage.make()
      const inner = yield* StorageChaos.make(memory, [{
        operation: "load",
        times: Infinity,
        error: (struck) =>
          new StorageError.StorageUnavailable({
            ...struck,
            reason: "busy",
            ...(begun.length === 3 && { retryAfter: Duration.seconds(20) })
          })
      }])
      const timed = Storage.make({
        ...inner.backend,
        load: (key, options) =>
          Effect.flatMap(Clock.currentTimeMillis, (now) => {
            begun.push(now)
            return inner.backend.load(key, options)
          })
      })
      const storage = yield* timed.pipe(StorageRetry.make())
      const failed = yield* storage.load("k").pipe(
        Effect.flip,
        Effect.withRandom(Random.fixed([1])),
        Effect.fork
      )
      yield* TestClock.adjust("10 minutes")
      expect(yield* Fiber.join(failed)).toMatchObject({ _tag: "StorageUnavailable", attempts: 11 })
      expect(begun.map((time, i) => time - (begun[i - 1] ?? time))).toEqual(
        [0, 100, 200, 20_000, 800, 1600, 3200, 6400, 12_800, 15_000, 15_000]
      )
    }))

  it.effect("starts the policy anew for each operation", () =>
    Effect.gen(function*() {
      const { memory, storage } = yield* setup([{ operation: "load", times: 6 }])
      yield* memory.save("k", bytes(10))
      expect(yield* Effect.flip(storage.load("k"))).toMatchObject({ attempts: 4 })
      expect(yield* storage.load("k")).toEqual(bytes(10))
    }))

  it.effect("stops at once when it is interrupted while it waits", () =>
    Effect.gen(function*() {
      const { log, memory, storage } = yield* setup([always("open"), always("load")], Schedule.spaced("1 hour"))
      yield* memory.save("k", bytes(10))
      for (const effect of [storage.load("k"), gather(storage.stream("k"))]) {
        const fiber = yield* Effect.fork(effect)
        yield* TestClock.adjust("90 minutes")
        yield* Fiber.interrupt(fiber)
      }
      expect(count(log, "load")).toBe(2)
      expect(log.filter((line) => !line.startsWith("load"))).toEqual(["open {}", "close", "open {}", "close"])
    }))
})

describe("StorageRetry, streams", () => {
  it.effect("go on at the byte where they broke, under the etag of the first response", () =>
    Effect.gen(function*() {
      const { log, memory, storage } = yield* setup([{ operation: "open", afterBytes: 7 }])
      const { etag } = yield* memory.save("k", bytes(20))
      expect(yield* gather(storage.stream("k"))).toEqual(bytes(20))
      expect(log).toEqual([
        "open {}",
        "close",
        `open {"range":{"start":7,"endExclusive":20,"_tag":"Bounded"},"ifMatch":"${etag}"}`,
        "close"
      ])
    }))

  it.effect("go on in chunks of the same size", () =>
    Effect.gen(function*() {
      const { log, memory, storage } = yield* setup([{ operation: "open", afterBytes: 7 }])
      yield* memory.save("k", bytes(20))
      const sizes = yield* Stream.runCollect(Stream.map(storage.stream("k", { chunkSize: 5 }), ({ length }) => length))
      expect([...sizes]).toEqual([5, 2, 5, 5, 3])
      expect(log.filter((line) => line.includes(`"chunkSize":5`))).toHaveLength(2)
    }))

  it.effect("go on within the range, without ifNoneMatch", () =>
    Effect.gen(function*() {
      const { log, memory, storage } = yield* setup([
        { operation: "open", afterBytes: 2 },
        { operation: "open", afterBytes: 3 }
      ])
      const { etag } = yield* memory.save("k", bytes(20))
      const rest = (start: number) =>
        `open {"range":{"start":${start},"endExclusive":20,"_tag":"Bounded"},"ifMatch":"${etag}"}`
      const read = gather(storage.stream("k", { range: ByteRange.last(8), ifNoneMatch: "other" }))
      expect(yield* read).toEqual(bytes(20).slice(12))
      expect(log.filter((line) => line !== "close")).toEqual([
        `open {"range":{"length":8,"_tag":"Last"},"ifNoneMatch":"other"}`,
        rest(14),
        rest(17)
      ])

      const bounded = yield* setup([{ operation: "open", afterBytes: 2 }])
      yield* bounded.memory.save("k", bytes(20))
      expect(yield* gather(bounded.storage.stream("k", { range: ByteRange.make(3, 9) }))).toEqual(bytes(20).slice(3, 9))
    }))

  it.effect("keep the metadata and range of the first response", () =>
    Effect.gen(function*() {
      const { memory, storage } = yield* setup([{ operation: "open" }, { operation: "open", afterBytes: 1 }])
      const info = yield* memory.save("k", bytes(20))
      yield* Effect.scoped(Effect.gen(function*() {
        const opened = yield* storage.open("k", { range: ByteRange.from(5) })
        expect(opened.info).toEqual(info)
        expect(opened.range).toEqual({ start: 5, endExclusive: 20 })
        expect(yield* gather(opened.stream)).toEqual(bytes(20).slice(5))
      }))
    }))

  const MiB = 1024 * 1024
  it.effect("yield every byte once when they break at the beginning, the end, or around the boundary of a chunk", () =>
    Effect.forEach(
      [0, 1, MiB - 1, MiB, MiB + 1, 2 * MiB, 2 * MiB + 99, 2 * MiB + 100],
      (afterBytes) =>
        Effect.gen(function*() {
          const { log, memory, storage } = yield* setup([{ operation: "open", afterBytes }])
          const content = bytes(2 * MiB + 100)
          yield* memory.save("k", content)
          const read = yield* gather(storage.stream("k"))
          expect(Buffer.compare(read, content), `cut after ${afterBytes}`).toBe(0)
          // After the last byte there is nothing left to ask for.
          expect(count(log, "open")).toBe(afterBytes === content.length ? 1 : 2)
          expect(count(log, "close")).toBe(count(log, "open"))
        })
    ))

  it.effect("fail where all bytes arrived but their checksum is wrong", () =>
    Effect.gen(function*() {
      const { memory, storage } = yield* setup([{
        operation: "open",
        afterBytes: 20,
        error: (struck) => new StorageError.CorruptObject({ ...struck, problem: "checksum", reason: "wrong" })
      }])
      yield* memory.save("k", bytes(20))
      expect(yield* Effect.flip(gather(storage.stream("k")))).toMatchObject({ problem: "checksum" })
    }))

  it.effect("do not open an empty object again", () =>
    Effect.gen(function*() {
      const { log, memory, storage } = yield* setup([{ operation: "open", afterBytes: 0 }])
      yield* memory.save("k", bytes(0))
      expect(yield* gather(storage.stream("k"))).toEqual(bytes(0))
      expect(count(log, "open")).toBe(1)
    }))

  it.effect.prop(
    "yield every byte once, whatever the size and wherever they break, however often",
    [
      FastCheck.integer({ min: 0, max: 300 }),
      FastCheck.array(FastCheck.integer({ min: 0, max: 120 }), { maxLength: 8 })
    ],
    ([size, cuts]) =>
      Effect.gen(function*() {
        const { log, memory, storage } = yield* setup(
          cuts.map((afterBytes) => ({ operation: "open", afterBytes })),
          Schedule.recurs(cuts.length)
        )
        yield* memory.save("k", bytes(size))
        expect(yield* gather(storage.stream("k"))).toEqual(bytes(size))
        expect(count(log, "close")).toBe(count(log, "open"))
      }),
    { fastCheck: { numRuns: 150 } }
  )

  it.effect("fail instead of joining two versions when the object is overwritten meanwhile", () =>
    Effect.gen(function*() {
      const { log, memory, storage } = yield* setup([{ operation: "open", afterBytes: 7, times: Infinity }])
      yield* memory.save("k", bytes(20))
      const seen = yield* Ref.make(0)
      const error = yield* storage.stream("k").pipe(
        Stream.runForEach((part) =>
          Effect.zipRight(Ref.update(seen, (n) => n + part.length), memory.save("k", bytes(20).reverse()))
        ),
        Effect.flip
      )
      expect(error._tag).toBe("PreconditionFailed")
      expect(yield* Ref.get(seen)).toBe(7)
      expect(log.filter((line) => line.startsWith("open")).length).toBe(2)
      expect(count(log, "close")).toBe(2)
    }))

  it.effect("fail when the object is removed meanwhile", () =>
    Effect.gen(function*() {
      const { memory, storage } = yield* setup([{ operation: "open", afterBytes: 7 }])
      yield* memory.save("k", bytes(20))
      const removing = Stream.tap(storage.stream("k"), () => memory.remove("k"))
      expect((yield* Effect.flip(Stream.runDrain(removing)))._tag).toBe("ObjectNotFound")
    }))

  it.effect("treat a stream that ends early without a failure as broken", () =>
    Effect.gen(function*() {
      const log: Array<string> = []
      const memory = yield* MemoryStorage.make()
      yield* memory.save("k", bytes(20))
      const short = (bytes: number) =>
        Storage.make({
          ...memory.backend,
          open: (key, options) =>
            Effect.map(memory.backend.open(key, options), ({ info, range, stream }) =>
              StorageBackend.opened({
                info,
                range,
                stream: Stream.map(stream, (part) => part.subarray(0, bytes))
              }))
        })
      const storage = yield* StorageRetry.make(recording(short(6), log), Schedule.recurs(1))
      expect(yield* gather(storage.stream("k"))).toEqual(bytes(20))
      expect(count(log, "open")).toBe(4)

      const empty = yield* StorageRetry.make(short(0), Schedule.recurs(2))
      const never = yield* Effect.flip(gather(empty.stream("k")))
      expect(never).toMatchObject({ _tag: "CorruptObject", problem: "truncated", attempts: 3 })
      expect(never.message).toContain("the body ended after 0 of 20 bytes")
    }))

  it.effect("start the policy anew whenever bytes have arrived", () =>
    Effect.gen(function*() {
      // It breaks after every second byte, far more often than one retry would allow.
      const { log, memory, storage } = yield* setup(
        [{ operation: "open", afterBytes: 2, times: Infinity }],
        Schedule.recurs(1)
      )
      yield* memory.save("k", bytes(100))
      expect(yield* gather(storage.stream("k"))).toEqual(bytes(100))
      expect(count(log, "open")).toBe(50)
    }))

  it.effect("wait longer each time until bytes arrive, and then start from the shortest wait", () =>
    Effect.gen(function*() {
      // Each opening fails, breaks after a number of bytes, or neither.
      const script = ["fails", "fails", 0, 5, "fails", 0, 1, "fails", "lasts"]
      const opened: Array<number> = []
      const memory = yield* MemoryStorage.make()
      yield* memory.save("k", bytes(20))
      const unavailable = new StorageError.StorageUnavailable({ reason: "down" })
      const storage = Storage.make({
        ...memory.backend,
        open: (key, options) =>
          Effect.flatMap(Clock.currentTimeMillis, (now) => {
            const fate = script[opened.length]
            opened.push(now)
            return fate === "fails" ? Effect.fail(unavailable) : Effect.map(
              memory.backend.open(key, options),
              (opened) =>
                typeof fate !== "number" ? opened : StorageBackend.opened({
                  info: opened.info,
                  range: opened.range,
                  stream: Stream.concat(
                    Stream.map(opened.stream, (part) => part.subarray(0, fate)),
                    Stream.fail(unavailable)
                  )
                })
            )
          })
      })
      const retrying = yield* StorageRetry.make(storage)
      const fiber = yield* gather(retrying.stream("k")).pipe(
        Effect.withRandom(Random.fixed([1])),
        Effect.fork
      )
      yield* TestClock.adjust("1 minute")
      expect(yield* Fiber.join(fiber)).toEqual(bytes(20))
      expect(opened.map((time, i) => time - (opened[i - 1] ?? time))).toEqual(
        [0, 100, 200, 400, 100, 200, 400, 100, 200]
      )
    }))

  it.effect("count failures to open together with streams that yield no byte", () =>
    Effect.gen(function*() {
      const { log, memory, storage } = yield* setup([
        { operation: "open", times: 2 },
        { operation: "open", afterBytes: 0, times: Infinity }
      ])
      yield* memory.save("k", bytes(20))
      const outer = yield* StorageRetry.make(storage, Schedule.recurs(9))
      expect(yield* Effect.flip(gather(outer.stream("k")))).toMatchObject({ attempts: 4 })
      expect(count(log, "open")).toBe(4)
      expect(count(log, "close")).toBe(4)
    }))

  it.effect("yield the bytes before the final failure, and then fail", () =>
    Effect.gen(function*() {
      const { memory, storage } = yield* setup([{ operation: "open", afterBytes: 5 }], Schedule.recurs(0))
      yield* memory.save("k", bytes(20))
      const parts: Array<number> = []
      const error = yield* storage.stream("k").pipe(
        Stream.runForEach((part) => Effect.sync(() => void parts.push(...part))),
        Effect.flip
      )
      expect(Uint8Array.from(parts)).toEqual(bytes(20).slice(0, 5))
      expect(error).toMatchObject({ _tag: "StorageUnavailable", attempts: 1 })
    }))

  it.effect("close what broke before they wait, and leave nothing open when they are interrupted while they wait", () =>
    Effect.gen(function*() {
      const { log, memory, storage } = yield* setup(
        [{ operation: "open", afterBytes: 5, times: Infinity }],
        Schedule.spaced("1 hour")
      )
      yield* memory.save("k", bytes(20))
      const fiber = yield* Effect.fork(gather(storage.stream("k")))
      yield* TestClock.adjust("90 minutes")
      expect(log.map((line) => line.split(" ")[0])).toEqual(["open", "close", "open", "close"])
      yield* Fiber.interrupt(fiber)
      yield* TestClock.adjust("1 day")
      expect(count(log, "open")).toBe(2)
    }))

  it.effect("end the stream that broke, close it, wait, and only then open the next", () =>
    Effect.gen(function*() {
      const order: Array<string> = []
      const { failing, memory } = yield* setup([{ operation: "open", afterBytes: 5 }])
      yield* memory.save("k", bytes(20))
      const note = (event: string) => Effect.sync(() => void order.push(event))
      const noting = Storage.make({
        ...failing.backend,
        open: (key, options) =>
          Effect.acquireRelease(note("open"), () => note("close")).pipe(
            Effect.zipRight(failing.backend.open(key, options)),
            Effect.map((opened) => StorageBackend.mapStream(opened, Stream.ensuring(note("end"))))
          )
      })
      const policy = Schedule.tapOutput(Schedule.recurs(1), () => note("wait"))
      const storage = yield* StorageRetry.make(noting, policy)
      yield* Stream.runDrain(storage.stream("k"))
      expect(order).toEqual(["open", "end", "close", "wait", "open", "end", "close"])
    }))

  it.effect("leave nothing open when the consumer stops early", () =>
    Effect.gen(function*() {
      const { log, memory, storage } = yield* setup([{ operation: "open", afterBytes: 5, times: 2 }])
      yield* memory.save("k", bytes(20))
      const taken = yield* Stream.runCollect(Stream.take(storage.stream("k"), 2))
      expect(Chunk.toArray(taken)).toEqual([bytes(20).slice(0, 5), bytes(20).slice(5, 10)])
      expect(log.map((line) => line.split(" ")[0])).toEqual(["open", "close", "open", "close"])
    }))

  it.effect("leave nothing open when the scope of an opened object ends", () =>
    Effect.gen(function*() {
      const { log, memory, storage } = yield* setup([{ operation: "open", times: 1 }])
      yield* memory.save("k", bytes(20))
      const scope = yield* Scope.make()
      yield* Scope.extend(storage.open("k"), scope)
      expect(log).toEqual(["open {}", "close", "open {}"])
      yield* Scope.close(scope, Exit.void)
      expect(log).toEqual(["open {}", "close", "open {}", "close"])
    }))

  it.effect("leave nothing open when they break after the scope has ended", () =>
    Effect.gen(function*() {
      const { log, memory, storage } = yield* setup([{ operation: "open", afterBytes: 5 }])
      yield* memory.save("k", bytes(20))
      const { stream } = yield* Effect.scoped(storage.open("k"))
      yield* Stream.runDrain(stream)
      expect(count(log, "close")).toBe(count(log, "open"))
    }))

  it.effect("start from the beginning when they are run again", () =>
    Effect.gen(function*() {
      const { memory, storage } = yield* setup([{ operation: "open", afterBytes: 5, times: 3 }])
      yield* memory.save("k", bytes(20))
      const stream = storage.stream("k")
      expect(yield* gather(stream)).toEqual(bytes(20))
      expect(yield* gather(stream)).toEqual(bytes(20))
    }))
})

describe("StorageRetry, writes", () => {
  it.effect("repeat a save of bytes as a whole", () =>
    Effect.gen(function*() {
      const { memory, storage } = yield* setup([
        { operation: "save" },
        { operation: "save", afterBytes: 5 },
        lost("save")
      ])
      const info = yield* storage.save("k", bytes(10))
      expect(yield* memory.head("k")).toEqual(info)
      expect(yield* memory.load("k")).toEqual(bytes(10))
    }))

  it.effect("do not retry a save of a stream, and leave its failure retryable", () =>
    Effect.gen(function*() {
      const rules: ReadonlyArray<StorageChaos.Rule> = [
        { operation: "save" },
        { operation: "save", afterBytes: 4 },
        lost("save")
      ]
      for (const rule of rules) {
        const { log, storage } = yield* setup([rule])
        let runs = 0
        const source = Stream.concat(Stream.execute(Effect.sync(() => void runs++)), Stream.make(bytes(5), bytes(5)))
        const error = yield* Effect.flip(storage.save("k", source))
        expect(error).toMatchObject({ _tag: "StorageUnavailable", reason: "injected" })
        expect(StorageError.isRetryable(error)).toBe(true)
        expect(count(log, "save")).toBe(1)
        expect(runs).toBeLessThanOrEqual(1)
      }
    }))

  it.effect("do not retry failures of the source, even if they are those of another storage", () =>
    Effect.gen(function*() {
      const { log, memory, storage } = yield* setup([])
      const other = yield* setup([always("open")])
      const direct = yield* Effect.flip(storage.save("k", other.failing.stream("k")))
      expect(direct).toMatchObject({ backend: "Chaos(Memory)", operation: "stream" })
      const own = new Error("mine")
      expect(yield* Effect.flip(storage.save("k", Stream.fail(own)))).toBe(own)
      expect(count(log, "save")).toBe(2)
      expect(count(other.log, "open")).toBe(1)
      expect(yield* memory.exists("k")).toBe(false)
    }))

  const inDoubt = {
    _tag: "StorageUnavailable",
    attempts: 2,
    cause: { _tag: "StorageUnavailable", reason: "injected" }
  }

  it.effect("do not report ObjectAlreadyExists or PreconditionFailed when the response to a conditional save was lost", () =>
    Effect.gen(function*() {
      const created = yield* setup([lost("save")])
      const createError = yield* Effect.flip(created.storage.save("k", bytes(3), { ifNoneMatch: "*" }))
      expect(createError).toMatchObject({ ...inDoubt, operation: "save", key: "k" })
      expect(createError.message).toContain("may have been carried out")
      expect(createError.message).toContain("ObjectAlreadyExists")
      expect(StorageError.isRetryable(createError)).toBe(false)
      expect(yield* created.memory.load("k")).toEqual(bytes(3))

      const swapped = yield* setup([lost("save")])
      const { etag } = yield* swapped.memory.save("k", bytes(3))
      const swapError = yield* Effect.flip(swapped.storage.save("k", bytes(4), { ifMatch: etag }))
      expect(swapError).toMatchObject(inDoubt)
      expect(yield* swapped.memory.load("k")).toEqual(bytes(4))
    }))

  it.effect("report a doubt also when the failed attempt did nothing, since that cannot be known", () =>
    Effect.gen(function*() {
      const { log, memory, storage } = yield* setup([{ operation: "save", times: 2 }])
      yield* memory.save("k", bytes(3))
      const error = yield* Effect.flip(storage.save("k", bytes(4), { ifNoneMatch: "*" }))
      expect(error).toMatchObject({ ...inDoubt, attempts: 3 })
      expect(count(log, "save")).toBe(3)
    }))

  it.effect("do not report ObjectAlreadyExists or ObjectNotFound when the response to a copy or move was lost", () =>
    Effect.gen(function*() {
      const copied = yield* setup([lost("copy")])
      yield* copied.memory.save("k", bytes(3))
      const copyError = yield* Effect.flip(copied.storage.copy("k", "new", { ifNoneMatch: "*" }))
      expect(copyError).toMatchObject({ ...inDoubt, operation: "copy" })

      for (const options of [{}, { ifNoneMatch: "*" } as const]) {
        const moved = yield* setup([lost("move")])
        yield* moved.memory.save("k", bytes(3))
        const moveError = yield* Effect.flip(moved.storage.move("k", "new", options))
        expect(moveError).toMatchObject({ ...inDoubt, operation: "move" })
        expect(yield* moved.memory.list()).toEqual(["new"])
      }
    }))

  it.effect("do not report ObjectAlreadyExists when only the copy of a move was carried out", () =>
    Effect.gen(function*() {
      const memory = yield* MemoryStorage.make()
      yield* memory.save("k", bytes(3))
      const storage = yield* StorageRetry.make(
        Storage.make({
          ...memory.backend,
          // The copy succeeds, the removal fails.
          move: (from, to, options) =>
            Effect.zipRight(
              memory.backend.copy(from, to, options),
              new StorageError.StorageUnavailable({ reason: "injected" })
            )
        }),
        Schedule.recurs(3)
      )
      const error = yield* Effect.flip(storage.move("k", "new", { ifNoneMatch: "*" }))
      expect(error).toMatchObject({ ...inDoubt, operation: "move", key: "k" })
    }))

  it.effect("do not report PreconditionFailed when the response to a conditional removal was lost", () =>
    Effect.gen(function*() {
      const { memory, storage } = yield* setup([lost("remove")])
      const { etag } = yield* memory.save("k", bytes(3))
      expect(yield* Effect.flip(storage.remove("k", { ifMatch: etag }))).toMatchObject(inDoubt)
      expect(yield* memory.exists("k")).toBe(false)
      yield* memory.save("k", bytes(3))
      const error = yield* Effect.flip(storage.remove("k", { ifMatch: "other" }))
      expect(error._tag).toBe("PreconditionFailed")
    }))

  it.effect("repeat what can be repeated when its response was lost", () =>
    Effect.gen(function*() {
      const { memory, storage } = yield* setup([lost("save"), lost("copy"), lost("remove"), lost("removeAll")])
      yield* storage.save("k", bytes(3))
      yield* storage.copy("k", "new")
      yield* storage.remove("k")
      expect(yield* memory.list()).toEqual(["new"])
      expect(yield* storage.removeAll(["new"])).toEqual({ removed: 1, failed: [] })
    }))

  it.effect("report a missing source of a copy that failed before", () =>
    Effect.gen(function*() {
      const { storage } = yield* setup([{ operation: "copy" }])
      expect((yield* Effect.flip(storage.copy("missing", "new")))._tag).toBe("ObjectNotFound")
    }))
})

describe("StorageRetry, listings", () => {
  const keys = Array.from({ length: 20 }, (_, i) => `k${String(i).padStart(2, "0")}`)

  /** A memory storage of these keys whose listings break after so many keys, once for each number given. */
  const breaking = (cuts: Array<number>, log: Array<string>) =>
    Effect.gen(function*() {
      const memory = yield* MemoryStorage.make()
      yield* Effect.forEach(keys, (key) => memory.save(key, bytes(1)))
      const cut = <A>(listing: Stream.Stream<A, StorageError.ListError>) =>
        Stream.suspend(() => {
          const n = cuts.shift()
          return n === undefined ? listing : Stream.concat(
            Stream.take(listing, n),
            Stream.fail(new StorageError.StorageUnavailable({ reason: "down" }))
          )
        })
      return recording(
        Storage.make({
          ...memory.backend,
          entries: (options) => cut(memory.backend.entries(options)),
          keys: (options) => cut(memory.backend.keys(options))
        }),
        log
      )
    })

  it.effect("go on after the last key that arrived, with the same prefix", () =>
    Effect.gen(function*() {
      const log: Array<string> = []
      const storage = yield* StorageRetry.make(yield* breaking([0, 3, 2], log), Schedule.recurs(1))
      const entries = yield* Stream.runCollect(storage.entries({ prefix: "k0", startAfter: "k01" }))
      expect(Chunk.toArray(entries).map(({ key }) => key)).toEqual(keys.slice(2, 10))
      expect(log).toEqual([
        `entries {"prefix":"k0","startAfter":"k01"}`,
        `entries {"prefix":"k0","startAfter":"k01"}`,
        `entries {"prefix":"k0","startAfter":"k04"}`,
        `entries {"prefix":"k0","startAfter":"k06"}`
      ])
    }))

  it.effect.prop(
    "yield every key once and in order, wherever and however often they break",
    [FastCheck.array(FastCheck.integer({ min: 0, max: 22 }), { maxLength: 8 })],
    ([cuts]) =>
      Effect.gen(function*() {
        const policy = Schedule.recurs(cuts.length)
        const listing = yield* StorageRetry.make(yield* breaking([...cuts], []), policy)
        expect(yield* listing.list()).toEqual(keys)
        const again = yield* StorageRetry.make(yield* breaking([...cuts], []), policy)
        const entries = yield* Stream.runCollect(again.entries())
        expect(Chunk.toArray(entries).map(({ key }) => key)).toEqual(keys)
      })
  )

  it.effect("start the policy anew whenever a page has arrived", () =>
    Effect.gen(function*() {
      const log: Array<string> = []
      const often = yield* StorageRetry.make(yield* breaking(Array<number>(20).fill(1), log), Schedule.recurs(1))
      expect(yield* often.list()).toEqual(keys)
      expect(log.length).toBe(21)
      const stuck = yield* StorageRetry.make(yield* breaking([0, 4, 0, 0], []), Schedule.recurs(2))
      expect(yield* Effect.flip(stuck.list())).toMatchObject({ _tag: "StorageUnavailable", attempts: 3 })
    }))

  it.effect("start from the first key when they are run again", () =>
    Effect.gen(function*() {
      const cuts = [5, 5]
      const storage = yield* StorageRetry.make(yield* breaking(cuts, []), Schedule.recurs(1))
      const listing = Stream.map(storage.backend.entries({}), ({ key }) => key)
      expect(Chunk.toArray(yield* Stream.runCollect(listing))).toEqual(keys)
      cuts.push(0)
      expect(Chunk.toArray(yield* Stream.runCollect(listing))).toEqual(keys)
    }))
})

describe("StorageRetry, removeAll", () => {
  const save = (memory: Storage.Service) =>
    Effect.forEach(["a", "b", "c", "d"], (key) => memory.save(key, bytes(1)), { discard: true })

  const denied = (struck: StorageChaos.Target) => new StorageError.AccessDenied({ ...struck, reason: "no" })

  it.effect("retries only the keys that failed with something retryable", () =>
    Effect.gen(function*() {
      const { log, memory, storage } = yield* setup([
        { operation: "removeAll", key: "b", times: 2 },
        { operation: "removeAll", key: "c", times: Infinity, error: denied },
        { operation: "removeAll", key: "d", times: 1 }
      ])
      yield* save(memory)
      const { failed, removed } = yield* storage.removeAll(["a", "b", "c", "d"])
      expect(removed).toBe(3)
      expect(failed).toMatchObject([{ _tag: "AccessDenied", key: "c" }])
      expect(yield* memory.list()).toEqual(["c"])
      expect(log).toEqual([
        `removeAll ["a","b","c","d"]`,
        `removeAll ["b","d"]`,
        `removeAll ["b"]`
      ])
    }))

  it.effect("returns a failure for each key that remains when the policy ends, marked as exhausted", () =>
    Effect.gen(function*() {
      const { memory, storage } = yield* setup([
        { operation: "removeAll", key: (key) => key === "b" || key === "d", times: Infinity },
        { operation: "removeAll", key: "c", times: Infinity, error: denied }
      ])
      yield* save(memory)
      const { failed, removed } = yield* storage.removeAll(["a", "b", "c", "d"])
      expect(removed).toBe(1)
      expect(failed.map(({ key }) => key)).toEqual(["c", "b", "d"])
      expect(failed.slice(1)).toMatchObject([{ attempts: 4 }, { attempts: 4 }])
      expect(failed.some(StorageError.isRetryable)).toBe(false)
    }))

  it.effect("returns a failure for each key that remains when the store cannot be reached after it removed some", () =>
    Effect.gen(function*() {
      const { memory } = yield* setup([])
      let calls = 0
      yield* save(memory)
      const unavailable = new StorageError.StorageUnavailable({ reason: "down" })
      const storage = yield* StorageRetry.make(
        Storage.make({
          ...memory.backend,
          removeAll: (keys) =>
            calls++ > 0 ? Effect.fail(unavailable) : Effect.as(
              Effect.forEach(keys.slice(1), (key) => memory.backend.remove(key, {})),
              [new StorageError.StorageTimeout({ key: "a", limit: Duration.seconds(1) })]
            )
        }),
        Schedule.recurs(2)
      )
      const { failed, removed } = yield* storage.removeAll(["a", "b", "c", "d"])
      expect(removed).toBe(3)
      expect(failed).toMatchObject([{ _tag: "StorageTimeout", key: "a", attempts: 3 }])
      expect(calls).toBe(3)
    }))
})

StorageContract.suite("StorageRetry(Memory)", {
  layer: StorageRetry.layer().pipe(Layer.provide(MemoryStorage.layer()))
})
