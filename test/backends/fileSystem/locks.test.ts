/**
 * Locks by key that others left or hold. What they are for is tested with threads and processes in locks.all.test.ts.
 */
import { describe, it } from "@effect/vitest"
import { Effect, Stream } from "effect"
import { spawnSync } from "node:child_process"
import { createHash } from "node:crypto"
import * as fs from "node:fs"
import * as path from "node:path"
import { FileSystemStorage, Storage } from "surfing-weights"
import { expect } from "vitest"
import { temporaryFiles } from "../../support/directory.js"
import { bytes, inDirectory, onDirectory, put, text } from "../../support/fileSystem.js"
import { replacing } from "../../support/fsCalls.js"
import { timed } from "../../support/timing.js"

const lockFile = (directory: string, key: string) =>
  path.join(directory, ".surfing-weights", `lock-${createHash("sha256").update(key).digest("hex").slice(0, 32)}`)

/** Who holds the locks of this process, or of another one here. */
const holder = (directory: string, pid?: number) =>
  Effect.gen(function*() {
    let names: ReadonlyArray<string> = []
    yield* Storage.save(
      "holder",
      Stream.fromEffect(Effect.sync(() => {
        names = temporaryFiles(directory)
        return bytes("x")
      }))
    )
    const [host, boot, self, ...rest] = names[0]?.split("-") ?? []
    return [host, boot, pid ?? self, ...rest].join("-")
  })

const gone = () => spawnSync(process.execPath, ["--version"]).pid

const changes = {
  save: Storage.save("k", bytes("new")),
  "save if it matches": Effect.flatMap(
    Storage.head("k"),
    ({ etag }) => Storage.save("k", bytes("new"), { ifMatch: etag })
  ),
  remove: Storage.remove("k"),
  "move from it": Storage.move("k", "to"),
  "move to it": Storage.move("other", "k")
}

