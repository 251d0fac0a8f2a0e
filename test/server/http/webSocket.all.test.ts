/**
 * The WebSocket of a weight server: its memory under attack, its end, and the programs of the first Surfing Weights.
 */
import { describe, expect, it } from "@effect/vitest"
import { Effect } from "effect"
import { execFile, execFileSync, spawnSync } from "node:child_process"
import * as fs from "node:fs"
import type * as net from "node:net"
import * as path from "node:path"
import { fileURLToPath } from "node:url"
import { promisify } from "node:util"
import { MemoryStorage } from "surfing-weights"
import { temporaryDirectory } from "../../support/directory.js"
import { type Answer, bare, connect, frame, say } from "../../support/webSocket.js"
import { ask, eventually, serve } from "../../support/weightServer.js"
import { residentMemory, serveInProcess } from "../../support/weightServerProcess.js"

const MiB = 1024 * 1024

/** Writes the same bytes again and again, as fast as they are taken. */
const flood = (socket: net.Socket, block: Uint8Array, times: number): void => {
  let left = times
  const more = (): void => {
    while (left-- > 0) if (!socket.write(block)) return void socket.once("drain", more)
  }
  more()
}

const repeated = (count: number, frame: () => Buffer): Buffer => Buffer.concat(Array.from({ length: count }, frame))

type Attack = (socket: net.Socket) => void

const attacks: ReadonlyArray<readonly [name: string, connections: number, attacks: ReadonlyArray<Attack>]> = [
  ["answers of 130 MB that are not read", 8, [
    (socket) => socket.write(frame("GET layer 0")),
    (socket) => flood(socket, repeated(1000, () => frame("GET layer 0")), 500)
  ]],
  ["messages of 98 MiB that do not end", 20, [
    (socket) => {
      socket.write(frame("", { opcode: 2, size: 99 * MiB }))
      flood(socket, Buffer.alloc(MiB), 20)
    },
    (socket) => {
      socket.write(frame("x".repeat(1000), { fin: false }))
      flood(socket, repeated(20, () => frame(Buffer.alloc(60_000), { fin: false, opcode: 0 })), 20)
    },
    (socket) => {
      socket.write(frame("", { fin: false }))
      flood(socket, repeated(10_000, () => frame("", { fin: false, opcode: 0 })), 20)
    }
  ]],
  ["pings whose pongs are not read", 20, [
    (socket) => flood(socket, repeated(2000, () => frame(Buffer.alloc(125), { opcode: 9 })), 80)
  ]]
]

describe.skipIf(process.platform !== "linux")("a server holds next to nothing of, and answers others during", () => {
  for (const [name, connections, kinds] of attacks) {
    it.scopedLive(name, () =>
      Effect.gen(function*() {
        const directory = yield* temporaryDirectory
        fs.writeFileSync(path.join(directory, "layer_0.pt"), "")
        fs.truncateSync(path.join(directory, "layer_0.pt"), 130e6)
        const served = yield* serveInProcess(directory)
        yield* say(yield* connect(served), "GET nothing 0")
        yield* ask(served, "GET", "/objects/layer_0.pt")
        const before = residentMemory(served.child)
        let slowest = 0
        for (const attack of kinds) {
          for (let i = 0; i < connections; i++) attack(yield* bare(served))
          for (let i = 0; i < 20; i++) {
            const start = performance.now()
            expect((yield* ask(served, "GET", "/health")).status).toBe(200)
            slowest = Math.max(slowest, performance.now() - start)
            yield* Effect.sleep("50 millis")
          }
        }
        expect(residentMemory(served.child, "VmHWM") - before).toBeLessThan(150)
        expect(slowest).toBeLessThan(3000)
      }))
  }
})

