/**
 * When a failed operation is retried: a `Schedule` over storage failures. `default` suits stores across a network; any other
 * `Schedule` can be used in its place.
 *
 * A policy decides when to retry, not what: only failures for which `StorageError.isRetryable` is true are retried, whatever
 * the schedule. What cannot pass, such as a certificate that is not trusted, fails at once; a name that does not exist is looked
 * up twice. Each retry is logged with its reason and the wait before it: the first two as debug messages, the others as warnings.
 *
 * @module RetryPolicy
 * @since 0.1.0
 */
import * as Duration from "effect/Duration"
import { dual } from "effect/Function"
import * as Schedule from "effect/Schedule"
import { isRetryable, type StorageError } from "./StorageError.js"

/**
 * A schedule over storage failures, with any output.
 *
 * @since 0.1.0
 * @category models
 */
export type RetryPolicy = Schedule.Schedule<unknown, StorageError>

/**
 * The same schedule, which respects `retryAfter`: the wait after a `StorageUnavailable` is at least as long as the store
 * asked for. It outputs the wait before the next attempt.
 *
 * No attempt begins later than `within` after the first failure. Where the next wait would end after that, retrying ends at
 * once with the failure.
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
      Schedule.modifyDelay(([, error], delay) => Duration.max(delay, retryAfterOf(error))),
      Schedule.delays,
      Schedule.intersect(Schedule.elapsed),
      Schedule.whileOutput(([delay, elapsed]) => Duration.lessThanOrEqualTo(Duration.sum(delay, elapsed), within)),
      Schedule.map(([delay]) => delay)
    )
)

const retryAfterOf = (error: StorageError): Duration.Duration =>
  (error._tag === "StorageUnavailable" ? error.retryAfter : undefined) ?? Duration.zero

/**
 * At most 10 retries within 3 minutes of the first failure, with exponential backoff and full jitter: the wait is random
 * between zero and a limit that starts at 100 ms and doubles up to 15 s. `retryAfter` is respected, also beyond 15 s; where it
 * ends after the 3 minutes, retrying ends at once.
 *
 * A failure that is not retryable ends the schedule, so `Effect.retry` needs no other condition. It outputs the wait before
 * the next attempt.
 *
 * A storage over a network that follows it gives a server that has never responded 5 attempts, or 3 where each ends in a
 * timeout, as its address may be wrong.
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
