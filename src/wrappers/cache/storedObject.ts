/**
 * How the second tier stores an object: as one object, so that it is there with its metadata or not at all. It consists of
 * the bytes, then the trailer: the origin's metadata as JSON, and the length of that in four bytes, little-endian.
 *
 * Its name is the key with `+` after each folder and `-` after the last segment, since a file system has no place for `foo`
 * beside `foo/bar`.
 */
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import * as ObjectKey from "../../ObjectKey.js"
import type { ObjectInfo } from "../../StorageBackend.js"

export const toName = (key: string): string => `${key.replaceAll("/", "+/")}-`

/** The key with this name, if there is one. */
export const toKey = (name: string): string | undefined => {
  const key = name.replaceAll("+/", "/").replace(/-$/, "")
  return toName(key) === name && ObjectKey.problem(key) === undefined ? key : undefined
}

/** The longest trailer, in bytes. */
export const maxTrailer = 8 * 1024

const text = Schema.optional(Schema.String)

const Trailer = Schema.parseJson(Schema.Struct({
  size: Schema.Number,
  lastModified: Schema.DateFromNumber,
  etag: Schema.String,
  checksum: Schema.optional(
    Schema.Struct({ algorithm: Schema.Literal("CRC32C", "SHA256", "CRC64NVME"), value: Schema.String })
  ),
  attributes: Schema.optional(Schema.Struct({
    contentType: text,
    cacheControl: text,
    contentDisposition: text,
    contentEncoding: text,
    contentLanguage: text,
    metadata: Schema.optional(Schema.Record({ key: Schema.String, value: Schema.String }))
  }))
}))

export const writeTrailer = (info: ObjectInfo): Uint8Array => {
  const json = new TextEncoder().encode(Schema.encodeSync(Trailer)(info))
  const trailer = new Uint8Array(json.byteLength + 4)
  trailer.set(json)
  new DataView(trailer.buffer).setUint32(json.byteLength, json.byteLength, true)
  return trailer
}

/** The metadata in the last bytes of a stored object of `size` bytes, or `undefined` where it is damaged. */
export const readTrailer = (key: string, end: Uint8Array, size: number): ObjectInfo | undefined => {
  if (end.byteLength < 4) return undefined
  const at = end.byteLength - 4
  const length = new DataView(end.buffer, end.byteOffset).getUint32(at, true)
  const json = new TextDecoder().decode(end.subarray(Math.max(0, at - length), at))
  return Option.match(Schema.decodeOption(Trailer)(json), {
    onNone: () => undefined,
    onSome: (info) => info.size + length + 4 === size ? { key, ...info } : undefined
  })
}
