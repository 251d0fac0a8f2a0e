/**
 * The rules of object attributes, the same on every backend: they have to fit into HTTP headers.
 */
import * as ObjectKey from "../ObjectKey.js"
import type { Attributes } from "../StorageBackend.js"

/** Names and values of an object's metadata, together, in bytes of UTF-8: the limit of S3. */
const maxMetadata = 2048

// A field value of HTTP (RFC 9110, section 5.5), in ASCII; it neither begins nor ends with white space.
const fieldValue = /^[\x21-\x7e](?:[\t\x20-\x7e]*[\x21-\x7e])?$/
const metadataName = /^[a-z0-9._-]+$/i

/** What is wrong with attributes, or `undefined`. */
export const attributesProblem = ({ metadata = {}, ...fields }: Attributes): string | undefined => {
  for (const [name, value] of Object.entries(fields)) {
    if (value !== undefined && !fieldValue.test(value)) {
      return `attributes.${name} must be printable ASCII without spaces at its ends (got ${JSON.stringify(value)})`
    }
  }
  const names = Object.keys(metadata)
  for (const name of names) {
    if (!metadataName.test(name)) {
      return `a name in attributes.metadata must consist of letters, digits, ".", "_" and "-" (got ${
        JSON.stringify(name)
      })`
    }
    if (/\p{Cc}|\p{Cs}/u.test(metadata[name] ?? "")) {
      return `attributes.metadata.${name} must not hold control characters or lone surrogates`
    }
  }
  if (new Set(names.map((name) => name.toLowerCase())).size < names.length) {
    return "two names in attributes.metadata differ only in case"
  }
  const size = Object.entries(metadata).reduce(
    (sum, [name, value]) => sum + ObjectKey.byteLength(name) + ObjectKey.byteLength(value),
    0
  )
  return size <= maxMetadata ? undefined : `attributes.metadata must not exceed 2 KiB (got ${size} bytes)`
}

/** Attributes as backends keep them: without what is undefined, metadata under names in lower case. */
export const normalized = ({ metadata, ...fields }: Attributes): Attributes => ({
  ...Object.fromEntries(Object.entries(fields).filter(([, value]) => value !== undefined)),
  ...(metadata !== undefined && Object.keys(metadata).length > 0 && {
    metadata: Object.fromEntries(Object.entries(metadata).map(([name, value]) => [name.toLowerCase(), value]))
  })
})
