/**
 * Which bytes of an object to load: a stretch from one offset to another, everything from an offset on, or the last
 * few. A range is plain data and may be nonsense; it is checked where it is used, and a bad one fails with
 * `InvalidRange` before or instead of moving a byte.
 *
 * @module ByteRange
 * @since 0.1.0
 */
import * as Data from "effect/Data"
import * as Either from "effect/Either"

/**
 * A range of bytes within an object. Offsets and lengths are whole numbers of bytes, counted from 0.
 *
 * @since 0.1.0
 * @category models
 */
export type ByteRange = Data.TaggedEnum<{
  Bounded: { readonly start: number; readonly endExclusive: number }
  From: { readonly start: number }
  Last: { readonly length: number }
}>

const constructors = Data.taggedEnum<ByteRange>()

/**
 * A range held against the size of a real object: `start` is inside it, `endExclusive` no further than its end.
 *
 * @since 0.1.0
 * @category models
 */
export interface ResolvedRange {
  readonly start: number
  readonly endExclusive: number
}

/**
 * The bytes from `start` up to, but not including, `endExclusive`. An end past the object is clamped to its size; a
 * start at or past it is `InvalidRange`, as is a range that holds no byte.
 *
 * @since 0.1.0
 * @category constructors
 * @example
 * ```ts
 * import { ByteRange } from "surfing-weights"
 *
 * // The length of a safetensors header stands in the first eight bytes of the file.
 * const headerLength = ByteRange.make(0, 8)
 * ```
 */
export const make = (start: number, endExclusive: number): ByteRange => constructors.Bounded({ start, endExclusive })

/**
 * The bytes from `start` to the end of the object. A start at or past the end is `InvalidRange`.
 *
 * @since 0.1.0
 * @category constructors
 * @example
 * ```ts
 * import { ByteRange } from "surfing-weights"
 *
 * const afterTheFirstMegabyte = ByteRange.from(1024 * 1024)
 * ```
 */
export const from = (start: number): ByteRange => constructors.From({ start })

/**
 * The last `length` bytes of the object, or the whole object where it is shorter. A length below 1 is `InvalidRange`.
 *
 * @since 0.1.0
 * @category constructors
 * @example
 * ```ts
 * import { ByteRange } from "surfing-weights"
 *
 * const trailer = ByteRange.last(16)
 * ```
 */
export const last = (length: number): ByteRange => constructors.Last({ length })

/**
 * The range as HTTP writes it (RFC 9110, section 14.1.2), for messages and for a `Range` header.
 *
 * @since 0.1.0
 * @category conversions
 * @example
 * ```ts
 * import { ByteRange } from "surfing-weights"
 *
 * ByteRange.toHttp(ByteRange.make(0, 8)) // "bytes=0-7"
 * ```
 */
export const toHttp = (range: ByteRange): string => {
  switch (range._tag) {
    case "Bounded":
      return `bytes=${range.start}-${range.endExclusive - 1}`
    case "From":
      return `bytes=${range.start}-`
    case "Last":
      return `bytes=-${range.length}`
  }
}

const isOffset = (n: number): boolean => Number.isSafeInteger(n) && n >= 0

/**
 * What is wrong with a range whatever object it is asked of, or `undefined` where nothing is.
 *
 * @since 0.1.0
 * @category utils
 */
export const problem = (range: ByteRange): string | undefined => {
  switch (range._tag) {
    case "Bounded":
      return !isOffset(range.start) || !isOffset(range.endExclusive)
        ? `offsets are whole numbers from 0 up, not ${range.start} and ${range.endExclusive}`
        : range.endExclusive <= range.start
        ? `the range from ${range.start} to ${range.endExclusive} holds no byte`
        : undefined
    case "From":
      return isOffset(range.start) ? undefined : `an offset is a whole number from 0 up, not ${range.start}`
    case "Last":
      return isOffset(range.length) && range.length > 0
        ? undefined
        : `a number of last bytes is a whole number from 1 up, not ${range.length}`
  }
}

/**
 * Holds a range against an object of `size` bytes: the bytes that it names there, or on the left the reason why it
 * names none. No range at all is the whole object.
 *
 * @since 0.1.0
 * @category utils
 * @example
 * ```ts
 * import { Either } from "effect"
 * import { ByteRange } from "surfing-weights"
 *
 * ByteRange.resolve(ByteRange.last(4), 10) // right of { start: 6, endExclusive: 10 }
 * ByteRange.resolve(ByteRange.from(10), 10) // left of "the range starts at byte 10 of an object of 10 bytes"
 * ```
 */
export const resolve = (range: ByteRange | undefined, size: number): Either.Either<ResolvedRange, string> => {
  if (range === undefined) return Either.right({ start: 0, endExclusive: size })
  const reason = problem(range)
  if (reason !== undefined) return Either.left(reason)
  if (range._tag === "Last") return Either.right({ start: Math.max(0, size - range.length), endExclusive: size })
  if (range.start >= size) return Either.left(`the range starts at byte ${range.start} of an object of ${size} bytes`)
  return Either.right({
    start: range.start,
    endExclusive: range._tag === "Bounded" ? Math.min(range.endExclusive, size) : size
  })
}
