/**
 * A server to be measured, in a process of its own: `httpServer.ts <kind> <directory>` serves the files of a directory on
 * a port that it prints, until its input ends.
 *
 * - `ours` is `WeightServer` over `FileSystemStorage`
 * - `node` is `node:http` with what one would write by hand: a stat, and a file stream that is piped
 * - `bare` is `node:http` with the file read whole
 */
import * as NodeHttpServer from "@effect/platform-node/NodeHttpServer"
import * as HttpServer from "@effect/platform/HttpServer"
import { Console, Effect, Layer } from "effect"
import * as fs from "node:fs"
import * as http from "node:http"
import type { AddressInfo } from "node:net"
import * as path from "node:path"
import { FileSystemStorage, WeightServer } from "surfing-weights"

const [kind = "", directory = ""] = process.argv.slice(2)

const pathOf = (url = ""): string => path.join(directory, decodeURIComponent(url.replace("/objects/", "")))

const handlers: Record<string, http.RequestListener> = {
  node: (request, response) => {
    const file = pathOf(request.url)
    fs.stat(file, (_, { mtime, size }) => {
      response.writeHead(200, { "content-length": size, "last-modified": mtime.toUTCString() })
      fs.createReadStream(file).pipe(response)
    })
  },
  bare: (request, response) => {
    fs.readFile(pathOf(request.url), (_, bytes) => {
      response.writeHead(200, { "content-length": bytes.length })
      response.end(bytes)
    })
  }
}

const say = (port: number) => Console.log(port)

const stopped = Effect.async<void>((resume) => void process.stdin.resume().once("end", () => resume(Effect.void)))

const ours = Effect.flatMap(
  HttpServer.HttpServer,
  ({ address }) => Effect.zipRight(say(address._tag === "TcpAddress" ? address.port : 0), stopped)
).pipe(
  Effect.provide(
    WeightServer.layer().pipe(
      Layer.provideMerge(FileSystemStorage.layer({ directory })),
      Layer.provideMerge(NodeHttpServer.layer(() => http.createServer(), { host: "127.0.0.1", port: 0 }))
    )
  )
)

const handler = handlers[kind]
const theirs = Effect.async<void>((resume) => {
  const server = http.createServer(handler)
  server.listen(0, "127.0.0.1", () => resume(Effect.zipRight(say((server.address() as AddressInfo).port), stopped)))
})

await Effect.runPromise(handler === undefined ? ours : theirs)
process.exit()
