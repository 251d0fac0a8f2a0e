/**
 * What an object may be called: every key that is valid goes there and back byte for byte, none is reached by another
 * spelling of it, and what is not valid is refused before anything happens.
 */
import { expect } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Stream from "effect/Stream"
import * as ObjectKey from "../../ObjectKey.js"
import type * as Storage from "../../Storage.js"
import type { StorageError } from "../../StorageError.js"
import {
  entriesOf,
  expectAbsent,
  expectBytes,
  expectFailure,
  expectKeys,
  expectObject,
  expectSameInfo,
  group,
  inOrder,
  inPieces,
  pattern,
  reads,
  saveAll,
  show
} from "./kit.js"

const invalidKeys: ReadonlyArray<readonly [string, string]> = [
  ["empty", ""],
  ["a slash alone", "/"],
  ["a slash at the start", "/a"],
  ["a slash at the end", "a/"],
  ["two slashes together", "a//b"],
  ["a dot", "."],
  ["two dots", ".."],
  ["a dot at the start", "./a"],
  ["a dot within", "a/./b"],
  ["a dot at the end", "a/."],
  ["two dots at the start", "../a"],
  ["two dots within", "a/../b"],
  ["two dots at the end", "a/.."],
  ["NUL alone", "\0"],
  ["NUL within", "a\0b"],
  ["a line feed", "a\nb"],
  ["a tab", "a\tb"],
  ["DEL", "a\x7f"],
  ["a control character beyond ASCII", "a\u0085b"],
  ["the first half of a surrogate pair", "a\ud83d"],
  ["the second half of a surrogate pair", "\ude00a"],
  ["surrogates in the wrong order", "\ude00\ud83d"],
  ["1,025 bytes", "a".repeat(1025)],
  ["1,025 bytes in 513 characters", `${"é".repeat(512)}a`],
  ["1,026 bytes in 342 characters", "€".repeat(342)]
]

const names = {
  "spaces and punctuation": [
    " leading space",
    "trailing space ",
    "two  spaces",
    "a b+c",
    "a+b+c",
    "+",
    "#",
    "a#b",
    "?",
    "a?b=c&d=e",
    "&amp;",
    "=",
    ";",
    ",",
    "@",
    "!",
    "'quoted'",
    "\"quoted\"",
    "`quoted`",
    "back\\slash",
    "..\\up",
    ":",
    "C:",
    "C:\\weights",
    "s3:bucket",
    "*",
    "a*b",
    "<>|",
    "[0-9]",
    "{a,b}",
    "(x)",
    "^",
    "$HOME",
    "$(name)",
    "-",
    "--help",
    "all !@#$%^&()_+-=;',.txt",
    "_",
    "~"
  ],
  "percent signs": [
    "%",
    "%%",
    "%25",
    "%2525",
    "%2F",
    "%2f",
    "a%2Fb",
    "%2E%2E",
    "%00",
    "%0A",
    "%20",
    "a%20b",
    "a b",
    "%zz",
    "%E2%82",
    "%F0%9F%98%80",
    "😀",
    "100%",
    "%u0041",
    "%41",
    "A",
    "&#37;"
  ],
  "letters of all kinds": [
    "ASCII",
    "ascii",
    "Ascii",
    "é",
    "e\u0301",
    "\u00c5",
    "\u212b",
    "A\u030a",
    "ﬁ",
    "fi",
    "ß",
    "ss",
    "İ",
    "i",
    "ı",
    "日本語",
    "مرحبا",
    "한",
    "\u1112\u1161\u11ab",
    "👩‍👩‍👧",
    "🇦🇺",
    "\u00a0",
    "\u200b",
    "\u2028",
    "\ufeff",
    "\ufffd",
    "\ufffe",
    "\uffff",
    "\u{10000}",
    "\u{10ffff}"
  ],
  "names that a file system reserves": [
    "con",
    "CON",
    "con.txt",
    "aux.txt",
    "nul",
    "prn",
    "com1",
    "lpt9.bin",
    "trailing dot.",
    "trailing dots..",
    "trailing both. ",
    "...",
    "....",
    ".leading dot",
    "..leading dots",
    ".git",
    "lost+found",
    "Thumbs.db",
    ".DS_Store",
    "desktop.ini",
    "$RECYCLE.BIN"
  ],
  "names that a store may want for itself": [
    ".tmp",
    "tmp",
    "x.tmp",
    ".surfing-weights",
    ".surfing-weights-tmp",
    "surfing-weights",
    "_tmp",
    ".part",
    "x.part",
    ".lock",
    "x.lock",
    ".metadata.json",
    "x.metadata",
    ".etag",
    ".uploads",
    "__proto__",
    "constructor",
    "toString",
    "hasOwnProperty",
    "undefined",
    "null",
    "0",
    "-0",
    "00"
  ],
  "long segments": [
    "a".repeat(200),
    "a".repeat(254),
    "a".repeat(255),
    "a".repeat(256),
    "a".repeat(257),
    "a".repeat(1024),
    `${"a".repeat(1023)}b`,
    `${"a".repeat(1023)}c`,
    `${"a".repeat(254)}b`,
    "b".repeat(300),
    `${"b".repeat(255)}${"c".repeat(255)}`,
    "é".repeat(127),
    "é".repeat(128),
    "é".repeat(512),
    "€".repeat(341),
    "😀".repeat(256),
    "%".repeat(255),
    "%".repeat(1024),
    ":".repeat(200),
    `${"d".repeat(254)}.`,
    `${"d".repeat(255)}.`,
    `${"d".repeat(254)} `
  ]
}

