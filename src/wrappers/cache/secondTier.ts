/**
 * The second tier of a cache: objects of the origin in a storage of their own, which outlives the process. The least
 * recently used are evicted; after a restart, those saved first. What an earlier process has saved is read and held against
 * its checksum once, before any of it is served.
 *
 * Nothing here fails: a failure of the tier is counted, and then it is as if the object were not there.
 */
import * as Arr from "effect/Array"
import * as Effect from "effect/Effect"
import * as Encoding from "effect/Encoding"
import * as Exit from "effect/Exit"
import * as Option from "effect/Option"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import { LRUCache } from "lru-cache"
import * as ByteRange from "../../ByteRange.js"
import * as Hash from "../../internal/hash.js"
import * as KeyedLock from "../../internal/keyedLock.js"
import { Permits } from "../../internal/permits.js"
import { forEachChunk } from "../../internal/pulling.js"
import * as ObjectKey from "../../ObjectKey.js"
import type { ObjectInfo, OpenedObject, SaveData, StorageBackend } from "../../StorageBackend.js"
import { mapStream, openedBytes } from "../../StorageBackend.js"
import { CorruptObject, type StorageError } from "../../StorageError.js"
import type { Counters } from "./counters.js"
import type { Entry } from "./memoryTier.js"
import { maxTrailer, readTrailer, toKey, toName, trailerSize, writeTrailer } from "./storedObject.js"

/** Something that the tier may have, and the rest of the cache can do without. */
type Perhaps<A, R = never> = Effect.Effect<Option.Option<A>, never, R>

/** An object in the tier. */
interface Stored {
  /** In bytes, with its trailer. */
  readonly size: number
  /** Its etag in the tier; none while it is being saved. */
  readonly etag?: string
  /** Once its trailer is known. */
  readonly entry?: Entry
  /** The SHA-256 that its bytes have not been held against yet. */
  readonly unchecked?: string
}

export class SecondTier {
  readonly #backend: StorageBackend
  readonly #capacity: number
  readonly #counters: Counters
  /** Of whose objects it is the tier. */
  readonly #origin: string
  readonly #checking = KeyedLock.make()
  readonly #objects: LRUCache<string, Stored>
  /** The names of what has to be removed. */
  readonly #garbage = new Set<string>()
  /** The keys of what is being saved. */
  readonly #saving = new Set<string>()
  readonly #exclusively = new Permits(1)
  #isListed = false
  #evicted = 0

