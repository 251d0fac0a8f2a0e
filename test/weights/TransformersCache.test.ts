/**
 * A storage as the cache of transformers.js: matches, puts and deletes, keys, hostile requests and broken streams.
 */
import { describe, expect, it } from "@effect/vitest"
import { Effect, FastCheck, type Layer, Stream } from "effect"
import { setImmediate } from "node:timers/promises"
import {
  ByteRange,
  MemoryStorage,
  Storage,
  StorageChaos,
  StorageError,
  StorageReadOnly,
  TransformersCache
} from "surfing-weights"
import { storageOnDirectory } from "../support/directory.js"
import { type Call, intercepting, noting, pattern } from "../support/intercepting.js"

const cacheOn = (storage: Storage.Service, prefix = "cache") =>
  Effect.provideService(TransformersCache.make(prefix), Storage.Storage, storage)

const setup = Effect.gen(function*() {
  const storage = yield* MemoryStorage.make()
  return { storage, cache: yield* cacheOn(storage) }
})

const failureOf = <A>(promise: () => Promise<A>) =>
  Effect.promise(() =>
    promise().then(() => {
      throw new Error("it succeeded")
    }, (error: unknown) => error)
  )

/** Lets the event loop run some turns, in which what is read ahead would be read. */
const turns = (count: number) =>
  Effect.promise(async () => {
    for (let i = 0; i < count; i++) await setImmediate()
  })

const host = "https://huggingface.co"
const address = `${host}/Xenova/bert/resolve/main/onnx/model.onnx`
const key = "cache/huggingface.co/Xenova/bert/resolve/main/onnx/model.onnx"

const bytesOf = (response: Response | undefined) =>
  Effect.promise(async () => response === undefined ? undefined : new Uint8Array(await response.arrayBuffer()))

/** A reader of the body of a response. */
const readerOf = (response: Response | undefined) =>
  Effect.map(
    Effect.filterOrDieMessage(Effect.succeed(response?.body), (body) => body !== null && body !== undefined, "no body"),
    (body: ReadableStream<Uint8Array>) => body.getReader()
  )

const streamOf = (...chunks: ReadonlyArray<Uint8Array | Error>): ReadableStream<Uint8Array> => {
  const left = [...chunks]
  return new ReadableStream({
    pull: (controller) => {
      const chunk = left.shift()
      if (chunk === undefined) controller.close()
      else if (chunk instanceof Error) controller.error(chunk)
      else controller.enqueue(chunk)
    }
  }, { highWaterMark: 0 })
}

for (
  const { layer, where } of [
    { where: "memory", layer: MemoryStorage.layer() },
    { where: "a directory", layer: storageOnDirectory() }
  ] satisfies ReadonlyArray<{ where: string; layer: Layer.Layer<Storage.Storage, unknown> }>
) {
  describe(`TransformersCache on ${where}`, () => {
    it.effect("saves nothing of a body that breaks off, and keeps the old object", () =>
      Effect.gen(function*() {
        const cache = yield* TransformersCache.make("cache")
        const broken = () => new Response(streamOf(pattern(1000), new Error("the line is dead")))
        expect(yield* failureOf(() => cache.put(address, broken()))).toMatchObject({ message: "the line is dead" })
        expect(yield* Storage.list()).toEqual([])
        expect(yield* Effect.promise(() => cache.match(address))).toBeUndefined()

        yield* Effect.promise(() => cache.put(address, new Response(pattern(10).slice())))
        yield* failureOf(() => cache.put(address, broken()))
        expect(yield* Storage.load(key)).toEqual(pattern(10))
      }).pipe(Effect.provide(layer)))

    it.effect("saves nothing of a body whose length is not its Content-Length", () =>
      Effect.gen(function*() {
        const cache = yield* TransformersCache.make("cache")
        for (const length of ["999", "1001"]) {
          const response = new Response(streamOf(pattern(1000)), { headers: { "content-length": length } })
          expect(yield* failureOf(() => cache.put(address, response))).toMatchObject({ _tag: "CorruptObject" })
        }
        expect(yield* Storage.list()).toEqual([])
      }).pipe(Effect.provide(layer)))
  })
}

