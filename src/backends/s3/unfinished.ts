/**
 * The unfinished uploads that earlier saves have left. One can be used if its parts, from the first to the first that is missing,
 * have the bytes that a save would send: their MD5 shows it, which S3 has as the etag of a part. Where the etags are others, as with
 * SSE-KMS, none can.
 */
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Stream from "effect/Stream"
import * as Hash from "../../internal/hash.js"
import { retry } from "../../internal/retry.js"
import type { ResumableData } from "../../StorageBackend.js"
import { toEtag, toListedKey } from "./dialect.js"
import type { SentPart } from "./multipart.js"
import { PartReader, sizeOfPart, type UploadParts } from "./parts.js"
import type { Request } from "./request.js"
import { failureOf } from "./responses.js"
import type { Saving, Target } from "./target.js"
import * as xml from "./xml.js"

/** An upload, and the first parts of the object that it has. */
export interface Unfinished {
  readonly id: string
  readonly parts: ReadonlyArray<SentPart>
}

/** How many uploads of the key are looked at: more than one is rare. */
const maxUploads = 4

/** The newest unfinished upload that has the beginning of the object, if there is one and the server lists it. */
export const findUnfinished = (
  saving: Saving,
  uploadParts: UploadParts,
  { key }: Target,
  data: ResumableData
): Effect.Effect<Unfinished | undefined> =>
  Effect.gen(function*() {
    for (const id of yield* listUploads(saving, key)) {
      const run = yield* listRun(saving, uploadParts, key, id, data.size)
      const parts = yield* matching(uploadParts, run, data)
      if (parts.length > 0) return { id, parts }
    }
    return undefined
  }).pipe(
    // What cannot be found out is sent again.
    Effect.orElseSucceed(() => undefined)
  )

const ask = ({ bucket, policy }: Saving, request: Omit<Request, "method">) =>
  retry(
    Effect.catchTag(
      bucket.ask({ method: "GET", ...request }),
      "ErrorResponse",
      (error) => Effect.fail(failureOf(error, bucket.name))
    ),
    policy
  )

/** The ids of the unfinished uploads of a key, the newest first. */
const listUploads = (saving: Saving, key: string) =>
  Effect.map(
    ask(saving, {
      query: { uploads: "", prefix: key, "encoding-type": "url" },
      response: { root: "ListMultipartUploadsResult" }
    }),
    ({ text }) => {
      const encoding = xml.text(text, "EncodingType")
      return xml.elements(text, "Upload")
        .map((upload) => ({
          key: toListedKey(xml.text(upload, "Key") ?? "", encoding),
          id: xml.text(upload, "UploadId") ?? "",
          initiated: Date.parse(xml.text(upload, "Initiated") ?? "")
        }))
        .filter((upload) => upload.key === key && upload.id !== "" && !Number.isNaN(upload.initiated))
        .sort((one, other) => other.initiated - one.initiated)
        .slice(0, maxUploads)
        .map(({ id }) => id)
    }
  )

interface ListedPart {
  readonly number: number
  readonly size: number
  /** As the server has it. */
  readonly etag: string
}

/** The parts of an upload from the first to the first gap; none where one of its parts is not as this save would cut it. */
const listRun = (saving: Saving, uploadParts: UploadParts, key: string, uploadId: string, size: number) =>
  Effect.gen(function*() {
    const partSize = sizeOfPart(uploadParts, 1, size)
    const parts: Array<ListedPart> = []
    let marker = 0
    do {
      const { text }: { readonly text: string } = yield* ask(saving, {
        key,
        query: { uploadId, ...(marker > 0 && { "part-number-marker": String(marker) }) },
        response: { root: "ListPartsResult" }
      })
      parts.push(...xml.elements(text, "Part").map(toPart))
      const last = parts.at(-1)?.number ?? 0
      // It must grow, so that the pages have an end.
      marker = xml.text(text, "IsTruncated") === "true" && last > marker ? last : 0
    } while (marker > 0)
    const isAsCut = ({ number, size: actual }: ListedPart) =>
      actual > 0 && actual === Math.min(partSize, size - (number - 1) * partSize)
    const gap = parts.findIndex(({ number }, index) => number !== index + 1)
    return parts.every(isAsCut) ? parts.slice(0, gap === -1 ? undefined : gap) : []
  })

const toPart = (part: string): ListedPart => ({
  number: Number(xml.text(part, "PartNumber")),
  size: Number(xml.text(part, "Size")),
  etag: xml.text(part, "ETag") ?? ""
})

/** The parts as a save would have sent them, or none where one of them has not the bytes of the source. */
const matching = (
  uploadParts: UploadParts,
  run: ReadonlyArray<ListedPart>,
  { read, size }: ResumableData
) =>
  Effect.scoped(Effect.gen(function*() {
    const parts: Array<SentPart> = []
    if (run.length === 0) return parts
    const partSize = sizeOfPart(uploadParts, 1, size)
    const source = read({ start: 0, endExclusive: Math.min(run.length * partSize, size) })
    const reader = new PartReader(yield* Stream.toPull(source), 1, () => partSize)
    for (const { etag, number } of run) {
      const next = yield* Effect.option(reader.next)
      if (Option.isNone(next)) return []
      const { bytes, release } = next.value
      if (toEtag(etag) !== (yield* md5Of(bytes))) return []
      parts.push({ number, etag, checksum: undefined })
      yield* release
    }
    return parts
  }))

const md5Of = (bytes: Uint8Array) =>
  Effect.gen(function*() {
    // FIPS forbids MD5.
    const hash = yield* Effect.try(yield* Hash.load("md5"))
    yield* Hash.update(hash, bytes)
    return Hash.hexDigest(hash)
  })
