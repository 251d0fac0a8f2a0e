/**
 * The answers of a weight server that are no object: JSON, and failures with a status that fits.
 */
import * as HttpServerResponse from "@effect/platform/HttpServerResponse"
import { type ObjectInfo } from "../../StorageBackend.js"
import type { StorageError } from "../../StorageError.js"
import { checksumHeader, errorHeader, errorJson, retryAfterOf, statusOf, toDigest, toEntityTag } from "../wire.js"

type Fields = Readonly<Record<string, string>>

/** On every answer: a browser shall not take an object for a page or a script. */
export const always = { "x-content-type-options": "nosniff" }

export const json = (text: string, status = 200, headers: Fields = {}): HttpServerResponse.HttpServerResponse =>
  HttpServerResponse.text(text, { status, contentType: "application/json", headers: { ...always, ...headers } })

export const empty = (status: number, headers: Fields = {}): HttpServerResponse.HttpServerResponse =>
  HttpServerResponse.empty({ status, headers: { ...always, ...headers } })

/** What is wrong with a request that has not come as far as an object. It is not told as a failure of the storage. */
export const wrong = (status: number, error: string, headers: Fields = {}): HttpServerResponse.HttpServerResponse =>
  json(JSON.stringify({ error }), status, headers)

/** Larger ones some clients do not take; the status then has to do. */
const maxHeader = 6 * 1024

/** A failure of the storage, or one told as such. */
export const failure = (
  error: StorageError,
  method: string,
  { headers = {}, status = statusOf(error) }: { readonly status?: number; readonly headers?: Fields } = {}
): HttpServerResponse.HttpServerResponse => {
  const retryAfter = retryAfterOf(error)
  const all = { ...(retryAfter !== undefined && { "retry-after": String(retryAfter) }), ...headers }
  const text = errorJson(error)
  if (method !== "HEAD") return status === 304 ? empty(status, all) : json(text, status, all)
  const encoded = encodeURIComponent(text)
  return empty(status, {
    ...all,
    // As of a GET. Without it some clients, Node's among them, take the connection's end for the answer's.
    ...(status !== 304 && { "content-length": String(new TextEncoder().encode(text).byteLength) }),
    ...(encoded.length <= maxHeader && { [errorHeader]: encoded })
  })
}

export const contentTypeOf = (key: string): string =>
  key.endsWith(".json") ? "application/json" : "application/octet-stream"

/** What the headers tell of an object, whatever part of it is sent. */
export const objectHeaders = (info: ObjectInfo): Fields => ({
  ...always,
  "content-type": contentTypeOf(info.key),
  etag: toEntityTag(info.etag),
  "last-modified": info.lastModified.toUTCString(),
  "accept-ranges": "bytes",
  // Without this a cache would take an object for current by its age alone.
  "cache-control": "no-cache",
  ...(info.checksum !== undefined && { [checksumHeader]: toDigest(info.checksum) })
})

/** An object as JSON, as the schema has it. */
export const infoJson = ({ checksum, etag, key, lastModified, size }: ObjectInfo): string =>
  JSON.stringify({ key, size, lastModified, etag, ...(checksum !== undefined && { checksum }) })
