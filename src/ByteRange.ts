/**
 * Ranges of bytes to load: from one offset to another, from an offset to the end, or a number of bytes at the end. A range
 * is plain data. It is checked when it is used: a load of an invalid range fails with `InvalidRange`.
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
 * A range within an object of a known size: `endExclusive` is at most that size.
 *
 * @since 0.1.0
 * @category models
 */
export interface ResolvedRange {
  readonly start: number
  readonly endExclusive: number
}

/**
 * The bytes from `start` up to, but not including, `endExclusive`. An end past the object is clamped to its size. A load
 * fails with `InvalidRange` where the start is at or past the end of the object, or the range is empty.
 *
 * @since 0.1.0
 * @category constructors
 * @example
 * ```ts
 * import { ByteRange } from "surfing-weights"
 *
 * // The first eight bytes of a safetensors file are the length of its header.
 * const headerLength = ByteRange.make(0, 8)
 * ```
 */
export const make = (start: number, endExclusive: number): ByteRange => constructors.Bounded({ start, endExclusive })

/**
 * The bytes from `start` to the end of the object. A load fails with `InvalidRange` where the start is at or past the end.
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
 * The last `length` bytes of the object, or the whole object where it is shorter. A load fails with `InvalidRange` where the
 * length is less than 1.
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
 * The range as the value of a `Range` header (RFC 9110, section 14.1.2).
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
 * What is wrong with a range for objects of any size, or `undefined` for a valid range.
 *
 * @since 0.1.0
 * @category utils
 */
export const problem = (range: ByteRange): string | undefined => {
  switch (range._tag) {
    case "Bounded":
      return !isOffset(range.start) || !isOffset(range.endExclusive)
        ? `the offsets of a range must be whole numbers of at least 0 (got ${range.start} and ${range.endExclusive})`
        : range.endExclusive <= range.start
        ? `a range must end after its start (got ${range.start} to ${range.endExclusive})`
        : undefined
    case "From":
      return isOffset(range.start)
        ? undefined
        : `the start of a range must be a whole number of at least 0 (got ${range.start})`
    case "Last":
      return isOffset(range.length) && range.length > 0
        ? undefined
        : `the length of a suffix range must be a whole number of at least 1 (got ${range.length})`
  }
}

/**
 * Resolves a range against an object of `size` bytes; without a range, the whole object. The left side is the reason of an
 * `InvalidRange`.
 *
 * @since 0.1.0
 * @category utils
 * @example
 * ```ts
 * import { Either } from "effect"
 * import { ByteRange } from "surfing-weights"
 *
 * ByteRange.resolve(ByteRange.last(4), 10) // right of { start: 6, endExclusive: 10 }
 * ByteRange.resolve(ByteRange.from(10), 10) // left of "the range starts at byte 10, but the object has 10 bytes"
 * ```
 */
export const resolve = (range: ByteRange | undefined, size: number): Either.Either<ResolvedRange, string> => {
  if (range === undefined) return Either.right({ start: 0, endExclusive: size })
  const reason = problem(range)
  if (reason !== undefined) return Either.left(reason)
  if (range._tag === "Last") return Either.right({ start: Math.max(0, size - range.length), endExclusive: size })
  if (range.start >= size) {
    return Either.left(`the range starts at byte ${range.start}, but the object has ${size} bytes`)
  }
  return Either.right({
    start: range.start,
    endExclusive: range._tag === "Bounded" ? Math.min(range.endExclusive, size) : size
  })
}
