/**
 * `HttpStorage` on the web servers that people have, with their folders, ranges and what they do with what is missing. Those that
 * are not installed are left out; `http-server` and `serve` are in `WEB_SERVERS`, a folder of npm that CI makes.
 */
import { describe, expect, it } from "@effect/vitest"
import { Effect, Schedule } from "effect"
import { execFileSync } from "node:child_process"
import { mkdirSync, writeFileSync } from "node:fs"
import * as http from "node:http"
import { join } from "node:path"
import { Readable } from "node:stream"
import { ByteRange, HttpStorage, StorageError } from "surfing-weights"
import { bytes, gather, MiB, print } from "../../support/content.js"
import { temporaryDirectory } from "../../support/directory.js"
import { clients } from "../../support/httpClients.js"
import { listen } from "../../support/loopback.js"
import { hasNginx, isInstalled, nginx, serveBy } from "../../support/programs.js"

const content = bytes(300_000)
const page = "<!doctype html><title>Home</title>"

/** A folder with an object in a folder of its own, which has an index, and one in a folder that has none. */
const site = Effect.tap(temporaryDirectory, (root) =>
  Effect.sync(() => {
    for (const name of ["models", "pages"]) mkdirSync(join(root, name))
    writeFileSync(join(root, "models", "layer 0.bin"), content)
    writeFileSync(join(root, "pages", "index.html"), page)
    writeFileSync(join(root, "pages", "layer_1.bin"), content)
    writeFileSync(join(root, "empty.bin"), "")
    writeFileSync(join(root, "index.html"), page)
  }))

const goServer = `package main
import ("net/http"; "os")
func main() { http.ListenAndServe(os.Args[2], http.FileServer(http.Dir(os.Args[1]))) }
`

const npm = process.env["WEB_SERVERS"] ?? ""
const program = (name: string) => join(npm, "node_modules", ".bin", name)

const servers = [
  {
    name: "python3 -m http.server",
    isHere: isInstalled("python3", "--version"),
    serve: (root: string) =>
      serveBy((port) => ["python3", ["-m", "http.server", String(port), "--bind", "127.0.0.1", "-d", root]])
  },
  {
    name: "nginx",
    isHere: hasNginx,
    serve: (root: string) => nginx(`root ${root}; autoindex on;`, "types { text/html html; }")
  },
  {
    name: "nginx that shows an app for every address",
    isHere: hasNginx,
    serve: (root: string) => nginx(`root ${root}; try_files $uri /index.html;`, "types { text/html html; }")
  },
  {
    name: "busybox httpd",
    isHere: isInstalled("busybox", "httpd", "--help"),
    serve: (root: string) => serveBy((port) => ["busybox", ["httpd", "-f", "-p", `127.0.0.1:${port}`, "-h", root]])
  },
  {
    name: "http.FileServer of Go",
    isHere: isInstalled("go", "version"),
    serve: (root: string) =>
      Effect.flatMap(temporaryDirectory, (own) => {
        writeFileSync(join(own, "main.go"), goServer)
        // The first build compiles Go's own packages, which takes long on a busy machine.
        execFileSync("go", ["build", "-o", join(own, "server"), join(own, "main.go")])
        return serveBy((port) => [join(own, "server"), [root, `127.0.0.1:${port}`]])
      })
  },
  {
    name: "http-server",
    isHere: npm !== "",
    serve: (root: string) => serveBy((port) => [program("http-server"), [root, "-p", String(port), "-a", "127.0.0.1"]])
  },
  {
    name: "serve",
    isHere: npm !== "",
    serve: (root: string) => serveBy((port) => [program("serve"), ["-l", `tcp://127.0.0.1:${port}`, root]])
  },
  {
    name: "serve, for an app",
    isHere: npm !== "",
    serve: (root: string) => serveBy((port) => [program("serve"), ["-s", "-l", `tcp://127.0.0.1:${port}`, root]])
  }
]

for (const { isHere, name, serve } of servers) {
  if (!isHere) console.log(`SKIPPED: ${name} is not installed`)
  describe.skipIf(!isHere)(name, () => {
    for (const [clientName, client] of clients) {
      it.scopedLive(`shows objects, and no folder and no page as one, with ${clientName}`, () =>
        Effect.gen(function*() {
          const url = yield* serve(yield* site)
          const storage = yield* HttpStorage.make({ url, static: true, retry: Schedule.recurs(0) })
          for (const key of ["models/layer 0.bin", "pages/layer_1.bin"]) {
            expect(print(yield* storage.load(key)), key).toBe(print(content))
            expect(print(yield* gather(storage.stream(key))), key).toBe(print(content))
            expect(yield* storage.head(key)).toMatchObject({ size: content.length })
            expect(yield* storage.exists(key)).toBe(true)
            for (const length of [1, 1000, content.length, content.length + 1]) {
              const last = yield* storage.load(key, { range: ByteRange.last(length) })
              expect(print(last), `${key}, last ${length}`).toBe(print(content.subarray(-length)))
            }
            const middle = yield* storage.load(key, { range: ByteRange.make(1000, 200_000) })
            expect(print(middle)).toBe(print(content.subarray(1000, 200_000)))
          }
          expect((yield* storage.load("empty.bin")).byteLength).toBe(0)
          expect((yield* storage.load("empty.bin", { range: ByteRange.last(5) })).byteLength).toBe(0)
          for (const key of ["models", "pages", "missing", "models/missing.bin", "missing/layer_0.bin"]) {
            expect(yield* storage.exists(key), key).toBe(false)
            const failures = [
              yield* Effect.flip(storage.load(key)),
              yield* Effect.flip(storage.load(key, { range: ByteRange.last(5) })),
              yield* Effect.flip(gather(storage.stream(key))),
              yield* Effect.flip(storage.head(key))
            ]
            for (const failure of failures) expect(failure, key).toBeInstanceOf(StorageError.ObjectNotFound)
          }
          expect(Buffer.from(yield* storage.load("pages/index.html")).toString()).toBe(page)
        }).pipe(Effect.provide(client)))
    }
  })
}

for (const [clientName, client] of clients) {
  it.scopedLive(`a body without any length is gathered up to 256 MiB and no further, with ${clientName}`, () =>
    Effect.gen(function*() {
      const { endpoint } = yield* listen(http.createServer(({ method, url = "" }, response) => {
        if (method === "HEAD") return void response.writeHead(405).end()
        Readable.from(Array.from({ length: Number(url.slice(1)) }, () => new Uint8Array(MiB))).pipe(response)
      }))
      const storage = yield* HttpStorage.make({ url: endpoint, static: true, retry: Schedule.recurs(0) })
      expect((yield* storage.load("256")).byteLength).toBe(256 * MiB)
      const failure = yield* Effect.flip(storage.load("260"))
      expect(failure._tag).toBe("UnsupportedOperation")
      expect(failure.message).toContain("over 268435456 bytes; have it send Content-Length")
    }).pipe(Effect.provide(client)))
}
