/**
 * One read through a cache of blocks. It holds on to the requests from which its blocks come, and to the version of the object.
 */
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import type * as Scope from "effect/Scope"
import * as ByteRange from "../../ByteRange.js"
import type { StorageBackend } from "../../StorageBackend.js"
import { type LoadError, PreconditionFailed } from "../../StorageError.js"
import { Run } from "./blockRun.js"
import type { CachedBlocks, Version } from "./blocks.js"

/** A block, and whether it was in the cache. */
export interface Found {
  readonly bytes: Uint8Array<ArrayBuffer>
  readonly isCached: boolean
}

/** A reader waits for no more than this of a request that is under way, in bytes; further ahead, it makes one of its own. */
const maxWait = 64 * 1024 * 1024

export class Reading {
  readonly #inner: StorageBackend
  readonly #blocks: CachedBlocks
  readonly #runs = new Set<Run<Version>>()
  readonly #versions = new Set<Version>()
  readonly #maxDistance: number

  private constructor(inner: StorageBackend, blocks: CachedBlocks) {
    this.#inner = inner
    this.#blocks = blocks
    this.#maxDistance = Math.max(1, Math.floor(maxWait / blocks.blockSize))
  }

  static make(inner: StorageBackend, blocks: CachedBlocks): Effect.Effect<Reading, never, Scope.Scope> {
    return Effect.acquireRelease(Effect.sync(() => new Reading(inner, blocks)), (reading) => reading.#release)
  }

  readonly #release: Effect.Effect<void> = Effect.suspend(() =>
    Effect.zipRight(
      Effect.forEach(this.#runs, (run) => run.release, { discard: true }),
      Effect.sync(() => {
        for (const version of this.#versions) this.#blocks.release(version)
      })
    )
  )

  /** Waits until the blocks that this read has fetched are in the second tier. */
  readonly saved: Effect.Effect<void> = Effect.suspend(() =>
    Effect.forEach(this.#runs, (run) => run.saved, { discard: true })
  )

  /** Holds a version until the end. */
  hold(version: Version): void {
    if (this.#versions.has(version)) return
    this.#versions.add(version)
    this.#blocks.hold(version)
  }

  /** Takes part in a request, and waits for its answer. */
  join(find: () => Run<Version>): Effect.Effect<Version, LoadError> {
    return Effect.flatMap(this.#holdRun(find), (run) => run.opened)
  }

  /** Whether a request for a missing block would confirm that the version is the current one. */
  canConfirm({ runs }: Version, index: number): boolean {
    for (const run of runs) if (run.covers(index)) return !run.isOpen
    return true
  }

  /** Begins to fetch missing blocks, up to the next one that is here; fails where the version is not the current one any more. */
  fetch(version: Version, first: number, last: number): Effect.Effect<Version, LoadError> {
    return this.#orOutdated(
      version,
      this.join(() => this.#covering(version, first) ?? this.#makeRun(version, first, last))
    )
  }

  /** A block. If it is missing, it is fetched with its neighbours up to `last`. */
  block(version: Version, index: number, last: number): Effect.Effect<Found, LoadError> {
    return Effect.suspend(() => {
      for (const run of this.#runs) if (run.isAhead(index)) return this.#take(version, run, index)
      const inMemory = this.#blocks.fromMemory(version, index)
      if (inMemory !== undefined) return Effect.succeed({ bytes: inMemory, isCached: true })
      const covering = this.#covering(version, index)
      if (covering !== undefined) return this.#takeFrom(version, () => covering, index)
      return Effect.flatMap(
        this.#blocks.fromTier(version, index),
        Option.match({
          onSome: (bytes) => Effect.succeed({ bytes, isCached: true }),
          onNone: () =>
            this.#takeFrom(
              version,
              () => this.#covering(version, index) ?? this.#makeRun(version, index, last),
              index
            )
        })
      )
    })
  }

  /** A request that is under way and will soon have a block. One that will have it later leaves it to another. */
  #covering({ runs }: Version, index: number): Run<Version> | undefined {
    for (const run of runs) {
      if (!run.covers(index)) continue
      if (run.distance(index) <= this.#maxDistance) return run
      run.endBefore(index)
    }
    return undefined
  }

  #takeFrom(version: Version, find: () => Run<Version>, index: number): Effect.Effect<Found, LoadError> {
    return Effect.flatMap(this.#holdRun(find), (run) => this.#take(version, run, index))
  }

  #take(version: Version, run: Run<Version>, index: number): Effect.Effect<Found, LoadError> {
    return this.#orOutdated(version, Effect.map(run.take(index), (bytes) => ({ bytes, isCached: false })))
  }

  #holdRun(find: () => Run<Version>): Effect.Effect<Run<Version>> {
    return Effect.uninterruptible(Effect.suspend(() => {
      const run = find()
      if (this.#runs.has(run)) return Effect.succeed(run)
      this.#runs.add(run)
      return Effect.as(run.hold, run)
    }))
  }

  /** A request for the blocks of a version from the first, which is missing, to the next one that is here. */
  #makeRun(version: Version, first: number, last: number): Run<Version> {
    const { blockSize } = this.#blocks
    const { info: { etag, key, size }, runs } = version
    let end = first + 1
    while (end <= last && !this.#blocks.has(version, end) && ![...runs].some((run) => run.covers(end))) end++
    const range = size === 0 ? undefined : ByteRange.make(first * blockSize, Math.min(end * blockSize, size))
    const run = new Run<Version>({
      blockSize,
      first,
      end,
      open: Effect.filterOrFail(
        Effect.suspend(() => this.#inner.open(key, { range, ifMatch: etag })),
        ({ info }) => info.etag === etag && info.size === size,
        () => new PreconditionFailed()
      ),
      opened: () => Effect.as(this.#blocks.freshness.confirm(version), version),
      keep: (...args) => this.#blocks.keep(...args),
      save: (...args) => this.#blocks.save(...args),
      ended: (run) => this.#blocks.ended(version, run)
    })
    runs.add(run)
    return run
  }

  /** Drops a version that turns out not to be the current one any more. */
  #orOutdated<A>(version: Version, effect: Effect.Effect<A, LoadError>): Effect.Effect<A, LoadError> {
    return Effect.tapErrorTag(effect, "PreconditionFailed", () => this.#blocks.drop(version))
  }
}
