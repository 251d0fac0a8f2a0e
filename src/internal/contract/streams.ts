/**
 * Streams of objects: whole or an error, of one version, and released when their reader goes.
 */
import { expect } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Option from "effect/Option"
import * as Stream from "effect/Stream"
import * as ByteRange from "../../ByteRange.js"
import type { ObjectInfo } from "../../StorageBackend.js"
import { isStorageError, type StorageError } from "../../StorageError.js"
import {
  concat,
  expectAbsent,
  expectBytes,
  expectObject,
  expectOneOf,
  gather,
  group,
  inPieces,
  MiB,
  pattern
} from "./kit.js"

export const streams = group("streams", [
  {
    name: "a stream can be read again, and by several at once",
    needs: ["write"],
    slow: true,
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
        ) expectBytes("at once", read, bytes)
      })
  },
  {
    name: "a stream reads what is there when it is run, not when it is made",
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
    name:
      "the pieces of a stream are the reader's own: changing them changes neither the object nor the pieces to come",
    needs: ["write"],
    check: (storage) =>
      Effect.gen(function*() {
        const bytes = pattern(4, 3 * MiB)
        yield* storage.save("own", bytes)
        const read = yield* storage.stream("own").pipe(
          Stream.map((piece) => {
            const copy = piece.slice()
            piece.fill(0)
            return copy
          }),
          gather
        )
        expectBytes("what came while pieces were changed", read, bytes)
        const kept = yield* Stream.runCollect(storage.stream("own"))
        expectBytes("what came while pieces were kept", concat(kept), bytes)
        yield* expectObject(storage, "own", bytes)
      })
  },
  {
    name: "a stream abandoned after one piece lets go of the object",
    needs: ["write"],
    slow: true,
    check: (storage) =>
      Effect.gen(function*() {
        const bytes = pattern(5, 9 * MiB)
        yield* storage.save("abandoned", bytes)
        yield* Effect.forEach(Array.from({ length: 40 }), () =>
          Effect.map(
            Stream.runCollect(Stream.take(storage.stream("abandoned"), 1)),
            (pieces) => {
              const first = concat(pieces)
              expectBytes("the first piece", first, bytes.subarray(0, first.byteLength))
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
    name: "a reader interrupted at any moment lets go of the object",
    needs: ["write"],
    slow: true,
    check: (storage) =>
      Effect.gen(function*() {
        yield* storage.save("interrupted", pattern(7, 9 * MiB))
        for (let round = 0; round < 30; round++) {
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
    name: "a stream half read while its object changes goes on with the old object or fails, and never mixes the two",
    needs: ["write"],
    slow: true,
    check: (storage) =>
      Effect.gen(function*() {
        const old = pattern(8, 9 * MiB + 1)
        const changes: ReadonlyArray<readonly [string, Effect.Effect<ObjectInfo | void, StorageError>]> = [
          ["overwritten with as many bytes", storage.save("changing", pattern(9, 9 * MiB + 1))],
          ["overwritten with fewer bytes", storage.save("changing", pattern(10, 5 * MiB))],
          ["overwritten with more bytes", storage.save("changing", inPieces(pattern(11, 10 * MiB), [MiB]))],
          ["removed", storage.remove("changing")],
          [
            "copied over",
            Effect.zipRight(storage.save("source", pattern(12, 9 * MiB)), storage.copy("source", "changing"))
          ],
          ["moved over", storage.move("source", "changing")]
        ]
        for (const [what, change] of changes) {
          yield* storage.save("changing", old)
          const read: Array<Uint8Array> = []
          const end = yield* Effect.scoped(Effect.gen(function*() {
            const pull = yield* Stream.toPull(storage.stream("changing"))
            read.push(...(yield* pull))
            yield* change
            return yield* Effect.flip(Effect.forever(Effect.map(pull, (pieces) => read.push(...pieces))))
          }))
          const bytes = concat(read)
          expectBytes(`what came of an object that was ${what}`, bytes, old.subarray(0, bytes.byteLength))
          if (Option.isSome(end)) {
            expect(isStorageError(end.value), `that ${String(end.value)} is a StorageError`).toBe(true)
          } else expect(bytes.byteLength, `how much came of an object that was ${what}`).toBe(old.byteLength)
        }
      })
  },
  {
    name: "loads and ranges while an object is overwritten are of one version of it",
    needs: ["write"],
    slow: true,
    check: (storage) =>
      Effect.gen(function*() {
        const versions = [pattern(13, MiB + 7), pattern(14, MiB + 7)]
        const wanted = [ByteRange.last(1000), ByteRange.make(0, 1000), ByteRange.make(500_000, 600_000)]
        const cut = (bytes: Uint8Array) =>
          concat([bytes.slice(-1000), bytes.slice(0, 1000), bytes.slice(500_000, 600_000)])
        const parts = versions.map(cut)
        yield* storage.save("flipping", versions[0] ?? new Uint8Array(0))
        const writer = yield* Effect.fork(
          Effect.forever(
            Effect.forEach(versions, (bytes) => Effect.zipLeft(storage.save("flipping", bytes), Effect.yieldNow()))
          )
        )
        const current = <A, E extends StorageError>(effect: Effect.Effect<A, E>) =>
          Effect.catchIf(effect, (error) => error._tag === "PreconditionFailed", () => Effect.succeed(undefined))
        for (let round = 0; round < 30; round++) {
          const loaded = yield* current(storage.load("flipping"))
          if (loaded !== undefined) expectOneOf("load", loaded, versions)
          const streamed = yield* current(gather(storage.stream("flipping")))
          if (streamed !== undefined) expectOneOf("stream", streamed, versions)
          const ranges = yield* current(storage.loadRanges("flipping", wanted))
          if (ranges !== undefined) expectOneOf("loadRanges", concat(ranges), parts)
          yield* Effect.yieldNow()
        }
        yield* Fiber.interrupt(writer)
        expectOneOf("the object", yield* storage.load("flipping"), versions)
      })
  }
])
