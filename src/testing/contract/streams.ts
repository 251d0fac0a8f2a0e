/**
 * Streams are whole or fail, contain one version of the object, and release it when their reader stops.
 */
import { expect } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Option from "effect/Option"
import * as Stream from "effect/Stream"
import * as ByteRange from "../../ByteRange.js"
import { concat } from "../../internal/bytes.js"
import type { ObjectInfo } from "../../StorageBackend.js"
import { isStorageError, type StorageError } from "../../StorageError.js"
import { gather, inChunks, MiB, none, pattern } from "./bytes.js"
import { type Check, group } from "./cases.js"
import { expectAbsent, expectBytes, expectComplete, expectObject, expectOneOf } from "./expect.js"

/** Changes an object when the first chunk of it has been read, and expects the rest of the same version, or a failure. */
const changesMidway: Check = (storage) =>
  Effect.gen(function*() {
    const old = pattern(8, 9 * MiB + 1)
    const changes: ReadonlyArray<readonly [string, Effect.Effect<ObjectInfo | void, StorageError>]> = [
      ["overwritten by as many bytes", storage.save("changing", pattern(9, 9 * MiB + 1))],
      ["overwritten by fewer bytes", storage.save("changing", pattern(10, 5 * MiB))],
      ["overwritten by more bytes", storage.save("changing", inChunks(pattern(11, 10 * MiB), [MiB]))],
      ["removed", storage.remove("changing")],
      [
        "copied over",
        Effect.zipRight(storage.save("source", pattern(12, 9 * MiB)), storage.copy("source", "changing"))
      ],
      ["moved over", storage.move("source", "changing")]
    ]
    for (const [index, [what, change]] of changes.entries()) {
      const operation = index % 2 === 0 ? "stream" : "open"
      yield* storage.save("changing", old)
      const read: Array<Uint8Array> = []
      const end = yield* Effect.scoped(Effect.gen(function*() {
        const stream = operation === "stream" ? storage.stream("changing") : (yield* storage.open("changing")).stream
        const pull = yield* Stream.toPull(stream)
        read.push(...(yield* pull))
        yield* change
        return yield* Effect.flip(Effect.forever(Effect.map(pull, (chunks) => read.push(...chunks))))
      }))
      const bytes = concat(read)
      expectBytes(`a stream of an object that was ${what}`, bytes, old.subarray(0, bytes.byteLength))
      if (Option.isNone(end)) {
        expect(bytes.byteLength, `the length of a stream of an object that was ${what}`).toBe(old.byteLength)
      } else {
        expect(isStorageError(end.value), `whether ${String(end.value)} is a StorageError`).toBe(true)
        expectComplete(storage, `a stream of an object that was ${what}`, end.value, operation, "changing")
      }
    }
  })

