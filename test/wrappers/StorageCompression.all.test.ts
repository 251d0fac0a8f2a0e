/**
 * The contract suite for compression over encryption on S3, as both are used together: what is encrypted cannot be compressed.
 */
import { Layer } from "effect"
import { MemoryStorage, S3Storage, StorageCompression, StorageEncryption } from "surfing-weights"
import * as StorageContract from "surfing-weights/StorageContract"
import { keyOf } from "../support/encryption.js"
import { options } from "../support/s3Bucket.js"
import { onBucket } from "../support/s3Contract.js"

StorageContract.suite(
  "StorageCompression(StorageEncryption(S3))",
  onBucket((bucket) =>
    StorageCompression.layer({ buffer: 1000, scratch: MemoryStorage.layer() }).pipe(
      Layer.provide(StorageEncryption.layer({ keys: [keyOf("test")] })),
      Layer.provide(S3Storage.layer({ ...options, bucket }))
    )
  )
)
