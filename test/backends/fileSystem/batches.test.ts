/**
 * Chunks of a file that are read ahead: in order and whole whatever the system reads at once, no further ahead than one batch,
 * and never after the file is closed.
 */
import { describe, expect, it } from "@effect/vitest"
import { Chunk, Deferred, Effect, Fiber, Stream } from "effect"
import * as fs from "node:fs"
import * as path from "node:path"
import { ByteRange, Storage } from "surfing-weights"
import { bytes as contentOf } from "../../support/content.js"
import { onDirectory } from "../../support/fileSystem.js"
import { replacing } from "../../support/fsCalls.js"

type Done = (error: NodeJS.ErrnoException | null, count: number) => void
type Readv = (descriptor: number, arrays: ReadonlyArray<Uint8Array>, position: number, done: Done) => void

const MiB = 1024 * 1024

/** Counts the bytes that are read, and the calls that have not returned. */
const counting = () => {
  const { readv } = fs
  const counted: Readv = (descriptor, arrays, position, done) => {
    reads.running++
    readv(descriptor, arrays, position, (error, count) => {
      reads.running--
      reads.bytes += count
      done(error, count)
    })
  }
  const reads = { bytes: 0, running: 0, counted: replacing({ readv: counted }) }
  return reads
}

describe("the chunks of a file", () => {
  it.live(
    "are its bytes in order, however few the system reads at once",
    onDirectory((directory) =>
      Effect.gen(function*() {
        const size = 5 * MiB + 12_345
        const content = contentOf(size)
        fs.writeFileSync(path.join(directory, "k"), content)
        const { readv } = fs
        let reads = 0
        // The first array only, half of it, or all.
        const few: Readv = (descriptor, arrays, position, done) => {
          const [first = new Uint8Array(0)] = arrays
          const some = [[first], [first.subarray(0, Math.ceil(first.byteLength / 2))], arrays][reads++ % 3] ?? arrays
          readv(descriptor, some, position, done)
        }
        const ranges = [undefined, ByteRange.from(1), ByteRange.make(100_000, 3 * MiB + 7), ByteRange.last(2 * MiB + 1)]
        for (const range of ranges) {
          for (const chunkSize of [undefined, 1000, 64 * 1024, 300_001, 100 * MiB]) {
            reads = 0
            const read = Stream.runCollect(Storage.stream("k", { range, chunkSize }))
            const chunks = Chunk.toReadonlyArray(yield* chunkSize === 1000 ? read : replacing({ readv: few })(read))
            const { endExclusive, start } = range === undefined
              ? { start: 0, endExclusive: size }
              : yield* ByteRange.resolve(range, size)
            expect(Buffer.compare(Buffer.concat(chunks), content.subarray(start, endExclusive))).toBe(0)
            const largest = Math.min(chunkSize ?? 256 * 1024, 2 * MiB)
            expect(chunks.slice(0, -1).every(({ byteLength }) => byteLength === largest)).toBe(true)
            // A reader that changes one changes no other.
            expect(new Set(chunks.map(({ buffer }) => buffer)).size).toBe(chunks.length)
          }
        }
      })
    )
  )

  it.live(
    "are read one batch ahead, and none before the second one is wanted",
    onDirectory((directory) =>
      Effect.gen(function*() {
        fs.writeFileSync(path.join(directory, "k"), contentOf(20 * MiB))
        const reads = counting()
        let taken = 0
        const slow = Stream.runForEachWhile(Storage.stream("k"), (chunk) =>
          Effect.map(Effect.sleep(20), () => {
            expect(reads.bytes - taken, `ahead of byte ${taken}`).toBeLessThanOrEqual(4 * MiB)
            if (taken === 0) expect(reads.bytes).toBe(2 * MiB)
            taken += chunk.byteLength
            return taken < 10 * MiB
          }))
        yield* reads.counted(slow)
        expect(taken).toBe(10 * MiB)
      })
    )
  )

  it.live(
    "are read less far ahead the more streams are open",
    onDirectory((directory) =>
      Effect.gen(function*() {
        fs.writeFileSync(path.join(directory, "k"), contentOf(20 * MiB))
        const reads = counting()
        const ahead = (streams: number) =>
          Effect.scoped(Effect.gen(function*() {
            const pulls = yield* Effect.replicateEffect(Stream.toPull(Storage.stream("k")), streams)
            // Opened by the first one, and reads ahead from the second on.
            yield* Effect.forEach(pulls, (pull) => pull, { concurrency: "unbounded" })
            while (reads.running > 0) yield* Effect.sleep(10)
            reads.bytes = 0
            for (let i = 0; i < 8; i++) yield* Effect.forEach(pulls, (pull) => pull, { concurrency: "unbounded" })
            do yield* Effect.sleep(10)
            while (reads.running > 0)
            return reads.bytes / streams
          }))
        yield* reads.counted(Effect.gen(function*() {
          const alone = yield* ahead(1)
          expect(yield* ahead(16)).toBeLessThanOrEqual(alone - MiB)
          // The others are closed.
          expect(yield* ahead(1)).toBe(alone)
        }))
      })
    )
  )

  it.live(
    "are read to the end of a call of the system before the file is closed",
    onDirectory((directory) =>
      Effect.gen(function*() {
        fs.writeFileSync(path.join(directory, "k"), contentOf(20 * MiB))
        const { closeSync, readv } = fs
        const isReading = yield* Deferred.make<void>()
        const events: Array<string> = []
        let reads = 0
        let ofFile = -1
        const slow: Readv = (descriptor, arrays, position, done) => {
          ofFile = descriptor
          if (reads++ === 0) return readv(descriptor, arrays, position, done)
          Effect.runSync(Deferred.succeed(isReading, undefined))
          setTimeout(() =>
            readv(descriptor, arrays, position, (error, count) => {
              events.push(error === null ? "read" : `failed: ${error.message}`)
              done(error, count)
            }), 100)
        }
        const closing = (descriptor: number) => {
          // Others are closed meanwhile: of folders, and of what this process reads besides.
          if (descriptor === ofFile) events.push("close")
          closeSync(descriptor)
        }
        const broken = [
          // Interrupted while it waits, while the reader works, and abandoned.
          (stream: Stream.Stream<Uint8Array, unknown, Storage.Storage>) => Stream.runDrain(stream),
          (stream: Stream.Stream<Uint8Array, unknown, Storage.Storage>) =>
            Stream.runForEach(Stream.drop(stream, 1), () => Effect.never),
          (stream: Stream.Stream<Uint8Array, unknown, Storage.Storage>) =>
            Effect.zipRight(Stream.runDrain(Stream.take(stream, 2)), Effect.never)
        ]
        for (const run of broken) {
          reads = 0
          ofFile = -1
          events.length = 0
          const isNext = yield* Deferred.make<void>()
          const fiber = yield* Effect.fork(
            replacing({ readv: slow, closeSync: closing })(Effect.ensuring(
              run(Storage.stream("k")),
              Deferred.succeed(isNext, undefined)
            ))
          )
          while (reads < 2) yield* Effect.sleep(1)
          yield* Fiber.interrupt(fiber)
          expect(events).toEqual(["read", "close"])
        }
        yield* Deferred.await(isReading)
      })
    )
  )
})
