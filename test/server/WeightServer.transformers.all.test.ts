/**
 * transformers.js as it comes from the registry, from the folder in `TRANSFORMERS_JS`, against a weight server that answers as a
 * model hub: it knows the address and nothing else of it.
 */
import { describe, expect, it } from "@effect/vitest"
import { Effect } from "effect"
import * as path from "node:path"
import { pathToFileURL } from "node:url"
import { MemoryStorage } from "surfing-weights"
import { temporaryDirectory } from "../support/directory.js"
import { recordingBodies } from "../support/hub.js"
import { serveOf } from "../support/weightServer.js"

/** What the tests use of transformers.js. */
interface TransformersJs {
  readonly env: { remoteHost: string; cacheDir: string; allowLocalModels: boolean }
  readonly AutoTokenizer: {
    readonly from_pretrained: (model: string) => Promise<{
      readonly encode: (text: string) => ReadonlyArray<number>
    }>
  }
  readonly AutoModel: {
    readonly from_pretrained: (model: string, options: { readonly dtype: "fp32" }) => Promise<{
      (
        inputs: { readonly input_ids: unknown }
      ): Promise<{ readonly last_hidden_state: { readonly data: Float32Array } }>
      readonly dispose: () => Promise<unknown>
    }>
  }
  readonly Tensor: new(type: "int64", data: BigInt64Array, shape: ReadonlyArray<number>) => unknown
}

const folder = process.env["TRANSFORMERS_JS"] ?? ""
if (folder === "") console.log("SKIPPED: no folder in TRANSFORMERS_JS has transformers.js")

const load = (): Promise<TransformersJs> =>
  import(
    pathToFileURL(path.join(folder, "node_modules/@huggingface/transformers/dist/transformers.node.mjs")).href
  ) as Promise<TransformersJs>

const model = "acme/words"

// A field of Protocol Buffers (https://protobuf.dev/programming-guides/encoding), shorter than 128 bytes.
const bytesField = (field: number, ...parts: ReadonlyArray<ReadonlyArray<number>>) => {
  const value = parts.flat()
  return [(field << 3) | 2, value.length, ...value]
}
const numberField = (field: number, value: number) => [field << 3, value]
const text = (value: string) => [...new TextEncoder().encode(value)]

/** An array of two dimensions of any size (`ValueInfoProto`). */
const valueOf = (name: string, type: number) => {
  const dimension = bytesField(1)
  const tensor = bytesField(1, numberField(1, type), bytesField(2, dimension, dimension))
  return [...bytesField(1, text(name)), ...bytesField(2, tensor)]
}

const float = 1
const int64 = 7

/** The field 20 of an attribute, its type, which is an integer. */
const attributeIsInt = [(20 << 3) & 0x7f | 0x80, 20 >> 4, 2]

/** A model in ONNX (`ModelProto` of https://github.com/onnx/onnx/blob/main/onnx/onnx.proto): its output is its input, as floats. */
const onnx = Uint8Array.from([
  ...numberField(1, 8),
  ...bytesField(
    7,
    bytesField(
      1,
      bytesField(1, text("input_ids")),
      bytesField(2, text("last_hidden_state")),
      bytesField(4, text("Cast")),
      bytesField(5, bytesField(1, text("to")), numberField(3, float), attributeIsInt)
    ),
    bytesField(2, text("words")),
    bytesField(11, valueOf("input_ids", int64)),
    bytesField(12, valueOf("last_hidden_state", float))
  ),
  ...bytesField(8, numberField(2, 13))
])

const files: Readonly<Record<string, unknown>> = {
  "config.json": { model_type: "bert", hidden_size: 1 },
  "tokenizer_config.json": { tokenizer_class: "PreTrainedTokenizer", unk_token: "?" },
  "tokenizer.json": {
    version: "1.0",
    added_tokens: [],
    normalizer: null,
    pre_tokenizer: { type: "Whitespace" },
    post_processor: null,
    decoder: null,
    model: { type: "WordLevel", vocab: { "?": 0, surfing: 1, weights: 2 }, unk_token: "?" }
  }
}

describe.skipIf(folder === "")("transformers.js", () => {
  it.scopedLive("loads and runs a model of the server by env.remoteHost alone, and a second time from its own cache", () =>
    Effect.gen(function*() {
      const storage = yield* MemoryStorage.make()
      for (const [name, content] of Object.entries(files)) {
        yield* storage.save(`${model}/${name}`, new TextEncoder().encode(JSON.stringify(content)))
      }
      yield* storage.save(`${model}/onnx/model.onnx`, onnx)
      const bodies: Array<string> = []
      const { url } = yield* serveOf(storage, { hub: true, auth: recordingBodies(bodies) })
      const { AutoModel, AutoTokenizer, Tensor, env } = yield* Effect.promise(load)
      env.remoteHost = url
      env.allowLocalModels = false
      env.cacheDir = yield* temporaryDirectory

      const use = Effect.gen(function*() {
        const tokenizer = yield* Effect.promise(() => AutoTokenizer.from_pretrained(model))
        const ids = tokenizer.encode("weights surfing weights")
        expect(ids).toEqual([2, 1, 2])
        const network = yield* Effect.promise(() => AutoModel.from_pretrained(model, { dtype: "fp32" }))
        const input = new Tensor("int64", BigInt64Array.from(ids, BigInt), [1, ids.length])
        const output = yield* Effect.promise(() => network({ input_ids: input }))
        expect([...output.last_hidden_state.data]).toEqual(ids)
        yield* Effect.promise(() => network.dispose())
      })
      yield* use
      const names = new Set(bodies.map((body) => body.split(" ")[0]?.split("/resolve/main/")[1]))
      expect(names).toEqual(new Set([...Object.keys(files), "onnx/model.onnx"]))
      const before = bodies.length
      yield* use
      expect(bodies).toHaveLength(before)
    }))
})
