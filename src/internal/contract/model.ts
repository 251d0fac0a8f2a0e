/**
 * Random sequences of operations, each held against what a plain map would have given. A sequence that fails is cut
 * down to the shortest that still does, and shown with the seed that brings it back.
 */
import { expect } from "@effect/vitest"
import * as Cause from "effect/Cause"
import * as Data from "effect/Data"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as FastCheck from "effect/FastCheck"
import * as Stream from "effect/Stream"
import * as ByteRange from "../../ByteRange.js"
import type * as Storage from "../../Storage.js"
import type { ObjectInfo } from "../../StorageBackend.js"
import type { StorageError } from "../../StorageError.js"
import {
  entriesOf,
  expectAbsent,
  expectBytes,
  expectFailure,
  expectKeys,
  expectObject,
  gather,
  group,
  inOrder,
  inPieces,
  isAfter,
  pattern,
  sameBytes
} from "./kit.js"

interface Content {
  readonly seed: number
  readonly size: number
}

/** Which etag a condition names: the one the object has, the one it had before, or none that ever was. */
type Etag = "current" | "earlier" | "none" | undefined

type Operation = Data.TaggedEnum<{
  Save: {
    readonly key: string
    readonly content: Content
    readonly streamed: boolean
    readonly create: boolean
    readonly ifMatch: Etag
  }
  SaveOfFailingSource: { readonly key: string; readonly content: Content }
  Load: {
    readonly key: string
    readonly by: "load" | "stream" | "loadRanges"
    readonly range: ByteRange.ByteRange | undefined
    readonly ifMatch: Etag
    readonly ifNoneMatch: Etag
  }
  Head: { readonly key: string }
  List: { readonly prefix: string; readonly startAfter: string }
  ListDirectory: { readonly prefix: string }
  Remove: { readonly key: string }
  RemoveAll: { readonly keys: ReadonlyArray<string> }
  Relocate: { readonly by: "copy" | "move"; readonly from: string; readonly to: string; readonly create: boolean }
}>

const Operation = Data.taggedEnum<Operation>()

// Few, so that operations meet; some stand under others, some are other spellings of others.
const keys = [
  "a",
  "a/b",
  "a/b/c",
  "a-b",
  "a.b",
  "a0",
  "A",
  "b/c",
  "%41",
  "a%2Fb",
  " ",
  "é",
  "e\u0301",
  "\ufffd",
  "\u{1f600}",
  "..."
]
const prefixes = ["", "a", "a/", "a/b", "a/b/", "a-", "b/", "e", "%", "\ufffd", "zz", "../"]

const key = FastCheck.constantFrom(...keys)
const prefix = FastCheck.constantFrom(...prefixes)
const content = FastCheck.record({ seed: FastCheck.nat(5), size: FastCheck.constantFrom(0, 1, 2, 100, 5000) })
const create = FastCheck.constantFrom(false, false, false, true)
const etag = FastCheck.constantFrom<Array<Etag>>(undefined, undefined, undefined, "current", "earlier", "none")
const range = FastCheck.oneof(
  FastCheck.constant(undefined),
  FastCheck.tuple(FastCheck.nat(5100), FastCheck.integer({ min: 1, max: 5000 }))
    .map(([start, length]) => ByteRange.make(start, start + length)),
  FastCheck.constantFrom(0, 1, 99, 100, 5000).map(ByteRange.from),
  FastCheck.constantFrom(1, 2, 100, 6000).map(ByteRange.last)
)

const operation: FastCheck.Arbitrary<Operation> = FastCheck.oneof(
  {
    weight: 6,
    arbitrary: FastCheck.record({ key, content, streamed: FastCheck.boolean(), create, ifMatch: etag })
      .map(Operation.Save)
  },
  { weight: 1, arbitrary: FastCheck.record({ key, content }).map(Operation.SaveOfFailingSource) },
  {
    weight: 4,
    arbitrary: FastCheck.record({
      key,
      by: FastCheck.constantFrom<Array<"load" | "stream" | "loadRanges">>("load", "stream", "loadRanges"),
      range,
      ifMatch: etag,
      ifNoneMatch: etag
    }).map(Operation.Load)
  },
  { weight: 1, arbitrary: FastCheck.record({ key }).map(Operation.Head) },
  {
    weight: 2,
    arbitrary: FastCheck.record({ prefix, startAfter: FastCheck.constantFrom(...keys, ...prefixes) })
      .map(Operation.List)
  },
  { weight: 1, arbitrary: FastCheck.record({ prefix }).map(Operation.ListDirectory) },
  { weight: 2, arbitrary: FastCheck.record({ key }).map(Operation.Remove) },
  { weight: 1, arbitrary: FastCheck.record({ keys: FastCheck.array(key, { maxLength: 4 }) }).map(Operation.RemoveAll) },
  {
    weight: 4,
    arbitrary: FastCheck.record({
      by: FastCheck.constantFrom<Array<"copy" | "move">>("copy", "move"),
      from: key,
      to: key,
      create
    }).map(Operation.Relocate)
  }
)

