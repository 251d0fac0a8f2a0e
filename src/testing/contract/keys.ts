/**
 * Keys: every valid key is kept byte for byte and is distinct from every other one; an invalid key is refused before any
 * I/O.
 */
import { expect } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Stream from "effect/Stream"
import * as ObjectKey from "../../ObjectKey.js"
import type * as Storage from "../../Storage.js"
import type { StorageError } from "../../StorageError.js"
import { inChunks, inOrder, pattern, show } from "./bytes.js"
import { type Check, group } from "./cases.js"
import {
  entriesOf,
  expectAbsent,
  expectBytes,
  expectFailure,
  expectKeys,
  expectObject,
  expectSameInfo,
  reads,
  saveAll
} from "./expect.js"
import { decoded, invalidKeys, nested, segments, similarTo } from "./keyNames.js"

interface Numbered {
  readonly key: string
  readonly index: number
  readonly bytes: Uint8Array
}

const eachOf = <E>(objects: ReadonlyArray<Numbered>, run: (object: Numbered) => Effect.Effect<void, E>) =>
  Effect.forEach(objects, run, { concurrency: 8, discard: true })

const expectListed = (storage: Storage.Service, objects: ReadonlyArray<Numbered>) =>
  Effect.gen(function*() {
    const keys = objects.map(({ key }) => key)
    const listed = new Map((yield* entriesOf(storage)).map((info) => [info.key, info]))
    yield* eachOf(objects, ({ key }) =>
      Effect.gen(function*() {
        const info = listed.get(key)
        if (info === undefined) expect.fail(`entries lacks ${show(key)}`)
        else expectSameInfo(`entries compared with head of ${show(key)}`, info, yield* storage.head(key))
        for (const prefix of new Set([key, decoded(key)])) {
          expect(yield* storage.list(prefix), `list of the prefix ${show(prefix)}`)
            .toEqual(inOrder(keys.filter((other) => other.startsWith(prefix))))
        }
      }))
  })

/** Expects similar keys, under which nothing was saved, to have no object, and their removal to remove nothing. */
const expectDistinct = (storage: Storage.Service, keys: ReadonlyArray<string>) =>
  Effect.gen(function*() {
    const similar = new Set(keys.flatMap(similarTo))
    const unsaved = [...similar].filter((key) => ObjectKey.problem(key) === undefined && !keys.includes(key))
    yield* Effect.forEach(
      unsaved,
      (key) =>
        Effect.map(storage.exists(key), (found) => expect(found, `exists of ${show(key)}, never saved`).toBe(false)),
      { concurrency: 8 }
    )
    expect((yield* storage.removeAll(unsaved)).failed, "failures to remove keys that were never saved").toEqual([])
    yield* expectKeys(storage, keys, "the listing after removing similar keys")
  })

const roundTrip = (keys: ReadonlyArray<string>): Check => (storage) =>
  Effect.gen(function*() {
    const objects = keys.map((key, index) => ({ key, index, bytes: pattern(index, 20 + index) }))
    yield* eachOf(objects, ({ bytes, index, key }) =>
      Effect.gen(function*() {
        const saved = yield* storage.save(key, index % 2 === 0 ? bytes : inChunks(bytes, [7]))
        expect(saved.key, "the key that save returns").toBe(key)
      }))
    yield* expectKeys(storage, keys)
    yield* eachOf(objects, ({ bytes, key }) => Effect.asVoid(expectObject(storage, key, bytes)))
    if (storage.backend.capabilities.list) yield* expectListed(storage, objects)
    yield* expectDistinct(storage, keys)

    yield* eachOf(objects, ({ bytes, index, key }) =>
      Effect.gen(function*() {
        const plain = `plain-${index}`
        yield* storage.copy(key, plain)
        yield* storage.remove(key)
        expect(yield* storage.exists(key), `exists of ${show(key)}, which was removed`).toBe(false)
        yield* expectFailure(`load of ${show(key)}, which was removed`, "ObjectNotFound", storage.load(key), key)
        const moved = yield* storage.move(plain, key)
        expect(moved.key, "the key that move returns").toBe(key)
        expectBytes(`load of ${show(key)} after a move`, yield* storage.load(key), bytes)
      }))
    yield* expectKeys(storage, keys, "the listing after moving every object away and back")
    yield* Effect.forEach(keys, (key) => storage.remove(key), { concurrency: 8, discard: true })
    yield* expectKeys(storage, [], "the listing after removing every object")
  })

