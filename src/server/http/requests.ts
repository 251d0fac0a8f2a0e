/**
 * The requests of a server: those under way, which a shutdown waits for; their metrics; and the access log.
 *
 * - `weight_server_requests` counts responses by `status`
 * - `weight_server_in_flight` is how many requests are under way, without WebSockets
 * - `weight_server_refused` counts requests that were refused because of too many transfers, or during a shutdown
 * - `weight_server_cut` counts responses that did not reach the client as a whole, by `reason`: `client` (it disconnected),
 *   `idle`, `shutdown`, or `storage` (it failed after the response had begun)
 */
import type * as HttpServerRequest from "@effect/platform/HttpServerRequest"
import type * as HttpServerResponse from "@effect/platform/HttpServerResponse"
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as DefaultServices from "effect/DefaultServices"
import * as Effect from "effect/Effect"
import type * as Fiber from "effect/Fiber"
import * as FiberId from "effect/FiberId"
import * as FiberRef from "effect/FiberRef"
import type * as MetricLabel from "effect/MetricLabel"
import * as Option from "effect/Option"
import * as Runtime from "effect/Runtime"
import * as Scope from "effect/Scope"
import { counter, gauge, type Update } from "../../internal/observability.js"
import { connectionOf, destroyConnection, onConnectionEnd, onResponseEnd } from "./nodeConnection.js"
import { markServed } from "./nodeServers.js"

type Request = HttpServerRequest.HttpServerRequest

type Response = HttpServerResponse.HttpServerResponse

type Labels = ReadonlyArray<MetricLabel.MetricLabel>

/** Why the server cut off a response. */
export type CutReason = "idle" | "shutdown" | "storage"

const inFlight = gauge("weight_server_in_flight", "requests under way")

const refused = counter("weight_server_refused", "requests refused by the limit of transfers, or by a shutdown", {})

/** Counters by the value of a label, each made once. */
const countersBy = (name: string, description: string, label: string): (value: string) => Update => {
  const known = new Map<string, Update>()
  return (value) => {
    const found = known.get(value)
    if (found !== undefined) return found
    const made = counter(name, description, { [label]: value })
    known.set(value, made)
    return made
  }
}

const responses = countersBy("weight_server_requests", "responses by status", "status")

const cut = countersBy("weight_server_cut", "responses that did not reach the client as a whole", "reason")

/** A request under way. */
interface Entry {
  readonly request: Request
  readonly fiber: Fiber.RuntimeFiber<unknown, unknown>
  readonly labels: Labels
  readonly start: number
  /** The address of the client, where requests are logged. */
  readonly client: string | undefined
  response?: Response
  reason?: CutReason
}

export class Requests {
  readonly #runtime: Runtime.Runtime<never>
  readonly #logsAccess: boolean
  readonly #onEnd: () => void
  // By what the platform made the request of, which stays the same where an app changes the request.
  readonly #underWay = new Map<unknown, Entry>()
  readonly #webSockets = new Map<unknown, Entry>()

  constructor(
    { logsAccess, onEnd, runtime }: {
      readonly runtime: Runtime.Runtime<never>
      readonly logsAccess: boolean
      readonly onEnd: () => void
    }
  ) {
    this.#runtime = runtime
    this.#logsAccess = logsAccess
    this.#onEnd = onEnd
  }

  /** How many are under way, without WebSockets. */
  get size(): number {
    return this.#underWay.size
  }

  /** The same app, whose requests are under way until their responses are sent, or their connections are closed. */
  watch<R>(app: Effect.Effect<Response, never, R>, request: Request): Effect.Effect<Response, never, R | Scope.Scope> {
    return Effect.withFiberRuntime((fiber: Fiber.RuntimeFiber<Response>) => {
      markServed(connectionOf(request))
      const isUpgrade = request.headers["upgrade"] !== undefined
      const entries = isUpgrade ? this.#webSockets : this.#underWay
      const entry: Entry = {
        request,
        fiber,
        labels: fiber.getFiberRef(FiberRef.currentMetricLabels),
        start: clockOf(fiber).unsafeCurrentTimeMillis(),
        client: this.#logsAccess ? Option.getOrUndefined(request.remoteAddress) : undefined
      }
      entries.set(request.source, entry)
      if (!isUpgrade) inFlight(1, entry.labels)
      const end = (isComplete: boolean) => {
        if (!entries.delete(request.source)) return
        if (!isUpgrade) inFlight(-1, entry.labels)
        this.#end(entry, isComplete)
      }
      const answered = Effect.map(app, (response) => {
        entry.response = response
        return response
      })
      const isSeen = isUpgrade ? onConnectionEnd(request, () => end(true)) : onResponseEnd(request, end)
      return isSeen ? answered : Effect.zipRight(
        Effect.flatMap(
          Effect.scope,
          (scope) => Scope.addFinalizerExit(scope, ({ _tag }) => Effect.sync(() => end(_tag === "Success")))
        ),
        answered
      )
    })
  }

  /** Counts a request that is refused. */
  refuse(labels: Labels): void {
    refused(1, labels)
  }

  /** Cuts off the response to a request, and returns whether the connection is broken. */
  cut({ source }: Request, reason: CutReason): boolean {
    const entry = this.#underWay.get(source) ?? this.#webSockets.get(source)
    if (entry !== undefined) entry.reason ??= reason
    return entry !== undefined && destroyConnection(entry.request)
  }

  /** Cuts off all that are under way. Where a connection is out of reach, at least the storage's resources are released. */
  cutAll(): void {
    for (const { fiber, request } of this.#underWay.values()) {
      if (!this.cut(request, "shutdown")) fiber.unsafeInterruptAsFork(FiberId.none)
    }
  }

  #end(entry: Entry, isComplete: boolean): void {
    const { fiber, labels, reason, response } = entry
    responses(response === undefined ? "none" : String(response.status))(1, labels)
    if (reason !== undefined || !isComplete) cut(reason ?? "client")(1, labels)
    if (this.#logsAccess) {
      const milliseconds = clockOf(fiber).unsafeCurrentTimeMillis() - entry.start
      Runtime.runFork(this.#runtime)(logAccess(entry, isComplete && reason === undefined, milliseconds))
    }
    this.#onEnd()
  }
}

const clockOf = (fiber: Fiber.RuntimeFiber<unknown, unknown>): Clock.Clock =>
  Context.get(fiber.getFiberRef(DefaultServices.currentServices), Clock.Clock)

/** A line for each request, once it is over. */
const logAccess = (
  { client = "unknown", reason, request: { method, url }, response }: Entry,
  isComplete: boolean,
  milliseconds: number
): Effect.Effect<void> => {
  const status = response === undefined ? "no response" : String(response.status)
  const cutOff = isComplete ? "" : reason === undefined ? ", the client disconnected" : `, cut off (${reason})`
  return Effect.logInfo(`${method} ${JSON.stringify(url)} ${status}${cutOff}`).pipe(
    Effect.annotateLogs({
      "http.method": method,
      "http.url": url,
      "http.status": status,
      "http.length": response?.headers["content-length"] ?? "unknown",
      "http.milliseconds": milliseconds,
      "http.client": client
    })
  )
}
