/**
 * Saves objects to a bucket: in one request where they fit a part, in a multipart upload otherwise, several parts at once and
 * each retried on its own. Copies are done by the server.
 */
import * as Chunk from "effect/Chunk"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Stream from "effect/Stream"
import * as ByteRange from "../../ByteRange.js"
import type { Response } from "../../internal/httpCall.js"
import { retry } from "../../internal/retry.js"
import type { CopyOptions, ObjectInfo, SaveData, SaveOptions } from "../../StorageBackend.js"
import * as E from "../../StorageError.js"
import { isEtag, keptHeaders, quoted, toEtag } from "./dialect.js"
import { askWithChecksum, type SentPart, Upload } from "./multipart.js"
import { limits, type Part, PartReader, sizeOfCopiedPart, sizeOfPart, type UploadParts } from "./parts.js"
import { escapeKey, type TextResponse } from "./request.js"
import { type ErrorResponse, failureOf } from "./responses.js"
import { attributeHeaders, type Saving, Target } from "./target.js"
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
    return data instanceof Uint8Array ? this.#saveBytes(target, data) : this.#saveStream(target, data, size)
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
        body
      })
    )
    return target.settle(
      Effect.map(this.#withBareEtag(target, request), ({ headers }) => target.infoFrom(headers, body.byteLength)),
      ({ status }) => target.isConditional && (status === 412 || status === 404)
    )
  }

  /** Sends a request again where the server refuses an etag that the object has, now without its quotes. */
  #withBareEtag(
    target: Target,
    request: Effect.Effect<TextResponse, E.CommonError | ErrorResponse>
  ): Effect.Effect<TextResponse, E.SaveError | ErrorResponse> {
    const { dialect } = this.#saving.bucket
    return Effect.suspend(() => {
      const wasBare = dialect.bareEtags
      return Effect.catchTag(request, "ErrorResponse", (error) => {
        if (wasBare || error.status !== 412 || target.conditions["if-match"] === undefined) return Effect.fail(error)
        return Effect.flatMap(target.hasExpectedEtag, (hasExpectedEtag) => {
          if (!hasExpectedEtag) return Effect.fail(error)
          dialect.bareEtags = true
          return request
        })
      })
    })
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

  #sendAll(upload: Upload, parts: Stream.Stream<Part>) {
    let size = 0
    return parts.pipe(
      Stream.zipWithIndex,
      Stream.mapEffect(([{ bytes, release }, index]) => {
        size += bytes.byteLength
        return index < limits.parts
          ? Effect.ensuring(upload.send(index + 1, bytes), release)
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
        }
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
