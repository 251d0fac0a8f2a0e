/**
 * A model on a hub as a storage: against a hub of the tests' own that redirects, expires, limits and lies, and against the
 * weight server.
 */
import { FetchHttpClient } from "@effect/platform"
import { describe, expect, it } from "@effect/vitest"
import { Config, ConfigProvider, Effect, Fiber, Layer, Redacted, Schedule, type Scope, Stream, TestClock } from "effect"
import { createHash } from "node:crypto"
import { setTimeout } from "node:timers/promises"
import { inspect } from "node:util"
import { ByteRange, HuggingFaceStorage, MemoryStorage, Storage, StorageCache, StorageError } from "surfing-weights"
import { bytes, gather, MiB, print } from "../support/content.js"
import { clients } from "../support/httpClients.js"
import { files, hashes, model, recordingBodies, saveModel } from "../support/hub.js"
import { type HubServer, make as makeHub } from "../support/hubServer.js"
import { recordingTracer } from "../support/spans.js"
import { serveOf } from "../support/weightServer.js"

const token = Redacted.make("hf_t0ken-of-ours")

const large = bytes(3 * MiB + 11, 1)
const small = new TextEncoder().encode("{\"hidden_size\":8}\n")

const filled = (server: HubServer) => {
  server.files.set("onnx/modèl +#%41.onnx", bytes(200_000, 2))
  server.files.set("config.json", small)
  server.files.set("model.safetensors", large)
  server.files.set("empty", new Uint8Array(0))
  return server
}

const open = ({ hub }: HubServer, options: Partial<HuggingFaceStorage.Options> = {}) =>
  HuggingFaceStorage.make({ repo: "acme/tiny", endpoint: hub.url, ...options })

const once = { retry: Schedule.stop }

/** Fails at once, and not after all retries. */
const failing = (server: HubServer, options: Partial<HuggingFaceStorage.Options> = {}) =>
  Effect.flip(open(server, { ...once, ...options }))

