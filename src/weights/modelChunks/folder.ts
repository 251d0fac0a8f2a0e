/**
 * The folder of a model, where its chunks and their manifest are, and the errors of what is in it.
 */
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Schema from "effect/Schema"
import * as Hash from "../../internal/hash.js"
import * as ObjectKey from "../../ObjectKey.js"
import * as Storage from "../../Storage.js"
import { InvalidKey, UnsupportedOperation } from "../../StorageError.js"
import { keyPrefix } from "../internal/folders.js"

/**
 * The key of a manifest, after the prefix.
 *
 * @since 0.1.0
 * @category constants
 */
export const manifestName = "manifest.json"

/**
 * A manifest is invalid, or an option, an argument or the result of a callback cannot be used. `field` names the field of
 * the manifest, or the option or argument. `key` is the manifest, or the source of `split`.
 *
 * @since 0.1.0
 * @category errors
 */
export class ModelChunksError extends Schema.TaggedError<ModelChunksError>("surfing-weights/ModelChunksError")(
  "ModelChunksError",
  {
    backend: Schema.String,
    operation: Schema.Literal("split", "open", "writeManifest", "verify", "load", "stream", "files"),
    key: Schema.String,
    field: Schema.String,
    reason: Schema.String
  }
) {
  /** @since 0.1.0 */
  override get message(): string {
    return `${this.operation} ${JSON.stringify(this.key)} on ${this.backend}: ${this.field}: ${this.reason}`
  }
}

type Operation = ModelChunksError["operation"]

/** A folder, and the operation on it that errors name. */
export interface Folder {
  readonly storage: Storage.Service
  readonly newHash: Hash.NewHash
  readonly operation: Operation
  /** What its keys start with. */
  readonly prefix: string
  readonly manifestKey: string
}

export const make = (operation: Operation, folder: string): Effect.Effect<Folder, InvalidKey, Storage.Storage> =>
  Effect.gen(function*() {
    const storage = yield* Storage.Storage
    const newHash = yield* Hash.load("sha256")
    const name = folder.replace(/\/$/, "")
    const reason = name === "" ? undefined : ObjectKey.problem(name)
    if (reason !== undefined) {
      return yield* new InvalidKey({ backend: storage.backend.name, operation, key: folder, reason })
    }
    const prefix = keyPrefix(name)
    return { storage, newHash, operation, prefix, manifestKey: prefix + manifestName }
  })

/** The same folder, whose reads bypass all caches. */
export const bypassingCaches = (folder: Folder): Folder => {
  const { storage } = folder
  return {
    ...folder,
    storage: {
      ...storage,
      load: (key, options) => storage.load(key, { ...options, bypassCache: true }),
      loadRanges: (key, ranges, options) => storage.loadRanges(key, ranges, { ...options, bypassCache: true }),
      open: (key, options) => storage.open(key, { ...options, bypassCache: true }),
      stream: (key, options) => storage.stream(key, { ...options, bypassCache: true })
    }
  }
}

/** The error of a field of the manifest, or of an option. */
export const invalid = (
  { manifestKey, operation, storage }: Folder,
  field: string,
  reason: string,
  key = manifestKey
): ModelChunksError => new ModelChunksError({ backend: storage.backend.name, operation, key, field, reason })

/** Fails if the storage is read-only, before anything is read. */
export const checkWritable = (
  { operation, storage: { backend } }: Folder,
  key: string
): Either.Either<void, UnsupportedOperation> =>
  backend.capabilities.write
    ? Either.void
    : Either.left(
      new UnsupportedOperation({ backend: backend.name, operation, key, reason: "the storage is read-only" })
    )
