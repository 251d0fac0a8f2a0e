/**
 * What a store has to be able to do to stand behind `Storage`: the interface that backends (where bytes live) and
 * wrappers (what is added on the way) implement. Users call `Storage`, which checks keys and opens spans; behind it
 * every key is valid.
 *
 * A backend of one's own is written with `make`: four primitives are enough (`open`, `save`, `entries`, `remove`), the
 * rest is derived from them, and whatever the store does better itself is given beside them. A wrapper writes out the
 * whole interface, so that the compiler names the method it forgot.
 *
 * @module StorageBackend
 * @since 0.1.0
 */
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Option from "effect/Option"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import * as ByteRange from "./ByteRange.js"
import { allocate, copyOf, exactly, fill, tooLargeForAnArray } from "./internal/bytes.js"
import { bytesOf, fromBytes } from "./internal/inHand.js"
import * as Lending from "./internal/lending.js"
import { coalesce, cut } from "./internal/ranges.js"
import * as E from "./StorageError.js"

/**
 * What a store knows of an object without reading it.
 *
 * @since 0.1.0
 * @category models
 */
export interface ObjectInfo {
  readonly key: string
  /** In bytes. */
  readonly size: number
  /** When it was saved, to the second. What `save` returns may tell the moment of the answer instead, somewhat later. */
  readonly lastModified: Date
  /** Changes whenever the content does; means nothing else, and compares only with etags of the same store. */
  readonly etag: string
  /** A checksum of all the bytes, where the store tells one. */
  readonly checksum?: Checksum
}

/**
 * A checksum of an object.
 *
 * @since 0.1.0
 * @category models
 */
export interface Checksum {
  readonly algorithm: "CRC32C" | "SHA256" | "CRC64NVME"
  /** In Base64. */
  readonly value: string
}

/**
 * Which bytes to load, and on which condition.
 *
 * @since 0.1.0
 * @category models
 */
export interface LoadOptions {
  /** The bytes to load. Default: all. */
  readonly range?: ByteRange.ByteRange
  /** Fail with `PreconditionFailed` unless the object has this etag. */
  readonly ifMatch?: string
  /** Fail with `ObjectNotModified` if the object has this etag. */
  readonly ifNoneMatch?: string
}

/**
 * What a stream takes: the same as a load, and how large its chunks may be.
 *
 * @since 0.1.0
 * @category models
 */
export interface StreamOptions extends LoadOptions {
  /**
   * The most bytes in a chunk, where the store is free to choose: for whoever reads many streams at once. Default: what
   * is fastest for one.
   */
  readonly chunkSize?: number
}

/**
 * Under which condition to save, and how much is to come.
 *
 * @since 0.1.0
 * @category models
 */
export interface SaveOptions {
  /** Fail with `ObjectAlreadyExists` if there is an object of this key. */
  readonly ifNoneMatch?: "*"
  /** Fail with `PreconditionFailed` unless there is an object of this key with this etag. */
  readonly ifMatch?: string
  /** The number of bytes that will come. Another number is `CorruptObject`, and nothing is saved. */
  readonly size?: number
}

/**
 * Under which condition to copy or move.
 *
 * @since 0.1.0
 * @category models
 */
export interface CopyOptions {
  /** Fail with `ObjectAlreadyExists` if there is an object of the new key. */
  readonly ifNoneMatch?: "*"
}

/**
 * What whoever has a URL may do with it, and for how long.
 *
 * @since 0.1.0
 * @category models
 */
export interface PresignOptions {
  /** To load the object, or to save it. */
  readonly method: "GET" | "PUT"
  /** From one second to seven days. */
  readonly expiresIn: Duration.DurationInput
}

/**
 * Which objects to list.
 *
 * @since 0.1.0
 * @category models
 */
export interface ListOptions {
  /** Only keys that start with this string. Default: all. */
  readonly prefix?: string
  /** Only keys after this string, which need not be a key. Default: from the first. */
  readonly startAfter?: string
}

