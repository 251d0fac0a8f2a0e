/**
 * What the cases of the contract suite are made of: bytes that show every mistake, sources of bytes, and checks that
 * say what was expected.
 */
import { assert, expect } from "@effect/vitest"
import * as Cause from "effect/Cause"
import * as Chunk from "effect/Chunk"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Option from "effect/Option"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import * as ByteRange from "../../ByteRange.js"
import * as Storage from "../../Storage.js"
import type { Capabilities, LoadOptions, ObjectInfo } from "../../StorageBackend.js"
import { isStorageError, type StorageError } from "../../StorageError.js"

/** One rule of the contract and the effect that holds a storage to it. */
export interface Case {
  /** What the rule is about, for instance `ranges`. */
  readonly group: string
  /** The rule as a sentence; no two cases have the same. */
  readonly name: string
  /** How long it may take, in milliseconds. */
  readonly timeout: number
  /** Needs an empty storage. Fails or dies where the storage breaks the rule. */
  readonly effect: Effect.Effect<void, unknown, Storage.Storage>
}

interface Definition {
  readonly name: string
  /** What a store must be able to do for this; one that cannot has to refuse it instead. */
  readonly needs?: ReadonlyArray<keyof typeof refusals>
  /** Allowed two minutes instead of half a minute. */
  readonly slow?: boolean
  readonly check: (storage: Storage.Service) => Effect.Effect<void, unknown, Scope.Scope>
}

export const group = (name: string, definitions: ReadonlyArray<Definition>): ReadonlyArray<Case> =>
  definitions.map((definition) => ({
    group: name,
    name: definition.name,
    timeout: definition.slow === true ? 120_000 : 30_000,
    effect: Effect.scoped(Effect.flatMap(Storage.Storage, (storage) => {
      const missing = definition.needs?.find((need) => !storage.backend.capabilities[need])
      return missing === undefined ? definition.check(storage) : refusals[missing](storage)
    }))
  }))

export const KiB = 1024
export const MiB = 1024 * KiB

/** Sizes at which parts and chunks begin and end. */
export const boundarySizes = [0, 1, MiB - 1, MiB, MiB + 1, 8 * MiB - 1, 8 * MiB, 8 * MiB + 1]

/** Bytes that depend on the seed and on where they stand, so that a shift, a gap or a mixture of two shows. */
export const pattern = (seed: number, size: number): Uint8Array => {
  const bytes = new Uint8Array(size)
  const start = Math.imul(seed + 1, 0x85ebca6b)
  for (let i = 0; i < size; i++) bytes[i] = Math.imul(start + i, 0x9e3779b1) >>> 24
  return bytes
}

/** A stream of the bytes in pieces of these sizes, over and over, one at a time; a size of 0 is an empty piece. */
export const inPieces = (
  bytes: Uint8Array,
  sizes: ReadonlyArray<number> = [1, 0, 65_537, 4095, 300_001]
): Stream.Stream<Uint8Array> =>
  Stream.unfold({ at: 0, turn: 0 }, ({ at, turn }) => {
    if (at >= bytes.byteLength) return Option.none()
    const end = at + (sizes[turn % sizes.length] ?? 1)
    return Option.some([bytes.subarray(at, end), { at: end, turn: turn + 1 }])
  })

/** All that a stream yields, in one array. */
export const gather = <E, R>(stream: Stream.Stream<Uint8Array, E, R>): Effect.Effect<Uint8Array, E, R> =>
  Effect.map(Stream.runCollect(stream), concat)

export const concat = (pieces: Iterable<Uint8Array>): Uint8Array => {
  const parts = [...pieces]
  const whole = new Uint8Array(parts.reduce((sum, part) => sum + part.byteLength, 0))
  let at = 0
  for (const part of parts) {
    whole.set(part, at)
    at += part.byteLength
  }
  return whole
}

const encoder = new TextEncoder()

export const encode = (text: string): Uint8Array => encoder.encode(text)

/** Keys as a listing must show them: each once, in the order of their bytes. */
export const inOrder = (keys: Iterable<string>): ReadonlyArray<string> =>
  [...new Set(keys)]
    .map((key) => ({ key, bytes: encode(key) }))
    .sort((a, b) => compareBytes(a.bytes, b.bytes))
    .map(({ key }) => key)

