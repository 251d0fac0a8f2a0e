/**
 * Objects as files below a directory. The file of a key has the key's own name in the key's own folders, so that a folder of
 * downloaded weights is a storage as it is, and any program can read what is saved.
 *
 * A save writes a temporary file in the hidden folder `.surfing-weights`, syncs it and renames it into place: readers see the
 * old object or the new one, whole, also when the process or the machine dies meanwhile. Temporary files of killed processes are
 * removed when a storage is built on the directory (those of another machine or container, and those of a process that cannot be
 * seen, once they have been left alone for a day). On Linux, that of a large copy by `StorageMirror` that is broken off stays for a
 * day, unless the machine is started again, so that the next copy writes only the rest.
 *
 * A file that another program writes in place while it is read is noticed: a load reads it again, a stream fails before it has a
 * byte of the new version. An etag changes with each write, also where a program sets the time of the file back, and with what else
 * the system counts as a change: of its permissions, its owner, its links. Where file systems keep whole seconds only (ext3, FAT,
 * EncFS), saves can be told apart by records in the hidden folder, and have times some seconds in the past; two writes of other
 * programs cannot be, if they are of one second and of equal size and time. Nor can what a program writes through a memory map,
 * for as long as the system does not count it as written.
 *
 * An object that is overwritten keeps the permissions of its file, and its owner and group where the process may give them; where
 * the group cannot be kept, another one gets no more than everybody has. A new file obeys the umask, and has the group of its
 * folder where that is set to give it (setgid). ACLs and extended attributes are not kept. The hidden folder can be written by those
 * who can write the directory when it is created.
 *
 * Attributes of objects are kept in the hidden folder, too, each for one version of an object: so a version of an object
 * always has its own attributes, and a file that another program changed, renamed or copied has none. The content type of an
 * object that was saved without one is derived from the extension of its key.
 *
 * A listing is whole or fails: with `AccessDenied`, where a folder below its prefix may not be read. Only an unreadable
 * `lost+found`, which a new volume has, is left out.
 *
 * What a file system cannot do:
 *
 * - `foo` and `foo/bar` cannot both exist; the second fails with `UnsupportedOperation`, which names both.
 * - `ifMatch` is atomic among all that use the directory by this library: fibers, worker threads, processes and, where the file
 *   system is shared, machines; not beside other programs. What was stopped for more than 30 seconds in the middle of a save is
 *   taken for dead. `ifNoneMatch: "*"` is atomic beside other programs, too, by a hard link.
 * - Where the file system ignores case (macOS, Windows), keys that differ only in case are one object, and so are keys that a
 *   linked or mounted folder leads to one file. To move such an object from one of its keys to another changes nothing, or only
 *   the case; to remove it under one of them removes it.
 * - With `symlinks: "refuse"`, no operation leaves the directory, on Linux even if another program swaps a folder for a link at that
 *   moment, as folders are held open. Other systems look at folders before they use them, so such a program can lead them out.
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
import type * as E from "../StorageError.js"
import type * as Directory from "./fileSystem/directory.js"

/**
 * @since 0.1.0
 * @category models
 */
export interface Options {
  /** Where the objects are. A relative path starts at the working directory. */
  readonly directory: string
  /** Whether the directory is created if it does not exist; otherwise that is `StorageNotFound`. Default: true. */
  readonly create?: boolean | undefined
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
    const decoded = yield* decodeOptions(options)
    // Loaded when a storage is built, as those of S3 and browsers are: not every app keeps its objects in files.
    const { open } = yield* Effect.promise(() => import("./fileSystem/backend.js"))
    return Storage.make(yield* open(decoded, name))
  }).pipe(Effect.mapError((error) => withPlace(error, { backend: name, operation: "make" })))
}

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

const schema: Schema.Schema<Directory.Options, Options> = Schema.Struct({
  directory: options.string("the path of a directory", (path) => path !== "" && !path.includes("\0")),
  create: Schema.optionalWith(options.boolean, { default: () => true }),
  durability: Schema.optionalWith(options.oneOf("full", "relaxed"), { default: () => "full" }),
  symlinks: Schema.optionalWith(options.oneOf("refuse", "follow"), { default: () => "refuse" })
})

const decodeOptions = (given: Options): Effect.Effect<Directory.Options, E.InvalidOptions> =>
  options.decode("FileSystemStorage", schema, given)
