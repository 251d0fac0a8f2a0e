/**
 * Objects in a bucket of Amazon S3, or of a server with the same API: MinIO, Ceph, R2, Spaces and others.
 *
 * Credentials, region and endpoint are found as by the AWS tools, unless they are given. A wrong bucket, region or key fails
 * when the storage is built. Each request is retried as `retry` says: a part of an object on its own, a broken stream from
 * the byte where it broke. The retries of the AWS SDK are not used, so there is one budget.
 *
 * - An object larger than a part is saved and loaded in parts, several at once. A save whose process is killed leaves an
 *   incomplete multipart upload, which takes space and is in no listing: give the bucket a lifecycle rule with
 *   `AbortIncompleteMultipartUpload`. So does a copy of a large object by `StorageMirror` that is interrupted or loses the server.
 *   The next one sends only the missing parts, if the MD5s of the others show that they have its bytes; not with `checksum`,
 *   nor where etags are no MD5s, as with SSE-KMS.
 * - An object that was saved in parts or on a precondition has the metadata `surfing-weights-save`, by which a save
 *   recognises its own object when a response was lost. It is not among the attributes.
 * - Requests go over connections of the storage, each of which reads into one array: with a client of the SDK, allocation
 *   takes most of the time of a large load. `layerFromClient`, Bun and Deno use the request handler of the client.
 * - The proxy of `HTTPS_PROXY` (`HTTP_PROXY` for an endpoint with http://) and `NO_PROXY`, or the same in lower case, is used, but
 *   neither by `layerFromClient`, whose client has its own settings, nor for the credentials that the SDK requests elsewhere.
 * - The signature of a request does not cover its body, as hashing takes a third of the speed. HTTPS protects the body like
 *   everything else; over plain HTTP, `checksum` does so against accidents.
 * - The server checks the precondition of a multipart upload when it is completed. Ceph does not, so the storage looks at the
 *   object just before; another save can come between the two.
 * - A precondition of a save or removal fails with `UnsupportedOperation` where the server ignores it. The first such save or
 *   removal finds that out before anything is written, with a key that begins as that of the object and is in use by none: on a
 *   server that ignores preconditions, an empty object has it for a moment. From then on, the capabilities say it.
 * - A write that is interrupted ends at once. What the server has received by then, all of a small save or the removal at the
 *   end of a move, it may still carry out.
 * - `copy` and `move` are done by the server, and keep attributes and metadata unless others are given. With `ifNoneMatch`,
 *   which few servers support there, the bytes go through this process. An object of more than 5 GiB is copied in parts, and
 *   loses tags that others gave it.
 *
 * @module S3Storage
 * @since 0.1.0
 */
import type * as FileSystem from "@effect/platform/FileSystem"
import * as Config from "effect/Config"
import type { ConfigError } from "effect/ConfigError"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Redacted from "effect/Redacted"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import { withPlace } from "../internal/errors.js"
import * as Field from "../internal/options.js"
import * as ObjectKey from "../ObjectKey.js"
import type * as RetryPolicy from "../RetryPolicy.js"
import * as Storage from "../Storage.js"
import type * as StorageBackend from "../StorageBackend.js"
import type * as E from "../StorageError.js"
import type { Client } from "./s3/client.js"
import { nameOf } from "./s3/name.js"
import { limits } from "./s3/parts.js"
import { fromHandler } from "./s3/transport.js"

export type {
  /**
   * @since 0.1.0
   * @category models
   */
  Client
} from "./s3/client.js"

/**
 * How the server encrypts what is saved: with its own keys (`SSE-S3`), with a key of the key management service
 * (`SSE-KMS`; default `keyId`: the account's own), or with a key of 32 bytes that only the customer has (`SSE-C`), without
 * which the objects cannot be read.
 *
 * @since 0.1.0
 * @category models
 */
export type ServerSideEncryption =
  | { readonly type: "SSE-S3" }
  | { readonly type: "SSE-KMS"; readonly keyId?: string | undefined }
  | { readonly type: "SSE-C"; readonly key: Redacted.Redacted<Uint8Array> }

/**
 * A bucket and how to use it.
 *
 * @since 0.1.0
 * @category models
 */
