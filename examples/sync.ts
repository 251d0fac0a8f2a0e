/**
 * Syncs a directory to a bucket: a dry run, a sync with progress, and a second sync that has nothing to do. A memory
 * storage takes the place of the bucket.
 */
import { FileSystem } from "@effect/platform"
import * as NodeFileSystem from "@effect/platform-node/NodeFileSystem"
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import { Console, Effect, Stream } from "effect"
import { deepStrictEqual, strictEqual } from "node:assert/strict"
import { FileSystemStorage, MemoryStorage, StorageMirror } from "surfing-weights"

const MiB = 1024 * 1024

// #region show
const show = StorageMirror.Event.$match({
  Copied: ({ key, size }) => `+ ${key} (${size / MiB} MiB)`,
  Unchanged: ({ key }) => `= ${key}`,
  Removed: ({ key }) => `- ${key}`,
  Failed: ({ error }) => `! ${error.message}`
})
// #endregion

const main = Effect.gen(function*() {
  const fs = yield* FileSystem.FileSystem
  const directory = yield* fs.makeTempDirectoryScoped({ prefix: "surfing-weights-" })
  const weights = yield* FileSystemStorage.make({ directory })
  const bucket = yield* MemoryStorage.make()

  yield* Effect.forEach([0, 1, 2], (i) => weights.save(`bert/layer_${i}.bin`, new Uint8Array((i + 1) * MiB).fill(i)))
  yield* bucket.save("bert/layer_9.bin", new Uint8Array(MiB))
  yield* bucket.save("gpt/layer_0.bin", new Uint8Array(MiB))

  // #region sync
  const options = { prefix: "bert/", delete: true }

  // A dry run lists what would be done, in key order.
  const plan = yield* Stream.runCollect(StorageMirror.sync(weights, bucket, { ...options, dryRun: true }))
  yield* Console.log(`To do:\n${[...plan].map(show).join("\n")}`)

  // Where an object fails, the others are done, and then the stream fails.
  const copied = yield* StorageMirror.sync(weights, bucket, options).pipe(
    Stream.runFoldEffect(0, (sum, event) => {
      const bytes = event._tag === "Copied" ? sum + event.size : sum
      return Effect.as(Console.log(`${show(event)}, ${bytes / MiB} MiB so far`), bytes)
    })
  )

  // Running it again, for instance after an interruption, does the rest.
  const again = yield* Stream.runCollect(StorageMirror.sync(weights, bucket, options))
  // #endregion

  deepStrictEqual([...plan].map(show), [
    "+ bert/layer_0.bin (1 MiB)",
    "+ bert/layer_1.bin (2 MiB)",
    "+ bert/layer_2.bin (3 MiB)",
    "- bert/layer_9.bin"
  ])
  strictEqual(copied, 6 * MiB)
  deepStrictEqual([...again].map(({ _tag }) => _tag), ["Unchanged", "Unchanged", "Unchanged"])
  deepStrictEqual(yield* bucket.list(), [...(yield* weights.list()), "gpt/layer_0.bin"])
  deepStrictEqual(yield* bucket.load("bert/layer_2.bin"), yield* weights.load("bert/layer_2.bin"))
  yield* Console.log(`Again: ${again.length} objects are unchanged`)
})

main.pipe(Effect.scoped, Effect.provide(NodeFileSystem.layer), NodeRuntime.runMain)
