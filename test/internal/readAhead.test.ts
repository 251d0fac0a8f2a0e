/**
 * Loads ahead of their consumer.
 */
import { describe, expect, it } from "@effect/vitest"
import { Cause, Chunk, Effect, Exit, Fiber, Stream, TestClock } from "effect"
import { readAhead } from "../../src/internal/readAhead.js"

/** Loads that take as many seconds as their item, and how many of them began, ended and were interrupted. */
const makeLoads = () => {
  const seen = { begun: 0, ended: 0, interrupted: 0 }
  const load = (seconds: number) =>
    Effect.sync(() => seen.begun++).pipe(
      Effect.zipRight(Effect.sleep(`${seconds} seconds`)),
      Effect.as(Chunk.of(seconds)),
      Effect.tap(() => Effect.sync(() => seen.ended++)),
      Effect.onInterrupt(() => Effect.sync(() => seen.interrupted++))
    )
  return { load, seen }
}

describe("readAhead", () => {
  for (const ahead of [0, 1, 3, 10]) {
    it.effect(`returns the results in order, also where later loads end earlier, with ${ahead} ahead`, () =>
      Effect.gen(function*() {
        const { load } = makeLoads()
        const items = [5, 1, 4, 2, 3]
        const fiber = yield* Effect.fork(Stream.runCollect(readAhead(items, load, ahead)))
        yield* TestClock.adjust("15 seconds")
        expect(Chunk.toReadonlyArray(yield* Fiber.join(fiber))).toEqual(items)
      }))
  }

  it.effect("adds the time of loads to that of the consumer without reading ahead, and overlaps them with one ahead", () =>
    Effect.gen(function*() {
      const timeWith = (ahead: number) =>
        Effect.gen(function*() {
          const { load } = makeLoads()
          const pass = Stream.runForEach(readAhead([1, 1, 1, 1], load, ahead), () => Effect.sleep("1 seconds"))
          const fiber = yield* Effect.fork(Effect.timed(pass))
          yield* TestClock.adjust("1 minute")
          const [time] = yield* Fiber.join(fiber)
          return time.toString()
        })
      expect(yield* timeWith(0)).toBe("Duration(8s)")
      expect(yield* timeWith(1)).toBe("Duration(5s)")
    }))

  it.effect("starts one load alone if asked to, and the others when it is done", () =>
    Effect.gen(function*() {
      const { load, seen } = makeLoads()
      const fiber = yield* Effect.fork(Stream.runForEach(readAhead([1, 9, 9, 9], load, 2, 1), () => Effect.never))
      yield* TestClock.adjust("900 millis")
      expect(seen.begun).toBe(1)
      yield* TestClock.adjust("100 millis")
      expect(seen).toEqual({ begun: 3, ended: 1, interrupted: 0 })
      yield* Fiber.interrupt(fiber)
    }))

  it.effect("misses no load that ends while its consumer yields", () =>
    Effect.gen(function*() {
      const items = Array.from({ length: 50 }, (_, i) => i)
      const quick = (item: number) => Effect.as(Effect.repeatN(Effect.void, item % 9), Chunk.of(item))
      // So that each step is once the last before a fiber yields.
      for (let steps = 20; steps < 80; steps++) {
        const got = yield* Stream.runCollect(readAhead(items, quick, 2)).pipe(Effect.withMaxOpsBeforeYield(steps))
        expect(Chunk.toReadonlyArray(got)).toEqual(items)
      }
    }), 5000)

  it.effect("loads nothing for no items", () =>
    Effect.gen(function*() {
      const { load, seen } = makeLoads()
      expect(Chunk.size(yield* Stream.runCollect(readAhead([], load, 2)))).toBe(0)
      expect(seen.begun).toBe(0)
    }))

  it.effect("fails in the order of the items, and interrupts loads that are running", () =>
    Effect.gen(function*() {
      const { load, seen } = makeLoads()
      const taken: Array<number> = []
      const failing = (seconds: number) => seconds === 0 ? Effect.fail("no") : load(seconds)
      const fiber = yield* readAhead([1, 2, 0, 9], failing, 3).pipe(
        Stream.runForEach((seconds) => Effect.sync(() => void taken.push(seconds))),
        Effect.flip,
        Effect.fork
      )
      yield* TestClock.adjust("2 seconds")
      expect(yield* Fiber.join(fiber)).toBe("no")
      expect(taken).toEqual([1, 2])
      expect(seen).toEqual({ begun: 3, ended: 2, interrupted: 1 })
    }))

  it.effect("dies with the defect of a load", () =>
    Effect.gen(function*() {
      const exit = yield* Effect.exit(Stream.runDrain(readAhead([1], () => Effect.die("a bug"), 1)))
      expect(Exit.isFailure(exit) && Cause.isDie(exit.cause)).toBe(true)
    }))

  it.effect("interrupts running loads with its consumer, also while that waits", () =>
    Effect.gen(function*() {
      const { load, seen } = makeLoads()
      const fiber = yield* Effect.fork(Stream.runDrain(readAhead([1, 9, 9, 9], load, 2)))
      yield* TestClock.adjust("2 seconds")
      yield* Fiber.interrupt(fiber)
      expect(seen).toEqual({ begun: 3, ended: 1, interrupted: 2 })
    }))
})
