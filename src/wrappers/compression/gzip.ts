/**
 * Objects as gzip (RFC 1952), with their size in the header.
 */
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import { CorruptObject } from "../../StorageError.js"
import type { Deflate } from "../../weights/safetensors/compressed/deflate.js"
import { gzipHeader, gzipHeaderLength } from "./forms.js"

/** The CRC-32 and the length of the content, at the end. */
const trailerLength = 8

/** The object in one array as pieces of a gzip file. */
export const encode = (deflate: Deflate, object: Uint8Array): Effect.Effect<ReadonlyArray<Uint8Array>> =>
  Effect.map(deflate.deflate(object, "repetitions"), (content) => {
    const trailer = new Uint8Array(trailerLength)
    const view = new DataView(trailer.buffer)
    view.setUint32(0, deflate.crc32(object), true)
    view.setUint32(4, object.byteLength % 2 ** 32, true)
    return [gzipHeader(object.byteLength), content, trailer]
  })

/** Whether a gzip file can have content of this size: no DEFLATE data has more than 1,032 times its own. */
export const checkSize = (stored: number, size: number): Either.Either<void, CorruptObject> =>
  size <= 1032 * stored
    ? Either.void
    : Either.left(corrupt("frame", `of ${stored} bytes cannot have ${size} bytes of content`))

const corrupt = (problem: "frame" | "checksum", reason: string): CorruptObject =>
  new CorruptObject({ problem, reason: `the gzip data ${reason}` })

/** The object of `size` bytes from a gzip file in one array. */
export const decode = (
  deflate: Deflate,
  file: Uint8Array,
  size: number
): Effect.Effect<Uint8Array, CorruptObject> =>
  Effect.suspend(() => {
    const end = file.byteLength - trailerLength
    if (end < gzipHeaderLength) return Effect.fail(corrupt("frame", "is truncated"))
    const view = new DataView(file.buffer, file.byteOffset + end, trailerLength)
    return deflate.inflate(file.subarray(gzipHeaderLength, end), size).pipe(
      Effect.mapError(({ reason }) => corrupt("frame", `cannot be decoded: ${reason}`)),
      Effect.filterOrFail(
        (object) => deflate.crc32(object) === view.getUint32(0, true) && view.getUint32(4, true) === size % 2 ** 32,
        () => corrupt("checksum", "does not have the checksum and the length at its end")
      )
    )
  })
