/**
 * Saves models.
 */
import * as Arr from "effect/Array"
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Stream from "effect/Stream"
import * as Struct from "effect/Struct"
import { concat } from "../../internal/bytes.js"
import * as ObjectKey from "../../ObjectKey.js"
import { isStorageError, type LoadError, UnexpectedStorageError, UnsupportedOperation } from "../../StorageError.js"
import type { ModelArtifacts, SaveResult } from "./artifacts.js"
import * as ModelFile from "./modelFile.js"

/** Saves the shards, then `model.json`, then removes the shards of the model that was replaced. */
export const save = (
  location: ModelFile.Location,
  artifacts: ModelArtifacts,
  shardSize: number
): Effect.Effect<SaveResult, unknown> =>
  Effect.gen(function*() {
    const { key, storage } = location
    if (artifacts.modelTopology instanceof ArrayBuffer) {
      const reason = "a binary topology is not supported; pass it as JSON"
      return yield* new UnsupportedOperation({ backend: storage.backend.name, operation: "save", key, reason })
    }
    yield* ModelFile.checkSpecs(location, artifacts.weightSpecs ?? [])
    const { paths, replaced, size } = yield* saveShards(location, artifacts, shardSize)
    yield* storage.save(key, encodeModel(artifacts, paths))
    const errors = yield* storage.removeAll(replaced).pipe(
      Effect.match({ onFailure: (error) => [error], onSuccess: ({ failed }) => [...failed] })
    )
    return {
      modelArtifactsInfo: {
        dateSaved: new Date(yield* Clock.currentTimeMillis),
        modelTopologyType: "JSON",
        modelTopologyBytes: jsonSize(artifacts.modelTopology),
        weightSpecsBytes: jsonSize(artifacts.weightSpecs),
        weightDataBytes: size
      },
      ...(errors.length > 0 && { errors })
    }
  })

/**
 * Saves the weights as shards of `shardSize` bytes: their paths, their size in all, and the keys of the shards that they
 * replace. If that fails, nothing is left behind.
 */
const saveShards = (location: ModelFile.Location, artifacts: ModelArtifacts, shardSize: number) =>
  Effect.suspend(() => {
    const { prefix, storage } = location
    // Unique names, so that readers of the old model and other saves are not disturbed.
    const id = crypto.randomUUID().slice(0, 13)
    const paths: Array<string> = []
    let size = 0
    return rechunk(weightsOf(artifacts), shardSize).pipe(
      Stream.mapEffect((shard) => {
        const path = `weights-${id}-shard${paths.length + 1}.bin`
        paths.push(path)
        size += shard.byteLength
        return storage.save(prefix + path, shard)
      }, { concurrency: 4, unordered: true }),
      Stream.runDrain,
      Effect.zipRight(Effect.suspend(() => ModelFile.checkSize(location, "save", artifacts.weightSpecs ?? [], size))),
      Effect.zipRight(existingShards(location)),
      Effect.map((replaced) => ({ paths, size, replaced })),
      Effect.onError(() => Effect.ignore(storage.removeAll(paths.map((path) => prefix + path))))
    )
  })

/** The shards of the model that exists. One that cannot be read is replaced, and its shards stay. */
const existingShards = (location: ModelFile.Location): Effect.Effect<ReadonlyArray<string>, LoadError> =>
  Effect.map(ModelFile.read(location), ({ groups }) => groups.flatMap(({ shards }) => shards)).pipe(
    Effect.catchTags({
      ObjectNotFound: () => Effect.succeed([]),
      CorruptObject: () => Effect.succeed([]),
      AccessDenied: () => Effect.succeed([])
    })
  )

const encodeModel = (artifacts: ModelArtifacts, paths: ReadonlyArray<string>): Uint8Array => {
  const { weightSpecs } = artifacts
  const hasWeights = weightSpecs !== undefined || paths.length > 0
  return new TextEncoder().encode(JSON.stringify({
    ...Struct.pick(artifacts, ...jsonFields),
    ...(hasWeights && { weightsManifest: [{ paths, weights: weightSpecs ?? [] }] })
  }))
}

const jsonFields = [
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

const weightsOf = (artifacts: ModelArtifacts): Stream.Stream<Uint8Array, unknown> => {
  const { getWeightStream } = artifacts
  return Stream.map(
    getWeightStream === undefined
      // Reading it fails if the artifacts were loaded from a model without weights.
      ? Stream.fromIterableEffect(Effect.try({
        try: () => Arr.ensure(artifacts.weightData ?? []),
        catch: (error) => isStorageError(error) ? error : unreadable(error)
      }))
      : Stream.fromReadableStream({ evaluate: getWeightStream, onError: (cause) => cause }),
    (buffer) => new Uint8Array(buffer)
  )
}

const unreadable = (cause: unknown): UnexpectedStorageError =>
  new UnexpectedStorageError({ reason: "the weightData of the model cannot be read", cause })

/** The same bytes in arrays of `size` bytes. The last one may be shorter. */
const rechunk = <Err>(bytes: Stream.Stream<Uint8Array, Err>, size: number): Stream.Stream<Uint8Array, Err> =>
  Stream.suspend(() => {
    let pieces: Array<Uint8Array> = []
    let length = 0
    const flush = () => {
      const [only, ...others] = pieces
      const whole = only !== undefined && others.length === 0 ? only : concat(pieces)
      pieces = []
      length = 0
      return whole
    }
    const split = function*(bytes: Uint8Array) {
      for (let at = 0; at < bytes.byteLength;) {
        const piece = bytes.subarray(at, at + size - length)
        pieces.push(piece)
        length += piece.byteLength
        at += piece.byteLength
        if (length === size) yield flush()
      }
    }
    return Stream.concat(
      Stream.flatMap(bytes, (piece) => Stream.fromIterable(split(piece))),
      Stream.suspend(() => length > 0 ? Stream.make(flush()) : Stream.empty)
    )
  })
