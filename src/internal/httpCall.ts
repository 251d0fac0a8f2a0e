/**
 * One HTTP request and its response, over whatever transport sends it: connections of the S3 storage, the request handler of
 * an S3 client, an `HttpClient`. Signing, redirects and what a response means are left to the storage.
 *
 * Every wait for the peer ends at the idle timeout: while it takes the request body, until it responds, and while its body is
 * read. Time in which the source of the request body or the reader of the response body is waited for does not count.
 */
import * as Chunk from "effect/Chunk"
import type * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Option from "effect/Option"
import * as Stream from "effect/Stream"
import * as E from "../StorageError.js"
import { beforeResponse, connectionError } from "./connection.js"
import type { Headers } from "./httpHeaders.js"
import { once } from "./once.js"
import { IdleTimer } from "./timeouts.js"

/** A response, without its body. */
export interface Response {
  readonly status: number
  readonly headers: Headers
}

/** Why a call ends without a result. An exit, as a source that fails interrupts the call. */
export type Failure = Exit.Exit<never, E.CommonError>

/** What a transport reports. */
export interface Receiver {
  /** What the call waits for from now on, where the request body is sent piece by piece: at its end the response. */
  readonly onUpload: (waitingFor: "peer" | "source" | "response") => void
  /** The body is held back until the flow is resumed. */
  readonly onResponse: (response: Response) => void
  readonly onBytes: (bytes: Uint8Array) => void
  readonly onEnd: () => void
  readonly onFailure: (failure: Failure) => void
}

/** A request under way. */
export interface Flow {
  /** Whether the array that `onBytes` receives is written again as soon as that returns. */
  readonly lendsBytes: boolean
  /** Holds back the response body, so that the peer waits. */
  readonly pause: () => void
  readonly resume: () => void
  /** Ends the request, and the connection with it. The receiver may be called, or not. */
  readonly abort: () => void
}

/** Sends a request. Before this returns, the receiver is called only with a failure to send the request. */
export type Send = (receiver: Receiver) => Flow

export interface Options {
  /** In milliseconds. */
  readonly idleTimeout: number
  readonly peer?: Peer
}

/** The server, as far as calls know it. */
export interface Peer {
  /** Whether there was a response from it. */
  hasResponded: boolean
}

export const connectionFailed = (cause: unknown): Failure => Exit.fail(connectionError(cause))

/** The failure of a wait that took `limit` milliseconds. */
export const timedOut = (limit: number): E.StorageTimeout => new E.StorageTimeout({ limit: Duration.millis(limit) })

/** No text that this library reads is longer, in bytes. */
const maxText = 16 * 1024 * 1024

/** How much of a response body is read ahead of its reader, in bytes. */
const readAhead = 1024 * 1024

/** The size of each of the two arrays of a reused body, in bytes: two reads of a socket. */
const reusedSize = 256 * 1024

/** A call, closed when `use` ends. */
export const call = <A, Err, R>(
  send: Send,
  options: Options,
  use: (call: HttpCall) => Effect.Effect<A, Err, R>
): Effect.Effect<A, Err, R> => Effect.acquireUseRelease(make(send, options), use, (call) => call.close)

/** A call that the caller has to close. */
export const make = (send: Send, options: Options): Effect.Effect<HttpCall> =>
  Effect.clockWith((clock) => Effect.sync(() => new HttpCall(send, options, clock)))

/** The reader of a response body. */
type Reader = Pick<Receiver, "onBytes" | "onEnd" | "onFailure">

/** Run `send` first, and once; then read the body in one way, or not at all. */
export class HttpCall {
  readonly #send: Send
  readonly #idleTimeout: number
  readonly #peer: Peer | undefined
  readonly #clock: Clock.Clock
  #timer: IdleTimer | undefined
  #flow: Flow | undefined
  #reader: Reader | undefined
  #failure: Failure | undefined
  #isSent = true
  #hasEnded = false
  #isClosed = false

  constructor(send: Send, { idleTimeout, peer }: Options, clock: Clock.Clock) {
    this.#send = send
    this.#idleTimeout = idleTimeout
    this.#peer = peer
    this.#clock = clock
  }

