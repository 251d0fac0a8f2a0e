/**
 * What can be seen of a storage from outside: a span of each operation where a tracer is installed, and metrics always.
 *
 * - `storage_operations` counts operations by `backend`, `operation` and `outcome`: `success`, `interrupted`, `defect`,
 *   the tag of a failure of the storage, or `failure` for one of the caller's source
 * - `storage_bytes` counts bytes that were loaded or saved, by `backend` and `operation`
 * - `storage_operation_seconds` is how long operations took, by `backend` and `operation`; a stream until it ended
 *
 * The span of an operation is `Storage.<operation>`. It has the attributes `storage.backend` and `storage.key`,
 * `storage.bytes` when it is over, and where the storage tells them `storage.attempts` (so many, where more than one was
 * needed) and `storage.cache` (`hit` or `miss`).
 */
import * as Cause from "effect/Cause"
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as DefaultServices from "effect/DefaultServices"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as FiberRef from "effect/FiberRef"
import * as MetricBoundaries from "effect/MetricBoundaries"
import * as Option from "effect/Option"
import * as Stream from "effect/Stream"
import * as Tracer from "effect/Tracer"
import { StorageError } from "../StorageError.js"
import { counter, histogram } from "./metrics.js"

/** Tells something of the operation in whose span this is run, if there is one; costs next to nothing where there is none. */
export const annotate = (name: string, value: unknown): Effect.Effect<void> =>
  Effect.contextWith((context: Context.Context<never>) => {
    const span = Context.getOption(context, Tracer.ParentSpan)
    if (Option.isSome(span) && span.value._tag === "Span") span.value.attribute(name, value)
  })

/** Watches the operations of one kind on one backend. */
export interface Observer {
  /** `bytesOf` says how many bytes a success has moved. */
  readonly effect: <A, E, R>(
    key: string,
    run: () => Effect.Effect<A, E, R>,
    bytesOf?: (result: A) => number
  ) => Effect.Effect<A, E, R>
  readonly stream: <A, E, R>(
    key: string,
    run: () => Stream.Stream<A, E, R>,
    bytesOf?: (item: A) => number
  ) => Stream.Stream<A, E, R>
  /** Counts the bytes of a stream that an operation has opened. */
  readonly bytes: <E, R>(stream: Stream.Stream<Uint8Array, E, R>) => Stream.Stream<Uint8Array, E, R>
}

export const make = (backend: string, operation: string): Observer => {
  const name = `Storage.${operation}`
  const labels = { backend, operation }
  const seconds = histogram("storage_operation_seconds", "how long operations took", boundaries, labels)
  const moved = counter("storage_bytes", "bytes that were loaded or saved", labels)
  const outcomes = new Map<string, (count: number) => void>()

  const spanOptions = (key: string): Tracer.SpanOptions => ({
    kind: "client",
    captureStackTrace: false,
    attributes: { "storage.backend": backend, "storage.key": key }
  })

  /** Counts an operation that is over. */
  const end = (outcome: string, nanoseconds: bigint, bytes: number) => {
    let counted = outcomes.get(outcome)
    if (counted === undefined) {
      counted = counter("storage_operations", "operations by how they ended", { ...labels, outcome })
      outcomes.set(outcome, counted)
    }
    counted(1)
    seconds(Number(nanoseconds) / 1e9)
    if (bytes > 0) moved(bytes)
  }

  return {
    effect: (key, run, bytesOf) =>
      withServices((clock, isTraced) => {
        const start = clock.unsafeCurrentTimeNanos()
        const watched = Effect.onExit(run(), (exit) => {
          const bytes = bytesOf !== undefined && Exit.isSuccess(exit) ? bytesOf(exit.value) : 0
          end(outcomeOf(exit), clock.unsafeCurrentTimeNanos() - start, bytes)
          return isTraced && bytesOf !== undefined ? annotate("storage.bytes", bytes) : Effect.void
        })
        return isTraced ? Effect.withSpan(watched, name, spanOptions(key)) : watched
      }),
    stream: (key, run, bytesOf) =>
      Stream.unwrap(withServices((clock, isTraced) => {
        const start = clock.unsafeCurrentTimeNanos()
        const watch = (span?: Tracer.Span) => {
          const { bytes, stream } = count(run(), bytesOf)
          return Stream.ensuringWith(stream, (exit) =>
            Effect.sync(() => {
              end(outcomeOf(exit), clock.unsafeCurrentTimeNanos() - start, bytes())
              if (bytesOf !== undefined) span?.attribute("storage.bytes", bytes())
            }))
        }
        // A finalizer of a stream does not see its span.
        const traced = Stream.unwrap(
          Effect.map(Effect.option(Effect.currentSpan), (span) => watch(Option.getOrUndefined(span)))
        )
        return Effect.succeed(isTraced ? Stream.withSpan(traced, name, spanOptions(key)) : watch())
      })),
    bytes: (opened) =>
      Stream.suspend(() => {
        const { bytes, stream } = count(opened, ({ byteLength }) => byteLength)
        return Stream.ensuring(stream, Effect.sync(() => moved(bytes())))
      })
  }
}

/** The same stream, and how many bytes have passed; that costs no effect for a chunk. */
const count = <A, E, R>(stream: Stream.Stream<A, E, R>, bytesOf: ((item: A) => number) | undefined) => {
  let bytes = 0
  return {
    bytes: () => bytes,
    stream: bytesOf === undefined ? stream : Stream.mapChunks(stream, (chunk) => {
      for (const item of chunk) bytes += bytesOf(item)
      return chunk
    })
  }
}

/** From a tenth of a millisecond to almost two minutes. */
const boundaries = MetricBoundaries.exponential({ start: 0.0001, factor: 4, count: 11 })

// A span costs as much as the load of a small object, and without a tracer nobody would see it.
const nativeTracer = Context.get(DefaultServices.liveServices, Tracer.Tracer)

/** Whether anybody would see a span. */
export const isTraced: Effect.Effect<boolean> = Effect.suspend(() =>
  withServices((_, isTraced) => Effect.succeed(isTraced))
)

const withServices = <A, E, R>(
  use: (clock: Clock.Clock, isTraced: boolean) => Effect.Effect<A, E, R>
): Effect.Effect<A, E, R> =>
  Effect.flatMap(
    FiberRef.get(DefaultServices.currentServices),
    (services) => use(Context.get(services, Clock.Clock), Context.get(services, Tracer.Tracer) !== nativeTracer)
  )

const outcomeOf = (exit: Exit.Exit<unknown, unknown>): string => {
  if (Exit.isSuccess(exit)) return "success"
  const failure = Cause.failureOption(exit.cause)
  if (failure._tag === "None") return Cause.isInterrupted(exit.cause) ? "interrupted" : "defect"
  const error = failure.value
  const tag = typeof error === "object" && error !== null && "_tag" in error ? String(error._tag) : ""
  return tags.has(tag) ? tag : "failure"
}

const tags = new Set<string>(StorageError.members.map(({ _tag }) => _tag))
