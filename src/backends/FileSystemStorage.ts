/**
 * Objects as files below a directory. A key's file stands under its own name in its own folders, so that a folder of
 * weights that someone downloaded is readable as it is, and what is saved can be read by anything else.
 *
 * A save writes a temporary file in the folder `.surfing-weights`, which no listing shows, flushes it and renames it
 * into place: readers see the old object or the new one, whole, also when the process or the machine dies meanwhile.
 * Temporary files of killed processes are removed when a storage is built on the directory (those of another machine
 * or container once nothing was written to them for a day).
 *
 * What a file system cannot do:
 *
 * - `foo` and `foo/bar` cannot both exist; the second to come fails with `UnsupportedOperation`, which names both.
 * - `ifMatch` on a save is atomic among the fibers of one process, not across processes. `ifNoneMatch: "*"` is, by a
 *   hard link.
 * - Where the file system ignores case (macOS, Windows), keys that differ in case alone are one object.
 *
 * @module FileSystemStorage
 * @since 0.1.0
 */
import * as Arr from "effect/Array"
import * as Chunk from "effect/Chunk"
import * as Config from "effect/Config"
import type { ConfigError } from "effect/ConfigError"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import * as ByteRange from "../ByteRange.js"
import { tooLargeForAnArray } from "../internal/bytes.js"
import * as files from "../internal/files.js"
import { writeAll } from "../internal/fileWriter.js"
import { children as childrenIn, isInside, keys as keysIn, pathOf, type Root } from "../internal/folderListing.js"
import { fromBytes } from "../internal/inHand.js"
import * as Lending from "../internal/lending.js"
import * as Locks from "../internal/keyedLock.js"
import { coalesce, cut } from "../internal/ranges.js"
import { toReadError, toWriteError } from "../internal/systemErrors.js"
import * as TemporaryFiles from "../internal/temporaryFiles.js"
import * as Storage from "../Storage.js"
import * as StorageBackend from "../StorageBackend.js"
import * as E from "../StorageError.js"

/**
 * @since 0.1.0
 * @category models
 */
export interface Options {
  /** Where the objects are. It is created if it does not exist; a relative path starts at the working directory. */
  readonly directory: string
  /**
   * Whether a save returns only when file and folder are on the disk and outlive a loss of power (`"full"`, the
   * default), or as soon as the system has them (`"relaxed"`). Either way it is all or nothing when the process dies.
   */
  readonly durability?: "full" | "relaxed"
  /**
   * What becomes of symbolic links that lead out of the directory: `AccessDenied` and no mention in listings
   * (`"refuse"`, the default), or whatever they lead to (`"follow"`), as the cache of Hugging Face needs. Links within
   * the directory are always followed.
   */
  readonly symlinks?: "refuse" | "follow"
}

/**
 * What building a storage on a directory can meet.
 *
 * @since 0.1.0
 * @category models
 */
export type OpenError = E.CommonError | E.StorageFull | E.UnsupportedOperation

/**
 * A storage on a directory.
 *
 * @since 0.1.0
 * @category constructors
 */
export const make = (options: Options): Effect.Effect<Storage.Service, OpenError> =>
  Effect.map(makeBackend(options), Storage.make)

/**
 * Provides a storage on a directory.
 *
 * @since 0.1.0
 * @category layers
 * @example
 * ```ts
 * import { Effect } from "effect"
 * import { FileSystemStorage, Storage } from "surfing-weights"
 *
 * const program = Storage.list("bert/")
 *
 * const runnable = program.pipe(Effect.provide(FileSystemStorage.layer({ directory: "./weights" })))
 * ```
 */
export const layer = (options: Options): Layer.Layer<Storage.Storage, OpenError> =>
  Layer.effect(Storage.Storage, make(options))

/**
 * The same with options from `Config`, for instance from the environment.
 *
 * @since 0.1.0
 * @category layers
 * @example
 * ```ts
 * import { Config } from "effect"
 * import { FileSystemStorage } from "surfing-weights"
 *
 * const WeightsLive = FileSystemStorage.layerConfig({ directory: Config.string("WEIGHTS_DIRECTORY") })
 * ```
 */
export const layerConfig = (
  options: Config.Config.Wrap<Options>
): Layer.Layer<Storage.Storage, OpenError | ConfigError> =>
  Layer.effect(Storage.Storage, Effect.flatMap(Config.unwrap(options), make))

