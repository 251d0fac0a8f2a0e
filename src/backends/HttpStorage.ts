/**
 * Objects on another machine, over HTTP: those of a weight server, whatever storage is behind it, or with `static: true` the
 * files of any web server or CDN. It runs wherever there is an `HttpClient`, also in browsers.
 *
 * With a weight server the whole contract holds, and failures of the server have the same type on the client, with the
 * server's failure as their cause. Every request is retried as `retry` says, and nothing else retries, so that there is one
 * budget. A stream that breaks resumes at the byte where it broke, under the etag of the first response; a body of up to 64
 * KiB is read as a whole, and if it breaks, requested again as a whole.
 *
 * - A write with a precondition has an `Idempotency-Key`, by which the server recognises one that a proxy sends twice, or that is
 *   retried since its response was lost: it is carried out once, and is a success.
 * - A stream is saved with one request, as fast as the server reads it, and not retried once it has begun, since what was read
 *   of it cannot be read again. Bytes are retried as a whole.
 * - `copy` and `move` go through this process; if they break, they start again.
 * - From a web server, objects can only be read. Its etags are used as they are; where it has weak ones or none, versions are
 *   distinguished by these, or by date and size, after each response. Without etag and date nothing is resumed. A server without
 *   ranges sends the whole object.
 *   A page for a folder, or one that an app shows for every address, is `ObjectNotFound`: a response is taken for that if it is
 *   HTML, its key does not say so, and there is a page at the same address with a slash, too. An object whose length the server
 *   does not tell is loaded by that of a `HEAD`, or if it is chunked as a whole, up to 256 MiB.
 * - The bytes are those that were saved, also where the object has a content encoding. A web server is asked not to
 *   encode; an object that it encodes nevertheless cannot be loaded.
 * - A browser cannot send streams, so that there a stream is gathered in memory before it is saved; and as a browser does not
 *   say how much it has sent, `idleTimeout` applies to each MiB. A server of another origin has to allow the page (CORS), and
 *   to expose its response headers.
 * - Use an `HttpClient` that keeps connections alive: `FetchHttpClient` does, `NodeHttpClient` does with
 *   `makeAgentLayer({ keepAlive: true })`.
 * - With `FetchHttpClient` on Node the proxy of `HTTP_PROXY`, `HTTPS_PROXY` and `NO_PROXY` (or in lower case) is used; an own
 *   `dispatcher` in `FetchHttpClient.RequestInit` comes first. `NodeHttpClient.layer` knows no proxy:
 *   `layerUndiciWithoutDispatcher` does, with an `EnvHttpProxyAgent` as its `Dispatcher`, and from Node 24 on
 *   `makeAgentLayer({ keepAlive: true, proxyEnv: process.env })`.
 * - Redirects of `GET` and `HEAD` are followed, five at most, never from https to http, and with the token only to the origin of
 *   `url`. A browser follows them by itself and tells neither where to nor how often.
 *
 * @module HttpStorage
 * @since 0.1.0
 */
import * as HttpClient from "@effect/platform/HttpClient"
import * as Config from "effect/Config"
import type { ConfigError } from "effect/ConfigError"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Redacted from "effect/Redacted"
import * as Schema from "effect/Schema"
import { isListError, withPlace } from "../internal/errors.js"
import { boolean, decode, duration, retry as retrySchema } from "../internal/options.js"
import { Health } from "../internal/protocol.js"
import { prepare, retry } from "../internal/retry.js"
import type * as RetryPolicy from "../RetryPolicy.js"
import * as Storage from "../Storage.js"
import * as StorageBackend from "../StorageBackend.js"
import * as E from "../StorageError.js"
import { prepareClient } from "./http/fetch.js"
import { Lister } from "./http/lister.js"
import { bearerToken, serverUrl } from "./http/options.js"
import { Reader } from "./http/reader.js"
import { Remover } from "./http/remover.js"
import { ask, type Peer } from "./http/request.js"
import { failureOf, noServer, only } from "./http/responses.js"
import { Saver } from "./http/saver.js"

/**
 * Where the objects are, and how to request them.
 *
 * @since 0.1.0
 * @category models
 */
export interface Options {
  /**
   * The URL of a weight server, for instance `https://weights.example.com`; with `static`, of the folder with the files.
   * `http:` or `https:`, without credentials, query and fragment.
   */
  readonly url: string
  /** Sent as a bearer token, only to the origin of `url`. Default: none. */
  readonly token?: Redacted.Redacted | undefined
  /** Whether it is any web server, and not a weight server: the key `a/b` is then at `<url>/a/b`. Default: false. */
  readonly static?: boolean | undefined
  /** When and how often requests are retried. Default: `RetryPolicy.default`. */
  readonly retry?: RetryPolicy.RetryPolicy | undefined
  /**
   * How long the server may neither respond, nor send the next bytes of a response, nor take the next bytes of a request; up
   * to 24 days. Default: 30 seconds.
   */
  readonly idleTimeout?: Duration.DurationInput | undefined
  /**
   * Whether to ask a weight server for its capabilities when the storage is built. Otherwise all of them are assumed. Default:
   * true.
   */
  readonly verify?: boolean | undefined
}

/**
 * The failures of building a storage over HTTP.
 *
 * @since 0.1.0
 * @category models
 */
export type OpenError = E.CommonError | E.UnsupportedOperation | E.InvalidOptions

