/**
 * Serves any storage over HTTP to many clients: other services, edge devices, browsers, `curl`.
 *
 * - `GET`, `HEAD` and, where it is writable, `PUT` and `DELETE` of `/objects/<key>`, the key percent-encoded, with ranges
 *   and preconditions as in RFC 9110. Bodies are streamed; saves are all or nothing. Attributes are the header fields of the
 *   same names, metadata is `x-object-meta-<name>`.
 * - `GET /objects?prefix=&startAfter=&delimiter=/&limit=` lists a page as JSON, or with `accept: application/x-ndjson` every
 *   entry as a line of JSON.
 * - `GET /health` is whether the storage can be reached, `/metrics` the metrics of the process in the format of Prometheus,
 *   `/openapi.json` the definition of the server, and `/docs` the same as a page.
 * - A browser that opens `/` is redirected to `/docs`.
 * - With `hub` it answers what clients of a model hub ask: `HF_ENDPOINT=<url>` is all that they need to know.
 * - A WebSocket on `/` accepts `GET layer 0` and the like, as the first Surfing Weights did.
 *
 * `PUT` checks the body against `Content-Digest`, `Repr-Digest` (RFC 9530; `sha-512`, `sha-256`, `sha`, `md5`) and
 * `Content-MD5`, and refuses what is to be refused before it answers `Expect: 100-continue`.
 *
 * A failure is a `StorageError` as JSON, with a status that fits; it names no path, host or bucket of the server, which logs
 * those failures. Where an object cannot be read to its end after the response has begun, the connection breaks, so that no
 * client takes a part for the whole object.
 *
 * `layer` serves on the `HttpServer` in the context. Provide that before the storage, so that it listens once the storage is
 * ready. Limits of connections are set there: for Node's, give `createServer` a `headersTimeout`, and `requestTimeout: 0`
 * where the server is writable, since that limits whole uploads, where `idleTimeout` does not.
 *
 * @module WeightServer
 * @since 0.1.0
 */
import type * as FileSystem from "@effect/platform/FileSystem"
import * as Headers from "@effect/platform/Headers"
import type * as HttpApp from "@effect/platform/HttpApp"
import * as HttpMiddleware from "@effect/platform/HttpMiddleware"
import * as HttpRouter from "@effect/platform/HttpRouter"
import * as HttpServer from "@effect/platform/HttpServer"
import * as Config from "effect/Config"
import type { ConfigError } from "effect/ConfigError"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Redacted from "effect/Redacted"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import { isTraced } from "../internal/observability.js"
import {
  boolean,
  callback,
  count,
  decode,
  duration,
  hidden,
  must,
  oneOf,
  redacted,
  size,
  string
} from "../internal/options.js"
import * as Storage from "../Storage.js"
import { InvalidOptions } from "../StorageError.js"
import { continueWhenRead } from "./http/nodeContinue.js"
import { closeConnections, expectServer } from "./http/nodeServers.js"
import { serverName } from "./http/responses.js"
import type * as Routes from "./http/routes.js"
import { defaultCacheControl, type Settings } from "./http/server.js"
import { nameOf } from "./http/webSocket.js"

/**
 * A bearer token, and what it allows: `write` includes `read`.
 *
 * @since 0.1.0
 * @category models
 */
export interface Token {
  /** At least 16 printable ASCII characters, without spaces. */
  readonly token: Redacted.Redacted
  readonly scope: "read" | "write"
}

/**
 * Authorization of your own: it receives the app behind objects, listings, metrics and the WebSocket, and responds instead
 * of it where a request is not allowed.
 *
 * @since 0.1.0
 * @category models
 */
export type Middleware = (app: HttpApp.Default<never, Scope.Scope>) => HttpApp.Default<never, Scope.Scope>

/**
 * Every option has a default. Sizes are in bytes; durations may be strings such as `"30 seconds"`.
 *
 * @since 0.1.0
 * @category models
 */
