/**
 * One GET or HEAD of an object: the request, and what its response means.
 */
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import type * as Scope from "effect/Scope"
import * as ByteRange from "../../ByteRange.js"
import type { HttpCall, Response } from "../../internal/httpCall.js"
import { parseContentLength } from "../../internal/httpHeaders.js"
import { checkLoad, type LoadOptions, type ObjectInfo } from "../../StorageBackend.js"
import * as E from "../../StorageError.js"
import { encodingOf, isEtag, isMatch, quoted, toEtag } from "./dialect.js"
import type { Lister } from "./lister.js"
import type { Bucket, Request } from "./request.js"
import {
  type ErrorResponse,
  extentOf,
  failureOf,
  hasEtag,
  notFound,
  onlyCommon,
  sizeUnknown,
  toInfo,
  withoutFull
} from "./responses.js"

/** An object of which bytes follow. */
export interface Opened {
  readonly headers: Response["headers"]
  readonly etag: string
  /** Of the whole object, in bytes. */
  readonly size: number
  /** Which bytes follow. */
  readonly range: ByteRange.ResolvedRange
  /** What reads them; none where there are none. */
  readonly call: HttpCall | undefined
}

/** The server did not understand the request; these options ask for the same in another way. */
class RetryWith {
  constructor(readonly options: LoadOptions) {}
}

/** Where the bytes of a response go, where that is known when the response begins. */
export interface Plan {
  readonly target: (opened: Opened) => Uint8Array | undefined
  readonly progress: (filled: number) => void
}

/** Reads objects of a bucket, one request each. The caller limits how many there are at once. */
export class Getter {
  readonly #bucket: Bucket
  readonly #lister: Lister
  /** Objects that are known to be encoded themselves. */
  readonly #encoded = new Set<string>()

  constructor(bucket: Bucket, lister: Lister) {
    this.#bucket = bucket
    this.#lister = lister
  }

