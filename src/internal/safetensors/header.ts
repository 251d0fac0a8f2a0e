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
import { type Field, SafetensorsError, shown } from "./error.js"
import { JsonProblem, Reader } from "./json.js"

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
  /** In the order of their bytes. */
  readonly tensors: ReadonlyArray<TensorInfo>
  readonly metadata: Readonly<Record<string, string>>
}

/** The bytes in front of the JSON, which tell its length. */
export const prefixLength = 8

/** The longest JSON that the reference implementation reads. */
export const maxLength = 100_000_000

const metadataName = "__metadata__"

const letterN = 0x6e
const quote = 0x22

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

/** What `read` makes of JSON. What it throws, and what is wrong with the JSON, is a failure; of `field`, if of no other. */
export const readJson = <A>(
  key: string,
  field: Field,
  json: Uint8Array,
  read: (reader: Reader) => A
): Either.Either<A, SafetensorsError> => {
  let text: string
  try {
    text = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(json)
  } catch {
    return Either.left(problem(key, field, "not valid UTF-8"))
  }
  return Either.try({
    try: () => read(new Reader(text)),
    catch: (error) => {
      if (error instanceof SafetensorsError) return error
      if (error instanceof JsonProblem) return problem(key, field, error.message)
      throw error
    }
  })
}

const read = (key: string, reader: Reader, dataStart: number, size: number): Header => {
  const names = new Set<string>()
  const tensors: Array<TensorInfo> = []
  let metadata: Readonly<Record<string, string>> = {}
  let inOrder = true
  let end = dataStart
  reader.object((name) => {
    if (names.has(name)) throw problem(key, "name", "it stands in the header twice", name)
    names.add(name)
    if (name === metadataName) {
      metadata = within(key, metadataName, undefined, () => readMetadata(key, reader))
      return
    }
    const tensor = readTensor(key, reader, name, dataStart)
    tensors.push(tensor)
    inOrder &&= tensor.range.start >= end
    end = tensor.range.endExclusive
  })
  reader.expectEnd()
  if (!inOrder) {
    tensors.sort((a, b) => a.range.start - b.range.start || a.range.endExclusive - b.range.endExclusive)
  }
  checkCover(key, tensors, dataStart, size)
  return { tensors, metadata }
}

/** Tells of what is wrong with the JSON of one field as of that field. */
const within = <A>(key: string, field: Field, tensor: string | undefined, run: () => A): A => {
  try {
    return run()
  } catch (error) {
    throw error instanceof JsonProblem ? problem(key, field, error.message, tensor) : error
  }
}

const readMetadata = (key: string, reader: Reader): Readonly<Record<string, string>> => {
  const entries = new Map<string, string>()
  // The reference implementation reads `null` as none.
  if (reader.peek() === letterN) {
    reader.skip()
    return {}
  }
  reader.object((name) => {
    if (entries.has(name)) throw problem(key, metadataName, `${shown(name)} stands there twice`)
    if (reader.peek() !== quote) throw problem(key, metadataName, `the value of ${shown(name)} is not a string`)
    entries.set(name, reader.string())
  })
  return Object.fromEntries(entries)
}

