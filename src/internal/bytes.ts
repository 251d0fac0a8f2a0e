/**
 * Streams of bytes: held to a length, gathered into arrays.
 */
import type * as Cause from "effect/Cause"
import * as Channel from "effect/Channel"
import * as Chunk from "effect/Chunk"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Sink from "effect/Sink"
import * as Stream from "effect/Stream"
import { UnsupportedOperation } from "../StorageError.js"

type Bytes = Uint8Array<ArrayBuffer>

/**
 * The same stream, which fails with `wrong(actual)` if it yields another number of bytes than `expected`; `progress` is called
 * with the number of bytes so far.
 */
export const exactly = <B extends Uint8Array, E, R, E2>(
  stream: Stream.Stream<B, E, R>,
  expected: number,
  wrong: (actual: number) => E2,
  progress: (actual: number) => void = () => {}
): Stream.Stream<B, E | E2, R> =>
  Stream.suspend(() => {
    let actual = 0
    const counting: Channel.Channel<Chunk.Chunk<B>, Chunk.Chunk<B>, E | E2, E, void, unknown, R> = Channel
      .readWithCause({
        onInput: (chunk: Chunk.Chunk<B>) => {
          for (const { byteLength } of chunk) actual += byteLength
          progress(actual)
          return actual > expected ? Channel.fail(wrong(actual)) : Channel.zipRight(Channel.write(chunk), counting)
        },
        onFailure: (cause: Cause.Cause<E>) => Channel.failCause(cause),
        onDone: () => actual === expected ? Channel.void : Channel.fail(wrong(actual))
      })
    return Stream.fromChannel(Channel.pipeTo(Stream.toChannel(stream), counting))
  })

/** A copy of some of the bytes, also where they are a Node `Buffer`, whose own `slice` shares them. */
export const copyOf = (bytes: Uint8Array, start = 0, end = bytes.byteLength): Bytes =>
  new Uint8Array(bytes.subarray(start, end))

/** An array of `size` bytes, which need not be zero, or the advice to read the object in pieces. */
export const allocate = (size: number): Either.Either<Bytes, UnsupportedOperation> => {
  try {
    return Either.right(
      typeof Buffer === "undefined" ? new Uint8Array(size) : new Uint8Array(Buffer.allocUnsafeSlow(size).buffer)
    )
  } catch (cause) {
    if (cause instanceof RangeError) return Either.left(tooLargeForAnArray(size))
    throw cause
  }
}

const tooLargeForAnArray = (size: number): UnsupportedOperation =>
  new UnsupportedOperation({
    reason: `an array cannot hold ${size} bytes here; read the object with Storage.stream, or a range at a time`
  })

/** Fills `target` from its start; the stream must not yield more than it holds. */
export const fill = <E, R>(target: Bytes, stream: Stream.Stream<Uint8Array, E, R>): Effect.Effect<Bytes, E, R> =>
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

/** The `size` bytes that a stream yields, in one new array. */
export const intoArray = <E, R>(
  stream: Stream.Stream<Uint8Array, E, R>,
  size: number
): Effect.Effect<Bytes, E | UnsupportedOperation, R> =>
  Effect.flatMap(Effect.suspend(() => allocate(size)), (target) => fill(target, stream))

/** All that a stream yields, in one new array. */
export const collect = <E, R>(stream: Stream.Stream<Uint8Array, E, R>): Effect.Effect<Bytes, E, R> =>
  Effect.map(Stream.runCollect(stream), (chunk) => concat(Chunk.toReadonlyArray(chunk)))

/** The bytes of all parts, in one new array. */
export const concat = (parts: ReadonlyArray<Uint8Array>): Bytes => {
  const whole = new Uint8Array(parts.reduce((sum, part) => sum + part.byteLength, 0))
  let at = 0
  for (const part of parts) {
    whole.set(part, at)
    at += part.byteLength
  }
  return whole
}
