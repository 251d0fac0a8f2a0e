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
 * Writes all data from the start of a file. It holds at most two writes of the data and one chunk of the stream; when it ends,
 * or its scope does, nothing is under way any more.
 */
export const writeAll = <E>(target: Target<E>, data: SaveData): Effect.Effect<void, E, Scope.Scope> => {
  const writer = new Writer(target)
  const written = data instanceof Uint8Array
    ? writer.accept([data])
    : Stream.runForEachChunk(data, (chunk) => writer.accept(chunk))
  return Effect.zipRight(written, Effect.suspend(() => writer.end()))
}

class Writer<E> {
  #batch: Array<Uint8Array> = []
  #size = 0
  #writing: Fiber.Fiber<void, E> | undefined
  #position = 0
  #synced = 0
  readonly #syncs = new Set<Fiber.Fiber<void, E>>()
  readonly #target: Target<E>

  constructor(target: Target<E>) {
    this.#target = target
  }

  /** Takes bytes of the file, and begins a write once there are enough. */
  accept(chunk: Iterable<Uint8Array>): Effect.Effect<void, E, Scope.Scope> {
    return Effect.gen(this, function*() {
      for (const bytes of chunk) {
        for (let at = 0; at < bytes.byteLength; at += writeSize) {
          const piece = bytes.subarray(at, at + writeSize)
          this.#batch.push(piece)
          this.#size += piece.byteLength
          if (this.#size >= writeSize || this.#batch.length === writeCount) yield* this.#send()
        }
      }
    })
  }

  /** Ends once everything is written, and each sync that has begun. */
  end(): Effect.Effect<void, E, Scope.Scope> {
    return Effect.gen(this, function*() {
      if (this.#size > 0) yield* this.#send()
      if (this.#writing !== undefined) yield* Fiber.join(this.#writing)
      yield* Fiber.joinAll(this.#syncs)
    })
  }

  #send(): Effect.Effect<void, E, Scope.Scope> {
    return Effect.gen(this, function*() {
      if (this.#writing !== undefined) yield* Fiber.join(this.#writing)
      this.#writing = yield* Effect.forkScoped(this.#write(this.#batch, this.#size))
      this.#batch = []
      this.#size = 0
    })
  }

  #write(batch: ReadonlyArray<Uint8Array>, size: number): Effect.Effect<void, E, Scope.Scope> {
    return Effect.gen(this, function*() {
      yield* this.#target.write(batch, this.#position)
      this.#position += size
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
  }
}
