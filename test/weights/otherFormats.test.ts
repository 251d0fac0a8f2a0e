/**
 * What is in the place of weights that are not there: pointers, pages, other formats, and files that are cut off. The errors
 * say what it is, and what to do.
 */
import { describe, expect, it } from "@effect/vitest"
import { Effect } from "effect"
import { gzipSync } from "node:zlib"
import { MemoryStorage, ModelChunks, Safetensors, Storage } from "surfing-weights"
import { handlerOn, weight } from "../support/tensorFlow.js"

const text = (content: string) => new TextEncoder().encode(content)
const start = (content: string, length = 4096) => Buffer.concat([Buffer.from(content, "latin1"), Buffer.alloc(length)])
const pointer = `version https://git-lfs.github.com/spec/v1\noid sha256:${"0a".repeat(32)}\nsize 438005608\n`
const page = "<html></html>"
const lfs = "it is a Git LFS pointer to a file of 438005608 bytes"
const pull = "run \"git lfs pull\", or download the file itself"

/** The bytes of a valid file of one tensor. */
const valid = Effect.gen(function*() {
  yield* Safetensors.save("a", [{ name: "w", dtype: "F32", shape: [1000], data: new Float32Array(1000) }])
  return yield* Storage.load("a")
}).pipe(Effect.provide(MemoryStorage.layer()))

const files: ReadonlyArray<readonly [what: string, bytes: Uint8Array, says: ReadonlyArray<string>]> = [
  ["a Git LFS pointer", text(pointer), [lfs, "not a safetensors file", pull]],
  ["a pointer with line ends of Windows", text(pointer.replaceAll("\n", "\r\n")), ["Git LFS pointer"]],
  ["a pointer of Hawser, as Git LFS was called", text(pointer.replace("git-lfs", "hawser")), [lfs, pull]],
  ["a page", text("<!DOCTYPE html>\n<html lang=\"en\"><head>".padEnd(20_000)), ["an HTML page", "such as a login"]],
  ["a page after white space", text("\n\n  <HTML><body>Sign in</body></HTML>"), ["an HTML page"]],
  ["an error of S3", text("<?xml version=\"1.0\"?><Error><Code>NoSuchKey</Code></Error>"), ["an XML document"]],
  ["an error as JSON", text("{\"error\":\"Repository not found\"}"), ["a JSON document"]],
  ["an error as JSON after white space", text("\r\n\r\n{\"error\":\"Repository not found\"}"), ["a JSON document"]],
  ["a message", text("Entry not found"), ["a text that starts with \"Entry not found\""]],
  ["a message in Japanese", text("見つかりませんでした。".repeat(40)), ["a text that starts with"]],
  [
    "the index of its model",
    text("{\n  \"metadata\": {\n    \"total_size\": 13476831232\n  },\n  \"weight_map\": {"),
    ["the index of a model in several files", "open it with Safetensors.openSharded"]
  ],
  ["a ZIP archive of PyTorch", start("PK\x03\x04\x00\x00\x08\x08"), [
    "a ZIP archive, as torch.save",
    "safetensors.torch"
  ]],
  ["a ZIP archive without a file", start("PK\x05\x06"), ["an empty ZIP archive", "download it again"]],
  ["a pickle", start("\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."), ["a pickle of Python", "safetensors.torch"]],
  ["a GGUF file", start("GGUF\x03\x00\x00\x00"), ["a GGUF file"]],
  ["a NumPy array", start("\x93NUMPY\x01\x00v\x00{'descr': '<f4'"), ["a NumPy array"]],
  ["an HDF5 file", start("\x89HDF\r\n\x1a\n"), ["an HDF5 file"]],
  ["an ONNX model", start("\x08\x07\x12\x07pytorch"), ["an ONNX model"]],
  ["a TensorFlow Lite model", start("\x1c\x00\x00\x00TFL3"), ["a TensorFlow Lite model"]],
  ["what gzip compressed", gzipSync(Buffer.alloc(2_000_000, "weights")), ["compressed by gzip", "decompress it first"]],
  ["what Zstandard compressed", start("\x28\xb5\x2f\xfd\x04\x00"), ["compressed by Zstandard"]],
  ["what xz compressed", start("\xfd7zXZ\x00"), ["compressed by xz"]],
  ["what bzip2 compressed", start("BZh91AY&SY"), ["compressed by bzip2"]],
  ["a 7-Zip archive", start("7z\xbc\xaf\x27\x1c"), ["a 7-Zip archive", "extract it first"]],
  ["a Parquet file", start("PAR1\x15\x04"), ["a Parquet file"]],
  ["an Arrow file", start("ARROW1\x00\x00"), ["an Arrow file"]],
  ["a tar archive", Buffer.concat([start("model.safetensors", 240), start("ustar")]), ["a tar archive"]],
  ["what PowerShell redirected", Buffer.from("\ufeffweights of a model", "utf16le"), ["UTF-16 text, as PowerShell"]],
  ["zeros, as a download that reserved its space", new Uint8Array(5000), ["a file of zeros", "download it again"]],
  ["an empty file", new Uint8Array(0), ["empty", "download it again"]]
]

