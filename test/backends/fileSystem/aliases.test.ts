/**
 * Objects that have several keys: by a linked or mounted folder, or a hard link. On file systems that ignore case:
 * aliases.all.test.ts.
 */
import { describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { execFileSync } from "node:child_process"
import * as fs from "node:fs"
import * as path from "node:path"
import { FileSystemStorage, Storage } from "surfing-weights"
import { expect } from "vitest"
import { openFolderLike } from "../../../src/backends/fileSystem/permissions.js"
import { leftovers } from "../../support/directory.js"
import {
  bytes,
  canMount,
  failure,
  inDirectory,
  isLinux,
  needs,
  on,
  onDirectory,
  put,
  text
} from "../../support/fileSystem.js"

/** A version of a model, and a link to it: each object in it has two keys. */
const withLatest = (directory: string) => {
  put(path.join(directory, "v1/model.bin"), "precious")
  fs.symlinkSync("v1", path.join(directory, "latest"))
}

const attributes = { metadata: { license: "mit" } }

describe("an object with two keys by a linked folder", () => {
  for (const [from, to] of [["latest/model.bin", "v1/model.bin"], ["v1/model.bin", "latest/model.bin"]] as const) {
    it.live(
      `is left as it is by a move from ${from} to ${to}`,
      onDirectory((directory) =>
        Effect.gen(function*() {
          withLatest(directory)
          expect((yield* Storage.move(from, to)).key).toBe(to)
          expect(yield* Storage.list()).toEqual(["latest/model.bin", "v1/model.bin"])
          expect(text(yield* Storage.load("v1/model.bin"))).toBe("precious")
          expect((yield* failure(Storage.move(from, to, { ifNoneMatch: "*" }))).tag).toBe("ObjectAlreadyExists")
          expect(text(yield* Storage.load("v1/model.bin"))).toBe("precious")
        })
      )
    )

    it.live(
      `has the attributes of a move from ${from} to ${to}, and is not lost with them`,
      onDirectory((directory) =>
        Effect.gen(function*() {
          withLatest(directory)
          // The file of another program: its time cannot say that it has attributes.
          yield* Storage.move(from, to, { attributes })
          expect(text(yield* Storage.load(from))).toBe("precious")
          expect((yield* Storage.head(to)).attributes?.metadata).toEqual({ license: "mit" })
          // A file of this library.
          yield* Storage.move(to, from)
          expect(text(yield* Storage.load(to))).toBe("precious")
          expect((yield* Storage.head(from)).attributes?.metadata).toEqual({ license: "mit" })
          expect((yield* Storage.head(to)).attributes?.metadata).toEqual({ license: "mit" })
        })
      )
    )
  }

  it.live(
    "is left as it is by a move where its file is a link itself",
    onDirectory((directory) =>
      Effect.gen(function*() {
        withLatest(directory)
        fs.symlinkSync("model.bin", path.join(directory, "v1/weights.bin"))
        yield* Storage.move("latest/weights.bin", "v1/weights.bin")
        expect(text(yield* Storage.load("v1/weights.bin"))).toBe("precious")
        expect(text(yield* Storage.load("v1/model.bin"))).toBe("precious")
      })
    )
  )

  it.live(
    "is moved to another name in its folder",
    onDirectory((directory) =>
      Effect.gen(function*() {
        withLatest(directory)
        yield* Storage.move("latest/model.bin", "v1/renamed.bin")
        expect(yield* Storage.list()).toEqual(["latest/renamed.bin", "v1/renamed.bin"])
        yield* Storage.move("v1/renamed.bin", "latest/model.bin", { ifNoneMatch: "*" })
        expect(yield* Storage.list()).toEqual(["latest/model.bin", "v1/model.bin"])
        expect(text(yield* Storage.load("v1/model.bin"))).toBe("precious")
      })
    )
  )

  it.live(
    "can be copied onto itself, and is removed once",
    onDirectory((directory) =>
      Effect.gen(function*() {
        withLatest(directory)
        yield* Storage.copy("latest/model.bin", "v1/model.bin")
        expect(text(yield* Storage.load("latest/model.bin"))).toBe("precious")
        expect(yield* Storage.removeAll(["latest/model.bin", "v1/model.bin"])).toEqual({ removed: 2, failed: [] })
        expect(yield* Storage.list()).toEqual([])
        expect(yield* leftovers).toEqual([])
      })
    )
  )
})

describe("an object with two names", () => {
  it.live(
    "by hard links, also through a linked folder, has one less after a move of one onto the other",
    onDirectory((directory) =>
      Effect.gen(function*() {
        withLatest(directory)
        const link = (name: string) => fs.linkSync(path.join(directory, "v1/model.bin"), path.join(directory, name))
        link("v1/copy.bin")
        yield* Storage.move("latest/copy.bin", "v1/model.bin")
        expect(yield* Storage.list("v1/")).toEqual(["v1/model.bin"])
        link("other.bin")
        // One name in two ways, and a third that is another one.
        yield* Storage.move("latest/model.bin", "v1/model.bin")
        expect(yield* Storage.list()).toEqual(["latest/model.bin", "other.bin", "v1/model.bin"])
        yield* Storage.move("latest/model.bin", "other.bin")
        expect(yield* Storage.list()).toEqual(["other.bin"])
        expect(text(yield* Storage.load("other.bin"))).toBe("precious")
      })
    )
  )

  needs("a mount of its own: root on Linux", canMount).live(
    "by a folder that is mounted twice is left as it is by a move of one onto the other",
    inDirectory((directory) =>
      Effect.gen(function*() {
        put(path.join(directory, "v1/model.bin"), "precious")
        fs.mkdirSync(path.join(directory, "latest"))
        execFileSync("mount", ["--bind", path.join(directory, "v1"), path.join(directory, "latest")])
        yield* Effect.gen(function*() {
          yield* Effect.either(Storage.move("latest/model.bin", "v1/model.bin"))
          yield* Effect.either(Storage.move("v1/model.bin", "latest/model.bin"))
          yield* Effect.either(Storage.move("latest/model.bin", "v1/model.bin", { attributes }))
          expect(text(yield* Storage.load("v1/model.bin"))).toBe("precious")
        }).pipe(
          Effect.provide(on(directory)),
          Effect.ensuring(Effect.sync(() => execFileSync("umount", [path.join(directory, "latest")])))
        )
      })
    )
  )
})

describe("a folder of the storage's own that is a symbolic link", () => {
  for (const folder of [".surfing-weights", ".surfing-weights/attributes"]) {
    for (const symlinks of ["refuse", "follow"] as const) {
      it.live(
        `keeps a storage from being built, and nothing is removed through it: ${folder}, symlinks: "${symlinks}"`,
        inDirectory((directory) =>
          Effect.gen(function*() {
            // Named like what a killed process on another machine left two days ago.
            const backup = path.join(directory, "backups/photos-2023-10-01-full-7")
            const bucket = path.join(directory, `backups/aa/${"a".repeat(32)}-1-1-1`)
            const base = path.join(directory, "weights")
            for (const file of [backup, bucket]) {
              put(file, "my only copy")
              fs.utimesSync(file, 1e9, 1e9)
            }
            fs.mkdirSync(path.dirname(path.join(base, folder)), { recursive: true })
            fs.symlinkSync(path.join(directory, "backups"), path.join(base, folder))
            const { message, tag } = yield* failure(
              Effect.provide(Storage.save("k", bytes("v")), on(base, { symlinks }))
            )
            expect(tag).toBe("AccessDenied")
            expect(message).toContain(`${path.join(fs.realpathSync(base), folder)} is a symbolic link`)
            expect(fs.readFileSync(backup, "utf8")).toBe("my only copy")
            expect(fs.readFileSync(bucket, "utf8")).toBe("my only copy")
          })
        )
      )
    }

    for (const target of ["backup", `weights/${folder}-before`]) {
      needs("Linux", isLinux).live(
        `fails the saves of a storage that was built before, and nothing changes where it leads: ${folder} to ${target}`,
        inDirectory((directory) =>
          Effect.gen(function*() {
            const base = path.join(directory, "weights")
            const moved = path.join(directory, target)
            fs.mkdirSync(base)
            const storage = yield* FileSystemStorage.make({ directory: base })
            yield* storage.save("k", bytes("v"), { attributes })
            fs.renameSync(path.join(base, folder), moved)
            fs.symlinkSync(moved, path.join(base, folder))
            const content = () => fs.readdirSync(moved, { recursive: true, encoding: "utf8" }).sort()
            const before = content()
            // So that they seem abandoned.
            for (const name of before) fs.lutimesSync(path.join(moved, name), 1e9, 1e9)
            const saves = [
              storage.save("k", bytes("new"), { attributes }),
              storage.save("a", bytes("a"), { attributes })
            ]
            if (folder === ".surfing-weights") saves.push(storage.save("b", bytes("b")))
            for (const save of saves) {
              const { message, tag } = yield* failure(save)
              expect(tag).toBe("AccessDenied")
              expect(message).toContain(path.join(fs.realpathSync(base), folder))
              expect(message).toMatch(/is (below )?a symbolic link/)
            }
            yield* storage.remove("k")
            expect(content()).toEqual(before)
          }).pipe(Effect.scoped)
        )
      )
    }
  }
})

describe("a folder of the storage's own below a symbolic link", () => {
  needs("Linux", isLinux).live(
    "does not get the permissions of the base directory where the link leads",
    inDirectory((directory) =>
      Effect.gen(function*() {
        const real = fs.realpathSync(directory)
        const [base, outside] = [path.join(real, "weights"), path.join(real, "backups")]
        fs.mkdirSync(base)
        fs.chmodSync(base, 0o777)
        fs.mkdirSync(path.join(outside, "attributes"), { recursive: true })
        fs.chmodSync(path.join(outside, "attributes"), 0o755)
        fs.symlinkSync(outside, path.join(base, ".surfing-weights"))
        // What building a storage does, had the link been put there only now.
        yield* openFolderLike(base, path.join(base, ".surfing-weights/attributes"))
        expect(fs.statSync(path.join(outside, "attributes")).mode & 0o777).toBe(0o755)
        fs.unlinkSync(path.join(base, ".surfing-weights"))
        fs.renameSync(outside, path.join(base, ".surfing-weights"))
        yield* openFolderLike(base, path.join(base, ".surfing-weights/attributes"))
        expect(fs.statSync(path.join(base, ".surfing-weights/attributes")).mode & 0o777).toBe(0o777)
      })
    )
  )
})
