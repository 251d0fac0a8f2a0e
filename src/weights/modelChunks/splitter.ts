/**
 * Splits a safetensors model into chunks.
 */
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Stream from "effect/Stream"
import { hexDigest } from "../../internal/hash.js"
import * as ObjectKey from "../../ObjectKey.js"
import type { LoadError, SaveError, StorageError } from "../../StorageError.js"
import type { InvalidOption } from "../internal/options.js"
import { quoted, quotedList } from "../internal/text.js"
import * as Deflate from "../safetensors/compressed/deflate.js"
import { lengthOf } from "../safetensors/compressed/description.js"
import * as Encoder from "../safetensors/compressed/encoder.js"
import type { SafetensorsError } from "../safetensors/errors.js"
import type { TensorInfo } from "../safetensors/header.js"
import * as Layout from "../safetensors/layout.js"
import * as Model from "../safetensors/model.js"
import * as Reader from "../safetensors/reader.js"
import { checkWritable, type Folder, invalid, type ModelChunksError } from "./folder.js"
import * as ForwardOrder from "./forwardOrder.js"
import * as Grouping from "./grouping.js"
import * as Manifest from "./manifest.js"

/** Which tensors go into one chunk: those of one layer, those for which a function returns the same name, or as many as fit. */
export type SplitBy = "layer" | ((tensor: string) => string) | { readonly bytes: number }

export const split = (
  folder: Folder,
  source: string,
  by: SplitBy,
  order: ReadonlyArray<string> | undefined,
  compress: boolean
): Effect.Effect<Manifest.Manifest, StorageError | SafetensorsError | ModelChunksError> =>
  Effect.gen(function*() {
    yield* checkWritable(folder, source)
    if (source === folder.manifestKey) {
      return yield* invalid(folder, "target", `the manifest would replace the source ${quoted(source)}`, source)
    }
    const model = yield* Model.open(folder.storage, source)
    const groups = yield* groupTensors(folder, source, [...model.tensors.values()], by, order)
    const plans = yield* Either.all(groups.map((group) => planChunk(folder, model, group)))

    yield* folder.storage.remove(folder.manifestKey)
    const chunks = yield* Effect.forEach(plans, (plan) => writeChunk(folder, model, plan, compress))
    return yield* Manifest.write(folder, chunks)
  })

const groupTensors = (
  folder: Folder,
  source: string,
  tensors: ReadonlyArray<TensorInfo>,
  by: SplitBy,
  order: ReadonlyArray<string> | undefined
): Either.Either<ReadonlyArray<Grouping.Group<TensorInfo>>, ModelChunksError> =>
  Either.gen(function*() {
    const fail = ({ option, reason }: InvalidOption) => invalid(folder, option, reason, source)
    const sorted = order === undefined
      ? ForwardOrder.sort(tensors)
      : yield* Either.mapLeft(ForwardOrder.sortBy(tensors, order), fail)
    const groups = group(sorted, by)
    if (groups === undefined) {
      const names = quotedList(tensors.map(({ name }) => name))
      const reason =
        `the names of the tensors contain no layers (${names}); set by to a function of the name, or { bytes }`
      return yield* Either.left(fail({ option: "by", reason }))
    }
    const reason = ForwardOrder.problem(sorted, groups)
    return reason === undefined ? groups : yield* Either.left(fail({ option: "order", reason }))
  })

const group = (
  sorted: ForwardOrder.Sorted<TensorInfo>,
  by: SplitBy
): ReadonlyArray<Grouping.Group<TensorInfo>> | undefined => {
  if (by === "layer") return Grouping.byLayer(sorted)
  return typeof by === "function" ? Grouping.byName(sorted, by) : Grouping.bySize(sorted, by.bytes, lengthOf)
}

/** A chunk that is to be written. */
interface ChunkPlan {
  readonly name: string
  /** After the prefix. */
  readonly key: string
  readonly layout: Layout.Layout<TensorInfo>
  readonly metadata: Readonly<Record<string, string>>
}

const planChunk = (
  folder: Folder,
  { files, info }: Model.Model,
  { name, tensors }: Grouping.Group<TensorInfo>
): Either.Either<ChunkPlan, ModelChunksError | SafetensorsError> => {
  const fail = (field: string, reason: string) => Either.left(invalid(folder, field, reason, info.key))
  const key = `${name}.safetensors`
  const problem = name === "" ? "it is empty" : ObjectKey.problem(key) ?? ObjectKey.problem(folder.prefix + key)
  if (problem !== undefined) {
    const tensor = quoted(tensors[0]?.name ?? "")
    return fail("by", `the name ${quoted(name)} for tensor ${tensor} cannot be part of a key: ${problem}`)
  }
  const target = folder.prefix + key
  if (target === info.key || files.has(target)) {
    return fail("target", `chunk ${quoted(name)} would replace the source ${quoted(target)}`)
  }
  const metadata: Record<string, string> = {}
  for (const file of new Set(tensors.map((tensor) => files.get(tensor.key)))) Object.assign(metadata, file?.metadata)
  return Either.map(Layout.make(target, tensors, metadata, "as given"), (layout) => ({ name, key, layout, metadata }))
}

/** Streams the bytes of a chunk from the source into its object, and hashes them on the way. */
const writeChunk = (
  { newHash, prefix, storage }: Folder,
  model: Model.Model,
  plan: ChunkPlan,
  compress: boolean
): Effect.Effect<Manifest.ChunkInfo, LoadError | SaveError | SafetensorsError> =>
  Effect.gen(function*() {
    const { key, layout: { tensors }, name } = plan
    const hash = newHash()
    const { bytes, size } = yield* contentOf(model, prefix + key, plan, compress)
    const hashed = Stream.mapChunks(bytes, (pieces) => {
      for (const bytes of pieces) hash.update(bytes)
      return pieces
    })
    yield* storage.save(prefix + key, hashed, { size })
    return new Manifest.ChunkInfo({
      name,
      key,
      size,
      sha256: hexDigest(hash),
      tensors: tensors.map(({ tensor }) => tensor.name)
    })
  })

/** The file of a chunk; as it is if compression does not make it smaller. */
const contentOf = (
  model: Model.Model,
  key: string,
  { layout: { header, size, tensors }, metadata }: ChunkPlan,
  compress: boolean
): Effect.Effect<Encoder.Encoded<LoadError, never>, LoadError | SafetensorsError> => {
  const read = (first: number) => Reader.bytesOf(model, tensors.slice(first).map(({ tensor }) => tensor))
  const plain = { size, bytes: Stream.concat(Stream.make(header), read(0)) }
  const declared = tensors.map(({ length, tensor: { dtype, name, shape } }) => ({ name, dtype, shape, length }))
  return compress
    ? Effect.map(
      Effect.flatMap(
        Deflate.load,
        (deflate) => Encoder.encode(deflate, key, { size, header, tensors: declared, metadata, read })
      ),
      (encoded) => encoded.size < size ? encoded : plain
    )
    : Effect.succeed(plain)
}
