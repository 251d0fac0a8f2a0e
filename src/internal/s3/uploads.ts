/**
 * How an object comes into a bucket: in one request where it fits a part, in parts beyond that, several on their way at
 * once and each tried again on its own. A multipart upload is completed, or it is aborted.
 */
import * as Chunk from "effect/Chunk"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Stream from "effect/Stream"
import * as crypto from "node:crypto"
import * as ByteRange from "../../ByteRange.js"
import type { RetryPolicy } from "../../RetryPolicy.js"
import { checkSave, type ObjectInfo, type SaveOptions, type StorageBackend } from "../../StorageBackend.js"
import * as E from "../../StorageError.js"
import { retry } from "../retry.js"
import { isEtag, type Refusal, toEtag, toFailure, toInfo } from "./answers.js"
import type { Checksum } from "./checksums.js"
import * as Checksums from "./checksums.js"
import { escapeKey, type Place, type Request } from "./exchange.js"
import { namespace, type Refused, type Requests, saveId } from "./requests.js"
import * as xml from "./xml.js"

/** How uploads are cut. */
export interface Cut {
  /** In bytes. */
  readonly partSize: number
  /** Whether all parts but the last must be of one size. */
  readonly uniformParts: boolean
  /** How many parts are on their way at once. */
  readonly concurrency: number
  /** What is larger is copied in parts, in bytes. */
  readonly largestCopy: number
}

const MiB = 1024 * 1024
const GiB = 1024 * MiB

/** What S3 allows: https://docs.aws.amazon.com/AmazonS3/latest/userguide/qfacts.html */
export const limits = {
  parts: 10_000,
  smallestPart: 5 * MiB,
  // S3 takes 5 GiB, an array here does not.
  largestPart: 2 * GiB,
  largestCopy: 5 * GiB
}

/** How much the server copies on one request, where it copies in parts: it has to answer before the idle limit. */
const copyPartSize = 512 * MiB

/** The size of part `number`, from 1 on, of an object whose size may be known. */
export const sizeOfPart = ({ partSize, uniformParts }: Cut, number: number, size = NaN): number => {
  const isKnown = Number.isSafeInteger(size)
  const least = isKnown && size > limits.parts * partSize ? Math.ceil(size / limits.parts / MiB) * MiB : 0
  // Of a stream that may go on for ever, so many parts are twice as large as those before.
  const growth = isKnown || uniformParts ? 1 : 2 ** Math.floor((number - 1) / 900)
  return Math.min(Math.max(partSize, least) * growth, limits.largestPart)
}

/** A part of an upload that is in the bucket. */
interface Part {
  readonly number: number
  readonly etag: string
  readonly checksum?: string
}

