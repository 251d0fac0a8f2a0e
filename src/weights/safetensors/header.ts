/**
 * The header of a safetensors file (https://huggingface.co/docs/safetensors): 8 bytes that tell its length, little-endian,
 * and so many bytes of JSON, which name each tensor with its type, its shape and where its bytes are after the header.
 *
 * What is read is held against the published format and against what the reference implementation refuses: the tensors
 * fill the file to its last byte, without a hole and without two sharing a byte.
 */
import * as Either from "effect/Either"
import type { ResolvedRange } from "../../ByteRange.js"
import * as ObjectKey from "../../ObjectKey.js"
import * as Dtypes from "./dtypes.js"
import type { Dtype } from "./dtypes.js"
import { type Field, SafetensorsError, shown } from "./errors.js"
import { JsonProblem, quote, Reader } from "./jsonReader.js"

/**
 * What a file says of a tensor.
 *
 * @since 0.1.0
 * @category models
 */
export interface TensorInfo {
  readonly name: string
  readonly dtype: Dtype
  /** The length of each axis, the outermost first; none for a single number. */
  readonly shape: ReadonlyArray<number>
  /** The object that holds its bytes: the file, or one of the shards. */
  readonly key: string
  /** Where in that object, in bytes from its start. A tensor without elements has none. */
  readonly range: ResolvedRange
}

export interface Header {
  /** By name, in the order of their bytes. */
  readonly tensors: ReadonlyMap<string, TensorInfo>
  readonly metadata: Readonly<Record<string, string>>
}

/** The bytes in front of the JSON, which tell its length. */
export const prefixLength = 8

/** The longest JSON that the reference implementation reads. */
export const maxLength = 100_000_000

const metadataName = "__metadata__"

const letterN = 0x6e

const problem = (key: string, field: Field, reason: string, tensor?: string) =>
  new SafetensorsError({ key, field, reason, ...(tensor !== undefined && { tensor }) })

/** The length of the JSON, from what a file of `size` bytes begins with. */
export const lengthOf = (
  key: string,
  beginning: Uint8Array,
  size: number
): Either.Either<number, SafetensorsError> => {
  const wrong = (reason: string) => Either.left(problem(key, "header size", reason))
  if (size < prefixLength) return wrong(`the file has ${size} bytes, and ${prefixLength} tell the size of its header`)
  const length = new DataView(beginning.buffer, beginning.byteOffset, prefixLength).getBigUint64(0, true)
  if (length > maxLength) return wrong(`a header of ${length} bytes, and the longest has ${maxLength}`)
  if (prefixLength + Number(length) > size) return wrong(`a header of ${length} bytes in a file of ${size}`)
  return Either.right(Number(length))
}

/** What the JSON says of a file of `size` bytes, if it is right. */
export const parse = (key: string, json: Uint8Array, size: number): Either.Either<Header, SafetensorsError> =>
  readJson(key, "header", json, (reader) => {
    if (!reader.text.startsWith("{")) throw problem(key, "header", "not an object: it does not begin with {")
    return read(key, reader, prefixLength + json.byteLength, size)
  })

const utf8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true })

/** What `read` makes of JSON. What it throws, and what is wrong with the JSON, is a failure; of `field`, if of no other. */
export const readJson = <A>(
  key: string,
  field: Field,
  json: Uint8Array,
  read: (reader: Reader) => A
): Either.Either<A, SafetensorsError> => {
  let text: string
  try {
    text = utf8.decode(json)
  } catch {
    return Either.left(problem(key, field, "not valid UTF-8"))
  }
  return attempt(key, field, () => read(new Reader(text)))
}

/** What it throws of this kind is a failure. */
const attempt = <A>(key: string, field: Field, run: () => A): Either.Either<A, SafetensorsError> =>
  Either.try({
    try: run,
    catch: (thrown) => {
      const error = inField(key, thrown, field)
      if (error instanceof SafetensorsError) return error
      throw error
    }
  })

const read = (key: string, reader: Reader, dataStart: number, size: number): Header => {
  let tensors = new Map<string, TensorInfo>()
  let metadata: Readonly<Record<string, string>> | undefined
  let inOrder = true
  let end = dataStart
  for (let name = reader.firstKey(); name !== undefined; name = reader.nextKey()) {
    if (name === metadataName) {
      if (metadata !== undefined) throw problem(key, metadataName, "it stands in the header twice")
      metadata = readMetadata(key, reader)
      continue
    }
    if (tensors.has(name)) throw problem(key, "name", "it stands in the header twice", name)
    const tensor = readTensor(key, reader, name, dataStart)
    tensors.set(name, tensor)
    inOrder &&= tensor.range.start >= end
    end = tensor.range.endExclusive
  }
  reader.expectEnd()
  if (!inOrder) tensors = sorted(tensors)
  checkCover(key, tensors.values(), dataStart, size)
  return { tensors, metadata: metadata ?? {} }
}

