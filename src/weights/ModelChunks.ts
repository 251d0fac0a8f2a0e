/**
 * A model in chunks: one object for each part of its forward pass, so that a layer can be used while the next one loads,
 * and a model that is larger than memory can run at all.
 *
 * What the chunks are and in which order they come stands in a manifest, the object `manifest.json` beside them:
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
 * - `make` splits a safetensors model into such chunks; `index` writes a manifest for what is there already.
 * - `open` reads a manifest; chunks are then loaded by name, or streamed in order with the next ones loading ahead. Each
 *   is held against its size and its SHA-256 before anybody sees it.
 * - `verify` reads everything again and tells what is damaged.
 *
 * A hash says that the bytes are those for which the manifest was written. Who can write the chunks can write the
 * manifest, too.
 *
 * @module ModelChunks
 * @since 0.1.0
 */
import type * as FileSystem from "@effect/platform/FileSystem"
import * as Arr from "effect/Array"
import * as Chunk from "effect/Chunk"
import * as Data from "effect/Data"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Fiber from "effect/Fiber"
import * as Option from "effect/Option"
import * as ParseResult from "effect/ParseResult"
import * as Schema from "effect/Schema"
import * as Stream from "effect/Stream"
import * as ByteRange from "../ByteRange.js"
import { collect } from "../internal/bytes.js"
import * as Grouping from "../internal/chunks/grouping.js"
import { hashOf, type Sha256, sha256 } from "../internal/chunks/sha256.js"
import { shown } from "../internal/safetensors/error.js"
import * as Header from "../internal/safetensors/header.js"
import * as ObjectKey from "../ObjectKey.js"
import * as Storage from "../Storage.js"
import * as E from "../StorageError.js"
import * as Safetensors from "./Safetensors.js"

/**
 * The key of a manifest, after the prefix.
 *
 * @since 0.1.0
 * @category constants
 */
export const manifestName = "manifest.json"

const ChunkKey = Schema.String.pipe(
  Schema.filter((key) => {
    const problem = key === manifestName ? "it is that of the manifest" : ObjectKey.problem(key)
    return problem === undefined || `${shown(key)} cannot be the key of a chunk: ${problem}`
  })
)

const Size = Schema.Number.pipe(
  Schema.filter((size) => (Number.isSafeInteger(size) && size >= 0) || `${size} is no number of bytes`)
)

const Digest = Schema.String.pipe(
  Schema.filter((text) => /^[0-9a-f]{64}$/.test(text) || `${shown(text)} is not 64 lower-case hexadecimal digits`)
)

/**
 * What a manifest says of a chunk.
 *
 * @since 0.1.0
 * @category models
 */
export class ChunkInfo extends Schema.Class<ChunkInfo>("surfing-weights/ChunkInfo")({
  /** Unique within the model. */
  name: Schema.NonEmptyString,
  /** The key of its object, after the prefix. */
  key: ChunkKey,
  /** In bytes. */
  size: Size,
  /** In lower-case hexadecimal. */
  sha256: Digest,
  /** The names of its tensors, where it is a safetensors file. */
  tensors: Schema.optionalWith(Schema.Array(Schema.String), { exact: true })
}) {}

/**
 * The chunks of a model, in the order of its forward pass.
 *
 * @since 0.1.0
 * @category models
 */
export class Manifest extends Schema.Class<Manifest>("surfing-weights/ModelManifest")({
  schema: Schema.Literal("surfing-weights/model-chunks"),
  version: Schema.Literal(1).annotations({
    message: ({ actual }) => `it is ${JSON.stringify(actual)}, and this library reads version 1`
  }),
  chunks: Schema.Array(ChunkInfo).pipe(Schema.filter((chunks) => repetitions(chunks)))
}) {}

