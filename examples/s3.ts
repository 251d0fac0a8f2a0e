/**
 * Weights in a bucket: saved, listed, loaded, streamed and shared by a presigned URL. An S3 emulator in this process is the
 * server, unless STORAGE_URL names a bucket (s3://bucket/prefix?endpoint=http://…&region=…), with the credentials that the
 * AWS tools find.
 */
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import { Config, Console, Effect, Layer, Option, Redacted, Stream } from "effect"
import { buildApp } from "fauxqs"
import { deepStrictEqual, strictEqual } from "node:assert/strict"
import { createHash } from "node:crypto"
import { ByteRange, S3Storage, Storage } from "surfing-weights"

// The emulator accepts any credentials, and creates a bucket without them.
const emulator = Effect.gen(function*() {
  const app = yield* Effect.acquireRelease(
    Effect.sync(() => buildApp({ logger: false })),
    (app) => Effect.promise(() => app.close())
  )
  const endpoint = yield* Effect.promise(() => app.listen({ host: "127.0.0.1", port: 0 }))
  yield* Effect.promise(() => fetch(`${endpoint}/model-weights`, { method: "PUT" }))
  return endpoint
})

const WeightsLive = Layer.unwrapScoped(Effect.gen(function*() {
  const url = yield* Config.option(Config.nonEmptyString("STORAGE_URL"))
  if (Option.isSome(url)) return Storage.layerUrl(url.value)
  const endpoint = yield* emulator

  // #region layer
  const WeightsLive = S3Storage.layer({
    bucket: "model-weights",
    // The key "layer_0.bin" is the object "bert/layer_0.bin".
    prefix: "bert",
    region: "eu-central-1",
    // For a server other than Amazon's.
    endpoint,
    // Default: the credentials that the AWS tools find.
    credentials: { accessKeyId: "weights", secretAccessKey: Redacted.make("a secret") }
  })
  // #endregion

  return WeightsLive
}))

// 20 chunks of 1 MiB, as from a download of unknown size.
const download = Stream.map(Stream.range(1, 20), (i) => new Uint8Array(1024 * 1024).fill(i))

const sha256 = <E, R>(stream: Stream.Stream<Uint8Array, E, R>) =>
  Effect.suspend(() => Stream.runFold(stream, createHash("sha256"), (hash, bytes) => hash.update(bytes))).pipe(
    Effect.map((hash) => hash.digest("hex"))
  )

// #region program
const program = Effect.gen(function*() {
  yield* Storage.save("config.json", new TextEncoder().encode(`{ "layers": 1 }`))

  // Larger than a part, so it is uploaded in parts, four at once. Readers see all of it or nothing.
  const saved = yield* Storage.save("layer_0.bin", download)
  const keys = yield* Storage.list()

  const trailer = yield* Storage.load("layer_0.bin", { range: ByteRange.last(16) })

  // If the connection breaks, the stream resumes at the byte where it broke.
  const checksum = yield* sha256(Storage.stream("layer_0.bin"))

  // With this URL, anyone can load the object for 15 minutes, without credentials.
  const url = yield* S3Storage.presign("config.json", { method: "GET", expiresIn: "15 minutes" })

  const missing = yield* Storage.load("layer_1.bin").pipe(
    Effect.as("it exists"),
    Effect.catchTag("ObjectNotFound", ({ message }) => Effect.succeed(message))
  )
  return { saved, keys, trailer, checksum, url, missing }
})
// #endregion

const main = Effect.gen(function*() {
  const { checksum, keys, missing, saved, trailer, url } = yield* program

  deepStrictEqual(keys, ["config.json", "layer_0.bin"])
  strictEqual(saved.size, 20 * 1024 * 1024)
  yield* Console.log(`Saved ${keys.join(" and ")}: ${saved.size} bytes in parts`)

  deepStrictEqual(trailer, new Uint8Array(16).fill(20))
  strictEqual(checksum, yield* sha256(download))
  yield* Console.log("Streamed them back: the SHA-256 is that of the original")

  const config = yield* Effect.promise(() => fetch(url).then((response) => response.text()))
  strictEqual(config, `{ "layers": 1 }`)
  yield* Console.log(`Fetched ${config} by a presigned URL`)
  yield* Console.log(`Handled: ${missing}`)

  const { removed } = yield* Storage.removeAll(keys)
  strictEqual(removed, 2)
})

main.pipe(Effect.provide(WeightsLive), NodeRuntime.runMain)
