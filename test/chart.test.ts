/**
 * The pictures of the documentation are what `npm run chart` makes of the measurements beside them.
 */
import { describe, expect, it } from "@effect/vitest"
import { readFileSync } from "node:fs"
import { join } from "node:path"
import { architecture, benchmarks, pictures, readMeasured } from "./bench/chart.js"

const committed = (name: string): string => readFileSync(join(pictures, name), "utf8")

describe("the pictures", () => {
  it("are up to date (npm run chart)", () => {
    expect(committed("architecture.svg")).toBe(architecture())
    expect(committed("benchmarks.svg")).toBe(benchmarks(readMeasured()))
  })

  it("are small, load nothing, and say in words what they show", () => {
    for (const svg of [architecture(), benchmarks(readMeasured())]) {
      expect(svg.length).toBeLessThan(10_000)
      expect(svg).not.toMatch(/(href|src)=|url\(|<script/)
      expect(svg).toMatch(
        /role="img" aria-labelledby="title description">\n<title id="title">.+<\/title>\n<desc id="description">.+<\/desc>/
      )
      expect(svg).toContain("prefers-color-scheme:dark")
    }
  })

  it("draw each ratio of each row, as long as it is, and text as text", () => {
    const floors = [{ what: "fast <other>", ratio: 2 }, { what: "slow", ratio: 0.5 }]
    const results = [{ row: "load", work: "Loads & checks", floors }, { row: "alone", work: "Alone", floors: [] }]
    const svg = benchmarks({ date: "2026-11-30T10:00:00Z", machine: "a machine", rounds: 3, results })
    const widths = [...svg.matchAll(/<rect x="\d+" y="\d+" width="(\d+)"/g)].map(([, width]) => Number(width))
    expect(widths.length).toBe(2)
    expect((widths[0] ?? 0) / (widths[1] ?? 1)).toBeCloseTo(4, 1)
    expect(svg).toContain("2.00×")
    expect(svg).toContain("fast &lt;other&gt;")
    expect(svg).toContain("Loads &amp; checks: 2.00 times as fast as fast &lt;other&gt;, 0.50 times as fast as slow.")
    expect(svg).not.toContain("Alone")
  })
})
