/**
 * TensorFlow.js models in storages: small ones for every field, every failure, and readers while a model is replaced.
 */
import { describe, expect, it, vi } from "@effect/vitest"
import type { Layer } from "effect"
import { Chunk, Deferred, Effect, Option, Stream, Tracer } from "effect"
import { MemoryStorage, Storage, StorageChaos, StorageError, type TensorFlowIO } from "surfing-weights"
import { storageOnDirectory } from "../support/directory.js"
import { type Call, intercepting, noting, pattern } from "../support/intercepting.js"
import { bufferOf, cutsShards, handlerOn, loadFrom, saveTo, weight } from "../support/tensorFlow.js"

const failureOf = <A>(promise: () => Promise<A>) =>
  Effect.promise(() =>
    promise().then(() => {
      throw new Error("it succeeded")
    }, (error: unknown) => error)
  )

/** The failure, which must be one of a storage. */
const storageFailureOf = <A>(promise: () => Promise<A>) =>
  Effect.filterOrDieMessage(failureOf(promise), StorageError.isStorageError, "it is not a failure of a storage")

/** A small graph with one weight of `values` numbers. */
const graph = (values = 10): TensorFlowIO.ModelArtifacts => ({
  modelTopology: { node: [{ name: "x" }], versions: { producer: 1 } },
  weightSpecs: [{ name: "w", shape: [values], dtype: "float32" }],
  weightData: bufferOf(values * 4)
})

const json = (value: unknown) => new TextEncoder().encode(JSON.stringify(value))

const collect = async (stream: ReadableStream<ArrayBuffer>): Promise<Uint8Array> => {
  const buffers: Array<ArrayBuffer> = []
  for await (const buffer of stream) buffers.push(buffer)
  return new Uint8Array(await new Blob(buffers).arrayBuffer())
}

for (
  const { layer, where } of [
    { where: "memory", layer: MemoryStorage.layer() },
    { where: "a directory", layer: storageOnDirectory() }
  ] satisfies ReadonlyArray<{ where: string; layer: Layer.Layer<Storage.Storage, unknown> }>
) {
  describe(`TensorFlowIO on ${where}`, () => {
    it.live("keeps every field of graph models and layers models", () =>
      Effect.gen(function*() {
        const storage = yield* Storage.Storage
        const models: ReadonlyArray<TensorFlowIO.ModelArtifacts> = [
          {
            ...graph(),
            format: "graph-model",
            generatedBy: "2.11.0",
            convertedBy: "TensorFlow.js Converter v4.17.0",
            signature: { inputs: { x: { name: "x:0" } } },
            userDefinedMetadata: { structuredOutputKeys: ["a", "b"] },
            modelInitializer: { node: [{ name: "init" }] },
            initializerSignature: { outputs: {} }
          },
          {
            modelTopology: { class_name: "Sequential", config: { layers: [] } },
            weightSpecs: [
              { name: "kernel", shape: [2, 3], dtype: "float32", group: "model" },
              { name: "step", shape: [], dtype: "int32", group: "optimizer" },
              { name: "small", shape: [4], dtype: "float32", quantization: { dtype: "uint8", scale: 0.5, min: -1 } }
            ],
            weightData: bufferOf(24 + 4 + 4),
            format: "layers-model",
            generatedBy: "TensorFlow.js tfjs-layers v4.22.0",
            convertedBy: null,
            trainingConfig: { loss: "meanSquaredError", metrics: ["acc"], optimizer_config: { class_name: "Adam" } }
          },
          { modelTopology: { class_name: "Sequential" } },
          { weightSpecs: [{ name: "c", shape: [2], dtype: "complex64" }], weightData: bufferOf(16) },
          { modelTopology: { node: [] }, weightSpecs: [], weightData: new ArrayBuffer(0) }
        ]
        for (const model of models) {
          yield* saveTo(storage, model)
          expect(yield* loadFrom(storage)).toEqual(model)
        }
      }).pipe(Effect.provide(layer)))
  })
}

