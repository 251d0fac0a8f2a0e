/**
 * The storages of a failover, and which of them an operation uses.
 */
import * as Arr from "effect/Array"
import * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type { StorageBackend } from "../../StorageBackend.js"
import type { StorageError } from "../../StorageError.js"
import { Breaker } from "./breaker.js"

export interface Member {
  readonly backend: StorageBackend
  readonly breaker: Breaker
}

/** Those that an operation may use, the primary first. */
export type Candidates = Arr.NonEmptyReadonlyArray<Member>

export interface Policy {
  readonly shouldFailover: (error: StorageError) => boolean
  readonly failureThreshold: number
  /** In milliseconds. */
  readonly openDuration: number
}

export class Members {
  readonly name: string
  readonly all: Candidates
  readonly primary: Member
  readonly backups: ReadonlyArray<Member>
  readonly #policy: Policy

  constructor(name: string, backends: Arr.NonEmptyReadonlyArray<StorageBackend>, policy: Policy) {
    this.name = name
    this.all = Arr.map(backends, (backend) => ({ backend, breaker: new Breaker(policy) }))
    const [primary, ...backups] = this.all
    this.primary = primary
    this.backups = backups
    this.#policy = policy
  }

  /** The primary, and the backups that have a capability. */
  withCapability(capability: "list" | "presign"): Candidates {
    return [this.primary, ...this.backups.filter(({ backend }) => backend.capabilities[capability])]
  }

  /** Never for a mistake of the caller's. */
  shouldFailover(error: StorageError): boolean {
    return error._tag !== "InvalidKey" && error._tag !== "InvalidRange" && this.#policy.shouldFailover(error)
  }

  /** Whether a read fails over to the next storage: also from a backup that does not support it. */
  shouldFailoverRead(error: StorageError, member: Member): boolean {
    return this.shouldFailover(error) || (member !== this.primary && error._tag === "UnsupportedOperation")
  }

  /** The failure to report when all storages were tried: that of the primary, if it has failed. */
  preferPrimaryError<Err>(member: Member, error: Err, before: Err | undefined): Err {
    return before === undefined || member === this.primary ? error : before
  }

  /**
   * Attempts one storage after the other until one does not fail with a failure that `canMoveOn`: those with a closed or
   * half-open breaker first, then the others.
   */
  inOrder<A, Err, R>(
    candidates: Candidates,
    attempt: (member: Member) => Effect.Effect<A, Err, R>,
    canMoveOn: (error: Err, member: Member) => boolean,
    before?: Err
  ): Effect.Effect<A, Err, R> {
    return Effect.suspend(() => {
      const orNext = (member: Member, error: Err): Effect.Effect<A, Err, R> => {
        if (!canMoveOn(error, member)) return Effect.fail(error)
        const failure = this.preferPrimaryError(member, error, before)
        const rest = candidates.filter((other) => other !== member)
        return Arr.isNonEmptyReadonlyArray(rest)
          ? this.inOrder(rest, attempt, canMoveOn, failure)
          : Effect.fail(failure)
      }
      const [first] = candidates
      if (first.breaker.isClosed) return Effect.catchAll(attempt(first), (error) => orNext(first, error))
      return Effect.acquireUseRelease(
        Effect.map(Clock.currentTimeMillis, (now) => choose(candidates, now)),
        ({ member }) => Effect.mapError(attempt(member), (error) => ({ member, error })),
        ({ isTrial, member }) => Effect.sync(() => isTrial && member.breaker.endTrial())
      ).pipe(Effect.catchAll(({ error, member }) => orNext(member, error)))
    })
  }

  /** A read on the first of the candidates that answers. */
  read<A, Err extends StorageError, R>(
    run: (backend: StorageBackend) => Effect.Effect<A, Err, R>,
    candidates = this.all
  ): Effect.Effect<A, Err, R> {
    return this.inOrder(
      candidates,
      (member) => this.recorded(member, run(member.backend)),
      (error, member) => this.shouldFailoverRead(error, member)
    )
  }

  /** The same effect, whose outcome is recorded. */
  recorded<A, Err extends StorageError, R>(
    member: Member,
    effect: Effect.Effect<A, Err, R>
  ): Effect.Effect<A, Err, R> {
    return Effect.matchEffect(effect, {
      onSuccess: (value) =>
        member.breaker.failures === 0 ? Effect.succeed(value) : Effect.as(this.recordSuccess(member), value),
      onFailure: (error) => Effect.zipRight(this.recordFailure(member, error), Effect.fail(error))
    })
  }

  /** A URL may be made without a request to the store, so a success is not recorded. */
  presigned<Err extends StorageError>(
    member: Member,
    presigning: Effect.Effect<string, Err>
  ): Effect.Effect<string, Err> {
    return Effect.tapError(presigning, (error) => this.recordFailure(member, error))
  }

  recordSuccess(member: Member): Effect.Effect<void> {
    return Effect.suspend(() =>
      member.breaker.recordSuccess()
        ? Effect.logInfo(`${this.name}: ${member.backend.name} is used again`)
        : Effect.void
    )
  }

  /** A failure about an object, or one that does not cause a failover, shows that the storage is up. */
  recordFailure(member: Member, error: StorageError): Effect.Effect<void> {
    return isAboutObject(error) || !this.shouldFailover(error)
      ? this.recordSuccess(member)
      : Effect.flatMap(
        Clock.currentTimeMillis,
        (now) => member.breaker.recordFailure(now) ? this.#logOpened(member, error) : Effect.void
      )
  }

  #logOpened({ backend, breaker }: Member, { message }: StorageError): Effect.Effect<void> {
    const other = this.all.find(({ breaker }) => breaker.isClosed)
    const instead = other === undefined ? "there is no other" : `${other.backend.name} is used instead`
    return Effect.logWarning(
      `${this.name}: ${backend.name} failed ${breaker.failures} times in a row and is not used for ` +
        `${Duration.format(this.#policy.openDuration)}; ${instead}. The last failure: ${message}`
    )
  }
}

/** The first that is closed or half-open, or else the first. */
const choose = (candidates: Candidates, now: number): { readonly member: Member; readonly isTrial: boolean } => {
  for (const member of candidates) {
    if (member.breaker.isClosed) return { member, isTrial: false }
    if (member.breaker.tryHalfOpen(now)) return { member, isTrial: true }
  }
  return { member: candidates[0], isTrial: false }
}

const isAboutObject = (error: StorageError): boolean =>
  error._tag === "ObjectNotFound" || error._tag === "ObjectAlreadyExists" || error._tag === "PreconditionFailed" ||
  error._tag === "ObjectNotModified"
