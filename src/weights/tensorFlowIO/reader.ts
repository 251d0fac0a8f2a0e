/**
 * Loads models.
 */
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import type * as Runtime from "effect/Runtime"
import * as Stream from "effect/Stream"
import * as ByteRange from "../../ByteRange.js"
import { allocate, fill } from "../../internal/bytes.js"
import * as Storage from "../../Storage.js"
import { type LoadError, UnsupportedOperation } from "../../StorageError.js"
import { unshared } from "../internal/arrays.js"
import { isStandIn, recognize, sentence, sniffLength } from "../internal/fileKind.js"
import { quoted } from "../internal/text.js"
import type { ModelArtifacts } from "./artifacts.js"
import * as ModelFile from "./modelFile.js"

/** How many shards are read at once. */
const concurrency = 8

/** The model with all weights in one buffer. One that is replaced meanwhile is loaded again. */
export const load = (location: ModelFile.Location): Effect.Effect<ModelArtifacts, LoadError> =>
  Effect.flatMap(ModelFile.read(location), (model) => withWeights(location, model, false))

/**
 * A graph model with a stream of its weights, which opens one shard after another. `loadLayersModel` does not read the
 * stream and would make a model with random weights, so a layers model gets its weights as by `load`.
 */
export const loadStreamed = (
  location: ModelFile.Location,
  runtime: Runtime.Runtime<Storage.Storage>
): Effect.Effect<ModelArtifacts, LoadError> =>
  Effect.flatMap(ModelFile.read(location), (model) =>
    ModelFile.isStreamable(model.artifacts)
      ? withWeightStream(location, model, runtime)
      : withWeights(location, model, true))

const withWeights = (
  location: ModelFile.Location,
  model: ModelFile.ModelFile,
  severalBuffers: boolean
): Effect.Effect<ModelArtifacts, LoadError> => {
  if (model.artifacts.weightSpecs === undefined) return Effect.succeed(withoutWeights(location, model))
  const retryIfReplaced = (error: LoadError) =>
    Effect.gen(function*() {
      const { etag } = yield* location.storage.head(location.key)
      if (etag === model.etag) return yield* Effect.fail(error)
      return yield* withWeights(location, yield* ModelFile.read(location), severalBuffers)
    })
  return loadWeights(location, model, severalBuffers).pipe(
    Effect.map((weightData): ModelArtifacts => ({ ...model.artifacts, weightData })),
    Effect.catchTags({ ObjectNotFound: retryIfReplaced, PreconditionFailed: retryIfReplaced })
  )
}

const withWeightStream = (
  location: ModelFile.Location,
  model: ModelFile.ModelFile,
  runtime: Runtime.Runtime<Storage.Storage>
): Effect.Effect<ModelArtifacts, LoadError> =>
  Effect.gen(function*() {
    if (model.artifacts.weightSpecs === undefined) return withoutWeights(location, model)
    const groups = yield* measure(location, model)
    const weights = Stream.fromIterable(groups.flatMap(({ infos }) => infos)).pipe(
      Stream.flatMap(({ etag, key }) => location.storage.stream(key, { ifMatch: etag })),
      Stream.map(bufferOf)
    )
    return refusingWeightData(
      { ...model.artifacts, getWeightStream: () => Storage.toReadableStreamRuntime(weights, runtime) },
      () =>
        unsupported(
          location,
          "the weights are a stream (streamWeights), which only loadGraphModel of TensorFlow.js 4.15 or later reads; " +
            "load the model without streamWeights"
        )
    )
  })

const withoutWeights = (location: ModelFile.Location, { artifacts }: ModelFile.ModelFile): ModelArtifacts =>
  refusingWeightData({ ...artifacts }, () =>
    ModelFile.malformed(
      location,
      "the model has no weights (weightsManifest is missing), and TensorFlow.js would make random ones; save it with " +
        "its weights, or pass modelTopology to modelFromJSON for a new model"
    ))

