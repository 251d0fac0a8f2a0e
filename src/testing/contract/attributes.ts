/**
 * Attributes: kept with the version of an object that they were saved with, carried by copies and moves, and gone with it.
 */
import { expect } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Stream from "effect/Stream"
import * as Struct from "effect/Struct"
import type * as Storage from "../../Storage.js"
import type { Attributes } from "../../StorageBackend.js"
import { chunksThen, gather, inChunks, MiB, pattern, sameBytes, show } from "./bytes.js"
import { type Check, group, saves } from "./cases.js"
import {
  entriesOf,
  expectAbsent,
  expectAttributes,
  expectFailure,
  expectKeys,
  expectNoChange,
  expectObject
} from "./expect.js"
import { SourceFailure } from "./sources.js"

const all: Attributes = {
  contentType: "application/vnd.safetensors; charset=utf-8",
  cacheControl: "public, max-age=31536000, immutable",
  contentDisposition: "attachment; filename=\"layer 0.safetensors\"",
  contentEncoding: "gzip",
  contentLanguage: "en, mi",
  metadata: { model: "bert-tiny", quantization: "int8" }
}

const one: Attributes = { contentType: "application/x-one", metadata: { version: "one" } }
const two: Attributes = { cacheControl: "no-store", metadata: { version: "two", author: "somebody else" } }

/** Metadata that a store may alter on the way through HTTP headers, file names or JSON. */
const values: Readonly<Record<string, string>> = {
  empty: "",
  blank: " ",
  spaces: " two  spaces inside, and one at each end ",
  quotes: "\"double\" 'single' `back`",
  punctuation: "a=b; c, d: e/f\\g?h#i&j%20k+l",
  latin: "Noé Über naïve",
  greek: "βάρη",
  han: "權重",
  emoji: "🏄‍♀️",
  decomposed: "e\u0301",
  "encoded-word": "=?UTF-8?B?eA==?=",
  "two-words": "=?UTF-8?Q?a?= =?UTF-8?Q?b?=",
  "nearly-words": "x?= =?y",
  json: "{\"layers\": [1, 2]}",
  number: "007"
}

const names: Attributes["metadata"] = {
  a: "1",
  "with-dash": "2",
  with_underscore: "3",
  "with.dot": "4",
  "0": "5",
  ["__proto__"]: "6",
  constructor: "7",
  "content-type": "8",
  etag: "9",
  x: "10"
}

/** Metadata of `size` bytes. */
const metadataOf = (size: number): Record<string, string> => ({ name: "v".repeat(size - 4) })

const invalid: ReadonlyArray<readonly [string, Attributes]> = [
  ["an empty content type", { contentType: "" }],
  ["a line break in a field", { contentType: "text/plain\r\nx-evil: 1" }],
  ["a control character in a field", { cacheControl: "no\0store" }],
  ["a space before a field", { contentLanguage: " en" }],
  ["a space after a field", { contentEncoding: "gzip " }],
  ["a field that is not ASCII", { contentDisposition: "attachment; filename=\"é\"" }],
  ["fields of more than 2 KiB", { contentDisposition: "a".repeat(1024), cacheControl: "b".repeat(1025) }],
  ["an empty name", { metadata: { "": "value" } }],
  ["a space in a name", { metadata: { "a b": "value" } }],
  ["a colon in a name", { metadata: { "a:b": "value" } }],
  ["a name that is not ASCII", { metadata: { é: "value" } }],
  ["two names that differ in case", { metadata: { Model: "a", model: "b" } }],
  ["a line break in a value", { metadata: { model: "a\r\nx-evil: 1" } }],
  ["NUL in a value", { metadata: { model: "a\0b" } }],
  ["a lone surrogate in a value", { metadata: { model: "\ud83d" } }],
  ["metadata of more than 2 KiB", { metadata: metadataOf(2049) }],
  ["metadata of more than 2 KiB once encoded", { metadata: { name: "é".repeat(900) } }]
]

