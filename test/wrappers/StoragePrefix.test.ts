/**
 * A folder as a storage: keys with the folder on the way in, without it on the way out, and nothing outside it in reach.
 */
import { describe, expect, it } from "@effect/vitest"
import {
  Chunk,
  Config,
  ConfigProvider,
  Data,
  Duration,
  Effect,
  Exit,
  FastCheck,
  Layer,
  Schedule,
  Schema,
  Stream
} from "effect"
import type { StorageBackend } from "surfing-weights"
import {
  ByteRange,
  MemoryStorage,
  ObjectKey,
  Storage,
  StorageChaos,
  StorageError,
  StoragePrefix,
  StorageRetry
} from "surfing-weights"
import * as StorageContract from "surfing-weights/StorageContract"
import { withPrefix } from "../support/contractSkips.js"
import { storageOnDirectory } from "../support/directory.js"
import { type Call, filled, noting, type Operation, operations, pattern } from "../support/intercepting.js"

const runCollect = <A, E, R>(stream: Stream.Stream<A, E, R>) =>
  Effect.map(Stream.runCollect(stream), Chunk.toReadonlyArray)

/** The folder `folder` of a storage that records its calls, over a memory storage with objects in the folder. */
const setup = Effect.gen(function*() {
  const calls: Array<Call> = []
  const memory = yield* filled("folder/")
  const storage = yield* StoragePrefix.make(noting(memory, calls), "folder")
  return { calls, memory, storage }
})

const name = "Prefix(folder, Memory)"

