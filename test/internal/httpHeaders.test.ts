/**
 * Parsers and formatters of HTTP headers.
 */
import { describe, expect, it } from "@effect/vitest"
import { Duration } from "effect"
import { ByteRange } from "surfing-weights"
import * as H from "../../src/internal/httpHeaders.js"

describe("Range", () => {
  it.each([
    ["bytes=0-7", ByteRange.make(0, 8)],
    ["bytes=5-", ByteRange.from(5)],
    ["bytes=-4", ByteRange.last(4)],
    ["BYTES= 1-2 ", ByteRange.make(1, 3)],
    ["bytes=9-3", undefined],
    ["bytes=0-1,4-5", undefined],
    ["items=0-1", undefined],
    ["bytes=-", undefined],
    [undefined, undefined]
  ])("%s", (header, range) => {
    expect(H.parseRange(header)).toEqual(range)
  })

  it("clamps offsets to the largest safe integer", () => {
    expect(H.parseRange("bytes=0-99999999999999999999")).toEqual(ByteRange.make(0, Number.MAX_SAFE_INTEGER))
  })
})

describe("Content-Range", () => {
  it("is parsed as it is formatted, with or without a size", () => {
    const range = { start: 5, endExclusive: 9 }
    expect(H.parseContentRange(H.formatContentRange(range, 20))).toEqual({ range, size: 20 })
    expect(H.parseContentRange("bytes 5-8/*")).toEqual({ range, size: undefined })
    expect(H.parseContentRange("bytes */20")).toBeUndefined()
    expect(H.parseContentRange("5-8/20")).toBeUndefined()
  })
})

describe("Retry-After", () => {
  it("is a number of seconds or a date", () => {
    expect(H.parseRetryAfter("3")).toEqual(Duration.seconds(3))
    const wait = H.parseRetryAfter(new Date(Date.now() + 60_000).toUTCString())
    expect(Duration.toSeconds(wait ?? 0)).toBeGreaterThan(50)
    expect(H.parseRetryAfter("soon")).toBeUndefined()
  })
})

describe("attributes", () => {
  it("round-trip through headers, with any characters in their metadata", () => {
    const attributes = {
      contentType: "application/json",
      cacheControl: "no-store",
      metadata: {
        plain: "value",
        greek: "βάρη",
        spaces: " at both ends ",
        encoded: "=?UTF-8?B?eA==?=",
        nearly: "x?= =?y",
        empty: ""
      }
    }
    const headers = H.formatAttributes(attributes, "x-amz-meta-")
    expect(Object.values(headers).every((value) => /^[\x20-\x7e]*$/.test(value))).toBe(true)
    expect(headers["x-amz-meta-plain"]).toBe("value")
    expect(H.parseAttributes(headers, "x-amz-meta-")).toEqual(attributes)
  })

  it("are undefined where there are none", () => {
    expect(H.parseAttributes({ etag: "\"1\"" }, "x-amz-meta-")).toBeUndefined()
  })

  it("are decoded from both forms of encoded words, also of several in a row", () => {
    expect(H.decodeText("=?UTF-8?Q?caf=C3=A9_au_lait?=")).toBe("café au lait")
    expect(H.decodeText("=?utf-8?B?Y2Fmw6k=?= =?utf-8?B?IGF1?= lait")).toBe("café au lait")
    expect(H.decodeText("=?UTF-8?Q?a?= \t =?UTF-8?Q?b?= =?UTF-8?Q?c?= d")).toBe("abc d")
    expect(H.decodeText("=?UTF-8?Q?=C3?=")).toBe("=?UTF-8?Q?=C3?=")
    expect(H.decodeText("x?= =?y")).toBe("x?= =?y")
  })
})
