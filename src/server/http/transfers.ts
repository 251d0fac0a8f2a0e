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
import * as FiberRef from "effect/FiberRef"
import type * as Runtime from "effect/Runtime"
import * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import { deadline, IdleTimer, raceTimeout } from "../../internal/timeouts.js"
import { StorageUnavailable } from "../../StorageError.js"
import { type CutReason, Requests } from "./requests.js"
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
  readonly #requests: Requests
  readonly #request: HttpServerRequest.HttpServerRequest
  readonly #fiber: Fiber.RuntimeFiber<unknown, unknown>
  readonly #timer: IdleTimer

  constructor(
    requests: Requests,
    request: HttpServerRequest.HttpServerRequest,
    fiber: Fiber.RuntimeFiber<unknown, unknown>,
    idleTimeout: number
  ) {
    this.#requests = requests
    this.#request = request
    this.#fiber = fiber
    const clock = Context.get(fiber.getFiberRef(DefaultServices.currentServices), Clock.Clock)
    this.#timer = new IdleTimer(clock, idleTimeout, () => this.cut("idle"))
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

  cut(reason: CutReason): void {
    // Where the connection is out of reach, at least the storage's resources are released.
    if (!this.#requests.cut(this.#request, reason)) this.#fiber.unsafeInterruptAsFork(FiberId.none)
  }
}

/** How long a storage may take to release what a cut transfer held, in milliseconds. */
const releaseTimeout = 5000

export class Transfers {
  readonly requests: Requests
  readonly #limits: Limits
  readonly #running = new Set<Transfer>()
  readonly #ended = Deferred.unsafeMake<void>(FiberId.none)
  #isDraining = false

  constructor(limits: Limits, options: { readonly runtime: Runtime.Runtime<never>; readonly logsAccess: boolean }) {
    this.#limits = limits
    this.requests = new Requests({ ...options, onEnd: () => this.#checkEnded() })
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
          this.requests.refuse(fiber.getFiberRef(FiberRef.currentMetricLabels))
          return Effect.fail(new StorageUnavailable({ backend: serverName, reason, retryAfter: Duration.seconds(1) }))
        }
        const transfer = new Transfer(this.requests, request, fiber, this.#limits.idleTimeout)
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
    this.#checkEnded()
  }

  /** The last response may be sent after its transfer has ended, and a transfer may end after its connection. */
  get #isIdle(): boolean {
    return this.#running.size === 0 && this.requests.size === 0
  }

  #checkEnded(): void {
    if (this.#isDraining && this.#isIdle) Deferred.unsafeDone(this.#ended, Effect.void)
  }

  /** Begins no more transfers, waits for the requests under way until the shutdown timeout, and cuts the rest. */
  get drain(): Effect.Effect<void> {
    return Effect.gen(this, function*() {
      this.#isDraining = true
      const { shutdownTimeout } = this.#limits
      if (!this.#isIdle) {
        const limit = Duration.format(Duration.millis(shutdownTimeout))
        yield* Effect.logInfo(`shutting down; ${this.#count} may continue for ${limit}`)
      }
      yield* this.#waitForAll(shutdownTimeout)
      if (this.#isIdle) return
      yield* Effect.logWarning(`cutting off ${this.#count} at the shutdown timeout`)
      for (const transfer of this.#running) transfer.cut("shutdown")
      this.requests.cutAll()
      yield* this.#waitForAll(releaseTimeout)
    })
  }

  get #count(): string {
    const count = Math.max(this.requests.size, this.#running.size)
    return `${count} request${count === 1 ? "" : "s"}`
  }

  // A drain is run by a fiber that is interrupted and cannot be, which must neither end the wait nor prolong it.
  #waitForAll(timeout: number): Effect.Effect<void> {
    return Effect.suspend(() =>
      this.#isIdle
        ? Effect.void
        : Effect.ignore(raceTimeout(deadline(timeout, () => {}), Deferred.await(this.#ended), Fiber.interrupt))
    )
  }
}
