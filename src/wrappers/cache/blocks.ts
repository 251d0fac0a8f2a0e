/**
 * The blocks in a cache, in both tiers, and of which version of an object they are.
 */
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import type * as Scope from "effect/Scope"
import { LRUCache } from "lru-cache"
import * as KeyedLock from "../../internal/keyedLock.js"
import type { ObjectInfo } from "../../StorageBackend.js"
import type { Run } from "./blockRun.js"
import type { BlockTier } from "./blockTier.js"
import type { Counters } from "./counters.js"
import { type Fill, Fills } from "./fills.js"
import { Freshness } from "./freshness.js"
import { blocksOf } from "./storedObject.js"
import type { Perhaps } from "./tierStorage.js"

type Bytes = Uint8Array<ArrayBuffer>

/** One version of an object, of which there are blocks in the cache, or on their way. */
export interface Version {
  readonly info: ObjectInfo
  /** When the storage last confirmed that the object is still this one, in milliseconds. */
  confirmedAt: number
  /** Whether the object was changed since, so that nothing of it may be kept. */
  isStale: boolean
  readonly runs: Set<Run<Version>>
  /** The blocks in memory. */
  readonly inMemory: Set<number>
  /** How many reads use it. */
  readers: number
}

interface Block {
  readonly version: Version
  readonly index: number
  readonly bytes: Bytes
}

export class CachedBlocks {
  readonly blockSize: number
  readonly freshness: Freshness
  readonly #counters: Counters
  readonly #tier: BlockTier | undefined
  readonly #memory: LRUCache<string, Block>
  /** The newest version of each object. */
  readonly #versions = new Map<string, Version>()
  readonly #fills = new Fills()
  readonly #loading = KeyedLock.make()
  #evicted = 0

