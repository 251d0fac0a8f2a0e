/**
 * Waiting for a condition, measuring time, and a retry policy without long waits.
 */
import * as Effect from "effect/Effect"
import * as Schedule from "effect/Schedule"
import { vi } from "vitest"

/** Runs an assertion until it passes; fails as it did last after two minutes, which only something that hangs takes. */
export const eventually = <A>(assertion: () => A): Effect.Effect<A> =>
  Effect.promise(() => vi.waitFor(assertion, { timeout: 120_000, interval: 5 }))

/** The result of an effect, and the milliseconds that it took. */
export const timed = <A, Err, R>(effect: Effect.Effect<A, Err, R>) =>
  Effect.suspend(() => {
    const start = performance.now()
    return Effect.map(effect, (value) => [value, performance.now() - start] as const)
  })

/** Three retries. */
export const quick = Schedule.intersect(Schedule.spaced("5 millis"), Schedule.recurs(3))
