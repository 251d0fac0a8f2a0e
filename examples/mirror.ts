/**
 * A mirror of a model for machines without a network: it loads from a hub what it is asked for, keeps it on its disk, and
 * serves on when the hub cannot be reached. The hub here is a weight server over memory; with Hugging Face's, leave out
 * `endpoint`. Clients need `HF_ENDPOINT` alone, whether they are written in Python or JavaScript.
 */
import { FetchHttpClient, HttpServer } from "@effect/platform"
import * as NodeHttpServer from "@effect/platform-node/NodeHttpServer"
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import { Console, Effect, Exit, Layer, Scope } from "effect"
import { deepStrictEqual, ok, strictEqual } from "node:assert/strict"
import { createHash, randomBytes } from "node:crypto"
import * as fs from "node:fs"
import { createServer } from "node:http"
import * as os from "node:os"
import * as path from "node:path"
import {
  FileSystemStorage,
  HuggingFaceStorage,
  MemoryStorage,
  Storage,
  StorageCache,
  WeightServer
} from "surfing-weights"

const listen = NodeHttpServer.layer(() => createServer(), { host: "127.0.0.1", port: 0 })

const urlOf = HttpServer.addressFormattedWith((url) => Effect.succeed(url))

// #region hub
/** Any storage with keys such as `acme/tiny-bert/config.json` is a hub. */
const HubLive = WeightServer.layer({ hub: true }).pipe(Layer.provideMerge(listen))
// #endregion

// #region mirror
const model = "acme/tiny-bert"

const mirror = (endpoint: string, directory: string) =>
  WeightServer.layer({ hub: true }).pipe(
    Layer.provideMerge(listen),
    Layer.provide(StorageCache.layer({
      capacity: 512 * 1024 ** 2,
      tier: { layer: FileSystemStorage.layer({ directory }), capacity: 200 * 1024 ** 3 }
    })),
    // Mounted, so that the mirror has the model under the same name. The commit is pinned, and its files are listed, now.
    Layer.provide(HuggingFaceStorage.layer({ repo: model, endpoint, mountAt: model })),
    Layer.provide(FetchHttpClient.layer)
  )
// #endregion

const files: Readonly<Record<string, Uint8Array>> = {
  "config.json": new TextEncoder().encode("{ \"hidden_size\": 8 }\n"),
  "model.safetensors": randomBytes(3_000_000),
  "onnx/model.onnx": randomBytes(200_000)
}

const sha256 = (bytes: Uint8Array) => createHash("sha256").update(bytes).digest("hex")

/** What a client of a hub does: it asks for the commit and the files, then for the metadata and the bytes of each. */
const snapshot = (endpoint: string) =>
  Effect.promise(async () => {
    const info = await fetch(`${endpoint}/api/models/${model}/revision/main`)
    strictEqual(info.status, 200)
    const { sha, siblings } = await info.json() as {
      readonly sha: string
      readonly siblings: ReadonlyArray<{ readonly rfilename: string }>
    }
    deepStrictEqual(siblings.map(({ rfilename }) => rfilename), Object.keys(files))
    for (const { rfilename } of siblings) {
      const url = `${endpoint}/${model}/resolve/${sha}/${rfilename}`
      const { headers } = await fetch(url, { method: "HEAD" })
      strictEqual(headers.get("x-repo-commit"), sha)
      const bytes = new Uint8Array(await (await fetch(url)).arrayBuffer())
      strictEqual(headers.get("x-linked-etag"), `"${sha256(bytes)}"`)
      strictEqual(sha256(bytes), sha256(files[rfilename] ?? new Uint8Array()))
    }
    return siblings.length
  })

const program = Effect.gen(function*() {
  const directory = yield* Effect.acquireRelease(
    Effect.sync(() => fs.mkdtempSync(path.join(os.tmpdir(), "mirror-"))),
    (directory) => Effect.sync(() => fs.rmSync(directory, { recursive: true, force: true }))
  )
  const weights = yield* MemoryStorage.make()
  for (const [name, bytes] of Object.entries(files)) yield* weights.save(`${model}/${name}`, bytes)

  const hubScope = yield* Scope.make()
  const hub = yield* Layer.buildWithScope(
    Layer.provide(HubLive, Layer.succeed(Storage.Storage, weights)),
    hubScope
  )
  const hubUrl = yield* Effect.provide(urlOf, hub)
  yield* Console.log(`From the hub: ${yield* snapshot(hubUrl)} files`)

  const mirrorServer = yield* Layer.build(mirror(hubUrl, directory))
  const mirrorUrl = yield* Effect.provide(urlOf, mirrorServer)
  yield* Console.log(`From the mirror: ${yield* snapshot(mirrorUrl)} files`)

  yield* Scope.close(hubScope, Exit.void)
  const isGone = yield* Effect.promise(() => fetch(hubUrl).then(() => false, () => true))
  ok(isGone)
  yield* Console.log(`The hub is gone; from the mirror: ${yield* snapshot(mirrorUrl)} files, every SHA-256 as before`)
})

NodeRuntime.runMain(Effect.scoped(program))
