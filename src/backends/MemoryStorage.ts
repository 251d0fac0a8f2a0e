/**
 * Objects in memory: for tests, and for what need not outlive the process.
 *
 * @module MemoryStorage
 * @since 0.1.0
 */
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Layer from "effect/Layer"
import * as Stream from "effect/Stream"
import { collect, copyOf } from "../internal/bytes.js"
import * as ObjectKey from "../ObjectKey.js"
import * as Storage from "../Storage.js"
import * as StorageBackend from "../StorageBackend.js"
import { ObjectNotFound } from "../StorageError.js"

interface StoredObject {
  readonly info: StorageBackend.ObjectInfo
  readonly bytes: Uint8Array
}

/**
 * A new, empty storage. What is saved and what is loaded are copies, so that nobody can change an object but by a save.
 *
 * @since 0.1.0
 * @category constructors
 */
export const make = (): Effect.Effect<Storage.Service> => Effect.sync(() => Storage.make(makeBackend()))

/**
 * Provides a new, empty storage each time it is built.
 *
 * @since 0.1.0
 * @category layers
 * @example
 * ```ts
 * import { Effect } from "effect"
 * import { MemoryStorage, Storage } from "surfing-weights"
 *
 * const program = Effect.zipRight(
 *   Storage.save("layer_0.bin", new Uint8Array(16)),
 *   Storage.list("layer_")
 * )
 *
 * const keys = Effect.runPromise(Effect.provide(program, MemoryStorage.layer()))
 * ```
 */
export const layer = (): Layer.Layer<Storage.Storage> => Layer.effect(Storage.Storage, make())

const name = "Memory"

const makeBackend = (): StorageBackend.StorageBackend => {
  const objects = new Map<string, StoredObject>()
  let version = 0

  const find = (operation: string, key: string): Either.Either<StoredObject, ObjectNotFound> =>
    Either.fromNullable(objects.get(key), () => new ObjectNotFound({ backend: name, operation, key }))

  const remove = (key: string) => Effect.sync(() => void objects.delete(key))

  // The conditions are checked and the object stored in one synchronous step: that makes them atomic here.
  const put = (operation: string, key: string, bytes: Uint8Array, options: StorageBackend.SaveOptions) =>
    Clock.clockWith((clock) =>
      Either.map(
        StorageBackend.checkSave(key, objects.get(key)?.info, options, { backend: name, operation }),
        () => {
          const lastModified = new Date(clock.unsafeCurrentTimeMillis())
          const info = { key, size: bytes.byteLength, lastModified, etag: String(++version) }
          objects.set(key, { info, bytes })
          return info
        }
      )
    )

  const copy = (operation: string): StorageBackend.StorageBackend["copy"] => (from, to, options) =>
    Effect.flatMap(Effect.suspend(() => find(operation, from)), ({ bytes }) => put(operation, to, bytes, options))

  return StorageBackend.make({
    name,
    capabilities: StorageBackend.full,
    open: (key, options) =>
      Effect.suspend(() =>
        Either.flatMap(find("load", key), ({ bytes, info }) => StorageBackend.openBytes(bytes, info, options, name))
      ),
    load: (key, options) =>
      Effect.suspend(() =>
        Either.gen(function*() {
          const { bytes, info } = yield* find("load", key)
          const range = yield* StorageBackend.checkLoad(info, options, { backend: name, operation: "load" })
          return copyOf(bytes, range.start, range.endExclusive)
        })
      ),
    head: (key) => Effect.suspend(() => Either.map(find("head", key), ({ info }) => info)),
    save: (key, data, options) =>
      Effect.flatMap(
        data instanceof Uint8Array ? Effect.sync(() => copyOf(data)) : collect(data),
        (bytes) => put("save", key, bytes, options)
      ),
    entries: ({ prefix = "", startAfter = "" }) =>
      Stream.suspend(() =>
        Stream.fromIterable(
          [...objects.values()]
            .map(({ info }) => info)
            .filter(({ key }) => key.startsWith(prefix) && ObjectKey.compare(key, startAfter) > 0)
            .sort((a, b) => ObjectKey.compare(a.key, b.key))
        )
      ),
    remove,
    copy: copy("copy"),
    move: (from, to, options) => Effect.zipLeft(copy("move")(from, to, options), remove(from))
  })
}
