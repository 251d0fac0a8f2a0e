/**
 * Capabilities that a storage finds out later, seen through the wrappers that change others.
 */
import { describe, expect, it } from "@effect/vitest"
import { Effect, Redacted } from "effect"
import { MemoryStorage, Storage, StorageCompression, StorageEncryption, StorageFailover } from "surfing-weights"

describe("a capability that turns out to be missing", () => {
  it.scoped("is missing in each wrapper, too, from then on", () =>
    Effect.gen(function*() {
      const { backend } = yield* MemoryStorage.make()
      let isSupported = true
      const capabilities = {
        ...backend.capabilities,
        get compareAndSwap() {
          return isSupported
        }
      }
      const storage = Storage.make({ ...backend, capabilities })
      const keys = [{ id: "key", secret: Redacted.make(new Uint8Array(32)) }] as const
      const wrapped = [
        yield* StorageCompression.make(storage),
        yield* StorageEncryption.make(storage, { keys }),
        yield* StorageFailover.make([storage, yield* MemoryStorage.make()])
      ]
      const seen = () => wrapped.map(({ backend }) => backend.capabilities.compareAndSwap)
      expect(seen()).toEqual([true, true, true])
      isSupported = false
      expect(seen()).toEqual([false, false, false])
      expect(wrapped.map(({ backend }) => backend.capabilities.attributes)).toEqual([true, true, true])
    }))
})
