/**
 * Objects on their way into a cache, which are not kept if the object is changed meanwhile.
 */
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"

export interface Fill {
  isStale: boolean
}

export class Fills {
  readonly #fills = new Map<string, Set<Fill>>()

  /** Registers a fill for its scope. To be done before the object is requested. */
  register(key: string, fill: Fill = { isStale: false }): Effect.Effect<Fill, never, Scope.Scope> {
    return Effect.acquireRelease(
      Effect.sync(() => {
        const fills = this.#fills.get(key)
        if (fills === undefined) this.#fills.set(key, new Set([fill]))
        else fills.add(fill)
        return fill
      }),
      (fill) =>
        Effect.sync(() => {
          const fills = this.#fills.get(key)
          if (fills?.delete(fill) === true && fills.size === 0) this.#fills.delete(key)
        })
    )
  }

  invalidate(key: string): void {
    for (const fill of this.#fills.get(key) ?? []) fill.isStale = true
  }
}
