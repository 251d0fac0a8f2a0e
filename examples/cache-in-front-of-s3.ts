/**
 * A bucket with a cache in front of it: in memory, and in a directory that outlives the process. An S3 emulator in this
 * process is the server.
 */
import { FileSystem } from "@effect/platform"
import * as NodeFileSystem from "@effect/platform-node/NodeFileSystem"
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import { Console, Duration, Effect, Layer, Redacted, Stream } from "effect"
import { buildApp } from "fauxqs"
import { deepStrictEqual } from "node:assert/strict"
import { FileSystemStorage, S3Storage, Storage, StorageCache } from "surfing-weights"

const MiB = 1024 * 1024

const emulator = Effect.gen(function*() {
  const app = yield* Effect.acquireRelease(
    Effect.sync(() => buildApp({ logger: false })),
    (app) => Effect.promise(() => app.close())
  )
  const endpoint = yield* Effect.promise(() => app.listen({ host: "127.0.0.1", port: 0 }))
  yield* Effect.promise(() => fetch(`${endpoint}/model-weights`, { method: "PUT" }))
  return endpoint
})

// #region layer
const cached = (directory: string) =>
  StorageCache.layer({
    capacity: 64 * MiB,
    // The keys of these weights are never reused.
    freshness: "immutable",
    // Outlives the process.
    tier: {
      layer: FileSystemStorage.layer({ directory }),
      capacity: 1024 * MiB
    }
  })
// #endregion

const weights = Array.from({ length: 16 }, (_, i) => new Uint8Array(MiB).fill(i))

/** Loads the weights, and logs how long that took and where they came from. */
const load = (when: string) =>
  Effect.gen(function*() {
    const [took, bytes] = yield* Effect.timed(Storage.load("layer_0.bin"))
    deepStrictEqual(bytes, new Uint8Array(Buffer.concat(weights)))
    const { hits, memory, misses, tier } = yield* Effect.flatMap(StorageCache.StorageCache, (cache) => cache.statistics)
    yield* Console.log(
      `${when}: ${Duration.toMillis(took).toFixed(1)} ms; ${hits} hits, ${misses} misses so far; ` +
        `${memory.objects} in memory, ${tier.objects} on disk`
    )
    return { hits, misses }
  })

const main = Effect.gen(function*() {
  const fs = yield* FileSystem.FileSystem
  const directory = yield* fs.makeTempDirectoryScoped({ prefix: "surfing-weights-" })
  const Bucket = S3Storage.layer({
    bucket: "model-weights",
    endpoint: yield* emulator,
    credentials: { accessKeyId: "weights", secretAccessKey: Redacted.make("a secret") }
  })
  const CachedBucket = Layer.provide(cached(directory), Bucket)
  yield* Effect.provide(Storage.save("layer_0.bin", Stream.fromIterable(weights)), Bucket)

  const first = yield* load("From the bucket").pipe(
    Effect.zipRight(load("From memory")),
    Effect.provide(CachedBucket)
  )
  deepStrictEqual(first, { hits: 1, misses: 1 })

  // As after a restart: what was in memory is gone.
  const second = yield* Effect.provide(load("After a restart, from disk"), CachedBucket)
  deepStrictEqual(second, { hits: 1, misses: 0 })
})

main.pipe(Effect.scoped, Effect.provide(NodeFileSystem.layer), NodeRuntime.runMain)
