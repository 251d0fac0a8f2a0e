/**
 * Reads objects. A file is opened once for each read, whatever its size.
 */
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Option from "effect/Option"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import type { ByteRange, ResolvedRange } from "../../ByteRange.js"
import { allocate } from "../../internal/bytes.js"
import { coalesce, cut } from "../../internal/ranges.js"
import * as StorageBackend from "../../StorageBackend.js"
import * as E from "../../StorageError.js"
import { versionOf } from "./attributes.js"
import { readFailed, toReadError } from "./errors.js"
import * as nodeFs from "./nodeFs.js"
import { type Directory, isAllowed, linkRefused, pathOf, realPath, stat } from "./paths.js"
import { etagOf } from "./versions.js"

/**
 * The largest chunk of a stream, in bytes. Smaller chunks cost more each; of larger ones the few in use add up to what makes V8
 * collect the whole heap every few dozen MiB, at three times the time (bench row `stream`).
 */
const chunkSize = 2 * 1024 * 1024

/** What one read of a load takes, in bytes, and how many run at once (bench row `load`). */
const pieceSize = 8 * 1024 * 1024
const piecesAtOnce = 4

/** What is read when it is opened, in bytes: it costs less than to come back for it (bench row `small`). */
const smallSize = 64 * 1024

/** The methods of a backend that read objects. */
export const reader = (
  directory: Directory
): Pick<StorageBackend.StorageBackend, "head" | "load" | "loadRanges"> & Pick<StorageBackend.Primitives, "open"> => ({
  head: (key) => head(directory, key),
  load: (key, options) => useFile(directory, key, (file) => load(file, options)),
  loadRanges: (key, ranges, options) =>
    useFile(directory, key, (file) => closing(file, Effect.interruptible(loadRanges(file, ranges, options)))),
  open: (key, options) => Effect.map(open(directory, key, options), ({ object }) => object)
})

// Metadata

/** The info of an object, with its attributes. */
export const head = (directory: Directory, key: string): Effect.Effect<StorageBackend.ObjectInfo, E.HeadError> =>
  statObject(directory, key).pipe(
    Effect.flatMap((stats) => versionOf(directory, key, stats)),
    Effect.catchTag("SystemError", readFailed(directory, key)),
    // Without a version, the object was overwritten meanwhile.
    Effect.flatMap((version) => version === undefined ? head(directory, key) : Effect.succeed(version.info))
  )

/** The stats of an object's file. */
export const statObject = (
  directory: Directory,
  key: string
): Effect.Effect<nodeFs.Stats, E.ObjectNotFound | E.AccessDenied | nodeFs.SystemError> =>
  Effect.filterOrFail(stat(directory, key), (stats) => stats.isFile(), () => new E.ObjectNotFound())

/** The stats of the file of an object, if there is one. */
export const existing = (
  directory: Directory,
  key: string
): Effect.Effect<nodeFs.Stats | undefined, Exclude<E.HeadError, E.ObjectNotFound>> =>
  statObject(directory, key).pipe(
    Effect.catchTag("SystemError", readFailed(directory, key)),
    Effect.catchTag("ObjectNotFound", () => Effect.succeed(undefined))
  )

// Open files

/** A file that is open for reading, and its stats when it was opened. */
interface OpenFile {
  readonly path: string
  readonly descriptor: nodeFs.Descriptor
  readonly stats: nodeFs.Stats
}

type Bytes = Uint8Array<ArrayBuffer>

type ReadError = E.LoadError | nodeFs.SystemError

