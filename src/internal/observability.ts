/**
 * A span for each operation where a tracer is installed, and metrics, which carry the labels of `Effect.tagMetrics`:
 *
 * - `storage_operations` counts operations by `backend`, `operation` and `outcome`: `success`, `interrupted`, `defect`, the
 *   tag of a storage failure, or `failure` for another failure of the caller's source
 * - `storage_bytes` counts bytes loaded or saved, by `backend` and `operation`
 * - `storage_operation_seconds` is the duration of operations, by `backend` and `operation`; of a stream until it ended
 *
 * The span is `Storage.<operation>`, with the attributes `storage.backend`, `storage.key`, `storage.bytes` at its end, and
 * where known `storage.attempts` (if more than one) and `storage.cache` (`hit` or `miss`).
 */
import * as Cause from "effect/Cause"
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as DefaultServices from "effect/DefaultServices"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as FiberRef from "effect/FiberRef"
import * as Metric from "effect/Metric"
import * as MetricBoundaries from "effect/MetricBoundaries"
import * as MetricKey from "effect/MetricKey"
import * as MetricLabel from "effect/MetricLabel"
import * as Option from "effect/Option"
import * as Stream from "effect/Stream"
import * as Tracer from "effect/Tracer"
import { StorageError } from "../StorageError.js"

type Labels = ReadonlyArray<MetricLabel.MetricLabel>

/** Updates a metric; `labels` are those of the fiber. */
export type Update = (value: number, labels: Labels) => void

const toLabels = (labels: Readonly<Record<string, string>>): Labels =>
  Object.entries(labels).map(([name, value]) => MetricLabel.make(name, value))

// Labels that never change are part of the key: to add them on each update costs more than the update.
export const counter = (name: string, description: string, labels: Readonly<Record<string, string>>): Update => {
  const key = MetricKey.counter(name, { description, incremental: true })
  const metric = Metric.fromMetricKey(MetricKey.taggedWithLabels(key, toLabels(labels)))
  return (value, labels) => metric.unsafeUpdate(value, labels)
}

/** A sum of changes up and down. */
export const gauge = (name: string, description: string): Update => {
  const metric = Metric.fromMetricKey(MetricKey.counter(name, { description }))
  return (change, labels) => metric.unsafeUpdate(change, labels)
}

const histogram = (name: string, description: string, labels: Readonly<Record<string, string>>): Update => {
  const key = MetricKey.histogram(name, boundaries, description)
  const metric = Metric.fromMetricKey(MetricKey.taggedWithLabels(key, toLabels(labels)))
  return (value, labels) => metric.unsafeUpdate(value, labels)
}

/** From a tenth of a millisecond to almost two minutes. */
const boundaries = MetricBoundaries.exponential({ start: 0.0001, factor: 4, count: 11 })

/** Runs an update with the metric labels of the fiber. */
export const withLabels = (update: (labels: Labels) => void): Effect.Effect<void> =>
  Effect.withFiberRuntime((fiber) => {
    update(fiber.getFiberRef(FiberRef.currentMetricLabels))
    return Effect.void
  })

/** Sets an attribute of the span of the operation that runs this, if there is one. */
export const annotate = (name: string, value: unknown): Effect.Effect<void> =>
  Effect.contextWith((context: Context.Context<never>) => {
    const span = Context.getOption(context, Tracer.ParentSpan)
    if (Option.isSome(span) && span.value._tag === "Span") span.value.attribute(name, value)
  })

// A span costs as much as the load of a small object, and without a tracer it would be lost.
const nativeTracer = Context.get(DefaultServices.liveServices, Tracer.Tracer)

/** Whether a tracer is installed. */
export const isTraced: Effect.Effect<boolean> = Effect.map(Effect.tracer, (tracer) => tracer !== nativeTracer)

/** Observes one operation of one backend. */
export interface Observer {
  /** `bytesOf` is the number of bytes that a success has moved. */
  readonly effect: <A, E, R>(
    key: string,
    run: () => Effect.Effect<A, E, R>,
    bytesOf?: (result: A) => number
  ) => Effect.Effect<A, E, R>
  /** Observes a stream until it ends; `bytes` is how many have been read of it. */
  readonly stream: <A, E, R>(
    key: string,
    stream: Stream.Stream<A, E, R>,
    bytes?: () => number
  ) => Stream.Stream<A, E, R>
  /** Counts the bytes of an opened stream when it ends. */
  readonly opened: <A, E, R>(stream: Stream.Stream<A, E, R>, bytes: () => number) => Stream.Stream<A, E, R>
}

