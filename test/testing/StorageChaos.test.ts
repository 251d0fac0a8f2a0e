/** Rules that make a memory storage fail, and that what they do is exactly what they say. */
import { describe, expect, it } from "@effect/vitest"
import { Chunk, Clock, Effect, FastCheck, Fiber, Layer, Stream, TestClock } from "effect"
import { ByteRange, MemoryStorage, Storage, StorageChaos, StorageError } from "surfing-weights"
import * as StorageContract from "surfing-weights/StorageContract"

const bytes = (length: number) => Uint8Array.from({ length }, (_, i) => i % 251)

/** A memory storage that holds `a` and `b`, of 10 bytes each, and the same one under the rules. */
const setup = (rules: ReadonlyArray<StorageChaos.Rule>) =>
  Effect.gen(function*() {
    const memory = yield* MemoryStorage.make()
    yield* memory.save("a", bytes(10))
    yield* memory.save("b", bytes(10))
    return { memory, storage: yield* StorageChaos.make(memory, rules) }
  })

/** The sizes of the parts that a stream gives before it ends or fails, and with what it fails. */
const parts = <E extends StorageError.StorageError>(stream: Stream.Stream<Uint8Array, E>) =>
  Effect.gen(function*() {
    const sizes: Array<number> = []
    const failure = yield* stream.pipe(
      Stream.runForEach((part) => Effect.sync(() => void sizes.push(part.byteLength))),
      Effect.match({ onFailure: (error) => error._tag, onSuccess: () => "ends" as const })
    )
    return { sizes, failure }
  })

const tagOf = (effect: Effect.Effect<unknown, StorageError.StorageError>) =>
  Effect.match(effect, { onFailure: (error) => error._tag, onSuccess: () => "succeeds" as const })

/** One call of every operation. None changes what another gives. */
const operations: ReadonlyArray<
  readonly [
    operation: StorageChaos.Operation,
    run: (storage: Storage.Service) => Effect.Effect<unknown, StorageError.StorageError>
  ]
> = [
  ["open", (storage) => Stream.runCollect(storage.stream("a"))],
  ["load", (storage) => storage.load("a")],
  ["loadRanges", (storage) => storage.loadRanges("a", [ByteRange.make(0, 2)])],
  ["head", (storage) => storage.exists("a")],
  ["save", (storage) => storage.save("new", bytes(3))],
  ["save", (storage) => storage.save("new", Stream.make(bytes(3)))],
  ["entries", (storage) => Stream.runCollect(storage.entries())],
  ["keys", (storage) => storage.list()],
  ["listDirectory", (storage) => storage.listDirectory()],
  ["copy", (storage) => storage.copy("a", "new")],
  ["move", (storage) => storage.move("new", "newer")],
  ["remove", (storage) => storage.remove("b")],
  ["removeAll", (storage) => storage.removeAll(["b"])]
]

