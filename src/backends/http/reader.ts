/**
 * Reads objects with one request each. A stream that breaks resumes at the byte where it broke, under the etag of the
 * first response.
 */
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Option from "effect/Option"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import * as ByteRange from "../../ByteRange.js"
import { copyOf } from "../../internal/bytes.js"
import { isHeadError, isLoadError } from "../../internal/errors.js"
import type { HttpCall, Response } from "../../internal/httpCall.js"
import { parseContentRange } from "../../internal/httpHeaders.js"
import { openResuming, retry } from "../../internal/retry.js"
import type { RetryPolicy } from "../../RetryPolicy.js"
import {
  checkLoad,
  type LoadOptions,
  type ObjectInfo,
  opened,
  openedBytes,
  type OpenedObject,
  type StreamOptions
} from "../../StorageBackend.js"
import * as E from "../../StorageError.js"
import { ask, type Peer, readPathOf, type Reply, send, toReply } from "./request.js"
import {
  failureOf,
  type FoundObject,
  isUnknown,
  notUnderstood,
  objectOf,
  only,
  protocolEtags,
  staticEtags
} from "./responses.js"
import { hasLength, headOf, isPage, type Measured, measured } from "./webServer.js"

interface LocatedObject extends FoundObject {
  /** The requested range. */
  readonly range: ByteRange.ResolvedRange
}

/** A body of up to this size is read at once, in bytes: to stream it costs more than the request. */
export const shortBody = 64 * 1024

export class Reader {
  readonly #peer: Peer
  readonly #policy: RetryPolicy

  constructor(peer: Peer, policy: RetryPolicy) {
    this.#peer = peer
    this.#policy = policy
  }

