/**
 * A stream of bytes, read as many at a time as are wanted.
 */
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import type { ResolvedRange } from "../../../ByteRange.js"
import { concat } from "../../../internal/bytes.js"

export interface ByteReader<out E, out R = never, out B extends ArrayBufferLike = ArrayBufferLike> {
  /** The next bytes: `length` many, or fewer if the stream ends. They are a view of a chunk where they lie in one. */
  readonly take: (length: number) => Effect.Effect<Uint8Array<B>, E, R>
  /** What is left of the stream. */
  readonly rest: Stream.Stream<Uint8Array<B>, E, R>
}

/** One that can also be looked into. */
export interface PeekingReader<out E, out R = never, out B extends ArrayBufferLike = ArrayBufferLike>
  extends ByteReader<E, R, B>
{
  /** What `take` would take, which it leaves there. */
  readonly peek: (length: number) => Effect.Effect<Uint8Array<B>, E, R>
}

export const make = <E, R, B extends ArrayBufferLike>(
  stream: Stream.Stream<Uint8Array<B>, E, R>
): Effect.Effect<PeekingReader<E, R, B | ArrayBuffer>, never, R | Scope.Scope> =>
  Effect.map(Stream.toPull(stream), (pull) => {
    const buffer = new Buffered<B>()
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
      peek: (length) => Effect.map(fill(length), () => buffer.peek(length)),
      rest: Stream.concat(
        Stream.suspend(() => Stream.fromIterable(buffer.takeAll())),
        Stream.suspend(() => isEnded ? Stream.empty : Stream.repeatEffectChunkOption(pull))
      )
    }
  })

/** Reads a range of something. */
export type Read<E> = (range: ResolvedRange) => Effect.Effect<ByteReader<E>, never, Scope.Scope>

/** Reads ranges that follow one another out of a single one that spans `ranges`. Each is read before the next is asked for. */
export const inTurn = <E>(
  read: Read<E>,
  ranges: ReadonlyArray<ResolvedRange>
): Effect.Effect<Read<E>, never, Scope.Scope> => {
  const [first] = ranges
  const last = ranges.at(-1)
  if (first === undefined || last === undefined) return Effect.succeed(read)
  return Effect.map(read({ start: first.start, endExclusive: last.endExclusive }), ({ rest, take }) => {
    let at = first.start
    const takeNext = (length: number) =>
      Effect.suspend(() => {
        at += length
        return take(length)
      })
    return (range) =>
      Effect.succeed({
        take: (length) =>
          Effect.suspend(() =>
            range.start > at ? Effect.zipRight(takeNext(range.start - at), takeNext(length)) : takeNext(length)
          ),
        rest: range.endExclusive === last.endExclusive ? rest : Stream.empty
      })
  })
}

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
class Buffered<B extends ArrayBufferLike> {
  private chunks: Array<Uint8Array<B | ArrayBuffer>> = []
  /** The first chunk of which something is left. */
  private first = 0
  length = 0

  add(bytes: Uint8Array<B>): void {
    if (bytes.byteLength === 0) return
    if (this.first === this.chunks.length) {
      this.chunks = []
      this.first = 0
    }
    this.chunks.push(bytes)
    this.length += bytes.byteLength
  }

  take(length: number): Uint8Array<B | ArrayBuffer> {
    const parts: Array<Uint8Array<B | ArrayBuffer>> = []
    for (let missing = Math.min(length, this.length); missing > 0;) {
      const chunk = this.chunks[this.first] ?? empty
      const part = chunk.subarray(0, missing)
      parts.push(part)
      missing -= part.byteLength
      this.length -= part.byteLength
      // What has been taken must not be kept here.
      this.chunks[this.first] = part.byteLength < chunk.byteLength ? chunk.subarray(part.byteLength) : empty
      if (part.byteLength === chunk.byteLength) this.first++
    }
    const [whole = empty] = parts
    return parts.length > 1 ? concat(parts) : whole
  }

  peek(length: number): Uint8Array<B | ArrayBuffer> {
    const chunk = this.chunks[this.first] ?? empty
    return chunk.byteLength >= Math.min(length, this.length)
      ? chunk.subarray(0, length)
      : concat(this.chunks.slice(this.first)).subarray(0, length)
  }

  /** The chunks as they came. */
  takeAll(): ReadonlyArray<Uint8Array<B | ArrayBuffer>> {
    const left = this.chunks.slice(this.first)
    this.chunks = []
    this.first = 0
    this.length = 0
    return left
  }
}

const empty = new Uint8Array(0)