const below: ReadonlyArray<string> = [
  ".surfing-weights/x",
  ".surfing-weights/.tmp/x",
  ".tmp/x",
  "lost+found/x",
  ".../x",
  "con/aux/nul",
  "trailing dot./x",
  "trailing space /x",
  " / / ",
  "%2F/%2F",
  "%48%45%4C%4C%4F/x",
  "a\\b/c\\d",
  `${"long".repeat(100)}/${"longer".repeat(100)}/x`,
  `${"long".repeat(100)}/${"longer".repeat(100)}/y`,
  `${"deep/".repeat(204)}end`,
  `${"d/".repeat(511)}e`
]

/** Other spellings of a key, such as a store that encodes, decodes, folds, trims or cuts keys would confuse with it. */
const twinsOf = (key: string): ReadonlyArray<string> => [
  encodeURIComponent(key),
  encodeURI(key),
  key.split("/").map(encodeURIComponent).join("/"),
  decoded(key),
  key.replaceAll("+", " "),
  key.replaceAll(" ", "+"),
  key.replaceAll("%2F", "/"),
  key.replaceAll("\\", "/"),
  key.replaceAll(":", "/"),
  key.replaceAll("&amp;", "&"),
  key.normalize("NFC"),
  key.normalize("NFD"),
  key.normalize("NFKC"),
  key.toLowerCase(),
  key.toUpperCase(),
  key.trim(),
  key.replace(/[. ]+$/, ""),
  key.replace(/^\.+/, ""),
  key.split("?")[0] ?? "",
  key.split("#")[0] ?? "",
  key.split("\\").at(-1) ?? "",
  key.slice(0, 100),
  key.slice(0, 253),
  `${key}.`,
  `${key} `,
  `${key}%00`,
  `./${key}`
]

const decoded = (key: string): string => {
  try {
    return decodeURIComponent(key)
  } catch {
    return key
  }
}

