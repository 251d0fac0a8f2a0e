/**
 * Copies what differs from one storage to another: a directory to a bucket, a bucket to a directory, or a backup of either.
 *
 * - The two listings are merged a page at a time, and objects pass through as streams: memory grows neither with their
 *   number nor with their size.
 * - A copy is in `to` whole or not at all. It must have the size of the original and, where both stores have a checksum of the
 *   same kind, its checksum; otherwise the copy is removed again.
 * - Each object that took longer than a second to read, or is larger than 1 MiB, is looked up in `from` again before its copy is
 *   done, and each before it is removed from `to`. An object that was overwritten meanwhile is not copied, since the copy would
 *   look newer than its replacement; one that exists is not removed.
 * - Attributes are copied where both storages keep them. Objects that differ in attributes only count as the same.
 * - However a sync ends, its copies are complete, and running it again does the rest.
 * - The copy of an object of more than 64 MiB that was interrupted, or whose process was killed, is resumed where `to` can do that
 *   and the object in `from` still has the same etag: a directory receives the bytes that are missing, a bucket the parts.
 *
 * Objects of one key and size are the same if they have the same checksum, where both stores have one of the same kind, or
 * the same etag, where S3 computed it of the bytes. Otherwise the object in `to` counts as the same unless it was saved
 * before that in `from`, as `aws s3 sync` decides. So the clocks of the stores have to agree; a replacement that is older
 * and of the same size is not noticed; and where a store keeps whole seconds, an object saved within the same second may
 * be copied again.
 *
 * Neither storage may lie within the other. A sync copies while it lists: a `StorageLimit` has to leave permits for both.
 *
 * @module StorageMirror
 * @since 0.1.0
 */
import * as Chunk from "effect/Chunk"
import * as Data from "effect/Data"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Mailbox from "effect/Mailbox"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import * as Stream from "effect/Stream"
import * as ByteRange from "../ByteRange.js"
import { intoArray } from "../internal/bytes.js"
import { sameContent } from "../internal/content.js"
import { boolean, callback, count, decode, string } from "../internal/options.js"
import { withSources } from "../internal/source.js"
import * as ObjectKey from "../ObjectKey.js"
import * as Storage from "../Storage.js"
import type { ResumableData } from "../StorageBackend.js"
import * as E from "../StorageError.js"
import { haveSameBytes } from "./mirror/comparison.js"

/**
 * What to copy and remove, and how.
 *
 * @since 0.1.0
 * @category models
 */
export interface Options {
  /** Only keys that start with this string; others are ignored on both sides. Default: all. */
  readonly prefix?: string | undefined
  /** Selects the objects by their keys; others are ignored on both sides. Default: all. */
  readonly filter?: ((key: string) => boolean) | undefined
  /**
   * Whether to read both objects and compare their bytes where size, checksum and etag do not show whether they are the same.
   * Default: false, so that the times decide.
   */
  readonly checksum?: boolean | undefined
  /**
   * Whether to remove from `to` what `from` does not have. An empty `from` then empties `to`: try it with `dryRun` first.
   * Default: false.
   */
  readonly delete?: boolean | undefined
  /**
   * Whether to remove each object from `from` once `to` has the same, unless it was overwritten meanwhile: then it fails with
   * `PreconditionFailed`, if `from` can remove by etag. Times do not decide then, as with `checksum`. Default: false.
   */
  readonly move?: boolean | undefined
  /** How many objects are copied or removed at once. Default: 4. */
  readonly concurrency?: number | undefined
  /** Whether to report what would be done, in key order, and do nothing. Default: false. */
  readonly dryRun?: boolean | undefined
}

/**
 * What was done for a key or, in a dry run, would be done. Sizes are in bytes.
 *
 * @since 0.1.0
 * @category models
 */
