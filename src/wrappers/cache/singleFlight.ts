/**
 * One load for all fibers that want the same object at once.
 */
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as FiberId from "effect/FiberId"
import type { Fill } from "./fills.js"

interface Flight<A, Err> extends Fill {
  readonly outcome: Deferred.Deferred<A, Err>
  fiber: Fiber.Fiber<unknown, unknown> | undefined
  waiting: number
}

export class SingleFlight<A, Err> {
  readonly #flights = new Map<string, Flight<A, Err>>()

  /**
   * What `use` makes of the outcome of a load, which is started unless one with this id is under way that is not stale. It is
   * interrupted when no fiber waits for it any more. `isLast` says that no other fiber will get the same outcome.
   */
  run<B>(
    id: string,
    start: (fill: Fill) => Effect.Effect<A, Err>,
    use: (loaded: A, isLast: boolean) => B
  ): Effect.Effect<B, Err> {
    return Effect.uninterruptibleMask((restore) =>
      Effect.flatMap(this.#join(id, start), (flight) =>
        restore(Deferred.await(flight.outcome)).pipe(
          Effect.map((loaded) => use(loaded, flight.waiting === 1)),
          Effect.ensuring(this.#leave(id, flight))
        ))
    )
  }

  #join(id: string, start: (fill: Fill) => Effect.Effect<A, Err>): Effect.Effect<Flight<A, Err>> {
    return Effect.suspend(() => {
      const flying = this.#flights.get(id)
      if (flying?.isStale === false) {
        flying.waiting++
        return Effect.succeed(flying)
      }
      const flight: Flight<A, Err> = {
        isStale: false,
        outcome: Deferred.unsafeMake(FiberId.none),
        fiber: undefined,
        waiting: 1
      }
      this.#flights.set(id, flight)
      return Effect.interruptible(start(flight)).pipe(
        Effect.onExit((exit) => {
          this.#land(id, flight)
          return Deferred.done(flight.outcome, exit)
        }),
        Effect.forkDaemon,
        Effect.map((fiber) => {
          flight.fiber = fiber
          return flight
        })
      )
    })
  }

  #leave(id: string, flight: Flight<A, Err>): Effect.Effect<unknown> {
    return Effect.suspend(() => {
      if (--flight.waiting > 0) return Effect.void
      this.#land(id, flight)
      return flight.fiber === undefined ? Effect.void : Fiber.interrupt(flight.fiber)
    })
  }

  #land(id: string, flight: Flight<A, Err>): void {
    if (this.#flights.get(id) === flight) this.#flights.delete(id)
  }
}
