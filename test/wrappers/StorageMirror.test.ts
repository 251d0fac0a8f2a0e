/**
 * What a sync copies and removes, what it calls, and its events: in memory with a test clock, and between memory and a
 * directory.
 */
import { describe, expect, it } from "@effect/vitest"
import { Chunk, Deferred, Effect, Exit, FastCheck, Fiber, Stream, TestClock } from "effect"
import {
  MemoryStorage,
  ObjectKey,
  Storage,
  StorageBackend,
  StorageChaos,
  StorageError,
  StorageLimit,
  StorageMirror,
  StorageReadOnly
} from "surfing-weights"
import { Directory, leftovers } from "../support/directory.js"
import { eventsOf, memoryOf, type Objects, objectsOf, onDirectory, run, saveAll, text } from "../support/mirror.js"

const { Copied, Removed, Unchanged } = StorageMirror.Event

/** The same storage with some operations replaced. */
const altered = (
  storage: Storage.Service,
  change: (inner: StorageBackend.StorageBackend) => Partial<StorageBackend.StorageBackend>
) => Storage.make({ ...storage.backend, ...change(storage.backend) })

/** The same storage, which records its calls. */
const recording = (storage: Storage.Service, log: Array<string>) =>
  altered(storage, (inner) => {
    const note = (line: string) => Effect.sync(() => void log.push(line))
    return {
      open: (key, options) => Effect.zipRight(note(`open ${key}`), inner.open(key, options)),
      head: (key) => Effect.zipRight(note(`head ${key}`), inner.head(key)),
      save: (key, data, options) => Effect.zipRight(note(`save ${key}`), inner.save(key, data, options)),
      remove: (key, options) => Effect.zipRight(note(`remove ${key}`), inner.remove(key, options)),
      entries: (options) => Stream.concat(Stream.execute(note(`entries ${options.prefix}`)), inner.entries(options))
    }
  })

/** The same storage with other metadata of each object. */
const withInfo = (
  storage: Storage.Service,
  change: (info: Storage.ObjectInfo) => Partial<Storage.ObjectInfo>
) =>
  altered(storage, (inner) => {
    const changed = (info: Storage.ObjectInfo) => ({ ...info, ...change(info) })
    return {
      open: (key, options) =>
        Effect.map(inner.open(key, options), (opened) => ({ ...opened, info: changed(opened.info) })),
      head: (key) => Effect.map(inner.head(key), changed),
      save: (key, data, options) => Effect.map(inner.save(key, data, options), changed),
      entries: (options) => Stream.map(inner.entries(options), changed)
    }
  })

/** The same storage, whose listing has pages of `size` objects and records which of them are read. */
const paged = (storage: Storage.Service, size: number, pages: Array<string> = []) =>
  altered(storage, (inner) => ({
    entries: (options) =>
      inner.entries(options).pipe(
        Stream.grouped(size),
        Stream.rechunk(1),
        Stream.flatMap((page) => {
          pages.push(Chunk.unsafeHead(page).key)
          return Stream.fromChunk(page)
        })
      )
  }))

const crc = (value: string): Pick<Storage.ObjectInfo, "checksum"> => ({ checksum: { algorithm: "CRC32C", value } })

describe("StorageMirror.copyObject", () => {
  it.effect("copies one object under another key with its attributes", () =>
    Effect.gen(function*() {
      const from = yield* memoryOf({})
      yield* from.save("small", text("one"), { attributes: { contentType: "text/plain" } })
      yield* from.save("large", new Uint8Array(2 * 1024 * 1024), { attributes: { cacheControl: "no-store" } })
      const to = yield* MemoryStorage.make()
      for (const [key, attributes] of Object.entries({ small: "text/plain", large: "no-store" })) {
        const copying = StorageMirror.copyObject({ storage: from, key }, { storage: to, key: `copies/${key}` })
        expect((yield* copying)._tag).toBe("Copied")
        const copy = yield* to.head(`copies/${key}`)
        expect(Object.values(copy.attributes ?? {})).toEqual([attributes])
        expect(yield* to.load(`copies/${key}`)).toEqual(yield* from.load(key))
      }
    }))

  it.effect("leaves an object that is there already by its checksum, and never by its time", () =>
    Effect.gen(function*() {
      const from = yield* memoryOf({ a: "one" })
      const to = yield* memoryOf({ a: "two" })
      const at = (storage: Storage.Service) => ({ storage, key: "a" })
      const later = withInfo(to, () => ({ lastModified: new Date(Date.now() + 1000) }))
      expect((yield* StorageMirror.copyObject(at(from), at(later)))._tag).toBe("Copied")
      expect(yield* objectsOf(to)).toEqual({ a: "one" })
      const [one, same] = [withInfo(from, () => crc("x")), withInfo(to, () => crc("x"))]
      expect((yield* StorageMirror.copyObject(at(one), at(same)))._tag).toBe("Unchanged")
    }))

  it.effect("fails where there is no such object, and saves nothing", () =>
    Effect.gen(function*() {
      const [from, to] = [yield* MemoryStorage.make(), yield* MemoryStorage.make()]
      const failure = yield* Effect.flip(
        StorageMirror.copyObject({ storage: from, key: "a" }, { storage: to, key: "b" })
      )
      expect(failure).toMatchObject({ _tag: "ObjectNotFound", key: "a" })
      expect(yield* to.list()).toEqual([])
    }))
})