export interface BucketOptions {
  /** The name of the bucket, or the ARN of an access point. */
  readonly bucket: string
  /** The folder of the bucket in which the objects are: the key `a` is the object `<prefix>/a`. Default: none. */
  readonly prefix?: string | undefined
  /** When and how often a request is retried. Default: `RetryPolicy.default`. */
  readonly retry?: RetryPolicy.RetryPolicy | undefined
  /**
   * How long to wait for the server: for it to take more of what is sent, for its response, for the next bytes of one. Default:
   * 30 seconds.
   */
  readonly idleTimeout?: Duration.DurationInput | undefined
  /**
   * A larger object is loaded and saved in parts of this size, from 5 MiB to 2 GiB. An object of more than 10,000 parts is
   * saved in larger ones; where its size is not known, each 900 parts are twice as large as those before. Default: 8 MiB.
   */
  readonly partSize?: FileSystem.SizeInput | undefined
  /** How many parts of one load or save are sent or received at once. Default: 4. */
  readonly concurrency?: number | undefined
  /** How many parts of a stream are read ahead. Default: 1, which is one connection for the whole stream. */
  readonly streamConcurrency?: number | undefined
  /** Whether all parts of an object but the last have one size, as R2 requires. Default: false. */
  readonly uniformParts?: boolean | undefined
  /** Whether to check, when the storage is built, that the bucket exists and may be listed. Default: true. */
  readonly verify?: boolean | undefined
  /**
   * An end-to-end checksum: the server refuses bytes that do not arrive as they were sent, keeps the checksum, and a load or
   * stream of a whole object fails with `CorruptObject` where its bytes have another one, at the cost of one more request
   * each. Not checked are ranges, objects without such a checksum, and with `SHA256` those whose parts have several sizes: a
   * stream of unknown size and more than 900 parts, unless `uniformParts` is set. A save to a server that supports no
   * checksums fails with `UnsupportedOperation`. Default: none.
   */
  readonly checksum?: StorageBackend.Checksum["algorithm"] | undefined
  /** How the server encrypts what is saved. Default: as the bucket does. */
  readonly serverSideEncryption?: ServerSideEncryption | undefined
  /** For instance `STANDARD_IA`. Default: that of the bucket. */
  readonly storageClass?: string | undefined
  /** The content type of what is saved without one. Default: `application/octet-stream`. */
  readonly contentType?: string | undefined
  /** The `Cache-Control` of what is saved without one. Default: none. */
  readonly cacheControl?: string | undefined
  /** The tags of what is saved. Default: none. */
  readonly tagging?: Readonly<Record<string, string>> | undefined
}

/**
 * A bucket, where it is, and with which credentials.
 *
 * @since 0.1.0
 * @category models
 */
export interface Options extends BucketOptions {
  /** Default: from the environment or the profile; `us-east-1` where an endpoint is given. */
  readonly region?: string | undefined
  /** The URL of a server other than Amazon's. Default: from the environment or the profile, or Amazon's. */
  readonly endpoint?: string | undefined
  /** Whether the bucket is in the path rather than in the host name. Default: true where an endpoint is given. */
  readonly forcePathStyle?: boolean | undefined
  /**
   * Default: those of the profile, or the first that the SDK finds: in the environment, in the shared files, by single
   * sign-on, from the container or the instance. Temporary ones that were found are renewed in time; any that were found are
   * found anew when a request is refused, as others may have replaced them.
   */
  readonly credentials?:
    | {
      readonly accessKeyId: string
      readonly secretAccessKey: Redacted.Redacted
      readonly sessionToken?: Redacted.Redacted | undefined
    }
    | undefined
  /** The profile in the shared files of the AWS tools. Default: `AWS_PROFILE`, or `default`. */
  readonly profile?: string | undefined
}

/**
 * The failures of building a storage on a bucket.
 *
 * @since 0.1.0
 * @category models
 */
export type OpenError = E.InvalidOptions | E.CommonError | E.UnsupportedOperation

const headerValue = (be: string) =>
  Field.string(`${be}, in printable ASCII`, (value) => /^[\x21-\x7e](?:[\t\x20-\x7e]*[\x21-\x7e])?$/.test(value))

