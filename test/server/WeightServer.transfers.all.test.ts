/**
 * A weight server with slow, broken and many clients, with a storage that fails, and when it shuts down.
 */
import { HttpRouter, HttpServer } from "@effect/platform"
import * as NodeHttpServer from "@effect/platform-node/NodeHttpServer"
import { describe, expect, it } from "@effect/vitest"
import {
  Context,
  Deferred,
  Effect,
  Fiber,
  Layer,
  Logger,
  Option,
  Redacted,
  Schedule,
  Schema,
  type Scope,
  Stream,
  Supervisor,
  Tracer
} from "effect"
import { spawn } from "node:child_process"
import { once } from "node:events"
import * as fs from "node:fs"
import * as http from "node:http"
import * as net from "node:net"
import * as path from "node:path"
import { FileSystemStorage, MemoryStorage, Storage, StorageError, WeightServer } from "surfing-weights"
import { temporaryDirectory } from "../support/directory.js"
import { descriptorsOf } from "../support/fileSystem.js"
import { thenHeldUp } from "../support/heldUp.js"
import { intercepting } from "../support/intercepting.js"
import { ask, eventually, raw, serve, type Served, serveOf } from "../support/weightServer.js"
import { residentMemory, serveInProcess } from "../support/weightServerProcess.js"

const MiB = 1024 * 1024

const failureOf = (json: string) => Schema.decodeSync(Schema.parseJson(StorageError.StorageError))(json)

const overMemory = (name: string, body: Effect.Effect<void, unknown, Storage.Storage | Scope.Scope>) =>
  it.live(name, () => Effect.scoped(body).pipe(Effect.provide(MemoryStorage.layer())))

/** A storage on a directory with one file of holes, and how many files of it this process has open. */
const withSparse = (size: number) =>
  Effect.gen(function*() {
    const directory = fs.realpathSync(yield* temporaryDirectory)
    const file = path.join(directory, "big")
    fs.writeFileSync(file, "start")
    fs.truncateSync(file, size)
    const opened = () => descriptorsOf(file).length
    return { storage: yield* FileSystemStorage.make({ directory }), opened, directory }
  })

/** Asks for an object and reads nothing but what fits in buffers; the socket ends with the scope. */
const slowly = ({ port }: Pick<Served, "port">, request = "GET /objects/big HTTP/1.1\r\nHost: x\r\n\r\n") =>
  Effect.acquireRelease(
    Effect.promise(async () => {
      const socket = net.connect(port, "127.0.0.1")
      socket.on("error", () => {})
      socket.pause()
      socket.write(request)
      await once(socket, "connect")
      return socket
    }),
    (socket) => Effect.sync(() => socket.destroy())
  )

/** Reads for a while, waits for a while, and so on. */
const readsSlowly = `require("node:http").get(process.argv[1], (answer) =>
  answer.on("data", () => {
    answer.pause()
    setTimeout(() => answer.resume(), 3)
  }))`

const status = (served: Served, path = "/health") => Effect.map(ask(served, "GET", path), ({ status }) => status)

