/**
 * A storage as the cache of transformers.js, the library of Hugging Face that runs models in JavaScript: what it downloads
 * is saved, and the next time loaded from there. The interface is that of the Web Cache API as far as the library calls
 * it (`match`, `put` and, from version 4, `delete`); it is typed by that alone, and the library is not needed here.
 *
 * An address becomes a key that can be read: `https://huggingface.co/Xenova/bert/resolve/main/config.json` is the object
 * `huggingface.co/Xenova/bert/resolve/main/config.json` below the prefix. So files that came there in another way are
 * found, too. In full:
 *
 * - `https://` is left out, and `http://` becomes the folder `http:`. The query stays part of the name, the fragment does
 *   not. Addresses are first brought into the form of the URL standard, in which no segment is `.` or `..`.
 * - What is no address of these two kinds, such as a path of the file system, is below `file:`.
 * - A `%` becomes `%25`, a slash in a query or before another slash or at the end `%2F`. Decoded, a key gives back what it
 *   was made of.
 *
 * Addresses with a password in them and what cannot be a key (longer than 1,024 bytes with the prefix, with a NUL, with a
 * segment `..` in a path) are never found and cannot be put.
 *
 * Of an answer the body is kept. Its length is that of the object, its type follows from its name.
 *
 * @module TransformersCache
 * @since 0.1.0
 */
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Option from "effect/Option"
import * as Stream from "effect/Stream"
import * as ByteRange from "../ByteRange.js"
import * as ObjectKey from "../ObjectKey.js"
import * as Storage from "../Storage.js"
import { InvalidKey, UnsupportedOperation } from "../StorageError.js"
import { promised, readable } from "./internal/promises.js"

/**
 * How far a `put` is: bytes so far, bytes in all (0 where the answer does not say), and the same in percent.
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
 * What transformers.js takes as `env.customCache`. Rejections are the failures of `Storage`, or of the body that is put.
 *
 * @since 0.1.0
 * @category models
 */
export interface TransformersCache {
  /**
   * The answer that was put under this request, or `undefined`. Its body is opened by the first read and then pulled
   * from `Storage.stream`; if the object is overwritten or removed before it has ended, it fails, and is never a mix.
   * Read it to its end or cancel it. That nothing reads it is fine.
   *
   * A `Request` with a header `Range` gets that range as 206. As a cache tells of what it has and of nothing else, a range
   * past the end is `undefined`, as a miss is. What HTTP lets a server ignore (several ranges, another unit, `If-Range`)
   * gives the whole. Requests other than GET find nothing.
   */
  readonly match: (request: string | URL | Request) => Promise<Response | undefined>

  /**
   * Saves the body of an answer as it comes, all or nothing: if it breaks off, or is not as long as its `Content-Length`
   * says, nothing is left. Only whole answers to GET, of status 200, are taken; others are `UnsupportedOperation`, and
   * their body is not touched. `onProgress` is called for each chunk.
   */
  readonly put: (
    request: string | URL | Request,
    response: Response,
    onProgress?: (progress: Progress) => void
  ) => Promise<void>

  /** Removes what was put under this request, and tells whether there was something. */
  readonly delete: (request: string | URL | Request) => Promise<boolean>
}

