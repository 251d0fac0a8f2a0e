/**
 * Safetensors files for tests.
 */
import { expect } from "@effect/vitest"
import { Cause, Chunk, Effect, Exit, FastCheck, Option, Stream } from "effect"
import * as fs from "node:fs"
import * as path from "node:path"
import { FileSystemStorage, MemoryStorage, Safetensors, Storage } from "surfing-weights"
import { temporaryDirectory } from "./directory.js"
import { pattern } from "./intercepting.js"

/** A file that the reference implementation wrote (see `safetensors/make.py`). */
export const fixture = (name: string): Uint8Array =>
  new Uint8Array(fs.readFileSync(path.join(import.meta.dirname, "safetensors", `${name}.safetensors`)))

export const text = (value: string) => new TextEncoder().encode(value)

/** A file with this header and this data, or that many bytes of it. */
export const fileOf = (header: string | Uint8Array, data: number | Uint8Array = 0): Uint8Array => {
  const json = typeof header === "string" ? text(header) : header
  const bytes = typeof data === "number" ? pattern(data) : data
  const file = new Uint8Array(8 + json.length + bytes.length)
  new DataView(file.buffer).setBigUint64(0, BigInt(json.length), true)
  file.set(json, 8)
  file.set(bytes, 8 + json.length)
  return file
}

/** A file that claims a header of this length. */
export const withLength = (length: bigint, rest = 16) => {
  const file = new Uint8Array(8 + rest).fill(0x20)
  new DataView(file.buffer).setBigUint64(0, length, true)
  return file
}

export const on = <A, E, R>(storage: Storage.Service, effect: Effect.Effect<A, E, R>) =>
  Effect.provideService(effect, Storage.Storage, storage)

/** A storage in memory with one object, `model`. */
export const memoryWith = (bytes: Uint8Array) =>
  Effect.tap(MemoryStorage.make(), (storage) => storage.save("model", bytes))

export const opened = (bytes: Uint8Array) =>
  Effect.flatMap(memoryWith(bytes), (storage) => on(storage, Safetensors.open("model")))

/** The tensors of a stream. */
export const all = (file: Safetensors.SafetensorsFile, ...args: Parameters<Safetensors.SafetensorsFile["stream"]>) =>
  Effect.map(Stream.runCollect(file.stream(...args)), Chunk.toReadonlyArray)

/** Faster than `toEqual` for many. */
export const sameBytes = (a: unknown, b: unknown) =>
  a instanceof Uint8Array && b instanceof Uint8Array && Buffer.compare(a, b) === 0

export const names = (tensors: Iterable<{ readonly name: string }>) => Array.from(tensors, ({ name }) => name)

/** A storage on a directory of its own, and that directory. */
export const onDirectory = Effect.flatMap(
  temporaryDirectory,
  (directory) =>
    Effect.map(FileSystemStorage.make({ directory, durability: "relaxed" }), (storage) => ({ storage, directory }))
)

/** Tensors of bytes, each with other content. */
export const tensorsOf = (count: number, size: number): ReadonlyArray<Safetensors.TensorSource> =>
  Array.from({ length: count }, (_, i) => ({
    name: `t${String(i).padStart(6, "0")}`,
    dtype: "U8",
    shape: [size],
    data: pattern(size + i).subarray(i)
  }))

/** Writes a sparse file of tensors of one size, of which only the header is on the disk. */
export const sparse = (file: string, count: number, size: number): number => {
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

// Once: each has a table of all characters.
const anyString = FastCheck.string({ unit: "binary" })

const shape = FastCheck.array(FastCheck.nat(4), { maxLength: 4 })
const sizes = { F4: 4, F6_E2M3: 6, F6_E3M2: 6, BF16: 16, I32: 32, C64: 64, U64: 64, F32: 32, BOOL: 8, F8_E4M3FNUZ: 8 }
const tensor = FastCheck.record({
  name: FastCheck.oneof(
    anyString,
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
  metadata: FastCheck.dictionary(anyString, anyString, {
    maxKeys: 3
  })
})

/** Saves, opens and reads random tensors. */
export const roundTrips = (
  make: Effect.Effect<Storage.Service, unknown>,
  numRuns: number,
  options: Safetensors.SaveOptions = {}
) =>
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
          const info = yield* on(storage, Safetensors.save("a/model", sources, { ...options, metadata }))
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

/** Opens files with some bytes changed at random: each opens, or fails with a `SafetensorsError`. */
export const survivesMutations = (numRuns: number) =>
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
      { numRuns }
    )
  )
