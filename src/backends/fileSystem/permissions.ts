/**
 * Permissions and owners of files, which are written elsewhere than where they are going to be: an object that is overwritten keeps
 * those of its file, a new one gets those of any new file in its folder.
 */
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import type * as Scope from "effect/Scope"
import * as nodeFs from "./nodeFs.js"
import { holdOwn } from "./paths.js"

/** What a file is to have: `uid` only where it replaces another. */
export interface Permissions {
  readonly mode: number
  readonly uid: bigint | undefined
  readonly gid: bigint | undefined
}

const permissionBits = 0o777
const groupBits = 0o070
const setGroup = 0o2000

const modeOf = ({ mode }: Pick<nodeFs.Stats, "mode">, bits = permissionBits): number => Number(mode) & bits

/** The permissions of a file. */
export const permissionsOf = (stats: Pick<nodeFs.Stats, "mode" | "uid" | "gid">): Permissions => ({
  mode: modeOf(stats),
  uid: stats.uid,
  gid: stats.gid
})

/** The permissions for a file that is to get this path; a new one has `mode`, less what the process masks. */
export const permissionsFor = (path: string, mode = 0o666): Effect.Effect<Permissions> =>
  nodeFs.stat(path).pipe(
    Effect.map((stats) => stats.isFile() ? permissionsOf(stats) : undefined),
    Effect.orElseSucceed(() => undefined),
    Effect.flatMap((found) =>
      found !== undefined
        ? Effect.succeed(found)
        : Effect.map(groupIn(nodeFs.dirname(path)), (gid) => ({ mode, uid: undefined, gid }))
    )
  )

/** The group of a new file in a folder, or in what is above it where it does not exist. */
const groupIn = (folder: string): Effect.Effect<bigint | undefined> =>
  Effect.matchEffect(nodeFs.stat(folder), {
    onSuccess: (stats) =>
      Effect.succeed(nodeFs.inheritsGroup || modeOf(stats, setGroup) !== 0 ? stats.gid : nodeFs.groupOfProcess()),
    onFailure: ({ code }) => {
      const above = nodeFs.dirname(folder)
      return code === "ENOENT" && above !== folder ? groupIn(above) : Effect.succeed(undefined)
    }
  })

/**
 * Gives a file that was created with the mode of these permissions the rest of them, as far as that is allowed. Where the group
 * cannot be kept, another one gets no more than everybody has.
 */
export const apply = (descriptor: nodeFs.Descriptor, permissions: Permissions): Effect.Effect<void> =>
  Effect.suspend(() => {
    const created = nodeFs.statNow(descriptor)
    if (nodeFs.flavor === "windows" || Either.isLeft(created)) return Effect.void
    const { gid, uid } = created.right
    const { gid: wantedGroup = gid, mode, uid: wantedUser } = permissions
    return Effect.gen(function*() {
      const keepsGroup = gid === wantedGroup && (wantedUser ?? uid) === uid
        ? true
        : yield* changeOwner(descriptor, [wantedUser ?? uid, uid], wantedGroup)
      if (wantedUser === undefined) return
      const kept = keepsGroup || gid === wantedGroup ? mode : mode & (~groupBits | (mode << 3))
      if (modeOf(created.right) !== kept) yield* Effect.ignore(nodeFs.changeMode(descriptor, kept))
    })
  })

/** Changes group and owner of a file to the first user for which that is allowed; returns whether it was. */
const changeOwner = (
  file: nodeFs.Descriptor | string,
  [user, ...others]: ReadonlyArray<bigint>,
  group: bigint
): Effect.Effect<boolean> =>
  user === undefined ? Effect.succeed(false) : Effect.matchEffect(nodeFs.changeOwner(file, user, group), {
    onSuccess: () => Effect.succeed(true),
    onFailure: () => changeOwner(file, others, group)
  })

/**
 * Creates a folder for files of the storage's own, if it does not exist, with the group and permissions of another: who may save in
 * that one, may in this.
 */
export const makeFolderLike = (other: string, folder: string): Effect.Effect<void, nodeFs.SystemError> =>
  Effect.flatMap(
    nodeFs.makeFolder(folder),
    // It was made in a folder that is held.
    (isNew) => isNew ? makeAlike(other, nodeFs.holdFolder(folder, "refuse")) : Effect.void
  )

/** Does the same to a folder that exists, if it may be written by fewer than the other. */
export const openFolderLike = (other: string, folder: string): Effect.Effect<void> =>
  Effect.gen(function*() {
    const like = yield* nodeFs.stat(other)
    const found = yield* nodeFs.lstat(folder)
    if ((modeOf(like, forWriting) & ~modeOf(found)) !== 0) yield* makeAlike(other, holdOwn(folder))
  }).pipe(Effect.ignore)

const forWriting = 0o022

/** Gives a folder the group and permissions of another, as far as that is allowed. By its path, a link may be there by then. */
const makeAlike = <Err>(
  other: string,
  folder: Effect.Effect<nodeFs.Folder, Err, Scope.Scope>
): Effect.Effect<void> =>
  nodeFs.flavor === "windows" ? Effect.void : Effect.gen(function*() {
    const like = yield* nodeFs.stat(other)
    const { path } = yield* folder
    const { gid, uid } = yield* nodeFs.stat(path)
    const wanted = modeOf(like, 0o7777)
    const keepsGroup = gid === like.gid || (yield* changeOwner(path, [uid], like.gid))
    yield* nodeFs.changeMode(path, keepsGroup ? wanted : wanted & (~groupBits | (wanted << 3)))
  }).pipe(Effect.scoped, Effect.ignore)