/** Whether the one string comes after the other in a listing. */
export const isAfter = (a: string, b: string): boolean => compareBytes(encode(a), encode(b)) > 0

const compareBytes = (a: Uint8Array, b: Uint8Array): number => {
  const at = firstDifference(a, b)
  return at === undefined ? 0 : (a[at] ?? -1) - (b[at] ?? -1)
}

const firstDifference = (a: Uint8Array, b: Uint8Array): number | undefined => {
  const length = Math.min(a.byteLength, b.byteLength)
  let at = 0
  // Most of what is compared is equal and large: go over it by words as far as they are equal.
  if (a.byteOffset % 4 === 0 && b.byteOffset % 4 === 0) {
    const words = length >> 2
    const x = new Uint32Array(a.buffer, a.byteOffset, words)
    const y = new Uint32Array(b.buffer, b.byteOffset, words)
    while (at < words && x[at] === y[at]) at++
    at *= 4
  }
  while (at < length && a[at] === b[at]) at++
  return at === length && a.byteLength === b.byteLength ? undefined : at
}

/** A string as it can be shown: quoted, escaped, and not too long. */
export const show = (text: string): string =>
  text.length > 80 ? `${JSON.stringify(text.slice(0, 80))}… (${text.length} characters)` : JSON.stringify(text)

export const sameBytes = (a: Uint8Array, b: Uint8Array): boolean => firstDifference(a, b) === undefined

export const expectBytes = (what: string, actual: Uint8Array, expected: Uint8Array): void => {
  const at = firstDifference(actual, expected)
  if (at === undefined) return
  assert.fail(
    `${what}: expected ${expected.byteLength} bytes and got ${actual.byteLength}; the first difference is at byte ` +
      `${at}: expected ${expected[at] ?? "the end"}, got ${actual[at] ?? "the end"}`
  )
}

/** Expects bytes that are wholly one of the candidates, and says which. */
export const expectOneOf = (what: string, actual: Uint8Array, candidates: ReadonlyArray<Uint8Array>): number => {
  const index = candidates.findIndex((candidate) => sameBytes(actual, candidate))
  if (index !== -1) return index
  const differences = candidates.map((candidate) =>
    `${candidate.byteLength} bytes, of which it differs at byte ${firstDifference(actual, candidate)}`
  )
  return assert.fail(`${what}: ${actual.byteLength} bytes that are none of: ${differences.join("; ")}`)
}

/** Expects an effect to fail with one of the tags (and, where it names a key, with this one), and gives the failure. */
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
    if (key !== undefined) expect(failure.key, `${what}: the key that the failure names`).toBe(key)
    expect(failure.backend, `${what}: the backend that the failure names`).not.toBe("")
    expect(failure.operation, `${what}: the operation that the failure names`).not.toBe("")
    expect(failure.message, `${what}: the message of the failure`).not.toBe("")
    return failure
  })

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

/** Every way to change something: each with the key it is about. */
const writes = (
  storage: Storage.Service,
  from: string,
  to: string
): ReadonlyArray<readonly [string, Effect.Effect<unknown, StorageError>]> => [
  ["save of bytes", storage.save(to, pattern(90, 10))],
  ["save of a stream", storage.save(to, inPieces(pattern(90, 10)))],
  ["copy", storage.copy(from, to)],
  ["move", storage.move(from, to)],
  ["remove", storage.remove(from)],
  ["removeAll", storage.removeAll([from])]
]

export const expectAbsent = (storage: Storage.Service, key: string): Effect.Effect<void, StorageError> =>
  Effect.gen(function*() {
    for (const [what, effect] of [...reads(storage, key), ["head", storage.head(key)] as const]) {
      yield* expectFailure(`${what} of ${show(key)}, which is not there`, "ObjectNotFound", effect, key)
    }
    expect(yield* storage.exists(key), `exists of ${show(key)}`).toBe(false)
  })

/** Expects an object to hold exactly these bytes, however it is read. */
export const expectObject = (
  storage: Storage.Service,
  key: string,
  bytes: Uint8Array
): Effect.Effect<ObjectInfo, StorageError> =>
  Effect.gen(function*() {
    expectBytes(`load of ${show(key)}`, yield* storage.load(key), bytes)
    expectBytes(`stream of ${show(key)}`, yield* gather(storage.stream(key)), bytes)
    const info = yield* storage.head(key)
    expect(info.key, `the key that head gives for ${show(key)}`).toBe(key)
    expect(info.size, `the size that head gives for ${show(key)}`).toBe(bytes.byteLength)
    expect(yield* storage.exists(key), `exists of ${show(key)}`).toBe(true)
    return info
  })