describe("TensorFlowIO.load", () => {
  const memoryWith = (objects: Readonly<Record<string, Uint8Array>>) =>
    Effect.tap(
      MemoryStorage.make(),
      (storage) =>
        Effect.forEach(Object.entries(objects), ([key, bytes]) => storage.save(key, bytes), { discard: true })
    )

  const topology = { node: [] }

  it.effect("joins the shards of several groups, also from folders, in the order of the manifest", () =>
    Effect.gen(function*() {
      const storage = yield* memoryWith({
        "m/model.json": json({
          modelTopology: topology,
          weightsManifest: [
            { paths: ["./b", "deep/er/a"], weights: [{ ...weight(7), name: "first" }] },
            { paths: ["a b%20c"], weights: [{ ...weight(2), name: "second" }, { ...weight(3), name: "third" }] }
          ]
        }),
        "m/b": pattern(3),
        "m/deep/er/a": pattern(4),
        "m/a b%20c": pattern(5)
      })
      const { weightData, weightSpecs } = yield* loadFrom(storage, "m/")
      expect(weightSpecs?.map(({ name }) => name)).toEqual(["first", "second", "third"])
      expect(new Uint8Array(weightData as ArrayBuffer)).toEqual(
        new Uint8Array([...pattern(3), ...pattern(4), ...pattern(5)])
      )
    }))

  it.effect("loads eight shards at once, each by one head and one stream conditional on its etag", () =>
    Effect.gen(function*() {
      const paths = Array.from({ length: 20 }, (_, i) => `shard${i}`)
      const memory = yield* memoryWith({
        "m/model.json": json({ weightsManifest: [{ paths, weights: [weight(200)] }] }),
        ...Object.fromEntries(paths.map((path) => [`m/${path}`, pattern(10)]))
      })
      const calls: Array<Call> = []
      let open = 0
      let most = 0
      const storage = noting(
        intercepting(memory, {
          through: (stream, { args: [key] }) =>
            key === "m/model.json" ? stream : Stream.unwrapScoped(Effect.as(
              Effect.acquireRelease(
                Effect.zipRight(Effect.sync(() => most = Math.max(most, ++open)), Effect.yieldNow()),
                () => Effect.sync(() => open--)
              ),
              stream
            ))
        }),
        calls
      )
      yield* loadFrom(storage)
      expect(most).toBe(8)
      expect(calls.filter(({ operation }) => operation === "head")).toHaveLength(20)
      const opened = calls.filter(({ operation }) => operation === "open").slice(1)
      expect(opened).toHaveLength(20)
      for (const { args: [key, options] } of opened) {
        expect(options).toEqual({ ifMatch: (yield* memory.head(String(key))).etag })
      }
    }))

  const hostile = [
    "../m/a",
    "deep/../../a",
    "/etc/passwd",
    "https://example.com/a",
    "file:///etc/passwd",
    "./../a",
    ".",
    "",
    "a\u0000b",
    "a//b",
    `${"x".repeat(2000)}`
  ]

  for (const path of hostile) {
    it.effect(`rejects the path ${JSON.stringify(path.slice(0, 30))} of a shard before it reads any`, () =>
      Effect.gen(function*() {
        const memory = yield* memoryWith({
          "m/model.json": json({ weightsManifest: [{ paths: ["a", path], weights: [weight(3)] }] }),
          "m/a": pattern(3),
          "a": pattern(3)
        })
        const calls: Array<Call> = []
        const { load } = yield* handlerOn(noting(memory, calls))
        const error = yield* storageFailureOf(load)
        expect(error).toMatchObject({ _tag: "CorruptObject", problem: "frame", key: "m/model.json" })
        expect(error.message).toContain("invalid path of a shard")
        expect(error.message.length).toBeLessThan(500)
        expect(calls.map(({ operation }) => operation)).toEqual(["open"])
      }))
  }

  const malformed: Readonly<Record<string, [bytes: Uint8Array, says: string]>> = {
    "invalid JSON": [new Uint8Array([0x7b, 0xff]), "not a TensorFlow.js model"],
    "JSON that is not a model": [json([1]), "not a TensorFlow.js model"],
    "a model without topology and weights": [json({ format: "graph-model" }), "neither a topology nor weights"],
    "a manifest that is not an array": [json({ weightsManifest: { paths: [] } }), "weightsManifest"],
    "a group without paths": [json({ weightsManifest: [{ weights: [] }] }), "weightsManifest: 0: paths"],
    "an unknown dtype": [
      json({ weightsManifest: [{ paths: [], weights: [{ ...weight(1), dtype: "float64" }] }] }),
      "weightsManifest: 0: weights: 0: dtype"
    ],
    "a dtype that is a property of every object": [
      json({ weightsManifest: [{ paths: [], weights: [{ ...weight(1), dtype: "toString" }] }] }),
      "weights: 0: dtype"
    ],
    "a negative shape": [json({ weightsManifest: [{ paths: [], weights: [weight(-1)] }] }), "weights: 0: shape: 0"],
    "a topology that is a string": [json({ modelTopology: "x".repeat(10_000) }), "modelTopology"]
  }

  for (const [what, [bytes, says]] of Object.entries(malformed)) {
    it.effect(`rejects ${what}, and says where`, () =>
      Effect.gen(function*() {
        const { load } = yield* handlerOn(yield* memoryWith({ "m/model.json": bytes }))
        const error = yield* storageFailureOf(load)
        expect(error).toMatchObject({ _tag: "CorruptObject", problem: "frame", key: "m/model.json", operation: "load" })
        expect(error.message).toContain(says)
        expect(error.message.length).toBeLessThan(500)
      }))
  }

  const urls: ReadonlyArray<readonly [path: string, shown: string]> = [
    ["https://user:secret@cdn.example.com/m/shard1.bin?sig=secret#x", "https://cdn.example.com/m/shard1.bin"],
    ["https://cdn.example.com/shard1.bin?sig=secret@x/y", "https://cdn.example.com/shard1.bin"],
    ["HTTP://cdn.example.com/shard1.bin", "HTTP://cdn.example.com/shard1.bin"],
    ["//cdn.example.com/shard1.bin", "//cdn.example.com/shard1.bin"],
    ["file:///models/shard1.bin", "file:///models/shard1.bin"],
    ["s3://bucket/shard1.bin", "s3://bucket/shard1.bin"],
    ["data:application/octet-stream;base64,c2VjcmV0IHNlY3JldA==", "data:application/oct"],
    ["blob:https://example.com/1234", "blob:https://example"]
  ]

  for (const [path, shown] of urls) {
    it.effect(`says that ${shown} is a URL, without what may be a secret`, () =>
      Effect.gen(function*() {
        const memory = yield* memoryWith({
          "m/model.json": json({ weightsManifest: [{ paths: [path], weights: [weight(3)] }] })
        })
        const { load } = yield* handlerOn(memory)
        const { message } = yield* storageFailureOf(load)
        expect(message).toContain("it is a URL; download the shard to the folder of the model")
        expect(message).toContain(`invalid path of a shard "${shown}"`)
        expect(message).not.toContain("secret")
        expect(message).not.toContain("c2Vj")
      }))
  }

  it.effect("says how TensorFlow.js has 16-bit floats, and which other types it has, in load and in save", () =>
    Effect.gen(function*() {
      const dtypes = {
        float16: "quantization { dtype: \"float16\" }",
        bfloat16: "--quantize_float16",
        int64: "(known: float32"
      }
      for (const [dtype, says] of Object.entries(dtypes)) {
        const specs = [{ ...weight(4), dtype }]
        const memory = yield* memoryWith({
          "m/model.json": json({ weightsManifest: [{ paths: ["a"], weights: specs }] })
        })
        const { load, save } = yield* handlerOn(memory)
        for (const call of [load, () => save({ weightSpecs: specs as never, weightData: bufferOf(8) })]) {
          const error = yield* storageFailureOf<unknown>(call)
          expect(error._tag).toBe("CorruptObject")
          expect(error.message).toContain(`TensorFlow.js has no weights of dtype "${dtype}"`)
          expect(error.message).toContain(says)
          expect(error.message).not.toContain("not a TensorFlow.js model")
        }
        expect(yield* memory.list()).toEqual(["m/model.json"])
      }
    }))

  it.effect("says which quantizations TensorFlow.js has, in load and in save", () =>
    Effect.gen(function*() {
      for (const dtype of ["int8", "bfloat16", 8]) {
        const specs = [{ ...weight(4), quantization: { dtype } }]
        const memory = yield* memoryWith({
          "m/model.json": json({ weightsManifest: [{ paths: ["a"], weights: specs }] })
        })
        const { load, save } = yield* handlerOn(memory)
        for (const call of [load, () => save({ weightSpecs: specs as never, weightData: bufferOf(4) })]) {
          const error = yield* storageFailureOf<unknown>(call)
          expect(error._tag).toBe("CorruptObject")
          expect(error.message).toContain("0: quantization: dtype: ")
          expect(error.message).toContain(
            `TensorFlow.js has no quantization to ${JSON.stringify(dtype)} (known: uint8, uint16, float16)`
          )
        }
        expect(yield* memory.list()).toEqual(["m/model.json"])
      }
    }))

  it.effect("accepts null for missing fields", () =>
    Effect.gen(function*() {
      const storage = yield* memoryWith({
        "m/model.json": json({
          modelTopology: topology,
          format: null,
          signature: null,
          convertedBy: null,
          weightsManifest: [{ paths: ["a"], weights: [{ ...weight(3), quantization: null, group: null }] }]
        }),
        "m/a": pattern(3)
      })
      expect(yield* loadFrom(storage)).toEqual({
        modelTopology: topology,
        convertedBy: null,
        weightSpecs: [weight(3)],
        weightData: bufferOf(3)
      })
    }))

  for (const actual of [9, 11, 0]) {
    it.effect(`rejects shards of ${actual} bytes for weights of 10 before it reads any`, () =>
      Effect.gen(function*() {
        const memory = yield* memoryWith({
          "m/model.json": json({ weightsManifest: [{ paths: ["a"], weights: [weight(10)] }] }),
          "m/a": pattern(actual)
        })
        const calls: Array<Call> = []
        const { load } = yield* handlerOn(noting(memory, calls))
        expect(yield* storageFailureOf(load)).toMatchObject({
          _tag: "CorruptObject",
          problem: "size",
          message: `load "m/model.json" on Memory: the weights take 10 bytes, but there are ${actual}`
        })
        expect(calls.map(({ operation }) => operation)).toEqual(["open", "head"])
      }))
  }

  it.effect("checks the size of each group", () =>
    Effect.gen(function*() {
      const { load } = yield* handlerOn(
        yield* memoryWith({
          "m/model.json": json({
            weightsManifest: [{ paths: ["a"], weights: [weight(2)] }, { paths: ["b"], weights: [weight(3)] }]
          }),
          "m/a": pattern(3),
          "m/b": pattern(2)
        })
      )
      expect(yield* storageFailureOf(load)).toMatchObject({ _tag: "CorruptObject", problem: "size" })
    }))

  it.effect("checks the size of string weights by their content", () =>
    Effect.gen(function*() {
      const texts = new Uint8Array([3, 0, 0, 0, 97, 98, 99, 0, 0, 0, 0])
      const weights = [weight(2), { name: "t", shape: [2], dtype: "string" }, weight(1)]
      const load = (bytes: ReadonlyArray<number>) =>
        Effect.flatMap(
          memoryWith({
            "m/model.json": json({
              weightsManifest: [{ paths: ["0"], weights: [weight(3)] }, { paths: ["a"], weights }]
            }),
            "m/0": pattern(3),
            "m/a": new Uint8Array(bytes)
          }),
          handlerOn
        )
      const whole = yield* load([8, 9, ...texts, 7])
      expect((yield* Effect.promise(whole.load)).weightData).toHaveProperty("byteLength", 17)
      for (const bytes of [[8, 9, ...texts], [8, 9, ...texts, 7, 7], [8, 9, 255, ...texts, 7], new Array<number>(10)]) {
        const broken = yield* load(bytes)
        expect(yield* storageFailureOf(broken.load)).toMatchObject({ _tag: "CorruptObject", problem: "size" })
      }
    }))

  it.effect("suggests streamWeights if the weights do not fit in one buffer", () =>
    Effect.gen(function*() {
      const memory = yield* memoryWith({
        "m/model.json": json({ weightsManifest: [{ paths: ["a"], weights: [weight(2 ** 52)] }] }),
        "m/a": pattern(3)
      })
      const storage = Storage.make({
        ...memory.backend,
        head: (key) => Effect.map(memory.head(key), (info) => ({ ...info, size: 2 ** 52 }))
      })
      const { load } = yield* handlerOn(storage)
      const error = yield* storageFailureOf(load)
      expect(error._tag).toBe("UnsupportedOperation")
      expect(error.message).toContain("streamWeights")
    }))

  it.effect("loads a layers model with streamWeights in a buffer for each shard if they do not fit in one", () =>
    Effect.gen(function*() {
      const storage = yield* MemoryStorage.make()
      const model = { ...graph(), modelTopology: { class_name: "Sequential", config: {} } }
      yield* saveTo(storage, model, { shardSize: 16 })
      const allocate = Buffer.allocUnsafeSlow.bind(Buffer)
      const limited = vi.spyOn(Buffer, "allocUnsafeSlow").mockImplementation((size) => {
        if (size > 16) throw new RangeError("Array buffer allocation failed")
        return allocate(size)
      })
      yield* Effect.addFinalizer(() => Effect.sync(() => limited.mockRestore()))
      const { load } = yield* handlerOn(storage, "m", { streamWeights: true })
      const { weightData, ...rest } = yield* Effect.promise(load)
      const whole = new Uint8Array(model.weightData as ArrayBuffer)
      expect(rest).toEqual({ modelTopology: model.modelTopology, weightSpecs: model.weightSpecs })
      expect(weightData).toEqual([whole.slice(0, 16).buffer, whole.slice(16, 32).buffer, whole.slice(32).buffer])
    }).pipe(Effect.scoped))

  it.effect("rejects with the failure of the storage itself", () =>
    Effect.gen(function*() {
      const memory = yield* MemoryStorage.make()
      const empty = yield* handlerOn(memory)
      const missing = yield* storageFailureOf(empty.load)
      expect(missing).toBeInstanceOf(StorageError.ObjectNotFound)
      expect(missing.message).toBe("open \"m/model.json\" on Memory: there is no such object")

      const outside = yield* handlerOn(memory, "../m")
      expect(yield* storageFailureOf(outside.load)).toBeInstanceOf(StorageError.InvalidKey)

      yield* saveTo(memory, graph())
      const [shard = ""] = (yield* memory.list("m/")).filter((key) => key !== "m/model.json")
      const breaking = yield* StorageChaos.make(memory, [{ operation: "open", key: shard, afterBytes: 7 }])
      const { load } = yield* handlerOn(breaking)
      expect(yield* storageFailureOf(load)).toMatchObject({ _tag: "StorageUnavailable", key: shard })
      expect(yield* Effect.promise(load)).toEqual(graph())

      yield* memory.remove(shard)
      expect(yield* storageFailureOf(empty.load)).toMatchObject({ _tag: "ObjectNotFound", key: shard })
    }))

  it.effect("returns the new model if the old one is replaced while it is read", () =>
    Effect.gen(function*() {
      for (const struck of ["head", "open"]) {
        const memory = yield* MemoryStorage.make()
        yield* saveTo(memory, graph(10))
        let replaced = false
        const storage = intercepting(memory, {
          around: (effect, { args: [key], operation }) => {
            if (replaced || operation !== struck || key === "m/model.json") return effect
            replaced = true
            return Effect.zipRight(saveTo(memory, graph(20)), effect)
          }
        })
        expect(yield* loadFrom(storage)).toEqual(graph(20))
        expect(replaced).toBe(true)
      }
    }))

  it.effect("fails if a shard is overwritten while it is read, but the model is not", () =>
    Effect.gen(function*() {
      const memory = yield* MemoryStorage.make()
      yield* saveTo(memory, graph())
      const storage = intercepting(memory, {
        around: (effect, { args: [key], operation }) =>
          operation === "open" && key !== "m/model.json"
            ? Effect.zipRight(Effect.orDie(memory.save(String(key), pattern(40))), effect)
            : effect
      })
      const { load } = yield* handlerOn(storage)
      expect(yield* storageFailureOf(load)).toMatchObject({ _tag: "PreconditionFailed" })
    }))

  it.effect("runs in the span in which the handler was made", () =>
    Effect.gen(function*() {
      const parents: Array<string> = []
      const tracer = Tracer.make({
        span: (name, parent, context, links, startTime, kind) => {
          parents.push(`${name} in ${Option.match(parent, { onNone: () => "none", onSome: (span) => span.spanId })}`)
          return {
            _tag: "Span",
            spanId: name,
            traceId: "trace",
            name,
            sampled: true,
            parent,
            context,
            status: { _tag: "Started", startTime },
            attributes: new Map(),
            links,
            kind,
            end() {},
            attribute() {},
            event() {},
            addLinks() {}
          }
        },
        context: (run) => run()
      })
      const storage = yield* MemoryStorage.make()
      yield* saveTo(storage, graph())
      const { load } = yield* handlerOn(storage).pipe(Effect.withSpan("app"), Effect.withTracer(tracer))
      yield* Effect.promise(load)
      expect(parents).toEqual(["app in none", ...["open", "head", "stream"].map((name) => `Storage.${name} in app`)])
    }))
})

