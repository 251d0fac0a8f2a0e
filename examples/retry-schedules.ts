/**
 * Retries are a layer, and their policy is a `Schedule`. `StorageChaos` injects the failures to retry.
 */
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import { Console, Duration, Effect, Layer, Schedule, Stream } from "effect"
import { ok, strictEqual } from "node:assert/strict"
import { MemoryStorage, RetryPolicy, Storage, StorageChaos, StorageError, StorageRetry } from "surfing-weights"

// #region policies
// RetryPolicy.default: at most 10 retries in 3 minutes, after random waits of up to 100 ms, 200 ms, … 15 s.
const Default = StorageRetry.layer()

// Any other schedule can be used.
const Quick = StorageRetry.layer(Schedule.spaced("20 millis").pipe(Schedule.intersect(Schedule.recurs(2))))

// This one respects retryAfter, as the default does.
const Polite = StorageRetry.layer(Schedule.recurs(3).pipe(RetryPolicy.respectRetryAfter({ within: "10 seconds" })))
// #endregion

const key = "layer_0.bin"
const weights = Buffer.from(Array.from({ length: 3_500_000 }, (_, i) => i % 251))

/** A memory storage that fails by these rules. */
const broken = (...rules: ReadonlyArray<StorageChaos.Rule>) =>
  StorageChaos.layer(rules).pipe(Layer.provide(MemoryStorage.layer()))

const retries = Effect.gen(function*() {
  yield* Storage.save(key, weights)
  const [waited, loaded] = yield* Effect.timed(Storage.load(key))
  ok(weights.equals(loaded))
  yield* Console.log(`A load failed twice, then succeeded: ${milliseconds(waited)}`)
}).pipe(
  Effect.provide(Layer.provide(Default, broken({ operation: "load", times: 2 })))
)

// #region gives-up
const givesUp = Effect.gen(function*() {
  const failure = yield* Effect.flip(Storage.load(key))
  strictEqual(failure._tag, "StorageUnavailable")
  strictEqual(failure.attempts, 3)
  // No other layer retries it again.
  strictEqual(StorageError.isRetryable(failure), false)
  yield* Console.log(`A load failed each time: ${failure.message}`)
}).pipe(
  Effect.provide(Layer.provide(Quick, broken({ operation: "load", times: Infinity })))
)
// #endregion

const waits = Effect.gen(function*() {
  yield* Storage.save(key, weights)
  const [waited] = yield* Effect.timed(Storage.load(key))
  // Timers of Node.js may be a millisecond early.
  ok(Duration.greaterThan(waited, "298 millis"))
  yield* Console.log(`A retry waited for the 300 ms that the store asked for: ${milliseconds(waited)}`)
}).pipe(
  Effect.provide(Layer.provide(
    Polite,
    broken({
      operation: "load",
      error: (struck) =>
        new StorageError.StorageUnavailable({ ...struck, reason: "slow down", retryAfter: Duration.millis(300) })
    })
  ))
)

// #region resume
// Every stream breaks after a million bytes.
const breaking = broken({ operation: "open", afterBytes: 1_000_000, times: Infinity })

// It resumes at the byte where it broke, and every byte arrives once.
const resumes = Effect.gen(function*() {
  yield* Storage.save(key, weights)
  const chunks = yield* Stream.runCollect(Storage.stream(key))
  ok(weights.equals(Buffer.concat([...chunks])))
}).pipe(
  Effect.provide(Layer.provide(Default, breaking))
)
// #endregion

const breaksWithoutRetries = Effect.gen(function*() {
  yield* Storage.save(key, weights)
  const failure = yield* Effect.flip(Stream.runDrain(Storage.stream(key)))
  strictEqual(failure._tag, "StorageUnavailable")
}).pipe(
  Effect.provide(breaking)
)

const program = Effect.gen(function*() {
  yield* retries
  yield* givesUp
  yield* waits
  yield* resumes
  yield* breaksWithoutRetries
  yield* Console.log(`A stream of ${weights.byteLength} bytes broke after every million, and arrived whole`)
})

const milliseconds = (duration: Duration.Duration) => `${Duration.toMillis(duration).toFixed(0)} ms`

NodeRuntime.runMain(program)
