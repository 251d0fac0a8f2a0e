/**
 * Objects on another machine, over HTTP: those of a weight server, whatever storage is behind it, or with
 * `static: true` the files of any web server or CDN. It runs wherever there is an `HttpClient`, in browsers, too.
 *
 * With a weight server the whole contract holds, and its failures come back as what they were. Every request is tried
 * again as `retry` says, a broken stream from the byte where it broke, under the etag of the first answer; nothing else
 * tries again, so there is one budget. An answer of up to 64 KiB is waited for as a whole, and where it breaks, asked for
 * again as a whole.
 *
 * - A saved stream goes in one request as fast as the server reads it, and is not tried again once it has begun: what was
 *   read of it cannot be read again. Bytes are, as a whole.
 * - `copy` and `move` go through this process. Where they break, they begin anew.
 * - Of a web server, objects are read and nothing else is done. Its etags are taken as they are; where it has only weak
 *   ones, or none, its answers are held against each other by these, or by their date and length. A server that tells
 *   neither is read without resuming. One that knows no ranges sends the whole for a part.
 * - A browser sends no streams, so there a saved stream is first gathered in memory; and since nobody can tell how far a
 *   browser is with what it sends, the idle limit is there for each MiB of it. For pages of another origin the server
 *   has to allow it (CORS), and to expose the headers `etag`, `content-range`, `storage-error`, `repr-digest` and
 *   `retry-after`.
 * - Use an `HttpClient` that keeps its connections: `FetchHttpClient` does; `NodeHttpClient` does with
 *   `makeAgentLayer({ keepAlive: true })`.
 *
 * @module HttpStorage
 * @since 0.1.0
 */
import * as HttpClient from "@effect/platform/HttpClient"
import * as Arr from "effect/Array"
import * as Chunk from "effect/Chunk"
import * as Config from "effect/Config"
import type { ConfigError } from "effect/ConfigError"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import type { Refinement } from "effect/Predicate"
import * as Redacted from "effect/Redacted"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import * as ByteRange from "../ByteRange.js"
import { allocate, copyOf, fill, tooLargeForAnArray } from "../internal/bytes.js"
import { isHeadError, isListError, isLoadError, isRemoveError, isSaveError } from "../internal/failures.js"
import * as Answers from "../internal/http/answers.js"
import * as Exchange from "../internal/http/exchange.js"
import { fromBytes } from "../internal/inHand.js"
import { listResuming, openResuming, retry } from "../internal/retry.js"
import * as wire from "../internal/protocol.js"
import * as ObjectKey from "../ObjectKey.js"
import * as RetryPolicy from "../RetryPolicy.js"
import * as Storage from "../Storage.js"
import * as StorageBackend from "../StorageBackend.js"
import * as E from "../StorageError.js"

/**
 * Where the objects are, and how to ask for them.
 *
 * @since 0.1.0
 * @category models
 */
export interface Options {
  /**
   * Of a weight server, for instance `https://weights.example.com`; with `static` of the folder in which the files are.
   * `http:` or `https:`, without credentials and without a query.
   */
  readonly url: string
  /** Sent as a bearer token, to the origin of `url` and no other. Default: none. */
  readonly token?: Redacted.Redacted
  /** Whether any web server answers there, and not a weight server: the key `a/b` is then `<url>/a/b`. Default: false. */
  readonly static?: boolean
  /** When and how often a request is tried again. Default: `RetryPolicy.default`. */
  readonly retry?: RetryPolicy.RetryPolicy
  /**
   * How long the server may leave us without an answer, without the next bytes of one (or, of one of up to 64 KiB, without
   * all of them), or without taking more of what is sent: up to 24 days. Default: 30 seconds.
   */
  readonly idleLimit?: Duration.DurationInput
  /**
   * Whether to ask a weight server, when the storage is built, what it can do. Otherwise it is taken to be able to do
   * everything. Default: true.
   */
  readonly verify?: boolean
}

/**
 * What building a storage over HTTP can meet.
 *
 * @since 0.1.0
 * @category models
 */