describe("TransformersCache.match", () => {
  it.effect("returns length and type, also of objects that were saved by other means", () =>
    Effect.gen(function*() {
      const { cache, storage } = yield* setup
      const types: Readonly<Record<string, string>> = {
        "config.json": "application/json",
        "config.JSON?download=true": "application/json",
        "merges.txt": "text/plain",
        "ort.wasm": "application/wasm",
        "ort.mjs": "text/javascript",
        "model.onnx": "application/octet-stream",
        "json": "application/octet-stream"
      }
      for (const [name, type] of Object.entries(types)) {
        yield* storage.save(`cache/huggingface.co/m/${name}`, pattern(7))
        const response = yield* Effect.promise(() => cache.match(`${host}/m/${name}`))
        expect(response?.status).toBe(200)
        expect(response?.ok).toBe(true)
        expect(Object.fromEntries(response?.headers ?? [])).toEqual({
          "accept-ranges": "bytes",
          "content-length": "7",
          "content-type": type
        })
        expect(yield* bytesOf(response)).toEqual(pattern(7))
      }
      yield* storage.save("cache/huggingface.co/m/a.json", new TextEncoder().encode("{\"a\":1}"))
      const response = yield* Effect.promise(() => cache.match(new URL(`${host}/m/a.json`)))
      expect(yield* Effect.promise(() => response?.json() ?? Promise.resolve())).toEqual({ a: 1 })
      yield* storage.save("cache/huggingface.co/m/empty", new Uint8Array())
      expect(yield* bytesOf(yield* Effect.promise(() => cache.match(`${host}/m/empty`)))).toEqual(new Uint8Array())
    }))

  const size = 100
  const ranges: Readonly<Record<string, [start: number, end: number] | "the whole object" | "nothing">> = {
    "bytes=0-0": [0, 1],
    "bytes=10-19": [10, 20],
    "Bytes=90-": [90, 100],
    "bytes=-5": [95, 100],
    "bytes=-500": [0, 100],
    "bytes=50-500": [50, 100],
    "bytes=99-999999999999999999999": [99, 100],
    "bytes=100-": "nothing",
    "bytes=-0": "nothing",
    "bytes=999999999999999999999-": "nothing",
    "bytes=20-10": "the whole object",
    "bytes=-": "the whole object",
    "bytes=a-b": "the whole object",
    "bytes=0-1,5-6": "the whole object",
    "items=0-1": "the whole object"
  }

  for (const [range, expected] of Object.entries(ranges)) {
    it.effect(`returns ${typeof expected === "string" ? expected : `bytes ${expected.join(" to ")}`} for Range: ${range}`, () =>
      Effect.gen(function*() {
        const { cache, storage } = yield* setup
        const calls: Array<Call> = []
        yield* storage.save(key, pattern(size))
        const watched = yield* cacheOn(noting(storage, calls))
        const request = () => new Request(address, { headers: { range } })
        const response = yield* Effect.promise(() => cache.match(request()))
        if (expected === "nothing") return expect(response).toBeUndefined()
        const [start, end] = expected === "the whole object" ? [0, size] : expected
        expect(response?.status).toBe(expected === "the whole object" ? 200 : 206)
        expect(response?.headers.get("content-range"))
          .toBe(expected === "the whole object" ? null : `bytes ${start}-${end - 1}/${size}`)
        expect(response?.headers.get("content-length")).toBe(String(end - start))
        expect(yield* bytesOf(response)).toEqual(pattern(size).slice(start, end))
        // Only this range is read.
        yield* bytesOf(yield* Effect.promise(() => watched.match(request())))
        const opened = calls.find(({ operation }) => operation === "open")?.args[1]
        expect(Object.keys(opened ?? {})).toEqual(expected === "the whole object" ? ["ifMatch"] : ["ifMatch", "range"])
      }))
  }

  it.effect("returns the whole object for If-Range, and nothing for methods other than GET", () =>
    Effect.gen(function*() {
      const { cache, storage } = yield* setup
      yield* storage.save(key, pattern(size))
      const conditional = new Request(address, { headers: { "range": "bytes=0-0", "if-range": "\"x\"" } })
      expect((yield* Effect.promise(() => cache.match(conditional)))?.status).toBe(200)
      for (const method of ["HEAD", "POST", "DELETE"]) {
        expect(yield* Effect.promise(() => cache.match(new Request(address, { method })))).toBeUndefined()
      }
    }))

  it.effect("reads no more than the first bytes before the body is read, and then reads at most three chunks ahead", () =>
    Effect.gen(function*() {
      const { storage } = yield* setup
      yield* storage.save(key, pattern(10))
      const calls: Array<Call> = []
      let given = 0
      const slow = intercepting(noting(storage, calls), {
        through: () => Stream.map(Stream.rechunk(Stream.range(0, 999), 1), () => (given++, pattern(10))) as never
      })
      const cache = yield* cacheOn(Storage.make({
        ...slow.backend,
        head: (key) => Effect.map(slow.backend.head(key), (info) => ({ ...info, size: 10_000 }))
      }))
      const response = yield* Effect.promise(() => cache.match(address))
      yield* turns(20)
      expect(calls.map(({ args: [key], operation }) => [operation, key])).toEqual([
        ["head", key],
        ["load", `${key}%sha256`],
        ["load", key]
      ])
      expect(calls[2]?.args[1]).toMatchObject({ range: ByteRange.make(0, 512) })
      const reader = yield* readerOf(response)
      for (let i = 1; i <= 5; i++) {
        yield* Effect.promise(() => reader.read())
        yield* turns(20)
        expect(given).toBeGreaterThanOrEqual(i)
        expect(given).toBeLessThanOrEqual(i + 3)
      }
      yield* Effect.promise(() => reader.cancel())
    }))

  it.effect("closes the object when the body is cancelled", () =>
    Effect.gen(function*() {
      const { storage } = yield* setup
      yield* storage.save(key, pattern(10))
      const events: Array<string> = []
      const cache = yield* cacheOn(intercepting(storage, {
        through: (stream) =>
          Stream.concat(stream, Stream.never).pipe(
            Stream.onStart(Effect.sync(() => void events.push("opened"))),
            Stream.ensuring(Effect.sync(() => void events.push("closed")))
          )
      }))
      const response = yield* Effect.promise(() => cache.match(address))
      const reader = yield* readerOf(response)
      yield* Effect.promise(() => reader.read())
      expect(events).toEqual(["opened"])
      // Also while a read waits.
      const waiting = reader.read()
      yield* Effect.promise(() => reader.cancel())
      expect(events).toEqual(["opened", "closed"])
      expect(yield* Effect.promise(() => waiting)).toMatchObject({ done: true })
    }))

  it.effect("returns a body that fails if the stream breaks or the object is overwritten or removed", () =>
    Effect.gen(function*() {
      const { cache, storage } = yield* setup
      yield* storage.save(key, pattern(1000))
      const chaos = yield* StorageChaos.make(storage, [{ operation: "open", afterBytes: 300 }])
      const breaking = yield* cacheOn(chaos)
      const broken = yield* Effect.promise(() => breaking.match(address))
      const reader = yield* readerOf(broken)
      expect(yield* Effect.promise(() => reader.read())).toMatchObject({ done: false })
      expect(yield* failureOf(() => reader.read())).toBeInstanceOf(
        StorageError.StorageUnavailable
      )

      const overwritten = yield* Effect.promise(() => cache.match(address))
      yield* storage.save(key, pattern(1001))
      expect(yield* failureOf(() => Promise.resolve(overwritten?.arrayBuffer()))).toMatchObject({
        _tag: "PreconditionFailed"
      })
      const removed = yield* Effect.promise(() => cache.match(address))
      yield* storage.remove(key)
      expect(yield* failureOf(() => Promise.resolve(removed?.arrayBuffer()))).toMatchObject({
        _tag: "ObjectNotFound"
      })
    }))

  it.effect("says what to do about a request without an address, as version 3 makes in Node.js", () =>
    Effect.gen(function*() {
      const { storage } = yield* setup
      for (const onFailure of ["fail", "miss"] as const) {
        const cache = yield* Effect.provideService(
          TransformersCache.make("cache", { onFailure }),
          Storage.Storage,
          storage
        )
        const match: (request?: string) => Promise<unknown> = cache.match as never
        expect(String(yield* failureOf(() => match()))).toContain("set env.useFSCache to false, or use version 4")
      }
    }))

  it.effect("rejects with the failure of the storage, which is not a miss", () =>
    Effect.gen(function*() {
      const { storage } = yield* setup
      const cache = yield* cacheOn(yield* StorageChaos.make(storage, [{ operation: "head" }]))
      expect(yield* failureOf(() => cache.match(address))).toBeInstanceOf(StorageError.StorageUnavailable)
      expect(yield* Effect.promise(() => cache.match(address))).toBeUndefined()
    }))
})

