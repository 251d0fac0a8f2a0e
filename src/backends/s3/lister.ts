/**
 * Listings of a bucket, a page at a time, each page retried on its own.
 */
import * as Chunk from "effect/Chunk"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Stream from "effect/Stream"
import { parseContentLength } from "../../internal/httpHeaders.js"
import { retry } from "../../internal/retry.js"
import * as ObjectKey from "../../ObjectKey.js"
import type { RetryPolicy } from "../../RetryPolicy.js"
import type { Directory, ListOptions, ObjectInfo } from "../../StorageBackend.js"
import * as E from "../../StorageError.js"
import { toEtag, toListedKey } from "./dialect.js"
import type { Bucket } from "./request.js"
import { type ErrorResponse, failureOf, isForbidden, type TextResponse, withoutFull } from "./responses.js"
import * as xml from "./xml.js"

interface PageOptions extends ListOptions {
  readonly delimiter?: string
  readonly limit?: number
}

/** As the server sent it, with keys and prefixes that are none here. */
interface Page extends Directory {
  /** Where the next page begins, if there is one. */
  readonly token: string | undefined
}

export class Lister {
  readonly #bucket: Bucket
  readonly #policy: RetryPolicy

  constructor(bucket: Bucket, policy: RetryPolicy) {
    this.#bucket = bucket
    this.#policy = policy
  }

  entries(options: ListOptions): Stream.Stream<ObjectInfo, E.ListError> {
    return Stream.mapConcatChunk(this.#pages(options), ({ objects }) => Chunk.unsafeFromArray(objects))
  }

  /** The object with this key as a listing has it; `ask` is how the request is sent. */
  entry(key: string, ask: "ask" | "askNow"): Effect.Effect<ObjectInfo | undefined, E.ListError> {
    const page = this.#page({ prefix: key, limit: 1 }, (error) => this.#failureOf(error), undefined, ask)
    return Effect.map(page, ({ objects }) => objects.find((object) => object.key === key))
  }

  listDirectory(prefix: string): Effect.Effect<Directory, E.ListError> {
    return Effect.map(Stream.runCollect(this.#pages({ prefix, delimiter: "/" })), (all) => {
      const pages = Chunk.toReadonlyArray(all)
      return {
        objects: pages.flatMap(({ objects }) => objects),
        prefixes: pages.flatMap(({ prefixes }) => prefixes)
      }
    })
  }

  /** Fails unless the bucket exists and may be listed from this prefix on. */
  verify(prefix: string): Effect.Effect<void, E.ListError> {
    return retry(
      Effect.asVoid(this.#page({ prefix, limit: 1 }, (error) => {
        const failure = this.#failureOf(error)
        return isForbidden(error) && failure._tag === "AccessDenied"
          ? new E.AccessDenied({
            reason: `${failure.reason}; set verify: false for credentials that may load but not list`
          })
          : failure
      })),
      this.#policy
    )
  }

  #pages(options: PageOptions): Stream.Stream<Directory, E.ListError> {
    return Stream.suspend(() => {
      const order = new Order(options)
      return Stream.paginateEffect(Option.none<string>(), (token) =>
        Effect.flatMap(
          retry(
            this.#page(options, (error) => this.#failureOf(error), Option.getOrUndefined(token)),
            this.#policy
          ),
          (page) => {
            const problem = order.problemOf(page)
            return problem === undefined
              ? Effect.succeed([toValid(page), Option.map(Option.fromNullable(page.token), Option.some)])
              : Effect.fail(new E.UnexpectedStorageError({ reason: problem }))
          }
        ))
    })
  }

  #failureOf(error: ErrorResponse) {
    return withoutFull(failureOf(error, this.#bucket.name))
  }

  #page(
    { delimiter, limit, prefix = "", startAfter = "" }: PageOptions,
    toFailure: (error: ErrorResponse) => E.ListError,
    token?: string,
    ask: "ask" | "askNow" = "ask"
  ): Effect.Effect<Page, E.ListError> {
    return this.#bucket[ask]({
      method: "GET",
      query: {
        "list-type": "2",
        "encoding-type": "url",
        prefix,
        ...(delimiter !== undefined && { delimiter }),
        ...(limit !== undefined && { "max-keys": String(limit) }),
        ...(token !== undefined ? { "continuation-token": token } : startAfter !== "" && { "start-after": startAfter })
      },
      response: { root: "ListBucketResult" }
    }).pipe(
      Effect.catchTag("ErrorResponse", (error) => Effect.fail(toFailure(error))),
      Effect.flatMap(toPage)
    )
  }
}

