/**
 * Safetensors files (https://huggingface.co/docs/safetensors) in a storage: one tensor of a file of 50 GB without the
 * other 49.9, all of them as a stream, and files written as they come.
 *
 * A file is opened by its header alone, with one request where that is small and with two where it is not. What is
 * wrong with it is a `SafetensorsError`: whatever the reference implementation refuses, and keys that stand twice, which
 * only the published format forbids. Every later read is of the file that was opened: if it has been overwritten since,
 * that is `PreconditionFailed`, and never bytes of another file.
 *
 * @module Safetensors
 * @since 0.1.0
 */
import * as Chunk from "effect/Chunk"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Stream from "effect/Stream"
import * as ByteRange from "../ByteRange.js"
import { collect, exactly } from "../internal/bytes.js"
import { readAhead } from "../internal/readAhead.js"
import * as Storage from "../Storage.js"
import * as E from "../StorageError.js"
import type { Dtype } from "./safetensors/dtypes.js"
import { aligned, bytesOf, toFloat32, type TypedArray, type ValuesOf, valuesOf } from "./safetensors/elements.js"
import { SafetensorsError } from "./safetensors/errors.js"
import type { TensorInfo } from "./safetensors/header.js"
import * as Header from "./safetensors/header.js"
import * as ShardIndex from "./safetensors/shardIndex.js"

export {
  /**
   * @since 0.1.0
   * @category errors
   */
  SafetensorsError
} from "./safetensors/errors.js"

export type {
  /**
   * @since 0.1.0
   * @category models
   */
  Dtype
} from "./safetensors/dtypes.js"

export type {
  /**
   * @since 0.1.0
   * @category models
   */
  TensorInfo
} from "./safetensors/header.js"

export type {
  /**
   * @since 0.1.0
   * @category models
   */
  Arrays,
  /**
   * @since 0.1.0
   * @category models
   */
  TypedArray
} from "./safetensors/elements.js"

/**
 * A tensor of one type of elements, with its bytes.
 *
 * @since 0.1.0
 * @category models
 */
export interface TensorOf<D extends Dtype> extends TensorInfo {
  readonly dtype: D
  /**
   * Little-endian, the last axis fastest; to keep and to change. Those of a tensor from a stream may share their buffer
   * with its neighbours': copy them before the buffer is transferred to a worker, or where a small tensor is kept long.
   */
  readonly bytes: Uint8Array
  /**
   * The elements, over the same memory as `bytes`, where JavaScript has their type: `undefined` for floats of 16 bits
   * and less. (On a machine that is not little-endian they are a copy.)
   */
  readonly values: ValuesOf<D>
  /**
   * The elements as 32-bit floats: `values` itself where they are that, a new array otherwise. Integers and 64-bit
   * floats are rounded, booleans are 0 and 1, and a complex number is two floats. Of elements smaller than a byte the
   * first is in the lowest bits.
   */
  readonly toFloat32: () => Float32Array
}

/**
 * A tensor with its bytes. Its `dtype` tells what its `values` are: after `tensor.dtype === "F32"` a `Float32Array`.
 *
 * @since 0.1.0
 * @category models
 */
export type Tensor = { readonly [D in Dtype]: TensorOf<D> }[Dtype]

/**
 * @since 0.1.0
 * @category models
 */
export interface StreamOptions {
  /**
   * How many reads are made ahead of the consumer: a whole number from 0 up. A read has 4 MiB at most, or one tensor
   * that is larger. Default: 2.
   */
  readonly prefetch?: number
}

/**
 * What reading tensors can meet.
 *
 * @since 0.1.0
 * @category errors
 */
export type ReadError = E.LoadError | SafetensorsError

/**
 * An object that holds tensors, as it was when it was opened.
 *
 * @since 0.1.0
 * @category models
 */
export interface FileInfo {
  readonly info: Storage.ObjectInfo
  readonly metadata: Readonly<Record<string, string>>
}

/**
 * A file, or a model in several, whose header is read and is right.
 *
 * @since 0.1.0
 * @category models
 */
export interface SafetensorsFile {
  /** The object that was opened: the file or, of a sharded model, its index. */
  readonly info: Storage.ObjectInfo
  /** The objects that hold the tensors, by their keys: the file or, of a sharded model, its shards. */
  readonly files: ReadonlyMap<string, FileInfo>
  /** By name, in the order of their bytes, shard after shard. */
  readonly tensors: ReadonlyMap<string, TensorInfo>
  /** What else the file says of itself. */
  readonly metadata: Readonly<Record<string, string>>
  /** One tensor. */
  readonly load: (name: string) => Effect.Effect<Tensor, ReadError>
  /** Several, in the order asked for. Neighbours are read together. */
  readonly loadMany: (names: Iterable<string>) => Effect.Effect<ReadonlyArray<Tensor>, ReadError>
  /**
   * The elements of a tensor whose first index is from `start` up to, but not including, `endExclusive`: some rows of a
   * matrix, read without the others. The shape has that length first.
   */
  readonly loadSlice: (name: string, start: number, endExclusive: number) => Effect.Effect<Tensor, ReadError>
  /**
   * The tensors of these names (default: all) in the order of `tensors`. Some reads are under way while the consumer is
   * busy, and no more than `prefetch` of them are in memory besides what it has.
   */
  readonly stream: (names?: Iterable<string>, options?: StreamOptions) => Stream.Stream<Tensor, ReadError>
}