interface StoredObject {
  readonly bytes: Uint8Array
  readonly info: ObjectInfo
}

/** Runs the operations on an empty storage and on a map beside it, and expects the same of both. */
const expectSameAsMap = (
  storage: Storage.Service,
  operations: ReadonlyArray<Operation>
): Effect.Effect<void, StorageError> =>
  Effect.gen(function*() {
    const { compareAndSwap, createOnly, list, objectsWithinObjects } = storage.backend.capabilities
    const objects = new Map<string, StoredObject>()
    const earlier = new Map<string, string>()

    const etagOf = (key: string, etag: Exclude<Etag, undefined>): string => {
      const known = etag === "current" ? objects.get(key)?.info.etag : etag === "earlier" ? earlier.get(key) : undefined
      return known ?? "no object's etag"
    }

    /** The ways in which a save under this key has to fail; any of them will do, none means that it succeeds. */
    const refusals = (
      key: string,
      { create, ifMatch }: { readonly create: boolean; readonly ifMatch?: string }
    ): ReadonlyArray<StorageError["_tag"]> => {
      const existing = objects.get(key)
      const entangled = [...objects.keys()].some((other) => other.startsWith(`${key}/`) || key.startsWith(`${other}/`))
      if (create && !createOnly || ifMatch !== undefined && !compareAndSwap) return ["UnsupportedOperation"]
      return [
        ...(create && existing !== undefined ? ["ObjectAlreadyExists" as const] : []),
        ...(ifMatch !== undefined && ifMatch !== existing?.info.etag ? ["PreconditionFailed" as const] : []),
        ...(entangled && !objectsWithinObjects ? ["UnsupportedOperation" as const] : [])
      ]
    }

    const put = (what: string, key: string, bytes: Uint8Array, info: ObjectInfo) => {
      const before = objects.get(key)
      expect({ key: info.key, size: info.size }, `what ${what} gives`).toEqual({ key, size: bytes.byteLength })
      if (before !== undefined) {
        if (!sameBytes(before.bytes, bytes)) expect(info.etag, `the new etag of ${what}`).not.toBe(before.info.etag)
        earlier.set(key, before.info.etag)
      }
      objects.set(key, { bytes, info })
    }

    const drop = (key: string) => {
      const before = objects.get(key)
      if (before !== undefined) earlier.set(key, before.info.etag)
      objects.delete(key)
    }

    const run = Operation.$match({
      Save: ({ content, create, ifMatch, key, streamed }) =>
        Effect.gen(function*() {
          const bytes = pattern(content.seed, content.size)
          const options = {
            ...(create && { ifNoneMatch: "*" as const }),
            ...(ifMatch !== undefined && { ifMatch: etagOf(key, ifMatch) })
          }
          const save = storage.save(key, streamed ? inPieces(bytes, [70, 0, 1000]) : bytes, options)
          const refused = refusals(key, { create, ...options })
          if (refused.length > 0) yield* expectFailure("save", refused, save, key)
          else put("save", key, bytes, yield* save)
        }),

      SaveOfFailingSource: ({ content, key }) =>
        Effect.gen(function*() {
          const pieces = inPieces(pattern(content.seed, content.size), [70])
          const error = yield* Effect.flip(storage.save(key, Stream.concat(pieces, Stream.fail("the source failed"))))
          if (typeof error === "string") expect(error).toBe("the source failed")
          else expect(refusals(key, { create: false }), error.message).toContain(error._tag)
        }),

      Load: ({ by, ifMatch, ifNoneMatch, key, range }) =>
        Effect.gen(function*() {
          const conditions = {
            ...(ifMatch !== undefined && { ifMatch: etagOf(key, ifMatch) }),
            ...(ifNoneMatch !== undefined && { ifNoneMatch: etagOf(key, ifNoneMatch) })
          }
          const options = { ...conditions, ...(range !== undefined && { range }) }
          const read = by === "load"
            ? storage.load(key, options)
            : by === "stream"
            ? gather(storage.stream(key, options))
            : range === undefined
            ? storage.load(key, conditions)
            : Effect.map(storage.loadRanges(key, [range], conditions), ([first]) => first ?? new Uint8Array(0))
          const object = objects.get(key)
          const expected = object && bytesIn(object.bytes, range)
          if (object === undefined) yield* expectFailure(by, "ObjectNotFound", read, key)
          else if (conditions.ifMatch !== undefined && conditions.ifMatch !== object.info.etag) {
            yield* expectFailure(by, "PreconditionFailed", read, key)
          } else if (conditions.ifNoneMatch === object.info.etag) {
            yield* expectFailure(by, "ObjectNotModified", read, key)
          } else if (expected === undefined) yield* expectFailure(by, "InvalidRange", read, key)
          else expectBytes(by, yield* read, expected)
        }),

      Head: ({ key }) =>
        Effect.gen(function*() {
          const object = objects.get(key)
          expect(yield* storage.exists(key), "exists").toBe(object !== undefined)
          if (object === undefined) yield* expectAbsent(storage, key)
          else expect(yield* storage.head(key), "head").toMatchObject(known(object.info))
        }),

      List: ({ prefix, startAfter }) =>
        Effect.gen(function*() {
          if (!list) return
          const wanted = inOrder(objects.keys()).filter((key) => key.startsWith(prefix))
          expect(yield* storage.list(prefix), "list").toEqual(wanted)
          expect((yield* entriesOf(storage, { prefix, startAfter })).map((info) => info.key), "entries")
            .toEqual(wanted.filter((key) => isAfter(key, startAfter)))
        }),

      ListDirectory: ({ prefix }) =>
        Effect.gen(function*() {
          if (!list) return
          const under = inOrder(objects.keys()).filter((key) => key.startsWith(prefix))
          const slash = (key: string) => key.indexOf("/", prefix.length)
          const directory = yield* storage.listDirectory(prefix)
          expect({ objects: directory.objects.map((info) => info.key), prefixes: directory.prefixes }, "listDirectory")
            .toEqual({
              objects: under.filter((key) => slash(key) === -1),
              prefixes: inOrder(under.filter((key) => slash(key) !== -1).map((key) => key.slice(0, slash(key) + 1)))
            })
        }),

      Remove: ({ key }) => Effect.map(storage.remove(key), () => drop(key)),

      RemoveAll: ({ keys }) =>
        Effect.map(storage.removeAll(keys), ({ failed }) => {
          expect(failed, "the failures of removeAll").toEqual([])
          keys.forEach(drop)
        }),

      Relocate: ({ by, create, from, to }) =>
        Effect.gen(function*() {
          const relocate = storage[by](from, to, create ? { ifNoneMatch: "*" } : {})
          const source = objects.get(from)
          const refused = [
            ...(source === undefined ? ["ObjectNotFound" as const] : []),
            ...refusals(to, { create })
          ]
          if (create && !createOnly) yield* expectFailure(by, "UnsupportedOperation", relocate)
          else if (source === undefined || refused.length > 0) yield* expectFailure(by, refused, relocate)
          else if (from === to) expect(yield* relocate, `what ${by} gives`).toMatchObject(known(source.info))
          else {
            put(by, to, source.bytes, yield* relocate)
            if (by === "move") drop(from)
          }
        })
    })

    yield* storage.removeAll(keys)
    for (const [index, operation] of operations.entries()) {
      yield* run(operation).pipe(Effect.catchAllCause((cause) =>
        Effect.die(
          new Error(`operation ${index + 1}, ${JSON.stringify(operation)}: ${String(Cause.squash(cause))}`, {
            cause: Cause.squash(cause)
          })
        )
      ))
      if (list) {
        const wanted = inOrder(objects.keys()).map((key) => objects.get(key)).filter((object) => object !== undefined)
        expect(
          (yield* entriesOf(storage)).map(known),
          `everything after operation ${index + 1}, ${JSON.stringify(operation)}`
        )
          .toEqual(wanted.map(({ info }) => known(info)))
      }
    }
    for (const [key, { bytes }] of objects) yield* expectObject(storage, key, bytes)
    yield* expectKeys(storage, objects.keys())
  })

const known = ({ etag, key, size }: ObjectInfo) => ({ key, size, etag })

const bytesIn = (bytes: Uint8Array, range: ByteRange.ByteRange | undefined): Uint8Array | undefined => {
  if (range === undefined) return bytes
  if (range._tag === "Last") return bytes.slice(Math.max(0, bytes.byteLength - range.length))
  if (range.start >= bytes.byteLength) return undefined
  return range._tag === "From" ? bytes.slice(range.start) : bytes.slice(range.start, range.endExclusive)
}

export const model = group("random operations", [
  {
    name: "any sequence of operations gives what a map would give",
    needs: ["write"],
    slow: true,
    check: (storage) =>
      Effect.tryPromise({
        try: (signal) =>
          FastCheck.assert(
            FastCheck.asyncProperty(FastCheck.array(operation, { maxLength: 60, size: "max" }), (operations) =>
              Effect.runPromiseExit(expectSameAsMap(storage, operations), { signal }).then((exit) => {
                if (Exit.isFailure(exit)) throw Cause.squash(exit.cause)
              })),
            { numRuns: 60, interruptAfterTimeLimit: 60_000 }
          ),
        catch: (error) =>
          error
      })
  }
])
