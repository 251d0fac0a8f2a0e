/**
 * Conditional writes that arrive twice at a weight server: one after the other, at once, and where the first one's client is
 * gone.
 */
import { describe, expect, it } from "@effect/vitest"
import { Deferred, Effect, Fiber } from "effect"
import { once } from "node:events"
import * as net from "node:net"
import { MemoryStorage, Storage, type StorageBackend, StorageError } from "surfing-weights"
import { intercepting } from "../../support/intercepting.js"
import { ask, eventually, type Served, serveOf } from "../../support/weightServer.js"

const create = { "if-none-match": "*", "idempotency-key": "\"one\"" }
const put = (served: Served, headers: Record<string, string>, body = "weights", key = "k") =>
  ask(served, "PUT", `/objects/${key}`, { "content-length": body.length, ...headers }, body)

/** A server on a storage whose saves wait for `go` once they are done, and how many have got there. */
const heldUp = Effect.gen(function*() {
  const go = yield* Deferred.make<void>()
  let arrived = 0
  const storage = intercepting(yield* MemoryStorage.make(), {
    around: (effect, { operation }) =>
      operation !== "save" ? effect : Effect.zipLeft(
        effect,
        Effect.suspend(() => {
          arrived++
          return Deferred.await(go)
        })
      )
  })
  return {
    served: yield* serveOf(storage, { writable: true }),
    go: Deferred.succeed(go, undefined),
    arrived: () => arrived
  }
})

/** Sends the head of a save of 7 bytes and these bytes of it. */
const sendRaw = ({ port }: Served, body: string) =>
  Effect.promise(async () => {
    const socket = net.connect(port, "127.0.0.1")
    const headers = ["host: 127.0.0.1", "if-none-match: *", "idempotency-key: \"one\"", "content-length: 7"]
    socket.write(`PUT /objects/k HTTP/1.1\r\n${headers.join("\r\n")}\r\n\r\n${body}`)
    await once(socket, "connect")
    return socket
  })

const textOf = (storage: Storage.Service, key = "k") =>
  Effect.map(storage.load(key), (bytes) => Buffer.from(bytes).toString())

