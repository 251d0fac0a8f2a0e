/**
 * Saves objects to a bucket: in one request where they fit a part, in a multipart upload otherwise, several parts at once and
 * each retried on its own. Copies are done by the server.
 */
import * as Chunk from "effect/Chunk"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import { createHash } from "node:crypto"
import * as ByteRange from "../../ByteRange.js"
import { unexpected } from "../../internal/errors.js"
import type { Response } from "../../internal/httpCall.js"
import { retry } from "../../internal/retry.js"
import type { CopyOptions, ObjectInfo, ResumableData, SaveData, SaveOptions } from "../../StorageBackend.js"
import * as E from "../../StorageError.js"
import { isEtag, keptHeaders, quoted, toEtag } from "./dialect.js"
import { askWithChecksum, type SentPart, Upload } from "./multipart.js"
import { limits, type Part, PartReader, sizeOfCopiedPart, sizeOfPart, type UploadParts } from "./parts.js"
import { escapeKey } from "./request.js"
import { type ErrorResponse, failureOf, type TextResponse } from "./responses.js"
import { attributeHeaders, type Saving, Target } from "./target.js"
import { findUnfinished, type Unfinished } from "./unfinished.js"
import * as xml from "./xml.js"

export class Saver {
  readonly #saving: Saving
  readonly #parts: UploadParts
  /** A larger object is copied in parts, in bytes. */
  readonly #largestCopy: number

  constructor(saving: Saving, parts: UploadParts, largestCopy = limits.largestCopy) {
    this.#saving = saving
    this.#parts = parts
    this.#largestCopy = largestCopy
  }

