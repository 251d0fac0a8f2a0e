/**
 * Reads objects. A file is opened once for each read, whatever its size.
 */
import * as Chunk from "effect/Chunk"
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
import { readFailed } from "./errors.js"
import * as nodeFs from "./nodeFs.js"
import { type Directory, isAllowed, linkRefused, pathOf, realPath, stat } from "./paths.js"
import { etagOf } from "./versions.js"

/**
 * The largest chunk of a stream, in bytes. Smaller chunks cost more each; of larger ones the few in use add up to what makes V8
 * collect the whole heap every few dozen MiB, at three times the time (bench row `stream`).
 */
const chunkSize = 2 * 1024 * 1024

/** The bytes of one read of a load, and how many reads run at once (bench row `load`). */
const pieceSize = 8 * 1024 * 1024
const piecesAtOnce = 4

/** What is read when it is opened, in bytes: it costs less than to come back for it (bench row `small`). */
const smallSize = 64 * 1024

/** The methods of a backend that read objects. */
export const reader = (
  directory: Directory
): Pick<StorageBackend.StorageBackend, "head" | "load" | "loadRanges"> & Pick<StorageBackend.Primitives, "open"> => ({
  head: (key) => head(directory, key),
  load: (key, options) => useFile(directory, key, (file, resume) => load(file, options, resume)),
  loadRanges: (key, ranges, options) =>
    useFile(directory, key, (file, resume) => resume(closing(file, loadRanges(file, ranges, options)))),
  open: (key, options) => Effect.map(open(directory, key, options), ({ object }) => object)
})

// Metadata

/** The info of an object, with its attributes. */
const head = (directory: Directory, key: string): Effect.Effect<StorageBackend.ObjectInfo, E.HeadError> =>
  statObject(directory, key).pipe(
    Effect.catchTag("SystemError", readFailed(directory, key)),
    Effect.flatMap((stats) => versionOf(directory, key, stats)),
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
  readonly directory: Directory
  readonly key: string
  readonly descriptor: nodeFs.Descriptor
  readonly stats: nodeFs.Stats
}

type Bytes = Uint8Array<ArrayBuffer>

type Resume<A, R = never> = nodeFs.Resume<A, E.LoadError, R>

/** Opens the file of an object for `use`, which has to close it; see `nodeFs.open`. */
const useFile = <A, R = never>(
  directory: Directory,
  key: string,
  use: (file: OpenFile, resume: Resume<A, R>) => void
): Effect.Effect<A, E.LoadError, R> => {
  const path = pathOf(directory, key)
  const failed = readFailed(directory, key)
  return nodeFs.open(path, failed, (descriptor, resume: Resume<A, R>) => {
    const stats = nodeFs.statNow(descriptor)
    if (Either.isLeft(stats)) return refuse(descriptor, failed(stats.left), resume)
    if (!stats.right.isFile()) return refuse(descriptor, Effect.fail(new E.ObjectNotFound()), resume)
    const file = { directory, key, descriptor, stats: stats.right }
    const where = directory.followLinks ? directory.path : nodeFs.whereIs(descriptor)
    if (where !== undefined) {
      return isAllowed(directory, where)
        ? use(file, resume)
        : refuse(descriptor, Effect.fail(linkRefused(where)), resume)
    }
    const checked = Effect.catchTag(realPath(directory, path), "SystemError", failed)
    resume(Effect.zipRight(
      Effect.tapError(checked, () => Effect.sync(() => nodeFs.closeNow(descriptor))),
      Effect.async<A, E.LoadError, R>((resume) => use(file, resume))
    ))
  })
}

/** Closes a file, and fails. */
const refuse = <A, R>(
  descriptor: nodeFs.Descriptor,
  failure: Effect.Effect<never, E.LoadError>,
  resume: Resume<A, R>
): void => {
  nodeFs.closeNow(descriptor)
  resume(failure)
}

/** Closes a file after an effect, which can be interrupted. */
const closing = <A, Err>({ descriptor }: OpenFile, effect: Effect.Effect<A, Err>): Effect.Effect<A, Err> =>
  Effect.ensuring(Effect.interruptible(effect), Effect.sync(() => nodeFs.closeNow(descriptor)))

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

/** The bytes that were read, if there are enough. */
const full = (target: Bytes, position: number, count: number): Either.Either<Bytes, E.CorruptObject> =>
  count === target.byteLength
    ? Either.right(target)
    : Either.left(
      new E.CorruptObject({
        problem: "truncated",
        reason: `the file ends at byte ${position + count}; it was longer when it was opened`
      })
    )

// Whole arrays

const load = (file: OpenFile, options: StorageBackend.LoadOptions, resume: Resume<Bytes>): void => {
  const range = rangeOf(file, options)
  if (Either.isLeft(range)) refuse(file.descriptor, Effect.fail(range.left), resume)
  else if (lengthOf(range.right) > pieceSize) resume(closing(file, loadInPieces(file, range.right)))
  else loadAtOnce(file, range.right, Effect.succeed, resume)
}

