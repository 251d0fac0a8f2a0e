/**
 * The service through which an app reads and writes its weights. A `Layer` decides where the bytes are:
 * `FileSystemStorage.layer`, `S3Storage.layer`, `HttpStorage.layer`, `MemoryStorage.layer`, or a wrapper around one of them.
 *
 * Every operation enters here: the key is checked before any I/O, options that the backend does not support are refused, a
 * span is opened where a tracer is installed, metrics are counted, and a failure is completed with the operation, the stack
 * of wrappers and the caller's key.
 *
 * @module Storage
 * @since 0.1.0
 */
import * as Chunk from "effect/Chunk"
import type * as Config from "effect/Config"
import type { ConfigError } from "effect/ConfigError"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import { dual } from "effect/Function"
import * as Layer from "effect/Layer"
import { type Pipeable, pipeArguments } from "effect/Pipeable"
import * as Runtime from "effect/Runtime"
import type * as Scope from "effect/Scope"
import * as Sink from "effect/Sink"
import * as Stream from "effect/Stream"
import type * as ByteRange from "./ByteRange.js"
import { exactly } from "./internal/bytes.js"
import { forEachChunk as pulled } from "./internal/pulling.js"
import { withSource } from "./internal/source.js"
import * as ObjectKey from "./ObjectKey.js"
import { normalized } from "./storage/attributes.js"
import * as Consuming from "./storage/consuming.js"
import { Entrance } from "./storage/entrance.js"
import type { OpenError } from "./storage/place.js"
import { type Progress, reporting } from "./storage/progress.js"
import { sinkOf } from "./storage/sink.js"
import * as Url from "./storage/url.js"
import type {
  CopyOptions,
  Directory,
  ListOptions,
  LoadOptions,
  ObjectInfo,
  OpenedObject,
  PresignOptions,
  RemoveOptions,
  SaveOptions,
  StorageBackend,
  StreamOptions
} from "./StorageBackend.js"
import * as E from "./StorageError.js"

export type {
  /**
   * @since 0.1.0
   * @category models
   */
  Attributes,
  /**
   * @since 0.1.0
   * @category models
   */
  CopyOptions,
  /**
   * @since 0.1.0
   * @category models
   */
  Directory,
  /**
   * @since 0.1.0
   * @category models
   */
  ListOptions,
  /**
   * @since 0.1.0
   * @category models
   */
  LoadOptions,
  /**
   * @since 0.1.0
   * @category models
   */
  ObjectInfo,
  /**
   * @since 0.1.0
   * @category models
   */
  OpenedObject,
  /**
   * @since 0.1.0
   * @category models
   */
  PresignOptions,
  /**
   * @since 0.1.0
   * @category models
   */
  RemoveOptions,
  /**
   * @since 0.1.0
   * @category models
   */
  SaveOptions,
  /**
   * @since 0.1.0
   * @category models
   */
  StreamOptions
} from "./StorageBackend.js"

export type {
  /**
   * @since 0.1.0
   * @category models
   */
  Progress
} from "./storage/progress.js"

/**
 * The outcome of `removeAll`: how many keys are removed (keys without an object count), and a failure with its key for each
 * that remains.
 *
 * @since 0.1.0
 * @category models
 */
export interface RemovedSummary {
  readonly removed: number
  readonly failed: ReadonlyArray<E.RemoveError>
}

/**
 * Storage for objects of any size under string keys.
 *
 * @since 0.1.0
 * @category models
 */
export interface Service extends Pipeable {
  /** The backend, for wrappers. */
  readonly backend: StorageBackend

  /**
   * Loads an object, or a range of it, into one array that belongs to the caller. Whole or an error: never fewer bytes than
   * announced, never bytes of two versions of the object.
   */
  readonly load: (key: string, options?: LoadOptions) => Effect.Effect<Uint8Array<ArrayBuffer>, E.LoadError>

  /**
   * Loads several ranges of one version of an object, in the order of `ranges`. They may overlap; neighbours are read
   * together.
   */
  readonly loadRanges: (
    key: string,
    ranges: ReadonlyArray<ByteRange.ByteRange>,
    options?: Omit<LoadOptions, "range">
  ) => Effect.Effect<ReadonlyArray<Uint8Array<ArrayBuffer>>, E.LoadError>

