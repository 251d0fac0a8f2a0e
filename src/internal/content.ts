/**
 * Whether objects of different stores hold the same bytes, as far as their metadata shows it.
 */
import type { ObjectInfo } from "../StorageBackend.js"

/** `undefined` where the metadata does not show it. */
export const sameContent = (one: ObjectInfo, other: ObjectInfo): boolean | undefined => {
  if (one.size !== other.size) return false
  if (one.checksum !== undefined && one.checksum.algorithm === other.checksum?.algorithm) {
    return one.checksum.value === other.checksum.value
  }
  return one.etag === other.etag && isDigest(one.etag) ? true : undefined
}

/**
 * Whether an etag has the form of those that S3 computes of the bytes: their MD5, or for an object in parts the MD5 of its
 * parts' MD5s and their number. Other etags, for instance a counter, may be equal for different bytes.
 */
const isDigest = (etag: string): boolean => /^[0-9a-f]{32}(?:-\d+)?$/.test(etag)
