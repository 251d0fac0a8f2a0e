/**
 * A server on loopback that knows as much of S3 as a storage needs to save with checksums and to hold what it loads to
 * them; the servers at hand know none. It has one bucket, in memory, asks for no credentials, computes checksums by
 * itself, and can be told to change bytes on their way in, on their way out, and where they lie.
 *
 * https://docs.aws.amazon.com/AmazonS3/latest/userguide/checking-object-integrity.html
 */
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import { createHash, randomUUID } from "node:crypto"
import * as http from "node:http"
import { buffer } from "node:stream/consumers"
import { listen } from "./loopback.js"

const algorithms = ["CRC32C", "CRC64NVME", "SHA256"] as const

export type Algorithm = (typeof algorithms)[number]

type ChecksumType = "FULL_OBJECT" | "COMPOSITE"

interface Checksum {
  readonly algorithm: Algorithm
  readonly type: ChecksumType
  /** As it stands in a header. */
  readonly value: string
}

interface StoredObject {
  readonly body: Buffer
  readonly etag: string
  readonly lastModified: Date
  /** What was given with it, to be given back with it. */
  readonly headers: Readonly<Record<string, string>>
  readonly checksum?: Checksum
  /** In bytes, where it came in parts. */
  readonly partSizes?: ReadonlyArray<number>
}

interface Part {
  readonly body: Buffer
  readonly etag: string
  /** As it stands in a header; of an upload that has checksums. */
  readonly checksum?: string
}

interface Upload {
  readonly key: string
  readonly headers: Readonly<Record<string, string>>
  readonly checksum?: Omit<Checksum, "value">
  readonly parts: Map<number, Part>
}

interface Request {
  readonly method: string
  /** As it was sent, percent-encoded and without the query. */
  readonly path: string
  /** There is none where the bucket itself is asked. */
  readonly key: string | undefined
  readonly query: URLSearchParams
  readonly headers: http.IncomingHttpHeaders
}

interface Answer {
  readonly status: number
  readonly headers?: Readonly<Record<string, string>>
  readonly body?: Buffer | string
}

type Match = (request: Request) => boolean

export interface ChecksumServer {
  readonly endpoint: string
  readonly bucket: string
  readonly objects: ReadonlyMap<string, StoredObject>
  /** The keys of the uploads that are neither completed nor aborted. */
  readonly uploads: () => ReadonlyArray<string>
  /** Every request so far. */
  readonly requests: ReadonlyArray<Request>
  /** Changes a bit of the body of each request that matches, or of each answer to one. */
  readonly damage: (direction: "in" | "out", match: Match) => void
  /** Damages nothing any more. */
  readonly mend: () => void
  /** Changes a bit of an object where it lies. */
  readonly rot: (key: string) => void
}

/** A checksum by bits shifted out to the right, begun with ones and inverted at the end, by a table for each byte. */
const crc = (size: 4 | 8, polynomial: bigint) => {
  const high = new Int32Array(256)
  const low = new Int32Array(256)
  for (let byte = 0; byte < 256; byte++) {
    let value = BigInt(byte)
    for (let bit = 0; bit < 8; bit++) value = (value >> 1n) ^ ((value & 1n) * polynomial)
    high[byte] = Number(BigInt.asIntN(32, value >> 32n))
    low[byte] = Number(BigInt.asIntN(32, value))
  }
  return (bytes: Uint8Array): Buffer => {
    let upper = size === 8 ? -1 : 0
    let lower = -1
    const { byteLength } = bytes
    for (let at = 0; at < byteLength; at++) {
      const index = (lower ^ (bytes[at] ?? 0)) & 0xff
      lower = ((lower >>> 8) | (upper << 24)) ^ (low[index] ?? 0)
      upper = (upper >>> 8) ^ (high[index] ?? 0)
    }
    const digest = Buffer.alloc(8)
    digest.writeInt32BE(~upper, 0)
    digest.writeInt32BE(~lower, 4)
    return digest.subarray(8 - size)
  }
}

/** The checksums, as bytes. */
export const digests: Readonly<Record<Algorithm, (bytes: Uint8Array) => Buffer>> = {
  CRC32C: crc(4, 0x82f6_3b78n),
  CRC64NVME: crc(8, 0x9a6c_9329_ac4b_c9b5n),
  SHA256: (bytes) => createHash("sha256").update(bytes).digest()
}

