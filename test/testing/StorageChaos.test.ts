/**
 * Rules make a memory storage fail exactly as they say.
 */
import { describe, expect, it } from "@effect/vitest"
import { Chunk, Clock, Effect, FastCheck, Fiber, Layer, Stream, TestClock } from "effect"
import { ByteRange, MemoryStorage, Storage, StorageChaos, StorageError } from "surfing-weights"
import * as StorageContract from "surfing-weights/StorageContract"

const bytes = (length: number) => Uint8Array.from({ length }, (_, i) => i % 251)

/** A memory storage with the objects `a` and `b` of 10 bytes each, and the same storage under rules. */
const setup = (rules: ReadonlyArray<StorageChaos.Rule>) =>
  Effect.gen(function*() {
    const memory = yield* MemoryStorage.make()
    yield* memory.save("a", bytes(10))
    yield* memory.save("b", bytes(10))
    return { memory, storage: yield* StorageChaos.make(memory, rules) }
  })

/** The sizes of the chunks of a stream, and how it ends. */
const chunksOf = <E extends StorageError.StorageError>(stream: Stream.Stream<Uint8Array, E>) =>
  Effect.gen(function*() {
    const sizes: Array<number> = []
    const failure = yield* stream.pipe(
      Stream.runForEach((chunk) => Effect.sync(() => void sizes.push(chunk.byteLength))),
      Effect.match({ onFailure: (error) => error._tag, onSuccess: () => "ends" as const })
    )
    return { sizes, failure }
  })

const tagOf = (effect: Effect.Effect<unknown, StorageError.StorageError>) =>
  Effect.match(effect, { onFailure: (error) => error._tag, onSuccess: () => "succeeds" as const })

