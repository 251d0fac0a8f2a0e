/**
 * A server to be measured, in a process of its own: `httpServer.ts <kind> <directory>` serves the files of a directory on
 * a port that it prints, until its input ends.
 *
 * - `ours` is `WeightServer` over `FileSystemStorage`
 * - `app` is an app's own server, which answers with the stream of a `FileSystemStorage`
 * - `plain` is `node:http` doing the same, with a file stream that is piped
 * - `pipe` is `node:http` with a file stream, of the range that is asked for, that is piped
 * - `bare` is `node:http` that reads a file in one go, and tells of it what `WeightServer` tells
 */
import * as NodeHttpServer from "@effect/platform-node/NodeHttpServer"
import * as HttpServer from "@effect/platform/HttpServer"
import * as HttpServerRequest from "@effect/platform/HttpServerRequest"
import * as HttpServerResponse from "@effect/platform/HttpServerResponse"
import { Console, Effect, Layer, Logger } from "effect"
import * as fs from "node:fs"
import * as http from "node:http"
import type { AddressInfo } from "node:net"
import * as path from "node:path"
import { FileSystemStorage, Storage, WeightServer } from "surfing-weights"

const [kind = "", directory = ""] = process.argv.slice(2)

const pathOf = (url = ""): string => path.join(directory, decodeURIComponent(url.replace("/objects/", "")))

const fail = (response: http.ServerResponse): void => {
  response.writeHead(500).end()
}

const handlers: Record<string, http.RequestListener> = {
  plain: (request, response) => {
    fs.createReadStream(pathOf(request.url)).on("error", () => fail(response)).pipe(response)
  },
  pipe: (request, response) => {
    const file = pathOf(request.url)
    fs.stat(file, (error, stats): void => {
      if (error !== null) return fail(response)
      const range = /^bytes=(\d+)-(\d+)$/.exec(request.headers.range ?? "")
      const [start, end] = range ? [Number(range[1]), Number(range[2])] : [0, stats.size - 1]
      response.writeHead(range ? 206 : 200, {
        "content-length": end - start + 1,
        ...(range && { "content-range": `bytes ${start}-${end}/${stats.size}` }),
        "last-modified": stats.mtime.toUTCString()
      })
      fs.createReadStream(file, { start, end }).pipe(response)
    })
  },
  bare: (request, response) => {
    fs.open(pathOf(request.url), "r", (error, file): void => {
      if (error !== null) return fail(response)
      const end = (answer: () => void) => fs.close(file, answer)
      fs.fstat(file, (error, { ino, mtime, size }): void => {
        if (error !== null) return end(() => fail(response))
        const bytes = Buffer.allocUnsafe(size)
        fs.read(file, bytes, 0, size, 0, (error, count) =>
          end((): void => {
            if (error !== null || count !== size) return fail(response)
            response.writeHead(200, {
              "accept-ranges": "bytes",
              "cache-control": "no-cache",
              "content-length": size,
              "content-type": "application/octet-stream",
              etag: `"${ino}-${mtime.getTime()}"`,
              "last-modified": mtime.toUTCString(),
              "x-content-type-options": "nosniff"
            })
            response.end(bytes)
          }))
      })
    })
  }
}

const say = (port: number) => Console.log(port)

const stopped = Effect.async<void>((resume) => {
  process.stdin.resume().once("end", () => resume(Effect.void))
})

const app = HttpServer.serve(
  Effect.gen(function*() {
    const { url } = yield* HttpServerRequest.HttpServerRequest
    const storage = yield* Storage.Storage
    return HttpServerResponse.stream(storage.stream(decodeURIComponent(url.replace("/objects/", ""))))
  })
)

const serve = <E>(served: Layer.Layer<never, E, HttpServer.HttpServer | Storage.Storage>) =>
  Effect.flatMap(
    HttpServer.HttpServer,
    ({ address }) => Effect.zipRight(say(address._tag === "TcpAddress" ? address.port : 0), stopped)
  ).pipe(
    Effect.provide(
      served.pipe(
        Layer.provideMerge(FileSystemStorage.layer({ directory })),
        Layer.provideMerge(NodeHttpServer.layer(() => http.createServer(), { host: "127.0.0.1", port: 0 })),
        // The port is all that is read.
        Layer.provide(Logger.remove(Logger.defaultLogger))
      )
    )
  )

const handler = handlers[kind]
const theirs = Effect.async<void>((resume) => {
  const server = http.createServer(handler)
  server.listen(0, "127.0.0.1", () => resume(Effect.zipRight(say((server.address() as AddressInfo).port), stopped)))
})

const ours = () => serve(kind === "app" ? app : WeightServer.layer())

await Effect.runPromise(handler === undefined ? ours() : theirs)
process.exit()