/** What is in two chunks and may be in one only. */
const repetitions = (chunks: ReadonlyArray<ChunkInfo>): ReadonlyArray<Schema.FilterIssue> => {
  const seen = { name: new Map<string, number>(), key: new Map<string, number>(), tensors: new Map<string, number>() }
  const issues: Array<Schema.FilterIssue> = []
  const note = (field: keyof typeof seen, value: string, index: number) => {
    const first = seen[field].get(value)
    if (first === undefined) seen[field].set(value, index)
    else if (issues.length === 0) {
      const other = field === "tensors" ? `, which is ${shown(chunks[first]?.name ?? "")}` : ""
      issues.push({ path: [index, field], message: `${shown(value)} is in chunks[${first}] already${other}` })
    }
  }
  for (const [index, { key, name, tensors = [] }] of chunks.entries()) {
    note("name", name, index)
    note("key", key, index)
    for (const tensor of tensors) note("tensors", tensor, index)
  }
  return issues
}

/**
 * What is asked for cannot be: `field` names the field of a manifest, or the option or argument, that is wrong, and
 * `reason` says why. `key` is the manifest, or the source of `make`.
 *
 * @since 0.1.0
 * @category errors
 */
export class ModelChunksError extends Schema.TaggedError<ModelChunksError>("surfing-weights/ModelChunksError")(
  "ModelChunksError",
  {
    backend: Schema.String,
    operation: Schema.Literal("make", "open", "index", "verify", "load", "stream"),
    key: Schema.String,
    field: Schema.String,
    reason: Schema.String
  }
) {
  /** @since 0.1.0 */
  override get message(): string {
    return `${this.operation} ${JSON.stringify(this.key)} on ${this.backend}: ${this.field}: ${this.reason}`
  }
}

/**
 * A chunk and its bytes.
 *
 * @since 0.1.0
 * @category models
 */
export interface LoadedChunk {
  readonly chunk: ChunkInfo
  readonly bytes: Uint8Array
}

/**
 * In which order to stream chunks, and how many of them are in memory.
 *
 * @since 0.1.0
 * @category models
 */
export interface StreamOptions {
  /** How many chunks load while one is in use: a whole number from 0 up. Default: 1. */
  readonly prefetch?: number
  /** The names of the chunks to stream; one may come more than once. Default: all, in the order of the manifest. */
  readonly order?: ReadonlyArray<string>
  /**
   * How many chunks at the end of this stream stay in memory for the next one: a whole number from 0 up. It is given
   * them without loading; they then go, unless they are among its own last. Nobody may write to their bytes. Default: 0.
   */
  readonly keepLast?: number
}

/**
 * A model of which the manifest was read.
 *
 * @since 0.1.0
 * @category models
 */
export interface Model {
  readonly manifest: Manifest
  /** The chunks by their names, in the order of the manifest. */
  readonly chunks: ReadonlyMap<string, ChunkInfo>
  /**
   * The bytes of a chunk, which are those that the manifest tells of: in an array of the caller's own, unless the storage
   * is a cache that shares its arrays. A chunk of another size or SHA-256 is loaded once more, past every cache on the
   * way; if it is still wrong, that is `CorruptObject` with the problem `size` or `checksum`. A name that the manifest has
   * not is `ModelChunksError`.
   */
  readonly load: (name: string) => Effect.Effect<Uint8Array, E.LoadError | ModelChunksError>
  /**
   * The chunks one after another, each as `load` gives it. While one is in use, until the next is asked for, the next
   * `prefetch` are loading: no more than `prefetch + 1` chunks are in memory, besides those that `keepLast` of this stream
   * or of the one before keeps. What fails to load ahead fails when it is its turn. A stream that ends or is interrupted
   * stops what is loading.
   */
  readonly stream: (options?: StreamOptions) => Stream.Stream<LoadedChunk, E.LoadError | ModelChunksError>
}

/**
 * What to split, and into what.
 *
 * @since 0.1.0
 * @category models
 */
