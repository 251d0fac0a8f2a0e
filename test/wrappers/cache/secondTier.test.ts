/**
 * What a cache serves from a second tier that an earlier process has filled: nothing that has changed on disk meanwhile, and
 * nothing of another storage.
 */
import { describe, expect, it } from "@effect/vitest"
import { Chunk, Effect, Redacted, type Scope, Stream } from "effect"
import * as fs from "node:fs"
import * as path from "node:path"
import {
  ByteRange,
  FileSystemStorage,
  MemoryStorage,
  S3Storage,
  type Storage,
  StorageCache,
  StorageChaos,
  StorageFailover,
  StoragePrefix,
  StorageRetry
} from "surfing-weights"
import { temporaryDirectory } from "../../support/directory.js"
import { type Call, noting, pattern } from "../../support/intercepting.js"

const MiB = 1024 * 1024

const content = pattern(100_005)
const attributes = { contentType: "model/weights", metadata: { note: "n" } }

type Freshness = StorageCache.Freshness

/** A cache as a process makes it when it starts. It keeps nothing in memory. */
const start = (origin: Storage.Service, tier: Storage.Service, freshness: Freshness = "immutable") =>
  StorageCache.make(origin, { capacity: 1, freshness, tier: { storage: tier, capacity: 64 * MiB } })

const collect = <E>(stream: Stream.Stream<Uint8Array, E>) =>
  Effect.map(Stream.runCollect(stream), (parts) => Buffer.concat(Chunk.toArray(parts)))

type Read = (storage: Storage.Service) => Effect.Effect<boolean, unknown>

const isPart = (bytes: Uint8Array, from: number, to: number) => Buffer.compare(bytes, content.subarray(from, to)) === 0

/** Every way of reading, and whether it yields the bytes of the object. */
const reads: ReadonlyArray<readonly [name: string, read: Read]> = [
  ["load", (storage) => Effect.map(storage.load("w"), (bytes) => isPart(bytes, 0, content.length))],
  [
    "a range",
    (storage) => Effect.map(storage.load("w", { range: ByteRange.make(0, 10) }), (bytes) => isPart(bytes, 0, 10))
  ],
  [
    "ranges",
    (storage) =>
      Effect.map(
        storage.loadRanges("w", [ByteRange.make(400, 600), ByteRange.last(100)]),
        ([one, last]) =>
          one !== undefined && last !== undefined && isPart(one, 400, 600) &&
          isPart(last, content.length - 100, content.length)
      )
  ],
  ["a stream", (storage) => Effect.map(collect(storage.stream("w")), (bytes) => isPart(bytes, 0, content.length))],
  [
    "a stream of a range",
    (storage) =>
      Effect.map(
        collect(storage.stream("w", { range: ByteRange.from(content.length - 1000) })),
        (bytes) => isPart(bytes, content.length - 1000, content.length)
      )
  ],
  ["head", (storage) =>
    Effect.map(storage.head("w"), (info) =>
      info.size === content.length &&
      JSON.stringify(info.attributes) === JSON.stringify(attributes))]
]

const filled = Effect.gen(function*() {
  const directory = yield* temporaryDirectory
  const memory = yield* MemoryStorage.make()
  const calls: Array<Call> = []
  const origin = noting(memory, calls)
  yield* memory.save("w", content, { attributes })
  const openTier = FileSystemStorage.make({ directory, durability: "relaxed" })
  yield* (yield* start(origin, yield* openTier)).load("w")
  const file = path.join(directory, fs.readdirSync(directory).find((name) => name.startsWith("w")) ?? "")
  return { origin, calls, openTier, file, saved: fs.readFileSync(file) }
})

/** Writes a file in place, with its times. */
const overwrite = (file: string, content: Uint8Array): void => {
  const { atime, mtime } = fs.statSync(file)
  fs.writeFileSync(file, content)
  fs.utimesSync(file, atime, mtime)
}

const flipped = (bytes: Buffer, at: number, bit = 1): Buffer => {
  const changed = Buffer.from(bytes)
  changed[at] = (changed[at] ?? 0) ^ bit
  return changed
}