  save(key: string, data: SaveData, options: SaveOptions): Effect.Effect<ObjectInfo, E.SaveError> {
    const target = new Target(key, options, attributeHeaders(this.#saving, options.attributes), this.#saving)
    const { ifMatch, ifNoneMatch, size } = options
    // An etag that cannot be sent is the etag of no object, and no object both exists and does not.
    if (ifMatch !== undefined && (ifNoneMatch !== undefined || !isEtag(ifMatch))) {
      return Effect.zipRight(target.check, Effect.fail(new E.PreconditionFailed()))
    }
    const saved = data instanceof Uint8Array ? this.#saveBytes(target, data) : this.#saveStream(target, data, size)
    return target.isConditional ? Effect.zipRight(this.#requireConditions(target, options), saved) : saved
  }

  /**
   * Saves an object by an upload that stays where it is broken off. One that an earlier call has left is completed, as far as its
   * parts have the very bytes that this save would send.
   */
  saveResumable(
    key: string,
    data: ResumableData,
    { attributes }: Pick<SaveOptions, "attributes">
  ): Effect.Effect<ObjectInfo, E.SaveError> {
    const { bucket, checksum } = this.#saving
    const { rest, size, version } = data
    const headers = attributeHeaders(this.#saving, attributes)
    const identity = JSON.stringify([version, size, headers, bucket.headers.create])
    const id = createHash("sha256").update(identity).digest("hex")
    const target = new Target(key, {}, headers, this.#saving, id)
    // An upload with checksums is of a kind that a listing of its parts need not tell.
    const isResumable = checksum === undefined && size > sizeOfPart(this.#parts, 1, size)
    if (!isResumable) return this.#saveStream(target, rest(0), size)
    return Effect.gen(this, function*() {
      const unfinished = yield* findUnfinished(this.#saving, this.#parts, target, data)
      const saved = unfinished === undefined ? undefined : yield* this.#resume(target, unfinished, data)
      return saved ?? (yield* this.#begin(target, data)) ??
        (yield* this.#upload(target, (upload) => this.#sendRest(upload, data, [])))
    })
  }

  /** Completes an unfinished upload; returns nothing where another save had begun it, or has changed it. */
  #resume(target: Target, { id, parts }: Unfinished, data: ResumableData) {
    return this.#uploadRest(
      target,
      Upload.resume(target, this.#saving, id),
      data,
      parts,
      (upload, parts) => upload.completeOwn(parts, data.size)
    )
  }

  /** Uploads an object by an upload that can be resumed; returns nothing where another save has changed it. */
  #begin(target: Target, data: ResumableData) {
    return this.#uploadRest(
      target,
      Upload.start(target, this.#saving, true),
      data,
      [],
      (upload, parts) => upload.complete(parts, data.size)
    )
  }

  /** Sends what is missing and completes the upload. One that is lost may have been completed by another save of the same data. */
  #uploadRest<A>(
    target: Target,
    begin: Effect.Effect<Upload, E.SaveError, Scope.Scope>,
    data: ResumableData,
    kept: ReadonlyArray<SentPart>,
    complete: (upload: Upload, parts: ReadonlyArray<SentPart>) => Effect.Effect<A, E.SaveError>
  ): Effect.Effect<A | ObjectInfo | undefined, E.SaveError> {
    const { policy } = this.#saving
    return Effect.scoped(Effect.gen(this, function*() {
      const upload = yield* begin
      const sent = Effect.flatMap(this.#sendRest(upload, data, kept), ({ parts }) => complete(upload, parts))
      return yield* Effect.catchAll(sent, (error) =>
        upload.isLost
          ? Effect.map(Effect.option(retry(target.own, policy)), Option.getOrUndefined)
          : Effect.fail(error))
    }))
  }

  /** Sends all parts but the first ones, which the bucket has. */
  #sendRest(upload: Upload, { rest, size }: ResumableData, kept: ReadonlyArray<SentPart>) {
    return Effect.scoped(Effect.gen(this, function*() {
      const partSize = sizeOfPart(this.#parts, 1, size)
      const data = rest(Math.min(kept.length * partSize, size))
      const reader = new PartReader(yield* Stream.toPull(data), this.#parts.concurrency + 1, () => partSize)
      const sent = yield* this.#sendAll(upload, reader.rest, kept.length)
      return { parts: [...kept, ...sent.parts], size }
    }))
  }

  #requireConditions(target: Target, options: SaveOptions): Effect.Effect<void, E.SaveError> {
    const { bucket, conditions } = this.#saving
    return conditions.requireSave(target.key, options, (key, headers) =>
      askWithChecksum(this.#saving, {
        method: "PUT",
        key,
        headers: { ...bucket.headers.create, ...bucket.headers.access, ...target.headers, ...headers },
        body: new Uint8Array(0)
      }))
  }

  #saveBytes(target: Target, bytes: Uint8Array): Effect.Effect<ObjectInfo, E.SaveError> {
    if (bytes.byteLength <= this.#parts.partSize) return this.#saveWhole(target, bytes)
    const partSize = sizeOfPart(this.#parts, 1, bytes.byteLength)
    const parts = Stream.map(Stream.range(0, Math.ceil(bytes.byteLength / partSize) - 1), (index) => ({
      bytes: bytes.subarray(index * partSize, (index + 1) * partSize),
      release: Effect.void
    }))
    return this.#upload(target, (upload) => this.#sendAll(upload, parts))
  }

  #saveStream(
    target: Target,
    data: Stream.Stream<Uint8Array>,
    size: number | undefined
  ): Effect.Effect<ObjectInfo, E.SaveError> {
    return Effect.scoped(Effect.gen(this, function*() {
      // One array for each part that is being sent, and one that is being filled.
      const reader = new PartReader(
        yield* Stream.toPull(data),
        this.#parts.concurrency + 1,
        (number) => sizeOfPart(this.#parts, number, size)
      )
      const first = yield* Effect.option(reader.next)
      const second = Option.isNone(first) ? first : yield* Effect.option(reader.next)
      if (Option.isNone(first) || Option.isNone(second)) {
        return yield* this.#saveWhole(target, Option.isSome(first) ? first.value.bytes : new Uint8Array(0))
      }
      const parts = Stream.concat(Stream.make(first.value, second.value), reader.rest)
      return yield* this.#upload(target, (upload) => this.#sendAll(upload, parts))
    }))
  }

  /** Saves in one request. A server that ignores checksums is found out by starting an upload. */
  #saveWhole(target: Target, body: Uint8Array): Effect.Effect<ObjectInfo, E.SaveError> {
    const { bucket, checksum } = this.#saving
    return checksum === undefined || bucket.dialect.knowsChecksums
      ? this.#put(target, body)
      : Effect.zipRight(Effect.scoped(Upload.start(target, this.#saving)), this.#put(target, body))
  }

  #put(target: Target, body: Uint8Array): Effect.Effect<ObjectInfo, E.SaveError> {
    const { bucket } = this.#saving
    const request = Effect.suspend(() =>
      askWithChecksum(this.#saving, {
        method: "PUT",
        key: target.key,
        headers: {
          ...bucket.headers.create,
          ...bucket.headers.access,
          ...target.headers,
          ...target.conditions,
          ...(target.isConditional && target.idHeader)
        },
        body,
        response: { etag: true }
      })
    )
    const saving = Effect.map(
      this.#withBareEtag(target, request),
      ({ headers }) => target.infoFrom(headers, body.byteLength)
    )
    return target.isConditional ? target.settle(saving) : retry(
      Effect.catchTag(saving, "ErrorResponse", (error) => Effect.fail(target.failureOf(error))),
      this.#saving.policy
    )
  }

  /** Sends a request again where the server refuses an etag that the object has, now without its quotes. */
  #withBareEtag(
    target: Target,
    request: Effect.Effect<TextResponse, E.CommonError | ErrorResponse>
  ): Effect.Effect<TextResponse, E.SaveError | ErrorResponse> {
    const { dialect } = this.#saving.bucket
    if (target.conditions["if-match"] === undefined) return request
    return Effect.suspend(() =>
      dialect.bareEtags !== undefined ? request : Effect.matchEffect(request, {
        onSuccess: (response) => {
          dialect.bareEtags = false
          return Effect.succeed(response)
        },
        onFailure: (error) => {
          if (error._tag !== "ErrorResponse" || error.status !== 412) return Effect.fail(error)
          return Effect.flatMap(target.hasExpectedEtag, (hasExpectedEtag) => {
            if (!hasExpectedEtag) return Effect.fail(error)
            dialect.bareEtags = true
            return request
          })
        }
      })
    )
  }

  /** A multipart upload whose parts are sent by `send`. */
  #upload<Err>(
    target: Target,
    send: (upload: Upload) => Effect.Effect<{ readonly parts: ReadonlyArray<SentPart>; readonly size: number }, Err>
  ): Effect.Effect<ObjectInfo, E.SaveError | Err> {
    return Effect.scoped(Effect.gen(this, function*() {
      yield* target.check
      const upload = yield* Upload.start(target, this.#saving)
      const { parts, size } = yield* send(upload)
      return yield* upload.complete(parts, size)
    }))
  }

  /** Sends parts that come after the first `before` ones. */
  #sendAll(upload: Upload, parts: Stream.Stream<Part>, before = 0) {
    let size = 0
    return parts.pipe(
      Stream.zipWithIndex,
      Stream.mapEffect(([{ bytes, release }, index]) => {
        size += bytes.byteLength
        return index < limits.parts
          ? Effect.ensuring(upload.send(before + index + 1, bytes), release)
          : Effect.fail(
            new E.StorageFull({
              reason: `the stream does not fit in ${limits.parts} parts of ${this.#parts.partSize} bytes; ` +
                "give its size, or a larger partSize"
            })
          )
      }, { concurrency: this.#parts.concurrency }),
      Stream.runCollect,
      Effect.map((sent) => ({ parts: Chunk.toReadonlyArray(sent), size }))
    )
  }

  /** Copies an object within the bucket, whose bytes do not pass through this process. */
  copy(
    source: { readonly info: ObjectInfo; readonly headers: Response["headers"] },
    key: string,
    { attributes }: Pick<CopyOptions, "attributes">
  ): Effect.Effect<ObjectInfo, E.CopyError> {
    const replaced = attributes && attributeHeaders(this.#saving, attributes)
    return source.info.size <= this.#largestCopy
      ? this.#copyWhole(source.info, key, replaced)
      : this.#copyInParts(source.info, new Target(key, {}, replaced ?? keptHeaders(source.headers), this.#saving))
  }

  #copyWhole(
    source: ObjectInfo,
    key: string,
    replaced: Readonly<Record<string, string>> | undefined
  ): Effect.Effect<ObjectInfo, E.CopyError> {
    const { bucket, getter, policy } = this.#saving
    const copied = this.#copying(
      bucket.ask({
        method: "PUT",
        key,
        headers: {
          ...bucket.headers.create,
          ...bucket.headers.access,
          ...this.#from(source),
          ...(replaced !== undefined && { ...replaced, "x-amz-metadata-directive": "REPLACE" })
        },
        response: { root: "CopyObjectResult", etag: true }
      }),
      ({ text }): ObjectInfo => ({
        key,
        size: source.size,
        lastModified: new Date(xml.text(text, "LastModified") ?? Date.now()),
        etag: toEtag(xml.text(text, "ETag") ?? "")
      })
    )
    // Ceph copies the source as it is by then, so the size of the copy is requested.
    return Effect.flatMap(copied, (info) =>
      Effect.map(
        Effect.option(retry(getter.head(key), policy)),
        (found) => Option.isSome(found) && found.value.info.etag === info.etag ? found.value.info : info
      ))
  }

  /** Fails unless there is such a copy, as its source is removed next. */
  confirm({ etag, key, size }: ObjectInfo): Effect.Effect<void, E.CommonError> {
    const { getter, policy } = this.#saving
    return retry(getter.head(key), policy).pipe(
      Effect.filterOrFail(({ info }) => info.etag === etag && info.size === size, notThere),
      Effect.catchTags({ ObjectNotFound: () => Effect.fail(notThere()), InvalidKey: unexpected })
    )
  }

  #copyInParts(source: ObjectInfo, target: Target): Effect.Effect<ObjectInfo, E.CopyError> {
    const { checksum, getter, policy } = this.#saving
    const { etag, key, size } = source
    const partSize = sizeOfCopiedPart(size)
    const numbers = Array.from({ length: Math.ceil(size / partSize) }, (_, index) => index + 1)
    const copyPart = (upload: Upload, number: number) => {
      const range = ByteRange.make((number - 1) * partSize, Math.min(number * partSize, size))
      return this.#copying(
        upload.copy(number, { ...this.#from(source), "x-amz-copy-source-range": ByteRange.toHttp(range) }),
        ({ text }): SentPart => ({
          number,
          etag: xml.text(text, "ETag") ?? "",
          checksum: checksum && xml.text(text, checksum.element)
        })
      )
    }
    // Ceph does not hold the parts to the etag.
    const unchanged = Effect.filterOrFail(
      retry(getter.head(key), policy),
      ({ info }) => info.etag === etag,
      () => new E.PreconditionFailed()
    )
    return this.#upload(target, (upload) =>
      Effect.zipLeft(
        Effect.map(
          Effect.forEach(numbers, (number) => copyPart(upload, number), { concurrency: this.#parts.concurrency }),
          (parts) => ({ parts, size })
        ),
        unchanged
      ))
  }

  /** The headers that name the source of a copy. */
  #from({ etag, key }: ObjectInfo): Record<string, string> {
    const { bucket } = this.#saving
    return {
      "x-amz-copy-source": escapeKey(`${bucket.name}/${key}`),
      "x-amz-copy-source-if-match": quoted(etag),
      ...bucket.headers.copySource
    }
  }

  #copying<A>(
    request: Effect.Effect<TextResponse, E.CommonError | ErrorResponse>,
    read: (response: TextResponse) => A
  ): Effect.Effect<A, E.CopyError> {
    const { bucket, policy } = this.#saving
    return retry(
      Effect.mapBoth(request, {
        onSuccess: read,
        onFailure: (error) =>
          error._tag !== "ErrorResponse"
            ? error
            : error.status === 412
            ? new E.PreconditionFailed()
            : error.code === "NoSuchKey"
            ? new E.ObjectNotFound()
            : failureOf(error, bucket.name)
      }),
      policy
    )
  }
}

const notThere = () =>
  new E.UnexpectedStorageError({
    reason: "the server has reported a copy, but there is another object or none under the new key; the source was kept"
  })
