/**
 * One HTTP request to a bucket and its answer, signed with the parts of an `S3Client`: its endpoint, its
 * credentials and its signer, but not its middleware, which costs more than a small request does.
 *
 * Every wait on the server ends at the idle limit, whether it reads what is sent, answers, or sends what it announced.
 * A wait on whoever reads the answer does not count. An exchange that is not over when it is closed takes its
 * connection with it.
 */
import type { S3Client } from "@aws-sdk/client-s3"
import * as Chunk from "effect/Chunk"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import { Readable } from "node:stream"
import type { FailureContext } from "../../StorageBackend.js"
import * as E from "../../StorageError.js"
import { once } from "../once.js"
import { IdleTimer } from "./idleTimer.js"
import {
  type Answer,
  escaped,
  type Flow,
  type HttpRequest,
  originOf,
  type Receiver,
  targetOf,
  type Transport
} from "./transport.js"

/** A request to the bucket, or to an object in it. */
export interface Request {
  readonly method: "GET" | "HEAD" | "PUT" | "POST" | "DELETE"
  /** The key of an object, as it is. Default: the bucket itself. */
  readonly key?: string
  readonly query?: Readonly<Record<string, string>>
  readonly headers?: Readonly<Record<string, string>>
  readonly body?: Uint8Array
}

/** Why there is no answer, or no end of it. */
export type ExchangeError = E.StorageUnavailable | E.StorageTimeout | E.AccessDenied

/** Where a failure happens: the bucket is for the messages, the key is the user's. */
export interface Place extends FailureContext {
  readonly bucket: string
  readonly key?: string
}

/** A bucket, and how to send it requests. */
export interface Endpoint {
  readonly protocol: string
  readonly hostname: string
  readonly port?: number
  /** Where the bucket begins, without a slash at its end. */
  readonly path: string
  readonly headers: Readonly<Record<string, string>>
  readonly signingName: string
  readonly signingRegion: string
}

/** What sends requests to one bucket. */
export interface Connection {
  readonly transport: Transport
  readonly endpoint: Endpoint
  readonly signer: Awaited<ReturnType<S3Client["config"]["signer"]>>
  /** In milliseconds. */
  readonly idleLimit: number
  /** How far the clock of the server is ahead of ours, in milliseconds. */
  clockOffset: number
  /** Whether the server takes the etag of a conditional save without its quotes, as Ceph does. */
  bareEtags: boolean
}

// Neither the signature nor anything else covers the bytes of a body; see the head of S3Storage.ts.
const unsigned = { "x-amz-content-sha256": "UNSIGNED-PAYLOAD" }

/** A key as it stands in a path or in the name of a source to copy. */
export const escapeKey = (key: string): string => key.split("/").map(escaped).join("/")

const toHttp = ({ endpoint }: Connection, { body, headers, key, method, query }: Request): HttpRequest => ({
  method,
  protocol: endpoint.protocol,
  hostname: endpoint.hostname,
  ...(endpoint.port !== undefined && { port: endpoint.port }),
  path: key === undefined ? endpoint.path || "/" : `${endpoint.path}/${escapeKey(key)}`,
  query: { ...query },
  headers: {
    host: endpoint.port === undefined ? endpoint.hostname : `${endpoint.hostname}:${endpoint.port}`,
    "user-agent": "surfing-weights",
    ...endpoint.headers,
    ...((method === "PUT" || method === "POST") && { "content-length": String(body?.byteLength ?? 0) }),
    ...headers
  }
})

const signingOptions = ({ clockOffset, endpoint }: Connection) => ({
  signingDate: new Date(Date.now() + clockOffset),
  signingRegion: endpoint.signingRegion,
  signingService: endpoint.signingName
})

/**
 * A URL with which anybody can send this request for so many seconds. Host and query are all that it binds.
 */
export const presign = (
  connection: Connection,
  place: Place,
  request: Request,
  expiresIn: number
): Effect.Effect<string, ExchangeError> =>
  Effect.tryPromise({
    try: async () => {
      const { signer } = connection
      if (!isPresigner(signer)) throw new Error("the signer of this client gives no URLs")
      const http = toHttp(connection, request)
      const presigned = await signer.presign(
        { ...http, headers: { host: http.headers["host"] ?? "", ...request.headers, ...unsigned } },
        { ...signingOptions(connection), expiresIn, unhoistableHeaders: new Set(Object.keys(request.headers ?? {})) }
      )
      return originOf(presigned) + targetOf(presigned)
    },
    catch: (cause) => noCredentials(place, cause)
  }).pipe(
    Effect.timeoutFail({ duration: connection.idleLimit, onTimeout: () => idle(place, connection) })
  )

interface Presigner {
  readonly presign: (
    request: HttpRequest,
    options: ReturnType<typeof signingOptions> & {
      readonly expiresIn: number
      readonly unhoistableHeaders: Set<string>
    }
  ) => Promise<HttpRequest>
}

const isPresigner = (signer: object): signer is Presigner => "presign" in signer && typeof signer.presign === "function"