  /** The response to a HEAD; `ask` is how it is sent. */
  head(
    key: string,
    ask: Ask = "ask",
    extra: Pick<Request, "query" | "headers"> = {}
  ): Effect.Effect<{ readonly info: ObjectInfo; readonly headers: Response["headers"] }, E.HeadError> {
    const headers = { ...this.#bucket.headers.access, ...extra.headers }
    return this.#bucket[ask]({ ...extra, method: "HEAD", key, headers, response: { etag: true } }).pipe(
      Effect.catchTag("ErrorResponse", (error) => Effect.fail(this.#headFailureOf(error))),
      Effect.flatMap(({ headers }) => {
        const size = parseContentLength(headers["content-length"])
        const found = (size: number) => Effect.sync(() => ({ info: toInfo(key, headers, size), headers }))
        if (size === undefined) {
          return Effect.flatMap(this.#sizeOf(key, toEtag(headers["etag"] ?? ""), ask, extra), found)
        }
        return isEncoded(headers)
          ? Effect.tap(found(size), ({ info }) => this.#checkEncoding(key, headers, info, ask))
          : found(size)
      })
    )
  }

  #headFailureOf(error: ErrorResponse): E.HeadError {
    return error.status === 404
      ? notFound(error, this.#bucket.name)
      : onlyCommon(failureOf(error, this.#bucket.name))
  }

  /** The size of an object of which a HEAD does not tell it, as some proxies remove it: by a GET of its first byte. */
  #sizeOf(
    key: string,
    etag: string,
    ask: Ask,
    { headers, query }: Pick<Request, "query" | "headers">
  ): Effect.Effect<number, E.HeadError> {
    // A range of one part of the object cannot be asked for.
    if (query !== undefined && "partNumber" in query) return Effect.fail(sizeUnknown())
    const first = this.#bucket.using({
      method: "GET",
      key,
      headers: { ...this.#bucket.headers.access, ...headers, range: "bytes=0-0" }
    }, (call) =>
      Effect.flatMap(call.send(), (response): Effect.Effect<number, E.HeadError> => {
        if (response.status >= 400 && response.status !== 416) {
          return Effect.flatMap(
            call.text(),
            (text) => Effect.fail(this.#headFailureOf(this.#bucket.errorOf(response, text)))
          )
        }
        // The body may be the object, of any size; the call is closed without it.
        const size = response.status === 416 ? 0 : isObject(response) ? extentOf(response)?.size : undefined
        return size === undefined
          ? Effect.fail(sizeUnknown())
          : response.status !== 416 && toEtag(response.headers["etag"] ?? "") !== etag
          ? Effect.fail(overwritten())
          : Effect.succeed(size)
      }))
    return ask === "ask" ? this.#bucket.limited(first) : first
  }

  /**
   * A proxy may compress what passes, although nothing here asks for that: the bytes are then not those of the object, and
   * neither is their number. Where the encoding is that of the object itself, the listing has the same size.
   */
  #checkEncoding(
    key: string,
    { "content-encoding": encoding = "" }: Response["headers"],
    { etag, size }: Pick<ObjectInfo, "etag" | "size">,
    ask: Ask
  ): Effect.Effect<void, E.CommonError> {
    const known = `${etag} ${size} ${key}`
    if (this.#encoded.has(known)) return Effect.void
    return Effect.matchEffect(this.#lister.entry(key, ask), {
      onFailure: (error) =>
        // Who may not list has to believe it.
        error._tag === "AccessDenied" || error._tag === "UnsupportedOperation" ? Effect.void : Effect.fail(error),
      onSuccess: (listed): Effect.Effect<void, E.CommonError> => {
        if (listed === undefined || (listed.etag !== etag && !etag.startsWith(listed.etag))) {
          return Effect.fail(overwritten())
        }
        if (listed.size !== size || listed.etag !== etag) {
          const reason = `the response has ${size} bytes encoded as ${encoding}, the object ${listed.size}; ` +
            "turn off the compression of the proxy before the server"
          return Effect.fail(new E.UnexpectedStorageError({ reason }))
        }
        if (this.#encoded.size >= maxEncoded) this.#encoded.clear()
        this.#encoded.add(known)
        return Effect.void
      }
    })
  }

  /** Asks for an object, or for `part` of the range that is wanted, by a call that is closed with the scope; `plan` as for `get`. */
  open(
    key: string,
    options: LoadOptions,
    part: ByteRange.ByteRange | undefined,
    plan: Plan
  ): Effect.Effect<Opened, E.LoadError, Scope.Scope> {
    return this.#unlessUnmatchable(
      key,
      options,
      Effect.flatMap(
        Effect.acquireRelease(this.#bucket.call(this.#toRequest(key, options, part)), (call) => call.close),
        (call) =>
          this.#begin(call, key, options, part, plan).pipe(
            // A failed attempt must not hold its connection for as long as the scope lives.
            Effect.onError(() => call.close),
            Effect.flatMap((outcome) =>
              outcome instanceof RetryWith
                ? this.open(key, outcome.options, partAfter(outcome, options, part), plan)
                : Effect.succeed(outcome)
            )
          )
      )
    )
  }

  /**
   * The same for `use` alone. The body for which `plan` returns an array has been read when `use` begins, as far as `progress`
   * says.
   */
  get<A>(
    key: string,
    options: LoadOptions,
    part: ByteRange.ByteRange | undefined,
    use: (opened: Opened) => Effect.Effect<A, E.LoadError>,
    plan?: Plan
  ): Effect.Effect<A, E.LoadError> {
    const once = this.#bucket.using(this.#toRequest(key, options, part), (call) =>
      Effect.flatMap(
        this.#begin(call, key, options, part, plan),
        (outcome): Effect.Effect<A | RetryWith, E.LoadError> =>
          outcome instanceof RetryWith ? Effect.succeed(outcome) : use(outcome)
      ))
    return this.#unlessUnmatchable(
      key,
      options,
      Effect.flatMap(once, (outcome) =>
        outcome instanceof RetryWith
          ? this.get(key, outcome.options, partAfter(outcome, options, part), use, plan)
          : Effect.succeed(outcome))
    )
  }

  /** An etag that cannot be sent is the etag of no object. */
  #unlessUnmatchable<A, R>(
    key: string,
    { ifMatch }: LoadOptions,
    load: Effect.Effect<A, E.LoadError, R>
  ): Effect.Effect<A, E.LoadError, R> {
    return ifMatch === undefined || isEtag(ifMatch)
      ? load
      : Effect.zipRight(this.head(key, "askNow"), Effect.fail(new E.PreconditionFailed()))
  }

  #toRequest(key: string, { ifMatch, ifNoneMatch }: LoadOptions, part: ByteRange.ByteRange | undefined): Request {
    return {
      method: "GET",
      key,
      headers: {
        ...this.#bucket.headers.access,
        ...(part !== undefined && { range: ByteRange.toHttp(part) }),
        ...(ifMatch !== undefined && { "if-match": quoted(ifMatch) }),
        ...(ifNoneMatch !== undefined && isEtag(ifNoneMatch) && { "if-none-match": quoted(ifNoneMatch) })
      }
    }
  }