describe("StoragePrefix", () => {
  it.effect("names its folder and the inner storage, and has its capabilities", () =>
    Effect.gen(function*() {
      const memory = yield* MemoryStorage.make()
      const models = yield* StoragePrefix.make(memory, "models/tiny")
      expect(models.backend.name).toBe("Prefix(models/tiny, Memory)")
      expect(models.backend.capabilities).toEqual(memory.backend.capabilities)
      expect((yield* StoragePrefix.make(models, "bert")).backend.name).toBe("Prefix(bert, Prefix(models/tiny, Memory))")
    }))

  const inFull: Readonly<Record<Operation, ReadonlyArray<unknown>>> = {
    open: ["folder/k", { range: ByteRange.from(3) }],
    load: ["folder/k", { range: ByteRange.last(4), ifNoneMatch: "other" }],
    loadRanges: ["folder/k", [ByteRange.make(0, 2), ByteRange.last(1)], { ifNoneMatch: "other" }],
    head: ["folder/k"],
    save: ["folder/new", pattern(5), { ifNoneMatch: "*", size: 5, attributes: { contentType: "a/b" } }],
    entries: [{ prefix: "folder/k", startAfter: "folder/k/a" }],
    keys: [{ prefix: "folder/k/" }],
    listDirectory: ["folder/k"],
    remove: ["folder/k", { ifMatch: "1" }],
    removeAll: [["folder/k", "folder/k/a", "folder/missing"]],
    copy: ["folder/k", "folder/new", { ifNoneMatch: "*" }],
    move: ["folder/k", "folder/k/c", { ifNoneMatch: "*" }],
    presign: ["folder/k", { method: "GET", expiresIn: "1 hour" }]
  }

  it.effect("adds the folder to each key of every operation, and passes the rest unchanged", () =>
    Effect.forEach(operations, ([operation, run]) =>
      Effect.gen(function*() {
        const { calls, storage } = yield* setup
        yield* run(storage)
        expect(calls, operation).toEqual([{ operation, args: inFull[operation] }])
      })))

  it.effect("returns what a storage without the folder returns", () =>
    Effect.forEach(operations, ([operation, run]) =>
      Effect.gen(function*() {
        const plain = noting(yield* filled(), [])
        const { memory, storage } = yield* setup
        expect(yield* run(storage), operation).toEqual(yield* run(plain))
        expect(yield* storage.list(), operation).toEqual(yield* plain.list())
        expect(yield* memory.list()).toEqual((yield* plain.list()).map((key) => `folder/${key}`))
      })))

  it.effect("lists after any string, whether it is a key or not", () =>
    Effect.gen(function*() {
      const { memory, storage } = yield* setup
      yield* memory.save("folde", pattern(1))
      yield* memory.save("foldes/k", pattern(1))
      const after = (startAfter: string, prefix = "") =>
        Effect.map(runCollect(storage.entries({ prefix, startAfter })), (infos) => infos.map(({ key }) => key))
      expect(yield* after("")).toEqual(["k", "k/a", "k/b"])
      expect(yield* after("k")).toEqual(["k/a", "k/b"])
      expect(yield* after("k/a")).toEqual(["k/b"])
      expect(yield* after("k/aa")).toEqual(["k/b"])
      expect(yield* after("k/b")).toEqual([])
      expect(yield* after("folder/k/b")).toEqual(["k", "k/a", "k/b"])
      expect(yield* after("../foldes")).toEqual(["k", "k/a", "k/b"])
      expect(yield* after("/")).toEqual(["k", "k/a", "k/b"])
      expect(yield* after("k", "k/b")).toEqual(["k/b"])
      expect(yield* after("z", "k")).toEqual([])
    }))

  const segment = FastCheck.constantFrom("a", "b", "folder", "folder2", "f", "\u{1f600}", "\uffff", "a.b", " ")
  const anyKey = FastCheck.array(segment, { minLength: 1, maxLength: 4 }).map((segments) => segments.join("/"))

  it.effect.prop(
    "lists what a storage of these keys alone would list, whatever lies beside the folder",
    [
      FastCheck.array(anyKey, { maxLength: 12 }),
      FastCheck.array(anyKey, { maxLength: 6 }),
      FastCheck.oneof(anyKey, anyKey.map((key) => key.slice(0, 2)), FastCheck.constant("")),
      FastCheck.oneof(anyKey, FastCheck.constant(""))
    ],
    ([inside, outside, prefix, startAfter]) =>
      Effect.gen(function*() {
        const memory = yield* MemoryStorage.make()
        const plain = yield* MemoryStorage.make()
        const storage = yield* StoragePrefix.make(memory, "a/folder")
        for (const key of inside) {
          yield* storage.save(key, pattern(1))
          yield* plain.save(key, pattern(1))
        }
        for (const key of outside.filter((key) => !key.startsWith("a/folder/"))) yield* memory.save(key, pattern(1))
        const keysOf = (listed: Storage.Service) =>
          Effect.all([
            listed.list(prefix),
            Effect.map(runCollect(listed.entries({ prefix, startAfter })), (infos) => infos.map(({ key }) => key)),
            Effect.map(
              listed.listDirectory(prefix),
              ({ objects, prefixes }) => ({ objects: objects.map(({ key }) => key), prefixes })
            )
          ])
        expect(yield* keysOf(storage)).toEqual(yield* keysOf(plain))
      })
  )

  it.effect("neither lists, reads nor changes what lies outside the folder", () =>
    Effect.gen(function*() {
      const memory = yield* MemoryStorage.make()
      const outside = [
        "a/folder/k",
        "folde",
        "folde/k",
        "folder",
        "folder.txt",
        "folder2",
        "folder2/k",
        "folders/k",
        "k"
      ]
      for (const key of outside) yield* memory.save(key, pattern(3))
      const storage = yield* StoragePrefix.make(memory, "folder")

      for (const prefix of ["", "2", "2/", "s", "k", "folder", "folder/", "..", "../", "../folder2", "/", "./"]) {
        expect(yield* storage.list(prefix), prefix).toEqual([])
        expect(yield* runCollect(storage.entries({ prefix })), prefix).toEqual([])
        expect(yield* storage.listDirectory(prefix), prefix).toEqual({ objects: [], prefixes: [] })
      }
      for (const key of ["k", "2", "2/k", "s/k", "folder", "folder/k", "folder2/k", "a/folder/k"]) {
        expect(yield* storage.exists(key), key).toBe(false)
        expect(yield* Effect.flip(storage.load(key))).toMatchObject({ _tag: "ObjectNotFound", key })
        yield* storage.remove(key)
      }
      const ways = ["../k", "..", "../folder2/k", "/k", "a/../../k", "./k", ".", "", "../folder/k"]
      for (const key of ways) {
        const attempts: ReadonlyArray<Effect.Effect<unknown, StorageError.StorageError>> = [
          storage.load(key),
          storage.head(key),
          Stream.runDrain(storage.stream(key)),
          storage.save(key, pattern(1)),
          storage.remove(key),
          storage.copy(key, "new"),
          storage.move(key, "new")
        ]
        for (const attempt of attempts) {
          expect(yield* Effect.flip(attempt)).toMatchObject({ _tag: "InvalidKey", backend: name, key })
        }
      }
      expect((yield* storage.removeAll([...ways, "2/k", "k"])).failed.map(({ key }) => key)).toEqual(ways)
      expect(yield* memory.list()).toEqual(outside)
    }))

  it.effect("lists by a prefix that ends within a segment", () =>
    Effect.gen(function*() {
      const { storage } = yield* setup
      for (const key of ["layer_0", "layer_1", "layers/0", "lay"]) yield* storage.save(key, pattern(1))
      expect(yield* storage.list("layer_")).toEqual(["layer_0", "layer_1"])
      expect(yield* storage.list("layers/0")).toEqual(["layers/0"])
      const { objects, prefixes } = yield* storage.listDirectory("layer")
      expect(objects.map(({ key }) => key)).toEqual(["layer_0", "layer_1"])
      expect(prefixes).toEqual(["layers/"])
    }))

  it.effect("removes only the folder where a key repeats its name", () =>
    Effect.gen(function*() {
      const { memory, storage } = yield* setup
      yield* storage.removeAll(yield* storage.list())
      const keys = ["folder/folder/k", "folder/k", "folder2"]
      for (const key of keys) expect((yield* storage.save(key, pattern(3))).key).toBe(key)
      expect(yield* memory.list()).toEqual(keys.map((key) => `folder/${key}`))
      expect(yield* storage.list()).toEqual(keys)
      expect((yield* runCollect(storage.entries({ prefix: "folder/" }))).map(({ key }) => key)).toEqual(
        keys.slice(0, 2)
      )
      expect((yield* storage.listDirectory("folder/")).prefixes).toEqual(["folder/folder/"])
      expect((yield* storage.head("folder/k")).key).toBe("folder/k")
      expect((yield* storage.copy("folder/k", "folder/folder/l")).key).toBe("folder/folder/l")
      expect(yield* Effect.flip(storage.load("folder/missing"))).toMatchObject({ key: "folder/missing" })
    }))

  it.effect("can be a folder in a folder", () =>
    Effect.gen(function*() {
      const memory = yield* MemoryStorage.make()
      const outer = yield* StoragePrefix.make(memory, "a")
      const storage = yield* StoragePrefix.make(outer, "a/b")
      expect((yield* storage.save("k", pattern(3))).key).toBe("k")
      expect(yield* outer.list()).toEqual(["a/b/k"])
      expect(yield* memory.list()).toEqual(["a/a/b/k"])
      expect(yield* storage.list()).toEqual(["k"])
      expect(yield* Effect.flip(storage.load("a/b/k"))).toMatchObject({
        _tag: "ObjectNotFound",
        backend: "Prefix(a/b, Prefix(a, Memory))",
        key: "a/b/k"
      })
    }))

  it.live("keeps keys of all kinds", () =>
    Effect.gen(function*() {
      const keys = ["%2F/%2F", " / / ", "con/aux", "é/e\u0301", "\u{1f600}", `${"d/".repeat(490)}e`, "a#?&+"]
      const directory = yield* Storage.Storage
      const storage = yield* StoragePrefix.make(directory, "odd %2F folder")
      for (const [index, key] of keys.entries()) yield* storage.save(key, pattern(index + 1))
      for (const [index, key] of keys.entries()) expect(yield* storage.load(key)).toEqual(pattern(index + 1))
      const sorted = [...keys].sort(ObjectKey.compare)
      expect(yield* storage.list()).toEqual(sorted)
      expect(yield* directory.list()).toEqual(sorted.map((key) => `odd %2F folder/${key}`))
    }).pipe(Effect.provide(storageOnDirectory({ durability: "relaxed" }))))

  it.effect("is provided by its layers", () =>
    Effect.gen(function*() {
      for (const layer of [StoragePrefix.layer("folder"), StoragePrefix.layerConfig(Config.string("FOLDER"))]) {
        const { backend } = yield* Effect.provide(Storage.Storage, Layer.provide(layer, MemoryStorage.layer()))
        expect(backend.name).toBe(name)
      }
      const memory = yield* MemoryStorage.make()
      expect((yield* memory.pipe(StoragePrefix.make("folder"))).backend.name).toBe(name)
    }).pipe(Effect.withConfigProvider(ConfigProvider.fromMap(new Map([["FOLDER", "folder"]])))))
})