/** Sends a request and lets `use` read the answer. However that ends, nothing of the exchange is left. */
export const exchange = <A, Err, R>(
  connection: Connection,
  place: Place,
  request: Request,
  use: (exchange: Exchange) => Effect.Effect<A, Err, R>
): Effect.Effect<A, Err, R> =>
  Effect.acquireUseRelease(
    Effect.sync(() => new Exchange(connection, place, request)),
    use,
    (exchange) => exchange.close()
  )

/** How much of a body waits to be read before the connection is told to wait, in bytes. */
const readAhead = 1024 * 1024

/** What is sent of a body between two looks at whether the server still reads, in bytes. */
const pieceSize = 256 * 1024

/** Who reads a body. */
type Reader = Pick<Receiver, "onBytes" | "onEnd" | "onBroken">

export class Exchange {
  readonly #connection: Connection
  readonly #place: Place
  readonly #request: Request
  #timer: IdleTimer | undefined
  #flow: Flow | undefined
  #reader: Reader | undefined
  #break: { readonly cause: unknown } | undefined
  #failure: ExchangeError | undefined
  #sent = false
  #over = false
  #givenUp = false

  constructor(connection: Connection, place: Place, request: Request) {
    this.#connection = connection
    this.#place = place
    this.#request = request
  }

