/**
 * What an encrypted object begins with, before the Cobblestone message:
 *
 * | bytes | |
 * | --- | --- |
 * | 0 to 8 | `SWCRYPT1` |
 * | 8 | the length of the id of the master key, then the id in UTF-8 |
 * | after that | the length of the wrapped data key as two bytes, big-endian, then the wrapped data key |
 * | up to 936 | zeros |
 * | 936 to 968 | the SHA-256 of the bytes before it |
 *
 * The header has one size, whatever wraps the key, so that the size of an object shows how many bytes are in it. The hash tells
 * a header that is damaged from one whose master key is not at hand; it protects nothing from an attacker, the message does.
 */
import { concat, copyOf } from "../../internal/bytes.js"
import * as Cobblestone from "./cobblestone.js"
import { maxIdSize } from "./limits.js"

type Bytes = Uint8Array<ArrayBuffer>

const magic = new TextEncoder().encode("SWCRYPT1")
const hashSize = 32
export const headerSize = 968
const contentSize = headerSize - hashSize

/** Where the first chunk of the message begins. */
export const chunksAt = headerSize + Cobblestone.headerSize

/** What is left for a wrapped key beside the longest id. */
export const maxWrappedSize = contentSize - magic.byteLength - 1 - maxIdSize - 2

export interface Header {
  /** The id of the master key. */
  readonly id: string
  readonly wrapped: Bytes
}

const hash = async (content: Uint8Array): Promise<Bytes> =>
  new Uint8Array(await crypto.subtle.digest("SHA-256", copyOf(content)))

export const encode = async ({ id, wrapped }: Header): Promise<Bytes> => {
  const name = new TextEncoder().encode(id)
  const length = wrapped.byteLength
  const fields = concat([
    magic,
    Uint8Array.of(name.byteLength),
    name,
    Uint8Array.of(length >> 8, length & 255),
    wrapped
  ])
  const content = new Uint8Array(contentSize)
  content.set(fields)
  return concat([content, await hash(content)])
}

/** The header at the start of an object, or what is wrong with it. */
export const decode = async (bytes: Uint8Array): Promise<Header | string> => {
  if (bytes.byteLength < headerSize || magic.some((byte, at) => bytes[at] !== byte)) {
    return "the object is not encrypted, or its first bytes are damaged"
  }
  const content = copyOf(bytes, 0, contentSize)
  const expected = await hash(content)
  if (expected.some((byte, at) => bytes[contentSize + at] !== byte)) return "the header of the object is damaged"
  const idAt = magic.byteLength + 1
  const idEnd = idAt + (content[idAt - 1] ?? 0)
  const wrappedAt = idEnd + 2
  const wrappedEnd = wrappedAt + new DataView(content.buffer).getUint16(idEnd)
  if (wrappedEnd > contentSize) return "the header of the object is malformed"
  return { id: new TextDecoder().decode(content.subarray(idAt, idEnd)), wrapped: content.slice(wrappedAt, wrappedEnd) }
}

/** The size of an object with so many bytes. */
export const storedSize = (size: number): number => headerSize + Cobblestone.sealedSize(size)

/** How many bytes an object of this size contains, at least 0; whether an encrypted object can have this size. */
export const plainSize = (stored: number): { readonly size: number; readonly isPossible: boolean } =>
  Cobblestone.openedSize(stored - headerSize)
