/**
 * Walks through the files below a directory in key order, whatever their number: the names of one folder are held for each
 * level, and of a folder too large for that a part.
 *
 * A walk is whole or fails, also at a folder that may not be read. The one exception is `lost+found`, which many file systems
 * have and only root may read: what it holds are fragments of files without names.
 */
import * as Chunk from "effect/Chunk"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Stream from "effect/Stream"
import * as ObjectKey from "../../ObjectKey.js"
import type { AccessDenied } from "../../StorageError.js"
import { isDenied } from "./errors.js"
import { readNames } from "./folderNames.js"
import { encodeKey } from "./keyEncoding.js"
import * as nodeFs from "./nodeFs.js"
import { type Directory, hold, isAllowed, pathOf, realPath, stat } from "./paths.js"

/** Which keys to list. */
export interface Selection {
  readonly prefix?: string | undefined
  readonly startAfter?: string | undefined
}

/** The keys that start with `prefix` and come after `startAfter`, in key order. */
export const keys = (directory: Directory, selection: Selection): Stream.Stream<string, nodeFs.SystemError> =>
  pages(directory, selection, true)

/** Likewise, but keys that have a `/` after the prefix are cut off there, and come once. */
export const children = (directory: Directory, selection: Selection): Stream.Stream<string, nodeFs.SystemError> =>
  pages(directory, selection, false)

const pageSize = 1024

/** A walk under way. */
interface Walk {
  readonly directory: Directory
  readonly prefix: string
  readonly startAfter: string
  /** Whether keys that have a `/` after the prefix are listed, too. */
  readonly deep: boolean
  /** The folders on the way to where it is. */
  readonly folders: Array<Folder>
}

/** A folder on the way, and its names that are still to come, in key order, those of folders with a `/` at the end. */
interface Folder {
  /** What the keys in it start with: empty, or ending in `/`. */
  readonly prefix: string
  /** Its path, without symbolic links. */
  readonly path: string
  readonly names: ReadonlyArray<string>
  next: number
  /** Names that may not be what they look like: links, and what the system could not decode. */
  readonly doubtful: ReadonlySet<string>
  /** The last of the names, where there are more than could be held. */
  readonly cutAfter: string | undefined
}

const pages = (
  directory: Directory,
  { prefix = "", startAfter = "" }: Selection,
  deep: boolean
): Stream.Stream<string, nodeFs.SystemError> =>
  Stream.suspend(() => {
    const walk: Walk = { directory, prefix, startAfter, deep, folders: [] }
    return Stream.unfoldChunkEffect(start(walk), (next) =>
      Effect.map(next, (page) =>
        Chunk.isNonEmpty(page) ? Option.some([page, nextPage(walk)] as const) : Option.none()))
  })

const start = (walk: Walk) =>
  Effect.gen(function*() {
    const { directory, prefix } = walk
    const folder = prefix.slice(0, prefix.lastIndexOf("/") + 1)
    const path = yield* orGone(nodeFs.realPath(pathOf(directory, folder)), undefined)
    if (path !== undefined && isAllowed(directory, path)) yield* enter(walk, folder, path)
    return yield* nextPage(walk)
  })

/** The next keys, or none where the walk is over. */
const nextPage = (walk: Walk): Effect.Effect<Chunk.Chunk<string>, nodeFs.SystemError> =>
  Effect.gen(function*() {
    const found: Array<string> = []
    while (found.length < pageSize) {
      const folder = walk.folders.at(-1)
      if (folder === undefined) break
      const name = folder.names[folder.next++]
      if (name === undefined) {
        walk.folders.pop()
        if (folder.cutAfter !== undefined) yield* enter(walk, folder.prefix, folder.path, folder.cutAfter)
      } else if (name.endsWith("/")) {
        if (mayHold(walk, folder.prefix + name)) {
          const child = yield* visitFolder(walk, folder, name)
          if (child !== undefined) found.push(child)
        }
      } else {
        const key = folder.prefix + name
        if (isWanted(walk, key) && (!folder.doubtful.has(name) || (yield* isFile(walk, key)))) found.push(key)
      }
    }
    return Chunk.unsafeFromArray(found)
  })

const enter = (walk: Walk, prefix: string, path: string, after = "") =>
  hold(walk.directory, pathOf(walk.directory, prefix)).pipe(
    Effect.flatMap((folder) => readNames(folder.path, after)),
    Effect.scoped,
    // A link out of the directory since a moment ago.
    Effect.catchTag("AccessDenied", () => Effect.succeed(noNames)),
    Effect.catchIf(
      (error) => isDenied(error) && /(?:^|\/)lost\+found\/$/.test(prefix),
      () => Effect.succeed(noNames)
    ),
    (names) => orGone(names, noNames),
    Effect.map((names) => {
      walk.folders.push({ prefix, path, next: 0, ...names })
    })
  )