  /**
   * Streams the bytes of an object in order, each chunk a new array. Reads no further ahead than one chunk or part; a
   * consumer that stops early closes the connection or file.
   */
  readonly stream: (key: string, options?: StreamOptions) => Stream.Stream<Uint8Array<ArrayBuffer>, E.LoadError>

  /** Like `stream`, with the object's metadata first, in one request. */
  readonly open: (key: string, options?: StreamOptions) => Effect.Effect<OpenedObject, E.LoadError, Scope.Scope>

  /**
   * Saves bytes, or a stream of them, under a key. All or nothing: no reader sees part of an object, and a save that fails
   * or is interrupted leaves the old object whole and nothing else behind. The stream's own failures come through
   * unchanged. Do not change the bytes before the save ends.
   */
  readonly save: <Err = never, R = never>(
    key: string,
    data: Uint8Array | Stream.Stream<Uint8Array, Err, R>,
    options?: SaveOptions
  ) => Effect.Effect<ObjectInfo, E.SaveError | Err, R>

  /** Saves what it receives under a key, as `save` does: where the stream that is run into it fails, nothing is saved. */
  readonly sink: (key: string, options?: SaveOptions) => Sink.Sink<ObjectInfo, Uint8Array, never, E.SaveError>

  /** Object metadata, without the body. */
  readonly head: (key: string) => Effect.Effect<ObjectInfo, E.HeadError>

  /** Whether an object with this key exists. */
  readonly exists: (key: string) => Effect.Effect<boolean, E.ExistsError>

  /**
   * The keys that start with a plain string (default: all keys), in byte order. All of them are held in memory; `entries`
   * streams.
   */
  readonly list: (prefix?: string) => Effect.Effect<ReadonlyArray<string>, E.ListError>

  /** The objects whose keys start with `prefix` and come after `startAfter`, in byte order, a page at a time. */
  readonly entries: (options?: ListOptions) => Stream.Stream<ObjectInfo, E.ListError>

  /** The objects and prefixes directly under a prefix (default: the root), with `/` as the delimiter. */
  readonly listDirectory: (prefix?: string) => Effect.Effect<Directory, E.ListError>

  /** Removes an object. Succeeds where there is none, unless `ifMatch` is given. */
  readonly remove: (key: string, options?: RemoveOptions) => Effect.Effect<void, E.RemoveError>

  /**
   * Removes many objects, a thousand at a time. A key that cannot be removed does not stop the others: its failure is in the
   * summary. The effect fails where a whole batch cannot be removed, for instance because the store cannot be reached, or
   * where the stream of keys fails; earlier batches are removed then.
   */
  readonly removeAll: <Err = never, R = never>(
    keys: Stream.Stream<string, Err, R> | Iterable<string>
  ) => Effect.Effect<RemovedSummary, E.RemoveError | Err, R>

  /** Copies an object, within the store where it can. To its own key, it changes nothing, and refuses `attributes`. */
  readonly copy: (from: string, to: string, options?: CopyOptions) => Effect.Effect<ObjectInfo, E.CopyError>

  /**
   * Renames an object. Where the store has no rename, this is a copy and then a removal: a failure between the two leaves
   * both objects. To its own key, it changes nothing, and refuses `attributes`.
   */
  readonly move: (from: string, to: string, options?: CopyOptions) => Effect.Effect<ObjectInfo, E.CopyError>

  /**
   * A URL with which anyone can load or save the object without credentials until it expires. It is a secret. Whether the
   * object exists is not checked.
   */
  readonly presign: (key: string, options: PresignOptions) => Effect.Effect<string, E.PresignError>
}

/**
 * The storage of an app.
 *
 * @since 0.1.0
 * @category tags
 * @example
 * ```ts
 * import { Effect } from "effect"
 * import { MemoryStorage, Storage } from "surfing-weights"
 *
 * const program = Effect.gen(function*() {
 *   const storage = yield* Storage.Storage
 *   yield* storage.save("layer_0.bin", new Uint8Array([1, 2, 3]))
 *   return yield* storage.load("layer_0.bin")
 * })
 *
 * const bytes = Effect.runPromise(program.pipe(Effect.provide(MemoryStorage.layer())))
 * ```
 */
