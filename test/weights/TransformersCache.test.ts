/**
 * A storage as the cache of transformers.js: matches, puts and deletes, keys, hostile requests and broken streams.
 */
import { describe, expect, it } from "@effect/vitest"
import { Effect, FastCheck, type Layer, Stream } from "effect"
import { setImmediate } from "node:timers/promises"
import { MemoryStorage, Storage, StorageChaos, StorageError, TransformersCache } from "surfing-weights"
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

  it.effect("opens nothing before the body is read, and then reads at most three chunks ahead", () =>
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
      expect(calls.map(({ operation }) => operation)).toEqual(["head"])
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
      expect(calls).toMatchObject([{ operation: "save", args: [key, {}, { size: 30 }] }])
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
        yield* Effect.promise(() => cache.put(request, new Response("x")))
        expect(yield* storage.list()).toEqual([`cache/${name}`])
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
      expect(yield* storage.list()).toEqual([`a/b/${key.slice(6)}`, key.slice(6)])
      const outside = yield* cacheOn(storage, "../a")
      expect(yield* Effect.promise(() => outside.match(address))).toBeUndefined()
      expect(yield* failureOf(() => outside.put(address, new Response("x")))).toMatchObject({ _tag: "InvalidKey" })
    }))
})
