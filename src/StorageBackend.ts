/**
 * The interface behind `Storage`, implemented by backends (where the bytes are) and wrappers (which add to another storage).
 * Users call `Storage`, which checks keys and options, opens spans and completes failures; keys, prefixes and ranges that
 * reach a backend are valid.
 *
 * Write a backend with `make`: four primitives are enough (`open`, `save`, `entries`, `remove`), the other operations are
 * derived from them, and those that the store does better are given as the second argument. Write a wrapper with
 * `intercept` where every operation is treated alike, or write the interface out, so that the compiler names a method that
 * was forgotten.
 *
 * A backend fails with what happened: `new StorageError.ObjectNotFound()`. `Storage.make` fills in the operation, the
 * stack of wrappers and the caller's key.
 *
 * @module StorageBackend
 * @since 0.1.0
 */
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Option from "effect/Option"
import type { Refinement } from "effect/Predicate"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import * as ByteRange from "./ByteRange.js"
import { copyOf, exactly, intoArray } from "./internal/bytes.js"
import {
  asHead,
  isCopyError,
  isHeadError,
  isListError,
  isLoadError,
  isPresignError,
  isRemoveError,
  isSaveError,
  unexpected,
  withPlace
} from "./internal/errors.js"
import { coalesce, cut } from "./internal/ranges.js"
import { withSource } from "./internal/source.js"
import * as E from "./StorageError.js"

/**
 * Object metadata, without the body.
 *
 * @since 0.1.0
 * @category models
 */
