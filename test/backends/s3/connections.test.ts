import { describe, expect, it } from "@effect/vitest"
import { Cause, Effect, Exit, Fiber } from "effect"
import { once } from "node:events"
import * as http from "node:http"
import * as https from "node:https"
import * as net from "node:net"
import { Readable } from "node:stream"
import * as tls from "node:tls"
import * as Connections from "../../../src/backends/s3/connections.js"
import type { Transport } from "../../../src/backends/s3/transport.js"
import type { Flow, Receiver, Response } from "../../../src/internal/httpCall.js"
import { certificate, trustingAnybody } from "../../support/certificate.js"
import { bytes, MiB, print } from "../../support/content.js"
import { eventually } from "../../support/timing.js"

const content = bytes(8 * MiB)

/** Answers `/123` with so many bytes, `/chunked/123` with the same and no length, a `PUT` with what it got. */
const respond: http.RequestListener = (request, response) => {
  if (request.method === "PUT") return void request.pipe(response)
  const length = Number(/\d+$/.exec(request.url ?? "")?.[0])
  if (request.url?.startsWith("/chunked") !== true) response.setHeader("content-length", length)
  // Pieces of odd sizes, so that a head and a body, or two pieces, come together or do not.
  Readable.from((function*() {
    for (let at = 0, size = 1; at < length; at += size, size = (size * 7 + 13) % 300_000) {
      yield content.subarray(at, Math.min(at + size, length))
    }
  })()).pipe(response)
}

/** A server that listens until the scope ends, and who has connected. */
const listening = (server: net.Server, connection = "connection") =>
  Effect.gen(function*() {
    const sockets = new Set<net.Socket>()
    server.on(connection, (socket: net.Socket) => sockets.add(socket))
    yield* Effect.acquireRelease(
      Effect.promise(() => once(server.listen(0, "127.0.0.1"), "listening")),
      () =>
        Effect.sync(() => {
          server.close()
          for (const socket of sockets) socket.destroy()
        })
    )
    return { port: (server.address() as net.AddressInfo).port, sockets }
  })

/** A server, and the way to it of connections of our own. */
const served = (isSecure: boolean, answer = respond) =>
  Effect.gen(function*() {
    const { port, sockets } = yield* listening(
      isSecure ? https.createServer(certificate, answer) : http.createServer(answer),
      isSecure ? "secureConnection" : "connection"
    )
    const { transport } = yield* Effect.acquireRelease(
      Effect.suspend(Connections.make),
      ({ close }) => Effect.sync(close)
    )
    yield* trustingAnybody
    const to = { protocol: isSecure ? "https:" : "http:", hostname: "127.0.0.1", port, query: {}, headers: {} }
    return { to, transport, sockets }
  })

type To = Omit<Parameters<Transport>[0], "method" | "path" | "body">

interface Got {
  readonly response: Response
  readonly body: Buffer
  /** The arrays that its bytes came in. */
  readonly arrays: ReadonlySet<ArrayBufferLike>
}

/** Sends a request and reads its answer; `moment` is told of each piece, and may have the flow wait. */
const ask = (
  transport: Transport,
  request: Parameters<Transport>[0],
  moment: (flow: Flow) => void = () => {}
) =>
  Effect.async<Got, unknown>((resume) => {
    let response: Response | undefined
    let isRead = false
    const pieces: Array<Buffer> = []
    const arrays = new Set<ArrayBufferLike>()
    const flow = transport(request, {
      onUpload: () => {},
      onResponse: (head) => {
        response = head
        setImmediate(() => {
          isRead = true
          flow.resume()
        })
      },
      onBytes: (bytes) => {
        if (!isRead) resume(Effect.die(new Error("bytes before they were asked for")))
        pieces.push(Buffer.from(bytes))
        arrays.add(bytes.buffer)
        moment(flow)
      },
      onEnd: () =>
        resume(
          response === undefined
            ? Effect.die(new Error("an end without a response"))
            : Effect.succeed({ response, body: Buffer.concat(pieces), arrays })
        ),
      onFailure: resume
    })
  })

