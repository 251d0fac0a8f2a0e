/**
 * A save is all or nothing: what was given comes back whole, nobody sees it before the save ends, and a save that
 * fails or is interrupted leaves everything as it was.
 */
import { assert, expect } from "@effect/vitest"
import * as Cause from "effect/Cause"
import * as Chunk from "effect/Chunk"
import * as Context from "effect/Context"
import * as Data from "effect/Data"
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Option from "effect/Option"
import * as Stream from "effect/Stream"
import type * as Storage from "../../Storage.js"
import type { StorageError } from "../../StorageError.js"
import {
  boundarySizes,
  entriesOf,
  expectAbsent,
  expectBytes,
  expectFailure,
  expectKeys,
  expectNoChange,
  expectObject,
  expectOneOf,
  expectSameInfo,
  group,
  inPieces,
  KiB,
  MiB,
  pattern,
  saveAll
} from "./kit.js"

class SourceFailure extends Data.TaggedError("SourceFailure") {}

/** Some pieces, one at a time, and then whatever comes of `end`. */
const piecesThen = <A, E, R>(
  count: number,
  size: number,
  end: Effect.Effect<A, E, R>
): Stream.Stream<Uint8Array, E, R> =>
  Stream.concat(
    inPieces(pattern(60, count * size), [size]),
    Stream.drain(Stream.fromEffect(end))
  )

/** Where a save is broken off: after so many pieces of so many bytes. */
const breaks: ReadonlyArray<readonly [count: number, size: number]> = [
  [0, 0],
  [1, 1],
  [1, 4 * KiB],
  [2, 1000],
  [7, 64 * KiB],
  [3, MiB],
  [9, MiB]
]

/** Saves from a source that hangs after some pieces, and interrupts the save there. */
const interruptAfter = (storage: Storage.Service, key: string, count: number, size: number) =>
  Effect.gen(function*() {
    const reached = yield* Deferred.make<void>()
    let open = 0
    const source = Stream.acquireRelease(
      Effect.sync(() => void open++),
      () => Effect.sync(() => void open--)
    ).pipe(
      Stream.flatMap(() => piecesThen(count, size, Effect.zipRight(Deferred.succeed(reached, undefined), Effect.never)))
    )
    const fiber = yield* Effect.fork(storage.save(key, source))
    yield* Effect.raceFirst(Deferred.await(reached), Fiber.await(fiber))
    const exit = yield* Fiber.interrupt(fiber)
    if (!Exit.isInterrupted(exit)) {
      assert.fail(`save from a source that hangs after ${count} pieces ended by itself: ${String(exit)}`)
    }
    expect(open, "how many sources of an interrupted save are still open").toBe(0)
  })