/**
 * An object opened for reading: what it is, the bytes that will come, and the bytes. They belong to the scope in which
 * it was opened, and can be read once.
 *
 * @since 0.1.0
 * @category models
 */
export interface OpenedObject {
  readonly info: ObjectInfo
  readonly range: ByteRange.ResolvedRange
  readonly stream: Stream.Stream<Uint8Array, E.LoadError>
}

/**
 * What stands directly under a prefix when `/` separates folders: the objects, and the prefixes of what is deeper.
 *
 * @since 0.1.0
 * @category models
 */
export interface Directory {
  readonly objects: ReadonlyArray<ObjectInfo>
  /** Each ends in `/`. */
  readonly prefixes: ReadonlyArray<string>
}

/**
 * What a store can do beyond the least. An option that it cannot honour fails with `UnsupportedOperation`.
 *
 * @since 0.1.0
 * @category models
 */
export interface Capabilities {
  /** Can save, copy, move and remove. */
  readonly write: boolean
  /** Can list. */
  readonly list: boolean
  /** Honours `ifNoneMatch: "*"` on a save, atomically. */
  readonly createOnly: boolean
  /** Honours `ifMatch` on a save, atomically. */
  readonly compareAndSwap: boolean
  /** Can hold an object `foo` beside an object `foo/bar`. */
  readonly objectsWithinObjects: boolean
  /** Can give URLs by which others reach an object without credentials. */
  readonly presign: boolean
}

/**
 * A store, complete. Keys, prefixes and ranges that reach it are valid, and `capabilities` allow what is asked.
 *
 * @since 0.1.0
 * @category models
 */
export interface StorageBackend {
  /** How it shows itself in messages and spans. A wrapper names what it wraps: `Retry(S3(weights))`. */
  readonly name: string
  readonly capabilities: Capabilities
  /** Opens an object with one request. The stream fails if it ends before the range does. */
  readonly open: (key: string, options: StreamOptions) => Effect.Effect<OpenedObject, E.LoadError, Scope.Scope>
  /** The bytes in one array, which is the caller's to keep and change. */
  readonly load: (key: string, options: LoadOptions) => Effect.Effect<Uint8Array, E.LoadError>
  /** One array a range, in the order asked for, all of one version of the object. */
  readonly loadRanges: (
    key: string,
    ranges: ReadonlyArray<ByteRange.ByteRange>,
    options: Omit<LoadOptions, "range">
  ) => Effect.Effect<ReadonlyArray<Uint8Array>, E.LoadError>
  /** What is known of an object without its bytes. */
  readonly head: (key: string) => Effect.Effect<ObjectInfo, E.HeadError>
  /** All or nothing: until it succeeds nobody sees a byte of it, and when it fails nothing has changed. */
  readonly save: <Err = never, R = never>(
    key: string,
    data: Uint8Array | Stream.Stream<Uint8Array, Err, R>,
    options: SaveOptions
  ) => Effect.Effect<ObjectInfo, E.SaveError | Err, R>
  /** Objects in the order of `ObjectKey.compare`, one page a chunk. */
  readonly entries: (options: ListOptions) => Stream.Stream<ObjectInfo, E.ListError>
  /** The keys of `entries`, for a store to which they are cheaper. */
  readonly keys: (options: ListOptions) => Stream.Stream<string, E.ListError>
  /** What stands directly under a prefix; folders that hold no object do not. */
  readonly listDirectory: (prefix: string) => Effect.Effect<Directory, E.ListError>
  /** To remove what is not there is success. */
  readonly remove: (key: string) => Effect.Effect<void, E.RemoveError>
  /** Removes a batch of at most 1,000 keys and gives the failures of those that remain; fails where no key could. */
  readonly removeAll: (
    keys: ReadonlyArray<string>
  ) => Effect.Effect<ReadonlyArray<E.RemoveError>, E.RemoveError>
  /** Between two different keys, all or nothing. */
  readonly copy: (from: string, to: string, options: CopyOptions) => Effect.Effect<ObjectInfo, E.CopyError>
  /** Between two different keys. */
  readonly move: (from: string, to: string, options: CopyOptions) => Effect.Effect<ObjectInfo, E.CopyError>
  /** A URL for others. Called only where `capabilities` have it. */
  readonly presign: (key: string, options: PresignOptions) => Effect.Effect<string, E.PresignError>
}

