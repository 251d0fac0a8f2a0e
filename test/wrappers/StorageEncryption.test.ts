/**
 * Encryption at rest: what the store has, what is read of it, and that nothing is given out which is not authentic.
 */
import { describe, expect, it } from "@effect/vitest"
import { Chunk, Config, ConfigProvider, Effect, FastCheck, Layer, Redacted, Schedule, Stream } from "effect"
import { createHash } from "node:crypto"
import {
  ByteRange,
  MemoryStorage,
  Storage,
  StorageBackend,
  StorageChaos,
  StorageEncryption,
  StorageError,
  StoragePrefix,
  StorageRetry
} from "surfing-weights"
import * as StorageContract from "surfing-weights/StorageContract"
import { bytes, gather, print } from "../support/content.js"
import { keyOf, rangesOf, saveDamaged, setup } from "../support/encryption.js"
import { noting } from "../support/intercepting.js"

const chunkSize = 16 * 1024
/** Where the first chunk begins in the store, and how much there is from one to the next. */
const [chunksAt, sealedSize] = [1024, chunkSize + 16]

const corrupt = { _tag: "CorruptObject" }

type Wanted = readonly [range: ByteRange.ByteRange, expected: Uint8Array]

const expectSame = (actual: Uint8Array | undefined, expected: Uint8Array) =>
  expect(actual && print(actual)).toBe(print(expected))

const flip = (at: number) => (stored: Uint8Array): Uint8Array => stored.map((byte, i) => i === at ? byte ^ 16 : byte)

