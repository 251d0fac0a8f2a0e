/**
 * Waits that end: an effect until a deadline, a stream for as long as there is more. Time is that of the `Clock`.
 */
import type * as Chunk from "effect/Chunk"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Option from "effect/Option"
import * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"

/**
 * The outcome of an effect, or the failure that `late` ends with where that comes first; `giveUp` is then run on the fiber
 * of the effect. Interrupted from outside, it waits for that fiber to end, or at the most until it is late.
 */
export const until = <A, Err, R, Late>(
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
 * In how many parts an idle time is waited for. Each counts for no more than it was to take: a process that was held up, by
 * a computation or a collection, sees a timer before it sees what has come in meanwhile, and that is not the peer's fault.
 */
export const idleParts = 4

/** Fails as `late` says once `idleSince` has told for `limit` milliseconds of the same moment. */
export const afterIdle = <Late>(
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

/** Fails as `late` says after so many milliseconds, counted likewise. */
export const after = <Late>(limit: number, late: () => Late): Effect.Effect<never, Late> =>
  Effect.clockWith((clock) => {
    const started = clock.unsafeCurrentTimeMillis()
    return afterIdle(() => started, limit, late)
  })

/** What an effect has acquired belongs to the scope around it from when it succeeds; where it fails, it is let go at once. */
export const inOwnScope = <A, Err, R>(effect: Effect.Effect<A, Err, R>): Effect.Effect<A, Err, R | Scope.Scope> =>
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
export const whileItComes = <A, Err, Late>(
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
export const whileItGoes = <A, Err, R, A2, Err2, R2, Late>(
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