describe("the idle timeout", () => {
  it.scopedLive("does not cut a client off that takes its answer slowly, for longer than that", () =>
    Effect.gen(function*() {
      const served = yield* Effect.provide(serve({ idleTimeout: "1 second" }), MemoryStorage.layer())
      const size = 16 * MiB
      yield* served.storage.save("layer_0.pt", new Uint8Array(size))
      const socket = yield* bare(served)
      socket.write(frame("GET layer 0"))
      yield* Effect.sleep("50 millis")
      // A sign of life during an answer starts no other clock.
      socket.write(frame("", { opcode: 10 }))
      let got = 0
      socket.on("data", (bytes) => {
        got += bytes.length
        socket.pause()
      })
      const reading = setInterval(() => socket.resume(), 10)
      yield* Effect.addFinalizer(() => Effect.sync(() => clearInterval(reading)))
      yield* eventually("all of it", () => got > 2 * size || socket.destroyed)
      expect(got).toBeGreaterThan(2 * size)
    }))
})

describe("the end of a server", () => {
  it.scopedLive("waits no longer than its close timeout for a client that does not close its side", () =>
    Effect.gen(function*() {
      const served = yield* Effect.provide(serve(), MemoryStorage.layer())
      const socket = yield* bare(served)
      const start = Date.now()
      yield* served.stop
      yield* eventually("the end of the connection", () => served.connections.every(({ destroyed }) => destroyed))
      expect(Date.now() - start).toBeLessThan(20_000)
      socket.destroy()
    }))
})

const firstServer = fileURLToPath(new URL("../../support/firstServer.py", import.meta.url))
const python = process.env["FIRST_SERVER_PYTHON"] ?? "python3"
const hasFirstServer = spawnSync(python, [firstServer, "answers", "."], { input: "" }).status === 0

// Skipped without the Python packages that `firstServer.py` names.
describe.skipIf(!hasFirstServer)("the first Surfing Weights", () => {
  const files = [
    ...["embeddings", "pooler", "wte", "wpe", "ln_f", "norm", "embed_tokens", "shared_embeddings", "classifier"],
    ...["encoder_embeddings", "decoder_embeddings", "encoder_final_layer_norm", "decoder_final_layer_norm"],
    ...["layer_0", "layer_007", "layer_last", "block_1", "encoder_block_0", "decoder_block_2", "lm_head_0", "h.0.attn"]
  ]
  const commands = [
    ...["embeddings 0", "pooler x", "wte 0", "wpe 1", "ln_f 0", "LN_F 12", "norm 0", "embed_tokens 0", "classifier 3"],
    ...["shared_embeddings 0", "encoder_embeddings 0", "decoder_embeddings 0", "encoder_final_layer_norm 0"],
    ...["Decoder_Final_Layer_Norm 0", "LAYER 0", "layer 007", "layer last", "layer 7", "BLOCK 1", "encoder_block 0"],
    ...["decoder_block 2", "lm_head 0", "h.0.attn 1", "nothing 0", "layer -1"]
  ]
  const withFiles = Effect.gen(function*() {
    const directory = yield* temporaryDirectory
    for (const name of files) fs.writeFileSync(path.join(directory, `${name}.pt`), `weights of ${name}`)
    return { directory, ...(yield* serveInProcess(directory)) }
  })

  it.scopedLive("gives the same answers to the same commands", () =>
    Effect.gen(function*() {
      const { directory, ...served } = yield* withFiles
      const input = commands.map((command) => `GET ${command}\n`).join("")
      const theirs = execFileSync(python, [firstServer, "answers", directory], { encoding: "utf8", input })
      const socket = yield* connect(served)
      const ours = yield* Effect.forEach(commands, (command) => say(socket, `GET ${command}`))
      const isFailure = ({ error: _, ...answer }: Answer) => answer
      expect(ours.map(isFailure)).toEqual(
        theirs.trim().split("\n").map((line) => isFailure(JSON.parse(line) as Answer))
      )
      expect(ours.filter(({ success }) => success).length).toBe(commands.length - 3)
    }))

  it.scopedLive("fetches weights with its client", () =>
    Effect.gen(function*() {
      const { port } = yield* withFiles
      for (const name of ["ln_f", "layer"]) {
        const args = [firstServer, "fetch", `ws://127.0.0.1:${port}`, name, "0"]
        const { stdout } = yield* Effect.promise(() => promisify(execFile)(python, args))
        const file = name === "layer" ? "layer_0" : name
        expect(Buffer.from(stdout.trim(), "hex").toString()).toBe(`weights of ${file}`)
      }
    }))
})
