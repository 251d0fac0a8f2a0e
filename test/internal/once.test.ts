/**
 * Asynchronous effects that refer to large arrays.
 */
import { describe, expect, it } from "@effect/vitest"
import { Effect, Exit } from "effect"
import { once } from "../../src/internal/once.js"
import { heldAfter } from "../support/held.js"

const MiB = 1024 * 1024

const later = (bytes: Uint8Array, done: () => void) =>
  void setImmediate(() => {
    bytes.fill(1)
    done()
  })

describe("once", () => {
  it.live("keeps nothing that it refers to alive until the next full collection", () =>
    Effect.gen(function*() {
      const touch = (bytes: Uint8Array) => once<void>((resume) => later(bytes, () => resume(Effect.void)))
      const touching = Effect.forEach(
        Array.from({ length: 16 }),
        () => Effect.suspend(() => touch(new Uint8Array(MiB)))
      )
      expect(yield* heldAfter(touching)).toBeLessThan(4)
    }))

  it.live("dies where it is run again, which would wait forever", () =>
    Effect.gen(function*() {
      const effect = once<number>((resume) => resume(Effect.succeed(1)))
      yield* effect
      expect(Exit.isFailure(yield* Effect.exit(effect))).toBe(true)
    }))

  it.live("has the outcome that it is resumed with, at once or later", () =>
    Effect.gen(function*() {
      expect(yield* once<number>((resume) => resume(Effect.succeed(1)))).toBe(1)
      expect(yield* once<number>((resume) => void setImmediate(() => resume(Effect.succeed(2))))).toBe(2)
      expect(yield* Effect.flip(once<never, string>((resume) => resume(Effect.fail("no"))))).toBe("no")
    }))
})
