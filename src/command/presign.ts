/**
 * `presign`: a URL with which anyone can load or save an object until it expires.
 */
import * as Effect from "effect/Effect"
import { UsageError } from "./failures.js"
import * as Output from "./output.js"
import * as Places from "./places.js"
import { parseDuration } from "./values.js"

export const presign = (input: {
  readonly place: string
  readonly method: "GET" | "PUT"
  readonly expires: string
}) =>
  Effect.gen(function*() {
    const expiresIn = yield* parseDuration("expires", input.expires)
    const place = yield* Places.open(input.place, "read")
    if (place.isFolder) {
      return yield* new UsageError({ message: `${input.place} is a folder; give the URL of an object` })
    }
    const url = yield* place.storage.presign(place.key, { method: input.method, expiresIn })
    yield* Output.result({ url, method: input.method }, url)
  })
