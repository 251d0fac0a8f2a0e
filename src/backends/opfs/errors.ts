/**
 * What browsers fail with, by the name of the exception, as failures of a storage.
 */
import * as Data from "effect/Data"
import * as Effect from "effect/Effect"
import * as E from "../../StorageError.js"

/** An exception of the file system. */
export class FileSystemError extends Data.TaggedError("FileSystemError")<{
  /** The name of the `DOMException`. */
  readonly exception: string
  readonly cause: unknown
}> {}

/** A call of the file system. */
export const call = <A>(run: () => Promise<A>): Effect.Effect<A, FileSystemError> =>
  Effect.tryPromise({ try: run, catch: fileSystemError })

export const fileSystemError = (cause: unknown): FileSystemError =>
  new FileSystemError({ exception: cause instanceof Error ? cause.name : "", cause })

/** There is no entry of this name, or the folder is gone. */
export const isMissing = ({ exception }: FileSystemError): boolean => exception === "NotFoundError"

/** As where the file was replaced or removed since it was looked at. */
export const isUnreadable = (error: FileSystemError): boolean =>
  error.exception === "NotReadableError" || isMissing(error)

/** Chromium fails a write with this also where it grants no space, if it notices before it has taken all bytes. */
export const isAborted = ({ exception }: FileSystemError): boolean => exception === "AbortError"

/** Something else uses the file. */
export const isInUse = ({ exception }: FileSystemError): boolean => exception === "NoModificationAllowedError"

export const failed = (error: FileSystemError): Effect.Effect<never, E.CommonError> => Effect.fail(failureOf(error))

/** The failure of what takes space. */
export const writeFailed = (error: FileSystemError): Effect.Effect<never, E.CommonError | E.StorageFull> =>
  Effect.fail(
    error.exception === "QuotaExceededError"
      ? new E.StorageFull({
        reason: "the browser grants this site no more space; remove objects, or ask for navigator.storage.persist()",
        cause: error.cause
      })
      : failureOf(error)
  )

const failureOf = ({ cause, exception }: FileSystemError): E.CommonError => {
  switch (exception) {
    case "NotFoundError":
      return new E.StorageNotFound({ reason: "its folder was removed; build the storage again", cause })
    case "NotAllowedError":
    case "SecurityError":
      return new E.AccessDenied({
        reason: "the browser does not let this page store data; look at its settings for site data",
        cause
      })
    case "NoModificationAllowedError":
    case "InvalidStateError":
      return new E.StorageUnavailable({ reason: `the file is in use (${exception})`, cause })
    case "AbortError":
      return new E.StorageUnavailable({ reason: `the browser gave up (${messageOf(exception, cause)})`, cause })
    default:
      return new E.UnexpectedStorageError({ reason: messageOf(exception, cause), cause })
  }
}

const messageOf = (exception: string, cause: unknown): string => {
  const message = cause instanceof Error ? cause.message : String(cause)
  return exception === "" ? message : `${exception}: ${message}`
}
