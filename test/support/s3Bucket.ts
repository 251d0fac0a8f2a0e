/**
 * Buckets for tests: each new and empty, and removed with its scope. To import this module starts the S3 server.
 */
import {
  AbortMultipartUploadCommand,
  CreateBucketCommand,
  DeleteBucketCommand,
  DeleteObjectCommand,
  ListMultipartUploadsCommand,
  ListObjectsV2Command,
  type MultipartUpload,
  NoSuchUpload,
  PutObjectCommand,
  type S3Client
} from "@aws-sdk/client-s3"
import * as Effect from "effect/Effect"
import * as Redacted from "effect/Redacted"
import type * as Scope from "effect/Scope"
import { randomUUID } from "node:crypto"
import { setTimeout } from "node:timers/promises"
import { inject } from "vitest"
import { client, type S3Server } from "./s3Server.js"

/** The server of this run, started now if no other file has asked for it. */
export const server: S3Server = await fetch(inject("s3")).then(async (response) => {
  if (!response.ok) throw new Error(await response.text())
  return await response.json() as S3Server
})

/** The SDK's client for it. */
export const sdk: S3Client = client(server)

/** The options of a storage on it. */
export const options = {
  endpoint: server.endpoint,
  region: server.region,
  credentials: {
    accessKeyId: server.accessKeyId,
    secretAccessKey: Redacted.make(server.secretAccessKey)
  }
}

/** A new bucket. */
export const makeBucket: Effect.Effect<string, never, Scope.Scope> = Effect.acquireRelease(
  Effect.promise(async () => {
    const Bucket = `test-${randomUUID()}`
    await sdk.send(new CreateBucketCommand({ Bucket }))
    return Bucket
  }),
  (bucket) => Effect.promise(() => removeBucket(bucket))
)

/** Saves an object as others do, without the storage. */
export const put = (Bucket: string, Key: string, Body: Uint8Array | string = Key, ContentType?: string) =>
  Effect.promise(() => sdk.send(new PutObjectCommand({ Bucket, Key, Body, ContentType })))

/** The keys of the uploads that were begun in a bucket and neither completed nor aborted. */
export const unfinishedUploads = (bucket: string): Effect.Effect<ReadonlyArray<string>> =>
  Effect.promise(async () => (await listUploads(bucket)).map(({ Key }) => Key ?? ""))

/** Aborts those. */
export const abortUploads = (bucket: string): Effect.Effect<void> => Effect.promise(() => abortAll(bucket))

const abortAll = async (bucket: string): Promise<void> => {
  for (const { Key, UploadId } of await listUploads(bucket)) {
    try {
      await sdk.send(new AbortMultipartUploadCommand({ Bucket: bucket, Key, UploadId }))
    } catch (error) {
      // It was completed meanwhile.
      if (!(error instanceof NoSuchUpload)) throw error
    }
  }
}

// The emulator lists none, and some servers find none where there are none.
const listUploads = async (Bucket: string): Promise<ReadonlyArray<MultipartUpload>> => {
  if (server.kind === "emulator") return []
  try {
    return (await sdk.send(new ListMultipartUploadsCommand({ Bucket }))).Uploads ?? []
  } catch (error) {
    if (error instanceof NoSuchUpload) return []
    throw error
  }
}

const empty = async (Bucket: string): Promise<void> => {
  // Some servers list keys that XML cannot hold as others, which do not exist.
  for (let passes = 0; passes < 20; passes++) {
    // Without the encoding, some keys are listed as others.
    const { Contents = [], EncodingType } = await sdk.send(new ListObjectsV2Command({ Bucket, EncodingType: "url" }))
    if (Contents.length === 0) return
    const keys = Contents.map(({ Key = "" }) =>
      EncodingType === "url" ? decodeURIComponent(Key.replaceAll("+", " ")) : Key
    )
    await Promise.all(keys.map((Key) => sdk.send(new DeleteObjectCommand({ Bucket, Key }))))
  }
}

/** What a test interrupted last the server may do once the bucket is empty, so it is emptied again. */
const removeBucket = async (Bucket: string, tries = server.kind === "given" ? 1 : 20): Promise<void> => {
  await abortAll(Bucket)
  await empty(Bucket)
  try {
    await sdk.send(new DeleteBucketCommand({ Bucket }))
  } catch (error) {
    if (tries === 1 && server.kind === "given") return
    if (tries === 1 || !(error instanceof Error && error.name === "BucketNotEmpty")) throw error
    await setTimeout(100)
    return removeBucket(Bucket, tries - 1)
  }
}