describe("StorageEncryption", () => {
  it.effect("names itself and what it wraps, and has its capabilities but for presigned URLs", () =>
    Effect.gen(function*() {
      const { storage, store } = yield* setup()
      const { backend } = storage
      expect(backend.name).toBe("Encryption(Memory)")
      expect(backend.capabilities).toEqual({ ...store.backend.capabilities, presign: false })
      expect(backend.location).not.toBe(store.backend.location)
      expect(backend.location).toContain(store.backend.location)
      for (const method of ["GET", "PUT"] as const) {
        const error = yield* Effect.flip(storage.presign("k", { method, expiresIn: "1 minute" }))
        expect(error).toMatchObject({ _tag: "UnsupportedOperation", backend: "Encryption(Memory)" })
      }
    }))

  it.effect("learns with its store what the server does not support", () =>
    Effect.gen(function*() {
      const { backend } = yield* MemoryStorage.make()
      let isKnown = false
      const capabilities = {
        ...backend.capabilities,
        get createOnly() {
          return !isKnown
        },
        get compareAndSwap() {
          return !isKnown
        },
        get conditionalRemove() {
          return !isKnown
        }
      }
      const storage = yield* StorageEncryption.make(Storage.make({ ...backend, capabilities }), {
        keys: [keyOf("test")]
      })
      for (const learned of [false, true]) {
        isKnown = learned
        const { compareAndSwap, conditionalRemove, createOnly } = storage.backend.capabilities
        expect([createOnly, compareAndSwap, conditionalRemove]).toEqual([!learned, !learned, !learned])
      }
    }))

  it.effect("gives the store a header, the id of the master key, and no byte of the object", () =>
    Effect.gen(function*() {
      const { storage, store } = yield* setup(keyOf("2026-11"))
      const plain = bytes(50_000, 3)
      const saves = [plain, Stream.make(plain.subarray(0, 10_000), plain.subarray(10_000))]
      const includes = (stored: Uint8Array, part: Uint8Array) => Buffer.from(stored).includes(Buffer.from(part))
      for (const [i, data] of saves.entries()) {
        yield* storage.save(String(i), data)
        const stored = Buffer.from(yield* store.load(String(i)))
        expect(stored.byteLength).toBe(chunksAt + 50_000 + 4 * 16)
        expect(stored.subarray(0, 16).toString("latin1")).toBe("SWCRYPT1\x072026-11")
        for (let at = 0; at < plain.byteLength; at += 8) {
          expect(includes(stored, plain.subarray(at, at + 8))).toBe(false)
        }
      }
      const [one, other] = [yield* store.load("0"), yield* store.load("1")]
      expect(includes(one, other.subarray(chunksAt, chunksAt + 16))).toBe(false)
    }))

  it.effect("tells the sizes of the plain bytes, and no checksum of the encrypted ones", () =>
    Effect.gen(function*() {
      const { storage, store } = yield* setup()
      const withChecksums = Storage.make({
        ...store.backend,
        head: (key) =>
          Effect.map(store.backend.head(key), (info) => ({ ...info, checksum: { algorithm: "SHA256", value: "x" } }))
      })
      const checked = yield* StorageEncryption.make(withChecksums, { keys: [keyOf("test")] })
      for (const size of [0, 1, chunkSize - 1, chunkSize, chunkSize + 1, 3 * chunkSize, 100_000]) {
        const key = `folder/${size}`
        const infos = [
          yield* storage.save(key, bytes(size)),
          yield* storage.save(key, Stream.make(bytes(size)), { size }),
          yield* storage.head(key),
          yield* checked.head(key),
          (yield* Effect.scoped(storage.open(key))).info,
          (yield* Effect.scoped(storage.open(key, { range: ByteRange.last(1) }))).info,
          ...(yield* Stream.runCollect(storage.entries({ prefix: key }))).pipe(
            Chunk.filter((info) => info.key === key)
          ),
          ...(yield* storage.listDirectory("folder/")).objects.filter((info) => info.key === key)
        ]
        expect(infos.map((info) => info.size), key).toEqual(Array.from({ length: 8 }, () => size))
        expect(infos.map(({ checksum }) => checksum)).toEqual(Array.from({ length: 8 }, () => undefined))
        expect((yield* store.head(key)).size).toBe(chunksAt + size + 16 * (Math.floor(size / chunkSize) + 1))
      }
    }))

  it.effect("announces the size of the encrypted bytes to the store, also of a stream", () =>
    Effect.gen(function*() {
      const { calls, storage } = yield* setup()
      yield* storage.save("k", Stream.make(bytes(20_000)), { size: 20_000, attributes: { contentType: "a/b" } })
      yield* storage.save("k", Stream.make(bytes(20_000)), { ifMatch: "1" })
      yield* storage.save("k", bytes(20_000))
      expect(calls.map(({ args: [, , options] }) => options)).toEqual([
        { size: 21_056, attributes: { contentType: "a/b" } },
        { ifMatch: "1" },
        { size: 21_056 }
      ])
      // What was in memory can be saved again by a retry below.
      expect(calls.map(({ args: [, data] }) => data instanceof Uint8Array)).toEqual([false, false, true])
    }))

  it.effect.prop(
    "reads any range of an object of any size, which is saved in any pieces",
    [
      FastCheck.oneof(FastCheck.nat(70_000), FastCheck.nat(4).map((chunks) => chunks * chunkSize)),
      FastCheck.array(FastCheck.nat(40_000), { maxLength: 4 }),
      FastCheck.array(FastCheck.tuple(FastCheck.nat(70_000), FastCheck.integer({ min: 1, max: 70_000 })), {
        minLength: 1,
        maxLength: 4
      })
    ],
    ([size, cuts, wanted]) =>
      Effect.gen(function*() {
        const { storage, store } = yield* setup()
        const plain = bytes(size)
        const edges = [0, ...cuts.map((cut) => Math.min(cut, size)).sort((a, b) => a - b), size]
        yield* storage.save("k", Stream.fromIterable(edges.map((edge, i) => plain.subarray(edges[i - 1] ?? 0, edge))))
        const fresh = yield* StorageEncryption.make(store, { keys: [keyOf("test")] })
        const wantedOf = ([start, length]: readonly [number, number]): ReadonlyArray<Wanted> => [
          [ByteRange.last(length), plain.subarray(Math.max(0, size - length))],
          ...(start < size
            ? [
              [ByteRange.make(start, start + length), plain.subarray(start, start + length)],
              [ByteRange.from(start), plain.subarray(start)]
            ] as const
            : [])
        ]
        const ranges = wanted.flatMap(wantedOf)
        for (const reader of [storage, fresh]) {
          expectSame(yield* reader.load("k"), plain)
          expectSame(yield* gather(reader.stream("k", { chunkSize: 1000 })), plain)
          for (const [range, expected] of ranges) {
            expectSame(yield* reader.load("k", { range }), expected)
            expectSame(yield* gather(reader.stream("k", { range })), expected)
          }
          const loaded = yield* reader.loadRanges("k", ranges.map(([range]) => range))
          for (const [i, [, expected]] of ranges.entries()) expectSame(loaded[i], expected)
        }
      }),
    { fastCheck: { numRuns: 30 } }
  )

  it.effect("encrypts a copy anew, with a data key and context of its own", () =>
    Effect.gen(function*() {
      const { storage, store } = yield* setup()
      yield* storage.save("from", bytes(40_000), { attributes: { metadata: { model: "bert" } } })
      yield* storage.copy("from", "to")
      yield* storage.move("to", "moved")
      expect(yield* storage.load("moved")).toEqual(bytes(40_000))
      expect((yield* store.head("moved")).attributes).toEqual({ metadata: { model: "bert" } })
      const [from, moved] = [yield* store.load("from"), yield* store.load("moved")]
      expect(Buffer.from(moved.subarray(chunksAt)).equals(from.subarray(chunksAt))).toBe(false)
    }))
})

