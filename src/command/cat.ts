/**
 * `cat`: the bytes of objects on standard output.
 */
import * as Effect from "effect/Effect"
import * as Storage from "../Storage.js"
import * as Output from "./output.js"
import * as Places from "./places.js"

export const cat = (input: { readonly places: ReadonlyArray<string> }) =>
  Effect.forEach(input.places, print, { discard: true })

/** Prints one object. */
export const print = (text: string) =>
  Effect.gen(function*() {
    const place = yield* Places.open(text, "read")
    const { key } = yield* Places.requireObject(place)
    yield* Storage.forEachChunk(place.storage.stream(key), Output.write)
  }).pipe(Effect.scoped)