/**
 * A tensor to save. `data` are its bytes, little-endian; or its elements in the typed array of their type (for F16 and
 * BF16 a `Uint16Array` of their bits); or a stream of its bytes, which is run when it is its turn.
 *
 * @since 0.1.0
 * @category models
 */
export interface TensorSource<Err = never, R = never> {
  readonly name: string
  readonly dtype: Dtype
  readonly shape: ReadonlyArray<number>
  readonly data: TypedArray | Stream.Stream<Uint8Array, Err, R>
}

/**
 * @since 0.1.0
 * @category models
 */
export interface SaveOptions extends Omit<Storage.SaveOptions, "size"> {
  /** What the file is to say of itself, such as `{ format: "pt" }`. */
  readonly metadata?: Readonly<Record<string, string>>
}

/** What the first read of a file takes: the header of a thousand tensors is shorter. */
const firstRead = 128 * 1024

/**
 * Opens a file: reads its header and holds it against the format, and nothing else. A file without tensors is one.
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
  Effect.flatMap(
    Storage.Storage,
    (storage) => Effect.map(openPart(storage, key), (part) => make(storage, part.info, part.header, [part]))
  )

/** A file that was opened. */
interface Part {
  readonly info: Storage.ObjectInfo
  readonly header: Header.Header
}

const openPart = (storage: Storage.Service, key: string): Effect.Effect<Part, ReadError> =>
  Effect.gen(function*() {
    const { beginning, info } = yield* readBeginning(storage, key)
    const length = yield* Header.lengthOf(key, beginning, info.size)
    const end = Header.prefixLength + length
    const json = end <= beginning.byteLength
      ? beginning.subarray(Header.prefixLength, end)
      : yield* readRest(storage, info, beginning, end)
    return { info, header: yield* Header.parse(key, json, info.size) }
  })

const readBeginning = (storage: Storage.Service, key: string) =>
  storage.open(key, { range: ByteRange.make(0, firstRead) }).pipe(
    Effect.flatMap(({ info, stream }) => Effect.map(collect(stream), (beginning) => ({ info, beginning }))),
    Effect.scoped,
    // Only an object without bytes has no first byte.
    Effect.catchTag(
      "InvalidRange",
      () => Effect.fail(new SafetensorsError({ key, field: "header size", reason: "the file is empty" }))
    )
  )

/** The JSON of a header that is longer than the first read. */
const readRest = (storage: Storage.Service, info: Storage.ObjectInfo, beginning: Uint8Array, end: number) =>
  Effect.map(
    storage.load(info.key, { range: ByteRange.make(beginning.byteLength, end), ifMatch: info.etag }),
    (rest) => {
      const json = new Uint8Array(end - Header.prefixLength)
      json.set(beginning.subarray(Header.prefixLength))
      json.set(rest, beginning.byteLength - Header.prefixLength)
      return json
    }
  )

