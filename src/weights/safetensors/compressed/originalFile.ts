/**
 * The original file of a compressed one, byte for byte.
 */
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Stream from "effect/Stream"
import type { ResolvedRange } from "../../../ByteRange.js"
import { copyOf, intoArray } from "../../../internal/bytes.js"
import { CorruptObject, type UnsupportedOperation } from "../../../StorageError.js"
import { sniffLength } from "../../internal/fileKind.js"
import { SafetensorsError } from "../errors.js"
import * as Header from "../header.js"
import { isCompressed } from "../layout.js"
import * as ByteReader from "./byteReader.js"
import { concurrency, type Deflate } from "./deflate.js"
import * as Description from "./description.js"
import * as Encoder from "./encoder.js"
import * as Reader from "./reader.js"

/** A compressed file whose header has been read. */
export interface CompressedFile {
  readonly original: Description.Original
  readonly tensors: ReadonlyMap<string, Header.TensorInfo>
}

/** How many bytes of a file that starts like this are its header, with the length before it. */
export const headerLength = (
  key: string,
  beginning: Uint8Array,
  size: number
): Effect.Effect<number, SafetensorsError> =>
  Effect.map(Header.jsonLength(key, beginning, size), (length) => Header.prefixLength + length)

/** A compressed file from its header, with the length before it, and its size. */
export const open = (
  deflate: Deflate,
  key: string,
  header: Uint8Array,
  size: number
): Effect.Effect<CompressedFile | undefined, SafetensorsError> =>
  Effect.gen(function*() {
    const parsed = yield* Header.parse(key, header.subarray(Header.prefixLength), size)
    if (!isCompressed(parsed.metadata)) return undefined
    const { original, tensors } = yield* Description.resolve(deflate, key, parsed)
    return original && { original, tensors }
  })

/** Whether a file that starts like this may be a safetensors file. */
export const mayBeFile = (beginning: Uint8Array): boolean =>
  beginning.byteLength > Header.prefixLength && Either.isRight(Header.jsonLength("", beginning, Infinity))

/** A compressed file that is to be written. */
export interface EncodedFile<E> {
  readonly size: number
  readonly bytes: Stream.Stream<Uint8Array, E | CorruptObject>
}

/** How to read a file that is to be compressed; what `read` returns may be run twice. */
export interface Source<E> {
  /** So many bytes at its start. */
  readonly header: (length: number) => Effect.Effect<Uint8Array, E>
  /** From there to its end. */
  readonly read: (start: number) => Stream.Stream<Uint8Array, E>
}

/** Compresses a file of `size` bytes; `undefined` if it is no safetensors file. */
export const encode = <E>(
  deflate: Deflate,
  key: string,
  size: number,
  { header: load, read }: Source<E>
): Effect.Effect<EncodedFile<E> | undefined, E | CorruptObject> =>
  Effect.gen(function*() {
    const length = yield* Effect.either(headerLength(key, yield* load(Math.min(size, sniffLength)), size))
    if (Either.isLeft(length)) return undefined
    const header = yield* load(length.right)
    const parsed = Header.parse(key, header.subarray(Header.prefixLength), size)
    if (Either.isLeft(parsed)) return undefined
    const { metadata, tensors } = parsed.right
    const sources = Array.from(
      tensors.values(),
      ({ dtype, name, range, shape }) => ({ dtype, name, shape, range, length: range.endExclusive - range.start })
    )
    const encoded = yield* Encoder.encode(deflate, key, {
      size,
      header,
      metadata,
      tensors: sources,
      read: (tensor) => {
        const start = sources[tensor]?.range.start ?? size
        return start < size ? read(start) : Stream.empty
      }
    })
    return { size: encoded.size, bytes: Stream.mapError(encoded.bytes, toCorrupt) }
  }).pipe(Effect.mapError(toCorrupt))

const toCorrupt = <E>(error: E | SafetensorsError): Exclude<E, SafetensorsError> | CorruptObject =>
  error instanceof SafetensorsError
    ? new CorruptObject({ problem: "frame", reason: error.message })
    : error as Exclude<E, SafetensorsError>