describe("StorageEncryption, what a read costs", () => {
  const size = 10 * chunkSize + 100
  const chunks = (first: number, last: number) => [chunksAt + first * sealedSize, chunksAt + (last + 1) * sealedSize]

  /** An object, read by a storage that has not seen it. */
  const fresh = Effect.gen(function*() {
    const { storage, store } = yield* setup()
    yield* storage.save("k", bytes(size))
    const calls: Parameters<typeof noting>[1] = []
    return { calls, store, storage: yield* StorageEncryption.make(noting(store, calls), { keys: [keyOf("test")] }) }
  })

  it.effect("is for 100 bytes one chunk, and once the header", () =>
    Effect.gen(function*() {
      const { calls, storage } = yield* fresh
      const read = (start: number) => storage.load("k", { range: ByteRange.make(start, start + 100) })
      expect(yield* read(5 * chunkSize)).toEqual(bytes(size).slice(5 * chunkSize, 5 * chunkSize + 100))
      expect(rangesOf(calls)).toEqual([[0, 1024], chunks(5, 5)])
      yield* read(7 * chunkSize + 5)
      yield* read(0)
      yield* read(6 * chunkSize - 50)
      expect(rangesOf(calls).slice(2)).toEqual([chunks(7, 7), chunks(0, 0), chunks(5, 6)])
      expect(calls.every(({ operation }) => operation === "open")).toBe(true)
    }))

  it.effect("is one request for a whole object, and for a range in its first chunk", () =>
    Effect.gen(function*() {
      const reads: ReadonlyArray<readonly [Storage.LoadOptions, unknown]> = [
        [{}, "whole"],
        [{ range: ByteRange.make(10, 110) }, [0, chunksAt + sealedSize]],
        [{ range: ByteRange.make(0, Number.MAX_SAFE_INTEGER) }, [0, Number.MAX_SAFE_INTEGER]],
        [{ range: ByteRange.from(5) }, ByteRange.from(0)]
      ]
      for (const [options, expected] of reads) {
        const { calls, storage } = yield* fresh
        yield* storage.load("k", options)
        yield* Effect.scoped(storage.open("other")).pipe(Effect.flip)
        expect(rangesOf(calls)).toEqual([expected, "whole"])
      }
    }))

  it.effect("is the header once for many ranges that are loaded together", () =>
    Effect.gen(function*() {
      const { calls, storage } = yield* fresh
      yield* storage.loadRanges("k", [ByteRange.make(0, 5), ByteRange.make(9 * chunkSize, 9 * chunkSize + 5)])
      expect(rangesOf(calls)).toEqual([[0, 1024], chunks(0, 0), chunks(9, 9)])
    }))

  it.effect("includes the last chunk of a range that reaches the end, which shows that it is the end", () =>
    Effect.gen(function*() {
      const { calls, storage } = yield* fresh
      yield* storage.load("k", { range: ByteRange.last(1) })
      yield* storage.save("even", bytes(2 * chunkSize))
      yield* storage.load("even", { range: ByteRange.last(1) })
      expect(rangesOf(calls)).toEqual([[0, 1024], chunks(10, 10), [0, 1024], chunks(1, 2)])
    }))

  it.effect("is the header again, where the object was overwritten, also by a shorter one", () =>
    Effect.gen(function*() {
      const { storage, store } = yield* fresh
      const writer = yield* StorageEncryption.make(store, { keys: [keyOf("test")] })
      const start = 3 * chunkSize
      const range = ByteRange.make(start, start + 10)
      for (const [length, seed] of [[size, 2], [5 * chunkSize, 3], [chunkSize, 4], [8 * chunkSize, 5]] as const) {
        yield* storage.load("k", { range: ByteRange.last(1) })
        const { etag } = yield* writer.save("k", bytes(length, seed))
        const loading = storage.load("k", { range })
        const expected = bytes(length, seed).slice(start, start + 10)
        if (length < start) expect(yield* Effect.flip(loading)).toMatchObject({ _tag: "InvalidRange" })
        else {
          expect(yield* loading).toEqual(expected)
          expect(yield* storage.loadRanges("k", [range], { ifMatch: etag })).toEqual([expected])
        }
        const stale = storage.loadRanges("k", [range], { ifMatch: "another" })
        expect(yield* Effect.flip(stale)).toMatchObject({ _tag: "PreconditionFailed" })
        expect(yield* Effect.flip(storage.load("k", { range: ByteRange.last(1), ifNoneMatch: etag }))).toMatchObject({
          _tag: "ObjectNotModified"
        })
      }
    }))
})

