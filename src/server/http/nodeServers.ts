/**
 * What the platform's `HttpServer` does not offer: the `node:http` servers behind it, as Node reports them to
 * `node:diagnostics_channel`. On other platforms nothing is reported, and each function does nothing.
 *
 * - A server that listens before its storage is ready, or that has shut down while it still listens, has no listener for
 *   requests: Node would leave them without a response. Here they receive a 503.
 * - A server that closes waits for connections that have sent no request, or half of one. Here they are closed.
 */
import type * as HttpServer from "@effect/platform/HttpServer"
import * as Effect from "effect/Effect"
import { has } from "./nodeConnection.js"
import { refusalJson } from "./responses.js"

const { process } = globalThis as { readonly process?: Partial<Pick<NodeJS.Process, "getBuiltinModule">> }

interface NodeServer {
  readonly address: () => unknown
  readonly closeAllConnections: () => void
  readonly listenerCount: (event: string) => number
  readonly once: (event: "close", listener: () => void) => unknown
}

interface NodeResponse {
  readonly writeHead: (status: number, headers: Readonly<Record<string, string>>) => unknown
  readonly end: (text: string) => unknown
}

const isServer = (value: unknown): value is NodeServer =>
  has(value, "address", "closeAllConnections", "listenerCount", "once")

const isResponse = (value: unknown): value is NodeResponse => has(value, "writeHead", "end")

/** Those that have accepted a connection and are not closed. */
const servers = new Set<NodeServer>()

/** Those that have received a request for a weight server. */
const served = new WeakSet<object>()

/** How many weight servers are described and not built yet. */
let expected = 0

let isWatching = false

const watch = (): void => {
  if (isWatching) return
  isWatching = true
  const channel = process?.getBuiltinModule?.("node:diagnostics_channel")
  if (channel === undefined) return
  channel.subscribe("net.server.socket", (message) => {
    const server = has(message, "socket") && has(message.socket, "server") ? message.socket.server : undefined
    if (!isServer(server) || servers.has(server)) return
    servers.add(server)
    server.once("close", () => servers.delete(server))
  })
  channel.subscribe("http.server.request.start", (message) => {
    if (!has(message, "server", "response") || !isServer(message.server) || !isResponse(message.response)) return
    const { response, server } = message
    if ((expected > 0 || served.has(server)) && server.listenerCount("request") === 0) {
      respondUnavailable(response)
    }
  })
}

const respondUnavailable = (response: NodeResponse): void => {
  response.writeHead(503, { "content-type": "application/json", "retry-after": "1", connection: "close" })
  response.end(refusalJson("the server is starting or shutting down"))
}

/** From now on, requests to Node servers that nothing serves receive a 503, until the returned function is called. */
export const expectServer = (): () => void => {
  watch()
  let isExpected = true
  expected++
  return () => {
    if (isExpected) expected--
    isExpected = false
  }
}

/** Notes that the server of this connection serves weights. */
export const markServed = (connection: unknown): void => {
  if (has(connection, "server") && isServer(connection.server)) served.add(connection.server)
}

/** Closes all connections to the address, except those of WebSockets. */
export const closeConnections = (address: HttpServer.Address): Effect.Effect<void> =>
  Effect.sync(() => {
    for (const server of servers) {
      if (isAt(server.address(), address)) server.closeAllConnections()
    }
  })

const isAt = (bound: unknown, address: HttpServer.Address): boolean =>
  address._tag === "UnixAddress" ? bound === address.path : has(bound, "port") && bound.port === address.port
