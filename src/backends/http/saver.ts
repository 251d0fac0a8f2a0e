/**
 * Saves objects with one `PUT` each. Bytes are sent again as the retry policy says; a stream is sent once, since what was
 * read of it cannot be read again.
 */
import * as Chunk from "effect/Chunk"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import * as Stream from "effect/Stream"
import { intoArray } from "../../internal/bytes.js"
import { isSaveError } from "../../internal/errors.js"
import { formatRequestAttributes, ObjectInfo } from "../../internal/protocol.js"
import { retry } from "../../internal/retry.js"
import type { RetryPolicy } from "../../RetryPolicy.js"
import * as StorageBackend from "../../StorageBackend.js"
import * as E from "../../StorageError.js"
import type { Reader } from "./reader.js"
import { ask, makeIdempotencyKey, pathOf, type Peer, type Reply } from "./request.js"
import { failureOf, notUnderstood, only, protocolEtags } from "./responses.js"
import { isBrowser, type Upload, uploadOf, uploadOfStream } from "./transport.js"

export class Saver {
  readonly #peer: Peer
  readonly #policy: RetryPolicy
  readonly #reader: Reader

  constructor(peer: Peer, policy: RetryPolicy, reader: Reader) {
    this.#peer = peer
    this.#policy = policy
    this.#reader = reader
  }

  save(
    key: string,
    data: StorageBackend.SaveData,
    options: StorageBackend.SaveOptions
  ): Effect.Effect<StorageBackend.ObjectInfo, E.SaveError> {
    // What cannot be an entity tag is the etag of no object.
    if (options.ifMatch !== undefined && protocolEtags.format(options.ifMatch) === undefined) {
      return Effect.fail(new E.PreconditionFailed())
    }
    if (data instanceof Uint8Array) return this.#saveBytes(key, data, options)
    return Effect.zipRight(
      this.#refuseEarly(key, options),
      isBrowser
        ? Effect.flatMap(gather(data), (bytes) => this.#saveBytes(key, bytes, options))
        : Effect.scoped(
          Effect.flatMap(
            uploadOfStream(data, options.size, noContentType),
            (upload) => this.#put(key, options, upload, makeIdempotencyKey(options))
          )
        )
    )
  }

  #saveBytes(
    key: string,
    bytes: Uint8Array,
    options: StorageBackend.SaveOptions
  ): Effect.Effect<StorageBackend.ObjectInfo, E.SaveError> {
    return Effect.suspend(() => {
      const id = makeIdempotencyKey(options)
      return retry(
        Effect.suspend(() => this.#put(key, options, uploadOf(bytes, noContentType), id)),
        this.#policy,
        isPrecondition
      )
    })
  }

  /** Checks the preconditions before the source runs: a server may respond only once it has received everything. */
  #refuseEarly(key: string, options: StorageBackend.SaveOptions): Effect.Effect<void, E.SaveError> {
    if (options.ifNoneMatch === undefined && options.ifMatch === undefined) return Effect.void
    const existing = Effect.catchTag(this.#reader.head(key), "ObjectNotFound", () => Effect.succeed(undefined))
    return Effect.flatMap(existing, (existing) => StorageBackend.checkSave(existing, options))
  }

  #put(
    key: string,
    { attributes = {}, ifMatch, ifNoneMatch }: StorageBackend.SaveOptions,
    upload: Upload,
    id: Record<string, string>
  ): Effect.Effect<StorageBackend.ObjectInfo, E.SaveError> {
    const tag = ifMatch === undefined ? undefined : protocolEtags.format(ifMatch)
    const headers = {
      ...formatRequestAttributes(attributes),
      ...id,
      ...(ifNoneMatch !== undefined && { "if-none-match": ifNoneMatch }),
      ...(tag !== undefined && { "if-match": tag })
    }
    return Effect.flatMap(
      ask(this.#peer, { method: "PUT", path: pathOf(this.#peer, key), headers, upload }),
      (reply) => savedOf(reply, key, upload)
    )
  }
}

/** The content type is among the attributes, if there is one. */
const noContentType = ""

/** The object that was saved, if the response is to this save: a proxy may respond with a page of its own. */
const savedOf = (
  reply: Reply,
  key: string,
  { total }: Upload
): Either.Either<StorageBackend.ObjectInfo, E.SaveError> => {
  if (reply.status !== 200 && reply.status !== 201) {
    return Either.left(only(failureOf(reply, { about: "object", isStatic: false }), isSaveError))
  }
  const info = decodeInfo(reply.text)
  const size = total()
  return Option.isNone(info)
    ? Either.left(notUnderstood("to a save has no object"))
    : info.value.etag === ""
    ? Either.left(notUnderstood("to a save has no etag"))
    : size !== undefined && info.value.size !== size
    ? Either.left(notUnderstood(`to a save has an object of ${info.value.size} bytes instead of ${size}`))
    : Either.right({ ...info.value, key })
}

const decodeInfo = Schema.decodeUnknownOption(Schema.parseJson(ObjectInfo))

/** Whether a precondition did not hold, maybe because an earlier attempt had been carried out. */
export const isPrecondition = ({ _tag }: E.StorageError): boolean =>
  _tag === "ObjectAlreadyExists" || _tag === "PreconditionFailed"

/** All bytes of a stream, where it cannot be sent. */
const gather = (data: Stream.Stream<Uint8Array>): Effect.Effect<Uint8Array, E.UnsupportedOperation> =>
  Effect.flatMap(
    Stream.runCollect(data),
    (parts) => intoArray(Stream.fromChunk(parts), Chunk.reduce(parts, 0, (size, { byteLength }) => size + byteLength))
  )
