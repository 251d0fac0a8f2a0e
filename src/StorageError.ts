/**
 * Everything that can go wrong with a storage, as a union of tagged classes: `Effect.catchTag` removes from the type
 * what it handles, and each failure is a `Schema`, so that it survives the trip from a weight server to its client.
 *
 * Each names the `backend` and the `operation`, the `key` where there is one, and the `cause` where something below
 * gave one. Its `message` is a sentence that a person can act on, and never holds a secret.
 *
 * @module StorageError
 * @since 0.1.0
 */
import * as Duration from "effect/Duration"
import * as Schema from "effect/Schema"

const context = {
  /** The backend as it shows itself, for instance `FileSystem(/models)`. */
  backend: Schema.String,
  /** The operation as `Storage` names it, for instance `load`. */
  operation: Schema.String,
  cause: Schema.optionalWith(Schema.Defect, { exact: true })
}

const keyed = { ...context, key: Schema.String }

const perhapsKeyed = { ...context, key: Schema.optionalWith(Schema.String, { exact: true }) }

/** How often it was tried, set when its retries are used up: it is then not retried again by anyone. */
const attempts = Schema.optionalWith(Schema.Number, { exact: true })

const head = (error: { readonly backend: string; readonly operation: string; readonly key?: string }): string =>
  `${error.operation}${error.key === undefined ? "" : ` ${JSON.stringify(error.key)}`} on ${error.backend}`

const gaveUp = (error: { readonly attempts?: number }): string =>
  error.attempts === undefined ? "" : `; gave up after ${error.attempts} attempt${error.attempts === 1 ? "" : "s"}`

/**
 * There is no object of this key.
 *
 * @since 0.1.0
 * @category models
 */
export class ObjectNotFound extends Schema.TaggedError<ObjectNotFound>("surfing-weights/ObjectNotFound")(
  "ObjectNotFound",
  keyed
) {
  /** @since 0.1.0 */
  override get message(): string {
    return `${head(this)}: there is no such object`
  }
}

/**
 * The save asked for `ifNoneMatch: "*"`, and an object of this key exists.
 *
 * @since 0.1.0
 * @category models
 */
export class ObjectAlreadyExists extends Schema.TaggedError<ObjectAlreadyExists>("surfing-weights/ObjectAlreadyExists")(
  "ObjectAlreadyExists",
  keyed
) {
  /** @since 0.1.0 */
  override get message(): string {
    return `${head(this)}: the object exists, and ifNoneMatch: "*" asked that it should not`
  }
}

/**
 * The object is not the one that `ifMatch` names: it was overwritten or removed since. A load or stream that needs
 * several requests asks for this by itself, so that it never joins bytes of two objects.
 *
 * @since 0.1.0
 * @category models
 */
export class PreconditionFailed extends Schema.TaggedError<PreconditionFailed>("surfing-weights/PreconditionFailed")(
  "PreconditionFailed",
  keyed
) {
  /** @since 0.1.0 */
  override get message(): string {
    return `${head(this)}: the object has changed since its etag was read; read it again`
  }
}

/**
 * The load asked for `ifNoneMatch`, and the object still has that etag: what the caller holds is current.
 *
 * @since 0.1.0
 * @category models
 */
export class ObjectNotModified extends Schema.TaggedError<ObjectNotModified>("surfing-weights/ObjectNotModified")(
  "ObjectNotModified",
  keyed
) {
  /** @since 0.1.0 */
  override get message(): string {
    return `${head(this)}: the object still has the etag that ifNoneMatch names`
  }
}

/**
 * The string cannot be a key, for the `reason` given. Nothing was read or written.
 *
 * @since 0.1.0
 * @category models
 */
export class InvalidKey extends Schema.TaggedError<InvalidKey>("surfing-weights/InvalidKey")("InvalidKey", {
  ...keyed,
  reason: Schema.String
}) {
  /** @since 0.1.0 */
  override get message(): string {
    const shown = this.key.length > 100 ? `${JSON.stringify(this.key.slice(0, 100))}…` : JSON.stringify(this.key)
    return `${this.operation} on ${this.backend}: ${shown} cannot be a key: ${this.reason}`
  }
}

/**
 * The range names no byte of the object, for the `reason` given.
 *
 * @since 0.1.0
 * @category models
 */
