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
import { isEtag, isMatch, quoted, toEtag } from "./dialect.js"
import type { Bucket, Request } from "./request.js"
import {
  type ErrorResponse,
  extentOf,
  failureOf,
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

  constructor(bucket: Bucket) {
    this.#bucket = bucket
  }

  /** The response to a HEAD; `ask` is how it is sent. */
  head(
    key: string,
    ask: "ask" | "askNow" = "ask",
    extra: Pick<Request, "query" | "headers"> = {}
  ): Effect.Effect<{ readonly info: ObjectInfo; readonly headers: Response["headers"] }, E.HeadError> {
    const headers = { ...this.#bucket.headers.access, ...extra.headers }
    return this.#bucket[ask]({ ...extra, method: "HEAD", key, headers }).pipe(
      Effect.catchTag("ErrorResponse", (error) =>
        Effect.fail(
          error.status === 404
            ? notFound(error, this.#bucket.name)
            : onlyCommon(failureOf(error, this.#bucket.name))
        )),
      Effect.flatMap(({ headers }): Effect.Effect<{ info: ObjectInfo; headers: Response["headers"] }, E.HeadError> => {
        const size = parseContentLength(headers["content-length"])
        return size === undefined
          ? Effect.fail(sizeUnknown())
          : Effect.sync(() => ({ info: toInfo(key, headers, size), headers }))
      })
    )
  }

  /** Asks for an object, or for `part` of the range that is wanted, by a call that is closed with the scope. */
  open(key: string, options: LoadOptions, part = options.range): Effect.Effect<Opened, E.LoadError, Scope.Scope> {
    return this.#unlessUnmatchable(
      key,
      options,
      Effect.flatMap(
        Effect.acquireRelease(this.#bucket.call(this.#toRequest(key, options, part)), (call) => call.close),
        (call) =>
          this.#begin(call, key, options, part).pipe(
            // A failed attempt must not hold its connection for as long as the scope lives.
            Effect.onError(() => call.close),
            Effect.flatMap((outcome) =>
              outcome instanceof RetryWith
                ? this.open(key, outcome.options, partAfter(outcome, options, part))
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
        if (opened !== undefined) return checkOpened(opened, options, part)
        // Its body may be the object, of any size.
        if (response.status < 300) return Effect.fail(sizeUnknown())
        return Effect.flatMap(
          call.text(),
          (text) => this.#onError(this.#bucket.errorOf(response, text), key, options)
        )
      }
    )
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
            : Effect.fail(new E.StorageUnavailable({ reason: "the object was overwritten between two requests" }))
      ))
  }

  /** Ceph accepts the beginning of an etag as the etag, and does not send the whole one. */
  #onNotModified(
    { headers }: ErrorResponse,
    key: string,
    { ifNoneMatch, ...options }: LoadOptions
  ): Effect.Effect<RetryWith, E.HeadError | E.ObjectNotModified> {
    return Effect.flatMap(
      headers["etag"] === undefined
        ? Effect.map(this.head(key, "askNow"), ({ info }) => info.etag)
        : Effect.succeed(toEtag(headers["etag"])),
      (etag) => etag === ifNoneMatch ? Effect.fail(new E.ObjectNotModified()) : Effect.succeed(new RetryWith(options))
    )
  }
}

const partAfter = ({ options }: RetryWith, before: LoadOptions, part: ByteRange.ByteRange | undefined) =>
  options.range === before.range ? part : options.range

const toOpened = (response: Response, call: HttpCall): Opened | undefined => {
  const extent = response.status === 200 || response.status === 206 ? extentOf(response) : undefined
  const { headers } = response
  return extent && { ...extent, headers, etag: toEtag(headers["etag"] ?? ""), call }
}

/** Whether the response has the requested bytes. */
const checkOpened = (
  opened: Opened,
  { ifMatch }: LoadOptions,
  part: ByteRange.ByteRange | undefined
): Either.Either<Opened, E.PreconditionFailed | E.UnexpectedStorageError> => {
  if (!isMatch(ifMatch, opened.etag)) return Either.left(new E.PreconditionFailed())
  const { endExclusive, start } = opened.range
  const asked = Either.getOrUndefined(ByteRange.resolve(part, opened.size))
  const isPart = asked !== undefined && asked.start === start && asked.endExclusive === endExclusive
  return isPart
    ? Either.right(opened)
    : Either.left(new E.UnexpectedStorageError({ reason: "the server sent other bytes than requested" }))
}
