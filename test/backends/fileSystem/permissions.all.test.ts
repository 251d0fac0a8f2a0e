/**
 * Permissions, owners and groups of files and folders, also of several users who save in one directory.
 */
import { describe, it } from "@effect/vitest"
import { Effect, Stream } from "effect"
import * as fs from "node:fs"
import * as path from "node:path"
import { Storage } from "surfing-weights"
import { expect } from "vitest"
import { temporaryFiles } from "../../support/directory.js"
import { attributeFiles, bytes, inDirectory, isRoot, needs, on, onDirectory, put } from "../../support/fileSystem.js"
import { child, output } from "../../support/fileSystemProcesses.js"

const modeOf = (file: string) => (fs.statSync(file).mode & 0o7777).toString(8)

const ownerOf = (file: string) => [fs.statSync(file).uid, fs.statSync(file).gid]

/** The groups of the tests, which need no name. */
const team = 5001
const others = 5002

/** A user in the group of a directory, and only there, doing operations on it. */
const user = (directory: string, uid: number, groups: ReadonlyArray<number>, ...operations: ReadonlyArray<string>) =>
  Effect.scoped(Effect.flatMap(child("asUser", directory, String(uid), groups.join(), ...operations), output))

const share = (directory: string, mode: number) => {
  fs.chownSync(directory, 0, team)
  fs.chmodSync(directory, mode)
}

const attributes = { attributes: { metadata: { a: "b" } } }

describe("the file of an overwritten object", () => {
  const saves = {
    save: Storage.save("k", bytes("new")),
    "save of a stream": Storage.save("k", Stream.make(bytes("new"))),
    "save with attributes": Storage.save("k", bytes("new"), attributes),
    copy: Storage.copy("other", "k")
  }
  for (const [name, save] of Object.entries(saves)) {
    it.live(
      `keeps its permissions, whatever the process masks: ${name}`,
      onDirectory((directory) =>
        Effect.gen(function*() {
          const file = path.join(directory, "k")
          put(path.join(directory, "other"), "other")
          for (const mode of [0o600, 0o640, 0o664, 0o666, 0o444, 0o755]) {
            put(file, "old")
            fs.chmodSync(file, mode)
            yield* save
            expect(modeOf(file)).toBe(mode.toString(8))
            for (const record of attributeFiles(directory)) expect(modeOf(record)).toBe(mode.toString(8))
            yield* Storage.remove("k")
          }
        })
      )
    )
  }

  it.live(
    "is private while it is written, too, as was the old one",
    onDirectory((directory) =>
      Effect.gen(function*() {
        put(path.join(directory, "k"), "old")
        fs.chmodSync(path.join(directory, "k"), 0o600)
        let modes: ReadonlyArray<string> = []
        yield* Storage.save(
          "k",
          Stream.fromEffect(Effect.sync(() => {
            const folder = path.join(directory, ".surfing-weights")
            modes = temporaryFiles(directory).map((name) => modeOf(path.join(folder, name)))
            return bytes("new")
          }))
        )
        expect(modes).toEqual(["600"])
      })
    )
  )

  needs("root", isRoot).live(
    "keeps owner and group where that is allowed, and never lets another group read what its own could",
    inDirectory((directory) =>
      Effect.gen(function*() {
        fs.chmodSync(directory, 0o777)
        const file = path.join(directory, "k")
        const create = (mode: number, gid: number) => {
          put(file, "old")
          fs.chownSync(file, 4001, gid)
          fs.chmodSync(file, mode)
        }
        create(0o640, team)
        yield* Effect.provide(Storage.save("k", bytes("new")), on(directory))
        expect([ownerOf(file), modeOf(file)]).toEqual([[4001, team], "640"])
        // One of the group, who may not give files away.
        create(0o640, team)
        expect(yield* user(directory, 4002, [others, team], "save:k")).toContain("save:k success")
        expect([ownerOf(file), modeOf(file)]).toEqual([[4002, team], "640"])
        // One who is not in the group.
        create(0o664, team)
        expect(yield* user(directory, 4002, [others], "saveWithAttributes:k")).toContain("success")
        expect([ownerOf(file), modeOf(file)]).toEqual([[4002, others], "644"])
        expect(attributeFiles(directory).map((record) => [ownerOf(record), modeOf(record)])).toEqual([[
          [4002, others],
          "644"
        ]])
      })
    )
  )
})

