/**
 * Removals from a bucket: one object, on a condition or not, or a thousand at once.
 */
import * as Arr from "effect/Array"
import * as Effect from "effect/Effect"
import * as crypto from "node:crypto"
import { withPlace } from "../../internal/errors.js"
import { removeAllRetrying, retry } from "../../internal/retry.js"
import type { RetryPolicy } from "../../RetryPolicy.js"
import type { RemoveOptions } from "../../StorageBackend.js"
import * as E from "../../StorageError.js"
import type { Conditions } from "./conditions.js"
import { isEtag, isUnmet, quoted } from "./dialect.js"
import type { Bucket, Request } from "./request.js"
import { ErrorResponse, failureOf, withoutFull } from "./responses.js"
import * as xml from "./xml.js"

export class Remover {
  readonly #bucket: Bucket
  readonly #policy: RetryPolicy
  readonly #conditions: Conditions

  constructor(bucket: Bucket, policy: RetryPolicy, conditions: Conditions) {
    this.#bucket = bucket
    this.#policy = policy
    this.#conditions = conditions
  }

  remove(key: string, { ifMatch }: RemoveOptions): Effect.Effect<void, E.RemoveError> {
    if (ifMatch === undefined) return retry(this.#removeOne(key), this.#policy)
    // An etag that cannot be sent is the etag of no object.
    if (!isEtag(ifMatch)) return Effect.fail(new E.PreconditionFailed())
    const removing = this.#delete({ key, headers: { "if-match": quoted(ifMatch) } }).pipe(
      Effect.catchTag(
        "ErrorResponse",
        (error) => Effect.fail(isUnmet(error.status, error.code) ? new E.PreconditionFailed() : this.#failureOf(error))
      )
    )
    return Effect.zipRight(
      this.#conditions.requireRemove(key, { ifMatch }),
      retry(removing, this.#policy, ({ _tag }) => _tag === "PreconditionFailed")
    )
  }

  /** The failures of those of at most 1,000 keys that remain. */
  removeAll(keys: ReadonlyArray<string>): Effect.Effect<ReadonlyArray<E.RemoveError>, E.RemoveError> {
    return removeAllRetrying((keys) => this.#removeBatch(keys), keys, this.#policy)
  }

  #removeBatch(keys: ReadonlyArray<string>): Effect.Effect<ReadonlyArray<E.RemoveError>, E.RemoveError> {
    // XML cannot hold some characters that a key may have.
    const [odd, plain] = Arr.partition(keys, xml.canHold)
    const oneByOne = Effect.forEach(
      odd,
      (key) =>
        Effect.match(this.#removeOne(key), { onSuccess: () => [], onFailure: (error) => [withPlace(error, { key })] }),
      { concurrency: 16 }
    )
    return Effect.zipWith(
      oneByOne,
      plain.length === 0 ? Effect.succeed([]) : this.#removeTogether(plain),
      (some, others) => [...some.flat(), ...others]
    )
  }

  #removeOne(key: string): Effect.Effect<void, E.RemoveError> {
    return Effect.catchTag(
      this.#delete({ key }),
      "ErrorResponse",
      (error) =>
        error.status === 404 && error.code !== "NoSuchBucket" ? Effect.void : Effect.fail(this.#failureOf(error))
    )
  }

  #removeTogether(keys: ReadonlyArray<string>): Effect.Effect<ReadonlyArray<E.RemoveError>, E.RemoveError> {
    const objects = Arr.dedupe(keys).map((key) => `<Object><Key>${xml.escape(key)}</Key></Object>`).join("")
    const body = Buffer.from(`<Delete xmlns="${xml.namespace}"><Quiet>true</Quiet>${objects}</Delete>`)
    return this.#bucket.ask({
      method: "POST",
      query: { delete: "" },
      headers: {
        "content-type": "application/xml",
        // S3 requires it for this request alone.
        "content-md5": crypto.createHash("md5").update(body).digest("base64")
      },
      body,
      response: { root: "DeleteResult" }
    }).pipe(
      Effect.map((response) =>
        xml.elements(response.text, "Error").flatMap((element) => {
          const error = ErrorResponse.from(response, element)
          const key = xml.text(element, "Key") ?? ""
          return error.code === "NoSuchKey" ? [] : [withPlace(this.#failureOf(error), { key })]
        })
      ),
      Effect.catchTag("ErrorResponse", (error) => Effect.fail(this.#failureOf(error)))
    )
  }

  #delete(request: Pick<Request, "key" | "headers">): Effect.Effect<void, E.CommonError | ErrorResponse> {
    return Effect.asVoid(this.#bucket.ask({ ...request, method: "DELETE" }))
  }

  #failureOf(error: ErrorResponse): E.CommonError | E.UnsupportedOperation {
    return withoutFull(failureOf(error, this.#bucket.name))
  }
}
