/**
 * Splits a model into its layers, runs a forward pass in which each layer loads while the previous one is in use, and
 * detects a damaged layer. The model is small and generated here, with the tensor names of BERT.
 */
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import { Console, Effect, Stream } from "effect"
import { deepStrictEqual, ok, strictEqual } from "node:assert/strict"
import { MemoryStorage, ModelChunks, Safetensors, Storage } from "surfing-weights"

const width = 64
const layers = 4

/** A matrix with the same content in every run. */
const matrix = (name: string, seed: number): Safetensors.TensorSource => ({
  name,
  dtype: "F32",
  shape: [width, width],
  data: Float32Array.from({ length: width * width }, (_, i) => Math.sin(i * 7.3 + seed))
})

const tensors = [
  matrix("bert.embeddings.word_embeddings.weight", 0),
  ...Array.from({ length: layers }, (_, i) => [
    matrix(`bert.encoder.layer.${i}.intermediate.dense.weight`, 2 * i + 1),
    matrix(`bert.encoder.layer.${i}.output.dense.weight`, 2 * i + 2)
  ]).flat(),
  matrix("bert.pooler.dense.weight", 99)
]

/** The state after one matrix: tanh(W x). */
const apply = (state: Float32Array, weights: Float32Array): Float32Array =>
  state.map((_, row) =>
    Math.tanh(state.reduce((sum, value, column) => sum + value * (weights[row * width + column] ?? 0), 0))
  )

const start: Float32Array = new Float32Array(width).fill(0.1)

const main = Effect.gen(function*() {
  yield* Safetensors.save("bert/model.safetensors", tensors, { metadata: { format: "pt" } })

  // #region split
  // One object for each layer, and a manifest. Bytes are streamed from the source into the chunks.
  const { chunks } = yield* ModelChunks.split({ source: "bert/model.safetensors", target: "bert/chunks" })
  // #endregion
  for (const { key, size, tensors = [] } of chunks) {
    yield* Console.log(`bert/chunks/${key}: ${size} bytes, ${tensors.length} tensors`)
  }

  // #region pass
  const model = yield* ModelChunks.open("bert/chunks")

  // While a layer is in use, the next two load. The SHA-256 of each is checked before it is emitted.
  const result = yield* model.stream({ prefetch: 2 }).pipe(
    Stream.runFoldEffect(start, (state, { bytes, chunk }) =>
      Effect.gen(function*() {
        const tensors = yield* Safetensors.decode(bytes, chunk.key)
        return [...tensors.values()].reduce((state, tensor) => apply(state, tensor.toFloat32()), state)
      }))
  )
  // #endregion

  const whole = yield* Safetensors.open("bert/model.safetensors")
  const expected = yield* Effect.reduce(
    tensors,
    start,
    (state, { name }) => Effect.map(whole.load(name), (tensor) => apply(state, tensor.toFloat32()))
  )
  deepStrictEqual(result, expected)
  yield* Console.log(`A pass over ${chunks.length} chunks has the same result as the whole model`)

  const damaged = yield* Storage.load("bert/chunks/layer_2.safetensors")
  damaged[5000] = (damaged[5000] ?? 0) ^ 1
  yield* Storage.save("bert/chunks/layer_2.safetensors", damaged)

  // #region damaged
  const outcome = yield* model.load("layer_2").pipe(
    Effect.as("intact"),
    Effect.catchTag("CorruptObject", ({ message }) => Effect.succeed(message))
  )

  // Reads all chunks again and reports progress. The stream fails at the end if any chunk is damaged.
  const verified = yield* ModelChunks.verify("bert/chunks").pipe(
    Stream.tap((event) => Console.log(`${event._tag} ${event.name}, ${event.verified} of ${event.total} bytes`)),
    Stream.runDrain,
    Effect.either
  )
  // #endregion
  yield* Console.log(`One bit flipped: ${outcome}`)

  strictEqual(verified._tag, "Left")
  ok(outcome.includes("chunk \"layer_2\" has the SHA-256"))
})

main.pipe(Effect.provide(MemoryStorage.layer()), NodeRuntime.runMain)
