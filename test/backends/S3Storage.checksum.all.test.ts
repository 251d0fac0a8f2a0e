/**
 * Checksums from end to end, on a server that knows them and computes them in ways of its own.
 */
import {
  CompleteMultipartUploadCommand,
  CreateMultipartUploadCommand,
  PutObjectCommand,
  UploadPartCommand
} from "@aws-sdk/client-s3"
import { describe, expect, it } from "@effect/vitest"
import { Effect, Exit, Redacted, Stream } from "effect"
import { ByteRange, S3Storage, type Storage, type StorageError } from "surfing-weights"
import * as Checksums from "../../src/backends/s3/checksums.js"
import * as ChecksumServer from "../support/checksumServer.js"
import { bytes, gather, MiB, print } from "../support/content.js"
import * as FaultProxy from "../support/faultProxy.js"
import { makeBucket, options as realOptions, server as realServer, unfinishedUploads } from "../support/s3Bucket.js"
import { Fault, is, isPart, partSize } from "../support/s3Faults.js"
import { makeSaver } from "../support/s3Saver.js"
import { client } from "../support/s3Server.js"
import { quick } from "../support/timing.js"

const { checksumOf, digests } = ChecksumServer

const algorithms = ["CRC32C", "CRC64NVME", "SHA256"] as const

/** A storage on the server, or on what stands in front of it. */
const make = (
  { bucket }: ChecksumServer.ChecksumServer,
  endpoint: string,
  options: Omit<S3Storage.Options, "bucket"> = {}
) =>
  S3Storage.make({
    bucket,
    endpoint,
    region: "us-east-1",
    credentials: { accessKeyId: "anybody", secretAccessKey: Redacted.make("anything") },
    partSize,
    retry: quick,
    idleTimeout: "10 seconds",
    ...options
  })

/** The SDK's client for the server, which is not to add checksums by itself. */
const sdkFor = ({ endpoint }: ChecksumServer.ChecksumServer) =>
  client({ kind: "given", endpoint, region: "us-east-1", accessKeyId: "anybody", secretAccessKey: "anything" })

/** In pieces that fit no part. */
const inPieces = (whole: Uint8Array): Stream.Stream<Uint8Array> =>
  Stream.fromIterable(
    Array.from({ length: Math.ceil(whole.byteLength / 700_001) }, (_, i) =>
      whole.subarray(i * 700_001, (i + 1) * 700_001))
  )

const small = bytes(100_000)
const large = bytes(2 * partSize + 1000, 1)
const largePrint = print(large)
const empty = new Uint8Array(0)

const saves = [
  { name: "bytes in one request", content: small, data: small },
  { name: "a stream in one request", content: small, data: inPieces(small) },
  { name: "bytes in parts", content: large, data: large, partSizes: [partSize, partSize, 1000] },
  { name: "a stream in parts", content: large, data: inPieces(large), partSizes: [partSize, partSize, 1000] },
  { name: "no bytes at all", content: empty, data: empty },
  { name: "a stream of nothing", content: empty, data: Stream.empty }
] satisfies ReadonlyArray<{
  readonly name: string
  readonly content: Uint8Array
  readonly data: Parameters<Storage.Service["save"]>[1]
  readonly partSizes?: ReadonlyArray<number>
}>

/** Ways to read an object whole. */
const reads: ReadonlyArray<{
  readonly name: string
  readonly options?: Omit<S3Storage.Options, "bucket">
  readonly read: (storage: Storage.Service, key: string) => Effect.Effect<Uint8Array, StorageError.LoadError>
}> = [
  { name: "load", read: (storage, key) => storage.load(key) },
  { name: "stream on one connection", read: (storage, key) => gather(storage.stream(key)) },
  {
    name: "stream on three connections",
    options: { streamConcurrency: 3 },
    read: (storage, key) => gather(storage.stream(key))
  }
]