  /** Sizes are in bytes, `timeToLive` in milliseconds. */
  constructor({ blockSize, capacity, counters, tier, timeToLive }: {
    readonly blockSize: number
    readonly capacity: number
    readonly timeToLive: number
    readonly counters: Counters
    readonly tier: BlockTier | undefined
  }) {
    this.blockSize = blockSize
    this.freshness = new Freshness(timeToLive)
    this.#counters = counters
    this.#tier = tier
    tier?.whenGone((key) => this.#forget(key))
    this.#memory = new LRUCache({
      maxSize: capacity,
      sizeCalculation: ({ bytes }: Block) => Math.max(1, bytes.byteLength),
      dispose: ({ index, version }, _, reason) => {
        version.inMemory.delete(index)
        if (reason === "evict") this.#evicted++
        this.#forget(version.info.key)
      }
    })
  }

  contents() {
    return {
      memory: {
        objects: [...this.#versions.values()].filter(({ inMemory }) => inMemory.size > 0).length,
        blocks: this.#memory.size,
        size: this.#memory.calculatedSize
      },
      tier: this.#tier?.contents() ?? { objects: 0, blocks: 0, size: 0 }
    }
  }

  /** The version that is known, unless only the second tier knows it. */
  peek(key: string): Version | undefined {
    return this.#versions.get(key)
  }

  /** The version of which there are blocks. */
  find(key: string): Effect.Effect<Version | undefined> {
    return Effect.suspend(() => {
      const known = this.#versions.get(key)
      if (known !== undefined || this.#tier?.knows(key) !== true) return Effect.succeed(known)
      return Effect.map(this.#tier.find(key), (info) => {
        const now = this.#versions.get(key)
        return now !== undefined || info === undefined ? now : this.#add(info, -Infinity)
      })
    })
  }

  /** To be done before an object is requested of which no version is known. */
  startFill(key: string, fill: Fill): Effect.Effect<Fill, never, Scope.Scope> {
    return this.#fills.register(key, fill)
  }

  /** The version that the storage has just told. Another one is dropped. */
  install(info: ObjectInfo, fill: Fill): Effect.Effect<Version> {
    return Effect.gen(this, function*() {
      const known = this.#versions.get(info.key)
      const isSame = known?.info.etag === info.etag && known.info.size === info.size
      if (!fill.isStale && !isSame && known !== undefined) yield* this.#drop([info.key])
      const now = yield* Clock.currentTimeMillis
      if (fill.isStale) return makeVersion(info, now, true)
      if (!isSame || known.isStale) return this.#add(info, now)
      known.confirmedAt = now
      return known
    })
  }

  /** Whether a block is in either tier. */
  has({ info, inMemory }: Version, index: number): boolean {
    return inMemory.has(index) || this.#tier?.has(info.key, index) === true
  }

  /** Whether the whole object would fit into a tier, and is not there. */
  lacks(info: ObjectInfo): Effect.Effect<boolean> {
    return Effect.map(this.find(info.key), (version) => {
      const tierCapacity = this.#tier?.capacity ?? 0
      if (version === undefined || info.size > Math.max(this.#memory.maxSize, tierCapacity)) return false
      const count = blocksOf(info, this.blockSize)
      for (let index = 0; index < count; index++) if (!this.has(version, index)) return true
      return false
    })
  }

  /** A block in memory. */
  fromMemory(version: Version, index: number): Bytes | undefined {
    return version.inMemory.has(index) ? this.#memory.get(toId(version, index))?.bytes : undefined
  }

  /** A block in the second tier, read once for all that want it at the time, where there is room for it in memory. */
  fromTier(version: Version, index: number): Perhaps<Bytes> {
    const tier = this.#tier
    if (tier?.has(version.info.key, index) !== true || version.isStale) return Effect.succeedNone
    return this.#loading(toId(version, index))(Effect.suspend(() => {
      const inMemory = this.fromMemory(version, index)
      return inMemory !== undefined ? Effect.succeedSome(inMemory) : Effect.tap(
        tier.load(version.info, index),
        (loaded) => Option.isSome(loaded) ? this.keep(version, index, loaded.value) : Effect.void
      )
    }))
  }

  /** Keeps a block in memory. */
  keep(version: Version, index: number, bytes: Bytes): Effect.Effect<void> {
    return Effect.suspend(() => {
      if (version.isStale || bytes.byteLength > this.#memory.maxSize) return Effect.void
      this.#evicted = 0
      this.#memory.set(toId(version, index), { version, index, bytes })
      version.inMemory.add(index)
      return this.#counters.evicted(this.#evicted)
    })
  }

  /** Keeps a block in the second tier, if it fits. */
  save(version: Version, index: number, bytes: Bytes): Effect.Effect<void> | undefined {
    const { info } = version
    return !version.isStale && this.#tier?.fits(info, index) === true
      ? this.#tier.save(info, index, bytes, () => !version.isStale)
      : undefined
  }

  /** Drops all blocks of some objects, and what is on its way in. */
  invalidate(keys: ReadonlyArray<string>): Effect.Effect<void> {
    return Effect.suspend(() => {
      for (const key of keys) this.#fills.invalidate(key)
      return this.#drop(keys)
    })
  }

  /** Drops a version, unless another one took its place already. */
  drop(version: Version): Effect.Effect<void> {
    return Effect.suspend(() =>
      this.#versions.get(version.info.key) === version ? this.#drop([version.info.key]) : Effect.void
    )
  }

  /** Adds a reader of a version, which is not forgotten as long as it has any. */
  hold(version: Version): void {
    const { key } = version.info
    version.readers++
    const known = this.#versions.get(key)
    if (known === undefined && !version.isStale) this.#versions.set(key, version)
    // It was forgotten, and found anew.
    else if (known !== version) version.isStale = true
  }

  /** Removes a reader. */
  release(version: Version): void {
    version.readers--
    this.#forget(version.info.key)
  }

  /** To be called when a run has ended. */
  ended(version: Version, run: Run<Version>): void {
    version.runs.delete(run)
    this.#forget(version.info.key)
  }

  #add(info: ObjectInfo, confirmedAt: number): Version {
    const version = makeVersion(info, confirmedAt, false)
    this.#versions.set(info.key, version)
    return version
  }

  #drop(keys: ReadonlyArray<string>): Effect.Effect<void> {
    return Effect.suspend(() => {
      for (const key of keys) {
        const version = this.#versions.get(key)
        if (version === undefined) continue
        version.isStale = true
        this.#versions.delete(key)
        for (const index of [...version.inMemory]) this.#memory.delete(toId(version, index))
      }
      return this.#tier?.remove(keys) ?? Effect.void
    })
  }

  /** Forgets a version of which nothing is here any more. */
  #forget(key: string): void {
    const version = this.#versions.get(key)
    if (version === undefined || version.readers + version.runs.size + version.inMemory.size > 0) return
    if (this.#tier?.knows(key) !== true) this.#versions.delete(key)
  }
}

const makeVersion = (info: ObjectInfo, confirmedAt: number, isStale: boolean): Version => ({
  info,
  confirmedAt,
  isStale,
  readers: 0,
  runs: new Set(),
  inMemory: new Set()
})

const toId = ({ info }: Version, index: number): string => `${info.key}\0${index}`
