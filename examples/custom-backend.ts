/**
 * A backend of one's own: objects in any `KeyValueStore` of @effect/platform. It gives `StorageBackend.make` the four
 * operations that it needs and passes the contract suite, in test/examples/custom-backend.all.test.ts.
 *
 * Each object is a value under its etag. An index, in pages since such a store cannot list, says which etag a key has:
 * a save is done when its page is written. One process at a time may use a store, and a crash leaves of a page what the
 * `KeyValueStore` leaves of it.
 */
import { FileSystem, KeyValueStore } from "@effect/platform"
import * as NodeContext from "@effect/platform-node/NodeContext"
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import { Clock, Console, Effect, flow, Hash, HashMap, Layer, Option, Order, Schema, Stream } from "effect"
import { deepStrictEqual, strictEqual } from "node:assert/strict"
import { randomUUID } from "node:crypto"
import { fileURLToPath } from "node:url"
import { ObjectKey, Storage, StorageBackend, StorageError } from "surfing-weights"

const Page = Schema.HashMap({
  key: Schema.String,
  value: Schema.Struct({ key: Schema.String, size: Schema.Number, lastModified: Schema.Date, etag: Schema.String })
})

const makeIndex = (values: KeyValueStore.KeyValueStore) => {
  const store = values.forSchema(Page)
  const pageOf = (key: string) => `index-${Hash.string(key) & 63}`
  const pages = Array.from({ length: 64 }, (_, i) => `index-${i}`)
  const read = (page: string) => Effect.map(store.get(page), Option.getOrElse(() => emptyPage))
  const update = (key: string, change: (page: typeof Page.Type) => typeof Page.Type) =>
    Effect.flatMap(read(pageOf(key)), (page) => store.set(pageOf(key), change(page)))
  return {
    find: (key: string) => Effect.map(read(pageOf(key)), HashMap.get(key)),
    set: (info: StorageBackend.ObjectInfo) => update(info.key, HashMap.set(info.key, info)),
    remove: (key: string) => update(key, HashMap.remove(key)),
    all: Effect.map(Effect.forEach(pages, read), (pages) => pages.flatMap(HashMap.toValues).sort(byKey))
  }
}

const emptyPage = HashMap.empty<string, StorageBackend.ObjectInfo>()

const byKey = Order.mapInput(ObjectKey.compare, (info: StorageBackend.ObjectInfo) => info.key)

const backend = "KeyValueStore"

const unexpected = (operation: string, key: string) => (cause: { readonly message: string }) =>
  new StorageError.UnexpectedStorageError({ backend, operation, key, reason: cause.message, cause })

// #region backend
const makeBackend = Effect.gen(function*() {
  const values = yield* KeyValueStore.KeyValueStore
  const index = makeIndex(values)
  const semaphore = yield* Effect.makeSemaphore(1)
  // One at a time: what a condition saw still holds when the save is done, and nobody reads what is being written. The
  // yield lets those who wait go first.
  const exclusively = flow(semaphore.withPermits(1), Effect.zipLeft(Effect.yieldNow()))

  return StorageBackend.make({
    name: backend,
    capabilities: StorageBackend.full,

    open: (key, options) =>
      Effect.gen(function*() {
        const info = yield* Effect.flatten(index.find(key))
        const bytes = yield* Effect.flatten(values.getUint8Array(info.etag))
        return { bytes, info }
      }).pipe(
        exclusively,
        Effect.mapError((cause) =>
          cause._tag === "NoSuchElementException"
            ? new StorageError.ObjectNotFound({ backend, operation: "load", key })
            : unexpected("load", key)(cause)
        ),
        Effect.flatMap(({ bytes, info }) => StorageBackend.openBytes(bytes, info, options, backend))
      ),

    save: (key, data, options) =>
      Effect.gen(function*() {
        // A copy, since the array is the caller's.
        const bytes = new Uint8Array(data instanceof Uint8Array ? data : yield* gather(data))
        const lastModified = new Date(yield* Clock.currentTimeMillis)
        const info = { key, size: bytes.byteLength, lastModified, etag: randomUUID() }
        return yield* Effect.gen(function*() {
          const existing = yield* Effect.mapError(index.find(key), unexpected("save", key))
          yield* StorageBackend.checkSave(key, Option.getOrUndefined(existing), options, { backend, operation: "save" })
          yield* values.set(info.etag, bytes).pipe(
            Effect.zipRight(index.set(info)),
            Effect.onError(() => Effect.ignore(values.remove(info.etag))),
            Effect.mapError(unexpected("save", key))
          )
          if (Option.isSome(existing)) yield* Effect.ignore(values.remove(existing.value.etag))
          return info
        }).pipe(Effect.uninterruptible, exclusively)
      }),

    remove: (key) =>
      Effect.gen(function*() {
        const existing = yield* index.find(key)
        if (Option.isNone(existing)) return
        yield* index.remove(key)
        yield* Effect.ignore(values.remove(existing.value.etag))
      }).pipe(Effect.uninterruptible, exclusively, Effect.mapError(unexpected("remove", key))),

    entries: ({ prefix = "", startAfter = "" }) =>
      Stream.fromIterableEffect(exclusively(index.all)).pipe(
        Stream.mapError(unexpected("entries", prefix)),
        Stream.filter(({ key }) => key.startsWith(prefix) && ObjectKey.compare(key, startAfter) > 0)
      )
  })
})

export const layer = Layer.effect(Storage.Storage, Effect.map(makeBackend, Storage.make))
// #endregion

const gather = <E, R>(stream: Stream.Stream<Uint8Array, E, R>) =>
  Effect.map(Stream.runCollect(stream), (chunks) => Buffer.concat([...chunks]))

const demo = Effect.gen(function*() {
  const fs = yield* FileSystem.FileSystem
  const directory = yield* fs.makeTempDirectoryScoped({ prefix: "surfing-weights-" })
  const StorageLive = layer.pipe(Layer.provide(KeyValueStore.layerFileSystem(directory)))

  const first = yield* Effect.gen(function*() {
    const info = yield* Storage.save("bert/layer_0.bin", new Uint8Array([1, 2, 3]))
    yield* Storage.save("bert/layer_1.bin", Stream.make(new Uint8Array([4]), new Uint8Array([5, 6])))
    return info
  }).pipe(Effect.provide(StorageLive))
  const files = yield* fs.readDirectory(directory)
  yield* Console.log(`Saved two objects in a KeyValueStore, which made ${files.length} files of them and of the index`)

  // The layer is built anew, as after a restart.
  yield* Effect.gen(function*() {
    deepStrictEqual(yield* Storage.list("bert/"), ["bert/layer_0.bin", "bert/layer_1.bin"])
    deepStrictEqual([...yield* Storage.load("bert/layer_1.bin")], [4, 5, 6])
    yield* Console.log("Found both again after a restart")

    const swap = Storage.save("bert/layer_0.bin", new Uint8Array(3), { ifMatch: first.etag })
    yield* swap
    const failure = yield* Effect.flip(swap)
    strictEqual(failure._tag, "PreconditionFailed")
    yield* Console.log(`Two saves on one etag: ${failure.message}`)
  }).pipe(Effect.provide(StorageLive))
}).pipe(Effect.scoped, Effect.provide(NodeContext.layer))

if (process.argv[1] === fileURLToPath(import.meta.url)) NodeRuntime.runMain(demo)
