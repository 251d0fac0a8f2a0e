/**
 * DEFLATE by the library of Node, and by what browsers have.
 */
import { describe, expect, it } from "@effect/vitest"
import { Effect } from "effect"
import * as zlib from "node:zlib"
import { load, native, portable } from "../../../../src/weights/safetensors/compressed/deflate.js"
import { randomBytes } from "../../../support/realWeights.js"

const text = new TextEncoder().encode("weights and biases, ".repeat(5000))
const inputs = [["text", text], ["one byte", text.slice(0, 1)], ["random bytes", randomBytes(100_000)]] as const
const implementations = [["Node", native(zlib)], ["browsers", portable]] as const

describe("Raw DEFLATE", () => {
  for (const [name, deflate] of implementations) {
    for (const [what, bytes] of inputs) {
      it.effect(`of ${what} by ${name} is read by ${name} and by the others`, () =>
        Effect.gen(function*() {
          for (const strategy of ["repetitions", "frequencies"] as const) {
            const coded = yield* deflate.deflate(bytes, strategy)
            expect(Buffer.compare(zlib.inflateRawSync(coded), bytes)).toBe(0)
            for (const [, other] of implementations) {
              expect(Buffer.compare(yield* other.inflate(coded, bytes.length), bytes)).toBe(0)
            }
          }
        }))
    }

    it.effect(`by ${name} is refused unless it has the length that it should have`, () =>
      Effect.gen(function*() {
        const coded = zlib.deflateRawSync(text)
        for (const length of [0, 1, text.length - 1, text.length + 1, 2 * text.length]) {
          const error = yield* Effect.flip(deflate.inflate(coded, length))
          expect(error._tag, `${length}`).toBe("InflateError")
          expect(error.reason).not.toBe("")
        }
      }))

    it.effect(`by ${name} takes no more memory than the length that it should have`, () =>
      Effect.gen(function*() {
        const bomb = zlib.deflateRawSync(new Uint8Array(256 * 1024 * 1024))
        const before = process.memoryUsage().arrayBuffers
        let most = 0
        const watch = setInterval(() => {
          most = Math.max(most, process.memoryUsage().arrayBuffers - before)
        }, 1)
        const error = yield* Effect.flip(deflate.inflate(bomb, 1000))
        expect(error._tag).toBe("InflateError")
        expect(error.reason).toMatch(/(?:more|larger) than 1000 bytes/)
        clearInterval(watch)
        expect(Math.max(most, process.memoryUsage().arrayBuffers - before)).toBeLessThan(8 * 1024 * 1024)
      }))

    it.effect(`by ${name} that is damaged or truncated is refused`, () =>
      Effect.gen(function*() {
        const coded = zlib.deflateRawSync(text)
        const damaged = coded.map((byte, i) => i === 3 ? byte ^ 0xff : byte)
        for (const bytes of [damaged, coded.subarray(0, coded.length - 5), new Uint8Array(0)]) {
          expect((yield* Effect.flip(deflate.inflate(bytes, text.length)))._tag).toBe("InflateError")
        }
      }))

    it(`has the CRC-32 of ISO 3309 by ${name}`, () => {
      expect(deflate.crc32(new TextEncoder().encode("123456789"))).toBe(0xcbf43926)
      expect(deflate.crc32(new Uint8Array(0))).toBe(0)
      for (const [, bytes] of inputs) expect(deflate.crc32(bytes)).toBe(zlib.crc32(bytes))
    })
  }

  it.effect("is that of Node in Node, and looks for frequencies alone where it is told to", () =>
    Effect.gen(function*() {
      const deflate = yield* load
      const repeated = yield* deflate.deflate(text, "repetitions")
      const counted = yield* deflate.deflate(text, "frequencies")
      expect(repeated.length).toBeLessThan(1000)
      expect(counted.length).toBeGreaterThan(text.length / 4)
    }))
})
