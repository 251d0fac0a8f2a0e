/**
 * Loads models.
 */
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import type * as Runtime from "effect/Runtime"
import * as Stream from "effect/Stream"
import { allocate, fill } from "../../internal/bytes.js"
import type * as Storage from "../../Storage.js"
import { type LoadError, UnsupportedOperation } from "../../StorageError.js"
import { unshared } from "../internal/arrays.js"
import { toReadableStream } from "../internal/promises.js"
import type { ModelArtifacts } from "./artifacts.js"
import * as ModelFile from "./modelFile.js"

/** How many shards are read at once. */
const concurrency = 8

/** The model with all weights in one buffer. One that is replaced meanwhile is loaded again. */
export const load = (location: ModelFile.Location): Effect.Effect<ModelArtifacts, LoadError> =>
  Effect.flatMap(ModelFile.read(location), (model) => {
    if (model.artifacts.weightSpecs === undefined) return Effect.succeed(model.artifacts)
    const retryIfReplaced = (error: LoadError) =>
      Effect.flatMap(
        location.storage.head(location.key),
        ({ etag }) => etag === model.etag ? Effect.fail(error) : load(location)
      )
    return loadWeights(location, model).pipe(
      Effect.map((weightData): ModelArtifacts => ({ ...model.artifacts, weightData })),
      Effect.catchTags({ ObjectNotFound: retryIfReplaced, PreconditionFailed: retryIfReplaced })
    )
  })

/** The model with a stream of its weights, which opens one shard after another. */
export const loadStreamed = (
  location: ModelFile.Location,
  runtime: Runtime.Runtime<Storage.Storage>
): Effect.Effect<ModelArtifacts, LoadError> =>
  Effect.gen(function*() {
    const model = yield* ModelFile.read(location)
    const groups = yield* measure(location, model)
    if (model.artifacts.weightSpecs === undefined) return model.artifacts
    const weights = Stream.fromIterable(groups.flatMap(({ infos }) => infos)).pipe(
      Stream.flatMap(({ etag, key }) => location.storage.stream(key, { ifMatch: etag })),
      Stream.map(bufferOf)
    )
    return { ...model.artifacts, getWeightStream: () => toReadableStream(weights, runtime) }
  })

/** Asks for the size of each shard, and checks the sizes before any bytes are read. */
const measure = (location: ModelFile.Location, { groups }: ModelFile.ModelFile) =>
  Effect.forEach(groups, ({ shards, specs }) =>
    Effect.gen(function*() {
      const infos = yield* Effect.forEach(shards, location.storage.head, { concurrency })
      const size = infos.reduce((sum, info) => sum + info.size, 0)
      yield* ModelFile.checkSize(location, "load", specs, size)
      return { specs, infos, size }
    }))

/** All weights in one buffer. Each shard is read straight to its place. */
const loadWeights = (
  location: ModelFile.Location,
  model: ModelFile.ModelFile
): Effect.Effect<ArrayBuffer, LoadError> =>
  Effect.gen(function*() {
    const { key, storage } = location
    const groups = yield* measure(location, model)
    const size = groups.reduce((sum, { size }) => sum + size, 0)
    const target = yield* Either.mapLeft(allocate(size), () => {
      const reason = `${size} bytes do not fit in one ArrayBuffer on this runtime; set streamWeights`
      return new UnsupportedOperation({ backend: storage.backend.name, operation: "load", key, reason })
    })
    let offset = 0
    const shards = groups.flatMap(({ infos }) => infos).map((info) => {
      const part = target.subarray(offset, offset + info.size)
      offset += info.size
      return { info, part }
    })
    yield* Effect.forEach(
      shards,
      ({ info: { etag, key }, part }) => fill(part, storage.stream(key, { ifMatch: etag })),
      { concurrency, discard: true }
    )
    offset = 0
    for (const { size, specs } of groups) {
      yield* ModelFile.checkContent(location, specs, new DataView(target.buffer, offset, size))
      offset += size
    }
    return target.buffer
  })

/** A buffer with these bytes and no others. */
const bufferOf = (bytes: Uint8Array): ArrayBuffer => {
  const { buffer } = unshared(bytes)
  return buffer.byteLength === bytes.byteLength ? buffer : new Uint8Array(bytes).buffer
}
