/**
 * A model in chunks: one object for each part of its forward pass, so that one layer can be used while the next one loads,
 * and a model that is larger than memory can run.
 *
 * The chunks and their order are in a manifest, the object `manifest.json` beside them:
 *
 * ```json
 * {
 *   "schema": "surfing-weights/model-chunks",
 *   "version": 1,
 *   "chunks": [
 *     {
 *       "name": "layer_0",
 *       "key": "layer_0.safetensors",
 *       "size": 28354048,
 *       "sha256": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
 *       "tensors": ["bert.encoder.layer.0.attention.self.query.weight"]
 *     }
 *   ]
 * }
 * ```
 *
 * - `split` splits a safetensors model into chunks; `writeManifest` writes a manifest for objects that exist.
 * - `open` reads a manifest. Chunks are then loaded by name, or streamed in order while the next ones load. The size and
 *   the SHA-256 of each are checked before it is returned.
 * - `verify` reads all chunks again and reports the damaged ones.
 *
 * A hash proves that the bytes are those for which the manifest was written. It is no signature: a writer of the chunks can
 * also write the manifest.
 *
 * @module ModelChunks
 * @since 0.1.0
 */
import type * as FileSystem from "@effect/platform/FileSystem"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Stream from "effect/Stream"
import type * as Storage from "../Storage.js"
import type { LoadError, StorageError } from "../StorageError.js"
import { integer, type InvalidOption, names, size } from "./internal/options.js"
import * as Folder from "./modelChunks/folder.js"
import * as ManifestFile from "./modelChunks/manifest.js"
import type { ChunkInfo, Manifest } from "./modelChunks/manifest.js"
import * as Reader from "./modelChunks/reader.js"
import * as Scanner from "./modelChunks/scanner.js"
import * as Selection from "./modelChunks/selection.js"
import type * as Splitter from "./modelChunks/splitter.js"
import * as Verifier from "./modelChunks/verifier.js"
import type { SafetensorsError } from "./safetensors/errors.js"

export { manifestName, ModelChunksError } from "./modelChunks/folder.js"
export { ChunkInfo, Manifest } from "./modelChunks/manifest.js"
export type { LoadedChunk } from "./modelChunks/reader.js"
export { Event } from "./modelChunks/verifier.js"

/**
 * The failures of `split` and `writeManifest`.
 *
 * @since 0.1.0
 * @category errors
 */
export type ModelError = StorageError | SafetensorsError | Folder.ModelChunksError

/**
 * A model whose manifest has been read.
 *
 * @since 0.1.0
 * @category models
 */
export interface Model {
  readonly manifest: Manifest
  /** The chunks by name, in the order of the manifest. */
  readonly chunks: ReadonlyMap<string, ChunkInfo>
  /**
   * Loads a chunk into an array that the caller owns, unless the storage is a cache that shares its arrays. A chunk that was
   * compressed is the file that it was before; its size and SHA-256 in the manifest are those of the object.
   *
   * A chunk with the wrong size or SHA-256 is loaded once more, bypassing all caches. If it is still wrong, the load fails
   * with `CorruptObject` and the problem `size` or `checksum`. An unknown name is a `ModelChunksError`.
   */
  readonly load: (name: string) => Effect.Effect<Uint8Array<ArrayBuffer>, LoadError | Folder.ModelChunksError>
  /**
   * Streams the chunks, each loaded as by `load`. While one is in use, the next `prefetch` load: at most `prefetch + 1`
   * chunks are in memory, besides those that `keepLast` keeps. The failure of a chunk that loads ahead is emitted when its
   * turn comes. The end or interruption of the stream interrupts the loads in progress.
   */
  readonly stream: (
    options?: StreamOptions
  ) => Stream.Stream<Reader.LoadedChunk, LoadError | Folder.ModelChunksError>
}

/**
 * The order in which chunks are streamed, and how many are in memory.
 *
 * @since 0.1.0
 * @category models
 */
