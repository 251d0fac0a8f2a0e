/**
 * `rm`: removes objects, and folders where the place ends in a slash.
 */
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Stream from "effect/Stream"
import { CommandFailed, UsageError } from "./failures.js"
import * as Output from "./output.js"
import * as Places from "./places.js"

export const rm = (input: { readonly places: ReadonlyArray<string> }) =>
  Effect.forEach(input.places, (text) => Effect.scoped(remove(text)), { discard: true })

const remove = (text: string) =>
  Effect.gen(function*() {
    const place = yield* Places.open(text, "read")
    if (Places.endsInSlash(text)) return yield* removeFolder(place)
    const object = yield* Places.objectAt(place)
    if (object === undefined) return yield* (yield* isFolder(place)) ? refuse(place) : Places.notFound(place, "rm")
    yield* place.storage.remove(object.key)
    yield* Output.event({ event: "removed", key: object.key }, `removed ${text}`)
  })

const isFolder = (place: Places.Place) =>
  place.isFolder
    ? Effect.succeed(true)
    : Effect.map(Stream.runHead(place.storage.entries({ prefix: Places.prefixOf(place) })), Option.isSome)

const refuse = ({ text }: Places.Place) =>
  new UsageError({ message: `${text} is a folder; to remove all objects in it, end its path in a slash` })

const removeFolder = (place: Places.Place) =>
  Effect.gen(function*() {
    const prefix = Places.prefixOf(place)
    const keys = Stream.map(place.storage.entries({ prefix }), ({ key }) => key)
    const { failed, removed } = yield* place.storage.removeAll(keys)
    if (removed + failed.length === 0) return yield* Places.notFound(place, "rm")
    yield* Output.event({ event: "removed", prefix, objects: removed }, `removed ${Output.plural(removed, "object")}`)
    for (const { message } of failed) yield* Output.warn(message)
    if (failed.length > 0) {
      return yield* new CommandFailed({ message: `${Output.plural(failed.length, "object")} could not be removed` })
    }
  })
