import { describe, expect, it } from "@effect/vitest"
import { Effect, Stream } from "effect"
import { ByteRange, ObjectKey, Storage, StorageBackend, StorageError } from "surfing-weights"

const content = Uint8Array.from({ length: 1_000_000 }, (_, i) => i % 251)
const info = (key: string) => ({ key, size: content.byteLength, lastModified: new Date(0), etag: "1" })
const refused = (operation: string) =>
  new StorageError.UnsupportedOperation({ backend: "Four", operation, reason: "not here" })

/** A store of four primitives whose body is what `body` makes of the bytes asked for; it notes what is asked of it. */
const four = (body: (bytes: Uint8Array) => Stream.Stream<Uint8Array> = (bytes) => Stream.make(bytes)) => {
  const opened: Array<StorageBackend.LoadOptions> = []
  const removed: Array<string> = []
  const backend = StorageBackend.make({
    name: "Four",
    capabilities: StorageBackend.full,
    open: (key, options) =>
      Effect.gen(function*() {
        opened.push(options)
        const range = yield* StorageBackend.checkLoad(info(key), options, { backend: "Four", operation: "load" })
        return { info: info(key), range, stream: body(content.slice(range.start, range.endExclusive)) }
      }),
    save: () => refused("save"),
    entries: ({ prefix = "", startAfter = "" }) =>
      Stream.fromIterable(
        ["a/b", "a/c", "b"].filter((key) => key.startsWith(prefix) && ObjectKey.compare(key, startAfter) > 0).map(info)
      ),
    remove: (key) =>
      key === "a/b"
        ? new StorageError.AccessDenied({ backend: "Four", operation: "remove", key, reason: "locked" })
        : key === "gone"
        ? new StorageError.StorageUnavailable({ backend: "Four", operation: "remove", reason: "down" })
        : Effect.sync(() => void removed.push(key))
  })
  return { backend, storage: Storage.make(backend), opened, removed }
}

describe("a backend made of four primitives", () => {
  it.effect("loads what it opens", () =>
    Effect.gen(function*() {
      const { storage } = four((bytes) => Stream.make(bytes.subarray(0, 10), bytes.subarray(10)))
      expect(Buffer.compare(yield* storage.load("k"), content)).toBe(0)
      expect(yield* storage.load("k", { range: ByteRange.make(5, 15) })).toEqual(content.slice(5, 15))
    }))

  it.effect("gives an array of one's own to each run of a load, also of bytes at hand", () =>
    Effect.gen(function*() {
      const few = { ...info("k"), size: 4 }
      const { capabilities, entries, name, remove, save } = four().backend
      const backend = StorageBackend.make({
        name,
        capabilities,
        entries,
        remove,
        save,
        open: (_, options) => StorageBackend.openBytes(content.slice(0, 4), few, options, "Four")
      })
      const load = backend.load("k", {})
      const first = yield* load
      first.fill(9)
      expect(yield* load).toEqual(content.slice(0, 4))
    }))

  it.effect("fails with a truncated object where a body ends early, and never gives a short one", () =>
    Effect.gen(function*() {
      const { storage } = four((bytes) => Stream.make(bytes.subarray(0, 999_999)))
      for (const attempt of [storage.load("k"), Stream.runDrain(storage.stream("k"))]) {
        const error = yield* Effect.flip<unknown, StorageError.LoadError, never>(attempt)
        expect(error).toMatchObject({ _tag: "CorruptObject", problem: "truncated" })
        expect(error.message).toContain("999999 of 1000000")
        expect(StorageError.isRetryable(error)).toBe(true)
      }
    }))

  it.effect("fails where a body goes on for too long, which no retry can mend", () =>
    Effect.gen(function*() {
      const { storage } = four((bytes) => Stream.make(bytes, new Uint8Array(1)))
      for (const attempt of [storage.load("k"), Stream.runDrain(storage.stream("k"))]) {
        const error = yield* Effect.flip<unknown, StorageError.LoadError, never>(attempt)
        expect(error).toMatchObject({ _tag: "CorruptObject", problem: "size" })
        expect(StorageError.isRetryable(error)).toBe(false)
      }
    }))

  it.effect("shares no bytes with who reads them, where they are at hand as a Buffer", () =>
    Effect.gen(function*() {
      const kept = Buffer.from("weights")
      const opened = yield* StorageBackend.openBytes(kept, { ...info("k"), size: kept.byteLength }, {}, "Four")
      yield* Stream.runForEach(opened.stream, (chunk) => Effect.sync(() => chunk.fill(0)))
      expect(kept.toString()).toBe("weights")
    }))

  it.effect("heads an object without reading its body", () =>
    Effect.gen(function*() {
      const { storage } = four(() => Stream.dieMessage("the body was read"))
      expect(yield* storage.head("k")).toEqual(info("k"))
      expect(yield* storage.exists("k")).toBe(true)
    }))

  it.effect("loads neighbouring ranges together, those far apart on their own, all of one version", () =>
    Effect.gen(function*() {
      const { opened, storage } = four()
      const ranges = [
        ByteRange.make(500_000, 500_010),
        ByteRange.make(0, 10),
        ByteRange.make(20, 30),
        ByteRange.make(5, 25),
        ByteRange.last(3)
      ]
      const loaded = yield* storage.loadRanges("k", ranges)
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

  it.effect("lists keys and folders out of its entries", () =>
    Effect.gen(function*() {
      const { storage } = four()
      expect(yield* storage.list("a")).toEqual(["a/b", "a/c"])
      expect(yield* storage.listDirectory()).toEqual({ objects: [info("b")], prefixes: ["a/"] })
    }))

  it.effect("removes many keys one by one, and tells which could not be, unless none could", () =>
    Effect.gen(function*() {
      const { removed, storage } = four()
      const summary = yield* storage.removeAll(["a/b", "a/c", "b"])
      expect(summary.removed).toBe(2)
      expect(summary.failed.map(({ _tag, key }) => [_tag, key])).toEqual([["AccessDenied", "a/b"]])
      expect(removed.sort()).toEqual(["a/c", "b"])
      expect((yield* Effect.flip(storage.removeAll(["b", "gone"])))._tag).toBe("StorageUnavailable")
    }))
})
