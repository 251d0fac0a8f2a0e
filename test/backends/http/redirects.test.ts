/**
 * Redirects of a server: which are followed, with what, and what of them is shown.
 */
import { FetchHttpClient } from "@effect/platform"
import { describe, expect, it } from "@effect/vitest"
import { Effect, Exit, Layer, Redacted, Schedule } from "effect"
import * as http from "node:http"
import * as https from "node:https"
import { inspect } from "node:util"
import { HttpStorage, StorageError } from "surfing-weights"
import { certificate, trustingAnybody } from "../../support/certificate.js"
import { clients, fetchClient } from "../../support/httpClients.js"
import { listen } from "../../support/loopback.js"
import { recordingTracer } from "../../support/spans.js"

const token = Redacted.make("t0ken-of-ours")
const signature = "X-Amz-Signature=5ecret"

/** A server, and the requests that came to it. */
const serving = (listener: http.RequestListener, isSecure = false) =>
  Effect.gen(function*() {
    const requests: Array<http.IncomingMessage> = []
    const noting: http.RequestListener = (request, response) => {
      requests.push(request)
      listener(request, response)
    }
    const server = isSecure ? https.createServer(certificate, noting) : http.createServer(noting)
    const { host } = new URL((yield* listen(server)).endpoint)
    return { url: `${isSecure ? "https" : "http"}://${host}`, host, requests }
  })

const hello: http.RequestListener = (_, response) => {
  response.writeHead(200, { etag: "\"e\"", "content-length": 5 }).end("hello")
}

const redirecting = (to: (path: string) => string, status = 307): http.RequestListener => (request, response) => {
  response.writeHead(status, { location: to(request.url ?? "") }).end("elsewhere")
}

/** With the default policy, as what is retried would take minutes. */
const open = (url: string, options: Partial<HttpStorage.Options> = {}) =>
  HttpStorage.make({ url, token, verify: false, ...options })