const toPage = ({ text }: TextResponse): Effect.Effect<Page, E.UnexpectedStorageError> => {
  const encoding = xml.text(text, "EncodingType")
  const next = xml.text(text, "NextContinuationToken")
  const token = xml.text(text, "IsTruncated") === "true" ? next ?? "" : undefined
  const objects = xml.elements(text, "Contents").map((entry) => toListed(entry, encoding))
  const problem = token === ""
    ? "the server listed only a part of the keys and sent no continuation token; it does not support ListObjectsV2"
    : objects.every(isComplete)
    ? undefined
    : "the server listed an object without its key, size, time or etag"
  return problem !== undefined ? Effect.fail(new E.UnexpectedStorageError({ reason: problem })) : Effect.succeed({
    objects,
    prefixes: xml.elements(text, "CommonPrefixes")
      .map((entry) => toListedKey(xml.text(entry, "Prefix") ?? "", encoding)),
    token
  })
}

const toListed = (entry: string, encoding: string | undefined): ObjectInfo => ({
  key: toListedKey(xml.text(entry, "Key") ?? "", encoding),
  size: parseContentLength(xml.text(entry, "Size")?.trim()) ?? NaN,
  lastModified: new Date(xml.text(entry, "LastModified") ?? NaN),
  etag: toEtag(xml.text(entry, "ETag") ?? "")
})

const isComplete = ({ etag, lastModified, size }: ObjectInfo): boolean =>
  etag !== "" && !Number.isNaN(size) && !Number.isNaN(lastModified.getTime())

/** Others mark folders by objects whose names end in a slash; they are no keys here. */
const toValid = ({ objects, prefixes }: Page): Directory => ({
  objects: objects.filter(({ key }) => ObjectKey.problem(key) === undefined),
  prefixes: prefixes.filter((prefix) => prefix !== "" && ObjectKey.isPrefix(prefix))
})

/** So many pages without a key in a row are possible, where many objects were removed. */
const maxEmptyPages = 1000

/**
 * Looks whether pages are those of the listing that was asked for: every key once, in order, and an end. A server that does not
 * know an option of the request, or its own token, lists others.
 */
class Order {
  readonly #options: PageOptions
  #key: string
  #prefix = ""
  #emptyPages = 0
  readonly #tokens = new Set<string>()

  constructor(options: PageOptions) {
    this.#options = options
    this.#key = options.startAfter ?? ""
  }

  /** What is wrong with the next page. */
  problemOf({ objects, prefixes, token }: Page): string | undefined {
    const { delimiter, prefix = "" } = this.#options
    let isEmpty = true
    for (const { key } of objects) {
      // It cannot be decoded, and so not be compared.
      if (key === "") continue
      if (!key.startsWith(prefix)) return `the server listed ${JSON.stringify(key)}, which does not have the prefix`
      if (delimiter !== undefined && key.slice(prefix.length, -1).includes(delimiter)) {
        return `the server listed ${JSON.stringify(key)}, which is deeper than the folder; it ignores delimiter`
      }
      if (this.#key !== "" && ObjectKey.compare(this.#key, key) >= 0) return outOfOrder(this.#key, key)
      this.#key = key
      isEmpty = false
    }
    for (const found of prefixes) {
      if (found === "") continue
      if (!found.startsWith(prefix)) return `the server listed ${JSON.stringify(found)}, which does not have the prefix`
      if (this.#prefix !== "" && ObjectKey.compare(this.#prefix, found) >= 0) return outOfOrder(this.#prefix, found)
      this.#prefix = found
      isEmpty = false
    }
    return token === undefined ? undefined : this.#problemOfToken(token, isEmpty)
  }

  #problemOfToken(token: string, isEmpty: boolean): string | undefined {
    // Where keys go on in order, the listing has an end.
    if (!isEmpty) this.#tokens.clear()
    if (this.#tokens.has(token)) return "the server sent a continuation token twice, so the listing has no end"
    this.#emptyPages = isEmpty ? this.#emptyPages + 1 : 0
    this.#tokens.add(token)
    return this.#emptyPages > maxEmptyPages
      ? `the server sent ${this.#emptyPages} pages without a key in a row, so the listing seems to have no end`
      : undefined
  }
}

const outOfOrder = (before: string, key: string): string =>
  `the server listed ${JSON.stringify(key)} after ${JSON.stringify(before)}, so keys may be missing: ` +
  "it does not list in the order of UTF-8, or repeats a page"
