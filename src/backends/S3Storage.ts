/**
 * Objects in a bucket: Amazon S3, and everything that speaks S3 (MinIO, Ceph, R2, Spaces …).
 *
 * The AWS SDK finds credentials, region and endpoint as it does for everybody; a wrong bucket, region or key is told
 * when the storage is built. Every request is tried again as `retry` says, a part of an object on its own, a broken
 * stream from the byte where it broke; the SDK's own retries are not used, so there is one budget.
 *
 * - An object larger than a part is saved and loaded in parts, several at once. A save whose process is killed, or that
 *   never hears that its upload was begun, leaves an unfinished upload, which takes room and is shown by no listing:
 *   give the bucket a lifecycle rule with `AbortIncompleteMultipartUpload`.
 * - Each object that was saved conditionally or in parts carries the metadata `surfing-weights-save`, by which a save
 *   knows its own work where the answer to it got lost.
 * - Requests go over connections of the storage's own, which read into one array each: what a client of the SDK makes of
 *   memory for each read takes most of the time of a large load. `layerFromClient`, and Bun and Deno, send with the
 *   client's own request handler.
 * - The bytes that are sent are not part of the signature, since to hash them would take a third of the speed. Over HTTPS
 *   they are protected on the way like everything else; over plain HTTP `checksum` does that against accidents.
 * - A conditional save in parts is looked at by the server when it ends. Ceph does not do that, so it is looked at from
 *   here as well, just before: there another save can slip in between.
 * - A write that is interrupted ends at once. What the server has of it by then, all of a small save or the removal at
 *   the end of a move, it may still do a moment later.
 * - `copy` and `move` are done by the server; with `ifNoneMatch`, which few servers know there, the bytes go through
 *   this process. What is larger than 5 GiB is copied in parts, and loses the tags and metadata that others gave it.
 *
 * @module S3Storage
 * @since 0.1.0
 */
import type { S3Client, S3ClientConfig } from "@aws-sdk/client-s3"
import type * as FileSystem from "@effect/platform/FileSystem"
import * as Arr from "effect/Array"
import * as Chunk from "effect/Chunk"
import * as Config from "effect/Config"
import type { ConfigError } from "effect/ConfigError"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Redacted from "effect/Redacted"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import * as crypto from "node:crypto"
import { prefixed } from "../internal/prefix.js"
import { removeAllRetrying, retry } from "../internal/retry.js"
import * as Checksums from "../internal/s3/checksums.js"
import { connect, makeClient, makeTransport } from "../internal/s3/connect.js"
import * as Downloads from "../internal/s3/downloads.js"
import * as Requests from "../internal/s3/requests.js"
import { overHandler, type Transport } from "../internal/s3/transport.js"
import * as Uploads from "../internal/s3/uploads.js"
import * as xml from "../internal/s3/xml.js"
import * as ObjectKey from "../ObjectKey.js"
import * as RetryPolicy from "../RetryPolicy.js"
import * as Storage from "../Storage.js"
import * as StorageBackend from "../StorageBackend.js"
import * as E from "../StorageError.js"

/**
 * How the server encrypts what is saved: with its own keys (`SSE-S3`), with a key of the key management service
 * (`SSE-KMS`; `keyId` unless it is the account's own), or with a key of 32 bytes that only the customer has (`SSE-C`),
 * without which nobody can read the objects again.
 *
 * @since 0.1.0
 * @category models
 */
