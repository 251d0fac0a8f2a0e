/**
 * `TensorFlowIO` with TensorFlow.js itself: what its loaders make of models with all their weights, with a stream of them,
 * with some and with none.
 */
import { describe, expect, it } from "@effect/vitest"
import "@tensorflow/tfjs-backend-cpu"
import { type GraphModel, loadGraphModel } from "@tensorflow/tfjs-converter"
import * as tfc from "@tensorflow/tfjs-core"
import { layers, type LayersModel, loadLayersModel, sequential } from "@tensorflow/tfjs-layers"
import { Effect } from "effect"
import { MemoryStorage, type Storage, type TensorFlowIO } from "surfing-weights"
import { handlerOn, saveTo } from "../support/tensorFlow.js"

/** A model of two layers, of which no weight is 0. */
const network = () =>
  sequential({
    layers: [
      layers.dense({ inputShape: [4], units: 3, activation: "tanh", biasInitializer: "randomNormal" }),
      layers.dense({ units: 2, biasInitializer: "randomNormal" })
    ]
  })

const outputs = (model: LayersModel | GraphModel) => {
  const output = model.predict(tfc.tensor2d([[1, 2, 3, 4]]))
  return output instanceof tfc.Tensor ? Array.from(output.dataSync()) : expect.fail("not one tensor")
}

/** What a loader rejects with. */
const rejection = (promise: Promise<unknown>) =>
  Effect.promise(() => promise.then(() => expect.fail("it made a model"), (error: unknown) => String(error)))

/** Changes the `model.json` in `m`. */
const edit = (storage: Storage.Service, change: (json: Json) => unknown) =>
  Effect.gen(function*() {
    const json = JSON.parse(new TextDecoder().decode(yield* storage.load("m/model.json"))) as Json
    change(json)
    yield* storage.save("m/model.json", new TextEncoder().encode(JSON.stringify(json)))
  })

interface Json {
  modelTopology?: object
  format?: string
  weightsManifest?: Array<{ paths: Array<string>; weights: Array<TensorFlowIO.WeightSpec> }>
}

const [whole, streamed] = [{}, { streamWeights: true }] satisfies ReadonlyArray<TensorFlowIO.Options>