export type Event = Data.TaggedEnum<{
  /** `to` had no such object, or a different one, and now has that of `from`. */
  readonly Copied: { readonly key: string; readonly size: number }
  /** Both had the same. */
  readonly Unchanged: { readonly key: string; readonly size: number }
  /** `from` has no such object, and now `to` has none. */
  readonly Removed: { readonly key: string }
  /** The object could not be copied or removed. */
  readonly Failed: { readonly key: string; readonly error: E.StorageError }
}>

/**
 * Constructors of events, and matchers on them.
 *
 * @since 0.1.0
 * @category constructors
 * @example
 * ```ts
 * import { StorageMirror } from "surfing-weights"
 *
 * const show = StorageMirror.Event.$match({
 *   Copied: ({ key, size }) => `+ ${key}, ${size} bytes`,
 *   Unchanged: ({ key }) => `= ${key}`,
 *   Removed: ({ key }) => `- ${key}`,
 *   Failed: ({ error }) => `! ${error.message}`
 * })
 * ```
 */
export const Event: Data.TaggedEnum.Constructor<Event> = Data.taggedEnum<Event>()

/**
 * Copies the objects that `to` lacks or that differ, and emits an event for each object when it is done. A slow consumer slows
 * down the work.
 *
 * The failure of one object is an event, and the other objects are done; then the stream fails with the first of these
 * failures. An object that changes meanwhile fails with `PreconditionFailed`, a copy that differs from its original with
 * `CorruptObject`, and an object that `to` cannot hold, such as `foo` beside `foo/bar` in a directory, with the failure of its
 * save.
 *
 * The stream fails at once, and interrupts the running work,
 *
 * - where a listing fails: an object of `from` that was not listed does not count as missing;
 * - with `StorageNotFound`, and with `AccessDenied` or `StorageFull` on a save or removal, since everything else would fail
 *   like it. That includes an object that is larger than `to` allows;
 * - before it begins, with `InvalidOptions`, and with `UnsupportedOperation` where a storage cannot list, what is to be written is
 *   read-only and it is not a dry run, or a storage is to be moved to itself.
 *
 * @since 0.1.0
 * @category constructors
 * @example
 * ```ts
 * import { Console, Effect, Stream } from "effect"
 * import { FileSystemStorage, S3Storage, StorageMirror } from "surfing-weights"
 *
 * const backup = Effect.gen(function*() {
 *   const from = yield* FileSystemStorage.make({ directory: "./weights" })
 *   const to = yield* S3Storage.make({ bucket: "model-weights" })
 *   yield* StorageMirror.sync(from, to, { prefix: "bert/", delete: true }).pipe(
 *     Stream.filter((event) => event._tag !== "Unchanged"),
 *     Stream.runForEach((event) => Console.log(event._tag, event.key))
 *   )
 * }).pipe(Effect.scoped)
 * ```
 */
export const sync = (
  from: Storage.Service,
  to: Storage.Service,
  options: Options = {}
): Stream.Stream<Event, E.StorageError> =>
  Stream.unwrap(Effect.gen(function*() {
    const settings = yield* decode("StorageMirror", schema, options)
    yield* checkCapabilities(from, to, settings)
    const steps = stepsOf(from, to, settings)
    return settings.dryRun ? Stream.map(steps, ({ event }) => event) : carryOut(steps, settings.concurrency)
  }))

/**
 * An object in a storage.
 *
 * @since 0.1.0
 * @category models
 */
export interface Location {
  readonly storage: Storage.Service
  readonly key: string
}

/**
 * Copies one object to another storage, or to another key, as `sync` copies each: with its attributes, whole and checked. It is
 * not copied where checksums or etags show that `to` has the same object already; the times alone do not.
 *
 * @since 0.1.0
 * @category constructors
 * @example
 * ```ts
 * import { Effect } from "effect"
 * import { type Storage, StorageMirror } from "surfing-weights"
 *
 * const publish = (laptop: Storage.Service, bucket: Storage.Service) =>
 *   StorageMirror.copyObject(
 *     { storage: laptop, key: "model.safetensors" },
 *     { storage: bucket, key: "bert/model.safetensors" }
 *   ).pipe(Effect.map(({ _tag }) => _tag === "Copied"))
 * ```
 */
