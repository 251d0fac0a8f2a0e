/**
 * One HTTP call over each transport, against servers on loopback.
 */
import { HttpClient, HttpClientRequest } from "@effect/platform"
import { describe, expect, it } from "@effect/vitest"
import { Cause, Chunk, Deferred, Duration, Effect, Exit, Fiber, Queue, type Scheduler, Stream, TestClock } from "effect"
import { spawn } from "node:child_process"
import { once } from "node:events"
import * as http from "node:http"
import type { Socket } from "node:net"
import { Readable } from "node:stream"
import { setImmediate as nextTurn } from "node:timers/promises"
import { sendWith, uploadOfStream } from "../../src/backends/http/transport.js"
import { call, type HttpCall, make, type Receiver, type Send } from "../../src/internal/httpCall.js"
import { bytes, gather, MiB, print } from "../support/content.js"
import { thenHeldUp } from "../support/heldUp.js"
import { clients } from "../support/httpClients.js"
import { type HttpTransport, type Request, transports } from "../support/httpTransports.js"
import { listen } from "../support/loopback.js"
import { eventually } from "../support/timing.js"

const content = bytes(3 * MiB)
const options = { idleTimeout: 10_000 }

/**
 * A server with this listener, a way to send it requests, and the open connections that a request came over: `undici`
 * replaces a connection that it breaks, and keeps the new one for the next request.
 */
const served = ({ make }: HttpTransport, listener: http.RequestListener) =>
  Effect.gen(function*() {
    const sockets = new Set<Socket>()
    const server = http.createServer({ keepAliveTimeout: 0 }, (request, response) => {
      const { socket } = request
      if (!sockets.has(socket)) sockets.add(socket.once("close", () => sockets.delete(socket)))
      listener(request, response)
    })
    const { endpoint } = yield* listen(server)
    const sending = yield* make
    const using = <A, E, R>(
      use: (call: HttpCall) => Effect.Effect<A, E, R>,
      request: Request = {},
      { idleTimeout } = options
    ) => Effect.flatMap(sending(endpoint, request), (send) => call(send, { idleTimeout }, use))
    return { endpoint, sockets, sending, using }
  })

/** Sends, and reads the body as a whole. */
const read = (call: HttpCall) => Effect.zipRight(call.send(), gather(call.stream()))

const responding = (body: Uint8Array): http.RequestListener => (request, response) => {
  request.resume().on("end", () => {
    response.setHeader("content-length", body.length)
    response.setHeader("x-method", request.method ?? "")
    response.end(body)
  })
}

/** Expects a call to time out by the `TestClock`, once it waits for the peer. */
const expectTimeout = (calling: Effect.Effect<unknown, { readonly _tag: string }>, isWaiting: () => void) =>
  Effect.gen(function*() {
    const fiber = yield* Effect.fork(Effect.flip(calling))
    yield* eventually(isWaiting)
    // What the system takes or hands on meanwhile starts the time again.
    while (fiber.unsafePoll() === null) {
      yield* TestClock.adjust(options.idleTimeout / 2)
      yield* TestClock.adjust(options.idleTimeout / 2)
      yield* Effect.promise(() => nextTurn())
    }
    expect(yield* Fiber.join(fiber)).toMatchObject({
      _tag: "StorageTimeout",
      limit: Duration.millis(options.idleTimeout)
    })
  })

/** Begins a body of `length` bytes and leaves it there. */
const stalling = (length: number, sent: Uint8Array): http.RequestListener => (_, response) => {
  response.setHeader("content-length", length)
  response.write(sent)
}

