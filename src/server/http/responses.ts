/**
 * Responses that are no object: JSON, and failures with a status that fits.
 */
import * as HttpServerResponse from "@effect/platform/HttpServerResponse"
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import { formatRetryAfter } from "../../internal/httpHeaders.js"
import { errorHeader, errorJson, statusOf } from "../../internal/protocol.js"
import type { StorageError } from "../../StorageError.js"
import type { Request, Server } from "./server.js"

type Response = HttpServerResponse.HttpServerResponse

type Fields = Readonly<Record<string, string>>

/** Marks failures that the server made itself. Clients see its public name instead. */
export const serverName = "WeightServer"

/** On every response: a browser must not guess the type of an object. */
export const noSniff = { "x-content-type-options": "nosniff" }

export const json = (text: string, status = 200, headers: Fields = {}): Response =>
  HttpServerResponse.text(text, { status, contentType: "application/json", headers: { ...noSniff, ...headers } })

export const empty = (status: number, headers: Fields = {}): Response =>
  HttpServerResponse.empty({ status, headers: { ...noSniff, ...headers } })

/** Refuses a request that is not about an object: `HttpStorage` must not take it for a failure of the storage. */
export const refusal = (status: number, error: string, headers: Fields = {}): Response =>
  json(refusalJson(error), status, headers)

export const refusalJson = (error: string): string => JSON.stringify({ error })

/** Some clients refuse longer headers; then the status has to do. */
const maxHeader = 6 * 1024

/** A failure of the storage, or of the server itself. */
export const failure = (
  server: Server,
  error: StorageError,
  method: string,
  { headers = {}, status = statusOf(error) }: { readonly status?: number; readonly headers?: Fields } = {}
): Response => {
  const text = publicJson(server, error)
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

/** Whether the failure was made by the server itself, which has nothing to hide in it. */
const isOwn = ({ backend }: StorageError): boolean => backend === serverName

/** Whether the storage failed, and not the request: a matter of the server's operator. */
const isFault = (error: StorageError): boolean => {
  const status = statusOf(error)
  return !isOwn(error) && (error._tag === "AccessDenied" || (status >= 500 && status !== 501))
}

/** Reasons about the server's storage, which clients see instead of those that may name a path, host or bucket. */
const storageReasons: { readonly [Tag in StorageError["_tag"]]?: string } = {
  AccessDenied: "the server is denied access to its storage",
  StorageNotFound: "the storage of the server does not exist",
  StorageUnavailable: "the storage of the server is unavailable",
  StorageFull: "the storage of the server is full",
  UnexpectedStorageError: "the storage of the server failed"
}

/** Reasons about the request, which clients see unless they reveal something of the storage. */
const requestReasons: { readonly [Tag in StorageError["_tag"]]?: string } = {
  InvalidKey: "the storage of the server cannot hold this key",
  InvalidRange: "the range is not satisfiable",
  CorruptObject: "the bytes are damaged",
  UnsupportedOperation: "the storage of the server does not support this"
}

/** A failure as JSON, as clients may see it: under the public name of the server. */
export const publicJson = ({ settings: { name }, storage }: Server, error: StorageError): string => {
  if (isOwn(error)) return errorJson(error, { backend: name })
  const reason = storageReasons[error._tag] ??
    ("reason" in error && isRevealing(error.reason, storage.backend.name) ? requestReasons[error._tag] : undefined)
  return errorJson(error, reason === undefined ? { backend: name } : { backend: name, reason })
}

/** Whether a text holds an absolute path, a URL, or a part of the name of the storage, such as its bucket. */
const isRevealing = (text: string, storageName: string): boolean =>
  /(^|[\s"'`(=])(\/|\\\\|[a-z]:[\\/])|:\/\//i.test(text) ||
  storageName.split(/[(),\s]+/).some((part) => part.length > 2 && text.includes(part))

/**
 * Logs a failure for the operator: one of the storage with all that clients do not see of it, and as a warning what the server
 * refuses for another reason than the request.
 */
export const logFailure = ({ method, url }: Request, error: StorageError): Effect.Effect<void> => {
  const status = statusOf(error)
  const text = `${method} ${JSON.stringify(url)} failed: ${error.message}`
  if (!isFault(error)) return status >= 500 ? annotate(Effect.logWarning(text), error) : Effect.void
  return annotate(Effect.logError(text, ...causeOf(error)), error)
}

/** The cause of a failure, if there is one, as an argument of a log. */
export const causeOf = ({ cause }: StorageError): ReadonlyArray<Cause.Cause<unknown>> =>
  cause === undefined ? [] : [Cause.fail(cause)]

const annotate = (log: Effect.Effect<void>, error: StorageError): Effect.Effect<void> =>
  Effect.annotateLogs(log, { failure: error._tag, "http.status": statusOf(error) })
