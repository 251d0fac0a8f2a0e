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
import { recognize, sentence } from "../internal/fileKind.js"
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
    const bytes = yield* collect(stream)
    const json = yield* decode(new TextDecoder().decode(bytes)).pipe(
      Effect.mapError((error) => {
        const other = recognize(bytes)
        const reason = other === undefined || other.kind === "json"
          ? firstIssue(error)
          : `not a TensorFlow.js model: ${sentence(other, "JSON")}`
        return malformed(location, reason, error)
      })
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

/**
 * Whether the weights can be a stream. Only `loadGraphModel` reads one, so the model must be a graph, or weights alone,
 * of which TensorFlow.js makes no model.
 */
export const isStreamable = ({ modelTopology }: ModelArtifacts): boolean =>
  modelTopology === undefined || ("node" in modelTopology && Array.isArray(modelTopology.node))

/** The key of a shard. Its path is relative to the model; downloads of TensorFlow.js start it with `./`. */
const shardKey = (location: Location, path: string): Effect.Effect<string, CorruptObject> => {
  const name = path.replace(/^\.\//, "")
  if (isUrl(path)) {
    // Its query may be a signature.
    const shown = quoted(
      /^(?:data|blob):/i.test(path) ? path.slice(0, 20) : path.replace(/[?#].*$/, "").replace(/\/\/[^/]*@/, "//")
    )
    return malformed(
      location,
      `invalid path of a shard ${shown}: it is a URL; download the shard to the folder of the model, and name it by its ` +
        "path there"
    )
  }
  const reason = ObjectKey.problem(name)
  return reason === undefined
    ? Effect.succeed(location.prefix + name)
    : malformed(location, `invalid path of a shard ${quoted(path)}: ${reason}`)
}

const isUrl = (path: string): boolean => /^(?:[a-z][a-z\d+.-]*:\/\/|\/\/|data:|blob:)/i.test(path)

// The content is for TensorFlow.js; only that it is an object is checked.
const opaque = <A extends object>() => Schema.declare((u): u is A => Predicate.isRecord(u))

// Some writers use null for what a model does not have.
const optional = <A, I>(schema: Schema.Schema<A, I>) => Schema.optionalWith(schema, { exact: true, nullable: true })

const shown = (value: unknown): string => truncated(JSON.stringify(value) ?? "undefined", 40)

const unknownDtype = (dtype: unknown): string =>
  `TensorFlow.js has no weights of dtype ${shown(dtype)}` + (
    dtype === "float16" || dtype === "bfloat16"
      ? "; 16-bit floats are of dtype \"float32\" with quantization { dtype: \"float16\" }, as the converter writes them " +
        "with --quantize_float16"
      : " (known: float32, int32, bool, string, complex64)"
  )

const Spec = Schema.mutable(Schema.Struct({
  name: Schema.String,
  shape: Schema.mutable(Schema.Array(Schema.NonNegativeInt)),
  dtype: Schema.Literal("float32", "int32", "bool", "string", "complex64").annotations({
    message: ({ actual }) => ({ message: unknownDtype(actual), override: true })
  }),
  group: optional(Schema.Literal("model", "optimizer")),
  quantization: optional(Schema.mutable(Schema.Struct({
    dtype: Schema.Literal("uint8", "uint16", "float16").annotations({
      message: ({ actual }) => ({
        message: `TensorFlow.js has no quantization to ${shown(actual)} (known: uint8, uint16, float16)`,
        override: true
      })
    }),
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
  const path = issue?.path.join(": ") ?? ""
  return path === ""
    ? `not a TensorFlow.js model: ${truncated(issue?.message ?? error.message, 200)}`
    : `invalid model file: ${truncated(`${path}: ${issue?.message ?? ""}`, 300)}`
}

const decodeSpecs = Schema.decodeUnknownEither(Schema.Array(Spec))

/** Checks specs that are to be saved, since a model with invalid ones could not be loaded again. */
export const checkSpecs = (
  location: Location,
  specs: ReadonlyArray<WeightSpec>
): Either.Either<void, CorruptObject> =>
  Either.mapBoth(decodeSpecs(specs), {
    onLeft: (error) => corrupt(location, "save", "frame", `weightSpecs: ${firstIssue(error)}`),
    onRight: () => {}
  })

export const malformed = (location: Location, reason: string, cause?: unknown): CorruptObject =>
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

/** Checks the number of bytes, as far as it is known before the bytes are. The error says what was `found`. */
export const checkSize = (
  location: Location,
  operation: string,
  specs: ReadonlyArray<WeightSpec>,
  size: number,
  found?: string
): Either.Either<void, CorruptObject> => {
  const needed = specs.reduce((sum, spec) => sum + sizeOf(spec), 0)
  const fits = specs.some(isString) ? size >= needed : size === needed
  return fits ? Either.void : Either.left(wrongSize(location, operation, needed, size, found))
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

const wrongSize = (
  location: Location,
  operation: string,
  needed: number,
  size: number,
  found?: string
): CorruptObject => {
  const reason = `the weights take ${needed} bytes, but there are ${size}`
  return corrupt(location, operation, "size", found === undefined ? reason : `${reason}; ${found}`)
}

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