/**
 * What `make` needs at the least.
 *
 * @since 0.1.0
 * @category models
 */
export type Primitives = Pick<StorageBackend, "name" | "capabilities" | "open" | "save" | "entries" | "remove">

/**
 * A complete backend from the primitives of a store and whatever else it does better than the derived forms:
 *
 * - `head` opens the object and reads nothing; `load` gathers the opened stream into one array.
 * - `loadRanges` joins neighbouring ranges and loads them, eight at once, all under the etag of a `head`.
 * - `keys` and `listDirectory` are made from `entries`.
 * - `removeAll` removes one by one, sixteen at once.
 * - `copy` saves what it opens; `move` copies, then removes; `presign` is refused.
 *
 * A stream that ends before the range it was opened for fails with a truncated `CorruptObject`.
 *
 * @since 0.1.0
 * @category constructors
 * @example
 * ```ts
 * import { Effect, Stream } from "effect"
 * import { StorageBackend, StorageError } from "surfing-weights"
 *
 * // A store of one object that nobody can change.
 * const greeting = new TextEncoder().encode("hello")
 * const info = { key: "greeting", size: greeting.length, lastModified: new Date(0), etag: "1" }
 * const readOnly = (operation: string) =>
 *   Effect.fail(new StorageError.UnsupportedOperation({ backend: "Greeting", operation, reason: "it is read-only" }))
 *
 * const backend = StorageBackend.make({
 *   name: "Greeting",
 *   capabilities: { ...StorageBackend.readOnly, list: true },
 *   open: (key, options) =>
 *     key === info.key
 *       ? StorageBackend.openBytes(greeting, info, options, "Greeting")
 *       : Effect.fail(new StorageError.ObjectNotFound({ backend: "Greeting", operation: "open", key })),
 *   entries: ({ prefix = "", startAfter = "" }) =>
 *     Stream.filter(Stream.make(info), ({ key }) => key.startsWith(prefix) && key > startAfter),
 *   save: () => readOnly("save"),
 *   remove: () => readOnly("remove")
 * })
 * ```
 */
