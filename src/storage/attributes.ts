/**
 * The rules of object attributes, the same on every backend: they must fit into the headers of HTTP and of S3.
 */
import { encodeText } from "../internal/httpHeaders.js"
import type { Attributes } from "../StorageBackend.js"

/** The limit of S3 for metadata, in bytes as headers carry it. The other attributes have the same limit together. */
const maxBytes = 2048

const isField: Record<Exclude<keyof Attributes, "metadata">, true> = {
  contentType: true,
  cacheControl: true,
  contentDisposition: true,
  contentEncoding: true,
  contentLanguage: true
}

// A field value of HTTP (RFC 9110, section 5.5), in ASCII; it neither begins nor ends with white space.
const fieldValue = /^[\x21-\x7e](?:[\t\x20-\x7e]*[\x21-\x7e])?$/
const metadataName = /^[a-z0-9._-]+$/i
const notInMetadata = /\p{Cc}|\p{Cs}/u

/** What is wrong with attributes, or `undefined`. */
export const attributesProblem = ({ metadata = {}, ...fields }: Attributes): string | undefined =>
  fieldsProblem(setIn(fields)) ?? metadataProblem(Object.entries(metadata))

const fieldsProblem = (fields: ReadonlyArray<readonly [string, string]>): string | undefined => {
  for (const [name, value] of fields) {
    if (!Object.hasOwn(isField, name)) return `attributes.${name} is not an attribute; use attributes.metadata`
    if (!fieldValue.test(value)) {
      return `attributes.${name} must be printable ASCII without spaces at its ends (got ${JSON.stringify(value)})`
    }
  }
  return sizeProblem("attributes other than metadata", fields.map(([, value]) => value))
}

const metadataProblem = (metadata: ReadonlyArray<readonly [string, string]>): string | undefined => {
  const names = new Set<string>()
  for (const [name, value] of metadata) {
    if (!metadataName.test(name)) {
      return `a name in attributes.metadata must consist of letters, digits, ".", "_" and "-" (got ${
        JSON.stringify(name)
      })`
    }
    if (notInMetadata.test(value)) {
      return `attributes.metadata.${name} must not contain control characters or lone surrogates`
    }
    names.add(name.toLowerCase())
  }
  if (names.size < metadata.length) return "names in attributes.metadata must differ in more than case"
  return sizeProblem("attributes.metadata", metadata.flatMap(([name, value]) => [name, encodeText(value)]))
}

const sizeProblem = (what: string, texts: ReadonlyArray<string>): string | undefined => {
  const size = texts.reduce((sum, text) => sum + text.length, 0)
  return size <= maxBytes ? undefined : `${what} must not exceed 2 KiB in HTTP headers (got ${size} bytes)`
}

/** Attributes as backends keep them: only those that are set, and names of metadata in lower case. */
export const normalized = ({ metadata = {}, ...fields }: Attributes): Attributes => {
  const set = Object.entries(metadata)
  return {
    ...Object.fromEntries(setIn(fields)),
    ...(set.length > 0 && { metadata: Object.fromEntries(set.map(([name, value]) => [name.toLowerCase(), value])) })
  }
}

const setIn = (fields: Omit<Attributes, "metadata">): ReadonlyArray<readonly [string, string]> =>
  Object.entries(fields).filter((field): field is [string, string] => field[1] !== undefined)
