/**
 * Removals: exactly the given keys are removed, and each that cannot be is returned with its failure.
 */
import { expect } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Stream from "effect/Stream"
import { inChunks, pattern } from "./bytes.js"
import { type Check, group } from "./cases.js"
import { otherEtags } from "./conditions.js"
import {
  expectAbsent,
  expectFailure,
  expectKeys,
  expectNoChange,
  expectObject,
  expectSameInfo,
  saveAll
} from "./expect.js"
import { SourceFailure } from "./sources.js"

/** A removal under a stale etag that races a save must fail or come first: the new version stays. */
const racingSaves: Check = (storage) =>
  Effect.gen(function*() {
    for (let round = 0; round < 30; round++) {
      const { etag } = yield* storage.save("folder/raced", pattern(round, 1000))
      const bytes = pattern(round + 100, 1000)
      const save = storage.save("folder/raced", round % 3 === 0 ? inChunks(bytes, [100]) : bytes)
      const remove = Effect.either(storage.remove("folder/raced", { ifMatch: etag }))
      const both = round % 2 === 0 ? Effect.zip(save, remove, { concurrent: true }) : Effect.map(
        Effect.zip(remove, save, { concurrent: true }),
        ([removed, saved]) => [saved, removed] as const
      )
      const [saved, removed] = yield* both
      if (Either.isLeft(removed)) expect(removed.left._tag, "the failure of the removal").toBe("PreconditionFailed")
      expectSameInfo("the new version", yield* expectObject(storage, "folder/raced", bytes), saved)
    }
  })

export const removing = group("removing", [
  {
    name: "a removed object is gone and its neighbours stay",
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
    name: "removing a missing object succeeds",
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
    name: "a removed object can be saved again",
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
    name: "ifMatch on a removal removes the object with this etag",
    needs: ["write", "conditionalRemove"],
    check: (storage) =>
      Effect.gen(function*() {
        yield* storage.save("neighbour", pattern(3, 10))
        for (const size of [0, 1000]) {
          yield* storage.save("versioned", pattern(4, size))
          const { etag } = yield* storage.save("versioned", pattern(5, size))
          yield* storage.remove("versioned", { ifMatch: etag })
          yield* expectAbsent(storage, "versioned")
          yield* expectKeys(storage, ["neighbour"])
        }
        const { etag } = yield* storage.save("versioned", inChunks(pattern(6, 1000), [300]))
        yield* storage.remove("versioned", { ifMatch: etag })
        yield* expectAbsent(storage, "versioned")
      })
  },
  {
    name: "ifMatch on a removal fails with PreconditionFailed for any other etag, also of a missing object",
    needs: ["write", "conditionalRemove"],
    check: (storage) =>
      Effect.gen(function*() {
        const another = yield* storage.save("another", pattern(7, 100))
        yield* storage.remove("another")
        yield* expectNoChange(storage, (key) =>
          Effect.gen(function*() {
            const found = yield* storage.exists(key)
            const stale = found ? yield* storage.head(key) : another
            const etags = [...otherEtags(stale.etag, another.etag), ...(found ? [] : [stale.etag])]
            for (const ifMatch of etags) {
              const what = `remove with ifMatch ${JSON.stringify(ifMatch)}`
              yield* expectFailure(what, "PreconditionFailed", storage.remove(key, { ifMatch }), key)
            }
          }))
        const first = yield* storage.save("versioned", pattern(8, 100))
        const second = yield* storage.save("versioned", pattern(9, 100))
        const stale = storage.remove("versioned", { ifMatch: first.etag })
        yield* expectFailure("remove with a stale ifMatch", "PreconditionFailed", stale, "versioned")
        expectSameInfo("the new version", yield* expectObject(storage, "versioned", pattern(9, 100)), second)
      })
  },
  {
    name: "a removal with ifMatch never removes a newer version",
    needs: ["write", "conditionalRemove"],
    check: racingSaves
  },
  {
    name: "removeAll accepts an array, a set, a generator or a stream of keys",
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
    name: "removeAll returns a failure for each invalid key and removes the others",
    needs: ["write"],
    check: (storage) =>
      Effect.gen(function*() {
        yield* saveAll(storage, ["a", "b/c", "b/d", "stays"])
        const { failed, removed } = yield* storage.removeAll(["../up", "a", "missing", "", "b/c", "a//b", "b/d", "x\0"])
        expect(removed, "the number of removed keys").toBe(4)
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
    name: "removeAll accepts repeated keys",
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
    name: "removeAll accepts more keys than fit in one request",
    needs: ["write"],
    check: (storage) =>
      Effect.gen(function*() {
        const all = Array.from({ length: 2100 }, (_, index) => `folder-${index % 10}/${index}`)
        const present = all.filter((_, index) =>
          index % 70 === 0 || [999, 1000, 1001, 1999, 2000, 2099].includes(index)
        )
        yield* saveAll(storage, [...present, "stays"])
        const { failed, removed } = yield* storage.removeAll(Stream.fromIterable(all))
        expect({ failed, removed }).toEqual({ failed: [], removed: 2100 })
        yield* expectKeys(storage, ["stays"])
      })
  },
  {
    name: "a failure of the stream of keys is returned unchanged",
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
