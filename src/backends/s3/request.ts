/**
 * Requests to one bucket: built, signed with the signer of an `S3Client`, sent once each. The middleware of the client is not
 * used, as it takes longer than a small request.
 */
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import { describe } from "../../internal/connection.js"
import * as HttpCall from "../../internal/httpCall.js"
import { Permits } from "../../internal/permits.js"
import * as E from "../../StorageError.js"
import { type Credentials, mayBeRefusal } from "./credentials.js"
import { Dialect, isError } from "./dialect.js"
import { ErrorResponse, problemOf, type ResponseDefinition, type TextResponse } from "./responses.js"
import { escape, type HttpRequest, originOf, targetOf, type Transport } from "./transport.js"

/** A request to the bucket, or to an object in it. */
export interface Request {
  readonly method: "GET" | "HEAD" | "PUT" | "POST" | "DELETE"
  /** The key of an object. Default: the bucket itself. */
  readonly key?: string
  readonly query?: Readonly<Record<string, string>>
  readonly headers?: Readonly<Record<string, string>>
  readonly body?: Uint8Array
  /** What its response has where it reports success. Default: no body. */
  readonly response?: ResponseDefinition
}

/** Where a bucket is. */
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

type Unsigned = Omit<HttpRequest, "body">

interface SigningOptions {
  readonly signingDate: Date
  readonly signingRegion: string
  readonly signingService: string
}

/** What signs requests. */
export interface Signer {
  sign(request: Unsigned, options: SigningOptions): Promise<{ readonly headers: Record<string, string> }>
}

interface Presigner {
  readonly presign: (
    request: Unsigned,
    options: SigningOptions & { readonly expiresIn: number; readonly unhoistableHeaders: Set<string> }
  ) => Promise<HttpRequest>
}

const isPresigner = (signer: object): signer is Presigner => "presign" in signer && typeof signer.presign === "function"

/** What the options of a storage add to requests, as headers. */
export interface OwnerHeaders {
  /** To what makes an object: encryption, storage class, tags. */
  readonly create: Readonly<Record<string, string>>
  /** To what reads or writes bytes: the customer's key. */
  readonly access: Readonly<Record<string, string>>
  /** To what reads bytes on the server, to copy them: that key. */
  readonly copySource: Readonly<Record<string, string>>
}

/** How many requests are sent at once; those of open streams come on top, as their readers decide when they end. */
const maxRequests = 64

/** A bucket, and what it takes to send requests to it. */
export class Bucket {
  readonly name: string
  readonly headers: OwnerHeaders
  readonly dialect = new Dialect()
  readonly peer: HttpCall.Peer = { hasResponded: false }
  readonly #endpoint: Endpoint
  readonly #signer: Signer
  readonly #credentials: Credentials
  readonly #transport: Transport
  readonly #idleTimeout: number
  readonly #permits = new Permits(maxRequests)

  /** The address of the bucket. */
  get location(): string {
    const { hostname, path, port, protocol } = this.#endpoint
    return `${protocol}//${hostname}${port === undefined ? "" : `:${port}`}${path}`
  }

  constructor(options: {
    readonly name: string
    readonly headers: OwnerHeaders
    readonly endpoint: Endpoint
    readonly signer: Signer
    readonly credentials: Credentials
    readonly transport: Transport
    /** In milliseconds. */
    readonly idleTimeout: number
  }) {
    this.name = options.name
    this.headers = options.headers
    this.#endpoint = options.endpoint
    this.#signer = options.signer
    this.#credentials = options.credentials
    this.#transport = options.transport
    this.#idleTimeout = options.idleTimeout
  }

  /** Runs an effect that sends requests when there is a permit for it. */
  limited<A, Err, R>(effect: Effect.Effect<A, Err, R>): Effect.Effect<A, Err, R> {
    return this.#permits.withPermit(effect)
  }

  /** Sends a request whose response is text. */
  ask(request: Request): Effect.Effect<TextResponse, E.CommonError | ErrorResponse> {
    return this.limited(this.askNow(request))
  }

  /** The same for a caller that holds a permit. */
  askNow(request: Request): Effect.Effect<TextResponse, E.CommonError | ErrorResponse> {
    return this.using(
      request,
      (call) =>
        Effect.flatMap(call.send(), (response) =>
          Effect.flatMap(call.text(), (text) => {
            if (isError(response.status, text)) return Effect.fail(this.errorOf(response, text))
            const problem = problemOf({ ...response, text }, request.response)
            return problem === undefined ? Effect.succeed({ ...response, text }) : Effect.fail(problem)
          }))
    )
  }

