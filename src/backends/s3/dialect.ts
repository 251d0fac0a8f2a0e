/**
 * The differences between S3 servers, each in one place. No server says what it is, so a workaround for one of them applies to
 * all; what its responses reveal is kept in a `Dialect`.
 */
import * as Either from "effect/Either"
import { parseAttributes } from "../../internal/httpHeaders.js"
import type { Attributes } from "../../StorageBackend.js"
import * as xml from "./xml.js"

type Headers = Readonly<Record<string, string | undefined>>

/** What is known about the server of a bucket. */
export class Dialect {
  /**
   * How far the clock of the server is ahead of ours, in milliseconds. A signature is refused where the two are further apart
   * than a quarter of an hour.
   */
  clockOffset = 0

  /** Ceph compares the `If-Match` of a save with the etag without its quotes. `undefined` until one was successful. */
  bareEtags: boolean | undefined

  /** A server that does not know checksums ignores them; only the response to the start of an upload shows that. */
  knowsChecksums = false

  /** The `If-Match` of a save. */
  ifMatch(etag: string): string {
    return this.bareEtags === true ? etag : quoted(etag)
  }

  /**
   * The response to a `HEAD` has no body that could say that the clocks differ. Whether a 403 may come from that is decided by
   * the date of the response, once.
   */
  isSkewed(status: number, text: string, offset: number): boolean {
    return status === 403 && text === "" && Math.abs(offset - this.clockOffset) > allowedSkew
  }
}

/** How far clocks may differ before a 403 is attributed to that, in milliseconds. S3 allows three times as much. */
const allowedSkew = 5 * 60_000

// Etags

/** An etag without its quotes; some servers send weak ones, or none around it. */
export const toEtag = (header: string): string => /^(?:W\/)?"(.*)"$/s.exec(header)?.[1] ?? header

/** Whether an etag is that of an object that was saved in parts, which ends in their number. */
export const isEtagOfParts = (etag: string): boolean => /-\d+$/.test(etag)

/** An etag in a header. */
export const quoted = (etag: string): string => `"${etag}"`

/** Whether an etag can be sent in a header; one that cannot is the etag of no object. */
export const isEtag = (etag: string): boolean => /^[\x21\x23-\x7e]+$/.test(etag)

/** Ceph accepts the beginning of an etag in the `If-Match` of a load, so the etag of the response is compared again. */
export const isMatch = (ifMatch: string | undefined, etag: string): boolean => ifMatch === undefined || ifMatch === etag

// Responses

/** Copies and the completion of an upload may fail after a status of 200 was sent. */
export const isError = (status: number, text: string): boolean =>
  status >= 300 || /^(?:\s*<\?xml[^>]*\?>)?\s*<Error[\s>]/.test(text)

/** A save with `If-Match` of an object that does not exist is a 404 on some servers, a 412 on others. */
export const isUnmet = (status: number, code: string): boolean =>
  status === 412 || (status === 404 && code !== "NoSuchBucket" && code !== "NoSuchUpload")

/** A key in a listing: some servers encode a space as `+`, and some nothing, which they say by not saying that they do. */
export const toListedKey = (text: string, encoding: string | undefined): string =>
  encoding !== "url" ? text : Either.getOrElse(
    Either.try(() => decodeURIComponent(text.replaceAll("+", " "))),
    // It is not UTF-8, and so not a key.
    () => ""
  )

/** The etag of a completed upload is missing from Ceph's response, in the body or in both body and headers. */
export const completedEtag = (headers: Headers, text: string): string =>
  toEtag(xml.text(text, "ETag") ?? headers["etag"] ?? "")

// Metadata

const prefix = "x-amz-meta-"

/** The name under which each save whose response may get lost is noted, to be recognised. */
export const saveId = `${prefix}surfing-weights-save`

/** Ceph turns `_` in a name of metadata into `-`, so names with one are listed here. */
const underscored = `${prefix}surfing-weights-names`

/** The metadata of an object as headers, with what restores the names. */
export const metadataHeaders = (headers: Record<string, string>): Record<string, string> => {
  const names = Object.keys(headers).filter((name) => name.startsWith(prefix) && name.includes("_"))
  return names.length === 0
    ? headers
    : { ...headers, [underscored]: names.map((name) => name.slice(prefix.length)).join(" ") }
}

/**
 * The encoding of an object, without `aws-chunked`: some servers keep in which encoding an SDK has signed an upload as if it
 * were the object's.
 */
export const encodingOf = ({ "content-encoding": encoding = "" }: Headers): string =>
  encoding.split(",").map((name) => name.trim()).filter((name) => name.toLowerCase() !== "aws-chunked").join(", ")

/** The attributes in the headers of a response, without what is there for this library. */
export const toAttributes = ({ [saveId]: _, [underscored]: names, ...headers }: Headers): Attributes | undefined => {
  const restored: Record<string, string | undefined> = headers
  for (const name of names?.split(" ") ?? []) {
    const sent = prefix + name
    const received = sent.replaceAll("_", "-")
    if (restored[sent] !== undefined || restored[received] === undefined) continue
    restored[sent] = restored[received]
    delete restored[received]
  }
  return parseAttributes({ ...restored, "content-encoding": encodingOf(headers) }, prefix)
}

/** The headers of an object that a copy in parts has to repeat; a copy in one request keeps them. */
export const keptHeaders = (headers: Headers): Record<string, string> =>
  Object.fromEntries(
    Object.entries(headers).flatMap(([name, value]) =>
      value !== undefined && (kept.has(name) || (name.startsWith(prefix) && name !== saveId)) ? [[name, value]] : []
    )
  )

const kept = new Set([
  "cache-control",
  "content-disposition",
  "content-encoding",
  "content-language",
  "content-type",
  "expires",
  "x-amz-website-redirect-location"
])

/** The prefix of metadata in headers. */
export const metadataPrefix = prefix
