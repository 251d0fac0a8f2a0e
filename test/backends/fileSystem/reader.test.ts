/**
 * How files are read: opened once, closed, small ones at once, others in chunks of which each may reuse the last one's array.
 */
import { describe, it } from "@effect/vitest"
import { Effect, Either, Exit, Fiber, Stream } from "effect"
import { execFileSync } from "node:child_process"
import * as fs from "node:fs"
import * as path from "node:path"
import { ByteRange, FileSystemStorage, Storage, StorageError, StoragePrefix } from "surfing-weights"
import { expect } from "vitest"
import { temporaryDirectory } from "../../support/directory.js"
import { descriptorsOf, isLinux, needs, onDirectory } from "../../support/fileSystem.js"
import { openedPaths, recording, replacing } from "../../support/fsCalls.js"

const KiB = 1024
const MiB = 1024 * KiB

/** Bytes that do not repeat where a chunk begins. */
const contentOf = (size: number) => Uint8Array.from({ length: size }, (_, at) => Math.imul(at, 0x9e3779b1) >>> 24)

const sizes = [0, 1, 4 * KiB, 64 * KiB, 64 * KiB + 1, 3 * MiB, 8 * MiB, 8 * MiB + 1, 20 * MiB]

const reads: Record<string, (key: string) => Effect.Effect<unknown, unknown, Storage.Storage>> = {
  load: (key) => Storage.load(key),
  "load of a range": (key) => Storage.load(key, { range: ByteRange.from(0) }),
  loadRanges: (key) => Storage.loadRanges(key, [ByteRange.from(0), ByteRange.last(3)]),
  stream: (key) => Stream.runDrain(Storage.stream(key)),
  "stream of small chunks": (key) => Stream.runDrain(Storage.stream(key, { chunkSize: 64 * KiB })),
  "stream of which the first chunk is read": (key) => Stream.runHead(Storage.stream(key)),
  open: (key) => Effect.scoped(Storage.open(key)),
  "open and read": (key) => Effect.scoped(Effect.flatMap(Storage.open(key), ({ stream }) => Stream.runDrain(stream))),
  "open in one array": (key) =>
    Effect.scoped(
      Effect.flatMap(Storage.open(key), ({ reuse, stream }) => Stream.runDrain(reuse?.(() => true) ?? stream))
    ),
  copy: (key) => Storage.copy(key, "copy"),
  "load under another etag": (key) => Effect.flip(Storage.load(key, { ifMatch: "other" })),
  "stream under another etag": (key) => Effect.flip(Stream.runDrain(Storage.stream(key, { ifMatch: "other" }))),
  "load beyond the end": (key) => Effect.flip(Storage.load(key, { range: ByteRange.from(1e9) }))
}

describe("a file", () => {
  for (const [name, read] of Object.entries(reads)) {
    it.live(
      `is opened once, and closed, by ${name}`,
      onDirectory((directory) =>
        Effect.gen(function*() {
          for (const size of sizes) {
            fs.writeFileSync(path.join(directory, "object"), new Uint8Array(size))
            const before = isLinux ? descriptorsOf(directory) : []
            const [, calls] = yield* recording(Effect.exit(read("object")))
            const opened = openedPaths(calls).filter((file) => file.endsWith("/object"))
            expect(opened.length, `how often a file of ${size} bytes is opened`).toBe(1)
            if (isLinux) expect(descriptorsOf(directory), `descriptors after ${size} bytes`).toEqual(before)
          }
        }), { durability: "relaxed" })
    )
  }

  needs("/proc", isLinux).live(
    "is closed when a large load is interrupted",
    onDirectory((directory) =>
      Effect.gen(function*() {
        fs.writeFileSync(path.join(directory, "object"), new Uint8Array(64 * MiB))
        const before = descriptorsOf(directory)
        let interrupted = 0
        for (let i = 0; i < 20; i++) {
          const load = yield* Effect.fork(Storage.load("object"))
          for (let yielded = 0; yielded < i; yielded++) yield* Effect.promise(() => new Promise(setImmediate))
          const exit = yield* Fiber.interrupt(load)
          if (Exit.isInterrupted(exit)) interrupted++
        }
        expect(interrupted).toBeGreaterThan(0)
        expect(descriptorsOf(directory)).toEqual(before)
      })
    )
  )

  it.live(
    "that is small is in memory once it is opened",
    onDirectory((directory) =>
      Effect.gen(function*() {
        const storage = yield* Storage.Storage
        for (const [size, isInMemory] of [[0, true], [64 * KiB, true], [64 * KiB + 1, false]] as const) {
          const content = contentOf(size)
          fs.writeFileSync(path.join(directory, "object"), content)
          yield* Effect.scoped(Effect.gen(function*() {
            const { bytes, position } = yield* storage.open("object")
            expect(bytes !== undefined, `whether ${size} bytes are in memory`).toBe(isInMemory)
            if (bytes !== undefined) expect(Buffer.compare(bytes, content)).toBe(0)
            expect(position()).toBe(isInMemory ? size : 0)
          }))
        }
        const { bytes } = yield* Effect.scoped(storage.open("object", { range: ByteRange.make(7, 17) }))
        expect(bytes).toEqual(contentOf(17).subarray(7))
        const { bytes: chunked } = yield* Effect.scoped(
          storage.open("object", { chunkSize: 9, range: ByteRange.make(7, 17) })
        )
        expect(chunked).toBe(undefined)
      })
    )
  )
})

