/**
 * Encryption at rest: what is saved is encrypted before it leaves the process, and what is read is decrypted and authenticated. A
 * store, its operator and a stolen disk see no byte of it.
 *
 * The bytes of an object are a message in the published format Cobblestone-128 (https://c2sp.org/chunked-encryption: AES-GCM in
 * chunks of 16 KiB, HKDF with SHA-512, key commitment), behind a header of 968 bytes. Each object has a data key of its own, which
 * a master key wraps; the header has the wrapped data key and the id of the master key. So an object is one self-contained file: it can
 * be copied, mirrored and served by programs that know nothing of keys.
 *
 * - No byte is given out that is not authenticated. One that was changed, cut off, continued, or exchanged with that of another
 *   object fails with `CorruptObject`. An older version of the same object cannot be told from the current one.
 * - The context of the encryption is the key of the object. A file that is renamed by other means than this storage cannot be read.
 * - A range reads the chunks that it touches: 16,400 bytes for each 16 KiB, and the header of an object once. The derived keys of the
 *   last 1,000 objects stay in memory.
 * - Sizes are those of the plain bytes everywhere. Etags are those of the store, and change with each save, also of the same bytes.
 *   Checksums of the store are those of encrypted bytes, and not passed on.
 * - Keys of objects, their sizes and attributes are not encrypted.
 * - A copy is encrypted anew, as its context is another: its bytes pass through this process. Presigned URLs are not supported, since
 *   they lead to the encrypted bytes. A save that is broken off is not resumed.
 * - In Node, a stream takes about a second more of processor time for each GiB, in the thread that runs the program (bench row
 *   `encrypted-stream`); loads and saves take more than that. A load reads an object in order, as a stream does: where `S3Storage`
 *   should read several parts at once, give it `streamConcurrency`.
 * - An object that was saved without encryption, or by other programs, fails with `CorruptObject`.
 *
 * ## Rotation
 *
 * The first of `keys` wraps the data keys of new objects; the others unwrap those of older ones. To rotate, put a new key first, then
 * `rewrap` each object, then remove the old key. This wraps the data key anew, and neither decrypts nor encrypts the object; but the
 * header is part of the object, so the store is given its bytes again, under the condition that it has not changed. Object attributes
 * could be replaced without its bytes, but a copied file would have lost them, and with them itself; and no store can replace them
 * under a condition, without which the wrapped key of one version could end up with the bytes of another.
 *
 * To rotate without touching any object, let a key management service encrypt the secret of a master key, and encrypt that
 * again: see `make`.
 *
 * @module StorageEncryption
 * @since 0.1.0
 */
import * as Config from "effect/Config"
import type { ConfigError } from "effect/ConfigError"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Encoding from "effect/Encoding"
import { dual } from "effect/Function"
import * as Layer from "effect/Layer"
import * as Redacted from "effect/Redacted"
import * as Schema from "effect/Schema"
import { callback, decode, hidden, must, string } from "../internal/options.js"
import * as Storage from "../Storage.js"
import type * as E from "../StorageError.js"
import type { MasterKey } from "./encryption/backend.js"
import { maxIdSize } from "./encryption/limits.js"

/**
 * A master key in memory.
 *
 * @since 0.1.0
 * @category models
 */
export interface SecretKey {
  /** Names the key in the header of each object. Not secret, and never used for another key. */
  readonly id: string
  /** 32 random bytes, or their Base64, for instance from `openssl rand -base64 32`. */
  readonly secret: Redacted.Redacted<Uint8Array | string>
}

/**
 * A master key that stays elsewhere, for instance in AWS KMS: each save wraps one data key, and the first read of each object
 * unwraps one.
 *
 * Failures that are not those of a storage become `UnexpectedStorageError`. Map those that may pass to `StorageUnavailable`, so that
 * they are retried.
 *
 * @since 0.1.0
 * @category models
 */
export interface WrappingKey {
  /** Names the key in the header of each object. Not secret, and never used for another key. */
  readonly id: string
  /** Encrypts a data key of 16 bytes, to at most 797. `context` is the key of the object, to authenticate it, too. */
  readonly wrap: (
    dataKey: Redacted.Redacted<Uint8Array<ArrayBuffer>>,
    context: string
  ) => Effect.Effect<Uint8Array, unknown>
  /** Decrypts a data key. */
  readonly unwrap: (
    wrapped: Uint8Array<ArrayBuffer>,
    context: string
  ) => Effect.Effect<Redacted.Redacted<Uint8Array>, unknown>
}

