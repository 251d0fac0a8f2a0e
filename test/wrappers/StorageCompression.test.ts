/**
 * Compression of a storage: what it stores, what its users see, and what it asks of the storage.
 */
import { describe, expect, it } from "@effect/vitest"
import { Config, ConfigProvider, Effect, Either, Fiber, Layer, Logger, Stream, TestClock } from "effect"
import * as zlib from "node:zlib"
import { ByteRange, MemoryStorage, Safetensors, Storage, StorageChaos, StorageCompression } from "surfing-weights"
import * as StorageContract from "surfing-weights/StorageContract"
import { compressed, withDescription } from "../support/compressedFiles.js"
import { type Call, intercepting, noting } from "../support/intercepting.js"
import { normal, random, randomBytes, tensorsAs } from "../support/realWeights.js"
import { fileOf, on, sameBytes } from "../support/safetensorsFiles.js"

const weights = new Map([
  ["embeddings.weight", { shape: [1500, 400], values: normal(600_000) }],
  ["layer.0.weight", { shape: [300, 300], values: normal(90_000, 2) }],
  ["layer.0.bias", { shape: [3], values: normal(3, 3) }]
])

const tensors: ReadonlyArray<Safetensors.TensorSource> = [
  ...tensorsAs("BF16", weights),
  { name: "none", dtype: "F32", shape: [0, 7], data: new Uint8Array(0) },
  { name: "random", dtype: "U8", shape: [300_000], data: randomBytes(300_000) },
  ...tensorsAs("F32", new Map([["last", { shape: [100, 20], values: normal(2000, 4) }]]))
]

const text = (length: number) =>
  new TextEncoder().encode("{ \"the\": 1, \"ing\": 2 }, ".repeat(length / 24 + 1).slice(0, length))

/** The bytes of a file of these tensors, not compressed. */
const plainFile = Effect.gen(function*() {
  const storage = yield* MemoryStorage.make()
  yield* on(storage, Safetensors.save("model", tensors, { metadata: { format: "pt" } }))
  return yield* storage.load("model")
})

/** The same file as others write it: tensors in another order, white space, no metadata. */
const foreignFile = Effect.map(plainFile, (bytes) => {
  const length = Number(new DataView(bytes.buffer).getBigUint64(0, true))
  const { __metadata__, ...others } = JSON.parse(new TextDecoder().decode(bytes.subarray(8, 8 + length))) as Record<
    string,
    unknown
  >
  expect(__metadata__).toBeDefined()
  const entries = Object.entries(others).reverse()
  return fileOf(JSON.stringify(Object.fromEntries(entries), undefined, 2) + " ".repeat(3), bytes.subarray(8 + length))
})

const setup = (options?: StorageCompression.Options) =>
  Effect.gen(function*() {
    const calls: Array<Call> = []
    const memory = yield* MemoryStorage.make()
    const inner = noting(memory, calls)
    const storage = yield* StorageCompression.make(inner, options)
    return { memory, inner, storage, calls, again: StorageCompression.make(inner, options) }
  })

const chunked = (bytes: Uint8Array, size: number) =>
  Stream.rechunk(
    Stream.fromIterable(
      Array.from({ length: Math.ceil(bytes.length / size) }, (_, i) => bytes.subarray(i * size, (i + 1) * size))
    ),
    1
  )

