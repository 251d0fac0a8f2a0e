import { describe, it } from "@effect/vitest"
import { Effect } from "effect"
import * as fs from "node:fs"
import * as path from "node:path"
import { expect } from "vitest"
import type * as Versions from "../../../src/backends/fileSystem/versions.js"
import { inDirectory } from "../../support/fileSystem.js"

// A module of its own: that of the other tests in this process never goes back behind a clock that one of them put forward.
const own: string = "../../../src/backends/fileSystem/versions.js?own"
const { mayHaveRecord, nextTime } = await import(own) as typeof Versions

describe("the time of a saved file", () => {
  it.live(
    "is unique, and marks whether there is a record, after the round trip through the file system",
    inDirectory((directory) =>
      Effect.sync(() => {
        const file = path.join(directory, "file")
        fs.writeFileSync(file, "")
        const times = new Set<bigint>()
        for (let i = 0; i < 2000; i++) {
          const hasRecord = i % 3 === 0
          const time = nextTime(hasRecord)
          fs.utimesSync(file, time, time)
          const stats = fs.statSync(file, { bigint: true })
          expect(mayHaveRecord(stats), `at ${stats.mtimeNs} ns`).toBe(hasRecord)
          times.add(stats.mtimeNs)
        }
        expect(times.size).toBe(2000)
        expect(Math.abs(fs.statSync(file).mtimeMs - Date.now())).toBeLessThan(10_000)
      })
    )
  )

  const statsAt = (mtimeNs: bigint) => {
    const stats = fs.statSync(".", { bigint: true })
    return Object.assign(stats, { mtimeNs })
  }

  it("without fractions of a second may have lost the mark", () => {
    for (const mtimeNs of [1_790_000_000_000_000_000n, 1_790_000_002_000_000_000n]) {
      expect(mayHaveRecord(statsAt(mtimeNs))).toBe(true)
    }
  })

  it("rarely looks marked on files of other programs", () => {
    let count = 0
    for (let i = 0n; i < 10_000n; i++) {
      if (mayHaveRecord(statsAt(1_790_000_000_000_000_000n + i * 7_919_993n))) count++
    }
    expect(count).toBeLessThan(500)
  })
})