export const make = (requests: Requests, policy: RetryPolicy, cut: Cut, checksum?: Checksum) => {
  const { ask, at, backend, connection, head, headers } = requests

  /** The object that is to be put in place. */
  interface Target {
    readonly operation: string
    readonly key: string
    readonly options: SaveOptions
    /** What the object is known by, so that a save whose answer got lost is not taken for somebody else's. */
    readonly id: string
  }

  const makeTarget = (operation: string, key: string, options: SaveOptions): Target => ({
    operation,
    key,
    options,
    id: crypto.randomUUID()
  })

  const isConditional = ({ options }: Target) => options.ifMatch !== undefined || options.ifNoneMatch !== undefined

  const conditions = ({ options }: Target) => ({
    ...(options.ifNoneMatch !== undefined && { "if-none-match": options.ifNoneMatch }),
    ...(options.ifMatch !== undefined && {
      "if-match": connection.bareEtags ? options.ifMatch : `"${options.ifMatch}"`
    })
  })

  /** What a refusal of a save means. A missing object cannot have the etag that `ifMatch` names. */
  const notSaved = ({ key, operation, options }: Target, refusal: Refusal): E.SaveError => {
    const context = { backend, operation, key }
    if (refusal.code === "BadDigest" || refusal.code === "XAmzContentChecksumMismatch") {
      const reason = `the bytes that arrived are not those that were sent (${refusal.code}); save again`
      return new E.CorruptObject({ ...context, problem: "checksum", reason })
    }
    const missing = refusal.status === 404 && refusal.code !== "NoSuchBucket" && refusal.code !== "NoSuchUpload"
    return refusal.status === 412 || (missing && options.ifMatch !== undefined)
      ? options.ifNoneMatch !== undefined ? new E.ObjectAlreadyExists(context) : new E.PreconditionFailed(context)
      : toFailure(at(operation, key), refusal)
  }

  /** The object, if it is the one that this save wrote. */
  const own = ({ id, key, operation }: Target) =>
    head(operation, key, ask, checksum && { headers: Checksums.mode }).pipe(
      Effect.map((found) => found.headers[saveId] === id ? found.info : undefined),
      Effect.catchTag("ObjectNotFound", () => Effect.succeed(undefined))
    )

  /**
   * A request that puts an object in place, until it has an answer. An earlier try may have been carried out, its answer
   * lost: what is refused then is looked at before it is believed.
   */
  const settle = (
    target: Target,
    request: Effect.Effect<ObjectInfo, Refused | E.SaveError>,
    mayBeDone: (refusal: Refusal) => boolean
  ): Effect.Effect<ObjectInfo, E.SaveError> => {
    let tries = 0
    return retry(
      Effect.suspend(() => {
        tries++
        return Effect.catchTag(request, "Refused", ({ refusal }) => {
          const failure = Effect.fail(notSaved(target, refusal))
          return tries > 1 && mayBeDone(refusal)
            ? Effect.flatMap(own(target), (info) => info === undefined ? failure : Effect.succeed(info))
            : failure
        })
      }),
      policy
    )
  }

  /** Sends bytes, with their checksum if there is to be one. */
  const askChecked = (place: Place, request: Request & { readonly body: Uint8Array }) =>
    checksum === undefined ?
      ask(place, request) :
      Effect.flatMap(Checksums.of(checksum, request.body), (sum) =>
        ask(place, { ...request, headers: { ...request.headers, [checksum.header]: sum } }))

  const put = (target: Target, body: Uint8Array): Effect.Effect<ObjectInfo, E.SaveError> => {
    const { key, operation, options } = target
    const request = Effect.suspend(() =>
      askChecked(at(operation, key), {
        method: "PUT",
        key,
        headers: {
          ...headers.create,
          ...headers.access,
          ...conditions(target),
          ...(isConditional(target) && { [saveId]: target.id })
        },
        body
      })
    ).pipe(Effect.map((reply) => toInfo(key, reply.headers, body.byteLength)))
    // Ceph compares with the quotes, and so finds that no etag matches.
    const withBareEtag = Effect.suspend(() => {
      const wasBare = connection.bareEtags
      return Effect.catchIf(
        request,
        (error) => error._tag === "Refused" && error.refusal.status === 412 && options.ifMatch !== undefined,
        (error) =>
          Effect.flatMap(head(operation, key), ({ info }) => {
            if (wasBare || info.etag !== options.ifMatch) return Effect.fail(error)
            connection.bareEtags = true
            return request
          }).pipe(Effect.catchTag("ObjectNotFound", () => Effect.fail(error)))
      )
    })
    return settle(
      target,
      withBareEtag,
      ({ status }) => isConditional(target) && (status === 412 || status === 404)
    )
  }

  /** What there is now under the key of a conditional save. */
  const existing = ({ key, operation }: Target) =>
    Effect.catchTag(head(operation, key), "ObjectNotFound", () => Effect.succeed(undefined))

  const holds = ({ key, operation, options }: Target, existing: ObjectInfo | undefined) =>
    checkSave(key, existing, options, { backend, operation })

  /** Fails where a condition does not hold before an upload, so that it is not in vain. */
  const check = (target: Target): Effect.Effect<void, E.SaveError> =>
    isConditional(target)
      ? Effect.flatMap(retry(existing(target), policy), (found) => holds(target, found?.info))
      : Effect.void

  /**
   * The same before its end, on each try, since some servers do not look at conditions there. Gives the object where an
   * earlier try has made it.
   */
  const checkBeforeEnd = (target: Target): Effect.Effect<ObjectInfo | undefined, E.SaveError> =>
    !isConditional(target) ?
      Effect.succeed(undefined) :
      Effect.flatMap(existing(target), (found) =>
        found?.headers[saveId] === target.id
          ? Effect.succeed(found.info)
          : Effect.as(holds(target, found?.info), undefined))

  // A server that knows no checksums ignores them, and is found out when an upload is begun.
  let confirmed = checksum === undefined

  /** Begins an upload, which is aborted with the scope unless it was completed. */
  const begin = (target: Target, contentType?: string) => {
    const { key, operation } = target
    let completed = false
    const create = ask(at(operation, key), {
      method: "POST",
      key,
      query: { uploads: "" },
      headers: {
        ...headers.create,
        ...headers.access,
        ...(contentType !== undefined && { "content-type": contentType }),
        ...(checksum !== undefined && {
          "x-amz-checksum-algorithm": checksum.algorithm,
          "x-amz-checksum-type": checksum.type
        }),
        [saveId]: target.id
      }
    }).pipe(
      Effect.catchTag("Refused", ({ refusal }) => Effect.fail(notSaved(target, refusal))),
      Effect.flatMap(({ body, headers }) => {
        const uploadId = xml.text(body, "UploadId")
        return uploadId === undefined
          ? Effect.fail(new E.UnexpectedStorageError({ backend, operation, key, reason: "the server named no upload" }))
          : Effect.succeed({ uploadId, algorithm: headers["x-amz-checksum-algorithm"] })
      })
    )
    return Effect.flatMap(
      retry(
        Effect.acquireRelease(create, ({ uploadId }) => completed ? Effect.void : abort(target, uploadId)),
        policy
      ),
      ({ algorithm, uploadId }) => {
        if (checksum !== undefined && algorithm !== checksum.algorithm) {
          const reason = `the server knows no ${checksum.algorithm} checksums; leave the option checksum out`
          return Effect.fail(new E.UnsupportedOperation({ backend, operation, key, reason }))
        }
        confirmed = true
        return Effect.succeed({
          uploadId,
          completed: () => {
            completed = true
          }
        })
      }
    )
  }

  const abort = ({ key, operation }: Target, uploadId: string): Effect.Effect<void> => {
    const place = at(operation, key)
    return retry(
      ask(place, { method: "DELETE", key, query: { uploadId } }).pipe(
        Effect.catchTag(
          "Refused",
          ({ refusal }) => refusal.status === 404 ? Effect.void : Effect.fail(toFailure(place, refusal))
        )
      ),
      policy
    ).pipe(
      Effect.interruptible,
      // Whoever waits for the end of a save that failed does not wait much longer for this.
      Effect.timeout("30 seconds"),
      Effect.catchAllCause((cause) =>
        Effect.logWarning(
          `upload ${uploadId} of ${
            JSON.stringify(key)
          } to ${backend} could not be aborted and takes room until it is; ` +
            "a lifecycle rule with AbortIncompleteMultipartUpload removes such uploads",
          cause
        )
      )
    )
  }

  const uploadPart = (target: Target, uploadId: string, number: number, body: Uint8Array) => {
    const place = at(target.operation, target.key)
    const request = askChecked(place, {
      method: "PUT",
      key: target.key,
      query: { partNumber: String(number), uploadId },
      headers: headers.access,
      body
    })
    return retry(
      Effect.catchTag(request, "Refused", ({ refusal }) => Effect.fail(notSaved(target, refusal))),
      policy
    ).pipe(Effect.map(({ headers }): Part => ({
      number,
      etag: headers["etag"] ?? "",
      ...(checksum !== undefined && { checksum: headers[checksum.header] ?? "" })
    })))
  }

  const complete = (
    target: Target,
    upload: { readonly uploadId: string; readonly completed: () => void },
    parts: ReadonlyArray<Part>,
    size: number
  ): Effect.Effect<ObjectInfo, E.SaveError> => {
    const { key, operation } = target
    const listed = parts.map(({ checksum: sum, etag, number }) =>
      `<Part><PartNumber>${number}</PartNumber><ETag>${xml.escape(etag)}</ETag>` +
      (checksum === undefined || sum === undefined ? "" : `<${checksum.element}>${sum}</${checksum.element}>`) +
      "</Part>"
    )
    const request = ask(at(operation, key), {
      method: "POST",
      key,
      query: { uploadId: upload.uploadId },
      headers: { ...headers.access, ...conditions(target), "content-type": "application/xml" },
      body: Buffer.from(
        `<CompleteMultipartUpload xmlns="${namespace}">${listed.join("")}</CompleteMultipartUpload>`
      )
    })
    return settle(
      target,
      Effect.flatMap(checkBeforeEnd(target), (done) =>
        done !== undefined ? Effect.succeed(done) : Effect.map(
          request,
          ({ body, headers }) =>
            toInfo(key, { ...headers, etag: xml.text(body, "ETag") ?? headers["etag"] ?? "" }, size)
        )),
      ({ code, status }) => code === "NoSuchUpload" || status === 412 || status === 404
    ).pipe(
      Effect.tap(() => Effect.sync(upload.completed)),
      // Neither the time nor, from Ceph, the etag stands in the answer.
      Effect.flatMap((info) =>
        Effect.map(Effect.option(retry(own(target), policy)), (found) => Option.getOrUndefined(found) ?? info)
      )
    )
  }

  /** An upload in parts: `send` puts each in the bucket. The bucket has all of it, or nothing. */
  const multipart = <Err, R>(
    target: Target,
    send: (uploadId: string) => Effect.Effect<{ readonly parts: ReadonlyArray<Part>; readonly size: number }, Err, R>,
    contentType?: string
  ): Effect.Effect<ObjectInfo, E.SaveError | Err, R> =>
    Effect.scoped(Effect.gen(function*() {
      yield* check(target)
      const upload = yield* begin(target, contentType)
      const { parts, size } = yield* send(upload.uploadId)
      return yield* complete(target, upload, parts, size)
    }))

  const tooManyParts = ({ key, operation }: Target) =>
    new E.StorageFull({
      backend,
      operation,
      key,
      reason:
        `the stream does not fit in ${limits.parts} parts of ${cut.partSize} bytes; give its size, or a larger partSize`
    })

  /** Puts each of the bodies in the bucket as a part; each is given back when nobody reads it any more. */
  const sendAll = <Body extends Uint8Array, Err, R>(
    target: Target,
    uploadId: string,
    bodies: Stream.Stream<Body, Err, R>,
    giveBack: (body: Body) => Effect.Effect<void>
  ) => {
    let size = 0
    return bodies.pipe(
      Stream.zipWithIndex,
      Stream.mapEffect(([body, index]) => {
        size += body.byteLength
        return index < limits.parts
          ? Effect.ensuring(uploadPart(target, uploadId, index + 1, body), giveBack(body))
          : Effect.fail(tooManyParts(target))
      }, { concurrency: cut.concurrency }),
      Stream.runCollect,
      Effect.map((parts) => ({ parts: Chunk.toReadonlyArray(parts), size }))
    )
  }

  const save: StorageBackend["save"] = (key, data, options) => {
    const target = makeTarget("save", key, options)
    const { ifMatch, ifNoneMatch } = options
    // What cannot stand in a header is the etag of no object, and no object is there and not there.
    return ifMatch !== undefined && (ifNoneMatch !== undefined || !isEtag(ifMatch))
      ? Effect.zipRight(check(target), Effect.fail(new E.PreconditionFailed({ backend, operation: "save", key })))
      : data instanceof Uint8Array
      ? saveBytes(target, data)
      : saveStream(target, data)
  }

  /** What fits a part goes in one request. */
  const saveWhole = (target: Target, body: Uint8Array): Effect.Effect<ObjectInfo, E.SaveError> =>
    confirmed ? put(target, body) : Effect.zipRight(Effect.scoped(begin(target)), put(target, body))

  const saveBytes = (target: Target, bytes: Uint8Array): Effect.Effect<ObjectInfo, E.SaveError> => {
    if (bytes.byteLength <= cut.partSize) return saveWhole(target, bytes)
    const partSize = sizeOfPart(cut, 1, bytes.byteLength)
    return multipart(target, (uploadId) =>
      sendAll(
        target,
        uploadId,
        Stream.map(Stream.range(0, Math.ceil(bytes.byteLength / partSize) - 1), (index) =>
          bytes.subarray(index * partSize, (index + 1) * partSize)),
        () =>
          Effect.void
      ))
  }

  const saveStream = <Err, R>(
    target: Target,
    data: Stream.Stream<Uint8Array, Err, R>
  ): Effect.Effect<ObjectInfo, E.SaveError | Err, R> =>
    Effect.scoped(Effect.gen(function*() {
      // One buffer for each part that is on its way, and one that is being filled.
      const buffers = makeBuffers(cut.concurrency + 1)
      const next = inParts(
        yield* Stream.toPull(data),
        buffers.take,
        (number) => sizeOfPart(cut, number, target.options.size)
      )
      const first = yield* next
      const second = first === undefined ? undefined : yield* next
      if (first === undefined || second === undefined) return yield* saveWhole(target, first ?? new Uint8Array(0))
      const rest = Stream.repeatEffectOption(
        Effect.flatMap(Effect.mapError(next, Option.some), (part) =>
          part === undefined ? Effect.fail(Option.none()) : Effect.succeed(part))
      )
      const bodies = Stream.concat(Stream.make(first, second), rest)
      return yield* multipart(target, (uploadId) =>
        sendAll(target, uploadId, bodies, buffers.give))
    }))

  /** Copies an object within the bucket, without its bytes coming here. */
  const copy = (
    operation: string,
    source: { readonly info: ObjectInfo; readonly headers: Readonly<Record<string, string>> },
    key: string
  ): Effect.Effect<ObjectInfo, E.CopyError> => {
    const target = makeTarget(operation, key, {})
    const { etag, size } = source.info
    const from = {
      "x-amz-copy-source": escapeKey(`${requests.bucket}/${source.info.key}`),
      "x-amz-copy-source-if-match": `"${etag}"`,
      ...headers.copySource
    }
    const place = at(operation, source.info.key)
    const checksumIn = (body: string) => {
      const sum = checksum && xml.text(body, checksum.element)
      return sum === undefined ? {} : { checksum: sum }
    }
    const ask = <A>(request: Request, read: (body: string) => A): Effect.Effect<A, E.CopyError> =>
      retry(
        Effect.mapBoth(requests.ask(place, request), {
          onSuccess: ({ body }) => read(body),
          onFailure: (error) =>
            error._tag !== "Refused"
              ? error
              : error.refusal.status === 412
              ? new E.PreconditionFailed({ backend, operation, key: source.info.key })
              : error.refusal.code === "NoSuchKey"
              ? new E.ObjectNotFound({ backend, operation, key: source.info.key })
              : toFailure(place, error.refusal)
        }),
        policy
      )
    if (size <= cut.largestCopy) {
      const copied = ask(
        { method: "PUT", key, headers: { ...headers.create, ...headers.access, ...from } },
        (body): ObjectInfo => ({
          key,
          size,
          lastModified: new Date(xml.text(body, "LastModified") ?? Date.now()),
          etag: toEtag(xml.text(body, "ETag") ?? "")
        })
      )
      // Ceph takes the source as it is by then, so the copy is asked how large it is.
      return Effect.flatMap(
        copied,
        (info) =>
          Effect.map(
            Effect.option(retry(head(operation, key), policy)),
            (found) => Option.isSome(found) && found.value.info.etag === info.etag ? found.value.info : info
          )
      )
    }
    const partSize = Math.max(copyPartSize, Math.ceil(size / limits.parts / MiB) * MiB)
    return multipart(target, (uploadId) =>
      Effect.map(
        Effect.forEach(Array.from({ length: Math.ceil(size / partSize) }, (_, index) => index), (index) =>
          ask(
            {
              method: "PUT",
              key,
              query: { partNumber: String(index + 1), uploadId },
              headers: {
                ...headers.access,
                ...from,
                "x-amz-copy-source-range": ByteRange.toHttp(
                  ByteRange.make(index * partSize, Math.min((index + 1) * partSize, size))
                )
              }
            },
            (body): Part => ({ number: index + 1, etag: xml.text(body, "ETag") ?? "", ...checksumIn(body) })
          ), { concurrency: cut.concurrency }),
        (parts) => ({ parts, size })
      ).pipe(
        // Ceph does not hold the parts to the etag.
        Effect.zipLeft(
          Effect.filterOrFail(
            retry(head(operation, source.info.key), policy),
            ({ info }) => info.etag === etag,
            () => new E.PreconditionFailed({ backend, operation, key: source.info.key })
          )
        )
      ), source.headers["content-type"])
  }

  return { save, copy }
}

