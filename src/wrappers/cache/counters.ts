/**
 * Counts what a cache does, for its statistics and as metrics.
 */
import * as Effect from "effect/Effect"
import { annotate, counter, withLabels } from "../../internal/observability.js"
import type { StorageError } from "../../StorageError.js"

const descriptions = {
  hits: "reads that were served from the cache",
  misses: "reads that were sent to the storage",
  bytes: "bytes that were served from the cache",
  evictions: "objects or blocks that were evicted for others",
  failures: "failures of the second tier"
}

type Counted = keyof typeof descriptions

export class Counters {
  readonly #name: string
  readonly #totals: Record<Counted, number> = { hits: 0, misses: 0, bytes: 0, evictions: 0, failures: 0 }
  readonly #add: Readonly<Record<Counted, (by: number) => Effect.Effect<void>>>

  constructor(name: string) {
    const adding = (counted: Counted) => {
      const update = counter(`storage_cache_${counted}`, descriptions[counted], { backend: name })
      return (by: number) =>
        withLabels((labels) => {
          this.#totals[counted] += by
          update(by, labels)
        })
    }
    this.#name = name
    this.#add = {
      hits: adding("hits"),
      misses: adding("misses"),
      bytes: adding("bytes"),
      evictions: adding("evictions"),
      failures: adding("failures")
    }
    this.hit = Effect.zipRight(this.#add.hits(1), annotate("storage.cache", "hit"))
    this.miss = Effect.zipRight(this.#add.misses(1), annotate("storage.cache", "miss"))
  }

  readonly hit: Effect.Effect<void>
  readonly miss: Effect.Effect<void>

  /** Counts bytes that were served from the cache. */
  served(bytes: number): Effect.Effect<void> {
    return this.#add.bytes(bytes)
  }

  evicted(objects: number): Effect.Effect<void> {
    return objects === 0 ? Effect.void : this.#add.evictions(objects)
  }

  /** Counts a failure of the second tier, and logs the first. */
  failed(error: StorageError): Effect.Effect<void> {
    return Effect.zipRight(
      this.#add.failures(1),
      Effect.suspend(() =>
        this.#totals.failures === 1
          ? Effect.logWarning(`${this.#name}: the second tier failed; the storage is used instead`, error)
          : Effect.void
      )
    )
  }

  totals(): Readonly<Record<Counted, number>> {
    return { ...this.#totals }
  }
}