describe("StorageChaos", () => {
  it.effect("shows itself in the name and can what the storage can", () =>
    Effect.gen(function*() {
      const { memory, storage } = yield* setup([])
      expect(storage.backend.name).toBe("Chaos(Memory)")
      expect(storage.backend.capabilities).toBe(memory.backend.capabilities)
    }))

  it.effect("lets the first operation of any kind fail by a rule without fields, and only that", () =>
    Effect.forEach(operations, ([operation, run]) =>
      Effect.gen(function*() {
        const { memory, storage } = yield* setup([{}])
        yield* memory.save("new", bytes(1))
        const error = yield* Effect.flip(run(storage))
        expect(error).toMatchObject({ _tag: "StorageUnavailable", backend: "Chaos(Memory)", operation })
        expect(error.message).toContain("injected")
        yield* run(storage)
      })))

  it.effect("strikes the operations that a rule names", () =>
    Effect.gen(function*() {
      for (const [named] of operations) {
        const { memory, storage } = yield* setup([{ operation: named, times: Infinity }])
        for (const [operation, run] of operations) {
          yield* memory.save("new", bytes(1))
          expect(yield* tagOf(run(storage)), `${named}, ${operation}`)
            .toBe(operation === named ? "StorageUnavailable" : "succeeds")
        }
      }
      const { storage } = yield* setup([{ operation: ["head", "load"], times: 2 }])
      expect(yield* tagOf(storage.load("a"))).toBe("StorageUnavailable")
      expect(yield* tagOf(storage.head("a"))).toBe("StorageUnavailable")
      expect(yield* tagOf(storage.load("a"))).toBe("succeeds")
    }))

  it.effect("strikes the keys that a rule names", () =>
    Effect.gen(function*() {
      const { storage } = yield* setup([
        { key: "a", times: 2 },
        { operation: ["entries", "keys"], key: (prefix) => prefix.startsWith("dir/") }
      ])
      expect(yield* tagOf(storage.load("b"))).toBe("succeeds")
      expect(yield* tagOf(storage.load("a"))).toBe("StorageUnavailable")
      // A copy has the key that it reads.
      expect(yield* tagOf(storage.copy("b", "a"))).toBe("succeeds")
      expect(yield* tagOf(storage.copy("a", "b"))).toBe("StorageUnavailable")
      // A listing has its prefix.
      expect(yield* tagOf(storage.list("a"))).toBe("succeeds")
      expect(yield* tagOf(storage.list("dir/x"))).toBe("StorageUnavailable")
    }))

  it.effect("strikes as often as a rule says, across all operations, and then the next rule", () =>
    Effect.gen(function*() {
      const { storage } = yield* setup([
        { operation: ["load", "head"], times: 2 },
        { operation: "load", error: (struck) => new StorageError.AccessDenied({ ...struck, reason: "no" }) },
        { operation: "load", times: 0, error: (struck) => new StorageError.ObjectNotFound(struck) }
      ])
      const met = []
      for (const effect of [storage.load("a"), storage.head("a"), storage.head("a"), storage.load("a")]) {
        met.push(yield* tagOf(effect))
      }
      expect(met).toEqual(["StorageUnavailable", "StorageUnavailable", "succeeds", "AccessDenied"])
      expect(yield* tagOf(storage.load("a"))).toBe("succeeds")
    }))

  it.effect("counts the same however many fibers there are", () =>
    Effect.gen(function*() {
      const { storage } = yield* setup([{ operation: "load", times: 7, delay: "1 second" }])
      const fiber = yield* Effect.fork(
        Effect.forEach(Array(50), () => tagOf(storage.load("a")), { concurrency: "unbounded" })
      )
      yield* TestClock.adjust("1 second")
      const met = yield* Fiber.join(fiber)
      expect(met.filter((tag) => tag === "StorageUnavailable").length).toBe(7)
    }))

  it.effect("begins to count anew with each layer that is built", () =>
    Effect.gen(function*() {
      const layer = StorageChaos.layer([{ operation: "keys" }]).pipe(Layer.provide(MemoryStorage.layer()))
      for (let i = 0; i < 2; i++) {
        const met = yield* Effect.provide(
          Effect.flatMap(Storage.Storage, (storage) => Effect.all([tagOf(storage.list()), tagOf(storage.list())])),
          layer
        )
        expect(met).toEqual(["StorageUnavailable", "succeeds"])
      }
    }))

  it.effect("strikes before an operation has done anything, or after it succeeded", () =>
    Effect.gen(function*() {
      for (const when of ["before", "after"] as const) {
        const { memory, storage } = yield* setup([{ when, times: Infinity }])
        expect(yield* tagOf(storage.save("bytes", bytes(1)))).toBe("StorageUnavailable")
        expect(yield* tagOf(storage.save("stream", Stream.make(bytes(1))))).toBe("StorageUnavailable")
        expect(yield* tagOf(storage.copy("a", "copied"))).toBe("StorageUnavailable")
        expect(yield* tagOf(storage.move("a", "moved"))).toBe("StorageUnavailable")
        expect(yield* tagOf(storage.remove("b"))).toBe("StorageUnavailable")
        expect(yield* memory.list()).toEqual(
          when === "before" ? ["a", "b"] : ["bytes", "copied", "moved", "stream"]
        )
      }
    }))

  it.effect("leaves a rule unused by an operation that failed by itself before its answer could be lost", () =>
    Effect.gen(function*() {
      const { storage } = yield* setup([{ operation: "load", when: "after" }])
      expect(yield* tagOf(storage.load("missing"))).toBe("ObjectNotFound")
      expect(yield* tagOf(storage.load("a"))).toBe("StorageUnavailable")
    }))

  it.effect("breaks a listing at its beginning or at its end", () =>
    Effect.gen(function*() {
      const { storage } = yield* setup([{ operation: "entries" }, { operation: "entries", when: "after" }])
      const seen: Array<string> = []
      const listing = Stream.runForEach(storage.entries(), ({ key }) => Effect.sync(() => void seen.push(key)))
      expect(yield* tagOf(listing)).toBe("StorageUnavailable")
      expect(seen).toEqual([])
      expect(yield* tagOf(listing)).toBe("StorageUnavailable")
      expect(seen).toEqual(["a", "b"])
      expect(yield* tagOf(listing)).toBe("succeeds")
    }))
})

