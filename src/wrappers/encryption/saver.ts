/**
 * Saves objects encrypted, each with a data key of its own, and moves objects from one master key to another.
 */
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Redacted from "effect/Redacted"
import * as Stream from "effect/Stream"
import * as ByteRange from "../../ByteRange.js"
import { collect, intoArray } from "../../internal/bytes.js"
import { unexpected } from "../../internal/errors.js"
import { withSource } from "../../internal/source.js"
import type { ObjectInfo, SaveData, SaveOptions, StorageBackend } from "../../StorageBackend.js"
import * as E from "../../StorageError.js"
import * as Cobblestone from "./cobblestone.js"
import * as Header from "./header.js"
import type { MasterKeys } from "./masterKeys.js"
import { pipeline } from "./pipeline.js"
import { openFromStart, plainInfo } from "./reader.js"

type Bytes = Uint8Array<ArrayBuffer>

/** How many chunks are encrypted together: 1 MiB. */
const chunksAtOnce = 64

export class Saver {
  readonly #inner: StorageBackend
  readonly #keys: MasterKeys

  constructor(inner: StorageBackend, keys: MasterKeys) {
    this.#inner = inner
    this.#keys = keys
  }

  save(key: string, data: SaveData, options: SaveOptions): Effect.Effect<ObjectInfo, E.SaveError> {
    return Effect.gen(this, function*() {
      const { header, secret } = yield* this.#keys.make(key)
      const message = yield* Effect.promise(() => Cobblestone.Message.create(Redacted.value(secret), key))
      const start = Stream.make(yield* Effect.promise(() => Header.encode(header)), message.header)
      const encrypted = Stream.concat(start, encrypt(message, data instanceof Uint8Array ? Stream.make(data) : data))
      const plain = data instanceof Uint8Array ? data.byteLength : options.size
      const size = plain === undefined ? undefined : Header.storedSize(plain)
      // What is in memory stays in memory, so that a save of it can be retried.
      const stored = data instanceof Uint8Array && size !== undefined ? yield* intoArray(encrypted, size) : encrypted
      return plainInfo(yield* this.#inner.save(key, stored, { ...options, size }))
    })
  }

  /**
   * Wraps the data key of an object with the current master key, unless it is; whether it was not. The bytes behind the header stay
   * as they are.
   */
  rewrap(key: string): Effect.Effect<boolean, RewrapError> {
    return Effect.scoped(Effect.gen(this, function*() {
      const opened = yield* openFromStart(this.#inner, key, { range: ByteRange.make(0, Header.headerSize) })
      const first = opened.bytes ?? (yield* collect(opened.stream))
      const header = yield* Effect.promise(() => Header.decode(first))
      if (typeof header === "string") return yield* new E.CorruptObject({ problem: "frame", reason: header })
      if (header.id === this.#keys.current.id) return false
      const wrapped = yield* this.#keys.wrap(yield* this.#keys.unwrap(header, key), key)
      const start = yield* Effect.promise(() => Header.encode(wrapped))
      const { attributes, etag: ifMatch, size } = opened.info
      const rest = yield* this.#inner.open(key, { range: ByteRange.from(Header.headerSize), ifMatch })
      yield* withSource(
        Stream.concat(Stream.make(start), rest.stream),
        (data) => this.#inner.save(key, data, { attributes, ifMatch, size })
      )
      return true
    })).pipe(Effect.catchTags({ ObjectNotModified: unexpected, InvalidRange: unexpected }))
  }
}

/** The failures of `rewrap`: those of a copy. */
export type RewrapError = E.CopyError

const encrypt = (message: Cobblestone.Message, data: Stream.Stream<Uint8Array>): Stream.Stream<Bytes> =>
  Stream.unwrapScoped(Effect.map(Stream.toPull(data), (pull) =>
    pipeline(pull, {
      pieceSize: Cobblestone.chunkSize,
      atOnce: chunksAtOnce,
      lastMayBeEmpty: true,
      run: async (chunks, index) => Either.right(await message.seal(index, chunks))
    }, 0)))
