/**
 * Permits, and the locks by name that are made of them.
 */
import { describe, expect, it } from "@effect/vitest"
import { Deferred, Effect, Fiber } from "effect"
import * as KeyedLock from "../../src/internal/keyedLock.js"
import { Permits } from "../../src/internal/permits.js"

const limits = [
  ["a permit", () => {
    const permits = new Permits(1)
    return <A, E, R>(effect: Effect.Effect<A, E, R>) => permits.withPermit(effect)
  }],
  ["the lock of a name", () => KeyedLock.make()("name")]
] as const

describe.each(limits)("%s", (_, make) => {
  it.live(
    "is given to one at a time, in the order of those who wait, however many they are",
    () =>
      Effect.gen(function*() {
        const exclusively = make()
        const order: Array<number> = []
        let running = 0
        let most = 0
        // As many took minutes, and then all memory, where each release woke all of them.
        const numbers = Array.from({ length: 20_000 }, (_, i) => i)
        yield* Effect.forEach(numbers, (number) =>
          exclusively(Effect.gen(function*() {
            running++
            most = Math.max(most, running)
            yield* Effect.yieldNow()
            order.push(number)
            running--
          })), { concurrency: "unbounded" })
        expect(most).toBe(1)
        expect(order).toEqual(numbers)
      }),
    60_000
  )

  it.live("is not lost with a fiber that is interrupted while it waits, or just as it gets it", () =>
    Effect.gen(function*() {
      const exclusively = make()
      const end = yield* Deferred.make<void>()
      const first = yield* Effect.fork(exclusively(Deferred.await(end)))
      yield* Effect.yieldNow()
      const second = yield* Effect.fork(exclusively(Effect.never))
      const third = yield* Effect.fork(exclusively(Effect.never))
      yield* Effect.yieldNow()
      yield* Fiber.interrupt(second)
      yield* Deferred.succeed(end, undefined)
      yield* Fiber.interrupt(third)
      yield* Fiber.join(first)
      expect(yield* exclusively(Effect.succeed("mine"))).toBe("mine")
    }))
})
