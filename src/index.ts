/**
 * @since 0.1.0
 */
export * as FileSystemStorage from "./backends/FileSystemStorage.js"
export * as MemoryStorage from "./backends/MemoryStorage.js"
export * as S3Storage from "./backends/S3Storage.js"
export * as ByteRange from "./ByteRange.js"
export * as ObjectKey from "./ObjectKey.js"
export * as RetryPolicy from "./RetryPolicy.js"
export * as Storage from "./Storage.js"
export * as StorageBackend from "./StorageBackend.js"
export * as StorageError from "./StorageError.js"
export * as StorageChaos from "./testing/StorageChaos.js"
export * as StorageRetry from "./wrappers/StorageRetry.js"
