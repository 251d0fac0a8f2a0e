/**
 * A bucket for the command-line tool.
 */
import { Effect } from "effect"
import { makeBucket, server } from "./s3Bucket.js"

/** The environment of the tool. */
export const credentials = {
  AWS_ACCESS_KEY_ID: server.accessKeyId,
  AWS_SECRET_ACCESS_KEY: server.secretAccessKey
}

/** A new bucket, and the URLs of its keys. */
export const bucketUrls = Effect.map(makeBucket, (bucket) => ({
  bucket,
  urlOf: (key: string) => `s3://${bucket}/${key}?endpoint=${server.endpoint}&region=${server.region}`
}))
