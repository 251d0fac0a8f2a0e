/**
 * Whole objects in the second tier of a cache. What an earlier process has saved is read and held against its checksum once,
 * before any of it is served.
 *
 * Nothing here fails: a failure of the tier is counted, and then it is as if the object were not there.
 */
import * as Effect from "effect/Effect"
import * as Encoding from "effect/Encoding"
import * as Option from "effect/Option"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import * as ByteRange from "../../ByteRange.js"
import * as Hash from "../../internal/hash.js"
import * as KeyedLock from "../../internal/keyedLock.js"
import { forEachChunk } from "../../internal/pulling.js"
import * as ObjectKey from "../../ObjectKey.js"
import type { ObjectInfo, OpenedObject, SaveData } from "../../StorageBackend.js"
import { mapStream, openedBytes } from "../../StorageBackend.js"
import { CorruptObject, type StorageError } from "../../StorageError.js"
import type { Counters } from "./counters.js"
import type { Entry } from "./memoryTier.js"
import { maxTrailer, readTrailer, toName, trailerSize, withTrailer } from "./storedObject.js"
import type { Perhaps, TierStorage } from "./tierStorage.js"

export class SecondTier {
  readonly #tier: TierStorage
  readonly #counters: Counters
  readonly #checking = KeyedLock.make()

  constructor(tier: TierStorage, counters: Counters) {
    this.#tier = tier
    this.#counters = counters
  }

  contents(): { readonly objects: number; readonly size: number } {
    const { objects, size } = this.#tier.contents()
    return { objects, size }
  }

  /** What is known of an object, if it is here. */
  find(key: string): Effect.Effect<Entry | undefined> {
    return Effect.suspend(() => {
      const name = toName(key)
      const found = this.#tier.get(name)
      if (found?.etag === undefined) return Effect.succeed(undefined)
      if (found.entry !== undefined) return Effect.succeed(found.entry)
      const options = { range: ByteRange.last(maxTrailer), ifMatch: found.etag }
      return Effect.gen(this, function*() {
        const end = yield* this.#tier.attempt(this.#tier.backend.load(name, options))
        const trailer = Option.isNone(end) ? undefined : yield* readTrailer(key, end.value, found.size)
        const now = this.#tier.peek(name)
        if (now !== found) return now?.etag === undefined ? undefined : now.entry
        if (trailer?.origin !== this.#tier.origin || trailer.block !== undefined) {
          this.#tier.drop(name, found)
          return undefined
        }
        const entry = { info: trailer.info, confirmedAt: -Infinity }
        this.#tier.note(name, { ...found, entry, unchecked: trailer.sha256 })
        return entry
      })
    })
  }

  /** Bytes of an object that was found, in an array of the caller's own. */
  load(entry: Entry, range: ByteRange.ResolvedRange): Perhaps<Uint8Array<ArrayBuffer>> {
    return entry.info.size === 0
      ? Effect.succeedSome(new Uint8Array(0))
      : this.#read(entry, (name, ifMatch) => this.#tier.backend.load(name, { range: toRange(range), ifMatch }))
  }

  loadRanges(
    entry: Entry,
    ranges: ReadonlyArray<ByteRange.ResolvedRange>
  ): Perhaps<ReadonlyArray<Uint8Array<ArrayBuffer>>> {
    return entry.info.size === 0
      ? Effect.succeedSome(ranges.map(() => new Uint8Array(0)))
      : this.#read(entry, (name, ifMatch) => this.#tier.backend.loadRanges(name, ranges.map(toRange), { ifMatch }))
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
        Effect.map(this.#tier.backend.open(name, { range: toRange(range), ifMatch, chunkSize }), (opened) => ({
          ...mapStream(opened, Stream.tapError((error) => Effect.zipRight(drop, this.#counters.failed(error)))),
          info,
          range
        }))
    )
  }

  /** Whether an object like this may be kept. */
  fits(info: ObjectInfo): boolean {
    const { capacity, origin } = this.#tier
    if (ObjectKey.problem(toName(info.key)) !== undefined || info.size >= capacity) return false
    const trailer = trailerSize(info, origin)
    return trailer <= maxTrailer && info.size + trailer <= capacity
  }

  /**
   * Keeps an object, whole or not at all, unless it is removed meanwhile, or not wanted any more when it begins, or another
   * save of this key is under way. A stream has to yield as many bytes as its metadata says.
   */
  save(entry: Entry, data: SaveData, isWanted: () => boolean): Effect.Effect<void> {
    const { info } = entry
    const { origin } = this.#tier
    const place = { key: info.key, size: info.size + trailerSize(info, origin), entry }
    const bytes = data instanceof Uint8Array ? Stream.make(data) : data
    return this.#tier.save(toName(info.key), place, withTrailer(bytes, info, origin), isWanted)
  }

  remove(keys: ReadonlyArray<string>): Effect.Effect<void> {
    return this.#tier.remove(keys)
  }

  /** Reads an object that was found, if it is still the same, and as it was saved. Where that fails, it is dropped. */
  #read<A, R>(
    entry: Entry,
    reading: (name: string, ifMatch: string, drop: Effect.Effect<void>) => Effect.Effect<A, StorageError, R>
  ): Perhaps<A, R> {
    const name = toName(entry.info.key)
    const check = Effect.suspend(() =>
      this.#tier.peek(name)?.unchecked === undefined ? Effect.void : this.#checking(name)(this.#check(name))
    )
    return Effect.flatMap(check, () => {
      const found = this.#tier.get(name)
      if (found?.etag === undefined || found.entry !== entry) return Effect.succeedNone
      const drop = Effect.sync(() => this.#tier.drop(name, found))
      return Effect.tap(
        this.#tier.attempt(reading(name, found.etag, drop)),
        (result) => Option.isNone(result) ? drop : Effect.void
      )
    })
  }

  /** Reads all of an object that an earlier process has saved, and drops it where that is damaged. */
  #check(name: string): Effect.Effect<void> {
    return Effect.suspend(() => {
      const found = this.#tier.peek(name)
      if (found?.etag === undefined || found.entry === undefined || found.unchecked === undefined) return Effect.void
      const { entry, etag: ifMatch, unchecked } = found
      const range = ByteRange.make(0, entry.info.size)
      const hashing = Effect.scoped(Effect.gen(this, function*() {
        const hash = yield* Hash.make("sha256")
        const { reuse, stream } = yield* this.#tier.backend.open(name, { range, ifMatch })
        yield* forEachChunk(reuse?.(() => true) ?? stream, (bytes) => Hash.update(hash, bytes))
        if (Encoding.encodeBase64(hash.digest()) === unchecked) return
        return yield* new CorruptObject({ key: name, problem: "checksum", reason: changedOnDisk })
      }))
      return Effect.map(this.#tier.attempt(hashing), (checked) => {
        if (Option.isNone(checked)) return this.#tier.drop(name, found)
        if (this.#tier.peek(name) === found) {
          const { unchecked: _, ...rest } = found
          this.#tier.note(name, rest)
        }
      })
    })
  }
}

const changedOnDisk = "its bytes have changed since it was saved"

const toRange = ({ endExclusive, start }: ByteRange.ResolvedRange): ByteRange.ByteRange =>
  ByteRange.make(start, endExclusive)
