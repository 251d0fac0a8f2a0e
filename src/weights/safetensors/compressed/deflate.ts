/**
 * Raw DEFLATE (RFC 1951) and CRC-32: by `node:zlib` in Node, Bun and Deno, on their thread pool, elsewhere by the compression
 * streams of the web. `node:zlib` is not imported, since bundlers for browsers could not resolve it.
 */
import * as Data from "effect/Data"
import * as Effect from "effect/Effect"
import type * as Zlib from "node:zlib"
import { concat } from "../../../internal/bytes.js"
import { once } from "../../../internal/once.js"

/** The bytes are no raw DEFLATE, or are not of the length that they should have. */
class InflateError extends Data.TaggedError("InflateError")<{ readonly reason: string }> {}

/** What to look for: repetitions too, or only how frequent each byte is, where there are none. */
type Strategy = "repetitions" | "frequencies"

export interface Deflate {
  readonly deflate: (bytes: Uint8Array, strategy: Strategy) => Effect.Effect<Uint8Array>
  /** The bytes, which must be `length` many: no more memory is used. */
  readonly inflate: (bytes: Uint8Array, length: number) => Effect.Effect<Uint8Array, InflateError>
  /** The CRC-32 of the bytes. */
  readonly crc32: (bytes: Uint8Array) => number
}

/** How many blocks are worked on at once: as many threads as the pool of Node has. */
export const concurrency = 4

const { process } = globalThis as { readonly process?: Partial<Pick<NodeJS.Process, "getBuiltinModule">> }

/** The fastest implementation that this runtime has. */
export const load: Effect.Effect<Deflate> = Effect.sync(() => {
  const zlib = process?.getBuiltinModule?.("node:zlib")
  return zlib === undefined ? portable : native(zlib)
})

/**
 * The implementation of Node.
 *
 * @internal
 */
export const native = (zlib: typeof Zlib): Deflate => ({
  deflate: (bytes, strategy) =>
    once((resume) => {
      const { Z_DEFAULT_STRATEGY, Z_HUFFMAN_ONLY } = zlib.constants
      const options = {
        strategy: strategy === "frequencies" ? Z_HUFFMAN_ONLY : Z_DEFAULT_STRATEGY,
        memLevel: 9,
        chunkSize: oneChunk(bytes.byteLength)
      }
      zlib.deflateRaw(bytes, options, (error, result) =>
        resume(error === null ? Effect.succeed(result) : Effect.die(error)))
    }),
  inflate: (bytes, length) =>
    once((resume) => {
      const options = { maxOutputLength: Math.max(1, length), chunkSize: oneChunk(length) }
      zlib.inflateRaw(bytes, options, (error, result) =>
        resume(error === null ? ofLength(result, length) : Effect.fail(new InflateError({ reason: error.message }))))
    }),
  crc32: typeof zlib.crc32 === "function" ? (bytes) => zlib.crc32(bytes) : crc32
})

/** So large a chunk that the output fits into one, and shows that it ends there: each more is another turn of the pool. */
const oneChunk = (length: number): number => length + 64

const ofLength = (bytes: Uint8Array, length: number): Effect.Effect<Uint8Array, InflateError> =>
  bytes.byteLength === length
    ? Effect.succeed(bytes)
    : Effect.fail(new InflateError({ reason: `${bytes.byteLength} bytes instead of ${length}` }))

/** The implementation of browsers, which always looks for repetitions. */
export const portable: Deflate = {
  deflate: (bytes) =>
    Effect.promise(async () => {
      const pieces: Array<Uint8Array> = []
      await transform(bytes, new CompressionStream("deflate-raw"), (piece) => void pieces.push(piece))
      return concat(pieces)
    }),
  inflate: (bytes, length) =>
    Effect.tryPromise({
      try: async () => {
        const result = new Uint8Array(length)
        let actual = 0
        await transform(bytes, new DecompressionStream("deflate-raw"), (piece) => {
          if (actual + piece.byteLength > length) throw new RangeError(`more than ${length} bytes`)
          result.set(piece, actual)
          actual += piece.byteLength
        })
        return result.subarray(0, actual)
      },
      catch: (cause) => new InflateError({ reason: cause instanceof Error ? cause.message : String(cause) })
    }).pipe(Effect.flatMap((result) => ofLength(result, length))),
  crc32: (bytes) => crc32(bytes)
}

/** Passes bytes through a stream of the web. Where `use` throws, the rest is not read. */
const transform = async (
  bytes: Uint8Array,
  { readable, writable }: CompressionStream | DecompressionStream,
  use: (piece: Uint8Array) => void
): Promise<void> => {
  const writer = writable.getWriter()
  const reader: ReadableStreamDefaultReader<Uint8Array> = readable.getReader()
  // The reader sees the failure of a write, too.
  const written = writer.write(bytes).then(() => writer.close()).catch(() => {})
  try {
    for (let next = await reader.read(); !next.done; next = await reader.read()) use(next.value)
    await written
  } finally {
    await reader.cancel().catch(() => {})
  }
}

const table = Uint32Array.from({ length: 256 }, (_, byte) => {
  let remainder = byte
  for (let bit = 0; bit < 8; bit++) remainder = remainder >>> 1 ^ (remainder & 1 ? 0xedb88320 : 0)
  return remainder
})

/** The CRC-32 of the bytes (ISO 3309), as in gzip. */
const crc32 = (bytes: Uint8Array): number => {
  let remainder = 0xffffffff
  for (const byte of bytes) remainder = remainder >>> 8 ^ (table[(remainder ^ byte) & 0xff] ?? 0)
  return (remainder ^ 0xffffffff) >>> 0
}
