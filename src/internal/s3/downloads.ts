/**
 * How an object comes out of a bucket: a small one with one request, a large one in parts, several on their way at once
 * into one array, all of them under the etag of the first answer. What breaks goes on at the byte where it broke.
 */
import * as Chunk from "effect/Chunk"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Stream from "effect/Stream"
import * as ByteRange from "../../ByteRange.js"
import type { RetryPolicy } from "../../RetryPolicy.js"
import { checkLoad, type LoadOptions, type OpenedObject, type StorageBackend } from "../../StorageBackend.js"
import * as E from "../../StorageError.js"
import { tooLargeForAnArray } from "../bytes.js"
import { allocate } from "../files.js"
import { readAhead } from "../readAhead.js"
import { openResuming, retry } from "../retry.js"
import type { Checksum } from "./checksums.js"
import * as Checksums from "./checksums.js"
import type { Exchange } from "./exchange.js"
import type { Opened, Requests } from "./requests.js"

/** How downloads are cut. */
export interface Cut {
  /** In bytes. */
  readonly partSize: number
  /** How many parts of a load are on their way at once. */
  readonly concurrency: number
  /** How many parts of a stream are. */
  readonly streamConcurrency: number
}

export const make = (requests: Requests, policy: RetryPolicy, cut: Cut, checksum?: Checksum) => {
  const { backend } = requests

  const loadAsItIs: StorageBackend["load"] = (key, options) =>
    requests.limit(Effect.flatMap(locate(key, options), (wanted) => {
      let target: Uint8Array | undefined
      let filled = 0
      const plan = ({ info, range: { endExclusive, start } }: Omit<Opened, "exchange">) => {
        filled = 0
        target = Either.match(ByteRange.resolve(options.range, info.size), {
          onLeft: () => undefined,
          onRight: (range) => allocate(range.endExclusive - range.start)
        })
        // What is larger than this answer is read beside the others.
        return endExclusive - start === target?.byteLength ? target : undefined
      }
      const progress = (count: number) => {
        filled = count
      }
      return retry(
        requests.get(
          "load",
          key,
          wanted,
          firstPart(wanted.range),
          (opened) =>
            target !== undefined && filled === target.byteLength
              ? Effect.succeed(target)
              // An answer without a byte is no better than none.
              : filled === 0 && opened.exchange?.failure !== undefined
              ? Effect.fail(opened.exchange.failure)
              : finish(key, options, opened, target, filled),
          plan,
          progress
        ),
        policy
      )
    }))

  /** What is left to do of a load when its first answer is there. */
  const finish = (
    key: string,
    { range }: LoadOptions,
    { exchange, info, range: first }: Opened,
    target: Uint8Array | undefined,
    filled: number
  ): Effect.Effect<Uint8Array, E.LoadError> => {
    if (exchange === undefined) return Effect.succeed(new Uint8Array(0))
    if (target === undefined) {
      return Effect.flatMap(
        within(key, range, info.size),
        ({ endExclusive, start }) =>
          Effect.fail(tooLargeForAnArray(endExclusive - start, { backend, operation: "load", key }))
      )
    }
    const slice = ({ endExclusive, start }: ByteRange.ResolvedRange) =>
      target.subarray(start - first.start, endExclusive - first.start)
    const rest = partsOf(first.endExclusive, first.start + target.byteLength)
    return Effect.as(
      Effect.all([
        fill(key, info.etag, slice({ ...first, start: first.start + filled }), first.start + filled, exchange),
        ...rest.map((part) => fill(key, info.etag, slice(part), part.start))
      ], { concurrency: cut.concurrency, discard: true }),
      target
    )
  }

  /** Where many last bytes begin is known only with the size; the object then has to stay what it is. */
  const locate = (key: string, options: LoadOptions): Effect.Effect<LoadOptions, E.LoadError> =>
    options.range?._tag === "Last" && options.range.length > cut.partSize
      ? Effect.flatMap(
        retry(requests.head("load", key, requests.send), policy),
        ({ info }) =>
          Effect.map(checkLoad(info, options, { backend, operation: "load" }), ({ endExclusive, start }) => ({
            ...(start < endExclusive && { range: ByteRange.make(start, endExclusive) }),
            ifMatch: info.etag
          }))
      )
      : Effect.succeed(options)

  /** What to ask for first, before anything is known of the object. */
  const firstPart = (range: ByteRange.ByteRange = ByteRange.from(0)): ByteRange.ByteRange =>
    range._tag === "Last"
      ? range
      : ByteRange.make(
        range.start,
        Math.min(range._tag === "Bounded" ? range.endExclusive : Infinity, range.start + cut.partSize)
      )

  const within = (key: string, range: ByteRange.ByteRange | undefined, size: number) =>
    Effect.mapError(
      ByteRange.resolve(range, size),
      (reason) => new E.InvalidRange({ backend, operation: "load", key, reason })
    )

  const partsOf = (start: number, endExclusive: number): ReadonlyArray<ByteRange.ResolvedRange> =>
    Array.from({ length: Math.ceil((endExclusive - start) / cut.partSize) }, (_, index) => ({
      start: start + index * cut.partSize,
      endExclusive: Math.min(start + (index + 1) * cut.partSize, endExclusive)
    }))

  /** Fills `target` with the bytes from `start` on, which may be on their way already. */
  const fill = (
    key: string,
    etag: string,
    target: Uint8Array,
    start: number,
    current?: Exchange
  ): Effect.Effect<void, E.LoadError> => {
    let filled = 0
    const read = (exchange: Exchange | undefined) => {
      const before = filled
      return exchange === undefined ? Effect.void : exchange.into(target.subarray(before), (count) => {
        filled = before + count
      })
    }
    const attempt = Effect.suspend(() => {
      const exchange = current
      current = undefined
      const range = ByteRange.make(start + filled, start + target.byteLength)
      return exchange !== undefined ? read(exchange) : requests.get(
        "load",
        key,
        { range, ifMatch: etag },
        range,
        (opened) => read(opened.exchange)
      )
    })
    const whole = Effect.suspend(() =>
      filled === target.byteLength ? Effect.void : Effect.fail(
        new E.CorruptObject({
          backend,
          operation: "load",
          key,
          problem: "truncated",
          reason: `the body ended after ${filled} of ${target.byteLength} bytes`
        })
      )
    )
    return retry(Effect.zipRight(attempt, whole), policy)
  }

  const openOnce = (
    key: string,
    options: LoadOptions,
    part = options.range
  ): ReturnType<StorageBackend["open"]> =>
    Effect.map(requests.open("load", key, options, part), ({ exchange, info, range }): OpenedObject => ({
      info,
      range,
      stream: exchange === undefined ?
        Stream.empty :
        Stream.suspend(() => Stream.repeatEffectChunkOption(exchange.pulls()))
    }))

  /** The first part as one connection gives it, and behind it the others, loaded ahead. */
  const openAhead: StorageBackend["open"] = (key, options) =>
    Effect.gen(function*() {
      const wanted = yield* locate(key, options)
      const first = yield* openResuming(
        (options) => openOnce(key, options, options === wanted ? firstPart(wanted.range) : options.range),
        wanted,
        policy,
        backend
      )
      const { info } = first
      const { endExclusive, start } = yield* within(key, options.range, info.size)
      const loadPart = (part: ByteRange.ResolvedRange) =>
        Effect.suspend(() => {
          const target = new Uint8Array(part.endExclusive - part.start)
          return Effect.as(fill(key, info.etag, target, part.start), Chunk.of(target))
        })
      const rest = readAhead(partsOf(first.range.endExclusive, endExclusive), loadPart, cut.streamConcurrency)
      return { info, range: { start, endExclusive }, stream: Stream.concat(first.stream, rest) }
    })

  const openAsItIs: StorageBackend["open"] = cut.streamConcurrency > 1
    ? openAhead
    : (key, options) => openResuming((options) => openOnce(key, options), options, policy, backend)

  if (checksum === undefined) return { load: loadAsItIs, open: openAsItIs }

  /** What the server knows of an object that is to be read whole: the etag to hold it to, and its checksum. */
  const announced = (key: string, options: LoadOptions) =>
    Effect.gen(function*() {
      const head = (query: Record<string, string> = {}) =>
        retry(requests.head("load", key, requests.ask, { query, headers: Checksums.mode }), policy)
      const { headers, info } = yield* head()
      yield* checkLoad(info, options, { backend, operation: "load" })
      const expected = headers[checksum.header]
      const count = Number(/-(\d+)$/.exec(expected ?? "")?.[1] ?? 0)
      const sizeOf = (part: number) => Effect.map(head({ partNumber: String(part) }), ({ info }) => info.size)
      const partSize = count > 0 ? yield* sizeOf(1) : Infinity
      // Where parts have several sizes, nobody can tell here what their checksum should be.
      const uniform = Effect.map(
        Effect.forEach(Array.from({ length: Math.max(0, count - 2) }, (_, index) => index + 2), sizeOf, {
          concurrency: cut.concurrency
        }),
        (sizes) => sizes.every((size) => size === partSize)
      )
      return { info, options: { ifMatch: info.etag }, expected, partSize, uniform }
    })

  const verify = (
    key: string,
    verifier: Checksums.Verifier,
    expected: string,
    uniform: Effect.Effect<boolean, E.LoadError>
  ) =>
    Effect.flatMap(
      verifier.actual,
      (actual) =>
        actual === expected ? Effect.void : Effect.flatMap(uniform, (uniform) =>
          uniform
            ? Effect.fail(
              new E.CorruptObject({
                backend,
                operation: "load",
                key,
                problem: "checksum",
                reason: `its ${checksum.algorithm} checksum is ${actual} and should be ${expected}`
              })
            )
            : Effect.void)
    )

  /** The same, held to the checksum that the server has of the object, where it is read whole. */
  const load: StorageBackend["load"] = (key, options) =>
    options.range !== undefined ? loadAsItIs(key, options) : Effect.gen(function*() {
      const { expected, options: held, partSize, uniform } = yield* announced(key, options)
      const bytes = yield* loadAsItIs(key, held)
      if (expected === undefined) return bytes
      const verifier = Checksums.verifier(checksum, partSize)
      for (const { endExclusive, start } of partsOf(0, bytes.byteLength)) {
        verifier.update(bytes.subarray(start, endExclusive))
        // A checksum takes long, and others want to go on.
        yield* Effect.yieldNow()
      }
      yield* verify(key, verifier, expected, uniform)
      return bytes
    })

  const open: StorageBackend["open"] = (key, options) =>
    options.range !== undefined ? openAsItIs(key, options) : Effect.gen(function*() {
      const { expected, info, options: held, partSize, uniform } = yield* announced(key, options)
      const opened = yield* openAsItIs(key, held)
      if (expected === undefined) return opened
      const verifier = Checksums.verifier(checksum, partSize)
      return {
        ...opened,
        info,
        stream: Stream.concat(
          Stream.mapChunks(opened.stream, (chunk) => {
            for (const bytes of chunk) verifier.update(bytes)
            return chunk
          }),
          Stream.execute(verify(key, verifier, expected, uniform))
        )
      }
    })

  return { load, open }
}
