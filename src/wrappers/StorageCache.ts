/**
 * A cache in front of a storage: what is loaded often is kept in memory, so many bytes of it, and where a second tier is
 * given (a directory in front of a bucket, say) there too, where it outlives the process.
 *
 * - Objects are kept whole. A load or stream of a whole object puts it into the cache, and a range of it is served from
 *   there; a range of what is not there goes to the storage, and nothing is kept of it. A stream fills the cache as it
 *   passes by; one that is not read to its end, or that breaks, leaves nothing behind.
 * - Fibers that load one object at once make one request.
 * - Saves, removals, copies and moves go through, and what they change leaves the cache when they end, also when they
 *   fail. What others change in the storage is seen as `freshness` says.
 * - Whoever loads bytes has an array of their own. Streams give views of the cached bytes, which are not to be written
 *   to; with `shared: true` loads do, too.
 * - A load that names the etag of what is in the cache by `ifMatch` is answered from there: it could not be another. One
 *   that names another etag is for the storage.
 * - Whoever finds that what came is damaged, as `ModelChunks` does by its hashes, is given what the storage has, and the
 *   cache forgets what it had.
 * - Where the second tier fails, the storage is asked; the failure is counted, and the first one is logged.
 *
 * @module StorageCache
 * @since 0.1.0
 */
import type * as FileSystem from "@effect/platform/FileSystem"
import * as Chunk from "effect/Chunk"
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Fiber from "effect/Fiber"
import * as FiberId from "effect/FiberId"
import * as FiberRef from "effect/FiberRef"
import * as Layer from "effect/Layer"
import * as Mailbox from "effect/Mailbox"
import * as Option from "effect/Option"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import { LRUCache } from "lru-cache"
import * as ByteRange from "../ByteRange.js"
import { allocate, copyOf, fill, tooLargeForAnArray } from "../internal/bytes.js"
import * as Tier from "../internal/cacheTier.js"
import { counter } from "../internal/metrics.js"
import { annotate } from "../internal/observe.js"
import * as PastCaches from "../internal/pastCaches.js"
import * as Storage from "../Storage.js"
import * as StorageBackend from "../StorageBackend.js"
import * as E from "../StorageError.js"

/**
 * Whether what is in the cache may be served without asking the storage:
 *
 * - `"revalidate"`: never; each load asks whether the object has changed, and moves its bytes only if it has
 * - `{ timeToLive }`: for so long after it was loaded or asked for
 * - `"immutable"`: always; for weights whose keys are never given to others
 *
 * @since 0.1.0
 * @category models
 */
export type Freshness = "revalidate" | "immutable" | { readonly timeToLive: Duration.DurationInput }

/**
 * A cache, but for its second tier.
 *
 * @since 0.1.0
 * @category models
 */
export interface Options {
  /** How many bytes are kept in memory. An object that is larger is not. */
  readonly capacity: FileSystem.SizeInput
  /** Default: `"revalidate"`. */
  readonly freshness?: Freshness
  /** Whether loads give the cached bytes themselves, which nobody may then write to. Default: false. */
  readonly shared?: boolean
}

/**
 * A cache with a second tier: any storage that nobody else writes to, given as a layer.
 *
 * @since 0.1.0
 * @category models
 */
export interface LayerOptions<Err, R> extends Options {
  readonly tier?: {
    readonly layer: Layer.Layer<Storage.Storage, Err, R>
    /** How many bytes are kept there, with about 150 more for each object. */
    readonly capacity: FileSystem.SizeInput
  }
}

/**
 * What a cache has done since it was made, and what is in it now. `bytes` are those that were served from it.
 *
 * @since 0.1.0
 * @category models
 */
export interface Statistics {
  readonly hits: number
  readonly misses: number
  readonly bytes: number
  readonly evictions: number
  /** Of the second tier. */
  readonly failures: number
  readonly memory: { readonly objects: number; readonly size: number }
  readonly tier: { readonly objects: number; readonly size: number }
}

/**
 * The cache behind a storage.
 *
 * @since 0.1.0
 * @category models
 */
