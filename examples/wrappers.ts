/**
 * Four wrappers over a bucket that hangs once and fails once: a load succeeds all the same, and the next one is a cache hit. With
 * the timeout outside the retries, the same load fails. `StorageChaos` over memory takes the place of the bucket.
 */
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import { Console, Effect, Layer } from "effect"
import { deepStrictEqual, strictEqual } from "node:assert/strict"
import {
  MemoryStorage,
  Storage,
  StorageCache,
  StorageChaos,
  StorageLimit,
  StorageRetry,
  StorageTimeout
} from "surfing-weights"

const MiB = 1024 * 1024

const weights = new Uint8Array(MiB).fill(7)

/** A bucket with one object, whose first response never comes and whose second is a failure. */
const unreliable = Effect.gen(function*() {
  const memory = yield* MemoryStorage.make()
  yield* memory.save("bert/layer_0.bin", weights)
  return yield* memory.pipe(StorageChaos.make([
    { key: "bert/layer_0.bin", delay: "1 hour", error: "none" },
    { key: "bert/layer_0.bin" }
  ]))
})

const main = Effect.gen(function*() {
  const Bucket = Layer.effect(Storage.Storage, unreliable)

  // #region stack
  // The outermost wrapper comes first.
  const WeightsLive = StorageCache.layer({ capacity: 64 * MiB, freshness: "immutable" }).pipe(
    Layer.provide(StorageRetry.layer()),
    Layer.provide(StorageLimit.layer({ concurrency: 16 })),
    Layer.provide(StorageTimeout.layer({ deadline: "1 second", idleTimeout: "1 second" })),
    Layer.provide(Bucket)
  )
  // #endregion

  yield* Effect.gen(function*() {
    const { backend } = yield* Storage.Storage
    yield* Console.log(`The stack: ${backend.name}`)
    deepStrictEqual(yield* Storage.load("bert/layer_0.bin"), weights)
    deepStrictEqual(yield* Storage.load("bert/layer_0.bin"), weights)
    const { hits, misses } = yield* Effect.flatMap(StorageCache.StorageCache, ({ statistics }) => statistics)
    deepStrictEqual([hits, misses], [1, 1])
    yield* Console.log(`Loaded twice: ${misses} miss, which took three attempts, and ${hits} hit`)
  }).pipe(Effect.provide(WeightsLive))

  // #region wrong
  // One deadline for all attempts together: the first one uses it up, and no other is made.
  const WrongOrder = StorageTimeout.layer({ deadline: "1 second", idleTimeout: "1 second" }).pipe(
    Layer.provide(StorageRetry.layer()),
    Layer.provide(Bucket)
  )
  // #endregion

  const error = yield* Storage.load("bert/layer_0.bin").pipe(Effect.flip, Effect.provide(WrongOrder))
  strictEqual(error._tag, "StorageTimeout")
  yield* Console.log(`In the wrong order: ${error.message}`)
})

NodeRuntime.runMain(main)
