/**
 * Which failures an operation can have, told at run time: the unions of `StorageError.ts`, to which the compiler holds
 * these lists in both directions.
 */
import type { Refinement } from "effect/Predicate"
import type * as E from "../StorageError.js"

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

const change: Record<(E.RemoveError | E.PresignError)["_tag"], true> = {
  ...common,
  InvalidKey: true,
  UnsupportedOperation: true
}

export const isHeadError = oneOf<E.HeadError>(head)

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

export const isRemoveError = oneOf<E.RemoveError>(change)

export const isPresignError = oneOf<E.PresignError>(change)
