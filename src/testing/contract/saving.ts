/**
 * A save is all or nothing: what was saved is loaded whole, is not visible before the save ends, and a save that fails or
 * is interrupted changes nothing.
 */
import { expect } from "@effect/vitest"
import * as Chunk from "effect/Chunk"
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Stream from "effect/Stream"
import { concat } from "../../internal/bytes.js"
import type * as Storage from "../../Storage.js"
import type { StorageError } from "../../StorageError.js"
import { boundarySizes, inChunks, MiB, none, pattern } from "./bytes.js"
import { type Check, group } from "./cases.js"
import {
  entriesOf,
  expectAbsent,
  expectFailure,
  expectKeys,
  expectNoChange,
  expectObject,
  expectOneOf,
  expectSameInfo
} from "./expect.js"

const formsOfStreams: Check = (storage) =>
  Effect.gen(function*() {
    const bytes = pattern(11, 1000)
    const large = pattern(12, 17 * MiB + 3)
    const whole = pattern(13, 3000)
    const chunks = [
      Chunk.make(bytes.slice(0, 1), none, bytes.slice(1, 500)),
      Chunk.empty(),
      Chunk.make(bytes.slice(500))
    ]
    const forms: ReadonlyArray<readonly [string, Stream.Stream<Uint8Array>, Uint8Array]> = [
      ["an empty stream", Stream.empty, none],
      ["a stream of empty arrays", Stream.make(none, none, none), none],
      ["a stream of empty chunks", Stream.fromChunks(Chunk.empty(), Chunk.empty()), none],
      ["a stream of one large array", Stream.make(large), large],
      ["a stream of several arrays in a chunk", Stream.fromChunks(...chunks), bytes],
      [
        "a stream of subarrays",
        Stream.make(whole.subarray(1000, 1001), whole.subarray(1001, 2000)),
        whole.slice(1000, 2000)
      ]
    ]
    for (const [what, source, expected] of forms) {
      const { size } = yield* storage.save("form", source)
      expect(size, `the size that save returns for ${what}`).toBe(expected.byteLength)
      yield* expectObject(storage, "form", expected)
    }
    yield* storage.save("form", whole.subarray(1000, 2000))
    yield* expectObject(storage, "form", whole.slice(1000, 2000))
  })

const sameMetadata: Check = (storage) =>
  Effect.gen(function*() {
    for (const key of ["a/b/c", "d"]) {
      const saved = yield* storage.save(key, pattern(14, 100))
      expect({ key: saved.key, size: saved.size }).toEqual({ key, size: 100 })
      expect(saved.etag, "etag").not.toBe("")
      const age = Math.abs(Date.now() - saved.lastModified.getTime())
      expect(age, `milliseconds between now and ${String(saved.lastModified)}`).toBeLessThan(60_000)
      const head = yield* storage.head(key)
      expectSameInfo("head compared with save", head, saved)
      expect(yield* storage.head(key), "a second head").toEqual(head)
      expectSameInfo("open compared with save", (yield* storage.open(key)).info, saved)
      if (storage.backend.capabilities.list) {
        for (const info of yield* entriesOf(storage, { prefix: key })) {
          expectSameInfo("entries compared with save", info, saved)
        }
        const { objects } = yield* storage.listDirectory(key.slice(0, -1))
        expect(objects.length, "the number of objects in the directory").toBe(1)
        for (const info of objects) expectSameInfo("listDirectory compared with save", info, saved)
      }
    }
  })

const changingEtags: Check = (storage) =>
  Effect.gen(function*() {
    const seen = new Map<string, string>()
    const expectNew = (what: string, { etag }: { readonly etag: string }) => {
      expect(seen.get(etag), `what had the etag ${etag} before ${what}`).toBeUndefined()
      seen.set(etag, what)
    }
    for (let round = 0; round < 40; round++) {
      expectNew(`save ${round}`, yield* storage.save("changing", pattern(round, 64)))
      if (round % 4 === 3) yield* storage.remove("changing")
    }
    for (let round = 40; round < 60; round++) {
      expectNew(`save ${round} of a stream`, yield* storage.save("changing", inChunks(pattern(round, 64))))
    }
    const before = yield* storage.head("changing")
    yield* storage.save("copied", pattern(60, 64))
    const { etag } = yield* storage.copy("copied", "changing")
    expect(etag, "the etag after a copy over an object").not.toBe(before.etag)
    yield* storage.save("moved", pattern(61, 64))
    expect((yield* storage.move("moved", "changing")).etag, "the etag after a move over an object").not.toBe(etag)
  })

