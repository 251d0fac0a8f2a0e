/**
 * A weight server of the tests' own: on loopback, at a port that was free, and gone with its scope. And the clients that
 * ask it.
 */
import { FetchHttpClient, type HttpClient, HttpServer } from "@effect/platform"
import * as NodeHttpClient from "@effect/platform-node/NodeHttpClient"
import * as NodeHttpServer from "@effect/platform-node/NodeHttpServer"
import { Context, Effect, Layer, type Scope } from "effect"
import { createServer } from "node:http"
import { Storage, WeightServer } from "surfing-weights"

/** Serves a storage; gives the URL. */
export const serve = (
  storage: Storage.Service,
  options: WeightServer.Options = { writable: true }
): Effect.Effect<string, unknown, Scope.Scope> =>
  Layer.build(
    WeightServer.layer(options).pipe(
      Layer.provideMerge(NodeHttpServer.layer(() => createServer(), { port: 0, host: "127.0.0.1" })),
      Layer.provide(Layer.succeed(Storage.Storage, storage))
    )
  ).pipe(
    Effect.map((context) => {
      const { address } = Context.get(context, HttpServer.HttpServer)
      return address._tag === "TcpAddress" ? `http://127.0.0.1:${address.port}` : address.path
    })
  )

/** Every client that there is in Node, by the name of its module. Both keep their connections. */
export const clients: ReadonlyArray<readonly [name: string, layer: Layer.Layer<HttpClient.HttpClient>]> = [
  [
    "NodeHttpClient",
    Layer.provide(NodeHttpClient.layerWithoutAgent, NodeHttpClient.makeAgentLayer({ keepAlive: true }))
  ],
  ["FetchHttpClient", FetchHttpClient.layer]
]