export interface MakeOptions {
  /** The key of a safetensors file, or of the index of one in shards, which ends in `.json`. */
  readonly source: string
  /** The folder of the chunks and their manifest: a key or, for the storage itself, empty. */
  readonly target: string
  /**
   * Which tensors go together:
   *
   * - `"layer"` (the default): `embeddings`, `layer_0` and so on, and what comes after the last layer as `head`. Of a model
   *   with two stacks of layers, such as T5: `embeddings`, `encoder_layer_0` …, `encoder_norm`, `decoder_layer_0` …,
   *   `head`. It knows the names that BERT, GPT-2, Llama, T5 and their like have in the libraries of Hugging Face.
   * - a function that gives the name of the chunk for that of a tensor
   * - `{ bytes }`: tensors one after another, as long as they are so many bytes; a larger one has a chunk of its own.
   *   The chunks are `chunk_0` and so on.
   *
   * In each case chunks come in the order of the forward pass, as far as names tell it.
   */
  readonly by?: "layer" | ((tensor: string) => string) | { readonly bytes: FileSystem.SizeInput }
}

/**
 * What making, indexing and verifying a model can meet.
 *
 * @since 0.1.0
 * @category errors
 */
export type ModelError = E.StorageError | Safetensors.SafetensorsError | ModelChunksError

/**
 * Splits a safetensors model into chunks, each a safetensors file: `layer_0` is the object `layer_0.safetensors` below
 * `target`. Bytes go from the source into the chunks as streams, one chunk after another, and are hashed on the way;
 * memory does not grow with the size of a chunk.
 *
 * The manifest that was there goes before the first chunk is written, and the new one is written last: a `make` that
 * fails leaves chunks, and no manifest that tells of others. Done again, it writes them again. What an earlier one has
 * left of other chunks stays.
 *
 * A source that is overwritten meanwhile fails with `PreconditionFailed`. A `StorageLimit` has to leave room for a read
 * beside a save.
 *
 * @since 0.1.0
 * @category constructors
 * @example
 * ```ts
 * import { ModelChunks } from "surfing-weights"
 *
 * const manifest = ModelChunks.make({
 *   source: "llama/model.safetensors.index.json",
 *   target: "llama/chunks"
 * })
 * ```
 */
export const make = (
  { by = "layer", source, target }: MakeOptions
): Effect.Effect<Manifest, ModelError, Storage.Storage> =>
  Effect.gen(function*() {
    const storage = yield* Storage.Storage
    const begin = yield* sha256
    const { backend } = storage
    const folder = yield* folderOf(storage, "make", target)
    const at = { backend: backend.name, operation: "make" as const, key: source }
    if (!backend.capabilities.write) {
      return yield* new E.UnsupportedOperation({ ...at, reason: "it is read-only, and chunks have to be saved" })
    }
    if (source === folder + manifestName) {
      const reason = `its manifest would take the place of ${shown(source)}, of which it is made`
      return yield* new ModelChunksError({ ...at, field: "target", reason })
    }
    const model = yield* source.endsWith(".json") ? Safetensors.openSharded(source) : Safetensors.open(source)
    const groups = yield* group(at, [...model.tensors.values()], by)
    const plans = yield* Either.all(groups.map((group) => plan(at, folder, model, group)))

    yield* storage.remove(folder + manifestName)
    const chunks = yield* Effect.forEach(plans, (plan) => write(storage, begin, folder, model, plan))
    return yield* saveManifest(storage, "make", folder, chunks)
  })

/**
 * Opens a model by its manifest, `manifest.json` below the prefix: a folder, whose name is a key or, for the storage
 * itself, empty. A manifest that cannot be right fails with `ModelChunksError`, which names the field.
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
export const open = (prefix: string): Effect.Effect<Model, E.LoadError | ModelChunksError, Storage.Storage> =>
  Effect.gen(function*() {
    const storage = yield* Storage.Storage
    const begin = yield* sha256
    const folder = yield* folderOf(storage, "open", prefix)
    const manifest = yield* readManifest(storage, "open", folder)
    return makeModel(storage, begin, folder, manifest)
  })

/**
 * Which objects to index, and how many of them are read at once.
 *
 * @since 0.1.0
 * @category models
 */
export interface IndexOptions {
  /** Which objects below the prefix are chunks, told by their keys after it. Default: all but `manifest.json`. */
  readonly include?: (key: string) => boolean
  /** How many are read at once: a whole number from 1 up. Default: 4. */
  readonly concurrency?: number
}

