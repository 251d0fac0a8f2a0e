/**
 * The source of a save: however it ends, that is the outcome of the save, and unless it ends in success nothing is saved.
 */
import { assert, expect } from "@effect/vitest"
import * as Cause from "effect/Cause"
import * as Context from "effect/Context"
import * as Data from "effect/Data"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Option from "effect/Option"
import * as Stream from "effect/Stream"
import type * as Storage from "../../Storage.js"
import { ObjectNotFound, StorageUnavailable } from "../../StorageError.js"
import { chunksThen, inChunks, KiB, MiB, pattern } from "./bytes.js"
import { type Check, group } from "./cases.js"
import { expectKeys, expectNoChange, expectObject, saveAll } from "./expect.js"

export class SourceFailure extends Data.TaggedError("SourceFailure") {}

/** Where a source ends: after `count` chunks of `size` bytes. */
const ends: ReadonlyArray<readonly [count: number, size: number]> = [
  [0, 0],
  [1, 1],
  [1, 4 * KiB],
  [2, 1000],
  [7, 64 * KiB],
  [3, MiB],
  [9, MiB]
]

/** Runs a check of a key for each of `ends`, and expects it to change nothing. */
const atEachEnd = <E>(
  storage: Storage.Service,
  check: (key: string, count: number, size: number) => Effect.Effect<void, E>
) =>
  expectNoChange(
    storage,
    (key) => Effect.forEach(ends, ([count, size]) => check(key, count, size), { discard: true })
  )

/** Saves from a source that stops after some chunks, and interrupts the save there. */
const interruptAfter = (storage: Storage.Service, key: string, count: number, size: number) =>
  Effect.gen(function*() {
    const isReached = yield* Deferred.make<void>()
    let open = 0
    const source = Stream.acquireRelease(
      Effect.sync(() => void open++),
      () => Effect.sync(() => void open--)
    ).pipe(
      Stream.flatMap(() =>
        chunksThen(count, size, Effect.zipRight(Deferred.succeed(isReached, undefined), Effect.never))
      )
    )
    const fiber = yield* Effect.fork(storage.save(key, source))
    yield* Effect.raceFirst(Deferred.await(isReached), Fiber.await(fiber))
    const exit = yield* Fiber.interrupt(fiber)
    if (!Exit.isInterrupted(exit)) {
      assert.fail(`a save from a source that stops after ${count} chunks ended by itself: ${String(exit)}`)
    }
    expect(open, "the number of open sources after an interrupted save").toBe(0)
  })

/** Fails with each of these; the save must fail with the very same value. */
const failures = [
  new SourceFailure(),
  "a string",
  undefined,
  // Failures of another storage, which must not be taken for those of this one.
  new ObjectNotFound({ backend: "Another", operation: "stream", key: "another key" }),
  new StorageUnavailable({ backend: "Another", operation: "stream", reason: "another storage is down" })
]

const failuresAreReturned: Check = (storage) =>
  atEachEnd(
    storage,
    (key, count, size) =>
      Effect.forEach(failures.filter((_, index) => index === 0 || size <= 1000), (failure) =>
        Effect.gen(function*() {
          const exit = yield* Effect.exit(storage.save(key, chunksThen(count, size, Effect.fail(failure))))
          if (Exit.isSuccess(exit)) return assert.fail(`a save whose source failed after ${count} chunks succeeded`)
          const [error, ...others] = Cause.failures(exit.cause)
          expect(error, `the failure of a save whose source fails after ${count} chunks`).toBe(failure)
          expect(others, `other failures of a save whose source fails after ${count} chunks`).toEqual([])
          expect(Cause.isFailure(exit.cause), "whether the cause is a failure").toBe(true)
        }), { discard: true })
  )

const defectsAreReturned: Check = (storage) =>
  atEachEnd(storage, (key, count, size) =>
    Effect.gen(function*() {
      const defect = new Error("the source died")
      const exit = yield* Effect.exit(storage.save(key, chunksThen(count, size, Effect.die(defect))))
      if (Exit.isSuccess(exit)) return assert.fail(`a save whose source died after ${count} chunks succeeded`)
      const died = Option.getOrUndefined(Cause.dieOption(exit.cause))
      expect(died, `the defect of a save: ${Cause.pretty(exit.cause)}`).toBe(defect)
    }))