describe("the lock of a key", () => {
  it.live(
    "that a killed process held, is removed by the next change of the key, and when a storage is built",
    onDirectory((directory) =>
      Effect.gen(function*() {
        const holds = yield* holder(directory, gone())
        for (const [name, change] of Object.entries(changes)) {
          yield* Storage.save("k", bytes("old"))
          yield* Storage.save("other", bytes("other"))
          fs.symlinkSync(holds, lockFile(directory, "k"))
          const [, duration] = yield* timed<unknown, unknown, Storage.Storage>(change)
          expect(duration, name).toBeLessThan(10_000)
          expect(temporaryFiles(directory), name).toEqual([])
        }
        fs.symlinkSync(holds, lockFile(directory, "never again"))
        yield* FileSystemStorage.make({ directory })
        expect(temporaryFiles(directory)).toEqual([])
      })
    )
  )

  it.live(
    "that another holds, makes each change wait, which can be interrupted and then has changed nothing",
    onDirectory((directory) =>
      Effect.gen(function*() {
        for (const holds of [yield* holder(directory), "elsewhere-boot-1-2-worker-0"]) {
          yield* Storage.save("k", bytes("old"))
          yield* Storage.save("other", bytes("other"))
          fs.symlinkSync(holds, lockFile(directory, "k"))
          yield* FileSystemStorage.make({ directory })
          for (const [name, change] of Object.entries(changes)) {
            const outcome = yield* Effect.timeoutOption<unknown, unknown, Storage.Storage>(change, 100)
            expect(outcome._tag, name).toBe("None")
            expect(yield* Storage.list(), name).toEqual(["holder", "k", "other"])
            expect(text(yield* Storage.load("k"))).toBe("old")
            expect(temporaryFiles(directory).length, name).toBe(1)
          }
          // It is free for other keys, and soon again for this one.
          yield* Storage.save("other", bytes("x"))
          const removal = Effect.sync(() => fs.rmSync(lockFile(directory, "k"))).pipe(Effect.delay(50))
          yield* Effect.zipRight(removal, Storage.save("k", bytes("new")), { concurrent: true })
          expect(text(yield* Storage.load("k"))).toBe("new")
        }
      })
    )
  )

  it.live(
    "is not needed to remove or move where nothing was ever saved, nor on a full disk",
    inDirectory((directory) =>
      Effect.gen(function*() {
        const storage = yield* FileSystemStorage.make({ directory })
        put(path.join(directory, "k"), "x")
        yield* storage.move("k", "moved")
        yield* storage.remove("moved")
        expect(fs.readdirSync(directory)).toEqual([])
        yield* storage.save("k", bytes("x"))
        const full = (_: string, __: string, done: (error: Error) => void) =>
          done(Object.assign(new Error("ENOSPC: injected"), { code: "ENOSPC" }))
        const onFullDisk = replacing({ symlink: full, link: full })
        const error = yield* Effect.flip(onFullDisk(storage.save("k", bytes("new"))))
        expect(error._tag).toBe("StorageFull")
        expect(text(yield* storage.load("k"))).toBe("x")
        yield* onFullDisk(storage.remove("k"))
        expect(yield* storage.list()).toEqual([])
      })
    )
  )

  it.live(
    "is a second name of one file for many saves, which is replaced now and then",
    onDirectory((directory) =>
      Effect.gen(function*() {
        const { symlink } = fs
        let created = 0
        const counting = replacing({
          symlink: (target: string, file: string, done: fs.NoParamCallback) => {
            created++
            symlink(target, file, done)
          }
        })
        const badges = () =>
          fs.readdirSync(path.join(directory, ".surfing-weights")).filter((name) => name.startsWith("badge-"))
        const save = counting(Effect.forEach(["a", "b", "a"], (key) => Storage.save(key, bytes(key))))
        yield* save
        yield* save
        expect(created).toBe(1)
        const before = badges()
        expect(before.length).toBe(1)
        // Others take a lock whose text stays the same for 30 s for one that was left behind.
        const { now } = Date
        Date.now = () => now() + 15_000
        yield* Effect.ensuring(save, Effect.sync(() => Object.assign(Date, { now })))
        expect(created).toBe(2)
        expect(badges().length).toBe(1)
        expect(badges()).not.toEqual(before)
        expect(temporaryFiles(directory)).toEqual([])
      })
    )
  )

  it.live(
    "is a file of its own where files have one name, or were removed meanwhile",
    onDirectory((directory) =>
      Effect.gen(function*() {
        const none = (_: string, __: string, done: (error: Error) => void) =>
          done(Object.assign(new Error("EPERM: injected"), { code: "EPERM" }))
        yield* Storage.save("k", bytes("old"))
        const { etag } = yield* replacing({ link: none })(Storage.save("k", bytes("x")))
        fs.rmSync(path.join(directory, ".surfing-weights"), { recursive: true })
        yield* Storage.save("k", bytes("y"), { ifMatch: etag })
        expect(text(yield* Storage.load("k"))).toBe("y")
        expect(temporaryFiles(directory)).toEqual([])
      })
    )
  )

  it.live(
    "is a file where there are no symbolic links",
    onDirectory((directory) =>
      Effect.gen(function*() {
        const without = (_: string, __: string, done: (error: Error) => void) =>
          done(Object.assign(new Error("EPERM: injected"), { code: "EPERM" }))
        fs.mkdirSync(path.join(directory, ".surfing-weights"))
        yield* replacing({ symlink: without })(Effect.gen(function*() {
          put(lockFile(directory, "k"), yield* holder(directory, gone()))
          yield* Storage.save("k", bytes("x"))
          const { etag } = yield* Storage.head("k")
          yield* Storage.save("k", bytes("y"), { ifMatch: etag })
        }))
        expect(text(yield* Storage.load("k"))).toBe("y")
        expect(temporaryFiles(directory)).toEqual([])
      })
    )
  )
})