/** A range of the original file. Whole tensors are read together, with one call of `read`. */
export const stream = <E>(
  deflate: Deflate,
  { original, tensors }: CompressedFile,
  range: ResolvedRange,
  read: ByteReader.Read<E>
): Stream.Stream<Uint8Array<ArrayBuffer>, E | CorruptObject> =>
  Stream.unwrapScoped(Effect.gen(function*() {
    const parts = partsOf(original, tensors, range)
    const wholes = parts.filter(({ isWhole }) => isWhole).map(({ tensor }) => tensor.range)
    const readWhole = yield* ByteReader.inTurn(read, wholes)
    const header = range.start < original.header.byteLength
      ? [copyOf(original.header, range.start, Math.min(range.endExclusive, original.header.byteLength))]
      : []
    const elements = Stream.flatMap(
      Stream.fromIterable(parts),
      ({ isWhole, range, tensor }) => decodersOf(deflate, tensor, range, isWhole ? readWhole : read)
    )
    return Stream.concat(Stream.fromIterable(header), Stream.mapEffect(elements, (decode) => decode, { concurrency }))
  }))

/** The bytes of the original file, from those of a file; the same where it is not compressed. */
export const ofBytes = (
  deflate: Deflate,
  key: string,
  bytes: Uint8Array<ArrayBuffer>
): Effect.Effect<Uint8Array<ArrayBuffer>, SafetensorsError | CorruptObject | UnsupportedOperation> =>
  Effect.gen(function*() {
    if (Description.originalSize(bytes) === undefined) return bytes
    const end = yield* headerLength(key, bytes, bytes.byteLength)
    const file = yield* open(deflate, key, bytes.subarray(0, end), bytes.byteLength)
    if (file === undefined) return bytes
    const range = { start: 0, endExclusive: file.original.size }
    return yield* intoArray(
      stream(
        deflate,
        file,
        range,
        ({ endExclusive, start }) => ByteReader.make(Stream.make(bytes.subarray(start, endExclusive)))
      ),
      file.original.size
    )
  })

/** The elements of a tensor that are in a range of the file, as a range of those of the tensor. */
interface Part {
  readonly tensor: Header.TensorInfo
  readonly range: ResolvedRange
  readonly isWhole: boolean
}

const partsOf = (
  { header }: Description.Original,
  tensors: ReadonlyMap<string, Header.TensorInfo>,
  range: ResolvedRange
): ReadonlyArray<Part> => {
  const parts: Array<Part> = []
  let at = header.byteLength
  for (const tensor of tensors.values()) {
    const length = Description.lengthOf(tensor)
    const start = Math.max(0, range.start - at)
    const endExclusive = Math.min(length, range.endExclusive - at)
    if (start < endExclusive) {
      parts.push({ tensor, range: { start, endExclusive }, isWhole: endExclusive - start === length })
    }
    at += length
  }
  return parts
}

const decodersOf = <E>(
  deflate: Deflate,
  tensor: Header.TensorInfo,
  range: ResolvedRange,
  read: ByteReader.Read<E>
): Stream.Stream<Effect.Effect<Uint8Array<ArrayBuffer>, CorruptObject>, E | CorruptObject> => {
  const stored = Reader.storedTensor(tensor, read)
  if (stored !== undefined) return Reader.decoders(deflate, stored, range)
  const { start } = tensor.range
  return Stream.unwrapScoped(
    Effect.map(
      read({ start: start + range.start, endExclusive: start + range.endExclusive }),
      ({ take }) =>
        Stream.mapEffect(
          Stream.range(0, Math.ceil((range.endExclusive - range.start) / pieceLength) - 1),
          (piece) =>
            Effect.map(
              take(Math.min(pieceLength, range.endExclusive - range.start - piece * pieceLength)),
              (bytes) => Effect.sync(() => copyOf(bytes))
            )
        )
    )
  )
}

/** The elements that are not compressed pass in pieces of this length. */
const pieceLength = 1024 * 1024
