/**
 * Reads a range of a file ahead of whoever takes its chunks: a batch of arrays with one call of the system, and the next batch
 * while this one is taken.
 *
 * The arrays are small, as V8 frees an array soon after its last use only where no longer-lived object has referred to it, and
 * readers keep the one they have in closures. What is freed late triggers a collection of the whole heap every few dozen MiB:
 * with arrays of 2 MiB, that was half of the processor time of `Stream.runForEach` (bench row `stream-each`). One call reads
 * many of them, as a call costs as much as to copy 256 KiB.
 */
import * as Chunk from "effect/Chunk"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Option from "effect/Option"
import type * as Scope from "effect/Scope"
import type { ResolvedRange } from "../../ByteRange.js"
import { allocate } from "../../internal/bytes.js"
import type { LoadError } from "../../StorageError.js"

type Bytes = Uint8Array<ArrayBuffer>

/** The bytes of an array, and of a batch at most. */
const chunkSize = 256 * 1024
const batchSize = 2 * 1024 * 1024

/**
 * The bytes that one batch of each open stream has together, where that is more than an array each. Each stream has two batches,
 * and with 32 MiB of arrays in use V8 moves new ones to where it frees them late (bench row `stream-own-many`).
 */
const sharedSize = 8 * 1024 * 1024

/** How many arrays one call of the system fills at most (IOV_MAX of Linux). */
const maxChunks = 1024

/** Fills arrays one after another from a position on, and reports when it is done: `undefined`, or what is wrong. */
export type Fill = (
  arrays: ReadonlyArray<Bytes>,
  position: number,
  done: (problem: Effect.Effect<void, LoadError> | undefined) => void
) => void

/** The next chunk; `None` at the end of the range. */
type Pull = Effect.Effect<Chunk.Chunk<Bytes>, Option.Option<LoadError>>

/** Takes the chunks of a range, of at most `largest` bytes. The scope ends only after the last call of the system. */
export const pull = (
  { endExclusive, start }: ResolvedRange,
  fill: Fill,
  largest = chunkSize
): Effect.Effect<Pull, never, Scope.Scope> =>
  Effect.map(
    Effect.acquireRelease(
      Effect.sync(() => {
        open++
        return new Batches(start, endExclusive, Math.min(largest, batchSize), fill)
      }),
      (batches) =>
        Effect.suspend(() => {
          open--
          return batches.idle
        })
    ),
    ({ next }) => next
  )

/** How many streams are open. */
let open = 0

class Batches {
  readonly #fill: Fill
  readonly #end: number
  readonly #chunkSize: number
  /** Where the next batch begins. */
  #position: number
  /** What is left of the batch that is being taken, the next chunk last. */
  #current: Array<Bytes> = []
  /** The batch after it, once it is read. */
  #ahead: Array<Bytes> | undefined
  /** What must hold before that is taken. */
  #problem: Effect.Effect<void, LoadError> | undefined
  #isReading = false
  #onRead = () => {}
  #hasTaken = false

  constructor(start: number, end: number, chunkSize: number, fill: Fill) {
    this.#position = start
    this.#end = end
    this.#chunkSize = chunkSize
    this.#fill = fill
  }

  readonly next: Pull = Effect.suspend(() => this.#next())

  /** Waits until no call of the system is under way. */
  readonly idle: Effect.Effect<void> = Effect.suspend(() => this.#isReading ? this.#whenRead(Effect.void) : Effect.void)

  #next(): Pull {
    const chunk = this.#current.pop()
    if (chunk !== undefined) {
      // Who wants only the first one does not wait for more.
      if (this.#hasTaken) this.#readAhead()
      this.#hasTaken = true
      return Effect.succeed(Chunk.of(chunk))
    }
    if (this.#ahead !== undefined) return this.#nextBatch(this.#ahead)
    this.#readAhead()
    return this.#isReading
      ? this.#whenRead(this.next)
      : this.#ahead === undefined
      ? Effect.fail(Option.none())
      : this.next
  }

  #nextBatch(arrays: Array<Bytes>): Pull {
    const problem = this.#problem
    const take = () => {
      this.#ahead = undefined
      this.#problem = undefined
      this.#current = arrays.reverse()
      return this.#next()
    }
    return problem === undefined ? take() : Effect.flatMap(Effect.mapError(problem, Option.some), take)
  }

  /** Continues when the batch is read that is being read. */
  #whenRead<A, E>(next: Effect.Effect<A, E>): Effect.Effect<A, E> {
    return Effect.async((resume) => {
      this.#onRead = () => resume(next)
      return Effect.sync(() => {
        this.#onRead = () => {}
      })
    })
  }

  /** Begins to read the batch after the current one, unless that is done, under way, or beyond the end. */
  #readAhead(): void {
    if (this.#isReading || this.#ahead !== undefined || this.#position === this.#end) return
    const from = this.#position
    const to = Math.min(from + this.#batchSize(), this.#end)
    this.#position = to
    const sizes = Array.from(
      { length: Math.ceil((to - from) / this.#chunkSize) },
      (_, index) => Math.min(this.#chunkSize, to - from - index * this.#chunkSize)
    )
    const allocated = Either.all(sizes.map(allocate))
    if (Either.isLeft(allocated)) return this.#finish([], Effect.fail(allocated.left))
    this.#isReading = true
    this.#fill(allocated.right, from, (problem) => this.#finish(allocated.right, problem))
  }

  #batchSize(): number {
    const chunks = Math.floor(Math.min(batchSize, sharedSize / open) / this.#chunkSize)
    return this.#chunkSize * Math.min(Math.max(chunks, 1), maxChunks)
  }

  #finish(arrays: Array<Bytes>, problem: Effect.Effect<void, LoadError> | undefined): void {
    this.#isReading = false
    this.#ahead = arrays
    this.#problem = problem
    this.#onRead()
  }
}