export class Storage extends Context.Tag("surfing-weights/Storage")<Storage, Service>() {}

/**
 * The service over a backend.
 *
 * @since 0.1.0
 * @category constructors
 */
export const make = (backend: StorageBackend): Service => {
  const entrance = new Entrance(backend)
  const saving = writes(entrance)
  return {
    backend,
    ...reads(entrance),
    ...saving,
    sink: sinkOf(saving.save),
    ...listings(entrance),
    ...removals(entrance),
    copy: relocation(entrance, "copy"),
    move: relocation(entrance, "move"),
    pipe() {
      // eslint-disable-next-line prefer-rest-params
      return pipeArguments(this, arguments)
    }
  }
}

/**
 * The failures of building a storage from a URL.
 *
 * @since 0.1.0
 * @category models
 */
export type UrlError = OpenError

/**
 * The storage at a URL, whose connections go with the scope:
 *
 * - `file:///directory`, or the path of a directory: `FileSystemStorage`
 * - `s3://bucket/prefix?region=&endpoint=`: `S3Storage`, with the credentials that the AWS tools find
 * - `https://host/path`: `HttpStorage`, with the `HttpClient` of the context if there is one, else `fetch`
 * - `hf://org/name@revision`: `HuggingFaceStorage`, with `HF_TOKEN` from the environment, from the hub at `HF_ENDPOINT`
 * - `memory:`: `MemoryStorage`
 *
 * Options are query parameters, named as those of the module: `s3://weights?partSize=16MiB&idleTimeout=10 seconds`. Secrets
 * are refused. The module is loaded when its scheme is asked for.
 *
 * @since 0.1.0
 * @category constructors
 */
export const fromUrl: (url: string) => Effect.Effect<Service, UrlError, Scope.Scope> = Url.fromUrl

/**
 * Provides the storage at a URL, see `fromUrl`.
 *
 * @since 0.1.0
 * @category layers
 * @example
 * ```ts
 * import { Effect } from "effect"
 * import { Storage } from "surfing-weights"
 *
 * const runnable = Storage.list("bert/").pipe(Effect.provide(Storage.layerUrl("./weights")))
 * ```
 */
export const layerUrl = (url: string): Layer.Layer<Storage, UrlError> => Layer.scoped(Storage, fromUrl(url))

/**
 * The same with the URL from `Config`, for instance from the environment.
 *
 * @since 0.1.0
 * @category layers
 * @example
 * ```ts
 * import { Config } from "effect"
 * import { Storage } from "surfing-weights"
 *
 * const WeightsLive = Storage.layerUrlConfig(Config.string("STORAGE_URL"))
 * ```
 */
export const layerUrlConfig = (url: Config.Config<string>): Layer.Layer<Storage, UrlError | ConfigError> =>
  Layer.scoped(Storage, Effect.flatMap(url, fromUrl))

/**
 * The same storage, which reports the bytes of objects that are loaded or saved through it, chunk by chunk; the bytes of an
 * array at once. The reports of a save count what the storage has taken from its source: the object exists when the save
 * succeeds. Listings, copies and moves within the storage are not reported.
 *
 * The transfer waits for each report, so a report should only note the numbers.
 *
 * @since 0.1.0
 * @category combinators
 * @example
 * ```ts
 * import { Console, Effect } from "effect"
 * import { Storage } from "surfing-weights"
 *
 * const upload = (storage: Storage.Service, weights: Uint8Array) =>
 *   storage.pipe(
 *     Storage.withProgress(({ key, total, transferred }) => Console.log(`${key}: ${transferred} of ${total} bytes`))
 *   ).save("bert/model.safetensors", weights)
 *
 * const quiet = Effect.flatMap(Storage.Storage, (storage) => upload(storage, new Uint8Array(16)))
 * ```
 */
export const withProgress: {
  (report: (progress: Progress) => Effect.Effect<void>): (storage: Service) => Service
  (storage: Service, report: (progress: Progress) => Effect.Effect<void>): Service
} = dual(
  2,
  ({ backend }: Service, report: (progress: Progress) => Effect.Effect<void>): Service =>
    make(reporting(backend, report))
)

