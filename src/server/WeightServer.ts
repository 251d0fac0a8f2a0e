/**
 * Any storage over HTTP, for many clients: other services, edge devices, browsers, `curl`.
 *
 * - `GET`, `HEAD` and, where it is writable, `PUT` and `DELETE` of `/objects/<key>`, the key percent-encoded, with ranges
 *   and conditions as RFC 9110 says; bodies are streamed, and saved all or nothing.
 * - `GET /objects?prefix=&startAfter=&delimiter=/&limit=` lists a page as JSON, or everything as lines of JSON with
 *   `accept: application/x-ndjson`.
 * - `GET /health` tells whether the storage can be reached, `/metrics` the metrics of the process in the format of
 *   Prometheus, `/openapi.json` all of this for programs and `/docs` for people.
 * - A WebSocket on `/` takes `GET layer 0` and the like, as the first Surfing Weights did.
 *
 * A failure is the JSON of a `StorageError` with a status that fits. One that comes when part of an object is out breaks
 * the connection, so that no client takes the part for the whole.
 *
 * `layer` serves on the `HttpServer` in the context. What concerns connections is set on that: with Node's, give
 * `createServer` a `headersTimeout`, and `requestTimeout: 0` where the server is writable, since it counts the whole of an
 * upload and the `idleLimit` here does not.
 *
 * @module WeightServer
 * @since 0.1.0
 */
import * as Headers from "@effect/platform/Headers"
import type * as HttpApp from "@effect/platform/HttpApp"
import * as HttpMiddleware from "@effect/platform/HttpMiddleware"
import * as HttpRouter from "@effect/platform/HttpRouter"
import * as HttpServer from "@effect/platform/HttpServer"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Redacted from "effect/Redacted"
import type * as Scope from "effect/Scope"
import { isTraced } from "../internal/observe.js"
import * as App from "../internal/server/app.js"
import { nameOf } from "../internal/server/webSocket.js"
import * as Storage from "../Storage.js"
import { UnsupportedOperation } from "../StorageError.js"

/**
 * A bearer token and what it is good for; whoever may write may read, too.
 *
 * @since 0.1.0
 * @category models
 */
export interface Token {
  readonly token: Redacted.Redacted
  readonly scope: "read" | "write"
}

/**
 * An app's own way to decide who may do what: it gets the routes of objects, listings, metrics and the WebSocket, and
 * answers in their stead where it must.
 *
 * @since 0.1.0
 * @category models
 */
export type Middleware = (app: HttpApp.Default<never, Scope.Scope>) => HttpApp.Default<never, Scope.Scope>

/**
 * Every option has a default; durations may be `"30 seconds"` and the like.
 *
 * @since 0.1.0
 * @category models
 */
export interface Options {
  /** Whether objects can be saved and removed. Default: they cannot. */
  readonly writable?: boolean
  /**
   * Who may do it: those with one of these tokens, or whom a middleware lets through. `/health`, `/openapi.json` and
   * `/docs` are open to all. Default: anybody, and then a writable server serves on a loopback address alone, and saves
   * and removes nothing under another name than loopback's, by which a web page might have come.
   */
  readonly auth?: { readonly tokens: ReadonlyArray<Token> } | Middleware
  /**
   * The web origins whose pages may use it, `https://app.example` or `*` for all (CORS). Default: none.
   */
  readonly origins?: ReadonlyArray<string>
  /**
   * Downloads, uploads and listings at once. Beyond them the answer is 503, which clients retry. Each holds up to half a
   * mebibyte of an object. Default: 1024.
   */
  readonly maxTransfers?: number
  /** The largest object that can be saved, in bytes; more is 413. Default: any size. */
  readonly maxBodySize?: number
  /** How long a client may take nothing of what it is sent, or send nothing of what it saves. Default: one minute. */
  readonly idleLimit?: Duration.DurationInput
  /** How long transfers may go on when the server stops, before they are broken off. Default: 30 seconds. */
  readonly shutdownDeadline?: Duration.DurationInput
  /**
   * Answers `GET` of an object with a URL at which the store itself serves it, where the store gives such, so that the
   * bytes do not pass through here. The URL is good for so long. Ranges and conditions are then the store's to answer.
   * Default: the bytes pass through here.
   */
  readonly redirect?: { readonly expiresIn: Duration.DurationInput }
  /** The WebSocket on `/`, which only reads. */
  readonly webSocket?: {
    /** The key of what `GET <component> <id>` asks for. Default: `webSocketKey`. */
    readonly toKey?: (component: string, id: number) => string
    /** The largest object that is sent, in bytes, of at most 255 MiB; it takes five times that in memory. Default: 128 MiB. */
    readonly maxObjectSize?: number
  }
}

