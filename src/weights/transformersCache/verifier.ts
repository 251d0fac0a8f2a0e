/**
 * Keeps the SHA-256 of each file that is put, in an object of its own, and compares the file with it before it is used.
 */
import * as Effect from "effect/Effect"
import * as ByteRange from "../../ByteRange.js"
import { hexDigest } from "../../internal/hash.js"
import * as Storage from "../../Storage.js"
import type { LoadError, RemoveError } from "../../StorageError.js"
import { sniffLength } from "../internal/fileKind.js"
import { problemOfBeginning } from "./content.js"
import { type Location, recordKeyOf } from "./keys.js"

/** Keeps the SHA-256 of an object that was just saved. */
export const saveRecord = (location: Location, info: Storage.ObjectInfo, sha256: string): Effect.Effect<void> => {
  const recordKey = recordKeyOf(info.key)
  location.verified.set(info.key, info.etag)
  return recordKey === undefined ? Effect.void : location.storage.save(recordKey, encoder.encode(`${sha256}\n`)).pipe(
    Effect.catchAll((error) => Effect.logWarning("The SHA-256 of a cached file could not be saved", error)),
    Effect.asVoid
  )
}

/**
 * What is wrong with an object, or `undefined`. Each version of it is checked once: by its SHA-256 or, if it was not put but
 * copied, by its first bytes. The whole object is read for that, as a stream.
 */
export const verify = (location: Location, info: Storage.ObjectInfo): Effect.Effect<string | undefined, LoadError> =>
  Effect.gen(function*() {
    const { verified } = location
    if (verified.get(info.key) === info.etag) return undefined
    const expected = yield* loadRecord(location, info.key)
    const problem = yield* expected === undefined ? sniff(location, info) : compare(location, info, expected)
    if (problem === undefined) verified.set(info.key, info.etag)
    return problem
  })

/** Removes an object and its record. */
export const remove = (location: Location, key: string): Effect.Effect<void, RemoveError> =>
  Effect.gen(function*() {
    location.verified.delete(key)
    yield* location.storage.remove(key)
    const recordKey = recordKeyOf(key)
    if (recordKey !== undefined) yield* location.storage.remove(recordKey)
  })

const loadRecord = (location: Location, key: string): Effect.Effect<string | undefined, LoadError> => {
  const recordKey = recordKeyOf(key)
  return recordKey === undefined ? Effect.succeed(undefined) : location.storage.load(recordKey).pipe(
    Effect.map((bytes) => new TextDecoder().decode(bytes).trim()),
    Effect.catchTag("ObjectNotFound", () => Effect.succeed(undefined))
  )
}

const compare = ({ newHash, storage }: Location, { etag, key }: Storage.ObjectInfo, expected: string) =>
  Effect.gen(function*() {
    const hash = newHash()
    yield* Storage.forEachChunk(
      storage.stream(key, { ifMatch: etag }),
      (bytes) => Effect.sync(() => hash.update(bytes))
    )
    const actual = hexDigest(hash)
    return actual === expected ? undefined : `its SHA-256 is ${actual}, not ${expected.slice(0, 64)} as when it was put`
  })

const sniff = ({ storage }: Location, { etag, key, size }: Storage.ObjectInfo) =>
  size === 0
    ? Effect.succeed(undefined)
    : Effect.map(
      storage.load(key, { range: ByteRange.make(0, Math.min(size, sniffLength)), ifMatch: etag }),
      (beginning) => problemOfBeginning(key, beginning)
    )

const encoder = new TextEncoder()
