/**
 * A storage of which only so much is asked: so many operations at once, and where that is wanted so many requests and
 * bytes a second. What is too much waits, first come first served.
 *
 * A stream or listing holds its place from when it is opened until it ends. An operation that runs while a stream of the
 * same storage is being read needs a place beside it: with `concurrency: 1` it would wait for ever. Only what a save reads
 * from the storage that it saves to shares the place of the save.
 *
 * @module StorageLimit
 * @since 0.1.0
 */
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as FiberId from "effect/FiberId"
import * as FiberRef from "effect/FiberRef"
import * as Layer from "effect/Layer"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import * as Storage from "../Storage.js"
import type { StorageBackend } from "../StorageBackend.js"
import { UnsupportedOperation } from "../StorageError.js"

/**
 * How much is asked of a storage.
 *
 * @since 0.1.0
 * @category models
 */
export interface Options {
  /** How many operations at once. */
  readonly concurrency: number
  /** How many operations begin in a second, evenly spaced. Default: any number. */
  readonly requestsPerSecond?: number
  /**
   * How many bytes are loaded and saved in a second, on the average: whoever had more than the share of the time before
   * makes those behind wait. What the storage copies by itself does not count. Default: any number.
   */
  readonly bytesPerSecond?: number
}

/**
 * The same storage within limits. Fails with `UnsupportedOperation` where a limit is not above zero, or `concurrency` not
 * a whole number.
 *
 * @since 0.1.0
 * @category constructors
 */
export const make = (
  storage: Storage.Service,
  options: Options
): Either.Either<Storage.Service, UnsupportedOperation> => {
  const name = `Limit(${storage.backend.name})`
  const wrong = Object.entries(options).find(([limit, value]: [string, number]) =>
    !(value > 0) || (limit === "concurrency" && !Number.isInteger(value))
  )
  return wrong === undefined
    ? Either.right(Storage.make(makeBackend(storage.backend, name, options)))
    : Either.left(
      new UnsupportedOperation({
        backend: name,
        operation: "open",
        reason: `${wrong[0]} is a ${wrong[0] === "concurrency" ? "whole number from 1 up" : "number above 0"}, not ` +
          String(wrong[1])
      })
    )
}

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
export const layer = (options: Options): Layer.Layer<Storage.Storage, UnsupportedOperation, Storage.Storage> =>
  Layer.effect(Storage.Storage, Effect.flatMap(Storage.Storage, (storage) => make(storage, options)))

const makeBackend = (inner: StorageBackend, name: string, options: Options): StorageBackend => {
  const places = makePlaces(options.concurrency)
  const begin = makeTurns(options.requestsPerSecond)
  const move = makePace(options.bytesPerSecond)
  const hasPlace = FiberRef.unsafeMake(false)

  const begun = <A, Err, R>(effect: Effect.Effect<A, Err, R>): Effect.Effect<A, Err, R> =>
    begin === undefined ? effect : Effect.zipRight(begin, effect)

  const within = <A, Err, R>(effect: Effect.Effect<A, Err, R>): Effect.Effect<A, Err, R> =>
    Effect.withFiberRuntime((fiber) => fiber.getFiberRef(hasPlace) ? begun(effect) : inPlace(places, begun(effect)))

  /** What is opened has a place until it runs the effect that it is given, or the scope ends; where it fails, until then. */
  const opening = <A, Err, R>(
    open: (leave: Effect.Effect<void>) => Effect.Effect<A, Err, R>
  ): Effect.Effect<A, Err, R | Scope.Scope> =>
    Effect.flatMap(
      FiberRef.get(hasPlace),
      (already) =>
        already ? begun(open(Effect.void)) : Effect.uninterruptibleMask((restore) => {
          const turn = places.take()
          let left = false
          const leave = Effect.sync(() => {
            if (!left) places.leave(turn)
            left = true
          })
          return Effect.zipRight(
            Effect.addFinalizer(() => leave),
            Effect.onError(restore(Effect.zipRight(ready(turn), begun(open(leave)))), () => leave)
          )
        })
    )

  const listing = <A, Err>(stream: Stream.Stream<A, Err>): Stream.Stream<A, Err> =>
    Stream.unwrapScoped(opening(() => Effect.succeed(stream)))

  const moved = (sizes: Iterable<Uint8Array>): Effect.Effect<void> => {
    if (move === undefined) return Effect.void
    let size = 0
    for (const { byteLength } of sizes) size += byteLength
    return move(size)
  }

  const paced = <Err, R>(bytes: Stream.Stream<Uint8Array, Err, R>): Stream.Stream<Uint8Array, Err, R> =>
    move === undefined ? bytes : Stream.mapChunksEffect(bytes, (chunk) => Effect.as(moved(chunk), chunk))

  return {
    name,
    capabilities: inner.capabilities,
    open: (key, options) =>
      opening((leave) =>
        Effect.map(inner.open(key, options), ({ info, range, stream }) => ({
          info,
          range,
          stream: Stream.ensuring(paced(stream), leave)
        }))
      ),
    load: (key, options) => {
      const load = inner.load(key, options)
      return within(move === undefined ? load : Effect.tap(load, ({ byteLength }) => move(byteLength)))
    },
    loadRanges: (key, ranges, options) => within(Effect.tap(inner.loadRanges(key, ranges, options), moved)),
    head: (key) => within(inner.head(key)),
    save: (key, data, options) =>
      within(
        data instanceof Uint8Array
          ? Effect.zipLeft(inner.save(key, data, options), moved([data]))
          : Effect.locally(inner.save(key, paced(data), options), hasPlace, true)
      ),
    entries: (options) => listing(inner.entries(options)),
    keys: (options) => listing(inner.keys(options)),
    listDirectory: (prefix) => within(inner.listDirectory(prefix)),
    remove: (key) => within(inner.remove(key)),
    removeAll: (keys) => within(inner.removeAll(keys)),
    copy: (from, to, options) => within(inner.copy(from, to, options)),
    move: (from, to, options) => within(inner.move(from, to, options)),
    presign: (key, options) => within(inner.presign(key, options))
  }
}