const size = 4 * MiB + 5
const content = contentOf(size)
const chunkSize = 512 * KiB
const count = Math.ceil(size / chunkSize)

/** What was read, as it was then, and in how many arrays it came. */
const collect = <E, R>(stream: Stream.Stream<Uint8Array, E, R>) =>
  Effect.gen(function*() {
    const arrays = new Set<ArrayBufferLike>()
    const copies: Array<Uint8Array> = []
    yield* Stream.runForEach(stream, (chunk) =>
      Effect.sync(() => {
        arrays.add(chunk.buffer)
        copies.push(new Uint8Array(chunk))
      }))
    return { arrays: arrays.size, whole: Buffer.concat(copies).equals(content) }
  })

const opened = Effect.gen(function*() {
  const storage = yield* FileSystemStorage.make({ directory: yield* temporaryDirectory, durability: "relaxed" })
  yield* storage.save("folder/object", content)
  return yield* (yield* StoragePrefix.make(storage, "folder")).open("object", { chunkSize })
})

const reusing = (isFree: () => boolean) =>
  Effect.map(opened, ({ reuse }) => reuse?.(isFree) ?? Stream.dieMessage("the object does not reuse its array"))

describe("a stream of a file", () => {
  it.scopedLive("has an array of its own for each chunk, and can be read twice", () =>
    Effect.gen(function*() {
      const { position, stream } = yield* opened
      expect(yield* collect(stream)).toEqual({ arrays: count, whole: true })
      expect(position()).toBe(size)
      expect(yield* collect(stream)).toEqual({ arrays: count, whole: true })
    }))

  it.scopedLive("reuses one array where each chunk is free before the next, the last and shorter one, too", () =>
    Effect.gen(function*() {
      expect(yield* collect(yield* reusing(() => true))).toEqual({ arrays: 1, whole: true })
    }))

  it.scopedLive("takes another array where the last chunk is still in use", () =>
    Effect.gen(function*() {
      let asked = 0
      const kept: Array<Uint8Array> = []
      const stream = yield* reusing(() => ++asked !== 3)
      yield* Stream.runForEach(stream, (chunk) => Effect.sync(() => void kept.push(chunk)))
      expect(asked).toBe(count - 1)
      expect(kept.map(({ buffer }) => buffer === kept[0]?.buffer)).toEqual(
        Array.from({ length: count }, (_, index) => index < 3)
      )
      // What was in use has not been overwritten.
      expect(Buffer.from(kept[2] ?? []).equals(content.subarray(2 * chunkSize, 3 * chunkSize))).toBe(true)
    }))
})

const consistsOf = (bytes: Uint8Array, text: string) => Buffer.alloc(bytes.byteLength, text).equals(bytes)

type Done = (error: NodeJS.ErrnoException | null, count: number) => void

