/**
 * Effects as promises, for libraries that know nothing of Effect.
 */
import * as Cause from "effect/Cause"
import type * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Runtime from "effect/Runtime"

/** Runs effects as promises, which reject with the failure itself instead of a `FiberFailure` around it. */
export const promiseRunner =
  <R>(runtime: Runtime.Runtime<R>) => async <A, E>(effect: Effect.Effect<A, E, R>): Promise<A> => {
    const exit = await Runtime.runPromiseExit(runtime, effect)
    if (Exit.isSuccess(exit)) return exit.value
    throw Cause.squash(exit.cause)
  }