/**
 * Writes a manifest for the objects that are below a prefix, such as the shards of a download: each is a chunk whose name
 * is its key after the prefix, in the order of these, with numbers by their value. Each is read once, past every cache,
 * as a stream; a manifest that is there is replaced when all are hashed. Of safetensors files it tells the tensors, and
 * one that is not right fails with `SafetensorsError`.
 *
 * @since 0.1.0
 * @category constructors
 * @example
 * ```ts
 * import { ModelChunks } from "surfing-weights"
 *
 * const manifest = ModelChunks.index("downloads/sentence-encoder", {
 *   include: (key) => key.startsWith("group1-shard")
 * })
 * ```
 */
export const index = (
  prefix: string,
  options: IndexOptions = {}
): Effect.Effect<Manifest, ModelError, Storage.Storage> =>
  Effect.gen(function*() {
    const storage = yield* Storage.Storage
    const begin = yield* sha256
    const folder = yield* folderOf(storage, "index", prefix)
    const { concurrency = 4, include = () => true } = options
    const { backend } = storage
    const at = { backend: backend.name, operation: "index" as const, key: folder + manifestName }
    yield* atLeast(at, 1, { concurrency })
    // Better now than when all is read.
    if (!backend.capabilities.write) {
      return yield* new E.UnsupportedOperation({ ...at, reason: "it is read-only, and a manifest has to be saved" })
    }

    const chunks = yield* storage.entries({ prefix: folder }).pipe(
      Stream.map((info) => info.key.slice(folder.length)),
      Stream.filter((key) => key !== manifestName && include(key)),
      Stream.mapEffect((key) => describe(storage, begin, folder, key), { concurrency, unordered: true }),
      Stream.runCollect
    )
    const inOrder = Chunk.toArray(chunks).sort((a, b) => Grouping.natural(a.name, b.name))
    return yield* saveManifest(storage, "index", folder, inOrder)
  })

/**
 * What is told of the progress of `verify`. `verified` and `total` are bytes: how many were read so far, and how many
 * the manifest tells of.
 *
 * @since 0.1.0
 * @category models
 */
export type Event = Data.TaggedEnum<{
  /** More of a chunk was read; told every 64 MiB. */
  readonly Progress: { readonly name: string; readonly verified: number; readonly total: number }
  /** A chunk is as the manifest says. */
  readonly Verified: { readonly name: string; readonly verified: number; readonly total: number }
  /** A chunk is not, or could not be read. */
  readonly Failed: {
    readonly name: string
    readonly error: E.LoadError
    readonly verified: number
    readonly total: number
  }
}>

/**
 * Makes events, and tells one from another.
 *
 * @since 0.1.0
 * @category constructors
 * @example
 * ```ts
 * import { ModelChunks } from "surfing-weights"
 *
 * const show = ModelChunks.Event.$match({
 *   Progress: ({ total, verified }) => `${Math.floor(100 * verified / total)} %`,
 *   Verified: ({ name }) => `= ${name}`,
 *   Failed: ({ error }) => `! ${error.message}`
 * })
 * ```
 */
export const Event: Data.TaggedEnum.Constructor<Event> = Data.taggedEnum<Event>()

/**
 * How to verify a model.
 *
 * @since 0.1.0
 * @category models
 */
export interface VerifyOptions {
  /** How many chunks are read at once: a whole number from 1 up. Default: 4. */
  readonly concurrency?: number
}

