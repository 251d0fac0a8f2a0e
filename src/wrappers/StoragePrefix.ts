/**
 * A folder of a storage as a storage of its own: the key `layer_0.bin` in the folder `models/bert` is the object
 * `models/bert/layer_0.bin` of the storage around it. Nothing outside the folder can be named, listed or changed.
 *
 * Failures tell the key as it was given, and this storage as where they happened. A key that is too long with the folder
 * before it is `InvalidKey`.
 *
 * @module StoragePrefix
 * @since 0.1.0
 */
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Layer from "effect/Layer"
import { prefixed } from "../internal/prefix.js"
import * as ObjectKey from "../ObjectKey.js"
import * as Storage from "../Storage.js"
import { InvalidKey } from "../StorageError.js"

/**
 * The storage of what is in a folder, whose name is a key; a slash at its end makes no difference. Fails with
 * `InvalidKey` where it is none.
 *
 * @since 0.1.0
 * @category constructors
 */
export const make = (storage: Storage.Service, folder: string): Either.Either<Storage.Service, InvalidKey> => {
  const key = folder.replace(/\/$/, "")
  const reason = ObjectKey.problem(key)
  const { backend } = storage
  return reason === undefined
    ? Either.right(Storage.make(prefixed(backend, key, `Prefix(${key}, ${backend.name})`)))
    : Either.left(new InvalidKey({ backend: backend.name, operation: "open", key: folder, reason }))
}

/**
 * Provides what is in a folder of the storage that it needs.
 *
 * @since 0.1.0
 * @category layers
 * @example
 * ```ts
 * import { Layer } from "effect"
 * import { MemoryStorage, StoragePrefix } from "surfing-weights"
 *
 * const BertLive = StoragePrefix.layer("models/bert-tiny").pipe(
 *   Layer.provide(MemoryStorage.layer())
 * )
 * ```
 */
export const layer = (folder: string): Layer.Layer<Storage.Storage, InvalidKey, Storage.Storage> =>
  Layer.effect(Storage.Storage, Effect.flatMap(Storage.Storage, (storage) => make(storage, folder)))
