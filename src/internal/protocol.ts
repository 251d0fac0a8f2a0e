/**
 * What a weight server and `HttpStorage` say to each other.
 *
 * - `GET`, `HEAD`, `PUT` and `DELETE` of `/objects/<key>`; the response to a `PUT` is an `ObjectInfo` as JSON.
 * - `GET /objects` lists: a `Page`, or with `accept: application/x-ndjson` an `Entry` a line; if the listing breaks, the
 *   last line is a failure. With `accept: application/x-ndjson; end=count` the response has the same type, and the last line
 *   of a whole listing is an `End`: a proxy may end a body that broke off as if it were whole.
 * - `GET /health` returns a `Health`.
 * - A failure is a `StorageError` as JSON, with a status that fits. A response to `HEAD` has no body; there the same JSON
 *   is in the header `storage-error`, percent-encoded.
 * - Attributes are HTTP header fields of the same names, metadata is `x-object-meta-<name>`. `x-object-attributes` names
 *   which of `content-type` and `cache-control` are the object's: a server sends others by default, and `fetch` adds some
 *   to requests. A request with `accept-encoding: identity`, or from a browser, which cannot send that, with the query
 *   `encoding=identity`, receives the object's encoding as `x-object-content-encoding`, so that no HTTP client decodes the
 *   body.
 */
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import type { Attributes, Checksum, ObjectInfo as Info } from "../StorageBackend.js"
import * as E from "../StorageError.js"
import { attributesSchema } from "./attributes.js"
import { formatAttributes, type Headers, parseAttributes } from "./httpHeaders.js"

/** The path of an object: its key, each segment percent-encoded. */
export const pathOf = (key: string): string => `/objects/${encodeKey(key)}`

export const encodeKey = (key: string): string => key.split("/").map(encodeURIComponent).join("/")

/** The key in what follows `/objects/` in a path. `%2F` is a slash, as in S3. `None` for an invalid percent-encoding. */
export const decodeKey: (path: string) => Option.Option<string> = Option.liftThrowable(decodeURIComponent)

/** An etag as a strong entity tag (RFC 9110, section 8.8.3), which cannot hold every character. */
export const formatEtag = (etag: string): string =>
  `"${etag.replaceAll(/[^\x21\x23\x24\x26-\x7e]/gu, encodeURIComponent)}"`

/** The etag in an entity tag of `formatEtag`; `None` for a weak or malformed one. */
export const parseEtag = (tag: string): Option.Option<string> => {
  const quoted = /^"([\x21\x23-\x7e]*)"$/.exec(tag)?.[1]
  return quoted === undefined ? Option.none() : Option.liftThrowable(decodeURIComponent)(quoted)
}

/** The header of a failure in a response to `HEAD`. */
export const errorHeader = "storage-error"

/** The header of the checksum of the whole object (RFC 9530). */
export const checksumHeader = "repr-digest"

const digestNames = { CRC32C: "crc32c", SHA256: "sha-256", CRC64NVME: "crc64nvme" } as const

export const formatDigest = ({ algorithm, value }: Checksum): string => `${digestNames[algorithm]}=:${value}:`

export const parseDigest = (header: string): Checksum | undefined => {
  for (const [, name = "", value = ""] of header.matchAll(/([\w-]+)=:([A-Za-z0-9+/=]*):/g)) {
    for (const algorithm of ["SHA256", "CRC32C", "CRC64NVME"] as const) {
      if (digestNames[algorithm] === name.toLowerCase()) return { algorithm, value }
    }
  }
  return undefined
}

// Attributes

const metadataPrefix = "x-object-meta-"
const attributesHeader = "x-object-attributes"
const encodingHeader = "x-object-content-encoding"

/** The header fields that may be there without being attributes. */
const defaulted = ["content-type", "cache-control"] as const

/** Attributes as header fields of a request. */
export const formatRequestAttributes = (attributes: Attributes): Record<string, string> => {
  const headers = formatAttributes(attributes, metadataPrefix)
  return { ...headers, [attributesHeader]: defaultedIn(headers) }
}

/** The attributes in a request; `undefined` where there are none. Where the request does not name them, all are. */
export const parseRequestAttributes = (headers: Headers): Attributes | undefined =>
  parsePlainAttributes(headers[attributesHeader] === undefined ? withoutAdded(headers) : onlyNamed(headers))

/** Without what `fetch` adds to a request with a condition (https://fetch.spec.whatwg.org/#http-network-or-cache-fetch). */
const withoutAdded = (headers: Headers): Headers =>
  headers["pragma"] === "no-cache" && headers["cache-control"] === "no-cache"
    ? { ...headers, "cache-control": undefined }
    : headers

/** The attributes in a response of a server that is no weight server. */
export const parsePlainAttributes = (headers: Headers): Attributes | undefined =>
  parseAttributes(headers, metadataPrefix)

