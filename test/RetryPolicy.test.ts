/**
 * Retry policies under the test clock, through `Effect.retry`.
 */
import { describe, expect, it } from "@effect/vitest"
import { Chunk, Clock, Duration, Effect, Fiber, Random, Schedule, TestClock } from "effect"
import { RetryPolicy, StorageError } from "surfing-weights"

const context = { backend: "Test", operation: "load", key: "k" }
const unavailable = new StorageError.StorageUnavailable({ ...context, reason: "down" })
const busy = (retryAfter: Duration.DurationInput) =>
  new StorageError.StorageUnavailable({ ...context, reason: "busy", retryAfter: Duration.decode(retryAfter) })

/** The times in milliseconds at which attempts began, each of which takes `lasting` and fails, the nth with `error(n)`. */
const attempts = (
  policy: RetryPolicy.RetryPolicy,
  error: (n: number) => StorageError.StorageError,
  lasting: Duration.DurationInput = 0
) =>
  Effect.gen(function*() {
    const start = yield* Clock.currentTimeMillis
    const begun: Array<number> = []
    const attempt = Effect.gen(function*() {
      begun.push((yield* Clock.currentTimeMillis) - start)
      yield* Effect.sleep(lasting)
      return yield* error(begun.length)
    })
    const fiber = yield* Effect.fork(Effect.flip(Effect.retry(attempt, policy)))
    yield* TestClock.adjust("2 hours")
    const last = yield* Fiber.join(fiber)
    return { begun, last }
  })

/** The waits between attempts, where every random number is `random`. */
const waits = (random: number, error: (n: number) => StorageError.StorageError) =>
  Effect.map(
    Effect.withRandom(attempts(RetryPolicy.default, error), Random.fixed([random])),
    ({ begun }) => begun.slice(1).map((time, i) => time - (begun[i] ?? NaN))
  )

describe("RetryPolicy.default", () => {
  it.effect("waits up to 100 ms, doubles that ten times up to 15 s, and gives up", () =>
    Effect.gen(function*() {
      expect(yield* waits(1, () => unavailable)).toEqual(
        [100, 200, 400, 800, 1600, 3200, 6400, 12_800, 15_000, 15_000]
      )
    }))

  it.effect("waits for a random time between zero and its limit", () =>
    Effect.gen(function*() {
      expect(yield* waits(0, () => unavailable)).toEqual([0, 0, 0, 0, 0, 0, 0, 0, 0, 0])
      expect(yield* waits(0.25, () => unavailable)).toEqual(
        [25, 50, 100, 200, 400, 800, 1600, 3200, 3750, 3750]
      )
    }))

  it.effect("begins no attempt later than 3 minutes after the first failure", () =>
    Effect.gen(function*() {
      const { begun } = yield* Effect.withRandom(
        attempts(RetryPolicy.default, () => unavailable, "30 seconds"),
        Random.fixed([1])
      )
      // The first failure is at 30 s, the seventh at 216.3 s, too late for another attempt.
      expect(begun).toEqual([0, 30_100, 60_300, 90_700, 121_500, 153_100, 186_300])
    }))

  it.effect("waits for retryAfter, also beyond 15 s, and no longer", () =>
    Effect.gen(function*() {
      expect(yield* waits(1, (n) => n === 2 ? busy("40 seconds") : unavailable)).toEqual(
        [100, 40_000, 400, 800, 1600, 3200, 6400, 12_800, 15_000, 15_000]
      )
    }))

  it.effect("waits for its own time where that is longer than retryAfter", () =>
    Effect.gen(function*() {
      expect(yield* waits(1, () => busy("150 millis"))).toEqual(
        [150, 200, 400, 800, 1600, 3200, 6400, 12_800, 15_000, 15_000]
      )
    }))

  it.effect("gives up at once where retryAfter ends after the 3 minutes", () =>
    Effect.gen(function*() {
      const { begun, last } = yield* attempts(RetryPolicy.default, () => busy("1 hour"))
      expect(begun).toEqual([0])
      expect(last._tag).toBe("StorageUnavailable")
      // Twice 90 s is just within the 3 minutes.
      expect((yield* attempts(RetryPolicy.default, () => busy("90 seconds"))).begun.length).toBe(3)
    }))

  it.effect("does not retry what is not retryable", () =>
    Effect.gen(function*() {
      const notFound = new StorageError.ObjectNotFound(context)
      expect((yield* attempts(RetryPolicy.default, () => notFound)).begun).toEqual([0])
      const exhausted = StorageError.exhausted(unavailable, 4)
      expect((yield* attempts(RetryPolicy.default, () => exhausted)).begun).toEqual([0])
      const then = yield* Effect.withRandom(
        attempts(RetryPolicy.default, (n) => n < 3 ? unavailable : notFound),
        Random.fixed([1])
      )
      expect(then).toEqual({ begun: [0, 100, 300], last: notFound })
    }))

  it.effect("outputs the wait before the next attempt", () =>
    Effect.gen(function*() {
      const outputs = yield* Effect.withRandom(
        Schedule.run(RetryPolicy.default, 0, [unavailable, busy("7 seconds"), unavailable]),
        Random.fixed([1])
      )
      expect(Chunk.toArray(outputs).map(Duration.toMillis)).toEqual([100, 7000, 400])
    }))
})

describe("RetryPolicy.respectRetryAfter", () => {
  const policy = Schedule.spaced("1 second").pipe(
    Schedule.intersect(Schedule.recurs(3)),
    RetryPolicy.respectRetryAfter({ within: "10 seconds" })
  )

  it.effect("does not change a schedule without retryAfter", () =>
    Effect.gen(function*() {
      expect((yield* attempts(policy, () => unavailable)).begun).toEqual([0, 1000, 2000, 3000])
    }))

  it.effect("makes any schedule wait for retryAfter", () =>
    Effect.gen(function*() {
      const { begun } = yield* attempts(policy, (n) => n === 1 ? busy("5 seconds") : unavailable)
      expect(begun).toEqual([0, 5000, 6000, 7000])
    }))

  it.effect("ends a schedule where the next attempt would begin too late", () =>
    Effect.gen(function*() {
      expect((yield* attempts(policy, () => busy("4 seconds"))).begun).toEqual([0, 4000, 8000])
      expect((yield* attempts(policy, () => busy("11 seconds"))).begun).toEqual([0])
      const endless = RetryPolicy.respectRetryAfter(Schedule.spaced("3 seconds"), { within: "10 seconds" })
      expect((yield* attempts(endless, () => unavailable)).begun).toEqual([0, 3000, 6000, 9000])
    }))

  it.effect("counts the time of the attempts themselves", () =>
    Effect.gen(function*() {
      const endless = RetryPolicy.respectRetryAfter(Schedule.spaced("1 second"), { within: "10 seconds" })
      const { begun } = yield* attempts(endless, () => unavailable, "4 seconds")
      // Within 10 s of the first failure, which comes at 4 s.
      expect(begun).toEqual([0, 5000, 10_000])
    }))
})
