/**
 * One request of the storage for neighbouring blocks of an object, shared by all readers that want any of them. It reads no
 * further than one block ahead of its readers, so that a slow one holds the storage back; without readers it ends.
 */
import * as Cause from "effect/Cause"
import type * as Chunk from "effect/Chunk"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as FiberId from "effect/FiberId"
import * as Option from "effect/Option"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import { allocate } from "../../internal/bytes.js"
import type { ObjectInfo, OpenedObject } from "../../StorageBackend.js"
import { CorruptObject, type LoadError } from "../../StorageError.js"
import { blockLength, blocksOf } from "./storedObject.js"

type Bytes = Uint8Array<ArrayBuffer>

/** What is requested, and what becomes of it. `V` is what is known of the object once the storage has answered. */
export interface Request<V> {
  readonly blockSize: number
  /** The first block. */
  readonly first: number
  /** After the last block. */
  readonly end: number
  /** Opens the object from the first block on. */
  readonly open: Effect.Effect<OpenedObject, LoadError, Scope.Scope>
  readonly opened: (info: ObjectInfo, run: Run<V>) => Effect.Effect<V>
  /** Keeps a block where it is at hand at once. */
  readonly keep: (version: V, index: number, bytes: Bytes) => Effect.Effect<void>
  /** Keeps a block where that takes time, if there is such a place. */
  readonly save: (version: V, index: number, bytes: Bytes) => Effect.Effect<void> | undefined
  /** Called when no further block will come, maybe twice. */
  readonly ended: (run: Run<V>) => void
}

export class Run<V> {
  readonly #request: Request<V>
  /** The outcome of the request. */
  readonly #opened: Deferred.Deferred<V, LoadError> = Deferred.unsafeMake(FiberId.none)
  #isOpen = false
  /** The block that is read next, or being read. */
  #next: number
  #end: number
  /** The last block that is to be read for now. */
  #wanted: number
  #readers = 0
  #fiber: Fiber.Fiber<void, LoadError> | undefined
  #saving: Fiber.Fiber<void> | undefined
  readonly #more = Effect.unsafeMakeLatch()
  /** Blocks that were read before a reader came for them. */
  readonly #ahead = new Map<number, Bytes>()
  readonly #waiting = new Map<number, Deferred.Deferred<Bytes, LoadError>>()

  constructor(request: Request<V>) {
    this.#request = request
    this.#next = request.first
    this.#end = request.end
    this.#wanted = request.first - 1
  }

  /** Whether the storage has answered. */
  get isOpen(): boolean {
    return this.#isOpen
  }

