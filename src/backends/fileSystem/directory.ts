/**
 * Opens the base directory of a storage.
 */
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as E from "../../StorageError.js"
import * as Descriptors from "./descriptors.js"
import { toWriteError } from "./errors.js"
import { reserved } from "./keyEncoding.js"
import * as nodeFs from "./nodeFs.js"
import * as Owner from "./owner.js"
import { type Directory, ownLinkRefused } from "./paths.js"
import { openFolderLike } from "./permissions.js"
import { recordFolders } from "./records.js"

/** What opening a directory can fail with. */
export type OpenError = E.CommonError | E.StorageFull | E.UnsupportedOperation

/** The options of the storage, with their defaults. */
export interface Options {
  readonly directory: string
  readonly create: boolean
  readonly durability: "full" | "relaxed"
  readonly symlinks: "refuse" | "follow"
}

/** Opens a directory. */
export const open = (options: Options): Effect.Effect<Directory, OpenError> =>
  Effect.gen(function*() {
    yield* Descriptors.learnLimit
    const given = nodeFs.resolve(options.directory)
    const look = nodeFs.stat(given)
    const stats = yield* options.create
      ? Effect.catchIf(look, nodeFs.hasCode("ENOENT"), () => Effect.zipRight(nodeFs.makeFolders(given), look))
      : look
    if (!stats.isDirectory()) {
      return yield* new E.StorageNotFound({ reason: `${given} is not a directory` })
    }
    const path = yield* nodeFs.realPath(given)
    const hidden = `${path}/${reserved}`
    yield* refuseLink(hidden)
    for (const folder of recordFolders) yield* refuseLink(`${hidden}/${folder}`)
    for (const folder of [hidden, ...recordFolders.map((name) => `${hidden}/${name}`)]) {
      yield* openFolderLike(path, folder)
    }
    const inodesOn = (yield* nodeFs.keepsInodes(path)) ? (yield* nodeFs.stat(path)).dev : undefined
    return {
      path,
      hidden,
      owner: yield* Owner.current,
      followLinks: options.symlinks === "follow",
      durable: options.durability === "full",
      recordsInUse: false,
      inodesOn,
      keepsWholeSeconds: undefined
    }
  }).pipe(
    Effect.catchTag("SystemError", (error) => Effect.fail(toOpenError(nodeFs.resolve(options.directory), error)))
  )

const toOpenError = (directory: string, error: nodeFs.SystemError): OpenError => {
  const { cause, code } = error
  switch (code) {
    case "ENOENT":
      return new E.StorageNotFound({ reason: `the directory ${directory} does not exist`, cause })
    case "ENOTDIR":
      return new E.StorageNotFound({ reason: `a part of the path ${directory} is not a directory`, cause })
    default:
      return toWriteError(directory, error)
  }
}

/** Fails where a folder of the storage's own is a link: what is removed in it could be anybody's. */
const refuseLink = (folder: string): Effect.Effect<void, E.AccessDenied> =>
  Effect.flatMap(Effect.option(nodeFs.lstat(folder)), (stats) =>
    Option.isSome(stats) && stats.value.isSymbolicLink()
      ? ownLinkRefused(folder)
      : Effect.void)
