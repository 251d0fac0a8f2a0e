/**
 * The element types of tensors, as in the reference implementation (huggingface/safetensors 0.8).
 */

/** Each type with the bits of one element, in the order of the reference implementation: by growing alignment. */
const table = [
  ["BOOL", 8],
  ["F4", 4],
  ["F6_E2M3", 6],
  ["F6_E3M2", 6],
  ["U8", 8],
  ["I8", 8],
  ["F8_E5M2", 8],
  ["F8_E4M3", 8],
  ["F8_E8M0", 8],
  ["F8_E4M3FNUZ", 8],
  ["F8_E5M2FNUZ", 8],
  ["I16", 16],
  ["U16", 16],
  ["F16", 16],
  ["BF16", 16],
  ["I32", 32],
  ["U32", 32],
  ["F32", 32],
  ["C64", 64],
  ["F64", 64],
  ["I64", 64],
  ["U64", 64]
] as const

/**
 * The element type of a tensor, by its name in the file.
 *
 * @since 0.1.0
 * @category models
 */
export type Dtype = (typeof table)[number][0]

export interface DtypeInfo {
  readonly dtype: Dtype
  /** Bits of one element. */
  readonly bits: number
  /** Tensors of higher rank have larger alignment and come first in a file. */
  readonly rank: number
}

const infos: ReadonlyMap<string, DtypeInfo> = new Map(
  table.map(([dtype, bits], rank) => [dtype, { dtype, bits, rank }])
)

export const names: ReadonlyArray<Dtype> = table.map(([dtype]) => dtype)

/** The type of this name, or `undefined` if there is none. */
export const find = (name: string): DtypeInfo | undefined => infos.get(name)

/** How many bits a tensor has, or `undefined` if that is more than a number holds exactly. */
export const bitsOf = ({ bits }: DtypeInfo, shape: ReadonlyArray<number>): number | undefined => {
  let total = 1
  for (const length of shape) {
    total *= length
    if (total > Number.MAX_SAFE_INTEGER) return undefined
  }
  total *= bits
  return total > Number.MAX_SAFE_INTEGER ? undefined : total
}
