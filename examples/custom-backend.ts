/**
 * A custom backend: objects in any `KeyValueStore` of @effect/platform. It implements the four primitives of
 * `StorageBackend.make` and passes the contract suite, in test/examples/custom-backend.all.test.ts.
 *
 * Each object is a value under its etag. An index maps keys to their metadata, in pages, since a `KeyValueStore` cannot
 * list its keys. A save is committed when its page is written. Only one process may use a store at a time, and after a
 * crash a page is as whole as the `KeyValueStore` wrote it.
 */
import { FileSystem, KeyValueStore } from "@effect/platform"
import * as NodeContext from "@effect/platform-node/NodeContext"
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import { Clock, Console, Effect, flow, Hash, HashMap, Layer, Option, Order, Predicate, Schema, Stream } from "effect"
import { deepStrictEqual, strictEqual } from "node:assert/strict"
import { randomUUID } from "node:crypto"
import { fileURLToPath } from "node:url"
import { ObjectKey, Storage, StorageBackend, StorageError } from "surfing-weights"

/** Pairs in the index, since a struct drops the name `__proto__`. */
const Metadata = Schema.transform(
  Schema.Array(Schema.Tuple(Schema.String, Schema.String)),
  Schema.declare((input): input is { readonly [name: string]: string } => Predicate.isRecord(input)),
  { strict: true, decode: (pairs) => Object.fromEntries(pairs), encode: (metadata) => Object.entries(metadata) }
)

const Attributes = Schema.partial(Schema.Struct({
  contentType: Schema.String,
  cacheControl: Schema.String,
  contentDisposition: Schema.String,
  contentEncoding: Schema.String,
  contentLanguage: Schema.String,
  metadata: Metadata
}))

const Page = Schema.HashMap({
  key: Schema.String,
  value: Schema.Struct({
    key: Schema.String,
    size: Schema.Number,
    lastModified: Schema.Date,
    etag: Schema.String,
    attributes: Schema.optional(Attributes)
  })
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

const unexpected = (cause: { readonly message: string }) =>
  new StorageError.UnexpectedStorageError({ reason: cause.message, cause })

// #region backend
const makeBackend = Effect.gen(function*() {
  const values = yield* KeyValueStore.KeyValueStore
  const index = makeIndex(values)
  const semaphore = yield* Effect.makeSemaphore(1)
  // One operation at a time: a precondition still holds when the save is committed, and no value is read while it is
  // written. The yield lets the operations that wait go first.
  const exclusively = flow(semaphore.withPermits(1), Effect.zipLeft(Effect.yieldNow()))

  return StorageBackend.make({
    name: "KeyValueStore",
    capabilities: StorageBackend.full,

    open: (key, options) =>
      Effect.gen(function*() {
        const info = yield* Effect.flatten(index.find(key))
        const bytes = yield* Effect.flatten(values.getUint8Array(info.etag))
        return { bytes, info }
      }).pipe(
        exclusively,
        Effect.catchTag("NoSuchElementException", () => new StorageError.ObjectNotFound()),
        Effect.catchTags({ BadArgument: unexpected, ParseError: unexpected, SystemError: unexpected }),
        Effect.flatMap(({ bytes, info }) => StorageBackend.openBytes(bytes, info, options))
      ),

    save: (key, data, options) =>
      Effect.gen(function*() {
        // A copy, since the array is the caller's.
        const bytes = new Uint8Array(data instanceof Uint8Array ? data : yield* collect(data))
        const lastModified = new Date(yield* Clock.currentTimeMillis)
        const { attributes } = options
        const info = { key, size: bytes.byteLength, lastModified, etag: randomUUID(), attributes }
        return yield* Effect.gen(function*() {
          const existing = yield* Effect.mapError(index.find(key), unexpected)
          yield* StorageBackend.checkSave(Option.getOrUndefined(existing), options)
          yield* values.set(info.etag, bytes).pipe(
            Effect.zipRight(index.set(info)),
            Effect.onError(() => Effect.ignore(values.remove(info.etag))),
            Effect.mapError(unexpected)
          )
          if (Option.isSome(existing)) yield* Effect.ignore(values.remove(existing.value.etag))
          return info
        }).pipe(Effect.uninterruptible, exclusively)
      }),

    remove: (key, { ifMatch }) =>
      Effect.gen(function*() {
        const existing = Option.getOrUndefined(yield* Effect.mapError(index.find(key), unexpected))
        if (ifMatch !== undefined && ifMatch !== existing?.etag) return yield* new StorageError.PreconditionFailed()
        if (existing === undefined) return
        yield* Effect.mapError(index.remove(key), unexpected)
        yield* Effect.ignore(values.remove(existing.etag))
      }).pipe(Effect.uninterruptible, exclusively),

    entries: ({ prefix = "", startAfter = "" }) =>
      Stream.fromIterableEffect(exclusively(index.all)).pipe(
        Stream.mapError(unexpected),
        Stream.filter(({ key }) => key.startsWith(prefix) && ObjectKey.compare(key, startAfter) > 0)
      )
  })
})

export const layer = Layer.effect(Storage.Storage, Effect.map(makeBackend, Storage.make))
// #endregion

const collect = (stream: Stream.Stream<Uint8Array>) =>
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
