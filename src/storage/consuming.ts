/**
 * Streams as async iterables and web streams, which are read as long as somebody wants more (see `internal/pulling.ts` for why
 * not by those of Effect).
 */
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Runtime from "effect/Runtime"
import type * as Stream from "effect/Stream"
import { forEachChunk } from "../internal/pulling.js"

/** What an iterator has promised, until it is settled. */
interface Wanted<A> {
  readonly resolve: (result: IteratorResult<A, undefined>) => void
  readonly reject: (error: unknown) => void
}

/** Reads a stream in a fiber that waits after each chunk until the next one is wanted. */
class ChunkIterator<A, E, R> implements AsyncIterator<A, undefined> {
  readonly #fork: () => Fiber.RuntimeFiber<void, E>
  #fiber: Fiber.RuntimeFiber<void, E> | undefined
  /** The chunk that was not delivered yet. */
  #chunk: { readonly value: A } | undefined
  #isEnded = false
  // More than one, where a caller does not wait for the first.
  readonly #wanted: Array<Wanted<A>> = []
  #resume: (() => void) | undefined

  constructor(stream: Stream.Stream<A, E, R>, runtime: Runtime.Runtime<R>) {
    this.#fork = () =>
      Runtime.runFork(runtime)(forEachChunk(stream, (chunk) => {
        this.#chunk = { value: chunk }
        return this.#taken
      }))
  }

  next(): Promise<IteratorResult<A, undefined>> {
    return new Promise((resolve, reject) => {
      if (this.#isEnded) return resolve(ended)
      this.#wanted.push({ resolve, reject })
      if (this.#fiber === undefined) {
        this.#fiber = this.#fork()
        this.#fiber.addObserver((exit) => this.#end(exit))
      } else this.#deliver()
    })
  }

  /** Ends the stream, and what it holds open. */
  async return(): Promise<IteratorReturnResult<undefined>> {
    this.#isEnded = true
    if (this.#fiber !== undefined) await Effect.runPromise(Fiber.interrupt(this.#fiber))
    return ended
  }

  /** Ends when the chunk is taken and another one is wanted. */
  readonly #taken: Effect.Effect<void> = Effect.async((resume) => {
    this.#resume = () => resume(Effect.void)
    this.#deliver()
  })

  #deliver(): void {
    if (this.#wanted.length === 0) return
    const chunk = this.#chunk
    if (chunk !== undefined) {
      this.#chunk = undefined
      this.#wanted.shift()?.resolve({ done: false, value: chunk.value })
      if (this.#wanted.length === 0) return
    }
    const resume = this.#resume
    this.#resume = undefined
    resume?.()
  }

  #end(exit: Exit.Exit<void, E>): void {
    const isReturned = this.#isEnded
    this.#isEnded = true
    const [first, ...others] = this.#wanted.splice(0)
    // Bytes that end because they were interrupted are not the whole.
    if (Exit.isFailure(exit) && !isReturned) first?.reject(Cause.squash(exit.cause))
    else first?.resolve(ended)
    for (const { resolve } of others) resolve(ended)
  }
}

const ended: IteratorReturnResult<undefined> = { done: true, value: undefined }

/** The chunks as an async iterable, which can be iterated again where the stream can be run again. */
export const toAsyncIterable = <A, E, R>(
  stream: Stream.Stream<A, E, R>,
  runtime: Runtime.Runtime<R>
): AsyncIterable<A, undefined> => ({ [Symbol.asyncIterator]: () => new ChunkIterator(stream, runtime) })

/** The chunks as a `ReadableStream`, which reads nothing before it is read. */
export const toReadableStream = <A, E, R>(
  stream: Stream.Stream<A, E, R>,
  runtime: Runtime.Runtime<R>
): ReadableStream<A> => {
  const chunks = new ChunkIterator(stream, runtime)
  return new ReadableStream<A>({
    pull: async (controller) => {
      const { done, value } = await chunks.next()
      if (done === true) controller.close()
      else controller.enqueue(value)
    },
    cancel: async () => {
      await chunks.return()
    }
  }, { highWaterMark: 0 })
}