  /** Waits for the answer of the storage. */
  get opened(): Effect.Effect<V, LoadError> {
    return Deferred.await(this.#opened)
  }

  /** Waits until what was read so far is saved. */
  readonly saved: Effect.Effect<void> = Effect.suspend(() =>
    this.#saving === undefined ? Effect.void : Fiber.await(this.#saving)
  )

  /** Whether it has a block, or will. */
  covers(index: number): boolean {
    return this.#ahead.has(index) || (this.#next <= index && index < this.#end)
  }

  /** Whether it has read a block already for which no reader has come. */
  isAhead(index: number): boolean {
    return this.#ahead.has(index)
  }

  /** How many blocks have to be read before one that it will have. */
  distance(index: number): number {
    return index - this.#next
  }

  /** Ends before a block, which another run will read. */
  endBefore(index: number): void {
    this.#end = Math.min(this.#end, index)
    this.#more.unsafeOpen()
  }

  /** Adds a reader, and starts with the first. Not to be interrupted. */
  readonly hold: Effect.Effect<void> = Effect.suspend(() => {
    if (this.#readers++ > 0 || this.#fiber !== undefined) return Effect.void
    return Effect.interruptible(this.#produce).pipe(
      Effect.onExit((exit) => Effect.sync(() => this.#settle(exit))),
      Effect.forkDaemon,
      Effect.map((fiber) => {
        this.#fiber = fiber
      })
    )
  })

  /** Removes a reader. */
  readonly release: Effect.Effect<void> = Effect.suspend(() => {
    if (--this.#readers > 0 || this.#fiber === undefined) return Effect.void
    // From now on no reader may find it.
    this.#end = this.#next
    this.#request.ended(this)
    return Effect.asVoid(Fiber.interrupt(this.#fiber))
  })

  /** A block that it covers. To be called by a reader that holds it. */
  take(index: number): Effect.Effect<Bytes, LoadError> {
    return Effect.suspend(() => {
      const bytes = this.#ahead.get(index)
      for (const earlier of this.#ahead.keys()) if (earlier <= index) this.#ahead.delete(earlier)
      this.#wanted = Math.max(this.#wanted, index + 1)
      this.#more.unsafeOpen()
      if (bytes !== undefined) return Effect.succeed(bytes)
      const waiting = this.#waiting.get(index) ?? Deferred.unsafeMake<Bytes, LoadError>(FiberId.none)
      this.#waiting.set(index, waiting)
      return Deferred.await(waiting)
    })
  }

  readonly #produce: Effect.Effect<void, LoadError> = Effect.scoped(Effect.gen(this, function*() {
    const { blockSize, keep, open, opened, save } = this.#request
    const object = yield* open
    const { info } = object
    const version = yield* opened(info, this)
    this.#end = Math.min(this.#end, blocksOf({ ...info, size: object.range.endExclusive }, blockSize))
    this.#isOpen = true
    Deferred.unsafeDone(this.#opened, Effect.succeed(version))
    const gatherer = object.bytes === undefined
      ? new Gatherer(yield* Stream.toPull(object.reuse?.(() => true) ?? object.stream))
      : new Gatherer(Effect.fail(Option.none()), [object.bytes])
    yield* this.#demand
    while (this.#next < this.#end) {
      const index = this.#next
      const bytes = yield* Effect.tapError(
        gatherer.next(blockLength(info, { index, size: blockSize })),
        () => this.saved
      )
      // One block is saved while the next is read, and is saved before that is passed on.
      yield* this.saved
      yield* keep(version, index, bytes)
      const saving = save(version, index, bytes)
      this.#saving = saving && (yield* Effect.fork(saving))
      this.#deliver(index, bytes)
      yield* this.#demand
    }
    yield* this.saved
  }))

  /** Waits until a further block is wanted, or none is left. */
  readonly #demand: Effect.Effect<void> = Effect.suspend(() => {
    if (this.#next <= this.#wanted || this.#next >= this.#end) return Effect.void
    this.#more.unsafeClose()
    return Effect.zipRight(this.#more.await, this.#demand)
  })

  #deliver(index: number, bytes: Bytes): void {
    this.#next = index + 1
    const waiting = this.#waiting.get(index)
    if (waiting === undefined) this.#ahead.set(index, bytes)
    else Deferred.unsafeDone(waiting, Effect.succeed(bytes))
    this.#waiting.delete(index)
  }

  #settle(exit: Exit.Exit<void, LoadError>): void {
    this.#end = this.#next
    this.#request.ended(this)
    const cause = Exit.isFailure(exit)
      ? exit.cause
      : Cause.die(new Error("bug: a block was promised that did not come"))
    if (!this.#isOpen) Deferred.unsafeDone(this.#opened, Effect.failCause(cause))
    for (const waiting of this.#waiting.values()) Deferred.unsafeDone(waiting, Effect.failCause(cause))
    this.#waiting.clear()
  }
}

type Pull = Effect.Effect<Chunk.Chunk<Uint8Array>, Option.Option<LoadError>>

/** Makes blocks out of chunks of any size. */
class Gatherer {
  readonly #pull: Pull
  /** What was pulled and belongs to the next block. */
  #left: ReadonlyArray<Uint8Array>

  constructor(pull: Pull, first: ReadonlyArray<Uint8Array> = []) {
    this.#pull = pull
    this.#left = first
  }

  next(length: number): Effect.Effect<Bytes, LoadError> {
    return Effect.flatMap(Effect.suspend(() => allocate(length)), (block) => Effect.as(this.#fill(block, 0), block))
  }

  #fill(block: Bytes, start: number): Effect.Effect<void, LoadError> {
    let at = start
    const left: Array<Uint8Array> = []
    for (const piece of this.#left) {
      const fitting = piece.subarray(0, block.byteLength - at)
      block.set(fitting, at)
      at += fitting.byteLength
      if (fitting.byteLength < piece.byteLength) left.push(piece.subarray(fitting.byteLength))
    }
    this.#left = left
    if (at === block.byteLength) return Effect.void
    return Effect.matchEffect(this.#pull, {
      onFailure: (end) => Effect.fail(Option.getOrElse(end, () => truncated)),
      onSuccess: (chunk) => {
        this.#left = [...chunk]
        return this.#fill(block, at)
      }
    })
  }
}

const truncated = new CorruptObject({ problem: "truncated", reason: "the body ended within a block" })
