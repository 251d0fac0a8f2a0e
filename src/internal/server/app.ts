/**
 * A weight server as an app: which request goes where, and who may make it.
 */
import type * as HttpApp from "@effect/platform/HttpApp"
import * as HttpServerRequest from "@effect/platform/HttpServerRequest"
import * as HttpServerResponse from "@effect/platform/HttpServerResponse"
import * as Cause from "effect/Cause"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Option from "effect/Option"
import type * as Scope from "effect/Scope"
import type * as Storage from "../../Storage.js"
import { type HeadError, StorageTimeout, UnexpectedStorageError, UnsupportedOperation } from "../../StorageError.js"
import { checksumHeader, decodeKey, errorHeader, statusOf } from "../wire.js"
import * as Auth from "./auth.js"
import { waitNoLonger } from "./connection.js"
import * as Listing from "./listing.js"
import * as Objects from "./objects.js"
import * as OpenApi from "./openApi.js"
import * as prometheus from "./prometheus.js"
import { afterBody } from "./refusals.js"
import { always, empty, failure, json, wrong } from "./respond.js"
import * as Transfers from "./transfers.js"
import * as WebSocket from "./webSocket.js"

type Request = HttpServerRequest.HttpServerRequest
type Response = HttpServerResponse.HttpServerResponse
type App = HttpApp.Default<never, Scope.Scope>

export interface Settings {
  readonly writable: boolean
  readonly auth: ReadonlyArray<Auth.Token> | ((app: App) => App) | undefined
  readonly origins: ReadonlyArray<string>
  readonly maxTransfers: number
  /** In bytes. */
  readonly maxBodySize: number
  /** In milliseconds. */
  readonly idleLimit: number
  readonly shutdownDeadline: Duration.Duration
  readonly redirect: Duration.Duration | undefined
  /** Whether an answer goes to its connection as it is, and nobody else sees it. */
  readonly isAlone: boolean
  readonly toKey: (component: string, id: number) => string
  /** In bytes. */
  readonly maxObjectSize: number
}

const reads = "GET, HEAD"

/** Any key does to see whether the storage answers. */
const probe = "health"
const probeLimit = "10 seconds"

export interface Server {
  readonly app: App
  /** To be run before the server itself stops: until then requests are answered. */
  readonly drain: Effect.Effect<void>
}

