/**
 * Reads objects from a bucket: a small one with one request, a large one in parts, several at once into one array, all of
 * them under the etag of the first response. A response that breaks is resumed at the byte where it broke.
 */
import * as Chunk from "effect/Chunk"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import * as ByteRange from "../../ByteRange.js"
import { allocate } from "../../internal/bytes.js"
import type { HttpCall } from "../../internal/httpCall.js"
import { readAhead } from "../../internal/readAhead.js"
import { openResuming, retry } from "../../internal/retry.js"
import type { RetryPolicy } from "../../RetryPolicy.js"
import {
  checkLoad,
  type LoadOptions,
  mapStream,
  type ObjectInfo,
  opened,
  openedBytes,
  type OpenedObject,
  type StreamOptions
} from "../../StorageBackend.js"
import * as E from "../../StorageError.js"
import * as Checksums from "./checksums.js"
import type { Getter, Opened, Plan } from "./get.js"
import type { Bucket } from "./request.js"
import { isOfWhole, toInfo } from "./responses.js"

type Bytes = Uint8Array<ArrayBuffer>

/** How objects are read in parts. */
export interface Parts {
  /** In bytes. */
  readonly partSize: number
  /** How many parts of a load are requested at once. */
  readonly concurrency: number
  /** How many parts of a stream are. */
  readonly streamConcurrency: number
}

export class Reader {
  readonly #getter: Getter
  readonly #bucket: Bucket
  readonly #policy: RetryPolicy
  readonly #parts: Parts
  readonly #checksum: Checksums.Checksum | undefined

  constructor(
    getter: Getter,
    bucket: Bucket,
    policy: RetryPolicy,
    parts: Parts,
    checksum: Checksums.Checksum | undefined
  ) {
    this.#getter = getter
    this.#bucket = bucket
    this.#policy = policy
    this.#parts = parts
    this.#checksum = checksum
  }