const announcedSize: Check = (storage) =>
  Effect.gen(function*() {
    const bytes = pattern(20, 3000)
    for (const size of [3000, 0]) {
      yield* storage.save("right", bytes.slice(0, size), { size })
      yield* expectObject(storage, "right", bytes.slice(0, size))
      yield* storage.save("right", inChunks(bytes.slice(0, size), [1000]), { size })
      yield* expectObject(storage, "right", bytes.slice(0, size))
    }
    yield* storage.remove("right")
    yield* expectNoChange(storage, (key) =>
      Effect.gen(function*() {
        for (const size of [0, 1, 2999, 3001, 1e9, -1, 0.5, NaN]) {
          for (const data of [bytes, inChunks(bytes, [1000]), Stream.make(bytes)]) {
            const what = `save of 3,000 bytes announced as ${size}`
            const failure = yield* expectFailure(what, "CorruptObject", storage.save(key, data, { size }), key)
            expect(failure, what).toMatchObject({ problem: "size" })
          }
        }
        const large = inChunks(pattern(20, 9 * MiB), [MiB])
        for (const [source, size] of [[Stream.empty, 1], [large, 9 * MiB - 1], [large, 9 * MiB + 1]] as const) {
          const what = `save of a stream announced as ${size} bytes`
          yield* expectFailure(what, "CorruptObject", storage.save(key, source, { size }), key)
        }
      }))
  })

const interruptedAtAnyMoment: Check = (storage) =>
  Effect.gen(function*() {
    const old = pattern(21, 300_000)
    const [duration] = yield* Effect.timed(storage.save("folder/raced", inChunks(old)))
    const longest = Duration.toMillis(duration)
    const rounds = 60
    const keys = ["folder/raced"]
    for (let round = 0; round < rounds; round++) {
      // A server may complete a request after the interruption, so each round has a key of its own.
      const key = `folder/raced-${round}`
      keys.push(key)
      yield* storage.save(key, old)
      const bytes = pattern(100 + round, 300_000)
      const fiber = yield* Effect.fork(storage.save(key, round % 2 === 0 ? bytes : inChunks(bytes)))
      const moment = round / rounds
      yield* Effect.repeatN(Effect.yieldNow(), Math.floor(moment * 30))
      if (round % 3 !== 0) yield* Effect.sleep(moment * longest * 1.5)
      const exit = yield* Fiber.interrupt(fiber)
      const found = expectOneOf("the object after an interrupted save", yield* storage.load(key), [old, bytes])
      if (Exit.isSuccess(exit)) expect(found, "the object after a save that ended before its interruption").toBe(1)
      yield* expectKeys(storage, keys)
    }
  })

/** Saves `after` under `key` and runs `check` when all but the last MiB has been read from the source. */
const checkMidway = <E>(
  storage: Storage.Service,
  key: string,
  after: Uint8Array,
  check: Effect.Effect<void, E>
): Effect.Effect<void, E | StorageError> =>
  Effect.gen(function*() {
    const isMidway = yield* Deferred.make<void>()
    const isChecked = yield* Deferred.make<void>()
    const pause = Effect.zipRight(Deferred.succeed(isMidway, undefined), Deferred.await(isChecked))
    const source = inChunks(after, [MiB]).pipe(
      Stream.zipWithIndex,
      Stream.tap(([, index]) => Effect.when(pause, () => index === 8)),
      Stream.map(([bytes]) => bytes)
    )
    const fiber = yield* Effect.fork(storage.save(key, source))
    yield* Effect.raceFirst(Deferred.await(isMidway), Fiber.await(fiber))
    yield* check
    yield* Deferred.succeed(isChecked, undefined)
    const saved = yield* Fiber.join(fiber)
    expectSameInfo("the new object", yield* expectObject(storage, key, after), saved)
  })