/** Reads an object in every way: each gives the bytes that were saved. */
const readsAs = (storage: Storage.Service, key: string, bytes: Uint8Array) =>
  Effect.gen(function*() {
    const next = random(bytes.length)
    expect(sameBytes(yield* storage.load(key), bytes), "load").toBe(true)
    const pieces = yield* Stream.runCollect(storage.stream(key))
    expect(sameBytes(new Uint8Array(Buffer.concat([...pieces])), bytes), "stream").toBe(true)
    const { range, size } = yield* Effect.scoped(
      Effect.map(storage.open(key), ({ info, range }) => ({ range, size: info.size }))
    )
    expect({ range, size }).toEqual({ range: { start: 0, endExclusive: bytes.length }, size: bytes.length })
    const ranges = Array.from({ length: 10 }, () => {
      const start = Math.floor(next() ** 2 * (bytes.length - 1))
      return ByteRange.make(start, start + 1 + Math.floor(next() ** 3 * (bytes.length - start)))
    })
    const all = [...ranges, ByteRange.last(1), ByteRange.last(2000), ByteRange.from(9), ByteRange.make(0, 8)]
    for (const range of all) {
      const { endExclusive, start } = Either.getOrThrow(ByteRange.resolve(range, bytes.length))
      const expected = bytes.subarray(start, endExclusive)
      const what = `${start} to ${endExclusive} of ${bytes.length}`
      expect(sameBytes(yield* storage.load(key, { range }), expected), what).toBe(true)
      const pieces = yield* Stream.runCollect(storage.stream(key, { range }))
      expect(sameBytes(new Uint8Array(Buffer.concat([...pieces])), expected), `stream, ${what}`).toBe(true)
    }
    const several = yield* storage.loadRanges(key, ranges)
    for (const [i, range] of ranges.entries()) {
      const { endExclusive, start } = Either.getOrThrow(ByteRange.resolve(range, bytes.length))
      expect(sameBytes(several[i], bytes.subarray(start, endExclusive)), "loadRanges").toBe(true)
    }
  })

