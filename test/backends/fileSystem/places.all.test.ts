/**
 * Folders that another program swaps for links out of the directory while a storage works on them.
 */
import { describe } from "@effect/vitest"
import { Effect, Stream } from "effect"
import { spawn } from "node:child_process"
import { once } from "node:events"
import * as fs from "node:fs"
import * as path from "node:path"
import { fileURLToPath } from "node:url"
import { FileSystemStorage } from "surfing-weights"
import { expect } from "vitest"
import { bytes, hasCommand, inDirectory, isLinux, needs, put } from "../../support/fileSystem.js"

const program = fileURLToPath(new URL("../../support/swap.pl", import.meta.url))

/** Swaps two paths for one another, thousands of times a second, for the scope. */
const swapping = (first: string, second: string) =>
  Effect.acquireRelease(
    Effect.promise(async () => {
      const process = spawn("perl", [program, first, second])
      await once(process.stdout, "data")
      return process
    }),
    (process) => Effect.sync(() => process.kill("SIGKILL"))
  )

/** A directory, and a folder outside with what must stay as it is. */
const attacked = <E>(test: (base: string, outside: string) => Effect.Effect<void, E>) =>
  inDirectory((directory) =>
    Effect.suspend(() => {
      const base = path.join(fs.realpathSync(directory), "weights")
      const outside = path.join(fs.realpathSync(directory), "outside")
      fs.mkdirSync(base)
      for (const folder of [outside, path.join(outside, "sub"), path.join(outside, "empty")]) fs.mkdirSync(folder)
      for (const file of ["victim", "sub/victim"]) put(path.join(outside, file), "precious")
      fs.chmodSync(outside, 0o700)
      return test(base, outside)
    })
  )

/** The permissions of a folder, and all below it, with what is in the files. */
const snapshot = (folder: string): ReadonlyArray<string> => [
  (fs.statSync(folder).mode & 0o777).toString(8),
  ...fs.readdirSync(folder, { recursive: true, encoding: "utf8" }).sort().map((name) => {
    const file = path.join(folder, name)
    return fs.statSync(file).isDirectory() ? `${name}/` : `${name}: ${fs.readFileSync(file, "utf8")}`
  })
]

/** How long to try. */
const duration = 4000

const live = needs("Linux with perl", isLinux && hasCommand("perl")).live

