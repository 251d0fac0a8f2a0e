/**
 * Locks among all tabs and workers of the origin, by Web Locks: the browser releases those of a tab that is closed or crashes.
 */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import { StorageTimeout } from "../../StorageError.js"
import type { Browser, LockManager } from "./browser.js"

/** A tab that was stopped while it held a lock must not stop the others. */
const limit = Duration.seconds(30)

/** Runs an effect while it alone holds all of these locks. */
export const withLocks =
  ({ locks }: Browser, names: ReadonlyArray<string>) =>
  <A, E, R>(effect: Effect.Effect<A, E, R>): Effect.Effect<A, E | StorageTimeout, R> =>
    // In one order everywhere, so that no two wait for each other.
    [...names].sort().reduceRight<Effect.Effect<A, E | StorageTimeout, R>>(
      (inner, name) =>
        Effect.acquireUseRelease(
          Effect.sync(() => new Request(locks, name)),
          (request) => Effect.zipRight(request.granted, inner),
          (request) => request.release
        ),
      effect
    )

/** Whether nothing holds a lock. */
export const isFree = ({ locks }: Browser, name: string): Effect.Effect<boolean> =>
  Effect.promise(async () => {
    let isGranted = false
    await locks.request(name, { ifAvailable: true }, (lock) => {
      isGranted = lock !== null
      return Promise.resolve()
    })
    return isGranted
  })

/** A lock that is waited for, or held. */
class Request {
  readonly granted: Effect.Effect<void, StorageTimeout>
  /** Ends when others can have the lock. */
  readonly release: Effect.Effect<void>

  constructor(locks: LockManager, name: string) {
    const waiting = new AbortController()
    let letGo = () => {}
    const held = new Promise<void>((resolve) => {
      letGo = resolve
    })
    let ended = Promise.resolve()
    const granted = new Promise<void>((resolve, reject) => {
      ended = locks.request(name, { signal: waiting.signal }, () => {
        resolve()
        return held
      }).catch(reject)
    })
    // Where the fiber is interrupted, nothing waits for it.
    granted.catch(() => {})
    this.granted = Effect.timeoutFail(Effect.promise(() => granted), {
      duration: limit,
      onTimeout: () => new StorageTimeout({ limit })
    })
    this.release = Effect.promise(() => {
      waiting.abort()
      letGo()
      return ended
    })
  }
}
