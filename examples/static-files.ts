/**
 * The files of any web server or CDN as a storage, which only reads. The web server is a few lines in this process.
 */
import { FetchHttpClient } from "@effect/platform"
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import { Console, Effect, Layer, Stream } from "effect"
import { deepStrictEqual, strictEqual } from "node:assert/strict"
import { createServer } from "node:http"
import type { AddressInfo } from "node:net"
import { ByteRange, HttpStorage, Storage } from "surfing-weights"

const bytes = Uint8Array.from({ length: 1_000_000 }, (_, i) => i % 251)

/** Serves one file, with ranges, as any web server does; its URL. */
const webServer = Effect.map(
  Effect.acquireRelease(
    Effect.async<ReturnType<typeof createServer>>((resume) => {
      const server = createServer((request, response) => {
        const [, start = "0", end = `${bytes.length - 1}`] = /^bytes=(\d+)-(\d+)?$/.exec(request.headers.range ?? "") ??
          []
        if (request.url !== "/models/bert/layer_0.bin") return response.writeHead(404).end()
        const part = bytes.subarray(Number(start), Number(end) + 1)
        return response.writeHead(request.headers.range === undefined ? 200 : 206, {
          "content-length": part.length,
          "content-range": `bytes ${start}-${end}/${bytes.length}`,
          etag: `"v1"`
        }).end(part)
      })
      server.listen(0, "127.0.0.1", () => resume(Effect.succeed(server)))
    }),
    (server) => Effect.sync(() => server.close())
  ),
  (server) => `http://127.0.0.1:${(server.address() as AddressInfo).port}/models`
)

// #region program
const program = Effect.gen(function*() {
  // GET <url>/bert/layer_0.bin
  const size = yield* Stream.runFold(Storage.stream("bert/layer_0.bin"), 0, (sum, { byteLength }) => sum + byteLength)
  const header = yield* Storage.load("bert/layer_0.bin", { range: ByteRange.make(0, 16) })

  // A web server has no listings, and its files cannot be changed.
  const refused = yield* Effect.flip(Storage.list("bert/"))
  return { size, header, refused }
})
// #endregion

const main = Effect.gen(function*() {
  const url = yield* webServer

  // #region layer
  const WeightsLive = HttpStorage.layer({ url, static: true }).pipe(Layer.provide(FetchHttpClient.layer))
  // #endregion

  const { header, refused, size } = yield* Effect.provide(program, WeightsLive)
  strictEqual(size, bytes.length)
  deepStrictEqual(header, bytes.slice(0, 16))
  strictEqual(refused._tag, "UnsupportedOperation")
  yield* Console.log(`Streamed ${size} bytes, and loaded a range of ${header.byteLength}`)
  yield* Console.log(`Handled: ${refused.message}`)

  const missing = yield* Effect.flip(Effect.provide(Storage.load("bert/layer_1.bin"), WeightsLive))
  strictEqual(missing._tag, "ObjectNotFound")
  yield* Console.log(`Handled: ${missing.message}`)
})

main.pipe(Effect.scoped, NodeRuntime.runMain)
