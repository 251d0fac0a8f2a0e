/**
 * The one service an app talks to for its weights. A `Layer` decides where the bytes are: `FileSystemStorage.layer`,
 * `MemoryStorage.layer`, or a wrapper around either.
 *
 * Every operation enters here: the key is checked before any I/O, options that the backend cannot honour are refused,
 * a span is opened where a tracer is installed, and metrics are counted. What remains goes to the `StorageBackend`.
 *
 * @module Storage
 * @since 0.1.0
 */
import * as Chunk from "effect/Chunk"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import * as ByteRange from "./ByteRange.js"
import { exactly } from "./internal/bytes.js"
import { bytesOf } from "./internal/inHand.js"
import * as Lending from "./internal/lending.js"
import { make as makeObserver, type Observer } from "./internal/observe.js"
import * as ObjectKey from "./ObjectKey.js"
import type {
  Capabilities,
  CopyOptions,
  Directory,
  ListOptions,
  LoadOptions,
  ObjectInfo,
  OpenedObject,
  PresignOptions,
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
  SaveOptions,
  /**
   * @since 0.1.0
   * @category models
   */
  StreamOptions
} from "./StorageBackend.js"

/**
 * What `removeAll` did: how many keys are gone (a key that was never there counts), and the failure of each that is
 * not, with its key.
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
export interface Service {
  /** What is behind it, for wrappers. */
  readonly backend: StorageBackend

  /**
   * The bytes of an object, or of a range of it, in one array that is the caller's own. Whole or an error: never fewer
   * bytes than the object has, never bytes of two versions of it.
   */
  readonly load: (key: string, options?: LoadOptions) => Effect.Effect<Uint8Array, E.LoadError>

  /**
   * Several ranges of one version of an object, in the order asked for. Ranges may overlap; neighbours are read together.
   */
  readonly loadRanges: (
    key: string,
    ranges: ReadonlyArray<ByteRange.ByteRange>,
    options?: Omit<LoadOptions, "range">
  ) => Effect.Effect<ReadonlyArray<Uint8Array>, E.LoadError>

  /**
   * The bytes of an object in order, in large chunks, each a fresh array. Nothing is read ahead of the consumer beyond
   * what is in flight; a consumer that stops early closes what was open.
   */
  readonly stream: (key: string, options?: StreamOptions) => Stream.Stream<Uint8Array, E.LoadError>

  /** Like `stream`, with what is known of the object beforehand, all in one request. */
  readonly open: (key: string, options?: StreamOptions) => Effect.Effect<OpenedObject, E.LoadError, Scope.Scope>

  /**
   * Saves bytes, or whatever a stream yields, under a key. All or nothing: no reader sees a part of it, and a save that
   * fails or is interrupted leaves the old object whole and nothing else behind. The stream's own failures come
   * through as they are. Bytes must not change until the save ends.
   */
  readonly save: <Err = never, R = never>(
    key: string,
    data: Uint8Array | Stream.Stream<Uint8Array, Err, R>,
    options?: SaveOptions
  ) => Effect.Effect<ObjectInfo, E.SaveError | Err, R>

  /** What is known of an object without its bytes. */
  readonly head: (key: string) => Effect.Effect<ObjectInfo, E.HeadError>

  /** Whether there is an object of this key. */
  readonly exists: (key: string) => Effect.Effect<boolean, E.ExistsError>

  /**
   * The keys that start with a plain string (default: all), in byte order. Ten million keys are ten million strings in
   * memory; `entries` streams them.
   */
  readonly list: (prefix?: string) => Effect.Effect<ReadonlyArray<string>, E.ListError>

  /** The objects whose keys start with `prefix` and come after `startAfter`, in byte order, a page at a time. */
  readonly entries: (options?: ListOptions) => Stream.Stream<ObjectInfo, E.ListError>

  /** What stands directly under a prefix (default: the root) when `/` separates folders. */
  readonly listDirectory: (prefix?: string) => Effect.Effect<Directory, E.ListError>

  /** Removes an object. To remove what is not there is success. */
  readonly remove: (key: string) => Effect.Effect<void, E.RemoveError>

  /**
   * Removes many objects, a thousand at a time. A key that cannot be removed does not keep the others from it: its
   * failure is in the summary. The effect fails only where no key could be removed at all, as when the store cannot be
   * reached, or where the stream of keys fails.
   */
  readonly removeAll: <Err = never, R = never>(
    keys: Stream.Stream<string, Err, R> | Iterable<string>
  ) => Effect.Effect<RemovedSummary, E.RemoveError | Err, R>

  /** Copies an object onto another key, within the store where it can. Onto itself it changes nothing. */
  readonly copy: (from: string, to: string, options?: CopyOptions) => Effect.Effect<ObjectInfo, E.CopyError>

  /**
   * Gives an object another key. Where the store has no rename it is a copy and then a remove: a failure between the
   * two leaves both. Onto itself it changes nothing.
   */
  readonly move: (from: string, to: string, options?: CopyOptions) => Effect.Effect<ObjectInfo, E.CopyError>

  /**
   * A URL by which whoever has it can load or save the object without credentials until it expires. It is a secret.
   * Whether there is an object of this key is not looked at.
   */
  readonly presign: (key: string, options: PresignOptions) => Effect.Effect<string, E.PresignError>
}

