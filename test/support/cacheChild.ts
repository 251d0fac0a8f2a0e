/**
 * A process that streams the object `large` of one directory through a cache of blocks in another. From the given number of
 * bytes on it prints how many it has seen, and waits to be killed; at the end it prints what it has fetched, and the hash.
 */
import { Effect, Stream } from "effect"
import { createHash } from "node:crypto"
import { FileSystemStorage, Storage, StorageBackend, StorageCache } from "surfing-weights"

const [origin = "", tier = "", blocks = "", stopAt = "Infinity"] = process.argv.slice(2)

await Effect.runPromise(Effect.gen(function*() {
  let fetched = 0
  const { backend } = yield* FileSystemStorage.make({ directory: origin })
  const counted = Storage.make(StorageBackend.intercept(backend, {
    name: backend.name,
    stream: (stream, { operation }) =>
      operation === "open"
        ? Stream.tap(stream, (bytes) =>
          Effect.sync(() => {
            if (bytes instanceof Uint8Array) fetched += bytes.byteLength
          }))
        : stream
  }))
  const storage = yield* StorageCache.make(counted, {
    capacity: 1,
    freshness: "immutable",
    blocks: Number(blocks),
    tier: {
      storage: yield* FileSystemStorage.make({ directory: tier, durability: "relaxed" }),
      capacity: 5 * 1024 ** 3
    }
  })
  const hash = createHash("sha1")
  let seen = 0
  yield* Stream.runForEach(storage.stream("large"), (bytes) =>
    Effect.suspend(() => {
      hash.update(bytes)
      seen += bytes.byteLength
      if (seen < Number(stopAt)) return Effect.void
      console.log(`seen ${seen}`)
      return Effect.never
    }))
  console.log(`fetched ${fetched} sha1 ${hash.digest("hex")}`)
}))