for (const [name, client] of clients) {
  describe(`HuggingFaceStorage, with ${name}`, () => {
    const test = (name: string, body: (server: HubServer) => Effect.Effect<void, unknown, Scope.Scope | Client>) =>
      it.scopedLive(
        name,
        () => Effect.flatMap(makeHub(), (server) => body(filled(server))).pipe(Effect.provide(client))
      )

    test("lists and reads the files of a model, whole, as streams and by range", (server) =>
      Effect.gen(function*() {
        const storage = yield* open(server)
        expect(storage.backend.name).toBe("HuggingFace(acme/tiny@main)")
        const keys = ["config.json", "empty", "model.safetensors", "onnx/modèl +#%41.onnx"]
        expect(yield* storage.list()).toEqual(keys)
        expect(yield* storage.list("onnx/")).toEqual(keys.slice(3))
        expect((yield* storage.listDirectory("")).prefixes).toEqual(["onnx/"])
        for (const key of keys) {
          const content = server.files.get(key) ?? new Uint8Array()
          expect(print(yield* storage.load(key))).toBe(print(content))
          expect(print(yield* gather(storage.stream(key)))).toBe(print(content))
        }
        const ranges = [ByteRange.make(100, 70_100), ByteRange.last(10), ByteRange.make(3_000_000, 9_000_000)]
        const loaded = yield* storage.loadRanges("model.safetensors", ranges)
        expect(loaded.map(print)).toEqual([
          print(large.subarray(100, 70_100)),
          print(large.subarray(-10)),
          print(large.subarray(3_000_000))
        ])
        expect(yield* storage.head("model.safetensors")).toMatchObject({
          size: large.byteLength,
          etag: createHash("sha256").update(large).digest("hex"),
          checksum: { algorithm: "SHA256", value: createHash("sha256").update(large).digest("base64") },
          lastModified: new Date("2026-01-02T03:04:05.000Z")
        })
        expect((yield* storage.head("config.json")).checksum).toBeUndefined()
        for (const missing of ["model", "onnx", "config.json/x"]) {
          expect(yield* storage.exists(missing)).toBe(false)
          expect(yield* Effect.flip(storage.load(missing))).toMatchObject({ _tag: "ObjectNotFound", key: missing })
        }
        const tooFar = storage.load("config.json", { range: ByteRange.from(1000) })
        expect(yield* Effect.flip(tooFar)).toMatchObject({ _tag: "InvalidRange" })
        for (const change of [storage.save("new", small), storage.remove("config.json"), storage.copy("empty", "b")]) {
          expect(yield* Effect.flip(change)).toMatchObject({ _tag: "UnsupportedOperation" })
        }
      }))

    test("listings and metadata ask nothing once it is built", (server) =>
      Effect.gen(function*() {
        for (let i = 0; i < 60; i++) server.files.set(`data/${i}.json`, small)
        server.pageSize = 7
        const storage = yield* open(server)
        expect(server.hub.requests).toHaveLength(1 + Math.ceil(64 / 7))
        expect(yield* storage.list()).toHaveLength(64)
        yield* storage.head("data/59.json")
        yield* Effect.flip(storage.load("config.json", { ifNoneMatch: (yield* storage.head("config.json")).etag }))
        expect(server.hub.requests).toHaveLength(1 + Math.ceil(64 / 7))
      }))

    test("sends the token to the hub alone, and shows neither it nor a signature", (server) =>
      Effect.gen(function*() {
        const { spans, tracer } = yield* recordingTracer
        const storage = yield* open(server, { token, ...once })
        yield* Effect.withTracer(storage.load("model.safetensors"), tracer)
        for (const { headers } of server.hub.requests) {
          expect(headers.authorization).toBe(`Bearer ${Redacted.value(token)}`)
        }
        expect(server.host.requests.map(({ headers }) => headers.authorization)).toEqual([undefined])
        server.host.answers.push((_, response) => response.writeHead(500).end("s3cret"))
        const failure = yield* Effect.flip(storage.load("model.safetensors"))
        // What is exported of a span; its exit holds the response itself.
        const exported = spans.map(({ attributes, name }) => ({ attributes, name }))
        for (const shown of [inspect(failure, { depth: 20 }), inspect(exported, { depth: 20 })]) {
          expect(shown).not.toMatch(/s3cret|t0ken/)
        }
      }))

    test("uses an address until it expires, then asks the hub for another, without a retry", (server) =>
      Effect.gen(function*() {
        server.uses = 3
        const storage = yield* open(server, once)
        const resolves = () => server.hub.requests.filter(({ url }) => url?.includes("/resolve/") === true).length
        for (let i = 0; i < 7; i++) {
          const range = ByteRange.make(i * 1000, i * 1000 + 10)
          const part = yield* storage.load("model.safetensors", { range })
          expect(print(part)).toBe(print(large.subarray(i * 1000, i * 1000 + 10)))
        }
        expect(resolves()).toBe(3)
        // An address that has expired when it is used first is asked for again, but not for ever.
        server.uses = 0
        const before = resolves()
        const failure = yield* Effect.flip(storage.load("onnx/modèl +#%41.onnx"))
        expect(failure).toMatchObject({ _tag: "AccessDenied", key: "onnx/modèl +#%41.onnx" })
        expect(resolves() - before).toBe(2)
      }))

    test("a stream that breaks resumes at the byte where it broke", (server) =>
      Effect.gen(function*() {
        const storage = yield* open(server, { retry: Schedule.recurs(3) })
        server.host.answers.push((_, response) => {
          response.writeHead(200, { "content-length": large.byteLength })
          response.write(large.subarray(0, MiB), () => void setTimeout(50).then(() => response.destroy()))
        })
        expect(print(yield* storage.load("model.safetensors"))).toBe(print(large))
        expect(server.host.requests.map(({ headers }) => headers.range)).toEqual([
          undefined,
          `bytes=${MiB}-${large.byteLength - 1}`
        ])
      }))

    test("notices other bytes than those listed, on whole loads and streams", (server) =>
      Effect.gen(function*() {
        const storage = yield* open(server, once)
        for (const key of ["model.safetensors", "onnx/modèl +#%41.onnx"]) {
          const damaged = Uint8Array.from(server.files.get(key) ?? [])
          damaged[77] = (damaged[77] ?? 0) ^ 1
          server.files.set(key, damaged)
          for (const read of [storage.load(key), gather(storage.stream(key))]) {
            // Without the bytes, which would take minutes to print.
            const error = yield* Effect.flip(Effect.asVoid(read))
            expect(error).toMatchObject({ _tag: "CorruptObject", problem: "checksum", key })
          }
        }
      }))

    test("notices lies about lengths", (server) =>
      Effect.gen(function*() {
        const storage = yield* open(server, once)
        const key = "model.safetensors"
        const size = large.byteLength
        const lie = (status: number, headers: Record<string, string | number>, body: Uint8Array) => {
          server.host.answers.push((_, response) => {
            response.writeHead(status, headers)
            response.write(body, () => void setTimeout(20).then(() => response.destroy()))
          })
        }
        const isCorrupt = (problem: string) => ({ _tag: "CorruptObject", problem })
        const load = Effect.flip(storage.load(key))
        const part = Effect.flip(storage.load(key, { range: ByteRange.make(0, 100_000) }))
        lie(200, { "content-length": size - 1 }, large.subarray(0, size - 1))
        expect(yield* load).toMatchObject(isCorrupt("size"))
        lie(200, { "content-length": size + 1 }, large)
        expect(yield* load).toMatchObject(isCorrupt("size"))
        lie(206, { "content-range": `bytes 0-99999/${size + 1}` }, large.subarray(0, 100_000))
        expect(yield* part).toMatchObject(isCorrupt("size"))
        lie(206, { "content-range": `bytes 1-100000/${size}` }, large.subarray(1, 100_001))
        expect(yield* part).toMatchObject({ _tag: "UnexpectedStorageError" })
        lie(416, { "content-range": "bytes */3" }, new Uint8Array(0))
        expect((yield* part)._tag).toMatch(/CorruptObject|StorageUnavailable/)
        // Without a length, the bytes are counted.
        server.host.answers.push((_, response) => response.writeHead(200).end(large.subarray(0, size - 1)))
        expect(yield* load).toMatchObject(isCorrupt("truncated"))
        server.host.answers.push((_, response) => response.writeHead(200).end(Buffer.concat([large, small])))
        expect(yield* load).toMatchObject(isCorrupt("size"))
        // One that knows no ranges sends the whole file.
        server.host.answers.push((_, response) => response.writeHead(200).end(large))
        const range = ByteRange.make(1_000_000, 1_100_000)
        expect(print(yield* storage.load(key, { range }))).toBe(print(large.subarray(1_000_000, 1_100_000)))

        server.sizes.set("config.json", small.byteLength + 1)
        const lied = yield* open(server, once)
        expect(yield* Effect.flip(lied.load("config.json"))).toMatchObject(isCorrupt("size"))
      }))

    test("stays at its commit, and says so when the hub has it no more", (server) =>
      Effect.gen(function*() {
        const storage = yield* open(server, once)
        const commit = server.commit()
        yield* storage.load("config.json")
        expect(server.hub.requests.at(-1)?.url).toBe(`/acme/tiny/resolve/${commit}/config.json`)
        const [byTag, byCommit] = [yield* open(server, { revision: "v1/0" }), yield* open(server, { revision: commit })]
        expect(print(yield* byTag.load("config.json"))).toBe(print(yield* byCommit.load("config.json")))
        server.version++
        expect(yield* Effect.flip(storage.load("config.json"))).toMatchObject({ _tag: "StorageNotFound" })
        expect(yield* failing(server, { revision: commit })).toMatchObject({
          _tag: "StorageNotFound",
          operation: "make"
        })
      }))

    test("says what it cannot open", (server) =>
      Effect.gen(function*() {
        expect(yield* failing(server, { repo: "acme/none" })).toMatchObject({ _tag: "StorageNotFound" })
        server.hub.answers.push((_, response) => response.writeHead(403, { "x-error-code": "GatedRepo" }).end())
        expect(yield* failing(server)).toMatchObject({ _tag: "AccessDenied" })
        server.hub.answers.push((_, response) => response.writeHead(200).end("<html>"))
        expect((yield* failing(server)).message).toContain("is not that of a model hub")
        server.files.set("more.json", small)
        server.pageSize = 2
        const first = { type: "file", path: "a", oid: "0", size: 1 }
        for (const link of [`<${server.host.url}/next>; rel="next"`, `<${server.hub.url}/next>; rel="next"`]) {
          server.hub.answers.push(
            (_, response) => response.end(JSON.stringify({ sha: server.commit() })),
            (_, response) => response.writeHead(200, { link }).end(JSON.stringify([first])),
            (_, response) => response.writeHead(200, { link }).end(JSON.stringify([first]))
          )
          expect((yield* failing(server)).message).toMatch(/on another server|lists "a" twice/)
          server.hub.answers.length = 0
        }
        const secured = yield* makeHub(Redacted.value(token))
        expect(yield* failing(secured)).toMatchObject({ _tag: "AccessDenied" })
        yield* open(filled(secured), { token })
      }))
  })
}