export type ServerSideEncryption =
  | { readonly type: "SSE-S3" }
  | { readonly type: "SSE-KMS"; readonly keyId?: string }
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
  /** The folder within the bucket in which the objects are: the key `a` is the object `<prefix>/a`. Default: none. */
  readonly prefix?: string
  /** When and how often a request is tried again. Default: `RetryPolicy.default`. */
  readonly retry?: RetryPolicy.RetryPolicy
  /**
   * How long the server may leave us without an answer, or without the next bytes of one: up to 24 days. Default: 30
   * seconds.
   */
  readonly idleLimit?: Duration.DurationInput
  /**
   * What is larger is loaded and saved in parts of this size, in bytes: from 5 MiB to 2 GiB. An object of more than
   * 10,000 of them is saved in larger ones; where its size is not known, each 900 parts are twice as large as those
   * before. Default: 8 MiB.
   */
  readonly partSize?: FileSystem.SizeInput
  /** How many parts of one load or save are on their way at once. Default: 4. */
  readonly concurrency?: number
  /** How many parts of a stream are loaded ahead. Default: 1, which is one connection for the whole stream. */
  readonly streamConcurrency?: number
  /** Whether all parts of an object but the last have one size, as R2 demands. Default: false. */
  readonly uniformParts?: boolean
  /** Whether to find out, when the storage is built, that the bucket is there and may be listed. Default: true. */
  readonly verifyBucket?: boolean
  /**
   * A checksum from end to end: the server refuses what does not arrive as it was sent, keeps the checksum, and a load
   * or stream of the whole object fails with `CorruptObject` where the bytes do not have it. It costs a request more for
   * each of these. Not checked are ranges, objects that have none of this kind, and with `SHA256` those whose parts have
   * several sizes, as has a stream of unknown size and over 900 parts unless `uniformParts` is set. A server that knows
   * no checksums makes every save fail with `UnsupportedOperation`. Default: none.
   */
  readonly checksum?: StorageBackend.Checksum["algorithm"]
  /** How the server encrypts what is saved. Default: as the bucket does. */
  readonly serverSideEncryption?: ServerSideEncryption
  /** For instance `STANDARD_IA`. Default: the bucket's. */
  readonly storageClass?: string
  /** The media type of what is saved. Default: `application/octet-stream`. */
  readonly contentType?: string
  /** The `Cache-Control` of what is saved. Default: none. */
  readonly cacheControl?: string
  /** The tags of what is saved. Default: none. */
  readonly tagging?: Readonly<Record<string, string>>
}

/**
 * A bucket, where it is, and who asks.
 *
 * @since 0.1.0
 * @category models
 */
export interface Options extends BucketOptions {
  /** Default: from the environment or the profile; `us-east-1` where an endpoint is given. */
  readonly region?: string
  /** The URL of a server that is not Amazon's. Default: from the environment or the profile, else Amazon's. */
  readonly endpoint?: string
  /** Whether the bucket stands in the path, not in the host name. Default: true where an endpoint is given. */
  readonly forcePathStyle?: boolean
  /**
   * Default: those of the profile, or the first that the SDK finds: in the environment, in the shared files, by single
   * sign-on, from the container or the instance. Temporary ones that were found are renewed in time.
   */
  readonly credentials?: {
    readonly accessKeyId: string
    readonly secretAccessKey: Redacted.Redacted
    readonly sessionToken?: Redacted.Redacted
  }
  /** The profile in the shared files of the AWS tools. Default: `AWS_PROFILE`, else `default`. */
  readonly profile?: string
}

/**
 * What building a storage on a bucket can meet.
 *
 * @since 0.1.0
 * @category models
 */
export type OpenError = E.CommonError | E.UnsupportedOperation

/**
 * A storage on a bucket; its connections go with the scope.
 *
 * @since 0.1.0
 * @category constructors
 */
export const make = (options: Options): Effect.Effect<Storage.Service, OpenError, Scope.Scope> =>
  Effect.gen(function*() {
    const { endpoint, profile } = options
    const backend = nameOf(options)
    if (endpoint !== undefined && !/^https?:\/\/./.test(endpoint)) {
      const reason = `endpoint is a URL that begins with http:// or https://, not ${JSON.stringify(endpoint)}`
      return yield* new E.UnsupportedOperation({ backend, operation: "open", reason })
    }
    const client = yield* makeClient(backend, toConfig(options))
    return Storage.make(yield* makeBackend(client, yield* makeTransport(backend, client), options, profile))
  })

/**
 * A storage on a bucket with a client of your own, which stays yours to destroy. Its endpoint, credentials, signer and
 * request handler are used; its middleware and its retries are not.
 *
 * @since 0.1.0
 * @category constructors
 */
export const makeFromClient = (
  client: S3Client,
  options: BucketOptions
): Effect.Effect<Storage.Service, OpenError> =>
  Effect.map(makeBackend(client, overHandler(client.config.requestHandler), options), Storage.make)

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
 * Provides a storage on a bucket with a client of your own; see `makeFromClient`.
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
  client: S3Client,
  options: BucketOptions
): Layer.Layer<Storage.Storage, OpenError> => Layer.effect(Storage.Storage, makeFromClient(client, options))

