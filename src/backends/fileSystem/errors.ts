/**
 * Errors of the operating system as failures of a storage.
 */
import * as Effect from "effect/Effect"
import * as E from "../../StorageError.js"
import * as nodeFs from "./nodeFs.js"
import { type Directory, pathOf } from "./paths.js"

/** Whether there cannot be a file of this name. */
export const isMissing: (error: nodeFs.SystemError) => boolean = nodeFs.hasCode("ENOENT", "ENOTDIR", "ENAMETOOLONG")

/** Whether the process may not do something. */
export const isDenied: (error: nodeFs.SystemError) => boolean = nodeFs.hasCode("EACCES", "EPERM")

/** Where an error happened; `path` is where the operation happened. */
const placeOf = (path: string, { cause }: nodeFs.SystemError): string =>
  // Of a rename, the error may be about the other name.
  "dest" in cause ? path : cause.path ?? path

/** The error of a call that only reads, at a path. A missing file is handled by the caller. */
export const toReadError = (at: string, error: nodeFs.SystemError): E.CommonError => {
  const { cause, code } = error
  const path = placeOf(at, error)
  switch (code) {
    case "EACCES":
    case "EPERM":
      return new E.AccessDenied({
        reason: `permission denied at ${path} (${code}); check its owner and permissions`,
        cause
      })
    case "EROFS":
      return new E.AccessDenied({ reason: `${path} is on a file system that is mounted read-only`, cause })
    case "ELOOP":
      return new E.AccessDenied({ reason: `${path} is a cycle of symbolic links`, cause })
    case "EMFILE":
    case "ENFILE":
      return new E.StorageUnavailable({
        reason: `too many open files (${code}); raise the limit (ulimit -n) or run fewer operations at once`,
        cause
      })
    case "EAGAIN":
    case "EBUSY":
    case "EINTR":
    case "ENOMEM":
    case "ESTALE":
    case "ETIMEDOUT":
    case "ETXTBSY":
      return new E.StorageUnavailable({ reason: `${path} cannot be used now (${code})`, cause })
    default:
      return new E.UnexpectedStorageError({ reason: `${code} at ${path}: ${cause.message}`, cause })
  }
}

/** The error of a call that writes, for an operation at a path. */
export const toWriteError = (
  at: string,
  error: nodeFs.SystemError
): E.CommonError | E.StorageFull | E.UnsupportedOperation => {
  const { cause, code } = error
  const path = placeOf(at, error)
  switch (code) {
    case "ENOSPC":
      return new E.StorageFull({ reason: `the file system of ${path} is full; free some space`, cause })
    case "EDQUOT":
      return new E.StorageFull({ reason: `the disk quota for ${path} is exhausted`, cause })
    case "EFBIG":
      return new E.StorageFull({ reason: `the file is too large for the file system of ${path}`, cause })
    case "EXDEV":
      return new E.UnsupportedOperation({
        reason: `${path} is on another file system than the base directory, so a file cannot be renamed into it; ` +
          "use a separate FileSystemStorage for it",
        cause
      })
    default:
      return toReadError(at, error)
  }
}

/** Fails where the base directory is gone. */
export const checkDirectory = ({ path }: Directory): Effect.Effect<void, E.CommonError> =>
  Effect.mapError(Effect.asVoid(nodeFs.stat(path)), (error) =>
    isMissing(error)
      ? new E.StorageNotFound({
        reason: `the directory ${path} is gone; was it removed, or its disk unmounted?`,
        cause: error.cause
      })
      : toReadError(path, error))

/** The failure of reading an object: without its file there is no such object. */
export const readFailed =
  (directory: Directory, key: string) => (error: nodeFs.SystemError): Effect.Effect<never, E.HeadError> =>
    isMissing(error)
      ? Effect.zipRight(checkDirectory(directory), Effect.fail(new E.ObjectNotFound()))
      : Effect.fail(toReadError(pathOf(directory, key), error))

/** The failure of writing an object. A missing folder is the base directory, since those below are created. */
export const writeFailed =
  (directory: Directory, key: string) => (error: nodeFs.SystemError): Effect.Effect<never, E.SaveError> =>
    Effect.zipRight(
      isMissing(error) ? checkDirectory(directory) : Effect.void,
      Effect.fail(
        error.code === "ENAMETOOLONG"
          ? new E.InvalidKey({
            key,
            reason: `its path below ${directory.path} is longer than the file system allows`,
            cause: error.cause
          })
          : toSaveError(directory, pathOf(directory, key), error)
      )
    )

/** The error of a save at a path, which may be about what the storage keeps beside the objects. */
const toSaveError = ({ hidden, path: base }: Directory, at: string, error: nodeFs.SystemError) => {
  const path = placeOf(at, error)
  if (!["EACCES", "EPERM"].includes(error.code) || !path.startsWith(hidden)) return toWriteError(at, error)
  const { cause, code } = error
  return new E.AccessDenied({
    reason: path === hidden
      ? `permission denied at ${base} (${code}); check its owner and permissions`
      : `permission denied in ${nodeFs.dirname(path)} (${code}), where each save needs to write; ` +
        `let its owner give it the group and permissions of ${base} (chgrp and chmod with --reference)`,
    cause
  })
}

/** The failure of what followed once something was replaced, which it says. */
export const saying = (what: string) => (error: E.RemoveError): E.AccessDenied | E.UnexpectedStorageError =>
  error._tag === "AccessDenied"
    ? new E.AccessDenied({ ...error, cause: error.cause, reason: `${what}: ${error.reason}` })
    : new E.UnexpectedStorageError({ reason: `${what}: ${error.message}`, cause: error })

/** The failure of a listing, which needs every folder below its prefix. */
export const listFailed = (directory: Directory) => (error: nodeFs.SystemError): Effect.Effect<never, E.CommonError> =>
  isDenied(error)
    ? Effect.flatMap(closedFolder(placeOf(directory.path, error)), (folder) =>
      new E.AccessDenied({
        reason: `permission denied at ${folder} (${error.code}), and a listing needs each folder below its prefix; ` +
          "check the folder's owner and permissions, or list with a prefix that excludes it",
        cause: error.cause
      }))
    : Effect.fail(toReadError(directory.path, error))

/** The folder on a path that lets this process no further. */
const closedFolder = (path: string): Effect.Effect<string> =>
  Effect.matchEffect(nodeFs.lstat(path), {
    onFailure: (error) =>
      isDenied(error) && nodeFs.dirname(path) !== path ? closedFolder(nodeFs.dirname(path)) : Effect.succeed(path),
    onSuccess: () => Effect.succeed(path)
  })
