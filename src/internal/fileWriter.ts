/**
 * Bytes into a new file, fast: in large writes, the next one gathered while the last is under way, and followed by
 * flushes while it goes on, so that little is left to wait for at the end.
 */
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"

/** What one write takes, in bytes. */
const writeSize = 4 * 1024 * 1024

/** What one write takes in arrays: Linux and macOS allow 1,024 (IOV_MAX). */
const writeCount = 1024

/** How many bytes go before another flush is begun, and how many flushes at once. */
const flushSize = 16 * 1024 * 1024
const maxFlushes = 2

/** A file being written: `write` puts all of the arrays at a position, `flush` ends when what was written is on the disk. */
export interface Target<E> {
  readonly write: (data: ReadonlyArray<Uint8Array>, position: number) => Effect.Effect<void, E>
  readonly flush: Effect.Effect<void, E> | undefined
}

/**
 * Writes all of `data` from the start of a file. It holds two writes of the data at most, and one element of the
 * stream; nothing is under way any more when it ends, or when its scope does.
 */
export const writeAll = <E, Err, R>(
  target: Target<E>,
  data: Uint8Array | Stream.Stream<Uint8Array, Err, R>
): Effect.Effect<void, E | Err, R | Scope.Scope> =>
  Effect.gen(function*() {
    let position = 0
    let flushed = 0
    const flushes = new Set<Fiber.Fiber<void, E>>()

    let batch: Array<Uint8Array> = []
    let size = 0
    let writing: Fiber.Fiber<void, E> | undefined

    const write = (batch: ReadonlyArray<Uint8Array>, size: number) =>
      Effect.gen(function*() {
        yield* target.write(batch, position)
        position += size
        if (target.flush === undefined || position - flushed < flushSize || flushes.size === maxFlushes) return
        flushed = position
        const fiber = yield* Effect.forkScoped(target.flush)
        flushes.add(fiber)
        fiber.addObserver((exit) => {
          // One that failed stays, to be joined at the end.
          if (Exit.isSuccess(exit)) flushes.delete(fiber)
        })
      })

    const send = Effect.gen(function*() {
      if (writing !== undefined) yield* Fiber.join(writing)
      writing = yield* Effect.forkScoped(write(batch, size))
      batch = []
      size = 0
    })

    const accept = (chunk: Iterable<Uint8Array>) =>
      Effect.gen(function*() {
        for (const bytes of chunk) {
          for (let at = 0; at < bytes.byteLength; at += writeSize) {
            const piece = bytes.subarray(at, at + writeSize)
            batch.push(piece)
            size += piece.byteLength
            if (size >= writeSize || batch.length === writeCount) yield* send
          }
        }
      })

    yield* data instanceof Uint8Array ? accept([data]) : Stream.runForEachChunk(data, accept)
    if (size > 0) yield* send
    if (writing !== undefined) yield* Fiber.join(writing)
    yield* Fiber.joinAll(flushes)
  })
