/**
 * How a request gets to a server and the answer back: what every way to send has in common, and the way of a client that
 * somebody brings along.
 */
import { Readable } from "node:stream"
import { ReadableStream } from "node:stream/web"

/** A request as it goes out. */
export interface HttpRequest {
  readonly method: string
  readonly protocol: string
  readonly hostname: string
  readonly port?: number
  readonly path: string
  readonly query: Record<string, string>
  readonly headers: Record<string, string>
}

/** Escaped as URLs and signatures of S3 have it. */
export const escaped = (text: string): string =>
  encodeURIComponent(text).replaceAll(/[!'()*]/g, (char) => `%${char.charCodeAt(0).toString(16).toUpperCase()}`)

export const originOf = ({ hostname, port, protocol }: HttpRequest): string =>
  `${protocol}//${hostname}${port === undefined ? "" : `:${port}`}`

/** Path and query of a request in one. */
export const targetOf = ({ path, query }: HttpRequest): string => {
  const search = Object.entries(query).map(([name, value]) => `${escaped(name)}=${escaped(value)}`).join("&")
  return search === "" ? path : `${path}?${search}`
}

/** The beginning of an answer. The names of headers are in lower case. */
export interface Answer {
  readonly status: number
  readonly headers: Readonly<Record<string, string>>
}

/** Who hears of the answer. After `onEnd` or `onBroken` nothing more comes. */
export interface Receiver {
  /** The body waits until it is resumed. */
  readonly onAnswer: (answer: Answer) => void
  /** The bytes may be others as soon as this returns. */
  readonly onBytes: (bytes: Uint8Array) => void
  readonly onEnd: () => void
  readonly onBroken: (cause: unknown) => void
}

/** What can be done with a request on its way. */
export interface Flow {
  readonly pause: () => void
  readonly resume: () => void
  /** Ends it, and the connection with it. The receiver may hear of that, or not. */
  readonly abort: () => void
}

/** Sends a request. The receiver hears of nothing before this has returned, but of what makes it impossible to send. */
export type Transport = (
  request: HttpRequest & { readonly body?: Uint8Array | Readable },
  receiver: Receiver
) => Flow

/** The way to send of a client of the SDK, as far as it is used here. */
export interface Handler {
  readonly handle: (
    request: Parameters<Transport>[0],
    options: { readonly abortSignal: AbortSignal }
  ) => Promise<{
    readonly response: {
      readonly statusCode: number
      readonly headers: Readonly<Record<string, string>>
      readonly body?: unknown
    }
  }>
}

/** With the handler of a client that somebody brings along. */
export const overHandler = (handler: Handler): Transport => (request, receiver) => {
  const abort = new AbortController()
  let body: Readable | undefined
  handler.handle(request, { abortSignal: abort.signal }).then(
    ({ response }) => {
      body = toReadable(response.body)
      // A connection may break while nobody is reading, and must not bring the process down.
      body.on("error", receiver.onBroken)
      if (abort.signal.aborted) return void body.destroy()
      body.on("end", receiver.onEnd)
      body.on("close", () => receiver.onBroken(new Error("the connection was closed before the end of the body")))
      receiver.onAnswer({ status: response.statusCode, headers: response.headers })
    },
    receiver.onBroken
  )
  return {
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
