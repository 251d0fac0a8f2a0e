/**
 * Many more random sequences of operations over memory than the contract suite runs by default.
 */
import { it } from "@effect/vitest"
import { Effect, FastCheck } from "effect"
import { MemoryStorage } from "surfing-weights"
import * as StorageContract from "surfing-weights/StorageContract"

for (const rule of StorageContract.cases.filter(({ group }) => group === "random operations")) {
  it.live(`MemoryStorage: ${rule.name}, 200 times`, () =>
    Effect.suspend(() => {
      FastCheck.configureGlobal({ numRuns: 200 })
      return StorageContract.run(rule, { layer: MemoryStorage.layer() })
    }))
}
