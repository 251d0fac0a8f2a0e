/**
 * `du`: how much a folder or object takes.
 */
import * as Effect from "effect/Effect"
import * as Stream from "effect/Stream"
import * as Output from "./output.js"
import * as Places from "./places.js"

export const du = (input: { readonly place: string }) =>
  Effect.gen(function*() {
    const place = yield* Places.open(input.place, "read")
    const object = yield* Places.objectAt(place)
    const entries = object === undefined
      ? place.storage.entries({ prefix: Places.prefixOf(place) })
      : Stream.make(object)
    const { bytes, objects } = yield* Stream.runFold(entries, { bytes: 0, objects: 0 }, (sum, { size }) => ({
      bytes: sum.bytes + size,
      objects: sum.objects + 1
    }))
    if (objects === 0 && place.key !== "") return yield* Places.notFound(place, "du")
    yield* Output.result(
      { objects, bytes },
      `${bytes} bytes (${Output.formatBytes(bytes)}) in ${Output.plural(objects, "object")}`
    )
  })