describe("StorageMirror.sync", () => {
  it.effect("keeps no content type that says only that bytes are bytes", () =>
    Effect.gen(function*() {
      const from = yield* MemoryStorage.make()
      yield* from.save("a", text("one"), { attributes: { contentType: "application/octet-stream" } })
      const to = yield* MemoryStorage.make()
      yield* eventsOf(from, to)
      expect((yield* to.head("a")).attributes).toEqual((yield* (yield* memoryOf({ a: "one" })).head("a")).attributes)
    }))

  it.effect("copies everything into an empty storage, with an event for each object", () =>
    Effect.gen(function*() {
      const from = yield* memoryOf({ a: "one", "b/c": "three", empty: "" })
      const to = yield* MemoryStorage.make()
      expect(yield* eventsOf(from, to)).toEqual([
        Copied({ key: "a", size: 3 }),
        Copied({ key: "b/c", size: 5 }),
        Copied({ key: "empty", size: 0 })
      ])
      expect(yield* objectsOf(to)).toEqual({ a: "one", "b/c": "three", empty: "" })
    }))

  it.effect("moves: removes what `to` has now or had before, by its bytes and not by its time", () =>
    Effect.gen(function*() {
      const from = yield* memoryOf({ a: "one", b: "two", c: "new" })
      yield* TestClock.adjust("1 minute")
      const to = yield* memoryOf({ b: "two", c: "old" })
      expect(yield* eventsOf(from, to, { move: true, dryRun: true })).toEqual([
        Copied({ key: "a", size: 3 }),
        Unchanged({ key: "b", size: 3 }),
        Copied({ key: "c", size: 3 })
      ])
      expect(yield* from.list()).toEqual(["a", "b", "c"])
      expect(tags(yield* eventsOf(from, to, { move: true })).sort()).toEqual(["Copied a", "Copied c", "Unchanged b"])
      expect(yield* from.list()).toEqual([])
      expect(yield* objectsOf(to)).toEqual({ a: "one", b: "two", c: "new" })
    }))

  it.effect("moves: keeps an original that was overwritten while it was copied", () =>
    Effect.gen(function*() {
      const from = yield* memoryOf({ a: "one", b: "one" })
      const to = altered(yield* MemoryStorage.make(), (inner) => ({
        save: (key, data, options) =>
          Effect.zipRight(
            key === "a" ? Effect.orDie(from.save("a", text("two"))) : Effect.void,
            inner.save(key, data, options)
          )
      }))
      const { events, failure } = yield* run(StorageMirror.sync(from, to, { move: true }))
      expect(tags(events).sort()).toEqual(["Copied b", "Failed a"])
      expect(failure).toMatchObject({ _tag: "PreconditionFailed", key: "a" })
      expect(yield* objectsOf(from)).toEqual({ a: "two" })
    }))

  it.effect("ignores what a filter does not select on both sides, also where it removes", () =>
    Effect.gen(function*() {
      const from = yield* memoryOf({ "a.bin": "one", "a.txt": "two" })
      const to = yield* memoryOf({ "b.bin": "old", "b.txt": "old" })
      expect(yield* eventsOf(from, to, { delete: true, filter: (key) => key.endsWith(".bin") })).toEqual([
        Copied({ key: "a.bin", size: 3 }),
        Removed({ key: "b.bin" })
      ])
      expect(yield* objectsOf(to)).toEqual({ "a.bin": "one", "b.txt": "old" })
    }))

  it.effect("compares bytes instead of times with checksum, in a dry run as well", () =>
    Effect.gen(function*() {
      const older = new Date(0)
      const newer = new Date(1)
      const from = withInfo(yield* memoryOf({ changed: "new", same: "same" }), ({ key }) => ({
        lastModified: key === "same" ? newer : older
      }))
      const to = withInfo(yield* memoryOf({ changed: "old", same: "same" }), ({ key }) => ({
        lastModified: key === "same" ? older : newer
      }))
      const unchangedByTime = Unchanged({ key: "changed", size: 3 })
      expect(yield* eventsOf(from, to, { dryRun: true })).toEqual([unchangedByTime, Copied({ key: "same", size: 4 })])
      const decided = [Copied({ key: "changed", size: 3 }), Unchanged({ key: "same", size: 4 })]
      expect(yield* eventsOf(from, to, { checksum: true, dryRun: true })).toEqual(decided)
      expect(yield* eventsOf(from, to, { checksum: true })).toEqual(decided)
      expect(yield* objectsOf(to)).toEqual({ changed: "new", same: "same" })
    }))

  it.effect("reports an object that it cannot compare, does the others, and fails", () =>
    Effect.gen(function*() {
      const older = { lastModified: new Date(0) }
      const source = withInfo(yield* memoryOf({ bad: "new", good: "new" }), () => older)
      const from = altered(source, (inner) => ({
        open: (key, options) =>
          key === "bad" ? Effect.fail(new StorageError.AccessDenied({ reason: "no" })) : inner.open(key, options)
      }))
      const to = yield* memoryOf({ bad: "old", good: "old" })
      const { events, failure } = yield* run(StorageMirror.sync(from, to, { checksum: true }))
      expect(events.map(({ _tag, key }) => [_tag, key]).sort()).toEqual([["Copied", "good"], ["Failed", "bad"]])
      expect(failure?._tag).toBe("AccessDenied")
    }))

  it.effect("copies nothing the second time, and only lists", () =>
    Effect.gen(function*() {
      const log: Array<string> = []
      const from = yield* memoryOf({ a: "one", b: "two" })
      const to = yield* MemoryStorage.make()
      yield* eventsOf(from, to)
      expect(yield* eventsOf(recording(from, log), recording(to, log), { delete: true })).toEqual([
        Unchanged({ key: "a", size: 3 }),
        Unchanged({ key: "b", size: 3 })
      ])
      expect(log).toEqual(["entries ", "entries "])
    }))

  it.effect("can be run again, as any stream", () =>
    Effect.gen(function*() {
      const from = yield* memoryOf({ a: "one" })
      const sync = StorageMirror.sync(from, yield* MemoryStorage.make())
      expect((yield* run(sync)).events).toEqual([Copied({ key: "a", size: 3 })])
      expect((yield* run(sync)).events).toEqual([Unchanged({ key: "a", size: 3 })])
    }))

  it.effect("does nothing between a storage and itself", () =>
    Effect.gen(function*() {
      const storage = yield* memoryOf({ a: "one" })
      expect(yield* eventsOf(storage, storage, { delete: true })).toEqual([Unchanged({ key: "a", size: 3 })])
    }))
})