describe("TensorFlowIO with loadLayersModel", () => {
  it.effect("gives a model its weights also with streamWeights, and saving that model again keeps them", () =>
    Effect.gen(function*() {
      const storage = yield* MemoryStorage.make()
      const handler = yield* handlerOn(storage, "m", { streamWeights: true, shardSize: 16 })
      const model = network()
      const expected = outputs(model)
      yield* Effect.promise(() => model.save(handler))
      const again = yield* Effect.promise(() => loadLayersModel(handler))
      expect(outputs(again)).toEqual(expected)
      yield* Effect.promise(() => again.save(handler))
      expect(outputs(yield* Effect.promise(() => loadLayersModel(handler)))).toEqual(expected)
    }))

  it.effect("gives a model in the form of Keras its weights, which names no format", () =>
    Effect.gen(function*() {
      const storage = yield* MemoryStorage.make()
      const model = network()
      yield* Effect.promise(async () => model.save(await Effect.runPromise(handlerOn(storage))))
      yield* edit(storage, (json) => {
        json.modelTopology = { keras_version: "2.15.0", backend: "tensorflow", model_config: json.modelTopology }
        delete json.format
      })
      for (const options of [whole, streamed]) {
        const handler = yield* handlerOn(storage, "m", options)
        expect(outputs(yield* Effect.promise(() => loadLayersModel(handler)))).toEqual(outputs(model))
      }
    }))

  it.effect("keeps the weights of an optimizer", () =>
    Effect.gen(function*() {
      const storage = yield* MemoryStorage.make()
      const handler = yield* handlerOn(storage, "m", { streamWeights: true })
      const model = network()
      model.compile({ optimizer: "adam", loss: "meanSquaredError" })
      const [inputs, targets] = [tfc.ones([8, 4]), tfc.ones([8, 2])]
      yield* Effect.promise(() => model.fit(inputs, targets, { epochs: 1, verbose: 0 }))
      yield* Effect.promise(() => model.save(handler, { includeOptimizer: true }))
      const again = yield* Effect.promise(() => loadLayersModel(handler))
      const weights = async ({ optimizer }: LayersModel) =>
        (await optimizer.getWeights()).map(({ tensor }) => Array.from(tensor.dataSync()))
      expect(yield* Effect.promise(() => weights(again))).toEqual(yield* Effect.promise(() => weights(model)))
    }))

  const quantizations: Readonly<Record<string, (values: Float32Array) => readonly [Uint8Array, object, number]>> = {
    float16: (values) => {
      // Numbers that both have exactly.
      const exact = values.map((_, i) => i % 2 === 0 ? 0.5 : -1.5)
      return [new Uint8Array(Uint16Array.from(exact, (v) => v === 0.5 ? 0x3800 : 0xbe00).buffer), {}, 0]
    },
    uint8: (values) => [new Uint8Array(values.map((_, i) => i)), { scale: 0.25, min: -1 }, 0],
    uint16: (values) => [new Uint8Array(Uint16Array.from(values, (_, i) => i).buffer), { scale: 0.25, min: -1 }, 0]
  }

  for (const [dtype, encode] of Object.entries(quantizations)) {
    it.effect(`gives a model weights that are quantized to ${dtype}, decoded`, () =>
      Effect.gen(function*() {
        const storage = yield* MemoryStorage.make()
        const model = network()
        yield* Effect.promise(async () => model.save(await Effect.runPromise(handlerOn(storage))))
        const [key = ""] = yield* storage.list("m/weights")
        const [bytes, parameters] = encode(new Float32Array((yield* storage.load(key)).buffer))
        yield* storage.save(key, bytes)
        yield* edit(storage, ({ weightsManifest = [] }) => {
          for (const spec of weightsManifest.flatMap(({ weights }) => weights)) {
            Object.assign(spec, { quantization: { dtype, original_dtype: "float32", ...parameters } })
          }
        })
        const expected = Array.from(
          { length: 23 },
          (_, i) => dtype === "float16" ? (i % 2 === 0 ? 0.5 : -1.5) : i * 0.25 - 1
        )
        for (const options of [whole, streamed]) {
          const handler = yield* handlerOn(storage, "m", options)
          const loaded = yield* Effect.promise(() => loadLayersModel(handler))
          expect(loaded.getWeights().flatMap((weight) => Array.from(weight.dataSync()))).toEqual(expected)
        }
      }))
  }

  const broken: Readonly<Record<string, readonly [change: (json: Json) => unknown, says: string]>> = {
    "no manifest of weights": [(json) => delete json.weightsManifest, "the model has no weights"],
    "a manifest of null": [(json) => Object.assign(json, { weightsManifest: null }), "the model has no weights"],
    "an empty manifest": [(json) => json.weightsManifest = [], "4 of 4 weights are not set"],
    "a group without weights": [
      (json) => json.weightsManifest = [{ paths: [], weights: [] }],
      "4 of 4 weights are not set"
    ],
    "fewer weights than bytes": [(json) => json.weightsManifest?.[0]?.weights.pop(), "the weights take 84 bytes"],
    "fewer shards than weights": [(json) => json.weightsManifest?.[0]?.paths.pop(), "the weights take 92 bytes"],
    "a weight without its layer": [
      (json) => Object.assign(json.weightsManifest?.[0]?.weights[0] ?? {}, { name: "other/kernel" }),
      "other/kernel"
    ],
    "a weight of another shape": [
      (json) => json.weightsManifest?.[0]?.weights[0]?.shape.reverse(),
      "Shape mismatch"
    ]
  }

  for (const [what, [change, says]] of Object.entries(broken)) {
    it.effect(`makes no model from ${what}, with streamWeights or without`, () =>
      Effect.gen(function*() {
        const storage = yield* MemoryStorage.make()
        const model = network()
        yield* Effect.promise(async () => model.save(await Effect.runPromise(handlerOn(storage))))
        yield* edit(storage, change)
        for (const options of [whole, streamed]) {
          const handler = yield* handlerOn(storage, "m", options)
          expect(yield* rejection(loadLayersModel(handler))).toContain(says)
        }
      }))
  }

  it.effect("makes no model of a graph, and says what reads its stream", () =>
    Effect.gen(function*() {
      const storage = yield* MemoryStorage.make()
      yield* saveTo(storage, product([1, 2, 3, 4]))
      const handler = yield* handlerOn(storage, "m", streamed)
      expect(yield* rejection(loadLayersModel(handler))).toContain(
        "the weights are a stream (streamWeights), which only loadGraphModel of TensorFlow.js 4.15 or later reads"
      )
    }))
})

