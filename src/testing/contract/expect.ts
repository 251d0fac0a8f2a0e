/**
 * The checks that cases are written with. Each says in its message what was expected of which operation.
 */
import { assert, expect } from "@effect/vitest"
import * as Cause from "effect/Cause"
import * as Chunk from "effect/Chunk"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Option from "effect/Option"
import * as Stream from "effect/Stream"
import * as ByteRange from "../../ByteRange.js"
import type * as Storage from "../../Storage.js"
import type { Attributes, ListOptions, LoadOptions, ObjectInfo } from "../../StorageBackend.js"
import { isStorageError, type StorageError } from "../../StorageError.js"
import { firstDifference, gather, inOrder, pattern, sameBytes, show } from "./bytes.js"

/** Like `expect(actual, what).toBe(expected)`, without the cost of a call of `expect` where both are the same. */
const expectSame = <A>(what: string, actual: A, expected: A): void => {
  if (!Object.is(actual, expected)) expect(actual, what).toBe(expected)
}

export const expectBytes = (what: string, actual: Uint8Array, expected: Uint8Array): void => {
  const at = firstDifference(actual, expected)
  if (at === undefined) return
  assert.fail(
    `${what}: expected ${expected.byteLength} bytes and got ${actual.byteLength}; the first difference is at byte ` +
      `${at}: expected ${expected[at] ?? "the end"}, got ${actual[at] ?? "the end"}`
  )
}

/** Expects bytes that equal one of the candidates, and returns its index. */
export const expectOneOf = (what: string, actual: Uint8Array, candidates: ReadonlyArray<Uint8Array>): number => {
  const index = candidates.findIndex((candidate) => sameBytes(actual, candidate))
  if (index !== -1) return index
  const differences = candidates.map((candidate) =>
    `${candidate.byteLength} bytes, which differ at byte ${firstDifference(actual, candidate)}`
  )
  return assert.fail(`${what}: ${actual.byteLength} bytes that equal none of: ${differences.join("; ")}`)
}

/** Expects an effect to fail with one of the tags and, where a key is given, with this key; returns the failure. */
export const expectFailure = <R>(
  what: string,
  tags: StorageError["_tag"] | ReadonlyArray<StorageError["_tag"]>,
  effect: Effect.Effect<unknown, unknown, R>,
  key?: string
): Effect.Effect<StorageError, never, R> =>
  Effect.map(Effect.exit(effect), (exit) => {
    const wanted = typeof tags === "string" ? [tags] : tags
    const expected = `${what}: expected the failure ${wanted.join(" or ")}`
    if (Exit.isSuccess(exit)) return assert.fail(`${expected}, but it succeeded`)
    const failure = Option.getOrUndefined(Cause.failureOption(exit.cause))
    if (!isStorageError(failure)) return assert.fail(`${expected}, but got:\n${Cause.pretty(exit.cause)}`)
    if (!wanted.includes(failure._tag)) return assert.fail(`${expected}, but got ${failure._tag}: ${failure.message}`)
    if (key !== undefined) expectSame(`${what}: the key of the failure`, failure.key, key)
    return failure
  })

/** Expects a failure to carry the operation that was called, the whole stack of wrappers, and the key. */
export const expectComplete = (
  storage: Storage.Service,
  what: string,
  failure: StorageError,
  operation: string,
  key: string | undefined
): void => {
  expectSame(`${what}: the operation of the failure`, failure.operation, operation)
  expectSame(`${what}: the backend of the failure`, failure.backend, storage.backend.name)
  expectSame(`${what}: the key of the failure`, failure.key, key)
}

/** Every way to read bytes of an object. */
export const reads = (
  storage: Storage.Service,
  key: string,
  options: Omit<LoadOptions, "range"> = {}
): ReadonlyArray<readonly [string, Effect.Effect<unknown, StorageError>]> => [
  ["load", storage.load(key, options)],
  ["load of a range", storage.load(key, { ...options, range: ByteRange.last(1) })],
  ["loadRanges", storage.loadRanges(key, [ByteRange.last(1)], options)],
  ["stream", Stream.runDrain(storage.stream(key, options))],
  ["open", Effect.scoped(storage.open(key, options))]
]

export const expectAbsent = (storage: Storage.Service, key: string): Effect.Effect<void, StorageError> =>
  Effect.gen(function*() {
    for (const [what, effect] of [...reads(storage, key), ["head", storage.head(key)] as const]) {
      yield* expectFailure(`${what} of ${show(key)}, which should not exist`, "ObjectNotFound", effect, key)
    }
    expectSame(`exists of ${show(key)}`, yield* storage.exists(key), false)
  })

