/**
 * The requests that a storage makes of a bucket, each sent once: what to ask, and what the answer means. Whether to
 * try again is decided by whoever calls.
 */
import * as Arr from "effect/Array"
import * as Data from "effect/Data"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import type * as Scope from "effect/Scope"
import * as crypto from "node:crypto"
import * as ByteRange from "../../ByteRange.js"
import * as ObjectKey from "../../ObjectKey.js"
import {
  checkLoad,
  type FailureContext,
  type ListOptions,
  type LoadOptions,
  type ObjectInfo
} from "../../StorageBackend.js"
import * as E from "../../StorageError.js"
import { isEtag, mayNot, type Refusal, toEtag, toFailure, toInfo, toRefusal } from "./answers.js"
import { type Connection, Exchange, exchange, type Place, presign as presignRequest, type Request } from "./exchange.js"
import type { Answer } from "./transport.js"
import * as xml from "./xml.js"

/** An answer that says no; what that means depends on what was asked. */
export class Refused extends Data.TaggedError("Refused")<{ readonly refusal: Refusal }> {}

/** An answer and its text. */
interface Reply extends Answer {
  readonly body: string
}

/** An object of which bytes are on their way: `range` of them, for `exchange` to read. */
export interface Opened {
  readonly info: ObjectInfo
  readonly range: ByteRange.ResolvedRange
  /** There is none where there is nothing to read. */
  readonly exchange: Exchange | undefined
}

/** The server did not understand what was asked; this asks it otherwise. */
class Mistaken extends Data.TaggedError("Mistaken")<{ readonly instead: LoadOptions }> {}

/** What a bucket's owner asks of requests, as headers. */
export interface Headers {
  /** For whatever makes an object: encryption, storage class, content type … */
  readonly create: Readonly<Record<string, string>>
  /** For whatever reads or writes bytes: the customer's key. */
  readonly access: Readonly<Record<string, string>>
  /** For whatever reads bytes on the server, to copy them. */
  readonly copySource: Readonly<Record<string, string>>
}

/** The name of what is noted of each save whose answer may get lost, to know it again. */
export const saveId = "x-amz-meta-surfing-weights-save"

/** How far the clocks may be apart before a refusal is taken to come of that, in milliseconds; S3 allows thrice that. */
const allowedSkew = 5 * 60_000

/** How many requests at once; those behind a stream come on top, since it is for whoever reads them to end them. */
const maxRequests = 64

export type Requests = ReturnType<typeof make>

