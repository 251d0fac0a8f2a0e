/**
 * The contract suite detects defects, and accepts what the contract allows.
 */
import { assert, describe, expect, it } from "@effect/vitest"
import { Cause, Effect, Exit, FastCheck, Fiber, Stream } from "effect"
import { MemoryStorage } from "surfing-weights"
import * as StorageContract from "surfing-weights/StorageContract"
import { bytesOf, changed, layerOf, mutants, reusing } from "./mutants.js"

const theCase = (name: string): StorageContract.Case =>
  StorageContract.cases.find((rule) => rule.name === name) ?? assert.fail(`there is no case "${name}"`)

/** So many random sequences that a defect is not missed by chance. The first that fails ends them. */
const inManyRuns = <A, E, R>(effect: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> =>
  Effect.acquireUseRelease(
    Effect.sync(() => FastCheck.configureGlobal({ numRuns: 200 })),
    () => effect,
    () => Effect.sync(() => FastCheck.resetConfigureGlobal())
  )

describe("StorageContract", () => {
  it("names each case differently", () => {
    const names = StorageContract.cases.map((rule) => rule.name)
    expect(names).toEqual([...new Set(names)])
  })

  for (const { rule, says, storage, what } of mutants) {
    it.live(`detects a store that ${what}: ${rule}`, () =>
      Effect.gen(function*() {
        const exit = yield* Effect.exit(StorageContract.run(theCase(rule), { layer: layerOf(storage) })).pipe(
          inManyRuns
        )
        if (Exit.isSuccess(exit)) assert.fail(`"${rule}" passed`)
        else expect(Cause.pretty(exit.cause)).toMatch(says)
      }))
  }

  it.live("detects what the effect for leftovers returns", () =>
    Effect.gen(function*() {
      let open = 0
      const layer = layerOf(changed((memory) => ({
        // Closed by readers that reach the end, and only by those.
        open: (key, options) =>
          Effect.map(Effect.tap(memory.open(key, options), () => Effect.sync(() => void open++)), (opened) => ({
            ...opened,
            stream: Stream.concat(opened.stream, Stream.drain(Stream.sync(() => void open--)))
          }))
      })))
      const leftovers = Effect.sync(() => open > 0 ? [`${open} open objects`] : [])
      const rule = theCase("a stream that is abandoned after one chunk releases the object")
      const exit = yield* Effect.exit(StorageContract.run(rule, { layer, leftovers }))
      expect(Exit.isFailure(exit) && Cause.pretty(exit.cause)).toMatch(/what is left over/)
      yield* StorageContract.run(rule, { layer })
    }))

  it("refuses to skip a case that does not exist", () => {
    expect(() =>
      StorageContract.suite("nothing", { layer: MemoryStorage.layer(), skip: { "no such case": "a reason" } })
    ).toThrow("skip must name cases of the contract (got no such case)")
  })
})

describe("StorageContract accepts", () => {
  it.live("a store that writes an array again once it is free", () =>
    StorageContract.run(theCase("an array that is reused is not overwritten while it is in use"), {
      layer: layerOf(changed(reusing((isFree) => isFree())))
    }))

  // As a server does that has received a request when its connection breaks.
  const late = <A, Err>(effect: Effect.Effect<A, Err>, millis: number) =>
    Effect.flatMap(Effect.forkDaemon(Effect.delay(effect, millis)), Fiber.join)
  it.live.each(
    [
      ["a move interrupted at any moment loses nothing", 15],
      // Each save of a key comes before the one that was interrupted earlier.
      ["a save interrupted at any moment leaves the old or the new object, whole", 1]
    ] as const
  )("a store that completes requests after their interruption: %s", ([rule, everySecondSave]) => {
    let saves = 0
    return StorageContract.run(theCase(rule), {
      layer: layerOf(changed(({ open, remove, save }) => ({
        open: (key, options) => Effect.delay(open(key, options), "3 millis"),
        remove: (key, options) => late(remove(key, options), 15),
        save: (key, data, options) =>
          Effect.flatMap(
            bytesOf(data),
            (bytes) => late(save(key, bytes, options), saves++ % 2 === 0 ? 15 : everySecondSave)
          )
      })))
    })
  })
})
