/**
 * The one way into a backend: what is refused before any I/O, what is seen of an operation from outside, and where a failure
 * happened.
 */
import * as Effect from "effect/Effect"
import * as Stream from "effect/Stream"
import * as ByteRange from "../ByteRange.js"
import { withPlace } from "../internal/errors.js"
import { makeObserver, type Observer } from "../internal/observability.js"
import * as ObjectKey from "../ObjectKey.js"
import type {
  Capabilities,
  CopyOptions,
  OpenedObject,
  SaveOptions,
  StorageBackend,
  StreamOptions
} from "../StorageBackend.js"
import { mapStream } from "../StorageBackend.js"
import * as E from "../StorageError.js"
import { attributesProblem } from "./attributes.js"

/** An operation as the caller called it. */
export interface Call {
  readonly operation: string
  /** Its key, or the two of a copy; none for a listing. */
  readonly keys: ReadonlyArray<string>
  /** What spans show as the key, where there is none. Default: nothing. */
  readonly prefix?: string
}

export class Entrance {
  readonly backend: StorageBackend
  readonly #observers = new Map<string, Observer>()

  constructor(backend: StorageBackend) {
    this.backend = backend
  }

  /** Runs an operation, unless it is refused. */
  effect<A, Err extends E.StorageError, Refusal extends E.StorageError, R>(
    call: Call,
    refusal: Refusal | undefined,
    run: () => Effect.Effect<A, Err, R>,
    bytesOf?: (result: A) => number
  ): Effect.Effect<A, Err | Refusal, R> {
    return this.observe<A, Err | Refusal, R>(
      call,
      () => refusal === undefined ? this.complete(call, run()) : Effect.fail(this.completed(call, refusal)),
      bytesOf
    )
  }

  /** Runs an operation whose failures are complete. */
  observe<A, Err, R>(
    call: Call,
    run: () => Effect.Effect<A, Err, R>,
    bytesOf?: (result: A) => number
  ): Effect.Effect<A, Err, R> {
    return this.#observer(call).effect(shown(call), run, bytesOf)
  }

  /** The same effect, whose failures say where they happened. */
  complete<A, Err extends E.StorageError, R>(call: Call, effect: Effect.Effect<A, Err, R>): Effect.Effect<A, Err, R> {
    return Effect.mapError(effect, (error) => this.completed(call, error))
  }

  completed<Err extends E.StorageError>({ keys, operation }: Call, error: Err): Err {
    const { name: backend } = this.backend
    const [key] = keys
    if (key === undefined) return withPlace(error, { backend, operation })
    // Of a copy, the failure may be about the new key.
    return withPlace(error, { backend, operation, key: keys.find((key) => key === error.key) ?? key })
  }

  /** A listing, unless it is refused. */
  listing<A>(
    call: Call,
    refusal: E.ListError | undefined,
    run: () => Stream.Stream<A, E.ListError>
  ): Stream.Stream<A, E.ListError> {
    const listing = Stream.suspend(() => refusal === undefined ? run() : Stream.fail(refusal))
    return this.#observer(call).stream(shown(call), Stream.mapError(listing, (error) => this.completed(call, error)))
  }

  /** The bytes of an object, unless that is refused. */
  stream(
    call: Call,
    refusal: E.LoadError | undefined,
    open: () => ReturnType<StorageBackend["open"]>
  ): OpenedObject["stream"] {
    return Stream.suspend(() => {
      let position = () => 0
      const opening = Effect.suspend(() => refusal === undefined ? open() : Effect.fail(refusal))
      const bytes = Stream.unwrapScoped(Effect.map(opening, (opened) => {
        position = opened.position
        return opened.stream
      }))
      return this.#observer(call).stream(
        shown(call),
        Stream.mapError(bytes, (error) => this.completed(call, error)),
        () => position()
      )
    })
  }

  /** What an `open` returns to the caller. */
  opened(call: Call, opened: OpenedObject): OpenedObject {
    return opened.bytes !== undefined ? opened : mapStream(opened, (stream) =>
      this.#observer(call).opened(
        Stream.mapError(stream, (error) => this.completed(call, error)),
        opened.position
      ))
  }

  #observer({ operation }: Call): Observer {
    const known = this.#observers.get(operation)
    if (known !== undefined) return known
    const observer = makeObserver(this.backend.name, operation)
    this.#observers.set(operation, observer)
    return observer
  }

  // What is refused

  badKey(key: string): E.InvalidKey | undefined {
    const reason = ObjectKey.problem(key)
    return reason === undefined ? undefined : new E.InvalidKey({ key, reason })
  }

  badRange(range: ByteRange.ByteRange | undefined): E.InvalidRange | undefined {
    const reason = range === undefined ? undefined : ByteRange.problem(range)
    return reason === undefined ? undefined : new E.InvalidRange({ reason })
  }

  badStream(key: string, { chunkSize, range }: StreamOptions): E.LoadError | undefined {
    const badSize = chunkSize !== undefined && !(Number.isSafeInteger(chunkSize) && chunkSize > 0)
    return this.badKey(key) ?? this.badRange(range) ?? (badSize
      ? new E.UnsupportedOperation({
        reason: `chunkSize must be a whole number of bytes of at least 1 (got ${chunkSize})`
      })
      : undefined)
  }

  unsupported(capability: keyof typeof reasons, key?: string): E.UnsupportedOperation | undefined {
    return this.backend.capabilities[capability]
      ? undefined
      : new E.UnsupportedOperation({ key, reason: reasons[capability] })
  }

  badSave(
    key: string,
    { attributes, ifMatch, ifNoneMatch }: SaveOptions
  ): E.InvalidKey | E.UnsupportedOperation | undefined {
    const refusal = this.badKey(key) ?? this.unsupported("write")
    if (refusal !== undefined) return refusal
    const needed = [["createOnly", ifNoneMatch], ["compareAndSwap", ifMatch], ["attributes", attributes]] as const
    for (const [capability, option] of needed) {
      const unsupported = option === undefined ? undefined : this.unsupported(capability, key)
      if (unsupported !== undefined) return unsupported
    }
    const problem = attributes && attributesProblem(attributes)
    return problem === undefined ? undefined : new E.UnsupportedOperation({ key, reason: problem })
  }

  badRelocation(
    from: string,
    to: string,
    options: CopyOptions
  ): E.InvalidKey | E.UnsupportedOperation | undefined {
    const isInPlace = from === to && options.attributes !== undefined
    return this.badKey(from) ?? this.badSave(to, options) ?? (isInPlace
      ? new E.UnsupportedOperation({
        reason:
          "attributes cannot be replaced by a copy to the same key; save the object with them, or copy it to another key"
      })
      : undefined)
  }
}

const shown = ({ keys: [key], prefix = "" }: Call): string => key ?? prefix

const reasons: Record<Exclude<keyof Capabilities, "objectsWithinObjects">, string> = {
  write: "the storage is read-only",
  list: "listing is not supported",
  createOnly: "ifNoneMatch: \"*\" on a save is not supported",
  compareAndSwap: "ifMatch on a save is not supported",
  conditionalRemove: "ifMatch on a removal is not supported",
  attributes: "attributes are not supported",
  presign: "presigned URLs are not supported"
}