/**
 * The storage that an app's layer provides.
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
 * The service over a backend: what every backend and wrapper ends in.
 *
 * @since 0.1.0
 * @category constructors
 */
export const make = (backend: StorageBackend): Service => {
  const { name } = backend

  const observers = new Map<string, Observer>()

  const observe = (operation: string): Observer => {
    let observer = observers.get(operation)
    if (observer === undefined) {
      observer = makeObserver(name, operation)
      observers.set(operation, observer)
    }
    return observer
  }

  // The one way in: refused with a failure of the caller's, or run; seen from outside either way.
  const enter = <A, Err, R, Refusal>(
    operation: string,
    key: string,
    refusal: Refusal | undefined,
    run: () => Effect.Effect<A, Err, R>,
    bytesOf?: (result: A) => number
  ): Effect.Effect<A, Err | Refusal, R> =>
    observe(operation).effect<A, Err | Refusal, R>(
      key,
      refusal === undefined ? run : () => Effect.fail(refusal),
      bytesOf
    )

  const enterStream = <A, Err, R, Refusal>(
    operation: string,
    key: string,
    refusal: Refusal | undefined,
    run: () => Stream.Stream<A, Err, R>,
    bytesOf?: (item: A) => number
  ): Stream.Stream<A, Err | Refusal, R> =>
    observe(operation).stream<A, Err | Refusal, R>(
      key,
      refusal === undefined ? run : () => Stream.fail(refusal),
      bytesOf
    )

  const badKey = (operation: string, key: string): E.InvalidKey | undefined => {
    const reason = ObjectKey.problem(key)
    return reason === undefined ? undefined : new E.InvalidKey({ backend: name, operation, key, reason })
  }

  const badRange = (
    operation: string,
    key: string,
    range: ByteRange.ByteRange | undefined
  ): E.InvalidRange | undefined => {
    const reason = range === undefined ? undefined : ByteRange.problem(range)
    return reason === undefined ? undefined : new E.InvalidRange({ backend: name, operation, key, reason })
  }

  const badStream = (operation: string, key: string, { chunkSize, range }: StreamOptions) =>
    badKey(operation, key) ?? badRange(operation, key, range) ??
      (chunkSize === undefined || Number.isSafeInteger(chunkSize) && chunkSize > 0
        ? undefined
        : new E.UnsupportedOperation({
          backend: name,
          operation,
          key,
          reason: `chunkSize is a whole number of bytes from 1 up, not ${chunkSize}`
        }))

  const cannot = (
    operation: string,
    capability: keyof typeof refusals,
    key?: string
  ): E.UnsupportedOperation | undefined =>
    backend.capabilities[capability] ? undefined : new E.UnsupportedOperation({
      backend: name,
      operation,
      ...(key !== undefined && { key }),
      reason: refusals[capability]
    })

  const cannotSave = (operation: string, key: string, options: SaveOptions) =>
    badKey(operation, key) ??
      cannot(operation, "write", key) ??
      (options.ifNoneMatch === undefined ? undefined : cannot(operation, "createOnly", key)) ??
      (options.ifMatch === undefined ? undefined : cannot(operation, "compareAndSwap", key))

  const load: Service["load"] = (key, options = {}) =>
    enter(
      "load",
      key,
      badKey("load", key) ?? badRange("load", key, options.range),
      () => backend.load(key, options),
      lengthOf
    )

  const loadRanges: Service["loadRanges"] = (key, ranges, options = {}) =>
    enter(
      "loadRanges",
      key,
      badKey("loadRanges", key) ??
        ranges.map((range) => badRange("loadRanges", key, range)).find((bad) => bad !== undefined),
      () => backend.loadRanges(key, ranges, options),
      (loaded) => loaded.reduce((sum, { byteLength }) => sum + byteLength, 0)
    )

  const open: Service["open"] = (key, options = {}) =>
    enter(
      "open",
      key,
      badStream("open", key, options),
      () =>
        Effect.map(backend.open(key, options), ({ info, range, stream }) => ({
          info,
          range,
          stream: bytesOf(stream) === undefined ? Lending.map(stream, observe("open").bytes) : stream
        })),
      // What is in hand has moved already.
      ({ stream }) => bytesOf(stream)?.byteLength ?? 0
    )

  const stream: Service["stream"] = (key, options = {}) =>
    enterStream(
      "stream",
      key,
      badStream("stream", key, options),
      () => Stream.unwrapScoped(Effect.map(backend.open(key, options), (opened) => opened.stream)),
      lengthOf
    )

  const save: Service["save"] = (key, data, options = {}) => {
    const { size } = options
    const wrongSize = (actual: number) =>
      new E.CorruptObject({
        backend: name,
        operation: "save",
        key,
        problem: "size",
        reason: `the source gave ${actual} bytes, and size announced ${size}`
      })
    const isBytes = data instanceof Uint8Array
    return enter(
      "save",
      key,
      cannotSave("save", key, options) ??
        (isBytes && size !== undefined && size !== data.byteLength ? wrongSize(data.byteLength) : undefined),
      () => backend.save(key, isBytes || size === undefined ? data : exactly(data, size, wrongSize), options),
      (info) => info.size
    )
  }

  const head: Service["head"] = (key) => enter("head", key, badKey("head", key), () => backend.head(key))

  const exists: Service["exists"] = (key) =>
    enter("exists", key, badKey("exists", key), () =>
      backend.head(key).pipe(
        Effect.as(true),
        Effect.catchTag("ObjectNotFound", () => Effect.succeed(false))
      ))

  // A prefix that no key can have is no mistake: it lists nothing, as any other prefix without objects.
  const list: Service["list"] = (prefix = "") =>
    enter("list", prefix, cannot("list", "list"), () =>
      ObjectKey.isPrefix(prefix)
        ? Effect.map(Stream.runCollect(backend.keys({ prefix })), Chunk.toReadonlyArray)
        : Effect.succeed([]))

  const entries: Service["entries"] = ({ prefix = "", startAfter = "" } = {}) =>
    enterStream(
      "entries",
      prefix,
      cannot("entries", "list"),
      () => ObjectKey.isPrefix(prefix) ? backend.entries({ prefix, startAfter }) : Stream.empty
    )

  const listDirectory: Service["listDirectory"] = (prefix = "") =>
    enter("listDirectory", prefix, cannot("listDirectory", "list"), () =>
      ObjectKey.isPrefix(prefix)
        ? backend.listDirectory(prefix)
        : Effect.succeed({ objects: [], prefixes: [] }))

  const remove: Service["remove"] = (key) =>
    enter("remove", key, badKey("remove", key) ?? cannot("remove", "write", key), () => backend.remove(key))

  const removeAll: Service["removeAll"] = (keys) =>
    enter("removeAll", "", cannot("removeAll", "write"), () =>
      Effect.suspend(() => {
        let removed = 0
        const failed: Array<E.RemoveError> = []
        const source = Stream.StreamTypeId in keys ? keys : Stream.fromIterable(keys)
        return source.pipe(
          Stream.grouped(batchSize),
          Stream.runForEach((batch) => {
            const valid = Chunk.toReadonlyArray(batch).filter((key) => {
              const bad = badKey("removeAll", key)
              if (bad !== undefined) failed.push(bad)
              return bad === undefined
            })
            return Effect.map(backend.removeAll(valid), (remaining) => {
              removed += valid.length - remaining.length
              failed.push(...remaining)
            })
          }),
          Effect.map((): RemovedSummary => ({ removed, failed }))
        )
      }))

  const relocate = (operation: "copy" | "move"): Service["copy"] => (from, to, options = {}) =>
    enter(
      operation,
      from,
      badKey(operation, from) ?? cannotSave(operation, to, options),
      () =>
        from !== to ? backend[operation](from, to, options) : Effect.filterOrFail(
          backend.head(from),
          () => options.ifNoneMatch === undefined,
          () => new E.ObjectAlreadyExists({ backend: name, operation, key: to })
        )
    )

  const presign: Service["presign"] = (key, options) =>
    enter(
      "presign",
      key,
      badKey("presign", key) ?? cannot("presign", "presign", key),
      () => backend.presign(key, options)
    )

  return {
    backend,
    load,
    loadRanges,
    stream,
    open,
    save,
    head,
    exists,
    list,
    entries,
    listDirectory,
    remove,
    removeAll,
    copy: relocate("copy"),
    move: relocate("move"),
    presign
  }
}

