/**
 * A process that is busy: what others did meanwhile it sees only afterwards.
 */
import { Effect } from "effect"

/**
 * Begins something, and then keeps this process from doing anything else, as a collection of a large heap or a computation
 * would. What follows an immediate are the timers that are due, and only then what has come in.
 */
export const thenHeldUp = (begin: () => void, millis: number): Effect.Effect<void> =>
  Effect.async((resume) => {
    setImmediate(() => {
      begin()
      const end = performance.now() + millis
      while (performance.now() < end);
      resume(Effect.void)
    })
  })
