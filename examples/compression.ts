/**
 * Weights in less space, without loss: a safetensors file that is saved compressed, a model in compressed chunks, and a storage that
 * compresses what is saved to it. compression.md describes the format.
 */
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import { Console, Effect, Layer, Stream } from "effect"
import { deepStrictEqual, ok } from "node:assert/strict"
import { MemoryStorage, ModelChunks, Safetensors, Storage, StorageCompression } from "surfing-weights"

/** Normally distributed, as most layers are. The upper half of a 32-bit float is a BF16. */
const weights = (count: number): Uint16Array => {
  const floats = Float32Array.from(
    { length: count },
    () => 0.02 * Math.sqrt(-2 * Math.log(1 - Math.random())) * Math.cos(2 * Math.PI * Math.random())
  )
  return Uint16Array.from(new Uint32Array(floats.buffer), (bits) => bits >>> 16)
}

const tensors: ReadonlyArray<Safetensors.TensorSource> = [
  { name: "embeddings.weight", dtype: "BF16", shape: [1000, 512], data: weights(1000 * 512) },
  { name: "layer.0.weight", dtype: "BF16", shape: [512, 512], data: weights(512 * 512) },
  { name: "layer.1.weight", dtype: "BF16", shape: [512, 512], data: weights(512 * 512) }
]

const percent = (part: number, whole: number) => `${(100 * part / whole).toFixed(1)} %`

const file = Effect.gen(function*() {
  const plain = yield* Safetensors.save("plain.safetensors", tensors)
  // #region save
  const saved = yield* Safetensors.save("model.safetensors", tensors, { compress: true })

  // Read like any other file: a row reads the blocks that it is in.
  const model = yield* Safetensors.open("model.safetensors")
  const row = yield* model.loadSlice("embeddings.weight", 700, 701)
  // #endregion
  const original = yield* Safetensors.open("plain.safetensors")
  deepStrictEqual(row.bytes, (yield* original.loadSlice("embeddings.weight", 700, 701)).bytes)
  ok(saved.size < 0.67 * plain.size)
  yield* Console.log(`Saved in ${percent(saved.size, plain.size)} of its size; a row of it: ${row.shape.join(" x ")}`)
})

const chunks = Effect.gen(function*() {
  // #region split
  yield* ModelChunks.split({ source: "plain.safetensors", target: "chunks", compress: true })
  const model = yield* ModelChunks.open("chunks")
  yield* model.stream({ prefetch: 2 }).pipe(
    Stream.runForEach(({ bytes, chunk }) =>
      Console.log(`${chunk.name}: ${bytes.byteLength} bytes, stored in ${chunk.size}`)
    )
  )
  // #endregion
})

/** Compresses what it saves to the storage below. */
const wrapper = Effect.gen(function*() {
  const bucket = yield* Storage.Storage
  const tokenizer = new TextEncoder().encode(JSON.stringify(Array.from({ length: 9000 }, (_, i) => [`token ${i}`, i])))

  const program = Effect.gen(function*() {
    yield* Storage.save("all.safetensors", yield* bucket.load("plain.safetensors"))
    yield* Storage.save("tokenizer.json", tokenizer)
    return yield* Storage.head("tokenizer.json")
  })
  // #region layer
  // Shards of any size pass through the scratch storage while they are compressed.
  const Compressed = StorageCompression.layer({ scratch: MemoryStorage.layer() })
  // #endregion
  const seen = yield* Effect.provide(program, Layer.provide(Compressed, Layer.succeed(Storage.Storage, bucket)))
  const stored = yield* bucket.head("tokenizer.json")
  deepStrictEqual(seen.size, tokenizer.byteLength)
  ok(stored.size < seen.size / 2)
  const [plain, all] = [yield* bucket.head("plain.safetensors"), yield* bucket.head("all.safetensors")]
  yield* Console.log(
    `Stored in ${percent(all.size, plain.size)} of its size, a tokenizer in ${percent(stored.size, seen.size)}`
  )
})

const program = Effect.all([file, chunks, wrapper], { discard: true })

NodeRuntime.runMain(program.pipe(Effect.provide(MemoryStorage.layer())))
