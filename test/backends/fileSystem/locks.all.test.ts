/**
 * Conditional saves and removals among worker threads and processes.
 */
import { describe } from "@effect/vitest"
import { Effect } from "effect"
import * as fs from "node:fs"
import { FileSystemStorage } from "surfing-weights"
import { expect } from "vitest"
import { temporaryDirectory, temporaryFiles } from "../../support/directory.js"
import { bytes, needs, text } from "../../support/fileSystem.js"
import { child, output } from "../../support/fileSystemProcesses.js"
import { canMountWith, image } from "../../support/mounts.js"

const everywhere = { what: "", has: true, mount: temporaryDirectory }
const coarse = {
  what: "mkfs.ext4 and root on Linux",
  has: canMountWith("mkfs.ext4"),
  mount: image("mkfs.ext4", "-I", "128")
}

const all = (...programs: ReadonlyArray<ReadonlyArray<string>>) =>
  Effect.scoped(
    Effect.forEach(programs, (program) => Effect.flatMap(child(...program), output), { concurrency: "unbounded" })
  )

for (const [where, { has, mount, what }] of Object.entries({ everywhere, "with times of whole seconds": coarse })) {
  describe(`ifMatch ${where}`, () => {
    needs(what, has).live(
      "holds among worker threads of a process, and among processes",
      () =>
        Effect.scoped(Effect.gen(function*() {
          const directory = yield* mount
          const storage = yield* FileSystemStorage.make({ directory })
          yield* storage.save("n", bytes("0"))
          const outputs = yield* all(["countInThreads", directory, "3", "30"], ["count", directory, "30"], [
            "count",
            directory,
            "30"
          ])
          expect(outputs.map((lines) => lines.trim())).toEqual(["counted\ncounted\ncounted", "counted", "counted"])
          expect(text(yield* storage.load("n"))).toBe(String(5 * 30))
          expect(temporaryFiles(directory)).toEqual([])
        }))
    )

    needs(what, has).live("lets one of several saves and removals succeed", () =>
      Effect.scoped(Effect.gen(function*() {
        const directory = yield* mount
        const storage = yield* FileSystemStorage.make({ directory, durability: "relaxed" })
        const keys = Array.from({ length: 60 }, (_, i) => `round_${i}`)
        const saved = yield* Effect.forEach(keys, (key) => storage.save(key, bytes("x")))
        fs.writeFileSync(
          `${directory}/etags`,
          JSON.stringify(Object.fromEntries(saved.map(({ etag, key }) => [key, etag])))
        )
        const outputs = yield* all(["contend", directory, "save"], ["contend", directory, "remove"], [
          "contend",
          directory,
          "remove"
        ])
        const won = outputs.flatMap((line) => JSON.parse(line) as ReadonlyArray<string>)
        expect([...won].sort()).toEqual([...keys].sort())
        for (const key of yield* storage.list("round_")) expect(text(yield* storage.load(key))).toBe("saved")
      })))
  })
}