describe("StoragePrefix, the key of the folder", () => {
  it.effect("may end in a slash, which makes no difference", () =>
    Effect.gen(function*() {
      const memory = yield* filled("models/bert/")
      for (const folder of ["models/bert", "models/bert/"]) {
        const storage = yield* StoragePrefix.make(memory, folder)
        expect(storage.backend.name).toBe("Prefix(models/bert, Memory)")
        expect(yield* storage.list()).toEqual(["k", "k/a", "k/b"])
      }
    }))

  it.effect("must be valid, and anything else fails with InvalidOptions", () =>
    Effect.gen(function*() {
      const memory = yield* MemoryStorage.make()
      const bad = [
        "",
        "/",
        "//",
        "/models",
        "models//",
        "models//bert",
        ".",
        "./",
        "..",
        "../models",
        "models/..",
        "models/../",
        "a\0b",
        "a\nb/",
        "\ud800",
        "a".repeat(1025)
      ]
      for (const folder of bad) {
        const error = yield* Effect.flip(StoragePrefix.make(memory, folder))
        expect(error, JSON.stringify(folder)).toMatchObject({ _tag: "InvalidOptions", option: "folder" })
        const layer = Effect.provide(
          Effect.void,
          StoragePrefix.layer(folder).pipe(Layer.provide(MemoryStorage.layer()))
        )
        expect(yield* Effect.flip(layer)).toEqual(error)
      }
      expect((yield* Effect.flip(StoragePrefix.make(memory, "/"))).message).toBe(
        "StoragePrefix: folder must be a key, such as \"models/bert\" (got \"/\": it must not be empty)"
      )
    }))
})

