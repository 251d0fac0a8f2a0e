/**
 * Deadlines and idle timeouts, by the `Clock`.
 */
import type * as Chunk from "effect/Chunk"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Option from "effect/Option"
import * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"

/**
 * The outcome of an effect, or the failure of `late` if that comes first; `giveUp` is then run on the fiber of the effect. When
 * interrupted, it waits for that fiber to end, but no longer than until `late` fails.
 */
export const raceTimeout = <A, Err, R, Late>(
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

/**
 * An idle timeout is waited for in this many parts, and a part counts for no more than its own length: a process that was
 * blocked, by a computation or a garbage collection, sees a timer before it sees the data that arrived meanwhile.
 */
export const idleParts = 4

/** Fails with `late` once `idleSince` has returned the same time, in milliseconds, for `limit` milliseconds. */
export const idleTimeout = <Late>(
  idleSince: () => number | undefined,
  limit: number,
  late: () => Late
): Effect.Effect<never, Late> =>
  Effect.clockWith((clock) => {
    const part = limit / idleParts
    let since: number | undefined
    let idle = 0
    const look = (slept: number): Effect.Effect<never, Late> =>
      Effect.suspend(() => {
        const latest = idleSince()
        const isSame = latest === since
        since = latest
        if (latest === undefined) idle = 0
        else idle = isSame ? idle + slept : Math.min(clock.unsafeCurrentTimeMillis() - latest, slept)
        if (idle >= limit) return Effect.failSync(late)
        const next = Math.min(limit - idle, part)
        return Effect.zipRight(Effect.sleep(next), look(next))
      })
    return look(0)
  })

/** Fails with `late` after `limit` milliseconds, counted likewise. */
export const deadline = <Late>(limit: number, late: () => Late): Effect.Effect<never, Late> =>
  Effect.clockWith((clock) => {
    const started = clock.unsafeCurrentTimeMillis()
    return idleTimeout(() => started, limit, late)
  })

/** Resources that an effect acquires belong to the outer scope once it succeeds, and are released at once where it fails. */
export const inOwnScope = <A, Err, R>(effect: Effect.Effect<A, Err, R>): Effect.Effect<A, Err, R | Scope.Scope> =>
  Effect.uninterruptibleMask((restore) =>
    Effect.flatMap(Scope.make(), (scope) =>
      restore(Scope.extend(effect, scope)).pipe(
        Effect.onError((cause) => Scope.close(scope, Exit.failCause(cause))),
        Effect.zipLeft(Effect.addFinalizer((exit) => Scope.close(scope, exit)))
      ))
  )

/**
 * The same stream, which fails with `late` when a chunk does not arrive within `limit` milliseconds. One fiber watches the
 * time and another pulls, so that a pull that cannot be interrupted is abandoned; a race for each chunk would cost more than
 * the chunk.
 */
export const timeoutStream = <A, Err, Late>(
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
        (pull) => {
          const next = Effect.flatMap(Effect.zipRight(demanded, Effect.exit(pull)), give)
          // `Effect.forever` would yield to other fibers each time.
          return Effect.whileLoop({ while: () => true, body: () => next, step: () => {} })
        }
      )
    )
    const watching = Effect.flatMap(
      Effect.flip(idleTimeout(() => waiting?.since, limit, late)),
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
          : Effect.ignore(raceTimeout(deadline(limit, late), Fiber.interrupt(fiber), Fiber.interruptFork))
    )
    yield* Effect.forkScoped(Effect.interruptible(watching))
    return Effect.async<Chunk.Chunk<A>, Option.Option<Err | Late>>((resume) => {
      waiting = { since: clock.unsafeCurrentTimeMillis(), resume }
      onDemand()
    })
  }))
}

/** Saves a stream, and fails with `late` when its next chunk, or its end, is not taken within `limit` milliseconds. */
export const timeoutSave = <A, Err, R, A2, Err2, R2, Late>(
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
    return raceTimeout(idleTimeout(() => since, limit, late), save(watched), Fiber.interrupt)
  })
