/**
 * What a save says when it fails: that nothing has changed, or that something has.
 */
import { describe, it } from "@effect/vitest"
import { Effect } from "effect"
import * as fs from "node:fs"
import * as path from "node:path"
import { Storage } from "surfing-weights"
import { expect } from "vitest"
import { leftovers } from "../../support/directory.js"
import { bytes, failure, onDirectory, text } from "../../support/fileSystem.js"
import { replacing } from "../../support/fsCalls.js"

const systemError = (code: string) => Object.assign(new Error(`${code}: injected`), { code })

/** Ends a call to `node:fs` with an error. */
const answer = (args: ReadonlyArray<unknown>, error: Error) => {
  const done = args.at(-1)
  if (typeof done === "function") Reflect.apply(done, undefined, [error])
}

/** Replaces the fsync of folders. */
const syncingFolders = (outcome: Error | null) => {
  const { fsync } = fs
  return replacing({
    fsync: (descriptor: number, done: fs.NoParamCallback) =>
      fs.fstatSync(descriptor).isDirectory() ? done(outcome) : fsync(descriptor, done)
  })
}

const saves = {
  save: Storage.save("a/k", bytes("new")),
  "save with attributes": Storage.save("a/k", bytes("new"), { attributes: { cacheControl: "no-store" } }),
  "save if there is none": Effect.zipRight(
    Storage.remove("a/k"),
    Storage.save("a/k", bytes("new"), { ifNoneMatch: "*" })
  ),
  copy: Storage.copy("source", "a/k"),
  move: Storage.move("source", "a/k")
}

