/**
 * Makes one storage hold what another holds by copying what differs: a bucket from a directory, a directory from a
 * bucket, a backup of either.
 *
 * - The two listings are read side by side, a page of each at a time, and objects go through as streams: memory grows
 *   neither with their number nor with their size.
 * - A copy is in `to` whole or not at all. Where both stores tell its size, or a checksum of one kind, these have to be
 *   equal; if they are not, it is removed again.
 * - `from` is asked for each object once more before its copy is done, and before it is removed from `to`. What was
 *   overwritten meanwhile is not copied, since its copy would look newer than what took its place; what is there after
 *   all is not removed, whatever the listing told.
 * - However it ends, what is done is done whole, and the same sync run again does what is left.
 *
 * Objects of one key and size are the same if they have the same checksum, where both stores tell one of one kind, or
 * the same etag, where it is what S3 computes of the bytes. Where neither tells, that in `to` counts as the same unless
 * it was saved before that in `from`, as `aws s3 sync` decides. So the clocks of the stores have to agree; what was
 * replaced by something older of the same size is not seen; and where a store tells whole seconds, what was saved within
 * the same one may be copied again.
 *
 * Neither storage may lie within the other. A sync copies while it lists: a `StorageLimit` has to leave room for both.
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
import * as Stream from "effect/Stream"
import { sameContent } from "../internal/content.js"
import * as ObjectKey from "../ObjectKey.js"
import type * as Storage from "../Storage.js"
import * as E from "../StorageError.js"

/**
 * What to make alike, and how.
 *
 * @since 0.1.0
 * @category models
 */
export interface Options {
  /** Only keys that start with this string; the others are left alone on both sides. Default: all. */
  readonly prefix?: string
  /**
   * Whether to remove from `to` what `from` has not. An empty `from` then empties `to`: `dryRun` shows it beforehand.
   * Default: false.
   */
  readonly delete?: boolean
  /** How many objects are copied or removed at once: a whole number from 1 up. Default: 4. */
  readonly concurrency?: number
  /** Whether to tell what would be done, in key order, and do nothing. Default: false. */
  readonly dryRun?: boolean
}

/**
 * What was done about a key or, in a dry run, would be. Sizes are in bytes.
 *
 * @since 0.1.0
 * @category models
 */
export type Event = Data.TaggedEnum<{
  /** `to` had no such object, or another one, and now has that of `from`. */
  readonly Copied: { readonly key: string; readonly size: number }
  /** Both had the same. */
  readonly Unchanged: { readonly key: string; readonly size: number }
  /** `from` has no such object, and now `to` has none. */
  readonly Removed: { readonly key: string }
  /** The object could not be copied or removed. */
  readonly Failed: { readonly key: string; readonly error: E.StorageError }
}>

