/**
 * Reads files of a model: the hub redirects to an address that is signed for some time, often on another host, which is used
 * until that refuses it.
 */
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import type * as Scope from "effect/Scope"
import { LRUCache } from "lru-cache"
import * as ByteRange from "../../ByteRange.js"
import { copyOf } from "../../internal/bytes.js"
import { isLoadError } from "../../internal/errors.js"
import type { Response } from "../../internal/httpCall.js"
import { parseContentLength, parseContentRange } from "../../internal/httpHeaders.js"
import { encodeKey } from "../../internal/protocol.js"
import { openResuming } from "../../internal/retry.js"
import type { RetryPolicy } from "../../RetryPolicy.js"
import { checkLoad, type LoadOptions, opened, openedBytes, type OpenedObject } from "../../StorageBackend.js"
import type { StreamOptions } from "../../StorageBackend.js"
import * as E from "../../StorageError.js"
import { section, shortBody } from "../http/reader.js"
import { type Exchange, isAtHome, type Peer, send, toReply } from "../http/request.js"
import { notUnderstood, only } from "../http/responses.js"
import { verified } from "./checksum.js"
import { failureOf, failureOfHost, isRefusal } from "./responses.js"
import type { File, Snapshot } from "./snapshot.js"

/** How many signed addresses are kept. */
const maxAddresses = 1000

/** How often the hub is asked anew for an address that is refused. */
const maxResolves = 2

export class Reader {
  readonly #peer: Peer
  readonly #policy: RetryPolicy
  readonly #snapshot: Snapshot
  /** Where the bytes of each file are, by its path. */
  readonly #addresses = new LRUCache<string, URL>({ max: maxAddresses })
  readonly #base: string

  constructor(peer: Peer, policy: RetryPolicy, repo: string, snapshot: Snapshot) {
    this.#peer = peer
    this.#policy = policy
    this.#snapshot = snapshot
    this.#base = `/${encodeKey(repo)}/resolve/${snapshot.commit}`
  }

  find(key: string): Effect.Effect<File, E.ObjectNotFound> {
    const file = this.#snapshot.files.get(key)
    return file === undefined ? Effect.fail(new E.ObjectNotFound()) : Effect.succeed(file)
  }

  open(key: string, options: StreamOptions): Effect.Effect<OpenedObject, E.LoadError, Scope.Scope> {
    return Effect.flatMap(
      this.find(key),
      (file) =>
        Effect.flatMap(checkLoad(file.info, options), ({ endExclusive, start }) => {
          const isWhole = start === 0 && endExclusive === file.info.size
          const opening = openResuming((options) => this.#open(file, options), options, this.#policy)
          return isWhole ? Effect.flatMap(opening, (opened) => verified(opened, file.sha256)) : opening
        })
    )
  }

  #open(file: File, options: LoadOptions): Effect.Effect<OpenedObject, E.LoadError, Scope.Scope> {
    const { info } = file
    return Effect.flatMap(checkLoad(info, options), (range) => {
      const length = range.endExclusive - range.start
      if (length === 0) return Effect.succeed(openedBytes(info, range, new Uint8Array(0)))
      return Effect.flatMap(
        this.#request(file, range),
        ({ call, response }) =>
          Effect.flatMap(sentOf(file, range, response), (sent) => {
            const isExact = sent.start === range.start && sent.endExclusive === range.endExclusive
            const size = sent.endExclusive - sent.start
            if (size > shortBody) {
              const stream = call.stream()
              return Effect.succeed(opened({ info, range, stream: isExact ? stream : section(stream, range) }))
            }
            const bytes = new Uint8Array(size)
            return Effect.map(
              call.into(bytes),
              () => openedBytes(info, range, isExact ? bytes : copyOf(bytes, range.start, range.endExclusive))
            )
          })
      )
    })
  }

  /** The response with the bytes, from the address that is known or from a new one. */
  #request(file: File, range: ByteRange.ResolvedRange): Effect.Effect<Exchange, E.LoadError, Scope.Scope> {
    const { info: { size }, path } = file
    const isWhole = range.start === 0 && range.endExclusive === size
    const headers = isWhole ? {} : { range: ByteRange.toHttp(ByteRange.make(range.start, range.endExclusive)) }
    const attempt = (left: number): Effect.Effect<Exchange, E.LoadError, Scope.Scope> =>
      Effect.suspend(() => {
        const known = this.#addresses.get(path)
        const address = known ?? `${this.#base}/${encodeKey(path)}`
        return Effect.flatMap(send(this.#peer, { method: "GET", path: address, headers }), (exchange) => {
          const { call, response: { status }, url } = exchange
          const isHome = isAtHome(this.#peer, url)
          if (status === 200 || status === 206) {
            if (!isHome) this.#addresses.set(path, url)
            return Effect.succeed(exchange)
          }
          this.#addresses.delete(path)
          // An address that was known costs no attempt: it may have expired long ago.
          const remaining = known === undefined ? left - 1 : left
          if (!isHome && isRefusal(status) && remaining > 0) return Effect.zipRight(call.close, attempt(remaining))
          return Effect.flatMap(toReply(exchange), (reply) =>
            status === 416
              ? Effect.fail(wrongSize(size, "fewer"))
              : Effect.fail(only(isHome ? failureOf(reply) : failureOfHost(reply), isLoadError)))
        })
      })
    return attempt(maxResolves)
  }
}

/** The bytes in the body, or what is wrong with the response: the length of the file is known. */
const sentOf = (
  { info: { size } }: File,
  range: ByteRange.ResolvedRange,
  { headers, status }: Response
): Either.Either<ByteRange.ResolvedRange, E.UnexpectedStorageError | E.CorruptObject> => {
  const encoding = headers["content-encoding"] ?? ""
  if (encoding !== "" && encoding !== "identity") {
    return Either.left(notUnderstood(`is encoded (${encoding}), so that its bytes are not those of the file`))
  }
  if (status === 200) {
    // Without a length, the body is counted.
    const length = parseContentLength(headers["content-length"]) ?? size
    return length === size
      ? Either.right({ start: 0, endExclusive: size })
      : Either.left(wrongSize(size, length < size ? "fewer" : "more"))
  }
  const sent = parseContentRange(headers["content-range"])
  if (sent?.size !== undefined && sent.size !== size) {
    return Either.left(wrongSize(size, sent.size < size ? "fewer" : "more"))
  }
  return sent?.range.start === range.start && sent.range.endExclusive === range.endExclusive
    ? Either.right(range)
    : Either.left(notUnderstood("has other bytes than those requested"))
}

const wrongSize = (size: number, actual: "fewer" | "more"): E.CorruptObject =>
  new E.CorruptObject({ problem: "size", reason: `the file has ${actual} than the ${size} bytes that the hub lists` })