export interface Cache {
  readonly statistics: Effect.Effect<Statistics>
  /** Loads objects ahead, four at once, where they are not in the cache yet and there is a place for them. */
  readonly warm: (keys: Iterable<string>) => Effect.Effect<void, E.LoadError>
}

/**
 * The cache that a layer provides beside its storage.
 *
 * @since 0.1.0
 * @category tags
 */
export class StorageCache extends Context.Tag("surfing-weights/StorageCache")<StorageCache, Cache>() {}

/**
 * A cache in front of a storage, with a second tier or without. Fails with `UnsupportedOperation` where a capacity or a
 * time is not above zero, or where the second tier cannot list and save. What the second tier holds from before is looked
 * for here; where that fails, again before something is put there.
 *
 * @since 0.1.0
 * @category constructors
 */
export const make = (
  storage: Storage.Service,
  options: Options,
  tier?: { readonly storage: Storage.Service; readonly capacity: FileSystem.SizeInput }
): Effect.Effect<{ readonly storage: Storage.Service; readonly cache: Cache }, E.UnsupportedOperation> =>
  Effect.gen(function*() {
    const name = `Cache(${storage.backend.name})`
    const { freshness = "revalidate" } = options
    const limits = {
      capacity: Number(options.capacity),
      "tier.capacity": tier === undefined ? 1 : Number(tier.capacity),
      timeToLive: typeof freshness === "string" ? 1 : Math.ceil(Duration.toMillis(freshness.timeToLive))
    }
    for (const [limit, value] of Object.entries(limits)) {
      if (value >= 1 && (Number.isSafeInteger(value) || limit === "timeToLive")) continue
      const unit = limit === "timeToLive" ? "a time" : "a whole number of bytes"
      const reason = `${limit} is ${unit} above zero, not ${value}`
      return yield* new E.UnsupportedOperation({ backend: name, operation: "open", reason })
    }
    if (tier !== undefined && !(tier.storage.backend.capabilities.write && tier.storage.backend.capabilities.list)) {
      const reason = `${tier.storage.backend.name} cannot be its second tier, since it cannot ${
        tier.storage.backend.capabilities.list ? "save" : "list"
      }`
      return yield* new E.UnsupportedOperation({ backend: name, operation: "open", reason })
    }
    const counts = makeCounts(name)
    const second = tier && (yield* Tier.make(tier.storage.backend, limits["tier.capacity"], counts.fail, counts.evict))
    const { backend, contents, lacks } = makeBackend(storage.backend, name, {
      capacity: limits.capacity,
      lifetime: freshness === "revalidate" ? 0 : freshness === "immutable" ? Infinity : limits.timeToLive,
      shared: options.shared ?? false,
      counts,
      tier: second
    })
    const cached = Storage.make(backend)
    return {
      storage: cached,
      cache: {
        statistics: Effect.sync(() => ({ ...counts.now(), ...contents() })),
        warm: (keys) =>
          Effect.forEach(
            new Set(keys),
            (key) =>
              Effect.scoped(Effect.flatMap(cached.open(key), ({ info, stream }) =>
                Effect.whenEffect(Stream.runDrain(stream), lacks(info)))),
            { concurrency: 4, discard: true }
          )
      }
    }
  })

/**
 * Provides the storage that it needs, with a cache in front of it, and the cache.
 *
 * @since 0.1.0
 * @category layers
 * @example
 * ```ts
 * import { Layer } from "effect"
 * import { FileSystemStorage, S3Storage, StorageCache } from "surfing-weights"
 *
 * const WeightsLive = StorageCache.layer({
 *   capacity: 2 * 1024 ** 3,
 *   freshness: { timeToLive: "10 minutes" },
 *   tier: {
 *     layer: FileSystemStorage.layer({ directory: "/var/cache/weights" }),
 *     capacity: 50 * 1024 ** 3
 *   }
 * }).pipe(
 *   Layer.provide(S3Storage.layer({ bucket: "model-weights" }))
 * )
 * ```
 */
