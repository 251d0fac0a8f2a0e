/**
 * Copies of large objects to a directory that are broken off and resumed. With killed processes, and to S3: in
 * `test/command/resume.all.test.ts`.
 */
import { describe, expect, it } from "@effect/vitest"
import { Cause, Deferred, Effect, Exit, Fiber, Stream } from "effect"
import * as fs from "node:fs"
import * as path from "node:path"
import {
  FileSystemStorage,
  MemoryStorage,
  Storage,
  StorageBackend,
  StorageError,
  StorageMirror,
  StoragePrefix
} from "surfing-weights"
import { bytes, MiB, print } from "../support/content.js"
import { temporaryDirectory, temporaryFiles } from "../support/directory.js"
import { isLinux } from "../support/fileSystem.js"
import { text } from "../support/mirror.js"

const content = bytes(70 * MiB)
const other = bytes(70 * MiB, 1)
const key = "model.safetensors"

/** A storage with a large object whose stream ends in `end` at a position, and where it was read from. */
const breaking = (storage: Storage.Service, at: number, end: Effect.Effect<never, StorageError.LoadError>) =>
  Storage.make({
    ...storage.backend,
    open: (key, options) =>
      Effect.map(
        storage.backend.open(key, options),
        (opened) =>
          StorageBackend.mapStream(opened, (stream) =>
            Stream.suspend(() => {
              let left = at
              return Stream.mapEffect(stream, (chunk) => (left -= chunk.byteLength) < 0 ? end : Effect.succeed(chunk))
            }))
      )
  })

const broken = Effect.fail(new StorageError.StorageUnavailable({ reason: "the cable was cut" }))

/** The same storage, and the positions from which saves were resumed, and how many bytes they were given. */
const watched = (storage: Storage.Service) => {
  const seen = { positions: new Array<number>(), bytes: 0 }
  const watching = Storage.withProgress(storage, ({ bytes, operation, transferred }) =>
    Effect.sync(() => {
      if (operation !== "save") return
      seen.bytes += bytes
      if (bytes === 0 && transferred > 0) seen.positions.push(transferred)
    }))
  return { seen, storage: watching }
}

const setup = Effect.gen(function*() {
  const from = yield* MemoryStorage.make()
  yield* from.save(key, content)
  const directory = yield* temporaryDirectory
  const to = yield* FileSystemStorage.make({ directory, durability: "relaxed" })
  return { from, directory, to }
})

const copy = (from: Storage.Service, to: Storage.Service) =>
  StorageMirror.copyObject({ storage: from, key }, { storage: to, key })

/** The names of files that were left, with another owner. */
const disown = (directory: string, change: (host: string, boot: string) => string) => {
  const folder = path.join(directory, ".surfing-weights")
  for (const name of temporaryFiles(directory)) {
    const [resume, hash, version, host = "", boot = "", ...rest] = name.split("-")
    const owned = [resume, hash, version, change(host, boot), rest.slice(2).join("-")].join("-")
    fs.renameSync(path.join(folder, name), path.join(folder, owned))
  }
}