describe("StorageEncryption, an object whose keys are known", () => {
  it.effect("is still asked for, whatever the preconditions and ranges", () =>
    Effect.gen(function*() {
      const { storage, store } = yield* setup()
      const writer = yield* StorageEncryption.make(store, { keys: [keyOf("test")] })
      const range = ByteRange.make(20_000, 20_005)
      const { etag } = yield* storage.save("k", bytes(50_000, 0))
      yield* storage.load("k", { range })
      const unchanged: ReadonlyArray<Effect.Effect<unknown, StorageError.LoadError>> = [
        storage.load("k", { range, ifNoneMatch: etag }),
        storage.loadRanges("k", [range], { ifNoneMatch: etag }),
        storage.loadRanges("k", [], { ifNoneMatch: etag })
      ]
      for (const load of unchanged) expect(yield* Effect.flip(load)).toMatchObject({ _tag: "ObjectNotModified" })
      yield* writer.save("k", bytes(60_000, 1))
      const expected = bytes(60_000, 1).slice(20_000, 20_005)
      expect(yield* storage.loadRanges("k", [range], { ifNoneMatch: etag })).toEqual([expected])
      yield* writer.save("k", bytes(60_000, 1))
      expect(yield* storage.load("k", { range, ifNoneMatch: etag })).toEqual(expected)
      yield* writer.remove("k")
      for (const ranges of [[], [range]]) {
        expect(yield* Effect.flip(storage.loadRanges("k", ranges))).toMatchObject({ _tag: "ObjectNotFound" })
      }
    }))
})

describe("StorageEncryption, an object that is overwritten between two requests", () => {
  const range = ByteRange.make(20_000, 20_005)

  /** A store whose object is overwritten before each of the first reads of its chunks. */
  const overwriting = (times: number) =>
    Effect.gen(function*() {
      const { storage, store } = yield* setup()
      yield* storage.save("k", bytes(50_000, 0))
      let version = 0
      const changing = StorageBackend.intercept(store.backend, { name: "Changing" })
      const inner = Storage.make({
        ...changing,
        open: (key, options) =>
          options.range?._tag === "Bounded" && options.range.start > 0 && version < times
            ? Effect.suspend(() => storage.save(key, bytes(50_000, ++version))).pipe(
              Effect.orDie,
              Effect.zipRight(changing.open(key, options))
            )
            : changing.open(key, options)
      })
      return { storage: yield* StorageEncryption.make(inner, { keys: [keyOf("test")] }), store }
    })

  it.effect("is read again, so that all bytes are of one version", () =>
    Effect.gen(function*() {
      for (const read of ["load", "stream", "loadRanges"] as const) {
        const { storage } = yield* overwriting(3)
        const [loaded] = read === "loadRanges"
          ? yield* storage.loadRanges("k", [range, ByteRange.last(1)])
          : [yield* read === "load" ? storage.load("k", { range }) : gather(storage.stream("k", { range }))]
        expectSame(loaded, bytes(50_000, 3).slice(20_000, 20_005))
      }
    }))

  it.effect("fails with PreconditionFailed where one version was asked for, or it never rests", () =>
    Effect.gen(function*() {
      const { storage, store } = yield* overwriting(1)
      const { etag } = yield* store.head("k")
      const loading = storage.load("k", { range, ifMatch: etag })
      expect(yield* Effect.flip(loading)).toMatchObject({ _tag: "PreconditionFailed", key: "k" })
      const restless = yield* overwriting(Infinity)
      expect(yield* Effect.flip(restless.storage.load("k", { range }))).toMatchObject({ _tag: "PreconditionFailed" })
    }))
})

