/**
 * Programs of others as servers for tests: each on a free port of loopback, ready when it accepts connections, and ended with the
 * scope. A test that needs one which is not installed skips itself.
 */
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import { spawn, spawnSync } from "node:child_process"
import { once } from "node:events"
import * as fs from "node:fs"
import * as net from "node:net"
import { join } from "node:path"
import { setTimeout } from "node:timers/promises"
import { temporaryDirectory } from "./directory.js"

/** Whether a program can be run. */
export const isInstalled = (program: string, ...args: ReadonlyArray<string>): boolean =>
  spawnSync(program, args, { stdio: "ignore", timeout: 20_000 }).status === 0

/** A port of loopback that nobody listens on now. */
export const freePort = async (): Promise<number> => {
  const server = net.createServer()
  await once(server.listen(0, "127.0.0.1"), "listening")
  const address = server.address()
  await new Promise((closed) => server.close(closed))
  return typeof address === "object" && address !== null ? address.port : 0
}

const accepts = async (port: number): Promise<boolean> => {
  const socket = net.connect(port, "127.0.0.1")
  const connected = await once(socket, "connect").then(() => true, () => false)
  socket.destroy()
  return connected
}

/** Runs a program that listens on the port which it is given; returns its URL. */
export const serveBy = (
  command: (port: number) => readonly [program: string, args: ReadonlyArray<string>, cwd?: string]
): Effect.Effect<string, never, Scope.Scope> =>
  Effect.map(
    Effect.acquireRelease(
      Effect.promise(async () => {
        const port = await freePort()
        const [program, args, cwd] = command(port)
        const child = spawn(program, args, { stdio: "ignore", ...(cwd !== undefined && { cwd }), detached: true })
        child.on("error", () => {})
        for (let tries = 0; tries < 600; tries++) {
          if (await accepts(port)) return { child, port }
          if (child.exitCode !== null) break
          await setTimeout(50)
        }
        throw new Error(`${program} ${args.join(" ")} does not listen on ${port}`)
      }),
      ({ child }) =>
        Effect.promise(async () => {
          if (child.exitCode !== null || child.pid === undefined) return
          const exited = once(child, "exit")
          // With the processes that it has started, such as the program behind a script of npm.
          process.kill(-child.pid, "SIGKILL")
          await exited
        })
    ),
    ({ port }) => `http://127.0.0.1:${port}`
  )

export const hasNginx = isInstalled("nginx", "-v")

/** Runs nginx with what is inside of a `server`, besides `listen`, and what else is inside of `http`. */
export const nginx = (server: string, http = ""): Effect.Effect<string, never, Scope.Scope> =>
  Effect.flatMap(temporaryDirectory, (own) =>
    serveBy((port) => {
      // As root its worker would be somebody who may not read the folder.
      const user = process.getuid?.() === 0 ? "user root;" : ""
      const config = `daemon off; master_process off; ${user} pid ${own}/pid; error_log ${own}/error.log;
events {}
http {
  access_log off; client_body_temp_path ${own}/a; proxy_temp_path ${own}/b; fastcgi_temp_path ${own}/c;
  uwsgi_temp_path ${own}/d; scgi_temp_path ${own}/e; ${http}
  server { listen 127.0.0.1:${port}; ${server} }
}
`
      fs.writeFileSync(join(own, "nginx.conf"), config)
      return ["nginx", ["-p", own, "-c", join(own, "nginx.conf")]]
    }))
