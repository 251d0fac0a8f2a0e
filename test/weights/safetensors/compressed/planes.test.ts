/**
 * Floats as planes of bytes.
 */
import { describe, expect, it } from "@effect/vitest"
import { join, split } from "../../../../src/weights/safetensors/compressed/planes.js"
import { randomBytes } from "../../../support/realWeights.js"

describe("The planes of floats", () => {
  const exponents = [["F16", 2, 5], ["BF16", 2, 8], ["F32", 4, 8], ["F64", 8, 11]] as const
  for (const [dtype, width, bits] of exponents) {
    it(`start with the exponent and end with the sign of ${dtype}`, () => {
      const count = 1003
      const elements = randomBytes(count * width, width)
      const { rest, top } = split(elements, width)
      expect([top.length, rest.length]).toEqual([count, count * (width - 1)])
      for (let i = 0; i < count; i++) {
        const element = elements.slice(i * width, (i + 1) * width).reduceRight(
          (sum, byte) => sum << 8n | BigInt(byte),
          0n
        )
        const sign = element >> BigInt(8 * width - 1)
        const exponent = element >> BigInt(8 * width - 1 - bits) & (1n << BigInt(bits)) - 1n
        const highest = bits > 8 ? exponent >> BigInt(bits - 8) : exponent
        expect(BigInt(top[i] ?? -1) >> BigInt(Math.max(0, 8 - bits))).toBe(highest)
        expect(BigInt(rest[i * (width - 1)] ?? -1) & 1n).toBe(sign)
      }
    })

    for (const offset of [0, 1, 2, 4]) {
      it(`give back each of the elements of ${dtype}, ${offset} bytes into an array`, () => {
        // Some are left where several are handled at once.
        const elements = width === 2
          ? new Uint8Array(Uint16Array.from({ length: 65_539 }, (_, i) => i).buffer)
          : randomBytes(10_003 * width, width)
        const within = new Uint8Array(elements.length + offset)
        within.set(elements, offset)
        const { rest, top } = split(within.subarray(offset), width)
        const target = new Uint8Array(elements.length + offset)
        join({ top, rest }, width, target.subarray(offset))
        expect(Buffer.compare(target.subarray(offset), elements)).toBe(0)
        const unaligned = new Uint8Array(rest.length + 1)
        unaligned.set(rest, 1)
        join({ top, rest: unaligned.subarray(1) }, width, target.fill(0).subarray(offset))
        expect(Buffer.compare(target.subarray(offset), elements)).toBe(0)
      })
    }
  }
})