  /**
   * Sends the request and gives the answer, up to its body. To be run once, and first.
   *
   * Where `plan` has an array for the body, that is filled before this succeeds: one wait instead of two, which for a
   * small object is much of what it costs. If the body breaks, this succeeds all the same, and `into` fails.
   */
  send(
    plan?: (answer: Answer) => Uint8Array | undefined,
    progress: (filled: number) => void = () => {}
  ): Effect.Effect<Answer, ExchangeError> {
    return once((resume) => {
      let isAnswered = false
      const fail = (error: ExchangeError) => {
        this.#giveUp()
        resume(Effect.fail(error))
      }
      const receiver: Receiver = {
        onAnswer: (answer) => {
          isAnswered = true
          this.#timer?.stop()
          const target = plan?.(answer)
          if (target === undefined) return resume(Effect.succeed(answer))
          this.#fill(target, progress, (error) => {
            this.#failure = error
            resume(Effect.succeed(answer))
          })
        },
        onBytes: (bytes) => this.#reader?.onBytes(bytes),
        onEnd: () => {
          this.#over = true
          this.#reader?.onEnd()
        },
        onBroken: (cause) => {
          // A connection is closed once the body is there, or because it was given up.
          if (this.#over || this.#givenUp) return
          if (!isAnswered) {
            return fail(isBadHeader(cause) ? noCredentials(this.#place, cause) : broken(this.#place, cause))
          }
          this.#break ??= { cause }
          this.#reader?.onBroken(cause)
        }
      }
      const { idleLimit, signer, transport } = this.#connection
      this.#timer = new IdleTimer(idleLimit, () => fail(idle(this.#place, this.#connection)))
      const http = toHttp(this.#connection, this.#request)
      signer.sign({ ...http, headers: { ...http.headers, ...unsigned } }, signingOptions(this.#connection)).then(
        (signed) => {
          if (this.#givenUp) return
          const body = this.#outgoing()
          this.#flow = transport({ ...http, headers: signed.headers, ...(body !== undefined && { body }) }, receiver)
        },
        (cause: unknown) => fail(noCredentials(this.#place, cause))
      )
    })
  }

  /** A small body whole, or piece by piece where the server has to be watched while it reads. */
  #outgoing(): Uint8Array | Readable | undefined {
    const { body } = this.#request
    if (body === undefined || body.byteLength <= pieceSize) {
      this.#sent = true
      return body
    }
    let at = 0
    const timer = this.#timer
    const sent = () => {
      this.#sent = true
    }
    return new Readable({
      highWaterMark: pieceSize,
      read() {
        timer?.goes()
        const piece = body.subarray(at, at + pieceSize)
        at += piece.byteLength
        this.push(piece)
        if (at === body.byteLength) {
          sent()
          this.push(null)
        }
      }
    })
  }

  /** Why the body that `send` was to read broke, if it did. */
  get failure(): ExchangeError | undefined {
    return this.#failure
  }

  /**
   * Reads the body, or what is left of it, into `target`, from its start; `progress` hears how many bytes are there.
   */
  into(target: Uint8Array, progress: (filled: number) => void): Effect.Effect<void, ExchangeError> {
    return this.#failure !== undefined ?
      Effect.fail(this.#failure) :
      once((resume) =>
        this.#fill(target, progress, (error) => resume(error === undefined ? Effect.void : Effect.fail(error)))
      )
  }

  #fill(
    target: Uint8Array,
    progress: (filled: number) => void,
    done: (error?: ExchangeError) => void
  ): void {
    let filled = 0
    this.#readAll((bytes) => {
      if (filled + bytes.byteLength > target.byteLength) return "the body is longer than announced"
      target.set(bytes, filled)
      filled += bytes.byteLength
      progress(filled)
      return undefined
    }, done)
  }

  /** The body as text. */
  readonly text: Effect.Effect<string, ExchangeError> = Effect.async((resume) => {
    const chunks: Array<Uint8Array> = []
    this.#readAll(
      (bytes) => void chunks.push(Buffer.from(bytes)),
      (error) =>
        resume(error === undefined ? Effect.succeed(Buffer.concat(chunks).toString("utf8")) : Effect.fail(error))
    )
  })

  /** Reads the body to its end, as fast as it comes; `accept` may say what is wrong with it. */
  #readAll(accept: (bytes: Uint8Array) => string | undefined, done: (error?: ExchangeError) => void): void {
    const end = (error?: ExchangeError) => {
      timer.stop()
      this.#reader = undefined
      done(error)
    }
    const timer = new IdleTimer(this.#connection.idleLimit, () => end(idle(this.#place, this.#connection)))
    this.#timer = timer
    this.#read({
      onBytes: (bytes) => {
        timer.goes()
        const wrong = accept(bytes)
        if (wrong !== undefined) end(broken(this.#place, new Error(wrong)))
      },
      onEnd: () => end(),
      onBroken: (cause) => end(broken(this.#place, cause))
    })
  }

  #read(reader: Reader): void {
    this.#reader = reader
    if (this.#break !== undefined) reader.onBroken(this.#break.cause)
    else if (this.#over) reader.onEnd()
    else this.#flow?.resume()
  }

  /**
   * Begins to read the body, and gives what is to be run again and again: the next bytes, all that have come. It fails
   * with `None` once all have. Whoever does not run it makes the server wait.
   */
  pulls(): Effect.Effect<Chunk.Chunk<Uint8Array>, Option.Option<ExchangeError>> {
    let waiting: Array<Uint8Array> = []
    let size = 0
    let end: Effect.Effect<never, Option.Option<ExchangeError>> | undefined
    let isPaused = false
    let wake = () => {}

    const ended = (outcome: Effect.Effect<never, Option.Option<ExchangeError>>) => {
      end = outcome
      wake()
    }
    this.#read({
      onBytes: (bytes) => {
        waiting.push(new Uint8Array(bytes))
        size += bytes.byteLength
        if (size >= readAhead) {
          isPaused = true
          this.#flow?.pause()
        }
        wake()
      },
      onEnd: () => ended(Effect.fail(Option.none())),
      onBroken: (cause) => ended(Effect.fail(Option.some(broken(this.#place, cause))))
    })

    const take = () => {
      const chunk = Chunk.unsafeFromArray(waiting)
      waiting = []
      size = 0
      if (isPaused) {
        isPaused = false
        this.#flow?.resume()
      }
      return Effect.succeed(chunk)
    }
    const next = () => waiting.length > 0 ? take() : end
    const wait = Effect.async<Chunk.Chunk<Uint8Array>, Option.Option<ExchangeError>>((resume) => {
      // The fiber may have made way for others since it looked.
      const come = next()
      if (come !== undefined) return resume(come)
      const timer = new IdleTimer(this.#connection.idleLimit, () => {
        wake = () => {}
        resume(Effect.fail(Option.some(idle(this.#place, this.#connection))))
      })
      wake = () => {
        timer.stop()
        wake = () => {}
        resume(next() ?? Effect.fail(Option.none()))
      }
    })
    return Effect.suspend(() => next() ?? wait)
  }

  /** Ends what is not over yet, and the connection with it. */
  close(): Effect.Effect<void> {
    return Effect.sync(() => {
      if (this.#over && this.#sent) this.#timer?.stop()
      else this.#giveUp()
    })
  }

  #giveUp(): void {
    this.#timer?.stop()
    this.#givenUp = true
    this.#flow?.abort()
  }
}

const contextOf = ({ backend, key, operation }: Place) => ({ backend, operation, ...(key !== undefined && { key }) })

const idle = (place: Place, { idleLimit }: Connection) =>
  new E.StorageTimeout({ ...contextOf(place), limit: Duration.millis(idleLimit) })

const broken = (place: Place, cause: unknown) =>
  new E.StorageUnavailable({ ...contextOf(place), reason: `the connection failed: ${describe(cause)}`, cause })

/** Why a request could not be signed. */
export const noCredentials = (place: Place, found: unknown, profile?: string) => {
  // What cannot be parsed is quoted in the message, and may be a secret.
  const cause = found instanceof SyntaxError ? new Error("what gives them gave an answer that cannot be read") : found
  return new E.AccessDenied({
    ...contextOf(place),
    reason: "there are no usable credentials" +
      `${profile === undefined ? "" : ` in the profile ${JSON.stringify(profile)}`}: ${
        describe(cause)
      }; give credentials or a profile, or set ` +
      "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
    cause
  })
}

/** All other headers are looked at when the storage is built, so this is one of those that have the credentials. */
const isBadHeader = (cause: unknown): boolean =>
  cause instanceof Error && "code" in cause &&
  (cause.code === "ERR_INVALID_CHAR" || cause.code === "UND_ERR_INVALID_ARG")

const describe = (cause: unknown): string => {
  if (!(cause instanceof Error)) return String(cause)
  // A name that leads to several addresses, none of which answers, is told of as a list without a message.
  if (cause instanceof AggregateError && cause.message === "") return cause.errors.map(describe).join("; ")
  return cause.message || cause.name
}
