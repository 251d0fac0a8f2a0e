/**
 * `PUT` and `DELETE` of an object.
 */
import type { RequestError } from "@effect/platform/HttpServerError"
import * as Chunk from "effect/Chunk"
import * as Data from "effect/Data"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import { constFalse } from "effect/Function"
import * as Option from "effect/Option"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import { parseContentLength } from "../../internal/httpHeaders.js"
import { formatEtag, parseRequestAttributes, toJson } from "../../internal/protocol.js"
import type * as Storage from "../../Storage.js"
import type { Attributes } from "../../StorageBackend.js"
import * as E from "../../StorageError.js"
import { checked, type Digest, parseDigests, type WrongDigest } from "./digests.js"
import { isWaiting } from "./nodeContinue.js"
import { isStale, parsePreconditions, type Preconditions } from "./preconditions.js"
import { parseWriteId } from "./repetitions.js"
import { empty, failure, json, serverName } from "./responses.js"
import type { Answer, Request, Response, Server } from "./server.js"
import type { Transfer } from "./transfers.js"
import { afterBody } from "./unreadBody.js"

export const putObject = (server: Server, request: Request, key: string): Answer =>
  Effect.gen(function*() {
    const { maxBodySize = Infinity } = server.settings
    const { headers } = request
    if (headers["content-range"] !== undefined) return refuse(server, key, 400, "a part of an object cannot be saved")
    const size = parseContentLength(headers["content-length"])
    if (size === undefined && headers["transfer-encoding"] === undefined) {
      return refuse(server, key, 411, "content-length or transfer-encoding is required")
    }
    const refuseTooLarge = () => failure(server, tooLarge(key, maxBodySize), "PUT", { status: 413 })
    if (size !== undefined && size > maxBodySize) return refuseTooLarge()
    const digests = parseDigests(headers)
    if (Either.isLeft(digests)) return refuse(server, key, 400, digests.left)
    const preconditions = parsePreconditions(headers)
    const { ifNoneMatch } = preconditions
    if (ifNoneMatch !== undefined && ifNoneMatch !== "*") return yield* unsupported(key, "if-none-match must be *")
    const id = parseWriteId(request, key)
    if (Either.isLeft(id)) return refuse(server, key, 400, id.left)
    const transfer = yield* server.transfers.begin(request)
    const body = yield* receive(request, transfer, maxBodySize, digests.right)
    const saving = save(server, request, { key, preconditions, size, body: body.stream })
    const saved = yield* Effect.either(server.saves.run(id.right, saving, () => !body.isReceived()))
    if (Either.isRight(saved)) {
      const { isRepeated, value: info } = saved.right
      const etag = formatEtag(info.etag)
      const response = json(JSON.stringify(toJson(info)), ifNoneMatch === undefined ? 200 : 201, { etag })
      return isRepeated ? yield* afterBody(request, response) : response
    }
    const { left: error } = saved
    // The client is gone.
    if (error._tag === "RequestError") return empty(400)
    if (error._tag === "TooLarge") return refuseTooLarge()
    if (error._tag === "WrongDigest") return failure(server, wrongDigest(key, error), "PUT", { status: 400 })
    return yield* error
  })

interface Save {
  readonly key: string
  readonly preconditions: Preconditions
  readonly size: number | undefined
  readonly body: Body["stream"]
}

const save = ({ storage }: Server, request: Request, { body, key, preconditions, size }: Save) =>
  Effect.gen(function*() {
    if (isWaiting(request)) yield* checkNow(storage, preconditions, key)
    const ifMatch = yield* requiredEtag(storage, preconditions, key)
    const ifNoneMatch = preconditions.ifNoneMatch === undefined ? undefined : "*" as const
    return yield* storage.save(key, body, { ifMatch, ifNoneMatch, size, attributes: attributesOf(request, storage) })
  })