export const make = (storage: Storage.Service, settings: Settings): Effect.Effect<Server, never, Scope.Scope> =>
  Effect.gen(function*() {
    const { name: backend } = storage.backend
    const { auth, origins } = settings
    const writable = settings.writable && storage.backend.capabilities.write
    const transfers = yield* Transfers.make(backend, settings)
    const objects = Objects.make(storage, {
      transfers,
      maxBody: settings.maxBodySize,
      redirect: settings.redirect,
      isAlone: settings.isAlone
    })
    const list = Listing.make(storage, transfers)
    const webSocket = WebSocket.make(storage, { transfers, toKey: settings.toKey, maxObject: settings.maxObjectSize })
    const health = yield* makeHealth(storage, writable)
    const document = OpenApi.document({
      hasTokens: typeof auth === "object",
      redirects: settings.redirect !== undefined,
      writable
    })
    const documentJson = JSON.stringify(document)
    const page = OpenApi.page(document)

    const onObject = (request: Request, key: string): Objects.Answer => {
      switch (request.method) {
        case "GET":
          return objects.get(request, key)
        case "HEAD":
          return objects.head(request, key)
        case "PUT":
          if (writable) return objects.put(request, key)
          break
        case "DELETE":
          if (writable) return objects.remove(request, key)
      }
      const error = new UnsupportedOperation({
        backend,
        operation: request.method === "PUT" ? "save" : request.method === "DELETE" ? "remove" : request.method,
        key,
        reason: writable ? "the server knows no such method" : "the server only reads"
      })
      const headers = { allow: writable ? `${reads}, PUT, DELETE` : reads }
      return Effect.succeed(failure(error, request.method, { status: 405, headers }))
    }

    /** For those who are allowed: what there is at a path, or `undefined`. */
    const guarded = (request: Request, path: string, query: string): Objects.Answer | undefined => {
      if (path.startsWith("/objects/")) {
        return Option.match(decodeKey(path.slice("/objects/".length)), {
          onNone: () => Effect.succeed(wrong(400, "the path has a percent-escape that stands for no character")),
          onSome: (key) => onObject(request, key)
        })
      }
      switch (path) {
        case "/objects":
          return onlyRead(request) ?? list(request, new URLSearchParams(query))
        case "/metrics":
          return onlyRead(request) ??
            Effect.map(
              prometheus.text,
              (text) => HttpServerResponse.text(text, { contentType: prometheus.contentType, headers: always })
            )
        case "/":
          return onlyRead(request) ?? webSocket(request)
      }
      return undefined
    }

    const open = (request: Request, path: string): Objects.Answer | undefined => {
      switch (path) {
        case "/health":
          return onlyRead(request) ?? health(request.method)
        case "/openapi.json":
          return onlyRead(request) ?? Effect.succeed(json(documentJson))
        case "/docs":
          return onlyRead(request) ?? Effect.succeed(HttpServerResponse.text(page, {
            contentType: "text/html; charset=utf-8",
            headers: { ...always, "content-security-policy": "default-src 'none'; style-src 'unsafe-inline'" }
          }))
      }
      return undefined
    }

    const told = (request: Request, answer: Objects.Answer): Effect.Effect<Response, never, Scope.Scope> =>
      Effect.catchAllCause(answer, (cause) =>
        Either.match(Cause.failureOrCause(cause), {
          onLeft: (error) => Effect.succeed(failure(error, request.method)),
          onRight: (bug) =>
            Cause.isInterruptedOnly(bug) ? Effect.failCause(bug) : Effect.as(
              Effect.logError(`${request.method} of ${JSON.stringify(request.url)} met a bug`, bug),
              failure(
                new UnexpectedStorageError({ backend, operation: request.method, reason: "the server has met a bug" }),
                request.method
              )
            )
        }))

    const allowed = typeof auth === "object" ? Auth.make(auth, backend) : undefined

    const app: App = Effect.flatMap(HttpServerRequest.HttpServerRequest, (request) => {
      const { path, query } = partsOf(request.url)
      const preflight = request.method === "OPTIONS" && "access-control-request-method" in request.headers
      if (preflight) return Effect.succeed(withOrigin(request, origins, empty(204, preflightHeaders(writable))))
      const isWrite = request.method === "PUT" || request.method === "DELETE"
      const refused = isForeignSocket(request, origins)
        ? wrong(403, "pages of this origin may not use the server")
        : isWrite && writable && auth === undefined && isForeignHost(request)
        ? wrong(403, "without auth it is written to under a name of loopback alone, such as localhost")
        : allowed?.(request, isWrite ? "write" : "read")
      const answer = open(request, path) ??
        (refused === undefined ? guarded(request, path, query) : Effect.succeed(refused)) ??
        Effect.succeed(wrong(404, "there is nothing at this path"))
      return Effect.map(
        Effect.flatMap(told(request, answer), (response) => afterBody(request, response)),
        (response) => withOrigin(request, origins, transfers.isStopping() ? last(response) : response)
      )
    })
    const theirs = typeof auth === "function" ? auth(app) : undefined
    const either = Effect.flatMap(HttpServerRequest.HttpServerRequest, (request) => {
      waitNoLonger(request)
      return theirs === undefined || open(request, partsOf(request.url).path) !== undefined ? app : theirs
    })
    return { app: Effect.interruptible(either), drain: transfers.drain }
  })