describe("StorageEncryption, damage", () => {
  const size = 3 * chunkSize + 1000

  const damages: ReadonlyArray<readonly [string, (stored: Uint8Array) => Uint8Array]> = [
    ...[0, 8, 9, 13, 20, 500, 935, 936, 967, 968, 991, 992, 1023, 1024, 1024 + sealedSize, 1024 + 3 * sealedSize].map((
      at
    ) => [`byte ${at} changed`, flip(at)] as const),
    ["the last byte changed", (stored) => flip(stored.byteLength - 1)(stored)],
    ...[0, 1, 967, 968, 1000, 1024, 1030, 1040, 1041, 1024 + sealedSize, 1024 + sealedSize + 16, 1024 + 2 * sealedSize]
      .map((length) => [`cut off after ${length} bytes`, (stored: Uint8Array) => stored.slice(0, length)] as const),
    ["the last byte cut off", (stored) => stored.slice(0, -1)],
    ["a byte appended", (stored) => Buffer.concat([stored, Buffer.of(0)])],
    ["a chunk appended", (stored) => Buffer.concat([stored, stored.subarray(1024, 1024 + sealedSize)])],
    [
      "filled up with zeros to a whole chunk, and an empty one",
      (stored) => Buffer.concat([stored, Buffer.alloc(chunkSize - 1000 + 16)])
    ],
    ["two chunks exchanged", (stored) =>
      Buffer.concat([
        stored.subarray(0, 1024),
        stored.subarray(1024 + sealedSize, 1024 + 2 * sealedSize),
        stored.subarray(1024, 1024 + sealedSize),
        stored.subarray(1024 + 2 * sealedSize)
      ])],
    ["a chunk left out", (stored) => Buffer.concat([stored.subarray(0, 1024), stored.subarray(1024 + sealedSize)])],
    ["not encrypted", () => bytes(size)]
  ]

  it.effect.each(damages)("of an object is CorruptObject: %s", ([, damage]) =>
    Effect.gen(function*() {
      const { storage, store } = yield* setup()
      yield* saveDamaged(storage, store, "k", bytes(size), damage)
      expect(yield* Effect.flip(storage.load("k"))).toMatchObject({ ...corrupt, key: "k", operation: "load" })
      expect(yield* Effect.flip(gather(storage.stream("k")))).toMatchObject({ ...corrupt, key: "k" })
      const end = { range: ByteRange.last(100) }
      expect(Buffer.from(
        yield* Effect.catchTag(storage.load("k", end), "CorruptObject", () => Effect.succeed(bytes(size).slice(-100)))
      )).toEqual(Buffer.from(bytes(size).slice(-100)))
      // It can still be listed, looked at, removed and replaced.
      expect(yield* storage.list()).toEqual(["k"])
      expect((yield* storage.head("k")).size).toBeGreaterThanOrEqual(0)
      yield* storage.save("k", bytes(1))
      expect(yield* storage.load("k")).toEqual(bytes(1))
    }))

  it.effect("shows in no byte of a stream that comes before the failure", () =>
    Effect.gen(function*() {
      const { storage, store } = yield* setup()
      const plain = bytes(200 * chunkSize, 9)
      for (const chunk of [0, 1, 63, 64, 65, 150, 200]) {
        yield* saveDamaged(storage, store, "k", plain, flip(chunksAt + chunk * sealedSize + 3))
        for (const start of [0, 10, chunkSize + 10]) {
          const read: Array<Uint8Array> = []
          const failure = yield* storage.stream("k", start === 0 ? {} : { range: ByteRange.from(start) }).pipe(
            Stream.runForEach((chunk) => Effect.sync(() => read.push(chunk))),
            Effect.either
          )
          const received = Buffer.concat(read)
          expect(received.equals(plain.subarray(start, start + received.byteLength)), `chunk ${chunk}`).toBe(true)
          if (chunk === 0 && start > chunkSize) expect(received.byteLength).toBe(plain.byteLength - start)
          else expect(failure).toMatchObject({ left: { _tag: "CorruptObject", problem: "checksum" } })
        }
      }
    }))

  it.effect("is noticed where two objects are exchanged, or one is renamed, or put under another folder", () =>
    Effect.gen(function*() {
      const { storage, store } = yield* setup()
      yield* storage.save("one", bytes(size, 1))
      yield* storage.save("two", bytes(size, 2))
      yield* store.copy("one", "renamed")
      yield* store.move("one", "spare")
      yield* store.move("two", "one")
      yield* store.move("spare", "two")
      for (const key of ["one", "two", "renamed"]) {
        expect(yield* Effect.flip(storage.load(key)), key).toMatchObject({ ...corrupt, key })
      }
      const folder = yield* StoragePrefix.make(store, "folder")
      yield* (yield* StorageEncryption.make(folder, { keys: [keyOf("test")] })).save("k", bytes(size))
      expect(yield* Effect.flip(storage.load("folder/k"))).toMatchObject(corrupt)
    }))

  it.effect("is noticed where the bytes of an object stand behind the header of another", () =>
    Effect.gen(function*() {
      const { storage, store } = yield* setup()
      yield* storage.save("one", bytes(size, 1))
      yield* storage.save("two", bytes(size, 2))
      const [one, two] = [yield* store.load("one"), yield* store.load("two")]
      for (const at of [936, 968, 992, 1024]) {
        yield* store.save("one", Buffer.concat([one.subarray(0, at), two.subarray(at)]))
        expect(yield* Effect.flip(storage.load("one")), String(at)).toMatchObject(corrupt)
      }
    }))

  it.effect("that somebody made with a valid hash is CorruptObject, too", () =>
    Effect.gen(function*() {
      const { storage, store } = yield* setup()
      yield* storage.save("k", bytes(size))
      const stored = Buffer.from(yield* store.load("k"))
      // The id is "test", so the length of the wrapped key is at 13.
      const made: ReadonlyArray<readonly [at: number, value: ReadonlyArray<number>]> = [
        [13, [255, 255]],
        [13, [0, 0]],
        [13, [0, 10]],
        [13, [0, 60]],
        [13, [0, 71]],
        [13, [3, 153]],
        [8, [255]],
        [20, [0]]
      ]
      for (const [at, value] of made) {
        const changed = Buffer.from(stored)
        changed.set(value, at)
        changed.set(createHash("sha256").update(changed.subarray(0, 936)).digest(), 936)
        yield* store.save("k", changed)
        const error = yield* Effect.flip(storage.load("k"))
        expect(["CorruptObject", "AccessDenied"], error.message).toContain(error._tag)
        if (at !== 8) expect(error, error.message).toMatchObject(corrupt)
      }
    }))

  it.effect("that a cache or a mirror below has is passed by with bypassCache", () =>
    Effect.gen(function*() {
      const { calls, storage } = yield* setup()
      yield* storage.save("k", bytes(size))
      yield* storage.load("k")
      yield* storage.load("k", { range: ByteRange.last(1), bypassCache: true })
      const options = calls.slice(2).map(({ args: [, options] }) => options as Storage.LoadOptions)
      expect(options.map(({ bypassCache }) => bypassCache)).toEqual([true, true])
    }))
})

