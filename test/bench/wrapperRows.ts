/**
 * Benchmarks of the wrappers: what they add to a storage that does almost nothing, and to a fast one.
 */
import { Effect, Redacted } from "effect"
import { createCipheriv, createDecipheriv } from "node:crypto"
import * as fs from "node:fs"
import * as path from "node:path"
import {
  MemoryStorage,
  type Storage,
  StorageCache,
  StorageEncryption,
  type StorageError,
  StorageFailover,
  StorageLimit,
  StoragePrefix,
  StorageReadOnly,
  StorageRetry,
  StorageTimeout
} from "surfing-weights"
import * as content from "./content.js"
import { GiB, KiB, MiB } from "./content.js"
import type { See } from "./nodeFs.js"
import { type Contestant, doing, loading, type Opened, type Row, storageOn, streaming } from "./rows.js"

/** A storage in memory with one object. */
const memoryWith = async (key: string, bytes: Uint8Array): Promise<Storage.Service> => {
  const storage = await Effect.runPromise(MemoryStorage.make())
  await Effect.runPromise(storage.save(key, bytes))
  return storage
}

const cached = async (shared: boolean, bytes: Uint8Array): Promise<Storage.Service> => {
  const inner = await memoryWith("key", bytes)
  const options = { capacity: 64 * MiB, freshness: "immutable", shared } as const
  const storage = await Effect.runPromise(StorageCache.make(inner, options))
  await Effect.runPromise(storage.load("key"))
  return storage
}

const hits = (shared: boolean, times: number, size: number): Contestant => ({
  what: "StorageCache",
  open: async () => loading(await cached(shared, content.firstBytes(size)), "key", times)
})

const sharedHits: Row = {
  name: "cache-shared",
  work: "20,000 hits of 16 MiB, shared",
  amount: 20_000,
  unit: "loads",
  bytes: 20_000 * 16 * MiB,
  microsecondsAtMost: 25,
  ours: hits(true, 20_000, 16 * MiB),
  floors: []
}

/**
 * Two sizes, since what an array costs depends on more than its bytes: two of 16 MiB are as much as V8 lets come
 * together before it collects, and as the C library keeps of what is freed.
 */
const copiedHits = (name: string, times: number, size: number): Row => ({
  name,
  work: `${times} hits of ${size / MiB} MiB, each in a new array`,
  amount: times * size / MiB,
  unit: "MiB",
  bytes: times * size,
  ours: hits(false, times, size),
  floors: [{
    what: "an effect that copies the array",
    atLeast: 0.9,
    open: () => {
      const bytes = content.firstBytes(size)
      return Promise.resolve({
        run: (see) =>
          Effect.forEach(
            Array.from({ length: times }),
            () => Effect.sync(() => see(new Uint8Array(bytes), 0)),
            { discard: true }
          ).pipe(Effect.runPromise)
      })
    }
  }]
})

/** Reads of 64 MiB from a cache that keeps blocks, beside one that keeps whole objects: why blocks are not the default. */
const blocks = (
  name: string,
  work: string,
  times: number,
  reading: (storage: Storage.Service, times: number) => Opened,
  inTier = false
): Row => {
  const size = 64 * MiB
  const open = (blocks: number | undefined): Contestant["open"] => async (directory) => {
    const inner = await memoryWith("key", content.firstBytes(size))
    const tier = inTier
      ? { storage: await storageOn(path.join(directory, `tier-${blocks ?? "whole"}`)), capacity: GiB }
      : undefined
    const capacity = inTier ? 1 : 2 * size
    const storage = await Effect.runPromise(
      StorageCache.make(inner, { capacity, freshness: "immutable", tier, blocks })
    )
    const warm = reading(storage, 1)
    await warm.run(() => {})
    return reading(storage, times)
  }
  return {
    name,
    work: `${times} ${work} of 64 MiB in a cache of blocks`,
    amount: times * 64,
    unit: "MiB",
    bytes: times * size,
    ours: { what: "blocks of 4 MiB", open: open(4 * MiB) },
    floors: [{ what: "whole objects", open: open(undefined) }]
  }
}

const loadingOften = (storage: Storage.Service, times: number) => loading(storage, "key", times)

const streamingOften = (storage: Storage.Service, times: number): Opened => ({
  run: async (see) => {
    const { run } = streaming(storage, "key")
    for (let i = 0; i < times; i++) await run(see)
  }
})

type Wrap = (storage: Storage.Service) => Effect.Effect<Storage.Service, StorageError.StorageError>

/** What a wrapper adds to an operation. */
const adds = (name: string, wrap: Wrap, key = "folder/key"): Row => {
  const loads = async (key: string, wrap: Wrap) => {
    const inner = await memoryWith("folder/key", content.bytesAt(0, 16))
    return loading(await Effect.runPromise(wrap(inner)), key, 200_000)
  }
  return {
    name,
    work: `200,000 loads of 16 bytes in memory, ${name}`,
    amount: 200_000,
    unit: "loads",
    bytes: 200_000 * 16,
    ours: { what: "wrapped", open: () => loads(key, wrap) },
    floors: [{ what: "as it is", open: () => loads("folder/key", Effect.succeed), microsecondsMore: 5 }]
  }
}

