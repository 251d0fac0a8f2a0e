/**
 * Adds deadlines and idle timeouts to every operation. What takes too long fails with `StorageError.StorageTimeout`, which is
 * retryable: place the timeout inside the retries, so that each attempt has its own.
 *
 * - The `deadline` applies to an operation as a whole: loads, saves of bytes, heads, removals, copies.
 * - The `idleTimeout` applies to streams, listings and saves of streams: to opening a stream or listing, and then to each wait
 *   for its next chunk; to each wait of a save until the storage accepts the next chunk or completes. Time spent in the
 *   reader of a stream or in the source of a save does not count.
 *
 * A read that is late is abandoned at once and cleaned up in the background. A write that is late is interrupted, and its
 * cleanup waited for: otherwise it could still be carried out after the caller has continued.
 *
 * @module StorageTimeout
 * @since 0.1.0
 */
import * as Config from "effect/Config"
import type { ConfigError } from "effect/ConfigError"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import { dual } from "effect/Function"
import * as Layer from "effect/Layer"
import * as Schema from "effect/Schema"
import type * as Stream from "effect/Stream"
import { decode, duration } from "../internal/options.js"
import { deadline, inOwnScope, raceTimeout, timeoutSave, timeoutStream } from "../internal/timeouts.js"
import * as Storage from "../Storage.js"
import * as StorageBackend from "../StorageBackend.js"
import { type InvalidOptions, StorageTimeout } from "../StorageError.js"

/**
 * How long to wait. `Infinity` disables a limit.
 *
 * @since 0.1.0
 * @category models
 */
export interface Options {
  /** For an operation as a whole. */
  readonly deadline: Duration.DurationInput
  /** For the next step of a stream, a listing, or a save of a stream. */
  readonly idleTimeout: Duration.DurationInput
}

/**
 * The same storage with timeouts.
 *
 * @since 0.1.0
 * @category constructors
 * @example
 * ```ts
 * import { Effect } from "effect"
 * import { MemoryStorage, StorageTimeout } from "surfing-weights"
 *
 * const storage = MemoryStorage.make().pipe(
 *   Effect.flatMap(StorageTimeout.make({ deadline: "1 minute", idleTimeout: "10 seconds" }))
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
      decode("StorageTimeout", schema, options),
      (limits) => Storage.make(makeBackend(storage.backend, limits))
    )
)

/**
 * Provides the storage that it needs, with timeouts.
 *
 * @since 0.1.0
 * @category layers
 * @example
 * ```ts
 * import { Layer } from "effect"
 * import { MemoryStorage, StorageRetry, StorageTimeout } from "surfing-weights"
 *
 * const WeightsLive = StorageRetry.layer().pipe(
 *   Layer.provide(StorageTimeout.layer({ deadline: "1 minute", idleTimeout: "10 seconds" })),
 *   Layer.provide(MemoryStorage.layer())
 * )
 * ```
 */
export const layer = (options: Options): Layer.Layer<Storage.Storage, InvalidOptions, Storage.Storage> =>
  Layer.effect(Storage.Storage, Effect.flatMap(Storage.Storage, make(options)))

/**
 * Provides the storage that it needs, with timeouts from `Config`.
 *
 * @since 0.1.0
 * @category layers
 * @example
 * ```ts
 * import { Config } from "effect"
 * import { StorageTimeout } from "surfing-weights"
 *
 * const Timeout = StorageTimeout.layerConfig({
 *   deadline: Config.duration("WEIGHTS_DEADLINE"),
 *   idleTimeout: Config.succeed("10 seconds")
 * })
 * ```
 */
export const layerConfig = (
  options: Config.Config.Wrap<Options>
): Layer.Layer<Storage.Storage, InvalidOptions | ConfigError, Storage.Storage> =>
  Layer.unwrapEffect(Effect.map(Config.unwrap(options), layer))

/** In milliseconds. */
interface Limits {
  readonly deadline: number
  readonly idleTimeout: number
}

const schema: Schema.Schema<Limits, Options> = Schema.Struct({
  deadline: duration({ max: Infinity }),
  idleTimeout: duration({ max: Infinity })
})

const makeBackend = (inner: StorageBackend.StorageBackend, limits: Limits): StorageBackend.StorageBackend => {
  const late = (limit: number) => () => new StorageTimeout({ limit: Duration.millis(limit) })
  const stream = <A, Err>(stream: Stream.Stream<A, Err>): Stream.Stream<A, Err | StorageTimeout> =>
    timeoutStream(stream, limits.idleTimeout, late(limits.idleTimeout))

  const intercepted = StorageBackend.intercept(inner, {
    name: `Timeout(${inner.name})`,
    effect: (effect, { writes }) =>
      raceTimeout(
        deadline(limits.deadline, late(limits.deadline)),
        effect,
        writes ? Fiber.interrupt : Fiber.interruptFork
      ),
    stream
  })
  return {
    ...intercepted,
    open: (key, options) =>
      Effect.map(
        raceTimeout(
          deadline(limits.idleTimeout, late(limits.idleTimeout)),
          inOwnScope(inner.open(key, options)),
          Fiber.interruptFork
        ),
        (opened) => StorageBackend.mapStream(opened, stream)
      ),
    save: (key, data, options) =>
      data instanceof Uint8Array
        ? intercepted.save(key, data, options)
        : timeoutSave(data, (data) => inner.save(key, data, options), limits.idleTimeout, late(limits.idleTimeout))
  }
}
