/**
 * A model on Hugging Face's hub, or on another server that speaks its protocol, such as a weight server with `hub`. It can
 * only be read. It runs wherever there is an `HttpClient`, also in browsers, where redirects are the browser's to follow.
 *
 * The keys are the paths of the files. When the storage is built, the revision is pinned to its commit, and the files are
 * listed: all later reads are of that commit, and listings and metadata ask the hub no more. Up to 250,000 files are held, in
 * about 400 bytes each.
 *
 * - Files in Git LFS have their SHA-256 as etag and checksum. Whole loads and streams are checked against it, ranges cannot
 *   be: damaged bytes fail with `CorruptObject`. Other, small files have the id of Git as etag, and no checksum.
 * - Every length is checked against the listing. A stream that breaks resumes at the byte where it broke.
 * - The hub redirects to addresses on other hosts, which are signed and expire: they are used again until their host refuses
 *   them. The token is sent to the origin of the endpoint alone, and redirects from https to http are not followed.
 * - Requests are retried as `retry` says; where the hub limits their rate (429), after the time that it names.
 * - The `HttpClient` and proxies: see `HttpStorage`.
 *
 * @module HuggingFaceStorage
 * @since 0.1.0
 */
import * as HttpClient from "@effect/platform/HttpClient"
import * as Config from "effect/Config"
import type { ConfigError } from "effect/ConfigError"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Redacted from "effect/Redacted"
import * as Schema from "effect/Schema"
import * as Stream from "effect/Stream"
import { asHead, withPlace } from "../internal/errors.js"
import { decode, duration, retry as retrySchema, string } from "../internal/options.js"
import { prepare } from "../internal/retry.js"
import * as ObjectKey from "../ObjectKey.js"
import type * as RetryPolicy from "../RetryPolicy.js"
import * as Storage from "../Storage.js"
import * as StorageBackend from "../StorageBackend.js"
import * as E from "../StorageError.js"
import { prepareClient } from "./http/fetch.js"
import { bearerToken, serverUrl } from "./http/options.js"
import type { Peer } from "./http/request.js"
import { Reader } from "./huggingFace/reader.js"
import { type Snapshot, take } from "./huggingFace/snapshot.js"

/**
 * Which model, and how to request it.
 *
 * @since 0.1.0
 * @category models
 */
export interface Options {
  /** The model, for instance `google-bert/bert-base-uncased`. */
  readonly repo: string
  /** A branch, a tag or a commit. Default: `main`. */
  readonly revision?: string | undefined
  /**
   * Sent as a bearer token, only to the origin of the endpoint. Default: `HF_TOKEN` from the `Config` if there is one, where
   * `endpoint` is not given.
   */
  readonly token?: Redacted.Redacted | undefined
  /**
   * The URL of the hub, without credentials, query and fragment. Default: `HF_ENDPOINT` from the `Config`, else
   * `https://huggingface.co`.
   */
  readonly endpoint?: string | undefined
  /**
   * What the keys begin with before the path of the file: with `acme/tiny-bert`, `config.json` is the object
   * `acme/tiny-bert/config.json`, so that a weight server with `hub` serves it as a file of that model. Default: nothing.
   */
  readonly mountAt?: string | undefined
  /** When and how often requests are retried. Default: `RetryPolicy.default`. */
  readonly retry?: RetryPolicy.RetryPolicy | undefined
  /** How long a server may neither respond nor send the next bytes; up to 24 days. Default: 30 seconds. */
  readonly idleTimeout?: Duration.DurationInput | undefined
}

/**
 * The failures of building a storage on a hub: `StorageNotFound` where there is no such model or revision, `AccessDenied`
 * where the token may not read it.
 *
 * @since 0.1.0
 * @category models
 */
export type OpenError = E.CommonError | E.UnsupportedOperation | E.InvalidOptions

/**
 * The hub whose endpoint is the default.
 *
 * @since 0.1.0
 * @category constants
 */
export const defaultEndpoint = "https://huggingface.co"

/**
 * A model on a hub.
 *
 * @since 0.1.0
 * @category constructors
 */
export const make = (options: Options): Effect.Effect<Storage.Service, OpenError, HttpClient.HttpClient> =>
  Effect.gen(function*() {
    const decoded = yield* decode("HuggingFaceStorage", schema, yield* withDefaults(options))
    const { endpoint, idleTimeout, mountAt, repo, revision, token } = decoded
    const { host, pathname, protocol } = new URL(endpoint)
    const name = `HuggingFace(${repo}@${revision})`
    const peer: Peer = {
      client: yield* Effect.flatMap(HttpClient.HttpClient, prepareClient),
      url: `${protocol}//${host}${pathname.replace(/\/+$/, "")}`,
      authorization: token && `Bearer ${Redacted.value(token)}`,
      idleTimeout,
      isStatic: true,
      hasResponded: false
    }
    const policy = prepare(decoded.retry, name, peer)
    const prefix = mountAt === undefined ? "" : `${mountAt}/`
    const snapshot = yield* Effect.mapError(
      take(peer, policy, { repo, revision, prefix }),
      (error) => withPlace(error, { backend: name, operation: "make" })
    )
    const reader = new Reader(peer, policy, repo, snapshot)
    const location = mountAt === undefined ? `${peer.url}/${repo}` : `${peer.url}/${repo} at ${mountAt}`
    return Storage.make(makeBackend(name, location, reader, snapshot))
  })

