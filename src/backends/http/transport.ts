/**
 * Sends requests with an `HttpClient`, for `HttpCall`.
 */
import * as HttpBody from "@effect/platform/HttpBody"
import * as HttpClient from "@effect/platform/HttpClient"
import type { HttpClientError } from "@effect/platform/HttpClientError"
import * as HttpClientRequest from "@effect/platform/HttpClientRequest"
import type { HttpClientResponse } from "@effect/platform/HttpClientResponse"
import * as Cause from "effect/Cause"
import * as Chunk from "effect/Chunk"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Option from "effect/Option"
import * as Queue from "effect/Queue"
import * as Runtime from "effect/Runtime"
import * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import * as Take from "effect/Take"
import { connectionError } from "../../internal/connection.js"
import type { Receiver, Send } from "../../internal/httpCall.js"
import { parseContentLength } from "../../internal/httpHeaders.js"
import { forEachChunk } from "../../internal/pulling.js"

/** A request body, to be sent once. */
export interface Upload {
  readonly contentType: string
  /** In bytes, where it is known. */
  readonly size: number | undefined
  readonly body: Uint8Array | Pull
  /** How many bytes it had, once it was read to its end. */
  readonly total: () => number | undefined
}

type Pieces = Chunk.Chunk<Uint8Array>

/** The next bytes; `None` at the end. */
type Pull = Effect.Effect<Pieces, Option.Option<never>>

/** Whether requests are sent by a browser, whose `fetch` sends no streams and does not say how far it is. */
export const isBrowser = "document" in globalThis || "WorkerGlobalScope" in globalThis

/** An upload of bytes. It may be sent again as another upload. */
export const uploadOf = (body: Uint8Array, contentType: string): Upload => ({
  contentType,
  size: body.byteLength,
  body,
  total: () => body.byteLength
})

/** An upload of a stream, which is run in the scope. */
export const uploadOfStream = (
  data: Stream.Stream<Uint8Array>,
  size: number | undefined,
  contentType: string
): Effect.Effect<Upload, never, Scope.Scope> =>
  Effect.map(
    // In a separate fiber, since a client may never read the body of a request that fails.
    Stream.toQueue(data, { capacity: 1 }),
    (queue) => {
      const { pull, total } = counted(Effect.flatMap(Queue.take(queue), Take.done))
      return { contentType, size, body: size === undefined ? pull : completedAtEnd(pull, size), total }
    }
  )

/** The same bytes, and how many they were once they have ended. */
const counted = (pull: Pull): { readonly pull: Pull; readonly total: () => number | undefined } => {
  let size = 0
  let hasEnded = false
  return {
    pull: Effect.mapBoth(pull, {
      onSuccess: (chunk) => {
        for (const { byteLength } of chunk) size += byteLength
        return chunk
      },
      onFailure: (end) => {
        hasEnded = true
        return end
      }
    }),
    total: () => hasEnded ? size : undefined
  }
}

/**
 * The same bytes, the last of which are sent only at the end of the source: if it fails there, the peer must not have received
 * the whole body.
 */
const completedAtEnd = (pull: Pull, size: number): Pull => {
  let sent = 0
  let hasEnded = false
  const toEnd = (chunk: Pieces): Pull =>
    Effect.matchEffect(pull, {
      onFailure: () => {
        hasEnded = true
        return Effect.succeed(chunk)
      },
      onSuccess: (more) => toEnd(Chunk.appendAll(chunk, more))
    })
  const next: Pull = Effect.flatMap(pull, (chunk) => {
    for (const { byteLength } of chunk) sent += byteLength
    return sent < size ? Effect.succeed(chunk) : toEnd(chunk)
  })
  return Effect.suspend(() => hasEnded ? Effect.fail(Option.none()) : next)
}

/**
 * Sends a request. `runtime` is that of the fiber that calls, so that the client sees its context and settings.
 *
 * An upload goes in pieces, one after the other as the peer takes them. Where its source fails or is interrupted, so is the
 * call, and the connection is closed before the client could mistake that for the end of the body.
 */
export const sendWith =
  (client: HttpClient.HttpClient, runtime: Runtime.Runtime<never>) =>
  (request: HttpClientRequest.HttpClientRequest, upload?: Upload): Send =>
  (receiver) => {
    const run = Runtime.runFork(runtime)
    const gate = new Gate()
    const uploading = upload && new Uploading(upload, receiver)
    const http = uploading === undefined ? request : HttpClientRequest.setBody(request, uploading.body)
    // Closing it aborts the request.
    let scope: Scope.CloseableScope | undefined
    const calling = Effect.flatMap(Scope.make(), (made) => {
      scope = made
      return Effect.flatMap(
        Scope.extend(HttpClient.withScope(client).execute(http), made),
        (response) => receive(response, receiver, gate)
      )
    })
    const reported = Effect.matchCause(calling, {
      onSuccess: () => receiver.onEnd(),
      onFailure: (cause) => receiver.onFailure(Exit.failCause(Cause.map(cause, errorOf)))
    })
    const fiber = run(reported, { immediate: false })
    return {
      lendsBytes: false,
      pause: () => gate.close(),
      resume: () => gate.open(),
      abort: () => {
        // The connection goes first: some clients send a body that is broken off as if it were whole.
        if (scope !== undefined) run(Scope.close(scope, Exit.void))
        run(Fiber.interruptFork(fiber))
        uploading?.stop(run)
      }
    }
  }

