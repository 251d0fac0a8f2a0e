/**
 * Backends from primitives, and wrappers by interception.
 */
import { describe, expect, it } from "@effect/vitest"
import { Effect, Ref, Stream } from "effect"
import { ByteRange, MemoryStorage, ObjectKey, Storage, StorageBackend, StorageError } from "surfing-weights"

const content = Uint8Array.from({ length: 1_000_000 }, (_, i) => i % 251)
const infoOf = (key: string) => ({ key, size: content.byteLength, lastModified: new Date(0), etag: "1" })

/** A store of four primitives whose body is `body` of the bytes of the range; it records its calls. */
const makeFour = (body: (bytes: Uint8Array<ArrayBuffer>) => Stream.Stream<Uint8Array<ArrayBuffer>> = Stream.make) => {
  const opened: Array<StorageBackend.LoadOptions> = []
  const removed: Array<string> = []
  const saved: Array<readonly [key: string, options: StorageBackend.SaveOptions]> = []
  const primitives: StorageBackend.Primitives = {
    name: "Four",
    capabilities: StorageBackend.full,
    open: (key, options) =>
      Effect.gen(function*() {
        opened.push(options)
        const range = yield* StorageBackend.checkLoad(infoOf(key), options)
        const info = { ...infoOf(key), attributes: { contentLanguage: "en" } }
        return { info, range, stream: body(content.slice(range.start, range.endExclusive)) }
      }),
    save: (key, data, options) =>
      Effect.gen(function*() {
        if (!(data instanceof Uint8Array)) yield* Stream.runDrain(data)
        saved.push([key, options])
        return infoOf(key)
      }),
    entries: ({ prefix = "", startAfter = "" }) =>
      Stream.fromIterable(
        ["a/b", "a/c", "b"].filter((key) => key.startsWith(prefix) && ObjectKey.compare(key, startAfter) > 0).map(
          infoOf
        )
      ),
    remove: (key) =>
      key === "a/b"
        ? new StorageError.AccessDenied({ reason: "locked" })
        : key === "gone"
        ? new StorageError.StorageUnavailable({ reason: "down" })
        : Effect.sync(() => void removed.push(key))
  }
  const backend = StorageBackend.make(primitives)
  return { backend, primitives, storage: Storage.make(backend), opened, removed, saved }
}

/** Every way to read a whole object. */
const readsOf = (storage: Storage.Service): ReadonlyArray<Effect.Effect<unknown, StorageError.LoadError>> => [
  storage.load("k"),
  Stream.runDrain(storage.stream("k")),
  Effect.scoped(Effect.flatMap(storage.open("k"), ({ stream }) => Stream.runDrain(stream)))
]

