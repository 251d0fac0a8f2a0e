/**
 * Safetensors files: held against files that the reference implementation wrote (see `test/support/safetensors/make.py`),
 * against another reader, and against themselves.
 */
import { describe, expect, it } from "@effect/vitest"
import { safetensors as loaders } from "@jax-js/loaders"
import { Cause, Chunk, Effect, Either, Exit, FastCheck, Fiber, Option, Stream } from "effect"
import * as fs from "node:fs"
import * as os from "node:os"
import * as path from "node:path"
import {
  ByteRange,
  FileSystemStorage,
  HttpStorage,
  MemoryStorage,
  S3Storage,
  Safetensors,
  Storage,
  StorageBackend
} from "surfing-weights"
import { temporaryDirectory } from "../support/directory.js"
import { nodeClient } from "../support/httpClients.js"
import { type Call, intercepting, noting, pattern } from "../support/intercepting.js"
import { makeBucket, options as s3Options, server } from "../support/s3Bucket.js"
import { serveOf } from "../support/weightServer.js"

const fixture = (name: string): Uint8Array =>
  new Uint8Array(fs.readFileSync(path.join(import.meta.dirname, "../support/safetensors", `${name}.safetensors`)))

const text = (value: string) => new TextEncoder().encode(value)

/** A file with this header and so many bytes after it. */
const fileOf = (header: string | Uint8Array, data: number | Uint8Array = 0): Uint8Array => {
  const json = typeof header === "string" ? text(header) : header
  const bytes = typeof data === "number" ? pattern(data) : data
  const file = new Uint8Array(8 + json.length + bytes.length)
  new DataView(file.buffer).setBigUint64(0, BigInt(json.length), true)
  file.set(json, 8)
  file.set(bytes, 8 + json.length)
  return file
}

const on = <A, E, R>(storage: Storage.Service, effect: Effect.Effect<A, E, R>) =>
  Effect.provideService(effect, Storage.Storage, storage)

/** A memory storage with one object, `model`. */
const memoryWith = (bytes: Uint8Array) => Effect.tap(MemoryStorage.make(), (storage) => storage.save("model", bytes))

const opened = (bytes: Uint8Array) =>
  Effect.flatMap(memoryWith(bytes), (storage) => on(storage, Safetensors.open("model")))

const all = (file: Safetensors.SafetensorsFile, ...args: Parameters<Safetensors.SafetensorsFile["stream"]>) =>
  Effect.map(Stream.runCollect(file.stream(...args)), Chunk.toReadonlyArray)

/** Faster than `toEqual` for many. */
const sameBytes = (a: unknown, b: unknown) =>
  a instanceof Uint8Array && b instanceof Uint8Array && Buffer.compare(a, b) === 0

const names = (tensors: Iterable<{ readonly name: string }>) => Array.from(tensors, ({ name }) => name)

/** A storage on a directory of its own, and that directory. */
const onDirectory = Effect.flatMap(
  temporaryDirectory,
  (directory) =>
    Effect.map(FileSystemStorage.make({ directory, durability: "relaxed" }), (storage) => ({ storage, directory }))
)

/** Tensors of bytes, which tell where they stand. */
const tensorsOf = (count: number, size: number): ReadonlyArray<Safetensors.TensorSource> =>
  Array.from({ length: count }, (_, i) => ({
    name: `t${String(i).padStart(6, "0")}`,
    dtype: "U8",
    shape: [size],
    data: pattern(size + i).subarray(i)
  }))

const bits = (floats: Float32Array) =>
  // One NaN is as good as another.
  Array.from(floats, (value, i) => Number.isNaN(value) ? "NaN" : new Uint32Array(floats.buffer, floats.byteOffset)[i])

describe("Safetensors reads what the reference implementation wrote", () => {
  it.effect("of every type that numpy has, scalars, empty tensors, and names that are hard on JavaScript", () =>
    Effect.gen(function*() {
      const file = yield* opened(fixture("numpy"))
      expect(file.metadata).toEqual(Object.fromEntries([["format", "np"], ["__proto__", "é \" \n"]]))
      expect(Object.keys(file.metadata).sort()).toEqual(["__proto__", "format"])
      const tensors = new Map((yield* all(file)).map((tensor) => [tensor.name, tensor]))
      expect([...tensors.keys()]).toEqual([...file.tensors.keys()])
      const numbers = [0, 1, 1, 0, 1, 1]
      const expected: ReadonlyArray<readonly [string, Safetensors.Dtype, Safetensors.TypedArray]> = [
        ["bool", "BOOL", new Uint8Array(numbers)],
        ["uint8", "U8", new Uint8Array(numbers)],
        ["int8", "I8", new Int8Array(numbers)],
        ["uint16", "U16", new Uint16Array(numbers)],
        ["int16", "I16", new Int16Array(numbers)],
        ["uint32", "U32", new Uint32Array(numbers)],
        ["int32", "I32", new Int32Array(numbers)],
        ["uint64", "U64", BigUint64Array.from(numbers, BigInt)],
        ["int64", "I64", BigInt64Array.from(numbers, BigInt)],
        ["float32", "F32", new Float32Array(numbers)],
        ["float64", "F64", new Float64Array(numbers)],
        ["complex64", "C64", new Float32Array([0, 0, 1, 0, 1, 0, 0, 0, 1, 0, 1, 0])]
      ]
      for (const [name, dtype, values] of expected) {
        const tensor = tensors.get(`type ${name}`)
        expect(tensor, name).toMatchObject({ dtype, shape: [3, 2], values })
        expect(tensor?.toFloat32(), name).toEqual(Float32Array.from(values, Number))
      }
      expect(tensors.get("type float16")).toMatchObject({ dtype: "F16", values: undefined })
      expect(tensors.get("type float16")?.toFloat32()).toEqual(new Float32Array(numbers))
      expect(tensors.get("limits")?.values).toEqual(new BigInt64Array([-(2n ** 63n), 2n ** 63n - 1n]))
      expect(tensors.get("limits")?.toFloat32()).toEqual(new Float32Array([-(2 ** 63), 2 ** 63]))
      expect(tensors.get("scalar")).toMatchObject({ shape: [], values: new Float32Array([0.1]) })
      expect(tensors.get("empty")).toMatchObject({ shape: [0, 3], values: new Float32Array() })
      expect(tensors.get("__proto__")?.values).toEqual(new Float64Array([1.5, -2.5]))
      expect(tensors.get("constructor")?.values).toEqual(new Uint8Array([7]))
      expect(tensors.get("quote \" backslash \\ newline \n tab \t é 漢 😀")?.values).toEqual(new Uint8Array([255]))
      expect((yield* file.load("")).values).toEqual(new Uint8Array([1]))
      expect(tensors.size).toBe(20)
    }))

  for (
    const dtype of ["F16", "BF16", "F8_E5M2", "F8_E4M3", "F8_E8M0", "F8_E5M2FNUZ", "F8_E4M3FNUZ", "F4"] satisfies Array<
      Safetensors.Dtype
    >
  ) {
    it.effect(`of ${dtype}, which as 32-bit floats are worth what ml_dtypes says`, () =>
      Effect.gen(function*() {
        const file = yield* opened(fixture("floats"))
        const [tensor, worth] = yield* Effect.all([file.load(dtype), file.load(`${dtype} worth`)])
        expect(tensor).toMatchObject({ dtype, values: undefined })
        expect(bits(tensor.toFloat32())).toEqual(bits(worth.toFloat32()))
        expect(new Set(bits(worth.toFloat32())).size).toBeGreaterThan(15)
      }))
  }

  for (const dtype of ["F6_E2M3", "F6_E3M2"] satisfies Array<Safetensors.Dtype>) {
    it.effect(`and ${dtype}, of which it writes none, is worth what ml_dtypes says of its codes`, () =>
      Effect.gen(function*() {
        const worth = yield* Effect.flatMap(opened(fixture("floats")), (file) => file.load(`${dtype} worth`))
        // Four codes in three bytes, the first in the lowest bits.
        const packed = new Uint8Array(48)
        for (let code = 0; code < 64; code++) {
          for (let bit = 0; bit < 6; bit++) {
            const at = code * 6 + bit
            packed[at >> 3] = (packed[at >> 3] ?? 0) | (code >> bit & 1) << (at & 7)
          }
        }
        const storage = yield* MemoryStorage.make()
        yield* on(storage, Safetensors.save("model", [{ name: "a", dtype, shape: [8, 8], data: packed }]))
        const file = yield* on(storage, Safetensors.open("model"))
        expect(bits((yield* file.load("a")).toFloat32())).toEqual(bits(worth.toFloat32()))
      }))
  }

  it.effect("without any tensor", () =>
    Effect.gen(function*() {
      const file = yield* opened(fixture("empty"))
      expect(file.metadata).toEqual({ format: "pt" })
      expect(yield* all(file)).toEqual([])
    }))
})

