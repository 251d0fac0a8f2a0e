/**
 * Reads and writes safetensors files (https://huggingface.co/docs/safetensors) in a storage by the tensor: one tensor of
 * a 50 GB file without the rest, all tensors as a stream, and files that are written as their tensors come.
 *
 * Opening a file reads its header alone, in one request, or in two if the header is longer than 128 KiB. A file that the
 * reference implementation in Rust (0.8.0) rejects fails with `SafetensorsError`. So do these, which it reads:
 *
 * - white space before the `{` of the header, which the published format forbids
 * - two tensors of one name, also where one is written with an escape, and two entries of one key in `__metadata__`; the
 *   format forbids duplicate keys
 * - a tensor that is an array (`["F32",[1],[0,4]]`) instead of an object
 * - a length, or a product of lengths, from 2^53 on, also beside a length of 0
 *
 * Every later read is conditional on the etag that was opened: if the file has been overwritten since, the read
 * fails with `PreconditionFailed`.
 *
 * @module Safetensors
 * @since 0.1.0
 */
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Stream from "effect/Stream"
import * as Storage from "../Storage.js"
import { type SaveError, UnsupportedOperation } from "../StorageError.js"
import { integer } from "./internal/options.js"
import { invalid, type SafetensorsError } from "./safetensors/errors.js"
import { jsonLength, parse, prefixLength, type TensorInfo } from "./safetensors/header.js"
import { isCompressed } from "./safetensors/layout.js"
import { type FileInfo, type Model, openFile, openIndex, type ReadError } from "./safetensors/model.js"
import * as Reader from "./safetensors/reader.js"
import { encode, type TensorSource } from "./safetensors/saver.js"
import { make as makeTensor, type Tensor } from "./safetensors/tensor.js"

export type { Codec } from "./safetensors/compressed/blocks.js"
export type { Dtype } from "./safetensors/dtypes.js"
export type { Arrays, TypedArray } from "./safetensors/elements.js"
export { SafetensorsError } from "./safetensors/errors.js"
export type { TensorInfo } from "./safetensors/header.js"
export type { FileInfo, ReadError } from "./safetensors/model.js"
export type { TensorSource } from "./safetensors/saver.js"
export type { Tensor, TensorOf } from "./safetensors/tensor.js"

/**
 * How tensors are streamed.
 *
 * @since 0.1.0
 * @category models
 */
export interface StreamOptions {
  /**
   * How many reads are made ahead of the consumer: a whole number of at least 0. A read is up to 4 MiB, or one larger
   * tensor. Default: 2.
   */
  readonly prefetch?: number | undefined
}

/**
 * A file, or a model in several, whose header has been read and checked.
 *
 * @since 0.1.0
 * @category models
 */
export interface SafetensorsFile {
  /** The object that was opened: the file, or the index of a sharded model. */
  readonly info: Storage.ObjectInfo
  /** The objects with the tensors, by key: the file, or the shards. */
  readonly files: ReadonlyMap<string, FileInfo>
  /** By name, in the order of their bytes, shard after shard. */
  readonly tensors: ReadonlyMap<string, TensorInfo>
  /** The `__metadata__` of the file, or the metadata of the index. */
  readonly metadata: Readonly<Record<string, string>>
  /** Loads one tensor. An unknown name is a `SafetensorsError`. */
  readonly load: (name: string) => Effect.Effect<Tensor, ReadError>
  /** Loads several tensors, in the order of the names. Neighbours are read together. */
  readonly loadMany: (names: Iterable<string>) => Effect.Effect<ReadonlyArray<Tensor>, ReadError>
  /**
   * Loads the part of a tensor whose first index is from `start` to `endExclusive`, exclusive: some rows of a matrix
   * without the others. The first axis of its shape has that length.
   */
  readonly loadSlice: (
    name: string,
    start: number,
    endExclusive: number
  ) => Effect.Effect<Tensor, ReadError>
  /**
   * Streams the tensors of these names (default: all) in the order of `tensors`, each once. At most `prefetch` reads are
   * in memory besides the one that the consumer has.
   */
  readonly stream: (
    names?: Iterable<string>,
    options?: StreamOptions
  ) => Stream.Stream<Tensor, ReadError>
}

/**
 * Conditions of a save, and the metadata of the file.
 *
 * @since 0.1.0
 * @category models
 */
export interface SaveOptions extends Omit<Storage.SaveOptions, "size"> {
  /** The `__metadata__` of the file, such as `{ format: "pt" }`. Default: none. */
  readonly metadata?: Readonly<Record<string, string>> | undefined
  /**
   * Whether to compress the tensors, without loss: weights of 16 bits take about two thirds of their size, those of 32 bits
   * five sixths. `open` reads the file as any other, and checks the bytes; other readers of the format see tensors of bytes. A file
   * that does not get smaller is saved as it is. Streams of data are run twice where the tensors have more than 256 MiB. Default: false.
   */
  readonly compress?: boolean | undefined
}

/**
 * Opens a file: reads its header and checks it. A file without tensors is valid.
 *
 * @since 0.1.0
 * @category constructors
 * @example
 * ```ts
 * import { Effect } from "effect"
 * import { Safetensors } from "surfing-weights"
 *
 * const embeddings = Effect.gen(function*() {
 *   const file = yield* Safetensors.open("bert/model.safetensors")
 *   const tensor = yield* file.load("embeddings.word_embeddings.weight")
 *   return tensor.toFloat32()
 * })
 * ```
 */