describe("TensorFlowIO.load with streamWeights", () => {
  const saved = (values: number) =>
    Effect.tap(MemoryStorage.make(), (storage) => saveTo(storage, graph(values), { shardSize: 100 }))

  const streamFrom = (storage: Storage.Service) =>
    Effect.gen(function*() {
      const { load } = yield* handlerOn(storage, "m", { streamWeights: true })
      const { getWeightStream, ...artifacts } = yield* Effect.promise(load)
      if (getWeightStream === undefined) return yield* Effect.dieMessage("there is no stream")
      return { getWeightStream, artifacts }
    })

  it.effect("returns a weight stream that can be opened again, and opens nothing before it is read", () =>
    Effect.gen(function*() {
      const calls: Array<Call> = []
      const storage = noting(yield* saved(100), calls)
      const { artifacts, getWeightStream } = yield* streamFrom(storage)
      const { weightData, ...rest } = graph(100)
      expect(artifacts).toEqual(rest)
      getWeightStream()
      expect(calls.map(({ operation }) => operation)).toEqual(["open", "head", "head", "head", "head"])
      for (let time = 0; time < 2; time++) {
        const bytes = yield* Effect.promise(() => collect(getWeightStream()))
        expect(bytes).toEqual(new Uint8Array(weightData as ArrayBuffer))
      }
    }))

  it.effect("closes the open shard when the stream is cancelled", () =>
    Effect.gen(function*() {
      const closed = yield* Deferred.make<void>()
      const storage = intercepting(yield* saved(100), {
        through: (stream, { args: [key] }) =>
          key === "m/model.json"
            ? stream
            : Stream.ensuring(Stream.concat(stream, Stream.never), Deferred.succeed(closed, undefined))
      })
      const { getWeightStream } = yield* streamFrom(storage)
      const reader = getWeightStream().getReader()
      expect((yield* Effect.promise(() => reader.read())).value).toHaveProperty("byteLength", 100)
      expect(yield* Deferred.isDone(closed)).toBe(false)
      yield* Effect.promise(() => reader.cancel())
      expect(yield* Deferred.isDone(closed)).toBe(true)
    }))

  it.effect("saves a streamed model, also onto itself, and keeps the old model if the stream breaks", () =>
    Effect.gen(function*() {
      const storage = yield* saved(100)
      const handler = yield* handlerOn(storage, "m", { streamWeights: true, shardSize: 60 })
      yield* Effect.promise(async () => handler.save(await handler.load()))
      expect(yield* loadFrom(storage)).toEqual(graph(100))
      const before = yield* storage.list()
      expect(before).toHaveLength(8)

      const breaking = yield* StorageChaos.make(storage, [{
        operation: "open",
        key: (key) => key.endsWith("shard3.bin"),
        afterBytes: 10
      }])
      const broken = yield* handlerOn(breaking, "m", { streamWeights: true })
      const artifacts = yield* Effect.promise(broken.load)
      expect(yield* storageFailureOf(() => handler.save(artifacts))).toMatchObject({ _tag: "StorageUnavailable" })
      expect(yield* storage.list()).toEqual(before)
      expect(yield* loadFrom(storage)).toEqual(graph(100))
    }))
})

