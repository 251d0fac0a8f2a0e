/**
 * `GET /objects`: a page as JSON, or every entry as a line of JSON.
 */
import * as HttpServerResponse from "@effect/platform/HttpServerResponse"
import * as Chunk from "effect/Chunk"
import * as Effect from "effect/Effect"
import * as Stream from "effect/Stream"
import { hasEnd, listingType, listingWithEnd, toJson } from "../../internal/protocol.js"
import * as ObjectKey from "../../ObjectKey.js"
import type * as Storage from "../../Storage.js"
import type { ObjectInfo } from "../../StorageBackend.js"
import type { ListError } from "../../StorageError.js"
import type { ListQuery } from "./api.js"
import { json, logFailure, noSniff, publicJson } from "./responses.js"
import type { Answer, Request, Server } from "./server.js"

const maxPage = 1000

type Entry = ObjectInfo | { readonly prefix: string }

const nameOf = (entry: Entry): string => "prefix" in entry ? entry.prefix : entry.key

const entryJson = (entry: Entry): string => JSON.stringify("prefix" in entry ? entry : toJson(entry))

export const listObjects = (server: Server, request: Request, query: ListQuery): Answer => {
  const { storage, transfers } = server
  const { limit } = query
  const entries = entriesOf(storage, query)
  return Effect.flatMap(
    transfers.begin(request),
    (transfer) => {
      const accept = request.headers["accept"] ?? ""
      if (!accept.includes(listingType)) return page(entries, Math.min(limit ?? maxPage, maxPage))
      const contentType = hasEnd(accept) ? listingWithEnd : listingType
      const listed = lines(server, request, limit === undefined ? entries : Stream.take(entries, limit), hasEnd(accept))
      return Effect.succeed(HttpServerResponse.stream(transfer.download(listed), { contentType, headers: noSniff }))
    }
  )
}

const entriesOf = (
  storage: Storage.Service,
  { delimiter, prefix, startAfter }: ListQuery
): Stream.Stream<Entry, ListError> =>
  delimiter === ""
    ? storage.entries({ prefix, startAfter })
    : Stream.unwrap(Effect.map(storage.listDirectory(prefix), ({ objects, prefixes }) =>
      Stream.fromIterable(
        [...objects, ...prefixes.map((prefix) => ({ prefix }))]
          .filter((entry) => ObjectKey.compare(nameOf(entry), startAfter) > 0)
          .sort((a, b) => ObjectKey.compare(nameOf(a), nameOf(b)))
      )))

const page = (entries: Stream.Stream<Entry, ListError>, limit: number): Answer =>
  Effect.map(Stream.runCollect(Stream.take(entries, limit + 1)), (found) => {
    const shown = Chunk.toReadonlyArray(Chunk.take(found, limit))
    const last = found.length > limit ? shown.at(-1) : undefined
    return json(JSON.stringify({
      objects: shown.flatMap((entry) => "prefix" in entry ? [] : [toJson(entry)]),
      prefixes: shown.flatMap((entry) => "prefix" in entry ? [entry.prefix] : []),
      next: last && nameOf(last)
    }))
  })

/** The lines of each page of the storage at once. If the listing breaks, the last line is the failure. */
const lines = (
  server: Server,
  request: Request,
  entries: Stream.Stream<Entry, ListError>,
  isEnded: boolean
): Stream.Stream<Uint8Array> => {
  const encoder = new TextEncoder()
  let count = 0
  const end = Stream.sync(() => `${JSON.stringify({ end: count })}\n`)
  return entries.pipe(
    Stream.mapChunks((chunk) => {
      count += chunk.length
      return Chunk.of(Chunk.toReadonlyArray(chunk).map((entry) => `${entryJson(entry)}\n`).join(""))
    }),
    Stream.concat(isEnded ? end : Stream.empty),
    Stream.catchAll((error) =>
      Stream.fromEffect(Effect.as(logFailure(request, error), `${publicJson(server, error)}\n`))
    ),
    Stream.map((text) => encoder.encode(text))
  )
}