/**
 * Reads every chunk of a model again, past every cache, which then forgets it, and holds it against the manifest. Chunks
 * go through as streams, and whoever is slow to take the events slows down the work.
 *
 * What is wrong with one chunk is an event, and the others are read; after the last the stream fails with the first of
 * these failures. A manifest that cannot be right fails it at once, and so does a storage that is not there.
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
  { concurrency = 4 }: VerifyOptions = {}
): Stream.Stream<Event, E.LoadError | ModelChunksError, Storage.Storage> =>
  Stream.unwrap(Effect.gen(function*() {
    const storage = yield* Storage.Storage
    const begin = yield* sha256
    const folder = yield* folderOf(storage, "verify", prefix)
    const at = { backend: storage.backend.name, operation: "verify" as const, key: folder + manifestName }
    yield* atLeast(at, 1, { concurrency })
    const { chunks } = yield* readManifest(bypassingCaches(storage), "verify", folder)

    const total = chunks.reduce((sum, { size }) => sum + size, 0)
    let verified = 0
    let first: E.LoadError | undefined

    const verifyOne = (chunk: ChunkInfo): Stream.Stream<Event, E.LoadError> => {
      const { name } = chunk
      let before = 0
      let told = 0
      const read = (bytes: number) => {
        verified += bytes
        before += bytes
      }
      const progress = readChunk(storage, begin, folder, chunk).pipe(
        Stream.filterMap((bytes) => {
          read(bytes)
          if (before - told < progressEvery) return Option.none()
          told = before
          return Option.some<Event>(Event.Progress({ name, verified, total }))
        })
      )
      const end = Stream.sync((): Event => Event.Verified({ name, verified, total }))
      return Stream.catchAll(Stream.concat(progress, end), (error) =>
        error._tag === "StorageNotFound" ? Stream.fail(error) : Stream.sync((): Event => {
          first ??= error
          // It counts as done, so that the sum comes out.
          read(chunk.size - before)
          return Event.Failed({ name, error, verified, total })
        }))
    }

    return Stream.concat(
      Stream.flatMap(Stream.fromIterable(chunks), verifyOne, { concurrency, bufferSize: 1 }),
      Stream.suspend(() =>
        first === undefined ? Stream.empty : Stream.fail(first)
      )
    )
  }))

const progressEvery = 64 * 1024 * 1024

type Operation = ModelChunksError["operation"]

/** Where something was asked for, as its failure tells it. */
interface Place {
  readonly backend: string
  readonly operation: Operation
  readonly key: string
}

/** What the keys of a model begin with. */
const folderOf = (
  { backend }: Storage.Service,
  operation: Operation,
  prefix: string
): Either.Either<string, E.InvalidKey> => {
  const folder = prefix.replace(/\/$/, "")
  const reason = folder === "" ? undefined : ObjectKey.problem(folder)
  return reason === undefined
    ? Either.right(folder === "" ? "" : `${folder}/`)
    : Either.left(new E.InvalidKey({ backend: backend.name, operation, key: prefix, reason }))
}

const atLeast = (
  place: Place,
  least: number,
  counts: Readonly<Record<string, number>>
): Either.Either<void, ModelChunksError> => {
  for (const [field, count] of Object.entries(counts)) {
    if (Number.isSafeInteger(count) && count >= least) continue
    const reason = `it is a whole number from ${least} up, not ${count}`
    return Either.left(new ModelChunksError({ ...place, field, reason }))
  }
  return Either.void
}

/** Which tensors go into which chunk. */
const group = (
  place: Place,
  tensors: ReadonlyArray<Safetensors.TensorInfo>,
  by: NonNullable<MakeOptions["by"]>
): Either.Either<ReadonlyArray<Grouping.Group<Safetensors.TensorInfo>>, ModelChunksError> => {
  const wrong = (field: string, reason: string) => Either.left(new ModelChunksError({ ...place, field, reason }))
  if (typeof by === "function") return Either.right(Grouping.byName(tensors, by))
  if (by !== "layer") {
    const bytes = Number(by.bytes)
    return Number.isSafeInteger(bytes) && bytes > 0
      ? Either.right(Grouping.bySize(tensors, bytes, lengthOf))
      : wrong("by.bytes", `it is a whole number of bytes from 1 up, not ${bytes}`)
  }
  const groups = Grouping.byLayer(tensors)
  if (groups !== undefined) return Either.right(groups)
  const names = shownNames(tensors.map(({ name }) => name))
  return wrong("by", `the names of the tensors tell of no layers: ${names}; give a function of the name, or { bytes }`)
}

const lengthOf = ({ range }: Safetensors.TensorInfo): number => range.endExclusive - range.start

/** A chunk that is to be written. */
interface Plan {
  readonly name: string
  readonly key: string
  readonly layout: Header.Layout<Safetensors.TensorInfo>
}

