/**
 * The operations of a storage on a bucket, each from its room.
 */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Redacted from "effect/Redacted"
import * as crypto from "node:crypto"
import { prefixed } from "../../internal/prefix.js"
import { prepare, retry } from "../../internal/retry.js"
import type { RetryPolicy } from "../../RetryPolicy.js"
import * as StorageBackend from "../../StorageBackend.js"
import * as E from "../../StorageError.js"
import * as Checksums from "./checksums.js"
import { type Client, connect } from "./client.js"
import { Conditions } from "./conditions.js"
import { Getter } from "./get.js"
import { Lister } from "./lister.js"
import { nameOf } from "./name.js"
import type { UploadParts } from "./parts.js"
import { type Parts, Reader } from "./reader.js"
import { Remover } from "./remover.js"
import { Bucket, type OwnerHeaders } from "./request.js"
import { Saver } from "./saver.js"
import type { Transport } from "./transport.js"

/** The options of a storage, decoded. */
export interface BackendOptions extends Parts, UploadParts {
  readonly bucket: string
  readonly prefix: string
  readonly retry: RetryPolicy
  /** In milliseconds. */
  readonly idleTimeout: number
  readonly verify: boolean
  readonly checksum?: StorageBackend.Checksum["algorithm"] | undefined
  readonly serverSideEncryption?: Encryption | undefined
  readonly storageClass?: string | undefined
  readonly contentType: string
  readonly cacheControl?: string | undefined
  readonly tagging?: Readonly<Record<string, string>> | undefined
}

type Encryption =
  | { readonly type: "SSE-S3" }
  | { readonly type: "SSE-KMS"; readonly keyId?: string | undefined }
  | { readonly type: "SSE-C"; readonly key: Redacted.Redacted<Uint8Array> }

/** The backend on a bucket, which is looked at first unless `verify` is false. */
export const makeBackend = (
  client: Client,
  transport: Transport,
  options: BackendOptions,
  profile?: string
): Effect.Effect<StorageBackend.StorageBackend, E.CommonError | E.UnsupportedOperation> =>
  Effect.gen(function*() {
    const { bucket: name, idleTimeout, prefix } = options
    const connected = yield* connect(client, name, idleTimeout, profile)
    const bucket = new Bucket({ ...connected, name, headers: ownerHeaders(options), transport, idleTimeout })
    const policy = prepare(options.retry, nameOf(options), bucket.peer)
    const checksum = options.checksum === undefined ? undefined : yield* Checksums.make(options.checksum)
    const folder = prefix.replace(/\/$/, "")
    const lister = new Lister(bucket, policy)
    if (options.verify) yield* lister.verify(folder === "" ? "" : `${folder}/`)
    const backend = backendOf(bucket, { ...options, retry: policy }, checksum, lister)
    return folder === "" ? backend : prefixed(backend, folder, backend.name)
  })

const backendOf = (
  bucket: Bucket,
  options: BackendOptions,
  checksum: Checksums.Checksum | undefined,
  lister: Lister
): StorageBackend.StorageBackend => {
  const { cacheControl, contentType, retry: policy } = options
  const getter = new Getter(bucket, lister)
  const conditions = new Conditions(bucket, policy)
  const remover = new Remover(bucket, policy, conditions)
  const reader = new Reader(getter, bucket, policy, options, checksum)
  const saver = new Saver(
    { bucket, getter, policy, checksum, conditions, defaults: { contentType, cacheControl } },
    options
  )
  const open: StorageBackend.StorageBackend["open"] = (key, options) => reader.open(key, options)

  const derived = StorageBackend.make({
    name: nameOf(options),
    location: bucket.location,
    capabilities: capabilitiesOf(conditions),
    open,
    save: (key, data, options) => saver.save(key, data, options),
    entries: (options) => lister.entries(options),
    remove: (key, options) => remover.remove(key, options)
  }, {
    load: (key, options) => reader.load(key, options),
    head: (key) => reader.head(key),
    listDirectory: (prefix) => lister.listDirectory(prefix),
    removeAll: (keys) => remover.removeAll(keys),
    saveResumable: (key, data, options) => saver.saveResumable(key, data, options),
    presign: (key, options) => presign(bucket, key, options)
  })
  // Few servers support a copy that does not overwrite, so a conditional one is a load and a save.
  const copy: StorageBackend.StorageBackend["copy"] = (from, to, options) =>
    options.ifNoneMatch === undefined
      ? Effect.flatMap(retry(getter.head(from), policy), (source) => saver.copy(source, to, options))
      : derived.copy(from, to, options)
  return {
    ...derived,
    // The reader has counted the bytes.
    open,
    copy,
    move: (from, to, options) =>
      copy(from, to, options).pipe(
        Effect.tap((copied) => saver.confirm(copied)),
        Effect.zipLeft(remover.remove(from, {}))
      )
  }
}

/** What was found out about the server belongs to them. */
const capabilitiesOf = (conditions: Conditions): StorageBackend.Capabilities => ({
  ...StorageBackend.full,
  presign: true,
  get createOnly() {
    return conditions.capabilities.createOnly
  },
  get compareAndSwap() {
    return conditions.capabilities.compareAndSwap
  },
  get conditionalRemove() {
    return conditions.capabilities.conditionalRemove
  }
})

const longest = Duration.days(7)

const presign = (bucket: Bucket, key: string, { expiresIn, method }: StorageBackend.PresignOptions) => {
  const seconds = Math.floor(Duration.toSeconds(expiresIn))
  return seconds >= 1 && seconds <= Duration.toSeconds(longest)
    ? bucket.presign({ method, key }, seconds)
    : Effect.fail(
      new E.UnsupportedOperation({
        reason: `expiresIn must be from one second to seven days (got ${Duration.format(expiresIn)})`
      })
    )
}

const ownerHeaders = ({ serverSideEncryption, storageClass, tagging }: BackendOptions): OwnerHeaders => {
  const customer = serverSideEncryption?.type === "SSE-C" ? Redacted.value(serverSideEncryption.key) : undefined
  const customerKey = (name: string): Record<string, string> =>
    customer === undefined ? {} : {
      [`${name}-algorithm`]: "AES256",
      [`${name}-key`]: Buffer.from(customer).toString("base64"),
      [`${name}-key-md5`]: crypto.createHash("md5").update(customer).digest("base64")
    }
  return {
    create: {
      ...(serverSideEncryption?.type === "SSE-S3" && { "x-amz-server-side-encryption": "AES256" }),
      ...(serverSideEncryption?.type === "SSE-KMS" && {
        "x-amz-server-side-encryption": "aws:kms",
        ...(serverSideEncryption.keyId !== undefined && {
          "x-amz-server-side-encryption-aws-kms-key-id": serverSideEncryption.keyId
        })
      }),
      ...(storageClass !== undefined && { "x-amz-storage-class": storageClass }),
      ...(tagging !== undefined && { "x-amz-tagging": new URLSearchParams(tagging).toString().replaceAll("+", "%20") })
    },
    access: customerKey("x-amz-server-side-encryption-customer"),
    copySource: customerKey("x-amz-copy-source-server-side-encryption-customer")
  }
}
