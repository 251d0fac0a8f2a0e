/**
 * The contract suite on a bucket of the S3 server of the tests.
 */
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import type { S3Storage, Storage } from "surfing-weights"
import { experienced } from "./experienced.js"
import { makeBucket, unfinishedUploads } from "./s3Bucket.js"

/** A storage on a new bucket for each test, which must leave no unfinished upload. */
export const onBucket = (layerOf: (bucket: string) => Layer.Layer<Storage.Storage, S3Storage.OpenError>) => {
  let bucket = ""
  return {
    layer: Layer.unwrapScoped(Effect.map(makeBucket, (made) => {
      bucket = made
      return Layer.provide(experienced, layerOf(made))
    })),
    leftovers: Effect.suspend(() => unfinishedUploads(bucket))
  }
}
