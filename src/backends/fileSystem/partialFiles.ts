/**
 * The files of saves that can be resumed. Such a file stays in the hidden folder when its save is interrupted or its process is
 * killed, and the next save of the same version of the same source writes the rest. Where that save does not come, the file is
 * removed after a day (see `temporaryFiles.ts`).
 *
 * - Its name has a hash of the version, so no other bytes are ever appended.
 * - Its name also has its owner. Who resumes it renames it first, which only one can do; that of a live process is left alone.
 * - Bytes are written in order, so each byte of a file is the right one when a process dies. Not so after a loss of power: files
 *   from before the machine was started are not used, nor any where the system does not say when that was (only Linux does).
 * - A save that fails by itself, as on a full disk, leaves nothing.
 */
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type * as Scope from "effect/Scope"
import type { ResumableData } from "../../StorageBackend.js"
import type { AccessDenied } from "../../StorageError.js"
import type * as Descriptors from "./descriptors.js"
import * as nodeFs from "./nodeFs.js"
import * as Owner from "./owner.js"
import { type Directory, shortName } from "./paths.js"
import type { Permissions } from "./permissions.js"
import * as TemporaryFiles from "./temporaryFiles.js"

/** A file, and how many of its bytes are there already. */
export interface PartialFile extends TemporaryFiles.TemporaryFile {
  readonly position: number
}

/** Opens the file that an earlier save has left, or else a new one. */
export const open = (
  directory: Directory,
  permissions: Permissions,
  key: string,
  { size, version }: ResumableData
): Effect.Effect<PartialFile, AccessDenied | nodeFs.SystemError, Scope.Scope> => {
  const { gid, mode, uid } = permissions
  const partial = {
    key: shortName(key),
    // A file keeps the permissions with which it was created.
    version: shortName(JSON.stringify([version, size, mode, String(uid), String(gid)])),
    owner: directory.owner
  }
  const isResumable = Owner.bootOf(directory.owner) !== undefined
  return TemporaryFiles.acquire(
    directory,
    permissions,
    (folder, restore) =>
      Effect.gen(function*() {
        const found = isResumable ? yield* takeOver(folder, partial, size, restore) : undefined
        if (found !== undefined) return found
        const name = isResumable ? TemporaryFiles.partialName(partial) : TemporaryFiles.newName(directory.owner)
        return beginningAt(yield* TemporaryFiles.createIn(folder, name, permissions, restore), 0)
      }),
    (file, exit) => isResumable && isBrokenOff(exit) ? leave(file, partial) : TemporaryFiles.remove(file)
  )
}

const beginningAt = (file: TemporaryFiles.TemporaryFile, position: number): PartialFile =>
  Object.assign(file, { position })

/** Where its source fails, a save is interrupted, too. */
const isBrokenOff = (exit: Exit.Exit<unknown, unknown>): boolean =>
  Exit.isFailure(exit) && Cause.isInterrupted(exit.cause)

/** Leaves a file to whoever comes next, if it has any bytes. */
const leave = (file: PartialFile, partial: TemporaryFiles.Partial): Effect.Effect<void> => {
  const owner = Owner.machineOfOwner(partial.owner)
  const name = TemporaryFiles.partialName({ ...partial, owner })
  const left = Effect.flatMap(
    nodeFs.lstat(file.path),
    ({ size }) => size === 0n ? TemporaryFiles.remove(file) : TemporaryFiles.rename(file, file.folder.at(name))
  )
  return Effect.zipRight(Effect.ignore(file.close), file.exists ? Effect.ignore(left) : Effect.void)
}

/** The largest file that was left for this save, if there is one. All others that were left for the key are removed. */
const takeOver = (
  folder: nodeFs.Folder,
  partial: TemporaryFiles.Partial,
  size: number,
  restore: Descriptors.Restore
) =>
  Effect.gen(function*() {
    let taken: PartialFile | undefined
    for (const { isUsable, path } of yield* leftFor(folder, partial, size)) {
      if (isUsable && taken === undefined) taken = yield* resume(folder, path, partial, restore)
      else yield* Effect.ignore(nodeFs.unlink(path))
    }
    return taken
  })

/** The files that were left for a key, the largest first. */
const leftFor = (folder: nodeFs.Folder, { key, owner, version }: TemporaryFiles.Partial, size: number) =>
  Effect.gen(function*() {
    const entries = (yield* nodeFs.readFolder(folder.path)) ?? []
    const left = yield* Effect.forEach(entries, ({ name }) =>
      Effect.gen(function*() {
        const found = TemporaryFiles.parsePartial(name)
        if (found?.key !== key || !(yield* Owner.isFree(owner, found.owner))) return []
        const path = folder.at(name)
        const stats = yield* nodeFs.lstat(path)
        const isUsable = found.version === version && Owner.bootOf(found.owner) === Owner.bootOf(owner) &&
          stats.isFile() && stats.uid === nodeFs.userOfProcess() && stats.size > 0n && stats.size <= BigInt(size)
        return [{ path, isUsable, size: Number(stats.size) }]
      }).pipe(Effect.orElseSucceed(() => [])))
    return left.flat().sort((one, other) => other.size - one.size)
  }).pipe(
    // A folder in which files can be saved need not be readable.
    Effect.orElseSucceed(() => [])
  )

/** Takes a file over, unless another process does, or it cannot be used. */
const resume = (
  folder: nodeFs.Folder,
  path: string,
  partial: TemporaryFiles.Partial,
  restore: Descriptors.Restore
): Effect.Effect<PartialFile | undefined> => {
  const own = folder.at(TemporaryFiles.partialName(partial))
  const reopened = Effect.gen(function*() {
    const file = TemporaryFiles.opened(folder, own, yield* nodeFs.reopen(own, restore))
    // Only this tells whether all that the killed process wrote was taken by the disk.
    return yield* nodeFs.syncData(file.descriptor).pipe(
      Effect.zipRight(nodeFs.stat(file.descriptor)),
      Effect.map((stats) => beginningAt(file, Number(stats.size))),
      Effect.tapError(() => file.close)
    )
  })
  return Effect.orElseSucceed(
    Effect.zipRight(
      nodeFs.rename(path, own),
      Effect.tapError(reopened, () => Effect.ignore(nodeFs.unlink(own)))
    ),
    () => undefined
  )
}