describe("Safetensors.save", () => {
  for (const name of ["floats", "empty"]) {
    it.effect(`writes the very bytes that the reference implementation wrote: ${name}`, () =>
      Effect.gen(function*() {
        const bytes = fixture(name)
        const storage = yield* memoryWith(bytes)
        const file = yield* on(storage, Safetensors.open("model"))
        const shuffled = [...yield* all(file)].sort((a, b) => a.bytes.length % 7 - b.bytes.length % 7)
        const sources = shuffled.map(({ bytes, ...tensor }, i): Safetensors.TensorSource => ({
          ...tensor,
          data: i % 2 === 0 ? bytes : Stream.fromIterable([bytes.subarray(0, 3), bytes.subarray(3)])
        }))
        const info = yield* on(storage, Safetensors.save("copy", sources, { metadata: file.metadata }))
        expect(info.size).toBe(bytes.length)
        expect(yield* storage.load("copy")).toEqual(bytes)
      }))
  }

  it.effect("writes what another implementation reads, each tensor where an array of its elements may lie", () =>
    Effect.gen(function*() {
      const storage = yield* MemoryStorage.make()
      const tensors = [
        { name: "bool", dtype: "BOOL", shape: [3], data: new Uint8Array([1, 0, 1]) },
        { name: "i8", dtype: "I8", shape: [1], data: new Int8Array([-8]) },
        { name: "u8", dtype: "U8", shape: [], data: new Uint8Array([8]) },
        { name: "i16", dtype: "I16", shape: [1], data: new Int16Array([-16]) },
        { name: "u16", dtype: "U16", shape: [1], data: new Uint16Array([16]) },
        { name: "i32", dtype: "I32", shape: [1], data: new Int32Array([-32]) },
        { name: "u32", dtype: "U32", shape: [1], data: new Uint32Array([32]) },
        { name: "i64", dtype: "I64", shape: [1], data: new BigInt64Array([-64n]) },
        { name: "u64", dtype: "U64", shape: [1], data: new BigUint64Array([64n]) },
        { name: "f32", dtype: "F32", shape: [1, 3], data: new Float32Array([0.5, NaN, -Infinity]) },
        { name: "f64", dtype: "F64", shape: [2, 1], data: new Float64Array([Math.PI, Number.MIN_VALUE]) }
      ] satisfies Array<Safetensors.TensorSource>
      yield* on(storage, Safetensors.save("model", tensors, { metadata: { format: "pt" } }))
      const read = loaders.parse((yield* storage.load("model")).slice())
      expect(read.metadata).toEqual({ format: "pt" })
      expect(Object.keys(read.tensors).sort()).toEqual(names(tensors).sort())
      for (const { data, dtype, name, shape } of tensors) expect(read.tensors[name]).toEqual({ dtype, shape, data })
      const file = yield* on(storage, Safetensors.open("model"))
      for (const { data, name } of tensors) expect((yield* file.load(name)).values).toEqual(data)
    }))

  it.effect("takes the bits of 16-bit floats in a Uint16Array", () =>
    Effect.gen(function*() {
      const storage = yield* MemoryStorage.make()
      yield* on(
        storage,
        Safetensors.save("model", [
          { name: "f16", dtype: "F16", shape: [2], data: new Uint16Array([0x3c00, 0xc000]) },
          { name: "bf16", dtype: "BF16", shape: [2], data: new Uint16Array([0x3f80, 0xc000]) }
        ])
      )
      const file = yield* on(storage, Safetensors.open("model"))
      for (const name of ["f16", "bf16"]) {
        expect((yield* file.load(name)).toFloat32()).toEqual(new Float32Array([1, -2]))
      }
    }))

  it.effect("takes a stream of tensors, and says how many bytes will come before the first does", () =>
    Effect.gen(function*() {
      const calls: Array<Call> = []
      const storage = noting(yield* MemoryStorage.make(), calls)
      const { size } = yield* on(storage, Safetensors.save("model", Stream.fromIterable(tensorsOf(3, 5))))
      expect(calls).toMatchObject([{ operation: "save", args: ["model", {}, { size }] }])
      const file = yield* on(storage, Safetensors.open("model"))
      expect(names(yield* all(file))).toEqual(["t000000", "t000001", "t000002"])
      expect([...file.tensors.values()][0]?.range.start ?? 1).toSatisfy((start: number) => start % 8 === 0)
    }))

  it.effect("passes on conditions, and the failures of streams, and saves all or nothing", () =>
    Effect.gen(function*() {
      const storage = yield* MemoryStorage.make()
      const save = (source: Partial<Safetensors.TensorSource<"broken">>, options?: Safetensors.SaveOptions) =>
        on(
          storage,
          Effect.flip(
            Safetensors.save("model", [{ name: "a", dtype: "U8", shape: [2], data: pattern(2), ...source }], options)
          )
        )
      expect(yield* save({ data: Stream.concat(Stream.make(pattern(1)), Stream.fail("broken" as const)) })).toBe(
        "broken"
      )
      for (const length of [1, 3]) {
        expect(yield* save({ data: Stream.make(pattern(length)) })).toMatchObject({ field: "data", tensor: "a" })
      }
      expect(yield* storage.list()).toEqual([])
      yield* storage.save("model", pattern(1))
      expect(yield* save({}, { ifNoneMatch: "*" })).toMatchObject({ _tag: "ObjectAlreadyExists" })
      expect(yield* save({}, { ifMatch: "other" })).toMatchObject({ _tag: "PreconditionFailed" })
      expect(yield* storage.load("model")).toEqual(pattern(1))
    }))

  const refused: ReadonlyArray<
    readonly [what: string, field: Safetensors.SafetensorsError["field"], Partial<Safetensors.TensorSource>]
  > = [
    ["a name twice", "name", { name: "first" }],
    ["the name of the metadata", "name", { name: "__metadata__" }],
    ["a name with half of a surrogate pair", "name", { name: "\ud800" }],
    ["a shape that is not of whole numbers", "shape", { shape: [0.5, 4] }],
    ["a negative length", "shape", { shape: [-2] }],
    ["more elements than can be counted", "shape", { shape: [2 ** 40, 2 ** 40] }],
    ["an end within a byte", "shape", { dtype: "F4", shape: [3] }],
    ["fewer bytes", "data", { data: pattern(1) }],
    ["more bytes", "data", { data: pattern(3) }],
    ["an array of other elements", "data", { dtype: "F32", shape: [1], data: new Int32Array(1) }]
  ]
  for (const [what, field, source] of refused) {
    it.effect(`refuses ${what}`, () =>
      Effect.gen(function*() {
        const storage = yield* MemoryStorage.make()
        const first: Safetensors.TensorSource = { name: "first", dtype: "U8", shape: [2], data: pattern(2) }
        const failure = yield* on(
          storage,
          Effect.flip(Safetensors.save("model", [first, { ...first, name: "a", ...source }]))
        )
        expect(failure).toMatchObject({ _tag: "SafetensorsError", key: "model", field, tensor: source.name ?? "a" })
        expect(yield* storage.list()).toEqual([])
      }))
  }

  it.effect("refuses metadata that no file can hold", () =>
    Effect.gen(function*() {
      for (const metadata of [{ "\udc00": "" }, { a: "\ud800" }]) {
        const failure = yield* Effect.flip(Safetensors.save("model", [], { metadata }))
        expect(failure).toMatchObject({ field: "__metadata__" })
      }
    }).pipe(Effect.provide(MemoryStorage.layer())))
})

