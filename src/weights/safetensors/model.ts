/**
 * Opens models: reads and checks the headers of their files, and nothing else.
 */
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as ByteRange from "../../ByteRange.js"
import { collect, concat } from "../../internal/bytes.js"
import type * as Storage from "../../Storage.js"
import type { LoadError } from "../../StorageError.js"
import { quoted } from "../internal/text.js"
import type { Decoder } from "./compressed/decoder.js"
import { invalid, type SafetensorsError } from "./errors.js"
import * as Header from "./header.js"
import * as Layout from "./layout.js"
import * as ShardIndex from "./shardIndex.js"

/**
 * The failures of reading tensors.
 *
 * @since 0.1.0
 * @category errors
 */
export type ReadError = LoadError | SafetensorsError

/**
 * An object with tensors, as it was when it was opened.
 *
 * @since 0.1.0
 * @category models
 */
export interface FileInfo {
  readonly info: Storage.ObjectInfo
  readonly metadata: Readonly<Record<string, string>>
}

/** A model in one file or several, and the storage to read it from. */
export interface Model extends FileInfo {
  readonly storage: Storage.Service
  /** Where one of its files is compressed. */
  readonly decoder: Decoder | undefined
  readonly files: ReadonlyMap<string, FileInfo>
  /** By name, in the order of their bytes, shard after shard. */
  readonly tensors: ReadonlyMap<string, Header.TensorInfo>
}

/** How many shards are read at once. */
export const shardConcurrency = 8

/** The size of the first read of a file: enough for a header with a thousand tensors. */
const firstReadSize = 128 * 1024

export const openFile = (storage: Storage.Service, key: string): Effect.Effect<Model, ReadError> =>
  Effect.map(readHeader(storage, key), ({ decoder, info, metadata, tensors }) => ({
    storage,
    decoder,
    info,
    metadata,
    tensors,
    files: new Map([[key, { info, metadata }]])
  }))

export const openIndex = (storage: Storage.Service, indexKey: string): Effect.Effect<Model, ReadError> =>
  Effect.gen(function*() {
    const { info, metadata, shards } = yield* loadIndex(storage, indexKey)
    const files = new Map<string, FileInfo>()
    const tensors = new Map<string, Header.TensorInfo>()
    const headers = yield* Effect.forEach(
      shards,
      ([key, names]) => Effect.map(readHeader(storage, key), (header) => ({ ...header, names })),
      { concurrency: shardConcurrency }
    )
    for (const header of headers) {
      const { key } = header.info
      files.set(key, { info: header.info, metadata: header.metadata })
      for (const name of header.names) {
        if (!header.tensors.has(name)) {
          return yield* invalid(indexKey, "weight_map", `the tensor is not in its file ${quoted(key)}`, name)
        }
      }
      for (const [name, tensor] of header.tensors) if (header.names.has(name)) tensors.set(name, tensor)
    }
    const decoder = headers.find(({ decoder }) => decoder !== undefined)?.decoder
    return { storage, decoder, info, metadata, files, tensors }
  })

/** An index ends in `.json`. */
export const open = (storage: Storage.Service, key: string): Effect.Effect<Model, ReadError> =>
  key.endsWith(".json") ? openIndex(storage, key) : openFile(storage, key)

const readHeader = (
  storage: Storage.Service,
  key: string
): Effect.Effect<
  Header.Header & { readonly info: Storage.ObjectInfo; readonly decoder: Decoder | undefined },
  ReadError
> =>
  Effect.gen(function*() {
    const { beginning, info } = yield* readBeginning(storage, key)
    const end = Header.prefixLength + (yield* Header.jsonLength(key, beginning, info.size))
    const json = end <= beginning.byteLength
      ? beginning.subarray(Header.prefixLength, end)
      : yield* readLongJson(storage, info, beginning, end)
    const stored = yield* Header.parse(key, json, info.size)
    if (!Layout.isCompressed(stored.metadata)) return { ...stored, info, decoder: undefined }
    const { make } = yield* Effect.promise(() => import("./compressed/decoder.js"))
    const decoder = yield* make
    const { metadata, tensors } = yield* decoder.resolve(key, stored)
    return { info, decoder, tensors, metadata }
  })

const readBeginning = (storage: Storage.Service, key: string) =>
  storage.open(key, { range: ByteRange.make(0, firstReadSize) }).pipe(
    Effect.flatMap(({ info, stream }) => Effect.map(collect(stream), (beginning) => ({ info, beginning }))),
    Effect.scoped,
    // Only of an empty object is this range invalid.
    Effect.catchTag(
      "InvalidRange",
      () => Effect.fail(invalid(key, "header size", "the file is empty; download it again"))
    )
  )

/** The JSON of a header that is longer than the first read. */
const readLongJson = (storage: Storage.Service, info: Storage.ObjectInfo, beginning: Uint8Array, end: number) =>
  Effect.map(
    storage.load(info.key, { range: ByteRange.make(beginning.byteLength, end), ifMatch: info.etag }),
    (rest) => concat([beginning.subarray(Header.prefixLength), rest])
  )

/** Reads the index of a sharded model, but none of its files. */
export const loadIndex = (
  storage: Storage.Service,
  key: string
): Effect.Effect<ShardIndex.ShardIndex & { readonly info: Storage.ObjectInfo }, ReadError> =>
  storage.open(key).pipe(
    Effect.filterOrFail(
      ({ info }) => info.size <= Header.maxJsonLength,
      ({ info }) => invalid(key, "index", `an index of ${info.size} bytes is over the limit of ${Header.maxJsonLength}`)
    ),
    Effect.flatMap(({ info, stream }) => Effect.map(collect(stream), (json) => ({ info, json }))),
    Effect.scoped,
    Effect.flatMap(({ info, json }) => Either.map(ShardIndex.parse(key, json), (index) => ({ ...index, info })))
  )
