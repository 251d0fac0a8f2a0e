/**
 * A storage as the cache of transformers.js, the library of Hugging Face that runs models in JavaScript: what it downloads
 * is saved, and loaded from the storage the next time. The interface is the part of the Web Cache API that the library
 * calls (`match`, `put` and, since version 4, `delete`); the library itself is not needed here.
 *
 * Keys are readable URLs: `https://huggingface.co/Xenova/bert/resolve/main/config.json` is the object
 * `huggingface.co/Xenova/bert/resolve/main/config.json` after the prefix. Files that were copied there are found, too. In
 * detail:
 *
 * - `https://` is removed, `http://` becomes the folder `http:`. The query is part of the key, the fragment is not. URLs
 *   are normalized as in the URL standard, so no segment is `.` or `..`.
 * - Anything else, such as a path in the file system, is in the folder `file:`.
 * - `%` becomes `%25`; a slash in the query, before another slash or at the end becomes `%2F`. So a decoded key is the URL.
 *
 * URLs with a user name or password, and those that cannot be a key (longer than 1,024 bytes with the prefix, with a NUL,
 * or a path with a segment `..`) are never found and cannot be put.
 *
 * Only the body of a response is kept. Its `Content-Length` is the size of the object, its `Content-Type` follows from the
 * extension.
 *
 * @module TransformersCache
 * @since 0.1.0
 */
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import type * as Runtime from "effect/Runtime"
import * as Stream from "effect/Stream"
import * as ByteRange from "../ByteRange.js"
import * as ObjectKey from "../ObjectKey.js"
import * as Storage from "../Storage.js"
import { InvalidKey, UnsupportedOperation } from "../StorageError.js"
import { keyPrefix } from "./internal/folders.js"
import { promiseRunner, toReadableStream } from "./internal/promises.js"

/**
 * The progress of a `put`: the bytes so far, all bytes (0 if the response does not say), and their ratio in percent.
 *
 * @since 0.1.0
 * @category models
 */
export interface Progress {
  readonly progress: number
  readonly loaded: number
  readonly total: number
}

/**
 * What transformers.js accepts as `env.customCache`. The promises reject with the errors of `Storage`, or with that of the
 * body that is put.
 *
 * @since 0.1.0
 * @category models
 */
export interface TransformersCache {
  /**
   * Finds the response for a request, or `undefined`. Its body is opened by the first read and streamed from the storage;
   * if the object is overwritten or removed before the end, the body fails. It should be read to the end or cancelled; a
   * body that is never read needs neither.
   *
   * A `Request` with a `Range` header gets a 206 response with that range. A range that cannot be satisfied is `undefined`,
   * like a miss. Ranges that HTTP lets a server ignore (several ranges, other units, `If-Range`) get the whole object. Only
   * GET requests are matched.
   */
  readonly match: (request: string | URL | Request) => Promise<Response | undefined>

  /**
   * Saves the body of a response as a stream, all or nothing: if it breaks off, or does not have the length of its
   * `Content-Length`, nothing is saved. The response must be one of status 200 to a GET request, and its body unread; others
   * reject with `UnsupportedOperation`, and their body is not read. `onProgress` is called for each chunk.
   */
  readonly put: (
    request: string | URL | Request,
    response: Response,
    onProgress?: (progress: Progress) => void
  ) => Promise<void>

  /** Removes the response for a request. The result says whether there was one. */
  readonly delete: (request: string | URL | Request) => Promise<boolean>
}

/**
 * A cache in the objects of a folder. A slash at the end of `prefix` makes no difference; an empty string is the root of
 * the storage. The promises run with the services that are provided to this effect.
 *
 * @since 0.1.0
 * @category constructors
 * @example
 * ```ts
 * import { Effect } from "effect"
 * import { FileSystemStorage, TransformersCache } from "surfing-weights"
 *
 * // From transformers.js: import { env, pipeline } from "@huggingface/transformers"
 * declare const env: { useCustomCache: boolean; customCache: TransformersCache.TransformersCache | null }
 *
 * const program = Effect.gen(function*() {
 *   env.useCustomCache = true
 *   env.customCache = yield* TransformersCache.make("transformers")
 *   // yield* Effect.promise(() => pipeline("feature-extraction", "Xenova/all-MiniLM-L6-v2"))
 * }).pipe(
 *   Effect.provide(FileSystemStorage.layer({ directory: "/var/cache/weights" }))
 * )
 * ```
 */