describe("a conditional write with an idempotency-key", () => {
  it.scopedLive("gets the first response again when it arrives twice", () =>
    Effect.gen(function*() {
      const served = yield* serveOf(yield* MemoryStorage.make(), { writable: true })
      const first = yield* put(served, create)
      const again = yield* put(served, create)
      expect([first.status, again.status]).toEqual([201, 201])
      expect([again.text, again.headers.etag]).toEqual([first.text, first.headers.etag])
      const replace = { "if-match": String(first.headers.etag), "idempotency-key": "\"one\"" }
      const replaced = yield* put(served, replace, "changed")
      expect([replaced.status, (yield* put(served, replace, "changed")).text]).toEqual([200, replaced.text])
      expect(yield* textOf(served.storage)).toBe("changed")
      const remove = { "if-match": String(replaced.headers.etag), "idempotency-key": "\"one\"" }
      for (let i = 0; i < 2; i++) expect((yield* ask(served, "DELETE", "/objects/k", remove)).status).toBe(204)
      expect(yield* served.storage.list()).toEqual([])
    }))

  it.scopedLive("is refused where another write came first, as is one under another id, key, precondition or length", () =>
    Effect.gen(function*() {
      const served = yield* serveOf(yield* MemoryStorage.make(), { writable: true })
      yield* served.storage.save("taken", new Uint8Array(1))
      for (let i = 0; i < 2; i++) expect((yield* put(served, create, "weights", "taken")).status).toBe(412)
      const { headers: { etag }, status } = yield* put(served, create)
      expect(status).toBe(201)
      expect((yield* put(served, { ...create, "idempotency-key": "\"two\"" })).status).toBe(412)
      expect((yield* put(served, create, "more weights")).status).toBe(412)
      expect((yield* put(served, { "if-match": "\"other\"", "idempotency-key": "\"one\"" })).status).toBe(412)
      expect((yield* put(served, create, "weights", "taken")).status).toBe(412)
      expect((yield* put(served, { "if-none-match": "*" })).status).toBe(412)
      expect(
        (yield* ask(served, "DELETE", "/objects/k", { "if-match": "\"other\"", "idempotency-key": "\"one\"" })).status
      )
        .toBe(412)
      expect((yield* served.storage.head("k")).etag).toBe(String(etag).slice(1, -1))
    }))

  it.scopedLive("waits for the other one where both are under way", () =>
    Effect.gen(function*() {
      const { arrived, go, served } = yield* heldUp
      const first = yield* Effect.fork(put(served, create))
      yield* eventually("the first save", () => arrived() === 1)
      const second = yield* Effect.fork(put(served, create))
      yield* Effect.sleep("200 millis")
      expect(yield* Fiber.poll(second)).toMatchObject({ _tag: "None" })
      yield* go
      const [{ status, text }, again] = [yield* Fiber.join(first), yield* Fiber.join(second)]
      expect([status, again.status, again.text]).toEqual([201, 201, text])
    }))

  it.scopedLive("goes on when its client is gone, and its repetition hears what became of it", () =>
    Effect.gen(function*() {
      const { arrived, go, served } = yield* heldUp
      const socket = yield* sendRaw(served, "weights")
      yield* eventually("the first save", () => arrived() === 1)
      socket.destroy()
      yield* eventually("the end of the connection", () => served.connections[0]?.destroyed === true)
      yield* Effect.sleep("100 millis")
      const second = yield* Effect.fork(put(served, create))
      yield* Effect.sleep("200 millis")
      yield* go
      const { status, text } = yield* Fiber.join(second)
      expect([status, JSON.parse(text)]).toMatchObject([201, { key: "k", size: 7 }])
    }))

  it.scopedLive("saves nothing where its client is gone in the middle of the body, and its repetition saves", () =>
    Effect.gen(function*() {
      const served = yield* serveOf(yield* MemoryStorage.make(), { writable: true })
      const socket = yield* sendRaw(served, "wei")
      yield* eventually("the request", () => (served.connections[0]?.bytesRead ?? 0) > 0)
      yield* Effect.sleep("100 millis")
      socket.destroy()
      yield* eventually("the end of the connection", () => served.connections[0]?.destroyed === true)
      yield* Effect.sleep("100 millis")
      expect(yield* served.storage.list()).toEqual([])
      expect((yield* put(served, create)).status).toBe(201)
      expect(yield* textOf(served.storage)).toBe("weights")
    }))

  it.scopedLive("is in doubt where the storage did not say what became of the first one", () =>
    Effect.gen(function*() {
      const { backend } = yield* MemoryStorage.make()
      let isLost = true
      const save: StorageBackend.StorageBackend["save"] = (...args) =>
        Effect.tap(backend.save(...args), () => {
          const lost = isLost
          isLost = false
          return lost ? new StorageError.StorageUnavailable({ reason: "the response was lost" }) : Effect.void
        })
      const served = yield* serveOf(Storage.make({ ...backend, save }), { writable: true })
      expect((yield* put(served, create)).status).toBe(503)
      const { status, text } = yield* put(served, create)
      expect([status, text]).toEqual([503, expect.stringContaining("whose outcome is unknown")])
      // Not so for a write that has nothing to do with it.
      expect((yield* put(served, { ...create, "idempotency-key": "\"two\"" })).status).toBe(412)
    }))

  it.scopedLive("has an id of 1 to 255 characters", () =>
    Effect.gen(function*() {
      const served = yield* serveOf(yield* MemoryStorage.make(), { writable: true })
      for (const length of [0, 256]) {
        const headers = { "if-none-match": "*", "idempotency-key": "x".repeat(length) }
        const { status, text } = yield* put(served, headers)
        expect([status, text]).toEqual([400, expect.stringContaining(`${length} characters; use 1 to 255`)])
        const remove = { "if-match": "*", "idempotency-key": "x".repeat(length) }
        expect((yield* ask(served, "DELETE", "/objects/k", remove)).status).toBe(400)
      }
      expect((yield* put(served, { ...create, "idempotency-key": "x".repeat(255) })).status).toBe(201)
    }))
})