const batchSize = 1000

const lengthOf = ({ byteLength }: Uint8Array): number => byteLength

const refusals: Record<Exclude<keyof Capabilities, "objectsWithinObjects">, string> = {
  write: "it is read-only",
  list: "it cannot list what it holds",
  createOnly: "it cannot honour ifNoneMatch: \"*\" on a save",
  compareAndSwap: "it cannot honour ifMatch on a save",
  presign: "it gives no URLs by which others could reach an object"
}

/**
 * `Service.load` of the storage in the context.
 *
 * @since 0.1.0
 * @category accessors
 */
export const load = (key: string, options?: LoadOptions): Effect.Effect<Uint8Array, E.LoadError, Storage> =>
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
): Effect.Effect<ReadonlyArray<Uint8Array>, E.LoadError, Storage> =>
  Effect.flatMap(Storage, (storage) => storage.loadRanges(key, ranges, options))

/**
 * `Service.stream` of the storage in the context.
 *
 * @since 0.1.0
 * @category accessors
 */
export const stream = (key: string, options?: StreamOptions): Stream.Stream<Uint8Array, E.LoadError, Storage> =>
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
export const remove = (key: string): Effect.Effect<void, E.RemoveError, Storage> =>
  Effect.flatMap(Storage, (storage) => storage.remove(key))

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
