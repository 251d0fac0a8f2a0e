/**
 * Random sequences of operations, each compared with the same operation on a map. A sequence that fails is shrunk to the
 * shortest that still fails, and reported with the seed that reproduces it.
 */
import { assert, expect } from "@effect/vitest"
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Exit from "effect/Exit"
import * as FastCheck from "effect/FastCheck"
import * as Stream from "effect/Stream"
import type * as ByteRange from "../../ByteRange.js"
import type * as Storage from "../../Storage.js"
import type { Attributes, ObjectInfo } from "../../StorageBackend.js"
import type { StorageError } from "../../StorageError.js"
import { gather, inChunks, inOrder, isAfter, none, pattern, sameBytes } from "./bytes.js"
import { group } from "./cases.js"
import {
  entriesOf,
  expectAbsent,
  expectAttributes,
  expectBytes,
  expectFailure,
  expectKeys,
  expectObject
} from "./expect.js"
import { type Etag, Operation, type OperationOf, operations } from "./operations.js"

interface StoredObject {
  readonly bytes: Uint8Array
  readonly info: ObjectInfo
  readonly attributes: Attributes
}

/** A storage, and the map that it should behave like. */
class Model {
  readonly #storage: Storage.Service
  readonly #objects = new Map<string, StoredObject>()
  /** The etags that objects had before. */
  readonly #stale = new Map<string, string>()

  constructor(storage: Storage.Service) {
    this.#storage = storage
  }

  /** Runs an operation, and expects of it what the map says. */
  run(operation: Operation): Effect.Effect<void, StorageError> {
    return Operation.$match(operation, {
      Save: (operation) => this.#save(operation),
      SaveOfFailingSource: (operation) => this.#saveOfFailingSource(operation),
      Load: (operation) => this.#load(operation),
      Head: (operation) => this.#head(operation),
      List: (operation) => this.#list(operation),
      ListDirectory: (operation) => this.#listDirectory(operation),
      Remove: (operation) => this.#remove(operation),
      RemoveAll: (operation) => this.#removeAll(operation),
      Relocate: (operation) => this.#relocate(operation)
    })
  }

