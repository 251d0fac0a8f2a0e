/**
 * Saves, copies and moves objects. Each makes a complete file elsewhere, and renames it into place in one step.
 */
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import { unexpected, withPlace } from "../../internal/errors.js"
import { withSource } from "../../internal/source.js"
import * as StorageBackend from "../../StorageBackend.js"
import * as E from "../../StorageError.js"
import * as Attributes from "./attributes.js"
import { checkDirectory, isMissing, readFailed, writeFailed } from "./errors.js"
import { writeAll } from "./fileWriter.js"
import { install } from "./install.js"
import * as nodeFs from "./nodeFs.js"
import { type Directory, exclusively, folderOf, pathOf } from "./paths.js"
import { existing, open, statObject } from "./reader.js"
import { prune, remove } from "./remover.js"
import * as TemporaryFiles from "./temporaryFiles.js"
import { etagOf, mayHaveAttributes, nextTime } from "./versions.js"

/** The methods of a backend that write objects. */
export const saver = (directory: Directory): Pick<StorageBackend.StorageBackend, "save" | "copy" | "move"> => ({
  save: (key, data, options) => save(directory, key, data, options),
  copy: (from, to, options) => copy(directory, from, to, options),
  move: (from, to, options) => move(directory, from, to, options)
})

/** A complete file that is to become an object. */
interface Incoming {
  readonly path: string
  readonly stats: nodeFs.Stats
  readonly attributes: StorageBackend.Attributes | undefined
}

const infoOf = (key: string, { attributes, stats }: Incoming): StorageBackend.ObjectInfo =>
  Attributes.versionWith(key, stats, attributes).info

/**
 * Makes a file the object of a key, if the preconditions hold, and returns the folders whose names that changed. To be run under
 * the lock of the key.
 */
const commit = (
  directory: Directory,
  key: string,
  { attributes, path, stats }: Incoming,
  options: StorageBackend.SaveOptions
) =>
  Effect.gen(function*() {
    if (options.ifMatch !== undefined) {
      const current = yield* existing(directory, key)
      yield* StorageBackend.checkSave(current && { etag: etagOf(current) }, { ifMatch: options.ifMatch })
    }
    const outgoing = yield* Attributes.outgoing(directory, key)
    // So in a move onto another name of the same file.
    const isSame = outgoing !== undefined && etagOf(outgoing) === etagOf(stats)
    if (isSame && options.ifNoneMatch !== undefined) return yield* new E.ObjectAlreadyExists()
    const keepAttributes = attributes === undefined
      ? Attributes.remove(directory, key, stats)
      : Attributes.write(directory, key, stats, attributes)
    const changed = yield* Effect.onError(
      Effect.zipRight(keepAttributes, install(directory, key, path, options.ifNoneMatch)),
      () => Attributes.remove(directory, key, stats)
    )
    if (!isSame) yield* Attributes.remove(directory, key, outgoing)
    return changed
  }).pipe(Effect.catchTag("SystemError", writeFailed(directory, key)))

const syncFolders = (directory: Directory, key: string, folders: ReadonlyArray<string>) =>
  directory.durable
    ? Effect.forEach(folders, (folder) =>
      Effect.catchAll(nodeFs.syncFolder(folder), (error) =>
        // The object was removed meanwhile, and the folder with it.
        isMissing(error) ? checkDirectory(directory) : writeFailed(directory, key)(error)), { discard: true })
    : Effect.void

// Save

const save = (
  directory: Directory,
  key: string,
  data: StorageBackend.SaveData,
  options: StorageBackend.SaveOptions
) =>
  Effect.gen(function*() {
    const file = yield* TemporaryFiles.create(directory)
    const attributes = Attributes.nonEmpty(options.attributes)
    const stats = yield* writeFile(directory, file, data, attributes !== undefined)
    const incoming = { path: file.path, stats, attributes }
    const changed = yield* commit(directory, key, incoming, options).pipe(
      exclusively(directory, key),
      Effect.uninterruptible
    )
    yield* syncFolders(directory, key, changed)
    if (attributes !== undefined) yield* Attributes.sweepSometimes(directory, key)
    return infoOf(key, incoming)
  }).pipe(
    Effect.scoped,
    Effect.catchTag("SystemError", writeFailed(directory, key))
  )

