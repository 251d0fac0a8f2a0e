/**
 * `bench`: how fast a storage is from here, with objects of its own that are removed again.
 */
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Stream from "effect/Stream"
import { randomBytes, randomUUID } from "node:crypto"
import type * as Storage from "../Storage.js"
import type { StorageError } from "../StorageError.js"
import * as Output from "./output.js"
import * as Places from "./places.js"
import { concurrency } from "./transfer.js"
import { parseSize } from "./values.js"

const smallObjects = 500
const smallSize = 4096
const MiB = 1024 * 1024

export const bench = (input: { readonly place: string; readonly size: string }) =>
  Effect.gen(function*() {
    const size = yield* parseSize("size", input.size)
    const place = yield* Places.openFolder(input.place, "write")
    const prefix = `${Places.prefixOf(place)}bench-${randomUUID()}/`
    yield* Effect.ensuring(
      measureAll(place.storage, prefix, size),
      removeAll(place.storage, prefix)
    )
  })

const measureAll = (storage: Storage.Service, prefix: string, size: number) =>
  Effect.gen(function*() {
    const large = `${prefix}large`
    const small = Array.from({ length: smallObjects }, (_, i) => `${prefix}small-${i}`)
    const forSmall = <A>(use: (key: string) => Effect.Effect<A, StorageError>) =>
      Effect.forEach(small, use, { concurrency, discard: true })
    const bytes = randomBytes(smallSize)
    yield* measure("save", size, 1, storage.save(large, content(size), { size }))
    yield* measure("load", size, 1, Stream.runDrain(storage.stream(large)))
    yield* measure("save", smallSize, smallObjects, forSmall((key) => storage.save(key, bytes)))
    yield* measure("load", smallSize, smallObjects, forSmall((key) => storage.load(key)))
    if (storage.backend.capabilities.list) {
      yield* measure("list", smallSize, smallObjects, Stream.runDrain(storage.entries({ prefix })))
    }
    yield* measure("remove", smallSize, smallObjects, storage.removeAll(small))
  })

/** Bytes that cannot be compressed. */
const content = (size: number): Stream.Stream<Uint8Array> => {
  const chunk = randomBytes(MiB)
  return Stream.unfold(size, (left) =>
    left === 0
      ? Option.none()
      : Option.some([chunk.subarray(0, Math.min(left, MiB)), Math.max(0, left - MiB)] as const))
}

const measure = <A>(
  operation: "save" | "load" | "list" | "remove",
  size: number,
  objects: number,
  work: Effect.Effect<A, StorageError>
) =>
  Effect.gen(function*() {
    const start = yield* Clock.currentTimeNanos
    yield* work
    const seconds = Number((yield* Clock.currentTimeNanos) - start) / 1e9
    const rate = operation === "save" || operation === "load" ? size * objects / seconds : undefined
    yield* Output.result(
      { operation, objects, size, seconds, objectsPerSecond: objects / seconds, bytesPerSecond: rate },
      [
        operation.padEnd(6),
        `${Output.plural(objects, "object")} of ${Output.formatBytes(size)}:`.padStart(26),
        `${seconds.toFixed(3)} s,`,
        ...(objects > 1 ? [`${Math.round(objects / seconds)} objects/s`] : []),
        ...(rate !== undefined && objects === 1 ? [`${Output.formatBytes(Math.round(rate))}/s`] : [])
      ].join("  ")
    )
  })

/** Also where a signal ends the command. */
const removeAll = (storage: Storage.Service, prefix: string): Effect.Effect<void> =>
  storage.removeAll(Stream.map(storage.entries({ prefix }), ({ key }) => key)).pipe(
    Effect.catchAll(({ message }) => Output.warn(`objects may be left under ${prefix}: ${message}`)),
    Effect.asVoid
  )