describe.skipIf(!fs.existsSync("/proc/self/fd"))("downloads", () => {
  it.live("the file is closed at once when the client disconnects", () =>
    Effect.scoped(Effect.gen(function*() {
      const { opened, storage } = yield* withSparse(1024 * MiB)
      const served = yield* serveOf(storage)
      const socket = yield* slowly(served)
      yield* eventually("opening the file", () => opened() === 1)
      socket.destroy()
      yield* eventually("closing the file", () => opened() === 0, 1)
    })))

  it.live("a connection that breaks before its response is sent releases everything", () =>
    Effect.gen(function*() {
      const supervisor = yield* Supervisor.track
      const met: Array<string> = []
      const serving = Effect.gen(function*() {
        let broken: ReadonlyArray<net.Socket> = []
        const breaking = intercepting(yield* MemoryStorage.make(), {
          around: (effect, { operation }) =>
            Effect.ensuring(
              effect,
              Effect.sync(() => {
                if (broken.length > 0) met.push(operation)
                for (const socket of broken) socket.destroy()
              })
            )
        })
        yield* breaking.save("object", new Uint8Array(1000))
        const served = yield* serveOf(breaking, { writable: true, maxTransfers: 1 })
        const { connections } = served
        broken = connections
        const requests = [
          ["GET", "/objects/object"],
          ["GET", "/objects/none"],
          ["HEAD", "/objects/object"],
          ["HEAD", "/objects/none"],
          ["GET", "/objects"],
          ["PUT", "/objects/new"],
          ["DELETE", "/objects/new"]
        ] as const
        for (const [method, path] of requests) {
          const answered = yield* Effect.exit(ask(served, method, path))
          expect([method, path, answered._tag]).toEqual([method, path, "Failure"])
        }
        // The second of two that came at once, whose turn to be answered never comes.
        yield* raw(served, "GET /objects/object HTTP/1.1\r\nHost: localhost\r\n\r\n".repeat(2))
        broken = []
        expect((yield* ask(served, "GET", "/objects/object")).status).toBe(200)
      })
      yield* Effect.supervised(Effect.scoped(serving), supervisor)
      expect(met.length).toBeGreaterThanOrEqual(8)
      const left = yield* Effect.repeat(supervisor.value, {
        until: ({ length }) => length === 0,
        schedule: Schedule.intersect(Schedule.spaced("10 millis"), Schedule.recurs(200))
      }).pipe(Effect.zipRight(supervisor.value))
      expect(left.length).toBe(0)
    }))

  it.live("many pipelined requests on one connection are answered without a warning from Node", () =>
    Effect.scoped(Effect.gen(function*() {
      const warnings: Array<string> = []
      const listener = ({ message }: Error) => void warnings.push(message)
      yield* Effect.acquireRelease(
        Effect.sync(() => process.on("warning", listener)),
        () => Effect.sync(() => process.off("warning", listener))
      )
      const storage = yield* MemoryStorage.make()
      yield* storage.save("object", new Uint8Array(60_000))
      const served = yield* serveOf(storage)
      const request = "GET /objects/object HTTP/1.1\r\nHost: x\r\n"
      const got = yield* raw(served, `${request}\r\n`.repeat(39) + `${request}Connection: close\r\n\r\n`)
      expect(got.split("HTTP/1.1 200 OK").length - 1).toBe(40)
      expect(warnings).toEqual([])
    })))

  it.live("pipelined requests of a client that disconnected are released at the idle timeout", () =>
    Effect.scoped(Effect.gen(function*() {
      const { opened, storage } = yield* withSparse(1024 * MiB)
      const served = yield* serveOf(storage, { idleTimeout: "1 second" })
      const request = "GET /objects/big HTTP/1.1\r\nHost: x\r\n\r\n"
      const socket = yield* slowly(served, request.repeat(20))
      yield* eventually("opening the file for each", () => opened() === 20)
      socket.destroy()
      yield* eventually("closing all of them", () => opened() === 0, 4)
    })))

  it.live("a client that reads nothing is cut off after the idle timeout, and one that reads slowly is not", () =>
    Effect.scoped(Effect.gen(function*() {
      const { opened, storage } = yield* withSparse(1024 * MiB)
      const served = yield* serveOf(storage, { idleTimeout: "1 second" })
      const idle = yield* slowly(served)
      const slow = yield* slowly(served)
      let got = 0
      slow.on("data", (bytes: Buffer) => {
        got += bytes.length
        slow.pause()
        setTimeout(() => void slow.resume(), 5)
      })
      slow.resume()
      yield* eventually("two open files", () => opened() === 2)
      yield* eventually("closing the file of the idle one", () => opened() === 1, 4)
      yield* Effect.sleep("1500 millis")
      expect(opened()).toBe(1)
      expect(got).toBeGreaterThan(MiB)
      idle.resume()
      yield* Effect.promise(() => once(idle, "close"))
      expect(slow.destroyed).toBe(false)
    })))

  it.live("a client that requests many small objects and reads none of them is cut off after the idle timeout", () =>
    Effect.scoped(Effect.gen(function*() {
      const storage = yield* MemoryStorage.make()
      yield* storage.save("small", new Uint8Array(60_000))
      const served = yield* serveOf(storage, { idleTimeout: "1 second" })
      // More than the system takes while nobody reads.
      const socket = yield* slowly(served, "GET /objects/small HTTP/1.1\r\nHost: x\r\n\r\n".repeat(400))
      yield* Effect.sleep("700 millis")
      expect(served.connections.map(({ destroyed }) => destroyed)).toEqual([false])
      yield* eventually("the end of its connection", () => served.connections.every(({ destroyed }) => destroyed), 4)
      let got = 0
      socket.on("data", (bytes: Buffer) => {
        got += bytes.length
      }).resume()
      yield* Effect.promise(() => once(socket, "close"))
      expect(got).toBeLessThan(400 * 60_000)
    })))

  it.live("a client that read while the server was blocked for longer than the idle timeout is not cut off", () =>
    Effect.scoped(Effect.gen(function*() {
      const { opened, storage } = yield* withSparse(1024 * MiB)
      const { url } = yield* serveOf(storage, { idleTimeout: "1 second" })
      yield* Effect.acquireRelease(
        Effect.sync(() => spawn(process.execPath, ["-e", readsSlowly, `${url}/objects/big`], { stdio: "ignore" })),
        (client) => Effect.sync(() => client.kill("SIGKILL"))
      )
      yield* eventually("an open file", () => opened() === 1)
      for (let i = 0; i < 3; i++) {
        yield* Effect.sleep("500 millis")
        yield* thenHeldUp(() => {}, 1600)
      }
      yield* Effect.sleep("500 millis")
      expect(opened()).toBe(1)
    })))

  it.live("clients that read a byte a second do not slow others down", () =>
    Effect.scoped(Effect.gen(function*() {
      const { storage } = yield* withSparse(1024 * MiB)
      yield* storage.save("small", new Uint8Array(100_000))
      const served = yield* serveOf(storage)
      const sockets = yield* Effect.forEach(Array.from({ length: 50 }), () => slowly(served))
      for (const socket of sockets) {
        const timer = setInterval(() => void socket.read(1), 1000)
        socket.once("close", () => clearInterval(timer))
      }
      const start = Date.now()
      yield* Effect.forEach(
        Array.from({ length: 100 }),
        () => Effect.map(ask(served, "GET", "/objects/small"), ({ body }) => expect(body.length).toBe(100_000)),
        { concurrency: 10 }
      )
      expect(Date.now() - start).toBeLessThan(8000)
    })))

  it.live("500 clients at once receive the whole object", () =>
    Effect.scoped(Effect.gen(function*() {
      const storage = yield* MemoryStorage.make()
      const bytes = Uint8Array.from({ length: 300_000 }, (_, i) => (i * 7 + (i >> 9)) % 256)
      yield* storage.save("object", bytes)
      const served = yield* serveOf(storage)
      const same = yield* Effect.forEach(
        Array.from({ length: 500 }),
        () => Effect.map(ask(served, "GET", "/objects/object"), ({ body }) => Buffer.compare(body, bytes) === 0),
        { concurrency: "unbounded" }
      )
      expect(same.filter((whole) => whole).length).toBe(500)
    })))

  it.live("transfers beyond the limit are a 503 with retry-after, while other requests are answered", () =>
    Effect.scoped(Effect.gen(function*() {
      const { opened, storage } = yield* withSparse(1024 * MiB)
      const served = yield* serveOf(storage, { maxTransfers: 2 })
      const first = yield* slowly(served)
      yield* slowly(served)
      yield* eventually("two open files", () => opened() === 2)
      const refused = yield* ask(served, "GET", "/objects/big")
      expect([refused.status, refused.headers["retry-after"]]).toEqual([503, "1"])
      const error = failureOf(refused.text)
      expect([error._tag, StorageError.isRetryable(error)]).toEqual(["StorageUnavailable", true])
      expect([yield* status(served), (yield* ask(served, "HEAD", "/objects/big")).status]).toEqual([200, 200])
      first.destroy()
      yield* eventually("closing a file", () => opened() === 1)
      expect((yield* ask(served, "GET", "/objects/big", { range: "bytes=0-4" })).text).toBe("start")
    })))

  it.live("an object whose stream fails breaks the connection, and is logged once, without secrets", () =>
    Effect.scoped(Effect.gen(function*() {
      const memory = yield* MemoryStorage.make()
      yield* memory.save("object", new Uint8Array(3 * MiB))
      const storage = Storage.make({
        ...memory.backend,
        open: (key, options) =>
          Effect.map(memory.backend.open(key, options), (opened) => ({
            ...opened,
            bytes: undefined,
            stream: Stream.concat(
              Stream.take(opened.stream, 2),
              Stream.fail(new StorageError.StorageUnavailable({ reason: "reset" }))
            )
          }))
      })
      const lines: Array<string> = []
      const logger = Logger.replace(
        Logger.defaultLogger,
        Logger.map(Logger.logfmtLogger, (line) => {
          if (!line.includes("level=INFO")) lines.push(line)
        })
      )
      const served = yield* Effect.provide(serveOf(storage), logger)
      const got = yield* raw(served, "GET /objects/object HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer s3cret\r\n\r\n")
      expect(got).toMatch(/^HTTP\/1.1 200 OK/)
      expect(got).toMatch(/content-length: 3145728/)
      expect(got.length).toBeLessThan(2 * MiB)
      expect(lines.filter((line) => line.includes("broke off")).length).toBe(1)
      expect(lines.length).toBe(1)
      expect(lines.join()).toMatch(/reset/)
      expect(lines.join()).not.toContain("s3cret")
      // Of a small object nothing has been sent, so that the failure has a status.
      yield* memory.save("object", new Uint8Array(10))
      expect((yield* ask(served, "GET", "/objects/object")).status).toBe(503)
    })))
})

