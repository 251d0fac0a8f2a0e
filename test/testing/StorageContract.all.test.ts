/**
 * Stores that support as little as possible, and refuse the rest, pass the contract suite.
 */
import { Effect, Stream } from "effect"
import { StorageBackend, StorageError } from "surfing-weights"
import * as StorageContract from "surfing-weights/StorageContract"
import { changed, layerOf } from "./mutants.js"

StorageContract.suite("a store that only saves and loads, and no object under another", {
  layer: layerOf(changed(({ keys, save }) => ({
    capabilities: { ...StorageBackend.readOnly, write: true, objectsWithinObjects: false },
    save: (key, data, options) =>
      Effect.flatMap(Stream.runCollect(keys({})), (all) => {
        const other = [...all].find((other) => other.startsWith(`${key}/`) || key.startsWith(`${other}/`))
        const reason = `${key} and ${other} cannot both exist`
        return other === undefined
          ? save(key, data, options)
          : Effect.fail(new StorageError.UnsupportedOperation({ reason, key }))
      })
  })))
})

StorageContract.suite("a store that only reads and lists", {
  layer: layerOf(changed(() => ({ capabilities: { ...StorageBackend.readOnly, list: true } })))
})
