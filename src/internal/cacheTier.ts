/**
 * The second tier of a cache: objects of an origin in a storage of their own, which outlives the process. It holds so
 * many bytes, and what was not used for longest goes first; after a restart, what was saved first.
 *
 * Each is kept as one object, so that it is there with all that belongs to it or not at all: its bytes, then what the
 * origin said of it as JSON, then the length of that in four bytes, little-endian. Its name is its key with `+` behind
 * each folder and `-` behind the last segment, since a file system has no place for `foo` beside `foo/bar`.
 *
 * Nothing here fails: what goes wrong with the tier is told to `onFailure`, and is as if the object were not there.
 */
import * as Arr from "effect/Array"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import { LRUCache } from "lru-cache"
import * as ByteRange from "../ByteRange.js"
import * as ObjectKey from "../ObjectKey.js"
import type { ObjectInfo, StorageBackend } from "../StorageBackend.js"
import type { LoadError, StorageError } from "../StorageError.js"

/** Something that the tier may have, and the rest of the cache can do without. */
type Perhaps<A, R = never> = Effect.Effect<Option.Option<A>, never, R>

export interface Tier {
  /** What the origin said of the object, if it is here. */
  readonly find: (key: string) => Effect.Effect<ObjectInfo | undefined>
  /** Bytes of an object that was found, in an array of the caller's own. */
  readonly load: (info: ObjectInfo, range: ByteRange.ResolvedRange) => Perhaps<Uint8Array>
  readonly loadRanges: (
    info: ObjectInfo,
    ranges: ReadonlyArray<ByteRange.ResolvedRange>
  ) => Perhaps<ReadonlyArray<Uint8Array>>
  /** A stream of them, which may break; that, too, is told to `onFailure`. */
  readonly open: (
    info: ObjectInfo,
    range: ByteRange.ResolvedRange
  ) => Perhaps<Stream.Stream<Uint8Array, LoadError>, Scope.Scope>
  /** Whether there is a place for an object like this. */
  readonly takes: (info: ObjectInfo) => boolean
  /**
   * Keeps an object, all of it or nothing, unless it is removed meanwhile, or not wanted any more when there is a place
   * for it, or another of this key is on its way. A stream has to yield as many bytes as `info` says.
   */
  readonly save: (
    info: ObjectInfo,
    data: Uint8Array | Stream.Stream<Uint8Array>,
    isWanted: () => boolean
  ) => Effect.Effect<unknown>
  readonly remove: (keys: ReadonlyArray<string>) => Effect.Effect<void>
  readonly state: () => { readonly objects: number; readonly size: number }
}

/** An object in the tier. */
interface Kept {
  /** In bytes, with all that belongs to it. */
  readonly size: number
  /** Its etag in the tier; none while it is on its way. */
  readonly etag?: string
  /** What the origin said, once that has been read. */
  readonly info?: ObjectInfo
}

