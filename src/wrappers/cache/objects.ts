/**
 * The objects in a cache, in both tiers: which of them are there, fresh, or on their way in.
 */
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import type { ObjectInfo, SaveData } from "../../StorageBackend.js"
import type { Counters } from "./counters.js"
import { type Fill, Fills } from "./fills.js"
import { Freshness } from "./freshness.js"
import { type CachedObject, type Entry, MemoryTier } from "./memoryTier.js"
import type { SecondTier } from "./secondTier.js"

export class CachedObjects {
  readonly memory: MemoryTier
  readonly tier: SecondTier | undefined
  readonly freshness: Freshness
  readonly #counters: Counters
  readonly #fills = new Fills()

  /** `capacity` is in bytes, `timeToLive` in milliseconds. */
  constructor({ capacity, counters, tier, timeToLive }: {
    readonly capacity: number
    readonly timeToLive: number
    readonly counters: Counters
    readonly tier: SecondTier | undefined
  }) {
    this.memory = new MemoryTier(capacity)
    this.tier = tier
    this.freshness = new Freshness(timeToLive)
    this.#counters = counters
  }

  /** What is known of an object that is in the cache. */
  find(key: string): Effect.Effect<Entry | undefined> {
    return Effect.suspend(() => {
      const entry = this.memory.get(key)?.entry
      return entry === undefined && this.tier !== undefined ? this.tier.find(key) : Effect.succeed(entry)
    })
  }

  /** Whether an object like this may be kept. */
  fits(info: ObjectInfo): boolean {
    return this.memory.fits(info) || this.tier?.fits(info) === true
  }

  /** Whether an object fits, and is not what is here. */
  lacks(info: ObjectInfo): Effect.Effect<boolean> {
    return Effect.map(this.find(info.key), (entry) => entry?.info !== info && this.fits(info))
  }

  contents() {
    return { memory: this.memory.contents(), tier: this.tier?.contents() ?? { objects: 0, size: 0 } }
  }

  /** To be done before an object is requested that may be kept. */
  startFill(key: string, fill?: Fill): Effect.Effect<Fill, never, Scope.Scope> {
    return this.#fills.register(key, fill)
  }

  /** Keeps an object in every tier that it fits into, unless it was changed meanwhile. */
  keep(object: CachedObject, fill: Fill): Effect.Effect<void> {
    return Effect.zipRight(
      this.keepInMemory(object, fill),
      Effect.suspend(() => this.keepInTier(object.entry, object.bytes, fill))
    )
  }

  keepInMemory(object: CachedObject, fill: Fill): Effect.Effect<void> {
    return Effect.suspend(() =>
      fill.isStale || !this.memory.fits(object.entry.info)
        ? Effect.void
        : this.#counters.evicted(this.memory.set(object))
    )
  }

  keepInTier(entry: Entry, data: SaveData, fill: Fill): Effect.Effect<void> {
    return !fill.isStale && this.tier?.fits(entry.info) === true
      ? this.tier.save(entry, data, () => !fill.isStale)
      : Effect.void
  }

  /** Drops objects, and what is on its way in under these keys. */
  invalidate(keys: ReadonlyArray<string>): Effect.Effect<void> {
    return Effect.suspend(() => {
      for (const key of keys) {
        this.memory.delete(key)
        this.#fills.invalidate(key)
      }
      return this.tier?.remove(keys) ?? Effect.void
    })
  }
}
