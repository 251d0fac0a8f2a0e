/**
 * Bytes for tests, and what to compare of them.
 */
import * as Chunk from "effect/Chunk"
import * as Effect from "effect/Effect"
import * as Stream from "effect/Stream"
import { createCipheriv, createHash } from "node:crypto"

export const MiB = 1024 * 1024

/** Bytes that never repeat, different for each `seed`. */
export const bytes = (length: number, seed = 0): Uint8Array =>
  new Uint8Array(
    createCipheriv("aes-128-ctr", Buffer.alloc(16, seed), Buffer.alloc(16)).update(Buffer.alloc(length))
  )

/** The length and hash of bytes: a difference between two is short enough to read. */
export const print = (bytes: Uint8Array): string =>
  `${bytes.byteLength} bytes, ${createHash("sha1").update(bytes).digest("hex")}`

export const gather = <Err, R>(stream: Stream.Stream<Uint8Array, Err, R>): Effect.Effect<Uint8Array, Err, R> =>
  Effect.map(Stream.runCollect(stream), (parts) => new Uint8Array(Buffer.concat(Chunk.toArray(parts))))
