/**
 * Models of TensorFlow.js in a storage: an `IOHandler` for `loadGraphModel`, `loadLayersModel` and `model.save`. It is
 * typed by that interface alone, as `tfjs-core/src/io/types.ts` has it, and TensorFlow.js is not needed here.
 *
 * A model is a `model.json` below a prefix and the weights that it names, in shards beside it: what the converter, the
 * file handlers of TensorFlow.js and a download leave is a model as it is.
 *
 * @module TensorFlowIO
 * @since 0.1.0
 */
import type * as FileSystem from "@effect/platform/FileSystem"
import * as Arr from "effect/Array"
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as ParseResult from "effect/ParseResult"
import * as Predicate from "effect/Predicate"
import * as Schema from "effect/Schema"
import * as Stream from "effect/Stream"
import * as Struct from "effect/Struct"
import { collect, concat, fill } from "../internal/bytes.js"
import * as ObjectKey from "../ObjectKey.js"
import * as Storage from "../Storage.js"
import * as E from "../StorageError.js"
import { promised, readable } from "./internal/promises.js"

/**
 * A weight: its name, shape and type, in the order in which the bytes are.
 *
 * @since 0.1.0
 * @category models
 */
export interface WeightSpec {
  name: string
  shape: Array<number>
  dtype: "float32" | "int32" | "bool" | "string" | "complex64"
  /** `optimizer` for what only training needs. */
  group?: "model" | "optimizer"
  /** How the values were made smaller. The bytes are of this `dtype`, then. */
  quantization?: { dtype: "uint8" | "uint16" | "float16"; scale?: number; min?: number }
}

/**
 * How a model was trained.
 *
 * @since 0.1.0
 * @category models
 */
export interface TrainingConfig {
  optimizer_config: object
  loss: string | Array<string> | { [key: string]: string }
  metrics?: Array<string> | { [key: string]: string }
  weighted_metrics?: Array<string>
  sample_weight_mode?: string
  loss_weights?: Array<number> | { [key: string]: number }
}

/**
 * A model, be it a graph or of layers.
 *
 * @since 0.1.0
 * @category models
 */
export interface ModelArtifacts {
  modelTopology?: object | ArrayBuffer
  trainingConfig?: TrainingConfig
  weightSpecs?: Array<WeightSpec>
  /** The bytes of all weights, in the order of `weightSpecs`, in one buffer or cut anywhere. */
  weightData?: ArrayBuffer | Array<ArrayBuffer>
  /** The same bytes as a stream. Graph models of newer versions of TensorFlow.js can be loaded from it. */
  getWeightStream?: () => ReadableStream<ArrayBuffer>
  format?: string
  generatedBy?: string
  convertedBy?: string | null
  signature?: object
  userDefinedMetadata?: { [key: string]: object }
  modelInitializer?: object
  initializerSignature?: object
}

/**
 * What a save has done. Sizes are in bytes.
 *
 * @since 0.1.0
 * @category models
 */
export interface SaveResult {
  modelArtifactsInfo: {
    dateSaved: Date
    modelTopologyType: "JSON"
    modelTopologyBytes: number
    weightSpecsBytes: number
    weightDataBytes: number
  }
  /** Why shards of the model that was replaced could not be removed. The new model is whole. */
  errors?: Array<E.StorageError>
}

/**
 * What TensorFlow.js takes in place of a URL. Rejections are the failures of `Storage`.
 *
 * @since 0.1.0
 * @category models
 */
export interface IOHandler {
  /**
   * The model with its weights, all or nothing. A `model.json` that is none, that names a shard outside of the prefix, or
   * whose shards are not as long as its weights need is `CorruptObject`, before any weight is moved. One that is replaced
   * meanwhile is read anew.
   */
  load: () => Promise<ModelArtifacts>

  /**
   * Saves a model, and replaces the one that is there. The shards get new names and `model.json` comes last, so that a
   * reader finds the old model or the new one, whole; then the shards of the old one are removed. If a shard cannot be
   * saved, or `weightSpecs` need another number of bytes than there are (`CorruptObject`), nothing is left behind. If
   * `model.json` cannot, it may yet have been, so the new shards stay.
   */
  save: (artifacts: ModelArtifacts) => Promise<SaveResult>
}

