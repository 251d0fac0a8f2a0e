/**
 * Runs the contract over files, encryption of memory, HTTP and S3, in whichever runtime runs it. It fails with what does not hold. The S3
 * server is that of the environment: `S3_SERVER` is an `S3Server` as JSON, and `SKIPPED` the names of rules it cannot keep.
 */
import { CreateBucketCommand } from "@aws-sdk/client-s3"
import * as NodeHttpServer from "@effect/platform-node/NodeHttpServer"
import * as FetchHttpClient from "@effect/platform/FetchHttpClient"
import * as HttpServer from "@effect/platform/HttpServer"
import { Console, Data, Effect, FastCheck, Layer, Logger, Redacted } from "effect"
import { randomUUID } from "node:crypto"
import { createServer } from "node:http"
import { HttpStorage, MemoryStorage, S3Storage, StorageEncryption, WeightServer } from "surfing-weights"
import * as StorageContract from "surfing-weights/StorageContract"
import { leftovers, storageOnDirectory } from "../support/directory.js"
import { experienced } from "../support/experienced.js"
import { client, type S3Server } from "../support/s3Server.js"

FastCheck.configureGlobal({ numRuns: 2 })

const overHttp = Layer.unwrapScoped(
  HttpServer.addressFormattedWith((url) => Effect.succeed(HttpStorage.layer({ url })))
).pipe(
  Layer.provide(WeightServer.layer({ writable: true })),
  Layer.provide(NodeHttpServer.layerServer(() => createServer(), { host: "127.0.0.1", port: 0 })),
  Layer.provide(FetchHttpClient.layer),
  Layer.provide(MemoryStorage.layer())
)

const encrypted = Layer.provide(
  StorageEncryption.layer({ keys: [{ id: "test", secret: Redacted.make(new Uint8Array(32)) }] }),
  MemoryStorage.layer()
)

const onBucket = (server: S3Server) =>
  Layer.unwrapEffect(Effect.promise(async () => {
    const bucket = `runtime-${randomUUID()}`
    await client(server).send(new CreateBucketCommand({ Bucket: bucket }))
    const { accessKeyId, endpoint, region, secretAccessKey } = server
    const credentials = { accessKeyId, secretAccessKey: Redacted.make(secretAccessKey) }
    return Layer.provide(experienced, S3Storage.layer({ bucket, endpoint, region, credentials }))
  }))

class BrokenRule extends Data.TaggedError("BrokenRule")<{ readonly message: string; readonly cause: unknown }> {}

const keeps = <R, E>(name: string, options: StorageContract.Options<R, E>, skipped: ReadonlyArray<string> = []) =>
  Effect.gen(function*() {
    const rules = StorageContract.cases.filter((rule) => !skipped.includes(rule.name))
    for (const rule of rules) {
      yield* Effect.mapError(
        StorageContract.run(rule, options),
        (error) => new BrokenRule({ message: `${name}: ${rule.name}`, cause: error })
      )
    }
    yield* Console.log(`${name} passed with ${rules.length} rules`)
  })

const main = Effect.gen(function*() {
  // It takes long, so over files alone; the others list as many objects in the tests under Node.
  const many = "2,500 objects are listed across pages"
  yield* keeps("files", { layer: storageOnDirectory({ durability: "relaxed" }), leftovers })
  // What takes the runtime's cryptography: bytes, not keys, conditions or listings.
  const withoutBytes = StorageContract.cases.filter(({ group }) =>
    !["saving", "loading", "ranges", "streams"].includes(group)
  )
  yield* keeps("encryption", { layer: encrypted }, withoutBytes.map(({ name }) => name))
  yield* keeps("HTTP", { layer: overHttp }, [many])
  const server = JSON.parse(process.env["S3_SERVER"] ?? "") as S3Server
  const skipped = JSON.parse(process.env["SKIPPED"] ?? "[]") as ReadonlyArray<string>
  yield* keeps("S3", { layer: onBucket(server) }, [...skipped, many])
})

await Effect.runPromise(Effect.provide(main, Logger.remove(Logger.defaultLogger)))
process.exit()
