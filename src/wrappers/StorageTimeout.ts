/**
 * A storage that nobody waits for without end. What takes longer than it may fails with `StorageError.StorageTimeout`,
 * which is retried: a timeout stands inside the retries, so that each attempt has its own.
 *
 * - The `deadline` is for what is done as a whole: loads, saves of bytes, heads, removals, copies.
 * - The `idleLimit` is for what goes on for as long as there is more: how long a stream or a listing may take to open, and
 *   then for its next chunk; and how long a save of a stream may leave the next chunk untaken, or take to end. The time
 *   that the reader of a stream takes, or the source of a save, does not count.
 *
 * What only reads is given up at once, and cleaned up behind the caller's back if that takes longer. What changes something
 * is undone first: else it might still be carried out after the caller has gone on.
 *
 * @module StorageTimeout
 * @since 0.1.0
 */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import type * as Stream from "effect/Stream"
import { deadline, inOwnScope, raceTimeout, timeoutStream, timeoutSave } from "../internal/timeouts.js"
import * as Storage from "../Storage.js"
import type { StorageBackend } from "../StorageBackend.js"
import * as E from "../StorageError.js"

/**
 * How long to wait. `Infinity` is without end.
 *
 * @since 0.1.0
 * @category models
 */
export interface Options {
  /** For an operation that is done as a whole. */
  readonly deadline: Duration.DurationInput
  /** For the next step of a stream, a listing, or a save of a stream. */
  readonly idleLimit: Duration.DurationInput
}

/**
 * The same storage with timeouts. Fails with `UnsupportedOperation` where one is not above zero.
 *
 * @since 0.1.0
 * @category constructors
 */
export const make = (
  storage: Storage.Service,
  options: Options
): Either.Either<Storage.Service, E.UnsupportedOperation> => {
  const name = `Timeout(${storage.backend.name})`
  const limits = { deadline: Duration.toMillis(options.deadline), idleLimit: Duration.toMillis(options.idleLimit) }
  const wrong = Object.entries(limits).find(([, limit]) => !(limit > 0))
  return wrong === undefined
    ? Either.right(Storage.make(makeBackend(storage.backend, name, limits)))
    : Either.left(
      new E.UnsupportedOperation({
        backend: name,
        operation: "open",
        reason: `${wrong[0]} is longer than no time at all, and not ${Duration.format(wrong[1])}`
      })
    )
}

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
 *   Layer.provide(StorageTimeout.layer({ deadline: "1 minute", idleLimit: "10 seconds" })),
 *   Layer.provide(MemoryStorage.layer())
 * )
 * ```
 */
export const layer = (options: Options): Layer.Layer<Storage.Storage, E.UnsupportedOperation, Storage.Storage> =>
  Layer.effect(Storage.Storage, Effect.flatMap(Storage.Storage, (storage) => make(storage, options)))

const makeBackend = (
  inner: StorageBackend,
  name: string,
  { deadline, idleLimit }: { readonly deadline: number; readonly idleLimit: number }
): StorageBackend => {
  const late = (operation: string, limit: number, key?: string) => () =>
    new E.StorageTimeout({
      backend: inner.name,
      operation,
      ...(key !== undefined && { key }),
      limit: Duration.millis(limit)
    })

  /** For what changes something: it is undone before it is given up. */
  const write = <A, Err, R>(effect: Effect.Effect<A, Err, R>, operation: string, key?: string) =>
    raceTimeout(deadline(deadline, late(operation, deadline, key)), effect, Fiber.interrupt)

  const read = <A, Err, R>(effect: Effect.Effect<A, Err, R>, operation: string, key?: string, limit = deadline) =>
    raceTimeout(deadline(limit, late(operation, limit, key)), effect, Fiber.interruptFork)

  const stream = <A, Err>(stream: Stream.Stream<A, Err>, operation: string, key?: string) =>
    timeoutStream(stream, idleLimit, late(operation, idleLimit, key))

  return {
    name,
    capabilities: inner.capabilities,
    open: (key, options) =>
      Effect.map(read(inOwnScope(inner.open(key, options)), "open", key, idleLimit), (opened) => ({
        info: opened.info,
        range: opened.range,
        stream: stream(opened.stream, "load", key)
      })),
    load: (key, options) => read(inner.load(key, options), "load", key),
    loadRanges: (key, ranges, options) => read(inner.loadRanges(key, ranges, options), "loadRanges", key),
    head: (key) => read(inner.head(key), "head", key),
    save: (key, data, options) =>
      data instanceof Uint8Array
        ? write(inner.save<never, never>(key, data, options), "save", key)
        : timeoutSave(data, (data) => inner.save(key, data, options), idleLimit, late("save", idleLimit, key)),
    entries: (options) => stream(inner.entries(options), "entries"),
    keys: (options) => stream(inner.keys(options), "list"),
    listDirectory: (prefix) => read(inner.listDirectory(prefix), "listDirectory"),
    remove: (key) => write(inner.remove(key), "remove", key),
    removeAll: (keys) => write(inner.removeAll(keys), "removeAll"),
    copy: (from, to, options) => write(inner.copy(from, to, options), "copy", from),
    move: (from, to, options) => write(inner.move(from, to, options), "move", from),
    presign: (key, options) => read(inner.presign(key, options), "presign", key)
  }
}
