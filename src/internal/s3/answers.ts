/**
 * What the answers of S3 mean: the failure behind a status and an error code, the object behind the headers.
 *
 * Codes: https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html
 */
import type { Checksum, ObjectInfo } from "../../StorageBackend.js"
import * as E from "../../StorageError.js"
import { toDelay } from "../retryAfter.js"
import type { Place } from "./exchange.js"
import type { Answer } from "./transport.js"
import * as xml from "./xml.js"

/** An answer that says no. */
export interface Refusal {
  readonly status: number
  readonly code: string
  readonly message: string
  readonly requestId: string | undefined
  readonly headers: Readonly<Record<string, string>>
  readonly body: string
}

/**
 * Reads a refusal from an answer whose body is text. A `HEAD` has none, so the status has to do; where a refusal comes
 * with a status that says success, the code has to.
 */
export const toRefusal = ({ headers, status }: Answer, body: string): Refusal => ({
  status: status < 300 ? byCode.get(xml.text(body, "Code") ?? "") ?? status : status,
  code: xml.text(body, "Code") ?? byStatus[status] ?? `HTTP ${status}`,
  message: xml.text(body, "Message") ?? "",
  requestId: headers["x-amz-request-id"] ?? xml.text(body, "RequestId"),
  headers,
  body
})

const byStatus: Readonly<Record<number, string>> = {
  304: "NotModified",
  403: "AccessDenied",
  404: "NoSuchKey",
  412: "PreconditionFailed",
  416: "InvalidRange",
  429: "TooManyRequests",
  503: "SlowDown"
}

const byCode: ReadonlyMap<string, number> = new Map([
  ["AccessDenied", 403],
  ["NoSuchKey", 404],
  ["NoSuchUpload", 404],
  ["NoSuchBucket", 404],
  ["PreconditionFailed", 412]
])

/** Codes that mean the same on every operation, whatever status they come with. */
const passing: ReadonlySet<string> = new Set([
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

const credentials: ReadonlyMap<string, string> = new Map([
  ["InvalidAccessKeyId", "the server does not know this access key id; correct the credentials"],
  ["SignatureDoesNotMatch", "the secret access key does not belong to the access key id; correct the credentials"],
  ["ExpiredToken", "the credentials have expired; get new ones"],
  ["TokenRefreshRequired", "the credentials have expired; get new ones"],
  ["InvalidToken", "the session token is not valid; correct the credentials"],
  ["AccountProblem", "there is a problem with the account of these credentials"],
  ["InvalidPayer", "the account of these credentials cannot pay"],
  ["AllAccessDisabled", "all access to this has been disabled"]
])

/** What is said where credentials are right and not enough. */
export const mayNot = "these credentials may not do this"

/** The failure behind a refusal, as far as it does not depend on what was asked. */
export const toFailure = (place: Place, refusal: Refusal): E.CommonError | E.StorageFull | E.UnsupportedOperation => {
  const { backend, bucket, key, operation } = place
  const context = { backend, operation, ...(key !== undefined && { key }) }
  const { code, headers, message, status } = refusal
  const said = saying(refusal)
  const region = regionOf(refusal)

  if (passing.has(code) || status === 408 || status === 429 || (status >= 500 && status !== 501 && status !== 507)) {
    const retryAfter = toDelay(headers["retry-after"])
    return new E.StorageUnavailable({
      ...context,
      reason: code === "RequestTimeTooSkewed"
        ? `the clocks of this machine and of the server are too far apart${said}`
        : `the server cannot answer now${said}`,
      ...(retryAfter !== undefined && { retryAfter })
    })
  }
  if (code === "NoSuchBucket") {
    return new E.StorageNotFound({
      ...context,
      reason: `there is no bucket ${JSON.stringify(bucket)} there; create it, or correct bucket or endpoint${said}`
    })
  }
  if (region !== undefined || code === "PermanentRedirect" || code === "IllegalLocationConstraintException") {
    return new E.StorageNotFound({
      ...context,
      reason: `the bucket ${JSON.stringify(bucket)} is not in this region; ` +
        (region === undefined ? `set the region in which it is${said}` : `set region: ${JSON.stringify(region)}${said}`)
    })
  }
  const wrong = credentials.get(code)
  if (wrong !== undefined) return new E.AccessDenied({ ...context, reason: `${wrong}${said}` })
  if (status === 401 || (status === 403 && code !== "InvalidObjectState" && code !== "QuotaExceeded")) {
    return new E.AccessDenied({
      ...context,
      reason: `${mayNot}; allow it in the policy of the user or of the bucket${said}`
    })
  }
  if (code === "EntityTooLarge" || code === "QuotaExceeded" || code === "StorageFull" || status === 507) {
    return new E.StorageFull({
      ...context,
      reason: code === "EntityTooLarge"
        ? `the object is larger than the server takes${said}`
        : `there is no room${said}`
    })
  }
  if (code === "InvalidObjectState") {
    return new E.UnsupportedOperation({
      ...context,
      reason: `the object is archived; restore it, then load it${said}`
    })
  }
  if (status === 501) {
    return new E.UnsupportedOperation({ ...context, reason: `the server cannot do this${said}` })
  }
  return new E.UnexpectedStorageError({
    ...context,
    reason: message === "" ? `the server refused${said}` : `the server refused: ${message}${said}`
  })
}

/** The region in which a bucket is, where a refusal is for asking in another. */
const regionOf = ({ body, code, headers, status }: Refusal): string | undefined =>
  code === "AuthorizationHeaderMalformed"
    ? xml.text(body, "Region")
    : status === 301 || status === 307 || code === "PermanentRedirect"
    ? headers["x-amz-bucket-region"]
    : undefined

const saying = ({ code, requestId, status }: Refusal): string =>
  ` (${code.startsWith("HTTP") ? code : `${code}, HTTP ${status}`}` +
  `${requestId === undefined ? "" : `, request ${requestId}`})`

/** What the headers of an answer tell of an object. */
export const toInfo = (key: string, headers: Answer["headers"], size: number): ObjectInfo => {
  const checksum = toChecksum(headers)
  return {
    key,
    size,
    lastModified: new Date(headers["last-modified"] ?? headers["date"] ?? Date.now()),
    etag: toEtag(headers["etag"] ?? ""),
    ...(checksum !== undefined && { checksum })
  }
}

const checksumHeaders = [
  ["CRC32C", "x-amz-checksum-crc32c"],
  ["CRC64NVME", "x-amz-checksum-crc64nvme"],
  ["SHA256", "x-amz-checksum-sha256"]
] as const

const toChecksum = (headers: Answer["headers"]): Checksum | undefined => {
  for (const [algorithm, header] of checksumHeaders) {
    const value = headers[header]
    // One of the checksums of parts ends in their number, and is not that of the bytes.
    if (value !== undefined && !value.includes("-")) return { algorithm, value }
  }
  return undefined
}

/** An etag without its quotes. */
export const toEtag = (etag: string): string => /^(?:W\/)?"(.*)"$/s.exec(etag)?.[1] ?? etag

/** Whether a string can stand in a header as an etag; one that cannot is the etag of no object. */
export const isEtag = (etag: string): boolean => /^[\x21\x23-\x7e]+$/.test(etag)