describe("TransformersCache.put", () => {
  it.effect("streams the body, and announces its length as size", () =>
    Effect.gen(function*() {
      const { storage } = yield* setup
      const calls: Array<Call> = []
      const cache = yield* cacheOn(noting(storage, calls))
      const headers = { "content-length": "30" }
      const progress: Array<TransformersCache.Progress> = []
      yield* Effect.promise(() =>
        cache.put(
          address,
          new Response(streamOf(pattern(10), pattern(20)), { headers }),
          (step) => void progress.push(step)
        )
      )
      expect(calls[0]).toMatchObject({ operation: "save", args: [key, {}, { size: 30 }] })
      // The SHA-256.
      expect(calls.slice(1).map(({ args: [key], operation }) => [operation, key])).toEqual([["save", `${key}%sha256`]])
      expect(yield* storage.load(key)).toEqual(new Uint8Array([...pattern(10), ...pattern(20)]))
      expect(progress).toEqual([
        { progress: (10 / 30) * 100, loaded: 10, total: 30 },
        { progress: 100, loaded: 30, total: 30 }
      ])
    }))

  it.effect("ignores the Content-Length of a compressed body", () =>
    Effect.gen(function*() {
      const { cache, storage } = yield* setup
      const headers = { "content-length": "5", "content-encoding": "gzip" }
      const progress: Array<TransformersCache.Progress> = []
      yield* Effect.promise(() =>
        cache.put(address, new Response(streamOf(pattern(30)), { headers }), (step) => void progress.push(step))
      )
      expect(yield* storage.load(key)).toEqual(pattern(30))
      expect(progress).toEqual([{ progress: 0, loaded: 30, total: 0 }])
      yield* Effect.promise(() => cache.put(address, new Response(null)))
      expect(yield* storage.load(key)).toEqual(new Uint8Array())
    }))

  it.effect("accepts only unread responses of status 200 to GET, and does not read others", () =>
    Effect.gen(function*() {
      const { cache, storage } = yield* setup
      for (const status of [201, 206, 301, 404, 500]) {
        const response = new Response("body", { status })
        const error = yield* failureOf(() => cache.put(address, response))
        expect(error).toMatchObject({ _tag: "UnsupportedOperation", operation: "put" })
        expect((error as Error).message).toContain(String(status))
        expect(yield* Effect.promise(() => response.text())).toBe("body")
      }
      const post = new Request(address, { method: "POST" })
      expect(yield* failureOf(() => cache.put(post, new Response("x")))).toMatchObject({ _tag: "UnsupportedOperation" })
      const read = new Response("x")
      yield* Effect.promise(() => read.text())
      const locked = new Response("x")
      locked.body?.getReader()
      for (const response of [read, locked]) {
        expect(yield* failureOf(() => cache.put(address, response))).toMatchObject({
          _tag: "UnsupportedOperation",
          reason: "the body has been read already"
        })
      }
      expect(yield* storage.list()).toEqual([])
    }))

  it.effect("cancels the body if the storage fails before or after the first read", () =>
    Effect.gen(function*() {
      const { storage } = yield* setup
      for (const rule of [{ operation: "save" }, { operation: "save", afterBytes: 15 }] as const) {
        let cancelled = 0
        const body = new ReadableStream<Uint8Array>({
          pull: (controller) => controller.enqueue(pattern(10)),
          cancel: () => void cancelled++
        })
        const cache = yield* cacheOn(yield* StorageChaos.make(storage, [rule]))
        expect(yield* failureOf(() => cache.put(address, new Response(body)))).toMatchObject({
          _tag: "StorageUnavailable"
        })
        expect(cancelled).toBe(1)
        expect(yield* storage.list()).toEqual([])
      }
    }))

  it.effect("reads the body with back-pressure", () =>
    Effect.gen(function*() {
      const { storage } = yield* setup
      let given = 0
      let taken = 0
      let most = 0
      const cache = yield* cacheOn(Storage.make({
        ...storage.backend,
        save: (key, data, options) =>
          data instanceof Uint8Array ? storage.backend.save(key, data, options) : Effect.zipRight(
            Stream.runForEach(data, () =>
              Effect.sync(() => {
                most = Math.max(most, given - taken)
                taken++
              }).pipe(Effect.zipRight(turns(3)))),
            storage.backend.save(key, new Uint8Array(), options)
          )
      }))
      const body = new ReadableStream<Uint8Array>({
        pull: (controller) => given++ < 100 ? controller.enqueue(pattern(1000)) : controller.close()
      })
      yield* Effect.promise(() => cache.put(address, new Response(body)))
      expect(taken).toBe(100)
      expect(most).toBeLessThanOrEqual(4)
    }))
})

