/**
 * Renames a complete file into place, and removes empty folders that are in the way.
 */
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Stream from "effect/Stream"
import * as E from "../../StorageError.js"
import { isMissing, writeFailed } from "./errors.js"
import * as nodeFs from "./nodeFs.js"
import { type Directory, pathOf, realPath } from "./paths.js"
import { keys } from "./walk.js"

/**
 * Renames the file at `source` to the path of a key, and returns the folders that this changed. With `ifNoneMatch`, it fails
 * where there is an object, and `source` remains as a second name.
 */
export const install = (
  directory: Directory,
  key: string,
  source: string,
  ifNoneMatch: "*" | undefined,
  tries = 5
): Effect.Effect<ReadonlyArray<string>, E.SaveError> =>
  Effect.gen(function*() {
    const path = pathOf(directory, key)
    const folder = nodeFs.dirname(path)
    const changed = yield* makeFolders(directory, folder)
    yield* ifNoneMatch === undefined ? nodeFs.rename(source, path) : link(source, path)
    return [...changed, folder]
  }).pipe(
    Effect.catchTag("SystemError", (error) =>
      tries === 0
        ? writeFailed(directory, key)(error)
        : Effect.zipRight(
          // A folder that existed a moment ago was removed with the last object in it.
          error.code === "ENOENT" ? Effect.void : clear(directory, key, error),
          install(directory, key, source, ifNoneMatch, tries - 1)
        ))
  )

/** Creates a folder on the way to a key's file, and those above it, and returns the folders whose names that changed. */
const makeFolders = (
  directory: Directory,
  folder: string
): Effect.Effect<ReadonlyArray<string>, E.AccessDenied | nodeFs.SystemError> =>
  folder === directory.path ? Effect.succeed([]) : realPath(directory, folder).pipe(
    Effect.as([]),
    Effect.catchIf((error) => error._tag === "SystemError" && error.code === "ENOENT", () => {
      const parent = nodeFs.dirname(folder)
      return Effect.flatMap(
        makeFolders(directory, parent),
        (changed) => Effect.as(nodeFs.makeFolder(folder), [...changed, parent])
      )
    })
  )

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
      nodeFs.removeFolder(pathOf(directory, key)),
      (error) => isMissing(error) ? Effect.void : conflict(key, `${key}/`)
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
