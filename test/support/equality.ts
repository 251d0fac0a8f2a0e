/**
 * Arrays of numbers with the same bytes are equal. By itself vitest compares them property by property, which takes seconds for a
 * mebibyte.
 */
import { expect } from "vitest"

const bytesOf = ({ buffer, byteLength, byteOffset }: ArrayBufferView) => new Uint8Array(buffer, byteOffset, byteLength)

expect.addEqualityTesters([
  (a: unknown, b: unknown) =>
    ArrayBuffer.isView(a) && ArrayBuffer.isView(b) && a.constructor === b.constructor &&
      Buffer.compare(bytesOf(a), bytesOf(b)) === 0
      ? true
      : undefined
])