describe("the content of a TransformersCache", () => {
  const at = (name: string) => `${host}/Xenova/bert/resolve/main/${name}`
  const html = "<!DOCTYPE html>\n<html><head><title>Sign in</title></head></html>"
  const pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:" + "ab".repeat(32) + "\nsize 438000000\n"
  const onnx = new Uint8Array([0x08, 0x07, 0x12, 0x07, ...new TextEncoder().encode("pytorch"), 0x1a, 0x05])

  type Case = readonly [name: string, body: string | Uint8Array<ArrayBuffer>, type: string, says: string]

  const refused: ReadonlyArray<Case> = [
    ["config.json", "<!doctype html>", "text/html", "it is an HTML page (Content-Type: text/html)"],
    ["config.json", html, "application/json", "it is an HTML page, not JSON"],
    ["config.json", `\ufeff\n <!-- portal -->${html}`, "", "it is an HTML page, not JSON"],
    ["config.json", "<?xml version=\"1.0\"?><Error><Code>AccessDenied</Code></Error>", "", "it is an XML document"],
    ["config.json", "Access to this model is restricted", "text/plain", "it is not valid JSON"],
    ["config.json", "{\"model_type\": \"bert\", \"hid", "application/json", "it is not valid JSON"],
    ["config.json", "", "application/json", "it is not valid JSON"],
    ["config.json?download=true", html, "", "it is an HTML page, not JSON"],
    ["tokenizer.json", pointer, "text/plain", "it is a Git LFS pointer to a file of 438000000 bytes"],
    ["onnx/model.onnx", html, "text/html; charset=utf-8", "it is an HTML page (Content-Type: text/html"],
    ["onnx/model.onnx", html, "application/octet-stream", "it is an HTML page, not the file"],
    ["onnx/model.onnx", pointer, "", "run \"git lfs pull\""],
    ["onnx/model.onnx", "{\"error\":\"Invalid username or password.\"}", "application/json", "it is a JSON document"],
    ["onnx/model.onnx", "Too many requests", "text/plain", "it is a text that starts with"],
    ["onnx/model.onnx_data", html.padEnd(5000), "", "it is an HTML page"],
    ["onnx/model.onnx_data_1", pointer, "", "it is a Git LFS pointer"],
    ["model.safetensors", pointer, "", "it is a Git LFS pointer"],
    ["vocab.txt", html, "text/html", "it is an HTML page"],
    ["merges.txt", html, "text/plain", "it is an HTML page, not the file"],
    ["ort-wasm.wasm", html, "", "it is an HTML page"]
  ]

  for (const [name, body, type, says] of refused) {
    it.effect(`is never ${says.slice(6, 40)}… for ${name}, which came as ${type || "no type"}`, () =>
      Effect.gen(function*() {
        const { cache, storage } = yield* setup
        // In pieces, as from a network.
        const bytes = typeof body === "string" ? new TextEncoder().encode(body) : body
        const pieces = Array.from({ length: Math.ceil(bytes.length / 7) }, (_, i) => bytes.slice(7 * i, 7 * i + 7))
        const response = new Response(streamOf(...pieces), { headers: type === "" ? {} : { "content-type": type } })
        const error = yield* failureOf(() => cache.put(at(name), response))
        expect(error).toMatchObject({ _tag: "CorruptObject", problem: "frame", operation: "put" })
        expect((error as Error).message).toContain(says)
        expect(yield* storage.list()).toEqual([])
        expect(yield* Effect.promise(() => cache.match(at(name)))).toBeUndefined()
      }))
  }

  const accepted: ReadonlyArray<readonly [name: string, body: string | Uint8Array<ArrayBuffer>, type: string]> = [
    ["config.json", "{\"model_type\": \"bert\"}", "text/plain"],
    ["tokenizer.json", JSON.stringify({ vocab: Array.from({ length: 20_000 }, (_, i) => `piece ${i}`) }), ""],
    ["special_tokens_map.json", "[]", "application/json"],
    ["onnx/model.onnx", onnx, "text/plain"],
    ["onnx/model.onnx", onnx, "application/json"],
    ["onnx/model.onnx_data", new Uint8Array(1000), ""],
    ["vocab.txt", "<s>\n<pad>\n</s>\n<unk>\n[CLS]", "text/plain"],
    ["chat_template.jinja", "{%- if tools %}<|im_start|>system", "text/plain"],
    ["preview.html", html, "text/html"],
    ["ort-wasm.wasm", new Uint8Array([0, 0x61, 0x73, 0x6d, 1, 0, 0, 0]), ""],
    ["vocab.bpe", "#version: 0.2\nt h\n", "text/plain"]
  ]

  for (const [name, body, type] of accepted) {
    it.effect(`may be ${JSON.stringify(String(body).slice(0, 25))}… for ${name}, as ${type || "no type"}`, () =>
      Effect.gen(function*() {
        const { cache } = yield* setup
        const headers = type === "" ? {} : { "content-type": type }
        yield* Effect.promise(() => cache.put(at(name), new Response(body, { headers })))
        const found = yield* Effect.promise(() => cache.match(at(name)))
        expect(yield* bytesOf(found)).toEqual(
          new Uint8Array(yield* Effect.promise(() => new Response(body).arrayBuffer()))
        )
      }))
  }

  it.effect("is not found if a page is in its place already, and the file can be put", () =>
    Effect.gen(function*() {
      const { cache, storage } = yield* setup
      const name = "cache/huggingface.co/Xenova/bert/resolve/main/config.json"
      yield* storage.save(name, new TextEncoder().encode(html))
      expect(yield* Effect.promise(() => cache.match(at("config.json")))).toBeUndefined()
      yield* Effect.promise(() => cache.put(at("config.json"), new Response("{}")))
      const found = yield* Effect.promise(() => cache.match(at("config.json")))
      expect(yield* bytesOf(found)).toEqual(new TextEncoder().encode("{}"))
    }))

  for (
    const { layer, where } of [
      { where: "memory", layer: MemoryStorage.layer() },
      { where: "a directory", layer: storageOnDirectory() }
    ] satisfies ReadonlyArray<{ where: string; layer: Layer.Layer<Storage.Storage, unknown> }>
  ) {
    const damages: Readonly<Record<string, (bytes: Uint8Array) => Uint8Array>> = {
      "a flipped bit": (bytes) => bytes.map((byte, i) => i === 70_000 ? byte ^ 1 : byte),
      "zeros at its end": (bytes) => bytes.map((byte, i) => i > 90_000 ? 0 : byte),
      "the end missing": (bytes) => bytes.slice(0, -1),
      "nothing left": () => new Uint8Array()
    }
    for (const [what, damage] of Object.entries(damages)) {
      it.effect(`is removed from ${where} with ${what}, and found again when it is put again`, () =>
        Effect.gen(function*() {
          const bytes = pattern(100_000).slice()
          const before = yield* TransformersCache.make("cache")
          yield* Effect.promise(() => before.put(address, new Response(bytes)))
          yield* Storage.save(key, damage(bytes))
          for (const cache of [before, yield* TransformersCache.make("cache")]) {
            expect(yield* Effect.promise(() => cache.match(address))).toBeUndefined()
            expect(yield* Storage.list()).toEqual([])
            yield* Effect.promise(() => cache.put(address, new Response(bytes)))
            expect(yield* bytesOf(yield* Effect.promise(() => cache.match(address)))).toEqual(bytes)
            yield* Storage.save(key, damage(bytes))
          }
        }).pipe(Effect.provide(layer)))
    }
  }

  it.effect("is removed if its SHA-256 is damaged, and compared once for each version", () =>
    Effect.gen(function*() {
      const { cache: putting, storage } = yield* setup
      yield* Effect.promise(() => putting.put(address, new Response(pattern(1000).slice())))
      expect(new TextDecoder().decode(yield* storage.load(`${key}%sha256`))).toMatch(/^[0-9a-f]{64}\n$/)
      const calls: Array<Call> = []
      const cache = yield* cacheOn(noting(storage, calls))
      for (let i = 0; i < 3; i++) expect(yield* Effect.promise(() => cache.match(address))).toBeDefined()
      expect(calls.map(({ operation }) => operation)).toEqual(["head", "load", "open", "head", "head"])
      yield* storage.save(`${key}%sha256`, pattern(64))
      const other = yield* cacheOn(storage)
      expect(yield* Effect.promise(() => other.match(address))).toBeUndefined()
    }))
})

