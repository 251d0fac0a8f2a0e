/**
 * The contract suite for compression over files and over S3.
 */
import { Layer } from "effect"
import { MemoryStorage, S3Storage, StorageCompression } from "surfing-weights"
import * as StorageContract from "surfing-weights/StorageContract"
import { leftovers, storageOnDirectory } from "../support/directory.js"
import { options } from "../support/s3Bucket.js"
import { onBucket } from "../support/s3Contract.js"

StorageContract.suite("StorageCompression(FileSystem)", {
  layer: StorageCompression.layer({ buffer: 1000, scratch: MemoryStorage.layer() }).pipe(
    Layer.provideMerge(storageOnDirectory({ durability: "relaxed" }))
  ),
  leftovers
})

StorageContract.suite(
  "StorageCompression(S3)",
  onBucket((bucket) => Layer.provide(StorageCompression.layer(), S3Storage.layer({ ...options, bucket })))
)
