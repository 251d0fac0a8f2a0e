/**
 * What a file's stats say of the object: its version, and whether a record is kept with it.
 *
 * The etag consists of the time of the last write, which each save makes different from all others, and of size, inode and the
 * time of the last change of any kind, for the writes of other programs, also of those that set the time of the last write.
 *
 * Some file systems keep whole seconds of a time that is set: ext3 and ext4 with small inodes, FAT, HFS+, EncFS. There a record in
 * the hidden folder (see `records.ts`) has another part of the etag, different for each save.
 */
import * as Effect from "effect/Effect"
import type { ObjectInfo } from "../../StorageBackend.js"
import type { AccessDenied } from "../../StorageError.js"
import { withinThread } from "./locks.js"
import * as nodeFs from "./nodeFs.js"
import type { Directory } from "./paths.js"
import * as TemporaryFiles from "./temporaryFiles.js"

/** The stats that matter here. */
export type FileStats = Pick<
  nodeFs.Stats,
  "dev" | "ino" | "size" | "mtimeNs" | "ctimeNs" | "nlink" | "mode" | "uid" | "gid"
>

type Time = Pick<FileStats, "mtimeNs">

/** The part of the etag that a file keeps when it is renamed. */
export const identityOf = ({ inodesOn }: Directory, { dev, ino, mtimeNs, size }: FileStats): string =>
  `${mtimeNs.toString(36)}-${size.toString(36)}-${dev === inodesOn ? ino.toString(36) : "0"}`

/** Whether the stats of two names are of one file, and nothing was written in between. */
export const isSameVersion = (directory: Directory, one: FileStats, other: FileStats): boolean =>
  one.ino === other.ino && identityOf(directory, one) === identityOf(directory, other)

/** The etag of a file; `stamp` is the part that its record has. */
export const etagOf = (directory: Directory, stats: FileStats, stamp: string | undefined): string => {
  const etag = `${identityOf(directory, stats)}-${stats.ctimeNs.toString(36)}`
  return stamp === undefined ? etag : `${etag}-${stamp}`
}

/** What listings tell of an object. */
export const infoOf = (
  directory: Directory,
  key: string,
  stats: FileStats,
  stamp: string | undefined
): ObjectInfo => ({
  key,
  size: Number(stats.size),
  lastModified: new Date(millisecondsOf(stats)),
  etag: etagOf(directory, stats, stamp)
})

const millisecondsOf = ({ mtimeNs }: Time): number => Number(mtimeNs / 1_000_000n)

// Times are set as floating-point numbers of seconds, and some versions of Node cut them off to whole microseconds: a time is
// kept up to 1.2 µs too early or 0.2 µs too late. So the times of saves are a period of 64 µs apart, and the place within the
// period marks a save with a record: readers of a file without one need not look for any.

const period = 64
const marked = 2
const unmarked = 34
const nanosecondsPerPeriod = BigInt(period * 1000)

let lastPeriod = 0

/** A time for a file being saved, in seconds, later on each call: a file system's own clock is too coarse for that. */
export const nextTime = (hasRecord: boolean): number => {
  lastPeriod = Math.max(lastPeriod + 1, Math.floor(Date.now() * 1000 / period))
  return (lastPeriod * period + (hasRecord ? marked : unmarked)) / 1e6
}

/**
 * A time for a file being saved where whole seconds are kept, or every other one (FAT), in seconds. It lies in the past, so that
 * a write by another program changes it within the same second, too.
 */
export const wholeTime = (): number => Math.floor(Date.now() / 2000) * 2 - 2

/** Another whole time, further in the past. */
export const wholeTimeBefore = ({ mtimeNs }: Time): number => Number(mtimeNs / second) - 2

const second = 1_000_000_000n

/** The stats of a file with another time, as a file system that keeps whole seconds will have them. */
export const atWholeTime = (
  { ctimeNs, dev, gid, ino, mode, nlink, size, uid }: FileStats,
  seconds: number
): FileStats => ({ ctimeNs, dev, gid, ino, mode, nlink, size, uid, mtimeNs: BigInt(seconds) * second })

/** Whether the time of a file has whole seconds. That of a save has, only if the file system keeps no others. */
export const hasWholeTime = ({ mtimeNs }: Time): boolean => mtimeNs % second === 0n

/** Whether all times of a file have whole seconds, so that those of changes may, too. */
export const hasWholeTimes = (stats: FileStats): boolean => hasWholeTime(stats) && stats.ctimeNs % second === 0n

const distance = (mtimeNs: bigint, place: number): number =>
  Math.abs(Number(mtimeNs % nanosecondsPerPeriod) / 1000 - place + 0.5)

/** Whether a file may have a record: true for saves with one, for whole seconds, and for one in thirty files of other programs. */
export const mayHaveRecord = (stats: Time): boolean => distance(stats.mtimeNs, marked) < 1 || hasWholeTime(stats)

/**
 * How long a file must be left alone before its bytes are read, in milliseconds: as long as another write would leave it with the
 * same times, which are those of a clock's last tick. The times of saves are none of such.
 */
export const unsettledFor = (stats: FileStats, now: number): number => {
  const { mtimeNs } = stats
  const age = now - millisecondsOf(stats)
  const tick = hasWholeTime(stats) ? 2000 : 10
  if (age < 0 || age >= tick) return 0
  return Math.min(distance(mtimeNs, marked), distance(mtimeNs, unmarked)) < 1 ? 0 : tick - age
}

/** Whether a file was written between two looks at it. */
export const isWritten = (before: FileStats, after: FileStats): boolean =>
  before.mtimeNs !== after.mtimeNs || before.size !== after.size

/**
 * Whether the file system keeps whole seconds of the times that saves set. Some lose the rest only once the file is renamed, so
 * that is tried, at the first save.
 */
export const keepsWholeSeconds = (
  directory: Directory
): Effect.Effect<boolean, AccessDenied | nodeFs.SystemError> =>
  Effect.suspend(() =>
    directory.keepsWholeSeconds === undefined
      ? withinThread(directory, "")(tryOnce(directory))
      : Effect.succeed(directory.keepsWholeSeconds)
  )

const tryOnce = (directory: Directory) =>
  Effect.suspend(() =>
    directory.keepsWholeSeconds === undefined
      ? Effect.tap(Effect.scoped(tryTime(directory)), (keepsWholeSeconds) => {
        directory.keepsWholeSeconds = keepsWholeSeconds
      })
      : Effect.succeed(directory.keepsWholeSeconds)
  )

const tryTime = (directory: Directory) =>
  Effect.gen(function*() {
    const file = yield* TemporaryFiles.create(directory)
    yield* nodeFs.setTime(file.descriptor, nextTime(false))
    const before = yield* nodeFs.stat(file.descriptor)
    yield* file.close
    const renamed = yield* TemporaryFiles.create(directory)
    yield* renamed.close
    yield* TemporaryFiles.rename(file, renamed.path)
    const after = yield* nodeFs.lstat(renamed.path)
    return after.mtimeNs !== before.mtimeNs || distance(after.mtimeNs, unmarked) >= 1
  })
