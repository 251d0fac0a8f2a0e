/**
 * Rate limiters, by the `Clock`.
 */
import * as Effect from "effect/Effect"
import { Permits } from "../../internal/permits.js"

/** Waits for the next of `perSecond` evenly spaced slots. A fiber that is interrupted while it waits uses no slot. */
export const requestLimiter = (perSecond: number): Effect.Effect<void> => {
  const queue = new Permits(1)
  let next = 0
  return Effect.clockWith((clock) => {
    const asked = clock.unsafeCurrentTimeMillis()
    const wait = Effect.suspend(() => {
      const rest = next - clock.unsafeCurrentTimeMillis()
      return rest > 0 ? Effect.sleep(rest) : Effect.void
    })
    const go = Effect.sync(() => {
      // Not counted from now: timers are late, which would delay all that come after.
      next = Math.max(next, asked) + 1000 / perSecond
    })
    return queue.withPermit(Effect.zipRight(wait, go))
  })
}

/**
 * Counts bytes that were moved, and waits until the bytes counted before have had their time. They are counted even if the
 * wait is interrupted.
 */
export const byteLimiter = (perSecond: number): (bytes: number) => Effect.Effect<void> => {
  let free = 0
  return (bytes) =>
    Effect.clockWith((clock) => {
      const now = clock.unsafeCurrentTimeMillis()
      const wait = free - now
      free = Math.max(free, now) + bytes / perSecond * 1000
      return wait > 0 ? Effect.sleep(wait) : Effect.void
    })
}