// What the reference implementation (0.8.0) does not read, as it was seen to, but for those marked.
const F32 = `"dtype":"F32","shape":[1],"data_offsets":[0,4]`
const tensorWith = (dtype: string, shape: string, offsets: string) =>
  `{"a":{"dtype":${dtype},"shape":${shape},"data_offsets":${offsets}}}`
const withLength = (length: bigint, rest = 16) => {
  const file = new Uint8Array(8 + rest).fill(0x20)
  new DataView(file.buffer).setBigUint64(0, length, true)
  return file
}

/** Each with the field that is told, and whether the reference implementation reads it all the same. */
const malformed: ReadonlyArray<
  readonly [
    what: string,
    file: Uint8Array,
    field: Safetensors.SafetensorsError["field"],
    read?: "read by the reference"
  ]
> = [
  ["an empty file", new Uint8Array(0), "header size"],
  ["a file of 7 bytes", new Uint8Array(7), "header size"],
  ["a header longer than the file", withLength(17n), "header size"],
  ["a header longer than 100 MB", withLength(100_000_001n), "header size"],
  ["a header whose length has its highest bit set", withLength(2n ** 63n + 2n), "header size"],
  ["a header whose length is the greatest", withLength(2n ** 64n - 1n), "header size"],
  ["a header without a byte", withLength(0n, 0), "header"],
  ["bytes that are not UTF-8", fileOf(new Uint8Array([0x7b, 0x22, 0xff, 0x22, 0x7d])), "header"],
  ["a byte order mark", fileOf("\ufeff{}"), "header"],
  ["a space in front", fileOf(" {}"), "header", "read by the reference"],
  ["no JSON", fileOf("{nothing}"), "header"],
  ["JSON that ends early", fileOf(`{"a":{"dtype":"F32"`), "header"],
  ["a list", fileOf("[]"), "header"],
  ["a string", fileOf(`"{}"`), "header"],
  ["a comma at the end", fileOf(`{"a":{${F32}},}`, 4), "header"],
  ["no comma", fileOf(`{"a":{${F32}}"b":{}}`, 4), "header"],
  ["something behind the object", fileOf(`{"a":{${F32}}}{}`, 4), "header"],
  ["NUL as padding", fileOf(`{"a":{${F32}}}\0\0`, 4), "header"],
  ["a control character in a name", fileOf(`{"a\n":{${F32}}}`, 4), "header"],
  ["an escape that is none", fileOf(`{"\\x":{${F32}}}`, 4), "header"],
  ["half of a surrogate pair in a name", fileOf(`{"\\ud800":{${F32}}}`, 4), "header"],
  ["a name twice", fileOf(`{"a":{${F32}},"a":{${F32}}}`, 4), "name", "read by the reference"],
  [
    "a name twice, once with an escape",
    fileOf(`{"a":{${F32}},"\\u0061":{${F32}}}`, 4),
    "name",
    "read by the reference"
  ],
  ["a tensor that is no object", fileOf(`{"a":1}`), "header"],
  ["a tensor that is a list", fileOf(`{"a":["F32",[1],[0,4]]}`, 4), "header", "read by the reference"],
  ["values nested too deeply", fileOf(`{"a":{"x":${"[".repeat(130)}${"]".repeat(130)},${F32}}}`, 4), "header"],
  ["an unknown field that is no JSON", fileOf(`{"a":{"x":tru,${F32}}}`, 4), "header"],
  ["an unknown field without a value", fileOf(`{"a":{"x":,${F32}}}`, 4), "header"],
  ["no dtype", fileOf(`{"a":{"shape":[1],"data_offsets":[0,4]}}`, 4), "dtype"],
  ["no shape", fileOf(`{"a":{"dtype":"F32","data_offsets":[0,4]}}`, 4), "shape"],
  ["no offsets", fileOf(`{"a":{"dtype":"F32","shape":[1]}}`, 4), "data_offsets"],
  ["a field twice", fileOf(`{"a":{${F32},"dtype":"F32"}}`, 4), "dtype"],
  ["a dtype that is no string", fileOf(tensorWith("32", "[1]", "[0,4]"), 4), "dtype"],
  ["an unknown dtype", fileOf(tensorWith(`"F33"`, "[1]", "[0,4]"), 4), "dtype"],
  ["a dtype in small letters", fileOf(tensorWith(`"f32"`, "[1]", "[0,4]"), 4), "dtype"],
  ["a dtype that every object has", fileOf(tensorWith(`"constructor"`, "[1]", "[0,4]"), 4), "dtype"],
  ["a shape that is no list", fileOf(tensorWith(`"F32"`, "1", "[0,4]"), 4), "shape"],
  ["a negative length", fileOf(tensorWith(`"F32"`, "[-1]", "[0,4]"), 4), "shape"],
  ["a fraction of a length", fileOf(tensorWith(`"F32"`, "[0.5,2]", "[0,4]"), 4), "shape"],
  ["a length written as a fraction", fileOf(tensorWith(`"F32"`, "[1.0]", "[0,4]"), 4), "shape"],
  ["a length with an exponent", fileOf(tensorWith(`"F32"`, "[1e0]", "[0,4]"), 4), "shape"],
  ["a length that begins with 0", fileOf(tensorWith(`"F32"`, "[01]", "[0,4]"), 4), "shape"],
  ["a length that is null", fileOf(tensorWith(`"F32"`, "[null]", "[0,4]"), 4), "shape"],
  ["lengths without a comma", fileOf(tensorWith(`"F32"`, "[1 1]", "[0,4]"), 4), "shape"],
  [
    "a product of lengths that overflows",
    fileOf(tensorWith(`"F32"`, "[4294967296,4294967296,4]", "[0,4]"), 4),
    "shape"
  ],
  [
    "a product of lengths that overflows before one of them is 0",
    fileOf(tensorWith(`"F32"`, "[4294967296,4294967296,0]", "[0,0]")),
    "shape"
  ],
  ["a length beyond 64 bits", fileOf(tensorWith(`"F32"`, "[18446744073709551616]", "[0,4]"), 4), "shape"],
  [
    "a length beyond 2^53",
    fileOf(tensorWith(`"F32"`, "[0,9007199254740993]", "[0,0]")),
    "shape",
    "read by the reference"
  ],
  [
    "elements that overflow once they have a size",
    fileOf(tensorWith(`"F64"`, "[2305843009213693952]", "[0,4]"), 4),
    "shape"
  ],
  ["elements that end within a byte", fileOf(tensorWith(`"F4"`, "[3]", "[0,2]"), 2), "shape"],
  ["three offsets", fileOf(tensorWith(`"F32"`, "[1]", "[0,4,4]"), 4), "data_offsets"],
  ["one offset", fileOf(tensorWith(`"F32"`, "[1]", "[4]"), 4), "data_offsets"],
  ["a negative offset", fileOf(tensorWith(`"F32"`, "[1]", "[-4,0]"), 4), "data_offsets"],
  ["an offset of minus nothing", fileOf(tensorWith(`"F32"`, "[1]", "[-0,4]"), 4), "data_offsets"],
  ["an offset written as a fraction", fileOf(tensorWith(`"F32"`, "[1]", "[0,4.0]"), 4), "data_offsets"],
  [
    "an offset beyond 2^53",
    fileOf(tensorWith(`"U8"`, "[1]", "[9007199254740992,9007199254740993]"), 1),
    "data_offsets"
  ],
  ["an offset beyond 64 bits", fileOf(tensorWith(`"U8"`, "[1]", "[0,18446744073709551617]"), 1), "data_offsets"],
  ["offsets that go back", fileOf(tensorWith(`"F32"`, "[1]", "[4,0]"), 4), "data_offsets"],
  ["fewer bytes than type and shape take", fileOf(tensorWith(`"F32"`, "[2]", "[0,4]"), 4), "data_offsets"],
  ["more bytes than type and shape take", fileOf(tensorWith(`"F32"`, "[1]", "[0,8]"), 8), "data_offsets"],
  ["a tensor that ends beyond the file", fileOf(tensorWith(`"F32"`, "[1]", "[0,4]"), 3), "data_offsets"],
  ["a hole at the start", fileOf(tensorWith(`"F32"`, "[1]", "[4,8]"), 8), "data_offsets"],
  [
    "a hole between two tensors",
    fileOf(`{"a":{${F32}},"b":{"dtype":"F32","shape":[1],"data_offsets":[8,12]}}`, 12),
    "data_offsets"
  ],
  [
    "two tensors that share bytes",
    fileOf(`{"a":{${F32}},"b":{"dtype":"F32","shape":[1],"data_offsets":[2,6]}}`, 6),
    "data_offsets"
  ],
  ["two tensors of the same bytes", fileOf(`{"a":{${F32}},"b":{${F32}}}`, 4), "data_offsets"],
  [
    "an empty tensor within another",
    fileOf(`{"a":{${F32}},"b":{"dtype":"F32","shape":[0],"data_offsets":[2,2]}}`, 4),
    "data_offsets"
  ],
  ["bytes behind the last tensor", fileOf(`{"a":{${F32}}}`, 5), "data"],
  ["bytes, and no tensor", fileOf("{}", 1), "data"],
  ["metadata that is a list", fileOf(`{"__metadata__":[],"a":{${F32}}}`, 4), "__metadata__"],
  ["metadata of a number", fileOf(`{"__metadata__":{"x":1},"a":{${F32}}}`, 4), "__metadata__"],
  ["metadata of null", fileOf(`{"__metadata__":{"x":null},"a":{${F32}}}`, 4), "__metadata__"],
  ["metadata of an object", fileOf(`{"__metadata__":{"x":{}},"a":{${F32}}}`, 4), "__metadata__"],
  ["metadata twice", fileOf(`{"__metadata__":{},"__metadata__":{},"a":{${F32}}}`, 4), "__metadata__"],
  ["a key of the metadata twice", fileOf(`{"__metadata__":{"x":"","x":""}}`), "__metadata__", "read by the reference"]
]

