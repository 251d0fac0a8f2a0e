/**
 * Reads the chunks of a model again, and compares them with the manifest.
 */
import * as Chunk from "effect/Chunk"
import * as Data from "effect/Data"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Stream from "effect/Stream"
import { hexDigest } from "../../internal/hash.js"
import type { LoadError } from "../../StorageError.js"
import { bypassingCaches, type Folder, type ModelChunksError } from "./folder.js"
import * as Manifest from "./manifest.js"

/**
 * The progress of `verify`. `verified` is the number of bytes read so far, `total` that of all chunks.
 *
 * @since 0.1.0
 * @category models
 */
export type Event = Data.TaggedEnum<{
  /** Another 64 MiB of a chunk have been read. */
  readonly Progress: { readonly name: string; readonly verified: number; readonly total: number }
  /** A chunk matches the manifest. */
  readonly Verified: { readonly name: string; readonly verified: number; readonly total: number }
  /** A chunk does not match the manifest, or could not be read. */
  readonly Failed: {
    readonly name: string
    readonly error: LoadError
    readonly verified: number
    readonly total: number
  }
}>

/**
 * Constructors and matchers of events.
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

/** The state of a verification. */
interface Verification {
  readonly folder: Folder
  readonly total: number
  verified: number
  failure: LoadError | undefined
}

export const verify = (
  folder: Folder,
  concurrency: number
): Stream.Stream<Event, LoadError | ModelChunksError> =>
  Stream.unwrap(Effect.map(Manifest.read(bypassingCaches(folder)), ({ chunks }) => {
    const total = chunks.reduce((sum, { size }) => sum + size, 0)
    const verification: Verification = { folder, total, verified: 0, failure: undefined }
    return Stream.concat(
      Stream.flatMap(Stream.fromIterable(chunks), (chunk) => verifyChunk(verification, chunk), {
        concurrency,
        bufferSize: 1
      }),
      Stream.suspend(() => verification.failure === undefined ? Stream.empty : Stream.fail(verification.failure))
    )
  }))

const progressInterval = 64 * 1024 * 1024

const verifyChunk = (verification: Verification, chunk: Manifest.ChunkInfo): Stream.Stream<Event, LoadError> => {
  const { name } = chunk
  let read = 0
  let reported = 0
  const count = (bytes: number) => {
    read += bytes
    verification.verified += bytes
  }
  const progress = () => ({ name, verified: verification.verified, total: verification.total })
  return readChunk(verification.folder, chunk).pipe(
    Stream.filterMap((bytes) => {
      count(bytes)
      if (read - reported < progressInterval) return Option.none()
      reported = read
      return Option.some<Event>(Event.Progress(progress()))
    }),
    Stream.concat(Stream.sync((): Event => Event.Verified(progress()))),
    Stream.catchAll((error) =>
      error._tag === "StorageNotFound" ? Stream.fail(error) : Stream.sync((): Event => {
        verification.failure ??= error
        // Counted as read, so that `verified` ends at `total`.
        count(chunk.size - read)
        return Event.Failed({ ...progress(), error })
      })
    )
  )
}

/** Reads a chunk, bypassing all caches, and emits the length of each piece. Fails if it does not match the manifest. */
const readChunk = (folder: Folder, chunk: Manifest.ChunkInfo): Stream.Stream<number, LoadError> =>
  Stream.unwrapScoped(Effect.gen(function*() {
    const { info, stream } = yield* folder.storage.open(folder.prefix + chunk.key, { bypassCache: true })
    yield* Manifest.checkSize(folder, chunk, info.size)
    const hash = folder.newHash()
    const lengths = Stream.mapChunks(stream, (pieces) =>
      Chunk.map(pieces, (bytes) => {
        hash.update(bytes)
        return bytes.byteLength
      }))
    const check = Effect.suspend(() => Manifest.checkDigest(folder, chunk, hexDigest(hash)))
    return Stream.concat(lengths, Stream.execute(check))
  }))
