/**
 * The contract suite over a weight server on loopback.
 */
import { type HttpClient } from "@effect/platform"
import { Effect, Layer, Schedule } from "effect"
import { HttpStorage, MemoryStorage, Storage } from "surfing-weights"
import * as StorageContract from "surfing-weights/StorageContract"
import { leftovers, storageOnDirectory } from "./directory.js"
import { serveOf } from "./weightServer.js"

/** The storage that is provided, as a client of a server sees it. */
const overHttp = Layer.unwrapScoped(
  Effect.flatMap(
    Storage.Storage,
    (storage) => Effect.map(serveOf(storage, { writable: true }), ({ url }) => HttpStorage.layer({ url }))
  )
)

type Client = readonly [name: string, layer: Layer.Layer<HttpClient.HttpClient>]

export const overMemory = ([name, client]: Client): void =>
  StorageContract.suite(`HttpStorage with ${name}, over memory`, {
    layer: Layer.provide(Layer.provide(overHttp, client), MemoryStorage.layer())
  })

/** The server learns a moment later that a client has gone. */
const leftInTheEnd = Effect.retry(
  Effect.filterOrFail(leftovers, (left) => left.length === 0),
  { schedule: Schedule.spaced("20 millis"), times: 3000 }
).pipe(Effect.catchAll(() => leftovers))

export const overFiles = ([name, client]: Client): void =>
  StorageContract.suite(`HttpStorage with ${name}, over a file system`, {
    layer: Layer.provideMerge(Layer.provide(overHttp, client), storageOnDirectory({ durability: "relaxed" })),
    leftovers: leftInTheEnd
  })