export class InvalidRange extends Schema.TaggedError<InvalidRange>("surfing-weights/InvalidRange")("InvalidRange", {
  ...keyed,
  reason: Schema.String
}) {
  /** @since 0.1.0 */
  override get message(): string {
    return `${head(this)}: ${this.reason}`
  }
}

/**
 * The backend refuses: credentials missing, wrong or expired, or the operation not allowed to them.
 *
 * @since 0.1.0
 * @category models
 */
export class AccessDenied extends Schema.TaggedError<AccessDenied>("surfing-weights/AccessDenied")("AccessDenied", {
  ...perhapsKeyed,
  reason: Schema.String
}) {
  /** @since 0.1.0 */
  override get message(): string {
    return `${head(this)}: ${this.reason}`
  }
}

/**
 * The place where the objects should be does not exist: the bucket, or the base directory.
 *
 * @since 0.1.0
 * @category models
 */
export class StorageNotFound extends Schema.TaggedError<StorageNotFound>("surfing-weights/StorageNotFound")(
  "StorageNotFound",
  { ...perhapsKeyed, reason: Schema.String }
) {
  /** @since 0.1.0 */
  override get message(): string {
    return `${head(this)}: ${this.reason}`
  }
}

/**
 * The backend cannot be reached or cannot answer now: a broken connection, a 5xx, a request to slow down (`retryAfter`
 * says for how long). Retried.
 *
 * @since 0.1.0
 * @category models
 */
export class StorageUnavailable extends Schema.TaggedError<StorageUnavailable>("surfing-weights/StorageUnavailable")(
  "StorageUnavailable",
  {
    ...perhapsKeyed,
    reason: Schema.String,
    retryAfter: Schema.optionalWith(Schema.Duration, { exact: true }),
    attempts
  }
) {
  /** @since 0.1.0 */
  override get message(): string {
    const wait = this.retryAfter === undefined ? "" : ` (asked to wait ${Duration.format(this.retryAfter)})`
    return `${head(this)}: ${this.reason}${wait}${gaveUp(this)}`
  }
}

/**
 * An idle limit or a deadline passed: the peer may be alive, but nothing came. Retried.
 *
 * @since 0.1.0
 * @category models
 */
export class StorageTimeout extends Schema.TaggedError<StorageTimeout>("surfing-weights/StorageTimeout")(
  "StorageTimeout",
  { ...perhapsKeyed, limit: Schema.Duration, attempts }
) {
  /** @since 0.1.0 */
  override get message(): string {
    return `${head(this)}: no answer within ${Duration.format(this.limit)}${gaveUp(this)}`
  }
}

/**
 * The bytes are not what they should be, and none of them may be used as the object. `problem` says how: `truncated`
 * (fewer bytes than announced; retried), `size` (a source that yields another number of bytes than `SaveOptions.size`),
 * `checksum`, or `frame` (a stored form that cannot be read back).
 *
 * @since 0.1.0
 * @category models
 */
export class CorruptObject extends Schema.TaggedError<CorruptObject>("surfing-weights/CorruptObject")("CorruptObject", {
  ...keyed,
  problem: Schema.Literal("truncated", "size", "checksum", "frame"),
  reason: Schema.String,
  attempts
}) {
  /** @since 0.1.0 */
  override get message(): string {
    return `${head(this)}: ${this.reason}${gaveUp(this)}`
  }
}

/**
 * No room: the disk or quota is full, or the object is larger than the backend takes.
 *
 * @since 0.1.0
 * @category models
 */
export class StorageFull extends Schema.TaggedError<StorageFull>("surfing-weights/StorageFull")("StorageFull", {
  ...perhapsKeyed,
  reason: Schema.String
}) {
  /** @since 0.1.0 */
  override get message(): string {
    return `${head(this)}: ${this.reason}`
  }
}

/**
 * This backend cannot do what was asked, now or ever; `StorageBackend.capabilities` tells beforehand.
 *
 * @since 0.1.0
 * @category models
 */
export class UnsupportedOperation extends Schema.TaggedError<UnsupportedOperation>(
  "surfing-weights/UnsupportedOperation"
)("UnsupportedOperation", { ...perhapsKeyed, reason: Schema.String }) {
  /** @since 0.1.0 */
  override get message(): string {
    return `${head(this)}: ${this.reason}`
  }
}

/**
 * Everything else, with its cause.
 *
 * @since 0.1.0
 * @category models
 */