export const make = (
  backend: StorageBackend,
  capacity: number,
  onFailure: (error: StorageError) => Effect.Effect<void>,
  onEviction: () => void
): Effect.Effect<Tier> =>
  Effect.gen(function*() {
    /** The names of what has to go. */
    const leaving = new Set<string>()
    /** The keys of what is being saved. */
    const coming = new Set<string>()
    let isListed = false
    const oneByOne = Effect.unsafeMakeSemaphore(1).withPermits(1)

    const kept = new LRUCache<string, Kept>({
      maxSize: capacity,
      // What a crash has left may be empty.
      sizeCalculation: ({ size }) => Math.max(1, size),
      dispose: (_, key, reason) => {
        if (reason !== "evict") return
        leaving.add(toName(key))
        onEviction()
      }
    })

    const attempt = <A, R>(effect: Effect.Effect<A, StorageError, R>): Perhaps<A, R> =>
      Effect.matchEffect(effect, {
        onFailure: (error) => Effect.as(onFailure(error), Option.none()),
        onSuccess: Effect.succeedSome
      })

    /** Whether all that has to go is gone. What cannot be removed is tried again the next time. */
    const tidy: Effect.Effect<boolean> = oneByOne(Effect.acquireUseRelease(
      Effect.sync(() => {
        const names = new Set(leaving)
        leaving.clear()
        return names
      }),
      (names) =>
        Effect.forEach(Arr.chunksOf(names, 1000), (batch) =>
          Effect.flatMap(attempt(backend.removeAll(batch)), (failures) => {
            if (Option.isNone(failures)) {
              return Effect.void
            }
            for (const name of batch) {
              names.delete(name)
            }
            for (const { key } of failures.value) {
              if (key !== undefined) {
                names.add(key)
              }
            }
            return Effect.forEach(failures.value, onFailure, { discard: true })
          }), { discard: true }).pipe(Effect.map(() =>
            names.size === 0
          )),
      (names) =>
        Effect.sync(() => {
          for (const name of names) {
            leaving.add(name)
          }
        })
    ))

    /** Learns what is here from before. As long as that fails nothing is kept, since nobody knows how much room there is. */
    const list = oneByOne(Effect.suspend(() =>
      isListed ? Effect.void : Effect.map(
        attempt(Stream.runCollect(backend.entries({}))),
        Option.match({
          onNone: () => {},
          onSome: (listed) => {
            const byAge = [...listed].sort((one, other) =>
              one.lastModified.getTime() - other.lastModified.getTime()
            )
            for (const { etag, key: name, size } of byAge) {
              const key = toKey(name)
              if (key === undefined || leaving.has(name)) continue
              kept.set(key, { size, etag })
              // It is larger than all there is room for.
              if (!kept.has(key)) leaving.add(name)
            }
            isListed = true
          }
        })
      )
    ))

    const drop = (key: string, found: Kept) => {
      if (kept.peek(key) !== found) return
      kept.delete(key)
      leaving.add(toName(key))
    }

    /** Reads an object that was found, if it is still the same; it is dropped where that fails. */
    const read = <A, R>(
      info: ObjectInfo,
      reading: (
        name: string,
        ifMatch: { readonly ifMatch: string },
        fail: () => void
      ) => Effect.Effect<A, StorageError, R>
    ): Perhaps<A, R> =>
      Effect.suspend(() => {
        const { key } = info
        const found = kept.get(key)
        if (found?.etag === undefined || found.info !== info) return Effect.succeedNone
        const fail = () => drop(key, found)
        return Effect.tap(attempt(reading(toName(key), { ifMatch: found.etag }, fail)), (result) => {
          if (Option.isNone(result)) fail()
        })
      })

    const find: Tier["find"] = (key) =>
      Effect.suspend(() => {
        const found = kept.get(key)
        if (found?.etag === undefined || found.info !== undefined) return Effect.succeed(found?.info)
        const range = ByteRange.last(longestEnd)
        return Effect.map(attempt(backend.load(toName(key), { range, ifMatch: found.etag })), (end) => {
          const now = kept.peek(key)
          if (now !== found) return now?.info
          const info = Option.isNone(end) ? undefined : readEnd(key, end.value, found.size)
          if (info === undefined) drop(key, found)
          else kept.set(key, { ...found, info })
          return info
        })
      })

    const save: Tier["save"] = (info, data, isWanted) => {
      const { key } = info
      const name = toName(key)
      const end = writeEnd(info)
      const size = info.size + end.byteLength
      const place: Kept = { size }
      const bytes = data instanceof Uint8Array ? Stream.make(data) : data
      const saving = Effect.flatMap(
        tidy,
        (isTidy) =>
          isTidy
            ? attempt(backend.save(name, Stream.concat(bytes, Stream.make(end)), { size }))
            : Effect.succeedNone
      )
      const takePlace = Effect.sync(() => {
        if (!isListed || end.byteLength > longestEnd || coming.has(key) || !isWanted()) return false
        coming.add(key)
        // An older version goes first, like whatever has to go for this one.
        if (kept.delete(key)) leaving.add(name)
        kept.set(key, place)
        return true
      })
      const settle = (saved: { readonly etag: string } | undefined) =>
        Effect.suspend(() => {
          // Meanwhile it may have been removed, or had to go for others.
          const isMine = kept.peek(key) === place
          if (saved !== undefined && isMine) {
            kept.set(key, { size, etag: saved.etag, info })
          } else {
            if (isMine) kept.delete(key)
            leaving.add(name)
          }
          return Effect.zipRight(tidy, Effect.sync(() => coming.delete(key)))
        })
      return Effect.zipRight(
        list,
        Effect.acquireUseRelease(
          takePlace,
          (isTaken) => isTaken ? saving : Effect.succeedNone,
          (isTaken, exit) =>
            isTaken ? settle(Exit.isSuccess(exit) ? Option.getOrUndefined(exit.value) : undefined) : Effect.void
        )
      )
    }

    yield* list
    yield* tidy

    return {
      find,
      load: (info, range) =>
        info.size === 0
          ? Effect.succeedSome(new Uint8Array(0))
          : read(info, (name, ifMatch) => backend.load(name, { range: toRange(range), ...ifMatch })),
      loadRanges: (info, ranges) =>
        info.size === 0
          ? Effect.succeedSome(ranges.map(() => new Uint8Array(0)))
          : read(info, (name, ifMatch) => backend.loadRanges(name, ranges.map(toRange), ifMatch)),
      open: (info, range) =>
        info.size === 0
          ? Effect.succeedSome(Stream.empty)
          : read(info, (name, ifMatch, fail) =>
            Effect.map(
              backend.open(name, { range: toRange(range), ...ifMatch }),
              ({ stream }) => Stream.tapError(stream, (error) => Effect.zipRight(Effect.sync(fail), onFailure(error)))
            )),
      takes: ({ key, size }) => ObjectKey.problem(toName(key)) === undefined && size + longestEnd <= capacity,
      save,
      remove: (keys) =>
        Effect.suspend(() => {
          // As long as nobody knows what is here, any of them may be.
          for (const key of keys) if (kept.delete(key) || !isListed) leaving.add(toName(key))
          return leaving.size > 0 ? Effect.asVoid(tidy) : Effect.void
        }),
      state: () => ({ objects: kept.size, size: kept.calculatedSize })
    }
  })

