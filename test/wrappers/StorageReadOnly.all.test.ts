/**
 * The contract suite for a file system that is read-only.
 */
import { Layer } from "effect"
import { StorageReadOnly } from "surfing-weights"
import * as StorageContract from "surfing-weights/StorageContract"
import { leftovers, storageOnDirectory } from "../support/directory.js"

StorageContract.suite("StorageReadOnly(FileSystem)", {
  layer: StorageReadOnly.layer().pipe(Layer.provideMerge(storageOnDirectory({ durability: "relaxed" }))),
  leftovers
})
