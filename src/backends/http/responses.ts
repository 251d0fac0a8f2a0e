/**
 * What responses mean: the object behind the headers, the failure behind the status.
 */
import * as Either from "effect/Either"
import * as Option from "effect/Option"
import type { Refinement } from "effect/Predicate"
import * as Schema from "effect/Schema"
import type { ResolvedRange } from "../../ByteRange.js"
import { proxyCredentials } from "../../internal/connection.js"
import { withPlace } from "../../internal/errors.js"
import type { Response } from "../../internal/httpCall.js"
import { type Headers, parseContentLength, parseContentRange, parseRetryAfter } from "../../internal/httpHeaders.js"
import * as protocol from "../../internal/protocol.js"
import type { ObjectInfo } from "../../StorageBackend.js"
import * as E from "../../StorageError.js"
import type { Reply } from "./request.js"

/** How a server writes etags in headers. */
export interface Etags {
  /** The etag of an object, or why it has none. */
  readonly parse: (headers: Headers, size: number) => Either.Either<string, string>
  /** The entity tag of a precondition; none where no object can have this etag. */
  readonly format: (etag: string) => string | undefined
}

/** Etags of a weight server. */
export const protocolEtags: Etags = {
  parse: ({ etag = "" }) =>
    Either.fromOption(
      protocol.parseEtag(etag),
      () =>
        "has no strong etag: it is not from a weight server (for a web server set static: true), a proxy has removed the " +
        "etag, or the server does not send access-control-expose-headers to this browser"
    ),
  format: (etag) => etag.length > 1024 || /\p{Cs}/u.test(etag) ? undefined : protocol.formatEtag(etag)
}

/**
 * Etags of a web server: a strong one without its quotes, a weak one as it is, one that is neither marked as that, since servers
 * do not compare it as they should; without one, the date and the size.
 */
export const staticEtags: Etags = {
  parse: ({ etag = "", "last-modified": date }, size) =>
    Either.right(
      etag !== ""
        ? /^"([\x21\x23-\x7e]*)"$/.exec(etag)?.[1] ?? (etag.startsWith("W/") ? etag : `unquoted ${etag}`)
        : date !== undefined
        ? `${date}, ${size} bytes`
        // Whether two responses are of one version is unknown, so that no two etags are equal.
        : `${unknown}${Date.now()} ${Math.random()}`
    ),
  format: (etag) =>
    /^[\x21\x23-\x7e]*$/.test(etag) && etag.length <= 1024
      ? `"${etag}"`
      : /^W\/"[\x21\x23-\x7e]*"$/.test(etag)
      ? etag
      : undefined
}

const unknown = "unknown "

/** Whether the etag is one of a server that sends neither etags nor dates. */
export const isUnknown = (etag: string): boolean => etag.startsWith(unknown)

/** An object, and which of its bytes are in the body. */
export interface FoundObject {
  readonly info: ObjectInfo
  readonly sent: ResolvedRange
}

/** The object of a response to `GET` or `HEAD`, or what is wrong with the response. */
export const objectOf = (
  key: string,
  { headers, status }: Response,
  { isStatic }: { readonly isStatic: boolean }
): Either.Either<FoundObject, string> =>
  Either.gen(function*() {
    const encoding = headers["content-encoding"] ?? ""
    if (encoding !== "" && encoding !== "identity") {
      return yield* Either.left(`is encoded (${encoding}), so that its bytes are not those of the object`)
    }
    const { range, size } = yield* status === 206 ? partOf(headers) : wholeOf(headers)
    const etag = yield* (isStatic ? staticEtags : protocolEtags).parse(headers, size)
    const lastModified = new Date(headers["last-modified"] ?? headers["date"] ?? Date.now())
    const checksum = protocol.parseDigest(headers[protocol.checksumHeader] ?? "")
    const attributes = isStatic ? protocol.parsePlainAttributes(headers) : protocol.parseResponseAttributes(headers)
    return {
      info: {
        key,
        size,
        lastModified,
        etag,
        ...(checksum !== undefined && { checksum }),
        ...(attributes !== undefined && { attributes })
      },
      sent: range
    }
  })

interface Extent {
  readonly range: ResolvedRange
  readonly size: number
}

const partOf = (headers: Headers): Either.Either<Extent, string> => {
  const { range, size } = parseContentRange(headers["content-range"]) ?? {}
  return range !== undefined && size !== undefined
    ? Either.right({ range, size })
    : Either.left(
      "does not say which bytes it has: it has no content-range with a size, or the server does not send " +
        "access-control-expose-headers to this browser"
    )
}

const wholeOf = (headers: Headers): Either.Either<Extent, string> => {
  const size = parseContentLength(headers["content-length"])
  return size === undefined
    ? Either.left("has no content-length")
    : Either.right({ range: { start: 0, endExclusive: size }, size })
}

