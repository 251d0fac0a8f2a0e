/**
 * Listings: plain-string prefixes, UTF-8 byte order, a page at a time, and directories with `/` as the delimiter.
 */
import { expect } from "@effect/vitest"
import * as Chunk from "effect/Chunk"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Stream from "effect/Stream"
import type * as Storage from "../../Storage.js"
import type { StorageError } from "../../StorageError.js"
import { inOrder, isAfter, pattern, show } from "./bytes.js"
import { type Check, group } from "./cases.js"
import { entriesOf, expectKeys, expectSameInfo, saveAll } from "./expect.js"

/** Keys that naive comparisons put in another order; none is a folder of another. */
const ordered = inOrder([
  "a-b",
  "a-c/d",
  "a.b",
  "a/b",
  "a/b-c",
  "a/b.c",
  "a/bb/c",
  "a/c/d/e",
  "a0",
  "a 1",
  "a%2Fb",
  "aa/b",
  "B",
  "b/1",
  "b/10",
  "b/2",
  "b-",
  "embeddings_0.bin",
  "embeddings_1.bin",
  "embeddings/0.bin",
  "z",
  "é",
  "e\u0301",
  "\ud7ff",
  "\ue000",
  "\ufffc/x",
  "\ufffd",
  "\uffff",
  "\u{10000}",
  "\u{1f600}",
  "\u{1f601}/x",
  "\u{10ffff}"
])

/** Expects `entries` and `list` to return exactly these keys. */
const expectListing = (
  storage: Storage.Service,
  what: string,
  keys: ReadonlyArray<string>,
  { prefix, startAfter }: Storage.ListOptions
): Effect.Effect<void, StorageError> =>
  Effect.gen(function*() {
    const wanted = keys.filter((key) =>
      key.startsWith(prefix ?? "") && (startAfter === undefined || isAfter(key, startAfter))
    )
    const infos = yield* entriesOf(storage, { prefix, startAfter })
    expect(infos.map((info) => info.key), `entries ${what}`).toEqual(wanted)
    if (startAfter === undefined) expect(yield* storage.list(prefix), `list ${what}`).toEqual(wanted)
  })

const keysAndPrefixes = (storage: Storage.Service, prefix?: string) =>
  Effect.map(storage.listDirectory(prefix), ({ objects, prefixes }) => ({
    objects: objects.map((object) => object.key),
    prefixes
  }))

const number = (index: number) => String(index).padStart(4, "0")
const flat = Array.from({ length: 1200 }, (_, index) => `flat/${number(index)}`)
const folders = Array.from({ length: 1100 }, (_, index) => `many/${number(index)}/object`)
const mixed = Array.from(
  { length: 50 },
  (_, index) => ["mixed-", "mixed.", "mixed/", "mixed0"].map((name) => name + number(index))
).flat()
const manyKeys = inOrder([...flat, ...folders, ...mixed])

/** Keys, folders, their ends and parts of names, with prefixes that begin before, at and after them. */
const startsAndPrefixes = [
  ["flat/0999", "flat/"],
  ["flat/1199", "flat/"],
  ["flat/1199", "many/05"],
  ["many", "many/"],
  ["many/0500", "many/"],
  ["many/0500", "many/05"],
  ["many/0500/", "many/05"],
  ["many/0500/object", "many/"],
  ["many/0500/object", "flat/"],
  ["mixed", "mixed"],
  ["mixed", "many/"]
] as const

/** Takes all keys in pages of 333, each after the last of the page before. */
const takePages = (storage: Storage.Service) =>
  Effect.gen(function*() {
    const pages: Array<string> = []
    for (;;) {
      const startAfter = pages.at(-1) ?? ""
      const page = yield* Stream.runCollect(Stream.take(storage.entries({ startAfter }), 333))
      pages.push(...Chunk.toReadonlyArray(page).map((info) => info.key))
      if (Chunk.size(page) < 333) break
    }
    return pages
  })