describe("StorageChaos, afterBytes", () => {
  it.effect("breaks a stream that is read after exactly so many bytes", () =>
    Effect.gen(function*() {
      const broken = (afterBytes: number, range?: ByteRange.ByteRange) =>
        Effect.flatMap(setup([{ operation: "open", afterBytes }]), ({ storage }) =>
          parts(storage.stream("a", range === undefined ? {} : { range })))
      expect(yield* broken(0)).toEqual({ sizes: [], failure: "StorageUnavailable" })
      expect(yield* broken(1)).toEqual({ sizes: [1], failure: "StorageUnavailable" })
      expect(yield* broken(10)).toEqual({ sizes: [10], failure: "StorageUnavailable" })
      expect(yield* broken(11)).toEqual({ sizes: [10], failure: "ends" })
      // Bytes are counted from where the stream begins, not the object.
      expect(yield* broken(2, ByteRange.from(5))).toEqual({ sizes: [2], failure: "StorageUnavailable" })
      expect(yield* broken(6, ByteRange.from(5))).toEqual({ sizes: [5], failure: "ends" })
    }))

  it.effect.prop(
    "passes every byte before the break, whatever the chunks, and all of them when the rule is used up",
    [FastCheck.array(FastCheck.integer({ min: 0, max: 9 }), { maxLength: 9 }), FastCheck.integer({ min: 0, max: 60 })],
    ([sizes, afterBytes]) =>
      Effect.gen(function*() {
        const { memory, storage } = yield* setup([{ operation: "save", afterBytes }])
        const whole = bytes(sizes.reduce((sum, size) => sum + size, 0))
        let at = 0
        const chunks = sizes.map((size) => whole.slice(at, at += size))
        const passed: Array<number> = []
        const backend = Storage.make({
          ...memory.backend,
          save: (key, data, options) =>
            memory.backend.save(
              key,
              data instanceof Uint8Array ? data : Stream.tap(data, (part) => Effect.sync(() => passed.push(...part))),
              options
            )
        })
        const chaos = yield* StorageChaos.make(backend, [{ operation: "save", afterBytes }])
        const strikes = afterBytes <= whole.length
        expect(yield* tagOf(chaos.save("k", Stream.fromIterable(chunks))))
          .toBe(strikes ? "StorageUnavailable" : "succeeds")
        expect(Uint8Array.from(passed)).toEqual(strikes ? whole.slice(0, afterBytes) : whole)
        expect(yield* memory.exists("k")).toBe(!strikes)
        passed.length = 0
        yield* chaos.save("k", Stream.fromIterable(chunks))
        expect(yield* storage.load("k")).toEqual(whole)
      })
  )

  it.effect("strikes what comes or goes in one piece if it has so many bytes, and saves nothing of it", () =>
    Effect.gen(function*() {
      const { memory, storage } = yield* setup([{ afterBytes: 10, times: Infinity }])
      expect(yield* tagOf(storage.load("a"))).toBe("StorageUnavailable")
      expect(yield* tagOf(storage.load("a", { range: ByteRange.make(0, 9) }))).toBe("succeeds")
      expect(yield* tagOf(storage.loadRanges("a", [ByteRange.make(0, 5), ByteRange.make(2, 7)])))
        .toBe("StorageUnavailable")
      expect(yield* tagOf(storage.loadRanges("a", [ByteRange.make(0, 9)]))).toBe("succeeds")
      expect(yield* tagOf(storage.save("k", bytes(10)))).toBe("StorageUnavailable")
      expect(yield* memory.exists("k")).toBe(false)
      expect(yield* tagOf(storage.save("k", bytes(9)))).toBe("succeeds")
      // Nothing else moves bytes.
      for (const [operation, run] of operations.filter(([operation]) => operation !== "open")) {
        if (operation !== "load") expect(yield* tagOf(run(storage)), operation).toBe("succeeds")
      }
    }))

  it.effect("breaks one stream by several rules, or lets several streams break by one", () =>
    Effect.gen(function*() {
      const { storage } = yield* setup([
        { operation: "open", afterBytes: 7, times: 2 },
        { operation: "open", afterBytes: 4 }
      ])
      const read = parts(storage.stream("a"))
      expect(yield* read).toEqual({ sizes: [4], failure: "StorageUnavailable" })
      expect(yield* read).toEqual({ sizes: [7], failure: "StorageUnavailable" })
      expect(yield* read).toEqual({ sizes: [7], failure: "StorageUnavailable" })
      expect((yield* read).failure).toBe("ends")
    }))
})