describe("StorageMirror.sync, attributes", () => {
  const attributes = { contentType: "application/json", metadata: { model: "bert" } }

  it.effect("are copied, also where the listing does not have them", () =>
    Effect.gen(function*() {
      const from = yield* MemoryStorage.make()
      yield* from.save("a", text("one"), { attributes })
      const blind = altered(from, (inner) => ({
        entries: (options) => Stream.map(inner.entries(options), (info) => ({ ...info, attributes: undefined }))
      }))
      for (const source of [from, blind]) {
        const to = yield* MemoryStorage.make()
        yield* eventsOf(source, to)
        expect((yield* to.head("a")).attributes).toEqual(attributes)
      }
    }))

  it.effect("are left out where `to` does not keep them", () =>
    Effect.gen(function*() {
      const from = yield* MemoryStorage.make()
      yield* from.save("a", text("one"), { attributes })
      const memory = yield* MemoryStorage.make()
      const to = altered(memory, (inner) => ({ capabilities: { ...inner.capabilities, attributes: false } }))
      expect(tags(yield* eventsOf(from, to))).toEqual(["Copied a"])
      expect((yield* memory.head("a")).attributes).toBe(undefined)
    }))
})

describe("StorageMirror.sync compares objects", () => {
  it.effect("by size: one of another size is copied, however old it is", () =>
    Effect.gen(function*() {
      const from = yield* memoryOf({ a: "longer" })
      yield* TestClock.adjust("1 hour")
      const to = yield* memoryOf({ a: "long" })
      expect(yield* eventsOf(from, to)).toEqual([Copied({ key: "a", size: 6 })])
      expect(yield* objectsOf(to)).toEqual({ a: "longer" })
    }))

  it.effect("by time, where nothing else shows it: what was saved in `from` later is copied", () =>
    Effect.gen(function*() {
      const to = yield* memoryOf({ a: "old", b: "old" })
      const from = yield* memoryOf({ a: "old" })
      yield* TestClock.adjust("1 second")
      yield* saveAll(from, { b: "new" })
      expect(yield* eventsOf(from, to)).toEqual([Unchanged({ key: "a", size: 3 }), Copied({ key: "b", size: 3 })])
      expect(yield* objectsOf(to)).toEqual({ a: "old", b: "new" })
      expect(yield* eventsOf(from, to)).toEqual([Unchanged({ key: "a", size: 3 }), Unchanged({ key: "b", size: 3 })])
    }))

  it.effect("by checksums of one kind, whatever the times say", () =>
    Effect.gen(function*() {
      const older = yield* memoryOf({ a: "same", b: "one!" })
      yield* TestClock.adjust("1 hour")
      const newer = yield* memoryOf({ a: "same", b: "two!" })
      const from = withInfo(newer, ({ key }) => crc(key))
      const same = withInfo(older, ({ key }) => crc(key))
      expect(yield* eventsOf(from, same)).toEqual([Unchanged({ key: "a", size: 4 }), Unchanged({ key: "b", size: 4 })])
      const other = withInfo(older, ({ etag, key }) => crc(key === "b" && etag === "2" ? "other" : key))
      expect(yield* eventsOf(withInfo(older, ({ key }) => crc(key)), other)).toEqual([
        Unchanged({ key: "a", size: 4 }),
        Copied({ key: "b", size: 4 })
      ])
    }))

  it.effect("by time, where the checksums are of two kinds", () =>
    Effect.gen(function*() {
      const from = withInfo(yield* memoryOf({ a: "same" }), () => crc("x"))
      const to = withInfo(yield* memoryOf({ a: "same" }), () => ({ checksum: { algorithm: "SHA256", value: "x" } }))
      expect(yield* eventsOf(from, to)).toEqual([Unchanged({ key: "a", size: 4 })])
    }))

  it.effect("by equal etags, where they are digests of the bytes", () =>
    Effect.gen(function*() {
      const to = yield* memoryOf({ a: "same" })
      yield* TestClock.adjust("1 hour")
      const from = yield* memoryOf({ a: "same" })
      const digest = () => ({ etag: "0123456789abcdef0123456789abcdef-2" })
      expect(yield* eventsOf(withInfo(from, digest), withInfo(to, digest), { dryRun: true })).toEqual([
        Unchanged({ key: "a", size: 4 })
      ])
      expect(yield* eventsOf(from, to, { dryRun: true })).toEqual([Copied({ key: "a", size: 4 })])
    }))
})

