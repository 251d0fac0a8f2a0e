/**
 * What an answer to a request of `HttpStorage` means: the object behind its headers, the failure behind its status.
 */
import * as Either from "effect/Either"
import * as Option from "effect/Option"
import type { Refinement } from "effect/Predicate"
import type { ResolvedRange } from "../../ByteRange.js"
import type { ObjectInfo } from "../../StorageBackend.js"
import * as E from "../../StorageError.js"
import * as wire from "../protocol.js"
import { relocate } from "../relocate.js"
import { toDelay } from "../retryAfter.js"
import { type Answer, type Place, type Reply, unexpected } from "./exchange.js"

type Headers = Answer["headers"]

/** How etags stand in headers. */
export interface Etags {
  /** The etag of an object, or why it has none. */
  readonly of: (headers: Headers, size: number) => Either.Either<string, string>
  /** The entity tag for a condition; none where no object can have this etag, or the server would not know it. */
  readonly toTag: (etag: string) => string | undefined
}

/** As a weight server writes them. */
export const wireEtags: Etags = {
  of: ({ etag = "" }) =>
    Either.fromOption(
      wire.parseEtag(etag),
      () =>
        "has no strong etag: either no weight server answers there (set static: true where a web server does), or a proxy " +
        "has taken it away, or this is a browser and the server must send access-control-expose-headers"
    ),
  toTag: (etag) => etag.length > 1024 || /\p{Cs}/u.test(etag) ? undefined : wire.formatEtag(etag)
}

/** As a web server writes them: a strong one without its quotes, a weak one as it is, or else the date and the size. */
export const staticEtags: Etags = {
  of: (headers, size) => {
    const tag = headers["etag"]
    const date = headers["last-modified"]
    return tag !== undefined && tag !== ""
      ? Either.right(/^"([\x21\x23-\x7e]*)"$/.exec(tag)?.[1] ?? tag)
      : date !== undefined
      ? Either.right(`${date}, ${size} bytes`)
      // Nothing tells whether two answers are of one object, so no two etags are the same.
      : Either.right(`${unknown}${Date.now()} ${Math.random()}`)
  },
  toTag: (etag) =>
    /^[\x21\x23-\x7e]*$/.test(etag) && etag.length <= 1024
      ? `"${etag}"`
      : /^W\/"[\x21\x23-\x7e]*"$/.test(etag)
      ? etag
      : undefined
}

const unknown = "unknown "

/** Whether an etag stands for a server that tells of none. */
export const isUnknown = (etag: string): boolean => etag.startsWith(unknown)

/** What an answer with bytes, or to a `HEAD`, tells of an object, and which bytes of it come; or why it tells nothing. */
export const objectOf = (
  key: string,
  { headers, status }: Pick<Answer, "status" | "headers">,
  etags: Etags
): Either.Either<{ readonly info: ObjectInfo; readonly sent: ResolvedRange }, string> =>
  Either.gen(function*() {
    const encoding = headers["content-encoding"]
    if (encoding !== undefined && encoding !== "" && encoding !== "identity") {
      return yield* Either.left(`is encoded (${encoding}), so its bytes are not those of the object`)
    }
    const { size, sent } = yield* Either.fromNullable(
      extent(headers, status),
      () =>
        status === 206
          ? "does not tell which bytes it has: it has no content-range, or this is a browser and the server must send " +
            "access-control-expose-headers"
          : "does not tell its length"
    )
    const etag = yield* etags.of(headers, size)
    const checksum = wire.parseDigest(headers[wire.checksumHeader] ?? "")
    const lastModified = new Date(headers["last-modified"] ?? headers["date"] ?? Date.now())
    return { info: { key, size, lastModified, etag, ...(checksum !== undefined && { checksum }) }, sent }
  })

