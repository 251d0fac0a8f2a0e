/**
 * What a compressed file says of itself: the entry `surfing-weights/compression` of its `__metadata__`, JSON in a string:
 *
 * ```json
 * {
 *   "version": 1,
 *   "size": 438000000,
 *   "crc32": 305419896,
 *   "tensors": { "embeddings.weight": { "dtype": "BF16", "shape": [30522, 768], "codec": "exponent" } }
 * }
 * ```
 *
 * `size` is that of the original file, and `crc32` is of all its bytes before those of the tensors. The tensors that are named here
 * are `U8` tensors of the compressed file, whose bytes `blocks.ts` describes: all but those without elements. The tensors are in the
 * order of the original.
 *
 * Beside it, the entry `surfing-weights/guide` says where people can read of this. A file with one of the two entries and without
 * the other is damaged: it must not pass for a file that is not compressed.
 *
 * The original header is the one that `Layout` writes for these tensors, in this order, and the other metadata. If it is
 * another, it is here as `header`: its JSON as raw DEFLATE in Base64.
 */
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Encoding from "effect/Encoding"
import { concat } from "../../../internal/bytes.js"
import { quoted } from "../../internal/text.js"
import * as Dtypes from "../dtypes.js"
import { invalid, type SafetensorsError } from "../errors.js"
import * as Header from "../header.js"
import type { JsonReader } from "../jsonReader.js"
import * as Layout from "../layout.js"
import * as Blocks from "./blocks.js"
import type { Deflate } from "./deflate.js"

const [entryName, guideName] = Layout.compressionNames

const guide = "https://github.com/surfing-weights/surfing-weights-effect/blob/main/examples/compression.md"

/** The file before it was compressed. */
export interface Original {
  readonly size: number
  /** All its bytes before those of the tensors. */
  readonly header: Uint8Array
}

/** The header of a file as its readers see it, and the original file if this one is compressed. */
export interface Described extends Header.Header {
  readonly original?: Original
}

interface Description {
  readonly size: number
  readonly crc32: number
  readonly header: string | undefined
  readonly tensors: ReadonlyMap<string, DescribedTensor>
}

interface DescribedTensor {
  readonly dtype: Dtypes.DtypeInfo
  readonly shape: ReadonlyArray<number>
  readonly codec: Blocks.Codec
}

/**
 * The size of the original file, by the first bytes of a file that was compressed here: `beginningLength` are enough. `undefined`
 * if it was not.
 */