export const make = (prefix: string): Effect.Effect<TransformersCache, never, Storage.Storage> =>
  Effect.gen(function*() {
    const runtime = yield* Effect.runtime<Storage.Storage>()
    const location: Location = { storage: yield* Storage.Storage, prefix: keyPrefix(prefix) }
    const run = promiseRunner(runtime)
    return {
      match: (request) =>
        run(Effect.map(find(location, request), (found) => found && toResponse(location, found, runtime))),
      put: (request, response, onProgress) => run(put(location, request, response, onProgress)),
      delete: (request) => run(remove(location, request))
    }
  })

/** Where responses are cached. */
interface Location {
  readonly storage: Storage.Service
  /** What the keys start with. */
  readonly prefix: string
}

/** An object that was found, and the requested range. */
interface Found {
  readonly info: Storage.ObjectInfo
  readonly range: ByteRange.ByteRange | undefined
}

const find = (location: Location, request: string | URL | Request) =>
  Effect.gen(function*() {
    const { method, range, url } = parseRequest(request)
    const key = keyOf(location, "match", url)
    if (method !== "GET" || Either.isLeft(key)) return undefined
    return yield* location.storage.head(key.right).pipe(
      Effect.map((info): Found => ({ info, range })),
      Effect.catchTag("ObjectNotFound", () => Effect.succeed(undefined))
    )
  })

const toResponse = (
  { storage }: Location,
  { info, range }: Found,
  runtime: Runtime.Runtime<Storage.Storage>
): Response | undefined => {
  const resolved = ByteRange.resolve(range, info.size)
  if (Either.isLeft(resolved)) return undefined
  const { endExclusive, start } = resolved.right
  const bytes = storage.stream(info.key, { ifMatch: info.etag, ...(range !== undefined && { range }) })
  return new Response(toReadableStream(bytes, runtime), {
    status: range === undefined ? 200 : 206,
    headers: {
      "accept-ranges": "bytes",
      "content-length": String(endExclusive - start),
      "content-type": contentType(info.key),
      ...(range !== undefined && { "content-range": `bytes ${start}-${endExclusive - 1}/${info.size}` })
    }
  })
}

const put = (
  location: Location,
  request: string | URL | Request,
  response: Response,
  onProgress: ((progress: Progress) => void) | undefined
): Effect.Effect<void, unknown> =>
  Effect.gen(function*() {
    const { storage } = location
    const { method, url } = parseRequest(request)
    const key = yield* keyOf(location, "put", url)
    const reason = problemOf(method, response)
    if (reason !== undefined) {
      return yield* new UnsupportedOperation({ backend: storage.backend.name, operation: "put", key, reason })
    }
    const { body } = response
    if (body === null) return yield* storage.save(key, new Uint8Array())
    const size = contentLength(response.headers)
    return yield* storage.save(key, bytesOf(body, size, onProgress), size === undefined ? {} : { size }).pipe(
      // The save may fail before it reads the first byte.
      Effect.onError(() => Effect.ignore(Effect.tryPromise(() => body.cancel())))
    )
  })

/** Why a response cannot be cached. */
const problemOf = (method: string, { body, bodyUsed, status }: Response): string | undefined =>
  method !== "GET"
    ? `only responses to GET can be cached (got ${method})`
    : status !== 200
    ? `only responses of status 200 can be cached (got ${status})`
    : body?.locked === true || bodyUsed
    ? "the body has been read already"
    : undefined

