/**
 * Blocks of a compressed tensor: 256 Ki elements each but the last. A block is stored in one of these ways, by its length:
 *
 * - As long as its elements: it is the elements as they are.
 * - Shorter, with the codec `deflate`: the elements as raw DEFLATE.
 * - Shorter, with the codec `exponent`: the plane `top` of the elements as raw DEFLATE, then the plane `rest` as it is.
 *
 * The bytes of a tensor begin with an index of its blocks, two little-endian 32-bit numbers for each: how many bytes it is
 * stored in, and the CRC-32 of its elements. Zeros follow the last block, up to a multiple of 8 bytes.
 */
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import { CorruptObject } from "../../../StorageError.js"
import { quoted } from "../../internal/text.js"
import * as Dtypes from "../dtypes.js"
import type { Deflate } from "./deflate.js"
import * as Planes from "./planes.js"

/**
 * How the blocks of a compressed tensor are stored.
 *
 * @since 0.1.0
 * @category models
 */
export type Codec = "exponent" | "deflate"

export const codecs: ReadonlyArray<Codec> = ["exponent", "deflate"]

/** A tensor as its blocks see it. */
export interface Shaped {
  readonly name: string
  readonly dtype: Dtypes.Dtype
  /** Of all elements, in bytes. */
  readonly length: number
}

/** A tensor that is stored in blocks. */
export interface Coded extends Shaped {
  readonly codec: Codec
}

const elementsPerBlock = 256 * 1024

const bitsOf = (dtype: Dtypes.Dtype): number => Dtypes.find(dtype)?.bits ?? 8

/** The elements of a whole block, in bytes. */
const blockLength = (dtype: Dtypes.Dtype): number => elementsPerBlock * bitsOf(dtype) / 8

export const countOf = ({ dtype, length }: Shaped): number => Math.ceil(length / blockLength(dtype))

/** The elements of a block, as positions in those of the tensor. */
export const elementsOf = (
  tensor: Shaped,
  block: number
): { readonly start: number; readonly endExclusive: number } => {
  const start = block * blockLength(tensor.dtype)
  return { start, endExclusive: Math.min(start + blockLength(tensor.dtype), tensor.length) }
}

/** The codec for an element type: floats of at least two bytes have an exponent to part from the rest. */
export const codecOf = (dtype: Dtypes.Dtype): Codec =>
  dtype === "F16" || dtype === "BF16" || dtype === "F32" || dtype === "F64" ? "exponent" : "deflate"

/** An entry of the index. */
export interface Entry {
  /** In how many bytes the block is stored. */
  readonly size: number
  /** Of its elements. */
  readonly crc32: number
}

export interface Encoded extends Entry {
  /** The stored bytes, one after the other. */
  readonly pieces: ReadonlyArray<Uint8Array>
}

/** Encodes the elements of a block; those that do not get smaller are stored as they are. */
export const encode = (deflate: Deflate, dtype: Dtypes.Dtype, elements: Uint8Array): Effect.Effect<Encoded> =>
  Effect.suspend(() => {
    const crc32 = deflate.crc32(elements)
    const { byteLength } = elements
    const asIs: Encoded = { size: byteLength, crc32, pieces: [elements] }
    const smaller = (pieces: ReadonlyArray<Uint8Array>): Encoded => {
      const size = pieces.reduce((sum, piece) => sum + piece.byteLength, 0)
      return size < byteLength ? { size, crc32, pieces } : asIs
    }
    if (codecOf(dtype) === "exponent") {
      const { rest, top } = Planes.split(elements, bitsOf(dtype) / 8)
      return Effect.map(deflate.deflate(top, "frequencies"), (coded) => smaller([coded, rest]))
    }
    const strategy = dtype.startsWith("F8") ? "frequencies" : "repetitions"
    const whole = Effect.map(deflate.deflate(elements, strategy), (coded) => smaller([coded]))
    if (strategy === "frequencies" || byteLength <= 4 * sampleLength) return whole
    // Looking for repetitions in what has none takes ten times as long as all the rest.
    const sample = elements.subarray(0, sampleLength)
    return Effect.flatMap(
      deflate.deflate(sample, strategy),
      (coded) => coded.byteLength < 0.98 * sampleLength ? whole : Effect.succeed(asIs)
    )
  })

const sampleLength = 16 * 1024