/** Opens the file of an object, and goes on with what `use` returns, which has to close it; see `nodeFs.open`. */
const useFile = <A>(
  directory: Directory,
  key: string,
  use: (file: OpenFile) => Effect.Effect<A, ReadError>
): Effect.Effect<A, E.LoadError> => {
  const path = pathOf(directory, key)
  return nodeFs.open(path, (descriptor): Effect.Effect<A, ReadError> => {
    const stats = nodeFs.statNow(descriptor)
    if (Either.isLeft(stats)) return refuse(descriptor, stats.left)
    if (!stats.right.isFile()) return refuse(descriptor, new E.ObjectNotFound())
    const file = { path, descriptor, stats: stats.right }
    const where = directory.followLinks ? directory.path : nodeFs.whereIs(descriptor)
    return where === undefined
      ? Effect.matchEffect(realPath(directory, path), {
        onFailure: (error) => refuse(descriptor, error),
        onSuccess: () => use(file)
      })
      : isAllowed(directory, where)
      ? use(file)
      : refuse(descriptor, linkRefused(where))
  }).pipe(Effect.catchTag("SystemError", readFailed(directory, key)))
}

/** Closes a file, and fails. */
const refuse = <Err>(descriptor: nodeFs.Descriptor, error: Err): Effect.Effect<never, Err> => {
  nodeFs.closeNow(descriptor)
  return Effect.fail(error)
}

/** Closes a file after an effect. */
const closing = <A, Err>({ descriptor }: OpenFile, effect: Effect.Effect<A, Err>): Effect.Effect<A, Err> =>
  Effect.ensuring(effect, Effect.sync(() => nodeFs.closeNow(descriptor)))

/** The range of an open file that is to be read. */
const rangeOf = ({ stats }: OpenFile, options: StorageBackend.LoadOptions) =>
  StorageBackend.checkLoad({
    size: Number(stats.size),
    // Costly beside the load of a small file, and few loads need it.
    get etag() {
      return etagOf(stats)
    }
  }, options)

const lengthOf = ({ endExclusive, start }: ResolvedRange): number => endExclusive - start

// Whole arrays

const load = (file: OpenFile, options: StorageBackend.LoadOptions): Effect.Effect<Bytes, ReadError> => {
  const range = rangeOf(file, options)
  return Either.isLeft(range)
    ? refuse(file.descriptor, range.left)
    : lengthOf(range.right) <= pieceSize
    ? loadAtOnce(file, range.right)
    : closing(file, Effect.interruptible(loadInPieces(file, range.right)))
}

/** Reads a range in one go, and closes the file. */
const loadAtOnce = ({ descriptor }: OpenFile, range: ResolvedRange): Effect.Effect<Bytes, ReadError> => {
  const target = allocate(lengthOf(range))
  return Either.isLeft(target)
    ? refuse(descriptor, target.left)
    : Effect.flatMap(nodeFs.readAndClose(descriptor, target.right, range.start), checkCount(target.right, range.start))
}

const loadInPieces = (file: OpenFile, range: ResolvedRange): Effect.Effect<Bytes, ReadError> =>
  Effect.tap(allocate(lengthOf(range)), (target) =>
    Effect.forEach(
      Array.from({ length: Math.ceil(target.byteLength / pieceSize) }, (_, i) => i * pieceSize),
      (at) => fill(file, target.subarray(at, at + pieceSize), range.start + at),
      { concurrency: piecesAtOnce, discard: true }
    ))

const loadRanges = (
  file: OpenFile,
  ranges: ReadonlyArray<ByteRange>,
  options: Omit<StorageBackend.LoadOptions, "range">
): Effect.Effect<ReadonlyArray<Bytes>, ReadError> =>
  Effect.gen(function*() {
    const resolved = yield* Effect.forEach(ranges, (range) => rangeOf(file, { ...options, range }))
    const reads = coalesce(resolved)
    const loaded = yield* Effect.forEach(reads, (read) => loadInPieces(file, read), { concurrency: piecesAtOnce })
    return resolved.map((range) => cut(range, reads, loaded))
  })

/** Fills an array from a position on. */
const fill = ({ descriptor }: OpenFile, target: Bytes, position: number): Effect.Effect<Bytes, ReadError> =>
  Effect.flatMap(nodeFs.read(descriptor, target, position), checkCount(target, position))

