/**
 * The keys of cached responses, and what requests ask for.
 */
import * as Either from "effect/Either"
import * as ByteRange from "../../ByteRange.js"
import type { NewHash } from "../../internal/hash.js"
import * as ObjectKey from "../../ObjectKey.js"
import type * as Storage from "../../Storage.js"
import { InvalidKey } from "../../StorageError.js"

/** Where responses are cached. */
export interface Location {
  readonly storage: Storage.Service
  /** What the keys start with. */
  readonly prefix: string
  readonly newHash: NewHash
  /** Whether failures of the storage are misses. */
  readonly missOnFailure: boolean
  /** The etags of the objects, by key, whose bytes are known to be those that were put. */
  readonly verified: Map<string, string>
  /** Responses that could not be saved, by key, until they are matched. */
  readonly held: Map<string, Response>
}

export const parseRequest = (request: string | URL | Request) =>
  typeof request === "string" || request instanceof URL
    ? { url: String(request), method: "GET", range: undefined }
    : { url: request.url, method: request.method, range: parseRange(request.headers) }

/** The range of bytes that a request asks for. What HTTP lets a server ignore is ignored. */
const parseRange = (headers: Headers): ByteRange.ByteRange | undefined => {
  const [, start, end] = /^bytes=(\d*)-(\d*)$/i.exec(headers.get("range") ?? "") ?? []
  if (start === undefined || end === undefined || start + end === "" || headers.has("if-range")) return undefined
  if (start === "") return ByteRange.last(Number(end))
  if (end === "") return ByteRange.from(Number(start))
  if (Number(end) < Number(start)) return undefined
  return ByteRange.make(Number(start), Math.min(Number(end) + 1, Number.MAX_SAFE_INTEGER))
}

/** The key for a URL or a path. */
export const keyOf = ({ prefix, storage }: Location, operation: string, address: string) => {
  const fail = (key: string, reason: string) =>
    Either.left(new InvalidKey({ backend: storage.backend.name, operation, key, reason }))
  const url = /^\s*https?:/i.test(address) && URL.canParse(address) ? new URL(address) : undefined
  if (url !== undefined && url.username + url.password !== "") {
    return fail(url.host + url.pathname, "the URL contains a user name or password")
  }
  const name = url === undefined ? escapePath(address.replace(/^(?:\.\/)+/, "")) : nameOf(url)
  const key = prefix + (url === undefined ? "file:" : "") + name
  // In the key, what precedes a path would hide that its first segment is "..".
  const reason = ObjectKey.problem(key) ?? ObjectKey.problem(name.replace(/^\//, ""))
  return reason === undefined ? Either.right(key) : fail(key, reason)
}

/** The key of the record of an object, to which no request leads, since `%` becomes `%25`; `undefined` if it is too long. */
export const recordKeyOf = (key: string): string | undefined => {
  const recordKey = `${key}%sha256`
  return ObjectKey.problem(recordKey) === undefined ? recordKey : undefined
}

const nameOf = (url: URL): string => {
  url.hash = ""
  const address = url.href.replace(/^https:\/\//, "").replace(/^http:\/\//, "http:/")
  // The first question mark starts the query.
  const [path = "", ...query] = address.split("?")
  return [escapePath(path), ...query.map((part) => escapePercent(part).replaceAll("/", "%2F"))].join("?")
}

const escapePath = (path: string): string => escapePercent(path).replace(/\/(?=\/|$)/g, "%2F")

const escapePercent = (text: string): string => text.replaceAll("%", "%25")
