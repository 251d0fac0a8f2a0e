/**
 * A primary storage and a backup as one storage. `StorageChaos` takes the primary down and up again.
 */
import { FileSystem } from "@effect/platform"
import * as NodeFileSystem from "@effect/platform-node/NodeFileSystem"
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import { Console, Effect, Layer } from "effect"
import { deepStrictEqual, strictEqual } from "node:assert/strict"
import { FileSystemStorage, MemoryStorage, Storage, StorageChaos, StorageError, StorageFailover } from "surfing-weights"

let isDown = false
let refused = 0

/** In production, this would be a bucket. */
const Bucket = StorageChaos.layer([{
  key: () => isDown,
  times: Infinity,
  error: (struck) => {
    refused++
    return new StorageError.StorageUnavailable({ ...struck, reason: "the network is down" })
  }
}]).pipe(Layer.provide(MemoryStorage.layer()))

// #region failover
/** Writes to the bucket and the disk; reads from the bucket, and while it is down from the disk. */
const bucketAndDisk = (directory: string) =>
  StorageFailover.layer([Bucket, FileSystemStorage.layer({ directory })], {
    writes: "all",
    // After three failures in a row, the bucket is not used for a second.
    failureThreshold: 3,
    openDuration: "1 second",
    onWrite: (outcomes) =>
      Effect.forEach(
        outcomes,
        ({ backend, failures, keys }) =>
          Console.log(`${keys.join()} is ${failures.length === 0 ? "on" : "missing on"} ${backend}`),
        { discard: true }
      )
  })
// #endregion

const weights = new Uint8Array(1000).fill(7)

const program = Effect.gen(function*() {
  yield* Storage.save("layer_0.bin", weights)

  isDown = true
  for (let i = 0; i < 20; i++) deepStrictEqual(yield* Storage.load("layer_0.bin"), weights)
  strictEqual(refused, 3)
  yield* Console.log("The bucket is down: 20 loads came from the disk, and only the first 3 tried the bucket")

  const failure = yield* Effect.flip(Storage.save("layer_1.bin", weights))
  strictEqual(failure._tag, "StorageUnavailable")
  deepStrictEqual(yield* Storage.list(), ["layer_0.bin"])
  yield* Console.log(`Writes fail: ${failure.message}`)

  isDown = false
  yield* Effect.sleep("1 second")
  deepStrictEqual(yield* Storage.load("layer_0.bin"), weights)
  yield* Storage.save("layer_1.bin", weights)
  strictEqual(refused, 4)
})

const main = Effect.gen(function*() {
  const fs = yield* FileSystem.FileSystem
  const directory = yield* fs.makeTempDirectoryScoped({ prefix: "surfing-weights-" })
  yield* Effect.provide(program, bucketAndDisk(directory))
})

main.pipe(Effect.scoped, Effect.provide(NodeFileSystem.layer), NodeRuntime.runMain)
