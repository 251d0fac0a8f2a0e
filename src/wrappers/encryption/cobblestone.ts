/**
 * The format of encrypted bytes: Cobblestone, version 1 of the C2SP chunked encryption (https://c2sp.org/chunked-encryption), which
 * Go (`filippo.io/cobblestone`) and Python (`cryptography.cobblestone`) read and write, too.
 *
 * A message is a salt of 24 bytes, a commitment of 32 bytes to the key, and chunks of 16 KiB, each encrypted with AES-GCM and
 * followed by its tag. The last chunk is shorter than the others, and may be empty, so that a message that was cut off or
 * continued does not authenticate. The key of the chunks, their nonces and the commitment are derived from the input key, the
 * salt and a context by HKDF-Expand with SHA-512.
 *
 * An input key of 16 bytes makes it Cobblestone-128, one of 32 bytes Cobblestone-256.
 */
import { concat as concatenated } from "../../internal/bytes.js"
import * as Aead from "./aead.js"

type Bytes = Uint8Array<ArrayBuffer>

export const chunkSize = 16 * 1024
const { tagSize } = Aead
export const sealedChunkSize = chunkSize + tagSize

const saltSize = 24
const nonceSize = 12
const commitmentSize = 32
export const headerSize = saltSize + commitmentSize

/** 4 PiB. */
const maxChunks = 2 ** 38

/** The index of the chunk that a byte is in; of the size of a message, that of its last chunk. */
export const chunkAt = (position: number): number => Math.floor(position / chunkSize)

/** The size of a message with so many bytes. */
export const sealedSize = (size: number): number => headerSize + size + tagSize * (chunkAt(size) + 1)

/** How many bytes a message of this size contains, at least 0; whether a message can have this size. */
export const openedSize = (sealed: number): { readonly size: number; readonly isPossible: boolean } => {
  const chunks = Math.max(0, sealed - headerSize)
  const whole = Math.floor(chunks / sealedChunkSize)
  const last = chunks - whole * sealedChunkSize
  return { size: whole * chunkSize + Math.max(0, last - tagSize), isPossible: last >= tagSize }
}

/** The keys of one message. */
export class Message {
  /** Salt and commitment, with which the message begins. */
  readonly header: Bytes
  readonly #aead: Aead.Aead
  readonly #baseNonce: Bytes

  private constructor(header: Bytes, aead: Aead.Aead, baseNonce: Bytes) {
    this.header = header
    this.#aead = aead
    this.#baseNonce = baseNonce
  }

  /** Begins a message. */
  static create(inputKey: Uint8Array, context: string): Promise<Message> {
    return Message.#derive(inputKey, crypto.getRandomValues(new Uint8Array(saltSize)), context)
  }

  /** The message that begins with this header; nothing, unless it was made with this key and context. */
  static async read(inputKey: Uint8Array, header: Uint8Array, context: string): Promise<Message | undefined> {
    const message = await Message.#derive(inputKey, header.slice(0, saltSize), context)
    return isSame(message.header, header) ? message : undefined
  }

  static async #derive(inputKey: Uint8Array, salt: Uint8Array, context: string): Promise<Message> {
    const length = inputKey.byteLength
    const info = concat(encode(`c2sp.org/chunked-encryption@v1+AEAD_AES_${length * 8}_GCM\0`), salt, encode(context))
    const derived = await expand(inputKey, info, length + nonceSize + commitmentSize)
    const aead = await Aead.make(derived.slice(0, length))
    const header = concat(salt, derived.subarray(length + nonceSize))
    return new Message(header, aead, derived.slice(length, length + nonceSize))
  }

  /** Encrypts chunks that follow one another. They are copied at once, and may then be changed. */
  async seal(index: number, chunks: ReadonlyArray<Uint8Array>): Promise<Bytes> {
    return concatenated(await this.#aead.seal(this.#pieces(index, chunks)))
  }

  /** Decrypts chunks that follow one another, up to one that is not authentic. They are copied at once, and may then be changed. */
  async open(index: number, sealed: ReadonlyArray<Uint8Array>): Promise<ReadonlyArray<Uint8Array>> {
    const opened = await this.#aead.open(this.#pieces(index, sealed))
    const end = opened.indexOf(undefined)
    return opened.slice(0, end === -1 ? opened.length : end).filter((chunk) => chunk !== undefined)
  }

  #pieces(index: number, chunks: ReadonlyArray<Uint8Array>): ReadonlyArray<Aead.Piece> {
    return chunks.map((bytes, i) => ({ bytes, nonce: this.#nonce(index + i) }))
  }

  /** The base nonce with the index, as a number in big-endian order, XORed into its end. */
  #nonce(index: number): Bytes {
    if (index >= maxChunks) throw new RangeError(`a message must not exceed ${maxChunks} chunks`)
    const nonce = this.#baseNonce.slice()
    for (let at = nonceSize - 1, left = index; left > 0; at--, left = Math.floor(left / 256)) {
      nonce[at] = (nonce[at] ?? 0) ^ (left % 256)
    }
    return nonce
  }
}

/** Encrypts a message of less than a chunk. */
export const sealSmall = async (inputKey: Uint8Array, context: string, bytes: Uint8Array): Promise<Bytes> => {
  const message = await Message.create(inputKey, context)
  return concat(message.header, await message.seal(0, [bytes]))
}

/** Decrypts a message of less than a chunk; nothing, where it is not authentic. */
export const openSmall = async (
  inputKey: Uint8Array,
  context: string,
  sealed: Uint8Array
): Promise<Uint8Array | undefined> => {
  const message = await Message.read(inputKey, sealed.subarray(0, headerSize), context)
  const [bytes] = message === undefined ? [] : await message.open(0, [sealed.subarray(headerSize)])
  return bytes
}

/** HKDF-Expand with SHA-512 (RFC 5869, section 2.3), which Web Crypto has only together with HKDF-Extract. */
const expand = async (inputKey: Uint8Array, info: Uint8Array, length: number): Promise<Bytes> => {
  const key = await crypto.subtle.importKey("raw", inputKey, { name: "HMAC", hash: "SHA-512" }, false, ["sign"])
  let output = new Uint8Array(0)
  let block = new Uint8Array(0)
  for (let counter = 1; output.byteLength < length; counter++) {
    block = new Uint8Array(await crypto.subtle.sign("HMAC", key, concat(block, info, Uint8Array.of(counter))))
    output = concat(output, block)
  }
  return output.slice(0, length)
}

/** Takes as long wherever the arrays differ. */
const isSame = (a: Uint8Array, b: Uint8Array): boolean =>
  a.byteLength === b.byteLength && a.reduce((difference, byte, at) => difference | (byte ^ (b[at] ?? 0)), 0) === 0

const encoder = new TextEncoder()

const encode = (text: string): Uint8Array => encoder.encode(text)

const concat = (...parts: ReadonlyArray<Uint8Array>): Bytes => concatenated(parts)
