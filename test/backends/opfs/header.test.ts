/**
 * The headers of files in the origin private file system.
 */
import { describe, expect, it } from "@effect/vitest"
import { lengthOf, NewHeader, parse } from "../../../src/backends/opfs/header.js"

const metadata = Object.fromEntries([["__proto__", "kept"], ["author", "J\u00fcrgen \"J\" \u{1f600}"]])
const description = { etag: "an etag", attributes: { contentType: "text/plain", metadata } }
const header = new NewHeader(description)

describe("the header of a file", () => {
  it("has the etag, the attributes and the size of the object", () => {
    for (const size of [0, 5, 3 * 1024 ** 3]) {
      const bytes = header.bytes(size)
      expect(bytes.byteLength).toBe(header.length)
      expect(lengthOf(bytes)).toBe(header.length)
      const read = parse(bytes, header.length + size)
      expect(read).toEqual({ ...description, start: header.length, size })
      expect(Object.entries(read?.attributes?.metadata ?? {})).toEqual(Object.entries(metadata))
    }
    const plain = new NewHeader({ etag: "e", attributes: undefined })
    expect(parse(plain.bytes(1), plain.length + 1)?.attributes).toBeUndefined()
  })

  it("does not fit a file that is cut short, or of other bytes", () => {
    const bytes = header.bytes(100)
    const whole = header.length + 100
    expect(parse(bytes, whole - 1)).toBeUndefined()
    expect(parse(bytes, whole + 1)).toBeUndefined()
    expect(parse(bytes.subarray(0, header.length - 1), whole)).toBeUndefined()
    expect(parse(bytes.subarray(0, 15), whole)).toBeUndefined()
    expect(parse(new Uint8Array(0), 0)).toBeUndefined()
    // As it is before the last write.
    expect(parse(new Uint8Array(whole), whole)).toBeUndefined()
    for (const at of [0, 5, 8, 20]) {
      expect(parse(bytes.map((byte, index) => index === at ? byte ^ 0x60 : byte), whole), String(at)).toBeUndefined()
    }
  })

  it("reads no description of any length", () => {
    const bytes = header.bytes(100)
    new DataView(bytes.buffer).setUint32(4, 2 ** 31, true)
    expect(lengthOf(bytes)).toBeUndefined()
  })
})
