/**
 * One HTTP request and its answer, on whatever `HttpClient` there is.
 *
 * Every wait on the peer ends at the idle limit, whether it reads what is sent, answers, or sends what it announced. A
 * wait on whoever reads the answer, or on the source of what is sent, does not count. An exchange that is not over when
 * its scope is closed takes its connection with it.
 */
import * as HttpBody from "@effect/platform/HttpBody"
import * as HttpClient from "@effect/platform/HttpClient"
import type { HttpClientError } from "@effect/platform/HttpClientError"
import * as HttpClientRequest from "@effect/platform/HttpClientRequest"
import type { HttpClientResponse } from "@effect/platform/HttpClientResponse"
import * as Cause from "effect/Cause"
import * as Chunk from "effect/Chunk"
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import { constTrue } from "effect/Function"
import * as Option from "effect/Option"
import * as Queue from "effect/Queue"
import * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import * as Take from "effect/Take"
import type { FailureContext } from "../../StorageBackend.js"
import * as E from "../../StorageError.js"
import { isTraced } from "../observe.js"
import { deadline, idleTimeout, raceTimeout, timeoutStream } from "../timeouts.js"

/** Who is asked, and how. */
export interface Peer {
  readonly client: HttpClient.HttpClient
  /** Without a slash at its end. */
  readonly url: string
  /** Sent to the origin of `url` and to no other. */
  readonly authorization: string | undefined
  /** In milliseconds. */
  readonly idleLimit: number
  /** Whether it knows nothing of this library: it is told nothing of traces, which a browser would have to ask it for. */
  readonly isStatic: boolean
}

/** Where a failure happens. */
export interface Place extends FailureContext {
  readonly key?: string
}

export interface Request {
  readonly method: "GET" | "HEAD" | "PUT" | "DELETE"
  /** What follows the URL of the peer. */
  readonly path: string
  readonly headers?: Readonly<Record<string, string>>
}

/** Why there is no answer, or no end of it. */
export type ExchangeError = E.StorageUnavailable | E.StorageTimeout | E.UnexpectedStorageError

/** The beginning of an answer. The names of headers are in lower case. */
interface Head {
  readonly status: number
  readonly headers: Readonly<Record<string, string>>
}

/** An answer whose body is still to come, to be read in one way or the other. */
export interface Answer extends Head {
  readonly body: Stream.Stream<Uint8Array, ExchangeError>
  /** All of it, where that is little; with its end the connection can be used again. */
  readonly whole: Effect.Effect<Uint8Array, ExchangeError> | undefined
  /** All of it as text, up to what an answer in words has at the most. */
  readonly text: Effect.Effect<string, ExchangeError>
}

/** An answer and its text. */
export interface Reply extends Head {
  readonly text: string
}

/** What is to be sent, watched while it is. */
interface Upload<Err> {
  readonly body: HttpBody.HttpBody
  /** Since when the peer has left untaken what is there for it; `undefined` while the source is waited for. */
  readonly waitingSince: () => number | undefined
  /** Ends as the source does where that fails. */
  readonly broken: Effect.Effect<never, Err>
  /** In milliseconds. */
  readonly limit: number
}

const contextOf = ({ backend, key, operation }: Place) => ({ backend, operation, ...(key !== undefined && { key }) })

export const unexpected = (place: Place, reason: string): E.UnexpectedStorageError =>
  new E.UnexpectedStorageError({ ...contextOf(place), reason })

const late = (place: Place, limit: number) => () =>
  new E.StorageTimeout({ ...contextOf(place), limit: Duration.millis(limit) })

// The error of the client has the request in it, and with it the token.
const broken = (place: Place, { cause, description }: HttpClientError) =>
  new E.StorageUnavailable({
    ...contextOf(place),
    reason: `the connection failed: ${cause === undefined ? description ?? "for no reason given" : describe(cause)}`,
    ...(cause !== undefined && { cause })
  })

