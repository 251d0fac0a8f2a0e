/**
 * A storage on a prefix of a bucket, and buckets that others fill.
 */
import { describe, expect, it } from "@effect/vitest"
import { Chunk, Effect, Stream } from "effect"
import { ByteRange, S3Storage, type StorageError } from "surfing-weights"
import { bytes, gather, print } from "../support/content.js"
import * as FaultProxy from "../support/faultProxy.js"
import { makeBucket, options, put, server } from "../support/s3Bucket.js"
import { Fault, partSize } from "../support/s3Faults.js"

describe("a prefix", () => {
  it.scopedLive("limits a storage to a part of its bucket", () =>
    Effect.gen(function*() {
      const bucket = yield* makeBucket
      for (const key of ["models", "models-old/a", "models/a", "models/b/c", "models/d", "modelsx", "other/a", "a"]) {
        yield* put(bucket, key)
      }
      for (const prefix of ["models", "models/"]) {
        const storage = yield* S3Storage.make({ ...options, bucket, prefix })
        expect(storage.backend.name).toContain(`S3(${bucket}/models`)
        expect(yield* storage.list()).toEqual(["a", "b/c", "d"])
        expect(yield* storage.list("b")).toEqual(["b/c"])
        expect(yield* storage.list("models")).toEqual([])
        const entries = (startAfter?: string) =>
          Effect.map(
            Stream.runCollect(storage.entries(startAfter === undefined ? {} : { startAfter })),
            (all) => Chunk.toReadonlyArray(all).map(({ key, size }) => [key, size])
          )
        expect(yield* entries()).toEqual([["a", 8], ["b/c", 10], ["d", 8]])
        expect(yield* entries("a")).toEqual([["b/c", 10], ["d", 8]])
        const { objects, prefixes } = yield* storage.listDirectory()
        expect(objects.map(({ key }) => key)).toEqual(["a", "d"])
        expect(prefixes).toEqual(["b/"])
        expect((yield* storage.listDirectory("b/")).objects.map(({ key }) => key)).toEqual(["b/c"])
        expect(Buffer.from(yield* storage.load("b/c")).toString()).toBe("models/b/c")
        expect(yield* storage.head("b/c")).toMatchObject({ key: "b/c", size: 10 })
        expect(yield* storage.exists("models/a")).toBe(false)
        expect((yield* Effect.flip(storage.load("../other/a")))._tag).toBe("InvalidKey")
        expect(yield* Effect.flip(storage.load("missing"))).toMatchObject({ _tag: "ObjectNotFound", key: "missing" })
      }
    }))

  it.scopedLive("is added to the keys of saves, copies and removals", () =>
    Effect.gen(function*() {
      const bucket = yield* makeBucket
      const whole = yield* S3Storage.make({ ...options, bucket })
      const content = bytes(2 * partSize)
      for (const prefix of ["a b/100%", "a b/100%/"]) {
        const storage = yield* S3Storage.make({ ...options, bucket, prefix, partSize })
        yield* whole.save("kept", bytes(1))
        expect(yield* storage.save("small", bytes(10))).toMatchObject({ key: "small", size: 10 })
        expect(yield* storage.save("large", content)).toMatchObject({ key: "large", size: content.byteLength })
        expect(yield* storage.copy("large", "copy/large")).toMatchObject({ key: "copy/large" })
        expect(yield* storage.move("small", "moved")).toMatchObject({ key: "moved" })
        expect(yield* whole.list()).toEqual(
          [...["copy/large", "large", "moved"].map((key) => `a b/100%/${key}`), "kept"]
        )
        expect(print(yield* whole.load("a b/100%/copy/large"))).toBe(print(content))
        const url = yield* storage.presign("moved", { method: "GET", expiresIn: "1 minute" })
        expect(new URL(url).pathname).toContain("/a%20b/100%25/moved")
        const answer = yield* Effect.promise(() => fetch(url).then((answer) => answer.arrayBuffer()))
        expect(print(new Uint8Array(answer))).toBe(print(bytes(10)))
        yield* storage.remove("moved")
        yield* storage.remove("kept")
        expect(yield* storage.removeAll(["large", "copy/large", "kept"])).toEqual({ removed: 3, failed: [] })
        expect(yield* whole.list()).toEqual(["kept"])
      }
    }))

  it.scopedLive("that is empty means none", () =>
    Effect.gen(function*() {
      const bucket = yield* makeBucket
      const storage = yield* S3Storage.make({ ...options, bucket, prefix: "" })
      yield* put(bucket, "a/b")
      expect(storage.backend.name).toBe(`S3(${bucket})`)
      expect(yield* storage.list()).toEqual(["a/b"])
    }))

  it.scopedLive("that no key can begin with fails when the storage is built", () =>
    Effect.gen(function*() {
      for (const prefix of ["/a", "a//b", "a//", "../a", "a/..", "a\n", "x".repeat(1025)]) {
        const error = yield* Effect.flip(S3Storage.make({ ...options, bucket: "none", prefix, verify: false }))
        expect(error._tag, JSON.stringify(prefix)).toBe("InvalidOptions")
        expect(error.message, JSON.stringify(prefix)).toContain("prefix")
      }
    }))

  // With the prefix and the slash behind it, the key is as long as one may be.
  const prefix = "p".repeat(500)
  const fitting = `${"é".repeat(261)}x`
  const tooLong = `${fitting}y`

  it.scopedLive("leaves the rest of the maximum length to keys", () =>
    Effect.gen(function*() {
      const bucket = yield* makeBucket
      const storage = yield* S3Storage.make({ ...options, bucket, prefix })
      yield* storage.save(fitting, bytes(10))
      yield* storage.copy(fitting, "é")
      expect(print(yield* storage.load(fitting))).toBe(print(bytes(10)))
      expect(new Set(yield* storage.list())).toEqual(new Set(["é", fitting]))
      expect(yield* storage.removeAll(["é", fitting])).toEqual({ removed: 2, failed: [] })
      expect(yield* storage.list()).toEqual([])
    }))

  const onTooLong: ReadonlyArray<
    readonly [
      name: string,
      run: (
        storage: Effect.Effect.Success<ReturnType<typeof S3Storage.make>>
      ) => Effect.Effect<unknown, StorageError.StorageError>
    ]
  > = [
    ["load", (storage) => storage.load(tooLong)],
    ["loadRanges", (storage) => storage.loadRanges(tooLong, [ByteRange.last(1)])],
    ["stream", (storage) => gather(storage.stream(tooLong))],
    ["head", (storage) => storage.head(tooLong)],
    ["exists", (storage) => storage.exists(tooLong)],
    ["save", (storage) => storage.save(tooLong, bytes(10))],
    ["save of a stream", (storage) => storage.save(tooLong, Stream.make(bytes(10)))],
    ["remove", (storage) => storage.remove(tooLong)],
    ["copy to it", (storage) => storage.copy("short", tooLong)],
    ["copy from it", (storage) => storage.copy(tooLong, "another")],
    ["copy from it with ifNoneMatch", (storage) => storage.copy(tooLong, "another", { ifNoneMatch: "*" })],
    ["move to it", (storage) => storage.move("short", tooLong)],
    ["move from it", (storage) => storage.move(tooLong, "another")],
    ["presign", (storage) => storage.presign(tooLong, { method: "GET", expiresIn: "1 minute" })]
  ]

  it.scopedLive.each(onTooLong)(
    "makes some keys too long, which fails before anything is sent: %s",
    ([, run]) =>
      Effect.gen(function*() {
        const bucket = yield* makeBucket
        const proxy = yield* FaultProxy.make(server.endpoint)
        const storage = yield* S3Storage.make({ ...options, endpoint: proxy.endpoint, bucket, prefix })
        yield* storage.save("short", bytes(10))
        const before = proxy.requests.length
        const error = yield* Effect.flip(run(storage))
        expect(error).toMatchObject({ _tag: "InvalidKey", key: tooLong })
        expect(error.message).toMatch(
          /is not a valid key: a key in the folder "p+" must not exceed 523 bytes \(got 524\)$/
        )
        expect(proxy.requests.length).toBe(before)
      })
  )

  it.scopedLive("makes some keys too long: removeAll returns a failure for each, and removes the others", () =>
    Effect.gen(function*() {
      const bucket = yield* makeBucket
      const storage = yield* S3Storage.make({ ...options, bucket, prefix })
      yield* storage.save("a", bytes(1))
      yield* storage.save("b", bytes(1))
      const { failed, removed } = yield* storage.removeAll(["a", tooLong, "b"])
      expect(failed.map(({ _tag, key }) => [_tag, key])).toEqual([["InvalidKey", tooLong]])
      expect(removed).toBe(2)
      expect(yield* storage.list()).toEqual([])
    }))

  it.scopedLive("makes some prefixes of a listing too long, which then lists nothing", () =>
    Effect.gen(function*() {
      const bucket = yield* makeBucket
      const storage = yield* S3Storage.make({ ...options, bucket, prefix })
      yield* storage.save("a", bytes(1))
      expect(yield* storage.list("é".repeat(300))).toEqual([])
      expect(yield* storage.listDirectory("é".repeat(300))).toEqual({ objects: [], prefixes: [] })
      const after = Stream.runCollect(storage.entries({ startAfter: "é".repeat(300) }))
      expect(Chunk.toReadonlyArray(yield* after)).toEqual([])
    }))
})

