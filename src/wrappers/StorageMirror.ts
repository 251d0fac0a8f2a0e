/**
 * Copies what differs from one storage to another: a directory to a bucket, a bucket to a directory, or a backup of either.
 *
 * - The two listings are merged a page at a time, and objects pass through as streams: memory grows neither with their
 *   number nor with their size.
 * - A copy is in `to` whole or not at all. It must have the size of the original and, where both stores have a checksum of the
 *   same kind, its checksum; otherwise the copy is removed again.
 * - Each object is looked up in `from` again before its copy is done, and before it is removed from `to`. An object that
 *   was overwritten meanwhile is not copied, since the copy would look newer than its replacement; one that exists is not
 *   removed.
 * - Attributes are copied where both storages keep them. Objects that differ in attributes only count as the same.
 * - However a sync ends, its copies are complete, and running it again does the rest.
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
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Mailbox from "effect/Mailbox"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import * as Stream from "effect/Stream"
import { sameContent } from "../internal/content.js"
import { boolean, count, decode, string } from "../internal/options.js"
import * as ObjectKey from "../ObjectKey.js"
import type * as Storage from "../Storage.js"
import * as E from "../StorageError.js"

/**
 * What to copy and remove, and how.
 *
 * @since 0.1.0
 * @category models
 */
export interface Options {
  /** Only keys that start with this string; others are ignored on both sides. Default: all. */
  readonly prefix?: string | undefined
  /**
   * Whether to remove from `to` what `from` does not have. An empty `from` then empties `to`: try it with `dryRun` first.
   * Default: false.
   */
  readonly delete?: boolean | undefined
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
 * - before it begins, with `InvalidOptions`, and with `UnsupportedOperation` where a storage cannot list, or `to` is
 *   read-only and it is not a dry run.
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

interface Settings {
  readonly prefix: string
  readonly delete: boolean
  readonly concurrency: number
  readonly dryRun: boolean
}

const schema: Schema.Schema<Settings, Options> = Schema.Struct({
  prefix: Schema.optionalWith(string(), { default: () => "" }),
  delete: Schema.optionalWith(boolean, { default: () => false }),
  concurrency: Schema.optionalWith(count(), { default: () => 4 }),
  dryRun: Schema.optionalWith(boolean, { default: () => false })
})

const checkCapabilities = (
  from: Storage.Service,
  to: Storage.Service,
  { dryRun }: Settings
): Effect.Effect<void, E.UnsupportedOperation> => {
  const refuse = ({ backend }: Storage.Service, reason: string) =>
    Effect.fail(new E.UnsupportedOperation({ backend: backend.name, operation: "sync", reason }))
  if (!from.backend.capabilities.list) return refuse(from, "listing is not supported")
  if (!to.backend.capabilities.list) return refuse(to, "listing is not supported")
  return dryRun || to.backend.capabilities.write ? Effect.void : refuse(to, "the storage is read-only")
}

/** What is to be done, in key order. */
const stepsOf = (
  from: Storage.Service,
  to: Storage.Service,
  settings: Settings
): Stream.Stream<Step, E.ListError> => {
  const copied = (source: Storage.ObjectInfo): Step => ({
    event: Event.Copied({ key: source.key, size: source.size }),
    work: copy(from, to, source)
  })
  const unchanged = ({ key, size }: Storage.ObjectInfo): Step => ({ event: Event.Unchanged({ key, size }) })
  const removed = ({ key }: Storage.ObjectInfo): Step => ({
    event: Event.Removed({ key }),
    work: remove(from, to, key)
  })
  return keyed(from, settings.prefix).pipe(
    Stream.zipAllSortedByKeyWith({
      other: keyed(to, settings.prefix),
      onSelf: (source) => Option.some(copied(source)),
      onOther: (target) => settings.delete ? Option.some(removed(target)) : Option.none(),
      onBoth: (source, target) => Option.some(isCurrent(source, target) ? unchanged(source) : copied(source)),
      order: ObjectKey.compare
    }),
    Stream.filterMap(([, step]) => step)
  )
}

/** What is to be done about a key, if anything, and the event when it is done. */
interface Step {
  readonly event: Event
  readonly work?: Effect.Effect<void, Failure>
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

const keyed = (storage: Storage.Service, prefix: string) =>
  Stream.map(storage.entries({ prefix }), (info) => [info.key, info] as const)

const isCurrent = (source: Storage.ObjectInfo, target: Storage.ObjectInfo): boolean =>
  sameContent(source, target) ?? target.lastModified >= source.lastModified

const copy = (
  from: Storage.Service,
  to: Storage.Service,
  listed: Storage.ObjectInfo
): Effect.Effect<void, Failure> =>
  Effect.gen(function*() {
    const { etag, key, size } = listed
    const attributes = yield* attributesOf(from, to, listed)
    let original = listed
    // Opened only when the save reads it: under a `StorageLimit`, to wait for a permit of one storage while holding one of
    // the other could be a deadlock.
    const bytes = Stream.unwrapScoped(
      Effect.map(from.open(key, { ifMatch: etag }), ({ info, stream }) => {
        original = info
        return stream
      })
    )
    const data = Stream.mapError(Stream.concat(bytes, Stream.execute(currentInfo(from, listed))), whenRead)
    const saved = yield* Effect.mapError(
      to.save(key, data, { size, attributes }),
      (error) => "stops" in error ? error : whenWritten(error)
    )
    if (sameContent(original, saved) === false) {
      yield* Effect.flatMap(discard(to, original, saved), (error) => Effect.fail({ error, stops: false }))
    }
  })

/** What is known of an object now, unless it has changed since it was listed. */
const currentInfo = (from: Storage.Service, { etag, key }: Storage.ObjectInfo) =>
  Effect.filterOrFail(from.head(key), (now) => now.etag === etag, () => changed(from, key))

/** The attributes to keep with a copy. A listing may leave them out. */
const attributesOf = (
  from: Storage.Service,
  to: Storage.Service,
  listed: Storage.ObjectInfo
): Effect.Effect<Storage.Attributes | undefined, Failure> =>
  !from.backend.capabilities.attributes || !to.backend.capabilities.attributes
    ? Effect.succeed(undefined)
    : listed.attributes !== undefined
    ? Effect.succeed(listed.attributes)
    : Effect.mapBoth(currentInfo(from, listed), { onSuccess: ({ attributes }) => attributes, onFailure: whenRead })

const remove = (from: Storage.Service, to: Storage.Service, key: string): Effect.Effect<void, Failure> =>
  Effect.filterOrFail(from.exists(key), (exists) => !exists, () => changed(from, key)).pipe(
    Effect.mapError(whenRead),
    Effect.zipRight(Effect.mapError(to.remove(key), whenWritten))
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
