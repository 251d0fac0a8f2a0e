/**
 * Servers to be measured, each a process of its own, and the client that measures them.
 */
import assert from "node:assert/strict"
import { type ChildProcess, spawn } from "node:child_process"
import { once } from "node:events"
import * as fs from "node:fs"
import * as nodeHttp from "node:http"
import * as net from "node:net"
import * as path from "node:path"
import { setTimeout } from "node:timers/promises"
import { fileURLToPath } from "node:url"
import { freePort } from "../support/programs.js"
import type { See } from "./nodeFs.js"

export interface Server {
  readonly port: number
  readonly child: ChildProcess
}

const running = new Set<ChildProcess>()

process.on("exit", () => {
  for (const child of running) child.kill("SIGKILL")
})

const keep = (child: ChildProcess): void => {
  running.add(child)
  child.once("exit", () => running.delete(child))
}

/** One of `httpServer.ts`. */
export const startServer = async (
  kind: "ours" | "app" | "pipe" | "plain" | "bare",
  directory: string
): Promise<Server> => {
  const child = spawn(
    process.execPath,
    [...process.execArgv, fileURLToPath(new URL("httpServer.ts", import.meta.url)), kind, directory],
    { stdio: ["pipe", "pipe", "inherit"] }
  )
  keep(child)
  const [line] = await once(child.stdout, "data") as [Buffer]
  return { port: Number(String(line)), child }
}

export const startNginx = async (directory: string): Promise<Server> => {
  const port = await freePort()
  const own = fs.mkdtempSync(path.join(path.dirname(directory), "nginx-"))
  // As root its worker would be somebody who may not read the directory.
  const user = process.getuid?.() === 0 ? "user root;" : ""
  fs.writeFileSync(
    path.join(own, "nginx.conf"),
    `daemon off; master_process off; ${user} pid ${own}/pid; error_log stderr;
events {}
http {
  access_log off; sendfile on; keepalive_requests 1000000;
  client_body_temp_path ${own}/a; proxy_temp_path ${own}/b; fastcgi_temp_path ${own}/c; uwsgi_temp_path ${own}/d;
  scgi_temp_path ${own}/e;
  server { listen 127.0.0.1:${port}; location /objects/ { alias ${directory}/; } }
}
`
  )
  const child = spawn("nginx", ["-p", own, "-c", path.join(own, "nginx.conf")], {
    stdio: ["ignore", "ignore", "inherit"]
  })
  keep(child)
  for (let tries = 0; tries < 100; tries++) {
    const socket = net.connect(port, "127.0.0.1")
    const connected = await once(socket, "connect").then(() => true, () => false)
    socket.destroy()
    if (connected) return { port, child }
    await setTimeout(50)
  }
  throw new Error("nginx does not answer")
}

/**
 * Downloads a large object by a client that is as little as can be, which reads into one array over and over: one that
 * makes an array of each read has V8 collect its heap, and more or less of that is what would be measured.
 */
export const downloadLarge = ({ port }: Server, key: string, see: See): Promise<void> =>
  new Promise((resolve, reject) => {
    const separator = "\r\n\r\n"
    let head = ""
    let at = 0
    const receive = (bytes: Uint8Array): void => {
      if (head.endsWith(separator)) {
        see(bytes, at)
        at += bytes.length
        return
      }
      const text = head + Buffer.from(bytes).toString("latin1")
      const end = text.indexOf(separator)
      const from = head.length
      head = end === -1 ? text : text.slice(0, end + separator.length)
      if (end !== -1) receive(bytes.subarray(head.length - from))
    }
    const socket = net.connect({
      host: "127.0.0.1",
      port,
      onread: {
        buffer: Buffer.alloc(1024 * 1024),
        callback: (count, buffer) => {
          receive(buffer.subarray(0, count))
          return true
        }
      }
    })
    socket.on("error", reject)
    socket.on("end", () => {
      assert.match(head, /^HTTP\/1.1 200 /)
      assert.equal(at, Number(/content-length: *(\d+)/i.exec(head)?.[1]))
      resolve()
    })
    socket.write(`GET /objects/${key} HTTP/1.1\r\nhost: 127.0.0.1:${port}\r\nconnection: close\r\n\r\n`)
  })

/** The whole object of `length` bytes, or so many of it from `start` on. */
export interface Wanted {
  readonly key: string
  readonly start?: number
  readonly length: number
}

/** Downloads an object or a range of it, a chunk after the other. */
const download = (
  { port }: Server,
  { key, length, start }: Wanted,
  see: See,
  agent: nodeHttp.Agent
): Promise<void> =>
  new Promise((resolve, reject) => {
    const first = start ?? 0
    const headers = start === undefined ? undefined : { range: `bytes=${start}-${start + length - 1}` }
    let at = first
    nodeHttp.get({ host: "127.0.0.1", port, path: `/objects/${key}`, headers, agent }, (response) => {
      assert.equal(response.statusCode, start === undefined ? 200 : 206)
      response.on("data", (bytes: Buffer) => {
        assert(at + bytes.length <= first + length)
        see(bytes, at)
        at += bytes.length
      })
      response.on("end", resolve)
      response.on("error", reject)
    }).on("error", reject)
  })

/** Downloads many, so many at once on connections that are kept. */
export const downloadAll = async (server: Server, wanted: ReadonlyArray<Wanted>, see: See): Promise<void> => {
  const connections = 32
  const agent = new nodeHttp.Agent({ keepAlive: true, maxSockets: connections })
  const left = wanted.values()
  const work = async () => {
    for (const one of left) await download(server, one, see, agent)
  }
  await Promise.all(Array.from({ length: connections }, work))
  agent.destroy()
}

/** What a server holds of memory, in bytes, now or at the most so far; Linux tells. */
export const memoryOf = ({ child }: Server, which: "VmRSS" | "VmHWM"): number => {
  const [, kilobytes = "0"] = new RegExp(`${which}:\\s*(\\d+) kB`).exec(
    fs.readFileSync(`/proc/${child.pid}/status`, "utf8")
  ) ?? []
  return Number(kilobytes) * 1024
}

/** The processor time that a server has taken so far, in milliseconds; Linux tells. */
export const cpuOf = ({ child }: Server): number => {
  const stat = fs.readFileSync(`/proc/${child.pid}/stat`, "utf8")
  // What follows the name, which may have spaces, begins with the third field.
  const [user = NaN, system = NaN] = stat.slice(stat.lastIndexOf(")") + 2).split(" ").slice(11, 13).map(Number)
  const ticksPerSecond = 100
  return (user + system) * 1000 / ticksPerSecond
}
