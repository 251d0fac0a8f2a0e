/**
 * How the second tier stores an object, or one block of it: as one object, so that it is there with its metadata or not at
 * all. It consists of the bytes, then the trailer: the origin, the metadata of the whole object, which block it is, and the
 * SHA-256 of the bytes as JSON, the SHA-256 of that JSON, and its length in four bytes, little-endian.
 *
 * Its name is the key with `+` after each folder and `-` after the last segment, since a file system has no place for `foo`
 * beside `foo/bar`; the name of a block has `=` and its index there. So no name is that of two.
 */
import * as Effect from "effect/Effect"
import * as Encoding from "effect/Encoding"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import * as Stream from "effect/Stream"
import { attributesSchema } from "../../internal/attributes.js"
import * as Hash from "../../internal/hash.js"
import * as ObjectKey from "../../ObjectKey.js"
import type { ObjectInfo } from "../../StorageBackend.js"

export const toName = (key: string): string => `${key.replaceAll("/", "+/")}-`

export const toBlockName = (key: string, index: number): string => `${key.replaceAll("/", "+/")}=${index}`

/** Whose name this is, and of which block, if it is one of this cache. */
export const parseName = (name: string): { readonly key: string; readonly index?: number } | undefined => {
  const [, path = "", digits] = /^(.*?)(?:-|=(0|[1-9]\d{0,15}))$/s.exec(name) ?? []
  const key = path.replaceAll("+/", "/")
  if (ObjectKey.problem(key) !== undefined) return undefined
  if (digits === undefined) return toName(key) === name ? { key } : undefined
  const index = Number(digits)
  return toBlockName(key, index) === name ? { key, index } : undefined
}

/** The longest trailer, in bytes. */
export const maxTrailer = 8 * 1024

const Description = Schema.parseJson(Schema.Struct({
  origin: Schema.String,
  sha256: Schema.String,
  block: Schema.optional(Schema.Struct({ index: Schema.Number, size: Schema.Number })),
  size: Schema.Number,
  lastModified: Schema.DateFromNumber,
  etag: Schema.String,
  checksum: Schema.optional(
    Schema.Struct({ algorithm: Schema.Literal("CRC32C", "SHA256", "CRC64NVME"), value: Schema.String })
  ),
  attributes: Schema.optional(attributesSchema)
}))

const hashSize = 32
const lengthSize = 4

/** Which block of an object. */
export interface Block {
  readonly index: number
  /** The size of every block but the last, in bytes. */
  readonly size: number
}

/** How many blocks an object has. An empty one has one that is empty. */
export const blocksOf = ({ size }: ObjectInfo, blockSize: number): number => Math.max(1, Math.ceil(size / blockSize))

/** The size of one of its blocks. */
export const blockLength = ({ size }: ObjectInfo, block: Block): number =>
  Math.min(block.size, size - block.index * block.size)

/** What a trailer says beside the metadata. */
interface Seal {
  /** Of which storage the object is. */
  readonly origin: string
  /** The SHA-256 of its bytes, in base64. */
  readonly sha256: string
  /** Where it is not the whole object. */
  readonly block?: Block | undefined
}

const describe = (info: ObjectInfo, seal: Seal): Uint8Array =>
  new TextEncoder().encode(Schema.encodeSync(Description)({ ...info, ...seal }))

export const trailerSize = (info: ObjectInfo, origin: string, block?: Block): number =>
  describe(info, { origin, block, sha256: Encoding.encodeBase64(new Uint8Array(hashSize)) }).byteLength + hashSize +
  lengthSize

const writeTrailer = (info: ObjectInfo, seal: Seal): Effect.Effect<Uint8Array> =>
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

/** The bytes of an object or block, and the trailer that is known once they have passed. */
export const withTrailer = (
  bytes: Stream.Stream<Uint8Array>,
  info: ObjectInfo,
  origin: string,
  block?: Block
): Stream.Stream<Uint8Array> =>
  Stream.unwrap(Effect.map(Hash.make("sha256"), (hash) => {
    const trailer = Effect.suspend(() =>
      writeTrailer(info, { origin, block, sha256: Encoding.encodeBase64(hash.digest()) })
    )
    return Stream.concat(Stream.tap(bytes, (piece) => Hash.update(hash, piece)), Stream.fromEffect(trailer))
  }))

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
      onSome: ({ block, origin, sha256, ...info }) => {
        const whole = { key, ...info }
        const expected = block === undefined ? info.size : blockLength(whole, block)
        return expected + length + hashSize + lengthSize === size ? { info: whole, origin, sha256, block } : undefined
      }
    })
  })