const plan = (
  place: Place,
  folder: string,
  { files, info }: Safetensors.SafetensorsFile,
  { name, tensors }: Grouping.Group<Safetensors.TensorInfo>
): Either.Either<Plan, ModelChunksError | Safetensors.SafetensorsError> => {
  const key = `${name}.safetensors`
  const problem = name === "" ? "it is empty" : ObjectKey.problem(key) ?? ObjectKey.problem(folder + key)
  if (problem !== undefined) {
    const tensor = shown(tensors[0]?.name ?? "")
    const reason = `it gives the name ${
      shown(name)
    } for the tensor ${tensor}, and a key cannot be made of that: ${problem}`
    return Either.left(new ModelChunksError({ ...place, field: "by", reason }))
  }
  const written = folder + key
  if (written === info.key || files.has(written)) {
    const reason = `chunk ${shown(name)} would take the place of ${shown(written)}, of which it is made`
    return Either.left(new ModelChunksError({ ...place, field: "target", reason }))
  }
  const metadata: Record<string, string> = {}
  for (const file of new Set(tensors.map((tensor) => files.get(tensor.key)))) Object.assign(metadata, file?.metadata)
  return Either.map(Header.encode(written, tensors, metadata), (layout) => ({ name, key, layout }))
}

const write = (
  storage: Storage.Service,
  begin: Sha256,
  folder: string,
  { files }: Safetensors.SafetensorsFile,
  { key, layout: { header, size, tensors }, name }: Plan
): Effect.Effect<ChunkInfo, E.LoadError | E.SaveError> =>
  Effect.gen(function*() {
    const hash = begin()
    const data = Stream.flatMap(Stream.fromIterable(runsOf(tensors)), ({ endExclusive, key, start }) => {
      const file = files.get(key)
      const range = ByteRange.make(start, endExclusive)
      return storage.stream(key, { range, ...(file !== undefined && { ifMatch: file.info.etag }) })
    })
    const hashed = Stream.concat(Stream.make(header), data).pipe(
      Stream.mapChunks((pieces) => {
        for (const bytes of pieces) hash.update(bytes)
        return pieces
      })
    )
    yield* storage.save(folder + key, hashed, { size })
    return new ChunkInfo({ name, key, size, sha256: hash.digest(), tensors: tensors.map(({ tensor }) => tensor.name) })
  })

/** Bytes of an object that go into a chunk as they are. */
interface Run extends ByteRange.ResolvedRange {
  readonly key: string
}

/** The bytes of tensors in their order, with neighbours in one. */
const runsOf = (tensors: Plan["layout"]["tensors"]): ReadonlyArray<Run> => {
  const runs: Array<Run> = []
  for (const { tensor: { key, range: { endExclusive, start } } } of tensors) {
    const last = runs.at(-1)
    if (start === endExclusive) continue
    if (last?.key === key && last.endExclusive === start) runs[runs.length - 1] = { ...last, endExclusive }
    else runs.push({ key, start, endExclusive })
  }
  return runs
}

/** No manifest is larger: that of a million chunks is not. */
const largestManifest = 256 * 1024 * 1024

const readManifest = (
  storage: Storage.Service,
  operation: Operation,
  folder: string
): Effect.Effect<Manifest, E.LoadError | ModelChunksError> =>
  Effect.scoped(Effect.gen(function*() {
    const key = folder + manifestName
    const wrong = (field: string, reason: string) =>
      new ModelChunksError({ backend: storage.backend.name, operation, key, field, reason })
    const { info, stream } = yield* storage.open(key)
    if (info.size > largestManifest) {
      return yield* wrong("manifest", `${info.size} bytes, and the largest that is read has ${largestManifest}`)
    }
    const bytes = yield* collect(stream)
    const json = yield* Either.try({
      try: (): unknown => JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes)),
      catch: () => wrong("manifest", "it is not JSON in UTF-8; ModelChunks.index writes a new one")
    })
    return yield* Either.mapLeft(decodeManifest(json), (error) => {
      const [issue] = ParseResult.ArrayFormatter.formatErrorSync(error)
      return issue === undefined ? wrong("manifest", error.message) : wrong(fieldOf(issue.path), issue.message)
    })
  }))