const make = (
  storage: Storage.Service,
  info: Storage.ObjectInfo,
  { metadata, tensors }: Header.Header,
  parts: ReadonlyArray<Part>
): SafetensorsFile => {
  const files = new Map(
    parts.map(({ header, info }): [string, FileInfo] => [info.key, { info, metadata: header.metadata }])
  )

  const find = (name: string) => {
    const tensor = tensors.get(name)
    return tensor === undefined
      ? Effect.fail(
        new SafetensorsError({ key: info.key, field: "name", tensor: name, reason: "there is no tensor of this name" })
      )
      : Effect.succeed(tensor)
  }

  /** Of the object that was opened, and no other that took its place. */
  const condition = (key: string) => {
    const file = files.get(key)
    return file === undefined ? {} : { ifMatch: file.info.etag }
  }

  const loadBytes = (key: string, { endExclusive, start }: ByteRange.ResolvedRange) =>
    start === endExclusive
      ? Effect.succeed(new Uint8Array(0))
      : storage.load(key, { range: ByteRange.make(start, endExclusive), ...condition(key) })

  const load: SafetensorsFile["load"] = (name) =>
    Effect.flatMap(find(name), (tensor) => Effect.map(loadBytes(tensor.key, tensor.range), withBytes(tensor)))

  const loadMany: SafetensorsFile["loadMany"] = (names) =>
    Effect.gen(function*() {
      const wanted = yield* Effect.forEach(names, find)
      const byObject = new Map<string, Array<number>>()
      wanted.forEach(({ key, range }, i) => {
        if (range.start === range.endExclusive) return
        const indices = byObject.get(key)
        if (indices === undefined) byObject.set(key, [i])
        else indices.push(i)
      })
      const loaded = new Map<number, Uint8Array>()
      yield* Effect.forEach(
        byObject,
        ([key, indices]) => {
          const ranges = indices.flatMap((i) => wanted[i]?.range ?? []).map(toByteRange)
          return Effect.map(storage.loadRanges(key, ranges, condition(key)), (arrays) =>
            arrays.forEach((bytes, n) => loaded.set(indices[n] ?? -1, bytes)))
        },
        { concurrency: objectsAtOnce, discard: true }
      )
      return wanted.map((tensor, i) =>
        withBytes(tensor)(loaded.get(i) ?? new Uint8Array(0))
      )
    })

  const loadSlice: SafetensorsFile["loadSlice"] = (name, start, endExclusive) =>
    Effect.gen(function*() {
      const tensor = yield* find(name)
      const slice = yield* Header.slice(tensor, start, endExclusive)
      return withBytes(slice)(yield* loadBytes(slice.key, slice.range))
    })

  const loadRead = ({ key, range, tensors }: Read) =>
    Effect.map(loadBytes(key, range), (bytes): Chunk.Chunk<Tensor> =>
      Chunk.unsafeFromArray(
        tensors.map((tensor) =>
          withBytes(tensor)(bytes.subarray(tensor.range.start - range.start, tensor.range.endExclusive - range.start))
        )
      ))

  const stream: SafetensorsFile["stream"] = (names, { prefetch = 2 } = {}) => {
    if (!Number.isInteger(prefetch) || prefetch < 0) {
      const reason = `prefetch is a whole number from 0 up, not ${prefetch}`
      return Stream.fail(
        new E.UnsupportedOperation({ backend: storage.backend.name, operation: "stream", key: info.key, reason })
      )
    }
    return Stream.unwrap(Effect.gen(function*() {
      const asked = names === undefined ? undefined : new Set(yield* Effect.forEach(names, find))
      const wanted = asked === undefined
        ? tensors.values()
        : [...tensors.values()].filter((tensor) => asked.has(tensor))
      return readAhead(planReads(wanted), loadRead, prefetch)
    }))
  }

  return { info, files, tensors, metadata, load, loadMany, loadSlice, stream }
}

/**
 * The tensors of a file that is in memory whole, such as a chunk of a model, by name and in the order of their bytes. They
 * are views of the same memory, as far as an array of their elements may lie where they do. `key` is what failures tell
 * of the file.
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
    const end = Header.prefixLength + (yield* Header.lengthOf(key, bytes, bytes.byteLength))
    const { tensors } = yield* Header.parse(key, bytes.subarray(Header.prefixLength, end), bytes.byteLength)
    return new Map([...tensors].map(([name, tensor]) => {
      const { endExclusive, start } = tensor.range
      return [name, withBytes(tensor)(bytes.subarray(start, endExclusive))]
    }))
  })

const objectsAtOnce = 8

const toByteRange = ({ endExclusive, start }: ByteRange.ResolvedRange) => ByteRange.make(start, endExclusive)

const withBytes = (info: TensorInfo) => (loaded: Uint8Array): Tensor => {
  const bytes = aligned(info.dtype, loaded)
  // That the array is the one of this type is looked up, which the compiler cannot follow.
  return {
    ...info,
    bytes,
    values: valuesOf(info.dtype, bytes),
    toFloat32: () => toFloat32(info.dtype, bytes)
  } as Tensor
}

/** Tensors that are read together. */
interface Read {
  readonly key: string
  readonly range: ByteRange.ResolvedRange
  readonly tensors: ReadonlyArray<TensorInfo>
}

/** No read grows beyond this by joining. Larger ones cost more than they save: V8 would collect the whole heap for them. */
const readSize = 4 * 1024 * 1024

/** Tensors with less than this between them are read as one. */
const gap = 64 * 1024

/** The reads of a stream: of tensors that are in the order of their bytes. */
const planReads = (tensors: Iterable<TensorInfo>): ReadonlyArray<Read> => {
  const reads: Array<Read> = []
  let joined: Array<TensorInfo> = []
  for (const tensor of tensors) {
    const { key, range } = tensor
    const last = reads.at(-1)
    if (
      last?.key === key && range.start - last.range.endExclusive < gap &&
      range.endExclusive - last.range.start <= readSize
    ) {
      joined.push(tensor)
      reads[reads.length - 1] = {
        key,
        range: { start: last.range.start, endExclusive: range.endExclusive },
        tensors: joined
      }
    } else {
      joined = [tensor]
      reads.push({ key, range, tensors: joined })
    }
  }
  return reads
}