/**
 * A storage over HTTP.
 *
 * @since 0.1.0
 * @category constructors
 */
export const make = (options: Options): Effect.Effect<Storage.Service, OpenError, HttpClient.HttpClient> =>
  Effect.gen(function*() {
    const decoded = yield* decode("HttpStorage", schema, options)
    const { idleTimeout, static: isStatic, token, url, verify } = decoded
    const { host, pathname, protocol } = new URL(url)
    const place = host + pathname.replace(/\/+$/, "")
    const name = `Http(${place})`
    const peer: Peer = {
      client: yield* Effect.flatMap(HttpClient.HttpClient, prepareClient),
      url: `${protocol}//${place}`,
      authorization: token && `Bearer ${Redacted.value(token)}`,
      idleTimeout,
      isStatic,
      hasResponded: false
    }
    const policy = prepare(decoded.retry, name, peer)
    const capabilities = isStatic
      ? StorageBackend.readOnly
      : verify
      ? yield* Effect.mapError(
        retry(capabilitiesOf(peer), policy),
        (error) => withPlace(error, { backend: name, operation: "make" })
      )
      : StorageBackend.full
    return Storage.make(makeBackend(name, peer, policy, capabilities))
  })

/**
 * Provides a storage over HTTP.
 *
 * @since 0.1.0
 * @category layers
 * @example
 * ```ts
 * import { FetchHttpClient } from "@effect/platform"
 * import { Effect, Layer } from "effect"
 * import { HttpStorage, Storage } from "surfing-weights"
 *
 * const WeightsLive = HttpStorage.layer({ url: "https://weights.example.com" }).pipe(
 *   Layer.provide(FetchHttpClient.layer)
 * )
 *
 * const runnable = Storage.list("bert/").pipe(Effect.provide(WeightsLive))
 * ```
 */
export const layer = (options: Options): Layer.Layer<Storage.Storage, OpenError, HttpClient.HttpClient> =>
  Layer.effect(Storage.Storage, make(options))

/**
 * Provides a storage over HTTP with options from `Config`, for instance from the environment.
 *
 * @since 0.1.0
 * @category layers
 * @example
 * ```ts
 * import { Config } from "effect"
 * import { HttpStorage } from "surfing-weights"
 *
 * const WeightsLive = HttpStorage.layerConfig({
 *   url: Config.string("WEIGHTS_URL"),
 *   token: Config.redacted("WEIGHTS_TOKEN")
 * })
 * ```
 */
export const layerConfig = (
  options: Config.Config.Wrap<Options>
): Layer.Layer<Storage.Storage, OpenError | ConfigError, HttpClient.HttpClient> =>
  Layer.unwrapEffect(Effect.map(Config.unwrap(options), layer))

interface Decoded {
  readonly url: string
  readonly token?: Redacted.Redacted | undefined
  readonly static: boolean
  readonly retry: RetryPolicy.RetryPolicy
  /** In milliseconds. */
  readonly idleTimeout: number
  readonly verify: boolean
}

const schema: Schema.Schema<Decoded, Options> = Schema.Struct({
  url: serverUrl,
  token: Schema.optional(bearerToken),
  static: Schema.optionalWith(boolean, { default: () => false }),
  retry: retrySchema,
  idleTimeout: Schema.optionalWith(duration(), { default: () => 30_000 }),
  verify: Schema.optionalWith(boolean, { default: () => true })
})

/** What a weight server says that it supports. */
const capabilitiesOf = (peer: Peer): Effect.Effect<StorageBackend.Capabilities, E.ListError> =>
  Effect.flatMap(
    ask(peer, { method: "GET", path: "/health" }),
    (reply): Either.Either<StorageBackend.Capabilities, E.ListError> =>
      reply.status !== 200
        ? Either.left(only(failureOf(reply, { about: "storage", isStatic: false }), isListError))
        : Option.match(decodeHealth(reply.text), {
          onNone: () => Either.left(new E.StorageNotFound({ reason: noServer })),
          onSome: ({ capabilities }) => Either.right({ ...capabilities, presign: false })
        })
  )

const decodeHealth = Schema.decodeUnknownOption(Schema.parseJson(Health))

const makeBackend = (
  name: string,
  peer: Peer,
  policy: RetryPolicy.RetryPolicy,
  capabilities: StorageBackend.Capabilities
): StorageBackend.StorageBackend => {
  const reader = new Reader(peer, policy)
  const saver = new Saver(peer, policy, reader)
  const lister = new Lister(peer, policy)
  const remover = new Remover(peer, policy)
  const open: StorageBackend.StorageBackend["open"] = (key, options) => reader.open(key, options)
  const derived = StorageBackend.make({
    name,
    capabilities,
    open,
    save: (key, data, options) => saver.save(key, data, options),
    entries: (options) => lister.entries(options),
    remove: (key, options) => remover.remove(key, options)
  }, {
    head: (key) => reader.head(key),
    listDirectory: (prefix) => lister.listDirectory(prefix)
  })
  const copy: StorageBackend.StorageBackend["copy"] = (from, to, options) =>
    retry(derived.copy(from, to, options), policy, ({ _tag }) => _tag === "ObjectAlreadyExists")
  return {
    ...derived,
    // The reader has counted the bytes.
    open,
    copy,
    move: (from, to, options) => Effect.zipLeft(copy(from, to, options), remover.remove(from, {}))
  }
}