export const saving = group("saving", [
  {
    name: "bytes of every size come back as they were saved",
    needs: ["write"],
    slow: true,
    check: (storage) =>
      Effect.forEach(boundarySizes, (size) =>
        Effect.gen(function*() {
          const bytes = pattern(size, size)
          const saved = yield* storage.save("sizes/bytes", bytes)
          expect(saved.size, `the size that save gives for ${size} bytes`).toBe(size)
          expectSameInfo("head against save", yield* expectObject(storage, "sizes/bytes", bytes), saved)
        }), { discard: true })
  },
  {
    name: "a stream of every size, in pieces of any size, comes back as it was saved",
    needs: ["write"],
    slow: true,
    check: (storage) =>
      Effect.forEach(boundarySizes, (size) =>
        Effect.gen(function*() {
          const bytes = pattern(size + 1, size)
          for (const options of [{}, { size }]) {
            const saved = yield* storage.save("sizes/stream", inPieces(bytes), options)
            expect(saved.size, `the size that save gives for a stream of ${size} bytes`).toBe(size)
            expectSameInfo("head against save", yield* expectObject(storage, "sizes/stream", bytes), saved)
          }
        }), { discard: true })
  },
  {
    name: "a stream can be empty, or be all empty pieces, one huge piece, many in a chunk or parts of larger arrays",
    needs: ["write"],
    slow: true,
    check: (storage) =>
      Effect.gen(function*() {
        const bytes = pattern(11, 1000)
        const huge = pattern(12, 17 * MiB + 3)
        const none = new Uint8Array(0)
        const larger = pattern(13, 3000)
        const forms: ReadonlyArray<readonly [string, Stream.Stream<Uint8Array>, Uint8Array]> = [
          ["an empty stream", Stream.empty, none],
          ["a stream of empty pieces", Stream.make(none, none, none), none],
          ["a stream of empty chunks", Stream.fromChunks(Chunk.empty(), Chunk.empty()), none],
          ["a stream of one huge piece", Stream.make(huge), huge],
          [
            "a stream of many pieces in a chunk",
            Stream.fromChunks(
              Chunk.make(bytes.slice(0, 1), none, bytes.slice(1, 500)),
              Chunk.empty(),
              Chunk.make(bytes.slice(500))
            ),
            bytes
          ],
          [
            "a stream of parts of a larger array",
            Stream.make(larger.subarray(1000, 1001), larger.subarray(1001, 2000)),
            larger.slice(1000, 2000)
          ]
        ]
        for (const [what, source, expected] of forms) {
          const { size } = yield* storage.save("form", source)
          expect(size, `the size that save gives for ${what}`).toBe(expected.byteLength)
          yield* expectObject(storage, "form", expected)
        }
        yield* storage.save("form", larger.subarray(1000, 2000))
        yield* expectObject(storage, "form", larger.slice(1000, 2000))
      })
  },
  {
    name: "what save returns is what head, open and entries show",
    needs: ["write"],
    check: (storage) =>
      Effect.gen(function*() {
        for (const key of ["a/b/c", "d"]) {
          const saved = yield* storage.save(key, pattern(14, 100))
          expect({ key: saved.key, size: saved.size }).toEqual({ key, size: 100 })
          expect(saved.etag, "etag").not.toBe("")
          const age = Math.abs(Date.now() - saved.lastModified.getTime())
          expect(age, `milliseconds between now and ${String(saved.lastModified)}`).toBeLessThan(60_000)
          const head = yield* storage.head(key)
          expectSameInfo("head against save", head, saved)
          expect(yield* storage.head(key), "a second head").toEqual(head)
          expectSameInfo("open against save", (yield* storage.open(key)).info, saved)
          if (storage.backend.capabilities.list) {
            for (const info of yield* entriesOf(storage, { prefix: key })) {
              expectSameInfo("entries against save", info, saved)
            }
            const { objects } = yield* storage.listDirectory(key.slice(0, -1))
            expect(objects.length, "how many objects listDirectory shows").toBe(1)
            for (const info of objects) expectSameInfo("listDirectory against save", info, saved)
          }
        }
      })
  },
  {
    name: "a save replaces the whole object, be it shorter or longer",
    needs: ["write"],
    check: (storage) =>
      Effect.gen(function*() {
        for (const [seed, size] of [[1, 5000], [2, 10], [3, 0], [4, 70_000], [5, 70_000]] as const) {
          const saved = yield* storage.save(
            "replaced",
            seed % 2 === 0 ? pattern(seed, size) : inPieces(pattern(seed, size))
          )
          expectSameInfo("head", yield* expectObject(storage, "replaced", pattern(seed, size)), saved)
        }
        yield* expectKeys(storage, ["replaced"])
      })
  },
  {
    name: "the etag changes whenever the content does, even within a millisecond and at the same size",
    needs: ["write"],
    check: (storage) =>
      Effect.gen(function*() {
        const seen = new Map<string, string>()
        const unseen = (what: string, { etag }: { readonly etag: string }) => {
          expect(seen.get(etag), `what had the etag ${etag} before it was given to ${what}`).toBeUndefined()
          seen.set(etag, what)
        }
        for (let round = 0; round < 40; round++) {
          unseen(`save ${round}`, yield* storage.save("changing", pattern(round, 64)))
          if (round % 4 === 3) yield* storage.remove("changing")
        }
        for (let round = 40; round < 60; round++) {
          unseen(`save ${round} of a stream`, yield* storage.save("changing", inPieces(pattern(round, 64))))
        }
        const before = yield* storage.head("changing")
        yield* storage.save("copied", pattern(60, 64))
        const { etag } = yield* storage.copy("copied", "changing")
        expect(etag, "the etag of what a copy replaced").not.toBe(before.etag)
        yield* storage.save("moved", pattern(61, 64))
        expect((yield* storage.move("moved", "changing")).etag, "the etag of what a move replaced").not.toBe(etag)
      })
  },
  {
    name: "the etag stays while nothing is saved",
    needs: ["write"],
    check: (storage) =>
      Effect.gen(function*() {
        const saved = yield* storage.save("kept", pattern(15, 100))
        yield* storage.save("other", pattern(16, 100))
        yield* storage.load("kept")
        yield* storage.copy("kept", "copy")
        yield* storage.remove("other")
        expectSameInfo("head against save", yield* storage.head("kept"), saved)
      })
  },
  {
    name: "bytes changed after their save do not change the object",
    needs: ["write"],
    check: (storage) =>
      Effect.gen(function*() {
        const bytes = pattern(17, 5000)
        const pieces = [pattern(18, 10), pattern(19, 5000)]
        yield* storage.save("bytes", bytes)
        yield* storage.save("pieces", Stream.fromIterable(pieces))
        for (const array of [bytes, ...pieces]) array.fill(0)
        yield* expectObject(storage, "bytes", pattern(17, 5000))
        const { size } = yield* storage.head("pieces")
        expect(size).toBe(5010)
        expectBytes("the second piece", (yield* storage.load("pieces")).slice(10), pattern(19, 5000))
      })
  },
  {
    name: "a save of the announced size succeeds, and of any other is CorruptObject and changes nothing",
    needs: ["write"],
    slow: true,
    check: (storage) =>
      Effect.gen(function*() {
        const bytes = pattern(20, 3000)
        for (const size of [3000, 0]) {
          yield* storage.save("right", bytes.slice(0, size), { size })
          yield* expectObject(storage, "right", bytes.slice(0, size))
          yield* storage.save("right", inPieces(bytes.slice(0, size), [1000]), { size })
          yield* expectObject(storage, "right", bytes.slice(0, size))
        }
        yield* storage.remove("right")
        yield* expectNoChange(storage, (key) =>
          Effect.gen(function*() {
            for (const size of [0, 1, 2999, 3001, 1e9, -1, 0.5, NaN]) {
              for (const data of [bytes, inPieces(bytes, [1000]), Stream.make(bytes)]) {
                const what = `save of 3,000 bytes where size says ${size}`
                const failure = yield* expectFailure(what, "CorruptObject", storage.save(key, data, { size }), key)
                expect(failure, what).toMatchObject({ problem: "size" })
              }
            }
            const large = inPieces(pattern(20, 9 * MiB), [MiB])
            for (const [source, size] of [[Stream.empty, 1], [large, 9 * MiB - 1], [large, 9 * MiB + 1]] as const) {
              const what = `save of a stream where size says ${size}`
              yield* expectFailure(what, "CorruptObject", storage.save(key, source, { size }), key)
            }
          }))
      })
  },
  {
    name: "the failure of a source comes through as itself, and nothing changes",
    needs: ["write"],
    slow: true,
    check: (storage) =>
      expectNoChange(storage, (key) =>
        Effect.gen(function*() {
          for (const [count, size] of breaks) {
            const failure = new SourceFailure()
            const error = yield* Effect.flip(storage.save(key, piecesThen(count, size, Effect.fail(failure))))
            expect(error, `the failure of a save whose source fails after ${count} pieces`).toBe(failure)
          }
        }))
  },
  {
    name: "a source that dies stays a defect, and nothing changes",
    needs: ["write"],
    slow: true,
    check: (storage) =>
      expectNoChange(storage, (key) =>
        Effect.gen(function*() {
          for (const [count, size] of breaks) {
            const defect = new Error("the source died")
            const cause = yield* Effect.sandbox(storage.save(key, piecesThen(count, size, Effect.die(defect)))).pipe(
              Effect.flip
            )
            expect(Option.getOrUndefined(Cause.dieOption(cause)), `the defect of a save: ${Cause.pretty(cause)}`).toBe(
              defect
            )
          }
        }))
  },
  {
    name: "a save whose source interrupts itself is interrupted, and nothing changes",
    needs: ["write"],
    check: (storage) =>
      expectNoChange(storage, (key) =>
        Effect.gen(function*() {
          const exit = yield* Effect.exit(storage.save(key, piecesThen(2, 1000, Effect.interrupt)))
          expect(Exit.isInterrupted(exit), `that ${String(exit)} is an interruption`).toBe(true)
        }))
  },
  {
    name: "a save interrupted after any number of pieces changes nothing, and closes its source",
    needs: ["write"],
    slow: true,
    check: (storage) =>
      expectNoChange(
        storage,
        (key) => Effect.forEach(breaks, ([count, size]) => interruptAfter(storage, key, count, size), { discard: true })
      )
  },
  {
    name: "a save interrupted at any moment leaves the old object or the new one, whole",
    needs: ["write"],
    slow: true,
    check: (storage) =>
      Effect.gen(function*() {
        const old = pattern(21, 300_000)
        const [duration] = yield* Effect.timed(storage.save("folder/raced", inPieces(old)))
        const longest = Duration.toMillis(duration)
        const rounds = 60
        const keys = ["folder/raced"]
        for (let round = 0; round < rounds; round++) {
          // A server may save what it has after the interruption, so no other round has this key.
          const key = `folder/raced-${round}`
          keys.push(key)
          yield* storage.save(key, old)
          const bytes = pattern(100 + round, 300_000)
          const fiber = yield* Effect.fork(storage.save(key, round % 2 === 0 ? bytes : inPieces(bytes)))
          const moment = round / rounds
          yield* Effect.repeatN(Effect.yieldNow(), Math.floor(moment * 30))
          if (round % 3 !== 0) yield* Effect.sleep(moment * longest * 1.5)
          const exit = yield* Fiber.interrupt(fiber)
          const found = expectOneOf("the object after an interrupted save", yield* storage.load(key), [old, bytes])
          if (Exit.isSuccess(exit)) expect(found, "the object after a save that was done when interrupted").toBe(1)
          yield* expectKeys(storage, keys)
        }
      })
  },
  {
    name: "an object is not to be seen before its save ends, nor changed before its overwriting ends",
    needs: ["write"],
    slow: true,
    check: (storage) =>
      Effect.gen(function*() {
        const before = pattern(22, 3000)
        const after = pattern(23, 9 * MiB)
        const old = yield* storage.save("old/object", before)
        for (const key of ["new/folder/object", "old/object"]) {
          const reached = yield* Deferred.make<void>()
          const goOn = yield* Deferred.make<void>()
          const pause = Effect.zipRight(Deferred.succeed(reached, undefined), Deferred.await(goOn))
          const source = inPieces(after, [MiB]).pipe(
            Stream.zipWithIndex,
            Stream.tap(([, index]) => Effect.when(pause, () => index === 8)),
            Stream.map(([piece]) => piece)
          )
          const fiber = yield* Effect.fork(storage.save(key, source))
          yield* Effect.raceFirst(Deferred.await(reached), Fiber.await(fiber))

          expectSameInfo("the old object while a save goes on", yield* expectObject(storage, "old/object", before), old)
          yield* expectAbsent(storage, "new/folder/object")
          yield* expectKeys(storage, ["old/object"])
          if (storage.backend.capabilities.list) {
            for (const info of yield* entriesOf(storage)) expectSameInfo("entries while a save goes on", info, old)
            expect((yield* storage.listDirectory()).prefixes, "the root directory while a save goes on").toEqual([
              "old/"
            ])
            expect(yield* storage.listDirectory("new/"), "the new directory while a save goes on")
              .toEqual({ objects: [], prefixes: [] })
          }
          yield* storage.save("meanwhile", before)
          yield* expectObject(storage, "meanwhile", before)
          yield* storage.remove("meanwhile")

          yield* Deferred.succeed(goOn, undefined)
          const saved = yield* Fiber.join(fiber)
          expectSameInfo("the new object", yield* expectObject(storage, key, after), saved)
          if (key !== "old/object") yield* storage.remove(key)
        }
      })
  },
  {
    name: "a source can use the services of the caller, and is run once",
    needs: ["write"],
    check: (storage) =>
      Effect.gen(function*() {
        class Seed extends Context.Tag("StorageContract/Seed")<Seed, number>() {}
        let runs = 0
        const source = Stream.unwrap(Effect.map(Seed, (seed) => {
          runs++
          return inPieces(pattern(seed, 500), [100])
        }))
        yield* Effect.provideService(storage.save("seeded", source), Seed, 24)
        yield* expectObject(storage, "seeded", pattern(24, 500))
        expect(runs, "how often the source was run").toBe(1)
      })
  },
  {
    name: "a folder can be used again when its last object was removed",
    needs: ["write"],
    check: (storage) =>
      Effect.gen(function*() {
        for (const key of ["a/b/c", "a/b", "a", "a/b/c/d"]) {
          yield* storage.save(key, pattern(25, 10))
          yield* expectObject(storage, key, pattern(25, 10))
          yield* storage.remove(key)
          yield* expectAbsent(storage, key)
        }
        yield* expectKeys(storage, [])
      })
  },
  {
    name: "saves that break leave other objects in their folder alone",
    needs: ["write"],
    check: (storage): Effect.Effect<void, StorageError> =>
      Effect.gen(function*() {
        yield* saveAll(storage, ["folder/a", "folder/b/c"], 100)
        for (const key of ["folder/new", "folder/b/new", "folder/new/new"]) {
          yield* Effect.exit(storage.save(key, piecesThen(2, 1000, Effect.fail(new SourceFailure()))))
          yield* interruptAfter(storage, key, 2, 1000)
        }
        yield* expectObject(storage, "folder/a", pattern(0, 100))
        yield* expectObject(storage, "folder/b/c", pattern(1, 100))
        yield* expectKeys(storage, ["folder/a", "folder/b/c"])
      })
  }
])
