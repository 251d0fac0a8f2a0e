/**
 * The contract suite for a cache whose second tier is a file system.
 */
import { Effect, Layer } from "effect"
import { FileSystemStorage, MemoryStorage, StorageCache } from "surfing-weights"
import * as StorageContract from "surfing-weights/StorageContract"
import { Directory, leftovers, temporaryDirectory } from "../support/directory.js"

const MiB = 1024 * 1024

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