describe("uploads", () => {
  overMemory(
    "an upload that breaks off saves nothing",
    Effect.gen(function*() {
      const served = yield* serve({ writable: true })
      const heads = ["Content-Length: 1000000", "Transfer-Encoding: chunked"]
      for (const head of heads) {
        const socket = yield* slowly(
          served,
          `PUT /objects/a HTTP/1.1\r\nHost: localhost\r\n${head}\r\n\r\n5\r\nhello\r\n`
        )
        yield* Effect.sleep("100 millis")
        socket.destroy()
      }
      yield* Effect.sleep("200 millis")
      expect(yield* served.storage.list()).toEqual([])
    })
  )

  overMemory(
    "a client that sends nothing is cut off after the idle timeout",
    Effect.gen(function*() {
      const served = yield* serve({ writable: true, idleTimeout: "500 millis" })
      const start = Date.now()
      const got = yield* raw(served, "PUT /objects/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\nhello")
      expect(got).toBe("")
      expect(Date.now() - start).toBeLessThan(3000)
      expect(yield* served.storage.list()).toEqual([])
    })
  )

  overMemory(
    "the failure of a save is received though the client is still sending",
    Effect.gen(function*() {
      const full = new StorageError.StorageFull({ reason: "no space left" })
      const memory = yield* Storage.Storage
      const storage = Storage.make({
        ...memory.backend,
        save: (_, data) =>
          Effect.zipRight(
            data instanceof Uint8Array ? Effect.void : Effect.asVoid(Stream.runDrain(Stream.take(data, 1))),
            Effect.fail(full)
          )
      })
      const served = yield* serveOf(storage, { writable: true })
      for (const headers of [{}, { "transfer-encoding": "chunked" }]) {
        const got = yield* ask(served, "PUT", "/objects/a", headers, new Uint8Array(8 * MiB))
        expect([got.status, failureOf(got.text)]).toMatchObject([507, { _tag: "StorageFull", key: "a" }])
      }
    })
  )
})

