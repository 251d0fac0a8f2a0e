/**
 * The two ways to SHA-256: that of Node, and the one for where there is no `node:crypto`.
 */
import { describe, expect, it } from "@effect/vitest"
import { Effect, FastCheck } from "effect"
import { createHash, randomBytes } from "node:crypto"
import { hashOf, native, portable } from "../../src/internal/sha256.js"

const expected = (...pieces: ReadonlyArray<Uint8Array>) =>
  createHash("sha256").update(Buffer.concat(pieces)).digest("hex")

const ways = [["of Node", native], ["in plain JavaScript", portable]] as const

describe.each(ways)("SHA-256 %s", (_, way) => {
  it.effect.prop(
    "is that of the bytes, however they are cut",
    [FastCheck.array(FastCheck.uint8Array({ maxLength: 300 }), { maxLength: 20 })],
    ([pieces]) =>
      Effect.gen(function*() {
        const hash = (yield* way)()
        for (const piece of pieces) hash.update(piece)
        expect(hash.digest()).toBe(expected(...pieces))
      })
  )

  it.live("lets timers have their turn between the slices of a large array", () =>
    Effect.gen(function*() {
      const bytes = randomBytes(17 * 1024 * 1024 + 3)
      let turns = 0
      const timer = setInterval(() => turns++, 0)
      const digest = yield* Effect.ensuring(hashOf(yield* way, bytes), Effect.sync(() => clearInterval(timer)))
      expect(digest).toBe(expected(bytes))
      expect(turns).toBeGreaterThan(1)
    }))
})