export const deleteObject = (server: Server, request: Request, key: string): Answer =>
  Effect.gen(function*() {
    const { removals, storage } = server
    const preconditions = parsePreconditions(request.headers)
    if (preconditions.ifNoneMatch !== undefined) {
      return yield* unsupported(key, "if-none-match on a removal is not supported")
    }
    const id = parseWriteId(request, key)
    if (Either.isLeft(id)) return refuse(server, key, 400, id.left)
    const removing = Effect.flatMap(
      requiredEtag(storage, preconditions, key),
      (ifMatch) => storage.remove(key, { ifMatch })
    )
    yield* removals.run(id.right, removing, constFalse)
    return empty(204)
  })

const unsupported = (key: string, reason: string): E.UnsupportedOperation =>
  new E.UnsupportedOperation({ backend: serverName, key, reason })

const refuse = (server: Server, key: string, status: number, reason: string): Response =>
  failure(server, unsupported(key, reason), "PUT", { status })

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

/** Checks the preconditions before the client sends the body; the storage checks them again when it saves. */
const checkNow = (
  storage: Storage.Service,
  preconditions: Preconditions,
  key: string
): Effect.Effect<void, E.HeadError | E.PreconditionFailed | E.ObjectAlreadyExists> =>
  Effect.gen(function*() {
    const { ifMatch, ifNoneMatch, ifUnmodifiedSince } = preconditions
    const mustExist = ifMatch !== undefined || ifUnmodifiedSince !== undefined
    if (!mustExist && ifNoneMatch === undefined) return
    const found = yield* Effect.catchTag(Effect.asSome(storage.head(key)), "ObjectNotFound", () => Effect.succeedNone)
    const isMet = Option.match(found, { onNone: () => !mustExist, onSome: (info) => !isStale(preconditions, info) })
    if (!isMet) return yield* new E.PreconditionFailed({ key })
    if (Option.isSome(found) && ifNoneMatch !== undefined) return yield* new E.ObjectAlreadyExists({ key })
  })

/** A body turns out to be longer than the server accepts. */
class TooLarge extends Data.TaggedError("TooLarge") {}

const tooLarge = (key: string, maxBodySize: number): E.StorageFull =>
  new E.StorageFull({ backend: serverName, key, reason: `the server accepts at most ${maxBodySize} bytes` })

const wrongDigest = (key: string, { algorithm, field }: WrongDigest): E.CorruptObject =>
  new E.CorruptObject({
    backend: serverName,
    key,
    problem: "checksum",
    reason: `the body does not have the ${algorithm} of ${field}`
  })

interface Body {
  readonly stream: Stream.Stream<Uint8Array, RequestError | TooLarge | WrongDigest>
  /** Whether it has arrived to its end. */
  readonly isReceived: () => boolean
}

/**
 * The body of a request, up to `maxSize` bytes and with these digests. It belongs to the scope of the request, not to the save
 * that reads it: a server closes the connection when a body is abandoned, and the response must come before.
 */
const receive = (
  request: Request,
  transfer: Transfer,
  maxSize: number,
  digests: ReadonlyArray<Digest>
): Effect.Effect<Body, never, Scope.Scope> =>
  Effect.flatMap(Stream.toPull(request.stream), (pull) => {
    type Next = Effect.Effect<Chunk.Chunk<Uint8Array>, Option.Option<RequestError | TooLarge>>
    let size = 0
    let isReceived = false
    const received = Effect.suspend((): Next => {
      transfer.waitForClient()
      return Effect.matchEffect(pull, {
        onSuccess: (chunk): Next => {
          transfer.waitForStorage()
          size = Chunk.reduce(chunk, size, (sum, { byteLength }) => sum + byteLength)
          return size > maxSize ? Effect.fail(Option.some(new TooLarge())) : Effect.succeed(chunk)
        },
        onFailure: (end): Next => {
          isReceived = Option.isNone(end)
          return Effect.fail(end)
        }
      })
    })
    return Effect.map(checked(received, digests), (pull) => ({
      stream: Stream.repeatEffectChunkOption(pull),
      isReceived: () => isReceived
    }))
  })