const decodeManifest = Schema.decodeUnknownEither(Manifest)

/** `chunks[2].key`. */
const fieldOf = (path: ReadonlyArray<PropertyKey>): string =>
  path.length === 0
    ? "manifest"
    : path.map((part, i) => typeof part === "number" ? `[${part}]` : `${i === 0 ? "" : "."}${String(part)}`).join("")

/** The last that is done of a model: where there is a manifest, all that it tells of is there. */
const saveManifest = (
  storage: Storage.Service,
  operation: Operation,
  folder: string,
  chunks: ReadonlyArray<ChunkInfo>
): Effect.Effect<Manifest, E.SaveError | ModelChunksError> =>
  Effect.suspend(() => {
    const key = folder + manifestName
    const [issue] = repetitions(chunks)
    if (issue !== undefined) {
      const field = fieldOf(["chunks", ...issue.path])
      return Effect.fail(
        new ModelChunksError({ backend: storage.backend.name, operation, key, field, reason: issue.message })
      )
    }
    const manifest = new Manifest({ schema: "surfing-weights/model-chunks", version: 1, chunks })
    const json = JSON.stringify(Schema.encodeSync(Manifest)(manifest), undefined, 2)
    return Effect.as(storage.save(key, new TextEncoder().encode(`${json}\n`)), manifest)
  })

/** What a manifest is to say of an object that is there. */
const describe = (
  storage: Storage.Service,
  begin: Sha256,
  folder: string,
  key: string
): Effect.Effect<ChunkInfo, E.LoadError | Safetensors.SafetensorsError> =>
  Effect.gen(function*() {
    const file = key.endsWith(".safetensors")
      ? yield* Effect.provideService(Safetensors.open(folder + key), Storage.Storage, bypassingCaches(storage))
      : undefined
    const { info, stream } = yield* storage.open(folder + key, { ifMatch: file?.info.etag, bypassCache: true })
    const hash = begin()
    yield* Stream.runDrain(Stream.map(stream, (bytes) => hash.update(bytes)))
    return new ChunkInfo({
      name: key,
      key,
      size: info.size,
      sha256: hash.digest(),
      ...(file !== undefined && { tensors: [...file.tensors.keys()] })
    })
  }).pipe(Effect.scoped)

/** The same storage, whose reads bypass caches. */
const bypassingCaches = (storage: Storage.Service): Storage.Service => ({
  ...storage,
  load: (key, options) => storage.load(key, { ...options, bypassCache: true }),
  loadRanges: (key, ranges, options) => storage.loadRanges(key, ranges, { ...options, bypassCache: true }),
  open: (key, options) => storage.open(key, { ...options, bypassCache: true }),
  stream: (key, options) => storage.stream(key, { ...options, bypassCache: true })
})

/** Reads a chunk past caches, and yields how many bytes have come each time; fails where they are the wrong ones. */
const readChunk = (
  storage: Storage.Service,
  begin: Sha256,
  folder: string,
  chunk: ChunkInfo
): Stream.Stream<number, E.LoadError> =>
  Stream.unwrapScoped(Effect.gen(function*() {
    const place = { backend: storage.backend.name, operation: "verify", key: folder + chunk.key }
    const { info, stream } = yield* storage.open(place.key, { bypassCache: true })
    yield* checkSize(place, chunk, info.size)
    const hash = begin()
    const lengths = Stream.mapChunks(stream, (pieces) =>
      Chunk.map(pieces, (bytes) => {
        hash.update(bytes)
        return bytes.byteLength
      }))
    return Stream.concat(lengths, Stream.execute(Effect.suspend(() => checkDigest(place, chunk, hash.digest()))))
  }))

interface ObjectPlace {
  readonly backend: string
  readonly operation: string
  readonly key: string
}

const checkSize = (place: ObjectPlace, { name, size }: ChunkInfo, actual: number) =>
  actual === size ? Either.void : Either.left(
    new E.CorruptObject({
      ...place,
      problem: "size",
      reason: `chunk ${shown(name)} has ${actual} bytes, and the manifest says ${size}`
    })
  )