const manyObjects: Check = (storage) =>
  Effect.gen(function*() {
    yield* saveAll(storage, manyKeys)
    yield* expectListing(storage, "of everything", manyKeys, {})
    yield* expectListing(storage, "of one folder", manyKeys, { prefix: "flat/" })
    yield* expectListing(storage, "of a part of a name", manyKeys, { prefix: "m" })
    for (const at of [0, 1, 998, 999, 1000, 1001, 1199, 1200, 1250, 1999, 2000, 2001, 2498, 2499]) {
      const startAfter = manyKeys[at] ?? ""
      const next = yield* Stream.runCollect(Stream.take(storage.entries({ startAfter }), 20))
      expect(Chunk.toReadonlyArray(next).map((info) => info.key), `the first 20 entries after ${startAfter}`)
        .toEqual(manyKeys.slice(at + 1, at + 21))
    }
    for (const [startAfter, prefix] of startsAndPrefixes) {
      yield* expectListing(storage, `of ${prefix} after ${startAfter}`, manyKeys, { prefix, startAfter })
    }

    expect(yield* takePages(storage), "pages of 333 taken with startAfter").toEqual(manyKeys)
    const first = yield* Stream.runCollect(Stream.take(storage.entries(), 1))
    expect(Chunk.toReadonlyArray(first).map((info) => info.key), "a listing that is abandoned after one entry").toEqual(
      manyKeys.slice(0, 1)
    )
    expect(yield* keysAndPrefixes(storage, "flat/"), "a directory of 1,200 objects").toEqual({
      objects: flat,
      prefixes: []
    })
    expect(yield* keysAndPrefixes(storage, "many/"), "a directory of 1,100 folders")
      .toEqual({ objects: [], prefixes: folders.map((key) => key.slice(0, -"object".length)) })
    expect(yield* keysAndPrefixes(storage), "the root directory").toEqual({
      objects: mixed.filter((key) => !key.includes("/")).sort(),
      prefixes: ["flat/", "many/", "mixed/"]
    })

    const summary = yield* storage.removeAll(storage.entries().pipe(Stream.map((info) => info.key)))
    expect(summary, "the summary of removing everything that is listed").toEqual({ removed: 2500, failed: [] })
    yield* expectKeys(storage, [])
  })

