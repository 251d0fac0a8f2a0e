/**
 * The clients of Hugging Face's hub, as they come from the registries, against a weight server: they know its address, and
 * nothing else of it.
 */
import { beforeAll, describe, expect, it } from "@effect/vitest"
import { Deferred, Effect, Layer, Redacted, Stream } from "effect"
import { execFile } from "node:child_process"
import { once } from "node:events"
import * as fs from "node:fs"
import * as path from "node:path"
import { promisify } from "node:util"
import { MemoryStorage, S3Storage, Storage } from "surfing-weights"
import { bytes, MiB } from "../support/content.js"
import { storageOnDirectory, temporaryDirectory } from "../support/directory.js"
import {
  type Client,
  files,
  hashes,
  hubPackages,
  loadHubPackage,
  model,
  pythons,
  recordingBodies,
  runPython,
  saveModel,
  sha256,
  startPython
} from "../support/hub.js"
import { intercepting } from "../support/intercepting.js"
import { makeBucket, options } from "../support/s3Bucket.js"
import { eventually, serveOf } from "../support/weightServer.js"

const root = path.resolve(import.meta.dirname, "../..")

const onBucket = Layer.unwrapScoped(Effect.map(makeBucket, (bucket) => S3Storage.layer({ ...options, bucket })))

const storages = [
  ["memory", MemoryStorage.layer()],
  ["files", storageOnDirectory({ durability: "relaxed" })],
  ["S3", onBucket]
] as const

const installed = pythons()
if (installed.length === 0) console.log("SKIPPED: no Python in HUB_PYTHON has huggingface_hub")

const clientOf = (python: string, endpoint: string) =>
  Effect.map(temporaryDirectory, (home): Client => ({ python, endpoint, home }))