describe("Safetensors.open refuses", () => {
  const aboutTensor = new Set<string>(["name", "dtype", "shape", "data_offsets"])

  for (const [what, file, field] of malformed) {
    it.effect(what, () =>
      Effect.gen(function*() {
        const failure = yield* Effect.flip(opened(file))
        expect(failure).toMatchObject({ _tag: "SafetensorsError", key: "model", field })
        if (failure._tag !== "SafetensorsError") return expect.unreachable()
        expect(failure.tensor !== undefined).toBe(aboutTensor.has(field) || failure.message.includes("of tensor"))
        expect(failure.reason.length).toBeGreaterThan(5)
        expect(failure.message).toMatch(/^safetensors "model": /)
      }))
  }

  it.effect("a number that is whole in value alone, and says so", () =>
    Effect.gen(function*() {
      for (const length of ["1.0", "1e0", "-0"]) {
        const failure = yield* Effect.flip(opened(fileOf(tensorWith(`"F32"`, `[${length}]`, "[0,4]"), 4)))
        expect(failure.message).toMatch(/whole number from 0 up, written in digits alone, at character \d+$/)
      }
    }))

  it.scoped("a header longer than 100 MB, also in a file that is longer, and reads no more of it", () =>
    Effect.gen(function*() {
      const { directory, storage: inner } = yield* onDirectory
      const calls: Array<Call> = []
      fs.writeFileSync(path.join(directory, "model"), withLength(100_000_001n))
      fs.truncateSync(path.join(directory, "model"), 200_000_000)
      const failure = yield* on(noting(inner, calls), Effect.flip(Safetensors.open("model")))
      expect(failure).toMatchObject({ _tag: "SafetensorsError", field: "header size" })
      expect(calls.length).toBe(1)
    }))

  it.effect("whatever came of a right file with some bytes changed, or reads it; nothing else", () =>
    Effect.promise(() =>
      FastCheck.assert(
        FastCheck.asyncProperty(
          FastCheck.array(FastCheck.tuple(FastCheck.nat(700), FastCheck.nat(255)), { minLength: 1, maxLength: 4 }),
          async (changes) => {
            const bytes = fixture("numpy")
            for (const [at, byte] of changes) bytes[at] = byte
            const outcome = await Effect.runPromiseExit(opened(bytes))
            if (Exit.isSuccess(outcome)) return
            expect(Option.getOrThrow(Cause.failureOption(outcome.cause))).toMatchObject({ _tag: "SafetensorsError" })
          }
        ),
        { numRuns: 500 }
      )
    ))
})

describe("Safetensors.open reads", () => {
  const readable: ReadonlyArray<readonly [what: string, file: Uint8Array]> = [
    [
      "white space wherever JSON has it",
      fileOf(`{ "a" :\t{\n"dtype" : "F32" , "shape" : [ 1 ] ,\r"data_offsets":[ 0 , 4 ] } } \n`, 4)
    ],
    [
      "fields in any order, and fields that it does not know",
      fileOf(`{"a":{"data_offsets":[0,4],"x":[{"y":"}]"},null,-1.5e3],"shape":[1],"z":true,"dtype":"F32"}}`, 4)
    ],
    ["metadata that is null", fileOf(`{"__metadata__":null,"a":{${F32}}}`, 4)],
    ["a name with an escape", fileOf(`{"\\u0061":{${F32}}}`, 4)]
  ]
  for (const [what, file] of readable) {
    it.effect(what, () =>
      Effect.gen(function*() {
        const { load, metadata, tensors } = yield* opened(file)
        expect([...tensors.values()]).toMatchObject([{ name: "a", dtype: "F32", shape: [1] }])
        expect((yield* load("a")).bytes).toEqual(pattern(4))
        expect(metadata).toEqual({})
      }))
  }

  it.effect("tensors that stand in the header in another order than in the file, empty ones at one place", () =>
    Effect.gen(function*() {
      const tensor = (shape: number, start: number, end: number) =>
        `{"dtype":"U8","shape":[${shape}],"data_offsets":[${start},${end}]}`
      const header = `{"c":${tensor(2, 3, 5)},"e":${tensor(0, 3, 3)},"a":${tensor(3, 0, 3)},"d":${tensor(0, 0, 0)}}`
      const file = yield* opened(fileOf(header, 5))
      expect([...file.tensors.keys()]).toEqual(["d", "a", "e", "c"])
      expect((yield* all(file)).map(({ bytes }) => [...bytes])).toEqual([
        [],
        [...pattern(3)],
        [],
        [...pattern(5).subarray(3)]
      ])
    }))

  it.effect("data that does not lie where a typed array may", () =>
    Effect.gen(function*() {
      const data = new Uint8Array(14)
      const view = new DataView(data.buffer)
      view.setUint8(0, 9)
      view.setFloat32(1, 1.5, true)
      view.setFloat64(5, -2.5, true)
      view.setUint8(13, 7)
      const header =
        `{"u":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"f":{"dtype":"F32","shape":[1],"data_offsets":[1,5]},` +
        `"d":{"dtype":"F64","shape":[1],"data_offsets":[5,13]},"h":{"dtype":"F8_E4M3","shape":[1],"data_offsets":[13,14]}}`
      const file = yield* opened(fileOf(header, data))
      for (const tensors of [yield* all(file), yield* file.loadMany(["u", "f", "d", "h"])]) {
        expect(tensors.map(({ values }) => values)).toEqual([
          new Uint8Array([9]),
          new Float32Array([1.5]),
          new Float64Array([-2.5]),
          undefined
        ])
        for (const { bytes, values } of tensors) expect(values?.buffer ?? bytes.buffer).toBe(bytes.buffer)
      }
    }))
})