export const originalSize = (beginning: Uint8Array): number | undefined => {
  const [, size] =
    /^.{8}\{"__metadata__":\{"surfing-weights\/compression":"\{\\"version\\":\d+,\\"size\\":(\d{1,16}),/s.exec(
      latin1.decode(beginning.subarray(0, beginningLength))
    ) ?? []
  return size === undefined ? undefined : Number(size)
}

const beginningLength = 128

const latin1 = new TextDecoder("latin1")

/** The metadata without the entries of a compressed file. */
export const withoutEntries = (metadata: Readonly<Record<string, string>>): Readonly<Record<string, string>> => {
  const { [entryName]: _, [guideName]: __, ...others } = metadata
  return others
}

/** The entries of a compressed file, as the first of its metadata, so that its beginning shows that it is compressed. */
export const entries = (
  deflate: Deflate,
  { header, size }: Original,
  tensors: ReadonlyArray<Layout.Declared>,
  isDerived: boolean
): Effect.Effect<ReadonlyArray<readonly [name: string, value: string]>> =>
  Effect.gen(function*() {
    const json = header.subarray(Header.prefixLength)
    const fields = [`"version":1,"size":${size},"crc32":${deflate.crc32(header)}`]
    if (!isDerived) fields.push(`"header":"${Encoding.encodeBase64(yield* deflate.deflate(json, "repetitions"))}"`)
    const described = tensors.map(({ dtype, name, shape }) =>
      `${JSON.stringify(name)}:{"dtype":"${dtype}","shape":[${shape.join()}],"codec":"${Blocks.codecOf(dtype)}"}`
    )
    fields.push(`"tensors":{${described.join()}}`)
    return [[entryName, `{${fields.join()}}`], [guideName, guide]]
  })

/** The header of the original file, from that of a compressed one. */
export const resolve = (
  deflate: Deflate,
  key: string,
  header: Header.Header
): Effect.Effect<Described, SafetensorsError> =>
  Effect.gen(function*() {
    const { [entryName]: text, [guideName]: hint } = header.metadata
    if (text === undefined || hint !== guide) {
      return yield* invalid(key, Header.metadataName, `${entryName} and ${guideName} must be as they were written`)
    }
    const metadata = withoutEntries(header.metadata)
    const described = yield* parse(key, text)
    const tensors = yield* resolveTensors(key, header.tensors, described.tensors)
    const length = [...tensors.values()].reduce((sum, tensor) => sum + lengthOf(tensor), 0)
    const original = { size: described.size, header: yield* originalHeader(deflate, key, described, tensors, metadata) }
    const fail = (reason: string) => invalid(key, Header.metadataName, `${entryName}: ${reason}`)
    if (original.header.byteLength + length !== original.size) {
      return yield* fail(
        `the original file has ${original.size} bytes, but its tensors and header take ${length} and ` +
          `${original.header.byteLength}`
      )
    }
    if (deflate.crc32(original.header) !== described.crc32) {
      return yield* fail(`the original header does not have the CRC-32 ${described.crc32}; download the file again`)
    }
    if (described.header !== undefined) yield* checkHeader(key, original, tensors)
    return { tensors, metadata, original }
  })

/** The elements of a tensor, in bytes. */
export const lengthOf = ({ codec, dtype, range, shape }: Header.TensorInfo): number => {
  const info = codec === undefined ? undefined : Dtypes.find(dtype)
  return info === undefined ? range.endExclusive - range.start : (Dtypes.bitsOf(info, shape) ?? 0) / 8
}

const parse = (key: string, text: string): Either.Either<Description, SafetensorsError> =>
  Header.readText(key, Header.metadataName, text, (reader) => {
    let version: number | undefined
    let size: number | undefined
    let crc32: number | undefined
    let header: string | undefined
    let tensors: ReadonlyMap<string, DescribedTensor> | undefined
    for (let field = reader.firstKey(); field !== undefined; field = reader.nextKey()) {
      if (field === "version") version = reader.integer()
      else if (field === "size") size = reader.integer()
      else if (field === "crc32") crc32 = reader.integer()
      else if (field === "header") header = reader.string()
      else if (field === "tensors") tensors = readTensors(key, reader)
      else reader.skipValue()
    }
    reader.expectEnd()
    if (version !== 1) reader.fail(`version ${version} of ${entryName} is unknown; upgrade this library`)
    if (size === undefined || crc32 === undefined || tensors === undefined) {
      return reader.fail(`${entryName} must have size, crc32 and tensors`)
    }
    return { size, crc32, header, tensors }
  })

const readTensors = (key: string, reader: JsonReader): ReadonlyMap<string, DescribedTensor> => {
  const tensors = new Map<string, DescribedTensor>()
  for (let name = reader.firstKey(); name !== undefined; name = reader.nextKey()) {
    const fail = (reason: string) => invalid(key, Header.metadataName, `${entryName}: ${reason}`, name)
    if (tensors.has(name)) throw fail("duplicate tensor name")
    let dtype: string | undefined
    let shape: ReadonlyArray<number> | undefined
    let codec: string | undefined
    for (let field = reader.firstKey(); field !== undefined; field = reader.nextKey()) {
      if (field === "dtype") dtype = reader.string()
      else if (field === "shape") shape = reader.integers()
      else if (field === "codec") codec = reader.string()
      else reader.skipValue()
    }
    const found = dtype === undefined ? undefined : Dtypes.find(dtype)
    if (found === undefined) throw fail(`unknown dtype ${quoted(dtype ?? "")}`)
    if (shape === undefined) throw fail("the shape is missing")
    const known = Blocks.codecs.find((known) => known === codec)
    if (known === undefined) {
      throw fail(`unknown codec ${quoted(codec ?? "")} (known: ${Blocks.codecs.join(", ")}); upgrade this library`)
    }
    if (known === "exponent" && Blocks.codecOf(found.dtype) !== known) {
      throw fail(`${dtype} cannot be coded as ${known}`)
    }
    tensors.set(name, { dtype: found, shape, codec: known })
  }
  return tensors
}

/** The tensors of the original, in its order, with the places where they are stored. */
const resolveTensors = (
  key: string,
  stored: ReadonlyMap<string, Header.TensorInfo>,
  described: ReadonlyMap<string, DescribedTensor>
): Either.Either<ReadonlyMap<string, Header.TensorInfo>, SafetensorsError> =>
  Header.catchInvalid(key, Header.metadataName, () => {
    const fail = (name: string, reason: string) => invalid(key, Header.metadataName, `${entryName}: ${reason}`, name)
    for (const name of described.keys()) if (!stored.has(name)) throw fail(name, "there is no such tensor in the file")
    const tensors = new Map<string, Header.TensorInfo>()
    for (const [name, tensor] of stored) {
      const original = described.get(name)
      if (original === undefined) {
        tensors.set(name, tensor)
        continue
      }
      const { codec, dtype, shape } = original
      const length = Header.byteLength(key, name, dtype, shape)
      const least = Blocks.leastLength({ name, dtype: dtype.dtype, length, codec })
      const actual = tensor.range.endExclusive - tensor.range.start
      if (tensor.dtype !== "U8" || tensor.shape.length !== 1) throw fail(name, "it must be stored as U8 of one axis")
      if (actual < least) throw fail(name, `its shape [${shape.join()}] takes at least ${least} bytes (got ${actual})`)
      tensors.set(name, { ...tensor, dtype: dtype.dtype, shape, codec })
    }
    return tensors
  })

const originalHeader = (
  deflate: Deflate,
  key: string,
  { header, size }: Description,
  tensors: ReadonlyMap<string, Header.TensorInfo>,
  metadata: Readonly<Record<string, string>>
): Effect.Effect<Uint8Array, SafetensorsError> => {
  const declared = [...tensors.values()].map((tensor) => ({ tensor, length: lengthOf(tensor) }))
  if (header === undefined) {
    return Effect.map(Layout.inOrder(key, declared, Object.entries(metadata)), ({ header }) => header)
  }
  const fail = (reason: string) => invalid(key, Header.metadataName, `${entryName}: the header ${reason}`)
  const length = declared.reduce((rest, { length }) => rest - length, size - Header.prefixLength)
  if (length < 0 || length > Header.maxJsonLength) return Effect.fail(fail(`cannot have ${length} bytes`))
  return Either.mapLeft(Encoding.decodeBase64(header), () => fail("is not Base64")).pipe(
    Effect.flatMap((bytes) => Effect.mapError(deflate.inflate(bytes, length), ({ reason }) => fail(reason))),
    Effect.map((json) => concat([Header.encodeLength(json.byteLength), json]))
  )
}

/** A header of another layout must describe the same tensors. */
const checkHeader = (
  key: string,
  { header, size }: Original,
  tensors: ReadonlyMap<string, Header.TensorInfo>
): Either.Either<void, SafetensorsError> =>
  Either.flatMap(Header.parse(key, header.subarray(Header.prefixLength), size), (original) => {
    const expected = [...original.tensors.values()]
    const actual = [...tensors.values()]
    const isSame = ({ dtype, name, shape }: Header.TensorInfo, i: number) =>
      name === expected[i]?.name && dtype === expected[i].dtype && shape.join() === expected[i].shape.join()
    return expected.length === actual.length && actual.every(isSame)
      ? Either.void
      : Either.left(
        invalid(key, Header.metadataName, `${entryName}: the original header has other tensors`)
      )
  })
