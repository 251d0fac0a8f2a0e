/**
 * Many ranges of one object as few reads.
 */
import type { ResolvedRange } from "../ByteRange.js"
import { copyOf } from "./bytes.js"

/** Neighbours with less than this between them, in bytes, are read as one: the bytes cost less than another request. */
const gap = 64 * 1024

/**
 * The fewest reads, in order, such that each of the ranges lies within one of them. No read grows beyond `maxLength` bytes by
 * coalescing.
 */
export const coalesce = (
  ranges: ReadonlyArray<ResolvedRange>,
  { maxLength = 64 * 1024 * 1024 }: { readonly maxLength?: number } = {}
): ReadonlyArray<ResolvedRange> => {
  const reads: Array<ResolvedRange> = []
  for (const range of [...ranges].sort((a, b) => a.start - b.start)) {
    const last = reads.at(-1)
    if (last !== undefined && range.endExclusive <= last.endExclusive) continue
    if (
      last !== undefined && range.start - last.endExclusive < gap && range.endExclusive - last.start <= maxLength
    ) {
      reads[reads.length - 1] = { start: last.start, endExclusive: range.endExclusive }
    } else {
      reads.push(range)
    }
  }
  return reads
}

/** The bytes of one range, cut out of the reads that `coalesce` planned; a copy, unless it is the whole of one. */
export const cut = (
  range: ResolvedRange,
  reads: ReadonlyArray<ResolvedRange>,
  loaded: ReadonlyArray<Uint8Array>
): Uint8Array<ArrayBuffer> => {
  const index = reads.findIndex((read) => read.start <= range.start && range.endExclusive <= read.endExclusive)
  const read = reads[index]
  const bytes = loaded[index]
  if (read === undefined || bytes === undefined) throw new Error("bug: a range outside of every read planned for it")
  return copyOf(bytes, range.start - read.start, range.endExclusive - read.start)
}
