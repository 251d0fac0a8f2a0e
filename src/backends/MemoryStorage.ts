/**
 * Objects in memory: for tests, and for data that need not outlive the process. There are no options.
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
import { withPlace } from "../internal/errors.js"
import * as ObjectKey from "../ObjectKey.js"
import * as Storage from "../Storage.js"
import * as StorageBackend from "../StorageBackend.js"
import { ObjectNotFound, PreconditionFailed } from "../StorageError.js"

/**
 * A new, empty storage. It keeps copies of what is saved and returns copies of what it keeps, so an object changes only by
 * a save.
 *
 * @since 0.1.0
 * @category constructors
 */
export const make = (): Effect.Effect<Storage.Service> => Effect.sync(() => Storage.make(makeBackend()))

/**
 * Provides a new, empty storage each time the layer is built.
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

interface StoredObject {
  readonly info: StorageBackend.ObjectInfo
  readonly bytes: Uint8Array
}

const makeBackend = (): StorageBackend.StorageBackend => {
  const objects = new Map<string, StoredObject>()
  let version = 0

  const find = (key: string): Either.Either<StoredObject, ObjectNotFound> =>
    Either.fromNullable(objects.get(key), () => new ObjectNotFound())

  const put = (key: string, bytes: Uint8Array, options: StorageBackend.SaveOptions) =>
    // The preconditions are checked and the object is stored in one synchronous step, so both are one atomic step.
    Clock.clockWith((clock) =>
      Either.map(StorageBackend.checkSave(objects.get(key)?.info, options), () => {
        const { attributes } = options
        const lastModified = new Date(clock.unsafeCurrentTimeMillis())
        const info = { key, size: bytes.byteLength, lastModified, etag: String(++version), attributes }
        objects.set(key, { info, bytes })
        return info
      })
    )

  const copy: StorageBackend.StorageBackend["copy"] = (from, to, options) =>
    Effect.flatMap(Effect.suspend(() => find(from)), ({ bytes, info }) =>
      Effect.mapError(
        put(to, bytes, { ifNoneMatch: options.ifNoneMatch, attributes: options.attributes ?? info.attributes }),
        (error) => withPlace(error, { key: to })
      ))

  return StorageBackend.make({
    name: "Memory",
    location: String(Math.random()),
    capabilities: StorageBackend.full,
    open: (key, options) =>
      Effect.suspend(() =>
        Either.flatMap(find(key), ({ bytes, info }) => StorageBackend.openBytes(bytes, info, options))
      ),
    save: (key, data, options) =>
      Effect.flatMap(
        data instanceof Uint8Array ? Effect.sync(() => copyOf(data)) : collect(data),
        (bytes) => put(key, bytes, options)
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
    remove: (key, { ifMatch }) =>
      Effect.suspend(() =>
        ifMatch !== undefined && objects.get(key)?.info.etag !== ifMatch
          ? Effect.fail(new PreconditionFailed())
          : Effect.succeed(void objects.delete(key))
      )
  }, {
    load: (key, options) =>
      Effect.suspend(() =>
        Either.flatMap(
          find(key),
          ({ bytes, info }) =>
            Either.map(
              StorageBackend.checkLoad(info, options),
              (range) => copyOf(bytes, range.start, range.endExclusive)
            )
        )
      ),
    head: (key) => Effect.suspend(() => Either.map(find(key), ({ info }) => info)),
    copy,
    move: (from, to, options) => Effect.zipLeft(copy(from, to, options), Effect.sync(() => void objects.delete(from)))
  })
}