const extent = (
  headers: Headers,
  status: number
): { readonly size: number; readonly sent: ResolvedRange } | undefined => {
  if (status === 206) {
    const [, start, end, size] = /^bytes (\d+)-(\d+)\/(\d+)$/.exec(headers["content-range"] ?? "") ?? []
    return start === undefined
      ? undefined
      : { size: Number(size), sent: { start: Number(start), endExclusive: Number(end) + 1 } }
  }
  const length = headers["content-length"]
  return length !== undefined && /^\d+$/.test(length)
    ? { size: Number(length), sent: { start: 0, endExclusive: Number(length) } }
    : undefined
}

/** The failure that a weight server tells, or that the status of another answer means. */
export const failureOf = (
  place: Place,
  { headers, status, text }: Reply,
  isStatic: boolean
): E.StorageError => {
  const { backend, key, operation } = place
  const told = isStatic ? Option.none() : toldIn(headers, text)
  if (Option.isSome(told)) return toldAs(place, told.value)
  const context = { backend, operation, ...(key !== undefined && { key }) }
  const said = ` (HTTP ${status})`
  const who = isStatic ? "the web server" : "the server"
  switch (status) {
    case 401:
      return new E.AccessDenied({ ...context, reason: `${who} wants a token, or another one${said}` })
    case 403:
      return new E.AccessDenied({ ...context, reason: `${who} does not allow this${said}` })
    case 404:
    case 410:
      return key === undefined
        ? new E.StorageNotFound({ ...context, reason: `${noServer}${said}` })
        : new E.ObjectNotFound({ ...context, key })
    case 304:
      return key === undefined
        ? unexpected(place, `${who} refused${said}`)
        : new E.ObjectNotModified({ ...context, key })
    case 412:
      return key === undefined
        ? unexpected(place, `${who} refused${said}`)
        : new E.PreconditionFailed({ ...context, key })
    case 413:
    case 507:
      return new E.StorageFull({ ...context, reason: `${who} has no room for this${said}` })
    case 416:
      return key === undefined
        ? unexpected(place, `${who} refused${said}`)
        : new E.InvalidRange({ ...context, key, reason: `the range holds no byte of the object${said}` })
    case 405:
    case 501:
      return new E.UnsupportedOperation({ ...context, reason: `${who} cannot do this${said}` })
    case 505:
      return unexpected(place, `${who} refused${said}`)
  }
  if (status === 408 || status === 425 || status === 429 || status >= 500) {
    const retryAfter = toDelay(headers["retry-after"])
    return new E.StorageUnavailable({
      ...context,
      reason: `${who} cannot answer now${said}`,
      ...(retryAfter !== undefined && { retryAfter })
    })
  }
  return unexpected(
    place,
    status >= 300 && status < 400
      ? `${who} sends elsewhere; set url to where it is${said}`
      : status < 300
      ? `${who} gave an answer that is not understood here${said}`
      : `${who} refused${said}`
  )
}

/** A failure of the storage behind a server, as one of this storage. */
export const toldAs = ({ backend, key, operation }: Place, error: E.StorageError): E.StorageError =>
  relocate(error, { backend, operation, ...(key !== undefined && { key }), cause: error })

export const noServer =
  "there is no weight server at this url; correct it, or set static: true where a web server serves the files"

const toldIn = (headers: Headers, text: string): Option.Option<E.StorageError> => {
  const header = headers[wire.errorHeader]
  return header === undefined
    ? wire.parseError(text)
    : Option.flatMap(Option.liftThrowable(decodeURIComponent)(header), wire.parseError)
}

/** The same failure, or an unexpected one where it is none that the operation can have. */
export const only = <Err extends E.StorageError>(
  error: E.StorageError,
  isExpected: Refinement<E.StorageError, Err>
): Err | E.UnexpectedStorageError =>
  isExpected(error) ? error : new E.UnexpectedStorageError({
    backend: error.backend,
    operation: error.operation,
    ...(error.key !== undefined && { key: error.key }),
    reason: `the server gave a failure that this cannot have: ${error.message}`,
    cause: error
  })