describe("Safetensors gives back what was saved", () => {
  const shape = FastCheck.array(FastCheck.nat(4), { maxLength: 4 })
  const sizes = { F4: 4, F6_E2M3: 6, F6_E3M2: 6, BF16: 16, I32: 32, C64: 64, U64: 64, F32: 32, BOOL: 8, F8_E4M3FNUZ: 8 }
  const tensor = FastCheck.record({
    name: FastCheck.oneof(
      FastCheck.string({ unit: "binary" }),
      FastCheck.constantFrom("__proto__", "constructor", "toString", "a")
    ),
    dtype: FastCheck.constantFrom(...Object.keys(sizes) as Array<keyof typeof sizes>),
    shape,
    streamed: FastCheck.boolean(),
    seed: FastCheck.nat(250)
  }).map(({ dtype, name, seed, shape, streamed }) => {
    const bits = shape.reduce((product, length) => product * length, sizes[dtype])
    const whole = bits % 8 === 0 ? shape : [...shape, 4]
    const size = (bits % 8 === 0 ? bits : bits * 4) / 8
    const bytes = pattern(size + seed).subarray(seed)
    return { name, dtype, shape: whole, bytes, streamed }
  })
  const set = FastCheck.record({
    tensors: FastCheck.uniqueArray(tensor, { selector: ({ name }) => name, maxLength: 12 }),
    metadata: FastCheck.dictionary(FastCheck.string({ unit: "binary" }), FastCheck.string({ unit: "binary" }), {
      maxKeys: 3
    })
  })

  const holds = (make: Effect.Effect<Storage.Service, unknown>, numRuns: number) =>
    Effect.promise(() =>
      FastCheck.assert(
        FastCheck.asyncProperty(set, ({ metadata, tensors }) =>
          Effect.gen(function*() {
            const storage = yield* make
            const sources = tensors.map(({ bytes, streamed, ...tensor }): Safetensors.TensorSource => ({
              ...tensor,
              data: streamed
                ? Stream.rechunk(Stream.fromIterable(Array.from(bytes, (byte) => new Uint8Array([byte]))), 3)
                : bytes
            }))
            const info = yield* on(storage, Safetensors.save("a/model", sources, { metadata }))
            const file = yield* on(storage, Safetensors.open("a/model"))
            expect(file.info.etag).toBe(info.etag)
            expect(file.info.size).toBe(info.size)
            expect(file.metadata).toEqual({ ...metadata })
            const streamed = yield* all(file)
            expect(names(streamed)).toEqual([...file.tensors.keys()])
            expect(streamed.length).toBe(tensors.length)
            const byName = new Map(streamed.map((tensor) => [tensor.name, tensor]))
            const loaded = yield* file.loadMany(names(tensors))
            for (const [i, { bytes, dtype, name, shape }] of tensors.entries()) {
              expect(byName.get(name)).toMatchObject({ dtype, shape, bytes })
              expect(loaded[i]).toMatchObject({ name, dtype, shape, bytes })
              expect((yield* file.load(name)).bytes).toEqual(bytes)
            }
          }).pipe(Effect.runPromise)),
        { numRuns }
      )
    )

  it.effect("whatever it is, in memory", () => holds(MemoryStorage.make(), 200))

  it.scoped("whatever it is, in a directory", () =>
    Effect.flatMap(onDirectory, ({ storage }) => holds(Effect.succeed(storage), 60)))

  it.effect("also 10,000 tensors, whose header takes a second read", () =>
    Effect.gen(function*() {
      const calls: Array<Call> = []
      const storage = noting(yield* MemoryStorage.make(), calls)
      const tensors = tensorsOf(10_000, 50)
      yield* on(storage, Safetensors.save("model", tensors))
      calls.length = 0
      const file = yield* on(storage, Safetensors.open("model"))
      expect(calls.map(({ operation }) => operation)).toEqual(["open", "load"])
      expect([...file.tensors.keys()]).toEqual(names(tensors))
      expect((yield* file.load("t009999")).bytes).toEqual(tensors[9999]?.data)
      const streamed = yield* all(file)
      expect(streamed.every(({ bytes }, i) => sameBytes(bytes, tensors[i]?.data))).toBe(true)
      const many = yield* file.loadMany(names(tensors).reverse())
      expect(many.every(({ bytes }, i) => sameBytes(bytes, tensors[9999 - i]?.data))).toBe(true)
      expect([streamed.length, many.length]).toEqual([10_000, 10_000])
    }))
})

describe("A file that was opened", () => {
  it.effect("costs one request for a small header, and one for each tensor, all on its etag", () =>
    Effect.gen(function*() {
      const calls: Array<Call> = []
      const storage = noting(yield* MemoryStorage.make(), calls)
      const { etag } = yield* on(storage, Safetensors.save("model", tensorsOf(3, 8)))
      calls.length = 0
      const file = yield* on(storage, Safetensors.open("model"))
      expect(calls).toEqual([{ operation: "open", args: ["model", { range: ByteRange.make(0, 128 * 1024) }] }])
      calls.length = 0
      const { range: { endExclusive, start } } = yield* file.load("t000001")
      expect(calls).toEqual([
        { operation: "load", args: ["model", { range: ByteRange.make(start, endExclusive), ifMatch: etag }] }
      ])
      calls.length = 0
      yield* file.loadSlice("t000001", 2, 5)
      expect(calls).toEqual([
        { operation: "load", args: ["model", { range: ByteRange.make(start + 2, start + 5), ifMatch: etag }] }
      ])
      calls.length = 0
      yield* file.loadMany(["t000002", "t000000"])
      expect(calls).toMatchObject([{ operation: "loadRanges", args: ["model", [{}, {}], { ifMatch: etag }] }])
      calls.length = 0
      yield* all(file)
      expect(calls).toEqual([
        { operation: "load", args: ["model", { range: ByteRange.make(start - 8, endExclusive + 8), ifMatch: etag }] }
      ])
    }))

  it.effect("asks for what its header lacks on the etag of the first read", () =>
    Effect.gen(function*() {
      const calls: Array<Call> = []
      const storage = noting(yield* MemoryStorage.make(), calls)
      const { etag } = yield* on(storage, Safetensors.save("model", tensorsOf(3000, 1)))
      calls.length = 0
      const { tensors } = yield* on(storage, Safetensors.open("model"))
      const dataStart = tensors.get("t000000")?.range.start ?? 0
      expect(calls).toEqual([
        { operation: "open", args: ["model", { range: ByteRange.make(0, 128 * 1024) }] },
        { operation: "load", args: ["model", { range: ByteRange.make(128 * 1024, dataStart), ifMatch: etag }] }
      ])
    }))

  it.effect("is never read together with what has taken its place", () =>
    Effect.gen(function*() {
      const storage = yield* MemoryStorage.make()
      const save = on(storage, Safetensors.save("model", tensorsOf(3, 8)))
      yield* save
      const file = yield* on(storage, Safetensors.open("model"))
      yield* save
      const reads: ReadonlyArray<Effect.Effect<unknown, Safetensors.ReadError>> = [
        file.load("t000000"),
        file.loadSlice("t000000", 0, 1),
        file.loadMany(["t000000"]),
        all(file)
      ]
      for (const read of reads) expect(yield* Effect.flip(read)).toMatchObject({ _tag: "PreconditionFailed" })
    }))

  it.effect("is not opened when it is overwritten between the two reads of its header", () =>
    Effect.gen(function*() {
      const inner = yield* MemoryStorage.make()
      const save = on(inner, Safetensors.save("model", tensorsOf(3000, 1)))
      yield* save
      const storage = intercepting(inner, {
        around: (effect, { operation }) => operation === "load" ? Effect.zipRight(Effect.orDie(save), effect) : effect
      })
      expect(yield* Effect.flip(on(storage, Safetensors.open("model")))).toMatchObject({ _tag: "PreconditionFailed" })
    }))

  it.effect("has no tensor of a name that it does not name", () =>
    Effect.gen(function*() {
      const file = yield* opened(fixture("empty"))
      const reads: ReadonlyArray<Effect.Effect<unknown, Safetensors.ReadError>> = [
        file.load("__proto__"),
        file.loadMany(["constructor"]),
        file.loadSlice("a", 0, 0),
        all(file, ["toString"])
      ]
      for (const read of reads) {
        expect(yield* Effect.flip(read)).toMatchObject({ _tag: "SafetensorsError", field: "name", key: "model" })
      }
    }))

  it.effect("is not there: that is ObjectNotFound", () =>
    Effect.gen(function*() {
      const failure = yield* on(yield* MemoryStorage.make(), Effect.flip(Safetensors.open("model")))
      expect(failure).toMatchObject({ _tag: "ObjectNotFound", key: "model" })
    }))
})