describe("StoragePrefix, failures", () => {
  it.effect("name the caller's key and the whole stack, whichever operation failed", () =>
    Effect.forEach(operations, ([operation, run]) =>
      Effect.gen(function*() {
        const memory = yield* filled("folder/")
        const cause = new Error("below")
        const failing = yield* StorageChaos.make(noting(memory, []), [{
          operation,
          error: (struck) => new StorageError.AccessDenied({ ...struck, reason: "no", cause })
        }])
        const error = yield* Effect.flip(run(yield* StoragePrefix.make(failing, "folder")))
        // The rules pass the prefix of a listing as its key, and no key of a batch.
        const key = operation === "keys" ? "k/" : operation === "removeAll" ? "" : "k"
        const called: Partial<Record<Operation, string>> = { open: "stream", keys: "list" }
        expect(error).toMatchObject({
          _tag: "AccessDenied",
          backend: "Prefix(folder, Chaos(Memory))",
          operation: called[operation] ?? operation,
          key: operation === "save" ? "new" : key,
          reason: "no"
        })
        expect(error).toBeInstanceOf(StorageError.AccessDenied)
        expect(error.cause).toBe(cause)
      })))

  const context = { key: "folder/k", cause: new Error("below") }

  const ofLoads: ReadonlyArray<StorageError.LoadError> = [
    new StorageError.ObjectNotFound(context),
    new StorageError.PreconditionFailed(context),
    new StorageError.ObjectNotModified(context),
    new StorageError.InvalidKey({ ...context, reason: "bad" }),
    new StorageError.InvalidRange({ ...context, reason: "bad" }),
    new StorageError.AccessDenied({ ...context, reason: "bad" }),
    new StorageError.StorageNotFound({ ...context, reason: "bad" }),
    new StorageError.StorageUnavailable({ ...context, reason: "bad", retryAfter: Duration.seconds(7) }),
    new StorageError.StorageUnavailable({ ...context, reason: "bad", attempts: 3 }),
    new StorageError.StorageTimeout({ ...context, limit: Duration.seconds(7) }),
    new StorageError.StorageTimeout({ ...context, limit: Duration.seconds(7), attempts: 3 }),
    new StorageError.CorruptObject({ ...context, problem: "truncated", reason: "bad" }),
    new StorageError.CorruptObject({ ...context, problem: "checksum", reason: "bad", attempts: 3 }),
    new StorageError.UnsupportedOperation({ ...context, reason: "bad" }),
    new StorageError.UnexpectedStorageError({ ...context, reason: "bad" })
  ]

  const ofCopies: ReadonlyArray<StorageError.CopyError> = [
    new StorageError.ObjectAlreadyExists(context),
    new StorageError.StorageFull({ ...context, reason: "bad" })
  ]

  it.effect("keep their class, fields and cause, and whether they are retryable", () =>
    Effect.gen(function*() {
      const { backend } = yield* MemoryStorage.make()
      const folderOf = (inner: StorageBackend.StorageBackend) => StoragePrefix.make(Storage.make(inner), "folder")
      const failures = [
        ...ofLoads.map((error) => ({
          error,
          failing: Effect.flatMap(
            folderOf({ ...backend, load: () => Effect.fail(error) }),
            (folder) => folder.load("k")
          )
        })),
        ...ofCopies.map((error) => ({
          error,
          failing: Effect.flatMap(
            folderOf({ ...backend, copy: () => Effect.fail(error) }),
            (folder) => folder.copy("k", "l")
          )
        }))
      ]
      expect(new Set(failures.map(({ error }) => error._tag)).size).toBe(
        // No operation fails with InvalidOptions.
        StorageError.StorageError.members.length - 1
      )
      for (const { error, failing } of failures) {
        const actual = yield* Effect.flip<unknown, StorageError.StorageError, never>(failing)
        expect(actual.constructor, error._tag).toBe(error.constructor)
        const { backend: _, key: __, operation: ___, ...fields } = error
        expect(actual, error._tag).toMatchObject({ ...fields, backend: name, key: "k" })
        expect(actual.cause).toBe(error.cause)
        expect(StorageError.isRetryable(actual), error._tag).toBe(StorageError.isRetryable(error))
        expect(Schema.is(StorageError.StorageError)(actual)).toBe(true)
      }
    }))

  it.effect("read as if there were no folder", () =>
    Effect.gen(function*() {
      const { storage } = yield* setup
      expect((yield* Effect.flip(storage.load("missing"))).message).toBe(
        `load "missing" on ${name}: there is no such object`
      )
      expect(yield* Effect.flip(storage.copy("missing", "new"))).toMatchObject({ key: "missing", backend: name })
      expect(yield* Effect.flip(storage.copy("k", "k/a", { ifNoneMatch: "*" }))).toMatchObject({ key: "k/a" })
      expect(yield* Effect.flip(storage.save("k", pattern(1), { ifNoneMatch: "*" }))).toMatchObject({ key: "k" })
    }))

  it.effect("do so where a stream or a listing breaks after its first items", () =>
    Effect.gen(function*() {
      const memory = yield* filled("folder/")
      const chaos = yield* StorageChaos.make(memory, [
        {
          operation: "open",
          afterBytes: 4,
          error: (struck) => new StorageError.AccessDenied({ ...struck, reason: "no" })
        },
        { operation: ["entries", "keys"], when: "after", times: 2 }
      ])
      const storage = yield* StoragePrefix.make(chaos, "folder")
      const seen: Array<unknown> = []
      const until = <A, E>(stream: Stream.Stream<A, E>) =>
        Effect.flip(Stream.runForEach(stream, (item) => Effect.sync(() => void seen.push(item))))
      expect(yield* until(storage.stream("k"))).toMatchObject({
        _tag: "AccessDenied",
        backend: "Prefix(folder, Chaos(Memory))",
        key: "k"
      })
      expect(seen).toEqual([pattern(10).slice(0, 4)])
      seen.length = 0
      expect(yield* until(storage.entries({ prefix: "k/" }))).toMatchObject({ _tag: "StorageUnavailable", key: "k/" })
      expect(seen).toMatchObject([{ key: "k/a" }, { key: "k/b" }])
      expect(yield* Effect.flip(storage.list("k/"))).toMatchObject({
        backend: "Prefix(folder, Chaos(Memory))",
        key: "k/"
      })
    }))

  it.effect("name the keys of a batch that remain", () =>
    Effect.gen(function*() {
      const memory = yield* filled("folder/")
      const chaos = yield* StorageChaos.make(memory, [{
        operation: "removeAll",
        key: (key) => key !== "folder/k/a",
        times: Infinity
      }])
      const storage = yield* StoragePrefix.make(chaos, "folder")
      const { failed, removed } = yield* storage.removeAll(["k", "k/a", "k/b"])
      expect(removed).toBe(1)
      expect(failed).toMatchObject(
        ["k", "k/b"].map((key) => ({ _tag: "StorageUnavailable", backend: "Prefix(folder, Chaos(Memory))", key }))
      )
      expect(yield* storage.list()).toEqual(["k", "k/b"])
    }))

  it.effect("are retried by a storage around it, unless one inside has done so already", () =>
    Effect.gen(function*() {
      const rules: ReadonlyArray<StorageChaos.Rule> = [{ operation: "load", times: 3 }]
      const inner = yield* StorageChaos.make(yield* filled("folder/"), rules)
      const around = yield* StorageRetry.make(yield* StoragePrefix.make(inner, "folder"), Schedule.recurs(3))
      expect(yield* around.load("k")).toEqual(pattern(10))

      const calls: Array<Call> = []
      const failing = noting(yield* StorageChaos.make(yield* filled("folder/"), rules), calls)
      const inside = yield* StoragePrefix.make(yield* StorageRetry.make(failing, Schedule.recurs(1)), "folder")
      const outside = yield* StorageRetry.make(inside, Schedule.recurs(9))
      const error = yield* Effect.flip(outside.load("k"))
      expect(error).toMatchObject({ _tag: "StorageUnavailable", key: "k", attempts: 2 })
      expect(calls.length).toBe(2)
    }))
})

