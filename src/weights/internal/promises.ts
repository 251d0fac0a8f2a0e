/**
 * Effects as promises and streams as web streams, for libraries that know nothing of Effect.
 */
import * as Cause from "effect/Cause"
import type * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Runtime from "effect/Runtime"
import * as Stream from "effect/Stream"

/** Runs effects as promises, which reject with the failure itself instead of a `FiberFailure` around it. */
export const promiseRunner =
  <R>(runtime: Runtime.Runtime<R>) => async <A, E>(effect: Effect.Effect<A, E, R>): Promise<A> => {
    const exit = await Runtime.runPromiseExit(runtime, effect)
    if (Exit.isSuccess(exit)) return exit.value
    throw Cause.squash(exit.cause)
  }

/**
 * The same stream as a web stream. Nothing is opened before the first read, so a stream that is never read needs no
 * cancelling. Cancelling it closes what is open.
 */
export const toReadableStream = <A, E, R>(
  stream: Stream.Stream<A, E, R>,
  runtime: Runtime.Runtime<R>
): ReadableStream<A> => {
  const open = () => Stream.toReadableStreamRuntime(stream, runtime).getReader()
  let reader: ReturnType<typeof open> | undefined
  return new ReadableStream<A>({
    pull: async (controller) => {
      reader ??= open()
      const { done, value } = await reader.read()
      if (done) controller.close()
      else controller.enqueue(value)
    },
    cancel: (reason) => reader?.cancel(reason)
  }, { highWaterMark: 0 })
}
