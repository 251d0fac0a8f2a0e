/**
 * A wrapper of your own: it records every operation with its outcome, and keeps releases from being removed.
 * `StorageBackend.intercept` wraps all operations alike; single ones are replaced by spreading a backend.
 */
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import { Console, Effect, Exit, Layer, Stream } from "effect"
import { deepStrictEqual, strictEqual } from "node:assert/strict"
import { MemoryStorage, Storage, StorageBackend, StorageError, StorageRetry } from "surfing-weights"

// #region wrapper
/** The same backend, on which releases cannot be removed. */
const keepReleases = (inner: StorageBackend.StorageBackend): StorageBackend.StorageBackend => {
  const isRelease = (key: string) => key.startsWith("releases/")
  const kept = (key: string) => new StorageError.AccessDenied({ key, reason: "releases are kept" })
  return {
    ...inner,
    remove: (key, options) => isRelease(key) ? kept(key) : inner.remove(key, options),
    removeAll: (keys) =>
      Effect.map(
        inner.removeAll(keys.filter((key) => !isRelease(key))),
        (failures) => [...failures, ...keys.filter(isRelease).map(kept)]
      ),
    move: (from, to, options) => isRelease(from) ? kept(from) : inner.move(from, to, options)
  }
}

/** Records every operation when it ends; of a stream or listing, when that ends. */
const audited = (inner: StorageBackend.StorageBackend, record: (line: string) => Effect.Effect<void>) => {
  const end = ({ key = "", operation, writes }: StorageBackend.Call, exit: Exit.Exit<unknown, unknown>) =>
    record(`${writes ? "write" : "read"} ${operation} ${key}: ${Exit.isSuccess(exit) ? "done" : "failed"}`)
  return StorageBackend.intercept(inner, {
    name: `Audited(${inner.name})`,
    effect: (effect, call) => Effect.onExit(effect, (exit) => end(call, exit)),
    stream: (stream, call) => Stream.ensuringWith(stream, (exit) => end(call, exit))
  })
}

const layer = (record: (line: string) => Effect.Effect<void>) =>
  Layer.effect(
    Storage.Storage,
    Effect.map(Storage.Storage, ({ backend }) => Storage.make(audited(keepReleases(backend), record)))
  )
// #endregion

const program = Effect.gen(function*() {
  yield* Storage.save("drafts/layer_0.bin", new Uint8Array(4))
  yield* Storage.copy("drafts/layer_0.bin", "releases/1/layer_0.bin")
  strictEqual((yield* Stream.runCollect(Storage.stream("releases/1/layer_0.bin"))).length, 1)

  const failure = yield* Effect.flip(Storage.remove("releases/1/layer_0.bin"))
  strictEqual(failure._tag, "AccessDenied")
  yield* Console.log(`Kept: ${failure.message}`)

  const { failed, removed } = yield* Storage.removeAll(["drafts/layer_0.bin", "releases/1/layer_0.bin"])
  deepStrictEqual([removed, failed.map(({ key }) => key)], [1, ["releases/1/layer_0.bin"]])
  deepStrictEqual(yield* Storage.list(), ["releases/1/layer_0.bin"])
})

const lines: Array<string> = []
const record = (line: string) => Effect.zipRight(Console.log(line), Effect.sync(() => void lines.push(line)))

// It composes with the other wrappers, and its name is in their messages.
const AuditedLive = StorageRetry.layer().pipe(Layer.provide(layer(record)), Layer.provide(MemoryStorage.layer()))

const main = Effect.gen(function*() {
  yield* Effect.provide(program, AuditedLive)
  deepStrictEqual(lines, [
    "write save drafts/layer_0.bin: done",
    "write copy drafts/layer_0.bin: done",
    "read open releases/1/layer_0.bin: done",
    "read open releases/1/layer_0.bin: done",
    "write remove releases/1/layer_0.bin: failed",
    "write removeAll : done",
    "read keys : done"
  ])
})

NodeRuntime.runMain(main)
