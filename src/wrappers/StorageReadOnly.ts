/**
 * A storage that only reads: whatever would change an object fails with `UnsupportedOperation` before anything is asked
 * of the storage inside, and so does a presigned URL with which others could.
 *
 * @module StorageReadOnly
 * @since 0.1.0
 */
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Storage from "../Storage.js"
import type { StorageBackend } from "../StorageBackend.js"
import { UnsupportedOperation } from "../StorageError.js"

/**
 * The same storage, without all that changes it.
 *
 * @since 0.1.0
 * @category constructors
 */
export const make = (storage: Storage.Service): Storage.Service => Storage.make(makeBackend(storage.backend))

/**
 * Provides the storage that it needs, without all that changes it.
 *
 * @since 0.1.0
 * @category layers
 * @example
 * ```ts
 * import { Layer } from "effect"
 * import { MemoryStorage, StorageReadOnly } from "surfing-weights"
 *
 * const WeightsLive = StorageReadOnly.layer.pipe(
 *   Layer.provide(MemoryStorage.layer())
 * )
 * ```
 */
export const layer: Layer.Layer<Storage.Storage, never, Storage.Storage> = Layer.effect(
  Storage.Storage,
  Effect.map(Storage.Storage, make)
)

const makeBackend = (inner: StorageBackend): StorageBackend => {
  const name = `ReadOnly(${inner.name})`
  const refuse = (operation: string, key?: string) =>
    Effect.fail(
      new UnsupportedOperation({
        backend: name,
        operation,
        ...(key !== undefined && { key }),
        reason: "it is read-only"
      })
    )
  return {
    name,
    capabilities: { ...inner.capabilities, write: false, createOnly: false, compareAndSwap: false },
    open: inner.open,
    load: inner.load,
    loadRanges: inner.loadRanges,
    head: inner.head,
    save: (key) => refuse("save", key),
    entries: inner.entries,
    keys: inner.keys,
    listDirectory: inner.listDirectory,
    remove: (key) => refuse("remove", key),
    removeAll: () => refuse("removeAll"),
    copy: (_, to) => refuse("copy", to),
    move: (_, to) => refuse("move", to),
    presign: (key, options) => options.method === "GET" ? inner.presign(key, options) : refuse("presign", key)
  }
}
