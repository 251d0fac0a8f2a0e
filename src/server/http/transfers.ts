/**
 * The transfers of a server: their limit, the idle timeout of clients, and the shutdown.
 */
import type * as HttpServerRequest from "@effect/platform/HttpServerRequest"
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as DefaultServices from "effect/DefaultServices"
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as FiberId from "effect/FiberId"
import * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import { deadline, IdleTimer, raceTimeout } from "../../internal/timeouts.js"
import { StorageUnavailable } from "../../StorageError.js"
import { destroyConnection } from "./nodeConnection.js"
import { serverName } from "./responses.js"

export interface Limits {
  readonly maxTransfers: number
  /** In milliseconds. */
  readonly idleTimeout: number
  /** In milliseconds. */
  readonly shutdownTimeout: number
}

/** A download, upload or listing under way. Its idle timer runs while the client is waited for. */
export class Transfer {
  readonly #request: HttpServerRequest.HttpServerRequest
  readonly #fiber: Fiber.RuntimeFiber<unknown, unknown>
  readonly #timer: IdleTimer

  constructor(
    request: HttpServerRequest.HttpServerRequest,
    fiber: Fiber.RuntimeFiber<unknown, unknown>,
    idleTimeout: number
  ) {
    this.#request = request
    this.#fiber = fiber
    const clock = Context.get(fiber.getFiberRef(DefaultServices.currentServices), Clock.Clock)
    this.#timer = new IdleTimer(clock, idleTimeout, () => this.cut())
    this.#timer.pause()
  }

  /** The next step is the client's. */
  waitForClient(): void {
    this.#timer.restart()
  }

  /** The next step is the storage's. */
  waitForStorage(): void {
    this.#timer.pause()
  }

  end(): void {
    this.#timer.stop()
  }

  /** What is sent to the client as the storage yields it. */
  download<A, E>(stream: Stream.Stream<A, E>): Stream.Stream<A, E> {
    return Stream.fromPull(Effect.map(Stream.toPull(stream), (pull) =>
      Effect.suspend(() => {
        this.waitForStorage()
        return Effect.map(pull, (chunk) => {
          this.waitForClient()
          return chunk
        })
      })))
  }

  cut(): void {
    // Where the connection is out of reach, at least the storage's resources are released.
    if (!destroyConnection(this.#request)) this.#fiber.unsafeInterruptAsFork(FiberId.none)
  }
}

/** How long a storage may take to release what a cut transfer held, in milliseconds. */
const releaseTimeout = 5000

export class Transfers {
  readonly #limits: Limits
  readonly #running = new Set<Transfer>()
  readonly #ended = Deferred.unsafeMake<void>(FiberId.none)
  #isDraining = false

  constructor(limits: Limits) {
    this.#limits = limits
  }

  /** Whether the server is shutting down, and begins no transfers. */
  get isDraining(): boolean {
    return this.#isDraining
  }

  /** Begins a transfer that ends with the scope of the request. */
  begin(request: HttpServerRequest.HttpServerRequest): Effect.Effect<Transfer, StorageUnavailable, Scope.Scope> {
    return Effect.uninterruptible(
      Effect.withFiberRuntime((fiber: Fiber.RuntimeFiber<Transfer, StorageUnavailable>) => {
        const reason = this.#refusal()
        if (reason !== undefined) {
          return Effect.fail(new StorageUnavailable({ backend: serverName, reason, retryAfter: Duration.seconds(1) }))
        }
        const transfer = new Transfer(request, fiber, this.#limits.idleTimeout)
        this.#running.add(transfer)
        const end = Effect.sync(() => this.#end(transfer))
        // `Effect.addFinalizer` compares all references of two fibers, which costs as much as the load of a small file.
        return Effect.flatMap(Effect.scope, (scope) => Effect.as(Scope.addFinalizer(scope, end), transfer))
      })
    )
  }

  #refusal(): string | undefined {
    if (this.#isDraining) return "the server is shutting down"
    const { maxTransfers } = this.#limits
    return this.#running.size < maxTransfers
      ? undefined
      : `the server is busy with ${maxTransfers} transfers, its limit`
  }

  #end(transfer: Transfer): void {
    transfer.end()
    this.#running.delete(transfer)
    if (this.#isDraining && this.#running.size === 0) Deferred.unsafeDone(this.#ended, Effect.void)
  }

  /** Begins no more transfers, waits for those under way until the shutdown timeout, and cuts the rest. */
  get drain(): Effect.Effect<void> {
    return Effect.gen(this, function*() {
      this.#isDraining = true
      yield* this.#waitForAll(this.#limits.shutdownTimeout)
      for (const transfer of this.#running) transfer.cut()
      yield* this.#waitForAll(releaseTimeout)
    })
  }

  // A drain is run by a fiber that is interrupted and cannot be, which must neither end the wait nor prolong it.
  #waitForAll(timeout: number): Effect.Effect<void> {
    return Effect.suspend(() =>
      this.#running.size === 0
        ? Effect.void
        : Effect.ignore(raceTimeout(deadline(timeout, () => {}), Deferred.await(this.#ended), Fiber.interrupt))
    )
  }
}
