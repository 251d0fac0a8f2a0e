/**
 * Reads objects. A file is opened once for each read, whatever its size.
 */
import * as Chunk from "effect/Chunk"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as FiberRef from "effect/FiberRef"
import * as Option from "effect/Option"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import type { ByteRange, ResolvedRange } from "../../ByteRange.js"
import { allocate } from "../../internal/bytes.js"
import { coalesce, cut } from "../../internal/ranges.js"
import * as StorageBackend from "../../StorageBackend.js"
import * as E from "../../StorageError.js"
import * as Batches from "./batches.js"
import * as Descriptors from "./descriptors.js"
import { readFailed } from "./errors.js"
import * as nodeFs from "./nodeFs.js"
import { type Directory, isAllowed, linkRefused, pathOf, realPath, stat } from "./paths.js"
import { permissionsOf } from "./permissions.js"
import * as Records from "./records.js"
import { etagOf, hasWholeTime, isWritten, unsettledFor } from "./versions.js"

/** The size of an array that is filled again and again, in bytes. */
const reusedSize = 2 * 1024 * 1024

/** The bytes of one read of a load, and how many reads run at once (bench row `load`). */
const pieceSize = 8 * 1024 * 1024
const piecesAtOnce = 4

/** What is read when it is opened, in bytes: it costs less than to come back for it (bench row `small`). */
const smallSize = 64 * 1024

/** How often an object is read again that another program changes meanwhile. */
const tries = 3

/** The methods of a backend that read objects. */
export const reader = (
  directory: Directory
): Pick<StorageBackend.StorageBackend, "head" | "load" | "loadRanges"> & Pick<StorageBackend.Primitives, "open"> => ({
  head: (key) => head(directory, key),
  load: (key, options) => load(directory, key, options, tries),
  loadRanges: (key, ranges, options) => loadRanges(directory, key, ranges, options, tries),
  open: (key, options) => Effect.map(open(directory, key, options, tries), ({ object }) => object)
})

// Metadata