export interface ObjectInfo {
  readonly key: string
  /** In bytes. */
  readonly size: number
  /** When the object was saved, to the second. From `save` it may be the time of the response, somewhat later. */
  readonly lastModified: Date
  /** Changes whenever the content does. Opaque, and comparable only with etags of the same store. */
  readonly etag: string
  /** A checksum of the whole object, where the store keeps one. */
  readonly checksum?: Checksum | undefined
  /** From `save`, `head` and `open`, where the store keeps them; `entries` may leave them out. */
  readonly attributes?: Attributes | undefined
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
 * Metadata that is kept with an object, as in HTTP (RFC 9110, section 8). All but `metadata` are printable ASCII, at
 * most 2 KiB together.
 *
 * @since 0.1.0
 * @category models
 */
export interface Attributes {
  /** For instance `application/json`. */
  readonly contentType?: string | undefined
  /** For instance `public, max-age=31536000, immutable`. */
  readonly cacheControl?: string | undefined
  /** For instance `attachment; filename="model.safetensors"`. */
  readonly contentDisposition?: string | undefined
  /** For instance `gzip`. The storage neither encodes nor decodes. */
  readonly contentEncoding?: string | undefined
  readonly contentLanguage?: string | undefined
  /**
   * Values under names of your own. Names consist of letters, digits, `-`, `_` and `.`, and are kept in lower case; values
   * may contain any characters but control characters. At most 2 KiB in all as HTTP headers carry them, where a value that
   * is not plain ASCII takes a third more.
   */
  readonly metadata?: Readonly<Record<string, string>> | undefined
}

/**
 * The bytes to load, and preconditions.
 *
 * @since 0.1.0
 * @category models
 */
export interface LoadOptions {
  /** The bytes to load. Default: all. */
  readonly range?: ByteRange.ByteRange | undefined
  /** Fail with `PreconditionFailed` unless the object has this etag. */
  readonly ifMatch?: string | undefined
  /** Fail with `ObjectNotModified` if the object has this etag. */
  readonly ifNoneMatch?: string | undefined
  /**
   * Whether to read from the store itself: caches neither serve nor keep the object, and invalidate what they have of it. For
   * readers that found damaged bytes, or that verify them. Default: false.
   */
  readonly bypassCache?: boolean | undefined
}

/**
 * The options of a stream: those of a load, and the size of its chunks.
 *
 * @since 0.1.0
 * @category models
 */
export interface StreamOptions extends LoadOptions {
  /**
   * The largest chunk in bytes, where the store is free to choose: set it where many streams are read at once. Default: what
   * is fastest for one stream.
   */
  readonly chunkSize?: number | undefined
}

/**
 * Preconditions of a save, the expected size, and the attributes.
 *
 * @since 0.1.0
 * @category models
 */
export interface SaveOptions {
  /** Fail with `ObjectAlreadyExists` if an object with this key exists. */
  readonly ifNoneMatch?: "*" | undefined
  /** Fail with `PreconditionFailed` unless an object with this key and this etag exists. */
  readonly ifMatch?: string | undefined
  /** The size of the object in bytes. A source of another size fails with `CorruptObject`, and nothing is saved. */
  readonly size?: number | undefined
  /** The attributes of the object. Default: none, or the defaults of the layer. */
  readonly attributes?: Attributes | undefined
}

/**
 * Preconditions of a copy or move, and the attributes of the new object.
 *
 * @since 0.1.0
 * @category models
 */
export interface CopyOptions {
  /** Fail with `ObjectAlreadyExists` if an object with the new key exists. */
  readonly ifNoneMatch?: "*" | undefined
  /** Replaces the attributes. Default: those of the source. */
  readonly attributes?: Attributes | undefined
}

/**
 * Preconditions of a removal.
 *
 * @since 0.1.0
 * @category models
 */
export interface RemoveOptions {
  /** Fail with `PreconditionFailed` unless an object with this key and this etag exists. */
  readonly ifMatch?: string | undefined
}

/**
 * What a presigned URL allows, and for how long.
 *
 * @since 0.1.0
 * @category models
 */
export interface PresignOptions {
  /** Load the object, or save it. */
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
  readonly prefix?: string | undefined
  /** Only keys after this string, which need not be a key. Default: from the first. */
  readonly startAfter?: string | undefined
}

/**
 * An object opened for reading. It belongs to the scope in which it was opened, and its bytes can be read once: from
 * `bytes`, from `stream`, or from `reuse`.
 *
 * @since 0.1.0
 * @category models
 */
export interface OpenedObject {
  readonly info: ObjectInfo
  /** The requested range, within the object. */
  readonly range: ByteRange.ResolvedRange
  /** The bytes of the range; each chunk is a new array. Fails unless all of them arrive. */
  readonly stream: Stream.Stream<Uint8Array<ArrayBuffer>, E.LoadError>
  /** The bytes of the range, where they are in memory already. They must not be changed. */
  readonly bytes?: Uint8Array<ArrayBuffer> | undefined
  /**
   * The same stream into one array that is written again for each chunk, where the store can do that. `isFree` is called
   * before each read: whether the previous chunk may be overwritten.
   */
  readonly reuse?: ((isFree: () => boolean) => Stream.Stream<Uint8Array<ArrayBuffer>, E.LoadError>) | undefined
  /** How many bytes of the range have been read so far. */
  readonly position: () => number
}

/**
 * The objects directly under a prefix where `/` separates folders, and the prefixes of deeper ones.
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
 * What a store supports. An option that it does not support fails with `UnsupportedOperation`.
 *
 * @since 0.1.0
 * @category models
 */
export interface Capabilities {
  /** Save, copy, move and remove. */
  readonly write: boolean
  /** List keys. */
  readonly list: boolean
  /** `ifNoneMatch: "*"` on a save, atomically. */
  readonly createOnly: boolean
  /** `ifMatch` on a save, atomically. */
  readonly compareAndSwap: boolean
  /** `ifMatch` on a removal. */
  readonly conditionalRemove: boolean
  /** An object `foo` beside an object `foo/bar`. */
  readonly objectsWithinObjects: boolean
  /** Attributes kept with an object. */
  readonly attributes: boolean
  /** Presigned URLs. */
  readonly presign: boolean
}

/**
 * What a backend saves: an array, or a stream to be read once. A stream never fails: where the caller's source does, the
 * save is interrupted, and `Storage` passes the source's failure to the caller.
 *
 * @since 0.1.0
 * @category models
 */
export type SaveData = Uint8Array | Stream.Stream<Uint8Array>

/**
 * What a backend saves where a save that was broken off can be resumed. Its streams never fail, like those of `SaveData`.
 *
 * @since 0.1.0
 * @category models
 */
export interface ResumableData {
  /** In bytes. */
  readonly size: number
  /** Differs for each version of each source: made of its location, key, size, etag and time. */
  readonly version: string
  /** The bytes of a range, to compare them with what the store has. */
  readonly read: (range: ByteRange.ResolvedRange) => Stream.Stream<Uint8Array>
  /** The bytes to be saved, from a position to the end. */
  readonly rest: (position: number) => Stream.Stream<Uint8Array>
}

/**
 * A complete backend.
 *
 * @since 0.1.0
 * @category models
 */
export interface StorageBackend {
  /** Shown in messages, spans and metrics. A wrapper names what it wraps: `Retry(S3(weights))`. */
  readonly name: string
  /**
   * Where the objects are, where the name does not say all of it: the address of a bucket, or something random for objects in
   * memory. It tells a cache that outlives the process whose objects it holds. A wrapper passes on that of what it wraps,
   * unless it has other objects under the same keys. Default: the name.
   */
  readonly location?: string | undefined
  readonly capabilities: Capabilities
  /** Opens an object with one request. */
  readonly open: (key: string, options: StreamOptions) => Effect.Effect<OpenedObject, E.LoadError, Scope.Scope>
  /** The bytes in one array, which belongs to the caller. */
  readonly load: (key: string, options: LoadOptions) => Effect.Effect<Uint8Array<ArrayBuffer>, E.LoadError>
  /** One array a range, in the order of `ranges`, all of one version of the object. */
  readonly loadRanges: (
    key: string,
    ranges: ReadonlyArray<ByteRange.ByteRange>,
    options: Omit<LoadOptions, "range">
  ) => Effect.Effect<ReadonlyArray<Uint8Array<ArrayBuffer>>, E.LoadError>
  /** Object metadata, without the body. */
  readonly head: (key: string) => Effect.Effect<ObjectInfo, E.HeadError>
  /** All or nothing: no reader sees part of an object, and a save that fails has changed nothing. */
  readonly save: (key: string, data: SaveData, options: SaveOptions) => Effect.Effect<ObjectInfo, E.SaveError>
  /**
   * Saves like `save`, where the store can resume: what an earlier call with the same key and version has left when it was
   * interrupted, or its process was killed, is not saved again. Bytes of two versions are never joined. A wrapper that does not
   * pass it on loses nothing but that.
   */
  readonly saveResumable?:
    | ((
      key: string,
      data: ResumableData,
      options: Pick<SaveOptions, "attributes">
    ) => Effect.Effect<ObjectInfo, E.SaveError>)
    | undefined
  /**
   * The bytes, or those of a range, as a `Blob` that reads them from the disk when it is read itself, where the store can do that.
   * It belongs to one version of the object: once that is replaced or removed, to read it fails. Only a wrapper that neither
   * changes bytes nor has to see them passes it on; another one has none, and its objects are streamed.
   */
  readonly blob?: ((key: string, options: LoadOptions) => Effect.Effect<Blob, E.LoadError>) | undefined
  /** Objects in the order of `ObjectKey.compare`, one page a chunk. */
  readonly entries: (options: ListOptions) => Stream.Stream<ObjectInfo, E.ListError>
  /** The keys of `entries`, for a store that lists keys at less cost. */
  readonly keys: (options: ListOptions) => Stream.Stream<string, E.ListError>
  /** The objects and prefixes directly under a prefix; a folder without objects is not listed. */
  readonly listDirectory: (prefix: string) => Effect.Effect<Directory, E.ListError>
  /** Succeeds where there is no such object, unless `ifMatch` is given. */
  readonly remove: (key: string, options: RemoveOptions) => Effect.Effect<void, E.RemoveError>
  /**
   * Removes a batch of at most 1,000 keys, and returns a failure with its `key` for each that remains; fails where no key
   * could be removed.
   */
  readonly removeAll: (keys: ReadonlyArray<string>) => Effect.Effect<ReadonlyArray<E.RemoveError>, E.RemoveError>
  /** Between two different keys, all or nothing. A failure about the new key carries it as its `key`. */
  readonly copy: (from: string, to: string, options: CopyOptions) => Effect.Effect<ObjectInfo, E.CopyError>
  /** Between two different keys. A failure about the new key carries it as its `key`. */
  readonly move: (from: string, to: string, options: CopyOptions) => Effect.Effect<ObjectInfo, E.CopyError>
  /** Called only where `capabilities.presign` is true. */
  readonly presign: (key: string, options: PresignOptions) => Effect.Effect<string, E.PresignError>
}

/**
 * The operations that `make` needs.
 *
 * @since 0.1.0
 * @category models
 */
export interface Primitives
  extends Pick<StorageBackend, "name" | "location" | "capabilities" | "save" | "entries" | "remove">
{
  /** Opens an object with one request. `make` checks that the stream ends where its range does. */
  readonly open: (
    key: string,
    options: StreamOptions
  ) => Effect.Effect<Omit<OpenedObject, "position">, E.LoadError, Scope.Scope>
}

/**
 * The operations that `make` derives where the store has no better way.
 *
 * @since 0.1.0
 * @category models
 */
export type Derived = Omit<StorageBackend, keyof Primitives>

/**
 * A complete backend from four primitives, and the operations that the store does better than the derived ones:
 *
 * - `head` opens the object and reads nothing; `load` reads the opened stream into one array.
 * - `loadRanges` coalesces neighbouring ranges and loads them, eight at once, all under the etag of a `head`.
 * - `keys` and `listDirectory` are made from `entries`.
 * - `removeAll` removes one by one, sixteen at once.
 * - `copy` saves what it opens; `move` copies, then removes; `presign` is not supported, nor are `saveResumable` and `blob`.
 *
 * Of the first argument only the primitives are used, so `make({ ...backend, open })` derives everything from the new
 * `open`. A stream that ends before its range does fails with a truncated `CorruptObject`.
 *
 * @since 0.1.0
 * @category constructors
 * @example
 * ```ts
 * import { Effect, Stream } from "effect"
 * import { StorageBackend, StorageError } from "surfing-weights"
 *
 * // A read-only store of one object.
 * const greeting = new TextEncoder().encode("hello")
 * const info = { key: "greeting", size: greeting.length, lastModified: new Date(0), etag: "1" }
 * const readOnly = Effect.fail(new StorageError.UnsupportedOperation({ reason: "the store is read-only" }))
 *
 * const backend = StorageBackend.make({
 *   name: "Greeting",
 *   capabilities: { ...StorageBackend.readOnly, list: true },
 *   open: (key, options) =>
 *     key === info.key
 *       ? StorageBackend.openBytes(greeting, info, options)
 *       : Effect.fail(new StorageError.ObjectNotFound()),
 *   entries: ({ prefix = "", startAfter = "" }) =>
 *     Stream.filter(Stream.make(info), ({ key }) => key.startsWith(prefix) && key > startAfter),
 *   save: () => readOnly,
 *   remove: () => readOnly
 * })
 * ```
 */
export const make = (primitives: Primitives, better: Partial<Derived> = {}): StorageBackend => {
  const { capabilities, entries, location, name, remove, save } = primitives
  const open: StorageBackend["open"] = (key, options) => Effect.map(primitives.open(key, options), opened)
  const load = better.load ?? loadOpened(open)
  const head = better.head ?? headOpened(open)
  const copy = better.copy ?? copyOpened(open, save)
  return {
    name,
    location,
    capabilities,
    open,
    load,
    loadRanges: better.loadRanges ?? loadRangesOf(head, load),
    head,
    save,
    saveResumable: better.saveResumable,
    blob: better.blob,
    entries,
    keys: better.keys ?? ((options) => Stream.map(entries(options), (info) => info.key)),
    listDirectory: better.listDirectory ?? listDirectoryOf(entries),
    remove,
    removeAll: better.removeAll ?? removeOneByOne(remove),
    copy,
    move: better.move ?? ((from, to, options) => Effect.zipLeft(copy(from, to, options), remove(from, {}))),
    presign: better.presign ??
      (() => Effect.fail(new E.UnsupportedOperation({ reason: "presigned URLs are not supported" })))
  }
}

const loadOpened = (open: StorageBackend["open"]): StorageBackend["load"] => (key, options) =>
  Effect.scoped(Effect.flatMap(open(key, options), ({ bytes, range, stream }) =>
    bytes === undefined
      ? intoArray(stream, range.endExclusive - range.start)
      : Effect.sync(() => copyOf(bytes))))

const headOpened = (open: StorageBackend["open"]): StorageBackend["head"] => (key) =>
  asHead(Effect.map(Effect.scoped(open(key, {})), ({ info }) => info))

const loadRangesOf =
  (head: StorageBackend["head"], load: StorageBackend["load"]): StorageBackend["loadRanges"] =>
  (key, ranges, options) =>
    Effect.gen(function*() {
      const info = yield* head(key)
      yield* checkLoad(info, options)
      const resolved = yield* Effect.forEach(ranges, (range) => checkLoad(info, { range }))
      const reads = coalesce(resolved)
      const loaded = yield* Effect.forEach(
        reads,
        ({ endExclusive, start }) =>
          load(key, { ifMatch: info.etag, range: info.size > 0 ? ByteRange.make(start, endExclusive) : undefined }),
        { concurrency: 8 }
      )
      return resolved.map((range) => cut(range, reads, loaded))
    })

const listDirectoryOf = (entries: StorageBackend["entries"]): StorageBackend["listDirectory"] => (prefix) =>
  Effect.suspend(() => {
    const objects: Array<ObjectInfo> = []
    const prefixes = new Set<string>()
    return entries({ prefix }).pipe(
      Stream.runForEach((info) =>
        Effect.sync(() => {
          const slash = info.key.indexOf("/", prefix.length)
          if (slash === -1) objects.push(info)
          else prefixes.add(info.key.slice(0, slash + 1))
        })
      ),
      Effect.map(() => ({ objects, prefixes: [...prefixes] }))
    )
  })

const removeOneByOne = (remove: StorageBackend["remove"]): StorageBackend["removeAll"] => (keys) =>
  Effect.map(
    Effect.forEach(keys, (key) =>
      Effect.catchAll(Effect.as(remove(key, {}), []), (error) =>
        concernsEveryKey(error) ? Effect.fail(error) : Effect.succeed([withPlace(error, { key })])), {
      concurrency: 16
    }),
    (failures) =>
      failures.flat()
  )

const concernsEveryKey = (error: E.RemoveError): boolean =>
  error._tag === "StorageNotFound" || error._tag === "StorageUnavailable" || error._tag === "StorageTimeout"

const copyOpened =
  (open: StorageBackend["open"], save: StorageBackend["save"]): StorageBackend["copy"] =>
  (from, to, { attributes, ifNoneMatch }) =>
    Effect.scoped(
      Effect.flatMap(open(from, {}), (source) => {
        const options = { ifNoneMatch, size: source.info.size, attributes: attributes ?? source.info.attributes }
        return withSource(source.bytes ?? source.stream, (data) =>
          Effect.mapError(save(to, data, options), (error) => withPlace(error, { key: to })))
      })
    ).pipe(
      Effect.catchTags({ ObjectNotModified: unexpected, InvalidRange: unexpected })
    )

/**
 * An operation of a backend that a wrapper intercepts. `Err` are the failures that it can have.
 *
 * @since 0.1.0
 * @category models
 */
export interface Call<out Err extends E.StorageError = E.StorageError> {
  readonly operation: Exclude<keyof StorageBackend, "name" | "location" | "capabilities" | "saveResumable" | "blob">
  /** The key; of a copy or move the old one; none for listings and `removeAll`. */
  readonly key?: string
  /** The prefix of a listing. */
  readonly prefix?: string
  /** Whether the operation changes objects. */
  readonly writes: boolean
  /** Whether the operation can have this failure, for a wrapper that adds failures. */
  readonly canFailWith: Refinement<E.StorageError, Err>
}

/**
 * How a wrapper treats every operation alike.
 *
 * @since 0.1.0
 * @category models
 */
export interface Interceptor {
  /** The name of the wrapped backend, for instance `Logged(${inner.name})`. */
  readonly name: string
  /** Default: those of the backend. */
  readonly capabilities?: Capabilities | undefined
  /** Wraps every operation but the listings. For `open` that is the opening, without the stream. Default: unchanged. */
  readonly effect?:
    | (<A, Err extends E.StorageError, R>(
      effect: Effect.Effect<A, Err, R>,
      call: Call<Err>
    ) => Effect.Effect<A, Err | E.CommonError, R>)
    | undefined
  /** Wraps the stream of each opened object, also where it reuses its array, and each listing. Default: unchanged. */
  readonly stream?:
    | (<A, Err extends E.StorageError>(
      stream: Stream.Stream<A, Err>,
      call: Call<Err>
    ) => Stream.Stream<A, Err | E.CommonError>)
    | undefined
}

/**
 * A wrapper whose every operation is treated alike. To treat one differently, spread the result and replace the method. It has neither
 * `saveResumable` nor `blob`.
 *
 * @since 0.1.0
 * @category combinators
 * @example
 * ```ts
 * import { Effect } from "effect"
 * import { Storage, StorageBackend } from "surfing-weights"
 *
 * // Logs how long each operation takes.
 * const logged = (storage: Storage.Service): Storage.Service =>
 *   Storage.make(StorageBackend.intercept(storage.backend, {
 *     name: `Logged(${storage.backend.name})`,
 *     effect: (effect, { key, operation }) => Effect.withLogSpan(effect, `${operation} ${key ?? ""}`)
 *   }))
 * ```
 */
export const intercept = (
  inner: StorageBackend,
  { capabilities = inner.capabilities, effect = (effect) => effect, name, stream = (stream) => stream }: Interceptor
): StorageBackend => {
  const load = { writes: false, canFailWith: isLoadError }
  const list = { writes: false, canFailWith: isListError }
  const remove = { writes: true, canFailWith: isRemoveError }
  const copy = { writes: true, canFailWith: isCopyError }
  return {
    name,
    location: inner.location,
    capabilities,
    open: (key, options) => {
      const call: Call<E.LoadError> = { ...load, operation: "open", key }
      return Effect.map(
        effect(inner.open(key, options), call),
        (opened) => mapStream(opened, (bytes) => stream(bytes, call))
      )
    },
    load: (key, options) => effect(inner.load(key, options), { ...load, operation: "load", key }),
    loadRanges: (key, ranges, options) =>
      effect(inner.loadRanges(key, ranges, options), { ...load, operation: "loadRanges", key }),
    head: (key) => effect(inner.head(key), { writes: false, canFailWith: isHeadError, operation: "head", key }),
    save: (key, data, options) =>
      effect(inner.save(key, data, options), { writes: true, canFailWith: isSaveError, operation: "save", key }),
    entries: (options) =>
      stream(inner.entries(options), { ...list, operation: "entries", prefix: options.prefix ?? "" }),
    keys: (options) => stream(inner.keys(options), { ...list, operation: "keys", prefix: options.prefix ?? "" }),
    listDirectory: (prefix) => effect(inner.listDirectory(prefix), { ...list, operation: "listDirectory", prefix }),
    remove: (key, options) => effect(inner.remove(key, options), { ...remove, operation: "remove", key }),
    removeAll: (keys) => effect(inner.removeAll(keys), { ...remove, operation: "removeAll" }),
    copy: (from, to, options) => effect(inner.copy(from, to, options), { ...copy, operation: "copy", key: from }),
    move: (from, to, options) => effect(inner.move(from, to, options), { ...copy, operation: "move", key: from }),
    presign: (key, options) =>
      effect(inner.presign(key, options), {
        writes: false,
        canFailWith: isPresignError,
        operation: "presign",
        key
      })
  }
}

/**
 * The same opened object with its stream changed, also where it reuses its array. Bytes that are in memory already stay so:
 * `change` must neither change nor drop any.
 *
 * @since 0.1.0
 * @category combinators
 */
export const mapStream = (
  opened: OpenedObject,
  change: (stream: OpenedObject["stream"]) => OpenedObject["stream"]
): OpenedObject => {
  const { reuse } = opened
  return {
    ...opened,
    stream: change(opened.stream),
    reuse: reuse && ((isFree) => change(reuse(isFree)))
  }
}

/**
 * An opened object that counts the bytes that are read, and whose stream fails with a truncated `CorruptObject` unless it yields
 * the whole range. `bytes` whose length is not that of the range are not used.
 *
 * @since 0.1.0
 * @category constructors
 */
export const opened = (object: Omit<OpenedObject, "position">): OpenedObject => {
  const { bytes, range, reuse, stream } = object
  const expected = range.endExclusive - range.start
  if (bytes?.byteLength === expected) return { ...object, position: () => expected }
  let position = 0
  const counted = (stream: OpenedObject["stream"]) =>
    exactly(stream, expected, wrongLength(expected), (actual) => {
      position = actual
    })
  return {
    ...object,
    bytes: undefined,
    stream: counted(stream),
    reuse: reuse && ((isFree) => counted(reuse(isFree))),
    position: () => position
  }
}

const wrongLength = (expected: number) => (actual: number) =>
  new E.CorruptObject(
    actual < expected
      ? { problem: "truncated", reason: `the body ended after ${actual} of ${expected} bytes` }
      : { problem: "size", reason: `the body is longer than the ${expected} bytes announced` }
  )

/**
 * The capabilities of a store that only reads. Spread it and add `list: true` where it lists.
 *
 * @since 0.1.0
 * @category capabilities
 */
export const readOnly: Capabilities = {
  write: false,
  list: false,
  createOnly: false,
  compareAndSwap: false,
  conditionalRemove: false,
  objectsWithinObjects: true,
  attributes: false,
  presign: false
}

/**
 * The capabilities of a store that supports everything but presigned URLs.
 *
 * @since 0.1.0
 * @category capabilities
 */
export const full: Capabilities = {
  write: true,
  list: true,
  createOnly: true,
  compareAndSwap: true,
  conditionalRemove: true,
  objectsWithinObjects: true,
  attributes: true,
  presign: false
}

/**
 * Checks the preconditions and the range of a load against the object, in the order of HTTP (RFC 9110, section 13.2.2):
 * `ifMatch`, `ifNoneMatch`, range.
 *
 * @since 0.1.0
 * @category utils
 */
export const checkLoad = (
  info: Pick<ObjectInfo, "size" | "etag">,
  options: LoadOptions
): Either.Either<ByteRange.ResolvedRange, E.PreconditionFailed | E.ObjectNotModified | E.InvalidRange> => {
  if (options.ifMatch !== undefined && options.ifMatch !== info.etag) return Either.left(new E.PreconditionFailed())
  if (options.ifNoneMatch !== undefined && options.ifNoneMatch === info.etag) {
    return Either.left(new E.ObjectNotModified())
  }
  return Either.mapLeft(ByteRange.resolve(options.range, info.size), (reason) => new E.InvalidRange({ reason }))
}

/**
 * Checks the preconditions of a save, copy, move or removal against the object that exists now. The store has to make
 * sure that nothing changes between this check and the write.
 *
 * @since 0.1.0
 * @category utils
 */
export const checkSave = (
  existing: Pick<ObjectInfo, "etag"> | undefined,
  options: Pick<SaveOptions, "ifMatch" | "ifNoneMatch">
): Either.Either<void, E.ObjectAlreadyExists | E.PreconditionFailed> => {
  if (options.ifNoneMatch !== undefined && existing !== undefined) return Either.left(new E.ObjectAlreadyExists())
  if (options.ifMatch !== undefined && options.ifMatch !== existing?.etag) {
    return Either.left(new E.PreconditionFailed())
  }
  return Either.void
}

/**
 * What `open` returns for an object whose bytes are in memory, with preconditions and range applied: chunks of 1 MiB, copied,
 * so that a reader cannot change the object.
 *
 * @since 0.1.0
 * @category utils
 */
export const openBytes = (
  bytes: Uint8Array,
  info: ObjectInfo,
  options: StreamOptions
): Either.Either<OpenedObject, E.PreconditionFailed | E.ObjectNotModified | E.InvalidRange> =>
  Either.map(checkLoad(info, options), (range) => {
    const size = Math.min(options.chunkSize ?? chunkSize, chunkSize)
    if (range.endExclusive - range.start <= Math.min(size, smallSize)) {
      return openedBytes(info, range, copyOf(bytes, range.start, range.endExclusive))
    }
    return opened({
      info,
      range,
      stream: Stream.unfold(range.start, (at) => {
        const end = Math.min(at + size, range.endExclusive)
        return at < end ? Option.some([copyOf(bytes, at, end), end] as const) : Option.none()
      })
    })
  })

/**
 * An opened object whose range is in memory as an array that belongs to the reader.
 *
 * @since 0.1.0
 * @category constructors
 */
export const openedBytes = (
  info: ObjectInfo,
  range: ByteRange.ResolvedRange,
  bytes: Uint8Array<ArrayBuffer>
): OpenedObject => opened({ info, range, bytes, stream: Stream.fromIterable(bytes.byteLength === 0 ? [] : [bytes]) })

const chunkSize = 1024 * 1024

/** The bytes that are copied at once. */
const smallSize = 64 * 1024
