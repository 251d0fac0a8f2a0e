/**
 * Failures as they are told from another place: by another backend's name, of another key.
 */
import * as E from "../StorageError.js"

const classes: { readonly [Tag in E.StorageError["_tag"]]: new(fields: never) => E.StorageError } = {
  ObjectNotFound: E.ObjectNotFound,
  ObjectAlreadyExists: E.ObjectAlreadyExists,
  PreconditionFailed: E.PreconditionFailed,
  ObjectNotModified: E.ObjectNotModified,
  InvalidKey: E.InvalidKey,
  InvalidRange: E.InvalidRange,
  AccessDenied: E.AccessDenied,
  StorageNotFound: E.StorageNotFound,
  StorageUnavailable: E.StorageUnavailable,
  StorageTimeout: E.StorageTimeout,
  CorruptObject: E.CorruptObject,
  StorageFull: E.StorageFull,
  UnsupportedOperation: E.UnsupportedOperation,
  UnexpectedStorageError: E.UnexpectedStorageError
}

interface Fields {
  readonly backend: string
  readonly operation?: string
  readonly key?: string
  readonly cause?: unknown
}

/** The same failure with these fields instead of its own. */
export function relocate<Err extends E.StorageError>(
  error: Err,
  fields: Fields
): Err
export function relocate(
  error: E.StorageError,
  fields: Fields
): E.StorageError {
  // The fields are those of its own class, which no type can tell of a class that is looked up.
  return new classes[error._tag]({ ...error, cause: error.cause, ...fields } as never)
}
