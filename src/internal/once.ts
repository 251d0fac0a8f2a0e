/**
 * Asynchronous effects that may have to do with large arrays.
 *
 * Effect keeps a part of each `Effect.async` in a function that it assigns to a property, and V8 puts such functions where
 * it has what lives long: whatever they lead to is kept until the next full collection. Large arrays among it bring that
 * collection on every few dozen MiB, at two to three times the time of reading them.
 */
import * as Effect from "effect/Effect"

/** Begins something, whose outcome it resumes with. */
export type Begin<A, E> = (resume: (outcome: Effect.Effect<A, E>) => void) => void

/** Like `Effect.async`, but to be run once, and without knowing any more what has begun. Run again, it dies. */
export const once = <A, E = never>(begin: Begin<A, E>): Effect.Effect<A, E> => {
  let pending: Begin<A, E> | undefined = begin
  return Effect.async((resume) => {
    const begin = pending
    pending = undefined
    if (begin === undefined) resume(Effect.die(new Error("bug: what can be run once was run again")))
    else begin(resume)
  })
}