/** Runs a test on each way to read, with a storage that is made for it. */
const onEachRead = <Err, R>(
  server: ChecksumServer.ChecksumServer,
  options: Omit<S3Storage.Options, "bucket">,
  test: (
    name: string,
    read: (key: string) => Effect.Effect<Uint8Array, StorageError.LoadError>
  ) => Effect.Effect<void, Err, R>,
  endpoint = server.endpoint
) =>
  Effect.forEach(reads, ({ name, options: more, read }) =>
    Effect.flatMap(
      make(server, endpoint, { ...options, ...more }),
      (storage) => test(name, (key) => read(storage, key))
    ), { discard: true })

it("The checksums of the server are the published ones of \"123456789\"", () => {
  const check = new TextEncoder().encode("123456789")
  expect(digests.CRC32C(check).toString("hex").toUpperCase()).toBe("E3069283")
  expect(digests.CRC64NVME(check).toString("hex").toUpperCase()).toBe("AE8B14860A799888")
  // What FIPS 180-2 gives for "abc".
  expect(digests.SHA256(new TextEncoder().encode("abc")).toString("hex")).toBe(
    "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
  )
})

describe.each(algorithms)("S3Storage with checksum %s", (checksum) => {
  const header = `x-amz-checksum-${checksum.toLowerCase()}`
  const typeInParts = checksum === "SHA256" ? "COMPOSITE" : "FULL_OBJECT"

  for (const { content, data, name, partSizes } of saves) {
    it.scopedLive(`sends a checksum that the server checks and keeps: ${name}`, () =>
      Effect.gen(function*() {
        const server = yield* ChecksumServer.make
        const storage = yield* make(server, server.endpoint, { checksum })
        const info = yield* storage.save("weights.bin", data)
        const stored = server.objects.get("weights.bin")
        const type = partSizes === undefined ? "FULL_OBJECT" : typeInParts
        expect(info).toMatchObject({ size: content.byteLength, etag: stored?.etag.replaceAll("\"", "") })
        expect(stored?.partSizes).toEqual(partSizes)
        expect(stored?.checksum).toEqual({
          algorithm: checksum,
          type,
          value: checksumOf(checksum, type, Buffer.from(content), partSizes)
        })
        const told = stored?.checksum?.type === "FULL_OBJECT"
          ? { algorithm: checksum, value: stored.checksum.value }
          : undefined
        expect(info.checksum).toEqual(told)
        expect((yield* storage.head("weights.bin")).checksum).toEqual(told)
        expect((yield* Effect.scoped(storage.open("weights.bin"))).info.checksum).toEqual(told)
        for (const { headers, method, query } of server.requests) {
          if (method === "PUT") expect(headers[header]).toBeDefined()
          if (query.has("uploads")) {
            expect(headers).toMatchObject({
              "x-amz-checksum-algorithm": checksum,
              "x-amz-checksum-type": typeInParts
            })
          }
        }
        yield* onEachRead(server, { checksum }, (name, read) =>
          Effect.map(read("weights.bin"), (loaded) =>
            expect(print(loaded), name).toBe(print(content))))
      }))
  }

  for (const { content, data, name, partSizes } of saves) {
    if (content.byteLength === 0) continue
    it.scopedLive(`saves nothing if the bytes are damaged on their way: ${name}`, () =>
      Effect.gen(function*() {
        const server = yield* ChecksumServer.make
        const storage = yield* make(server, server.endpoint, { checksum })
        const before = yield* storage.save("weights.bin", bytes(50, 9))
        server.damage("in", partSizes === undefined ? is.put : isPart(2))
        const error = yield* Effect.flip(storage.save("weights.bin", data))
        expect(error.message).toContain("BadDigest")
        expect(yield* storage.head("weights.bin")).toEqual(before)
        expect(print(yield* storage.load("weights.bin"))).toBe(print(bytes(50, 9)))
        expect(server.uploads()).toEqual([])
      }))
  }

  for (const where of ["at rest", "on the way out"] as const) {
    for (const size of ["small", "large"] as const) {
      it.scopedLive(`never returns the bytes of a ${size} object that was damaged ${where}`, () =>
        Effect.gen(function*() {
          const server = yield* ChecksumServer.make
          const storage = yield* make(server, server.endpoint, { checksum })
          const content = size === "small" ? small : large
          yield* storage.save("weights.bin", content)
          if (where === "at rest") server.rot("weights.bin")
          else server.damage("out", is.get)
          yield* onEachRead(server, { checksum }, (name, read) =>
            Effect.gen(function*() {
              const before = server.requests.filter(is.get).length
              const error = yield* Effect.flip(read("weights.bin"))
              expect(error, name).toMatchObject({ _tag: "CorruptObject", problem: "checksum", key: "weights.bin" })
              expect(error.message, name).toContain(checksum)
              const gets = server.requests.filter(is.get).length - before
              expect(gets, `${name} is not tried again`).toBeLessThanOrEqual(Math.ceil(content.byteLength / partSize))
            }))
          server.mend()
          if (where === "at rest") return
          yield* onEachRead(
            server,
            { checksum },
            (name, read) =>
              Effect.map(read("weights.bin"), (loaded) => expect(print(loaded), name).toBe(print(content)))
          )
        }))
    }
  }

  it.scopedLive("checks neither ranges nor a stream that is not read to its end", () =>
    Effect.gen(function*() {
      const server = yield* ChecksumServer.make
      const storage = yield* make(server, server.endpoint, { checksum })
      yield* storage.save("weights.bin", large)
      server.rot("weights.bin")
      const heads = server.requests.filter(is.head).length
      const middle = large.byteLength >> 1
      const expected = Buffer.from(large)
      expected.writeUInt8(expected.readUInt8(middle) ^ 1, middle)
      for (
        const range of [
          ByteRange.make(0, 100),
          ByteRange.make(middle, middle + 10),
          ByteRange.from(1),
          ByteRange.make(0, large.byteLength)
        ]
      ) {
        const start = range._tag === "Last" ? 0 : range.start
        const end = range._tag === "Bounded" ? range.endExclusive : large.byteLength
        const wanted = print(expected.subarray(start, end))
        expect(print(yield* storage.load("weights.bin", { range }))).toBe(wanted)
        expect(print(yield* gather(storage.stream("weights.bin", { range })))).toBe(wanted)
      }
      expect(server.requests.filter(is.head).length).toBe(heads)
      const [ranged] = yield* storage.loadRanges("weights.bin", [ByteRange.make(middle, middle + 1)])
      expect(ranged).toEqual(new Uint8Array(expected.subarray(middle, middle + 1)))
      const begun = yield* Stream.runHead(storage.stream("weights.bin"))
      expect(begun._tag).toBe("Some")
    }))

  it.scopedLive("loads objects without such a checksum", () =>
    Effect.gen(function*() {
      const server = yield* ChecksumServer.make
      const other = checksum === "SHA256" ? "CRC32C" : "SHA256"
      yield* Effect.flatMap(make(server, server.endpoint), (plain) => plain.save("none", large))
      yield* Effect.flatMap(
        make(server, server.endpoint, { checksum: other }),
        (storage) => storage.save("other", large)
      )
      yield* onEachRead(server, { checksum }, (name, read) =>
        Effect.gen(function*() {
          expect(print(yield* read("none")), name).toBe(largePrint)
          expect(print(yield* read("other")), name).toBe(largePrint)
        }))
    }))

  it.scopedLive("checks the whole body also if it broke and was resumed", () =>
    Effect.gen(function*() {
      const server = yield* ChecksumServer.make
      const proxy = yield* FaultProxy.make(server.endpoint)
      yield* Effect.flatMap(
        make(server, server.endpoint, { checksum }),
        (storage) => storage.save("weights.bin", large)
      )
      for (const isRotten of [false, true]) {
        if (isRotten) server.rot("weights.bin")
        for (const fault of [Fault.TruncateAnswer({ after: MiB }), Fault.ResetAnswer({ after: MiB })]) {
          yield* onEachRead(server, { checksum }, (name, read) =>
            Effect.gen(function*() {
              const before = proxy.requests.length
              proxy.add({ match: is.get, fault, times: 2 })
              const exit = yield* Effect.exit(read("weights.bin"))
              proxy.clear()
              const broken = proxy.requests.slice(before).filter((request) => request.fault === fault._tag)
              expect(broken.length, `${name}, ${fault._tag}`).toBe(2)
              if (Exit.isSuccess(exit)) {
                expect(isRotten, `${name}, ${fault._tag}`).toBe(false)
                expect(print(exit.value), `${name}, ${fault._tag}`).toBe(largePrint)
              } else {
                expect(isRotten, `${name}, ${fault._tag}: ${String(exit.cause)}`).toBe(true)
                const error = yield* Effect.flip(exit)
                expect(error, name).toMatchObject({ _tag: "CorruptObject", problem: "checksum" })
              }
            }), proxy.endpoint)
        }
      }
    }))

  it.scopedLive("supports the preconditions of loads", () =>
    Effect.gen(function*() {
      const server = yield* ChecksumServer.make
      const storage = yield* make(server, server.endpoint, { checksum })
      const { etag } = yield* storage.save("weights.bin", small)
      expect(print(yield* storage.load("weights.bin", { ifMatch: etag, ifNoneMatch: "another" }))).toBe(print(small))
      expect((yield* Effect.flip(storage.load("weights.bin", { ifMatch: "another" })))._tag).toBe("PreconditionFailed")
      expect((yield* Effect.flip(storage.load("weights.bin", { ifNoneMatch: etag })))._tag).toBe("ObjectNotModified")
      expect((yield* Effect.flip(storage.load("missing")))._tag).toBe("ObjectNotFound")
      expect((yield* Effect.flip(gather(storage.stream("missing"))))._tag).toBe("ObjectNotFound")
    }))

  it.scopedLive("copies, in one request and in parts, and checks the copies", () =>
    Effect.gen(function*() {
      const server = yield* ChecksumServer.make
      const storage = yield* make(server, server.endpoint, { checksum })
      const info = yield* storage.save("weights.bin", large)
      yield* storage.copy("weights.bin", "copy")
      const saver = yield* makeSaver(sdkFor(server), server.bucket, {
        largestCopy: 0,
        checksum: yield* Checksums.make(checksum)
      })
      yield* saver.copy({ info, headers: {} }, "copy-in-parts", {})
      expect(server.uploads()).toEqual([])
      for (const key of ["copy", "copy-in-parts"]) {
        expect(server.objects.get(key)?.checksum?.algorithm, key).toBe(checksum)
        expect(print(yield* storage.load(key)), key).toBe(largePrint)
        server.rot(key)
        expect(yield* Effect.flip(storage.load(key)), key).toMatchObject({ _tag: "CorruptObject", problem: "checksum" })
      }
    }))

  const isBlind = realServer.kind !== "given"
  it.scopedLive.skipIf(!isBlind)(
    `says what to do if the server does not support checksums${
      isBlind ? "" : " (skipped: it is not known what this server supports)"
    }`,
    () =>
      Effect.gen(function*() {
        const bucket = yield* makeBucket
        const blind = yield* S3Storage.make({ ...realOptions, bucket, partSize, checksum })
        for (const { data, name } of saves) {
          const error = yield* Effect.flip(blind.save(name, data))
          expect(error, name).toMatchObject({ _tag: "UnsupportedOperation", operation: "save", key: name })
          expect(error.message, name).toContain(checksum)
          expect(error.message, name).toContain("remove the option checksum")
        }
        expect(yield* unfinishedUploads(bucket)).toEqual([])
        const storage = yield* S3Storage.make({ ...realOptions, bucket, partSize })
        yield* storage.save("weights.bin", large)
        expect(print(yield* blind.load("weights.bin"))).toBe(largePrint)
        expect(print(yield* gather(blind.stream("weights.bin")))).toBe(largePrint)
      })
  )

  it.scopedLive.skipIf(!isBlind)(
    `saves nothing if the server does not support checksums${
      isBlind ? "" : " (skipped: it is not known what this server supports)"
    }`,
    () =>
      Effect.gen(function*() {
        const bucket = yield* makeBucket
        const blind = yield* S3Storage.make({ ...realOptions, bucket, partSize, checksum })
        const storage = yield* S3Storage.make({ ...realOptions, bucket, partSize })
        const before = yield* storage.save("weights.bin", bytes(50, 9))
        for (const { data, name } of saves) {
          yield* Effect.flip(blind.save("weights.bin", data))
          expect(yield* storage.head("weights.bin"), name).toEqual(before)
          yield* Effect.flip(blind.save(name, data))
        }
        expect(yield* storage.list()).toEqual(["weights.bin"])
      })
  )
})

