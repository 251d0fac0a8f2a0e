/**
 * The files that saves are written to before they are renamed into place. They are in the hidden folder, so on the same file
 * system as most keys' files, and are named after the process that writes them (see `owner.ts`).
 */
import * as Effect from "effect/Effect"
import type * as Exit from "effect/Exit"
import * as FiberRef from "effect/FiberRef"
import type * as Scope from "effect/Scope"
import type { AccessDenied } from "../../StorageError.js"
import * as Descriptors from "./descriptors.js"
import * as nodeFs from "./nodeFs.js"
import * as Owner from "./owner.js"
import { type Directory, holdOwn } from "./paths.js"
import * as Permissions from "./permissions.js"

/** A temporary file, open for writing. */
export interface TemporaryFile {
  /** The hidden folder, held for the scope. */
  readonly folder: nodeFs.Folder
  readonly path: string
  readonly descriptor: nodeFs.Descriptor
  /** Closes it before the scope ends: on some file systems, only then is it known whether everything was written. */
  readonly close: Effect.Effect<void, nodeFs.SystemError>
  /** Whether a file of this name is to be removed when the scope ends. */
  exists: boolean
}

// Two workers of one process have the same owner.
const worker = Math.random().toString(36).slice(2, 10)

let count = 0

/** A name in the hidden folder that nothing else has. */
export const newName = (owner: string): string => `${owner}-${worker}-${count++}`

/**
 * Creates a temporary file, closed when the scope ends, and removed unless it was renamed. It has the permissions that it is to
 * have under its new name, so that nobody else reads what is written.
 */
export const create = (
  directory: Directory,
  permissions?: Permissions.Permissions
): Effect.Effect<TemporaryFile, AccessDenied | nodeFs.SystemError, Scope.Scope> =>
  acquire(
    directory,
    permissions,
    (folder, restore) => createIn(folder, newName(directory.owner), permissions, restore),
    remove
  )

/** Creates a file of this name. */
export const createIn = (
  folder: nodeFs.Folder,
  name: string,
  permissions: Permissions.Permissions | undefined,
  restore: Descriptors.Restore
): Effect.Effect<TemporaryFile, nodeFs.SystemError> =>
  Effect.map(
    nodeFs.create(folder.at(name), permissions?.mode ?? 0o666, restore),
    (descriptor) => opened(folder, folder.at(name), descriptor)
  )

/** Opens a file in the hidden folder, which is created if it does not exist, until the scope ends. */
export const acquire = <File extends TemporaryFile>(
  directory: Directory,
  permissions: Permissions.Permissions | undefined,
  open: (folder: nodeFs.Folder, restore: Descriptors.Restore) => Effect.Effect<File, nodeFs.SystemError>,
  release: (file: File, exit: Exit.Exit<unknown, unknown>) => Effect.Effect<void>
): Effect.Effect<File, AccessDenied | nodeFs.SystemError, Scope.Scope> =>
  // Not `acquireRelease`, since it may have to wait for a descriptor, which can be interrupted.
  Effect.uninterruptibleMask((restore) => {
    const file = Effect.gen(function*() {
      const isHolding = yield* FiberRef.get(Descriptors.isHolding)
      // So it is removed or renamed where it was created.
      const folder = yield* holdOwn(directory.hidden, isHolding ? "call" : "folder", restore)
      return yield* open(folder, restore)
    })
    return file.pipe(
      Effect.catchIf(
        (error) => error._tag === "SystemError" && error.code === "ENOENT",
        () => Effect.zipRight(Permissions.makeFolderLike(directory.path, directory.hidden), file)
      ),
      Effect.tap((file) => Effect.addFinalizer((exit) => release(file, exit))),
      Effect.tap(({ descriptor }) =>
        permissions === undefined ? Effect.void : Permissions.apply(descriptor, permissions)
      )
    )
  })

/** Closes a temporary file, and removes it unless it was renamed. */
export const remove = (file: TemporaryFile): Effect.Effect<void> =>
  Effect.zipRight(Effect.ignore(file.close), file.exists ? Effect.ignore(nodeFs.unlink(file.path)) : Effect.void)

export const opened = (folder: nodeFs.Folder, path: string, descriptor: nodeFs.Descriptor): TemporaryFile => {
  let isOpen = true
  const close = Effect.suspend(() => {
    if (!isOpen) return Effect.void
    isOpen = false
    return nodeFs.close(descriptor)
  })
  return { folder, path, descriptor, close, exists: true }
}

/** Renames a temporary file. */
export const rename = (file: TemporaryFile, path: string): Effect.Effect<void, nodeFs.SystemError> =>
  Effect.tap(nodeFs.rename(file.path, path), () => {
    file.exists = false
  })

/** Removes what killed processes left; never what a live one is writing, nor at once what can be resumed (see `partialFiles.ts`). */
export const reap = (directory: Directory): Effect.Effect<void> =>
  // A folder that does not exist or cannot be read has nothing to remove; a save will say what is wrong with it.
  Effect.gen(function*() {
    const folder = yield* holdOwn(directory.hidden)
    const entries = (yield* nodeFs.readFolder(folder.path)) ?? []
    yield* Effect.forEach(entries, ({ name }) => Effect.ignore(reapFile(directory, folder, name)), { discard: true })
  }).pipe(Effect.scoped, Effect.ignore)

const reapFile = (directory: Directory, folder: nodeFs.Folder, name: string) =>
  Effect.gen(function*() {
    const partial = parsePartial(name)
    const [, owner] = partial === undefined
      ? /^([^-]+-[^-]*-\d+-\d*)-[^-]+-\d+$/.exec(name) ?? []
      : [name, partial.owner]
    if (owner === undefined) return
    const path = folder.at(name)
    const { mtimeMs } = yield* nodeFs.lstat(path)
    const isLeft = partial === undefined ? Owner.isGone : Owner.isForgotten
    if (yield* isLeft(directory.owner, owner, Number(mtimeMs))) yield* nodeFs.unlink(path)
  })

/** Which save an unfinished file that can be resumed is of, as its name says. */
export interface Partial {
  /** A hash of the key. */
  readonly key: string
  /** A hash of what is saved, and how. */
  readonly version: string
  readonly owner: string
}

/** The name of such a file, new for this process. */
export const partialName = ({ key, owner, version }: Partial): string => newName(`resume-${key}-${version}-${owner}`)

/** What the name of such a file says. */
export const parsePartial = (name: string): Partial | undefined => {
  const [, key, version, owner] = /^resume-([0-9a-f]{32})-([0-9a-f]{32})-([^-]+-[^-]*-\d*-\d*)-[^-]+-\d+$/.exec(name) ??
    []
  return key === undefined || version === undefined || owner === undefined ? undefined : { key, version, owner }
}
