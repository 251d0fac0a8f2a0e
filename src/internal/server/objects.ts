/**
 * Objects over HTTP: GET, HEAD, PUT and DELETE of one.
 */
import type { RequestError } from "@effect/platform/HttpServerError"
import type * as HttpServerRequest from "@effect/platform/HttpServerRequest"
import * as HttpServerResponse from "@effect/platform/HttpServerResponse"
import * as Cause from "effect/Cause"
import * as Chunk from "effect/Chunk"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import type * as Storage from "../../Storage.js"
import type { LoadOptions, ObjectInfo, OpenedObject, SaveOptions } from "../../StorageBackend.js"
import * as E from "../../StorageError.js"
import { bytesOf } from "../inHand.js"
import * as Lending from "../lending.js"
import { toEntityTag } from "../wire.js"
import { asLoadOptions, conditionsOf, outcomeOf, rangeOf } from "./conditions.js"
import { breakOff, hasTaken } from "./connection.js"
import { contentTypeOf, empty, failure, infoJson, json, objectHeaders, wrong } from "./respond.js"
import type { Transfer, Transfers } from "./transfers.js"

type Request = HttpServerRequest.HttpServerRequest
type Response = HttpServerResponse.HttpServerResponse
export type Answer = Effect.Effect<Response, E.StorageError, Scope.Scope>

export interface Settings {
  readonly transfers: Transfers
  /** In bytes. */
  readonly maxBody: number
  readonly redirect: Duration.Duration | undefined
  /** Whether an answer goes to its connection as it is, and nobody else sees it. */
  readonly isAlone: boolean
}

/**
 * What is read, held and written at once: the client shows that it is alive once it has taken so much. Measured, a file
 * goes out no faster in larger ones.
 */
const pieceSize = 512 * 1024

