/**
 * Streams that read into one array over and over: for those who ask for it and say when they are done, and nobody else.
 */
import { HttpMiddleware, HttpRouter, HttpServer, HttpServerResponse } from "@effect/platform"
import * as NodeHttpServer from "@effect/platform-node/NodeHttpServer"
import { describe, expect, it } from "@effect/vitest"
import { Context, Effect, Layer, Stream } from "effect"
import * as http from "node:http"
import { FileSystemStorage, Storage, StorageBackend, StoragePrefix, WeightServer } from "surfing-weights"
import * as Lending from "../../src/internal/lending.js"
import { temporaryDirectory } from "../support/directory.js"
import { ask, serveOf } from "../support/weightServer.js"

const KiB = 1024
const MiB = 1024 * KiB

const size = 4 * MiB + 5

/** Bytes that do not repeat where a chunk begins. */
const content = Uint8Array.from({ length: size }, (_, at) => Math.imul(at, 0x9e3779b1) >>> 24)

/** What was got, as it was then, and how many arrays it came in. */
const collect = <E, R>(stream: Stream.Stream<Uint8Array, E, R>) =>
  Effect.gen(function*() {
    const arrays = new Set<ArrayBufferLike>()
    const copies: Array<Uint8Array> = []
    yield* Stream.runForEach(stream, (chunk) =>
      Effect.sync(() => {
        arrays.add(chunk.buffer)
        copies.push(new Uint8Array(chunk))
      }))
    return { arrays: arrays.size, whole: Buffer.concat(copies).equals(content) }
  })

const inDirectory = Effect.gen(function*() {
  const storage = yield* FileSystemStorage.make({ directory: yield* temporaryDirectory })
  yield* storage.save("folder/object", content)
  return storage
})

const chunkSize = 512 * KiB
const count = Math.ceil(size / chunkSize)

describe("a stream of a file", () => {
  it.scopedLive("gives each chunk as an array of its own to whoever does not borrow", () =>
    Effect.gen(function*() {
      const storage = yield* inDirectory
      const opened = yield* storage.open("folder/object", { chunkSize })
      expect(yield* collect(opened.stream)).toEqual({ arrays: count, whole: true })
      expect(yield* collect(storage.stream("folder/object", { chunkSize }))).toEqual({ arrays: count, whole: true })
      const chunks = yield* Stream.runCollect(opened.stream)
      expect(Buffer.concat([...chunks]).equals(content)).toBe(true)
    }))

  it.scopedLive("comes in one array where each chunk is done with before the next, its last one too", () =>
    Effect.gen(function*() {
      const storage = yield* inDirectory
      const opened = yield* storage.open("folder/object", { chunkSize })
      expect(yield* collect(Lending.borrow(opened.stream, () => true))).toEqual({ arrays: 1, whole: true })
    }))

  it.scopedLive("takes another array where the last chunk is still in use", () =>
    Effect.gen(function*() {
      const storage = yield* inDirectory
      const opened = yield* storage.open("folder/object", { chunkSize })
      let asked = 0
      const kept: Array<Uint8Array> = []
      yield* Stream.runForEach(
        Lending.borrow(opened.stream, () => ++asked !== 3),
        (chunk) => Effect.sync(() => void kept.push(chunk))
      )
      expect(asked).toBe(count - 1)
      expect(kept.map(({ buffer }) => buffer === kept[0]?.buffer)).toEqual(
        Array.from({ length: count }, (_, index) => index < 3)
      )
      // What was in use has not been written to.
      expect(Buffer.from(kept[2] ?? []).equals(content.subarray(2 * chunkSize, 3 * chunkSize))).toBe(true)
    }))

  it.scopedLive("lends below a prefix", () =>
    Effect.gen(function*() {
      const storage = yield* StoragePrefix.make(yield* inDirectory, "folder")
      const opened = yield* storage.open("object", { chunkSize })
      expect(yield* collect(Lending.borrow(opened.stream, () => true))).toEqual({ arrays: 1, whole: true })
    }))

  it.scopedLive("lends nothing once something else is made of it, which may keep what it sees", () =>
    Effect.gen(function*() {
      const kept: Array<Uint8Array> = []
      const { backend } = yield* inDirectory
      const storage = Storage.make(StorageBackend.make({
        ...backend,
        open: (key, options) =>
          Effect.map(backend.open(key, options), (opened) => ({
            ...opened,
            stream: Stream.tap(opened.stream, (chunk) => Effect.sync(() => void kept.push(chunk)))
          }))
      }))
      const opened = yield* storage.open("folder/object", { chunkSize })
      expect(yield* collect(Lending.borrow(opened.stream, () => true))).toEqual({ arrays: count, whole: true })
      expect(Buffer.concat(kept).equals(content)).toBe(true)
    }))
})

/** The same storage, and the arrays in which it has given an object so far. */
const counting = Effect.map(inDirectory, ({ backend }) => {
  const arrays = new Set<ArrayBufferLike>()
  const storage = Storage.make(StorageBackend.make({
    ...backend,
    open: (key, options) =>
      Effect.map(backend.open(key, options), (opened) => ({
        ...opened,
        stream: Lending.map(opened.stream, Stream.tap((chunk) => Effect.sync(() => void arrays.add(chunk.buffer))))
      }))
  }))
  return { storage, arrays }
})

describe("a weight server", () => {
  it.scopedLive("sends an object from one array", () =>
    Effect.gen(function*() {
      const { arrays, storage } = yield* counting
      const served = yield* serveOf(storage)
      for (let times = 1; times <= 3; times++) {
        const { body } = yield* ask(served, "GET", "/objects/folder/object")
        expect(body.equals(content)).toBe(true)
        expect(arrays.size).toBe(times)
      }
    }))

  it.scopedLive("takes an array for each chunk where others see the answer: with middleware, or within an app", () =>
    Effect.gen(function*() {
      const { arrays, storage } = yield* counting
      const kept: Array<Uint8Array> = []
      const keeping = HttpMiddleware.make((app) =>
        Effect.map(app, (response) =>
          response.body._tag === "Stream"
            ? HttpServerResponse.stream(
              Stream.tap(response.body.stream, (chunk) => Effect.sync(() => void kept.push(chunk))),
              { headers: response.headers }
            )
            : response)
      )
      const inApp = Effect.gen(function*() {
        const router = yield* Effect.provideService(WeightServer.router(), Storage.Storage, storage)
        const context = yield* Layer.build(
          NodeHttpServer.layerServer(() => http.createServer(), { host: "127.0.0.1", port: 0 })
        )
        yield* Effect.provide(HttpServer.serveEffect(HttpRouter.use(router, keeping)), context)
        const { address } = Context.get(context, HttpServer.HttpServer)
        return { port: address._tag === "TcpAddress" ? address.port : 0 }
      })
      for (const serving of [serveOf(storage, { auth: (app) => keeping(app) }), inApp]) {
        const served = yield* serving
        kept.length = 0
        arrays.clear()
        const { body } = yield* ask(served, "GET", "/objects/folder/object")
        expect(body.equals(content)).toBe(true)
        expect(arrays.size).toBe(count)
        expect(Buffer.concat(kept).equals(content)).toBe(true)
      }
    }))
})