  head(key: string): Effect.Effect<ObjectInfo, E.HeadError> {
    const found = this.#getter.head(key, "ask", this.#checksum && { headers: Checksums.mode })
    return Effect.map(retry(found, this.#policy), ({ info }) => info)
  }

  // Loads

  load(key: string, options: LoadOptions): Effect.Effect<Bytes, E.LoadError> {
    const { range } = options
    if (this.#checksum === undefined || range !== undefined) return this.#loadUnverified(key, options)
    const checksum = this.#checksum
    return Effect.flatMap(
      this.#announced(key, options, checksum),
      ({ expected, held, uniform }) =>
        Effect.flatMap(this.#loadUnverified(key, held), (bytes) =>
          expected === undefined
            ? Effect.succeed(bytes)
            : Effect.as(this.#verifyBytes(bytes, checksum, expected, uniform), bytes))
    )
  }

  #loadUnverified(key: string, options: LoadOptions): Effect.Effect<Bytes, E.LoadError> {
    return this.#bucket.limited(Effect.flatMap(this.#locate(key, options), (located) => {
      let target: Bytes | undefined
      let filled = 0
      const plan = {
        target: (opened: Opened) => {
          filled = 0
          target = Either.getOrUndefined(Either.flatMap(rangeWithin(options.range, opened.size), arrayFor))
          // What is larger than this response is read beside the others.
          return target?.byteLength === lengthOf(opened.range) ? target : undefined
        },
        progress: (count: number) => {
          filled = count
        }
      }
      const first = this.#firstPart(located.range)
      return retry(
        this.#getter.get(key, located, first, (opened) => {
          if (target !== undefined && filled === target.byteLength) return Effect.succeed(target)
          // A response without a byte counts as none.
          if (filled === 0 && opened.call?.failure !== undefined) return opened.call.failure
          return this.#loadRest(key, options, opened, target, filled)
        }, plan),
        this.#policy
      )
    }))
  }

  /** Reads the rest of a load once its first response has begun. */
  #loadRest(
    key: string,
    options: LoadOptions,
    { call, etag, range: first, size }: Opened,
    planned: Bytes | undefined,
    filled: number
  ): Effect.Effect<Bytes, E.LoadError> {
    if (call === undefined) return Effect.sync(() => new Uint8Array(0))
    const array = planned === undefined
      ? Either.flatMap(rangeWithin(options.range, size), arrayFor)
      : Either.right(planned)
    return Effect.flatMap(array, (target) => {
      const slice = ({ endExclusive, start }: ByteRange.ResolvedRange) =>
        target.subarray(start - first.start, endExclusive - first.start)
      const rest = this.#partsOf(first.endExclusive, first.start + target.byteLength)
      const begun = { start: first.start + filled, endExclusive: first.endExclusive }
      return Effect.as(
        Effect.all([
          this.#fill(key, etag, slice(begun), begun.start, call),
          ...rest.map((part) => this.#fill(key, etag, slice(part), part.start))
        ], { concurrency: this.#parts.concurrency, discard: true }),
        target
      )
    })
  }

  /** Fills `target` with the bytes from `start` on, the first of which `current` reads if it is given. */
  #fill(
    key: string,
    etag: string,
    target: Uint8Array,
    start: number,
    current?: HttpCall
  ): Effect.Effect<void, E.LoadError> {
    let filled = 0
    let begun = current
    const read = (call: HttpCall | undefined): Effect.Effect<void, E.LoadError> => {
      const before = filled
      return call === undefined
        ? Effect.fail(new E.CorruptObject({ problem: "truncated", reason: "the response for a part had no bytes" }))
        : call.into(target.subarray(before), (count) => {
          filled = before + count
        })
    }
    const attempt = Effect.suspend(() => {
      const call = begun
      begun = undefined
      if (call !== undefined) return read(call)
      const range = ByteRange.make(start + filled, start + target.byteLength)
      return this.#getter.get(key, { range, ifMatch: etag }, range, ({ call }) => read(call))
    })
    const missing = Effect.suspend(() => filled === target.byteLength ? Effect.void : attempt)
    return retry(missing, this.#policy)
  }

  /** Where many last bytes begin is known only with the size; the object must then stay what it is. */
  #locate(key: string, options: LoadOptions): Effect.Effect<LoadOptions, E.LoadError> {
    return options.range?._tag === "Last" && options.range.length > this.#parts.partSize
      ? Effect.flatMap(
        retry(this.#getter.head(key, "askNow"), this.#policy),
        ({ info }) =>
          Either.map(checkLoad(info, options), ({ endExclusive, start }): LoadOptions => ({
            ...(start < endExclusive && { range: ByteRange.make(start, endExclusive) }),
            ifMatch: info.etag
          }))
      )
      : Effect.succeed(options)
  }

  /** What is requested first, before anything is known of the object. */
  #firstPart(range: ByteRange.ByteRange = ByteRange.from(0)): ByteRange.ByteRange {
    if (range._tag === "Last") return range
    const end = range._tag === "Bounded" ? range.endExclusive : Infinity
    return ByteRange.make(range.start, Math.min(end, range.start + this.#parts.partSize))
  }

  #partsOf(start: number, endExclusive: number): ReadonlyArray<ByteRange.ResolvedRange> {
    const { partSize } = this.#parts
    return Array.from({ length: Math.ceil((endExclusive - start) / partSize) }, (_, index) => ({
      start: start + index * partSize,
      endExclusive: Math.min(start + (index + 1) * partSize, endExclusive)
    }))
  }

  // Streams

  open(key: string, options: StreamOptions): Effect.Effect<OpenedObject, E.LoadError, Scope.Scope> {
    const { chunkSize, range } = options
    if (this.#checksum === undefined || range !== undefined) return this.#openUnverified(key, options)
    const checksum = this.#checksum
    return Effect.flatMap(
      this.#announced(key, options, checksum),
      ({ expected, held, info, uniform }) =>
        Effect.map(this.#openUnverified(key, { ...held, chunkSize }), (object) => {
          if (expected === undefined) return object
          const verifier = new Checksums.Verifier(checksum, expected.partSize)
          const verified = mapStream(object, (stream) =>
            Stream.concat(
              Stream.mapChunks(stream, (chunk) => {
                for (const bytes of chunk) verifier.update(bytes)
                return chunk
              }),
              Stream.execute(this.#verify(verifier, checksum, expected, uniform))
            ))
          return { ...verified, info }
        })
    )
  }

  #openUnverified(key: string, options: StreamOptions): Effect.Effect<OpenedObject, E.LoadError, Scope.Scope> {
    return this.#parts.streamConcurrency > 1
      ? this.#openAhead(key, options)
      : openResuming((options) => this.#openOnce(key, options, options.range), options, this.#policy)
  }

  #openOnce(
    key: string,
    options: StreamOptions,
    part: ByteRange.ByteRange | undefined
  ): Effect.Effect<OpenedObject, E.LoadError, Scope.Scope> {
    return Effect.suspend(() => {
      const largest = Math.min(smallSize, options.chunkSize ?? smallSize)
      let small: Bytes | undefined
      let filled = 0
      const plan: Plan = {
        target: ({ range }) => small = lengthOf(range) <= largest ? new Uint8Array(lengthOf(range)) : undefined,
        progress: (count) => {
          filled = count
        }
      }
      return Effect.flatMap(this.#getter.open(key, options, part, plan), ({ call, headers, range, size }) => {
        const info = toInfo(key, headers, size)
        if (call === undefined) return Effect.succeed(openedBytes(info, range, new Uint8Array(0)))
        if (small === undefined) {
          return Effect.succeed(opened({ info, range, stream: call.stream(options.chunkSize), reuse: call.reuse }))
        }
        const bytes = small.subarray(0, filled)
        const begun = filled === 0 ? Stream.empty : Stream.make(bytes)
        const stream = Stream.concat(begun, call.failure ?? Stream.empty)
        return Effect.as(call.close, opened({ info, range, bytes, stream }))
      })
    })
  }

  /** Reads the first part over one connection, and the others ahead of the reader. */
  #openAhead(key: string, options: StreamOptions): Effect.Effect<OpenedObject, E.LoadError, Scope.Scope> {
    return Effect.gen(this, function*() {
      const located = { ...yield* this.#locate(key, options), chunkSize: options.chunkSize }
      const first = yield* openResuming(
        (options) => this.#openOnce(key, options, options === located ? this.#firstPart(located.range) : options.range),
        located,
        this.#policy
      )
      const { info } = first
      const range = yield* rangeWithin(options.range, info.size)
      if (first.range.endExclusive === range.endExclusive) return first
      const load = (part: ByteRange.ResolvedRange) =>
        Effect.suspend(() => {
          const target = new Uint8Array(lengthOf(part))
          return Effect.as(this.#fill(key, info.etag, target, part.start), Chunk.of(target))
        })
      const parts = this.#partsOf(first.range.endExclusive, range.endExclusive)
      const rest = opened({
        info,
        range: { start: first.range.endExclusive, endExclusive: range.endExclusive },
        stream: readAhead(parts, load, this.#parts.streamConcurrency)
      })
      return {
        info,
        range,
        stream: Stream.concat(first.stream, rest.stream),
        position: () => first.position() + rest.position()
      }
    })
  }

  // Checksums

  /** What the server has of an object that is to be read whole: the etag under which to read it, and its checksum. */
  #announced(key: string, options: LoadOptions, checksum: Checksums.Checksum) {
    return Effect.gen(this, function*() {
      const head = (query: Record<string, string> = {}) =>
        retry(this.#getter.head(key, "ask", { query, headers: Checksums.mode }), this.#policy)
      const { headers, info } = yield* head()
      yield* checkLoad(info, options)
      const value = headers[checksum.header]
      const count = Number(/-(\d+)$/.exec(value ?? "")?.[1] ?? 0)
      const sizeOf = (part: number) => Effect.map(head({ partNumber: String(part) }), ({ info }) => info.size)
      const partSize = count > 0 ? yield* sizeOf(1) : Infinity
      // Where parts have several sizes, the expected checksum cannot be computed here.
      const others = Array.from({ length: Math.max(0, count - 2) }, (_, index) => index + 2)
      const uniform = Effect.map(
        Effect.forEach(others, sizeOf, { concurrency: this.#parts.concurrency }),
        (sizes) => sizes.every((size) => size === partSize)
      )
      // One of parts whose number is not sent cannot be computed either.
      const isUnknown = value === undefined || (count === 0 && !isOfWhole(headers, value))
      const expected: Checksums.Expected | undefined = isUnknown ? undefined : { value, partSize }
      return { info, held: { ifMatch: info.etag }, expected, uniform }
    })
  }

  #verifyBytes(
    bytes: Bytes,
    checksum: Checksums.Checksum,
    expected: Checksums.Expected,
    uniform: Effect.Effect<boolean, E.LoadError>
  ): Effect.Effect<void, E.LoadError> {
    const verifier = new Checksums.Verifier(checksum, expected.partSize)
    // It takes long, and other fibers have to run meanwhile.
    const updated = Effect.forEach(
      this.#partsOf(0, bytes.byteLength),
      ({ endExclusive, start }) =>
        Effect.zipRight(Effect.sync(() => verifier.update(bytes.subarray(start, endExclusive))), Effect.yieldNow()),
      { discard: true }
    )
    return Effect.zipRight(updated, this.#verify(verifier, checksum, expected, uniform))
  }

  #verify(
    verifier: Checksums.Verifier,
    { algorithm }: Checksums.Checksum,
    expected: Checksums.Expected,
    uniform: Effect.Effect<boolean, E.LoadError>
  ): Effect.Effect<void, E.LoadError> {
    return Effect.flatMap(
      verifier.value,
      (actual) =>
        actual === expected.value ? Effect.void : Effect.flatMap(uniform, (isUniform) =>
          isUniform
            ? Effect.fail(
              new E.CorruptObject({
                problem: "checksum",
                reason: `the ${algorithm} checksum must be ${expected.value} (got ${actual})`
              })
            )
            : Effect.void)
    )
  }
}

/** The bodies that are read at once when an object is opened, in bytes: a stream costs twice as much as such a request. */
const smallSize = 64 * 1024

const lengthOf = ({ endExclusive, start }: ByteRange.ResolvedRange): number => endExclusive - start

const rangeWithin = (
  range: ByteRange.ByteRange | undefined,
  size: number
): Either.Either<ByteRange.ResolvedRange, E.InvalidRange> =>
  Either.mapLeft(ByteRange.resolve(range, size), (reason) => new E.InvalidRange({ reason }))

const arrayFor = (range: ByteRange.ResolvedRange): Either.Either<Bytes, E.UnsupportedOperation> =>
  allocate(lengthOf(range))
