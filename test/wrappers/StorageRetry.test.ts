/**
 * What a retrying storage makes of failures: on virtual time, over a memory storage that fails by rule, with what the
 * inner storage is asked for written down between the two.
 */
import { describe, expect, it } from "@effect/vitest"
import {
  Chunk,
  Clock,
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
import { ByteRange, MemoryStorage, Storage, StorageChaos, StorageError, StorageRetry } from "surfing-weights"
import * as StorageContract from "surfing-weights/StorageContract"

const bytes = (length: number) => Uint8Array.from({ length }, (_, i) => (i * 31 + (i >> 8) * 7) % 251)

const gather = <E, R>(stream: Stream.Stream<Uint8Array, E, R>) =>
  Effect.map(Stream.runCollect(stream), (parts) => new Uint8Array(Buffer.concat(Chunk.toArray(parts))))

/** Writes down what a storage is asked for, and when what it opened is closed. */
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
    remove: (key) => noted(backend.remove(key), "remove"),
    removeAll: (keys) => noted(backend.removeAll(keys), "removeAll", keys),
    copy: (from, to, options) => noted(backend.copy(from, to, options), "copy"),
    move: (from, to, options) => noted(backend.move(from, to, options), "move"),
    presign: (key, options) => noted(backend.presign(key, options), "presign")
  })
}

/** A retrying storage over a recording one over one with rules over `memory`, which neither hears nor fails. */
const setup = (
  rules: ReadonlyArray<StorageChaos.Rule>,
  policy: RetryPolicy.RetryPolicy = Schedule.recurs(3)
) =>
  Effect.gen(function*() {
    const log: Array<string> = []
    const memory = yield* MemoryStorage.make()
    const failing = recording(yield* StorageChaos.make(memory, rules), log)
    return { log, memory, failing, storage: StorageRetry.make(failing, policy) }
  })

const always = (operation: StorageChaos.Operation): StorageChaos.Rule => ({ operation, times: Infinity })

const lost = (operation: StorageChaos.Operation): StorageChaos.Rule => ({ operation, when: "after" })

