/**
 * The one mechanism behind every retry: of an effect as a whole, of a body from the byte where it broke, of a listing
 * from the key where it broke. What succeeds at once costs nothing more.
 */
import * as Arr from "effect/Array"
import * as Chunk from "effect/Chunk"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as ExecutionStrategy from "effect/ExecutionStrategy"
import * as Exit from "effect/Exit"
import * as Schedule from "effect/Schedule"
import * as ScheduleDecision from "effect/ScheduleDecision"
import * as ScheduleIntervals from "effect/ScheduleIntervals"
import * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import { default as defaultPolicy, type RetryPolicy } from "../RetryPolicy.js"
import type { ListOptions, OpenedObject, StorageBackend, StreamOptions } from "../StorageBackend.js"
import * as E from "../StorageError.js"
import { isNameMissing, isTimeout } from "./connection.js"
import type { Peer } from "./httpCall.js"
import { annotate } from "./observability.js"
import { resuming } from "./resume.js"

/**
 * The same effect, tried again after each retryable failure as the policy says. When the policy ends, it fails with the
 * last failure, marked as exhausted.
 *
 * An attempt that failed may have been carried out, with only its response lost. From the second attempt on, a failure for
 * which `mayBeOwn` is true (for instance that the object already exists) may be the effect of that. It becomes an
 * exhausted `StorageUnavailable` that says so, with the failure before as its cause.
 */
export const retry = <A, Err extends E.StorageError, R>(
  effect: Effect.Effect<A, Err, R>,
  policy: RetryPolicy,
  mayBeOwn?: (error: Err) => boolean
): Effect.Effect<A, Err | E.StorageUnavailable, R> =>
  Effect.catchAll(effect, (first) => {
    const budget = makeBudget(policy)
    const again = (error: Err): Effect.Effect<A, Err | E.StorageUnavailable, R> =>
      Effect.zipRight(
        budget.spend(error),
        Effect.catchAll(
          effect,
          (next) => mayBeOwn?.(next) === true ? Effect.fail(inDoubt(error, next, budget.failures() + 1)) : again(next)
        )
      )
    return again(first)
  })

/**
 * Opens an object whose stream, if it breaks, resumes at the byte where it broke: the rest is opened under the etag of
 * the first response, so that every byte arrives once, and all of one version. What broke is closed before the wait.
 *
 * Attempts and waits add up until bytes arrive; then the policy restarts.
 */
export const openResuming = (
  open: (options: StreamOptions) => Effect.Effect<OpenedObject, E.LoadError, Scope.Scope>,
  options: StreamOptions,
  policy: RetryPolicy
): Effect.Effect<OpenedObject, E.LoadError, Scope.Scope> =>
  Effect.gen(function*() {
    const opening = new Resumable(open, policy, yield* Effect.scope)
    const first = yield* opening.attempt(options)
    return resuming(first, {
      canResume: E.isRetryable,
      openRest: (range, error, broken) =>
        Effect.zipRight(
          opening.retry(error, broken.position() > 0),
          opening.attempt({ ...options, range, ifMatch: first.info.etag, ifNoneMatch: undefined })
        )
    })
  })

/** Opens again what broke, each time in a child scope, so that it can be closed first. */
class Resumable {
  readonly #open: (options: StreamOptions) => Effect.Effect<OpenedObject, E.LoadError, Scope.Scope>
  readonly #outer: Scope.Scope
  readonly #budget: Budget
  #current: Scope.CloseableScope | undefined

  constructor(
    open: (options: StreamOptions) => Effect.Effect<OpenedObject, E.LoadError, Scope.Scope>,
    policy: RetryPolicy,
    outer: Scope.Scope
  ) {
    this.#open = open
    this.#outer = outer
    this.#budget = makeBudget(policy)
  }