/** Writes all data into a file, and returns its stats, which it keeps under any name. */
const writeFile = (
  { durable }: Directory,
  { descriptor }: TemporaryFiles.TemporaryFile,
  data: StorageBackend.SaveData,
  hasAttributes: boolean
) =>
  Effect.gen(function*() {
    yield* writeAll({
      write: (batch, position) => nodeFs.write(descriptor, batch, position),
      sync: durable ? nodeFs.syncData(descriptor) : undefined
    }, data)
    yield* nodeFs.setTime(descriptor, nextTime(hasAttributes))
    if (durable) yield* nodeFs.sync(descriptor)
    const stats = yield* nodeFs.stat(descriptor)
    if (hasAttributes && !mayHaveAttributes(stats)) {
      return yield* new E.UnsupportedOperation({
        reason:
          "attributes are not supported, since the file system stores the times of files with an unusual precision"
      })
    }
    return stats
  })

// Copy and move

const copy = (
  directory: Directory,
  from: string,
  to: string,
  { attributes, ifNoneMatch }: StorageBackend.CopyOptions
) =>
  Effect.gen(function*() {
    const { kept, object } = yield* open(directory, from, {})
    const options = { ifNoneMatch, attributes: attributes ?? kept }
    return yield* withSource(object.bytes ?? object.stream, (data) =>
      Effect.mapError(save(directory, to, data, options), (error) => withPlace(error, { key: to })))
  }).pipe(
    Effect.scoped,
    // No option was given that could cause these.
    Effect.catchTags({ ObjectNotModified: unexpected, InvalidRange: unexpected })
  )

const move = (
  directory: Directory,
  from: string,
  to: string,
  options: StorageBackend.CopyOptions
): Effect.Effect<StorageBackend.ObjectInfo, E.CopyError> =>
  Effect.gen(function*() {
    const [first = from, second = to] = [from, to].sort()
    const file = yield* Effect.option(nodeFs.lstat(pathOf(directory, from)))
    if (Option.isSome(file) && !canBeRenamed(file.value, options)) {
      return yield* Effect.zipLeft(
        copy(directory, from, to, options),
        exclusively(directory, from)(remove(directory, from, {}))
      )
    }
    const moved = yield* rename(directory, from, to, options).pipe(
      exclusively(directory, second),
      exclusively(directory, first),
      Effect.uninterruptible
    )
    // Another process has overwritten it meanwhile.
    if (moved === undefined) return yield* move(directory, from, to, options)
    yield* syncFolders(directory, to, moved.changed)
    return infoOf(to, moved.incoming)
  })

/** Whether a file can be moved as it is. */
const canBeRenamed = (stats: nodeFs.Stats, { attributes }: StorageBackend.CopyOptions): boolean =>
  // A relative link would lead elsewhere from another folder.
  !stats.isSymbolicLink() &&
  // The time of the file has to say that it has attributes, and the old object must keep its etag if the move fails.
  (Attributes.nonEmpty(attributes) === undefined || mayHaveAttributes(stats))

/** Renames an object, and returns what it became; `undefined` where it changed meanwhile. To be run under both locks. */
const rename = (
  directory: Directory,
  from: string,
  to: string,
  options: StorageBackend.CopyOptions
) =>
  Effect.gen(function*() {
    const stats = yield* statObject(directory, from)
    const version = yield* Attributes.versionOf(directory, from, stats)
    if (version === undefined || !canBeRenamed(stats, options)) return undefined
    const attributes = options.attributes === undefined ? version.kept : Attributes.nonEmpty(options.attributes)
    const incoming = { path: pathOf(directory, from), stats, attributes }
    const changed = yield* Effect.mapError(
      commit(directory, to, incoming, { ifNoneMatch: options.ifNoneMatch }),
      (error) => withPlace(error, { key: to })
    )
    // A link leaves the old name; so does a rename onto another name of the same file.
    const left = yield* Effect.option(statObject(directory, from))
    if (Option.isSome(left) && etagOf(left.value) === etagOf(stats)) yield* remove(directory, from, {})
    else yield* prune(directory, folderOf(directory, from))
    yield* Attributes.remove(directory, from, stats)
    return { incoming, changed }
  }).pipe(Effect.catchTag("SystemError", readFailed(directory, from)))
