/**
 * Failures are complete: `operation` is the one that the caller called, `backend` the whole stack of wrappers, and `key`
 * the caller's key; of a copy or move, the one of its two keys that the failure is about.
 */
import { expect } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Stream from "effect/Stream"
import * as ByteRange from "../../ByteRange.js"
import type * as Storage from "../../Storage.js"
import type { Attributes, LoadOptions, SaveOptions, StreamOptions } from "../../StorageBackend.js"
import type { StorageError } from "../../StorageError.js"
import { pattern, show } from "./bytes.js"
import { type Check, group, saves } from "./cases.js"
import { entriesOf, expectComplete, expectFailure } from "./expect.js"

/** A call that fails, by the name of the operation, and the key of its failure. */
interface Attempt {
  readonly operation: string
  readonly key?: string
  readonly effect: Effect.Effect<unknown, StorageError>
}

type Reads = (storage: Storage.Service, key: string, options?: LoadOptions & StreamOptions) => ReadonlyArray<Attempt>

const streamed: Reads = (storage, key, options) => [
  { operation: "stream", key, effect: Stream.runDrain(storage.stream(key, options)) },
  {
    operation: "open",
    key,
    effect: Effect.scoped(Effect.flatMap(storage.open(key, options), ({ stream }) => Stream.runDrain(stream)))
  }
]

const loaded: Reads = (storage, key, options) => [
  { operation: "load", key, effect: storage.load(key, options) },
  {
    operation: "loadRanges",
    key,
    effect: storage.loadRanges(key, [options?.range ?? ByteRange.last(1)], {
      ifMatch: options?.ifMatch,
      ifNoneMatch: options?.ifNoneMatch
    })
  },
  ...streamed(storage, key, options)
]

/** Every way to save. A sink saves, so its failures are those of `save`. */
const saved = (storage: Storage.Service, key: string, options?: SaveOptions): ReadonlyArray<Attempt> =>
  saves(storage, key, pattern(1, 10), options).map(([, effect]) => ({ operation: "save", key, effect }))

/** A copy and a move; `key` is that of the failure. */
const relocated = (
  storage: Storage.Service,
  from: string,
  to: string,
  key: string,
  options?: Storage.CopyOptions
): ReadonlyArray<Attempt> => [
  { operation: "copy", key, effect: storage.copy(from, to, options) },
  { operation: "move", key, effect: storage.move(from, to, options) }
]

const listed = (storage: Storage.Service, prefix: string): ReadonlyArray<Attempt> => [
  { operation: "list", effect: storage.list(prefix) },
  { operation: "entries", effect: entriesOf(storage, { prefix }) },
  { operation: "listDirectory", effect: storage.listDirectory(prefix) }
]

const presigned = (storage: Storage.Service, key: string): ReadonlyArray<Attempt> =>
  (["GET", "PUT"] as const).map((method) => ({
    operation: "presign",
    key,
    effect: storage.presign(key, { method, expiresIn: "1 minute" })
  }))

/** Expects each attempt to fail with this tag, completely. */
const expectAll = (
  storage: Storage.Service,
  tag: StorageError["_tag"],
  attempts: ReadonlyArray<Attempt>
): Effect.Effect<void> =>
  Effect.forEach(
    attempts,
    ({ effect, key, operation }) =>
      Effect.map(expectFailure(`${operation} of ${show(key ?? "")}`, tag, effect), (failure) => {
        expectComplete(storage, `${tag} of ${operation}`, failure, operation, key)
        expect(failure.message, `the message of ${tag}`).toContain(operation)
        expect(failure.message, `the message of ${tag}`).toContain(storage.backend.name)
      }),
    { discard: true }
  )

const missingObjects: Check = (storage) =>
  expectAll(storage, "ObjectNotFound", [
    ...loaded(storage, "folder/missing"),
    ...loaded(storage, "folder/missing", { ifMatch: "an etag" }),
    ...loaded(storage, "folder/missing", { range: ByteRange.make(3, 5) }),
    { operation: "head", key: "folder/missing", effect: storage.head("folder/missing") }
  ])

const missingSources: Check = (storage) =>
  Effect.gen(function*() {
    yield* storage.save("there", pattern(2, 10))
    yield* expectAll(storage, "ObjectNotFound", [
      ...relocated(storage, "missing", "there", "missing"),
      ...relocated(storage, "missing", "folder/new", "missing"),
      ...relocated(storage, "missing", "missing", "missing")
    ])
  })

const invalidKeys: Check = (storage) =>
  Effect.gen(function*() {
    for (const key of ["", "a//b", "../up", "a\nb"]) {
      yield* expectAll(storage, "InvalidKey", [
        ...loaded(storage, key),
        { operation: "head", key, effect: storage.head(key) },
        { operation: "exists", key, effect: storage.exists(key) },
        ...saved(storage, key),
        { operation: "remove", key, effect: storage.remove(key) },
        ...relocated(storage, key, "valid", key),
        ...relocated(storage, "valid", key, key),
        ...presigned(storage, key)
      ])
      if (!storage.backend.capabilities.write) continue
      const { failed } = yield* storage.removeAll(["missing", key])
      expect(failed.length, "the number of keys that removeAll did not remove").toBe(1)
      for (const failure of failed) {
        expectComplete(storage, `a failure in the summary of removeAll`, failure, "removeAll", key)
      }
    }
  })

