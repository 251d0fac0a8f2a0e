/**
 * Reads objects.
 */
import * as Effect from "effect/Effect"
import * as Stream from "effect/Stream"
import type { ResolvedRange } from "../../ByteRange.js"
import { allocate, copyOf, fill } from "../../internal/bytes.js"
import { coalesce, cut } from "../../internal/ranges.js"
import * as StorageBackend from "../../StorageBackend.js"
import * as E from "../../StorageError.js"
import { type Directory, existing, find, type Found, intact, readPart } from "./directory.js"
import type { FileSystemError } from "./errors.js"
import { failed, fileSystemError } from "./errors.js"

type Bytes = Uint8Array<ArrayBuffer>

/** The bytes of a file that are read when it is opened: for a small object all of them. */
const smallRead = 64 * 1024

/** A larger range is streamed into its array, since the browser would have all of it twice. In bytes. */
const streamedSize = 16 * 1024 * 1024

const rangesAtOnce = 8

/** How often an object is read again that is replaced meanwhile. */
const tries = 10

/** The methods of a backend that read objects. */
export const reader = (
  directory: Directory
):
  & Pick<StorageBackend.StorageBackend, "load" | "loadRanges" | "head" | "blob">
  & Pick<StorageBackend.Primitives, "open"> => ({
    open: (key, options) =>
      Effect.gen(function*() {
        const found = yield* Effect.flatMap(find(directory, key, smallRead), intact)
        const range = yield* StorageBackend.checkLoad(found.info, options)
        const read = inBeginning(found, range)
        if (read !== undefined) return StorageBackend.openedBytes(found.info, range, read)
        const { chunkSize = Infinity } = options
        const stream = Stream.catchAll(streamOf(found, range), (error) =>
          Stream.fromEffect(broken(directory, found, error)))
        return { info: found.info, range, stream: chunkSize < Infinity ? inChunks(stream, chunkSize) : stream }
      }),
    load: (key, options) =>
      reading(
        directory,
        key,
        (found) => Effect.flatMap(StorageBackend.checkLoad(found.info, options), (range) => read(found, range))
      ),
    loadRanges: (key, ranges, options) =>
      reading(directory, key, (found) =>
        Effect.gen(function*() {
          yield* StorageBackend.checkLoad(found.info, options)
          const resolved = yield* Effect.forEach(ranges, (range) => StorageBackend.checkLoad(found.info, { range }))
          const reads = coalesce(resolved)
          const loaded = yield* Effect.forEach(reads, (range) => read(found, range), { concurrency: rangesAtOnce })
          return resolved.map((range) => cut(range, reads, loaded))
        })),
    blob: (key, options) =>
      Effect.gen(function*() {
        const found = yield* Effect.flatMap(find(directory, key), intact)
        return blobOf(found, yield* StorageBackend.checkLoad(found.info, options))
      }),
    head: (key) => Effect.map(find(directory, key), ({ info }) => info)
  })

/** Reads an object of one version, whichever it is. */
const reading = <A>(
  directory: Directory,
  key: string,
  use: (found: Found) => Effect.Effect<A, E.LoadError | FileSystemError>,
  left = tries
): Effect.Effect<A, E.LoadError> =>
  Effect.flatMap(
    Effect.flatMap(find(directory, key, smallRead), intact),
    (found) =>
      Effect.catchTag(use(found), "FileSystemError", (error) =>
        Effect.catchTag(broken(directory, found, error), "PreconditionFailed", (changed) =>
          left > 0 ? reading(directory, key, use, left - 1) : changed))
  )

/**
 * The failure of a read: whether the object is another one now. A stream that has begun goes on with the version that it was
 * opened with, so it breaks only at its beginning.
 */
const broken = (
  directory: Directory,
  { info }: Found,
  error: FileSystemError
): Effect.Effect<never, E.PreconditionFailed | E.CommonError> =>
  Effect.zipRight(
    Effect.filterOrFail(
      existing(directory, info.key),
      (now) => now?.etag === info.etag,
      () => new E.PreconditionFailed({ cause: error.cause })
    ),
    failed(error)
  )

const read = (found: Found, range: ResolvedRange): Effect.Effect<Bytes, E.LoadError | FileSystemError> =>
  Effect.suspend(() => {
    const small = inBeginning(found, range)
    if (small !== undefined) return Effect.succeed(small)
    const size = range.endExclusive - range.start
    return size <= streamedSize
      ? readPart(found.file, found.start + range.start, found.start + range.endExclusive)
      : Effect.flatMap(allocate(size), (target) => fill(target, streamOf(found, range)))
  })

/** A copy of the range, where it was read when the object was looked at. */
const inBeginning = ({ beginning }: Found, { endExclusive, start }: ResolvedRange): Bytes | undefined =>
  endExclusive <= beginning.byteLength ? copyOf(beginning, start, endExclusive) : undefined

const blobOf = ({ file, start }: Found, range: ResolvedRange): Blob =>
  file.slice(start + range.start, start + range.endExclusive)

/** The browser reads from the disk what is asked for, and little ahead. */
const streamOf = (found: Found, range: ResolvedRange): Stream.Stream<Bytes, FileSystemError> =>
  Stream.fromReadableStream({
    evaluate: (): ReadableStream<Bytes> => blobOf(found, range).stream(),
    onError: fileSystemError
  })

const inChunks = <Err>(stream: Stream.Stream<Bytes, Err>, size: number): Stream.Stream<Bytes, Err> =>
  Stream.mapConcat(stream, (bytes) =>
    bytes.byteLength <= size
      ? [bytes]
      : Array.from(
        { length: Math.ceil(bytes.byteLength / size) },
        (_, index) => copyOf(bytes, index * size, Math.min(bytes.byteLength, (index + 1) * size))
      ))
