/**
 * Removes objects.
 */
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import type * as StorageBackend from "../../StorageBackend.js"
import * as E from "../../StorageError.js"
import * as Descriptors from "./descriptors.js"
import { checkDirectory, isMissing, toReadError } from "./errors.js"
import { exclusivelyIfPossible } from "./locks.js"
import * as nodeFs from "./nodeFs.js"
import { type Directory, folderOf, pathOf, useName } from "./paths.js"
import { existing } from "./reader.js"
import * as Records from "./records.js"

/** The methods of a backend that remove objects. */
export const remover = (directory: Directory): Pick<StorageBackend.StorageBackend, "remove"> => ({
  remove: (key, options) =>
    remove(directory, key, options).pipe(
      Effect.uninterruptible,
      exclusivelyIfPossible(directory, key),
      Descriptors.inTurn
    )
})

/** Removes an object. To be run under the lock of the key. */
export const remove = (
  directory: Directory,
  key: string,
  { ifMatch }: StorageBackend.RemoveOptions
): Effect.Effect<void, E.RemoveError> =>
  Effect.gen(function*() {
    if (ifMatch !== undefined) {
      const stats = yield* existing(directory, key)
      const etag = stats && (yield* Records.etagOf(directory, key, stats))
      if (etag !== ifMatch) return yield* new E.PreconditionFailed()
    }
    const outgoing = yield* Records.outgoing(directory, key)
    yield* unlink(directory, key)
    yield* Records.remove(directory, key, outgoing)
  })

const unlink = (directory: Directory, key: string) =>
  useName(directory, pathOf(directory, key), nodeFs.unlink).pipe(
    Effect.zipRight(prune(directory, folderOf(directory, key))),
    Effect.catchTag("SystemError", (error) => unlinkFailed(directory, key, error))
  )

const unlinkFailed = (directory: Directory, key: string, error: nodeFs.SystemError) => {
  if (isMissing(error)) return checkDirectory(directory)
  // A folder is not an object. Linux says EISDIR, others EPERM.
  if (error.code === "EISDIR") return Effect.void
  const path = pathOf(directory, key)
  return Effect.flatMap(
    Effect.option(nodeFs.lstat(path)),
    (stats) => Option.isSome(stats) && stats.value.isDirectory() ? Effect.void : Effect.fail(toReadError(path, error))
  )
}

/** Removes the folders that held an object and nothing else: they were created for it. */
export const prune = (directory: Directory, folder: string): Effect.Effect<void> =>
  folder === directory.path
    ? Effect.void
    : Effect.matchEffect(useName(directory, folder, nodeFs.removeFolder), {
      onFailure: () => Effect.void,
      onSuccess: () => prune(directory, nodeFs.dirname(folder))
    })