const describe = (cause: unknown): string => {
  if (!(cause instanceof Error)) return String(cause)
  if (cause instanceof AggregateError && cause.message === "") return cause.errors.map(describe).join("; ")
  // `fetch` says no more than that it failed, and has the reason as the cause.
  const reason = cause.cause instanceof Error ? `: ${describe(cause.cause)}` : ""
  return (cause.message || cause.name) + reason
}

/** How many times a `GET` or `HEAD` follows where it is sent. */
const maxRedirects = 5

/** Sends a request and gives the answer, redirects followed, to be read in the scope. */
export const send = <Err = never>(
  peer: Peer,
  place: Place,
  request: Request,
  upload?: Upload<Err>
): Effect.Effect<Answer, ExchangeError | Err, Scope.Scope> => {
  const { method } = request
  const { origin } = new URL(peer.url)
  const hop = (url: URL, left: number): Effect.Effect<Answer, ExchangeError | Err, Scope.Scope> => {
    const isHome = url.origin === origin
    const http = HttpClientRequest.make(method)(url, {
      headers: {
        "accept-encoding": "identity",
        ...request.headers,
        ...(peer.authorization !== undefined && isHome && { authorization: peer.authorization })
      }
    })
    return Effect.flatMap(
      once(peer, place, upload === undefined ? http : HttpClientRequest.setBody(http, upload.body), isHome, upload),
      (answer): Effect.Effect<Answer, ExchangeError | Err, Scope.Scope> => {
        const { location } = answer.headers
        if (!isRedirect(answer.status) || location === undefined || (method !== "GET" && method !== "HEAD")) {
          return Effect.succeed(answer)
        }
        const next = resolve(location, url)
        // Where it leads may have a signature in it.
        if (next === undefined) return Effect.fail(unexpected(place, "the server sends elsewhere, but not to a URL"))
        if (url.protocol === "https:" && next.protocol !== "https:") {
          return Effect.fail(unexpected(place, `the server sends from https to ${next.origin}`))
        }
        return left === 0
          ? Effect.fail(unexpected(place, `the server sends elsewhere more than ${maxRedirects} times`))
          : Effect.zipRight(answer.text, hop(next, left - 1))
      }
    )
  }
  return hop(new URL(peer.url + request.path), maxRedirects)
}

const isRedirect = (status: number): boolean => [301, 302, 303, 307, 308].includes(status)

const resolve = (location: string, base: URL): URL | undefined => {
  if (!URL.canParse(location, base.href)) return undefined
  const url = new URL(location, base)
  return url.protocol === "http:" || url.protocol === "https:" ? url : undefined
}

const once = <Err>(
  peer: Peer,
  place: Place,
  request: HttpClientRequest.HttpClientRequest,
  isHome: boolean,
  upload?: Upload<Err>
): Effect.Effect<Answer, ExchangeError | Err, Scope.Scope> =>
  Effect.gen(function*() {
    const clock = yield* Effect.clock
    // Its end aborts the request.
    const scope = yield* Effect.acquireRelease(Scope.make(), (scope) => Scope.close(scope, Exit.void))
    const executing = Effect.mapError(
      Scope.extend(HttpClient.withScope(peer.client).execute(request), scope),
      (error) => broken(place, error)
    )
    const started = clock.unsafeCurrentTimeMillis()
    const limit = upload?.limit ?? peer.idleLimit
    const idle = idleTimeout(upload?.waitingSince ?? (() => started), limit, late(place, limit))
    const response = yield* raceTimeout(
      upload === undefined ? idle : Effect.raceFirst(idle, upload.broken),
      yield* quietly(peer, isHome, executing),
      // The connection goes first: some clients send a body that is broken off as if it were whole.
      (fiber) => Effect.zipRight(Scope.close(scope, Exit.void), Fiber.interruptFork(fiber))
    )
    const { headers, status } = response
    const body = bodyOf(peer, place, response)
    const whole = isShort(response) ? wholeOf(peer, place, response) : undefined
    return { status, headers, body, whole, text: textOf(body, whole) }
  })