/**
 * Where a weight server listens unless you choose otherwise: for `NodeHttpServer.layer` and the like.
 *
 * @since 0.1.0
 * @category constants
 */
export const defaultAddress = { host: "127.0.0.1", port: 8765 } as const

/**
 * The key of a component as the first Surfing Weights named its files: `layer_0.pt` for `layer 0`, and likewise for
 * `block` and every name with an underscore, but `embeddings.pt` for `embeddings 0`.
 *
 * @since 0.1.0
 * @category utils
 */
export const webSocketKey = (component: string, id: number): string => `${nameOf(component, id)}.pt`

/**
 * The server as a router, to be mounted into an app that has its own server. It belongs to the scope: when that ends,
 * transfers are let finish as `shutdownDeadline` says. Fails with `UnsupportedOperation` where an option is wrong.
 *
 * With `redirect`, have the app's tracer leave out the header `location`, which is a secret: add it to
 * `Headers.currentRedactedNames`.
 *
 * @since 0.1.0
 * @category constructors
 * @example
 * ```ts
 * import { HttpRouter, HttpServer } from "@effect/platform"
 * import { Effect, Layer } from "effect"
 * import { WeightServer } from "surfing-weights"
 *
 * // Objects are at /weights/objects/<key>.
 * const AppLive = WeightServer.router().pipe(
 *   Effect.map((weights) => HttpRouter.mount(HttpRouter.empty, "/weights", weights)),
 *   Effect.map((app) => HttpServer.serve(app)),
 *   Layer.unwrapScoped
 * )
 * ```
 */
export const router = (
  options: Options = {}
): Effect.Effect<HttpRouter.HttpRouter, UnsupportedOperation, Storage.Storage | Scope.Scope> =>
  Effect.flatMap(
    make(options, false),
    ({ app, drain }) =>
      Effect.as(Effect.addFinalizer(() => drain), HttpRouter.empty.pipe(HttpRouter.mountApp("/", app)))
  )

/**
 * Serves the storage on the `HttpServer` in the context. Fails with `UnsupportedOperation` where an option is wrong, and
 * where the server would be writable by anybody who can reach it.
 *
 * @since 0.1.0
 * @category layers
 * @example
 * ```ts
 * import * as NodeHttpServer from "@effect/platform-node/NodeHttpServer"
 * import { Layer } from "effect"
 * import { createServer } from "node:http"
 * import { FileSystemStorage, WeightServer } from "surfing-weights"
 *
 * const ServerLive = WeightServer.layer().pipe(
 *   Layer.provide(FileSystemStorage.layer({ directory: "./weights" })),
 *   Layer.provide(NodeHttpServer.layer(() => createServer(), WeightServer.defaultAddress))
 * )
 * ```
 */
export const layer = (
  options: Options = {}
): Layer.Layer<never, UnsupportedOperation, HttpServer.HttpServer | Storage.Storage> =>
  Layer.scopedDiscard(Effect.flatMap(make(options, true), ({ app, drain }) =>
    // The last finalizer is the first to run.
    Effect.zipRight(quietly(HttpServer.serveEffect(app)), Effect.addFinalizer(() => drain))))

