/**
 * How a weight server bears clients that are slow, rude or many, storages that break, and being stopped.
 */
import { HttpRouter, HttpServer } from "@effect/platform"
import * as NodeHttpServer from "@effect/platform-node/NodeHttpServer"
import { describe, expect, it } from "@effect/vitest"
import {
  Context,
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
import { fileURLToPath } from "node:url"
import { FileSystemStorage, MemoryStorage, Storage, StorageError, WeightServer } from "surfing-weights"
import { WebSocket } from "ws"
import { temporaryDirectory } from "../support/directory.js"
import { thenHeldUp } from "../support/heldUp.js"
import { intercepting } from "../support/intercepting.js"
import { ask, eventually, raw, serve, type Served, serveOf } from "../support/weightServer.js"

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
    const opened = () =>
      fs.readdirSync("/proc/self/fd").filter((descriptor) => {
        try {
          return fs.readlinkSync(`/proc/self/fd/${descriptor}`) === file
        } catch {
          return false
        }
      }).length
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
  it.live("a client that goes away closes the file at once", () =>
    Effect.scoped(Effect.gen(function*() {
      const { opened, storage } = yield* withSparse(1024 * MiB)
      const served = yield* serveOf(storage)
      const socket = yield* slowly(served)
      yield* eventually("opening the file", () => opened() === 1)
      socket.destroy()
      yield* eventually("closing the file", () => opened() === 0, 1)
    })))

  it.live("a connection that breaks as an answer is about to go out holds nothing any longer", () =>
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

  it.live("many requests at once on one connection are answered without a warning of Node's", () =>
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

  it.live("a client that goes away frees at the idle limit what it has asked for and is not yet being answered", () =>
    Effect.scoped(Effect.gen(function*() {
      const { opened, storage } = yield* withSparse(1024 * MiB)
      const served = yield* serveOf(storage, { idleLimit: "1 second" })
      const request = "GET /objects/big HTTP/1.1\r\nHost: x\r\n\r\n"
      const socket = yield* slowly(served, request.repeat(20))
      yield* eventually("opening the file for each", () => opened() === 20)
      socket.destroy()
      yield* eventually("closing all of them", () => opened() === 0, 4)
    })))

  it.live("a client that reads nothing is cut after the idle limit, and one that reads slowly is not", () =>
    Effect.scoped(Effect.gen(function*() {
      const { opened, storage } = yield* withSparse(1024 * MiB)
      const served = yield* serveOf(storage, { idleLimit: "1 second" })
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

  it.live("a client that asks for many small objects and reads none of them is cut after the idle limit", () =>
    Effect.scoped(Effect.gen(function*() {
      const storage = yield* MemoryStorage.make()
      yield* storage.save("small", new Uint8Array(60_000))
      const served = yield* serveOf(storage, { idleLimit: "1 second" })
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

  it.live("a client that read while the server was held up for longer than the idle limit is not cut", () =>
    Effect.scoped(Effect.gen(function*() {
      const { opened, storage } = yield* withSparse(1024 * MiB)
      const { url } = yield* serveOf(storage, { idleLimit: "1 second" })
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

  it.live("one byte a second keeps nobody waiting", () =>
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

  it.live("500 clients at once all get what they asked for", () =>
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

  it.live("more transfers than allowed are told to come back, and the rest of the server goes on", () =>
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

  it.live("an object that breaks on the way breaks the connection, and is logged once, without its cause's secrets", () =>
    Effect.scoped(Effect.gen(function*() {
      const memory = yield* MemoryStorage.make()
      yield* memory.save("object", new Uint8Array(3 * MiB))
      const storage = Storage.make({
        ...memory.backend,
        open: (key, options) =>
          Effect.map(memory.backend.open(key, options), (opened) => ({
            ...opened,
            stream: Stream.concat(
              Stream.take(opened.stream, 2),
              Stream.fail(
                new StorageError.StorageUnavailable({ backend: "S3(weights)", operation: "load", key, reason: "reset" })
              )
            )
          }))
      })
      const lines: Array<string> = []
      const logger = Logger.replace(Logger.defaultLogger, Logger.map(Logger.logfmtLogger, (line) => lines.push(line)))
      const served = yield* Effect.provide(serveOf(storage), logger)
      const got = yield* raw(served, "GET /objects/object HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer s3cret\r\n\r\n")
      expect(got).toMatch(/^HTTP\/1.1 200 OK/)
      expect(got).toMatch(/content-length: 3145728/)
      expect(got.length).toBeLessThan(2 * MiB)
      expect(lines.filter((line) => line.includes("broke off")).length).toBe(1)
      expect(lines.length).toBe(1)
      expect(lines.join()).toMatch(/reset/)
      expect(lines.join()).not.toContain("s3cret")
      // A small one has not begun, so that the failure can be told.
      yield* memory.save("object", new Uint8Array(10))
      expect((yield* ask(served, "GET", "/objects/object")).status).toBe(503)
    })))
})

describe("uploads", () => {
  overMemory(
    "one that breaks off saves nothing",
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
    "a client that sends nothing is cut after the idle limit",
    Effect.gen(function*() {
      const served = yield* serve({ writable: true, idleLimit: "500 millis" })
      const start = Date.now()
      const got = yield* raw(served, "PUT /objects/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\nhello")
      expect(got).toBe("")
      expect(Date.now() - start).toBeLessThan(3000)
      expect(yield* served.storage.list()).toEqual([])
    })
  )

  overMemory(
    "a save that fails is told though the client is still sending",
    Effect.gen(function*() {
      const full = new StorageError.StorageFull({
        backend: "Memory",
        operation: "save",
        key: "a",
        reason: "no space left"
      })
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
        expect([got.status, failureOf(got.text)]).toMatchObject([507, { _tag: "StorageFull", reason: "no space left" }])
      }
    })
  )
})

describe("slow requests", () => {
  overMemory(
    "headers that never end keep nobody else waiting, and not the server from stopping",
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

describe("stopping", () => {
  const reading = (served: Served) =>
    Effect.promise(async () => {
      const [response] = await once(http.get(`${served.url}/objects/big`), "response") as [http.IncomingMessage]
      return response.pause()
    })

  it.live("lets transfers finish, and takes no new ones meanwhile", () =>
    Effect.scoped(Effect.gen(function*() {
      const { storage } = yield* withSparse(32 * MiB)
      const served = yield* serveOf(storage, { shutdownDeadline: "20 seconds" })
      const response = yield* reading(served)
      const agent = new http.Agent({ keepAlive: true })
      const stopping = yield* Effect.fork(served.stop)
      yield* Effect.sleep("300 millis")
      const refused = yield* ask(served, "GET", "/objects/big")
      expect([refused.status, refused.headers["connection"]]).toEqual([503, "close"])
      expect(Option.isNone(yield* Fiber.poll(stopping))).toBe(true)
      let got = 0
      response.on("data", (bytes: Buffer) => got += bytes.length)
      response.resume()
      yield* Effect.promise(() => once(response, "end"))
      expect(got).toBe(32 * MiB)
      yield* Effect.timeoutFail(Fiber.join(stopping), { duration: "5 seconds", onTimeout: () => "still running" })
      agent.destroy()
    })))

  it.live("ends them at the deadline, uploads as well", () =>
    Effect.scoped(Effect.gen(function*() {
      const { opened, storage } = yield* withSparse(1024 * MiB)
      const served = yield* serveOf(storage, { shutdownDeadline: "500 millis", writable: true })
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

describe("the WebSocket of the first Surfing Weights", () => {
  const connect = (served: Served, headers: Record<string, string> = {}, path = "/") =>
    Effect.acquireRelease(
      Effect.async<WebSocket, number>((resume) => {
        const socket = new WebSocket(`ws://127.0.0.1:${served.port}${path}`, { headers })
        socket.on("error", () => {})
        socket.once("open", () => resume(Effect.succeed(socket)))
        socket.once("unexpected-response", (_, { statusCode = 0 }) => resume(Effect.fail(statusCode)))
      }),
      (socket) => Effect.sync(() => socket.terminate())
    )

  const answer = (socket: WebSocket) =>
    Effect.promise(async () => {
      const [data] = await once(socket, "message") as [Buffer]
      return JSON.parse(data.toString()) as { readonly success: boolean; readonly [field: string]: unknown }
    })

  const say = (socket: WebSocket, command: string) => {
    socket.send(command)
    return answer(socket)
  }

  overMemory(
    "gives components by name and number",
    Effect.gen(function*() {
      const served = yield* serve()
      const names: ReadonlyArray<readonly [string, string]> = [
        ["layer 0", "layer_0"],
        ["layer 11", "layer_11"],
        ["block 3", "block_3"],
        ["encoder_block 1", "encoder_block_1"],
        ["decoder_block 2", "decoder_block_2"],
        ["lm_head 0", "lm_head_0"],
        ["embeddings 0", "embeddings"],
        ["pooler 0", "pooler"]
      ]
      const socket = yield* connect(served)
      for (const [i, [command, name]] of names.entries()) {
        const bytes = Uint8Array.from({ length: 256 * (i + 1) }, (_, j) => (i + j) % 256)
        yield* served.storage.save(`${name}.pt`, bytes)
        expect(yield* say(socket, `GET ${command}`)).toEqual({
          success: true,
          component: name,
          weights: Buffer.from(bytes).toString("hex")
        })
      }
    })
  )

  overMemory(
    "answers a bad command, or one for what is not there, with the error, and goes on",
    Effect.gen(function*() {
      const served = yield* serve()
      yield* served.storage.save("layer_0.pt", new Uint8Array([1, 255]))
      const socket = yield* connect(served)
      const commands = [
        "",
        "GET",
        "GET layer",
        "GET layer x",
        "GET ../../etc/passwd 0",
        "PUT layer 0",
        "GET layer -1",
        "GET a 1 2",
        "GET nothing 0",
        "GET layer 99",
        "GET .. 0"
      ]
      for (const command of commands) {
        const { error, success } = yield* say(socket, command)
        expect([command, success, typeof error]).toEqual([command, false, "string"])
      }
      expect(yield* say(socket, "GET layer 0")).toMatchObject({ success: true, weights: "01ff" })
    })
  )

  overMemory(
    "answers in order, and closes on whoever sends too much",
    Effect.gen(function*() {
      const served = yield* serve()
      for (let i = 0; i < 20; i++) yield* served.storage.save(`layer_${i}.pt`, new Uint8Array(1000 * (20 - i)))
      const socket = yield* connect(served)
      const got: Array<string> = []
      socket.on("message", (data: Buffer) => got.push((JSON.parse(data.toString()) as { component: string }).component))
      for (let i = 0; i < 20; i++) socket.send(`GET layer ${i}`)
      yield* eventually("twenty answers", () => got.length === 20)
      expect(got).toEqual(Array.from({ length: 20 }, (_, i) => `layer_${i}`))
      const close = (send: (socket: WebSocket) => void) =>
        Effect.gen(function*() {
          const socket = yield* connect(served)
          send(socket)
          return yield* Effect.promise(() => once(socket, "close") as Promise<[number]>)
        })
      expect((yield* close((socket) => socket.send("GET " + "x".repeat(2000))))[0]).toBe(1009)
      expect(
        (yield* close((socket) => {
          for (let i = 0; i < 200; i++) socket.send("GET layer 0")
        }))[0]
      ).toBe(1008)
    })
  )

  overMemory(
    "takes the mapping, the limit and the tokens that are set",
    Effect.gen(function*() {
      const token = "reader-0123456789abcdef"
      const served = yield* serve({
        auth: { tokens: [{ token: Redacted.make(token), scope: "read" }] },
        webSocket: { toKey: (component, id) => `bert/${component}/${id}.bin`, maxObjectSize: 10 }
      })
      yield* served.storage.save("bert/layer/0.bin", new Uint8Array(10))
      yield* served.storage.save("bert/layer/1.bin", new Uint8Array(11))
      expect(yield* Effect.flip(connect(served))).toBe(401)
      expect(yield* Effect.flip(connect(served, { authorization: "Bearer guess" }))).toBe(401)
      const socket = yield* connect(served, { authorization: `Bearer ${token}` })
      expect(yield* say(socket, "GET layer 0")).toMatchObject({ success: true, weights: "00".repeat(10) })
      const { error } = yield* say(socket, "GET layer 1")
      expect(error).toMatch(/over HTTP/)
    })
  )

  overMemory(
    "refuses pages of other origins, other paths and plain requests",
    Effect.gen(function*() {
      const served = yield* serve()
      expect(yield* Effect.flip(connect(served, { origin: "https://evil.example" }))).toBe(403)
      yield* connect(served, { origin: `http://127.0.0.1:${served.port}` })
      expect(yield* Effect.flip(connect(served, {}, "/nowhere"))).toBe(404)
      expect((yield* ask(served, "GET", "/")).status).toBe(426)
      const open = yield* serve({ origins: ["https://app.example"] })
      yield* connect(open, { origin: "https://app.example" })
    })
  )

  overMemory(
    "a client that does not read its answers gets no more of them",
    Effect.gen(function*() {
      let loads = 0
      const memory = yield* Storage.Storage
      yield* memory.save("layer_0.pt", new Uint8Array(8 * MiB))
      const storage = Storage.make({
        ...memory.backend,
        load: (key, options) => {
          loads++
          return memory.backend.load(key, options)
        }
      })
      const served = yield* serveOf(storage)
      const socket = yield* connect(served)
      socket.pause()
      for (let i = 0; i < 10; i++) socket.send("GET layer 0")
      yield* Effect.sleep("1500 millis")
      expect(loads).toBe(1)
      socket.resume()
      yield* eventually("the rest", () => loads === 10, 15)
    })
  )
})

describe("mounted into an app", () => {
  it.live("it is below the prefix, odd keys and all, and the rest is the app's", () =>
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
  it.live("a span shows neither a token nor the URL of a redirect", () =>
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

describe("memory", () => {
  const root = fileURLToPath(new URL("../..", import.meta.url))
  const childProgram = fileURLToPath(new URL("../support/weightServerChild.ts", import.meta.url))

  it.live(
    "stays flat while 5 GiB go out, to 200 slow clients at the same time",
    () =>
      Effect.scoped(Effect.gen(function*() {
        const directory = yield* temporaryDirectory
        fs.writeFileSync(path.join(directory, "big"), "")
        fs.truncateSync(path.join(directory, "big"), 5 * 1024 * MiB)
        const child = yield* Effect.acquireRelease(
          Effect.sync(() =>
            spawn(process.execPath, ["--import", "tsx", childProgram, directory], {
              cwd: root,
              stdio: ["pipe", "pipe", "inherit"]
            })
          ),
          (child) => Effect.sync(() => child.kill("SIGKILL"))
        )
        const [line] = yield* Effect.promise(() => once(child.stdout, "data") as Promise<[Buffer]>)
        const port = Number(String(line))
        const served = { port, url: `http://127.0.0.1:${port}` }
        const resident = () => {
          const [, kilobytes] = /VmRSS:\s+(\d+)/.exec(fs.readFileSync(`/proc/${child.pid}/status`, "utf8")) ?? []
          return Number(kilobytes) / 1024
        }
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
        // Half a mebibyte for each that is slow, and what the collector leaves for a while.
        expect(most - before).toBeLessThan(350)
      }))
  )
})
