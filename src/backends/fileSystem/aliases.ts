/**
 * Keys whose files are one: a linked or mounted folder leads to the same folder, or the file system ignores case.
 *
 * What removes an object under one of its names must know whether it has another, as with a hard link, or loses it.
 */
import * as Effect from "effect/Effect"
import * as nodeFs from "./nodeFs.js"
import { type Directory, folderOf, pathOf } from "./paths.js"

/**
 * Whether two keys that lead to the same file are two ways to one name in one folder, and not two names. Where this cannot be
 * known, they are.
 */
export const isOneName = (
  directory: Directory,
  from: string,
  to: string
): Effect.Effect<boolean, nodeFs.SystemError> =>
  Effect.gen(function*() {
    const { nlink } = yield* nodeFs.lstat(pathOf(directory, from))
    if (nlink === 1n) return true
    const folder = yield* nodeFs.stat(folderOf(directory, from))
    if (!isSameFile(folder, yield* nodeFs.stat(folderOf(directory, to)))) return false
    const names = ((yield* nodeFs.readFolder(folderOf(directory, to))) ?? []).map(({ name }) => name)
    const first = listedAs(names, nodeFs.basename(pathOf(directory, from)))
    const second = listedAs(names, nodeFs.basename(pathOf(directory, to)))
    return first === undefined || second === undefined || first === second
  })

/** Whether the stats are of one file, whatever its content. */
const isSameFile = (one: nodeFs.Stats, other: nodeFs.Stats): boolean => one.dev === other.dev && one.ino === other.ino

/** The name under which a folder lists a file, which may differ in case and composition. */
const listedAs = (names: ReadonlyArray<string>, name: string): string | undefined =>
  names.includes(name) ? name : names.find((listed) => fold(listed) === fold(name))

const fold = (name: string): string => name.normalize("NFKC").toLowerCase()