/** The info of an object, with its attributes. */
const head = (directory: Directory, key: string): Effect.Effect<StorageBackend.ObjectInfo, E.HeadError> =>
  statObject(directory, key).pipe(
    Effect.catchTag("SystemError", readFailed(directory, key)),
    Effect.flatMap((stats) => Records.versionOf(directory, key, stats)),
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

/** A file that is open for reading. */
interface OpenFile {
  readonly directory: Directory
  readonly key: string
  readonly descriptor: nodeFs.Descriptor
  /** Its stats when it was opened. */
  readonly stats: nodeFs.Stats
  /** Its etag, where a part of it is recorded and a condition asks for it. */
  readonly etag: string | undefined
  /** Its stats when it was last looked at, see `isUnchanged`. */
  lastSeen: nodeFs.Stats
}

type Bytes = Uint8Array<ArrayBuffer>

type Resume<A, R = never> = nodeFs.Resume<A, E.LoadError, R>

type Use<A, R> = (file: OpenFile, resume: Resume<A, R>) => void

type Conditions = Pick<StorageBackend.LoadOptions, "ifMatch" | "ifNoneMatch">

/** Opens the file of an object for `use`, which has to close it; see `nodeFs.open`. */
const useFile = <A, R = never>(
  directory: Directory,
  key: string,
  conditions: Conditions,
  use: Use<A, R>
): Effect.Effect<A, E.LoadError, R> => {
  const path = pathOf(directory, key)
  const failed = readFailed(directory, key)
  const prepared: Use<A, R> = (file, resume) => {
    const isRecorded = (conditions.ifMatch ?? conditions.ifNoneMatch) !== undefined && hasWholeTime(file.stats)
    if (!isRecorded && unsettledFor(file.stats, Date.now()) === 0) return use(file, resume)
    resume(Effect.flatMap(
      Effect.tapError(prepare(file, isRecorded), () => Effect.sync(() => nodeFs.closeNow(file.descriptor))),
      (ready) => {
        if (ready !== undefined) return Effect.async<A, E.LoadError, R>((resume) => use(ready, resume))
        // It was overwritten meanwhile.
        nodeFs.closeNow(file.descriptor)
        return useFile(directory, key, conditions, use)
      }
    ))
  }
  return nodeFs.open(path, failed, (descriptor, resume: Resume<A, R>) => {
    const stats = nodeFs.statNow(descriptor)
    if (Either.isLeft(stats)) return refuse(descriptor, failed(stats.left), resume)
    if (!stats.right.isFile()) return refuse(descriptor, Effect.fail(new E.ObjectNotFound()), resume)
    const file = { directory, key, descriptor, stats: stats.right, etag: undefined, lastSeen: stats.right }
    const where = directory.followLinks ? directory.path : nodeFs.whereIs(descriptor)
    if (where !== undefined) {
      return isAllowed(directory, where)
        ? prepared(file, resume)
        : refuse(descriptor, Effect.fail(linkRefused(where)), resume)
    }
    const checked = Effect.catchTag(realPath(directory, path), "SystemError", failed)
    resume(Effect.zipRight(
      Effect.tapError(checked, () => Effect.sync(() => nodeFs.closeNow(descriptor))),
      Effect.async<A, E.LoadError, R>((resume) => prepared(file, resume))
    ))
  })
}

/** Waits until a later write would change the times of a file, and looks up its etag; `undefined` where it was overwritten. */
const prepare = (
  file: OpenFile,
  isRecorded: boolean,
  left = tries
): Effect.Effect<OpenFile | undefined, E.LoadError> => {
  const { descriptor, directory, key, stats } = file
  const wait = unsettledFor(stats, Date.now())
  if (wait > 0) {
    if (left === 0) return Effect.fail(beingWritten())
    return Effect.zipRight(
      nodeFs.pause(wait),
      Effect.suspend(() =>
        Either.match(nodeFs.statNow(descriptor), {
          onLeft: readFailed(directory, key),
          onRight: (stats) => prepare({ ...file, stats, lastSeen: stats }, isRecorded, left - 1)
        })
      )
    )
  }
  return isRecorded
    ? Effect.map(Records.etagOf(directory, key, stats), (etag) => etag === undefined ? undefined : { ...file, etag })
    : Effect.succeed(file)
}

const beingWritten = () =>
  new E.StorageUnavailable({ reason: "another program is writing to the file of the object; try again later" })

/** What happened to a file since it was last looked at: it may also have been renamed, or given other permissions. */
type Change = "none" | "written" | "touched"

/** Looks at an open file again, after it was read. */
const changeOf = (file: OpenFile): Change => {
  const { descriptor, lastSeen } = file
  const looked = nodeFs.statNow(descriptor)
  if (Either.isLeft(looked)) return "written"
  file.lastSeen = looked.right
  if (isWritten(lastSeen, looked.right)) return "written"
  // A file whose links changed was replaced, or backed up.
  return looked.right.ctimeNs === lastSeen.ctimeNs || looked.right.nlink !== lastSeen.nlink ? "none" : "touched"
}

/** Whether bytes that were read before a change are of one version. Who writes a file can hide it; a move takes its name. */
const isOneVersion = ({ directory, key, lastSeen }: OpenFile, change: Change): Effect.Effect<boolean> =>
  change !== "touched" ? Effect.succeed(change === "none") : Effect.match(stat(directory, key), {
    onFailure: () => true,
    onSuccess: ({ dev, ino }) => ino !== lastSeen.ino || dev !== lastSeen.dev
  })

/** Closes a file, and fails. */
const refuse = <A, R>(
  descriptor: nodeFs.Descriptor,
  failure: Effect.Effect<never, E.LoadError>,
  resume: Resume<A, R>
): void => {
  nodeFs.closeNow(descriptor)
  resume(failure)
}

const close = ({ descriptor }: OpenFile): Effect.Effect<void> => Effect.sync(() => nodeFs.closeNow(descriptor))

/** The range of an open file that is to be read. */
const rangeOf = ({ directory, etag, stats }: OpenFile, options: StorageBackend.LoadOptions) =>
  StorageBackend.checkLoad({
    size: Number(stats.size),
    // Costly beside the load of a small file, and few loads need it.
    get etag() {
      return etag ?? etagOf(directory, stats, undefined)
    }
  }, options)

const lengthOf = ({ endExclusive, start }: ResolvedRange): number => endExclusive - start

/** The bytes that were read, if there are enough. */
const full = (target: Bytes, position: number, count: number): Either.Either<Bytes, E.CorruptObject> =>
  count === target.byteLength
    ? Either.right(target)
    : Either.left(truncated(position + count))

const truncated = (size: number) =>
  new E.CorruptObject({
    problem: "truncated",
    reason: `the file ends at byte ${size}; it was longer when it was opened`
  })

// Whole arrays

const load = (
  directory: Directory,
  key: string,
  options: StorageBackend.LoadOptions,
  left: number
): Effect.Effect<Bytes, E.LoadError> => {
  const again = left === 0 ? undefined : () => load(directory, key, options, left - 1)
  return useFile(directory, key, options, (file, resume) => {
    const range = rangeOf(file, options)
    if (Either.isLeft(range)) refuse(file.descriptor, Effect.fail(range.left), resume)
    else if (lengthOf(range.right) > pieceSize) resume(closing(file, loadInPieces(file, range.right), again))
    else loadAtOnce(file, range.right, Effect.succeed, again, resume)
  })
}

/** Reads a range at once, closes the file, and continues with the result of `use`, or of `again` where the file was changed. */
const loadAtOnce = <A, R>(
  file: OpenFile,
  range: ResolvedRange,
  use: (bytes: Bytes) => Effect.Effect<A, E.LoadError, R>,
  again: (() => Effect.Effect<A, E.LoadError, R>) | undefined,
  resume: Resume<A, R>
): void => {
  const { descriptor, directory, key } = file
  const target = allocate(lengthOf(range))
  if (Either.isLeft(target)) return refuse(descriptor, Effect.fail(target.left), resume)
  nodeFs.readInto(descriptor, target.right, range.start, (count) => {
    const change = changeOf(file)
    nodeFs.closeNow(descriptor)
    if (Either.isLeft(count)) return resume(readFailed(directory, key)(count.left))
    const bytes = full(target.right, range.start, count.right)
    if (change === "none" && Either.isRight(bytes)) return resume(use(bytes.right))
    resume(Effect.flatMap(isOneVersion(file, change), (is) => {
      if (is && Either.isRight(bytes)) return use(bytes.right)
      return again?.() ?? Effect.fail(Either.isLeft(bytes) ? bytes.left : beingWritten())
    }))
  })
}

/** Closes a file after it was read, and reads again where it was changed meanwhile. */
const closing = <A>(
  file: OpenFile,
  read: Effect.Effect<A, E.LoadError>,
  again: (() => Effect.Effect<A, E.LoadError>) | undefined
): Effect.Effect<A, E.LoadError> =>
  Effect.zip(Effect.either(read), Effect.sync(() => changeOf(file))).pipe(
    Effect.interruptible,
    Effect.ensuring(close(file)),
    Effect.flatMap(([outcome, change]) =>
      Effect.flatMap(isOneVersion(file, change), (is) => {
        if (is) return outcome
        return again?.() ?? (Either.isLeft(outcome) ? outcome : Effect.fail(beingWritten()))
      })
    )
  )

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
  directory: Directory,
  key: string,
  ranges: ReadonlyArray<ByteRange>,
  options: Omit<StorageBackend.LoadOptions, "range">,
  left: number
): Effect.Effect<ReadonlyArray<Bytes>, E.LoadError> =>
  useFile(directory, key, options, (file, resume) => {
    const loaded = Effect.gen(function*() {
      const resolved = yield* Effect.forEach(ranges, (range) => rangeOf(file, { ...options, range }))
      const reads = coalesce(resolved)
      const loaded = yield* Effect.forEach(reads, (read) => loadInPieces(file, read), { concurrency: piecesAtOnce })
      return resolved.map((range) => cut(range, reads, loaded))
    })
    const again = left === 0 ? undefined : () => loadRanges(directory, key, ranges, options, left - 1)
    resume(closing(file, loaded, again))
  })