export interface Options {
  /**
   * The public name of the server, as which it is the `backend` of failures that clients receive. They see neither paths nor
   * buckets nor hosts of the storage. Default: `WeightServer`.
   */
  readonly name?: string | undefined
  /** Whether objects can be saved and removed. Default: false. */
  readonly writable?: boolean | undefined
  /**
   * Requires one of these bearer tokens, or what the middleware decides. `/health`, `/openapi.json` and `/docs` are public.
   * Default: everything is public; then a writable server must listen on a loopback address, and accepts `PUT` and `DELETE`
   * only under a loopback name, so that no web page can send them.
   */
  readonly auth?: { readonly tokens: ReadonlyArray<Token> } | Middleware | undefined
  /**
   * The `Cache-Control` of objects that have none among their attributes, for instance `public, max-age=31536000, immutable`
   * where a CDN is to keep objects that are never replaced. With `auth` it must be `private`, `no-cache` or `no-store`, so
   * that no CDN gives objects to others. Default: `no-cache`, so that caches ask each time whether an object has changed.
   */
  readonly cacheControl?: string | undefined
  /** The web origins whose pages may use the server (CORS), such as `https://app.example`, or `*` for all. Default: none. */
  readonly origins?: ReadonlyArray<string> | undefined
  /**
   * The number of downloads, uploads and listings at once, each of which holds up to 512 KiB of an object. More are refused
   * with a 503, which clients retry. Default: 1024.
   */
  readonly maxTransfers?: number | undefined
  /** The largest object that can be saved; larger ones are refused with a 413. Default: unlimited. */
  readonly maxBodySize?: FileSystem.SizeInput | undefined
  /** How long a client may neither receive nor send anything during a transfer, until it is cut off. Default: 1 minute. */
  readonly idleTimeout?: Duration.DurationInput | undefined
  /** How long transfers may continue when the server shuts down, until they are cut off. Default: 30 seconds. */
  readonly shutdownTimeout?: Duration.DurationInput | undefined
  /** Whether each request is logged, at level info, once its response is sent. Default: false. */
  readonly accessLog?: boolean | undefined
  /**
   * Answers `GET` of an object with a redirect to a presigned URL that is valid for this long, from one second to seven days,
   * where the storage supports that: the bytes then do not pass through the server, and ranges and preconditions are the
   * store's to check. Default: the bytes pass through the server.
   */
  readonly redirect?: { readonly expiresIn: Duration.DurationInput } | undefined
  /**
   * Whether the server is also a model hub like Hugging Face's, for `huggingface_hub`, `transformers`, `@huggingface/hub`,
   * transformers.js and the like, which then load the objects under `<org>/<name>/` as the files of the model `<org>/<name>`,
   * with a `read` token where one is required.
   *
   * - A model has one revision, `main`, whose commit changes when, and only when, one of its files does. Each request lists the
   *   model for it. Earlier commits are not kept: they are not found.
   * - Clients name files by SHA-256. Where the storage does not have that as the checksum of an object, the server reads the
   *   object once, two objects at a time, and keeps the hash in its memory by the etag. Information about a model is there
   *   once its files are hashed, however long that takes; a client that asks for a single large file without it may have to be
   *   told to wait, by `HF_HUB_ETAG_TIMEOUT`, or to ask again.
   * - A proxy in front should set `X-Forwarded-Proto`, for the addresses of further pages of listings of over 1000 files.
   *
   * Default: false.
   */
  readonly hub?: boolean | undefined
  /** The WebSocket on `/`, which only reads. */
  readonly webSocket?: {
    /**
     * The key of the object that `GET <component> <id>` asks for: the component in lower case, the id as it was sent. Default:
     * `webSocketKey`.
     */
    readonly toKey?: ((component: string, id: string) => string) | undefined
    /** The largest object that is sent, up to 255 MiB: clients hold all of it as text. Default: 128 MiB. */
    readonly maxObjectSize?: FileSystem.SizeInput | undefined
  } | undefined
}

/**
 * The default address of weight servers, for `NodeHttpServer.layer` and the like.
 *
 * @since 0.1.0
 * @category constants
 */
export const defaultAddress = { host: "127.0.0.1", port: 8765 } as const

/**
 * The key of a component as the first Surfing Weights named its files: `layer_0.pt` for `layer 0`, and likewise for `block`
 * and names with an underscore, but `embeddings.pt` for `embeddings 0`, and likewise for other names and for those that a
 * model has once: `ln_f`, `embed_tokens`, `shared_embeddings`, `encoder_embeddings`, `decoder_embeddings`,
 * `encoder_final_layer_norm` and `decoder_final_layer_norm`.
 *
 * @since 0.1.0
 * @category utils
 */
export const webSocketKey = (component: string, id: string): string => `${nameOf({ component, id })}.pt`

