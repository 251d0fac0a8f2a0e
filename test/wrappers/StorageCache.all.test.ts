/**
 * The contract suite for caches over a file system.
 */
import { Effect, Layer } from "effect"
import { FileSystemStorage, MemoryStorage, StorageCache } from "surfing-weights"
import * as StorageContract from "surfing-weights/StorageContract"
import { Directory, leftovers, storageOnDirectory, temporaryDirectory } from "../support/directory.js"

const MiB = 1024 * 1024

StorageContract.suite("StorageCache(FileSystem)", {
  layer: StorageCache.layer({ capacity: MiB, freshness: { timeToLive: "1 minute" } }).pipe(
    Layer.provideMerge(storageOnDirectory({ durability: "relaxed" }))
  ),
  leftovers
})

StorageContract.suite("StorageCache(Memory) with a second tier on a file system", {
  layer: Layer.unwrapScoped(Effect.map(temporaryDirectory, (directory) =>
    StorageCache.layer({
      capacity: 1,
      freshness: "immutable",
      tier: { layer: FileSystemStorage.layer({ directory, durability: "relaxed" }), capacity: 100 * MiB }
    }).pipe(
      Layer.provide(MemoryStorage.layer()),
      Layer.merge(Layer.succeed(Directory, directory))
    ))),
  leftovers
})