type Client = Layer.Layer.Success<typeof FetchHttpClient.layer>

describe("HuggingFaceStorage", () => {
  it.scoped("waits as long as a hub that limits its rate says", () =>
    Effect.gen(function*() {
      const server = filled(yield* makeHub())
      const storage = yield* open(server)
      server.hub.answers.push((_, response) => response.writeHead(429, { "retry-after": "7" }).end())
      const before = server.hub.requests.length
      const loading = yield* Effect.fork(storage.load("config.json"))
      const settled = Effect.promise(() => setTimeout(300))
      yield* settled
      yield* TestClock.adjust("6900 millis")
      yield* settled
      expect(server.hub.requests.length - before).toBe(1)
      yield* TestClock.adjust("100 millis")
      expect(print(yield* Fiber.join(loading))).toBe(print(small))
      expect(server.hub.requests.length - before).toBe(2)
    }).pipe(Effect.provide(FetchHttpClient.layer)))

  it.scopedLive("takes the hub and its token from the environment, and the token for no other hub", () =>
    Effect.gen(function*() {
      const server = filled(yield* makeHub())
      const environment = ConfigProvider.fromMap(
        new Map([["HF_ENDPOINT", server.hub.url], ["HF_TOKEN", Redacted.value(token)], ["MODEL", "acme/tiny"]])
      )
      const list = (layer: Layer.Layer<Storage.Storage, unknown>) =>
        Effect.provide(Storage.list(), Layer.provide(layer, Layer.setConfigProvider(environment)))
      const byConfig = HuggingFaceStorage.layerConfig({ repo: Config.string("MODEL") })
      expect(yield* list(Layer.provide(byConfig, FetchHttpClient.layer))).toHaveLength(4)
      expect(yield* list(Storage.layerUrl("hf://acme/tiny@main"))).toHaveLength(4)
      expect(server.hub.requests.every(({ headers }) => headers.authorization !== undefined)).toBe(true)
      server.hub.requests.length = 0
      expect(yield* list(Storage.layerUrl(`hf://acme/tiny?endpoint=${encodeURIComponent(server.hub.url)}`)))
        .toHaveLength(4)
      expect(server.hub.requests.every(({ headers }) => headers.authorization === undefined)).toBe(true)
    }))

  it.scopedLive("mounts a model under a name", () =>
    Effect.gen(function*() {
      const storage = yield* open(filled(yield* makeHub()), { mountAt: "acme/tiny" })
      expect(yield* storage.list("acme/tiny/c")).toEqual(["acme/tiny/config.json"])
      expect(print(yield* storage.load("acme/tiny/config.json"))).toBe(print(small))
      expect(yield* storage.exists("config.json")).toBe(false)
    }).pipe(Effect.provide(FetchHttpClient.layer)))

  it.scopedLive("reads a model from a weight server, whose hashes it checks, with a token", () =>
    Effect.gen(function*() {
      const source = yield* MemoryStorage.make()
      yield* saveModel(source)
      const auth = { tokens: [{ token, scope: "read" as const }] }
      const { url } = yield* serveOf(source, { hub: true, auth })
      const storage = yield* HuggingFaceStorage.make({ repo: model, endpoint: url, token })
      const infos = yield* Stream.runCollect(storage.entries())
      expect(Object.fromEntries([...infos].map(({ etag, key }) => [key, etag]))).toEqual(hashes)
      for (const [key, content] of Object.entries(files)) {
        expect(print(yield* storage.load(key))).toBe(print(content))
      }
      const denied = yield* Effect.flip(HuggingFaceStorage.make({ repo: model, endpoint: url, ...once }))
      expect(denied).toBeInstanceOf(StorageError.AccessDenied)
    }).pipe(Effect.provide(FetchHttpClient.layer)))

  it.scopedLive("a mirror serves what it has read when the hub has gone, with the same hashes", () =>
    Effect.gen(function*() {
      const source = yield* MemoryStorage.make()
      yield* saveModel(source)
      const bodies: Array<string> = []
      const hub = yield* serveOf(source, { hub: true, auth: recordingBodies(bodies) })
      const mirrored = yield* HuggingFaceStorage.make({ repo: model, endpoint: hub.url, mountAt: model, ...once })
      const cached = yield* StorageCache.make(mirrored, {
        capacity: MiB,
        tier: { storage: yield* MemoryStorage.make(), capacity: 100 * MiB }
      })
      const mirror = yield* serveOf(cached, { hub: true })
      const load = Effect.gen(function*() {
        const storage = yield* HuggingFaceStorage.make({ repo: model, endpoint: mirror.url, ...once })
        const loaded = yield* Effect.forEach(
          Object.keys(files),
          (key) =>
            Effect.map(
              storage.load(key),
              (content) => [key, createHash("sha256").update(content).digest("hex")] as const
            )
        )
        expect(Object.fromEntries(loaded)).toEqual(hashes)
      })
      yield* load
      expect(bodies).toHaveLength(Object.keys(files).length)
      yield* hub.stop
      yield* load
    }).pipe(Effect.provide(FetchHttpClient.layer)))

  it.effect.each<readonly [options: Partial<HuggingFaceStorage.Options>, option: string]>([
    [{ repo: "a/b/c" }, "repo"],
    [{ repo: "../x" }, "repo"],
    [{ repo: "" }, "repo"],
    [{ revision: "" }, "revision"],
    [{ revision: "a/../b" }, "revision"],
    [{ endpoint: "https://user:hidden@hub.test" }, "endpoint"],
    [{ endpoint: "ftp://hub.test" }, "endpoint"],
    [{ token: Redacted.make("hid den") }, "token"],
    [{ mountAt: "a/" }, "mountAt"],
    [{ idleTimeout: 0 }, "idleTimeout"]
  ])("%o is refused", ([options, option]) =>
    Effect.gen(function*() {
      const making = HuggingFaceStorage.make({ repo: "acme/tiny", endpoint: "http://127.0.0.1:1", ...options })
      const error = yield* Effect.flip(making)
      expect(error).toMatchObject({ _tag: "InvalidOptions", module: "HuggingFaceStorage", option })
      expect(inspect(error)).not.toMatch(/hidden|hid den/)
    }).pipe(Effect.provide(FetchHttpClient.layer)))

  it.effect.each(["hf://acme", "hf:///tiny", "hf://acme/tiny/config.json", "hf://acme/tiny@", "hf:acme/tiny"])(
    "the URL %s is refused",
    (url) =>
      Effect.gen(function*() {
        const error = yield* Effect.flip(Effect.scoped(Storage.fromUrl(url)))
        expect(error).toMatchObject({ _tag: "InvalidOptions", option: "url" })
      })
  )
})
