/**
 * SHA-256 of bytes that come in pieces: the one door to that of `node:crypto` (which Node, Bun and Deno have), and where
 * there is none, as in a browser, that of `sha256Script.ts`, a tenth as fast. `crypto.subtle`, which browsers have, takes
 * all bytes at once only.
 *
 * The door opens when it is first gone through, so that a bundler for browsers finds no import of Node's at the top.
 */
import * as Effect from "effect/Effect"
import * as sha256Script from "./sha256Script.js"

/** Begins a new hash. */
export type Sha256 = () => sha256Script.Hash

export const sha256: Effect.Effect<Sha256> = Effect.tryPromise(async (): Promise<Sha256> => {
  const { createHash } = await import("node:crypto")
  createHash("sha256")
  return () => {
    const hash = createHash("sha256")
    return { update: (bytes) => void hash.update(bytes), digest: () => hash.digest("hex") }
  }
}).pipe(Effect.orElseSucceed((): Sha256 => sha256Script.make))

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