  attempt(options: StreamOptions): Effect.Effect<OpenedObject, E.LoadError> {
    return Effect.flatMap(Scope.fork(this.#outer, ExecutionStrategy.sequential), (scope) => {
      this.#current = scope
      return Effect.catchAll(
        Scope.extend(this.#open(options), scope),
        (error) => Effect.zipRight(this.retry(error, false), this.attempt(options))
      )
    })
  }

  /** Closes what failed and waits as the policy says, which restarts if bytes have arrived; fails when the policy ends. */
  retry(error: E.LoadError, hasProgressed: boolean): Effect.Effect<void, E.LoadError> {
    return Effect.suspend(() => {
      if (hasProgressed) this.#budget.renew()
      const close = this.#current === undefined ? Effect.void : Scope.close(this.#current, Exit.fail(error))
      return Effect.zipRight(close, this.#budget.spend(error))
    })
  }
}

/** A listing that, if it breaks, resumes after the last key that arrived; the policy restarts with each page. */
export const listResuming = <A>(
  list: (options: ListOptions) => Stream.Stream<A, E.ListError>,
  keyOf: (item: A) => string,
  options: ListOptions,
  policy: RetryPolicy
): Stream.Stream<A, E.ListError> =>
  Stream.suspend(() => {
    const budget = makeBudget(policy)
    let rest = options
    const noted = (listing: Stream.Stream<A, E.ListError>): Stream.Stream<A, E.ListError> =>
      Stream.mapChunks(listing, (page) => {
        if (Chunk.isNonEmpty(page)) {
          rest = { ...rest, startAfter: keyOf(Chunk.lastNonEmpty(page)) }
          budget.renew()
        }
        return page
      })
    const resume = (broken: Stream.Stream<A, E.ListError>): Stream.Stream<A, E.ListError> =>
      Stream.catchAll(
        noted(broken),
        (error) => Stream.unwrap(Effect.map(budget.spend(error), () => resume(list(rest))))
      )
    return resume(list(options))
  })

/** Removes a batch, then again the keys that failed with something retryable, until there are none or the policy ends. */
export const removeAllRetrying = (
  removeAll: StorageBackend["removeAll"],
  keys: ReadonlyArray<string>,
  policy: RetryPolicy
): ReturnType<StorageBackend["removeAll"]> =>
  Effect.suspend(() => {
    const settled: Array<E.RemoveError> = []
    let passing: ReadonlyArray<E.RemoveError> = []
    let remaining = keys
    const attempt = Effect.suspend(() =>
      Effect.flatMap(removeAll(remaining), (failures) => {
        const [others, again] = Arr.partition(failures, (error) => error.key !== undefined && E.isRetryable(error))
        settled.push(...others)
        passing = again
        remaining = again.flatMap(({ key }) => key === undefined ? [] : [key])
        return again[0] === undefined ? Effect.void : Effect.fail(again[0])
      })
    )
    return Effect.matchEffect(retry(attempt, policy), {
      onSuccess: () => Effect.succeed(settled),
      onFailure: (error) => {
        const attempts = "attempts" in error ? error.attempts : undefined
        // Where other keys of the batch are gone already, the failure is of those that remain, not of the batch.
        return attempts === undefined || passing.length === 0
          ? Effect.fail(error)
          : Effect.succeed([...settled, ...passing.map((error) => E.exhausted(error, attempts))])
      }
    })
  })

/**
 * The policy as the storage `name` follows it: each retry is logged, and what cannot pass ends it. The default policy also
 * ends early for a server that has never responded, as its address may be wrong.
 */
export const prepare = (policy: RetryPolicy, name: string, peer?: Peer): RetryPolicy =>
  Schedule.makeWithState<Prepared, E.StorageError, unknown>(
    { policy: policy.initial as unknown, failures: 0, wasNameMissing: false },
    (now, error, state) =>
      Effect.flatMap(policy.step(now, error, state.policy), ([inner, out, decision]) => {
        const failures = state.failures + 1
        const next = { policy: inner as unknown, failures, wasNameMissing: isNameMissing(error) }
        const isNew = policy === defaultPolicy && peer?.hasResponded === false
        const isOver = ScheduleDecision.isDone(decision) ||
          (state.wasNameMissing && next.wasNameMissing) ||
          (isNew && failures >= (isTimeout(error) ? triesUntilTimeout : triesUntilResponse))
        if (isOver) return Effect.succeed([next, out, ScheduleDecision.done])
        const wait = Duration.millis(Math.max(0, Math.ceil(ScheduleIntervals.start(decision.intervals) - now)))
        const log = failures < 3 ? Effect.logDebug : Effect.logWarning
        return Effect.as(
          log(`${name}: ${error.message}; retry ${failures} in ${Duration.format(wait)}`),
          [next, out, decision]
        )
      })
  )

interface Prepared {
  readonly policy: unknown
  readonly failures: number
  readonly wasNameMissing: boolean
}

/** How often a server that has never responded is tried: one that is starting needs a few, a wrong address none. */
const triesUntilResponse = 5

/** The same where each takes as long as a timeout. */
const triesUntilTimeout = 3

/** What a policy still allows. */
interface Budget {
  /** Waits as the policy says, or fails with the failure given, which is exhausted if it was retryable. */
  readonly spend: <Err extends E.StorageError>(error: Err) => Effect.Effect<void, Err>
  /** Restarts the policy. */
  readonly renew: () => void
  /** How many failures were spent since the policy began. */
  readonly failures: () => number
}

const makeBudget = (policy: RetryPolicy): Budget => {
  let driver: Schedule.ScheduleDriver<unknown, E.StorageError> | undefined
  let failures = 0
  let attempts = 1
  const current = Effect.suspend(() =>
    driver === undefined
      ? Effect.tap(Schedule.driver(policy), (made) => {
        driver = made
      })
      : Effect.succeed(driver)
  )
  return {
    spend: (error) =>
      Effect.suspend(() => {
        if (!E.isRetryable(error)) return Effect.fail(error)
        failures++
        return Effect.flatMap(
          current,
          (driver) => Effect.mapError(driver.next(error), () => E.exhausted(error, failures))
        ).pipe(Effect.zipRight(Effect.suspend(() => annotate("storage.attempts", ++attempts))))
      }),
    renew: () => {
      driver = undefined
      failures = 0
    },
    failures: () => failures
  }
}

const inDoubt = (before: E.StorageError, now: E.StorageError, attempts: number): E.StorageUnavailable =>
  new E.StorageUnavailable({
    key: before.key,
    reason: "an attempt failed but may have been carried out, since the next one failed with " +
      `${now._tag}; check the object before you try again`,
    cause: before,
    attempts
  })