/** Expects an object to hold exactly these bytes, however it is read; returns its metadata. */
export const expectObject = (
  storage: Storage.Service,
  key: string,
  bytes: Uint8Array
): Effect.Effect<ObjectInfo, StorageError> =>
  Effect.gen(function*() {
    expectBytes(`load of ${show(key)}`, yield* storage.load(key), bytes)
    expectBytes(`stream of ${show(key)}`, yield* gather(storage.stream(key)), bytes)
    const info = yield* storage.head(key)
    expectSame(`the key that head returns for ${show(key)}`, info.key, key)
    expectSame(`the size that head returns for ${show(key)}`, info.size, bytes.byteLength)
    expectSame(`exists of ${show(key)}`, yield* storage.exists(key), true)
    return info
  })

/** Expects exactly these keys to be listed; where the store does not list, expects each of them to exist. */
export const expectKeys = (
  storage: Storage.Service,
  keys: Iterable<string>,
  what = "the listing"
): Effect.Effect<void, StorageError> =>
  Effect.gen(function*() {
    if (storage.backend.capabilities.list) {
      expect(yield* storage.list(), what).toEqual(inOrder(keys))
    } else {
      for (const key of keys) expect(yield* storage.exists(key), `${what}: exists of ${show(key)}`).toBe(true)
    }
  })

/**
 * Expects both to describe the same version of an object. `lastModified` may differ by up to a minute: `save` returns the
 * time of its response, and some stores keep the time when the save began, in whole seconds.
 */
export const expectSameInfo = (what: string, actual: ObjectInfo, expected: ObjectInfo): void => {
  for (const field of ["key", "size", "etag"] as const) {
    expectSame<number | string>(`${what}: ${field}`, actual[field], expected[field])
  }
  if (!(actual.lastModified instanceof Date)) expect(actual.lastModified, `${what}: lastModified`).toBeInstanceOf(Date)
  const apart = Math.abs(actual.lastModified.getTime() - expected.lastModified.getTime())
  if (apart < 60_000) return
  const times = `${String(actual.lastModified)} and ${String(expected.lastModified)}`
  expect(apart, `${what}: milliseconds between ${times}`).toBeLessThan(60_000)
}

/**
 * Expects the attributes that were set, and no others. A store may have a content type of its own where none was set, by
 * the name of the object for instance.
 */
export const expectAttributes = (what: string, info: ObjectInfo, set: Attributes): void => {
  const { contentType, metadata, ...others } = info.attributes ?? {}
  const names = ["cacheControl", "contentDisposition", "contentEncoding", "contentLanguage"] as const
  for (const name of names) expect(others[name], `${what}: attributes.${name}`).toBe(set[name])
  if (set.contentType !== undefined) expect(contentType, `${what}: attributes.contentType`).toBe(set.contentType)
  // Maps, since `toEqual` overlooks a name such as "__proto__".
  const expected = Object.entries(set.metadata ?? {}).map(([name, value]) => [name.toLowerCase(), value] as const)
  expect(new Map(Object.entries(metadata ?? {})), `${what}: attributes.metadata`).toEqual(new Map(expected))
}

/** All that `entries` returns. */
export const entriesOf = (
  storage: Storage.Service,
  options?: ListOptions
): Effect.Effect<ReadonlyArray<ObjectInfo>, StorageError> =>
  Effect.map(Stream.runCollect(storage.entries(options)), Chunk.toReadonlyArray)

/** Saves a few bytes under each of the keys. */
export const saveAll = (
  storage: Storage.Service,
  keys: Iterable<string>,
  size = 3
): Effect.Effect<void, StorageError> =>
  Effect.forEach([...keys].entries(), ([index, key]) => storage.save(key, pattern(index, size)), {
    concurrency: 16,
    discard: true
  })

/**
 * Runs what must not change anything, once on the key of an object and once on a key without one, and expects both as they
 * were.
 */
export const expectNoChange = <E, R>(
  storage: Storage.Service,
  attempt: (key: string) => Effect.Effect<unknown, E, R>
): Effect.Effect<void, E | StorageError, R> =>
  Effect.gen(function*() {
    const old = "folder/old"
    const absent = "another/folder/absent"
    const bytes = pattern(91, 5000)
    const { capabilities } = storage.backend
    const attributes = { contentType: "application/x-old", metadata: { version: "old" } }
    const before = yield* storage.save(old, bytes, capabilities.attributes ? { attributes } : {})
    yield* attempt(old)
    yield* attempt(absent)
    const after = yield* expectObject(storage, old, bytes)
    expectSameInfo("the old object", after, before)
    if (capabilities.attributes) expectAttributes("the old object", after, attributes)
    yield* expectAbsent(storage, absent)
    yield* expectKeys(storage, [old])
    if (capabilities.list) {
      expect(yield* storage.listDirectory(), "the root directory").toEqual({ objects: [], prefixes: ["folder/"] })
    }
    yield* storage.remove(old)
  })
