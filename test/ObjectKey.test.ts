/**
 * Valid keys and prefixes, and the order of keys.
 */
import { describe, expect, it } from "@effect/vitest"
import { FastCheck } from "effect"
import { ObjectKey } from "surfing-weights"

describe("ObjectKey", () => {
  it("accepts every valid key", () => {
    const keys = [
      "a",
      "a/b/c",
      "with space",
      " ",
      "%",
      "%2F",
      "+#?&",
      "\"'",
      "con",
      "dot.",
      ".hidden",
      "...",
      "a..b",
      "😀/é/e\u0301",
      "\ufffd",
      "x".repeat(1024),
      "é".repeat(512)
    ]
    for (const key of keys) expect([key, ObjectKey.problem(key)]).toEqual([key, undefined])
  })

  it("says what is wrong with an invalid key", () => {
    expect(ObjectKey.problem("")).toBe("it must not be empty")
    expect(ObjectKey.problem("x".repeat(1025))).toBe("it must not exceed 1024 bytes (got 1025)")
    expect(ObjectKey.problem("é".repeat(513))).toBe("it must not exceed 1024 bytes (got 1026)")
    for (const key of ["/a", "a/", "a//b", "/"]) expect(ObjectKey.problem(key)).toMatch(/empty segment/)
    for (const key of [".", "..", "a/../b", "./a", "a/."]) expect(ObjectKey.problem(key)).toMatch(/segment "\.\.?"/)
    for (const key of ["a\0b", "a\nb", "\x7f", "a\u0085"]) expect(ObjectKey.problem(key)).toMatch(/control character/)
    for (const key of ["\ud83d", "a\ude00b", "\ude00\ud83d"]) expect(ObjectKey.problem(key)).toMatch(/surrogate/)
  })

  it("decides whether a key can start with a prefix", () => {
    for (const prefix of ["", "a", "a/", "a/.", "a/..", "..", "x".repeat(1024)]) {
      expect([prefix, ObjectKey.isPrefix(prefix)]).toEqual([prefix, true])
    }
    for (const prefix of ["/", "a//", "../", "./", "a/../", "a\0", "x".repeat(1025), "\ud83d"]) {
      expect([prefix, ObjectKey.isPrefix(prefix)]).toEqual([prefix, false])
    }
  })

  it("compares keys by their bytes of UTF-8", () => {
    expect(["a0", "\u{1f600}", "a/b", "\ufffd", "a.b", "a-b", "a", "é"].sort(ObjectKey.compare)).toEqual(
      ["a", "a-b", "a.b", "a/b", "a0", "é", "\ufffd", "\u{1f600}"]
    )
    const text = FastCheck.string({ unit: "binary", maxLength: 8 })
    FastCheck.assert(
      FastCheck.property(text, text, (a, b) => {
        expect(ObjectKey.compare(a, b)).toBe(Math.sign(Buffer.compare(Buffer.from(a), Buffer.from(b))))
      }),
      { numRuns: 5000 }
    )
  })
})
