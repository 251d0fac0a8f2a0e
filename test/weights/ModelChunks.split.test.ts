/**
 * Models that are split into chunks.
 */
import { describe, expect, it } from "@effect/vitest"
import { Deferred, Effect, Exit, Fiber, Stream } from "effect"
import type { ByteRange } from "surfing-weights"
import {
  FileSystemStorage,
  MemoryStorage,
  type ModelChunks,
  Safetensors,
  type Storage,
  StorageChaos,
  StorageReadOnly
} from "surfing-weights"
import { Directory, leftovers, temporaryDirectory } from "../support/directory.js"
import { type Call, intercepting, noting } from "../support/intercepting.js"
import { on, openOn, splitOn, tensorsOf, text, verifyOn, withSource } from "../support/modelChunks.js"
import { bert, gpt2, llama, t5 } from "../support/modelNames.js"

/** Every tensor of the chunks of a model, by name. */
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

describe("ModelChunks.split", () => {
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
    it.effect(`splits ${what} into its layers, with every tensor unchanged in one chunk`, () =>
      Effect.gen(function*() {
        const tensors = tensorsOf(names)
        const storage = yield* withSource(tensors)
        const manifest = yield* splitOn(storage)
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

  it.effect("copies the metadata of the source into each chunk", () =>
    Effect.gen(function*() {
      const storage = yield* withSource(tensorsOf(bert(1)), { format: "pt", licence: "MIT" })
      yield* splitOn(storage)
      const chunk = yield* on(storage)(Safetensors.open("model/layer_0.safetensors"))
      expect(chunk.metadata).toEqual({ format: "pt", licence: "MIT" })
      expect(chunk.tensors.size).toBe(16)
    }))

  it.effect("splits a sharded model whose layers are spread over the shards", () =>
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
      yield* splitOn(storage, { source: "llama/model.safetensors.index.json" })
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

  it.effect("aligns each tensor of a chunk for a typed array", () =>
    Effect.gen(function*() {
      const storage = yield* MemoryStorage.make()
      const dtypes = [["U8", 1], ["F64", 8], ["BF16", 2], ["I32", 4], ["BOOL", 1], ["I64", 8]] as const
      // A file of another writer, in which nothing is aligned.
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

      yield* splitOn(storage)
      for (let i = 0; i < 3; i++) {
        const bytes = yield* storage.load(`model/layer_${i}.safetensors`)
        // Parsed here, independently of the library.
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

  it.effect("groups by a function or by size, in the order of the forward pass", () =>
    Effect.gen(function*() {
      const storage = yield* withSource(tensorsOf(bert(4)))
      const halves = yield* splitOn(storage, {
        target: "halves",
        by: (name) => /embeddings|layer\.[01]\./.test(name) ? "first/half" : "second/half"
      })
      expect(halves.chunks.map(({ key }) => key)).toEqual(["first/half.safetensors", "second/half.safetensors"])

      // Each tensor has 24 bytes.
      const { chunks } = yield* splitOn(storage, { by: { bytes: 24 * 16 } })
      expect(chunks.map(({ name }) => name)).toEqual(chunks.map((_, i) => `chunk_${i}`))
      expect(chunks.map(({ tensors }) => tensors?.length)).toEqual([16, 16, 16, 16, 16, 1])
      expect(chunks[0]?.tensors).toContain("bert.embeddings.word_embeddings.weight")
      expect(chunks.at(-1)?.tensors).toEqual(["cls.seq_relationship.weight"])
      expect((yield* contentsOf(storage)).size).toBe(81)
    }))

  it.effect("keeps the order of the forward pass for chunks by size and by a function", () =>
    Effect.gen(function*() {
      const storage = yield* withSource(tensorsOf([...llama(11)].sort()))
      const expected = [
        "model.embed_tokens.weight",
        ...Array.from({ length: 11 }, (_, i) => `model.layers.${i}.mlp.up_proj.weight`),
        "model.norm.weight",
        "lm_head.weight"
      ]
      for (const by of [{ bytes: 24 }, (name: string) => name] as const) {
        const { chunks } = yield* splitOn(storage, { by })
        const names = chunks.flatMap(({ tensors = [] }) => tensors)
        expect(names.filter((name) => expected.includes(name))).toEqual(expected)
      }
    }))

  it.effect("puts the parts in a chunk in the order of the forward pass, by the bytes of its file too", () =>
    Effect.gen(function*() {
      const names = ["embed_out.w", "gpt_neox.embed_in.w", "gpt_neox.final_layer_norm.w", "gpt_neox.layers.0.mlp.w"]
      const storage = yield* withSource(tensorsOf(names))
      const { chunks } = yield* splitOn(storage)
      expect(chunks.flatMap(({ tensors }) => tensors)).toEqual([
        "gpt_neox.embed_in.w",
        "gpt_neox.layers.0.mlp.w",
        "gpt_neox.final_layer_norm.w",
        "embed_out.w"
      ])
      expect((yield* contentsOf(storage)).size).toBe(4)
    }))

  it.effect("refuses names that do not tell the order of the chunks, and takes the order from an option", () =>
    Effect.gen(function*() {
      const names = ["embed.weight", "experts.0.weight", "experts.1.weight", "lm_head.weight", "router.weight"]
      const storage = yield* withSource(tensorsOf(names))
      const chunkOf = (name: string) => name.split(".")[0] ?? ""
      const error = yield* Effect.flip(splitOn(storage, { by: chunkOf }))
      expect(error).toMatchObject({ _tag: "ModelChunksError", operation: "split", field: "order" })
      expect(error.message).toContain(
        "the names of the tensors do not tell the place of \"experts\", \"router\" in the forward pass; set order to the " +
          "modules in the order of the forward pass (they are \"embed\", \"lm_head\", \"router\", \"experts\")"
      )
      expect(yield* storage.list("model/")).toEqual([])
      // In one chunk, the order makes no difference.
      expect((yield* splitOn(storage, { by: { bytes: 1000 } })).chunks).toHaveLength(1)
      const order = ["embed", "router", "experts", "lm_head"]
      const { chunks } = yield* splitOn(storage, { by: chunkOf, order })
      expect(chunks.map(({ name }) => name)).toEqual(order)
      // The longest name counts, so a tensor can be taken out of its module.
      const moved = yield* splitOn(storage, {
        by: { bytes: 24 },
        order: ["lm_head.weight", "experts.1", "embed", "router", "experts"]
      })
      expect(moved.chunks.flatMap(({ tensors }) => tensors)).toEqual([
        "lm_head.weight",
        "experts.1.weight",
        "embed.weight",
        "router.weight",
        "experts.0.weight"
      ])
    }))

  it.effect("rejects sources, targets and groupings that cannot work, before it changes anything", () =>
    Effect.gen(function*() {
      const storage = yield* withSource(tensorsOf(["conv1.weight", "fc.weight"]))
      yield* storage.copy("source.safetensors", "model/head.safetensors")
      const rejected: ReadonlyArray<readonly [Partial<ModelChunks.SplitOptions>, string, string]> = [
        [
          {},
          "by",
          "contain no layers (\"conv1.weight\", \"fc.weight\"); set by to a function of the name, or { bytes }"
        ],
        [{ by: { bytes: 0 } }, "by.bytes", "must be a whole number of bytes of at least 1 (got 0 bytes)"],
        [{ by: { bytes: 1.5 } }, "by.bytes", "(got 1.5 bytes)"],
        [{ by: () => "" }, "by", "the name \"\" for tensor \"conv1.weight\" cannot be part of a key: it is empty"],
        [{ by: () => "../../etc/cron" }, "by", "a segment \"..\""],
        [{ by: () => "x".repeat(1020) }, "by", "it must not exceed 1024 bytes"],
        [{ by: () => "x".repeat(1009) }, "by", "it must not exceed 1024 bytes"],
        [{ order: [] }, "order", "must be an array of at least one name (got [])"],
        [{ order: ["conv1", ""] }, "order", "(got [\"conv1\",\"\"])"],
        [{ order: ["conv1", "fc", "conv"] }, "order", "no tensor is \"conv\" or in it"],
        [{ order: ["conv1"] }, "order", "it must name a module for each tensor (none for \"fc.weight\")"],
        [{ source: "model/manifest.json" }, "target", "the manifest would replace the source \"model/manifest.json\""],
        [
          { by: () => "source", target: "" },
          "target",
          "chunk \"source\" would replace the source \"source.safetensors\""
        ],
        [
          { by: () => "head", source: "model/head.safetensors" },
          "target",
          "would replace the source \"model/head.safetensors\""
        ]
      ]
      const before = yield* storage.list()
      for (const [options, field, reason] of rejected) {
        const error = yield* Effect.flip(splitOn(storage, options))
        expect(error).toMatchObject({ _tag: "ModelChunksError", operation: "split", field })
        expect(error.message).toContain(reason)
      }
      expect(yield* storage.list()).toEqual(before)
      const target = yield* Effect.flip(splitOn(storage, { target: "../x" }))
      expect(target).toMatchObject({ _tag: "InvalidKey", operation: "split", key: "../x" })
      const none = yield* Effect.flip(splitOn(storage, { source: "none.safetensors" }))
      expect(none).toMatchObject({ _tag: "ObjectNotFound", key: "none.safetensors" })
      yield* storage.save("bad.safetensors", text("{}"))
      const bad = yield* Effect.flip(splitOn(storage, { source: "bad.safetensors" }))
      expect(bad).toMatchObject({ _tag: "SafetensorsError", key: "bad.safetensors" })
      const readOnly = yield* Effect.flip(splitOn(yield* StorageReadOnly.make(storage)))
      expect(readOnly).toMatchObject({ _tag: "UnsupportedOperation", operation: "split" })
    }))

  it.effect("reads neighbours together, and each byte once", () =>
    Effect.gen(function*() {
      const calls: Array<Call> = []
      const storage = noting(yield* withSource(tensorsOf(bert(6))), calls)
      yield* splitOn(storage)
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

  it.effect("leaves no manifest when it fails, not even an older one, and can be run again", () =>
    Effect.gen(function*() {
      const memory = yield* withSource(tensorsOf(bert(3)))
      yield* splitOn(memory, { by: { bytes: 1 } })
      expect(yield* memory.exists("model/manifest.json")).toBe(true)
      const storage = yield* StorageChaos.make(memory, [{ operation: "save", key: "model/layer_1.safetensors" }])
      const error = yield* Effect.flip(splitOn(storage))
      expect(error).toMatchObject({ _tag: "StorageUnavailable", key: "model/layer_1.safetensors" })
      expect(yield* memory.exists("model/manifest.json")).toBe(false)
      expect(yield* memory.exists("model/layer_0.safetensors")).toBe(true)
      yield* splitOn(storage)
      expect((yield* contentsOf(memory)).size).toBe(bert(3).length)
      const first = yield* memory.load("model/manifest.json")
      yield* splitOn(memory)
      expect(yield* memory.load("model/manifest.json")).toEqual(first)
    }))

  it.effect("fails if the source is overwritten meanwhile, and never mixes the two", () =>
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
      const error = yield* Effect.flip(splitOn(storage))
      expect(error).toMatchObject({ _tag: "PreconditionFailed", key: "source.safetensors" })
      expect(yield* memory.exists("model/manifest.json")).toBe(false)
      expect(yield* memory.exists("model/layer_1.safetensors")).toBe(false)
    }))

  it.scopedLive("leaves no part of a chunk and no manifest when it is interrupted", () =>
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
      const fiber = yield* Effect.fork(splitOn(storage))
      yield* Deferred.await(reached)
      expect(yield* Effect.provideService(leftovers, Directory, directory)).toHaveLength(1)
      expect(Exit.isInterrupted(yield* Fiber.interrupt(fiber))).toBe(true)
      expect(yield* Effect.provideService(leftovers, Directory, directory)).toEqual([])
      expect(yield* files.exists("model/manifest.json")).toBe(false)
      yield* splitOn(files)
      expect((yield* contentsOf(files)).size).toBe(bert(3).length)
    }))
})
