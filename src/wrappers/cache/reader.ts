/**
 * Reads through a cache: from memory, from the second tier, or from the storage.
 */
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Option from "effect/Option"
import * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import type { ResolvedRange } from "../../ByteRange.js"
import { copyOf, intoArray } from "../../internal/bytes.js"
import { resuming } from "../../internal/resume.js"
import type { LoadOptions, ObjectInfo, OpenedObject, StorageBackend, StreamOptions } from "../../StorageBackend.js"
import { checkLoad, mapStream, openBytes, opened } from "../../StorageBackend.js"
import type { LoadError } from "../../StorageError.js"
import type { Counters } from "./counters.js"
import { Filling } from "./filling.js"
import type { Fill } from "./fills.js"
import type { CachedObject, Entry } from "./memoryTier.js"
import type { CachedObjects } from "./objects.js"
import { piecesOf } from "./pieces.js"
import type { SecondTier } from "./secondTier.js"
import { SingleFlight } from "./singleFlight.js"

type Bytes = Uint8Array<ArrayBuffer>

/** Where the bytes of a read may come from. */
interface Sources<A, R> {
  readonly memory: (object: CachedObject) => Effect.Effect<A, LoadError, R>
  /** `None` where the tier fails. */
  readonly tier: (tier: SecondTier, entry: Entry) => Effect.Effect<Option.Option<A>, LoadError, R>
  /** From the storage, unless the object has this etag. */
  readonly storage: (unless?: string) => Effect.Effect<A, LoadError, R>
}

export class Reader {
  readonly #inner: StorageBackend
  readonly #objects: CachedObjects
  readonly #counters: Counters
  readonly #isShared: boolean
  readonly #filling: Filling
  readonly #flights = new SingleFlight<CachedObject, LoadError>()

  constructor(inner: StorageBackend, objects: CachedObjects, counters: Counters, isShared: boolean) {
    this.#inner = inner
    this.#objects = objects
    this.#counters = counters
    this.#isShared = isShared
    this.#filling = new Filling(objects, isShared)
  }

  load(key: string, options: LoadOptions): Effect.Effect<Bytes, LoadError> {
    if (options.bypassCache === true) return this.#bypass(key, this.#inner.load(key, options))
    return this.#read(key, options, {
      memory: ({ bytes, entry }) =>
        Effect.flatMap(checkLoad(entry.info, options), (range) => {
          const own = this.#own(bytes, range)
          return Effect.as(this.#counters.served(own.byteLength), own)
        }),
      tier: (tier, entry) =>
        Effect.flatMap(checkLoad(entry.info, options), (range) => this.#loadFromTier(tier, entry, range)),
      storage: (unless) =>
        isPlain(options) ? this.#loadOnce(key, unless) : this.#inner.load(key, withCondition(options, unless))
    })
  }