export const layer = <Err = never, R = never>(
  { tier, ...options }: LayerOptions<Err, R>
): Layer.Layer<Storage.Storage | StorageCache, Err | E.UnsupportedOperation, Storage.Storage | R> =>
  Layer.scopedContext(Effect.gen(function*() {
    const storage = yield* Storage.Storage
    const second = tier && {
      storage: Context.get(yield* Layer.build(tier.layer), Storage.Storage),
      capacity: tier.capacity
    }
    const made = yield* make(storage, options, second)
    return Context.make(Storage.Storage, made.storage).pipe(Context.add(StorageCache, made.cache))
  }))

/** An object in memory. */
interface Cached {
  readonly info: StorageBackend.ObjectInfo
  readonly bytes: Uint8Array
}

/** Something on its way into the cache, which is not to be kept if the object is changed meanwhile. */
interface Coming {
  stale: boolean
}

/** An object that is being loaded, for everybody who wants it. */
interface Flight extends Coming {
  readonly landing: Deferred.Deferred<Cached, E.LoadError>
  loading: Fiber.Fiber<unknown, unknown> | undefined
  waiting: number
}

/** Counts what a cache does, for its statistics and as metrics. */
const makeCounts = (name: string) => {
  const now = { hits: 0, misses: 0, bytes: 0, evictions: 0, failures: 0 }
  const counting = (what: keyof typeof now, description: string) => {
    const count = counter(`storage_cache_${what}`, description, { backend: name })
    return (by: number) => {
      now[what] += by
      count(by)
    }
  }
  const hits = counting("hits", "reads that were served from the cache")
  const misses = counting("misses", "reads for which the storage was asked")
  const bytes = counting("bytes", "bytes that were served from the cache")
  const evictions = counting("evictions", "objects that had to go for others")
  const failures = counting("failures", "failures of the second tier")
  return {
    now: () => now,
    hit: Effect.suspend(() => {
      hits(1)
      return annotate("storage.cache", "hit")
    }),
    miss: Effect.suspend(() => {
      misses(1)
      return annotate("storage.cache", "miss")
    }),
    evict: () => evictions(1),
    serve: (served: Uint8Array): Uint8Array => {
      bytes(served.byteLength)
      return served
    },
    fail: (error: E.StorageError) =>
      Effect.suspend(() => {
        failures(1)
        return now.failures === 1
          ? Effect.logWarning(`the second tier of ${name} fails; what it does not give is loaded again`, error)
          : Effect.void
      })
  }
}

