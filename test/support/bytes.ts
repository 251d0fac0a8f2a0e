/**
 * Bytes for tests, and what tests ask about them.
 */
import * as Chunk from "effect/Chunk"
import * as Effect from "effect/Effect"
import * as Stream from "effect/Stream"
import { createCipheriv, createHash } from "node:crypto"
import { vi } from "vitest"

export const MiB = 1024 * 1024

/** Bytes that repeat nowhere, and others for another `seed`. */
export const bytes = (length: number, seed = 0): Uint8Array =>
  new Uint8Array(
    createCipheriv("aes-128-ctr", Buffer.alloc(16, seed), Buffer.alloc(16)).update(Buffer.alloc(length))
  )

/** What bytes are known by, short enough to be read where they differ. */
export const print = (bytes: Uint8Array): string =>
  `${bytes.byteLength} bytes, ${createHash("sha1").update(bytes).digest("hex")}`

export const gather = <Err, R>(stream: Stream.Stream<Uint8Array, Err, R>): Effect.Effect<Uint8Array, Err, R> =>
  Effect.map(Stream.runCollect(stream), (parts) => new Uint8Array(Buffer.concat(Chunk.toArray(parts))))

export const eventually = (assertion: () => void) =>
  Effect.promise(() => vi.waitFor(assertion, { timeout: 5000, interval: 5 }))

/** What an effect gives, and after how many milliseconds. */
export const timed = <A, Err, R>(effect: Effect.Effect<A, Err, R>) =>
  Effect.suspend(() => {
    const start = performance.now()
    return Effect.map(effect, (value) => [value, performance.now() - start] as const)
  })
