/**
 * How the second tier stores an object: as one object, so that it is there with its metadata or not at all. It consists of
 * the bytes, then the trailer: the origin, the metadata and the SHA-256 of the bytes as JSON, the SHA-256 of that JSON, and its
 * length in four bytes, little-endian.
 *
 * Its name is the key with `+` after each folder and `-` after the last segment, since a file system has no place for `foo`
 * beside `foo/bar`.
 */
import * as Effect from "effect/Effect"
import * as Encoding from "effect/Encoding"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import * as Hash from "../../internal/hash.js"
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

const Description = Schema.parseJson(Schema.Struct({
  origin: Schema.String,
  sha256: Schema.String,
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

const hashSize = 32
const lengthSize = 4

/** What a trailer says beside the metadata. */
interface Seal {
  /** Of which storage the object is. */
  readonly origin: string
  /** The SHA-256 of its bytes, in base64. */
  readonly sha256: string
}

const describe = (info: ObjectInfo, seal: Seal): Uint8Array =>
  new TextEncoder().encode(Schema.encodeSync(Description)({ ...info, ...seal }))

export const trailerSize = (info: ObjectInfo, origin: string): number =>
  describe(info, { origin, sha256: Encoding.encodeBase64(new Uint8Array(hashSize)) }).byteLength + hashSize + lengthSize

export const writeTrailer = (info: ObjectInfo, seal: Seal): Effect.Effect<Uint8Array> =>
  Effect.map(Hash.make("sha256"), (hash) => {
    const description = describe(info, seal)
    hash.update(description)
    const { byteLength } = description
    const trailer = new Uint8Array(byteLength + hashSize + lengthSize)
    trailer.set(description)
    trailer.set(hash.digest(), byteLength)
    new DataView(trailer.buffer).setUint32(byteLength + hashSize, byteLength, true)
    return trailer
  })

/** The trailer in the last bytes of a stored object of `size` bytes, or `undefined` where it is damaged. */
export const readTrailer = (
  key: string,
  end: Uint8Array,
  size: number
): Effect.Effect<Seal & { readonly info: ObjectInfo } | undefined> =>
  Effect.map(Hash.make("sha256"), (hash) => {
    const last = end.byteLength - lengthSize
    const start = last - hashSize
    if (start < 0) return undefined
    const length = new DataView(end.buffer, end.byteOffset).getUint32(last, true)
    const description = end.subarray(Math.max(0, start - length), start)
    hash.update(description)
    if (!Hash.isEqual(end.subarray(start, last), hash.digest())) return undefined
    return Option.match(Schema.decodeOption(Description)(new TextDecoder().decode(description)), {
      onNone: () => undefined,
      onSome: ({ origin, sha256, ...info }) =>
        info.size + length + hashSize + lengthSize === size ? { info: { key, ...info }, origin, sha256 } : undefined
    })
  })
