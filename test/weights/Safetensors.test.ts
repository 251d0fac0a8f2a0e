/**
 * Safetensors files, compared with files of the reference implementation (see `test/support/safetensors/make.py`) and with
 * another reader.
 */
import { describe, expect, it } from "@effect/vitest"
import { safetensors as loaders } from "@jax-js/loaders"
import { Effect, Either, Fiber, Option, Stream } from "effect"
import * as fs from "node:fs"
import * as path from "node:path"
import { ByteRange, MemoryStorage, Safetensors, type Storage } from "surfing-weights"
import { type Call, intercepting, noting, pattern } from "../support/intercepting.js"
import {
  all,
  fileOf,
  fixture,
  memoryWith,
  names,
  on,
  onDirectory,
  opened,
  roundTrips,
  survivesMutations,
  tensorsOf,
  text,
  withLength
} from "../support/safetensorsFiles.js"

const bits = (floats: Float32Array) =>
  // All NaNs are alike.
  Array.from(floats, (value, i) => Number.isNaN(value) ? "NaN" : new Uint32Array(floats.buffer, floats.byteOffset)[i])

describe("Safetensors reads files of the reference implementation", () => {
  it.effect("with every dtype of numpy, scalars, empty tensors, and names that are hard on JavaScript", () =>
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
    it.effect(`with ${dtype}, converted to the 32-bit floats of ml_dtypes`, () =>
      Effect.gen(function*() {
        const file = yield* opened(fixture("floats"))
        const [tensor, worth] = yield* Effect.all([file.load(dtype), file.load(`${dtype} worth`)])
        expect(tensor).toMatchObject({ dtype, values: undefined })
        expect(bits(tensor.toFloat32())).toEqual(bits(worth.toFloat32()))
        expect(new Set(bits(worth.toFloat32())).size).toBeGreaterThan(15)
      }))
  }

  for (const dtype of ["F6_E2M3", "F6_E3M2"] satisfies Array<Safetensors.Dtype>) {
    it.effect(`and converts ${dtype}, which it does not write, to the 32-bit floats of ml_dtypes`, () =>
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

  it.effect("without tensors", () =>
    Effect.gen(function*() {
      const file = yield* opened(fixture("empty"))
      expect(file.metadata).toEqual({ format: "pt" })
      expect(yield* all(file)).toEqual([])
    }))
})

describe("Safetensors.save", () => {
  for (const name of ["floats", "empty"]) {
    it.effect(`writes the same bytes as the reference implementation: ${name}`, () =>
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

  it.effect("writes files that another implementation reads", () =>
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

  it.effect("accepts the bits of 16-bit floats in a Uint16Array", () =>
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

  it.effect("accepts a stream of tensors, and announces the size before the first byte", () =>
    Effect.gen(function*() {
      const calls: Array<Call> = []
      const storage = noting(yield* MemoryStorage.make(), calls)
      const { size } = yield* on(storage, Safetensors.save("model", Stream.fromIterable(tensorsOf(3, 5))))
      expect(calls).toMatchObject([{ operation: "save", args: ["model", {}, { size }] }])
      const file = yield* on(storage, Safetensors.open("model"))
      expect(names(yield* all(file))).toEqual(["t000000", "t000001", "t000002"])
      expect([...file.tensors.values()][0]?.range.start ?? 1).toSatisfy((start: number) => start % 8 === 0)
    }))

  it.effect("passes on conditions and the failures of streams, and saves all or nothing", () =>
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

  const rejected: ReadonlyArray<
    readonly [what: string, field: Safetensors.SafetensorsError["field"], Partial<Safetensors.TensorSource>]
  > = [
    ["a duplicate name", "name", { name: "first" }],
    ["the name of the metadata", "name", { name: "__metadata__" }],
    ["a name with a lone surrogate", "name", { name: "\ud800" }],
    ["a shape with a fraction", "shape", { shape: [0.5, 4] }],
    ["a negative length", "shape", { shape: [-2] }],
    ["too many elements", "shape", { shape: [2 ** 40, 2 ** 40] }],
    ["elements that do not fill whole bytes", "shape", { dtype: "F4", shape: [3] }],
    ["too few bytes", "data", { data: pattern(1) }],
    ["too many bytes", "data", { data: pattern(3) }],
    ["an array of another element type", "data", { dtype: "F32", shape: [1], data: new Int32Array(1) }]
  ]
  for (const [what, field, source] of rejected) {
    it.effect(`rejects ${what}`, () =>
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

  it.effect("rejects metadata with lone surrogates", () =>
    Effect.gen(function*() {
      for (const metadata of [{ "\udc00": "" }, { a: "\ud800" }]) {
        const failure = yield* Effect.flip(Safetensors.save("model", [], { metadata }))
        expect(failure).toMatchObject({ field: "__metadata__" })
      }
    }).pipe(Effect.provide(MemoryStorage.layer())))
})

// The reference implementation (0.8.0) rejects these, as was tried, except for those that are marked.
const F32 = `"dtype":"F32","shape":[1],"data_offsets":[0,4]`
const tensorWith = (dtype: string, shape: string, offsets: string) =>
  `{"a":{"dtype":${dtype},"shape":${shape},"data_offsets":${offsets}}}`
/** Each with the field of the error, and whether the reference implementation reads it nevertheless. */
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
  ["a header length with the highest bit set", withLength(2n ** 63n + 2n), "header size"],
  ["the largest header length", withLength(2n ** 64n - 1n), "header size"],
  ["an empty header", withLength(0n, 0), "header"],
  ["invalid UTF-8", fileOf(new Uint8Array([0x7b, 0x22, 0xff, 0x22, 0x7d])), "header"],
  ["a byte order mark", fileOf("\ufeff{}"), "header"],
  ["leading white space", fileOf(" {}"), "header", "read by the reference"],
  ["invalid JSON", fileOf("{nothing}"), "header"],
  ["truncated JSON", fileOf(`{"a":{"dtype":"F32"`), "header"],
  ["an array", fileOf("[]"), "header"],
  ["a string", fileOf(`"{}"`), "header"],
  ["a trailing comma", fileOf(`{"a":{${F32}},}`, 4), "header"],
  ["a missing comma", fileOf(`{"a":{${F32}}"b":{}}`, 4), "header"],
  ["a second object", fileOf(`{"a":{${F32}}}{}`, 4), "header"],
  ["NUL as padding", fileOf(`{"a":{${F32}}}\0\0`, 4), "header"],
  ["a control character in a name", fileOf(`{"a\n":{${F32}}}`, 4), "header"],
  ["an invalid escape", fileOf(`{"\\x":{${F32}}}`, 4), "header"],
  ["a lone surrogate in a name", fileOf(`{"\\ud800":{${F32}}}`, 4), "header"],
  ["a duplicate name", fileOf(`{"a":{${F32}},"a":{${F32}}}`, 4), "name", "read by the reference"],
  [
    "a duplicate name, once with an escape",
    fileOf(`{"a":{${F32}},"\\u0061":{${F32}}}`, 4),
    "name",
    "read by the reference"
  ],
  ["a tensor that is a number", fileOf(`{"a":1}`), "header"],
  ["a tensor that is an array", fileOf(`{"a":["F32",[1],[0,4]]}`, 4), "header", "read by the reference"],
  ["too deep nesting", fileOf(`{"a":{"x":${"[".repeat(130)}${"]".repeat(130)},${F32}}}`, 4), "header"],
  ["an unknown field that is invalid JSON", fileOf(`{"a":{"x":tru,${F32}}}`, 4), "header"],
  ["an unknown field that is too large", fileOf(`{"a":{"x":[-1e999],${F32}}}`, 4), "header"],
  ["leading line ends", fileOf(`\r\n{"a":{${F32}}}`, 4), "header", "read by the reference"],
  [
    "a product of lengths beyond 2^53 before one of them is 0",
    fileOf(tensorWith(`"F32"`, "[4503599627370496,4,0]", "[0,0]")),
    "shape",
    "read by the reference"
  ],
  ["an unknown field without a value", fileOf(`{"a":{"x":,${F32}}}`, 4), "header"],
  ["a missing dtype", fileOf(`{"a":{"shape":[1],"data_offsets":[0,4]}}`, 4), "dtype"],
  ["a missing shape", fileOf(`{"a":{"dtype":"F32","data_offsets":[0,4]}}`, 4), "shape"],
  ["missing offsets", fileOf(`{"a":{"dtype":"F32","shape":[1]}}`, 4), "data_offsets"],
  ["a duplicate field", fileOf(`{"a":{${F32},"dtype":"F32"}}`, 4), "dtype"],
  ["a dtype that is a number", fileOf(tensorWith("32", "[1]", "[0,4]"), 4), "dtype"],
  ["an unknown dtype", fileOf(tensorWith(`"F33"`, "[1]", "[0,4]"), 4), "dtype"],
  ["a lower-case dtype", fileOf(tensorWith(`"f32"`, "[1]", "[0,4]"), 4), "dtype"],
  ["a dtype that is a property of every object", fileOf(tensorWith(`"constructor"`, "[1]", "[0,4]"), 4), "dtype"],
  ["a shape that is a number", fileOf(tensorWith(`"F32"`, "1", "[0,4]"), 4), "shape"],
  ["a negative length", fileOf(tensorWith(`"F32"`, "[-1]", "[0,4]"), 4), "shape"],
  ["a fractional length", fileOf(tensorWith(`"F32"`, "[0.5,2]", "[0,4]"), 4), "shape"],
  ["a length written as a fraction", fileOf(tensorWith(`"F32"`, "[1.0]", "[0,4]"), 4), "shape"],
  ["a length with an exponent", fileOf(tensorWith(`"F32"`, "[1e0]", "[0,4]"), 4), "shape"],
  ["a length with a leading zero", fileOf(tensorWith(`"F32"`, "[01]", "[0,4]"), 4), "shape"],
  ["a length that is null", fileOf(tensorWith(`"F32"`, "[null]", "[0,4]"), 4), "shape"],
  ["a missing comma between lengths", fileOf(tensorWith(`"F32"`, "[1 1]", "[0,4]"), 4), "shape"],
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
    "elements that overflow in bits",
    fileOf(tensorWith(`"F64"`, "[2305843009213693952]", "[0,4]"), 4),
    "shape"
  ],
  ["elements that do not fill whole bytes", fileOf(tensorWith(`"F4"`, "[3]", "[0,2]"), 2), "shape"],
  ["three offsets", fileOf(tensorWith(`"F32"`, "[1]", "[0,4,4]"), 4), "data_offsets"],
  ["one offset", fileOf(tensorWith(`"F32"`, "[1]", "[4]"), 4), "data_offsets"],
  ["a negative offset", fileOf(tensorWith(`"F32"`, "[1]", "[-4,0]"), 4), "data_offsets"],
  ["an offset of minus zero", fileOf(tensorWith(`"F32"`, "[1]", "[-0,4]"), 4), "data_offsets"],
  ["an offset written as a fraction", fileOf(tensorWith(`"F32"`, "[1]", "[0,4.0]"), 4), "data_offsets"],
  [
    "an offset beyond 2^53",
    fileOf(tensorWith(`"U8"`, "[1]", "[9007199254740992,9007199254740993]"), 1),
    "data_offsets"
  ],
  ["an offset beyond 64 bits", fileOf(tensorWith(`"U8"`, "[1]", "[0,18446744073709551617]"), 1), "data_offsets"],
  ["an end before the start", fileOf(tensorWith(`"F32"`, "[1]", "[4,0]"), 4), "data_offsets"],
  ["fewer bytes than dtype and shape take", fileOf(tensorWith(`"F32"`, "[2]", "[0,4]"), 4), "data_offsets"],
  ["more bytes than dtype and shape take", fileOf(tensorWith(`"F32"`, "[1]", "[0,8]"), 8), "data_offsets"],
  ["a tensor that ends past the file", fileOf(tensorWith(`"F32"`, "[1]", "[0,4]"), 3), "data_offsets"],
  ["a gap at the start", fileOf(tensorWith(`"F32"`, "[1]", "[4,8]"), 8), "data_offsets"],
  [
    "a gap between two tensors",
    fileOf(`{"a":{${F32}},"b":{"dtype":"F32","shape":[1],"data_offsets":[8,12]}}`, 12),
    "data_offsets"
  ],
  [
    "two overlapping tensors",
    fileOf(`{"a":{${F32}},"b":{"dtype":"F32","shape":[1],"data_offsets":[2,6]}}`, 6),
    "data_offsets"
  ],
  ["two tensors of the same bytes", fileOf(`{"a":{${F32}},"b":{${F32}}}`, 4), "data_offsets"],
  [
    "an empty tensor within another",
    fileOf(`{"a":{${F32}},"b":{"dtype":"F32","shape":[0],"data_offsets":[2,2]}}`, 4),
    "data_offsets"
  ],
  ["bytes after the last tensor", fileOf(`{"a":{${F32}}}`, 5), "data"],
  ["bytes without a tensor", fileOf("{}", 1), "data"],
  ["metadata that is an array", fileOf(`{"__metadata__":[],"a":{${F32}}}`, 4), "__metadata__"],
  ["a number in the metadata", fileOf(`{"__metadata__":{"x":1},"a":{${F32}}}`, 4), "__metadata__"],
  ["null in the metadata", fileOf(`{"__metadata__":{"x":null},"a":{${F32}}}`, 4), "__metadata__"],
  ["an object in the metadata", fileOf(`{"__metadata__":{"x":{}},"a":{${F32}}}`, 4), "__metadata__"],
  ["duplicate metadata", fileOf(`{"__metadata__":{},"__metadata__":{},"a":{${F32}}}`, 4), "__metadata__"],
  [
    "a duplicate key in the metadata",
    fileOf(`{"__metadata__":{"x":"","x":""}}`),
    "__metadata__",
    "read by the reference"
  ]
]

describe("Safetensors.open rejects", () => {
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

  it.effect("integers that are not plain digits, with the position", () =>
    Effect.gen(function*() {
      for (const length of ["1.0", "1e0", "-0"]) {
        const failure = yield* Effect.flip(opened(fileOf(tensorWith(`"F32"`, `[${length}]`, "[0,4]"), 4)))
        expect(failure.message).toMatch(/expected a whole number of at least 0 in plain digits at character \d+$/)
      }
    }))

  it.scoped("a header over 100 MB in a longer file, after one read", () =>
    Effect.gen(function*() {
      const { directory, storage: inner } = yield* onDirectory
      const calls: Array<Call> = []
      fs.writeFileSync(path.join(directory, "model"), withLength(100_000_001n))
      fs.truncateSync(path.join(directory, "model"), 200_000_000)
      const failure = yield* on(noting(inner, calls), Effect.flip(Safetensors.open("model")))
      expect(failure).toMatchObject({ _tag: "SafetensorsError", field: "header size" })
      expect(calls.length).toBe(1)
    }))

  it.effect("or opens random mutations of a valid file, without defects", () => survivesMutations(100))
})

describe("Safetensors.open accepts", () => {
  const readable: ReadonlyArray<readonly [what: string, file: Uint8Array]> = [
    [
      "white space wherever JSON allows it",
      fileOf(`{ "a" :\t{\n"dtype" : "F32" , "shape" : [ 1 ] ,\r"data_offsets":[ 0 , 4 ] } } \n`, 4)
    ],
    [
      "fields in any order, and unknown fields",
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

  it.effect("tensors that the header lists out of order, and empty ones at the same offset", () =>
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

  it.effect("unaligned data", () =>
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

describe("Safetensors round trip", () => {
  it.effect("returns random tensors as they were saved", () => roundTrips(MemoryStorage.make(), 40))
})

describe("SafetensorsFile", () => {
  it.effect("takes one request for a small header and one for each tensor, conditional on its etag", () =>
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

  it.effect("reads the rest of a long header conditional on the etag of the first read", () =>
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

  it.effect("fails with PreconditionFailed after the file was overwritten", () =>
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

  it.effect("is not opened if the file is overwritten between the two reads of its header", () =>
    Effect.gen(function*() {
      const inner = yield* MemoryStorage.make()
      const save = on(inner, Safetensors.save("model", tensorsOf(3000, 1)))
      yield* save
      const storage = intercepting(inner, {
        around: (effect, { operation }) => operation === "load" ? Effect.zipRight(Effect.orDie(save), effect) : effect
      })
      expect(yield* Effect.flip(on(storage, Safetensors.open("model")))).toMatchObject({ _tag: "PreconditionFailed" })
    }))

  it.effect("fails with a SafetensorsError for an unknown tensor", () =>
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

  it.effect("fails with ObjectNotFound if the file is missing", () =>
    Effect.gen(function*() {
      const failure = yield* on(yield* MemoryStorage.make(), Effect.flip(Safetensors.open("model")))
      expect(failure).toMatchObject({ _tag: "ObjectNotFound", key: "model" })
    }))
})

describe("SafetensorsFile.loadMany", () => {
  it.effect("returns tensors in the order of the names, each in its own array, also if a name repeats", () =>
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
})

/** Tensors of zeros. */
const zeros = (count: number, size: number): ReadonlyArray<Safetensors.TensorSource> => {
  const data = new Uint8Array(size)
  return Array.from({ length: count }, (_, i) => ({ name: `t${10 + i}`, dtype: "U8", shape: [size], data }))
}

describe("SafetensorsFile.loadSlice", () => {
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

  it.effect("returns rows of a matrix", () =>
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

  const rejected: ReadonlyArray<readonly [what: string, name: string, start: number, end: number]> = [
    ["past the end", "matrix", 0, 5],
    ["with its end before its start", "matrix", 2, 1],
    ["with a negative start", "matrix", -1, 1],
    ["with a fraction", "matrix", 0, 1.5],
    ["with NaN", "matrix", NaN, 1],
    ["of a scalar", "scalar", 0, 1],
    ["that starts within a byte", "nibbles", 1, 4],
    ["that ends within a byte", "nibbles", 0, 3]
  ]
  for (const [what, name, start, end] of rejected) {
    it.effect(`rejects a slice ${what}`, () =>
      Effect.gen(function*() {
        const failure = yield* Effect.flatMap(slices, (file) => Effect.flip(file.loadSlice(name, start, end)))
        expect(failure).toMatchObject({ _tag: "SafetensorsError", field: "slice", tensor: name })
      }))
  }
})

describe("SafetensorsFile.stream", () => {
  const MiB = 1024 * 1024

  it.effect("emits selected tensors in the order of the file, each once", () =>
    Effect.gen(function*() {
      const storage = yield* MemoryStorage.make()
      yield* on(storage, Safetensors.save("model", tensorsOf(5, 8)))
      const file = yield* on(storage, Safetensors.open("model"))
      const some = yield* all(file, ["t000004", "t000001", "t000004"])
      expect(names(some)).toEqual(["t000001", "t000004"])
      expect(some.map(({ bytes }) => bytes)).toEqual([1, 4].map((i) => pattern(8 + i).subarray(i)))
      expect(yield* all(file, [])).toEqual([])
    }))

  it.effect("reads neighbours together up to 4 MiB, larger tensors alone, and none that were not selected", () =>
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
    it.effect(`starts at most ${prefetch} reads ahead of the consumer with prefetch ${prefetch}`, () =>
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
    it.effect(`rejects a prefetch of ${prefetch}`, () =>
      Effect.gen(function*() {
        const file = yield* opened(fixture("empty"))
        const failure = yield* Effect.flip(all(file, undefined, { prefetch }))
        expect(failure).toMatchObject({ _tag: "UnsupportedOperation", key: "model" })
        expect(failure.message).toContain(`prefetch must be a whole number of at least 0 (got ${prefetch})`)
      }))
  }

  /** Four tensors that are read one by one. The first read ends, the others never do. */
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

  it.effect("interrupts the reads in progress when its consumer stops", () =>
    Effect.gen(function*() {
      const { file, seen } = yield* stuck
      const first = Stream.tap(file.stream(), () => Effect.repeatN(Effect.yieldNow(), 100))
      expect(names(yield* Stream.runCollect(Stream.take(first, 1)))).toEqual(["t10"])
      expect(seen).toEqual({ begun: 3, interrupted: 2 })
    }))

  it.effect("interrupts the reads in progress when its consumer is interrupted", () =>
    Effect.gen(function*() {
      const { file, seen } = yield* stuck
      const fiber = yield* Effect.fork(all(file))
      yield* Effect.repeatN(Effect.yieldNow(), 1000)
      expect(seen).toEqual({ begun: 3, interrupted: 0 })
      yield* Fiber.interrupt(fiber)
      expect(seen).toEqual({ begun: 3, interrupted: 2 })
    }))

  it.effect("fails with the failure of a read", () =>
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

  it.effect("opens one model from several files", () =>
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

  it.effect("fails with PreconditionFailed after a shard was overwritten", () =>
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
  const rejected: ReadonlyArray<readonly [what: string, index: string, field: string, tensor?: string]> = [
    ["invalid JSON", "nothing", "index"],
    ["an array", "[]", "index"],
    ["truncated JSON", `{"weight_map":{}`, "index"],
    ["without a weight_map", "{}", "weight_map"],
    ["with a weight_map that is an array", weights("[]"), "weight_map"],
    ["with a duplicate weight_map", `{"weight_map":{},"weight_map":{}}`, "index"],
    ["with a file that is a number", weights(`{"a":1}`), "weight_map", "a"],
    ["with a duplicate tensor", weights(`{"a":"x","a":"y"}`), "weight_map", "a"],
    ["with a file outside of its folder", weights(`{"a":"../x"}`), "weight_map", "a"],
    ["with a file outside of its folder further on", weights(`{"a":"x/../../y"}`), "weight_map", "a"],
    ["with an absolute path", weights(`{"a":"/x"}`), "weight_map", "a"],
    ["with a file `.`", weights(`{"a":"."}`), "weight_map", "a"],
    ["with an empty file name", weights(`{"a":""}`), "weight_map", "a"],
    ["with a file whose key is too long", weights(`{"a":"${"x".repeat(1022)}"}`), "weight_map", "a"],
    [
      "with a tensor that its file does not have",
      weights(`{"z":"model-00002-of-00002.safetensors"}`),
      "weight_map",
      "z"
    ]
  ]
  for (const [what, bad, field, tensor] of rejected) {
    it.effect(`rejects an index: ${what}`, () =>
      Effect.gen(function*() {
        const { calls, model } = yield* sharded(bad, shards)
        const failure = yield* Effect.flip(model)
        expect(failure).toMatchObject({
          _tag: "SafetensorsError",
          key: "llama/model.safetensors.index.json",
          field,
          ...(tensor !== undefined && { tensor })
        })
        expect(calls.length).toBe(what === "with a tensor that its file does not have" ? 2 : 1)
      }))
  }

  it.effect("fails with the failure of a missing or invalid shard", () =>
    Effect.gen(function*() {
      const { model: missing } = yield* sharded(weights(`{"a":"sub/x"}`), {})
      expect(yield* Effect.flip(missing)).toMatchObject({ _tag: "ObjectNotFound", key: "llama/sub/x" })
      const { model: malformed } = yield* sharded(weights(`{"a":"model.safetensors.index.json"}`), {})
      expect(yield* Effect.flip(malformed)).toMatchObject({ _tag: "SafetensorsError", field: "header size" })
    }))
})

describe("Safetensors.decode", () => {
  it("returns the tensors of a file in memory, and rejects what open rejects", () => {
    const tensors = Either.getOrThrow(Safetensors.decode(fixture("numpy"), "numpy"))
    expect(tensors.get("__proto__")?.values).toEqual(new Float64Array([1.5, -2.5]))
    expect(tensors.size).toBe(20)
    for (const [what, file, field] of malformed) {
      expect(Either.getLeft(Safetensors.decode(file, "k")).pipe(Option.getOrUndefined), what).toMatchObject({ field })
    }
  })

  it("returns views of the file, and copies of shared memory", () => {
    const file = fixture("numpy")
    const shared = new Uint8Array(new SharedArrayBuffer(file.byteLength))
    shared.set(file)
    for (const [bytes, isView] of [[file, true], [shared, false]] as const) {
      for (const tensor of Either.getOrThrow(Safetensors.decode(bytes, "numpy")).values()) {
        const owned: Uint8Array<ArrayBuffer> = tensor.bytes
        expect(owned.buffer).toBeInstanceOf(ArrayBuffer)
        expect(owned.buffer === bytes.buffer).toBe(isView)
        expect(tensor.bytes).toEqual(file.slice(tensor.range.start, tensor.range.endExclusive))
      }
    }
  })
})
