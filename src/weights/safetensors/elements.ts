/**
 * The elements of a tensor from its bytes: as a typed array if JavaScript has one, and as 32-bit floats for every type.
 * Bytes are little-endian in a file, and are swapped on big-endian machines.
 */
import { unshared } from "../internal/arrays.js"
import type { Dtype } from "./dtypes.js"
import * as SmallFloats from "./smallFloats.js"

/**
 * The typed array for each element type that JavaScript has. A complex number is two elements, real part first.
 *
 * @since 0.1.0
 * @category models
 */
export interface Arrays<Buffer extends ArrayBufferLike = ArrayBufferLike> {
  readonly BOOL: Uint8Array<Buffer>
  readonly U8: Uint8Array<Buffer>
  readonly I8: Int8Array<Buffer>
  readonly I16: Int16Array<Buffer>
  readonly U16: Uint16Array<Buffer>
  readonly I32: Int32Array<Buffer>
  readonly U32: Uint32Array<Buffer>
  readonly F32: Float32Array<Buffer>
  readonly C64: Float32Array<Buffer>
  readonly F64: Float64Array<Buffer>
  readonly I64: BigInt64Array<Buffer>
  readonly U64: BigUint64Array<Buffer>
}

/**
 * Any of these arrays.
 *
 * @since 0.1.0
 * @category models
 */
export type TypedArray<Buffer extends ArrayBufferLike = ArrayBufferLike> = Arrays<Buffer>[keyof Arrays]

/** The typed array of an element type, `undefined` if JavaScript has none. */
export type ValuesOf<D extends Dtype> = D extends keyof Arrays ? Arrays<ArrayBuffer>[D] : undefined

interface ArrayConstructor {
  readonly BYTES_PER_ELEMENT: number
  new(buffer: ArrayBuffer, byteOffset: number, length: number): TypedArray<ArrayBuffer>
}

const constructors: { readonly [D in Dtype]?: ArrayConstructor } = {
  BOOL: Uint8Array,
  U8: Uint8Array,
  I8: Int8Array,
  I16: Int16Array,
  U16: Uint16Array,
  I32: Int32Array,
  U32: Uint32Array,
  F32: Float32Array,
  C64: Float32Array,
  F64: Float64Array,
  I64: BigInt64Array,
  U64: BigUint64Array
}

const isLittleEndian = new Uint8Array(new Uint16Array([1]).buffer)[0] === 1

/** A copy in which the bytes of each element are in reverse order. */
export const swapBytes = (bytes: Uint8Array, elementSize: number): Uint8Array<ArrayBuffer> => {
  const swapped = new Uint8Array(bytes)
  for (let at = 0; at < swapped.byteLength; at += elementSize) swapped.subarray(at, at + elementSize).reverse()
  return swapped
}

/** Elements between the byte order of a file and that of this machine, in either direction. */
const reorder = <Bytes extends Uint8Array>(bytes: Bytes, elementSize: number): Bytes | Uint8Array<ArrayBuffer> =>
  isLittleEndian ? bytes : swapBytes(bytes, elementSize)

/** The same bytes where a typed array over them is possible: a copy if they are unaligned or shared. */
export const align = (dtype: Dtype, bytes: Uint8Array): Uint8Array<ArrayBuffer> => {
  const size = dtype === "F16" || dtype === "BF16" ? 2 : constructors[dtype]?.BYTES_PER_ELEMENT ?? 1
  return bytes.byteOffset % size === 0 ? unshared(bytes) : new Uint8Array(bytes)
}

/** The elements over the same memory, or `undefined` if JavaScript does not have the type. */
export const valuesOf = (dtype: Dtype, bytes: Uint8Array<ArrayBuffer>): TypedArray<ArrayBuffer> | undefined => {
  const constructor = constructors[dtype]
  if (constructor === undefined) return undefined
  const size = constructor.BYTES_PER_ELEMENT
  const native = reorder(bytes, size)
  return new constructor(native.buffer, native.byteOffset, native.byteLength / size)
}

/**
 * The bytes of elements in an array, or `undefined` if it is not an array for this type. A `Uint8Array` is taken as the
 * bytes themselves, a `Uint16Array` as the bits of 16-bit floats.
 */
export const bytesOf = (dtype: Dtype, array: TypedArray): Uint8Array | undefined => {
  const bytes = new Uint8Array(array.buffer, array.byteOffset, array.byteLength)
  if (array instanceof Uint8Array) return bytes
  const constructor = dtype === "F16" || dtype === "BF16" ? Uint16Array : constructors[dtype]
  return constructor !== undefined && array instanceof constructor
    ? reorder(bytes, constructor.BYTES_PER_ELEMENT)
    : undefined
}

/** The elements as 32-bit floats: over the same memory if they are that already, else in a new array. */
export const toFloat32 = (dtype: Dtype, bytes: Uint8Array<ArrayBuffer>): Float32Array<ArrayBuffer> => {
  const values = valuesOf(dtype, bytes)
  if (values instanceof Float32Array) return values
  if (values instanceof BigInt64Array) return integersToFloat32(bytes, true)
  if (values instanceof BigUint64Array) return integersToFloat32(bytes, false)
  if (values !== undefined) return new Float32Array(values)
  const isHalf = dtype === "F16" || dtype === "BF16"
  return SmallFloats.toFloat32(dtype, isHalf ? toUint16(bytes) : bytes)
}

/**
 * 64-bit integers, each rounded once, to the nearest 32-bit float. A double holds 53 bits, so in larger numbers the lowest
 * 12 bits become one that says whether any is set: rounded to 24 bits, the result is the same.
 */
const integersToFloat32 = (bytes: Uint8Array, isSigned: boolean): Float32Array<ArrayBuffer> => {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  const floats = new Float32Array(bytes.byteLength / 8)
  for (let i = 0; i < floats.length; i++) {
    const low = view.getUint32(8 * i, true)
    const high = isSigned ? view.getInt32(8 * i + 4, true) : view.getUint32(8 * i + 4, true)
    const isExact = high >= -0x200000 && high < 0x200000
    const kept = isExact ? low : low - (low & 0xfff) + ((low & 0xfff) === 0 ? 0 : 0x800)
    floats[i] = high * 0x1_0000_0000 + kept
  }
  return floats
}

const toUint16 = (bytes: Uint8Array<ArrayBuffer>): Uint16Array => {
  const native = reorder(bytes, 2)
  return new Uint16Array(native.buffer, native.byteOffset, native.byteLength / 2)
}
