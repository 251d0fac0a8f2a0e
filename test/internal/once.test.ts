import { describe, expect, it } from "@effect/vitest"
import { Effect, Exit } from "effect"
import { setTimeout } from "node:timers/promises"
import * as v8 from "node:v8"
import * as vm from "node:vm"
import { once } from "../../src/internal/once.js"

const MiB = 1024 * 1024

v8.setFlagsFromString("--expose-gc")
const collect = vm.runInNewContext("gc") as (options?: { readonly type: "minor" }) => void

/** What effects hold, in MiB, that each had to do with an array of 1 MiB, once V8 has looked for what is young and dead. */
const heldAfter = (count: number, touch: (bytes: Uint8Array) => Effect.Effect<void>) =>
  Effect.gen(function*() {
    collect()
    yield* Effect.promise(() => setTimeout(10))
    const before = process.memoryUsage().arrayBuffers
    for (let i = 0; i < count; i++) yield* touch(new Uint8Array(MiB))
    for (let i = 0; i < 3; i++) {
      collect({ type: "minor" })
      // What was collected is given back by another thread.
      yield* Effect.promise(() => setTimeout(10))
    }
    return Math.round((process.memoryUsage().arrayBuffers - before) / MiB)
  })

const later = (bytes: Uint8Array, done: () => void) =>
  void setImmediate(() => {
    bytes.fill(1)
    done()
  })

describe("once", () => {
  it.live("keeps nothing of what has begun until the next full collection", () =>
    Effect.gen(function*() {
      const ours = yield* heldAfter(16, (bytes) => once((resume) => later(bytes, () => resume(Effect.void))))
      expect(ours).toBeLessThan(4)
    }))

  it.live("dies where it is run again, since it would wait for ever", () =>
    Effect.gen(function*() {
      const effect = once<number>((resume) => resume(Effect.succeed(1)))
      yield* effect
      expect(Exit.isFailure(yield* Effect.exit(effect))).toBe(true)
    }))

  it.live("gives what it is resumed with, at once or later", () =>
    Effect.gen(function*() {
      expect(yield* once<number>((resume) => resume(Effect.succeed(1)))).toBe(1)
      expect(yield* once<number>((resume) => void setImmediate(() => resume(Effect.succeed(2))))).toBe(2)
      expect(yield* Effect.flip(once<never, string>((resume) => resume(Effect.fail("no"))))).toBe("no")
    }))
})