/**
 * A URL with which whoever has it can load (`GET`) or save (`PUT`) the object until it expires, without credentials. It
 * is a secret. Where the storage is not on S3 it fails with `UnsupportedOperation`.
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

const nameOf = ({ bucket, prefix }: BucketOptions): string =>
  `S3(${bucket}${prefix === undefined || prefix === "" ? "" : `/${prefix}`})`

const MiB = 1024 * 1024

const toConfig = ({ credentials, endpoint, forcePathStyle, profile, region }: Options): S3ClientConfig => ({
  ...(region !== undefined && { region }),
  ...(endpoint !== undefined && { endpoint }),
  ...(profile !== undefined && { profile }),
  // A server of one's own seldom has a name for each bucket.
  forcePathStyle: forcePathStyle ?? endpoint !== undefined,
  ...(credentials !== undefined && {
    credentials: {
      accessKeyId: credentials.accessKeyId,
      secretAccessKey: Redacted.value(credentials.secretAccessKey),
      ...(credentials.sessionToken !== undefined && { sessionToken: Redacted.value(credentials.sessionToken) })
    }
  }),
  // For Bun and Deno. How many requests there are at once is decided before they come here; idle limits, too, are kept
  // elsewhere.
  requestHandler: {
    httpAgent: { keepAlive: true, maxSockets: Infinity },
    httpsAgent: { keepAlive: true, maxSockets: Infinity }
  }
})

// A timer cannot wait longer.
const longestIdle = 2 ** 31 - 1

const makeBackend = (
  client: S3Client,
  transport: Transport,
  options: BucketOptions,
  profile?: string
): Effect.Effect<StorageBackend.StorageBackend, OpenError> =>
  Effect.gen(function*() {
    const backend = nameOf(options)
    const invalid = (reason: string) => new E.UnsupportedOperation({ backend, operation: "open", reason })

    const { bucket, retry: policy = RetryPolicy.default } = options
    const partSize = Number(options.partSize ?? 8 * MiB)
    const { largestPart, smallestPart } = Uploads.limits
    if (!Number.isSafeInteger(partSize) || partSize < smallestPart || partSize > largestPart) {
      return yield* invalid(`partSize is a whole number of bytes from 5 MiB to 2 GiB, not ${partSize}`)
    }
    const idleLimit = Duration.toMillis(options.idleLimit ?? "30 seconds")
    if (!(idleLimit >= 1 && idleLimit <= longestIdle)) {
      return yield* invalid(`idleLimit is from a millisecond to 24 days, not ${Duration.format(idleLimit)}`)
    }
    const { concurrency = 4, streamConcurrency = 1 } = options
    const counts = { concurrency, streamConcurrency }
    for (const [name, count] of Object.entries(counts)) {
      if (!Number.isInteger(count) || count < 1) {
        return yield* invalid(`${name} is a whole number from 1 up, not ${count}`)
      }
    }
    const folder = (options.prefix ?? "").replace(/\/$/, "")
    const wrong = folder === "" ? undefined : ObjectKey.problem(folder)
    if (wrong !== undefined) return yield* invalid(`prefix cannot be the beginning of a key: ${wrong}`)

    const { cacheControl, contentType, serverSideEncryption: encryption, storageClass } = options
    if (encryption?.type === "SSE-C" && Redacted.value(encryption.key).byteLength !== 32) {
      return yield* invalid("the key of SSE-C has 32 bytes")
    }
    const serverSideEncryption = encryption?.type === "SSE-KMS" ? encryption.keyId : undefined
    for (const [name, value] of Object.entries({ cacheControl, contentType, storageClass, serverSideEncryption })) {
      if (value !== undefined && !/^[\t\x20-\x7e]*$/.test(value)) {
        return yield* invalid(`${name} has characters that cannot stand in a header: ${JSON.stringify(value)}`)
      }
    }
    const connection = yield* connect(backend, client, bucket, idleLimit, transport, profile)
    const requests = Requests.make(connection, backend, bucket, toHeaders(options))
    const cut = {
      partSize,
      uniformParts: options.uniformParts ?? false,
      ...counts,
      largestCopy: Uploads.limits.largestCopy
    }
    const checksum = options.checksum === undefined ? undefined : yield* Checksums.make(backend, options.checksum)
    const downloads = Downloads.make(requests, policy, cut, checksum)
    const uploads = Uploads.make(requests, policy, cut, checksum)

    /** Pages, each tried again on its own. */
    const pages = (operation: string, options: StorageBackend.ListOptions & { readonly delimiter?: string }) =>
      Stream.paginateEffect(Option.none<string>(), (token) =>
        Effect.map(
          retry(
            requests.listPage(operation, { ...options, ...(Option.isSome(token) && { token: token.value }) }),
            policy
          ),
          (page) => [page, Option.map(Option.fromNullable(page.token), Option.some)]
        ))

    const entries = (operation: string, options: StorageBackend.ListOptions) =>
      Stream.mapConcatChunk(pages(operation, options), (page) => Chunk.unsafeFromArray(page.objects))

    const presignUrl: StorageBackend.StorageBackend["presign"] = (key, { expiresIn, method }) =>
      Effect.suspend((): Effect.Effect<string, E.PresignError> => {
        const seconds = Math.floor(Duration.toSeconds(expiresIn))
        return seconds >= 1 && seconds <= Duration.toSeconds(longest)
          ? requests.presign(key, method, seconds)
          : Effect.fail(
            new E.UnsupportedOperation({
              backend,
              operation: "presign",
              key,
              reason: `a URL is valid for one second to seven days, not for ${Duration.format(expiresIn)}`
            })
          )
      })

    const removeAll = (keys: ReadonlyArray<string>) =>
      Effect.gen(function*() {
        // XML has no place for some characters that a key may have.
        const [odd, plain] = Arr.partition(keys, xml.canHold)
        const alone = yield* Effect.forEach(
          odd,
          (key) => Effect.flip(requests.remove("removeAll", key)).pipe(Effect.option),
          {
            concurrency: 16
          }
        )
        const together = plain.length === 0 ? [] : yield* requests.removeBatch(plain)
        return [...Arr.getSomes(alone), ...together]
      })

    const store: Parameters<typeof StorageBackend.make>[0] = {
      name: backend,
      capabilities: { ...StorageBackend.full, presign: true },
      open: downloads.open,
      load: downloads.load,
      head: (key) => {
        const found = requests.head("head", key, requests.ask, checksum && { headers: Checksums.mode })
        return Effect.map(retry(found, policy), ({ info }) => info)
      },
      save: uploads.save,
      entries: (options) => entries("entries", options),
      keys: (options) => Stream.map(entries("list", options), ({ key }) => key),
      listDirectory: (prefix) =>
        Effect.map(Stream.runCollect(pages("listDirectory", { prefix, delimiter: "/" })), (all) => ({
          objects: Chunk.toReadonlyArray(all).flatMap(({ objects }) => objects),
          prefixes: Chunk.toReadonlyArray(all).flatMap(({ prefixes }) => prefixes)
        })),
      remove: (key) => retry(requests.remove("remove", key), policy),
      removeAll: (keys) => removeAllRetrying(removeAll, keys, policy),
      presign: presignUrl
    }

    // Few servers can be asked not to overwrite by a copy, so a conditional one is a load and a save.
    const throughHere = StorageBackend.make(store).copy

    const copy = (operation: string): StorageBackend.StorageBackend["copy"] => (from, to, options) =>
      options.ifNoneMatch === undefined
        ? Effect.flatMap(retry(requests.head(operation, from), policy), (source) => uploads.copy(operation, source, to))
        : throughHere(from, to, options)

    if (options.verifyBucket ?? true) {
      yield* retry(requests.verify(folder === "" ? "" : `${folder}/`), policy)
    }

    const whole = StorageBackend.make({
      ...store,
      copy: copy("copy"),
      move: (from, to, options) =>
        Effect.zipLeft(copy("move")(from, to, options), retry(requests.remove("move", from), policy))
    })
    return folder === "" ? whole : prefixed(whole, folder, backend)
  })

