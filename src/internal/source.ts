/**
 * The source of a save on its way to a backend, which knows only bytes: the source's own failure, defect, interruption and
 * context are carried past the backend.
 */
import type * as Cause from "effect/Cause"
import type * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Stream from "effect/Stream"
import type { SaveData } from "../StorageBackend.js"

/**
 * Saves a source. Where the source ends in anything but success, the save is interrupted by the stream that it reads, so
 * that it cleans up, and the outcome is the source's.
 */
export const withSource = <Err, R, A2, Err2>(
  source: Uint8Array | Stream.Stream<Uint8Array, Err, R>,
  save: (data: SaveData) => Effect.Effect<A2, Err2>
): Effect.Effect<A2, Err | Err2, R> =>
  source instanceof Uint8Array ? save(source) : withSources<Err, R, A2, Err2>((carry) => save(carry(source)))

/** The same for a save that reads several streams: each has to be carried. */
export const withSources = <Err, R, A2, Err2>(
  save: (carry: (source: Stream.Stream<Uint8Array, Err, R>) => Stream.Stream<Uint8Array>) => Effect.Effect<A2, Err2>
): Effect.Effect<A2, Err | Err2, R> =>
  Effect.contextWithEffect((context: Context.Context<R>) => {
    let ended: Cause.Cause<Err> | undefined
    const carry = (source: Stream.Stream<Uint8Array, Err, R>) =>
      source.pipe(
        Stream.provideContext(context),
        Stream.catchAllCause((cause) => {
          ended = cause
          return Stream.fromEffect(Effect.interrupt)
        })
      )
    return Effect.matchCauseEffect(save(carry), {
      onFailure: (cause) => Effect.failCause<Err | Err2>(ended ?? cause),
      onSuccess: (saved) => ended === undefined ? Effect.succeed(saved) : Effect.failCause<Err | Err2>(ended)
    })
  })