  /**
   * Sends the request and returns the response, without its body.
   *
   * Where `plan` returns an array, the body is read into it first: one wait instead of two, which is much of the time of a
   * small object. If the body breaks, this succeeds all the same and `failure` says why; `progress` was called with the
   * number of bytes that have arrived.
   */
  send(
    plan?: (response: Response) => Uint8Array | undefined,
    progress: (filled: number) => void = () => {}
  ): Effect.Effect<Response, E.CommonError> {
    return once((resume) => {
      let hasResponded = false
      this.#timer = new IdleTimer(
        this.#clock,
        this.#idleTimeout,
        () => receiver.onFailure(Exit.fail(timedOut(this.#idleTimeout)))
      )
      const receiver: Receiver = {
        onUpload: (waitingFor) => {
          this.#isSent = waitingFor === "response"
          if (hasResponded) return
          if (waitingFor === "source") this.#timer?.pause()
          else this.#timer?.restart()
        },
        onResponse: (response) => {
          hasResponded = true
          if (this.#peer !== undefined) this.#peer.hasResponded = true
          this.#timer?.pause()
          const target = plan?.(response)
          if (target === undefined) resume(Effect.succeed(response))
          else this.#fill(target, progress, () => resume(Effect.succeed(response)))
        },
        onBytes: (bytes) => this.#reader?.onBytes(bytes),
        onEnd: () => {
          this.#hasEnded = true
          this.#reader?.onEnd()
        },
        onFailure: (failure) => {
          // A connection is closed once the body is there, or because the call was.
          if (this.#hasEnded || this.#isClosed) return
          this.#fail(failure)
          if (!hasResponded) {
            resume(Exit.mapError(failure, (error) => beforeResponse(error, this.#peer?.hasResponded === false)))
          }
        }
      }
      this.#flow = this.#send(receiver)
      // It may have failed before there was anything to abort.
      if (this.#isClosed) this.#flow.abort()
    })
  }

  /** Why the body broke, if it did. */
  get failure(): Failure | undefined {
    return this.#failure
  }

  /**
   * Reads the body into `target`, from its start, and fails unless it fills it. `progress` is called with the number of bytes
   * that have arrived.
   */
  into(
    target: Uint8Array,
    progress: (filled: number) => void = () => {}
  ): Effect.Effect<void, E.CommonError | E.CorruptObject> {
    return once((resume) => this.#fill(target, progress, resume))
  }

  #fill(
    target: Uint8Array,
    progress: (filled: number) => void,
    done: (outcome: Exit.Exit<void, E.CommonError | E.CorruptObject>) => void
  ): void {
    let filled = 0
    this.#readAll(
      (bytes) => {
        if (filled + bytes.byteLength > target.byteLength) {
          return connectionFailed(`the body is longer than the ${target.byteLength} bytes announced`)
        }
        target.set(bytes, filled)
        filled += bytes.byteLength
        progress(filled)
        return undefined
      },
      (outcome) => done(Exit.isSuccess(outcome) && filled < target.byteLength ? truncated(filled, target) : outcome)
    )
  }

  /** The body as text. Fails where that is longer than `limit` bytes. */
  text(limit = maxText): Effect.Effect<string, E.CommonError> {
    return Effect.async((resume) => {
      const decoder = new TextDecoder()
      let text = ""
      let size = 0
      this.#readAll(
        (bytes) => {
          size += bytes.byteLength
          if (size > limit) return tooLong(limit)
          text += decoder.decode(bytes, { stream: true })
          return undefined
        },
        (outcome) => resume(Exit.map(outcome, () => text + decoder.decode()))
      )
    })
  }

  /** Reads the body to its end, as fast as it arrives; `accept` may return what is wrong with it. */
  #readAll(
    accept: (bytes: Uint8Array) => Failure | undefined,
    done: (outcome: Exit.Exit<void, E.CommonError>) => void
  ): void {
    const settle = (outcome: Exit.Exit<void, E.CommonError>) => {
      // A connection refers to its last call until the next one, and thereby to the reader.
      this.#reader = undefined
      done(outcome)
    }
    this.#timer?.restart()
    this.#read({
      onBytes: (bytes) => {
        this.#timer?.restart()
        const failure = accept(bytes)
        if (failure !== undefined) this.#fail(failure)
      },
      onEnd: () => settle(Exit.void),
      onFailure: settle
    })
  }

  /**
   * The body in chunks, each an array of the reader's own. At most `ahead` bytes are read ahead of the reader; then the peer
   * waits.
   */
  stream(ahead = readAhead): Stream.Stream<Uint8Array<ArrayBuffer>, E.CommonError> {
    return this.#stream(() => new Copies(ahead, this.#flow?.lendsBytes ?? true))
  }

  /**
   * The same in one array or two that are written again for each chunk, where the transport does so itself. `isFree` is
   * called before each read: whether the previous chunk may be overwritten.
   */
  get reuse(): ((isFree: () => boolean) => Stream.Stream<Uint8Array<ArrayBuffer>, E.CommonError>) | undefined {
    return this.#flow?.lendsBytes === true ? (isFree) => this.#stream(() => new ReusedArrays(isFree)) : undefined
  }

  #stream(makeInbox: () => Inbox): Stream.Stream<Uint8Array<ArrayBuffer>, E.CommonError> {
    return Stream.suspend(() => Stream.repeatEffectChunkOption(this.#pulls(makeInbox())))
  }

  /** Begins to read the body, and returns what waits for the next bytes and takes them. */
  #pulls(inbox: Inbox): Effect.Effect<Chunk.Chunk<Uint8Array<ArrayBuffer>>, Option.Option<E.CommonError>> {
    type Next = Effect.Effect<Chunk.Chunk<Uint8Array<ArrayBuffer>>, Option.Option<E.CommonError>>
    let end: Next | undefined
    let isPaused = false
    let wake = () => {}

    const ended = (outcome: Next) => {
      end = outcome
      wake()
    }
    this.#read({
      onBytes: (bytes) => {
        inbox.put(bytes)
        if (inbox.isFull) {
          isPaused = true
          this.#flow?.pause()
        }
        wake()
      },
      onEnd: () => ended(Effect.fail(Option.none())),
      onFailure: (failure) => ended(Effect.mapError(failure, Option.some))
    })

    const next = (): Next | undefined => {
      if (inbox.isEmpty) return end
      const chunk = inbox.take()
      if (isPaused) {
        isPaused = false
        this.#flow?.resume()
      }
      return Effect.succeed(chunk)
    }
    const wait: Next = Effect.async((resume) => {
      // The fiber may have made way for others since it looked.
      const arrived = next()
      if (arrived !== undefined) return resume(arrived)
      this.#timer?.restart()
      wake = () => {
        this.#timer?.pause()
        wake = () => {}
        resume(next() ?? Effect.fail(Option.none()))
      }
    })
    return Effect.suspend(() => next() ?? wait)
  }

  #read(reader: Reader): void {
    this.#reader = reader
    if (this.#failure !== undefined) reader.onFailure(this.#failure)
    else if (this.#hasEnded) reader.onEnd()
    else this.#flow?.resume()
  }

  #fail(failure: Failure): void {
    this.#failure = failure
    this.#abort()
    this.#reader?.onFailure(failure)
  }

  /** Ends the call, and its connection with it unless both bodies have ended. */
  readonly close: Effect.Effect<void> = Effect.sync(() => {
    if (this.#hasEnded && this.#isSent) this.#timer?.stop()
    else this.#abort()
  })

  #abort(): void {
    this.#isClosed = true
    this.#timer?.stop()
    this.#flow?.abort()
  }
}

const truncated = (filled: number, target: Uint8Array) =>
  Exit.fail(
    new E.CorruptObject({
      problem: "truncated",
      reason: `the body ended after ${filled} of ${target.byteLength} bytes`
    })
  )

const tooLong = (limit: number): Failure =>
  Exit.fail(
    new E.UnexpectedStorageError({
      reason: `the response is longer than ${limit} bytes; check that the URL is that of a storage server`
    })
  )

/** Bytes that have arrived and were not taken yet. */
interface Inbox {
  readonly isEmpty: boolean
  readonly isFull: boolean
  readonly put: (bytes: Uint8Array) => void
  readonly take: () => Chunk.Chunk<Uint8Array<ArrayBuffer>>
}

class Copies implements Inbox {
  readonly #limit: number
  readonly #areLent: boolean
  #waiting: Array<Uint8Array<ArrayBuffer>> = []
  #size = 0

