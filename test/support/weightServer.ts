/**
 * Weight servers of the tests' own, on a real port, and clients that know nothing of this library.
 */
import * as NodeHttpServer from "@effect/platform-node/NodeHttpServer"
import { Context, Effect, Exit, Layer, Scope } from "effect"
import { once } from "node:events"
import * as http from "node:http"
import * as net from "node:net"
import { Storage, WeightServer } from "surfing-weights"

export interface Served {
  readonly url: string
  readonly port: number
  readonly storage: Storage.Service
  /** All that there have been. */
  readonly connections: ReadonlyArray<net.Socket>
  /** Stops the server as its layer does; ended with the scope of the test otherwise. */
  readonly stop: Effect.Effect<void>
}

const listening = (server: http.Server, host: string) =>
  Layer.provideMerge(
    // By the time it stops, transfers have ended; what is left has sent no request, or half of one.
    Layer.scopedDiscard(Effect.addFinalizer(() => Effect.sync(() => server.closeAllConnections()))),
    NodeHttpServer.layerServer(() => server, { host, port: 0 })
  )

/** A server of the storage in the context, until the scope ends. */
export const serve = (options: WeightServer.Options = {}, host = "127.0.0.1") =>
  Effect.gen(function*() {
    const storage = yield* Storage.Storage
    const connections: Array<net.Socket> = []
    const server = http.createServer({ requestTimeout: 0 }).on("connection", (socket) => connections.push(socket))
    const scope = yield* Effect.acquireRelease(Scope.make(), (scope) => Scope.close(scope, Exit.void))
    yield* Layer.buildWithScope(Layer.provide(WeightServer.layer(options), listening(server, host)), scope)
    const address = server.address()
    const port = typeof address === "object" && address !== null ? address.port : 0
    const served: Served = {
      url: `http://127.0.0.1:${port}`,
      port,
      storage,
      connections,
      stop: Scope.close(scope, Exit.void)
    }
    return served
  })

/** The same of a given storage. */
export const serveOf = (storage: Storage.Service, options: WeightServer.Options = {}) =>
  Effect.provide(serve(options), Context.make(Storage.Storage, storage))

export interface Answer {
  readonly status: number
  readonly headers: http.IncomingHttpHeaders
  readonly body: Buffer
  readonly text: string
}

/** A request as it is written, by `node:http`, on a connection of its own: nothing is normalized, or retried. */
export const ask = (
  { port }: Pick<Served, "port">,
  method: string,
  path: string,
  headers: http.OutgoingHttpHeaders = {},
  body?: string | Uint8Array
): Effect.Effect<Answer> =>
  Effect.promise(async () => {
    const request = http.request({ host: "127.0.0.1", port, method, path, headers, agent: false })
    request.end(body)
    const [response] = await once(request, "response") as [http.IncomingMessage]
    const chunks: Array<Buffer> = []
    for await (const chunk of response) chunks.push(chunk as Buffer)
    const whole = Buffer.concat(chunks)
    return { status: response.statusCode ?? 0, headers: response.headers, body: whole, text: whole.toString() }
  })

/** Sends bytes as they are, and gives all that comes back until the server ends the connection. */
export const raw = ({ port }: Pick<Served, "port">, text: string): Effect.Effect<string> =>
  Effect.promise(async () => {
    const socket = net.connect(port, "127.0.0.1")
    socket.write(text)
    let got = ""
    socket.on("data", (bytes) => got += bytes.toString("latin1"))
    socket.on("error", () => {})
    await once(socket, "close")
    return got
  })

/** Waits until a condition holds. Fails after two minutes, which only something that hangs takes. */
export const eventually = (what: string, holds: () => boolean, seconds = 120): Effect.Effect<void> =>
  Effect.promise(async () => {
    const end = Date.now() + seconds * 1000
    while (!holds()) {
      if (Date.now() > end) throw new Error(`${what} did not come about in ${seconds} seconds`)
      await new Promise((resolve) => setTimeout(resolve, 10))
    }
  })