describe("a backend from four primitives", () => {
  it.effect("loads what it opens", () =>
    Effect.gen(function*() {
      const { storage } = makeFour((bytes) => Stream.make(bytes.subarray(0, 10), bytes.subarray(10)))
      expect(Buffer.compare(yield* storage.load("k"), content)).toBe(0)
      expect(yield* storage.load("k", { range: ByteRange.make(5, 15) })).toEqual(content.slice(5, 15))
    }))

  it.effect("returns an array of the caller's own from each load, also of bytes in memory", () =>
    Effect.gen(function*() {
      const small = { ...infoOf("k"), size: 4 }
      const backend = StorageBackend.make({
        ...makeFour().primitives,
        open: (_, options) => StorageBackend.openBytes(content.slice(0, 4), small, options)
      })
      const load = backend.load("k", {})
      const first = yield* load
      first.fill(9)
      expect(yield* load).toEqual(content.slice(0, 4))
    }))

  it.effect("fails with a truncated object where a body ends early", () =>
    Effect.gen(function*() {
      const { storage } = makeFour((bytes) => Stream.make(bytes.subarray(0, 999_999)))
      for (const read of readsOf(storage)) {
        const error = yield* Effect.flip(read)
        expect(error).toMatchObject({ _tag: "CorruptObject", problem: "truncated", key: "k", backend: "Four" })
        expect(error.message).toContain("999999 of 1000000")
        expect(StorageError.isRetryable(error)).toBe(true)
      }
    }))

  it.effect("fails where a body is too long, which is not retryable", () =>
    Effect.gen(function*() {
      const { storage } = makeFour((bytes) => Stream.make(bytes, new Uint8Array(1)))
      for (const read of readsOf(storage)) {
        const error = yield* Effect.flip(read)
        expect(error).toMatchObject({ _tag: "CorruptObject", problem: "size" })
        expect(StorageError.isRetryable(error)).toBe(false)
      }
    }))

  it.effect("fails where bytes in memory have another length than the range", () =>
    Effect.gen(function*() {
      for (const [length, problem] of [[3, "truncated"], [5, "size"]] as const) {
        const info = { ...infoOf("k"), size: 4 }
        const bytes = content.slice(0, length)
        const storage = Storage.make(StorageBackend.make({
          ...makeFour().primitives,
          open: () => Effect.succeed({ info, range: { start: 0, endExclusive: 4 }, bytes, stream: Stream.make(bytes) })
        }))
        for (const read of readsOf(storage)) {
          expect(yield* Effect.flip(read)).toMatchObject({ _tag: "CorruptObject", problem })
        }
      }
    }))

  it.effect("shares no bytes with its readers, also where it keeps them as a Buffer", () =>
    Effect.gen(function*() {
      const kept = Buffer.from("weights")
      const opened = yield* StorageBackend.openBytes(kept, { ...infoOf("k"), size: kept.byteLength }, {})
      yield* Stream.runForEach(opened.stream, (chunk) => Effect.sync(() => chunk.fill(0)))
      expect(kept.toString()).toBe("weights")
    }))

  it.effect("heads an object without reading its body", () =>
    Effect.gen(function*() {
      const { storage } = makeFour(() => Stream.dieMessage("the body was read"))
      expect(yield* storage.head("k")).toMatchObject(infoOf("k"))
      expect(yield* storage.exists("k")).toBe(true)
    }))

  it.effect("loads neighbouring ranges together and distant ones separately, all of one version", () =>
    Effect.gen(function*() {
      const { opened, storage } = makeFour()
      const loaded = yield* storage.loadRanges("k", [
        ByteRange.make(500_000, 500_010),
        ByteRange.make(0, 10),
        ByteRange.make(20, 30),
        ByteRange.make(5, 25),
        ByteRange.last(3)
      ])
      expect(loaded).toEqual([
        content.slice(500_000, 500_010),
        content.slice(0, 10),
        content.slice(20, 30),
        content.slice(5, 25),
        content.slice(-3)
      ])
      // The first is the head.
      expect(opened.slice(1)).toEqual([
        { ifMatch: "1", range: ByteRange.make(0, 30) },
        { ifMatch: "1", range: ByteRange.make(500_000, 500_010) },
        { ifMatch: "1", range: ByteRange.make(999_997, 1_000_000) }
      ])
    }))

  it.effect("checks the preconditions of loadRanges also where there are no ranges", () =>
    Effect.gen(function*() {
      const { storage } = makeFour()
      expect(yield* storage.loadRanges("k", [], { ifMatch: "1" })).toEqual([])
      expect((yield* Effect.flip(storage.loadRanges("k", [], { ifMatch: "2" })))._tag).toBe("PreconditionFailed")
      expect((yield* Effect.flip(storage.loadRanges("k", [], { ifNoneMatch: "1" })))._tag).toBe("ObjectNotModified")
    }))

  it.effect("lists keys and directories from its entries", () =>
    Effect.gen(function*() {
      const { storage } = makeFour()
      expect(yield* storage.list("a")).toEqual(["a/b", "a/c"])
      expect(yield* storage.listDirectory()).toEqual({ objects: [infoOf("b")], prefixes: ["a/"] })
    }))

  it.effect("removes many keys one by one, with a failure for each that remains, unless the store is unavailable", () =>
    Effect.gen(function*() {
      const { removed, storage } = makeFour()
      const summary = yield* storage.removeAll(["a/b", "a/c", "b"])
      expect(summary.removed).toBe(2)
      expect(summary.failed).toMatchObject([
        { _tag: "AccessDenied", key: "a/b", operation: "removeAll", backend: "Four" }
      ])
      expect(removed.sort()).toEqual(["a/c", "b"])
      expect(yield* Effect.flip(storage.removeAll(["b", "gone"])))
        .toMatchObject({ _tag: "StorageUnavailable", operation: "removeAll", backend: "Four" })
    }))

  it.effect("copies with the attributes of the source, or those given", () =>
    Effect.gen(function*() {
      const { saved, storage } = makeFour()
      yield* storage.copy("k", "copy")
      yield* storage.copy("k", "copy", { ifNoneMatch: "*", attributes: { cacheControl: "no-store" } })
      expect(saved).toEqual([
        ["copy", { ifNoneMatch: undefined, size: content.byteLength, attributes: { contentLanguage: "en" } }],
        ["copy", { ifNoneMatch: "*", size: content.byteLength, attributes: { cacheControl: "no-store" } }]
      ])
    }))

  it.effect("saves nothing where the source of a copy breaks, and names the source", () =>
    Effect.gen(function*() {
      const broken = makeFour((bytes) => Stream.make(bytes.subarray(0, 10)))
      for (const operation of ["copy", "move"] as const) {
        expect(yield* Effect.flip(broken.storage[operation]("k", "copy")))
          .toMatchObject({ _tag: "CorruptObject", problem: "truncated", operation, backend: "Four", key: "k" })
      }
      const dying = makeFour(() => Stream.dieMessage("a bug"))
      expect(String(yield* Effect.flip(Effect.sandbox(dying.storage.copy("k", "copy"))))).toContain("a bug")
      expect([...broken.saved, ...dying.saved, ...broken.removed]).toEqual([])
    }))

  it.effect("derives every operation from a primitive that replaces another", () =>
    Effect.gen(function*() {
      const { backend } = yield* MemoryStorage.make()
      yield* backend.save("k", content, {})
      const denied = new StorageError.AccessDenied({ reason: "closed" })
      const closed = Storage.make(StorageBackend.make({ ...backend, open: () => denied }))
      const attempts = [
        ...readsOf(closed),
        closed.loadRanges("k", [ByteRange.last(1)]),
        closed.head("k"),
        closed.exists("k"),
        closed.copy("k", "copy"),
        closed.move("k", "copy")
      ]
      for (const attempt of attempts) {
        expect((yield* Effect.flip<unknown, StorageError.StorageError, never>(attempt))._tag).toBe("AccessDenied")
      }
    }))
})