export const make = (store: Primitives & Partial<StorageBackend>): StorageBackend => {
  const { name } = store

  const wrongLength = (key: string, expected: number) => (actual: number) =>
    new E.CorruptObject({
      backend: name,
      operation: "load",
      key,
      ...(actual < expected
        ? { problem: "truncated", reason: `the body ended after ${actual} of ${expected} bytes` }
        : { problem: "size", reason: `the body goes on after its ${expected} bytes` })
    })

  const open: StorageBackend["open"] = (key, options) =>
    Effect.map(store.open(key, options), ({ info, range, stream }) => {
      const expected = range.endExclusive - range.start
      return bytesOf(stream)?.byteLength === expected
        ? { info, range, stream }
        : {
          info,
          range,
          stream: Lending.map(stream, (stream) => exactly(stream, expected, wrongLength(key, expected)))
        }
    })

  const load: StorageBackend["load"] = store.load ?? ((key, options) =>
    Effect.scoped(
      // Opened anew each time it is run: bytes in hand are then an array of that run's own.
      Effect.flatMap(Effect.suspend(() => open(key, options)), ({ range, stream }) => {
        const inHand = bytesOf(stream)
        return inHand !== undefined ? Effect.succeed(inHand) : Effect.flatMap(
          arrayOf(range.endExclusive - range.start, { backend: name, operation: "load", key }),
          (target) => fill(target, stream)
        )
      })
    ))

  const head: StorageBackend["head"] = store.head ?? ((key) =>
    Effect.scoped(open(key, {})).pipe(
      Effect.map((opened) => opened.info),
      Effect.catchTags({
        PreconditionFailed: impossible("head"),
        ObjectNotModified: impossible("head"),
        InvalidRange: impossible("head"),
        CorruptObject: impossible("head"),
        UnsupportedOperation: impossible("head")
      })
    ))

  const loadRanges: StorageBackend["loadRanges"] = store.loadRanges ??
    ((key, ranges, options) =>
      Effect.gen(function*() {
        const info = yield* head(key)
        const context = { backend: name, operation: "loadRanges" }
        const resolved = yield* Effect.forEach(ranges, (range) => checkLoad(info, { ...options, range }, context))
        const reads = coalesce(resolved)
        const loaded = yield* Effect.forEach(
          reads,
          ({ endExclusive, start }) =>
            load(key, { ifMatch: info.etag, ...(info.size > 0 && { range: ByteRange.make(start, endExclusive) }) }),
          { concurrency: 8 }
        )
        return resolved.map((range) => cut(range, reads, loaded))
      }))

  const keys: StorageBackend["keys"] = store.keys ??
    ((options) => Stream.map(store.entries(options), (info) => info.key))

  const listDirectory: StorageBackend["listDirectory"] = store.listDirectory ?? ((prefix) =>
    Effect.suspend(() => {
      const objects: Array<ObjectInfo> = []
      const prefixes = new Set<string>()
      return store.entries({ prefix }).pipe(
        Stream.runForEach((info) =>
          Effect.sync(() => {
            const slash = info.key.indexOf("/", prefix.length)
            if (slash === -1) objects.push(info)
            else prefixes.add(info.key.slice(0, slash + 1))
          })
        ),
        Effect.map(() => ({ objects, prefixes: [...prefixes] }))
      )
    }))

  const removeAll: StorageBackend["removeAll"] = store.removeAll ?? ((batch) =>
    Effect.map(
      Effect.forEach(batch, (key) =>
        Effect.catchAll(Effect.as(store.remove(key), undefined), (error) =>
          concernsEveryKey(error) ? Effect.fail(error) : Effect.succeed(error)), { concurrency: 16 }),
      (outcomes) =>
        outcomes.filter((error) =>
          error !== undefined
        )
    ))

  const copy: StorageBackend["copy"] = store.copy ?? ((from, to, options) =>
    Effect.scoped(
      Effect.flatMap(open(from, {}), ({ info, stream }) => store.save(to, stream, { ...options, size: info.size }))
    ).pipe(
      Effect.catchTags({ ObjectNotModified: impossible("copy"), InvalidRange: impossible("copy") })
    ))

  const move: StorageBackend["move"] = store.move ??
    ((from, to, options) => Effect.zipLeft(copy(from, to, options), store.remove(from)))

  const presign: StorageBackend["presign"] = store.presign ?? ((key) =>
    Effect.fail(
      new E.UnsupportedOperation({ backend: name, operation: "presign", key, reason: "it gives no URLs" })
    ))

  return {
    name,
    capabilities: store.capabilities,
    open,
    load,
    loadRanges,
    head,
    save: store.save,
    entries: store.entries,
    keys,
    listDirectory,
    remove: store.remove,
    removeAll,
    copy,
    move,
    presign
  }
}

/**
 * What a store that only reads can do. Spread it and add `list: true` where it lists.
 *
 * @since 0.1.0
 * @category capabilities
 */
export const readOnly: Capabilities = {
  write: false,
  list: false,
  createOnly: false,
  compareAndSwap: false,
  objectsWithinObjects: true,
  presign: false
}

/**
 * What a store that can do everything with its objects can do. Add `presign: true` where it gives URLs.
 *
 * @since 0.1.0
 * @category capabilities
 */
export const full: Capabilities = {
  write: true,
  list: true,
  createOnly: true,
  compareAndSwap: true,
  objectsWithinObjects: true,
  presign: false
}

/**
 * Where a failure happens, as the failure will tell it.
 *
 * @since 0.1.0
 * @category models
 */
export interface FailureContext {
  readonly backend: string
  readonly operation: string
}