const reads = (
  entrance: Entrance
): Pick<Service, "load" | "loadRanges" | "stream" | "open" | "head" | "exists" | "presign"> => {
  const { backend } = entrance
  return {
    load: (key, options = {}) =>
      entrance.effect(
        { operation: "load", keys: [key] },
        entrance.badKey(key) ?? entrance.badRange(options.range),
        () => backend.load(key, options),
        lengthOf
      ),
    loadRanges: (key, ranges, options = {}) =>
      entrance.effect(
        { operation: "loadRanges", keys: [key] },
        entrance.badKey(key) ?? ranges.map((range) => entrance.badRange(range)).find((bad) => bad !== undefined),
        () => backend.loadRanges(key, ranges, options),
        (loaded) => loaded.reduce((sum, { byteLength }) => sum + byteLength, 0)
      ),
    stream: (key, options = {}) =>
      entrance.stream(
        { operation: "stream", keys: [key] },
        entrance.badStream(key, options),
        () => backend.open(key, options)
      ),
    open: (key, options = {}) => {
      const call = { operation: "open", keys: [key] }
      return entrance.effect(
        call,
        entrance.badStream(key, options),
        () => Effect.map(backend.open(key, options), (opened) => entrance.opened(call, opened)),
        ({ bytes }) => bytes?.byteLength ?? 0
      )
    },
    head: (key) => entrance.effect({ operation: "head", keys: [key] }, entrance.badKey(key), () => backend.head(key)),
    exists: (key) =>
      entrance.effect({ operation: "exists", keys: [key] }, entrance.badKey(key), () =>
        backend.head(key).pipe(
          Effect.as(true),
          Effect.catchTag("ObjectNotFound", () => Effect.succeed(false))
        )),
    presign: (key, options) =>
      entrance.effect(
        { operation: "presign", keys: [key] },
        entrance.badKey(key) ?? entrance.unsupported("presign"),
        () => backend.presign(key, options)
      )
  }
}

const writes = (entrance: Entrance): Pick<Service, "save"> => ({
  save: <Err, R>(key: string, data: Uint8Array | Stream.Stream<Uint8Array, Err, R>, options: SaveOptions = {}) => {
    const call = { operation: "save", keys: [key] }
    const { attributes, size } = options
    const wrongSize = (actual: number) =>
      entrance.completed(
        call,
        new E.CorruptObject({
          problem: "size",
          reason: `the source yielded ${actual} bytes instead of the ${size} announced as size`
        })
      )
    const refusal = entrance.badSave(key, options)
    if (refusal !== undefined) {
      return entrance.observe(call, () => Effect.fail(entrance.completed(call, refusal)))
    }
    const whole = attributes === undefined ? options : { ...options, attributes: normalized(attributes) }
    if (!(data instanceof Uint8Array)) {
      const source = size === undefined ? data : exactly<Uint8Array, Err, R, E.CorruptObject>(data, size, wrongSize)
      return entrance.observe(
        call,
        () => withSource(source, (data) => entrance.complete(call, entrance.backend.save(key, data, whole))),
        sizeOf
      )
    }
    return entrance.observe(
      call,
      () =>
        size !== undefined && size !== data.byteLength
          ? Effect.fail(wrongSize(data.byteLength))
          : entrance.complete(call, entrance.backend.save(key, data, whole)),
      sizeOf
    )
  }
})

const listings = (entrance: Entrance): Pick<Service, "list" | "entries" | "listDirectory"> => {
  const { backend } = entrance
  const refusal = entrance.unsupported("list")
  // A prefix that no key can have is not a mistake: it lists nothing.
  return {
    list: (prefix = "") =>
      entrance.effect({ operation: "list", keys: [], prefix }, refusal, () =>
        ObjectKey.isPrefix(prefix)
          ? Effect.map(Stream.runCollect(backend.keys({ prefix })), Chunk.toReadonlyArray)
          : Effect.succeed([])),
    entries: ({ prefix = "", startAfter = "" } = {}) =>
      entrance.listing(
        { operation: "entries", keys: [], prefix },
        refusal,
        () => ObjectKey.isPrefix(prefix) ? backend.entries({ prefix, startAfter }) : Stream.empty
      ),
    listDirectory: (prefix = "") =>
      entrance.effect({ operation: "listDirectory", keys: [], prefix }, refusal, () =>
        ObjectKey.isPrefix(prefix)
          ? backend.listDirectory(prefix)
          : Effect.succeed({ objects: [], prefixes: [] }))
  }
}

