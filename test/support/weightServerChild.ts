/**
 * A weight server in a process of its own, for the tests that look at its memory: serves a directory on a port that it
 * prints, until its input ends.
 */
import { HttpServer } from "@effect/platform"
import * as NodeHttpServer from "@effect/platform-node/NodeHttpServer"
import { Console, Effect, Layer } from "effect"
import { createServer } from "node:http"
import { FileSystemStorage, WeightServer } from "surfing-weights"

const [directory = ""] = process.argv.slice(2)

const Live = WeightServer.layer().pipe(
  Layer.provide(FileSystemStorage.layer({ directory })),
  Layer.provideMerge(NodeHttpServer.layerServer(() => createServer(), { host: "127.0.0.1", port: 0 }))
)

process.stdin.resume().once("end", () => process.exit())

await HttpServer.addressWith((address) => Console.log(address._tag === "TcpAddress" ? address.port : 0)).pipe(
  Effect.zipRight(Effect.never),
  Effect.provide(Live),
  Effect.runPromise
)
