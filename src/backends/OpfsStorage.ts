/**
 * Objects in the origin private file system of a browser: files on the disk that belong to the site, on its pages and in its
 * workers. It keeps models between visits, by itself or as the second tier of `StorageCache`.
 *
 * Each object is one file, with its attributes and its etag in a header. A save writes a temporary file and gives it the name
 * of the object in one step, so readers see the old object or the new one, whole, also when the tab is closed or crashes meanwhile.
 * What such a tab has left behind is removed when a storage is built on the directory. All tabs and workers of an origin can use
 * it at the same time: preconditions are atomic among them, by Web Locks.
 *
 * Reads are lazy, straight from the disk: a range or a stream reads no more than it needs. A stream that has begun goes on
 * with the version of the object that it was opened with.
 *
 * - It needs a secure context (`https://`, or `localhost`) and a browser that can move files of this file system and write them
 *   on pages; in another one it is `UnsupportedOperation`. It is tested in Chromium alone.
 * - A browser grants each site some of the disk; more is `StorageFull`. It may remove all data of a site when the disk is full,
 *   unless the site has been granted `navigator.storage.persist()`.
 * - A listing reads the names of all objects, also with a prefix, since browsers list in no order.
 * - A loss of power may damage an object that was saved in the last seconds; to read it is `CorruptObject`.
 *
 * @module OpfsStorage
 * @since 0.1.0
 */
import * as Config from "effect/Config"
import type { ConfigError } from "effect/ConfigError"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Schema from "effect/Schema"
import { withPlace } from "../internal/errors.js"
import * as options from "../internal/options.js"
import * as Storage from "../Storage.js"
import type * as E from "../StorageError.js"

/**
 * @since 0.1.0
 * @category models
 */
export interface Options {
  /** The folder of the objects, within the file system of the origin. Default: `"surfing-weights"`. */
  readonly directory?: string | undefined
}

/**
 * What building a storage can fail with: `UnsupportedOperation` where there is no origin private file system.
 *
 * @since 0.1.0
 * @category models
 */
export type OpenError = E.CommonError | E.StorageFull | E.UnsupportedOperation | E.InvalidOptions

/**
 * A storage in the origin private file system.
 *
 * @since 0.1.0
 * @category constructors
 */
export const make = (options: Options = {}): Effect.Effect<Storage.Service, OpenError> =>
  Effect.gen(function*() {
    const { directory: path } = yield* decodeOptions(options)
    const name = `Opfs(${path})`
    const { open } = yield* Effect.promise(() => import("./opfs/backend.js"))
    const backend = yield* Effect.mapError(
      open(path, name),
      (error) => withPlace(error, { backend: name, operation: "make" })
    )
    return Storage.make(backend)
  })

/**
 * Provides a storage in the origin private file system.
 *
 * @since 0.1.0
 * @category layers
 * @example
 * ```ts
 * import { FetchHttpClient } from "@effect/platform"
 * import { Layer } from "effect"
 * import { HttpStorage, OpfsStorage, StorageCache } from "surfing-weights"
 *
 * // What a page has loaded once comes from the disk at the next visit.
 * const WeightsLive = StorageCache.layer({
 *   capacity: 64 * 1024 ** 2,
 *   freshness: "immutable",
 *   tier: { layer: OpfsStorage.layer(), capacity: 2 * 1024 ** 3 }
 * }).pipe(
 *   Layer.provide(HttpStorage.layer({ url: "https://weights.example.com" })),
 *   Layer.provide(FetchHttpClient.layer)
 * )
 * ```
 */
export const layer = (options: Options = {}): Layer.Layer<Storage.Storage, OpenError> =>
  Layer.effect(Storage.Storage, make(options))

/**
 * The same with options from `Config`.
 *
 * @since 0.1.0
 * @category layers
 * @example
 * ```ts
 * import { Config } from "effect"
 * import { OpfsStorage } from "surfing-weights"
 *
 * const WeightsLive = OpfsStorage.layerConfig({ directory: Config.string("WEIGHTS_DIRECTORY") })
 * ```
 */
export const layerConfig = (
  options: Config.Config.Wrap<Options>
): Layer.Layer<Storage.Storage, OpenError | ConfigError> =>
  Layer.effect(Storage.Storage, Effect.flatMap(Config.unwrap(options), make))

interface Decoded {
  readonly directory: string
}

const schema: Schema.Schema<Decoded, Options> = Schema.Struct({
  directory: Schema.optionalWith(options.folder, { default: () => "surfing-weights" })
})

const decodeOptions = (given: Options): Effect.Effect<Decoded, E.InvalidOptions> =>
  options.decode("OpfsStorage", schema, given)
