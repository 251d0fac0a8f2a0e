/**
 * Blocks of objects in the second tier of a cache. A block is read whole and held against its checksum each time, so that
 * nothing that has changed on disk is ever served.
 *
 * Nothing here fails: a failure of the tier is counted, and then it is as if the block were not there.
 */
import * as Effect from "effect/Effect"
import * as Encoding from "effect/Encoding"
import * as Option from "effect/Option"
import * as Stream from "effect/Stream"
import * as ByteRange from "../../ByteRange.js"
import * as Hash from "../../internal/hash.js"
import * as ObjectKey from "../../ObjectKey.js"
import type { ObjectInfo } from "../../StorageBackend.js"
import { CorruptObject } from "../../StorageError.js"
import {
  blockLength,
  maxTrailer,
  parseName,
  readTrailer,
  toBlockName,
  trailerSize,
  withTrailer
} from "./storedObject.js"
import type { Perhaps, TierStorage } from "./tierStorage.js"

type Bytes = Uint8Array<ArrayBuffer>

export class BlockTier {
  readonly #tier: TierStorage
  readonly #blockSize: number

  constructor(tier: TierStorage, blockSize: number) {
    this.#tier = tier
    this.#blockSize = blockSize
  }

  get capacity(): number {
    return this.#tier.capacity
  }

  /** Calls a function whenever the last of an object is gone. */
  whenGone(listener: (key: string) => void): void {
    this.#tier.whenGone = listener
  }

  contents(): { readonly objects: number; readonly blocks: number; readonly size: number } {
    return this.#tier.contents()
  }

  /** Whether any block of an object is here. */
  knows(key: string): boolean {
    return this.#tier.names(key).size > 0
  }

  has(key: string, index: number): boolean {
    return this.#tier.peek(toBlockName(key, index))?.etag !== undefined
  }

  /** What the block that was saved last tells about an object that an earlier process has kept. */
  find(key: string): Effect.Effect<ObjectInfo | undefined> {
    return Effect.gen(this, function*() {
      for (const name of [...this.#tier.names(key)].reverse()) {
        const found = this.#tier.peek(name)
        if (parseName(name)?.index === undefined || found?.etag === undefined) continue
        const options = { range: ByteRange.last(maxTrailer), ifMatch: found.etag }
        const end = yield* this.#tier.attempt(this.#tier.backend.load(name, options))
        const trailer = Option.isNone(end) ? undefined : yield* readTrailer(key, end.value, found.size)
        // It was removed meanwhile.
        if (this.#tier.peek(name) !== found) continue
        if (trailer?.origin === this.#tier.origin && trailer.block?.size === this.#blockSize) return trailer.info
        this.#tier.drop(name, found)
      }
      return undefined
    })
  }

  /** A block of this version of an object. */
  load(info: ObjectInfo, index: number): Perhaps<Bytes> {
    return Effect.suspend(() => {
      const name = toBlockName(info.key, index)
      const found = this.#tier.get(name)
      if (found?.etag === undefined) return Effect.succeedNone
      if (found.size > this.#blockSize + maxTrailer) {
        this.#tier.drop(name, found)
        return Effect.succeedNone
      }
      const reading = Effect.flatMap(
        this.#tier.backend.load(name, { ifMatch: found.etag }),
        (stored) => this.#check(info, index, stored)
      )
      return Effect.map(this.#tier.attempt(reading), (checked) => {
        const bytes = Option.getOrUndefined(checked)
        if (bytes !== undefined) return Option.some(bytes)
        this.#tier.drop(name, found)
        return Option.none()
      })
    })
  }

  /** The bytes of the block, unless it is of another version. */
  #check(info: ObjectInfo, index: number, stored: Bytes): Effect.Effect<Bytes | undefined, CorruptObject> {
    return Effect.gen(this, function*() {
      const name = toBlockName(info.key, index)
      const damaged = new CorruptObject({
        key: name,
        problem: "checksum",
        reason: "its bytes have changed since it was saved"
      })
      const trailer = yield* readTrailer(info.key, stored, stored.byteLength)
      if (trailer === undefined) return yield* damaged
      const { block, origin } = trailer
      if (
        origin !== this.#tier.origin || trailer.info.etag !== info.etag || trailer.info.size !== info.size ||
        block?.index !== index || block.size !== this.#blockSize
      ) return undefined
      const bytes = stored.subarray(0, blockLength(info, block))
      const hash = yield* Hash.make("sha256")
      yield* Hash.update(hash, bytes)
      return Encoding.encodeBase64(hash.digest()) === trailer.sha256 ? bytes : yield* damaged
    })
  }

  /** Whether this block may be kept. */
  fits(info: ObjectInfo, index: number): boolean {
    const block = { index, size: this.#blockSize }
    if (ObjectKey.problem(toBlockName(info.key, index)) !== undefined) return false
    const trailer = trailerSize(info, this.#tier.origin, block)
    return trailer <= maxTrailer && blockLength(info, block) + trailer <= this.#tier.capacity
  }

  /** Keeps a block that fits. */
  save(info: ObjectInfo, index: number, bytes: Bytes, isWanted: () => boolean): Effect.Effect<void> {
    const block = { index, size: this.#blockSize }
    const { origin } = this.#tier
    const place = { key: info.key, size: bytes.byteLength + trailerSize(info, origin, block) }
    const data = withTrailer(Stream.make(bytes), info, origin, block)
    return this.#tier.save(toBlockName(info.key, index), place, data, isWanted)
  }

  /** Removes whatever there is of some objects. */
  remove(keys: ReadonlyArray<string>): Effect.Effect<void> {
    return this.#tier.remove(keys)
  }
}
