/**
 * Loads the chunks of a model, one by one or in order, and checks each against the manifest.
 */
import * as Chunk from "effect/Chunk"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Stream from "effect/Stream"
import { withPlace } from "../../internal/errors.js"
import { hashOf } from "../../internal/hash.js"
import { readAhead } from "../../internal/readAhead.js"
import { CorruptObject, exhausted, type LoadError, type UnsupportedOperation } from "../../StorageError.js"
import { unshared } from "../internal/arrays.js"
import { quoted, quotedList } from "../internal/text.js"
import * as Deflate from "../safetensors/compressed/deflate.js"
import { bypassingCaches, type Folder, invalid, type ModelChunksError } from "./folder.js"
import { checkDigest, checkSize, type ChunkInfo, type Manifest } from "./manifest.js"

/**
 * A chunk and its bytes.
 *
 * @since 0.1.0
 * @category models
 */
export interface LoadedChunk {
  readonly chunk: ChunkInfo
  readonly bytes: Uint8Array<ArrayBuffer>
}

/** A model whose manifest has been read. */
export interface OpenModel {
  readonly folder: Folder
  readonly manifest: Manifest
  readonly chunks: ReadonlyMap<string, ChunkInfo>
  /** The last chunks of the latest stream, kept for the next one. */
  readonly kept: Map<ChunkInfo, Uint8Array<ArrayBuffer>>
}

export const make = (folder: Folder, manifest: Manifest): OpenModel => ({
  folder,
  manifest,
  chunks: new Map(manifest.chunks.map((chunk) => [chunk.name, chunk])),
  kept: new Map()
})

export const load = (
  model: OpenModel,
  name: string
): Effect.Effect<Uint8Array<ArrayBuffer>, LoadError | ModelChunksError> => {
  const folder: Folder = { ...model.folder, operation: "load" }
  return Effect.flatMap(find(model, folder, name, "name"), (chunk) => loadChunk(folder, chunk))
}

/** How a stream goes through a model; see `StreamOptions`. */
export interface Pass {
  readonly prefetch: number
  readonly keepLast: number
  readonly order: ReadonlyArray<string> | undefined
}

export const stream = (
  model: OpenModel,
  { keepLast, order, prefetch }: Pass
): Stream.Stream<LoadedChunk, LoadError | ModelChunksError> => {
  const folder: Folder = { ...model.folder, operation: "stream" }
  return order === undefined
    ? streamChunks(model, model.manifest.chunks, prefetch, keepLast)
    : Stream.unwrap(Effect.map(
      Either.all(order.map((name, i) => find(model, folder, name, `order[${i}]`))),
      (chunks) => streamChunks(model, chunks, prefetch, keepLast)
    ))
}

const streamChunks = (
  { folder, kept }: OpenModel,
  chunks: ReadonlyArray<ChunkInfo>,
  prefetch: number,
  keepLast: number
): Stream.Stream<LoadedChunk, LoadError> =>
  Stream.suspend(() => {
    for (const chunk of kept.keys()) if (!chunks.includes(chunk)) kept.delete(chunk)
    const loadAt = ([index, chunk]: readonly [number, ChunkInfo]) =>
      Effect.suspend(() => {
        const bytes = kept.get(chunk)
        return bytes === undefined ? loadChunk({ ...folder, operation: "load" }, chunk) : Effect.succeed(bytes)
      }).pipe(Effect.map((bytes) => Chunk.of({ index, chunk, bytes })))
    // The first chunk loads alone, since it is needed at once.
    return Stream.map(readAhead(chunks.entries(), loadAt, prefetch, 1), ({ bytes, chunk, index }) => {
      if (index >= chunks.length - keepLast) kept.set(chunk, bytes)
      else kept.delete(chunk)
      return { chunk, bytes }
    })
  })

const find = (
  { chunks }: OpenModel,
  folder: Folder,
  name: string,
  field: string
): Either.Either<ChunkInfo, ModelChunksError> =>
  Either.fromNullable(
    chunks.get(name),
    () => invalid(folder, field, `there is no chunk ${quoted(name)}; the chunks are ${quotedList([...chunks.keys()])}`)
  )

/** A chunk as the manifest describes it. A damaged one is loaded again, bypassing all caches. */
const loadChunk = (folder: Folder, chunk: ChunkInfo): Effect.Effect<Uint8Array<ArrayBuffer>, LoadError> => {
  const attempt = ({ newHash, prefix, storage }: Folder) =>
    Effect.gen(function*() {
      const bytes = yield* storage.load(prefix + chunk.key)
      yield* checkSize(folder, chunk, bytes.byteLength, bytes)
      yield* checkDigest(folder, chunk, yield* hashOf(newHash, bytes))
      return yield* decompress(folder, chunk, unshared(bytes))
    })
  return Effect.catchIf(attempt(folder), isDamaged, (error) =>
    attempt(bypassingCaches(folder)).pipe(
      Effect.mapError((error) => isDamaged(error) ? exhausted(error, 2) : error),
      Effect.zipLeft(Effect.logWarning("A cache had a damaged chunk; it was loaded again from the storage", error))
    ))
}

/** The file that was compressed, if the chunk is one. */
const decompress = (
  { prefix, storage }: Folder,
  { key, name }: ChunkInfo,
  bytes: Uint8Array<ArrayBuffer>
): Effect.Effect<Uint8Array<ArrayBuffer>, CorruptObject | UnsupportedOperation> =>
  Effect.gen(function*() {
    const { ofBytes } = yield* Effect.promise(() => import("../safetensors/compressed/originalFile.js"))
    return yield* ofBytes(yield* Deflate.load, prefix + key, bytes)
  }).pipe(
    Effect.catchTag(
      "SafetensorsError",
      ({ message }) =>
        Effect.fail(
          new CorruptObject({ problem: "frame", reason: `chunk ${quoted(name)} cannot be decoded: ${message}` })
        )
    ),
    Effect.mapError((error) =>
      withPlace(error, { backend: storage.backend.name, operation: "load", key: prefix + key })
    )
  )

const isDamaged = (error: LoadError): error is CorruptObject =>
  error._tag === "CorruptObject" && error.problem !== "truncated"
