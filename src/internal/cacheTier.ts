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
  /** A stream of them, which may break. */
  readonly open: (
    info: ObjectInfo,
    range: ByteRange.ResolvedRange
  ) => Perhaps<Stream.Stream<Uint8Array, LoadError>, Scope.Scope>
  /** Whether there is a place for an object like this. */
  readonly takes: (info: ObjectInfo) => boolean
  /** Keeps an object, all of it or nothing. A stream has to yield as many bytes as `info` says. */
  readonly save: (info: ObjectInfo, data: Uint8Array | Stream.Stream<Uint8Array>) => Effect.Effect<void>
  readonly remove: (keys: ReadonlyArray<string>) => Effect.Effect<void>
  readonly state: () => { readonly objects: number; readonly size: number }
}

/** An object in the tier. */
interface Kept {
  /** In bytes, with all that belongs to it. */
  readonly size: number
  /** Its etag in the tier; none while it is only on its way. */
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
    let evicted: Array<string> = []
    const kept = new LRUCache<string, Kept>({
      maxSize: capacity,
      sizeCalculation: ({ size }) => size,
      dispose: (_, key, reason) => {
        if (reason !== "evict") return
        evicted.push(toName(key))
        onEviction()
      }
    })

    const attempt = <A, R>(effect: Effect.Effect<A, StorageError, R>): Perhaps<A, R> =>
      Effect.matchEffect(effect, {
        onFailure: (error) => Effect.as(onFailure(error), Option.none()),
        onSuccess: Effect.succeedSome
      })

    /** Reads an object, which is forgotten where that fails. */
    const read = <A, R>(
      { key }: { readonly key: string },
      reading: (name: string, ifMatch: { readonly ifMatch: string }) => Effect.Effect<A, StorageError, R>
    ): Perhaps<A, R> =>
      Effect.suspend(() => {
        const etag = kept.get(key)?.etag
        if (etag === undefined) return Effect.succeedNone
        return Effect.tap(attempt(reading(toName(key), { ifMatch: etag })), (result) => {
          if (Option.isNone(result)) kept.delete(key)
        })
      })

    const removeNames = (names: ReadonlyArray<string>) =>
      Effect.forEach(Arr.chunksOf(names, 1000), (batch) =>
        Effect.flatMap(attempt(backend.removeAll(batch)), (failures) =>
          Effect.forEach(Option.getOrElse(failures, () => []), onFailure)), { discard: true })

    const removeEvicted = Effect.suspend(() => {
      const names = evicted
      evicted = []
      return removeNames(names)
    })

    const find: Tier["find"] = (key) =>
      Effect.suspend(() => {
        const found = kept.get(key)
        if (found?.etag === undefined) {
          return Effect.succeed(undefined)
        }
        if (found.info !== undefined) {
          return Effect.succeed(found.info)
        }
        const range = ByteRange.last(longestEnd)
        const end = read({ key }, (name, ifMatch) =>
          backend.load(name, { range, ...ifMatch }))
        return Effect.flatMap(end, (end) => {
          if (Option.isNone(end)) {
            return Effect.succeed(undefined)
          }
          const info = readEnd(key, end.value, found.size)
          if (info === undefined) {
            return Effect.as(remove([key]), undefined)
          }
          kept.set(key, { ...found, info })
          return Effect.succeed(info)
        })
      })

    const remove: Tier["remove"] = (keys) =>
      Effect.suspend(() =>
        removeNames(
          keys.filter((key) =>
            kept.delete(key)
          ).map(toName)
        )
      )

    const listed = yield* attempt(Stream.runCollect(backend.entries({})))
    const byAge = [...Option.getOrElse(listed, () => [])]
      .sort((one, other) => one.lastModified.getTime() - other.lastModified.getTime())
    for (const { etag, key: name, size } of byAge) {
      const key = toKey(name)
      if (key !== undefined) {
        kept.set(key, { size, etag })
      }
    }
    yield* removeEvicted

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
          : read(
            info,
            (name, ifMatch) =>
              Effect.map(backend.open(name, { range: toRange(range), ...ifMatch }), ({ stream }) => stream)
          ),
      takes: ({ key, size }) => ObjectKey.problem(toName(key)) === undefined && size + longestEnd <= capacity,
      save: (info, data) => {
        const { key } = info
        const end = writeEnd(info)
        const size = info.size + end.byteLength
        if (end.byteLength > longestEnd) return Effect.void
        const makeRoom = Effect.suspend(() => {
          // An older version goes first, like whatever has to go for this one.
          if (kept.delete(key)) evicted.push(toName(key))
          kept.set(key, { size })
          return removeEvicted
        })
        const bytes = data instanceof Uint8Array ? Stream.make(data) : data
        const save = backend.save(toName(key), Stream.concat(bytes, Stream.make(end)), { size })
        return attempt(Effect.zipRight(makeRoom, save)).pipe(
          Effect.onExit((exit) => {
            if (Exit.isSuccess(exit) && Option.isSome(exit.value)) {
              kept.set(key, { size, etag: exit.value.value.etag, info })
            } else {
              kept.delete(key)
            }
            return removeEvicted
          }),
          Effect.asVoid
        )
      },
      remove,
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
