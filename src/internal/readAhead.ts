/**
 * Loads items in order, some of them ahead of the consumer.
 */
import type * as Chunk from "effect/Chunk"
import * as Effect from "effect/Effect"
import type * as Exit from "effect/Exit"
import * as Option from "effect/Option"
import * as Stream from "effect/Stream"

/**
 * The results of `load` for each item, in order, with up to `ahead` loads running or done ahead of the consumer. A load that
 * fails ahead fails the stream at its turn; loads that run when the stream ends are interrupted.
 *
 * `initial` loads, at least one, start together at the beginning: with one, the first load has the whole bandwidth.
 *
 * A result is released as soon as it is consumed. A fiber that was joined keeps its result, and V8 keeps the fiber until its
 * next full collection, which large arrays would then cause too often.
 */
export const readAhead = <A, B, Err, R>(
  items: Iterable<A>,
  load: (item: A) => Effect.Effect<Chunk.Chunk<B>, Err, R>,
  ahead: number,
  initial = Math.max(1, ahead)
): Stream.Stream<B, Err, R> =>
  Stream.fromPull(Effect.gen(function*() {
    const scope = yield* Effect.scope
    const left = items[Symbol.iterator]()
    const places: Array<Place<Chunk.Chunk<B>, Err>> = []

    const start = Effect.suspend(() => {
      const next = left.next()
      if (next.done === true) return Effect.succeed(false)
      const place = makePlace<Chunk.Chunk<B>, Err>()
      places.push(place)
      return Effect.as(Effect.forkIn(Effect.flatMap(Effect.exit(load(next.value)), place.put), scope), true)
    })
    const fill = (count: number): Effect.Effect<void, never, R> =>
      Effect.suspend(() =>
        places.length >= count ? Effect.void : Effect.flatMap(start, (more) => more ? fill(count) : Effect.void)
      )
    const take = Effect.suspend(() =>
      places[0] === undefined ? Effect.fail(Option.none()) : Effect.mapError(places[0].take, Option.some)
    )
    return fill(initial).pipe(
      Effect.zipRight(take),
      Effect.zipLeft(Effect.suspend(() => {
        places.shift()
        return fill(ahead)
      }))
    )
  }))

/** Where the outcome of one load waits for its consumer, or the consumer for it. */
interface Place<A, Err> {
  readonly put: (outcome: Exit.Exit<A, Err>) => Effect.Effect<void>
  readonly take: Effect.Effect<A, Err>
}

const makePlace = <A, Err>(): Place<A, Err> => {
  let outcome: Exit.Exit<A, Err> | undefined
  let waiting: ((outcome: Exit.Exit<A, Err>) => void) | undefined
  const taken = (): Exit.Exit<A, Err> | undefined => {
    const loaded = outcome
    outcome = undefined
    return loaded
  }
  return {
    put: (loaded) =>
      Effect.sync(() => {
        if (waiting === undefined) outcome = loaded
        else waiting(loaded)
      }),
    take: Effect.suspend(() =>
      taken() ?? Effect.async((resume) => {
        // The fiber may have made way for others since it looked.
        const loaded = taken()
        if (loaded === undefined) waiting = resume
        else resume(loaded)
      })
    )
  }
}
