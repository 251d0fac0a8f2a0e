/**
 * Every way to tell a bucket who asks. What this machine can show is run: an emulator of S3 in this process plays the
 * server. It takes any credentials, so each way has its own, and a presigned URL tells which were used.
 */
import { S3Client } from "@aws-sdk/client-s3"
import { FileSystem } from "@effect/platform"
import * as NodeFileSystem from "@effect/platform-node/NodeFileSystem"
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import { Config, Console, Effect, Redacted } from "effect"
import { buildApp } from "fauxqs"
import { deepStrictEqual, strictEqual } from "node:assert/strict"
import { S3Storage, Storage } from "surfing-weights"

const emulator = Effect.gen(function*() {
  const app = yield* Effect.acquireRelease(
    Effect.sync(() => buildApp({ logger: false })),
    (app) => Effect.promise(() => app.close())
  )
  const endpoint = yield* Effect.promise(() => app.listen({ host: "127.0.0.1", port: 0 }))
  yield* Effect.promise(() => fetch(`${endpoint}/model-weights`, { method: "PUT" }))
  return endpoint
})

/** Saves and loads, and gives the access key id that it was done with. */
const whoAsks = Effect.gen(function*() {
  yield* Storage.save("layer_0.bin", new Uint8Array([1, 2, 3]))
  deepStrictEqual(yield* Storage.load("layer_0.bin"), new Uint8Array([1, 2, 3]))
  const url = yield* S3Storage.presign("layer_0.bin", { method: "GET", expiresIn: "1 minute" })
  return new URL(url).searchParams.get("X-Amz-Credential")?.split("/")[0]
})

const main = Effect.gen(function*() {
  const fs = yield* FileSystem.FileSystem
  const bucket = { bucket: "model-weights", region: "eu-central-1", endpoint: yield* emulator }

  // #region given
  const given = S3Storage.layer({
    ...bucket,
    credentials: {
      accessKeyId: "GIVEN",
      // A secret that is Redacted shows in no log.
      secretAccessKey: Redacted.make("a secret"),
      // Temporary credentials have a token, too.
      sessionToken: Redacted.make("a token")
    }
  })
  // #endregion

  // #region config
  // From the app's own configuration: the environment, a file, a vault, whatever its ConfigProvider reads.
  const config = S3Storage.layerConfig({
    bucket: Config.string("WEIGHTS_BUCKET"),
    region: Config.string("WEIGHTS_REGION"),
    endpoint: Config.string("WEIGHTS_ENDPOINT"),
    credentials: {
      accessKeyId: Config.string("WEIGHTS_KEY_ID"),
      secretAccessKey: Config.redacted("WEIGHTS_SECRET")
    }
  })
  // #endregion

  // #region profile
  // A profile in ~/.aws/config or ~/.aws/credentials: with keys, a role, single sign-on or a program of its own.
  const profile = S3Storage.layer({ ...bucket, profile: "weights" })
  // #endregion

  // #region found
  // The first that the AWS SDK finds: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (and AWS_SESSION_TOKEN), the profile of
  // AWS_PROFILE or the one named default, a web identity, the container's role, the instance's. Temporary ones are
  // renewed in time.
  const found = S3Storage.layer(bucket)
  // #endregion

  // #region client
  // A client of your own, with credentials from wherever you like. It stays yours to destroy.
  const client = new S3Client({
    region: bucket.region,
    endpoint: bucket.endpoint,
    forcePathStyle: true,
    credentials: () => Promise.resolve({ accessKeyId: "CLIENT", secretAccessKey: "a secret" })
  })
  const own = S3Storage.layerFromClient(client, { bucket: "model-weights" })
  // #endregion

  // What this machine has of its own is left out.
  for (const name of Object.keys(process.env)) if (name.startsWith("AWS_")) delete process.env[name]
  const directory = yield* fs.makeTempDirectoryScoped({ prefix: "surfing-weights-" })
  const file = `${directory}/credentials`
  yield* fs.writeFileString(file, "[weights]\naws_access_key_id = PROFILE\naws_secret_access_key = a secret\n")
  Object.assign(process.env, {
    AWS_SHARED_CREDENTIALS_FILE: file,
    AWS_CONFIG_FILE: `${directory}/config`,
    WEIGHTS_BUCKET: bucket.bucket,
    WEIGHTS_REGION: bucket.region,
    WEIGHTS_ENDPOINT: bucket.endpoint,
    WEIGHTS_KEY_ID: "CONFIG",
    WEIGHTS_SECRET: "a secret"
  })
  strictEqual(yield* Effect.provide(whoAsks, given), "GIVEN")
  yield* Console.log("Given outright: it is GIVEN who asks")
  strictEqual(yield* Effect.provide(whoAsks, config), "CONFIG")
  yield* Console.log("From Config: it is CONFIG")
  strictEqual(yield* Effect.provide(whoAsks, profile), "PROFILE")
  yield* Console.log("From a profile: it is PROFILE")
  strictEqual(yield* Effect.provide(whoAsks, own), "CLIENT")
  yield* Console.log("With a client of one's own: it is CLIENT")
  client.destroy()

  // An environment of its own for the last, since the SDK warns of keys beside a profile.
  Object.assign(process.env, { AWS_ACCESS_KEY_ID: "FOUND", AWS_SECRET_ACCESS_KEY: "a secret" })
  strictEqual(yield* Effect.provide(whoAsks, found), "FOUND")
  yield* Console.log("Found in the environment: it is FOUND")
})

main.pipe(Effect.scoped, Effect.provide(NodeFileSystem.layer), NodeRuntime.runMain)
