/**
 * What a storage with progress reports of the bytes that pass through it.
 */
import { describe, expect, it } from "@effect/vitest"
import { Effect, Stream } from "effect"
import { ByteRange, FileSystemStorage, MemoryStorage, Storage, StorageError } from "surfing-weights"
import { bytes, MiB } from "../support/content.js"
import { temporaryDirectory } from "../support/directory.js"

/** A storage that records its reports. */
const reported = (storage: Storage.Service) => {
  const reports: Array<Storage.Progress> = []
  return {
    reports,
    storage: Storage.withProgress(storage, (progress) => Effect.sync(() => void reports.push(progress)))
  }
}

const content = bytes(5 * MiB + 3)
const halves = Stream.rechunk(Stream.make(content.subarray(0, 2 * MiB), content.subarray(2 * MiB)), 1)

/** The sum of the bytes of all reports, and the last of them. */
const summary = (reports: ReadonlyArray<Storage.Progress>) => ({
  sum: reports.reduce((sum, { bytes }) => sum + bytes, 0),
  last: reports.at(-1)
})

describe("Storage.withProgress", () => {
  it.effect("reports an array that is saved or loaded once, when it is", () =>
    Effect.gen(function*() {
      const { reports, storage } = reported(yield* MemoryStorage.make())
      yield* storage.save("a", content)
      yield* storage.load("a", { range: ByteRange.last(7) })
      yield* storage.loadRanges("a", [ByteRange.make(0, 2), ByteRange.last(3)])
      const all = (operation: "load" | "save", size: number) => ({
        operation,
        key: "a",
        bytes: size,
        transferred: size,
        total: size
      })
      expect(reports).toEqual([all("save", content.length), all("load", 7), all("load", 5)])
    }))

  it.effect("reports a stream that is saved chunk by chunk, with the total where the size was given", () =>
    Effect.gen(function*() {
      const { reports, storage } = reported(yield* MemoryStorage.make())
      yield* storage.save("a", halves, { size: content.length })
      yield* storage.save("b", halves)
      expect(reports.map(({ bytes, key, total, transferred }) => [key, bytes, transferred, total])).toEqual([
        ["a", 2 * MiB, 2 * MiB, content.length],
        ["a", 3 * MiB + 3, content.length, content.length],
        ["b", 2 * MiB, 2 * MiB, undefined],
        ["b", 3 * MiB + 3, content.length, undefined]
      ])
    }))

  it.scoped("reports every byte of a stream that is read, of a large file and of one that is in memory when opened", () =>
    Effect.gen(function*() {
      const inner = yield* FileSystemStorage.make({ directory: yield* temporaryDirectory, durability: "relaxed" })
      const { reports, storage } = reported(inner)
      for (const size of [0, 10, content.length]) {
        yield* inner.save("a", content.subarray(0, size))
        reports.length = 0
        yield* Stream.runDrain(storage.stream("a"))
        expect(summary(reports).sum).toBe(size)
        if (size > 0) {
          expect(summary(reports).last).toMatchObject({ operation: "load", key: "a", transferred: size, total: size })
        }
      }
    }))

  it.effect("changes neither the name, nor the failures of the storage", () =>
    Effect.gen(function*() {
      const inner = yield* MemoryStorage.make()
      const { reports, storage } = reported(inner)
      expect(storage.backend.name).toBe(inner.backend.name)
      const failure = yield* Effect.flip(storage.load("missing"))
      expect(failure).toEqual(yield* Effect.flip(inner.load("missing")))
      const broken = new StorageError.StorageUnavailable({ reason: "broken" })
      expect(yield* Effect.flip(storage.save("a", Stream.concat(halves, Stream.fail(broken))))).toBe(broken)
      expect(yield* inner.exists("a")).toBe(false)
      expect(reports.every(({ operation }) => operation === "save")).toBe(true)
    }))
})