const finalizersRun: Check = (storage) =>
  Effect.gen(function*() {
    const ran: Array<string> = []
    const resource = (name: string) => Stream.acquireRelease(Effect.void, () => Effect.sync(() => void ran.push(name)))
    const sourceThen = (name: string, end: Effect.Effect<unknown, SourceFailure>) =>
      Stream.flatMap(resource(name), () => chunksThen(3, 1000, end))
    yield* Effect.exit(storage.save("finalized", sourceThen("success", Effect.void)))
    yield* Effect.exit(storage.save("finalized", sourceThen("failure", Effect.fail(new SourceFailure()))))
    yield* Effect.exit(storage.save("finalized", sourceThen("defect", Effect.die("the source died"))))
    yield* Effect.exit(storage.save("finalized", sourceThen("interruption", Effect.interrupt)))
    yield* Effect.exit(storage.save("finalized", sourceThen("a failed save", Effect.void), { size: 10 }))
    expect(ran, "the sources that were finalized by the end of the save")
      .toEqual(["success", "failure", "defect", "interruption", "a failed save"])
  })

export const sources = group("sources of saves", [
  {
    name: "a failure of the source is returned unchanged, and nothing is saved",
    needs: ["write"],
    check: failuresAreReturned
  },
  {
    name: "a defect of the source stays a defect, and nothing is saved",
    needs: ["write"],
    check: defectsAreReturned
  },
  {
    name: "a source that is interrupted interrupts the save, and nothing is saved",
    needs: ["write"],
    check: (storage) =>
      atEachEnd(
        storage,
        (key, count, size) =>
          Effect.map(Effect.exit(storage.save(key, chunksThen(count, size, Effect.interrupt))), (exit) =>
            expect(Exit.isInterrupted(exit), `whether ${String(exit)} is an interruption`).toBe(true))
      )
  },
  {
    name: "a save interrupted after any number of chunks changes nothing and closes its source",
    needs: ["write"],
    check: (storage) => atEachEnd(storage, (key, count, size) => interruptAfter(storage, key, count, size))
  },
  { name: "the finalizers of a source run before its save ends", needs: ["write"], check: finalizersRun },
  {
    name: "a source has the caller's context and is run once",
    needs: ["write"],
    check: (storage) =>
      Effect.gen(function*() {
        class Seed extends Context.Tag("StorageContract/Seed")<Seed, number>() {}
        let runs = 0
        const source = Stream.unwrap(Effect.map(Seed, (seed) => {
          runs++
          return inChunks(pattern(seed, 500), [100])
        }))
        yield* Effect.provideService(storage.save("seeded", source), Seed, 24)
        yield* expectObject(storage, "seeded", pattern(24, 500))
        expect(runs, "how often the source was run").toBe(1)
      })
  },
  {
    name: "a source can read from the storage that it is saved to",
    needs: ["write"],
    check: (storage) =>
      Effect.gen(function*() {
        const bytes = pattern(26, 3 * MiB)
        yield* storage.save("original", bytes)
        yield* storage.save("copy", storage.stream("original"))
        yield* expectObject(storage, "copy", bytes)
        // The failure of a stream of this storage is the source's, with the key that was read.
        const error = yield* Effect.flip(storage.save("copy", storage.stream("missing")))
        expect({ tag: error._tag, operation: error.operation, key: error.key }, "the failure of the source")
          .toEqual({ tag: "ObjectNotFound", operation: "stream", key: "missing" })
        yield* expectObject(storage, "copy", bytes)
      })
  },
  {
    name: "a failed save leaves other objects in its folder untouched",
    needs: ["write"],
    check: (storage) =>
      Effect.gen(function*() {
        yield* saveAll(storage, ["folder/a", "folder/b/c"], 100)
        for (const key of ["folder/new", "folder/b/new", "folder/new/new"]) {
          yield* Effect.exit(storage.save(key, chunksThen(2, 1000, Effect.fail(new SourceFailure()))))
          yield* interruptAfter(storage, key, 2, 1000)
        }
        yield* expectObject(storage, "folder/a", pattern(0, 100))
        yield* expectObject(storage, "folder/b/c", pattern(1, 100))
        yield* expectKeys(storage, ["folder/a", "folder/b/c"])
      })
  }
])
