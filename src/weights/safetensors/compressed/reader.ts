/**
 * Reads elements of compressed tensors: the index, then the blocks with these elements and no others.
 */
import * as Effect from "effect/Effect"
import * as Stream from "effect/Stream"
import type { ResolvedRange } from "../../../ByteRange.js"
import { allocate, copyOf } from "../../../internal/bytes.js"
import type { CorruptObject, UnsupportedOperation } from "../../../StorageError.js"
import type { TensorInfo } from "../header.js"
import * as Blocks from "./blocks.js"
import * as ByteReader from "./byteReader.js"
import { concurrency, type Deflate } from "./deflate.js"
import { lengthOf } from "./description.js"

/** A compressed tensor, and how to read the bytes in which it is stored; ranges are within these. */
export interface StoredTensor<E> extends Blocks.Coded {
  readonly stored: number
  readonly read: ByteReader.Read<E>
}

/** A tensor that is compressed; `undefined` if it is not. */
export const storedTensor = <E>(
  tensor: TensorInfo,
  read: ByteReader.Read<E>
): StoredTensor<E> | undefined => {
  const { codec, dtype, name, range: { endExclusive, start } } = tensor
  if (codec === undefined) return undefined
  return {
    name,
    dtype,
    codec,
    length: lengthOf(tensor),
    stored: endExclusive - start,
    read: (range) => read({ start: start + range.start, endExclusive: start + range.endExclusive })
  }
}

/** Elements of a tensor in one new array. `range` is their bytes within those of all elements. */
export const load = <E>(
  deflate: Deflate,
  tensor: StoredTensor<E>,
  range: ResolvedRange
): Effect.Effect<Uint8Array<ArrayBuffer>, E | CorruptObject | UnsupportedOperation> =>
  Effect.flatMap(
    Effect.suspend(() => allocate(range.endExclusive - range.start)),
    (target) =>
      storedBlocks(tensor, range).pipe(
        Stream.mapEffect(({ block, bytes }) => {
          const { endExclusive, start } = Blocks.elementsOf(tensor, block.block)
          if (start >= range.start && endExclusive <= range.endExclusive) {
            const elements = target.subarray(start - range.start, endExclusive - range.start)
            return Blocks.decode(deflate, tensor, block, bytes, elements)
          }
          return Effect.map(
            decode(deflate, tensor, block, bytes, range),
            (elements) => target.set(elements, Math.max(0, start - range.start))
          )
        }, { concurrency, unordered: true }),
        Stream.runDrain,
        Effect.as(target)
      )
  )

/** The same, block by block: each is an effect that decodes it, so that blocks of several tensors can be decoded at once. */
export const decoders = <E>(
  deflate: Deflate,
  tensor: StoredTensor<E>,
  range: ResolvedRange
): Stream.Stream<Effect.Effect<Uint8Array<ArrayBuffer>, CorruptObject>, E | CorruptObject> =>
  Stream.map(storedBlocks(tensor, range), ({ block, bytes }) => decode(deflate, tensor, block, bytes, range))

/** The elements of tensors that are stored one after the other, with one call of `read`. */
export const stream = <E>(
  deflate: Deflate,
  tensors: ReadonlyArray<TensorInfo>,
  read: ByteReader.Read<E>
): Stream.Stream<Uint8Array<ArrayBuffer>, E | CorruptObject> =>
  Stream.unwrapScoped(
    Effect.map(
      ByteReader.inTurn(
        read,
        tensors.map(({ range }) => range)
      ),
      (read) =>
        Stream.flatMap(Stream.fromIterable(tensors), (tensor) => {
          const stored = storedTensor(tensor, read)
          return stored === undefined
            ? Stream.empty
            : decoders(deflate, stored, { start: 0, endExclusive: stored.length })
        }).pipe(Stream.mapEffect((decode) => decode, { concurrency }))
    )
  )

/** The elements of a block that are in the range. */
const decode = (
  deflate: Deflate,
  tensor: Blocks.Coded,
  block: Blocks.Block,
  stored: Uint8Array,
  range: ResolvedRange
): Effect.Effect<Uint8Array<ArrayBuffer>, CorruptObject> =>
  Effect.suspend(() => {
    const { endExclusive, start } = Blocks.elementsOf(tensor, block.block)
    const elements = new Uint8Array(endExclusive - start)
    const from = Math.max(0, range.start - start)
    const to = Math.min(endExclusive, range.endExclusive) - start
    const wanted = from === 0 && to === elements.byteLength
      ? () => elements
      : () => copyOf(elements, from, to)
    return Effect.map(Blocks.decode(deflate, tensor, block, stored, elements), wanted)
  })

/** A tensor that is stored in no more bytes is read at once. */
const directLength = 256 * 1024

/** The blocks with elements of the range, as they are stored. */
const storedBlocks = <E>(
  tensor: StoredTensor<E>,
  range: ResolvedRange
): Stream.Stream<{ readonly block: Blocks.Block; readonly bytes: Uint8Array }, E | CorruptObject> =>
  Stream.unwrapScoped(Effect.gen(function*() {
    const { length, read, stored } = tensor
    const indexLength = Blocks.indexLength(tensor)
    const isDirect = stored <= directLength || range.endExclusive - range.start === length
    const beginning = yield* read({ start: 0, endExclusive: isDirect ? stored : indexLength })
    const index = yield* Blocks.decodeIndex(tensor, yield* beginning.take(indexLength), stored)
    const blocks = index.filter(({ block }) => {
      const { endExclusive, start } = Blocks.elementsOf(tensor, block)
      return start < range.endExclusive && endExclusive > range.start
    })
    const [first] = blocks
    const last = blocks.at(-1)
    if (first === undefined || last === undefined) return Stream.empty
    if (isDirect) yield* beginning.take(first.start - indexLength)
    const source = isDirect
      ? beginning
      : yield* read({ start: first.start, endExclusive: last.start + last.size })
    return Stream.concat(
      Stream.mapEffect(
        Stream.fromIterable(blocks),
        (block) => Effect.map(source.take(block.size), (bytes) => ({ block, bytes }))
      ),
      Stream.drain(source.rest)
    )
  }))