/** Every operation that is repeated as a whole, by its name on the backend. */
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
  it.effect("shows itself in the name and can what the inner storage can", () =>
    Effect.gen(function*() {
      const { failing, storage } = yield* setup([])
      expect(storage.backend.name).toBe("Retry(Chaos(Memory))")
      expect(storage.backend.capabilities).toBe(failing.backend.capabilities)
    }))

  it.effect("tries every operation again until it succeeds, and gives what the storage gives", () =>
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
        expect(error, operation).toMatchObject({ _tag: "StorageUnavailable", operation, attempts: 4 })
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
        const outer = StorageRetry.make(recording(storage, between), Schedule.recurs(9))
        expect(yield* Effect.flip(run(outer)), operation).toMatchObject({ attempts: 4 })
        expect(count(log, operation), operation).toBe(4)
        expect(count(between, operation), operation).toBe(1)
      })))

  it.effect("never retries a failure that trying again does not mend", () =>
    Effect.forEach(repeatable, ([operation, run]) =>
      Effect.gen(function*() {
        const { log, memory, storage } = yield* setup([{
          operation,
          times: Infinity,
          error: (struck) => new StorageError.AccessDenied({ ...struck, reason: "no" })
        }])
        yield* memory.save("k", bytes(10))
        const error = yield* Effect.flip(run(storage))
        expect(error, operation).toMatchObject({ _tag: "AccessDenied", operation })
        expect(count(log, operation), operation).toBe(1)
      })))

  it.effect("never retries the caller's mistakes", () =>
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

  it.effect("retries an idle limit and a truncated body, but not a wrong checksum", () =>
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

  it.effect("asks for the very same thing again, a load without conditions of its own", () =>
    Effect.gen(function*() {
      const { log, memory, storage } = yield* setup([{ operation: "load" }])
      yield* memory.save("k", bytes(10))
      yield* storage.load("k", { range: ByteRange.last(4) })
      expect(log).toEqual(Array(2).fill(`load {"range":{"length":4,"_tag":"Last"}}`))
    }))

  it.effect("waits as the policy says, by default as RetryPolicy.default", () =>
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
      const failed = yield* StorageRetry.make(timed).load("k").pipe(
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

  it.effect("begins each operation with a fresh policy", () =>
    Effect.gen(function*() {
      const { memory, storage } = yield* setup([{ operation: "load", times: 6 }])
      yield* memory.save("k", bytes(10))
      expect(yield* Effect.flip(storage.load("k"))).toMatchObject({ attempts: 4 })
      expect(yield* storage.load("k")).toEqual(bytes(10))
    }))

  it.effect("ends at once when it is interrupted while it waits", () =>
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
  it.effect("goes on at the byte where it broke, under the etag of the first answer", () =>
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

  it.effect("goes on in chunks of the size that was asked for", () =>
    Effect.gen(function*() {
      const { log, memory, storage } = yield* setup([{ operation: "open", afterBytes: 7 }])
      yield* memory.save("k", bytes(20))
      const sizes = yield* Stream.runCollect(Stream.map(storage.stream("k", { chunkSize: 5 }), ({ length }) => length))
      expect([...sizes]).toEqual([5, 2, 5, 5, 3])
      expect(log.filter((line) => line.includes(`"chunkSize":5`))).toHaveLength(2)
    }))

  it.effect("goes on within the range that was asked for, without the condition that was met", () =>
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

  it.effect("tells of the whole object and range, whatever breaks", () =>
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
  it.effect("yields every byte once, cut at the beginning, the end, or around the bounds of a chunk", () =>
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

  it.effect("fails where all bytes came but turn out to be wrong", () =>
    Effect.gen(function*() {
      const { memory, storage } = yield* setup([{
        operation: "open",
        afterBytes: 20,
        error: (struck) => new StorageError.CorruptObject({ ...struck, problem: "checksum", reason: "wrong" })
      }])
      yield* memory.save("k", bytes(20))
      expect(yield* Effect.flip(gather(storage.stream("k")))).toMatchObject({ problem: "checksum" })
    }))

  it.effect("does not ask again for an empty object that broke", () =>
    Effect.gen(function*() {
      const { log, memory, storage } = yield* setup([{ operation: "open", afterBytes: 0 }])
      yield* memory.save("k", bytes(0))
      expect(yield* gather(storage.stream("k"))).toEqual(bytes(0))
      expect(count(log, "open")).toBe(1)
    }))

  it.effect.prop(
    "yields every byte once, whatever the size and wherever it is cut, however often",
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

  it.effect("fails instead of splicing when the object is overwritten in between", () =>
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

  it.effect("fails when the object is removed in between", () =>
    Effect.gen(function*() {
      const { memory, storage } = yield* setup([{ operation: "open", afterBytes: 7 }])
      yield* memory.save("k", bytes(20))
      const removing = Stream.tap(storage.stream("k"), () => memory.remove("k"))
      expect((yield* Effect.flip(Stream.runDrain(removing)))._tag).toBe("ObjectNotFound")
    }))

  it.effect("takes a stream that ends early without a failure for one that broke", () =>
    Effect.gen(function*() {
      const log: Array<string> = []
      const memory = yield* MemoryStorage.make()
      yield* memory.save("k", bytes(20))
      const short = (bytes: number) =>
        Storage.make({
          ...memory.backend,
          open: (key, options) =>
            Effect.map(memory.backend.open(key, options), (opened) => ({
              ...opened,
              stream: Stream.map(opened.stream, (part) => part.subarray(0, bytes))
            }))
        })
      const read = gather(StorageRetry.make(recording(short(6), log), Schedule.recurs(1)).stream("k"))
      expect(yield* read).toEqual(bytes(20))
      expect(count(log, "open")).toBe(4)

      const never = yield* Effect.flip(gather(StorageRetry.make(short(0), Schedule.recurs(2)).stream("k")))
      expect(never).toMatchObject({ _tag: "CorruptObject", problem: "truncated", attempts: 3 })
      expect(never.message).toContain("the body ended after 0 of 20 bytes")
    }))

  it.effect("begins the policy anew whenever bytes have come", () =>
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

  it.effect("waits anew from the shortest on when bytes have come, and ever longer while none do", () =>
    Effect.gen(function*() {
      // What becomes of each opening: it fails, or breaks after so many bytes, or neither.
      const script = ["fails", "fails", 0, 5, "fails", 0, 1, "fails", "lasts"]
      const opened: Array<number> = []
      const memory = yield* MemoryStorage.make()
      yield* memory.save("k", bytes(20))
      const unavailable = new StorageError.StorageUnavailable({ backend: "X", operation: "open", reason: "down" })
      const storage = Storage.make({
        ...memory.backend,
        open: (key, options) =>
          Effect.flatMap(Clock.currentTimeMillis, (now) => {
            const fate = script[opened.length]
            opened.push(now)
            return fate === "fails" ? Effect.fail(unavailable) : Effect.map(
              memory.backend.open(key, options),
              (opened) =>
                typeof fate !== "number" ? opened : {
                  ...opened,
                  stream: Stream.concat(
                    Stream.map(opened.stream, (part) => part.subarray(0, fate)),
                    Stream.fail(unavailable)
                  )
                }
            )
          })
      })
      const fiber = yield* gather(StorageRetry.make(storage).stream("k")).pipe(
        Effect.withRandom(Random.fixed([1])),
        Effect.fork
      )
      yield* TestClock.adjust("1 minute")
      expect(yield* Fiber.join(fiber)).toEqual(bytes(20))
      expect(opened.map((time, i) => time - (opened[i - 1] ?? time))).toEqual(
        [0, 100, 200, 400, 100, 200, 400, 100, 200]
      )
    }))

  it.effect("counts attempts to open and streams without a byte together", () =>
    Effect.gen(function*() {
      const { log, memory, storage } = yield* setup([
        { operation: "open", times: 2 },
        { operation: "open", afterBytes: 0, times: Infinity }
      ])
      yield* memory.save("k", bytes(20))
      const outer = StorageRetry.make(storage, Schedule.recurs(9))
      expect(yield* Effect.flip(gather(outer.stream("k")))).toMatchObject({ attempts: 4 })
      expect(count(log, "open")).toBe(4)
      expect(count(log, "close")).toBe(4)
    }))

  it.effect("gives what had come before it failed for good, and then the failure", () =>
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

  it.effect("closes what broke before it waits, and all there is when it is interrupted while it waits", () =>
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

  it.effect("ends the stream that broke, closes it, waits, and only then opens the next", () =>
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
            Effect.map((opened) => ({ ...opened, stream: Stream.ensuring(opened.stream, note("end")) }))
          )
      })
      const policy = Schedule.tapOutput(Schedule.recurs(1), () => note("wait"))
      yield* Stream.runDrain(StorageRetry.make(noting, policy).stream("k"))
      expect(order).toEqual(["open", "end", "close", "wait", "open", "end", "close"])
    }))

  it.effect("closes all there is when the consumer stops early", () =>
    Effect.gen(function*() {
      const { log, memory, storage } = yield* setup([{ operation: "open", afterBytes: 5, times: 2 }])
      yield* memory.save("k", bytes(20))
      const taken = yield* Stream.runCollect(Stream.take(storage.stream("k"), 2))
      expect(Chunk.toArray(taken)).toEqual([bytes(20).slice(0, 5), bytes(20).slice(5, 10)])
      expect(log.map((line) => line.split(" ")[0])).toEqual(["open", "close", "open", "close"])
    }))

  it.effect("closes all there is when the scope of an opened object ends", () =>
    Effect.gen(function*() {
      const { log, memory, storage } = yield* setup([{ operation: "open", times: 1 }])
      yield* memory.save("k", bytes(20))
      const scope = yield* Scope.make()
      yield* Scope.extend(storage.open("k"), scope)
      expect(log).toEqual(["open {}", "close", "open {}"])
      yield* Scope.close(scope, Exit.void)
      expect(log).toEqual(["open {}", "close", "open {}", "close"])
    }))

  it.effect("leaves nothing open when what broke is read after its scope has ended", () =>
    Effect.gen(function*() {
      const { log, memory, storage } = yield* setup([{ operation: "open", afterBytes: 5 }])
      yield* memory.save("k", bytes(20))
      const { stream } = yield* Effect.scoped(storage.open("k"))
      yield* Stream.runDrain(stream)
      expect(count(log, "close")).toBe(count(log, "open"))
    }))

  it.effect("reads a stream again from its beginning when it is run again", () =>
    Effect.gen(function*() {
      const { memory, storage } = yield* setup([{ operation: "open", afterBytes: 5, times: 3 }])
      yield* memory.save("k", bytes(20))
      const stream = storage.stream("k")
      expect(yield* gather(stream)).toEqual(bytes(20))
      expect(yield* gather(stream)).toEqual(bytes(20))
    }))
})

describe("StorageRetry, saves", () => {
  it.effect("saves bytes again as a whole", () =>
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

  it.effect("does not retry a save of a stream, and gives its failure as it is", () =>
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
        expect(error).toMatchObject({ _tag: "StorageUnavailable", backend: "Chaos(Memory)", reason: "injected" })
        expect(StorageError.isRetryable(error)).toBe(true)
        expect(count(log, "save")).toBe(1)
        expect(runs).toBeLessThanOrEqual(1)
      }
    }))

  it.effect("does not retry for the failures of the source, though they be another storage's", () =>
    Effect.gen(function*() {
      const { log, memory, storage } = yield* setup([])
      const other = yield* setup([always("open")])
      const direct = yield* Effect.flip(storage.save("k", other.failing.stream("k")))
      expect(direct).toMatchObject({ backend: "Chaos(Memory)", operation: "open" })
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

  it.effect("does not take its own work for somebody else's when the answer to a conditional save was lost", () =>
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

  it.effect("says so too when the attempt that failed did nothing, since nobody can know", () =>
    Effect.gen(function*() {
      const { log, memory, storage } = yield* setup([{ operation: "save", times: 2 }])
      yield* memory.save("k", bytes(3))
      const error = yield* Effect.flip(storage.save("k", bytes(4), { ifNoneMatch: "*" }))
      expect(error).toMatchObject({ ...inDoubt, attempts: 3 })
      expect(count(log, "save")).toBe(3)
    }))

  it.effect("does not take its own work for somebody else's when the answer to a copy or move was lost", () =>
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

  it.effect("does not take the first half of its own move for somebody else's work", () =>
    Effect.gen(function*() {
      const memory = yield* MemoryStorage.make()
      yield* memory.save("k", bytes(3))
      const storage = StorageRetry.make(
        Storage.make({
          ...memory.backend,
          // The copy succeeds, the removal fails.
          move: (from, to, options) =>
            Effect.zipRight(
              memory.backend.copy(from, to, options),
              new StorageError.StorageUnavailable({ backend: "X", operation: "move", key: from, reason: "injected" })
            )
        }),
        Schedule.recurs(3)
      )
      const error = yield* Effect.flip(storage.move("k", "new", { ifNoneMatch: "*" }))
      expect(error).toMatchObject({ ...inDoubt, operation: "move", key: "k" })
    }))

  it.effect("repeats what can be repeated when its answer was lost", () =>
    Effect.gen(function*() {
      const { memory, storage } = yield* setup([lost("save"), lost("copy"), lost("remove"), lost("removeAll")])
      yield* storage.save("k", bytes(3))
      yield* storage.copy("k", "new")
      yield* storage.remove("k")
      expect(yield* memory.list()).toEqual(["new"])
      expect(yield* storage.removeAll(["new"])).toEqual({ removed: 1, failed: [] })
    }))

  it.effect("still reports a missing source of a copy that failed before", () =>
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
            Stream.fail(
              new StorageError.StorageUnavailable({ backend: "Breaking", operation: "entries", reason: "down" })
            )
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

  it.effect("goes on after the last key that came, with the prefix that was asked for", () =>
    Effect.gen(function*() {
      const log: Array<string> = []
      const storage = StorageRetry.make(yield* breaking([0, 3, 2], log), Schedule.recurs(1))
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
    "gives every key once and in order, wherever and however often it breaks",
    [FastCheck.array(FastCheck.integer({ min: 0, max: 22 }), { maxLength: 8 })],
    ([cuts]) =>
      Effect.gen(function*() {
        const policy = Schedule.recurs(cuts.length)
        const listed = yield* StorageRetry.make(yield* breaking([...cuts], []), policy).list()
        expect(listed).toEqual(keys)
        const entries = yield* Stream.runCollect(StorageRetry.make(yield* breaking([...cuts], []), policy).entries())
        expect(Chunk.toArray(entries).map(({ key }) => key)).toEqual(keys)
      })
  )

  it.effect("begins the policy anew whenever a page has come, and else counts together", () =>
    Effect.gen(function*() {
      const log: Array<string> = []
      const often = StorageRetry.make(yield* breaking(Array<number>(20).fill(1), log), Schedule.recurs(1))
      expect(yield* often.list()).toEqual(keys)
      expect(log.length).toBe(21)
      const stuck = StorageRetry.make(yield* breaking([0, 4, 0, 0], []), Schedule.recurs(2))
      expect(yield* Effect.flip(stuck.list())).toMatchObject({ _tag: "StorageUnavailable", attempts: 3 })
    }))

  it.effect("lists anew from the first key when it is run again", () =>
    Effect.gen(function*() {
      const cuts = [5, 5]
      const storage = StorageRetry.make(yield* breaking(cuts, []), Schedule.recurs(1))
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

  it.effect("tries only those keys again that failed for a reason that may pass", () =>
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

  it.effect("tells which keys remain when the policy ends, marked as exhausted", () =>
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

  it.effect("tells which keys remain when the store cannot be reached after it removed some", () =>
    Effect.gen(function*() {
      const { memory } = yield* setup([])
      let calls = 0
      yield* save(memory)
      const unavailable = new StorageError.StorageUnavailable({ backend: "X", operation: "removeAll", reason: "down" })
      const storage = StorageRetry.make(
        Storage.make({
          ...memory.backend,
          removeAll: (keys) =>
            calls++ > 0 ? Effect.fail(unavailable) : Effect.as(
              Effect.forEach(keys.slice(1), memory.backend.remove),
              [new StorageError.StorageTimeout({ ...unavailable, key: "a", limit: Duration.seconds(1) })]
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
