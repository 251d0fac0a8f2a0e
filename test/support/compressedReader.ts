/**
 * Reads the compressed file `model` of a directory in a process of its own, run as `tsx compressedReader.ts <directory>`, and prints
 * the size of what it streamed and how much memory that took at its peak, both in bytes.
 */
import { Effect, Stream } from "effect"
import * as fs from "node:fs"
import { FileSystemStorage, Safetensors, Storage, StorageCompression } from "surfing-weights"

const peak = (): number => 1024 * Number(/VmHWM:\s*(\d+) kB/.exec(fs.readFileSync("/proc/self/status", "utf8"))?.[1])

const read = Effect.gen(function*() {
  // What is loaded at its first use must be loaded before.
  const file = yield* Safetensors.open("model")
  yield* file.loadSlice("w", 0, 1)
  const before = process.memoryUsage.rss()
  const wrapper = yield* StorageCompression.make(yield* Storage.Storage)
  const size = yield* Stream.runFold(wrapper.stream("model"), 0, (sum, { byteLength }) => sum + byteLength)
  console.log(JSON.stringify({ size, memory: peak() - before }))
})

await Effect.runPromise(Effect.provide(read, FileSystemStorage.layer({ directory: process.argv[2] ?? "" })))