const invisibleBeforeItsEnd: Check = (storage) =>
  Effect.gen(function*() {
    const before = pattern(22, 3000)
    const old = yield* storage.save("old/object", before)
    const check = Effect.gen(function*() {
      expectSameInfo("the old object during a save", yield* expectObject(storage, "old/object", before), old)
      yield* expectAbsent(storage, "new/folder/object")
      yield* expectKeys(storage, ["old/object"], "the listing during a save")
      if (storage.backend.capabilities.list) {
        for (const info of yield* entriesOf(storage)) expectSameInfo("entries during a save", info, old)
        expect((yield* storage.listDirectory()).prefixes, "the root directory during a save").toEqual(["old/"])
        expect(yield* storage.listDirectory("new/"), "the new directory during a save")
          .toEqual({ objects: [], prefixes: [] })
      }
      yield* storage.save("meanwhile", before)
      yield* expectObject(storage, "meanwhile", before)
      yield* storage.remove("meanwhile")
    })
    yield* checkMidway(storage, "new/folder/object", pattern(23, 9 * MiB), check)
    yield* storage.remove("new/folder/object")
    yield* checkMidway(storage, "old/object", pattern(23, 9 * MiB), check)
  })

export const saving = group("saving", [
  {
    name: "bytes of every size are loaded as they were saved",
    needs: ["write"],
    check: (storage) =>
      Effect.forEach(boundarySizes, (size) =>
        Effect.gen(function*() {
          const bytes = pattern(size, size)
          const saved = yield* storage.save("sizes/bytes", bytes)
          expect(saved.size, `the size that save returns for ${size} bytes`).toBe(size)
          expectSameInfo("head compared with save", yield* expectObject(storage, "sizes/bytes", bytes), saved)
        }), { discard: true })
  },
  {
    name: "streams of every size and chunking are loaded as they were saved",
    needs: ["write"],
    check: (storage) =>
      Effect.forEach(boundarySizes, (size) =>
        Effect.gen(function*() {
          const bytes = pattern(size + 1, size)
          for (const options of [{}, { size }]) {
            const saved = yield* storage.save("sizes/stream", inChunks(bytes), options)
            expect(saved.size, `the size that save returns for a stream of ${size} bytes`).toBe(size)
            expectSameInfo("head compared with save", yield* expectObject(storage, "sizes/stream", bytes), saved)
          }
        }), { discard: true })
  },
  {
    name: "empty streams, empty chunks, large chunks and subarrays are saved",
    needs: ["write"],
    check: formsOfStreams
  },
  { name: "save, head, open and entries return the same metadata", needs: ["write"], check: sameMetadata },
  {
    name: "a save replaces the whole object, whether shorter or longer",
    needs: ["write"],
    check: (storage) =>
      Effect.gen(function*() {
        for (const [seed, size] of [[1, 5000], [2, 10], [3, 0], [4, 70_000], [5, 70_000]] as const) {
          const bytes = pattern(seed, size)
          const saved = yield* storage.save("replaced", seed % 2 === 0 ? bytes : inChunks(bytes))
          expectSameInfo("head", yield* expectObject(storage, "replaced", bytes), saved)
        }
        yield* expectKeys(storage, ["replaced"])
      })
  },
  {
    name: "the etag changes with the content, also within a millisecond and at the same size",
    needs: ["write"],
    check: changingEtags
  },
  {
    name: "the etag does not change until the object is saved again",
    needs: ["write"],
    check: (storage) =>
      Effect.gen(function*() {
        const saved = yield* storage.save("kept", pattern(15, 100))
        yield* storage.save("other", pattern(16, 100))
        yield* storage.load("kept")
        yield* storage.copy("kept", "copy")
        yield* storage.remove("other")
        expectSameInfo("head compared with save", yield* storage.head("kept"), saved)
      })
  },
  {
    name: "changing an array after its save does not change the object",
    needs: ["write"],
    check: (storage) =>
      Effect.gen(function*() {
        const bytes = pattern(17, 5000)
        const chunks = [pattern(18, 10), pattern(19, 5000)]
        yield* storage.save("bytes", bytes)
        yield* storage.save("chunks", Stream.fromIterable(chunks))
        for (const array of [bytes, ...chunks]) array.fill(0)
        yield* expectObject(storage, "bytes", pattern(17, 5000))
        yield* expectObject(storage, "chunks", concat([pattern(18, 10), pattern(19, 5000)]))
      })
  },
  {
    name: "a save of another size than announced fails with CorruptObject and changes nothing",
    needs: ["write"],
    check: announcedSize
  },
  {
    name: "a save interrupted at any moment leaves the old or the new object, whole",
    needs: ["write"],
    check: interruptedAtAnyMoment
  },
  { name: "an object is not visible before its save ends", needs: ["write"], check: invisibleBeforeItsEnd },
  {
    name: "a key can become a folder, and a folder a key, once its objects are removed",
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
  }
])