describe("slow requests", () => {
  overMemory(
    "endless headers neither slow other requests down nor keep the server from shutting down",
    Effect.gen(function*() {
      const served = yield* serve()
      const sockets = yield* Effect.forEach(
        Array.from({ length: 100 }),
        () => slowly(served, "GET /objects/a HTTP/1.1\r\nHost: x\r\nX-")
      )
      for (const socket of sockets) {
        const timer = setInterval(() => socket.writable && socket.write("a"), 50)
        socket.once("close", () => clearInterval(timer))
      }
      const start = Date.now()
      for (let i = 0; i < 20; i++) expect(yield* status(served)).toBe(200)
      expect(Date.now() - start).toBeLessThan(3000)
      yield* Effect.timeoutFail(served.stop, { duration: "5 seconds", onTimeout: () => "still running" })
    })
  )
})

describe("shutting down", () => {
  const reading = (served: Served) =>
    Effect.promise(async () => {
      const [response] = await once(http.get(`${served.url}/objects/big`), "response") as [http.IncomingMessage]
      return response.pause()
    })

  it.live("transfers finish, new ones are refused, and /health is a 503", () =>
    Effect.scoped(Effect.gen(function*() {
      const { storage } = yield* withSparse(32 * MiB)
      const served = yield* serveOf(storage, { shutdownTimeout: "20 seconds" })
      const response = yield* reading(served)
      const agent = new http.Agent({ keepAlive: true })
      const stopping = yield* Effect.fork(served.stop)
      yield* Effect.sleep("300 millis")
      const refused = yield* ask(served, "GET", "/objects/big")
      expect([refused.status, refused.headers["connection"]]).toEqual([503, "close"])
      expect(yield* status(served)).toBe(503)
      expect(Option.isNone(yield* Fiber.poll(stopping))).toBe(true)
      let got = 0
      response.on("data", (bytes: Buffer) => got += bytes.length)
      response.resume()
      yield* Effect.promise(() => once(response, "end"))
      expect(got).toBe(32 * MiB)
      yield* Effect.timeoutFail(Fiber.join(stopping), { duration: "5 seconds", onTimeout: () => "still running" })
      agent.destroy()
    })))

  it.live("a fiber that is interrupted waits for transfers, and no longer than the shutdown timeout", () =>
    Effect.scoped(Effect.gen(function*() {
      const { storage } = yield* withSparse(32 * MiB)
      const outcomes = yield* Effect.forEach(
        ["2 minutes", "300 millis"] as const,
        (shutdownTimeout) =>
          Effect.gen(function*() {
            const started = yield* Deferred.make<Served>()
            const running = yield* Effect.fork(
              Effect.scoped(Effect.zipRight(
                Effect.flatMap(serveOf(storage, { shutdownTimeout }), (served) => Deferred.succeed(started, served)),
                Effect.never
              ))
            )
            const response = yield* Effect.flatMap(Deferred.await(started), reading)
            response.on("error", () => {})
            const start = Date.now()
            const interrupted = yield* Effect.fork(Fiber.interrupt(running))
            yield* Effect.sleep("1 second")
            const isWaiting = Option.isNone(yield* Fiber.poll(interrupted))
            let got = 0
            response.on("data", (bytes: Buffer) => got += bytes.length)
            yield* Effect.promise(() => new Promise((resolve) => response.once("close", resolve).resume()))
            yield* Fiber.join(interrupted)
            return [isWaiting, got === 32 * MiB, Date.now() - start < 60_000]
          })
      )
      expect(outcomes).toEqual([[true, true, true], [false, false, true]])
    })))

  it.live("transfers still under way at the shutdown timeout are cut off, uploads as well", () =>
    Effect.scoped(Effect.gen(function*() {
      const { opened, storage } = yield* withSparse(1024 * MiB)
      const served = yield* serveOf(storage, { shutdownTimeout: "500 millis", writable: true })
      const response = yield* reading(served)
      response.on("error", () => {})
      yield* slowly(served, "PUT /objects/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\nhello")
      yield* eventually("opening the file", () => opened() === 1)
      const start = Date.now()
      yield* Effect.timeoutFail(served.stop, { duration: "8 seconds", onTimeout: () => "still running" })
      expect(Date.now() - start).toBeGreaterThan(450)
      expect(Date.now() - start).toBeLessThan(4000)
      expect(opened()).toBe(0)
      expect(yield* storage.list()).toEqual(["big"])
    })))
})

