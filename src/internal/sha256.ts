/**
 * SHA-256 of bytes that come in pieces: that of `node:crypto` (which Node, Bun and Deno have), and where there is none, as
 * in a browser, that of `@noble/hashes`, a tenth as fast. `crypto.subtle`, which browsers have, takes all bytes at once
 * only.
 *
 * Either is loaded when it is first needed, and Node's without an import, which a bundler for browsers could not follow.
 * Node has the way to that since 20.16.
 */
import type * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"

interface Hash {
  readonly update: (bytes: Uint8Array) => void
  /** In lower-case hexadecimal; to be asked for once. */
  readonly digest: () => string
}

/** Begins a new hash. */
export type Sha256 = () => Hash

const { process } = globalThis as { readonly process?: Partial<Pick<NodeJS.Process, "getBuiltinModule">> }

/** That of Node. */
export const native: Effect.Effect<Sha256, Cause.NoSuchElementException> = Effect.suspend(() =>
  Effect.map(Effect.fromNullable(process?.getBuiltinModule?.("node:crypto")), ({ createHash }) => () => {
    const hash = createHash("sha256")
    return { update: (bytes) => void hash.update(bytes), digest: () => hash.digest("hex") }
  })
)

/** The one in plain JavaScript. */
export const portable: Effect.Effect<Sha256> = Effect.promise(async () => {
  const [{ sha256 }, { bytesToHex }] = await Promise.all([
    import("@noble/hashes/sha2"),
    import("@noble/hashes/utils")
  ])
  return () => {
    const hash = sha256.create()
    return { update: (bytes) => void hash.update(bytes), digest: () => bytesToHex(hash.digest()) }
  }
})

export const sha256: Effect.Effect<Sha256> = Effect.orElse(native, () => portable)

/** What is hashed in one go, some milliseconds' work: others get their turn after each. */
const sliceSize = 4 * 1024 * 1024

/** The hash of an array, between whose slices timers and sockets have their turn. */
export const hashOf = (begin: Sha256, bytes: Uint8Array): Effect.Effect<string> =>
  Effect.suspend(() => {
    const hash = begin()
    const from = (at: number): Effect.Effect<string> => {
      const end = at + sliceSize
      hash.update(bytes.subarray(at, end))
      return end < bytes.byteLength
        ? Effect.flatMap(turn, () => from(end))
        : Effect.sync(hash.digest)
    }
    return from(0)
  })

// Giving way to other fibers alone would keep sockets waiting for a whole chunk.
const turn: Effect.Effect<void> = Effect.async((resume) => {
  if (typeof setImmediate === "function") setImmediate(() => resume(Effect.void))
  else setTimeout(() => resume(Effect.void), 0)
})
