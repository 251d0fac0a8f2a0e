/**
 * Effects and streams for those who know promises alone: the libraries that run models.
 */
import * as Cause from "effect/Cause"
import type * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Runtime from "effect/Runtime"
import * as Stream from "effect/Stream"

/** Runs an effect. The promise is rejected with the failure itself, and not with something around it. */
export const promised =
  <R>(runtime: Runtime.Runtime<R>) => async <A, E>(effect: Effect.Effect<A, E, R>): Promise<A> => {
    const exit = await Runtime.runPromiseExit(runtime, effect)
    if (Exit.isSuccess(exit)) return exit.value
    throw Cause.squash(exit.cause)
  }

/**
 * The same stream for a reader of the web's. Nothing is opened before the first read, so one that nobody reads needs not
 * be cancelled; then little is read ahead of the reader, and to cancel it closes what is open.
 */
export const readable = <A, E, R>(stream: Stream.Stream<A, E, R>, runtime: Runtime.Runtime<R>): ReadableStream<A> => {
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