/**
 * Artifacts whose `weightData` cannot be read: programs take `undefined` for a model without weights, then compute with
 * random ones, or save the model without them. The property is not enumerable, so a copy of the artifacts is possible.
 */
const refusingWeightData = (artifacts: ModelArtifacts, error: () => LoadError): ModelArtifacts =>
  Object.defineProperty(artifacts, "weightData", {
    configurable: true,
    get: () => {
      throw error()
    }
  })

/** Asks for the size of each shard, and checks the sizes before any bytes are read. */
const measure = (location: ModelFile.Location, { groups }: ModelFile.ModelFile) =>
  Effect.forEach(groups, ({ shards, specs }) =>
    Effect.gen(function*() {
      const infos = yield* Effect.forEach(shards, location.storage.head, { concurrency })
      const size = infos.reduce((sum, info) => sum + info.size, 0)
      yield* Effect.orElse(ModelFile.checkSize(location, "load", specs, size), () =>
        Effect.flatMap(
          findForeign(location, infos),
          (found) => ModelFile.checkSize(location, "load", specs, size, found)
        ))
      return { specs, infos, size }
    }))

/** What the first shard is that has no weights, such as a Git LFS pointer or a page. */
const findForeign = (
  { prefix, storage }: ModelFile.Location,
  infos: ReadonlyArray<Storage.ObjectInfo>
): Effect.Effect<string | undefined> =>
  Effect.gen(function*() {
    for (const { etag, key, size } of infos) {
      // Nothing shorter says what it is.
      if (size < 32) continue
      const range = ByteRange.make(0, Math.min(size, sniffLength))
      const kind = recognize(yield* storage.load(key, { range, ifMatch: etag }))
      if (kind !== undefined && (isStandIn(kind) || kind.kind === "json" || kind.kind === "text")) {
        return `${quoted(key.slice(prefix.length))}: ${sentence(kind, "weights")}`
      }
    }
    return undefined
  }).pipe(Effect.orElseSucceed(() => undefined))

/**
 * All weights in one buffer or, where they do not fit in one and it is allowed, in a buffer for each shard. Each shard is
 * read straight to its place.
 */
const loadWeights = (
  location: ModelFile.Location,
  model: ModelFile.ModelFile,
  severalBuffers: boolean
): Effect.Effect<ArrayBuffer | Array<ArrayBuffer>, LoadError> =>
  Effect.gen(function*() {
    const groups = yield* measure(location, model)
    const size = groups.reduce((sum, { size }) => sum + size, 0)
    const whole = allocate(size)
    if (Either.isLeft(whole) && !severalBuffers) {
      const reason = `${size} bytes do not fit in one ArrayBuffer on this runtime; set streamWeights`
      return yield* unsupported(location, reason)
    }
    let offset = 0
    const targets = yield* Effect.forEach(groups.flatMap(({ infos }) => infos), (info) => {
      const start = offset
      offset += info.size
      return Either.map(
        Either.isRight(whole) ? Either.right(whole.right.subarray(start, offset)) : allocate(info.size),
        (target) => ({ info, target })
      )
    })
    yield* Effect.forEach(
      targets,
      ({ info: { etag, key }, target }) => fill(target, location.storage.stream(key, { ifMatch: etag })),
      { concurrency, discard: true }
    )
    if (Either.isLeft(whole)) return targets.map(({ target }) => target.buffer)
    offset = 0
    for (const { size, specs } of groups) {
      yield* ModelFile.checkContent(location, specs, new DataView(whole.right.buffer, offset, size))
      offset += size
    }
    return whole.right.buffer
  })

const unsupported = ({ key, storage }: ModelFile.Location, reason: string): UnsupportedOperation =>
  new UnsupportedOperation({ backend: storage.backend.name, operation: "load", key, reason })

/** A buffer with these bytes and no others. */
const bufferOf = (bytes: Uint8Array): ArrayBuffer => {
  const { buffer } = unshared(bytes)
  return buffer.byteLength === bytes.byteLength ? buffer : new Uint8Array(bytes).buffer
}
