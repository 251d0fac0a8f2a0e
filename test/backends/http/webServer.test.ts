/**
 * Web servers that tell less than they should: no length, no `HEAD`, etags without quotes.
 */
import { describe, expect, it } from "@effect/vitest"
import { Effect, Schedule } from "effect"
import * as http from "node:http"
import { ByteRange, HttpStorage, type Storage, type StorageError } from "surfing-weights"
import { bytes, gather, MiB, print } from "../../support/content.js"
import { clients } from "../../support/httpClients.js"
import { listen } from "../../support/loopback.js"

const content = bytes(2 * MiB)

interface Habits {
  /** Default: with a length. */
  readonly head?: "refused" | "not implemented" | "without length" | "broken"
  /** What a HEAD has where it has another version. */
  readonly next?: { readonly etag: string; readonly size: number }
  /** Default: with a length. */
  readonly body?: "chunked" | "chunked, broken" | "until the connection ends"
  readonly etag?: string
  readonly contentType?: string
  /** What the addresses with a slash at their end have: a `page`, or a redirect to this address. Default: nothing. */
  readonly slash?: string
  /** Whether ranges are known. Default: false. */
  readonly ranges?: boolean
  /** Default: some MiB. */
  readonly isEmpty?: boolean
}

const paths = new Set(["/k", "/k.html"])

const answering =
  ({ body, contentType, etag, head, isEmpty = false, next, ranges = false, slash }: Habits): http.RequestListener =>
  (request, response) => {
    const { headers, method, url = "" } = request
    const stored = isEmpty ? new Uint8Array(0) : content
    if (url.endsWith("/") && slash === "page") return void response.setHeader("content-type", "text/html").end()
    if (url.endsWith("/") && slash !== undefined) return void response.writeHead(301, { location: slash }).end()
    if (!paths.has(url)) return void response.writeHead(404).end()
    if (etag !== undefined) response.setHeader("etag", etag)
    // No entity tag, so it is that of no object either.
    if (etag?.endsWith("\"") === false && "if-match" in headers) return void response.writeHead(412).end()
    if (contentType !== undefined) response.setHeader("content-type", contentType)
    if (method === "HEAD") {
      if (head === "broken") return void response.destroy()
      // The length is that of a page that says so.
      if (head === "refused") return void response.writeHead(405, { "content-length": 19 }).end()
      if (head === "not implemented") return void response.writeHead(501, { "content-length": 19 }).end()
      if (next !== undefined) response.setHeader("etag", next.etag)
      if (head === undefined) response.setHeader("content-length", next?.size ?? stored.length)
      return void response.end()
    }
    const [, start, end] = ranges ? /^bytes=(\d+)-(\d*)$/.exec(headers.range ?? "") ?? [] : []
    if (start !== undefined && Number(start) >= stored.length) {
      return void response.writeHead(416, { "content-range": `bytes */${stored.length}` }).end()
    }
    if (start !== undefined) {
      const last = Math.min(end === "" ? Infinity : Number(end), stored.length - 1)
      response.statusCode = 206
      response.setHeader("content-range", `bytes ${start}-${last}/${stored.length}`)
      return void response.end(stored.subarray(Number(start), last + 1))
    }
    if (body === undefined) return void response.setHeader("content-length", stored.length).end(stored)
    if (body === "until the connection ends") {
      response.useChunkedEncodingByDefault = false
      response.shouldKeepAlive = false
      response.removeHeader("transfer-encoding")
      return void response.end(stored)
    }
    response.write(stored.subarray(0, MiB))
    setTimeout(() => body === "chunked" ? response.end(stored.subarray(MiB)) : response.destroy(), 20)
  }

