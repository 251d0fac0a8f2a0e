/**
 * Saves, copies and moves objects. Each makes a complete file elsewhere, and renames it into place in one step.
 */
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import type * as Scope from "effect/Scope"
import { unexpected, withPlace } from "../../internal/errors.js"
import { withSource } from "../../internal/source.js"
import * as StorageBackend from "../../StorageBackend.js"
import * as E from "../../StorageError.js"
import { isOneName } from "./aliases.js"
import * as Descriptors from "./descriptors.js"
import { readFailed, saying, writeFailed } from "./errors.js"
import { writeAll } from "./fileWriter.js"
import { install } from "./install.js"
import { exclusively, exclusivelyIfPossible } from "./locks.js"
import * as nodeFs from "./nodeFs.js"
import * as PartialFiles from "./partialFiles.js"
import { type Directory, folderOf, hold, pathOf, useName } from "./paths.js"
import { type Permissions, permissionsFor } from "./permissions.js"
import { existing, open, statObject } from "./reader.js"
import * as Records from "./records.js"
import { prune, remove } from "./remover.js"
import * as TemporaryFiles from "./temporaryFiles.js"
import {
  atWholeTime,
  type FileStats,
  hasWholeTimes,
  identityOf,
  isSameVersion,
  keepsWholeSeconds,
  mayHaveRecord,
  nextTime,
  wholeTime,
  wholeTimeBefore
} from "./versions.js"

/** The methods of a backend that write objects. */
export const saver = (
  directory: Directory
): Pick<StorageBackend.StorageBackend, "save" | "saveResumable" | "copy" | "move"> => ({
  save: (key, data, options) => save(directory, key, data, options),
  saveResumable: (key, data, options) => saveResumable(directory, key, data, options),
  copy: (from, to, options) => copy(directory, from, to, options),
  move: (from, to, options) => move(directory, from, to, options)
})

/** A complete file that is to become an object. */
interface Incoming {
  readonly path: string
  /** What a rename leaves as it is. */
  readonly stats: FileStats
  readonly record: Records.Record
}

/** What is left to do for an object that has its name. */
interface Committed {
  readonly info: StorageBackend.ObjectInfo
  readonly names: ReadonlyArray<nodeFs.SyncNames>
}

/**
 * Makes a file the object of a key, if the preconditions hold, and returns the folders whose names that changed. To be run under
 * the lock of the key.
 */
const commit = (
  directory: Directory,
  key: string,
  { path, record, stats }: Incoming,
  outgoing: FileStats | undefined,
  options: StorageBackend.SaveOptions
) =>
  Effect.gen(function*() {
    if (options.ifMatch !== undefined) {
      const current = yield* existing(directory, key)
      const etag = current && (yield* Records.etagOf(directory, key, current))
      yield* StorageBackend.checkSave(etag === undefined ? undefined : { etag }, { ifMatch: options.ifMatch })
    }
    // So in a move onto another name of the same file.
    const isSame = outgoing !== undefined && isSameVersion(directory, outgoing, stats)
    if (isSame && options.ifNoneMatch !== undefined) return yield* new E.ObjectAlreadyExists()
    const names = yield* Effect.onError(
      Effect.zipRight(
        Records.write(directory, key, stats, record),
        install(directory, key, path, stats, options.ifNoneMatch)
      ),
      () => isSame ? Effect.void : Records.remove(directory, key, stats)
    )
    if (!isSame) yield* Records.remove(directory, key, outgoing)
    return names
  }).pipe(Effect.catchTag("SystemError", writeFailed(directory, key)))

/** The info of an object that has just been installed: the rename changed the time that is a part of its etag. */
const infoOf = (
  directory: Directory,
  key: string,
  { record, stats }: Incoming
): Effect.Effect<StorageBackend.ObjectInfo> =>
  Effect.map(Effect.option(nodeFs.lstat(pathOf(directory, key))), (now) => {
    const isThere = Option.isSome(now) && identityOf(directory, now.value) === identityOf(directory, stats)
    return Records.versionWith(directory, key, isThere ? now.value : stats, record).info
  })

/** Syncs the names that a commit changed. The object is in place, so a failure must not look as if it were not. */
const syncNames = ({ names }: Committed) =>
  Effect.mapError(Effect.all(names, { discard: true }), ({ cause, code }) =>
    new E.UnexpectedStorageError({
      reason: "the object was replaced, but it is unknown whether this outlives a loss of power, " +
        `since its folder could not be synced (${code}); check the disk`,
      cause
    }))

// Save

/** Saves an object; a new one gets this mode, less what the process masks. */
const save = (
  directory: Directory,
  key: string,
  data: StorageBackend.SaveData,
  options: StorageBackend.SaveOptions,
  mode?: number
) =>
  saveFile(
    directory,
    key,
    (permissions) =>
      Effect.map(TemporaryFiles.create(directory, permissions), (file) => ({ file, position: 0, missing: data })),
    options,
    mode
  )