describe("bytes that have changed on disk while no process ran", () => {
  const end = content.length
  const damages: ReadonlyArray<readonly [name: string, damage: (saved: Buffer) => Buffer]> = [
    ["the first byte", (saved) => flipped(saved, 0)],
    ["a byte in the middle", (saved) => flipped(saved, end / 2 | 0, 0x80)],
    ["the last byte", (saved) => flipped(saved, end - 1)],
    ["a letter of the metadata", (saved) => flipped(saved, saved.indexOf("model/weights"))],
    ["a letter of the checksum", (saved) => flipped(saved, saved.indexOf("sha256") + 12)],
    ["a byte of the checksum of the metadata", (saved) => flipped(saved, saved.length - 10)],
    ["the length of the metadata", (saved) => flipped(saved, saved.length - 4)],
    [
      "a block of zeros",
      (saved) => Buffer.concat([saved.subarray(0, 4096), Buffer.alloc(4096), saved.subarray(8192)])
    ]
  ]

  for (const [name, damage] of damages) {
    it.scopedLive(`are never served, and are fetched anew: ${name}`, () =>
      Effect.gen(function*() {
        const { calls, file, openTier, origin, saved } = yield* filled
        for (const freshness of ["immutable", "revalidate"] as const) {
          for (const [how, read] of reads) {
            overwrite(file, damage(saved))
            const cache = yield* start(origin, yield* openTier, freshness)
            expect([freshness, how, yield* read(cache)]).toEqual([freshness, how, true])
            expect([how, yield* read(cache)]).toEqual([how, true])
          }
        }
        overwrite(file, damage(saved))
        yield* (yield* start(origin, yield* openTier)).load("w")
        calls.length = 0
        // What was fetched anew is there for the next process.
        const next = yield* start(origin, yield* openTier)
        for (const [how, read] of reads) expect([how, yield* read(next)]).toEqual([how, true])
        expect(calls).toEqual([])
      }))
  }

  it.scopedLive("are found in an object of many chunks", () =>
    Effect.gen(function*() {
      const directory = yield* temporaryDirectory
      const memory = yield* MemoryStorage.make()
      const large = new Uint8Array(9 * MiB + 5).fill(7)
      yield* memory.save("large", large)
      const openTier = FileSystemStorage.make({ directory, durability: "relaxed" })
      yield* (yield* start(memory, yield* openTier)).load("large")
      const file = path.join(directory, "large-")
      overwrite(file, flipped(fs.readFileSync(file), 8 * MiB))
      const loaded = yield* (yield* start(memory, yield* openTier)).load("large")
      expect(Buffer.compare(loaded, large)).toBe(0)
      const streamed = yield* collect((yield* start(yield* MemoryStorage.make(), yield* openTier)).stream("large"))
        .pipe(Effect.flip)
      // It is there for this storage alone.
      expect(streamed._tag).toBe("ObjectNotFound")
    }))

  it.scopedLive("are counted as a failure of the tier", () =>
    Effect.gen(function*() {
      const { file, openTier, origin, saved } = yield* filled
      overwrite(file, flipped(saved, 7))
      const cache = yield* start(origin, yield* openTier)
      yield* cache.load("w")
      expect(yield* cache.cache.statistics).toMatchObject({ failures: 1, misses: 1, hits: 0 })
    }))

  it.scopedLive("are looked for once, when an object is first read, by all that read it at once", () =>
    Effect.gen(function*() {
      const { calls, openTier, origin } = yield* filled
      const tierCalls: Array<Call> = []
      const cache = yield* start(origin, noting(yield* openTier, tierCalls))
      calls.length = 0
      const whole = { start: 0, endExclusive: content.length }
      const checks = () =>
        tierCalls.filter(({ args: [, options], operation }) =>
          operation === "open" &&
          JSON.stringify(options).includes(JSON.stringify(ByteRange.make(0, whole.endExclusive)))
        ).length
      const range = cache.load("w", { range: ByteRange.make(0, 10) })
      yield* Effect.all(Array.from({ length: 20 }, () => range), { concurrency: "unbounded" })
      yield* range
      expect(checks()).toBe(1)
      expect(calls).toEqual([])
    }))

  it.scopedLive("are looked for again where that was interrupted", () =>
    Effect.gen(function*() {
      const { file, openTier, origin, saved } = yield* filled
      overwrite(file, flipped(saved, 7))
      const slow = yield* StorageChaos.make(yield* openTier, [{ operation: "open", delay: "1 hour", times: 1 }])
      const cache = yield* start(origin, slow)
      yield* Effect.timeoutOption(cache.load("w"), "200 millis")
      expect(isPart(yield* cache.load("w"), 0, content.length)).toBe(true)
    }))
})

