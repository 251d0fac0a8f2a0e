/**
 * Finds responses.
 */
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import type * as Runtime from "effect/Runtime"
import * as ByteRange from "../../ByteRange.js"
import * as Storage from "../../Storage.js"
import { type HeadError, type LoadError, type RemoveError, UnsupportedOperation } from "../../StorageError.js"
import { extensionOf } from "./content.js"
import { keyOf, type Location, parseRequest } from "./keys.js"
import * as Verifier from "./verifier.js"

/** The response for a request, or `undefined`. Damaged files are removed. */
export const match = (
  location: Location,
  request: string | URL | Request | undefined,
  runtime: Runtime.Runtime<Storage.Storage>
): Effect.Effect<Response | undefined, LoadError> =>
  Effect.gen(function*() {
    if (request === undefined) return yield* withoutAddress(location)
    const { method, range, url } = parseRequest(request)
    const key = keyOf(location, "match", url)
    if (method !== "GET" || Either.isLeft(key)) return undefined
    const held = range === undefined ? takeHeld(location, key.right) : undefined
    if (held !== undefined) return held
    const info = yield* findIntact(location, key.right)
    return info && (yield* toResponse(location, info, range, runtime))
  }).pipe(
    Effect.catchAll((error) =>
      location.missOnFailure && request !== undefined
        ? Effect.as(Effect.logWarning("The cache failed, so a file is downloaded", error), undefined)
        : Effect.fail(error)
    )
  )

const withoutAddress = ({ storage }: Location) =>
  new UnsupportedOperation({
    backend: storage.backend.name,
    operation: "match",
    reason:
      "a request without an address, as transformers.js 3 makes in Node.js; set env.useFSCache to false, or use " +
      "version 4"
  })

/** Removes the response for a request. Succeeds with whether there was one. */
export const remove = (
  location: Location,
  request: string | URL | Request
): Effect.Effect<boolean, HeadError | RemoveError> =>
  Effect.gen(function*() {
    const { method, url } = parseRequest(request)
    const key = keyOf(location, "delete", url)
    if (method !== "GET" || Either.isLeft(key)) return false
    const isHeld = takeHeld(location, key.right) !== undefined
    if ((yield* head(location, key.right)) === undefined) return isHeld
    yield* Verifier.remove(location, key.right)
    return true
  })

const head = ({ storage }: Location, key: string) =>
  Effect.catchTag(storage.head(key), "ObjectNotFound", () => Effect.succeed(undefined))

const findIntact = (location: Location, key: string): Effect.Effect<Storage.ObjectInfo | undefined, LoadError> =>
  Effect.gen(function*() {
    const info = yield* head(location, key)
    const problem = info && (yield* Verifier.verify(location, info))
    if (problem === undefined) return info
    yield* Effect.logWarning(`A cached file is damaged, so it is downloaded again: ${JSON.stringify(key)}: ${problem}`)
    yield* Effect.ignore(Verifier.remove(location, key))
    return undefined
  }).pipe(
    Effect.catchTags({
      // It was overwritten or removed meanwhile.
      PreconditionFailed: () => findIntact(location, key),
      ObjectNotFound: () => Effect.succeed(undefined)
    })
  )

const takeHeld = ({ held }: Location, key: string): Response | undefined => {
  const response = held.get(key)
  held.delete(key)
  return response
}

const toResponse = (
  location: Location,
  info: Storage.ObjectInfo,
  range: ByteRange.ByteRange | undefined,
  runtime: Runtime.Runtime<Storage.Storage>
): Effect.Effect<Response | undefined> => {
  const resolved = ByteRange.resolve(range, info.size)
  if (Either.isLeft(resolved)) return Effect.succeed(undefined)
  const { endExclusive, start } = resolved.right
  return Effect.map(bodyOf(location, info, range, runtime), (body) =>
    new Response(body, {
      status: range === undefined ? 200 : 206,
      headers: {
        "accept-ranges": "bytes",
        "content-length": String(endExclusive - start),
        "content-type": contentTypes.get(extensionOf(info.key)) ?? "application/octet-stream",
        ...(range !== undefined && { "content-range": `bytes ${start}-${endExclusive - 1}/${info.size}` })
      }
    }))
}

/** A blob, where the storage has one: a reader that wants a blob, or an address of it, then has no copy in memory. */
const bodyOf = (
  { storage }: Location,
  { etag, key }: Storage.ObjectInfo,
  range: ByteRange.ByteRange | undefined,
  runtime: Runtime.Runtime<Storage.Storage>
): Effect.Effect<Blob | ReadableStream<Uint8Array<ArrayBuffer>>> => {
  const options = { ifMatch: etag, ...(range !== undefined && { range }) }
  const stream = Effect.sync(() => Storage.toReadableStreamRuntime(storage.stream(key, options), runtime))
  const { blob } = storage.backend
  // What fails here fails in the stream, too, and says where.
  return blob === undefined ? stream : Effect.orElse(blob(key, options), () => stream)
}

// Of the files that the library loads. Engines insist on the type of WebAssembly.
const contentTypes = new Map([
  ["js", "text/javascript"],
  ["json", "application/json"],
  ["mjs", "text/javascript"],
  ["txt", "text/plain"],
  ["wasm", "application/wasm"]
])