/** Decodes a block into `target`, which has the length of its elements. */
export const decode = (
  deflate: Deflate,
  tensor: Coded,
  { block, crc32 }: Block,
  stored: Uint8Array,
  target: Uint8Array
): Effect.Effect<void, CorruptObject> =>
  Effect.flatMap(decodeElements(deflate, tensor, block, stored, target), () => {
    const actual = deflate.crc32(target)
    return actual === crc32
      ? Effect.void
      : Effect.fail(corrupt(tensor, block, "checksum", `has the CRC-32 ${actual}, but the index says ${crc32}`))
  })

const decodeElements = (
  deflate: Deflate,
  tensor: Coded,
  block: number,
  stored: Uint8Array,
  target: Uint8Array
): Effect.Effect<void, CorruptObject> => {
  if (stored.byteLength === target.byteLength) return Effect.sync(() => target.set(stored))
  const width = bitsOf(tensor.dtype) / 8
  const topLength = tensor.codec === "exponent" ? target.byteLength / width : target.byteLength
  const split = stored.byteLength - (target.byteLength - topLength)
  return deflate.inflate(stored.subarray(0, split), topLength).pipe(
    Effect.map((top) =>
      tensor.codec === "exponent"
        ? Planes.join({ top, rest: stored.subarray(split) }, width, target)
        : target.set(top)
    ),
    Effect.mapError(({ reason }) => corrupt(tensor, block, "frame", `cannot be decoded: ${reason}`))
  )
}

const corrupt = (
  { name }: Shaped,
  block: number,
  problem: "frame" | "checksum",
  reason: string
): CorruptObject => new CorruptObject({ problem, reason: `block ${block} of tensor ${quoted(name)} ${reason}` })

const entryLength = 8

/** How many bytes the index of a tensor has. */
export const indexLength = (tensor: Shaped): number => entryLength * countOf(tensor)

/** How many bytes a tensor is stored in, of which the last may be padding. */
export const storedLength = (entries: ReadonlyArray<Entry>): number =>
  padded(entries.reduce((sum, { size }) => sum + size, entryLength * entries.length))

const padded = (length: number): number => Math.ceil(length / 8) * 8

/** The index of a tensor as bytes. */
export const encodeIndex = (entries: ReadonlyArray<Entry>): Uint8Array => {
  const bytes = new Uint8Array(entryLength * entries.length)
  const view = new DataView(bytes.buffer)
  for (const [i, { crc32, size }] of entries.entries()) {
    view.setUint32(entryLength * i, size, true)
    view.setUint32(entryLength * i + 4, crc32, true)
  }
  return bytes
}

/** The padding after the blocks. */
export const padding = (entries: ReadonlyArray<Entry>): Uint8Array =>
  new Uint8Array(storedLength(entries) - entries.reduce((sum, { size }) => sum + size, entryLength * entries.length))

/** A block of a tensor, and where it is stored, from the start of the tensor's bytes. */
export interface Block extends Entry {
  readonly block: number
  readonly start: number
}

/** The blocks of a tensor that is stored in `stored` bytes, from its index. */
export const decodeIndex = (
  tensor: Coded,
  index: Uint8Array,
  stored: number
): Either.Either<ReadonlyArray<Block>, CorruptObject> => {
  const fail = (reason: string) =>
    Either.left(new CorruptObject({ problem: "frame", reason: `the index of tensor ${quoted(tensor.name)} ${reason}` }))
  const view = new DataView(index.buffer, index.byteOffset, index.byteLength)
  const blocks: Array<Block> = []
  let start = index.byteLength
  for (let block = 0; block < countOf(tensor); block++) {
    const size = view.getUint32(entryLength * block, true)
    const { least, most } = sizes(tensor, block)
    if (size < least || size > most) {
      return fail(`says that block ${block} is stored in ${size} bytes, but it takes from ${least} to ${most}`)
    }
    blocks.push({ block, start, size, crc32: view.getUint32(entryLength * block + 4, true) })
    start += size
  }
  return padded(start) === stored
    ? Either.right(blocks)
    : fail(`says that its blocks end at byte ${start} of ${stored}`)
}

/** In how many bytes a block can be stored. DEFLATE takes at least one byte for 1,032. */
const sizes = (tensor: Coded, block: number): { readonly least: number; readonly most: number } => {
  const { endExclusive, start } = elementsOf(tensor, block)
  const most = endExclusive - start
  const coded = tensor.codec === "exponent" ? most / (bitsOf(tensor.dtype) / 8) : most
  return { most, least: most - coded + Math.ceil(coded / 1032) }
}

/** In how few bytes a tensor can be stored. */
export const leastLength = (tensor: Coded): number => {
  const count = countOf(tensor)
  if (count === 0) return 0
  const whole = sizes(tensor, 0).least
  return padded(entryLength * count + whole * (count - 1) + sizes(tensor, count - 1).least)
}