// The error of the client has the request in it, and with that the token.
const errorOf = ({ cause, description }: HttpClientError) => connectionError(cause ?? description ?? "no reason given")

/** Reports a response and, as far as the gate is open, its body. */
const receive = (
  response: HttpClientResponse,
  receiver: Receiver,
  gate: Gate
): Effect.Effect<void, HttpClientError> => {
  receiver.onResponse({ status: response.status, headers: response.headers })
  const body = isShort(response)
    // Node's client returns a `Buffer`, maybe of memory that others share; this is a copy of that.
    ? Effect.map(response.arrayBuffer, (buffer) => receiver.onBytes(new Uint8Array(buffer)))
    : forEachChunk(response.stream, (bytes) => {
      receiver.onBytes(bytes)
      return gate.whenOpen
    })
  return Effect.zipRight(
    gate.whenOpen,
    // `fetch` has no body where there can be none.
    Effect.catchIf(body, ({ reason }) => reason === "EmptyBody", () => Effect.void)
  )
}

/** A body of up to this length is read as a whole, in bytes: to look at each piece of it costs more than the request. */
const shortBody = 64 * 1024

/** Whether the body is known to be short: none after a HEAD, or as long as is announced, as it is. */
const isShort = ({ headers, request }: HttpClientResponse): boolean =>
  request.method === "HEAD" ||
  (headers["content-encoding"] === undefined &&
    (parseContentLength(headers["content-length"]) ?? Infinity) <= shortBody)

/** What a fiber waits at. Closed at first. */
class Gate {
  #isOpen = false
  #resume = () => {}

  readonly whenOpen: Effect.Effect<void> = Effect.suspend(() =>
    this.#isOpen ? Effect.void : Effect.async((resume) => {
      this.#resume = () => resume(Effect.void)
      if (this.#isOpen) this.#resume()
    })
  )

  open(): void {
    this.#isOpen = true
    this.#resume()
  }

  close(): void {
    this.#isOpen = false
  }
}

/** What is sent of a body between two looks at whether the peer still reads, in bytes. */
const pieceSize = 256 * 1024

/** An upload in progress, which reports whether it waits for the peer or for its source. */
class Uploading {
  readonly body: HttpBody.HttpBody
  readonly #receiver: Receiver
  #reader: Fiber.RuntimeFiber<unknown, unknown> | undefined
  #isStopped = false

  constructor({ body, contentType, size }: Upload, receiver: Receiver) {
    this.#receiver = receiver
    this.body = body instanceof Uint8Array && (isBrowser || body.byteLength <= pieceSize)
      ? HttpBody.uint8Array(body, contentType)
      : HttpBody.stream(
        Stream.repeatEffectChunkOption(this.#watched(inPieces(body instanceof Uint8Array ? pullOf(body) : body))),
        contentType,
        size
      )
  }

  #watched(pull: Pull): Pull {
    const { onUpload } = this.#receiver
    const waiting = Effect.withFiberRuntime<Pieces, Option.Option<never>>((fiber) => {
      this.#reader = fiber
      onUpload("source")
      return pull
    })
    const watched = Effect.matchCauseEffect(waiting, {
      onSuccess: (pieces) => {
        onUpload("peer")
        return Effect.succeed(pieces)
      },
      onFailure: (cause) =>
        Option.match(Cause.flipCauseOption(cause), {
          onNone: () => {
            onUpload("response")
            return Effect.fail(Option.none())
          },
          // A client that heard of it might end the body as if it were whole.
          onSome: (cause) => {
            this.#receiver.onFailure(Exit.failCause(cause))
            return Effect.never
          }
        })
    })
    return Effect.suspend(() => this.#isStopped ? Effect.interrupt : watched)
  }

  /** A `fetch` that fails may leave the fiber that reads its body waiting, or begin to read it only then. */
  stop(run: (effect: Effect.Effect<void>) => unknown): void {
    this.#isStopped = true
    if (this.#reader !== undefined) run(Fiber.interruptFork(this.#reader))
  }
}

const pullOf = (bytes: Uint8Array): Pull => {
  let isTaken = false
  return Effect.suspend(() => {
    if (isTaken) return Effect.fail(Option.none())
    isTaken = true
    return Effect.succeed(Chunk.of(bytes))
  })
}

const nothing = new Uint8Array(0)

/** The same bytes in pieces of a limited size. */
const inPieces = (pull: Pull): Pull => {
  let left: Array<Uint8Array> = []
  return Effect.suspend(function next(): Pull {
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