describe("StoragePrefix, keys that are too long with the folder", () => {
  // The folder and its slash have seven bytes.
  const longest = "é".repeat(508) + "x"
  const long = "é".repeat(509)

  it.effect("allows keys up to the limit less the folder, in bytes", () =>
    Effect.gen(function*() {
      expect([longest, long].map(ObjectKey.byteLength)).toEqual([1017, 1018])
      const { memory, storage } = yield* setup
      expect((yield* storage.save(longest, pattern(3))).key).toBe(longest)
      expect(yield* storage.load(longest)).toEqual(pattern(3))
      expect(yield* storage.list("é")).toEqual([longest])
      expect(yield* storage.list(longest)).toEqual([longest])
      expect(ObjectKey.byteLength((yield* memory.list("folder/é"))[0] ?? "")).toBe(1024)
    }))

  it.effect("fails with InvalidKey on longer ones, before it calls the storage", () =>
    Effect.gen(function*() {
      const { calls, storage } = yield* setup
      const attempts: ReadonlyArray<readonly [string, Effect.Effect<unknown, StorageError.StorageError>]> = [
        ["load", storage.load(long)],
        ["loadRanges", storage.loadRanges(long, [ByteRange.last(1)])],
        ["stream", Stream.runDrain(storage.stream(long))],
        ["open", Effect.scoped(storage.open(long))],
        ["head", storage.head(long)],
        ["exists", storage.exists(long)],
        ["save", storage.save(long, pattern(3))],
        ["save", storage.save(long, Stream.dieMessage("the source was read"))],
        ["remove", storage.remove(long)],
        ["copy", storage.copy(long, "new")],
        ["copy", storage.copy("k", long)],
        ["move", storage.move(long, "new")],
        ["move", storage.move("k", long)],
        ["presign", storage.presign(long, { method: "GET", expiresIn: "1 hour" })]
      ]
      for (const [operation, attempt] of attempts) {
        const error = yield* Effect.flip(attempt)
        expect(error, operation).toMatchObject({ _tag: "InvalidKey", backend: name, operation, key: long })
        expect(error.message).toContain("must not exceed 1017 bytes (got 1018)")
      }
      expect(calls).toEqual([])
    }))

  it.effect("lists nothing under a prefix that no key in the folder can have, without a call", () =>
    Effect.gen(function*() {
      const { calls, storage } = yield* setup
      expect(yield* storage.list(long)).toEqual([])
      expect(yield* runCollect(storage.entries({ prefix: long }))).toEqual([])
      expect(yield* storage.listDirectory(long)).toEqual({ objects: [], prefixes: [] })
      expect(calls).toEqual([])
    }))

  it.effect("removes the others of a batch, and returns a failure for each of them", () =>
    Effect.gen(function*() {
      const { calls, storage } = yield* setup
      const { failed, removed } = yield* storage.removeAll(["k", long, "", "k/b", long, `${long}x`, "missing"])
      expect(removed).toBe(3)
      expect(failed.map(({ _tag, backend, key, operation }) => [_tag, backend, operation, key])).toEqual(
        ["", long, long, `${long}x`].map((key) => ["InvalidKey", name, "removeAll", key])
      )
      expect(calls).toEqual([{ operation: "removeAll", args: [["folder/k", "folder/k/b", "folder/missing"]] }])
      expect(yield* storage.list()).toEqual(["k/a"])
    }))

  it.effect("returns them beside the failures of the storage", () =>
    Effect.gen(function*() {
      const chaos = yield* StorageChaos.make(yield* filled("folder/"), [{ operation: "removeAll", key: "folder/k" }])
      const storage = yield* StoragePrefix.make(chaos, "folder")
      const { failed, removed } = yield* storage.removeAll([long, "k", "k/a"])
      expect(removed).toBe(1)
      expect(failed.map(({ _tag, key }) => [_tag, key])).toEqual([["InvalidKey", long], ["StorageUnavailable", "k"]])
    }))

  it.effect("counts all nested folders", () =>
    Effect.gen(function*() {
      const { calls, storage } = yield* setup
      const inner = yield* StoragePrefix.make(storage, "deep")
      const key = "a".repeat(1012)
      yield* inner.save(key, pattern(3))
      expect(yield* inner.list("a")).toEqual([key])
      calls.length = 0
      expect(yield* Effect.flip(inner.load(`${key}a`))).toMatchObject({
        _tag: "InvalidKey",
        backend: `Prefix(deep, ${name})`,
        key: `${key}a`
      })
      expect(calls).toEqual([])
    }))

  it.effect("allows no key where the folder itself is as long as a key", () =>
    Effect.gen(function*() {
      const memory = yield* MemoryStorage.make()
      const storage = yield* StoragePrefix.make(memory, "f".repeat(1022))
      yield* storage.save("k", pattern(3))
      expect(yield* storage.list()).toEqual(["k"])
      for (const length of [1023, 1024]) {
        const full = yield* StoragePrefix.make(memory, "f".repeat(length))
        expect(yield* Effect.flip(full.save("k", pattern(3)))).toMatchObject({ _tag: "InvalidKey", key: "k" })
        expect(yield* full.list()).toEqual([])
        expect(yield* full.listDirectory()).toEqual({ objects: [], prefixes: [] })
      }
    }))
})

