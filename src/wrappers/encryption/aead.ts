/**
 * AES-GCM with tags of 16 bytes: by `node:crypto` in Node, Bun and Deno, elsewhere by Web Crypto. For each 16 KiB, Web Crypto makes
 * a job and several promises, which cost more than the encryption (bench row `encrypted-stream`).
 * `node:crypto` is not imported, since bundlers for browsers could not resolve it.
 */
import type * as NodeCryptoModule from "node:crypto"

type Bytes = Uint8Array<ArrayBuffer>
type NodeCrypto = Pick<typeof NodeCryptoModule, "createCipheriv" | "createDecipheriv" | "createSecretKey">

/** A chunk, with a nonce that no other chunk has. It is copied at once, and may then be changed. */
export interface Piece {
  readonly nonce: Bytes
  readonly bytes: Uint8Array
}

/** Encrypts and decrypts with one key. */
export interface Aead {
  /** The encrypted chunks, each followed by its tag. */
  readonly seal: (chunks: ReadonlyArray<Piece>) => Promise<ReadonlyArray<Uint8Array>>
  /** The chunks; nothing for one that is not authentic. */
  readonly open: (sealed: ReadonlyArray<Piece>) => Promise<ReadonlyArray<Uint8Array | undefined>>
}

/** The key has 16 or 32 bytes. */
export type MakeAead = (key: Uint8Array) => Promise<Aead>

export const tagSize = 16

/**
 * The implementation of Node.
 *
 * @internal
 */
export const native = ({ createCipheriv, createDecipheriv, createSecretKey }: NodeCrypto): MakeAead => (bytes) => {
  const key = createSecretKey(bytes)
  const algorithm = bytes.byteLength === 16 ? "aes-128-gcm" : "aes-256-gcm"
  const options = { authTagLength: tagSize }
  const seal = ({ bytes, nonce }: Piece) => {
    const cipher = createCipheriv(algorithm, key, nonce, options)
    const sealed = cipher.update(bytes)
    cipher.final()
    return [sealed, cipher.getAuthTag()]
  }
  const open = ({ bytes, nonce }: Piece) => {
    if (bytes.byteLength < tagSize) return undefined
    const decipher = createDecipheriv(algorithm, key, nonce, options)
    decipher.setAuthTag(bytes.subarray(-tagSize))
    const plain = decipher.update(bytes.subarray(0, -tagSize))
    try {
      decipher.final()
      return plain
    } catch {
      return undefined
    }
  }
  return Promise.resolve({
    seal: (chunks) => Promise.resolve(chunks.flatMap(seal)),
    open: (sealed) => Promise.resolve(sealed.map(open))
  })
}

/** The implementation of Web Crypto. */
export const portable: MakeAead = async (bytes) => {
  const { subtle } = crypto
  const name = "AES-GCM"
  const key = await subtle.importKey("raw", new Uint8Array(bytes), name, false, ["encrypt", "decrypt"])
  const seal = async ({ bytes, nonce: iv }: Piece) => new Uint8Array(await subtle.encrypt({ name, iv }, key, bytes))
  const open = async ({ bytes, nonce: iv }: Piece) => {
    try {
      return new Uint8Array(await subtle.decrypt({ name, iv }, key, bytes))
    } catch (error) {
      if (error instanceof Error && error.name === "OperationError") return undefined
      throw error
    }
  }
  return {
    seal: (chunks) => Promise.all(chunks.map(seal)),
    open: (sealed) => Promise.all(sealed.map(open))
  }
}

const { process } = globalThis as { readonly process?: Partial<Pick<NodeJS.Process, "getBuiltinModule">> }

/** The fastest implementation that this runtime has. */
export const make: MakeAead = (key) => {
  const node = process?.getBuiltinModule?.("node:crypto")
  return (node === undefined ? portable : native(node))(key)
}