/** Saves an object from where an earlier save of the same data was broken off. */
const saveResumable = (
  directory: Directory,
  key: string,
  data: StorageBackend.ResumableData,
  options: StorageBackend.SaveOptions
) =>
  saveFile(
    directory,
    key,
    (permissions) =>
      Effect.map(PartialFiles.open(directory, permissions, key, data), (file) => ({
        file,
        position: file.position,
        missing: data.rest(file.position)
      })),
    options
  )

/** A file that has some of the bytes of an object, and the others. */
interface Unfinished {
  readonly file: TemporaryFiles.TemporaryFile
  readonly position: number
  readonly missing: StorageBackend.SaveData
}

/** Saves an object by way of a file that `begin` opens. */
const saveFile = (
  directory: Directory,
  key: string,
  begin: (
    permissions: Permissions
  ) => Effect.Effect<Unfinished, E.AccessDenied | nodeFs.SystemError, Scope.Scope>,
  options: StorageBackend.SaveOptions,
  mode?: number
) =>
  Effect.gen(function*() {
    const attributes = Records.nonEmpty(options.attributes)
    const permissions = yield* permissionsFor(pathOf(directory, key), mode)
    const written = yield* writeFile(directory, begin(permissions), attributes)
    const committed = yield* commitWritten(directory, key, written, options).pipe(
      Effect.uninterruptible,
      exclusively(directory, written.file.folder, key),
      Effect.tap(syncNames),
      Descriptors.inTurn
    )
    const { record, stats } = written.incoming
    if (record.attributes !== undefined || record.stamp !== undefined) {
      yield* Records.sweepSometimes(directory, key, stats)
    }
    return committed.info
  }).pipe(
    Effect.scoped,
    Effect.catchTag("SystemError", writeFailed(directory, key))
  )

/** A file that has just been written, and the time that was set, in seconds. */
interface Written {
  readonly file: TemporaryFiles.TemporaryFile
  readonly incoming: Incoming
  readonly time: number
}

/** Writes what is missing into a file. */
const writeFile = (
  directory: Directory,
  begin: Effect.Effect<Unfinished, E.AccessDenied | nodeFs.SystemError, Scope.Scope>,
  attributes: StorageBackend.Attributes | undefined
) =>
  Effect.gen(function*() {
    const isWhole = yield* keepsWholeSeconds(directory)
    const { file, missing, position } = yield* begin
    const { descriptor, path } = file
    yield* Effect.locally(
      writeAll(
        {
          write: (batch, position) => nodeFs.write(descriptor, batch, position),
          sync: directory.durable ? nodeFs.syncData(descriptor) : undefined
        },
        missing,
        position
      ),
      Descriptors.isHolding,
      true
    )
    const time = isWhole ? wholeTime() : nextTime(attributes !== undefined)
    yield* nodeFs.setTime(descriptor, time)
    if (directory.durable) yield* nodeFs.sync(descriptor)
    const stats = yield* nodeFs.stat(descriptor)
    yield* file.close
    const incoming: Incoming = isWhole
      ? { path, stats: atWholeTime(stats, time), record: { attributes, stamp: Records.newStamp() } }
      : { path, stats, record: { attributes, stamp: undefined } }
    return { file, incoming, time }
  })

/** Makes a written file the object of a key. To be run under the lock of the key. */
const commitWritten = (
  directory: Directory,
  key: string,
  { file, incoming: given, time }: Written,
  options: StorageBackend.SaveOptions
) =>
  Effect.gen(function*() {
    const outgoing = yield* Records.outgoing(directory, key)
    const incoming = yield* distinguish(directory, given, outgoing)
    const names = yield* commit(directory, key, incoming, outgoing, options)
    file.exists = false
    if (options.ifNoneMatch !== undefined) {
      // It had two names, which is a part of what the system knows of the file.
      yield* Effect.ignore(nodeFs.unlink(file.path))
      // FUSE does not know that the two names are one file, and knows for a second what was true of the new one.
      if (directory.inodesOn === undefined) {
        yield* Effect.ignore(useName(directory, pathOf(directory, key), (path) => nodeFs.setTime(path, time)))
      }
    }
    return { info: yield* infoOf(directory, key, incoming), names }
  })

/** Where a file would have the record of the one that it replaces, another time is set. */
const distinguish = (directory: Directory, incoming: Incoming, outgoing: FileStats | undefined) => {
  const { path, record, stats } = incoming
  if (record.stamp === undefined || outgoing === undefined) return Effect.succeed(incoming)
  if (identityOf(directory, stats) !== identityOf(directory, outgoing)) return Effect.succeed(incoming)
  const time = wholeTimeBefore(stats)
  return Effect.as(nodeFs.setTime(path, time), { ...incoming, stats: atWholeTime(stats, time) })
}

// Copy and move