/**
 * Makes events, and tells one from another.
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
 * Copies what `to` has not of `from`, or has differently, and tells of each object when it is done with it. Whoever is
 * slow to take the events slows down the work.
 *
 * What fails with one object is an event, and the others are done; after the last the stream fails with the first of
 * these failures. An object that changes while it is looked at fails with `PreconditionFailed`, a copy that is not like
 * its original with `CorruptObject`, and what `to` cannot hold, as a directory `foo` beside `foo/bar`, as its save does.
 *
 * It fails at once, interrupting what is under way,
 *
 * - where a listing fails: what has not been listed of `from` is not taken for missing;
 * - with `StorageNotFound`, and with `AccessDenied` or `StorageFull` on a save or removal, since all that is left would
 *   fail like it. That holds for an object larger than `to` takes, too;
 * - with `UnsupportedOperation`, before it begins, where a storage cannot list, where `to` is read-only unless it is a dry
 *   run, and where `concurrency` is no whole number from 1 up.
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
): Stream.Stream<Event, E.StorageError> => {
  const { concurrency = 4, dryRun = false, prefix = "" } = options

  const refuse = ({ backend }: Storage.Service, reason: string) =>
    Stream.fail(new E.UnsupportedOperation({ backend: backend.name, operation: "sync", reason }))

  if (!Number.isInteger(concurrency) || concurrency < 1) {
    return refuse(to, `concurrency is a whole number from 1 up, not ${concurrency}`)
  }
  for (const storage of [from, to]) {
    if (!storage.backend.capabilities.list) return refuse(storage, "it cannot list what it holds")
  }
  if (!dryRun && !to.backend.capabilities.write) return refuse(to, "it is read-only")

  const copied = (source: Storage.ObjectInfo): Step => ({
    event: Event.Copied({ key: source.key, size: source.size }),
    work: copy(from, to, source)
  })

  const unchanged = ({ key, size }: Storage.ObjectInfo): Step => ({ event: Event.Unchanged({ key, size }) })

  const removed = ({ key }: Storage.ObjectInfo): Step => ({
    event: Event.Removed({ key }),
    work: remove(from, to, key)
  })

  const steps = keyed(from, prefix).pipe(
    Stream.zipAllSortedByKeyWith({
      other: keyed(to, prefix),
      onSelf: (source) => Option.some(copied(source)),
      onOther: (target) => options.delete === true ? Option.some(removed(target)) : Option.none(),
      onBoth: (source, target) => Option.some(isCurrent(source, target) ? unchanged(source) : copied(source)),
      order: ObjectKey.compare
    }),
    Stream.filterMap(([, step]) => step)
  )

  return dryRun ? Stream.map(steps, ({ event }) => event) : carryOut(steps, concurrency)
}

/** What is to be done about a key, if anything, and the event that it then is. */
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
    let original = listed
    // Opened only when the save asks for it: under a `StorageLimit`, to wait for one storage while holding a place of
    // the other could be for ever.
    const bytes = Stream.unwrapScoped(
      Effect.map(from.open(key, { ifMatch: etag }), ({ info, stream }) => {
        original = info
        return stream
      })
    )
    const check = Effect.filterOrFail(from.head(key), (now) => now.etag === etag, () => changed(from, key))
    const data = Stream.mapError(Stream.concat(bytes, Stream.execute(check)), whenRead)
    const saved = yield* Effect.mapError(
      to.save(key, data, { size }),
      (error) => "stops" in error ? error : whenWritten(error)
    )
    if (sameContent(original, saved) === false) {
      yield* Effect.flatMap(discard(to, original, saved), (error) => Effect.fail({ error, stops: false }))
    }
  })

const remove = (from: Storage.Service, to: Storage.Service, key: string): Effect.Effect<void, Failure> =>
  Effect.filterOrFail(from.exists(key), (exists) => !exists, () => changed(from, key)).pipe(
    Effect.mapError(whenRead),
    Effect.zipRight(Effect.mapError(to.remove(key), whenWritten))
  )

const changed = ({ backend }: Storage.Service, key: string) =>
  new E.PreconditionFailed({ backend: backend.name, operation: "sync", key })

/** Removes a copy that is not like its original, and gives the failure that says so. */
const discard = (
  to: Storage.Service,
  original: Storage.ObjectInfo,
  copy: Storage.ObjectInfo
): Effect.Effect<E.CorruptObject> =>
  Effect.map(Effect.either(to.remove(copy.key)), (removal) => {
    const problem = copy.size === original.size ? "checksum" : "size"
    const tell = ({ checksum, size }: Storage.ObjectInfo) =>
      problem === "size" ? `${size} bytes` : `the ${checksum?.algorithm} checksum ${checksum?.value}`
    return new E.CorruptObject({
      backend: to.backend.name,
      operation: "sync",
      key: copy.key,
      problem,
      reason: `the copy has ${tell(copy)} and should have ${tell(original)}; ` +
        (Either.isRight(removal) ? "it was removed again" : `it is still there (${removal.left.message})`)
    })
  })

/** Does what is to be done, for so many objects at once. */
const carryOut = (
  steps: Stream.Stream<Step, E.StorageError>,
  concurrency: number
): Stream.Stream<Event, E.StorageError> =>
  Stream.unwrap(Effect.map(Mailbox.make<Task>({ capacity: 1 }), (todo) => {
    let first: E.StorageError | undefined

    // Most of a second sync needs no work. It goes by a page at a time, which costs next to nothing.
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