export type OpenError = E.CommonError | E.UnsupportedOperation

/**
 * A storage over HTTP.
 *
 * @since 0.1.0
 * @category constructors
 */
export const make = (options: Options): Effect.Effect<Storage.Service, OpenError, HttpClient.HttpClient> =>
  Effect.gen(function*() {
    const client = yield* HttpClient.HttpClient
    const { backend, peer } = yield* toPeer(client, options)
    const policy = options.retry ?? RetryPolicy.default
    const capabilities = peer.isStatic
      ? StorageBackend.readOnly
      : options.verify ?? true
      ? yield* retry(capabilitiesOf(peer, { backend, operation: "open" }), policy)
      : StorageBackend.full
    return Storage.make(makeBackend(backend, peer, policy, capabilities))
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
 * The same with options from `Config`, for instance from the environment.
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
  Layer.effect(Storage.Storage, Effect.flatMap(Config.unwrap(options), make))

// A timer cannot wait longer.
const longestIdle = 2 ** 31 - 1

const toPeer = (
  client: HttpClient.HttpClient,
  options: Options
): Either.Either<{ readonly backend: string; readonly peer: Exchange.Peer }, E.UnsupportedOperation> =>
  Either.gen(function*() {
    const url = URL.canParse(options.url) ? new URL(options.url) : undefined
    const place = url === undefined ? "" : `${url.host}${url.pathname.replace(/\/+$/, "")}`
    const backend = `Http(${place})`
    // What is wrong with a URL may be that it has a secret in it, so none is shown.
    const invalid = (reason: string) => Either.left(new E.UnsupportedOperation({ backend, operation: "open", reason }))

    if (url === undefined || (url.protocol !== "http:" && url.protocol !== "https:")) {
      return yield* invalid("url is a URL that begins with http:// or https://")
    }
    if (url.username !== "" || url.password !== "") {
      return yield* invalid("url has no credentials in it; give a token")
    }
    if (/[?#]/.test(options.url)) return yield* invalid("url ends with the path: it has no query and no fragment")
    const token = options.token === undefined ? undefined : Redacted.value(options.token)
    if (token !== undefined && !/^[\x21-\x7e]+$/.test(token)) {
      return yield* invalid("token is empty, or has characters that cannot stand in a header")
    }
    const idleLimit = Duration.toMillis(options.idleLimit ?? "30 seconds")
    if (!(idleLimit >= 1 && idleLimit <= longestIdle)) {
      return yield* invalid(`idleLimit is from a millisecond to 24 days, not ${Duration.format(idleLimit)}`)
    }
    const peer = {
      client,
      url: `${url.protocol}//${place}`,
      authorization: token === undefined ? undefined : `Bearer ${token}`,
      idleLimit,
      isStatic: options.static ?? false
    }
    return { backend, peer }
  })

/** What a weight server says that it can do. */
const capabilitiesOf = (
  peer: Exchange.Peer,
  place: Exchange.Place
): Effect.Effect<StorageBackend.Capabilities, OpenError> =>
  Effect.flatMap(
    Exchange.ask(peer, place, { method: "GET", path: "/health" }),
    (reply): Effect.Effect<StorageBackend.Capabilities, OpenError> =>
      reply.status !== 200
        ? Effect.fail(Answers.only(Answers.failureOf(place, reply, false), isListError))
        : Option.match(decodeHealth(reply.text), {
          onNone: () => Effect.fail(new E.StorageNotFound({ ...place, reason: Answers.noServer })),
          onSome: ({ capabilities }) => Effect.succeed({ ...capabilities, presign: false })
        })
  )

const decodeHealth = Schema.decodeUnknownOption(Schema.parseJson(wire.Health))
const decodeInfo = Schema.decodeUnknownOption(Schema.parseJson(wire.ObjectInfo))
const decodeEntry = Schema.decodeUnknownOption(Schema.parseJson(wire.Entry))

/** Without its class, and under the key that was asked for. */
const toInfo = ({ checksum, etag, key, lastModified, size }: wire.ObjectInfo): StorageBackend.ObjectInfo => ({
  key,
  size,
  lastModified,
  etag,
  ...(checksum !== undefined && { checksum })
})

const makeBackend = (
  backend: string,
  peer: Exchange.Peer,
  policy: RetryPolicy.RetryPolicy,
  capabilities: StorageBackend.Capabilities
): StorageBackend.StorageBackend => {
  const { isStatic } = peer
  const etags = isStatic ? Answers.staticEtags : Answers.wireEtags
  const pathOf = (key: string) => isStatic ? `/${wire.encodeKey(key)}` : wire.pathOf(key)

  const fail = <Err extends E.StorageError>(
    place: Exchange.Place,
    reply: Exchange.Reply,
    isExpected: Refinement<E.StorageError, Err>
  ) => Effect.fail(Answers.only(Answers.failureOf(place, reply, isStatic), isExpected))

  const notUnderstood = (place: Exchange.Place, reason: string) =>
    Effect.fail(Exchange.unexpected(place, `the answer ${reason}`))

  const head = (operation: string, key: string): Effect.Effect<StorageBackend.ObjectInfo, E.HeadError> => {
    const place = { backend, operation, key }
    return Effect.flatMap(
      Exchange.ask(peer, place, { method: "HEAD", path: pathOf(key) }),
      (reply): Effect.Effect<StorageBackend.ObjectInfo, E.HeadError> =>
        reply.status !== 200 ? fail(place, reply, isHeadError) : Either.match(
          Answers.objectOf(key, reply, etags),
          {
            onLeft: (reason) => notUnderstood(place, reason),
            onRight: ({ info }) => Effect.succeed(info)
          }
        )
    )
  }

  const openOnce = (
    key: string,
    options: StorageBackend.LoadOptions
  ): Effect.Effect<StorageBackend.OpenedObject, E.LoadError, Scope.Scope> => {
    const place = { backend, operation: "load", key }
    const { ifMatch, ifNoneMatch, range } = options
    const header = (name: string, etag: string | undefined) => {
      const tag = etag === undefined ? undefined : etags.toTag(etag)
      // A weak one matches nothing there (RFC 9110, section 13.1.1).
      return tag === undefined || (name === "if-match" && tag.startsWith("W/")) ? {} : { [name]: tag }
    }
    const request: Exchange.Request = {
      method: "GET",
      path: pathOf(key),
      headers: {
        ...(range !== undefined && { range: ByteRange.toHttp(range) }),
        ...header("if-match", ifMatch),
        ...header("if-none-match", ifNoneMatch)
      }
    }
    return Effect.flatMap(
      Exchange.send(peer, place, request),
      (answer): Effect.Effect<StorageBackend.OpenedObject, E.LoadError, Scope.Scope> =>
        answer.status === 200 || answer.status === 206
          ? opened(place, options, answer)
          : Effect.flatMap(
            Exchange.toReply(answer),
            (reply) => reply.status === 416 ? beyond(place, options, reply) : fail(place, reply, isLoadError)
          )
    )
  }

  /** What an answer opens, whatever the server made of the conditions and the range. */
  const opened = (
    place: Exchange.Place & { readonly key: string },
    options: StorageBackend.LoadOptions,
    answer: Exchange.Answer
  ): Effect.Effect<StorageBackend.OpenedObject, E.LoadError> => {
    const object = Answers.objectOf(place.key, answer, etags)
    if (Either.isLeft(object)) return notUnderstood(place, object.left)
    const { info, sent } = object.right
    if (options.ifMatch !== undefined && Answers.isUnknown(info.etag)) {
      return Effect.fail(
        new E.UnsupportedOperation({
          ...place,
          reason: "the server tells neither etag nor date, so nobody knows whether the object is still the same"
        })
      )
    }
    return Effect.flatMap(StorageBackend.checkLoad(info, options, place), (range) => {
      const isSame = range.start === sent.start && range.endExclusive === sent.endExclusive
      if (!isSame && answer.status !== 200) {
        return notUnderstood(place, "has other bytes than those that were asked for")
      }
      const { body, whole } = answer
      return whole === undefined
        ? Effect.succeed({ info, range, stream: isSame ? body : section(body, range) })
        : Effect.map(whole, (bytes) => ({
          info,
          range,
          stream: fromBytes(isSame ? bytes : copyOf(bytes, range.start, range.endExclusive))
        }))
    })
  }

  /** What a range that the server refuses means: an object without bytes has all of its last bytes. */
  const beyond = (
    place: Exchange.Place & { readonly key: string },
    options: StorageBackend.LoadOptions,
    reply: Exchange.Reply
  ): Effect.Effect<StorageBackend.OpenedObject, E.LoadError> =>
    options.range?._tag !== "Last" ? fail(place, reply, isLoadError) : Effect.flatMap(
      head(place.operation, place.key),
      (info) =>
        Effect.flatMap(StorageBackend.checkLoad(info, options, place), (range) =>
          info.size === 0
            ? Effect.succeed({ info, range, stream: Stream.empty })
            : fail(place, reply, isLoadError))
    )

  const put = <Err>(
    key: string,
    options: StorageBackend.SaveOptions,
    upload: Parameters<typeof Exchange.ask<Err>>[3]
  ): Effect.Effect<StorageBackend.ObjectInfo, E.SaveError | Err> => {
    const place = { backend, operation: "save", key }
    const tag = options.ifMatch === undefined ? undefined : etags.toTag(options.ifMatch)
    const request: Exchange.Request = {
      method: "PUT",
      path: pathOf(key),
      headers: {
        ...(options.ifNoneMatch !== undefined && { "if-none-match": options.ifNoneMatch }),
        ...(tag !== undefined && { "if-match": tag })
      }
    }
    return Effect.flatMap(
      Exchange.ask(peer, place, request, upload),
      (reply): Effect.Effect<StorageBackend.ObjectInfo, E.SaveError> =>
        reply.status < 200 || reply.status >= 300
          ? fail(place, reply, isSaveError)
          : Option.match(decodeInfo(reply.text), {
            onNone: () => notUnderstood(place, "to a save tells of no object"),
            onSome: (info) => Effect.succeed({ ...toInfo(info), key })
          })
    )
  }

  const saveBytes = (
    key: string,
    bytes: Uint8Array,
    options: StorageBackend.SaveOptions
  ): Effect.Effect<StorageBackend.ObjectInfo, E.SaveError> =>
    retry(
      Effect.scoped(
        Effect.suspend(() => Effect.flatMap(Exchange.uploadOf(peer, bytes), (upload) => put(key, options, upload)))
      ),
      policy,
      isRefusal
    )

  const save: StorageBackend.StorageBackend["save"] = <Err, R>(
    key: string,
    data: Uint8Array | Stream.Stream<Uint8Array, Err, R>,
    options: StorageBackend.SaveOptions
  ): Effect.Effect<StorageBackend.ObjectInfo, E.SaveError | Err, R> => {
    const place = { backend, operation: "save", key }
    // What cannot stand in a header is the etag of no object.
    if (options.ifMatch !== undefined && etags.toTag(options.ifMatch) === undefined) {
      return Effect.fail(new E.PreconditionFailed(place))
    }
    if (data instanceof Uint8Array) return saveBytes(key, data, options)
    return Effect.zipRight(
      refuseEarly(place, options),
      Exchange.isBrowser
        ? Effect.flatMap(gather(data, place), (bytes) => saveBytes(key, bytes, options))
        : Effect.scoped(
          Effect.flatMap(Exchange.uploadOfStream(peer, data, options.size), (upload) => put(key, options, upload))
        )
    )
  }

  /** A refusal that is to come anyhow, before the source is run: a server may say it only when all has been sent. */
  const refuseEarly = (
    place: Exchange.Place & { readonly key: string },
    options: StorageBackend.SaveOptions
  ): Effect.Effect<void, E.SaveError> =>
    options.ifNoneMatch === undefined && options.ifMatch === undefined ? Effect.void : Effect.flatMap(
      retry(head(place.operation, place.key), policy).pipe(
        Effect.catchTag("ObjectNotFound", () => Effect.succeed(undefined))
      ),
      (existing) => StorageBackend.checkSave(place.key, existing, options, place)
    )

  /** What is found in one request, objects and with `delimiter` the prefixes of what is deeper. */
  const listOnce = (
    operation: string,
    options: StorageBackend.ListOptions & { readonly delimiter?: string }
  ): Stream.Stream<Entry, E.ListError> => {
    const place = { backend, operation }
    const { isWhole, query } = toQuery(options)
    const request: Exchange.Request = {
      method: "GET",
      path: `/objects${query}`,
      headers: { accept: "application/x-ndjson" }
    }
    const found = Stream.unwrapScoped(
      Effect.flatMap(
        Exchange.send(peer, place, request),
        (answer): Effect.Effect<Stream.Stream<Entry, E.ListError>, E.ListError, Scope.Scope> =>
          answer.status === 200
            ? entriesIn(place, answer.body)
            : Effect.flatMap(Exchange.toReply(answer), (reply) => fail(place, reply, isListError))
      )
    )
    const { startAfter = "" } = options
    return isWhole ? found : Stream.filter(found, (entry) => ObjectKey.compare(nameOf(entry), startAfter) > 0)
  }

  const list = (operation: string, options: StorageBackend.ListOptions, delimiter?: string) =>
    listResuming(
      (options) => listOnce(operation, { ...options, ...(delimiter !== undefined && { delimiter }) }),
      nameOf,
      options,
      policy
    )

  const objects = (operation: string, options: StorageBackend.ListOptions) =>
    Stream.mapChunks(
      list(operation, options),
      Chunk.filterMap((entry) => "key" in entry ? Option.some(entry) : Option.none())
    )

  const listDirectory = (prefix: string): Effect.Effect<StorageBackend.Directory, E.ListError> =>
    Effect.map(Stream.runCollect(list("listDirectory", { prefix }, "/")), (all) => {
      const [objects, prefixes] = Arr.partitionMap(
        Chunk.toReadonlyArray(all),
        (entry) => "key" in entry ? Either.left(entry) : Either.right(entry.prefix)
      )
      return { objects, prefixes }
    })

  const remove = (key: string): Effect.Effect<void, E.RemoveError> => {
    const place = { backend, operation: "remove", key }
    return Effect.flatMap(
      Exchange.ask(peer, place, { method: "DELETE", path: pathOf(key) }),
      (reply): Effect.Effect<void, E.RemoveError> => {
        if (reply.status === 204) return Effect.void
        const failure = Answers.failureOf(place, reply, isStatic)
        return failure._tag === "ObjectNotFound"
          ? Effect.void
          : Effect.fail(Answers.only(failure, isRemoveError))
      }
    )
  }

  const store: Parameters<typeof StorageBackend.make>[0] = {
    name: backend,
    capabilities,
    open: (key, options) => openResuming((options) => openOnce(key, options), options, policy, backend),
    head: (key) => retry(head("head", key), policy),
    save,
    entries: (options) => objects("entries", options),
    keys: (options) => Stream.map(objects("list", options), ({ key }) => key),
    listDirectory,
    remove: (key) => retry(remove(key), policy)
  }
  const { copy } = StorageBackend.make(store)
  return StorageBackend.make({
    ...store,
    copy: (from, to, options) => retry(copy(from, to, options), policy, ({ _tag }) => _tag === "ObjectAlreadyExists")
  })
}

/** Whether a save was refused for what was there, which may be what an earlier try has put there. */
const isRefusal = ({ _tag }: E.StorageError): boolean => _tag === "ObjectAlreadyExists" || _tag === "PreconditionFailed"

/** A part of a body. */
const section = <Err>(
  body: Stream.Stream<Uint8Array, Err>,
  { endExclusive, start }: ByteRange.ResolvedRange
): Stream.Stream<Uint8Array, Err> =>
  Stream.suspend(() => {
    let at = 0
    return body.pipe(
      Stream.map((bytes) => {
        const before = at
        at += bytes.byteLength
        return {
          bytes: bytes.subarray(Math.max(0, start - before), Math.max(0, endExclusive - before)),
          isLast: at >= endExclusive
        }
      }),
      Stream.takeUntil(({ isLast }) => isLast),
      Stream.filterMap(({ bytes }) => bytes.byteLength > 0 ? Option.some(bytes) : Option.none())
    )
  })

/** All that a stream yields, for those who cannot send it piece by piece. */
const gather = <Err, R>(
  data: Stream.Stream<Uint8Array, Err, R>,
  place: Exchange.Place & { readonly key: string }
): Effect.Effect<Uint8Array, Err | E.UnsupportedOperation, R> =>
  Effect.flatMap(Stream.runCollect(data), (parts) => {
    const size = Chunk.reduce(parts, 0, (sum, { byteLength }) => sum + byteLength)
    const whole = allocate(size)
    return whole === undefined
      ? Effect.fail(tooLargeForAnArray(size, place))
      : fill(whole, Stream.fromChunk(parts))
  })

type Entry = StorageBackend.ObjectInfo | { readonly prefix: string }

const nameOf = (entry: Entry): string => "key" in entry ? entry.key : entry.prefix

/** The query of a listing, and whether it says all: some strings that are no keys cannot stand in one. */
const toQuery = (
  { delimiter = "", prefix = "", startAfter = "" }: StorageBackend.ListOptions & { readonly delimiter?: string }
) => {
  const sent = startAfter.slice(0, ObjectKey.maxBytes).replace(/\p{Cs}.*$/su, "")
  const parameters = Object.entries({ prefix, startAfter: sent, delimiter })
    .filter(([, value]) => value !== "")
    .map(([name, value]) => `${name}=${encodeURIComponent(value)}`)
  return { query: parameters.length === 0 ? "" : `?${parameters.join("&")}`, isWhole: sent === startAfter }
}

/** No line of a listing is longer. */
const maxLine = 64 * 1024

/** The entries of a listing that comes line by line. It may end in a failure, and has broken where a line does. */
const entriesIn = (
  place: Exchange.Place,
  body: Stream.Stream<Uint8Array, Exchange.ExchangeError>
): Effect.Effect<Stream.Stream<Entry, E.ListError>, never, Scope.Scope> =>
  Effect.map(Stream.toPull(body), (pull) => {
    const decoder = new TextDecoder()
    let rest = ""
    let failure: E.ListError | undefined
    const read = (chunk: Chunk.Chunk<Uint8Array>): Array<Entry> => {
      const text = Chunk.reduce(chunk, rest, (text, bytes) => text + decoder.decode(bytes, { stream: true }))
      const lines = text.split("\n")
      rest = lines.pop() ?? ""
      if (rest.length > maxLine) failure = Exchange.unexpected(place, "the answer is no listing")
      const found: Array<Entry> = []
      for (const line of lines) {
        const entry = Option.getOrUndefined(decodeEntry(line))
        if (entry !== undefined && !("_tag" in entry)) {
          found.push("key" in entry ? toInfo(entry) : entry)
          continue
        }
        failure = entry === undefined
          ? Exchange.unexpected(place, "the answer is no listing")
          : Answers.only(Answers.toldAs(place, entry), isListError)
        break
      }
      return found
    }
    const next = Effect.suspend((): Effect.Effect<
      Chunk.Chunk<Entry>,
      Option.Option<E.ListError>
    > =>
      failure !== undefined
        ? Effect.fail(Option.some(failure))
        : Effect.matchEffect(pull, {
          onSuccess: (chunk) => Effect.sync(() => Chunk.unsafeFromArray(read(chunk))),
          onFailure: (end) =>
            Effect.fail(
              Option.isNone(end) && rest !== ""
                ? Option.some(new E.StorageUnavailable({ ...place, reason: "the listing was cut off" }))
                : end
            )
        })
    )
    return Stream.repeatEffectChunkOption(next)
  })
