/**
 * A page that does in its origin private file system what a test asks for.
 */
import { FetchHttpClient } from "@effect/platform"
import { Effect, FastCheck, Layer, Option, Stream } from "effect"
import * as ByteRange from "surfing-weights/ByteRange"
import * as HttpStorage from "surfing-weights/HttpStorage"
import * as OpfsStorage from "surfing-weights/OpfsStorage"
import * as Storage from "surfing-weights/Storage"
import * as StorageCache from "surfing-weights/StorageCache"
import * as StorageContract from "surfing-weights/StorageContract"
import * as TransformersCache from "surfing-weights/TransformersCache"
import { offer } from "./tasks.js"

interface Folder {
  readonly getDirectoryHandle: (name: string) => Promise<Folder>
  readonly keys: () => AsyncIterable<string>
}

// What is used of the browser: the types of the web know a `Storage`, too.
declare const navigator: { readonly storage: { readonly getDirectory: () => Promise<Folder> } }

const MiB = 1024 * 1024

/** What is in a folder of the file system. */
const namesIn = (path: string) =>
  Effect.promise(async () => {
    let folder = await navigator.storage.getDirectory()
    for (const name of path.split("/")) folder = await folder.getDirectoryHandle(name)
    const names: Array<string> = []
    for await (const name of folder.keys()) names.push(name)
    return names
  })

const hashOf = (bytes: Uint8Array<ArrayBuffer>) =>
  Effect.map(
    Effect.promise(() => crypto.subtle.digest("SHA-256", bytes)),
    (digest) => Array.from(new Uint8Array(digest), (byte) => byte.toString(16).padStart(2, "0")).join("")
  )

/** The bytes at a position of an object are known. */
const patternAt = (position: number, size: number): Uint8Array<ArrayBuffer> =>
  new Uint8Array(Float64Array.from({ length: size / 8 }, (_, index) => position + index * 8).buffer)

// The contract

const emptyStorage = Layer.unwrapEffect(
  Effect.sync(() => OpfsStorage.layer({ directory: `contract/${crypto.randomUUID()}` }))
)

const temporaryFiles = Effect.flatMap(
  Storage.Storage,
  ({ backend }) => namesIn(`${backend.name.slice("Opfs(".length, -1)}/temporary`)
)

/** Checks the rules of the contract; returns how many there are, and which are broken. */
const contract = () =>
  Effect.gen(function*() {
    FastCheck.configureGlobal({ numRuns: 2 })
    const broken: Array<string> = []
    for (const rule of StorageContract.cases) {
      yield* Effect.catchAll(
        StorageContract.run(rule, { layer: emptyStorage, leftovers: temporaryFiles }),
        (error) => Effect.sync(() => void broken.push(`${rule.name}: ${String(error)}`))
      )
    }
    return { rules: StorageContract.cases.length, broken }
  })

// Several tabs

const opfs = OpfsStorage.layer()

const save = ({ fill, key, size }: { readonly key: string; readonly size: number; readonly fill: number }) =>
  Storage.save(key, new Uint8Array(size).fill(fill)).pipe(
    Effect.as("saved"),
    Effect.catchAll(({ _tag, message }) => Effect.succeed(_tag === "StorageFull" ? _tag : message)),
    Effect.provide(opfs)
  )

// The types of the web know a `Storage`, too.
declare const FileSystemWritableFileStream: { readonly prototype: { write: (data: unknown) => Promise<void> } }

/** A save whose first write fails as one that Chromium gives up. */
const saveAborted = (options: Parameters<typeof save>[0]) =>
  Effect.acquireUseRelease(
    Effect.sync(() => FileSystemWritableFileStream.prototype.write),
    () => {
      const message = "Failed to write data to data pipe"
      FileSystemWritableFileStream.prototype.write = () => Promise.reject(new DOMException(message, "AbortError"))
      return save(options)
    },
    (write) => Effect.sync(() => void (FileSystemWritableFileStream.prototype.write = write))
  )

/** The byte that all of an object consists of. */
const fillOf = (bytes: Uint8Array) => bytes.every((byte) => byte === bytes[0]) ? bytes[0] : "mixed"

const load = ({ key }: { readonly key: string }) =>
  Effect.map(Storage.load(key), (bytes) => ({ size: bytes.byteLength, fill: fillOf(bytes) })).pipe(Effect.provide(opfs))

/** Saves a beginning, and never ends. */
const saveForever = ({ key }: { readonly key: string }) =>
  Effect.provide(
    Storage.save(key, Stream.concat(Stream.repeatValue(new Uint8Array(MiB)).pipe(Stream.take(8)), Stream.never)),
    opfs
  )

const temporary = () => namesIn("surfing-weights/temporary")

const list = () => Effect.provide(Storage.list(), opfs)

