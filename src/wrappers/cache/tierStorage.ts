/**
 * What the storage of a second tier holds, by name: it is listed at the start, stays within its capacity, and what is evicted,
 * replaced or damaged is removed. The least recently used are evicted; after a restart, those saved first.
 *
 * Nothing here fails: a failure of the tier is counted, and then it is as if the object were not there.
 */
import * as Arr from "effect/Array"
import * as Effect from "effect/Effect"
import * as Encoding from "effect/Encoding"
import * as Exit from "effect/Exit"
import * as Option from "effect/Option"
import * as Stream from "effect/Stream"
import { LRUCache } from "lru-cache"
import * as Hash from "../../internal/hash.js"
import { Permits } from "../../internal/permits.js"
import type { ObjectInfo, StorageBackend } from "../../StorageBackend.js"
import type { StorageError } from "../../StorageError.js"
import type { Counters } from "./counters.js"
import type { Entry } from "./memoryTier.js"
import { parseName, toName } from "./storedObject.js"

/** Something that the tier may have, and the rest of the cache can do without. */
export type Perhaps<A, R = never> = Effect.Effect<Option.Option<A>, never, R>

/** Something in the tier. */
export interface Stored {
  /** Whose it is. */
  readonly key: string
  /** In bytes, with its trailer. */
  readonly size: number
  /** Its etag in the tier; none while it is being saved. */
  readonly etag?: string
  /** Once its trailer is known. */
  readonly entry?: Entry
  /** The SHA-256 that its bytes have not been held against yet. */
  readonly unchecked?: string
}

export class TierStorage {
  readonly backend: StorageBackend
  readonly capacity: number
  /** Of whose objects it is the tier. */
  readonly origin: string
  /** Called with a key of which nothing is stored any more. */
  whenGone: (key: string) => void = () => {}
  readonly #counters: Counters
  readonly #stored: LRUCache<string, Stored>
  /** What is stored of each key, in the order in which it was saved. */
  readonly #names = new Map<string, Set<string>>()
  /** The names of what has to be removed. */
  readonly #garbage = new Set<string>()
  /** The keys of what was changed before it was known what is here of them. */
  readonly #changed = new Set<string>()
  /** The names of what is being saved. */
  readonly #saving = new Set<string>()
  readonly #exclusively = new Permits(1)
  #isListed = false
  #evicted = 0

  /** Lists what the storage holds from before. Until that succeeds nothing is kept, since the free space is not known. */
  readonly #list: Effect.Effect<void> = this.#exclusively.withPermit(
    Effect.suspend(() =>
      this.#isListed ? Effect.void : Effect.map(
        this.attempt(Stream.runCollect(this.backend.entries({}))),
        Option.match({ onNone: () => {}, onSome: (listed) => this.#addListed(listed) })
      )
    )
  )