describe("StorageMirror.sync leaves alone", () => {
  it.effect("what does not start with the prefix, on both sides", () =>
    Effect.gen(function*() {
      const log: Array<string> = []
      const from = yield* memoryOf({ "bert/a": "1", "bertha": "2", "gpt/a": "3" })
      const to = yield* memoryOf({ "bert/old": "4", "gpt/old": "5" })
      expect(yield* eventsOf(recording(from, log), recording(to, log), { prefix: "bert/", delete: true })).toEqual([
        Copied({ key: "bert/a", size: 1 }),
        Removed({ key: "bert/old" })
      ])
      expect(yield* objectsOf(to)).toEqual({ "bert/a": "1", "gpt/old": "5" })
      expect(log.slice(0, 2)).toEqual(["entries bert/", "entries bert/"])
    }))

  it.effect("everything, where no key can start with the prefix", () =>
    Effect.gen(function*() {
      const to = yield* memoryOf({ a: "1" })
      expect(yield* eventsOf(yield* MemoryStorage.make(), to, { prefix: "../", delete: true })).toEqual([])
      expect(yield* objectsOf(to)).toEqual({ a: "1" })
    }))

  it.effect("what `from` does not have, unless `delete` is set", () =>
    Effect.gen(function*() {
      const from = yield* memoryOf({ b: "1" })
      const to = yield* memoryOf({ a: "2", b: "1", c: "3" })
      expect(yield* eventsOf(from, to)).toEqual([Unchanged({ key: "b", size: 1 })])
      expect(yield* eventsOf(from, to, { delete: true })).toEqual([
        Removed({ key: "a" }),
        Unchanged({ key: "b", size: 1 }),
        Removed({ key: "c" })
      ])
      expect(yield* objectsOf(to)).toEqual({ b: "1" })
    }))

  it.effect("everything in a dry run, which emits the same events in key order", () =>
    Effect.gen(function*() {
      const log: Array<string> = []
      const from = yield* memoryOf({ a: "1", c: "longer", d: "new", e: "" })
      const objects = { b: "2", c: "long", e: "" }
      const to = yield* memoryOf(objects)
      const readOnly = yield* StorageReadOnly.make(recording(to, log))
      const { events } = yield* run(
        StorageMirror.sync(recording(from, log), readOnly, { delete: true, dryRun: true })
      )
      expect(events).toEqual([
        Copied({ key: "a", size: 1 }),
        Removed({ key: "b" }),
        Copied({ key: "c", size: 6 }),
        Copied({ key: "d", size: 3 }),
        Unchanged({ key: "e", size: 0 })
      ])
      expect(log).toEqual(["entries ", "entries "])
      expect(yield* objectsOf(to)).toEqual(objects)
      expect(yield* eventsOf(from, to, { delete: true })).toEqual(events)
    }))

  it.effect("nothing, where `from` is empty and `delete` is set", () =>
    Effect.gen(function*() {
      const to = yield* memoryOf({ a: "1", b: "2" })
      expect(yield* eventsOf(yield* MemoryStorage.make(), to, { delete: true, dryRun: true })).toHaveLength(2)
      yield* eventsOf(yield* MemoryStorage.make(), to, { delete: true })
      expect(yield* to.list()).toEqual([])
    }))

  it.effect("what `from` has although its listing did not have it", () =>
    Effect.gen(function*() {
      const from = yield* memoryOf({ a: "1", b: "2" })
      const to = yield* memoryOf({ a: "1", b: "old" })
      const incomplete = altered(from, (inner) => ({ entries: (options) => Stream.take(inner.entries(options), 1) }))
      const { events, failure } = yield* run(StorageMirror.sync(incomplete, to, { delete: true }))
      expect(events).toMatchObject([
        { _tag: "Unchanged", key: "a" },
        { _tag: "Failed", key: "b", error: { _tag: "PreconditionFailed", operation: "sync" } }
      ])
      expect(failure).toBe(failureIn(events))
      expect(yield* objectsOf(to)).toEqual({ a: "1", b: "old" })
    }))
})

/** The failure in the first of the `Failed` events. */
const failureIn = (events: ReadonlyArray<StorageMirror.Event>) => events.find(StorageMirror.Event.$is("Failed"))?.error

const tags = (events: ReadonlyArray<StorageMirror.Event>) => events.map(({ _tag, key }) => `${_tag} ${key}`)

const keys = Array.from({ length: 20 }, (_, i) => `k${String(i).padStart(2, "0")}`)

const twenty = Object.fromEntries(keys.map((key) => [key, `content of ${key}`]))