describe("loadMany", () => {
  it.effect("gives tensors in the order asked for, each in an array of its own, also one asked for twice", () =>
    Effect.gen(function*() {
      const storage = yield* MemoryStorage.make()
      yield* on(storage, Safetensors.save("model", tensorsOf(5, 8)))
      const file = yield* on(storage, Safetensors.open("model"))
      const tensors = yield* file.loadMany(["t000003", "t000000", "t000003"])
      expect(names(tensors)).toEqual(["t000003", "t000000", "t000003"])
      expect(tensors.map(({ bytes }) => bytes)).toEqual([3, 0, 3].map((i) => pattern(8 + i).subarray(i)))
      expect(new Set(tensors.map(({ bytes }) => bytes.buffer)).size).toBe(3)
      expect(yield* file.loadMany([])).toEqual([])
    }))

  it.scoped("of 10 tensors scattered over 1 GiB moves less than 1.2 times their bytes and the header", () =>
    Effect.gen(function*() {
      const { directory, storage: inner } = yield* onDirectory
      const count = 4096
      const size = 256 * 1024
      sparse(path.join(directory, "model"), count, size)
      // Everything that is read passes through `open`, from which this backend makes the rest.
      let moved = 0
      const { capabilities, entries, open, remove, save } = inner.backend
      const storage = Storage.make(StorageBackend.make({
        name: "counting",
        capabilities,
        entries,
        remove,
        save,
        open: (key, options) =>
          Effect.map(open(key, options), (opened) => ({
            ...opened,
            stream: Stream.tap(opened.stream, ({ byteLength }) => Effect.sync(() => moved += byteLength))
          }))
      }))
      const file = yield* on(storage, Safetensors.open("model"))
      const dataStart = file.tensors.get("t000000")?.range.start ?? 0
      const wanted = Array.from({ length: 10 }, (_, i) => `t${String(i * 409 + 3).padStart(6, "0")}`)
      const tensors = yield* file.loadMany(wanted)
      expect(tensors.map(({ bytes }) => bytes.byteLength)).toEqual(Array.from({ length: 10 }, () => size))
      expect(moved).toBeGreaterThanOrEqual(10 * size)
      expect(moved).toBeLessThanOrEqual(1.2 * 10 * size + dataStart)
    }))
})

/** Tensors without a bit that is set. */
const zeros = (count: number, size: number): ReadonlyArray<Safetensors.TensorSource> => {
  const data = new Uint8Array(size)
  return Array.from({ length: count }, (_, i) => ({ name: `t${10 + i}`, dtype: "U8", shape: [size], data }))
}

/** A file of tensors of one size of which nothing but the header is on the disk. */
const sparse = (file: string, count: number, size: number): number => {
  const entries = Array.from(
    { length: count },
    (_, i) =>
      `"t${String(i).padStart(6, "0")}":{"dtype":"U8","shape":[${size}],"data_offsets":[${i * size},${(i + 1) * size}]}`
  )
  const header = fileOf(`{${entries.join()}}`)
  fs.writeFileSync(file, header)
  fs.truncateSync(file, header.length + count * size)
  return header.length
}

describe("loadSlice", () => {
  const slices = Effect.gen(function*() {
    const storage = yield* MemoryStorage.make()
    const tensors: ReadonlyArray<Safetensors.TensorSource> = [
      { name: "matrix", dtype: "F32", shape: [4, 3], data: Float32Array.from({ length: 12 }, (_, i) => i) },
      { name: "scalar", dtype: "F32", shape: [], data: new Float32Array(1) },
      { name: "none", dtype: "F32", shape: [0, 3], data: new Float32Array() },
      { name: "wide", dtype: "F32", shape: [5, 0], data: new Float32Array() },
      { name: "nibbles", dtype: "F4", shape: [4, 3], data: new Uint8Array([0x10, 0x32, 0x54, 0x76, 0x98, 0xba]) }
    ]
    yield* on(storage, Safetensors.save("model", tensors))
    return yield* on(storage, Safetensors.open("model"))
  })

  it.effect("gives rows of a matrix", () =>
    Effect.gen(function*() {
      const file = yield* slices
      const rows = yield* file.loadSlice("matrix", 1, 3)
      expect(rows).toMatchObject({ name: "matrix", shape: [2, 3], values: new Float32Array([3, 4, 5, 6, 7, 8]) })
      expect((yield* file.loadSlice("matrix", 0, 4)).bytes).toEqual((yield* file.load("matrix")).bytes)
      expect(yield* file.loadSlice("matrix", 2, 2)).toMatchObject({ shape: [0, 3], values: new Float32Array() })
      expect(yield* file.loadSlice("none", 0, 0)).toMatchObject({ shape: [0, 3] })
      expect(yield* file.loadSlice("wide", 1, 3)).toMatchObject({ shape: [2, 0] })
      expect(yield* file.loadSlice("nibbles", 2, 4)).toMatchObject({ bytes: new Uint8Array([0x76, 0x98, 0xba]) })
    }))

  const refused: ReadonlyArray<readonly [what: string, name: string, start: number, end: number]> = [
    ["beyond the end", "matrix", 0, 5],
    ["that goes back", "matrix", 2, 1],
    ["from before the start", "matrix", -1, 1],
    ["of a fraction", "matrix", 0, 1.5],
    ["that is no number", "matrix", NaN, 1],
    ["of a scalar", "scalar", 0, 1],
    ["that begins within a byte", "nibbles", 1, 4],
    ["that ends within a byte", "nibbles", 0, 3]
  ]
  for (const [what, name, start, end] of refused) {
    it.effect(`refuses one ${what}`, () =>
      Effect.gen(function*() {
        const failure = yield* Effect.flatMap(slices, (file) => Effect.flip(file.loadSlice(name, start, end)))
        expect(failure).toMatchObject({ _tag: "SafetensorsError", field: "slice", tensor: name })
      }))
  }
})