describe("StorageEncryption, master keys", () => {
  it.effect("that are not given make AccessDenied, which names the one that is needed", () =>
    Effect.gen(function*() {
      const { storage, store } = yield* setup(keyOf("first"))
      yield* storage.save("k", bytes(10))
      const other = yield* StorageEncryption.make(store, { keys: [keyOf("second")] })
      const error = yield* Effect.flip(other.load("k"))
      expect(error).toMatchObject({ _tag: "AccessDenied", key: "k" })
      expect(error.message).toContain("\"first\"")
      const secret = Redacted.make(bytes(32, 99))
      const wrong = yield* StorageEncryption.make(store, { keys: [{ id: "first", secret }] })
      expect(yield* Effect.flip(wrong.load("k"))).toMatchObject(corrupt)
    }))

  it.effect("wrap new data keys with the first one, and unwrap with each", () =>
    Effect.gen(function*() {
      const old = yield* setup(keyOf("old"))
      yield* old.storage.save("before", bytes(10))
      const both = yield* StorageEncryption.make(old.store, { keys: [keyOf("newer"), keyOf("old")] })
      yield* both.save("after", bytes(20))
      expect(yield* both.load("before")).toEqual(bytes(10))
      expect(yield* both.load("after")).toEqual(bytes(20))
      expect(yield* Effect.flip(old.storage.load("after"))).toMatchObject({ _tag: "AccessDenied" })
    }))

  it.effect("are rotated without another encryption of the bytes", () =>
    Effect.gen(function*() {
      const { storage, store } = yield* setup(keyOf("old"))
      const attributes = { contentType: "a/b" }
      const plain = bytes(100_000)
      yield* storage.save("k", plain, { attributes })
      yield* storage.load("k", { range: ByteRange.last(1) })
      const before = yield* store.load("k")
      const rotating = yield* StorageEncryption.make(store, { keys: [keyOf("newer"), keyOf("old")] })
      yield* rotating.load("k")
      expect(yield* rotating.encryption.rewrap("k")).toBe(true)
      expect(yield* rotating.encryption.rewrap("k")).toBe(false)
      const after = yield* store.load("k")
      expect(Buffer.from(after.subarray(968)).equals(before.subarray(968))).toBe(true)
      const rotated = yield* StorageEncryption.make(store, { keys: [keyOf("newer")] })
      for (const reader of [rotating, rotated]) {
        expect(yield* reader.load("k")).toEqual(plain)
        expect(yield* reader.load("k", { range: ByteRange.make(20_000, 20_010) })).toEqual(plain.slice(20_000, 20_010))
      }
      expect((yield* rotated.head("k")).attributes).toEqual(attributes)
      expect(yield* Effect.flip(storage.load("k"))).toMatchObject({ _tag: "AccessDenied" })
    }))

  it.effect("are rotated under the condition that the object has not changed", () =>
    Effect.gen(function*() {
      const { storage, store } = yield* setup(keyOf("old"))
      yield* storage.save("k", bytes(10))
      const overwritten = Storage.make(
        StorageBackend.intercept(store.backend, {
          name: "Memory",
          effect: (effect, { operation }) =>
            operation === "save" ? Effect.zipRight(Effect.ignore(storage.save("k", bytes(20))), effect) : effect
        })
      )
      const keys = [keyOf("newer"), keyOf("old")] as const
      const { encryption } = yield* StorageEncryption.make(overwritten, { keys })
      expect(yield* Effect.flip(encryption.rewrap("k"))).toMatchObject({
        _tag: "PreconditionFailed",
        operation: "rewrap",
        backend: "Encryption(Memory)",
        key: "k"
      })
      expect(yield* storage.load("k")).toEqual(bytes(20))
      const unconditional = Storage.make({
        ...store.backend,
        capabilities: { ...store.backend.capabilities, compareAndSwap: false }
      })
      const other = yield* StorageEncryption.make(unconditional, { keys })
      expect(yield* Effect.flip(other.encryption.rewrap("k"))).toMatchObject({ _tag: "UnsupportedOperation" })
      const { encryption: rotation } = yield* StorageEncryption.make(store, { keys })
      expect(yield* Effect.flip(rotation.rewrap("missing"))).toMatchObject({ _tag: "ObjectNotFound", key: "missing" })
      expect(yield* Effect.flip(rotation.rewrap("../k"))).toMatchObject({ _tag: "InvalidKey" })
      for (const plain of [0, 5000]) {
        yield* store.save("plain", bytes(plain))
        expect(yield* Effect.flip(rotation.rewrap("plain"))).toMatchObject({ ...corrupt, key: "plain" })
      }
    }))
})

