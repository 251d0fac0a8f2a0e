/**
 * Attributes on files beside other processes, and on another file system.
 */
import { describe, it } from "@effect/vitest"
import { Effect, Stream } from "effect"
import { execFileSync } from "node:child_process"
import * as fs from "node:fs"
import * as path from "node:path"
import { FileSystemStorage, Storage } from "surfing-weights"
import { expect } from "vitest"
import { temporaryFiles } from "../../support/directory.js"
import { attributeFiles, bytes, canMount, inDirectory, isRoot, needs, on } from "../../support/fileSystem.js"
import { child, output, untilReady } from "../../support/fileSystemProcesses.js"

/** Expects an object of `saveVersionsForever` to have the attributes of its bytes; returns whether it has any. */
const expectOneVersion = (storage: Storage.Service, key: string) =>
  Effect.scoped(Effect.gen(function*() {
    const { info, stream } = yield* storage.open(key)
    const content = Buffer.concat([...(yield* Stream.runCollect(stream))])
    const [version = -1] = content
    expect(content.every((byte) => byte === version)).toBe(true)
    expect(info.attributes, `the attributes of ${key} with ${version} in its bytes`).toEqual(
      version === 0 ? undefined : { metadata: { version: String(version) } }
    )
    return version !== 0
  }))

describe("attributes of files", () => {
  it.live(
    "match the bytes while another process writes, and after it was killed at any moment",
    inDirectory((directory) =>
      Effect.gen(function*() {
        let reads = 0
        for (let round = 0; round < 12; round++) {
          yield* Effect.scoped(Effect.gen(function*() {
            const process = yield* child("saveVersionsForever", directory)
            yield* untilReady(process)
            const storage = yield* FileSystemStorage.make({ directory })
            const end = Date.now() + 40 + 60 * Math.random()
            while (Date.now() < end) {
              for (const key of ["model/1", "copy/2", "moved/3"]) {
                const read = Effect.catchTag(expectOneVersion(storage, key), "ObjectNotFound", () => Effect.void)
                yield* read
                reads++
              }
            }
          }))
          const storage = yield* FileSystemStorage.make({ directory })
          const keys = yield* storage.list()
          const have = yield* Effect.filter(keys, (key) => expectOneVersion(storage, key))
          expect(attributeFiles(directory).length, "files of attributes").toBe(have.length)
          expect(temporaryFiles(directory)).toEqual([])
          expect(keys.length).toBeGreaterThan(0)
        }
        expect(reads).toBeGreaterThan(100)
      })
    )
  )

  needs("root", isRoot).live(
    "without permission to read them are AccessDenied for head, and the object can be loaded",
    inDirectory((directory) =>
      Effect.gen(function*() {
        yield* Storage.save("with", bytes("x"), { attributes: { cacheControl: "no-store" } }).pipe(
          Effect.zipRight(Storage.save("without", bytes("x"))),
          Effect.provide(on(directory))
        )
        fs.chmodSync(directory, 0o755)
        fs.chmodSync(path.join(directory, ".surfing-weights"), 0o700)
        const lines = yield* Effect.flatMap(
          child("asNobody", directory, "load:with", "head:with", "load:without", "head:without"),
          output
        )
        const outcomes = lines.trim().split("\n")
        expect(outcomes[0]).toBe("load:with success")
        expect(outcomes[1]).toMatch(/^head:with AccessDenied: .*\.surfing-weights.*EACCES/)
        expect(outcomes.slice(2)).toEqual(["load:without success", "head:without success"])
      }).pipe(Effect.scoped)
    )
  )

  needs("a mount of its own: root on Linux", canMount).live(
    "are kept on a file system whose times are whole seconds",
    inDirectory((directory) =>
      Effect.gen(function*() {
        const image = `${directory}-image`
        fs.writeFileSync(image, "")
        fs.truncateSync(image, 16 * 1024 * 1024)
        execFileSync("mkfs.ext4", ["-q", "-I", "128", image], { stdio: "ignore" })
        execFileSync("mount", ["-o", "loop", image, directory])
        yield* Effect.gen(function*() {
          for (const key of ["a", "b", "c"]) {
            yield* Storage.save(key, bytes(key), { attributes: { metadata: { key } } })
            yield* Storage.save(`${key}-without`, bytes(key))
          }
          for (const key of ["a", "b", "c"]) {
            expect((yield* Storage.head(key)).attributes).toEqual({ metadata: { key } })
            expect((yield* Storage.head(`${key}-without`)).attributes).toBe(undefined)
          }
          yield* Storage.save("a", bytes("new"))
          expect((yield* Storage.head("a")).attributes).toBe(undefined)
        }).pipe(
          Effect.provide(on(directory)),
          Effect.ensuring(Effect.sync(() => {
            execFileSync("umount", [directory])
            fs.rmSync(image)
          }))
        )
      })
    )
  )
})
