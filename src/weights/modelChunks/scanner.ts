/**
 * Builds a manifest from objects that exist.
 */
import * as Chunk from "effect/Chunk"
import * as Effect from "effect/Effect"
import * as Stream from "effect/Stream"
import type { LoadError, StorageError } from "../../StorageError.js"
import { hexDigest } from "../internal/sha256.js"
import type { SafetensorsError } from "../safetensors/errors.js"
import * as Model from "../safetensors/model.js"
import { bypassingCaches, checkWritable, type Folder, manifestName, type ModelChunksError } from "./folder.js"
import { compareNatural } from "./grouping.js"
import * as Manifest from "./manifest.js"

export const writeManifest = (
  folder: Folder,
  include: (key: string) => boolean,
  concurrency: number
): Effect.Effect<Manifest.Manifest, StorageError | SafetensorsError | ModelChunksError> =>
  Effect.gen(function*() {
    yield* checkWritable(folder, folder.manifestKey)
    const chunks = yield* folder.storage.entries({ prefix: folder.prefix }).pipe(
      Stream.map((info) => info.key.slice(folder.prefix.length)),
      Stream.filter((key) => key !== manifestName && include(key)),
      Stream.mapEffect((key) => scanChunk(folder, key), { concurrency, unordered: true }),
      Stream.runCollect
    )
    return yield* Manifest.write(folder, Chunk.toArray(chunks).sort((a, b) => compareNatural(a.name, b.name)))
  })

/** Reads an object once, bypassing all caches, and describes it. */
const scanChunk = (
  folder: Folder,
  key: string
): Effect.Effect<Manifest.ChunkInfo, LoadError | SafetensorsError> =>
  Effect.gen(function*() {
    const { newHash, prefix, storage } = bypassingCaches(folder)
    const model = key.endsWith(".safetensors") ? yield* Model.openFile(storage, prefix + key) : undefined
    const { info, stream } = yield* storage.open(
      prefix + key,
      model === undefined ? {} : { ifMatch: model.info.etag }
    )
    const hash = newHash()
    yield* Stream.runDrain(Stream.map(stream, (bytes) => hash.update(bytes)))
    return new Manifest.ChunkInfo({
      name: key,
      key,
      size: info.size,
      sha256: hexDigest(hash),
      ...(model !== undefined && { tensors: [...model.tensors.keys()] })
    })
  }).pipe(Effect.scoped)
