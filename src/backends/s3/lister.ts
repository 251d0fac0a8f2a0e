/**
 * Listings of a bucket, a page at a time, each page retried on its own.
 */
import * as Chunk from "effect/Chunk"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Stream from "effect/Stream"
import { retry } from "../../internal/retry.js"
import * as ObjectKey from "../../ObjectKey.js"
import type { RetryPolicy } from "../../RetryPolicy.js"
import type { Directory, ListOptions, ObjectInfo } from "../../StorageBackend.js"
import * as E from "../../StorageError.js"
import { toEtag, toListedKey } from "./dialect.js"
import type { Bucket, TextResponse } from "./request.js"
import { type ErrorResponse, failureOf, isForbidden, withoutFull } from "./responses.js"
import * as xml from "./xml.js"

interface PageOptions extends ListOptions {
  readonly delimiter?: string
  readonly limit?: number
}

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
        const failure = withoutFull(failureOf(error, this.#bucket.name))
        return isForbidden(error) && failure._tag === "AccessDenied"
          ? new E.AccessDenied({
            reason: `${failure.reason}; set verify: false for credentials that may load but not list`
          })
          : failure
      })),
      this.#policy
    )
  }

  #pages(options: PageOptions): Stream.Stream<Page, E.ListError> {
    return Stream.paginateEffect(Option.none<string>(), (token) =>
      Effect.map(
        retry(
          this.#page(
            options,
            (error) => withoutFull(failureOf(error, this.#bucket.name)),
            Option.getOrUndefined(token)
          ),
          this.#policy
        ),
        (page) => [page, Option.map(Option.fromNullable(page.token), Option.some)]
      ))
  }

  #page(
    { delimiter, limit, prefix = "", startAfter = "" }: PageOptions,
    toFailure: (error: ErrorResponse) => E.ListError,
    token?: string
  ): Effect.Effect<Page, E.ListError> {
    return this.#bucket.ask({
      method: "GET",
      query: {
        "list-type": "2",
        "encoding-type": "url",
        prefix,
        ...(delimiter !== undefined && { delimiter }),
        ...(limit !== undefined && { "max-keys": String(limit) }),
        ...(token !== undefined ? { "continuation-token": token } : startAfter !== "" && { "start-after": startAfter })
      }
    }).pipe(
      Effect.catchTag("ErrorResponse", (error) => Effect.fail(toFailure(error))),
      Effect.flatMap(toPage)
    )
  }
}

const toPage = ({ text }: TextResponse): Effect.Effect<Page, E.UnexpectedStorageError> => {
  const encoding = xml.text(text, "EncodingType")
  const isTruncated = xml.text(text, "IsTruncated") === "true"
  const token = isTruncated ? xml.text(text, "NextContinuationToken") : undefined
  if (isTruncated && (token === undefined || token === "")) {
    return Effect.fail(
      new E.UnexpectedStorageError({
        reason:
          "the server listed only a part of the keys and sent no continuation token; it does not support ListObjectsV2"
      })
    )
  }
  return Effect.succeed({
    objects: xml.elements(text, "Contents")
      .map((entry) => toListed(entry, encoding))
      // Others mark folders by objects whose names end in a slash; they are no keys here.
      .filter(({ key }) => ObjectKey.problem(key) === undefined),
    prefixes: xml.elements(text, "CommonPrefixes")
      .map((entry) => toListedKey(xml.text(entry, "Prefix") ?? "", encoding))
      .filter((prefix) => prefix !== "" && ObjectKey.isPrefix(prefix)),
    token
  })
}

const toListed = (entry: string, encoding: string | undefined): ObjectInfo => ({
  key: toListedKey(xml.text(entry, "Key") ?? "", encoding),
  size: Number(xml.text(entry, "Size")),
  lastModified: new Date(xml.text(entry, "LastModified") ?? 0),
  etag: toEtag(xml.text(entry, "ETag") ?? "")
})