/** Expects these attributes of an object, from head and from open. */
const expectStored = (storage: Storage.Service, what: string, key: string, set: Attributes) =>
  Effect.gen(function*() {
    expectAttributes(`head after ${what}`, yield* storage.head(key), set)
    const { info } = yield* Effect.scoped(storage.open(key))
    expectAttributes(`open after ${what}`, info, set)
  })

const expectGone = (storage: Storage.Service, what: string, key: string) =>
  Effect.gen(function*() {
    yield* expectStored(storage, what, key, {})
    const { attributes } = yield* storage.head(key)
    expect(attributes?.contentType, `the content type after ${what}`).not.toBe(one.contentType)
  })

const eachForm: Check = (storage) =>
  Effect.gen(function*() {
    const forms = [
      ["bytes", pattern(1, 100)],
      ["no bytes", pattern(1, 0)],
      ["a stream", inChunks(pattern(1, 3000), [1000])],
      ["a large stream", inChunks(pattern(1, 9 * MiB), [MiB])]
    ] as const
    for (const [what, data] of forms) {
      const saved = yield* storage.save("folder/formed", data, { attributes: all })
      expectAttributes(`save of ${what}`, saved, all)
      yield* expectStored(storage, `a save of ${what}`, "folder/formed", all)
    }
    const saved = yield* Stream.run(inChunks(pattern(2, 3000)), storage.sink("folder/sink", { attributes: all }))
    expectAttributes("sink", saved, all)
    yield* expectStored(storage, "a sink", "folder/sink", all)
    // A content encoding is kept, and not applied: the bytes are those that were saved.
    yield* expectObject(storage, "folder/sink", pattern(2, 3000))
  })

const eachField: Check = (storage) =>
  Effect.forEach(Struct.keys(all), (name) =>
    Effect.gen(function*() {
      const attributes = { [name]: all[name] }
      const saved = yield* storage.save("field", pattern(3, 10), { attributes })
      expectAttributes(`save with ${name}`, saved, attributes)
      yield* expectStored(storage, `a save with ${name}`, "field", attributes)
    }), { discard: true })

const eachValue: Check = (storage) =>
  Effect.gen(function*() {
    for (const [what, metadata] of [["odd values", values], ["odd names", names]] as const) {
      const saved = yield* storage.save("metadata", pattern(4, 10), { attributes: { metadata } })
      expectAttributes(`save of ${what}`, saved, { metadata })
      yield* expectStored(storage, `a save of ${what}`, "metadata", { metadata })
      yield* storage.copy("metadata", "copy")
      yield* expectStored(storage, `a copy of ${what}`, "copy", { metadata })
    }
    const largest = { metadata: metadataOf(2048) }
    yield* storage.save("metadata", pattern(4, 10), { attributes: largest })
    yield* expectStored(storage, "a save of 2 KiB of metadata", "metadata", largest)
    yield* storage.save("metadata", pattern(4, 10), { attributes: { metadata: { ModelName: "Bert" } } })
    yield* expectStored(storage, "a save under an upper-case name", "metadata", { metadata: { modelname: "Bert" } })
  })

const invalidAreRefused: Check = (storage) =>
  expectNoChange(storage, (key) =>
    Effect.gen(function*() {
      for (const [what, attributes] of invalid) {
        let pulled = 0
        const source = Stream.sync(() => {
          pulled++
          return pattern(5, 10)
        })
        const attempts = [
          ["save of bytes", storage.save(key, pattern(5, 10), { attributes })],
          ["save of a stream", storage.save(key, source, { attributes })],
          ["copy", storage.copy("folder/old", "new", { attributes })],
          ["move", storage.move("folder/old", "new", { attributes })]
        ] as const
        for (const [operation, attempt] of attempts) {
          const { message } = yield* expectFailure(`${operation} with ${what}`, "UnsupportedOperation", attempt)
          expect(message, `the message of a ${operation} with ${what}`).toContain("attributes")
        }
        expect(pulled, `how often a source was pulled for a save with ${what}`).toBe(0)
      }
      yield* expectAbsent(storage, "new")
    }))

