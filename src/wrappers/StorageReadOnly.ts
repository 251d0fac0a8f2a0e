/**
 * A read-only view of a storage: operations that change objects, and presigned URLs to save, fail with
 * `UnsupportedOperation` before the inner storage is called. There are no options.
 *
 * @module StorageReadOnly
 * @since 0.1.0
 */
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Storage from "../Storage.js"
import * as StorageBackend from "../StorageBackend.js"
import { UnsupportedOperation } from "../StorageError.js"

/**
 * A read-only view of a storage.
 *
 * @since 0.1.0
 * @category constructors
 */
export const make = (storage: Storage.Service): Effect.Effect<Storage.Service> =>
  Effect.sync(() => Storage.make(makeBackend(storage.backend)))

/**
 * Provides a read-only view of the storage that it needs.
 *
 * @since 0.1.0
 * @category layers
 * @example
 * ```ts
 * import { Layer } from "effect"
 * import { MemoryStorage, StorageReadOnly } from "surfing-weights"
 *
 * const WeightsLive = StorageReadOnly.layer().pipe(
 *   Layer.provide(MemoryStorage.layer())
 * )
 * ```
 */
export const layer = (): Layer.Layer<Storage.Storage, never, Storage.Storage> =>
  Layer.effect(Storage.Storage, Effect.flatMap(Storage.Storage, make))

const refuse = () => Effect.fail(new UnsupportedOperation({ reason: "the storage is read-only" }))

const makeBackend = (inner: StorageBackend.StorageBackend): StorageBackend.StorageBackend => ({
  ...StorageBackend.intercept(inner, {
    name: `ReadOnly(${inner.name})`,
    capabilities: {
      ...inner.capabilities,
      write: false,
      createOnly: false,
      compareAndSwap: false,
      conditionalRemove: false
    }
  }),
  blob: inner.blob,
  save: refuse,
  remove: refuse,
  removeAll: refuse,
  copy: refuse,
  move: refuse,
  presign: (key, options) => options.method === "GET" ? inner.presign(key, options) : refuse()
})
