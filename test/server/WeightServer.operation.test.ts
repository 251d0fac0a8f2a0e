/**
 * What the operator of a weight server sees, and what others do not: logs, metrics, names, and requests before the storage is
 * ready.
 */
import type { HttpServer } from "@effect/platform"
import * as NodeHttpServer from "@effect/platform-node/NodeHttpServer"
import * as FetchHttpClient from "@effect/platform/FetchHttpClient"
import { describe, expect, it } from "@effect/vitest"
import { Config, Deferred, Effect, Fiber, Layer, Logger, Redacted, Stream } from "effect"
import { once } from "node:events"
import * as fs from "node:fs"
import * as http from "node:http"
import * as net from "node:net"
import * as path from "node:path"
import { FileSystemStorage, HttpStorage, MemoryStorage, Storage, StorageError, WeightServer } from "surfing-weights"
import { temporaryDirectory } from "../support/directory.js"
import { ask, eventually, serveOf } from "../support/weightServer.js"

/** What is logged by everything that runs under it. */
const capture = () => {
  const lines: Array<string> = []
  const logger = Logger.map(Logger.logfmtLogger, (line) => void lines.push(line))
  return { lines, logger: Logger.replace(Logger.defaultLogger, logger) }
}

/** A download whose client reads nothing. */
const begin = (url: string) =>
  Effect.promise(async () => {
    const request = http.get(url, { agent: false }).on("error", () => {})
    const [response] = await once(request, "response") as [http.IncomingMessage]
    response.on("error", () => {}).pause()
    return { request, response }
  })

describe("a request before the storage is ready", () => {
  const free = Effect.promise(() =>
    new Promise<number>((resolve) => {
      const server = net.createServer().listen(0, "127.0.0.1", () => {
        const { port } = server.address() as net.AddressInfo
        server.close(() => resolve(port))
      })
    })
  )

  const health = (port: number) =>
    Effect.promise(() =>
      fetch(`http://127.0.0.1:${port}/health`).then(
        ({ headers, status }) => [status, headers.get("retry-after")],
        () => "not listening"
      )
    )

  const orders = {
    "the server is provided last": (served, storage, server) =>
      served.pipe(Layer.provide(storage), Layer.provideMerge(server)),
    "server and storage are provided together": (served, storage, server) =>
      Layer.provideMerge(served, Layer.merge(storage, server)),
    "the storage is provided last, as in the README": (served, storage, server) =>
      served.pipe(Layer.provideMerge(server), Layer.provide(storage))
  } satisfies Record<
    string,
    (
      served: Layer.Layer<never, StorageError.InvalidOptions, HttpServer.HttpServer | Storage.Storage>,
      storage: Layer.Layer<Storage.Storage>,
      server: Layer.Layer<HttpServer.HttpServer>
    ) => Layer.Layer<HttpServer.HttpServer, unknown>
  >

  for (const [name, order] of Object.entries(orders)) {
    it.scopedLive(`is refused with a 503 or finds no one listening, and is answered later: ${name}`, () =>
      Effect.gen(function*() {
        const port = yield* free
        const ready = yield* Deferred.make<void>()
        const slow = Layer.unwrapEffect(Effect.as(Deferred.await(ready), MemoryStorage.layer()))
        const listen = Layer.orDie(
          NodeHttpServer.layerServer(() => http.createServer(), { host: "127.0.0.1", port })
        )
        const building = yield* Effect.fork(Layer.build(order(WeightServer.layer(), slow, listen)))
        yield* Effect.sleep("100 millis")
        const early = yield* health(port)
        expect(early).toEqual(name.endsWith("README") ? "not listening" : [503, "1"])
        yield* Deferred.succeed(ready, undefined)
        yield* Fiber.join(building)
        expect(yield* health(port)).toEqual([200, null])
      }))
  }

  it.scopedLive("is refused with a 503 also where the options come from Config", () =>
    Effect.gen(function*() {
      const port = yield* free
      const listen = NodeHttpServer.layerServer(() => http.createServer(), { host: "127.0.0.1", port })
      const never = Layer.effect(Storage.Storage, Effect.never)
      const served = WeightServer.layerConfig({ maxTransfers: Config.succeed(5) })
      const building = yield* Effect.fork(Layer.build(served.pipe(Layer.provide(never), Layer.provide(listen))))
      yield* Effect.sleep("100 millis")
      expect(yield* health(port)).toEqual([503, "1"])
      yield* Fiber.interrupt(building)
    }))
})

describe("names", () => {
  it.scopedLive("a client sees the public name, and the reasons of its own mistakes", () =>
    Effect.gen(function*() {
      const directory = path.join(yield* temporaryDirectory, "tellingname")
      const storage = yield* FileSystemStorage.make({ directory })
      yield* storage.save("there", new Uint8Array(100))
      const served = yield* serveOf(storage, { writable: true })
      const got = yield* ask(served, "PUT", "/objects/there/below", {}, "x")
      expect(JSON.parse(got.text)).toMatchObject({
        _tag: "UnsupportedOperation",
        backend: "WeightServer",
        reason: expect.stringContaining("\"there/below\"") as string
      })
      const client = yield* HttpStorage.make({ url: served.url }).pipe(Effect.provide(FetchHttpClient.layer))
      fs.rmSync(directory, { recursive: true })
      fs.writeFileSync(directory, "in the way")
      const error = yield* Effect.flip(client.save("new", new Uint8Array(3)))
      const all = JSON.stringify(error) + error.message + String(error.stack) + JSON.stringify(error.cause ?? "")
      expect(all).not.toContain("tellingname")
      expect(error.message).toContain("the storage of the server failed")
    }))

  it.scopedLive("metrics tell storages apart by their kinds", () =>
    Effect.gen(function*() {
      const memory = yield* MemoryStorage.make()
      const named = (name: string) => Storage.make({ ...memory.backend, name })
      for (
        const name of [
          "Cache(Prefix(secret/a, S3(secret-bucket)))",
          "S3(secret-one)",
          "S3(secret-two)",
          "Retry(Memory)"
        ]
      ) yield* named(name).exists("k")
      const served = yield* serveOf(memory)
      const { text } = yield* ask(served, "GET", "/metrics")
      expect(text).not.toContain("secret")
      for (const kind of ["Cache/Prefix/S3", "S3", "S3 2", "Retry/Memory"]) {
        expect(text).toMatch(new RegExp(`^storage_operations_total\\{.*backend="${kind}"`, "m"))
      }
    }))
})

