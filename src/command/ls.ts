/**
 * `ls`: the objects and folders in a folder.
 */
import * as Chunk from "effect/Chunk"
import * as Effect from "effect/Effect"
import * as Stream from "effect/Stream"
import type * as Storage from "../Storage.js"
import * as Output from "./output.js"
import * as Places from "./places.js"

export const ls = (input: { readonly place: string; readonly recursive: boolean }) =>
  Effect.gen(function*() {
    const place = yield* Places.open(input.place, "read")
    const object = yield* Places.objectAt(place)
    if (object !== undefined) return yield* Output.results([line(object, place.name)])
    const prefix = Places.prefixOf(place)
    const count = yield* input.recursive ? listAll(place.storage, prefix) : listFolder(place.storage, prefix)
    if (count === 0 && place.key !== "") return yield* Places.notFound(place, "ls")
  })

const listAll = (storage: Storage.Service, prefix: string) =>
  storage.entries({ prefix }).pipe(
    Stream.chunks,
    Stream.mapEffect((page) =>
      Effect.as(
        Output.results(Chunk.toReadonlyArray(page).map((info) => line(info, info.key.slice(prefix.length)))),
        page.length
      )
    ),
    Stream.runSum
  )

const listFolder = (storage: Storage.Service, prefix: string) =>
  Effect.flatMap(storage.listDirectory(prefix), ({ objects, prefixes }) =>
    Effect.as(
      Output.results([
        ...prefixes.map((folder) => [{ prefix: folder }, `${" ".repeat(35)}  ${folder.slice(prefix.length)}`] as const),
        ...objects.map((info) => line(info, info.key.slice(prefix.length)))
      ]),
      prefixes.length + objects.length
    ))

/** Size, time and name. */
const line = (info: Storage.ObjectInfo, name: string) =>
  [info, `${String(info.size).padStart(14)}  ${info.lastModified.toISOString().slice(0, 19)}  ${name}`] as const
