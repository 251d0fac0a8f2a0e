/**
 * What the responses of S3 mean: the failure behind a status and an error code, the object behind the headers.
 *
 * Codes: https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html
 */
import * as Data from "effect/Data"
import type { ResolvedRange } from "../../ByteRange.js"
import { proxyCredentials } from "../../internal/connection.js"
import type { Response } from "../../internal/httpCall.js"
import { parseContentLength, parseContentRange, parseRetryAfter } from "../../internal/httpHeaders.js"
import type { Checksum, ObjectInfo } from "../../StorageBackend.js"
import * as E from "../../StorageError.js"
import { isEtagOfParts, toAttributes, toEtag } from "./dialect.js"
import * as xml from "./xml.js"

/** A response that reports an error; what that means depends on the request. */
export class ErrorResponse extends Data.TaggedError("ErrorResponse")<{
  readonly status: number
  readonly code: string
  readonly message: string
  readonly requestId: string | undefined
  readonly headers: Response["headers"]
  /** The body. */
  readonly text: string
}> {
  /** A response that reports success, but is not what the operation responds with. */
  static unlike({ headers, status }: Response, code: "IncompleteResponse" | "UnknownResponse", message: string) {
    const requestId = headers["x-amz-request-id"]
    return new ErrorResponse({ status, code, message, requestId, headers, text: "" })
  }

  /** Whether it leaves open what was done. */
  get isInDoubt(): boolean {
    return this.code === "IncompleteResponse" || this.code === "UnknownResponse"
  }

  /** The response to a `HEAD` has no body, so its status decides; where a status reports success, the code does. */
  static from({ headers, status }: Response, text: string, code = xml.text(text, "Code")): ErrorResponse {
    return new ErrorResponse({
      status: status < 300 ? statusOf.get(code ?? "") ?? status : status,
      code: code ?? codeOf[status] ?? `HTTP ${status}`,
      message: xml.text(text, "Message") ?? "",
      requestId: headers["x-amz-request-id"] ?? xml.text(text, "RequestId"),
      headers,
      text
    })
  }
}

const codeOf: Readonly<Record<number, string>> = {
  304: "NotModified",
  403: "AccessDenied",
  404: "NoSuchKey",
  412: "PreconditionFailed",
  416: "InvalidRange",
  429: "TooManyRequests",
  503: "SlowDown"
}

const statusOf: ReadonlyMap<string, number> = new Map([
  ["AccessDenied", 403],
  ["NoSuchKey", 404],
  ["NoSuchUpload", 404],
  ["NoSuchBucket", 404],
  ["PreconditionFailed", 412]
])

/** Codes that mean the same for every operation, whatever their status. */
const retryable: ReadonlySet<string> = new Set([
  "SlowDown",
  "ServiceUnavailable",
  "RequestTimeout",
  "RequestTimeoutException",
  "InternalError",
  "OperationAborted",
  "ConditionalRequestConflict",
  "ConcurrentModification",
  "Throttling",
  "ThrottlingException",
  "RequestLimitExceeded",
  "RequestThrottled",
  "TooManyRequests",
  "BandwidthLimitExceeded",
  "RequestTimeTooSkewed"
])

const badCredentials: ReadonlyMap<string, string> = new Map([
  ["InvalidAccessKeyId", "the server does not know this access key id; correct the credentials"],
  ["SignatureDoesNotMatch", "the secret access key does not belong to the access key id; correct the credentials"],
  ["ExpiredToken", "the credentials have expired; get new ones"],
  ["TokenRefreshRequired", "the credentials have expired; get new ones"],
  ["InvalidToken", "the session token is not valid; correct the credentials"],
  ["AccountProblem", "there is a problem with the account of these credentials"],
  ["InvalidPayer", "the account of these credentials cannot pay"],
  ["AllAccessDisabled", "all access to this has been disabled"]
])

/** Whether credentials are right and not sufficient. */
export const isForbidden = ({ code, status }: ErrorResponse): boolean =>
  !badCredentials.has(code) && (status === 401 || (status === 403 && !notAboutAccess.has(code)))

const notAboutAccess: ReadonlySet<string> = new Set(["InvalidObjectState", "QuotaExceeded", "RequestTimeTooSkewed"])

/** Codes of servers that keep objects as files: versitygw, MinIO. */
const conflicts: ReadonlySet<string> = new Set([
  "ObjectParentIsFile",
  "ExistingObjectIsDirectory",
  "ObjectExistsAsDirectory",
  "XMinioParentIsObject",
  "XMinioObjectExistsAsDirectory"
])

type Failure = E.CommonError | E.StorageFull | E.UnsupportedOperation