const checkDigest = (place: ObjectPlace, { name, sha256 }: ChunkInfo, actual: string) =>
  actual === sha256 ? Either.void : Either.left(
    new E.CorruptObject({
      ...place,
      problem: "checksum",
      reason: `chunk ${shown(name)} has the SHA-256 ${actual}, and the manifest says ${sha256}`
    })
  )

const makeModel = (storage: Storage.Service, begin: Sha256, folder: string, manifest: Manifest): Model => {
  const backend = storage.backend.name
  const chunks = new Map(manifest.chunks.map((chunk) => [chunk.name, chunk]))
  /** What earlier streams have left for later ones. */
  const kept = new Map<ChunkInfo, Uint8Array>()

  const find = (operation: Operation, name: string, field: string): Either.Either<ChunkInfo, ModelChunksError> =>
    Either.fromNullable(chunks.get(name), () => {
      const reason = `there is no chunk ${shown(name)}; there are ${shownNames([...chunks.keys()])}`
      return new ModelChunksError({ backend, operation, key: folder + manifestName, field, reason })
    })

  const loadChunk = (chunk: ChunkInfo): Effect.Effect<Uint8Array, E.LoadError> => {
    const place = { backend, operation: "load", key: folder + chunk.key }
    const attempt = (bypassCache?: boolean) =>
      Effect.gen(function*() {
        const bytes = yield* storage.load(place.key, { bypassCache })
        yield* checkSize(place, chunk, bytes.byteLength)
        yield* checkDigest(place, chunk, yield* hashOf(begin, bytes))
        return bytes
      })
    return Effect.catchIf(attempt(), isDamaged, (first) =>
      Effect.matchEffect(attempt(true), {
        onFailure: (error) => Effect.fail(isDamaged(error) ? E.exhausted(error, 2) : error),
        onSuccess: (bytes) =>
          Effect.as(Effect.logWarning(`a cache gave damaged bytes; the storage has the right ones`, first), bytes)
      }))
  }

  const load: Model["load"] = (name) => Effect.flatMap(find("load", name, "name"), loadChunk)

  const stream: Model["stream"] = ({ keepLast = 0, order, prefetch = 1 } = {}) =>
    Stream.unwrapScoped(Effect.gen(function*() {
      yield* atLeast({ backend, operation: "stream", key: folder + manifestName }, 0, { prefetch, keepLast })
      const pass = order === undefined
        ? manifest.chunks
        : yield* Either.all(order.map((name, i) => find("stream", name, `order[${i}]`)))
      for (const chunk of kept.keys()) {
        if (!pass.includes(chunk)) kept.delete(chunk)
      }

      const scope = yield* Effect.scope
      const start = (chunk: ChunkInfo) =>
        Effect.forkIn(
          Effect.suspend(() => {
            const bytes = kept.get(chunk)
            return bytes === undefined ? loadChunk(chunk) : Effect.succeed(bytes)
          }),
          scope
        )
      return Stream.unfoldEffect(
        { at: 0, ahead: Arr.empty<Fiber.Fiber<Uint8Array, E.LoadError>>() },
        ({ ahead, at }) =>
          Effect.gen(function*() {
            const chunk = pass[at]
            if (chunk === undefined) return Option.none()
            const bytes = yield* Fiber.join(ahead[0] ?? (yield* start(chunk)))
            const others = ahead.slice(1)
            if (at >= pass.length - keepLast) kept.set(chunk, bytes)
            else kept.delete(chunk)
            const more = yield* Effect.forEach(pass.slice(at + 1 + others.length, at + 1 + prefetch), start)
            return Option.some([{ chunk, bytes }, { at: at + 1, ahead: [...others, ...more] }] as const)
          })
      )
    }))

  return { manifest, chunks, load, stream }
}

const isDamaged = (error: E.LoadError): error is E.CorruptObject =>
  error._tag === "CorruptObject" && error.problem !== "truncated"

const shownNames = (names: ReadonlyArray<string>): string =>
  names.length === 0 ? "none" : Arr.take(names, 12).map(shown).join(", ") + (names.length > 12 ? ", …" : "")
