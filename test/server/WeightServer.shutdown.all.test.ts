/**
 * Servers in processes of their own that receive signals while clients are slow: `npm run serve`, and servers of an app.
 */
import { describe, expect, it } from "@effect/vitest"
import { Effect } from "effect"
import { type ChildProcess, spawn, spawnSync } from "node:child_process"
import { once } from "node:events"
import * as fs from "node:fs"
import * as net from "node:net"
import * as path from "node:path"
import { fileURLToPath } from "node:url"
import { temporaryDirectory } from "../support/directory.js"
import { ask, eventually } from "../support/weightServer.js"

const MiB = 1024 * 1024

/** More than the buffers of a connection hold, and more than a piece at its end. */
const size = 16 * MiB + 10_000

const root = fileURLToPath(new URL("../..", import.meta.url))
const childProgram = path.join(root, "test/support/weightServerChild.ts")

const hasCurl = spawnSync("curl", ["--version"]).status === 0
const isPosix = process.platform !== "win32"

interface Run {
  readonly child: ChildProcess
  readonly port: number
  readonly output: () => string
  /** The exit code and signal, and after how many milliseconds from now. */
  readonly exit: Effect.Effect<readonly [code: number | null, signal: NodeJS.Signals | null, after: number]>
  /** Sends a signal to the process, or like a terminal to its group. */
  readonly signal: (signal: NodeJS.Signals, to?: "process" | "group") => Effect.Effect<void>
}

/** Runs a server in a process group of its own, and waits until it prints its port after a prefix. */
const run = (command: string, args: ReadonlyArray<string>, prefix: RegExp) =>
  Effect.gen(function*() {
    const child = yield* Effect.acquireRelease(
      Effect.sync(() => spawn(command, args, { cwd: root, detached: true, stdio: ["pipe", "pipe", "pipe"] })),
      ({ pid = 0 }) =>
        Effect.sync(() => {
          // Also what is left of the group.
          try {
            process.kill(-pid, "SIGKILL")
          } catch {
            // It has ended.
          }
        })
    )
    let output = ""
    for (const stream of [child.stdout, child.stderr]) stream.on("data", (bytes: Buffer) => output += bytes.toString())
    const exited = once(child, "exit") as Promise<[number | null, NodeJS.Signals | null]>
    const port = () => Number(prefix.exec(output)?.[1])
    yield* eventually("the server", () => port() > 0 || child.exitCode !== null)
    const started: Run = {
      child,
      port: port(),
      output: () => output,
      exit: Effect.promise(async () => {
        const start = Date.now()
        return [...await exited, Date.now() - start] as const
      }),
      signal: (signal, to = "process") =>
        Effect.sync(() => void process.kill(to === "group" ? -(child.pid ?? 0) : child.pid ?? 0, signal))
    }
    return started
  })

/** `npm run serve` on a directory with one file. */
const served = Effect.gen(function*() {
  const directory = yield* temporaryDirectory
  fs.writeFileSync(path.join(directory, "big"), "")
  fs.truncateSync(path.join(directory, "big"), size)
  return yield* run("npm", ["run", "serve", "--", directory, "--port", "0"], /listening on 127\.0\.0\.1:(\d+)/)
})

/** Downloads at a limited rate, and returns the number of bytes and curl's exit code. */
const curl = (port: number, rate: string, prefix = "") =>
  Effect.map(
    Effect.async<readonly [bytes: number, code: number | null]>((resume) => {
      const url = `http://127.0.0.1:${port}${prefix}/objects/big`
      const child = spawn("curl", ["-s", "--limit-rate", rate, "-o", "/dev/null", "-w", "%{size_download}", url])
      let bytes = ""
      child.stdout.on("data", (part: Buffer) => bytes += part.toString())
      child.once("close", (code) => resume(Effect.succeed([Number(bytes), code])))
      return Effect.sync(() => child.kill("SIGKILL"))
    }),
    ([bytes, code]) => ({ bytes, code })
  )