describe("TensorFlowIO on the files of a download", () => {
  /** What `model.save("downloads://my-model")` leaves in the downloads of a browser. */
  const download = (storage: Storage.Service, model: LayersModel) =>
    Effect.gen(function*() {
      const artifacts = yield* Effect.async<tfc.io.ModelArtifacts>((resume) => {
        void model.save(tfc.io.withSaveHandler((artifacts) => {
          resume(Effect.succeed(artifacts))
          return Promise.resolve({ modelArtifactsInfo: { dateSaved: new Date(), modelTopologyType: "JSON" } })
        }))
      })
      const weightsManifest = [{ paths: ["./my-model.weights.bin"], weights: artifacts.weightSpecs ?? [] }]
      const { modelTopology } = artifacts
      const json = JSON.stringify({
        modelTopology,
        format: "layers-model",
        generatedBy: "TensorFlow.js",
        weightsManifest
      })
      yield* storage.save("m/my-model.json", new TextEncoder().encode(json))
      const weights = tfc.io.CompositeArrayBuffer.join(artifacts.weightData)
      yield* storage.save("m/my-model.weights.bin", new Uint8Array(weights))
    })

  it.effect("loads a model by the name of its file, and saves it there", () =>
    Effect.gen(function*() {
      const storage = yield* MemoryStorage.make()
      const [model, other] = [network(), network()]
      yield* download(storage, model)
      const handler = yield* handlerOn(storage, "m/my-model.json")
      const loaded = yield* Effect.promise(() => loadLayersModel(handler))
      expect(outputs(loaded)).toEqual(outputs(model))

      // Another model in the same folder.
      const unnamed = yield* handlerOn(storage, "m")
      yield* Effect.promise(() => other.save(unnamed))
      yield* Effect.promise(() => loaded.save(handler))
      expect(outputs(yield* Effect.promise(() => loadLayersModel(handler)))).toEqual(outputs(model))
      expect(outputs(yield* Effect.promise(() => loadLayersModel(unnamed)))).toEqual(outputs(other))
      expect((yield* storage.list("m/")).filter((key) => !key.startsWith("m/weights-"))).toEqual([
        "m/model.json",
        "m/my-model.json"
      ])
    }))

  it.effect("takes a name in the root of the storage, and a folder whose name ends in .json", () =>
    Effect.gen(function*() {
      const storage = yield* MemoryStorage.make()
      const model = network()
      for (const [prefix, key] of [["my.json", "my.json"], ["a.json/", "a.json/model.json"]] as const) {
        const handler = yield* handlerOn(storage, prefix)
        yield* Effect.promise(() => model.save(handler))
        expect(yield* storage.exists(key)).toBe(true)
        expect(outputs(yield* Effect.promise(() => loadLayersModel(handler)))).toEqual(outputs(model))
      }
    }))
})

/** A graph that multiplies its input by a matrix of one column. */
const product = (column: ReadonlyArray<number>): TensorFlowIO.ModelArtifacts => ({
  format: "graph-model",
  modelTopology: {
    node: [
      { name: "x", op: "Placeholder", attr: { dtype: { type: "DT_FLOAT" }, shape: { shape: { unknownRank: true } } } },
      { name: "w", op: "Const", attr: { dtype: { type: "DT_FLOAT" }, value: { tensor: { dtype: "DT_FLOAT" } } } },
      { name: "y", op: "MatMul", input: ["x", "w"], attr: { T: { type: "DT_FLOAT" } } }
    ],
    library: {},
    versions: { producer: 1, minConsumer: 1 }
  },
  weightSpecs: [{ name: "w", shape: [column.length, 1], dtype: "float32" }],
  weightData: new Float32Array(column).buffer
})

describe("TensorFlowIO with loadGraphModel", () => {
  it.effect("streams the weights of a graph, which can be saved again", () =>
    Effect.gen(function*() {
      const storage = yield* MemoryStorage.make()
      yield* saveTo(storage, product([1, 10, 100, 1000]), { shardSize: 6 })
      const handler = yield* handlerOn(storage, "m", streamed)
      const artifacts = yield* Effect.promise(handler.load)
      expect(Object.keys(artifacts)).toContain("getWeightStream")
      expect(Object.keys(artifacts)).not.toContain("weightData")
      const model = yield* Effect.promise(() => loadGraphModel(handler))
      expect(outputs(model)).toEqual([4321])
      yield* Effect.promise(() => model.save(handler))
      expect(outputs(yield* Effect.promise(() => loadGraphModel(handler)))).toEqual([4321])
    }))

  it.effect("refuses to save a stream where only weightData is read, which would be a model without weights", () =>
    Effect.gen(function*() {
      const storage = yield* MemoryStorage.make()
      yield* saveTo(storage, product([1, 2, 3, 4]))
      const handler = yield* handlerOn(storage, "m", streamed)
      const model = yield* Effect.promise(() => loadGraphModel(handler))
      const other = tfc.io.withSaveHandler((artifacts) => {
        const bytes = tfc.io.CompositeArrayBuffer.join(artifacts.weightData)
        return Promise.resolve({
          modelArtifactsInfo: { dateSaved: new Date(), modelTopologyType: "JSON", weightDataBytes: bytes.byteLength }
        })
      })
      expect(yield* rejection(model.save(other))).toContain("the weights are a stream")
    }))

  it.effect("makes no model of a graph without weights, and replaces none by it", () =>
    Effect.gen(function*() {
      const storage = yield* MemoryStorage.make()
      yield* saveTo(storage, product([1, 2, 3, 4]))
      const good = yield* storage.load("m/model.json")
      yield* edit(storage, (json) => delete json.weightsManifest)
      for (const options of [whole, streamed]) {
        const handler = yield* handlerOn(storage, "m", options)
        expect(yield* rejection(loadGraphModel(handler))).toContain("the model has no weights")
        const artifacts = yield* Effect.promise(handler.load)
        yield* storage.save("m/model.json", good)
        expect(yield* rejection(handler.save(artifacts))).toContain("the model has no weights")
        expect(yield* storage.load("m/model.json")).toEqual(good)
        yield* edit(storage, (json) => delete json.weightsManifest)
      }
    }))
})