for (const [version, python] of installed) {
  describe(`huggingface_hub ${version}`, () => {
    for (const [name, layer] of storages) {
      it.scopedLive(`takes a snapshot of a model on ${name}, and moves no body the second time`, () =>
        Effect.gen(function*() {
          const storage = yield* Storage.Storage
          yield* saveModel(storage)
          const bodies: Array<string> = []
          const { url } = yield* serveOf(storage, { hub: true, auth: recordingBodies(bodies) })
          const client = yield* clientOf(python, url)
          const first = yield* runPython(client, "snapshot", model)
          expect(first).toEqual({ commit: expect.stringMatching(/^[0-9a-f]{40}$/) as unknown, files: hashes })
          expect(bodies).toHaveLength(Object.keys(files).length)
          expect(yield* runPython(client, "snapshot", model)).toEqual(first)
          expect(bodies).toHaveLength(Object.keys(files).length)

          // Of the next version only what has changed.
          const changed = new TextEncoder().encode("{\"hidden_size\":16}\n")
          yield* storage.save(`${model}/config.json`, changed)
          const second = yield* runPython(client, "snapshot", model)
          expect(second).toMatchObject({ files: { ...hashes, "config.json": sha256(changed) } })
          expect(second).not.toMatchObject({ commit: (first as { readonly commit: string }).commit })
          expect(bodies.slice(Object.keys(files).length)).toEqual([expect.stringContaining("config.json")])
        }).pipe(Effect.provide(layer)))
    }

    it.scopedLive("asks about models, trees, paths and tensors, and is told what is missing", () =>
      Effect.gen(function*() {
        const storage = yield* MemoryStorage.make()
        yield* saveModel(storage)
        const bodies: Array<string> = []
        const { url } = yield* serveOf(storage, { hub: true, auth: recordingBodies(bodies) })
        const client = yield* clientOf(python, url)
        const folders = { onnx: null, "onnx/deep": null, tokenizer: null }
        const sizes = Object.fromEntries(Object.entries(files).map(([name, { byteLength }]) => [name, byteLength]))
        expect(yield* runPython(client, "info", model)).toEqual({
          sha: expect.stringMatching(/^[0-9a-f]{40}$/) as unknown,
          siblings: Object.fromEntries(Object.entries(files).map(([name]) => [name, [sizes[name], hashes[name]]])),
          tree: { ...sizes, ...folders },
          paths: ["config.json", "onnx"],
          exists: [true, false, false]
        })
        expect(bodies).toEqual([])
        expect(yield* runPython(client, "tensors", model)).toMatchObject({ BF16: ["BF16", expect.anything()] })
        expect(bodies).toEqual([`/${model}/resolve/main/model.safetensors bytes=0-100000`])
        expect(yield* runPython(client, "failures", model)).toMatchObject({
          repository: expect.arrayContaining(["RepositoryNotFoundError"]) as unknown,
          revision: expect.arrayContaining(["RevisionNotFoundError"]) as unknown,
          entry: expect.arrayContaining(["EntryNotFoundError"]) as unknown
        })
      }))

    it.scopedLive("lists a model of 2,500 files page by page", () =>
      Effect.gen(function*() {
        const storage = yield* MemoryStorage.make()
        const names = Array.from({ length: 2500 }, (_, i) => `data/${String(i).padStart(5, "0")}.bin`)
        yield* Effect.forEach(names, (name) => storage.save(`acme/large/${name}`, new Uint8Array(1)))
        const { url } = yield* serveOf(storage, { hub: true })
        const listed = yield* runPython(yield* clientOf(python, url), "tree", "acme/large")
        expect(listed).toEqual(["data", ...names])
      }))

    it.scopedLive("needs the token of the server, and sends it", () =>
      Effect.gen(function*() {
        const token = "a-token-of-24-characters"
        const storage = yield* MemoryStorage.make()
        yield* saveModel(storage)
        const auth = { tokens: [{ token: Redacted.make(token), scope: "read" as const }] }
        const { url } = yield* serveOf(storage, { hub: true, auth })
        const client = yield* clientOf(python, url)
        expect(yield* Effect.exit(runPython(client, "download", model, "config.json"))).toMatchObject({
          _tag: "Failure"
        })
        expect(yield* runPython({ ...client, token }, "download", model, "config.json")).toEqual({
          blob: hashes["config.json"],
          sha256: hashes["config.json"]
        })
      }))

    const big = bytes(48 * MiB, 7)
    const halfway = 30 * MiB

    /** A server whose storage stops in the middle of the big file until it is told what to do: to go on, or to fail. */
    const holding = Effect.gen(function*() {
      const memory = yield* MemoryStorage.make()
      yield* memory.save(`${model}/big.bin`, big)
      let hold: Deferred.Deferred<void> | undefined
      const storage = intercepting(memory, {
        through: (stream) =>
          Stream.suspend(() => {
            const held = hold
            let read = 0
            return held === undefined ? stream : Stream.mapEffect(stream, (piece) => {
              read += piece instanceof Uint8Array ? piece.byteLength : 0
              return read > halfway ? Effect.as(Deferred.await(held), piece) : Effect.succeed(piece)
            })
          })
      })
      const bodies: Array<string> = []
      const served = yield* serveOf(storage, { hub: true, auth: recordingBodies(bodies) })
      const client = yield* clientOf(python, served.url)
      // So that it is hashed.
      yield* Effect.promise(() => fetch(`${served.url}/${model}/resolve/main/big.bin`, { method: "HEAD" }))
      return {
        bodies,
        client,
        served,
        hold: Effect.map(Deferred.make<void>(), (made) => {
          hold = made
        }),
        release: Effect.suspend(() => {
          const held = hold
          hold = undefined
          return held === undefined ? Effect.void : Deferred.succeed(held, undefined)
        })
      }
    })

    const whole = { blob: sha256(big), sha256: sha256(big) }

    // Later ones give each process a file of its own, which they remove.
    const isResumedLater = !/^([2-9]|1\.[2-9]\d)\./.test(version)

    it.scopedLive.skipIf(!isResumedLater)("resumes a download whose process was killed", () =>
      Effect.gen(function*() {
        const { bodies, client, hold, release } = yield* holding
        yield* hold
        const child = startPython(client, "download", model, "big.bin")
        const blobs = path.join(client.home, "hub/models--acme--tiny-bert/blobs")
        const partial = () =>
          fs.existsSync(blobs)
            ? fs.readdirSync(blobs).reduce((sum, name) => sum + fs.statSync(path.join(blobs, name)).size, 0)
            : 0
        yield* eventually("a part of the file", () => partial() >= 10 * MiB)
        const exited = once(child, "exit")
        child.kill("SIGKILL")
        // A signal takes a moment to arrive, in which the process still writes.
        yield* Effect.promise(() => exited)
        const kept = partial()
        yield* release
        expect(yield* runPython(client, "download", model, "big.bin")).toEqual(whole)
        const [first, second, ...others] = bodies
        expect([first?.endsWith("big.bin whole"), others]).toEqual([true, []])
        expect(second?.endsWith(`big.bin bytes=${kept}-`)).toBe(true)
      }))

    it.scopedLive("resumes a download whose connection broke", () =>
      Effect.gen(function*() {
        const { bodies, client, hold, release, served } = yield* holding
        yield* hold
        const downloading = yield* Effect.fork(Effect.exit(runPython(client, "download", model, "big.bin")))
        const isHeld = () =>
          bodies.length > 0 && served.connections.some(({ bytesWritten }) => bytesWritten > halfway - MiB)
        yield* eventually("the middle of the file", isHeld)
        for (const connection of served.connections) connection.destroy()
        yield* release
        const outcome = yield* downloading
        // Earlier ones fail, and resume when they are asked again.
        const loaded = isResumedLater ? yield* runPython(client, "download", model, "big.bin") : yield* outcome
        expect(loaded).toEqual(whole)
        expect(bodies).toEqual([
          expect.stringMatching(/big\.bin whole$/),
          expect.stringMatching(/big\.bin bytes=[1-9]\d{6,}-$/)
        ])
      }))
  })
}

