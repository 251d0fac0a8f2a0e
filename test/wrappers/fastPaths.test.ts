/**
 * The fast paths of an opened object, the same under every wrapper that changes no bytes: bytes that are in memory stay in
 * memory, and one array is reused.
 */
import { describe, expect, it } from "@effect/vitest"
import { Effect, Option, Schedule, Stream } from "effect"
import { createHash } from "node:crypto"
import {
  ObjectKey,
  Storage,
  StorageBackend,
  StorageCache,
  StorageChaos,
  StorageError,
  StorageFailover,
  StorageLimit,
  StoragePrefix,
  StorageReadOnly,
  StorageRetry,
  StorageTimeout
} from "surfing-weights"
import { gather } from "../support/content.js"
import { pattern } from "../support/intercepting.js"

/** Up to this size, in bytes, objects are opened with their bytes in memory. */
const smallSize = 1000
const chunkSize = 700

const small = pattern(10)
const large = pattern(5 * chunkSize + 3)

interface Stored {
  readonly info: StorageBackend.ObjectInfo
  readonly bytes: Uint8Array<ArrayBuffer>
}

/** A store whose objects are in memory or can be read into one array. Its first `breaks` streams break after a chunk. */
const makeStore = (breaks = 0): Storage.Service => {
  const objects = new Map<string, Stored>()
  let broken = 0
  const read = ({ bytes }: Stored, start: number, end: number, arrayOf: (size: number) => Uint8Array<ArrayBuffer>) => {
    const chunks = Stream.unfold(start, (at) => {
      const size = Math.min(chunkSize, end - at)
      if (size <= 0) return Option.none()
      const array = arrayOf(size)
      array.set(bytes.subarray(at, at + size))
      return Option.some([array, at + size])
    })
    return Stream.suspend(() =>
      broken++ < breaks
        ? Stream.concat(Stream.take(chunks, 1), Stream.fail(new StorageError.StorageUnavailable({ reason: "broke" })))
        : chunks
    )
  }
  return Storage.make(StorageBackend.make({
    name: "Store",
    capabilities: StorageBackend.full,
    open: (key, options) =>
      Effect.gen(function*() {
        const stored = objects.get(key)
        if (stored === undefined) return yield* new StorageError.ObjectNotFound()
        const range = yield* StorageBackend.checkLoad(stored.info, options)
        const { endExclusive, start } = range
        if (endExclusive - start <= smallSize) {
          return StorageBackend.openedBytes(stored.info, range, stored.bytes.subarray(start, endExclusive))
        }
        return {
          info: stored.info,
          range,
          stream: read(stored, start, endExclusive, (size) => new Uint8Array(size)),
          reuse: (isFree) => {
            let last = new Uint8Array(chunkSize)
            return read(stored, start, endExclusive, (size) => {
              if (!isFree()) last = new Uint8Array(chunkSize)
              return last.subarray(0, size)
            })
          }
        }
      }),
    save: (key, data, options) =>
      Effect.map(data instanceof Uint8Array ? Effect.succeed(data) : gather(data), (data) => {
        const bytes = new Uint8Array(data)
        const etag = createHash("md5").update(bytes).digest("hex")
        const info = { key, size: bytes.byteLength, lastModified: new Date(0), etag, attributes: options.attributes }
        objects.set(key, { info, bytes })
        return info
      }),
    entries: () =>
      Stream.fromIterable([...objects.values()].map(({ info }) => info)).pipe(
        Stream.filter(({ key }) => ObjectKey.problem(key) === undefined)
      ),
    remove: (key) => Effect.sync(() => void objects.delete(key))
  }))
}

type Wrap = (storage: Storage.Service) => Effect.Effect<Storage.Service, StorageError.StorageError>

const immutable = { freshness: "immutable" } as const

/** A cache that has loaded both objects. */
const warmed = (options: StorageCache.Options): Wrap => (storage) =>
  Effect.tap(StorageCache.make(storage, options), ({ cache }) => cache.warm(["f/small", "f/large"]))

/** The wrappers; where `isInMemory`, large objects are in memory, too. */
const wrappers: ReadonlyArray<readonly [name: string, wrap: Wrap, isInMemory?: boolean]> = [
  ["no wrapper", Effect.succeed],
  ["StorageReadOnly", StorageReadOnly.make],
  ["StoragePrefix", (storage) => Effect.map(StoragePrefix.make(storage, "f"), withFolder)],
  ["StorageRetry", StorageRetry.make(Schedule.recurs(1))],
  ["StorageTimeout", StorageTimeout.make({ deadline: "1 minute", idleTimeout: "1 minute" })],
  ["StorageLimit", StorageLimit.make({ concurrency: 1 })],
  ["StorageLimit with rates", StorageLimit.make({ concurrency: 1, requestsPerSecond: 1e9, bytesPerSecond: 1e9 })],
  ["StorageFailover", (storage) => StorageFailover.make([storage, makeStore()])],
  ["StorageChaos without a rule for bytes", (storage) => StorageChaos.make(storage, [{ operation: "save" }])],
  ["StorageCache, on a miss that is not kept", StorageCache.make({ capacity: 1 })],
  ["StorageCache, on a miss that fills memory", StorageCache.make({ capacity: 1e6, ...immutable })],
  [
    "StorageCache, on a miss that fills the second tier",
    (storage) =>
      StorageCache.make(storage, { capacity: 1, ...immutable, tier: { storage: makeStore(), capacity: 1e6 } })
  ],
  ["StorageCache, on a hit in memory", warmed({ capacity: 1e6, ...immutable }), true],
  [
    "StorageCache, on a hit in the second tier",
    (storage) => warmed({ capacity: 1, ...immutable, tier: { storage: makeStore(), capacity: 1e6 } })(storage)
  ],
  [
    "all of them",
    (storage) =>
      StorageFailover.make([storage, makeStore()]).pipe(
        Effect.flatMap(StorageTimeout.make({ deadline: "1 minute", idleTimeout: "1 minute" })),
        Effect.flatMap(StorageLimit.make({ concurrency: 2, bytesPerSecond: 1e9 })),
        Effect.flatMap(StorageRetry.make()),
        Effect.flatMap(StoragePrefix.make("f")),
        Effect.flatMap(StorageCache.make({ capacity: 1 })),
        Effect.flatMap(StorageReadOnly.make),
        Effect.map(withFolder)
      )
  ]
]