for (const [name, client] of clients) {
  describe(`redirects, with ${name}`, () => {
    it.scopedLive("from https to http are refused, and nothing is sent there", () =>
      Effect.gen(function*() {
        yield* trustingAnybody
        const plain = yield* serving(hello)
        const secure = yield* serving(redirecting(() => `${plain.url}/k?${signature}`), true)
        const failure = yield* Effect.flip(Effect.flatMap(open(secure.url), (storage) => storage.load("k")))
        expect(failure).toBeInstanceOf(StorageError.UnexpectedStorageError)
        expect(failure.message).toContain(`the server redirects from https to ${plain.url}`)
        expect(inspect(failure, { depth: 20 })).not.toContain(signature)
        expect(plain.requests.length).toBe(0)
        expect(secure.requests.length).toBe(1)
      }).pipe(Effect.provide(client)))

    for (const status of [301, 302, 303, 307, 308]) {
      it.scopedLive(`in a loop fail at once (${status})`, () =>
        Effect.gen(function*() {
          const { requests, url } = yield* serving(redirecting((path) => path, status))
          for (const isStatic of [true, false]) {
            requests.length = 0
            const storage = yield* open(url, { static: isStatic })
            const failure = yield* Effect.flip(storage.load("k"))
            expect(failure.message).toContain("the server redirects more than 5 times")
            expect(StorageError.isRetryable(failure)).toBe(false)
            expect(requests.length).toBe(6)
          }
        }).pipe(Effect.provide(client)))
    }

    it.scopedLive("bring the token to the origin of the url alone", () =>
      Effect.gen(function*() {
        const other = yield* serving(hello)
        const tokenOf = ({ headers }: http.IncomingMessage) => headers.authorization
        const home = yield* serving((request, response) =>
          request.url === "/away"
            ? redirecting(() => `${other.url}/k`)(request, response)
            : request.url === "/moved"
            ? hello(request, response)
            : redirecting(() => "/moved")(request, response)
        )
        const storage = yield* open(home.url, { static: true })
        yield* storage.load("away")
        yield* storage.load("near")
        expect(home.requests.map(tokenOf)).toEqual(Array.from({ length: 3 }, () => `Bearer ${Redacted.value(token)}`))
        expect(other.requests.map(tokenOf)).toEqual([undefined])
      }).pipe(Effect.provide(client)))

    it.scopedLive("to a URL with credentials are refused, and show none", () =>
      Effect.gen(function*() {
        const other = yield* serving(hello)
        const { url } = yield* serving(redirecting(() => `http://user:s3cret@${other.host}/k`))
        const failure = yield* Effect.flip(Effect.flatMap(open(url), (storage) => storage.load("k")))
        expect(failure.message).toContain("the server redirects to a URL with credentials")
        expect(inspect(failure, { depth: 20 })).not.toContain("s3cret")
        expect(other.requests.length).toBe(0)
      }).pipe(Effect.provide(client)))

    it.scopedLive("to what is no HTTP URL are refused, and not shown", () =>
      Effect.gen(function*() {
        for (const location of ["ftp://host/s3cret", "file:///s3cret", "data:text/plain,s3cret", "http://[s3cret"]) {
          const { requests, url } = yield* serving((_, response) => {
            response.writeHead(307, { location }).end()
          })
          const failure = yield* Effect.flip(Effect.flatMap(open(url), (storage) => storage.load("k")))
          expect(failure).toBeInstanceOf(StorageError.UnexpectedStorageError)
          expect(failure.message).toContain("the server redirects to something that is not an HTTP URL")
          expect(inspect(failure, { depth: 20 })).not.toContain("s3cret")
          expect(requests.length).toBe(1)
        }
      }).pipe(Effect.provide(client)))

    it.scopedLive("of a save are not followed, and say where to correct what", () =>
      Effect.gen(function*() {
        const other = yield* serving(hello)
        const { url } = yield* serving((request, response) => {
          request.resume().on("end", () => redirecting(() => `${other.url}/k`)(request, response))
        })
        const failure = yield* Effect.flip(Effect.flatMap(open(url), (storage) => storage.save("k", new Uint8Array(9))))
        expect(failure.message).toContain("the server redirects; set url to the new address (HTTP 307)")
        expect(other.requests.length).toBe(0)
      }).pipe(Effect.provide(client)))

    it.scopedLive("to presigned URLs leave these out of spans", () =>
      Effect.gen(function*() {
        const bucket = yield* serving(hello)
        const presigned = `${bucket.url}/b/k?${signature}`
        const { url } = yield* serving((request, response) => {
          response.setHeader("content-location", presigned)
          response.setHeader("link", `<${presigned}>; rel="canonical"`)
          response.setHeader("refresh", `0; url=${presigned}`)
          redirecting(() => presigned)(request, response)
        })
        const { spans, tracer } = yield* recordingTracer
        const load = Effect.flatMap(open(url, { retry: Schedule.recurs(0) }), (storage) => storage.load("k"))
        expect((yield* Effect.withTracer(load, tracer)).byteLength).toBe(5)
        expect(spans.map(({ name }) => name)).toEqual(expect.arrayContaining(["Storage.load", "http.client GET"]))
        const shown = spans.map(({ attributes, status }) =>
          inspect([attributes, status._tag === "Ended" && Exit.isFailure(status.exit) ? status.exit.cause : ""], {
            depth: 9
          })
        )
        expect(shown.join("\n")).not.toContain(signature)
        expect(bucket.requests[0]?.url).toContain(signature)
      }).pipe(Effect.provide(client)))
  })
}

it.scopedLive("the options that FetchHttpClient was given stay, but for redirects", () =>
  Effect.gen(function*() {
    const { requests, url } = yield* serving(redirecting((path) => path))
    const client = Layer.provide(
      fetchClient[1],
      Layer.succeed(FetchHttpClient.RequestInit, { headers: { "x-own": "yes" }, redirect: "follow" })
    )
    const load = Effect.flatMap(open(url), (storage) => storage.load("k"))
    expect((yield* Effect.flip(Effect.provide(load, client))).message).toContain("more than 5 times")
    expect(requests.map(({ headers }) => headers["x-own"])).toEqual(Array.from({ length: 6 }, () => "yes"))
  }))
