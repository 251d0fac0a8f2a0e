/**
 * A cache in front of a storage: objects that are loaded often are kept in memory and, where a second tier is given (for
 * instance a directory in front of a bucket), there too, where they outlive the process.
 *
 * - Objects are kept whole, unless `blocks` is given. A load or stream of a whole object fills the cache, and its ranges are
 *   then served from there; a range of an object that is not in the cache goes to the storage, and is not kept. A stream
 *   fills the cache as it passes through; one that is not read to its end, or that breaks, leaves nothing behind.
 * - With `blocks`, objects are kept in blocks of that size: for parts of large objects, such as the tensors of a file. Each
 *   read fetches the blocks that it touches and that are missing, whole, neighbours with one request, under the etag of those
 *   that are here; blocks of two versions are never joined. What a stream has passed is kept wherever it ends, so that a
 *   process that was killed goes on where it was. A stream reads one block ahead.
 * - Fibers that load the same object at once share one request (single flight). One that begins while a request is under way
 *   joins it, so that it may see the object as it was when that request began, also where it is revalidated; only a change
 *   that is made through the cache is never missed.
 * - Saves, removals, copies and moves go through, and invalidate what they change when they end, also when they fail.
 *   Changes that others make in the storage are noticed as `freshness` says.
 * - Each load returns a new array, unless `shared` is true.
 * - A load whose `ifMatch` is the etag of the object in the cache is served from there; with any other etag it goes to the
 *   storage. One with `bypassCache` goes to the storage and invalidates the object.
 * - Where the second tier fails, the storage is used; the failure is counted, and the first one is logged. Objects of an
 *   earlier process are held against their SHA-256 when they are first read, and blocks whenever they are read from there;
 *   damaged ones are fetched anew. So are objects that were kept for another storage: another bucket, endpoint, prefix or
 *   directory.
 *
 * @module StorageCache
 * @since 0.1.0
 */
import type * as FileSystem from "@effect/platform/FileSystem"
import * as Config from "effect/Config"
import type { ConfigError } from "effect/ConfigError"
import * as Context from "effect/Context"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import { dual } from "effect/Function"
import * as Layer from "effect/Layer"
import * as Predicate from "effect/Predicate"
import * as Schema from "effect/Schema"
import * as Stream from "effect/Stream"
import { boolean, decode, duration, must, show, size, storage } from "../internal/options.js"
import * as Storage from "../Storage.js"
import type { ObjectInfo, StorageBackend } from "../StorageBackend.js"
import { InvalidOptions, type LoadError } from "../StorageError.js"
import { BlockReader } from "./cache/blockReader.js"
import { CachedBlocks } from "./cache/blocks.js"
import { BlockTier } from "./cache/blockTier.js"
import { Counters } from "./cache/counters.js"
import { CachedObjects } from "./cache/objects.js"
import { Reader } from "./cache/reader.js"
import { SecondTier } from "./cache/secondTier.js"
import { TierStorage } from "./cache/tierStorage.js"

/**
 * When an object in the cache may be served without asking the storage:
 *
 * - `"revalidate"`: never; each load checks whether the object has changed, and transfers it only then
 * - `{ timeToLive }`: for this long after it was loaded or revalidated
 * - `"immutable"`: always; for weights whose keys are never reused
 *
 * @since 0.1.0
 * @category models
 */
export type Freshness = "revalidate" | "immutable" | { readonly timeToLive: Duration.DurationInput }

/**
 * A cache, without its second tier.
 *
 * @since 0.1.0
 * @category models
 */