export const copyObject = (
  from: Location,
  to: Location
): Effect.Effect<Extract<Event, { readonly _tag: "Copied" | "Unchanged" }>, E.StorageError> =>
  Effect.gen(function*() {
    const source = yield* from.storage.head(from.key)
    const target = yield* Effect.catchTag(to.storage.head(to.key), "ObjectNotFound", () => Effect.succeed(undefined))
    const { key, size } = source
    if (target !== undefined && sameContent(source, target) === true) return Event.Unchanged({ key, size })
    yield* Effect.mapError(copy(from.storage, to.storage, source, to.key), ({ error }) => error)
    return Event.Copied({ key, size })
  })

interface Settings {
  readonly prefix: string
  readonly filter?: ((key: string) => boolean) | undefined
  readonly checksum: boolean
  readonly delete: boolean
  readonly move: boolean
  readonly concurrency: number
  readonly dryRun: boolean
}

const schema: Schema.Schema<Settings, Options> = Schema.Struct({
  prefix: Schema.optionalWith(string(), { default: () => "" }),
  filter: Schema.optional(callback<(key: string) => boolean>()),
  checksum: Schema.optionalWith(boolean, { default: () => false }),
  delete: Schema.optionalWith(boolean, { default: () => false }),
  move: Schema.optionalWith(boolean, { default: () => false }),
  concurrency: Schema.optionalWith(count(), { default: () => 4 }),
  dryRun: Schema.optionalWith(boolean, { default: () => false })
})

const checkCapabilities = (
  from: Storage.Service,
  to: Storage.Service,
  { dryRun, move }: Settings
): Effect.Effect<void, E.UnsupportedOperation> => {
  const refuse = ({ backend }: Storage.Service, reason: string) =>
    Effect.fail(new E.UnsupportedOperation({ backend: backend.name, operation: "sync", reason }))
  if (!from.backend.capabilities.list) return refuse(from, "listing is not supported")
  if (!to.backend.capabilities.list) return refuse(to, "listing is not supported")
  const isReadOnly = ({ backend }: Storage.Service) => !dryRun && !backend.capabilities.write
  // It would have each object already, and so lose it.
  if (move && isSame(from, to)) return refuse(from, "a storage cannot be moved to itself")
  if (move && isReadOnly(from)) return refuse(from, "the storage is read-only")
  return isReadOnly(to) ? refuse(to, "the storage is read-only") : Effect.void
}

const isSame = ({ backend: one }: Storage.Service, { backend: other }: Storage.Service): boolean =>
  one === other || (one.location !== undefined && one.location === other.location)

/** What is to be done, in key order. */
const stepsOf = (
  from: Storage.Service,
  to: Storage.Service,
  settings: Settings
): Stream.Stream<Step, E.ListError> => {
  const copied = (source: Storage.ObjectInfo): Step => ({
    event: Event.Copied({ key: source.key, size: source.size }),
    work: settings.move ? Effect.zipRight(copy(from, to, source), removeOriginal(from, source)) : copy(from, to, source)
  })
  const unchanged = (source: Storage.ObjectInfo): Step => {
    const event = Event.Unchanged({ key: source.key, size: source.size })
    return settings.move ? { event, work: removeOriginal(from, source) } : { event }
  }
  const removed = ({ key }: Storage.ObjectInfo): Step => ({
    event: Event.Removed({ key }),
    work: remove(from, to, key)
  })
  const decided = (source: Storage.ObjectInfo, isSame: boolean): Step => isSame ? unchanged(source) : copied(source)
  const compared = (source: Storage.ObjectInfo, target: Storage.ObjectInfo): Step => {
    const isSame = sameContent(source, target)
    if (isSame !== undefined || !comparesBytes(settings)) return decided(source, isCurrent(source, target))
    const decide = Effect.match(haveSameBytes(from, to, source, target), {
      onSuccess: (isSame) => decided(source, isSame),
      onFailure: (error): Step => ({
        event: Event.Failed({ key: source.key, error }),
        work: Effect.fail(whenRead(error))
      })
    })
    return { ...copied(source), decide }
  }
  const steps = keyed(from, settings).pipe(
    Stream.zipAllSortedByKeyWith({
      other: keyed(to, settings),
      onSelf: (source) => Option.some(copied(source)),
      onOther: (target) => settings.delete ? Option.some(removed(target)) : Option.none(),
      onBoth: (source, target) => Option.some(compared(source, target)),
      order: ObjectKey.compare
    }),
    Stream.filterMap(([, step]) => step)
  )
  // Without it, steps stay a page at a time.
  return comparesBytes(settings)
    ? Stream.mapEffect(steps, (step) => step.decide ?? Effect.succeed(step), { concurrency: settings.concurrency })
    : steps
}

