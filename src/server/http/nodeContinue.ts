/**
 * `Expect: 100-continue`: a client waits for `100 Continue` until it sends the body, so that one that is refused need not be
 * sent. Node sends it before any request handler runs, unless the server has a listener for `checkContinue`; here it is sent
 * when the body is first read. The platform does not show its `node:http` server, which is found by the documented channel
 * `http.server.request.start`: at the first request, by the address. Where there are no such channels, clients are told to
 * send their body at once, as before.
 *
 * It goes once the platform answers `Expect` in this way, or shows the server.
 */
import type * as HttpServer from "@effect/platform/HttpServer"
import type * as HttpServerRequest from "@effect/platform/HttpServerRequest"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import type * as NodeHttp from "node:http"
import { has } from "./nodeConnection.js"

const { process } = globalThis as { readonly process?: Partial<Pick<NodeJS.Process, "getBuiltinModule">> }

/** Requests whose clients wait for `100 Continue`. */
const waiting = new WeakSet<object>()

/** Whether the client waits, and sends no body until that is read. */
export const isWaiting = ({ source }: HttpServerRequest.HttpServerRequest): boolean =>
  typeof source === "object" && source !== null && waiting.has(source)

const isServer = (value: unknown): value is NodeHttp.Server =>
  has(value, "address", "on", "off", "emit", "listenerCount")

const isAt = (server: NodeHttp.Server, address: HttpServer.Address): boolean => {
  const own = server.address()
  return own === null || typeof own === "string"
    ? address._tag === "UnixAddress" && address.path === own
    : address._tag === "TcpAddress" && address.port === own.port
}

/** Sends `100 Continue` when a body is read, from the first request to the server at this address until the scope closes. */
export const continueWhenRead = (address: HttpServer.Address): Effect.Effect<void, never, Scope.Scope> =>
  Effect.suspend(() => {
    const channels = process?.getBuiltinModule?.("node:diagnostics_channel")
    if (channels === undefined) return Effect.void
    let found: NodeHttp.Server | undefined
    const onExpected = (request: NodeHttp.IncomingMessage, response: NodeHttp.ServerResponse) => {
      const read = request._read.bind(request)
      waiting.add(request)
      request._read = (size) => {
        request._read = read
        waiting.delete(request)
        if (!response.headersSent) response.writeContinue()
        request._read(size)
      }
      found?.emit("request", request, response)
    }
    const onRequest = (message: unknown) => {
      if (!has(message, "server") || !isServer(message.server) || !isAt(message.server, address)) return
      channels.unsubscribe("http.server.request.start", onRequest)
      if (message.server.listenerCount("checkContinue") > 0) return
      found = message.server.on("checkContinue", onExpected)
    }
    channels.subscribe("http.server.request.start", onRequest)
    return Effect.addFinalizer(() =>
      Effect.sync(() => {
        channels.unsubscribe("http.server.request.start", onRequest)
        found?.off("checkContinue", onExpected)
      })
    )
  })
