/**
 * Both storages behind nginx as it comes: its limit for request bodies is 1 MB, and it speaks HTTP/1.0 to its upstream.
 */
import { expect, it } from "@effect/vitest"
import { Effect, Fiber, Schedule, Stream } from "effect"
import { readFileSync } from "node:fs"
import {
  ByteRange,
  HttpStorage,
  MemoryStorage,
  S3Storage,
  Storage,
  StorageBackend,
  StorageError
} from "surfing-weights"
import { bytes, MiB } from "../support/content.js"
import { clients } from "../support/httpClients.js"
import { hasNginx, nginx } from "../support/programs.js"
import { makeBucket, options, server } from "../support/s3Bucket.js"
import { serveOf } from "../support/weightServer.js"

const configuration = readFileSync(new URL("../../examples/nginx.conf", import.meta.url), "utf8")

const retry = Schedule.recurs(2)
const behind = (url: string) => nginx(`location / { proxy_pass ${url}; proxy_set_header Host $http_host; }`)

if (!hasNginx) console.log("SKIPPED: nginx is not installed")

it.scopedLive.skipIf(!hasNginx)(
  "S3Storage says that a proxy refuses bodies of this size, and what to do",
  () =>
    Effect.gen(function*() {
      const endpoint = yield* behind(server.endpoint)
      const storage = yield* S3Storage.make({ ...options, endpoint, bucket: yield* makeBucket, retry })
      yield* storage.save("small", bytes(1000))
      for (const size of [2 * MiB, 20 * MiB]) {
        const failure = yield* Effect.flip(storage.save("large", bytes(size)))
        expect(failure).toBeInstanceOf(StorageError.StorageFull)
        expect(failure.message).toContain("a proxy before the server refuses a request body of this size")
        expect(failure.message).toContain("client_max_body_size")
        expect(failure.message).toContain("partSize")
      }
      const streamed = yield* Effect.flip(storage.save("large", Stream.make(bytes(2 * MiB))))
      expect(streamed).toBeInstanceOf(StorageError.StorageFull)
      expect(yield* storage.list()).toEqual(["small"])
    })
)

for (const [name, client] of clients) {
  it.scopedLive.skipIf(!hasNginx)(
    `HttpStorage with ${name} says that a proxy refuses bodies of this size`,
    () =>
      Effect.gen(function*() {
        const { url } = yield* serveOf(yield* MemoryStorage.make(), { writable: true })
        const storage = yield* HttpStorage.make({ url: yield* behind(url), retry })
        yield* storage.save("small", bytes(1000))
        const failures = [
          yield* Effect.flip(storage.save("large", bytes(2 * MiB))),
          yield* Effect.flip(storage.save("large", Stream.make(bytes(MiB), bytes(MiB))))
        ]
        for (const failure of failures) {
          expect(failure).toBeInstanceOf(StorageError.StorageFull)
          expect(failure.message).toContain("a proxy before it, refuses a request body of this size")
          expect(failure.message).toContain("client_max_body_size")
        }
        expect(yield* storage.list()).toEqual(["small"])
      }).pipe(Effect.provide(client))
  )
}

for (const [name, client] of clients) {
  it.scopedLive.skipIf(!hasNginx)(
    `the configuration of examples/nginx.conf lets large objects, ranges and preconditions through, with ${name}`,
    () =>
      Effect.gen(function*() {
        const { port } = yield* serveOf(yield* MemoryStorage.make(), { writable: true })
        const storage = yield* HttpStorage.make({
          url: yield* nginx(configuration.replace(":8765", `:${port}`)),
          retry
        })
        const large = bytes(20 * MiB)
        const { etag } = yield* storage.save("large", Stream.make(large), { ifNoneMatch: "*" })
        expect(Buffer.compare(yield* storage.load("large", { ifMatch: etag }), large)).toBe(0)
        expect(yield* storage.load("large", { range: ByteRange.last(3) })).toEqual(large.slice(-3))
        expect((yield* Effect.flip(storage.save("large", large, { ifNoneMatch: "*" })))._tag).toBe(
          "ObjectAlreadyExists"
        )
        expect(yield* storage.list()).toEqual(["large"])
      }).pipe(Effect.provide(client))
  )
}

