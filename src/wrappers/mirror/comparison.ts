/**
 * Whether two objects of one size hold the same bytes, where only their bytes can show it.
 */
import * as Effect from "effect/Effect"
import * as Hash from "../../internal/hash.js"
import * as Storage from "../../Storage.js"
import type { LoadError } from "../../StorageError.js"

/** Reads both, one after the other: under a `StorageLimit`, to hold permits of both storages could be a deadlock. */
export const haveSameBytes = (
  from: Storage.Service,
  to: Storage.Service,
  source: Storage.ObjectInfo,
  target: Storage.ObjectInfo
): Effect.Effect<boolean, LoadError> =>
  Effect.gen(function*() {
    const original = yield* digestOf(from, source)
    return original === (yield* digestOf(to, target))
  })

/** The SHA-256 of an object as it was listed. */
const digestOf = (storage: Storage.Service, { etag, key }: Storage.ObjectInfo) =>
  Effect.gen(function*() {
    const hash = yield* Hash.make("sha256")
    yield* Storage.forEachChunk(
      storage.stream(key, { ifMatch: etag, bypassCache: true }),
      (bytes) => Hash.update(hash, bytes)
    )
    return Hash.hexDigest(hash)
  })
