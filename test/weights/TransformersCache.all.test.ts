/**
 * Slow proofs of the cache of transformers.js: the calls of the library against a server on loopback, and the memory of a
 * process that reads a large object.
 */
import { describe, expect, it } from "@effect/vitest"
import { Effect, Either, type Layer } from "effect"
import { execFile, execFileSync } from "node:child_process"
import * as fs from "node:fs"
import { createServer } from "node:http"
import * as path from "node:path"
import { fileURLToPath } from "node:url"
import { promisify } from "node:util"
import { gzipSync } from "node:zlib"
import { FileSystemStorage, MemoryStorage, Storage, TransformersCache } from "surfing-weights"
import { storageOnDirectory, temporaryDirectory } from "../support/directory.js"
import { canMount, needs } from "../support/fileSystem.js"
import { pattern } from "../support/intercepting.js"
import { listen } from "../support/loopback.js"
import { loadFile } from "../support/transformers.js"

/** A server that records its requests. */
const remote = (files: Readonly<Record<string, Uint8Array>>) =>
  Effect.gen(function*() {
    const asked: Array<string> = []
    const server = createServer((request, response) => {
      asked.push(request.url ?? "")
      const bytes = files[request.url ?? ""]
      if (bytes === undefined) response.writeHead(404).end("not found")
      else if (request.url?.endsWith(".json") === true) {
        const zipped = gzipSync(bytes)
        response.writeHead(200, { "content-encoding": "gzip", "content-length": zipped.byteLength }).end(zipped)
      } else response.writeHead(200, { "content-length": bytes.byteLength }).end(bytes)
    })
    const { endpoint } = yield* listen(server)
    return { endpoint, asked }
  })

for (
  const { layer, where } of [
    { where: "memory", layer: MemoryStorage.layer() },
    { where: "a directory", layer: storageOnDirectory() }
  ] satisfies ReadonlyArray<{ where: string; layer: Layer.Layer<Storage.Storage, unknown> }>
) {
  describe(`TransformersCache on ${where}`, () => {
    for (const viaCache of [false, true]) {
      for (const withProgress of [false, true]) {
        const how = `${viaCache ? "unread, as for the ONNX runtime," : "read"} ${
          withProgress ? "with" : "without"
        } progress`
        it.scopedLive(`keeps the downloads of the library, ${how}, and returns them the next time`, () =>
          Effect.gen(function*() {
            const config = new TextEncoder().encode(JSON.stringify({ text: "x".repeat(5000) }))
            const weights = pattern(1_000_000)
            const { asked, endpoint } = yield* remote({
              "/bert/resolve/main/config.json": config,
              "/bert/resolve/main/model.onnx": weights
            })
            const cache = yield* TransformersCache.make("transformers")
            for (const fromCache of [false, true]) {
              for (const [name, bytes] of [["config.json", config], ["model.onnx", weights]] as const) {
                const loaded = yield* Effect.promise(() =>
                  loadFile(cache, `/models/bert/${name}`, `${endpoint}/bert/resolve/main/${name}`, {
                    viaCache,
                    withProgress
                  })
                )
                expect(Buffer.from(loaded.bytes).equals(bytes)).toBe(true)
                expect(loaded.fromCache).toBe(fromCache)
                if (withProgress && !(viaCache && fromCache)) {
                  const isZipped = name === "config.json" && !fromCache
                  expect(loaded.progress.at(-1)).toMatchObject({
                    loaded: bytes.byteLength,
                    ...(!isZipped && { progress: 100, total: bytes.byteLength })
                  })
                }
              }
            }
            expect(asked).toEqual(["/bert/resolve/main/config.json", "/bert/resolve/main/model.onnx"])
            const folder = `transformers/http:/${endpoint.slice("http://".length)}/bert/resolve/main/`
            const names = (yield* Storage.list()).filter((key) => !key.endsWith("%sha256"))
            expect(names).toEqual([`${folder}config.json`, `${folder}model.onnx`])
            expect(Buffer.from(yield* Storage.load(`${folder}model.onnx`)).equals(weights)).toBe(true)
          }).pipe(Effect.provide(layer)))
      }
    }
  })
}

