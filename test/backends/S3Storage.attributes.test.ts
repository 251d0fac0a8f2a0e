/**
 * Attributes on S3: others read what this library sets, and it reads what others set.
 */
import { GetObjectCommand, HeadObjectCommand, PutObjectCommand, type PutObjectCommandInput } from "@aws-sdk/client-s3"
import { describe, expect, it } from "@effect/vitest"
import { Effect, Stream } from "effect"
import { S3Storage, type Storage } from "surfing-weights"
import { bytes, MiB, print } from "../support/content.js"
import * as FaultProxy from "../support/faultProxy.js"
import { makeBucket, options, sdk, server } from "../support/s3Bucket.js"
import { makeSaver } from "../support/s3Saver.js"

const all: Storage.Attributes = {
  contentType: "application/json; charset=utf-8",
  cacheControl: "public, max-age=60, immutable",
  contentDisposition: "attachment; filename=\"model.safetensors\"",
  contentEncoding: "gzip",
  contentLanguage: "de, en",
  metadata: { framework: "jax", "model-name": "bert", owner: "Zoë Müller 😀", empty: "", with_underscore: "1" }
}

const other: Storage.Attributes = { contentType: "text/plain", metadata: { framework: "torch" } }

const setup = (extra: Partial<S3Storage.Options> = {}) =>
  Effect.gen(function*() {
    const bucket = yield* makeBucket
    return { bucket, storage: yield* S3Storage.make({ ...options, bucket, partSize: 5 * MiB, ...extra }) }
  })

const small = bytes(1000)
const large = bytes(6 * MiB)

/** Each way in which an object is saved. */
const saves = {
  "bytes": (storage: Storage.Service, options: Storage.SaveOptions) => storage.save("bytes", small, options),
  "a stream": (storage: Storage.Service, options: Storage.SaveOptions) =>
    storage.save("a stream", Stream.make(small), options),
  "parts": (storage: Storage.Service, options: Storage.SaveOptions) => storage.save("parts", large, options),
  "parts of a stream": (storage: Storage.Service, options: Storage.SaveOptions) =>
    storage.save("parts of a stream", Stream.make(large), options)
}

const headBySdk = (Bucket: string, Key: string) =>
  Effect.map(Effect.promise(() => sdk.send(new HeadObjectCommand({ Bucket, Key }))), (head) => ({
    ContentType: head.ContentType,
    CacheControl: head.CacheControl,
    ContentDisposition: head.ContentDisposition,
    ContentEncoding: head.ContentEncoding,
    ContentLanguage: head.ContentLanguage,
    Metadata: head.Metadata
  }))

const putBySdk = (input: PutObjectCommandInput) =>
  Effect.promise(() => sdk.send(new PutObjectCommand({ Body: small, ...input })))

const openInfo = (storage: Storage.Service, key: string) =>
  Effect.map(Effect.scoped(storage.open(key)), ({ info }) => info)

// The emulator keeps the content type and metadata, and no other headers.
const isEmulator = server.kind === "emulator"