describe("StorageEncryption, keys that stay elsewhere", () => {
  /** A service that has the master key: it notes its calls, and fails with what it is given. */
  const service = (failures: Array<unknown> = []) => {
    const calls: Array<readonly [operation: string, context: string]> = []
    const call = (operation: string, context: string, result: Uint8Array) =>
      Effect.suspend(() => {
        calls.push([operation, context])
        const failure = failures.shift()
        return failure === undefined ? Effect.succeed(result) : Effect.fail(failure)
      })
    const wrapping: StorageEncryption.WrappingKey = {
      id: "kms",
      wrap: (dataKey, context) => call("wrap", context, Redacted.value(dataKey).map((byte) => byte ^ 85)),
      unwrap: (wrapped, context) =>
        Effect.map(call("unwrap", context, wrapped.map((byte) => byte ^ 85)), (key) => Redacted.make(key))
    }
    return { calls, wrapping }
  }

  it.effect("wrap once for each save, and unwrap once for each version that is read", () =>
    Effect.gen(function*() {
      const { calls, wrapping } = service()
      const { storage } = yield* setup(wrapping)
      yield* storage.save("k", bytes(100_000))
      for (const start of [0, 50_000, 20_000]) yield* storage.load("k", { range: ByteRange.make(start, start + 9) })
      expect(yield* storage.load("k")).toEqual(bytes(100_000))
      yield* storage.save("k", bytes(5))
      expect(yield* storage.load("k")).toEqual(bytes(5))
      expect(calls).toEqual([["wrap", "k"], ["unwrap", "k"], ["wrap", "k"], ["unwrap", "k"]])
    }))

  it.effect("fail as they do, or as UnexpectedStorageError with the cause", () =>
    Effect.gen(function*() {
      const cause = new Error("throttled")
      const unavailable = new StorageError.StorageUnavailable({ reason: "busy" })
      const { wrapping } = service([cause, unavailable, undefined, cause, unavailable, unavailable])
      const { storage, store } = yield* setup(wrapping)
      const unexpected = { _tag: "UnexpectedStorageError", key: "k", cause }
      expect(yield* Effect.flip(storage.save("k", bytes(5)))).toMatchObject(unexpected)
      expect(yield* Effect.flip(storage.save("k", bytes(5)))).toMatchObject({ _tag: "StorageUnavailable", key: "k" })
      expect(yield* store.list()).toEqual([])
      yield* storage.save("k", bytes(5))
      expect(yield* Effect.flip(storage.load("k"))).toMatchObject(unexpected)
      // Failures that may pass are retried like those of the store.
      const retrying = yield* StorageRetry.make(storage, Schedule.recurs(3))
      expect(yield* retrying.load("k")).toEqual(bytes(5))
    }))

  it.effect("must give what a data key is, in the space that there is", () =>
    Effect.gen(function*() {
      const sized = (wrapped: number, unwrapped: number): StorageEncryption.WrappingKey => ({
        id: "é".repeat(64),
        wrap: () => Effect.succeed(bytes(wrapped)),
        unwrap: () => Effect.succeed(Redacted.make(bytes(unwrapped)))
      })
      const { storage, store } = yield* setup(sized(798, 16))
      expect(yield* Effect.flip(storage.save("k", bytes(5)))).toMatchObject({ _tag: "UnexpectedStorageError" })
      expect(yield* store.list()).toEqual([])
      const largest = yield* setup(sized(797, 15))
      yield* largest.storage.save("k", bytes(5))
      expect(yield* Effect.flip(largest.storage.load("k"))).toMatchObject({ ...corrupt, problem: "frame" })
    }))
})

