/**
 * Routing, authorization and the responses to failures. The routes are those of the definition. They are looked up in a table,
 * since the platform's router takes a third more processor time for an object of 16 KiB in memory, ignores case and extra
 * slashes in paths, and does not respond with a 405.
 */
import * as HttpApi from "@effect/platform/HttpApi"
import { HttpApiDecodeError } from "@effect/platform/HttpApiError"
import * as HttpApp from "@effect/platform/HttpApp"
import * as HttpMiddleware from "@effect/platform/HttpMiddleware"
import * as HttpServerRequest from "@effect/platform/HttpServerRequest"
import * as HttpServerResponse from "@effect/platform/HttpServerResponse"
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as ExecutionStrategy from "effect/ExecutionStrategy"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import * as Scope from "effect/Scope"
import { checksumHeader, decodeKey, errorHeader } from "../../internal/protocol.js"
import type * as Storage from "../../Storage.js"
import type { ObjectInfo } from "../../StorageBackend.js"
import { InvalidKey, UnexpectedStorageError, UnsupportedOperation } from "../../StorageError.js"
import { type Access, type EndpointName, ListQuery, makeApi } from "./api.js"
import * as Authorization from "./authorization.js"
import { getObject, headObject } from "./download.js"
import { makeHealth } from "./health.js"
import * as Hub from "./hub/hub.js"
import { listObjects } from "./listing.js"
import { makeMetrics } from "./metrics.js"
import { endWithConnection } from "./nodeConnection.js"
import { Repetitions } from "./repetitions.js"
import { failure, json, logFailure, refusal, serverName } from "./responses.js"
import { type Answer, type App, type Request, type Response, type Server, type Settings, targetOf } from "./server.js"
import { Transfers } from "./transfers.js"
import { afterBody, hasBody } from "./unreadBody.js"
import { deleteObject, putObject } from "./upload.js"
import { serveWebSocket } from "./webSocket.js"

type Api = ReturnType<typeof makeApi>

/** Handles a request; `rest` is what follows the fixed part of the path. */
type Handler = (request: Request, rest: string, query: string) => Answer

/** The handlers of one path, by method. */
interface Route {
  readonly isPublic: boolean
  readonly handlers: Map<string, Handler>
}

/** The routes of a definition. A path with a parameter takes everything below its fixed part. */
class Table {
  readonly #exact = new Map<string, Route>()
  readonly #below = new Map<string, Route>()

