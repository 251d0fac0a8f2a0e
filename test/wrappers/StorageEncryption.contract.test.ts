import { Layer, Redacted } from "effect"
import { MemoryStorage, StorageEncryption } from "surfing-weights"
import * as StorageContract from "surfing-weights/StorageContract"

StorageContract.suite("StorageEncryption(Memory)", {
  layer: StorageEncryption.layer({ keys: [{ id: "test", secret: Redacted.make(new Uint8Array(32).fill(7)) }] }).pipe(
    Layer.provide(MemoryStorage.layer())
  )
})