const nobody: Receiver = {
  onUpload: () => {},
  onResponse: () => {},
  onBytes: () => {},
  onEnd: () => {},
  onFailure: () => {}
}

const get = (to: To, path: string) => ({ ...to, method: "GET", path })

for (const isSecure of [false, true]) {
  describe(isSecure ? "connections over TLS" : "connections", () => {
    it.scopedLive("receive every byte, however often the reader pauses", () =>
      Effect.gen(function*() {
        const { to, transport } = yield* served(isSecure)
        let turn = 0
        // Waits of every kind: none, for other work of the same turn, for the next, for longer than the server writes.
        const waits = [
          () => {},
          (flow: Flow) => (flow.pause(), queueMicrotask(flow.resume)),
          (flow: Flow) => (flow.pause(), setImmediate(flow.resume)),
          (flow: Flow) => (flow.pause(), setTimeout(flow.resume, turn % 7)),
          () => {}
        ]
        const sizes = [0, 1, 1000, 65_536, 131_072, 131_073, MiB + 7, content.length]
        const all = Array.from({ length: 60 }, (_, i) => {
          const size = sizes[i % sizes.length] ?? 0
          return { size, path: i % 3 === 0 ? `/chunked/${size}` : `/${size}` }
        })
        yield* Effect.forEach(
          all,
          ({ path, size }) =>
            Effect.map(
              ask(transport, get(to, path), (flow) => waits[turn++ * 31 % waits.length]?.(flow)),
              ({ body, response }) => {
                expect(response.status).toBe(200)
                expect(print(body), path).toBe(print(content.subarray(0, size)))
              }
            ),
          { concurrency: 6, discard: true }
        )
      }))

    it.scopedLive("read into one array each, and are reused", () =>
      Effect.gen(function*() {
        const { sockets, to, transport } = yield* served(isSecure)
        const arrays = new Set<ArrayBufferLike>()
        for (let i = 0; i < 20; i++) {
          for (const array of (yield* ask(transport, get(to, `/${MiB}`))).arrays) arrays.add(array)
        }
        expect(sockets.size).toBe(1)
        // Its own, and at the most one copy for each body of what came with the head, before anybody read it.
        expect(arrays.size).toBeLessThanOrEqual(1 + 20)
      }))

    it.scopedLive("make the server wait while the reader pauses, and lose no bytes that have arrived", () =>
      Effect.gen(function*() {
        let sent = 0
        const { to, transport } = yield* served(isSecure, (_, response) => {
          response.setHeader("content-length", 64 * MiB)
          Readable.from((function*() {
            for (let i = 0; i < 64 * 16; i++, sent += MiB / 16) yield content.subarray(i * 100, i * 100 + MiB / 16)
          })()).pipe(response)
        })
        let waits = true
        const reading = yield* Effect.fork(ask(transport, get(to, "/"), (flow) => {
          if (!waits) return
          waits = false
          flow.pause()
          setTimeout(flow.resume, 1500)
        }))
        yield* Effect.sleep(1400)
        // What the system holds of it for both sides.
        expect(sent).toBeLessThan(16 * MiB)
        const { body } = yield* Fiber.join(reading)
        expect(body.length).toBe(64 * MiB)
        for (let i = 0; i < 64 * 16; i++) {
          const piece = body.subarray(i * MiB / 16, (i + 1) * MiB / 16)
          expect(piece.equals(content.subarray(i * 100, i * 100 + MiB / 16)), `piece ${i}`).toBe(true)
        }
      }))

    it.scopedLive("keep bytes that arrive before the first read", () =>
      Effect.gen(function*() {
        // Several records of TLS, which come in one read.
        const sent = content.subarray(0, 120_000)
        const server = yield* listening(
          (isSecure ? tls.createServer(certificate) : net.createServer()).on(
            isSecure ? "secureConnection" : "connection",
            (socket: net.Socket) => socket.write(sent)
          )
        )
        yield* trustingAnybody
        const socket = yield* Effect.async<net.Socket, Error>((resume) =>
          Connections.connectLending(
            { protocol: isSecure ? "https:" : "http:", hostname: "127.0.0.1", port: String(server.port) },
            (error, socket) => resume(error === null ? Effect.succeed(socket) : Effect.fail(error))
          )
        )
        yield* Effect.addFinalizer(() => Effect.sync(() => socket.destroy()))
        socket.read(0)
        yield* Effect.sleep(100)
        expect(socket.read(0)).toBe(null)
        const pieces: Array<Buffer> = []
        const read = () => {
          for (let piece = socket.read() as Buffer | null; piece !== null; piece = socket.read() as Buffer | null) {
            pieces.push(Buffer.from(piece))
          }
        }
        socket.on("readable", read)
        read()
        yield* eventually(() => expect(print(Buffer.concat(pieces))).toBe(print(sent)))
      }))

    it.scopedLive("send bytes", () =>
      Effect.gen(function*() {
        const { to, transport } = yield* served(isSecure)
        for (const body of [content, content.subarray(0, 1000), new Uint8Array(0)]) {
          const headers = { "content-length": String(body.length) }
          expect(print((yield* ask(transport, { ...to, method: "PUT", path: "/", headers, body })).body)).toBe(
            print(body)
          )
        }
      }))

    it.scopedLive("fail if a body breaks off, and if a request cannot be sent", () =>
      Effect.gen(function*() {
        const { to, transport } = yield* served(isSecure, (_, response) => {
          response.setHeader("content-length", 2 * MiB)
          response.write(content.subarray(0, MiB), () => response.destroy())
        })
        expect(yield* Effect.flip(ask(transport, get(to, "/")))).toMatchObject({ _tag: "StorageUnavailable" })
        const bad = { ...get(to, "/"), headers: { authorization: "a\nb" } }
        expect(yield* Effect.flip(ask(transport, bad))).toMatchObject({ cause: { code: "UND_ERR_INVALID_ARG" } })
      }))

    it.scopedLive("are closed at once when a request is aborted, before or within its response", () =>
      Effect.gen(function*() {
        const asked: Array<string | undefined> = []
        const closed: Array<Promise<unknown>> = []
        const { to, transport } = yield* served(isSecure, (request, response) => {
          asked.push(request.url)
          closed.push(once(request.socket, "close"))
          if (request.url === "/begins") response.write("begun")
        })
        for (const path of ["/", "/begins"]) {
          const outcomes: Array<unknown> = []
          const flow = transport(get(to, path), {
            ...nobody,
            onResponse: () => flow.resume(),
            onEnd: () => outcomes.push("end"),
            onFailure: (failure) => outcomes.push(Exit.match(failure, { onFailure: Cause.squash, onSuccess: String }))
          })
          yield* Effect.sleep(100)
          yield* eventually(() => {
            expect(asked).toContain(path)
          })
          flow.abort()
          yield* Effect.promise(() => Promise.all(closed))
          expect(outcomes).toMatchObject([{ cause: { message: "the request was aborted" } }])
        }
        expect(asked).toEqual(["/", "/begins"])
      }))

    it.scopedLive("send no request that is aborted before they are made", () =>
      Effect.gen(function*() {
        const asked: Array<string | undefined> = []
        const { to, transport } = yield* served(isSecure, (request, response) => {
          asked.push(request.url)
          response.end()
        })
        transport(get(to, "/aborted"), nobody).abort()
        yield* ask(transport, get(to, "/next"))
        expect(asked).toEqual(["/next"])
      }))
  })
}

it.scopedLive("connections refuse a certificate that is not trusted, with the reason", () =>
  Effect.gen(function*() {
    const { to, transport } = yield* served(true)
    process.env["NODE_TLS_REJECT_UNAUTHORIZED"] = "1"
    expect(yield* Effect.flip(ask(transport, get(to, "/1")))).toMatchObject({
      cause: { code: "DEPTH_ZERO_SELF_SIGNED_CERT" }
    })
  }))
