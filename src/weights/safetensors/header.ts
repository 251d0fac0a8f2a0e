/**
 * The header of a safetensors file (https://huggingface.co/docs/safetensors): 8 bytes with its length, little-endian, and
 * that many bytes of JSON with the type, shape and byte offsets of each tensor.
 *
 * It is checked against the published format and against what the reference implementation rejects: the tensors fill the
 * file to its last byte, without gaps or overlaps.
 */
import * as Either from "effect/Either"
import type { ResolvedRange } from "../../ByteRange.js"
import { recognize, sentence } from "../internal/fileKind.js"
import { quoted } from "../internal/text.js"
import type { Codec } from "./compressed/blocks.js"
import * as Dtypes from "./dtypes.js"
import { type Field, invalid, SafetensorsError } from "./errors.js"
import { JsonError, JsonReader } from "./jsonReader.js"

/**
 * A tensor as the header of its file describes it.
 *
 * @since 0.1.0
 * @category models
 */
export interface TensorInfo {
  readonly name: string
  readonly dtype: Dtypes.Dtype
  /** The length of each axis, outermost first. Empty for a scalar. */
  readonly shape: ReadonlyArray<number>
  /** The key of the object with its bytes: the file, or one of its shards. */
  readonly key: string
  /** Its bytes in that object. Empty if the tensor has no elements. */
  readonly range: ResolvedRange
  /** How these bytes are compressed. Default: not at all. */
  readonly codec?: Codec | undefined
}

export interface Header {
  /** By name, in the order of their bytes. */
  readonly tensors: ReadonlyMap<string, TensorInfo>
  readonly metadata: Readonly<Record<string, string>>
}

/** The bytes before the JSON, which hold its length. */
export const prefixLength = 8

/** The longest JSON that the reference implementation reads. */
export const maxJsonLength = 100_000_000

export const metadataName = "__metadata__"

/** The length of the JSON, from the first bytes of a file of `size` bytes: all of them, or at least `sniffLength`. */
export const jsonLength = (
  key: string,
  beginning: Uint8Array,
  size: number
): Either.Either<number, SafetensorsError> => {
  const fail = (field: Field, reason: string, mayBeTruncated: boolean) => {
    const other = mayBeTruncated ? undefined : recognize(beginning)
    return Either.left(invalid(key, field, other === undefined ? reason : sentence(other, "a safetensors file")))
  }
  if (size < prefixLength) {
    const reason = `the file is too short for a header (${size} bytes, at least ${prefixLength}); ${again}`
    return fail("header size", reason, false)
  }
  const length = new DataView(beginning.buffer, beginning.byteOffset, prefixLength).getBigUint64(0, true)
  if (length > maxJsonLength) {
    return fail("header size", `a header of ${length} bytes is over the limit of ${maxJsonLength}`, false)
  }
  // The format allows no white space here, which JSON does.
  const startsWithBrace = beginning[prefixLength] === 0x7b
  if (prefixLength + Number(length) > size) {
    const reason = `a header of ${length} bytes does not fit in a file of ${size} bytes; if it is truncated, ${again}`
    return fail("header size", reason, startsWithBrace)
  }
  return startsWithBrace
    ? Either.right(Number(length))
    : fail("header", "it must be a JSON object that starts with {", false)
}

const again = "download it again"

/** The length of the JSON as the bytes before it. */
export const encodeLength = (length: number): Uint8Array => {
  const bytes = new Uint8Array(prefixLength)
  new DataView(bytes.buffer).setBigUint64(0, BigInt(length), true)
  return bytes
}

/** The header from the JSON of a file of `size` bytes. */
export const parse = (key: string, json: Uint8Array, size: number): Either.Either<Header, SafetensorsError> =>
  readJson(key, "header", json, (reader) => readHeader(key, reader, prefixLength + json.byteLength, size))

const utf8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true })

/** Runs a parser over JSON. A `SafetensorsError` that it throws is the failure; a `JsonError` is one of `field`. */
export const readJson = <A>(
  key: string,
  field: Field,
  json: Uint8Array,
  read: (reader: JsonReader) => A
): Either.Either<A, SafetensorsError> => {
  let text: string
  try {
    text = utf8.decode(json)
  } catch {
    return Either.left(invalid(key, field, "invalid UTF-8"))
  }
  return readText(key, field, text, read)
}

