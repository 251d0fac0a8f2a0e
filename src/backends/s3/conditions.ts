/**
 * Which preconditions of writes the server honours. A server that does not know one ignores it, and overwrites or removes what
 * it should have protected; so the first write with a precondition finds out, before anything is written.
 *
 * How: a write of an object that does not exist on the condition that it has a certain etag. A server that honours that
 * refuses, and nothing has changed. One that ignores it creates an empty object, which is removed again at once. The key of
 * the object begins with the key that is to be written, so that a policy that allows one allows the other. Where it is
 * forbidden all the same, a save goes on: servers with such policies honour its preconditions.
 */
import * as Effect from "effect/Effect"
import * as crypto from "node:crypto"
import { Permits } from "../../internal/permits.js"
import { retry } from "../../internal/retry.js"
import * as ObjectKey from "../../ObjectKey.js"
import type { RetryPolicy } from "../../RetryPolicy.js"
import type { Capabilities, RemoveOptions, SaveOptions } from "../../StorageBackend.js"
import * as E from "../../StorageError.js"
import { isUnmet, quoted } from "./dialect.js"
import type { Bucket, Request } from "./request.js"
import { type ErrorResponse, failureOf, isForbidden, onlyCommon } from "./responses.js"

type Sending = Effect.Effect<unknown, E.CommonError | ErrorResponse>

/** What became of a write: done, not done because of its precondition or as there is no object, forbidden, or refused. */
type Outcome = "done" | "unmet" | "missing" | "forbidden" | "refused"

export class Conditions {
  readonly #bucket: Bucket
  readonly #policy: RetryPolicy
  // One write finds out, the others wait for it.
  readonly #one = new Permits(1)
  #saves: Pick<Capabilities, "createOnly" | "compareAndSwap"> | undefined
  #removals: Pick<Capabilities, "conditionalRemove"> | undefined

  constructor(bucket: Bucket, policy: RetryPolicy) {
    this.#bucket = bucket
    this.#policy = policy
  }

