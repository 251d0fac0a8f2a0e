/**
 * The contract suite for a prefix on a file system.
 */
import { Layer } from "effect"
import { StoragePrefix } from "surfing-weights"
import * as StorageContract from "surfing-weights/StorageContract"
import { withPrefix } from "../support/contractSkips.js"
import { leftovers, storageOnDirectory } from "../support/directory.js"

StorageContract.suite("StoragePrefix(FileSystem)", {
  layer: StoragePrefix.layer("f").pipe(
    Layer.provideMerge(storageOnDirectory({ durability: "relaxed" }))
  ),
  leftovers,
  skip: withPrefix
})
