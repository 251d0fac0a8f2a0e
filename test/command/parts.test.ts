/**
 * The parts of the command-line tool that need no process: patterns, sizes, the line of progress.
 */
import { describe, expect, it } from "@effect/vitest"
import { Either } from "effect"
import { formatBytes } from "../../src/command/output.js"
import { selects } from "../../src/command/patterns.js"
import { line } from "../../src/command/progress.js"
import { parseDuration, parsePort, parseSize } from "../../src/command/values.js"

describe("a pattern", () => {
  it.each([
    ["*.bin", ["a.bin", "deep/er/a.bin"], ["a.bin.txt", "bin"]],
    ["bert/*", ["bert/a"], ["bert/deep/a", "gpt/bert/a"]],
    ["bert/**", ["bert/a", "bert/deep/a"], ["gpt/a"]],
    ["**/config.json", ["config.json", "a/b/config.json"], ["a/config.jsons"]],
    ["/a.bin", ["a.bin"], ["deep/a.bin"]],
    ["layer_?.bin", ["layer_0.bin", "x/layer_é.bin"], ["layer_10.bin"]],
    ["a+(b)[c].bin", ["a+(b)[c].bin"], ["aab.bin"]]
  ])("%s selects as in a shell", (pattern, selected, others) => {
    const isSelected = selects([pattern], [])
    expect([...selected, ...others].filter(isSelected)).toEqual(selected)
    expect([...selected, ...others].filter(selects([], [pattern]))).toEqual(others)
  })

  it("that excludes counts more than one that includes", () => {
    expect(["a.bin", "b.bin", "c"].filter(selects(["*.bin"], ["b*"]))).toEqual(["a.bin"])
  })
})

describe("values of options", () => {
  it("have units", () => {
    expect(parseSize("size", "64MiB")).toEqual(Either.right(64 * 1024 ** 2))
    expect(parseSize("size", "12")).toEqual(Either.right(12))
    expect(parsePort("port", "0")).toEqual(Either.right(0))
    expect(Either.isRight(parseDuration("expires", "10 minutes"))).toBe(true)
  })

  const refused: ReadonlyArray<readonly [parsed: Either.Either<unknown, Error>, message: string]> = [
    [parseSize("size", "64 mb"), "--size must be a size, for instance 64MiB (got \"64 mb\")"],
    [parsePort("port", "65536"), "--port must be 0 to 65535 (got \"65536\")"],
    [parseDuration("expires", "soon"), "--expires must be a duration, for instance 10 minutes (got \"soon\")"]
  ]

  it.each(refused)("are refused with what is allowed", (parsed, message) => {
    expect(Either.isLeft(parsed) && parsed.left.message).toBe(message)
  })
})

describe("the line of progress", () => {
  it("has bytes, rate, time left and files", () => {
    expect(line({ bytes: 1.2 * 1024 ** 3, files: 3, total: 4 * 1024 ** 3 }, 110 * 1024 ** 2)).toBe(
      "1.20 GiB of 4.00 GiB (30 %), 110 MiB/s, 27 s left, 3 files"
    )
    expect(line({ bytes: 10, files: 1, total: undefined }, 0)).toBe("10 B, 0 B/s, 1 file")
    expect(line({ bytes: 0, files: 0, total: 1024 ** 4 }, 1024 ** 2)).toContain("291 h 16 min left")
  })

  it("has sizes that people read", () => {
    expect([0, 1023, 1024, 10.5 * 1024 ** 2, 5 * 1024 ** 3].map(formatBytes)).toEqual([
      "0 B",
      "1023 B",
      "1.00 KiB",
      "10.5 MiB",
      "5.00 GiB"
    ])
  })
})