describe("a listing with objects of other programs", () => {
  it.scopedLive("leaves out objects that represent folders", () =>
    Effect.gen(function*() {
      const bucket = yield* makeBucket
      for (const key of ["a/", "a/b", "a/c/", "a/c/d", "e"]) yield* put(bucket, key, "")
      const storage = yield* S3Storage.make({ ...options, bucket })
      expect(yield* storage.list()).toEqual(["a/b", "a/c/d", "e"])
      expect(yield* storage.list("a/")).toEqual(["a/b", "a/c/d"])
      const entries = Chunk.toReadonlyArray(yield* Stream.runCollect(storage.entries()))
      expect(entries.map(({ key }) => key)).toEqual(["a/b", "a/c/d", "e"])
      const root = yield* storage.listDirectory()
      expect(root.objects.map(({ key }) => key)).toEqual(["e"])
      expect(root.prefixes).toEqual(["a/"])
      const folder = yield* storage.listDirectory("a/")
      expect(folder.objects.map(({ key }) => key)).toEqual(["a/b"])
      expect(folder.prefixes).toEqual(["a/c/"])
      const below = yield* S3Storage.make({ ...options, bucket, prefix: "a" })
      expect(yield* below.list()).toEqual(["b", "c/d"])
      expect((yield* below.listDirectory()).objects.map(({ key }) => key)).toEqual(["b"])
    }))

  it.scopedLive("leaves out invalid keys, and prefixes that no key can start with", () =>
    Effect.gen(function*() {
      const bucket = yield* makeBucket
      for (const key of ["a//b", "a/b", "c//", "/d", "d"]) yield* put(bucket, key, "")
      const storage = yield* S3Storage.make({ ...options, bucket })
      expect(yield* storage.list()).toEqual(["a/b", "d"])
      expect((yield* storage.listDirectory("a/")).prefixes).toEqual([])
      expect((yield* storage.listDirectory()).prefixes).not.toContain("/")
    }))

  it.scopedLive("does not end in a defect if a key is not UTF-8", () =>
    Effect.gen(function*() {
      const bucket = yield* makeBucket
      const proxy = yield* FaultProxy.make(server.endpoint)
      const storage = yield* S3Storage.make({ ...options, endpoint: proxy.endpoint, bucket })
      const entry = (key: string) =>
        `<Contents><Key>${key}</Key><LastModified>2020-01-01T00:00:00.000Z</LastModified><ETag>"e"</ETag>` +
        "<Size>1</Size></Contents>"
      proxy.add({
        match: ({ query }) => query.has("list-type"),
        fault: Fault.Answer({
          status: 200,
          body: `<ListBucketResult><EncodingType>url</EncodingType>${entry("a")}${entry("b%FF")}${entry("c")}` +
            "</ListBucketResult>"
        })
      })
      const exit = yield* Effect.exit(storage.list())
      expect(exit._tag === "Success" ? exit.value : exit.cause).toEqual(["a", "c"])
    }))
})
