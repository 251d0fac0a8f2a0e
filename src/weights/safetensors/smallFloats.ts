/**
 * Floats of 16 bits and less, which JavaScript does not have, as 32-bit floats.
 */
import type { Dtype } from "./dtypes.js"

/** The elements of a tensor: 16-bit floats from their bits, smaller ones from the bytes that they are packed into. */
export const toFloat32 = (dtype: Dtype, packed: Uint8Array | Uint16Array): Float32Array<ArrayBuffer> => {
  switch (dtype) {
    case "BF16":
      return widen(packed)
    case "F4":
      return decodeAll(unpack(packed, 4), tableOf(dtype))
    case "F6_E2M3":
    case "F6_E3M2":
      return decodeAll(unpack(packed, 6), tableOf(dtype))
    default:
      return decodeAll(packed, tableOf(dtype))
  }
}

/** BF16 is the upper half of a 32-bit float. */
const widen = (halves: Uint8Array | Uint16Array): Float32Array<ArrayBuffer> => {
  const bits = new Uint32Array(halves.length)
  for (let i = 0; i < halves.length; i++) bits[i] = (halves[i] ?? 0) << 16
  return new Float32Array(bits.buffer)
}

const decodeAll = (codes: Uint8Array | Uint16Array, table: Float32Array): Float32Array<ArrayBuffer> => {
  const floats = new Float32Array(codes.length)
  for (let i = 0; i < codes.length; i++) floats[i] = table[codes[i] ?? 0] ?? NaN
  return floats
}

/** Elements of less than a byte. The first is in the lowest bits. */
const unpack = (bytes: Uint8Array | Uint16Array, width: number): Uint8Array => {
  const codes = new Uint8Array(bytes.byteLength * 8 / width)
  for (let i = 0; i < codes.length; i++) {
    const bit = i * width
    const at = Math.floor(bit / 8)
    const twoBytes = (bytes[at] ?? 0) | (bytes[at + 1] ?? 0) << 8
    codes[i] = twoBytes >> bit % 8 & (1 << width) - 1
  }
  return codes
}

interface Format {
  readonly exponent: number
  readonly mantissa: number
  readonly bias: number
  /** Which codes are infinities and NaN. */
  readonly special: "none" | "IEEE 754" | "all ones" | "negative zero"
}

/**
 * F16 is IEEE 754; F8_E5M2 and F8_E4M3 are from https://arxiv.org/abs/2209.05433, the FNUZ variants (finite, unsigned
 * zero) from https://arxiv.org/abs/2206.02915, the others from the OCP Microscaling Formats (MX) Specification 1.0.
 */
const formats: { readonly [D in Dtype]?: Format } = {
  F16: { exponent: 5, mantissa: 10, bias: 15, special: "IEEE 754" },
  F8_E5M2: { exponent: 5, mantissa: 2, bias: 15, special: "IEEE 754" },
  F8_E4M3: { exponent: 4, mantissa: 3, bias: 7, special: "all ones" },
  F8_E5M2FNUZ: { exponent: 5, mantissa: 2, bias: 16, special: "negative zero" },
  F8_E4M3FNUZ: { exponent: 4, mantissa: 3, bias: 8, special: "negative zero" },
  F6_E2M3: { exponent: 2, mantissa: 3, bias: 1, special: "none" },
  F6_E3M2: { exponent: 3, mantissa: 2, bias: 3, special: "none" },
  F4: { exponent: 2, mantissa: 1, bias: 1, special: "none" }
}

const tables = new Map<Dtype, Float32Array>()

/** The value of each code. A type without a format is F8_E8M0: an exponent alone. */
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
  const maxPower = (1 << exponent) - 1
  const isNegative = code >> exponent + mantissa === 1
  const sign = isNegative ? -1 : 1
  if (special === "IEEE 754" && power === maxPower) return fraction === 0 ? sign * Infinity : NaN
  if (special === "all ones" && power === maxPower && fraction === (1 << mantissa) - 1) return NaN
  if (special === "negative zero" && isNegative && power === 0 && fraction === 0) return NaN
  return power === 0
    ? sign * fraction * 2 ** (1 - bias - mantissa)
    : sign * (1 + fraction / (1 << mantissa)) * 2 ** (power - bias)
}