/** A response that makes no sense; `reason` says what it is or has. */
export const notUnderstood = (reason: string): E.UnexpectedStorageError =>
  new E.UnexpectedStorageError({ reason: `the response ${reason}` })

export const noServer =
  "there is no weight server at this url; correct it, or set static: true where a web server serves the files"

const tooLarge = "the server, or a proxy before it, refuses a request body of this size; raise its limit " +
  "(client_max_body_size of nginx, LimitRequestBody of Apache), or split the object"

/** The failure of a response: the one that a weight server sent, or what the status means. */
export const failureOf = (
  { headers, status, text }: Reply,
  { about, isStatic }: { readonly about: "object" | "storage"; readonly isStatic: boolean }
): E.StorageError => {
  const sent = isStatic ? Option.none() : sentFailure(headers, text)
  if (Option.isSome(sent)) return fromServer(sent.value)
  const suffix = ` (HTTP ${status})`
  if (about === "object") {
    switch (status) {
      case 404:
      case 410:
        return new E.ObjectNotFound()
      case 304:
        return new E.ObjectNotModified()
      case 412:
        return new E.PreconditionFailed()
      case 416:
        return new E.InvalidRange({ reason: `the range is not satisfiable${suffix}` })
    }
  }
  switch (status) {
    case 401:
      return new E.AccessDenied({ reason: `the token is missing or unknown${suffix}${sentReason(headers, text)}` })
    case 407:
      return new E.AccessDenied({ reason: `the proxy requires credentials; ${proxyCredentials}${suffix}` })
    case 403:
      return new E.AccessDenied({ reason: `the server does not allow this${suffix}${sentReason(headers, text)}` })
    case 404:
    case 410:
      return new E.StorageNotFound({ reason: noServer + suffix })
    case 413:
      return new E.StorageFull({ reason: `${tooLarge}${suffix}` })
    case 507:
      return new E.StorageFull({ reason: `the server has no room for the object${suffix}` })
    case 405:
    case 501:
      return new E.UnsupportedOperation({ reason: `the server does not support this${suffix}` })
    case 408:
    case 425:
    case 429:
      return unavailable(headers, suffix)
  }
  if (status >= 500 && status !== 505) return unavailable(headers, suffix)
  const reason = status >= 300 && status < 400
    ? "the server redirects; set url to the new address"
    : "the server refused"
  return new E.UnexpectedStorageError({
    reason: (status < 300 ? "the response has an unexpected status" : reason) + suffix
  })
}

/** A failure that a weight server sent. */
export const fromServer = (error: E.StorageError): E.StorageError => withPlace(error, { cause: error })

const unavailable = (headers: Headers, suffix: string): E.StorageUnavailable =>
  new E.StorageUnavailable({
    reason: `the server is unavailable${suffix}`,
    retryAfter: parseRetryAfter(headers["retry-after"])
  })

/** What a server, a proxy or a middleware says to a refusal, where that is a line of text, or of JSON. */
const sentReason = ({ "content-type": type = "" }: Headers, text: string): string => {
  const sent = /^text\/plain\b/i.test(type)
    ? Option.some(text)
    : /^application\/(\w+\+)?json\b/i.test(type)
    ? parseReason(text)
    : Option.none()
  return sent.pipe(
    Option.map((reason) => reason.trim()),
    Option.filter((reason) => /^[^\p{C}]{1,200}$/u.test(reason)),
    Option.match({ onNone: () => "", onSome: (reason) => `: ${reason}` })
  )
}

// As servers name it; `detail` is that of RFC 9457.
const reasons = Schema.parseJson(Schema.Union(
  Schema.Struct({ detail: Schema.String }),
  Schema.Struct({ message: Schema.String }),
  Schema.Struct({ error: Schema.String })
))

const parseReason = (text: string): Option.Option<string> =>
  Option.flatMap(Schema.decodeUnknownOption(reasons)(text), (sent) => Option.fromNullable(Object.values(sent)[0]))

const sentFailure = (headers: Headers, text: string): Option.Option<E.StorageError> => {
  const header = headers[protocol.errorHeader]
  return header === undefined
    ? protocol.parseError(text)
    : Option.flatMap(Option.liftThrowable(decodeURIComponent)(header), protocol.parseError)
}

/** The same failure, or an unexpected one where the operation cannot have it. */
export const only = <Err extends E.StorageError>(
  error: E.StorageError,
  isExpected: Refinement<E.StorageError, Err>
): Err | E.UnexpectedStorageError =>
  isExpected(error)
    ? error
    : new E.UnexpectedStorageError({ reason: `the server sent an unexpected failure: ${error.message}`, cause: error })
