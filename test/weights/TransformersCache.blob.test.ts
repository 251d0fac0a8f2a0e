/**
 * Responses whose body is a blob of the storage, and which wrappers pass such blobs on.
 */
import { describe, expect, it } from "@effect/vitest"
import { Effect, Redacted } from "effect"
import {
  MemoryStorage,
  Storage,
  StorageBackend,
  StorageCache,
  StorageChaos,
  StorageCompression,
  StorageEncryption,
  StorageError,
  StorageFailover,
  StorageLimit,
  StoragePrefix,
  StorageReadOnly,
  StorageRetry,
  StorageTimeout,
  TransformersCache
} from "surfing-weights"

const url = "https://huggingface.co/m/model.txt"
const key = "huggingface.co/m/model.txt"
const text = new TextEncoder().encode("these are the weights of a model")

/** A storage in memory that has blobs, and how often it gave one. */
const setup = Effect.gen(function*() {
  const { backend } = yield* MemoryStorage.make()
  const given: Array<string> = []
  const storage = Storage.make(StorageBackend.make(backend, {
    ...backend,
    blob: (key, options) =>
      Effect.gen(function*() {
        const bytes = yield* backend.load(key, options)
        given.push(key)
        return new Blob([bytes])
      })
  }))
  return { storage, given }
})

const textOf = (storage: Storage.Service, request: string | Request) =>
  Effect.gen(function*() {
    const cache = yield* Effect.provideService(TransformersCache.make(""), Storage.Storage, storage)
    const response = yield* Effect.promise(() => cache.match(request))
    return response === undefined ? undefined : yield* Effect.promise(async () => ({
      status: response.status,
      length: response.headers.get("content-length"),
      type: response.headers.get("content-type"),
      text: await response.text()
    }))
  })

describe("TransformersCache on a storage with blobs", () => {
  it.effect("answers with a blob, also of a range", () =>
    Effect.gen(function*() {
      const { given, storage } = yield* setup
      yield* storage.save(key, text)
      const whole = { status: 200, length: "32", type: "text/plain", text: "these are the weights of a model" }
      expect(yield* textOf(storage, url)).toEqual(whole)
      expect(given).toEqual([key])
      const part = yield* textOf(storage, new Request(url, { headers: { range: "bytes=6-8" } }))
      expect(part).toEqual({ ...whole, status: 206, length: "3", text: "are" })
      expect(given).toEqual([key, key])
    }))

  it.effect("streams where there is no blob after all", () =>
    Effect.gen(function*() {
      const { backend } = yield* MemoryStorage.make()
      const blob = () => Effect.fail(new StorageError.StorageUnavailable({ reason: "not now" }))
      const storage = Storage.make({ ...backend, blob })
      yield* storage.save(key, text)
      expect(yield* textOf(storage, url)).toMatchObject({ status: 200, text: "these are the weights of a model" })
    }))
})

describe("the blobs of a storage", () => {
  it.effect("are passed on by StoragePrefix, with the full key, and by StorageReadOnly", () =>
    Effect.gen(function*() {
      const { given, storage } = yield* setup
      yield* storage.save(`f/${key}`, text)
      const wrapped = yield* Effect.flatMap(StoragePrefix.make(storage, "f"), StorageReadOnly.make)
      expect((yield* textOf(wrapped, url))?.text).toBe("these are the weights of a model")
      expect(given).toEqual([`f/${key}`])
    }))

  it.effect("are not passed on by wrappers that change bytes, or have to see them", () =>
    Effect.gen(function*() {
      const { storage } = yield* setup
      const secret = Redacted.make(new Uint8Array(32))
      const wrapped = [
        yield* StorageCompression.make(storage, {}),
        yield* StorageEncryption.make(storage, { keys: [{ id: "test", secret }] }),
        yield* StorageCache.make(storage, { capacity: 1000 }),
        yield* StorageChaos.make(storage, [{ operation: "save" }]),
        yield* StorageFailover.make([storage]),
        yield* StorageLimit.make(storage, { concurrency: 1, bytesPerSecond: 1000 }),
        yield* StorageRetry.make(storage),
        yield* StorageTimeout.make(storage, { deadline: "1 minute", idleTimeout: "1 second" })
      ]
      for (const { backend } of wrapped) expect(backend.blob, backend.name).toBeUndefined()
    }))
})
