/**
 * The contract of `Storage` as a suite of tests: whoever writes a backend or a wrapper calls `suite` from a Vitest file
 * and learns whether it keeps every promise that users of `Storage` build on. The backends and wrappers of this package
 * are held to the same suite.
 *
 * It needs `vitest` and `@effect/vitest`, and is therefore imported as `surfing-weights/StorageContract`, not from the
 * barrel.
 *
 * @module StorageContract
 * @since 0.1.0
 */
import { describe, expect, it } from "@effect/vitest"
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import type * as Layer from "effect/Layer"
import * as Schedule from "effect/Schedule"
import * as Supervisor from "effect/Supervisor"
import { concurrency } from "../internal/contract/concurrency.js"
import { conditions } from "../internal/contract/conditions.js"
import { copying } from "../internal/contract/copying.js"
import { keys } from "../internal/contract/keys.js"
import type { Case } from "../internal/contract/kit.js"
import { directories, listing } from "../internal/contract/listing.js"
import { loading, ranges } from "../internal/contract/loading.js"
import { model } from "../internal/contract/model.js"
import { removing } from "../internal/contract/removing.js"
import { saving } from "../internal/contract/saving.js"
import { streams } from "../internal/contract/streams.js"
import type * as Storage from "../Storage.js"

export type {
  /**
   * @since 0.1.0
   * @category models
   */
  Case
} from "../internal/contract/kit.js"

/**
 * @since 0.1.0
 * @category models
 */
export interface Options<R, E> {
  /** Built anew for each test; each build must give an empty storage. */
  readonly layer: Layer.Layer<Storage.Storage | R, E>
  /**
   * Names what should not be there and a listing does not show: temporary files, unfinished uploads, open handles. It
   * is run after each test, with the storage still open, and must then be empty. Default: nothing is looked for.
   */
  readonly leftovers?: Effect.Effect<ReadonlyArray<string>, unknown, Storage.Storage | R>
  /**
   * The cases that this store is known not to pass, each by its exact name, with the reason. They are shown as skipped.
   * A name that no case has is an error.
   */
  readonly skip?: Readonly<Record<string, string>>
}

/**
 * Every rule of the contract, in the order in which `suite` tests them.
 *
 * @since 0.1.0
 * @category cases
 */
export const cases: ReadonlyArray<Case> = [
  ...keys,
  ...saving,
  ...conditions,
  ...loading,
  ...ranges,
  ...streams,
  ...listing,
  ...directories,
  ...removing,
  ...copying,
  ...concurrency,
  ...model
]

/**
 * Holds a newly built storage to one rule: the rule itself, then that nothing is left over, and when the storage is
 * closed that no fiber goes on. Fails where one of these is not so.
 *
 * @since 0.1.0
 * @category cases
 */
export const run = <R, E>(rule: Case, { layer, leftovers }: Options<R, E>): Effect.Effect<void, unknown> =>
  Effect.flatMap(Supervisor.track, (supervisor) =>
    rule.effect.pipe(
      Effect.zipRight(leftovers ?? Effect.succeed([])),
      Effect.map((left) => expect(left, "what is left over").toEqual([])),
      Effect.provide(layer),
      Effect.supervised(supervisor),
      Effect.zipRight(
        // Those that are being interrupted get the time to end.
        Effect.repeat(supervisor.value, { until: (fibers) => fibers.length === 0, schedule: inTwoSeconds })
      ),
      Effect.zipRight(supervisor.value),
      Effect.map((fibers) => expect(fibers.length, "how many fibers still run when the storage is closed").toBe(0)),
      // Checks that run side by side fail side by side: one reason is enough.
      Effect.catchAllCause((cause) => Effect.fail(Cause.squash(cause)))
    ))

const inTwoSeconds = Schedule.intersect(Schedule.spaced("10 millis"), Schedule.recurs(200))

/**
 * Describes the contract for one storage: one Vitest test for each of `cases`, with real time and real I/O.
 *
 * What a store's `capabilities` rule out is tested too: that it is refused with `UnsupportedOperation` and changes
 * nothing.
 *
 * The random sequences of operations show, when one fails, the shortest that does and its seed; with
 * `FastCheck.configureGlobal({ seed })` before the suite they come again.
 *
 * @since 0.1.0
 * @category suites
 * @example
 * ```ts
 * import { MemoryStorage } from "surfing-weights"
 * import * as StorageContract from "surfing-weights/StorageContract"
 *
 * StorageContract.suite("MemoryStorage", { layer: MemoryStorage.layer() })
 * ```
 */
export const suite = <R, E>(name: string, options: Options<R, E>): void => {
  const skip = new Map(Object.entries(options.skip ?? {}))
  const unknown = [...skip.keys()].filter((skipped) => !cases.some((rule) => rule.name === skipped))
  if (unknown.length > 0) throw new Error(`to be skipped, but no case of the contract: ${unknown.join("; ")}`)

  describe(name, () => {
    for (const group of new Set(cases.map((rule) => rule.group))) {
      describe(group, () => {
        for (const rule of cases.filter((candidate) => candidate.group === group)) {
          const reason = skip.get(rule.name)
          if (reason === undefined) it.live(rule.name, () => run(rule, options), rule.timeout)
          else it.skip(`${rule.name} (skipped: ${reason})`)
        }
      })
    }
  })
}
