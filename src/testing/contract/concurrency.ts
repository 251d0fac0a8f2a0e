/**
 * Concurrent operations see whole objects, and fail only for a reason.
 */
import { expect } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Stream from "effect/Stream"
import * as ByteRange from "../../ByteRange.js"
import { concat } from "../../internal/bytes.js"
import type * as Storage from "../../Storage.js"
import type { StorageError } from "../../StorageError.js"
import { gather, inChunks, inOrder, MiB, pattern } from "./bytes.js"
import { group } from "./cases.js"
import { expectAbsent, expectBytes, expectKeys, expectObject, expectOneOf, expectSameInfo } from "./expect.js"

/** An object that describes itself: its first eight bytes are the seed and the size of the pattern that follows. */
const selfDescribing = (seed: number): Uint8Array => {
  const size = (seed * 7919) % 9000
  return concat([new Uint8Array(Uint32Array.of(seed, size).buffer), pattern(seed, size)])
}

const expectSelfDescribing = (what: string, bytes: Uint8Array): void => {
  const [seed = -1] = new Uint32Array(bytes.slice(0, 8).buffer)
  expectBytes(what, bytes, selfDescribing(seed))
}

const mixedOperations = (storage: Storage.Service, index: number): Effect.Effect<unknown, StorageError> => {
  // Twenty keys, so that concurrent operations often meet; every kind of operation meets every key.
  const key = (n: number) => `mixed/folder-${n % 4}/${n % 10}`
  const here = key(index)
  const { list } = storage.backend.capabilities
  switch (index % 11) {
    case 0:
    case 1:
      return storage.save(here, selfDescribing(index))
    case 2:
      return storage.save(here, inChunks(selfDescribing(index), [1000, 0, 17]))
    case 3:
      return Effect.map(storage.load(here), (bytes) => expectSelfDescribing("load", bytes))
    case 4:
      return Effect.map(gather(storage.stream(here)), (bytes) => expectSelfDescribing("stream", bytes))
    case 5:
      return Effect.map(
        storage.load(here, { range: ByteRange.make(0, 8) }),
        (bytes) => expect(bytes.byteLength, "a range of eight bytes").toBe(8)
      )
    case 6:
      return Effect.map(storage.head(here), (info) => expect(info.key).toBe(here))
    case 7:
      return list && index % 3 === 0
        ? Effect.map(storage.list("mixed/"), (keys) => expect(keys, "list").toEqual(inOrder(keys)))
        : storage.exists(here)
    case 8:
      return storage.remove(here)
    case 9:
      return storage.removeAll([here, key(index + 1)])
    default:
      return storage.copy(here, key(index + 5))
  }
}

export const concurrency = group("concurrency", [
  {
    name: "a thousand concurrent operations see whole objects and fail only with ObjectNotFound",
    needs: ["write"],
    check: (storage) =>
      Effect.gen(function*() {
        yield* Effect.forEach(
          Array.from({ length: 1000 }, (_, index) => index),
          (index) => Effect.catchTag(mixedOperations(storage, index), "ObjectNotFound", () => Effect.void),
          { concurrency: 32, discard: true }
        )
        if (storage.backend.capabilities.list) {
          for (const key of yield* storage.list()) {
            expectSelfDescribing(`load of ${key}`, yield* storage.load(key))
          }
        }
      })
  },
  {
    name: "two concurrent saves never interleave",
    needs: ["write"],
    check: (storage) =>
      Effect.gen(function*() {
        for (let round = 0; round < 30; round++) {
          const size = round % 10 === 0 ? 2 * MiB : 20_000
          const one = pattern(2 * round, size)
          const two = pattern(2 * round + 1, round % 2 === 0 ? size : size + 4097)
          const slowly = (bytes: Uint8Array) =>
            Stream.tap(inChunks(bytes, [bytes.byteLength >> 3]), () => Effect.yieldNow())
          const [first, second] = yield* Effect.all([
            storage.save("raced", round % 3 === 0 ? one : slowly(one)),
            storage.save("raced", round % 3 === 1 ? two : slowly(two))
          ], { concurrency: "unbounded" })
          const winner = expectOneOf("the object after two saves", yield* storage.load("raced"), [one, two])
          expectSameInfo("head", yield* storage.head("raced"), winner === 0 ? first : second)
          yield* expectKeys(storage, ["raced"])
        }
      })
  },
  {
    name: "eight concurrent saves of equal size leave one of them whole",
    needs: ["write"],
    check: (storage) =>
      Effect.gen(function*() {
        const candidates = Array.from({ length: 8 }, (_, index) => pattern(index, 500_000))
        yield* Effect.forEach(
          candidates,
          (bytes, index) => storage.save("raced", index % 2 === 0 ? bytes : inChunks(bytes)),
          { concurrency: "unbounded" }
        )
        expectOneOf("the object after eight saves", yield* gather(storage.stream("raced")), candidates)
      })
  },
  {
    name: "a concurrent save and removal leave the whole object or none",
    needs: ["write"],
    check: (storage) =>
      Effect.gen(function*() {
        for (let round = 0; round < 30; round++) {
          const bytes = pattern(round, 10_000)
          yield* storage.save("folder/contested", pattern(99, 10))
          const both = [storage.save("folder/contested", bytes), storage.remove("folder/contested")]
          yield* Effect.all(round % 2 === 0 ? both : both.reverse(), { concurrency: "unbounded" })
          if (yield* storage.exists("folder/contested")) yield* expectObject(storage, "folder/contested", bytes)
          else yield* expectAbsent(storage, "folder/contested")
        }
      })
  },
  {
    name: "a save into a folder that is being emptied succeeds",
    needs: ["write"],
    check: (storage) =>
      Effect.forEach(
        ["shared/a", "shared/deep/b", "shared/deep/c", "shared/deep/er/d"],
        (key, index) =>
          Effect.gen(function*() {
            for (let round = 0; round < 40; round++) {
              const bytes = pattern(index, 50 + round)
              yield* storage.save(key, round % 2 === 0 ? bytes : inChunks(bytes, [20]))
              expectBytes(`load of ${key}`, yield* storage.load(key), bytes)
              if (index === 1) yield* storage.move(key, "shared/deep/moved")
              yield* storage.remove(index === 1 ? "shared/deep/moved" : key)
            }
          }),
        { concurrency: "unbounded", discard: true }
      )
  },
  {
    name: "a hundred concurrent saves are all whole",
    needs: ["write"],
    check: (storage) =>
      Effect.gen(function*() {
        const keys = Array.from({ length: 100 }, (_, index) => `at/once/${index % 5}/${index}`)
        yield* Effect.forEach(keys, (key, index) => storage.save(key, inChunks(pattern(index, 5000 + index), [999])), {
          concurrency: "unbounded",
          discard: true
        })
        yield* Effect.forEach(keys, (key, index) =>
          Effect.map(storage.load(key), (bytes) =>
            expectBytes(`load of ${key}`, bytes, pattern(index, 5000 + index))), {
          concurrency: "unbounded",
          discard: true
        })
        yield* expectKeys(storage, keys)
      })
  }
])