/** What a wrapper makes of a stream. */
const streams = (name: string, what: string, key: string, wrap: Wrap): Row => ({
  name,
  work: `stream 1 GiB through ${what}`,
  amount: 1024,
  unit: "MiB",
  bytes: GiB,
  prepare: async (directory) => {
    fs.mkdirSync(`${directory}/folder`)
    await content.writeFile(`${directory}/folder/object`, GiB)
  },
  ours: {
    what: "wrapped",
    open: async (directory) => streaming(await Effect.runPromise(wrap(await storageOn(directory))), key)
  },
  floors: [{
    what: "as it is",
    atLeast: 0.95,
    open: async (directory) => streaming(await storageOn(directory), "folder/object")
  }]
})

const prefix = StoragePrefix.make("folder")
const limit = StorageLimit.make({ concurrency: 8 })
const timeout = StorageTimeout.make({ deadline: "1 minute", idleTimeout: "10 seconds" })

const wrappedStreams = [
  streams("stream-prefix", "Prefix", "object", prefix),
  streams("stream-read-only", "ReadOnly", "folder/object", StorageReadOnly.make),
  streams("stream-limit", "Limit", "folder/object", limit),
  streams("stream-timeout", "Timeout", "folder/object", timeout),
  streams("stream-retry", "Retry", "folder/object", StorageRetry.make()),
  streams("stream-cache", "Cache, which has no room for it", "folder/object", StorageCache.make({ capacity: MiB })),
  streams(
    "stream-failover",
    "Failover",
    "folder/object",
    (storage) => Effect.flatMap(MemoryStorage.make(), (other) => StorageFailover.make([storage, other]))
  ),
  streams("wrapped-stream", "Timeout, Limit and Prefix", "object", (storage) =>
    prefix(storage).pipe(
      Effect.flatMap(limit),
      Effect.flatMap(timeout)
    ))
]

const encryption = StorageEncryption.make({ keys: [{ id: "bench", secret: Redacted.make(new Uint8Array(32)) }] })

const chunkSize = 16 * KiB
const sealing = ["aes-128-gcm", new Uint8Array(16), new Uint8Array(12)] as const

/** Writes the chunks of an object, each encrypted and followed by its tag. */
const writeSealed = (path: string) => {
  const file = fs.openSync(path, "w")
  for (let at = 0; at < GiB; at += chunkSize) {
    const cipher = createCipheriv(...sealing)
    fs.writeSync(file, cipher.update(content.bytesAt(at, chunkSize)))
    cipher.final()
    fs.writeSync(file, cipher.getAuthTag())
  }
  fs.closeSync(file)
}

/** Reads and decrypts them, 1 MiB at a time, which is about the least that an encrypted stream can be made of. */
const bareDecrypt = async (path: string, see: See): Promise<void> => {
  const file = await fs.promises.open(path)
  const sealedSize = chunkSize + 16
  const sealed = Buffer.allocUnsafeSlow(64 * sealedSize)
  for (let at = 0; at < GiB; at += MiB) {
    await file.read(sealed, 0, sealed.byteLength)
    const plain = Buffer.allocUnsafeSlow(MiB)
    for (let i = 0; i < 64; i++) {
      const chunk = sealed.subarray(i * sealedSize, (i + 1) * sealedSize)
      const decipher = createDecipheriv(...sealing)
      decipher.setAuthTag(chunk.subarray(chunkSize))
      plain.set(decipher.update(chunk.subarray(0, chunkSize)), i * chunkSize)
      decipher.final()
    }
    see(plain, at)
  }
  await file.close()
}

const encryptedStream: Row = {
  name: "encrypted-stream",
  work: "stream 1 GiB that is encrypted",
  amount: 1024,
  unit: "MiB",
  bytes: GiB,
  prepare: async (directory) => {
    await content.writeFile(`${directory}/plain`, GiB)
    const storage = await Effect.runPromise(encryption(await storageOn(directory)))
    await Effect.runPromise(storage.save("encrypted", content.streamOf(GiB), { size: GiB }))
    writeSealed(`${directory}/sealed`)
  },
  ours: {
    what: "Encryption",
    open: async (directory) => streaming(await Effect.runPromise(encryption(await storageOn(directory))), "encrypted")
  },
  floors: [
    {
      what: "bare: node:fs and node:crypto",
      atLeast: 0.8,
      open: doing((directory, see) => bareDecrypt(`${directory}/sealed`, see))
    },
    { what: "as it is", open: async (directory) => streaming(await storageOn(directory), "plain") }
  ]
}

export const wrapperRows: ReadonlyArray<Row> = [
  sharedHits,
  copiedHits("cache-copied", 100, 16 * MiB),
  copiedHits("cache-copied-4", 400, 4 * MiB),
  blocks("blocks-load", "loads", 20, loadingOften),
  blocks("blocks-stream", "streams", 20, streamingOften),
  blocks("blocks-tier", "loads from the second tier", 5, loadingOften, true),
  adds("prefix", StoragePrefix.make("folder"), "key"),
  adds("read-only", StorageReadOnly.make),
  adds("limit", StorageLimit.make({ concurrency: 8 })),
  ...wrappedStreams,
  encryptedStream
]