describe("StorageMirror.sync, when something fails", () => {
  it.effect("does the others, and then fails with the first failure", () =>
    Effect.gen(function*() {
      const from = yield* StorageChaos.make(yield* memoryOf({ a: "1", b: "2", c: "3", d: "4", e: "5" }), [
        { operation: "open", key: "b" },
        { operation: "open", key: "c", afterBytes: 1 }
      ])
      const memory = yield* memoryOf({ c: "old", x: "6", y: "7" })
      const to = yield* StorageChaos.make(memory, [
        { operation: "save", key: "d" },
        { operation: "remove", key: "x" }
      ])
      const { events, failure } = yield* run(StorageMirror.sync(from, to, { concurrency: 1, delete: true }))
      expect(tags(events)).toEqual([
        "Copied a",
        "Failed b",
        "Failed c",
        "Failed d",
        "Copied e",
        "Failed x",
        "Removed y"
      ])
      expect(failureIn(events)).toMatchObject({ _tag: "StorageUnavailable", operation: "open", key: "b" })
      expect(failure).toBe(failureIn(events))
      expect(yield* objectsOf(memory)).toEqual({ a: "1", c: "old", e: "5", x: "6" })
      // Nothing fails the second time.
      expect(tags(yield* eventsOf(from, to, { delete: true }))).toEqual([
        "Unchanged a",
        "Copied b",
        "Copied c",
        "Copied d",
        "Unchanged e",
        "Removed x"
      ])
    }))

  const full = (struck: StorageChaos.Target) => new StorageError.StorageFull({ ...struck, reason: "full" })
  const denied = (struck: StorageChaos.Target) => new StorageError.AccessDenied({ ...struck, reason: "denied" })
  const gone = (struck: StorageChaos.Target) => new StorageError.StorageNotFound({ ...struck, reason: "gone" })

  it.effect("stops at once where every other object would fail like this", () =>
    Effect.forEach([full, denied, gone], (error) =>
      Effect.gen(function*() {
        const log: Array<string> = []
        const from = recording(yield* memoryOf(twenty), log)
        const to = yield* StorageChaos.make(yield* MemoryStorage.make(), [
          { operation: "save", key: "k02" },
          { operation: "save", key: "k05", error, times: Infinity }
        ])
        const { events, failure } = yield* run(StorageMirror.sync(from, to, { concurrency: 1 }))
        expect(tags(events)).toEqual(["Copied k00", "Copied k01", "Failed k02", "Copied k03", "Copied k04"])
        expect(failure).toMatchObject({ _tag: error({ backend: "", operation: "save", key: "" })._tag, key: "k05" })
        expect(log).not.toContain("open k06")
      })))

  it.effect("stops at once where removals are denied", () =>
    Effect.gen(function*() {
      const log: Array<string> = []
      const to = yield* memoryOf(twenty)
      const refusing = yield* StorageChaos.make(recording(to, log), [
        { operation: "remove", error: denied, times: Infinity }
      ])
      const from = yield* MemoryStorage.make()
      const { events, failure } = yield* run(StorageMirror.sync(from, refusing, { concurrency: 1, delete: true }))
      expect(events).toEqual([])
      expect(failure).toMatchObject({ _tag: "AccessDenied", key: "k00" })
      expect(yield* objectsOf(to)).toEqual(twenty)
    }))

  it.effect("goes on where one read is denied, and stops where `from` is gone", () =>
    Effect.gen(function*() {
      const from = yield* memoryOf(twenty)
      const secret = yield* StorageChaos.make(from, [{ operation: "open", key: "k05", error: denied }])
      const first = yield* run(StorageMirror.sync(secret, yield* MemoryStorage.make()))
      expect(first.events.filter(StorageMirror.Event.$is("Copied"))).toHaveLength(19)
      expect(first.failure).toMatchObject({ _tag: "AccessDenied", key: "k05" })

      const unmounted = yield* StorageChaos.make(from, [{ operation: "open", key: "k05", error: gone }])
      const second = yield* run(StorageMirror.sync(unmounted, yield* MemoryStorage.make(), { concurrency: 1 }))
      expect(second.events).toHaveLength(5)
      expect(second.failure).toMatchObject({ _tag: "StorageNotFound", key: "k05" })
    }))

  it.live("interrupts the work under way when it stops, and only then fails", () =>
    Effect.gen(function*() {
      const log: Array<string> = []
      const from = yield* memoryOf(twenty)
      const begun = yield* Deferred.make<void>()
      const to = altered(yield* MemoryStorage.make(), () => ({
        save: (key) =>
          key === "k00"
            ? Deferred.succeed(begun, undefined).pipe(
              Effect.zipRight(Effect.never),
              Effect.onInterrupt(() => Effect.delay(Effect.sync(() => void log.push("interrupted")), "20 millis"))
            )
            : Effect.zipRight(Deferred.await(begun), full({ backend: "", operation: "save", key }))
      }))
      const { failure } = yield* run(StorageMirror.sync(from, to, { concurrency: 2 }))
      expect(failure?._tag).toBe("StorageFull")
      expect(log).toEqual(["interrupted"])
    }))

  /** The same storage, whose listing breaks after `pages` pages of one object each. */
  const breakingAfter = (storage: Storage.Service, pages: number) =>
    altered(paged(storage, 1), (inner) => ({
      entries: (options) =>
        Stream.concat(
          Stream.take(inner.entries(options), pages),
          // Late enough for what can end to have ended.
          Stream.execute(Effect.delay(
            new StorageError.StorageUnavailable({ reason: "down" }),
            "50 millis"
          ))
        )
    }))

  it.live("fails at once where a listing fails, interrupts the work under way, and removes nothing more", () =>
    Effect.forEach(["from", "to"], (side) =>
      Effect.gen(function*() {
        const log: Array<string> = []
        const source = yield* memoryOf({ a: "1", slow: "2" })
        const target = yield* memoryOf({ b: "3", t: "4", z: "5" })
        const waiting = altered(target, (inner) => ({
          save: (key, data, options) =>
            key !== "slow" ? inner.save(key, data, options) : Effect.never.pipe(
              Effect.onInterrupt(() => Effect.sync(() => void log.push("interrupted")))
            )
        }))
        const { events, failure } = yield* run(
          side === "from"
            ? StorageMirror.sync(breakingAfter(source, 2), waiting, { delete: true })
            : StorageMirror.sync(source, breakingAfter(waiting, 2), { delete: true })
        )
        expect(failure).toMatchObject({ _tag: "StorageUnavailable", operation: "entries" })
        expect(log).toEqual(["interrupted"])
        // That `from` has no "t" is known only where its listing went on to the end.
        expect(tags(events).sort()).toEqual(["Copied a", "Removed b", ...(side === "from" ? [] : ["Removed t"])])
        expect(yield* target.list()).toEqual(side === "from" ? ["a", "t", "z"] : ["a", "z"])
      })))

  it.effect("does not copy an object that was overwritten since it was listed", () =>
    Effect.gen(function*() {
      const memory = yield* memoryOf({ a: "one" })
      const listed = yield* Stream.runCollect(memory.entries())
      yield* saveAll(memory, { a: "two" })
      const from = altered(memory, () => ({ entries: () => Stream.fromChunk(listed) }))
      const to = yield* MemoryStorage.make()
      const { events, failure } = yield* run(StorageMirror.sync(from, to))
      expect(tags(events)).toEqual(["Failed a"])
      expect(failure).toMatchObject({ _tag: "PreconditionFailed", backend: "Memory", operation: "sync", key: "a" })
      expect(yield* to.list()).toEqual([])
    }))

  const large = `one${" ".repeat(1024 * 1024)}`

  /** The same storage, in which something happens to each object that is opened, and then time passes. */
  const disturbed = (
    storage: Storage.Service,
    change: (inner: StorageBackend.StorageBackend) => Effect.Effect<unknown, StorageError.StorageError>,
    seconds: number
  ) =>
    altered(storage, (inner) => ({
      open: (key, options) =>
        Effect.tap(inner.open(key, options), () =>
          Effect.zipRight(Effect.orDie(change(inner)), TestClock.adjust(seconds * 1000)))
    }))

  it.effect.each([
    { what: "is large", content: large, seconds: 0 },
    { what: "took long to read", content: "one", seconds: 2 }
  ])(
    "does not keep a copy of an object that $what and was overwritten meanwhile, since it would look newer",
    ({ content, seconds }) =>
      Effect.gen(function*() {
        const memory = yield* memoryOf({ a: content })
        const replacement = content.replace("one", "two")
        const from = disturbed(memory, (inner) => inner.save("a", text(replacement), {}), seconds)
        const to = yield* memoryOf({ a: "zero" })
        const { events, failure } = yield* run(StorageMirror.sync(from, to))
        expect(tags(events)).toEqual(["Failed a"])
        expect(failure).toMatchObject({ _tag: "PreconditionFailed", backend: "Memory", key: "a" })
        expect(yield* objectsOf(to)).toEqual({ a: "zero" })
        yield* TestClock.adjust("1 minute")
        expect(tags(yield* eventsOf(memory, to))).toEqual(["Copied a"])
        expect(yield* objectsOf(to)).toEqual({ a: replacement })
      })
  )

  it.effect.each([
    { what: "is large", content: large, seconds: 0 },
    { what: "took long to read", content: "one", seconds: 2 }
  ])(
    "does not keep a copy of an object that $what and was removed meanwhile",
    ({ content, seconds }) =>
      Effect.gen(function*() {
        const from = disturbed(yield* memoryOf({ a: content }), (inner) => inner.remove("a", {}), seconds)
        const to = yield* MemoryStorage.make()
        const { failure } = yield* run(StorageMirror.sync(from, to))
        expect(failure).toMatchObject({ _tag: "ObjectNotFound", key: "a" })
        expect(yield* to.list()).toEqual([])
      })
  )

  it.effect("asks `from` once for each small object", () =>
    Effect.gen(function*() {
      const log: Array<string> = []
      yield* Stream.runDrain(
        StorageMirror.sync(recording(yield* memoryOf({ a: "one" }), log), yield* MemoryStorage.make())
      )
      expect(log).toEqual(["entries ", "open a"])
    }))

  it.effect("removes a copy whose checksum or size differs from the original", () =>
    Effect.gen(function*() {
      const wrong: ReadonlyArray<readonly [Partial<Storage.ObjectInfo>, string, string]> = [
        [crc("bad"), "checksum", "the copy must have the CRC32C checksum good (got the CRC32C checksum bad)"],
        [{ size: 2 }, "size", "the copy must have 3 bytes (got 2 bytes)"]
      ]
      for (const [info, problem, reason] of wrong) {
        const source = yield* memoryOf({ a: "one" })
        // Some stores have no checksums in listings.
        const from = altered(withInfo(source, () => crc("good")), () => ({ entries: source.backend.entries }))
        const memory = yield* MemoryStorage.make()
        const to = withInfo(memory, () => info)
        const { events, failure } = yield* run(StorageMirror.sync(from, to))
        expect(tags(events)).toEqual(["Failed a"])
        expect(failure).toMatchObject({ _tag: "CorruptObject", backend: "Memory", key: "a", problem })
        expect(failure?.message).toBe(`sync "a" on Memory: ${reason}; it was removed again`)
        expect(yield* memory.list()).toEqual([])

        const stuck = yield* StorageChaos.make(to, [{ operation: "remove" }])
        const left = yield* run(StorageMirror.sync(from, stuck))
        expect(left.failure).toMatchObject({ _tag: "CorruptObject", problem })
        expect(left.failure?.message).toContain("it is still there (remove \"a\" on Chaos(Memory): injected)")
        expect(yield* memory.list()).toEqual(["a"])
      }
    }))

  it.effect("saves nothing where `from` yields fewer bytes than listed", () =>
    Effect.gen(function*() {
      const from = withInfo(yield* memoryOf({ a: "one" }), () => ({ size: 5 }))
      const to = yield* memoryOf({ a: "zero" })
      const { failure } = yield* run(StorageMirror.sync(from, to))
      expect(failure).toMatchObject({ _tag: "CorruptObject", operation: "save", key: "a", problem: "size" })
      expect(yield* objectsOf(to)).toEqual({ a: "zero" })
    }))

  it.effect("keeps a copy whose checksum is right, or of another kind", () =>
    Effect.forEach(
      [crc("good"), { checksum: { algorithm: "SHA256", value: "x" } } as const, {}],
      (info) =>
        Effect.gen(function*() {
          const from = withInfo(yield* memoryOf({ a: "one" }), () => crc("good"))
          const to = withInfo(yield* MemoryStorage.make(), () => info)
          expect(tags(yield* eventsOf(from, to))).toEqual(["Copied a"])
          expect(yield* objectsOf(to)).toEqual({ a: "one" })
        })
    ))

  it.effect("fails at once where a storage lacks a capability, and on options out of bounds", () =>
    Effect.gen(function*() {
      const log: Array<string> = []
      const able = recording(yield* memoryOf({ a: "1" }), log)
      const unlisted = altered(able, (inner) => ({
        name: "Unlisted",
        capabilities: { ...inner.capabilities, list: false }
      }))
      const readOnly = yield* StorageReadOnly.make(able)
      const refused = [
        ["UnsupportedOperation", StorageMirror.sync(unlisted, able), "sync on Unlisted: listing is not supported"],
        [
          "UnsupportedOperation",
          StorageMirror.sync(able, unlisted, { dryRun: true }),
          "sync on Unlisted: listing is not supported"
        ],
        [
          "UnsupportedOperation",
          StorageMirror.sync(able, readOnly),
          "sync on ReadOnly(Memory): the storage is read-only"
        ],
        [
          "UnsupportedOperation",
          StorageMirror.sync(readOnly, yield* MemoryStorage.make(), { move: true }),
          "sync on ReadOnly(Memory): the storage is read-only"
        ],
        [
          "UnsupportedOperation",
          StorageMirror.sync(able, able, { move: true }),
          "sync on Memory: a storage cannot be moved to itself"
        ],
        ...[0, -1, 1.5, NaN, Infinity].map((concurrency) =>
          [
            "InvalidOptions",
            StorageMirror.sync(able, able, { concurrency }),
            `StorageMirror: concurrency must be a whole number of at least 1 (got ${concurrency})`
          ] as const
        )
      ] as const
      for (const [tag, sync, message] of refused) {
        const { events, failure } = yield* run(sync)
        expect(events).toEqual([])
        expect(failure?._tag).toBe(tag)
        expect(failure?.message).toBe(message)
      }
      expect(log).toEqual([])
    }))
})