  constructor(limit: number, areLent: boolean) {
    this.#limit = limit
    this.#areLent = areLent
  }

  get isEmpty(): boolean {
    return this.#waiting.length === 0
  }

  get isFull(): boolean {
    return this.#size >= this.#limit
  }

  put(bytes: Uint8Array): void {
    this.#waiting.push(this.#areLent ? new Uint8Array(bytes) : ownOf(bytes))
    this.#size += bytes.byteLength
  }

  take(): Chunk.Chunk<Uint8Array<ArrayBuffer>> {
    const chunk = Chunk.unsafeFromArray(this.#waiting)
    this.#waiting = []
    this.#size = 0
    return chunk
  }
}

/** The same bytes as a plain array: the `slice` of a Node `Buffer` does not copy. */
const ownOf = ({ buffer, byteLength, byteOffset }: Uint8Array): Uint8Array<ArrayBuffer> =>
  buffer instanceof ArrayBuffer
    ? new Uint8Array(buffer, byteOffset, byteLength)
    : new Uint8Array(new Uint8Array(buffer, byteOffset, byteLength))

/** One array is filled while the reader has the other. */
class ReusedArrays implements Inbox {
  readonly #isFree: () => boolean
  #filling: Uint8Array<ArrayBuffer> | undefined
  #filled = 0
  #taken: Uint8Array<ArrayBuffer> | undefined
  /** What did not fit. */
  #more: Array<Uint8Array<ArrayBuffer>> = []

  constructor(isFree: () => boolean) {
    this.#isFree = isFree
  }

  get isEmpty(): boolean {
    return this.#filled === 0 && this.#more.length === 0
  }

  /** Another read of a socket might not fit. */
  get isFull(): boolean {
    return this.#filled > reusedSize / 2 || this.#more.length > 0
  }

  put(bytes: Uint8Array): void {
    this.#filling ??= new Uint8Array(reusedSize)
    if (this.#more.length > 0 || this.#filled + bytes.byteLength > reusedSize) {
      this.#more.push(new Uint8Array(bytes))
      return
    }
    this.#filling.set(bytes, this.#filled)
    this.#filled += bytes.byteLength
  }

  take(): Chunk.Chunk<Uint8Array<ArrayBuffer>> {
    const free = this.#taken !== undefined && this.#isFree() ? this.#taken : undefined
    const chunks = this.#filling === undefined || this.#filled === 0
      ? this.#more
      : [this.#filling.subarray(0, this.#filled), ...this.#more]
    this.#taken = this.#filling
    this.#filling = free
    this.#filled = 0
    this.#more = []
    return Chunk.unsafeFromArray(chunks)
  }
}