describe("S3Storage with a checksum", () => {
  it.scopedLive("fails with CorruptObject if the bytes are damaged on their way", () =>
    Effect.gen(function*() {
      const server = yield* ChecksumServer.make
      const storage = yield* make(server, server.endpoint, { checksum: "CRC32C" })
      server.damage("in", () => true)
      for (const content of [small, large]) {
        const error = yield* Effect.flip(storage.save("weights.bin", content))
        expect(error).toMatchObject({ _tag: "CorruptObject", problem: "checksum", operation: "save" })
      }
    }))

  it.scopedLive("emits the bytes of a damaged stream, and fails at its end", () =>
    Effect.gen(function*() {
      const server = yield* ChecksumServer.make
      const storage = yield* make(server, server.endpoint, { checksum: "SHA256" })
      yield* storage.save("weights.bin", large)
      server.rot("weights.bin")
      const seen: Array<Uint8Array> = []
      const error = yield* storage.stream("weights.bin").pipe(
        Stream.runForEach((bytes) => Effect.sync(() => seen.push(bytes))),
        Effect.flip
      )
      expect(error._tag).toBe("CorruptObject")
      // All of it has come by then: that it is wrong shows only at the end.
      expect(seen.reduce((sum, bytes) => sum + bytes.byteLength, 0)).toBe(large.byteLength)
    }))

  it.scopedLive("checks the version that was opened, also if the object is overwritten meanwhile", () =>
    Effect.gen(function*() {
      const server = yield* ChecksumServer.make
      const proxy = yield* FaultProxy.make(server.endpoint)
      const direct = yield* make(server, server.endpoint, { checksum: "SHA256" })
      yield* onEachRead(server, { checksum: "SHA256" }, (name, read) =>
        Effect.gen(function*() {
          yield* direct.save("weights.bin", large)
          const effect = Effect.orDie(direct.save("weights.bin", bytes(large.byteLength, 7)))
          proxy.add({ match: is.get, fault: Fault.Before({ effect }) })
          const error = yield* Effect.flip(read("weights.bin"))
          expect(error._tag, name).toBe("PreconditionFailed")
        }), proxy.endpoint)
    }))

  it.scopedLive("checks objects that other clients saved in parts, with a checksum of checksums", () =>
    Effect.gen(function*() {
      const server = yield* ChecksumServer.make
      for (const algorithm of ["CRC32C", "SHA256"] as const) {
        yield* saveInParts(server, algorithm, algorithm, [6 * MiB, 6 * MiB, 10])
        yield* saveInParts(server, algorithm, `${algorithm} in one`, [100])
        const storage = yield* make(server, server.endpoint, { checksum: algorithm })
        for (const key of [algorithm, `${algorithm} in one`]) {
          expect(server.objects.get(key)?.checksum?.type).toBe("COMPOSITE")
          const content = new Uint8Array(server.objects.get(key)?.body ?? [])
          expect(print(yield* storage.load(key)), key).toBe(print(content))
          server.rot(key)
          const error = yield* Effect.flip(storage.load(key))
          expect(error, key).toMatchObject({ _tag: "CorruptObject", problem: "checksum" })
        }
      }
    }))

  it.scopedLive("accepts an intact object whose checksum of checksums comes without the number of parts", () =>
    Effect.gen(function*() {
      const server = yield* ChecksumServer.make
      const proxy = yield* FaultProxy.make(server.endpoint)
      const storage = yield* make(server, proxy.endpoint, { checksum: "SHA256" })
      yield* saveInParts(server, "SHA256", "weights.bin", [6 * MiB, 10])
      const content = new Uint8Array(server.objects.get("weights.bin")?.body ?? [])
      const value = server.objects.get("weights.bin")?.checksum?.value.replace(/-\d+$/, "")
      for (const type of ["COMPOSITE", "composite", undefined]) {
        const headers = { "x-amz-checksum-sha256": value, "x-amz-checksum-type": type }
        proxy.clear()
        proxy.add({ match: () => true, times: Infinity, fault: Fault.RewriteHeaders({ headers }) })
        expect(print(yield* storage.load("weights.bin")), type).toBe(print(content))
        expect(print(yield* gather(storage.stream("weights.bin"))), type).toBe(print(content))
        expect((yield* storage.head("weights.bin")).checksum, type).toBeUndefined()
      }
    }))

  it.scopedLive("accepts intact objects with parts of any sizes", () =>
    Effect.gen(function*() {
      const server = yield* ChecksumServer.make
      const cuts = [[6 * MiB, 5 * MiB, 7 * MiB], [6 * MiB, 5 * MiB, 5 * MiB], [5 * MiB, 7 * MiB, 10], [10]]
      const storage = yield* make(server, server.endpoint, { checksum: "SHA256" })
      for (const partSizes of cuts) {
        const name = partSizes.join(" ")
        yield* saveInParts(server, "SHA256", name, partSizes)
        const content = new Uint8Array(server.objects.get(name)?.body ?? [])
        expect(print(yield* storage.load(name)), name).toBe(print(content))
        expect(print(yield* gather(storage.stream(name))), name).toBe(print(content))
      }
    }))

  it.scopedLive("checks an empty object that another client saved", () =>
    Effect.gen(function*() {
      const server = yield* ChecksumServer.make
      yield* Effect.promise(() =>
        sdkFor(server).send(
          new PutObjectCommand({ Bucket: server.bucket, Key: "empty", Body: "", ChecksumAlgorithm: "CRC32C" })
        )
      )
      expect(server.objects.get("empty")?.checksum?.value).toBe("AAAAAA==")
      yield* onEachRead(server, { checksum: "CRC32C" }, (name, read) =>
        Effect.map(read("empty"), (loaded) =>
          expect(loaded.byteLength, name).toBe(0)))
    }))
})

/** As other tools do it: parts of any size, and the checksum of an object made of theirs. */
const saveInParts = (
  server: ChecksumServer.ChecksumServer,
  ChecksumAlgorithm: "CRC32C" | "SHA256",
  Key: string,
  partSizes: ReadonlyArray<number>
) =>
  Effect.promise(async () => {
    const sdk = sdkFor(server)
    const object = { Bucket: server.bucket, Key }
    const { UploadId } = await sdk.send(new CreateMultipartUploadCommand({ ...object, ChecksumAlgorithm }))
    const Parts = await Promise.all(partSizes.map(async (size, index) => {
      const PartNumber = index + 1
      const Body = bytes(size, PartNumber)
      const part = await sdk.send(
        new UploadPartCommand({ ...object, UploadId, PartNumber, Body, ChecksumAlgorithm })
      )
      const { ChecksumCRC32C, ChecksumSHA256, ETag } = part
      return { PartNumber, ETag, ChecksumCRC32C, ChecksumSHA256 }
    }))
    await sdk.send(new CompleteMultipartUploadCommand({ ...object, UploadId, MultipartUpload: { Parts } }))
  })
