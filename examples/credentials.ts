/**
 * The ways to give credentials to an S3 storage. An S3 emulator in this process is the server. It accepts any credentials,
 * so each way has its own access key, and a presigned URL shows which was used.
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

/** Saves and loads, and returns the access key id that was used. */
const accessKeyId = Effect.gen(function*() {
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
      // Redacted, so that no log shows it.
      secretAccessKey: Redacted.make("a secret"),
      // Only temporary credentials have a token.
      sessionToken: Redacted.make("a token")
    }
  })
  // #endregion

  // #region config
  // From the app's ConfigProvider: the environment, a file, a vault.
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
  // A profile in ~/.aws/config or ~/.aws/credentials: with keys, a role, single sign-on or a credential process.
  const profile = S3Storage.layer({ ...bucket, profile: "weights" })
  // #endregion

  // #region found
  // The first that the AWS SDK finds: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (with AWS_SESSION_TOKEN), the profile
  // AWS_PROFILE or default, a web identity, the role of the container or instance. Temporary credentials are renewed
  // before they expire, and all are found anew when they are refused, as others may have replaced them.
  const found = S3Storage.layer(bucket)
  // #endregion

  // #region client
  // A client of your own, with any credential provider. You destroy it.
  const client = new S3Client({
    region: bucket.region,
    endpoint: bucket.endpoint,
    forcePathStyle: true,
    credentials: () => Promise.resolve({ accessKeyId: "CLIENT", secretAccessKey: "a secret" })
  })
  const own = S3Storage.layerFromClient(client, { bucket: "model-weights" })
  // #endregion

  // The settings of this machine must not matter.
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
  strictEqual(yield* Effect.provide(accessKeyId, given), "GIVEN")
  yield* Console.log("Given as an option: GIVEN")
  strictEqual(yield* Effect.provide(accessKeyId, config), "CONFIG")
  yield* Console.log("From Config: CONFIG")
  strictEqual(yield* Effect.provide(accessKeyId, profile), "PROFILE")
  yield* Console.log("From a profile: PROFILE")
  strictEqual(yield* Effect.provide(accessKeyId, own), "CLIENT")
  yield* Console.log("From a client: CLIENT")
  client.destroy()

  // Set last, since the SDK warns where there are both keys and a profile.
  Object.assign(process.env, { AWS_ACCESS_KEY_ID: "FOUND", AWS_SECRET_ACCESS_KEY: "a secret" })
  strictEqual(yield* Effect.provide(accessKeyId, found), "FOUND")
  yield* Console.log("Found in the environment: FOUND")
})

main.pipe(Effect.scoped, Effect.provide(NodeFileSystem.layer), NodeRuntime.runMain)