/** A span costs as much as a small request, so there is none where nobody would see it, or where it would show a secret. */
const quietly = <A, Err>(peer: Peer, isHome: boolean, executing: Effect.Effect<A, Err>) =>
  Effect.map(isTraced, (isTraced) =>
    isTraced && isHome
      ? peer.isStatic ? Effect.locally(executing, HttpClient.currentTracerPropagation, false) : executing
      : Effect.locally(executing, HttpClient.currentTracerDisabledWhen, constTrue))

const bodyOf = (
  peer: Peer,
  place: Place,
  response: HttpClientResponse
): Stream.Stream<Uint8Array, ExchangeError> =>
  timeoutStream(
    response.stream.pipe(
      // `fetch` gives no body where there can be none.
      Stream.catchAll((error) => error.reason === "EmptyBody" ? Stream.empty : Stream.fail(broken(place, error))),
      // The `slice` of a `Buffer` does not copy, and these are the reader's own.
      Stream.map((bytes) => new Uint8Array(bytes.buffer, bytes.byteOffset, bytes.byteLength))
    ),
    peer.idleLimit,
    late(place, peer.idleLimit)
  )

/** What is longer is no answer that is understood here. */
const maxText = 16 * 1024 * 1024

/** What is as short as this is waited for as a whole: to look at each piece of it costs more than the request. */
const shortBody = 64 * 1024

const wholeOf = (
  peer: Peer,
  place: Place,
  response: HttpClientResponse
): Effect.Effect<Uint8Array, ExchangeError> =>
  raceTimeout(
    deadline(peer.idleLimit, late(place, peer.idleLimit)),
    Effect.mapBoth(response.arrayBuffer, {
      onFailure: (error) => broken(place, error),
      // Node's client gives a `Buffer`, maybe of memory that others share; of that, this is a copy.
      onSuccess: (buffer) => new Uint8Array(buffer)
    }),
    Fiber.interruptFork
  )

const textOf = (body: Answer["body"], whole: Answer["whole"]): Answer["text"] =>
  whole !== undefined ? Effect.map(whole, (bytes) => new TextDecoder().decode(bytes)) : Effect.suspend(() => {
    const decoder = new TextDecoder()
    return Stream.runFoldWhile(
      body,
      "",
      (text) => text.length < maxText,
      (text, bytes) => text + decoder.decode(bytes, { stream: true })
    )
  })

/** Whether little can come: nothing after a HEAD, or as much as is announced, as it is. */
const isShort = ({ headers, request }: HttpClientResponse): boolean =>
  request.method === "HEAD" ||
  (headers["content-encoding"] === undefined && /^\d+$/.test(headers["content-length"] ?? "") &&
    Number(headers["content-length"]) <= shortBody)

/** The same answer with its text. */
export const toReply = ({ headers, status, text }: Answer): Effect.Effect<Reply, ExchangeError> =>
  Effect.map(text, (text) => ({ status, headers, text }))

/** Sends a request whose answer is short. */
export const ask = <Err = never>(
  peer: Peer,
  place: Place,
  request: Request,
  upload?: Upload<Err>
): Effect.Effect<Reply, ExchangeError | Err> =>
  Effect.scoped(Effect.flatMap(send(peer, place, request, upload), toReply))

/** What is sent of a body between two looks at whether the peer still reads, in bytes. */
const pieceSize = 256 * 1024

/** A `fetch` in a browser sends no streams, or only over HTTP/2; and it tells nothing of how far it is. */
export const isBrowser = "document" in globalThis || "WorkerGlobalScope" in globalThis

/** Bytes to send, once; another time takes another upload. In a browser the idle limit is for each MiB of them. */
export const uploadOf = (peer: Peer, bytes: Uint8Array): Effect.Effect<Upload<never>, never, Scope.Scope> =>
  isBrowser || bytes.byteLength <= pieceSize
    ? Effect.map(Effect.clock, (clock) => {
      const started = clock.unsafeCurrentTimeMillis()
      return {
        body: HttpBody.uint8Array(bytes, contentType),
        waitingSince: () => started,
        broken: Effect.never,
        limit: peer.idleLimit * (1 + Math.floor(bytes.byteLength / (1024 * 1024)))
      }
    })
    : toUpload(peer, pullOf(bytes), bytes.byteLength)

