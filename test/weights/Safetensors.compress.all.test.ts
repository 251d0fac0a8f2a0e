/**
 * Compressed safetensors files: the weights of a real model, many damaged files, and another decoder.
 */
import { describe, expect, it } from "@effect/vitest"
import { Effect, Stream } from "effect"
import { spawnSync } from "node:child_process"
import { createHash } from "node:crypto"
import { readFileSync } from "node:fs"
import { join } from "node:path"
import { fileURLToPath } from "node:url"
import { MemoryStorage, Safetensors } from "surfing-weights"
import { hasSameTensors, mutations } from "../support/compressedFiles.js"
import { floatTypes, normal, randomBytes, sentenceEncoder, tensorsAs } from "../support/realWeights.js"
import { on, onDirectory, sameBytes } from "../support/safetensorsFiles.js"

describe("Safetensors.save with compress", () => {
  const most = { BF16: 0.667, F32: 0.834, F16: 0.85, F8_E4M3: 0.8205, F8_E5M2: 0.7 }
  for (const dtype of floatTypes) {
    it.effect(`stores the weights of a sentence encoder as ${dtype} in ${most[dtype]} of their size`, () =>
      Effect.gen(function*() {
        const storage = yield* MemoryStorage.make()
        const tensors = tensorsAs(dtype, sentenceEncoder())
        const plain = yield* on(storage, Safetensors.save("plain", tensors))
        const { size } = yield* on(storage, Safetensors.save("model", tensors, { compress: true }))
        expect(size / plain.size).toBeLessThanOrEqual(most[dtype])
        expect(size / plain.size).toBeGreaterThan(most[dtype] - 0.01)
        const file = yield* on(storage, Safetensors.open("model"))
        yield* hasSameTensors(file, yield* on(storage, Safetensors.open("plain")))
      }))
  }
})

describe("A compressed file that is damaged", () => {
  it.effect("never gives wrong bytes, in 10,000 files", () =>
    mutations([
      ...tensorsAs("F32", new Map([["first", { shape: [20, 30], values: normal(600) }]])),
      ...tensorsAs("F16", new Map([["half", { shape: [40, 30], values: normal(1200, 3) }]])),
      ...tensorsAs("F8_E5M2", new Map([["bytes", { shape: [1500], values: normal(1500) }]])),
      { name: "numbers", dtype: "I32", shape: [500], data: Int32Array.from({ length: 500 }, (_, i) => i) },
      { name: "scale", dtype: "F64", shape: [], data: new Float64Array([2]) }
    ], 10_000))
})

const guide = readFileSync(new URL("../../examples/compression.md", import.meta.url), "utf8")
const [, decoder = ""] = /^```python\n([^]*?)\n```$/m.exec(guide) ?? []
const python = process.env["NUMPY_PYTHON"] ?? "python3"
const hasNumpy = spawnSync(python, ["-c", "import numpy"]).status === 0

// Skipped without numpy, which `.ci/run` installs.
describe.skipIf(!hasNumpy)("The Python code of examples/compression.md", () => {
  it.scoped("reads every tensor of a compressed file as it was", () =>
    Effect.gen(function*() {
      const floats = new Map([["w", { shape: [700, 1000], values: normal(700_000) }]])
      const tensors: ReadonlyArray<Safetensors.TensorSource> = [
        ...floatTypes.flatMap((dtype) => tensorsAs(dtype, floats).map((tensor) => ({ ...tensor, name: dtype }))),
        { name: "double", dtype: "F64", shape: [300_000], data: Float64Array.from(normal(300_000)) },
        {
          name: "positions",
          dtype: "I64",
          shape: [1, 512],
          data: BigInt64Array.from({ length: 512 }, (_, i) => BigInt(i))
        },
        { name: "mask", dtype: "BOOL", shape: [600, 600], data: new Uint8Array(360_000).fill(1) },
        { name: "complex", dtype: "C64", shape: [9], data: new Float32Array(18).fill(2) },
        { name: "random", dtype: "U8", shape: [300_000], data: randomBytes(300_000) },
        { name: "scale", dtype: "F32", shape: [], data: new Float32Array([0.5]) }
      ]
      const { directory, storage } = yield* onDirectory
      yield* on(storage, Safetensors.save("model", tensors, { compress: true }))
      const file = yield* on(storage, Safetensors.open("model"))
      const program = `${decoder}

import sys, hashlib
file = open(sys.argv[1], "rb").read()
for name in sys.argv[2:]: print(name, hashlib.sha256(tensor(file, name)).hexdigest())
`
      const { status, stderr, stdout } = spawnSync(
        python,
        ["-", join(directory, "model"), ...file.tensors.keys()],
        { input: program, encoding: "utf8" }
      )
      expect(status, stderr).toBe(0)
      const expected = yield* Effect.forEach(file.tensors.keys(), (name) =>
        Effect.map(file.load(name), ({ bytes }) =>
          `${name} ${createHash("sha256").update(bytes).digest("hex")}`))
      expect(expected.length).toBe(tensors.length)
      expect(stdout.trim().split("\n")).toEqual(expected)
      // The tensors that `save` was given, too.
      for (const { data, name } of tensors) {
        if ("buffer" in data) {
          expect(sameBytes((yield* file.load(name)).bytes, new Uint8Array(data.buffer))).toBe(true)
        }
      }
    }))
})

const MiB = 1024 * 1024

/** 4 Mi normally distributed elements of 16 bits, 8 MiB. */
const piece = Effect.sync(() => {
  const [source] = tensorsAs("BF16", new Map([["w", { shape: [4 * MiB], values: normal(4 * MiB) }]]))
  return source !== undefined && "buffer" in source.data
    ? new Uint8Array(source.data.buffer)
    : new Uint8Array(0)
})

const readerProgram = fileURLToPath(new URL("../support/compressedReader.ts", import.meta.url))

describe("A compressed file of a large model", () => {
  it.scopedLive("takes no more memory than a part of it to be saved, sliced and streamed", () =>
    Effect.gen(function*() {
      const bytes = yield* piece
      const { directory, storage } = yield* onDirectory
      // 1.5 GiB, of which 256 MiB are kept while they are saved.
      const shape = [192, 4 * MiB]
      const data = Stream.map(Stream.range(1, 192), () => bytes)
      const before = process.memoryUsage.rss()
      let most = 0
      const watch = setInterval(() => {
        most = Math.max(most, process.memoryUsage.rss() - before)
      }, 10)
      yield* on(storage, Safetensors.save("model", [{ name: "w", dtype: "BF16", shape, data }], { compress: true }))
      clearInterval(watch)
      expect(most).toBeLessThan(512 * MiB)
      const file = yield* on(storage, Safetensors.open("model"))
      const row = yield* file.loadSlice("w", 150, 151)
      expect(sameBytes(row.bytes, bytes)).toBe(true)
      // This process keeps memory that it has freed, which would hide what reading takes.
      const reader = spawnSync(process.execPath, ["--import", "tsx", readerProgram, directory], { encoding: "utf8" })
      expect(reader.stderr).toBe("")
      const { memory, size } = JSON.parse(reader.stdout) as { readonly memory: number; readonly size: number }
      expect(size).toBeGreaterThan(1536 * MiB)
      expect(memory).toBeGreaterThan(0)
      expect(memory).toBeLessThan(256 * MiB)
    }))
})