/** Whether bytes are read where nothing else shows if they are the same. */
const comparesBytes = ({ checksum, move }: Settings): boolean => checksum || move

/** What is to be done about a key, if anything, and the event when it is done. */
interface Step {
  readonly event: Event
  readonly work?: Effect.Effect<void, Failure>
  /** Finds out first what is to be done. */
  readonly decide?: Effect.Effect<Step>
}

interface Task extends Step {
  readonly work: Effect.Effect<void, Failure>
}

const isTask = (step: Step): step is Task => step.work !== undefined

interface Failure {
  readonly error: E.StorageError
  /** Whether everything else would fail like it. */
  readonly stops: boolean
}

const failure = (...stopping: ReadonlyArray<E.StorageError["_tag"]>) => (error: E.StorageError): Failure => ({
  error,
  stops: stopping.includes(error._tag)
})

// To read one object may be forbidden where to read the others is not.
const whenRead = failure("StorageNotFound")
const whenWritten = failure("StorageNotFound", "AccessDenied", "StorageFull")

const keyed = (storage: Storage.Service, { filter, prefix }: Settings) =>
  storage.entries({ prefix }).pipe(
    filter === undefined ? (entries) => entries : Stream.filter(({ key }) => filter(key)),
    Stream.map((info) => [info.key, info] as const)
  )

/** Whether the objects count as the same, by their times where nothing else shows it. */
const isCurrent = (source: Storage.ObjectInfo, target: Storage.ObjectInfo): boolean =>
  sameContent(source, target) ?? target.lastModified >= source.lastModified

const copy = (
  from: Storage.Service,
  to: Storage.Service,
  listed: Storage.ObjectInfo,
  toKey = listed.key
): Effect.Effect<void, Failure> =>
  Effect.flatMap(listed.size <= smallSize ? copySmall(from, to, listed, toKey) : copyLarge(from, to, listed, toKey), (
    { original, saved }
  ) =>
    sameContent(original, saved) === false
      ? Effect.flatMap(discard(to, original, saved), (error) => Effect.fail({ error, stops: false }))
      : Effect.void)

/** The objects that are held in memory, `concurrency` at a time, so that one request reads them. */
const smallSize = 1024 * 1024

/** What was read within this time needs no second look: for small objects, that would be half of the requests. */
const longRead = Duration.seconds(1)

const copySmall = (from: Storage.Service, to: Storage.Service, listed: Storage.ObjectInfo, toKey: string) =>
  Effect.gen(function*() {
    const { etag, key, size } = listed
    // Closed before the save begins: under a `StorageLimit`, to wait for a permit of one storage while holding one of the other
    // could be a deadlock.
    const [duration, { bytes, info }] = yield* from.open(key, { ifMatch: etag }).pipe(
      Effect.flatMap(({ bytes, info, stream }) =>
        Effect.map(bytes === undefined ? intoArray(stream, size) : Effect.succeed(bytes), (bytes) => ({ bytes, info }))
      ),
      Effect.scoped,
      Effect.catchTag("PreconditionFailed", () => Effect.fail(changed(from, key))),
      Effect.mapError(whenRead),
      Effect.timed
    )
    if (Duration.greaterThan(duration, longRead)) yield* Effect.mapError(currentInfo(from, listed), whenRead)
    const attributes = keepsAttributes(from, to) ? meaningful(info.attributes) : undefined
    const saved = yield* Effect.mapError(to.save(toKey, bytes, { size, attributes }), whenWritten)
    return { original: info, saved }
  })

