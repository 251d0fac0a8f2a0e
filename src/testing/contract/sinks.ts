/**
 * A save through a sink: what the sink receives is saved when the stream that is run into it ends, and not before.
 */
import { expect } from "@effect/vitest"
import * as Cause from "effect/Cause"
import * as Context from "effect/Context"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Option from "effect/Option"
import * as Stream from "effect/Stream"
import type * as Storage from "../../Storage.js"
import { chunksThen, inChunks, MiB, none, pattern } from "./bytes.js"
import { type Check, group } from "./cases.js"
import { expectFailure, expectNoChange, expectObject, expectSameInfo } from "./expect.js"
import { SourceFailure } from "./sources.js"

const savesWhatItReceives: Check = (storage) =>
  Effect.gen(function*() {
    const forms: ReadonlyArray<readonly [string, Stream.Stream<Uint8Array>, Uint8Array]> = [
      ["an empty stream", Stream.empty, none],
      ["a stream of empty arrays", Stream.make(none, none), none],
      ["a few bytes", inChunks(pattern(1, 3000), [1, 0, 999]), pattern(1, 3000)],
      ["many bytes", inChunks(pattern(2, 9 * MiB + 1), [MiB]), pattern(2, 9 * MiB + 1)]
    ]
    for (const [what, source, bytes] of forms) {
      for (const size of [undefined, bytes.byteLength]) {
        const saved = yield* Stream.run(source, storage.sink("folder/sink", { size }))
        expect({ key: saved.key, size: saved.size }, `what the sink returns for ${what}`)
          .toEqual({ key: "folder/sink", size: bytes.byteLength })
        expectSameInfo(`head after ${what}`, yield* expectObject(storage, "folder/sink", bytes), saved)
      }
    }
  })

const endsOfItsStream: Check = (storage) =>
  expectNoChange(storage, (key) =>
    Effect.gen(function*() {
      for (const [count, size] of [[0, 0], [1, 1], [3, 1000], [9, MiB]] as const) {
        const run = <E>(end: Effect.Effect<never, E>) =>
          Effect.exit(Stream.run(chunksThen(count, size, end), storage.sink(key)))
        const failure = new SourceFailure()
        const failed = yield* run(Effect.fail(failure))
        expect(Exit.isFailure(failed) && Option.getOrUndefined(Cause.failureOption(failed.cause)), "the failure")
          .toBe(failure)
        const died = yield* run(Effect.die(failure))
        expect(Exit.isFailure(died) && Option.getOrUndefined(Cause.dieOption(died.cause)), "the defect").toBe(failure)
        expect(Exit.isInterrupted(yield* run(Effect.interrupt)), "whether the run is interrupted").toBe(true)
      }
    }))

/** Interrupts a stream that is run into a sink, when the sink has received some chunks and waits for the next. */
const interruptAfter = (storage: Storage.Service, key: string, count: number, size: number) =>
  Effect.gen(function*() {
    const isReached = yield* Deferred.make<void>()
    const source = chunksThen(count, size, Effect.zipRight(Deferred.succeed(isReached, undefined), Effect.never))
    const fiber = yield* Effect.fork(Stream.run(source, storage.sink(key)))
    yield* Effect.raceFirst(Deferred.await(isReached), Fiber.await(fiber))
    expect(Exit.isInterrupted(yield* Fiber.interrupt(fiber)), "whether the run is interrupted").toBe(true)
  })

/** A stream that never ends and never fails. */
const endless = Stream.repeatEffect(Effect.as(Effect.yieldNow(), pattern(3, 1000)))

export const sinks = group("sinks", [
  {
    name: "a sink saves the stream that is run into it",
    needs: ["write"],
    check: savesWhatItReceives
  },
  {
    name: "a stream that does not end in success saves nothing through a sink",
    needs: ["write"],
    check: endsOfItsStream
  },
  {
    name: "a sink interrupted after any number of chunks saves nothing",
    needs: ["write"],
    check: (storage) =>
      expectNoChange(
        storage,
        (key) =>
          Effect.forEach([[0, 0], [2, 1000], [9, MiB]] as const, ([count, size]) =>
            interruptAfter(storage, key, count, size), { discard: true })
      )
  },
  {
    name: "a save that fails ends its sink while the stream still runs",
    needs: ["write"],
    check: (storage) =>
      expectNoChange(storage, (key) =>
        Effect.gen(function*() {
          const badKey = Stream.run(endless, storage.sink("../up"))
          yield* expectFailure("a sink under an invalid key", "InvalidKey", badKey, "../up")
          const tooLong = Stream.run(endless, storage.sink(key, { size: 100_000 }))
          yield* expectFailure("a sink of an announced size", "CorruptObject", tooLong, key)
        }))
  },
  {
    name: "a sink applies the preconditions of its save",
    needs: ["write", "createOnly", "compareAndSwap"],
    check: (storage) =>
      Effect.gen(function*() {
        const run = (seed: number, options: Storage.SaveOptions) =>
          Stream.run(inChunks(pattern(seed, 3000), [1000]), storage.sink("conditional", options))
        const { etag } = yield* run(4, { ifNoneMatch: "*" })
        yield* expectFailure("a second creation", "ObjectAlreadyExists", run(5, { ifNoneMatch: "*" }), "conditional")
        yield* run(6, { ifMatch: etag })
        yield* expectFailure("a stale ifMatch", "PreconditionFailed", run(7, { ifMatch: etag }), "conditional")
        yield* expectObject(storage, "conditional", pattern(6, 3000))
      })
  },
  {
    name: "a sink can be run again, and its stream has the caller's context",
    needs: ["write"],
    check: (storage) =>
      Effect.gen(function*() {
        class Seed extends Context.Tag("StorageContract/SinkSeed")<Seed, number>() {}
        const sink = storage.sink("seeded")
        const source = Stream.unwrap(Effect.map(Seed, (seed) => inChunks(pattern(seed, 500), [100])))
        for (const seed of [5, 6]) {
          yield* Effect.provideService(Stream.run(source, sink), Seed, seed)
          yield* expectObject(storage, "seeded", pattern(seed, 500))
        }
      })
  }
])
