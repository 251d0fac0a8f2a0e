/**
 * The WebSocket of a weight server, for clients of the first Surfing Weights.
 */
import { describe, expect, it } from "@effect/vitest"
import { Effect, Redacted, type Scope, Stream } from "effect"
import { once } from "node:events"
import * as net from "node:net"
import { MemoryStorage, Storage, StorageBackend, StorageError, WeightServer } from "surfing-weights"
import { answer, bare, closeCode, connect, frame, say, upgradeRequest } from "../../support/webSocket.js"
import { eventually, raw, serve, serveOf } from "../../support/weightServer.js"

const MiB = 1024 * 1024

const overMemory = (name: string, body: Effect.Effect<void, unknown, Storage.Storage | Scope.Scope>) =>
  it.live(name, () => Effect.scoped(body).pipe(Effect.provide(MemoryStorage.layer())))

describe("commands", () => {
  /** What the first server reads, and the component that it answers. */
  const names: ReadonlyArray<readonly [command: string, file: string, component: string]> = [
    ["layer 0", "layer_0", "layer_0"],
    ["LAYER 0", "layer_0", "layer_0"],
    ["Layer 11", "layer_11", "layer_11"],
    ["layer 007", "layer_007", "layer_007"],
    ["layer last", "layer_last", "layer_last"],
    ["layer -1", "layer_-1", "layer_-1"],
    ["block 3", "block_3", "block_3"],
    ["encoder_block 1", "encoder_block_1", "encoder_block_1"],
    ["DECODER_BLOCK 2", "decoder_block_2", "decoder_block_2"],
    ["lm_head 0", "lm_head_0", "lm_head_0"],
    ["embeddings 0", "embeddings", "embeddings_0"],
    ["pooler x", "pooler", "pooler_x"],
    ["wte 0", "wte", "wte_0"],
    ["wpe 0", "wpe", "wpe_0"],
    ["norm 0", "norm", "norm_0"],
    ["ln_f 0", "ln_f", "ln_f_0"],
    ["embed_tokens 0", "embed_tokens", "embed_tokens_0"],
    ["shared_embeddings 0", "shared_embeddings", "shared_embeddings_0"],
    ["encoder_embeddings 0", "encoder_embeddings", "encoder_embeddings_0"],
    ["decoder_embeddings 0", "decoder_embeddings", "decoder_embeddings_0"],
    ["encoder_final_layer_norm 0", "encoder_final_layer_norm", "encoder_final_layer_norm_0"],
    ["Decoder_Final_Layer_Norm 0", "decoder_final_layer_norm", "decoder_final_layer_norm_0"],
    ["classifier 0", "classifier", "classifier_0"],
    ["h.0.attn 1", "h.0.attn", "h.0.attn_1"],
    ["couche_é ☃", "couche_é_☃", "couche_é_☃"]
  ]

  overMemory(
    "name files and components as the first server does",
    Effect.gen(function*() {
      const served = yield* serve()
      const socket = yield* connect(served)
      for (const [i, [command, file, component]] of names.entries()) {
        const bytes = Uint8Array.from({ length: 256 * (i + 1) }, (_, j) => (i + j) % 256)
        yield* served.storage.save(`${file}.pt`, bytes)
        expect(yield* say(socket, `GET ${command}`)).toEqual({
          success: true,
          component,
          weights: Buffer.from(bytes).toString("hex")
        })
      }
      expect(WeightServer.webSocketKey("ln_f", "0")).toBe("ln_f.pt")
    })
  )

  overMemory(
    "that are invalid, or for a missing component, are answered with the error",
    Effect.gen(function*() {
      const served = yield* serve()
      yield* served.storage.save("layer_0.pt", new Uint8Array([1, 255]))
      yield* served.storage.save("layer_empty.pt", new Uint8Array(0))
      const socket = yield* connect(served)
      const commands = [
        "",
        "GET",
        "GET layer",
        "GET ../../etc/passwd 0",
        "PUT layer 0",
        "GET a 1 2",
        "GET nothing 0",
        "GET layer 99",
        "GET layer ../../x",
        "GET layer a\0b",
        "GET .. 0"
      ]
      for (const command of commands) {
        const { error, success } = yield* say(socket, command)
        expect([command, success, typeof error]).toEqual([command, false, "string"])
        expect(error).not.toContain("Memory")
      }
      expect(yield* say(socket, "  GET \t layer  0\r\n")).toMatchObject({ success: true, weights: "01ff" })
      expect(yield* say(socket, "GET layer empty")).toMatchObject({ success: true, weights: "" })
    })
  )

  overMemory(
    "are all answered in order, however many are sent at once",
    Effect.gen(function*() {
      const served = yield* serve()
      for (let i = 0; i < 70; i++) yield* served.storage.save(`layer_${i}.pt`, new Uint8Array(100 * (70 - i)))
      for (const count of [70, 400]) {
        const socket = yield* connect(served)
        const got: Array<string> = []
        socket.on("message", (data: Buffer) => {
          got.push((JSON.parse(data.toString()) as { component: string }).component)
        })
        const expected = Array.from({ length: count }, (_, i) => `layer_${i % 70}`)
        for (const component of expected) socket.send(`GET ${component.replace("_", " ")}`)
        yield* eventually(`${count} answers`, () => got.length === count)
        expect(got).toEqual(expected)
      }
    })
  )

  overMemory(
    "find the objects that the options say, up to a size, for the tokens that they say",
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
      expect(yield* say(socket, "GET LAYER 0")).toMatchObject({ success: true, weights: "00".repeat(10) })
      const { error } = yield* say(socket, "GET layer 1")
      expect(error).toMatch(/over HTTP/)
    })
  )

  overMemory(
    "of pages of other origins are refused, as are other paths and plain requests",
    Effect.gen(function*() {
      const served = yield* serve()
      expect(yield* Effect.flip(connect(served, { origin: "https://evil.example" }))).toBe(403)
      yield* connect(served, { origin: `http://127.0.0.1:${served.port}` })
      expect(yield* Effect.flip(connect(served, {}, "/nowhere"))).toBe(404)
      const requests = `GET / HTTP/1.1\r\nHost: a\r\n\r\nGET /health HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n`
      expect(yield* raw(served, requests)).toMatch(/^HTTP\/1.1 426 .*HTTP\/1.1 200 /s)
      const open = yield* serve({ origins: ["https://app.example"] })
      yield* connect(open, { origin: "https://app.example" })
    })
  )
})

