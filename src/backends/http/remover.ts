/**
 * Removes objects, one with each request.
 */
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import { isRemoveError } from "../../internal/errors.js"
import { retry } from "../../internal/retry.js"
import type { RetryPolicy } from "../../RetryPolicy.js"
import type { RemoveOptions } from "../../StorageBackend.js"
import * as E from "../../StorageError.js"
import { ask, makeIdempotencyKey, pathOf, type Peer } from "./request.js"
import { failureOf, only, protocolEtags } from "./responses.js"
import { isPrecondition } from "./saver.js"

export class Remover {
  readonly #peer: Peer
  readonly #policy: RetryPolicy

  constructor(peer: Peer, policy: RetryPolicy) {
    this.#peer = peer
    this.#policy = policy
  }

  remove(key: string, { ifMatch }: RemoveOptions): Effect.Effect<void, E.RemoveError> {
    const tag = ifMatch === undefined ? undefined : protocolEtags.format(ifMatch)
    // What cannot be an entity tag is the etag of no object.
    if (ifMatch !== undefined && tag === undefined) return Effect.fail(new E.PreconditionFailed())
    return Effect.suspend(() => {
      const headers = { ...(tag !== undefined && { "if-match": tag }), ...makeIdempotencyKey({ ifMatch }) }
      return retry(this.#delete(key, headers), this.#policy, isPrecondition)
    })
  }

  #delete(key: string, headers: Readonly<Record<string, string>>): Effect.Effect<void, E.RemoveError> {
    return Effect.flatMap(
      ask(this.#peer, { method: "DELETE", path: pathOf(this.#peer, key), headers }),
      (reply): Either.Either<void, E.RemoveError> => {
        if (reply.status === 204) return Either.void
        const failure = failureOf(reply, { about: "object", isStatic: false })
        return failure._tag === "ObjectNotFound" ? Either.void : Either.left(only(failure, isRemoveError))
      }
    )
  }
}
