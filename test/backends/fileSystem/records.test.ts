/**
 * Attributes of objects in the hidden folder of a directory. The contract suite tests what they mean; here it is about files.
 */
import { describe, it } from "@effect/vitest"
import { Effect, Stream } from "effect"
import { execFileSync } from "node:child_process"
import * as fs from "node:fs"
import * as path from "node:path"
import { ByteRange, FileSystemStorage, Storage } from "surfing-weights"
import { expect } from "vitest"
import { leftovers } from "../../support/directory.js"
import {
  attributeFiles,
  bytes,
  canMount,
  failure,
  inDirectory,
  needs,
  on,
  onDirectory,
  put,
  text
} from "../../support/fileSystem.js"
import { callsBelow, recording, replacing } from "../../support/fsCalls.js"

const attributes = { cacheControl: "no-store", metadata: { model: "bert" } }

const save = (key: string, content = "content", version = "1") =>
  Storage.save(key, bytes(content), { attributes: { metadata: { version } } })

/** The version in the metadata of an object. */
const versionOf = (key: string) => Effect.map(Storage.head(key), ({ attributes }) => attributes?.metadata?.["version"])

const yesterday = Date.now() / 1000 - 25 * 60 * 60

describe("the content type of an object on files", () => {
  it.live(
    "is derived from the extension of the key if it was saved without one",
    onDirectory((directory) =>
      Effect.gen(function*() {
        const types: Record<string, string | undefined> = {
          "config.json": "application/json",
          "model.JSON": "application/json",
          "a/vocab.txt": "text/plain",
          "model.bin": "application/octet-stream",
          "model.safetensors": undefined,
          "folder.json/model": undefined,
          "json": undefined
        }
        for (const [key, contentType] of Object.entries(types)) {
          const saved = yield* Storage.save(key, bytes("x"))
          const expected = contentType && { contentType }
          expect(saved.attributes, key).toEqual(expected)
          expect(yield* Storage.head(key)).toEqual(saved)
          expect((yield* Effect.scoped(Storage.open(key))).info).toEqual(saved)
        }
        put(path.join(directory, "downloaded.json"), "{}")
        expect((yield* Storage.head("downloaded.json")).attributes).toEqual({ contentType: "application/json" })
      })
    )
  )

  it.live(
    "is the one it was saved with, and is derived beside other attributes",
    onDirectory(() =>
      Effect.gen(function*() {
        yield* Storage.save("a.json", bytes("x"), { attributes: { contentType: "application/x-own" } })
        expect((yield* Storage.head("a.json")).attributes).toEqual({ contentType: "application/x-own" })
        yield* Storage.save("b.json", bytes("x"), { attributes })
        expect((yield* Storage.head("b.json")).attributes).toEqual({ ...attributes, contentType: "application/json" })
        // What is derived belongs to the name.
        expect((yield* Storage.copy("b.json", "b.txt")).attributes).toEqual({
          ...attributes,
          contentType: "text/plain"
        })
      })
    )
  )
})

