/**
 * The server for a team, as its guide starts it.
 */
import { expect, it } from "@effect/vitest"
import { Effect } from "effect"
import { spawn } from "node:child_process"
import * as fs from "node:fs"
import * as https from "node:https"
import * as path from "node:path"
import { certificate } from "../support/certificate.js"
import { temporaryDirectory } from "../support/directory.js"
import { eventually } from "../support/weightServer.js"

const root = path.resolve(import.meta.dirname, "../..")

it.scopedLive("team-server.ts serves over TLS to those who have a token, and ends at a signal", () =>
  Effect.gen(function*() {
    const directory = yield* temporaryDirectory
    const [cert, key] = [path.join(directory, "cert.pem"), path.join(directory, "key.pem")]
    fs.writeFileSync(cert, certificate.cert)
    fs.writeFileSync(key, certificate.key)
    fs.mkdirSync(path.join(directory, "weights"))
    fs.writeFileSync(path.join(directory, "weights/layer_0.bin"), "0123456789")
    const [reader, writer] = ["read-0123456789abcdef", "write-0123456789abcdef"]
    const child = spawn(process.execPath, ["--import", "tsx", "examples/team-server.ts"], {
      cwd: root,
      env: {
        PATH: process.env["PATH"],
        DIRECTORY: path.join(directory, "weights"),
        PORT: "0",
        TLS_CERT: cert,
        TLS_KEY: key,
        READ_TOKEN: reader,
        WRITE_TOKEN: writer
      }
    })
    yield* Effect.addFinalizer(() => Effect.sync(() => child.kill("SIGKILL")))
    let log = ""
    for (const stream of [child.stdout, child.stderr]) stream.on("data", (text) => log += String(text))
    const port = () => /listening on 0\.0\.0\.0:(\d+) /.exec(log)?.[1]
    yield* eventually("the server", () => port() !== undefined)

    const request = (method: string, name: string, token?: string, headers: Readonly<Record<string, string>> = {}) =>
      Effect.async<readonly [status: number | undefined, body: string]>((resume) => {
        const url = `https://127.0.0.1:${port()}/objects/${name}`
        const authorization = token === undefined ? {} : { authorization: `Bearer ${token}` }
        https.request(url, { method, ca: certificate.cert, headers: { ...authorization, ...headers } }, (response) => {
          let body = ""
          response.on("data", (chunk) => body += String(chunk))
          response.on("end", () => resume(Effect.succeed([response.statusCode, body])))
        }).on("error", (error) => resume(Effect.die(error))).end(method === "PUT" ? "new" : undefined)
      })
    const statusOf = (...args: Parameters<typeof request>) => Effect.map(request(...args), ([status]) => status)
    expect(yield* statusOf("GET", "layer_0.bin")).toBe(401)
    expect(yield* request("GET", "layer_0.bin", reader, { range: "bytes=2-4" })).toEqual([206, "234"])
    expect(yield* statusOf("PUT", "layer_1.bin", reader)).toBe(403)
    expect(yield* statusOf("PUT", "layer_1.bin", writer)).toBe(200)
    expect(fs.readFileSync(path.join(directory, "weights/layer_1.bin"), "utf8")).toBe("new")
    // What it logs has no token.
    expect(log).toContain("layer_0.bin")
    expect(log).not.toContain("0123456789abcdef")
    const exited = new Promise((resolve) => child.once("exit", (code, signal) => resolve(code ?? signal)))
    child.kill("SIGTERM")
    expect(yield* Effect.promise(() => exited)).toBe(0)
  }))
