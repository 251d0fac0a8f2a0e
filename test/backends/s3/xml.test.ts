/**
 * How the responses of S3 are read.
 */
import { describe, it } from "@effect/vitest"
import * as FastCheck from "effect/FastCheck"
import { expect } from "vitest"
import * as xml from "../../../src/backends/s3/xml.js"

const listing = `<?xml version="1.0" encoding="UTF-8"?>
<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">
  <Name>bucket</Name><Prefix/><KeyCount>2</KeyCount><MaxKeys>1000</MaxKeys><IsTruncated>false</IsTruncated>
  <Contents><Key>a &amp; b</Key><Size>1</Size><Owner><ID>1</ID><DisplayName></DisplayName></Owner></Contents>
  <Contents>
    <Key>c&#x1F600;</Key>
    <Size>2</Size>
  </Contents>
  <CommonPrefixes><Prefix>d/</Prefix></CommonPrefixes>
</ListBucketResult>`

describe("a response in XML", () => {
  it("yields the text of the first element with a name", () => {
    expect(xml.text(listing, "Name")).toBe("bucket")
    expect(xml.text(listing, "Key")).toBe("a & b")
    expect(xml.text(listing, "DisplayName")).toBe("")
    expect(xml.text(listing, "Missing")).toBeUndefined()
    expect(xml.text("", "Key")).toBeUndefined()
    expect(xml.text("no XML at all", "Key")).toBeUndefined()
  })

  it("yields the content of every element with a name", () => {
    expect(xml.elements(listing, "Contents").map((entry) => [xml.text(entry, "Key"), xml.text(entry, "Size")]))
      .toEqual([["a & b", "1"], ["c😀", "2"]])
    expect(xml.elements(listing, "CommonPrefixes").map((entry) => xml.text(entry, "Prefix"))).toEqual(["d/"])
    expect(xml.elements(listing, "Missing")).toEqual([])
  })

  it("yields the content of an element as it is written", () => {
    expect(xml.element("<a>x &lt; <b>y</b></a>", "a")).toBe("x &lt; <b>y</b>")
    expect(xml.element(listing, "Missing")).toBeUndefined()
  })

  it("distinguishes names with the same beginning", () => {
    expect(xml.text("<KeyCount>2</KeyCount><Key>a</Key>", "Key")).toBe("a")
    expect(xml.text("<KeyCount>2</KeyCount>", "Key")).toBeUndefined()
    expect(xml.elements("<Keys><Key>a</Key><KeyMarker>b</KeyMarker><Key>c</Key></Keys>", "Key")).toEqual(["a", "c"])
    expect(xml.text("<Key-x>b</Key-x><Key.y>c</Key.y><Key:z>d</Key:z><Key>a</Key>", "Key")).toBe("a")
    expect(xml.text("<ETagOf>1</ETagOf><ETag>2</ETag>", "ETag")).toBe("2")
    // Nor one that ends alike, nor one that is written otherwise.
    expect(xml.text("<VersionIdMarker>1</VersionIdMarker><ns:Key>2</ns:Key><key>3</key>", "Key")).toBeUndefined()
  })

  it("yields nothing for an element that closes itself", () => {
    expect(xml.text(listing, "Prefix")).toBe("")
    for (const written of ["<Key/>", "<Key />", "<Key\n/>", "<Key a=\"1\"/>", "<Key a=\"1\" />", "<Key></Key>"]) {
      expect(xml.text(`<Size>1</Size>${written}<Size>2</Size>`, "Key"), written).toBe("")
      expect(xml.elements(`${written}<Key>a</Key>${written}`, "Key"), written).toEqual(["", "a", ""])
    }
  })

  it("ignores attributes", () => {
    expect(xml.text("<Grantee xmlns:xsi=\"http://x/y\" xsi:type=\"User\">a</Grantee>", "Grantee")).toBe("a")
    expect(xml.text("<Grantee\n  a=\"1\"\n>a</Grantee>", "Grantee")).toBe("a")
    expect(xml.text("<Size a=\"/\">1</Size>", "Size")).toBe("1")
  })

  it("yields nothing for an element that is cut off", () => {
    for (let length = 0; length < "<Error><Code>SlowDown</Code>".length; length++) {
      const cut = "<Error><Code>SlowDown</Code></Error>".slice(0, length)
      expect(xml.text(cut, "Code"), cut).toBeUndefined()
    }
    expect(xml.elements("<Contents><Key>a</Key></Contents><Contents><Key>b</K", "Contents")).toEqual(["<Key>a</Key>"])
  })

  it("decodes entities once, and keeps other text", () => {
    expect(xml.text("<a>&lt;&gt;&amp;&quot;&apos;</a>", "a")).toBe("<>&\"'")
    expect(xml.text("<a>&#60;&#x3e;&#x3E;&#38;&#10;&#xd;</a>", "a")).toBe("<>>&\n\r")
    expect(xml.text("<a>&#128512;&#x1f600;&#x1F600;</a>", "a")).toBe("😀😀😀")
    expect(xml.text("<a>&amp;lt;&amp;#60;&#38;lt;</a>", "a")).toBe("&lt;&#60;&lt;")
    expect(xml.text("<a>&unknown; & &; &#; &#x; &#xg; &lt</a>", "a")).toBe("&unknown; & &; &#; &#x; &#xg; &lt")
    expect(xml.text("<a>&#34;etag&#34;</a>", "a")).toBe("\"etag\"")
  })

  it("keeps invalid characters and entities as they are", () => {
    expect(xml.text("<a>&#x110000;</a>", "a")).toBe("&#x110000;")
    expect(xml.text("<a>&#99999999999;</a>", "a")).toBe("&#99999999999;")
    expect(xml.text("<a>&constructor;</a>", "a")).toBe("&constructor;")
  })

  it("does not parse CDATA, which S3 does not write, nor mix it with what follows", () => {
    expect(xml.text("<a><![CDATA[x]]></a><b>y</b>", "b")).toBe("y")
  })

  it("is parsed in linear time", () => {
    const entry = "<Contents><Key>model/layer_0.bin</Key><KeyCount>1</KeyCount><Size>1</Size></Contents>"
    const large = `<ListBucketResult>${entry.repeat(50_000)}</ListBucketResult>`
    const start = performance.now()
    const all = xml.elements(large, "Contents").map((entry) => xml.text(entry, "Key"))
    expect(all.length).toBe(50_000)
    expect(performance.now() - start).toBeLessThan(5000)
  })
})