describe.runIf(isLinux)("a copy of a large object to a directory", () => {
  it.scopedLive("is resumed where its source failed, and writes only the rest", () =>
    Effect.gen(function*() {
      const { directory, from, to } = yield* setup
      const failure = yield* Effect.flip(copy(breaking(from, 40 * MiB, broken), to))
      expect(failure._tag).toBe("StorageUnavailable")
      expect(yield* to.list()).toEqual([])
      expect(temporaryFiles(directory)).toHaveLength(1)
      const { seen, storage } = watched(to)
      expect((yield* copy(from, storage))._tag).toBe("Copied")
      const [position = 0] = seen.positions
      expect(position).toBeGreaterThan(30 * MiB)
      expect(seen).toEqual({ positions: [position], bytes: 70 * MiB - position })
      expect(print(yield* to.load(key))).toBe(print(content))
      expect(temporaryFiles(directory)).toEqual([])
    }))

  it.scopedLive("is resumed by a sync, in a folder, as often as it is broken off", () =>
    Effect.gen(function*() {
      const { directory, from, to } = yield* setup
      const { seen, storage } = watched(to)
      const folder = yield* StoragePrefix.make(storage, "models")
      const sync = (source: Storage.Service) => Effect.exit(Stream.runDrain(StorageMirror.sync(source, folder)))
      for (const at of [20, 20, 20]) expect(Exit.isFailure(yield* sync(breaking(from, at * MiB, broken)))).toBe(true)
      expect(Exit.isSuccess(yield* sync(from))).toBe(true)
      expect(seen.positions).toHaveLength(3)
      expect(print(yield* to.load(`models/${key}`))).toBe(print(content))
      expect(temporaryFiles(directory)).toEqual([])
    }))

  it.scopedLive("is resumed after it was interrupted, with the permissions and the etag of any save", () =>
    Effect.gen(function*() {
      const { directory, from, to } = yield* setup
      yield* to.save(key, text("old"))
      fs.chmodSync(path.join(directory, key), 0o640)
      const reached = yield* Deferred.make<void>()
      const stalled = breaking(from, 40 * MiB, Effect.zipRight(Deferred.succeed(reached, void 0), Effect.never))
      const fiber = yield* Effect.fork(
        Stream.runDrain(StorageMirror.sync(stalled, to, { filter: (name) => name === key }))
      )
      yield* Deferred.await(reached)
      const exit = yield* Fiber.interrupt(fiber)
      expect(Exit.isFailure(exit) && Cause.isInterruptedOnly(exit.cause)).toBe(true)
      expect(new TextDecoder().decode(yield* to.load(key))).toBe("old")
      const [name = ""] = temporaryFiles(directory)
      expect(fs.statSync(path.join(directory, ".surfing-weights", name)).mode & 0o777).toBe(0o640)
      const { seen, storage } = watched(to)
      yield* Stream.runDrain(StorageMirror.sync(from, storage))
      expect(seen.positions).toHaveLength(1)
      expect(print(yield* to.load(key))).toBe(print(content))
      expect(fs.statSync(path.join(directory, key)).mode & 0o777).toBe(0o640)
      expect(temporaryFiles(directory)).toEqual([])
    }))

  it.scopedLive("starts anew where the object is to have other permissions than it was to have before", () =>
    Effect.gen(function*() {
      const { directory, from, to } = yield* setup
      yield* to.save("new", text("new"))
      yield* to.save(key, text("old"))
      fs.chmodSync(path.join(directory, key), 0o600)
      yield* Effect.flip(copy(breaking(from, 40 * MiB, broken), to))
      yield* to.remove(key)
      yield* copy(from, to)
      expect(fs.statSync(path.join(directory, key)).mode).toBe(fs.statSync(path.join(directory, "new")).mode)
      expect(temporaryFiles(directory)).toEqual([])
    }))

  it.scopedLive("starts anew where the source has changed, and has nothing of the old version", () =>
    Effect.gen(function*() {
      const { directory, from, to } = yield* setup
      yield* Effect.flip(copy(breaking(from, 40 * MiB, broken), to))
      yield* from.save(key, other)
      const { seen, storage } = watched(to)
      yield* copy(from, storage)
      expect(seen).toEqual({ positions: [], bytes: 70 * MiB })
      expect(print(yield* to.load(key))).toBe(print(other))
      expect(temporaryFiles(directory)).toEqual([])
    }))

  it.scopedLive("fails where the source changes while it is resumed, and starts anew after that", () =>
    Effect.gen(function*() {
      const { directory, from, to } = yield* setup
      yield* Effect.flip(copy(breaking(from, 40 * MiB, broken), to))
      const sizeLeft = () =>
        temporaryFiles(directory).map((name) => fs.statSync(path.join(directory, ".surfing-weights", name)).size)
      const before = sizeLeft()
      // It changes after it was looked at, before the rest is opened.
      const changing = Storage.make({
        ...from.backend,
        open: (key, options) => Effect.zipRight(Effect.orDie(from.save(key, other)), from.backend.open(key, options))
      })
      expect((yield* Effect.flip(copy(changing, to)))._tag).toBe("PreconditionFailed")
      expect(yield* to.list()).toEqual([])
      expect(sizeLeft()).toEqual(before)
      yield* copy(from, to)
      expect(print(yield* to.load(key))).toBe(print(other))
      expect(temporaryFiles(directory)).toEqual([])
    }))

  it.scopedLive("is resumed by one of two that run at once, and both are complete", () =>
    Effect.gen(function*() {
      const { directory, from, to } = yield* setup
      yield* Effect.flip(copy(breaking(from, 40 * MiB, broken), to))
      const { seen, storage } = watched(to)
      const outcomes = yield* Effect.all([copy(from, storage), copy(from, storage)], { concurrency: 2 })
      expect(outcomes.map(({ _tag }) => _tag)).toEqual(["Copied", "Copied"])
      expect(seen.positions).toHaveLength(1)
      expect(print(yield* to.load(key))).toBe(print(content))
      expect(temporaryFiles(directory)).toEqual([])
    }))

  it.scopedLive("uses what a dead process left, and nothing of a live one or from before the machine was started", () =>
    Effect.gen(function*() {
      const { directory, from, to } = yield* setup
      const owners = {
        dead: (host: string, boot: string) => `${host}-${boot}-4194305-1`,
        live: (host: string, boot: string) => `${host}-${boot}-${process.ppid}-`,
        "started again": (host: string) => `${host}-other--`
      }
      for (const [what, change] of Object.entries(owners)) {
        yield* Effect.flip(copy(breaking(from, 40 * MiB, broken), to))
        disown(directory, change)
        const { seen, storage } = watched(to)
        yield* copy(from, storage)
        expect(seen.positions.length, what).toBe(what === "dead" ? 1 : 0)
        expect(temporaryFiles(directory).length, what).toBe(what === "live" ? 1 : 0)
        for (const name of temporaryFiles(directory)) fs.rmSync(path.join(directory, ".surfing-weights", name))
        yield* to.remove(key)
      }
    }))

  it.scopedLive("that does not come leaves a file for a day, or until the machine is started again", () =>
    Effect.gen(function*() {
      const { directory, from, to } = yield* setup
      const left = Effect.zipRight(Effect.flip(copy(breaking(from, 10 * MiB, broken), to)), Effect.void)
      yield* left
      yield* FileSystemStorage.make({ directory })
      const [name = ""] = temporaryFiles(directory)
      expect(name).toMatch(/^resume-/)
      const yesterday = Date.now() / 1000 - 25 * 60 * 60
      fs.utimesSync(path.join(directory, ".surfing-weights", name), yesterday, yesterday)
      yield* FileSystemStorage.make({ directory })
      expect(temporaryFiles(directory)).toEqual([])
      yield* left
      disown(directory, (host) => `${host}-other--`)
      yield* FileSystemStorage.make({ directory })
      expect(temporaryFiles(directory)).toEqual([])
    }))

  it.scopedLive("leaves nothing where no byte came", () =>
    Effect.gen(function*() {
      const { directory, from, to } = yield* setup
      expect((yield* Effect.exit(copy(breaking(from, 0, broken), to)))._tag).toBe("Failure")
      expect(temporaryFiles(directory)).toEqual([])
    }))

  it.scopedLive("leaves nothing where the save itself fails", () =>
    Effect.gen(function*() {
      const { directory, from, to } = yield* setup
      yield* to.save(`${key}/config.json`, text("{}"))
      expect((yield* Effect.flip(copy(from, to)))._tag).toBe("UnsupportedOperation")
      expect(temporaryFiles(directory)).toEqual([])
    }))
})
