/**
 * What a server is busy with: how many transfers at once, how long one may stand still, and what becomes of them when the
 * server stops.
 */
import type * as HttpServerRequest from "@effect/platform/HttpServerRequest"
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as Fiber from "effect/Fiber"
import * as FiberId from "effect/FiberId"
import * as Scope from "effect/Scope"
import { StorageUnavailable } from "../../StorageError.js"
import { breakOff } from "./connection.js"

/** One transfer. It waits for the client from `waits` until `goes`. */
export interface Transfer {
  readonly waits: () => void
  readonly goes: () => void
}

export interface Transfers {
  /** Begins a transfer that ends with the scope, or fails where there is no place for it. */
  readonly begin: (
    request: HttpServerRequest.HttpServerRequest,
    operation: string
  ) => Effect.Effect<Transfer, StorageUnavailable, Scope.Scope>
  /** Waits for those that are running, ends what is left at the deadline, and begins no more. */
  readonly drain: Effect.Effect<void>
  /** Whether the server is to stop: nothing new is begun. */
  readonly isStopping: () => boolean
}

export interface Limits {
  readonly maxTransfers: number
  /** In milliseconds. */
  readonly idleLimit: number
  /** How long transfers may go on once the server is to stop. */
  readonly shutdownDeadline: Duration.Duration
}

/** What a storage may take to let go of what was cut. */
const timeToEnd = "5 seconds"

export const make = (backend: string, { idleLimit, maxTransfers, shutdownDeadline }: Limits) =>
  Effect.gen(function*() {
    /** Each with the look since which it waits. */
    const running = new Set<{ since: number | undefined; readonly cut: () => void }>()
    const ended = yield* Deferred.make<void>()
    let stopping = false

    // Looks are counted, and not time: a process that was held up has yet to see what its clients did meanwhile.
    const interval = Math.min(idleLimit / 4, 60_000)
    const most = Math.ceil(idleLimit / interval)
    let looks = 0
    const look = Effect.sync(() => {
      looks += 1
      for (const { cut, since } of running) if (since !== undefined && looks - since > most) cut()
    })
    yield* Effect.forkScoped(Effect.forever(Effect.zipRight(Effect.sleep(interval), look)))

    const allEnded = (limit: Duration.DurationInput) =>
      Effect.suspend(() =>
        running.size === 0
          ? Effect.void
          : Effect.interruptible(Effect.timeoutOption(Deferred.await(ended), limit))
      )

    const refusal = (operation: string): StorageUnavailable | undefined =>
      !stopping && running.size < maxTransfers ? undefined : new StorageUnavailable({
        backend,
        operation,
        reason: stopping ? "the server is stopping" : `${maxTransfers} transfers are going on, which is the limit`,
        retryAfter: Duration.seconds(1)
      })

    const begin: Transfers["begin"] = (request, operation) =>
      Effect.uninterruptible(Effect.withFiberRuntime((fiber: Fiber.RuntimeFiber<Transfer, StorageUnavailable>) => {
        const refused = refusal(operation)
        if (refused !== undefined) return Effect.fail(refused)
        const transfer = {
          since: undefined as number | undefined,
          cut: () => {
            // Where the connection is out of reach, at least what the transfer holds is let go.
            if (!breakOff(request)) fiber.unsafeInterruptAsFork(FiberId.none)
          },
          waits: () => {
            transfer.since = looks
          },
          goes: () => {
            transfer.since = undefined
          }
        }
        running.add(transfer)
        const end = Effect.sync(() => {
          running.delete(transfer)
          if (stopping && running.size === 0) Deferred.unsafeDone(ended, Effect.void)
        })
        // `Effect.addFinalizer` compares all references of two fibers, which costs as much as the load of a small file.
        return Effect.flatMap(Effect.scope, (scope) => Effect.as(Scope.addFinalizer(scope, end), transfer))
      }))

    const drain = Effect.gen(function*() {
      stopping = true
      yield* allEnded(shutdownDeadline)
      for (const { cut } of running) cut()
      yield* allEnded(timeToEnd)
    })

    const transfers: Transfers = { begin, drain, isStopping: () => stopping }
    return transfers
  })