/** The same for text. */
export const readText = <A>(
  key: string,
  field: Field,
  text: string,
  read: (reader: JsonReader) => A
): Either.Either<A, SafetensorsError> => catchInvalid(key, field, () => read(new JsonReader(text)))

/** What `run` throws of these two kinds as a failure. */
export const catchInvalid = <A>(key: string, field: Field, run: () => A): Either.Either<A, SafetensorsError> =>
  Either.try({
    try: run,
    catch: (thrown) => {
      const error = inField(key, thrown, field)
      if (error instanceof SafetensorsError) return error
      throw error
    }
  })

/** A `JsonError` becomes an error of the field that was being read. */
const inField = (key: string, thrown: unknown, field: Field, tensor?: string): unknown =>
  thrown instanceof JsonError ? invalid(key, field, thrown.message, tensor) : thrown

const readHeader = (key: string, reader: JsonReader, dataStart: number, size: number): Header => {
  let tensors = new Map<string, TensorInfo>()
  let metadata: Readonly<Record<string, string>> | undefined
  let isSorted = true
  let end = dataStart
  for (let name = reader.firstKey(); name !== undefined; name = reader.nextKey()) {
    if (name === metadataName) {
      if (metadata !== undefined) throw invalid(key, metadataName, "duplicate key")
      metadata = readMetadata(key, reader)
      continue
    }
    if (tensors.has(name)) throw invalid(key, "name", "duplicate tensor name", name)
    const tensor = readTensor(key, reader, name, dataStart)
    tensors.set(name, tensor)
    isSorted &&= tensor.range.start >= end
    end = tensor.range.endExclusive
  }
  reader.expectEnd()
  if (!isSorted) tensors = sortByOffset(tensors)
  checkCoverage(key, tensors.values(), dataStart, size)
  return { tensors, metadata: metadata ?? {} }
}

const sortByOffset = (tensors: ReadonlyMap<string, TensorInfo>): Map<string, TensorInfo> =>
  new Map(
    [...tensors].sort(([, { range: a }], [, { range: b }]) => a.start - b.start || a.endExclusive - b.endExclusive)
  )

const readMetadata = (key: string, reader: JsonReader): Readonly<Record<string, string>> => {
  const entries = new Map<string, string>()
  try {
    // The reference implementation accepts `null`.
    if (reader.isAtNull()) {
      reader.skipValue()
      return {}
    }
    for (let name = reader.firstKey(); name !== undefined; name = reader.nextKey()) {
      if (entries.has(name)) reader.fail(`duplicate key ${quoted(name)}`)
      if (!reader.isAtString()) reader.fail(`the value of ${quoted(name)} must be a string`)
      entries.set(name, reader.string())
    }
  } catch (thrown) {
    throw inField(key, thrown, metadataName)
  }
  return Object.fromEntries(entries)
}

const readTensor = (key: string, reader: JsonReader, name: string, dataStart: number): TensorInfo => {
  const { dtype, offsets, shape } = readTensorFields(key, reader, name)
  if (dtype === undefined) throw invalid(key, "dtype", "missing", name)
  if (shape === undefined) throw invalid(key, "shape", "missing", name)
  if (offsets === undefined) throw invalid(key, "data_offsets", "missing", name)
  const fail = (reason: string): never => {
    throw invalid(key, "data_offsets", reason, name)
  }
  const [start, endExclusive] = offsets
  if (start === undefined || endExclusive === undefined || offsets.length > 2) {
    return fail(`must be two numbers, start and end (got ${offsets.length})`)
  }
  if (endExclusive < start) return fail(`the end ${endExclusive} is before the start ${start}`)
  const length = byteLength(key, name, dtype, shape)
  if (endExclusive - start !== length) {
    return fail(
      `${dtype.dtype} of shape [${shape.join()}] takes ${length} bytes, but from ${start} to ${endExclusive} are ` +
        `${endExclusive - start}`
    )
  }
  const range = { start: dataStart + start, endExclusive: dataStart + endExclusive }
  return { name, dtype: dtype.dtype, shape, key, range }
}