/** A storage that counts how many saves run at once. Each takes a while. */
const counting = (storage: Storage.Service) => {
  const saves = { now: 0, most: 0 }
  const counted = altered(storage, (inner) => ({
    save: (key, data, options) =>
      Effect.acquireUseRelease(
        Effect.sync(() => {
          saves.most = Math.max(saves.most, ++saves.now)
        }),
        () => Effect.delay(inner.save(key, data, options), "10 millis"),
        () => Effect.sync(() => void saves.now--)
      )
  }))
  return { saves, counted }
}

describe("StorageMirror.sync, concurrency", () => {
  it.live("copies this many objects at once, and no more", () =>
    Effect.forEach([undefined, 1, 2, 7], (concurrency) =>
      Effect.gen(function*() {
        const { counted, saves } = counting(yield* MemoryStorage.make())
        const from = paged(yield* memoryOf(twenty), 3)
        yield* eventsOf(from, counted, concurrency === undefined ? {} : { concurrency })
        expect(saves).toEqual({ now: 0, most: concurrency ?? 4 })
      }), { concurrency: "unbounded" }))

  it.live("emits the event of each object when it is done", () =>
    Effect.gen(function*() {
      const from = yield* memoryOf({ a: "slow", b: "same", c: "fast" })
      const memory = yield* memoryOf({ b: "same" })
      const to = yield* StorageChaos.make(memory, [
        { operation: "save", key: "a", delay: "50 millis", error: "none" }
      ])
      expect(tags((yield* run(StorageMirror.sync(from, to))).events)).toEqual(["Unchanged b", "Copied c", "Copied a"])
    }))

  it.live("reads no page before it is needed, and waits for a slow consumer of the events", () =>
    Effect.gen(function*() {
      const pages: Array<string> = []
      const { counted, saves } = counting(yield* MemoryStorage.make())
      const many = Object.fromEntries(Array.from({ length: 100 }, (_, i) => [`k${100 + i}`, ""]))
      const from = paged(yield* memoryOf(many), 5, pages)
      const log: Array<string> = []
      yield* StorageMirror.sync(from, recording(counted, log), { concurrency: 2 }).pipe(
        Stream.tap(() => Effect.sleep("500 millis")),
        Stream.take(1),
        Stream.runDrain
      )
      // Events of finished copies wait to be consumed: 16, and one for each of the two.
      expect(log.filter((line) => line.startsWith("save")).length).toBeLessThanOrEqual(21)
      expect(pages.length).toBeLessThanOrEqual(6)
      expect(saves.now).toBe(0)
    }))

  it.live("holds one chunk of each object at a time", () =>
    Effect.gen(function*() {
      const chunk = 1024 * 1024
      const size = 64 * chunk
      const inFlight = { now: 0, most: 0 }
      const move = (by: number) =>
        Effect.sync(() => {
          inFlight.now += by
          inFlight.most = Math.max(inFlight.most, inFlight.now)
        })
      const info = (key: string) => ({ key, size, lastModified: new Date(0), etag: "1" })
      const from = altered(yield* MemoryStorage.make(), () => ({
        entries: () => Stream.make(info("a"), info("b")),
        head: (key) => Effect.succeed(info(key)),
        open: (key) =>
          Effect.succeed(StorageBackend.opened({
            info: info(key),
            range: { start: 0, endExclusive: size },
            stream: Stream.rechunk(Stream.repeatEffect(Effect.as(move(1), new Uint8Array(chunk))), 1).pipe(
              Stream.take(64)
            )
          }))
      }))
      const to = altered(yield* MemoryStorage.make(), () => ({
        save: (key, data) =>
          data instanceof Uint8Array
            ? Effect.die("the object is in memory as a whole")
            : Effect.map(
              Stream.runFoldEffect(
                data,
                0,
                (sum, bytes) => Effect.as(Effect.delay(move(-1), "1 millis"), sum + bytes.byteLength)
              ),
              (size) => ({ ...info(key), size })
            )
      }))
      expect(yield* eventsOf(from, to)).toEqual([Copied({ key: "a", size }), Copied({ key: "b", size })])
      expect(inFlight).toEqual({ now: 0, most: 2 })
    }))

  it.live("works within a limit of two, one for the listing", () =>
    Effect.gen(function*() {
      const from = yield* memoryOf(twenty)
      const to = yield* memoryOf({ other: "" })
      yield* eventsOf(
        yield* StorageLimit.make(from, { concurrency: 2 }),
        yield* StorageLimit.make(to, { concurrency: 2 }),
        { delete: true }
      )
      expect(yield* objectsOf(to)).toEqual(twenty)
    }))
})