/** Saves each key if it does not exist; returns those that it was the first to save. */
const claim = ({ fill, keys }: { readonly keys: ReadonlyArray<string>; readonly fill: number }) =>
  Effect.filter(keys, (key) =>
    Storage.save(key, new Uint8Array(100_000).fill(fill), { ifNoneMatch: "*" }).pipe(
      Effect.as(true),
      Effect.catchTag("ObjectAlreadyExists", () => Effect.succeed(false))
    )).pipe(Effect.provide(opfs))

/** Adds one to a number, by compare-and-swap, so many times. */
const increment = ({ key, times }: { readonly key: string; readonly times: number }) =>
  Effect.gen(function*() {
    const once = Effect.gen(function*() {
      const { bytes, info } = yield* Effect.scoped(Storage.open(key))
      const next = Number(new TextDecoder().decode(bytes)) + 1
      yield* Storage.save(key, new TextEncoder().encode(String(next)), { ifMatch: info.etag })
    })
    yield* Effect.repeatN(Effect.retry(once, { while: (error) => error._tag === "PreconditionFailed" }), times - 1)
    return Number(new TextDecoder().decode(yield* Storage.load(key)))
  }).pipe(Effect.provide(opfs))

// As the second tier of a cache

const cached = (server: string) =>
  StorageCache.layer({
    // Nothing is kept in memory.
    capacity: 1,
    freshness: "immutable",
    tier: { layer: opfs, capacity: 1024 * MiB }
  }).pipe(
    Layer.provide(HttpStorage.layer({ url: server, verify: false })),
    Layer.provide(FetchHttpClient.layer)
  )

/** Loads an object through a cache, and what the cache has done. */
const loadCached = ({ key, server }: { readonly server: string; readonly key: string }) =>
  Effect.gen(function*() {
    const sha256 = yield* Effect.flatMap(Storage.load(key), hashOf)
    const { failures, hits, misses, tier } = yield* Effect.flatMap(
      StorageCache.StorageCache,
      (cache) => cache.statistics
    )
    return { sha256, hits, misses, failures, kept: tier.objects }
  }).pipe(Effect.provide(cached(server)))

// Large objects

/** Saves an object of so many MiB, and reads it in parts and as a stream. */
const large = ({ size }: { readonly size: number }) =>
  Effect.gen(function*() {
    const pieces = Stream.unfold(0, (at) => at < size ? Option.some([patternAt(at * MiB, MiB), at + 1]) : Option.none())
    const started = performance.now()
    const saved = yield* Storage.save("large", pieces, { size: size * MiB })
    const saving = performance.now() - started
    const end = yield* Storage.load("large", { range: ByteRange.last(16) })
    let at = 0
    let wrong = 0
    yield* Storage.forEachChunk(Storage.stream("large"), (bytes) =>
      Effect.sync(() => {
        // A chunk may begin within a number.
        const skipped = (8 - at % 8) % 8
        if (bytes.byteLength >= skipped + 8) {
          const first = new DataView(bytes.buffer, bytes.byteOffset + skipped).getFloat64(0, true)
          if (first !== at + skipped) wrong++
        }
        at += bytes.byteLength
      }))
    const reading = performance.now() - started - saving
    yield* Storage.remove("large")
    return {
      size: saved.size,
      end: [...new Float64Array(end.buffer)],
      read: at,
      wrong,
      speed: { save: Math.round(1000 * size / saving), stream: Math.round(1000 * size / reading) }
    }
  }).pipe(Effect.provide(opfs))

// As the cache of transformers.js

/** Puts a file and matches it; replaces it, and reads the blob that was matched again. */
const match = () =>
  Effect.gen(function*() {
    const url = "https://huggingface.co/m/resolve/main/model.onnx"
    const cache = yield* TransformersCache.make("transformers")
    const bytes = patternAt(0, 4 * MiB)
    return yield* Effect.promise(async () => {
      await cache.put(url, new Response(bytes))
      const blob = await (await cache.match(url))?.blob()
      const read = new Float64Array(await blob?.arrayBuffer() ?? new ArrayBuffer(0))
      const part = await cache.match(new Request(url, { headers: { range: "bytes=8-23" } }))
      const range = [...new Float64Array(await part?.arrayBuffer() ?? new ArrayBuffer(0))]
      await cache.put(url, new Response(bytes.slice(0, MiB)))
      const replaced = await blob?.arrayBuffer().then(() => "it is in memory", (error: Error) => error.name)
      return { isWhole: read.length === MiB / 2 && read.every((value, at) => value === at * 8), range, replaced }
    })
  }).pipe(Effect.provide(opfs))

offer({ match, contract, save, saveAborted, load, saveForever, temporary, list, claim, increment, loadCached, large })
