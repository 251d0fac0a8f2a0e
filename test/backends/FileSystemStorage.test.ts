/**
 * FileSystemStorage by itself. What takes long or needs other processes is in FileSystemStorage.all.test.ts.
 */
import { describe, it } from "@effect/vitest"
import { Chunk, Config, ConfigProvider, Effect, Exit, Layer, Stream } from "effect"
import { execFileSync } from "node:child_process"
import { createHash } from "node:crypto"
import fs from "node:fs"
import { syncBuiltinESMExports } from "node:module"
import * as path from "node:path"
import { ByteRange, FileSystemStorage, Storage } from "surfing-weights"
import * as StorageContract from "surfing-weights/StorageContract"
import { expect } from "vitest"
import { type Directory, leftovers, storageOnDirectory, temporaryFiles } from "../support/directory.js"
import {
  bytes,
  canMount,
  descriptorsOf,
  failure,
  inDirectory,
  isLinux,
  needs,
  on,
  onDirectory,
  put,
  runtime,
  text
} from "../support/fileSystem.js"

StorageContract.suite("FileSystemStorage", {
  layer: storageOnDirectory({ durability: "relaxed" }),
  leftovers
})

/** A secret beside the directory, and links to it and within. */
const withLinks = (directory: string) => {
  const outside = fs.mkdtempSync(path.join(path.dirname(directory), "surfing-weights-outside-"))
  put(path.join(outside, "secret"), "secret")
  put(path.join(directory, "blobs/1"), "blob")
  fs.symlinkSync(path.join(outside, "secret"), path.join(directory, "leak"))
  fs.symlinkSync(outside, path.join(directory, "folder"))
  fs.symlinkSync("blobs/1", path.join(directory, "weights.bin"))
  fs.symlinkSync("blobs", path.join(directory, "snapshot"))
  fs.symlinkSync("nowhere", path.join(directory, "dead"))
  fs.symlinkSync("..", path.join(directory, "blobs/up"))
  return outside
}

const linked = <E>(
  test: (directory: string, outside: string) => Effect.Effect<void, E, Storage.Storage | Directory>,
  options: Omit<FileSystemStorage.Options, "directory"> = {}
) =>
  onDirectory((directory) =>
    Effect.acquireUseRelease(
      Effect.sync(() => withLinks(directory)),
      (outside) => test(directory, outside),
      (outside) => Effect.sync(() => fs.rmSync(outside, { recursive: true }))
    ), options)

