/**
 * Copies and moves: the target is the whole object, it is replaced or not as asked, and nothing is lost midway.
 */
import { expect } from "@effect/vitest"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import type * as Storage from "../../Storage.js"
import { MiB, pattern } from "./bytes.js"
import { group } from "./cases.js"
import {
  expectAbsent,
  expectBytes,
  expectFailure,
  expectKeys,
  expectObject,
  expectOneOf,
  expectSameInfo
} from "./expect.js"

const operations = ["copy", "move"] as const

const loadIfPresent = (storage: Storage.Service, key: string) =>
  storage.load(key).pipe(Effect.catchTag("ObjectNotFound", () => Effect.succeed(undefined)))

/** Expects the source to be there after a copy, and gone after a move. */
const expectSource = (storage: Storage.Service, operation: "copy" | "move", key: string, bytes: Uint8Array) =>
  operation === "copy" ? Effect.asVoid(expectObject(storage, key, bytes)) : expectAbsent(storage, key)

export const copying = group("copying and moving", [
  ...operations.map((operation) => ({
    name: `a ${operation} of any size is whole, in any folder`,
    needs: ["write"] as const,
    check: (storage: Storage.Service) =>
      Effect.gen(function*() {
        for (
          const [size, to] of [[0, "empty"], [1000, "to"], [1000, "new/deep/folder/to"], [
            9 * MiB + 1,
            "large/to"
          ]] as const
        ) {
          const bytes = pattern(size, size)
          yield* storage.save("from/object", bytes)
          const info = yield* storage[operation]("from/object", to)
          expect({ key: info.key, size: info.size }).toEqual({ key: to, size })
          expectSameInfo(`head compared with ${operation}`, yield* expectObject(storage, to, bytes), info)
          yield* expectSource(storage, operation, "from/object", bytes)
          yield* expectKeys(storage, operation === "copy" ? ["from/object", to] : [to])
          yield* storage.remove(to)
        }
      })
  })),
  ...operations.map((operation) => ({
    name: `a ${operation} replaces an existing object`,
    needs: ["write"] as const,
    check: (storage: Storage.Service) =>
      Effect.gen(function*() {
        const bytes = pattern(1, 2000)
        for (const size of [2000, 0, 50_000]) {
          yield* storage.save("from", bytes)
          const before = yield* storage.save("folder/to", pattern(2, size))
          const info = yield* storage[operation]("from", "folder/to")
          expect(info.etag, `the etag after a ${operation} over an object`).not.toBe(before.etag)
          expectSameInfo(`head compared with ${operation}`, yield* expectObject(storage, "folder/to", bytes), info)
          yield* expectSource(storage, operation, "from", bytes)
        }
      })
  })),
  ...operations.map((operation) => ({
    name: `a ${operation} of an object to its own key changes nothing`,
    needs: ["write"] as const,
    check: (storage: Storage.Service) =>
      Effect.gen(function*() {
        const bytes = pattern(3, 2000)
        const before = yield* storage.save("folder/self", bytes)
        expectSameInfo(`the result of ${operation}`, yield* storage[operation]("folder/self", "folder/self"), before)
        expectSameInfo("head", yield* expectObject(storage, "folder/self", bytes), before)
        yield* expectFailure(
          `${operation} of a missing object to its own key`,
          "ObjectNotFound",
          storage[operation]("missing", "missing"),
          "missing"
        )
        yield* expectKeys(storage, ["folder/self"])
      })
  })),
  ...operations.map((operation) => ({
    name: `a ${operation} of a missing object fails with ObjectNotFound and leaves the target unchanged`,
    needs: ["write"] as const,
    check: (storage: Storage.Service) =>
      Effect.gen(function*() {
        const bytes = pattern(4, 2000)
        const before = yield* storage.save("folder/to", bytes)
        for (const to of ["folder/to", "new/folder/to"]) {
          const attempt = storage[operation]("missing", to)
          yield* expectFailure(`${operation} of a missing object`, "ObjectNotFound", attempt, "missing")
        }
        expectSameInfo("head", yield* expectObject(storage, "folder/to", bytes), before)
        yield* expectAbsent(storage, "new/folder/to")
        yield* expectKeys(storage, ["folder/to"])
      })
  })),
  ...operations.map((operation) => ({
    name: `a ${operation} with ifNoneMatch creates the target, or fails with ObjectAlreadyExists and changes nothing`,
    needs: ["write", "createOnly"] as const,
    check: (storage: Storage.Service) =>
      Effect.gen(function*() {
        const source = pattern(5, 2000)
        const target = pattern(6, 3000)
        const options = { ifNoneMatch: "*" } as const
        yield* storage.save("from", source)
        const before = yield* storage.save("to", target)
        const attempt = storage[operation]("from", "to", options)
        yield* expectFailure(`${operation} over an object with ifNoneMatch`, "ObjectAlreadyExists", attempt, "to")
        const onItself = storage[operation]("from", "from", options)
        yield* expectFailure(`${operation} to its own key with ifNoneMatch`, "ObjectAlreadyExists", onItself, "from")
        yield* expectObject(storage, "from", source)
        expectSameInfo("head", yield* expectObject(storage, "to", target), before)
        const missing = storage[operation]("missing", "new/to", options)
        yield* expectFailure(`${operation} of a missing object with ifNoneMatch`, "ObjectNotFound", missing, "missing")
        yield* expectAbsent(storage, "new/to")
        const made = yield* storage[operation]("from", "new/to", options)
        expectSameInfo("head", yield* expectObject(storage, "new/to", source), made)
        yield* expectSource(storage, operation, "from", source)
      })
  })),
  ...operations.map((operation) => ({
    name: `of eight concurrent attempts to ${operation} to one target with ifNoneMatch, exactly one succeeds`,
    needs: ["write", "createOnly"] as const,
    check: (storage: Storage.Service) =>
      Effect.gen(function*() {
        const fibers = [0, 1, 2, 3, 4, 5, 6, 7]
        for (let round = 0; round < 5; round++) {
          const to = `round-${round}/to`
          const from = (fiber: number) => `round-${round}/from-${fiber}`
          yield* Effect.forEach(fibers, (fiber) => storage.save(from(fiber), pattern(fiber, 5000)), { concurrency: 8 })
          const outcomes = yield* Effect.forEach(
            fibers,
            (fiber) => Effect.either(storage[operation](from(fiber), to, { ifNoneMatch: "*" })),
            { concurrency: "unbounded" }
          )
          const losses = outcomes.flatMap((outcome) => Either.isLeft(outcome) ? [outcome.left._tag] : [])
          expect(losses, "the failures of the other attempts").toEqual(
            Array.from({ length: 7 }, () => "ObjectAlreadyExists")
          )
          for (const [fiber, outcome] of outcomes.entries()) {
            if (Either.isRight(outcome)) {
              yield* expectObject(storage, to, pattern(fiber, 5000))
              yield* expectSource(storage, operation, from(fiber), pattern(fiber, 5000))
            } else yield* expectObject(storage, from(fiber), pattern(fiber, 5000))
          }
        }
      })
  })),
  {
    name: "a copy is independent of its source",
    needs: ["write"],
    check: (storage) =>
      Effect.gen(function*() {
        const bytes = pattern(7, 5000)
        yield* storage.save("original", bytes)
        const copy = yield* storage.copy("original", "copy")
        yield* storage.copy("copy", "copy of the copy")
        yield* storage.save("original", pattern(8, 6000))
        expectSameInfo("head of the copy", yield* expectObject(storage, "copy", bytes), copy)
        yield* storage.remove("original")
        expectSameInfo("head of the copy", yield* expectObject(storage, "copy", bytes), copy)
        yield* storage.save("copy", pattern(9, 4000))
        yield* expectObject(storage, "copy of the copy", bytes)
        yield* storage.remove("copy")
        yield* expectObject(storage, "copy of the copy", bytes)
        yield* expectKeys(storage, ["copy of the copy"])
      })
  },
  {
    name: "three moves swap two objects",
    needs: ["write"],
    check: (storage) =>
      Effect.gen(function*() {
        yield* storage.save("one", pattern(10, 100))
        yield* storage.save("two", pattern(11, 200))
        yield* storage.move("one", "spare")
        yield* storage.move("two", "one")
        yield* storage.move("spare", "two")
        yield* expectObject(storage, "one", pattern(11, 200))
        yield* expectObject(storage, "two", pattern(10, 100))
        yield* expectKeys(storage, ["one", "two"])
      })
  },
  ...operations.map((operation) => ({
    name: `a ${operation} interrupted at any moment loses nothing`,
    needs: ["write"] as const,
    check: (storage: Storage.Service) =>
      Effect.gen(function*() {
        const source = pattern(12, 500_000)
        const target = pattern(13, 300_000)
        yield* storage.save("folder/from", source)
        const [duration] = yield* Effect.timed(storage.copy("folder/from", "folder/to"))
        const rounds = 30
        for (let round = 0; round < rounds; round++) {
          // A server may complete a request after the interruption, so each round has keys of its own.
          const [from, to] = [`folder/from-${round}`, `folder/to-${round}`]
          yield* storage.save(from, source)
          yield* storage.save(to, target)
          const fiber = yield* Effect.fork(storage[operation](from, to))
          yield* Effect.repeatN(Effect.yieldNow(), round)
          if (round % 3 !== 0) yield* Effect.sleep(Duration.toMillis(duration) * 1.5 * round / rounds)
          const exit = yield* Fiber.interrupt(fiber)
          // The source is read first: a move removes it after the target is complete.
          const remaining = yield* loadIfPresent(storage, from)
          const found = expectOneOf("the target", yield* storage.load(to), [target, source])
          if (Exit.isSuccess(exit)) {
            expect(found, `the target of a ${operation} that ended before its interruption`).toBe(1)
          }
          if (remaining !== undefined) expectBytes("the source", remaining, source)
          else expect([operation, found], "why a source is gone").toEqual(["move", 1])
        }
      })
  }))
])