  /** What was found out so far; what was not is assumed. */
  get capabilities(): Pick<Capabilities, "createOnly" | "compareAndSwap" | "conditionalRemove"> {
    return { createOnly: true, compareAndSwap: true, conditionalRemove: true, ...this.#saves, ...this.#removals }
  }

  /** Fails unless the server honours the preconditions of a save. `saveEmpty` saves an empty object as this one is saved. */
  requireSave(
    key: string,
    { ifMatch, ifNoneMatch }: SaveOptions,
    saveEmpty: (key: string, headers: Request["headers"]) => Sending
  ): Effect.Effect<void, E.SaveError> {
    const find = Effect.suspend(() => this.#saves ? Effect.succeed(this.#saves) : this.#trySaves(key, saveEmpty))
    return Effect.flatMap(
      this.#saves ? Effect.succeed(this.#saves) : this.#one.withPermit(find),
      ({ compareAndSwap, createOnly }) =>
        ifNoneMatch !== undefined && !createOnly
          ? unsupported("If-None-Match on a save, so ifNoneMatch")
          : ifMatch !== undefined && !compareAndSwap
          ? unsupported("If-Match on a save, so ifMatch")
          : Effect.void
    )
  }

  /** Fails unless the server honours the precondition of a removal. */
  requireRemove(key: string, { ifMatch }: RemoveOptions): Effect.Effect<void, E.RemoveError> {
    if (ifMatch === undefined) return Effect.void
    const find = Effect.suspend(() => this.#removals ? Effect.succeed(this.#removals) : this.#tryRemovals(key))
    return Effect.flatMap(
      this.#removals ? Effect.succeed(this.#removals) : this.#one.withPermit(find),
      ({ conditionalRemove }) => conditionalRemove ? Effect.void : unsupported("If-Match on a removal, so ifMatch")
    )
  }

  #trySaves(key: string, saveEmpty: (key: string, headers: Request["headers"]) => Sending) {
    const unused = unusedKey(key)
    let isCreated = false
    const save = (headers: Request["headers"]) =>
      Effect.map(this.#outcomeOf(saveEmpty(unused, headers)), (outcome) => {
        isCreated ||= outcome === "done"
        return outcome
      })
    const saves = Effect.gen(function*() {
      const replacing = yield* save({ "if-match": quoted(noEtag) })
      // No server honours this one alone, or has policies and honours neither.
      if (replacing !== "done" && replacing !== "refused") return { compareAndSwap: true, createOnly: true }
      const compareAndSwap = replacing !== "done"
      const creating = yield* save({ "if-none-match": "*" })
      return { compareAndSwap, createOnly: creating !== "done" || (yield* save({ "if-none-match": "*" })) !== "done" }
    })
    return saves.pipe(
      Effect.ensuring(Effect.suspend(() => isCreated ? this.#clean(unused) : Effect.void)),
      Effect.tap((found) =>
        Effect.sync(() => {
          this.#saves = found
        })
      )
    )
  }

  /**
   * A server to which a missing object is an error anyway does not show whether it honours the precondition, and is not
   * trusted.
   */
  #tryRemovals(key: string) {
    const unused = unusedKey(key)
    const remove = (headers: Request["headers"] = {}) =>
      this.#outcomeOf(this.#bucket.ask({ method: "DELETE", key: unused, headers }), false)
    return Effect.gen(this, function*() {
      const conditional = yield* remove({ "if-match": quoted(noEtag) })
      const conditionalRemove = conditional === "missing" ? (yield* remove()) === "done" : conditional !== "done"
      this.#removals = { conditionalRemove }
      return this.#removals
    })
  }

  #outcomeOf(sending: Sending, mayBeForbidden = true): Effect.Effect<Outcome, E.CommonError> {
    const outcome = Effect.matchEffect(sending, {
      onSuccess: () => Effect.succeed<Outcome>("done"),
      onFailure: (error): Effect.Effect<Outcome, E.CommonError> => {
        if (error._tag !== "ErrorResponse") return Effect.fail(error)
        if (isUnmet(error.status, error.code)) return Effect.succeed(error.status === 412 ? "unmet" : "missing")
        const failure = onlyCommon(failureOf(error, this.#bucket.name))
        // What the server has against this write it has against the real one, too.
        if (mayBeForbidden && isForbidden(error)) return Effect.succeed("forbidden")
        const isRefused = failure._tag === "UnexpectedStorageError" && !error.isInDoubt
        return isRefused ? Effect.succeed("refused") : Effect.fail(failure)
      }
    })
    return retry(outcome, this.#policy)
  }

  #clean(key: string): Effect.Effect<void> {
    return this.#outcomeOf(this.#bucket.ask({ method: "DELETE", key })).pipe(
      Effect.filterOrFail((outcome) => outcome === "done" || outcome === "missing"),
      Effect.interruptible,
      Effect.timeout("30 seconds"),
      Effect.catchAllCause((cause) =>
        Effect.logWarning(
          `the empty object ${JSON.stringify(key)} in the bucket ${this.#bucket.name} could not be removed; ` +
            "it was created to find out whether the server honours preconditions",
          cause
        )
      )
    )
  }
}

/** Looks like an etag of S3, and is that of no object. */
const noEtag = "0".repeat(32)

/** The key of no object, which begins like another one. */
const unusedKey = (key: string): string => {
  const name = `.surfing-weights-${crypto.randomUUID()}`
  const isLong = ObjectKey.byteLength(key + name) > ObjectKey.maxBytes
  // A gateway to a file system takes segments of at most 255 bytes.
  return isLong || ObjectKey.byteLength(key.slice(key.lastIndexOf("/") + 1)) > 200
    ? unusedIn(key.slice(0, key.lastIndexOf("/") + 1), name)
    : key + name
}

const unusedIn = (folder: string, name: string): string =>
  ObjectKey.byteLength(folder + name) <= ObjectKey.maxBytes
    ? folder + name
    : unusedIn(folder.slice(0, folder.lastIndexOf("/", folder.length - 2) + 1), name)

const unsupported = (what: string): Effect.Effect<never, E.UnsupportedOperation> =>
  Effect.fail(new E.UnsupportedOperation({ reason: `this server ignores ${what} is not supported` }))
