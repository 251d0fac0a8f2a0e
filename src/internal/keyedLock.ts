/**
 * One fiber at a time for each name.
 */
import * as Effect from "effect/Effect"
import { Permits } from "./permits.js"

/** Runs an effect while it alone holds `name`. */
export type Locks = (name: string) => <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.Effect<A, E, R>

/** Locks by name, of which only those in use take memory. */
export const make = (): Locks => {
  const inUse = new Map<string, { readonly permits: Permits; users: number }>()
  return (name) => (effect) =>
    Effect.acquireUseRelease(
      Effect.sync(() => {
        const lock = inUse.get(name) ?? { permits: new Permits(1), users: 0 }
        lock.users++
        inUse.set(name, lock)
        return lock
      }),
      ({ permits }) => permits.withPermit(effect),
      (lock) =>
        Effect.sync(() => {
          if (--lock.users === 0) inUse.delete(name)
        })
    )
}
