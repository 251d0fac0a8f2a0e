/**
 * How an object is cut into the parts of an upload.
 */
import * as Chunk from "effect/Chunk"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Stream from "effect/Stream"

export interface UploadParts {
  /** In bytes. */
  readonly partSize: number
  /** Whether all parts but the last must have one size. */
  readonly uniformParts: boolean
  /** How many parts are sent at once. */
  readonly concurrency: number
}

const MiB = 1024 * 1024
const GiB = 1024 * MiB

/** What S3 allows, in bytes: https://docs.aws.amazon.com/AmazonS3/latest/userguide/qfacts.html */
export const limits = {
  parts: 10_000,
  smallestPart: 5 * MiB,
  // S3 allows 5 GiB, an array here does not.
  largestPart: 2 * GiB,
  largestCopy: 5 * GiB
}

/** How much the server copies for one request, where it copies in parts: it has to respond before the idle timeout. */
const copyPartSize = 512 * MiB

/** The size of part `number`, from 1 on, of an object whose size may be known. */
export const sizeOfPart = ({ partSize, uniformParts }: UploadParts, number: number, size = NaN): number => {
  const isKnown = Number.isSafeInteger(size)
  const smallest = isKnown && size > limits.parts * partSize ? Math.ceil(size / limits.parts / MiB) * MiB : 0
  // Each 900 parts of a stream that may have no end are twice as large as those before.
  const growth = isKnown || uniformParts ? 1 : 2 ** Math.floor((number - 1) / 900)
  return Math.min(Math.max(partSize, smallest) * growth, limits.largestPart)
}

/** The size of the parts in which an object is copied. */
export const sizeOfCopiedPart = (size: number): number =>
  Math.max(copyPartSize, Math.ceil(size / limits.parts / MiB) * MiB)

/** A part to be sent. The array may be reused once it is released. */
export interface Part {
  readonly bytes: Uint8Array
  readonly release: Effect.Effect<void>
}

/**
 * Cuts a stream into parts, each in an array that is used again once it was released. At most `count` are in use; then the
 * stream waits.
 */
export class PartReader {
  readonly #pull: Effect.Effect<Chunk.Chunk<Uint8Array>, Option.Option<never>>
  readonly #sizeOf: (number: number) => number
  readonly #permits: Effect.Semaphore
  readonly #free: Array<ArrayBuffer> = []
  #left: Array<Uint8Array> = []
  #hasEnded = false
  #number = 0

  constructor(
    pull: Effect.Effect<Chunk.Chunk<Uint8Array>, Option.Option<never>>,
    count: number,
    sizeOf: (number: number) => number
  ) {
    this.#pull = pull
    this.#sizeOf = sizeOf
    this.#permits = Effect.unsafeMakeSemaphore(count)
  }

  /** The next part; `None` at the end. */
  readonly next: Effect.Effect<Part, Option.Option<never>> = Effect.suspend(() =>
    this.#hasEnded ? Effect.fail(Option.none()) : Effect.flatMap(
      Effect.zipRight(this.#permits.take(1), this.#fill(this.#sizeOf(++this.#number))),
      (bytes) =>
        bytes.byteLength === 0
          ? Effect.fail(Option.none())
          : Effect.succeed({ bytes, release: this.#release(bytes.buffer) })
    )
  )

  readonly rest: Stream.Stream<Part> = Stream.repeatEffectOption(this.next)

  #release(buffer: ArrayBuffer): Effect.Effect<void> {
    return Effect.suspend(() => {
      this.#free.push(buffer)
      return Effect.asVoid(this.#permits.release(1))
    })
  }

  #fill(size: number): Effect.Effect<Uint8Array<ArrayBuffer>> {
    return Effect.gen(this, function*() {
      let part = new Uint8Array(this.#free.pop() ?? new ArrayBuffer(0))
      let at = 0
      while (at < size) {
        const bytes = this.#left.pop()
        if (bytes === undefined) {
          yield* this.#more
          if (this.#hasEnded) break
          continue
        }
        const taken = bytes.subarray(0, size - at)
        if (at + taken.byteLength > part.byteLength) part = enlarged(part, at, at + taken.byteLength, size)
        part.set(taken, at)
        at += taken.byteLength
        if (taken.byteLength < bytes.byteLength) this.#left.push(bytes.subarray(taken.byteLength))
      }
      return part.subarray(0, at)
    })
  }

  readonly #more: Effect.Effect<void> = Effect.suspend(() =>
    Effect.match(this.#pull, {
      onSuccess: (chunk) => {
        this.#left = Chunk.toArray(chunk).reverse()
      },
      onFailure: () => {
        this.#hasEnded = true
      }
    })
  )
}

/** Small objects are many, so their arrays are at most twice as large as they need to be. */
const enlarged = (part: Uint8Array, filled: number, needed: number, size: number): Uint8Array<ArrayBuffer> => {
  const larger = new Uint8Array(Math.min(size, Math.max(2 * part.byteLength, needed)))
  larger.set(part.subarray(0, filled))
  return larger
}