describe("a folder that is swapped for a link out of the directory", () => {
  live(
    "leads no operation out",
    attacked((base, outside) =>
      Effect.gen(function*() {
        fs.mkdirSync(path.join(base, "folder/sub"), { recursive: true })
        fs.symlinkSync(outside, path.join(base, "link"))
        const storage = yield* FileSystemStorage.make({ directory: base, durability: "relaxed" })
        const before = snapshot(outside)
        yield* swapping(path.join(base, "folder"), path.join(base, "link"))
        const succeeded: Record<string, number> = {}
        const outcomes = (name: string, effect: Effect.Effect<unknown, unknown>) =>
          Effect.map(Effect.isSuccess(effect), (success) => {
            if (success) succeeded[name] = (succeeded[name] ?? 0) + 1
          })
        const end = Date.now() + duration
        while (Date.now() < end) {
          yield* outcomes("save", storage.save("folder/new", bytes("written")))
          yield* outcomes("save", storage.save("folder/sub/new/er", bytes("written")))
          yield* outcomes("create", storage.save("folder/created", bytes("written"), { ifNoneMatch: "*" }))
          yield* outcomes("overwrite", storage.save("folder/sub/victim", bytes("written")))
          yield* outcomes("head", storage.head("folder/victim"))
          yield* outcomes("load", storage.load("folder/victim"))
          yield* outcomes("copy", storage.copy("folder/victim", "stolen"))
          yield* outcomes("move", storage.move("folder/victim", "stolen"))
          yield* storage.save("mine", bytes("mine"))
          yield* outcomes("moved in", storage.move("mine", "folder/moved"))
          for (const key of ["victim", "sub/victim", "new", "sub/new/er", "created", "moved"]) {
            yield* outcomes("remove", storage.remove(`folder/${key}`))
          }
          const listed = yield* Effect.orElseSucceed(storage.list(), () => [])
          const infos = yield* Effect.orElseSucceed(Stream.runCollect(storage.entries()), () => [])
          for (const key of [...listed, ...[...infos].map(({ key }) => key)]) {
            // Saved above as a key of the directory, but never in this loop's own folder.
            if (key === "folder/victim" || key === "link/victim" || key.endsWith("empty/")) {
              expect(key).toBe("not listed")
            }
          }
          expect(snapshot(outside)).toEqual(before)
        }
        expect(succeeded["head"] ?? 0).toBe(0)
        expect(succeeded["load"] ?? 0).toBe(0)
        expect(succeeded["copy"] ?? 0).toBe(0)
        expect(succeeded["move"] ?? 0).toBe(0)
        // It was the folder often enough, too.
        expect(succeeded["save"] ?? 0).toBeGreaterThan(0)
        expect(succeeded["remove"] ?? 0).toBeGreaterThan(0)
      }).pipe(Effect.scoped)
    )
  )

  live(
    "keeps its own folders, which are removed with their last object",
    attacked((base, outside) =>
      Effect.gen(function*() {
        fs.mkdirSync(path.join(base, "folder"))
        fs.symlinkSync(outside, path.join(base, "link"))
        const storage = yield* FileSystemStorage.make({ directory: base, durability: "relaxed" })
        yield* swapping(path.join(base, "folder"), path.join(base, "link"))
        const end = Date.now() + duration / 2
        while (Date.now() < end) {
          for (const place of ["folder", "link"]) {
            yield* Effect.ignore(storage.save(`${place}/empty/k`, bytes("k")))
            yield* Effect.ignore(storage.remove(`${place}/empty/k`))
          }
          expect(fs.existsSync(path.join(outside, "empty"))).toBe(true)
        }
      }).pipe(Effect.scoped)
    )
  )

  for (const hidden of [".surfing-weights", ".surfing-weights/attributes"]) {
    live(
      `leads nothing out where it is one of the storage's own: ${hidden}`,
      attacked((base, outside) =>
        Effect.gen(function*() {
          const storage = yield* FileSystemStorage.make({ directory: base, durability: "relaxed" })
          yield* storage.save("k", bytes("v"), { attributes: { contentType: "a/b" } })
          // As a killed process and overwritten objects have left them, two days ago, also in the folder of the record of this one.
          const [bucket = ""] = fs.readdirSync(path.join(base, ".surfing-weights/attributes"))
          // Many, since the link has to be there each time that one of them is looked at and removed.
          const abandoned = Array.from({ length: 20 }, (_, i) => [
            `elsewhere-boot-1-2-random-${i}`,
            `lock-${String(i).padStart(32, "0")}`,
            ...["aa", bucket, `attributes/${bucket}`].map((folder) => `${folder}/${"a".repeat(32)}-1-1-${i}`)
          ]).flat()
          for (const name of abandoned) {
            put(path.join(outside, name), "elsewhere-boot-1-2-random-0")
            fs.utimesSync(path.join(outside, name), 1e9, 1e9)
          }
          const before = snapshot(outside)
          fs.symlinkSync(outside, path.join(base, "link"))
          // As after another user's umask, so that each storage that is built opens it to those who may write in the directory.
          fs.chmodSync(base, 0o777)
          const own = fs.openSync(path.join(base, hidden), "r")
          yield* Effect.addFinalizer(() => Effect.sync(() => fs.closeSync(own)))
          yield* swapping(path.join(base, hidden), path.join(base, "link"))
          const end = Date.now() + duration / 2
          let saved = 0
          while (Date.now() < end) {
            fs.fchmodSync(own, 0o700)
            for (const attributes of [{}, { contentType: "a/b" }]) {
              if (yield* Effect.isSuccess(storage.save("k", bytes("v"), { attributes }))) saved++
            }
            yield* Effect.ignore(FileSystemStorage.make({ directory: base }))
            expect(snapshot(outside)).toEqual(before)
          }
          expect(saved).toBeGreaterThan(0)
        }).pipe(Effect.scoped)
      )
    )
  }
})