/** One call of every operation. None changes the result of another. */
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
  it.effect("shows itself in the name and has the capabilities of the storage", () =>
    Effect.gen(function*() {
      const { memory, storage } = yield* setup([])
      expect(storage.backend.name).toBe("Chaos(Memory)")
      expect(storage.backend.capabilities).toBe(memory.backend.capabilities)
    }))

  it.effect("fails only the first operation of any kind by a rule without fields", () =>
    Effect.forEach(operations, ([operation, run]) =>
      Effect.gen(function*() {
        const { memory, storage } = yield* setup([{}])
        yield* memory.save("new", bytes(1))
        const error = yield* Effect.flip(run(storage))
        expect(error, operation).toMatchObject({ _tag: "StorageUnavailable", backend: "Chaos(Memory)" })
        expect(error.message).toContain("injected")
        yield* run(storage)
      })))

  it.effect("applies a rule to its operations", () =>
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

  it.effect("applies a rule to its keys", () =>
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

  it.effect("applies a rule as many times as it says, across operations, and then the next", () =>
    Effect.gen(function*() {
      const { storage } = yield* setup([
        { operation: ["load", "head"], times: 2 },
        { operation: "load", error: () => new StorageError.AccessDenied({ reason: "no" }) },
        { operation: "load", times: 0, error: () => new StorageError.ObjectNotFound() }
      ])
      const met = []
      for (const effect of [storage.load("a"), storage.head("a"), storage.head("a"), storage.load("a")]) {
        met.push(yield* tagOf(effect))
      }
      expect(met).toEqual(["StorageUnavailable", "StorageUnavailable", "succeeds", "AccessDenied"])
      expect(yield* tagOf(storage.load("a"))).toBe("succeeds")
    }))

  it.effect("counts across concurrent fibers", () =>
    Effect.gen(function*() {
      const { storage } = yield* setup([{ operation: "load", times: 7, delay: "1 second" }])
      const fiber = yield* Effect.fork(
        Effect.forEach(Array(50), () => tagOf(storage.load("a")), { concurrency: "unbounded" })
      )
      yield* TestClock.adjust("1 second")
      const met = yield* Fiber.join(fiber)
      expect(met.filter((tag) => tag === "StorageUnavailable").length).toBe(7)
    }))

  it.effect("counts anew for each layer that is built", () =>
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

  it.effect("fails an operation before it has done anything, or after it has succeeded", () =>
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

  it.effect("does not use up a rule for responses on an operation that fails by itself", () =>
    Effect.gen(function*() {
      const { storage } = yield* setup([{ operation: "load", when: "after" }])
      expect(yield* tagOf(storage.load("missing"))).toBe("ObjectNotFound")
      expect(yield* tagOf(storage.load("a"))).toBe("StorageUnavailable")
    }))

  it.effect("fails a listing at its start or at its end", () =>
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

describe("StorageChaos, unused", () => {
  it.effect("has the rules that have not applied to any operation, as they were given", () =>
    Effect.gen(function*() {
      const rules: ReadonlyArray<StorageChaos.Rule> = [
        { operation: "load", key: "a" },
        { operation: "load", key: "typo" },
        // Storage.stream opens.
        { operation: "load", key: "b", times: Infinity },
        { operation: "open", key: "b", afterBytes: 11 },
        { operation: "open", key: "b", afterBytes: 10, times: 3 },
        { operation: "remove", when: "after", key: "a" },
        { operation: "save", error: "none", times: Infinity },
        { operation: "save", key: (key) => key.startsWith("x/") },
        { operation: ["keys", "entries"] },
        { operation: "removeAll", key: "b" },
        { operation: "head", times: 0 },
        // One before it fails each of them.
        { operation: "copy", times: Infinity },
        { operation: "copy" }
      ]
      const { storage } = yield* setup(rules)
      expect(yield* storage.unused).toEqual(rules.filter(({ times }) => times !== 0))
      yield* tagOf(storage.load("a"))
      yield* chunksOf(storage.stream("b"))
      yield* tagOf(storage.remove("a", { ifMatch: "another" }))
      yield* tagOf(storage.save("new", bytes(1)))
      yield* tagOf(storage.list())
      yield* Effect.exit(storage.removeAll(["b"]))
      yield* tagOf(storage.copy("a", "c"))
      yield* tagOf(storage.copy("a", "c"))
      const unused = yield* storage.unused
      expect(unused).toEqual([rules[1], rules[2], rules[3], rules[5], rules[7], rules[12]])
      // They are the same objects, by which a test finds them.
      expect(unused[0]).toBe(rules[1])
    }))

  it.effect("is there for each layer that is built, beside its storage", () =>
    Effect.gen(function*() {
      const rules: ReadonlyArray<StorageChaos.Rule> = [{ operation: "keys" }, { key: "typo" }]
      const layer = StorageChaos.layer(rules).pipe(Layer.provide(MemoryStorage.layer()))
      for (let i = 0; i < 2; i++) {
        const [before, after] = yield* Effect.provide(
          Effect.gen(function*() {
            const before = yield* StorageChaos.unused
            yield* tagOf((yield* Storage.Storage).list())
            return [before, yield* StorageChaos.unused]
          }),
          layer
        )
        expect([before, after]).toEqual([rules, [rules[1]]])
      }
      const storage = yield* Effect.flatMap(MemoryStorage.make(), StorageChaos.make([]))
      expect(yield* storage.unused).toEqual([])
    }))
})

describe("StorageChaos, options", () => {
  it.effect("can be piped, and every field can be undefined", () =>
    Effect.gen(function*() {
      const rule = {
        operation: undefined,
        key: undefined,
        times: undefined,
        when: undefined,
        afterBytes: undefined,
        delay: undefined,
        error: undefined
      }
      const storage = yield* Effect.flatMap(MemoryStorage.make(), StorageChaos.make([rule]))
      expect(yield* tagOf(storage.head("a"))).toBe("StorageUnavailable")
      expect(yield* tagOf(storage.head("a"))).toBe("ObjectNotFound")
    }))

  const wrong: ReadonlyArray<readonly [rule: object, message: string]> = [
    [{ times: -1 }, "StorageChaos: rules.1.times must be a whole number of at least 0, or Infinity (got -1)"],
    [{ times: 0.5 }, "StorageChaos: rules.1.times must be a whole number of at least 0, or Infinity (got 0.5)"],
    [{ afterBytes: NaN }, "StorageChaos: rules.1.afterBytes must be a whole number of at least 0 (got NaN)"],
    [{ delay: "soon" }, "StorageChaos: rules.1.delay must be greater than zero"],
    [{ when: "during" }, "StorageChaos: rules.1.when must be \"before\" or \"after\" (got \"during\")"],
    [{ operation: "lod" }, "StorageChaos: rules.1.operation must be the name of an operation of a backend"],
    [{ operation: ["load", "lod"] }, "StorageChaos: rules.1.operation must be the name of an operation of a backend"],
    [{ key: 3 }, "StorageChaos: rules.1.key must be a key or a predicate (got 3)"],
    [{ error: "some" }, "StorageChaos: rules.1.error must be a function that returns a StorageError, or \"none\""],
    [{ opration: "load" }, "StorageChaos: rules.1.opration is not an option of this module"]
  ]
  it.effect.each(wrong)("refuses %o", ([rule, message]) =>
    Effect.gen(function*() {
      const storage = yield* MemoryStorage.make()
      const error = yield* Effect.flip(StorageChaos.make(storage, [{}, rule]))
      expect(error._tag).toBe("InvalidOptions")
      expect(error.message).toContain(message)
      const layer = Layer.provide(StorageChaos.layer([{}, rule]), MemoryStorage.layer())
      expect(yield* Effect.flip(Effect.scoped(Layer.build(layer)))).toEqual(error)
    }))
})

describe("StorageChaos, afterBytes", () => {
  it.effect("breaks a stream after exactly the given number of bytes", () =>
    Effect.gen(function*() {
      const broken = (afterBytes: number, range?: ByteRange.ByteRange) =>
        Effect.flatMap(setup([{ operation: "open", afterBytes }]), ({ storage }) =>
          chunksOf(storage.stream("a", range === undefined ? {} : { range })))
      expect(yield* broken(0)).toEqual({ sizes: [], failure: "StorageUnavailable" })
      expect(yield* broken(1)).toEqual({ sizes: [1], failure: "StorageUnavailable" })
      expect(yield* broken(10)).toEqual({ sizes: [10], failure: "StorageUnavailable" })
      expect(yield* broken(11)).toEqual({ sizes: [10], failure: "ends" })
      // Bytes are counted from the start of the stream, not of the object.
      expect(yield* broken(2, ByteRange.from(5))).toEqual({ sizes: [2], failure: "StorageUnavailable" })
      expect(yield* broken(6, ByteRange.from(5))).toEqual({ sizes: [5], failure: "ends" })
    }))

  it.effect.prop(
    "passes every byte before the break, whatever the chunks, and all of them once the rule is used up",
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
              data instanceof Uint8Array ? data : Stream.tap(data, (chunk) => Effect.sync(() => passed.push(...chunk))),
              options
            )
        })
        const chaos = yield* StorageChaos.make(backend, [{ operation: "save", afterBytes }])
        const breaks = afterBytes <= whole.length
        expect(yield* tagOf(chaos.save("k", Stream.fromIterable(chunks))))
          .toBe(breaks ? "StorageUnavailable" : "succeeds")
        expect(Uint8Array.from(passed)).toEqual(breaks ? whole.slice(0, afterBytes) : whole)
        expect(yield* memory.exists("k")).toBe(!breaks)
        passed.length = 0
        yield* chaos.save("k", Stream.fromIterable(chunks))
        expect(yield* storage.load("k")).toEqual(whole)
      })
  )

  it.effect("fails bytes that are loaded or saved in one piece where there are at least as many, and saves nothing", () =>
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
      // No other operation moves bytes.
      for (const [operation, run] of operations.filter(([operation]) => operation !== "open")) {
        if (operation !== "load") expect(yield* tagOf(run(storage)), operation).toBe("succeeds")
      }
    }))

  it.effect("breaks one stream by several rules, or several streams by one", () =>
    Effect.gen(function*() {
      const { storage } = yield* setup([
        { operation: "open", afterBytes: 7, times: 2 },
        { operation: "open", afterBytes: 4 }
      ])
      const read = chunksOf(storage.stream("a"))
      expect(yield* read).toEqual({ sizes: [4], failure: "StorageUnavailable" })
      expect(yield* read).toEqual({ sizes: [7], failure: "StorageUnavailable" })
      expect(yield* read).toEqual({ sizes: [7], failure: "StorageUnavailable" })
      expect((yield* read).failure).toBe("ends")
    }))
})

