/**
 * Compressed safetensors files. `Safetensors.compress.all.test.ts` has the weights of a real model.
 */
import { describe, expect, it } from "@effect/vitest"
import { safetensors as loaders } from "@jax-js/loaders"
import { Effect, Either, Stream } from "effect"
import { MemoryStorage, Safetensors, StorageChaos } from "surfing-weights"
import { compressed, hasSameTensors, header, mutations, withDescription } from "../support/compressedFiles.js"
import { type Call, noting } from "../support/intercepting.js"
import { entropyOf, floatTypes, normal, randomBytes, tensorsAs } from "../support/realWeights.js"
import { all, names, on, opened, roundTrips, sameBytes } from "../support/safetensorsFiles.js"

const weights = new Map([
  ["embeddings.weight", { shape: [1500, 400], values: normal(600_000) }],
  ["layer.0.weight", { shape: [300, 300], values: normal(90_000, 2) }],
  ["layer.0.bias", { shape: [3], values: normal(3, 3) }]
])

/** A tensor of each kind: several blocks, one block, too small, random, repetitive, empty, a scalar. */
const tensors: ReadonlyArray<Safetensors.TensorSource> = [
  ...tensorsAs("BF16", weights),
  ...tensorsAs("F32", weights).map((tensor) => ({ ...tensor, name: `f32.${tensor.name}` })),
  { name: "double", dtype: "F64", shape: [5000], data: Float64Array.from(normal(5000)) },
  { name: "positions", dtype: "I64", shape: [1, 512], data: BigInt64Array.from({ length: 512 }, (_, i) => BigInt(i)) },
  { name: "random", dtype: "U8", shape: [300_000], data: randomBytes(300_000) },
  { name: "mask", dtype: "BOOL", shape: [600, 600], data: new Uint8Array(360_000).fill(1) },
  { name: "none", dtype: "F32", shape: [0, 7], data: new Uint8Array(0) },
  { name: "scale", dtype: "F32", shape: [], data: new Float32Array([0.5]) }
]

/** A storage with these tensors as `plain` and as `model`, which is compressed, and its calls. */
const setup = (sources = tensors) =>
  Effect.gen(function*() {
    const calls: Array<Call> = []
    const storage = noting(yield* MemoryStorage.make(), calls)
    const metadata = { format: "pt", 7: "seven" }
    const plain = yield* on(storage, Safetensors.save("plain", sources, { metadata }))
    const info = yield* on(storage, Safetensors.save("model", sources, { metadata, compress: true }))
    const original = yield* on(storage, Safetensors.open("plain"))
    const file = yield* on(storage, Safetensors.open("model"))
    calls.length = 0
    return { storage, calls, plain, info, original, file }
  })