/**
 * @since 0.1.0
 * @category models
 */
export interface Options {
  /** The master keys. The first one is for new objects, each of them for the objects that were saved with it. */
  readonly keys: readonly [SecretKey | WrappingKey, ...ReadonlyArray<SecretKey | WrappingKey>]
}

/**
 * Rotation of the master keys of a storage.
 *
 * @since 0.1.0
 * @category models
 */
export interface Encryption {
  /**
   * Wraps the data key of an object with the first of the master keys; returns false where it is already. The object keeps its bytes
   * and attributes, and gets another etag. Fails with `UnsupportedOperation` where the store cannot save under a condition, and with
   * `PreconditionFailed` where the object is overwritten meanwhile.
   */
  readonly rewrap: (key: string) => Effect.Effect<boolean, E.CopyError>
}

/**
 * An encrypted storage, and the rotation of its keys.
 *
 * @since 0.1.0
 * @category models
 */
export interface EncryptedStorage extends Storage.Service {
  readonly encryption: Encryption
}

/**
 * The rotation of keys that a layer provides beside its storage.
 *
 * @since 0.1.0
 * @category tags
 * @example
 * ```ts
 * import { Effect, Stream } from "effect"
 * import { Storage, StorageEncryption } from "surfing-weights"
 *
 * const rotate = Effect.gen(function*() {
 *   const encryption = yield* StorageEncryption.StorageEncryption
 *   yield* Stream.runForEach(Storage.entries(), ({ key }) => encryption.rewrap(key))
 * })
 * ```
 */
export class StorageEncryption extends Context.Tag("surfing-weights/StorageEncryption")<
  StorageEncryption,
  Encryption
>() {}

/**
 * The same storage, encrypted.
 *
 * @since 0.1.0
 * @category constructors
 * @example
 * ```ts
 * import { Effect, Redacted } from "effect"
 * import { MemoryStorage, type Storage, StorageEncryption } from "surfing-weights"
 *
 * const encrypted = Effect.gen(function*() {
 *   const secret = Redacted.make(crypto.getRandomValues(new Uint8Array(32)))
 *   const memory = yield* MemoryStorage.make()
 *   return yield* memory.pipe(StorageEncryption.make({ keys: [{ id: "2026-11", secret }] }))
 * })
 *
 * // A master key that never leaves AWS KMS. `kms` is a client of `@aws-sdk/client-kms`.
 * interface Kms {
 *   readonly encrypt: (input: object) => Promise<{ readonly CiphertextBlob?: Uint8Array }>
 *   readonly decrypt: (input: object) => Promise<{ readonly Plaintext?: Uint8Array }>
 * }
 *
 * const masterKey = (kms: Kms, KeyId: string): StorageEncryption.WrappingKey => ({
 *   id: "kms",
 *   wrap: (dataKey, object) =>
 *     Effect.tryPromise(() => kms.encrypt({ KeyId, Plaintext: Redacted.value(dataKey), EncryptionContext: { object } })).pipe(
 *       Effect.flatMap(({ CiphertextBlob }) => Effect.fromNullable(CiphertextBlob))
 *     ),
 *   unwrap: (CiphertextBlob, object) =>
 *     Effect.tryPromise(() => kms.decrypt({ KeyId, CiphertextBlob, EncryptionContext: { object } })).pipe(
 *       Effect.flatMap(({ Plaintext }) => Effect.fromNullable(Plaintext)),
 *       Effect.map(Redacted.make)
 *     )
 * })
 *
 * // One call of KMS in all, where it has encrypted the secret of the master key. To rotate the key in KMS, that is encrypted anew.
 * const withSealedSecret = (storage: Storage.Service, kms: Kms, sealed: Uint8Array) =>
 *   Effect.tryPromise(() => kms.decrypt({ CiphertextBlob: sealed })).pipe(
 *     Effect.flatMap(({ Plaintext }) => Effect.fromNullable(Plaintext)),
 *     Effect.flatMap((secret) =>
 *       StorageEncryption.make(storage, { keys: [{ id: "2026-11", secret: Redacted.make(secret) }] })
 *     )
 *   )
 * ```
 */
