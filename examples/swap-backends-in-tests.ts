/**
 * One program on several storages: files in production, memory in a test, and memory with an injected failure in a test of a
 * full disk. Only the layer differs.
 */
import { FileSystem } from "@effect/platform"
import * as NodeFileSystem from "@effect/platform-node/NodeFileSystem"
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import { Console, Effect, Layer } from "effect"
import { deepStrictEqual, strictEqual } from "node:assert/strict"
import { FileSystemStorage, MemoryStorage, Storage, StorageChaos, StorageError } from "surfing-weights"

// #region program
/** Saves a checkpoint, then points `latest` at it: readers of `latest` always find a whole checkpoint. */
const publish = (step: number, weights: Uint8Array) =>
  Effect.gen(function*() {
    const key = `bert/step-${step}.bin`
    yield* Storage.save(key, weights, { ifNoneMatch: "*" })
    yield* Storage.save("bert/latest", new TextEncoder().encode(key))
  })

const latest = Effect.gen(function*() {
  const key = new TextDecoder().decode(yield* Storage.load("bert/latest"))
  return yield* Storage.load(key)
})
// #endregion

const checkpoint = (step: number) => new Uint8Array(1000).fill(step)

const publishesTheNewest = Effect.gen(function*() {
  yield* publish(1, checkpoint(1))
  yield* publish(2, checkpoint(2))
  deepStrictEqual(yield* latest, checkpoint(2))
  const { backend } = yield* Storage.Storage
  yield* Console.log(`Readers get the newest checkpoint on ${backend.name}`)
})

// #region full-disk
const survivesAFullDisk = Effect.gen(function*() {
  yield* publish(1, checkpoint(1))
  const failure = yield* Effect.flip(publish(2, checkpoint(2)))
  strictEqual(failure._tag, "StorageFull")
  deepStrictEqual(yield* latest, checkpoint(1))
  deepStrictEqual(yield* Storage.list(), ["bert/latest", "bert/step-1.bin"])
  yield* Console.log(`Readers keep checkpoint 1 when 2 cannot be saved: ${failure.message}`)
})
// #endregion

const main = Effect.gen(function*() {
  const fs = yield* FileSystem.FileSystem
  const directory = yield* fs.makeTempDirectoryScoped({ prefix: "surfing-weights-" })

  // #region layers
  const production = publishesTheNewest.pipe(Effect.provide(FileSystemStorage.layer({ directory })))

  const test = publishesTheNewest.pipe(Effect.provide(MemoryStorage.layer()))

  const testOfAFullDisk = survivesAFullDisk.pipe(
    Effect.provide(
      StorageChaos.layer([{
        operation: "save",
        key: "bert/step-2.bin",
        error: (struck) => new StorageError.StorageFull({ ...struck, reason: "no space left" })
      }]).pipe(Layer.provide(MemoryStorage.layer()))
    )
  )
  // #endregion

  yield* production
  yield* test
  yield* testOfAFullDisk
})

main.pipe(Effect.scoped, Effect.provide(NodeFileSystem.layer), NodeRuntime.runMain)