describe("answers", () => {
  overMemory(
    "are read no further than the client takes them",
    Effect.gen(function*() {
      let read = 0
      const memory = yield* Storage.Storage
      const piece = new Uint8Array(64 * 1024)
      const info = yield* memory.save("layer_0.pt", piece)
      const size = 24 * MiB
      const storage = Storage.make({
        ...memory.backend,
        open: () =>
          Effect.succeed(StorageBackend.opened({
            info: { ...info, size },
            range: { start: 0, endExclusive: size },
            stream: Stream.repeatEffect(Effect.sync(() => {
              read += piece.length
              return piece
            })).pipe(Stream.take(size / piece.length))
          }))
      })
      const served = yield* serveOf(storage)
      const socket = yield* connect(served)
      socket.pause()
      for (let i = 0; i < 2; i++) socket.send("GET layer 0")
      let before = -1
      yield* Effect.repeat(Effect.sleep("300 millis"), { until: () => read === before || ((before = read), false) })
      // What the buffers of both systems hold, in hexadecimal.
      expect(read).toBeLessThan(16 * MiB)
      socket.resume()
      for (let i = 0; i < 2; i++) {
        const { weights } = yield* answer(socket)
        expect(String(weights).length).toBe(2 * size)
      }
    })
  )

  overMemory(
    "that break off close the connection, so that no part is taken for the whole",
    Effect.gen(function*() {
      const memory = yield* Storage.Storage
      const info = yield* memory.save("layer_0.pt", new Uint8Array(1000))
      const failed = Stream.fail(new StorageError.StorageUnavailable({ backend: "Bucket(secret)", reason: "secret" }))
      const served = yield* serveOf(Storage.make({
        ...memory.backend,
        open: (key) =>
          Effect.succeed(StorageBackend.opened({
            info: { ...info, key },
            range: { start: 0, endExclusive: 1000 },
            stream: key === "layer_0.pt" ? failed : Stream.concat(Stream.make(new Uint8Array(500)), failed)
          }))
      }))
      const socket = yield* connect(served)
      const { error } = yield* say(socket, "GET layer 0")
      expect(error).toMatch(/unavailable/)
      expect(error).not.toMatch(/secret/)
      const messages: Array<unknown> = []
      socket.on("message", (message) => messages.push(message))
      socket.send("GET layer 1")
      expect((yield* Effect.promise(() => once(socket, "close") as Promise<[number]>))[0]).toBe(1011)
      expect(messages).toEqual([])
    })
  )
})