export const make = (connection: Connection, backend: string, bucket: string, headers: Headers) => {
  const permits = Effect.unsafeMakeSemaphore(maxRequests)
  const at = (operation: string, key?: string): Place => ({
    backend,
    bucket,
    operation,
    ...(key !== undefined && { key })
  })

  const refuse = (answer: Answer, body: string) => {
    const refusal = toRefusal(answer, body)
    const offset = Date.parse(answer.headers["date"] ?? "") - Date.now()
    // The answer to a `HEAD` has no body that could say so.
    const code = answer.status === 403 && body === "" && Math.abs(offset - connection.clockOffset) > allowedSkew
      ? "RequestTimeTooSkewed"
      : refusal.code
    if (code === "RequestTimeTooSkewed" && !Number.isNaN(offset)) connection.clockOffset = offset
    return new Refused({ refusal: { ...refusal, code } })
  }

  const limit = permits.withPermits(1)

  /** Sends a request whose answer is short. Copies and completed uploads may fail after they answered 200. */
  const send = (place: Place, request: Request) =>
    exchange(
      connection,
      place,
      request,
      (exchange) =>
        Effect.flatMap(exchange.send(), (answer) =>
          Effect.flatMap(exchange.text, (body): Effect.Effect<Reply, Refused> =>
            answer.status < 300 && !isError(body)
              ? Effect.succeed({ ...answer, body })
              : Effect.fail(refuse(answer, body))))
    )

  const ask: typeof send = (place, request) => limit(send(place, request))

  /** `via` is `send` for whoever has been let in already. */
  const head = (operation: string, key: string, via = ask, extra: Pick<Request, "query" | "headers"> = {}) => {
    const place = at(operation, key)
    return via(place, { ...extra, method: "HEAD", key, headers: { ...headers.access, ...extra.headers } })
      .pipe(
        Effect.map((reply) => ({
          info: toInfo(key, reply.headers, Number(reply.headers["content-length"] ?? 0)),
          headers: reply.headers
        })),
        Effect.catchTag(
          "Refused",
          ({ refusal }): Effect.Effect<never, E.HeadError> =>
            Effect.fail(refusal.status === 404 ? notFound(place, refusal) : common(place, refusal))
        )
      )
  }

  /** The failure of a load for a refusal, but for ranges that lie outside the object. */
  const notLoaded = (place: Place, key: string, refusal: Refusal): E.LoadError => {
    const context = { backend, operation: place.operation, key }
    if (refusal.status === 404) return notFound(place, refusal)
    if (refusal.status === 412) return new E.PreconditionFailed(context)
    return withoutFull(toFailure(place, refusal))
  }

  const toGet = (
    key: string,
    { ifMatch, ifNoneMatch }: LoadOptions,
    part: ByteRange.ByteRange | undefined
  ): Request => ({
    method: "GET",
    key,
    headers: {
      ...headers.access,
      ...(part !== undefined && { range: ByteRange.toHttp(part) }),
      ...(ifMatch !== undefined && isEtag(ifMatch) && { "if-match": `"${ifMatch}"` }),
      ...(ifNoneMatch !== undefined && isEtag(ifNoneMatch) && { "if-none-match": `"${ifNoneMatch}"` })
    }
  })

  /** What an answer to a `GET` tells, if it is one with bytes. */
  const toOpened = (key: string, answer: Answer): Omit<Opened, "exchange"> | undefined => {
    const sent = answer.status === 200 || answer.status === 206 ? extent(answer) : undefined
    return sent && { info: toInfo(key, answer.headers, sent.size), range: sent.range }
  }

  /** Sends a `GET`; `plan` may give an array for what it opens. */
  const begin = (
    exchange: Exchange,
    place: Place & { readonly key: string },
    options: LoadOptions,
    part: ByteRange.ByteRange | undefined,
    plan?: (opened: Omit<Opened, "exchange">) => Uint8Array | undefined,
    progress?: (filled: number) => void
  ): Effect.Effect<Opened, E.LoadError | Mistaken> => {
    const { key, operation } = place
    const context = { backend, operation, key }
    let opened: Omit<Opened, "exchange"> | undefined
    const look = (answer: Answer) => {
      opened = toOpened(key, answer)
      return opened && plan?.(opened)
    }
    return Effect.flatMap(exchange.send(look, progress), (answer): Effect.Effect<Opened, E.LoadError | Mistaken> => {
      if (opened !== undefined) {
        // Ceph lets pass whatever begins with the etag.
        if (options.ifMatch !== undefined && options.ifMatch !== opened.info.etag) {
          return Effect.fail(new E.PreconditionFailed(context))
        }
        return isPart(part, opened)
          ? Effect.succeed({ ...opened, exchange })
          : Effect.fail(
            new E.UnexpectedStorageError({
              ...context,
              reason: "the server sent other bytes than those that were asked for"
            })
          )
      }
      return Effect.flatMap(exchange.text, (body): Effect.Effect<Opened, E.LoadError | Mistaken> => {
        const { refusal } = refuse(answer, body)
        return refusal.status === 416
          ? beyond(context, options)
          : refusal.status === 304
          ? unchanged(context, options, answer)
          : Effect.fail(notLoaded(place, key, refusal))
      })
    })
  }

  /**
   * What a range that lies outside the object means. An empty object has all of its last bytes; so has any other, but
   * some servers do not know that.
   */
  const beyond = (context: FailureContext & { readonly key: string }, options: LoadOptions) =>
    Effect.flatMap(
      head(context.operation, context.key, send),
      ({ info }): Effect.Effect<Opened, E.LoadError | Mistaken> =>
        Either.match(checkLoad(info, options, context), {
          onLeft: Effect.fail,
          onRight: (range) =>
            info.size === 0
              ? Effect.succeed({ info, range, exchange: undefined })
              : options.range?._tag === "Last"
              ? Effect.fail(
                new Mistaken({ instead: { ...options, range: ByteRange.make(range.start, range.endExclusive) } })
              )
              // Somebody has overwritten it between the two requests.
              : Effect.fail(new E.StorageUnavailable({ ...context, reason: "it changed while it was asked for" }))
        })
    )

  /** Ceph takes whatever begins with the etag for it, and does not say which it is. */
  const unchanged = (
    context: FailureContext & { readonly key: string },
    { ifNoneMatch, ...instead }: LoadOptions,
    { headers }: Answer
  ): Effect.Effect<never, E.HeadError | E.ObjectNotModified | Mistaken> =>
    Effect.flatMap(
      headers["etag"] === undefined
        ? Effect.map(head(context.operation, context.key, send), ({ info }) => info.etag)
        : Effect.succeed(toEtag(headers["etag"])),
      (etag) => Effect.fail(etag === ifNoneMatch ? new E.ObjectNotModified(context) : new Mistaken({ instead }))
    )

  /** What cannot stand in a header is the etag of no object. */
  const neverMatches = (operation: string, key: string, { ifMatch }: LoadOptions) =>
    ifMatch === undefined || isEtag(ifMatch)
      ? undefined
      : Effect.zipRight(head(operation, key, send), Effect.fail(new E.PreconditionFailed({ backend, operation, key })))

  /**
   * Asks for an object, or for `part` of the range that is wanted of it, and closes the exchange with the scope. It is
   * for the caller to limit how many there are; so with `get`.
   */
  const open = (
    operation: string,
    key: string,
    options: LoadOptions,
    part = options.range
  ): Effect.Effect<Opened, E.LoadError, Scope.Scope> => {
    const place = { ...at(operation, key), key }
    return neverMatches(operation, key, options) ?? Effect.flatMap(
      Effect.acquireRelease(
        Effect.sync(() => new Exchange(connection, place, toGet(key, options, part))),
        (exchange) => exchange.close()
      ),
      (exchange) =>
        begin(exchange, place, options, part).pipe(
          // A failed attempt must not hold its connection for as long as the scope lives.
          Effect.onError(() => exchange.close()),
          Effect.catchTag("Mistaken", ({ instead }) =>
            open(operation, key, instead, instead.range === options.range ? part : instead.range))
        )
    )
  }

  /** The same for `use` alone. What `plan` has an array for is there when `use` begins, as far as `progress` heard. */
  const get = <A>(
    operation: string,
    key: string,
    options: LoadOptions,
    part: ByteRange.ByteRange | undefined,
    use: (opened: Opened) => Effect.Effect<A, E.LoadError>,
    plan?: (opened: Omit<Opened, "exchange">) => Uint8Array | undefined,
    progress?: (filled: number) => void
  ): Effect.Effect<A, E.LoadError> => {
    const place = { ...at(operation, key), key }
    return neverMatches(operation, key, options) ?? Effect.catchTag(
      exchange(
        connection,
        place,
        toGet(key, options, part),
        (exchange) => Effect.flatMap(begin(exchange, place, options, part, plan, progress), use)
      ),
      "Mistaken",
      ({ instead }) =>
        get(operation, key, instead, instead.range === options.range ? part : instead.range, use, plan, progress)
    )
  }

  /** A page of the objects under a prefix, and of the prefixes below it where `delimiter` separates them. */
  const listPage = (
    operation: string,
    options: ListOptions & { readonly delimiter?: string; readonly token?: string; readonly limit?: number }
  ) => {
    const place = at(operation)
    return ask(place, {
      method: "GET",
      query: {
        "list-type": "2",
        "encoding-type": "url",
        prefix: options.prefix ?? "",
        ...(options.delimiter !== undefined && { delimiter: options.delimiter }),
        ...(options.limit !== undefined && { "max-keys": String(options.limit) }),
        ...(options.token !== undefined
          ? { "continuation-token": options.token }
          : options.startAfter && { "start-after": options.startAfter })
      }
    }).pipe(
      Effect.map(({ body }) => {
        // Some servers do not encode, and say so by not saying it.
        const toKey = (text: string | undefined = "") =>
          xml.text(body, "EncodingType") === "url" ? decodeKey(text) : text
        return {
          objects: xml.elements(body, "Contents")
            .map((entry): ObjectInfo => ({
              key: toKey(xml.text(entry, "Key")),
              size: Number(xml.text(entry, "Size")),
              lastModified: new Date(xml.text(entry, "LastModified") ?? 0),
              etag: toEtag(xml.text(entry, "ETag") ?? "")
            }))
            // Others mark folders with objects whose names end in a slash; they are no keys here.
            .filter(({ key }) => ObjectKey.problem(key) === undefined),
          prefixes: xml.elements(body, "CommonPrefixes")
            .map((entry) => toKey(xml.text(entry, "Prefix")))
            .filter((prefix) => prefix !== "" && ObjectKey.isPrefix(prefix)),
          token: xml.text(body, "IsTruncated") === "true" ? xml.text(body, "NextContinuationToken") : undefined
        }
      }),
      Effect.catchTag("Refused", ({ refusal }) => Effect.fail(withoutFull(toFailure(place, refusal))))
    )
  }

  const remove = (operation: string, key: string): Effect.Effect<void, E.RemoveError> => {
    const place = at(operation, key)
    return ask(place, { method: "DELETE", key }).pipe(
      Effect.catchTag("Refused", ({ refusal }) =>
        refusal.status === 404 && refusal.code !== "NoSuchBucket"
          ? Effect.void
          : Effect.fail(withoutFull(toFailure(place, refusal)))),
      Effect.asVoid
    )
  }

  /** Removes up to 1,000 keys at once; gives the failures of those that remain. */
  const removeBatch = (keys: ReadonlyArray<string>): Effect.Effect<ReadonlyArray<E.RemoveError>, E.RemoveError> => {
    const place = at("removeAll")
    const objects = Arr.dedupe(keys).map((key) => `<Object><Key>${xml.escape(key)}</Key></Object>`).join("")
    const body = Buffer.from(`<Delete xmlns="${namespace}"><Quiet>true</Quiet>${objects}</Delete>`)
    return ask(place, {
      method: "POST",
      query: { delete: "" },
      headers: {
        "content-type": "application/xml",
        // S3 demands it of this request alone.
        "content-md5": crypto.createHash("md5").update(body).digest("base64")
      },
      body
    }).pipe(
      Effect.map(({ body, headers, status }) =>
        xml.elements(body, "Error").flatMap((error) => {
          const key = xml.text(error, "Key") ?? ""
          const refusal = toRefusal({ status, headers }, error)
          return refusal.code === "NoSuchKey" ? [] : [withoutFull(toFailure(at("removeAll", key), refusal))]
        })
      ),
      Effect.catchTag("Refused", ({ refusal }) => Effect.fail(withoutFull(toFailure(place, refusal))))
    )
  }

  /** Finds out whether the bucket is there, and may be listed from this prefix on. */
  const verify = (prefix: string) =>
    Effect.mapError(
      Effect.asVoid(listPage("open", { prefix, limit: 1 })),
      (error) =>
        error._tag === "AccessDenied" && error.reason.startsWith(mayNot)
          ? new E.AccessDenied({
            ...error,
            reason: `${error.reason}; credentials that may load but not list need verifyBucket: false`
          })
          : error
    )

  const presign = (key: string, method: "GET" | "PUT", expiresIn: number) =>
    presignRequest(connection, at("presign", key), { method, key }, expiresIn)

  return {
    backend,
    bucket,
    at,
    limit,
    ask,
    send,
    head,
    open,
    get,
    listPage,
    remove,
    removeBatch,
    verify,
    presign,
    headers,
    connection
  }
}

