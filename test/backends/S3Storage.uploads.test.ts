/**
 * What a bucket's owner asks of uploads: encryption, storage class, content type, cache control, tags. Read back with
 * the SDK where the server can do it; on the wire, by a proxy, where it cannot.
 */
import { GetObjectCommand, GetObjectTaggingCommand, HeadObjectCommand } from "@aws-sdk/client-s3"
import { describe, expect, it } from "@effect/vitest"
import { Chunk, Effect, Redacted, Schedule, Stream } from "effect"
import { createHash } from "node:crypto"
import { inspect } from "node:util"
import { ByteRange, S3Storage, type Storage, StorageError } from "surfing-weights"
import * as FaultProxy from "../support/faultProxy.js"
import { makeBucket, options, sdk, server, unfinishedUploads } from "../support/s3Bucket.js"

const { Answer, RewriteHeaders } = FaultProxy.Fault

const MiB = 1024 * 1024
const GiB = 1024 * MiB

/** A storage on a new bucket, and a proxy that notes what is asked of it. */
const setup = (extra: Partial<S3Storage.Options> = {}) =>
  Effect.gen(function*() {
    const bucket = yield* makeBucket
    const proxy = yield* FaultProxy.make(server.endpoint)
    const through = { ...options, endpoint: proxy.endpoint, bucket, partSize: 5 * MiB, retry: Schedule.recurs(1) }
    return { bucket, proxy, through, storage: yield* S3Storage.make({ ...through, ...extra }) }
  })

const bytes = (length: number) => Buffer.alloc(length, "some weights, over and over; ")

const pieces = (whole: Uint8Array) => [0, 2, 4].map((i) => whole.subarray(i * MiB, (i + 2) * MiB))

/** Each way in which a save comes to a bucket: in one request, and in parts. */
const saves = {
  "bytes.bin": (storage: Storage.Service) => storage.save("bytes.bin", bytes(1000)),
  "empty.bin": (storage: Storage.Service) => storage.save("empty.bin", new Uint8Array(0)),
  "parts.bin": (storage: Storage.Service) => storage.save("parts.bin", bytes(6 * MiB)),
  "stream.bin": (storage: Storage.Service) =>
    storage.save("stream.bin", Stream.rechunk(Stream.fromIterable(pieces(bytes(6 * MiB))), 1))
}

const saveAll = (storage: Storage.Service) =>
  Effect.forEach(Object.entries(saves), ([key, save]) => Effect.as(save(storage), key))

const headObject = (Bucket: string, Key: string) =>
  Effect.promise(() => sdk.send(new HeadObjectCommand({ Bucket, Key })))

type Seen = FaultProxy.FaultProxy["requests"][number]

/** What a request does, in the words of the S3 API. */
const nameOf = ({ headers, method, query }: Seen): string => {
  const upload = query.has("uploadId")
  switch (method) {
    case "POST":
      return query.has("uploads") ? "CreateMultipartUpload" : upload ? "CompleteMultipartUpload" : "DeleteObjects"
    case "PUT":
      return `${query.has("partNumber") ? "UploadPart" : "Put"}${"x-amz-copy-source" in headers ? "Copy" : ""}`
    default:
      return query.has("list-type") ? "List" : upload ? `${method} upload` : method
  }
}

/** The values of these headers on each kind of request, by its name; those without any are left out. */
const sent = (proxy: FaultProxy.FaultProxy, names: ReadonlyArray<string>) => {
  const found: Record<string, Array<Record<string, unknown>>> = {}
  for (const request of proxy.requests) {
    const values = Object.fromEntries(
      names.flatMap((name) => name in request.headers ? [[name, request.headers[name]]] : [])
    )
    const all = found[nameOf(request)] ??= []
    if (!all.some((other) => inspect(other) === inspect(values))) all.push(values)
  }
  return found
}

const atCreation = [
  "content-type",
  "cache-control",
  "x-amz-storage-class",
  "x-amz-tagging",
  "x-amz-server-side-encryption",
  "x-amz-server-side-encryption-aws-kms-key-id"
]

const customerKey = (name: string, key: Uint8Array) => ({
  [`${name}-algorithm`]: "AES256",
  [`${name}-key`]: Buffer.from(key).toString("base64"),
  [`${name}-key-md5`]: createHash("md5").update(key).digest("base64")
})
const forTheObject = "x-amz-server-side-encryption-customer"
const forTheSource = "x-amz-copy-source-server-side-encryption-customer"

