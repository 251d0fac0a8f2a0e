/**
 * Streams of bytes held to a length, and gathered into arrays. A body that ends early becomes a failure here.
 */
import type * as Cause from "effect/Cause"
import * as Channel from "effect/Channel"
import * as Chunk from "effect/Chunk"
import * as Effect from "effect/Effect"
import * as Sink from "effect/Sink"
import * as Stream from "effect/Stream"
import { UnsupportedOperation } from "../StorageError.js"

/** The same stream, failing as `wrong(actual)` says if it yields another number of bytes than `expected`. */
export const exactly = <E, R, E2>(
  stream: Stream.Stream<Uint8Array, E, R>,
  expected: number,
  wrong: (actual: number) => E2
): Stream.Stream<Uint8Array, E | E2, R> =>
  Stream.suspend(() => {
    let actual = 0
    const counting: Channel.Channel<Chunk.Chunk<Uint8Array>, Chunk.Chunk<Uint8Array>, E | E2, E, void, unknown, R> =
      Channel.readWithCause({
        onInput: (chunk: Chunk.Chunk<Uint8Array>) => {
          actual = Chunk.reduce(chunk, actual, (sum, bytes) => sum + bytes.byteLength)
          return actual > expected ? Channel.fail(wrong(actual)) : Channel.zipRight(Channel.write(chunk), counting)
        },
        onFailure: (cause: Cause.Cause<E>) => Channel.failCause(cause),
        onDone: () => actual === expected ? Channel.void : Channel.fail(wrong(actual))
      })
    return Stream.fromChannel(Channel.pipeTo(Stream.toChannel(stream), counting))
  })

/** A copy of some of the bytes, also where they are a Node `Buffer`, whose own `slice` shares them. */
export const copyOf = (bytes: Uint8Array, start = 0, end = bytes.byteLength): Uint8Array =>
  new Uint8Array(bytes.subarray(start, end))

/** An array of `size` bytes, or `undefined` where the runtime has none so large. */
export const allocate = (size: number): Uint8Array | undefined => {
  try {
    return new Uint8Array(size)
  } catch (cause) {
    if (cause instanceof RangeError) return undefined
    throw cause
  }
}

export const tooLargeForAnArray = (
  size: number,
  context: { readonly backend: string; readonly operation: string; readonly key: string }
): UnsupportedOperation =>
  new UnsupportedOperation({
    ...context,
    reason: `${size} bytes do not fit in one array here; read them with Storage.stream, or a range at a time`
  })

/** Fills `target` from its start; the stream must not yield more than it holds. */
export const fill = <E, R>(
  target: Uint8Array,
  stream: Stream.Stream<Uint8Array, E, R>
): Effect.Effect<Uint8Array, E, R> =>
  Effect.as(
    Stream.run(
      stream,
      // An effect for each chunk would keep it until the next full collection (see `once.ts`).
      Sink.foldLeftChunks(0, (at, chunk: Chunk.Chunk<Uint8Array>) => {
        for (const bytes of chunk) {
          target.set(bytes, at)
          at += bytes.byteLength
        }
        return at
      })
    ),
    target
  )

/** All that a stream yields, in one new array. */
export const collect = <E, R>(stream: Stream.Stream<Uint8Array, E, R>): Effect.Effect<Uint8Array, E, R> =>
  Effect.map(Stream.runCollect(stream), (chunk) => concat(Chunk.toReadonlyArray(chunk)))

/** The bytes of all parts, in one new array. */
export const concat = (parts: ReadonlyArray<Uint8Array>): Uint8Array => {
  const whole = new Uint8Array(parts.reduce((sum, part) => sum + part.byteLength, 0))
  let at = 0
  for (const part of parts) {
    whole.set(part, at)
    at += part.byteLength
  }
  return whole
}
