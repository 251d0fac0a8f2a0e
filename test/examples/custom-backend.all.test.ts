/**
 * The backend of examples/custom-backend.ts keeps the contract of `Storage`.
 */
import { KeyValueStore } from "@effect/platform"
import { Array, Effect, Layer } from "effect"
import { Storage } from "surfing-weights"
import * as StorageContract from "surfing-weights/StorageContract"
import * as CustomBackend from "../../examples/custom-backend.js"

// Memory that behaves as files do: nothing happens at once, and what is being written can be seen half done.
const Slow = Layer.effect(
  KeyValueStore.KeyValueStore,
  Effect.map(KeyValueStore.KeyValueStore, (memory) =>
    KeyValueStore.make({
      get: (key) => Effect.zipRight(Effect.yieldNow(), memory.get(key)),
      getUint8Array: (key) => Effect.zipRight(Effect.yieldNow(), memory.getUint8Array(key)),
      set: (key, value) =>
        memory.set(key, value.slice(0, value.length / 2)).pipe(
          Effect.zipRight(Effect.yieldNow()),
          Effect.zipRight(memory.set(key, value))
        ),
      remove: (key) => Effect.zipRight(Effect.yieldNow(), memory.remove(key)),
      clear: memory.clear,
      size: memory.size
    }))
).pipe(Layer.provide(KeyValueStore.layerMemory))

// Beside the pages of the index there is one value for each object.
const leftovers = Effect.gen(function*() {
  const values = yield* KeyValueStore.KeyValueStore
  const pages = yield* Effect.filter(Array.range(0, 63), (page) => values.has(`index-${page}`))
  const objects = yield* Storage.list()
  const left = (yield* values.size) - pages.length - objects.length
  return left === 0 ? [] : [`${left} values`]
})

// #region suite
StorageContract.suite("the backend of examples/custom-backend.ts", {
  layer: Layer.provideMerge(CustomBackend.layer, Slow),
  leftovers
})
// #endregion
