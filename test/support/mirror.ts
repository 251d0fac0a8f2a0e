/**
 * Storages that hold certain objects, and syncs between them.
 */
import { Chunk, Effect, Either, Stream } from "effect"
import {
  FileSystemStorage,
  MemoryStorage,
  ObjectKey,
  type Storage,
  type StorageError,
  StorageMirror
} from "surfing-weights"
import { temporaryDirectory } from "./directory.js"

export const text = (content: string) => new TextEncoder().encode(content)

/** The objects of a storage, by their keys. */
export type Objects = Readonly<Record<string, string>>

export const saveAll = (storage: Storage.Service, objects: Objects) =>
  Effect.forEach(Object.entries(objects), ([key, content]) => storage.save(key, text(content)), { discard: true })

export const objectsOf = (storage: Storage.Service): Effect.Effect<Objects, StorageError.StorageError> =>
  Effect.gen(function*() {
    const keys = yield* storage.list()
    const contents = yield* Effect.forEach(keys, (key) => storage.load(key))
    return Object.fromEntries(keys.map((key, i) => [key, new TextDecoder().decode(contents[i])]))
  })

/** A memory storage with these objects. */
export const memoryOf = (objects: Objects) => Effect.tap(MemoryStorage.make(), (storage) => saveAll(storage, objects))

/** The events of a stream until it ends or fails, and its failure. */
export const run = (sync: Stream.Stream<StorageMirror.Event, StorageError.StorageError>) =>
  Effect.gen(function*() {
    const events: Array<StorageMirror.Event> = []
    const end = yield* Effect.either(Stream.runForEach(sync, (event) => Effect.sync(() => void events.push(event))))
    return { events, failure: Either.isLeft(end) ? end.left : undefined }
  })

/** The events of a sync that succeeds, in key order. */
export const eventsOf = (from: Storage.Service, to: Storage.Service, options?: StorageMirror.Options) =>
  Effect.map(
    Stream.runCollect(StorageMirror.sync(from, to, options)),
    (events) => Chunk.toArray(events).sort((a, b) => ObjectKey.compare(a.key, b.key))
  )

/** A storage on a directory of its own. */
export const onDirectory = Effect.gen(function*() {
  const directory = yield* temporaryDirectory
  return { directory, storage: yield* FileSystemStorage.make({ directory, durability: "relaxed" }) }
})