/** A request may also name the server before the path (RFC 9112, section 3.2.2). */
const partsOf = (url: string): { readonly path: string; readonly query: string } => {
  const target = url.startsWith("/") ? url : url.replace(/^https?:\/\/[^/?]*/i, "")
  const question = target.indexOf("?")
  return question === -1
    ? { path: target, query: "" }
    : { path: target.slice(0, question), query: target.slice(question + 1) }
}

const onlyRead = ({ method }: Request): Objects.Answer | undefined =>
  method === "GET" || method === "HEAD"
    ? undefined
    : Effect.succeed(wrong(405, "it can only be read", { allow: reads }))

/** The connection has no further use. */
const last = (response: Response): Response => HttpServerResponse.setHeader(response, "connection", "close")

/**
 * A page can have its own name lead to loopback (DNS rebinding), and a browser then lets it do here as it likes. The name
 * is what gives it away.
 */
const isForeignHost = ({ headers: { host } }: Request): boolean =>
  host !== undefined && !/^(([\w-]+\.)*localhost|127(\.\d+){3}|\[::1\])\.?(:\d*)?$/i.test(host)

/** Whether the storage can be reached: asked at most once a second, however many ask. */
const makeHealth = (storage: Storage.Service, writable: boolean) => {
  const { name: backend, capabilities: { compareAndSwap, createOnly, list, objectsWithinObjects } } = storage.backend
  const capabilities = {
    write: writable,
    list,
    createOnly: writable && createOnly,
    compareAndSwap: writable && compareAndSwap,
    objectsWithinObjects
  }
  const healthy = json(JSON.stringify({ status: "ok", capabilities }))
  const asked: Effect.Effect<boolean, Exclude<HeadError, { readonly _tag: "ObjectNotFound" }>> = storage.exists(probe)
    .pipe(
      Effect.timeoutFail({
        duration: probeLimit,
        onTimeout: () => new StorageTimeout({ backend, operation: "exists", limit: Duration.decode(probeLimit) })
      })
    )
  return Effect.map(
    Effect.cachedWithTTL(Effect.either(asked), "1 second"),
    (state) => (method: string): Objects.Answer =>
      Effect.map(state, (state) =>
        state._tag === "Right"
          ? healthy
          // Whatever it is, it is not of the one who asks.
          : failure(state.left, method, { status: Math.max(503, statusOf(state.left)) }))
  )
}

// Origins (https://fetch.spec.whatwg.org/#http-cors-protocol)

const requestHeaders = [
  "accept",
  "authorization",
  "content-type",
  "if-match",
  "if-modified-since",
  "if-none-match",
  "if-range",
  "if-unmodified-since",
  "range",
  // What tracers add.
  "b3",
  "traceparent"
]

const exposedHeaders = [
  "accept-ranges",
  "content-length",
  "content-range",
  "etag",
  "last-modified",
  "retry-after",
  checksumHeader,
  errorHeader
]

const preflightHeaders = (writable: boolean) => ({
  "access-control-allow-methods": writable ? `${reads}, PUT, DELETE` : reads,
  "access-control-allow-headers": requestHeaders.join(", "),
  "access-control-max-age": "600"
})

const isAllowed = (origin: string, origins: ReadonlyArray<string>): boolean =>
  origins.includes("*") || origins.includes(origin)

const withOrigin = ({ headers }: Request, origins: ReadonlyArray<string>, response: Response): Response => {
  if (origins.length === 0) return response
  const { origin } = headers
  return HttpServerResponse.setHeaders(response, {
    vary: "origin",
    ...(origin !== undefined && isAllowed(origin, origins) && {
      "access-control-allow-origin": origin,
      "access-control-expose-headers": exposedHeaders.join(", ")
    })
  })
}

/** A browser lets any page open a WebSocket to anywhere, and only says which page it is. */
const isForeignSocket = ({ headers }: Request, origins: ReadonlyArray<string>): boolean => {
  const { host, origin, upgrade } = headers
  return upgrade !== undefined && origin !== undefined && !isAllowed(origin, origins) &&
    origin.replace(/^[a-z]+:\/\//i, "") !== host
}