const toRange = ({ endExclusive, start }: ByteRange.ResolvedRange) => ByteRange.make(start, endExclusive)

const toName = (key: string): string => `${key.replaceAll("/", "+/")}-`

/** The key that has this name, if it is one of ours. */
const toKey = (name: string): string | undefined => {
  const key = name.replaceAll("+/", "/").replace(/-$/, "")
  return toName(key) === name && ObjectKey.problem(key) === undefined ? key : undefined
}

/** No more than so many bytes stand behind those of an object. */
const longestEnd = 1024

const End = Schema.parseJson(Schema.Struct({
  size: Schema.Number,
  lastModified: Schema.DateFromNumber,
  etag: Schema.String,
  checksum: Schema.optionalWith(
    Schema.Struct({ algorithm: Schema.Literal("CRC32C", "SHA256", "CRC64NVME"), value: Schema.String }),
    { exact: true }
  )
}))

const writeEnd = (info: ObjectInfo): Uint8Array => {
  const text = new TextEncoder().encode(Schema.encodeSync(End)(info))
  const end = new Uint8Array(text.byteLength + 4)
  end.set(text)
  new DataView(end.buffer).setUint32(text.byteLength, text.byteLength, true)
  return end
}

/** What an end says of an object that has `size` bytes with it; nothing where it is none. */
const readEnd = (key: string, end: Uint8Array, size: number): ObjectInfo | undefined => {
  if (end.byteLength < 4) return undefined
  const at = end.byteLength - 4
  const length = new DataView(end.buffer, end.byteOffset).getUint32(at, true)
  const text = new TextDecoder().decode(end.subarray(Math.max(0, at - length), at))
  return Option.match(Schema.decodeOption(End)(text), {
    onNone: () => undefined,
    onSome: (info) => info.size + length + 4 === size ? { key, ...info } : undefined
  })
}