describe("attributes of an object on S3", () => {
  it.scopedLive.skipIf(isEmulator)(
    "are returned by save, head and open, however it is saved",
    () =>
      Effect.gen(function*() {
        const { storage } = yield* setup()
        for (const [key, save] of Object.entries(saves)) {
          for (const condition of [{}, { ifNoneMatch: "*" as const }]) {
            yield* storage.remove(key)
            expect((yield* save(storage, { attributes: all, ...condition })).attributes, key).toEqual(all)
            expect((yield* storage.head(key)).attributes, key).toEqual(all)
            expect((yield* openInfo(storage, key)).attributes, key).toEqual(all)
          }
        }
      })
  )

  it.scopedLive.skipIf(isEmulator)(
    "are read by the AWS SDK, with text that is not ASCII as an encoded word",
    () =>
      Effect.gen(function*() {
        const { bucket, storage } = yield* setup()
        for (const [key, save] of Object.entries(saves)) {
          yield* save(storage, { attributes: all })
          const { Metadata = {}, ...fields } = yield* headBySdk(bucket, key)
          expect(fields, key).toEqual({
            ContentType: all.contentType,
            CacheControl: all.cacheControl,
            ContentDisposition: all.contentDisposition,
            ContentEncoding: all.contentEncoding,
            ContentLanguage: all.contentLanguage
          })
          expect(Metadata).toMatchObject({ framework: "jax", "model-name": "bert" })
          expect(Metadata["owner"]).toBe(`=?UTF-8?B?${Buffer.from("Zoë Müller 😀").toString("base64")}?=`)
        }
      })
  )

  it.scopedLive("are those that the AWS SDK sets", () =>
    Effect.gen(function*() {
      const { bucket, storage } = yield* setup()
      yield* putBySdk({
        Bucket: bucket,
        Key: "theirs",
        ContentType: "application/x-weights",
        Metadata: { framework: "jax", owner: "=?utf-8?Q?Zo=C3=AB?= =?utf-8?Q?_M=C3=BCller?=" }
      })
      expect((yield* storage.head("theirs")).attributes).toMatchObject({
        contentType: "application/x-weights",
        metadata: { framework: "jax", owner: "Zoë Müller" }
      })
    }))

  it.scopedLive.skipIf(isEmulator)(
    "stay with a copy or a move, or are replaced as a whole",
    () =>
      Effect.gen(function*() {
        const { bucket, storage } = yield* setup()
        const theirs = { Bucket: bucket, Expires: new Date("2030-01-01T00:00:00Z") }
        for (const conditional of [{}, { ifNoneMatch: "*" as const }]) {
          yield* storage.save("from", small, { attributes: all })
          expect((yield* storage.copy("from", "copied", conditional)).attributes).toEqual(all)
          expect((yield* storage.head("copied")).attributes).toEqual(all)
          expect((yield* storage.copy("from", "replaced", { ...conditional, attributes: other })).attributes).toEqual(
            other
          )
          expect((yield* storage.head("replaced")).attributes).toEqual(other)
          expect((yield* storage.move("from", "moved", conditional)).attributes).toEqual(all)
          yield* storage.move("moved", "moved again", { ...conditional, attributes: other })
          expect((yield* storage.head("moved again")).attributes).toEqual(other)
          expect(print(yield* storage.load("moved again"))).toBe(print(small))
          yield* storage.removeAll(["copied", "replaced", "moved again"])
        }
        yield* putBySdk({ ...theirs, Key: "theirs" })
        yield* storage.copy("theirs", "copy of theirs")
        const { Expires } = yield* Effect.promise(() =>
          sdk.send(new GetObjectCommand({ Bucket: bucket, Key: "copy of theirs" }))
        )
        expect(Expires).toEqual(theirs.Expires)
      })
  )

  it.scopedLive.skipIf(isEmulator)("stay with a copy in parts, or are replaced", () =>
    Effect.gen(function*() {
      const { bucket, storage } = yield* setup()
      const saver = yield* makeSaver(sdk, bucket, { largestCopy: 0 })
      yield* storage.save("from", large, { attributes: all, ifNoneMatch: "*" })
      const info = yield* storage.head("from")
      const { $metadata: _, ...head } = yield* Effect.promise(() =>
        sdk.send(new HeadObjectCommand({ Bucket: bucket, Key: "from" }))
      )
      const headers = {
        "content-type": head.ContentType,
        "cache-control": head.CacheControl,
        "content-disposition": head.ContentDisposition,
        "content-encoding": head.ContentEncoding,
        "content-language": head.ContentLanguage,
        ...Object.fromEntries(Object.entries(head.Metadata ?? {}).map(([name, value]) => [`x-amz-meta-${name}`, value]))
      }
      expect((yield* saver.copy({ info, headers }, "copied", {})).attributes).toEqual(all)
      expect((yield* storage.head("copied")).attributes).toEqual(all)
      expect((yield* saver.copy({ info, headers }, "replaced", { attributes: other })).attributes).toEqual(other)
      expect((yield* storage.head("replaced")).attributes).toEqual(other)
      // What a save notes for itself is no metadata of its copy.
      const noted = ["from", "copied"].map((Key) => headBySdk(bucket, Key))
      const [from, copied] = yield* Effect.all(noted)
      expect(from?.Metadata?.["surfing-weights-save"]).toBeDefined()
      expect(copied?.Metadata?.["surfing-weights-save"]).not.toBe(from?.Metadata?.["surfing-weights-save"])
      expect(print(yield* storage.load("copied"))).toBe(print(large))
    }))

  it.scopedLive.skipIf(isEmulator)(
    "are the defaults of the storage if a save sets none",
    () =>
      Effect.gen(function*() {
        const { storage } = yield* setup({ contentType: "application/x-weights", cacheControl: "no-cache" })
        for (const [key, save] of Object.entries(saves)) {
          expect((yield* save(storage, {})).attributes, key).toEqual({
            contentType: "application/x-weights",
            cacheControl: "no-cache"
          })
          yield* save(storage, { attributes: { cacheControl: "max-age=1", metadata: { a: "b" } } })
          expect((yield* storage.head(key)).attributes, key).toEqual({
            contentType: "application/x-weights",
            cacheControl: "max-age=1",
            metadata: { a: "b" }
          })
        }
      })
  )

  it.scopedLive.skipIf(isEmulator)(
    "do not contain the metadata by which a save recognises its object",
    () =>
      Effect.gen(function*() {
        const { storage } = yield* setup()
        for (const save of Object.values(saves)) {
          const info = yield* save(storage, { ifNoneMatch: "*" })
          expect(info.attributes?.metadata).toBeUndefined()
          expect((yield* storage.head(info.key)).attributes?.metadata).toBeUndefined()
        }
      })
  )

  it.scopedLive("cost a load no extra request", () =>
    Effect.gen(function*() {
      const bucket = yield* makeBucket
      const proxy = yield* FaultProxy.make(server.endpoint)
      const storage = yield* S3Storage.make({ ...options, endpoint: proxy.endpoint, bucket, verify: false })
      // One with a content encoding does: a proxy may have added it, so the size of the object is looked up.
      yield* storage.save("key", small, { attributes: { ...all, contentEncoding: undefined } })
      yield* storage.load("key")
      yield* openInfo(storage, "key")
      expect(proxy.requests.map(({ method }) => method)).toEqual(["PUT", "GET", "GET"])
    }))
})