/**
 * The server as a router, to be mounted into an app that has its own `HttpServer`. It belongs to the scope: when that
 * closes, transfers finish as `shutdownTimeout` says.
 *
 * With `redirect`, keep the header `location` out of the app's traces, since it is a secret: add it to
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
): Effect.Effect<HttpRouter.HttpRouter, InvalidOptions, Storage.Storage | Scope.Scope> =>
  expected(Effect.flatMap(
    make(options, { isMounted: true }),
    ({ app, drain }) => Effect.as(Effect.addFinalizer(() => drain), HttpRouter.mountApp(HttpRouter.empty, "/", app))
  ))

/**
 * Serves the storage on the `HttpServer` in the context.
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
 * // The storage is provided last: it is ready before the server listens, and released after the server has shut down.
 * const ServerLive = WeightServer.layer().pipe(
 *   Layer.provide(NodeHttpServer.layer(() => createServer(), WeightServer.defaultAddress)),
 *   Layer.provide(FileSystemStorage.layer({ directory: "./weights" }))
 * )
 * ```
 */
export const layer = (
  options: Options = {}
): Layer.Layer<never, InvalidOptions, HttpServer.HttpServer | Storage.Storage> =>
  Layer.scopedDiscard(expected(Effect.gen(function*() {
    const { app, drain } = yield* make(options, { isMounted: false })
    const { address } = yield* HttpServer.HttpServer
    yield* withoutSecrets(HttpServer.serveEffect(app))
    // The last finalizer runs first: requests are answered while the server drains.
    yield* Effect.addFinalizer(() => Effect.zipRight(drain, closeConnections(address)))
    yield* logListening(options, address)
  })))

/**
 * Serves the storage on the `HttpServer` in the context, with options from `Config`.
 *
 * @since 0.1.0
 * @category layers
 * @example
 * ```ts
 * import { Config } from "effect"
 * import { WeightServer } from "surfing-weights"
 *
 * const ServerLive = WeightServer.layerConfig({
 *   maxTransfers: Config.withDefault(Config.integer("MAX_TRANSFERS"), 1024),
 *   auth: Config.map(Config.redacted("READ_TOKEN"), (token) => ({ tokens: [{ token, scope: "read" as const }] }))
 * })
 * ```
 */
export const layerConfig = (
  options: Config.Config.Wrap<Options>
): Layer.Layer<never, InvalidOptions | ConfigError, HttpServer.HttpServer | Storage.Storage> =>
  Layer.unwrapEffect(expected(Effect.map(Config.unwrap(options), layer)))

