/**
 * Far more operations at once than the process may have open files.
 */
import { describe } from "@effect/vitest"
import { Effect } from "effect"
import * as fs from "node:fs"
import { expect } from "vitest"
import { temporaryFiles } from "../../support/directory.js"
import { inDirectory, isLinux, needs } from "../../support/fileSystem.js"
import { childBy, output } from "../../support/fileSystemProcesses.js"

const withLimit = (limit: number, ...args: ReadonlyArray<string>) =>
  Effect.flatMap(childBy(["sh", "-c", `ulimit -n ${limit}; exec "$0" "$@"`], {}, ...args), output)

describe("where a process may have 1,024 open files", () => {
  const live = needs("Linux with ulimit", isLinux).live

  live(
    "thousands of operations of each kind at once succeed",
    inDirectory((directory) =>
      Effect.gen(function*() {
        const counts = { save: 5000, load: 5000, head: 2000, copy: 2000, move: 2000, list: 300, attributes: 500 }
        const given = Object.entries(counts).map(([name, count]) => `${name}:${count}:1000`)
        const out = yield* withLimit(1024, "manyAtOnce", directory, ...given)
        expect(out.trim().split("\n").map((line) => line.trim()))
          .toEqual(Object.entries(counts).map(([name, count]) => `${name} ${count}`))
        expect(fs.readdirSync(`${directory}/moved`).length).toBe(2000)
        expect(temporaryFiles(directory)).toEqual([])
      }).pipe(Effect.scoped)
    )
  )

  live(
    "so do operations that hold open files while they need others",
    inDirectory((directory) =>
      Effect.gen(function*() {
        const names = ["save", "copy", "saveStream", "openAndSave", "saveWithin"]
        const out = yield* withLimit(256, "manyAtOnce", directory, ...names.map((name) => `${name}:500:100000`))
        expect(out.trim().split("\n").map((line) => line.trim())).toEqual(names.map((name) => `${name} 500`))
        expect(temporaryFiles(directory)).toEqual([])
      }).pipe(Effect.scoped)
    )
  )

  live(
    "operations that wait for other parts of the program to close theirs can be interrupted, and else succeed",
    inDirectory((directory) =>
      Effect.gen(function*() {
        const out = yield* withLimit(
          256,
          "waitForDescriptors",
          directory,
          "load:warm-up",
          "save:k",
          "list",
          "head:warm-up"
        )
        expect(out.trim().split("\n")).toEqual([
          "interrupted at once",
          "load:warm-up success",
          "save:k success",
          "list success",
          "head:warm-up success"
        ])
        expect(temporaryFiles(directory)).toEqual([])
      }).pipe(Effect.scoped)
    )
  )
})