const makeBackend = (
  inner: StorageBackend.StorageBackend,
  name: string,
  { capacity, counts, lifetime, shared, tier }: {
    /** In bytes. */
    readonly capacity: number
    /** For how long an object is served without asking, in milliseconds. */
    readonly lifetime: number
    readonly shared: boolean
    readonly counts: ReturnType<typeof makeCounts>
    readonly tier: Tier.Tier | undefined
  }
): {
  readonly backend: StorageBackend.StorageBackend
  /** Whether there is a place for an object that was opened, and it is not there yet. */
  readonly lacks: (info: StorageBackend.ObjectInfo) => Effect.Effect<boolean>
  readonly contents: () => Pick<Statistics, "memory" | "tier">
} => {
  const memory = new LRUCache<string, Cached>({
    maxSize: capacity,
    sizeCalculation: ({ bytes }) => Math.max(1, bytes.byteLength),
    dispose: (_, __, reason) => {
      if (reason === "evict") counts.evict()
    }
  })
  const flights = new Map<string, Flight>()
  const comings = new Map<string, Set<Coming>>()
  /** The keys of streams that fill the cache. */
  const fills = new Set<string>()
  /** When the storage last said that an object is as it is in the cache, in milliseconds. */
  const confirmed = new WeakMap<StorageBackend.ObjectInfo, number>()

  const isFresh = (info: StorageBackend.ObjectInfo, now: number) =>
    lifetime === Infinity || now - (confirmed.get(info) ?? -Infinity) < lifetime

  /** Whether there is a place for an object like this. */
  const fits = (info: StorageBackend.ObjectInfo) => info.size <= capacity || tier?.takes(info) === true

  /** What is known of an object that is in the cache. */
  const find = (key: string): Effect.Effect<StorageBackend.ObjectInfo | undefined> =>
    Effect.suspend(() => {
      const info = memory.get(key)?.info
      return info === undefined && tier !== undefined ? tier.find(key) : Effect.succeed(info)
    })

  const own = (bytes: Uint8Array, { endExclusive, start }: ByteRange.ResolvedRange) =>
    !shared
      ? copyOf(bytes, start, endExclusive)
      : endExclusive - start === bytes.byteLength
      ? bytes
      : bytes.subarray(start, endExclusive)

  /** Keeps an object, unless it was changed since it was asked for. */
  const keep = (cached: Cached, coming: Coming): Effect.Effect<void> =>
    Effect.suspend(() => {
      if (coming.stale) return Effect.void
      if (cached.info.size <= capacity) memory.set(cached.info.key, cached)
      return keepInTier(cached.info, cached.bytes, coming)
    })

  const keepInTier = (
    info: StorageBackend.ObjectInfo,
    data: Uint8Array | Stream.Stream<Uint8Array>,
    coming: Coming
  ): Effect.Effect<void> =>
    tier?.takes(info) === true
      ? Effect.asVoid(tier.save(info, data, () => !coming.stale))
      : Effect.void

  /** To be done before an object is asked for that may be kept. */
  const announce = (key: string, coming: Coming = { stale: false }): Effect.Effect<Coming, never, Scope.Scope> =>
    Effect.acquireRelease(
      Effect.sync(() => {
        const all = comings.get(key)
        if (all === undefined) comings.set(key, new Set([coming]))
        else all.add(coming)
        return coming
      }),
      (coming) =>
        Effect.sync(() => {
          const all = comings.get(key)
          if (all?.delete(coming) === true && all.size === 0) comings.delete(key)
        })
    )

  const forget = (keys: ReadonlyArray<string>): Effect.Effect<void> =>
    Effect.suspend(() => {
      for (const key of keys) {
        memory.delete(key)
        for (const coming of comings.get(key) ?? []) coming.stale = true
      }
      return tier?.remove(keys) ?? Effect.void
    })

  const confirm = (info: StorageBackend.ObjectInfo) =>
    Clock.clockWith((clock) => Effect.sync(() => void confirmed.set(info, clock.unsafeCurrentTimeMillis())))

  /** Loads an object whole, with what is known of it, on one request; unless it has this etag. */
  const fetch = (key: string, unless: string | undefined, coming: Coming): Effect.Effect<Cached, E.LoadError> =>
    Effect.scoped(Effect.gen(function*() {
      yield* announce(key, coming)
      const { info, stream } = yield* inner.open(key, unless === undefined ? {} : { ifNoneMatch: unless })
      yield* confirm(info)
      const bytes = allocate(info.size)
      if (bytes === undefined) return yield* tooLargeForAnArray(info.size, { backend: name, operation: "load", key })
      yield* fill(bytes, stream)
      yield* keep({ info, bytes }, coming)
      return { info, bytes }
    }))

  /** The bytes of a whole object. Whoever wants them at the time has them of one request, as long as anybody waits. */
  const fetchOnce = (key: string, unless: string | undefined): Effect.Effect<Uint8Array, E.LoadError> => {
    // Who asks for anything cannot do with the answer that nothing has changed.
    const id = unless === undefined ? key : `${key}\0${unless}`
    const land = (flight: Flight) => {
      if (flights.get(id) === flight) flights.delete(id)
    }
    return Effect.uninterruptibleMask((restore) =>
      Effect.gen(function*() {
        const flying = flights.get(id)
        const flight: Flight = flying?.stale === false
          ? flying
          : { stale: false, landing: Deferred.unsafeMake(FiberId.none), loading: undefined, waiting: 0 }
        flight.waiting++
        if (flight !== flying) {
          flights.set(id, flight)
          flight.loading = yield* Effect.interruptible(fetch(key, unless, flight)).pipe(
            Effect.onExit((exit) => {
              land(flight)
              return Deferred.done(flight.landing, exit)
            }),
            Effect.forkDaemon
          )
        }
        const leave = Effect.suspend(() => {
          if (--flight.waiting > 0) return Effect.void
          land(flight)
          return flight.loading === undefined ? Effect.void : Fiber.interrupt(flight.loading)
        })
        return yield* restore(Deferred.await(flight.landing)).pipe(
          // Whoever comes last may have the array itself, if the cache does not.
          Effect.map(({ bytes, info }) =>
            memory.peek(key)?.bytes !== bytes && flight.waiting === 1 ? bytes : own(bytes, wholeOf(info))
          ),
          Effect.ensuring(leave)
        )
      })
    )
  }

  /** Where the bytes of a read may come from. */
  interface Sources<A, R> {
    readonly memory: (cached: Cached) => Effect.Effect<A, E.LoadError, R>
    /** Nothing where the tier fails. */
    readonly tier: (
      tier: Tier.Tier,
      info: StorageBackend.ObjectInfo
    ) => Effect.Effect<Option.Option<A>, E.LoadError, R>
    /** From the storage, unless the object has this etag. */
    readonly storage: (unless?: string) => Effect.Effect<A, E.LoadError, R>
  }

  /** The one way of every read: from memory, from the tier, or from the storage; which may say that nothing changed. */
  const read = <A, R>(
    key: string,
    { ifMatch, ifNoneMatch }: StorageBackend.LoadOptions,
    sources: Sources<A, R>
  ): Effect.Effect<A, E.LoadError, R> => {
    const miss = Effect.zipRight(counts.miss, Effect.suspend(sources.storage))

    const fromCache = (info: StorageBackend.ObjectInfo, cached: Cached | undefined) =>
      cached !== undefined
        ? Effect.zipRight(counts.hit, sources.memory(cached))
        : tier === undefined
        ? miss
        : Effect.matchEffect(sources.tier(tier, info), {
          onFailure: (error) => Effect.zipRight(counts.hit, Effect.fail(error)),
          onSuccess: Option.match({
            onNone: () => miss,
            onSome: (found) => Effect.as(counts.hit, found)
          })
        })

    const fromHere = (info: StorageBackend.ObjectInfo, cached: Cached | undefined) =>
      Effect.clockWith((clock) =>
        // What somebody knows of another version is newer than what is here.
        (ifMatch === undefined ? isFresh(info, clock.unsafeCurrentTimeMillis()) : info.etag === ifMatch)
          ? fromCache(info, cached)
          : ifMatch !== undefined || ifNoneMatch !== undefined
          ? miss
          : Effect.matchEffect(sources.storage(info.etag), {
            onSuccess: (found) => Effect.as(counts.miss, found),
            onFailure: (error) =>
              error._tag === "ObjectNotModified"
                ? Effect.zipRight(confirm(info), fromCache(info, cached))
                : Effect.zipRight(counts.miss, Effect.fail(error))
          })
      )

    return Effect.suspend(() => {
      const cached = memory.get(key)
      return cached !== undefined
        ? fromHere(cached.info, cached)
        : Effect.flatMap(find(key), (info) => info === undefined ? miss : fromHere(info, undefined))
    })
  }

  /** A read, or where the fiber reads past caches, the same of the storage; what is here of the object then goes. */
  const unlessPast = <A, R>(
    key: string,
    inStorage: () => Effect.Effect<A, E.LoadError, R>,
    read: Effect.Effect<A, E.LoadError, R>
  ): Effect.Effect<A, E.LoadError, R> =>
    Effect.flatMap(
      FiberRef.get(PastCaches.current),
      (past) => past ? Effect.zipRight(forget([key]), Effect.suspend(inStorage)) : read
    )

  const check = (operation: string, info: StorageBackend.ObjectInfo, options: StorageBackend.LoadOptions) =>
    StorageBackend.checkLoad(info, options, { backend: name, operation })

  const load: StorageBackend.StorageBackend["load"] = (key, options) =>
    read(key, options, {
      memory: ({ bytes, info }) => Either.map(check("load", info, options), (range) => counts.serve(own(bytes, range))),
      tier: (tier, info) =>
        Effect.scoped(Effect.gen(function*() {
          const range = yield* check("load", info, options)
          const coming = yield* announce(key)
          return Option.map(yield* tier.load(info, range), (bytes) => {
            counts.serve(bytes)
            if (coming.stale || bytes.byteLength < info.size || info.size > capacity) return bytes
            memory.set(key, { info, bytes })
            return own(bytes, range)
          })
        })),
      storage: (unless) =>
        // What is asked of the storage in a particular way is not for the others.
        options.range !== undefined || options.ifMatch !== undefined || options.ifNoneMatch !== undefined
          ? inner.load(key, unless === undefined ? options : { ...options, ifNoneMatch: unless })
          : fetchOnce(key, unless)
    })

  const loadRanges: StorageBackend.StorageBackend["loadRanges"] = (key, ranges, options) => {
    const resolve = (info: StorageBackend.ObjectInfo) =>
      Either.all(ranges.map((range) => check("loadRanges", info, { ...options, range })))
    return read(key, options, {
      memory: ({ bytes, info }) =>
        Either.map(resolve(info), (ranges) => ranges.map((range) => counts.serve(own(bytes, range)))),
      tier: (tier, info) =>
        Effect.flatMap(
          resolve(info),
          (ranges) => Effect.map(tier.loadRanges(info, ranges), Option.map((all) => all.map(counts.serve)))
        ),
      storage: (unless) =>
        inner.loadRanges(key, ranges, unless === undefined ? options : { ...options, ifNoneMatch: unless })
    })
  }

  const open: StorageBackend.StorageBackend["open"] = (key, options) =>
    read<StorageBackend.OpenedObject, Scope.Scope>(key, options, {
      memory: ({ bytes, info }) =>
        Either.map(check("load", info, options), (range) => ({
          info,
          range,
          stream: Stream.fromChunk(
            Chunk.unsafeFromArray(viewsOf(counts.serve(bytes.subarray(range.start, range.endExclusive))))
          )
        })),
      tier: (tier, info) =>
        Effect.flatMap(check("load", info, options), (range) =>
          Effect.map(
            tier.open(info, range),
            Option.map((stream) => ({ info, range, stream: goingOn(info, range, stream) }))
          )),
      storage: (unless) =>
        Effect.flatMap(announce(key), (coming) =>
          Effect.flatMap(
            inner.open(key, unless === undefined ? options : { ...options, ifNoneMatch: unless }),
            (opened) =>
              Effect.as(
                confirm(opened.info),
                { info: opened.info, range: opened.range, stream: filling(opened, coming) }
              )
          ))
    })

  /** What the tier gives, and where it breaks, the rest from the storage. */
  const goingOn = (
    info: StorageBackend.ObjectInfo,
    range: ByteRange.ResolvedRange,
    stream: Stream.Stream<Uint8Array, E.LoadError>
  ): Stream.Stream<Uint8Array, E.LoadError> =>
    Stream.suspend(() => {
      let at = range.start
      const counted = Stream.mapChunks(stream, (chunk) => {
        for (const bytes of chunk) at += counts.serve(bytes).byteLength
        return chunk
      })
      return Stream.catchAll(counted, () =>
        at === range.endExclusive ? Stream.empty : Stream.unwrapScoped(Effect.map(
          inner.open(info.key, { range: ByteRange.make(at, range.endExclusive), ifMatch: info.etag }),
          ({ stream }) => stream
        )))
    })

  /** A stream that fills the cache as it passes by, if it is that of a whole object and no other does. */
  const filling = (
    { info, range, stream }: StorageBackend.OpenedObject,
    coming: Coming
  ): Stream.Stream<Uint8Array, E.LoadError> => {
    const { key, size } = info
    const intoTier = tier?.takes(info) === true
    if (range.start > 0 || range.endExclusive < size || !fits(info)) return stream
    return Stream.unwrapScoped(Effect.gen(function*() {
      if (fills.has(key)) return stream
      yield* Effect.acquireRelease(
        Effect.sync(() => fills.add(key)),
        () => Effect.sync(() => fills.delete(key))
      )
      return intoTier ? yield* passingOn(info, stream, coming) : gathering(info, stream, coming)
    }))
  }

  /** Into memory, when all of it has come. */
  const gathering = (
    info: StorageBackend.ObjectInfo,
    stream: Stream.Stream<Uint8Array, E.LoadError>,
    coming: Coming
  ): Stream.Stream<Uint8Array, E.LoadError> => {
    const bytes = allocate(info.size)
    if (bytes === undefined) return stream
    let at = 0
    const gathered = Stream.mapChunks(stream, (chunk) => {
      for (const piece of chunk) {
        if (at + piece.byteLength <= info.size) bytes.set(piece, at)
        at += piece.byteLength
      }
      return chunk
    })
    const keeping = Effect.sync(() => {
      if (at === info.size && !coming.stale) memory.set(info.key, { info, bytes })
    })
    return Stream.concat(gathered, Stream.execute(keeping))
  }

  /** Into the tier, chunk by chunk; it ends when the tier has all of it. */
  const passingOn = (
    info: StorageBackend.ObjectInfo,
    stream: Stream.Stream<Uint8Array, E.LoadError>,
    coming: Coming
  ): Effect.Effect<Stream.Stream<Uint8Array, E.LoadError>, never, Scope.Scope> =>
    Effect.gen(function*() {
      const chunks = yield* Mailbox.make<Uint8Array>(1)
      const saving = yield* Effect.forkScoped(Effect.interruptible(Effect.ensuring(
        keepInTier(info, Mailbox.toStream(chunks), coming),
        // A tier that fails must not make the reader wait.
        chunks.shutdown
      )))
      const passed = Stream.mapChunksEffect(stream, (chunk) =>
        Effect.as(
          // The reader may write to its chunks.
          Effect.forEach(chunk, (bytes) => chunks.offer(shared ? bytes : copyOf(bytes)), { discard: true }),
          chunk
        ))
      return Stream.concat(
        passed,
        Stream.execute(Effect.zipRight(chunks.end, Fiber.await(saving)))
      )
    })

  const head: StorageBackend.StorageBackend["head"] = (key) =>
    Effect.flatMap(
      find(key),
      (info) =>
        Effect.clockWith((clock) =>
          info !== undefined && isFresh(info, clock.unsafeCurrentTimeMillis()) ? Effect.succeed(info) : inner.head(key)
        )
    )

  /** What is changed leaves the cache when that ends, however it ends. */
  const changing = <A, Err, R>(effect: Effect.Effect<A, Err, R>, ...keys: ReadonlyArray<string>) =>
    Effect.ensuring(effect, forget(keys))

  return {
    backend: {
      name,
      capabilities: inner.capabilities,
      open: (key, options) => unlessPast(key, () => inner.open(key, options), open(key, options)),
      load: (key, options) => unlessPast(key, () => inner.load(key, options), load(key, options)),
      loadRanges: (key, ranges, options) =>
        unlessPast(key, () => inner.loadRanges(key, ranges, options), loadRanges(key, ranges, options)),
      head,
      save: (key, data, options) => changing(inner.save(key, data, options), key),
      entries: inner.entries,
      keys: inner.keys,
      listDirectory: inner.listDirectory,
      remove: (key) => changing(inner.remove(key), key),
      removeAll: (keys) => changing(inner.removeAll(keys), ...keys),
      copy: (from, to, options) => changing(inner.copy(from, to, options), to),
      move: (from, to, options) => changing(inner.move(from, to, options), from, to),
      presign: inner.presign
    },
    lacks: (info) => Effect.map(find(info.key), (known) => known !== info && fits(info)),
    contents: () => ({
      memory: { objects: memory.size, size: memory.calculatedSize },
      tier: tier?.state() ?? { objects: 0, size: 0 }
    })
  }
}

const wholeOf = ({ size }: StorageBackend.ObjectInfo): ByteRange.ResolvedRange => ({ start: 0, endExclusive: size })

const viewSize = 1024 * 1024

/** The same bytes in views that a reader can take one after the other. */
const viewsOf = (bytes: Uint8Array): ReadonlyArray<Uint8Array> =>
  Array.from(
    { length: Math.ceil(bytes.byteLength / viewSize) },
    (_, index) => bytes.subarray(index * viewSize, (index + 1) * viewSize)
  )