const thereAndBack = (keys: ReadonlyArray<string>) => (storage: Storage.Service): Effect.Effect<void, StorageError> =>
  Effect.gen(function*() {
    const canList = storage.backend.capabilities.list
    const numbered = keys.map((key, index) => ({ key, index, bytes: pattern(index, 20 + index) }))
    const each = <E>(run: (object: (typeof numbered)[number]) => Effect.Effect<void, E>) =>
      Effect.forEach(numbered, run, { concurrency: 8, discard: true })

    yield* each(({ bytes, index, key }) =>
      Effect.gen(function*() {
        const saved = yield* storage.save(key, index % 2 === 0 ? bytes : inPieces(bytes, [7]))
        expect(saved.key, "the key that save gives").toBe(key)
      })
    )
    yield* expectKeys(storage, keys)
    yield* each(({ bytes, key }) => Effect.asVoid(expectObject(storage, key, bytes)))
    if (canList) {
      const listed = new Map((yield* entriesOf(storage)).map((info) => [info.key, info]))
      yield* each(({ key }) =>
        Effect.gen(function*() {
          const info = listed.get(key)
          if (info === undefined) expect.fail(`entries does not show ${show(key)}`)
          else expectSameInfo(`entries against head of ${show(key)}`, info, yield* storage.head(key))
          for (const prefix of new Set([key, decoded(key)])) {
            expect(yield* storage.list(prefix), `list of the prefix ${show(prefix)}`)
              .toEqual(inOrder(keys.filter((other) => other.startsWith(prefix))))
          }
        })
      )
    }

    const valid = numbered.flatMap(({ key }) => twinsOf(key)).filter((twin) => ObjectKey.problem(twin) === undefined)
    const twins = [...new Set(valid)].filter((twin) => !keys.includes(twin))
    yield* Effect.forEach(
      twins,
      (twin) =>
        Effect.map(storage.exists(twin), (found) => expect(found, `exists of ${show(twin)}, never saved`).toBe(false)),
      { concurrency: 8 }
    )
    expect((yield* storage.removeAll(twins)).failed, "failures of removing keys that were never saved").toEqual([])
    yield* expectKeys(storage, keys, "the listing after removing other spellings of the keys")

    yield* each(({ bytes, index, key }) =>
      Effect.gen(function*() {
        const plain = `plain-${index}`
        yield* storage.copy(key, plain)
        yield* storage.remove(key)
        yield* expectAbsent(storage, key)
        const moved = yield* storage.move(plain, key)
        expect(moved.key, "the key that move gives").toBe(key)
        expectBytes(`load of ${show(key)} after it was moved there`, yield* storage.load(key), bytes)
      })
    )
    yield* expectKeys(storage, keys, "the listing after moving every object away and back")
    yield* Effect.forEach(keys, (key) => storage.remove(key), { concurrency: 8, discard: true })
    yield* expectKeys(storage, [], "the listing after removing every object")
  })

