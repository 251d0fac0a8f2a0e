/**
 * Writes that arrive twice. A proxy or a client sends a request again when it has seen no response, though it may have been
 * carried out; its precondition does not hold then, because of what it did itself. So a write may carry an id, the same in each
 * repetition, and one that was carried out before gets the response of that time. `HttpStorage` sends such ids.
 *
 * The header is `idempotency-key` (draft-ietf-httpapi-idempotency-key-header-07). Ids are kept in memory, those of the last
 * 10,000 writes, so that a repetition that reaches another process, or this one after a restart, is not recognised.
 */
import * as Cause from "effect/Cause"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as FiberId from "effect/FiberId"
import * as Option from "effect/Option"
import * as Predicate from "effect/Predicate"
import type * as Scope from "effect/Scope"
import * as E from "../../StorageError.js"
import { serverName } from "./responses.js"
import type { Request } from "./server.js"

/** A longer one is refused. */
const maxLength = 255

const maxIds = 10_000

/** Of an id, a key and preconditions together, in characters. */
const maxCommonLength = 8192

/**
 * What the repetitions of a write have in common: its id, object, preconditions and length. `undefined` where it has no id or
 * no precondition, since repeating it then changes nothing; a sentence where the id is malformed.
 */
export const parseWriteId = (
  { headers }: Pick<Request, "headers">,
  key: string
): Either.Either<string | undefined, string> => {
  const id = headers["idempotency-key"]
  if (id === undefined) return Either.right(undefined)
  if (id === "" || id.length > maxLength) {
    return Either.left(`idempotency-key has ${id.length} characters; use 1 to ${maxLength}`)
  }
  const preconditions = [headers["if-match"], headers["if-none-match"], headers["if-unmodified-since"]]
  if (preconditions.every(Predicate.isUndefined)) return Either.right(undefined)
  const common = JSON.stringify([id, key, headers["content-length"], ...preconditions])
  return common.length > maxCommonLength
    ? Either.left("the preconditions are too long for a request with an idempotency-key; use one etag")
    : Either.right(common)
}

/** What a write came to, and whether an earlier request was told that, too. */
export interface Written<A> {
  readonly value: A
  readonly isRepeated: boolean
}

/** Writes with the same id. */
interface Attempts<A> {
  /** How many are under way. */
  active: number
  /** What one that was carried out came to. */
  done: Option.Option<A>
  /** Whether one ended in a way that leaves unknown what it did. */
  isInDoubt: boolean
  /** Done once one was carried out, or none is under way. */
  settled: Deferred.Deferred<void>
}

export class Repetitions<A> {
  readonly #scope: Scope.Scope
  // In the order in which the ids arrived.
  readonly #attempts = new Map<string, Attempts<A>>()

  /** Writes that have lost their clients end with the scope. */
  constructor(scope: Scope.Scope) {
    this.#scope = scope
  }

  /**
   * Runs a write. Where its precondition does not hold, but another one with this id was carried out, it returns what that
   * one did. When it is interrupted, since its client or the proxy is gone, the write goes on unless it `mayStop`: the
   * repetition is often on its way already, and must hear what became of it.
   */
  run<Err extends { readonly _tag: string }, R>(
    id: string | undefined,
    write: Effect.Effect<A, Err, R>,
    mayStop: () => boolean
  ): Effect.Effect<Written<A>, Err | E.StorageUnavailable, R> {
    if (id === undefined) return Effect.map(write, (value) => ({ value, isRepeated: false }))
    return Effect.uninterruptibleMask((restore) =>
      Effect.flatMap(
        Effect.forkIn(restore(this.#attempt(id, write)), this.#scope),
        (fiber) =>
          Effect.onInterrupt(restore(Fiber.join(fiber)), () => mayStop() ? Fiber.interrupt(fiber) : Effect.void)
      )
    )
  }

  #attempt<Err extends { readonly _tag: string }, R>(
    id: string,
    write: Effect.Effect<A, Err, R>
  ): Effect.Effect<Written<A>, Err | E.StorageUnavailable, R> {
    return Effect.uninterruptibleMask((restore) =>
      Effect.suspend(() => {
        const attempts = this.#begin(id)
        return Effect.flatMap(
          Effect.exit(restore(write)),
          (exit): Effect.Effect<Written<A>, Err | E.StorageUnavailable> => {
            this.#end(id, attempts, exit)
            if (Exit.isSuccess(exit)) return Effect.succeed({ value: exit.value, isRepeated: false })
            const failed = Effect.failCause(exit.cause)
            return isUnmet(exit.cause)
              ? Effect.flatMap(restore(Deferred.await(attempts.settled)), () => outcomeOf(attempts, failed))
              : failed
          }
        )
      })
    )
  }

  #begin(id: string): Attempts<A> {
    const found = this.#attempts.get(id)
    const attempts = found ?? { active: 0, done: Option.none<A>(), isInDoubt: false, settled: makeDeferred() }
    if (attempts.active === 0 && Option.isNone(attempts.done)) attempts.settled = makeDeferred()
    attempts.active++
    if (found === undefined) this.#remember(id, attempts)
    return attempts
  }

  #remember(id: string, attempts: Attempts<A>): void {
    this.#attempts.set(id, attempts)
    for (const oldest of this.#attempts.keys()) {
      if (this.#attempts.size <= maxIds) return
      this.#attempts.delete(oldest)
    }
  }

  #end(id: string, attempts: Attempts<A>, exit: Exit.Exit<A, { readonly _tag: string }>): void {
    attempts.active--
    if (Exit.isSuccess(exit)) attempts.done = Option.some(exit.value)
    else attempts.isInDoubt ||= mayBeDone(exit.cause)
    if (Option.isNone(attempts.done) && attempts.active > 0) return
    Deferred.unsafeDone(attempts.settled, Effect.void)
    const isKept = Option.isSome(attempts.done) || attempts.isInDoubt
    if (!isKept && this.#attempts.get(id) === attempts) this.#attempts.delete(id)
  }
}

const makeDeferred = () => Deferred.unsafeMake<void>(FiberId.none)

type Failure = Cause.Cause<{ readonly _tag: string }>

const hasTag = (cause: Failure, ...tags: ReadonlyArray<string>): boolean =>
  Option.exists(Cause.failureOption(cause), ({ _tag }) => tags.includes(_tag))

const isUnmet = (cause: Failure): boolean => hasTag(cause, "ObjectAlreadyExists", "PreconditionFailed")

/** Whether a write that ended so may have been carried out. */
const mayBeDone = (cause: Failure): boolean =>
  Cause.isInterrupted(cause) || hasTag(cause, "StorageUnavailable", "StorageTimeout")

const outcomeOf = <A, Err>(
  { done, isInDoubt }: Attempts<A>,
  failed: Effect.Effect<never, Err>
): Effect.Effect<Written<A>, Err | E.StorageUnavailable> =>
  Option.isSome(done)
    ? Effect.succeed({ value: done.value, isRepeated: true })
    : isInDoubt
    ? Effect.fail(
      new E.StorageUnavailable({
        backend: serverName,
        reason:
          "the precondition does not hold, maybe because an earlier attempt of the same request was carried out, whose " +
          "outcome is unknown; check the object before you try again",
        attempts: 1
      })
    )
    : failed
