/**
 * The types that elements of tensors have, as the reference implementation knows them (huggingface/safetensors 0.8).
 */

/** Each type and the bits of one element, in the order of the reference implementation: alignment grows. */
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
 * The type of the elements of a tensor, by its name in a file.
 *
 * @since 0.1.0
 * @category models
 */
export type Dtype = (typeof table)[number][0]

export interface DtypeInfo {
  readonly dtype: Dtype
  /** Of one element. */
  readonly bits: number
  /** Among the others: those of larger alignment rank higher, and come first in a file. */
  readonly rank: number
}

const infos: ReadonlyMap<string, DtypeInfo> = new Map(
  table.map(([dtype, bits], rank) => [dtype, { dtype, bits, rank }])
)

export const dtypes: ReadonlyArray<Dtype> = table.map(([dtype]) => dtype)

/** What is known of a type by its name, or `undefined` where there is none of that name. */
export const find = (name: string): DtypeInfo | undefined => infos.get(name)

/** How many bits a tensor has, or `undefined` where they are more than a number counts exactly. */
export const bitsOf = ({ bits }: DtypeInfo, shape: ReadonlyArray<number>): number | undefined => {
  let total = 1
  for (const length of shape) {
    total *= length
    if (total > Number.MAX_SAFE_INTEGER) return undefined
  }
  total *= bits
  return total > Number.MAX_SAFE_INTEGER ? undefined : total
}
