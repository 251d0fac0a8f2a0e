/**
 * A folder of a storage as a storage by itself: the key `layer_0.bin` in the folder `models/bert` is the object
 * `models/bert/layer_0.bin` of the inner storage. Nothing outside the folder can be named, listed or changed.
 *
 * A key that is too long with the folder before it fails with `InvalidKey`.
 *
 * @module StoragePrefix
 * @since 0.1.0
 */
import type * as Config from "effect/Config"
import type { ConfigError } from "effect/ConfigError"
import * as Effect from "effect/Effect"
import { dual } from "effect/Function"
import * as Layer from "effect/Layer"
import * as Schema from "effect/Schema"
import { decode, folder as folderKey } from "../internal/options.js"
import { prefixed } from "../internal/prefix.js"
import * as Storage from "../Storage.js"
import type { InvalidOptions } from "../StorageError.js"

/**
 * A folder of a storage. `folder` is a key; a slash at its end makes no difference.
 *
 * @since 0.1.0
 * @category constructors
 * @example
 * ```ts
 * import { Effect } from "effect"
 * import { MemoryStorage, StoragePrefix } from "surfing-weights"
 *
 * const bert = MemoryStorage.make().pipe(
 *   Effect.flatMap(StoragePrefix.make("models/bert"))
 * )
 * ```
 */
export const make: {
  (folder: string): (storage: Storage.Service) => Effect.Effect<Storage.Service, InvalidOptions>
  (storage: Storage.Service, folder: string): Effect.Effect<Storage.Service, InvalidOptions>
} = dual(
  2,
  ({ backend }: Storage.Service, folder: string): Effect.Effect<Storage.Service, InvalidOptions> =>
    Effect.map(
      decode("StoragePrefix", schema, { folder }),
      ({ folder }) => Storage.make(prefixed(backend, folder, `Prefix(${folder}, ${backend.name})`))
    )
)

/**
 * Provides a folder of the storage that it needs.
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
export const layer = (folder: string): Layer.Layer<Storage.Storage, InvalidOptions, Storage.Storage> =>
  Layer.effect(Storage.Storage, Effect.flatMap(Storage.Storage, make(folder)))

/**
 * Provides a folder of the storage that it needs, with its key from `Config`.
 *
 * @since 0.1.0
 * @category layers
 * @example
 * ```ts
 * import { Config } from "effect"
 * import { StoragePrefix } from "surfing-weights"
 *
 * const Folder = StoragePrefix.layerConfig(Config.string("WEIGHTS_FOLDER"))
 * ```
 */
export const layerConfig = (
  folder: Config.Config<string>
): Layer.Layer<Storage.Storage, InvalidOptions | ConfigError, Storage.Storage> =>
  Layer.unwrapEffect(Effect.map(folder, layer))

const schema = Schema.Struct({ folder: folderKey })