export const listing = group("listing", [
  {
    name: "an empty store, and a prefix without objects, list nothing",
    needs: ["list"],
    check: (storage) =>
      Effect.gen(function*() {
        const nothing = function*() {
          for (const prefix of ["missing", "missing/", "missing/folder/", "m", "\u{10ffff}", "x".repeat(1024)]) {
            yield* expectListing(storage, `of the prefix ${show(prefix)}`, [], { prefix })
            expect(yield* storage.listDirectory(prefix)).toEqual({ objects: [], prefixes: [] })
          }
        }
        yield* expectListing(storage, "of an empty store", [], {})
        yield* expectListing(storage, "of an empty store", [], { startAfter: "a" })
        expect(yield* storage.listDirectory()).toEqual({ objects: [], prefixes: [] })
        yield* nothing()
        if (storage.backend.capabilities.write) {
          yield* saveAll(storage, ["a", "present/a"])
          yield* nothing()
        }
      })
  },
  {
    name: "keys are listed in UTF-8 byte order",
    needs: ["write", "list"],
    check: (storage) =>
      Effect.gen(function*() {
        yield* saveAll(storage, [...ordered].reverse())
        yield* expectListing(storage, "of everything", ordered, {})
        yield* expectListing(storage, "of the empty prefix", ordered, { prefix: "" })
        const listed = yield* storage.list()
        expect(listed.filter((key) => /^a[-./0]b?$/.test(key))).toEqual(["a-b", "a.b", "a/b", "a0"])
        expect(listed.filter((key) => key === "\u{1f600}" || key === "\ufffd")).toEqual(["\ufffd", "\u{1f600}"])
      })
  },
  {
    name: "a prefix is a plain string: a part of a name, a whole key, or a folder",
    needs: ["write", "list"],
    check: (storage) =>
      Effect.gen(function*() {
        yield* saveAll(storage, ordered)
        const prefixes = [
          ...ordered,
          "a",
          "a/",
          "a-",
          "a/b",
          "a/b-",
          "a/bb",
          "a/bb/",
          "a/c/d",
          "a/c/d/",
          "a%",
          "a/b/",
          "aa",
          "aa/",
          "b",
          "b/",
          "b/1",
          "e",
          "embeddings",
          "embeddings_",
          "embeddings/",
          "B",
          "A",
          "a/b-c/",
          "z/",
          "zz",
          ".",
          "..",
          "a/.",
          "a/.."
        ]
        for (const prefix of prefixes) {
          yield* expectListing(storage, `of the prefix ${show(prefix)}`, ordered, { prefix })
        }
      })
  },
  {
    name: "a prefix that no valid key has lists nothing",
    needs: ["write", "list"],
    check: (storage) =>
      Effect.gen(function*() {
        yield* saveAll(storage, ["a/b", "\u{1f600}", "b"])
        for (
          const prefix of [
            "/",
            "//",
            "../",
            "./",
            "a//",
            "a/../",
            "a/./",
            "../a",
            "/a",
            "\0",
            "a\n",
            "\ud83d",
            "\ude00",
            "x".repeat(1025)
          ]
        ) {
          yield* expectListing(storage, `of the prefix ${show(prefix)}`, [], { prefix })
          yield* expectListing(storage, `of the prefix ${show(prefix)} after "a"`, [], { prefix, startAfter: "a" })
          expect(yield* storage.listDirectory(prefix), `listDirectory of ${show(prefix)}`)
            .toEqual({ objects: [], prefixes: [] })
        }
      })
  },
  {
    name: "startAfter lists the keys after any string, within any prefix",
    needs: ["write", "list"],
    check: (storage) =>
      Effect.gen(function*() {
        yield* saveAll(storage, ordered)
        const afters = [
          ...ordered,
          "",
          " ",
          "A",
          "a",
          "a-",
          "a-b/",
          "a/",
          "a/a",
          "a/b",
          "a/b/",
          "a/bb",
          "a/bb/",
          "a/bb/b",
          "a/bb/c/",
          "a/c/d",
          "a/c0",
          "a0/",
          "aa",
          "b",
          "b/",
          "b/1/",
          "b0",
          "..",
          "../",
          "/",
          "a//",
          "~",
          "\ufffc",
          "\ufffd",
          "\u{1f600}",
          "\u{10ffff}x",
          "x".repeat(2000)
        ]
        for (const startAfter of afters) {
          yield* expectListing(storage, `after ${show(startAfter)}`, ordered, { startAfter })
        }
        for (const prefix of ["a", "a/", "a/b", "b/", "embeddings", "\ufffc", "none/"]) {
          for (
            const startAfter of [
              "",
              "A",
              "a",
              "a/",
              "a/b",
              "a/b-c",
              "a/bb/c",
              "a0",
              "b/1",
              "b/10",
              "b/2",
              "zz",
              "\u{10ffff}x"
            ]
          ) {
            const what = `of the prefix ${show(prefix)} after ${show(startAfter)}`
            yield* expectListing(storage, what, ordered, { prefix, startAfter })
          }
        }
      })
  },
  {
    name: "2,500 objects are listed across pages",
    needs: ["write", "list"],
    check: manyObjects
  },
  {
    name: "entries returns the metadata that head returns",
    needs: ["write", "list"],
    check: (storage) =>
      Effect.gen(function*() {
        yield* Effect.forEach(ordered.entries(), ([index, key]) => storage.save(key, pattern(index, index * 37)), {
          concurrency: 8
        })
        const infos = yield* entriesOf(storage)
        expect(infos.length).toBe(ordered.length)
        yield* Effect.forEach(infos, (info) =>
          Effect.map(storage.head(info.key), (head) =>
            expectSameInfo(`entries compared with head of ${show(info.key)}`, info, head)), { concurrency: 8 })
      })
  },
  {
    name: "a listing reads the store when it is run, not when it is created",
    needs: ["write", "list"],
    check: (storage) =>
      Effect.gen(function*() {
        const entries = storage.entries()
        const list = storage.list()
        yield* saveAll(storage, ["a", "b"])
        expect(yield* Stream.runCount(entries)).toBe(2)
        expect(yield* list).toEqual(["a", "b"])
        yield* storage.remove("a")
        expect(yield* Stream.runCount(entries)).toBe(1)
        expect(yield* list).toEqual(["b"])
      })
  },
  {
    name: "a listing during concurrent changes contains each unchanged object once and in order",
    needs: ["write", "list"],
    check: (storage) =>
      Effect.gen(function*() {
        const staying = inOrder(Array.from({ length: 200 }, (_, index) => `folder-${index % 7}/stays-${index}`))
        yield* saveAll(storage, staying)
        const writer = yield* Effect.fork(Effect.forever(
          Effect.forEach(["folder-3/comes", "folder-0/comes/and/goes", "new/comes", "zz"], (key) =>
            Effect.zipRight(storage.save(key, pattern(1, 10)), storage.remove(key)))
        ))
        for (let round = 0; round < 20; round++) {
          const listed = yield* storage.list()
          expect(listed, "the order of a listing during changes").toEqual(inOrder(listed))
          expect(
            listed.filter((key) =>
              key.includes("stays")
            ),
            "the unchanged objects"
          ).toEqual(staying)
          const { prefixes } = yield* storage.listDirectory()
          expect(prefixes.filter((prefix) => prefix.startsWith("folder-")).length, "the number of unchanged folders")
            .toBe(7)
          yield* Effect.yieldNow()
        }
        yield* Fiber.interrupt(writer)
      })
  }
])

