/**
 * Saves, loads, streams, lists and removes objects. The program uses only the `Storage` service; the layer that it is run
 * with puts the bytes into files in a directory.
 */
import { FileSystem } from "@effect/platform"
import * as NodeFileSystem from "@effect/platform-node/NodeFileSystem"
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import { deepStrictEqual, strictEqual } from "node:assert/strict"
// #region imports
import { Console, Effect, Stream } from "effect"
import { ByteRange, FileSystemStorage, Storage } from "surfing-weights"
// #endregion

// 16 chunks of 1 MiB, as from a download.
const download = Stream.range(0, 15).pipe(Stream.map((i) => new Uint8Array(1024 * 1024).fill(i)))

// #region program
const program = Effect.gen(function*() {
  // Bytes, or a stream of bytes of any length. No reader ever sees part of a save.
  yield* Storage.save("bert/config.json", new TextEncoder().encode(`{ "layers": 1 }`))
  const saved = yield* Storage.save("bert/layer_0.bin", download)

  // The whole object in one array, or a range of it.
  const config = yield* Storage.load("bert/config.json")
  const trailer = yield* Storage.load("bert/layer_0.bin", { range: ByteRange.last(16) })

  // A chunk at a time, for objects of any size.
  const size = yield* Stream.runFold(Storage.stream("bert/layer_0.bin"), 0, (sum, chunk) => sum + chunk.byteLength)

  // The keys that start with a string, in byte order.
  const keys = yield* Storage.list("bert/layer_")

  // Only if the object has not changed since; otherwise this fails with PreconditionFailed.
  yield* Storage.save("bert/layer_0.bin", new Uint8Array(16), { ifMatch: saved.etag })

  yield* Storage.remove("bert/config.json")
  return { config, trailer, size, keys, remaining: yield* Storage.list() }
})
// #endregion

const main = Effect.gen(function*() {
  const fs = yield* FileSystem.FileSystem
  const directory = yield* fs.makeTempDirectoryScoped({ prefix: "surfing-weights-" })

  // #region layer
  const result = yield* program.pipe(Effect.provide(FileSystemStorage.layer({ directory })))
  // #endregion

  strictEqual(new TextDecoder().decode(result.config), `{ "layers": 1 }`)
  deepStrictEqual(result.trailer, new Uint8Array(16).fill(15))
  strictEqual(result.size, 16 * 1024 * 1024)
  deepStrictEqual(result.keys, ["bert/layer_0.bin"])
  deepStrictEqual(result.remaining, ["bert/layer_0.bin"])
  yield* Console.log(`Streamed ${result.size} bytes of ${result.keys.join()} and removed config.json`)
  yield* Console.log(`On disk now: ${(yield* fs.readDirectory(`${directory}/bert`)).join()}`)
})

main.pipe(Effect.scoped, Effect.provide(NodeFileSystem.layer), NodeRuntime.runMain)
