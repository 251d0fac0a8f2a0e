/**
 * What the operating system says went wrong with a file, as the failure it is to a storage.
 */
import * as E from "../StorageError.js"
import type { SystemError } from "./files.js"

/** Where it happened; the path is for the message. */
export interface Place {
  readonly backend: string
  readonly operation: string
  readonly key?: string
  readonly path: string
}

/** For what only reads; a missing file is for the caller to tell apart. */
export const toReadError = (place: Place) => (error: SystemError): E.CommonError => {
  const { path, ...context } = place
  const told = (reason: string) => ({ ...context, reason, cause: error.cause })
  switch (error.code) {
    case "EACCES":
    case "EPERM":
      return new E.AccessDenied(
        told(`the system does not let this process at ${path} (${error.code}); check its owner and permissions`)
      )
    case "EROFS":
      return new E.AccessDenied(told(`${path} is on a file system that is mounted read-only`))
    case "ELOOP":
      return new E.AccessDenied(told(`${path} is a chain of symbolic links without end`))
    case "EMFILE":
    case "ENFILE":
      return new E.StorageUnavailable(
        told(`too many files are open (${error.code}); raise the limit (ulimit -n) or do less at once`)
      )
    case "EAGAIN":
    case "EBUSY":
    case "EINTR":
    case "ENOMEM":
    case "ESTALE":
    case "ETIMEDOUT":
    case "ETXTBSY":
      return new E.StorageUnavailable(told(`${path} cannot be used now (${error.code})`))
    default:
      return new E.UnexpectedStorageError(told(`${error.code} at ${path}: ${error.cause.message}`))
  }
}

/** For what writes. */
export const toWriteError = (place: Place) =>
(
  error: SystemError
): E.CommonError | E.StorageFull | E.UnsupportedOperation => {
  const { path, ...context } = place
  const told = (reason: string) => ({ ...context, reason, cause: error.cause })
  switch (error.code) {
    case "ENOSPC":
      return new E.StorageFull(told(`the file system of ${path} is full; free some space`))
    case "EDQUOT":
      return new E.StorageFull(told(`the disk quota for ${path} is used up`))
    case "EFBIG":
      return new E.StorageFull(told(`the file system of ${path} takes no file as large as this`))
    case "EXDEV":
      return new E.UnsupportedOperation(
        told(
          `${path} is on another file system than the base directory, so nothing can be moved there in one step; ` +
            `give it a FileSystemStorage of its own`
        )
      )
    default:
      return toReadError(place)(error)
  }
}
