/**
 * Every `HttpClient` that there is in Node, by the name of its module. Both keep their connections.
 */
import { FetchHttpClient } from "@effect/platform"
import * as NodeHttpClient from "@effect/platform-node/NodeHttpClient"
import { Layer } from "effect"

export const nodeClient = [
  "NodeHttpClient",
  Layer.provide(NodeHttpClient.layerWithoutAgent, NodeHttpClient.makeAgentLayer({ keepAlive: true }))
] as const

export const fetchClient = ["FetchHttpClient", FetchHttpClient.layer] as const

export const clients = [nodeClient, fetchClient]