/** A file that is open for reading, and what it was when it was opened. */
interface OpenFile {
  readonly descriptor: files.Descriptor
  readonly info: StorageBackend.ObjectInfo
}

/**
 * What one read of a stream takes, and each of its chunks has. Smaller ones cost more each. Of larger ones the few that
 * are in use add up to what makes V8 collect the whole heap every few dozen MiB, at three times the time.
 */
const chunkSize = 2 * 1024 * 1024

/** What one read of a load takes, and how many go at once. */
const pieceSize = 8 * 1024 * 1024
const piecesAtOnce = 4

/** What is read when it is opened: the bytes cost less than to come back for them. */
const smallSize = 64 * 1024

const statsAtOnce = 16

const needsPieces = { _tag: "NeedsPieces" } as const

// Shared by every storage of the process, so that `ifMatch` holds between two on one directory as well.
const locks = Locks.make()

const makeBackend = (options: Options): Effect.Effect<StorageBackend.StorageBackend, OpenError> =>
  Effect.gen(function*() {
    const backend = `FileSystem(${options.directory})`
    const durable = options.durability !== "relaxed"
    const root: Root = {
      path: yield* openDirectory(backend, options.directory),
      followLinks: options.symlinks === "follow"
    }
    const temporaryFiles = yield* TemporaryFiles.make(root.path)

    // Failures

    const place = (operation: string, key: string) => ({ backend, operation, key, path: pathOf(root, key) })

    const notFound = (operation: string, key: string) => new E.ObjectNotFound({ backend, operation, key })

    const checkRoot = (operation: string): Effect.Effect<void, E.CommonError> =>
      Effect.mapError(Effect.asVoid(files.stat(root.path)), (error) =>
        isMissing(error)
          ? new E.StorageNotFound({
            backend,
            operation,
            reason: `the directory ${root.path} is gone; was it removed, or its disk unmounted?`,
            cause: error.cause
          })
          : toReadError({ backend, operation, path: root.path })(error))

    /** What reading an object failed with: no such file is no such object. */
    const readFailed = (operation: string, key: string) => (error: files.SystemError) =>
      isMissing(error)
        ? Effect.zipRight(checkRoot(operation), Effect.fail(notFound(operation, key)))
        : Effect.fail(toReadError(place(operation, key))(error))

    /**
     * A listing. Folders that go meanwhile are passed over, so the base directory is looked at before and after: its
     * absence is not taken for an empty listing, nor for the end of one.
     */
    const listing = (operation: string, names: Stream.Stream<string, files.SystemError>) =>
      Stream.execute(checkRoot(operation)).pipe(
        Stream.concat(Stream.mapError(names, toReadError({ backend, operation, path: root.path }))),
        Stream.concat(Stream.execute(checkRoot(operation)))
      )

    /** What writing one failed with: no such folder is no base directory, for the others are made. */
    const writeFailed = (operation: string, key: string) => (error: files.SystemError) =>
      Effect.zipRight(
        isMissing(error) ? checkRoot(operation) : Effect.void,
        Effect.fail(
          error.code === "ENAMETOOLONG"
            ? new E.InvalidKey({
              backend,
              operation,
              key,
              reason: `below ${root.path} its path is longer than the file system allows`,
              cause: error.cause
            })
            : toWriteError(place(operation, key))(error)
        )
      )

    // Ways to a file

    const isAllowed = (realPath: string) => root.followLinks || isInside(root, realPath)

    const linkRefused = (operation: string, key: string, target: string) =>
      new E.AccessDenied({
        backend,
        operation,
        key,
        reason: `a symbolic link leads out of the directory, to ${target}; symlinks: "follow" would allow it`
      })

    /** A path without its links: where it is allowed to be, or a failure. */
    const realPath = (operation: string, key: string, path: string) =>
      Effect.filterOrFail(files.realPath(path), isAllowed, (target) => linkRefused(operation, key, target))

    const checkFolder = (operation: string, key: string) => {
      const folder = files.dirname(pathOf(root, key))
      return root.followLinks || folder === root.path ? Effect.void : realPath(operation, key, folder)
    }

    const stat = (operation: string, key: string) => {
      const path = pathOf(root, key)
      return root.followLinks ? files.stat(path) : Effect.zipRight(
        checkFolder(operation, key),
        Effect.flatMap(files.lstat(path), (stats) =>
          stats.isSymbolicLink()
            ? Effect.flatMap(realPath(operation, key, path), files.stat)
            : Effect.succeed(stats))
      )
    }

    // Reading

    const head = (operation: string, key: string) =>
      stat(operation, key).pipe(
        Effect.filterOrFail((stats) => stats.isFile(), () => notFound(operation, key)),
        Effect.map((stats) => toInfo(key, stats)),
        Effect.catchTag("SystemError", readFailed(operation, key))
      )

    const openFile = (operation: string, key: string): Effect.Effect<OpenFile, E.HeadError, Scope.Scope> =>
      Effect.gen(function*() {
        const path = pathOf(root, key)
        const descriptor = yield* Effect.acquireRelease(
          files.open(path),
          (descriptor) => Effect.ignore(files.close(descriptor))
        )
        const stats = yield* files.stat(descriptor)
        if (!stats.isFile()) return yield* notFound(operation, key)
        const where = files.whereIs(descriptor)
        if (where === undefined) yield* realPath(operation, key, path)
        else if (!isAllowed(where)) return yield* linkRefused(operation, key, where)
        return { descriptor, info: toInfo(key, stats) }
      }).pipe(Effect.catchTag("SystemError", readFailed(operation, key)))

    const endedEarly = (operation: string, key: string, position: number) =>
      new E.CorruptObject({
        backend,
        operation,
        key,
        problem: "truncated",
        reason: `the file ends at byte ${position}; it was longer when it was opened`
      })

    /** Reads until `target` is full. */
    const fill = (
      operation: string,
      { descriptor, info }: OpenFile,
      target: Uint8Array,
      position: number
    ): Effect.Effect<void, E.HeadError | E.CorruptObject> =>
      Effect.flatMap(
        Effect.catchAll(
          files.read(descriptor, target, 0, target.byteLength, position),
          readFailed(operation, info.key)
        ),
        (count) =>
          count === target.byteLength
            ? Effect.void
            : count > 0
            ? fill(operation, { descriptor, info }, target.subarray(count), position + count)
            : Effect.fail(endedEarly(operation, info.key, position))
      )

    const allocate = (operation: string, key: string, size: number) =>
      Either.fromNullable(files.allocate(size), () => tooLargeForAnArray(size, { backend, operation, key }))

    const loadRange = (operation: string, file: OpenFile, { endExclusive, start }: ByteRange.ResolvedRange) =>
      Effect.tap(allocate(operation, file.info.key, endExclusive - start), (target) =>
        target.byteLength <= pieceSize
          ? fill(operation, file, target, start)
          : Effect.forEach(
            Array.from({ length: Math.ceil(target.byteLength / pieceSize) }, (_, i) => i * pieceSize),
            (at) => fill(operation, file, target.subarray(at, at + pieceSize), start + at),
            { concurrency: piecesAtOnce, discard: true }
          ))

    const loadByPieces = (key: string, options: StorageBackend.LoadOptions) =>
      Effect.gen(function*() {
        const file = yield* openFile("load", key)
        const range = yield* StorageBackend.checkLoad(file.info, options, { backend, operation: "load" })
        return yield* loadRange("load", file, range)
      }).pipe(Effect.scoped)

    /** Says of an open file what a load is to read of it, if it can be read in one go of at most so many bytes. */
    const planLoad = (key: string, options: StorageBackend.LoadOptions, most = pieceSize) =>
    (
      descriptor: files.Descriptor,
      stats: files.Stats
    ): Either.Either<files.Part<E.CorruptObject>, E.LoadError | typeof needsPieces> => {
      if (!stats.isFile()) return Either.left(notFound("load", key))
      if (!root.followLinks) {
        const where = files.whereIs(descriptor)
        if (where === undefined) return Either.left(needsPieces)
        if (!isAllowed(where)) return Either.left(linkRefused("load", key, where))
      }
      const file = {
        key,
        size: Number(stats.size),
        // Costly beside the load of a small file, and most loads do not ask for it.
        get etag() {
          return toEtag(stats)
        }
      }
      const range = StorageBackend.checkLoad(file, options, { backend, operation: "load" })
      if (Either.isLeft(range)) return Either.left(range.left)
      const { endExclusive, start } = range.right
      if (endExclusive - start > most) return Either.left(needsPieces)
      return Either.map(allocate("load", key, endExclusive - start), (target) => ({
        target,
        position: start,
        endedEarly: (position) => endedEarly("load", key, position)
      }))
    }

    /** Reads a file in one go, or fails as it must, or with `NeedsPieces`. */
    const readPart = (
      key: string,
      plan: ReturnType<typeof planLoad>
    ): Effect.Effect<Uint8Array, E.LoadError | typeof needsPieces> =>
      root.followLinks || files.tellsWhere
        ? Effect.catchTag(files.readPart(pathOf(root, key), plan), "SystemError", readFailed("load", key))
        : Effect.fail(needsPieces)

    const load = (key: string, options: StorageBackend.LoadOptions): Effect.Effect<Uint8Array, E.LoadError> =>
      Effect.catchTag(readPart(key, planLoad(key, options)), "NeedsPieces", () => loadByPieces(key, options))

    /** Opens a file of which little is wanted by reading that. */
    const openSmall = (
      key: string,
      options: StorageBackend.StreamOptions
    ): Effect.Effect<StorageBackend.OpenedObject, E.LoadError | typeof needsPieces> =>
      Effect.suspend(() => {
        const most = Math.min(options.chunkSize ?? smallSize, smallSize)
        const plan = planLoad(key, options, most)
        let info: StorageBackend.ObjectInfo | undefined
        return Effect.flatMap(
          readPart(key, (descriptor, stats) => {
            info = toInfo(key, stats)
            return plan(descriptor, stats)
          }),
          (bytes) => {
            if (info === undefined) return Effect.fail(needsPieces)
            const range = ByteRange.resolve(options.range, info.size)
            return Either.isLeft(range)
              ? Effect.fail(needsPieces)
              : Effect.succeed({ info, range: range.right, stream: fromBytes(bytes) })
          }
        )
      })

    const open: StorageBackend.StorageBackend["open"] = (key, options) =>
      Effect.catchTag(openSmall(key, options), "NeedsPieces", () =>
        Effect.gen(function*() {
          const file = yield* openFile("load", key)
          const range = yield* StorageBackend.checkLoad(file.info, options, { backend, operation: "load" })
          return { info: file.info, range, stream: streamRange("load", file, range, options.chunkSize) }
        }))

    const streamRange = (
      operation: string,
      file: OpenFile,
      { endExclusive, start }: ByteRange.ResolvedRange,
      largest = chunkSize
    ) =>
      Lending.make((isFree) =>
        Stream.fromPull(Effect.sync(() => {
          const size = Math.min(largest, chunkSize)
          let at = start
          let last: Uint8Array | undefined
          // No chunk is longer than the one before.
          const target = (length: number) =>
            last !== undefined && isFree()
              ? Either.right(last.subarray(0, length))
              : allocate(operation, file.info.key, length)
          return Effect.suspend(() => {
            if (at === endExclusive) return Effect.fail(Option.none())
            const position = at
            at = Math.min(position + size, endExclusive)
            return target(at - position).pipe(
              Effect.tap((chunk) => {
                last = chunk
                return fill(operation, file, chunk, position)
              }),
              Effect.mapBoth({ onFailure: Option.some, onSuccess: Chunk.of })
            )
          })
        }))
      )

    const describe = (operation: string, key: string) =>
      files.stat(pathOf(root, key)).pipe(
        Effect.map((stats) => stats.isFile() ? Option.some(toInfo(key, stats)) : Option.none()),
        // What is gone since it was listed is not listed.
        Effect.catchIf(isMissing, () => Effect.succeedNone),
        Effect.catchTag("SystemError", (error) => Effect.fail(toReadError(place(operation, key))(error)))
      )

    const describeAll = (operation: string, keys: Iterable<string>) =>
      Effect.map(
        Effect.forEach(keys, (key) => describe(operation, key), { concurrency: statsAtOnce }),
        Arr.getSomes
      )

    // Writing

    const makeFolder = (folder: string) =>
      Effect.catchIf(files.makeFolder(folder), hasCode("EEXIST"), () => Effect.void)

    /** Creates a folder on the way to a key's file, and those above it; gives the folders in which that made names. */
    const makeFolders = (
      operation: string,
      key: string,
      folder: string
    ): Effect.Effect<ReadonlyArray<string>, E.AccessDenied | files.SystemError> =>
      folder === root.path
        ? Effect.succeed([])
        : Effect.catchIf(Effect.as(realPath(operation, key, folder), []), hasCode("ENOENT"), () => {
          const parent = files.dirname(folder)
          return Effect.flatMap(makeFolders(operation, key, parent), (changed) =>
            Effect.as(makeFolder(folder), [...changed, parent]))
        })

    const conflict = (operation: string, key: string, other: string) =>
      new E.UnsupportedOperation({
        backend,
        operation,
        key,
        reason: `a file system cannot hold ${JSON.stringify(key)} beside ${JSON.stringify(other)}; ` +
          "remove or rename one of them first"
      })

    /** The object that stands where a key needs a folder. */
    const fileAbove = (key: string) =>
      Effect.gen(function*() {
        for (let slash = key.indexOf("/"); slash !== -1; slash = key.indexOf("/", slash + 1)) {
          const above = key.slice(0, slash)
          const stats = yield* Effect.option(files.stat(pathOf(root, above)))
          if (Option.isSome(stats) && !stats.value.isDirectory()) return above
        }
        return undefined
      })

    /** Why a file could not get the name of a key. Succeeds where what stood in the way is out of it. */
    const clear = (operation: string, key: string, error: files.SystemError): Effect.Effect<void, E.SaveError> =>
      Effect.gen(function*() {
        const path = pathOf(root, key)
        if (error.code === "ENOTDIR") {
          const above = yield* fileAbove(key)
          if (above !== undefined) yield* conflict(operation, key, above)
          return
        }
        const standing = yield* Effect.catchAll(
          Effect.asSome(files.lstat(path)),
          (failed) => isMissing(failed) ? Effect.succeedNone : writeFailed(operation, key)(error)
        )
        // What stood in the way is gone by now.
        if (Option.isNone(standing)) return
        if (standing.value.isDirectory()) {
          const within = yield* Effect.orElseSucceed(Stream.runHead(keysIn(root, { prefix: `${key}/` })), Option.none)
          // A folder that holds nothing is not in the way: no object is lost with it.
          const removed = Effect.catchIf(files.removeFolder(path), isMissing, () => Effect.void)
          if (Option.isNone(within) && (yield* Effect.isSuccess(removed))) return
          return yield* conflict(operation, key, Option.getOrElse(within, () => `${key}/`))
        }
        if (error.code === "EEXIST") return yield* new E.ObjectAlreadyExists({ backend, operation, key })
        return yield* writeFailed(operation, key)(error)
      })

    /**
     * Gives the file at `source` the name of a key, if the conditions allow it; gives the folders in which that changed
     * names. To be called under the lock of the key.
     */
    const install = (
      operation: string,
      key: string,
      source: string,
      options: StorageBackend.SaveOptions,
      tries = 5
    ): Effect.Effect<ReadonlyArray<string>, E.SaveError> =>
      Effect.gen(function*() {
        const path = pathOf(root, key)
        const folder = files.dirname(path)
        if (options.ifMatch !== undefined) {
          const existing = yield* Effect.catchTag(
            head(operation, key),
            "ObjectNotFound",
            () => Effect.succeed(undefined)
          )
          yield* StorageBackend.checkSave(key, existing, options, { backend, operation })
        }
        const changed = yield* makeFolders(operation, key, folder)
        yield* options.ifNoneMatch === undefined ? files.rename(source, path) : link(operation, key, source, path)
        return [...changed, folder]
      }).pipe(
        Effect.catchTag("SystemError", (error) =>
          tries === 0
            ? writeFailed(operation, key)(error)
            : Effect.zipRight(
              // A folder that was there a moment ago was removed with the last object in it.
              error.code === "ENOENT" ? Effect.void : clear(operation, key, error),
              install(operation, key, source, options, tries - 1)
            ))
      )

    const link = (operation: string, key: string, source: string, path: string) =>
      Effect.catchIf(
        files.link(source, path),
        ({ code }) => withoutLinks.has(code),
        (error) =>
          new E.UnsupportedOperation({
            backend,
            operation,
            key,
            reason: `the file system has no hard links (${error.code}), which ifNoneMatch: "*" needs`,
            cause: error.cause
          })
      )

    const flushFolders = (operation: string, key: string, folders: ReadonlyArray<string>) =>
      durable
        ? Effect.forEach(folders, (folder) =>
          Effect.catchAll(files.syncFolder(folder), (error) =>
            // Somebody has removed the object meanwhile, and the folder with it.
            isMissing(error) ? checkRoot(operation) : writeFailed(operation, key)(error)), { discard: true })
        : Effect.void

    /** A new file to write to, gone with the scope unless it was renamed. */
    const temporaryFile = (key: string) =>
      Effect.acquireRelease(
        Effect.suspend(() => {
          const path = temporaryFiles.next()
          const file = Effect.map(files.create(path), (descriptor) => ({ path, descriptor }))
          return Effect.catchIf(file, hasCode("ENOENT"), () => Effect.zipRight(makeFolder(temporaryFiles.folder), file))
        }).pipe(Effect.catchAll(writeFailed("save", key))),
        ({ descriptor, path }) =>
          Effect.zipRight(Effect.ignore(files.close(descriptor)), Effect.ignore(files.unlink(path)))
      )

    const save: StorageBackend.StorageBackend["save"] = (key, data, options) =>
      Effect.gen(function*() {
        const orFail = <A>(effect: Effect.Effect<A, files.SystemError>) =>
          Effect.catchAll(effect, writeFailed("save", key))
        const { descriptor, path } = yield* temporaryFile(key)
        yield* writeAll({
          write: (batch, position) => orFail(files.write(descriptor, batch, position)),
          flush: durable ? orFail(files.syncData(descriptor)) : undefined
        }, data)
        yield* orFail(files.setTime(descriptor, nextTime()))
        if (durable) yield* orFail(files.sync(descriptor))
        const info = toInfo(key, yield* orFail(files.stat(descriptor)))
        const folders = yield* Effect.uninterruptible(locks(pathOf(root, key))(install("save", key, path, options)))
        yield* flushFolders("save", key, folders)
        return info
      }).pipe(Effect.scoped)

    // Removes the folders that the last object of has gone; they were made for it.
    const prune = (folder: string): Effect.Effect<void> =>
      folder === root.path
        ? Effect.void
        : Effect.matchEffect(files.removeFolder(folder), {
          onFailure: () => Effect.void,
          onSuccess: () => prune(files.dirname(folder))
        })

    const unlink = (operation: string, key: string) => {
      const path = pathOf(root, key)
      return checkFolder(operation, key).pipe(
        Effect.zipRight(files.unlink(path)),
        Effect.zipRight(prune(files.dirname(path))),
        Effect.catchTag("SystemError", (error) =>
          isMissing(error)
            ? checkRoot(operation)
            // A folder is no object. Linux says EISDIR, others EPERM.
            : error.code === "EISDIR"
            ? Effect.void
            : Effect.flatMap(Effect.option(files.lstat(path)), (standing) =>
              Option.isSome(standing) && standing.value.isDirectory()
                ? Effect.void
                : Effect.fail(toReadError(place(operation, key))(error))))
      )
    }

    const move: StorageBackend.StorageBackend["move"] = (from, to, options) =>
      Effect.gen(function*() {
        const [first = from, second = to] = [from, to].sort()
        const source = pathOf(root, from)
        const folders = yield* Effect.gen(function*() {
          const info = yield* head("move", from)
          const folders = yield* install("move", to, source, options)
          // A link leaves the old name; so does a rename onto another name of the same file.
          const left = yield* Effect.option(head("move", from))
          if (Option.isSome(left) && left.value.etag === info.etag) yield* unlink("move", from)
          else yield* prune(files.dirname(source))
          return folders
        }).pipe(locks(pathOf(root, second)), locks(pathOf(root, first)), Effect.uninterruptible)
        yield* flushFolders("move", to, folders)
        return yield* head("move", to)
      })

    const self: StorageBackend.StorageBackend = StorageBackend.make({
      name: backend,
      capabilities: { ...StorageBackend.full, objectsWithinObjects: false },
      open,
      load,
      loadRanges: (key, ranges, options) =>
        Effect.gen(function*() {
          const context = { backend, operation: "loadRanges" }
          const file = yield* openFile("loadRanges", key)
          const resolved = yield* Effect.forEach(ranges, (range) =>
            StorageBackend.checkLoad(file.info, { ...options, range }, context))
          const reads = coalesce(resolved)
          const loaded = yield* Effect.forEach(reads, (read) =>
            loadRange("loadRanges", file, read), {
            concurrency: piecesAtOnce
          })
          return resolved.map((range) => cut(range, reads, loaded))
        }).pipe(Effect.scoped),
      head: (key) => head("head", key),
      save,
      entries: (options) =>
        listing("entries", keysIn(root, options)).pipe(
          Stream.mapChunksEffect((keys) => Effect.map(describeAll("entries", keys), Chunk.unsafeFromArray))
        ),
      keys: (options) => listing("list", keysIn(root, options)),
      listDirectory: (prefix) =>
        Effect.gen(function*() {
          const names = yield* Stream.runCollect(listing("listDirectory", childrenIn(root, { prefix })))
          const [keys, prefixes] = Arr.partition(names, (name) => name.endsWith("/"))
          return { objects: yield* describeAll("listDirectory", keys), prefixes }
        }),
      remove: (key) => locks(pathOf(root, key))(unlink("remove", key)),
      move: (from, to, options) =>
        Effect.flatMap(Effect.option(files.lstat(pathOf(root, from))), (stats) =>
          // A link that is relative would lead elsewhere from another folder.
          Option.isSome(stats) && stats.value.isSymbolicLink()
            ? Effect.zipLeft(self.copy(from, to, options), self.remove(from))
            : move(from, to, options))
    })
    return self
  })