export interface StreamOptions {
  /** How many chunks load while one is in use: a whole number of at least 0. Default: 1. */
  readonly prefetch?: number | undefined
  /** The names of the chunks to stream, in order. Names may repeat. Default: all, in the order of the manifest. */
  readonly order?: ReadonlyArray<string> | undefined
  /**
   * How many of the last chunks of this stream stay in memory for the next stream of the same `Model`, which then does not
   * load them: a whole number of at least 0. Their bytes must not be modified. Default: 0.
   */
  readonly keepLast?: number | undefined
}

/**
 * What to split, and into which chunks.
 *
 * @since 0.1.0
 * @category models
 */
export interface SplitOptions {
  /** The key of a safetensors file, or of the index of a sharded model, which ends in `.json`. */
  readonly source: string
  /** The folder for the chunks and the manifest. An empty string is the root of the storage. */
  readonly target: string
  /**
   * Which tensors go into one chunk:
   *
   * - `"layer"`: the chunks are `embeddings`, `layer_0` and so on, and `head` for the rest. A model with several stacks of
   *   layers has their names in those of the chunks. T5 has `embeddings`, `encoder_layer_0` …, `encoder_norm`,
   *   `decoder_layer_0` …, `head`; LLaVA has `embeddings`, `vision_tower_layer_0` …, `vision_tower_norm`,
   *   `multi_modal_projector`, `language_model_embeddings`, `language_model_layer_0` …, `head`. Layers are modules with a
   *   number in a list with a name such as `layers`, `layer`, `blocks`, `h` or `stages`.
   * - a function: returns the name of the chunk for the name of a tensor
   * - `{ bytes }`: chunks of at most this size, `chunk_0` and so on. A larger tensor is a chunk by itself.
   *
   * Default: `"layer"`.
   */
  readonly by?: "layer" | ((tensor: string) => string) | { readonly bytes: FileSystem.SizeInput } | undefined
  /**
   * The names of modules, or of tensors, in the order of the forward pass: `"model"` stands for all tensors whose names
   * start with `model.`, and the longest name counts. Every tensor must be in one of them; within each, the names of the
   * tensors tell the order. Default: the names tell it for the whole model.
   */
  readonly order?: ReadonlyArray<string> | undefined
  /**
   * Whether to compress the chunks, as `Safetensors.save` does. A chunk of more than 256 MiB is then read from the source twice.
   * Default: false.
   */
  readonly compress?: boolean | undefined
}

/**
 * Splits a safetensors model into chunks, each a safetensors file: `layer_0` is the object `layer_0.safetensors` in the
 * folder `target`. The chunks are streamed one after another and hashed on the way, so memory use does not depend on
 * their size.
 *
 * Chunks are in the order of the forward pass, by the names that modules have in the libraries of Hugging Face, timm and
 * diffusers: embeddings, layers by number, the last norm, the head; an encoder before a decoder; the tower of images or
 * audio before the projector, and that before the language model with its token embeddings. Of two towers that do not
 * depend on each other, such as those of CLIP, the one for images is the first.
 *
 * If the order of the chunks depends on a module whose name does not tell its place, `split` fails with a
 * `ModelChunksError` for the option `order`, which sets it. Within a layer, unknown names are no failure: modules that
 * are not known are in natural order. In a chunk, larger elements are first, as in every safetensors file; then tensors are
 * part by part in the order of the forward pass, and by name within a layer.
 *
 * The old manifest is removed first, and the new one is saved last: if `split` fails, there may be chunks, but no manifest.
 * Running it again overwrites them. Other objects in the folder stay.
 *
 * A source that is overwritten meanwhile fails with `PreconditionFailed`. Under a `StorageLimit`, `split` needs permits
 * for one read and one save at the same time.
 *
 * @since 0.1.0
 * @category constructors
 * @example
 * ```ts
 * import { ModelChunks } from "surfing-weights"
 *
 * const manifest = ModelChunks.split({
 *   source: "llama/model.safetensors.index.json",
 *   target: "llama/chunks"
 * })
 *
 * // The names of this model do not tell that its "router" runs before its "experts".
 * const ordered = ModelChunks.split({
 *   source: "mine/model.safetensors",
 *   target: "mine/chunks",
 *   by: { bytes: 64 * 1024 ** 2 },
 *   order: ["embed", "router", "experts", "lm_head"]
 * })
 * ```
 */