const odd: Objects = {
  "%25 %": "percent",
  "a b/ c ": "spaces",
  "con": "device",
  "q?#&+'\"": "url",
  "trailing.": "dot",
  "\uFF5E": "a tilde, before the emoji by its bytes",
  "😀": "an emoji, before the tilde in UTF-16",
  "😀/\uFF5E": "both"
}

describe("StorageMirror.sync between memory and a directory", () => {
  it.scopedLive("copies both ways, nothing the second time, and removes what is gone", () =>
    Effect.gen(function*() {
      const memory = yield* memoryOf({ ...twenty, "deep/er": "1", empty: "" })
      const { storage } = yield* onDirectory
      const events = yield* eventsOf(memory, storage)
      expect(events.every(StorageMirror.Event.$is("Copied"))).toBe(true)
      expect(yield* objectsOf(storage)).toEqual(yield* objectsOf(memory))
      expect((yield* eventsOf(memory, storage)).every(StorageMirror.Event.$is("Unchanged"))).toBe(true)

      const back = yield* MemoryStorage.make()
      yield* eventsOf(storage, back)
      yield* storage.remove("deep/er")
      yield* Effect.sleep("5 millis")
      yield* storage.save("k03", text("content of K03"))
      expect((yield* eventsOf(storage, back, { delete: true })).filter(({ _tag }) => _tag !== "Unchanged")).toEqual([
        Removed({ key: "deep/er" }),
        Copied({ key: "k03", size: 14 })
      ])
      expect(yield* objectsOf(back)).toEqual(yield* objectsOf(storage))
    }))

  it.scopedLive("does only the rest when it is run again after an interruption", () =>
    Effect.gen(function*() {
      const objects = Object.fromEntries(keys.map((key, i) => [key, key.repeat(50_000 * (1 + i % 3))]))
      const from = yield* memoryOf(objects)
      const { directory, storage } = yield* onDirectory
      const slow = altered(from, (inner) => ({
        open: (key, options) =>
          Effect.map(inner.open(key, options), ({ info, range, stream }) =>
            StorageBackend.opened({
              info,
              range,
              stream: Stream.concat(
                Stream.take(stream, 1),
                key === "k07" || key === "k08" ? Stream.never : Stream.drop(stream, 1)
              )
            }))
      }))
      const seen: Array<string> = []
      const eight = yield* Deferred.make<void>()
      const fiber = yield* StorageMirror.sync(slow, storage, { concurrency: 3 }).pipe(
        Stream.runForEach(({ key }) =>
          Effect.suspend(() => seen.push(key) === 8 ? Deferred.succeed(eight, undefined) : Effect.void)
        ),
        Effect.fork
      )
      yield* Deferred.await(eight)
      expect(Exit.isInterrupted(yield* Fiber.interrupt(fiber))).toBe(true)
      expect(yield* Effect.provideService(leftovers, Directory, directory)).toEqual([])
      const done = yield* storage.list()
      expect(done).toEqual(expect.arrayContaining(seen))
      expect(done).not.toContain("k07")

      const log: Array<string> = []
      const events = yield* eventsOf(recording(from, log), storage)
      expect(log.filter((line) => line.startsWith("open")).length).toBe(keys.length - done.length)
      expect(events.filter(StorageMirror.Event.$is("Unchanged")).map(({ key }) => key)).toEqual(done)
      expect(yield* objectsOf(storage)).toEqual(objects)
    }))

  it.scopedLive("reports what the directory cannot hold, and does the others", () =>
    Effect.gen(function*() {
      const from = yield* memoryOf({ a: "1", foo: "2", "foo/bar": "3", z: "4" })
      const { storage } = yield* onDirectory
      const { events, failure } = yield* run(StorageMirror.sync(from, storage, { concurrency: 1 }))
      expect(tags(events)).toEqual(["Copied a", "Copied foo", "Failed foo/bar", "Copied z"])
      expect(failure).toMatchObject({ _tag: "UnsupportedOperation", operation: "save", key: "foo/bar" })
    }))

  it.scopedLive("copies keys of every kind, each once", () =>
    Effect.gen(function*() {
      const from = yield* memoryOf(odd)
      const { storage } = yield* onDirectory
      const back = yield* MemoryStorage.make()
      // A directory cannot hold an object within an object.
      yield* from.move("😀", "😀.bin")
      expect(yield* eventsOf(from, storage, { delete: true })).toHaveLength(8)
      expect(yield* eventsOf(storage, back, { delete: true })).toHaveLength(8)
      expect(yield* objectsOf(back)).toEqual(yield* objectsOf(from))
      const again = yield* eventsOf(from, storage, { delete: true })
      expect(again.every(StorageMirror.Event.$is("Unchanged"))).toBe(true)
    }))
})

