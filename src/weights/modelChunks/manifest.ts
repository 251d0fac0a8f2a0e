/**
 * The manifest of a model: its schema, how it is read and written, and whether a chunk is as it says.
 */
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as ParseResult from "effect/ParseResult"
import * as Schema from "effect/Schema"
import { collect } from "../../internal/bytes.js"
import * as ObjectKey from "../../ObjectKey.js"
import { CorruptObject, type LoadError, type SaveError } from "../../StorageError.js"
import { isStandIn, recognize, sentence } from "../internal/fileKind.js"
import { quoted } from "../internal/text.js"
import { type Folder, invalid, manifestName, type ModelChunksError } from "./folder.js"

const ChunkKey = Schema.String.pipe(
  Schema.filter((key) => {
    const problem = key === manifestName ? "it is the key of the manifest" : ObjectKey.problem(key)
    return problem === undefined || `${quoted(key)} cannot be the key of a chunk: ${problem}`
  })
)

const Size = Schema.Number.pipe(
  Schema.filter((size) =>
    (Number.isSafeInteger(size) && size >= 0) || `must be a whole number of bytes of at least 0 (got ${size})`
  )
)

const Digest = Schema.String.pipe(
  Schema.filter((text) =>
    /^[0-9a-f]{64}$/.test(text) || `must be 64 lower-case hexadecimal digits (got ${quoted(text)})`
  )
)

/**
 * A chunk as the manifest describes it.
 *
 * @since 0.1.0
 * @category models
 */
export class ChunkInfo extends Schema.Class<ChunkInfo>("surfing-weights/ChunkInfo")({
  /** Unique in the model. */
  name: Schema.NonEmptyString,
  /** The key of its object, after the prefix. */
  key: ChunkKey,
  /** In bytes. */
  size: Size,
  /** In lower-case hexadecimal. */
  sha256: Digest,
  /** The names of its tensors, if it is a safetensors file. */
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
    message: ({ actual }) => `unsupported version (got ${JSON.stringify(actual)}, this library reads version 1)`
  }),
  chunks: Schema.Array(ChunkInfo).pipe(Schema.filter((chunks) => duplicates(chunks)))
}) {}

/** The first name, key or tensor that two chunks have. */
const duplicates = (chunks: ReadonlyArray<ChunkInfo>): ReadonlyArray<Schema.FilterIssue> => {
  const seen = { name: new Map<string, number>(), key: new Map<string, number>(), tensors: new Map<string, number>() }
  const issues: Array<Schema.FilterIssue> = []
  const add = (field: keyof typeof seen, value: string, index: number) => {
    const first = seen[field].get(value)
    if (first === undefined) seen[field].set(value, index)
    else if (issues.length === 0) {
      const name = field === "tensors" ? ` (${quoted(chunks[first]?.name ?? "")})` : ""
      issues.push({ path: [index, field], message: `${quoted(value)} is in chunks[${first}]${name} already` })
    }
  }
  for (const [index, { key, name, tensors = [] }] of chunks.entries()) {
    add("name", name, index)
    add("key", key, index)
    for (const tensor of tensors) add("tensors", tensor, index)
  }
  return issues
}

/** The limit for the size of a manifest; one of a million chunks is smaller. */
const maxSize = 256 * 1024 * 1024

/** Reads and checks the manifest of a folder. */
export const read = (folder: Folder): Effect.Effect<Manifest, LoadError | ModelChunksError> =>
  Effect.scoped(Effect.gen(function*() {
    const { info, stream } = yield* folder.storage.open(folder.manifestKey)
    if (info.size > maxSize) {
      return yield* invalid(folder, "manifest", `a manifest of ${info.size} bytes is over the limit of ${maxSize}`)
    }
    const bytes = yield* collect(stream)
    const json = yield* Either.try({
      try: (): unknown => JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes)),
      catch: () => {
        const other = recognize(bytes)
        const reason = other === undefined || other.kind === "json"
          ? "it is not JSON in UTF-8; write a new one with ModelChunks.writeManifest"
          : sentence(other, "a manifest")
        return invalid(folder, "manifest", reason)
      }
    })
    return yield* Either.mapLeft(decode(json), (error) => {
      const [issue] = ParseResult.ArrayFormatter.formatErrorSync(error)
      return issue === undefined
        ? invalid(folder, "manifest", error.message)
        : invalid(folder, fieldOf(issue.path), issue.message)
    })
  }))

const decode = Schema.decodeUnknownEither(Manifest)

/** A path as `chunks[2].key`. */
const fieldOf = (path: ReadonlyArray<PropertyKey>): string =>
  path.length === 0
    ? "manifest"
    : path.map((part, i) => typeof part === "number" ? `[${part}]` : `${i === 0 ? "" : "."}${String(part)}`).join("")

/** Saves the manifest of a folder. This is the last step, so that every chunk in a manifest exists. */
export const write = (
  folder: Folder,
  chunks: ReadonlyArray<ChunkInfo>
): Effect.Effect<Manifest, SaveError | ModelChunksError> =>
  Effect.suspend(() => {
    const [issue] = duplicates(chunks)
    if (issue !== undefined) return Effect.fail(invalid(folder, fieldOf(["chunks", ...issue.path]), issue.message))
    const manifest = new Manifest({ schema: "surfing-weights/model-chunks", version: 1, chunks })
    const json = JSON.stringify(Schema.encodeSync(Manifest)(manifest), undefined, 2)
    return Effect.as(folder.storage.save(folder.manifestKey, new TextEncoder().encode(`${json}\n`)), manifest)
  })

/** Of a wrong size, the error says what the chunk is, if its bytes show that. */
export const checkSize = (
  folder: Folder,
  chunk: ChunkInfo,
  size: number,
  bytes?: Uint8Array
): Either.Either<void, CorruptObject> => {
  if (size === chunk.size) return Either.void
  const other = bytes && recognize(bytes)
  const reason = `has ${size} bytes, but the manifest says ${chunk.size}`
  const whole = other !== undefined && isStandIn(other) ? `${reason}; ${sentence(other, "the chunk")}` : reason
  return Either.left(corrupt(folder, chunk, "size", whole))
}

export const checkDigest = (folder: Folder, chunk: ChunkInfo, sha256: string): Either.Either<void, CorruptObject> =>
  sha256 === chunk.sha256
    ? Either.void
    : Either.left(
      corrupt(folder, chunk, "checksum", `has the SHA-256 ${sha256}, but the manifest says ${chunk.sha256}`)
    )

const corrupt = (
  { operation, prefix, storage }: Folder,
  { key, name }: ChunkInfo,
  problem: "size" | "checksum",
  reason: string
): CorruptObject =>
  new CorruptObject({
    backend: storage.backend.name,
    operation,
    key: prefix + key,
    problem,
    reason: `chunk ${quoted(name)} ${reason}`
  })
