/**
 * The contract, over a real weight server on loopback, with each client that there is.
 */
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import { HttpStorage, MemoryStorage, Storage } from "surfing-weights"
import * as StorageContract from "surfing-weights/StorageContract"
import { leftovers, storageOnDirectory } from "../support/directory.js"
import { clients } from "../support/httpClients.js"
import { serveOf } from "../support/weightServer.js"

/** The storage that is provided, as a client of a server sees it. */
const overHttp = Layer.unwrapScoped(
  Effect.flatMap(
    Storage.Storage,
    (storage) => Effect.map(serveOf(storage, { writable: true }), ({ url }) => HttpStorage.layer({ url }))
  )
)

for (const [name, client] of clients) {
  const http = Layer.provide(overHttp, client)
  StorageContract.suite(`HttpStorage with ${name}, over memory`, { layer: Layer.provide(http, MemoryStorage.layer()) })
  StorageContract.suite(`HttpStorage with ${name}, over a file system`, {
    layer: Layer.provideMerge(http, storageOnDirectory()),
    leftovers
  })
}