export const makeObserver = (backend: string, operation: string): Observer => {
  const name = `Storage.${operation}`
  const end = makeEnd(backend, operation)
  const spanOptions = (key: string): Tracer.SpanOptions => ({
    kind: "client",
    captureStackTrace: false,
    attributes: { "storage.backend": backend, "storage.key": key }
  })
  return {
    effect: (key, run, bytesOf) =>
      withFiber((clock, labels, isTraced) => {
        const start = clock.unsafeCurrentTimeNanos()
        const watched = Effect.onExit(Effect.suspend(run), (exit) => {
          const bytes = bytesOf !== undefined && Exit.isSuccess(exit) ? bytesOf(exit.value) : 0
          end.operation(exit, clock.unsafeCurrentTimeNanos() - start, bytes, labels)
          return isTraced && bytesOf !== undefined ? annotate("storage.bytes", bytes) : Effect.void
        })
        return isTraced ? Effect.withSpan(watched, name, spanOptions(key)) : watched
      }),
    stream: (key, stream, bytes) =>
      Stream.unwrap(withFiber((clock, labels, isTraced) => {
        const start = clock.unsafeCurrentTimeNanos()
        const watch = (span?: Tracer.Span) =>
          Stream.ensuringWith(stream, (exit) =>
            Effect.sync(() => {
              end.operation(exit, clock.unsafeCurrentTimeNanos() - start, bytes?.() ?? 0, labels)
              if (bytes !== undefined) span?.attribute("storage.bytes", bytes())
            }))
        // A finalizer of a stream does not see its span.
        const traced = Stream.unwrap(
          Effect.map(Effect.option(Effect.currentSpan), (span) => watch(Option.getOrUndefined(span)))
        )
        return Effect.succeed(isTraced ? Stream.withSpan(traced, name, spanOptions(key)) : watch())
      })),
    opened: (stream, bytes) => Stream.ensuring(stream, withLabels((labels) => end.bytes(bytes(), labels)))
  }
}

/** Updates the metrics of an operation that has ended. */
const makeEnd = (backend: string, operation: string) => {
  const labels = { backend, operation }
  const seconds = histogram("storage_operation_seconds", "duration of operations", labels)
  const moved = counter("storage_bytes", "bytes loaded or saved", labels)
  const outcomes = new Map<string, Update>()
  const outcome = (name: string): Update => {
    const known = outcomes.get(name)
    if (known !== undefined) return known
    const update = counter("storage_operations", "operations by outcome", { ...labels, outcome: name })
    outcomes.set(name, update)
    return update
  }
  const bytes: Update = (count, labels) => {
    if (count > 0) moved(count, labels)
  }
  return {
    bytes,
    operation: (exit: Exit.Exit<unknown, unknown>, nanoseconds: bigint, count: number, labels: Labels) => {
      outcome(outcomeOf(exit))(1, labels)
      seconds(Number(nanoseconds) / 1e9, labels)
      bytes(count, labels)
    }
  }
}

const withFiber = <A, E, R>(
  use: (clock: Clock.Clock, labels: Labels, isTraced: boolean) => Effect.Effect<A, E, R>
): Effect.Effect<A, E, R> =>
  Effect.withFiberRuntime((fiber) => {
    const services = fiber.getFiberRef(DefaultServices.currentServices)
    return use(
      Context.get(services, Clock.Clock),
      fiber.getFiberRef(FiberRef.currentMetricLabels),
      Context.get(services, Tracer.Tracer) !== nativeTracer
    )
  })

const outcomeOf = (exit: Exit.Exit<unknown, unknown>): string => {
  if (Exit.isSuccess(exit)) return "success"
  const failure = Cause.failureOption(exit.cause)
  if (failure._tag === "None") return Cause.isInterrupted(exit.cause) ? "interrupted" : "defect"
  const error = failure.value
  const tag = typeof error === "object" && error !== null && "_tag" in error ? String(error._tag) : ""
  return tags.has(tag) ? tag : "failure"
}

const tags = new Set<string>(StorageError.members.map(({ _tag }) => _tag))
