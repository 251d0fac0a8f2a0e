/**
 * Adds retries to a storage that does not retry: a temporary failure (`StorageError.isRetryable`) reaches the caller only
 * when the policy ends. It is then marked as exhausted, and no other retrying layer retries it.
 *
 * - Loads, heads, removals, copies, moves and saves of bytes are repeated as a whole.
 * - A stream that breaks resumes at the byte where it broke; if the object was overwritten meanwhile, it fails with
 *   `PreconditionFailed`. A listing resumes after its last key. The policy restarts whenever something has arrived.
 * - A save of a stream is not retried, since its source cannot be read again. Backends that save in parts retry each part
 *   by themselves.
 * - A conditional save, copy or removal, or a move, may be carried out although its response is lost. If the retry then
 *   meets `ObjectAlreadyExists`, `PreconditionFailed` or, for a move, `ObjectNotFound`, that may be its own effect: it fails
 *   with an exhausted `StorageUnavailable` that says so, with the first failure as its cause.
 *
 * Backends across a network take a `retry` option instead, which does the same and also retries the parts of a save.
 *
 * @module StorageRetry
 * @since 0.1.0
 */
import type * as Config from "effect/Config"
import type { ConfigError } from "effect/ConfigError"
import * as Effect from "effect/Effect"
import { dual } from "effect/Function"
import * as Layer from "effect/Layer"
import * as Predicate from "effect/Predicate"
import * as Schema from "effect/Schema"
import { decode, retry as retryPolicy } from "../internal/options.js"
import { listResuming, openResuming, prepare, removeAllRetrying, retry } from "../internal/retry.js"
import type { RetryPolicy } from "../RetryPolicy.js"
import * as Storage from "../Storage.js"
import * as StorageBackend from "../StorageBackend.js"
import type { InvalidOptions } from "../StorageError.js"

/**
 * The same storage with retries. Default of `policy`: `RetryPolicy.default`.
 *
 * @since 0.1.0
 * @category constructors
 * @example
 * ```ts
 * import { Effect, Schedule } from "effect"
 * import { MemoryStorage, StorageRetry } from "surfing-weights"
 *
 * const storage = MemoryStorage.make().pipe(
 *   Effect.flatMap(StorageRetry.make(Schedule.recurs(3)))
 * )
 * ```
 */
export const make: {
  (policy?: RetryPolicy): (storage: Storage.Service) => Effect.Effect<Storage.Service, InvalidOptions>
  (storage: Storage.Service, policy?: RetryPolicy): Effect.Effect<Storage.Service, InvalidOptions>
} = dual(
  (args) => Predicate.hasProperty(args[0], "backend"),
  (storage: Storage.Service, policy?: RetryPolicy): Effect.Effect<Storage.Service, InvalidOptions> =>
    Effect.map(
      decode("StorageRetry", schema, { policy }),
      ({ policy }) => Storage.make(makeBackend(storage.backend, policy))
    )
)

/**
 * Provides the storage that it needs, with retries. Default of `policy`: `RetryPolicy.default`.
 *
 * @since 0.1.0
 * @category layers
 * @example
 * ```ts
 * import { Layer, Schedule } from "effect"
 * import { MemoryStorage, StorageRetry } from "surfing-weights"
 *
 * const WeightsLive = StorageRetry.layer(Schedule.recurs(3)).pipe(
 *   Layer.provide(MemoryStorage.layer())
 * )
 * ```
 */
export const layer = (policy?: RetryPolicy): Layer.Layer<Storage.Storage, InvalidOptions, Storage.Storage> =>
  Layer.effect(Storage.Storage, Effect.flatMap(Storage.Storage, make(policy)))

/**
 * Provides the storage that it needs, with retries by a policy from `Config`.
 *
 * @since 0.1.0
 * @category layers
 * @example
 * ```ts
 * import { Config, Schedule } from "effect"
 * import { StorageRetry } from "surfing-weights"
 *
 * const Retry = StorageRetry.layerConfig(Config.map(Config.integer("WEIGHTS_RETRIES"), Schedule.recurs))
 * ```
 */
export const layerConfig = (
  policy: Config.Config<RetryPolicy>
): Layer.Layer<Storage.Storage, InvalidOptions | ConfigError, Storage.Storage> =>
  Layer.unwrapEffect(Effect.map(policy, layer))

const schema = Schema.Struct({ policy: retryPolicy })

const makeBackend = (
  inner: StorageBackend.StorageBackend,
  given: RetryPolicy
): StorageBackend.StorageBackend => {
  const name = `Retry(${inner.name})`
  const policy = prepare(given, name)
  const intercepted = StorageBackend.intercept(inner, {
    name,
    effect: (effect) => retry(effect, policy)
  })
  return {
    ...intercepted,
    open: (key, options) => openResuming((options) => inner.open(key, options), options, policy),
    save: (key, data, options) =>
      data instanceof Uint8Array
        ? retry(inner.save(key, data, options), policy, (error) => isConditional(options) && isUnmet(error))
        : inner.save(key, data, options),
    entries: (options) => listResuming(inner.entries, (info) => info.key, options, policy),
    keys: (options) => listResuming(inner.keys, (key) => key, options, policy),
    remove: (key, options) =>
      retry(inner.remove(key, options), policy, (error) => isConditional(options) && isUnmet(error)),
    removeAll: (keys) => removeAllRetrying(inner.removeAll, keys, policy),
    copy: (from, to, options) =>
      retry(inner.copy(from, to, options), policy, (error) => isConditional(options) && isUnmet(error)),
    move: (from, to, options) =>
      retry(
        inner.move(from, to, options),
        policy,
        (error) => error._tag === "ObjectNotFound" || (isConditional(options) && isUnmet(error))
      )
  }
}

const isConditional = ({ ifMatch, ifNoneMatch }: Pick<StorageBackend.SaveOptions, "ifMatch" | "ifNoneMatch">) =>
  ifMatch !== undefined || ifNoneMatch !== undefined

const isUnmet = (error: { readonly _tag: string }): boolean =>
  error._tag === "ObjectAlreadyExists" || error._tag === "PreconditionFailed"