const invalidAreRefused: Check = (storage) =>
  Effect.gen(function*() {
    const { list, write } = storage.backend.capabilities
    if (write) yield* storage.save("a", pattern(1, 10))
    for (const [why, key] of invalidKeys) {
      let pulled = 0
      const source = Stream.sync(() => {
        pulled++
        return pattern(2, 10)
      })
      const operations = [
        ...reads(storage, key),
        ["head", storage.head(key)],
        ["exists", storage.exists(key)],
        ["save of bytes", storage.save(key, pattern(2, 10))],
        ["save of a stream", storage.save(key, source)],
        ["copy from it", storage.copy(key, "b")],
        ["copy to it", storage.copy("a", key)],
        ["copy from and to it", storage.copy(key, key)],
        ["move from it", storage.move(key, "b")],
        ["move to it", storage.move("a", key)],
        ["remove", storage.remove(key)]
      ] as const
      for (const [what, effect] of operations) {
        yield* expectFailure(`${what}, the key being ${why} (${show(key)})`, "InvalidKey", effect, key)
      }
      expect(pulled, `how often a source was pulled for a save under ${show(key)}`).toBe(0)
      if (!write) continue
      const { failed, removed } = yield* storage.removeAll([key])
      expect(removed, `how many keys removeAll removed, given ${show(key)}`).toBe(0)
      expect(failed.map((failure) => [failure._tag, failure.key])).toEqual([["InvalidKey", key]])
    }
    if (write) {
      expectBytes("load of the only object", yield* storage.load("a"), pattern(1, 10))
      yield* expectKeys(storage, ["a"])
    } else if (list) yield* expectKeys(storage, [])
  })

const segmentsAreFolders: Check = (storage) =>
  Effect.gen(function*() {
    const folders = Object.values(segments).flat().filter((name) => ObjectKey.byteLength(name) <= 511)
    const keys = folders.map((name) => `${name}/${name}`)
    yield* saveAll(storage, keys)
    yield* expectKeys(storage, keys)
    const root = yield* storage.listDirectory()
    expect(root, "the root directory").toEqual({ objects: [], prefixes: inOrder(folders.map((name) => `${name}/`)) })
    yield* Effect.forEach(folders, (name) =>
      Effect.gen(function*() {
        const key = `${name}/${name}`
        const { objects, prefixes } = yield* storage.listDirectory(`${name}/`)
        expect({ keys: objects.map((object) => object.key), prefixes }, `the directory ${show(name)}`)
          .toEqual({ keys: [key], prefixes: [] })
        expect(yield* storage.list(`${name}/`), `list of the folder ${show(name)}`).toEqual([key])
      }), { concurrency: 8, discard: true })
  })

const foldersAreNoObjects: Check = (storage) =>
  Effect.gen(function*() {
    const bytes = pattern(3, 10)
    yield* storage.save("folder/deep/object", bytes)
    for (const folder of ["folder", "folder/deep", "fold"]) {
      yield* expectAbsent(storage, folder)
      yield* expectFailure("copy of a folder", "ObjectNotFound", storage.copy(folder, "copy"), folder)
      yield* expectFailure("move of a folder", "ObjectNotFound", storage.move(folder, "moved"), folder)
      yield* storage.remove(folder)
      expect(yield* storage.removeAll([folder]), `removeAll of the folder ${folder}`)
        .toEqual({ removed: 1, failed: [] })
    }
    yield* expectObject(storage, "folder/deep/object", bytes)
    yield* expectKeys(storage, ["folder/deep/object"])
  })

const objectsAreNoFolders: Check = (storage) =>
  Effect.gen(function*() {
    const bytes = pattern(4, 10)
    yield* storage.save("object", bytes)
    for (const key of ["object/below", "object/far/below", "objec", "objects"]) {
      yield* expectAbsent(storage, key)
      yield* expectFailure("copy of a missing object", "ObjectNotFound", storage.copy(key, "copy"), key)
      yield* expectFailure("move of a missing object", "ObjectNotFound", storage.move(key, "moved"), key)
      yield* storage.remove(key)
      expect((yield* storage.removeAll([key])).failed, `failures to remove ${key}`).toEqual([])
    }
    if (storage.backend.capabilities.list) {
      expect(yield* storage.list("object/")).toEqual([])
      expect(yield* storage.listDirectory("object/")).toEqual({ objects: [], prefixes: [] })
    }
    yield* expectObject(storage, "object", bytes)
    yield* expectKeys(storage, ["object"])
  })