describe("a file that another program writes in place while it is read", () => {
  const writeAll = (file: string, byte: string, size: number) => {
    const descriptor = fs.openSync(file, "r+")
    fs.writeSync(descriptor, Buffer.alloc(size, byte))
    fs.closeSync(descriptor)
  }
  /** With the time and size that it had. */
  const writeHidden = (file: string, byte: string, size: number) => {
    const { atime, mtime } = fs.statSync(file)
    writeAll(file, byte, size)
    fs.utimesSync(file, atime, mtime)
  }
  const writes = {
    "written whole": writeAll,
    "written at its start": (file: string, byte: string) => writeAll(file, byte, 10),
    "written with its time set back": writeHidden,
    "copied over by another process": (file: string, byte: string, size: number) => {
      fs.writeFileSync(`${file}-new`, Buffer.alloc(size, byte))
      execFileSync("cp", [`${file}-new`, file])
    }
  }
  const size = 5 * MiB

  for (const [how, write] of Object.entries(writes)) {
    it.live(
      `and ${how}: a stream ends with a failure before it has a byte of the new version`,
      onDirectory((directory) =>
        Effect.gen(function*() {
          const storage = yield* Storage.Storage
          const file = path.join(directory, "k")
          const ways: Record<
            string,
            (see: (chunk: Uint8Array) => Effect.Effect<void>) => Effect.Effect<void, StorageError.StorageError>
          > = {
            stream: (see) => Stream.runForEach(storage.stream("k"), see),
            "stream of a range": (see) => Stream.runForEach(storage.stream("k", { range: ByteRange.from(9) }), see),
            "open with an array": (see) =>
              Effect.scoped(Effect.flatMap(storage.open("k"), ({ reuse, stream }) =>
                Stream.runForEach(
                  reuse?.(() => true) ?? stream,
                  see
                )))
          }
          for (const [name, way] of Object.entries(ways)) {
            yield* storage.save("k", Buffer.alloc(size, "A"))
            let seen = 0
            const read = way((chunk) =>
              Effect.sync(() => {
                expect(
                  chunk.every((byte) => byte === 65),
                  `chunk of ${name} at ${seen}`
                ).toBe(true)
                if (seen === 0) write(file, "B", size)
                seen += chunk.byteLength
              })
            )
            expect((yield* Effect.flip(read))._tag, name).toBe("PreconditionFailed")
            // Of what was read before.
            expect(seen, name).toBeLessThanOrEqual(2 * MiB)
          }
        })
      )
    )

    it.live(
      `and ${how}: a load, or an open of a small object, has the bytes of one version, as have copies`,
      onDirectory((directory) =>
        Effect.gen(function*() {
          const storage = yield* Storage.Storage
          const file = path.join(directory, "k")
          const loads: Record<string, Effect.Effect<Uint8Array, StorageError.StorageError>> = {
            load: storage.load("k"),
            "load of a range": storage.load("k", { range: ByteRange.from(1) }),
            loadRanges: Effect.map(
              storage.loadRanges("k", [ByteRange.make(0, 100), ByteRange.last(100)]),
              (parts) => Buffer.concat(parts)
            ),
            open: Effect.scoped(Effect.flatMap(storage.open("k"), ({ bytes, stream }) =>
              bytes !== undefined
                ? Effect.succeed(bytes)
                : Effect.map(Stream.runCollect(stream), (chunks) => Buffer.concat([...chunks])))),
            copy: Effect.zipRight(
              storage.copy("k", "copy"),
              Effect.sync(() => fs.readFileSync(path.join(directory, "copy")))
            )
          }
          for (const size of [64 * KiB, 9 * MiB]) {
            for (const [name, load] of Object.entries(loads)) {
              yield* storage.save("k", Buffer.alloc(size, "A"))
              const { read, readv } = fs
              let isWritten = false
              // After the first read, each of which reads half of what it should.
              const late = (
                descriptor: number,
                target: Uint8Array,
                at: number,
                length: number,
                position: number,
                done: Done
              ) =>
                read(descriptor, target, at, isWritten ? length : Math.ceil(length / 2), position, (error, count) => {
                  if (!isWritten) write(file, "B", size)
                  isWritten = true
                  done(error, count)
                })
              const lateBatch = (
                descriptor: number,
                targets: ReadonlyArray<Uint8Array>,
                position: number,
                done: Done
              ) =>
                readv(descriptor, targets.slice(0, isWritten ? undefined : 1), position, (error, count) => {
                  if (!isWritten) write(file, "B", size)
                  isWritten = true
                  done(error, count)
                })
              const outcome = yield* Effect.either(replacing({ read: late, readv: lateBatch })(load))
              expect(isWritten, name).toBe(true)
              const what = `${name} of ${size} bytes`
              if (Either.isLeft(outcome)) {
                expect(`${what} ${outcome.left._tag}`).toMatch(/^(copy|open) .* PreconditionFailed/)
              } else if (how === "written at its start") {
                expect([...outcome.right.subarray(0, 2)], what).toEqual([66, 66])
              } else expect(consistsOf(outcome.right, "B"), what).toBe(true)
            }
          }
        }), { durability: "relaxed" })
    )
  }

  it.live(
    "and again and again: a load fails, and may be tried again",
    onDirectory((directory) =>
      Effect.gen(function*() {
        const file = path.join(directory, "k")
        yield* Storage.save("k", Buffer.alloc(1000, "A"))
        const { read } = fs
        let byte = 66
        const late = (...args: Parameters<typeof read>) => {
          writeAll(file, String.fromCharCode(byte++), 1000)
          return read(...args)
        }
        const error = yield* Effect.flip(replacing({ read: late })(Storage.load("k")))
        expect(error._tag).toBe("StorageUnavailable")
        expect(error.message).toContain("another program is writing to the file of the object")
        expect(StorageError.isRetryable(error)).toBe(true)
      })
    )
  )

  it.live(
    "but only renamed, linked, replaced or removed, is read to its end",
    onDirectory((directory) =>
      Effect.gen(function*() {
        const file = path.join(directory, "k")
        const changes: Record<string, Effect.Effect<unknown, StorageError.StorageError, Storage.Storage>> = {
          save: Storage.save("k", Buffer.alloc(10)),
          move: Storage.move("k", "moved"),
          remove: Storage.remove("k"),
          link: Effect.sync(() => fs.linkSync(file, `${file}-linked`)),
          rename: Effect.sync(() => fs.renameSync(file, `${file}-renamed`))
        }
        for (const [name, change] of Object.entries(changes)) {
          yield* Storage.save("k", Buffer.alloc(size, "A"))
          let count = 0
          yield* Stream.runForEach(Storage.stream("k"), (chunk) =>
            Effect.zipRight(Effect.sync(() => (count += chunk.length)), count === chunk.length ? change : Effect.void))
          expect(count, name).toBe(size)
        }
      }), { durability: "relaxed" })
  )
})