/** Lists 20 keys, one after the other, and is cut off after some of them: its connection is destroyed. */
const breakingListing = Effect.gen(function*() {
  const fail = Effect.fail(new StorageError.UnsupportedOperation({ reason: "not here" }))
  const slow = StorageBackend.make({
    name: "Slow",
    capabilities: { ...StorageBackend.readOnly, list: true },
    open: () => fail,
    save: () => fail,
    remove: () => fail,
    entries: () =>
      Stream.range(10, 29, 1).pipe(
        Stream.mapEffect((i) =>
          Effect.as(Effect.sleep("50 millis"), { key: `k${i}`, size: 1, lastModified: new Date(0), etag: "e" })
        ),
        Stream.rechunk(1)
      )
  })
  const served = yield* serveOf(Storage.make(slow))
  return { url: yield* behind(served.url), cut: () => served.connections.forEach((socket) => socket.destroy()) }
})

for (const [name, client] of clients) {
  it.scopedLive.skipIf(!hasNginx)(
    `a listing that breaks off behind a proxy fails, with ${name}`,
    () =>
      Effect.gen(function*() {
        const { cut, url } = yield* breakingListing
        const storage = yield* HttpStorage.make({ url, retry: Schedule.recurs(0), verify: false })
        expect((yield* storage.list()).length).toBe(20)
        for (const listing of [storage.list(), Stream.runCollect(storage.entries())]) {
          const fiber = yield* Effect.fork(Effect.flip<unknown, StorageError.StorageError, never>(listing))
          yield* Effect.sleep("500 millis")
          cut()
          const failure = yield* Fiber.join(fiber)
          expect(failure).toMatchObject({ _tag: "StorageUnavailable" })
          expect(failure.message).toContain("the listing was cut off")
        }
      }).pipe(Effect.provide(client))
  )
}

// nginx sends a request again to the next server of its upstream when it has waited long enough for a response, and drops the
// connection to the first.
const impatient = (port: number) =>
  nginx(
    `location / {
      proxy_pass http://weights; proxy_set_header Host $http_host; proxy_set_header Connection ""; proxy_http_version 1.1;
      proxy_read_timeout 600ms; proxy_next_upstream error timeout non_idempotent;
    }`,
    `upstream weights { server 127.0.0.1:${port} max_fails=0; server 127.0.0.1:${port} max_fails=0; }`
  )

for (const [name, client] of clients) {
  it.scopedLive.skipIf(!hasNginx)(
    `a conditional write that a proxy repeats, while it is still carried out, is a success with ${name}`,
    () =>
      Effect.gen(function*() {
        const { backend } = yield* MemoryStorage.make()
        let writes = 0
        const slowly = <A, E>(effect: Effect.Effect<A, E>) =>
          Effect.suspend(() => writes++ === 0 ? Effect.zipLeft(effect, Effect.sleep("1 second")) : effect)
        const direct = Storage.make({
          ...backend,
          save: (...args) => slowly(backend.save(...args)),
          remove: (...args) => slowly(backend.remove(...args))
        })
        const { port } = yield* serveOf(direct, { writable: true })
        const storage = yield* HttpStorage.make({ url: yield* impatient(port), retry: Schedule.recurs(0) })
        const { etag } = yield* storage.save("key", bytes(1000), { ifNoneMatch: "*" })
        expect([writes, etag]).toEqual([2, (yield* direct.head("key")).etag])
        writes = 0
        const replaced = yield* storage.save("key", Stream.make(bytes(2000)), { ifMatch: etag })
        expect([writes, replaced.etag]).toEqual([2, (yield* direct.head("key")).etag])
        writes = 0
        yield* storage.remove("key", { ifMatch: replaced.etag })
        expect([writes, yield* direct.list()]).toEqual([2, []])
      }).pipe(Effect.provide(client))
  )
}