/** A stream to send, which can be sent once. It is run in this scope. */
export const uploadOfStream = <Err, R>(
  peer: Peer,
  data: Stream.Stream<Uint8Array, Err, R>,
  size: number | undefined
): Effect.Effect<Upload<Err>, never, R | Scope.Scope> =>
  Effect.flatMap(
    // In a fiber of its own: a client may forget its body where the request fails.
    Stream.toQueue(data, { capacity: 1 }),
    (queue) => toUpload(peer, Effect.flatMap(Queue.take(queue), Take.done), size)
  )

type Pull<Err> = Effect.Effect<Chunk.Chunk<Uint8Array>, Option.Option<Err>>

const pullOf = (bytes: Uint8Array): Pull<never> => {
  let isGiven = false
  return Effect.suspend(() => {
    if (isGiven) return Effect.fail(Option.none())
    isGiven = true
    return Effect.succeed(Chunk.of(bytes))
  })
}

const contentType = "application/octet-stream"

const toUpload = <Err>(
  peer: Peer,
  pull: Pull<Err>,
  size: number | undefined
): Effect.Effect<Upload<Err>, never, Scope.Scope> =>
  Effect.gen(function*() {
    const clock = yield* Effect.clock
    const broken = yield* Deferred.make<never, Err>()
    const pieces = inPieces(pull)
    let since: number | undefined = clock.unsafeCurrentTimeMillis()
    let reader: Fiber.RuntimeFiber<unknown, unknown> | undefined
    const waitForSource = Effect.withFiberRuntime<Chunk.Chunk<Uint8Array>, Option.Option<Err>>((fiber) => {
      reader = fiber
      since = undefined
      return pieces
    })
    // A `fetch` that fails may leave the fiber that reads its body waiting.
    yield* Effect.addFinalizer(() => reader === undefined ? Effect.void : Fiber.interruptFork(reader))
    const waitForPeer = Effect.sync(() => {
      since = clock.unsafeCurrentTimeMillis()
    })
    const next = Effect.matchCauseEffect(waitForSource, {
      onSuccess: (piece) => Effect.as(waitForPeer, piece),
      onFailure: (cause) =>
        Option.match(Cause.flipCauseOption(cause), {
          onNone: () => Effect.zipRight(waitForPeer, Effect.fail(Option.none<never>())),
          // A client that heard of it might end the body as if it were whole.
          onSome: (cause) => Effect.zipRight(Deferred.failCause(broken, cause), Effect.never)
        })
    })
    return {
      body: HttpBody.stream(Stream.repeatEffectChunkOption(next), contentType, size),
      waitingSince: () => since,
      broken: Deferred.await(broken),
      limit: peer.idleLimit
    }
  })

const nothing = new Uint8Array(0)

/** The same bytes in pieces of a limited size. */
const inPieces = <Err>(pull: Pull<Err>): Pull<Err> => {
  let left: Array<Uint8Array> = []
  return Effect.suspend(function next(): Pull<Err> {
    const piece: Array<Uint8Array> = []
    let size = 0
    for (let bytes = left.pop(); bytes !== undefined; bytes = left.pop()) {
      const taken = bytes.subarray(0, pieceSize - size)
      if (taken.byteLength > 0) piece.push(taken)
      size += taken.byteLength
      if (taken.byteLength < bytes.byteLength) {
        left.push(bytes.subarray(taken.byteLength))
        break
      }
    }
    // Node's client waits until it may write on only between the arrays of a chunk, not after the last.
    return size > 0 ? Effect.succeed(Chunk.unsafeFromArray([...piece, nothing])) : Effect.flatMap(pull, (chunk) => {
      left = Chunk.toArray(chunk).reverse()
      return next()
    })
  })
}
