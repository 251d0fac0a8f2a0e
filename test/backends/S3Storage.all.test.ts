/**
 * The contract suite, on buckets of a real S3 server: by connections of the storage's own, and by a client of the SDK in
 * a folder of a bucket. Where only the emulator is available, S3Storage.test.ts is all that it can do.
 */
import { describe } from "@effect/vitest"
import { S3Storage } from "surfing-weights"
import * as StorageContract from "surfing-weights/StorageContract"
import { withPrefix } from "../support/contractSkips.js"
import { options, sdk, server } from "../support/s3Bucket.js"
import { onBucket } from "../support/s3Contract.js"

describe.skipIf(server.kind === "emulator")("on a real server", () => {
  StorageContract.suite("S3Storage", onBucket((bucket) => S3Storage.layer({ ...options, bucket })))

  StorageContract.suite("S3Storage, by a client of the SDK, in a folder of a bucket, streaming ahead", {
    ...onBucket((bucket) =>
      S3Storage.layerFromClient(sdk, { bucket, prefix: "a folder/of the bucket", streamConcurrency: 3 })
    ),
    skip: {
      ...withPrefix,
      "whatever can be a key can be a folder": "the longest keys are too long with a prefix"
    }
  })
})