const quietly = <E, R>(serving: Effect.Effect<void, E, R>): Effect.Effect<void, E, R> =>
  Effect.flatMap(isTraced, (isTraced) =>
    serving.pipe(
      // The URL of a redirect is a secret.
      Effect.locallyWith(Headers.currentRedactedNames, (names) => [...names, "location"]),
      // A span costs more than a small answer, and without a tracer nobody would see it.
      Effect.locallyWith(HttpMiddleware.currentTracerDisabledWhen, (isDisabled) => isTraced ? isDisabled : () => true)
    ))

const MiB = 1024 * 1024

const isLoopback = (address: HttpServer.Address): boolean =>
  address._tag === "UnixAddress" || /^(127\.|::1$|::ffff:127\.|localhost$)/.test(address.hostname)

const isWhole = (value: number): boolean => Number.isSafeInteger(value) && value > 0

/** What is wrong with the options, or `undefined` where nothing is. */
const problem = (
  options: Options,
  settings: App.Settings,
  server: Option.Option<HttpServer.HttpServer>
): string | undefined => {
  const { auth, maxObjectSize, maxTransfers, origins } = settings
  if (!isWhole(maxTransfers)) return `maxTransfers is a whole number from 1 up, not ${maxTransfers}`
  if (options.maxBodySize !== undefined && !isWhole(options.maxBodySize)) {
    return `maxBodySize is a whole number of bytes from 1 up, not ${options.maxBodySize}`
  }
  if (!isWhole(maxObjectSize) || maxObjectSize > 255 * MiB) {
    return `webSocket.maxObjectSize is a whole number of bytes up to 255 MiB, not ${maxObjectSize}`
  }
  if (!(settings.idleLimit > 0)) return "idleLimit is longer than no time at all"
  if (auth !== undefined && typeof auth !== "function") {
    if (auth.length === 0) return "auth has no token, so nobody could get in"
    if (auth.some(({ token }) => !/^[\x21-\x7e]{16,}$/.test(Redacted.value(token)))) {
      return "a token has 16 characters of ASCII or more, and no space"
    }
  }
  const bad = origins.find((origin) => origin !== "*" && !/^[a-z][a-z\d+.-]*:\/\/[^/?#\s,]+$/i.test(origin))
  if (bad !== undefined) return `an origin is like https://app.example, without a path, and not ${JSON.stringify(bad)}`
  const expiresIn = settings.redirect === undefined ? 1 : Duration.toSeconds(settings.redirect)
  if (!(expiresIn >= 1 && expiresIn <= 7 * 24 * 3600)) return "redirect.expiresIn is from one second to seven days"
  if (settings.writable && auth === undefined && !Option.exists(server, ({ address }) => isLoopback(address))) {
    return "it would be writable by anybody who can reach it; give it auth, or a loopback address"
  }
  return undefined
}

const make = (
  options: Options,
  isAlone: boolean
): Effect.Effect<App.Server, UnsupportedOperation, Storage.Storage | Scope.Scope> =>
  Effect.gen(function*() {
    const storage = yield* Storage.Storage
    const server = yield* Effect.serviceOption(HttpServer.HttpServer)
    const settings: App.Settings = {
      writable: options.writable === true,
      auth: typeof options.auth === "object" ? options.auth.tokens : options.auth,
      origins: options.origins ?? [],
      maxTransfers: options.maxTransfers ?? 1024,
      maxBodySize: options.maxBodySize ?? Infinity,
      idleLimit: Duration.toMillis(options.idleLimit ?? "1 minute"),
      shutdownDeadline: Duration.decode(options.shutdownDeadline ?? "30 seconds"),
      redirect: options.redirect && Duration.decode(options.redirect.expiresIn),
      isAlone: isAlone && typeof options.auth !== "function",
      toKey: options.webSocket?.toKey ?? webSocketKey,
      maxObjectSize: options.webSocket?.maxObjectSize ?? 128 * MiB
    }
    const reason = problem(options, settings, server)
    if (reason !== undefined) {
      return yield* new UnsupportedOperation({ backend: storage.backend.name, operation: "serve", reason })
    }
    return yield* App.make(storage, settings)
  })