describe("StorageChaos, errors and delays", () => {
  it.effect("fails with what the function of a rule returns for a backend, operation and key", () =>
    Effect.gen(function*() {
      const targets: Array<StorageChaos.Target> = []
      const { storage } = yield* setup([{
        operation: "save",
        error: (target) => {
          targets.push(target)
          return new StorageError.StorageFull({ reason: "the disk is full" })
        }
      }])
      expect(yield* Effect.flip(storage.save("k", bytes(1)))).toMatchObject({
        _tag: "StorageFull",
        backend: "Chaos(Memory)",
        operation: "save",
        key: "k",
        reason: "the disk is full"
      })
      expect(targets).toEqual([{ backend: "Chaos(Memory)", operation: "save", key: "k" }])
    }))

  it.effect("injects every failure that an operation can have", () =>
    Effect.gen(function*() {
      const any = { reason: "r" }
      const common = [
        new StorageError.AccessDenied(any),
        new StorageError.StorageNotFound(any),
        new StorageError.StorageUnavailable(any),
        new StorageError.UnexpectedStorageError(any)
      ]
      const unsupported = new StorageError.UnsupportedOperation(any)
      const invalidKey = new StorageError.InvalidKey({ key: "k", reason: "r" })
      const notFound = new StorageError.ObjectNotFound()
      const changed = new StorageError.PreconditionFailed()
      const corrupt = new StorageError.CorruptObject({ ...any, problem: "truncated" })
      const loading = [
        ...common,
        unsupported,
        invalidKey,
        notFound,
        changed,
        corrupt,
        new StorageError.ObjectNotModified(),
        new StorageError.InvalidRange(any)
      ]
      const saving = [
        ...common,
        unsupported,
        invalidKey,
        changed,
        corrupt,
        new StorageError.ObjectAlreadyExists(),
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
        remove: [...common, unsupported, invalidKey, changed],
        removeAll: [...common, unsupported, invalidKey, changed],
        copy: [...saving, notFound],
        move: [...saving, notFound],
        presign: [...common, unsupported, invalidKey]
      }
      for (const [operation, run] of operations) {
        // `exists` returns false for a missing object.
        for (const failure of given[operation].filter((error) => operation !== "head" || error !== notFound)) {
          const { memory, storage } = yield* setup([{ operation, error: () => failure }])
          yield* memory.save("new", bytes(1))
          expect(yield* Effect.flip(run(storage)), `${operation}, ${failure._tag}`)
            .toMatchObject({ _tag: failure._tag, backend: "Chaos(Memory)" })
        }
      }
    }))

  it.effect("replaces a failure that the operation cannot have by one that says so", () =>
    Effect.gen(function*() {
      const { storage } = yield* setup([{ error: () => new StorageError.ObjectNotFound() }])
      const error = yield* Effect.flip(storage.remove("a"))
      expect(error).toMatchObject({ _tag: "UnexpectedStorageError", cause: { _tag: "ObjectNotFound" } })
      expect(error.message).toContain("injects ObjectNotFound, which remove cannot fail with")
    }))

  it.effect("waits before it fails an operation, or only waits", () =>
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
      // Both rules apply to the first load, one after the other.
      expect(yield* timed(storage.load("a"))).toEqual(["StorageUnavailable", 7000])
      expect(yield* timed(storage.load("a"))).toEqual(["succeeds", 3000])
      expect(yield* timed(storage.load("a"))).toEqual(["succeeds", 0])
      expect(yield* timed(Stream.runDrain(storage.stream("a")))).toEqual(["succeeds", 5000])
    }))

  it.effect("cuts a stream where it only waits, and passes all of it", () =>
    Effect.gen(function*() {
      const { storage } = yield* setup([{ operation: "open", afterBytes: 4, error: "none" }])
      const read = Chunk.toArray(yield* Stream.runCollect(storage.stream("a")))
      expect(read).toEqual([bytes(10).slice(0, 4), bytes(10).slice(4)])
    }))
})