export const directories = group("directory listing", [
  {
    name: "listDirectory returns the objects of a directory and each folder once",
    needs: ["write", "list"],
    check: (storage) =>
      Effect.gen(function*() {
        yield* saveAll(storage, [
          "model.json",
          "weights/0.bin",
          "weights/1.bin",
          "weights/deep/er/0.bin",
          "weights/deep/er/1.bin",
          "weights/deeper/0.bin",
          "weights-old/0.bin",
          "weights.txt"
        ])
        const directory = (prefix?: string) => keysAndPrefixes(storage, prefix)
        const root = { objects: ["model.json", "weights.txt"], prefixes: ["weights-old/", "weights/"] }
        expect(yield* directory(), "the root").toEqual(root)
        expect(yield* directory(""), "the empty prefix").toEqual(root)
        expect(yield* directory("weights/")).toEqual({
          objects: ["weights/0.bin", "weights/1.bin"],
          prefixes: ["weights/deep/", "weights/deeper/"]
        })
        expect(yield* directory("weights/deep/")).toEqual({ objects: [], prefixes: ["weights/deep/er/"] })
        expect(yield* directory("weights/deep/er/")).toEqual({
          objects: ["weights/deep/er/0.bin", "weights/deep/er/1.bin"],
          prefixes: []
        })
        expect(yield* directory("weights/0.bin/")).toEqual({ objects: [], prefixes: [] })
        expect(yield* directory("none/")).toEqual({ objects: [], prefixes: [] })
      })
  },
  {
    name: "listDirectory accepts a prefix that ends within a name",
    needs: ["write", "list"],
    check: (storage) =>
      Effect.gen(function*() {
        yield* saveAll(storage, ["fob/a", "foo/bar", "foo/bax", "foo/baz/a", "foo/baz/b", "foo.txt", "fongle/a", "g"])
        const directory = (prefix: string) => keysAndPrefixes(storage, prefix)
        expect(yield* directory("fo")).toEqual({ objects: ["foo.txt"], prefixes: ["fob/", "fongle/", "foo/"] })
        expect(yield* directory("foo")).toEqual({ objects: ["foo.txt"], prefixes: ["foo/"] })
        expect(yield* directory("foo/ba")).toEqual({ objects: ["foo/bar", "foo/bax"], prefixes: ["foo/baz/"] })
        expect(yield* directory("foo/bar")).toEqual({ objects: ["foo/bar"], prefixes: [] })
        expect(yield* directory("foo/baz")).toEqual({ objects: [], prefixes: ["foo/baz/"] })
        expect(yield* directory("foo/baz/a")).toEqual({ objects: ["foo/baz/a"], prefixes: [] })
        expect(yield* directory("fox")).toEqual({ objects: [], prefixes: [] })
      })
  },
  {
    name: "listDirectory returns keys in UTF-8 byte order",
    needs: ["write", "list"],
    check: (storage) =>
      Effect.gen(function*() {
        yield* saveAll(storage, ordered)
        const folders = ordered.filter((key) => key.includes("/")).map((key) => key.slice(0, key.indexOf("/") + 1))
        expect(yield* keysAndPrefixes(storage)).toEqual({
          objects: ordered.filter((key) => !key.includes("/")),
          prefixes: inOrder(folders)
        })
      })
  },
  {
    name: "listDirectory returns the metadata that head returns",
    needs: ["write", "list"],
    check: (storage) =>
      Effect.gen(function*() {
        yield* Effect.forEach([0, 1, 2, 3], (index) => storage.save(`folder/${index}`, pattern(index, 100 * index)))
        const { objects } = yield* storage.listDirectory("folder/")
        expect(objects.map((info) => info.size)).toEqual([0, 100, 200, 300])
        for (const info of objects) {
          expectSameInfo("listDirectory compared with head", info, yield* storage.head(info.key))
        }
      })
  },
  {
    name: "a folder disappears with its last object",
    needs: ["write", "list"],
    check: (storage) =>
      Effect.gen(function*() {
        yield* saveAll(storage, [
          "removed/deep/a",
          "swept/deep/a",
          "swept/b",
          "moved/deep/a",
          "kept/deep/a",
          "kept/deep/b"
        ])
        yield* storage.remove("removed/deep/a")
        yield* storage.removeAll(["swept/deep/a", "swept/b"])
        yield* storage.move("moved/deep/a", "a")
        yield* storage.remove("kept/deep/a")
        expect(yield* keysAndPrefixes(storage), "the root").toEqual({ objects: ["a"], prefixes: ["kept/"] })
        for (const folder of ["removed/", "swept/", "moved/", "moved/deep/"]) {
          expect(yield* keysAndPrefixes(storage, folder), folder).toEqual({ objects: [], prefixes: [] })
        }
        yield* expectKeys(storage, ["a", "kept/deep/b"])
      })
  }
])
