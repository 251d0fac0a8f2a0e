/**
 * A storage that knows what its server does not support, for the contract suite.
 */
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import { Storage } from "surfing-weights"

/**
 * Some servers ignore preconditions. A storage finds that out by the first write that has one, and its capabilities say it from
 * then on; the suite has to know it beforehand.
 */
export const experienced = Layer.effect(
  Storage.Storage,
  Effect.gen(function*() {
    const storage = yield* Storage.Storage
    yield* Effect.either(storage.save("missing", new Uint8Array(0), { ifMatch: "none" }))
    yield* Effect.either(storage.remove("missing", { ifMatch: "none" }))
    return storage
  })
)
