/**
 * Etags on file systems whose times have whole seconds, whose inodes are renumbered, or that change a file when it is renamed.
 */
import { describe } from "@effect/vitest"
import { Effect, Stream } from "effect"
import * as fs from "node:fs"
import * as path from "node:path"
import { FileSystemStorage, type Storage } from "surfing-weights"
import { expect } from "vitest"
import { temporaryFiles } from "../../support/directory.js"
import { bytes, needs, text } from "../../support/fileSystem.js"
import { canMountFuse, canMountWith, encfs, image, s3fs } from "../../support/mounts.js"
import { makeBucket, server } from "../../support/s3Bucket.js"

const ext4 = "mkfs.ext4 and root on Linux"
const fileSystems = [
  ["ext4 with small inodes", ext4, canMountWith("mkfs.ext4"), image("mkfs.ext4", "-I", "128")],
  ["ext3 with small inodes", ext4, canMountWith("mkfs.ext3"), image("mkfs.ext3", "-I", "128")],
  ["ext4", ext4, canMountWith("mkfs.ext4"), image("mkfs.ext4")],
  ["EncFS", "encfs, FUSE and root on Linux", canMountFuse("encfs"), encfs]
] as const

const attributes = (version: string) => ({ attributes: { metadata: { version } } })

/** Each etag that the storage tells of an object, which must be one. */
const etagOf = (storage: Storage.Service, key: string) =>
  Effect.gen(function*() {
    const { etag } = yield* storage.head(key)
    const opened = yield* Effect.scoped(storage.open(key))
    const listed = (yield* storage.listDirectory()).objects.find((object) => object.key === key)
    expect([opened.info.etag, listed?.etag], key).toEqual([etag, etag])
    return etag
  })

/** Forgets what the kernel knows of files, where a process may. */
const forget = () => fs.writeFileSync("/proc/sys/vm/drop_caches", "2")

for (const [name, what, has, mount] of fileSystems) {
  const on = <E>(test: (directory: string) => Effect.Effect<void, E>) => () =>
    Effect.scoped(Effect.flatMap(mount, test))

  describe(`etags on ${name}`, () => {
    needs(what, has).live(
      "are different for each of many saves in a second, of any storage, and hold after a restart",
      on((directory) =>
        Effect.gen(function*() {
          const etags = new Set<string>()
          const tell = (storage: Storage.Service, key: string, etag: string) =>
            Effect.gen(function*() {
              expect(yield* etagOf(storage, key), `${key}, the save ${etags.size}`).toBe(etag)
              expect(etags).not.toContain(etag)
              etags.add(etag)
            })
          for (let i = 0; i < 12; i++) {
            const storage = yield* FileSystemStorage.make({ directory, durability: "relaxed" })
            const content = bytes(String(i).padStart(4))
            const saved = yield* storage.save("k", content, i % 3 === 0 ? attributes(String(i)) : {})
            yield* tell(storage, "k", saved.etag)
            expect((yield* storage.head("k")).attributes).toEqual(saved.attributes)
            yield* tell(storage, "copy", (yield* storage.copy("k", "copy")).etag)
            yield* storage.save("from", content)
            yield* tell(storage, "to", (yield* storage.move("from", "to")).etag)
            expect((yield* storage.head("k")).etag).toBe(saved.etag)
            if (i % 7 === 0) yield* storage.removeAll(["k", "copy", "to"])
          }
          expect(etags.size).toBe(36)
          const storage = yield* FileSystemStorage.make({ directory })
          const { etag } = yield* storage.save("k", bytes("last"))
          forget()
          const restarted = yield* FileSystemStorage.make({ directory })
          expect(yield* etagOf(restarted, "k")).toBe(etag)
          expect(text(yield* restarted.load("k", { ifMatch: etag }))).toBe("last")
          expect((yield* restarted.save("k", bytes("then"), { ifMatch: etag })).size).toBe(4)
          expect(temporaryFiles(directory)).toEqual([])
        })
      )
    )

    needs(what, has).live(
      "fail the save and the resumed load of another version, of equal size and time",
      on((directory) =>
        Effect.gen(function*() {
          const storage = yield* FileSystemStorage.make({ directory })
          const seen = yield* storage.save("w", bytes("A-1-"))
          yield* storage.save("w", bytes("B-1-"))
          yield* storage.save("w", bytes("B-2-"))
          const conditions = {
            save: storage.save("w", bytes("A-2-"), { ifMatch: seen.etag }),
            remove: storage.remove("w", { ifMatch: seen.etag }),
            load: storage.load("w", { ifMatch: seen.etag }),
            stream: Stream.runDrain(storage.stream("w", { ifMatch: seen.etag }))
          }
          for (const [operation, effect] of Object.entries(conditions)) {
            expect((yield* Effect.flip<unknown, { readonly _tag: string }, never>(effect))._tag, operation)
              .toBe("PreconditionFailed")
          }
          expect(text(yield* storage.load("w", { ifNoneMatch: seen.etag }))).toBe("B-2-")
        })
      )
    )

    needs(what, has).live(
      "change when another program writes in place, with the same size and time",
      on((directory) =>
        Effect.gen(function*() {
          const storage = yield* FileSystemStorage.make({ directory })
          const { etag } = yield* storage.save("k", bytes("old"))
          const file = path.join(directory, "k")
          fs.writeFileSync(file, "new")
          const written = yield* etagOf(storage, "k")
          expect(written).not.toBe(etag)
          // What cannot be told apart within a second or a tick of the clock, can after it.
          yield* Effect.sleep(1100)
          const { atime, mtime } = fs.statSync(file)
          fs.writeFileSync(file, "own")
          fs.utimesSync(file, atime, mtime)
          const kept = yield* storage.head("k")
          expect([kept.size, Math.floor(kept.lastModified.getTime() / 1000)]).toEqual([
            3,
            Math.floor(mtime.getTime() / 1000)
          ])
          expect(kept.etag).not.toBe(written)
        })
      )
    )
  })
}

describe("etags on s3fs", () => {
  needs("s3fs, FUSE, Ceph and root on Linux", canMountFuse("s3fs") && server.kind === "radosgw").live(
    "are the same from each operation, and hold once the kernel has forgotten the files",
    () =>
      Effect.scoped(Effect.gen(function*() {
        const directory = yield* s3fs(yield* makeBucket, server)
        const storage = yield* FileSystemStorage.make({ directory })
        const etags = new Set<string>()
        for (let i = 0; i < 4; i++) {
          const key = i === 3 ? "moved" : "k"
          const { attributes: told, etag } = i === 3
            ? yield* storage.move("k", key)
            : yield* storage.save(key, bytes(String(i)), i === 1 ? {} : attributes(String(i)))
          for (const forgets of [false, true]) {
            if (forgets) forget()
            expect(yield* etagOf(storage, key)).toBe(etag)
            expect((yield* storage.head(key)).attributes).toEqual(told)
          }
          // A move keeps the version.
          if (i < 3) expect(etags).not.toContain(etag)
          etags.add(etag)
          yield* storage.load(key, { ifMatch: etag })
        }
        const { etag } = yield* storage.head("moved")
        yield* storage.save("moved", bytes("x"), { ifMatch: etag })
        expect((yield* Effect.flip(storage.save("moved", bytes("y"), { ifMatch: etag })))._tag).toBe(
          "PreconditionFailed"
        )
        yield* storage.removeAll(["moved"])
      }))
  )
})
