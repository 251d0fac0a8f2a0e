/**
 * `model.json`: the topology of a model, the names of the shards with its weights, and how many bytes these take.
 */
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as ParseResult from "effect/ParseResult"
import * as Predicate from "effect/Predicate"
import * as Schema from "effect/Schema"
import { collect } from "../../internal/bytes.js"
import * as ObjectKey from "../../ObjectKey.js"
import type * as Storage from "../../Storage.js"
import { CorruptObject, type LoadError } from "../../StorageError.js"
import { quoted, truncated } from "../internal/text.js"
import type { ModelArtifacts, TrainingConfig, WeightSpec } from "./artifacts.js"

/** Where a model is. */
export interface Location {
  readonly storage: Storage.Service
  /** What its keys start with. */
  readonly prefix: string
  /** The key of `model.json`. */
  readonly key: string
}

export interface ModelFile {
  readonly etag: string
  /** Groups of weights, with the keys of the shards that have their bytes one after another. */
  readonly groups: ReadonlyArray<{ readonly shards: ReadonlyArray<string>; readonly specs: ReadonlyArray<WeightSpec> }>
  /** All but the bytes of the weights. `weightSpecs` is missing if the model has no manifest of weights. */
  readonly artifacts: ModelArtifacts
}

/** Reads and checks the `model.json` of a model. */
export const read = (location: Location): Effect.Effect<ModelFile, LoadError> =>
  Effect.scoped(Effect.gen(function*() {
    const { info, stream } = yield* location.storage.open(location.key)
    const json = yield* decode(new TextDecoder().decode(yield* collect(stream))).pipe(
      Effect.mapError((error) => malformed(location, `not a TensorFlow.js model: ${firstIssue(error)}`, error))
    )
    const { weightsManifest, ...rest } = json
    if (rest.modelTopology === undefined && weightsManifest === undefined) {
      return yield* malformed(location, "the model has neither a topology nor weights")
    }
    const groups = yield* Effect.forEach(weightsManifest ?? [], ({ paths, weights }) =>
      Effect.map(
        Effect.forEach(paths, (path) => shardKey(location, path)),
        (shards) => ({ shards, specs: weights })
      ))
    return {
      etag: info.etag,
      groups,
      artifacts: {
        ...rest,
        ...(weightsManifest !== undefined && { weightSpecs: groups.flatMap(({ specs }) => specs) })
      }
    }
  }))

/** The key of a shard. Its path is relative to the model; downloads of TensorFlow.js start it with `./`. */
const shardKey = (location: Location, path: string): Effect.Effect<string, CorruptObject> => {
  const name = path.replace(/^\.\//, "")
  const reason = ObjectKey.problem(name)
  return reason === undefined
    ? Effect.succeed(location.prefix + name)
    : malformed(location, `invalid path of a shard ${quoted(path)}: ${reason}`)
}

// The content is for TensorFlow.js; only that it is an object is checked.
const opaque = <A extends object>() => Schema.declare((u): u is A => Predicate.isRecord(u))

// Some writers use null for what a model does not have.
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

const firstIssue = (error: ParseResult.ParseError): string => {
  const [issue] = ParseResult.ArrayFormatter.formatErrorSync(error)
  return issue === undefined ? error.message : truncated([...issue.path, issue.message].join(": "), 200)
}

const malformed = (location: Location, reason: string, cause?: unknown): CorruptObject =>
  corrupt(location, "load", "frame", reason, cause)

const valueSizes = { float32: 4, float16: 2, int32: 4, uint16: 2, uint8: 1, bool: 1, complex64: 8, string: 4 }

/** The bytes of a weight. Of strings it is the minimum, since each has its own length. */
const sizeOf = (spec: WeightSpec): number => countOf(spec) * valueSizes[spec.quantization?.dtype ?? spec.dtype]

const countOf = ({ shape }: WeightSpec): number => shape.reduce((count, length) => count * length, 1)

const isString = ({ dtype, quantization }: WeightSpec): boolean => quantization === undefined && dtype === "string"

/** The bytes of a weight of strings. Four bytes with its length precede each string. */
const sizeOfStrings = (bytes: DataView, start: number, spec: WeightSpec): number => {
  let at = start
  for (let remaining = countOf(spec); remaining > 0; remaining--) {
    at += 4 + (at + 4 <= bytes.byteLength ? bytes.getUint32(at, true) : 0)
  }
  return at - start
}

/** Checks the number of bytes, as far as it is known before the bytes are. */
export const checkSize = (
  location: Location,
  operation: string,
  specs: ReadonlyArray<WeightSpec>,
  size: number
): Either.Either<void, CorruptObject> => {
  const needed = specs.reduce((sum, spec) => sum + sizeOf(spec), 0)
  const fits = specs.some(isString) ? size >= needed : size === needed
  return fits ? Either.void : Either.left(wrongSize(location, operation, needed, size))
}

/** Checks the number of bytes by the bytes themselves. */
export const checkContent = (
  location: Location,
  specs: ReadonlyArray<WeightSpec>,
  bytes: DataView
): Either.Either<void, CorruptObject> => {
  const needed = specs.reduce(
    (offset, spec) => offset + (isString(spec) ? sizeOfStrings(bytes, offset, spec) : sizeOf(spec)),
    0
  )
  return needed === bytes.byteLength ? Either.void : Either.left(wrongSize(location, "load", needed, bytes.byteLength))
}

const wrongSize = (location: Location, operation: string, needed: number, size: number): CorruptObject =>
  corrupt(location, operation, "size", `the weights take ${needed} bytes, but there are ${size}`)

const corrupt = (
  { key, storage }: Location,
  operation: string,
  problem: CorruptObject["problem"],
  reason: string,
  cause?: unknown
): CorruptObject => {
  const backend = storage.backend.name
  return new CorruptObject({ backend, operation, key, problem, reason, ...(cause !== undefined && { cause }) })
}
