/**
 * Reads that no cache may answer: whoever finds that the bytes of an object are damaged asks again so, and whoever wants
 * to know what is in the storage does at once. A cache drops what it has of such an object and keeps nothing of the
 * answer.
 */
import * as Effect from "effect/Effect"
import * as FiberRef from "effect/FiberRef"
import * as GlobalValue from "effect/GlobalValue"

/** Whether the reads of this fiber go past caches. */
export const current: FiberRef.FiberRef<boolean> = GlobalValue.globalValue(
  "surfing-weights/pastCaches",
  () => FiberRef.unsafeMake(false)
)

/** Runs reads past caches. Of what is opened so, the stream comes from the storage too. */
export const pastCaches = <A, E, R>(reads: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> =>
  Effect.locally(reads, current, true)