/** Until it has run, requests to Node servers that nothing serves receive a 503. */
const expected = <A, E, R>(build: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> =>
  Effect.ensuring(build, Effect.sync(expectServer()))

const logListening = (
  { auth, writable = false }: Options,
  address: HttpServer.Address
): Effect.Effect<void, never, Storage.Storage> =>
  Effect.flatMap(Storage.Storage, ({ backend }) => {
    const access = writable && backend.capabilities.write ? "writable" : "read-only"
    const authorization = auth === undefined
      ? "no authorization"
      : "tokens" in auth
      ? "bearer tokens"
      : "own authorization"
    // Whether it uses TLS is not known here.
    const where = HttpServer.formatAddress(address).replace("http://", "")
    return Effect.logInfo(`listening on ${where} (storage: ${backend.name}, ${access}, ${authorization})`)
  })

/** Without a tracer there are no spans, which cost more than a small response; in spans, the URL of a redirect is hidden. */
const withoutSecrets = <E, R>(serving: Effect.Effect<void, E, R>): Effect.Effect<void, E, R> =>
  Effect.flatMap(isTraced, (isTraced) =>
    serving.pipe(
      Effect.locallyWith(Headers.currentRedactedNames, (names) => [...names, "location"]),
      Effect.locallyWith(HttpMiddleware.currentTracerDisabledWhen, (isDisabled) => isTraced ? isDisabled : () => true)
    ))

const MiB = 1024 * 1024

const isOrigin = (origin: string): boolean => origin === "*" || /^[a-z][a-z\d+.-]*:\/\/[^/?#\s,]+$/i.test(origin)

const isToken = (token: Redacted.Redacted): boolean => /^[\x21-\x7e]{16,}$/.test(Redacted.value(token))

const tokenSchema: Schema.Schema<Token> = Schema.Struct({
  token: must(
    redacted.pipe(Schema.filter(isToken)),
    "at least 16 printable ASCII characters without spaces, Redacted",
    hidden
  ),
  scope: oneOf("read", "write")
})

const schema: Schema.Schema<Omit<Settings, "isUnseen">, Options> = Schema.Struct({
  name: Schema.optionalWith(string("a name", (name) => name.trim() !== ""), { default: () => serverName }),
  writable: Schema.optionalWith(boolean, { default: () => false }),
  auth: Schema.optional(Schema.Union(
    Schema.Struct({
      tokens: Schema.Array(tokenSchema).pipe(
        Schema.minItems(1, { message: () => "must have at least one token, or all requests are refused" })
      )
    }),
    callback<Middleware>()
  )),
  origins: Schema.optionalWith(
    Schema.Array(string("* or an origin such as https://app.example, without a path", isOrigin)),
    {
      default: () => []
    }
  ),
  cacheControl: Schema.optionalWith(
    string("a header value such as max-age=60", (value) => /^[\x21-\x7e]([\x20-\x7e]*[\x21-\x7e])?$/.test(value)),
    { default: () => defaultCacheControl }
  ),
  maxTransfers: Schema.optionalWith(count(), { default: () => 1024 }),
  maxBodySize: Schema.optional(size()),
  idleTimeout: Schema.optionalWith(duration(), { default: () => 60_000 }),
  shutdownTimeout: Schema.optionalWith(duration(), { default: () => 30_000 }),
  accessLog: Schema.optionalWith(boolean, { default: () => false }),
  hub: Schema.optionalWith(boolean, { default: () => false }),
  redirect: Schema.optional(Schema.Struct({ expiresIn: duration({ min: 1000, max: 7 * 24 * 3600 * 1000 }) })),
  webSocket: Schema.optionalWith(
    Schema.Struct({
      toKey: Schema.optionalWith(callback<typeof webSocketKey>(), { default: () => webSocketKey }),
      maxObjectSize: Schema.optionalWith(size({ max: 255 * MiB, range: "1 byte to 255 MiB" }), {
        default: () => 128 * MiB
      })
    }),
    { default: () => ({ toKey: webSocketKey, maxObjectSize: 128 * MiB }) }
  )
})

const isLoopback = (address: HttpServer.Address): boolean =>
  address._tag === "UnixAddress" || /^(127\.|::1$|::ffff:127\.|localhost$)/.test(address.hostname)

/** Whether shared caches keep nothing, or ask each time. */
const isForOne = (cacheControl: string): boolean => {
  const directives = cacheControl.toLowerCase().split(",").map((directive) => directive.trim())
  return ["private", "no-cache", "no-store"].some((directive) => directives.includes(directive)) &&
    !directives.some((directive) => directive === "public" || directive.startsWith("s-maxage"))
}

const make = (
  options: Options,
  { isMounted }: { readonly isMounted: boolean }
): Effect.Effect<Routes.Routes, InvalidOptions, Storage.Storage | Scope.Scope> =>
  Effect.gen(function*() {
    const storage = yield* Storage.Storage
    const settings = yield* decode("WeightServer", schema, options)
    const { auth, cacheControl, writable } = settings
    if (auth !== undefined && !isForOne(cacheControl)) {
      return yield* new InvalidOptions({
        module: "WeightServer",
        option: "cacheControl",
        reason:
          "cacheControl must be private, no-cache or no-store where auth is required, so that shared caches give no " +
          `object to others (got ${JSON.stringify(cacheControl)})`
      })
    }
    const server = yield* Effect.serviceOption(HttpServer.HttpServer)
    if (writable && auth === undefined && !Option.exists(server, ({ address }) => isLoopback(address))) {
      return yield* new InvalidOptions({
        module: "WeightServer",
        option: "auth",
        reason: "auth is required where the server is writable and does not listen on a loopback address"
      })
    }
    if (Option.isSome(server)) yield* continueWhenRead(server.value.address)
    // What the server consists of is loaded when one is made, as it would make every app start later.
    const routes = yield* Effect.promise(() => import("./http/routes.js"))
    return yield* routes.make(storage, {
      ...settings,
      writable: writable && storage.backend.capabilities.write,
      isUnseen: !isMounted && typeof auth !== "function"
    })
  })