describe("A compressed safetensors file", () => {
  it.effect("has the tensors of the original: their names, types, shapes, order, bytes, and the metadata", () =>
    Effect.gen(function*() {
      const { file, info, original, plain } = yield* setup()
      expect(info.size).toBeLessThan(0.8 * plain.size)
      expect(file.info).toMatchObject({ size: info.size, etag: info.etag })
      expect(file.metadata).toEqual(original.metadata)
      expect(names(file.tensors.values())).toEqual(names(original.tensors.values()))
      yield* hasSameTensors(file, original)
    }))

  it.effect("says how each tensor is compressed", () =>
    Effect.gen(function*() {
      const { file, original } = yield* setup()
      const codecs = Array.from(file.tensors.values(), ({ codec, name }) => [name, codec])
      expect(Object.fromEntries(codecs)).toEqual({
        "embeddings.weight": "exponent",
        "layer.0.weight": "exponent",
        "layer.0.bias": "exponent",
        "f32.embeddings.weight": "exponent",
        "f32.layer.0.weight": "exponent",
        "f32.layer.0.bias": "exponent",
        double: "exponent",
        positions: "deflate",
        random: "deflate",
        mask: "deflate",
        none: undefined,
        scale: "exponent"
      })
      for (const { codec } of original.tensors.values()) expect(codec).toBeUndefined()
      expect((yield* file.load("mask")).codec).toBe("deflate")
    }))

  it.effect("is one that other readers open: tensors are bytes there", () =>
    Effect.gen(function*() {
      const { file, storage } = yield* setup()
      const read = loaders.parse(yield* storage.load("model")).tensors
      expect(Object.keys(read).sort()).toEqual(names(file.tensors.values()).sort())
      for (const { codec, name, range, shape } of file.tensors.values()) {
        const length = range.endExclusive - range.start
        expect(read[name], name).toMatchObject(codec === undefined ? { shape } : { dtype: "U8", shape: [length] })
      }
    }))

  it.effect("gives slices as the original does, also across blocks", () =>
    Effect.gen(function*() {
      const { file, original } = yield* setup()
      const ends = [[0, 1], [655, 656], [654, 657], [1310, 1311], [600, 1400], [1499, 1500], [0, 1500], [5, 5]] as const
      for (const name of ["embeddings.weight", "f32.embeddings.weight"]) {
        for (const [start, end] of ends) {
          const slice = yield* file.loadSlice(name, start, end)
          const expected = yield* original.loadSlice(name, start, end)
          expect(slice).toMatchObject({ name, dtype: expected.dtype, shape: [end - start, 400] })
          expect(sameBytes(slice.bytes, expected.bytes), `${start} to ${end}`).toBe(true)
          expect(slice.bytes.buffer.byteLength, "the memory that the slice keeps").toBe(slice.bytes.length)
        }
      }
      expect(yield* Effect.flip(file.loadSlice("embeddings.weight", 3, 1501))).toMatchObject({ field: "slice" })
      expect(yield* Effect.flip(file.loadSlice("embeddings.weight", 2, 1))).toMatchObject({ field: "slice" })
    }))

  it.effect("is read with one request for a tensor, and two for a slice: the index and the blocks", () =>
    Effect.gen(function*() {
      const { calls, file } = yield* setup()
      const rangesOf = <A, E>(effect: Effect.Effect<A, E>) =>
        Effect.map(effect, () => calls.splice(0).map(({ args }) => args[1]))
      const { range } = file.tensors.get("f32.embeddings.weight") ?? { range: { start: 0, endExclusive: 0 } }
      expect((yield* rangesOf(file.load("f32.embeddings.weight"))).length).toBe(1)
      const reads = yield* rangesOf(file.loadSlice("f32.embeddings.weight", 700, 701))
      const { start } = range
      expect(reads).toMatchObject([{ range: { start, endExclusive: start + 3 * 8 } }, { range: {} }])
      const [, second] = reads as ReadonlyArray<{ range: { start: number; endExclusive: number } }>
      const length = (second?.range.endExclusive ?? 0) - (second?.range.start ?? 0)
      expect(length / (256 * 1024 * 4)).toBeGreaterThan(0.82)
      expect(length / (256 * 1024 * 4)).toBeLessThan(0.84)
      // A small tensor is read at once.
      expect((yield* rangesOf(file.loadSlice("layer.0.weight", 7, 8))).length).toBe(1)
    }))

  it.effect("is streamed with prefetch, and loaded many tensors at once", () =>
    Effect.gen(function*() {
      const { file, original } = yield* setup()
      for (const prefetch of [0, 2]) {
        const streamed = yield* all(file, undefined, { prefetch })
        expect(names(streamed)).toEqual(names(original.tensors.values()))
        for (const tensor of streamed) {
          expect(sameBytes(tensor.bytes, (yield* original.load(tensor.name)).bytes), tensor.name).toBe(true)
        }
      }
      const some = yield* file.loadMany(["mask", "random", "layer.0.weight", "none", "mask"])
      expect(names(some)).toEqual(["mask", "random", "layer.0.weight", "none", "mask"])
      for (const tensor of some) expect(sameBytes(tensor.bytes, (yield* original.load(tensor.name)).bytes)).toBe(true)
    }))

  it.effect("is a shard like any other", () =>
    Effect.gen(function*() {
      const storage = yield* MemoryStorage.make()
      const first = tensors.slice(0, 5)
      const second = tensors.slice(5)
      yield* on(storage, Safetensors.save("m/a.safetensors", first, { compress: true }))
      yield* on(storage, Safetensors.save("m/b.safetensors", second, { compress: true }))
      const files = tensors.map(({ name }, i) => `${JSON.stringify(name)}:"${i < 5 ? "a" : "b"}.safetensors"`)
      yield* storage.save("m/index.json", new TextEncoder().encode(`{"weight_map":{${files.join()}}}`))
      const model = yield* on(storage, Safetensors.openSharded("m/index.json"))
      const { original } = yield* setup()
      expect(names(model.tensors.values()).sort()).toEqual(names(tensors).sort())
      yield* hasSameTensors(model, original)
    }))

  it.effect("gives the bytes of one version only: after it was overwritten, a read fails", () =>
    Effect.gen(function*() {
      const { file, storage } = yield* setup()
      yield* on(storage, Safetensors.save("model", tensors, { compress: true }))
      const reads: ReadonlyArray<Effect.Effect<unknown, Safetensors.ReadError>> = [
        file.load("mask"),
        file.loadSlice("embeddings.weight", 0, 1),
        file.loadMany(["mask"]),
        all(file)
      ]
      for (const read of reads) {
        expect((yield* Effect.flip(read))._tag).toBe("PreconditionFailed")
      }
    }))

  it.effect("is refused by decode, which does not wait for anything, and says what reads it", () =>
    Effect.gen(function*() {
      const bytes = yield* compressed(tensors)
      expect(Either.getOrThrow(Either.flip(Safetensors.decode(bytes, "model"))).message).toBe(
        "safetensors \"model\": header: the file is compressed; read it with Safetensors.open"
      )
    }))
})

