/**
 * Stores objects in less space, and gives them back as they were saved.
 *
 * - Safetensors files are compressed as `Safetensors.save` compresses them: to two thirds of their size for weights of 16 bits,
 *   without loss. Ranges of them read the blocks that they need and no others. The stored objects are safetensors files themselves,
 *   which `Safetensors` also reads without this wrapper.
 * - Other objects that get smaller, such as tokenizers, are stored as gzip, and read as a whole.
 * - Everything else is stored as it is, and objects that were in the storage before are read as they are.
 *
 * Sizes are those of the objects as they were saved. They are in the first bytes of what is stored: `head` reads them by one small
 * request more, `entries` and `listDirectory` by one for each object, sixteen at once; `list` needs none. Etags are those of the
 * storage, and a checksum is told only of objects that are stored as they are. Presigned URLs are not supported, since they lead to
 * what is stored.
 *
 * Put a `StorageCache` in front of it to keep what was decoded, or behind it to keep what was read.
 *
 * @module StorageCompression
 * @since 0.1.0
 */
import type * as FileSystem from "@effect/platform/FileSystem"
import * as Config from "effect/Config"
import type { ConfigError } from "effect/ConfigError"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import { dual } from "effect/Function"
import * as Layer from "effect/Layer"
import * as Schema from "effect/Schema"
import { decode, size, storage } from "../internal/options.js"
import * as Storage from "../Storage.js"
import type { InvalidOptions } from "../StorageError.js"
import type { Settings } from "./compression/saver.js"

/**
 * How much memory a save takes.
 *
 * @since 0.1.0
 * @category models
 */
export interface MemoryOptions {
  /**
   * How many bytes of a save are held in memory, where they come as a stream: its size must be known before it is stored.
   * Default: 64 MiB.
   */
  readonly buffer?: FileSystem.SizeInput | undefined
}

/**
 * How much memory a save takes, and where what is larger waits.
 *
 * @since 0.1.0
 * @category models
 */
export interface Options extends MemoryOptions {
  /**
   * A storage for safetensors files that come as a stream of more than `buffer` bytes: they are kept there while they are
   * compressed, under names of their own, and removed again. Default: none, and they are stored as they are.
   */
  readonly scratch?: Storage.Service | undefined
}

/**
 * The same with the scratch storage as a layer.
 *
 * @since 0.1.0
 * @category models
 */
export interface LayerOptions<Err, R> extends MemoryOptions {
  readonly scratch?: Layer.Layer<Storage.Storage, Err, R> | undefined
}

/**
 * The same storage, which stores objects in less space.
 *
 * @since 0.1.0
 * @category constructors
 * @example
 * ```ts
 * import { Effect } from "effect"
 * import { FileSystemStorage, S3Storage, StorageCompression } from "surfing-weights"
 *
 * const weights = Effect.gen(function*() {
 *   const scratch = yield* FileSystemStorage.make({ directory: "/var/tmp/weights" })
 *   const bucket = yield* S3Storage.make({ bucket: "model-weights" })
 *   return yield* bucket.pipe(StorageCompression.make({ scratch }))
 * })
 * ```
 */
export const make: {
  (options?: Options): (storage: Storage.Service) => Effect.Effect<Storage.Service, InvalidOptions>
  (storage: Storage.Service, options?: Options): Effect.Effect<Storage.Service, InvalidOptions>
} = dual(
  (args) => typeof args[0] === "object" && args[0] !== null && "backend" in args[0],
  ({ backend }: Storage.Service, options: Options = {}): Effect.Effect<Storage.Service, InvalidOptions> =>
    Effect.gen(function*() {
      const settings = yield* decode("StorageCompression", schema, options)
      const { make } = yield* Effect.promise(() => import("./compression/backend.js"))
      return Storage.make(yield* make(backend, settings))
    })
)

/**
 * Provides the storage that it needs, which stores objects in less space.
 *
 * @since 0.1.0
 * @category layers
 * @example
 * ```ts
 * import { Layer } from "effect"
 * import { FileSystemStorage, S3Storage, StorageCompression } from "surfing-weights"
 *
 * const WeightsLive = StorageCompression.layer({
 *   scratch: FileSystemStorage.layer({ directory: "/var/tmp/weights" })
 * }).pipe(
 *   Layer.provide(S3Storage.layer({ bucket: "model-weights" }))
 * )
 * ```
 */
export const layer = <Err = never, R = never>(
  { scratch, ...options }: LayerOptions<Err, R> = {}
): Layer.Layer<Storage.Storage, Err | InvalidOptions, Storage.Storage | R> =>
  scratch === undefined
    ? layerOf(options)
    : Layer.flatMap(scratch, (context) => layerOf({ ...options, scratch: Context.get(context, Storage.Storage) }))

const layerOf = (options: Options): Layer.Layer<Storage.Storage, InvalidOptions, Storage.Storage> =>
  Layer.effect(Storage.Storage, Effect.flatMap(Storage.Storage, (storage) => make(storage, options)))

/**
 * Provides the storage that it needs, which stores objects in less space, with options from `Config`.
 *
 * @since 0.1.0
 * @category layers
 * @example
 * ```ts
 * import { Config } from "effect"
 * import { StorageCompression } from "surfing-weights"
 *
 * const Compression = StorageCompression.layerConfig({ buffer: Config.integer("WEIGHTS_BUFFER") })
 * ```
 */
export const layerConfig = <Err = never, R = never>(
  options: Config.Config.Wrap<MemoryOptions>,
  scratch?: Layer.Layer<Storage.Storage, Err, R>
): Layer.Layer<Storage.Storage, Err | InvalidOptions | ConfigError, Storage.Storage | R> =>
  Layer.unwrapEffect(Effect.map(Config.unwrap(options), (options) => layer({ ...options, scratch })))

const schema: Schema.Schema<Settings, Options> = Schema.Struct({
  buffer: Schema.optionalWith(size(), { default: () => 64 * 1024 * 1024 }),
  scratch: Schema.optional(storage)
})