/** Reads a range at once, closes the file, and continues with the result of `use`. */
const loadAtOnce = <A, R>(
  { descriptor, directory, key }: OpenFile,
  range: ResolvedRange,
  use: (bytes: Bytes) => Effect.Effect<A, E.LoadError, R>,
  resume: Resume<A, R>
): void => {
  const target = allocate(lengthOf(range))
  if (Either.isLeft(target)) return refuse(descriptor, Effect.fail(target.left), resume)
  nodeFs.readAndClose(descriptor, target.right, range.start, (count) => {
    if (Either.isLeft(count)) return resume(readFailed(directory, key)(count.left))
    const bytes = full(target.right, range.start, count.right)
    resume(Either.isLeft(bytes) ? Effect.fail(bytes.left) : use(bytes.right))
  })
}

const loadInPieces = (file: OpenFile, range: ResolvedRange) =>
  Effect.tap(allocate(lengthOf(range)), (target) =>
    Effect.forEach(
      Array.from({ length: Math.ceil(target.byteLength / pieceSize) }, (_, i) => i * pieceSize),
      (at) => fill(file, target.subarray(at, at + pieceSize), range.start + at),
      { concurrency: piecesAtOnce, discard: true }
    ))

/** Fills an array from a position on. */
const fill = ({ descriptor, directory, key }: OpenFile, target: Bytes, position: number) =>
  nodeFs.read(descriptor, target, position).pipe(
    Effect.catchAll(readFailed(directory, key)),
    Effect.flatMap((count) => full(target, position, count))
  )

const loadRanges = (
  file: OpenFile,
  ranges: ReadonlyArray<ByteRange>,
  options: Omit<StorageBackend.LoadOptions, "range">
) =>
  Effect.gen(function*() {
    const resolved = yield* Effect.forEach(ranges, (range) => rangeOf(file, { ...options, range }))
    const reads = coalesce(resolved)
    const loaded = yield* Effect.forEach(reads, (read) => loadInPieces(file, read), { concurrency: piecesAtOnce })
    return resolved.map((range) => cut(range, reads, loaded))
  })

// Streams

/** An opened object, and those of its attributes that are kept with it. */
interface Opened {
  readonly object: Omit<StorageBackend.OpenedObject, "position">
  readonly kept: StorageBackend.Attributes | undefined
}

/** Opens an object for the scope. A small range is read at once, and its file closed. */
export const open = (
  directory: Directory,
  key: string,
  options: StorageBackend.StreamOptions
): Effect.Effect<Opened, E.LoadError, Scope.Scope> =>
  useFile<Opened, Scope.Scope>(directory, key, (file, resume) => {
    const range = rangeOf(file, options)
    if (Either.isLeft(range)) return refuse(file.descriptor, Effect.fail(range.left), resume)
    const opened = (bytes?: Bytes) => describe(file, range.right, bytes, options)
    if (lengthOf(range.right) <= Math.min(options.chunkSize ?? smallSize, smallSize)) {
      loadAtOnce(file, range.right, opened, resume)
    } else {
      resume(Effect.zipRight(Effect.addFinalizer(() => closing(file, Effect.void)), opened()))
    }
  })

/** What a file is opened as: its bytes, where they have been read, or a stream of them. */
const describe = (
  file: OpenFile,
  range: ResolvedRange,
  bytes: Bytes | undefined,
  options: StorageBackend.StreamOptions
): Effect.Effect<Opened, E.LoadError, Scope.Scope> =>
  Effect.flatMap(versionOf(file.directory, file.key, file.stats), (version) => {
    // It was overwritten meanwhile.
    if (version === undefined) return open(file.directory, file.key, options)
    const { info, kept } = version
    const size = Math.min(options.chunkSize ?? chunkSize, chunkSize)
    return Effect.succeed({
      kept,
      object: bytes !== undefined ? StorageBackend.openedBytes(info, range, bytes) : {
        info,
        range,
        stream: streamOf(file, range, size),
        reuse: (isFree) => streamOf(file, range, size, isFree)
      }
    })
  })

/**
 * The bytes of a range; a chunk is read into the array of the one before where that is free.
 *
 * It is pulled, as `Stream.unfoldEffect` keeps each chunk until the whole heap is collected: with it the rows `stream`
 * of the benchmark take three times as long.
 */
const streamOf = (
  file: OpenFile,
  { endExclusive, start }: ResolvedRange,
  size: number,
  isFree?: () => boolean
): Stream.Stream<Bytes, E.LoadError> =>
  Stream.fromPull(Effect.sync(() => {
    let at = start
    let last: Bytes | undefined
    // No chunk is longer than the one before.
    const next = (length: number) =>
      last !== undefined && isFree?.() === true ? Either.right(last.subarray(0, length)) : allocate(length)
    return Effect.suspend(() => {
      if (at === endExclusive) return Effect.fail(Option.none())
      const position = at
      at = Math.min(position + size, endExclusive)
      return next(at - position).pipe(
        Effect.tap((chunk) => {
          if (isFree !== undefined) last = chunk
          return fill(file, chunk, position)
        }),
        Effect.mapBoth({ onFailure: Option.some, onSuccess: Chunk.of })
      )
    })
  }))
