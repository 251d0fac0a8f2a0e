/**
 * Lists objects with one request. A listing that breaks resumes after the last key that arrived.
 */
import * as Arr from "effect/Array"
import * as Chunk from "effect/Chunk"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import { isListError } from "../../internal/errors.js"
import * as protocol from "../../internal/protocol.js"
import { listResuming } from "../../internal/retry.js"
import * as ObjectKey from "../../ObjectKey.js"
import type { RetryPolicy } from "../../RetryPolicy.js"
import type { Directory, ListOptions, ObjectInfo } from "../../StorageBackend.js"
import * as E from "../../StorageError.js"
import { type Peer, send, toReply } from "./request.js"
import { failureOf, fromServer, notUnderstood, only } from "./responses.js"

type Entry = ObjectInfo | { readonly prefix: string }

const nameOf = (entry: Entry): string => "key" in entry ? entry.key : entry.prefix

interface EntryOptions extends ListOptions {
  readonly delimiter?: string
}

export class Lister {
  readonly #peer: Peer
  readonly #policy: RetryPolicy

  constructor(peer: Peer, policy: RetryPolicy) {
    this.#peer = peer
    this.#policy = policy
  }

  entries(options: ListOptions): Stream.Stream<ObjectInfo, E.ListError> {
    return Stream.mapChunks(
      this.#list(options),
      Chunk.filterMap((entry) => "key" in entry ? Option.some(entry) : Option.none())
    )
  }

  listDirectory(prefix: string): Effect.Effect<Directory, E.ListError> {
    return Effect.map(Stream.runCollect(this.#list({ prefix }, "/")), (all) => {
      const [objects, prefixes] = Arr.partitionMap(
        Chunk.toReadonlyArray(all),
        (entry) => "key" in entry ? Either.left(entry) : Either.right(entry.prefix)
      )
      return { objects, prefixes }
    })
  }

  #list(options: ListOptions, delimiter?: string): Stream.Stream<Entry, E.ListError> {
    return listResuming(
      (options) => this.#request({ ...options, ...(delimiter !== undefined && { delimiter }) }),
      nameOf,
      options,
      this.#policy
    )
  }

  #request(options: EntryOptions): Stream.Stream<Entry, E.ListError> {
    const { isWhole, query } = queryOf(options)
    const headers = { accept: protocol.listingWithEnd }
    const found = Stream.unwrapScoped(
      Effect.flatMap(
        send(this.#peer, { method: "GET", path: `/objects${query}`, headers }),
        (exchange): Effect.Effect<Stream.Stream<Entry, E.ListError>, E.ListError, Scope.Scope> =>
          exchange.response.status === 200
            ? entriesIn(exchange.call.stream(), protocol.hasEnd(exchange.response.headers["content-type"] ?? ""))
            : Effect.flatMap(
              toReply(exchange),
              (reply) => Effect.fail(only(failureOf(reply, { about: "storage", isStatic: false }), isListError))
            )
      )
    )
    const { startAfter = "" } = options
    return isWhole ? found : Stream.filter(found, (entry) => ObjectKey.compare(nameOf(entry), startAfter) > 0)
  }
}

/** The query of a listing, and whether it is exact: some strings that are not keys cannot be sent. */
const queryOf = ({ delimiter = "", prefix = "", startAfter = "" }: EntryOptions) => {
  const sent = startAfter.slice(0, ObjectKey.maxBytes).replace(/\p{Cs}.*$/su, "")
  const parameters = Object.entries({ prefix, startAfter: sent, delimiter })
    .filter(([, value]) => value !== "")
    .map(([name, value]) => `${name}=${encodeURIComponent(value)}`)
  return { query: parameters.length === 0 ? "" : `?${parameters.join("&")}`, isWhole: sent === startAfter }
}

/** The longest line of a listing, in characters. */
const maxLine = 64 * 1024

/**
 * The entries of a listing that arrives line by line. A last line may be a failure; one that ends early was cut off, and so was
 * a listing without its end, where the server sends one.
 */
const entriesIn = (
  body: Stream.Stream<Uint8Array, E.CommonError>,
  hasEnd: boolean
): Effect.Effect<Stream.Stream<Entry, E.ListError>, never, Scope.Scope> =>
  Effect.map(Stream.toPull(body), (pull) => {
    const lines = new Lines(hasEnd)
    const cutOff = new E.StorageUnavailable({ reason: "the listing was cut off" })
    return Stream.repeatEffectChunkOption(Effect.suspend(() =>
      lines.failure !== undefined
        ? Effect.fail(Option.some(lines.failure))
        : Effect.matchEffect(pull, {
          onSuccess: (chunk) => Effect.succeed(Chunk.unsafeFromArray(lines.read(chunk))),
          onFailure: (end) => Effect.fail(Option.isNone(end) && lines.isCutOff ? Option.some<E.ListError>(cutOff) : end)
        })
    ))
  })

class Lines {
  readonly #decoder = new TextDecoder()
  #rest = ""
  #failure: E.ListError | undefined
  #count = 0
  #isEndMissing: boolean

  constructor(hasEnd: boolean) {
    this.#isEndMissing = hasEnd
  }

  /** What ends the listing, once the lines before it are taken. */
  get failure(): E.ListError | undefined {
    return this.#failure
  }

  get isCutOff(): boolean {
    return this.#rest !== "" || this.#isEndMissing
  }

  read(chunk: Chunk.Chunk<Uint8Array>): Array<Entry> {
    const text = Chunk.reduce(chunk, this.#rest, (text, bytes) => text + this.#decoder.decode(bytes, { stream: true }))
    const lines = text.split("\n")
    this.#rest = lines.pop() ?? ""
    if (this.#rest.length > maxLine) this.#failure = noListing()
    const entries: Array<Entry> = []
    for (const line of lines) {
      const entry = Option.getOrUndefined(decodeEntry(line))
      if (entry === undefined && Option.exists(decodeEnd(line), ({ end }) => end === this.#count)) {
        this.#isEndMissing = false
        continue
      }
      this.#count++
      if (entry === undefined || "_tag" in entry) {
        this.#failure = entry === undefined ? noListing() : only(fromServer(entry), isListError)
        return entries
      }
      entries.push("key" in entry ? { ...entry } : entry)
    }
    return entries
  }
}

const decodeEntry = Schema.decodeUnknownOption(Schema.parseJson(protocol.Entry))

const decodeEnd = Schema.decodeUnknownOption(Schema.parseJson(protocol.End))

const noListing = (): E.UnexpectedStorageError => notUnderstood("is not a listing")