describe("TransformersCache with onFailure: \"miss\"", () => {
  const missing = (storage: Storage.Service) =>
    Effect.provideService(TransformersCache.make("cache", { onFailure: "miss" }), Storage.Storage, storage)

  /** A response that comes from `fetch`, unlike those that are made from bytes. */
  const fetched = (response: Response) => Object.defineProperty(response, "url", { value: address })

  it.effect("resolves a put that fails, and finds nothing, where the storage is down, full or read-only", () =>
    Effect.gen(function*() {
      const { storage } = yield* setup
      yield* storage.save(key, pattern(10))
      for (
        const broken of [
          Storage.make({
            ...storage.backend,
            head: () => Effect.fail(new StorageError.StorageUnavailable({ reason: "down" })),
            save: () => Effect.fail(new StorageError.StorageFull({ reason: "the disk is full" }))
          })
        ]
      ) {
        const cache = yield* missing(broken)
        expect(yield* Effect.promise(() => cache.match(address))).toBeUndefined()
        yield* Effect.promise(() => cache.put(address, new Response(pattern(10).slice())))
        expect(yield* Effect.promise(() => cache.match(address))).toBeUndefined()
      }
    }))

  it.effect("returns a response of fetch that could not be saved to the next match, whole, and once", () =>
    Effect.gen(function*() {
      const { storage } = yield* setup
      const readOnly = yield* StorageReadOnly.make(storage)
      const breaking = yield* StorageChaos.make(storage, [{ operation: "save", afterBytes: 15 }])
      for (const broken of [readOnly, breaking]) {
        const cache = yield* missing(broken)
        const response = () => fetched(new Response(streamOf(pattern(10), pattern(20), pattern(30))))
        yield* Effect.promise(() => cache.put(address, response()))
        expect(yield* bytesOf(yield* Effect.promise(() => cache.match(address))))
          .toEqual(new Uint8Array([...pattern(10), ...pattern(20), ...pattern(30)]))
        expect(yield* Effect.promise(() => cache.match(address))).toBeUndefined()
        expect(yield* storage.list()).toEqual([])
      }
    }))

  it.effect("still rejects a body that breaks off, is cut short or is a page", () =>
    Effect.gen(function*() {
      const { storage } = yield* setup
      const cache = yield* missing(storage)
      const bodies: ReadonlyArray<readonly [Response, string]> = [
        [new Response(streamOf(pattern(1000), new Error("the line is dead"))), "the line is dead"],
        [new Response(streamOf(pattern(10)), { headers: { "content-length": "11" } }), "11"],
        [new Response("<!doctype html><html></html>"), "it is an HTML page"]
      ]
      for (const [response, says] of bodies) {
        expect(String(yield* failureOf(() => cache.put(address, fetched(response))))).toContain(says)
        expect(yield* Effect.promise(() => cache.match(address))).toBeUndefined()
      }
    }))

  it.effect("saves and finds as usual where the storage works", () =>
    Effect.gen(function*() {
      const { storage } = yield* setup
      const cache = yield* missing(storage)
      yield* Effect.promise(() => cache.put(address, fetched(new Response(pattern(1000).slice()))))
      expect(yield* storage.load(key)).toEqual(pattern(1000))
      expect(yield* bytesOf(yield* Effect.promise(() => cache.match(address)))).toEqual(pattern(1000))
    }))
})