const copyLarge = (from: Storage.Service, to: Storage.Service, listed: Storage.ObjectInfo, toKey: string) =>
  Effect.gen(function*() {
    const { etag, key, size } = listed
    const attributes = yield* attributesOf(from, to, listed)
    let original = listed
    // Opened only when the save reads it, for the same reason.
    const read = (range?: ByteRange.ByteRange) =>
      Stream.unwrapScoped(
        Effect.map(from.open(key, { ifMatch: etag, range }), ({ info, stream }) => {
          original = info
          return stream
        })
      )
    const rest = (position: number) =>
      Stream.mapError(
        Stream.concat(
          // A range must begin within the object.
          position === 0 ? read() : position < size ? read(ByteRange.from(position)) : Stream.empty,
          Stream.execute(currentInfo(from, listed))
        ),
        whenRead
      )
    const options = { size, attributes }
    const saving = canBeResumed(listed)
      ? withSources((carry: (source: Stream.Stream<Uint8Array, Failure>) => Stream.Stream<Uint8Array>) =>
        resumable(to, {
          size,
          version: versionOf(from, listed),
          read: ({ endExclusive, start }) =>
            carry(Stream.mapError(read(ByteRange.make(start, endExclusive)), whenRead)),
          rest: (position) => carry(rest(position))
        }).save(toKey, carry(rest(0)), options)
      )
      : to.save(toKey, rest(0), options)
    const saved = yield* Effect.mapError(saving, (error) => "stops" in error ? error : whenWritten(error))
    return { original, saved }
  })

/** Whether the copy of an object is worth being resumed, and its etag distinguishes any two versions. */
const canBeResumed = ({ etag, size }: Storage.ObjectInfo): boolean =>
  size > resumableSize && /^(?!W\/)[\x21-\x7e]+$/.test(etag)

const resumableSize = 64 * 1024 * 1024

/** A name for one version of an object. A server that counts versions in memory starts again with its first etag. */
const versionOf = ({ backend }: Storage.Service, { etag, key, lastModified, size }: Storage.ObjectInfo): string =>
  // A listing may know the time better than a response does.
  JSON.stringify([backend.location ?? backend.name, key, size, etag, Math.floor(lastModified.getTime() / 1000)])

/** The same storage, whose save resumes an earlier one of this data where it can. */
const resumable = (storage: Storage.Service, data: ResumableData): Storage.Service => {
  const { saveResumable, ...backend } = storage.backend
  return saveResumable === undefined
    ? storage
    : Storage.make({ ...backend, save: (key, _, options) => saveResumable(key, data, options) })
}

const keepsAttributes = (from: Storage.Service, to: Storage.Service): boolean =>
  from.backend.capabilities.attributes && to.backend.capabilities.attributes

/** What is known of an object now, unless it has changed since it was listed. */
const currentInfo = (from: Storage.Service, { etag, key }: Storage.ObjectInfo) =>
  Effect.filterOrFail(from.head(key), (now) => now.etag === etag, () => changed(from, key))

/** The attributes to keep with a copy. A listing may leave them out. */
const attributesOf = (
  from: Storage.Service,
  to: Storage.Service,
  listed: Storage.ObjectInfo
): Effect.Effect<Storage.Attributes | undefined, Failure> =>
  !keepsAttributes(from, to)
    ? Effect.succeed(undefined)
    : listed.attributes !== undefined
    ? Effect.succeed(meaningful(listed.attributes))
    : Effect.mapBoth(currentInfo(from, listed), {
      onSuccess: ({ attributes }) => meaningful(attributes),
      onFailure: whenRead
    })