const sorted = (tensors: ReadonlyMap<string, TensorInfo>): Map<string, TensorInfo> =>
  new Map(
    [...tensors].sort(([, { range: a }], [, { range: b }]) => a.start - b.start || a.endExclusive - b.endExclusive)
  )

/** What is wrong with the JSON of a field, told as of that field. */
const inField = (key: string, error: unknown, field: Field, tensor?: string): unknown =>
  error instanceof JsonProblem ? problem(key, field, error.message, tensor) : error

const readMetadata = (key: string, reader: Reader): Readonly<Record<string, string>> => {
  const entries = new Map<string, string>()
  try {
    // The reference implementation reads `null` as none.
    if (reader.peek() === letterN) {
      reader.skip()
      return {}
    }
    for (let name = reader.firstKey(); name !== undefined; name = reader.nextKey()) {
      if (entries.has(name)) reader.fail(`${shown(name)} stands there twice,`)
      if (reader.peek() !== quote) reader.fail(`the value of ${shown(name)} is not a string`)
      entries.set(name, reader.string())
    }
  } catch (error) {
    throw inField(key, error, metadataName)
  }
  return Object.fromEntries(entries)
}

const readTensor = (key: string, reader: Reader, name: string, dataStart: number): TensorInfo => {
  let dtype: Dtypes.DtypeInfo | undefined
  let shape: ReadonlyArray<number> | undefined
  let offsets: ReadonlyArray<number> | undefined
  let field: Field = "header"
  try {
    for (let member = reader.firstKey(); member !== undefined; member = reader.nextKey()) {
      if (member === "dtype") {
        field = member
        if (dtype !== undefined) reader.fail("it stands there twice,")
        dtype = readDtype(reader)
      } else if (member === "shape") {
        field = member
        if (shape !== undefined) reader.fail("it stands there twice,")
        shape = reader.naturals()
      } else if (member === "data_offsets") {
        field = member
        if (offsets !== undefined) reader.fail("it stands there twice,")
        offsets = reader.naturals()
      } else {
        reader.skip()
      }
      field = "header"
    }
  } catch (error) {
    throw inField(key, error, field, name)
  }
  if (dtype === undefined) throw problem(key, "dtype", "it is missing", name)
  if (shape === undefined) throw problem(key, "shape", "it is missing", name)
  if (offsets === undefined) throw problem(key, "data_offsets", "it is missing", name)
  const [start, endExclusive] = offsets
  if (start === undefined || endExclusive === undefined || offsets.length > 2) {
    throw problem(key, "data_offsets", `a start and an end, not ${offsets.length} numbers`, name)
  }
  if (endExclusive < start) throw problem(key, "data_offsets", `they go back from ${start} to ${endExclusive}`, name)
  const length = bytesOf(key, name, dtype, shape)
  if (endExclusive - start !== length) {
    throw problem(
      key,
      "data_offsets",
      `${dtype.dtype} of shape [${shape.join()}] takes ${length} bytes, and from ${start} to ${endExclusive} are ` +
        `${endExclusive - start}`,
      name
    )
  }
  const range = { start: dataStart + start, endExclusive: dataStart + endExclusive }
  return { name, dtype: dtype.dtype, shape, key, range }
}

const readDtype = (reader: Reader): Dtypes.DtypeInfo => {
  const name = reader.string()
  const dtype = Dtypes.find(name)
  if (dtype === undefined) reader.fail(`${shown(name)} is none of ${Dtypes.dtypes.join(", ")},`)
  return dtype
}

/** How many bytes a tensor takes. */
const bytesOf = (key: string, name: string, dtype: Dtypes.DtypeInfo, shape: ReadonlyArray<number>): number => {
  const bits = Dtypes.bitsOf(dtype, shape)
  const wrong = (reason: string) => problem(key, "shape", `[${shape.join()}] of ${dtype.dtype} ${reason}`, name)
  if (bits === undefined) throw wrong("has more bits than can be counted exactly")
  if (bits % 8 !== 0) throw wrong("ends within a byte")
  return bits / 8
}

/** The part of a tensor whose first index is from `start` up to, but not including, `endExclusive`. */
export const slice = (
  tensor: TensorInfo,
  start: number,
  endExclusive: number
): Either.Either<TensorInfo, SafetensorsError> => {
  const { key, name, range, shape: [length, ...inner] } = tensor
  const wrong = (reason: string) => Either.left(problem(key, "slice", reason, name))
  if (length === undefined) return wrong("it is a single number, which has no axis")
  if (!(Number.isInteger(start) && Number.isInteger(endExclusive) && start >= 0 && start <= endExclusive)) {
    return wrong(`from ${start} to ${endExclusive} is no range of whole numbers from 0 up`)
  }
  if (endExclusive > length) return wrong(`it goes to ${endExclusive}, and the first axis has ${length}`)
  const bits = length === 0 ? 0 : (range.endExclusive - range.start) * 8 / length
  const from = start * bits / 8
  const to = endExclusive * bits / 8
  if (!Number.isInteger(from) || !Number.isInteger(to)) return wrong("it begins or ends within a byte")
  return Either.right({
    ...tensor,
    shape: [endExclusive - start, ...inner],
    range: { start: range.start + from, endExclusive: range.start + to }
  })
}

