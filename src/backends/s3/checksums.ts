/**
 * End-to-end checksums: computed before bytes are sent, checked by the server and kept with the object, and checked again
 * when the object is loaded.
 *
 * An object that was saved in parts has one checksum of all its bytes (the CRCs), or one of the checksums of its parts,
 * followed by their number (SHA-256).
 *
 * https://docs.aws.amazon.com/AmazonS3/latest/userguide/checking-object-integrity.html
 */
import * as Effect from "effect/Effect"
import * as crypto from "node:crypto"
import type { Checksum as ObjectChecksum } from "../../StorageBackend.js"
import * as E from "../../StorageError.js"

type Algorithm = ObjectChecksum["algorithm"]

/** The header that asks for the checksum of an object. */
export const mode = { "x-amz-checksum-mode": "ENABLED" }

interface Digest {
  readonly update: (bytes: Uint8Array) => void
  readonly digest: () => Promise<Uint8Array>
}

/** How a checksum is computed, and where S3 has it. */
export interface Checksum {
  readonly algorithm: Algorithm
  readonly header: string
  /** Its element in a list of parts. */
  readonly element: string
  /** What the checksum of an object in parts is made of. */
  readonly type: "FULL_OBJECT" | "COMPOSITE"
  readonly begin: () => Digest
}

export const make = (algorithm: Algorithm): Effect.Effect<Checksum, E.UnexpectedStorageError> =>
  Effect.map(digestOf(algorithm), (begin) => ({
    algorithm,
    header: `x-amz-checksum-${algorithm.toLowerCase()}`,
    element: `Checksum${algorithm}`,
    type: algorithm === "SHA256" ? "COMPOSITE" : "FULL_OBJECT",
    begin
  }))

const digestOf = (algorithm: Algorithm): Effect.Effect<() => Digest, E.UnexpectedStorageError> =>
  algorithm === "SHA256" ? Effect.succeed(sha256) : Effect.tryPromise({
    try: async () => {
      const { Crc32c, Crc64Nvme } = await import("@aws-sdk/checksums/crc")
      return () => algorithm === "CRC32C" ? new Crc32c() : new Crc64Nvme()
    },
    catch: (cause) =>
      new E.UnexpectedStorageError({
        reason: "@aws-sdk/checksums cannot be loaded; install it beside @aws-sdk/client-s3",
        cause
      })
  })

const sha256 = (): Digest => {
  const hash = crypto.createHash("sha256")
  return { update: (bytes) => void hash.update(bytes), digest: () => Promise.resolve(hash.digest()) }
}

const encode = (digest: Uint8Array): string => Buffer.from(digest).toString("base64")

/** The checksum of some bytes, as a header has it. */
export const of = ({ begin }: Checksum, bytes: Uint8Array): Effect.Effect<string> =>
  Effect.promise(() => {
    const digest = begin()
    digest.update(bytes)
    return digest.digest().then(encode)
  })

/** What the server has as the checksum of an object. */
export interface Expected {
  readonly value: string
  /** The size of the parts of whose checksums it is made, in bytes; `Infinity` for one of all bytes. */
  readonly partSize: number
}

/** Computes the checksum of an object from its bytes, in order. */
export class Verifier {
  readonly #begin: () => Digest
  readonly #partSize: number
  readonly #parts: Array<Digest> = []
  #left = 0

  constructor({ begin }: Checksum, partSize: number) {
    this.#begin = begin
    this.#partSize = partSize
  }

  update(bytes: Uint8Array): void {
    for (let at = 0; at < bytes.byteLength;) {
      if (this.#left === 0) {
        this.#parts.push(this.#begin())
        this.#left = this.#partSize
      }
      const piece = bytes.subarray(at, at + this.#left)
      this.#parts.at(-1)?.update(piece)
      at += piece.byteLength
      this.#left -= piece.byteLength
    }
  }

  /** The checksum of the bytes so far. */
  readonly value: Effect.Effect<string> = Effect.promise(async () => {
    if (this.#partSize === Infinity) return encode(await (this.#parts[0] ?? this.#begin()).digest())
    const whole = this.#begin()
    for (const part of this.#parts) whole.update(await part.digest())
    return `${encode(await whole.digest())}-${this.#parts.length}`
  })
}
