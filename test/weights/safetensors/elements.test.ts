/**
 * The byte order of big-endian machines, on which the tests do not run.
 */
import { describe, expect, it } from "@effect/vitest"
import { swapBytes } from "../../../src/weights/safetensors/elements.js"

describe("swapBytes", () => {
  it("reverses the bytes of each element in a copy", () => {
    const bytes = new Uint8Array([1, 2, 3, 4, 5, 6, 7, 8])
    expect(swapBytes(bytes, 1)).toEqual(bytes)
    expect(swapBytes(bytes, 2)).toEqual(new Uint8Array([2, 1, 4, 3, 6, 5, 8, 7]))
    expect(swapBytes(bytes, 4)).toEqual(new Uint8Array([4, 3, 2, 1, 8, 7, 6, 5]))
    expect(swapBytes(bytes, 8)).toEqual(new Uint8Array([8, 7, 6, 5, 4, 3, 2, 1]))
    expect(bytes).toEqual(new Uint8Array([1, 2, 3, 4, 5, 6, 7, 8]))
    const view = new DataView(swapBytes(new Uint8Array(new Float32Array([1.5]).buffer), 4).buffer)
    expect(view.getFloat32(0, new Uint8Array(new Uint16Array([1]).buffer)[0] === 0)).toBe(1.5)
  })
})