export const make: {
  (options: Options): (storage: Storage.Service) => Effect.Effect<EncryptedStorage, E.InvalidOptions>
  (storage: Storage.Service, options: Options): Effect.Effect<EncryptedStorage, E.InvalidOptions>
} = dual(
  2,
  ({ backend }: Storage.Service, options: Options): Effect.Effect<EncryptedStorage, E.InvalidOptions> =>
    Effect.gen(function*() {
      const { keys } = yield* decode("StorageEncryption", schema, options)
      const { make } = yield* Effect.promise(() => import("./encryption/backend.js"))
      const { encrypted, rewrap } = make(backend, keys)
      return { ...Storage.make(encrypted), encryption: { rewrap } }
    })
)

/**
 * Provides the storage that it needs, encrypted, and the rotation of its keys.
 *
 * @since 0.1.0
 * @category layers
 * @example
 * ```ts
 * import { Layer, Redacted } from "effect"
 * import { S3Storage, StorageEncryption } from "surfing-weights"
 *
 * const encrypted = (current: Redacted.Redacted, previous: Redacted.Redacted) =>
 *   StorageEncryption.layer({
 *     keys: [{ id: "2026-11", secret: current }, { id: "2025-11", secret: previous }]
 *   }).pipe(
 *     Layer.provide(S3Storage.layer({ bucket: "model-weights" }))
 *   )
 * ```
 */
export const layer = (
  options: Options
): Layer.Layer<Storage.Storage | StorageEncryption, E.InvalidOptions, Storage.Storage> =>
  Layer.effectContext(
    Effect.map(Effect.flatMap(Storage.Storage, make(options)), (storage) =>
      Context.make(Storage.Storage, storage).pipe(Context.add(StorageEncryption, storage.encryption)))
  )

/**
 * Provides the storage that it needs, encrypted, and the rotation of its keys, with the master keys from `Config`.
 *
 * @since 0.1.0
 * @category layers
 * @example
 * ```ts
 * import { Config } from "effect"
 * import { StorageEncryption } from "surfing-weights"
 *
 * // WEIGHTS_KEY=$(openssl rand -base64 32)
 * const Encrypted = StorageEncryption.layerConfig({
 *   keys: Config.map(Config.redacted("WEIGHTS_KEY"), (secret) => [{ id: "2026-11", secret }])
 * })
 * ```
 */
export const layerConfig = (
  options: Config.Config.Wrap<Options>
): Layer.Layer<Storage.Storage | StorageEncryption, E.InvalidOptions | ConfigError, Storage.Storage> =>
  Layer.unwrapEffect(Effect.map(Config.unwrap(options), layer))

const id: Schema.Schema<string> = string(
  `a text of 1 to ${maxIdSize} bytes without control characters`,
  (id) => !/^$|\p{Cc}|\p{Cs}/u.test(id) && new TextEncoder().encode(id).byteLength <= maxIdSize
)

const secretSize = 32

const secret: Schema.Schema<Redacted.Redacted<Uint8Array>, SecretKey["secret"]> = must(
  Schema.transform(
    Schema.declare((value): value is SecretKey["secret"] => Redacted.isRedacted(value)),
    Schema.declare((value): value is Redacted.Redacted<Uint8Array> => isSecret(value)),
    { strict: true, decode: (secret) => Redacted.make(bytesOf(Redacted.value(secret))), encode: (secret) => secret }
  ),
  `${secretSize} bytes or their Base64, in a Redacted`,
  hidden
)

const isSecret = (value: unknown): boolean => {
  const bytes: unknown = Redacted.isRedacted(value) ? Redacted.value(value) : undefined
  return bytes instanceof Uint8Array && bytes.byteLength === secretSize
}

/** A copy of the bytes, none where they are not Base64. */
const bytesOf = (secret: Uint8Array | string): Uint8Array =>
  new Uint8Array(
    typeof secret === "string" ? Either.getOrElse(Encoding.decodeBase64(secret.trim()), () => []) : secret
  )

interface Settings {
  readonly keys: readonly [MasterKey, ...ReadonlyArray<MasterKey>]
}

const schema: Schema.Schema<Settings, Options> = Schema.Struct({
  keys: must(
    Schema.NonEmptyArray(Schema.Union(
      Schema.Struct({ id, secret }),
      Schema.Struct({ id, wrap: callback<WrappingKey["wrap"]>(), unwrap: callback<WrappingKey["unwrap"]>() })
    )).pipe(Schema.filter((keys) => new Set(keys.map(({ id }) => id)).size === keys.length)),
    "a list of at least one master key, each with an id of its own",
    hidden
  )
})
