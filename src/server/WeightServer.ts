/**
 * Any storage over HTTP.
 *
 * @module WeightServer
 * @since 0.1.0
 */
import type * as HttpApp from "@effect/platform/HttpApp"
import * as HttpRouter from "@effect/platform/HttpRouter"
import * as HttpServer from "@effect/platform/HttpServer"
import * as HttpServerRequest from "@effect/platform/HttpServerRequest"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import type * as Scope from "effect/Scope"
import * as listing from "../internal/server/listing.js"
import * as objects from "../internal/server/objects.js"
import { failure, json, wrong } from "../internal/server/respond.js"
import * as Transfers from "../internal/server/transfers.js"
import { decodeKey } from "../internal/wire.js"
import * as Storage from "../Storage.js"
import { UnsupportedOperation } from "../StorageError.js"

/**
 * @since 0.1.0
 * @category models
 */
export interface Options {
  /** Whether objects can be saved and removed. Default: they cannot. */
  readonly writable?: boolean
}

const makeApp = (
  options: Options
): Effect.Effect<HttpApp.Default<never, Scope.Scope>, UnsupportedOperation, Storage.Storage | Scope.Scope> =>
  Effect.gen(function*() {
    const storage = yield* Storage.Storage
    const backend = storage.backend.name
    const writable = options.writable === true
    const transfers = yield* Transfers.make(backend, {
      atOnce: 1024,
      idleLimit: 60_000,
      deadline: Duration.seconds(10)
    })
    const object = objects.make(storage, { transfers, maxBody: Infinity, redirect: undefined })
    const list = listing.make(storage, transfers)

    const health = Effect.as(
      storage.exists("health"),
      json(JSON.stringify({
        status: "ok",
        capabilities: (({ compareAndSwap, createOnly, list, objectsWithinObjects, write }) => ({
          write: writable && write,
          list,
          createOnly: writable && createOnly,
          compareAndSwap: writable && compareAndSwap,
          objectsWithinObjects
        }))(storage.backend.capabilities)
      }))
    )

    const onObject = (request: HttpServerRequest.HttpServerRequest, key: string): objects.Answer => {
      switch (request.method) {
        case "GET":
          return object.get(request, key)
        case "HEAD":
          return object.head(request, key)
        case "PUT":
        case "DELETE":
          if (writable) return request.method === "PUT" ? object.put(request, key) : object.remove(request, key)
      }
      return Effect.succeed(failure(
        new UnsupportedOperation({
          backend,
          operation: request.method === "PUT" ? "save" : request.method === "DELETE" ? "remove" : request.method,
          key,
          reason: "the server only reads"
        }),
        request.method,
        { status: 405, headers: { allow: writable ? "GET, HEAD, PUT, DELETE" : "GET, HEAD" } }
      ))
    }

    const answer = (request: HttpServerRequest.HttpServerRequest): objects.Answer => {
      const question = request.url.indexOf("?")
      const path = question === -1 ? request.url : request.url.slice(0, question)
      if (path.startsWith("/objects/")) {
        return Option.match(decodeKey(path.slice("/objects/".length)), {
          onNone: () => Effect.succeed(wrong(400, "the path has a percent-escape that stands for no character")),
          onSome: (key) => onObject(request, key)
        })
      }
      switch (path) {
        case "/objects":
          return list(request, new URLSearchParams(question === -1 ? "" : request.url.slice(question + 1)))
        case "/health":
          return health
      }
      return Effect.succeed(wrong(404, "there is nothing at this path"))
    }

    return Effect.flatMap(
      HttpServerRequest.HttpServerRequest,
      (request) => Effect.catchAll(answer(request), (error) => Effect.succeed(failure(error, request.method)))
    )
  })

/**
 * @since 0.1.0
 * @category constructors
 */
export const router = (
  options: Options = {}
): Effect.Effect<HttpRouter.HttpRouter, UnsupportedOperation, Storage.Storage | Scope.Scope> =>
  Effect.map(makeApp(options), (app) => HttpRouter.mountApp(HttpRouter.empty, "/", app))

/**
 * @since 0.1.0
 * @category layers
 */
export const layer = (
  options: Options = {}
): Layer.Layer<never, UnsupportedOperation, HttpServer.HttpServer | Storage.Storage> =>
  Layer.scopedDiscard(Effect.flatMap(makeApp(options), (app) => HttpServer.serveEffect(app)))
