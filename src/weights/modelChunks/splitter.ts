/**
 * Splits a safetensors model into chunks.
 */
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Stream from "effect/Stream"
import * as ByteRange from "../../ByteRange.js"
import { hexDigest } from "../../internal/hash.js"
import * as ObjectKey from "../../ObjectKey.js"
import type { LoadError, SaveError, StorageError } from "../../StorageError.js"
import type { InvalidOption } from "../internal/options.js"
import { quoted, quotedList } from "../internal/text.js"
import type { SafetensorsError } from "../safetensors/errors.js"
import type { TensorInfo } from "../safetensors/header.js"
import * as Layout from "../safetensors/layout.js"
import * as Model from "../safetensors/model.js"
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
  order: ReadonlyArray<string> | undefined
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
    const chunks = yield* Effect.forEach(plans, (plan) => writeChunk(folder, model, plan))
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

const lengthOf = ({ range }: TensorInfo): number => range.endExclusive - range.start

/** A chunk that is to be written. */
interface ChunkPlan {
  readonly name: string
  /** After the prefix. */
  readonly key: string
  readonly layout: Layout.Layout<TensorInfo>
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
  return Either.map(Layout.make(target, tensors, metadata, "as given"), (layout) => ({ name, key, layout }))
}

/** Streams the bytes of a chunk from the source into its object, and hashes them on the way. */
const writeChunk = (
  { newHash, prefix, storage }: Folder,
  { files }: Model.Model,
  { key, layout: { header, size, tensors }, name }: ChunkPlan
): Effect.Effect<Manifest.ChunkInfo, LoadError | SaveError> =>
  Effect.gen(function*() {
    const hash = newHash()
    const data = Stream.flatMap(Stream.fromIterable(runsOf(tensors)), ({ endExclusive, key, start }) => {
      const file = files.get(key)
      const range = ByteRange.make(start, endExclusive)
      return storage.stream(key, { range, ...(file !== undefined && { ifMatch: file.info.etag }) })
    })
    const hashed = Stream.mapChunks(Stream.concat(Stream.make(header), data), (pieces) => {
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

/** Bytes of a source file that go into a chunk as they are. */
interface Run extends ByteRange.ResolvedRange {
  readonly key: string
}

/** The bytes of tensors in the order of the chunk. Those that are adjacent in the source too are one run. */
const runsOf = (tensors: ChunkPlan["layout"]["tensors"]): ReadonlyArray<Run> => {
  const runs: Array<Run> = []
  for (const { tensor: { key, range: { endExclusive, start } } } of tensors) {
    const last = runs.at(-1)
    if (start === endExclusive) continue
    if (last?.key === key && last.endExclusive === start) runs[runs.length - 1] = { ...last, endExclusive }
    else runs.push({ key, start, endExclusive })
  }
  return runs
}