describe("a save", () => {
  for (const [name, save] of Object.entries(saves)) {
    it.live(
      `succeeds where the file system does not sync folders: ${name}`,
      onDirectory(() =>
        Effect.gen(function*() {
          for (const code of ["EINVAL", "ENOTSUP", "ENOSYS", "EBADF"]) {
            yield* Storage.save("source", bytes("new"))
            yield* Storage.save("a/k", bytes("old"))
            const saved = yield* syncingFolders(systemError(code))(save)
            expect(yield* Storage.head("a/k")).toEqual(saved)
            expect(text(yield* Storage.load("a/k"))).toBe("new")
          }
          expect(yield* leftovers).toEqual([])
        })
      )
    )
  }

  it.live(
    "that replaced the object says so, if the disk fails afterwards",
    onDirectory(() =>
      Effect.gen(function*() {
        for (const code of ["EIO", "ENOSPC", "ESTALE"]) {
          yield* Storage.save("k", bytes("old"))
          const { message, tag } = yield* failure(syncingFolders(systemError(code))(Storage.save("k", bytes("new"))))
          expect(tag).toBe("UnexpectedStorageError")
          expect(message).toContain(`the object was replaced, but it is unknown whether this outlives a loss of power`)
          expect(message).toContain(code)
          expect(text(yield* Storage.load("k"))).toBe("new")
        }
      })
    )
  )

  it.live(
    "opens what it needs before the object is replaced, and changes nothing if it cannot",
    onDirectory((directory) =>
      Effect.gen(function*() {
        yield* Storage.save("a/k", bytes("old"))
        const { open } = fs
        const folder = path.join(fs.realpathSync(directory), "a")
        // By its path or, where it may not be read, by the descriptor that holds it: O_PATH.
        const isFolderToSync = (name: string, flags: unknown) =>
          name === folder ? (Number(flags) & 0o10000000) === 0 : name === `${folder}/.` || isHeld.test(name)
        const isHeld = /^\/proc\/self\/fd\/\d+\/\.$/
        const failing = (code: string) =>
          replacing({
            open: (...args: Parameters<typeof open>) =>
              isFolderToSync(String(args[0]), args[1])
                ? answer(args, systemError(code))
                : open(...args)
          })
        for (const code of ["ENOMEM", "ESTALE"]) {
          const { tag } = yield* failure(failing(code)(Storage.save("a/k", bytes("new"))))
          expect(tag).toBe("StorageUnavailable")
          expect(text(yield* Storage.load("a/k"))).toBe("old")
        }
        // A folder may be written without permission to read it.
        yield* failing("EACCES")(Storage.save("a/k", bytes("new")))
        expect(text(yield* Storage.load("a/k"))).toBe("new")
        expect(yield* leftovers).toEqual([])
      })
    )
  )

  it.live(
    "succeeds if the rename or the link was done and only its outcome was lost, as over NFS",
    onDirectory(() =>
      Effect.gen(function*() {
        const { link, rename } = fs
        const losing = (code: string) =>
          replacing({
            rename: (from: string, to: string, done: fs.NoParamCallback) =>
              rename(from, to, () => done(systemError(code))),
            link: (from: string, to: string, done: fs.NoParamCallback) =>
              link(from, to, () => done(systemError("EEXIST")))
          })
        for (const code of ["ENOENT", "ETIMEDOUT"]) {
          yield* Storage.save("k", bytes("old"))
          const saved = yield* losing(code)(Storage.save("k", bytes("new")))
          expect(yield* Storage.head("k")).toEqual(saved)
          expect(text(yield* Storage.load("k"))).toBe("new")
          yield* Storage.remove("k")
          const created = yield* losing(code)(Storage.save("k", bytes("created"), { ifNoneMatch: "*" }))
          expect(yield* Storage.head("k")).toEqual(created)
          // It was not linked twice.
          const { tag } = yield* failure(losing(code)(Storage.save("k", bytes("again"), { ifNoneMatch: "*" })))
          expect(tag).toBe("ObjectAlreadyExists")
          expect(text(yield* Storage.load("k"))).toBe("created")
        }
        expect(yield* leftovers).toEqual([])
      })
    )
  )

  it.live(
    "fails if the file cannot be closed, on which some file systems tell that the disk is full",
    onDirectory(() =>
      Effect.gen(function*() {
        yield* Storage.save("k", bytes("old"))
        const { close } = fs
        const full = (descriptor: number, done: fs.NoParamCallback) =>
          close(descriptor, () => done(systemError("EDQUOT")))
        const { tag } = yield* failure(replacing({ close: full })(Storage.save("k", bytes("new"))))
        expect(tag).toBe("StorageFull")
        expect(text(yield* Storage.load("k"))).toBe("old")
        expect(yield* leftovers).toEqual([])
      })
    )
  )

  it.live(
    "succeeds if the object can no longer be looked at once it is in place",
    onDirectory(() =>
      Effect.gen(function*() {
        const { lstat } = fs
        for (const code of ["EIO", "ENOENT", "EACCES"]) {
          const failing = (...args: Parameters<typeof lstat>) =>
            String(args[0]).endsWith("/k") ? answer(args, systemError(code)) : lstat(...args)
          yield* replacing({ lstat: failing })(Storage.save("k", bytes("new")))
          expect(text(yield* Storage.load("k"))).toBe("new")
          yield* Storage.remove("k")
        }
      })
    )
  )
})

describe("a move", () => {
  it.live(
    "as a copy says where the object is, if the old one cannot be removed",
    onDirectory((directory) =>
      Effect.gen(function*() {
        yield* Storage.save("target", bytes("content"))
        fs.symlinkSync("target", path.join(directory, "link"))
        const { unlink } = fs
        const failing = (file: string, done: fs.NoParamCallback) =>
          file.endsWith("/link") ? done(systemError("EACCES")) : unlink(file, done)
        const { message, tag } = yield* failure(replacing({ unlink: failing })(Storage.move("link", "moved")))
        expect(tag).toBe("AccessDenied")
        expect(message).toContain("the object is now at \"moved\", but could not be removed from \"link\"")
        expect(text(yield* Storage.load("moved"))).toBe("content")
      })
    )
  )

  it.live(
    "onto no other object leaves things as they were, if the old one cannot be removed",
    onDirectory(() =>
      Effect.gen(function*() {
        yield* Storage.save("old", bytes("content"))
        const { unlink } = fs
        const failing = (file: string, done: fs.NoParamCallback) =>
          file.endsWith("/old") ? done(systemError("EACCES")) : unlink(file, done)
        const move = Storage.move("old", "new", { ifNoneMatch: "*" })
        expect((yield* failure(replacing({ unlink: failing })(move))).tag).toBe("AccessDenied")
        expect(yield* Storage.list()).toEqual(["old"])
      })
    )
  )
})