describe("StoragePrefix, failures of the source of a save", () => {
  class Mine extends Data.TaggedError("Mine") {}

  const elsewhere = new StorageError.StorageUnavailable({
    backend: "Elsewhere",
    operation: "load",
    key: "folder/k",
    reason: "down"
  })

  it.effect("come through unchanged, also those of another storage whose key starts with the same folder", () =>
    Effect.gen(function*() {
      const { memory, storage } = yield* setup
      const nested = yield* StoragePrefix.make(yield* StoragePrefix.make(memory, "a"), "b")
      const folder = yield* StoragePrefix.make(storage, "folder")
      for (const failure of [new Mine(), elsewhere, "a string", undefined]) {
        const source = Stream.concat(Stream.make(pattern(3)), Stream.fail(failure))
        for (const target of [storage, nested, folder]) {
          expect(yield* Effect.flip(target.save("new", source))).toBe(failure)
          expect(yield* target.exists("new")).toBe(false)
        }
      }
    }))

  it.effect("come through unchanged where the source is a folder, too", () =>
    Effect.gen(function*() {
      const { storage } = yield* setup
      const other = yield* StoragePrefix.make(
        yield* StorageChaos.make(yield* filled("folder/folder/"), [{ operation: "open", afterBytes: 4 }]),
        "folder"
      )
      const error = yield* Effect.flip(storage.save("new", other.stream("folder/k")))
      expect(error).toMatchObject({ backend: "Prefix(folder, Chaos(Memory))", key: "folder/k" })
    }))

  it.effect("are told apart from a source of another size than announced", () =>
    Effect.gen(function*() {
      const { storage } = yield* setup
      expect(yield* Effect.flip(storage.save("new", Stream.make(pattern(3)), { size: 4 }))).toMatchObject({
        _tag: "CorruptObject",
        backend: name,
        key: "new"
      })
    }))

  it.effect("are told apart from failures of the storage", () =>
    Effect.gen(function*() {
      const chaos = yield* StorageChaos.make(yield* filled("folder/"), [{ operation: "save", afterBytes: 2 }])
      const storage = yield* StoragePrefix.make(chaos, "folder")
      expect(yield* Effect.flip(storage.save("new", Stream.make(pattern(3))))).toMatchObject({
        _tag: "StorageUnavailable",
        backend: "Prefix(folder, Chaos(Memory))",
        key: "new"
      })
    }))

  it.effect("include its defects, and it keeps its context", () =>
    Effect.gen(function*() {
      const { storage } = yield* setup
      const source = Stream.fromEffect(Effect.map(Storage.Storage, ({ backend }) => Buffer.from(backend.name)))
      yield* Effect.provideService(storage.save("new", source), Storage.Storage, storage)
      expect(Buffer.from(yield* storage.load("new")).toString()).toBe(name)
      const defect = new Error("defect")
      expect(yield* Effect.exit(storage.save("new", Stream.die(defect)))).toEqual(Exit.die(defect))
    }))
})

StorageContract.suite("StoragePrefix(Memory)", {
  layer: StoragePrefix.layer("f").pipe(Layer.provide(MemoryStorage.layer())),
  skip: withPrefix
})