/** The same storage with keys in the folder `f`, as the other wrappers have them. */
function withFolder(storage: Storage.Service): Storage.Service {
  const { backend } = storage
  return Storage.make({ ...backend, open: (key, options) => backend.open(key.slice(2), options) })
}

/** A wrapped store with two objects. */
const setup = (wrap: Wrap, breaks?: number) =>
  Effect.gen(function*() {
    const store = makeStore(breaks)
    yield* store.save("f/small", small)
    yield* store.save("f/large", large)
    return { store, storage: yield* wrap(store) }
  })

/** Reads into one array where the previous chunk is free; the bytes, and how many arrays they came in. */
const reading = (opened: Storage.OpenedObject, isFree: () => boolean) =>
  Effect.gen(function*() {
    const buffers = new Set<ArrayBuffer>()
    const parts: Array<Uint8Array> = []
    const chunks = opened.reuse?.(isFree) ?? Stream.dieMessage("there is no reuse")
    yield* Stream.runForEach(chunks, (chunk) =>
      Effect.sync(() => {
        buffers.add(chunk.buffer)
        parts.push(chunk.slice())
      }))
    return { bytes: Buffer.concat(parts), arrays: buffers.size }
  })

for (const [name, wrap, isInMemory = false] of wrappers) {
  describe(`fast paths: ${name}`, () => {
    it.live("keeps bytes in memory that are in memory", () =>
      Effect.scoped(Effect.gen(function*() {
        const { storage } = yield* setup(wrap)
        const { bytes, info, position, stream } = yield* storage.open("f/small")
        expect(bytes).toEqual(small)
        expect(info.size).toBe(small.byteLength)
        expect(position()).toBe(small.byteLength)
        expect(yield* gather(stream)).toEqual(small)
      })))

    it.live("reads a large object into one array, unless that is still in use", () =>
      Effect.gen(function*() {
        const { storage, store } = yield* setup(wrap)
        yield* Effect.scoped(Effect.gen(function*() {
          const opened = yield* storage.open("f/large")
          if (isInMemory) {
            expect(opened.bytes).toEqual(large)
            return
          }
          expect(opened.bytes).toBe(undefined)
          const read = yield* reading(opened, () => true)
          expect(read.bytes.equals(large)).toBe(true)
          expect(read.arrays).toBe(1)
          expect(opened.position()).toBe(large.byteLength)
        }))
        yield* store.save("f/large", large)
        const { storage: other } = yield* setup(wrap)
        yield* Effect.scoped(Effect.gen(function*() {
          const opened = yield* other.open("f/large")
          if (isInMemory) return
          const read = yield* reading(opened, () => false)
          expect(read.bytes.equals(large)).toBe(true)
          expect(read.arrays).toBe(6)
        }))
        // What was kept meanwhile is not what the last chunk left in the array.
        expect(yield* gather(storage.stream("f/large"))).toEqual(new Uint8Array(large))
      }))
  })
}

describe("fast paths: a stream that breaks", () => {
  const resuming: ReadonlyArray<readonly [string, Wrap]> = [
    ["StorageRetry", StorageRetry.make(Schedule.recurs(1))],
    [
      "StorageFailover",
      (storage) =>
        Effect.gen(function*() {
          const backup = makeStore()
          yield* backup.save("f/large", large)
          return yield* StorageFailover.make([storage, backup])
        })
    ]
  ]

  for (const [name, wrap] of resuming) {
    it.live(`goes on with every byte once, also in one array, under ${name}`, () =>
      Effect.gen(function*() {
        for (const read of ["reuse", "stream"]) {
          const { storage } = yield* setup(wrap, 1)
          yield* Effect.scoped(Effect.gen(function*() {
            const opened = yield* storage.open("f/large")
            if (read === "stream") {
              expect(yield* gather(opened.stream)).toEqual(new Uint8Array(large))
            } else {
              const { arrays, bytes } = yield* reading(opened, () => true)
              expect(bytes.equals(large)).toBe(true)
              expect(arrays).toBe(2)
            }
            expect(opened.position(), read).toBe(large.byteLength)
          }))
        }
      }))
  }
})
