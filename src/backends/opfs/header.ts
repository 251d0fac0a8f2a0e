/**
 * The form of a file: a header, then the bytes of the object. So an object changes together with its etag and attributes.
 *
 * The header is a mark of four bytes, the length of its JSON (four bytes) and the size of the object (eight bytes, a float),
 * both little-endian, and the JSON. It is written last, so a file whose writing was cut short has none.
 */
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import { attributesSchema } from "../../internal/attributes.js"
import { concat } from "../../internal/bytes.js"

const Description = Schema.parseJson(Schema.Struct({
  etag: Schema.String,
  attributes: Schema.optional(attributesSchema)
}))

/** What a header says beside the size. */
export type Description = typeof Description.Type

/** A header that was read. */
export interface Header extends Description {
  /** Where the bytes of the object begin. */
  readonly start: number
  /** Of the object, in bytes. */
  readonly size: number
}

/** "SWO1" */
const mark = 0x314f5753

/** The bytes before the JSON. */
const fixedSize = 16

/** The longest JSON that is read, in bytes: attributes have 4 KiB at most, some of whose characters JSON escapes. */
const maxJson = 64 * 1024

const encoder = new TextEncoder()

/** A header whose size is not known yet. It has the length of the final one. */
export class NewHeader {
  readonly #json: Uint8Array

  constructor(description: Description) {
    this.#json = encoder.encode(Schema.encodeSync(Description)(description))
  }

  get length(): number {
    return fixedSize + this.#json.byteLength
  }

  /** The header of an object of this size, in bytes. */
  bytes(size: number): Uint8Array<ArrayBuffer> {
    const fixed = new DataView(new ArrayBuffer(fixedSize))
    fixed.setUint32(0, mark, true)
    fixed.setUint32(4, this.#json.byteLength, true)
    fixed.setFloat64(8, size, true)
    return concat([new Uint8Array(fixed.buffer), this.#json])
  }
}

/** The length of the header that a file begins with, or `undefined` where there is none. */
export const lengthOf = (beginning: Uint8Array): number | undefined => {
  if (beginning.byteLength < fixedSize) return undefined
  const fixed = viewOf(beginning)
  const length = fixed.getUint32(4, true)
  return fixed.getUint32(0, true) === mark && length <= maxJson ? fixedSize + length : undefined
}

/** The header of a file of `fileSize` bytes, whose beginning has all of it; `undefined` where they do not fit together. */
export const parse = (beginning: Uint8Array, fileSize: number): Header | undefined => {
  const start = lengthOf(beginning)
  if (start === undefined || start > beginning.byteLength) return undefined
  const size = viewOf(beginning).getFloat64(8, true)
  const json = new TextDecoder().decode(beginning.subarray(fixedSize, start))
  return Option.match(Schema.decodeOption(Description)(json), {
    onNone: () => undefined,
    onSome: (description) => start + size === fileSize ? { ...description, start, size } : undefined
  })
}

const viewOf = ({ buffer, byteLength, byteOffset }: Uint8Array): DataView =>
  new DataView(buffer, byteOffset, byteLength)