/** Answers every request by which something is saved or copied, in one request or in parts, as if it were done. */
const pretend = (proxy: FaultProxy.FaultProxy) => {
  const done = (name: string, body: string, headers = {}) =>
    proxy.add({
      match: ({ headers, method, path, query }) =>
        nameOf({ headers, method, path, query, status: undefined, fault: undefined }) === name,
      times: 100,
      fault: Answer({ status: 200, body, headers: { etag: "\"an-etag\"", ...headers } })
    })
  done("Put", "")
  done("PutCopy", "<CopyObjectResult><ETag>\"an-etag\"</ETag></CopyObjectResult>")
  done("CreateMultipartUpload", "<R><UploadId>an-upload</UploadId></R>")
  done("UploadPart", "")
  done("UploadPartCopy", "<CopyPartResult><ETag>\"a-part\"</ETag></CopyPartResult>")
  done(
    "CompleteMultipartUpload",
    "<CompleteMultipartUploadResult><ETag>\"an-etag\"</ETag></CompleteMultipartUploadResult>"
  )
}

describe("content type, cache control and tags", () => {
  const tags = { team: "ml", "a tag": "a value: x+y=z @ -_./", empty: "" }
  const asked = {
    contentType: "application/vnd.weights; v=\"1\"",
    cacheControl: "max-age=60, immutable",
    tagging: tags
  }

  it.scopedLive.skipIf(server.kind === "emulator")(
    "are set on every object, saved in one request or in parts",
    () =>
      Effect.gen(function*() {
        const { bucket, storage } = yield* setup(asked)
        for (const key of yield* saveAll(storage)) {
          const { CacheControl, ContentType } = yield* headObject(bucket, key)
          expect({ CacheControl, ContentType }, key).toEqual({
            CacheControl: asked.cacheControl,
            ContentType: asked.contentType
          })
        }
      })
  )

  it.scopedLive.skipIf(server.kind === "emulator")(
    "are read back as tags, with any characters",
    () =>
      Effect.gen(function*() {
        const { bucket, proxy, storage } = yield* setup(asked)
        yield* saveAll(storage)
        // Ceph 16 keeps none of what comes in parts, whoever sends it.
        const kept = server.kind === "radosgw" ? ["bytes.bin", "empty.bin"] : Object.keys(saves)
        for (const Key of kept) {
          const { TagSet = [] } = yield* Effect.promise(() =>
            sdk.send(new GetObjectTaggingCommand({ Bucket: bucket, Key }))
          )
          expect(Object.fromEntries(TagSet.map(({ Key, Value }) => [Key, Value])), Key).toEqual(tags)
        }
        const seen = sent(proxy, ["x-amz-tagging"])
        expect(seen["Put"]).toHaveLength(1)
        expect(seen["CreateMultipartUpload"]).toEqual(seen["Put"])
      })
  )

  it.scopedLive.skipIf(server.kind === "emulator")(
    "stay with an object that is copied or moved",
    () =>
      Effect.gen(function*() {
        const { bucket, storage } = yield* setup(asked)
        yield* saves["bytes.bin"](storage)
        yield* storage.copy("bytes.bin", "copied.bin")
        yield* storage.copy("bytes.bin", "copied if new.bin", { ifNoneMatch: "*" })
        yield* storage.move("bytes.bin", "moved.bin")
        for (const key of ["copied.bin", "copied if new.bin", "moved.bin"]) {
          const { CacheControl, ContentType } = yield* headObject(bucket, key)
          expect({ CacheControl, ContentType }, key).toEqual({
            CacheControl: asked.cacheControl,
            ContentType: asked.contentType
          })
        }
      })
  )

  it.scopedLive("are not sent if they are not set", () =>
    Effect.gen(function*() {
      const { proxy, storage } = yield* setup()
      yield* saveAll(storage)
      yield* storage.load("parts.bin")
      const seen = sent(proxy, [
        ...atCreation.filter((name) => name !== "content-type"),
        ...Object.keys(customerKey(forTheObject, bytes(32)))
      ])
      expect(Object.keys(seen)).toEqual(expect.arrayContaining(["Put", "CreateMultipartUpload", "UploadPart", "GET"]))
      for (const values of Object.values(seen)) expect(values).toEqual([{}])
    }))

  it.scopedLive("that a header cannot contain fail with InvalidOptions before anything is sent", () =>
    Effect.gen(function*() {
      const { proxy, through } = yield* setup()
      const before = proxy.requests.length
      const wrong: ReadonlyArray<Partial<S3Storage.Options>> = [
        { contentType: "text/plain\nx: y" },
        { contentType: "text/größe" },
        { contentType: "text/😀" },
        { cacheControl: "no\u0000" },
        { storageClass: "COLD\r\n" },
        { serverSideEncryption: { type: "SSE-KMS", keyId: "schlüssel" } }
      ]
      for (const extra of wrong) {
        const failure = yield* Effect.flip(
          Effect.flatMap(S3Storage.make({ ...through, ...extra }), (storage) => saves["bytes.bin"](storage))
        )
        expect(failure, inspect(extra)).toMatchObject({ _tag: "InvalidOptions", option: Object.keys(extra)[0] })
      }
      expect(proxy.requests.slice(before).filter(({ method }) => method === "PUT")).toEqual([])
    }))
})

