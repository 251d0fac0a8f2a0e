/**
 * Opens the base directory of a storage.
 */
import * as Effect from "effect/Effect"
import * as E from "../../StorageError.js"
import { toWriteError } from "./errors.js"
import { reserved } from "./keyEncoding.js"
import * as nodeFs from "./nodeFs.js"
import * as Owner from "./owner.js"
import type { Directory } from "./paths.js"

/** What opening a directory can fail with. */
export type OpenError = E.CommonError | E.StorageFull | E.UnsupportedOperation

/** Opens a directory, and creates it if it does not exist. */
export const open = (
  options: {
    readonly directory: string
    readonly durability: "full" | "relaxed"
    readonly symlinks: "refuse" | "follow"
  }
): Effect.Effect<Directory, OpenError> =>
  Effect.gen(function*() {
    const given = nodeFs.resolve(options.directory)
    const stats = yield* Effect.catchIf(nodeFs.stat(given), nodeFs.hasCode("ENOENT"), () =>
      Effect.zipRight(nodeFs.makeFolders(given), nodeFs.stat(given)))
    if (!stats.isDirectory()) {
      return yield* new E.StorageNotFound({ reason: `${given} is not a directory` })
    }
    const path = yield* nodeFs.realPath(given)
    return {
      path,
      hidden: `${path}/${reserved}`,
      owner: yield* Owner.current,
      followLinks: options.symlinks === "follow",
      durable: options.durability === "full",
      attributesInUse: false
    }
  }).pipe(
    Effect.catchTag("SystemError", (error): Effect.Effect<never, OpenError> =>
      Effect.fail(
        error.code === "ENOTDIR"
          ? new E.StorageNotFound({
            reason: `a part of the path ${nodeFs.resolve(options.directory)} is not a directory`,
            cause: error.cause
          })
          : toWriteError(nodeFs.resolve(options.directory), error)
      ))
  )
