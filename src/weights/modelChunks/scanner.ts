/**
 * Builds a manifest from objects that exist.
 */
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Stream from "effect/Stream"
import { hexDigest } from "../../internal/hash.js"
import type { LoadError, StorageError } from "../../StorageError.js"
import { isStandIn, recognize, sentence, sniffLength } from "../internal/fileKind.js"
import { quoted } from "../internal/text.js"
import type { SafetensorsError } from "../safetensors/errors.js"
import * as Model from "../safetensors/model.js"
import { bypassingCaches, checkWritable, type Folder, invalid, manifestName, type ModelChunksError } from "./folder.js"
import * as Manifest from "./manifest.js"
import { compareNatural } from "./naturalOrder.js"
import { select } from "./selection.js"

export const writeManifest = (
  folder: Folder,
  include: ((key: string) => boolean) | undefined,
  concurrency: number
): Effect.Effect<Manifest.Manifest, StorageError | SafetensorsError | ModelChunksError> =>
  Effect.gen(function*() {
    yield* checkWritable(folder, folder.manifestKey)
    const listed = yield* folder.storage.list(folder.prefix)
    const keys = listed.map((key) => key.slice(folder.prefix.length)).filter((key) => key !== manifestName)
    const selected = include === undefined ? yield* select(folder, keys) : keys.filter(include)
    const sorted = [...selected].sort(compareNatural)
    const sources = yield* Effect.forEach(sorted, (key) => openSource(folder, key), { concurrency })
    yield* checkOverlap(folder, sources)
    const chunks = yield* Effect.forEach(sources, (source) => hashChunk(folder, source), { concurrency })
    return yield* Manifest.write(folder, chunks)
  })

/** A file that becomes a chunk, with its header if it is a safetensors file. */
interface Source {
  readonly key: string
  readonly model: Model.Model | undefined
}

const openSource = (folder: Folder, key: string): Effect.Effect<Source, LoadError | SafetensorsError> => {
  const { prefix, storage } = bypassingCaches(folder)
  return /\.safetensors$/i.test(key)
    ? Effect.map(Model.openFile(storage, prefix + key), (model) => ({ key, model }))
    : Effect.succeed({ key, model: undefined })
}

/** Files with the same tensor are a model in two forms, or two models. They are refused before they are read. */
const checkOverlap = (folder: Folder, sources: ReadonlyArray<Source>): Either.Either<void, ModelChunksError> => {
  const seen = new Map<string, number>()
  for (const [i, { model }] of sources.entries()) {
    for (const tensor of model?.tensors.keys() ?? []) {
      const first = seen.get(tensor)
      if (first === undefined) seen.set(tensor, i)
      else {
        const reason = `${quoted(tensor)} is in chunks[${first}] (${quoted(sources[first]?.key ?? "")}) already; if ` +
          "these are two forms of a model, set include to select one"
        return Either.left(invalid(folder, `chunks[${i}].tensors`, reason))
      }
    }
  }
  return Either.void
}

/** Reads an object once, bypassing all caches, and describes it. */
const hashChunk = (
  folder: Folder,
  { key, model }: Source
): Effect.Effect<Manifest.ChunkInfo, LoadError | ModelChunksError> =>
  Effect.gen(function*() {
    const { newHash, prefix, storage } = bypassingCaches(folder)
    const { info, stream } = yield* storage.open(
      prefix + key,
      model === undefined ? {} : { ifMatch: model.info.etag }
    )
    const hash = newHash()
    let beginning: Uint8Array | undefined
    yield* Stream.runDrain(Stream.map(stream, (bytes) => {
      beginning ??= bytes.slice(0, sniffLength)
      hash.update(bytes)
    }))
    const other = beginning && recognize(beginning)
    if (other !== undefined && isStandIn(other)) {
      return yield* invalid(folder, "include", sentence(other, "weights"), prefix + key)
    }
    return new Manifest.ChunkInfo({
      name: key,
      key,
      size: info.size,
      sha256: hexDigest(hash),
      ...(model !== undefined && { tensors: [...model.tensors.keys()] })
    })
  }).pipe(Effect.scoped)
