/**
 * Reads through a cache of blocks: each block from memory, from the second tier, from a request that is under way, or by a
 * request for it and its neighbours that are missing, too.
 */
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Option from "effect/Option"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import * as ByteRange from "../../ByteRange.js"
import { allocate, copyOf } from "../../internal/bytes.js"
import type { LoadOptions, OpenedObject, StorageBackend, StreamOptions } from "../../StorageBackend.js"
import { checkLoad, opened } from "../../StorageBackend.js"
import type { LoadError } from "../../StorageError.js"
import { Reading } from "./blockReading.js"
import { Run } from "./blockRun.js"
import type { CachedBlocks, Version } from "./blocks.js"
import type { Counters } from "./counters.js"
import type { Fill } from "./fills.js"
import { piece, pieceSize, piecesOf } from "./pieces.js"

type Bytes = Uint8Array<ArrayBuffer>
type Conditions = Pick<LoadOptions, "ifMatch" | "ifNoneMatch">
type Ranges = ReadonlyArray<ByteRange.ByteRange | undefined>

/** A version of an object that may be served, and the ranges of it. */
interface Ready {
  readonly version: Version
  readonly ranges: ReadonlyArray<ByteRange.ResolvedRange>
}

/** Neighbouring blocks, from the first to the last. */
interface Blocks {
  readonly first: number
  readonly last: number
}

export class BlockReader {
  readonly #inner: StorageBackend
  readonly #blocks: CachedBlocks
  readonly #counters: Counters
  readonly #isShared: boolean
  /** The requests that will tell which version of an object there is. */
  readonly #asked = new Map<string, { readonly run: Run<Version>; readonly fill: Fill }>()

  constructor(inner: StorageBackend, blocks: CachedBlocks, counters: Counters, isShared: boolean) {
    this.#inner = inner
    this.#blocks = blocks
    this.#counters = counters
    this.#isShared = isShared
  }

  load(key: string, options: LoadOptions): Effect.Effect<Bytes, LoadError> {
    if (options.bypassCache === true) return this.#bypass(key, this.#inner.load(key, options))
    return Effect.flatMap(
      this.#read(key, [options.range], options),
      ([bytes]) => bytes === undefined ? Effect.dieMessage("bug: a range was not read") : Effect.succeed(bytes)
    )
  }

  loadRanges(
    ...[key, ranges, options]: Parameters<StorageBackend["loadRanges"]>
  ): Effect.Effect<ReadonlyArray<Bytes>, LoadError> {
    if (options.bypassCache === true) return this.#bypass(key, this.#inner.loadRanges(key, ranges, options))
    return this.#read(key, ranges, options)
  }