export const make = (storage: Storage.Service, settings: Settings) => {
  const { transfers } = settings
  const backend = storage.backend.name

  const changed = (operation: string, key: string) => new E.PreconditionFailed({ backend, operation, key })

  /** What to open an object with, once it is known; the failure that the conditions end in where they do not hold. */
  const plan = (request: Request, info: ObjectInfo): Effect.Effect<LoadOptions, E.LoadError> => {
    const outcome = outcomeOf(conditionsOf(request.headers), info)
    if (outcome === "failed") return Effect.fail(changed("load", info.key))
    if (outcome === "not modified") {
      return Effect.fail(new E.ObjectNotModified({ backend, operation: "load", key: info.key }))
    }
    const wanted = rangeOf(request.headers)
    const isWhole = wanted?.ifRange !== undefined && !Option.contains(wanted.ifRange, info.etag)
    return Effect.succeed({ ifMatch: info.etag, ...(wanted !== undefined && !isWhole && { range: wanted.range }) })
  }

  /** Opens it as the request says: by itself in one go, or after a look at it, and again if it changes between the two. */
  const open = (request: Request, key: string): Effect.Effect<OpenedObject, E.LoadError, Scope.Scope> => {
    const options = asLoadOptions(conditionsOf(request.headers))
    const wanted = rangeOf(request.headers)
    if (options !== undefined && wanted?.ifRange === undefined) {
      return storage.open(key, {
        ...options,
        chunkSize: pieceSize,
        ...(wanted !== undefined && { range: wanted.range })
      })
    }
    const look = (tries: number): Effect.Effect<OpenedObject, E.LoadError, Scope.Scope> =>
      Effect.flatMap(
        storage.head(key),
        (info) =>
          Effect.flatMap(plan(request, info), (options) =>
            Effect.catchTag(storage.open(key, { ...options, chunkSize: pieceSize }), "PreconditionFailed", (error) =>
              tries > 1 ? look(tries - 1) : Effect.fail(error)))
      )
    return look(5)
  }

  const get = (request: Request, key: string): Answer => {
    if (settings.redirect !== undefined && storage.backend.capabilities.presign) {
      return Effect.map(
        storage.presign(key, { method: "GET", expiresIn: settings.redirect }),
        (location) => empty(307, { location, "cache-control": "no-store" })
      )
    }
    // Before anything is opened, so that it ends after that is closed.
    return Effect.flatMap(transfers.begin(request, "load"), (transfer) =>
      Effect.catchAll(
        Effect.flatMap(open(request, key), (opened) => send(request, opened, transfer)),
        (error) => refused(request, key, error)
      ))
  }

  const send = (
    request: Request,
    { info, range, stream }: OpenedObject,
    transfer: Transfer
  ): Effect.Effect<Response, E.LoadError, Scope.Scope> => {
    const length = range.endExclusive - range.start
    const isPart = length > 0 && isAsked(request, info)
    const headers = {
      ...objectHeaders(info),
      "content-length": String(length),
      ...(isPart && { "content-range": `bytes ${range.start}-${range.endExclusive - 1}/${info.size}` })
    }
    const status = isPart ? 206 : 200
    const contentType = contentTypeOf(info.key)
    const bytes = bytesOf(stream)
    if (bytes !== undefined) {
      transfer.waits()
      return Effect.succeed(HttpServerResponse.uint8Array(bytes, { status, headers, contentType }))
    }
    return Effect.gen(function*() {
      let last: Uint8Array = new Uint8Array(0)
      const taken = settings.isAlone ? hasTaken(request) : () => false
      const pull = yield* Stream.toPull(Lending.borrow(stream, () => taken(last)))
      const next = pieces(pull, length, transfer, (piece) => {
        last = piece
      })
      // Before anything is said of success.
      const first = yield* Effect.catchAll(
        next,
        Option.match({ onNone: () => Effect.succeed(Chunk.empty<Uint8Array>()), onSome: Effect.fail })
      )
      const body = Stream.concat(Stream.fromChunk(first), Stream.repeatEffectChunkOption(next))
      return HttpServerResponse.stream(brokenOff(request, info.key, body), { status, headers, contentType })
    })
  }

  const refused = (request: Request, key: string, error: E.StorageError): Answer =>
    error._tag === "ObjectNotModified"
      ? notModified(request, key, error)
      : error._tag === "InvalidRange"
      ? unsatisfiable(request, key, error)
      : Effect.fail(error)

  /** Whether the range counts, which it does not with an If-Range that names another version. */
  const isAsked = (request: Request, info: ObjectInfo): boolean => {
    const wanted = rangeOf(request.headers)
    if (wanted === undefined) return false
    const { ifRange } = wanted
    return ifRange === undefined || Option.contains(ifRange, info.etag)
  }

  /** A 304 tells which version it is of. */
  const notModified = (request: Request, key: string, error: E.ObjectNotModified): Answer => {
    const etag = asLoadOptions(conditionsOf(request.headers))?.ifNoneMatch
    return etag !== undefined
      ? Effect.succeed(failure(error, request.method, { headers: { etag: toEntityTag(etag) } }))
      : Effect.map(
        storage.head(key),
        (info) => failure(error, request.method, { headers: { etag: toEntityTag(info.etag) } })
      )
  }

  /** A 416 tells how long the object is. */
  const unsatisfiable = (request: Request, key: string, error: E.InvalidRange): Answer =>
    Effect.map(
      storage.head(key),
      (info) => failure(error, request.method, { headers: { "content-range": `bytes */${info.size}` } })
    )

  const head = (request: Request, key: string): Answer =>
    Effect.gen(function*() {
      const info = yield* storage.head(key)
      const outcome = outcomeOf(conditionsOf(request.headers), info)
      const etag = toEntityTag(info.etag)
      switch (outcome) {
        case "met":
          return empty(200, { ...objectHeaders(info), "content-length": String(info.size) })
        case "failed":
          return failure(changed("head", key), "HEAD")
        case "not modified":
          return failure(new E.ObjectNotModified({ backend, operation: "head", key }), "HEAD", { headers: { etag } })
      }
    })

  const put = (request: Request, key: string): Answer =>
    Effect.gen(function*() {
      const { headers } = request
      if (headers["content-range"] !== undefined) return wrong(400, "a part of an object cannot be saved")
      const size = headers["content-length"] === undefined ? undefined : Number(headers["content-length"])
      const tooLarge = new E.StorageFull({
        backend,
        operation: "save",
        key,
        reason: `the server takes no more than ${settings.maxBody} bytes`
      })
      if (size !== undefined && size > settings.maxBody) return failure(tooLarge, "PUT", { status: 413 })
      const options = yield* saveOptions(request, key)
      const transfer = yield* transfers.begin(request, "save")
      const body = yield* receive(request, transfer, settings.maxBody, tooLarge)
      const saved = yield* Effect.either(storage.save(key, body, { ...options, ...(size !== undefined && { size }) }))
      if (saved._tag === "Right") {
        const info = saved.right
        const status = options.ifNoneMatch === undefined ? 200 : 201
        return json(infoJson(info), status, { etag: toEntityTag(info.etag) })
      }
      const error = saved.left
      // Nobody is there to read more, and Node would wait for it to be read.
      if (error._tag === "RequestError") return empty(400)
      return error === tooLarge ? failure(tooLarge, "PUT", { status: 413 }) : yield* error
    })

  const saveOptions = (request: Request, key: string): Effect.Effect<SaveOptions, E.SaveError> =>
    Effect.gen(function*() {
      const conditions = conditionsOf(request.headers)
      const { ifMatch, ifNoneMatch, ifUnmodifiedSince } = conditions
      if (ifNoneMatch !== undefined && ifNoneMatch !== "*") {
        return yield* new E.UnsupportedOperation({
          backend,
          operation: "save",
          key,
          reason: "of If-None-Match it takes * alone"
        })
      }
      const createOnly = ifNoneMatch === undefined ? {} : { ifNoneMatch }
      if (ifMatch === undefined && ifUnmodifiedSince === undefined) return createOnly
      if (ifMatch !== undefined && ifMatch !== "*" && ifMatch.length === 1 && ifMatch[0] !== undefined) {
        return { ...createOnly, ifMatch: ifMatch[0] }
      }
      // Whatever is there now has to be there still when it is replaced.
      const info = yield* Effect.catchTag(storage.head(key), "ObjectNotFound", () => Effect.fail(changed("save", key)))
      if (
        outcomeOf(
          { ...(ifMatch && { ifMatch }), ...(ifUnmodifiedSince !== undefined && { ifUnmodifiedSince }) },
          info
        ) !== "met"
      ) {
        return yield* changed("save", key)
      }
      return { ...createOnly, ifMatch: info.etag }
    })

  const remove = (request: Request, key: string): Answer => {
    const conditional = ["if-match", "if-none-match", "if-unmodified-since"].find((name) => name in request.headers)
    return conditional === undefined
      ? Effect.as(storage.remove(key), empty(204))
      : Effect.fail(
        new E.UnsupportedOperation({ backend, operation: "remove", key, reason: `it takes no ${conditional}` })
      )
  }

  return { get, head, put, remove }
}

