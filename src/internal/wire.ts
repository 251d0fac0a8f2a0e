/**
 * What a weight server and its client say to each other: how a key stands in a path and an etag in a header, which
 * status a failure has, and the JSON of objects, pages and failures.
 *
 * - `GET`, `HEAD`, `PUT` and `DELETE` of `/objects/<key>`; the answer to a `PUT` is an `ObjectInfo`.
 * - `GET /objects` lists: a `Page`, or with `accept: application/x-ndjson` an `Entry` a line, the last of which is a
 *   failure if the listing breaks.
 * - `GET /health` tells a `Health`.
 * - A failure is the JSON of a `StorageError` with a status that fits. An answer to `HEAD` has no body, so there the
 *   same JSON, percent-encoded, is in the header `storage-error`.
 */
import * as Duration from "effect/Duration"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import type { Checksum } from "../StorageBackend.js"
import { type StorageError, StorageError as StorageErrorSchema } from "../StorageError.js"

/** The path of an object: the key, each segment percent-encoded. */
export const pathOf = (key: string): string => `/objects/${encodeKey(key)}`

export const encodeKey = (key: string): string => key.split("/").map(encodeURIComponent).join("/")

/**
 * The key in what follows `/objects/` of a path as it was sent. `%2F` is a slash like any other, as in S3. `None` where
 * an escape stands for no character.
 */
export const decodeKey: (path: string) => Option.Option<string> = Option.liftThrowable(decodeURIComponent)

/** An etag as a strong entity tag (RFC 9110, section 8.8.3), which cannot hold every character. */
export const toEntityTag = (etag: string): string =>
  `"${etag.replaceAll(/[^\x21\x23\x24\x26-\x7e]/gu, encodeURIComponent)}"`

/** The etag that `toEntityTag` made this of. `None` for a weak entity tag, or none at all. */
export const fromEntityTag = (tag: string): Option.Option<string> => {
  const quoted = /^"([\x21\x23-\x7e]*)"$/.exec(tag)?.[1]
  return quoted === undefined ? Option.none() : Option.liftThrowable(decodeURIComponent)(quoted)
}

/** The header of a failure in answer to `HEAD`. */
export const errorHeader = "storage-error"

/** The header of the checksum of the whole object (RFC 9530), and its value. */
export const checksumHeader = "repr-digest"

const digestNames = { CRC32C: "crc32c", SHA256: "sha-256", CRC64NVME: "crc64nvme" } as const

export const toDigest = ({ algorithm, value }: Checksum): string => `${digestNames[algorithm]}=:${value}:`

export const fromDigest = (header: string): Checksum | undefined => {
  for (const [, name = "", value = ""] of header.matchAll(/([\w-]+)=:([A-Za-z0-9+/=]*):/g)) {
    for (const algorithm of ["SHA256", "CRC32C", "CRC64NVME"] as const) {
      if (digestNames[algorithm] === name.toLowerCase()) return { algorithm, value }
    }
  }
  return undefined
}

export class ObjectInfo extends Schema.Class<ObjectInfo>("ObjectInfo")({
  key: Schema.String,
  size: Schema.NonNegativeInt.annotations({ description: "in bytes" }),
  lastModified: Schema.Date,
  etag: Schema.String,
  checksum: Schema.optionalWith(
    Schema.Struct({ algorithm: Schema.Literal("CRC32C", "SHA256", "CRC64NVME"), value: Schema.String }),
    { exact: true }
  )
}) {}

export class Page extends Schema.Class<Page>("Page")({
  objects: Schema.Array(ObjectInfo),
  prefixes: Schema.Array(Schema.String).annotations({
    description: "of what is deeper, with delimiter; each ends in /"
  }),
  next: Schema.optionalWith(Schema.String, { exact: true }).annotations({
    description: "startAfter for the next page, if there is one"
  })
}) {}

/** A line of a listing. */
export const Entry = Schema.Union(ObjectInfo, Schema.Struct({ prefix: Schema.String }), StorageErrorSchema)

export class Health extends Schema.Class<Health>("Health")({
  status: Schema.Literal("ok"),
  capabilities: Schema.Struct({
    write: Schema.Boolean,
    list: Schema.Boolean,
    createOnly: Schema.Boolean,
    compareAndSwap: Schema.Boolean,
    objectsWithinObjects: Schema.Boolean
  })
}) {}

const encodeError = Schema.encodeSync(StorageErrorSchema)

/** The JSON of a failure. What caused it stays here: it may tell of the inside of the server. */
export const errorJson = (error: StorageError): string => {
  const { cause: _, ...rest } = encodeError(error)
  return JSON.stringify(rest)
}

export const errorFromJson: (json: string) => Option.Option<StorageError> = Schema.decodeUnknownOption(
  Schema.parseJson(StorageErrorSchema)
)

/** The status that tells a failure to those who know nothing of its JSON. */
export const statusOf = (error: StorageError): number => {
  switch (error._tag) {
    case "ObjectNotModified":
      return 304
    case "InvalidKey":
      return 400
    case "AccessDenied":
      return 403
    case "ObjectNotFound":
      return 404
    case "ObjectAlreadyExists":
    case "PreconditionFailed":
      return 412
    case "InvalidRange":
      return 416
    case "CorruptObject":
      // A source of the wrong size is the sender's doing.
      return error.problem === "size" ? 400 : 502
    case "UnsupportedOperation":
      return 501
    case "StorageNotFound":
      return 502
    case "StorageUnavailable":
      return 503
    case "StorageTimeout":
      return 504
    case "StorageFull":
      return 507
    case "UnexpectedStorageError":
      return 500
  }
}

/** How many seconds to wait, for the header `retry-after` of a failure that tells it. */
export const retryAfterOf = (error: StorageError): number | undefined =>
  error._tag === "StorageUnavailable" && error.retryAfter !== undefined
    ? Math.ceil(Duration.toSeconds(error.retryAfter))
    : undefined
