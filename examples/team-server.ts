/**
 * A server for a team: over TLS, with a token that reads and one that writes. It serves until a signal ends it.
 */
import { FileSystem } from "@effect/platform"
import * as NodeFileSystem from "@effect/platform-node/NodeFileSystem"
import * as NodeHttpServer from "@effect/platform-node/NodeHttpServer"
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import { Config, Effect, Layer } from "effect"
import { createServer } from "node:https"
import { FileSystemStorage, WeightServer } from "surfing-weights"

// #region team
const tokens = Config.all([
  Config.map(Config.redacted("READ_TOKEN"), (token) => ({ token, scope: "read" as const })),
  Config.map(Config.redacted("WRITE_TOKEN"), (token) => ({ token, scope: "write" as const }))
])

/** Node's server with a certificate. Uploads may take any time: the weight server cuts off idle ones. */
const HttpsLive = Layer.unwrapEffect(Effect.gen(function*() {
  const { readFileString } = yield* FileSystem.FileSystem
  const cert = yield* Effect.flatMap(Config.string("TLS_CERT"), (path) => readFileString(path))
  const key = yield* Effect.flatMap(Config.string("TLS_KEY"), (path) => readFileString(path))
  const port = yield* Config.withDefault(Config.integer("PORT"), 8443)
  return NodeHttpServer.layer(
    () => createServer({ cert, key, headersTimeout: 10_000, requestTimeout: 0 }),
    { host: "0.0.0.0", port }
  )
})).pipe(Layer.provide(NodeFileSystem.layer))

const TeamServer = WeightServer.layerConfig({
  writable: Config.succeed(true),
  auth: Config.map(tokens, (tokens) => ({ tokens })),
  accessLog: Config.succeed(true)
}).pipe(
  Layer.provide(HttpsLive),
  Layer.provide(FileSystemStorage.layerConfig({ directory: Config.string("DIRECTORY") }))
)

NodeRuntime.runMain(Layer.launch(TeamServer))
// #endregion