/** Expects exactly these keys to be there; of a store that does not list, that each of them is. */
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
 * Expects both to tell of the same object, last modified within a minute: a save tells of the moment of its answer, and
 * some stores date the object by the moment when it was begun, in whole seconds.
 */
export const expectSameInfo = (what: string, actual: ObjectInfo, expected: ObjectInfo): void => {
  const { key, size, etag } = expected
  expect({ key: actual.key, size: actual.size, etag: actual.etag }, what).toEqual({ key, size, etag })
  expect(actual.lastModified, `${what}: lastModified`).toBeInstanceOf(Date)
  const apart = Math.abs(actual.lastModified.getTime() - expected.lastModified.getTime())
  expect(apart, `${what}: milliseconds between ${String(actual.lastModified)} and ${String(expected.lastModified)}`)
    .toBeLessThan(60_000)
}

/** All that entries yields. */
export const entriesOf = (
  storage: Storage.Service,
  options?: { readonly prefix?: string; readonly startAfter?: string }
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
 * Runs what must not change anything, once on a key that has an object and once on one that has none, and expects both
 * as they were.
 */
export const expectNoChange = <E, R>(
  storage: Storage.Service,
  attempt: (key: string) => Effect.Effect<unknown, E, R>
): Effect.Effect<void, E | StorageError, R> =>
  Effect.gen(function*() {
    const old = "folder/old"
    const absent = "another/folder/absent"
    const bytes = pattern(91, 5000)
    const before = yield* storage.save(old, bytes)
    yield* attempt(old)
    yield* attempt(absent)
    expectSameInfo("the old object", yield* expectObject(storage, old, bytes), before)
    yield* expectAbsent(storage, absent)
    yield* expectKeys(storage, [old])
    if (storage.backend.capabilities.list) {
      expect(yield* storage.listDirectory(), "the root directory").toEqual({ objects: [], prefixes: ["folder/"] })
    }
    yield* storage.remove(old)
  })

// What a store that lacks a capability has to do instead: say so, and change nothing.
const refusals = {
  write: (storage: Storage.Service) =>
    Effect.gen(function*() {
      for (const [what, effect] of writes(storage, "from", "to")) {
        yield* expectFailure(`${what} on a store that cannot write`, "UnsupportedOperation", effect)
      }
      yield* expectAbsent(storage, "to")
    }),

  list: (storage: Storage.Service) =>
    Effect.gen(function*() {
      const listings = [
        ["list", storage.list()],
        ["list of a prefix", storage.list("a")],
        ["entries", entriesOf(storage)],
        ["listDirectory", storage.listDirectory()]
      ] as const
      for (const [what, effect] of listings) {
        yield* expectFailure(`${what} on a store that cannot list`, "UnsupportedOperation", effect)
      }
    }),

  createOnly: (storage: Storage.Service) =>
    expectNoChange(storage, (key) =>
      Effect.all([
        expectRefused("save of bytes", storage.save(key, pattern(92, 10), { ifNoneMatch: "*" })),
        expectRefused("save of a stream", storage.save(key, inPieces(pattern(92, 10)), { ifNoneMatch: "*" })),
        expectRefused("copy", storage.copy("folder/old", key, { ifNoneMatch: "*" })),
        expectRefused("move", storage.move("folder/old", key, { ifNoneMatch: "*" }))
      ])),

  compareAndSwap: (storage: Storage.Service) =>
    expectNoChange(storage, (key) =>
      Effect.gen(function*() {
        const ifMatch = (yield* storage.exists(key)) ? (yield* storage.head(key)).etag : "an etag"
        yield* expectRefused("save of bytes", storage.save(key, pattern(93, 10), { ifMatch }))
        yield* expectRefused("save of a stream", storage.save(key, inPieces(pattern(93, 10)), { ifMatch }))
      }))
} satisfies Partial<Record<keyof Capabilities, (storage: Storage.Service) => Effect.Effect<void, StorageError>>>

const expectRefused = (what: string, effect: Effect.Effect<unknown, StorageError>) =>
  expectFailure(`${what} under a condition that the store cannot honour`, "UnsupportedOperation", effect)
