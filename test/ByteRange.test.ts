/**
 * Ranges, their validation and their resolution.
 */
import { describe, expect, it } from "@effect/vitest"
import { Either } from "effect"
import { ByteRange } from "surfing-weights"

const resolve = (range: ByteRange.ByteRange | undefined, size: number) =>
  Either.getOrElse(ByteRange.resolve(range, size), (reason) => reason)

describe("ByteRange", () => {
  it("resolves a range from one offset to another, clamped to the end of the object", () => {
    expect(resolve(ByteRange.make(2, 5), 10)).toEqual({ start: 2, endExclusive: 5 })
    expect(resolve(ByteRange.make(2, 50), 10)).toEqual({ start: 2, endExclusive: 10 })
    expect(resolve(ByteRange.make(9, 10), 10)).toEqual({ start: 9, endExclusive: 10 })
  })

  it("resolves a range to the end, a suffix, or no range", () => {
    expect(resolve(ByteRange.from(3), 10)).toEqual({ start: 3, endExclusive: 10 })
    expect(resolve(ByteRange.last(3), 10)).toEqual({ start: 7, endExclusive: 10 })
    expect(resolve(ByteRange.last(30), 10)).toEqual({ start: 0, endExclusive: 10 })
    expect(resolve(ByteRange.last(1), 0)).toEqual({ start: 0, endExclusive: 0 })
    expect(resolve(undefined, 10)).toEqual({ start: 0, endExclusive: 10 })
  })

  it("does not resolve a range that starts at or past the end of the object", () => {
    expect(resolve(ByteRange.make(10, 11), 10)).toBe("the range starts at byte 10, but the object has 10 bytes")
    expect(resolve(ByteRange.from(11), 10)).toBe("the range starts at byte 11, but the object has 10 bytes")
    expect(resolve(ByteRange.from(0), 0)).toBe("the range starts at byte 0, but the object has 0 bytes")
  })

  it("says what is wrong with a range for objects of any size", () => {
    const offsets = "the offsets of a range must be whole numbers of at least 0"
    const start = "the start of a range must be a whole number of at least 0"
    const suffix = "the length of a suffix range must be a whole number of at least 1"
    const invalid: ReadonlyArray<readonly [ByteRange.ByteRange, string]> = [
      [ByteRange.make(-1, 5), `${offsets} (got -1 and 5)`],
      [ByteRange.make(0.5, 5), `${offsets} (got 0.5 and 5)`],
      [ByteRange.make(0, Number.NaN), `${offsets} (got 0 and NaN)`],
      [ByteRange.make(0, Number.POSITIVE_INFINITY), `${offsets} (got 0 and Infinity)`],
      [ByteRange.make(5, 5), "a range must end after its start (got 5 to 5)"],
      [ByteRange.make(5, 4), "a range must end after its start (got 5 to 4)"],
      [ByteRange.from(-1), `${start} (got -1)`],
      [ByteRange.from(Number.MAX_SAFE_INTEGER + 1), `${start} (got 9007199254740992)`],
      [ByteRange.last(0), `${suffix} (got 0)`],
      [ByteRange.last(-1), `${suffix} (got -1)`],
      [ByteRange.last(1.5), `${suffix} (got 1.5)`]
    ]
    for (const [range, problem] of invalid) {
      expect(ByteRange.problem(range)).toBe(problem)
      expect(resolve(range, 10)).toBe(problem)
    }
    for (const range of [ByteRange.make(0, 1), ByteRange.from(0), ByteRange.last(1)]) {
      expect(ByteRange.problem(range)).toBeUndefined()
    }
  })

  it("is a Range header with the last byte, not the one after it", () => {
    expect(ByteRange.toHttp(ByteRange.make(0, 8))).toBe("bytes=0-7")
    expect(ByteRange.toHttp(ByteRange.from(8))).toBe("bytes=8-")
    expect(ByteRange.toHttp(ByteRange.last(8))).toBe("bytes=-8")
  })
})