/**
 * How weights are saved and loaded.
 *
 * @since 0.1.0
 * @category models
 */
export interface Options {
  /** The size of a shard that is saved, in bytes; four are in memory at once. Default: 4 MiB, as in TensorFlow.js. */
  readonly shardSize?: FileSystem.SizeInput
  /**
   * Load gives `getWeightStream` in place of `weightData`, for models that do not fit in one `ArrayBuffer`. The shards are
   * then read one after the other, and those of a model that is replaced meanwhile fail. Default: false.
   */
  readonly streamWeights?: boolean
}

/**
 * A handler for the model below a prefix (a slash at its end makes no difference). Its promises run with the storage and
 * everything else that is provided here.
 *
 * @since 0.1.0
 * @category constructors
 * @example
 * ```ts
 * import { Effect } from "effect"
 * import { FileSystemStorage, TensorFlowIO } from "surfing-weights"
 *
 * // Of TensorFlow.js: import { loadGraphModel } from "@tensorflow/tfjs"
 * declare const loadGraphModel: (handler: TensorFlowIO.IOHandler) => Promise<unknown>
 *
 * const model = Effect.gen(function*() {
 *   const handler = yield* TensorFlowIO.handler("models/sentence-encoder")
 *   return yield* Effect.tryPromise(() => loadGraphModel(handler))
 * }).pipe(
 *   Effect.provide(FileSystemStorage.layer({ directory: "/var/lib/weights" }))
 * )
 * ```
 */
export const handler = (prefix: string, options: Options = {}): Effect.Effect<IOHandler, never, Storage.Storage> =>
  Effect.gen(function*() {
    const runtime = yield* Effect.runtime<Storage.Storage>()
    const storage = yield* Storage.Storage
    const run = promised(runtime)
    const place = placeOf(storage, prefix)
    const shardSize = Number(options.shardSize ?? 4 * 1024 * 1024)

    const loadStream = Effect.gen(function*() {
      const model = yield* readModel(place)
      const shards = (yield* measure(place, model)).flatMap(({ infos }) => infos)
      const weights = Stream.flatMap(
        Stream.fromIterable(shards),
        ({ etag, key }) => storage.stream(key, { ifMatch: etag })
      )
      const artifacts = artifactsOf(model)
      if (artifacts.weightSpecs === undefined) return artifacts
      return { ...artifacts, getWeightStream: () => readable(Stream.map(weights, bufferOf), runtime) }
    })

    return {
      load: () => run(options.streamWeights === true ? loadStream : loadWhole(place)),
      save: (artifacts) => run(save(place, artifacts, shardSize))
    }
  })

/** Where a model is. */
interface Place {
  readonly storage: Storage.Service
  readonly folder: string
  readonly key: string
}

const placeOf = (storage: Storage.Service, prefix: string): Place => {
  const folder = prefix === "" || prefix.endsWith("/") ? prefix : `${prefix}/`
  return { storage, folder, key: `${folder}model.json` }
}

/** What `model.json` says of a group of weights, whose bytes are those of its shards one after the other. */
interface Group {
  readonly shards: ReadonlyArray<string>
  readonly specs: ReadonlyArray<WeightSpec>
}

interface Model {
  readonly etag: string
  readonly json: typeof ModelJson.Type
  readonly groups: ReadonlyArray<Group>
}

// What TensorFlow.js alone understands; that it is an object is looked at.
const opaque = <A extends object>() => Schema.declare((u): u is A => Predicate.isRecord(u))

// Some writers say null for what they do not have.
const optional = <A, I>(schema: Schema.Schema<A, I>) => Schema.optionalWith(schema, { exact: true, nullable: true })

const Spec = Schema.mutable(Schema.Struct({
  name: Schema.String,
  shape: Schema.mutable(Schema.Array(Schema.NonNegativeInt)),
  dtype: Schema.Literal("float32", "int32", "bool", "string", "complex64"),
  group: optional(Schema.Literal("model", "optimizer")),
  quantization: optional(Schema.mutable(Schema.Struct({
    dtype: Schema.Literal("uint8", "uint16", "float16"),
    scale: optional(Schema.Number),
    min: optional(Schema.Number)
  })))
}))

