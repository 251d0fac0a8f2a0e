/**
 * A weight server in front of a bucket: the bytes go through it, or by its redirects straight from the bucket.
 */
import { describe, expect, it } from "@effect/vitest"
import { Effect, Redacted, Stream } from "effect"
import { createHash, randomBytes } from "node:crypto"
import { ByteRange, HttpStorage, S3Storage, type WeightServer } from "surfing-weights"
import { clients } from "../support/httpClients.js"
import { makeBucket, options, server } from "../support/s3Bucket.js"
import { ask, serveOf } from "../support/weightServer.js"

const token = "reader-0123456789abcdef"

const auth = { tokens: [{ token: Redacted.make(token), scope: "read" }] } satisfies WeightServer.Options["auth"]

/** Of more than one part, of more than one chunk under a key that has to be escaped, and small. */
const contents = new Map([
  ["bert/layer_0.bin", randomBytes(9 * 1024 * 1024 + 7)],
  ["a b%2F+/ü?&=#", randomBytes(2_000_003)],
  ["small", randomBytes(100)]
])

const sha256 = (bytes: Uint8Array): string => createHash("sha256").update(bytes).digest("hex")

const pathOf = (key: string): string => `/objects/${encodeURIComponent(key)}`

const inBucket = Effect.gen(function*() {
  const storage = yield* S3Storage.make({ ...options, bucket: yield* makeBucket, prefix: "folder" })
  for (const [key, bytes] of contents) yield* storage.save(key, bytes)
  return storage
})

const readers: ReadonlyArray<readonly [how: string, serving: WeightServer.Options]> = [
  ["through it", { auth }],
  ["from the bucket", { auth, redirect: { expiresIn: "1 minute" } }]
]

describe("a weight server in front of a bucket", () => {
  for (const [how, serving] of readers) {
    it.scopedLive(`fetch has objects, ranges and conditions ${how}`, () =>
      Effect.gen(function*() {
        const storage = yield* inBucket
        const { url } = yield* serveOf(storage, serving)
        const get = (key: string, headers: Record<string, string> = {}) =>
          Effect.promise(async () => {
            const response = await fetch(url + pathOf(key), {
              headers: { authorization: `Bearer ${token}`, ...headers }
            })
            return { response, bytes: new Uint8Array(await response.arrayBuffer()) }
          })
        for (const [key, whole] of contents) {
          const { etag } = yield* storage.head(key)
          const all = yield* get(key)
          expect([all.response.status, sha256(all.bytes)]).toEqual([200, sha256(whole)])
          expect(all.response.headers.get("etag")).toBe(`"${etag}"`)
          expect(new URL(all.response.url).origin).toBe(how === "through it" ? url : server.endpoint)
          const part = yield* get(key, { range: "bytes=10-59", "if-match": `"${etag}"` })
          expect([part.response.status, sha256(part.bytes)]).toEqual([206, sha256(whole.subarray(10, 60))])
          expect((yield* get(key, { "if-none-match": `"${etag}"` })).response.status).toBe(304)
          expect((yield* get(key, { "if-match": "\"other\"" })).response.status).toBe(412)
        }
        expect((yield* get("none")).response.status).toBe(404)
        const refused = yield* Effect.promise(() => fetch(url + pathOf("small"), { redirect: "manual" }))
        expect([refused.status, refused.headers.get("location")]).toEqual([401, null])
      }))

    for (const [name, client] of clients) {
      it.scopedLive(`${name} has objects, ranges, streams and failures ${how}`, () =>
        Effect.gen(function*() {
          const storage = yield* inBucket
          const { url } = yield* serveOf(storage, serving)
          const remote = yield* Effect.provide(HttpStorage.make({ url, token: Redacted.make(token) }), client)
          expect(yield* remote.list()).toEqual([...contents.keys()].sort())
          for (const [key, whole] of contents) {
            const info = yield* storage.head(key)
            expect(yield* remote.head(key)).toMatchObject({ key, size: whole.byteLength, etag: info.etag })
            expect(sha256(yield* remote.load(key))).toBe(sha256(whole))
            expect(sha256(yield* remote.load(key, { range: ByteRange.last(50), ifMatch: info.etag }))).toBe(
              sha256(whole.subarray(-50))
            )
            const hash = createHash("sha256")
            yield* Stream.runForEach(remote.stream(key), (chunk) => Effect.sync(() => hash.update(chunk)))
            expect(hash.digest("hex")).toBe(sha256(whole))
            expect(yield* Effect.flip(remote.load(key, { ifMatch: "other" }))).toMatchObject({
              _tag: "PreconditionFailed"
            })
            expect(yield* Effect.flip(remote.load(key, { ifNoneMatch: info.etag }))).toMatchObject({
              _tag: "ObjectNotModified"
            })
          }
          expect(yield* Effect.flip(remote.load("none"))).toMatchObject({ _tag: "ObjectNotFound", key: "none" })
          expect(yield* remote.exists("none")).toBe(false)
        }))
    }
  }

  it.scopedLive("a redirect holds for as long as it was set, is not to be kept, and shows no secret", () =>
    Effect.gen(function*() {
      const storage = yield* inBucket
      const served = yield* serveOf(storage, { redirect: { expiresIn: "1 minute" } })
      const { headers, status } = yield* ask(served, "GET", pathOf("small"))
      expect([status, headers["cache-control"]]).toEqual([307, "no-store"])
      const location = new URL(headers.location ?? "")
      expect([location.origin, location.searchParams.get("X-Amz-Expires")]).toEqual([server.endpoint, "60"])
      expect(location.href).not.toContain(Redacted.value(options.credentials.secretAccessKey))
    }))
})
