/**
 * `ModelChunks.writeManifest` on folders as they are downloaded from the Hugging Face Hub: which files are the chunks.
 */
import { describe, expect, it } from "@effect/vitest"
import { Effect, Stream } from "effect"
import { MemoryStorage, ModelChunks, Safetensors, Storage } from "surfing-weights"

const beside = [
  ".gitattributes",
  ".cache/huggingface/download/model.safetensors.metadata",
  "README.md",
  "LICENSE",
  "LICENSE.txt",
  "USE_POLICY.md",
  "config.json",
  "generation_config.json",
  "tokenizer.json",
  "tokenizer.model",
  "tokenizer_config.json",
  "special_tokens_map.json",
  "vocab.txt",
  "merges.txt",
  "chat_template.jinja",
  "modeling_custom.py",
  "assets/figure.png",
  "training_args.bin",
  "optimizer.pt"
]

const bytes = (content: string) => new TextEncoder().encode(content)

/** A file, safetensors with a tensor of the name that follows the colon, an index of the files that follow it, or neither. */
const save = (file: string) => {
  const [key = "", content = ""] = file.split(":")
  if (key.endsWith(".index.json")) {
    const shards = content.split(",").map((shard): [string, string] => [`tensor of ${shard}`, shard])
    return Storage.save(key, bytes(JSON.stringify({ metadata: {}, weight_map: Object.fromEntries(shards) })))
  }
  return key.endsWith(".safetensors")
    ? Safetensors.save(key, [{ name: content || `tensor of ${key}`, dtype: "U8", shape: [1], data: new Uint8Array(1) }])
    : Storage.save(key, new Uint8Array([0, 1, 2, 3]))
}

const manifestOf = (files: ReadonlyArray<string>) =>
  Effect.gen(function*() {
    yield* Effect.forEach(files, save, { discard: true })
    return yield* ModelChunks.writeManifest("")
  }).pipe(Effect.provide(MemoryStorage.layer()))

const filesOf = (files: ReadonlyArray<string>) =>
  Effect.gen(function*() {
    yield* Effect.forEach(files, save, { discard: true })
    return yield* ModelChunks.files("")
  }).pipe(Effect.provide(MemoryStorage.layer()))

const numbered = (name: string, total: number, extension: string) =>
  Array.from({ length: total }, (_, i) => {
    const [number, of] = [i + 1, total].map((n) => String(n).padStart(5, "0"))
    return `${name}-${number}-of-${of}.${extension}`
  })