export const namespace = "http://s3.amazonaws.com/doc/2006-03-01/"

const isError = (body: string): boolean => /^(?:\s*<\?xml[^>]*\?>)?\s*<Error[\s>]/.test(body)

/** Which bytes come with an answer, and how many the object has; nothing where the answer does not say. */
const extent = (
  { headers, status }: Answer
): { readonly range: ByteRange.ResolvedRange; readonly size: number } | undefined => {
  if (status === 200) {
    const size = Number(headers["content-length"])
    return Number.isSafeInteger(size) ? { range: { start: 0, endExclusive: size }, size } : undefined
  }
  const [, start, end, size] = /^bytes (\d+)-(\d+)\/(\d+)$/.exec(headers["content-range"] ?? "") ?? []
  return start === undefined
    ? undefined
    : { range: { start: Number(start), endExclusive: Number(end) + 1 }, size: Number(size) }
}

/** Whether what comes is what was asked for. */
const isPart = (part: ByteRange.ByteRange | undefined, { info, range }: Omit<Opened, "exchange">): boolean =>
  Either.match(ByteRange.resolve(part, info.size), {
    onLeft: () => false,
    onRight: ({ endExclusive, start }) => start === range.start && endExclusive === range.endExclusive
  })

/** A key as a listing has it with `encoding-type=url`, where some write a space as `+`. */
const decodeKey = (key: string): string => {
  try {
    return decodeURIComponent(key.replaceAll("+", " "))
  } catch {
    // It is no UTF-8, and so no key.
    return ""
  }
}

const notFound = (place: Place, refusal: Refusal): E.ObjectNotFound | E.StorageNotFound => {
  const { backend, key, operation } = place
  if (refusal.code === "NoSuchBucket") {
    const failure = toFailure(place, refusal)
    if (failure._tag === "StorageNotFound") return failure
  }
  return new E.ObjectNotFound({ backend, operation, key: key ?? "" })
}

type Failure = ReturnType<typeof toFailure>

/** For operations that a lack of room cannot touch. */
const withoutFull = (failure: Failure): E.CommonError | E.UnsupportedOperation =>
  failure._tag === "StorageFull" ? unexpected(failure) : failure

const common = (place: Place, refusal: Refusal): E.CommonError => {
  const failure = withoutFull(toFailure(place, refusal))
  return failure._tag === "UnsupportedOperation" ? unexpected(failure) : failure
}

const unexpected = ({ backend, key, operation, reason }: E.StorageFull | E.UnsupportedOperation) =>
  new E.UnexpectedStorageError({ backend, operation, ...(key !== undefined && { key }), reason })
