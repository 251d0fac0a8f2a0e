/**
 * Listings of an ordinary user in a directory that has folders of others.
 */
import { describe } from "@effect/vitest"
import { Chunk, Effect, Stream } from "effect"
import { execFileSync } from "node:child_process"
import * as fs from "node:fs"
import * as path from "node:path"
import { Storage } from "surfing-weights"
import { expect } from "vitest"
import {
  asNobody,
  bytes,
  canMount,
  failure,
  inDirectory,
  isRoot,
  needs,
  on,
  put,
  text
} from "../../support/fileSystem.js"

const keysOf = (options: Storage.ListOptions) =>
  Effect.map(Stream.runCollect(Storage.entries(options)), (infos) => Chunk.toReadonlyArray(infos).map(({ key }) => key))

/** A directory of an ordinary user, who then runs the test on it. */
const ofNobody = <E>(
  prepare: (directory: string) => void,
  test: (directory: string) => Effect.Effect<void, E, Storage.Storage>,
  options: Parameters<typeof on>[1] = {}
) =>
  inDirectory((directory) =>
    Effect.suspend(() => {
      fs.chownSync(directory, 65534, 65534)
      fs.chmodSync(directory, 0o755)
      prepare(directory)
      return asNobody(Effect.provide(test(fs.realpathSync(directory)), on(directory, options)))
    })
  )

describe("lost+found", () => {
  needs("a mount of its own: root on Linux", canMount).live(
    "of a new ext4 volume does not keep an ordinary user from using and listing it",
    inDirectory((directory) =>
      Effect.gen(function*() {
        const image = path.join(directory, "image")
        const volume = path.join(directory, "volume")
        fs.writeFileSync(image, "")
        fs.truncateSync(image, 16 * 1024 * 1024)
        execFileSync("mkfs.ext4", ["-q", "-F", image])
        fs.mkdirSync(volume)
        fs.chmodSync(directory, 0o755)
        execFileSync("mount", ["-o", "loop", image, volume])
        yield* Effect.gen(function*() {
          fs.chownSync(volume, 65534, 65534)
          expect(fs.readdirSync(volume)).toEqual(["lost+found"])
          yield* asNobody(
            Effect.gen(function*() {
              expect(yield* Storage.list()).toEqual([])
              yield* Storage.save("bert/weights.bin", bytes("w"))
              yield* Storage.save("z", bytes("z"))
              expect(yield* Storage.list()).toEqual(["bert/weights.bin", "z"])
              expect(yield* keysOf({})).toEqual(["bert/weights.bin", "z"])
              expect(yield* keysOf({ startAfter: "lost+found/a" })).toEqual(["z"])
              expect(yield* Storage.list("l")).toEqual([])
              expect(yield* Storage.list("lost+found/")).toEqual([])
              const { objects, prefixes } = yield* Storage.listDirectory()
              expect(objects.map(({ key }) => key)).toEqual(["z"])
              expect(prefixes).toEqual(["bert/"])
              yield* Storage.removeAll(["bert/weights.bin", "z"])
              expect(yield* Storage.list()).toEqual([])
            }).pipe(Effect.provide(on(volume)))
          )
        }).pipe(Effect.ensuring(Effect.sync(() => execFileSync("umount", [volume]))))
      })
    )
  )
})

describe("a folder that may not be read", () => {
  const closed = (directory: string) => {
    put(path.join(directory, "a/closed/secret"), "s")
    put(path.join(directory, "a/open"), "o")
    put(path.join(directory, "b"), "b")
    fs.chmodSync(path.join(directory, "a/closed"), 0o700)
  }

  needs("root", isRoot).live(
    "fails each listing that needs it, and is named with what to do",
    ofNobody(closed, (directory) =>
      Effect.gen(function*() {
        for (
          const attempt of [
            Storage.list(),
            Storage.list("a"),
            Storage.list("a/closed/"),
            Storage.listDirectory("a/"),
            Stream.runDrain(Storage.entries()),
            Stream.runDrain(Storage.entries({ prefix: "a/", startAfter: "a/b" }))
          ]
        ) {
          const { message, tag } = yield* failure<unknown, { _tag: string; message: string }, Storage.Storage>(attempt)
          expect(tag).toBe("AccessDenied")
          expect(message).toContain(`permission denied at ${directory}/a/closed (EACCES)`)
          expect(message).toContain("prefix")
        }
      }))
  )

  needs("root", isRoot).live(
    "does not disturb what has nothing to do with it",
    ofNobody(closed, () =>
      Effect.gen(function*() {
        expect(yield* Storage.list("b")).toEqual(["b"])
        expect(yield* Storage.list("a/o")).toEqual(["a/open"])
        expect(yield* keysOf({ startAfter: "a/d" })).toEqual(["a/open", "b"])
        expect(text(yield* Storage.load("a/open"))).toBe("o")
        yield* Storage.save("c/d", bytes("d"))
        yield* Storage.remove("c/d")
        expect(yield* Storage.list("c")).toEqual([])
      }))
  )

  needs("root", isRoot).live(
    "and neither entered is named where its folders cannot be reached",
    ofNobody(
      (directory) => {
        put(path.join(directory, "a/names/below/secret"), "s")
        fs.chmodSync(path.join(directory, "a/names"), 0o744)
      },
      (directory) =>
        Effect.gen(function*() {
          for (const attempt of [Storage.list(), Storage.list("a/names/below/"), Storage.listDirectory("a/")]) {
            const { message, tag } = yield* failure<unknown, { _tag: string; message: string }, Storage.Storage>(
              attempt
            )
            expect(tag).toBe("AccessDenied")
            expect(message).toContain(`permission denied at ${directory}/a/names (EACCES)`)
          }
        })
    )
  )

  needs("root", isRoot).live(
    "is named where it is the base directory itself, whose objects can be loaded",
    ofNobody(
      (directory) => {
        put(path.join(directory, "k"), "v")
        fs.chownSync(directory, 0, 0)
        fs.chmodSync(directory, 0o711)
      },
      (directory) =>
        Effect.gen(function*() {
          expect(text(yield* Storage.load("k"))).toBe("v")
          const { message, tag } = yield* failure(Storage.list())
          expect(tag).toBe("AccessDenied")
          expect(message).toContain(`permission denied at ${directory} (EACCES)`)
        })
    )
  )

  needs("root", isRoot).live(
    "is left out where a link leads to it out of the directory",
    ofNobody(
      (directory) => {
        put(path.join(directory, "k"), "v")
        put(path.join(directory, "away/closed/deep/file"), "secret")
        fs.chmodSync(path.join(directory, "away/closed"), 0o700)
        put(path.join(directory, "base/k"), "v")
        fs.symlinkSync("../away/closed/deep", path.join(directory, "base/folder"))
        fs.symlinkSync(path.join(directory, "away/closed/deep/file"), path.join(directory, "base/file"))
        fs.symlinkSync("file", path.join(directory, "base/link"))
      },
      (directory) =>
        Effect.gen(function*() {
          expect(yield* Effect.provide(Storage.list(), on(`${directory}/base`))).toEqual(["k"])
          const { message, tag } = yield* failure(
            Effect.provide(Storage.list(), on(`${directory}/base`, { symlinks: "follow" }))
          )
          expect(tag).toBe("AccessDenied")
          expect(message).toContain("permission denied at")
        })
    )
  )
})