describe.skipIf(!isPosix || !hasCurl)("a signal to npm run serve", () => {
  const signals = [
    ["SIGTERM to npm", "SIGTERM", "process"],
    ["Ctrl-C, which npm repeats", "SIGINT", "group"]
  ] as const
  for (const [name, signal, to] of signals) {
    it.scopedLive(`lets slow downloads finish and ends the process: ${name}`, () =>
      Effect.gen(function*() {
        const server = yield* served
        const downloads = yield* Effect.fork(
          Effect.all([curl(server.port, "6M"), curl(server.port, "6M"), curl(server.port, "5M")], {
            concurrency: "unbounded"
          })
        )
        yield* Effect.sleep("700 millis")
        yield* server.signal(signal, to)
        const asked = Effect.map(ask(server, "GET", "/health"), ({ headers, status }) => [status, headers.connection])
        const draining = yield* Effect.repeat(asked, { until: ([status]) => status !== 200, times: 200 })
        expect(draining).toEqual([503, "close"])
        const refused = yield* ask(server, "GET", "/objects/big")
        expect([refused.status, refused.headers["retry-after"]]).toEqual([503, "1"])
        expect(yield* downloads).toEqual(Array.from({ length: 3 }, () => ({ bytes: size, code: 0 })))
        const [code, signalled, after] = yield* server.exit
        expect([code, signalled]).toEqual([0, null])
        expect(after).toBeLessThan(20_000)
      }))
  }

  it.scopedLive("ends the process at once when it is the second", () =>
    Effect.gen(function*() {
      const server = yield* served
      const download = yield* Effect.fork(curl(server.port, "1M"))
      yield* Effect.sleep("500 millis")
      yield* server.signal("SIGTERM")
      yield* Effect.sleep("1 second")
      expect(server.child.exitCode).toBe(null)
      yield* server.signal("SIGTERM")
      const [code, , after] = yield* server.exit
      expect(code).toBe(143)
      expect(after).toBeLessThan(10_000)
      expect((yield* download).code).not.toBe(0)
    }))
})

/** A connection that sends some text, goes on as `then` says, and never closes. */
const connection = (port: number, text: string, then: (socket: net.Socket) => void = () => {}) =>
  Effect.acquireRelease(
    Effect.promise(async () => {
      const socket = net.connect(port, "127.0.0.1").on("error", () => {})
      await once(socket, "connect")
      socket.write(text)
      then(socket)
      return socket
    }),
    (socket) => Effect.sync(() => socket.destroy())
  )

describe.skipIf(!hasCurl)(
  "a signal to a server of an app ends it at the shutdown timeout, whatever its clients do",
  () => {
    const shapes = [
      ["launched, with the storage provided last", "launch", ""],
      ["launched, with the server provided last", "early", ""],
      ["mounted into a router", "router", "/weights"]
    ] as const
    for (const [name, shape, prefix] of shapes) {
      it.scopedLive(name, () =>
        Effect.gen(function*() {
          const directory = yield* temporaryDirectory
          fs.writeFileSync(path.join(directory, "big"), "")
          fs.truncateSync(path.join(directory, "big"), 1024 * MiB)
          const options = JSON.stringify({ writable: true, shutdownTimeout: "2 seconds" })
          const args = ["--import", "tsx", childProgram, directory, options, shape]
          const server = yield* run(process.execPath, args, /^(\d+)$/m)
          const { port } = server
          const head = (method: string, target: string) =>
            `${method} ${prefix}${target} HTTP/1.1\r\nhost: localhost\r\n`
          const slow = yield* Effect.fork(curl(port, "1M", prefix))
          yield* connection(port, `${head("GET", "/objects/big")}\r\n`, (socket) => socket.pause())
          yield* connection(port, `${head("PUT", "/objects/new")}content-length: 100000\r\n\r\n`, (socket) => {
            const timer = setInterval(() => socket.write("x"), 100)
            socket.once("close", () => clearInterval(timer))
          })
          yield* connection(port, `${head("GET", "/health")}\r\n`, (socket) => socket.resume())
          const key = "dGhlIHNhbXBsZSBub25jZQ=="
          const upgrade =
            `upgrade: websocket\r\nconnection: upgrade\r\nsec-websocket-key: ${key}\r\nsec-websocket-version: 13`
          yield* connection(port, `${head("GET", "/")}${upgrade}\r\n\r\n`, (socket) => socket.resume())
          if (shape !== "router") {
            // An app with its own server closes these itself.
            yield* connection(port, "GET /objects/big HTTP/1.1\r\nho")
            yield* connection(port, "")
          }
          yield* Effect.sleep("1 second")
          yield* server.signal("SIGTERM")
          yield* Effect.sleep("500 millis")
          const health = yield* ask(server, "GET", `${prefix}/health`)
          expect([health.status, health.headers["retry-after"], health.headers.connection]).toEqual([503, "1", "close"])
          const [code, signalled, after] = yield* server.exit
          expect([code, signalled]).toEqual([0, null])
          expect(after).toBeGreaterThan(1000)
          // The timeout, and what WebSockets have to close; without a limit it would be minutes.
          expect(after).toBeLessThan(20_000)
          expect((yield* slow).code).toBe(18)
          expect(fs.readdirSync(directory).filter((name) => !name.startsWith("."))).toEqual(["big"])
        }))
    }
  }
)