export interface MemoryOptions {
  /** How many bytes are kept in memory. A larger object is not kept there. */
  readonly capacity: FileSystem.SizeInput
  /** Default: `"revalidate"`. */
  readonly freshness?: Freshness | undefined
  /** Whether loads and streams return the cached bytes themselves, which must then not be changed. Default: false. */
  readonly shared?: boolean | undefined
  /**
   * The size of the blocks in which objects are kept, in bytes, at most the larger capacity: 4 MiB for tensors and streams,
   * less for small ranges, since blocks are fetched, and read from the second tier, whole. Default: objects are kept whole,
   * which takes less where they are read whole: 64 MiB in blocks of 4 MiB take the same time from memory, as a load or a
   * stream (this with 1.3 times the processor time), but four times as long from the second tier, where each block is hashed
   * whenever it is read: benchmarks `blocks-load`, `blocks-stream` and `blocks-tier`. The first load of an object of 20 kB
   * takes twice as much processor time.
   */
  readonly blocks?: FileSystem.SizeInput | undefined
}

/**
 * A cache. The second tier is any storage that nothing else writes to.
 *
 * @since 0.1.0
 * @category models
 */
export interface Options extends MemoryOptions {
  readonly tier?: {
    readonly storage: Storage.Service
    /** How many bytes are kept there, including about 250 for each object or block. */
    readonly capacity: FileSystem.SizeInput
  } | undefined
}

/**
 * A cache whose second tier is given as a layer.
 *
 * @since 0.1.0
 * @category models
 */
export interface LayerOptions<Err, R> extends MemoryOptions {
  readonly tier?: {
    readonly layer: Layer.Layer<Storage.Storage, Err, R>
    /** How many bytes are kept there, including about 250 for each object or block. */
    readonly capacity: FileSystem.SizeInput
  } | undefined
}

/**
 * What a cache has done since it was made, and what it holds.
 *
 * @since 0.1.0
 * @category models
 */
export interface Statistics {
  readonly hits: number
  readonly misses: number
  /** Those that were served from the cache. */
  readonly bytes: number
  /** Of objects, or of blocks where these are kept. */
  readonly evictions: number
  /** Of the second tier, damaged bytes included. */
  readonly failures: number
  /** `blocks` where the cache keeps these: how many the objects have here. */
  readonly memory: { readonly objects: number; readonly blocks?: number; readonly size: number }
  readonly tier: { readonly objects: number; readonly blocks?: number; readonly size: number }
}

/**
 * The cache of a storage.
 *
 * @since 0.1.0
 * @category models
 */
export interface Cache {
  readonly statistics: Effect.Effect<Statistics>
  /** Loads objects that are not in the cache and fit into it, or the blocks that are missing of them, four at once. */
  readonly warm: (keys: Iterable<string>) => Effect.Effect<void, LoadError>
}

/**
 * A storage with its cache.
 *
 * @since 0.1.0
 * @category models
 */
export interface CachedStorage extends Storage.Service {
  readonly cache: Cache
}

/**
 * The cache that a layer provides beside its storage.
 *
 * @since 0.1.0
 * @category tags
 */
export class StorageCache extends Context.Tag("surfing-weights/StorageCache")<StorageCache, Cache>() {}

/**
 * The same storage with a cache in front of it. Fails with `InvalidOptions` also where the second tier cannot list and save.
 * Lists what the second tier holds from before; where that fails, again before something is put there.
 *
 * @since 0.1.0
 * @category constructors
 * @example
 * ```ts
 * import { Effect } from "effect"
 * import { MemoryStorage, StorageCache } from "surfing-weights"
 *
 * const statistics = Effect.gen(function*() {
 *   const memory = yield* MemoryStorage.make()
 *   const storage = yield* memory.pipe(StorageCache.make({ capacity: 2 * 1024 ** 3 }))
 *   yield* storage.cache.warm(["layer_0.bin", "layer_1.bin"])
 *   return yield* storage.cache.statistics
 * })
 * ```
 */