describe("stream", () => {
  const MiB = 1024 * 1024

  it.effect("gives the tensors of some names in the order of the file, each once", () =>
    Effect.gen(function*() {
      const storage = yield* MemoryStorage.make()
      yield* on(storage, Safetensors.save("model", tensorsOf(5, 8)))
      const file = yield* on(storage, Safetensors.open("model"))
      const some = yield* all(file, ["t000004", "t000001", "t000004"])
      expect(names(some)).toEqual(["t000001", "t000004"])
      expect(some.map(({ bytes }) => bytes)).toEqual([1, 4].map((i) => pattern(8 + i).subarray(i)))
      expect(yield* all(file, [])).toEqual([])
    }))

  it.effect("reads neighbours together, up to 4 MiB, what is larger by itself, and not what nobody asked for", () =>
    Effect.gen(function*() {
      const calls: Array<Call> = []
      const storage = noting(yield* MemoryStorage.make(), calls)
      const sizes = [3, 3, 3, 9, 1, 1, 1]
      const tensors = sizes.map((
        size,
        i
      ) => ({ name: `t${i}`, dtype: "U8", shape: [size * MiB], data: new Uint8Array(size * MiB).fill(i) } as const))
      yield* on(storage, Safetensors.save("model", tensors))
      const file = yield* on(storage, Safetensors.open("model"))
      const lengths = (names?: ReadonlyArray<string>) =>
        Effect.gen(function*() {
          calls.length = 0
          const streamed = yield* all(file, names)
          for (const { bytes, name, shape: [length = 0] } of streamed) {
            expect(bytes.byteLength).toBe(length)
            expect([bytes[0], bytes[length - 1]]).toEqual([Number(name.slice(1)), Number(name.slice(1))])
          }
          return calls.map(({ args: [, options] }) => {
            const { range } = options as { readonly range: Storage.LoadOptions["range"] }
            const { endExclusive, start } = Either.getOrThrow(ByteRange.resolve(range, file.info.size))
            return (endExclusive - start) / MiB
          })
        })
      expect(yield* lengths()).toEqual([3, 3, 3, 9, 3])
      expect(yield* lengths(["t0", "t2", "t4", "t5"])).toEqual([3, 3, 2])
      expect(yield* lengths(["t4", "t6"])).toEqual([1, 1])
    }))

  for (const prefetch of [0, 1, 2, 5]) {
    it.effect(`has ${prefetch} reads under way or done, and no more, besides what the consumer is busy with`, () =>
      Effect.gen(function*() {
        const inner = yield* MemoryStorage.make()
        yield* on(inner, Safetensors.save("model", zeros(12, 8 * MiB)))
        let begun = 0
        const storage = intercepting(inner, {
          around: (effect, { operation }) =>
            operation === "load" ? Effect.zipRight(Effect.sync(() => begun++), effect) : effect
        })
        const file = yield* on(storage, Safetensors.open("model"))
        let taken = 0
        const ahead: Array<number> = []
        yield* Stream.runForEach(file.stream(undefined, { prefetch }), () =>
          Effect.gen(function*() {
            taken++
            for (let i = 0; i < 100; i++) yield* Effect.yieldNow()
            ahead.push(begun - taken)
          }))
        expect(ahead).toEqual(Array.from({ length: 12 }, (_, i) => Math.min(prefetch, 11 - i)))
      }))
  }

  for (const prefetch of [-1, 0.5, NaN]) {
    it.effect(`refuses a prefetch of ${prefetch}`, () =>
      Effect.gen(function*() {
        const file = yield* opened(fixture("empty"))
        const failure = yield* Effect.flip(all(file, undefined, { prefetch }))
        expect(failure).toMatchObject({ _tag: "UnsupportedOperation", key: "model" })
      }))
  }

  /** Four tensors that are read one by one; the first read ends, the others never do. */
  const stuck = Effect.gen(function*() {
    const inner = yield* MemoryStorage.make()
    yield* on(inner, Safetensors.save("model", zeros(4, 5 * MiB)))
    const seen = { begun: 0, interrupted: 0 }
    const never = Effect.onInterrupt(Effect.never, () => Effect.sync(() => seen.interrupted++))
    const storage = intercepting(inner, {
      around: (effect, { operation }) =>
        operation === "load" ? Effect.suspend(() => ++seen.begun === 1 ? effect : never) : effect
    })
    return { file: yield* on(storage, Safetensors.open("model")), seen }
  })

  it.effect("interrupts the reads that are under way when its consumer has enough", () =>
    Effect.gen(function*() {
      const { file, seen } = yield* stuck
      const first = Stream.tap(file.stream(), () => Effect.repeatN(Effect.yieldNow(), 100))
      expect(names(yield* Stream.runCollect(Stream.take(first, 1)))).toEqual(["t10"])
      expect(seen).toEqual({ begun: 3, interrupted: 2 })
    }))

  it.effect("interrupts them when its consumer is interrupted", () =>
    Effect.gen(function*() {
      const { file, seen } = yield* stuck
      const fiber = yield* Effect.fork(all(file))
      yield* Effect.repeatN(Effect.yieldNow(), 1000)
      expect(seen).toEqual({ begun: 3, interrupted: 0 })
      yield* Fiber.interrupt(fiber)
      expect(seen).toEqual({ begun: 3, interrupted: 2 })
    }))

  it.effect("fails with what a read fails with", () =>
    Effect.gen(function*() {
      const inner = yield* MemoryStorage.make()
      yield* on(inner, Safetensors.save("model", zeros(4, 5 * MiB)))
      const file = yield* on(inner, Safetensors.open("model"))
      yield* inner.remove("model")
      expect(yield* Effect.flip(all(file))).toMatchObject({ _tag: "ObjectNotFound" })
    }))
})

describe("Safetensors.openSharded", () => {
  const sharded = (index: string, shards: Readonly<Record<string, ReadonlyArray<Safetensors.TensorSource>>>) =>
    Effect.gen(function*() {
      const calls: Array<Call> = []
      const storage = noting(yield* MemoryStorage.make(), calls)
      for (const [key, tensors] of Object.entries(shards)) {
        yield* on(storage, Safetensors.save(key, tensors, { metadata: { format: "pt" } }))
      }
      yield* storage.save("llama/model.safetensors.index.json", text(index))
      calls.length = 0
      const model = yield* on(storage, Effect.either(Safetensors.openSharded("llama/model.safetensors.index.json")))
      return { calls, model, storage }
    })

  const u8 = (name: string, value: number): Safetensors.TensorSource => ({
    name,
    dtype: "U8",
    shape: [2],
    data: new Uint8Array([value, value])
  })
  const shards = {
    "llama/model-00002-of-00002.safetensors": [u8("c", 3), u8("b", 2)],
    "llama/model-00001-of-00002.safetensors": [u8("__proto__", 1), u8("unnamed", 9)]
  }
  const index = `{"metadata":{"total_size":6,"of":"llama"},"weight_map":{"c":"model-00002-of-00002.safetensors",` +
    `"__proto__":"model-00001-of-00002.safetensors","b":"model-00002-of-00002.safetensors"},"other":[]}`

  it.effect("gives one model out of several files", () =>
    Effect.gen(function*() {
      const { calls, model: either } = yield* sharded(index, shards)
      const model = yield* either
      expect(calls.map(({ args: [key], operation }) => `${operation} ${String(key)}`).sort()).toEqual([
        "open llama/model-00001-of-00002.safetensors",
        "open llama/model-00002-of-00002.safetensors",
        "open llama/model.safetensors.index.json"
      ])
      expect(model.info.key).toBe("llama/model.safetensors.index.json")
      expect(model.metadata).toEqual({ total_size: "6", of: "llama" })
      expect([...model.tensors.keys()]).toEqual(["__proto__", "b", "c"])
      expect([...model.files.keys()]).toEqual(Object.keys(shards).reverse())
      expect(model.tensors.get("b")?.key).toBe("llama/model-00002-of-00002.safetensors")
      expect((yield* model.load("c")).bytes).toEqual(new Uint8Array([3, 3]))
      expect((yield* model.loadSlice("b", 1, 2)).bytes).toEqual(new Uint8Array([2]))
      const many = yield* model.loadMany(["c", "__proto__", "b"])
      expect(many.map(({ bytes }) => bytes[0])).toEqual([3, 1, 2])
      expect((yield* all(model)).map(({ bytes }) => bytes[0])).toEqual([1, 2, 3])
      expect(yield* Effect.flip(model.load("unnamed"))).toMatchObject({ field: "name", key: model.info.key })
    }))

  it.effect("notices when a shard is overwritten", () =>
    Effect.gen(function*() {
      const { model: either, storage } = yield* sharded(index, shards)
      const model = yield* either
      yield* on(storage, Safetensors.save("llama/model-00001-of-00002.safetensors", []))
      expect((yield* model.load("b")).bytes).toEqual(new Uint8Array([2, 2]))
      expect(yield* Effect.flip(model.load("__proto__"))).toMatchObject({ _tag: "PreconditionFailed" })
      expect(yield* Effect.flip(model.loadMany(["b", "__proto__"]))).toMatchObject({ _tag: "PreconditionFailed" })
      expect(yield* Effect.flip(all(model))).toMatchObject({ _tag: "PreconditionFailed" })
    }))

  const weights = (map: string) => `{"weight_map":${map}}`
  const refused: ReadonlyArray<readonly [what: string, index: string, field: string, tensor?: string]> = [
    ["no JSON", "nothing", "index"],
    ["a list", "[]", "index"],
    ["what ends early", `{"weight_map":{}`, "index"],
    ["no weight_map", "{}", "weight_map"],
    ["a weight_map that is a list", weights("[]"), "weight_map"],
    ["a weight_map twice", `{"weight_map":{},"weight_map":{}}`, "index"],
    ["a file that is no string", weights(`{"a":1}`), "weight_map", "a"],
    ["a tensor twice", weights(`{"a":"x","a":"y"}`), "weight_map", "a"],
    ["a file outside of its folder", weights(`{"a":"../x"}`), "weight_map", "a"],
    ["a file outside of its folder, further on", weights(`{"a":"x/../../y"}`), "weight_map", "a"],
    ["a file at the root", weights(`{"a":"/x"}`), "weight_map", "a"],
    ["itself as a folder", weights(`{"a":"."}`), "weight_map", "a"],
    ["a file without a name", weights(`{"a":""}`), "weight_map", "a"],
    ["a file whose key is too long", weights(`{"a":"${"x".repeat(1022)}"}`), "weight_map", "a"],
    ["a tensor that its file lacks", weights(`{"z":"model-00002-of-00002.safetensors"}`), "weight_map", "z"]
  ]
  for (const [what, bad, field, tensor] of refused) {
    it.effect(`refuses an index that is or names ${what}`, () =>
      Effect.gen(function*() {
        const { calls, model } = yield* sharded(bad, shards)
        const failure = yield* Effect.flip(model)
        expect(failure).toMatchObject({
          _tag: "SafetensorsError",
          key: "llama/model.safetensors.index.json",
          field,
          ...(tensor !== undefined && { tensor })
        })
        expect(calls.length).toBe(what === "a tensor that its file lacks" ? 2 : 1)
      }))
  }

  it.effect("fails with that of a shard that is missing, or malformed", () =>
    Effect.gen(function*() {
      const { model: missing } = yield* sharded(weights(`{"a":"sub/x"}`), {})
      expect(yield* Effect.flip(missing)).toMatchObject({ _tag: "ObjectNotFound", key: "llama/sub/x" })
      const { model: malformed } = yield* sharded(weights(`{"a":"model.safetensors.index.json"}`), {})
      expect(yield* Effect.flip(malformed)).toMatchObject({ _tag: "SafetensorsError", field: "header size" })
    }))
})

