/**
 * An app that does not know where its objects are: STORAGE_URL decides, for instance ./weights or
 * s3://bucket/prefix?region=eu-central-1. Default: memory.
 */
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import { strictEqual } from "node:assert/strict"
// #region app
import { Config, Console, Effect, Stream } from "effect"
import { Storage } from "surfing-weights"

const StorageLive = Storage.layerUrlConfig(Config.withDefault(Config.string("STORAGE_URL"), "memory:"))

const weights = Stream.map(Stream.range(1, 1000), () => new Uint8Array(4096))

const app = Effect.gen(function*() {
  yield* Storage.save("bert/layer_0.bin", weights)
  const size = yield* Stream.runFold(Storage.stream("bert/layer_0.bin"), 0, (sum, { byteLength }) => sum + byteLength)
  yield* Console.log(yield* Storage.list("bert/"), `${size} bytes`)
  return size
}).pipe(Effect.catchTag("ObjectNotFound", ({ message }) => Effect.as(Console.error(message), 0)))

const main = Effect.provide(app, StorageLive)
// #endregion

NodeRuntime.runMain(Effect.tap(main, (size) => strictEqual(size, 4_096_000)))
