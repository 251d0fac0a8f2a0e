import { describe, it } from "@effect/vitest"
import * as FastCheck from "effect/FastCheck"
import { expect } from "vitest"
import {
  continuedText,
  decodeSegment,
  encodeKey as encodePath,
  type Flavor,
  isPiece,
  isReserved,
  pieceText
} from "../../../src/backends/fileSystem/keyEncoding.js"
import * as ObjectKey from "../../../src/ObjectKey.js"

const encodeKey = (key: string, flavor: Flavor) => encodePath(key, flavor).split("/")

/** Decodes the names of nested folders and a file, as a listing does. */
const decode = (names: ReadonlyArray<string>, flavor: Flavor): string => {
  const segments: Array<string> = []
  let before = ""
  for (const [i, name] of names.entries()) {
    const text = before === "" ? name : continuedText(name) ?? "not a piece"
    if (isPiece(name) && i < names.length - 1) before += pieceText(text)
    else {
      segments.push(decodeSegment(before + text, flavor))
      before = ""
    }
  }
  return segments.join("/")
}

// Segments of escapes, marks, dots and reserved names, some of them too long.
const segment = FastCheck.array(
  FastCheck.oneof(
    FastCheck.constantFrom(
      "%",
      "%25",
      "%2E",
      "%+",
      ".",
      " ",
      "con",
      "CON",
      "aux.",
      "lpt1",
      ".surfing-weights",
      ":",
      "?",
      "é",
      "😀"
    ),
    FastCheck.string({ unit: "grapheme", maxLength: 4 }),
    FastCheck.constantFrom("x".repeat(100), "é".repeat(60), "%".repeat(83))
  ),
  { minLength: 1, maxLength: 6 }
).map((parts) => parts.join("").replace(/\//g, "_"))

const key = FastCheck.array(segment, { minLength: 1, maxLength: 3 })
  .map((segments) => segments.join("/"))
  .filter((text) => ObjectKey.problem(text) === undefined)

describe("encoded keys", () => {
  for (const flavor of ["posix", "windows"] as const) {
    it(`decode to the same key (${flavor})`, () => {
      FastCheck.assert(
        FastCheck.property(key, (key) => {
          expect(decode(encodeKey(key, flavor), flavor)).toBe(key)
        }),
        { numRuns: 2000 }
      )
    })

    it(`have names of at most 255 bytes (${flavor})`, () => {
      FastCheck.assert(
        FastCheck.property(key, (key) => {
          for (const name of encodeKey(key, flavor)) {
            expect(ObjectKey.byteLength(name)).toBeLessThanOrEqual(255)
            expect(name).not.toBe(".surfing-weights")
          }
        }),
        { numRuns: 2000 }
      )
    })

    it(`include every name of other programs, which decodes to one key and back (${flavor})`, () => {
      FastCheck.assert(
        FastCheck.property(segment, (name) => {
          FastCheck.pre(ObjectKey.byteLength(name) <= 250 && !isReserved(name))
          // A name that this file system cannot have cannot be found on it.
          FastCheck.pre(flavor === "posix" || encodeKey(decodeSegment(name, flavor), flavor)[0] === name)
          expect(encodeKey(decodeSegment(name, flavor), flavor)).toEqual([name])
        }),
        { numRuns: 2000 }
      )
    })
  }

  it("are the keys themselves where the file system can hold them", () => {
    for (const key of ["100%", "a%20b", "%41", "%2541", "a:b", "con", "dot.", "space ", "a%+", "~/.x"]) {
      expect(encodeKey(key, "posix")).toEqual(key.split("/"))
    }
  })

  it("are escaped only where Windows cannot hold them", () => {
    expect(encodeKey("con/aux.txt/a:b/dot./space /100%/Model.bin", "windows")).toEqual(
      ["%63on", "%61ux.txt", "a%3Ab", "dot%2E", "space%20", "100%", "Model.bin"]
    )
    // What looks like an escape is escaped itself, so that it does not mean the key that it would stand for.
    expect(encodeKey("dot%2E", "windows")).toEqual(["dot%252E"])
  })

  it("never collide with the hidden folder", () => {
    expect(encodeKey(".surfing-weights/x", "posix")).toEqual(["%2Esurfing-weights", "x"])
    expect(encodeKey("%2Esurfing-weights/x", "posix")).toEqual(["%252Esurfing-weights", "x"])
  })

  it("never collide with what a file system may take for the hidden folder", () => {
    for (
      const name of [".Surfing-WEIGHTS", ".surfing-weights.", ".surfing-weights .", "SURFIN~1", ".\u017furfing-weights"]
    ) {
      for (const flavor of ["posix", "windows"] as const) {
        const [encoded = ""] = encodeKey(`${name}/x`, flavor)
        expect(encoded).toMatch(/^%(?:2E|[57]3)/)
        expect(decodeSegment(encoded, flavor)).toBe(name)
      }
    }
    for (const key of ["surfing-weights", ".surfing-weights2", "a.surfing-weights", "surfin~", "my surfin~1"]) {
      expect(encodeKey(key, "posix")).toEqual([key])
    }
  })

  it("never split a long segment into a name with a meaning", () => {
    const [first = "", second = ""] = encodeKey(`${"y".repeat(253)}.surfing-weights`, "posix")
    expect(first).toBe(`${"y".repeat(253)}%+`)
    expect(second).toBe("+.surfing-weights")
    expect(encodeKey(`${"y".repeat(253)}con`, "windows")[1]).toBe("+con")
  })

  it("split segments of more than 255 bytes into folders", () => {
    const [first = "", second = "", ...rest] = encodeKey("y".repeat(300), "posix")
    expect(rest).toEqual([])
    expect(first).toBe(`${"y".repeat(253)}%+`)
    expect(second).toBe(`+${"y".repeat(47)}`)
  })
})
