/**
 * `mv`: renames an object or the objects of a folder, or moves them to another storage, where each is removed once its copy is
 * complete.
 */
import * as Effect from "effect/Effect"
import * as Stream from "effect/Stream"
import type * as Storage from "../Storage.js"
import { refuseItself, requireFolder, sendObject, targetKey } from "./cp.js"
import * as Output from "./output.js"
import * as Places from "./places.js"
import { concurrency, transfer } from "./transfer.js"

export const mv = (input: { readonly from: string; readonly to: string }) =>
  Effect.gen(function*() {
    const source = yield* Places.open(input.from, "read")
    const object = yield* Places.objectAt(source)
    if (object === undefined) yield* requireFolder(source, "mv")
    const [from, to] = Places.inOneStorage(source, yield* Places.open(input.to, "write", object === undefined))
    if (object !== undefined) return yield* moveObject(from, object, to)
    yield* Places.refuseOverlap(from, to)
    if (Places.isOneStorage(from, to)) return yield* renameFolder(from, to)
    yield* transfer(yield* Places.folderOf(from), yield* Places.folderOf(to), { move: true })
  })

const moveObject = (from: Places.Place, object: Storage.ObjectInfo, to: Places.Place) =>
  Effect.gen(function*() {
    const key = targetKey(from, to)
    if (Places.isOneStorage(from, to)) {
      yield* refuseItself(from, to, key)
      yield* to.storage.move(from.key, key)
    } else {
      yield* sendObject(from, object.size, to, key)
      const { conditionalRemove } = from.storage.backend.capabilities
      yield* from.storage.remove(from.key, conditionalRemove ? { ifMatch: object.etag } : {})
    }
    yield* Output.event({ event: "moved", key, size: object.size }, `moved ${from.text} to ${key}`)
  })

/** Within a storage, each object is renamed, without its bytes passing through here. */
const renameFolder = (from: Places.Place, to: Places.Place) =>
  Effect.gen(function*() {
    const [before, after] = [Places.prefixOf(from), Places.prefixOf(to)]
    const moved = yield* to.storage.entries({ prefix: before }).pipe(
      Stream.mapEffect(
        ({ key }) => Effect.as(to.storage.move(key, after + key.slice(before.length)), 1),
        { concurrency, unordered: true }
      ),
      Stream.runSum
    )
    yield* Output.event({ event: "moved", prefix: after, objects: moved }, `moved ${Output.plural(moved, "object")}`)
  })
