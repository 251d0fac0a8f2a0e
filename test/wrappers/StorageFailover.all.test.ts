/**
 * The contract suite for failovers with writes on every storage, and with reads of the primary that fail.
 */
import { Layer } from "effect"
import { MemoryStorage, StorageChaos, StorageFailover } from "surfing-weights"
import * as StorageContract from "surfing-weights/StorageContract"

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
    "two concurrent saves never interleave": "the backup has had fewer writes, so that it counts other etags",
    "a move interrupted at any moment loses nothing":
      "the backup lacks a write that is interrupted after the primary has taken it"
  }
})
