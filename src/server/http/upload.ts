/**
 * `PUT` and `DELETE` of an object.
 */
import type { RequestError } from "@effect/platform/HttpServerError"
import * as Chunk from "effect/Chunk"
import * as Data from "effect/Data"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Option from "effect/Option"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import { parseContentLength } from "../../internal/httpHeaders.js"
import { formatEtag, parseRequestAttributes, toJson } from "../../internal/protocol.js"
import type * as Storage from "../../Storage.js"
import type { Attributes } from "../../StorageBackend.js"
import * as E from "../../StorageError.js"
import { isStale, parsePreconditions, type Preconditions } from "./preconditions.js"
import { empty, failure, json, serverName } from "./responses.js"
import type { Answer, Request, Response, Server } from "./server.js"
import type { Transfer } from "./transfers.js"

export const putObject = (
  { settings: { maxBodySize = Infinity }, storage, transfers }: Server,
  request: Request,
  key: string
): Answer =>
  Effect.gen(function*() {
    const { headers } = request
    if (headers["content-range"] !== undefined) return refuse(key, 400, "a part of an object cannot be saved")
    const size = parseContentLength(headers["content-length"])
    if (size === undefined && headers["transfer-encoding"] === undefined) {
      return refuse(key, 411, "content-length or transfer-encoding is required")
    }
    const refuseTooLarge = () => failure(tooLarge(key, maxBodySize), "PUT", { status: 413 })
    if (size !== undefined && size > maxBodySize) return refuseTooLarge()
    const preconditions = parsePreconditions(headers)
    const { ifNoneMatch } = preconditions
    if (ifNoneMatch !== undefined && ifNoneMatch !== "*") return yield* unsupported(key, "if-none-match must be *")
    const ifMatch = yield* requiredEtag(storage, preconditions, key)
    const attributes = attributesOf(request, storage)
    const transfer = yield* transfers.begin(request)
    const body = yield* receive(request, transfer, maxBodySize)
    const saved = yield* Effect.either(storage.save(key, body, { ifMatch, ifNoneMatch, size, attributes }))
    if (Either.isRight(saved)) {
      const { right: info } = saved
      return json(JSON.stringify(toJson(info)), ifNoneMatch === undefined ? 200 : 201, { etag: formatEtag(info.etag) })
    }
    const { left: error } = saved
    // The client is gone.
    if (error._tag === "RequestError") return empty(400)
    return error._tag === "TooLarge" ? refuseTooLarge() : yield* error
  })

export const deleteObject = ({ storage }: Server, request: Request, key: string): Answer => {
  const preconditions = parsePreconditions(request.headers)
  return preconditions.ifNoneMatch !== undefined
    ? Effect.fail(unsupported(key, "if-none-match on a removal is not supported"))
    : requiredEtag(storage, preconditions, key).pipe(
      Effect.flatMap((ifMatch) => storage.remove(key, { ifMatch })),
      Effect.as(empty(204))
    )
}

const unsupported = (key: string, reason: string): E.UnsupportedOperation =>
  new E.UnsupportedOperation({ backend: serverName, key, reason })

const refuse = (key: string, status: number, reason: string): Response =>
  failure(unsupported(key, reason), "PUT", { status })

/**
 * The etag that the object must have when it is replaced or removed, which the storage checks. Where the preconditions name
 * none, or several, it is the one that the object has now.
 */
const requiredEtag = (
  storage: Storage.Service,
  { ifMatch, ifUnmodifiedSince }: Preconditions,
  key: string
): Effect.Effect<string | undefined, E.HeadError | E.PreconditionFailed> => {
  if (ifMatch === undefined && ifUnmodifiedSince === undefined) return Effect.succeed(undefined)
  if (ifMatch !== undefined && ifMatch !== "*" && ifMatch.length === 1) return Effect.succeed(ifMatch[0])
  const changed = () => new E.PreconditionFailed({ key })
  return storage.head(key).pipe(
    Effect.catchTag("ObjectNotFound", () => Effect.fail(changed())),
    Effect.filterOrFail((info) => !isStale({ ifMatch, ifUnmodifiedSince }, info), changed),
    Effect.map(({ etag }) => etag)
  )
}

/**
 * The attributes to save. Most clients send a content type without being asked: a storage without attributes ignores it. It
 * refuses metadata and a content encoding, without which the bytes cannot be understood.
 */
const attributesOf = ({ headers }: Request, { backend: { capabilities } }: Storage.Service): Attributes | undefined => {
  const attributes = parseRequestAttributes(headers)
  return capabilities.attributes || attributes?.contentEncoding !== undefined || attributes?.metadata !== undefined
    ? attributes
    : undefined
}

/** A body turns out to be longer than the server accepts. */
class TooLarge extends Data.TaggedError("TooLarge") {}

const tooLarge = (key: string, maxBodySize: number): E.StorageFull =>
  new E.StorageFull({ backend: serverName, key, reason: `the server accepts at most ${maxBodySize} bytes` })

/**
 * The body of a request, up to `maxSize` bytes. It belongs to the scope of the request, not to the save that reads it: a
 * server closes the connection when a body is abandoned, and the response must come before.
 */
const receive = (
  request: Request,
  transfer: Transfer,
  maxSize: number
): Effect.Effect<Stream.Stream<Uint8Array, RequestError | TooLarge>, never, Scope.Scope> =>
  Effect.map(Stream.toPull(request.stream), (pull) => {
    type Next = Effect.Effect<Chunk.Chunk<Uint8Array>, Option.Option<RequestError | TooLarge>>
    let size = 0
    return Stream.repeatEffectChunkOption(Effect.suspend((): Next => {
      transfer.waitForClient()
      return Effect.flatMap(pull, (chunk): Next => {
        transfer.waitForStorage()
        size = Chunk.reduce(chunk, size, (sum, { byteLength }) => sum + byteLength)
        return size > maxSize ? Effect.fail(Option.some(new TooLarge())) : Effect.succeed(chunk)
      })
    }))
  })
