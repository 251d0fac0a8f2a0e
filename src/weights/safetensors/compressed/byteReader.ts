/**
 * A stream of bytes, read as many at a time as are wanted.
 */
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import { concat } from "../../../internal/bytes.js"

export interface ByteReader<out E, out R> {
  /** The next bytes: `length` many, or fewer if the stream ends. They are a view of a chunk where they lie in one. */
  readonly take: (length: number) => Effect.Effect<Uint8Array, E, R>
  /** What is left of the stream. */
  readonly rest: Stream.Stream<Uint8Array, E, R>
}

export const make = <E, R>(
  stream: Stream.Stream<Uint8Array, E, R>
): Effect.Effect<ByteReader<E, R>, never, R | Scope.Scope> =>
  Effect.map(Stream.toPull(stream), (pull) => {
    const buffer = new Buffered()
    let isEnded = false
    const fill = (length: number): Effect.Effect<void, E, R> =>
      Effect.suspend(() =>
        buffer.length >= length || isEnded ? Effect.void : Effect.matchEffect(pull, {
          onFailure: Option.match({
            onNone: () =>
              Effect.sync(() => {
                isEnded = true
              }),
            onSome: (error: E) => Effect.fail(error)
          }),
          onSuccess: (chunk) => {
            for (const bytes of chunk) buffer.add(bytes)
            return fill(length)
          }
        })
      )
    return {
      take: (length) => Effect.map(fill(length), () => buffer.take(length)),
      rest: Stream.concat(
        Stream.suspend(() => buffer.length === 0 ? Stream.empty : Stream.make(buffer.take(buffer.length))),
        Stream.suspend(() => isEnded ? Stream.empty : Stream.repeatEffectChunkOption(pull))
      )
    }
  })

/** The stream in pieces of these lengths, which are read to its end: one that is longer or shorter has to fail by itself. */
export const pieces = <E, R>(
  stream: Stream.Stream<Uint8Array, E, R>,
  lengths: Iterable<number>
): Stream.Stream<Uint8Array, E, R> =>
  Stream.unwrapScoped(
    Effect.map(make(stream), ({ rest, take }) =>
      Stream.concat(Stream.mapEffect(Stream.fromIterable(lengths), take), Stream.drain(rest)))
  )

/** Bytes that have been read ahead. */
class Buffered {
  private chunks: Array<Uint8Array> = []
  length = 0

  add(bytes: Uint8Array): void {
    this.chunks.push(bytes)
    this.length += bytes.byteLength
  }

  take(length: number): Uint8Array {
    const [first = empty] = this.chunks
    if (first.byteLength < length && this.chunks.length > 1) this.chunks = [concat(this.chunks)]
    const [whole = empty] = this.chunks
    const taken = whole.subarray(0, length)
    this.chunks[0] = whole.subarray(taken.byteLength)
    this.length -= taken.byteLength
    return taken
  }
}

const empty = new Uint8Array(0)
