/**
 * What several rooms do with failures: fill in where one happened, and narrow one to those that an operation can have.
 */
import * as Effect from "effect/Effect"
import type { Refinement } from "effect/Predicate"
import * as E from "../StorageError.js"

type FailureClass = new(fields: never, options: { readonly disableValidation: true }) => E.StorageError

const classes: { readonly [Tag in E.StorageError["_tag"]]: FailureClass } = {
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
  UnexpectedStorageError: E.UnexpectedStorageError,
  InvalidOptions: E.InvalidOptions
}

/** Where a failure happened, as its fields say it. */
export interface Place {
  readonly backend?: string
  readonly operation?: string
  readonly key?: string
  readonly cause?: unknown
}

/** The same failure with these fields replaced. */
export function withPlace<Err extends E.StorageError>(error: Err, place: Place): Err
export function withPlace(error: E.StorageError, place: Place): E.StorageError {
  // The fields are those of the failure's own class, which no type can tell of a class that is looked up.
  // They were validated when the failure was made, which costs several times the rest.
  return new classes[error._tag]({ ...error, cause: error.cause, ...place } as never, { disableValidation: true })
}

/** Turns failures that an operation cannot have by its type, such as `InvalidRange` without a range, into unexpected ones. */
export const unexpected = (error: E.StorageError): Effect.Effect<never, E.UnexpectedStorageError> =>
  Effect.fail(new E.UnexpectedStorageError({ key: error.key, reason: error.message, cause: error }))

const oneOf =
  <Err extends E.StorageError>(tags: Record<Err["_tag"], true>): Refinement<E.StorageError, Err> =>
  (error): error is Err => Object.hasOwn(tags, error._tag)

const common: Record<E.CommonError["_tag"], true> = {
  AccessDenied: true,
  StorageNotFound: true,
  StorageUnavailable: true,
  StorageTimeout: true,
  UnexpectedStorageError: true
}

const head: Record<E.HeadError["_tag"], true> = { ...common, InvalidKey: true, ObjectNotFound: true }

const save: Record<E.SaveError["_tag"], true> = {
  ...common,
  InvalidKey: true,
  ObjectAlreadyExists: true,
  PreconditionFailed: true,
  CorruptObject: true,
  StorageFull: true,
  UnsupportedOperation: true
}

export const isCommonError = oneOf<E.CommonError>(common)

export const isHeadError = oneOf<E.HeadError>(head)

/** What reads an object to tell its metadata: no option was given that could cause the failures that a `head` cannot have. */
export const asHead = <A, R>(effect: Effect.Effect<A, E.LoadError, R>): Effect.Effect<A, E.HeadError, R> =>
  Effect.catchAll(effect, (error) => isHeadError(error) ? Effect.fail(error) : unexpected(error))

export const isLoadError = oneOf<E.LoadError>({
  ...head,
  PreconditionFailed: true,
  ObjectNotModified: true,
  InvalidRange: true,
  CorruptObject: true,
  UnsupportedOperation: true
})

export const isSaveError = oneOf<E.SaveError>(save)

export const isCopyError = oneOf<E.CopyError>({ ...save, ObjectNotFound: true })

export const isListError = oneOf<E.ListError>({ ...common, UnsupportedOperation: true })

export const isRemoveError = oneOf<E.RemoveError>({
  ...common,
  InvalidKey: true,
  PreconditionFailed: true,
  UnsupportedOperation: true
})

export const isPresignError = oneOf<E.PresignError>({ ...common, InvalidKey: true, UnsupportedOperation: true })
