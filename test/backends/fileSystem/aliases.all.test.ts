/**
 * A file system that ignores case, as those of Windows and macOS do: NTFS.
 */
import { describe } from "@effect/vitest"
import { Effect } from "effect"
import { execFileSync } from "node:child_process"
import * as fs from "node:fs"
import * as path from "node:path"
import { Storage } from "surfing-weights"
import { expect } from "vitest"
import { bytes, canMount, failure, hasCommand, inDirectory, needs, on, text } from "../../support/fileSystem.js"

const hasNtfs = canMount && fs.existsSync("/dev/fuse") && hasCommand("mkntfs") && hasCommand("lowntfs-3g")

const ignoringCase = <E>(test: (directory: string) => Effect.Effect<void, E, Storage.Storage>) =>
  inDirectory((directory) =>
    Effect.acquireUseRelease(
      Effect.sync(() => {
        const image = path.join(directory, "image")
        const mounted = path.join(directory, "mounted")
        fs.mkdirSync(mounted)
        fs.writeFileSync(image, "")
        fs.truncateSync(image, 32 * 1024 * 1024)
        execFileSync("mkntfs", ["--force", "--fast", "--quiet", image], { stdio: "ignore" })
        execFileSync("lowntfs-3g", ["-o", "ignore_case", image, mounted], { stdio: "ignore" })
        return mounted
      }),
      (mounted) => Effect.provide(test(mounted), on(path.join(mounted, "base"))),
      (mounted) => Effect.sync(() => execFileSync("umount", [mounted]))
    )
  )

describe("where the file system ignores case", () => {
  const live = needs("root, FUSE and ntfs-3g", hasNtfs).live

  live(
    "a move that changes only the case of a key loses nothing",
    ignoringCase(() =>
      Effect.gen(function*() {
        yield* Storage.save("Model.bin", bytes("model"))
        expect((yield* Storage.move("Model.bin", "model.bin")).key).toBe("model.bin")
        expect(yield* Storage.list()).toEqual(["model.bin"])
        yield* Storage.save("Bert/weights.bin", bytes("bert"))
        yield* Storage.move("Bert/weights.bin", "bert/weights.bin")
        yield* Storage.move("bert/weights.bin", "BERT/Weights.bin", { attributes: {} })
        expect(text(yield* Storage.load("bert/weights.bin"))).toBe("bert")
        expect((yield* failure(Storage.move("model.bin", "Model.bin", { ifNoneMatch: "*" }))).tag)
          .toBe("ObjectAlreadyExists")
        expect(text(yield* Storage.load("model.bin"))).toBe("model")
        yield* Storage.move("MODEL.bin", "other.bin")
        expect(yield* Storage.list()).toEqual(["bert/weights.bin", "other.bin"])
      })
    )
  )

  live(
    "a move between two hard links leaves one, whatever the case of its keys",
    ignoringCase((mounted) =>
      Effect.gen(function*() {
        yield* Storage.save("A.bin", bytes("a"))
        fs.linkSync(path.join(mounted, "base/A.bin"), path.join(mounted, "base/B.bin"))
        yield* Storage.move("A.bin", "a.bin")
        expect(yield* Storage.list()).toEqual(["a.bin", "b.bin"])
        yield* Storage.move("A.bin", "B.bin")
        expect(yield* Storage.list()).toEqual(["b.bin"])
        expect(text(yield* Storage.load("B.bin"))).toBe("a")
      })
    )
  )

  live(
    "a copy onto another case, and removals of both, do no more than they say",
    ignoringCase(() =>
      Effect.gen(function*() {
        yield* Storage.save("A", bytes("a"))
        yield* Storage.copy("A", "a")
        expect(text(yield* Storage.load("A"))).toBe("a")
        yield* Storage.save("b", bytes("b"))
        expect(yield* Storage.removeAll(["A", "a"])).toEqual({ removed: 2, failed: [] })
        expect(yield* Storage.list()).toEqual(["b"])
      })
    )
  )

  live(
    "a key cannot reach the hidden folder in another case",
    ignoringCase((mounted) =>
      Effect.gen(function*() {
        yield* Storage.save("k", bytes("v"))
        const name = "elsewhere-boot-1-2-random-0"
        yield* Storage.save(`.Surfing-Weights/${name}`, bytes("object"))
        expect(fs.existsSync(path.join(mounted, "base/.surfing-weights", name))).toBe(false)
        expect(text(yield* Storage.load(`.Surfing-Weights/${name}`))).toBe("object")
      })
    )
  )
})
