/**
 * Listings over HTTP: a page as JSON, or all of it as a line of JSON each.
 */
import type * as HttpServerRequest from "@effect/platform/HttpServerRequest"
import * as HttpServerResponse from "@effect/platform/HttpServerResponse"
import * as Chunk from "effect/Chunk"
import * as Effect from "effect/Effect"
import * as Stream from "effect/Stream"
import * as ObjectKey from "../../ObjectKey.js"
import type * as Storage from "../../Storage.js"
import type { ObjectInfo } from "../../StorageBackend.js"
import type { ListError } from "../../StorageError.js"
import { errorJson } from "../wire.js"
import type { Answer } from "./objects.js"
import { infoJson, json, wrong } from "./respond.js"
import type { Transfer, Transfers } from "./transfers.js"

const maxPage = 1000

type Entry = ObjectInfo | { readonly prefix: string }

const nameOf = (entry: Entry): string => "prefix" in entry ? entry.prefix : entry.key

const entryJson = (entry: Entry): string => "prefix" in entry ? JSON.stringify(entry) : infoJson(entry)

export const make =
  (storage: Storage.Service, transfers: Transfers) =>
  (request: HttpServerRequest.HttpServerRequest, query: URLSearchParams): Answer => {
    const prefix = query.get("prefix") ?? ""
    const startAfter = query.get("startAfter") ?? ""
    const delimiter = query.get("delimiter") ?? ""
    const limit = query.get("limit")
    if (delimiter !== "" && delimiter !== "/") return Effect.succeed(wrong(400, "the delimiter can only be /"))
    if (limit !== null && !/^[1-9]\d*$/.test(limit)) {
      return Effect.succeed(wrong(400, "the limit is a whole number from 1 up"))
    }
    const entries: Stream.Stream<Entry, ListError> = delimiter === ""
      ? storage.entries({ prefix, startAfter })
      : Stream.unwrap(Effect.map(storage.listDirectory(prefix), ({ objects, prefixes }) =>
        Stream.fromIterable(
          [...objects, ...prefixes.map((prefix) => ({ prefix }))]
            .filter((entry) => ObjectKey.compare(nameOf(entry), startAfter) > 0)
            .sort((a, b) => ObjectKey.compare(nameOf(a), nameOf(b)))
        )))
    return Effect.flatMap(
      transfers.begin(request, "list"),
      (transfer) =>
        (request.headers["accept"] ?? "").includes("application/x-ndjson")
          ? Effect.succeed(
            HttpServerResponse.stream(lines(limit === null ? entries : Stream.take(entries, Number(limit)), transfer), {
              contentType: "application/x-ndjson",
              headers: { "x-content-type-options": "nosniff" }
            })
          )
          : page(entries, Math.min(Number(limit ?? maxPage), maxPage))
    )
  }

const page = (entries: Stream.Stream<Entry, ListError>, limit: number): Answer =>
  Effect.map(Stream.runCollect(Stream.take(entries, limit + 1)), (found) => {
    const shown = Chunk.toReadonlyArray(Chunk.take(found, limit))
    const last = found.length > limit ? shown.at(-1) : undefined
    const objects = shown.filter((entry) => !("prefix" in entry)).map(entryJson)
    const prefixes = shown.flatMap((entry) => "prefix" in entry ? [JSON.stringify(entry.prefix)] : [])
    return json(
      `{"objects":[${objects.join()}],"prefixes":[${prefixes.join()}]` +
        `${last === undefined ? "" : `,"next":${JSON.stringify(nameOf(last))}`}}`
    )
  })

/** A line each, a page of the storage at once; the last tells the failure, if the listing breaks. */
const lines = (entries: Stream.Stream<Entry, ListError>, transfer: Transfer): Stream.Stream<Uint8Array> => {
  const encoder = new TextEncoder()
  return entries.pipe(
    Stream.mapChunks((chunk) =>
      Chunk.of(Chunk.toReadonlyArray(chunk).map((entry) => `${entryJson(entry)}\n`).join(""))
    ),
    Stream.catchAll((error) => Stream.make(`${errorJson(error)}\n`)),
    Stream.map((text) => {
      transfer.waits()
      return encoder.encode(text)
    })
  )
}
