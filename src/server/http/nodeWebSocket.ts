/**
 * What the platform's `Socket` does not offer: a limit of what is received, back-pressure in both directions, and pings. On
 * Node the platform serves WebSockets by the package `ws`; this finds the one of a request at its connection, where `ws` keeps
 * it under a symbol. Without it, `open` returns `undefined`.
 *
 * The rest is the documented interface of `ws`, but for its option `maxPayload`, which the platform leaves at 100 MiB for each
 * connection. It goes once the platform takes the options of `ws`, and shows its WebSockets.
 */
import type * as HttpServerRequest from "@effect/platform/HttpServerRequest"
import * as Effect from "effect/Effect"
import { connectionOf, has } from "./nodeConnection.js"

type Request = HttpServerRequest.HttpServerRequest

interface Ws {
  readonly pause: () => void
  readonly resume: () => void
  readonly ping: () => void
  readonly on: (event: "ping" | "pong", listener: () => void) => unknown
  readonly send: (
    data: Uint8Array,
    options: { readonly fin: boolean; readonly binary: boolean },
    callback: (error?: Error) => void
  ) => void
  readonly _receiver: { _maxPayload: number }
}

const isWs = (value: unknown): value is Ws =>
  has(value, "pause", "resume", "ping", "on", "send", "_receiver") && has(value._receiver, "_maxPayload")

export interface Options {
  /** The longest message that is received, in bytes. A longer one closes the WebSocket as soon as its length is known. */
  readonly maxMessage: number
  /** Called for each ping and pong. */
  readonly onSign: () => void
}

export class NodeWebSocket {
  readonly #ws: Ws

  private constructor(ws: Ws, { maxMessage, onSign }: Options) {
    this.#ws = ws
    ws._receiver._maxPayload = maxMessage
    ws.on("ping", onSign)
    ws.on("pong", onSign)
  }

  /**
   * Reads nothing from the connection until `open`: a client may send its first message together with the request, which
   * would arrive before the limit is set.
   */
  static hold(request: Request): void {
    connectionOf(request)?.pause()
  }

  /** Reads on from the connection of a request that could not be upgraded. */
  static release(request: Request): void {
    connectionOf(request)?.resume()
  }

  /** The WebSocket of a request that was upgraded. */
  static open(request: Request, options: Options): NodeWebSocket | undefined {
    const connection = connectionOf(request)
    if (connection === undefined) return undefined
    const ws = Object.getOwnPropertySymbols(connection)
      .map((symbol): unknown => Reflect.get(connection, symbol))
      .find(isWs)
    const socket = ws && new NodeWebSocket(ws, options)
    connection.resume()
    return socket
  }

  /** Stops reading from the connection. Messages that have arrived already are still received. */
  pause(): void {
    this.#ws.pause()
  }

  resume(): void {
    this.#ws.resume()
  }

  ping(): void {
    this.#ws.ping()
  }

  /** Sends a part of a text message, and waits until the system has taken it. */
  send(part: Uint8Array, isLast: boolean): Effect.Effect<void> {
    return Effect.async((resume) =>
      // Without a connection there is an error, and then the fiber is interrupted.
      this.#ws.send(part, { fin: isLast, binary: false }, (error) =>
        resume(error === undefined || error === null ? Effect.void : Effect.never))
    )
  }
}