const removals = (entrance: Entrance): Pick<Service, "remove" | "removeAll"> => {
  const { backend } = entrance
  const call = { operation: "removeAll", keys: [] }
  const refusal = entrance.unsupported("write")

  const removeBatch = (batch: ReadonlyArray<string>) => {
    const invalid = batch.flatMap((key) => entrance.badKey(key) ?? [])
    const bad = new Set(invalid.map(({ key }) => key))
    const valid = batch.filter((key) => !bad.has(key))
    const removing = valid.length === 0 ? Effect.succeed([]) : entrance.complete(call, backend.removeAll(valid))
    return Effect.map(removing, (remaining) => ({
      removed: valid.length - remaining.length,
      failed: [...invalid, ...remaining].map((error) => entrance.completed(call, error))
    }))
  }

  return {
    remove: (key, options = {}) =>
      entrance.effect(
        { operation: "remove", keys: [key] },
        entrance.badKey(key) ?? refusal ??
          (options.ifMatch === undefined ? undefined : entrance.unsupported("conditionalRemove")),
        () => backend.remove(key, options)
      ),
    removeAll: <Err, R>(keys: Stream.Stream<string, Err, R> | Iterable<string>) =>
      entrance.observe(
        call,
        () =>
          refusal !== undefined ? Effect.fail(entrance.completed(call, refusal)) : Effect.suspend(() => {
            let removed = 0
            const failed: Array<E.RemoveError> = []
            const source: Stream.Stream<string, Err, R> = Stream.StreamTypeId in keys ? keys : Stream.fromIterable(keys)
            return source.pipe(
              Stream.grouped(batchSize),
              Stream.runForEach((batch) =>
                Effect.map(removeBatch(Chunk.toReadonlyArray(batch)), (done) => {
                  removed += done.removed
                  failed.push(...done.failed)
                })
              ),
              Effect.map((): RemovedSummary => ({ removed, failed }))
            )
          })
      )
  }
}

const relocation = (entrance: Entrance, operation: "copy" | "move"): Service["copy"] => (from, to, options = {}) => {
  const { attributes, ifNoneMatch } = options
  return entrance.effect(
    { operation, keys: [from, to] },
    entrance.badRelocation(from, to, options),
    () =>
      from !== to
        ? entrance.backend[operation](from, to, { ifNoneMatch, attributes: attributes && normalized(attributes) })
        : Effect.filterOrFail(
          entrance.backend.head(from),
          () => ifNoneMatch === undefined,
          () => new E.ObjectAlreadyExists()
        )
  )
}

const batchSize = 1000

const lengthOf = ({ byteLength }: Uint8Array): number => byteLength

const sizeOf = ({ size }: ObjectInfo): number => size

/**
 * `Service.load` of the storage in the context.
 *
 * @since 0.1.0
 * @category accessors
 */
export const load = (
  key: string,
  options?: LoadOptions
): Effect.Effect<Uint8Array<ArrayBuffer>, E.LoadError, Storage> =>
  Effect.flatMap(Storage, (storage) => storage.load(key, options))

/**
 * `Service.loadRanges` of the storage in the context.
 *
 * @since 0.1.0
 * @category accessors
 */
export const loadRanges = (
  key: string,
  ranges: ReadonlyArray<ByteRange.ByteRange>,
  options?: Omit<LoadOptions, "range">
): Effect.Effect<ReadonlyArray<Uint8Array<ArrayBuffer>>, E.LoadError, Storage> =>
  Effect.flatMap(Storage, (storage) => storage.loadRanges(key, ranges, options))

/**
 * `Service.stream` of the storage in the context.
 *
 * @since 0.1.0
 * @category accessors
 */
export const stream = (
  key: string,
  options?: StreamOptions
): Stream.Stream<Uint8Array<ArrayBuffer>, E.LoadError, Storage> =>
  Stream.unwrap(Effect.map(Storage, (storage) => storage.stream(key, options)))

/**
 * `Service.open` of the storage in the context.
 *
 * @since 0.1.0
 * @category accessors
 */