  /** Removes the garbage. Whether all of it is removed; the rest is removed the next time. */
  readonly #collect: Effect.Effect<boolean> = this.#exclusively.withPermit(Effect.acquireUseRelease(
    Effect.sync(() => {
      const names = new Set(this.#garbage)
      this.#garbage.clear()
      return names
    }),
    (names) =>
      Effect.forEach(Arr.chunksOf(names, 1000), (batch) => this.#removeBatch(batch, names), { discard: true }).pipe(
        Effect.zipRight(Effect.suspend(() => this.#countEvicted())),
        Effect.map(() => names.size === 0)
      ),
    (names) =>
      Effect.sync(() => {
        for (const name of names) this.#garbage.add(name)
      })
  ))

  private constructor(origin: string, backend: StorageBackend, capacity: number, counters: Counters) {
    this.origin = origin
    this.backend = backend
    this.capacity = capacity
    this.#counters = counters
    this.#stored = new LRUCache({
      maxSize: capacity,
      // What a crash left may be empty.
      sizeCalculation: ({ size }: Stored) => Math.max(1, size),
      dispose: ({ key }, name, reason) => {
        if (reason === "set") return
        this.#forget(key, name)
        if (reason !== "evict") return
        this.#garbage.add(name)
        this.#evicted++
      }
    })
  }

  /** The tier of a storage with what it holds from before. `capacity` is in bytes. */
  static make(
    { name, location = name }: StorageBackend,
    backend: StorageBackend,
    capacity: number,
    counters: Counters
  ): Effect.Effect<TierStorage> {
    return Effect.flatMap(Hash.make("sha256"), (hash) => {
      hash.update(new TextEncoder().encode(location))
      const origin = Encoding.encodeHex(hash.digest().subarray(0, 8))
      const tier = new TierStorage(origin, backend, capacity, counters)
      return tier.#list.pipe(Effect.zipRight(tier.#collect), Effect.as(tier))
    })
  }

  contents(): { readonly objects: number; readonly blocks: number; readonly size: number } {
    return { objects: this.#names.size, blocks: this.#stored.size, size: this.#stored.calculatedSize }
  }

  /** The names of what is stored of an object. */
  names(key: string): ReadonlySet<string> {
    return this.#names.get(key) ?? none
  }

  /** What is stored under a name, which is thereby used. */
  get(name: string): Stored | undefined {
    return this.#stored.get(name)
  }

  /** What is stored under a name. */
  peek(name: string): Stored | undefined {
    return this.#stored.peek(name)
  }

  /** Notes what has become known of something that is stored. */
  note(name: string, stored: Stored): void {
    this.#stored.set(name, stored)
    if (this.#stored.has(name)) {
      const names = this.#names.get(stored.key)
      if (names === undefined) this.#names.set(stored.key, new Set([name]))
      else names.add(name)
    } else {
      // It is larger than the capacity.
      this.#forget(stored.key, name)
    }
  }

  /** Drops what was found, unless something else is there by now. */
  drop(name: string, found: Stored): void {
    if (this.#stored.peek(name) !== found) return
    this.#stored.delete(name)
    this.#garbage.add(name)
  }

  /**
   * Saves something, whole or not at all, unless it is removed meanwhile, or not wanted any more when it begins, or another
   * save under this name is under way. The data has to yield `place.size` bytes.
   */
  save(name: string, place: Stored, data: Stream.Stream<Uint8Array>, isWanted: () => boolean): Effect.Effect<void> {
    const saving = Effect.flatMap(
      this.#collect,
      (isClean) => isClean ? this.attempt(this.backend.save(name, data, { size: place.size })) : Effect.succeedNone
    )
    return Effect.zipRight(
      this.#list,
      Effect.acquireUseRelease(
        Effect.sync(() => {
          const isTaken = this.#isListed && !this.#saving.has(name) && isWanted()
          if (isTaken) this.#takePlace(name, place)
          return isTaken
        }),
        (isTaken) => isTaken ? saving : Effect.succeedNone,
        (isTaken, exit) =>
          isTaken
            ? this.#settle(name, place, Exit.isSuccess(exit) ? Option.getOrUndefined(exit.value)?.etag : undefined)
            : Effect.void
      )
    )
  }

  /** Removes all that is stored of some objects. */
  remove(keys: ReadonlyArray<string>): Effect.Effect<void> {
    return Effect.suspend(() => {
      for (const key of keys) {
        for (const name of [...this.names(key)]) {
          this.#stored.delete(name)
          this.#garbage.add(name)
        }
        if (this.#isListed) continue
        this.#changed.add(key)
        this.#garbage.add(toName(key))
      }
      return this.#garbage.size > 0 ? Effect.asVoid(this.#collect) : Effect.void
    })
  }

  /** What the tier does; `None` where it fails, which is counted. */
  attempt<A, R>(effect: Effect.Effect<A, StorageError, R>): Perhaps<A, R> {
    return Effect.matchEffect(effect, {
      onFailure: (error) => Effect.as(this.#counters.failed(error), Option.none()),
      onSuccess: Effect.succeedSome
    })
  }

  /** Makes room. */
  #takePlace(name: string, place: Stored): void {
    this.#saving.add(name)
    // An older version is removed first.
    if (this.#stored.delete(name)) this.#garbage.add(name)
    this.note(name, place)
  }

  /** Ends a save. Meanwhile the object may have been removed or evicted. */
  #settle(name: string, place: Stored, etag: string | undefined): Effect.Effect<void> {
    return Effect.suspend(() => {
      const isHere = this.#stored.peek(name) === place
      if (etag !== undefined && isHere) {
        this.note(name, { ...place, etag })
      } else {
        if (isHere) this.#stored.delete(name)
        this.#garbage.add(name)
      }
      return Effect.zipRight(this.#collect, Effect.sync(() => void this.#saving.delete(name)))
    })
  }

  #forget(key: string, name: string): void {
    const names = this.#names.get(key)
    if (names?.delete(name) !== true || names.size > 0) return
    this.#names.delete(key)
    this.whenGone(key)
  }

  #addListed(listed: Iterable<ObjectInfo>): void {
    const byAge = [...listed].sort((one, other) => one.lastModified.getTime() - other.lastModified.getTime())
    for (const { etag, key: name, size } of byAge) {
      const parsed = parseName(name)
      if (parsed === undefined || this.#garbage.has(name)) continue
      if (!this.#changed.has(parsed.key)) this.note(name, { key: parsed.key, size, etag })
      // It is larger than the capacity, or of an object that was changed.
      if (!this.#stored.has(name)) this.#garbage.add(name)
    }
    this.#changed.clear()
    this.#isListed = true
  }

  #countEvicted(): Effect.Effect<void> {
    const evicted = this.#evicted
    this.#evicted = 0
    return this.#counters.evicted(evicted)
  }

  /** Removes a batch, and takes from `names` those that are removed. */
  #removeBatch(batch: ReadonlyArray<string>, names: Set<string>): Effect.Effect<void> {
    return Effect.flatMap(this.attempt(this.backend.removeAll(batch)), (failures) => {
      if (Option.isNone(failures)) return Effect.void
      for (const name of batch) names.delete(name)
      for (const { key } of failures.value) if (key !== undefined) names.add(key)
      return Effect.forEach(failures.value, (error) => this.#counters.failed(error), { discard: true })
    })
  }
}

const none: ReadonlySet<string> = new Set()
