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
import { integer, type InvalidOption, size } from "./internal/options.js"
import * as Folder from "./modelChunks/folder.js"
import * as ManifestFile from "./modelChunks/manifest.js"
import type { ChunkInfo, Manifest } from "./modelChunks/manifest.js"
import * as Reader from "./modelChunks/reader.js"
import * as Scanner from "./modelChunks/scanner.js"
import * as Splitter from "./modelChunks/splitter.js"
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
   * Loads a chunk into an array that the caller owns, unless the storage is a cache that shares its arrays.
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
   * - `"layer"`: the chunks are `embeddings`, `layer_0` and so on, and `head` for the rest. A model with two stacks of
   *   layers, such as T5, has `embeddings`, `encoder_layer_0` …, `encoder_norm`, `decoder_layer_0` …, `head`. This needs
   *   tensor names like those of BERT, GPT-2, Llama and T5 in the libraries of Hugging Face.
   * - a function: returns the name of the chunk for the name of a tensor
   * - `{ bytes }`: chunks of at most this size, `chunk_0` and so on. A larger tensor is a chunk by itself.
   *
   * Chunks are in the order of the forward pass, as far as the names of the tensors show it. Default: `"layer"`.
   */
  readonly by?: "layer" | ((tensor: string) => string) | { readonly bytes: FileSystem.SizeInput } | undefined
}

/**
 * Splits a safetensors model into chunks, each a safetensors file: `layer_0` is the object `layer_0.safetensors` in the
 * folder `target`. The chunks are streamed one after another and hashed on the way, so memory use does not depend on
 * their size.
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
 * ```
 */
export const split = (options: SplitOptions): Effect.Effect<Manifest, ModelError, Storage.Storage> =>
  Effect.gen(function*() {
    const folder = yield* Folder.make("split", options.target)
    const by = yield* Either.mapLeft(decodeBy(options), toError(folder, options.source))
    return yield* Splitter.split(folder, options.source, by)
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
  /** Selects the chunks by their keys after the prefix. Default: all objects but `manifest.json`. */
  readonly include?: ((key: string) => boolean) | undefined
  /** How many objects are read at once: a whole number of at least 1. Default: 4. */
  readonly concurrency?: number | undefined
}

/**
 * Writes a manifest for the objects in a folder, such as the shards of a download. Each object is a chunk with its key
 * after the prefix as name; chunks are in natural order, in which `shard10` follows `shard9`.
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
    return yield* Scanner.writeManifest(folder, options.include ?? (() => true), concurrency)
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

const decodeBy = ({ by = "layer" }: SplitOptions): Either.Either<Splitter.SplitBy, InvalidOption> =>
  typeof by === "object" ? Either.map(size("by.bytes", by.bytes), (bytes) => ({ bytes })) : Either.right(by)

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