for (const [name, client] of clients) {
  const on = <A, E, R>(habits: Habits, test: (storage: Storage.Service) => Effect.Effect<A, E, R>) =>
    Effect.gen(function*() {
      const { endpoint } = yield* listen(http.createServer(answering(habits)))
      return yield* test(yield* HttpStorage.make({ url: endpoint, static: true, retry: Schedule.recurs(1) }))
    }).pipe(Effect.scoped, Effect.provide(client))

  describe(`HttpStorage with ${name}`, () => {
    for (const head of [undefined, "refused", "not implemented", "without length"] as const) {
      it.live(`loads a chunked body where a HEAD is ${head ?? "with a length"}`, () =>
        on({ body: "chunked", ...(head !== undefined && { head }) }, (storage) =>
          Effect.gen(function*() {
            expect(print(yield* storage.load("k"))).toBe(print(content))
            expect(print(yield* gather(storage.stream("k")))).toBe(print(content))
            expect(print(yield* storage.load("k", { range: ByteRange.last(9) }))).toBe(print(content.subarray(-9)))
            expect(yield* storage.exists("k")).toBe(true)
            expect(yield* storage.exists("other")).toBe(false)
            expect(yield* storage.head("k")).toMatchObject({ size: content.length })
          })))

      it.live(`takes no part of a chunked body for the whole where a HEAD is ${head ?? "with a length"}`, () =>
        on(
          { body: "chunked, broken", etag: "\"e\"", ...(head !== undefined && { head }) },
          (storage) =>
            Effect.gen(function*() {
              expect(yield* Effect.flip(storage.load("k"))).toMatchObject({ _tag: "StorageUnavailable" })
              expect(yield* Effect.flip(gather(storage.stream("k")))).toMatchObject({ _tag: "StorageUnavailable" })
            })
        ))
    }

    it.live("loads a chunked body where a HEAD breaks off", () =>
      on(
        { body: "chunked", head: "broken" },
        (storage) => Effect.map(storage.load("k"), (loaded) => expect(print(loaded)).toBe(print(content)))
      ))

    for (const size of [MiB, 3 * MiB]) {
      it.live(`takes no length of another version, which a HEAD has, for that of a chunked body: ${size}`, () =>
        on({ body: "chunked", etag: "\"e\"", next: { etag: "\"f\"", size } }, (storage) =>
          Effect.gen(function*() {
            expect(print(yield* storage.load("k"))).toBe(print(content))
            expect(print(yield* gather(storage.stream("k")))).toBe(print(content))
          })))
    }

    it.live("does not trust the end of a connection, unless a HEAD tells the length", () =>
      Effect.gen(function*() {
        yield* on({ body: "until the connection ends", head: "without length" }, (storage) =>
          Effect.gen(function*() {
            for (const read of [storage.load("k"), storage.head("k")]) {
              const failure = yield* Effect.flip(Effect.asVoid<unknown, StorageError.StorageError, never>(read))
              expect(failure.message).toContain("has no content-length")
            }
          }))
        const loaded = yield* on({ body: "until the connection ends" }, (storage) => storage.load("k"))
        expect(print(loaded)).toBe(print(content))
      }))

    for (const head of ["refused", "not implemented", "without length"] as const) {
      it.live(`finds the size by a GET where a HEAD is ${head}`, () =>
        Effect.forEach([true, false], (ranges) =>
          on({ head, ranges }, (storage) =>
            Effect.gen(function*() {
              expect(yield* storage.exists("k")).toBe(true)
              expect(yield* storage.exists("other")).toBe(false)
              expect(yield* storage.head("k")).toMatchObject({ size: content.length })
            }))))

      it.live(`finds that an object is empty by a GET where a HEAD is ${head}`, () =>
        Effect.forEach([true, false], (ranges) =>
          on(
            { head, ranges, isEmpty: true },
            (storage) => Effect.map(storage.head("k"), ({ size }) => expect(size).toBe(0))
          )))
    }

    it.live("tells versions apart by etags without quotes, and sends none of them", () =>
      on({ etag: "abc123", ranges: true }, (storage) =>
        Effect.gen(function*() {
          const { etag } = yield* storage.head("k")
          expect(print(yield* storage.load("k", { ifMatch: etag }))).toBe(print(content))
          expect(yield* Effect.flip(storage.load("k", { ifMatch: "other" }))).toMatchObject({
            _tag: "PreconditionFailed"
          })
          expect(yield* Effect.flip(storage.load("k", { ifNoneMatch: etag }))).toMatchObject({
            _tag: "ObjectNotModified"
          })
        })))

    it.live("loads an object that is HTML, as its key with a slash at its end has none, or redirects to it", () =>
      Effect.forEach([{}, { slash: "/k" }], (habits) =>
        on(
          { contentType: "text/html", ...habits },
          (storage) => Effect.map(storage.load("k"), (loaded) => expect(print(loaded)).toBe(print(content)))
        )))

    it.live("takes HTML for a page where its key with a slash at its end has one too, unless the key says that it is HTML", () =>
      on({ contentType: "text/html", slash: "page" }, (storage) =>
        Effect.gen(function*() {
          expect(print(yield* storage.load("k.html"))).toBe(print(content))
          for (const read of [storage.load("k"), storage.head("k")]) {
            const failure = yield* Effect.flip(Effect.asVoid<unknown, StorageError.StorageError, never>(read))
            expect(failure._tag).toBe("ObjectNotFound")
          }
        })))
  })
}
