/**
 * The base directory, the way from a key to its file, and the links on it.
 */
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import type * as Scope from "effect/Scope"
import { createHash } from "node:crypto"
import { AccessDenied } from "../../StorageError.js"
import type * as Descriptors from "./descriptors.js"
import { encodeKey } from "./keyEncoding.js"
import * as nodeFs from "./nodeFs.js"

/** The base directory of a storage, and how it is used. */
export interface Directory {
  /** Its path, without symbolic links. */
  readonly path: string
  /** The path of the hidden folder. */
  readonly hidden: string
  /** This process, as its files in the hidden folder name it. */
  readonly owner: string
  /** Whether symbolic links may lead out of the directory. */
  readonly followLinks: boolean
  /** Whether a save waits until file and names are on the disk. */
  readonly durable: boolean
  /** Whether records are known to be kept here; set when some are found or written. */
  recordsInUse: boolean
  /** The device whose inode numbers last as long as their files; of others, no etag depends on them. */
  readonly inodesOn: bigint | undefined
  /** Whether the file system keeps whole seconds of the times that saves set; `undefined` until the first save. */
  keepsWholeSeconds: boolean | undefined
}

/** The path of a key's file; of a prefix that ends in `/` or is empty, of its folder. */
export const pathOf = (directory: Directory, key: string): string =>
  key === ""
    ? directory.path
    : `${directory.path}/${encodeKey(key.endsWith("/") ? key.slice(0, -1) : key, nodeFs.flavor)}`

/** A name of 32 characters for what may be too long for one, or have characters that no file name has. */
export const shortName = (text: string): string => createHash("sha256").update(text).digest("hex").slice(0, 32)

/** The path of the folder of a key's file. */
export const folderOf = (directory: Directory, key: string): string => nodeFs.dirname(pathOf(directory, key))

/** Whether a path without symbolic links may be used: where links are refused, it must be within the directory. */
export const isAllowed = ({ followLinks, path }: Directory, realPath: string): boolean =>
  followLinks || realPath === path || realPath.startsWith(path.endsWith(nodeFs.sep) ? path : path + nodeFs.sep)

/** The failure for a link to a path that is not allowed. */
export const linkRefused = (target: string): AccessDenied =>
  new AccessDenied({
    reason: `a symbolic link leads out of the directory, to ${target}; set symlinks: "follow" to allow it`
  })

/** A path without its links, if it is allowed. */
export const realPath = (
  directory: Directory,
  path: string
): Effect.Effect<string, AccessDenied | nodeFs.SystemError> =>
  Effect.filterOrFail(nodeFs.realPath(path), (target) => isAllowed(directory, target), linkRefused)

/**
 * Holds a folder on the way to a key's file for the scope, see `nodeFs.holdFolder`, or fails where it is not allowed. So what is
 * done in it is done within the directory, even if another program puts a link in its place at that moment.
 */
export const hold = (
  directory: Directory,
  folder: string,
  purpose?: Descriptors.Purpose
): Effect.Effect<nodeFs.Folder, AccessDenied | nodeFs.SystemError, Scope.Scope> =>
  isUsedByPath(directory, folder)
    ? Effect.succeed(nodeFs.folderAt(folder))
    : Effect.tap(nodeFs.holdFolder(folder, "follow", purpose), (held) => checkPlace(directory, folder, held))

/** Likewise, one whose names are about to change, with what syncs them where that is wanted. */
export const holdChanging = (
  directory: Directory,
  folder: string
): Effect.Effect<nodeFs.Changing, AccessDenied | nodeFs.SystemError, Scope.Scope> =>
  !directory.durable
    ? Effect.map(hold(directory, folder, "commit"), (held) => ({ folder: held, sync: Effect.void }))
    : isUsedByPath(directory, folder)
    ? nodeFs.withSync(nodeFs.folderAt(folder))
    : Effect.tap(nodeFs.holdChanging(folder), (held) => checkPlace(directory, folder, held.folder))

const isUsedByPath = ({ followLinks, path }: Directory, folder: string): boolean => followLinks || folder === path

const checkPlace = (
  directory: Directory,
  folder: string,
  { where }: nodeFs.Folder
): Effect.Effect<void, AccessDenied | nodeFs.SystemError> =>
  where === undefined
    ? Effect.asVoid(realPath(directory, folder))
    : isAllowed(directory, where)
    ? Effect.void
    : Effect.fail(linkRefused(where))

/** The failure for a link in place of a folder of the storage's own: what is removed in it could be anybody's. */
export const ownLinkRefused = (folder: string, where?: string): AccessDenied => {
  const what = where === undefined ? "a symbolic link" : `below a symbolic link, which leads to ${where}`
  return new AccessDenied({
    reason: `${folder} is ${what}, and files of the storage's own must be kept in the directory itself; remove the link`
  })
}

/** Holds a folder of the storage's own for the scope, which is never a link, nor found by one. */
export const holdOwn = (
  folder: string,
  purpose?: Descriptors.Purpose,
  restore?: Descriptors.Restore
): Effect.Effect<nodeFs.Folder, AccessDenied | nodeFs.SystemError, Scope.Scope> =>
  nodeFs.holdFolder(folder, "refuse", purpose, restore).pipe(
    Effect.catchIf(
      nodeFs.hasCode("ENOTDIR"),
      (error) =>
        Effect.flatMap(
          Effect.option(nodeFs.lstat(folder)),
          (stats) => Effect.fail(Option.isSome(stats) && stats.value.isSymbolicLink() ? ownLinkRefused(folder) : error)
        )
    ),
    Effect.filterOrFail(
      // A file system may ignore case. After the path of a folder that was removed, the system says so.
      ({ where }) => where === undefined || where.toLowerCase().startsWith(folder.toLowerCase()),
      ({ where }) => ownLinkRefused(folder, where)
    )
  )

/** Uses the name of a file or folder below the base directory, in the folder that it is in, see `hold`. */
export const useName = <A>(
  directory: Directory,
  path: string,
  use: (path: string) => Effect.Effect<A, nodeFs.SystemError>
): Effect.Effect<A, AccessDenied | nodeFs.SystemError> =>
  Effect.scoped(Effect.flatMap(hold(directory, nodeFs.dirname(path)), ({ at }) => use(at(nodeFs.basename(path)))))

/** The stats of a key's file, of what it links to if it is a link. */
export const stat = (
  directory: Directory,
  key: string
): Effect.Effect<nodeFs.Stats, AccessDenied | nodeFs.SystemError> => {
  const path = pathOf(directory, key)
  return directory.followLinks ?
    nodeFs.stat(path) :
    Effect.flatMap(nodeFs.look(path), ({ stats, where }) =>
      where === undefined
        ? Effect.as(realPath(directory, path), stats)
        : isAllowed(directory, where)
        ? Effect.succeed(stats)
        : Effect.fail(linkRefused(where)))
}
