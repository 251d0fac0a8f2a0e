/**
 * How often, and after which waits, a failed operation is tried again: a `Schedule` over storage failures. `default`
 * suits stores across a network; any other `Schedule` can stand in its place.
 *
 * A policy says when to try again, not what: a storage retries nothing that is not `StorageError.isRetryable`, whatever
 * the schedule would allow.
 *
 * @module RetryPolicy
 * @since 0.1.0
 */
import * as Duration from "effect/Duration"
import { dual } from "effect/Function"
import * as Schedule from "effect/Schedule"
import { isRetryable, type StorageError } from "./StorageError.js"

/**
 * Every schedule that takes storage failures, whatever it outputs.
 *
 * @since 0.1.0
 * @category models
 */
export type RetryPolicy = Schedule.Schedule<unknown, StorageError>

/**
 * The same schedule, made to respect what a store asks for: after a `StorageUnavailable` with a `retryAfter` the wait
 * is at least that long, whatever the schedule says. It outputs the wait before the next attempt.
 *
 * `within` bounds the whole: no attempt begins later than this after the first failure. A wait that would end beyond
 * it, because `retryAfter` or the schedule says so, is not begun: retrying ends at once and the failure comes through.
 *
 * @since 0.1.0
 * @category combinators
 * @example
 * ```ts
 * import { Schedule } from "effect"
 * import { RetryPolicy, StorageRetry } from "surfing-weights"
 *
 * const policy = Schedule.spaced("1 second").pipe(
 *   Schedule.intersect(Schedule.recurs(5)),
 *   RetryPolicy.respectRetryAfter({ within: "30 seconds" })
 * )
 *
 * const layer = StorageRetry.layer(policy)
 * ```
 */
export const respectRetryAfter: {
  (options: {
    readonly within: Duration.DurationInput
  }): <Out, R>(
    self: Schedule.Schedule<Out, StorageError, R>
  ) => Schedule.Schedule<Duration.Duration, StorageError, R>
  <Out, R>(
    self: Schedule.Schedule<Out, StorageError, R>,
    options: { readonly within: Duration.DurationInput }
  ): Schedule.Schedule<Duration.Duration, StorageError, R>
} = dual(
  2,
  <Out, R>(
    self: Schedule.Schedule<Out, StorageError, R>,
    { within }: { readonly within: Duration.DurationInput }
  ): Schedule.Schedule<Duration.Duration, StorageError, R> =>
    self.pipe(
      Schedule.intersect(Schedule.identity<StorageError>()),
      Schedule.modifyDelay(([, error], delay) => Duration.max(delay, askedFor(error))),
      Schedule.delays,
      Schedule.intersect(Schedule.elapsed),
      Schedule.whileOutput(([delay, elapsed]) => Duration.lessThanOrEqualTo(Duration.sum(delay, elapsed), within)),
      Schedule.map(([delay]) => delay)
    )
)

const askedFor = (error: StorageError): Duration.Duration =>
  (error._tag === "StorageUnavailable" ? error.retryAfter : undefined) ?? Duration.zero

/**
 * At most 10 retries within 3 minutes of the first failure. The wait before each is drawn at random between nothing
 * and a limit that starts at 100 ms and doubles each time up to 15 s, so that clients which failed together do not
 * come back together. `retryAfter` is respected, also beyond 15 s; where it leads beyond the 3 minutes, retrying ends
 * at once.
 *
 * It ends at once, too, on a failure that is not retryable, so it can be given to `Effect.retry` alone. It outputs
 * the wait before the next attempt.
 *
 * @since 0.1.0
 * @category constants
 * @example
 * ```ts
 * import { Effect } from "effect"
 * import { RetryPolicy, Storage } from "surfing-weights"
 *
 * const patient = Effect.retry(Storage.load("layer_0.bin"), RetryPolicy.default)
 * ```
 */
const default_: Schedule.Schedule<Duration.Duration, StorageError> = Schedule.exponential("100 millis", 2).pipe(
  Schedule.modifyDelay((_, delay) => Duration.min(delay, "15 seconds")),
  Schedule.jitteredWith({ min: 0, max: 1 }),
  Schedule.intersect(Schedule.recurs(10)),
  respectRetryAfter({ within: "3 minutes" }),
  Schedule.whileInput(isRetryable)
)

export { default_ as default }
