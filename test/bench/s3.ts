/**
 * The S3 server of a benchmark: a real one (see `test/support/s3Server.ts`), and everybody who is measured on it. Which
 * bucket a row has stands in a file in its directory.
 */
import { CreateBucketCommand, type S3Client } from "@aws-sdk/client-s3"
import { Effect, Redacted, Scope } from "effect"
import { randomUUID } from "node:crypto"
import * as fs from "node:fs"
import { Operator } from "opendal"
import { S3Storage, type Storage } from "surfing-weights"
import { client, type S3Server, start } from "../support/s3Server.js"

/** A bucket, as it can be told to another process. */
interface Place extends Pick<S3Server, "endpoint" | "region" | "accessKeyId" | "secretAccessKey"> {
  readonly bucket: string
}

const fileIn = (directory: string): string => `${directory}/bucket.json`

export const hasBucket = (directory: string): boolean => fs.existsSync(fileIn(directory))

const placeIn = (directory: string): Place => JSON.parse(fs.readFileSync(fileIn(directory), "utf8")) as Place

/** Makes a new bucket for whoever has the directory, on the server that the benchmark has started. */
export const makeBucket = async (directory: string): Promise<void> => {
  const server = await start()
  const { accessKeyId, endpoint, region, secretAccessKey } = server
  const bucket = `bench-${randomUUID()}`
  const sdk = client(server)
  await sdk.send(new CreateBucketCommand({ Bucket: bucket }))
  sdk.destroy()
  fs.writeFileSync(fileIn(directory), JSON.stringify({ accessKeyId, bucket, endpoint, region, secretAccessKey }))
}

/** The same for a bucket on a server that takes any credentials. */
export const useServer = (directory: string, endpoint: string): void =>
  fs.writeFileSync(
    fileIn(directory),
    JSON.stringify({ accessKeyId: "any", bucket: "bucket", endpoint, region: "us-east-1", secretAccessKey: "any" })
  )

/** The storage that is measured, as it comes by default. */
export const makeStorage = (directory: string) => {
  const { accessKeyId, bucket, endpoint, region, secretAccessKey } = placeIn(directory)
  return S3Storage.make({
    bucket,
    endpoint,
    region,
    credentials: { accessKeyId, secretAccessKey: Redacted.make(secretAccessKey) }
  })
}

/** Does something on it. */
export const using = <A, E>(directory: string, use: (storage: Storage.Service) => Effect.Effect<A, E>): Promise<A> =>
  Effect.runPromise(Effect.scoped(Effect.flatMap(makeStorage(directory), use)))

/** The same storage, until the process ends. */
export const storageIn = async (directory: string): Promise<Storage.Service> => {
  const scope = await Effect.runPromise(Scope.make())
  return Effect.runPromise(Scope.extend(makeStorage(directory), scope))
}

/** The AWS SDK, and the name of the bucket. */
export interface Sdk {
  readonly sdk: S3Client
  readonly Bucket: string
}

export const sdkOf = (directory: string): Sdk => {
  const { bucket, ...server } = placeIn(directory)
  return { sdk: client({ kind: "given", ...server }), Bucket: bucket }
}

export const opendalOf = (directory: string): Operator => {
  const { accessKeyId, bucket, endpoint, region, secretAccessKey } = placeIn(directory)
  return new Operator("s3", {
    bucket,
    endpoint,
    region,
    root: "/",
    access_key_id: accessKeyId,
    secret_access_key: secretAccessKey,
    disable_ec2_metadata: "true"
  })
}