describe("TransformersCache.delete", () => {
  it.effect("removes the object and returns whether there was one", () =>
    Effect.gen(function*() {
      const { cache, storage } = yield* setup
      yield* storage.save(key, pattern(3))
      expect(yield* Effect.promise(() => cache.delete(`${address}2`))).toBe(false)
      expect(yield* Effect.promise(() => cache.delete("../x"))).toBe(false)
      expect(yield* Effect.promise(() => cache.delete(address))).toBe(true)
      expect(yield* Effect.promise(() => cache.delete(address))).toBe(false)
      expect(yield* storage.list()).toEqual([])
    }))
})

describe("the keys of a TransformersCache", () => {
  const names: Readonly<Record<string, string>> = {
    "https://huggingface.co/Xenova/bert/resolve/main/config.json":
      "huggingface.co/Xenova/bert/resolve/main/config.json",
    "HTTPS://HuggingFace.co:443/a#part": "huggingface.co/a",
    "https://huggingface.co/a/../b/./c": "huggingface.co/b/c",
    "https://huggingface.co/../../../etc/passwd": "huggingface.co/etc/passwd",
    "https://huggingface.co/%2e%2e/%2E./a": "huggingface.co/a",
    "https://h/refs%2Fpr%2F1/a b": "h/refs%252Fpr%252F1/a%2520b",
    "https://h/a?download=true": "h/a?download=true",
    "https://h/a?": "h/a?",
    "https://h/a?x=/../y?z": "h/a?x=%2F..%2Fy?z",
    "https://h//a///b/": "h%2F/a%2F%2F/b%2F",
    "https://h": "h%2F",
    "https://h/\u0000a": "h/%2500a",
    "http://127.0.0.1:8080/a": "http:/127.0.0.1:8080/a",
    "/models/Xenova/bert/config.json": "file:/models/Xenova/bert/config.json",
    "models/config.json": "file:models/config.json",
    "./models/config.json": "file:models/config.json",
    "C:\\models\\config.json": "file:C:\\models\\config.json",
    "file:///etc/passwd": "file:file:%2F%2F/etc/passwd"
  }

  for (const [request, name] of Object.entries(names)) {
    it.effect(`are ${JSON.stringify(name)} for ${JSON.stringify(request)}`, () =>
      Effect.gen(function*() {
        const { cache, storage } = yield* setup
        yield* Effect.promise(() => cache.put(request, new Response("1")))
        expect(yield* storage.list()).toEqual([`cache/${name}`, `cache/${name}%sha256`])
        expect(yield* Effect.promise(() => cache.match(request))).toBeInstanceOf(Response)
      }))
  }

  const hostile: Readonly<Record<string, string>> = {
    "a path that starts with ..": "../../etc/passwd",
    "a path that leads out further on": "/models/../../etc/passwd",
    "a path that starts with ./..": "./../a",
    "a NUL": "/models/a\u0000b",
    "a lone surrogate": "/models/\ud800",
    "a long URL": `${host}/${"x".repeat(2000)}`,
    "a very long path": "/".repeat(100_000),
    "a URL with a password": "https://user:secret@huggingface.co/a",
    "the host ..": "https://../a",
    "the host .": "https://./a"
  }

  for (const [what, request] of Object.entries(hostile)) {
    it.effect(`do not exist for ${what}: it is never found, cannot be put, and does not reach the storage`, () =>
      Effect.gen(function*() {
        const { storage } = yield* setup
        const calls: Array<Call> = []
        for (const prefix of ["cache", ""]) {
          const cache = yield* cacheOn(noting(storage, calls), prefix)
          expect(yield* Effect.promise(() => cache.match(request))).toBeUndefined()
          const response = new Response("body")
          const error = yield* failureOf(() => cache.put(request, response))
          expect(error).toMatchObject({ _tag: "InvalidKey", operation: "put" })
          expect((error as Error).message.length).toBeLessThan(300)
          expect(JSON.stringify(error) + String(error)).not.toContain("secret")
          expect(yield* Effect.promise(() => response.text())).toBe("body")
        }
        expect(calls).toEqual([])
      }))
  }

  it.effect("are the URLs when decoded", () =>
    Effect.promise(() =>
      FastCheck.assert(
        FastCheck.asyncProperty(
          FastCheck.webUrl({ withQueryParameters: true }),
          FastCheck.constantFrom("", "/", "//", "/%"),
          (
            url,
            end
          ) =>
            Effect.gen(function*() {
              const request = new URL(url + end).href
              const { cache, storage } = yield* setup
              yield* Effect.promise(() => cache.put(request, new Response("x")))
              const [saved = ""] = yield* storage.list()
              const [, first = "", rest = ""] = /^cache\/(http:\/)?(.*)$/.exec(saved) ?? []
              expect((first === "" ? "https://" : "http://") + decodeURIComponent(rest)).toBe(request)
            }).pipe(Effect.runPromise)
        )
      )
    ))

  it.effect("are in the folder, with or without a slash at its end, or at the root", () =>
    Effect.gen(function*() {
      const { storage } = yield* setup
      for (const prefix of ["a/b", "a/b/", ""]) {
        const cache = yield* cacheOn(storage, prefix)
        yield* Effect.promise(() => cache.put(address, new Response("x")))
      }
      const files = (yield* storage.list()).filter((saved) => !saved.endsWith("%sha256"))
      expect(files).toEqual([`a/b/${key.slice(6)}`, key.slice(6)])
      const outside = yield* cacheOn(storage, "../a")
      expect(yield* Effect.promise(() => outside.match(address))).toBeUndefined()
      expect(yield* failureOf(() => outside.put(address, new Response("x")))).toMatchObject({ _tag: "InvalidKey" })
    }))
})