export const split = (options: SplitOptions): Effect.Effect<Manifest, ModelError, Storage.Storage> =>
  Effect.gen(function*() {
    const folder = yield* Folder.make("split", options.target)
    const { by, order } = yield* Either.mapLeft(decodeSplit(options), toError(folder, options.source))
    // What knows the order of models is loaded when one is split.
    const { split } = yield* Effect.promise(() => import("./modelChunks/splitter.js"))
    return yield* split(folder, options.source, by, order, options.compress ?? false)
  })

/**
 * Opens the model in a folder by its manifest. An empty string is the root of the storage. An invalid manifest fails with
 * a `ModelChunksError` that names the field.
 *
 * @since 0.1.0
 * @category constructors
 * @example
 * ```ts
 * import { Console, Effect, Stream } from "effect"
 * import { ModelChunks } from "surfing-weights"
 *
 * const pass = Effect.gen(function*() {
 *   const model = yield* ModelChunks.open("models/bert-tiny")
 *   yield* model.stream({ prefetch: 2 }).pipe(
 *     Stream.runForEach(({ bytes, chunk }) => Console.log(chunk.name, bytes.byteLength))
 *   )
 * })
 * ```
 */
export const open = (prefix: string): Effect.Effect<Model, LoadError | Folder.ModelChunksError, Storage.Storage> =>
  Effect.gen(function*() {
    const folder = yield* Folder.make("open", prefix)
    const model = Reader.make(folder, yield* ManifestFile.read(folder))
    return {
      manifest: model.manifest,
      chunks: model.chunks,
      load: (name) => Reader.load(model, name),
      stream: (options) =>
        Either.match(decodeStream(options), {
          onLeft: (error) => Stream.fail(toError({ ...folder, operation: "stream" })(error)),
          onRight: (pass) => Reader.stream(model, pass)
        })
    }
  })

/**
 * Which objects get into a manifest, and how many are read at once.
 *
 * @since 0.1.0
 * @category models
 */
export interface WriteManifestOptions {
  /** Selects the chunks by their keys after the prefix. Default: as `writeManifest` describes it. */
  readonly include?: ((key: string) => boolean) | undefined
  /** How many objects are read at once: a whole number of at least 1. Default: 4. */
  readonly concurrency?: number | undefined
}

/**
 * Writes a manifest for the objects in a folder, such as the shards of a download. Each object is a chunk with its key
 * after the prefix as name; chunks are in natural order, in which `shard10` follows `shard9`.
 *
 * The folder may be as it was downloaded from the Hugging Face Hub. Without `include`, the chunks are
 *
 * 1. the shards that the index names, if there is one: `model.safetensors.index.json`, or `pytorch_model.bin.index.json`
 *    where there are no safetensors files
 * 2. otherwise the safetensors files, if there are any
 * 3. otherwise all files but hidden ones, documentation, configuration, tokenizers, media, and the state of optimizers
 *
 * In 2 and 3, `consolidated.*` and the folders `original`, `onnx`, `openvino`, `coreml` and the like count only if there is
 * nothing else. Weights in several formats, several indexes or models, files with the same tensor, a missing shard, Git LFS
 * pointers and folders without weights are refused with a `ModelChunksError`.
 *
 * Each object is streamed once, bypassing all caches. An existing manifest is replaced when all objects are hashed. The
 * entries of safetensors files list their tensors; an invalid safetensors file fails with `SafetensorsError`.
 *
 * @since 0.1.0
 * @category constructors
 * @example
 * ```ts
 * import { ModelChunks } from "surfing-weights"
 *
 * const manifest = ModelChunks.writeManifest("downloads/sentence-encoder", {
 *   include: (key) => key.startsWith("group1-shard")
 * })
 * ```
 */
