/**
 * The backend of an encrypted storage. It is loaded when one is made.
 */
import * as Effect from "effect/Effect"
import type * as Redacted from "effect/Redacted"
import * as Stream from "effect/Stream"
import { following } from "../../internal/capabilities.js"
import { withPlace } from "../../internal/errors.js"
import * as ObjectKey from "../../ObjectKey.js"
import * as StorageBackend from "../../StorageBackend.js"
import * as E from "../../StorageError.js"
import { inMemory, type KeyWrapper, MasterKeys } from "./masterKeys.js"
import { plainInfo, Reader } from "./reader.js"
import { Saver } from "./saver.js"

/** A master key: its bytes, or what wraps and unwraps with it. */
export type MasterKey = KeyWrapper | { readonly id: string; readonly secret: Redacted.Redacted<Uint8Array> }

/** The same backend, encrypted, and what wraps the data key of an object anew. */
export const make = (
  inner: StorageBackend.StorageBackend,
  [first, ...others]: readonly [MasterKey, ...ReadonlyArray<MasterKey>]
) => {
  const keys = new MasterKeys([toWrapper(first), ...others.map(toWrapper)])
  const saver = new Saver(inner, keys)
  const encrypted = makeBackend(inner, new Reader(inner, keys), saver)
  return { encrypted, rewrap: rewrapping(encrypted, saver) }
}

const toWrapper = (key: MasterKey): KeyWrapper => "wrap" in key ? key : inMemory(key.id, key.secret)

const rewrapping = (backend: StorageBackend.StorageBackend, saver: Saver) => (key: string) =>
  Effect.suspend((): Effect.Effect<boolean, E.CopyError> => {
    const reason = ObjectKey.problem(key)
    if (reason !== undefined) return Effect.fail(new E.InvalidKey({ key, reason }))
    return backend.capabilities.compareAndSwap
      ? saver.rewrap(key)
      : Effect.fail(new E.UnsupportedOperation({ reason: "ifMatch on a save is not supported" }))
  }).pipe(Effect.mapError((error) => withPlace(error, { backend: backend.name, operation: "rewrap", key })))

const makeBackend = (
  inner: StorageBackend.StorageBackend,
  reader: Reader,
  saver: Saver
): StorageBackend.StorageBackend =>
  StorageBackend.make({
    name: `Encryption(${inner.name})`,
    // Whoever keeps the plain bytes must not serve them for the encrypted ones.
    location: `Encryption(${inner.location ?? inner.name})`,
    capabilities: following(() => ({ ...inner.capabilities, presign: false })),
    open: (key, options) => reader.open(key, options),
    save: (key, data, options) => saver.save(key, data, options),
    entries: (options) => Stream.map(inner.entries(options), plainInfo),
    remove: inner.remove
  }, {
    load: (key, options) => reader.load(key, options),
    loadRanges: (key, ranges, options) => reader.loadRanges(key, ranges, options),
    head: (key) => Effect.map(inner.head(key), plainInfo),
    keys: inner.keys,
    listDirectory: (prefix) =>
      Effect.map(inner.listDirectory(prefix), ({ objects, prefixes }) => ({
        objects: objects.map(plainInfo),
        prefixes
      })),
    removeAll: inner.removeAll
  })
