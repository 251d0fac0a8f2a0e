/**
 * The natural order of strings.
 */
import { describe, expect, it } from "@effect/vitest"
import { FastCheck } from "effect"
import { compareNatural } from "../../../src/weights/modelChunks/naturalOrder.js"

describe("compareNatural", () => {
  it("sorts numbers of any length by value", () => {
    const inOrder = [
      "a",
      "a1",
      "a2b",
      "a2c",
      "a10",
      `a${"9".repeat(400)}`,
      `a1${"0".repeat(400)}`,
      "b",
      "b-1-2",
      "b-1-10"
    ]
    expect([...inOrder].reverse().sort(compareNatural)).toEqual(inOrder)
  })

  const name = FastCheck.stringMatching(/^[a.]{0,2}[0-9]{0,3}[a.]{0,2}[0-9]{0,2}$/)
  it.prop("is antisymmetric, transitive, and equal only for equal strings", [name, name, name], ([a, b, c]) => {
    expect(Math.sign(compareNatural(a, b))).toBe(0 - Math.sign(compareNatural(b, a)))
    expect(compareNatural(a, b) === 0).toBe(a === b)
    const sorted = [a, b, c].sort(compareNatural)
    expect(compareNatural(sorted[0] ?? "", sorted[2] ?? "")).toBeLessThanOrEqual(0)
  })
})
