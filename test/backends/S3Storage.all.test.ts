/**
 * The contract suite on a real S3 server, where nothing of it is skipped: by connections of the storage's own, and by a
 * client of the SDK in a folder of a bucket.
 */
import { S3Storage } from "surfing-weights"
import * as StorageContract from "surfing-weights/StorageContract"
import { withPrefix } from "../support/contractSkips.js"
import { sdk } from "../support/s3Bucket.js"
import { onBucket } from "../support/s3Contract.js"
import "./S3Storage.test.js"

StorageContract.suite("S3Storage, by a client of the SDK, in a folder of a bucket, streaming ahead", {
  ...onBucket((bucket) =>
    S3Storage.layerFromClient(sdk, { bucket, prefix: "a folder/of the bucket", streamConcurrency: 3 })
  ),
  skip: {
    ...withPrefix,
    "every segment can be the name of a folder": "the longest keys are too long with a prefix"
  }
})