const bytesOf = (
  body: ReadableStream<Uint8Array>,
  size: number | undefined,
  onProgress: ((progress: Progress) => void) | undefined
): Stream.Stream<Uint8Array, unknown> =>
  Stream.suspend(() => {
    const total = size ?? 0
    let loaded = 0
    const source = { evaluate: () => body, onError: (cause: unknown) => cause, releaseLockOnEnd: true }
    return Stream.map(Stream.fromReadableStream(source), (bytes) => {
      loaded += bytes.byteLength
      onProgress?.({ progress: total === 0 ? 0 : (loaded / total) * 100, loaded, total })
      return bytes
    })
  })

const remove = (location: Location, request: string | URL | Request) =>
  Effect.flatMap(find(location, request), (found) =>
    found === undefined
      ? Effect.succeed(false)
      : Effect.as(location.storage.remove(found.info.key), true))

const parseRequest = (request: string | URL | Request) =>
  typeof request === "string" || request instanceof URL
    ? { url: String(request), method: "GET", range: undefined }
    : { url: request.url, method: request.method, range: parseRange(request.headers) }

/** The range of bytes that a request asks for. What HTTP lets a server ignore is ignored. */
const parseRange = (headers: Headers): ByteRange.ByteRange | undefined => {
  const [, start, end] = /^bytes=(\d*)-(\d*)$/i.exec(headers.get("range") ?? "") ?? []
  if (start === undefined || end === undefined || start + end === "" || headers.has("if-range")) return undefined
  if (start === "") return ByteRange.last(Number(end))
  if (end === "") return ByteRange.from(Number(start))
  if (Number(end) < Number(start)) return undefined
  return ByteRange.make(Number(start), Math.min(Number(end) + 1, Number.MAX_SAFE_INTEGER))
}

/** The length of the body, unless it was compressed: the header then has the compressed length. */
const contentLength = (headers: Headers): number | undefined => {
  const length = headers.get("content-length") ?? ""
  const isPlain = (headers.get("content-encoding") ?? "identity").toLowerCase() === "identity"
  return isPlain && /^\d+$/.test(length) ? Number(length) : undefined
}

const contentType = (key: string): string =>
  contentTypes.get(/\.(\w+)(?:\?.*)?$/.exec(key)?.[1]?.toLowerCase() ?? "") ?? "application/octet-stream"

// Of the files that the library loads. Engines insist on the type of WebAssembly.
const contentTypes = new Map([
  ["js", "text/javascript"],
  ["json", "application/json"],
  ["mjs", "text/javascript"],
  ["txt", "text/plain"],
  ["wasm", "application/wasm"]
])

/** The key for a URL or a path. */
const keyOf = ({ prefix, storage }: Location, operation: string, address: string) => {
  const fail = (key: string, reason: string) =>
    Either.left(new InvalidKey({ backend: storage.backend.name, operation, key, reason }))
  const url = /^\s*https?:/i.test(address) && URL.canParse(address) ? new URL(address) : undefined
  if (url !== undefined && url.username + url.password !== "") {
    return fail(url.host + url.pathname, "the URL contains a user name or password")
  }
  const name = url === undefined ? escapePath(address.replace(/^(?:\.\/)+/, "")) : nameOf(url)
  const key = prefix + (url === undefined ? "file:" : "") + name
  // In the key, what precedes a path would hide that its first segment is "..".
  const reason = ObjectKey.problem(key) ?? ObjectKey.problem(name.replace(/^\//, ""))
  return reason === undefined ? Either.right(key) : fail(key, reason)
}

const nameOf = (url: URL): string => {
  url.hash = ""
  const address = url.href.replace(/^https:\/\//, "").replace(/^http:\/\//, "http:/")
  // The first question mark starts the query.
  const [path = "", ...query] = address.split("?")
  return [escapePath(path), ...query.map((part) => escapePercent(part).replaceAll("/", "%2F"))].join("?")
}

const escapePath = (path: string): string => escapePercent(path).replace(/\/(?=\/|$)/g, "%2F")

const escapePercent = (text: string): string => text.replaceAll("%", "%25")
