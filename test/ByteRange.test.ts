import { describe, expect, it } from "@effect/vitest"
import { Either } from "effect"
import { ByteRange } from "surfing-weights"

const resolve = (range: ByteRange.ByteRange | undefined, size: number) =>
  Either.getOrElse(ByteRange.resolve(range, size), (reason) => reason)

describe("ByteRange", () => {
  it("names the bytes from one offset to another, clamped at the end of the object", () => {
    expect(resolve(ByteRange.make(2, 5), 10)).toEqual({ start: 2, endExclusive: 5 })
    expect(resolve(ByteRange.make(2, 50), 10)).toEqual({ start: 2, endExclusive: 10 })
    expect(resolve(ByteRange.make(9, 10), 10)).toEqual({ start: 9, endExclusive: 10 })
  })

  it("names everything from an offset on, the last bytes, or the whole object", () => {
    expect(resolve(ByteRange.from(3), 10)).toEqual({ start: 3, endExclusive: 10 })
    expect(resolve(ByteRange.last(3), 10)).toEqual({ start: 7, endExclusive: 10 })
    expect(resolve(ByteRange.last(30), 10)).toEqual({ start: 0, endExclusive: 10 })
    expect(resolve(ByteRange.last(1), 0)).toEqual({ start: 0, endExclusive: 0 })
    expect(resolve(undefined, 10)).toEqual({ start: 0, endExclusive: 10 })
  })

  it("that starts at the end of the object or past it names nothing", () => {
    expect(resolve(ByteRange.make(10, 11), 10)).toBe("the range starts at byte 10 of an object of 10 bytes")
    expect(resolve(ByteRange.from(11), 10)).toBe("the range starts at byte 11 of an object of 10 bytes")
    expect(resolve(ByteRange.from(0), 0)).toBe("the range starts at byte 0 of an object of 0 bytes")
  })

  it("that makes no sense is told apart before any object is asked", () => {
    const nonsense = [
      ByteRange.make(-1, 5),
      ByteRange.make(5, 5),
      ByteRange.make(5, 4),
      ByteRange.make(0.5, 5),
      ByteRange.make(0, Number.NaN),
      ByteRange.make(0, Number.POSITIVE_INFINITY),
      ByteRange.from(-1),
      ByteRange.from(Number.MAX_SAFE_INTEGER + 1),
      ByteRange.last(0),
      ByteRange.last(-1),
      ByteRange.last(1.5)
    ]
    for (const range of nonsense) expect(ByteRange.problem(range)).toBeTypeOf("string")
    for (const range of [ByteRange.make(0, 1), ByteRange.from(0), ByteRange.last(1)]) {
      expect(ByteRange.problem(range)).toBeUndefined()
    }
  })

  it("is written as HTTP writes it, with the last byte and not the one after", () => {
    expect(ByteRange.toHttp(ByteRange.make(0, 8))).toBe("bytes=0-7")
    expect(ByteRange.toHttp(ByteRange.from(8))).toBe("bytes=8-")
    expect(ByteRange.toHttp(ByteRange.last(8))).toBe("bytes=-8")
  })
})