describe.skipIf(!isPosix)("npm run serve", () => {
  const isRoot = process.getuid?.() === 0

  const serve = (args: ReadonlyArray<string>, asNobody: boolean) =>
    Effect.promise(async () => {
      const child = spawn(
        process.execPath,
        ["--import", "tsx", path.join(root, "src/command/main.ts"), "serve", ...args],
        { cwd: root, ...(asNobody && { uid: 65534, gid: 65534 }) }
      )
      let stderr = ""
      let stdout = ""
      child.stderr.on("data", (bytes: Buffer) => stderr += bytes.toString())
      child.stdout.on("data", (bytes: Buffer) => stdout += bytes.toString())
      const [status] = await once(child, "close") as [number | null]
      return { status, stdout, sentences: stderr.trimEnd().split("\n") }
    })

  it.scopedLive(
    "ends with one sentence and an exit code where flag, directory, port or permissions are wrong, and creates nothing",
    () =>
      Effect.gen(function*() {
        const directory = yield* temporaryDirectory
        const typo = path.join(directory, "typo")
        const closed = path.join(directory, "closed")
        fs.mkdirSync(closed, { mode: 0o700 })
        fs.chmodSync(directory, 0o755)
        const other = yield* Effect.acquireRelease(
          Effect.promise(async () => {
            const other = net.createServer().listen(0, "127.0.0.1")
            await once(other, "listening")
            return other
          }),
          (other) => Effect.sync(() => other.close())
        )
        const { port } = other.address() as net.AddressInfo
        const secret = path.join(directory, "tokens")
        fs.writeFileSync(secret, "tooshort")
        const cases: ReadonlyArray<
          readonly [status: number, args: ReadonlyArray<string>, sentence: RegExp, asNobody?: boolean]
        > = [
          [1, [typo], /the directory .*typo does not exist$/],
          [1, ["package.json"], /package\.json is not a directory$/],
          [2, [root, "--prot", "1"], /^surfing-weights: serve has no option --prot; see surfing-weights serve --help/],
          [2, [root, "--port", "http"], /^surfing-weights: --port must be 0 to 65535 \(got "http"\)$/],
          [2, [root, "--tls-cert", secret], /^surfing-weights: --tls-cert and --tls-key must be given together$/],
          [2, [root, "--token-file", secret], /^surfing-weights: --token-file must have lines such as (?!.*tooshort)/],
          [1, [directory, "--port", String(port)], /EADDRINUSE.*; choose another --host or --port$/],
          ...(isRoot ? [[1, [closed], /permission denied.*; check /, true] as const] : [])
        ]
        yield* Effect.forEach(cases, ([status, args, sentence, asNobody = false]) =>
          Effect.map(serve(args, asNobody), (got) => {
            expect(got).toEqual({ status, stdout: "", sentences: [expect.stringMatching(sentence)] })
          }), { concurrency: 3 })
        expect(fs.existsSync(typo)).toBe(false)
      })
  )
})
