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
import { collect, intoArray } from "../../internal/bytes.js"
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
    const { range } = options
    return range === undefined || (beginsInFirstChunk(range) && !this.#known.has(key))
      ? this.#openFromHeader(key, options)
      : this.#using(key, options, (known) => this.#openRange(key, known, range, options))
  }

  loadRanges(
    key: string,
    ranges: ReadonlyArray<ByteRange.ByteRange>,
    options: Omit<LoadOptions, "range">
  ): Effect.Effect<ReadonlyArray<Bytes>, E.LoadError> {
    return this.#using(key, options, (known) =>
      Effect.gen(this, function*() {
        const resolved = yield* Effect.forEach(ranges, (range) => checkLoad(known.info, { ...options, range }))
        const reads = coalesce(resolved)
        const loaded = yield* Effect.forEach(reads, (read) => this.#loadRange(key, known, read, options), {
          concurrency: 8
        })
        return resolved.map((range) => cut(range, reads, loaded))
      }))
  }

  /** Reads the header, and the bytes that follow it, with one request. */
  #openFromHeader(key: string, options: StreamOptions): Effect.Effect<Opened, E.LoadError, Scope.Scope> {
    return Effect.gen(this, function*() {
      const opened = yield* this.#openStored(key, { ...options, range: options.range && fromHeader(options.range) })
      const info = yield* checkedInfo(opened.info)
      const range = yield* checkLoad(info, { range: options.range })
      const decrypted = Effect.flatMap(Stream.toPull(storedStream(opened)), (pull) =>
        Effect.gen(this, function*() {
          const first = yield* pullAtLeast(pull, Header.chunksAt)
          const known = yield* this.#know(key, info, first)
          const rest = prepend(first.subarray(Header.chunksAt), pull)
          return decrypt(known, range, rest, 0, options.chunkSize)
        }))
      return yield* describe(opened, info, range, Stream.unwrapScoped(decrypted))
    })
  }

  /** Opens the chunks of a range of the version that is known. */
  #openRange(
    key: string,
    known: Known,
    wanted: ByteRange.ByteRange,
    options: StreamOptions
  ): Effect.Effect<Opened, E.LoadError, Scope.Scope> {
    return Effect.gen(this, function*() {
      const { info } = known
      const range = yield* checkLoad(info, { range: wanted })
      const first = Cobblestone.chunkAt(range.start)
      const last = range.endExclusive === info.size ? info.size : range.endExclusive - 1
      const stored = ByteRange.make(storedAt(first), storedAt(Cobblestone.chunkAt(last) + 1))
      const opened = yield* this.#inner.open(key, { ...options, range: stored, ifMatch: info.etag })
      const pull = Stream.toPull(storedStream(opened))
      const stream = Effect.map(pull, (pull) => decrypt(known, range, pull, first, options.chunkSize))
      return yield* describe(opened, info, range, Stream.unwrapScoped(stream))
    })
  }

  #loadRange(
    key: string,
    known: Known,
    { endExclusive, start }: ByteRange.ResolvedRange,
    { bypassCache, ifNoneMatch }: LoadOptions
  ): Effect.Effect<Bytes, E.LoadError> {
    const wanted = known.info.size === 0 ? ByteRange.last(1) : ByteRange.make(start, endExclusive)
    return Effect.scoped(Effect.flatMap(
      this.#openRange(key, known, wanted, { bypassCache, ifNoneMatch }),
      ({ bytes, stream }) => bytes === undefined ? intoArray(stream, endExclusive - start) : Effect.succeed(bytes)
    ))
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
      const opened = yield* this.#openStored(key, { ...options, range })
      const info = yield* checkedInfo(opened.info)
      return yield* this.#know(key, info, opened.bytes ?? (yield* collect(opened.stream)))
    }))
  }

  #openStored(key: string, options: StreamOptions): Effect.Effect<OpenedObject, E.LoadError, Scope.Scope> {
    // Every range that is asked for begins at the first byte.
    return Effect.catchTag(this.#inner.open(key, options), "InvalidRange", () => Effect.fail(impossible(0)))
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

const corrupt = (problem: "checksum" | "frame", reason: string): E.CorruptObject =>
  new E.CorruptObject({ problem, reason })

const impossible = (size: number): E.CorruptObject =>
  corrupt("frame", `no encrypted object has a size of ${size} bytes: it is not encrypted, or it was cut off`)

const checkedInfo = (info: ObjectInfo): Either.Either<ObjectInfo, E.CorruptObject> =>
  Header.plainSize(info.size).isPossible ? Either.right(plainInfo(info)) : Either.left(impossible(info.size))

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

/** An opened range, decrypted at once where its stored bytes are in memory. */
const describe = (
  { bytes }: OpenedObject,
  info: ObjectInfo,
  range: ByteRange.ResolvedRange,
  stream: OpenedObject["stream"]
): Effect.Effect<Opened, E.LoadError> =>
  bytes === undefined
    ? Effect.succeed({ info, range, stream })
    : Effect.map(intoArray(stream, range.endExclusive - range.start), (bytes) => openedBytes(info, range, bytes))

/** The bytes of a range, from the stored chunks from `first` on. */
const decrypt = (
  { message }: Known,
  { endExclusive, start }: ByteRange.ResolvedRange,
  stored: Pull<E.LoadError>,
  first: number,
  largest = Infinity
): OpenedObject["stream"] =>
  pipeline(stored, {
    pieceSize: Cobblestone.sealedChunkSize,
    atOnce: Math.max(1, Math.min(chunksAtOnce, Math.floor(largest / Cobblestone.chunkSize))),
    lastMayBeEmpty: false,
    run: async (sealed, index) => {
      const chunks = await Promise.all(sealed.map((chunk, i) => message.open(index + i, chunk)))
      const from = index * Cobblestone.chunkSize
      const whole = new Uint8Array(Math.max(0, Math.min(endExclusive, from + sizeOf(sealed)) - Math.max(start, from)))
      let at = from
      for (const [i, chunk] of chunks.entries()) {
        if (chunk === undefined) return Either.left(notAuthentic(index + i))
        const part = chunk.subarray(Math.max(0, start - at), Math.max(0, endExclusive - at))
        whole.set(part, Math.max(0, at - Math.max(start, from)))
        at += chunk.byteLength
      }
      return Either.right(whole)
    }
  }, first)

/** How many bytes there are in some encrypted chunks. */
const sizeOf = (sealed: ReadonlyArray<Uint8Array>): number =>
  sealed.reduce((sum, { byteLength }) => sum + byteLength - Cobblestone.tagSize, 0)

const notAuthentic = (index: number): E.CorruptObject =>
  corrupt("checksum", `chunk ${index} of the object is damaged, or is not the last one although the object ends there`)