const longest = Duration.days(7)

const toHeaders = (options: BucketOptions): Requests.Headers => {
  const { cacheControl, contentType = "application/octet-stream", storageClass, tagging } = options
  const encryption = options.serverSideEncryption
  const customer = encryption?.type === "SSE-C" ? Redacted.value(encryption.key) : undefined
  const customerKey = (name: string): Record<string, string> =>
    customer === undefined ? {} : {
      [`${name}-algorithm`]: "AES256",
      [`${name}-key`]: Buffer.from(customer).toString("base64"),
      [`${name}-key-md5`]: crypto.createHash("md5").update(customer).digest("base64")
    }
  return {
    create: {
      ...(encryption?.type === "SSE-S3" && { "x-amz-server-side-encryption": "AES256" }),
      ...(encryption?.type === "SSE-KMS" && {
        "x-amz-server-side-encryption": "aws:kms",
        ...(encryption.keyId !== undefined && { "x-amz-server-side-encryption-aws-kms-key-id": encryption.keyId })
      }),
      ...(storageClass !== undefined && { "x-amz-storage-class": storageClass }),
      "content-type": contentType,
      ...(cacheControl !== undefined && { "cache-control": cacheControl }),
      ...(tagging !== undefined && { "x-amz-tagging": new URLSearchParams(tagging).toString().replaceAll("+", "%20") })
    },
    access: customerKey("x-amz-server-side-encryption-customer"),
    copySource: customerKey("x-amz-copy-source-server-side-encryption-customer")
  }
}