describe("ModelChunks.writeManifest on a folder as downloaded", () => {
  const shards = numbered("model", 3, "safetensors")

  const folders: Readonly<Record<string, readonly [files: ReadonlyArray<string>, chunks: ReadonlyArray<string>]>> = {
    "one safetensors file": [["model.safetensors"], ["model.safetensors"]],
    "one safetensors file beside the same weights in all other formats": [
      [
        "model.safetensors",
        "pytorch_model.bin",
        "tf_model.h5",
        "flax_model.msgpack",
        "rust_model.ot",
        "onnx/model.onnx",
        "onnx/model_quantized.onnx",
        "openvino/openvino_model.bin",
        "coreml/fill-mask/float32_model.mlpackage/Data/weights/weight.bin"
      ],
      ["model.safetensors"]
    ],
    "shards with their index": [[...shards, `model.safetensors.index.json:${shards.join()}`], shards],
    "shards with their index, beside a consolidated file, the originals and PyTorch shards": [
      [
        ...shards,
        `model.safetensors.index.json:${shards.join()}`,
        "consolidated.safetensors",
        "original/consolidated.00.pth",
        "original/model.safetensors",
        ...numbered("pytorch_model", 2, "bin"),
        `pytorch_model.bin.index.json:${numbered("pytorch_model", 2, "bin").join()}`
      ],
      shards
    ],
    "shards with their index, beside older shards that it does not name": [
      [...shards, ...numbered("model", 5, "safetensors"), `model.safetensors.index.json:${shards.join()}`],
      shards
    ],
    "shards without their index, beside a consolidated file": [[...shards, "consolidated.safetensors"], shards],
    "a consolidated file alone": [["consolidated.safetensors"], ["consolidated.safetensors"]],
    "an index in the folder and one in a folder of it": [
      [...shards, `model.safetensors.index.json:${shards.join()}`, "unet/x.safetensors.index.json:nothing.safetensors"],
      shards
    ],
    "PyTorch shards with their index": [
      [
        ...numbered("pytorch_model", 2, "bin"),
        `pytorch_model.bin.index.json:${numbered("pytorch_model", 2, "bin").join()}`
      ],
      numbered("pytorch_model", 2, "bin")
    ],
    "PyTorch shards with their index, beside older shards that it does not name": [
      [
        ...numbered("pytorch_model", 2, "bin"),
        ...numbered("pytorch_model", 3, "bin"),
        `pytorch_model.bin.index.json:${numbered("pytorch_model", 2, "bin").join()}`
      ],
      numbered("pytorch_model", 2, "bin")
    ],
    "one safetensors file beside PyTorch shards with their index": [
      [
        "model.safetensors",
        ...numbered("pytorch_model", 2, "bin"),
        `pytorch_model.bin.index.json:${numbered("pytorch_model", 2, "bin").join()}`
      ],
      ["model.safetensors"]
    ],
    "shards whose numbers have one digit": [["model-1-of-2.bin", "model-2-of-2.bin"], [
      "model-1-of-2.bin",
      "model-2-of-2.bin"
    ]],
    "a file among others with extensions in upper case": [["FIGURE.PNG", "MODEL.GGUF"], ["MODEL.GGUF"]],
    "PyTorch weights alone": [["pytorch_model.bin"], ["pytorch_model.bin"]],
    "PyTorch weights and the consolidated originals": [
      ["pytorch_model.bin", "consolidated.00.pth", "original/consolidated.01.pth"],
      ["pytorch_model.bin"]
    ],
    "a GGUF file": [["model.Q4_K_M.gguf"], ["model.Q4_K_M.gguf"]],
    "ONNX files of one model": [["model.onnx", "model.onnx_data"], ["model.onnx", "model.onnx_data"]],
    "ONNX files in their folder": [["onnx/model.onnx"], ["onnx/model.onnx"]],
    "a file of a TransformersCache": [["onnx/model.onnx", "onnx/model.onnx%sha256"], ["onnx/model.onnx"]],
    "shards of TensorFlow.js": [["model.json", "group1-shard1of2", "group1-shard2of2"], [
      "group1-shard1of2",
      "group1-shard2of2"
    ]],
    "parts in folders": [
      ["unet/diffusion.safetensors", "text_encoder/model.safetensors"],
      ["text_encoder/model.safetensors", "unet/diffusion.safetensors"]
    ],
    "shards in folders": [
      [...numbered("text_encoder/model", 2, "safetensors"), ...numbered("unet/diffusion", 3, "safetensors")],
      [...numbered("text_encoder/model", 2, "safetensors"), ...numbered("unet/diffusion", 3, "safetensors")]
    ],
    "chunks": [["embeddings.safetensors", "layer_10.safetensors", "layer_9.safetensors", "head.safetensors"], [
      "embeddings.safetensors",
      "head.safetensors",
      "layer_9.safetensors",
      "layer_10.safetensors"
    ]]
  }

  for (const [what, [files, chunks]] of Object.entries(folders)) {
    it.effect(`takes the weights of ${what}, and nothing else`, () =>
      Effect.gen(function*() {
        const manifest = yield* manifestOf([...beside, ...files])
        expect(manifest.chunks.map(({ key }) => key)).toEqual(chunks)
      }))
  }

  it.effect("makes chunks that can be streamed and decoded", () =>
    Effect.gen(function*() {
      yield* Effect.forEach([...beside, ...shards, `model.safetensors.index.json:${shards.join()}`], save)
      yield* ModelChunks.writeManifest("")
      const model = yield* ModelChunks.open("")
      const decoded = model.stream().pipe(Stream.mapEffect(({ bytes, chunk }) => Safetensors.decode(bytes, chunk.key)))
      expect(yield* Stream.runCount(decoded)).toBe(3)
    }).pipe(Effect.provide(MemoryStorage.layer())))

  const refused: Readonly<Record<string, readonly [files: ReadonlyArray<string>, says: string]>> = {
    "a model in two safetensors files": [
      ["model.safetensors:w", "model.fp16.safetensors:w"],
      "\"w\" is in chunks[0] (\"model.fp16.safetensors\") already; if these are two forms of a model, set include"
    ],
    "a model as one file and as shards": [[...shards, "model.safetensors"], "there are several models"],
    "two sets of shards": [[...shards, ...numbered("other", 2, "safetensors")], "there are several models"],
    "a model in several formats": [
      ["pytorch_model.bin", "tf_model.h5"],
      "there are weights in several formats (PyTorch, Keras: \"pytorch_model.bin\", \"tf_model.h5\"); set include"
    ],
    "several quantizations": [["model.Q4_K_M.gguf", "model.Q8_0.gguf"], "there are several models"],
    "several ONNX models": [["model.onnx", "model_quantized.onnx"], "there are several models"],
    "two indexes": [
      [...shards, "a.safetensors.index.json:x.safetensors", "b.safetensors.index.json:y.safetensors"],
      "there are several indexes of sharded models"
    ],
    "an index whose shards are missing": [
      ["model.safetensors.index.json:a.safetensors,b.safetensors", "a.safetensors"],
      "the index \"model.safetensors.index.json\" names files that are not in the folder (\"b.safetensors\")"
    ],
    "shards of which one is missing": [
      [...shards.slice(0, 1), ...shards.slice(2)],
      `the shard "${shards[1]}" is missing`
    ],
    "no weights": [["config.json", "README.md"], "there are no weights among the files of the folder"]
  }

  for (const [what, [files, says]] of Object.entries(refused)) {
    it.effect(`refuses ${what}, and says that include selects`, () =>
      Effect.gen(function*() {
        const error = yield* Effect.flip(manifestOf([...beside, ...files]))
        expect(error).toMatchObject({ _tag: "ModelChunksError", operation: "writeManifest" })
        expect(error.message).toContain(says)
        expect(error.message).toContain("set include to select")
      }))
  }

  it.effect("looks into a safetensors file, however its extension is written", () =>
    Effect.gen(function*() {
      yield* Storage.save("MODEL.SafeTensors", bytes("Entry not found, with some more text"))
      const failure = yield* Effect.flip(ModelChunks.writeManifest(""))
      expect(failure.message).toContain("MODEL.SafeTensors")
      yield* Safetensors.save("MODEL.SafeTensors", [{ name: "a", dtype: "U8", shape: [1], data: new Uint8Array(1) }])
      const { chunks } = yield* ModelChunks.writeManifest("")
      expect(chunks).toMatchObject([{ key: "MODEL.SafeTensors", tensors: ["a"] }])
    }).pipe(Effect.provide(MemoryStorage.layer())))
})