describe("StorageChaos, opened objects", () => {
  it.effect("keeps bytes in memory and an array that is reused where no rule breaks the stream", () =>
    Effect.scoped(Effect.gen(function*() {
      const { backend } = yield* MemoryStorage.make()
      yield* backend.save("small", bytes(10), {})
      yield* backend.save("large", bytes(100_000), {})
      const reusing = Storage.make({
        ...backend,
        open: (key, options) =>
          Effect.map(backend.open(key, options), (opened) => ({ ...opened, reuse: () => opened.stream }))
      })
      const storage = yield* StorageChaos.make(reusing, [
        { operation: "open", when: "after", error: "none", times: Infinity },
        { operation: "open", key: "large", afterBytes: 4 },
        { operation: "open", key: "small", afterBytes: 4 }
      ])
      for (const key of ["small", "large"]) {
        const broken = yield* storage.open(key)
        expect({ bytes: broken.bytes, reuse: broken.reuse }).toEqual({ bytes: undefined, reuse: undefined })
        expect(yield* chunksOf(broken.stream)).toEqual({ sizes: [4], failure: "StorageUnavailable" })
        expect(broken.position()).toBe(4)
        // The rule is used up.
        const whole = yield* storage.open(key)
        expect(whole.bytes).toEqual(key === "small" ? bytes(10) : undefined)
        expect(whole.reuse).toBeTypeOf("function")
      }
    })))
})

describe("StorageChaos, removeAll", () => {
  it.effect("fails the keys of a rule and removes the others", () =>
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

  it.effect("fails the whole batch by a rule without keys", () =>
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