const upper = pattern(5, 20)
const lower = pattern(6, 30)

/** Two keys, of which one is a folder of the other, in the order in which they are saved. */
const nestedPairs = [
  ["upper_one", "upper_one/lower_one"],
  ["upper_one/lower_one", "upper_one"],
  ["upper_one", "upper_one/between/lower_one"],
  ["upper_one/between/lower_one", "upper_one"],
  ["folder/upper_one", "folder/upper_one/lower_one"]
] as const

const expectBoth = (storage: Storage.Service, first: string, second: string): Effect.Effect<void, StorageError> =>
  Effect.gen(function*() {
    yield* storage.save(second, lower)
    yield* expectObject(storage, first, upper)
    yield* expectObject(storage, second, lower)
    yield* expectKeys(storage, ["other", first, second])
    const above = first.length < second.length ? first : second
    if (storage.backend.capabilities.list && !above.includes("/")) {
      const { objects, prefixes } = yield* storage.listDirectory("upper")
      expect({ keys: objects.map((object) => object.key), prefixes }, "the directory of an object and a folder")
        .toEqual({ keys: [above], prefixes: [`${above}/`] })
    }
    yield* storage.remove(first)
    yield* expectAbsent(storage, first)
  })

const expectOneRefused = (storage: Storage.Service, first: string, second: string): Effect.Effect<void, StorageError> =>
  Effect.gen(function*() {
    const { createOnly } = storage.backend.capabilities
    const attempts = [
      ["save of bytes", storage.save(second, lower)],
      ["save of a stream", storage.save(second, inChunks(lower))],
      ["copy", storage.copy("other", second)],
      ["move", storage.move("other", second)],
      ["move of one to the other", storage.move(first, second)],
      ...(createOnly ? [["creation", storage.save(second, lower, { ifNoneMatch: "*" })] as const] : [])
    ] as const
    for (const [what, attempt] of attempts) {
      const where = `${what} of ${second} beside ${first}`
      const { message } = yield* expectFailure(where, "UnsupportedOperation", attempt)
      const [short, long] = first.length < second.length ? [first, second] : [second, first]
      expect(message, `the message of ${where}`).toContain(long)
      expect(message.replaceAll(long, ""), `the message of ${where}, without ${long}`).toContain(short)
      yield* expectAbsent(storage, second)
      yield* expectObject(storage, first, upper)
      yield* expectKeys(storage, ["other", first])
    }
    yield* storage.remove(first)
    yield* storage.save(second, lower)
  })

const objectsUnderObjects: Check = (storage) =>
  Effect.gen(function*() {
    yield* storage.save("other", lower)
    for (const [first, second] of nestedPairs) {
      yield* storage.save(first, upper)
      yield* (storage.backend.capabilities.objectsWithinObjects ? expectBoth : expectOneRefused)(storage, first, second)
      yield* expectObject(storage, second, lower)
      yield* expectKeys(storage, ["other", second])
      yield* storage.remove(second)
    }
    yield* expectObject(storage, "other", lower)
  })

export const keys = group("keys", [
  { name: "an invalid key fails with InvalidKey on every operation, before any I/O", check: invalidAreRefused },
  ...Object.entries(segments).map(([what, keys]) => ({
    name: `keys are kept byte for byte and distinct: ${what}`,
    needs: ["write"] as const,
    check: roundTrip(keys)
  })),
  {
    name: "keys are kept byte for byte and distinct: nested folders",
    needs: ["write"],
    check: roundTrip(nested)
  },
  {
    name: "every segment can be the name of a folder",
    needs: ["write", "list"],
    check: segmentsAreFolders
  },
  { name: "a folder is not an object", needs: ["write"], check: foldersAreNoObjects },
  { name: "an object is not a folder", needs: ["write"], check: objectsAreNoFolders },
  {
    name: "an object beside a folder of the same name is kept, or refused with both keys in the message",
    needs: ["write"],
    check: objectsUnderObjects
  }
])
