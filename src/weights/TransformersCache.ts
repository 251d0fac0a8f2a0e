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
 * Where the storage keeps objects on the disk of a browser (`OpfsStorage`, also under `StoragePrefix` or `StorageReadOnly`), a
 * response has a blob on the disk as its body, so that `response.blob()` and its address take no memory.
 *
 * Only the body of a response is kept. Its `Content-Length` is the size of the object, its `Content-Type` follows from the
 * extension.
 *
 * A file that is put is checked: pages, messages of servers and Git LFS pointers in place of weights are rejected, and so
 * is JSON that does not parse. Its SHA-256 is kept in the object `<key>%sha256` and compared before the file is used, once
 * for each version of the file: a damaged file is removed and not found, so that the library downloads it again. The
 * comparison reads the file a second time; on a busy machine with two cores it took 0.9 s for 1 GiB on disk. Of files that
 * were copied here, which have no SHA-256, the first bytes are checked. Remove `<key>%sha256` to change a file by hand.
 *
 * In Node.js, version 3 of transformers.js asks for the path of a cached model, which no custom cache has: set
 * `env.useFSCache = false`. Models with external data (`model.onnx_data`) need version 4 there: version 3 leaves it to the
 * ONNX runtime, which looks for it beside a file on disk. Version 4 needs neither.
 *
 * @module TransformersCache
 * @since 0.1.0
 */
import * as Effect from "effect/Effect"
import * as Hash from "../internal/hash.js"
import * as Storage from "../Storage.js"
import { keyPrefix } from "./internal/folders.js"
import { promiseRunner } from "./internal/promises.js"
import type { Location } from "./transformersCache/keys.js"
import * as Reader from "./transformersCache/reader.js"
import * as Saver from "./transformersCache/saver.js"

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
   * Finds the response for a request, or `undefined`. The file is compared with its SHA-256, if that was not done. Its body is opened by the first read and streamed from the storage;
   * if the object is overwritten or removed before the end, the body fails. It should be read to the end or cancelled; a
   * body that is never read needs neither.
   *
   * A `Request` with a `Range` header gets a 206 response with that range. A range that cannot be satisfied is `undefined`,
   * like a miss. Ranges that HTTP lets a server ignore (several ranges, other units, `If-Range`) get the whole object. Only
   * GET requests are matched.
   */
  readonly match: (request: string | URL | Request) => Promise<Response | undefined>

  /**
   * Saves the body of a response as a stream, all or nothing: if it breaks off, does not have the length of its
   * `Content-Length`, or cannot be the file (`CorruptObject`), nothing is saved. The response must be one of status 200 to a GET request, and its body unread; others
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
 * What happens when the storage fails.
 *
 * @since 0.1.0
 * @category models
 */
export interface Options {
  /**
   * What happens when the storage fails, because it is full, read-only or down:
   *
   * - `"fail"`: `match` and `put` reject, and then transformers.js may load no model.
   * - `"miss"`: the failure is logged as a warning, and the model loads from the hub. `match` finds nothing. `put` resolves,
   *   and the next `match` returns the response once, for Node.js, where the library reads models from the cache alone. So
   *   a file from `fetch` is in memory until it is saved. How long a storage that is down is waited for, its retries
   *   decide, or `StorageTimeout`.
   *
   * Default: `"fail"`.
   */
  readonly onFailure?: "fail" | "miss" | undefined
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
export const make = (
  prefix: string,
  { onFailure = "fail" }: Options = {}
): Effect.Effect<TransformersCache, never, Storage.Storage> =>
  Effect.gen(function*() {
    const runtime = yield* Effect.runtime<Storage.Storage>()
    const location: Location = {
      storage: yield* Storage.Storage,
      prefix: keyPrefix(prefix),
      newHash: yield* Hash.load("sha256"),
      missOnFailure: onFailure === "miss",
      verified: new Map(),
      held: new Map()
    }
    const run = promiseRunner(runtime)
    return {
      match: (request) => run(Reader.match(location, request, runtime)),
      put: (request, response, onProgress) => run(Saver.put(location, request, response, onProgress)),
      delete: (request) => run(Reader.remove(location, request))
    }
  })