/**
 * Holds what a load asks for against the object that is there: the bytes to read, or why not. The order is that of
 * HTTP (RFC 9110, section 13.2.2): `ifMatch`, `ifNoneMatch`, range.
 *
 * @since 0.1.0
 * @category utils
 */
export const checkLoad = (
  info: Pick<ObjectInfo, "key" | "size" | "etag">,
  options: LoadOptions,
  { backend, operation }: FailureContext
): Either.Either<ByteRange.ResolvedRange, E.PreconditionFailed | E.ObjectNotModified | E.InvalidRange> => {
  const { key } = info
  if (options.ifMatch !== undefined && options.ifMatch !== info.etag) {
    return Either.left(new E.PreconditionFailed({ backend, operation, key }))
  }
  if (options.ifNoneMatch !== undefined && options.ifNoneMatch === info.etag) {
    return Either.left(new E.ObjectNotModified({ backend, operation, key }))
  }
  return Either.mapLeft(
    ByteRange.resolve(options.range, info.size),
    (reason) => new E.InvalidRange({ backend, operation, key, reason })
  )
}

/**
 * Holds the conditions of a save (or copy, or move) against what is there now under the key. It is for the store to
 * see to it that nothing changes between this and the save.
 *
 * @since 0.1.0
 * @category utils
 */
export const checkSave = (
  key: string,
  existing: ObjectInfo | undefined,
  options: SaveOptions,
  { backend, operation }: FailureContext
): Either.Either<void, E.ObjectAlreadyExists | E.PreconditionFailed> => {
  if (options.ifNoneMatch !== undefined && existing !== undefined) {
    return Either.left(new E.ObjectAlreadyExists({ backend, operation, key }))
  }
  if (options.ifMatch !== undefined && options.ifMatch !== existing?.etag) {
    return Either.left(new E.PreconditionFailed({ backend, operation, key }))
  }
  return Either.void
}

/**
 * What `open` gives for an object whose bytes are at hand, with conditions and range applied: chunks of 1 MiB, copied,
 * so that whoever reads them cannot change the object.
 *
 * @since 0.1.0
 * @category utils
 */
export const openBytes = (
  bytes: Uint8Array,
  info: ObjectInfo,
  options: StreamOptions,
  backend: string
): Either.Either<OpenedObject, E.PreconditionFailed | E.ObjectNotModified | E.InvalidRange> =>
  Either.map(checkLoad(info, options, { backend, operation: "load" }), (range) => {
    const size = Math.min(options.chunkSize ?? chunkSize, chunkSize)
    if (range.endExclusive - range.start <= Math.min(size, smallSize)) {
      return { info, range, stream: fromBytes(copyOf(bytes, range.start, range.endExclusive)) }
    }
    return {
      info,
      range,
      stream: Stream.unfold(range.start, (at) => {
        const end = Math.min(at + size, range.endExclusive)
        return at < end ? Option.some([copyOf(bytes, at, end), end] as const) : Option.none()
      })
    }
  })

const chunkSize = 1024 * 1024

/** What is copied at once. */
const smallSize = 64 * 1024

/** An array for `size` bytes, or the advice to read the object in pieces. */
const arrayOf = (
  size: number,
  context: FailureContext & { readonly key: string }
): Effect.Effect<Uint8Array, E.UnsupportedOperation> =>
  Effect.suspend(() => {
    const target = allocate(size)
    return target === undefined ? Effect.fail(tooLargeForAnArray(size, context)) : Effect.succeed(target)
  })

const concernsEveryKey = (error: E.RemoveError): boolean =>
  error._tag === "StorageNotFound" || error._tag === "StorageUnavailable" || error._tag === "StorageTimeout"

/** For a failure that no option given could have caused. */
const impossible = (operation: string) => (error: E.LoadError) =>
  Effect.fail(
    new E.UnexpectedStorageError({
      backend: error.backend,
      operation,
      ...(error.key !== undefined && { key: error.key }),
      reason: error.message,
      cause: error
    })
  )