const readTensor = (key: string, reader: Reader, name: string, dataStart: number): TensorInfo => {
  let dtype: Dtypes.DtypeInfo | undefined
  let shape: ReadonlyArray<number> | undefined
  let offsets: ReadonlyArray<number> | undefined
  const once = (field: Field, seen: unknown) => {
    if (seen !== undefined) throw problem(key, field, "it stands there twice", name)
  }
  within(key, "header", name, () =>
    reader.object((field) => {
      switch (field) {
        case "dtype":
          once(field, dtype)
          dtype = within(key, field, name, () => readDtype(key, reader, name))
          break
        case "shape":
          once(field, shape)
          shape = within(key, field, name, () => reader.naturals())
          break
        case "data_offsets":
          once(field, offsets)
          offsets = within(key, field, name, () => reader.naturals())
          break
        default:
          reader.skip()
      }
    }))
  if (dtype === undefined) throw problem(key, "dtype", "it is missing", name)
  if (shape === undefined) throw problem(key, "shape", "it is missing", name)
  if (offsets === undefined) throw problem(key, "data_offsets", "it is missing", name)
  const [start, endExclusive, ...more] = offsets
  if (start === undefined || endExclusive === undefined || more.length > 0) {
    throw problem(key, "data_offsets", `a start and an end, not ${offsets.length} numbers`, name)
  }
  if (endExclusive < start) throw problem(key, "data_offsets", `they go back from ${start} to ${endExclusive}`, name)
  const length = Either.getOrThrowWith(bytesOf(key, name, dtype, shape), (error) => error)
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

const readDtype = (key: string, reader: Reader, name: string): Dtypes.DtypeInfo => {
  const found = reader.string()
  const dtype = Dtypes.find(found)
  if (dtype === undefined) {
    throw problem(key, "dtype", `${shown(found)} is none of ${Dtypes.dtypes.join(", ")}`, name)
  }
  return dtype
}

/** How many bytes a tensor takes. */
const bytesOf = (
  key: string,
  name: string,
  dtype: Dtypes.DtypeInfo,
  shape: ReadonlyArray<number>
): Either.Either<number, SafetensorsError> => {
  const bits = Dtypes.bitsOf(dtype, shape)
  const wrong = (reason: string) => Either.left(problem(key, "shape", reason, name))
  if (bits === undefined) return wrong(`[${shape.join()}] of ${dtype.dtype} has more bits than can be counted exactly`)
  if (bits % 8 !== 0) return wrong(`[${shape.join()}] of ${dtype.dtype} ends within a byte`)
  return Either.right(bits / 8)
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
const checkCover = (key: string, tensors: ReadonlyArray<TensorInfo>, dataStart: number, size: number): void => {
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
  Either.gen(function*() {
    const names = new Set<string>()
    const placed: Array<{ readonly tensor: T; readonly length: number; readonly rank: number }> = []
    for (const tensor of declared) {
      const { name, shape } = tensor
      const reason = names.has(name) ? "two tensors have this name" : unusable(name)
      if (reason !== undefined) return yield* Either.left(problem(key, "name", reason, name))
      names.add(name)
      const dtype = Dtypes.find(tensor.dtype)
      if (dtype === undefined) {
        return yield* Either.left(problem(key, "dtype", `${shown(tensor.dtype)} is no type of elements`, name))
      }
      if (!shape.every((length) => Number.isSafeInteger(length) && length >= 0)) {
        const told = `lengths are whole numbers from 0 up, not [${shape.join()}]`
        return yield* Either.left(problem(key, "shape", told, name))
      }
      placed.push({ tensor, length: yield* bytesOf(key, name, dtype, shape), rank: dtype.rank })
    }
    placed.sort((a, b) => b.rank - a.rank || ObjectKey.compare(a.tensor.name, b.tensor.name))

    const entries: Array<string> = []
    if (Object.keys(metadata).length > 0) {
      for (const [name, value] of Object.entries(metadata)) {
        if (typeof value !== "string" || loneSurrogate.test(name + "\n" + value)) {
          const told = `${shown(name)} and its value are not strings of whole characters`
          return yield* Either.left(problem(key, metadataName, told))
        }
      }
      entries.push(`"${metadataName}":${JSON.stringify(metadata)}`)
    }
    let at = 0
    for (const { length, tensor: { dtype, name, shape } } of placed) {
      const end = at + length
      entries.push(
        `${JSON.stringify(name)}:{"dtype":"${dtype}","shape":[${shape.join()}],"data_offsets":[${at},${end}]}`
      )
      at = end
    }

    const json = new TextEncoder().encode(`{${entries.join()}}`)
    const length = Math.ceil(json.byteLength / 8) * 8
    if (length > maxLength) {
      return yield* Either.left(
        problem(key, "header size", `a header of ${length} bytes, and the longest has ${maxLength}`)
      )
    }
    const size = prefixLength + length + at
    if (!Number.isSafeInteger(size)) {
      return yield* Either.left(problem(key, "data", "the tensors have more bytes than can be counted exactly"))
    }
    const header = new Uint8Array(prefixLength + length).fill(0x20)
    new DataView(header.buffer).setBigUint64(0, BigInt(length), true)
    header.set(json, prefixLength)
    return { header, tensors: placed, size }
  })

const loneSurrogate = /\p{Surrogate}/u

/** Why a tensor cannot have this name. */
const unusable = (name: string): string | undefined =>
  name === metadataName
    ? "it is that of the metadata"
    : loneSurrogate.test(name)
    ? "it holds half of a surrogate pair"
    : undefined
