/**
 * The contract suite on a bucket of the S3 server of the tests.
 */
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import { type S3Storage, Storage } from "surfing-weights"
import { makeBucket, server, unfinishedUploads } from "./s3Bucket.js"

/**
 * Ceph ignores `If-Match` on a removal. The storage learns it from the first of them and refuses them all, so that the
 * suite has to know it beforehand.
 */
const withoutConditionalRemove = Layer.effect(
  Storage.Storage,
  Effect.map(
    Storage.Storage,
    ({ backend }) => Storage.make({ ...backend, capabilities: { ...backend.capabilities, conditionalRemove: false } })
  )
)

/** A storage on a new bucket for each test, which must leave no unfinished upload. */
export const onBucket = (layerOf: (bucket: string) => Layer.Layer<Storage.Storage, S3Storage.OpenError>) => {
  let bucket = ""
  return {
    layer: Layer.unwrapScoped(Effect.map(makeBucket, (made) => {
      bucket = made
      return server.kind === "radosgw" ? Layer.provide(withoutConditionalRemove, layerOf(made)) : layerOf(made)
    })),
    leftovers: Effect.suspend(() => unfinishedUploads(bucket))
  }
}
