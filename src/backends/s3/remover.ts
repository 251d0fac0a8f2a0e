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
import { isEtag, isUnmet, quoted } from "./dialect.js"
import type { Bucket, Request } from "./request.js"
import { ErrorResponse, failureOf, withoutFull } from "./responses.js"
import * as xml from "./xml.js"

export class Remover {
  readonly #bucket: Bucket
  readonly #policy: RetryPolicy
  /** The folder of the storage, with a slash at its end, or the empty string. */
  readonly #folder: string

  constructor(bucket: Bucket, policy: RetryPolicy, folder: string) {
    this.#bucket = bucket
    this.#policy = policy
    this.#folder = folder
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
    return Effect.flatMap(
      this.#honoursConditions,
      (honoursConditions) =>
        honoursConditions
          ? retry(removing, this.#policy, ({ _tag }) => _tag === "PreconditionFailed")
          : Effect.fail(
            new E.UnsupportedOperation({
              reason: "this server ignores If-Match on a removal, so ifMatch is not supported"
            })
          )
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
      body
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

  /**
   * Whether the server honours `If-Match` on a removal, found out once by the removal of an object that does not exist: that is
   * an error with the condition, and none without it. A server to which a missing object is an error anyway does not show
   * it, and is not trusted.
   */
  readonly #honoursConditions: Effect.Effect<boolean, E.RemoveError> = Effect.suspend(() => {
    const { dialect } = this.#bucket
    if (dialect.honoursConditionalRemove !== undefined) return Effect.succeed(dialect.honoursConditionalRemove)
    const key = `${this.#folder}.surfing-weights-${crypto.randomUUID()}`
    const statusOf = (headers: Request["headers"] = {}) =>
      retry(
        Effect.as(this.#delete({ key, headers }), 204).pipe(
          Effect.catchTag("ErrorResponse", (error) =>
            isUnmet(error.status, error.code) ? Effect.succeed(error.status) : Effect.fail(this.#failureOf(error)))
        ),
        this.#policy
      )
    return Effect.flatMap(
      statusOf({ "if-match": quoted("none") }),
      (status) => status === 404 ? Effect.map(statusOf(), (status) => status === 204) : Effect.succeed(status === 412)
    ).pipe(
      Effect.tap((honours) =>
        Effect.sync(() => {
          dialect.honoursConditionalRemove = honours
        })
      )
    )
  })
}
