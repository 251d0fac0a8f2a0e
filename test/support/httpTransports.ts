/**
 * Every transport of `HttpCall`, each as a way to send a request to a URL.
 */
import { HttpClient, HttpClientRequest } from "@effect/platform"
import { Context, Effect, Layer, type Scope } from "effect"
import { sendWith, uploadOf } from "../../src/backends/http/transport.js"
import * as Connections from "../../src/backends/s3/connections.js"
import { fromHandler, type HttpRequest, type Transport } from "../../src/backends/s3/transport.js"
import type { Send } from "../../src/internal/httpCall.js"
import { clients } from "./httpClients.js"
import { client } from "./s3Server.js"

export interface Request {
  readonly method?: "GET" | "HEAD" | "PUT"
  readonly body?: Uint8Array
}

export interface HttpTransport {
  readonly name: string
  /** Whether the arrays that it reads into are written again. */
  readonly lendsBytes: boolean
  readonly make: Effect.Effect<(url: string, request?: Request) => Effect.Effect<Send>, never, Scope.Scope>
}

const overS3 = (transport: Transport) => (url: string, { body, method = "GET" }: Request = {}) => {
  const { hostname, pathname, port, protocol, search } = new URL(url)
  const request: HttpRequest = {
    method,
    protocol,
    hostname,
    port: Number(port),
    path: pathname,
    query: Object.fromEntries(new URLSearchParams(search)),
    headers: body === undefined ? {} : { "content-length": String(body.byteLength) },
    ...(body !== undefined && { body })
  }
  return Effect.succeed<Send>((receiver) => transport(request, receiver))
}

const connections: HttpTransport = {
  name: "connections of the S3 storage",
  lendsBytes: true,
  make: Effect.map(
    Effect.acquireRelease(Effect.orDie(Effect.suspend(Connections.make)), ({ close }) => Effect.sync(close)),
    ({ transport }) => overS3(transport)
  )
}

const handler: HttpTransport = {
  name: "the request handler of an S3 client",
  lendsBytes: false,
  make: Effect.map(
    Effect.acquireRelease(
      Effect.sync(() =>
        client({ kind: "given", endpoint: "http://unused", region: "r", accessKeyId: "k", secretAccessKey: "s" })
      ),
      (client) => Effect.sync(() => client.destroy())
    ),
    (client) => overS3(fromHandler(client.config.requestHandler))
  )
}

const httpClient = ([name, layer]: (typeof clients)[number]): HttpTransport => ({
  name,
  lendsBytes: false,
  make: Effect.map(Layer.build(layer), (context) => {
    const client = Context.get(context, HttpClient.HttpClient)
    return (url, { body, method = "GET" } = {}) =>
      Effect.map(Effect.runtime<never>(), (runtime) =>
        sendWith(client, runtime)(
          HttpClientRequest.make(method)(url),
          body && uploadOf(body, "application/octet-stream")
        ))
  })
})

export const transports: ReadonlyArray<HttpTransport> = [connections, handler, ...clients.map(httpClient)]
