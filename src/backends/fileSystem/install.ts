/**
 * Renames a complete file into place, and removes empty folders that are in the way.
 */
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import * as E from "../../StorageError.js"
import { isMissing, writeFailed } from "./errors.js"
import * as nodeFs from "./nodeFs.js"
import { type Directory, holdChanging, pathOf, useName } from "./paths.js"
import type { FileStats } from "./versions.js"
import { keys } from "./walk.js"

/**
 * Renames the file at `source` to the path of a key, and returns what syncs the names that this changed. With `ifNoneMatch`, it
 * fails where there is an object, and `source` remains as a second name. Whatever else can fail does so before the rename.
 */
export const install = (
  directory: Directory,
  key: string,
  source: string,
  stats: FileStats,
  ifNoneMatch: "*" | undefined,
  tries = 5
): Effect.Effect<ReadonlyArray<nodeFs.SyncNames>, E.SaveError, Scope.Scope> =>
  Effect.gen(function*() {
    const file = pathOf(directory, key)
    const { folder, names } = yield* makeFolders(directory, nodeFs.dirname(file))
    const path = folder.at(nodeFs.basename(file))
    yield* Effect.catchIf(
      ifNoneMatch === undefined ? nodeFs.rename(source, path) : link(source, path),
      (error) => error._tag === "SystemError",
      (error) => Effect.flatMap(isInstalled(path, stats, ifNoneMatch), (is) => is ? Effect.void : Effect.fail(error))
    )
    return names
  }).pipe(
    Effect.catchTag("SystemError", (error) =>
      tries === 0
        ? writeFailed(directory, key)(error)
        : Effect.zipRight(
          // A folder that existed a moment ago was removed with the last object in it.
          error.code === "ENOENT" ? Effect.void : clear(directory, key, error),
          install(directory, key, source, stats, ifNoneMatch, tries - 1)
        ))
  )

/** Whether a file got its name though the system reported an error: over a network, the answer to the first request may be lost. */
const isInstalled = (path: string, { dev, ino, nlink }: FileStats, ifNoneMatch: "*" | undefined) =>
  Effect.match(nodeFs.lstat(path), {
    onFailure: () => false,
    onSuccess: (now) => now.ino === ino && now.dev === dev && (ifNoneMatch === undefined || now.nlink > nlink)
  })

/** A folder that is held, and what syncs its names and those of what was created above it. */
interface Made {
  readonly folder: nodeFs.Folder
  readonly names: ReadonlyArray<nodeFs.SyncNames>
}

/** Holds a folder on the way to a key's file, and creates it, and those above it, if it does not exist. */
const makeFolders = (
  directory: Directory,
  path: string
): Effect.Effect<Made, E.AccessDenied | nodeFs.SystemError, Scope.Scope> =>
  Effect.map(holdExisting(directory, path), ({ folder, sync }): Made => ({ folder, names: [sync] })).pipe(
    Effect.catchIf(
      (error) => error._tag === "SystemError" && error.code === "ENOENT",
      (error) =>
        path === directory.path ? Effect.fail(error) : Effect.gen(function*() {
          const above = yield* makeFolders(directory, nodeFs.dirname(path))
          yield* nodeFs.makeFolder(above.folder.at(nodeFs.basename(path)))
          const { folder, sync } = yield* holdChanging(directory, path)
          return { folder, names: [...above.names, sync] }
        })
    )
  )

const holdExisting = (directory: Directory, path: string) =>
  // Otherwise it is not looked at before the file is renamed.
  directory.followLinks && path !== directory.path
    ? Effect.zipRight(nodeFs.stat(path), holdChanging(directory, path))
    : holdChanging(directory, path)

const link = (source: string, path: string) =>
  Effect.catchIf(nodeFs.link(source, path), lacksLinks, ({ cause, code }) =>
    new E.UnsupportedOperation({
      reason: `ifNoneMatch: "*" is not supported, since the file system has no hard links (${code})`,
      cause
    }))

const lacksLinks = nodeFs.hasCode("EPERM", "ENOSYS", "ENOTSUP", "EOPNOTSUPP", "EMLINK")

/** Succeeds where what kept a file from its name is out of the way now, and fails otherwise. */
const clear = (directory: Directory, key: string, error: nodeFs.SystemError) =>
  Effect.gen(function*() {
    if (error.code === "ENOTDIR") {
      const above = yield* objectAbove(directory, key)
      return above === undefined ? undefined : yield* conflict(key, above)
    }
    const standing = yield* Effect.catchAll(
      Effect.asSome(nodeFs.lstat(pathOf(directory, key))),
      (failed) => isMissing(failed) ? Effect.succeedNone : writeFailed(directory, key)(error)
    )
    if (Option.isNone(standing)) return
    if (standing.value.isDirectory()) return yield* clearFolder(directory, key)
    return yield* error.code === "EEXIST" ? new E.ObjectAlreadyExists() : writeFailed(directory, key)(error)
  })

/** Removes the folder that has the name of a key. One without objects may go; no object is lost with it. */
const clearFolder = (directory: Directory, key: string) =>
  Effect.gen(function*() {
    const within = yield* Effect.orElseSucceed(
      Stream.runHead(keys(directory, { prefix: `${key}/` })),
      () => Option.none<string>()
    )
    if (Option.isSome(within)) return yield* conflict(key, within.value)
    yield* Effect.catchAll(
      useName(directory, pathOf(directory, key), nodeFs.removeFolder),
      (error) => error._tag === "SystemError" && isMissing(error) ? Effect.void : conflict(key, `${key}/`)
    )
  })

/** The object whose file is where a key needs a folder. */
const objectAbove = (directory: Directory, key: string) =>
  Effect.gen(function*() {
    for (let slash = key.indexOf("/"); slash !== -1; slash = key.indexOf("/", slash + 1)) {
      const above = key.slice(0, slash)
      const stats = yield* Effect.option(nodeFs.stat(pathOf(directory, above)))
      if (Option.isSome(stats) && !stats.value.isDirectory()) return above
    }
    return undefined
  })

const conflict = (key: string, other: string) =>
  new E.UnsupportedOperation({
    key,
    reason: `a file system cannot hold ${JSON.stringify(key)} beside ${JSON.stringify(other)}; ` +
      "remove or rename one of them first"
  })
