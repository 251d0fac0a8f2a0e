/**
 * Integers and doubles as 32-bit floats: rounded once, compared with exact arithmetic.
 */
import { describe, expect, it } from "@effect/vitest"
import { FastCheck } from "effect"
import type { Safetensors } from "surfing-weights"
import { toFloat32 } from "../../../src/weights/safetensors/elements.js"

/** The nearest multiple of a power of two that has 24 bits; of two that are as near, the one that is even. */
const nearest = (value: bigint): bigint => {
  const size = value < 0n ? -value : value
  const dropped = BigInt(Math.max(0, size.toString(2).length - 24))
  const unit = 1n << dropped
  const rest = size % unit
  const floor = size - rest
  const isUp = 2n * rest > unit || (2n * rest === unit && (floor / unit) % 2n === 1n)
  const rounded = isUp ? floor + unit : floor
  return value < 0n ? -rounded : rounded
}

const convert = (dtype: Safetensors.Dtype, array: BigInt64Array<ArrayBuffer> | BigUint64Array<ArrayBuffer>) =>
  Array.from(toFloat32(dtype, new Uint8Array(array.buffer)), BigInt)

const expectExact = (values: ReadonlyArray<bigint>) => {
  const signed = values.map((value) => BigInt.asIntN(64, value))
  const unsigned = values.map((value) => BigInt.asUintN(64, value))
  expect(convert("I64", BigInt64Array.from(signed))).toEqual(signed.map(nearest))
  expect(convert("U64", BigUint64Array.from(unsigned))).toEqual(unsigned.map(nearest))
}

describe("toFloat32", () => {
  it("rounds 64-bit integers once, where rounding to a double first gives another float", () => {
    expect(convert("I64", BigInt64Array.of(18014399583223809n, -18014399583223809n))).toEqual([
      18014400656965632n,
      -18014400656965632n
    ])
    expect(convert("U64", BigUint64Array.of(18014399583223809n, 2n ** 64n - 1n))).toEqual([
      18014400656965632n,
      2n ** 64n
    ])
    expect(Math.fround(Number(18014399583223809n))).toBe(18014398509481984)
  })

  it("rounds the integers beside each boundary between floats and between doubles", () => {
    for (let bits = 1n; bits <= 64n; bits++) {
      const power = 1n << bits
      // The halves between two floats, and the powers of two, each with their neighbours.
      const halves = bits > 25n ? [1n, 3n, 5n].map((odd) => power + odd * (power >> 24n)) : []
      for (const value of [power, power + (power >> 1n), ...halves]) {
        for (const near of [-2n, -1n, 0n, 1n, 2n]) {
          for (const apart of [0n, 1n << 10n, 1n << 11n, 1n << 12n]) {
            expectExact([value + near, -value + near, value + apart + near, -value - apart + near])
          }
        }
      }
    }
  })

  it("rounds all 64-bit integers to the nearest float", () => {
    const integer = FastCheck.oneof(
      FastCheck.bigInt({ min: -(2n ** 63n), max: 2n ** 64n - 1n }),
      // Few bits at a few places: halves, and what is a little more or less.
      FastCheck.tuple(
        FastCheck.integer({ min: 0, max: 2 ** 25 }),
        FastCheck.integer({ min: 0, max: 40 }),
        FastCheck.integer({ min: -2, max: 2 })
      ).map(([digits, shift, near]) => (BigInt(digits) << BigInt(shift)) + BigInt(near))
    )
    FastCheck.assert(FastCheck.property(FastCheck.array(integer), expectExact), { numRuns: 2000 })
  })

  it("rounds 32-bit integers and doubles once", () => {
    FastCheck.assert(FastCheck.property(FastCheck.integer(), FastCheck.double(), (integer, double) => {
      const floats = [
        toFloat32("I32", new Uint8Array(Int32Array.of(integer).buffer)),
        toFloat32("U32", new Uint8Array(Uint32Array.of(integer).buffer)),
        toFloat32("F64", new Uint8Array(Float64Array.of(double).buffer))
      ]
      expect(floats.map(([value]) => value)).toEqual([
        Number(nearest(BigInt(integer))),
        Number(nearest(BigInt(integer >>> 0))),
        Math.fround(double)
      ])
    }))
  })
})
