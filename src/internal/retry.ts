/**
 * The one mechanism behind every retry: of an effect as a whole, of a body from the byte where it broke, of a listing
 * from the key where it broke. What succeeds at once pays for none of it.
 */
import * as Arr from "effect/Array"
import type * as Cause from "effect/Cause"
import * as Channel from "effect/Channel"
import * as Chunk from "effect/Chunk"
import * as Effect from "effect/Effect"
import * as ExecutionStrategy from "effect/ExecutionStrategy"
import * as Exit from "effect/Exit"
import * as Schedule from "effect/Schedule"
import * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import * as ByteRange from "../ByteRange.js"
import type { RetryPolicy } from "../RetryPolicy.js"
import type { ListOptions, OpenedObject, StorageBackend, StreamOptions } from "../StorageBackend.js"
import * as E from "../StorageError.js"
import { annotate } from "./observability.js"

/**
 * The same effect, tried again after each retryable failure as the policy says. When the policy ends, it fails with the
 * last failure, marked as exhausted.
 *
 * An attempt that failed may have been carried out all the same, its answer lost on the way. A failure that `mayBeOwn`
 * picks out (the object is there already, say) may then come of that, and is not reported as somebody else's doing:
 * from the second attempt on it becomes an exhausted `StorageUnavailable` that says so, caused by the failure before.
 */
export const retry = <A, Err extends E.StorageError, R>(
  effect: Effect.Effect<A, Err, R>,
  policy: RetryPolicy,
  mayBeOwn?: (error: Err) => boolean
): Effect.Effect<A, Err | E.StorageUnavailable, R> =>
  Effect.catchAll(effect, (first) => {
    const budget = makeBudget(policy)
    const again = (error: Err): Effect.Effect<A, Err | E.StorageUnavailable, R> =>
      Effect.zipRight(
        budget.spend(error),
        Effect.catchAll(
          effect,
          (next) => mayBeOwn?.(next) === true ? Effect.fail(inDoubt(error, next, budget.failures() + 1)) : again(next)
        )
      )
    return again(first)
  })

/**
 * Opens an object whose stream, where it breaks, goes on at the byte where it broke: the rest is opened under the etag of
 * the first response, so that every byte arrives once, and all of one version. What broke is closed before the wait.
 *
 * Attempts and waits add up until bytes arrive; then the policy starts anew.
 */
export const openResuming = (
  open: (options: StreamOptions) => Effect.Effect<OpenedObject, E.LoadError, Scope.Scope>,
  options: StreamOptions,
  policy: RetryPolicy
): Effect.Effect<OpenedObject, E.LoadError, Scope.Scope> =>
  Effect.gen(function*() {
    const opening = new Resumable(open, policy, yield* Effect.scope)
    const first = yield* opening.attempt(options)
    const { bytes, info, range, reuse, stream } = first
    if (bytes !== undefined) return first
    // The bytes of the attempts before, and of the current one.
    let current = first
    let before = 0
    const position = () => before + current.position()
    const total = range.endExclusive - range.start

    const goOn = (
      broken: OpenedObject["stream"],
      streamOf: (opened: OpenedObject) => OpenedObject["stream"]
    ): OpenedObject["stream"] =>
      Stream.catchAll(broken, (error) =>
        E.isRetryable(error) && position() >= total
          // Every byte has arrived: only the end broke.
          ? Stream.empty
          : Stream.unwrap(Effect.gen(function*() {
            yield* opening.retry(error, current.position() > 0)
            const at = range.start + position()
            const rest = yield* opening.attempt({
              range: ByteRange.make(at, range.endExclusive),
              ifMatch: info.etag,
              chunkSize: options.chunkSize
            })
            before = position()
            current = rest
            return goOn(streamOf(rest), streamOf)
          })))

    return {
      info,
      range,
      stream: goOn(stream, ({ stream }) => stream),
      reuse: reuse && ((isFree) => goOn(reuse(isFree), (opened) => opened.reuse?.(isFree) ?? opened.stream)),
      position
    }
  })

/** Opens again what broke, each time in a scope of its own within the outer one, so that it can be closed first. */
class Resumable {
  readonly #open: (options: StreamOptions) => Effect.Effect<OpenedObject, E.LoadError, Scope.Scope>
  readonly #outer: Scope.Scope
  readonly #budget: Budget
  #current: Scope.CloseableScope | undefined

  constructor(
    open: (options: StreamOptions) => Effect.Effect<OpenedObject, E.LoadError, Scope.Scope>,
    policy: RetryPolicy,
    outer: Scope.Scope
  ) {
    this.#open = open
    this.#outer = outer
    this.#budget = makeBudget(policy)
  }

