/**
 * Models in compressed chunks.
 */
import { describe, expect, it } from "@effect/vitest"
import { Effect, Either, Stream } from "effect"
import * as zlib from "node:zlib"
import { ModelChunks, Safetensors, type Storage } from "surfing-weights"
import { hasSameTensors, withDescription } from "../support/compressedFiles.js"
import { type Call, noting } from "../support/intercepting.js"
import { flip, on, openOn, sha256, splitOn, verifyOn, withSource } from "../support/modelChunks.js"
import { normal, randomBytes, tensorsAs } from "../support/realWeights.js"
import { fileOf } from "../support/safetensorsFiles.js"

const weights = new Map(
  ["embeddings.weight", "layer.0.weight", "layer.0.bias", "layer.1.weight", "layer.1.bias", "head.weight"]
    .map((name, i) => {
      const length = name.endsWith("bias") ? 7 : 30_000
      return [`bert.${name}`, { shape: [length], values: normal(length, i) }] as const
    })
)
const tensors = tensorsAs("BF16", weights)

/** What a stream of chunks has, by name. */
const contentsOf = (storage: Storage.Service, options?: ModelChunks.StreamOptions) =>
  Effect.gen(function*() {
    const model = yield* openOn(storage)
    const chunks = new Map<string, Uint8Array>()
    yield* Stream.runForEach(
      model.stream(options),
      ({ bytes, chunk }) => Effect.sync(() => void chunks.set(chunk.name, bytes))
    )
    return chunks
  })

