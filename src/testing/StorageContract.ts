/**
 * The contract of `Storage` as a test suite. The author of a backend or wrapper calls `suite` from a Vitest file to learn
 * whether it keeps every promise that users of `Storage` rely on. The backends and wrappers of this package are tested with
 * the same suite.
 *
 * It needs `vitest` and `@effect/vitest`, and is therefore imported as `surfing-weights/StorageContract`, not from the
 * package root.
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
import type * as Storage from "../Storage.js"
import { attributes } from "./contract/attributes.js"
import type { Case } from "./contract/cases.js"
import { concurrency } from "./contract/concurrency.js"
import { conditions } from "./contract/conditions.js"
import { copying } from "./contract/copying.js"
import { failures } from "./contract/failures.js"
import { keys } from "./contract/keys.js"
import { directories, listing } from "./contract/listing.js"
import { loading } from "./contract/loading.js"
import { model } from "./contract/model.js"
import { opening } from "./contract/opening.js"
import { ranges } from "./contract/ranges.js"
import { removing } from "./contract/removing.js"
import { saving } from "./contract/saving.js"
import { sinks } from "./contract/sinks.js"
import { sources } from "./contract/sources.js"
import { streams } from "./contract/streams.js"

export type {
  /**
   * @since 0.1.0
   * @category models
   */
  Case
} from "./contract/cases.js"

/**
 * @since 0.1.0
 * @category models
 */
export interface Options<R, E> {
  /** Built anew for each test; each build must provide an empty storage. */
  readonly layer: Layer.Layer<Storage.Storage | R, E>
  /**
   * Names what no listing shows and should not be there: temporary files, incomplete uploads, open handles. It runs after
   * each test, before the storage is closed, and must then be empty. Default: nothing is looked for.
   */
  readonly leftovers?: Effect.Effect<ReadonlyArray<string>, unknown, Storage.Storage | R> | undefined
  /** The reasons why this store does not pass a case, by the exact name of the case, which is skipped. */
  readonly skip?: Readonly<Record<string, string>> | undefined
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
  ...sources,
  ...sinks,
  ...conditions,
  ...attributes,
  ...loading,
  ...ranges,
  ...opening,
  ...streams,
  ...listing,
  ...directories,
  ...removing,
  ...copying,
  ...failures,
  ...concurrency,
  ...model
]

/**
 * Tests one rule on a newly built storage: the rule itself, then that nothing is left over, and once the storage is closed
 * that no fiber is still running. Fails where one of these does not hold.
 *
 * @since 0.1.0
 * @category cases
 */
export const run = <R, E>(rule: Case, { layer, leftovers }: Options<R, E>): Effect.Effect<void, unknown> =>
  Effect.flatMap(Supervisor.track, (supervisor) =>
    rule.effect.pipe(
      Effect.zipRight(leftovers ?? Effect.succeed([])),
      Effect.map((found) => expect(found, "what is left over").toEqual([])),
      Effect.provide(layer),
      Effect.supervised(supervisor),
      // Fibers that are being interrupted get time to end.
      Effect.zipRight(
        Effect.repeat(supervisor.value, { until: (fibers) => fibers.length === 0, schedule: forTwoSeconds })
      ),
      Effect.zipRight(supervisor.value),
      Effect.map((fibers) => expect(fibers.length, "fibers still running after the storage was closed").toBe(0)),
      // Concurrent checks fail together: one reason is enough.
      Effect.catchAllCause((cause) => Effect.fail(Cause.squash(cause)))
    ))

/** Ends a check that hangs, in milliseconds. A store that is only slow must not reach it. */
const hangs = 300_000

const forTwoSeconds = Schedule.intersect(Schedule.spaced("10 millis"), Schedule.recurs(200))

/**
 * Tests the contract for one storage: one Vitest test for each of `cases`, with real time and real I/O.
 *
 * What the `capabilities` of a store exclude is tested too: it must fail with `UnsupportedOperation` and change nothing.
 *
 * Random sequences of operations are reported with their seed, shrunk to the shortest that fails. To repeat one, or to run
 * more than 10 of them, call `FastCheck.configureGlobal({ seed, numRuns })` before the suite.
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
  if (unknown.length > 0) throw new Error(`skip must name cases of the contract (got ${unknown.join("; ")})`)

  describe(name, () => {
    for (const group of new Set(cases.map((rule) => rule.group))) {
      describe(group, () => {
        for (const rule of cases.filter((candidate) => candidate.group === group)) {
          const reason = skip.get(rule.name)
          if (reason === undefined) it.live(rule.name, () => run(rule, options), hangs)
          else it.skip(`${rule.name} (skipped: ${reason})`)
        }
      })
    }
  })
}