/** Buffers to fill and to send, each used again and again; `take` waits until one is free. */
const makeBuffers = (count: number) => {
  const permits = Effect.unsafeMakeSemaphore(count)
  const free: Array<ArrayBuffer> = []
  return {
    take: Effect.map(permits.take(1), () => free.pop() ?? new ArrayBuffer(0)),
    give: (body: Uint8Array<ArrayBuffer>) =>
      Effect.suspend(() => {
        free.push(body.buffer)
        return Effect.asVoid(permits.release(1))
      })
  }
}

/** The next part of what `pull` gives, in a buffer from `take`; `undefined` once there are none. */
const inParts = <Err, R>(
  pull: Effect.Effect<Chunk.Chunk<Uint8Array>, Option.Option<Err>, R>,
  take: Effect.Effect<ArrayBuffer>,
  sizeOf: (number: number) => number
): Effect.Effect<Uint8Array<ArrayBuffer> | undefined, Err, R> => {
  let number = 0
  let over = false
  let left: Array<Uint8Array> = []

  const more = Effect.matchEffect(pull, {
    onSuccess: (chunk) =>
      Effect.sync(() => {
        left = Chunk.toArray(chunk).reverse()
      }),
    onFailure: Option.match({
      onNone: () =>
        Effect.sync(() => {
          over = true
        }),
      onSome: Effect.fail
    })
  })

  return Effect.gen(function*() {
    if (over) return undefined
    const size = sizeOf(++number)
    let part = new Uint8Array(yield* take)
    let at = 0
    while (at < size) {
      const bytes = left.pop()
      if (bytes === undefined) {
        yield* more
        if (over) break
        continue
      }
      const taken = bytes.subarray(0, size - at)
      if (at + taken.byteLength > part.byteLength) {
        // Small objects are many: no more room is made than they need, twice over.
        const larger = new Uint8Array(Math.min(size, Math.max(2 * part.byteLength, at + taken.byteLength)))
        larger.set(part.subarray(0, at))
        part = larger
      }
      part.set(taken, at)
      at += taken.byteLength
      if (taken.byteLength < bytes.byteLength) left.push(bytes.subarray(taken.byteLength))
    }
    return at === 0 ? undefined : part.subarray(0, at)
  })
}