describe.each(hubPackages)("@huggingface/hub as %s", (name) => {
  beforeAll(() => promisify(execFile)("npx", ["tsx", "test/support/install.ts", "test/tools"], { cwd: root }))

  for (const [kind, layer] of storages) {
    it.scopedLive(`takes a snapshot of a model on ${kind}, and moves no body the second time`, () =>
      Effect.gen(function*() {
        const hub = yield* Effect.promise(() => loadHubPackage(name))
        const storage = yield* Storage.Storage
        yield* saveModel(storage)
        const bodies: Array<string> = []
        const { url } = yield* serveOf(storage, { hub: true, auth: recordingBodies(bodies) })
        const cacheDir = yield* temporaryDirectory
        const snapshot = Effect.promise(() => hub.snapshotDownload({ repo: model, hubUrl: url, cacheDir }))
        const folder = yield* snapshot
        const loaded = Object.keys(files).map((file) => [file, sha256(fs.readFileSync(path.join(folder, file)))])
        expect(Object.fromEntries(loaded)).toEqual(hashes)
        const before = bodies.length
        expect(before).toBeGreaterThan(0)
        expect(yield* snapshot).toBe(folder)
        expect(bodies).toHaveLength(before)
      }).pipe(Effect.provide(layer)))
  }

  it.scopedLive("asks about a model and its files, and reads tensors by range", () =>
    Effect.gen(function*() {
      const hub = yield* Effect.promise(() => loadHubPackage(name))
      const storage = yield* MemoryStorage.make()
      yield* saveModel(storage)
      const { url: hubUrl } = yield* serveOf(storage, { hub: true })
      const at = { repo: model, hubUrl }
      const asked = Effect.promise(async () => {
        const { sha } = await hub.modelInfo({ name: model, hubUrl, additionalFields: ["sha"] })
        const tree: Array<readonly [string, string | undefined]> = []
        for await (const { lfs, path } of hub.listFiles({ ...at, recursive: true, revision: sha })) {
          tree.push([path, lfs?.oid])
        }
        const file = "onnx/deep/model.onnx"
        const blob = await hub.downloadFile({ ...at, path: file, revision: sha })
        const part = blob !== null && "slice" in blob
          ? blob.slice(1000, 2000)
          : await hub.downloadFile({ ...at, path: file, range: [1000, 1999] })
        return {
          tree: Object.fromEntries(tree),
          exists: [await hub.fileExists({ ...at, path: file }), await hub.fileExists({ ...at, path: "missing" })],
          info: await hub.fileDownloadInfo({ ...at, path: file }),
          missing: await hub.downloadFile({ ...at, path: "missing" }),
          whole: sha256(new Uint8Array(await blob?.arrayBuffer() ?? [])),
          part: sha256(new Uint8Array(await part?.arrayBuffer() ?? [])),
          header: (await hub.parseSafetensorsMetadata({ ...at, path: "model.safetensors" })).header
        }
      })
      const content = files["onnx/deep/model.onnx"] ?? new Uint8Array()
      expect(yield* asked).toMatchObject({
        tree: { ...hashes, onnx: undefined, "onnx/deep": undefined },
        exists: [true, false],
        // The first of them looks only at the etag of the response.
        info: { size: content.byteLength, ...(name === "hub-2" && { etag: `"${sha256(content)}"` }) },
        missing: null,
        whole: sha256(content),
        part: sha256(content.subarray(1000, 2000)),
        header: { BF16: { dtype: "BF16" } }
      })
    }))
})
