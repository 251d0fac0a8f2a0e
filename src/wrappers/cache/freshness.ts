/**
 * How long what is in a cache may be served without asking the storage.
 */
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"

/** Something in the cache. */
interface Confirmed {
  /** When the storage last confirmed that the object is still this one, in milliseconds. */
  confirmedAt: number
}

export class Freshness {
  readonly #timeToLive: number

  /** In milliseconds. */
  constructor(timeToLive: number) {
    this.#timeToLive = timeToLive
  }

  /** Whether it may be served without asking the storage. */
  isFresh({ confirmedAt }: Confirmed): Effect.Effect<boolean> {
    return this.#timeToLive === Infinity
      ? Effect.succeed(true)
      : Effect.map(Clock.currentTimeMillis, (now) => now - confirmedAt < this.#timeToLive)
  }

  /** Notes that the storage has just confirmed it. */
  confirm(confirmed: Confirmed): Effect.Effect<void> {
    return Effect.map(Clock.currentTimeMillis, (now) => {
      confirmed.confirmedAt = now
    })
  }
}
