/**
 * Writes bytes into a new file, fast: in large writes, each collected while the previous one runs, and with syncs in between, so
 * that little remains to be synced at the end (bench rows `save` and `save-stream`).
 */
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import type { SaveData } from "../../StorageBackend.js"

/** The bytes of one write. */
const writeSize = 4 * 1024 * 1024

/** The arrays of one write: Linux and macOS allow 1,024 (IOV_MAX). */
const writeCount = 1024

/** How many bytes are written before another sync begins, and how many syncs run at once. */
const syncSize = 16 * 1024 * 1024
const maxSyncs = 2

/** A file being written. */
export interface Target<E> {
  /** Writes all of the arrays at a position. */
  readonly write: (data: ReadonlyArray<Uint8Array>, position: number) => Effect.Effect<void, E>
  /** Ends when what was written is on the disk. Default: nothing is synced. */
  readonly sync: Effect.Effect<void, E> | undefined
}

/**
 * Writes all data into a file from a position on, in order. It holds at most two writes of the data and one chunk of the stream; when it ends,
 * or its scope does, nothing is under way any more.
 */
export const writeAll = <E>(
  target: Target<E>,
  data: SaveData,
  position = 0
): Effect.Effect<void, E, Scope.Scope> => {
  const writer = new Writer(target, position)
  const accept = (chunk: Iterable<Uint8Array>) => writer.accept(chunk) ? writer.sendFull : Effect.void
  if (data instanceof Uint8Array) return Effect.zipRight(accept([data]), writer.end)
  // Pulled, as `Stream.runForEachChunk` keeps each chunk until the whole heap is collected (bench row `save-stream`).
  return Effect.flatMap(Stream.toPull(data), (pull) => {
    const next: Effect.Effect<void, E, Scope.Scope> = Effect.matchEffect(pull, {
      onFailure: () => writer.end,
      onSuccess: (chunk) => writer.accept(chunk) ? Effect.zipRight(writer.sendFull, next) : next
    })
    return next
  })
}

class Writer<E> {
  /** What was not sent yet, in pieces of at most a write. */
  #pieces: Array<Uint8Array> = []
  #size = 0
  /** What the next write writes. */
  #outgoing: ReadonlyArray<Uint8Array> = []
  #writing: Fiber.Fiber<void, E> | undefined
  #position: number
  #synced: number
  readonly #syncs = new Set<Fiber.Fiber<void, E>>()
  readonly #target: Target<E>

  constructor(target: Target<E>, position: number) {
    this.#target = target
    this.#position = position
    this.#synced = position
  }

  /** Takes the next bytes of the file; returns whether there are enough for a write. */
  accept(chunk: Iterable<Uint8Array>): boolean {
    for (const bytes of chunk) {
      for (let at = 0; at < bytes.byteLength; at += writeSize) this.#pieces.push(bytes.subarray(at, at + writeSize))
      this.#size += bytes.byteLength
    }
    return this.#isFull
  }

  get #isFull(): boolean {
    return this.#size >= writeSize || this.#pieces.length >= writeCount
  }

  /** Writes until what is left is less than a write; the last one is still under way then. */
  readonly sendFull: Effect.Effect<void, E, Scope.Scope> = Effect.suspend(() =>
    this.#isFull ? Effect.zipRight(this.#send, this.sendFull) : Effect.void
  )

  /** Ends once everything is written, and each sync that has begun. */
  readonly end: Effect.Effect<void, E, Scope.Scope> = Effect.gen(this, function*() {
    if (this.#size > 0) yield* this.#send
    if (this.#writing !== undefined) yield* Fiber.join(this.#writing)
    yield* Fiber.joinAll(this.#syncs)
  })

  readonly #send: Effect.Effect<void, E, Scope.Scope> = Effect.gen(this, function*() {
    if (this.#writing !== undefined) yield* Fiber.join(this.#writing)
    this.#outgoing = this.#take()
    this.#writing = yield* Effect.forkScoped(this.#write)
  })

  /** The pieces of one write. */
  #take(): ReadonlyArray<Uint8Array> {
    let size = 0
    let count = 0
    for (const { byteLength } of this.#pieces) {
      if (size >= writeSize || count === writeCount) break
      size += byteLength
      count++
    }
    this.#size -= size
    return this.#pieces.splice(0, count)
  }

  // Refers to no bytes: V8 would keep them until it collects the whole heap (see `once.ts`).
  readonly #write: Effect.Effect<void, E, Scope.Scope> = Effect.gen(this, function*() {
    yield* Effect.suspend(() => this.#writeOutgoing())
    const { sync } = this.#target
    if (sync === undefined || this.#position - this.#synced < syncSize || this.#syncs.size === maxSyncs) return
    this.#synced = this.#position
    const fiber = yield* Effect.forkScoped(sync)
    this.#syncs.add(fiber)
    fiber.addObserver((exit) => {
      // One that failed stays, to be joined at the end.
      if (Exit.isSuccess(exit)) this.#syncs.delete(fiber)
    })
  })

  #writeOutgoing(): Effect.Effect<void, E> {
    const position = this.#position
    const batch = this.#outgoing
    this.#outgoing = []
    for (const { byteLength } of batch) this.#position += byteLength
    return this.#target.write(batch, position)
  }
}
