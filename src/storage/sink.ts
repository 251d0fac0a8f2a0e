/**
 * A save turned around: a sink that receives the bytes.
 */
import type * as Chunk from "effect/Chunk"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Mailbox from "effect/Mailbox"
import * as Sink from "effect/Sink"
import type { Service } from "../Storage.js"
import type { ObjectInfo, SaveOptions } from "../StorageBackend.js"
import type { SaveError } from "../StorageError.js"

/**
 * Saves what the sink receives, in a fiber of the sink's scope. That scope ends with the sink, also where the stream that is
 * run into it fails, and then interrupts the save.
 */
export const sinkOf =
  (save: Service["save"]) =>
  (key: string, options?: SaveOptions): Sink.Sink<ObjectInfo, Uint8Array, never, SaveError> =>
    Sink.unwrapScoped(Effect.gen(function*() {
      const received = yield* Mailbox.make<Uint8Array>(1)
      const saving = save(key, Mailbox.toStream(received), options).pipe(
        // A save that ends takes no more.
        Effect.ensuring(received.shutdown),
        // Also where the caller cannot be interrupted: the end of the scope would wait forever for bytes that never come.
        Effect.interruptible
      )
      const fiber = yield* Effect.forkScoped(saving)
      return Sink.foldChunksEffect(
        true,
        (isTaking) => isTaking,
        (_, chunk: Chunk.Chunk<Uint8Array>) => Effect.map(received.offerAll(chunk), (rest) => rest.length === 0)
      ).pipe(
        Sink.mapEffect(() => Effect.zipRight(received.end, Fiber.join(fiber))),
        Sink.ignoreLeftover
      )
    }))
