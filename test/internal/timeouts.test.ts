import { NodeStream } from "@effect/platform-node"
import { describe, expect, it } from "@effect/vitest"
import { Chunk, type Clock, Effect, Exit, Fiber, Stream, TestClock } from "effect"
import { spawn } from "node:child_process"
import { deadline, IdleTimer, raceTimeout, timeoutSave, timeoutStream } from "../../src/internal/timeouts.js"
import { thenHeldUp } from "../support/heldUp.js"

const limit = 400
const late = () => "late" as const

/** What another process sends as soon as it hears of it. */
const echo = Effect.acquireRelease(
  Effect.sync(() => spawn("cat", { stdio: ["pipe", "pipe", "inherit"] })),
  (child) => Effect.sync(() => child.kill("SIGKILL"))
)

describe("a stream with an idle timeout", () => {
  const reading = Effect.map(echo, ({ stdin, stdout }) => ({
    stdin,
    read: timeoutStream(NodeStream.fromReadable<string, Uint8Array>(() => stdout, String), limit, late).pipe(
      Stream.runCollect,
      Effect.map((chunks) => Buffer.concat(Chunk.toArray(chunks)).toString())
    )
  }))

  it.scopedLive("returns bytes that arrived while this process was blocked for longer than the timeout", () =>
    Effect.gen(function*() {
      const { read, stdin } = yield* reading
      const fiber = yield* Effect.fork(read)
      yield* Effect.sleep(20)
      yield* thenHeldUp(() => stdin.end("bytes"), 1.5 * limit)
      expect(yield* Fiber.join(fiber)).toBe("bytes")
    }))

  it.scopedLive("fails where nothing arrives, about when the timeout says", () =>
    Effect.gen(function*() {
      const { read } = yield* reading
      const started = performance.now()
      expect(Exit.isFailure(yield* Effect.exit(read))).toBe(true)
      expect(performance.now() - started).toBeGreaterThan(0.9 * limit)
    }))

  it.effect("counts only while a chunk is waited for, by the clock of its fiber", () =>
    Effect.gen(function*() {
      let taken = 0
      const source = Stream.tap(Stream.range(1, 3, 1), (wait) => Effect.sleep(wait === 3 ? limit : limit - 1))
      const fiber = yield* timeoutStream(source, limit, late).pipe(
        Stream.runForEach(() => Effect.zipRight(Effect.sync(() => taken++), Effect.sleep(10 * limit))),
        Effect.flip,
        Effect.fork
      )
      yield* TestClock.adjust(limit - 1)
      expect(taken).toBe(1)
      yield* TestClock.adjust(10 * limit + limit - 1)
      expect(taken).toBe(2)
      yield* TestClock.adjust(10 * limit + limit - 1)
      expect(fiber.unsafePoll()).toBe(null)
      yield* TestClock.adjust(1)
      expect(yield* Fiber.join(fiber)).toBe("late")
      expect(taken).toBe(2)
    }))
})

describe("a save with an idle timeout", () => {
  it.effect("counts only while its source waits to be read", () =>
    Effect.gen(function*() {
      const source = Stream.tap(Stream.range(1, 3, 1), () => Effect.sleep(10 * limit))
      const slowly = (wait: number) => (data: Stream.Stream<number>) =>
        Stream.runForEach(data, () => Effect.sleep(wait))
      const patient = yield* Effect.fork(timeoutSave(source, slowly(limit - 1), limit, late))
      const idle = yield* Effect.fork(Effect.flip(timeoutSave(source, slowly(limit), limit, late)))
      yield* TestClock.adjust(10 * limit + limit - 1)
      expect(idle.unsafePoll()).toBe(null)
      yield* TestClock.adjust(1)
      expect(yield* Fiber.join(idle)).toBe("late")
      yield* TestClock.adjust(100 * limit)
      expect(yield* Fiber.await(patient)).toEqual(Exit.void)
    }))
})

describe("a deadline", () => {
  it.effect("passes when the clock says", () =>
    Effect.gen(function*() {
      const fiber = yield* Effect.fork(
        Effect.flip(raceTimeout(deadline(limit, late), Effect.never, Fiber.interruptFork))
      )
      yield* TestClock.adjust(limit - 1)
      expect(fiber.unsafePoll()).toBe(null)
      yield* TestClock.adjust(1)
      expect(yield* Fiber.join(fiber)).toBe("late")
    }))
})

describe("an idle timer", () => {
  it.live("does not keep a process alive, nor fire, once it is stopped", () =>
    Effect.gen(function*() {
      const clock = yield* Effect.clock
      let fired = 0
      const active = () => process.getActiveResourcesInfo().filter((name) => name === "Timeout").length
      const before = active()
      const timer = new IdleTimer(clock, 20, () => fired++)
      expect(active()).toBe(before + 1)
      timer.stop()
      expect(active()).toBe(before)
      yield* Effect.sleep(60)
      expect(fired).toBe(0)
    }))

  it.effect("works when the clock is set back", () =>
    Effect.gen(function*() {
      const clock = yield* Effect.clock
      let fired = 0
      const timer = new IdleTimer(clock, limit, () => fired++)
      yield* TestClock.adjust(limit)
      expect(fired).toBe(1)
      timer.stop()
      let offset = 0
      const jumping: Clock.Clock = {
        ...clock,
        sleep: (duration) => clock.sleep(duration),
        unsafeCurrentTimeMillis: () => clock.unsafeCurrentTimeMillis() + offset
      }
      const other = new IdleTimer(jumping, limit, () => fired++)
      yield* TestClock.adjust(limit / 8)
      other.restart()
      offset = -3_600_000
      yield* TestClock.adjust(2 * limit)
      expect(fired).toBe(2)
    }))
})
