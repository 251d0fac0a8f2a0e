/**
 * How a request reaches an S3 server: what all transports have in common, and the request handler of an S3 client.
 */
import { Readable } from "node:stream"
import { ReadableStream } from "node:stream/web"
import { connectionFailed, type Flow, type Receiver } from "../../internal/httpCall.js"
import { outgoing } from "./outgoing.js"

/** A request as it is signed and sent. */
export interface HttpRequest {
  readonly method: string
  readonly protocol: string
  readonly hostname: string
  readonly port?: number
  readonly path: string
  readonly query: Record<string, string>
  readonly headers: Record<string, string>
  readonly body?: Uint8Array
}

/** Sends a request; see `Send` of `httpCall.ts`. */
export type Transport = (request: HttpRequest, receiver: Receiver) => Flow

/** Percent-encoded as URLs and signatures of S3 require. */
export const escape = (text: string): string =>
  encodeURIComponent(text).replaceAll(/[!'()*]/g, (char) => `%${char.charCodeAt(0).toString(16).toUpperCase()}`)

export const originOf = ({ hostname, port, protocol }: HttpRequest): string =>
  `${protocol}//${hostname}${port === undefined ? "" : `:${port}`}`

/** Path and query. */
export const targetOf = ({ path, query }: HttpRequest): string => {
  const search = Object.entries(query).map(([name, value]) => `${escape(name)}=${escape(value)}`).join("&")
  return search === "" ? path : `${path}?${search}`
}

/** The request handler of an S3 client, as far as it is used here. */
export interface Handler {
  readonly handle: (
    request: Omit<HttpRequest, "body"> & { readonly body?: unknown },
    options: { readonly abortSignal: AbortSignal }
  ) => Promise<{
    readonly response: {
      readonly statusCode: number
      readonly headers: Readonly<Record<string, string>>
      readonly body?: unknown
    }
  }>
}

/** Sends requests with the request handler of an S3 client. */
export const fromHandler = (handler: Handler): Transport => (request, receiver) => {
  const abort = new AbortController()
  const fail = (cause: unknown) => receiver.onFailure(connectionFailed(cause))
  let body: Readable | undefined
  const sent = outgoing(request.body, receiver)
  handler.handle({ ...request, ...(sent !== undefined && { body: sent }) }, { abortSignal: abort.signal }).then(
    ({ response }) => {
      body = toReadable(response.body)
      // A connection may break while it is not read, and must not end the process.
      body.on("error", fail)
      if (abort.signal.aborted) return void body.destroy()
      body.on("end", receiver.onEnd)
      body.on("close", () => fail(new Error("the connection was closed before the end of the body")))
      receiver.onResponse({ status: response.statusCode, headers: response.headers })
    },
    fail
  )
  return {
    lendsBytes: false,
    pause: () => void body?.pause(),
    resume: () => {
      if (body?.listenerCount("data") === 0) body.on("data", receiver.onBytes)
      else body?.resume()
    },
    abort: () => {
      abort.abort()
      body?.destroy()
    }
  }
}

const toReadable = (body: unknown): Readable =>
  body instanceof Readable ? body : body instanceof ReadableStream ? Readable.fromWeb(body) : Readable.from([])
