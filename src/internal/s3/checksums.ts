/**
 * Checksums from end to end: computed here before bytes are sent, checked by the server, kept by it with the object, and
 * checked here against what comes back.
 *
 * An object that was saved in parts has one checksum of all its bytes (the CRCs), or one of the checksums of its parts
 * followed by their number (SHA-256).
 *
 * https://docs.aws.amazon.com/AmazonS3/latest/userguide/checking-object-integrity.html
 */
import * as Effect from "effect/Effect"
import * as crypto from "node:crypto"
import type { Checksum as ObjectChecksum } from "../../StorageBackend.js"
import * as E from "../../StorageError.js"

type Algorithm = ObjectChecksum["algorithm"]

/** The header by which a server is asked to tell the checksum of an object. */
export const mode = { "x-amz-checksum-mode": "ENABLED" }

interface Digest {
  readonly update: (bytes: Uint8Array) => void
  readonly digest: () => Promise<Uint8Array>
}

/** A way to compute checksums, and where S3 puts them. */
export interface Checksum {
  readonly algorithm: Algorithm
  readonly header: string
  /** The name of the element that has it in a list of parts. */
  readonly element: string
  /** How the checksum of an object in parts is made. */
  readonly type: "FULL_OBJECT" | "COMPOSITE"
  readonly begin: () => Digest
}

export const make = (backend: string, algorithm: Algorithm): Effect.Effect<Checksum, E.UnexpectedStorageError> =>
  Effect.map(beginning(backend, algorithm), (begin) => ({
    algorithm,
    header: `x-amz-checksum-${algorithm.toLowerCase()}`,
    element: `Checksum${algorithm}`,
    type: algorithm === "SHA256" ? "COMPOSITE" : "FULL_OBJECT",
    begin
  }))

const beginning = (backend: string, algorithm: Algorithm): Effect.Effect<() => Digest, E.UnexpectedStorageError> =>
  algorithm === "SHA256" ? Effect.succeed(sha256) : Effect.tryPromise({
    try: async () => {
      const { Crc32c, Crc64Nvme } = await import("@aws-sdk/checksums/crc")
      return () => algorithm === "CRC32C" ? new Crc32c() : new Crc64Nvme()
    },
    catch: (cause) =>
      new E.UnexpectedStorageError({
        backend,
        operation: "open",
        reason: "@aws-sdk/checksums cannot be loaded; install it beside @aws-sdk/client-s3",
        cause
      })
  })

const sha256 = (): Digest => {
  const hash = crypto.createHash("sha256")
  return { update: (bytes) => void hash.update(bytes), digest: () => Promise.resolve(hash.digest()) }
}

const encode = (digest: Uint8Array): string => Buffer.from(digest).toString("base64")

/** The checksum of some bytes, as it stands in a header. */
export const of = ({ begin }: Checksum, bytes: Uint8Array): Effect.Effect<string> =>
  Effect.promise(() => {
    const digest = begin()
    digest.update(bytes)
    return digest.digest().then(encode)
  })

/** Takes the bytes of an object one after another; `actual` is their checksum when all were taken. */
export interface Verifier {
  readonly update: (bytes: Uint8Array) => void
  readonly actual: Effect.Effect<string>
}

/** `partSize` for a checksum of the checksums of parts, all of which but the last have so many bytes. */
export const verifier = ({ begin }: Checksum, partSize = Infinity): Verifier => {
  const parts: Array<Digest> = []
  let left = 0
  return {
    update: (bytes) => {
      for (let at = 0; at < bytes.byteLength;) {
        if (left === 0) {
          parts.push(begin())
          left = partSize
        }
        const piece = bytes.subarray(at, at + left)
        parts.at(-1)?.update(piece)
        at += piece.byteLength
        left -= piece.byteLength
      }
    },
    actual: Effect.promise(async () => {
      if (partSize === Infinity) return encode(await (parts[0] ?? begin()).digest())
      const whole = begin()
      for (const part of parts) whole.update(await part.digest())
      return `${encode(await whole.digest())}-${parts.length}`
    })
  }
}
