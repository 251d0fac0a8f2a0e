/**
 * SHA-256 of objects. That of a version is computed once, by reading the object, unless the storage has it as the checksum.
 *
 * Hashes are kept in the memory of the server, under key, etag and size, the most recently used of them within `maxKept`
 * bytes: about 100,000. A server that is started again computes them anew.
 */
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Encoding from "effect/Encoding"
import * as FiberId from "effect/FiberId"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import { LRUCache } from "lru-cache"
import * as Hash from "../../../internal/hash.js"
import type * as Storage from "../../../Storage.js"
import type { ObjectInfo } from "../../../StorageBackend.js"
import type { LoadError } from "../../../StorageError.js"

/** In bytes. */
const maxKept = 32 * 1024 * 1024

/** What an entry takes beside its key, roughly, in bytes. */
const entrySize = 256

/** How many objects are read at once. One alone takes most of a processor. */
const concurrency = 2

const chunkSize = 1024 * 1024

export class Hashes {
  readonly #storage: Storage.Service
  readonly #scope: Scope.Scope
  readonly #permits = Effect.unsafeMakeSemaphore(concurrency)
  readonly #known = new LRUCache<string, string>({
    maxSize: maxKept,
    sizeCalculation: (_, version) => entrySize + 2 * version.length
  })
  /** Those being computed, by version. They belong to the server, not to the request that asked first. */
  readonly #running = new Map<string, Deferred.Deferred<string, LoadError>>()

  constructor(storage: Storage.Service, scope: Scope.Scope) {
    this.#storage = storage
    this.#scope = scope
  }

  /** In lower-case hexadecimal. Fails with `PreconditionFailed` where the object was replaced since `info`. */
  of(info: ObjectInfo): Effect.Effect<string, LoadError> {
    return Effect.suspend(() => {
      const version = `${info.size} ${info.etag} ${info.key}`
      const known = sha256In(info) ?? this.#known.get(version)
      if (known !== undefined) return Effect.succeed(known)
      const running = this.#running.get(version)
      return running === undefined ? this.#start(version, info) : Deferred.await(running)
    })
  }

  #start(version: string, info: ObjectInfo): Effect.Effect<string, LoadError> {
    const outcome = Deferred.unsafeMake<string, LoadError>(FiberId.none)
    this.#running.set(version, outcome)
    const computing = this.#permits.withPermits(1)(this.#compute(info)).pipe(
      Effect.tap((hash) => Effect.sync(() => this.#known.set(version, hash))),
      Effect.ensuring(Effect.sync(() => this.#running.delete(version))),
      Effect.intoDeferred(outcome)
    )
    return Effect.zipRight(Effect.forkIn(computing, this.#scope), Deferred.await(outcome))
  }

  #compute(info: ObjectInfo): Effect.Effect<string, LoadError> {
    const { etag, key } = info
    // A listing may leave out the checksum.
    return Effect.flatMap(this.#storage.head(key), (current) => {
      const known = current.etag === etag ? sha256In(current) : undefined
      return known === undefined ? this.#read(key, etag) : Effect.succeed(known)
    })
  }

  #read(key: string, etag: string): Effect.Effect<string, LoadError> {
    return Effect.scoped(Effect.gen(this, function*() {
      const hash = yield* Hash.make("sha256")
      const { bytes, reuse, stream } = yield* this.#storage.open(key, { ifMatch: etag, chunkSize })
      if (bytes !== undefined) yield* Hash.update(hash, bytes)
      else yield* Stream.runForEach(reuse?.(() => true) ?? stream, (chunk) => Hash.update(hash, chunk))
      return Hash.hexDigest(hash)
    }))
  }
}

const sha256In = ({ checksum }: ObjectInfo): string | undefined =>
  checksum?.algorithm === "SHA256"
    ? Either.getOrUndefined(Either.map(Encoding.decodeBase64(checksum.value), Encoding.encodeHex))
    : undefined
