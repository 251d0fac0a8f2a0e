/**
 * `GET` and `HEAD` of an object.
 */
import * as HttpServerResponse from "@effect/platform/HttpServerResponse"
import * as Cause from "effect/Cause"
import * as Chunk from "effect/Chunk"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import { formatContentRange } from "../../internal/httpHeaders.js"
import { checksumHeader, formatDigest, formatEtag, formatResponseAttributes } from "../../internal/protocol.js"
import type * as Storage from "../../Storage.js"
import type { ObjectInfo, OpenedObject } from "../../StorageBackend.js"
import type * as E from "../../StorageError.js"
import { sentCheck } from "./nodeConnection.js"
import { appliesTo, check, parseConditionalRange, parsePreconditions, toLoadOptions } from "./preconditions.js"
import { empty, failure, noSniff } from "./responses.js"
import { type Answer, defaultCacheControl, type Request, type Response, type Server, type Settings } from "./server.js"
import type { Transfer, Transfers } from "./transfers.js"

/**
 * The largest piece of an object, in bytes, that is read, held and written at once; a client must take one within the idle
 * timeout. Larger ones are no faster in the benchmark row `http-large`.
 */
const pieceSize = 512 * 1024

export const getObject = (server: Server, request: Request, key: string): Answer => {
  const { settings: { redirect }, storage, transfers } = server
  if (redirect !== undefined && storage.backend.capabilities.presign) {
    return Effect.map(
      storage.presign(key, { method: "GET", expiresIn: redirect.expiresIn }),
      (location) => empty(307, { location, "cache-control": "no-store" })
    )
  }
  // Begun before the object is opened, so that it ends after the object is closed.
  return Effect.flatMap(transfers.begin(request), (transfer) =>
    Effect.matchEffect(open(storage, request, key), {
      onSuccess: (opened) => send(server, request, opened, transfer),
      onFailure: (error) => refuse(server, request, key, error)
    }))
}

/** How often an object that changes between the look at its metadata and its opening is looked at. */
const maxAttempts = 5

/** Opens the object in one step; where the storage cannot check the preconditions by itself, after a look at its metadata. */
const open = (
  storage: Storage.Service,
  { headers }: Request,
  key: string
): Effect.Effect<OpenedObject, E.LoadError, Scope.Scope> => {
  const preconditions = parsePreconditions(headers)
  const wanted = parseConditionalRange(headers)
  const options = wanted?.ifRange === undefined ? toLoadOptions(preconditions) : undefined
  if (options !== undefined) return storage.open(key, { ...options, range: wanted?.range, chunkSize: pieceSize })

  const attempt = (left: number): Effect.Effect<OpenedObject, E.LoadError, Scope.Scope> =>
    Effect.flatMap(storage.head(key), (info) => {
      const failed = check(preconditions, info)
      if (failed !== undefined) return Effect.fail(failed)
      const range = wanted !== undefined && appliesTo(wanted, info.etag) ? wanted.range : undefined
      return Effect.catchTag(
        storage.open(key, { ifMatch: info.etag, range, chunkSize: pieceSize }),
        "PreconditionFailed",
        (error) => left > 1 ? attempt(left - 1) : Effect.fail(error)
      )
    })
  return attempt(maxAttempts)
}

const send = (
  { settings, transfers }: Server,
  request: Request,
  opened: OpenedObject,
  transfer: Transfer
): Effect.Effect<Response, E.LoadError, Scope.Scope> => {
  const { bytes, info, range } = opened
  const length = range.endExclusive - range.start
  const wanted = parseConditionalRange(request.headers)
  const isPart = wanted !== undefined && length > 0 && appliesTo(wanted, info.etag)
  const fields = objectHeaders(info, request, settings)
  fields["content-length"] = String(length)
  if (isPart) fields["content-range"] = formatContentRange(range, info.size)
  const options = { status: isPart ? 206 : 200, headers: fields, contentType: fields["content-type"] }
  if (bytes !== undefined) {
    transfer.waitForClient()
    return Effect.succeed(HttpServerResponse.uint8Array(bytes, options))
  }
  return Effect.flatMap(
    Body.open(opened, transfer, settings.isUnseen ? sentCheck(request) : () => false),
    (body) =>
      // A failure before the first piece still has a status.
      Effect.map(body.first, (first) =>
        HttpServerResponse.stream(body.stream(first, request, transfers, info.key), options))
  )
}

