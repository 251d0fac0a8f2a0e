/**
 * A fixed number of permits, granted first come, first served. Effect's semaphore lets a fiber that asks just when a permit
 * is released go before those that wait, and each release wakes all of them, which for thousands takes all memory.
 */
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as FiberId from "effect/FiberId"

/** A permit that was asked for: to be waited for, or granted at once. */
export type Permit = Deferred.Deferred<void> | undefined

export class Permits {
  #free: number
  readonly #queue = new Set<Deferred.Deferred<void>>()

  constructor(count: number) {
    this.#free = count
  }

  /** Takes a permit, or a place in the queue. */
  take(): Permit {
    if (this.#free > 0) {
      this.#free--
      return undefined
    }
    const permit = Deferred.unsafeMake<void>(FiberId.none)
    this.#queue.add(permit)
    return permit
  }

  /** Releases a permit, or leaves the queue. */
  release(permit: Permit): void {
    if (permit !== undefined && this.#queue.delete(permit)) return
    const [next] = this.#queue
    if (next === undefined) {
      this.#free++
    } else {
      this.#queue.delete(next)
      Deferred.unsafeDone(next, Effect.void)
    }
  }

  /** Runs an effect while it holds a permit. */
  withPermit<A, E, R>(effect: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> {
    return Effect.uninterruptibleMask((restore) => {
      const permit = this.take()
      return Effect.ensuring(restore(granted(permit, effect)), Effect.sync(() => this.release(permit)))
    })
  }
}

/** The effect, once the permit is granted. */
export const granted = <A, E, R>(permit: Permit, effect: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> =>
  permit === undefined ? effect : Effect.zipRight(Deferred.await(permit), effect)
