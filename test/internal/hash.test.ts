/**
 * Both implementations of hashes: that of Node, and the one without `node:crypto`.
 */
import { describe, expect, it } from "@effect/vitest"
import { Effect, FastCheck } from "effect"
import { createHash, randomBytes } from "node:crypto"
import { type Algorithm, hashOf, hexDigest, native, portable } from "../../src/internal/hash.js"

const algorithms = ["md5", "sha1", "sha256", "sha512"] as const

const expected = (algorithm: Algorithm, ...pieces: ReadonlyArray<Uint8Array>) =>
  createHash(algorithm).update(Buffer.concat(pieces)).digest("hex")

const implementations = [["of Node", native], ["in JavaScript", portable]] as const

describe.each(implementations)("a hash %s", (_, implementation) => {
  it.effect.prop(
    "is the digest of the bytes in any pieces, by each algorithm",
    [
      FastCheck.constantFrom(...algorithms),
      FastCheck.array(FastCheck.uint8Array({ maxLength: 300 }), { maxLength: 20 })
    ],
    ([algorithm, pieces]) =>
      Effect.gen(function*() {
        const hash = (yield* implementation(algorithm))()
        for (const piece of pieces) hash.update(piece)
        expect(hexDigest(hash)).toBe(expected(algorithm, ...pieces))
      })
  )

  it.live("lets timers run between slices of a large array", () =>
    Effect.gen(function*() {
      const bytes = randomBytes(17 * 1024 * 1024 + 3)
      let turns = 0
      const timer = setInterval(() => turns++, 0)
      const digest = yield* Effect.ensuring(
        hashOf(yield* implementation("sha256"), bytes),
        Effect.sync(() => clearInterval(timer))
      )
      expect(digest).toBe(expected("sha256", bytes))
      expect(turns).toBeGreaterThan(1)
    }))
})
