/**
 * The elements of a tensor, out of its bytes: as a typed array where JavaScript has one, and as 32-bit floats whatever
 * they are. Bytes are little-endian in a file; where the machine is not, they are turned around on the way.
 */
import type { Dtype } from "./dtypes.js"

/**
 * The typed array of each type of elements that JavaScript has. A complex number is two elements, the real part first.
 *
 * @since 0.1.0
 * @category models
 */
export interface Arrays {
  readonly BOOL: Uint8Array
  readonly U8: Uint8Array
  readonly I8: Int8Array
  readonly I16: Int16Array
  readonly U16: Uint16Array
  readonly I32: Int32Array
  readonly U32: Uint32Array
  readonly F32: Float32Array
  readonly C64: Float32Array
  readonly F64: Float64Array
  readonly I64: BigInt64Array
  readonly U64: BigUint64Array
}

/**
 * Any of these arrays.
 *
 * @since 0.1.0
 * @category models
 */
export type TypedArray = Arrays[keyof Arrays]

/** The typed array of a type of elements. */
export type ValuesOf<D extends Dtype> = D extends keyof Arrays ? Arrays[D] : undefined

interface ArrayConstructor {
  readonly BYTES_PER_ELEMENT: number
  new(buffer: ArrayBufferLike, byteOffset: number, length: number): TypedArray
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

/** The bytes of elements of `size` bytes, turned around. */
export const turned = (bytes: Uint8Array, size: number): Uint8Array => {
  const copy = new Uint8Array(bytes)
  for (let at = 0; at < copy.byteLength; at += size) copy.subarray(at, at + size).reverse()
  return copy
}

const inOrder = (bytes: Uint8Array, size: number): Uint8Array => isLittleEndian ? bytes : turned(bytes, size)

/** The same bytes, in memory where an array of these elements may lie: a copy, where they do not. */
export const aligned = (dtype: Dtype, bytes: Uint8Array): Uint8Array => {
  const size = dtype === "F16" || dtype === "BF16" ? 2 : constructors[dtype]?.BYTES_PER_ELEMENT ?? 1
  return bytes.byteOffset % size === 0 ? bytes : new Uint8Array(bytes)
}

/** The elements, over the same memory, or `undefined` for a type that JavaScript has not. */
export const valuesOf = (dtype: Dtype, bytes: Uint8Array): TypedArray | undefined => {
  const constructor = constructors[dtype]
  if (constructor === undefined) return undefined
  const size = constructor.BYTES_PER_ELEMENT
  const native = inOrder(bytes, size)
  return new constructor(native.buffer, native.byteOffset, native.byteLength / size)
}

/**
 * The bytes of elements given in an array, or `undefined` where a tensor of this type is not made of such an array. The
 * bits of 16-bit floats may stand in a `Uint16Array`, and bytes are taken as they are.
 */
export const bytesOf = (dtype: Dtype, array: TypedArray): Uint8Array | undefined => {
  const bytes = new Uint8Array(array.buffer, array.byteOffset, array.byteLength)
  if (array instanceof Uint8Array) return bytes
  const constructor = dtype === "F16" || dtype === "BF16" ? Uint16Array : constructors[dtype]
  return constructor !== undefined && array instanceof constructor
    ? inOrder(bytes, constructor.BYTES_PER_ELEMENT)
    : undefined
}

/** The elements as 32-bit floats: over the same memory where they are that, else in a new array. */
export const toFloat32 = (dtype: Dtype, bytes: Uint8Array): Float32Array => {
  const values = valuesOf(dtype, bytes)
  if (values instanceof Float32Array) return values
  if (values instanceof BigInt64Array || values instanceof BigUint64Array) {
    return Float32Array.from(values, Number)
  }
  if (values !== undefined) return new Float32Array(values)
  switch (dtype) {
    case "BF16":
      return widen(words(bytes))
    case "F16":
      return translate(words(bytes), tableOf(dtype))
    case "F4":
      return translate(unpack(bytes, 4), tableOf(dtype))
    case "F6_E2M3":
    case "F6_E3M2":
      return translate(unpack(bytes, 6), tableOf(dtype))
    default:
      return translate(bytes, tableOf(dtype))
  }
}

const words = (bytes: Uint8Array): Uint16Array => {
  const native = inOrder(bytes, 2)
  return new Uint16Array(native.buffer, native.byteOffset, native.byteLength / 2)
}

/** A BF16 is the upper half of a 32-bit float. */
const widen = (halves: Uint16Array): Float32Array => {
  const bits = new Uint32Array(halves.length)
  for (let i = 0; i < halves.length; i++) bits[i] = (halves[i] ?? 0) << 16
  return new Float32Array(bits.buffer)
}

const translate = (codes: Uint8Array | Uint16Array, table: Float32Array): Float32Array => {
  const floats = new Float32Array(codes.length)
  for (let i = 0; i < codes.length; i++) floats[i] = table[codes[i] ?? 0] ?? NaN
  return floats
}

/** Elements of less than a byte, the first of them in the lowest bits. */
const unpack = (bytes: Uint8Array, width: number): Uint8Array => {
  const codes = new Uint8Array(bytes.byteLength * 8 / width)
  for (let i = 0; i < codes.length; i++) {
    const bit = i * width
    const at = Math.floor(bit / 8)
    const two = (bytes[at] ?? 0) | (bytes[at + 1] ?? 0) << 8
    codes[i] = two >> bit % 8 & (1 << width) - 1
  }
  return codes
}

/** How the bits of a small float are to be read. */
interface Format {
  readonly exponent: number
  readonly mantissa: number
  readonly bias: number
  /** Which of its codes are no numbers. */
  readonly special: "none" | "as in IEEE 754" | "all ones" | "negative zero"
}

/**
 * F16 is of IEEE 754; F8_E5M2 and F8_E4M3 of https://arxiv.org/abs/2209.05433, and with FNUZ (finite, with an unsigned
 * zero) of https://arxiv.org/abs/2206.02915; the others of the OCP specification of microscaling formats (MX) 1.0.
 */
const formats: { readonly [D in Dtype]?: Format } = {
  F16: { exponent: 5, mantissa: 10, bias: 15, special: "as in IEEE 754" },
  F8_E5M2: { exponent: 5, mantissa: 2, bias: 15, special: "as in IEEE 754" },
  F8_E4M3: { exponent: 4, mantissa: 3, bias: 7, special: "all ones" },
  F8_E5M2FNUZ: { exponent: 5, mantissa: 2, bias: 16, special: "negative zero" },
  F8_E4M3FNUZ: { exponent: 4, mantissa: 3, bias: 8, special: "negative zero" },
  F6_E2M3: { exponent: 2, mantissa: 3, bias: 1, special: "none" },
  F6_E3M2: { exponent: 3, mantissa: 2, bias: 3, special: "none" },
  F4: { exponent: 2, mantissa: 1, bias: 1, special: "none" }
}

const tables = new Map<Dtype, Float32Array>()

const tableOf = (dtype: Dtype): Float32Array => {
  let table = tables.get(dtype)
  if (table === undefined) {
    const format = formats[dtype]
    table = format === undefined
      ? Float32Array.from({ length: 256 }, (_, code) => code === 255 ? NaN : 2 ** (code - 127))
      : Float32Array.from({ length: 2 ** (1 + format.exponent + format.mantissa) }, (_, code) => decode(code, format))
    tables.set(dtype, table)
  }
  return table
}

const decode = (code: number, { bias, exponent, mantissa, special }: Format): number => {
  const power = code >> mantissa & (1 << exponent) - 1
  const fraction = code & (1 << mantissa) - 1
  const greatestPower = (1 << exponent) - 1
  const isNegative = code >> exponent + mantissa === 1
  const sign = isNegative ? -1 : 1
  if (special === "as in IEEE 754" && power === greatestPower) return fraction === 0 ? sign * Infinity : NaN
  if (special === "all ones" && power === greatestPower && fraction === (1 << mantissa) - 1) return NaN
  if (special === "negative zero" && isNegative && power === 0 && fraction === 0) return NaN
  return power === 0
    ? sign * fraction * 2 ** (1 - bias - mantissa)
    : sign * (1 + fraction / (1 << mantissa)) * 2 ** (power - bias)
}
