/**
 * One parser and one formatter for each HTTP header that more than one room reads or writes.
 */
import * as Duration from "effect/Duration"
import * as Either from "effect/Either"
import * as Encoding from "effect/Encoding"
import * as ByteRange from "../ByteRange.js"
import type { Attributes } from "../StorageBackend.js"

/** Header fields, with names in lower case. */
export type Headers = Readonly<Record<string, string | undefined>>

/**
 * `Range` (RFC 9110, section 14.2). `undefined` is the whole object: also for several ranges, another unit, or a malformed
 * header, which a server may ignore.
 */
export const parseRange = (header: string | undefined): ByteRange.ByteRange | undefined => {
  const [, first = "", last = ""] = /^bytes=[ \t]*(\d*)-(\d*)[ \t]*$/i.exec(header ?? "") ?? []
  if (first === "") return last === "" ? undefined : ByteRange.last(offset(last))
  if (last === "") return ByteRange.from(offset(first))
  return offset(last) < offset(first) ? undefined : ByteRange.make(offset(first), offset(last, 1) + 1)
}

// What is beyond every object may as well be at the end of what can be counted.
const offset = (digits: string, room = 0): number => Math.min(Number(digits), Number.MAX_SAFE_INTEGER - room)

/** `Content-Range` of a 206 (RFC 9110, section 14.4). */
export const formatContentRange = ({ endExclusive, start }: ByteRange.ResolvedRange, size: number): string =>
  `bytes ${start}-${endExclusive - 1}/${size}`

/** `Content-Range` of a 206; the size of the whole object is missing where the server does not know it. */
export const parseContentRange = (
  header: string | undefined
): { readonly range: ByteRange.ResolvedRange; readonly size: number | undefined } | undefined => {
  const [, start, last, size] = /^bytes (\d+)-(\d+)\/(\d+|\*)$/i.exec(header ?? "") ?? []
  return start === undefined
    ? undefined
    : {
      range: { start: Number(start), endExclusive: Number(last) + 1 },
      size: size === "*" ? undefined : Number(size)
    }
}

/** `Content-Length`; `undefined` where there is none, or it is malformed. */
export const parseContentLength = (header: string | undefined): number | undefined =>
  header !== undefined && /^\d+$/.test(header) && Number.isSafeInteger(Number(header)) ? Number(header) : undefined

/** `Retry-After` (RFC 9110, section 10.2.3): seconds, or a date. */
export const parseRetryAfter = (header: string | undefined): Duration.Duration | undefined => {
  if (header === undefined) return undefined
  const seconds = Number(header)
  if (Number.isFinite(seconds)) return Duration.seconds(Math.max(0, seconds))
  const date = Date.parse(header)
  return Number.isNaN(date) ? undefined : Duration.millis(Math.max(0, date - Date.now()))
}

/** `Retry-After` in whole seconds. */
export const formatRetryAfter = (delay: Duration.Duration): string => String(Math.ceil(Duration.toSeconds(delay)))

const fields = {
  contentType: "content-type",
  cacheControl: "cache-control",
  contentDisposition: "content-disposition",
  contentEncoding: "content-encoding",
  contentLanguage: "content-language"
} as const

/** Attributes as header fields; those of metadata begin with `prefix`, for instance `x-amz-meta-`. */
export const formatAttributes = (attributes: Attributes, prefix: string): Record<string, string> => {
  const headers: Record<string, string> = {}
  for (const [name, field] of Object.entries(fields)) {
    const value = attributes[name as keyof typeof fields]
    if (value !== undefined) headers[field] = value
  }
  for (const [name, value] of Object.entries(attributes.metadata ?? {})) headers[prefix + name] = encodeText(value)
  return headers
}

/** The attributes in header fields; `undefined` where there are none. */
export const parseAttributes = (headers: Headers, prefix: string): Attributes | undefined => {
  const attributes: Record<string, string> = {}
  for (const [name, field] of Object.entries(fields)) {
    const value = headers[field]
    if (value !== undefined && value !== "") attributes[name] = value
  }
  const metadata = Object.entries(headers).flatMap(([name, value]) =>
    name.startsWith(prefix) && value !== undefined ? [[name.slice(prefix.length), decodeText(value)] as const] : []
  )
  return metadata.length > 0
    ? { ...attributes, metadata: Object.fromEntries(metadata) }
    : Object.keys(attributes).length > 0
    ? attributes
    : undefined
}

const plain = /^[\x21-\x7e](?:[\x20-\x7e]*[\x21-\x7e])?$/
const encodedWord = /=\?utf-8\?(?:b\?([a-z0-9+/=]*)|q\?([^ ?]*))\?=/gi
// White space between two encoded words does not count.
const betweenWords = new RegExp(`(${encodedWord.source})[ \\t]+(?=${encodedWord.source})`, "gi")

/** Text as a field value: as it is, or as an encoded word (RFC 2047) where it is not plain ASCII. */
export const encodeText = (text: string): string =>
  plain.test(text) && text.search(encodedWord) === -1 ? text : `=?UTF-8?B?${Encoding.encodeBase64(text)}?=`

/** The text of a field value, whose encoded words (RFC 2047) are decoded. */
export const decodeText = (value: string): string =>
  value
    .replaceAll(betweenWords, "$1")
    .replaceAll(encodedWord, (whole, base64?: string, quoted?: string) =>
      Either.getOrElse(
        base64 === undefined ? decodeQuoted(quoted ?? "") : Encoding.decodeBase64String(base64),
        () => whole
      ))

const decodeQuoted = (text: string): Either.Either<string, unknown> =>
  Either.try(() => decodeURIComponent(text.replaceAll("%", "%25").replaceAll("_", " ").replaceAll("=", "%")))