const encryption: Schema.Schema<ServerSideEncryption> = Field.must(
  Schema.Union(
    Schema.Struct({ type: Schema.Literal("SSE-S3") }),
    Schema.Struct({ type: Schema.Literal("SSE-KMS"), keyId: Schema.optional(headerValue("the id of a key")) }),
    Schema.Struct({
      type: Schema.Literal("SSE-C"),
      key: Schema.declare((value): value is Redacted.Redacted<Uint8Array> => {
        const key = Redacted.isRedacted(value) ? Redacted.value(value) : undefined
        return key instanceof Uint8Array && key.byteLength === 32
      })
    })
  ),
  "of type SSE-S3, SSE-KMS (with a keyId in printable ASCII or without one) or SSE-C (with a Redacted key of 32 bytes)",
  Field.hidden
)

const withDefault = <A, I>(schema: Schema.Schema<A, I>, value: A) =>
  Schema.optionalWith(schema, { default: () => value })

const bucketFields = {
  bucket: Field.string("the name of a bucket"),
  prefix: withDefault(
    Field.string(
      "the beginning of a key, without a slash at its start",
      (value) => value === "" || ObjectKey.problem(value.replace(/\/$/, "")) === undefined
    ),
    ""
  ),
  retry: Field.retry,
  idleTimeout: withDefault(Field.duration(), 30_000),
  partSize: withDefault(
    Field.size({ min: limits.smallestPart, max: limits.largestPart, range: "5 MiB to 2 GiB" }),
    8 * 1024 * 1024
  ),
  concurrency: withDefault(Field.count(), 4),
  streamConcurrency: withDefault(Field.count(), 1),
  uniformParts: withDefault(Field.boolean, false),
  verify: withDefault(Field.boolean, true),
  checksum: Schema.optional(Field.oneOf("CRC32C", "SHA256", "CRC64NVME")),
  serverSideEncryption: Schema.optional(encryption),
  storageClass: Schema.optional(headerValue("a storage class")),
  contentType: withDefault(headerValue("a media type"), "application/octet-stream"),
  cacheControl: Schema.optional(headerValue("a Cache-Control")),
  tagging: Schema.optional(Schema.Record({ key: Field.string(), value: Field.string() }))
}

const BucketOptionsSchema = Schema.Struct(bucketFields)
const bucketOptions: Schema.Schema<typeof BucketOptionsSchema.Type, BucketOptions> = BucketOptionsSchema

const endpoint = Field.must(
  Schema.String.pipe(Schema.filter((value) => {
    const { password, protocol, username } = URL.canParse(value) ? new URL(value) : { protocol: "" }
    return /^https?:$/.test(protocol) && !username && !password
  })),
  "a URL that begins with http:// or https:// and holds no credentials",
  // Anything else may be or hold a password.
  (value) => /^(\w+:\/\/)?[\w.-]*(:\d+)?(\/[\w./-]*)?$/.test(String(value)) ? Field.show(value) : undefined
)

const OptionsSchema = Schema.Struct({
  ...bucketFields,
  region: Schema.optional(Field.string()),
  endpoint: Schema.optional(endpoint),
  forcePathStyle: Schema.optional(Field.boolean),
  credentials: Schema.optional(Schema.Struct({
    accessKeyId: Field.string(),
    secretAccessKey: Field.redacted,
    sessionToken: Schema.optional(Field.redacted)
  })),
  profile: Schema.optional(Field.string())
})
const allOptions: Schema.Schema<typeof OptionsSchema.Type, Options> = OptionsSchema

// What few apps need is loaded when a storage is built, as the AWS SDK is.
const loadBackend = Effect.promise(() => import("./s3/backend.js"))
const loadClient = Effect.promise(() => import("./s3/client.js"))

const inPlace = <A, Err extends E.StorageError, R>(options: BucketOptions, building: Effect.Effect<A, Err, R>) =>
  Effect.mapError(building, (error) => withPlace(error, { backend: nameOf(options), operation: "make" }))

/**
 * A storage on a bucket; its connections are closed with the scope.
 *
 * @since 0.1.0
 * @category constructors
 */