describe("StorageCompression", () => {
  const objects: ReadonlyArray<
    readonly [what: string, bytes: Effect.Effect<Uint8Array, unknown>, most: number, kind: string]
  > = [
    ["a safetensors file", plainFile, 0.77, "safetensors"],
    ["a safetensors file with a header of its own", foreignFile, 0.77, "safetensors"],
    ["JSON", Effect.succeed(text(300_000)), 0.1, "gzip"],
    ["random bytes", Effect.succeed(randomBytes(300_000)), 1, "plain"],
    [
      "a safetensors file of random bytes",
      Effect.succeed(
        fileOf("{\"w\":{\"dtype\":\"U8\",\"shape\":[9000],\"data_offsets\":[0,9000]}}", randomBytes(9000))
      ),
      1,
      "plain"
    ],
    ["a safetensors file that is truncated", Effect.map(plainFile, (bytes) => bytes.subarray(0, -1)), 1, "plain"],
    [
      "a safetensors file with something after it",
      Effect.map(plainFile, (bytes) => new Uint8Array([...bytes, 7])),
      1,
      "plain"
    ],
    ["a few bytes", Effect.succeed(text(20)), 1, "plain"],
    ["a compressed file, as its bytes", compressed(tensors), 1.0001, "escaped"],
    [
      "a gzip file of its own kind, as its bytes",
      Effect.gen(function*() {
        const { memory, storage } = yield* setup()
        yield* storage.save("k", text(5000))
        return yield* memory.load("k")
      }),
      1.2,
      "escaped"
    ],
    [
      "an escaped object, as its bytes",
      Effect.succeed(new TextEncoder().encode("\u007fsurfing-weights and more")),
      2,
      "escaped"
    ]
  ]
  const kindOf = (stored: Uint8Array, bytes: Uint8Array) =>
    sameBytes(stored, bytes)
      ? "plain"
      : stored[0] === 0x1f
      ? "gzip"
      : stored[0] === 0x7f
      ? "escaped"
      : "safetensors"

  for (const [what, make, most, kind] of objects) {
    it.effect(`stores ${what} as ${kind}, and reads it as it was saved, by streams and ranges too`, () =>
      Effect.gen(function*() {
        const bytes = yield* make
        for (const size of [0, 65_536]) {
          const { again, memory, storage } = yield* setup()
          const info = yield* storage.save("k", size === 0 ? bytes : chunked(bytes, size), { size: bytes.length })
          expect(info).toMatchObject({ key: "k", size: bytes.length })
          const stored = yield* memory.load("k")
          expect(kindOf(stored, bytes)).toBe(kind)
          expect(stored.length / bytes.length).toBeLessThanOrEqual(most)
          expect(yield* storage.head("k")).toEqual({ ...info, lastModified: expect.any(Date) as Date })
          if (size !== 65_536) yield* readsAs(storage, "k", bytes)
          // One that has not seen the save.
          if (size === 65_536) yield* readsAs(yield* again, "k", bytes)
        }
      }))
  }

  it.effect("stores safetensors files that Safetensors reads without it, and reads those that Safetensors compressed", () =>
    Effect.gen(function*() {
      const { memory, storage } = yield* setup()
      yield* storage.save("model", yield* plainFile)
      const stored = yield* on(memory, Safetensors.open("model"))
      const seen = yield* on(storage, Safetensors.open("model"))
      expect(stored.metadata).toEqual({ format: "pt" })
      expect(seen.tensors.get("last")?.codec).toBeUndefined()
      expect(stored.tensors.get("last")?.codec).toBe("exponent")
      for (const name of seen.tensors.keys()) {
        expect(sameBytes((yield* stored.load(name)).bytes, (yield* seen.load(name)).bytes), name).toBe(true)
      }
      yield* memory.save("other", yield* compressed(tensors))
      yield* readsAs(storage, "other", yield* plainFile)
    }))

  it.effect("stores gzip that gunzip reads", () =>
    Effect.gen(function*() {
      const { memory, storage } = yield* setup()
      yield* storage.save("k", text(100_000))
      expect(sameBytes(new Uint8Array(zlib.gunzipSync(yield* memory.load("k"))), text(100_000))).toBe(true)
    }))

  it.effect("reads what was in the storage before, and other gzip, as it is", () =>
    Effect.gen(function*() {
      const { memory, storage } = yield* setup()
      const others = [zlib.gzipSync(text(5000)), text(5000), yield* plainFile, new Uint8Array(0)]
      for (const [i, bytes] of others.entries()) yield* memory.save(`${i}`, new Uint8Array(bytes))
      for (const [i, bytes] of others.entries()) {
        expect(sameBytes(yield* storage.load(`${i}`), new Uint8Array(bytes))).toBe(true)
        expect(yield* storage.head(`${i}`)).toEqual(yield* memory.head(`${i}`))
      }
    }))

  it.effect("tells the sizes of what was saved, with the etags of the storage, by head, entries and listDirectory", () =>
    Effect.gen(function*() {
      const { again, memory, storage } = yield* setup()
      const model = yield* plainFile
      yield* storage.save("a/model", model, { attributes: { contentType: "x/y", metadata: { by: "me" } } })
      yield* storage.save("a/tokenizer", text(9000))
      yield* storage.save("a/plain", randomBytes(10))
      const fresh = yield* again
      const sizes = { "a/model": model.length, "a/plain": 10, "a/tokenizer": 9000 }
      for (const reader of [fresh, storage]) {
        const entries = [...(yield* Stream.runCollect(reader.entries({ prefix: "a/" })))]
        expect(Object.fromEntries(entries.map(({ key, size }) => [key, size]))).toEqual(sizes)
        expect((yield* reader.listDirectory("a/")).objects.map(({ size }) => size)).toEqual(Object.values(sizes))
        for (const { etag, key } of entries) {
          expect((yield* memory.head(key)).etag).toBe(etag)
          expect(yield* reader.head(key)).toMatchObject({ key, etag, size: sizes[key as keyof typeof sizes] })
        }
      }
      expect((yield* fresh.head("a/model")).attributes).toEqual({ contentType: "x/y", metadata: { by: "me" } })
      for (const operation of ["copy", "move"] as const) {
        expect(yield* storage[operation]("a/model", `a/${operation}`)).toMatchObject({ size: model.length })
        yield* storage.copy(`a/${operation}`, "a/model")
      }
    }))

  it.effect("asks one small request more for a head, one an object for entries, and none for list", () =>
    Effect.gen(function*() {
      const { calls, inner, storage } = yield* setup()
      for (let i = 0; i < 40; i++) yield* storage.save(`k${i}`, text(600 + i))
      const made = yield* StorageCompression.make(inner)
      const during = <A, E>(effect: Effect.Effect<A, E>) =>
        Effect.suspend(() => {
          calls.length = 0
          return Effect.map(effect, () => calls.map(({ operation }) => operation))
        })
      expect(yield* during(made.list())).toEqual(["keys"])
      expect(yield* during(made.head("k1"))).toEqual(["head", "open"])
      expect(calls[1]?.args[1]).toMatchObject({ range: { start: 0, endExclusive: 128 } })
      expect(yield* during(made.head("k1"))).toEqual(["head"])
      expect((yield* during(Stream.runDrain(made.entries()))).length).toBe(40)
      expect(yield* during(Stream.runDrain(made.entries()))).toEqual(["entries"])
      expect(yield* during(made.load("k1"))).toEqual(["load"])
      expect(yield* during(Stream.runDrain(made.stream("k2")))).toEqual(["open"])
    }))

  it.effect("looks at sixteen of the objects that it lists at once", () =>
    Effect.gen(function*() {
      const memory = yield* MemoryStorage.make()
      for (let i = 0; i < 40; i++) yield* memory.save(`k${i}`, text(600 + i))
      let active = 0
      let most = 0
      const counted = intercepting(memory, {
        around: (effect, { operation }) =>
          operation !== "open" ? effect : Effect.acquireUseRelease(
            Effect.sync(() => void (most = Math.max(most, ++active))),
            () => Effect.zipRight(Effect.sleep("1 second"), effect),
            () => Effect.sync(() => void active--)
          )
      })
      const storage = yield* StorageCompression.make(counted)
      const listing = yield* Effect.fork(Stream.runCollect(storage.entries()))
      yield* TestClock.adjust("3 seconds")
      expect((yield* Fiber.join(listing)).length).toBe(40)
      expect(most).toBe(16)
    }))

  it.effect("reads a row of a tensor in at most two requests after the file was opened", () =>
    Effect.gen(function*() {
      const { calls, inner, storage } = yield* setup()
      yield* storage.save("model", yield* plainFile)
      const file = yield* on(yield* StorageCompression.make(inner), Safetensors.open("model"))
      calls.length = 0
      const row = yield* file.loadSlice("embeddings.weight", 1000, 1001)
      const reads = calls.map(({ args }) => args[1] as { range: { start: number; endExclusive: number } })
      expect(reads.length).toBe(2)
      const length = reads.reduce((sum, { range }) => sum + range.endExclusive - range.start, 0)
      expect(length).toBeLessThan(0.67 * 256 * 1024 * 2 + 100)
      const direct = yield* on(
        storage,
        Effect.flatMap(Safetensors.open("model"), (file) => file.load("embeddings.weight"))
      )
      expect(sameBytes(row.bytes, direct.bytes.subarray(800_000, 800_800))).toBe(true)
    }))

  it.effect("reads a whole file in one request, and a range of what is plain in one once that is known", () =>
    Effect.gen(function*() {
      const { calls, inner, storage } = yield* setup()
      yield* storage.save("model", yield* plainFile)
      yield* storage.save("plain", randomBytes(200_000))
      const made = yield* StorageCompression.make(inner)
      calls.length = 0
      yield* Stream.runDrain(made.stream("model"))
      expect(calls.map(({ operation }) => operation)).toEqual(["open"])
      for (const count of [2, 1]) {
        calls.length = 0
        yield* made.load("plain", { range: ByteRange.make(100_000, 100_010) })
        expect(calls.length).toBe(count)
      }
    }))

  it.effect("notices that an object was overwritten by others, and gives the bytes of one version only", () =>
    Effect.gen(function*() {
      const { memory, storage } = yield* setup()
      const versions = [yield* plainFile, text(50_000), randomBytes(70_000), yield* foreignFile, new Uint8Array(0)]
      const other = yield* StorageCompression.make(memory)
      yield* storage.save("k", text(600))
      for (const bytes of [...versions, ...versions.reverse()]) {
        yield* storage.load("k")
        const { etag } = yield* other.save("k", bytes)
        const size = bytes.length
        expect(yield* storage.head("k")).toMatchObject({ etag, size })
        expect(sameBytes(yield* storage.load("k"), bytes)).toBe(true)
        if (size === 0) continue
        yield* other.save("k", text(600))
        yield* storage.load("k", { range: ByteRange.from(1) })
        yield* other.save("k", bytes)
        expect(sameBytes(yield* storage.load("k", { range: ByteRange.from(1) }), bytes.subarray(1))).toBe(true)
        yield* other.save("k", text(600))
        expect((yield* Effect.flip(storage.load("k", { ifMatch: etag })))._tag).toBe("PreconditionFailed")
        expect((yield* storage.loadRanges("k", [ByteRange.last(3)]))[0]?.length).toBe(3)
      }
    }))

  it.effect("fails with CorruptObject that says what is damaged, where it is", () =>
    Effect.gen(function*() {
      const { memory } = yield* setup()
      const storage = yield* StorageCompression.make(memory)
      const save = (bytes: Uint8Array, at: number) => {
        const damaged = bytes.slice()
        damaged[at < 0 ? damaged.length + at : at] = (damaged[at < 0 ? damaged.length + at : at] ?? 0) ^ 1
        return memory.save("k", damaged)
      }
      const file = yield* compressed(tensors)
      yield* save(file, 30_000)
      expect(yield* Effect.flip(storage.load("k"))).toMatchObject({
        _tag: "CorruptObject",
        backend: "Compression(Memory)",
        operation: "load",
        key: "k",
        reason: expect.stringContaining("of tensor ") as string
      })
      yield* memory.save("k", withDescription(file, (description) => description["crc32"] = 1))
      expect(yield* Effect.flip(storage.load("k"))).toMatchObject({ _tag: "CorruptObject", problem: "frame" })
      yield* storage.save("k", text(5000))
      const gzip = yield* memory.load("k")
      for (const at of [16, 17, 30, 60, -1, -8]) {
        yield* save(gzip, at)
        expect(yield* Effect.flip(storage.load("k")), `byte ${at}`).toMatchObject({ _tag: "CorruptObject", key: "k" })
      }
      for (const at of [20, 22, 23]) {
        yield* save(gzip, at)
        expect(yield* Effect.flip(storage.load("k")), `byte ${at}`).toMatchObject({
          _tag: "CorruptObject",
          problem: "frame"
        })
      }
    }))

  it.effect("stores a stream of more than its buffer as it is, but a safetensors file by way of the scratch storage", () =>
    Effect.gen(function*() {
      const scratchCalls: Array<Call> = []
      const scratchMemory = yield* MemoryStorage.make()
      const scratch = noting(scratchMemory, scratchCalls)
      const model = yield* plainFile
      const large = yield* setup({ buffer: 1_000_000 })
      const logged: Array<string> = []
      const logger = Logger.make(({ logLevel, message }) => void logged.push(`${logLevel.label} ${String(message)}`))
      yield* large.storage.save("model", chunked(model, 65_536)).pipe(
        Effect.provide(Logger.replace(Logger.defaultLogger, logger))
      )
      expect(logged).toEqual([expect.stringMatching(/^WARN "model" is stored as it is, .* option scratch/)])
      expect(sameBytes(yield* large.memory.load("model"), model)).toBe(true)
      yield* large.storage.save("text", chunked(text(1_000_001), 65_536))
      expect((yield* large.memory.head("text")).size).toBe(1_000_001)
      yield* large.storage.save("text", chunked(text(1_000_000), 65_536))
      expect((yield* large.memory.head("text")).size).toBeLessThan(100_000)

      const { memory, storage } = yield* setup({ buffer: 1_000_000, scratch })
      expect(yield* storage.save("model", chunked(model, 65_536))).toMatchObject({ size: model.length })
      expect((yield* memory.head("model")).size).toBeLessThan(0.8 * model.length)
      yield* readsAs(storage, "model", model)
      expect(scratchCalls.map(({ operation }) => operation)).toContain("save")
      expect(yield* scratchMemory.list()).toEqual([])
      // One that turns out to be none.
      yield* storage.save("broken", chunked(model.subarray(0, -1), 65_536))
      expect(sameBytes(yield* memory.load("broken"), model.subarray(0, -1))).toBe(true)
      expect(yield* scratchMemory.list()).toEqual([])
    }))

  it.effect("leaves nothing in the scratch storage where a save fails or is interrupted", () =>
    Effect.gen(function*() {
      const scratch = yield* MemoryStorage.make()
      const model = yield* plainFile
      const memory = yield* MemoryStorage.make()
      const full = yield* StorageChaos.make(memory, [{ operation: "save", times: Infinity }])
      const storage = yield* StorageCompression.make(full, { buffer: 1000, scratch })
      expect((yield* Effect.flip(storage.save("model", chunked(model, 65_536))))._tag).toBe("StorageUnavailable")
      const failing = Stream.concat(chunked(model, 65_536), Stream.fail("mine"))
      expect(yield* Effect.flip(storage.save("model", failing))).toBe("mine")
      const fiber = yield* Effect.fork(storage.save("model", Stream.concat(chunked(model, 65_536), Stream.never)))
      yield* Effect.yieldNow()
      yield* fiber.interruptAsFork(fiber.id())
      yield* fiber.await
      expect(yield* scratch.list()).toEqual([])
      expect(yield* memory.list()).toEqual([])
    }))

  it.effect("is named in the stack, and has no presigned URLs", () =>
    Effect.gen(function*() {
      const { storage } = yield* setup()
      expect(storage.backend.name).toBe("Compression(Memory)")
      expect(storage.backend.capabilities.presign).toBe(false)
      expect((yield* Effect.flip(storage.presign("k", { method: "GET", expiresIn: "1 hour" })))._tag).toBe(
        "UnsupportedOperation"
      )
    }))

  it.effect("is provided by its layers, with a scratch storage, and with options from Config", () =>
    Effect.gen(function*() {
      const name = Effect.map(Storage.Storage, ({ backend }) => backend.name)
      const layers = [
        StorageCompression.layer(),
        StorageCompression.layer({ buffer: 1n, scratch: MemoryStorage.layer() }),
        StorageCompression.layerConfig({ buffer: Config.integer("BUFFER") }),
        StorageCompression.layerConfig({ buffer: Config.integer("BUFFER") }, MemoryStorage.layer())
      ]
      for (const layer of layers) {
        const provided = Layer.provide(layer, MemoryStorage.layer())
        expect(yield* Effect.provide(name, provided)).toBe("Compression(Memory)")
      }
      const memory = yield* MemoryStorage.make()
      expect((yield* memory.pipe(StorageCompression.make())).backend.name).toBe("Compression(Memory)")
      const error = yield* Effect.flip(StorageCompression.make(memory, { buffer: 0 }))
      expect(error.message).toContain("buffer must be a whole number of bytes of at least 1 (got 0 bytes)")
    }).pipe(Effect.withConfigProvider(ConfigProvider.fromMap(new Map([["BUFFER", "1000"]])))))
})

StorageContract.suite("StorageCompression(Memory)", {
  layer: StorageCompression.layer().pipe(Layer.provide(MemoryStorage.layer()))
})