/**
 * Opens a model in several files by its index, such as `model.safetensors.index.json`, whose `weight_map` names the file
 * of each tensor. The files are in the folder of the index or below; the headers of all are read and checked, and the
 * tensors are those that the index names. `metadata` is that of the index.
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
  Effect.gen(function*() {
    const storage = yield* Storage.Storage
    const { bytes, info } = yield* readIndex(storage, indexKey)
    const { metadata, shards } = yield* ShardIndex.parse(indexKey, bytes)
    const parts = yield* Effect.forEach(shards, ([key]) => openPart(storage, key), { concurrency: objectsAtOnce })
    const tensors = new Map<string, TensorInfo>()
    for (const [i, { header, info }] of parts.entries()) {
      const names = shards[i]?.[1] ?? new Set()
      for (const name of names) {
        if (!header.tensors.has(name)) return yield* missing(indexKey, name, info.key)
      }
      for (const [name, tensor] of header.tensors) if (names.has(name)) tensors.set(name, tensor)
    }
    return make(storage, info, { tensors, metadata }, parts)
  })

const readIndex = (storage: Storage.Service, key: string) =>
  storage.open(key).pipe(
    Effect.filterOrFail(
      ({ info }) => info.size <= Header.maxLength,
      ({ info }) => new SafetensorsError({ key, field: "index", reason: `it has ${info.size} bytes, too many for one` })
    ),
    Effect.flatMap(({ info, stream }) => Effect.map(collect(stream), (bytes) => ({ info, bytes }))),
    Effect.scoped
  )

const missing = (key: string, tensor: string, shard: string) =>
  new SafetensorsError({
    key,
    field: "weight_map",
    tensor,
    reason: `it is not in ${JSON.stringify(shard)}, where the index says that it is`
  })

/**
 * Saves tensors as a file: all or nothing, like any save. The header comes first and names them all, so a stream of
 * tensors is read to its end before a byte is written; what does not fit in memory is given as tensors whose `data` are
 * streams. They lie in the file in the order of the reference implementation, each where a typed array over it may.
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
): Effect.Effect<Storage.ObjectInfo, E.SaveError | SafetensorsError | Err, R | Storage.Storage> =>
  Effect.gen(function*() {
    const { metadata, ...conditions } = options
    const declared = Stream.StreamTypeId in tensors ? yield* Stream.runCollect(tensors) : tensors
    const { header, size, tensors: placed } = yield* Header.encode(key, declared, metadata)
    const data = yield* Effect.forEach(placed, ({ length, tensor }) => dataOf(key, tensor, length))
    return yield* Storage.save(key, joined([header, ...data]), { ...conditions, size })
  })

/** The bytes of a tensor, which are as many as it takes. */
const dataOf = <Err, R>(
  key: string,
  { data, dtype, name }: TensorSource<Err, R>,
  length: number
): Effect.Effect<Uint8Array | Stream.Stream<Uint8Array, Err | SafetensorsError, R>, SafetensorsError> => {
  const wrong = (reason: string) => new SafetensorsError({ key, field: "data", tensor: name, reason })
  const wrongLength = (actual: number) => wrong(`${actual} bytes, and its type and shape take ${length}`)
  if (Stream.StreamTypeId in data) return Effect.succeed(exactly(data, length, wrongLength))
  const bytes = bytesOf(dtype, data)
  return bytes === undefined
    ? Effect.fail(wrong(`the elements of ${dtype} are not those of a ${data.constructor.name}`))
    : bytes.byteLength === length
    ? Effect.succeed(bytes)
    : Effect.fail(wrongLength(bytes.byteLength))
}

/** One after the other. What is at hand goes as it is, in as few chunks as can be. */
const joined = <Err, R>(
  pieces: ReadonlyArray<Uint8Array | Stream.Stream<Uint8Array, Err, R>>
): Stream.Stream<Uint8Array, Err, R> => {
  const runs: Array<Array<Uint8Array> | Stream.Stream<Uint8Array, Err, R>> = []
  for (const piece of pieces) {
    const last = runs.at(-1)
    if (!(piece instanceof Uint8Array)) runs.push(piece)
    else if (Array.isArray(last)) last.push(piece)
    else runs.push([piece])
  }
  return Stream.flatMap(
    Stream.fromIterable(runs),
    (run) => Array.isArray(run) ? Stream.fromChunk(Chunk.unsafeFromArray(run)) : run
  )
}
