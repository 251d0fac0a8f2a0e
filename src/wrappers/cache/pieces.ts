/**
 * Cached bytes in pieces, as a stream yields them.
 */
import * as Option from "effect/Option"
import * as Stream from "effect/Stream"
import { copyOf } from "../../internal/bytes.js"
import type { StreamOptions } from "../../StorageBackend.js"

type Bytes = Uint8Array<ArrayBuffer>

const maxSize = 1024 * 1024

/** The size of a piece, in bytes. */
export const pieceSize = ({ chunkSize = maxSize }: StreamOptions): number => Math.min(chunkSize, maxSize)

/** A piece for a reader: where bytes are shared they must not be changed, otherwise it is the reader's own. */
export const piece = (bytes: Bytes, start: number, end: number, isShared: boolean): Bytes =>
  isShared ? bytes.subarray(start, end) : copyOf(bytes, start, end)

export const piecesOf = (bytes: Bytes, options: StreamOptions, isShared: boolean): Stream.Stream<Bytes> => {
  const size = pieceSize(options)
  return Stream.unfold(
    0,
    (at) =>
      at < bytes.byteLength ? Option.some([piece(bytes, at, at + size, isShared), at + size] as const) : Option.none()
  )
}