export const make: {
  (options: Options): (storage: Storage.Service) => Effect.Effect<CachedStorage, InvalidOptions>
  (storage: Storage.Service, options: Options): Effect.Effect<CachedStorage, InvalidOptions>
} = dual(
  2,
  (inner: Storage.Service, options: Options): Effect.Effect<CachedStorage, InvalidOptions> =>
    Effect.gen(function*() {
      const { blocks, capacity, freshness, shared, tier } = yield* decode("StorageCache", schema, options)
      yield* checkTier(tier?.storage.backend)
      if (blocks !== undefined) yield* checkBlocks(blocks, capacity, tier?.capacity)
      const name = `Cache(${inner.backend.name})`
      const counters = new Counters(name)
      const stored = tier && (yield* TierStorage.make(inner.backend, tier.storage.backend, tier.capacity, counters))
      const settings = { capacity, counters, timeToLive: freshness }
      if (blocks === undefined) {
        const objects = new CachedObjects({ ...settings, tier: stored && new SecondTier(stored, counters) })
        const reader = new Reader(inner.backend, objects, counters, shared)
        return cachedStorage(inner.backend, name, counters, objects, reader)
      }
      const cached = new CachedBlocks({ ...settings, blockSize: blocks, tier: stored && new BlockTier(stored, blocks) })
      const reader = new BlockReader(inner.backend, cached, counters, shared)
      return cachedStorage(inner.backend, name, counters, cached, reader)
    })
)

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
): Layer.Layer<Storage.Storage | StorageCache, Err | InvalidOptions, Storage.Storage | R> =>
  tier === undefined
    ? layerOf(options)
    : Layer.flatMap(tier.layer, (context) =>
      layerOf({ ...options, tier: { storage: Context.get(context, Storage.Storage), capacity: tier.capacity } }))

const layerOf = (
  options: Options
): Layer.Layer<Storage.Storage | StorageCache, InvalidOptions, Storage.Storage> =>
  Layer.effectContext(
    Effect.map(Effect.flatMap(Storage.Storage, make(options)), (storage) =>
      Context.make(Storage.Storage, storage).pipe(Context.add(StorageCache, storage.cache)))
  )

/**
 * Provides the storage that it needs, with a cache in front of it, and the cache, with options from `Config`.
 *
 * @since 0.1.0
 * @category layers
 * @example
 * ```ts
 * import { Config } from "effect"
 * import { FileSystemStorage, StorageCache } from "surfing-weights"
 *
 * const Cache = StorageCache.layerConfig({ capacity: Config.integer("WEIGHTS_MEMORY") }, {
 *   layer: FileSystemStorage.layer({ directory: "/var/cache/weights" }),
 *   capacity: Config.integer("WEIGHTS_DISK")
 * })
 * ```
 */
export const layerConfig = <Err = never, R = never>(
  options: Config.Config.Wrap<MemoryOptions>,
  tier?: {
    readonly layer: Layer.Layer<Storage.Storage, Err, R>
    readonly capacity: Config.Config<FileSystem.SizeInput>
  }
): Layer.Layer<Storage.Storage | StorageCache, Err | InvalidOptions | ConfigError, Storage.Storage | R> =>
  Layer.unwrapEffect(
    tier === undefined
      ? Effect.map(Config.unwrap(options), layerOf)
      : Effect.map(
        Config.zip(Config.unwrap(options), tier.capacity),
        ([options, capacity]) => layer({ ...options, tier: { layer: tier.layer, capacity } })
      )
  )

/** In bytes; the freshness as a time to live in milliseconds. */
interface Settings {
  readonly capacity: number
  readonly freshness: number
  readonly shared: boolean
  readonly blocks?: number | undefined
  readonly tier?: { readonly storage: Storage.Service; readonly capacity: number } | undefined
}

const timeToLive: Schema.Schema<number, Freshness> = must(
  Schema.transform(
    Schema.Union(Schema.Literal("revalidate", "immutable"), Schema.Struct({ timeToLive: duration({ max: Infinity }) })),
    Schema.Number,
    {
      strict: true,
      decode: (freshness) =>
        freshness === "revalidate" ? 0 : freshness === "immutable" ? Infinity : freshness.timeToLive,
      encode: (timeToLive) => ({ timeToLive })
    }
  ),
  "\"revalidate\", \"immutable\" or { timeToLive } with a duration greater than zero",
  (value) => Predicate.hasProperty(value, "timeToLive") ? `{ timeToLive: ${show(value.timeToLive)} }` : show(value)
)