/** The failure that an error response means, as far as that does not depend on the request. */
export const failureOf = (error: ErrorResponse, bucket: string): Failure => {
  const { code, message, status } = error
  const details = detailsOf(error)
  if (code === "IncompleteResponse") return new E.StorageUnavailable({ reason: `${message}${details}` })
  if (code === "UnknownResponse") return new E.UnexpectedStorageError({ reason: `${message}${details}` })
  if (isUnavailable(error)) return unavailable(error, details)
  if (code === "NoSuchBucket") {
    const reason = `the bucket ${JSON.stringify(bucket)} does not exist; create it, or correct bucket or endpoint`
    return new E.StorageNotFound({ reason: `${reason}${details}` })
  }
  const region = regionOf(error)
  if (region !== undefined || code === "PermanentRedirect" || code === "IllegalLocationConstraintException") {
    const advice = region === undefined ? "set the region of the bucket" : `set region: ${JSON.stringify(region)}`
    return new E.StorageNotFound({
      reason: `the bucket ${JSON.stringify(bucket)} is not in this region; ${advice}${details}`
    })
  }
  if (status === 407) {
    return new E.AccessDenied({ reason: `the proxy requires credentials; ${proxyCredentials}${details}` })
  }
  const problem = badCredentials.get(code)
  if (problem !== undefined) return new E.AccessDenied({ reason: `${problem}${details}` })
  if (isForbidden(error)) {
    const reason = "these credentials do not allow this; allow it in the policy of the user or of the bucket"
    return new E.AccessDenied({ reason: `${reason}${details}` })
  }
  if (code === "EntityTooLarge") {
    return new E.StorageFull({ reason: `the object is larger than the server allows${details}` })
  }
  if (status === 413) {
    const advice = "raise its limit (client_max_body_size of nginx), or save smaller parts (partSize, at least 5 MiB)"
    return new E.StorageFull({
      reason: `a proxy before the server refuses a request body of this size; ${advice}${details}`
    })
  }
  if (code === "QuotaExceeded" || code === "StorageFull" || status === 507) {
    return new E.StorageFull({ reason: `no space is left${details}` })
  }
  if (code === "InvalidObjectState") {
    return new E.UnsupportedOperation({ reason: `the object is archived; restore it, then load it${details}` })
  }
  if (conflicts.has(code)) {
    const reason =
      "the server keeps objects as files and cannot hold this one beside an object whose key goes on with /, " +
      `or is the beginning of this one; remove or rename one of them first${details}`
    return new E.UnsupportedOperation({ reason })
  }
  if (status === 501) return new E.UnsupportedOperation({ reason: `the server does not support this${details}` })
  const reason = message === "" ? "the server refused the request" : `the server refused the request: ${message}`
  return new E.UnexpectedStorageError({ reason: `${reason}${details}` })
}

const isUnavailable = ({ code, status }: ErrorResponse): boolean =>
  retryable.has(code) || status === 408 || status === 429 || (status >= 500 && status !== 501 && status !== 507)

const unavailable = ({ code, headers }: ErrorResponse, details: string): E.StorageUnavailable => {
  const retryAfter = parseRetryAfter(headers["retry-after"])
  const reason = code === "RequestTimeTooSkewed"
    ? "the clocks of this machine and of the server are too far apart"
    : "the server is not available now"
  return new E.StorageUnavailable({
    reason: `${reason}${details}`,
    ...(retryAfter !== undefined && { retryAfter })
  })
}

/** The region of a bucket, where the response is to a request in another one. */
const regionOf = ({ code, headers, status, text }: ErrorResponse): string | undefined =>
  code === "AuthorizationHeaderMalformed"
    ? xml.text(text, "Region")
    : status === 301 || status === 307 || code === "PermanentRedirect"
    ? headers["x-amz-bucket-region"]
    : undefined

const detailsOf = ({ code, requestId, status }: ErrorResponse): string =>
  ` (${code.startsWith("HTTP") ? code : `${code}, HTTP ${status}`}` +
  `${requestId === undefined ? "" : `, request ${requestId}`})`

/** For operations that a lack of space cannot affect. */
export const withoutFull = (failure: Failure): E.CommonError | E.UnsupportedOperation =>
  failure._tag === "StorageFull" ? new E.UnexpectedStorageError({ reason: failure.reason }) : failure

/** For operations that every server supports, too. */
export const onlyCommon = (failure: Failure): E.CommonError =>
  failure._tag === "StorageFull" || failure._tag === "UnsupportedOperation"
    ? new E.UnexpectedStorageError({ reason: failure.reason })
    : failure

/** The failure of what reads an object for a 404. */
export const notFound = (error: ErrorResponse, bucket: string): E.ObjectNotFound | E.CommonError =>
  error.code === "NoSuchBucket" ? onlyCommon(failureOf(error, bucket)) : new E.ObjectNotFound()

/** A response whose body has been read. */
export interface TextResponse extends Response {
  readonly text: string
}

/** What a response has where it reports success. Default: nothing in its body. */
export interface ResponseDefinition {
  /** A document with this root in its body. */
  readonly root?: string
  /** A document with this element, which has a text. */
  readonly element?: string
  /** An etag: in the header, or in the document. */
  readonly etag?: boolean
}