const copiesAndMoves: Check = (storage) =>
  Effect.gen(function*() {
    yield* storage.save("from", pattern(6, 100), { attributes: all })
    expectAttributes("copy", yield* storage.copy("from", "folder/copy"), all)
    yield* expectStored(storage, "a copy", "folder/copy", all)
    yield* expectStored(storage, "a copy, of its source", "from", all)
    expectAttributes("copy with attributes", yield* storage.copy("from", "folder/copy", { attributes: two }), two)
    yield* expectStored(storage, "a copy that replaces attributes", "folder/copy", two)
    yield* expectStored(storage, "a copy that replaces attributes, of its source", "from", all)
    expectAttributes("move", yield* storage.move("from", "folder/moved"), all)
    yield* expectStored(storage, "a move", "folder/moved", all)
    const moved = yield* storage.move("folder/moved", "folder/copy", { attributes: one })
    expectAttributes("move with attributes", moved, one)
    yield* expectStored(storage, "a move that replaces attributes", "folder/copy", one)
    yield* expectObject(storage, "folder/copy", pattern(6, 100))
    yield* expectKeys(storage, ["folder/copy"])
  })

const goneWithTheirVersion: Check = (storage) =>
  Effect.gen(function*() {
    const set = (key: string) => storage.save(key, pattern(7, 100), { attributes: one })
    yield* set("folder/object")
    yield* storage.save("folder/object", pattern(8, 100))
    yield* expectGone(storage, "an overwriting save", "folder/object")
    yield* set("folder/object")
    yield* storage.save("folder/object", inChunks(pattern(7, 100)), { attributes: two })
    yield* expectStored(storage, "an overwriting save with attributes", "folder/object", two)
    yield* set("folder/object")
    // The same bytes as before.
    yield* storage.save("folder/object", pattern(7, 100))
    yield* expectGone(storage, "an overwriting save of the same bytes", "folder/object")
    yield* set("folder/object")
    yield* storage.remove("folder/object")
    yield* storage.save("folder/object", pattern(7, 100))
    yield* expectGone(storage, "a removal and a save", "folder/object")
    yield* set("folder/object")
    yield* storage.removeAll(["folder/object"])
    yield* storage.save("folder/object", pattern(7, 100))
    yield* expectGone(storage, "removeAll and a save", "folder/object")
    for (const operation of ["copy", "move"] as const) {
      yield* set("folder/object")
      yield* storage.save("plain", pattern(9, 100))
      yield* storage[operation]("plain", "folder/object")
      yield* expectGone(storage, `a ${operation} of an object without attributes`, "folder/object")
    }
    yield* set("moved")
    yield* storage.move("moved", "elsewhere")
    yield* storage.save("moved", pattern(7, 100))
    yield* expectGone(storage, "a save where an object was moved away", "moved")
  })

const failedSaves: Check = (storage) =>
  Effect.gen(function*() {
    yield* storage.save("kept", pattern(10, 100), { attributes: one })
    yield* Effect.exit(
      storage.save("kept", chunksThen(3, 1000, Effect.fail(new SourceFailure())), { attributes: two })
    )
    yield* Effect.exit(storage.save("kept", chunksThen(3, 1000, Effect.interrupt), { attributes: two }))
    for (const [, attempt] of saves(storage, "kept", pattern(11, 100), { attributes: two, size: 99 })) {
      yield* Effect.exit(attempt)
    }
    if (storage.backend.capabilities.createOnly) {
      yield* Effect.exit(storage.save("kept", pattern(11, 100), { attributes: two, ifNoneMatch: "*" }))
    }
    if (storage.backend.capabilities.compareAndSwap) {
      yield* Effect.exit(storage.save("kept", pattern(11, 100), { attributes: two, ifMatch: "another etag" }))
    }
    yield* expectObject(storage, "kept", pattern(10, 100))
    yield* expectStored(storage, "saves that failed", "kept", one)
  })

