/**
 * Limits concurrency and, if wanted, the rates of requests and bytes. What exceeds a limit waits, first come, first served.
 *
 * A stream or listing holds its permit from when it is opened until it ends. An operation that runs while a stream of the
 * same storage is being read needs a second permit: with `concurrency: 1` it would wait forever. Only what a save reads
 * from the storage that it saves to shares the permit of the save.
 *
 * @module StorageLimit
 * @since 0.1.0
 */
import * as Config from "effect/Config"
import type { ConfigError } from "effect/ConfigError"
import * as Effect from "effect/Effect"
import { dual } from "effect/Function"
import * as Layer from "effect/Layer"
import * as Schema from "effect/Schema"
import * as Stream from "effect/Stream"
import { count, decode, rate } from "../internal/options.js"
import * as Storage from "../Storage.js"
import * as StorageBackend from "../StorageBackend.js"
import type { InvalidOptions } from "../StorageError.js"
import { Limiter, totalOf } from "./limit/limiter.js"

/**
 * The limits.
 *
 * @since 0.1.0
 * @category models
 */
export interface Options {
  /** The number of operations at once. */
  readonly concurrency: number
  /** The number of operations that begin per second, evenly spaced. Default: unlimited. */
  readonly requestsPerSecond?: number | undefined
  /**
   * The number of bytes loaded and saved per second, on average: after more than that, the next ones wait. Bytes that the
   * store copies by itself do not count. Default: unlimited.
   */
  readonly bytesPerSecond?: number | undefined
}

/**
 * The same storage within limits.
 *
 * @since 0.1.0
 * @category constructors
 * @example
 * ```ts
 * import { Effect } from "effect"
 * import { MemoryStorage, StorageLimit } from "surfing-weights"
 *
 * const storage = MemoryStorage.make().pipe(
 *   Effect.flatMap(StorageLimit.make({ concurrency: 16 }))
 * )
 * ```
 */
export const make: {
  (options: Options): (storage: Storage.Service) => Effect.Effect<Storage.Service, InvalidOptions>
  (storage: Storage.Service, options: Options): Effect.Effect<Storage.Service, InvalidOptions>
} = dual(
  2,
  (storage: Storage.Service, options: Options): Effect.Effect<Storage.Service, InvalidOptions> =>
    Effect.map(
      decode("StorageLimit", schema, options),
      (options) => Storage.make(makeBackend(storage.backend, options))
    )
)

/**
 * Provides the storage that it needs, within limits.
 *
 * @since 0.1.0
 * @category layers
 * @example
 * ```ts
 * import { Layer } from "effect"
 * import { MemoryStorage, StorageLimit } from "surfing-weights"
 *
 * const WeightsLive = StorageLimit.layer({ concurrency: 16, bytesPerSecond: 50 * 1024 ** 2 }).pipe(
 *   Layer.provide(MemoryStorage.layer())
 * )
 * ```
 */
export const layer = (options: Options): Layer.Layer<Storage.Storage, InvalidOptions, Storage.Storage> =>
  Layer.effect(Storage.Storage, Effect.flatMap(Storage.Storage, make(options)))

/**
 * Provides the storage that it needs, within limits from `Config`.
 *
 * @since 0.1.0
 * @category layers
 * @example
 * ```ts
 * import { Config } from "effect"
 * import { StorageLimit } from "surfing-weights"
 *
 * const Limit = StorageLimit.layerConfig({
 *   concurrency: Config.withDefault(Config.integer("WEIGHTS_CONCURRENCY"), 16)
 * })
 * ```
 */
export const layerConfig = (
  options: Config.Config.Wrap<Options>
): Layer.Layer<Storage.Storage, InvalidOptions | ConfigError, Storage.Storage> =>
  Layer.unwrapEffect(Effect.map(Config.unwrap(options), layer))

const schema: Schema.Schema<Options> = Schema.Struct({
  concurrency: count(),
  requestsPerSecond: Schema.optional(rate),
  bytesPerSecond: Schema.optional(rate)
})

const makeBackend = (inner: StorageBackend.StorageBackend, options: Options): StorageBackend.StorageBackend => {
  const limiter = new Limiter(options)
  return {
    ...StorageBackend.intercept(inner, {
      name: `Limit(${inner.name})`,
      effect: (effect) => limiter.run(effect),
      stream: (listing) => Stream.unwrapScoped(limiter.opening(() => Effect.succeed(listing)))
    }),
    open: (key, options) =>
      limiter.opening((release) =>
        Effect.flatMap(inner.open(key, options), (opened) => {
          const { bytes } = opened
          return bytes === undefined
            ? Effect.succeed(
              StorageBackend.mapStream(opened, (stream) => Stream.ensuring(limiter.pacedStream(stream), release))
            )
            // The storage is not called any more.
            : Effect.zipLeft(limiter.paced(Effect.succeed(opened), () => bytes.byteLength), release)
        })
      ),
    load: (key, options) => limiter.run(limiter.paced(inner.load(key, options), ({ byteLength }) => byteLength)),
    loadRanges: (key, ranges, options) => limiter.run(limiter.paced(inner.loadRanges(key, ranges, options), totalOf)),
    save: (key, data, options) =>
      limiter.run(
        data instanceof Uint8Array
          ? limiter.paced(inner.save(key, data, options), () => data.byteLength)
          : limiter.sharing(inner.save(key, limiter.pacedStream(data), options))
      )
  }
}