/** 203 is that of a proxy that has changed the response, 202 of a server that has not done what it was asked yet. */
const successes: ReadonlySet<number> = new Set([200, 201, 204, 206])

/** A response that reports success, but is not what the operation responds with, as an error. */
export const problemOf = (
  response: TextResponse,
  { element, etag = false, root }: ResponseDefinition = {}
): ErrorResponse | undefined => {
  const { headers, status, text } = response
  const unlike = (
    expected: string,
    found: string,
    code: "IncompleteResponse" | "UnknownResponse" = "UnknownResponse"
  ) =>
    ErrorResponse.unlike(
      response,
      code,
      `the response must have ${expected} (got ${found}), so it is not known whether the request was carried out; ` +
        "check endpoint, and any proxy before the server"
    )
  const isEmpty = text.trim() === ""
  if (!successes.has(status)) return unlike("the status 200", String(status))
  if (root !== undefined) {
    const found = xml.rootIs(text, root)
    if (found === "other") return unlike(`the document ${root}`, kindOf(response))
    if (found === "cut") {
      return unlike(`the document ${root}`, isEmpty ? "nothing" : "a part of it", "IncompleteResponse")
    }
  }
  if (element !== undefined && (xml.text(text, element) ?? "") === "") {
    return unlike(`the element ${element}`, isEmpty ? "nothing" : kindOf(response))
  }
  const hasBody = root !== undefined || element !== undefined
  if (!hasBody && !isEmpty) return unlike("no body", kindOf(response))
  return etag && toEtag((hasBody ? xml.text(text, "ETag") : headers["etag"]) ?? "") === ""
    ? unlike("an ETag", "none")
    : undefined
}

/** What a body is that should be another one. Its text may hold anything, and is not for a message. */
const kindOf = ({ headers, text }: TextResponse): string => {
  const encoding = headers["content-encoding"]
  if (encoding !== undefined) return `a body encoded as ${encoding}`
  if (/^\s*<(?:!doctype html|html)/i.test(text)) return "an HTML page"
  const root = /^(?:\s*<\?[^>]*\?>)?\s*<([\w:.-]{1,64})/.exec(text)?.[1]
  return root === undefined ? "a body of another kind" : `a ${root}`
}

/** Every response with or about an object has one. */
export const hasEtag = (headers: Response["headers"]): boolean => toEtag(headers["etag"] ?? "") !== ""

/** Which bytes a response with bytes has, and how many the object has, which `known` says where the response does not. */
export const extentOf = (
  { headers, status }: Response,
  known?: number
): { readonly range: ResolvedRange; readonly size: number } | undefined => {
  if (status === 200) {
    const size = parseContentLength(headers["content-length"]) ?? known
    return size === undefined ? undefined : { range: { start: 0, endExclusive: size }, size }
  }
  // Some of the last bytes of an empty object, as MinIO has it.
  if (/^bytes 0--1\/0$/.test(headers["content-range"] ?? "")) return { range: { start: 0, endExclusive: 0 }, size: 0 }
  const { range, size = known } = parseContentRange(headers["content-range"]) ?? {}
  return range === undefined || size === undefined ? undefined : { range, size }
}

/** The failure of an operation that needs the size of an object, where the response does not have it. */
export const sizeUnknown = (): E.UnexpectedStorageError =>
  new E.UnexpectedStorageError({
    reason: "no response has the size of the object; " +
      "ask the server, or the proxy before it, to send Content-Length and Content-Range"
  })

/** The metadata of an object in the headers of a response. */
export const toInfo = (
  key: string,
  headers: Response["headers"],
  size: number,
  attributes = toAttributes(headers)
): ObjectInfo => {
  const checksum = toChecksum(headers)
  return {
    key,
    size,
    lastModified: new Date(headers["last-modified"] ?? headers["date"] ?? Date.now()),
    etag: toEtag(headers["etag"] ?? ""),
    ...(checksum !== undefined && { checksum }),
    ...(attributes !== undefined && { attributes })
  }
}

const checksumHeaders = [
  ["CRC32C", "x-amz-checksum-crc32c"],
  ["CRC64NVME", "x-amz-checksum-crc64nvme"],
  ["SHA256", "x-amz-checksum-sha256"]
] as const

const toChecksum = (headers: Response["headers"]): Checksum | undefined => {
  for (const [algorithm, header] of checksumHeaders) {
    const value = headers[header]
    if (value !== undefined && isOfWhole(headers, value)) return { algorithm, value }
  }
  return undefined
}

/**
 * Whether a checksum is that of all bytes of the object. One of the checksums of its parts ends in their number, or its type
 * says so, or neither: then only the etag of an object in parts does.
 */
export const isOfWhole = (headers: Response["headers"], checksum: string): boolean => {
  const type = headers["x-amz-checksum-type"]?.toUpperCase()
  if (checksum.includes("-") || type === "COMPOSITE") return false
  return type === "FULL_OBJECT" || !isEtagOfParts(toEtag(headers["etag"] ?? ""))
}
