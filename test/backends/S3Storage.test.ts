/**
 * The contract suite, on a bucket of the emulator. What the emulator cannot do is skipped by name here, and tested on a
 * real server by S3Storage.all.test.ts.
 */
import { S3Storage } from "surfing-weights"
import * as StorageContract from "surfing-weights/StorageContract"
import { emulatorCannot } from "../support/contractSkips.js"
import { options, server } from "../support/s3Bucket.js"
import { onBucket } from "../support/s3Contract.js"

StorageContract.suite("S3Storage", {
  ...onBucket((bucket) => S3Storage.layer({ ...options, bucket })),
  ...(server.kind === "emulator" && { skip: emulatorCannot })
})