// Text of what matters: what has to be escaped, what looks escaped, what XML cannot hold, and all else.
const text = FastCheck.array(
  FastCheck.oneof(
    FastCheck.constantFrom(
      "&",
      "<",
      ">",
      "\"",
      "'",
      "\r",
      "\n",
      "\r\n",
      "\t",
      "&amp;",
      "&#38;",
      "&#x26;",
      "</a>",
      "<a/>",
      "]]>",
      "\u007f",
      "\u0085",
      "\u00a0",
      "\u2028",
      "\ufeff",
      "\ufffd",
      "\ufffe",
      "\uffff",
      "\u0000",
      "\u001b",
      "😀",
      "\u{1fffe}",
      "\u{10ffff}"
    ),
    FastCheck.string({ unit: "binary", maxLength: 4 }),
    FastCheck.string({ unit: "grapheme", maxLength: 4 })
  ),
  { maxLength: 8 }
).map((parts) => parts.join(""))

describe("text in XML", () => {
  it("round-trips through escaping", () => {
    let held = 0
    FastCheck.assert(
      FastCheck.property(text, (text) => {
        FastCheck.pre(xml.canHold(text))
        held++
        const escaped = xml.escape(text)
        expect(escaped).not.toMatch(/[<>"'\r\n]/)
        expect(xml.text(`<x><ab>no</ab><a>${escaped}</a><a>no</a></x>`, "a")).toBe(text)
        expect(xml.element(`<a>${escaped}</a>`, "a")).toBe(escaped)
      }),
      { numRuns: 2000 }
    )
    expect(held).toBeGreaterThan(500)
  })

  it("must consist of characters that XML allows", () => {
    const held = ["", "a", "\t\r\n", " ", "é", "\u007f", "\u0085", "\ud7ff", "\ue000", "\ufffd", "😀", "\u{10ffff}"]
    for (const text of held) {
      expect(xml.canHold(text), JSON.stringify(text)).toBe(true)
    }
    for (let code = 0; code < 0x20; code++) {
      const isHeld = code === 0x9 || code === 0xa || code === 0xd
      expect(xml.canHold(`a${String.fromCharCode(code)}b`), `U+${code.toString(16)}`).toBe(isHeld)
    }
    expect(xml.canHold("a\ufffe")).toBe(false)
    expect(xml.canHold("\uffffb")).toBe(false)
  })

  it("is escaped only where XML requires it", () => {
    expect(xml.escape("a/b c%+?#é😀")).toBe("a/b c%+?#é😀")
    const written = xml.escape("<a href=\"x\">'&amp;'</a>\r\n")
    expect(written.replaceAll(/&(?:#\d+|#x[0-9a-fA-F]+|[a-z]+);/g, "_")).toBe("_a href=_x____amp;__/a___")
  })
})
