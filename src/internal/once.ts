/**
 * Asynchronous effects that refer to large arrays.
 *
 * Effect keeps the body of each `Effect.async` in a function that it assigns to a property. V8 puts such functions into its
 * old generation, so whatever they refer to is kept until the next full collection. Large arrays trigger that collection
 * every few dozen MiB, at two to three times the cost of reading them.
 */
import * as Effect from "effect/Effect"

/** Begins something, and resumes with its outcome. */
export type Begin<A, E> = (resume: (outcome: Effect.Effect<A, E>) => void) => void

/** Like `Effect.async`, but can be run only once, and does not refer to `begin` after that. Run again, it dies. */
export const once = <A, E = never>(begin: Begin<A, E>): Effect.Effect<A, E> => {
  let pending: Begin<A, E> | undefined = begin
  return Effect.async((resume) => {
    const begin = pending
    pending = undefined
    if (begin === undefined) resume(Effect.die(new Error("bug: an effect that can be run once was run again")))
    else begin(resume)
  })
}
