/**
 * Saves responses.
 */
import * as Data from "effect/Data"
import * as Effect from "effect/Effect"
import * as Stream from "effect/Stream"
import { type Hash, hexDigest, update } from "../../internal/hash.js"
import type * as Storage from "../../Storage.js"
import { CorruptObject, type SaveError, UnsupportedOperation } from "../../StorageError.js"
import * as Content from "./content.js"
import { keyOf, type Location, parseRequest } from "./keys.js"
import * as Verifier from "./verifier.js"

/** The progress of a save; see `TransformersCache.Progress`. */
interface Progress {
  readonly progress: number
  readonly loaded: number
  readonly total: number
}

export type OnProgress = (progress: Progress) => void

export const put = (
  location: Location,
  request: string | URL | Request,
  response: Response,
  onProgress: OnProgress | undefined
): Effect.Effect<void, unknown> =>
  Effect.gen(function*() {
    const { storage } = location
    const { method, url } = parseRequest(request)
    const key = yield* keyOf(location, "put", url)
    const reason = problemOf(method, response)
    if (reason !== undefined) {
      return yield* new UnsupportedOperation({ backend: storage.backend.name, operation: "put", key, reason })
    }
    const wrong = Content.problemOfHeaders(key, response.headers)
    if (wrong !== undefined) return yield* invalidContent(location, key, wrong)
    location.held.delete(key)
    yield* location.missOnFailure
      ? saveOrHold(location, key, response, onProgress)
      : save(location, key, response.body, response.headers, onProgress)
  }).pipe(Effect.catchTag("BodyError", ({ cause }) => Effect.fail(cause)))

/** Why a response cannot be cached. */
const problemOf = (method: string, { body, bodyUsed, status }: Response): string | undefined =>
  method !== "GET"
    ? `only responses to GET can be cached (got ${method})`
    : status !== 200
    ? `only responses of status 200 can be cached (got ${status})`
    : body?.locked === true || bodyUsed
    ? "the body has been read already"
    : undefined

const invalidContent = ({ storage }: Location, key: string, reason: string): CorruptObject =>
  new CorruptObject({ backend: storage.backend.name, operation: "put", key, problem: "frame", reason })

/** The failure of a body, as distinct from that of the storage. */
class BodyError extends Data.TaggedError("BodyError")<{ readonly cause: unknown }> {}

const save = (
  location: Location,
  key: string,
  body: ReadableStream<Uint8Array> | null,
  headers: Headers,
  onProgress: OnProgress | undefined
): Effect.Effect<void, SaveError | BodyError> =>
  Effect.gen(function*() {
    const { newHash, storage } = location
    const size = contentLength(headers)
    const hash = newHash()
    const bytes = checked(location, key, hash, body === null ? Stream.empty : bytesOf(body, size, onProgress))
    const options: Storage.SaveOptions = size === undefined || body === null ? {} : { size }
    const info = yield* storage.save(key, bytes, options).pipe(
      // The save may fail before it reads the first byte.
      Effect.onError(() => cancel(body))
    )
    yield* Verifier.saveRecord(location, info, hexDigest(hash))
  })

/**
 * Saves a response. If the storage fails, that is logged, and the response is held for its next match: who puts a response
 * that comes from `fetch` has not read it, and takes it from the cache.
 */
const saveOrHold = (
  location: Location,
  key: string,
  response: Response,
  onProgress: OnProgress | undefined
): Effect.Effect<void, SaveError | BodyError> =>
  Effect.gen(function*() {
    const { body, headers, url } = response
    const [saved, held] = body !== null && url !== "" ? body.tee() : [body, null]
    yield* save(location, key, saved, headers, onProgress).pipe(
      Effect.tapBoth({
        onSuccess: () => cancel(held),
        onFailure: (error) => isOfResponse(error) ? cancel(held) : Effect.void
      }),
      Effect.catchIf((error) => !isOfResponse(error), (error) => {
        if (held !== null) location.held.set(key, new Response(held, { headers }))
        return Effect.logWarning("The cache failed, so a file that was downloaded is not kept", error)
      })
    )
  })

/** Cancels a body, and does not wait for it: one half of a body waits for the other. */
const cancel = (body: ReadableStream<Uint8Array> | null): Effect.Effect<void> =>
  Effect.sync(() => void body?.cancel().catch(() => {}))

const isOfResponse = ({ _tag }: SaveError | BodyError): boolean => _tag === "BodyError" || _tag === "CorruptObject"

const bytesOf = (
  body: ReadableStream<Uint8Array>,
  size: number | undefined,
  onProgress: OnProgress | undefined
): Stream.Stream<Uint8Array, BodyError> =>
  Stream.suspend(() => {
    const total = size ?? 0
    let loaded = 0
    const source = {
      evaluate: () => body,
      onError: (cause: unknown) => new BodyError({ cause }),
      releaseLockOnEnd: true
    }
    return Stream.map(Stream.fromReadableStream(source), (bytes) => {
      loaded += bytes.byteLength
      onProgress?.({ progress: total === 0 ? 0 : (loaded / total) * 100, loaded, total })
      return bytes
    })
  })

/** The same bytes, which are added to a hash; fails if they cannot be the file. */
const checked = <E>(
  location: Location,
  key: string,
  hash: Hash,
  bytes: Stream.Stream<Uint8Array, E>
): Stream.Stream<Uint8Array, E | CorruptObject> =>
  Stream.suspend(() => {
    const check = Content.check(key)
    const failOr = <A>(problem: string | undefined, next: () => Effect.Effect<A>) =>
      problem === undefined ? next() : Effect.fail(invalidContent(location, key, problem))
    return Stream.concat(
      Stream.tap(bytes, (bytes) => failOr(check.add(bytes), () => update(hash, bytes))),
      Stream.execute(Effect.suspend(() => failOr(check.end(), () => Effect.void)))
    )
  })

/** The length of the body, unless it was compressed: the header then has the compressed length. */
const contentLength = (headers: Headers): number | undefined => {
  const length = headers.get("content-length") ?? ""
  const isPlain = (headers.get("content-encoding") ?? "identity").toLowerCase() === "identity"
  return isPlain && /^\d+$/.test(length) ? Number(length) : undefined
}
