/**
 * Removing: what is named goes, everything else stays, and each key that could not be removed is told of.
 */
import { expect } from "@effect/vitest"
import * as Data from "effect/Data"
import * as Effect from "effect/Effect"
import * as Stream from "effect/Stream"
import { expectAbsent, expectKeys, expectObject, group, pattern, saveAll } from "./kit.js"

class SourceFailure extends Data.TaggedError("SourceFailure") {}

export const removing = group("removing", [
  {
    name: "what was removed is gone, and its neighbours stay",
    needs: ["write"],
    check: (storage) =>
      Effect.gen(function*() {
        const keys = ["a/b", "a/bc", "a/c/d", "a-b", "ab", "b"]
        yield* saveAll(storage, keys, 100)
        for (const [index, key] of keys.entries()) {
          yield* storage.remove(key)
          yield* expectAbsent(storage, key)
          yield* expectKeys(storage, keys.slice(index + 1))
        }
      })
  },
  {
    name: "to remove what is not there is success",
    needs: ["write"],
    check: (storage) =>
      Effect.gen(function*() {
        yield* storage.remove("missing")
        yield* storage.remove("missing/folder/object")
        yield* storage.save("present", pattern(1, 10))
        yield* storage.remove("present")
        yield* storage.remove("present")
        yield* expectKeys(storage, [])
      })
  },
  {
    name: "what was removed can be saved again",
    needs: ["write"],
    check: (storage) =>
      Effect.gen(function*() {
        for (let round = 0; round < 5; round++) {
          yield* storage.save("again/object", pattern(round, 100 + round))
          yield* expectObject(storage, "again/object", pattern(round, 100 + round))
          yield* storage.remove("again/object")
          yield* expectAbsent(storage, "again/object")
        }
      })
  },
  {
    name: "removeAll removes what an array, a set, a generator or a stream names",
    needs: ["write"],
    check: (storage) =>
      Effect.gen(function*() {
        const keys = ["a/b", "a/c", "b", "c d", "é"]
        const generator = function*() {
          yield* keys
        }
        for (const source of [keys, new Set(keys), generator(), Stream.fromIterable(keys)]) {
          yield* saveAll(storage, [...keys, "stays"])
          expect(yield* storage.removeAll(source)).toEqual({ removed: 5, failed: [] })
          yield* expectKeys(storage, ["stays"])
        }
        expect(yield* storage.removeAll([]), "removeAll of an empty array").toEqual({ removed: 0, failed: [] })
        expect(yield* storage.removeAll(Stream.empty), "removeAll of an empty stream").toEqual({
          removed: 0,
          failed: []
        })
        yield* expectKeys(storage, ["stays"])
      })
  },
  {
    name: "removeAll tells of each key that it could not remove, and removes the others",
    needs: ["write"],
    check: (storage) =>
      Effect.gen(function*() {
        yield* saveAll(storage, ["a", "b/c", "b/d", "stays"])
        const { failed, removed } = yield* storage.removeAll(["../up", "a", "missing", "", "b/c", "a//b", "b/d", "x\0"])
        expect(removed, "how many were removed").toBe(4)
        expect(failed.map((failure) => [failure._tag, failure.key])).toEqual([
          ["InvalidKey", "../up"],
          ["InvalidKey", ""],
          ["InvalidKey", "a//b"],
          ["InvalidKey", "x\0"]
        ])
        yield* expectKeys(storage, ["stays"])
      })
  },
  {
    name: "removeAll takes a key that is named twice",
    needs: ["write"],
    check: (storage) =>
      Effect.gen(function*() {
        yield* saveAll(storage, ["twice", "once"])
        const { failed } = yield* storage.removeAll(["twice", "once", "twice", "twice"])
        expect(failed).toEqual([])
        yield* expectKeys(storage, [])
      })
  },
  {
    name: "removeAll takes more keys than fit in one request",
    needs: ["write"],
    slow: true,
    check: (storage) =>
      Effect.gen(function*() {
        const all = Array.from({ length: 2100 }, (_, index) => `folder-${index % 10}/${index}`)
        const present = all.filter((_, index) =>
          index % 70 === 0 || [999, 1000, 1001, 1999, 2000, 2099].includes(index)
        )
        for (const source of [all, Stream.fromIterable(all)]) {
          yield* saveAll(storage, [...present, "stays"])
          const { failed, removed } = yield* storage.removeAll(source)
          expect({ failed, removed }).toEqual({ failed: [], removed: 2100 })
          yield* expectKeys(storage, ["stays"])
        }
      })
  },
  {
    name: "the failure of a stream of keys comes through as itself",
    needs: ["write"],
    check: (storage) =>
      Effect.gen(function*() {
        yield* saveAll(storage, ["a", "b", "stays"])
        const failure = new SourceFailure()
        const error = yield* Effect.flip(storage.removeAll(Stream.concat(Stream.make("a", "b"), Stream.fail(failure))))
        expect(error).toBe(failure)
        yield* expectObject(storage, "stays", pattern(2, 3))
      })
  }
])
