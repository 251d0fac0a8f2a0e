/**
 * Permits for operations and for what they open, and the pace of requests and bytes.
 */
import * as Effect from "effect/Effect"
import * as FiberRef from "effect/FiberRef"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import { granted, Permits } from "../../internal/permits.js"
import { byteLimiter, requestLimiter } from "./rateLimiter.js"

export class Limiter {
  readonly #permits: Permits
  readonly #hasPermit = FiberRef.unsafeMake(false)
  readonly #nextRequest: Effect.Effect<void> | undefined
  readonly #countBytes: ((bytes: number) => Effect.Effect<void>) | undefined

  constructor({ bytesPerSecond, concurrency, requestsPerSecond }: {
    readonly concurrency: number
    readonly requestsPerSecond?: number | undefined
    readonly bytesPerSecond?: number | undefined
  }) {
    this.#permits = new Permits(concurrency)
    this.#nextRequest = requestsPerSecond === undefined ? undefined : requestLimiter(requestsPerSecond)
    this.#countBytes = bytesPerSecond === undefined ? undefined : byteLimiter(bytesPerSecond)
  }

  /** Runs an operation while it holds a permit. */
  run<A, E, R>(operation: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> {
    return Effect.withFiberRuntime((fiber) =>
      fiber.getFiberRef(this.#hasPermit)
        ? this.#begin(operation)
        : this.#permits.withPermit(this.#begin(operation))
    )
  }

  /** Opens something that holds a permit until it runs `release`, or the scope ends; if it fails to open, until then. */
  opening<A, E, R>(
    open: (release: Effect.Effect<void>) => Effect.Effect<A, E, R>
  ): Effect.Effect<A, E, R | Scope.Scope> {
    return Effect.flatMap(
      FiberRef.get(this.#hasPermit),
      (hasPermit) =>
        hasPermit ? this.#begin(open(Effect.void)) : Effect.uninterruptibleMask((restore) => {
          const permit = this.#permits.take()
          let isReleased = false
          const release = Effect.sync(() => {
            if (!isReleased) this.#permits.release(permit)
            isReleased = true
          })
          return Effect.zipRight(
            Effect.addFinalizer(() => release),
            Effect.onError(restore(granted(permit, this.#begin(open(release)))), () => release)
          )
        })
    )
  }

  /** Runs an operation that holds a permit, and lets what it calls on the same storage share it. */
  sharing<A, E, R>(operation: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> {
    return Effect.locally(operation, this.#hasPermit, true)
  }

  /** Counts the bytes of a result, and delays it. */
  paced<A, E, R>(operation: Effect.Effect<A, E, R>, bytesOf: (result: A) => number): Effect.Effect<A, E, R> {
    const count = this.#countBytes
    return count === undefined ? operation : Effect.tap(operation, (result) => count(bytesOf(result)))
  }

  /** Counts the bytes of a stream, and delays its chunks. */
  pacedStream<A extends Uint8Array, E, R>(stream: Stream.Stream<A, E, R>): Stream.Stream<A, E, R> {
    const count = this.#countBytes
    return count === undefined
      ? stream
      : Stream.mapChunksEffect(stream, (chunk) => Effect.as(count(totalOf(chunk)), chunk))
  }

  #begin<A, E, R>(operation: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> {
    return this.#nextRequest === undefined ? operation : Effect.zipRight(this.#nextRequest, operation)
  }
}

/** The length of all arrays, in bytes. */
export const totalOf = (arrays: Iterable<Uint8Array>): number => {
  let total = 0
  for (const { byteLength } of arrays) total += byteLength
  return total
}