/** The tensors, in the order of their bytes, have to take all there are and none twice. */
const checkCover = (key: string, tensors: Iterable<TensorInfo>, dataStart: number, size: number): void => {
  let end = dataStart
  for (const { name, range } of tensors) {
    if (range.start !== end) {
      const what = range.start > end ? "bytes before it belong to no tensor" : "it shares bytes with another tensor"
      throw problem(
        key,
        "data_offsets",
        `${what}: it starts at ${range.start - dataStart}, and the one before ends at ${end - dataStart}`,
        name
      )
    }
    if (range.endExclusive > size) {
      throw problem(
        key,
        "data_offsets",
        `it ends at ${range.endExclusive - dataStart}, and after the header are ${size - dataStart} bytes`,
        name
      )
    }
    end = range.endExclusive
  }
  if (end !== size) {
    throw problem(key, "data", `the tensors end at byte ${end} of the file, which has ${size}`)
  }
}

/** A tensor to be written. */
export interface Declared {
  readonly name: string
  readonly dtype: Dtype
  readonly shape: ReadonlyArray<number>
}

/** How a file is laid out: its first bytes, up to the data; its tensors, in the order of their bytes; its size. */
export interface Layout<T extends Declared> {
  readonly header: Uint8Array
  readonly tensors: ReadonlyArray<{ readonly tensor: T; readonly length: number }>
  readonly size: number
}

/**
 * The layout of a file with these tensors. As in the reference implementation those of larger elements come first, and
 * among these the names are in order: so each lies where an array of its elements may, as data begins at a multiple of 8.
 */
export const encode = <T extends Declared>(
  key: string,
  declared: Iterable<T>,
  metadata: Readonly<Record<string, string>> = {}
): Either.Either<Layout<T>, SafetensorsError> =>
  attempt(key, "header", () => {
    const tensors = place(key, declared)
    const entries = Object.keys(metadata).length === 0 ? [] : [writeMetadata(key, metadata)]
    let at = 0
    for (const { length, tensor: { dtype, name, shape } } of tensors) {
      const end = at + length
      entries.push(
        `${JSON.stringify(name)}:{"dtype":"${dtype}","shape":[${shape.join()}],"data_offsets":[${at},${end}]}`
      )
      at = end
    }
    const json = new TextEncoder().encode(`{${entries.join()}}`)
    const length = Math.ceil(json.byteLength / 8) * 8
    if (length > maxLength) {
      throw problem(key, "header size", `a header of ${length} bytes, and the longest has ${maxLength}`)
    }
    const size = prefixLength + length + at
    if (!Number.isSafeInteger(size)) {
      throw problem(key, "data", "the tensors have more bytes than can be counted exactly")
    }
    const header = new Uint8Array(prefixLength + length).fill(0x20)
    new DataView(header.buffer).setBigUint64(0, BigInt(length), true)
    header.set(json, prefixLength)
    return { header, tensors, size }
  })

/** The tensors in the order of their bytes. */
const place = <T extends Declared>(key: string, declared: Iterable<T>): Layout<T>["tensors"] => {
  const names = new Set<string>()
  const placed: Array<{ readonly tensor: T; readonly length: number; readonly rank: number }> = []
  for (const tensor of declared) {
    const { name, shape } = tensor
    const reason = names.has(name) ? "two tensors have this name" : unusable(name)
    if (reason !== undefined) throw problem(key, "name", reason, name)
    names.add(name)
    const dtype = Dtypes.find(tensor.dtype)
    if (dtype === undefined) throw problem(key, "dtype", `${shown(tensor.dtype)} is no type of elements`, name)
    if (!shape.every((length) => Number.isSafeInteger(length) && length >= 0)) {
      throw problem(key, "shape", `lengths are whole numbers from 0 up, not [${shape.join()}]`, name)
    }
    placed.push({ tensor, length: bytesOf(key, name, dtype, shape), rank: dtype.rank })
  }
  return placed.sort((a, b) => b.rank - a.rank || ObjectKey.compare(a.tensor.name, b.tensor.name))
}

const writeMetadata = (key: string, metadata: Readonly<Record<string, string>>): string => {
  for (const [name, value] of Object.entries(metadata)) {
    if (typeof value !== "string") throw problem(key, metadataName, `the value of ${shown(name)} is not a string`)
    if (loneSurrogate.test(name) || loneSurrogate.test(value)) {
      throw problem(key, metadataName, `${shown(name)} or its value holds half of a surrogate pair`)
    }
  }
  return `"${metadataName}":${JSON.stringify(metadata)}`
}

const loneSurrogate = /\p{Surrogate}/u

/** Why a tensor cannot have this name. */
const unusable = (name: string): string | undefined =>
  name === metadataName
    ? "it is that of the metadata"
    : loneSurrogate.test(name)
    ? "it holds half of a surrogate pair"
    : undefined
