/**
 * The tests that the guide to testing shows: an app on a storage in memory, with injected failures and a test clock.
 */
import { describe, expect, it } from "@effect/vitest"
import { Chunk, Effect, Fiber, Layer, Schedule, Stream, TestClock } from "effect"
import { MemoryStorage, Storage, StorageChaos, StorageRetry, StorageTimeout } from "surfing-weights"

const weights = new Uint8Array(5000).fill(7)

describe("an app", () => {
  // #region stream
  it.effect("streams all of the weights where the connection breaks twice", () =>
    Effect.gen(function*() {
      yield* Storage.save("layer_0.bin", weights)
      const chunks = yield* Stream.runCollect(Storage.stream("layer_0.bin"))
      expect(Buffer.concat([...chunks])).toEqual(Buffer.from(weights))
      expect(Chunk.size(chunks)).toBe(3)
      // A rule with a typo in its key would never apply.
      expect(yield* StorageChaos.unused).toEqual([])
    }).pipe(
      Effect.provide(
        StorageRetry.layer(Schedule.recurs(2)).pipe(
          Layer.provideMerge(
            StorageChaos.layer([{ operation: "open", key: "layer_0.bin", afterBytes: 2000, times: 2 }])
          ),
          Layer.provide(MemoryStorage.layer())
        )
      )
    ))
  // #endregion

  // #region clock
  it.effect("gives up after three attempts of ten seconds", () =>
    Effect.gen(function*() {
      const loading = yield* Effect.fork(Effect.flip(Storage.load("layer_0.bin")))
      yield* TestClock.adjust("29 seconds")
      expect(yield* Fiber.poll(loading)).toMatchObject({ _tag: "None" })
      yield* TestClock.adjust("1 second")
      expect(yield* Fiber.join(loading)).toMatchObject({ _tag: "StorageTimeout", attempts: 3 })
    }).pipe(
      Effect.provide(
        StorageRetry.layer(Schedule.recurs(2)).pipe(
          Layer.provide(StorageTimeout.layer({ deadline: "10 seconds", idleTimeout: "10 seconds" })),
          // Nothing fails; every load takes an hour.
          Layer.provideMerge(
            StorageChaos.layer([{ operation: "load", delay: "1 hour", error: "none", times: Infinity }])
          ),
          Layer.provide(MemoryStorage.layer())
        )
      )
    ))
  // #endregion

  // #region lost
  it.effect("is told where it cannot know whether its save was carried out", () =>
    Effect.gen(function*() {
      const failure = yield* Effect.flip(Storage.save("layer_0.bin", weights, { ifNoneMatch: "*" }))
      expect(failure._tag).toBe("StorageUnavailable")
      expect(yield* Storage.load("layer_0.bin")).toEqual(weights)
    }).pipe(
      Effect.provide(
        StorageRetry.layer(Schedule.recurs(2)).pipe(
          // The save is carried out, but its response is lost.
          Layer.provide(StorageChaos.layer([{ operation: "save", when: "after" }])),
          Layer.provide(MemoryStorage.layer())
        )
      )
    ))
  // #endregion
})
