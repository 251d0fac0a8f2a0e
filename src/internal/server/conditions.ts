/**
 * What a request asks of an object beyond its key: the conditions and the range of RFC 9110, sections 13 and 14, read from
 * its headers and held against what the storage knows.
 */
import type * as Headers from "@effect/platform/Headers"
import * as Option from "effect/Option"
import * as ByteRange from "../../ByteRange.js"
import type { LoadOptions, ObjectInfo } from "../../StorageBackend.js"
import { fromEntityTag } from "../wire.js"

/** The etags that a header names, or `*` for any. One that nothing can be read from names none. */
type Tags = "*" | ReadonlyArray<string>

export interface Conditions {
  readonly ifMatch?: Tags
  readonly ifNoneMatch?: Tags
  /** Seconds since 1970. */
  readonly ifUnmodifiedSince?: number
  readonly ifModifiedSince?: number
}

/** A weak tag never matches where `strong` is asked for. */
const tagsOf = (header: string, strong: boolean): Tags =>
  header.trim() === "*" ?
    "*" :
    [...header.matchAll(/(W\/)?("[^"]*")/g)].flatMap(([, weak, tag = ""]) =>
      weak !== undefined && strong ? [] : Option.toArray(fromEntityTag(tag))
    )

const secondsOf = (header: string): number | undefined => {
  const milliseconds = Date.parse(header)
  return Number.isNaN(milliseconds) ? undefined : Math.floor(milliseconds / 1000)
}

/** A date counts only where there is no tag beside it. */
export const conditionsOf = (headers: Headers.Headers): Conditions => {
  const ifMatch = headers["if-match"]
  const ifNoneMatch = headers["if-none-match"]
  const ifUnmodifiedSince = ifMatch === undefined ? secondsOf(headers["if-unmodified-since"] ?? "") : undefined
  const ifModifiedSince = ifNoneMatch === undefined ? secondsOf(headers["if-modified-since"] ?? "") : undefined
  return {
    ...(ifMatch !== undefined && { ifMatch: tagsOf(ifMatch, true) }),
    ...(ifNoneMatch !== undefined && { ifNoneMatch: tagsOf(ifNoneMatch, false) }),
    ...(ifUnmodifiedSince !== undefined && { ifUnmodifiedSince }),
    ...(ifModifiedSince !== undefined && { ifModifiedSince })
  }
}

const names = (tags: Tags, etag: string): boolean => tags === "*" || tags.includes(etag)

/** What an object that is there is answered with: what was asked for, 412 or 304. */
export const outcomeOf = (conditions: Conditions, info: ObjectInfo): "met" | "failed" | "not modified" => {
  const { ifMatch, ifModifiedSince, ifNoneMatch, ifUnmodifiedSince } = conditions
  const modified = Math.floor(info.lastModified.getTime() / 1000)
  if (ifMatch !== undefined && !names(ifMatch, info.etag)) return "failed"
  if (ifUnmodifiedSince !== undefined && modified > ifUnmodifiedSince) return "failed"
  if (ifNoneMatch !== undefined && names(ifNoneMatch, info.etag)) return "not modified"
  if (ifModifiedSince !== undefined && modified <= ifModifiedSince) return "not modified"
  return "met"
}

/** The conditions as options of a load, where it can hold them by itself: at most one tag of a kind, and no dates. */
export const asLoadOptions = (conditions: Conditions): Omit<LoadOptions, "range"> | undefined => {
  const { ifMatch = "*", ifModifiedSince, ifNoneMatch, ifUnmodifiedSince } = conditions
  if (ifModifiedSince !== undefined || ifUnmodifiedSince !== undefined) return undefined
  if (ifNoneMatch === "*" || (ifNoneMatch !== undefined && ifNoneMatch.length > 1)) return undefined
  if (ifMatch !== "*" && ifMatch.length !== 1) return undefined
  const [match] = ifMatch === "*" ? [] : ifMatch
  const [noneMatch] = ifNoneMatch ?? []
  return {
    ...(match !== undefined && { ifMatch: match }),
    ...(noneMatch !== undefined && { ifNoneMatch: noneMatch })
  }
}

/**
 * The range that a request asks for, and the condition on it. `undefined` is the whole object: also for several ranges,
 * another unit or what cannot be read, which a server may ignore.
 */
export interface Range {
  readonly range: ByteRange.ByteRange
  /** The etag with which the range is wanted; with any other, all of the object. */
  readonly ifRange?: Option.Option<string>
}

export const rangeOf = (headers: Headers.Headers): Range | undefined => {
  const range = headers["range"]
  if (range === undefined) return undefined
  const [, first = "", last = ""] = /^bytes=[ \t]*(\d*)-(\d*)[ \t]*$/i.exec(range) ?? []
  const parsed = parse(first, last)
  const ifRange = headers["if-range"]
  // A date never holds: objects change more than once a second.
  return parsed && { range: parsed, ...(ifRange !== undefined && { ifRange: fromEntityTag(ifRange.trim()) }) }
}

const parse = (first: string, last: string): ByteRange.ByteRange | undefined => {
  if (first === "") return last === "" ? undefined : ByteRange.last(offset(last))
  if (last === "") return ByteRange.from(offset(first))
  return offset(last) < offset(first) ? undefined : ByteRange.make(offset(first), offset(last, 1) + 1)
}

/** What is beyond all objects may as well be at the end of what can be counted. */
const offset = (digits: string, room = 0): number => Math.min(Number(digits), Number.MAX_SAFE_INTEGER - room)
