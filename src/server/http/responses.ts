/**
 * Responses that are no object: JSON, and failures with a status that fits.
 */
import * as HttpServerResponse from "@effect/platform/HttpServerResponse"
import { formatRetryAfter } from "../../internal/httpHeaders.js"
import { errorHeader, errorJson, statusOf } from "../../internal/protocol.js"
import type { StorageError } from "../../StorageError.js"

type Response = HttpServerResponse.HttpServerResponse

type Fields = Readonly<Record<string, string>>

/** How the server calls itself in its failures. The name of its storage may hold a path, host or bucket. */
export const serverName = "WeightServer"

/** On every response: a browser must not guess the type of an object. */
export const noSniff = { "x-content-type-options": "nosniff" }

export const json = (text: string, status = 200, headers: Fields = {}): Response =>
  HttpServerResponse.text(text, { status, contentType: "application/json", headers: { ...noSniff, ...headers } })

export const empty = (status: number, headers: Fields = {}): Response =>
  HttpServerResponse.empty({ status, headers: { ...noSniff, ...headers } })

/** Refuses a request that is not about an object: `HttpStorage` must not take it for a failure of the storage. */
export const refusal = (status: number, error: string, headers: Fields = {}): Response =>
  json(JSON.stringify({ error }), status, headers)

/** Some clients refuse longer headers; then the status has to do. */
const maxHeader = 6 * 1024

/** A failure of the storage, or of the server itself. */
export const failure = (
  error: StorageError,
  method: string,
  { headers = {}, status = statusOf(error) }: { readonly status?: number; readonly headers?: Fields } = {}
): Response => {
  const text = publicJson(error)
  const fields = {
    ...(error._tag === "StorageUnavailable" && error.retryAfter &&
      { "retry-after": formatRetryAfter(error.retryAfter) }),
    ...headers
  }
  if (method !== "HEAD") return status === 304 ? empty(status, fields) : json(text, status, fields)
  const encoded = encodeURIComponent(text)
  return empty(status, {
    ...fields,
    // That of a GET. Without it some clients, Node's among them, wait for the end of the connection.
    ...(status !== 304 && { "content-length": String(new TextEncoder().encode(text).byteLength) }),
    ...(encoded.length <= maxHeader && { [errorHeader]: encoded })
  })
}

/** Replaces reasons in which a storage may name a path, host or bucket. */
const publicReasons: { readonly [Tag in StorageError["_tag"]]?: string } = {
  AccessDenied: "the server is denied access to its storage",
  StorageNotFound: "the storage of the server does not exist",
  StorageUnavailable: "the storage of the server is unavailable",
  StorageFull: "the storage of the server is full",
  UnexpectedStorageError: "the storage of the server failed"
}

/** Whether the failure was made by the server itself, which has nothing to hide in it. */
const isOwn = ({ backend }: StorageError): boolean => backend === serverName

/** Whether the storage failed, and not the request: a matter of the server's operator. */
export const isFault = (error: StorageError): boolean => {
  const status = statusOf(error)
  return !isOwn(error) && (error._tag === "AccessDenied" || (status >= 500 && status !== 501))
}

/** A failure as JSON, as clients may see it. */
export const publicJson = (error: StorageError): string => {
  if (isOwn(error)) return errorJson(error)
  const reason = publicReasons[error._tag]
  return errorJson(error, reason === undefined ? { backend: serverName } : { backend: serverName, reason })
}
