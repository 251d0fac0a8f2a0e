/**
 * Streams read to their end, chunk by chunk.
 *
 * `Stream.runForEach` and what is made with it put the effect that has a chunk into a function that V8 keeps until it collects
 * the whole heap, which large chunks make it do every few dozen MiB: more than half of the processor time of a stream from S3
 * (bench rows `s3-stream-each` and `s3-stream-own`). Here chunks are pulled, and nothing refers to one for longer than its reader
 * does.
 */
import * as Chunk from "effect/Chunk"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Stream from "effect/Stream"

/** Runs an effect for each chunk, one after the other. */
export const forEachChunk = <A, E, R, E2, R2>(
  stream: Stream.Stream<A, E, R>,
  use: (chunk: A) => Effect.Effect<unknown, E2, R2>
): Effect.Effect<void, E | E2, R | R2> =>
  Effect.scoped(Effect.flatMap(Stream.toPull(stream), (pull) => {
    const next: Effect.Effect<void, E | E2, R | R2> = Effect.matchEffect(pull, {
      onFailure: Option.match({ onNone: () => Effect.void, onSome: (error: E) => Effect.fail(error) }),
      onSuccess: (chunk) => Effect.zipRight(useAll(chunk, use), next)
    })
    return next
  }))

const useAll = <A, E, R>(
  chunk: Chunk.Chunk<A>,
  use: (chunk: A) => Effect.Effect<unknown, E, R>
): Effect.Effect<unknown, E, R> =>
  chunk.length === 1 ? use(Chunk.unsafeGet(chunk, 0)) : Effect.forEach(chunk, use, { discard: true })
