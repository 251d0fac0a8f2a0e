/**
 * A weight server in a process of its own: serves a directory, with options as JSON, on a port that it prints once it serves, until its
 * input ends, or until it receives a signal. It is built in one of the ways in which apps do.
 */
import { HttpRouter, HttpServer } from "@effect/platform"
import * as NodeHttpServer from "@effect/platform-node/NodeHttpServer"
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import { Console, Effect, Layer, Logger, LogLevel } from "effect"
import { createServer } from "node:http"
import { FileSystemStorage, WeightServer } from "surfing-weights"

const [directory = "", json = "{}", shape = "launch"] = process.argv.slice(2)

const options = JSON.parse(json) as WeightServer.Options

const address = HttpServer.addressWith((address) => Console.log(address._tag === "TcpAddress" ? address.port : 0))

const server = NodeHttpServer.layerServer(() => createServer({ requestTimeout: 0 }), { host: "127.0.0.1", port: 0 })
const storage = FileSystemStorage.layer({ directory })

const mounted = WeightServer.router(options).pipe(
  Effect.map((weights) => HttpRouter.mount(HttpRouter.empty, "/weights", weights)),
  Effect.map((app) => HttpServer.serve(app)),
  Layer.unwrapScoped
)

const shapes = {
  launch: WeightServer.layer(options).pipe(Layer.tap(() => address), Layer.provide(server), Layer.provide(storage)),
  early: WeightServer.layer(options).pipe(Layer.tap(() => address), Layer.provide(storage), Layer.provide(server)),
  router: mounted.pipe(Layer.tap(() => address), Layer.provide(server), Layer.provide(storage))
}

process.stdin.resume().once("end", () => process.exit())

NodeRuntime.runMain(
  Logger.withMinimumLogLevel(Layer.launch(shapes[shape as keyof typeof shapes]), LogLevel.Warning)
)