/** The header fields of an object, whichever part of it is sent. */
const objectHeaders = (
  { attributes, checksum, etag, key, lastModified }: ObjectInfo,
  request: Request,
  { auth, cacheControl }: Settings
): Record<string, string> => {
  const fields: Record<string, string> = {
    ...noSniff,
    "content-type": key.endsWith(".json") ? "application/json" : "application/octet-stream",
    "cache-control": cacheControl,
    etag: formatEtag(etag),
    "last-modified": lastModified.toUTCString(),
    "accept-ranges": "bytes"
  }
  if (checksum !== undefined) fields[checksumHeader] = formatDigest(checksum)
  const vary = [
    ...(attributes?.contentEncoding === undefined ? [] : ["accept-encoding"]),
    // An object may say that shared caches keep it, for those who may read it.
    ...(auth === undefined ? [] : ["authorization"])
  ]
  if (vary.length > 0) fields["vary"] = vary.join(", ")
  if (attributes === undefined) return fields
  Object.assign(fields, formatResponseAttributes(attributes, request))
  // A saved page must not run as one of the server's.
  if (attributes.contentType !== undefined) fields["content-security-policy"] = "default-src 'none'; sandbox"
  return fields
}

type Pull<E> = Effect.Effect<Chunk.Chunk<Uint8Array>, Option.Option<E>>

/**
 * The bytes of an object in pieces, each read once the client has taken the one before. The last piece waits for the end of
 * the storage's stream: a client that has it has a complete object.
 */
class Body {
  readonly #pull: Pull<E.LoadError>
  readonly #transfer: Transfer
  /** How many bytes are still to be sent. */
  #left: number
  #chunk: ReadonlyArray<Uint8Array> = []
  /** The next array of the chunk, and the next byte of that. */
  #index = 0
  #offset = 0
  #lastPiece: Uint8Array = new Uint8Array(0)

  private constructor(pull: Pull<E.LoadError>, length: number, transfer: Transfer) {
    this.#pull = pull
    this.#left = length
    this.#transfer = transfer
  }

  static open(
    { range, reuse, stream }: OpenedObject,
    transfer: Transfer,
    isSent: (piece: Uint8Array) => boolean
  ): Effect.Effect<Body, never, Scope.Scope> {
    let body: Body | undefined
    const isFree = () => body !== undefined && isSent(body.#lastPiece)
    return Effect.map(Stream.toPull(reuse?.(isFree) ?? stream), (pull) => {
      body = new Body(pull, range.endExclusive - range.start, transfer)
      return body
    })
  }

  /** The first piece. Where reading it fails, the response has not begun. */
  get first(): Effect.Effect<Chunk.Chunk<Uint8Array>, E.LoadError> {
    const nothing = Effect.succeed(Chunk.empty<Uint8Array>())
    return this.#left === 0
      ? Effect.zipRight(this.#end, nothing)
      : Effect.catchAll(this.#next, Option.match({ onNone: () => nothing, onSome: Effect.fail }))
  }

  /** The whole body. Where reading the rest fails, the connection breaks. */
  stream(
    first: Chunk.Chunk<Uint8Array>,
    request: Request,
    transfers: Transfers,
    key: string
  ): Stream.Stream<Uint8Array, E.LoadError> {
    let pending: Chunk.Chunk<Uint8Array> | undefined = first
    const rest = Effect.catchAllCause(this.#next, (cause) => breakOff(cause, request, transfers, key))
    return Stream.repeatEffectChunkOption(Effect.suspend(() => {
      const piece = pending
      pending = undefined
      return piece === undefined ? rest : Effect.succeed(piece)
    }))
  }

  readonly #next: Pull<E.LoadError> = Effect.suspend(() => {
    this.#transfer.waitForStorage()
    const piece = this.#take()
    if (piece !== undefined) {
      const emit = Effect.sync(() => {
        this.#transfer.waitForClient()
        return Chunk.of(piece)
      })
      return this.#left > 0 ? emit : Effect.zipRight(Effect.mapError(this.#end, Option.some), emit)
    }
    return this.#left === 0 ? Effect.fail(Option.none()) : Effect.flatMap(this.#pull, (chunk) => {
      this.#chunk = Chunk.toReadonlyArray(chunk)
      this.#index = 0
      return this.#next
    })
  })