describe("Safetensors.save with compress", () => {
  /** What each type takes at least, by the entropy of the parts that are coded, for these weights. */
  const most = { BF16: 0.667, F32: 0.834, F16: 0.85, F8_E4M3: 0.82, F8_E5M2: 0.7 }
  for (const dtype of floatTypes) {
    it.effect(`stores normally distributed ${dtype} in ${most[dtype]} of their size, near their entropy`, () =>
      Effect.gen(function*() {
        const sources = tensorsAs(dtype, new Map([["w", { shape: [1_000_000], values: normal(1_000_000, 5) }]]))
        const { info, plain } = yield* setup(sources)
        const [source] = sources
        const bytes = source === undefined || Stream.StreamTypeId in source.data
          ? new Uint8Array(0)
          : new Uint8Array(source.data.buffer)
        const width = bytes.length / 1_000_000
        // The byte with the exponent is coded, the others are not.
        const coded = Array.from({ length: 1_000_000 }, (_, i) => {
          const high = bytes[i * width + width - 1] ?? 0
          return width === 1 ? high : (high << 1 | (bytes[i * width + width - 2] ?? 0) >> 7) & 0xff
        })
        const bound = (entropyOf(coded) / 8 + width - 1) / width
        expect(info.size / plain.size).toBeLessThanOrEqual(most[dtype])
        expect(info.size / plain.size).toBeGreaterThan(bound - 0.001)
        expect(info.size / plain.size).toBeLessThan(bound * 1.01)
      }))
  }

  it.effect("stores random bytes of every type in what they are, as the same file as without", () =>
    Effect.gen(function*() {
      for (const dtype of ["BF16", "F32", "F8_E4M3", "I64", "U8"] as const) {
        const source = {
          name: "r",
          dtype,
          shape: [50_000],
          data: randomBytes(dtype === "I64" ? 400_000 : dtype === "F32" ? 200_000 : dtype === "BF16" ? 100_000 : 50_000)
        }
        const { file, info, plain, storage } = yield* setup([source])
        expect(info.size).toBe(plain.size)
        expect(file.tensors.get("r")?.codec).toBeUndefined()
        expect(sameBytes(yield* storage.load("model"), yield* storage.load("plain"))).toBe(true)
      }
    }))

  it.effect("stores blocks that do not get smaller as they are, beside others", () =>
    Effect.gen(function*() {
      const data = new Uint8Array(2 * 3 * 256 * 1024)
      data.set(randomBytes(512 * 1024), 512 * 1024)
      const { file, info, original } = yield* setup([{ name: "w", dtype: "BF16", shape: [data.length / 2], data }])
      expect(info.size).toBeGreaterThan(1024 * 1024)
      expect(info.size).toBeLessThan(1.3 * 1024 * 1024)
      yield* hasSameTensors(file, original)
    }))

  it.effect("takes streams of data in chunks of any size", () =>
    Effect.gen(function*() {
      const { original, storage } = yield* setup()
      const sources = tensors.map((tensor, i): Safetensors.TensorSource => {
        const bytes = "buffer" in tensor.data
          ? new Uint8Array(tensor.data.buffer, tensor.data.byteOffset, tensor.data.byteLength)
          : new Uint8Array(0)
        const size = [7001, 1_000_000, 65_536][i % 3] ?? 1
        const chunks = Array.from({ length: Math.ceil(bytes.length / size) }, (_, i) =>
          bytes.subarray(i * size, (i + 1) * size))
        return { ...tensor, data: Stream.rechunk(Stream.fromIterable(chunks), 1 + i % 2) }
      })
      yield* on(storage, Safetensors.save("streamed", sources, { metadata: original.metadata, compress: true }))
      expect(sameBytes(yield* storage.load("streamed"), yield* storage.load("model"))).toBe(true)
    }))

  it.effect("refuses a stream with more or fewer bytes than its shape takes, and saves nothing", () =>
    Effect.gen(function*() {
      const storage = yield* MemoryStorage.make()
      const bytes = new Uint8Array(1000)
      for (
        const chunks of [[bytes], [bytes, bytes], [new Uint8Array(1999), bytes], [bytes, bytes, bytes.subarray(0, 1)], [
          new Uint8Array(2001)
        ]]
      ) {
        const source: Safetensors.TensorSource = {
          name: "w",
          dtype: "U8",
          shape: [1999],
          data: Stream.rechunk(Stream.fromIterable(chunks), 1)
        }
        const error = yield* Effect.flip(on(storage, Safetensors.save("model", [source], { compress: true })))
        expect(error).toMatchObject({ _tag: "SafetensorsError", field: "data", tensor: "w" })
      }
      expect(yield* storage.list()).toEqual([])
    }))

  it.effect("gives the failure of a stream back, and is interrupted as any save", () =>
    Effect.gen(function*() {
      const storage = yield* MemoryStorage.make()
      const failing = { name: "w", dtype: "U8" as const, shape: [2000], data: Stream.fail("mine") }
      expect(yield* Effect.flip(on(storage, Safetensors.save("model", [failing], { compress: true })))).toBe("mine")
      const hanging = { ...failing, data: Stream.never }
      const outcome = yield* on(storage, Safetensors.save("model", [hanging], { compress: true })).pipe(
        Effect.disconnect,
        Effect.timeoutOption("20 millis"),
        Effect.fork,
        Effect.flatMap((fiber) =>
          Effect.zipRight(Effect.void, fiber.interruptAsFork(fiber.id()).pipe(Effect.zipRight(fiber.await)))
        )
      )
      expect(outcome._tag).toBe("Failure")
      expect(yield* storage.list()).toEqual([])
    }))

  it.effect("keeps the conditions of a save", () =>
    Effect.gen(function*() {
      const { storage } = yield* setup()
      const error = yield* Effect.flip(
        on(storage, Safetensors.save("model", tensors, { compress: true, ifNoneMatch: "*" }))
      )
      expect(error._tag).toBe("ObjectAlreadyExists")
    }))

  it.effect("refuses metadata under the name that compressed files use, also without compress", () =>
    Effect.gen(function*() {
      const storage = yield* MemoryStorage.make()
      for (const compress of [true, false]) {
        for (const name of ["surfing-weights/compression", "surfing-weights/guide"]) {
          const metadata = { [name]: "{}" }
          const error = yield* Effect.flip(on(storage, Safetensors.save("model", tensors, { compress, metadata })))
          expect(error).toMatchObject({ field: "__metadata__", reason: `"${name}" is reserved` })
        }
      }
    }))

  it.effect("round-trips random tensors of all kinds", () => roundTrips(MemoryStorage.make(), 20, { compress: true }))
})

