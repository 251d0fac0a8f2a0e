/**
 * A weight server in a process of its own: serves a directory on a port that it prints, until its input ends, or until it
 * receives a signal.
 */
import { HttpServer } from "@effect/platform"
import * as NodeHttpServer from "@effect/platform-node/NodeHttpServer"
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import { Console, Effect, Layer } from "effect"
import { createServer } from "node:http"
import { FileSystemStorage, WeightServer } from "surfing-weights"

const [directory = ""] = process.argv.slice(2)

const address = HttpServer.addressWith((address) => Console.log(address._tag === "TcpAddress" ? address.port : 0))

const Live = WeightServer.layer().pipe(
  Layer.provideMerge(NodeHttpServer.layerServer(() => createServer(), { host: "127.0.0.1", port: 0 })),
  Layer.provide(FileSystemStorage.layer({ directory }))
)

process.stdin.resume().once("end", () => process.exit())

NodeRuntime.runMain(Effect.provide(Effect.zipRight(address, Effect.never), Live))
