/**
 * Whether objects of different stores hold the same bytes, as far as that can be told without reading them.
 */
import type { ObjectInfo } from "../StorageBackend.js"

/** `undefined` where it cannot be told. */
export const sameContent = (one: ObjectInfo, other: ObjectInfo): boolean | undefined => {
  if (one.size !== other.size) return false
  if (one.checksum !== undefined && one.checksum.algorithm === other.checksum?.algorithm) {
    return one.checksum.value === other.checksum.value
  }
  return one.etag === other.etag && isDigest(one.etag) ? true : undefined
}

/**
 * Whether an etag is one that S3 computes of the bytes: their MD5, or of an object in parts that of the MD5s of its
 * parts, and their number. Other etags, a count for instance, may be equal for different bytes.
 */
const isDigest = (etag: string): boolean => /^[0-9a-f]{32}(?:-\d+)?$/.test(etag)