  /** Lists what the storage holds from before. Until that succeeds nothing is kept, since the free space is not known. */
  readonly #list: Effect.Effect<void> = this.#exclusively.withPermit(
    Effect.suspend(() =>
      this.#isListed ? Effect.void : Effect.map(
        this.#attempt(Stream.runCollect(this.#backend.entries({}))),
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
    this.#origin = origin
    this.#backend = backend
    this.#capacity = capacity
    this.#counters = counters
    this.#objects = new LRUCache({
      maxSize: capacity,
      // What a crash left may be empty.
      sizeCalculation: ({ size }: Stored) => Math.max(1, size),
      dispose: (_, key, reason) => {
        if (reason !== "evict") return
        this.#garbage.add(toName(key))
        this.#evicted++
      }
    })
  }

  /** A tier of a storage with what it holds from before. `capacity` is in bytes. */
  static make(
    { name, location = name }: StorageBackend,
    backend: StorageBackend,
    capacity: number,
    counters: Counters
  ): Effect.Effect<SecondTier> {
    return Effect.flatMap(Hash.make("sha256"), (hash) => {
      hash.update(new TextEncoder().encode(location))
      const origin = Encoding.encodeHex(hash.digest().subarray(0, 8))
      const tier = new SecondTier(origin, backend, capacity, counters)
      return tier.#list.pipe(Effect.zipRight(tier.#collect), Effect.as(tier))
    })
  }

  contents(): { readonly objects: number; readonly size: number } {
    return { objects: this.#objects.size, size: this.#objects.calculatedSize }
  }

  /** What is known of an object, if it is here. */
  find(key: string): Effect.Effect<Entry | undefined> {
    return Effect.suspend(() => {
      const found = this.#objects.get(key)
      if (found?.etag === undefined || found.entry !== undefined) return Effect.succeed(found?.entry)
      const options = { range: ByteRange.last(maxTrailer), ifMatch: found.etag }
      return Effect.gen(this, function*() {
        const end = yield* this.#attempt(this.#backend.load(toName(key), options))
        const trailer = Option.isNone(end) ? undefined : yield* readTrailer(key, end.value, found.size)
        const now = this.#objects.peek(key)
        if (now !== found) return now?.entry
        if (trailer?.origin !== this.#origin) {
          this.#drop(key, found)
          return undefined
        }
        const entry = { info: trailer.info, confirmedAt: -Infinity }
        this.#objects.set(key, { ...found, entry, unchecked: trailer.sha256 })
        return entry
      })
    })
  }

  /** Bytes of an object that was found, in an array of the caller's own. */
  load(entry: Entry, range: ByteRange.ResolvedRange): Perhaps<Uint8Array<ArrayBuffer>> {
    return entry.info.size === 0
      ? Effect.succeedSome(new Uint8Array(0))
      : this.#read(entry, (name, ifMatch) => this.#backend.load(name, { range: toRange(range), ifMatch }))
  }

  loadRanges(
    entry: Entry,
    ranges: ReadonlyArray<ByteRange.ResolvedRange>
  ): Perhaps<ReadonlyArray<Uint8Array<ArrayBuffer>>> {
    return entry.info.size === 0
      ? Effect.succeedSome(ranges.map(() => new Uint8Array(0)))
      : this.#read(entry, (name, ifMatch) => this.#backend.loadRanges(name, ranges.map(toRange), { ifMatch }))
  }

  /** An object that was found. Its stream may break, which is counted, too. */
  open(
    entry: Entry,
    range: ByteRange.ResolvedRange,
    chunkSize: number | undefined
  ): Perhaps<OpenedObject, Scope.Scope> {
    const { info } = entry
    if (info.size === 0) return Effect.succeedSome(openedBytes(info, range, new Uint8Array(0)))
    return this.#read(
      entry,
      (name, ifMatch, drop) =>
        Effect.map(this.#backend.open(name, { range: toRange(range), ifMatch, chunkSize }), (opened) => ({
          ...mapStream(opened, Stream.tapError((error) => Effect.zipRight(drop, this.#counters.failed(error)))),
          info,
          range
        }))
    )
  }

  /** Whether an object like this may be kept. */
  fits(info: ObjectInfo): boolean {
    if (ObjectKey.problem(toName(info.key)) !== undefined || info.size >= this.#capacity) return false
    const trailer = trailerSize(info, this.#origin)
    return trailer <= maxTrailer && info.size + trailer <= this.#capacity
  }

  /**
   * Keeps an object, whole or not at all, unless it is removed meanwhile, or not wanted any more when it begins, or another
   * save of this key is under way. A stream has to yield as many bytes as its metadata says.
   */
  save(entry: Entry, data: SaveData, isWanted: () => boolean): Effect.Effect<void> {
    const { key } = entry.info
    const name = toName(key)
    const place: Stored = { size: entry.info.size + trailerSize(entry.info, this.#origin) }
    const bytes = data instanceof Uint8Array ? Stream.make(data) : data
    const saving = Effect.flatMap(this.#collect, (isClean) =>
      isClean
        ? this.#attempt(this.#backend.save(name, withTrailer(bytes, entry.info, this.#origin), { size: place.size }))
        : Effect.succeedNone)
    return Effect.zipRight(
      this.#list,
      Effect.acquireUseRelease(
        Effect.sync(() => {
          const isTaken = this.#isListed && !this.#saving.has(key) && isWanted()
          if (isTaken) this.#takePlace(key, place)
          return isTaken
        }),
        (isTaken) => isTaken ? saving : Effect.succeedNone,
        (isTaken, exit) =>
          isTaken
            ? this.#settle(entry, place, Exit.isSuccess(exit) ? Option.getOrUndefined(exit.value)?.etag : undefined)
            : Effect.void
      )
    )
  }

  remove(keys: ReadonlyArray<string>): Effect.Effect<void> {
    return Effect.suspend(() => {
      // Before it is listed, any of them may be here.
      for (const key of keys) if (this.#objects.delete(key) || !this.#isListed) this.#garbage.add(toName(key))
      return this.#garbage.size > 0 ? Effect.asVoid(this.#collect) : Effect.void
    })
  }

  /** Makes room for an object. */
  #takePlace(key: string, place: Stored): void {
    this.#saving.add(key)
    // An older version is removed first.
    if (this.#objects.delete(key)) this.#garbage.add(toName(key))
    this.#objects.set(key, place)
  }

  /** Ends a save. Meanwhile the object may have been removed or evicted. */
  #settle(entry: Entry, place: Stored, etag: string | undefined): Effect.Effect<void> {
    return Effect.suspend(() => {
      const { key } = entry.info
      const isHere = this.#objects.peek(key) === place
      if (etag !== undefined && isHere) {
        this.#objects.set(key, { ...place, etag, entry })
      } else {
        if (isHere) this.#objects.delete(key)
        this.#garbage.add(toName(key))
      }
      return Effect.zipRight(this.#collect, Effect.sync(() => void this.#saving.delete(key)))
    })
  }

  /** Reads an object that was found, if it is still the same, and as it was saved. Where that fails, it is dropped. */
  #read<A, R>(
    entry: Entry,
    reading: (name: string, ifMatch: string, drop: Effect.Effect<void>) => Effect.Effect<A, StorageError, R>
  ): Perhaps<A, R> {
    const { key } = entry.info
    const check = Effect.suspend(() =>
      this.#objects.peek(key)?.unchecked === undefined ? Effect.void : this.#checking(key)(this.#check(key))
    )
    return Effect.flatMap(check, () => {
      const found = this.#objects.get(key)
      if (found?.etag === undefined || found.entry !== entry) return Effect.succeedNone
      const drop = Effect.sync(() => this.#drop(key, found))
      return Effect.tap(
        this.#attempt(reading(toName(key), found.etag, drop)),
        (result) => Option.isNone(result) ? drop : Effect.void
      )
    })
  }

  /** Reads all of an object that an earlier process has saved, and drops it where that is damaged. */
  #check(key: string): Effect.Effect<void> {
    return Effect.suspend(() => {
      const found = this.#objects.peek(key)
      if (found?.etag === undefined || found.entry === undefined || found.unchecked === undefined) return Effect.void
      const { entry, etag: ifMatch, unchecked } = found
      const range = ByteRange.make(0, entry.info.size)
      const hashing = Effect.scoped(Effect.gen(this, function*() {
        const hash = yield* Hash.make("sha256")
        const { reuse, stream } = yield* this.#backend.open(toName(key), { range, ifMatch })
        yield* forEachChunk(reuse?.(() => true) ?? stream, (bytes) => Hash.update(hash, bytes))
        if (Encoding.encodeBase64(hash.digest()) === unchecked) return
        return yield* new CorruptObject({
          key: toName(key),
          problem: "checksum",
          reason: "its bytes have changed since it was saved"
        })
      }))
      return Effect.map(this.#attempt(hashing), (checked) => {
        if (Option.isNone(checked)) return this.#drop(key, found)
        if (this.#objects.peek(key) === found) {
          const { unchecked: _, ...rest } = found
          this.#objects.set(key, rest)
        }
      })
    })
  }

  #drop(key: string, found: Stored): void {
    if (this.#objects.peek(key) !== found) return
    this.#objects.delete(key)
    this.#garbage.add(toName(key))
  }

  #attempt<A, R>(effect: Effect.Effect<A, StorageError, R>): Perhaps<A, R> {
    return Effect.matchEffect(effect, {
      onFailure: (error) => Effect.as(this.#counters.failed(error), Option.none()),
      onSuccess: Effect.succeedSome
    })
  }

  #addListed(listed: Iterable<ObjectInfo>): void {
    const byAge = [...listed].sort((one, other) => one.lastModified.getTime() - other.lastModified.getTime())
    for (const { etag, key: name, size } of byAge) {
      const key = toKey(name)
      if (key === undefined || this.#garbage.has(name)) continue
      this.#objects.set(key, { size, etag })
      // It is larger than the capacity.
      if (!this.#objects.has(key)) this.#garbage.add(name)
    }
    this.#isListed = true
  }

  #countEvicted(): Effect.Effect<void> {
    const evicted = this.#evicted
    this.#evicted = 0
    return this.#counters.evicted(evicted)
  }

  /** Removes a batch, and takes from `names` those that are removed. */
  #removeBatch(batch: ReadonlyArray<string>, names: Set<string>): Effect.Effect<void> {
    return Effect.flatMap(this.#attempt(this.#backend.removeAll(batch)), (failures) => {
      if (Option.isNone(failures)) return Effect.void
      for (const name of batch) names.delete(name)
      for (const { key } of failures.value) if (key !== undefined) names.add(key)
      return Effect.forEach(failures.value, (error) => this.#counters.failed(error), { discard: true })
    })
  }
}

/** The bytes of an object, and the trailer that is known once they have passed. */
const withTrailer = (
  bytes: Stream.Stream<Uint8Array>,
  info: ObjectInfo,
  origin: string
): Stream.Stream<Uint8Array> =>
  Stream.unwrap(Effect.map(Hash.make("sha256"), (hash) => {
    const trailer = Effect.suspend(() => writeTrailer(info, { origin, sha256: Encoding.encodeBase64(hash.digest()) }))
    return Stream.concat(Stream.tap(bytes, (piece) => Hash.update(hash, piece)), Stream.fromEffect(trailer))
  }))

const toRange = ({ endExclusive, start }: ByteRange.ResolvedRange): ByteRange.ByteRange =>
  ByteRange.make(start, endExclusive)