describe("TensorFlowIO.save", () => {
  it.effect("cuts weights into shards of the given size, independent of the buffers", () => cutsShards(20))

  it.effect("saves shards of 4 MiB by default", () =>
    Effect.gen(function*() {
      const storage = yield* MemoryStorage.make()
      yield* saveTo(storage, graph(1024 * 1024 + 1))
      const entries = Chunk.toArray(yield* Stream.runCollect(storage.entries({ prefix: "m/weights" })))
      expect(entries.map(({ size }) => size).sort()).toEqual([4, 4 * 1024 * 1024])
    }))

  it.effect("returns the date and the sizes", () =>
    Effect.gen(function*() {
      const storage = yield* MemoryStorage.make()
      const { modelArtifactsInfo, ...rest } = yield* saveTo(storage, { ...graph(), modelTopology: { node: "ä" } })
      expect(modelArtifactsInfo).toEqual({
        dateSaved: expect.any(Date) as Date,
        modelTopologyType: "JSON",
        modelTopologyBytes: 13,
        weightSpecsBytes: JSON.stringify(graph().weightSpecs).length,
        weightDataBytes: 40
      })
      expect(rest).toEqual({})
    }))

  it.effect("saves model.json after all shards, and then removes the replaced shards", () =>
    Effect.gen(function*() {
      const memory = yield* MemoryStorage.make()
      yield* memory.save("m/vocab.json", pattern(3))
      yield* saveTo(memory, graph(100), { shardSize: 100 })
      const old = yield* memory.list("m/weights")
      const calls: Array<Call> = []
      yield* saveTo(noting(memory, calls), graph(50), { shardSize: 100 })
      const changes = calls.filter(({ operation }) => operation === "save" || operation === "removeAll")
      expect(changes.map(({ operation }) => operation)).toEqual(["save", "save", "save", "removeAll"])
      expect(changes[2]?.args[0]).toBe("m/model.json")
      expect(changes[3]?.args[0]).toEqual(old)
      expect(yield* memory.list()).toHaveLength(4)
      expect(yield* memory.exists("m/vocab.json")).toBe(true)
    }))

  const failing: Readonly<Record<string, StorageChaos.Rule>> = {
    "saving a shard": { operation: "save", key: (key) => key.endsWith("shard3.bin") },
    "reading the old model": { operation: "open", key: "m/model.json" }
  }

  for (const [what, rule] of Object.entries(failing)) {
    it.effect(`keeps the old model and leaves nothing else if ${what} fails`, () =>
      Effect.gen(function*() {
        const memory = yield* MemoryStorage.make()
        yield* saveTo(memory, graph())
        const before = yield* memory.list()
        const { save } = yield* handlerOn(yield* StorageChaos.make(memory, [rule]), "m", { shardSize: 50 })
        expect(yield* storageFailureOf(() => save(graph(100)))).toMatchObject({ _tag: "StorageUnavailable" })
        expect(yield* memory.list()).toEqual(before)
        expect(yield* loadFrom(memory)).toEqual(graph())
      }))
  }

  it.effect("keeps the old model if saving model.json fails, and the new one if only its response is lost", () =>
    Effect.gen(function*() {
      for (const when of ["before", "after"] as const) {
        const memory = yield* MemoryStorage.make()
        yield* saveTo(memory, graph())
        const { save } = yield* handlerOn(
          yield* StorageChaos.make(memory, [{ operation: "save", key: "m/model.json", when }])
        )
        expect(yield* storageFailureOf(() => save(graph(100)))).toMatchObject({ _tag: "StorageUnavailable" })
        expect(yield* loadFrom(memory)).toEqual(graph(when === "before" ? 10 : 100))
      }
    }))

  it.effect("reports the shards of the old model that it could not remove, and succeeds", () =>
    Effect.gen(function*() {
      for (const key of [undefined, () => true]) {
        const memory = yield* MemoryStorage.make()
        yield* saveTo(memory, graph())
        const chaos = yield* StorageChaos.make(memory, [{ operation: "removeAll", ...(key !== undefined && { key }) }])
        const { errors } = yield* saveTo(chaos, graph(20))
        expect(errors).toMatchObject([{ _tag: "StorageUnavailable", operation: "removeAll" }])
        expect(yield* loadFrom(memory)).toEqual(graph(20))
      }
    }))

  it.effect("replaces an invalid model, and removes nothing outside of the folder that it names", () =>
    Effect.gen(function*() {
      const memory = yield* MemoryStorage.make()
      yield* memory.save("secret", pattern(3))
      yield* memory.save("m/model.json", json({ weightsManifest: [{ paths: ["../secret"], weights: [] }] }))
      yield* saveTo(memory, graph())
      expect(yield* loadFrom(memory)).toEqual(graph())
      expect(yield* memory.exists("secret")).toBe(true)
    }))

  it.effect("rejects weights of another size than the specs, and leaves nothing", () =>
    Effect.gen(function*() {
      const storage = yield* MemoryStorage.make()
      const { save } = yield* handlerOn(storage, "m", { shardSize: 16 })
      for (const length of [39, 41, 0]) {
        expect(yield* storageFailureOf(() => save({ ...graph(), weightData: bufferOf(length) }))).toMatchObject({
          _tag: "CorruptObject",
          problem: "size",
          operation: "save"
        })
      }
      expect(yield* storage.list()).toEqual([])
    }))

  it.effect("rejects a binary topology and an invalid shard size", () =>
    Effect.gen(function*() {
      const storage = yield* MemoryStorage.make()
      const { save } = yield* handlerOn(storage)
      expect(yield* storageFailureOf(() => save({ modelTopology: new ArrayBuffer(8) })))
        .toMatchObject({ _tag: "UnsupportedOperation", operation: "save" })
      for (const shardSize of [0, -1, 1.5, NaN, Infinity]) {
        const { save } = yield* handlerOn(storage, "m", { shardSize })
        const error = yield* storageFailureOf(() => save(graph()))
        expect(error._tag).toBe("UnsupportedOperation")
        expect(error.message).toContain(
          `shardSize must be a whole number of bytes of at least 1 (got ${shardSize} bytes)`
        )
      }
      expect(yield* storage.list()).toEqual([])
    }))

  it.effect("leaves one complete model after concurrent saves", () =>
    Effect.gen(function*() {
      const storage = yield* MemoryStorage.make()
      yield* Effect.all([10, 20, 30].map((values) => saveTo(storage, graph(values), { shardSize: 16 })), {
        concurrency: "unbounded"
      })
      const { weightData } = yield* loadFrom(storage)
      expect([40, 80, 120]).toContain((weightData as ArrayBuffer).byteLength)
    }))
})
