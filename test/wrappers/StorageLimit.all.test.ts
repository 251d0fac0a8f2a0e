/**
 * The contract suite for a limited file system.
 */
import { Layer } from "effect"
import { StorageLimit } from "surfing-weights"
import * as StorageContract from "surfing-weights/StorageContract"
import { leftovers, storageOnDirectory } from "../support/directory.js"

StorageContract.suite("StorageLimit(FileSystem)", {
  layer: StorageLimit.layer({ concurrency: 4 }).pipe(
    Layer.provideMerge(storageOnDirectory({ durability: "relaxed" }))
  ),
  leftovers
})