export const writeManifest = (
  prefix: string,
  options: WriteManifestOptions = {}
): Effect.Effect<Manifest, ModelError, Storage.Storage> =>
  Effect.gen(function*() {
    const folder = yield* Folder.make("writeManifest", prefix)
    const concurrency = yield* Either.mapLeft(decodeConcurrency(options), toError(folder))
    return yield* Scanner.writeManifest(folder, options.include, concurrency)
  })

/**
 * The keys, after the prefix, of the files that make up a model in a folder as it was downloaded: the weights that
 * `writeManifest` would select, and its configuration, tokenizer, documentation and the like. Hidden files, the same weights in
 * another form and the state of a training are left out.
 *
 * @since 0.1.0
 * @category constructors
 * @example
 * ```ts
 * import { Effect } from "effect"
 * import { type Storage, ModelChunks, StorageMirror } from "surfing-weights"
 *
 * const publish = (download: Storage.Service, bucket: Storage.Service) =>
 *   Effect.gen(function*() {
 *     const files = new Set(yield* ModelChunks.files(""))
 *     return StorageMirror.sync(download, bucket, { filter: (key) => files.has(key) })
 *   })
 * ```
 */
export const files = (
  prefix: string
): Effect.Effect<
  ReadonlyArray<string>,
  LoadError | SafetensorsError | Folder.ModelChunksError,
  Storage.Storage
> =>
  Effect.gen(function*() {
    const folder = yield* Folder.make("files", prefix)
    const listed = yield* folder.storage.list(folder.prefix)
    return yield* Selection.files(folder, listed.map((key) => key.slice(folder.prefix.length)))
  })

/**
 * How a model is verified.
 *
 * @since 0.1.0
 * @category models
 */
export interface VerifyOptions {
  /** How many chunks are read at once: a whole number of at least 1. Default: 4. */
  readonly concurrency?: number | undefined
}

/**
 * Reads every chunk of a model again and compares it with the manifest. The reads bypass all caches, and evict the chunks
 * from them. Chunks are streamed with back-pressure: a slow consumer of the events slows down the reads.
 *
 * The failure of one chunk is an event, and the other chunks are read; then the stream fails with the first of these
 * failures. An invalid manifest and a missing storage fail the stream at once.
 *
 * @since 0.1.0
 * @category constructors
 * @example
 * ```ts
 * import { Console, Stream } from "effect"
 * import { ModelChunks } from "surfing-weights"
 *
 * const damaged = ModelChunks.verify("models/bert-tiny").pipe(
 *   Stream.filter(ModelChunks.Event.$is("Failed")),
 *   Stream.runForEach(({ error }) => Console.error(error.message))
 * )
 * ```
 */
export const verify = (
  prefix: string,
  options: VerifyOptions = {}
): Stream.Stream<Verifier.Event, LoadError | Folder.ModelChunksError, Storage.Storage> =>
  Stream.unwrap(Effect.gen(function*() {
    const folder = yield* Folder.make("verify", prefix)
    const concurrency = yield* Either.mapLeft(decodeConcurrency(options), toError(folder))
    return Verifier.verify(folder, concurrency)
  }))

const decodeSplit = (
  { by = "layer", order }: SplitOptions
): Either.Either<{ readonly by: Splitter.SplitBy; readonly order: ReadonlyArray<string> | undefined }, InvalidOption> =>
  Either.all({
    by: typeof by === "object" ? Either.map(size("by.bytes", by.bytes), (bytes) => ({ bytes })) : Either.right(by),
    order: order === undefined ? Either.right(undefined) : names("order", order)
  })

const decodeStream = (
  { keepLast = 0, order, prefetch = 1 }: StreamOptions = {}
): Either.Either<Reader.Pass, InvalidOption> =>
  Either.all({
    prefetch: integer("prefetch", prefetch, 0),
    keepLast: integer("keepLast", keepLast, 0),
    order: Either.right(order)
  })

const decodeConcurrency = (
  { concurrency = 4 }: WriteManifestOptions | VerifyOptions
): Either.Either<number, InvalidOption> => integer("concurrency", concurrency, 1)

const toError = (folder: Folder.Folder, key?: string) => ({ option, reason }: InvalidOption): Folder.ModelChunksError =>
  Folder.invalid(folder, option, reason, key)