/** The base directory, created if it does not exist, by its path without links. */
const openDirectory = (backend: string, directory: string): Effect.Effect<string, OpenError> =>
  Effect.gen(function*() {
    const unusable = (reason: string) => new E.StorageNotFound({ backend, operation: "open", reason })
    if (directory === "" || directory.includes("\0")) return yield* unusable("that is no name of a directory")
    const path = files.resolve(directory)
    const stats = yield* Effect.catchIf(files.stat(path), hasCode("ENOENT"), () =>
      Effect.zipRight(files.makeFolders(path), files.stat(path)))
    if (!stats.isDirectory()) {
      return yield* unusable(`${path} is not a directory`)
    }
    return yield* files.realPath(path)
  }).pipe(
    Effect.catchTag("SystemError", (error) =>
      error.code === "ENOTDIR"
        ? new E.StorageNotFound({
          backend,
          operation: "open",
          reason: `a part of the path ${files.resolve(directory)} is not a directory`,
          cause: error.cause
        })
        : Effect.fail(toWriteError({ backend, operation: "open", path: files.resolve(directory) })(error)))
  )

/**
 * What is known of a file. The etag is made of the time of its last change, in nanoseconds, which every save makes one
 * of its own; of its inode and its size, for what others change.
 */
const toInfo = (key: string, stats: files.Stats): StorageBackend.ObjectInfo => ({
  key,
  size: Number(stats.size),
  lastModified: new Date(Number(stats.mtimeMs)),
  etag: toEtag(stats)
})

const toEtag = ({ ino, mtimeNs, size }: files.Stats): string =>
  `${mtimeNs.toString(36)}-${ino.toString(36)}-${size.toString(36)}`

let lastTime = 0

/**
 * The time in seconds, later on each call by what survives the way through a floating-point number to a file's time
 * and back: two microseconds. The clock of a file system is too coarse to tell one save from the next.
 */
const nextTime = (): number => {
  lastTime = Math.max(lastTime + 2, Date.now() * 1000)
  return lastTime / 1e6
}

const hasCode = (code: string) => (error: { readonly _tag: string; readonly code?: string }): boolean =>
  error._tag === "SystemError" && error.code === code

/** No file of this name can be there. */
const isMissing = ({ code }: files.SystemError): boolean =>
  code === "ENOENT" || code === "ENOTDIR" || code === "ENAMETOOLONG"

/** What file systems without hard links say. */
const withoutLinks: ReadonlySet<string> = new Set(["EPERM", "ENOSYS", "ENOTSUP", "EOPNOTSUPP", "EMLINK"])