describe("A compressed file that is damaged", () => {
  const small: ReadonlyArray<Safetensors.TensorSource> = [
    ...tensorsAs("BF16", new Map([["first", { shape: [40, 30], values: normal(1200) }]])),
    ...tensorsAs("F8_E4M3", new Map([["bytes", { shape: [1500], values: normal(1500) }]])),
    { name: "numbers", dtype: "I32", shape: [500], data: Int32Array.from({ length: 500 }, (_, i) => i) }
  ]

  it.effect("fails with CorruptObject that names the tensor and the block where a block is damaged", () =>
    Effect.gen(function*() {
      const bytes = yield* compressed(small)
      const file = yield* opened(bytes)
      for (const { name, range } of file.tensors.values()) {
        for (const at of [range.start + 4, range.start + 8, range.start + 20]) {
          const damaged = bytes.slice()
          damaged[at] = (damaged[at] ?? 0) ^ 0x10
          const error = yield* Effect.flip(Effect.flatMap(opened(damaged), (file) => file.load(name)))
          expect(error).toMatchObject({ _tag: "CorruptObject", backend: "Memory", operation: "load", key: "model" })
          expect(error.message).toContain(`block 0 of tensor "${name}"`)
        }
      }
    }))

  it.effect("fails with CorruptObject that names the tensor where its index lies about sizes", () =>
    Effect.gen(function*() {
      const bytes = yield* compressed(small)
      const { range } = (yield* opened(bytes)).tensors.get("first") ?? { range: { start: 0 } }
      const view = new DataView(bytes.buffer)
      const size = view.getUint32(range.start, true)
      for (const lie of [0, 1, size - 64, size + 64, 2400, 2401, 0xffffffff]) {
        view.setUint32(range.start, lie, true)
        const error = yield* Effect.flip(Effect.flatMap(opened(bytes), (file) => file.load("first")))
        expect(error).toMatchObject({ _tag: "CorruptObject", problem: "frame", key: "model" })
        expect(error.message).toContain("the index of tensor \"first\" says")
        const isPossible = lie > 1200 && lie <= 2400
        if (!isPossible) expect(error.message).toContain("says that block 0 is stored in")
      }
    }))

  it.effect("fails with SafetensorsError that names the tensor where the description is wrong", () =>
    Effect.gen(function*() {
      const bytes = yield* compressed(small)
      const lies: ReadonlyArray<
        readonly [what: string, change: (tensors: Record<string, Record<string, unknown>>) => void, reason: string]
      > = [
        ["codec", (all) => all["first"] = { ...all["first"], codec: "zstd" }, "unknown codec \"zstd\""],
        [
          "codec of another type",
          (all) => all["bytes"] = { ...all["bytes"], codec: "exponent" },
          "cannot be coded as exponent"
        ],
        ["dtype", (all) => all["first"] = { ...all["first"], dtype: "F17" }, "unknown dtype \"F17\""],
        ["shape of 16 TiB", (all) => all["first"] = { ...all["first"], shape: [2 ** 43] }, "takes at least"],
        [
          "shape past 2^53",
          (all) => all["first"] = { ...all["first"], shape: [2 ** 50, 2 ** 50] },
          "too many elements"
        ],
        ["shape that is missing", (all) => all["first"] = { dtype: "BF16", codec: "exponent" }, "the shape is missing"],
        ["tensor that is not there", (all) => all["gone"] = { ...all["first"] }, "there is no such tensor"]
      ]
      for (const [what, change, reason] of lies) {
        const error = yield* Effect.flip(opened(withDescription(bytes, ({ tensors }) => change(tensors))))
        expect(error, what).toMatchObject({ _tag: "SafetensorsError", tensor: expect.any(String) as string })
        expect(error.message, what).toContain(reason)
      }
    }))

  it.effect("fails with SafetensorsError where the header is another than that of the original", () =>
    Effect.gen(function*() {
      const bytes = yield* compressed(small)
      const changes: ReadonlyArray<(description: Record<string, unknown>) => void> = [
        (description) => description["version"] = 2,
        (description) => description["size"] = Number(description["size"]) + 1,
        (description) => description["crc32"] = 7,
        (description) => delete description["tensors"],
        (description) => description["header"] = "####",
        (description) => description["header"] = "AAAA"
      ]
      for (const change of changes) {
        const error = yield* Effect.flip(opened(withDescription(bytes, change)))
        expect(error).toMatchObject({ _tag: "SafetensorsError", field: "__metadata__" })
      }
      // One entry alone, or under another name.
      for (const name of ["/compression", "/guide", "https://github.com"]) {
        const renamed = Buffer.from(bytes).toString("latin1").replace(name, name.toUpperCase())
        const error = yield* Effect.flip(opened(new Uint8Array(Buffer.from(renamed, "latin1"))))
        expect(error, name).toMatchObject({ _tag: "SafetensorsError", field: "__metadata__" })
      }
      // The shape of a tensor.
      const text = new TextDecoder("latin1").decode(bytes)
      const swapped = Buffer.from(text.replace("[40,30]", "[30,40]"), "latin1")
      expect(yield* Effect.flip(opened(new Uint8Array(swapped)))).toMatchObject({ field: "__metadata__" })
    }))

  it.effect("fails where it is truncated, by its header", () =>
    Effect.gen(function*() {
      const bytes = yield* compressed(small)
      for (const length of [0, 7, 100, header(bytes).length + 20, bytes.length - 1]) {
        expect((yield* Effect.flip(opened(bytes.subarray(0, length))))._tag).toBe("SafetensorsError")
      }
    }))

  it.effect("fails where the storage gives other bytes for a range", () =>
    Effect.gen(function*() {
      const bytes = yield* compressed(tensors)
      const memory = yield* MemoryStorage.make()
      yield* memory.save("model", bytes)
      const storage = yield* StorageChaos.make(memory, [{
        operation: ["load", "open"],
        afterBytes: 100,
        times: Infinity
      }])
      const file = yield* on(memory, Safetensors.open("model"))
      expect(file.tensors.size).toBe(tensors.length)
      const error = yield* Effect.flip(on(storage, Safetensors.open("model")))
      expect(error._tag).toBe("StorageUnavailable")
    }))

  it.effect("never gives wrong bytes, whatever is changed in it", () => mutations(small, 500))
})