export const streams = group("streams", [
  {
    name: "a stream can be run again, also concurrently",
    needs: ["write"],
    check: (storage) =>
      Effect.gen(function*() {
        const bytes = pattern(1, 2 * MiB + 5)
        yield* storage.save("again", bytes)
        const stream = storage.stream("again")
        for (const read of yield* Effect.all([gather(stream), gather(stream)])) expectBytes("in turn", read, bytes)
        for (
          const read of yield* Effect.all([gather(stream), gather(stream), gather(stream)], {
            concurrency: "unbounded"
          })
        ) expectBytes("concurrently", read, bytes)
      })
  },
  {
    name: "a stream reads the object when it is run, not when it is created",
    needs: ["write"],
    check: (storage) =>
      Effect.gen(function*() {
        const stream = storage.stream("later")
        yield* storage.save("later", pattern(2, 100))
        expectBytes("the first run", yield* gather(stream), pattern(2, 100))
        yield* storage.save("later", pattern(3, 200))
        expectBytes("the second run", yield* gather(stream), pattern(3, 200))
      })
  },
  {
    name: "changing the chunks of a stream changes neither the object nor later chunks",
    needs: ["write"],
    check: (storage) =>
      Effect.gen(function*() {
        const bytes = pattern(4, 3 * MiB)
        yield* storage.save("own", bytes)
        const read = yield* storage.stream("own").pipe(
          Stream.map((chunk) => {
            const copy = chunk.slice()
            chunk.fill(0)
            return copy
          }),
          gather
        )
        expectBytes("the stream while its chunks are changed", read, bytes)
        const kept = yield* Stream.runCollect(storage.stream("own"))
        expectBytes("chunks that are kept until the end", concat([...kept]), bytes)
        yield* expectObject(storage, "own", bytes)
      })
  },
  {
    name: "a stream that is abandoned after one chunk releases the object",
    needs: ["write"],
    check: (storage) =>
      Effect.gen(function*() {
        const bytes = pattern(5, 9 * MiB)
        yield* storage.save("abandoned", bytes)
        yield* Effect.forEach(Array.from({ length: 40 }), () =>
          Effect.map(
            Stream.runCollect(Stream.take(storage.stream("abandoned"), 1)),
            (chunks) => {
              const first = concat([...chunks])
              expectBytes("the first chunk", first, bytes.subarray(0, first.byteLength))
            }
          ), { concurrency: 4, discard: true })
        const range = ByteRange.make(0, 3 * MiB)
        yield* Stream.runDrain(Stream.take(storage.stream("abandoned", { range }), 1))
        const failed = yield* storage.stream("abandoned").pipe(
          Stream.mapEffect(() => Effect.fail("enough")),
          Stream.runDrain,
          Effect.flip
        )
        expect(failed, "the failure of the reader").toBe("enough")
        yield* storage.save("abandoned", pattern(6, 10))
        yield* expectObject(storage, "abandoned", pattern(6, 10))
        yield* storage.remove("abandoned")
        yield* expectAbsent(storage, "abandoned")
      })
  },
  {
    name: "a reader that is interrupted at any moment releases the object",
    needs: ["write"],
    check: (storage) =>
      Effect.gen(function*() {
        yield* storage.save("interrupted", pattern(7, 9 * MiB))
        for (let round = 0; round < 20; round++) {
          const fiber = yield* Effect.fork(
            round % 3 === 0
              ? storage.load("interrupted")
              : round % 3 === 1
              ? Stream.runDrain(storage.stream("interrupted"))
              : Stream.runForEach(storage.stream("interrupted"), () => Effect.never)
          )
          yield* Effect.repeatN(Effect.yieldNow(), round)
          if (round % 2 === 0) yield* Effect.sleep(round / 4)
          yield* Fiber.interrupt(fiber)
        }
        yield* expectObject(storage, "interrupted", pattern(7, 9 * MiB))
        yield* storage.remove("interrupted")
        yield* expectAbsent(storage, "interrupted")
      })
  },
  {
    name: "a stream whose object changes midway continues with the old version or fails",
    needs: ["write"],
    check: changesMidway
  },
  {
    name: "reads of an object that is being overwritten return one version",
    needs: ["write"],
    check: (storage) =>
      Effect.gen(function*() {
        const versions = [pattern(13, MiB + 7), pattern(14, MiB + 7)]
        const wanted = [ByteRange.last(1000), ByteRange.make(0, 1000), ByteRange.make(500_000, 600_000)]
        const cut = (bytes: Uint8Array) =>
          concat([bytes.slice(-1000), bytes.slice(0, 1000), bytes.slice(500_000, 600_000)])
        const parts = versions.map(cut)
        yield* storage.save("flipping", versions[0] ?? none)
        const writer = yield* Effect.fork(
          Effect.forEach(versions, (bytes) => Effect.zipLeft(storage.save("flipping", bytes), Effect.yieldNow())).pipe(
            Effect.repeatN(15),
            // Otherwise a writer that never waits leaves no time for the I/O of the reads.
            Effect.zipRight(Effect.sleep(0)),
            Effect.forever
          )
        )
        const current = <A, E extends StorageError>(effect: Effect.Effect<A, E>) =>
          Effect.catchIf(effect, (error) => error._tag === "PreconditionFailed", () => Effect.succeed(undefined))
        for (let round = 0; round < 20; round++) {
          const loaded = yield* current(storage.load("flipping"))
          if (loaded !== undefined) expectOneOf("load", loaded, versions)
          const streamed = yield* current(gather(storage.stream("flipping")))
          if (streamed !== undefined) expectOneOf("stream", streamed, versions)
          const ranges = yield* current(storage.loadRanges("flipping", wanted))
          if (ranges !== undefined) expectOneOf("loadRanges", concat(ranges), parts)
          // So that no round meets the writer at the same step as the one before.
          yield* Effect.repeatN(Effect.yieldNow(), round % 5)
        }
        yield* Fiber.interrupt(writer)
        expectOneOf("the object", yield* storage.load("flipping"), versions)
      })
  }
])
