/**
 * What is measured of the wrappers: what they add to a storage that does next to nothing, and to one that is fast.
 */
import { Effect, Either } from "effect"
import * as fs from "node:fs"
import {
  MemoryStorage,
  type Storage,
  StorageCache,
  StorageLimit,
  StoragePrefix,
  StorageReadOnly,
  StorageTimeout
} from "surfing-weights"
import * as content from "./content.js"
import { GiB, MiB } from "./content.js"
import { loading, type Row, storageOn, streaming } from "./rows.js"

/** A storage in memory with one object. */
const memoryWith = async (key: string, bytes: Uint8Array): Promise<Storage.Service> => {
  const storage = await Effect.runPromise(MemoryStorage.make())
  await Effect.runPromise(storage.save(key, bytes))
  return storage
}

const cached = async (shared: boolean, bytes: Uint8Array): Promise<Storage.Service> => {
  const inner = await memoryWith("key", bytes)
  const options = { capacity: 64 * MiB, freshness: "immutable", shared } as const
  const { storage } = await Effect.runPromise(StorageCache.make(inner, options))
  await Effect.runPromise(storage.load("key"))
  return storage
}

const sharedHits: Row = {
  name: "cache-shared",
  work: "20,000 hits of 16 MiB, shared",
  amount: 20_000,
  unit: "loads",
  bytes: 20_000 * 16 * MiB,
  microsecondsAtMost: 25,
  prepare: async () => ({
    ours: loading("StorageCache", await cached(true, content.firstBytes(16 * MiB)), "key", 20_000),
    floors: []
  })
}

const copiedHits: Row = {
  name: "cache-copied",
  work: "100 hits of 16 MiB, each an array of one's own",
  amount: 1600,
  unit: "MiB",
  bytes: 1600 * MiB,
  prepare: async () => {
    const bytes = content.firstBytes(16 * MiB)
    return {
      ours: loading("StorageCache", await cached(false, bytes), "key", 100),
      floors: [{
        what: "an effect that copies the array",
        atLeast: 0.9,
        run: (see) =>
          Effect.forEach(
            Array.from({ length: 100 }),
            () => Effect.sync(() => see(new Uint8Array(bytes), 0)),
            { discard: true }
          ).pipe(Effect.runPromise)
      }]
    }
  }
}

/** What a wrapper adds to an operation. */
const adds = (name: string, wrap: (storage: Storage.Service) => Storage.Service, key = "folder/key"): Row => ({
  name,
  work: `200,000 loads of 16 bytes in memory, ${name}`,
  amount: 200_000,
  unit: "loads",
  bytes: 200_000 * 16,
  prepare: async () => {
    const bytes = content.bytesAt(0, 16)
    return {
      ours: loading("wrapped", wrap(await memoryWith("folder/key", bytes)), key, 200_000),
      floors: [{
        ...loading("as it is", await memoryWith("folder/key", bytes), "folder/key", 200_000),
        microsecondsMore: 5
      }]
    }
  }
})

const wrappedStream: Row = {
  name: "wrapped-stream",
  work: "stream 1 GiB through Timeout, Limit and Prefix",
  amount: 1024,
  unit: "MiB",
  bytes: GiB,
  prepare: async (directory) => {
    fs.mkdirSync(`${directory}/folder`)
    await content.writeFile(`${directory}/folder/object`, GiB)
    const files = await storageOn(directory)
    const wrapped = StoragePrefix.make(files, "folder").pipe(
      Either.flatMap((storage) => StorageLimit.make(storage, { concurrency: 8 })),
      Either.flatMap((storage) => StorageTimeout.make(storage, { deadline: "1 minute", idleLimit: "10 seconds" })),
      Either.getOrThrow
    )
    return {
      ours: streaming("wrapped", wrapped, "object"),
      floors: [{ ...streaming("as it is", files, "folder/object"), atLeast: 0.95 }]
    }
  }
}

export const wrapperRows: ReadonlyArray<Row> = [
  sharedHits,
  copiedHits,
  adds("prefix", (storage) => Either.getOrThrow(StoragePrefix.make(storage, "folder")), "key"),
  adds("read-only", StorageReadOnly.make),
  adds("limit", (storage) => Either.getOrThrow(StorageLimit.make(storage, { concurrency: 8 }))),
  wrappedStream
]
