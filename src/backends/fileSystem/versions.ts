/**
 * What a file's stats say of the object: its version, and whether attributes are kept with it.
 *
 * The etag consists of the time of the last change, which each save makes different from all others, and of inode and size, for
 * the changes of other programs. None of them changes when the file is renamed.
 */
import type { ObjectInfo } from "../../StorageBackend.js"
import type { Stats } from "./nodeFs.js"

export const etagOf = ({ ino, mtimeNs, size }: Stats): string =>
  `${mtimeNs.toString(36)}-${ino.toString(36)}-${size.toString(36)}`

/** What listings tell of an object. */
export const infoOf = (key: string, stats: Stats): ObjectInfo => ({
  key,
  size: Number(stats.size),
  lastModified: new Date(Number(stats.mtimeMs)),
  etag: etagOf(stats)
})

// Times are set as floating-point numbers of seconds, and some versions of Node cut them off to whole microseconds: a time is
// kept up to 1.2 µs too early or 0.2 µs too late. So the times of saves are a period of 64 µs apart, and the place within the
// period marks a save with attributes: readers of a file without attributes need not look for any.

const period = 64
const marked = 2
const unmarked = 34
const nanosecondsPerPeriod = BigInt(period * 1000)

let lastPeriod = 0

/** A time for a file being saved, in seconds, later on each call: a file system's own clock is too coarse for that. */
export const nextTime = (hasAttributes: boolean): number => {
  lastPeriod = Math.max(lastPeriod + 1, Math.floor(Date.now() * 1000 / period))
  return (lastPeriod * period + (hasAttributes ? marked : unmarked)) / 1e6
}

/**
 * Whether attributes may be kept with a file: true where it was saved with some, where the file system may have cut the mark
 * off its time, and for one in thirty files of other programs.
 */
export const mayHaveAttributes = ({ mtimeNs }: Stats): boolean => {
  const place = Number(mtimeNs % nanosecondsPerPeriod) / 1000
  return Math.abs(place - marked + 0.5) < 1 || mtimeNs % 1_000_000n === 0n
}
