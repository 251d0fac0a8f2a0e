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
import type * as Chunk from "effect/Chunk"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
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
    until(after(deadline, late(operation, deadline, key)), effect, Fiber.interrupt)

  const read = <A, Err, R>(effect: Effect.Effect<A, Err, R>, operation: string, key?: string, limit = deadline) =>
    until(after(limit, late(operation, limit, key)), effect, Fiber.interruptFork)

  const stream = <A, Err>(stream: Stream.Stream<A, Err>, operation: string, key?: string) =>
    whileItComes(stream, idleLimit, late(operation, idleLimit, key))

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
        : whileItGoes(data, (data) => inner.save(key, data, options), idleLimit, late("save", idleLimit, key)),
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

/**
 * The outcome of an effect, or the failure that `late` ends with where that comes first; `giveUp` is then run on the fiber
 * of the effect. Interrupted from outside, it waits for that fiber to end, or at the most until it is late.
 */
const until = <A, Err, R, Late>(
  late: Effect.Effect<never, Late>,
  effect: Effect.Effect<A, Err, R>,
  giveUp: (fiber: Fiber.RuntimeFiber<A, Err>) => Effect.Effect<unknown>
): Effect.Effect<A, Err | Late, R> =>
  Effect.uninterruptibleMask((restore) =>
    Effect.gen(function*() {
      const working = yield* Effect.forkDaemon(Effect.interruptible(effect))
      const watching = yield* Effect.forkDaemon(Effect.interruptible(late))
      // A race would wait for the one that loses, and where the caller cannot be interrupted that one could not either.
      const isLate = Effect.async<boolean>((resume) => {
        working.addObserver(() => resume(Effect.succeed(false)))
        watching.addObserver(() => resume(Effect.succeed(true)))
      })
      const interrupted = giveUp(working).pipe(Effect.zipRight(isLate), Effect.zipRight(Fiber.interrupt(watching)))
      if (yield* Effect.onInterrupt(restore(isLate), () => interrupted)) {
        yield* giveUp(working)
        return yield* Fiber.join(watching)
      }
      yield* Fiber.interrupt(watching)
      return yield* Fiber.join(working)
    })
  )

const after = <Late>(limit: number, late: () => Late): Effect.Effect<never, Late> =>
  Effect.zipRight(Effect.sleep(limit), Effect.failSync(late))

/** Fails as `late` says once `idleSince` has told for `limit` milliseconds of the same moment. */
const afterIdle = <Late>(
  idleSince: () => number | undefined,
  limit: number,
  late: () => Late
): Effect.Effect<never, Late> =>
  Effect.clockWith((clock) => {
    const look: Effect.Effect<never, Late> = Effect.suspend(() => {
      const now = clock.unsafeCurrentTimeMillis()
      const left = (idleSince() ?? now) + limit - now
      return left > 0 ? Effect.zipRight(Effect.sleep(left), look) : Effect.failSync(late)
    })
    return look
  })

/** What an effect has acquired belongs to the scope around it from when it succeeds; where it fails, it is let go at once. */
const inOwnScope = <A, Err, R>(effect: Effect.Effect<A, Err, R>): Effect.Effect<A, Err, R | Scope.Scope> =>
  Effect.uninterruptibleMask((restore) =>
    Effect.flatMap(Scope.make(), (scope) =>
      restore(Scope.extend(effect, scope)).pipe(
        Effect.onError((cause) => Scope.close(scope, Exit.failCause(cause))),
        Effect.zipLeft(Effect.addFinalizer((exit) => Scope.close(scope, exit)))
      ))
  )

/**
 * The same stream, which fails once a chunk has been waited for so long. One fiber looks at the time now and then, and
 * another pulls, so that a pull that cannot be interrupted is left to itself; a race for each chunk would cost more than
 * the chunk.
 */
const whileItComes = <A, Err, Late>(
  stream: Stream.Stream<A, Err>,
  limit: number,
  late: () => Late
): Stream.Stream<A, Err | Late> => {
  type Next = Effect.Effect<Chunk.Chunk<A>, Option.Option<Err | Late>>
  return Stream.fromPull(Effect.gen(function*() {
    const clock = yield* Effect.clock
    let waiting: { readonly since: number; readonly resume: (next: Next) => void } | undefined
    let onDemand = () => {}
    let isLate = false

    const demanded = Effect.async<void>((resume) => {
      onDemand = () => resume(Effect.void)
      if (waiting !== undefined) onDemand()
    })
    const give = (next: Next) =>
      Effect.sync(() => {
        const { resume } = waiting ?? {}
        waiting = undefined
        resume?.(next)
      })
    const pulling = Effect.scoped(
      Effect.flatMap(
        Stream.toPull(stream),
        (pull) => Effect.forever(Effect.flatMap(Effect.zipRight(demanded, Effect.exit(pull)), give))
      )
    )
    const watching = Effect.flatMap(
      Effect.flip(afterIdle(() => waiting?.since, limit, late)),
      (error) => {
        isLate = true
        return give(Effect.fail(Option.some(error)))
      }
    )

    yield* Effect.acquireRelease(
      Effect.forkDaemon(Effect.interruptible(pulling)),
      (fiber) =>
        isLate
          ? Fiber.interruptFork(fiber)
          : Effect.ignore(until(after(limit, late), Fiber.interrupt(fiber), Fiber.interruptFork))
    )
    yield* Effect.forkScoped(Effect.interruptible(watching))
    return Effect.async<Chunk.Chunk<A>, Option.Option<Err | Late>>((resume) => {
      waiting = { since: clock.unsafeCurrentTimeMillis(), resume }
      onDemand()
    })
  }))
}

/** Saves a stream, and fails once the next chunk of it, or its end, has been there for so long and was not taken. */
const whileItGoes = <A, Err, R, A2, Err2, R2, Late>(
  data: Stream.Stream<A, Err, R>,
  save: (data: Stream.Stream<A, Err, R>) => Effect.Effect<A2, Err2, R2>,
  limit: number,
  late: () => Late
): Effect.Effect<A2, Err2 | Late, R2> =>
  Effect.flatMap(Effect.clock, (clock) => {
    let since: number | undefined = clock.unsafeCurrentTimeMillis()
    const watched = Stream.fromPull(Effect.map(Stream.toPull(data), (pull) =>
      Effect.suspend(() => {
        since = undefined
        return Effect.ensuring(
          pull,
          Effect.sync(() => {
            since = clock.unsafeCurrentTimeMillis()
          })
        )
      })))
    return until(afterIdle(() => since, limit, late), save(watched), Fiber.interrupt)
  })