describe("mounted into an app", () => {
  it.live("the routes are below the prefix, with any key, and other paths are the app's", () =>
    Effect.scoped(Effect.gen(function*() {
      const storage = yield* MemoryStorage.make()
      yield* storage.save("a b%2F/ü", new TextEncoder().encode("hello"))
      const router = yield* Effect.provideService(WeightServer.router(), Storage.Storage, storage)
      const app = HttpRouter.mount(HttpRouter.empty, "/weights", router)
      const context = yield* Layer.build(
        NodeHttpServer.layerServer(() => http.createServer(), { host: "127.0.0.1", port: 0 })
      )
      yield* Effect.provide(HttpServer.serveEffect(app), context)
      const { address } = Context.get(context, HttpServer.HttpServer)
      const port = address._tag === "TcpAddress" ? address.port : 0
      const got = yield* ask({ port }, "GET", "/weights/objects/a%20b%252F/%C3%BC", { range: "bytes=1-2" })
      expect([got.status, got.text]).toEqual([206, "el"])
      expect((yield* ask({ port }, "GET", "/weights/health")).status).toBe(200)
      expect((yield* ask({ port }, "GET", "/weights/objects?prefix=a")).status).toBe(200)
      expect((yield* ask({ port }, "GET", "/objects/a")).status).toBe(404)
    })))
})