// Streams

/** An opened object, those of its attributes that are kept with it, and who may use its file. */
interface Opened {
  readonly mode: number
  readonly object: Omit<StorageBackend.OpenedObject, "position">
  readonly kept: StorageBackend.Attributes | undefined
}

/** Opens an object for the scope. A small range is read at once, and its file closed. */
export const open = (
  directory: Directory,
  key: string,
  options: StorageBackend.StreamOptions,
  left = tries
): Effect.Effect<Opened, E.LoadError, Scope.Scope> =>
  Effect.uninterruptibleMask((restore) => openUntil(directory, key, options, left, restore, Descriptors.patient))

const openUntil = (
  directory: Directory,
  key: string,
  options: StorageBackend.StreamOptions,
  left: number,
  restore: Descriptors.Restore,
  until: Descriptors.Patience
): Effect.Effect<Opened, E.LoadError, Scope.Scope> =>
  useFile<Opened, Scope.Scope>(directory, key, options, (file, resume) => {
    const range = rangeOf(file, options)
    if (Either.isLeft(range)) return refuse(file.descriptor, Effect.fail(range.left), resume)
    const opened = (bytes?: Bytes) => describe(file, range.right, bytes, options)
    if (lengthOf(range.right) <= Math.min(options.chunkSize ?? smallSize, smallSize)) {
      const again = left === 0 ? undefined : () => open(directory, key, options, left - 1)
      loadAtOnce(file, range.right, opened, again, resume)
    } else {
      const keep = Effect.zipRight(Effect.addFinalizer(() => close(file)), opened())
      if (!Descriptors.isScarce(file.descriptor, "stream")) return resume(keep)
      resume(Effect.flatMap(FiberRef.get(Descriptors.isHolding), (isHolding) => {
        const purpose = isHolding ? "source" : "stream"
        if (!Descriptors.isPatient(until) || !Descriptors.isScarce(file.descriptor, purpose)) return keep
        const retry = (until: Descriptors.Patience) => openUntil(directory, key, options, left, restore, until)
        return Effect.zipRight(close(file), Descriptors.again(purpose, until, restore, retry, retry(0)))
      }))
    }
  })