describe("FileSystemStorage", () => {
  describe("options that are not allowed", () => {
    const cases: ReadonlyArray<readonly [option: string, reason: string, options: unknown]> = [
      ["directory", "must be the path of a directory (got \"\")", { directory: "" }],
      ["directory", "must be the path of a directory (got \"a\\u0000b\")", { directory: "a\0b" }],
      ["directory", "is required", {}],
      ["create", "must be true or false (got \"no\")", { directory: "x", create: "no" }],
      ["durability", "must be \"full\" or \"relaxed\" (got \"most\")", { directory: "x", durability: "most" }],
      ["symlinks", "must be \"refuse\" or \"follow\" (got true)", { directory: "x", symlinks: true }],
      ["durable", "is not an option of this module; remove it or correct its name", { directory: "x", durable: true }]
    ]
    for (const [option, reason, options] of cases) {
      it.live(`are InvalidOptions: ${option} ${reason}`, () =>
        Effect.gen(function*() {
          const { error, message } = yield* failure(FileSystemStorage.make(options as FileSystemStorage.Options))
          expect(error).toMatchObject({ _tag: "InvalidOptions", module: "FileSystemStorage", option })
          expect(message).toBe(`FileSystemStorage: ${option} ${reason}`)
          expect(fs.existsSync("x")).toBe(false)
        }))
    }

    it.live(
      "may be undefined, where they have a default",
      inDirectory((directory) =>
        Effect.gen(function*() {
          yield* FileSystemStorage.make({ directory, durability: undefined, symlinks: undefined })
        })
      )
    )
  })

  describe("a removal with ifMatch", () => {
    it.live(
      "removes the version that it names, and no other",
      onDirectory(() =>
        Effect.gen(function*() {
          let first = 0
          for (let i = 0; i < 200; i++) {
            const { etag } = yield* Storage.save("k", bytes("old"))
            const turn = Effect.promise(() => new Promise((resolve) => setImmediate(resolve)))
            const [removed] = yield* Effect.zip(
              Effect.zipRight(
                Effect.repeatN(turn, i % 20),
                Effect.either(Storage.remove("k", { ifMatch: etag }))
              ),
              Storage.save("k", bytes("new")),
              { concurrent: true }
            )
            // Where the removal came second, it found another version.
            if (removed._tag === "Left") expect(removed.left._tag).toBe("PreconditionFailed")
            else first++
            expect(text(yield* Storage.load("k"))).toBe("new")
          }
          expect(first).toBeGreaterThan(0)
          const { etag } = yield* Storage.head("k")
          yield* Storage.remove("k", { ifMatch: etag })
          expect((yield* failure(Storage.remove("k", { ifMatch: etag }))).tag).toBe("PreconditionFailed")
        }), { durability: "relaxed" })
    )
  })

  describe("on disk", () => {
    it.live(
      "keeps an object in a file named like its key",
      onDirectory((directory) =>
        Effect.gen(function*() {
          yield* Storage.save("bert/layer 0/weights.bin", bytes("w"))
          expect(fs.readFileSync(path.join(directory, "bert/layer 0/weights.bin"), "utf8")).toBe("w")
        })
      )
    )

    it.live(
      "reads a directory that another program filled",
      onDirectory((directory) =>
        Effect.gen(function*() {
          put(path.join(directory, "config.json"), "{}")
          put(path.join(directory, "onnx/model 100%.onnx"), "onnx")
          put(path.join(directory, "a%20b/%41"), "escaped")
          fs.mkdirSync(path.join(directory, "empty/er"), { recursive: true })
          expect(yield* Storage.list()).toEqual(["a%20b/%41", "config.json", "onnx/model 100%.onnx"])
          expect(text(yield* Storage.load("onnx/model 100%.onnx"))).toBe("onnx")
          expect(text(yield* Storage.load("a%20b/%41"))).toBe("escaped")
          expect(yield* Storage.exists("empty")).toBe(false)
          expect((yield* Storage.listDirectory()).prefixes).toEqual(["a%20b/", "onnx/"])
        })
      )
    )

    it.live(
      "creates the directory and its parents",
      inDirectory((directory) =>
        Effect.gen(function*() {
          const deep = path.join(directory, "not/there/yet")
          yield* Effect.provide(Storage.save("k", bytes("v")), on(deep))
          expect(fs.readFileSync(path.join(deep, "k"), "utf8")).toBe("v")
        })
      )
    )

    it.live(
      "takes its options from Config",
      inDirectory((directory) =>
        Effect.gen(function*() {
          const layer = FileSystemStorage.layerConfig({ directory: Config.string("WEIGHTS_DIRECTORY") }).pipe(
            Layer.provide(Layer.setConfigProvider(ConfigProvider.fromMap(new Map([["WEIGHTS_DIRECTORY", directory]]))))
          )
          yield* Effect.provide(Storage.save("k", bytes("v")), layer)
          expect(fs.readFileSync(path.join(directory, "k"), "utf8")).toBe("v")
        })
      )
    )

    it.live(
      "removes empty folders with their last object, but not the base directory",
      onDirectory((directory) =>
        Effect.gen(function*() {
          yield* Storage.save("a/b/c", bytes("1"))
          yield* Storage.save("a/d", bytes("2"))
          yield* Storage.remove("a/b/c")
          expect(fs.readdirSync(path.join(directory, "a"))).toEqual(["d"])
          yield* Storage.remove("a/d")
          expect(fs.existsSync(path.join(directory, "a"))).toBe(false)
          expect(fs.existsSync(directory)).toBe(true)
        })
      )
    )

    it.live(
      "saves into a folder while its last object is removed",
      onDirectory(() =>
        Effect.gen(function*() {
          for (let i = 0; i < 200; i++) {
            const key = `folder/${i}`
            yield* Effect.zip(Storage.save(key, bytes(key)), Storage.remove(`folder/${i - 1}`), { concurrent: true })
          }
          expect(text(yield* Storage.load("folder/199"))).toBe("folder/199")
        }), { durability: "relaxed" })
    )

    it.live(
      "assigns a new etag to each of many fast saves",
      onDirectory(() =>
        Effect.gen(function*() {
          const infos = yield* Effect.forEach(
            Array.from({ length: 500 }, (_, i) => i),
            (i) => Storage.save("k", new Uint8Array([i % 256]))
          )
          expect(new Set(infos.map(({ etag }) => etag)).size).toBe(500)
          expect(yield* Storage.head("k")).toEqual(infos.at(-1))
        }), { durability: "relaxed" })
    )

    it.live(
      "has another etag after another program changed the file",
      onDirectory((directory) =>
        Effect.gen(function*() {
          const { etag } = yield* Storage.save("k", bytes("1"))
          fs.writeFileSync(path.join(directory, "k"), "2")
          expect((yield* Storage.head("k")).etag).not.toBe(etag)
          expect((yield* failure(Storage.load("k", { ifMatch: etag }))).tag).toBe("PreconditionFailed")
        })
      )
    )

    needs("functions of node:fs that a test can replace: Node", runtime === "node").live(
      "syncs file and folders before a save ends, and nothing with relaxed durability",
      inDirectory((directory) =>
        Effect.gen(function*() {
          const flushed: Array<string> = []
          const { fdatasync, fsync } = fs
          const note = <F extends typeof fsync>(flush: F) => (descriptor: number, done: fs.NoParamCallback) => {
            if (isLinux) flushed.push(fs.readlinkSync(`/proc/self/fd/${descriptor}`))
            else flushed.push("")
            flush(descriptor, done)
          }
          Object.assign(fs, { fsync: note(fsync), fdatasync: note(fdatasync) })
          syncBuiltinESMExports()
          yield* Effect.gen(function*() {
            yield* Effect.provide(Storage.save("folder/k", bytes("v")), on(directory))
            if (isLinux) {
              const real = fs.realpathSync(directory)
              expect(flushed[0]).toContain(".surfing-weights")
              // The new folder, and the one that it is new in.
              expect(flushed.slice(1).sort()).toEqual([real, path.join(real, "folder")])
            }
            expect(flushed.length).toBe(3)
            yield* Effect.provide(Storage.save("folder/j", bytes("v")), on(directory, { durability: "relaxed" }))
            expect(flushed.length).toBe(3)
          }).pipe(Effect.ensuring(Effect.sync(() => {
            Object.assign(fs, { fsync, fdatasync })
            syncBuiltinESMExports()
          })))
        })
      )
    )
  })

  describe("a long segment", () => {
    it.live(
      "is listed as one key, even if its pieces on disk look like other keys",
      onDirectory(() =>
        Effect.gen(function*() {
          const start = "y".repeat(253)
          const keys = [
            start,
            `${start}%+`,
            `${start}+`,
            `${start}.surfing-weights/x`,
            `${start}z/x`
          ]
          for (const key of keys) yield* Storage.save(key, bytes(key))
          expect(yield* Storage.list()).toEqual(keys)
          for (const key of keys) expect(text(yield* Storage.load(key))).toBe(key)
          yield* Storage.removeAll(keys)
          expect(yield* Storage.list()).toEqual([])
          yield* Storage.save(`${start}.surfing-weights`, bytes("x"))
          expect(yield* Storage.list()).toEqual([`${start}.surfing-weights`])
        })
      )
    )
  })

  describe("a key that is also a folder of another", () => {
    const cases = [
      { there: "foo", wanted: "foo/bar" },
      { there: "foo/bar", wanted: "foo" },
      { there: "foo", wanted: "foo/bar/baz" },
      { there: "foo/bar/baz", wanted: "foo/bar" }
    ]
    for (const { there, wanted } of cases) {
      it.live(
        `is refused, and both are named: ${wanted} beside ${there}`,
        onDirectory((directory) =>
          Effect.gen(function*() {
            yield* Storage.save(there, bytes("old"))
            yield* Storage.save("other", bytes("other"))
            for (
              const attempt of [
                Storage.save(wanted, bytes("new")),
                Storage.save(wanted, bytes("new"), { ifNoneMatch: "*" }),
                Storage.copy("other", wanted),
                Storage.move("other", wanted)
              ]
            ) {
              const { message, tag } = yield* failure(attempt)
              expect(tag).toBe("UnsupportedOperation")
              expect(message).toContain(JSON.stringify(there))
              expect(message).toContain(JSON.stringify(wanted))
            }
            expect(yield* Storage.list()).toEqual([there, "other"].sort())
            expect(text(yield* Storage.load(there))).toBe("old")
            expect(yield* leftovers).toEqual([])
            expect(yield* Storage.exists(wanted)).toBe(false)
            yield* Storage.remove(wanted)
            expect(fs.existsSync(path.join(directory, there))).toBe(true)
          })
        )
      )
    }

    it.live(
      "can be saved over an empty folder",
      onDirectory((directory) =>
        Effect.gen(function*() {
          fs.mkdirSync(path.join(directory, "foo"))
          yield* Storage.save("foo", bytes("new"))
          expect(text(yield* Storage.load("foo"))).toBe("new")
        })
      )
    )

    it.live(
      "is refused where the folder holds no object but cannot be removed",
      onDirectory((directory) =>
        Effect.gen(function*() {
          fs.mkdirSync(path.join(directory, "foo/bar"), { recursive: true })
          const { message, tag } = yield* failure(Storage.save("foo", bytes("new")))
          expect(tag).toBe("UnsupportedOperation")
          expect(message).toContain("\"foo/\"")
        })
      )
    )
  })

  describe("temporary files", () => {
    it.live(
      "of another machine are kept for a day after the last write",
      inDirectory((directory) =>
        Effect.gen(function*() {
          const old = path.join(directory, ".surfing-weights/elsewhere-boot-1-2-random-0")
          const recent = path.join(directory, ".surfing-weights/elsewhere-boot-1-2-random-1")
          const notOurs = path.join(directory, ".surfing-weights/README")
          for (const file of [old, recent, notOurs]) put(file, "x")
          const yesterday = Date.now() / 1000 - 25 * 60 * 60
          for (const file of [old, notOurs]) fs.utimesSync(file, yesterday, yesterday)
          yield* Effect.provide(Storage.list(), on(directory))
          expect([old, recent, notOurs].map((file) => fs.existsSync(file))).toEqual([false, true, true])
        })
      )
    )

    it.live(
      "are never listed, nor loaded under a key with the name of the hidden folder",
      onDirectory((directory) =>
        Effect.gen(function*() {
          put(path.join(directory, ".surfing-weights/x"), "temporary")
          expect(yield* Storage.list()).toEqual([])
          expect(yield* Storage.exists(".surfing-weights/x")).toBe(false)
          yield* Storage.save(".surfing-weights/x", bytes("object"))
          expect(yield* Storage.list()).toEqual([".surfing-weights/x"])
          expect(fs.readFileSync(path.join(directory, ".surfing-weights/x"), "utf8")).toBe("temporary")
        })
      )
    )
  })

  describe("symbolic links", () => {
    it.live(
      "that lead out of the directory are refused with a hint at the option",
      linked((_, outside) =>
        Effect.gen(function*() {
          for (const key of ["leak", "folder/secret"]) {
            for (
              const attempt of [
                Storage.load(key),
                Storage.head(key),
                Storage.exists(key),
                Storage.loadRanges(key, [ByteRange.from(0)]),
                Stream.runDrain(Storage.stream(key)),
                Storage.copy(key, "copy")
              ]
            ) {
              const { message, tag } = yield* failure<unknown, { _tag: string; message: string }, Storage.Storage>(
                attempt
              )
              expect(tag).toBe("AccessDenied")
              expect(message).toContain("symlinks: \"follow\"")
            }
          }
          for (
            const attempt of [
              Storage.save("folder/new", bytes("x")),
              Storage.save("folder/deep/new", bytes("x")),
              Storage.save("folder/secret", bytes("x"), { ifNoneMatch: "*" }),
              Storage.remove("folder/secret"),
              Storage.move("folder/secret", "mine"),
              Storage.copy("blobs/1", "folder/new"),
              Storage.move("blobs/1", "folder/new")
            ]
          ) {
            const { tag } = yield* failure<unknown, { _tag: string; message: string }, Storage.Storage>(attempt)
            expect(tag).toBe("AccessDenied")
          }
          expect(fs.readdirSync(outside)).toEqual(["secret"])
          expect(fs.readFileSync(path.join(outside, "secret"), "utf8")).toBe("secret")
          expect(yield* Storage.list()).toEqual(["blobs/1", "snapshot/1", "weights.bin"])
          expect(yield* Storage.list("folder/")).toEqual([])
          expect(yield* Storage.list("leak")).toEqual([])
          expect(yield* leftovers).toEqual([])
        })
      )
    )

    it.live(
      "within the directory are followed, and loops are not",
      linked(() =>
        Effect.gen(function*() {
          expect(text(yield* Storage.load("weights.bin"))).toBe("blob")
          expect(text(yield* Storage.load("snapshot/1"))).toBe("blob")
          expect((yield* Storage.head("weights.bin")).size).toBe(4)
          expect(
            Chunk.toReadonlyArray(yield* Stream.runCollect(Storage.entries())).map(({ key, size }) => ({ key, size }))
          )
            .toEqual(["blobs/1", "snapshot/1", "weights.bin"].map((key) => ({ key, size: 4 })))
        })
      )
    )

    it.live(
      "that lead out of the directory are followed with symlinks: \"follow\"",
      linked(() =>
        Effect.gen(function*() {
          expect(text(yield* Storage.load("leak"))).toBe("secret")
          expect(text(yield* Storage.load("folder/secret"))).toBe("secret")
          expect(yield* Storage.list()).toEqual(["blobs/1", "folder/secret", "leak", "snapshot/1", "weights.bin"])
        }), { symlinks: "follow" })
    )

    it.live(
      "without a target are not objects",
      linked(() =>
        Effect.gen(function*() {
          expect(yield* Storage.exists("dead")).toBe(false)
          expect((yield* failure(Storage.load("dead"))).tag).toBe("ObjectNotFound")
        })
      )
    )

    it.live(
      "are replaced by a save, which leaves their targets unchanged",
      linked((directory, outside) =>
        Effect.gen(function*() {
          yield* Storage.save("leak", bytes("mine"))
          yield* Storage.save("weights.bin", bytes("new"))
          expect(fs.readFileSync(path.join(outside, "secret"), "utf8")).toBe("secret")
          expect(fs.readFileSync(path.join(directory, "blobs/1"), "utf8")).toBe("blob")
          expect(text(yield* Storage.load("weights.bin"))).toBe("new")
        })
      )
    )

    it.live(
      "are moved as copies of their targets",
      linked((directory) =>
        Effect.gen(function*() {
          yield* Storage.move("weights.bin", "deep/er/weights.bin")
          expect(text(yield* Storage.load("deep/er/weights.bin"))).toBe("blob")
          expect(fs.existsSync(path.join(directory, "weights.bin"))).toBe(false)
          expect(text(yield* Storage.load("blobs/1"))).toBe("blob")
        })
      )
    )
  })

  describe("a system that does not know the path of an open file", () => {
    it.live(
      "loads objects, and refuses links that lead out of the directory",
      linked(() =>
        Effect.gen(function*() {
          const { readlinkSync } = fs
          Object.assign(fs, {
            readlinkSync: () => {
              throw new Error("not told")
            }
          })
          syncBuiltinESMExports()
          yield* Effect.gen(function*() {
            expect(text(yield* Storage.load("blobs/1"))).toBe("blob")
            expect(text(yield* Storage.load("weights.bin"))).toBe("blob")
            expect((yield* Stream.runCollect(Storage.stream("snapshot/1"))).length).toBe(1)
            for (const key of ["leak", "folder/secret"]) {
              expect((yield* failure(Storage.load(key))).tag).toBe("AccessDenied")
              expect((yield* failure(Stream.runDrain(Storage.stream(key)))).tag).toBe("AccessDenied")
            }
          }).pipe(Effect.ensuring(Effect.sync(() => {
            Object.assign(fs, { readlinkSync })
            syncBuiltinESMExports()
          })))
        })
      )
    )
  })

  describe("hard links", () => {
    it.live(
      "to one file are two objects, even if one is moved onto the other",
      onDirectory((directory) =>
        Effect.gen(function*() {
          yield* Storage.save("a", bytes("same"))
          fs.linkSync(path.join(directory, "a"), path.join(directory, "b"))
          yield* Storage.move("a", "b")
          expect(yield* Storage.list()).toEqual(["b"])
          yield* Storage.save("b", bytes("new"))
          expect(text(yield* Storage.load("b"))).toBe("new")
        })
      )
    )
  })

  describe("listings", () => {
    it.live(
      "leave out pipes, empty folders and names that are not valid keys",
      onDirectory((directory) =>
        Effect.gen(function*() {
          put(path.join(directory, "object"), "x")
          put(path.join(directory, "line\nbreak"), "x")
          put(path.join(directory, "line\nfolder/x"), "x")
          if (isLinux) {
            // Deno knows no names of files that are not UTF-8.
            if (runtime !== "deno") {
              fs.writeFileSync(Buffer.from([...Buffer.from(`${directory}/not-utf8-`), 0xff, 0xfe]), "x")
            }
            execFileSync("mkfifo", [path.join(directory, "pipe")])
            expect(yield* Storage.exists("pipe")).toBe(false)
            expect((yield* failure(Storage.load("pipe"))).tag).toBe("ObjectNotFound")
          }
          expect(yield* Storage.list()).toEqual(["object"])
          expect((yield* Stream.runCollect(Storage.entries())).length).toBe(1)
        })
      )
    )
  })

  describe("large objects", () => {
    it.live(
      "too large for an array are refused by load with a hint at stream",
      onDirectory((directory) =>
        Effect.gen(function*() {
          const file = fs.openSync(path.join(directory, "enormous"), "w")
          fs.ftruncateSync(file, 8 * 1024 ** 4)
          fs.closeSync(file)
          const { message, tag } = yield* failure(Storage.load("enormous"))
          expect(tag).toBe("UnsupportedOperation")
          expect(message).toContain("Storage.stream")
          expect((yield* Storage.load("enormous", { range: ByteRange.last(10) })).byteLength).toBe(10)
        })
      )
    )
  })

  describe("a file that changes under a reader", () => {
    it.live(
      "and is truncated fails with a truncated CorruptObject",
      onDirectory((directory) =>
        Effect.gen(function*() {
          yield* Storage.save("k", new Uint8Array(16 * 1024 * 1024))
          const outcome = yield* Effect.exit(Stream.runForEach(Storage.stream("k"), () =>
            Effect.sync(() =>
              fs.truncateSync(path.join(directory, "k"), 5 * 1024 * 1024 + 1)
            )))
          expect(outcome).toSatisfy((exit: typeof outcome) =>
            Exit.isFailure(exit) && exit.cause._tag === "Fail" && exit.cause.error._tag === "CorruptObject"
          )
        })
      )
    )

    it.live(
      "and is removed is read to its end",
      onDirectory(() =>
        Effect.gen(function*() {
          const content = new Uint8Array(9 * 1024 * 1024 + 5).map((_, i) => i % 253)
          yield* Storage.save("k", content)
          const hash = createHash("sha256")
          yield* Stream.runForEach(
            Storage.stream("k"),
            (chunk) => Effect.zipRight(Effect.sync(() => void hash.update(chunk)), Storage.remove("k"))
          )
          expect(hash.digest("hex")).toBe(createHash("sha256").update(content).digest("hex"))
          expect(yield* Storage.exists("k")).toBe(false)
        })
      )
    )
  })

  describe("file descriptors", () => {
    needs("/proc", isLinux).live(
      "are closed after loads, abandoned streams, and saves that fail or are interrupted",
      onDirectory((directory) =>
        Effect.gen(function*() {
          yield* Storage.save("k", new Uint8Array(16 * 1024 * 1024))
          const before = descriptorsOf(directory)
          for (let i = 0; i < 20; i++) {
            yield* Storage.load("k")
            yield* Stream.runHead(Storage.stream("k"))
            yield* Effect.scoped(Storage.open("k"))
            yield* Effect.either(Storage.load("k", { range: ByteRange.from(99_999_999) }))
            yield* Effect.exit(Storage.save("k", Stream.concat(Stream.make(bytes("x")), Stream.fail("broken"))))
            yield* Effect.exit(Storage.save("k", Stream.concat(Stream.make(bytes("x")), Stream.die("bug"))))
            yield* Effect.timeoutOption(
              Storage.save("k", Stream.concat(Stream.make(new Uint8Array(9_000_000)), Stream.never)),
              5
            )
            yield* Effect.timeoutOption(Stream.runForEach(Storage.stream("k"), () => Effect.never), 2)
            yield* Stream.runHead(Storage.entries())
          }
          expect(descriptorsOf(directory)).toEqual(before)
          expect(yield* leftovers).toEqual([])
        })
      )
    )
  })

  describe("an error of the system", () => {
    it.live(
      "is StorageNotFound where the base directory is a file, or below one",
      inDirectory((directory) =>
        Effect.gen(function*() {
          put(path.join(directory, "file"), "x")
          for (const bad of [path.join(directory, "file"), path.join(directory, "file/below")]) {
            const { error, message, tag } = yield* failure(FileSystemStorage.make({ directory: bad }))
            expect(tag).toBe("StorageNotFound")
            expect(message).toContain("is not a directory")
            expect(error).toMatchObject({ backend: `FileSystem(${bad})`, operation: "make" })
          }
        })
      )
    )

    it.live(
      "is StorageNotFound where the base directory does not exist and create is false, and nothing is created",
      inDirectory((directory) =>
        Effect.gen(function*() {
          const missing = path.join(directory, "a/typo")
          const { message, tag } = yield* failure(FileSystemStorage.make({ directory: missing, create: false }))
          expect(tag).toBe("StorageNotFound")
          expect(message).toBe(`make on FileSystem(${missing}): the directory ${missing} does not exist`)
          expect(fs.readdirSync(directory)).toEqual([])
          fs.mkdirSync(missing, { recursive: true })
          yield* FileSystemStorage.make({ directory: missing, create: false })
          expect(fs.readdirSync(missing)).toEqual([])
        })
      )
    )

    it.live(
      "is StorageNotFound where the base directory disappears during a listing, which does not just end",
      inDirectory((directory) =>
        Effect.gen(function*() {
          for (let i = 0; i < 4000; i++) put(path.join(directory, `folder-${i % 40}/${i}`), "x")
          const storage = yield* FileSystemStorage.make({ directory })
          const away = `${directory}-away`
          yield* Effect.addFinalizer(() => Effect.sync(() => fs.rmSync(away, { recursive: true, force: true })))
          let pages = 0
          const { tag } = yield* failure(Stream.runForEachChunk(storage.entries(), () =>
            Effect.sync(() => {
              if (pages++ === 0) fs.renameSync(directory, away)
            })))
          expect(tag).toBe("StorageNotFound")
          expect(pages).toBeGreaterThan(0)
        }).pipe(Effect.scoped)
      )
    )

    it.live(
      "is StorageNotFound in every operation once the base directory is gone",
      onDirectory((directory) =>
        Effect.gen(function*() {
          fs.rmSync(directory, { recursive: true })
          const attempts = {
            load: Storage.load("k"),
            loadNested: Storage.load("a/k"),
            head: Storage.head("k"),
            exists: Storage.exists("k"),
            save: Storage.save("k", bytes("v")),
            saveNested: Storage.save("a/k", bytes("v")),
            list: Storage.list(),
            entries: Stream.runDrain(Storage.entries({ prefix: "a/" })),
            listDirectory: Storage.listDirectory(),
            remove: Storage.remove("k"),
            removeAll: Storage.removeAll(["k", "a/k"]),
            copy: Storage.copy("k", "j"),
            move: Storage.move("k", "j")
          }
          for (const [name, attempt] of Object.entries(attempts)) {
            const { tag } = yield* failure<unknown, { _tag: string; message: string }, Storage.Storage>(attempt)
            expect(`${name} ${tag}`).toBe(`${name} StorageNotFound`)
          }
          fs.mkdirSync(directory)
        })
      )
    )

    it.live(
      "is InvalidKey where a save's path is too long, and a missing object in other operations",
      inDirectory((directory) =>
        Effect.gen(function*() {
          const deep = path.join(directory, ...Array.from({ length: 14 }, () => "d".repeat(240)))
          const key = ["k".repeat(240), "k".repeat(240), "k".repeat(240)].join("/")
          yield* Effect.gen(function*() {
            const { message, tag } = yield* failure(Storage.save(key, bytes("v")))
            expect(tag).toBe("InvalidKey")
            expect(message).toContain("longer than the file system allows")
            expect(yield* Storage.exists(key)).toBe(false)
            expect((yield* failure(Storage.load(key))).tag).toBe("ObjectNotFound")
            yield* Storage.remove(key)
          }).pipe(Effect.provide(on(deep)))
        })
      )
    )

    needs("a mount of its own: root on Linux", canMount).live(
      "is StorageFull where the disk is full; the old object is kept, and nothing else",
      inDirectory((directory) =>
        Effect.gen(function*() {
          execFileSync("mount", ["-t", "tmpfs", "-o", "size=1m", "tmpfs", directory])
          yield* Effect.gen(function*() {
            yield* Storage.save("k", bytes("old"))
            for (
              const data of [
                new Uint8Array(2 * 1024 * 1024),
                Stream.take(Stream.repeatValue(new Uint8Array(64 * 1024)), 200)
              ]
            ) {
              const { message, tag } = yield* failure(Storage.save("k", data))
              expect(tag).toBe("StorageFull")
              expect(message).toContain("full")
            }
            expect(text(yield* Storage.load("k"))).toBe("old")
            expect(temporaryFiles(directory)).toEqual([])
            yield* Storage.save("k", new Uint8Array(900 * 1024))
          }).pipe(Effect.provide(on(directory)))
        }).pipe(Effect.ensuring(Effect.sync(() => execFileSync("umount", [directory]))))
      )
    )

    needs("a mount of its own: root on Linux", canMount).live(
      "is AccessDenied where a save meets a read-only disk, from which loads still work",
      inDirectory((directory) =>
        Effect.gen(function*() {
          execFileSync("mount", ["-t", "tmpfs", "-o", "size=1m", "tmpfs", directory])
          put(path.join(directory, "k"), "there")
          execFileSync("mount", ["-o", "remount,ro", directory])
          yield* Effect.gen(function*() {
            expect(text(yield* Storage.load("k"))).toBe("there")
            const { message, tag } = yield* failure(Storage.save("k", bytes("new")))
            expect(tag).toBe("AccessDenied")
            expect(message).toContain("read-only")
            expect((yield* failure(Storage.remove("k"))).tag).toBe("AccessDenied")
          }).pipe(Effect.provide(on(directory)))
        }).pipe(Effect.ensuring(Effect.sync(() => execFileSync("umount", [directory]))))
      )
    )

    needs("a mount of its own: root on Linux", canMount).live(
      "is UnsupportedOperation with advice where a folder is on another file system",
      inDirectory((directory) =>
        Effect.gen(function*() {
          const other = path.join(directory, "mounted")
          fs.mkdirSync(other)
          execFileSync("mount", ["-t", "tmpfs", "-o", "size=1m", "tmpfs", other])
          yield* Effect.gen(function*() {
            for (const options of [{}, { ifNoneMatch: "*" as const }]) {
              const { message, tag } = yield* failure(Storage.save("mounted/k", bytes("new"), options))
              expect(tag).toBe("UnsupportedOperation")
              expect(message).toContain("another file system")
            }
            expect(fs.readdirSync(other)).toEqual([])
            expect(temporaryFiles(directory)).toEqual([])
          }).pipe(
            Effect.provide(on(directory)),
            Effect.ensuring(Effect.sync(() => execFileSync("umount", [other])))
          )
        })
      )
    )
  })
})
