/**
 * Reads encrypted objects: only the chunks that a range touches, and the header of an object once for many ranges.
 */
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Redacted from "effect/Redacted"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import { LRUCache } from "lru-cache"
import * as ByteRange from "../../ByteRange.js"
import { allocate, collect, concat } from "../../internal/bytes.js"
import { coalesce, cut } from "../../internal/ranges.js"
import type { LoadOptions, ObjectInfo, OpenedObject, StorageBackend, StreamOptions } from "../../StorageBackend.js"
import { checkLoad, openedBytes } from "../../StorageBackend.js"
import * as E from "../../StorageError.js"
import * as Cobblestone from "./cobblestone.js"
import * as Header from "./header.js"
import type { MasterKeys } from "./masterKeys.js"
import { pipeline, prepend, type Pull, pullAtLeast } from "./pipeline.js"

type Bytes = Uint8Array<ArrayBuffer>

type Opened = Omit<OpenedObject, "position">

/** How many chunks are decrypted together: 1 MiB. */
const chunksAtOnce = 64

/** Of how many objects the keys are kept, so that ranges of one object need its header once. */
const mostKnown = 1000

/** One version of an object, and its keys. */
interface Known {
  /** As users see it. */
  readonly info: ObjectInfo
  readonly message: Cobblestone.Message
}

/** The metadata of an object as users see it. A checksum would be that of the encrypted bytes. */
export const plainInfo = ({ checksum: _, ...info }: ObjectInfo): ObjectInfo => ({
  ...info,
  size: Header.plainSize(info.size).size
})

export class Reader {
  readonly #inner: StorageBackend
  readonly #keys: MasterKeys
  readonly #known = new LRUCache<string, Known>({ max: mostKnown })

  constructor(inner: StorageBackend, keys: MasterKeys) {
    this.#inner = inner
    this.#keys = keys
  }

