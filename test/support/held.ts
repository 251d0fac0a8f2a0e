/**
 * What an effect leaves in memory until the next full collection.
 */
import { Effect } from "effect"
import { setTimeout } from "node:timers/promises"
import * as v8 from "node:v8"
import * as vm from "node:vm"

const MiB = 1024 * 1024

v8.setFlagsFromString("--expose-gc")
const collect = vm.runInNewContext("gc") as (options?: { readonly type: "minor" }) => void

/** How many MiB of arrays are held after an effect, once V8 has looked for what is young and dead. */
export const heldAfter = <A, E, R>(effect: Effect.Effect<A, E, R>): Effect.Effect<number, E, R> =>
  Effect.gen(function*() {
    collect()
    yield* Effect.promise(() => setTimeout(10))
    const before = process.memoryUsage().arrayBuffers
    yield* effect
    for (let i = 0; i < 3; i++) {
      collect({ type: "minor" })
      // What was collected is given back by another thread.
      yield* Effect.promise(() => setTimeout(10))
    }
    return Math.round((process.memoryUsage().arrayBuffers - before) / MiB)
  })
