/**
 * Hashes of bytes that come in pieces: by `node:crypto` in Node, Bun and Deno, elsewhere by `@noble/hashes`, which is about ten
 * times slower. Either is loaded on first use. `node:crypto` is not imported, since bundlers for browsers could not resolve it.
 */
import type * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Encoding from "effect/Encoding"

export type Algorithm = "md5" | "sha1" | "sha256" | "sha512"

/** A hash that is being computed. */
export interface Hash {
  readonly update: (bytes: Uint8Array) => void
  /** To be called once, at the end. */
  readonly digest: () => Uint8Array
}

/** Starts a new hash. */
export type NewHash = () => Hash

const { process } = globalThis as { readonly process?: Partial<Pick<NodeJS.Process, "getBuiltinModule">> }

/** The implementation of Node. */
export const native = (algorithm: Algorithm): Effect.Effect<NewHash, Cause.NoSuchElementException> =>
  Effect.suspend(() =>
    Effect.map(Effect.fromNullable(process?.getBuiltinModule?.("node:crypto")), ({ createHash }) => () => {
      const hash = createHash(algorithm)
      return { update: (bytes) => void hash.update(bytes), digest: () => hash.digest() }
    })
  )

/** The implementation in JavaScript. */
export const portable = (algorithm: Algorithm): Effect.Effect<NewHash> =>
  Effect.promise(async () => {
    const implementation = algorithm === "md5" || algorithm === "sha1"
      ? (await import("@noble/hashes/legacy"))[algorithm]
      : (await import("@noble/hashes/sha2"))[algorithm]
    return () => {
      const hash = implementation.create()
      return { update: (bytes) => void hash.update(bytes), digest: () => hash.digest() }
    }
  })

/** The fastest implementation that this runtime has. */
export const load = (algorithm: Algorithm): Effect.Effect<NewHash> =>
  Effect.orElse(native(algorithm), () => portable(algorithm))

/** Starts a hash. */
export const make = (algorithm: Algorithm): Effect.Effect<Hash> => Effect.map(load(algorithm), (newHash) => newHash())

/** The digest in lower-case hexadecimal. */
export const hexDigest = (hash: Hash): string => Encoding.encodeHex(hash.digest())

/** How many bytes are hashed before other work gets its turn: a few milliseconds. */
const sliceSize = 4 * 1024 * 1024

/** The hash of an array in lower-case hexadecimal. Timers and sockets are served between slices of the array. */
export const hashOf = (newHash: NewHash, bytes: Uint8Array): Effect.Effect<string> =>
  Effect.suspend(() => {
    const hash = newHash()
    return Effect.map(update(hash, bytes), () => hexDigest(hash))
  })

/** Adds an array to a hash. Timers and sockets are served between slices of the array. */
export const update = (hash: Hash, bytes: Uint8Array): Effect.Effect<void> => {
  const from = (start: number): Effect.Effect<void> =>
    Effect.suspend(() => {
      const end = start + sliceSize
      hash.update(bytes.subarray(start, end))
      return end < bytes.byteLength ? Effect.zipRight(nextMacrotask, from(end)) : Effect.void
    })
  return from(0)
}

// Yielding to other fibers alone would keep sockets waiting for the whole array.
const nextMacrotask: Effect.Effect<void> = Effect.async((resume) => {
  if (typeof setImmediate === "function") setImmediate(() => resume(Effect.void))
  else setTimeout(() => resume(Effect.void), 0)
})

export const isEqual = (a: Uint8Array, b: Uint8Array | undefined): boolean =>
  a.byteLength === b?.byteLength && a.every((byte, i) => byte === b[i])