export const open = (
  key: string,
  options?: StreamOptions
): Effect.Effect<OpenedObject, E.LoadError, Storage | Scope.Scope> =>
  Effect.flatMap(Storage, (storage) => storage.open(key, options))

/**
 * `Service.save` of the storage in the context.
 *
 * @since 0.1.0
 * @category accessors
 */
export const save = <Err = never, R = never>(
  key: string,
  data: Uint8Array | Stream.Stream<Uint8Array, Err, R>,
  options?: SaveOptions
): Effect.Effect<ObjectInfo, E.SaveError | Err, R | Storage> =>
  Effect.flatMap(Storage, (storage) => storage.save(key, data, options))

/**
 * `Service.sink` of the storage in the context.
 *
 * @since 0.1.0
 * @category accessors
 * @example
 * ```ts
 * import { Stream } from "effect"
 * import { Storage } from "surfing-weights"
 *
 * const saved = Stream.make(new Uint8Array([1, 2, 3])).pipe(Stream.run(Storage.sink("layer_0.bin")))
 * ```
 */
export const sink = (
  key: string,
  options?: SaveOptions
): Sink.Sink<ObjectInfo, Uint8Array, never, E.SaveError, Storage> =>
  Sink.unwrap(Effect.map(Storage, (storage) => storage.sink(key, options)))

/**
 * `Service.head` of the storage in the context.
 *
 * @since 0.1.0
 * @category accessors
 */
export const head = (key: string): Effect.Effect<ObjectInfo, E.HeadError, Storage> =>
  Effect.flatMap(Storage, (storage) => storage.head(key))

/**
 * `Service.exists` of the storage in the context.
 *
 * @since 0.1.0
 * @category accessors
 */
export const exists = (key: string): Effect.Effect<boolean, E.ExistsError, Storage> =>
  Effect.flatMap(Storage, (storage) => storage.exists(key))

/**
 * `Service.list` of the storage in the context.
 *
 * @since 0.1.0
 * @category accessors
 */
export const list = (prefix?: string): Effect.Effect<ReadonlyArray<string>, E.ListError, Storage> =>
  Effect.flatMap(Storage, (storage) => storage.list(prefix))

/**
 * `Service.entries` of the storage in the context.
 *
 * @since 0.1.0
 * @category accessors
 */
export const entries = (options?: ListOptions): Stream.Stream<ObjectInfo, E.ListError, Storage> =>
  Stream.unwrap(Effect.map(Storage, (storage) => storage.entries(options)))

/**
 * `Service.listDirectory` of the storage in the context.
 *
 * @since 0.1.0
 * @category accessors
 */
export const listDirectory = (prefix?: string): Effect.Effect<Directory, E.ListError, Storage> =>
  Effect.flatMap(Storage, (storage) => storage.listDirectory(prefix))

/**
 * `Service.remove` of the storage in the context.
 *
 * @since 0.1.0
 * @category accessors
 */
export const remove = (
  key: string,
  options?: RemoveOptions
): Effect.Effect<void, E.RemoveError, Storage> => Effect.flatMap(Storage, (storage) => storage.remove(key, options))

/**
 * `Service.removeAll` of the storage in the context.
 *
 * @since 0.1.0
 * @category accessors
 */
export const removeAll = <Err = never, R = never>(
  keys: Stream.Stream<string, Err, R> | Iterable<string>
): Effect.Effect<RemovedSummary, E.RemoveError | Err, R | Storage> =>
  Effect.flatMap(Storage, (storage) => storage.removeAll(keys))

/**
 * `Service.copy` of the storage in the context.
 *
 * @since 0.1.0
 * @category accessors
 */
export const copy = (
  from: string,
  to: string,
  options?: CopyOptions
): Effect.Effect<ObjectInfo, E.CopyError, Storage> =>
  Effect.flatMap(Storage, (storage) => storage.copy(from, to, options))

/**
 * `Service.move` of the storage in the context.
 *
 * @since 0.1.0
 * @category accessors
 */
export const move = (
  from: string,
  to: string,
  options?: CopyOptions
): Effect.Effect<ObjectInfo, E.CopyError, Storage> =>
  Effect.flatMap(Storage, (storage) => storage.move(from, to, options))

/**
 * `Service.presign` of the storage in the context.
 *
 * @since 0.1.0
 * @category accessors
 */