/** To be waited for, or over already. */
type Turn = Deferred.Deferred<void> | undefined

interface Places {
  /** Takes a place; where none is free, one after those who came before. */
  readonly take: () => Turn
  /** Gives it up, or no longer waits for it. */
  readonly leave: (turn: Turn) => void
}

/**
 * So many places. A semaphore would let whoever asks just when a place is free go before those that wait for it.
 */
const makePlaces = (count: number): Places => {
  let free = count
  const queue = new Set<Deferred.Deferred<void>>()
  return {
    take: () => {
      if (free > 0) {
        free--
        return undefined
      }
      const turn = Deferred.unsafeMake<void>(FiberId.none)
      queue.add(turn)
      return turn
    },
    leave: (turn) => {
      if (turn !== undefined && queue.delete(turn)) return
      const [next] = queue
      if (next === undefined) {
        free++
      } else {
        queue.delete(next)
        Deferred.unsafeDone(next, Effect.void)
      }
    }
  }
}

const ready = (turn: Turn): Effect.Effect<void> => turn === undefined ? Effect.void : Deferred.await(turn)

const inPlace = <A, Err, R>(places: Places, effect: Effect.Effect<A, Err, R>): Effect.Effect<A, Err, R> =>
  Effect.uninterruptibleMask((restore) => {
    const turn = places.take()
    return Effect.ensuring(
      restore(turn === undefined ? effect : Effect.zipRight(ready(turn), effect)),
      Effect.sync(() => places.leave(turn))
    )
  })

/** Waits for one's turn, of which there are so many a second. Who does not wait until then takes none. */
const makeTurns = (perSecond: number | undefined): Effect.Effect<void> | undefined => {
  if (perSecond === undefined) return undefined
  const first = makePlaces(1)
  let next = 0
  return Effect.clockWith((clock) => {
    const asked = clock.unsafeCurrentTimeMillis()
    const wait = Effect.suspend(() => {
      const left = next - clock.unsafeCurrentTimeMillis()
      return left > 0 ? Effect.sleep(left) : Effect.void
    })
    const go = Effect.sync(() => {
      // Not counted from now: a timer is late, and all that come after would be as much later.
      next = Math.max(next, asked) + 1000 / perSecond
    })
    return inPlace(first, Effect.zipRight(wait, go))
  })
}

/**
 * Counts `cost`, and waits until what was counted before has had its time, at so much a second. It is counted although
 * nobody should wait: what has moved has moved.
 */
const makePace = (perSecond: number | undefined): ((cost: number) => Effect.Effect<void>) | undefined => {
  if (perSecond === undefined) return undefined
  let free = 0
  return (cost) =>
    Effect.clockWith((clock) => {
      const now = clock.unsafeCurrentTimeMillis()
      const wait = free - now
      free = Math.max(free, now) + cost / perSecond * 1000
      return wait > 0 ? Effect.sleep(wait) : Effect.void
    })
}
