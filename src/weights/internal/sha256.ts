/**
 * SHA-256 of bytes that come in pieces: by `node:crypto` in Node, Bun and Deno, and elsewhere, as in browsers, by
 * `@noble/hashes`, which is about ten times slower. (`crypto.subtle` takes all bytes at once only.)
 *
 * The implementation is loaded on first use. `node:crypto` is not imported, since bundlers for browsers could not resolve
 * it, but taken by `process.getBuiltinModule`, which Node has since 20.16.
 */
import type * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Encoding from "effect/Encoding"

/** A hash that is being computed. */
export interface Hash {
  readonly update: (bytes: Uint8Array) => void
  /** The 32 bytes of the digest. To be called once, at the end. */
  readonly digest: () => Uint8Array
}

/** Starts a new hash. */
export type NewHash = () => Hash

const { process } = globalThis as { readonly process?: Partial<Pick<NodeJS.Process, "getBuiltinModule">> }

/** The implementation of Node. */
export const native: Effect.Effect<NewHash, Cause.NoSuchElementException> = Effect.suspend(() =>
  Effect.map(Effect.fromNullable(process?.getBuiltinModule?.("node:crypto")), ({ createHash }) => () => {
    const hash = createHash("sha256")
    return { update: (bytes) => void hash.update(bytes), digest: () => hash.digest() }
  })
)

/** The implementation in JavaScript. */
export const portable: Effect.Effect<NewHash> = Effect.promise(async () => {
  const { sha256 } = await import("@noble/hashes/sha2")
  return () => {
    const hash = sha256.create()
    return { update: (bytes) => void hash.update(bytes), digest: () => hash.digest() }
  }
})

/** The fastest implementation that this runtime has. */
export const sha256: Effect.Effect<NewHash> = Effect.orElse(native, () => portable)

/** The digest in lower-case hexadecimal. */
export const hexDigest = (hash: Hash): string => Encoding.encodeHex(hash.digest())

/** How many bytes are hashed before other work gets its turn: a few milliseconds. */
const sliceSize = 4 * 1024 * 1024

/** The SHA-256 of an array in lower-case hexadecimal. Timers and sockets are served between slices of the array. */
export const hashOf = (newHash: NewHash, bytes: Uint8Array): Effect.Effect<string> =>
  Effect.suspend(() => {
    const hash = newHash()
    const from = (start: number): Effect.Effect<string> => {
      const end = start + sliceSize
      hash.update(bytes.subarray(start, end))
      return end < bytes.byteLength
        ? Effect.flatMap(nextMacrotask, () => from(end))
        : Effect.sync(() => hexDigest(hash))
    }
    return from(0)
  })

// Yielding to other fibers alone would keep sockets waiting for the whole array.
const nextMacrotask: Effect.Effect<void> = Effect.async((resume) => {
  if (typeof setImmediate === "function") setImmediate(() => resume(Effect.void))
  else setTimeout(() => resume(Effect.void), 0)
})
