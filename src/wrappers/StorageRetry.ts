/**
 * Retries around a storage that has none of its own, so that a failure that may pass (`StorageError.isRetryable`) is
 * seen only when the policy ends. It is then marked as exhausted, and no other retrying layer tries it again.
 *
 * - Whatever can be repeated is repeated as a whole: loads, heads, removals, copies, moves, saves of bytes.
 * - A stream of bytes that breaks goes on at the byte where it broke, as long as the object is the same; if it was
 *   overwritten in between, the stream fails with `PreconditionFailed`. A listing goes on after its last key. The policy
 *   starts anew whenever something has come.
 * - A save of a stream is not retried, whoever failed: what was read of the stream cannot be read again. Backends that
 *   save in parts retry each part by themselves.
 * - A conditional save or copy, or a move, may be carried out although its answer is lost. If its retry then meets
 *   `ObjectAlreadyExists`, `PreconditionFailed` or, for a move, `ObjectNotFound`, nobody can tell whether that is its own
 *   work: it fails with an exhausted `StorageUnavailable` that says so, with the first failure as its cause.
 *
 * Backends across a network take a `retry` option instead, which does the same and retries the parts of a save as well.
 *
 * @module StorageRetry
 * @since 0.1.0
 */
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import { listResuming, openResuming, removeAllRetrying, retry } from "../internal/retry.js"
import * as RetryPolicy from "../RetryPolicy.js"
import * as Storage from "../Storage.js"
import type { StorageBackend } from "../StorageBackend.js"

/**
 * The same storage with retries. `policy` is `RetryPolicy.default` unless another is given.
 *
 * @since 0.1.0
 * @category constructors
 */
export const make = (
  storage: Storage.Service,
  policy: RetryPolicy.RetryPolicy = RetryPolicy.default
): Storage.Service => Storage.make(makeBackend(storage.backend, policy))

/**
 * Provides the storage it needs, with retries. `policy` is `RetryPolicy.default` unless another is given.
 *
 * @since 0.1.0
 * @category layers
 * @example
 * ```ts
 * import { Layer, Schedule } from "effect"
 * import { MemoryStorage, StorageRetry } from "surfing-weights"
 *
 * const layer = StorageRetry.layer(Schedule.recurs(3)).pipe(
 *   Layer.provide(MemoryStorage.layer())
 * )
 * ```
 */
export const layer = (
  policy: RetryPolicy.RetryPolicy = RetryPolicy.default
): Layer.Layer<Storage.Storage, never, Storage.Storage> =>
  Layer.effect(Storage.Storage, Effect.map(Storage.Storage, (storage) => make(storage, policy)))

const makeBackend = (inner: StorageBackend, policy: RetryPolicy.RetryPolicy): StorageBackend => {
  const name = `Retry(${inner.name})`
  return {
    name,
    capabilities: inner.capabilities,
    open: (key, options) => openResuming((options) => inner.open(key, options), options, policy, name),
    load: (key, options) => retry(inner.load(key, options), policy),
    loadRanges: (key, ranges, options) => retry(inner.loadRanges(key, ranges, options), policy),
    head: (key) => retry(inner.head(key), policy),
    save: (key, data, options) =>
      data instanceof Uint8Array
        ? retry(inner.save<never, never>(key, data, options), policy, (error) =>
          (options.ifNoneMatch !== undefined || options.ifMatch !== undefined) && isCondition(error))
        : inner.save(key, data, options),
    entries: (options) => listResuming(inner.entries, (info) => info.key, options, policy),
    keys: (options) => listResuming(inner.keys, (key) => key, options, policy),
    listDirectory: (prefix) => retry(inner.listDirectory(prefix), policy),
    remove: (key) => retry(inner.remove(key), policy),
    removeAll: (keys) => removeAllRetrying(inner.removeAll, keys, policy),
    copy: (from, to, options) =>
      retry(inner.copy(from, to, options), policy, (error) => options.ifNoneMatch !== undefined && isCondition(error)),
    move: (from, to, options) =>
      retry(
        inner.move(from, to, options),
        policy,
        (error) => error._tag === "ObjectNotFound" || (options.ifNoneMatch !== undefined && isCondition(error))
      ),
    presign: (key, options) => retry(inner.presign(key, options), policy)
  }
}

const isCondition = (error: { readonly _tag: string }): boolean =>
  error._tag === "ObjectAlreadyExists" || error._tag === "PreconditionFailed"