export const presign = (
  key: string,
  options: PresignOptions
): Effect.Effect<string, E.PresignError, Storage> => Effect.flatMap(Storage, (storage) => storage.presign(key, options))

/**
 * Runs an effect for each chunk of a stream of bytes, one after the other, as `Stream.runForEach` does. It takes half of the
 * processor time, since nothing refers to a chunk for longer than the effect does.
 *
 * @since 0.1.0
 * @category streams
 * @example
 * ```ts
 * import { Effect } from "effect"
 * import { createHash } from "node:crypto"
 * import { Storage } from "surfing-weights"
 *
 * const hashOf = (key: string) =>
 *   Effect.suspend(() => {
 *     const hash = createHash("sha256")
 *     return Storage.stream(key).pipe(
 *       Storage.forEachChunk((chunk) => Effect.sync(() => hash.update(chunk))),
 *       Effect.map(() => hash.digest("hex"))
 *     )
 *   })
 * ```
 */
export const forEachChunk: {
  <A, E2, R2>(
    use: (chunk: A) => Effect.Effect<unknown, E2, R2>
  ): <Err, R>(stream: Stream.Stream<A, Err, R>) => Effect.Effect<void, Err | E2, R | R2>
  <A, Err, R, E2, R2>(
    stream: Stream.Stream<A, Err, R>,
    use: (chunk: A) => Effect.Effect<unknown, E2, R2>
  ): Effect.Effect<void, Err | E2, R | R2>
} = dual(2, pulled)

/**
 * A stream of bytes for `for await`, as `Stream.toAsyncIterable` makes one, at half of the processor time. Nothing is opened
 * before the first chunk is wanted, and what is open is closed when the loop ends, also by `break`. It throws the failure of the
 * stream itself.
 *
 * @since 0.1.0
 * @category streams
 * @example
 * ```ts
 * import { Effect } from "effect"
 * import { Storage } from "surfing-weights"
 *
 * const sizeOf = async (storage: Storage.Service, key: string) => {
 *   let size = 0
 *   for await (const chunk of Storage.toAsyncIterable(storage.stream(key))) size += chunk.byteLength
 *   return size
 * }
 * ```
 */
export const toAsyncIterable = <A, Err>(stream: Stream.Stream<A, Err>): AsyncIterable<A, undefined> =>
  Consuming.toAsyncIterable(stream, Runtime.defaultRuntime)

/**
 * Like `toAsyncIterable`, in a runtime that has what the stream needs.
 *
 * @since 0.1.0
 * @category streams
 */
export const toAsyncIterableRuntime: {
  <R>(runtime: Runtime.Runtime<R>): <A, Err>(stream: Stream.Stream<A, Err, R>) => AsyncIterable<A, undefined>
  <A, Err, R>(stream: Stream.Stream<A, Err, R>, runtime: Runtime.Runtime<R>): AsyncIterable<A, undefined>
} = dual(2, Consuming.toAsyncIterable)

/**
 * A stream of bytes as a web stream, as `Stream.toReadableStream` makes one, at half of the processor time. Nothing is opened
 * before the first read, and nothing is read ahead; cancelling it closes what is open. It fails with the failure of the stream
 * itself.
 *
 * @since 0.1.0
 * @category streams
 * @example
 * ```ts
 * import { Storage } from "surfing-weights"
 *
 * const responseOf = (storage: Storage.Service, key: string) =>
 *   new Response(Storage.toReadableStream(storage.stream(key)))
 * ```
 */
export const toReadableStream = <A, Err>(stream: Stream.Stream<A, Err>): ReadableStream<A> =>
  Consuming.toReadableStream(stream, Runtime.defaultRuntime)

/**
 * Like `toReadableStream`, in a runtime that has what the stream needs.
 *
 * @since 0.1.0
 * @category streams
 */
export const toReadableStreamRuntime: {
  <R>(runtime: Runtime.Runtime<R>): <A, Err>(stream: Stream.Stream<A, Err, R>) => ReadableStream<A>
  <A, Err, R>(stream: Stream.Stream<A, Err, R>, runtime: Runtime.Runtime<R>): ReadableStream<A>
} = dual(2, Consuming.toReadableStream)