export const open = (key: string): Effect.Effect<SafetensorsFile, ReadError, Storage.Storage> =>
  Effect.flatMap(Storage.Storage, (storage) => Effect.map(openFile(storage, key), toFile))

/**
 * Opens a model in several files by its index, such as `model.safetensors.index.json`, whose `weight_map` names the file
 * of each tensor. The files must be in the folder of the index or below. The headers of all of them are read and checked;
 * `tensors` are those that the index names.
 *
 * @since 0.1.0
 * @category constructors
 * @example
 * ```ts
 * import { Effect, Stream } from "effect"
 * import { Safetensors } from "surfing-weights"
 *
 * const parameters = Effect.gen(function*() {
 *   const model = yield* Safetensors.openSharded("llama/model.safetensors.index.json")
 *   return yield* Stream.runFold(model.stream(), 0, (sum, { shape }) => sum + shape.reduce((a, b) => a * b, 1))
 * })
 * ```
 */
export const openSharded = (indexKey: string): Effect.Effect<SafetensorsFile, ReadError, Storage.Storage> =>
  Effect.flatMap(Storage.Storage, (storage) => Effect.map(openIndex(storage, indexKey), toFile))

/**
 * The tensors of a file that is in memory, such as a chunk of a model, by name and in the order of their bytes. They are
 * views of the same memory; those that are not aligned for a typed array, or lie in a `SharedArrayBuffer`, are copies.
 * `key` identifies the file in errors.
 *
 * @since 0.1.0
 * @category constructors
 * @example
 * ```ts
 * import { Effect } from "effect"
 * import { Safetensors, Storage } from "surfing-weights"
 *
 * const tensors = Effect.gen(function*() {
 *   const bytes = yield* Storage.load("bert/layer_0.safetensors")
 *   return yield* Safetensors.decode(bytes, "bert/layer_0.safetensors")
 * })
 * ```
 */
export const decode = (
  bytes: Uint8Array,
  key: string
): Either.Either<ReadonlyMap<string, Tensor>, SafetensorsError> =>
  Either.gen(function*() {
    const end = prefixLength + (yield* jsonLength(key, bytes, bytes.byteLength))
    const { metadata, tensors } = yield* parse(key, bytes.subarray(prefixLength, end), bytes.byteLength)
    if (isCompressed(metadata)) {
      return yield* Either.left(invalid(key, "header", "the file is compressed; read it with Safetensors.open"))
    }
    return new Map([...tensors].map(([name, tensor]) => {
      const { endExclusive, start } = tensor.range
      return [name, makeTensor(tensor, bytes.subarray(start, endExclusive))]
    }))
  })

/**
 * Saves tensors as a file, all or nothing like any save. The file is byte for byte the one that the reference
 * implementation writes.
 *
 * The header comes first and names all tensors, so a stream of tensors is collected before anything is written. Tensors
 * that do not fit in memory together are given as tensors whose `data` is a stream.
 *
 * @since 0.1.0
 * @category constructors
 * @example
 * ```ts
 * import { Safetensors } from "surfing-weights"
 *
 * const saved = Safetensors.save(
 *   "tiny.safetensors",
 *   [{ name: "bias", dtype: "F32", shape: [2], data: new Float32Array([0.5, -1]) }],
 *   { metadata: { format: "pt" }, ifNoneMatch: "*" }
 * )
 * ```
 */
export const save = <Err = never, R = never>(
  key: string,
  tensors: Iterable<TensorSource<Err, R>> | Stream.Stream<TensorSource<Err, R>, Err, R>,
  options: SaveOptions = {}
): Effect.Effect<Storage.ObjectInfo, SaveError | SafetensorsError | Err, R | Storage.Storage> =>
  Effect.gen(function*() {
    const { compress, metadata, ...conditions } = options
    const collected = Stream.StreamTypeId in tensors ? yield* Stream.runCollect(tensors) : tensors
    const { bytes, size } = yield* encode(key, collected, { compress, metadata })
    return yield* Storage.save(key, bytes, { ...conditions, size })
  })

const toFile = (model: Model): SafetensorsFile => ({
  info: model.info,
  files: model.files,
  tensors: model.tensors,
  metadata: model.metadata,
  load: (name) => Reader.load(model, name),
  loadMany: (names) => Reader.loadMany(model, names),
  loadSlice: (name, start, endExclusive) => Reader.loadSlice(model, name, start, endExclusive),
  stream: (names, options) =>
    Either.match(decodeStreamOptions(options), {
      onLeft: (reason) =>
        Stream.fail(
          new UnsupportedOperation({
            backend: model.storage.backend.name,
            operation: "stream",
            key: model.info.key,
            reason
          })
        ),
      onRight: ({ prefetch }) => Reader.stream(model, names, prefetch)
    })
})

const decodeStreamOptions = ({ prefetch = 2 }: StreamOptions = {}) =>
  Either.mapBoth(integer("prefetch", prefetch, 0), {
    onLeft: ({ option, reason }) => `${option} ${reason}`,
    onRight: (prefetch) => ({ prefetch })
  })