/**
 * A cache in the objects below a prefix (a slash at its end makes no difference; empty for all of the storage). Its
 * promises run with the storage and everything else that is provided here.
 *
 * @since 0.1.0
 * @category constructors
 * @example
 * ```ts
 * import { Effect } from "effect"
 * import { FileSystemStorage, TransformersCache } from "surfing-weights"
 *
 * // Of transformers.js: import { env, pipeline } from "@huggingface/transformers"
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
    const storage = yield* Storage.Storage
    const run = promised(runtime)
    const keyOf = keysBelow(prefix, storage.backend.name)

    const find = (request: string | URL | Request) =>
      Effect.gen(function*() {
        const asked = describe(request)
        const key = keyOf("match", asked.url)
        if (asked.method !== "GET" || Either.isLeft(key)) return Option.none()
        return yield* storage.head(key.right).pipe(
          Effect.map((info) => Option.some({ info, range: asked.range })),
          Effect.catchTag("ObjectNotFound", () => Effect.succeedNone)
        )
      })

    const respond = (info: Storage.ObjectInfo, asked: ByteRange.ByteRange | undefined): Response | undefined =>
      Option.match(Either.getRight(ByteRange.resolve(asked, info.size)), {
        onNone: () => undefined,
        onSome: ({ endExclusive, start }) =>
          new Response(
            readable(
              storage.stream(info.key, { ifMatch: info.etag, ...(asked !== undefined && { range: asked }) }),
              runtime
            ),
            {
              status: asked === undefined ? 200 : 206,
              headers: {
                "accept-ranges": "bytes",
                "content-length": String(endExclusive - start),
                "content-type": contentType(info.key),
                ...(asked !== undefined && { "content-range": `bytes ${start}-${endExclusive - 1}/${info.size}` })
              }
            }
          )
      })

    const save = (request: string | URL | Request, response: Response, onProgress?: (progress: Progress) => void) =>
      Effect.gen(function*() {
        const { method, url } = describe(request)
        const key = yield* keyOf("put", url)
        const refused = (reason: string) =>
          new UnsupportedOperation({ backend: storage.backend.name, operation: "put", key, reason })
        if (method !== "GET") return yield* refused(`only answers to GET are kept, not to ${method}`)
        if (response.status !== 200) {
          return yield* refused(`only whole answers, of status 200, are kept, not of ${response.status}`)
        }
        const { body } = response
        if (body?.locked === true || response.bodyUsed) return yield* refused("the body was read already")
        if (body === null) return yield* storage.save(key, new Uint8Array())
        const size = lengthOf(response.headers)
        return yield* storage.save(key, bytesOf(body, size, onProgress), size === undefined ? {} : { size }).pipe(
          // Also where it failed before the first byte was read.
          Effect.onError(() => Effect.ignore(Effect.tryPromise(() => body.cancel())))
        )
      })

    const remove = (request: string | URL | Request) =>
      Effect.flatMap(
        find(request),
        Option.match({
          onNone: () => Effect.succeed(false),
          onSome: ({ info }) => Effect.as(storage.remove(info.key), true)
        })
      )

    return {
      match: (request) =>
        run(Effect.map(
          find(request),
          Option.match({ onNone: () => undefined, onSome: ({ info, range }) => respond(info, range) })
        )),
      put: (request, response, onProgress) => run(Effect.asVoid(save(request, response, onProgress))),
      delete: (request) => run(remove(request))
    }
  })

const describe = (request: string | URL | Request) =>
  typeof request === "string" || request instanceof URL
    ? { url: String(request), method: "GET", range: undefined }
    : { url: request.url, method: request.method, range: rangeOf(request.headers) }

/** The one range of bytes that a request asks for. */
const rangeOf = (headers: Headers): ByteRange.ByteRange | undefined => {
  const [, start, end] = /^bytes=(\d*)-(\d*)$/i.exec(headers.get("range") ?? "") ?? []
  if (start === undefined || end === undefined || start + end === "" || headers.has("if-range")) return undefined
  if (start === "") return ByteRange.last(Number(end))
  if (end === "") return ByteRange.from(Number(start))
  // A range that ends before it starts is none.
  if (Number(end) < Number(start)) return undefined
  return ByteRange.make(Number(start), Math.min(Number(end) + 1, Number.MAX_SAFE_INTEGER))
}

const keysBelow = (prefix: string, backend: string) => {
  const folder = prefix === "" || prefix.endsWith("/") ? prefix : `${prefix}/`
  return (operation: string, text: string): Either.Either<string, InvalidKey> => {
    const url = /^\s*https?:/i.test(text) && URL.canParse(text) ? new URL(text) : undefined
    if (url !== undefined && url.username + url.password !== "") {
      const key = url.host + url.pathname
      return Either.left(
        new InvalidKey({ backend, operation, key, reason: "the address has a name or password in it" })
      )
    }
    const name = url === undefined ? escapePath(text.replace(/^(?:\.\/)+/, "")) : nameOf(url)
    const key = folder + (url === undefined ? "file:" : "") + name
    // The first segment of a path is hidden behind what is before it.
    const reason = ObjectKey.problem(key) ?? ObjectKey.problem(name.replace(/^\//, ""))
    return reason === undefined ? Either.right(key) : Either.left(new InvalidKey({ backend, operation, key, reason }))
  }
}

const nameOf = (url: URL): string => {
  url.hash = ""
  const address = url.href.replace(/^https:\/\//, "").replace(/^http:\/\//, "http:/")
  // Until the query there is no question mark.
  const [path = "", ...query] = address.split("?")
  return [escapePath(path), ...query.map((part) => escapePercent(part).replaceAll("/", "%2F"))].join("?")
}

const escapePath = (path: string): string => escapePercent(path).replace(/\/(?=\/|$)/g, "%2F")

const escapePercent = (text: string): string => text.replaceAll("%", "%25")

/** How long the body will be. The length of one that was compressed on its way is that of what was sent. */
const lengthOf = (headers: Headers): number | undefined => {
  const length = headers.get("content-length") ?? ""
  const isPlain = (headers.get("content-encoding") ?? "identity").toLowerCase() === "identity"
  return isPlain && /^\d+$/.test(length) ? Number(length) : undefined
}

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

const contentType = (key: string): string =>
  contentTypes.get(/\.(\w+)(?:\?.*)?$/.exec(key)?.[1]?.toLowerCase() ?? "") ?? "application/octet-stream"

// Those of the files that the library loads; for WebAssembly the engines insist.
const contentTypes = new Map([
  ["js", "text/javascript"],
  ["json", "application/json"],
  ["mjs", "text/javascript"],
  ["txt", "text/plain"],
  ["wasm", "application/wasm"]
])
