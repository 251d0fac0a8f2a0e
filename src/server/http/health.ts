/**
 * `GET /health`: whether the storage can be reached, and what the server supports.
 */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import { statusOf } from "../../internal/protocol.js"
import type * as Storage from "../../Storage.js"
import { type ExistsError, StorageTimeout, StorageUnavailable } from "../../StorageError.js"
import { failure, json, serverName } from "./responses.js"
import type { Answer, Request, Server } from "./server.js"

/** Any key will do. */
const probeKey = "health"

const probeTimeout = Duration.seconds(10)

/** The storage is asked at most once a second. */
const probeInterval = "1 second"

export const makeHealth = ({ settings, storage, transfers }: Server): Effect.Effect<(request: Request) => Answer> => {
  const healthy = json(JSON.stringify({ status: "ok", capabilities: capabilitiesOf(storage, settings.writable) }))
  const draining = new StorageUnavailable({ backend: serverName, reason: "the server is shutting down" })
  const probe = storage.exists(probeKey).pipe(
    Effect.timeoutFail({
      duration: probeTimeout,
      onTimeout: (): ExistsError => new StorageTimeout({ backend: serverName, limit: probeTimeout })
    })
  )
  return Effect.map(
    Effect.cachedWithTTL(Effect.either(probe), probeInterval),
    (state) => ({ method }) =>
      transfers.isDraining ? Effect.fail(draining) : Effect.map(state, (state) =>
        state._tag === "Right"
          ? healthy
          // Whatever it is, it is no mistake of the client.
          : failure(state.left, method, { status: Math.max(503, statusOf(state.left)) }))
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
