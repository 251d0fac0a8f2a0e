/**
 * Loads and saves TensorFlow.js models in a storage: an `IOHandler` for `loadGraphModel`, `loadLayersModel` and
 * `model.save`. It follows the interface in `tfjs-core/src/io/types.ts`; TensorFlow.js itself is not needed here.
 *
 * A model is a `model.json` in a folder, and the weights that it names, in shards beside it. Models from the TensorFlow.js
 * converter, its file handlers and downloads have this form already; downloads (`downloads://my-model`) name the file
 * after the model, `my-model.json`.
 *
 * @module TensorFlowIO
 * @since 0.1.0
 */
import type * as FileSystem from "@effect/platform/FileSystem"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Storage from "../Storage.js"
import { UnsupportedOperation } from "../StorageError.js"
import { keyPrefix } from "./internal/folders.js"
import { type InvalidOption, size } from "./internal/options.js"
import { promiseRunner } from "./internal/promises.js"
import type { ModelArtifacts, SaveResult } from "./tensorFlowIO/artifacts.js"
import type { Location } from "./tensorFlowIO/modelFile.js"
import * as Reader from "./tensorFlowIO/reader.js"
import * as Saver from "./tensorFlowIO/saver.js"

export type { ModelArtifacts, SaveResult, TrainingConfig, WeightSpec } from "./tensorFlowIO/artifacts.js"

/**
 * What TensorFlow.js accepts in place of a URL. The promises reject with the errors of `Storage`.
 *
 * @since 0.1.0
 * @category models
 */
export interface IOHandler {
  /**
   * Loads the model with its weights, all or nothing. It rejects with `CorruptObject`, before any weights are read, if
   * `model.json` is invalid, names a shard by a URL or outside of the folder, or the size of the shards is not that of the weights. A
   * model that is replaced meanwhile is loaded again.
   *
   * A model without `weightsManifest` is a topology alone, of which TensorFlow.js would make a model with random weights:
   * reading `weightData` of its artifacts throws an error that says so, which is what `loadLayersModel` then rejects with.
   */
  load: () => Promise<ModelArtifacts>

  /**
   * Saves the model, and replaces an existing one. The shards get new names and `model.json` is saved last, so a reader
   * finds the old model or the new one, complete; then the shards of the old one are removed.
   *
   * If a shard cannot be saved, or the size of the weights is not that of `weightSpecs` (`CorruptObject`), nothing is left
   * behind. If saving `model.json` fails, it may still have been saved, so the new shards stay.
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
  /**
   * The size of the shards that are saved, in bytes. Four shards are in memory at once. Default: 4 MiB, as in
   * TensorFlow.js.
   */
  readonly shardSize?: FileSystem.SizeInput | undefined
  /**
   * Load graph models with `getWeightStream` instead of `weightData`, for weights that do not fit in one `ArrayBuffer`.
   * The shards are then read one after another, and the stream of a model that is replaced meanwhile fails. Default: false.
   *
   * `loadGraphModel` of TensorFlow.js 4.15 or later reads the stream. For a program that does not, reading `weightData`
   * throws an error that says so. `loadLayersModel` reads no stream, so layers models are loaded with `weightData`: in one
   * buffer or, if that is too large, in one for each shard.
   */
  readonly streamWeights?: boolean | undefined
}

/**
 * A handler for the model in a folder, or for that of the file `prefix`, if it ends in `.json`: `models/my-model.json`. A
 * slash at the end of a folder makes no difference; an empty string is the root of the storage. The promises run with the services that are provided to this effect.
 *
 * @since 0.1.0
 * @category constructors
 * @example
 * ```ts
 * import { Effect } from "effect"
 * import { FileSystemStorage, TensorFlowIO } from "surfing-weights"
 *
 * // From TensorFlow.js: import { loadGraphModel } from "@tensorflow/tfjs"
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
    const run = promiseRunner(runtime)
    const key = prefix.endsWith(".json") ? prefix : `${keyPrefix(prefix)}model.json`
    const location: Location = { storage, prefix: key.slice(0, key.lastIndexOf("/") + 1), key }
    const decoded = Either.mapLeft(decodeOptions(options), toError(location))

    const load = options.streamWeights === true ? Reader.loadStreamed(location, runtime) : Reader.load(location)
    return {
      load: () => run(load),
      save: (artifacts) => run(Effect.flatMap(decoded, ({ shardSize }) => Saver.save(location, artifacts, shardSize)))
    }
  })

const decodeOptions = (
  { shardSize = 4 * 1024 * 1024 }: Options
): Either.Either<{ readonly shardSize: number }, InvalidOption> =>
  Either.all({ shardSize: size("shardSize", shardSize) })

const toError = ({ key, storage }: Location) => ({ option, reason }: InvalidOption): UnsupportedOperation =>
  new UnsupportedOperation({
    backend: storage.backend.name,
    operation: "save",
    key,
    reason: `${option} ${reason}`
  })
