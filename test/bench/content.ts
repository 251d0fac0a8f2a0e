/**
 * The bytes that are read and written: a block that looks random, the same in each process, over and over. Its length is
 * prime in chunks, so that no two pieces that could be mistaken for each other are alike.
 */
import { Option, Stream } from "effect"
import assert from "node:assert/strict"
import { createCipheriv } from "node:crypto"
import * as fs from "node:fs/promises"

export const KiB = 1024
export const MiB = 1024 * KiB
export const GiB = 1024 * MiB

/** What a source of bytes gives at once. */
const chunkSize = 64 * KiB

const block = createCipheriv("aes-128-ctr", Buffer.alloc(16), Buffer.alloc(16)).update(Buffer.alloc(251 * chunkSize))

/** The bytes at a position that is a multiple of their number. */
export const bytesAt = (position: number, size: number): Uint8Array => {
  const from = position % block.length
  return block.subarray(from, from + size)
}

/** Throws unless these are the bytes at the position. */
export const check = (bytes: Uint8Array, position: number): void => {
  for (let at = 0; at < bytes.length;) {
    const from = (position + at) % block.length
    const size = Math.min(bytes.length - at, block.length - from)
    const same = Buffer.compare(bytes.subarray(at, at + size), block.subarray(from, from + size)) === 0
    assert(same, `wrong bytes between ${position + at} and ${position + at + size}`)
    at += size
  }
}

const zeros = Buffer.alloc(MiB)

/** Throws unless these are zeros, as of a file that has no bytes on the disk. */
export const checkZeros = (bytes: Uint8Array): void => {
  for (let at = 0; at < bytes.length; at += zeros.length) {
    const piece = bytes.subarray(at, at + zeros.length)
    assert(zeros.compare(piece, 0, piece.length, 0, piece.length) === 0, "other bytes than zeros")
  }
}

/** The first `size` bytes in one array. */
export const firstBytes = (size: number): Uint8Array => {
  const bytes = Buffer.allocUnsafeSlow(size)
  for (let at = 0; at < size; at += block.length) block.copy(bytes, at)
  return bytes
}

/** The first `size` bytes a chunk at a time, each as `chunkOf` makes it. */
export function* chunks(size: number, chunkOf = bytesAt): Generator<Uint8Array> {
  for (let at = 0; at < size; at += chunkSize) yield chunkOf(at, chunkSize)
}

/** The same as a stream. */
export const streamOf = (size: number, chunkOf = bytesAt): Stream.Stream<Uint8Array> =>
  Stream.unfold(0, (at) => at < size ? Option.some([chunkOf(at, chunkSize), at + chunkSize]) : Option.none())

/** A file of the first `size` bytes, on the disk, so that no sample waits for it to get there. */
export const writeFile = async (path: string, size: number): Promise<void> => {
  const file = await fs.open(path, "wx")
  for (const chunk of chunks(size)) await file.write(chunk)
  await file.sync()
  await file.close()
}

/** Throws unless the file has `size` bytes; with `whole`, unless it has these. */
export const checkFile = async (path: string, size: number, whole: boolean): Promise<void> => {
  assert.equal((await fs.stat(path)).size, size)
  if (!whole) return
  const file = await fs.open(path)
  const piece = new Uint8Array(MiB)
  for (let at = 0; at < size; at += piece.length) {
    assert.equal((await file.read(piece, 0, piece.length, at)).bytesRead, Math.min(piece.length, size - at))
    check(piece, at)
  }
  await file.close()
}