/** The array, if it is full. */
const checkCount = (target: Bytes, position: number) => (count: number): Either.Either<Bytes, E.CorruptObject> =>
  count === target.byteLength
    ? Either.right(target)
    : Either.left(
      new E.CorruptObject({
        problem: "truncated",
        reason: `the file ends at byte ${position + count}; it was longer when it was opened`
      })
    )

// Streams

/** An opened object, and those of its attributes that are kept with it. */
interface Opened {
  readonly object: Omit<StorageBackend.OpenedObject, "position">
  readonly kept: StorageBackend.Attributes | undefined
}

/** A file that was opened, with its bytes and closed again, or still open. */
interface Found {
  readonly file: OpenFile
  readonly range: ResolvedRange
  readonly bytes: Bytes | undefined
}

/** Opens an object for the scope. A small range is read at once, and its file closed. */
export const open = (
  directory: Directory,
  key: string,
  options: StorageBackend.StreamOptions
): Effect.Effect<Opened, E.LoadError, Scope.Scope> =>
  useFile<Found>(directory, key, (file) => {
    const range = rangeOf(file, options)
    if (Either.isLeft(range)) return refuse(file.descriptor, range.left)
    return lengthOf(range.right) <= Math.min(options.chunkSize ?? smallSize, smallSize)
      ? Effect.map(loadAtOnce(file, range.right), (bytes) => ({ file, range: range.right, bytes }))
      : Effect.succeed({ file, range: range.right, bytes: undefined })
  }).pipe(
    Effect.tap(({ bytes, file }) =>
      bytes === undefined ? Effect.addFinalizer(() => closing(file, Effect.void)) : Effect.void
    ),
    Effect.uninterruptible,
    Effect.flatMap(({ bytes, file, range }) =>
      versionOf(directory, key, file.stats).pipe(
        Effect.catchTag("SystemError", readFailed(directory, key)),
        Effect.flatMap((version) =>
          // It was overwritten meanwhile.
          version === undefined ? open(directory, key, options) : Effect.succeed({
            object: bytes === undefined
              ? openedFile(file, version.info, range, options)
              : StorageBackend.openedBytes(version.info, range, bytes),
            kept: version.kept
          })
        )
      )
    )
  )

const openedFile = (
  file: OpenFile,
  info: StorageBackend.ObjectInfo,
  range: ResolvedRange,
  options: StorageBackend.StreamOptions
): Opened["object"] => {
  const size = Math.min(options.chunkSize ?? chunkSize, chunkSize)
  return {
    info,
    range,
    stream: streamOf(file, range, size, undefined),
    reuse: (isFree) => streamOf(file, range, size, isFree)
  }
}

/** The bytes of a range; a chunk is read into the array of the one before where that is free. */
const streamOf = (
  file: OpenFile,
  { endExclusive, start }: ResolvedRange,
  size: number,
  isFree: (() => boolean) | undefined
): Stream.Stream<Bytes, E.LoadError> =>
  Stream.unfoldEffect<State, Bytes, E.LoadError, never>({ at: start, last: undefined }, ({ at, last }) => {
    if (at === endExclusive) return Effect.succeedNone
    const length = Math.min(size, endExclusive - at)
    // No chunk is longer than the one before.
    const target = last !== undefined && isFree?.() === true
      ? Either.right(last.subarray(0, length))
      : allocate(length)
    return Effect.flatMap(target, (target) => fill(file, target, at)).pipe(
      Effect.map((chunk) => Option.some([chunk, { at: at + length, last: isFree && chunk }] as const)),
      Effect.catchTag("SystemError", (error) => Effect.fail(toReadError(file.path, error)))
    )
  })

/** Where a stream goes on, and the array of its last chunk, if it may be used again. */
interface State {
  readonly at: number
  readonly last: Bytes | undefined
}