/** The events of a sync of these objects, of which those of one size are the same. */
const expected = (from: Objects, to: Objects, fromIsNewer: boolean): ReadonlyArray<StorageMirror.Event> =>
  [...new Set([...Object.keys(from), ...Object.keys(to)])].sort(ObjectKey.compare).map((key) => {
    const size = from[key]?.length
    return size === undefined
      ? Removed({ key })
      : size === to[key]?.length && !fromIsNewer
      ? Unchanged({ key, size })
      : Copied({ key, size })
  })

const setup = (source: Objects, target: Objects, fromIsNewer: boolean) =>
  Effect.gen(function*() {
    const [from, to] = yield* Effect.all([MemoryStorage.make(), MemoryStorage.make()])
    yield* fromIsNewer ? saveAll(to, target) : saveAll(from, source)
    yield* TestClock.adjust("1 second")
    yield* fromIsNewer ? saveAll(from, source) : saveAll(to, target)
    yield* TestClock.adjust("1 second")
    return { from, to }
  })

describe("StorageMirror.sync with `delete`", () => {
  const key = FastCheck.stringMatching(/^[abz\uFF5E😀]{1,3}(\/[a😀\uFFFD]{1,2})?$/u)
  const objects = FastCheck.dictionary(key, FastCheck.constantFrom("", "x", "xx"), { maxKeys: 30 })
  const pageSize = FastCheck.integer({ min: 1, max: 9 })

  it.effect.prop(
    "makes `to` equal to `from`, whatever both hold and however their pages fall",
    [objects, objects, FastCheck.boolean(), pageSize, pageSize],
    ([source, target, fromIsNewer, fromPage, toPage]) =>
      Effect.gen(function*() {
        const { from, to } = yield* setup(source, target, fromIsNewer)
        const pages = [paged(from, fromPage), paged(to, toPage)] as const
        const dry = yield* run(StorageMirror.sync(...pages, { delete: true, dryRun: true }))
        expect(dry.events).toEqual(expected(source, target, fromIsNewer))
        expect(yield* eventsOf(...pages, { delete: true })).toEqual(dry.events)
        expect(yield* objectsOf(to)).toEqual(yield* objectsOf(from))
        const again = yield* eventsOf(...pages, { delete: true })
        expect(again.every(StorageMirror.Event.$is("Unchanged"))).toBe(true)
        expect(again).toHaveLength(Object.keys(source).length)
      }),
    { fastCheck: { numRuns: 50 } }
  )

  it.effect("makes `to` equal to `from` with 1,200 keys on both sides, half of them in both", () =>
    Effect.gen(function*() {
      const make = (first: number, sizes: number) =>
        Object.fromEntries(
          Array.from({ length: 1200 }, (_, i) => [`layer/${first + i}`, "x".repeat((first + i) % sizes)])
        )
      const [source, target] = [make(0, 2), make(600, 3)]
      const { from, to } = yield* setup(source, target, false)
      const pages = [paged(from, 250), paged(to, 170)] as const
      const events = yield* eventsOf(...pages, { delete: true })
      expect(events).toEqual(expected(source, target, false))
      expect(events.filter(StorageMirror.Event.$is("Unchanged")).length).toBeGreaterThan(100)
      expect(yield* objectsOf(to)).toEqual(source)
      const again = yield* eventsOf(...pages, { delete: true })
      expect(again.filter(({ _tag }) => _tag !== "Unchanged")).toEqual([])
    }))

  it.effect("relies on the byte order of listings, which is not that of JavaScript", () =>
    Effect.gen(function*() {
      const from = yield* memoryOf({ "\uFF5E": "1", "😀": "2" })
      const to = yield* memoryOf({ "😀": "2" })
      const { events } = yield* run(StorageMirror.sync(from, to, { delete: true, dryRun: true }))
      expect(events).toEqual([Copied({ key: "\uFF5E", size: 1 }), Unchanged({ key: "😀", size: 1 })])
    }))
})