  open(key: string, options: StreamOptions): Effect.Effect<OpenedObject, LoadError, Scope.Scope> {
    if (options.bypassCache === true) return this.#bypass(key, this.#inner.open(key, options))
    return Effect.gen(this, function*() {
      const reading = yield* Reading.make(this.#inner, this.#blocks)
      const { ranges: [range], version } = yield* this.#begin(reading, key, [options.range], options)
      if (range === undefined) return yield* Effect.dieMessage("bug: a range was not resolved")
      const { info } = version
      const bytes = this.#view(version, range)
      if (bytes === undefined) return opened({ info, range, stream: this.#stream(reading, version, range, options) })
      yield* this.#counters.served(bytes.byteLength)
      return opened({ info, range, bytes, stream: piecesOf(bytes, options, this.#isShared) })
    })
  }

  head(key: string): ReturnType<StorageBackend["head"]> {
    return Effect.flatMap(this.#blocks.find(key), (version) =>
      version === undefined
        ? this.#inner.head(key)
        : Effect.flatMap(this.#blocks.freshness.isFresh(version), (isFresh) =>
          isFresh ? Effect.succeed(version.info) : this.#inner.head(key)))
  }

  /** A read of the storage. What is here of the object is dropped. */
  #bypass<A, R>(key: string, read: Effect.Effect<A, LoadError, R>): Effect.Effect<A, LoadError, R> {
    return Effect.zipRight(this.#blocks.invalidate([key]), read)
  }

  #read(key: string, ranges: Ranges, conditions: Conditions): Effect.Effect<ReadonlyArray<Bytes>, LoadError> {
    return Effect.flatMap(
      this.#fromMemory(key, ranges, conditions),
      (found) => {
        if (found !== undefined) return Effect.succeed(found)
        const gathered = Effect.scoped(this.#gather(key, ranges, conditions))
        return conditions.ifMatch !== undefined
          ? gathered
          // The object was changed between two requests: all of it is read again.
          : Effect.catchTag(gathered, "PreconditionFailed", () => gathered)
      }
    )
  }

  /** Arrays of the caller's own, if all of the ranges are in memory, and fresh. */
  #fromMemory(
    key: string,
    ranges: Ranges,
    conditions: Conditions
  ): Effect.Effect<ReadonlyArray<Bytes> | undefined, LoadError> {
    return Effect.suspend(() => {
      const version = this.#blocks.peek(key)
      if (version === undefined) return Effect.succeed(undefined)
      return Effect.flatMap(this.#mayServe(version, conditions), (may) => {
        if (!may) return Effect.succeed(undefined)
        const resolved = resolve(version, ranges, conditions)
        if (Either.isLeft(resolved)) return Effect.zipRight(this.#counters.hit, Effect.fail(resolved.left))
        const found: Array<Bytes> = []
        let size = 0
        for (const range of resolved.right) {
          const bytes = this.#copyFromMemory(version, range)
          if (bytes === undefined) return Effect.succeed(undefined)
          found.push(bytes)
          size += bytes.byteLength
        }
        return this.#counters.hit.pipe(Effect.zipRight(this.#counters.served(size)), Effect.as(found))
      })
    })
  }

  /** Whether a version may be served without asking the storage. */
  #mayServe({ confirmedAt, info }: Version, { ifMatch }: Conditions): Effect.Effect<boolean> {
    return ifMatch === undefined
      ? this.#blocks.freshness.isFresh({ confirmedAt })
      : Effect.succeed(ifMatch === info.etag)
  }

  #copyFromMemory(version: Version, range: ByteRange.ResolvedRange): Bytes | undefined {
    const view = this.#view(version, range)
    if (view !== undefined) return this.#isShared ? view : copyOf(view)
    const { first, last } = this.#blocksOf(range)
    for (let index = first; index <= last; index++) if (!version.inMemory.has(index)) return undefined
    const target = Either.getOrUndefined(allocate(range.endExclusive - range.start))
    for (let index = first; index <= last && target !== undefined; index++) {
      const bytes = this.#blocks.fromMemory(version, index)
      if (bytes === undefined) return undefined
      this.#copy(index, bytes, range, target)
    }
    return target
  }

  /** The bytes of a range within one block that is in memory. */
  #view(version: Version, range: ByteRange.ResolvedRange): Bytes | undefined {
    const { first, last } = this.#blocksOf(range)
    const bytes = first === last ? this.#blocks.fromMemory(version, first) : undefined
    const start = range.start - first * this.#blocks.blockSize
    return bytes?.byteLength === range.endExclusive - range.start
      ? bytes
      : bytes?.subarray(start, start + range.endExclusive - range.start)
  }

  /** Reads all blocks of the ranges, each once. */
  #gather(
    key: string,
    wanted: Ranges,
    conditions: Conditions
  ): Effect.Effect<ReadonlyArray<Bytes>, LoadError, Scope.Scope> {
    return Effect.gen(this, function*() {
      const reading = yield* Reading.make(this.#inner, this.#blocks)
      const { ranges, version } = yield* this.#begin(reading, key, wanted, conditions)
      const targets = yield* Effect.forEach(
        ranges,
        (range) => Effect.map(allocate(range.endExclusive - range.start), (bytes) => ({ range, bytes }))
      )
      yield* Effect.forEach(
        this.#neighbours(ranges),
        ({ first, last }) =>
          Effect.iterate(first, {
            while: (index) => index <= last,
            body: (index) =>
              Effect.flatMap(reading.block(version, index, last), ({ bytes, isCached }) => {
                let copied = 0
                for (const target of targets) copied += this.#copy(index, bytes, target.range, target.bytes)
                return Effect.as(isCached ? this.#counters.served(copied) : Effect.void, index + 1)
              })
          }),
        { concurrency: 8, discard: true }
      )
      yield* reading.saved
      return targets.map(({ bytes }) => bytes)
    })
  }

  #stream(
    reading: Reading,
    version: Version,
    { endExclusive, start }: ByteRange.ResolvedRange,
    options: StreamOptions
  ): OpenedObject["stream"] {
    const { blockSize } = this.#blocks
    const { first, last } = this.#blocksOf({ start, endExclusive })
    const size = pieceSize(options)
    // An empty object has a block, too.
    const end = Effect.zipRight(
      start === endExclusive ? reading.block(version, first, last) : Effect.void,
      Effect.as(reading.saved, Option.none())
    )
    return Stream.unfoldEffect({ at: start, index: -1, bytes: none, isCached: false }, (state) => {
      const { at } = state
      if (at >= endExclusive) return end
      const index = Math.floor(at / blockSize)
      const block = index === state.index
        ? Effect.succeed(state)
        : reading.block(version, index, last)
      return Effect.flatMap(block, ({ bytes, isCached }) => {
        const from = at - index * blockSize
        const to = Math.min(bytes.byteLength, from + size, endExclusive - index * blockSize)
        const next = { at: at + to - from, index, bytes, isCached }
        return Effect.as(
          isCached ? this.#counters.served(to - from) : Effect.void,
          Option.some([piece(bytes, from, to, this.#isShared), next] as const)
        )
      })
    })
  }

  /** The version to be read, and the ranges of it. If the storage has to be asked for it, that is done with one request. */
  #begin(
    reading: Reading,
    key: string,
    ranges: Ranges,
    conditions: Conditions
  ): Effect.Effect<Ready, LoadError> {
    return Effect.gen(this, function*() {
      const version = yield* this.#current(reading, key, ranges, conditions)
      reading.hold(version)
      return { version, ranges: yield* resolve(version, ranges, conditions) }
    })
  }

  #current(
    reading: Reading,
    key: string,
    ranges: Ranges,
    conditions: Conditions
  ): Effect.Effect<Version, LoadError> {
    const { hit, miss } = this.#counters
    const { ifMatch, ifNoneMatch } = conditions
    return Effect.gen(this, function*() {
      const known = yield* this.#blocks.find(key)
      const may = known !== undefined && (yield* this.#mayServe(known, conditions))
      // An etag of another version is newer than what is here.
      if (known === undefined || (!may && (ifMatch !== undefined || ifNoneMatch !== undefined))) {
        yield* miss
        return yield* this.#ask(reading, key, ranges, conditions)
      }
      reading.hold(known)
      const missing = this.#firstMissing(known, ranges, conditions)
      if (may) {
        yield* missing === undefined ? hit : miss
        return missing === undefined ? known : yield* this.#fetch(reading, known, missing, ranges, conditions)
      }
      if (missing !== undefined && reading.canConfirm(known, missing.first)) {
        yield* miss
        return yield* this.#fetch(reading, known, missing, ranges, conditions)
      }
      return yield* Effect.matchEffect(this.#ask(reading, key, ranges, { ifNoneMatch: known.info.etag }), {
        onSuccess: (version) => Effect.as(miss, version),
        onFailure: (error) =>
          error._tag === "ObjectNotModified"
            ? Effect.as(
              Effect.zipRight(this.#blocks.freshness.confirm(known), missing === undefined ? hit : miss),
              known
            )
            : Effect.zipRight(miss, Effect.fail(error))
      })
    })
  }

  /** Starts to fetch the first blocks that are missing of a version, which thereby proves to be the current one. */
  #fetch(
    reading: Reading,
    version: Version,
    { first, last }: Blocks,
    ranges: Ranges,
    conditions: Conditions
  ): Effect.Effect<Version, LoadError> {
    return Effect.catchTag(
      Effect.as(reading.fetch(version, first, last), version),
      "PreconditionFailed",
      (error) =>
        conditions.ifMatch === undefined
          ? this.#ask(reading, version.info.key, ranges, conditions)
          : Effect.fail(error)
    )
  }

  /** Asks the storage for the object, and for the blocks of the first range on the way. */
  #ask(
    reading: Reading,
    key: string,
    ranges: Ranges,
    { ifMatch, ifNoneMatch }: Conditions
  ): Effect.Effect<Version, LoadError> {
    const blocks = this.#requested(ranges)
    if (blocks === undefined) return this.#askHead(key)
    return reading.join(() => {
      const id = JSON.stringify([key, ifMatch, ifNoneMatch])
      const asked = this.#asked.get(id)
      if (asked?.fill.isStale === false) return asked.run
      const fill: Fill = { isStale: false }
      const { blockSize } = this.#blocks
      const range = this.#toRange(blocks)
      let installed: Version | undefined
      const run = new Run<Version>({
        blockSize,
        first: blocks.first,
        end: blocks.last + 1,
        open: Effect.zipRight(
          this.#blocks.startFill(key, fill),
          Effect.suspend(() => this.#inner.open(key, { range, ifMatch, ifNoneMatch }))
        ),
        opened: (info, run) =>
          Effect.map(this.#blocks.install(info, fill), (version) => {
            if (this.#asked.get(id)?.run === run) this.#asked.delete(id)
            installed = version
            version.runs.add(run)
            return version
          }),
        keep: (...args) => this.#blocks.keep(...args),
        save: (...args) => this.#blocks.save(...args),
        ended: (run) => {
          if (this.#asked.get(id)?.run === run) this.#asked.delete(id)
          if (installed !== undefined) this.#blocks.ended(installed, run)
        }
      })
      this.#asked.set(id, { run, fill })
      return run
    }).pipe(
      // It may be the first block that does not exist, where the range says something else.
      Effect.catchTag("InvalidRange", () => this.#askHead(key))
    )
  }

  #askHead(key: string): Effect.Effect<Version, LoadError> {
    return Effect.scoped(Effect.gen(this, function*() {
      const fill = yield* this.#blocks.startFill(key, { isStale: false })
      return yield* this.#blocks.install(yield* this.#inner.head(key), fill)
    }))
  }

  /** The blocks of the first range of which they are known without the size of the object. */
  #requested(ranges: Ranges): Blocks | undefined {
    for (const range of ranges) {
      if (range === undefined) return { first: 0, last: Infinity }
      if (range._tag === "Last") continue
      const first = Math.floor(range.start / this.#blocks.blockSize)
      if (range._tag === "From") return { first, last: Infinity }
      return { first, last: Math.max(first, Math.ceil(range.endExclusive / this.#blocks.blockSize) - 1) }
    }
    return undefined
  }

  #toRange({ first, last }: Blocks): ByteRange.ByteRange | undefined {
    const { blockSize } = this.#blocks
    if (last < Infinity) {
      return ByteRange.make(first * blockSize, Math.min((last + 1) * blockSize, Number.MAX_SAFE_INTEGER))
    }
    return first === 0 ? undefined : ByteRange.from(first * blockSize)
  }

  #firstMissing(version: Version, ranges: Ranges, conditions: Conditions): Blocks | undefined {
    const resolved = resolve(version, ranges, conditions)
    if (Either.isLeft(resolved)) return undefined
    for (const { first, last } of this.#neighbours(resolved.right)) {
      for (let index = first; index <= last; index++) {
        if (!this.#blocks.has(version, index)) return { first: index, last }
      }
    }
    return undefined
  }

  /** The blocks of a range. Those of an empty object are one that is empty. */
  #blocksOf({ endExclusive, start }: ByteRange.ResolvedRange): Blocks {
    const first = Math.floor(start / this.#blocks.blockSize)
    return { first, last: Math.max(first, Math.ceil(endExclusive / this.#blocks.blockSize) - 1) }
  }

  /** The blocks of all ranges, in order. */
  #neighbours(ranges: ReadonlyArray<ByteRange.ResolvedRange>): ReadonlyArray<Blocks> {
    const all: Array<Blocks> = []
    for (const range of [...ranges].sort((one, other) => one.start - other.start)) {
      const { first, last } = this.#blocksOf(range)
      const before = all.at(-1)
      if (before === undefined || before.last + 1 < first) all.push({ first, last })
      else all[all.length - 1] = { first: before.first, last: Math.max(before.last, last) }
    }
    return all
  }

  /** Copies what a block has of a range. */
  #copy(index: number, block: Bytes, range: ByteRange.ResolvedRange, target: Bytes): number {
    const at = index * this.#blocks.blockSize
    const start = Math.max(range.start, at)
    const end = Math.min(range.endExclusive, at + block.byteLength)
    if (start >= end) return 0
    target.set(block.subarray(start - at, end - at), start - range.start)
    return end - start
  }
}

const resolve = (version: Version, ranges: Ranges, conditions: Conditions) =>
  Either.all(ranges.map((range) => checkLoad(version.info, { ...conditions, range })))

const none: Bytes = new Uint8Array(0)