for (const transport of transports) {
  describe(`a call over ${transport.name}`, () => {
    it.scopedLive("returns status, headers and body, in each way to read it", () =>
      Effect.gen(function*() {
        for (const body of [new Uint8Array(0), content.subarray(0, 10), content]) {
          const { using } = yield* served(transport, responding(body))
          const response = yield* using((call) => call.send())
          expect(response).toMatchObject({
            status: 200,
            headers: { "content-length": `${body.length}`, "x-method": "GET" }
          })
          expect(print(yield* using(read))).toBe(print(body))
          const target = new Uint8Array(body.length)
          let progress = 0
          yield* using((call) =>
            Effect.zipRight(
              call.send(),
              call.into(target, (filled) => {
                progress = filled
              })
            )
          )
          expect([print(target), progress]).toEqual([print(body), body.length])
          const planned = new Uint8Array(body.length)
          yield* using((call) =>
            Effect.map(
              call.send(() => planned, (filled) => {
                progress = filled
              }),
              () => {
                expect([print(planned), progress, call.failure]).toEqual([print(body), body.length, undefined])
              }
            )
          )
        }
        const { using } = yield* served(transport, responding(Buffer.from("naïve 😀".repeat(50_000))))
        expect(yield* using((call) => Effect.zipRight(call.send(), call.text()))).toBe("naïve 😀".repeat(50_000))
        expect(yield* using((call) => Effect.zipRight(call.send(), call.text()), { method: "HEAD" })).toBe("")
      }))

    it.scopedLive("reads no text that is longer than its limit, and closes the connection", () =>
      Effect.gen(function*() {
        let written = 0
        const { sockets, using } = yield* served(transport, (_, response) => {
          const write = () => {
            while (response.write(content.subarray(0, 64 * 1024), () => written += 64 * 1024)) { /* goes on */ }
          }
          response.on("drain", write)
          write()
        })
        const error = yield* Effect.flip(using((call) => Effect.zipRight(call.send(), call.text(100_000))))
        expect(error).toMatchObject({ _tag: "UnexpectedStorageError" })
        expect(error.message).toContain("longer than 100000 bytes")
        yield* eventually(() => expect(sockets.size).toBe(0))
        const whole = yield* Effect.flip(using((call) => Effect.zipRight(call.send(), call.text())))
        expect(whole.message).toContain("longer than 16777216 bytes")
        yield* eventually(() => expect(sockets.size).toBe(0))
        expect(written).toBeLessThan(100 * MiB)
      }))

    it.scopedLive("fails where the body breaks off or is longer than its array, and says what has arrived", () =>
      Effect.gen(function*() {
        const { using } = yield* served(transport, (_, response) => {
          response.setHeader("content-length", content.length)
          response.write(content.subarray(0, MiB), () => setTimeout(() => response.socket?.destroy(), 50))
        })
        const target = new Uint8Array(content.length)
        let progress = 0
        const into = yield* Effect.flip(using((call) =>
          Effect.zipRight(
            call.send(),
            call.into(target, (filled) => {
              progress = filled
            })
          )
        ))
        expect(into._tag).toBe("StorageUnavailable")
        expect(print(target.subarray(0, progress))).toBe(print(content.subarray(0, progress)))
        expect(progress).toBeGreaterThan(0)

        const planned = yield* using((call) =>
          Effect.map(call.send(() => target), ({ status }) => [status, call.failure && Exit.isFailure(call.failure)])
        )
        expect(planned).toEqual([200, true])

        const parts: Array<Uint8Array> = []
        const stream = yield* Effect.flip(using((call) =>
          Effect.zipRight(
            call.send(),
            Stream.runForEach(call.stream(), (part) => Effect.sync(() => parts.push(part)))
          )
        ))
        expect(stream._tag).toBe("StorageUnavailable")
        expect(Buffer.concat(parts).equals(content.subarray(0, Buffer.concat(parts).length))).toBe(true)
        expect(parts.length).toBeGreaterThan(0)

        const short = new Uint8Array(10)
        const { using: other } = yield* served(transport, responding(content))
        const longer = yield* Effect.flip(other((call) => Effect.zipRight(call.send(), call.into(short))))
        expect(longer.message).toContain("longer than the 10 bytes announced")
      }))

    it.scopedLive("fails where an array is not filled", () =>
      Effect.gen(function*() {
        const { using } = yield* served(transport, responding(content))
        const error = yield* Effect.flip(
          using((call) => Effect.zipRight(call.send(), call.into(new Uint8Array(content.length + 1))))
        )
        expect(error).toMatchObject({ _tag: "CorruptObject", problem: "truncated" })
      }))

    it.scopedLive("fails where nothing listens", () =>
      Effect.gen(function*() {
        const { endpoint } = yield* Effect.scoped(listen(http.createServer()))
        const sending = yield* transport.make
        const error = yield* Effect.flip(
          Effect.flatMap(sending(endpoint), (send) => call(send, options, (call) => call.send()))
        )
        expect(error._tag).toBe("StorageUnavailable")
        expect(error.message).toContain("ECONNREFUSED")
      }))

    it.scoped("times out where the peer does not respond, or does not continue", () =>
      Effect.gen(function*() {
        let requests = 0
        const silent = yield* served(transport, () => requests++)
        yield* expectTimeout(silent.using((call) => call.send()), () => expect(requests).toBe(1))
        yield* eventually(() => expect(silent.sockets.size).toBe(0))

        const sent = content.subarray(0, MiB)
        const stalled = yield* served(transport, stalling(content.length, sent))
        let received = 0
        const ways: Readonly<Record<string, (call: HttpCall) => Effect.Effect<unknown, { readonly _tag: string }>>> = {
          into: (call) => call.into(new Uint8Array(content.length), (filled) => received = filled),
          stream: (call) => Stream.runForEach(call.stream(), (part) => Effect.sync(() => received += part.byteLength))
        }
        for (const [name, way] of Object.entries(ways)) {
          received = 0
          yield* expectTimeout(
            stalled.using((call) => Effect.zipRight(call.send(), way(call))),
            () => expect(received, name).toBe(sent.length)
          )
          yield* eventually(() => expect(stalled.sockets.size).toBe(0))
        }
      }))

    it.scoped("does not time out while its reader is slow", () =>
      Effect.gen(function*() {
        const { using } = yield* served(transport, responding(content))
        const pauses = yield* Queue.unbounded<Deferred.Deferred<void>>()
        const pause = Effect.gen(function*() {
          const isOver = yield* Deferred.make<void>()
          yield* Queue.offer(pauses, isOver)
          yield* Deferred.await(isOver)
        })
        let left = 2
        const reading = yield* Effect.fork(using((call) =>
          Effect.zipRight(
            Effect.zipLeft(call.send(), pause),
            gather(Stream.tap(call.stream(64 * 1024), () => left-- > 0 ? pause : Effect.void))
          )
        ))
        for (let pause = 0; pause < 3; pause++) {
          const isOver = yield* Queue.take(pauses)
          yield* TestClock.adjust(3 * options.idleTimeout)
          yield* Deferred.succeed(isOver, undefined)
        }
        expect(print(yield* Fiber.join(reading))).toBe(print(content))
      }))

    it.scopedLive("makes the peer wait while nobody reads", () =>
      Effect.gen(function*() {
        let sent = 0
        const { using } = yield* served(transport, (_, response) => {
          response.setHeader("content-length", 64 * MiB)
          Readable.from((function*() {
            for (let i = 0; i < 64 * 16; i++, sent += MiB / 16) yield content.subarray(i * 100, i * 100 + MiB / 16)
          })()).pipe(response)
        })
        let isFirst = true
        const body = yield* using((call) =>
          Effect.zipRight(
            call.send(),
            gather(Stream.tap(call.stream(), () => {
              if (!isFirst) return Effect.void
              isFirst = false
              // What the system holds for both sides.
              return Effect.map(Effect.sleep(500), () => expect(sent).toBeLessThan(24 * MiB))
            }))
          )
        )
        expect(body.length).toBe(64 * MiB)
        for (let i = 0; i < 64 * 16; i++) {
          const piece = Buffer.from(body.buffer, i * MiB / 16, MiB / 16)
          expect(piece.equals(content.subarray(i * 100, i * 100 + MiB / 16)), `piece ${i}`).toBe(true)
        }
      }))

    it.scopedLive("keeps the connection of what is over, and closes that of everything else", () =>
      Effect.gen(function*() {
        const { sockets, using } = yield* served(transport, (request, response) => {
          if (request.method === "HEAD") response.end()
          else responding(content)(request, response)
        })
        for (let i = 0; i < 5; i++) {
          yield* using(read)
          yield* using((call) => Effect.zipRight(call.send(), call.text()), { method: "HEAD" })
          yield* using(read, { method: "PUT", body: content })
        }
        expect(sockets.size).toBe(1)

        const stalled = yield* served(transport, stalling(content.length, content.subarray(0, 10)))
        yield* stalled.using((call) => Effect.zipRight(call.send(), Stream.runHead(call.stream())))
        yield* eventually(() => expect(stalled.sockets.size).toBe(0))
        const ways: ReadonlyArray<(call: HttpCall) => Effect.Effect<unknown, unknown>> = [(call) => call.send(), read]
        for (const way of ways) {
          const fiber = yield* Effect.fork(stalled.using((call) => Effect.zipRight(way(call), Effect.never)))
          yield* eventually(() => expect(stalled.sockets.size).toBe(1))
          yield* Effect.sleep(50)
          yield* Fiber.interrupt(fiber)
          yield* eventually(() => expect(stalled.sockets.size).toBe(0))
        }
      }))

    it.scopedLive("sends a body", () =>
      Effect.gen(function*() {
        const echo = yield* served(transport, (request, response) => void request.pipe(response))
        for (const body of [content.subarray(0, 1000), content]) {
          expect(print(yield* echo.using(read, { method: "PUT", body }))).toBe(print(body))
        }
      }))

    it.scoped("times out where the peer does not take the body, but not where it takes it slowly", () =>
      Effect.gen(function*() {
        const large = bytes(24 * MiB)
        const stops = yield* Queue.unbounded<http.IncomingMessage>()
        const slow = yield* served(transport, (request, response) => {
          let stopAt = 4 * MiB
          let taken = 0
          request.on("data", (piece: Buffer) => {
            taken += piece.length
            if (taken < stopAt || stopAt > 16 * MiB) return
            stopAt += 4 * MiB
            stops.unsafeOffer(request.pause())
          }).on("end", () => response.end("taken"))
        })
        const sending = yield* Effect.fork(
          slow.using((call) => Effect.zipRight(call.send(), call.text()), { method: "PUT", body: large })
        )
        for (let stop = 0; stop < 4; stop++) {
          const request = yield* Queue.take(stops)
          // More than the timeout in all, and less for what the system holds of the body.
          yield* TestClock.adjust(0.3 * options.idleTimeout)
          request.resume()
        }
        expect(yield* Fiber.join(sending)).toBe("taken")

        const requests: Array<http.IncomingMessage> = []
        const stopping = yield* served(transport, (request) => void requests.push(request.pause()))
        yield* expectTimeout(
          stopping.using((call) => call.send(), { method: "PUT", body: large }),
          () => expect(requests.length).toBe(1)
        )
        // That the client has gone shows only to a server that reads.
        for (const request of requests) request.on("error", () => {}).resume()
        yield* eventually(() => expect(stopping.sockets.size).toBe(0))
      }))

    it.scopedLive(
      transport.lendsBytes ? "reads into two arrays at most" : "has arrays of its own for each chunk",
      () =>
        Effect.gen(function*() {
          const { using } = yield* served(transport, responding(content))
          yield* using((call) =>
            Effect.gen(function*() {
              yield* call.send()
              const { reuse } = call
              if (!transport.lendsBytes) return expect(reuse).toBeUndefined()
              const arrays = new Set<ArrayBufferLike>()
              const parts: Array<Uint8Array> = []
              yield* Stream.runForEach(reuse?.(() => true) ?? Stream.empty, (part) =>
                Effect.sync(() => {
                  arrays.add(part.buffer)
                  parts.push(new Uint8Array(part))
                }))
              expect(print(Buffer.concat(parts))).toBe(print(content))
              expect(arrays.size).toBeLessThanOrEqual(2)
            })
          )
          yield* using((call) =>
            Effect.gen(function*() {
              yield* call.send()
              const kept: Array<Uint8Array> = []
              // None is free: what was handed out must stay as it is.
              const keep = call.reuse?.(() => false) ?? call.stream()
              yield* Stream.runForEach(keep, (part) => Effect.sync(() => kept.push(part)))
              expect(print(Buffer.concat(kept))).toBe(print(content))
            })
          )
        })
    )

    const limit = 400

    /** Another process that responds as soon as it hears of it. */
    const otherProcess = Effect.acquireRelease(
      Effect.promise(async () => {
        const child = spawn(process.execPath, ["-e", responder], { stdio: ["pipe", "pipe", "inherit"] })
        const [port] = await once(child.stdout, "data") as [Buffer]
        return { child, endpoint: `http://127.0.0.1:${port.toString().trim()}` }
      }),
      ({ child }) => Effect.sync(() => child.kill("SIGKILL"))
    )

    it.scopedLive("does not count the time in which this process was blocked", () =>
      Effect.gen(function*() {
        const { child, endpoint } = yield* otherProcess
        const sending = yield* transport.make
        const ways = [(call: HttpCall) => call.text(), (call: HttpCall) => Effect.map(gather(call.stream()), String)]
        const reading = yield* Effect.fork(Effect.forEach(ways, (way) =>
          Effect.flatMap(sending(endpoint), (send) =>
            call(send, { idleTimeout: limit }, (call) =>
              Effect.zipRight(call.send(), way(call)))), { concurrency: "unbounded" }))
        yield* Effect.sleep(limit / 4)
        yield* thenHeldUp(() =>
          child.stdin.write("now\n"), 1.5 * limit)
        for (const text of yield* Fiber.join(reading)) expect(text.length).toBeGreaterThan(0)
      }))
  })
}

