/**
 * A multipart upload: it is completed, and the bucket has all of the object, or it is aborted, and the bucket has none of it. One
 * that others can resume is left as it is where it was broken off.
 */
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Option from "effect/Option"
import type * as Scope from "effect/Scope"
import { retry } from "../../internal/retry.js"
import type { ObjectInfo } from "../../StorageBackend.js"
import * as E from "../../StorageError.js"
import * as Checksums from "./checksums.js"
import { completedEtag } from "./dialect.js"
import type { Request } from "./request.js"
import { type ErrorResponse, failureOf, type TextResponse } from "./responses.js"
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
  readonly #isResumable: boolean
  #hasParts = false
  #isCompleted = false
  #isLost = false

  private constructor(target: Target, saving: Saving, id: string, isResumable: boolean) {
    this.#target = target
    this.#saving = saving
    this.#id = id
    this.#isResumable = isResumable
  }

  /** Uses an upload that was begun before. */
  static resume(target: Target, saving: Saving, id: string): Effect.Effect<Upload, never, Scope.Scope> {
    return Effect.acquireRelease(
      Effect.sync(() => {
        const upload = new Upload(target, saving, id, true)
        upload.#hasParts = true
        return upload
      }),
      (upload, exit) => upload.#end(exit)
    )
  }

  /** Starts an upload, which is aborted with the scope unless it was completed, or broken off and can be resumed. */
  static start(
    target: Target,
    saving: Saving,
    isResumable = false
  ): Effect.Effect<Upload, E.SaveError, Scope.Scope> {
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
      },
      response: { element: "UploadId" }
    }).pipe(
      Effect.catchTag("ErrorResponse", (error) => Effect.fail(target.failureOf(error))),
      Effect.map(({ headers, text }) => ({
        upload: new Upload(target, saving, xml.text(text, "UploadId") ?? "", isResumable),
        algorithm: headers["x-amz-checksum-algorithm"]
      }))
    )
    return Effect.flatMap(
      retry(Effect.acquireRelease(create, ({ upload }, exit) => upload.#end(exit)), policy),
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
      body,
      response: { etag: true }
    })
    return Effect.map(this.#retried(request), ({ headers }) => {
      this.#hasParts = true
      return {
        number,
        etag: headers["etag"] ?? "",
        checksum: checksum && (headers[checksum.header] ?? "")
      }
    })
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
      headers: { ...bucket.headers.access, ...headers },
      response: { root: "CopyPartResult", etag: true }
    })
  }

  #query(number: number): Record<string, string> {
    return { partNumber: String(number), uploadId: this.#id }
  }

  #retried<A>(request: Effect.Effect<A, E.CommonError | ErrorResponse>): Effect.Effect<A, E.SaveError> {
    return retry(
      Effect.catchTag(this.#noticing(request), "ErrorResponse", (error) => Effect.fail(this.#target.failureOf(error))),
      this.#saving.policy
    )
  }

  /** Whether another save has completed, aborted or changed the upload. */
  get isLost(): boolean {
    return this.#isLost
  }

  #noticing<A>(
    request: Effect.Effect<A, E.CommonError | ErrorResponse>
  ): Effect.Effect<A, E.CommonError | ErrorResponse> {
    return Effect.tapErrorTag(request, "ErrorResponse", ({ code }) =>
      Effect.sync(() => {
        if (code === "NoSuchUpload" || code === "InvalidPart") this.#isLost = true
      }))
  }

  /** Puts the object of `size` bytes in place. */
  complete(parts: ReadonlyArray<SentPart>, size: number): Effect.Effect<ObjectInfo, E.SaveError> {
    return Effect.map(this.#complete(parts, size), ({ found, info }) => found ?? info)
  }

  /** The same for an upload that was begun before; returns nothing where it was begun by another save. */
  completeOwn(parts: ReadonlyArray<SentPart>, size: number): Effect.Effect<ObjectInfo | undefined, E.SaveError> {
    return Effect.map(this.#complete(parts, size), ({ found }) => found)
  }

  /** `found` is the object, if it can be looked at and this save has written it. */
  #complete(parts: ReadonlyArray<SentPart>, size: number) {
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
    const request = this.#noticing(Effect.suspend(() =>
      bucket.ask({
        method: "POST",
        key: target.key,
        query: { uploadId: this.#id },
        headers: { ...bucket.headers.access, ...target.conditions, "content-type": "application/xml" },
        body,
        response: { root: "CompleteMultipartUploadResult" }
      })
    ))
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
    return target.settle(completing).pipe(
      Effect.tap(() =>
        Effect.sync(() => {
          this.#isCompleted = true
        })
      ),
      // The response does not tell the time.
      Effect.flatMap((info) =>
        Effect.map(Effect.option(retry(target.own, policy)), (found) => ({ info, found: Option.getOrUndefined(found) }))
      )
    )
  }

  #end(exit: Exit.Exit<unknown, unknown>): Effect.Effect<void> {
    // One that is lost is in use by another save.
    const isLeft = this.#isResumable && (this.#isLost || (this.#hasParts && isBrokenOff(exit)))
    return this.#isCompleted || isLeft ? Effect.void : this.#abort
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

/** Whether a save ended by what may not happen again. Where its source fails, it is interrupted, too. */
const isBrokenOff = (exit: Exit.Exit<unknown, unknown>): boolean =>
  Exit.isFailure(exit) &&
  (Cause.isInterrupted(exit.cause) || Option.exists(Cause.failureOption(exit.cause), (error) =>
    error instanceof E.StorageUnavailable || error instanceof E.StorageTimeout))

/** Sends bytes, with their checksum if there is one. */
export const askWithChecksum = (
  { bucket, checksum }: Saving,
  request: Request & { readonly body: Uint8Array }
): Effect.Effect<TextResponse, E.CommonError | ErrorResponse> =>
  checksum === undefined
    ? bucket.ask(request)
    : Effect.flatMap(Checksums.of(checksum, request.body), (sum) =>
      bucket.ask({ ...request, headers: { ...request.headers, [checksum.header]: sum } }))