  /** Expects a listing to return exactly the objects of the map. */
  expectListed(what: string): Effect.Effect<void, StorageError> {
    if (!this.#storage.backend.capabilities.list) return Effect.void
    return Effect.map(entriesOf(this.#storage), (infos) => {
      const expected = inOrder(this.#objects.keys()).flatMap((key) => this.#objects.get(key)?.info ?? [])
      expect(infos.map(known), what).toEqual(expected.map(known))
    })
  }

  /** Expects every object of the map, and no others. */
  expectAll(): Effect.Effect<void, StorageError> {
    return Effect.zipRight(
      Effect.forEach(this.#objects, ([key, { bytes }]) => expectObject(this.#storage, key, bytes)),
      Effect.suspend(() => expectKeys(this.#storage, this.#objects.keys()))
    )
  }

  #save({ attributes, content, create, ifMatch, key, streamed }: OperationOf<"Save">) {
    return Effect.gen(this, function*() {
      const bytes = pattern(content.seed, content.size)
      const options = {
        ...(create && { ifNoneMatch: "*" as const }),
        ...(ifMatch !== undefined && { ifMatch: this.#etagOf(key, ifMatch) }),
        ...this.#settable(attributes)
      }
      const save = this.#storage.save(key, streamed ? inChunks(bytes, [70, 0, 1000]) : bytes, options)
      const refusals = this.#refusals(key, { create, ...options })
      if (refusals.length > 0) yield* expectFailure("save", refusals, save, key)
      else this.#put("save", key, bytes, yield* save, options.attributes ?? {})
    })
  }

  #saveOfFailingSource({ content, key }: OperationOf<"SaveOfFailingSource">) {
    const source = Stream.concat(
      inChunks(pattern(content.seed, content.size), [70]),
      Stream.fail("the source failed" as const)
    )
    return Effect.map(Effect.either(this.#storage.save(key, source)), (saved) => {
      if (Either.isRight(saved)) return assert.fail("a save whose source failed succeeded")
      if (typeof saved.left === "string") expect(saved.left).toBe("the source failed")
      else expect(this.#refusals(key, { create: false }), saved.left.message).toContain(saved.left._tag)
    })
  }

  #load({ by, ifMatch, ifNoneMatch, key, range }: OperationOf<"Load">) {
    return Effect.gen(this, function*() {
      const preconditions = {
        ...(ifMatch !== undefined && { ifMatch: this.#etagOf(key, ifMatch) }),
        ...(ifNoneMatch !== undefined && { ifNoneMatch: this.#etagOf(key, ifNoneMatch) })
      }
      const read = by === "stream"
        ? gather(this.#storage.stream(key, { ...preconditions, range }))
        : by === "load" || range === undefined
        ? this.#storage.load(key, { ...preconditions, range })
        : Effect.map(this.#storage.loadRanges(key, [range], preconditions), ([first]) => first ?? none)
      const object = this.#objects.get(key)
      const expected = object && bytesIn(object.bytes, range)
      if (object === undefined) yield* expectFailure(by, "ObjectNotFound", read, key)
      else if (preconditions.ifMatch !== undefined && preconditions.ifMatch !== object.info.etag) {
        yield* expectFailure(by, "PreconditionFailed", read, key)
      } else if (preconditions.ifNoneMatch === object.info.etag) {
        yield* expectFailure(by, "ObjectNotModified", read, key)
      } else if (expected === undefined) yield* expectFailure(by, "InvalidRange", read, key)
      else expectBytes(by, yield* read, expected)
    })
  }

  #head({ key }: OperationOf<"Head">) {
    return Effect.gen(this, function*() {
      const object = this.#objects.get(key)
      expect(yield* this.#storage.exists(key), "exists").toBe(object !== undefined)
      if (object === undefined) return yield* expectAbsent(this.#storage, key)
      const info = yield* this.#storage.head(key)
      expect(known(info), "head").toEqual(known(object.info))
      if (this.#storage.backend.capabilities.attributes) expectAttributes("head", info, object.attributes)
    })
  }

  #list({ prefix, startAfter }: OperationOf<"List">) {
    if (!this.#storage.backend.capabilities.list) return Effect.void
    const expected = inOrder(this.#objects.keys()).filter((key) => key.startsWith(prefix))
    return Effect.zipWith(
      this.#storage.list(prefix),
      entriesOf(this.#storage, { prefix, startAfter }),
      (listed, infos) => {
        expect(listed, "list").toEqual(expected)
        expect(infos.map((info) => info.key), "entries").toEqual(expected.filter((key) => isAfter(key, startAfter)))
      }
    )
  }

  #listDirectory({ prefix }: OperationOf<"ListDirectory">) {
    if (!this.#storage.backend.capabilities.list) return Effect.void
    const keys = inOrder(this.#objects.keys()).filter((key) => key.startsWith(prefix))
    const slash = (key: string) => key.indexOf("/", prefix.length)
    return Effect.map(
      this.#storage.listDirectory(prefix),
      ({ objects, prefixes }) =>
        expect({ objects: objects.map((info) => info.key), prefixes }, "listDirectory").toEqual({
          objects: keys.filter((key) => slash(key) === -1),
          prefixes: inOrder(keys.filter((key) => slash(key) !== -1).map((key) => key.slice(0, slash(key) + 1)))
        })
    )
  }

  #remove({ ifMatch, key }: OperationOf<"Remove">) {
    return Effect.gen(this, function*() {
      const etag = ifMatch === undefined ? undefined : this.#etagOf(key, ifMatch)
      const remove = this.#storage.remove(key, { ifMatch: etag })
      if (etag !== undefined && !this.#storage.backend.capabilities.conditionalRemove) {
        yield* expectFailure("remove", "UnsupportedOperation", remove, key)
      } else if (etag !== undefined && etag !== this.#objects.get(key)?.info.etag) {
        yield* expectFailure("remove", "PreconditionFailed", remove, key)
      } else {
        yield* remove
        this.#delete(key)
      }
    })
  }

  #removeAll({ keys }: OperationOf<"RemoveAll">) {
    return Effect.map(this.#storage.removeAll(keys), ({ failed }) => {
      expect(failed, "the failures of removeAll").toEqual([])
      keys.forEach((key) => this.#delete(key))
    })
  }

  #relocate({ attributes, by, create, from, to }: OperationOf<"Relocate">) {
    return Effect.gen(this, function*() {
      const options = {
        ...(create && { ifNoneMatch: "*" as const }),
        // To its own key, attributes are refused, which has a case of its own.
        ...(from !== to && this.#settable(attributes))
      }
      const relocate = this.#storage[by](from, to, options)
      const source = this.#objects.get(from)
      const refusals = [
        ...(source === undefined ? ["ObjectNotFound" as const] : []),
        ...this.#refusals(to, { create })
      ]
      if (create && !this.#storage.backend.capabilities.createOnly) {
        yield* expectFailure(by, "UnsupportedOperation", relocate)
      } else if (source === undefined || refusals.length > 0) yield* expectFailure(by, refusals, relocate)
      else if (from === to) expect(known(yield* relocate), `the result of ${by}`).toEqual(known(source.info))
      else {
        this.#put(by, to, source.bytes, yield* relocate, options.attributes ?? source.attributes)
        if (by === "move") this.#delete(from)
      }
    })
  }

  #etagOf(key: string, etag: Etag): string {
    const found = etag === "current"
      ? this.#objects.get(key)?.info.etag
      : etag === "stale"
      ? this.#stale.get(key)
      : undefined
    return found ?? "not an etag"
  }

  /** The attributes, where the store supports them. */
  #settable(attributes: Attributes | undefined): { readonly attributes?: Attributes } {
    return attributes !== undefined && this.#storage.backend.capabilities.attributes ? { attributes } : {}
  }

  /** The failures of which a save under this key must have one; it succeeds where there are none. */
  #refusals(
    key: string,
    { create, ifMatch }: { readonly create: boolean; readonly ifMatch?: string }
  ): ReadonlyArray<StorageError["_tag"]> {
    const { compareAndSwap, createOnly, objectsWithinObjects } = this.#storage.backend.capabilities
    if (create && !createOnly || ifMatch !== undefined && !compareAndSwap) return ["UnsupportedOperation"]
    const existing = this.#objects.get(key)
    const isNested = [...this.#objects.keys()]
      .some((other) => other.startsWith(`${key}/`) || key.startsWith(`${other}/`))
    return [
      ...(create && existing !== undefined ? ["ObjectAlreadyExists" as const] : []),
      ...(ifMatch !== undefined && ifMatch !== existing?.info.etag ? ["PreconditionFailed" as const] : []),
      ...(isNested && !objectsWithinObjects ? ["UnsupportedOperation" as const] : [])
    ]
  }

  #put(what: string, key: string, bytes: Uint8Array, info: ObjectInfo, attributes: Attributes) {
    const before = this.#objects.get(key)
    expect({ key: info.key, size: info.size }, `the result of ${what}`).toEqual({ key, size: bytes.byteLength })
    if (before !== undefined) {
      if (!sameBytes(before.bytes, bytes)) expect(info.etag, `the new etag of ${what}`).not.toBe(before.info.etag)
      this.#stale.set(key, before.info.etag)
    }
    this.#objects.set(key, { attributes, bytes, info })
  }

  #delete(key: string) {
    const before = this.#objects.get(key)
    if (before !== undefined) this.#stale.set(key, before.info.etag)
    this.#objects.delete(key)
  }
}

const known = ({ etag, key, size }: ObjectInfo) => ({ key, size, etag })

const bytesIn = (bytes: Uint8Array, range: ByteRange.ByteRange | undefined): Uint8Array | undefined => {
  if (range === undefined) return bytes
  if (range._tag === "Last") return bytes.slice(Math.max(0, bytes.byteLength - range.length))
  if (range.start >= bytes.byteLength) return undefined
  return range._tag === "From" ? bytes.slice(range.start) : bytes.slice(range.start, range.endExclusive)
}

/** Empties the storage, runs the operations on it and on a map, and expects the same results. */
const expectSameAsMap = (
  storage: Storage.Service,
  sequence: ReadonlyArray<Operation>
): Effect.Effect<void, StorageError> =>
  Effect.gen(function*() {
    yield* storage.removeAll(operations.keys)
    const model = new Model(storage)
    for (const [index, operation] of sequence.entries()) {
      const where = `operation ${index + 1}, ${JSON.stringify(operation)}`
      yield* Effect.catchAllCause(model.run(operation), (cause) => {
        const error = Cause.squash(cause)
        return Effect.die(new Error(`${where}: ${String(error)}`, { cause: error }))
      })
      yield* model.expectListed(`the listing after ${where}`)
    }
    yield* model.expectAll()
  })

export const model = group("random operations", [
  {
    name: "a random sequence of operations has the same results as on a map",
    needs: ["write"],
    check: (storage) =>
      Effect.tryPromise({
        try: (signal) =>
          FastCheck.assert(
            FastCheck.asyncProperty(operations.sequence, (sequence) =>
              Effect.runPromiseExit(expectSameAsMap(storage, sequence), { signal }).then((exit) => {
                if (Exit.isFailure(exit)) throw Cause.squash(exit.cause)
              })),
            { numRuns: FastCheck.readConfigureGlobal().numRuns ?? 10, interruptAfterTimeLimit: 60_000 }
          ),
        catch: (error) =>
          error
      })
  }
])
