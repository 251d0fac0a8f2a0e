/**
 * The reads of a failover: objects, whose streams resume on another storage, and listings.
 */
import * as Arr from "effect/Array"
import * as Effect from "effect/Effect"
import * as ExecutionStrategy from "effect/ExecutionStrategy"
import * as Exit from "effect/Exit"
import * as Option from "effect/Option"
import * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import type { ByteRange } from "../../ByteRange.js"
import { sameContent } from "../../internal/content.js"
import { resuming } from "../../internal/resume.js"
import type { OpenedObject, StorageBackend, StreamOptions } from "../../StorageBackend.js"
import { mapStream } from "../../StorageBackend.js"
import type { ListError, LoadError, StorageError } from "../../StorageError.js"
import type { Candidates, Member, Members } from "./members.js"

/** What was opened on a storage, in a child scope, so that it can be closed before the next is opened. */
interface Opened<A> {
  readonly member: Member
  readonly scope: Scope.CloseableScope
  readonly value: A
}

/** Opens an object on the first storage that answers. Its stream resumes on another storage that has the same object. */
export const openOn = (members: Members): StorageBackend["open"] => (key, options) =>
  Effect.flatMap(Effect.scope, (outer) =>
    Effect.map(
      members.inOrder(
        members.all,
        (member) => openObject(members, member, outer, key, options),
        (error, member) => members.shouldFailoverRead(error, member)
      ),
      (first) => new Reading(members, outer, key, options, first).opened()
    ))

/** A listing of the first storage whose first page arrives; later pages come from the same. */
export const listOn = <A>(
  members: Members,
  candidates: Candidates,
  list: (backend: StorageBackend) => Stream.Stream<A, ListError>
): Stream.Stream<A, ListError> =>
  Stream.unwrapScopedWith((outer) =>
    Effect.map(
      members.inOrder(
        candidates,
        (member) => open(members, member, outer, withFirstPage(list(member.backend))),
        (error, member) => members.shouldFailoverRead(error, member)
      ),
      ({ member, value }) => recordedStream(members, member, value)
    )
  )

/** An object that is read on one storage after the other. */
class Reading {
  readonly #members: Members
  readonly #outer: Scope.Scope
  readonly #key: string
  readonly #options: StreamOptions
  #current: Opened<OpenedObject>
  #left: ReadonlyArray<Member>
  #failure: LoadError | undefined

  constructor(
    members: Members,
    outer: Scope.Scope,
    key: string,
    { bypassCache, chunkSize }: StreamOptions,
    first: Opened<OpenedObject>
  ) {
    this.#members = members
    this.#outer = outer
    this.#key = key
    this.#options = { bypassCache, chunkSize }
    this.#current = first
    this.#left = members.all
  }

  opened(): OpenedObject {
    const { info } = this.#current.value
    return resuming(this.#recorded(), {
      // Bytes of an object that is corrupt may be wrong themselves, unless it is only truncated.
      canResume: (error) =>
        this.#members.shouldFailover(error) && (error._tag !== "CorruptObject" || error.problem === "truncated"),
      openRest: (range, error) => {
        const { member, scope } = this.#current
        const failure = this.#members.preferPrimaryError(member, error, this.#failure)
        const left = this.#left.filter((other) => other !== member)
        this.#failure = failure
        this.#left = left
        const next = Arr.isNonEmptyReadonlyArray(left) && sameContent(info, info) === true
          ? this.#openSame(left, range, info, failure)
          // An object without a checksum is not provably the same even as itself.
          : Effect.fail(failure)
        return Effect.zipRight(Scope.close(scope, Exit.fail(error)), next)
      }
    })
  }

  /** Opens the rest on another storage, if the object is provably the same there. */
  #openSame(
    left: Candidates,
    range: ByteRange,
    info: OpenedObject["info"],
    failure: LoadError
  ): Effect.Effect<OpenedObject, LoadError> {
    const attempt = (member: Member) =>
      Effect.filterOrElse(
        openObject(this.#members, member, this.#outer, this.#key, { ...this.#options, range }),
        ({ value }) => sameContent(info, value.info) === true,
        ({ scope }) => Effect.zipRight(Scope.close(scope, Exit.void), Effect.fail(failure))
      )
    return Effect.matchEffect(this.#members.inOrder(left, attempt, () => true), {
      onFailure: () => Effect.fail(failure),
      onSuccess: (opened) => {
        this.#current = opened
        return Effect.succeed(this.#recorded())
      }
    })
  }

  /** What is opened now, with its end recorded. */
  #recorded(): OpenedObject {
    const { member, value } = this.#current
    return value.bytes !== undefined
      ? value
      : mapStream(value, (stream) => recordedStream(this.#members, member, stream))
  }
}

const openObject = (members: Members, member: Member, outer: Scope.Scope, key: string, options: StreamOptions) =>
  open(members, member, outer, member.backend.open(key, options), ({ bytes }) => bytes !== undefined)

/**
 * Opens in a child scope. Since a storage may open an object and then break off, opening is recorded as a success only where
 * nothing remains to be read, or where the breaker was open.
 */
const open = <A, Err extends StorageError>(
  members: Members,
  member: Member,
  outer: Scope.Scope,
  opening: Effect.Effect<A, Err, Scope.Scope>,
  isAll: (value: A) => boolean = () => false
): Effect.Effect<Opened<A>, Err> =>
  Effect.flatMap(
    Scope.fork(outer, ExecutionStrategy.sequential),
    (scope) =>
      Effect.matchEffect(Scope.extend(opening, scope), {
        onSuccess: (value) => {
          const isSuccess = !member.breaker.isClosed || isAll(value)
          return Effect.as(isSuccess ? members.recordSuccess(member) : Effect.void, { member, scope, value })
        },
        onFailure: (error) =>
          Scope.close(scope, Exit.fail(error)).pipe(
            Effect.zipRight(members.recordFailure(member, error)),
            Effect.zipRight(Effect.fail(error))
          )
      })
  )

const recordedStream = <A, Err extends StorageError>(
  members: Members,
  member: Member,
  stream: Stream.Stream<A, Err>
): Stream.Stream<A, Err> =>
  stream.pipe(
    Stream.tapError((error) => members.recordFailure(member, error)),
    Stream.concat(Stream.execute(members.recordSuccess(member)))
  )

/** The same listing, whose first page has arrived. */
const withFirstPage = <A>(
  listing: Stream.Stream<A, ListError>
): Effect.Effect<Stream.Stream<A, ListError>, ListError, Scope.Scope> =>
  Effect.flatMap(Stream.toPull(listing), (pull) =>
    Effect.matchEffect(pull, {
      onSuccess: (page) => Effect.succeed(Stream.concat(Stream.fromChunk(page), Stream.repeatEffectChunkOption(pull))),
      onFailure: Option.match({ onNone: () => Effect.succeed(Stream.empty), onSome: Effect.fail })
    }))
