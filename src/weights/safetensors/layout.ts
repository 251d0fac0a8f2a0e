/**
 * The layout of a file that is to be written: its header, and the order of its tensors.
 */
import type * as Either from "effect/Either"
import * as ObjectKey from "../../ObjectKey.js"
import { quoted } from "../internal/text.js"
import * as Dtypes from "./dtypes.js"
import { invalid, type SafetensorsError } from "./errors.js"
import { byteLength, catchInvalid, encodeLength, maxJsonLength, metadataName, prefixLength } from "./header.js"

/** A tensor to write. */
export interface Declared {
  readonly name: string
  readonly dtype: Dtypes.Dtype
  readonly shape: ReadonlyArray<number>
}

/** A file of `size` bytes: the header, then the tensors in this order, `length` bytes each. */
export interface Layout<T extends Declared> {
  readonly header: Uint8Array
  readonly tensors: ReadonlyArray<{ readonly tensor: T; readonly length: number }>
  readonly size: number
}

/**
 * The layout of a file with these tensors, as the reference implementation writes it: larger elements first, then by name, or
 * as they are given. The data starts at a multiple of 8, so each tensor is aligned for a typed array.
 */
export const make = <T extends Declared>(
  key: string,
  declared: Iterable<T>,
  metadata: Readonly<Record<string, string>> = {},
  then: "by name" | "as given" = "by name"
): Either.Either<Layout<T>, SafetensorsError> =>
  catchInvalid(key, "header", () => {
    const reserved = compressionNames.find((name) => Object.hasOwn(metadata, name))
    if (reserved !== undefined) throw invalid(key, metadataName, `${quoted(reserved)} is reserved`)
    return layOut(key, order(key, declared, then), Object.entries(metadata))
  })

/** The layout of a file with these tensors in this order, and with these metadata in this order. */
export const inOrder = <T extends Declared>(
  key: string,
  tensors: Layout<T>["tensors"],
  metadata: ReadonlyArray<readonly [name: string, value: string]>
): Either.Either<Layout<T>, SafetensorsError> => catchInvalid(key, "header", () => layOut(key, tensors, metadata))

const layOut = <T extends Declared>(
  key: string,
  tensors: Layout<T>["tensors"],
  metadata: ReadonlyArray<readonly [name: string, value: string]>
): Layout<T> => {
  const entries = metadata.length === 0 ? [] : [metadataEntry(key, metadata)]
  let offset = 0
  for (const { length, tensor: { dtype, name, shape } } of tensors) {
    const end = offset + length
    entries.push(
      `${JSON.stringify(name)}:{"dtype":"${dtype}","shape":[${shape.join()}],"data_offsets":[${offset},${end}]}`
    )
    offset = end
  }
  const header = encodeHeader(key, `{${entries.join()}}`)
  const size = header.byteLength + offset
  if (!Number.isSafeInteger(size)) throw invalid(key, "data", "the tensors have too many bytes (more than 2^53 - 1)")
  return { header, tensors, size }
}

/** The length of the JSON, and the JSON padded to a multiple of 8 bytes. */
const encodeHeader = (key: string, text: string): Uint8Array => {
  const json = new TextEncoder().encode(text)
  const length = Math.ceil(json.byteLength / 8) * 8
  if (length > maxJsonLength) {
    throw invalid(key, "header size", `a header of ${length} bytes is over the limit of ${maxJsonLength}`)
  }
  const header = new Uint8Array(prefixLength + length).fill(0x20)
  header.set(encodeLength(length))
  header.set(json, prefixLength)
  return header
}

/** Checks the tensors and puts them in the order of their bytes. */
const order = <T extends Declared>(
  key: string,
  declared: Iterable<T>,
  then: "by name" | "as given"
): Layout<T>["tensors"] => {
  const names = new Set<string>()
  const ranked: Array<{ readonly tensor: T; readonly length: number; readonly rank: number }> = []
  for (const tensor of declared) {
    const { name, shape } = tensor
    const reason = names.has(name) ? "duplicate tensor name" : nameProblem(name)
    if (reason !== undefined) throw invalid(key, "name", reason, name)
    names.add(name)
    const dtype = Dtypes.find(tensor.dtype)
    if (dtype === undefined) throw invalid(key, "dtype", `unknown dtype ${quoted(tensor.dtype)}`, name)
    if (!shape.every((length) => Number.isSafeInteger(length) && length >= 0)) {
      throw invalid(key, "shape", `lengths must be whole numbers of at least 0 (got [${shape.join()}])`, name)
    }
    ranked.push({ tensor, length: byteLength(key, name, dtype, shape), rank: dtype.rank })
  }
  const compare = (a: T, b: T) => then === "by name" ? ObjectKey.compare(a.name, b.name) : 0
  return ranked.sort((a, b) => b.rank - a.rank || compare(a.tensor, b.tensor))
}

const metadataEntry = (key: string, metadata: ReadonlyArray<readonly [name: string, value: string]>): string => {
  const entries = metadata.map(([name, value]) => {
    if (typeof value !== "string") throw invalid(key, metadataName, `the value of ${quoted(name)} must be a string`)
    if (loneSurrogate.test(name) || loneSurrogate.test(value)) {
      throw invalid(key, metadataName, `lone surrogate in ${quoted(name)} or its value`)
    }
    return `${JSON.stringify(name)}:${JSON.stringify(value)}`
  })
  return `"${metadataName}":{${entries.join()}}`
}

/** The names of the metadata of a compressed file: what `compressed/description.ts` describes, and where people read of it. */
export const compressionNames = ["surfing-weights/compression", "surfing-weights/guide"] as const

/** Whether a file with these metadata is compressed. */
export const isCompressed = (metadata: Readonly<Record<string, string>>): boolean =>
  compressionNames.some((name) => Object.hasOwn(metadata, name))

const loneSurrogate = /\p{Surrogate}/u

const nameProblem = (name: string): string | undefined =>
  name === metadataName
    ? "this name is reserved for the metadata"
    : loneSurrogate.test(name)
    ? "lone surrogate in the name"
    : undefined
