/**
 * A multipart upload: it is completed, and the bucket has all of the object, or it is aborted, and the bucket has none of it.
 */
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import type * as Scope from "effect/Scope"
import { retry } from "../../internal/retry.js"
import type { ObjectInfo } from "../../StorageBackend.js"
import * as E from "../../StorageError.js"
import * as Checksums from "./checksums.js"
import { completedEtag } from "./dialect.js"
import type { Request, TextResponse } from "./request.js"
import { type ErrorResponse, failureOf } from "./responses.js"
import type { Saving, Target } from "./target.js"
import * as xml from "./xml.js"

/** A part that the bucket has. */
export interface SentPart {
  readonly number: number
  readonly etag: string
  readonly checksum: string | undefined
}

export class Upload {
  readonly #target: Target
  readonly #saving: Saving
  readonly #id: string
  #isCompleted = false

  private constructor(target: Target, saving: Saving, id: string) {
    this.#target = target
    this.#saving = saving
    this.#id = id
  }

  /** Starts an upload, which is aborted with the scope unless it was completed. */
  static start(target: Target, saving: Saving): Effect.Effect<Upload, E.SaveError, Scope.Scope> {
    const { bucket, checksum, policy } = saving
    const create = bucket.ask({
      method: "POST",
      key: target.key,
      query: { uploads: "" },
      headers: {
        ...bucket.headers.create,
        ...bucket.headers.access,
        ...target.headers,
        ...(checksum !== undefined && {
          "x-amz-checksum-algorithm": checksum.algorithm,
          "x-amz-checksum-type": checksum.type
        }),
        ...target.idHeader
      }
    }).pipe(
      Effect.catchTag("ErrorResponse", (error) => Effect.fail(target.failureOf(error))),
      Effect.flatMap(({ headers, text }) => {
        const id = xml.text(text, "UploadId")
        return id === undefined
          ? Effect.fail(new E.UnexpectedStorageError({ reason: "the server started an upload without an id" }))
          : Effect.succeed({ upload: new Upload(target, saving, id), algorithm: headers["x-amz-checksum-algorithm"] })
      })
    )
    return Effect.flatMap(
      retry(Effect.acquireRelease(create, ({ upload }) => upload.#abortUnlessCompleted), policy),
      ({ algorithm, upload }) => {
        if (checksum !== undefined && algorithm !== checksum.algorithm) {
          const reason = `the server does not support ${checksum.algorithm} checksums; remove the option checksum`
          return Effect.fail(new E.UnsupportedOperation({ reason }))
        }
        bucket.dialect.knowsChecksums = true
        return Effect.succeed(upload)
      }
    )
  }

  /** Sends part `number`, from 1 on. */
  send(number: number, body: Uint8Array): Effect.Effect<SentPart, E.SaveError> {
    const { bucket, checksum } = this.#saving
    const request = askWithChecksum(this.#saving, {
      method: "PUT",
      key: this.#target.key,
      query: this.#query(number),
      headers: bucket.headers.access,
      body
    })
    return Effect.map(this.#retried(request), ({ headers }) => ({
      number,
      etag: headers["etag"] ?? "",
      checksum: checksum && (headers[checksum.header] ?? "")
    }))
  }

  /** Has the server copy part `number` from another object; `headers` say from where. */
  copy(
    number: number,
    headers: Readonly<Record<string, string>>
  ): Effect.Effect<TextResponse, E.CommonError | ErrorResponse> {
    const { bucket } = this.#saving
    return bucket.ask({
      method: "PUT",
      key: this.#target.key,
      query: this.#query(number),
      headers: { ...bucket.headers.access, ...headers }
    })
  }

  #query(number: number): Record<string, string> {
    return { partNumber: String(number), uploadId: this.#id }
  }

  #retried<A>(request: Effect.Effect<A, E.CommonError | ErrorResponse>): Effect.Effect<A, E.SaveError> {
    return retry(
      Effect.catchTag(request, "ErrorResponse", (error) => Effect.fail(this.#target.failureOf(error))),
      this.#saving.policy
    )
  }

  /** Puts the object of `size` bytes in place. */
  complete(parts: ReadonlyArray<SentPart>, size: number): Effect.Effect<ObjectInfo, E.SaveError> {
    const { bucket, checksum, policy } = this.#saving
    const target = this.#target
    const listed = parts.map(({ checksum: sum, etag, number }) =>
      `<Part><PartNumber>${number}</PartNumber><ETag>${xml.escape(etag)}</ETag>` +
      (checksum === undefined || sum === undefined ? "" : `<${checksum.element}>${sum}</${checksum.element}>`) +
      "</Part>"
    )
    const body = Buffer.from(
      `<CompleteMultipartUpload xmlns="${xml.namespace}">${listed.join("")}</CompleteMultipartUpload>`
    )
    const request = Effect.suspend(() =>
      bucket.ask({
        method: "POST",
        key: target.key,
        query: { uploadId: this.#id },
        headers: { ...bucket.headers.access, ...target.conditions, "content-type": "application/xml" },
        body
      })
    )
    const completing = Effect.flatMap(
      target.checkBeforeEnd,
      (done) =>
        done !== undefined ?
          Effect.succeed(done) :
          Effect.map(
            request,
            ({ headers, text }) => target.infoFrom({ ...headers, etag: completedEtag(headers, text) }, size)
          )
    )
    return target.settle(
      completing,
      ({ code, status }) => code === "NoSuchUpload" || status === 412 || status === 404
    ).pipe(
      Effect.tap(() =>
        Effect.sync(() => {
          this.#isCompleted = true
        })
      ),
      // The response does not tell the time.
      Effect.flatMap((info) =>
        Effect.map(Effect.option(retry(target.own, policy)), (found) => Option.getOrUndefined(found) ?? info)
      )
    )
  }

  get #abortUnlessCompleted(): Effect.Effect<void> {
    return Effect.suspend(() => this.#isCompleted ? Effect.void : this.#abort)
  }

  get #abort(): Effect.Effect<void> {
    const { bucket, policy } = this.#saving
    const request = bucket.ask({ method: "DELETE", key: this.#target.key, query: { uploadId: this.#id } })
    return retry(
      Effect.catchTag(
        request,
        "ErrorResponse",
        (error) => error.status === 404 ? Effect.void : Effect.fail(failureOf(error, bucket.name))
      ),
      policy
    ).pipe(
      Effect.interruptible,
      // A caller waits for the end of a save that failed, and not much longer for this.
      Effect.timeout("30 seconds"),
      Effect.catchAllCause((cause) =>
        Effect.logWarning(
          `upload ${this.#id} of ${
            JSON.stringify(this.#target.key)
          } to the bucket ${bucket.name} could not be aborted ` +
            "and takes space; a lifecycle rule with AbortIncompleteMultipartUpload removes such uploads",
          cause
        )
      )
    )
  }
}

/** Sends bytes, with their checksum if there is one. */
export const askWithChecksum = (
  { bucket, checksum }: Saving,
  request: Request & { readonly body: Uint8Array }
): Effect.Effect<TextResponse, E.CommonError | ErrorResponse> =>
  checksum === undefined
    ? bucket.ask(request)
    : Effect.flatMap(Checksums.of(checksum, request.body), (sum) =>
      bucket.ask({ ...request, headers: { ...request.headers, [checksum.header]: sum } }))