describe("attributes of files", () => {
  it.live(
    "cost no system call for an object without any",
    onDirectory((directory) =>
      Effect.gen(function*() {
        yield* Storage.save("with", bytes("x"), { attributes })
        const operations = {
          head: Storage.head("without"),
          load: Storage.load("without"),
          open: Effect.scoped(Storage.open("without")),
          stream: Stream.runDrain(Storage.stream("without")),
          loadRanges: Storage.loadRanges("without", [ByteRange.from(0)]),
          entries: Stream.runDrain(Storage.entries())
        }
        for (const size of [1, 100_000]) {
          yield* Storage.save("without", new Uint8Array(size))
          for (const [name, operation] of Object.entries(operations)) {
            const [, calls] = yield* recording<unknown, unknown, Storage.Storage>(operation)
            expect(callsBelow(calls, directory).length, name).toBeGreaterThan(0)
            expect(callsBelow(calls, ".surfing-weights"), name).toEqual([])
          }
        }
        // A load returns bytes only.
        const [, calls] = yield* recording(Storage.load("with"))
        expect(callsBelow(calls, ".surfing-weights")).toEqual([])
      })
    )
  )

  it.live(
    "are gone once another program changed or renamed the file",
    onDirectory((directory) =>
      Effect.gen(function*() {
        const file = path.join(directory, "k")
        const changes = {
          "written in place": () => fs.writeFileSync(file, "changed"),
          appended: () => fs.appendFileSync(file, "more"),
          replaced: () => {
            fs.writeFileSync(`${file}-new`, "content")
            fs.renameSync(`${file}-new`, file)
          },
          "removed and created": () => {
            fs.rmSync(file)
            fs.writeFileSync(file, "content")
          }
        }
        for (const [what, change] of Object.entries(changes)) {
          yield* save("k")
          expect(yield* versionOf("k")).toBe("1")
          change()
          expect((yield* Storage.head("k")).attributes, what).toBe(undefined)
          expect((yield* Effect.scoped(Storage.open("k"))).info.attributes, what).toBe(undefined)
        }
        yield* save("k")
        fs.renameSync(file, path.join(directory, "renamed"))
        expect((yield* Storage.head("renamed")).attributes).toBe(undefined)
      })
    )
  )

  it.live(
    "are in as many files as there are objects with attributes",
    onDirectory((directory) =>
      Effect.gen(function*() {
        const expectFiles = (what: string, count: number) =>
          expect(attributeFiles(directory).length, `files after ${what}`).toBe(count)
        for (let i = 0; i < 5; i++) yield* save("k", "content", String(i))
        expectFiles("five saves", 1)
        yield* Storage.copy("k", "copy")
        expectFiles("a copy", 2)
        yield* Storage.move("k", "folder/moved")
        expectFiles("a move", 2)
        yield* Storage.move("folder/moved", "copy")
        expectFiles("a move onto another", 1)
        expect(yield* versionOf("copy")).toBe("4")
        yield* Storage.move("copy", "other", { attributes: { metadata: { version: "new" } } })
        expectFiles("a move with attributes", 1)
        expect(yield* versionOf("other")).toBe("new")
        yield* Effect.flip(Storage.save("other", bytes("x"), { attributes, ifNoneMatch: "*" }))
        yield* Effect.flip(Storage.save("other/below", bytes("x"), { attributes }))
        yield* Effect.flip(Storage.save("other", bytes("x"), { attributes, ifMatch: "other" }))
        yield* Effect.exit(
          Storage.save("other", Stream.concat(Stream.make(bytes("x")), Stream.fail("no")), { attributes })
        )
        expectFiles("saves that failed", 1)
        yield* Storage.move("other", "last", { attributes: {} })
        expectFiles("a move that drops them", 0)
        yield* save("last")
        yield* Storage.save("last", bytes("x"))
        expectFiles("a save without any", 0)
        yield* save("last")
        yield* Storage.remove("last")
        expectFiles("a removal", 0)
        for (let i = 0; i < 20; i++) yield* save(String(i))
        yield* Storage.removeAll(Array.from({ length: 20 }, (_, i) => String(i)))
        expectFiles("removeAll", 0)
        expect(yield* leftovers).toEqual([])
      })
    )
  )

  it.live(
    "can be added by a move",
    onDirectory(() =>
      Effect.gen(function*() {
        yield* Storage.save("plain", bytes("content"))
        yield* Storage.save("there", bytes("other"))
        const { etag } = yield* Storage.head("plain")
        // A move that fails changes nothing.
        const { tag } = yield* failure(Storage.move("plain", "there", { attributes, ifNoneMatch: "*" }))
        expect(tag).toBe("ObjectAlreadyExists")
        expect((yield* Storage.head("plain")).etag).toBe(etag)
        const moved = yield* Storage.move("plain", "there", { attributes })
        expect(moved.attributes).toEqual(attributes)
        expect(yield* Storage.head("there")).toEqual(moved)
        expect(text(yield* Storage.load("there"))).toBe("content")
        expect(yield* Storage.list()).toEqual(["there"])
      })
    )
  )

  it.live(
    "are kept for keys of 1,024 bytes, and of any name",
    onDirectory((directory) =>
      Effect.gen(function*() {
        const keys = ["k".repeat(1024), `${"é".repeat(100)}/${"x".repeat(823)}`, ".surfing-weights/attributes/x", "🏄"]
        for (const key of keys) yield* save(key, key, key.slice(0, 9))
        for (const key of keys) expect(yield* versionOf(key)).toBe(key.slice(0, 9))
        expect((yield* Storage.list()).length).toBe(keys.length)
        for (const file of attributeFiles(directory)) expect(path.basename(file).length).toBeLessThan(100)
      })
    )
  )

  it.live(
    "are shared by several storages on a directory",
    onDirectory((directory) =>
      Effect.gen(function*() {
        const other = yield* FileSystemStorage.make({ directory })
        yield* save("k", "one", "1")
        expect((yield* other.head("k")).attributes?.metadata).toEqual({ version: "1" })
        yield* other.save("k", bytes("two"), { attributes: { metadata: { version: "2" } } })
        expect(yield* versionOf("k")).toBe("2")
        yield* other.save("k", bytes("three"))
        expect(yield* versionOf("k")).toBe(undefined)
        yield* save("k", "four", "4")
        yield* other.remove("k")
        expect(attributeFiles(directory)).toEqual([])
      })
    )
  )

  it.live(
    "of the old object are kept if those of the new one cannot be written",
    onDirectory((directory) =>
      Effect.gen(function*() {
        yield* save("k")
        const { fsync } = fs
        const failing = (descriptor: number, done: fs.NoParamCallback) =>
          fs.fstatSync(descriptor).isDirectory()
            ? done(Object.assign(new Error("broken"), { code: "EIO" }))
            : fsync(descriptor, done)
        const { message } = yield* failure(replacing({ fsync: failing })(save("k", "new", "2")))
        expect(message).toContain("EIO")
        expect(yield* versionOf("k")).toBe("1")
        expect(text(yield* Storage.load("k"))).toBe("content")
        expect(attributeFiles(directory).length).toBe(1)
        expect(yield* leftovers).toEqual([])
      })
    )
  )

  it.live(
    "survive a move that stopped between its two steps, and its retry",
    onDirectory((directory) =>
      Effect.gen(function*() {
        yield* save("old")
        const { unlink } = fs
        const cutOff = (file: string, done: fs.NoParamCallback) =>
          /\/(?:old|new)$/.test(file) ? done(Object.assign(new Error("broken"), { code: "EIO" })) : unlink(file, done)
        const move = Storage.move("old", "new", { ifNoneMatch: "*" })
        const { message } = yield* failure(replacing({ unlink: cutOff })(move))
        expect(message).toContain("the object is now at \"new\", but could not be removed from \"old\"")
        expect(yield* Storage.list()).toEqual(["new", "old"])
        expect((yield* failure(move)).tag).toBe("ObjectAlreadyExists")
        expect(yield* versionOf("new")).toBe("1")
        expect(yield* versionOf("old")).toBe("1")
        yield* Storage.move("old", "new")
        expect(yield* Storage.list()).toEqual(["new"])
        expect(yield* versionOf("new")).toBe("1")
        expect(attributeFiles(directory).length).toBe(1)
      })
    )
  )

  it.live(
    "are of the same version as the opened bytes, even if the object is overwritten in between",
    onDirectory((directory) =>
      Effect.gen(function*() {
        const storage = yield* Storage.Storage
        const reads = {
          open: Effect.scoped(Effect.flatMap(
            storage.open("k"),
            ({ info, stream }) => Effect.map(Stream.runHead(stream), () => info)
          )),
          head: storage.head("k")
        }
        for (const [name, read] of Object.entries(reads)) {
          for (const size of [10, 100_000]) {
            yield* storage.save("k", new Uint8Array(size), { attributes: { metadata: { size: String(size) } } })
            const { readFile } = fs
            let overwritten = false
            // What the reader looks for is gone by the time that it looks.
            const late = (...args: Parameters<typeof readFile>) => {
              if (overwritten || !String(args[0]).includes("attributes")) return readFile(...args)
              overwritten = true
              const attributes = { metadata: { size: "5" } }
              void Effect.runPromise(storage.save("k", new Uint8Array(5), { attributes })).then(() => readFile(...args))
            }
            const info = yield* replacing({ readFile: late })(read)
            expect(overwritten, name).toBe(true)
            expect(info.size, name).toBe(5)
            expect(info.attributes, name).toEqual({ metadata: { size: "5" } })
          }
        }
        expect(attributeFiles(directory).length).toBe(1)
      })
    )
  )

  it.live(
    "are ignored if their file is damaged",
    onDirectory((directory) =>
      Effect.gen(function*() {
        for (const damage of ["", "{", "{}", "null", "\0".repeat(300)]) {
          yield* save("k")
          for (const file of attributeFiles(directory)) fs.writeFileSync(file, damage)
          expect((yield* Storage.head("k")).attributes).toBe(undefined)
          expect(text(yield* Storage.load("k"))).toBe("content")
        }
      })
    )
  )

  it.live(
    "are on the disk before the object is renamed, with full durability",
    inDirectory((directory) =>
      Effect.gen(function*() {
        const root = fs.realpathSync(directory)
        const storage = yield* FileSystemStorage.make({ directory })
        // The first save tries what the file system does to times.
        yield* storage.save("before", bytes("x"))
        for (const key of ["first", "second"]) {
          const steps: Array<string> = []
          const { fsync, rename } = fs
          const paths = (descriptor: number) => fs.readlinkSync(`/proc/self/fd/${descriptor}`).replace(root, "")
          yield* replacing({
            fsync: (descriptor: number, done: fs.NoParamCallback) => {
              steps.push(`sync ${paths(descriptor).replace(/\/[^/]*-\d+$/, "/temporary").replace(/\/..$/, "/bucket")}`)
              fsync(descriptor, done)
            },
            rename: (from: string, to: string, done: fs.NoParamCallback) => {
              steps.push(to.endsWith(key) ? "rename object" : "rename attributes")
              rename(from, to, done)
            }
          })(storage.save(key, bytes("x"), { attributes }))
          const created = key === "first"
            ? ["rename attributes", "sync /.surfing-weights/attributes", "sync /.surfing-weights", "sync "]
            : []
          if (process.platform === "linux") {
            expect(steps.slice(0, 2)).toEqual(["sync /.surfing-weights/temporary", "sync /.surfing-weights/temporary"])
            expect(steps.slice(-2)).toEqual(["rename object", "sync "])
            expect(steps.slice(2, -2)).toContain("sync /.surfing-weights/attributes/bucket")
            expect(steps.slice(2, -2)).toEqual(expect.arrayContaining(created))
          }
        }
      })
    )
  )

  needs("a mount of its own: root on Linux", canMount).live(
    "are read from a file system that is mounted read-only",
    inDirectory((directory) =>
      Effect.gen(function*() {
        execFileSync("mount", ["-t", "tmpfs", "-o", "size=1m", "tmpfs", directory])
        yield* Effect.provide(save("k"), on(directory))
        execFileSync("mount", ["-o", "remount,ro", directory])
        yield* Effect.gen(function*() {
          expect(yield* versionOf("k")).toBe("1")
          expect((yield* failure(Storage.save("k", bytes("x"), { attributes }))).tag).toBe("AccessDenied")
          expect((yield* failure(Storage.remove("k"))).tag).toBe("AccessDenied")
          expect(yield* versionOf("k")).toBe("1")
        }).pipe(Effect.provide(on(directory)))
      }).pipe(Effect.ensuring(Effect.sync(() => execFileSync("umount", [directory]))))
    )
  )
})

