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

/** The bytes of a tensor. A stream may be run twice. */
export type Data<Err, R> = Uint8Array | Stream.Stream<Uint8Array, Err, R>

/** A tensor of the original file. */
export interface Source<Err, R> extends Layout.Declared {
  /** In bytes; `data` must have as many. */
  readonly length: number
  readonly data: Data<Err, R>
}

/** The original file: its header, its tensors in their order, and its metadata. */
export interface Original<Err, R> extends Description.Original {
  readonly tensors: ReadonlyArray<Source<Err, R>>
  readonly metadata: Readonly<Record<string, string>>
}

/** A file that is to be written: its size, and its bytes one after the other. */
export interface Encoded<Err, R> {
  readonly size: number
  readonly data: ReadonlyArray<Data<Err | SafetensorsError, R>>
}

/** How many encoded bytes are kept. */
const maxKept = 256 * 1024 * 1024

export const encode = <Err, R>(
  deflate: Deflate,
  key: string,
  original: Original<Err, R>
): Effect.Effect<Encoded<Err, R>, Err | SafetensorsError, R> =>
  Effect.gen(function*() {
    const measured = yield* measure(deflate, original.tensors)
    const stored = measured.map(({ entries, source }) => {
      const length = Blocks.storedLength(entries)
      return { tensor: length === 0 ? source : { name: source.name, dtype: "U8" as const, shape: [length] }, length }
    })
    const metadata = Object.entries(Description.withoutEntries(original.metadata))
    const derived = yield* Layout.inOrder(
      key,
      original.tensors.map((tensor) => ({ tensor, length: tensor.length })),
      metadata
    )
    const description = yield* Description.entries(
      deflate,
      original,
      original.tensors.filter(({ length }) => length > 0),
      isEqual(derived.header, original.header)
    )
    const { header, size } = yield* Layout.inOrder(key, stored, [...description, ...metadata])
    return { size, data: [header, ...measured.flatMap((tensor) => dataOf(deflate, key, tensor))] }
  })

const isEqual = (a: Uint8Array, b: Uint8Array): boolean =>
  a.byteLength === b.byteLength && a.every((byte, i) => byte === b[i])

/** A tensor whose blocks have been encoded once. */
interface Measured<Err, R> {
  readonly source: Source<Err, R>
  /** None if it has no elements: it is stored as it is. */
  readonly entries: ReadonlyArray<Blocks.Entry>
  /** The stored blocks, unless that would be too many. */
  readonly kept: ReadonlyArray<Uint8Array> | undefined
}

const measure = <Err, R>(
  deflate: Deflate,
  sources: ReadonlyArray<Source<Err, R>>
): Effect.Effect<ReadonlyArray<Measured<Err, R>>, Err, R> =>
  Effect.suspend(() => {
    let left = maxKept
    const tensors = sources.map((source) => ({
      source,
      entries: Array.of<Blocks.Entry>(),
      kept: Array.of<Uint8Array>()
    }))
    return Stream.fromIterable(tensors).pipe(
      Stream.flatMap((tensor) => Stream.map(blocksOf(tensor.source), (elements) => ({ tensor, elements }))),
      Stream.mapEffect(
        ({ elements, tensor }) =>
          Effect.map(Blocks.encode(deflate, tensor.source.dtype, elements), (encoded) => ({ tensor, encoded })),
        { concurrency }
      ),
      Stream.runForEach(({ encoded: { crc32, pieces, size }, tensor: { entries, kept } }) =>
        Effect.sync(() => {
          entries.push({ size, crc32 })
          left -= size
          if (left >= 0) kept.push(...pieces)
        })
      ),
      Effect.map(() =>
        tensors.map(({ entries, kept, source }) => ({
          source,
          entries,
          kept: entries.reduce((left, { size }) => left - size, sumOf(kept)) === 0 ? kept : undefined
        }))
      )
    )
  })

const blocksOf = <Err, R>(source: Source<Err, R>): Stream.Stream<Uint8Array, Err, R> => {
  const { data } = source
  const blocks = Array.from({ length: Blocks.countOf(source) }, (_, block) => Blocks.elementsOf(source, block))
  return data instanceof Uint8Array
    ? Stream.map(
      Stream.rechunk(Stream.fromIterable(blocks), 1),
      ({ endExclusive, start }) => data.subarray(start, endExclusive)
    )
    : ByteReader.pieces(data, blocks.map(({ endExclusive, start }) => endExclusive - start))
}

const sumOf = (pieces: ReadonlyArray<Uint8Array>): number => pieces.reduce((sum, { byteLength }) => sum + byteLength, 0)

/** The bytes that a tensor is stored in. */
const dataOf = <Err, R>(
  deflate: Deflate,
  key: string,
  { entries, kept, source }: Measured<Err, R>
): ReadonlyArray<Data<Err | SafetensorsError, R>> => [
  Blocks.encodeIndex(entries),
  ...(kept ?? [encodeAgain(deflate, key, source, entries)]),
  Blocks.padding(entries)
]

const encodeAgain = <Err, R>(
  deflate: Deflate,
  key: string,
  source: Source<Err, R>,
  entries: ReadonlyArray<Blocks.Entry>
): Stream.Stream<Uint8Array, Err | SafetensorsError, R> =>
  Stream.zipWithIndex(blocksOf(source)).pipe(
    Stream.mapEffect(([elements, block]) =>
      Effect.flatMap(Blocks.encode(deflate, source.dtype, elements), ({ crc32, pieces, size }) =>
        size === entries[block]?.size && crc32 === entries[block].crc32
          ? Effect.succeed(Chunk.unsafeFromArray(pieces))
          : Effect.fail(invalid(key, "data", "the stream has other bytes when it is run again", source.name))), {
      concurrency
    }),
    Stream.flattenChunks
  )
