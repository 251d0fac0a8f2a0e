/**
 * Objects as files below a directory. The file of a key has the key's own name in the key's own folders, so that a folder of
 * downloaded weights is a storage as it is, and any program can read what is saved.
 *
 * A save writes a temporary file in the hidden folder `.surfing-weights`, syncs it and renames it into place: readers see the
 * old object or the new one, whole, also when the process or the machine dies meanwhile. Temporary files of killed processes are
 * removed when a storage is built on the directory (those of another machine or container once they are a day old).
 *
 * Attributes of objects are kept in the hidden folder, too, each under the object's key and etag: so a version of an object
 * always has its own attributes, and a file that another program changed, renamed or copied has none. The content type of an
 * object that was saved without one is derived from the extension of its key.
 *
 * What a file system cannot do:
 *
 * - `foo` and `foo/bar` cannot both exist; the second fails with `UnsupportedOperation`, which names both.
 * - `ifMatch` is atomic among the fibers of one process, not across processes. `ifNoneMatch: "*"` is, by a hard link.
 * - Where the file system ignores case (macOS, Windows), keys that differ only in case are one object.
 *
 * @module FileSystemStorage
 * @since 0.1.0
 */
import * as Config from "effect/Config"
import type { ConfigError } from "effect/ConfigError"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Schema from "effect/Schema"
import { withPlace } from "../internal/errors.js"
import * as options from "../internal/options.js"
import * as Storage from "../Storage.js"
import * as StorageBackend from "../StorageBackend.js"
import type * as E from "../StorageError.js"
import * as Attributes from "./fileSystem/attributes.js"
import * as Directory from "./fileSystem/directory.js"
import { lister } from "./fileSystem/lister.js"
import { reader } from "./fileSystem/reader.js"
import { remover } from "./fileSystem/remover.js"
import { saver } from "./fileSystem/saver.js"
import * as TemporaryFiles from "./fileSystem/temporaryFiles.js"

/**
 * @since 0.1.0
 * @category models
 */
export interface Options {
  /** Where the objects are. It is created if it does not exist; a relative path starts at the working directory. */
  readonly directory: string
  /**
   * When a save returns: once file and names are on the disk and outlive a loss of power (`"full"`, the default), or as soon as
   * the system has them (`"relaxed"`). Either way it is all or nothing when the process dies.
   */
  readonly durability?: "full" | "relaxed" | undefined
  /**
   * What to do with symbolic links that lead out of the directory: fail with `AccessDenied` and leave them out of listings
   * (`"refuse"`, the default), or follow them (`"follow"`), which the cache of Hugging Face needs. Links within the directory
   * are always followed.
   */
  readonly symlinks?: "refuse" | "follow" | undefined
}

/**
 * What building a storage on a directory can fail with.
 *
 * @since 0.1.0
 * @category models
 */
export type OpenError = E.CommonError | E.StorageFull | E.UnsupportedOperation | E.InvalidOptions

/**
 * A storage on a directory.
 *
 * @since 0.1.0
 * @category constructors
 */
export const make = (options: Options): Effect.Effect<Storage.Service, OpenError> => {
  const name = `FileSystem(${options.directory})`
  return Effect.gen(function*() {
    const directory = yield* Effect.flatMap(decodeOptions(options), Directory.open)
    yield* TemporaryFiles.reap(directory)
    yield* Attributes.sweep(directory)
    const { open, ...reads } = reader(directory)
    const { entries, ...listings } = lister(directory)
    const { save, ...relocations } = saver(directory)
    return Storage.make(StorageBackend.make(
      { name, capabilities, open, save, entries, ...remover(directory) },
      { ...reads, ...listings, ...relocations }
    ))
  }).pipe(Effect.mapError((error) => withPlace(error, { backend: name, operation: "make" })))
}

const capabilities: StorageBackend.Capabilities = { ...StorageBackend.full, objectsWithinObjects: false }

/**
 * Provides a storage on a directory.
 *
 * @since 0.1.0
 * @category layers
 * @example
 * ```ts
 * import { Effect } from "effect"
 * import { FileSystemStorage, Storage } from "surfing-weights"
 *
 * const program = Storage.list("bert/")
 *
 * const runnable = program.pipe(Effect.provide(FileSystemStorage.layer({ directory: "./weights" })))
 * ```
 */
export const layer = (options: Options): Layer.Layer<Storage.Storage, OpenError> =>
  Layer.effect(Storage.Storage, make(options))

/**
 * The same with options from `Config`, for instance from the environment.
 *
 * @since 0.1.0
 * @category layers
 * @example
 * ```ts
 * import { Config } from "effect"
 * import { FileSystemStorage } from "surfing-weights"
 *
 * const WeightsLive = FileSystemStorage.layerConfig({ directory: Config.string("WEIGHTS_DIRECTORY") })
 * ```
 */
export const layerConfig = (
  options: Config.Config.Wrap<Options>
): Layer.Layer<Storage.Storage, OpenError | ConfigError> =>
  Layer.effect(Storage.Storage, Effect.flatMap(Config.unwrap(options), make))

interface Decoded {
  readonly directory: string
  readonly durability: "full" | "relaxed"
  readonly symlinks: "refuse" | "follow"
}

const schema: Schema.Schema<Decoded, Options> = Schema.Struct({
  directory: options.string("the path of a directory", (path) => path !== "" && !path.includes("\0")),
  durability: Schema.optionalWith(options.oneOf("full", "relaxed"), { default: () => "full" }),
  symlinks: Schema.optionalWith(options.oneOf("refuse", "follow"), { default: () => "refuse" })
})

const decodeOptions = (given: Options): Effect.Effect<Decoded, E.InvalidOptions> =>
  options.decode("FileSystemStorage", schema, given)