  constructor(api: Api, handlers: Readonly<Record<string, Handler>>) {
    HttpApi.reflect(api, {
      onGroup: () => {},
      onEndpoint: ({ endpoint: { method, name, path }, group }) => {
        const parameter = path.indexOf(":")
        const [routes, fixed] = parameter === -1 ? [this.#exact, path] : [this.#below, path.slice(0, parameter)]
        const handler = handlers[name]
        if (handler === undefined) return
        const route = routes.get(fixed)
        if (route !== undefined) route.handlers.set(method, handler)
        else routes.set(fixed, { isPublic: group.identifier === publicAccess, handlers: new Map([[method, handler]]) })
      }
    })
  }

  find(path: string): { readonly route: Route; readonly rest: string } | undefined {
    const route = this.#exact.get(path)
    if (route !== undefined) return { route, rest: "" }
    for (const [fixed, route] of this.#below) {
      if (path.startsWith(fixed)) return { route, rest: path.slice(fixed.length) }
    }
    return undefined
  }
}

const publicAccess: Access = "public"

const handlersOf = (
  server: Server,
  api: Api
): Effect.Effect<Readonly<Record<EndpointName, Handler>>, never, Scope.Scope> =>
  Effect.gen(function*() {
    const onObject =
      (handle: (server: Server, request: Request, key: string) => Answer): Handler => (request, rest) => {
        const key = decodeKey(rest)
        if (Option.isSome(key)) return handle(server, request, key.value)
        const reason = "the path has an invalid percent-encoding"
        return Effect.fail(new InvalidKey({ backend: serverName, key: rest, reason }))
      }
    const health = yield* makeHealth(server)
    const metrics = makeMetrics()
    const hub = yield* Hub.make(server)
    const documentation = Effect.promise(() => import("./documentation.js"))
    return {
      get: onObject(getObject),
      head: onObject(headObject),
      put: onObject(putObject),
      delete: onObject(deleteObject),
      list: (request, _, query) =>
        Effect.matchEffect(decodeQuery(Object.fromEntries(new URLSearchParams(query))), {
          onFailure: (error) => Effect.map(HttpApiDecodeError.fromParseError(error), invalidQuery),
          onSuccess: (query) => listObjects(server, request, query)
        }),
      metrics: () => metrics,
      health,
      openApi: () => Effect.map(documentation, ({ openApiResponse }) => openApiResponse(api)),
      docs: (request) => Effect.flatMap(documentation, ({ docsResponse }) => docsResponse(api, request)),
      webSocket: (request) => serveWebSocket(server, request),
      hubModel: hub.api,
      hubRevision: hub.api,
      hubTree: hub.api,
      hubPaths: hub.api,
      hubFile: hub.files
    }
  })

const decodeQuery = Schema.decodeUnknown(ListQuery)

const invalidQuery = (error: HttpApiDecodeError): Response =>
  json(JSON.stringify(Schema.encodeSync(HttpApiDecodeError)(error)), 400)

/** The server as an app, and what to run before it stops. */
export interface Routes {
  readonly app: App
  /** Until it ends, requests are answered. */
  readonly drain: Effect.Effect<void>
}

export const make = (storage: Storage.Service, settings: Settings): Effect.Effect<Routes, never, Scope.Scope> =>
  Effect.gen(function*() {
    const transfers = new Transfers(settings, {
      runtime: yield* Effect.runtime<never>(),
      logsAccess: settings.accessLog
    })
    // Closed after the requests have been answered, since it is older than what waits for them.
    const scope = yield* Scope.fork(yield* Effect.scope, ExecutionStrategy.parallel)
    const saves = new Repetitions<ObjectInfo>(scope)
    const removals = new Repetitions<void>(scope)
    const server: Server = { storage, settings, transfers, saves, removals }
    const { auth, hub, name, writable } = settings
    const authorization = auth === undefined ? "none" : typeof auth === "object" ? "tokens" : "own"
    const api = makeApi(name, { authorization, writable }, hub)
    const table = new Table(api, yield* handlersOf(server, api))
    const authorize = authorizeBy(server)

    const respond = (request: Request): Effect.Effect<Response, never, Scope.Scope> => {
      const { path, query } = targetOf(request)
      const found = table.find(path)
      const refused = found?.route.isPublic === true ? undefined : authorize(request)
      const answer = refused !== undefined
        ? Effect.succeed(refused)
        : found === undefined
        ? Effect.succeed(refusal(404, "there is nothing at this path"))
        : handlerOf(server, found.route, request)(request, found.rest, query)
      return settle(server, request, answer)
    }
    const guarded = typeof settings.auth === "function"
      ? settings.auth(Effect.flatMap(HttpServerRequest.HttpServerRequest, respond))
      : undefined
    const answer = (
      request: Request
    ): Effect.Effect<Response, never, HttpServerRequest.HttpServerRequest | Scope.Scope> => {
      endWithConnection(request)
      if (isBrowserAtRoot(request)) return settle(server, request, Effect.succeed(toDocs))
      return guarded === undefined || table.find(targetOf(request).path)?.route.isPublic === true
        ? respond(request)
        : guarded
    }
    const app = withOrigins(settings, Effect.flatMap(HttpServerRequest.HttpServerRequest, answer))
    return {
      app: Effect.flatMap(
        HttpServerRequest.HttpServerRequest,
        (request) => transfers.requests.watch(Effect.interruptible(app), request)
      ),
      drain: transfers.drain
    }
  })

/** Whether a person has opened the address of the server in a browser; the clients of the WebSocket ask for no page. */
const isBrowserAtRoot = (request: Request): boolean =>
  // First what costs least, since it is asked of each request.
  request.method === "GET" && request.headers["accept"]?.includes("text/html") === true &&
  request.headers["upgrade"] === undefined && targetOf(request).path === "/"

const toDocs: Response = HttpServerResponse.empty({ status: 302, headers: { location: "docs", vary: "accept" } })

const handlerOf = (server: Server, { handlers }: Route, { method }: Request): Handler => {
  const handler = handlers.get(method) ?? (method === "HEAD" ? handlers.get("GET") : undefined)
  if (handler !== undefined) return handler
  const allow = [...handlers.keys()].flatMap((method) => method === "GET" ? [method, "HEAD"] : method)
  const allowed = [...new Set(allow)].join(", ")
  const reason = `${method} is not supported here; use ${allowed}`
  const error = new UnsupportedOperation({ backend: serverName, reason })
  return () => Effect.succeed(failure(server, error, method, { status: 405, headers: { allow: allowed } }))
}

const authorizeBy = (server: Server): (request: Request) => Response | undefined => {
  const { auth, origins, writable } = server.settings
  const rules = [
    Authorization.byOrigin(isAllowedBy(origins)),
    ...(writable && auth === undefined ? [Authorization.byLoopbackName] : []),
    ...(typeof auth === "object" ? [Authorization.byTokens(auth.tokens)] : [])
  ]
  return (request) => {
    for (const rule of rules) {
      const refused = rule(server, request, Authorization.isWrite(request) ? "write" : "read")
      if (refused !== undefined) return refused
    }
    return undefined
  }
}

/** The response to a request, whatever becomes of it. */
const settle = (
  server: Server,
  request: Request,
  answer: Answer
): Effect.Effect<Response, never, Scope.Scope> => {
  const { method, url } = request
  const respond = (response: Response): Effect.Effect<Response, never, Scope.Scope> => {
    const last = server.transfers.isDraining ? HttpServerResponse.setHeader(response, "connection", "close") : response
    return response.status >= 400 && hasBody(request) ? afterBody(request, last) : Effect.succeed(last)
  }
  return Effect.matchCauseEffect(answer, {
    onSuccess: respond,
    onFailure: (cause) =>
      Either.match(Cause.failureOrCause(cause), {
        onLeft: (error) => Effect.zipRight(logFailure(request, error), respond(failure(server, error, method))),
        onRight: (defect) =>
          Cause.isInterruptedOnly(defect) ? Effect.failCause(defect) : Effect.zipRight(
            Effect.logError(`${method} ${JSON.stringify(url)} failed with a defect`, defect),
            respond(
              failure(
                server,
                new UnexpectedStorageError({ backend: serverName, reason: "the server failed with a defect" }),
                method
              )
            )
          )
      })
  })
}

// Origins (https://fetch.spec.whatwg.org/#http-cors-protocol)

const isAllowedBy = (origins: ReadonlyArray<string>) => (origin: string): boolean =>
  origins.includes("*") || origins.includes(origin)

/** Of the routes of a hub. */
const hubHeaders = ["link", "x-error-code", "x-error-message", "x-linked-etag", "x-linked-size", "x-repo-commit"]

const exposedHeaders = [
  "accept-ranges",
  "content-encoding",
  "content-length",
  "content-range",
  "etag",
  "last-modified",
  "retry-after",
  checksumHeader,
  errorHeader,
  ...hubHeaders,
  // Metadata, whose names are not known. Browsers that do not support this ignore it.
  "*"
]

/** Allows web pages of these origins. */
const withOrigins = ({ auth, hub, origins, writable }: Settings, app: App): App => {
  if (origins.length === 0) return app
  const cors = HttpMiddleware.cors({
    allowedOrigins: isAllowedBy(origins),
    allowedMethods: ["GET", "HEAD", ...(writable ? ["PUT", "DELETE"] : []), ...(hub ? ["POST"] : [])],
    exposedHeaders,
    maxAge: 600
  })
  // The middleware varies only the responses to origins that it allows.
  const fields = ["origin", "accept-encoding", ...(auth === undefined ? [] : ["authorization"])].join(", ")
  const vary = HttpApp.appendPreResponseHandler((_, response) =>
    Effect.succeed(HttpServerResponse.setHeader(response, "vary", fields))
  )
  return cors(Effect.zipRight(vary, app))
}