describe("ModelChunks.split with compress", () => {
  it.effect("writes smaller chunks, which are loaded and streamed as those without", () =>
    Effect.gen(function*() {
      const storage = yield* withSource(tensors)
      yield* splitOn(storage, { by: "layer" })
      const plain = yield* contentsOf(storage)
      const { chunks } = yield* splitOn(storage, { by: "layer", compress: true })
      expect(chunks.map(({ name }) => name)).toEqual(["embeddings", "layer_0", "layer_1", "head"])
      for (const prefetch of [0, 3]) {
        const contents = yield* contentsOf(storage, { prefetch })
        expect([...contents.keys()]).toEqual([...plain.keys()])
        for (const [name, bytes] of contents) expect(bytes, name).toEqual(plain.get(name))
      }
      const model = yield* openOn(storage)
      for (const { key, name, sha256: digest, size, tensors } of chunks) {
        const stored = yield* storage.load(`model/${key}`)
        expect({ size: stored.length, digest: sha256(stored) }, name).toEqual({ size, digest })
        const bytes = yield* model.load(name)
        expect(size, name).toBeLessThan(0.7 * bytes.length)
        expect([...Either.getOrThrow(Safetensors.decode(bytes, key)).keys()]).toEqual(tensors)
      }
      expect((yield* verifyOn(storage)).failure).toBeUndefined()
    }))

  it.effect("splits a compressed source, into compressed and plain chunks", () =>
    Effect.gen(function*() {
      const storage = yield* withSource(tensors)
      yield* splitOn(storage)
      const plain = yield* contentsOf(storage)
      yield* on(storage)(
        Safetensors.save("source.safetensors", tensors, { compress: true, metadata: { format: "pt" } })
      )
      for (const compress of [false, true]) {
        const { chunks } = yield* splitOn(storage, { compress })
        expect(yield* contentsOf(storage), `compress: ${compress}`).toEqual(plain)
        const file = yield* on(storage)(Safetensors.open(`model/${chunks[1]?.key}`))
        expect(file.metadata).toEqual({ format: "pt" })
        expect([...file.tensors.values()].every(({ codec }) => (codec !== undefined) === compress)).toBe(true)
      }
      // Chunks by size count the elements, not the bytes that they are stored in.
      const { chunks } = yield* splitOn(storage, { by: { bytes: 60_000 } })
      expect(chunks.map(({ tensors }) => tensors?.length)).toEqual([1, 1, 1, 1, 1, 1])
    }))

  it.effect("splits a compressed source of which another program has left some tensors as they are", () =>
    Effect.gen(function*() {
      const left = "bert.embeddings.weight"
      const storage = yield* withSource(tensors)
      yield* on(storage)(Safetensors.save("source.safetensors", tensors, { compress: true }))
      const coded = yield* on(storage)(Safetensors.open("source.safetensors"))
      let end = 0
      const entries = [...coded.tensors.values()].map(({ dtype, name, range, shape }) => {
        const start = end
        const stored = range.endExclusive - range.start
        end += name === left ? stored : 2 * shape.reduce((product, axis) => product * axis, 1)
        return [name, {
          ...(name === left ? { dtype: "U8", shape: [stored] } : { dtype, shape }),
          data_offsets: [start, end]
        }] as const
      })
      expect(entries[0]?.[0]).toBe(left)
      const header = fileOf(JSON.stringify(Object.fromEntries(entries)))
      const mixed = withDescription(yield* storage.load("source.safetensors"), (description) => {
        Object.assign(description, {
          size: header.length + end,
          crc32: zlib.crc32(header),
          header: zlib.deflateRawSync(header.subarray(8)).toString("base64")
        })
        delete description.tensors[left]
      })
      yield* storage.save("source.safetensors", mixed)
      const { chunks: [all] } = yield* splitOn(storage, { by: () => "all" })
      const source = yield* on(storage)(Safetensors.open("source.safetensors"))
      const chunk = yield* on(storage)(Safetensors.open(`model/${all?.key}`))
      expect(source.tensors.get(left)?.dtype).toBe("U8")
      yield* hasSameTensors(chunk, source)
    }))

  it.effect("reads neighbours of the source together", () =>
    Effect.gen(function*() {
      const calls: Array<Call> = []
      const storage = noting(yield* withSource(tensors), calls)
      const counts: Array<number> = []
      for (const compress of [false, true]) {
        calls.length = 0
        yield* splitOn(storage, { by: () => "all", compress })
        counts.push(calls.filter(({ operation }) => operation === "open" || operation === "load").length)
      }
      // Once to encode the chunk, which is kept then.
      expect(counts[1]).toBe(counts[0])
    }))

  it.effect("leaves a chunk as it is that does not get smaller", () =>
    Effect.gen(function*() {
      const storage = yield* withSource([{ name: "layer.0.w", dtype: "U8", shape: [5000], data: randomBytes(5000) }])
      yield* splitOn(storage)
      const plain = yield* storage.load("model/layer_0.safetensors")
      yield* splitOn(storage, { compress: true })
      expect(yield* storage.load("model/layer_0.safetensors")).toEqual(plain)
    }))

  it.effect("gives a manifest to compressed files that exist, which are loaded as they were before", () =>
    Effect.gen(function*() {
      const storage = yield* withSource(tensors)
      const plain = yield* storage.load("source.safetensors")
      yield* on(storage)(
        Safetensors.save("model/a.safetensors", tensors, { compress: true, metadata: { format: "pt" } })
      )
      const { chunks } = yield* on(storage)(ModelChunks.writeManifest("model"))
      expect(chunks.map(({ name, tensors }) => [name, tensors?.length])).toEqual([["a.safetensors", 6]])
      expect(yield* (yield* openOn(storage)).load("a.safetensors")).toEqual(plain)
    }))

  it.effect("fails with CorruptObject for a damaged chunk, also one whose manifest was written afterwards", () =>
    Effect.gen(function*() {
      const storage = yield* withSource(tensors)
      yield* splitOn(storage, { compress: true })
      const key = "model/layer_1.safetensors"
      yield* storage.save(key, flip(yield* storage.load(key)))
      const model = yield* openOn(storage)
      expect(yield* Effect.flip(model.load("layer_1"))).toMatchObject({ _tag: "CorruptObject", problem: "checksum" })
      yield* on(storage)(ModelChunks.writeManifest("model"))
      const error = yield* Effect.flip((yield* openOn(storage)).load("layer_1.safetensors"))
      expect(error).toMatchObject({ _tag: "CorruptObject", key, operation: "load", backend: "Memory" })
      expect(error.message).toContain("block 0 of tensor \"bert.layer.1.weight\"")
    }))
})