  /** Sends a request by a call that is closed when `use` ends. */
  using<A, Err, R>(
    request: Request,
    use: (call: HttpCall.HttpCall) => Effect.Effect<A, Err, R>
  ): Effect.Effect<A, Err, R> {
    return HttpCall.call(this.#sending(request), { idleTimeout: this.#idleTimeout, peer: this.peer }, use)
  }

  /** The call of a request, to be closed by the caller. */
  call(request: Request): Effect.Effect<HttpCall.HttpCall> {
    return HttpCall.make(this.#sending(request), { idleTimeout: this.#idleTimeout, peer: this.peer })
  }

  /** What an error response says. Sets the clock by it where that is what is wrong. */
  errorOf(response: HttpCall.Response, text: string): ErrorResponse {
    const offset = Date.parse(response.headers["date"] ?? "") - Date.now()
    const error = this.dialect.isSkewed(response.status, text, offset)
      ? ErrorResponse.from(response, text, "RequestTimeTooSkewed")
      : ErrorResponse.from(response, text)
    if (error.code === "RequestTimeTooSkewed" && !Number.isNaN(offset)) this.dialect.clockOffset = offset
    return error
  }

  /** A URL with which anyone can send this request for `expiresIn` seconds. Only host and query are signed. */
  presign(request: Request, expiresIn: number): Effect.Effect<string, E.CommonError> {
    return Effect.tryPromise({
      try: async () => {
        const signer = this.#signer
        if (!isPresigner(signer)) throw new Error("the signer of this client cannot presign URLs")
        const http = this.#toHttp(request)
        const presigned = await signer.presign(
          { ...http, headers: { host: http.headers["host"] ?? "", ...request.headers, ...unsignedPayload } },
          {
            ...this.#signingOptions(),
            expiresIn,
            unhoistableHeaders: new Set(Object.keys(request.headers ?? {}))
          }
        )
        return originOf(presigned) + targetOf(presigned)
      },
      catch: (cause) => noCredentials(cause)
    }).pipe(
      Effect.timeoutFail({
        duration: this.#idleTimeout,
        onTimeout: () => HttpCall.timedOut(this.#idleTimeout)
      })
    )
  }

  /** Signs a request and sends it; once more if it is refused and there are other credentials by now. */
  #sending(request: Request): HttpCall.Send {
    return (receiver) => {
      const generation = this.#credentials.generation
      let isAborted = false
      let isStale = false
      let current = this.#sendOnce(request, {
        ...receiver,
        onResponse: (response) => {
          if (!mayBeRefusal(response)) return receiver.onResponse(response)
          void this.#credentials.renew(generation).then((hasOthers) => {
            if (isAborted) return
            if (!hasOthers) return receiver.onResponse(response)
            isStale = true
            current.abort()
            current = this.#sendOnce(request, receiver)
          })
        },
        onFailure: (failure) => {
          if (!isStale) receiver.onFailure(failure)
        }
      })
      return {
        get lendsBytes() {
          return current.lendsBytes
        },
        pause: () => current.pause(),
        resume: () => current.resume(),
        abort: () => {
          isAborted = true
          current.abort()
        }
      }
    }
  }

  #sendOnce(request: Request, receiver: HttpCall.Receiver): HttpCall.Flow {
    let flow: HttpCall.Flow | undefined
    let isAborted = false
    const fail = (cause: unknown) => receiver.onFailure(Exit.fail(noCredentials(cause)))
    const http = this.#toHttp(request)
    this.#signer.sign({ ...http, headers: { ...http.headers, ...unsignedPayload } }, this.#signingOptions()).then(
      ({ headers }) => {
        if (isAborted) return
        if (!areSendable(headers)) return fail(new Error("they contain characters that a header cannot contain"))
        flow = this.#transport(
          { ...http, headers, ...(request.body !== undefined && { body: request.body }) },
          receiver
        )
      },
      fail
    )
    return {
      get lendsBytes() {
        return flow?.lendsBytes ?? false
      },
      pause: () => flow?.pause(),
      resume: () => flow?.resume(),
      abort: () => {
        isAborted = true
        flow?.abort()
      }
    }
  }

  #toHttp({ body, headers, key, method, query }: Request): Unsigned {
    const { headers: required, hostname, path, port, protocol } = this.#endpoint
    return {
      method,
      protocol,
      hostname,
      ...(port !== undefined && { port }),
      path: key === undefined ? path || "/" : `${path}/${escapeKey(key)}`,
      query: { ...query },
      headers: {
        host: port === undefined ? hostname : `${hostname}:${port}`,
        "user-agent": "surfing-weights",
        ...required,
        ...((method === "PUT" || method === "POST") && { "content-length": String(body?.byteLength ?? 0) }),
        ...headers
      }
    }
  }

  #signingOptions(): SigningOptions {
    return {
      signingDate: new Date(Date.now() + this.dialect.clockOffset),
      signingRegion: this.#endpoint.signingRegion,
      signingService: this.#endpoint.signingName
    }
  }
}

/** To hash the body of a request would take a third of the speed; see the head of `S3Storage.ts`. */
const unsignedPayload = { "x-amz-content-sha256": "UNSIGNED-PAYLOAD" }

/** A key in a path, or in the name of a source to copy. */
export const escapeKey = (key: string): string => key.split("/").map(escape).join("/")

/** All other headers are checked with the options of the storage: one that cannot be sent holds the credentials. */
const areSendable = (headers: Readonly<Record<string, string>>): boolean => {
  for (const name in headers) if (/[^\t\x20-\x7e\x80-\xff]/.test(headers[name] ?? "")) return false
  return true
}

/** Why a request could not be signed. */
export const noCredentials = (found: unknown, profile?: string): E.AccessDenied => {
  // The message of the error quotes the text, which may be a secret.
  const cause = found instanceof SyntaxError ? new Error("their source returned invalid JSON") : found
  const where = profile === undefined ? "" : ` in the profile ${JSON.stringify(profile)}`
  return new E.AccessDenied({
    reason: `there are no usable credentials${where}: ${describe(cause)}; ` +
      "give credentials or a profile, or set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
    cause
  })
}