export const make = (options: Options): Effect.Effect<Storage.Service, OpenError, Scope.Scope> =>
  Effect.flatMap(Field.decode("S3Storage", allOptions, options), (decoded) => {
    const { credentials, endpoint, forcePathStyle, profile, region } = decoded
    const building = Effect.gen(function*() {
      const { makeBackend } = yield* loadBackend
      const { makeClient, makeTransport } = yield* loadClient
      const client = yield* makeClient({ credentials, endpoint, forcePathStyle, profile, region })
      return Storage.make(yield* makeBackend(client, yield* makeTransport(client), decoded, profile))
    })
    return inPlace(decoded, building)
  })

/**
 * A storage on a bucket with an `S3Client` of the app, which is not destroyed. Its endpoint, credentials, signer and request
 * handler are used; its middleware and its retries are not. It is asked for other credentials when a request is refused, but the
 * SDK may have kept the shared files as they were.
 *
 * @since 0.1.0
 * @category constructors
 */
export const makeFromClient = (client: Client, options: BucketOptions): Effect.Effect<Storage.Service, OpenError> =>
  Effect.flatMap(
    Field.decode("S3Storage", bucketOptions, options),
    (decoded) =>
      inPlace(
        decoded,
        loadBackend.pipe(
          Effect.flatMap(({ makeBackend }) => makeBackend(client, fromHandler(client.config.requestHandler), decoded)),
          Effect.map(Storage.make)
        )
      )
  )

/**
 * Provides a storage on a bucket.
 *
 * @since 0.1.0
 * @category layers
 * @example
 * ```ts
 * import { Effect } from "effect"
 * import { S3Storage, Storage } from "surfing-weights"
 *
 * const program = Storage.list("bert/")
 *
 * const runnable = program.pipe(
 *   Effect.provide(S3Storage.layer({ bucket: "model-weights", region: "eu-central-1" }))
 * )
 * ```
 */
export const layer = (options: Options): Layer.Layer<Storage.Storage, OpenError> =>
  Layer.scoped(Storage.Storage, make(options))

/**
 * The same with options from `Config`, for instance from the environment.
 *
 * @since 0.1.0
 * @category layers
 * @example
 * ```ts
 * import { Config } from "effect"
 * import { S3Storage } from "surfing-weights"
 *
 * const WeightsLive = S3Storage.layerConfig({
 *   bucket: Config.string("WEIGHTS_BUCKET"),
 *   credentials: {
 *     accessKeyId: Config.string("WEIGHTS_KEY_ID"),
 *     secretAccessKey: Config.redacted("WEIGHTS_SECRET")
 *   }
 * })
 * ```
 */
export const layerConfig = (
  options: Config.Config.Wrap<Options>
): Layer.Layer<Storage.Storage, OpenError | ConfigError> =>
  Layer.scoped(Storage.Storage, Effect.flatMap(Config.unwrap(options), make))

/**
 * Provides a storage on a bucket with an `S3Client` of the app; see `makeFromClient`.
 *
 * @since 0.1.0
 * @category layers
 * @example
 * ```ts
 * import { S3Client } from "@aws-sdk/client-s3"
 * import { S3Storage } from "surfing-weights"
 *
 * const client = new S3Client({ region: "eu-central-1" })
 * const WeightsLive = S3Storage.layerFromClient(client, { bucket: "model-weights" })
 * ```
 */
export const layerFromClient = (
  client: Client,
  options: BucketOptions
): Layer.Layer<Storage.Storage, OpenError> => Layer.effect(Storage.Storage, makeFromClient(client, options))

/**
 * A presigned URL, with which anyone can load (`GET`) or save (`PUT`) the object without credentials until it expires. It is
 * a secret. A storage that is not on S3 fails with `UnsupportedOperation`.
 *
 * @since 0.1.0
 * @category accessors
 * @example
 * ```ts
 * import { S3Storage } from "surfing-weights"
 *
 * const link = S3Storage.presign("bert/layer_0.bin", { method: "GET", expiresIn: "15 minutes" })
 * ```
 */
export const presign: (
  key: string,
  options: StorageBackend.PresignOptions
) => Effect.Effect<string, E.PresignError, Storage.Storage> = Storage.presign
