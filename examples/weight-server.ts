/**
 * A directory over HTTP, in an app: serves a temporary one, sends requests as a client would, and ends. The command `surfing-weights
 * serve` serves a directory without an app.
 */
import { HttpServer } from "@effect/platform"
import * as NodeHttpServer from "@effect/platform-node/NodeHttpServer"
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import { Console, Effect, Layer, Redacted } from "effect"
import { deepStrictEqual, strictEqual } from "node:assert/strict"
import { createHash } from "node:crypto"
import * as fs from "node:fs"
import { createServer } from "node:http"
import * as os from "node:os"
import * as path from "node:path"
import { FileSystemStorage, WeightServer } from "surfing-weights"

// #region node
/** Node's server, with the limits of connections. */
const listen = (address: { readonly host: string; readonly port: number }) =>
  // Uploads of any duration: the weight server cuts off idle ones.
  NodeHttpServer.layer(() => createServer({ headersTimeout: 10_000, requestTimeout: 0 }), address)
// #endregion

// #region serve
const serve = (
  directory: string,
  address: { readonly host: string; readonly port: number },
  options: WeightServer.Options = {}
) =>
  WeightServer.layer(options).pipe(
    Layer.provideMerge(listen(address)),
    // Last, so that the server listens once the storage is ready.
    Layer.provide(FileSystemStorage.layer({ directory, create: false }))
  )
// #endregion

// #region writable
const token = Redacted.make("writer-4f1c6a0b9d2e")

const serveWritable = (directory: string, address: { readonly host: string; readonly port: number }) =>
  WeightServer.layer({
    writable: true,
    auth: { tokens: [{ token, scope: "write" }] },
    maxBodySize: 10 * 1024 ** 3,
    // Pages of this origin may use the server.
    origins: ["https://app.example"]
  }).pipe(
    Layer.provideMerge(listen(address)),
    Layer.provide(FileSystemStorage.layer({ directory, create: false }))
  )
// #endregion

const urlOf = HttpServer.addressFormattedWith((url) => Effect.succeed(url))

const anyPort = { ...WeightServer.defaultAddress, port: 0 }

const sha256 = (bytes: Uint8Array) => createHash("sha256").update(bytes).digest("hex")

const request = (url: string, init?: RequestInit) => Effect.promise(() => fetch(url, init))

const bytesOf = (response: Response) => Effect.promise(async () => new Uint8Array(await response.arrayBuffer()))

interface Page {
  readonly objects: ReadonlyArray<{ readonly key: string; readonly size: number }>
}

/** What a client without this library can do, here with `fetch`. */
const asClient = (layer: Uint8Array) =>
  Effect.gen(function*() {
    const url = yield* urlOf
    const whole = yield* request(`${url}/objects/bert/layer%200.bin`)
    strictEqual(sha256(yield* bytesOf(whole)), sha256(layer))
    yield* Console.log(`Fetched ${layer.length} bytes, and the SHA-256 is that of the original`)

    const etag = whole.headers.get("etag") ?? ""
    const part = yield* request(`${url}/objects/bert/layer%200.bin`, {
      headers: { range: "bytes=0-7", "if-match": etag }
    })
    deepStrictEqual(yield* bytesOf(part), layer.subarray(0, 8))
    yield* Console.log(`A range: ${part.status} ${part.headers.get("content-range")}`)

    const current = yield* request(`${url}/objects/bert/layer%200.bin`, { headers: { "if-none-match": etag } })
    yield* Console.log(`With its etag: ${current.status}`)

    const listing = yield* request(`${url}/objects?prefix=bert/`)
    const page = yield* Effect.promise(() => listing.json() as Promise<Page>)
    yield* Console.log(`Listed: ${page.objects.map(({ key, size }) => `${key} (${size})`).join(", ")}`)

    const refused = yield* request(`${url}/objects/bert/layer%200.bin`, { method: "DELETE" })
    yield* Console.log(`To remove it: ${refused.status}, allowed: ${refused.headers.get("allow")}`)
    deepStrictEqual([part.status, current.status, refused.status], [206, 304, 405])
  })

const asWriter = Effect.gen(function*() {
  const url = yield* urlOf
  const put = (headers: Record<string, string>) =>
    Effect.map(request(`${url}/objects/gpt/a`, { method: "PUT", body: "weights", headers }), ({ status }) => status)
  const authorization = `Bearer ${Redacted.value(token)}`
  const statuses = [yield* put({}), yield* put({ authorization }), yield* put({ authorization, "if-none-match": "*" })]
  deepStrictEqual(statuses, [401, 200, 412])
  yield* Console.log(`Saved without the token, with it, and only if it is new: ${statuses.join(", ")}`)
})

const demonstration = Effect.gen(function*() {
  const directory = yield* Effect.acquireRelease(
    Effect.sync(() => fs.mkdtempSync(path.join(os.tmpdir(), "surfing-weights-"))),
    (directory) => Effect.sync(() => fs.rmSync(directory, { recursive: true }))
  )
  const layer = Uint8Array.from({ length: 3_000_000 }, (_, i) => (i * 7) % 251)
  fs.mkdirSync(path.join(directory, "bert"))
  fs.writeFileSync(path.join(directory, "bert", "layer 0.bin"), layer)
  fs.writeFileSync(path.join(directory, "bert", "config.json"), "{}")
  yield* Effect.provide(asClient(layer), serve(directory, anyPort))
  yield* Effect.provide(asWriter, serveWritable(directory, anyPort))
})

NodeRuntime.runMain(Effect.scoped(demonstration))