describe("StorageEncryption, options", () => {
  it.effect("are checked, and no message shows a secret", () =>
    Effect.gen(function*() {
      const memory = yield* MemoryStorage.make()
      const good = keyOf("good")
      const secretOf = (secret: unknown) => ({ keys: [{ id: "a", secret }] })
      const bad: ReadonlyArray<readonly [options: unknown, option: string]> = [
        [{}, "keys"],
        [{ keys: [] }, "keys.0"],
        [{ keys: [good, good] }, "keys"],
        [{ keys: [good], more: 1 }, "more"],
        [{ keys: [{ ...good, id: "" }] }, "keys.0.id"],
        [{ keys: [{ ...good, id: "a\n" }] }, "keys.0.id"],
        [{ keys: [{ ...good, id: "é".repeat(65) }] }, "keys.0.id"],
        [secretOf("hunter2"), "keys.0.secret"],
        [secretOf(Redacted.make("hunter2")), "keys.0.secret"],
        [secretOf(Redacted.make(Buffer.alloc(31, 7).toString("base64"))), "keys.0.secret"],
        [secretOf(Redacted.make(new Uint8Array(16))), "keys.0.secret"],
        [secretOf(new Uint8Array(32)), "keys.0.secret"]
      ]
      for (const [options, option] of bad) {
        const error = yield* Effect.flip(StorageEncryption.make(memory, options as StorageEncryption.Options))
        expect(error, JSON.stringify(options)).toMatchObject({ _tag: "InvalidOptions", option })
        expect(error.message).not.toContain("hunter2")
      }
    }))

  it.effect("are those of the layers, also from the configuration", () =>
    Effect.gen(function*() {
      const secret = Buffer.alloc(32, 7).toString("base64")
      const layers = [
        StorageEncryption.layer({ keys: [{ id: "a", secret: Redacted.make(`${secret}\n`) }] }),
        StorageEncryption.layerConfig({
          keys: Config.map(Config.redacted("SECRET"), (secret) => [{ id: "a", secret }])
        })
      ]
      const memory = yield* MemoryStorage.make()
      for (const layer of layers) {
        yield* Effect.gen(function*() {
          const storage = yield* Storage.Storage
          yield* storage.save("k", bytes(10))
          expect(storage.backend.name).toBe("Encryption(Memory)")
          expect(yield* (yield* StorageEncryption.StorageEncryption).rewrap("k")).toBe(false)
        }).pipe(Effect.provide(Layer.provide(layer, Layer.succeed(Storage.Storage, memory))))
      }
      const piped = yield* memory.pipe(
        StorageEncryption.make({ keys: [{ id: "a", secret: Redacted.make(new Uint8Array(32).fill(7)) }] })
      )
      expect(yield* piped.load("k")).toEqual(bytes(10))
    }).pipe(Effect.withConfigProvider(
      ConfigProvider.fromMap(new Map([["SECRET", Buffer.alloc(32, 7).toString("base64")]]))
    )))
})

describe("StorageEncryption, streams that break", () => {
  it.effect("are resumed from where they broke, under the same version", () =>
    Effect.gen(function*() {
      const memory = yield* MemoryStorage.make()
      const plain = bytes(40 * chunkSize + 5)
      yield* (yield* StorageEncryption.make(memory, { keys: [keyOf("test")] })).save("k", plain)
      const breaking = yield* StorageChaos.make(memory, [{ operation: "open", afterBytes: 100_000, times: 3 }])
      const storage = yield* StorageEncryption.make(breaking, { keys: [keyOf("test")] }).pipe(
        Effect.flatMap(StorageRetry.make(Schedule.recurs(5)))
      )
      expect(Buffer.from(yield* gather(storage.stream("k", { chunkSize: 20_000 }))).equals(plain)).toBe(true)
    }))
})

StorageContract.suite("StorageEncryption(Memory)", {
  layer: Layer.provide(StorageEncryption.layer({ keys: [keyOf("test")] }), MemoryStorage.layer())
})