  #begin(
    call: HttpCall,
    key: string,
    options: LoadOptions,
    part: ByteRange.ByteRange | undefined,
    plan?: Plan
  ): Effect.Effect<Opened | RetryWith, E.LoadError> {
    let opened: Opened | undefined
    const look = (response: Response) => {
      opened = toOpened(response, call)
      return opened && plan?.target(opened)
    }
    return Effect.flatMap(
      call.send(look, plan?.progress),
      (response): Effect.Effect<Opened | RetryWith, E.LoadError> => {
        if (opened !== undefined) return this.#checked(opened, key, options, part)
        if (response.status < 300) return this.#openUnsized(response, call, key, options, part)
        return Effect.flatMap(
          call.text(),
          (text) => this.#onError(this.#bucket.errorOf(response, text), key, options)
        )
      }
    )
  }

  #checked(
    opened: Opened,
    key: string,
    options: LoadOptions,
    part: ByteRange.ByteRange | undefined
  ): Effect.Effect<Opened, E.LoadError> {
    const checked = checkOpened(opened, options, part)
    return isEncoded(opened.headers)
      ? Effect.zipRight(this.#checkEncoding(key, opened.headers, opened, "askNow"), checked)
      : checked
  }

  /** Opens an object by a response that does not have its size: a HEAD does, if anything. The body waits meanwhile. */
  #openUnsized(
    response: Response,
    call: HttpCall,
    key: string,
    options: LoadOptions,
    part: ByteRange.ByteRange | undefined
  ): Effect.Effect<Opened, E.LoadError> {
    if (!isObject(response)) return Effect.fail(notAnObject(response))
    return Effect.flatMap(this.head(key, "askNow"), ({ info }) => {
      const opened = toOpened(response, call, info.size)
      return opened === undefined
        ? Effect.fail(sizeUnknown())
        : opened.etag !== info.etag
        ? Effect.fail(overwritten())
        : this.#checked(opened, key, options, part)
    })
  }

  #onError(error: ErrorResponse, key: string, options: LoadOptions): Effect.Effect<Opened | RetryWith, E.LoadError> {
    switch (error.status) {
      case 304:
        return this.#onNotModified(error, key, options)
      case 404:
        return Effect.fail(notFound(error, this.#bucket.name))
      case 412:
        return Effect.fail(new E.PreconditionFailed())
      case 416:
        return this.#onRangeNotSatisfiable(key, options)
      default:
        return Effect.fail(withoutFull(failureOf(error, this.#bucket.name)))
    }
  }

  /** An empty object has all of its last bytes, and so has any other; some servers do not know that. */
  #onRangeNotSatisfiable(key: string, options: LoadOptions): Effect.Effect<Opened | RetryWith, E.LoadError> {
    return Effect.flatMap(this.head(key, "askNow"), ({ headers, info: { etag, size } }) =>
      Effect.flatMap(
        checkLoad({ etag, size }, options),
        (range): Effect.Effect<Opened | RetryWith, E.StorageUnavailable> =>
          size === 0
            ? Effect.succeed({ headers, etag, size, range, call: undefined })
            : options.range?._tag === "Last"
            ? Effect.succeed(new RetryWith({ ...options, range: ByteRange.make(range.start, range.endExclusive) }))
            : Effect.fail(overwritten())
      ))
  }

  /** Ceph accepts the beginning of an etag as the etag, and does not send the whole one. */
  #onNotModified(
    { headers }: ErrorResponse,
    key: string,
    { ifNoneMatch, ...options }: LoadOptions
  ): Effect.Effect<RetryWith, E.HeadError | E.ObjectNotModified | E.PreconditionFailed> {
    return Effect.flatMap(
      headers["etag"] === undefined
        ? Effect.map(this.head(key, "askNow"), ({ info }) => info.etag)
        : Effect.succeed(toEtag(headers["etag"])),
      (etag): Effect.Effect<RetryWith, E.ObjectNotModified | E.PreconditionFailed> =>
        etag !== ifNoneMatch
          ? Effect.succeed(new RetryWith(options))
          // MinIO does not look at If-Match first.
          : Effect.fail(isMatch(options.ifMatch, etag) ? new E.ObjectNotModified() : new E.PreconditionFailed())
    )
  }
}

const partAfter = ({ options }: RetryWith, before: LoadOptions, part: ByteRange.ByteRange | undefined) =>
  options.range === before.range ? part : options.range

/** How a request for text is sent: when there is a permit for it, or now. */
type Ask = "ask" | "askNow"

/** How many encoded objects are remembered. */
const maxEncoded = 1000

const overwritten = () => new E.StorageUnavailable({ reason: "the object was overwritten between two requests" })

/** Whether a response says that its bytes are encoded. */
const isEncoded = (headers: Response["headers"]): boolean => !/^(?:identity)?$/i.test(encodingOf(headers))

/** Whether a response has bytes of an object. */
const isObject = ({ headers, status }: Response): boolean => (status === 200 || status === 206) && hasEtag(headers)

const notAnObject = ({ headers, status }: Response): E.UnexpectedStorageError =>
  new E.UnexpectedStorageError({
    reason: `the response must be that of an S3 server, with an ETag (got HTTP ${status} and ${
      hasEtag(headers) ? "an" : "no"
    } ETag); check endpoint, and any proxy before the server`
  })

const toOpened = (response: Response, call: HttpCall, size?: number): Opened | undefined => {
  const extent = isObject(response) ? extentOf(response, size) : undefined
  const { headers } = response
  return extent && { ...extent, headers, etag: toEtag(headers["etag"] ?? ""), call }
}

/** Whether the response is that of the preconditions, and has the requested bytes. Some servers ignore either. */
const checkOpened = (
  opened: Opened,
  { ifMatch, ifNoneMatch, range }: LoadOptions,
  part: ByteRange.ByteRange | undefined
): Either.Either<Opened, E.PreconditionFailed | E.ObjectNotModified | E.UnexpectedStorageError> => {
  if (!isMatch(ifMatch, opened.etag)) return Either.left(new E.PreconditionFailed())
  if (ifNoneMatch === opened.etag) return Either.left(new E.ObjectNotModified())
  const { endExclusive, start } = opened.range
  const asked = Either.getOrUndefined(ByteRange.resolve(part, opened.size))
  const isPart = asked !== undefined && asked.start === start && asked.endExclusive === endExclusive
  // Where all of it is wanted, all of it may come at once.
  const isAll = range === undefined && start === 0 && endExclusive === opened.size
  return isPart || isAll
    ? Either.right(opened)
    : Either.left(new E.UnexpectedStorageError({ reason: "the server sent other bytes than requested" }))
}