  head(key: string): Effect.Effect<ObjectInfo, E.HeadError> {
    return retry(this.#head(key), this.#policy)
  }

  open(key: string, options: StreamOptions): Effect.Effect<OpenedObject, E.LoadError, Scope.Scope> {
    return openResuming((options) => this.#open(key, options), options, this.#policy)
  }

  #head(key: string): Effect.Effect<ObjectInfo, E.HeadError> {
    const path = readPathOf(this.#peer, key)
    const asked = ask(this.#peer, { method: "HEAD", path })
    const infoOf = (reply: Reply): Either.Either<ObjectInfo, E.HeadError> =>
      reply.status !== 200 && !(this.#peer.isStatic && reply.status === 206)
        ? Either.left(only(this.#failureOf(reply), isHeadError))
        : Either.mapBoth(objectOf(key, reply, this.#peer), { onLeft: notUnderstood, onRight: ({ info }) => info })
    return this.#peer.isStatic
      ? Effect.flatMap(
        asked,
        (reply) =>
          Effect.flatMap(
            headOf(this.#peer, path, reply),
            (response) => Effect.zipRight(this.#refusePage(key, response), infoOf({ ...response, text: reply.text }))
          )
      )
      : Effect.flatMap(asked, infoOf)
  }

  #open(key: string, options: LoadOptions): Effect.Effect<OpenedObject, E.LoadError, Scope.Scope> {
    const path = readPathOf(this.#peer, key)
    const request = { method: "GET", path, headers: this.#headers(options) } as const
    return Effect.flatMap(send(this.#peer, request), (exchange) => {
      const { call, response } = exchange
      if (response.status === 200 || response.status === 206) {
        const open = (found: Measured) => this.#opened(key, options, call, found)
        // Bun's server, and some proxies, send no length with a stream.
        const openMeasured = () => Effect.flatMap(measured(this.#peer, path, exchange), open)
        if (!this.#peer.isStatic) return hasLength(response) ? open({ response }) : openMeasured()
        return !this.#isSuffixKnown(options, response)
          ? Effect.zipRight(call.close, this.#openLast(key, options))
          : Effect.flatMap(this.#refusePage(key, response), openMeasured)
      }
      return Effect.flatMap(toReply(exchange), (reply) =>
        reply.status === 416
          ? this.#unsatisfiable(key, options, reply)
          : Effect.fail(only(this.#failureOf(reply), isLoadError)))
    })
  }

  /** Fails where a web server responds with a page in place of the object. */
  #refusePage(key: string, response: Response): Effect.Effect<void, E.CommonError | E.ObjectNotFound> {
    return Effect.flatMap(
      isPage(this.#peer, key, response),
      (isPage) => isPage ? Effect.fail(new E.ObjectNotFound()) : Effect.void
    )
  }

  /** Whether the response has the last bytes, if these were requested: some web servers know no such range. */
  #isSuffixKnown({ range }: LoadOptions, { headers, status }: Response): boolean {
    if (range?._tag !== "Last" || status !== 206) return true
    const sent = parseContentRange(headers["content-range"])
    if (sent?.size === undefined) return false
    const { endExclusive, start } = sent.range
    return endExclusive === sent.size && start === Math.max(0, sent.size - range.length)
  }

  /** Opens the last bytes by their place, which a `HEAD` tells. */
  #openLast(key: string, options: LoadOptions): Effect.Effect<OpenedObject, E.LoadError, Scope.Scope> {
    return Effect.flatMap(this.#head(key), (info) =>
      Effect.flatMap(checkLoad(info, options), (range) =>
        info.size === 0
          ? Effect.succeed(openedBytes(info, range, new Uint8Array(0)))
          : Effect.filterOrFail(
            this.#open(key, { ...options, range: ByteRange.make(range.start, range.endExclusive) }),
            (opened) => opened.info.size === info.size,
            () => new E.StorageUnavailable({ reason: "the object was replaced while its last bytes were requested" })
          )))
  }

  #headers({ ifMatch, ifNoneMatch, range }: LoadOptions): Record<string, string> {
    const etags = this.#peer.isStatic ? staticEtags : protocolEtags
    const precondition = (name: string, etag: string | undefined) => {
      const tag = etag === undefined ? undefined : etags.format(etag)
      // A weak one never matches there (RFC 9110, section 13.1.1).
      return tag === undefined || (name === "if-match" && tag.startsWith("W/")) ? {} : { [name]: tag }
    }
    return {
      ...(range !== undefined && { range: ByteRange.toHttp(range) }),
      ...precondition("if-match", ifMatch),
      ...precondition("if-none-match", ifNoneMatch)
    }
  }

  /** The object of a response, whatever the server made of the preconditions and the range. */
  #opened(
    key: string,
    options: LoadOptions,
    call: HttpCall,
    { bytes: read, response }: Measured
  ): Effect.Effect<OpenedObject, E.LoadError> {
    return Effect.flatMap(this.#locate(key, options, response), ({ info, range, sent }) => {
      const isExact = range.start === sent.start && range.endExclusive === sent.endExclusive
      const length = sent.endExclusive - sent.start
      if (read !== undefined) {
        return Effect.succeed(openedBytes(info, range, read.slice(range.start, range.endExclusive)))
      }
      if (length > shortBody) {
        const stream = call.stream()
        return Effect.succeed(opened({ info, range, stream: isExact ? stream : section(stream, range) }))
      }
      const bytes = new Uint8Array(length)
      return Effect.map(
        call.into(bytes),
        () => openedBytes(info, range, isExact ? bytes : copyOf(bytes, range.start, range.endExclusive))
      )
    })
  }

  #locate(key: string, options: LoadOptions, response: Response): Either.Either<LocatedObject, E.LoadError> {
    return Either.gen(this, function*() {
      const { info, sent } = yield* Either.mapLeft(objectOf(key, response, this.#peer), notUnderstood)
      if (options.ifMatch !== undefined && isUnknown(info.etag)) {
        const reason = "the server sends neither etag nor date, so versions of an object cannot be told apart"
        return yield* Either.left(new E.UnsupportedOperation({ reason }))
      }
      const range = yield* checkLoad(info, options)
      // A server without ranges sends the whole object.
      const isPart = response.status === 206
      if (isPart && (range.start !== sent.start || range.endExclusive !== sent.endExclusive)) {
        return yield* Either.left(notUnderstood("has other bytes than those requested"))
      }
      return { info, range, sent }
    })
  }

  /** A range that is not satisfiable: the last bytes of an empty object are all of its bytes. */
  #unsatisfiable(
    key: string,
    options: LoadOptions,
    reply: Reply
  ): Effect.Effect<OpenedObject, E.LoadError, Scope.Scope> {
    const failure = Effect.fail(only(this.#failureOf(reply), isLoadError))
    if (options.range?._tag !== "Last") return failure
    if (this.#peer.isStatic) return this.#openLast(key, options)
    return Effect.flatMap(this.#head(key), (info) =>
      Effect.flatMap(checkLoad(info, options), (range) =>
        info.size === 0
          ? Effect.succeed(openedBytes(info, range, new Uint8Array(0)))
          : failure))
  }

  #failureOf(reply: Reply): E.StorageError {
    return failureOf(reply, { about: "object", isStatic: this.#peer.isStatic })
  }
}

/** Some of the bytes of a stream. */
export const section = <Err>(
  stream: Stream.Stream<Uint8Array<ArrayBuffer>, Err>,
  { endExclusive, start }: ByteRange.ResolvedRange
): Stream.Stream<Uint8Array<ArrayBuffer>, Err> =>
  Stream.suspend(() => {
    let at = 0
    return stream.pipe(
      Stream.map((bytes) => {
        const before = at
        at += bytes.byteLength
        return {
          bytes: bytes.subarray(Math.max(0, start - before), Math.max(0, endExclusive - before)),
          isLast: at >= endExclusive
        }
      }),
      Stream.takeUntil(({ isLast }) => isLast),
      Stream.filterMap(({ bytes }) => bytes.byteLength > 0 ? Option.some(bytes) : Option.none())
    )
  })