describe("ModelChunks.files", () => {
  const shards = numbered("model", 2, "safetensors")
  const own = beside.filter((key) => !key.startsWith(".") && key !== "training_args.bin" && key !== "optimizer.pt")

  it.effect("are the shards of the index and what belongs to them, without other forms, hidden files and training", () =>
    Effect.gen(function*() {
      const index = "model.safetensors.index.json"
      const others = ["pytorch_model.bin", "pytorch_model.bin.index.json:pytorch_model.bin", "onnx/model.onnx"]
      const found = yield* filesOf([...shards, `${index}:${shards.join(",")}`, ...others, ...beside])
      expect([...found].sort()).toEqual([...shards, index, ...own].sort())
    }))

  it.effect("are those of a model in chunks, with its manifest", () =>
    Effect.gen(function*() {
      const chunks = ["embeddings.safetensors", "layer_0.safetensors", "manifest.json"]
      expect(yield* filesOf(chunks)).toEqual(chunks)
    }))

  it.effect("cannot be told where there are several models, and the failure says so", () =>
    Effect.gen(function*() {
      const error = yield* Effect.flip(filesOf(["a.gguf", "b.gguf"]))
      expect(error).toMatchObject({ _tag: "ModelChunksError", operation: "files", field: "prefix" })
      expect(error.message).toMatch(/there are several models .*; copy the files that you want by their names$/)
    }))
})