describe("StorageChaos, errors and delays", () => {
  it.effect("fails with what a rule makes of backend, operation and key", () =>
    Effect.gen(function*() {
      const { storage } = yield* setup([{
        operation: "save",
        error: (struck) => new StorageError.StorageFull({ ...struck, reason: "the disk is full" })
      }])
      const error = yield* Effect.flip(storage.save("k", bytes(1)))
      expect(error).toEqual(
        new StorageError.StorageFull({
          backend: "Chaos(Memory)",
          operation: "save",
          key: "k",
          reason: "the disk is full"
        })
      )
    }))

  it.effect("injects every failure that an operation can give", () =>
    Effect.gen(function*() {
      const any = { backend: "X", operation: "x", key: "k", reason: "r" }
      const common = [
        new StorageError.AccessDenied(any),
        new StorageError.StorageNotFound(any),
        new StorageError.StorageUnavailable(any),
        new StorageError.UnexpectedStorageError(any)
      ]
      const unsupported = new StorageError.UnsupportedOperation(any)
      const invalidKey = new StorageError.InvalidKey(any)
      const notFound = new StorageError.ObjectNotFound(any)
      const changed = new StorageError.PreconditionFailed(any)
      const corrupt = new StorageError.CorruptObject({ ...any, problem: "truncated" })
      const loading = [
        ...common,
        unsupported,
        invalidKey,
        notFound,
        changed,
        corrupt,
        new StorageError.ObjectNotModified(any),
        new StorageError.InvalidRange(any)
      ]
      const saving = [
        ...common,
        unsupported,
        invalidKey,
        changed,
        corrupt,
        new StorageError.ObjectAlreadyExists(any),
        new StorageError.StorageFull(any)
      ]
      const given: Record<StorageChaos.Operation, ReadonlyArray<StorageError.StorageError>> = {
        open: loading,
        load: loading,
        loadRanges: loading,
        head: [...common, invalidKey, notFound],
        save: saving,
        entries: [...common, unsupported],
        keys: [...common, unsupported],
        listDirectory: [...common, unsupported],
        remove: [...common, unsupported, invalidKey],
        removeAll: [...common, unsupported, invalidKey],
        copy: [...saving, notFound],
        move: [...saving, notFound],
        presign: [...common, unsupported, invalidKey]
      }
      for (const [operation, run] of operations) {
        // `exists` turns a missing object into an answer.
        for (const failure of given[operation].filter((error) => operation !== "head" || error !== notFound)) {
          const { memory, storage } = yield* setup([{ operation, error: () => failure }])
          yield* memory.save("new", bytes(1))
          expect(yield* Effect.flip(run(storage)), `${operation}, ${failure._tag}`).toBe(failure)
        }
      }
    }))

  it.effect("says so when a rule injects what the operation never gives", () =>
    Effect.gen(function*() {
      const { storage } = yield* setup([{ error: (struck) => new StorageError.ObjectNotFound(struck) }])
      const error = yield* Effect.flip(storage.remove("a"))
      expect(error).toMatchObject({ _tag: "UnexpectedStorageError", cause: { _tag: "ObjectNotFound" } })
      expect(error.message).toContain("injects ObjectNotFound, which remove never gives")
    }))

  it.effect("waits before it strikes, or does no more than wait", () =>
    Effect.gen(function*() {
      const { storage } = yield* setup([
        { operation: "load", delay: "3 seconds", error: "none", times: 2 },
        { operation: "load", delay: "4 seconds" },
        { operation: "open", afterBytes: 4, delay: "5 seconds", error: "none" }
      ])
      const timed = (effect: Effect.Effect<unknown, StorageError.StorageError>) =>
        Effect.gen(function*() {
          const begun = yield* Clock.currentTimeMillis
          const fiber = yield* Effect.fork(
            Effect.zip(tagOf(effect), Effect.map(Clock.currentTimeMillis, (now) => now - begun))
          )
          yield* TestClock.adjust("1 minute")
          return yield* Fiber.join(fiber)
        })
      // Both rules concern the first load, one after the other.
      expect(yield* timed(storage.load("a"))).toEqual(["StorageUnavailable", 7000])
      expect(yield* timed(storage.load("a"))).toEqual(["succeeds", 3000])
      expect(yield* timed(storage.load("a"))).toEqual(["succeeds", 0])
      expect(yield* timed(Stream.runDrain(storage.stream("a")))).toEqual(["succeeds", 5000])
    }))

  it.effect("cuts a stream where it only delays, and passes all of it", () =>
    Effect.gen(function*() {
      const { storage } = yield* setup([{ operation: "open", afterBytes: 4, error: "none" }])
      const read = Chunk.toArray(yield* Stream.runCollect(storage.stream("a")))
      expect(read).toEqual([bytes(10).slice(0, 4), bytes(10).slice(4)])
    }))
})