const concurrentSaves: Check = (storage) =>
  Effect.gen(function*() {
    const versions = [one, two].map((attributes, index) => ({ attributes, bytes: pattern(index, 5000) }))
    const save = ({ attributes, bytes }: (typeof versions)[number]) => storage.save("flipping", bytes, { attributes })
    yield* Effect.forEach(versions, save)
    const writer = yield* Effect.fork(
      Effect.forever(Effect.forEach(versions, (version) => Effect.zipLeft(save(version), Effect.yieldNow())))
    )
    for (let round = 0; round < 30; round++) {
      const opened = yield* Effect.scoped(Effect.gen(function*() {
        const { info, stream } = yield* storage.open("flipping")
        return { bytes: yield* gather(stream), info }
      })).pipe(Effect.catchTag("PreconditionFailed", () => Effect.succeed(undefined)))
      const version = versions.find(({ bytes }) => opened !== undefined && sameBytes(bytes, opened.bytes))
      if (opened !== undefined) expectAttributes("open during saves", opened.info, version?.attributes ?? {})
      // So that no round meets the writer at the same step as the one before.
      yield* Effect.repeatN(Effect.yieldNow(), round % 5)
    }
    yield* Fiber.interrupt(writer)
  })

export const attributes = group("attributes", [
  {
    name: "attributes are returned by save, head and open, however the object was saved",
    needs: ["write", "attributes"],
    check: eachForm
  },
  { name: "each attribute can be set alone", needs: ["write", "attributes"], check: eachField },
  { name: "metadata has any characters, up to 2 KiB", needs: ["write", "attributes"], check: eachValue },
  {
    name: "invalid attributes fail with UnsupportedOperation before any I/O",
    needs: ["write", "attributes"],
    check: invalidAreRefused
  },
  { name: "copies and moves keep or replace attributes", needs: ["write", "attributes"], check: copiesAndMoves },
  {
    name: "a copy or move to its own key refuses attributes",
    needs: ["write", "attributes"],
    check: (storage) =>
      Effect.gen(function*() {
        yield* storage.save("self", pattern(12, 100), { attributes: one })
        for (const operation of ["copy", "move"] as const) {
          const attempt = storage[operation]("self", "self", { attributes: two })
          yield* expectFailure(`${operation} to its own key with attributes`, "UnsupportedOperation", attempt, "self")
          yield* storage[operation]("self", "self")
        }
        yield* expectStored(storage, "copies and moves to its own key", "self", one)
      })
  },
  {
    name: "attributes are gone with the version that they were saved with",
    needs: ["write", "attributes"],
    check: goneWithTheirVersion
  },
  { name: "a failed save leaves the old attributes", needs: ["write", "attributes"], check: failedSaves },
  {
    name: "objects and attributes of concurrent saves are never mixed",
    needs: ["write", "attributes"],
    check: concurrentSaves
  },
  {
    name: "attributes are kept under every kind of key",
    needs: ["write", "attributes"],
    check: (storage) =>
      Effect.gen(function*() {
        const keys = ["a b+c", "100%/%2F", "é/e\u0301", ".hidden/.tmp", "con", "trailing dot.", "l".repeat(300)]
        for (const [index, key] of keys.entries()) {
          yield* storage.save(key, pattern(index, 10), { attributes: { metadata: { index: String(index) } } })
        }
        for (const [index, key] of keys.entries()) {
          yield* expectStored(storage, `saves of odd keys, of ${show(key)}`, key, {
            metadata: { index: String(index) }
          })
        }
        yield* expectKeys(storage, keys)
        if (!storage.backend.capabilities.list) return
        // A listing may leave attributes out, but not invent any.
        for (const info of yield* entriesOf(storage)) {
          const { metadata } = info.attributes ?? {}
          if (metadata === undefined) continue
          expect(metadata, `metadata in entries of ${show(info.key)}`).toEqual({
            index: String(keys.indexOf(info.key))
          })
        }
      })
  }
])
