/**
 * The barrel that bundlers take for browsers, by the export condition `browser`: without the backends that are made for Node.
 *
 * @since 0.1.0
 */
export * as HttpStorage from "./backends/HttpStorage.js"
export * as MemoryStorage from "./backends/MemoryStorage.js"
export * as ByteRange from "./ByteRange.js"
export * as ObjectKey from "./ObjectKey.js"
export * as RetryPolicy from "./RetryPolicy.js"
export * as WeightServer from "./server/WeightServer.js"
export * as Storage from "./Storage.js"
export * as StorageBackend from "./StorageBackend.js"
export * as StorageError from "./StorageError.js"
export * as StorageChaos from "./testing/StorageChaos.js"
export * as ModelChunks from "./weights/ModelChunks.js"
export * as Safetensors from "./weights/Safetensors.js"
export * as TensorFlowIO from "./weights/TensorFlowIO.js"
export * as TransformersCache from "./weights/TransformersCache.js"
export * as StorageCache from "./wrappers/StorageCache.js"
export * as StorageCompression from "./wrappers/StorageCompression.js"
export * as StorageEncryption from "./wrappers/StorageEncryption.js"
export * as StorageFailover from "./wrappers/StorageFailover.js"
export * as StorageLimit from "./wrappers/StorageLimit.js"
export * as StorageMirror from "./wrappers/StorageMirror.js"
export * as StoragePrefix from "./wrappers/StoragePrefix.js"
export * as StorageReadOnly from "./wrappers/StorageReadOnly.js"
export * as StorageRetry from "./wrappers/StorageRetry.js"
export * as StorageTimeout from "./wrappers/StorageTimeout.js"
