/**
 * The forms in which an object is stored, by its first bytes:
 *
 * - `safetensors`: a compressed safetensors file (see `weights/safetensors/compressed/description.ts`)
 * - `gzip`: gzip (RFC 1952) whose header has a field `SW` with the size of the object
 * - `escaped`: the object as it is after some bytes that say so, since it begins like one of these forms itself
 * - `plain`: the object as it is
 */
import type { ObjectInfo } from "../../StorageBackend.js"
import { originalSize } from "../../weights/safetensors/compressed/description.js"

/** How an object is stored, and the size that its users see. */
export type Form =
  | { readonly kind: "plain" }
  | { readonly kind: "escaped" }
  | { readonly kind: "gzip" | "safetensors"; readonly size: number }

/** How many bytes at the start of an object show its form. */
export const beginningLength = 128

export const plain: Form = { kind: "plain" }

/** The form of an object that starts with these bytes: all of them, or at least `beginningLength`. */
export const formOf = (beginning: Uint8Array): Form => {
  const size = originalSize(beginning)
  if (size !== undefined) return { kind: "safetensors", size }
  if (startsWith(beginning, escape)) return { kind: "escaped" }
  return startsWith(beginning, gzipStart) && beginning.byteLength >= gzipHeaderLength
    ? { kind: "gzip", size: Number(viewOf(beginning).getBigUint64(gzipStart.byteLength, true)) }
    : plain
}

/** The same metadata with the size that users see. The checksum is that of the bytes that are stored. */
export const infoOf = (info: ObjectInfo, form: Form): ObjectInfo => {
  if (form.kind === "plain") return info
  const { checksum: _, ...others } = info
  return { ...others, size: form.kind === "escaped" ? info.size - escape.byteLength : form.size }
}

/** What an escaped object starts with. */
export const escape = new TextEncoder().encode("\u007fsurfing-weights")

/** The gzip header up to the size: deflate, an extra field, no time, an unknown system; 12 bytes, `SW`, 8 bytes. */
const gzipStart = Uint8Array.of(0x1f, 0x8b, 8, 4, 0, 0, 0, 0, 0, 255, 12, 0, 0x53, 0x57, 8, 0)

export const gzipHeaderLength = gzipStart.byteLength + 8

/** The header of a gzip file whose content has this size. */
export const gzipHeader = (size: number): Uint8Array => {
  const header = new Uint8Array(gzipHeaderLength)
  header.set(gzipStart)
  viewOf(header).setBigUint64(gzipStart.byteLength, BigInt(size), true)
  return header
}

const viewOf = ({ buffer, byteLength, byteOffset }: Uint8Array): DataView =>
  new DataView(buffer, byteOffset, byteLength)

const startsWith = (bytes: Uint8Array, start: Uint8Array): boolean =>
  bytes.byteLength >= start.byteLength && start.every((byte, i) => bytes[i] === byte)
