/**
 * Preconditions and ranges of a request (RFC 9110, sections 13 and 14): read from its headers, and checked against an object.
 */
import * as Option from "effect/Option"
import type * as ByteRange from "../../ByteRange.js"
import { type Headers, parseRange } from "../../internal/httpHeaders.js"
import { parseEtag } from "../../internal/protocol.js"
import type { LoadOptions, ObjectInfo } from "../../StorageBackend.js"
import * as E from "../../StorageError.js"

/** The etags that a header lists, or `*` for any. A malformed header lists none. */
type Etags = "*" | ReadonlyArray<string>

export interface Preconditions {
  readonly ifMatch?: Etags | undefined
  readonly ifNoneMatch?: Etags | undefined
  /** In seconds since 1970. Ignored beside `If-Match`. */
  readonly ifUnmodifiedSince?: number | undefined
  /** In seconds since 1970. Ignored beside `If-None-Match`. */
  readonly ifModifiedSince?: number | undefined
}

/** A range, and the etag of the version to which it applies: for any other, it is ignored. */
export interface ConditionalRange {
  readonly range: ByteRange.ByteRange
  readonly ifRange?: Option.Option<string> | undefined
}

export const parsePreconditions = (headers: Headers): Preconditions => {
  const ifMatch = headers["if-match"]
  const ifNoneMatch = headers["if-none-match"]
  return {
    ifMatch: parseEtags(ifMatch, "strong"),
    ifNoneMatch: parseEtags(ifNoneMatch, "weak"),
    ifUnmodifiedSince: ifMatch === undefined ? parseDate(headers["if-unmodified-since"]) : undefined,
    ifModifiedSince: ifNoneMatch === undefined ? parseDate(headers["if-modified-since"]) : undefined
  }
}

/** In a strong comparison a weak entity tag never matches. */
const parseEtags = (header: string | undefined, comparison: "strong" | "weak"): Etags | undefined => {
  if (header === undefined) return undefined
  if (header.trim() === "*") return "*"
  return [...header.matchAll(/(W\/)?("[^"]*")/g)].flatMap(([, weak, tag = ""]) =>
    weak !== undefined && comparison === "strong" ? [] : Option.toArray(parseEtag(tag))
  )
}

const parseDate = (header: string | undefined): number | undefined => {
  const milliseconds = header === undefined ? NaN : Date.parse(header)
  return Number.isNaN(milliseconds) ? undefined : toSeconds(milliseconds)
}

const toSeconds = (milliseconds: number): number => Math.floor(milliseconds / 1000)

export const parseConditionalRange = (headers: Headers): ConditionalRange | undefined => {
  const range = parseRange(headers["range"])
  const ifRange = headers["if-range"]
  // A date never matches: an object can change more than once a second.
  return range && { range, ifRange: ifRange === undefined ? undefined : parseEtag(ifRange.trim()) }
}

/** Whether the range applies to the version with this etag. */
export const appliesTo = ({ ifRange }: ConditionalRange, etag: string): boolean =>
  ifRange === undefined || Option.contains(ifRange, etag)

/** Whether the object has changed from what `If-Match` or `If-Unmodified-Since` expect. */
export const isStale = (
  { ifMatch, ifUnmodifiedSince }: Preconditions,
  { etag, lastModified }: ObjectInfo
): boolean =>
  (ifMatch !== undefined && !includes(ifMatch, etag)) ||
  (ifUnmodifiedSince !== undefined && toSeconds(lastModified.getTime()) > ifUnmodifiedSince)

const isCurrent = (
  { ifModifiedSince, ifNoneMatch }: Preconditions,
  { etag, lastModified }: ObjectInfo
): boolean =>
  (ifNoneMatch !== undefined && includes(ifNoneMatch, etag)) ||
  (ifModifiedSince !== undefined && toSeconds(lastModified.getTime()) <= ifModifiedSince)

/** The failure of the preconditions of a read, if one does not hold. */
export const check = (
  preconditions: Preconditions,
  info: ObjectInfo
): E.PreconditionFailed | E.ObjectNotModified | undefined => {
  const { key } = info
  return isStale(preconditions, info)
    ? new E.PreconditionFailed({ key })
    : isCurrent(preconditions, info)
    ? new E.ObjectNotModified({ key })
    : undefined
}

const includes = (etags: Etags, etag: string): boolean => etags === "*" || etags.includes(etag)

/** The preconditions as options of a load; `undefined` where they need the object's metadata first. */
export const toLoadOptions = (
  { ifMatch = "*", ifModifiedSince, ifNoneMatch = [], ifUnmodifiedSince }: Preconditions
): LoadOptions | undefined => {
  if (ifModifiedSince !== undefined || ifUnmodifiedSince !== undefined) return undefined
  if (ifNoneMatch === "*" || ifNoneMatch.length > 1 || (ifMatch !== "*" && ifMatch.length !== 1)) return undefined
  return { ifMatch: ifMatch === "*" ? undefined : ifMatch[0], ifNoneMatch: ifNoneMatch[0] }
}
