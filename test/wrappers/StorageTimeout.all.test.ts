/**
 * The contract suite for a file system with timeouts.
 */
import { Layer } from "effect"
import { StorageTimeout } from "surfing-weights"
import * as StorageContract from "surfing-weights/StorageContract"
import { leftovers, storageOnDirectory } from "../support/directory.js"

StorageContract.suite("StorageTimeout(FileSystem)", {
  layer: StorageTimeout.layer({ deadline: "10 minutes", idleTimeout: "5 minutes" }).pipe(
    Layer.provideMerge(storageOnDirectory({ durability: "relaxed" }))
  ),
  leftovers
})
