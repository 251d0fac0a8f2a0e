/**
 * The contract over a real weight server on loopback. Each client has a file of its own, since they take as long as many
 * others together.
 */
import { type HttpClient } from "@effect/platform"
import { Effect, Layer } from "effect"
import { setTimeout } from "node:timers/promises"
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

/** What is left in the end: a server learns a moment later that its client has gone. */
const leftInTheEnd = (tries = 250): typeof leftovers =>
  Effect.flatMap(leftovers, (left) =>
    left.length === 0 || tries === 0
      ? Effect.succeed(left)
      : Effect.zipRight(Effect.promise(() => setTimeout(20)), leftInTheEnd(tries - 1)))

export const overFiles = ([name, client]: Client): void =>
  StorageContract.suite(`HttpStorage with ${name}, over a file system`, {
    layer: Layer.provideMerge(Layer.provide(overHttp, client), storageOnDirectory({ durability: "relaxed" })),
    leftovers: leftInTheEnd()
  })
