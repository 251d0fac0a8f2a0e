/**
 * Streams that fill a cache as they pass through it.
 */
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Fiber from "effect/Fiber"
import * as Mailbox from "effect/Mailbox"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import { allocate, copyOf } from "../../internal/bytes.js"
import type { OpenedObject } from "../../StorageBackend.js"
import type { Fill } from "./fills.js"
import type { Entry } from "./memoryTier.js"
import type { CachedObjects } from "./objects.js"

type Bytes = OpenedObject["stream"]

export class Filling {
  readonly #objects: CachedObjects
  readonly #isShared: boolean
  /** The keys of streams that fill the cache. */
  readonly #keys = new Set<string>()

  constructor(objects: CachedObjects, isShared: boolean) {
    this.#objects = objects
    this.#isShared = isShared
  }

  /** The same opened object. It fills the cache if it is whole and fits, and no other stream of it does. */
  opened(opened: OpenedObject, entry: Entry, fill: Fill): Effect.Effect<OpenedObject> {
    const { bytes, info, range, reuse, stream } = opened
    if (range.start > 0 || range.endExclusive < info.size || !this.#objects.fits(info)) return Effect.succeed(opened)
    if (bytes !== undefined) {
      return Effect.as(this.#objects.keep({ entry, bytes: this.#isShared ? bytes : copyOf(bytes) }, fill), opened)
    }
    return Effect.succeed({
      ...opened,
      // The reader may write to its chunks.
      stream: this.#stream(stream, entry, fill, !this.#isShared),
      reuse: reuse && ((isFree) => this.#stream(reuse(isFree), entry, fill, true))
    })
  }

  #stream(stream: Bytes, entry: Entry, fill: Fill, copies: boolean): Bytes {
    return Stream.unwrapScoped(Effect.suspend(() => {
      const { key } = entry.info
      if (this.#keys.has(key)) return Effect.succeed(stream)
      const filling = this.#objects.tier?.fits(entry.info) === true
        ? this.#intoTier(stream, entry, fill, copies)
        : Effect.succeed(this.#intoMemory(stream, entry, fill))
      return Effect.zipRight(
        Effect.acquireRelease(
          Effect.sync(() => this.#keys.add(key)),
          () => Effect.sync(() => this.#keys.delete(key))
        ),
        filling
      )
    }))
  }

  /** Keeps the object when all of it has arrived. */
  #intoMemory(stream: Bytes, entry: Entry, fill: Fill): Bytes {
    const { size } = entry.info
    return Either.match(allocate(size), {
      onLeft: () => stream,
      onRight: (bytes) => {
        let at = 0
        const gathered = Stream.mapChunks(stream, (chunk) => {
          for (const piece of chunk) {
            if (at + piece.byteLength <= size) bytes.set(piece, at)
            at += piece.byteLength
          }
          return chunk
        })
        const keeping = Effect.suspend(() =>
          at === size ? this.#objects.keepInMemory({ entry, bytes }, fill) : Effect.void
        )
        return Stream.concat(gathered, Stream.execute(keeping))
      }
    })
  }

  /** Saves the object chunk by chunk; the stream ends when it is saved. */
  #intoTier(stream: Bytes, entry: Entry, fill: Fill, copies: boolean): Effect.Effect<Bytes, never, Scope.Scope> {
    return Effect.gen(this, function*() {
      const chunks = yield* Mailbox.make<Uint8Array>(1)
      const saving = yield* Effect.forkScoped(Effect.interruptible(Effect.ensuring(
        this.#objects.keepInTier(entry, Mailbox.toStream(chunks), fill),
        // A tier that fails must not make the reader wait.
        chunks.shutdown
      )))
      const passed = Stream.mapChunksEffect(stream, (chunk) =>
        Effect.as(
          Effect.forEach(chunk, (bytes) => chunks.offer(copies ? copyOf(bytes) : bytes), { discard: true }),
          chunk
        ))
      return Stream.concat(passed, Stream.execute(Effect.zipRight(chunks.end, Fiber.await(saving))))
    })
  }
}