  open(key: string, options: StreamOptions): Effect.Effect<Opened, E.LoadError, Scope.Scope> {
    const opening = Effect.flatMap(this.#find(key, options), (found) => {
      const { info, range } = found
      return found.isInMemory
        ? Effect.map(loadAll(found), (bytes) => openedBytes(info, range, bytes))
        : Effect.succeed({ info, range, stream: found.decrypt(joined) })
    })
    return ofOneVersion(options, opening)
  }

  load(key: string, options: LoadOptions): Effect.Effect<Bytes, E.LoadError> {
    return ofOneVersion(options, Effect.scoped(Effect.flatMap(this.#find(key, options), loadAll)))
  }

  loadRanges(
    key: string,
    ranges: ReadonlyArray<ByteRange.ByteRange>,
    options: Omit<LoadOptions, "range">
  ): Effect.Effect<ReadonlyArray<Bytes>, E.LoadError> {
    const load = (known: Known) =>
      Effect.gen(this, function*() {
        const resolved = yield* Effect.forEach(ranges, (range) => checkLoad(known.info, { range }))
        const reads = coalesce(resolved)
        const loaded = yield* Effect.forEach(
          reads,
          (read) => Effect.scoped(Effect.flatMap(this.#findChunks(key, known, read, options), loadAll)),
          { concurrency: 8 }
        )
        return resolved.map((range) => cut(range, reads, loaded))
      })
    // Without a range, no request would show whether the object is still that which is known.
    const loading = ranges.length === 0
      ? Effect.flatMap(this.#readHeader(key, options), load)
      : this.#using(key, options, load)
    return ofOneVersion(options, loading)
  }

  #find(key: string, options: StreamOptions): Effect.Effect<Found, E.LoadError, Scope.Scope> {
    const { range } = options
    return range === undefined || (beginsInFirstChunk(range) && !this.#known.has(key))
      ? this.#findFromHeader(key, options)
      : this.#using(
        key,
        options,
        (known) =>
          Effect.flatMap(checkLoad(known.info, { range }), (range) => this.#findChunks(key, known, range, options))
      )
  }

  /** Reads the header, and the bytes that follow it, with one request. */
  #findFromHeader(key: string, options: StreamOptions): Effect.Effect<Found, E.LoadError, Scope.Scope> {
    return Effect.gen(this, function*() {
      const opened = yield* openFromStart(this.#inner, key, {
        ...options,
        range: options.range && fromHeader(options.range)
      })
      const info = yield* checkedInfo(opened.info)
      const range = yield* checkLoad(info, { range: options.range })
      const read = (join: Join) =>
        Effect.gen(this, function*() {
          const pull = yield* Stream.toPull(storedStream(opened))
          const first = yield* pullAtLeast(pull, Header.chunksAt)
          const known = yield* this.#know(key, info, first)
          return decrypt(known, range, prepend(first.subarray(Header.chunksAt), pull), 0, options.chunkSize, join)
        })
      return {
        info,
        range,
        isInMemory: opened.bytes !== undefined,
        decrypt: (join) => Stream.unwrapScoped(read(join))
      }
    })
  }

  /** Opens the chunks of a range of the version that is known. */
  #findChunks(
    key: string,
    known: Known,
    range: ByteRange.ResolvedRange,
    options: StreamOptions
  ): Effect.Effect<Found, E.LoadError, Scope.Scope> {
    const { info } = known
    const first = Cobblestone.chunkAt(range.start)
    const last = Cobblestone.chunkAt(range.endExclusive === info.size ? info.size : range.endExclusive - 1)
    const stored = ByteRange.make(storedAt(first), storedAt(last + 1))
    return Effect.map(
      this.#inner.open(key, { ...options, range: stored, ifMatch: info.etag }),
      (opened): Found => ({
        info,
        range,
        isInMemory: opened.bytes !== undefined,
        decrypt: (join) =>
          Stream.unwrapScoped(Effect.map(
            Stream.toPull(storedStream(opened)),
            (pull) => decrypt(known, range, pull, first, options.chunkSize, join)
          ))
      })
    )
  }

  /** Uses the version that is known, or the current one where that is another. */
  #using<A, R>(
    key: string,
    options: LoadOptions,
    use: (known: Known) => Effect.Effect<A, E.LoadError, R>
  ): Effect.Effect<A, E.LoadError, R> {
    return Effect.suspend(() => {
      const { bypassCache = false, ifMatch } = options
      const current = Effect.flatMap(this.#readHeader(key, options), use)
      const known = this.#known.get(key)
      if (known === undefined || bypassCache || (ifMatch !== undefined && ifMatch !== known.info.etag)) return current
      return Effect.catchTags(use(known), { PreconditionFailed: () => current, InvalidRange: () => current })
    })
  }

  #readHeader(key: string, options: LoadOptions): Effect.Effect<Known, E.LoadError> {
    const range = ByteRange.make(0, Header.chunksAt)
    return Effect.scoped(Effect.gen(this, function*() {
      const opened = yield* openFromStart(this.#inner, key, { ...options, range })
      const info = yield* checkedInfo(opened.info)
      return yield* this.#know(key, info, opened.bytes ?? (yield* collect(opened.stream)))
    }))
  }

  /** Derives the keys of an object from its first bytes. */
  #know(key: string, info: ObjectInfo, first: Uint8Array): Effect.Effect<Known, E.LoadError> {
    return Effect.gen(this, function*() {
      const known = this.#known.get(key)
      if (known?.info.etag === info.etag) return known
      const header = yield* Effect.promise(() => Header.decode(first))
      if (typeof header === "string") return yield* corrupt("frame", header)
      const secret = yield* this.#keys.unwrap(header, key)
      const salted = first.subarray(Header.headerSize, Header.chunksAt)
      const message = yield* Effect.promise(() => Cobblestone.Message.read(Redacted.value(secret), salted, key))
      if (message === undefined) {
        return yield* corrupt("checksum", "the object does not belong to its key and data key, or its start is damaged")
      }
      const current = { info, message }
      this.#known.set(key, current)
      return current
    })
  }
}

/** Opens a range that begins at the first byte of the stored object, which an object without bytes does not have. */
export const openFromStart = (
  inner: StorageBackend,
  key: string,
  options: StreamOptions
): Effect.Effect<OpenedObject, E.LoadError, Scope.Scope> =>
  Effect.catchTag(inner.open(key, options), "InvalidRange", () => Effect.fail(impossible(0)))

const corrupt = (problem: "checksum" | "frame", reason: string): E.CorruptObject =>
  new E.CorruptObject({ problem, reason })

const impossible = (size: number): E.CorruptObject =>
  corrupt("frame", `no encrypted object has a size of ${size} bytes: it is not encrypted, or it was cut off`)

const checkedInfo = (info: ObjectInfo): Either.Either<ObjectInfo, E.CorruptObject> =>
  Header.plainSize(info.size).isPossible ? Either.right(plainInfo(info)) : Either.left(impossible(info.size))

/** Begins again where the object is overwritten between two requests, unless one version of it was asked for. */
const ofOneVersion = <A, R>(
  { ifMatch }: LoadOptions,
  read: Effect.Effect<A, E.LoadError, R>
): Effect.Effect<A, E.LoadError, R> =>
  ifMatch === undefined
    ? Effect.retry(read, { times: mostChanges, while: ({ _tag }) => _tag === "PreconditionFailed" })
    : read

const mostChanges = 10

/** Where a chunk begins in the stored object. */
const storedAt = (chunk: number): number => Header.chunksAt + chunk * Cobblestone.sealedChunkSize

const beginsInFirstChunk = (range: ByteRange.ByteRange): boolean =>
  range._tag !== "Last" && range.start < Cobblestone.chunkSize

/** What has to be read of the stored object, for a range that begins in its first chunk. */
const fromHeader = (range: ByteRange.ByteRange): ByteRange.ByteRange =>
  range._tag === "Bounded"
    ? ByteRange.make(0, Math.min(storedAt(Cobblestone.chunkAt(range.endExclusive - 1) + 1), Number.MAX_SAFE_INTEGER))
    : ByteRange.from(0)

/** The stored bytes, in one array where that is possible: chunks are copied as they are decrypted. */
const storedStream = ({ bytes, reuse, stream }: OpenedObject): OpenedObject["stream"] =>
  bytes !== undefined ? Stream.make(bytes) : reuse?.(() => true) ?? stream

/** Makes one array of the bytes of several chunks, which begin at a position in the range. */
type Join = (parts: ReadonlyArray<Uint8Array>, position: number) => Bytes

const joined: Join = (parts) => concat(parts)

/** A range that is open, and still encrypted. */
interface Found {
  readonly info: ObjectInfo
  readonly range: ByteRange.ResolvedRange
  readonly isInMemory: boolean
  readonly decrypt: (join: Join) => OpenedObject["stream"]
}

/** Decrypts a range into one array. */
const loadAll = ({ decrypt, range }: Found): Effect.Effect<Bytes, E.LoadError> =>
  Effect.flatMap(Effect.suspend(() => allocate(range.endExclusive - range.start)), (target) => {
    let loaded = 0
    const put: Join = (parts, position) => {
      let at = position
      for (const part of parts) {
        target.set(part, at)
        at += part.byteLength
      }
      loaded += at - position
      return none
    }
    const wrong = () =>
      new E.CorruptObject({
        problem: "truncated",
        reason: `the body ended after ${loaded} of ${target.byteLength} bytes`
      })
    return Effect.filterOrFail(
      Effect.as(Stream.runDrain(decrypt(put)), target),
      () => loaded === target.byteLength,
      wrong
    )
  })

const none = new Uint8Array(0)

/** The bytes of a range, from the stored chunks from `first` on. */
const decrypt = (
  { message }: Known,
  { endExclusive, start }: ByteRange.ResolvedRange,
  stored: Pull<E.LoadError>,
  first: number,
  largest = Infinity,
  join: Join
): OpenedObject["stream"] =>
  pipeline(stored, {
    pieceSize: Cobblestone.sealedChunkSize,
    atOnce: Math.max(1, Math.min(chunksAtOnce, Math.floor(largest / Cobblestone.chunkSize))),
    lastMayBeEmpty: false,
    run: async (sealed, index) => {
      const chunks = await message.open(index, sealed)
      if (chunks.length < sealed.length) return Either.left(notAuthentic(index + chunks.length))
      const parts = chunks.map((chunk, i) => {
        const at = (index + i) * Cobblestone.chunkSize
        return chunk.subarray(Math.max(0, start - at), Math.max(0, endExclusive - at))
      })
      return Either.right(join(parts, Math.max(0, index * Cobblestone.chunkSize - start)))
    }
  }, first)

const notAuthentic = (index: number): E.CorruptObject =>
  corrupt("checksum", `chunk ${index} of the object is damaged, or is not the last one although the object ends there`)