const ModelJson = Schema.Struct({
  modelTopology: optional(opaque<object>()),
  weightsManifest: optional(Schema.Array(Schema.Struct({
    paths: Schema.Array(Schema.String),
    weights: Schema.Array(Spec)
  }))),
  trainingConfig: optional(opaque<TrainingConfig>()),
  format: optional(Schema.String),
  generatedBy: optional(Schema.String),
  convertedBy: Schema.optionalWith(Schema.NullOr(Schema.String), { exact: true }),
  signature: optional(opaque<object>()),
  userDefinedMetadata: optional(opaque<{ [key: string]: object }>()),
  modelInitializer: optional(opaque<object>()),
  initializerSignature: optional(opaque<object>())
})

const decode = Schema.decode(Schema.parseJson(ModelJson), { onExcessProperty: "preserve" })

const corrupt = (
  { key, storage }: Place,
  operation: string,
  problem: E.CorruptObject["problem"],
  reason: string,
  cause?: unknown
): E.CorruptObject =>
  new E.CorruptObject({
    backend: storage.backend.name,
    operation,
    key,
    problem,
    reason,
    ...(cause !== undefined && { cause })
  })

const readModel = (place: Place): Effect.Effect<Model, E.LoadError> =>
  Effect.scoped(Effect.gen(function*() {
    const { info, stream } = yield* place.storage.open(place.key)
    const json = yield* decode(new TextDecoder().decode(yield* collect(stream))).pipe(
      Effect.mapError((error) => corrupt(place, "load", "frame", `no model of TensorFlow.js: ${first(error)}`, error))
    )
    if (json.modelTopology === undefined && json.weightsManifest === undefined) {
      return yield* corrupt(place, "load", "frame", "it has neither a topology nor weights")
    }
    const groups = yield* Effect.forEach(json.weightsManifest ?? [], ({ paths, weights }) =>
      Effect.map(
        Effect.forEach(paths, (path) => {
          // As the downloads of TensorFlow.js write it.
          const name = path.replace(/^\.\//, "")
          const reason = ObjectKey.problem(name)
          return reason === undefined
            ? Effect.succeed(place.folder + name)
            : corrupt(place, "load", "frame", `it names a shard ${JSON.stringify(shortened(path))}: ${reason}`)
        }),
        (shards) => ({ shards, specs: weights })
      ))
    return { etag: info.etag, json, groups }
  }))

const first = (error: ParseResult.ParseError): string => {
  const [issue] = ParseResult.ArrayFormatter.formatErrorSync(error)
  return issue === undefined ? error.message : shortened([...issue.path, issue.message].join(": "))
}

const shortened = (text: string): string => text.length > 200 ? `${text.slice(0, 200)}…` : text

const artifactsOf = ({ groups, json: { weightsManifest, ...rest } }: Model): ModelArtifacts => ({
  ...rest,
  ...(weightsManifest !== undefined && { weightSpecs: groups.flatMap(({ specs }) => specs) })
})

/** A group, and what is known of its shards. */
interface MeasuredGroup {
  readonly specs: ReadonlyArray<WeightSpec>
  readonly infos: ReadonlyArray<Storage.ObjectInfo>
  readonly size: number
}

/** Asks for the size of each shard; all groups are as long as their weights need, as far as that can be told. */
const measure = (place: Place, { groups }: Model): Effect.Effect<ReadonlyArray<MeasuredGroup>, E.LoadError> =>
  Effect.forEach(groups, ({ shards, specs }) =>
    Effect.gen(function*() {
      const infos = yield* Effect.forEach(shards, place.storage.head, { concurrency })
      const size = sum(infos, (info) => info.size)
      const needed = sum(specs, sizeOf)
      if (specs.some(isText) ? size < needed : size !== needed) return yield* wrongSize(place, "load", size, needed)
      return { specs, infos, size }
    }))

const concurrency = 8

const wrongSize = (place: Place, operation: string, size: number, needed: number): E.CorruptObject =>
  corrupt(place, operation, "size", `its weights need ${needed} bytes, and there are ${size}`)

const loadWhole = (place: Place): Effect.Effect<ModelArtifacts, E.LoadError> =>
  Effect.flatMap(readModel(place), (model) => {
    const artifacts = artifactsOf(model)
    if (artifacts.weightSpecs === undefined) return Effect.succeed(artifacts)
    const overtaken = (error: E.ObjectNotFound | E.PreconditionFailed) =>
      Effect.flatMap(
        place.storage.head(place.key),
        ({ etag }) => etag === model.etag ? Effect.fail(error) : loadWhole(place)
      )
    return loadWeights(place, model).pipe(
      Effect.map((weightData): ModelArtifacts => ({ ...artifacts, weightData })),
      Effect.catchTags({ ObjectNotFound: overtaken, PreconditionFailed: overtaken })
    )
  })

/** All weights in one buffer, each shard straight to its place. */
const loadWeights = (place: Place, model: Model): Effect.Effect<ArrayBuffer, E.LoadError> =>
  Effect.gen(function*() {
    const groups = yield* measure(place, model)
    const size = sum(groups, (group) => group.size)
    const buffer = yield* Effect.try({
      try: () => new ArrayBuffer(size),
      catch: () => refused(place, "load", `${size} bytes do not fit in one ArrayBuffer here; load with streamWeights`)
    })
    let at = 0
    const targets = groups.flatMap(({ infos }) => infos).map((info) => {
      const target = new Uint8Array(buffer, at, info.size)
      at += info.size
      return { info, target }
    })
    yield* Effect.forEach(
      targets,
      ({ info: { etag, key }, target }) => fill(target, place.storage.stream(key, { ifMatch: etag })),
      { concurrency, discard: true }
    )
    at = 0
    for (const { size, specs } of groups) {
      const bytes = new DataView(buffer, at, size)
      const needed = specs.reduce(
        (offset, spec) => offset + (isText(spec) ? textsAt(bytes, offset, spec) : sizeOf(spec)),
        0
      )
      if (needed !== size) return yield* wrongSize(place, "load", size, needed)
      at += size
    }
    return buffer
  })

const refused = ({ key, storage }: Place, operation: string, reason: string): E.UnsupportedOperation =>
  new E.UnsupportedOperation({ backend: storage.backend.name, operation, key, reason })

const sum = <A>(items: ReadonlyArray<A>, sizeOf: (item: A) => number): number =>
  items.reduce((total, item) => total + sizeOf(item), 0)

const valueSizes = { float32: 4, float16: 2, int32: 4, uint16: 2, uint8: 1, bool: 1, complex64: 8, string: 4 }

/** How many bytes a weight takes; of texts, which say it themselves, at the least. */
const sizeOf = (spec: WeightSpec): number => countOf(spec) * valueSizes[spec.quantization?.dtype ?? spec.dtype]

const countOf = ({ shape }: WeightSpec): number => shape.reduce((count, length) => count * length, 1)

const isText = ({ dtype, quantization }: WeightSpec): boolean => quantization === undefined && dtype === "string"

/** How many bytes a weight of texts takes: before each of them stands its length, in four bytes. */
const textsAt = (bytes: DataView, start: number, spec: WeightSpec): number => {
  let at = start
  for (let left = countOf(spec); left > 0; left--) {
    at += 4 + (at + 4 <= bytes.byteLength ? bytes.getUint32(at, true) : 0)
  }
  return at - start
}

const save = (place: Place, artifacts: ModelArtifacts, shardSize: number): Effect.Effect<SaveResult, unknown> =>
  Effect.gen(function*() {
    const { folder, key, storage } = place
    const { modelTopology, weightSpecs = [] } = artifacts
    if (modelTopology instanceof ArrayBuffer) return yield* refused(place, "save", "its topology is not JSON")
    if (!Number.isSafeInteger(shardSize) || shardSize < 1) {
      return yield* refused(place, "save", `shardSize is a whole number of bytes from 1 up, not ${shardSize}`)
    }

    // Names that no other save has, so that whoever reads the old model meanwhile, or saves another, is not disturbed.
    const id = crypto.randomUUID().slice(0, 13)
    const paths: Array<string> = []
    let size = 0
    const shards = Stream.mapEffect(cut(weightsOf(artifacts), shardSize), (shard) => {
      const path = `weights-${id}-shard${paths.length + 1}.bin`
      paths.push(path)
      size += shard.byteLength
      return storage.save(folder + path, shard)
    }, { concurrency: 4, unordered: true })
    const replaced = yield* Effect.gen(function*() {
      yield* Stream.runDrain(shards)
      const needed = sum(weightSpecs, sizeOf)
      if (weightSpecs.some(isText) ? size < needed : size !== needed) {
        return yield* wrongSize(place, "save", size, needed)
      }
      return yield* shardsThere(place)
    }).pipe(
      Effect.onError(() => Effect.ignore(storage.removeAll(paths.map((path) => folder + path))))
    )

    const isWithWeights = artifacts.weightSpecs !== undefined || paths.length > 0
    const json = JSON.stringify({
      ...Struct.pick(artifacts, ...fields),
      ...(isWithWeights && { weightsManifest: [{ paths, weights: weightSpecs }] })
    })
    yield* storage.save(key, new TextEncoder().encode(json))
    const errors = yield* storage.removeAll(replaced).pipe(
      Effect.match({ onFailure: (error) => [error], onSuccess: ({ failed }) => [...failed] })
    )
    return {
      modelArtifactsInfo: {
        dateSaved: new Date(yield* Clock.currentTimeMillis),
        modelTopologyType: "JSON",
        modelTopologyBytes: jsonSize(modelTopology),
        weightSpecsBytes: jsonSize(artifacts.weightSpecs),
        weightDataBytes: size
      },
      ...(errors.length > 0 && { errors })
    }
  })

const fields = [
  "modelTopology",
  "format",
  "generatedBy",
  "convertedBy",
  "signature",
  "userDefinedMetadata",
  "modelInitializer",
  "initializerSignature",
  "trainingConfig"
] as const

const jsonSize = (value: object | undefined): number =>
  value === undefined ? 0 : ObjectKey.byteLength(JSON.stringify(value))

/** The shards of the model that is there, if there is one that can be read. */
const shardsThere = (place: Place): Effect.Effect<ReadonlyArray<string>, E.LoadError> =>
  Effect.map(readModel(place), ({ groups }) => groups.flatMap(({ shards }) => shards)).pipe(
    Effect.catchTags({
      ObjectNotFound: () => Effect.succeed([]),
      CorruptObject: () => Effect.succeed([]),
      AccessDenied: () => Effect.succeed([])
    })
  )

const weightsOf = ({ getWeightStream, weightData }: ModelArtifacts): Stream.Stream<Uint8Array, unknown> => {
  if (weightData !== undefined) {
    return Stream.map(Stream.fromIterable(Arr.ensure(weightData)), (buffer) => new Uint8Array(buffer))
  }
  return getWeightStream === undefined ? Stream.empty : Stream.map(
    Stream.fromReadableStream({ evaluate: getWeightStream, onError: (cause) => cause }),
    (buffer) => new Uint8Array(buffer)
  )
}

/** The same bytes in arrays of `size`, and what is left in the last one. */
const cut = <Err>(bytes: Stream.Stream<Uint8Array, Err>, size: number): Stream.Stream<Uint8Array, Err> =>
  Stream.suspend(() => {
    let held: Array<Uint8Array> = []
    let length = 0
    const take = () => {
      const [only, ...others] = held
      const whole = only !== undefined && others.length === 0 ? only : concat(held)
      held = []
      length = 0
      return whole
    }
    return bytes.pipe(
      Stream.flatMap((piece) =>
        Stream.fromIterable((function*() {
          for (let at = 0; at < piece.byteLength;) {
            const part = piece.subarray(at, at + size - length)
            held.push(part)
            length += part.byteLength
            at += part.byteLength
            if (length === size) yield take()
          }
        })())
      ),
      Stream.concat(Stream.suspend(() => length > 0 ? Stream.make(take()) : Stream.empty))
    )
  })

/** The buffer of some bytes, alone. */
const bufferOf = (bytes: Uint8Array): ArrayBuffer => {
  const { buffer } = bytes
  return buffer instanceof ArrayBuffer && buffer.byteLength === bytes.byteLength ? buffer : new Uint8Array(bytes).buffer
}
