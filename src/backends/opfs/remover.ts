/**
 * Removes objects.
 */
import * as Effect from "effect/Effect"
import type { RemoveOptions, StorageBackend } from "../../StorageBackend.js"
import * as E from "../../StorageError.js"
import { type Directory, exclusively, existing, locate, missing } from "./directory.js"
import { call, failed, isMissing } from "./errors.js"

/** The methods of a backend that remove objects. */
export const remover = (directory: Directory): Pick<StorageBackend, "remove"> => ({
  remove: (key, options) => remove(directory, key, options)
})

export const remove = (
  directory: Directory,
  key: string,
  { ifMatch }: RemoveOptions
): Effect.Effect<void, E.PreconditionFailed | E.CommonError> =>
  Effect.gen(function*() {
    if (ifMatch !== undefined && (yield* existing(directory, key))?.etag !== ifMatch) {
      return yield* new E.PreconditionFailed()
    }
    const { folder, name } = yield* locate(directory, key, false)
    yield* call(() => folder.removeEntry(name))
  }).pipe(
    Effect.uninterruptible,
    exclusively(directory, key),
    Effect.catchTag("FileSystemError", (error) => isMissing(error) ? missing(directory, error) : failed(error)),
    Effect.catchTag("ObjectNotFound", () => Effect.void)
  )
