/**
 * Lists objects.
 */
import * as Arr from "effect/Array"
import * as Chunk from "effect/Chunk"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Stream from "effect/Stream"
import type * as StorageBackend from "../../StorageBackend.js"
import type * as E from "../../StorageError.js"
import { checkDirectory, isMissing, toReadError } from "./errors.js"
import * as nodeFs from "./nodeFs.js"
import { type Directory, pathOf } from "./paths.js"
import { infoOf } from "./versions.js"
import * as Walk from "./walk.js"

/** How many objects are looked at at once. */
const statsAtOnce = 16

/** The methods of a backend that list objects. */
export const lister = (
  directory: Directory
): Pick<StorageBackend.StorageBackend, "entries" | "keys" | "listDirectory"> => ({
  entries: (options) =>
    listing(directory, Walk.keys(directory, options)).pipe(
      Stream.mapChunksEffect((keys) => Effect.map(describeAll(directory, keys), Chunk.unsafeFromArray))
    ),
  keys: (options) => listing(directory, Walk.keys(directory, options)),
  listDirectory: (prefix) =>
    Effect.gen(function*() {
      const names = yield* Stream.runCollect(listing(directory, Walk.children(directory, { prefix })))
      const [keys, prefixes] = Arr.partition(names, (name) => name.endsWith("/"))
      return { objects: yield* describeAll(directory, keys), prefixes }
    })
})

/**
 * A listing. Folders that are removed meanwhile are skipped, so the base directory is looked at before and after: its absence
 * must not be taken for an empty listing, nor for the end of one.
 */
const listing = (
  directory: Directory,
  names: Stream.Stream<string, nodeFs.SystemError>
): Stream.Stream<string, E.CommonError> =>
  Stream.execute(checkDirectory(directory)).pipe(
    Stream.concat(Stream.mapError(names, (error) => toReadError(directory.path, error))),
    Stream.concat(Stream.execute(checkDirectory(directory)))
  )

const describeAll = (
  directory: Directory,
  keys: Iterable<string>
): Effect.Effect<Array<StorageBackend.ObjectInfo>, E.CommonError> =>
  Effect.map(Effect.forEach(keys, (key) => describe(directory, key), { concurrency: statsAtOnce }), Arr.getSomes)

/** The info of a key that was listed, unless the object is gone. */
const describe = (
  directory: Directory,
  key: string
): Effect.Effect<Option.Option<StorageBackend.ObjectInfo>, E.CommonError> => {
  const path = pathOf(directory, key)
  return nodeFs.stat(path).pipe(
    Effect.map((stats) => stats.isFile() ? Option.some(infoOf(key, stats)) : Option.none()),
    Effect.catchIf(isMissing, () => Effect.succeedNone),
    Effect.catchAll((error) => Effect.fail(toReadError(path, error)))
  )
}