describe("secrets", () => {
  it.live("spans show neither a token nor the URL of a redirect", () =>
    Effect.scoped(Effect.gen(function*() {
      const attributes: Array<readonly [string, unknown]> = []
      const base = Context.get(
        Context.make(
          Tracer.Tracer,
          Tracer.make({
            span: (name, parent, context, links, startTime, kind) => ({
              _tag: "Span",
              name,
              spanId: "1",
              traceId: "1",
              parent,
              context,
              status: { _tag: "Started", startTime },
              attributes: new Map(),
              links,
              sampled: true,
              kind,
              end: () => {},
              attribute: (key, value) => void attributes.push([key, value]),
              event: () => {},
              addLinks: () => {}
            }),
            context: (run) => run()
          })
        ),
        Tracer.Tracer
      )
      const memory = yield* MemoryStorage.make()
      const storage = Storage.make({
        ...memory.backend,
        capabilities: { ...memory.backend.capabilities, presign: true },
        presign: () => Effect.succeed("https://store.example/a?signature=s1gned")
      })
      const token = "reader-0123456789abcdef"
      const served = yield* Effect.withTracer(
        serveOf(storage, {
          redirect: { expiresIn: "1 minute" },
          auth: { tokens: [{ token: Redacted.make(token), scope: "read" }] }
        }),
        base
      )
      const got = yield* ask(served, "GET", "/objects/a", { authorization: `Bearer ${token}` })
      expect(got.headers.location).toContain("s1gned")
      yield* Effect.sleep("50 millis")
      expect(attributes.find(([name]) => name === "http.response.status_code")?.[1]).toBe(307)
      expect(JSON.stringify(attributes)).not.toMatch(/s1gned|reader-0123/)
    })))
})

/** A weight server of one file in a process of its own. */
const serverProcess = (size: number) =>
  Effect.gen(function*() {
    const directory = yield* temporaryDirectory
    fs.writeFileSync(path.join(directory, "big"), "")
    fs.truncateSync(path.join(directory, "big"), size)
    return yield* serveInProcess(directory)
  })

describe("a signal", () => {
  it.live("lets six downloads finish, while /health is a 503, and then ends the process", () =>
    Effect.scoped(Effect.gen(function*() {
      const { child, port, url } = yield* serverProcess(32 * MiB)
      const responses = yield* Effect.forEach(Array.from({ length: 6 }), () =>
        Effect.promise(async () => {
          const [response] = await once(http.get(`${url}/objects/big`, { agent: false }), "response") as [
            http.IncomingMessage
          ]
          return response.pause()
        }))
      const exited = once(child, "exit")
      child.kill("SIGTERM")
      const asked = Effect.map(ask({ port }, "GET", "/health"), ({ status }) => status)
      expect(yield* Effect.repeat(asked, { until: (status) => status !== 200, times: 1000 })).toBe(503)
      expect((yield* ask({ port }, "GET", "/objects/big")).status).toBe(503)
      yield* Effect.sleep("500 millis")
      const sizes = yield* Effect.forEach(responses, (response) =>
        Effect.promise(async () => {
          let size = 0
          response.on("data", (bytes: Buffer) => size += bytes.length)
          await once(response.resume(), "end")
          return size
        }), { concurrency: "unbounded" })
      expect(sizes).toEqual(sizes.map(() => 32 * MiB))
      yield* Effect.promise(() => exited)
    })))
})

describe("memory", () => {
  it.live(
    "stays flat while 5 GiB are downloaded, and with 200 slow clients at the same time",
    () =>
      Effect.scoped(Effect.gen(function*() {
        const { child, ...served } = yield* serverProcess(5 * 1024 * MiB)
        const resident = () => residentMemory(child)
        yield* ask(served, "GET", "/objects/big", { range: "bytes=0-100000000" })
        const before = resident()
        yield* Effect.forEach(Array.from({ length: 200 }), () => slowly(served))
        let most = 0
        const watching = setInterval(() => most = Math.max(most, resident()), 100)
        const got = yield* Effect.promise(async () => {
          const [response] = await once(http.get(`${served.url}/objects/big`), "response") as [http.IncomingMessage]
          let bytes = 0
          response.on("data", (chunk: Buffer) => bytes += chunk.length)
          await once(response, "end")
          return bytes
        })
        clearInterval(watching)
        expect(got).toBe(5 * 1024 * MiB)
        // 512 KiB for each slow client, and garbage that is not collected yet.
        expect(most - before).toBeLessThan(350)
      }))
  )
})