describe("Safetensors", () => {
  for (const [what, bytes, says] of files) {
    it.effect(`says of ${what} what it is, and what to do`, () =>
      Effect.gen(function*() {
        yield* Storage.save("m/model.safetensors", bytes)
        const opened = yield* Effect.flip(Safetensors.open("m/model.safetensors"))
        const decoded = yield* Effect.flip(Safetensors.decode(bytes, "m/model.safetensors"))
        const split = yield* Effect.flip(ModelChunks.split({ source: "m/model.safetensors", target: "chunks" }))
        const written = yield* Effect.flip(ModelChunks.writeManifest("m"))
        for (const error of [opened, decoded, split, written]) {
          expect(error._tag).toBe("SafetensorsError")
          for (const part of says) expect(error.message).toContain(part)
          expect(error.message.length).toBeLessThan(300)
        }
      }).pipe(Effect.provide(MemoryStorage.layer())))
  }

  it.effect("says of a file that is cut off, in its header or later, that it may be truncated", () =>
    Effect.gen(function*() {
      const whole = yield* valid
      for (const length of [20, 60, 100, 2000, whole.byteLength - 1]) {
        const error = yield* Effect.flip(Safetensors.decode(whole.subarray(0, length), "m"))
        expect(error.message).toMatch(/if (?:it|the file) is truncated, download it again$/)
      }
      const short = yield* Effect.flip(Safetensors.decode(whole.subarray(0, 5), "m"))
      expect(short.message).toContain("too short for a header (5 bytes, at least 8); download it again")
    }))

  it.effect("does not take a valid header for another format, whatever its length looks like", () =>
    Effect.gen(function*() {
      // As lengths, these are the signatures of a pickle, gzip and ONNX.
      for (const length of [0x0280, 0x8b1f, 0x120708]) {
        const json = `{"w":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}`.padEnd(length)
        const bytes = Buffer.concat([Buffer.alloc(8), Buffer.from(json), Buffer.alloc(1)])
        bytes.writeBigUInt64LE(BigInt(length))
        expect([...(yield* Safetensors.decode(bytes, "m")).keys()]).toEqual(["w"])
        const cut = yield* Effect.flip(Safetensors.decode(bytes.subarray(0, length), "m"))
        expect(cut.message).toContain("truncated")
      }
    }))

  const unknown: ReadonlyArray<readonly [bytes: Uint8Array, says: string]> = [
    // Almost a pickle, almost ONNX, almost a text.
    [start("\x80\x01\x00"), "it must be a JSON object that starts with {"],
    [start("\x80\x06\x00"), "it must be a JSON object that starts with {"],
    [start("\x08\x07\x00"), "it must be a JSON object that starts with {"],
    [start("\x08\x20\x12", 1_200_000), "it must be a JSON object that starts with {"],
    [text("weights of\x01a model"), "is over the limit"],
    [text("weights"), "the file is too short for a header (7 bytes"]
  ]

  it.effect("does not guess what a file of an unknown format is", () =>
    Effect.gen(function*() {
      for (const [bytes, says] of unknown) {
        const error = yield* Effect.flip(Safetensors.decode(bytes, "m"))
        expect(error.message).toContain(says)
        expect(error.message).not.toContain("it is")
      }
    }))

  it.effect("says of the index of a sharded model what it is", () =>
    Effect.gen(function*() {
      for (
        const [content, says] of [[pointer, pull], [page, "an HTML page"], ["Not found", "a text"]] as const
      ) {
        yield* Storage.save("model.safetensors.index.json", text(content))
        const error = yield* Effect.flip(Safetensors.openSharded("model.safetensors.index.json"))
        expect(error.message).toContain(says)
      }
      yield* Storage.save("model.safetensors.index.json", text("{\"weight_map\": {"))
      const invalid = yield* Effect.flip(Safetensors.openSharded("model.safetensors.index.json"))
      expect(invalid.message).not.toContain("JSON document")
    }).pipe(Effect.provide(MemoryStorage.layer())))
})

describe("ModelChunks", () => {
  it.effect("says of a manifest, a chunk and a file without a header that it is a pointer or a page", () =>
    Effect.gen(function*() {
      for (
        const [content, what, advice] of [[pointer, lfs, pull], [
          page,
          "it is an HTML page",
          "such as a login"
        ]] as const
      ) {
        yield* Storage.save("m/manifest.json", text(content))
        expect((yield* Effect.flip(ModelChunks.open("m"))).message).toContain(advice)
        yield* Storage.save("m/a.bin", text(content))
        expect((yield* Effect.flip(ModelChunks.writeManifest("m"))).message).toContain(advice)
        yield* Storage.save("m/a.bin", new Uint8Array(1000))
        yield* ModelChunks.writeManifest("m")
        yield* Storage.save("m/a.bin", text(content))
        const model = yield* ModelChunks.open("m")
        const error = yield* Effect.flip(model.load("a.bin"))
        expect(error.message).toContain(`has ${content.length} bytes, but the manifest says 1000; ${what}`)
      }
    }).pipe(Effect.provide(MemoryStorage.layer())))
})

describe("TensorFlowIO", () => {
  const messageOf = (promise: Promise<unknown>) =>
    Effect.promise(() => promise.then(() => expect.fail("it loaded"), (error: unknown) => String(error)))

  for (const streamWeights of [false, true]) {
    it.effect(`says of model.json and of shards what they are, ${streamWeights ? "streamed" : "whole"}`, () =>
      Effect.gen(function*() {
        const storage = yield* MemoryStorage.make()
        const { load } = yield* handlerOn(storage, "m", { streamWeights })
        for (const [content, says] of [[pointer, pull], [page, "an HTML page"]] as const) {
          yield* storage.save("m/model.json", text(content))
          expect(yield* messageOf(load())).toContain(says)
        }
        yield* storage.save(
          "m/model.json",
          text(
            JSON.stringify({
              modelTopology: { node: [] },
              weightsManifest: [{ paths: ["a", "b"], weights: [weight(900)] }]
            })
          )
        )
        yield* storage.save("m/a", new Uint8Array(500))
        yield* storage.save("m/b", text(pointer))
        expect(yield* messageOf(load())).toContain(
          `the weights take 900 bytes, but there are ${500 + pointer.length}; "b": ${lfs}, not weights; ${pull}`
        )
      }))
  }
})