/** The checksum of an object, as it stands in a header; of one in parts, where the sizes of these are given. */
export const checksumOf = (
  algorithm: Algorithm,
  type: ChecksumType,
  body: Buffer,
  partSizes: ReadonlyArray<number> = []
): string => {
  if (type === "FULL_OBJECT") return digests[algorithm](body).toString("base64")
  let at = 0
  const ofParts = partSizes.map((size) => digests[algorithm](body.subarray(at, at += size)))
  return `${digests[algorithm](Buffer.concat(ofParts)).toString("base64")}-${partSizes.length}`
}

const headerOf = (algorithm: Algorithm) => `x-amz-checksum-${algorithm.toLowerCase()}`

/** Kept with an object as they were sent. */
const isKept = (name: string): boolean => name === "content-type" || name.startsWith("x-amz-meta-")

const smallestPart = 5 * 1024 * 1024

class Refusal extends Error {
  constructor(readonly status: number, readonly code: string, message: string) {
    super(message)
  }
}

/** A server for as long as the scope is open. */
export const make: Effect.Effect<ChecksumServer, never, Scope.Scope> = Effect.gen(function*() {
  const bucket = "weights"
  const objects = new Map<string, StoredObject>()
  const uploads = new Map<string, Upload>()
  const requests: Array<Request> = []
  let damages: ReadonlyArray<{ readonly direction: "in" | "out"; readonly match: Match }> = []

  const isDamaged = (direction: "in" | "out", request: Request) =>
    damages.some((damage) => damage.direction === direction && damage.match(request))

  const serve = async (incoming: http.IncomingMessage, response: http.ServerResponse) => {
    const url = new URL(incoming.url ?? "", "http://localhost")
    const [, name = "", ...segments] = url.pathname.split("/")
    const request: Request = {
      method: incoming.method ?? "",
      path: url.pathname,
      key: segments.length === 0 ? undefined : segments.map(decodeURIComponent).join("/"),
      query: url.searchParams,
      headers: incoming.headers
    }
    requests.push(request)
    const sent = await buffer(incoming)
    let answer: Answer
    try {
      if (name !== bucket) throw new Refusal(404, "NoSuchBucket", "The specified bucket does not exist")
      answer = handle(request, isDamaged("in", request) ? damaged(sent) : sent)
    } catch (error) {
      if (!(error instanceof Refusal)) throw error
      answer = { status: error.status, body: xml("Error", { Code: error.code, Message: error.message }) }
    }
    const body = Buffer.from(answer.body ?? "")
    response.writeHead(answer.status, { "content-length": body.byteLength, "x-amz-request-id": "1", ...answer.headers })
    response.end(request.method === "HEAD" ? undefined : isDamaged("out", request) ? damaged(body) : body)
  }

  const handle = (request: Request, body: Buffer): Answer => {
    const { key, method, query } = request
    if (key === undefined) return list(query)
    const uploadId = query.get("uploadId")
    const upload = uploadId === null ? undefined : uploads.get(uploadId)
    if (uploadId !== null && upload === undefined) {
      throw new Refusal(404, "NoSuchUpload", "The specified upload does not exist.")
    }
    switch (method) {
      case "GET":
      case "HEAD":
        return get(request, key)
      case "PUT":
        return upload === undefined ? put(request, key, body) : putPart(request, upload, body)
      case "POST":
        return uploadId === null || upload === undefined
          ? create(request, key)
          : complete(uploadId, upload, body.toString())
      case "DELETE":
        if (uploadId === null) objects.delete(key)
        else uploads.delete(uploadId)
        return { status: 204 }
      default:
        throw new Refusal(405, "MethodNotAllowed", "The specified method is not allowed against this resource.")
    }
  }

  const list = (query: URLSearchParams): Answer => {
    const keys = [...objects.keys()].filter((key) => key.startsWith(query.get("prefix") ?? "")).sort()
    const contents = keys.map((key) => {
      const object = find(key)
      return xml("Contents", {
        Key: encodeURIComponent(key),
        LastModified: object.lastModified.toISOString(),
        ETag: object.etag,
        Size: String(object.body.byteLength)
      })
    })
    return {
      status: 200,
      body: `<ListBucketResult><EncodingType>url</EncodingType>${contents.join("")}</ListBucketResult>`
    }
  }

  const find = (key: string): StoredObject => {
    const object = objects.get(key)
    if (object === undefined) throw new Refusal(404, "NoSuchKey", "The specified key does not exist.")
    return object
  }

  const get = ({ headers, query }: Request, key: string): Answer => {
    const { body, checksum, etag, headers: kept, lastModified, partSizes } = find(key)
    checkMatch(headers["if-match"], etag)
    const common = { ...kept, etag, "last-modified": lastModified.toUTCString(), "accept-ranges": "bytes" }
    const part = Number(query.get("partNumber") ?? 0)
    const asked = /^bytes=(\d*)-(\d*)$/.exec(headers.range ?? "")
    if (part > 0 || asked !== null) {
      const [start, end] = part > 0 ? extentOf(part, partSizes ?? [body.byteLength]) : rangeOf(asked, body.byteLength)
      return {
        status: 206,
        headers: {
          ...common,
          "content-length": String(end - start),
          "content-range": `bytes ${start}-${end - 1}/${body.byteLength}`,
          ...(part > 0 && partSizes !== undefined && { "x-amz-mp-parts-count": String(partSizes.length) })
        },
        body: body.subarray(start, end)
      }
    }
    const isAsked = checksum !== undefined && headers["x-amz-checksum-mode"] === "ENABLED"
    return { status: 200, headers: { ...common, ...(isAsked && headersOf(checksum)) }, body }
  }

  const put = (request: Request, key: string, body: Buffer): Answer => {
    const source = sourceOf(request)
    if (source !== undefined) return copy(request, key, source)
    const checksum = checked(request, body)
    const object = store(key, body, keptOf(request), checksum && { ...checksum, type: "FULL_OBJECT" })
    return { status: 200, headers: { etag: object.etag, ...(object.checksum && headersOf(object.checksum)) } }
  }

  const copy = (request: Request, key: string, source: StoredObject): Answer => {
    const { algorithm } = source.checksum ?? {}
    const object = store(
      key,
      source.body,
      { ...source.headers, ...keptOf(request) },
      algorithm && { algorithm, type: "FULL_OBJECT", value: checksumOf(algorithm, "FULL_OBJECT", source.body) }
    )
    const fields = { ETag: object.etag, LastModified: object.lastModified.toISOString() }
    return { status: 200, body: xml("CopyObjectResult", fields) }
  }

  const store = (
    key: string,
    body: Buffer,
    headers: StoredObject["headers"],
    checksum?: Checksum,
    partSizes?: ReadonlyArray<number>
  ): StoredObject => {
    const object = {
      body,
      etag: `"${md5(body)}${partSizes === undefined ? "" : `-${partSizes.length}`}"`,
      lastModified: new Date(),
      headers,
      ...(checksum !== undefined && { checksum }),
      ...(partSizes !== undefined && { partSizes })
    }
    objects.set(key, object)
    return object
  }

  const create = (request: Request, key: string): Answer => {
    const algorithm = algorithms.find((algorithm) => algorithm === request.headers["x-amz-checksum-algorithm"])
    const type = typeOf(algorithm, request.headers["x-amz-checksum-type"])
    const uploadId = randomUUID()
    uploads.set(uploadId, {
      key,
      headers: keptOf(request),
      ...(algorithm !== undefined && { checksum: { algorithm, type } }),
      parts: new Map()
    })
    return {
      status: 200,
      headers: algorithm === undefined ? {} : { "x-amz-checksum-algorithm": algorithm, "x-amz-checksum-type": type },
      body: xml("InitiateMultipartUploadResult", { UploadId: uploadId })
    }
  }

  const putPart = (request: Request, { checksum, parts }: Upload, sent: Buffer): Answer => {
    const source = sourceOf(request)
    const range = /^bytes=(\d*)-(\d*)$/.exec(String(request.headers["x-amz-copy-source-range"] ?? "bytes=0-"))
    const body = source === undefined ? sent : source.body.subarray(...rangeOf(range, source.body.byteLength))
    const given = source === undefined ? checked(request, body) : undefined
    if (
      given === undefined
        ? source === undefined && checksum?.type === "COMPOSITE"
        : given.algorithm !== checksum?.algorithm
    ) {
      throw new Refusal(
        400,
        "InvalidRequest",
        `Checksum Type mismatch occurred, expected checksum Type: ${checksum?.algorithm.toLowerCase() ?? "null"}, ` +
          `actual checksum Type: ${given?.algorithm.toLowerCase() ?? "null"}`
      )
    }
    const part = {
      body,
      etag: `"${md5(body)}"`,
      ...(checksum !== undefined && { checksum: digests[checksum.algorithm](body).toString("base64") })
    }
    parts.set(Number(request.query.get("partNumber")), part)
    if (source === undefined) return { status: 200, headers: { etag: part.etag, ...(given && headerWith(given)) } }
    const fields = { ETag: part.etag, LastModified: new Date().toISOString() }
    return {
      status: 200,
      body: xml("CopyPartResult", {
        ...fields,
        ...(checksum !== undefined && part.checksum !== undefined && { [elementOf(checksum)]: part.checksum })
      })
    }
  }

  const complete = (uploadId: string, { checksum, headers, key, parts }: Upload, list: string): Answer => {
    const listed = [...list.matchAll(/<Part>(.*?)<\/Part>/gs)].map(([, fields = ""], index) => {
      const number = Number(fieldOf(fields, "PartNumber"))
      const part = parts.get(number)
      const sum = checksum && fieldOf(fields, elementOf(checksum))
      if (number !== index + 1) {
        throw new Refusal(400, "InvalidPartOrder", "The list of parts was not in ascending order.")
      }
      if (checksum?.type === "COMPOSITE" && sum === undefined) {
        throw new Refusal(
          400,
          "InvalidRequest",
          `The upload was created using a ${checksum.algorithm.toLowerCase()} checksum. The complete request must ` +
            `include the checksum for each part. It was missing for part ${number} in the request.`
        )
      }
      if (
        part === undefined || part.etag !== fieldOf(fields, "ETag") || (sum !== undefined && sum !== part.checksum)
      ) {
        throw new Refusal(400, "InvalidPart", "One or more of the specified parts could not be found.")
      }
      return part
    })
    if (listed.slice(0, -1).some(({ body }) => body.byteLength < smallestPart)) {
      throw new Refusal(400, "EntityTooSmall", "Your proposed upload is smaller than the minimum allowed size")
    }
    const body = Buffer.concat(listed.map((part) => part.body))
    const partSizes = listed.map((part) => part.body.byteLength)
    const kept = checksum &&
      { ...checksum, value: checksumOf(checksum.algorithm, checksum.type, body, partSizes) }
    const object = store(key, body, headers, kept, partSizes)
    uploads.delete(uploadId)
    return {
      status: 200,
      body: xml("CompleteMultipartUploadResult", {
        Key: key,
        ETag: object.etag,
        ...(kept && { [elementOf(kept)]: kept.value, ChecksumType: kept.type })
      })
    }
  }

  /** What is to be copied. */
  const sourceOf = ({ headers }: Request): StoredObject | undefined => {
    const source = headers["x-amz-copy-source"]
    if (typeof source !== "string") return undefined
    const object = find(decodeURIComponent(source).replace(/^\/?[^/]*\//, ""))
    checkMatch(headers["x-amz-copy-source-if-match"], object.etag)
    return object
  }

  const server = http.createServer((incoming, response) => {
    serve(incoming, response).catch((error: unknown) => {
      response.destroy(error instanceof Error ? error : new Error(String(error)))
    })
  })
  const { endpoint } = yield* listen(server)

  return {
    endpoint,
    bucket,
    objects,
    uploads: () => [...uploads.values()].map(({ key }) => key),
    requests,
    damage: (direction, match) => {
      damages = [...damages, { direction, match }]
    },
    mend: () => {
      damages = []
    },
    rot: (key) => {
      const object = find(key)
      objects.set(key, { ...object, body: damaged(object.body) })
    }
  }
})

/** The checksum that came with a body, which it must have. */
const checked = ({ headers }: Request, body: Buffer): Omit<Checksum, "type"> | undefined => {
  const [given, ...others] = algorithms.flatMap((algorithm) => {
    const value = headers[headerOf(algorithm)]
    return typeof value === "string" ? [{ algorithm, value }] : []
  })
  if (given === undefined) return undefined
  if (others.length > 0) {
    throw new Refusal(400, "InvalidRequest", "Expecting a single x-amz-checksum- header.")
  }
  const { algorithm, value } = given
  const actual = digests[algorithm](body)
  const claimed = Buffer.from(value, "base64")
  if (claimed.byteLength !== actual.byteLength || claimed.toString("base64") !== value) {
    throw new Refusal(400, "InvalidRequest", `Value for ${headerOf(algorithm)} header is invalid.`)
  }
  if (!claimed.equals(actual)) {
    throw new Refusal(400, "BadDigest", `The ${algorithm} you specified did not match the calculated checksum.`)
  }
  return given
}

/** How the checksum of an object in parts is made, by default as Amazon does. */
const typeOf = (
  algorithm: Algorithm | undefined,
  asked: string | ReadonlyArray<string> | undefined
): ChecksumType => {
  const type = asked ?? (algorithm === "CRC64NVME" ? "FULL_OBJECT" : "COMPOSITE")
  if (type === "FULL_OBJECT" && algorithm !== "SHA256") return type
  if (type === "COMPOSITE" && algorithm !== "CRC64NVME") return type
  throw new Refusal(
    400,
    "InvalidRequest",
    `The ${String(type)} checksum type cannot be used with the ${algorithm ?? "null"} checksum algorithm.`
  )
}

const checkMatch = (asked: string | ReadonlyArray<string> | undefined, etag: string): void => {
  if (asked !== undefined && asked !== etag) {
    throw new Refusal(412, "PreconditionFailed", "At least one of the pre-conditions you specified did not hold")
  }
}

/** The bytes that a range names, and the one after them. */
const rangeOf = (asked: RegExpExecArray | null, size: number): readonly [start: number, end: number] => {
  const [, first = "", last = ""] = asked ?? []
  const start = first === "" ? Math.max(0, size - Number(last)) : Number(first)
  const end = first === "" || last === "" ? size : Math.min(Number(last) + 1, size)
  if (start >= end) throw new Refusal(416, "InvalidRange", "The requested range is not satisfiable")
  return [start, end]
}

const extentOf = (part: number, sizes: ReadonlyArray<number>): readonly [start: number, end: number] => {
  const size = sizes[part - 1]
  if (size === undefined) throw new Refusal(416, "InvalidPartNumber", "The requested partnumber is not satisfiable")
  const start = sizes.slice(0, part - 1).reduce((sum, size) => sum + size, 0)
  return [start, start + size]
}

const keptOf = ({ headers }: Request): Record<string, string> =>
  Object.fromEntries(
    Object.entries(headers).flatMap(([name, value]) => isKept(name) && typeof value === "string" ? [[name, value]] : [])
  )

const headerWith = ({ algorithm, value }: Omit<Checksum, "type">) => ({ [headerOf(algorithm)]: value })

const headersOf = (checksum: Checksum) => ({ ...headerWith(checksum), "x-amz-checksum-type": checksum.type })

const elementOf = ({ algorithm }: Pick<Checksum, "algorithm">) => `Checksum${algorithm}`

const fieldOf = (fields: string, name: string): string | undefined =>
  new RegExp(`<${name}>(.*?)</${name}>`, "s").exec(fields)?.[1]?.replaceAll(/&(?:quot|#34|#x22);/g, "\"")

const xml = (name: string, fields: Readonly<Record<string, string>>): string =>
  `<${name}>${
    Object.entries(fields).map(([field, text]) =>
      `<${field}>${text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll("\"", "&quot;")}</${field}>`
    ).join("")
  }</${name}>`

const md5 = (bytes: Uint8Array): string => createHash("md5").update(bytes).digest("hex")

/** A copy of which one bit is another. */
const damaged = (bytes: Buffer): Buffer => {
  const copy = Buffer.from(bytes)
  const middle = copy.byteLength >> 1
  if (copy.byteLength > 0) copy.writeUInt8(copy.readUInt8(middle) ^ 1, middle)
  return copy
}
