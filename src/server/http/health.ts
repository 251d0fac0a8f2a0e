/**
 * `GET /health`: whether the storage can be reached, and what the server supports.
 */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as Either from "effect/Either"
import { statusOf } from "../../internal/protocol.js"
import type * as Storage from "../../Storage.js"
import { type ExistsError, StorageTimeout, StorageUnavailable } from "../../StorageError.js"
import { causeOf, failure, json, serverName } from "./responses.js"
import type { Answer, Request, Server } from "./server.js"

/** Any key will do. */
const probeKey = "health"

const probeTimeout = Duration.seconds(10)

/** The storage is asked at most once a second. */
const probeInterval = "1 second"

export const makeHealth = (server: Server): Effect.Effect<(request: Request) => Answer> => {
  const { settings, storage, transfers } = server
  const healthy = json(JSON.stringify({ status: "ok", capabilities: capabilitiesOf(storage, settings.writable) }))
  const draining = new StorageUnavailable({
    backend: serverName,
    reason: "the server is shutting down",
    retryAfter: Duration.seconds(1)
  })
  const probe = storage.exists(probeKey).pipe(
    Effect.timeoutFail({
      duration: probeTimeout,
      onTimeout: (): ExistsError => new StorageTimeout({ backend: serverName, limit: probeTimeout })
    })
  )
  let last = ""
  /** Logs that the health has changed. */
  const logChange = (state: Either.Either<boolean, ExistsError>): Effect.Effect<void> => {
    const message = state._tag === "Left" ? state.left.message : ""
    if (message === last) return Effect.void
    last = message
    return state._tag === "Left"
      ? Effect.logError(`the storage is unhealthy: ${message}`, ...causeOf(state.left))
      : Effect.logInfo("the storage is healthy again")
  }
  return Effect.map(
    Effect.cachedWithTTL(Effect.tap(Effect.either(probe), logChange), probeInterval),
    (state) => ({ method }) =>
      transfers.isDraining ? Effect.fail(draining) : Effect.map(state, (state) =>
        state._tag === "Right"
          ? healthy
          // Whatever it is, it is no mistake of the client.
          : failure(server, state.left, method, { status: Math.max(503, statusOf(state.left)) }))
  )
}

const capabilitiesOf = ({ backend: { capabilities } }: Storage.Service, isWritable: boolean) => ({
  write: isWritable,
  list: capabilities.list,
  createOnly: isWritable && capabilities.createOnly,
  compareAndSwap: isWritable && capabilities.compareAndSwap,
  conditionalRemove: isWritable && capabilities.conditionalRemove,
  objectsWithinObjects: capabilities.objectsWithinObjects,
  attributes: capabilities.attributes
})
