/**
 * Streams of bytes cut into pieces of one size, and worked on several at a time, ahead of the consumer.
 */
import * as Chunk from "effect/Chunk"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Option from "effect/Option"
import * as Stream from "effect/Stream"
import { concat } from "../../internal/bytes.js"
import { once } from "../../internal/once.js"

type Bytes = Uint8Array<ArrayBuffer>

export type Pull<Err> = Effect.Effect<Chunk.Chunk<Uint8Array>, Option.Option<Err>>

/** What is done to the pieces of a stream. */
export interface Work<Err> {
  /** In bytes. */
  readonly pieceSize: number
  /** How many pieces are worked on together, and yielded as one array. */
  readonly atOnce: number
  /** Does it to pieces that follow one another. They are not used after the call has returned. */
  readonly run: (pieces: ReadonlyArray<Uint8Array>, index: number) => Promise<Either.Either<Bytes, Err>>
  /** Whether the last piece, which is shorter than the others, may be empty; otherwise there is none where nothing is left. */
  readonly lastMayBeEmpty: boolean
}

/** How many arrays are being made while the consumer has the one before. */
const ahead = 2

/** What the work makes of the bytes that are pulled. `first` is the index of the first piece. */
export const pipeline = <Err, Err2>(
  pull: Pull<Err>,
  work: Work<Err2>,
  first: number
): Stream.Stream<Bytes, Err | Err2> =>
  Stream.fromPull(Effect.sync(() => {
    const cutter = new Cutter(work.pieceSize)
    const made: Array<Promise<Either.Either<Bytes, Err2>>> = []
    let index = first
    let end: Option.Option<Err> | undefined

    const start = (pieces: ReadonlyArray<Uint8Array>) => {
      const making = work.run(pieces, index)
      index += pieces.length
      // Of a stream that ends early, nobody asks what came of it.
      making.catch(() => {})
      made.push(making)
    }
    const startAll = () => {
      while (made.length < ahead) {
        const pieces = cutter.take(work.atOnce)
        if (pieces.length === 0) return
        start(pieces)
      }
    }
    const finish = (cause: Option.Option<Err>) => {
      end = cause
      const last = cutter.rest()
      if (Option.isNone(cause) && (last.byteLength > 0 || work.lastMayBeEmpty)) start([last])
    }
    const next: Effect.Effect<Chunk.Chunk<Bytes>, Option.Option<Err | Err2>> = Effect.suspend(() => {
      startAll()
      const oldest = made.length >= ahead || end !== undefined ? made.shift() : undefined
      if (oldest !== undefined) return awaited(oldest)
      if (end !== undefined) return Effect.fail(end)
      return Effect.matchEffect(pull, {
        onFailure: (cause) => Effect.suspend(() => (finish(cause), next)),
        onSuccess: (chunk) => Effect.suspend(() => (cutter.add(chunk), next))
      })
    })
    return next
  }))

const awaited = <Err>(
  making: Promise<Either.Either<Bytes, Err>>
): Effect.Effect<Chunk.Chunk<Bytes>, Option.Option<Err>> =>
  once<Chunk.Chunk<Bytes>, Option.Option<Err>>((resume) => {
    making.then(
      Either.match({
        onLeft: (error) => resume(Effect.fail(Option.some(error))),
        onRight: (bytes) => resume(Effect.succeed(bytes.byteLength > 0 ? Chunk.of(bytes) : Chunk.empty()))
      }),
      (defect: unknown) => resume(Effect.die(defect))
    )
  })

/** Cuts arrays that follow one another into pieces of one size, which are views of them where that is possible. */
class Cutter {
  readonly #size: number
  readonly #arrays: Array<Uint8Array> = []
  /** The beginning of a piece. */
  readonly #begun: Bytes
  #begunLength = 0

  constructor(size: number) {
    this.#size = size
    this.#begun = new Uint8Array(size)
  }

  add(chunk: Iterable<Uint8Array>): void {
    this.#arrays.push(...chunk)
  }

  /** Up to so many pieces. They must be used before it is called again. */
  take(most: number): ReadonlyArray<Uint8Array> {
    for (let array = this.#arrays.shift(); array !== undefined; array = this.#arrays.shift()) {
      const pieces: Array<Uint8Array> = []
      let at = 0
      if (this.#begunLength > 0) {
        at = this.#begin(array)
        if (this.#begunLength === this.#size) {
          pieces.push(this.#begun)
          this.#begunLength = 0
        }
      }
      for (; pieces.length < most && array.byteLength - at >= this.#size; at += this.#size) {
        pieces.push(array.subarray(at, at + this.#size))
      }
      const rest = array.subarray(at)
      if (rest.byteLength >= this.#size || pieces.includes(this.#begun)) this.#arrays.unshift(rest)
      else this.#begin(rest)
      if (pieces.length > 0) return pieces
    }
    return []
  }

  /** What is left, less than a piece, once all pieces are taken. */
  rest(): Uint8Array {
    return this.#begun.subarray(0, this.#begunLength)
  }

  #begin(array: Uint8Array): number {
    const part = array.subarray(0, this.#size - this.#begunLength)
    this.#begun.set(part, this.#begunLength)
    this.#begunLength += part.byteLength
    return part.byteLength
  }
}

/** Pulls until there are at least so many bytes, or the end; a copy, since what was pulled may be written again. */
export const pullAtLeast = <Err>(pull: Pull<Err>, size: number): Effect.Effect<Bytes, Err> => {
  const more = (pulled: Bytes): Effect.Effect<Bytes, Err> =>
    pulled.byteLength >= size ? Effect.succeed(pulled) : Effect.matchEffect(pull, {
      onFailure: Option.match({ onNone: () => Effect.succeed(pulled), onSome: (error) => Effect.fail(error) }),
      onSuccess: (chunk) => Effect.suspend(() => more(concat([pulled, ...chunk])))
    })
  return more(new Uint8Array(0))
}

/** A pull that yields an array first. */
export const prepend = <Err>(array: Uint8Array, pull: Pull<Err>): Pull<Err> => {
  let first: Uint8Array | undefined = array
  return Effect.suspend(() => {
    const bytes = first
    first = undefined
    return bytes === undefined ? pull : Effect.succeed(Chunk.of(bytes))
  })
}