/**
 * Without the content type that says only that the bytes are bytes, which S3 gives to every object that has none: a file system
 * would write a second file to keep it.
 */
const meaningful = (attributes: Storage.Attributes | undefined): Storage.Attributes | undefined => {
  const { contentType, ...others } = attributes ?? {}
  const kept = contentType === undefined || /^(?:application|binary)\/octet-stream$/i.test(contentType)
    ? others
    : { ...others, contentType }
  return Object.keys(kept).length === 0 ? undefined : kept
}

const remove = (from: Storage.Service, to: Storage.Service, key: string): Effect.Effect<void, Failure> =>
  Effect.filterOrFail(from.exists(key), (exists) => !exists, () => changed(from, key)).pipe(
    Effect.mapError(whenRead),
    Effect.zipRight(Effect.mapError(to.remove(key), whenWritten))
  )

/** Removes an object that was copied, unless another has taken its place. */
const removeOriginal = (from: Storage.Service, { etag, key }: Storage.ObjectInfo): Effect.Effect<void, Failure> =>
  Effect.mapError(
    from.remove(key, from.backend.capabilities.conditionalRemove ? { ifMatch: etag } : {}),
    whenWritten
  )

const changed = ({ backend }: Storage.Service, key: string) =>
  new E.PreconditionFailed({ backend: backend.name, operation: "sync", key })

/** Removes a copy that differs from its original, and returns the failure that says so. */
const discard = (
  to: Storage.Service,
  original: Storage.ObjectInfo,
  copy: Storage.ObjectInfo
): Effect.Effect<E.CorruptObject> =>
  Effect.map(Effect.either(to.remove(copy.key)), (removal) => {
    const problem = copy.size === original.size ? "checksum" : "size"
    const describe = ({ checksum, size }: Storage.ObjectInfo) =>
      problem === "size" ? `${size} bytes` : `the ${checksum?.algorithm} checksum ${checksum?.value}`
    return new E.CorruptObject({
      backend: to.backend.name,
      operation: "sync",
      key: copy.key,
      problem,
      reason: `the copy must have ${describe(original)} (got ${describe(copy)}); ` +
        (Either.isRight(removal) ? "it was removed again" : `it is still there (${removal.left.message})`)
    })
  })

/** Does the work of the steps, of `concurrency` objects at once. */
const carryOut = (
  steps: Stream.Stream<Step, E.StorageError>,
  concurrency: number
): Stream.Stream<Event, E.StorageError> =>
  Stream.unwrap(Effect.map(Mailbox.make<Task>({ capacity: 1 }), (todo) => {
    let first: E.StorageError | undefined

    // Most of a second sync needs no work, so its events pass a page at a time.
    const listing = Stream.flatMap(Stream.chunks(steps), (page) => {
      const [settled, tasks] = Chunk.partition(page, isTask)
      return Stream.concat(
        Stream.fromChunk(Chunk.map(settled, ({ event }) => event)),
        Stream.execute(todo.offerAll(tasks))
      )
    }).pipe(Stream.ensuring(todo.end))

    const worker = Stream.mapEffect(
      Stream.repeatEffectOption(Effect.mapError(todo.take, Option.none)),
      ({ event, work }) =>
        Effect.catchAll(Effect.as(work, event), ({ error, stops }) =>
          stops ? Effect.fail(error) : Effect.sync(() => {
            first ??= error
            return Event.Failed({ key: event.key, error })
          }))
    )

    const workers = Array.from({ length: concurrency }, () => worker)
    return Stream.concat(
      Stream.mergeAll([listing, ...workers], { concurrency: "unbounded" }),
      Stream.suspend(() => first === undefined ? Stream.empty : Stream.fail(first))
    )
  }))