const schema: Schema.Schema<Settings, Options> = Schema.Struct({
  capacity: size(),
  freshness: Schema.optionalWith(timeToLive, { default: () => 0 }),
  shared: Schema.optionalWith(boolean, { default: () => false }),
  blocks: Schema.optional(size()),
  tier: Schema.optional(Schema.Struct({ storage, capacity: size() }))
})

const checkTier = (backend: StorageBackend | undefined): Effect.Effect<void, InvalidOptions> => {
  if (backend === undefined || (backend.capabilities.write && backend.capabilities.list)) return Effect.void
  const missing = backend.capabilities.list ? "save" : "list"
  const reason = `tier must be a storage that can list and save (${backend.name} cannot ${missing})`
  return Effect.fail(new InvalidOptions({ module: "StorageCache", option: "tier", reason }))
}

/** What a tier keeps of an object beside the bytes of each block, at most. */
const perBlock = 8 * 1024

const checkBlocks = (
  blocks: number,
  capacity: number,
  tierCapacity: number | undefined
): Effect.Effect<void, InvalidOptions> => {
  if (blocks <= capacity || (tierCapacity !== undefined && blocks + perBlock <= tierCapacity)) return Effect.void
  const reason = `blocks must be at most the capacity (got ${blocks} bytes, and a capacity of ${capacity} bytes)`
  return Effect.fail(new InvalidOptions({ module: "StorageCache", option: "blocks", reason }))
}

/** What a cache holds, be it objects or blocks of them. */
interface Contents {
  readonly contents: () => Pick<Statistics, "memory" | "tier">
  readonly invalidate: (keys: ReadonlyArray<string>) => Effect.Effect<void>
  /** Whether an object would fit, and is not here. */
  readonly lacks: (info: ObjectInfo) => Effect.Effect<boolean>
}

const cachedStorage = (
  inner: StorageBackend,
  name: string,
  counters: Counters,
  contents: Contents,
  reader: Pick<StorageBackend, "open" | "load" | "loadRanges" | "head">
): CachedStorage => {
  const storage = Storage.make(makeBackend(inner, name, contents, reader))
  return { ...storage, cache: makeCache(storage, contents, counters) }
}

const makeCache = (storage: Storage.Service, contents: Contents, counters: Counters): Cache => ({
  statistics: Effect.sync(() => ({ ...counters.totals(), ...contents.contents() })),
  warm: (keys) =>
    Effect.forEach(
      new Set(keys),
      (key) =>
        Effect.scoped(Effect.flatMap(storage.open(key), ({ info, stream }) =>
          // Opening it may have filled the cache at once.
          Effect.flatMap(contents.lacks(info), (isMissing) => isMissing ? Stream.runDrain(stream) : Effect.void))),
      { concurrency: 4, discard: true }
    )
})

const makeBackend = (
  inner: StorageBackend,
  name: string,
  contents: Contents,
  reader: Pick<StorageBackend, "open" | "load" | "loadRanges" | "head">
): StorageBackend => {
  /** Invalidates what an operation changes when it ends, however it ends. */
  const invalidating = <A, Err, R>(effect: Effect.Effect<A, Err, R>, ...keys: ReadonlyArray<string>) =>
    Effect.ensuring(effect, contents.invalidate(keys))
  return {
    name,
    location: inner.location,
    capabilities: inner.capabilities,
    open: (key, options) => reader.open(key, options),
    load: (key, options) => reader.load(key, options),
    loadRanges: (key, ranges, options) => reader.loadRanges(key, ranges, options),
    head: (key) => reader.head(key),
    save: (key, data, options) => invalidating(inner.save(key, data, options), key),
    entries: inner.entries,
    keys: inner.keys,
    listDirectory: inner.listDirectory,
    remove: (key, options) => invalidating(inner.remove(key, options), key),
    removeAll: (keys) => invalidating(inner.removeAll(keys), ...keys),
    copy: (from, to, options) => invalidating(inner.copy(from, to, options), to),
    move: (from, to, options) => invalidating(inner.move(from, to, options), from, to),
    presign: inner.presign
  }
}
