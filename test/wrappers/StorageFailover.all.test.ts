/**
 * The contract suite for failovers over a file system, with writes on every storage, and with reads that fail.
 */
import { Effect, Layer } from "effect"
import { FileSystemStorage, MemoryStorage, StorageChaos, StorageFailover } from "surfing-weights"
import * as StorageContract from "surfing-weights/StorageContract"
import { Directory, leftovers, temporaryDirectory } from "../support/directory.js"

StorageContract.suite("StorageFailover(FileSystem, Memory)", {
  layer: Layer.unwrapScoped(Effect.map(temporaryDirectory, (directory) =>
    Layer.merge(
      StorageFailover.layer([FileSystemStorage.layer({ directory, durability: "relaxed" }), MemoryStorage.layer()]),
      Layer.succeed(Directory, directory)
    ))),
  leftovers
})

StorageContract.suite("StorageFailover(Memory, Memory) with writes on all", {
  layer: StorageFailover.layer([MemoryStorage.layer(), MemoryStorage.layer()], { writes: "all" })
})

StorageContract.suite("StorageFailover with writes on all, most reads of the primary failing", {
  layer: StorageFailover.layer([
    Layer.provide(
      StorageChaos.layer([{
        operation: ["load", "loadRanges", "head", "entries", "keys", "listDirectory"],
        times: Infinity
      }]),
      MemoryStorage.layer()
    ),
    MemoryStorage.layer()
  ], { writes: "all" }),
  skip: {
    "a move interrupted at any moment loses nothing":
      "the backup lacks a write that is interrupted after the primary has taken it"
  }
})
