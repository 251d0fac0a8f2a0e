/**
 * The S3 server of a benchmark: a real one (see `test/support/s3Server.ts`), with one bucket, and everybody who is
 * measured on it.
 */
import { CreateBucketCommand, type S3Client } from "@aws-sdk/client-s3"
import { Effect, Redacted, Scope } from "effect"
import { randomUUID } from "node:crypto"
import { Operator } from "opendal"
import { S3Storage, type Storage } from "surfing-weights"
import { client, type S3Server, start } from "../support/s3Server.js"

/** A bucket, as it can be told to another process. */
export interface Place extends Pick<S3Server, "endpoint" | "region" | "accessKeyId" | "secretAccessKey"> {
  readonly bucket: string
}

export interface Bench {
  readonly place: Place
  readonly storage: Storage.Service
  readonly sdk: S3Client
  readonly opendal: Operator
}

/** The storage that is measured, as it comes by default. */
export const storageOn = ({ accessKeyId, bucket, endpoint, region, secretAccessKey }: Place) =>
  S3Storage.make({
    bucket,
    endpoint,
    region,
    credentials: { accessKeyId, secretAccessKey: Redacted.make(secretAccessKey) }
  })

/** A new bucket on the server that the benchmark has started, and everybody on it, until the process ends. */
export const open = async (): Promise<Bench> => {
  const server = await start()
  const { accessKeyId, endpoint, region, secretAccessKey } = server
  const bucket = `bench-${randomUUID()}`
  const sdk = client(server)
  await sdk.send(new CreateBucketCommand({ Bucket: bucket }))
  const place = { accessKeyId, bucket, endpoint, region, secretAccessKey }
  const scope = await Effect.runPromise(Scope.make())
  return {
    place,
    sdk,
    storage: await Effect.runPromise(Scope.extend(storageOn(place), scope)),
    opendal: new Operator("s3", {
      bucket,
      endpoint,
      region,
      root: "/",
      access_key_id: accessKeyId,
      secret_access_key: secretAccessKey,
      disable_ec2_metadata: "true"
    })
  }
}
