/**
 * Deadlines and idle timeouts, by the `Clock`. Each is an `IdleTimer`.
 */
import type * as Chunk from "effect/Chunk"
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as DefaultServices from "effect/DefaultServices"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as FiberId from "effect/FiberId"
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
 * A timeout is waited for in this many parts, and a part counts for no more than its own length: a process that was blocked,
 * by a computation or a garbage collection, sees a timer before it sees the data that arrived meanwhile.
 */
const parts = 4

/**
 * Calls `onIdle` once the peer has left us waiting for `limit` milliseconds. It runs from the start; what the peer does is
 * reported by writing a field, not by an effect. Stop it when the wait is over.
 */
export class IdleTimer {
  readonly #clock: Clock.Clock
  readonly #limit: number
  readonly #onIdle: () => void
  /** Since when the peer has done nothing; `undefined` while it is not waited for. */
  #since: number | undefined
  /** The same at the last look. */
  #seen: number | undefined
  #idle = 0
  #cancel: () => void

  constructor(clock: Clock.Clock, limit: number, onIdle: () => void) {
    this.#clock = clock
    this.#limit = limit
    this.#onIdle = onIdle
    this.#since = clock.unsafeCurrentTimeMillis()
    this.#seen = this.#since
    this.#cancel = this.#lookAfter(limit / parts)
  }

  /** The peer has done something, or is waited for from now on. */
  restart(): void {
    this.#since = this.#clock.unsafeCurrentTimeMillis()
  }

  /** The peer is not waited for until the next `restart`. */
  pause(): void {
    this.#since = undefined
  }

  stop(): void {
    this.#cancel()
  }

  #lookAfter(millis: number): () => void {
    return schedule(this.#clock, millis, () => this.#look(millis))
  }

  #look(slept: number): void {
    const since = this.#since
    if (since === undefined) this.#idle = 0
    else if (since === this.#seen) this.#idle += slept
    else this.#idle = Math.max(0, Math.min(this.#clock.unsafeCurrentTimeMillis() - since, slept))
    this.#seen = since
    if (this.#idle >= this.#limit) this.#onIdle()
    else this.#cancel = this.#lookAfter(Math.min(this.#limit - this.#idle, this.#limit / parts))
  }
}

const liveClock = Context.get(DefaultServices.liveServices, Clock.Clock)

/** Runs `task` later; returns how to cancel it. */
const schedule = (clock: Clock.Clock, millis: number, task: () => void): () => void => {
  if (clock === liveClock) {
    // A fiber takes ten times as long as this, which the row `s3-small` of the benchmark shows.
    const timer = setTimeout(task, millis)
    return () => clearTimeout(timer)
  }
  const fiber = Effect.runFork(Effect.zipRight(clock.sleep(Duration.millis(millis)), Effect.sync(task)))
  return () => fiber.unsafeInterruptAsFork(FiberId.none)
}

/** Fails with `late` once the timer that `begin` receives is idle for `limit` milliseconds. */
const expiry = <Late>(
  limit: number,
  late: () => Late,
  begin: (timer: IdleTimer) => void = () => {}
): Effect.Effect<never, Late> =>
  Effect.clockWith((clock) =>
    Effect.async<never, Late>((resume) => {
      const timer = new IdleTimer(clock, limit, () => resume(Effect.failSync(late)))
      begin(timer)
      return Effect.sync(() => timer.stop())
    })
  )

/** Fails with `late` after `limit` milliseconds, of which those when the process was blocked do not count. */
export const deadline = <Late>(limit: number, late: () => Late): Effect.Effect<never, Late> => expiry(limit, late)

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
 * The same stream, which fails with `late` when a chunk does not arrive within `limit` milliseconds. A separate fiber pulls,
 * so that a pull that cannot be interrupted is abandoned; a race for each chunk would cost more than the chunk.
 */
export const timeoutStream = <A, Err, Late>(
  stream: Stream.Stream<A, Err>,
  limit: number,
  late: () => Late
): Stream.Stream<A, Err | Late> => {
  type Next = Effect.Effect<Chunk.Chunk<A>, Option.Option<Err | Late>>
  return Stream.fromPull(Effect.gen(function*() {
    let waiting: ((next: Next) => void) | undefined
    let onDemand = () => {}
    let isLate = false

    const give = (next: Next) => {
      const resume = waiting
      waiting = undefined
      timer.pause()
      resume?.(next)
    }
    const timer = new IdleTimer(yield* Effect.clock, limit, () => {
      isLate = true
      give(Effect.failSync(() => Option.some(late())))
    })
    timer.pause()

    const demanded = Effect.async<void>((resume) => {
      onDemand = () => resume(Effect.void)
      if (waiting !== undefined) onDemand()
    })
    const pulling = Effect.scoped(
      Effect.flatMap(
        Stream.toPull(stream),
        (pull) => {
          const next = Effect.map(Effect.zipRight(demanded, Effect.exit(pull)), give)
          // `Effect.forever` would yield to other fibers each time.
          return Effect.whileLoop({ while: () => true, body: () => next, step: () => {} })
        }
      )
    )
    yield* Effect.acquireRelease(
      Effect.forkDaemon(Effect.interruptible(pulling)),
      (fiber) =>
        isLate
          ? Fiber.interruptFork(fiber)
          : Effect.ignore(raceTimeout(deadline(limit, late), Fiber.interrupt(fiber), Fiber.interruptFork))
    )
    yield* Effect.addFinalizer(() => Effect.sync(() => timer.stop()))
    return Effect.async<Chunk.Chunk<A>, Option.Option<Err | Late>>((resume) => {
      waiting = resume
      timer.restart()
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
  Effect.suspend(() => {
    let timer: IdleTimer | undefined
    let isPulling = false
    const isTaken = (pulling: boolean) => {
      isPulling = pulling
      if (pulling) timer?.pause()
      else timer?.restart()
    }
    const watched = Stream.fromPull(Effect.map(Stream.toPull(data), (pull) =>
      Effect.suspend(() => {
        isTaken(true)
        return Effect.ensuring(pull, Effect.sync(() => isTaken(false)))
      })))
    const expired = expiry(limit, late, (made) => {
      timer = made
      if (isPulling) timer.pause()
    })
    return raceTimeout(expired, save(watched), Fiber.interrupt)
  })