describe("intercept", () => {
  /** Records each operation that is intercepted. */
  const recording = Effect.gen(function*() {
    const { backend } = yield* MemoryStorage.make()
    yield* backend.save("k", content, {})
    yield* backend.save("small", content.slice(0, 10), {})
    const calls = yield* Ref.make<ReadonlyArray<StorageBackend.Call>>([])
    const record = (call: StorageBackend.Call) => Ref.update(calls, (before) => [...before, call])
    const storage = Storage.make(StorageBackend.intercept(backend, {
      name: `Recorded(${backend.name})`,
      effect: (effect, call) => Effect.zipRight(record(call), effect),
      stream: (stream, call) => Stream.concat(Stream.execute(record(call)), stream)
    }))
    return { storage, calls: Ref.getAndSet(calls, []) }
  })

  const cases: ReadonlyArray<
    readonly [
      operation: StorageBackend.Call["operation"],
      run: (storage: Storage.Service) => Effect.Effect<unknown, StorageError.StorageError>,
      calls: ReadonlyArray<Partial<StorageBackend.Call>>
    ]
  > = [
    ["load", (storage) => storage.load("k"), [{ operation: "load", key: "k", writes: false }]],
    [
      "loadRanges",
      (storage) => storage.loadRanges("k", [ByteRange.last(1)]),
      [{ operation: "loadRanges", key: "k", writes: false }]
    ],
    [
      "open",
      (storage) => Stream.runDrain(storage.stream("k")),
      [{ operation: "open", key: "k", writes: false }, { operation: "open", key: "k", writes: false }]
    ],
    ["head", (storage) => storage.exists("k"), [{ operation: "head", key: "k", writes: false }]],
    ["save", (storage) => storage.save("k", content), [{ operation: "save", key: "k", writes: true }]],
    ["entries", (storage) => Stream.runDrain(storage.entries()), [{ operation: "entries", writes: false }]],
    ["keys", (storage) => storage.list(), [{ operation: "keys", writes: false }]],
    ["listDirectory", (storage) => storage.listDirectory(), [{ operation: "listDirectory", writes: false }]],
    ["copy", (storage) => storage.copy("k", "c"), [{ operation: "copy", key: "k", writes: true }]],
    ["move", (storage) => storage.move("k", "c"), [{ operation: "move", key: "k", writes: true }]],
    ["remove", (storage) => storage.remove("k"), [{ operation: "remove", key: "k", writes: true }]],
    ["removeAll", (storage) => storage.removeAll(["k"]), [{ operation: "removeAll", writes: true }]]
  ]
  for (const [operation, run, expected] of cases) {
    it.effect(`wraps ${operation}`, () =>
      Effect.gen(function*() {
        const { calls, storage } = yield* recording
        yield* run(storage)
        expect(yield* calls).toMatchObject(expected)
      }))
  }

  it.effect("shows its name in failures, and changes nothing that it does not wrap", () =>
    Effect.gen(function*() {
      const { backend } = yield* MemoryStorage.make()
      yield* backend.save("k", content, {})
      const storage = Storage.make(StorageBackend.intercept(backend, { name: "Plain(Memory)" }))
      expect(storage.backend.capabilities).toBe(backend.capabilities)
      expect(Buffer.compare(yield* storage.load("k"), content)).toBe(0)
      expect(yield* Effect.flip(storage.load("missing")))
        .toMatchObject({ _tag: "ObjectNotFound", operation: "load", backend: "Plain(Memory)", key: "missing" })
    }))

  it.effect("keeps bytes that are in memory, and wraps the stream of others, also where it reuses its array", () =>
    Effect.scoped(Effect.gen(function*() {
      const { calls, storage } = yield* recording
      expect((yield* storage.open("small")).bytes).toEqual(content.slice(0, 10))
      const reusing = StorageBackend.intercept({
        ...storage.backend,
        open: (key, options) =>
          Effect.map(storage.backend.open(key, options), (opened) => ({ ...opened, reuse: () => opened.stream }))
      }, {
        name: "Failing",
        stream: (stream) =>
          Stream.concat(stream, Stream.fail(new StorageError.StorageUnavailable({ reason: "broken" })))
      })
      yield* calls
      const opened = yield* Storage.make(reusing).open("k")
      for (const stream of [opened.stream, opened.reuse?.(() => true) ?? Stream.empty]) {
        expect(yield* Effect.flip(Stream.runDrain(stream)))
          .toMatchObject({ _tag: "StorageUnavailable", operation: "open", backend: "Failing", key: "k" })
      }
    })))
})