/** Sends the head of a response at once, and its body when it reads a line. */
const responder = `
  let waiting = []
  const server = require("node:http").createServer((_, response) => {
    response.writeHead(200, { "content-length": 5 }).flushHeaders()
    waiting.push(response)
  }).listen(0, "127.0.0.1", () => console.log(server.address().port))
  process.stdin.on("data", () => { for (const response of waiting) response.end("bytes"); waiting = [] })
`

for (const [name, layer] of clients) {
  const put = <A>(
    endpoint: string,
    source: Stream.Stream<Uint8Array>,
    use: (call: HttpCall) => Effect.Effect<A, { readonly _tag: string }>,
    idleTimeout = 10_000
  ) =>
    Effect.scoped(Effect.gen(function*() {
      const client = yield* HttpClient.HttpClient
      const upload = yield* uploadOfStream(source, undefined, "application/octet-stream")
      const send = sendWith(client, yield* Effect.runtime<never>())(HttpClientRequest.put(endpoint), upload)
      return yield* call(send, { idleTimeout }, use)
    })).pipe(Effect.provide(layer))

  describe(`a stream that ${name} sends`, () => {
    const pieces = Stream.fromIterable(
      Array.from({ length: 12 }, (_, i) => content.subarray(i * 262_144, (i + 1) * 262_144))
    )
      .pipe(Stream.rechunk(1))

    it.scoped("arrives whole, however slow its source is", () =>
      Effect.gen(function*() {
        const { endpoint } = yield* listen(http.createServer((request, response) => void request.pipe(response)))
        const isSlow = yield* Deferred.make<void>()
        const pause = Effect.zipRight(Deferred.succeed(isSlow, undefined), Effect.sleep(3 * options.idleTimeout))
        let waits = 1
        const sending = yield* Effect.fork(
          put(endpoint, Stream.tap(pieces, () => waits-- > 0 ? pause : Effect.void), read)
        )
        yield* Deferred.await(isSlow)
        yield* TestClock.adjust(3 * options.idleTimeout)
        expect(print(yield* Fiber.join(sending))).toBe(print(content))
      }))

    it.scopedLive("is not read ahead of the peer, which must go on taking it", () =>
      Effect.gen(function*() {
        const requests: Array<http.IncomingMessage> = []
        const { endpoint, sockets } = yield* listen(
          http.createServer((request) => void requests.push(request.pause()))
        )
        let taken = 0
        let closed = 0
        const endless = Stream.repeatEffect(Effect.sync(() => {
          taken++
          return new Uint8Array(MiB)
        })).pipe(Stream.ensuring(Effect.sync(() => closed++)))
        const error = yield* Effect.flip(put(endpoint, endless, (call) => call.send(), 500))
        expect(error._tag).toBe("StorageTimeout")
        expect(taken).toBeLessThan(32)
        expect(closed).toBe(1)
        for (const request of requests) request.on("error", () => {}).resume()
        yield* eventually(() => expect(sockets.size).toBe(0))
      }))

    it.scopedLive("is broken off where its source is interrupted, never ended", () =>
      Effect.gen(function*() {
        let ended = 0
        let aborted = 0
        const { endpoint } = yield* listen(http.createServer((request) => {
          request.resume().on("end", () => ended++).on("error", () => aborted++)
        }))
        const exit = yield* Effect.exit(
          put(endpoint, Stream.concat(pieces, Stream.fromEffect(Effect.interrupt)), (call) => call.send())
        )
        expect(Exit.isFailure(exit) && Cause.isInterruptedOnly(exit.cause)).toBe(true)
        const started = yield* Deferred.make<void>()
        const hanging = Stream.concat(
          pieces,
          Stream.execute(Effect.zipRight(Deferred.succeed(started, undefined), Effect.never))
        )
        const fiber = yield* Effect.fork(put(endpoint, hanging, (call) => call.send()))
        yield* Deferred.await(started)
        yield* Effect.sleep(50)
        yield* Fiber.interrupt(fiber)
        yield* eventually(() => expect([aborted, ended]).toEqual([2, 0]))
      }))
  })
}