const copy = (
  directory: Directory,
  from: string,
  to: string,
  { attributes, ifNoneMatch }: StorageBackend.CopyOptions
) =>
  Effect.gen(function*() {
    const { kept, mode, object } = yield* open(directory, from, {})
    const options = { ifNoneMatch, attributes: attributes ?? kept }
    return yield* withSource(object.bytes ?? object.stream, (data) =>
      Effect.mapError(save(directory, to, data, options, mode), (error) => withPlace(error, { key: to })))
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
    if (Option.isSome(file) && !(yield* canBeRenamed(directory, file.value, to, options))) {
      const copied = yield* copy(directory, from, to, options)
      yield* removeUnchanged(directory, from, file.value).pipe(
        exclusivelyIfPossible(directory, from),
        Effect.mapError(saying(stillThere(from, to))),
        Descriptors.inTurn
      )
      return copied
    }
    const moved = yield* rename(directory, from, to, options).pipe(
      Effect.uninterruptible,
      exclusivelyIfPossible(directory, second),
      exclusivelyIfPossible(directory, first),
      Effect.tap((moved) => moved === undefined ? Effect.void : syncNames(moved)),
      Descriptors.inTurn
    )
    // Another process has overwritten it meanwhile.
    return moved === undefined ? yield* move(directory, from, to, options) : moved.info
  }).pipe(Effect.scoped)

const stillThere = (from: string, to: string) =>
  `the object is now at ${JSON.stringify(to)}, but could not be removed from ${JSON.stringify(from)}`

/** Whether a file can be moved as it is. */
const canBeRenamed = (
  directory: Directory,
  stats: nodeFs.Stats,
  to: string,
  { attributes }: StorageBackend.CopyOptions
): Effect.Effect<boolean> => {
  // A relative link would lead elsewhere from another folder.
  if (stats.isSymbolicLink()) return Effect.succeed(false)
  // The time of the file has to say that it has a record, and the old object must keep its etag if the move fails.
  if (!mayHaveRecord(stats)) return Effect.succeed(Records.nonEmpty(attributes) === undefined)
  // It would need the record of the file that it replaces.
  return Effect.match(nodeFs.lstat(pathOf(directory, to)), {
    onFailure: () => true,
    onSuccess: (other) =>
      identityOf(directory, other) !== identityOf(directory, stats) || isSameVersion(directory, other, stats)
  })
}

/** Removes what a key had, unless another object is there now: the copy, by another name, or what another process saved. */
const removeUnchanged = (directory: Directory, key: string, stats: nodeFs.Stats) =>
  Effect.flatMap(
    Effect.option(nodeFs.lstat(pathOf(directory, key))),
    (now) => Option.isSome(now) && isSameVersion(directory, now.value, stats) ? remove(directory, key, {}) : Effect.void
  )

/** Renames an object, and returns what it became; `undefined` where it changed meanwhile. To be run under both locks. */
const rename = (
  directory: Directory,
  from: string,
  to: string,
  options: StorageBackend.CopyOptions
) =>
  Effect.gen(function*() {
    const stats = yield* statObject(directory, from)
    const version = yield* Records.versionOf(directory, from, stats)
    if (version === undefined || !(yield* canBeRenamed(directory, stats, to, options))) return undefined
    const path = pathOf(directory, from)
    const folder = yield* hold(directory, nodeFs.dirname(path))
    const incoming = { path: folder.at(nodeFs.basename(path)), stats, record: movedRecord(version, stats, options) }
    const outgoing = yield* Records.outgoing(directory, to)
    const names = yield* Effect.mapError(
      commit(directory, to, incoming, outgoing, { ifNoneMatch: options.ifNoneMatch }),
      (error) => withPlace(error, { key: to })
    )
    // A link leaves the old name; so does a rename onto another name of the same file.
    const left = yield* Effect.option(statObject(directory, from))
    if (Option.isSome(left) && isSameVersion(directory, left.value, stats)) {
      const isLinked = options.ifNoneMatch !== undefined
      if (isLinked || !(yield* isOneName(directory, from, to))) yield* removeOldName(directory, from, to, isLinked)
      else return { info: yield* infoOf(directory, to, incoming), names }
    } else yield* prune(directory, folderOf(directory, from))
    yield* Records.remove(directory, from, stats)
    return { info: yield* infoOf(directory, to, incoming), names }
  }).pipe(Effect.catchTag("SystemError", readFailed(directory, from)))

/** Removes the old name of an object that has two. If that fails, so does the move, and the new one is removed if it was linked. */
const removeOldName = (directory: Directory, from: string, to: string, isLinked: boolean) =>
  Effect.catchAll(
    remove(directory, from, {}),
    (error) =>
      Effect.matchEffect(isLinked ? remove(directory, to, {}) : Effect.void, {
        onSuccess: () => Effect.fail(error),
        onFailure: () => Effect.fail(saying(stillThere(from, to))(error))
      })
  )

/** The record of an object under its new name. */
const movedRecord = (
  { record }: Records.Version,
  stats: nodeFs.Stats,
  { attributes }: StorageBackend.CopyOptions
): Records.Record => ({
  attributes: attributes === undefined ? record.attributes : Records.nonEmpty(attributes),
  stamp: record.stamp ?? (hasWholeTimes(stats) ? Records.newStamp() : undefined)
})