describe("limits", () => {
  /** Writes to a connection, and returns the code with which it is closed. */
  const closedAfter = (socket: net.Socket, data: Uint8Array) =>
    Effect.promise(async () => {
      const got: Array<Buffer> = []
      socket.on("data", (bytes) => got.push(bytes)).resume()
      socket.write(data)
      const start = Date.now()
      while (closeCode(Buffer.concat(got)) === undefined && Date.now() < start + 60_000) {
        await new Promise((resolve) => setTimeout(resolve, 20))
      }
      return closeCode(Buffer.concat(got))
    })

  overMemory(
    "a message of more than 1 KiB is refused as soon as its length is known",
    Effect.gen(function*() {
      const served = yield* serve()
      yield* served.storage.save("layer_0.pt", new Uint8Array([1]))
      const after = (data: Uint8Array) => Effect.flatMap(bare(served), (socket) => closedAfter(socket, data))
      expect(yield* after(frame("", { size: 99 * MiB }))).toBe(1009)
      expect(yield* after(frame("", { size: 1025, opcode: 2 }))).toBe(1009)
      expect(yield* after(frame("x".repeat(1025)))).toBe(1009)
      const fragments = [frame("x".repeat(600), { fin: false }), frame("x".repeat(600), { fin: false, opcode: 0 })]
      expect(yield* after(Buffer.concat(fragments))).toBe(1009)
      // A control frame cannot be long, whatever it is for.
      expect(yield* after(frame("", { opcode: 9, size: 126 }))).toBe(1002)
      const socket = yield* connect(served)
      expect(yield* say(socket, `GET layer 0${" ".repeat(1024 - 11)}`)).toMatchObject({ success: true })
    })
  )

  overMemory(
    "a message that comes together with the request has the same limit, and is answered",
    Effect.gen(function*() {
      const served = yield* serve()
      yield* served.storage.save("layer_0.pt", new Uint8Array([1]))
      const together = (message: Buffer) =>
        Effect.gen(function*() {
          const socket = net.connect(served.port, "127.0.0.1").on("error", () => {})
          yield* Effect.addFinalizer(() => Effect.sync(() => socket.destroy()))
          let got = Buffer.alloc(0)
          socket.on("data", (bytes) => got = Buffer.concat([got, bytes]))
          socket.write(Buffer.concat([Buffer.from(upgradeRequest(served)), message]))
          const body = () => got.subarray(got.indexOf("\r\n\r\n") + 4)
          yield* eventually("an answer", () => closeCode(body()) !== undefined || body().includes(`"}`))
          return closeCode(body()) ?? body().toString()
        })
      expect(yield* together(frame("", { size: 99 * MiB }))).toBe(1009)
      expect(yield* together(frame("GET layer 0"))).toMatch(/"weights": .*01.*"}/s)
    })
  )

  overMemory(
    "a client that shows no sign of life is cut off after the idle timeout, and one that answers pings is not",
    Effect.gen(function*() {
      const served = yield* serve({ idleTimeout: "1 second" })
      yield* served.storage.save("layer_0.pt", new Uint8Array(32 * MiB))
      const alive = yield* connect(served)
      const isClosed = (socket: net.Socket) => {
        let closed = false
        socket.on("close", () => closed = true)
        return () => closed
      }
      const silent = yield* bare(served)
      const unfinished = yield* bare(served)
      unfinished.write(frame("GET", { size: 11 }))
      const trickling = yield* bare(served)
      trickling.write(frame("", { size: 1000 }))
      const trickle = setInterval(() => trickling.write("x"), 100)
      yield* Effect.addFinalizer(() => Effect.sync(() => clearInterval(trickle)))
      const closed = [silent, unfinished, trickling].map((socket) => isClosed(socket.resume()))
      const start = Date.now()
      yield* eventually("the end of the silent ones", () => closed.every((isClosed) => isClosed()))
      expect(Date.now() - start).toBeGreaterThan(900)
      // It reads nothing of its answer. A paused socket does not see its own end.
      const stuck = yield* bare(served)
      stuck.write(frame("GET layer 0"))
      const connection = served.connections.at(-1)
      yield* eventually("the end of the one that does not read", () => connection?.destroyed === true)
      expect(alive.readyState).toBe(alive.OPEN)
      alive.send("GET layer 0")
      expect(yield* answer(alive)).toMatchObject({ success: true })
    })
  )
})