  loadRanges(
    ...[key, ranges, options]: Parameters<StorageBackend["loadRanges"]>
  ): Effect.Effect<ReadonlyArray<Bytes>, LoadError> {
    if (options.bypassCache === true) return this.#bypass(key, this.#inner.loadRanges(key, ranges, options))
    const resolve = ({ info }: Entry) => Either.all(ranges.map((range) => checkLoad(info, { ...options, range })))
    const served = (loaded: ReadonlyArray<Bytes>) =>
      Effect.as(this.#counters.served(loaded.reduce((sum, { byteLength }) => sum + byteLength, 0)), loaded)
    return this.#read(key, options, {
      memory: ({ bytes, entry }) =>
        Effect.flatMap(resolve(entry), (resolved) => served(resolved.map((range) => this.#own(bytes, range)))),
      tier: (tier, entry) =>
        Effect.flatMap(
          resolve(entry),
          (resolved) => Effect.flatMap(tier.loadRanges(entry, resolved), Effect.transposeMapOption(served))
        ),
      storage: (unless) => this.#inner.loadRanges(key, ranges, withCondition(options, unless))
    })
  }

  open(key: string, options: StreamOptions): Effect.Effect<OpenedObject, LoadError, Scope.Scope> {
    if (options.bypassCache === true) return this.#bypass(key, this.#inner.open(key, options))
    return this.#read(key, options, {
      memory: ({ bytes, entry }) =>
        Effect.flatMap(openBytes(bytes, entry.info, options), ({ range, stream }) => {
          const view = bytes.subarray(range.start, range.endExclusive)
          return Effect.as(
            this.#counters.served(view.byteLength),
            opened({
              info: entry.info,
              range,
              bytes: view,
              stream: this.#isShared ? piecesOf(view, options, true) : stream
            })
          )
        }),
      tier: (tier, entry) =>
        Effect.flatMap(checkLoad(entry.info, options), (range) => this.#openInTier(tier, entry, range, options)),
      storage: (unless) =>
        Effect.gen(this, function*() {
          const fill = yield* this.#objects.startFill(key)
          const opened = yield* this.#inner.open(key, withCondition(options, unless))
          return yield* this.#filling.opened(opened, yield* confirmed(opened.info), fill)
        })
    })
  }

  head(key: string): ReturnType<StorageBackend["head"]> {
    return Effect.flatMap(this.#objects.find(key), (entry) =>
      entry === undefined
        ? this.#inner.head(key)
        : Effect.flatMap(this.#objects.freshness.isFresh(entry), (isFresh) =>
          isFresh ? Effect.succeed(entry.info) : this.#inner.head(key)))
  }

  /** The one way of every read. */
  #read<A, R>(
    key: string,
    { ifMatch, ifNoneMatch }: LoadOptions,
    sources: Sources<A, R>
  ): Effect.Effect<A, LoadError, R> {
    const { hit, miss } = this.#counters
    const { memory, tier } = this.#objects
    const fromStorage = Effect.zipRight(miss, Effect.suspend(sources.storage))

    const fromCache = (entry: Entry, object: CachedObject | undefined) =>
      object !== undefined
        ? Effect.zipRight(hit, sources.memory(object))
        : tier === undefined
        ? fromStorage
        : Effect.matchEffect(sources.tier(tier, entry), {
          onFailure: (error) => Effect.zipRight(hit, Effect.fail(error)),
          onSuccess: Option.match({ onNone: () => fromStorage, onSome: (found) => Effect.as(hit, found) })
        })

    const revalidated = (entry: Entry, object: CachedObject | undefined) =>
      Effect.matchEffect(sources.storage(entry.info.etag), {
        onSuccess: (found) => Effect.as(miss, found),
        onFailure: (error) =>
          error._tag === "ObjectNotModified"
            ? Effect.zipRight(this.#objects.freshness.confirm(entry), fromCache(entry, object))
            : Effect.zipRight(miss, Effect.fail(error))
      })

    const known = (entry: Entry, object?: CachedObject) =>
      ifMatch !== undefined
        // An etag of another version is newer than what is here.
        ? entry.info.etag === ifMatch ? fromCache(entry, object) : fromStorage
        : Effect.flatMap(this.#objects.freshness.isFresh(entry), (isFresh) =>
          isFresh ? fromCache(entry, object) : ifNoneMatch === undefined ? revalidated(entry, object) : fromStorage)

    return Effect.suspend(() => {
      const object = memory.get(key)
      if (object !== undefined) return known(object.entry, object)
      if (tier === undefined) return fromStorage
      return Effect.flatMap(tier.find(key), (entry) => entry === undefined ? fromStorage : known(entry))
    })
  }

  /** A read of the storage. What is here of the object is dropped. */
  #bypass<A, R>(key: string, read: Effect.Effect<A, LoadError, R>): Effect.Effect<A, LoadError, R> {
    return Effect.zipRight(this.#objects.invalidate([key]), read)
  }

  /** Loads a whole object, once for all fibers that want it at the time. */
  #loadOnce(key: string, unless: string | undefined): Effect.Effect<Bytes, LoadError> {
    return this.#flights.run(
      // A fiber that has nothing of the object cannot use the answer that it has not changed.
      unless === undefined ? key : `${key}\0${unless}`,
      (fill) => this.#fetch(key, unless, fill),
      ({ bytes }, isLast) =>
        isLast && !this.#objects.memory.holds(key, bytes)
          ? bytes
          : this.#own(bytes, { start: 0, endExclusive: bytes.byteLength })
    )
  }

  /** Loads a whole object and its metadata with one request, unless it has this etag, and keeps it. */
  #fetch(key: string, unless: string | undefined, fill: Fill): Effect.Effect<CachedObject, LoadError> {
    return Effect.scoped(Effect.gen(this, function*() {
      yield* this.#objects.startFill(key, fill)
      const { bytes, info, stream } = yield* this.#inner.open(key, withCondition({}, unless))
      const entry = yield* confirmed(info)
      const object = { entry, bytes: bytes === undefined ? yield* intoArray(stream, info.size) : copyOf(bytes) }
      yield* this.#objects.keep(object, fill)
      return object
    }))
  }