describe("abandoned attributes", () => {
  /** Makes the attributes of an object what a killed process or another program leaves. */
  const abandon = (directory: string, key: string, writtenAt = yesterday) => {
    fs.rmSync(path.join(directory, key))
    for (const file of attributeFiles(directory)) {
      if (fs.readFileSync(file, "utf8").includes(JSON.stringify(key))) fs.utimesSync(file, writtenAt, writtenAt)
    }
  }

  it.live(
    "are removed when a storage is built, and attributes in use are not",
    onDirectory((directory) =>
      Effect.gen(function*() {
        yield* save("gone")
        yield* save("kept")
        yield* save("changed")
        yield* save("recent")
        const now = Date.now() / 1000
        abandon(directory, "gone")
        abandon(directory, "changed")
        put(path.join(directory, "changed"), "changed")
        // It may belong to a save that is about to rename its object.
        abandon(directory, "recent", now)
        for (const file of attributeFiles(directory)) {
          if (fs.readFileSync(file, "utf8").includes("\"kept\"")) fs.utimesSync(file, yesterday, yesterday)
        }
        yield* FileSystemStorage.make({ directory })
        const kept = attributeFiles(directory).map((file) =>
          JSON.parse(fs.readFileSync(file, "utf8")) as { key: string }
        )
        expect(kept.map(({ key }) => key).sort()).toEqual(["kept", "recent"])
        expect(yield* versionOf("kept")).toBe("1")
      })
    )
  )

  it.live(
    "are removed at once if their process is gone, and otherwise after a day",
    onDirectory((directory) =>
      Effect.gen(function*() {
        const [host = "", boot = "", pid = "", start = ""] = yield* Effect.gen(function*() {
          yield* save("probe")
          const [file = ""] = attributeFiles(directory)
          return (JSON.parse(fs.readFileSync(file, "utf8")) as { owner: string }).owner.split("-")
        })
        const owners = {
          live: [host, boot, pid, start],
          "dead process": [host, boot, "4194305", start],
          "another process of its number": [host, boot, pid, "1"],
          "before the machine started": [host, "other", pid, start],
          elsewhere: ["other", boot, pid, start]
        }
        const file = path.join(directory, ".surfing-weights/attributes/00/00000000000000000000000000000000-1-1-1")
        for (const [what, owner] of Object.entries(owners)) {
          for (const [age, writtenAt] of [["recent", Date.now() / 1000], ["old", yesterday]] as const) {
            put(file, JSON.stringify({ key: "gone", owner: owner.join("-"), attributes: {} }))
            fs.utimesSync(file, writtenAt, writtenAt)
            yield* FileSystemStorage.make({ directory })
            const stays = age === "recent" && (what === "live" || what === "elsewhere")
            expect(fs.existsSync(file), `${what}, ${age}`).toBe(stays)
          }
        }
        const others = path.join(directory, ".surfing-weights/attributes/00/notes.txt")
        put(others, "of somebody else")
        fs.utimesSync(others, yesterday, yesterday)
        put(file, "damaged")
        yield* FileSystemStorage.make({ directory })
        expect(fs.existsSync(others)).toBe(true)
        expect(fs.existsSync(file)).toBe(true)
        fs.utimesSync(file, yesterday, yesterday)
        yield* FileSystemStorage.make({ directory })
        expect(fs.existsSync(file)).toBe(false)
      })
    )
  )

  it.live(
    "do not accumulate while a process runs",
    onDirectory((directory) =>
      Effect.gen(function*() {
        for (let i = 0; i < 100; i++) {
          yield* save("k", "content", String(i))
          abandon(directory, "k")
        }
        expect(attributeFiles(directory).length).toBeLessThanOrEqual(17)
      }), { durability: "relaxed" })
  )
})