describe("Safetensors.decode", () => {
  it("reads the tensors of a file that is in memory, and refuses what open refuses", () => {
    const tensors = Either.getOrThrow(Safetensors.decode(fixture("numpy"), "numpy"))
    expect(tensors.get("__proto__")?.values).toEqual(new Float64Array([1.5, -2.5]))
    expect(tensors.size).toBe(20)
    for (const [what, file, field] of malformed) {
      expect(Either.getLeft(Safetensors.decode(file, "k")).pipe(Option.getOrUndefined), what).toMatchObject({ field })
    }
  })
})

const ample = server.kind === "radosgw" && os.freemem() > 14 * 1024 ** 3
const needsRoom = ample ? "" : " (skipped: it needs radosgw and 14 GiB of free memory)"

/** 1,024 tensors of 5 MiB, of which the last has something at 100, and the rest takes no room on the disk. */
const sparseModel = (file: string) => {
  const size = 5 * 1024 * 1024
  const start = sparse(file, 1024, size)
  const descriptor = fs.openSync(file, "r+")
  fs.writeSync(descriptor, pattern(16), 0, 16, start + 1023 * size + 100)
  fs.closeSync(descriptor)
  return { size, start }
}

/** What it takes to read those of it that are not zero. */
const twoReads = (start: number, size: number, ifMatch: string): ReadonlyArray<Call> => {
  const range = ByteRange.make(start + 1023 * size + 100, start + 1023 * size + 116)
  return [
    { operation: "open", args: ["model", { range: ByteRange.make(0, 128 * 1024) }] },
    { operation: "load", args: ["model", { range, ifMatch }] }
  ]
}

describe("One tensor of many", () => {
  it.scoped("of a file of 5 GiB on a disk costs two small reads", () =>
    Effect.gen(function*() {
      const { directory, storage: inner } = yield* onDirectory
      const calls: Array<Call> = []
      const { size, start } = sparseModel(path.join(directory, "model"))
      const storage = noting(inner, calls)
      const file = yield* on(storage, Safetensors.open("model"))
      expect(file.info.size).toBe(start + 1024 * size)
      const rows = yield* file.loadSlice("t001023", 100, 116)
      expect(rows.bytes).toEqual(pattern(16))
      expect(calls).toEqual(twoReads(start, size, file.info.etag))
      const whole = yield* file.load("t001023")
      expect(whole.bytes.byteLength).toBe(size)
      expect(whole.bytes.subarray(100, 116)).toEqual(pattern(16))
      expect(calls.length).toBe(3)
    }))

  it.scoped("of a file in a bucket costs two small requests", () =>
    Effect.gen(function*() {
      const bucket = yield* makeBucket
      const inner = yield* S3Storage.make({ ...s3Options, bucket })
      const calls: Array<Call> = []
      const storage = noting(inner, calls)
      const tensors = tensorsOf(40, 256 * 1024)
      yield* on(storage, Safetensors.save("model", tensors))
      calls.length = 0
      const file = yield* on(storage, Safetensors.open("model"))
      expect(sameBytes((yield* file.load("t000017")).bytes, tensors[17]?.data)).toBe(true)
      expect(calls.map(({ operation }) => operation)).toEqual(["open", "load"])
      const [last, first] = yield* file.loadMany(["t000039", "t000000"])
      expect(sameBytes(last?.bytes, tensors[39]?.data) && sameBytes(first?.bytes, tensors[0]?.data)).toBe(true)
      expect((yield* all(file)).every(({ bytes }, i) => sameBytes(bytes, tensors[i]?.data))).toBe(true)
      yield* on(storage, Safetensors.save("model", []))
      expect(yield* Effect.flip(file.load("t000017"))).toMatchObject({ _tag: "PreconditionFailed" })
    }))

  it.scopedLive.skipIf(!ample)(
    `of a file of 5 GiB in a bucket costs two small requests${needsRoom}`,
    () =>
      Effect.gen(function*() {
        const { directory, storage: files } = yield* onDirectory
        const { size, start } = sparseModel(path.join(directory, "model"))
        const bucket = yield* makeBucket
        const inner = yield* S3Storage.make({ ...s3Options, bucket })
        yield* inner.save("model", files.stream("model"), { size: start + 1024 * size })
        const calls: Array<Call> = []
        const model = yield* on(noting(inner, calls), Safetensors.open("model"))
        expect(model.info.size).toBe(start + 1024 * size)
        expect((yield* model.loadSlice("t001023", 100, 116)).bytes).toEqual(pattern(16))
        expect(calls).toEqual(twoReads(start, size, model.info.etag))
        yield* inner.remove("model")
      }),
    240_000
  )

  it.scopedLive("of a file of 5 GiB behind a weight server costs two small requests", () =>
    Effect.gen(function*() {
      const { directory, storage: inner } = yield* onDirectory
      const { size, start } = sparseModel(path.join(directory, "model"))
      const asked: Array<Call> = []
      const { url } = yield* serveOf(noting(inner, asked))
      const storage = yield* Effect.provide(HttpStorage.make({ url }), nodeClient[1])
      asked.length = 0
      const model = yield* on(storage, Safetensors.open("model"))
      expect(model.info.size).toBe(start + 1024 * size)
      expect((yield* model.loadSlice("t001023", 100, 116)).bytes).toEqual(pattern(16))
      expect(asked.map(({ args: [key, options], operation }) => [operation, key, options])).toEqual([
        ["open", "model", expect.objectContaining({ range: ByteRange.make(0, 128 * 1024) })],
        [
          "open",
          "model",
          expect.objectContaining({
            range: ByteRange.make(start + 1023 * size + 100, start + 1023 * size + 116),
            ifMatch: model.info.etag
          })
        ]
      ])
      const [whole, first] = yield* model.loadMany(["t001023", "t000000"])
      expect(whole?.bytes.subarray(100, 116)).toEqual(pattern(16))
      expect(first?.bytes.byteLength).toBe(size)
    }))
})
