/**
 * SHA-256 in plain JavaScript, which only runs where there is no `node:crypto`, held against `node:crypto`.
 */
import { describe, expect, it } from "@effect/vitest"
import { Effect, FastCheck } from "effect"
import { createHash, randomBytes } from "node:crypto"
import { hashOf, sha256 } from "../../../src/internal/chunks/sha256.js"
import * as sha256Script from "../../../src/internal/chunks/sha256Script.js"

const expected = (...pieces: ReadonlyArray<Uint8Array>) =>
  createHash("sha256").update(Buffer.concat(pieces)).digest("hex")

describe("SHA-256 in plain JavaScript", () => {
  it("gives the examples of FIPS 180-4", () => {
    for (
      const [message, digest] of [
        ["", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"],
        ["abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"],
        [
          "abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq",
          "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1"
        ],
        ["a".repeat(1_000_000), "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0"]
      ] as const
    ) {
      const hash = sha256Script.make()
      hash.update(new TextEncoder().encode(message))
      expect(hash.digest()).toBe(digest)
    }
  })

  it("gives what node:crypto gives for every length of a few blocks", () => {
    const bytes = randomBytes(200)
    for (let length = 0; length <= bytes.length; length++) {
      const hash = sha256Script.make()
      hash.update(bytes.subarray(0, length))
      expect(hash.digest()).toBe(expected(bytes.subarray(0, length)))
    }
  })

  it.prop(
    "gives what node:crypto gives however the bytes are cut, and wherever they lie in memory",
    [FastCheck.array(FastCheck.uint8Array({ maxLength: 300 }), { maxLength: 20 }), FastCheck.nat(7)],
    ([pieces, offset]) => {
      const hash = sha256Script.make()
      for (const piece of pieces) {
        const moved = new Uint8Array(piece.byteLength + offset).subarray(offset)
        moved.set(piece)
        hash.update(moved)
      }
      expect(hash.digest()).toBe(expected(...pieces))
    }
  )
})

describe("hashOf", () => {
  it.live("hashes an array of several slices, and lets timers have their turn in between", () =>
    Effect.gen(function*() {
      const bytes = randomBytes(17 * 1024 * 1024 + 3)
      let turns = 0
      const timer = setInterval(() => turns++, 0)
      const digest = yield* Effect.ensuring(hashOf(yield* sha256, bytes), Effect.sync(() => clearInterval(timer)))
      expect(digest).toBe(expected(bytes))
      expect(turns).toBeGreaterThan(1)
      expect(yield* hashOf(sha256Script.make, bytes.subarray(0, 5 * 1024 * 1024))).toBe(
        expected(bytes.subarray(0, 5 * 1024 * 1024))
      )
    }))
})
