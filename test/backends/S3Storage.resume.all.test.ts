/**
 * Which unfinished uploads of a bucket a copy of a large object uses, and which it leaves. With killed processes:
 * `test/command/resume.all.test.ts`.
 */
import { CreateMultipartUploadCommand, HeadObjectCommand, UploadPartCommand } from "@aws-sdk/client-s3"
import { describe, expect, it } from "@effect/vitest"
import { Effect, Schedule, Stream } from "effect"
import { MemoryStorage, S3Storage, Storage, StorageBackend, StorageError, StorageMirror } from "surfing-weights"
import { bytes, MiB, print } from "../support/content.js"
import * as FaultProxy from "../support/faultProxy.js"
import { makeBucket, options, sdk, server, unfinishedUploads } from "../support/s3Bucket.js"

const key = "model.safetensors"
const content = bytes(70 * MiB)

const setup = Effect.gen(function*() {
  const bucket = yield* makeBucket
  const proxy = yield* FaultProxy.make(server.endpoint)
  const from = yield* MemoryStorage.make()
  yield* from.save(key, content, { attributes: { contentType: "application/x-weights" } })
  const to = yield* S3Storage.make({
    ...options,
    endpoint: proxy.endpoint,
    bucket,
    partSize: 8 * MiB,
    retry: Schedule.recurs(1)
  })
  const isPart = ({ method, query }: { readonly method: string; readonly query: URLSearchParams }) =>
    method === "PUT" && query.has("partNumber")
  return { bucket, from, isPart, proxy, sent: () => proxy.requests.filter(isPart).length, to }
})

const copy = (from: Storage.Service, to: Storage.Service) =>
  StorageMirror.copyObject({ storage: from, key }, { storage: to, key })

/** The same storage, whose streams fail at a position. */
const breaking = (storage: Storage.Service, at: number) =>
  Storage.make({
    ...storage.backend,
    open: (key, options) =>
      Effect.map(storage.backend.open(key, options), (opened) =>
        StorageBackend.mapStream(opened, (stream) =>
          Stream.suspend(() => {
            let left = at
            return Stream.mapEffect(stream, (chunk) =>
              (left -= chunk.byteLength) < 0
                // Until what was read is sent.
                ? Effect.delay(Effect.fail(new StorageError.StorageUnavailable({ reason: "cut" })), "1 second")
                : Effect.succeed(chunk))
          })))
  })

/** An upload that another program has begun, with these bytes as its first part. */
const begin = (Bucket: string, Body: Uint8Array) =>
  Effect.promise(async () => {
    const { UploadId } = await sdk.send(
      new CreateMultipartUploadCommand({ Bucket, Key: key, ContentType: "application/x-other" })
    )
    await sdk.send(new UploadPartCommand({ Bucket, Key: key, UploadId, PartNumber: 1, Body }))
  })

describe.skipIf(server.kind === "emulator")("a copy of a large object to a bucket", () => {
  it.scopedLive("is resumed where its source failed", () =>
    Effect.gen(function*() {
      const { bucket, from, sent, to } = yield* setup
      expect((yield* Effect.flip(copy(breaking(from, 42 * MiB), to)))._tag).toBe("StorageUnavailable")
      expect(yield* unfinishedUploads(bucket)).toEqual([key])
      const before = sent()
      expect(before).toBe(5)
      yield* copy(from, to)
      expect(sent() - before).toBe(4)
      expect(print(yield* to.load(key))).toBe(print(content))
      expect((yield* to.head(key)).attributes).toEqual({ contentType: "application/x-weights" })
      expect(yield* unfinishedUploads(bucket)).toEqual([])
    }))

  it.scopedLive("has its own attributes, also where another program had begun an upload of the same bytes", () =>
    Effect.gen(function*() {
      const { bucket, from, to } = yield* setup
      yield* begin(bucket, content.subarray(0, 8 * MiB))
      yield* copy(from, to)
      const { ContentType } = yield* Effect.promise(() => sdk.send(new HeadObjectCommand({ Bucket: bucket, Key: key })))
      expect(ContentType).toBe("application/x-weights")
      expect(print(yield* to.load(key))).toBe(print(content))
    }))

  it.scopedLive("uses no upload of other bytes, or of parts of another size, and leaves them", () =>
    Effect.gen(function*() {
      const { bucket, from, sent, to } = yield* setup
      yield* begin(bucket, bytes(8 * MiB, 1))
      yield* begin(bucket, content.subarray(0, 6 * MiB))
      yield* copy(from, to)
      expect(sent()).toBe(9)
      expect(print(yield* to.load(key))).toBe(print(content))
      expect(yield* unfinishedUploads(bucket)).toEqual([key, key])
    }))

  it.scopedLive("leaves its upload where the server is not available, and none where it refuses a part", () =>
    Effect.gen(function*() {
      const { bucket, from, isPart, proxy, to } = yield* setup
      const failing = (status: number, code: string) =>
        Effect.gen(function*() {
          const body = `<Error><Code>${code}</Code><Message>no</Message></Error>`
          const match = (request: Parameters<typeof isPart>[0]) =>
            isPart(request) && Number(request.query.get("partNumber")) > 6
          proxy.add({ match, times: 100, fault: FaultProxy.Fault.Answer({ status, body }) })
          const failure = yield* Effect.flip(copy(from, to))
          proxy.clear()
          return failure._tag
        })
      expect(yield* failing(403, "AccessDenied")).toBe("AccessDenied")
      expect(yield* unfinishedUploads(bucket)).toEqual([])
      expect(yield* failing(503, "SlowDown")).toBe("StorageUnavailable")
      expect(yield* unfinishedUploads(bucket)).toEqual([key])
    }))
})