describe("the storage class", () => {
  it.scopedLive("is sent when an object is created, and only then", () =>
    Effect.gen(function*() {
      const { proxy, storage } = yield* setup({ storageClass: "STANDARD_IA" })
      pretend(proxy)
      yield* saveAll(storage)
      const { CreateMultipartUpload, Put, ...others } = sent(proxy, ["x-amz-storage-class"])
      const named = [{ "x-amz-storage-class": "STANDARD_IA" }]
      expect({ CreateMultipartUpload, Put }).toEqual({ CreateMultipartUpload: named, Put: named })
      expect(Object.keys(others)).toEqual(expect.arrayContaining(["UploadPart", "CompleteMultipartUpload"]))
      for (const values of Object.values(others)) expect(values).toEqual([{}])
    }))

  it.scopedLive("is also set on copies", () =>
    Effect.gen(function*() {
      const { proxy, storage, through } = yield* setup({ storageClass: "STANDARD_IA" })
      const plain = yield* S3Storage.make(through)
      yield* saves["bytes.bin"](plain)
      pretend(proxy)
      yield* storage.copy("bytes.bin", "copied.bin")
      expect(sent(proxy, ["x-amz-storage-class"])["PutCopy"]).toEqual([{ "x-amz-storage-class": "STANDARD_IA" }])
    }))

  it.scopedLive.skipIf(server.kind === "emulator")("that the server supports is used", () =>
    Effect.gen(function*() {
      const { bucket, storage } = yield* setup({ storageClass: "STANDARD" })
      for (const key of yield* saveAll(storage)) {
        // It is not told of the usual one.
        expect((yield* headObject(bucket, key)).StorageClass ?? "STANDARD").toBe("STANDARD")
      }
    }))

  it.scopedLive.skipIf(server.kind !== "radosgw")(
    "that the server does not support fails, and leaves nothing behind",
    () =>
      Effect.gen(function*() {
        const { bucket, storage } = yield* setup({ storageClass: "NO_SUCH_CLASS" })
        for (const save of Object.values(saves)) {
          const failure = yield* Effect.flip(save(storage))
          expect(StorageError.isRetryable(failure)).toBe(false)
          expect(failure.message).toMatch(/HTTP 400, request /)
        }
        expect(yield* storage.list()).toEqual([])
        expect(yield* unfinishedUploads(bucket)).toEqual([])
      })
  )
})

describe("encryption with the server's keys", () => {
  it.scopedLive("is requested when an object is created", () =>
    Effect.gen(function*() {
      const cases = [
        [{ type: "SSE-S3" }, { "x-amz-server-side-encryption": "AES256" }],
        [{ type: "SSE-KMS" }, { "x-amz-server-side-encryption": "aws:kms" }],
        [{ type: "SSE-KMS", keyId: "the-key" }, {
          "x-amz-server-side-encryption": "aws:kms",
          "x-amz-server-side-encryption-aws-kms-key-id": "the-key"
        }]
      ] as const
      for (const [serverSideEncryption, headers] of cases) {
        const { proxy, storage, through } = yield* setup({ serverSideEncryption })
        yield* saves["bytes.bin"](yield* S3Storage.make(through))
        const before = proxy.requests.length
        pretend(proxy)
        yield* saveAll(storage)
        yield* storage.copy("bytes.bin", "copied.bin")
        // S3 refuses these headers on a GET.
        yield* storage.load("bytes.bin")
        const requests = proxy.requests.slice(before)
        const { CreateMultipartUpload, Put, PutCopy, ...others } = sent({ ...proxy, requests }, atCreation.slice(-2))
        expect([CreateMultipartUpload, Put, PutCopy]).toEqual([[headers], [headers], [headers]])
        expect(Object.keys(others)).toEqual(expect.arrayContaining(["UploadPart", "CompleteMultipartUpload", "GET"]))
        for (const values of Object.values(others)) expect(values).toEqual([{}])
      }
    }))

  it.scopedLive.skipIf(server.kind !== "radosgw")(
    "with a key that the server does not have fails, and leaves nothing behind",
    () =>
      Effect.gen(function*() {
        const { bucket, storage } = yield* setup({ serverSideEncryption: { type: "SSE-KMS", keyId: "no-such-key" } })
        for (const save of Object.values(saves)) {
          const failure = yield* Effect.flip(save(storage))
          expect(StorageError.isRetryable(failure)).toBe(false)
        }
        expect(yield* storage.list()).toEqual([])
        expect(yield* unfinishedUploads(bucket)).toEqual([])
      })
  )
})