describe("objects of another storage in the same tier", () => {
  const small = (byte: number) => new Uint8Array(1000).fill(byte)

  /** Two storages, in each of which `w` has the same size and etag, but another content. */
  const pairs: ReadonlyArray<
    readonly [name: string, pair: Effect.Effect<ReadonlyArray<Storage.Service>, unknown, Scope.Scope>]
  > = [
    ["memory", Effect.all([MemoryStorage.make(), MemoryStorage.make()])],
    [
      "a prefix",
      Effect.flatMap(
        MemoryStorage.make(),
        (memory) => Effect.all([memory.pipe(StoragePrefix.make("one")), memory.pipe(StoragePrefix.make("two"))])
      )
    ],
    [
      "a storage and its prefix",
      Effect.flatMap(
        MemoryStorage.make(),
        (memory) => Effect.all([Effect.succeed(memory), memory.pipe(StoragePrefix.make("two"))])
      )
    ],
    [
      "a directory",
      Effect.all([
        Effect.flatMap(temporaryDirectory, (directory) => FileSystemStorage.make({ directory })),
        Effect.flatMap(temporaryDirectory, (directory) => FileSystemStorage.make({ directory }))
      ])
    ],
    [
      "a relative directory, by the same name",
      Effect.gen(function*() {
        const before = process.cwd()
        const made = []
        for (const parent of [yield* temporaryDirectory, yield* temporaryDirectory]) {
          process.chdir(parent)
          made.push(
            yield* Effect.ensuring(
              FileSystemStorage.make({ directory: "weights" }),
              Effect.sync(() => process.chdir(before))
            )
          )
        }
        return made
      })
    ],
    [
      "retries",
      Effect.all([
        Effect.flatMap(MemoryStorage.make(), StorageRetry.make()),
        Effect.flatMap(MemoryStorage.make(), StorageRetry.make())
      ])
    ]
  ]

  for (const [name, pair] of pairs) {
    it.scopedLive(`are not served: ${name}`, () =>
      Effect.gen(function*() {
        const tier = yield* FileSystemStorage.make({ directory: yield* temporaryDirectory })
        const storages = yield* pair
        for (const [byte, storage] of storages.entries()) yield* storage.save("w", small(byte))
        for (let round = 0; round < 2; round++) {
          for (const [byte, storage] of storages.entries()) {
            const cache = yield* start(storage, tier)
            expect((yield* cache.head("w")).etag).toBe((yield* storage.head("w")).etag)
            expect(yield* cache.load("w", { range: ByteRange.make(0, 3) })).toEqual(small(byte).slice(0, 3))
            expect(yield* collect(cache.stream("w"))).toEqual(Buffer.from(small(byte)))
            expect(yield* cache.load("w")).toEqual(small(byte))
          }
        }
      }))
  }

  it.scopedLive("are told apart by the address of a bucket, which holds no secret", () =>
    Effect.gen(function*() {
      const bucket = (options: Partial<S3Storage.Options>) =>
        Effect.map(
          S3Storage.make({
            bucket: "models",
            region: "us-east-1",
            verify: false,
            credentials: { accessKeyId: "AKIDSECRET", secretAccessKey: Redacted.make("s3cret") },
            ...options
          }),
          ({ backend }) => backend.location ?? backend.name
        )
      const locations = [
        yield* bucket({}),
        yield* bucket({ region: "eu-west-1" }),
        yield* bucket({ bucket: "others" }),
        yield* bucket({ prefix: "bert" }),
        yield* bucket({ endpoint: "http://127.0.0.1:9000" }),
        yield* bucket({ endpoint: "http://127.0.0.1:9001" }),
        yield* bucket({ endpoint: "http://127.0.0.1:9001", bucket: "others" }),
        yield* bucket({ endpoint: "http://127.0.0.1:9001", prefix: "bert" })
      ]
      expect(new Set(locations).size).toBe(locations.length)
      expect(locations.join()).not.toMatch(/AKID|s3cret/)
      expect(yield* bucket({ endpoint: "http://127.0.0.1:9001" })).toBe(locations[5])
    }))

  it.effect("do not become others when a wrapper is added that changes none", () =>
    Effect.gen(function*() {
      const memory = yield* MemoryStorage.make()
      const calls: Array<Call> = []
      yield* memory.save("w", small(1))
      const tier = yield* MemoryStorage.make()
      yield* (yield* start(memory, tier)).load("w")
      const wrapped = yield* StorageRetry.make(noting(memory, calls))
      expect(yield* (yield* start(wrapped, tier)).load("w")).toEqual(small(1))
      expect(calls).toEqual([])
      const failover = yield* StorageFailover.make([memory, yield* MemoryStorage.make()])
      expect(failover.backend.location).not.toBe(memory.backend.location)
    }))
})