type Next = Effect.Effect<Chunk.Chunk<Uint8Array>, Option.Option<E.LoadError>>

/**
 * The chunks of an object in pieces, which go out one after the other as the client takes them. The last waits until the
 * storage has said that all is well: a client that has it has the whole.
 */
const pieces = (
  pull: Next,
  length: number,
  transfer: Transfer,
  /** Hears of each as it is given to be sent. */
  given: (piece: Uint8Array) => void
): Next => {
  let chunk: ReadonlyArray<Uint8Array> = []
  let index = 0
  let at = 0
  let left = length
  const end: Effect.Effect<void, Option.Option<E.LoadError>> = Effect.matchEffect(pull, {
    onFailure: (end) => Option.isNone(end) ? Effect.void : Effect.fail(end),
    onSuccess: () => end
  })
  const next: Next = Effect.suspend(() => {
    transfer.goes()
    const bytes = chunk[index]
    if (bytes === undefined) {
      if (left === 0) {
        return length === 0
          ? Effect.zipRight(end, Effect.fail(Option.none()))
          : Effect.fail(Option.none())
      }
      return Effect.flatMap(pull, (pulled) => {
        chunk = Chunk.toReadonlyArray(pulled)
        index = 0
        return next
      })
    }
    const piece = bytes.subarray(at, at + pieceSize)
    at += piece.byteLength
    left -= piece.byteLength
    if (at >= bytes.byteLength) {
      index++
      at = 0
    }
    const emit = Effect.sync(() => {
      transfer.waits()
      given(piece)
      return Chunk.of(piece)
    })
    return left === 0 ? Effect.zipRight(end, emit) : emit
  })
  return next
}

/** The same body, which breaks the connection where it fails: what was sent says that all is well. */
const brokenOff = (request: Request, key: string, body: Stream.Stream<Uint8Array, E.LoadError>) =>
  Stream.catchAllCause(body, (cause) => {
    const failed = Stream.failCause(cause)
    if (Cause.isInterruptedOnly(cause)) return failed
    return Stream.unwrap(
      Effect.map(
        Effect.logError(
          `The answer to ${request.method} ${JSON.stringify(key)} broke off`,
          Cause.map(cause, (error) => error.message)
        ),
        () => breakOff(request) ? Stream.never : failed
      )
    )
  })

/**
 * The body of a request, held to so many bytes. It belongs to the request, not to whoever reads it: a server ends the
 * connection when a body is given up, and the answer must come before.
 */
const receive = <Err>(
  request: Request,
  transfer: Transfer,
  limit: number,
  tooLarge: Err
): Effect.Effect<Stream.Stream<Uint8Array, RequestError | Err>, never, Scope.Scope> =>
  Effect.map(Stream.toPull(request.stream), (pull) => {
    let bytes = 0
    type Next = Effect.Effect<Chunk.Chunk<Uint8Array>, Option.Option<RequestError | Err>>
    return Stream.repeatEffectChunkOption(Effect.suspend((): Next => {
      transfer.waits()
      return Effect.flatMap(pull, (chunk): Next => {
        transfer.goes()
        bytes = Chunk.reduce(chunk, bytes, (sum, part) => sum + part.byteLength)
        return bytes > limit ? Effect.fail(Option.some(tooLarge)) : Effect.succeed(chunk)
      })
    }))
  })