/**
 * Provides a model on a hub.
 *
 * @since 0.1.0
 * @category layers
 * @example
 * ```ts
 * import { FetchHttpClient } from "@effect/platform"
 * import { Effect, Layer } from "effect"
 * import { HuggingFaceStorage, Storage } from "surfing-weights"
 *
 * const BertLive = HuggingFaceStorage.layer({ repo: "google-bert/bert-base-uncased" }).pipe(
 *   Layer.provide(FetchHttpClient.layer)
 * )
 *
 * const runnable = Storage.load("config.json").pipe(Effect.provide(BertLive))
 * ```
 */
export const layer = (options: Options): Layer.Layer<Storage.Storage, OpenError, HttpClient.HttpClient> =>
  Layer.effect(Storage.Storage, make(options))

/**
 * Provides a model on a hub with options from `Config`, for instance from the environment.
 *
 * @since 0.1.0
 * @category layers
 * @example
 * ```ts
 * import { Config } from "effect"
 * import { HuggingFaceStorage } from "surfing-weights"
 *
 * const ModelLive = HuggingFaceStorage.layerConfig({
 *   repo: Config.string("MODEL"),
 *   token: Config.redacted("HUB_TOKEN")
 * })
 * ```
 */
export const layerConfig = (
  options: Config.Config.Wrap<Options>
): Layer.Layer<Storage.Storage, OpenError | ConfigError, HttpClient.HttpClient> =>
  Layer.unwrapEffect(Effect.map(Config.unwrap(options), layer))

interface Decoded {
  readonly repo: string
  readonly revision: string
  readonly token?: Redacted.Redacted | undefined
  readonly endpoint: string
  readonly mountAt?: string | undefined
  readonly retry: RetryPolicy.RetryPolicy
  /** In milliseconds. */
  readonly idleTimeout: number
}

const isRepo = (repo: string): boolean => /^[\w.-]+(\/[\w.-]+)?$/.test(repo) && ObjectKey.problem(repo) === undefined

const isRevision = (revision: string): boolean => ObjectKey.problem(revision) === undefined

const schema: Schema.Schema<Decoded, Options> = Schema.Struct({
  repo: string("the name of a model, such as google-bert/bert-base-uncased", isRepo),
  revision: Schema.optionalWith(string("a branch, a tag or a commit", isRevision), { default: () => "main" }),
  token: Schema.optional(bearerToken),
  endpoint: Schema.optionalWith(serverUrl, { default: () => defaultEndpoint }),
  mountAt: Schema.optional(
    string("the beginning of keys, without a slash at an end", (prefix) => ObjectKey.problem(prefix) === undefined)
  ),
  retry: retrySchema,
  idleTimeout: Schema.optionalWith(duration(), { default: () => 30_000 })
})

/** With the endpoint and the token of the environment: a token is only for the endpoint beside it. */
const withDefaults = (options: Options): Effect.Effect<Options, E.InvalidOptions> => {
  if (options.endpoint !== undefined) return Effect.succeed(options)
  const defaults = Config.all({
    endpoint: Config.option(Config.nonEmptyString("HF_ENDPOINT")),
    token: Config.option(Config.redacted(Config.nonEmptyString("HF_TOKEN")))
  })
  return Effect.mapBoth(defaults, {
    onFailure: () =>
      new E.InvalidOptions({
        module: "HuggingFaceStorage",
        option: "endpoint",
        reason: "HF_ENDPOINT and HF_TOKEN must be texts; correct them in the configuration"
      }),
    onSuccess: ({ endpoint, token }) => ({
      ...options,
      endpoint: Option.getOrUndefined(endpoint),
      token: options.token ?? Option.getOrUndefined(token)
    })
  })
}

const readOnly = Effect.fail(
  new E.UnsupportedOperation({ reason: "a model on a hub can only be read; save to another storage" })
)

const makeBackend = (
  name: string,
  location: string,
  reader: Reader,
  { files }: Snapshot
): StorageBackend.StorageBackend => {
  const open: StorageBackend.StorageBackend["open"] = (key, options) => reader.open(key, options)
  const infos = Array.from(files.values(), ({ info }) => info)
  const backend = StorageBackend.make({
    name,
    location,
    capabilities: { ...StorageBackend.readOnly, list: true },
    open,
    entries: ({ prefix = "", startAfter = "" }) =>
      Stream.suspend(() =>
        Stream.fromIterable(
          infos.filter(({ key }) =>
            key.startsWith(prefix) && (startAfter === "" || ObjectKey.compare(key, startAfter) > 0)
          )
        )
      ),
    save: () => readOnly,
    remove: () => readOnly
  }, {
    head: (key) => asHead(Effect.map(reader.find(key), ({ info }) => info)),
    copy: () => readOnly,
    move: () => readOnly
  })
  // The reader has counted the bytes.
  return { ...backend, open }
}