describe("a call", () => {
  it.effect("times out by the clock of its fiber", () =>
    Effect.gen(function*() {
      const silent: ReadonlyArray<Send> = [
        () => ({ lendsBytes: false, pause: () => {}, resume: () => {}, abort: () => {} }),
        sendWith(HttpClient.make(() => Effect.never), yield* Effect.runtime<never>())(HttpClientRequest.get("http://a"))
      ]
      for (const send of silent) {
        const fiber = yield* Effect.fork(Effect.flip(call(send, { idleTimeout: 30_000 }, (call) => call.send())))
        yield* TestClock.adjust(29_999)
        expect(fiber.unsafePoll()).toBe(null)
        yield* TestClock.adjust(1)
        expect((yield* Fiber.join(fiber))._tag).toBe("StorageTimeout")
      }
    }))

  it.effect("counts from the last bytes, and only while it waits for the peer", () =>
    Effect.gen(function*() {
      let receiver: Receiver | undefined
      const send: Send = (made) => {
        receiver = made
        return { lendsBytes: true, pause: () => {}, resume: () => {}, abort: () => {} }
      }
      const limit = 1000
      const progress: Array<number> = []
      const reading = Effect.gen(function*() {
        const made = yield* make(send, { idleTimeout: limit })
        yield* made.send()
        progress.push(0)
        yield* Effect.sleep(10 * limit)
        yield* Stream.runForEach(made.stream(), (part) => Effect.sync(() => progress.push(part.byteLength)))
      })
      const fiber = yield* Effect.fork(Effect.flip(reading))
      yield* TestClock.adjust(0)
      receiver?.onUpload("source")
      yield* TestClock.adjust(5 * limit)
      receiver?.onUpload("response")
      yield* TestClock.adjust(limit - 1)
      receiver?.onResponse({ status: 200, headers: {} })
      yield* TestClock.adjust(10 * limit)
      for (const size of [1, 2, 3]) {
        yield* TestClock.adjust(limit - 1)
        receiver?.onBytes(new Uint8Array(size))
      }
      yield* TestClock.adjust(limit - 1)
      expect(progress).toEqual([0, 1, 2, 3])
      expect(fiber.unsafePoll()).toBe(null)
      yield* TestClock.adjust(1)
      expect(yield* Fiber.join(fiber)).toMatchObject({ _tag: "StorageTimeout" })
    }))

  it.live("does not miss bytes that arrive at any step between looking for them and waiting for them", () =>
    Effect.gen(function*() {
      let isWaiting = false
      let step = 0
      for (; !isWaiting; step++) {
        let receiver: Receiver | undefined
        let isReading = false
        let hasArrived = false
        const arrive = () => {
          hasArrived = true
          if (isReading) receiver?.onBytes(Uint8Array.of(step))
        }
        let left = Infinity
        let timer: NodeJS.Timeout | undefined
        // Makes the fiber yield once, before this step, and the bytes arrive meanwhile.
        const scheduler: Scheduler.Scheduler = {
          shouldYield: () => left-- === 0 ? 0 : false,
          scheduleTask: (task) =>
            queueMicrotask(() => {
              if (left < 0) arrive()
              left = Infinity
              task()
            })
        }
        const send: Send = (made) => {
          receiver = made
          setImmediate(() => made.onResponse({ status: 200, headers: {} }))
          const resume = () => {
            isReading = true
            if (hasArrived) arrive()
          }
          return { lendsBytes: false, pause: () => {}, resume, abort: () => {} }
        }
        const pulling = call(send, options, (call) =>
          Effect.scoped(Effect.gen(function*() {
            yield* call.send()
            const pull = yield* Stream.toPull(call.stream())
            left = step
            timer = setTimeout(() => {
              isWaiting = left !== Infinity
              if (isWaiting) arrive()
            }, 50)
            return yield* pull
          })))
        const got = yield* Effect.withScheduler(pulling, scheduler)
        clearTimeout(timer)
        expect(Chunk.toReadonlyArray(got).map((part) => [...part])).toEqual([[step]])
      }
      expect(step).toBeGreaterThan(2)
    }))
})