export const keys = group("keys", [
  {
    name: "an invalid key is refused by every operation, and nothing is read, written or removed",
    check: (storage) =>
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
            ["copy of it", storage.copy(key, "b")],
            ["copy onto it", storage.copy("a", key)],
            ["copy of it onto itself", storage.copy(key, key)],
            ["move of it", storage.move(key, "b")],
            ["move onto it", storage.move("a", key)],
            ["remove", storage.remove(key)]
          ] as const
          for (const [what, effect] of operations) {
            yield* expectFailure(`${what}, the key being ${why} (${show(key)})`, "InvalidKey", effect, key)
          }
          expect(pulled, `how often a source was asked for bytes to save under ${show(key)}`).toBe(0)
          if (write) {
            const { failed, removed } = yield* storage.removeAll([key])
            expect(removed, `how many keys removeAll removed, given ${show(key)}`).toBe(0)
            expect(failed.map((failure) => [failure._tag, failure.key])).toEqual([["InvalidKey", key]])
          }
        }
        if (write) {
          expectBytes("load of the only object", yield* storage.load("a"), pattern(1, 10))
          yield* expectKeys(storage, ["a"])
        } else if (list) yield* expectKeys(storage, [])
      })
  },
  ...Object.entries(names).map(([what, keys]) => ({
    name: `keys of ${what} are kept byte for byte, and no other spelling reaches them`,
    needs: ["write"] as const,
    slow: true,
    check: thereAndBack(keys)
  })),
  {
    name: "keys with folders of any name and depth are kept byte for byte",
    needs: ["write"],
    slow: true,
    check: thereAndBack(below)
  },
  {
    name: "whatever can be a key can be a folder",
    needs: ["write", "list"],
    slow: true,
    check: (storage) =>
      Effect.gen(function*() {
        const folders = Object.values(names).flat().filter((name) => ObjectKey.byteLength(name) <= 511)
        const keys = folders.map((name) => `${name}/${name}`)
        yield* saveAll(storage, keys)
        yield* expectKeys(storage, keys)
        const root = yield* storage.listDirectory()
        expect(root, "the root directory").toEqual({
          objects: [],
          prefixes: inOrder(folders.map((name) => `${name}/`))
        })
        yield* Effect.forEach(folders, (name) =>
          Effect.gen(function*() {
            const key = `${name}/${name}`
            const { objects, prefixes } = yield* storage.listDirectory(`${name}/`)
            expect({ keys: objects.map((object) => object.key), prefixes }, `the directory ${show(name)}`)
              .toEqual({ keys: [key], prefixes: [] })
            expect(yield* storage.list(`${name}/`), `list of the folder ${show(name)}`).toEqual([key])
            expect(yield* storage.exists(key), `exists of ${show(key)}`).toBe(true)
          }), { concurrency: 8, discard: true })
      })
  },
  {
    name: "a folder is not an object",
    needs: ["write"],
    check: (storage) =>
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
  },
  {
    name: "nothing stands under an object that has nothing under it",
    needs: ["write"],
    check: (storage) =>
      Effect.gen(function*() {
        const bytes = pattern(4, 10)
        yield* storage.save("object", bytes)
        for (const key of ["object/below", "object/far/below", "objec", "objects"]) {
          yield* expectAbsent(storage, key)
          yield* expectFailure("copy of what is not there", "ObjectNotFound", storage.copy(key, "copy"), key)
          yield* expectFailure("move of what is not there", "ObjectNotFound", storage.move(key, "moved"), key)
          yield* storage.remove(key)
          expect((yield* storage.removeAll([key])).failed, `failures of removing ${key}`).toEqual([])
        }
        if (storage.backend.capabilities.list) {
          expect(yield* storage.list("object/")).toEqual([])
          expect(yield* storage.listDirectory("object/")).toEqual({ objects: [], prefixes: [] })
        }
        yield* expectObject(storage, "object", bytes)
        yield* expectKeys(storage, ["object"])
      })
  },
  {
    name: "an object can stand under another object, or is refused with both their names and nothing is lost",
    needs: ["write"],
    check: (storage) => {
      const { createOnly, list, objectsWithinObjects } = storage.backend.capabilities
      const upper = pattern(5, 20)
      const lower = pattern(6, 30)
      return Effect.gen(function*() {
        yield* storage.save("other", lower)
        for (
          const [first, second] of [
            ["upper_one", "upper_one/lower_one"],
            ["upper_one/lower_one", "upper_one"],
            ["upper_one", "upper_one/between/lower_one"],
            ["upper_one/between/lower_one", "upper_one"],
            ["folder/upper_one", "folder/upper_one/lower_one"]
          ] as const
        ) {
          yield* storage.save(first, upper)
          if (objectsWithinObjects) {
            yield* storage.save(second, lower)
            yield* expectObject(storage, first, upper)
            yield* expectObject(storage, second, lower)
            yield* expectKeys(storage, ["other", first, second])
            const [above, under] = [first, second].sort((a, b) => a.length - b.length)
            if (list && above !== undefined && under !== undefined && !above.includes("/")) {
              const { objects, prefixes } = yield* storage.listDirectory("upper")
              expect({ keys: objects.map((object) => object.key), prefixes }, "the directory of an object and a folder")
                .toEqual({ keys: [above], prefixes: [`${above}/`] })
            }
            yield* storage.remove(first)
            yield* expectAbsent(storage, first)
          } else {
            const attempts = [
              ["save of bytes", storage.save(second, lower)],
              ["save of a stream", storage.save(second, inPieces(lower))],
              ["copy", storage.copy("other", second)],
              ["move", storage.move("other", second)],
              ["move of the one onto the other", storage.move(first, second)],
              ...(createOnly ? [["create", storage.save(second, lower, { ifNoneMatch: "*" })] as const] : [])
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
          }
          yield* expectObject(storage, second, lower)
          yield* expectKeys(storage, ["other", second])
          yield* storage.remove(second)
        }
        yield* expectObject(storage, "other", lower)
      })
    }
  }
])