  #take(): Uint8Array | undefined {
    const bytes = this.#chunk[this.#index]
    if (bytes === undefined) return undefined
    const piece = bytes.subarray(this.#offset, this.#offset + pieceSize)
    this.#lastPiece = piece
    this.#left -= piece.byteLength
    this.#offset += piece.byteLength
    if (this.#offset >= bytes.byteLength) {
      this.#index++
      this.#offset = 0
    }
    return piece
  }

  /** Waits until the storage confirms that all was read. */
  get #end(): Effect.Effect<void, E.LoadError> {
    return Effect.matchEffect(this.#pull, {
      onFailure: Option.match({ onNone: () => Effect.void, onSome: Effect.fail }),
      onSuccess: () => this.#end
    })
  }
}

/** Ends a body that cannot be completed, after a status that promised all of it. */
const breakOff = (
  cause: Cause.Cause<Option.Option<E.LoadError>>,
  request: Request,
  { requests }: Transfers,
  key: string
): Pull<E.LoadError> =>
  Option.match(Cause.flipCauseOption(cause), {
    onNone: () => Effect.fail(Option.none()),
    onSome: (failed) =>
      Cause.isInterruptedOnly(failed) ? Effect.failCause(cause) : Effect.zipRight(
        Effect.logError(
          `the response to ${request.method} ${JSON.stringify(key)} broke off`,
          Cause.map(failed, (error) => error.message)
        ),
        Effect.suspend(() => requests.cut(request, "storage") ? Effect.never : Effect.failCause(cause))
      )
  })

/** The header fields of a 304: what a cache updates of the response that it has (RFC 9110, section 15.4.5). */
const revalidationHeaders = (info: ObjectInfo, request: Request, settings: Settings): Record<string, string> => {
  const kept = ["etag", "cache-control", "vary"]
  return Object.fromEntries(
    Object.entries(objectHeaders(info, request, settings)).filter(([name]) => kept.includes(name))
  )
}

/** Answers a failed `GET`: a 304 has the current etag, a 416 the size of the object, as far as the storage can be asked. */
const refuse = (server: Server, request: Request, key: string, error: E.LoadError): Answer => {
  const { settings, storage } = server
  const { headers, method } = request
  const withInfo = (headersOf: (info: ObjectInfo) => Readonly<Record<string, string>>) =>
    Effect.match(storage.head(key), {
      onFailure: () => failure(server, error, method),
      onSuccess: (info) => failure(server, error, method, { headers: headersOf(info) })
    })
  switch (error._tag) {
    case "ObjectNotModified": {
      const etag = toLoadOptions(parsePreconditions(headers))?.ifNoneMatch
      // A cache keeps the default that it has: it is not worth another request to the storage.
      return etag === undefined || settings.cacheControl !== defaultCacheControl
        ? withInfo((info) => revalidationHeaders(info, request, settings))
        : Effect.succeed(failure(server, error, method, { headers: { etag: formatEtag(etag) } }))
    }
    case "InvalidRange":
      return withInfo(({ size }) => ({ "content-range": `bytes */${size}` }))
    default:
      return Effect.fail(error)
  }
}

export const headObject = (server: Server, request: Request, key: string): Answer => {
  const { settings, storage } = server
  return Effect.map(storage.head(key), (info) => {
    const failed = check(parsePreconditions(request.headers), info)
    if (failed === undefined) {
      return empty(200, { ...objectHeaders(info, request, settings), "content-length": String(info.size) })
    }
    const headers = failed._tag === "ObjectNotModified" ? revalidationHeaders(info, request, settings) : {}
    return failure(server, failed, request.method, { headers })
  })
}