describe("StorageChaos, removeAll", () => {
  it.effect("strikes the keys that a rule names one by one, and lets the others be removed", () =>
    Effect.gen(function*() {
      const { memory, storage } = yield* setup([
        { operation: "removeAll", key: "a" },
        { operation: "removeAll", key: "b", when: "after" }
      ])
      yield* memory.save("c", bytes(1))
      const { failed, removed } = yield* storage.removeAll(["a", "b", "c"])
      expect(removed).toBe(1)
      expect(failed.map(({ key }) => key)).toEqual(["a", "b"])
      expect(yield* memory.list()).toEqual(["a"])
    }))

  it.effect("fails the batch as a whole by a rule without a key", () =>
    Effect.gen(function*() {
      const { memory, storage } = yield* setup([{ operation: "removeAll" }, { operation: "removeAll", when: "after" }])
      expect(yield* tagOf(storage.removeAll(["a", "b"]))).toBe("StorageUnavailable")
      expect(yield* memory.list()).toEqual(["a", "b"])
      expect(yield* tagOf(storage.removeAll(["a", "b"]))).toBe("StorageUnavailable")
      expect(yield* memory.list()).toEqual([])
    }))
})

StorageContract.suite("StorageChaos(Memory)", {
  layer: StorageChaos.layer([]).pipe(Layer.provide(MemoryStorage.layer()))
})