interface TensorFields {
  dtype?: Dtypes.DtypeInfo
  shape?: ReadonlyArray<number>
  offsets?: ReadonlyArray<number>
}

const readTensorFields = (key: string, reader: JsonReader, name: string): TensorFields => {
  const fields: TensorFields = {}
  let field: Field = "header"
  const expectFirst = (value: unknown): void => {
    if (value !== undefined) reader.fail("duplicate key")
  }
  try {
    for (let member = reader.firstKey(); member !== undefined; member = reader.nextKey()) {
      if (member === "dtype") {
        field = member
        expectFirst(fields.dtype)
        fields.dtype = readDtype(reader)
      } else if (member === "shape") {
        field = member
        expectFirst(fields.shape)
        fields.shape = reader.integers()
      } else if (member === "data_offsets") {
        field = member
        expectFirst(fields.offsets)
        fields.offsets = reader.integers()
      } else {
        reader.skipValue()
      }
      field = "header"
    }
  } catch (thrown) {
    throw inField(key, thrown, field, name)
  }
  return fields
}

const readDtype = (reader: JsonReader): Dtypes.DtypeInfo => {
  const name = reader.string()
  return Dtypes.find(name) ?? reader.fail(`unknown dtype ${quoted(name)} (known: ${Dtypes.names.join(", ")})`)
}

/** How many bytes a tensor takes. */
export const byteLength = (
  key: string,
  name: string,
  dtype: Dtypes.DtypeInfo,
  shape: ReadonlyArray<number>
): number => {
  const bits = Dtypes.bitsOf(dtype, shape)
  const fail = (reason: string) => invalid(key, "shape", `[${shape.join()}] of ${dtype.dtype} ${reason}`, name)
  if (bits === undefined) throw fail("has too many elements (more than 2^53 - 1 bits)")
  if (bits % 8 !== 0) throw fail("does not fill whole bytes")
  return bits / 8
}

/** The tensors, in the order of their bytes, must cover the data exactly. */
const checkCoverage = (key: string, tensors: Iterable<TensorInfo>, dataStart: number, size: number): void => {
  let end = dataStart
  for (const { name, range } of tensors) {
    const fail = (reason: string) => invalid(key, "data_offsets", reason, name)
    if (range.start !== end) {
      throw fail(
        `${range.start > end ? "gap before the tensor" : "overlap with another tensor"}: it starts at ` +
          `${range.start - dataStart}, but the previous tensor ends at ${end - dataStart}`
      )
    }
    if (range.endExclusive > size) {
      throw fail(
        `it ends at ${range.endExclusive - dataStart}, but the data has ${size - dataStart} bytes; if the file is ` +
          `truncated, ${again}`
      )
    }
    end = range.endExclusive
  }
  if (end !== size) throw invalid(key, "data", `the tensors end at byte ${end}, but the file has ${size} bytes`)
}

/** The elements of a tensor whose first index is from `start` to `endExclusive`, exclusive. */
export const slice = (
  tensor: TensorInfo,
  start: number,
  endExclusive: number
): Either.Either<TensorInfo, SafetensorsError> => {
  const { key, name, range, shape: [length, ...inner] } = tensor
  const fail = (reason: string) => Either.left(invalid(key, "slice", reason, name))
  if (length === undefined) return fail("a scalar has no axis to slice")
  if (!(Number.isInteger(start) && Number.isInteger(endExclusive) && start >= 0 && start <= endExclusive)) {
    return fail(`start and end must be whole numbers with 0 <= start <= end (got ${start} and ${endExclusive})`)
  }
  if (endExclusive > length) return fail(`the end ${endExclusive} is past the first axis, which has length ${length}`)
  const bits = length === 0 ? 0 : (range.endExclusive - range.start) * 8 / length
  const from = start * bits / 8
  const to = endExclusive * bits / 8
  if (!Number.isInteger(from) || !Number.isInteger(to)) return fail("it must start and end at whole bytes")
  return Either.right({
    ...tensor,
    shape: [endExclusive - start, ...inner],
    range: { start: range.start + from, endExclusive: range.start + to }
  })
}
