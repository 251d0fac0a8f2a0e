/**
 * Everything that can go wrong with a storage, as a union of tagged classes: `Effect.catchTag` removes from the type
 * what it handles, and each failure is a `Schema`, so that it survives the trip from a weight server to its client.
 *
 * Each failure carries the `backend`, the `operation`, the `key` where there is one, and the `cause` where there is one.
 * A backend or wrapper fails with what happened; `Storage.make` fills in the other fields: the operation that the caller
 * called, the whole stack of wrappers, and the caller's key. The `message` is one sentence that a person can act on, and
 * never holds a secret.
 *
 * @module StorageError
 * @since 0.1.0
 */
import * as Duration from "effect/Duration"
import * as Schema from "effect/Schema"

const filledIn = Schema.String.pipe(Schema.propertySignature, Schema.withConstructorDefault(() => ""))

const context = {
  /** The stack of wrappers and the backend, for instance `Retry(FileSystem(/models))`. */
  backend: filledIn,
  /** The operation that was called, for instance `load`. */
  operation: filledIn,
  cause: Schema.optional(Schema.Defect)
}

const keyed = { ...context, key: filledIn }

const perhapsKeyed = { ...context, key: Schema.optional(Schema.String) }

/** How many attempts were made, set once retries are exhausted. Such a failure is not retried again. */
const attempts = Schema.optional(Schema.Number)

const head = (error: { readonly backend: string; readonly operation: string; readonly key?: string | undefined }) =>
  [
    error.operation,
    error.key === undefined || error.key === "" ? "" : JSON.stringify(error.key),
    error.backend === "" ? "" : `on ${error.backend}`
  ].filter((part) => part !== "").join(" ")

const sentence = (
  error: { readonly backend: string; readonly operation: string; readonly key?: string | undefined },
  reason: string
): string => {
  const where = head(error)
  return where === "" ? reason : `${where}: ${reason}`
}

const gaveUp = (attempts: number | undefined): string =>
  attempts === undefined ? "" : `; gave up after ${attempts} attempt${attempts === 1 ? "" : "s"}`

/**
 * There is no object with this key.
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
    return sentence(this, "there is no such object")
  }
}

/**
 * `ifNoneMatch: "*"` was given, and an object with this key exists.
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
    return sentence(this, "the object already exists (ifNoneMatch: \"*\" was given)")
  }
}

/**
 * The object's etag is not the one given as `ifMatch`: the object was overwritten or removed since. A load or stream that
 * needs several requests makes each conditional, so that it never joins bytes of two versions.
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
    return sentence(this, "the object has changed since its etag was read; read it again")
  }
}

/**
 * The object still has the etag given as `ifNoneMatch`: the caller's copy is current.
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
    return sentence(this, "the object still has the etag given as ifNoneMatch")
  }
}

/**
 * The string is not a valid key, for the `reason` given. Nothing was read or written.
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
    return sentence({ backend: this.backend, operation: this.operation }, `${shown} is not a valid key: ${this.reason}`)
  }
}

/**
 * The range is malformed, or not satisfiable for this object, for the `reason` given.
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
    return sentence(this, this.reason)
  }
}

/**
 * Credentials are missing, wrong or expired, or do not allow the operation.
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
    return sentence(this, this.reason)
  }
}

/**
 * The bucket or base directory does not exist.
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
    return sentence(this, this.reason)
  }
}

/**
 * The backend cannot be reached or cannot answer now: a broken connection, a 5xx, a request to slow down (`retryAfter`
 * is the wait it asked for). Retryable.
 *
 * @since 0.1.0
 * @category models
 */
export class StorageUnavailable extends Schema.TaggedError<StorageUnavailable>("surfing-weights/StorageUnavailable")(
  "StorageUnavailable",
  {
    ...perhapsKeyed,
    reason: Schema.String,
    retryAfter: Schema.optional(Schema.Duration),
    attempts
  }
) {
  /** @since 0.1.0 */
  override get message(): string {
    const wait = this.retryAfter === undefined ? "" : ` (asked to wait ${Duration.format(this.retryAfter)})`
    return sentence(this, `${this.reason}${wait}${gaveUp(this.attempts)}`)
  }
}

/**
 * An idle timeout or a deadline passed. Retryable.
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
    return sentence(this, `no answer within ${Duration.format(this.limit)}${gaveUp(this.attempts)}`)
  }
}

/**
 * The bytes are damaged, and none of them may be used as the object. `problem` is `truncated` (fewer bytes than announced;
 * retryable), `size` (a source that yields another number of bytes than `SaveOptions.size`), `checksum`, or `frame` (a
 * stored form that cannot be decoded).
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
    return sentence(this, `${this.reason}${gaveUp(this.attempts)}`)
  }
}

/**
 * The disk or quota is full, or the object is larger than the backend allows.
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
    return sentence(this, this.reason)
  }
}

/**
 * This backend does not support the operation or one of its options; see `StorageBackend.capabilities`.
 *
 * @since 0.1.0
 * @category models
 */
export class UnsupportedOperation extends Schema.TaggedError<UnsupportedOperation>(
  "surfing-weights/UnsupportedOperation"
)("UnsupportedOperation", { ...perhapsKeyed, reason: Schema.String }) {
  /** @since 0.1.0 */
  override get message(): string {
    return sentence(this, this.reason)
  }
}

/**
 * Any other failure, with its cause.
 *
 * @since 0.1.0
 * @category models
 */
export class UnexpectedStorageError extends Schema.TaggedError<UnexpectedStorageError>(
  "surfing-weights/UnexpectedStorageError"
)("UnexpectedStorageError", { ...perhapsKeyed, reason: Schema.String }) {
  /** @since 0.1.0 */
  override get message(): string {
    return sentence(this, this.reason)
  }
}

/**
 * A layer cannot be built from the options given: `option` of `module` is not allowed, for the `reason` given.
 *
 * @since 0.1.0
 * @category models
 */
export class InvalidOptions extends Schema.TaggedError<InvalidOptions>("surfing-weights/InvalidOptions")(
  "InvalidOptions",
  { ...perhapsKeyed, module: Schema.String, option: Schema.String, reason: Schema.String }
) {
  /** @since 0.1.0 */
  override get message(): string {
    return `${this.module}: ${this.reason}`
  }
}

/**
 * Every failure of a storage, as a schema.
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
  UnexpectedStorageError,
  InvalidOptions
)

/**
 * Every failure of a storage.
 *
 * @since 0.1.0
 * @category models
 */
export type StorageError = typeof StorageError.Type

/**
 * Failures that every operation can have.
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
 * The failures of `exists`: a missing object is a result, not a failure.
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
export type RemoveError = CommonError | InvalidKey | PreconditionFailed | UnsupportedOperation

/**
 * @since 0.1.0
 * @category models
 */
export type PresignError = CommonError | InvalidKey | UnsupportedOperation

/**
 * The failures of `copy` and `move`: those of a save, and a missing source.
 *
 * @since 0.1.0
 * @category models
 */
export type CopyError = SaveError | ObjectNotFound

/**
 * Whether a value is one of these failures.
 *
 * @since 0.1.0
 * @category refinements
 */
export const isStorageError: (u: unknown) => u is StorageError = Schema.is(StorageError)

/**
 * Whether trying again may help: the backend was unavailable, a timeout passed, or a body was truncated, and its retries
 * are not exhausted. This is the one place that decides.
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
 * The same failure marked as exhausted after `attempts` attempts: it is no longer retryable, so two retrying layers never
 * multiply. A failure that is never retried is returned unchanged.
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
