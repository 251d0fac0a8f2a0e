/**
 * A model in a safetensors file: saved tensor by tensor, opened by its header alone, and read by tensor, by row and as a
 * stream.
 */
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import { Console, Effect, Stream } from "effect"
import { deepStrictEqual, strictEqual } from "node:assert/strict"
import { MemoryStorage, Safetensors, Storage } from "surfing-weights"

// 256 rows of 1,024 numbers; row 7 is all sevens. A stream, so that the rows need not be in memory together.
const embeddings = Stream.map(
  Stream.range(0, 255),
  (row) => new Uint8Array(new Float32Array(1024).fill(row).buffer)
)

const save = Effect.gen(function*() {
  // #region save
  const saved = yield* Safetensors.save("bert/model.safetensors", [
    { name: "embeddings.weight", dtype: "F32", shape: [256, 1024], data: embeddings },
    // The bits of 1 and -2, since JavaScript has no BF16.
    { name: "layer_0.bias", dtype: "BF16", shape: [2], data: new Uint16Array([0x3f80, 0xc000]) },
    { name: "position_ids", dtype: "I64", shape: [1, 2], data: new BigInt64Array([0n, 1n]) }
  ], { metadata: { format: "pt" }, ifNoneMatch: "*" })
  // #endregion
  return saved
})

const read = Effect.gen(function*() {
  // #region read
  // One request for the header, for a file of any size.
  const file = yield* Safetensors.open("bert/model.safetensors")
  for (const { dtype, name, shape } of file.tensors.values()) yield* Console.log(`${name}: ${dtype} [${shape.join()}]`)

  // One request for a tensor. `values` is a typed array if JavaScript has the type; `toFloat32` works for every type.
  const bias = yield* file.load("layer_0.bias")
  const floats = bias.toFloat32()

  // One request for some rows of a matrix.
  const rows = yield* file.loadSlice("embeddings.weight", 7, 9)

  // All tensors in the order of the file. Some are read ahead, and only a few are in memory at a time.
  const parameters = yield* Stream.runFold(
    file.stream(),
    0,
    (sum, tensor) => sum + tensor.shape.reduce((a, b) => a * b, 1)
  )
  // #endregion
  return { file, floats, rows, parameters }
})

const main = Effect.gen(function*() {
  const { size } = yield* save
  yield* Console.log(`Saved ${size} bytes`)

  const { file, floats, parameters, rows } = yield* read
  deepStrictEqual(file.metadata, { format: "pt" })
  deepStrictEqual(floats, new Float32Array([1, -2]))
  yield* Console.log(`layer_0.bias as floats: ${floats.join(", ")}`)

  deepStrictEqual(rows.shape, [2, 1024])
  deepStrictEqual(rows.values, new Float32Array(2048).fill(7, 0, 1024).fill(8, 1024))
  yield* Console.log(`Rows 7 and 8: ${rows.bytes.byteLength} bytes`)
  strictEqual(parameters, 256 * 1024 + 4)
  yield* Console.log(`Streamed ${parameters} parameters`)

  // An error names the invalid field, and the bytes after an invalid header are never read.
  yield* Storage.save("bad.safetensors", new TextEncoder().encode("\u0002\0\0\0\0\0\0\0{}trailing"))
  const problem = yield* Safetensors.open("bad.safetensors").pipe(
    Effect.as("none"),
    Effect.catchTag("SafetensorsError", ({ field, message }) => Effect.succeed(`${field}: ${message}`))
  )
  strictEqual(problem.split(":")[0], "data")
  yield* Console.log(`Rejected, ${problem}`)
})

main.pipe(Effect.provide(MemoryStorage.layer()), NodeRuntime.runMain)
