/**
 * How large the parts of an upload are.
 */
import { describe, it } from "@effect/vitest"
import * as FastCheck from "effect/FastCheck"
import { expect } from "vitest"
import { limits, sizeOfPart, type UploadParts } from "../../../src/backends/s3/parts.js"

const MiB = 1024 ** 2
const GiB = 1024 ** 3
const TiB = 1024 ** 4

const cut = (partSize: number, uniformParts = false): UploadParts => ({
  partSize,
  uniformParts,
  concurrency: 4
})

const sizesOf = (cut: UploadParts, size?: number): ReadonlyArray<number> =>
  Array.from({ length: limits.parts }, (_, index) => sizeOfPart(cut, index + 1, size))

const sum = (numbers: ReadonlyArray<number>): number => numbers.reduce((all, number) => all + number, 0)

const partSizes = [limits.smallestPart, 8 * MiB, 8 * MiB + 1, 100_000_000, GiB, limits.largestPart]

// What may be asked for, with the ends more often than chance would have them.
const partSize = FastCheck.oneof(
  FastCheck.constantFrom(...partSizes),
  FastCheck.integer({ min: limits.smallestPart, max: limits.largestPart })
)

const size = FastCheck.oneof(
  FastCheck.integer({ min: 0, max: 100 * MiB }),
  FastCheck.integer({ min: 0, max: 50 * TiB }),
  FastCheck.tuple(FastCheck.integer({ min: 0, max: 1000 }), FastCheck.integer({ min: -1, max: 1 })).map(
    ([parts, more]) => Math.max(0, parts * limits.parts * MiB + more)
  )
).filter((size) => size <= limits.parts * limits.largestPart)

describe("the parts of an upload", () => {
  it("are as many and as large as S3 allows", () => {
    expect(limits).toEqual({
      parts: 10_000,
      smallestPart: 5 * MiB,
      largestPart: 2 * GiB,
      largestCopy: 5 * GiB
    })
  })

  it("have the requested size if nothing requires another", () => {
    for (const partSize of partSizes) {
      for (const uniformParts of [false, true]) {
        expect(sizeOfPart(cut(partSize, uniformParts), 1)).toBe(partSize)
        expect(sizeOfPart(cut(partSize, uniformParts), 900)).toBe(partSize)
        expect(sizeOfPart(cut(partSize, uniformParts), 7, 10 * partSize)).toBe(partSize)
      }
    }
  })

  it("can hold a stream of unknown size up to 5 TiB, whatever their initial size", () => {
    for (const partSize of partSizes) {
      expect(sum(sizesOf(cut(partSize))), `from ${partSize} bytes on`).toBeGreaterThanOrEqual(5 * TiB)
    }
  })

  it("double in size after every 900 if the size of a stream is not known", () => {
    const sizes = sizesOf(cut(8 * MiB))
    expect(sizes.slice(0, 900).every((size) => size === 8 * MiB)).toBe(true)
    expect(sizes[900]).toBe(16 * MiB)
    expect(sizes[1799]).toBe(16 * MiB)
    expect(sizes[1800]).toBe(32 * MiB)
    for (const [index, size] of sizes.entries()) expect(size).toBeGreaterThanOrEqual(sizes[index - 1] ?? 0)
  })

  it("have one size if required, so that a long stream does not fit", () => {
    FastCheck.assert(
      FastCheck.property(partSize, FastCheck.integer({ min: 1, max: limits.parts }), (partSize, number) => {
        expect(sizeOfPart(cut(partSize, true), number)).toBe(partSize)
      })
    )
  })

  it("have one size if the size of the object is known: the requested one, or the smallest that suffices", () => {
    FastCheck.assert(
      FastCheck.property(
        partSize,
        FastCheck.boolean(),
        size,
        FastCheck.integer({ min: 1, max: limits.parts }),
        (partSize, uniformParts, size, number) => {
          const first = sizeOfPart(cut(partSize, uniformParts), 1, size)
          expect(sizeOfPart(cut(partSize, uniformParts), number, size)).toBe(first)
          expect(Math.ceil(size / first)).toBeLessThanOrEqual(limits.parts)
          if (first === partSize) return
          // Larger than asked for only as it has to be, to the MiB.
          expect(first).toBeGreaterThan(partSize)
          expect(first % MiB).toBe(0)
          expect((first - MiB) * limits.parts).toBeLessThan(size)
        }
      ),
      { numRuns: 2000 }
    )
  })

  it("are never smaller or larger than S3 allows", () => {
    FastCheck.assert(
      FastCheck.property(
        partSize,
        FastCheck.boolean(),
        FastCheck.option(FastCheck.oneof(size, FastCheck.constantFrom(100 * TiB, Number.MAX_SAFE_INTEGER)), {
          nil: undefined
        }),
        FastCheck.integer({ min: 1, max: limits.parts + 1 }),
        (partSize, uniformParts, size, number) => {
          const actual = sizeOfPart(cut(partSize, uniformParts), number, size)
          expect(Number.isSafeInteger(actual)).toBe(true)
          expect(actual).toBeGreaterThanOrEqual(limits.smallestPart)
          expect(actual).toBeLessThanOrEqual(limits.largestPart)
        }
      ),
      { numRuns: 2000 }
    )
  })
})
