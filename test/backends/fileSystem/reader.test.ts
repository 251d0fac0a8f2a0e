/**
 * How files are read: opened once, closed, small ones at once, others in chunks of which each may reuse the last one's array.
 */
import { describe, it } from "@effect/vitest"
import { Effect, Exit, Fiber, Stream } from "effect"
import * as fs from "node:fs"
import * as path from "node:path"
import { ByteRange, FileSystemStorage, Storage, StoragePrefix } from "surfing-weights"
import { expect } from "vitest"
import { temporaryDirectory } from "../../support/directory.js"
import { isLinux, needs, onDirectory } from "../../support/fileSystem.js"
import { openedPaths, recording } from "../../support/fsCalls.js"

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
            const before = isLinux ? fs.readdirSync("/proc/self/fd").length : 0
            const [, calls] = yield* recording(Effect.exit(read("object")))
            const opened = openedPaths(calls).filter((file) => file.endsWith("/object"))
            expect(opened.length, `how often a file of ${size} bytes is opened`).toBe(1)
            if (isLinux) expect(fs.readdirSync("/proc/self/fd").length, `descriptors after ${size} bytes`).toBe(before)
          }
        }), { durability: "relaxed" })
    )
  }

  needs("/proc", isLinux).live(
    "is closed when a large load is interrupted",
    onDirectory((directory) =>
      Effect.gen(function*() {
        fs.writeFileSync(path.join(directory, "object"), new Uint8Array(64 * MiB))
        const before = fs.readdirSync("/proc/self/fd").length
        let interrupted = 0
        for (let i = 0; i < 20; i++) {
          const load = yield* Effect.fork(Storage.load("object"))
          for (let yielded = 0; yielded < i; yielded++) yield* Effect.promise(() => new Promise(setImmediate))
          const exit = yield* Fiber.interrupt(load)
          if (Exit.isInterrupted(exit)) interrupted++
        }
        expect(interrupted).toBeGreaterThan(0)
        expect(fs.readdirSync("/proc/self/fd").length).toBe(before)
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