describe("encryption with the customer's key", () => {
  const key = createHash("sha256").update("the customer's key").digest()
  const other = createHash("sha256").update("another key").digest()
  const withKey = (key: Uint8Array): Partial<S3Storage.Options> => ({
    serverSideEncryption: { type: "SSE-C", key: Redacted.make(key) }
  })
  const ofTheObject = customerKey(forTheObject, key)
  const ofTheSource = customerKey(forTheSource, key)
  const names = [...Object.keys(ofTheObject), ...Object.keys(ofTheSource)]

  it.scopedLive("is sent with every request that reads or writes bytes, and with no other", () =>
    Effect.gen(function*() {
      const { proxy, storage, through } = yield* setup(withKey(key))
      yield* saves["bytes.bin"](yield* S3Storage.make(through))
      const before = proxy.requests.length
      pretend(proxy)
      yield* saveAll(storage)
      yield* storage.copy("bytes.bin", "copied.bin")
      yield* Effect.exit(storage.load("bytes.bin"))
      yield* Effect.exit(Stream.runDrain(storage.stream("bytes.bin")))
      yield* Effect.exit(storage.head("bytes.bin"))
      yield* storage.list()
      yield* storage.remove("bytes.bin")
      expect(sent({ ...proxy, requests: proxy.requests.slice(before) }, names)).toEqual({
        Put: [ofTheObject],
        CreateMultipartUpload: [ofTheObject],
        UploadPart: [ofTheObject],
        CompleteMultipartUpload: [ofTheObject],
        PutCopy: [{ ...ofTheObject, ...ofTheSource }],
        GET: [ofTheObject],
        HEAD: [ofTheObject],
        List: [{}],
        DELETE: [{}]
      })
    }))

  it.scopedLive("is sent with every part of a copy that is too large for one request", () =>
    Effect.gen(function*() {
      const { proxy, storage, through } = yield* setup({
        ...withKey(key),
        storageClass: "STANDARD_IA",
        cacheControl: "no-cache"
      })
      yield* saves["bytes.bin"](yield* S3Storage.make({ ...through, contentType: "application/weights" }))
      const before = proxy.requests.length
      proxy.add({
        match: ({ method }) => method === "HEAD",
        times: 10,
        fault: RewriteHeaders({ headers: { "content-length": `${6 * GiB}` } })
      })
      pretend(proxy)
      yield* storage.copy("bytes.bin", "copied.bin")
      const requests = proxy.requests.slice(before)
      const seen = sent({ ...proxy, requests }, names)
      expect(seen["CreateMultipartUpload"]).toEqual([ofTheObject])
      expect(seen["UploadPartCopy"]).toEqual([{ ...ofTheObject, ...ofTheSource }])
      expect(seen["CompleteMultipartUpload"]).toEqual([ofTheObject])
      expect(sent({ ...proxy, requests }, atCreation)["CreateMultipartUpload"]).toEqual([{
        "content-type": "application/weights",
        "x-amz-storage-class": "STANDARD_IA"
      }])
      const ranges = requests.flatMap(({ headers }) => headers["x-amz-copy-source-range"] ?? []).toSorted()
      expect(ranges).toHaveLength(12)
      expect(ranges[0]).toBe(`bytes=0-${512 * MiB - 1}`)
      expect(ranges).toContain(`bytes=${5.5 * GiB}-${6 * GiB - 1}`)
    }))

  describe.skipIf(server.kind !== "radosgw")("on a server that encrypts", () => {
    it.scopedLive("returns what was saved, however it is read", () =>
      Effect.gen(function*() {
        const { bucket, storage } = yield* setup(withKey(key))
        yield* saveAll(storage)
        const whole = bytes(6 * MiB)
        const range = ByteRange.make(5 * MiB - 5, 5 * MiB + 5)
        for (const name of ["parts.bin", "stream.bin"]) {
          expect((yield* storage.head(name)).size).toBe(whole.length)
          const loaded = yield* storage.load(name)
          const streamed = yield* gather(storage.stream(name))
          const middle = yield* storage.load(name, { range })
          // `toEqual` takes seconds for as many bytes.
          for (const read of [loaded, streamed]) expect(whole.equals(read), name).toBe(true)
          expect(whole.subarray(5 * MiB - 5, 5 * MiB + 5).equals(middle), name).toBe(true)
        }
        expect(yield* storage.load("bytes.bin", { range: ByteRange.last(7) })).toEqual(
          new Uint8Array(bytes(1000).subarray(-7))
        )
        expect(yield* storage.load("empty.bin")).toEqual(new Uint8Array(0))
        // The server really asks for the key.
        const bare = sdk.send(new GetObjectCommand({ Bucket: bucket, Key: "bytes.bin" }))
        expect(yield* Effect.promise(() => bare.then(() => "came", () => "refused"))).toBe("refused")
      }))

    it.scopedLive("saves conditionally", () =>
      Effect.gen(function*() {
        const { storage } = yield* setup(withKey(key))
        const { etag } = yield* storage.save("a key", bytes(10), { ifNoneMatch: "*" })
        const again = yield* Effect.flip(storage.save("a key", bytes(11), { ifNoneMatch: "*" }))
        expect(again).toBeInstanceOf(StorageError.ObjectAlreadyExists)
        yield* storage.save("a key", bytes(6 * MiB), { ifMatch: etag })
        expect((yield* storage.head("a key")).size).toBe(6 * MiB)
      }))

    it.scopedLive("denies access without the key, and never shows it", () =>
      Effect.gen(function*() {
        const { storage, through } = yield* setup(withKey(key))
        yield* saves["bytes.bin"](storage)
        for (const extra of [{}, withKey(other)]) {
          const stranger = yield* S3Storage.make({ ...through, ...extra })
          for (
            const use of [stranger.load("bytes.bin"), gather(stranger.stream("bytes.bin")), stranger.head("bytes.bin")]
          ) {
            const failure = yield* Effect.flip(Effect.asVoid<unknown, StorageError.StorageError, never>(use))
            expect(StorageError.isRetryable(failure)).toBe(false)
            const text = inspect(failure, { depth: 10 })
            for (const secret of [key, other]) expect(text).not.toContain(secret.toString("base64"))
          }
        }
      }))

    it.scopedLive("copies, or fails with the reason if the server cannot", () =>
      Effect.gen(function*() {
        const { bucket, storage } = yield* setup(withKey(key))
        yield* saves["bytes.bin"](storage)
        const copied = yield* Effect.either(storage.copy("bytes.bin", "copied.bin"))
        if (copied._tag === "Right") {
          expect(bytes(1000).equals(yield* storage.load("copied.bin"))).toBe(true)
        } else {
          expect(copied.left).toBeInstanceOf(StorageError.UnsupportedOperation)
          expect(yield* storage.list()).toEqual(["bytes.bin"])
        }
        expect(yield* unfinishedUploads(bucket)).toEqual([])
      }))
  })

  it.scopedLive("must have 32 bytes, or the storage is not built", () =>
    Effect.gen(function*() {
      const { through } = yield* setup()
      const short = Redacted.make(key.subarray(0, 31))
      const making = S3Storage.make({ ...through, serverSideEncryption: { type: "SSE-C", key: short } })
      const failure = yield* Effect.flip(Effect.asVoid(making))
      expect(failure).toMatchObject({ _tag: "InvalidOptions", option: "serverSideEncryption" })
      expect(failure.message).toContain("32 bytes")
    }))
})

const gather = <E, R>(stream: Stream.Stream<Uint8Array, E, R>) =>
  Effect.map(Stream.runCollect(stream), (parts) => new Uint8Array(Buffer.concat(Chunk.toArray(parts))))