/** What a file is opened as: its bytes, where they have been read, or a stream of them. */
const describe = (
  file: OpenFile,
  range: ResolvedRange,
  bytes: Bytes | undefined,
  options: StorageBackend.StreamOptions
): Effect.Effect<Opened, E.LoadError, Scope.Scope> =>
  Effect.flatMap(Records.versionOf(file.directory, file.key, file.stats), (version) => {
    // It was overwritten meanwhile.
    if (version === undefined) return open(file.directory, file.key, options)
    const { info, record } = version
    return Effect.succeed({
      mode: permissionsOf(file.stats).mode,
      kept: record.attributes,
      object: bytes !== undefined ? StorageBackend.openedBytes(info, range, bytes) : {
        info,
        range,
        stream: streamOf(file, range, options.chunkSize),
        reuse: (isFree) => reusing(file, range, Math.min(options.chunkSize ?? reusedSize, reusedSize), isFree)
      }
    })
  })

/** The bytes of a range. After each batch the file is looked at, so that no chunk has bytes of another version than the first. */
const streamOf = (
  file: OpenFile,
  range: ResolvedRange,
  largest: number | undefined
): Stream.Stream<Bytes, E.LoadError> => {
  const { descriptor, directory, key } = file
  const failed = readFailed(directory, key)
  const fill: Batches.Fill = (arrays, position, done) =>
    nodeFs.readBatch(descriptor, arrays, position, (count) => {
      if (Either.isLeft(count)) return done(failed(count.left))
      const change = changeOf(file)
      const end = position + count.right
      const expected = arrays.reduce((sum, { byteLength }) => sum + byteLength, position)
      const isWhole = end === expected ? undefined : Effect.fail(truncated(end))
      done(change === "none" ? isWhole : Effect.zipRight(checkVersion(file, change), isWhole ?? Effect.void))
    })
  return Stream.fromPull(Batches.pull(range, fill, largest))
}

/**
 * The bytes of a range in one array, which is filled again where it is free, and otherwise replaced. After each read the file is
 * looked at.
 *
 * It is pulled, as `Stream.unfoldEffect` keeps each chunk until the whole heap is collected.
 */
const reusing = (
  file: OpenFile,
  { endExclusive, start }: ResolvedRange,
  largest: number,
  isFree: () => boolean
): Stream.Stream<Bytes, E.LoadError> =>
  Stream.fromPull(Effect.sync(() => {
    let at = start
    let last: Bytes | undefined
    // No chunk is longer than the one before.
    const next = (length: number) =>
      last !== undefined && isFree() ? Either.right(last.subarray(0, length)) : allocate(length)
    return Effect.suspend(() => {
      if (at === endExclusive) return Effect.fail(Option.none())
      const position = at
      at = Math.min(position + largest, endExclusive)
      return next(at - position).pipe(
        Effect.tap((chunk) => {
          last = chunk
          return fill(file, chunk, position)
        }),
        Effect.zipLeft(Effect.suspend(() => {
          const change = changeOf(file)
          return change === "none" ? Effect.void : checkVersion(file, change)
        })),
        Effect.mapBoth({ onFailure: Option.some, onSuccess: Chunk.of })
      )
    })
  }))

/** Fails where the object is not the one any more that was opened. */
const checkVersion = (file: OpenFile, change: Change): Effect.Effect<void, E.LoadError> =>
  Effect.flatMap(isOneVersion(file, change), (is) => {
    if (is) return Effect.void
    const { lastSeen, stats } = file
    return Effect.fail(lastSeen.size < stats.size ? truncated(Number(lastSeen.size)) : new E.PreconditionFailed())
  })