describe("logs", () => {
  it.scopedLive("one line says where the server listens, with its storage and who may do what", () =>
    Effect.gen(function*() {
      const { lines, logger } = capture()
      const memory = yield* MemoryStorage.make()
      const token = { token: Redacted.make("reader-0123456789abcdef"), scope: "read" } as const
      const open = yield* Effect.provide(serveOf(memory, { writable: true }), logger)
      const closed = yield* Effect.provide(serveOf(memory, { auth: { tokens: [token] } }), logger)
      expect(lines.map((line) => /message="(.*)"/.exec(line)?.[1])).toEqual([
        `listening on 127.0.0.1:${open.port} (storage: Memory, writable, no authorization)`,
        `listening on 127.0.0.1:${closed.port} (storage: Memory, read-only, bearer tokens)`
      ])
      yield* ask(open, "GET", "/objects/none")
      expect(lines.length).toBe(2)
    }))

  it.scopedLive("each 5xx is logged with its cause, a broken listing and an unhealthy storage too", () =>
    Effect.gen(function*() {
      const { lines, logger } = capture()
      const memory = yield* MemoryStorage.make()
      const down = new StorageError.StorageUnavailable({
        reason: "no route",
        cause: new Error("EHOSTUNREACH bucket-7")
      })
      const storage = Storage.make({
        ...memory.backend,
        name: "S3(bucket-7)",
        open: () => Effect.fail(down),
        head: () => Effect.fail(down),
        entries: (options) => Stream.concat(memory.backend.entries(options), Stream.fail(down))
      })
      yield* memory.save("a", new Uint8Array(1))
      const served = yield* Effect.provide(serveOf(storage), logger)
      yield* ask(served, "GET", "/objects/a")
      yield* Effect.ignore(ask(served, "GET", "/objects", { accept: "application/x-ndjson" }))
      yield* ask(served, "GET", "/health")
      yield* ask(served, "GET", "/health")
      const errors = lines.filter((line) => line.includes("level=ERROR"))
      expect(errors.length).toBe(3)
      for (const line of errors) expect(line).toMatch(/S3\(bucket-7\).*no route.*EHOSTUNREACH bucket-7/)
      expect(errors[0]).toContain("http.status=503")
    }))

  it.scopedLive("each request is logged where that is turned on: what was asked, the status, and who disconnected", () =>
    Effect.gen(function*() {
      const { lines, logger } = capture()
      const memory = yield* MemoryStorage.make()
      yield* memory.save("a", new Uint8Array(20 * 1024 * 1024))
      const served = yield* Effect.provide(serveOf(memory, { accessLog: true }), logger)
      lines.length = 0
      yield* ask(served, "GET", "/objects/a", { authorization: "Bearer s3cret-token" })
      yield* ask(served, "GET", "/objects/none")
      const { request } = yield* begin(`${served.url}/objects/a`)
      request.destroy()
      yield* eventually("the log", () => lines.length >= 3, 10)
      expect(lines[0]).toMatch(/level=INFO.*GET \\"\/objects\/a\\" 200".*http\.length=20971520/)
      expect(lines[1]).toMatch(/GET \\"\/objects\/none\\" 404"/)
      expect(lines[2]).toMatch(/GET \\"\/objects\/a\\" 200, the client disconnected"/)
      expect(lines.join()).not.toContain("s3cret")
    }))
})

describe("metrics", () => {
  it.scopedLive("count requests by status, those under way, refused ones, and responses that were cut off", () =>
    Effect.gen(function*() {
      const memory = yield* MemoryStorage.make()
      yield* memory.save("a", new Uint8Array(20 * 1024 * 1024))
      const served = yield* serveOf(memory, { maxTransfers: 1, idleTimeout: "300 millis" })
      const read = Effect.map(
        ask(served, "GET", "/metrics"),
        ({ text }) => (line: string) =>
          Number(text.split("\n").find((found) => found.startsWith(`${line} `))?.slice(line.length) ?? 0)
      )
      const before = yield* read
      yield* ask(served, "GET", "/objects/none")
      const stopped = yield* begin(`${served.url}/objects/a`)
      expect((yield* ask(served, "GET", "/objects/a")).status).toBe(503)
      const during = yield* read
      // Those metrics are a request, too.
      expect(during("weight_server_in_flight")).toBe(before("weight_server_in_flight") + 1)
      const after = yield* Effect.repeat(Effect.delay(read, "50 millis"), {
        until: (after) => after("weight_server_in_flight") === before("weight_server_in_flight")
      })
      stopped.request.destroy()
      const difference = (line: string) => after(line) - before(line)
      expect(difference(`weight_server_requests_total{status="404"}`)).toBe(1)
      expect(difference(`weight_server_requests_total{status="503"}`)).toBe(1)
      expect(difference("weight_server_refused_total")).toBe(1)
      expect(difference(`weight_server_cut_total{reason="idle"}`)).toBe(1)
      expect(difference("weight_server_in_flight")).toBe(0)
    }))
})
