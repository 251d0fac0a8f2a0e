/**
 * An object that is being saved: the preconditions, what is kept with it, and whether it was saved by an attempt whose
 * response was lost.
 */
import * as Effect from "effect/Effect"
import * as crypto from "node:crypto"
import { formatAttributes } from "../../internal/httpHeaders.js"
import { retry } from "../../internal/retry.js"
import type { RetryPolicy } from "../../RetryPolicy.js"
import { type Attributes, checkSave, type ObjectInfo, type SaveOptions } from "../../StorageBackend.js"
import * as E from "../../StorageError.js"
import * as Checksums from "./checksums.js"
import type { Conditions } from "./conditions.js"
import { isUnmet, metadataHeaders, metadataPrefix, saveId, toAttributes } from "./dialect.js"
import type { Getter } from "./get.js"
import type { Bucket } from "./request.js"
import { type ErrorResponse, failureOf, toInfo } from "./responses.js"

/** What all saves share. */
export interface Saving {
  readonly bucket: Bucket
  readonly getter: Getter
  readonly policy: RetryPolicy
  readonly checksum: Checksums.Checksum | undefined
  readonly conditions: Conditions
  /** What is kept with an object unless the save says otherwise. */
  readonly defaults: Attributes
}

/** The headers that keep attributes with an object. */
export const attributeHeaders = ({ defaults }: Saving, attributes: Attributes = {}): Record<string, string> =>
  metadataHeaders(formatAttributes({ ...defaults, ...attributes }, metadataPrefix))

/** Whether an error may come of a save that was carried out. An upload is no more once it was completed. */
const mayBeDone = ({ code, isInDoubt, status }: ErrorResponse): boolean =>
  isInDoubt || status === 412 || (status === 404 && code !== "NoSuchBucket")

export class Target {
  readonly key: string
  /** What is kept with the object. */
  readonly headers: Readonly<Record<string, string>>
  readonly #options: SaveOptions
  readonly #saving: Saving
  readonly #id: string

  /** `id` is that of the save, where others may go on with it. */
  constructor(
    key: string,
    options: SaveOptions,
    headers: Readonly<Record<string, string>>,
    saving: Saving,
    id: string = crypto.randomUUID()
  ) {
    this.#id = id
    this.key = key
    this.headers = headers
    this.#options = options
    this.#saving = saving
  }

  get isConditional(): boolean {
    return this.#options.ifMatch !== undefined || this.#options.ifNoneMatch !== undefined
  }

  /** The header by which the object is recognised. */
  get idHeader(): Record<string, string> {
    return { [saveId]: this.#id }
  }

  /** The preconditions as headers. */
  get conditions(): Record<string, string> {
    const { ifMatch, ifNoneMatch } = this.#options
    return {
      ...(ifNoneMatch !== undefined && { "if-none-match": ifNoneMatch }),
      ...(ifMatch !== undefined && { "if-match": this.#saving.bucket.dialect.ifMatch(ifMatch) })
    }
  }

  /** The object as the response to its save describes it. */
  infoFrom(headers: Readonly<Record<string, string | undefined>>, size: number): ObjectInfo {
    return toInfo(this.key, headers, size, toAttributes(this.headers))
  }

  /** What an error response to the save means. */
  failureOf(error: ErrorResponse): E.SaveError {
    if (error.code === "BadDigest" || error.code === "XAmzContentChecksumMismatch") {
      const reason = `the bytes were damaged on their way to the server (${error.code}); save again`
      return new E.CorruptObject({ problem: "checksum", reason })
    }
    // An object that does not exist has no etag either.
    return error.status === 412 || (this.#options.ifMatch !== undefined && isUnmet(error.status, error.code))
      ? this.#options.ifNoneMatch !== undefined ? new E.ObjectAlreadyExists() : new E.PreconditionFailed()
      : failureOf(error, this.#saving.bucket.name)
  }

  /** Fails where a precondition does not hold before an upload, so that it is not sent in vain. */
  get check(): Effect.Effect<void, E.SaveError> {
    return this.isConditional
      ? Effect.flatMap(retry(this.#existing, this.#saving.policy), (found) => checkSave(found?.info, this.#options))
      : Effect.void
  }

  /**
   * The same before the end of an upload, on each attempt, as Ceph checks no preconditions there. Returns the object where an
   * earlier attempt has saved it.
   */
  get checkBeforeEnd(): Effect.Effect<ObjectInfo | undefined, E.SaveError> {
    return !this.isConditional ? Effect.succeed(undefined) : Effect.flatMap(
      this.#existing,
      (found) =>
        found?.headers[saveId] === this.#id
          ? Effect.succeed(found.info)
          : Effect.as(checkSave(found?.info, this.#options), undefined)
    )
  }

  /** The object, if this save has written it. */
  get own(): Effect.Effect<ObjectInfo | undefined, E.ExistsError> {
    return Effect.map(this.#existing, (found) => found?.headers[saveId] === this.#id ? found.info : undefined)
  }

  get #existing() {
    const { checksum, getter } = this.#saving
    return Effect.catchTag(
      getter.head(this.key, "ask", checksum && { headers: Checksums.mode }),
      "ObjectNotFound",
      () => Effect.succeed(undefined)
    )
  }

  /** Whether the object has the etag of `ifMatch` now. */
  get hasExpectedEtag(): Effect.Effect<boolean, E.ExistsError> {
    return Effect.map(this.#existing, (found) => found !== undefined && found.info.etag === this.#options.ifMatch)
  }

  /**
   * Retries a request that saves the object and that `own` recognises. It may have been carried out before: by an attempt whose
   * response was lost, or because a proxy sent it twice. An error that may come of that is not believed before the object was
   * looked at.
   */
  settle(request: Effect.Effect<ObjectInfo, ErrorResponse | E.SaveError>): Effect.Effect<ObjectInfo, E.SaveError> {
    const attempt = Effect.catchTag(request, "ErrorResponse", (error) => {
      const failure = Effect.fail(this.failureOf(error))
      return mayBeDone(error)
        ? Effect.flatMap(
          // Who may not look has nothing but the error.
          Effect.catchTag(this.own, "AccessDenied", () => failure),
          (info) => info === undefined ? failure : Effect.succeed(info)
        )
        : failure
    })
    return retry(attempt, this.#saving.policy)
  }
}