describe("TransformersCache, called as the library does", () => {
  const weights = pattern(1_000_000)

  for (const viaCache of [false, true]) {
    const how = viaCache ? "unread" : "read"

    it.scopedLive(`downloads a file anew whose bytes were flipped on disk, ${how}`, () =>
      Effect.gen(function*() {
        const directory = yield* temporaryDirectory
        const { asked, endpoint } = yield* remote({ "/m/model.onnx": weights })
        const load = Effect.gen(function*() {
          const cache = yield* TransformersCache.make("")
          return yield* Effect.promise(() => loadFile(cache, "/m/model.onnx", `${endpoint}/m/model.onnx`, { viaCache }))
        }).pipe(Effect.provide(FileSystemStorage.layer({ directory })))
        yield* load
        const names = fs.readdirSync(directory, { recursive: true, encoding: "utf8" })
        const file = path.join(directory, names.find((name) => name.endsWith("model.onnx")) ?? "")
        const { atime, mtime } = fs.statSync(file)
        const handle = fs.openSync(file, "r+")
        fs.writeSync(handle, new Uint8Array([0xff, 0xff, 0xff, 0x7f]), 0, 4, 500_000)
        fs.closeSync(handle)
        fs.utimesSync(file, atime, mtime)
        for (const _ of [1, 2]) expect(Buffer.from((yield* load).bytes).equals(weights)).toBe(true)
        expect(asked).toHaveLength(2)
      }))

    needs("root, to mount a file system", canMount).live(
      `loads from the hub while the disk is full, ${how}`,
      () =>
        Effect.gen(function*() {
          const directory = yield* temporaryDirectory
          yield* Effect.acquireRelease(
            Effect.sync(() => execFileSync("mount", ["-t", "tmpfs", "-o", "size=512k", "tmpfs", directory])),
            () => Effect.sync(() => execFileSync("umount", [directory]))
          )
          const { asked, endpoint } = yield* remote({ "/m/model.onnx": weights })
          const cache = yield* Effect.provide(
            TransformersCache.make("", { onFailure: "miss" }),
            FileSystemStorage.layer({ directory })
          )
          for (const _ of [1, 2]) {
            const loaded = yield* Effect.promise(() =>
              loadFile(cache, "/m/model.onnx", `${endpoint}/m/model.onnx`, { viaCache })
            )
            expect(Buffer.from(loaded.bytes).equals(weights)).toBe(true)
          }
          expect(asked).toHaveLength(2)
        }).pipe(Effect.scoped)
    )
  }

  it.scopedLive("keeps no login page that a portal sends in place of files", () =>
    Effect.gen(function*() {
      const config = new TextEncoder().encode("{}")
      const { endpoint } = yield* remote({ "/m/config.json": new TextEncoder().encode("<!DOCTYPE html><p>Log in") })
      const cache = yield* TransformersCache.make("")
      const address = `${endpoint}/m/config.json`
      const portal = yield* Effect.either(Effect.tryPromise(() => loadFile(cache, "/m/config.json", address)))
      expect(Either.isLeft(portal)).toBe(true)
      expect(yield* Effect.promise(() => cache.match(address))).toBeUndefined()
      yield* Effect.promise(() => cache.put(address, new Response(config)))
      expect(yield* Effect.promise(() => cache.match(address))).toBeDefined()
    }).pipe(Effect.provide(MemoryStorage.layer())))
})

describe("TransformersCache.match", () => {
  it.scopedLive("holds less than 64 MiB of a 1 GiB object, apart from garbage", () =>
    Effect.gen(function*() {
      const directory = yield* temporaryDirectory
      const file = path.join(directory, "huggingface.co", "m", "model.onnx")
      fs.mkdirSync(path.dirname(file), { recursive: true })
      fs.writeFileSync(file, "")
      fs.truncateSync(file, 1024 ** 3)
      fs.writeFileSync(`${file}.small`, pattern(4 * 1024 ** 2))
      const child = fileURLToPath(new URL("../support/matchMemory.ts", import.meta.url))
      const { stdout } = yield* Effect.promise(() =>
        promisify(execFile)(process.execPath, [
          "--import",
          "tsx",
          child,
          directory,
          `https://huggingface.co/m/model.onnx`
        ])
      )
      const { bytes, grown } = JSON.parse(stdout) as { bytes: number; grown: number }
      expect(bytes).toBe(1024 ** 3)
      expect(grown).toBeLessThan(64 * 1024 ** 2)
    }), 240_000)
})