  attempt(options: StreamOptions): Effect.Effect<OpenedObject, E.LoadError> {
    return Effect.flatMap(Scope.fork(this.#outer, ExecutionStrategy.sequential), (scope) => {
      this.#current = scope
      return Effect.catchAll(
        Scope.extend(this.#open(options), scope),
        (error) => Effect.zipRight(this.retry(error, false), this.attempt(options))
      )
    })
  }

  /** Closes what failed and waits as the policy says, anew where bytes have arrived; fails where the policy ends. */
  retry(error: E.LoadError, hasProgressed: boolean): Effect.Effect<void, E.LoadError> {
    return Effect.suspend(() => {
      if (hasProgressed) this.#budget.renew()
      const close = this.#current === undefined ? Effect.void : Scope.close(this.#current, Exit.fail(error))
      return Effect.zipRight(close, this.#budget.spend(error))
    })
  }
}

/** A listing that, where it breaks, goes on after the last key that it gave; the policy starts anew with each page. */
export const listResuming = <A>(
  list: (options: ListOptions) => Stream.Stream<A, E.ListError>,
  keyOf: (item: A) => string,
  options: ListOptions,
  policy: RetryPolicy
): Stream.Stream<A, E.ListError> =>
  Stream.suspend(() => {
    const budget = makeBudget(policy)
    let rest = options
    return resuming(list(options), {
      passed: (chunk) => {
        if (Chunk.isEmpty(chunk)) return
        rest = { ...rest, startAfter: keyOf(Chunk.unsafeLast(chunk)) }
        budget.renew()
      },
      missing: () => undefined,
      rest: (error) => Effect.map(budget.spend(error), () => list(rest))
    })
  })

/** Removes a batch, then of what is left the keys whose failure may pass, until there are none or the policy ends. */
export const removeAllRetrying = (
  removeAll: StorageBackend["removeAll"],
  keys: ReadonlyArray<string>,
  policy: RetryPolicy
): ReturnType<StorageBackend["removeAll"]> =>
  Effect.suspend(() => {
    const settled: Array<E.RemoveError> = []
    let passing: ReadonlyArray<E.RemoveError> = []
    let remaining = keys
    const attempt = Effect.suspend(() =>
      Effect.flatMap(removeAll(remaining), (failures) => {
        const [others, again] = Arr.partition(failures, (error) => error.key !== undefined && E.isRetryable(error))
        settled.push(...others)
        passing = again
        remaining = again.flatMap(({ key }) => key === undefined ? [] : [key])
        return again[0] === undefined ? Effect.void : Effect.fail(again[0])
      })
    )
    return Effect.matchEffect(retry(attempt, policy), {
      onSuccess: () => Effect.succeed(settled),
      onFailure: (error) => {
        const attempts = "attempts" in error ? error.attempts : undefined
        // Where other keys of the batch are gone already, the failure is of those that remain, not of the batch.
        return attempts === undefined || passing.length === 0
          ? Effect.fail(error)
          : Effect.succeed([...settled, ...passing.map((error) => E.exhausted(error, attempts))])
      }
    })
  })

/** What a policy still allows. */
interface Budget {
  /** Waits as the policy says, or fails with the failure given, which is exhausted if it was retryable. */
  readonly spend: <Err extends E.StorageError>(error: Err) => Effect.Effect<void, Err>
  /** Starts the policy anew. */
  readonly renew: () => void
  /** How many failures were spent since the policy began. */
  readonly failures: () => number
}

const makeBudget = (policy: RetryPolicy): Budget => {
  let driver: Schedule.ScheduleDriver<unknown, E.StorageError> | undefined
  let failures = 0
  let attempts = 1
  const current = Effect.suspend(() =>
    driver === undefined
      ? Effect.tap(Schedule.driver(policy), (made) => {
        driver = made
      })
      : Effect.succeed(driver)
  )
  return {
    spend: (error) =>
      Effect.suspend(() => {
        if (!E.isRetryable(error)) return Effect.fail(error)
        failures++
        return Effect.flatMap(
          current,
          (driver) => Effect.mapError(driver.next(error), () => E.exhausted(error, failures))
        ).pipe(Effect.zipRight(Effect.suspend(() => annotate("storage.attempts", ++attempts))))
      }),
    renew: () => {
      driver = undefined
      failures = 0
    },
    failures: () => failures
  }
}

/** A stream that notes what has passed, and where it breaks or ends with something missing goes on with the rest. */
const resuming = <A, Err extends E.StorageError>(
  stream: Stream.Stream<A, Err>,
  options: {
    readonly passed: (chunk: Chunk.Chunk<A>) => void
    readonly missing: () => Err | undefined
    readonly rest: (error: Err) => Effect.Effect<Stream.Stream<A, Err>, Err>
  }
): Stream.Stream<A, Err> => {
  const noting: Channel.Channel<Chunk.Chunk<A>, Chunk.Chunk<A>, Err, Err, void, unknown> = Channel.readWithCause({
    onInput: (chunk: Chunk.Chunk<A>) => {
      options.passed(chunk)
      return Channel.zipRight(Channel.write(chunk), noting)
    },
    onFailure: (cause: Cause.Cause<Err>) => Channel.failCause(cause),
    onDone: () => {
      const missing = options.missing()
      return missing === undefined ? Channel.void : Channel.fail(missing)
    }
  })
  const from = (
    stream: Stream.Stream<A, Err>
  ): Channel.Channel<Chunk.Chunk<A>, unknown, Err, unknown, void, unknown> =>
    Stream.toChannel(stream).pipe(
      Channel.pipeTo(noting),
      Channel.catchAll((error) => Channel.unwrap(Effect.map(options.rest(error), from)))
    )
  return Stream.fromChannel(from(stream))
}

const inDoubt = (before: E.StorageError, now: E.StorageError, attempts: number): E.StorageUnavailable =>
  new E.StorageUnavailable({
    backend: before.backend,
    operation: before.operation,
    ...(before.key !== undefined && { key: before.key }),
    reason: `an attempt failed but may have been carried out, since the next met ${now._tag}; look before trying again`,
    cause: before,
    attempts
  })