describe("the file of a new object", () => {
  it.live(
    "has what the process does not mask, or less where a private object was copied",
    onDirectory((directory) =>
      Effect.gen(function*() {
        const before = process.umask(0o027)
        yield* Effect.ensuring(Storage.save("a/k", bytes("x")), Effect.sync(() => process.umask(before)))
        expect(modeOf(path.join(directory, "a/k"))).toBe("640")
        fs.chmodSync(path.join(directory, "a/k"), 0o600)
        yield* Storage.copy("a/k", "copy")
        expect(modeOf(path.join(directory, "copy"))).toBe("600")
        yield* Storage.move("a/k", "moved")
        expect(modeOf(path.join(directory, "moved"))).toBe("600")
        yield* Storage.move("moved", "again", attributes)
        expect(modeOf(path.join(directory, "again"))).toBe("600")
      })
    )
  )

  needs("root", isRoot).live(
    "has the group of its folder if that gives it to all, also through folders that are created, and else that of the process",
    onDirectory((directory) =>
      Effect.gen(function*() {
        put(path.join(directory, "shared/kept"), "")
        fs.mkdirSync(path.join(directory, "plain"))
        fs.chownSync(path.join(directory, "plain"), 0, others)
        fs.chownSync(path.join(directory, "shared"), 0, team)
        fs.chmodSync(path.join(directory, "shared"), 0o2775)
        for (const options of [{}, { ifNoneMatch: "*" as const }, attributes]) {
          for (const key of ["shared/x", "shared/a/b/x"]) {
            yield* Storage.save(key, bytes("x"), options)
            expect(ownerOf(path.join(directory, key))).toEqual([0, team])
            yield* Storage.remove(key)
          }
        }
        yield* Storage.save("plain/x", bytes("x"))
        expect(ownerOf(path.join(directory, "plain/x"))).toEqual([0, 0])
      })
    )
  )
})

describe("a directory that a group may write", () => {
  for (const mode of [0o775, 0o1777]) {
    needs("root", isRoot).live(
      `takes the saves of one user and of another, with mode ${mode.toString(8)}`,
      inDirectory((directory) =>
        Effect.gen(function*() {
          share(directory, mode)
          const operations = ["save:k", "saveWithAttributes:with", "head:with", "load:k", "list"]
          const first = yield* user(directory, 4001, [others, team], ...operations)
          expect(first.trim().split("\n")).toEqual(operations.map((name) => `${name} success`))
          for (const folder of ["", "/attributes"]) {
            expect(modeOf(`${directory}/.surfing-weights${folder}`)).toBe(mode.toString(8))
          }
          // Only the owner may replace a file where the folder is sticky.
          const keys = mode === 0o1777 ? ["new", "other"] : ["k", "with"]
          const theirs = [`save:${keys[0]}`, `saveWithAttributes:${keys[1]}`, `head:${keys[1]}`, `remove:${keys[1]}`]
          const second = yield* user(directory, 4002, [others, team], ...theirs)
          expect(second.trim().split("\n")).toEqual(theirs.map((name) => `${name} success`))
        })
      )
    )
  }

  needs("root", isRoot).live(
    "lets no other group into its hidden folder, where its first user cannot give that to its own group",
    inDirectory((directory) =>
      Effect.gen(function*() {
        fs.chmodSync(directory, 0o755)
        for (const [mode, kept] of [[0o770, "700"], [0o775, "755"]] as const) {
          const base = path.join(directory, kept)
          fs.mkdirSync(base)
          fs.chownSync(base, 4001, team)
          fs.chmodSync(base, mode)
          expect(yield* user(base, 4001, [others], "saveWithAttributes:k")).toContain("success")
          for (const folder of ["", "/attributes"]) {
            const hidden = `${base}/.surfing-weights${folder}`
            expect([folder, ownerOf(hidden), modeOf(hidden)]).toEqual([folder, [4001, others], kept])
          }
        }
      })
    )
  )

  needs("root", isRoot).live(
    "and whose hidden folder only its first user may write, is opened by that user, and until then the failure says what to do",
    inDirectory((directory) =>
      Effect.gen(function*() {
        share(directory, 0o775)
        const hidden = path.join(directory, ".surfing-weights")
        fs.mkdirSync(hidden, { mode: 0o755 })
        fs.chownSync(hidden, 4001, others)
        const refused = yield* user(directory, 4002, [others, team], "save:k")
        const real = fs.realpathSync(directory)
        expect(refused).toContain(
          `save:k AccessDenied: save "k" on FileSystem(${directory}): permission denied in ${real}/.surfing-weights (EACCES), ` +
            "where each save needs to write; let its owner give it the group and permissions of " +
            `${real} (chgrp and chmod with --reference)`
        )
        expect(yield* user(directory, 4001, [others, team], "list")).toContain("list success")
        expect([ownerOf(hidden), modeOf(hidden)]).toEqual([[4001, team], "775"])
        expect(yield* user(directory, 4002, [others, team], "save:k")).toContain("save:k success")
      })
    )
  )
})
