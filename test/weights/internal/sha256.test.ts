/**
 * Both implementations of SHA-256: that of Node, and the one without `node:crypto`.
 */
import { describe, expect, it } from "@effect/vitest"
import { Effect, FastCheck } from "effect"
import { createHash, randomBytes } from "node:crypto"
import { hashOf, hexDigest, native, portable } from "../../../src/weights/internal/sha256.js"

const expected = (...pieces: ReadonlyArray<Uint8Array>) =>
  createHash("sha256").update(Buffer.concat(pieces)).digest("hex")

const implementations = [["of Node", native], ["in JavaScript", portable]] as const

describe.each(implementations)("SHA-256 %s", (_, implementation) => {
  it.effect.prop(
    "is the digest of the bytes in any pieces",
    [FastCheck.array(FastCheck.uint8Array({ maxLength: 300 }), { maxLength: 20 })],
    ([pieces]) =>
      Effect.gen(function*() {
        const hash = (yield* implementation)()
        for (const piece of pieces) hash.update(piece)
        expect(hexDigest(hash)).toBe(expected(...pieces))
      })
  )

  it.live("lets timers run between slices of a large array", () =>
    Effect.gen(function*() {
      const bytes = randomBytes(17 * 1024 * 1024 + 3)
      let turns = 0
      const timer = setInterval(() => turns++, 0)
      const digest = yield* Effect.ensuring(
        hashOf(yield* implementation, bytes),
        Effect.sync(() => clearInterval(timer))
      )
      expect(digest).toBe(expected(bytes))
      expect(turns).toBeGreaterThan(1)
    }))
})
