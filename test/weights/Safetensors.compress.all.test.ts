/**
 * Compressed safetensors files: the weights of a real model, and many damaged files.
 */
import { describe, expect, it } from "@effect/vitest"
import { Effect } from "effect"
import { MemoryStorage, Safetensors } from "surfing-weights"
import { hasSameTensors, mutations } from "../support/compressedFiles.js"
import { floatTypes, normal, sentenceEncoder, tensorsAs } from "../support/realWeights.js"
import { on } from "../support/safetensorsFiles.js"

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