export class UnexpectedStorageError extends Schema.TaggedError<UnexpectedStorageError>(
  "surfing-weights/UnexpectedStorageError"
)("UnexpectedStorageError", { ...perhapsKeyed, reason: Schema.String }) {
  /** @since 0.1.0 */
  override get message(): string {
    return `${head(this)}: ${this.reason}`
  }
}

/**
 * Every failure of a storage, as a schema that encodes and decodes each.
 *
 * @since 0.1.0
 * @category schemas
 */
export const StorageError = Schema.Union(
  ObjectNotFound,
  ObjectAlreadyExists,
  PreconditionFailed,
  ObjectNotModified,
  InvalidKey,
  InvalidRange,
  AccessDenied,
  StorageNotFound,
  StorageUnavailable,
  StorageTimeout,
  CorruptObject,
  StorageFull,
  UnsupportedOperation,
  UnexpectedStorageError
)

/**
 * Every failure of a storage.
 *
 * @since 0.1.0
 * @category models
 */
export type StorageError = typeof StorageError.Type

/**
 * What any operation can meet, whatever it does.
 *
 * @since 0.1.0
 * @category models
 */
export type CommonError =
  | AccessDenied
  | StorageNotFound
  | StorageUnavailable
  | StorageTimeout
  | UnexpectedStorageError

/**
 * @since 0.1.0
 * @category models
 */
export type HeadError = CommonError | InvalidKey | ObjectNotFound

/**
 * What `exists` can really give: a missing object is an answer, not a failure.
 *
 * @since 0.1.0
 * @category models
 */
export type ExistsError = Exclude<HeadError, ObjectNotFound>

/**
 * @since 0.1.0
 * @category models
 */
export type LoadError =
  | HeadError
  | PreconditionFailed
  | ObjectNotModified
  | InvalidRange
  | CorruptObject
  | UnsupportedOperation

/**
 * @since 0.1.0
 * @category models
 */
export type SaveError =
  | CommonError
  | InvalidKey
  | ObjectAlreadyExists
  | PreconditionFailed
  | CorruptObject
  | StorageFull
  | UnsupportedOperation

/**
 * @since 0.1.0
 * @category models
 */
export type ListError = CommonError | UnsupportedOperation

/**
 * @since 0.1.0
 * @category models
 */
export type RemoveError = CommonError | InvalidKey | UnsupportedOperation

/**
 * @since 0.1.0
 * @category models
 */
export type PresignError = CommonError | InvalidKey | UnsupportedOperation

/**
 * What copying and moving can give: the failures of a load, but for those of ranges and cached etags, and of a save.
 *
 * @since 0.1.0
 * @category models
 */
export type CopyError = SaveError | ObjectNotFound

/**
 * Whether a value is one of these failures, and not something of the caller's own.
 *
 * @since 0.1.0
 * @category refinements
 */
export const isStorageError: (u: unknown) => u is StorageError = Schema.is(StorageError)

/**
 * Whether trying again may help: the backend was unavailable, an idle limit passed, or a body was cut short, and the
 * retries for it are not used up. The one place that decides.
 *
 * @since 0.1.0
 * @category utils
 * @example
 * ```ts
 * import { Effect } from "effect"
 * import { Storage, StorageError } from "surfing-weights"
 *
 * const patient = Storage.load("layer_0.bin").pipe(
 *   Effect.retry({ while: StorageError.isRetryable, times: 3 })
 * )
 * ```
 */
export const isRetryable = (error: StorageError): boolean => {
  switch (error._tag) {
    case "StorageUnavailable":
    case "StorageTimeout":
      return error.attempts === undefined
    case "CorruptObject":
      return error.problem === "truncated" && error.attempts === undefined
    default:
      return false
  }
}

/**
 * The same failure, marked as one whose retries are used up after so many attempts: from here on it is not retryable,
 * so that two retrying layers never multiply. A failure that is never retried is returned as it is.
 *
 * @since 0.1.0
 * @category utils
 */
export function exhausted<E extends StorageError>(error: E, attempts: number): E
export function exhausted(error: StorageError, attempts: number): StorageError {
  switch (error._tag) {
    case "StorageUnavailable":
      return new StorageUnavailable({ ...error, cause: error.cause, attempts })
    case "StorageTimeout":
      return new StorageTimeout({ ...error, cause: error.cause, attempts })
    case "CorruptObject":
      return new CorruptObject({ ...error, cause: error.cause, attempts })
    default:
      return error
  }
}