const invalidRanges: Check = (storage) =>
  Effect.gen(function*() {
    yield* storage.save("ten bytes", pattern(3, 10))
    const ranges = [ByteRange.make(10, 20), ByteRange.from(11), ByteRange.make(4, 4), ByteRange.last(0)]
    yield* expectAll(storage, "InvalidRange", ranges.flatMap((range) => loaded(storage, "ten bytes", { range })))
    yield* expectAll(storage, "UnsupportedOperation", streamed(storage, "ten bytes", { chunkSize: 0 }))
  })

const preconditionsOfReads: Check = (storage) =>
  Effect.gen(function*() {
    const { etag } = yield* storage.save("conditional", pattern(4, 10))
    yield* expectAll(storage, "PreconditionFailed", loaded(storage, "conditional", { ifMatch: `${etag}x` }))
    yield* expectAll(storage, "ObjectNotModified", loaded(storage, "conditional", { ifNoneMatch: etag }))
  })

const preconditionsOfWrites: Check = (storage) =>
  Effect.gen(function*() {
    const { compareAndSwap, conditionalRemove, createOnly } = storage.backend.capabilities
    const { etag } = yield* storage.save("conditional", pattern(5, 10))
    yield* storage.save("from", pattern(6, 10))
    // Where a precondition is not supported, that is the failure.
    yield* expectAll(storage, createOnly ? "ObjectAlreadyExists" : "UnsupportedOperation", [
      ...saved(storage, "conditional", { ifNoneMatch: "*" }),
      ...relocated(storage, "from", "conditional", "conditional", { ifNoneMatch: "*" }),
      ...relocated(storage, "from", "from", "from", { ifNoneMatch: "*" })
    ])
    yield* expectAll(storage, compareAndSwap ? "PreconditionFailed" : "UnsupportedOperation", [
      ...saved(storage, "conditional", { ifMatch: `${etag}x` }),
      ...saved(storage, "missing", { ifMatch: etag })
    ])
    const ifMatch = `${etag}x`
    yield* expectAll(storage, conditionalRemove ? "PreconditionFailed" : "UnsupportedOperation", [
      { operation: "remove", key: "conditional", effect: storage.remove("conditional", { ifMatch }) },
      { operation: "remove", key: "missing", effect: storage.remove("missing", { ifMatch }) }
    ])
    yield* expectAll(storage, "CorruptObject", saved(storage, "conditional", { size: 9 }))
  })

const unsupported: Check = (storage) =>
  Effect.gen(function*() {
    const { attributes, list, presign, write } = storage.backend.capabilities
    const refuse = (attempts: ReadonlyArray<Attempt>) => expectAll(storage, "UnsupportedOperation", attempts)
    if (!list) yield* refuse([...listed(storage, ""), ...listed(storage, "folder/")])
    if (!presign) yield* refuse(presigned(storage, "key"))
    if (!write) {
      yield* refuse([
        ...saved(storage, "key"),
        { operation: "remove", key: "key", effect: storage.remove("key") },
        { operation: "removeAll", effect: storage.removeAll(["key"]) },
        ...relocated(storage, "from", "to", "from")
      ])
      return
    }
    yield* storage.save("from", pattern(7, 10))
    const set: Attributes = attributes ? { contentType: "not\nvalid" } : { contentType: "text/plain" }
    yield* refuse([
      ...saved(storage, "key", { attributes: set }),
      ...relocated(storage, "from", "key", "key", { attributes: set })
    ])
  })

const underAnObject: Check = (storage) =>
  Effect.gen(function*() {
    if (storage.backend.capabilities.objectsWithinObjects) return
    yield* storage.save("object", pattern(8, 10))
    yield* storage.save("other", pattern(9, 10))
    yield* expectAll(storage, "UnsupportedOperation", [
      ...saved(storage, "object/below"),
      ...relocated(storage, "other", "object/below", "object/below")
    ])
  })

const about = (what: string) => `failures name the operation, the stack of wrappers and the key: ${what}`

export const failures = group("failures", [
  { name: about("missing objects"), check: missingObjects },
  { name: about("missing sources of copies and moves"), needs: ["write"], check: missingSources },
  { name: about("invalid keys"), check: invalidKeys },
  { name: about("ranges and chunk sizes"), needs: ["write"], check: invalidRanges },
  { name: about("preconditions of reads"), needs: ["write"], check: preconditionsOfReads },
  { name: about("preconditions and sizes of writes"), needs: ["write"], check: preconditionsOfWrites },
  { name: about("what is not supported"), check: unsupported },
  { name: about("objects under objects"), needs: ["write"], check: underAnObject }
])
