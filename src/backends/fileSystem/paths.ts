/**
 * The base directory, the way from a key to its file, and the links on it.
 */
import * as Effect from "effect/Effect"
import * as KeyedLock from "../../internal/keyedLock.js"
import { AccessDenied } from "../../StorageError.js"
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
  /** Whether attributes are known to be kept here; set when some are found or written. */
  attributesInUse: boolean
}

/** The path of a key's file; of a prefix that ends in `/` or is empty, of its folder. */
export const pathOf = (directory: Directory, key: string): string =>
  key === ""
    ? directory.path
    : `${directory.path}/${encodeKey(key.endsWith("/") ? key.slice(0, -1) : key, nodeFs.flavor)}`

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

/** Fails where the folder of a key's file is not allowed. */
export const checkFolder = (
  directory: Directory,
  key: string
): Effect.Effect<void, AccessDenied | nodeFs.SystemError> => {
  const folder = folderOf(directory, key)
  return directory.followLinks || folder === directory.path ? Effect.void : realPath(directory, folder)
}

/** The stats of a key's file, of what it links to if it is a link. */
export const stat = (
  directory: Directory,
  key: string
): Effect.Effect<nodeFs.Stats, AccessDenied | nodeFs.SystemError> => {
  const path = pathOf(directory, key)
  return directory.followLinks ? nodeFs.stat(path) : Effect.zipRight(
    checkFolder(directory, key),
    Effect.flatMap(nodeFs.lstat(path), (stats) =>
      stats.isSymbolicLink()
        ? Effect.flatMap(realPath(directory, path), nodeFs.stat)
        : Effect.succeed(stats))
  )
}

// Shared by every storage of the process, so that `ifMatch` holds between two on one directory, too.
const locks = KeyedLock.make()

/** Runs an effect while nothing else of this process changes what the key's file is. */
export const exclusively = (directory: Directory, key: string): ReturnType<KeyedLock.Locks> =>
  locks(pathOf(directory, key))
