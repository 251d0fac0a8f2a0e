/**
 * A device at the edge: it reads weights from a server over HTTP, caches them on its disk, and works while the server is
 * down. The server runs in this process.
 */
import { FetchHttpClient, FileSystem, HttpServer } from "@effect/platform"
import * as NodeFileSystem from "@effect/platform-node/NodeFileSystem"
import * as NodeHttpServer from "@effect/platform-node/NodeHttpServer"
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import { Console, Context, Duration, Effect, Layer, Redacted, Schedule, Stream } from "effect"
import { deepStrictEqual, strictEqual } from "node:assert/strict"
import { createServer } from "node:http"
import { FileSystemStorage, HttpStorage, MemoryStorage, Storage, StorageCache, WeightServer } from "surfing-weights"

const MiB = 1024 * 1024

// #region layer
/** The objects of the server, cached in memory and on the disk. */
const weights = (url: string, directory: string) =>
  StorageCache.layer({
    capacity: 16 * MiB,
    freshness: "immutable",
    tier: { layer: FileSystemStorage.layer({ directory }), capacity: 1024 * MiB }
  }).pipe(
    Layer.provide(HttpStorage.layer({
      url,
      token: Redacted.make("the-token-of-this-device"),
      // The layer can be built while the server is down.
      verify: false,
      // Fail soon.
      retry: Schedule.recurs(2)
    })),
    Layer.provide(FetchHttpClient.layer)
  )
// #endregion

const layers = Array.from({ length: 8 }, (_, i) => new Uint8Array(MiB).fill(i))

/** Serves these weights until the scope is closed, and returns the URL. */
const server = Effect.gen(function*() {
  const storage = yield* MemoryStorage.make()
  yield* storage.save("bert/layer_0.bin", Stream.fromIterable(layers))
  yield* storage.save("bert/layer_1.bin", new Uint8Array(MiB))
  const context = yield* Layer.build(
    WeightServer.layer().pipe(
      Layer.provideMerge(NodeHttpServer.layer(() => createServer(), { host: "127.0.0.1", port: 0 })),
      Layer.provide(Layer.succeed(Storage.Storage, storage))
    )
  )
  const { address } = Context.get(context, HttpServer.HttpServer)
  return address._tag === "TcpAddress" ? `http://127.0.0.1:${address.port}` : address.path
})

const run = (when: string) =>
  Effect.gen(function*() {
    const [took, bytes] = yield* Effect.timed(Storage.load("bert/layer_0.bin"))
    deepStrictEqual(bytes, new Uint8Array(Buffer.concat(layers)))
    const { name } = (yield* Storage.Storage).backend
    yield* Console.log(`${when}: ${bytes.length / MiB} MiB in ${Duration.toMillis(took).toFixed(0)} ms by ${name}`)
  })

const main = Effect.gen(function*() {
  const directory = yield* (yield* FileSystem.FileSystem).makeTempDirectoryScoped({ prefix: "surfing-weights-" })

  const url = yield* Effect.scoped(Effect.gen(function*() {
    const url = yield* server
    yield* Effect.provide(run("From the server"), weights(url, directory))
    return url
  }))

  // As after a restart of the device, while the server is down.
  yield* Effect.gen(function*() {
    yield* run("The server is down; from the disk")
    const error = yield* Effect.flip(Storage.load("bert/layer_1.bin"))
    strictEqual(error._tag, "StorageUnavailable")
    yield* Console.log(`Not on the disk: ${error._tag}: ${error.message}`)
  }).pipe(Effect.provide(weights(url, directory)))
})

main.pipe(Effect.scoped, Effect.provide(NodeFileSystem.layer), NodeRuntime.runMain)