  #loadFromTier(tier: SecondTier, entry: Entry, range: ResolvedRange): Effect.Effect<Option.Option<Bytes>> {
    return Effect.scoped(Effect.gen(this, function*() {
      const fill = yield* this.#objects.startFill(entry.info.key)
      const loaded = yield* tier.load(entry, range)
      if (Option.isNone(loaded)) return loaded
      const bytes = loaded.value
      yield* this.#counters.served(bytes.byteLength)
      if (bytes.byteLength < entry.info.size || !this.#objects.memory.fits(entry.info)) return loaded
      yield* this.#objects.keepInMemory({ entry, bytes }, fill)
      return Option.some(this.#own(bytes, { start: 0, endExclusive: bytes.byteLength }))
    }))
  }

  /** Opens an object in the tier. Where its stream breaks, the rest is read from the storage. */
  #openInTier(
    tier: SecondTier,
    entry: Entry,
    range: ResolvedRange,
    options: StreamOptions
  ): Effect.Effect<Option.Option<OpenedObject>, never, Scope.Scope> {
    const { etag, key } = entry.info
    return Effect.flatMap(Effect.scope, (outer) =>
      Effect.flatMap(
        tier.open(entry, range, options.chunkSize),
        Effect.transposeMapOption((opened) => {
          if (opened.bytes !== undefined) return Effect.as(this.#counters.served(opened.bytes.byteLength), opened)
          const counted = mapStream(
            opened,
            Stream.ensuring(Effect.suspend(() => this.#counters.served(opened.position())))
          )
          return Effect.succeed(resuming(counted, {
            canResume: () => true,
            openRest: (rest) =>
              Scope.extend(
                this.#inner.open(key, { range: rest, ifMatch: etag, chunkSize: options.chunkSize }),
                outer
              )
          }))
        })
      ))
  }

  /** An array for the caller. */
  #own(bytes: Bytes, { endExclusive, start }: ResolvedRange): Bytes {
    return !this.#isShared
      ? copyOf(bytes, start, endExclusive)
      : endExclusive - start === bytes.byteLength
      ? bytes
      : bytes.subarray(start, endExclusive)
  }
}

const isPlain = ({ ifMatch, ifNoneMatch, range }: LoadOptions): boolean =>
  range === undefined && ifMatch === undefined && ifNoneMatch === undefined

const withCondition = <Options extends LoadOptions>(options: Options, unless: string | undefined): Options =>
  unless === undefined ? options : { ...options, ifNoneMatch: unless }

/** What the storage has just said. */
const confirmed = (info: ObjectInfo): Effect.Effect<Entry> =>
  Effect.map(Clock.currentTimeMillis, (confirmedAt) => ({ info, confirmedAt }))
