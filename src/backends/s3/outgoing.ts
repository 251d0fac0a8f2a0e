/**
 * The body of a request as it is sent. In a file of its own, so that no public declaration needs the types of Node.
 */
import { Readable } from "node:stream"
import type { Receiver } from "../../internal/httpCall.js"

/** What is sent of a body between two looks at whether the server still reads, in bytes. */
const pieceSize = 256 * 1024

/** The body as it is sent: a small one at once, a larger one piece by piece, so that the server is watched while it reads. */
export const outgoing = (body: Uint8Array | undefined, { onUpload }: Receiver): Uint8Array | Readable | undefined => {
  if (body === undefined || body.byteLength <= pieceSize) return body
  let at = 0
  onUpload("peer")
  return new Readable({
    highWaterMark: pieceSize,
    read() {
      const piece = body.subarray(at, at + pieceSize)
      at += piece.byteLength
      this.push(piece)
      onUpload(at < body.byteLength ? "peer" : "response")
      if (at === body.byteLength) this.push(null)
    }
  })
}