/** Attributes as header fields of the response to a request. */
export const formatResponseAttributes = (attributes: Attributes, request: SentRequest): Record<string, string> => {
  const headers = formatAttributes(attributes, metadataPrefix)
  const own = defaultedIn(headers)
  if (own !== "") headers[attributesHeader] = own
  const encoding = headers["content-encoding"]
  if (encoding !== undefined && acceptsNoEncoding(request)) {
    delete headers["content-encoding"]
    headers[encodingHeader] = encoding
  }
  return headers
}

const defaultedIn = (headers: Headers): string => defaulted.filter((name) => name in headers).join(", ")

interface SentRequest {
  readonly url: string
  readonly headers: Headers
}

/** The query of a request that accepts no encoding. */
export const identityQuery = "?encoding=identity"

// Node's `fetch` adds another `identity` to a request with a range.
const acceptsNoEncoding = ({ headers, url }: SentRequest): boolean =>
  url.endsWith(identityQuery) || /^\s*identity(\s*,\s*identity)*\s*$/i.test(headers["accept-encoding"] ?? "")

/** The attributes in a response to a request that accepts no encoding. */
export const parseResponseAttributes = (headers: Headers): Attributes | undefined =>
  parsePlainAttributes({ ...onlyNamed(headers), "content-encoding": headers[encodingHeader] })

const onlyNamed = (headers: Headers): Headers => {
  const own = { ...headers }
  const names = (headers[attributesHeader] ?? "").split(/,\s*/)
  for (const name of defaulted) if (!names.includes(name)) own[name] = undefined
  return own
}

// JSON

export class ObjectInfo extends Schema.Class<ObjectInfo>("ObjectInfo")({
  key: Schema.String,
  size: Schema.NonNegativeInt.annotations({ description: "In bytes." }),
  lastModified: Schema.Date,
  etag: Schema.String,
  checksum: Schema.optional(
    Schema.Struct({ algorithm: Schema.Literal("CRC32C", "SHA256", "CRC64NVME"), value: Schema.String })
  ),
  attributes: Schema.optional(attributesSchema)
}) {}

/** What becomes an `ObjectInfo` as JSON. */
export const toJson = ({ attributes, checksum, etag, key, lastModified, size }: Info): Info => ({
  key,
  size,
  lastModified,
  etag,
  checksum,
  attributes
})

export class Page extends Schema.Class<Page>("Page")({
  objects: Schema.Array(ObjectInfo),
  prefixes: Schema.Array(Schema.String).annotations({
    description: "With a delimiter, the prefixes of deeper objects; each ends in /."
  }),
  next: Schema.optional(Schema.String).annotations({ description: "The startAfter of the next page, if there is one." })
}) {}

/** The media type of a listing, and that of one with an `End`. */
export const listingType = "application/x-ndjson"
export const listingWithEnd = `${listingType}; end=count`

/** Whether a media type is that of a listing with an `End`. */
export const hasEnd = (mediaType: string): boolean => /^application\/x-ndjson *; *end=count\b/i.test(mediaType)

/** The last line of a whole listing: how many lines are before it. */
export const End = Schema.Struct({ end: Schema.NonNegativeInt })

/** A line of a listing. */
export const Entry = Schema.Union(ObjectInfo, Schema.Struct({ prefix: Schema.String }), E.StorageError).annotations({
  identifier: "Entry",
  description: "An object, a prefix, or as the last line the failure that broke the listing."
})

export class Health extends Schema.Class<Health>("Health")({
  status: Schema.Literal("ok"),
  capabilities: Schema.Struct({
    write: Schema.Boolean,
    list: Schema.Boolean,
    createOnly: Schema.Boolean,
    compareAndSwap: Schema.Boolean,
    conditionalRemove: Schema.Boolean,
    objectsWithinObjects: Schema.Boolean,
    attributes: Schema.Boolean
  })
}) {}

const encodeError = Schema.encodeSync(E.StorageError)

/** A failure as JSON, with some fields replaced, and without its cause, which may show the inside of the server. */
export const errorJson = (error: E.StorageError, replaced: Readonly<Record<string, string>> = {}): string => {
  const { cause: _, ...fields } = encodeError(error)
  return JSON.stringify({ ...fields, ...replaced })
}

export const parseError: (json: string) => Option.Option<E.StorageError> = Schema.decodeUnknownOption(
  Schema.parseJson(E.StorageError)
)

/** The status of a failure, for clients that do not read its JSON. */
export const statusOf = (error: E.StorageError): number => {
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
      // A body of the wrong size is the client's mistake.
      return error.problem === "size" ? 400 : 502
    case "InvalidOptions":
    case "UnexpectedStorageError":
      return 500
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
  }
}