const noNames = { names: [], doubtful: new Set<string>(), cutAfter: undefined }

/** Enters a folder, or returns its prefix where that is to be listed in place of its keys. */
const visitFolder = (walk: Walk, parent: Folder, name: string) =>
  Effect.gen(function*() {
    const prefix = parent.prefix + name
    const path = parent.doubtful.has(name)
      ? yield* folderPath(walk, prefix)
      : parent.path + nodeFs.sep + encodeKey(name.slice(0, -1), nodeFs.flavor)
    if (path === undefined) return undefined
    if (walk.deep || !prefix.startsWith(walk.prefix)) {
      yield* enter(walk, prefix, path)
      return undefined
    }
    // A folder without objects is not listed.
    return Option.isSome(yield* Stream.runHead(keys(walk.directory, { prefix }))) ? prefix : undefined
  })

/** Whether there may be wanted keys in a folder. */
const mayHold = ({ prefix, startAfter }: Walk, folder: string): boolean =>
  (folder.startsWith(prefix) || prefix.startsWith(folder)) &&
  (ObjectKey.compare(folder, startAfter) > 0 || startAfter.startsWith(folder))

/** Whether a key is to be listed. Its segments are valid; all of them together may be too long. */
const isWanted = ({ prefix, startAfter }: Walk, key: string): boolean =>
  key.startsWith(prefix) &&
  (startAfter === "" || ObjectKey.compare(key, startAfter) > 0) &&
  (key.length * 3 <= ObjectKey.maxBytes || ObjectKey.problem(key) === undefined)

/** Whether an entry is the file of a key: not a dead link, nor a link to a path that is not allowed. */
const isFile = (walk: Walk, key: string) =>
  orGone(Effect.map(allowed(walk, key, stat(walk.directory, key)), (stats) => stats?.isFile() === true), false)

/** The resolved path of a folder, unless it is not allowed, or one that contains it (a cycle of links). */
const folderPath = (walk: Walk, prefix: string): Effect.Effect<string | undefined, nodeFs.SystemError> =>
  orGone(
    Effect.gen(function*() {
      const path = yield* resolve(walk, prefix)
      if (path === undefined) return undefined
      const loops = walk.folders.some((folder) => folder.path === path || folder.path.startsWith(path + nodeFs.sep))
      return !loops && (yield* nodeFs.stat(path)).isDirectory() ? path : undefined
    }),
    undefined
  )

/** The path of a name without links, or `undefined` where it is not allowed. */
const resolve = (walk: Walk, name: string) =>
  allowed(walk, name, realPath(walk.directory, pathOf(walk.directory, name)))

/** What is found where a name leads, or `undefined` where that is not allowed. */
const allowed = <A>(
  { directory, folders }: Walk,
  name: string,
  find: Effect.Effect<A, AccessDenied | nodeFs.SystemError>
): Effect.Effect<A | undefined, nodeFs.SystemError> =>
  find.pipe(
    Effect.catchTag("AccessDenied", () => Effect.succeed(undefined)),
    // A link to where this process may not look, out of the directory.
    Effect.catchIf(isDenied, (error) =>
      Effect.flatMap(
        leadsOut(directory, pathOf(directory, name), folders.at(-1)?.path ?? directory.path),
        (isOut) => isOut ? Effect.succeed(undefined) : Effect.fail(error)
      ))
  )

/** Whether a link in a folder leads out of the directory by what it says, or another one that it leads to. */
const leadsOut = (directory: Directory, link: string, folder: string, tries = 8): Effect.Effect<boolean> =>
  Effect.matchEffect(nodeFs.readLink(link), {
    onFailure: () => Effect.succeed(false),
    onSuccess: (text) => {
      const target = nodeFs.resolve(folder, text)
      if (!isAllowed(directory, target)) return Effect.succeed(true)
      return tries === 0 ? Effect.succeed(false) : leadsOut(directory, target, nodeFs.dirname(target), tries - 1)
    }
  })

/** What was removed before it was looked at did not exist. */
const orGone = <A, B>(
  effect: Effect.Effect<A, nodeFs.SystemError>,
  gone: B
): Effect.Effect<A | B, nodeFs.SystemError> =>
  Effect.catchIf(effect, nodeFs.hasCode("ENOENT", "ENOTDIR", "ELOOP"), () => Effect.succeed(gone))
