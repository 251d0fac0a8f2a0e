/**
 * Encodes tensors as a compressed file.
 *
 * The header comes first and has the sizes of all tensors, so everything is encoded before the first byte of the file is known.
 * What has been encoded is kept up to a limit; the rest is read and encoded again when its turn comes, so that memory use does not
 * depend on the size of the file.
 */
import * as Chunk from "effect/Chunk"
import * as Effect from "effect/Effect"
import * as Stream from "effect/Stream"
import { invalid, type SafetensorsError } from "../errors.js"
import * as Layout from "../layout.js"
import * as Blocks from "./blocks.js"
import * as ByteReader from "./byteReader.js"
import { concurrency, type Deflate } from "./deflate.js"
import * as Description from "./description.js"

/** The original file: its header, its tensors in their order, and its metadata. */
export interface Original<Err, R> extends Description.Original {
  readonly tensors: ReadonlyArray<Tensor>
  readonly metadata: Readonly<Record<string, string>>
  /** The bytes of all tensors from this one on, and no others. It may be run twice. */
  readonly read: (tensor: number) => Stream.Stream<Uint8Array, Err, R>
}

/** A tensor of the original file; its length is in bytes. */
interface Tensor extends Layout.Declared {
  readonly length: number
}

/** A file that is to be written. */
export interface Encoded<Err, R> {
  readonly size: number
  readonly bytes: Stream.Stream<Uint8Array, Err | SafetensorsError, R>
}

/** How many encoded bytes are kept. */
const maxKept = 256 * 1024 * 1024

export const encode = <Err, R>(
  deflate: Deflate,
  key: string,
  original: Original<Err, R>
): Effect.Effect<Encoded<Err, R>, Err | SafetensorsError, R> =>
  Effect.gen(function*() {
    const measured = yield* measure(deflate, original)
    const { header, size } = yield* Layout.inOrder(
      key,
      measured.map(({ entries, tensor }) => {
        const length = Blocks.storedLength(entries)
        return { tensor: length === 0 ? tensor : { name: tensor.name, dtype: "U8" as const, shape: [length] }, length }
      }),
      yield* metadataOf(deflate, key, original)
    )
    const left = measured.findIndex(({ isKept }) => !isKept)
    const kept = left === -1 ? measured : measured.slice(0, left)
    const pieces = [header, ...kept.flatMap(({ blocks, entries }) => framed(entries, blocks))]
    const beginning = Stream.fromChunk(Chunk.unsafeFromArray(pieces))
    const rest = left === -1 ? Stream.empty : encodeAgain(deflate, key, measured.slice(left), original.read(left))
    return { size, bytes: Stream.concat(beginning, rest) }
  })

const metadataOf = <Err, R>(
  deflate: Deflate,
  key: string,
  { header, metadata, size, tensors }: Original<Err, R>
): Effect.Effect<ReadonlyArray<readonly [name: string, value: string]>, SafetensorsError> =>
  Effect.gen(function*() {
    const others = Object.entries(Description.withoutEntries(metadata))
    const derived = yield* Layout.inOrder(key, tensors.map((tensor) => ({ tensor, length: tensor.length })), others)
    const isDerived = derived.header.byteLength === header.byteLength &&
      derived.header.every((byte, i) => byte === header[i])
    const described = tensors.filter(({ length }) => length > 0)
    return [...(yield* Description.entries(deflate, { header, size }, described, isDerived)), ...others]
  })

/** A tensor whose blocks have been encoded once. */
interface Measured {
  readonly tensor: Tensor
  /** None if it has no elements: it is stored as it is. */
  readonly entries: Array<Blocks.Entry>
  /** The stored blocks, if they are kept. */
  readonly blocks: Array<Uint8Array>
  isKept: boolean
}

const measure = <Err, R>(
  deflate: Deflate,
  { read, tensors }: Original<Err, R>
): Effect.Effect<ReadonlyArray<Measured>, Err, R> =>
  Effect.suspend(() => {
    const measured = tensors.map((tensor): Measured => ({ tensor, entries: [], blocks: [], isKept: true }))
    let left = maxKept
    return encodeBlocks(deflate, measured, read(0)).pipe(
      Stream.runForEach(({ encoded: { crc32, pieces, size }, measured }) =>
        Effect.sync(() => {
          measured.entries.push({ size, crc32 })
          left -= size
          measured.isKept &&= left >= 0
          if (measured.isKept) measured.blocks.push(...pieces)
          else measured.blocks.length = 0
        })
      ),
      Effect.as(measured)
    )
  })

interface EncodedBlock {
  readonly measured: Measured
  readonly block: number
  readonly encoded: Blocks.Encoded
}

/** The blocks of tensors from their bytes, in order. */
const encodeBlocks = <Err, R>(
  deflate: Deflate,
  tensors: ReadonlyArray<Measured>,
  bytes: Stream.Stream<Uint8Array, Err, R>
): Stream.Stream<EncodedBlock, Err, R> => {
  const blocks = tensors.flatMap((measured) =>
    Array.from({ length: Blocks.countOf(measured.tensor) }, (_, block) => ({ measured, block }))
  )
  const lengths = blocks.map(({ block, measured }) => {
    const { endExclusive, start } = Blocks.elementsOf(measured.tensor, block)
    return endExclusive - start
  })
  return Stream.zipWithIndex(ByteReader.pieces(bytes, lengths)).pipe(
    Stream.mapEffect(([elements, i]) => {
      const place = blocks[i]
      return place === undefined
        ? Effect.dieMessage("bug: more blocks than lengths")
        : Effect.map(
          Blocks.encode(deflate, place.measured.tensor.dtype, elements),
          (encoded) => ({ ...place, encoded })
        )
    }, { concurrency })
  )
}

/** The bytes in which a tensor is stored. */
const framed = (entries: ReadonlyArray<Blocks.Entry>, blocks: ReadonlyArray<Uint8Array>): ReadonlyArray<Uint8Array> =>
  entries.length === 0 ? [] : [Blocks.encodeIndex(entries), ...blocks, Blocks.padding(entries)]

/** The bytes in which tensors are stored that were not kept. */
const encodeAgain = <Err, R>(
  deflate: Deflate,
  key: string,
  tensors: ReadonlyArray<Measured>,
  bytes: Stream.Stream<Uint8Array, Err, R>
): Stream.Stream<Uint8Array, Err | SafetensorsError, R> =>
  encodeBlocks(deflate, tensors, bytes).pipe(
    Stream.mapEffect(({ block, encoded: { crc32, pieces, size }, measured: { entries, tensor } }) => {
      if (size !== entries[block]?.size || crc32 !== entries[block].crc32) {
        return Effect.fail(invalid(key, "data", "the stream has other bytes when it is run again", tensor.name))
      }
      const before = block === 0 ? [Blocks.encodeIndex(entries)] : []
      const after = block === entries.length - 1 ? [Blocks.padding(entries)] : []
      return Effect.succeed(Chunk.unsafeFromArray([...before, ...pieces, ...after]))
    }),
    Stream.flattenChunks
  )
