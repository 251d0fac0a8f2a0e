/**
 * Proxies of the environment, with both storages, through a real one.
 */
import * as NodeHttpClient from "@effect/platform-node/NodeHttpClient"
import * as Undici from "@effect/platform-node/Undici"
import { describe, expect, it } from "@effect/vitest"
import { Effect, Layer, Redacted, Schedule, type Scope, Stream } from "effect"
import * as http from "node:http"
import * as https from "node:https"
import { inspect } from "node:util"
import { HttpStorage, S3Storage, type Storage, type StorageError } from "surfing-weights"
import { certificate } from "../support/certificate.js"
import { bytes, gather, MiB, print } from "../support/content.js"
import { forwardProxy } from "../support/forwardProxy.js"
import { fetchClient } from "../support/httpClients.js"
import { listen } from "../support/loopback.js"

const names = ["HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy"]

/** These variables instead of all others about proxies, until the scope ends; no certificate is looked at. */
const environment = (variables: Readonly<Record<string, string>>) =>
  Effect.acquireRelease(
    Effect.sync(() => {
      const changed = [...names, "NODE_TLS_REJECT_UNAUTHORIZED"]
      const before = changed.map((name) => [name, process.env[name]] as const)
      for (const name of changed) delete process.env[name]
      Object.assign(process.env, { NODE_TLS_REJECT_UNAUTHORIZED: "0" }, variables)
      return before
    }),
    (before) =>
      Effect.sync(() => {
        for (const [name, value] of before) {
          if (value === undefined) delete process.env[name]
          else process.env[name] = value
        }
      })
  )

const content = bytes(2 * MiB)

const object: http.RequestListener = (request, response) => {
  if (request.method === "PUT") return void request.resume().on("end", () => response.setHeader("etag", "\"e\"").end())
  response.setHeader("etag", "\"e\"").setHeader("content-length", content.length)
  response.end(request.method === "HEAD" ? undefined : content)
}

const portOf = (server: http.Server) => Effect.map(listen(server), ({ endpoint }) => new URL(endpoint).port)

const retry = Schedule.recurs(0)
const bucket = { bucket: "models", region: "us-east-1", verify: false, retry }
const credentials = { accessKeyId: "a", secretAccessKey: Redacted.make("b") }

type Open = (url: string) => Effect.Effect<Storage.Service, StorageError.StorageError, Scope.Scope>

const storages: ReadonlyArray<readonly [name: string, open: Open, path: string]> = [
  ["S3Storage", (endpoint) => S3Storage.make({ ...bucket, endpoint, credentials }), "/models/k"],
  [
    "HttpStorage with FetchHttpClient",
    (url) => Effect.provide(HttpStorage.make({ url, static: true, retry }), fetchClient[1]),
    "/k"
  ]
]

for (const [name, open, path] of storages) {
  describe(name, () => {
    it.scopedLive("forwards http and opens a tunnel for https, by variables in either case", () =>
      Effect.gen(function*() {
        const proxy = yield* forwardProxy()
        const [plain, secure] = [
          yield* portOf(http.createServer(object)),
          yield* portOf(https.createServer(certificate, object))
        ]
        const url = `http://${proxy.at}`
        const spellings = [
          { HTTP_PROXY: url, HTTPS_PROXY: url },
          { http_proxy: url, https_proxy: url },
          // The scheme is often left out.
          { HTTP_PROXY: proxy.at, HTTPS_PROXY: proxy.at },
          { HTTP_PROXY: "http://127.0.0.1:1", HTTPS_PROXY: "http://127.0.0.1:1", http_proxy: url, https_proxy: url }
        ]
        for (const variables of spellings) {
          yield* Effect.scoped(Effect.gen(function*() {
            yield* environment(variables)
            proxy.requests.length = 0
            const overHttp = yield* open(`http://weights.invalid:${plain}`)
            expect(print(yield* overHttp.load("k"))).toBe(print(content))
            expect(print(yield* gather(overHttp.stream("k")))).toBe(print(content))
            expect(new Set(proxy.requests)).toEqual(new Set([`GET http://weights.invalid:${plain}${path}`]))
            proxy.requests.length = 0
            const overHttps = yield* open(`https://weights.invalid:${secure}`)
            expect(print(yield* overHttps.load("k"))).toBe(print(content))
            expect(new Set(proxy.requests)).toEqual(new Set([`CONNECT weights.invalid:${secure}`]))
          }))
        }
      }))

    it.scopedLive("goes past the proxy for what NO_PROXY names", () =>
      Effect.gen(function*() {
        const proxy = yield* forwardProxy()
        const port = yield* portOf(http.createServer(object))
        const at = `localhost:${port}`
        const cases: ReadonlyArray<readonly [noProxy: string, isDirect: boolean]> = [
          ["localhost", true],
          ["LOCALHOST", true],
          [`localhost:${port}`, true],
          ["*", true],
          ["example.com, localhost", true],
          ["", false],
          ["host", false],
          [`localhost:${Number(port) + 1}`, false],
          ["example.com,.example.org", false]
        ]
        for (const variable of ["NO_PROXY", "no_proxy"]) {
          for (const [noProxy, isDirect] of cases) {
            yield* Effect.scoped(Effect.gen(function*() {
              yield* environment({ HTTP_PROXY: `http://${proxy.at}`, [variable]: noProxy })
              proxy.requests.length = 0
              yield* (yield* open(`http://${at}`)).load("k")
              expect(proxy.requests.length > 0, `${variable}=${noProxy}`).toBe(!isDirect)
            }))
          }
        }
        // Names below a domain do not resolve past the proxy.
        for (const noProxy of [".corp.invalid", "corp.invalid", "*.corp.invalid"]) {
          yield* Effect.scoped(Effect.gen(function*() {
            yield* environment({ HTTP_PROXY: `http://${proxy.at}`, NO_PROXY: noProxy })
            const failure = yield* Effect.flip(
              Effect.flatMap(open(`http://a.corp.invalid:${port}`), (s) => s.load("k"))
            )
            expect(failure.message, noProxy).toContain("ENOTFOUND a.corp.invalid")
            yield* (yield* open(`http://a.notcorp.invalid:${port}`)).load("k")
          }))
        }
      }))

    it.scopedLive("gives the proxy its credentials, and shows them nowhere", () =>
      Effect.gen(function*() {
        const proxy = yield* forwardProxy("s3cr3t p@ss")
        const [plain, secure] = [
          yield* portOf(http.createServer(object)),
          yield* portOf(https.createServer(certificate, object))
        ]
        const urls = [`http://weights.invalid:${plain}`, `https://weights.invalid:${secure}`]
        const by = (password: string, at = proxy.at) => {
          const url = `http://user:${encodeURIComponent(password)}@${at}`
          return environment({ HTTP_PROXY: url, HTTPS_PROXY: url })
        }
        for (const url of urls) {
          yield* Effect.scoped(Effect.gen(function*() {
            yield* by("s3cr3t p@ss")
            expect(print(yield* (yield* open(url)).load("k"))).toBe(print(content))
          }))
          for (
            const [password, at] of [["wr0ngword", proxy.at], ["wr0ngword", "127.0.0.1:1"], [
              "wr0ngword",
              "a b"
            ]] as const
          ) {
            yield* Effect.scoped(Effect.gen(function*() {
              yield* by(password, at)
              const failure = yield* Effect.flip(Effect.flatMap(open(url), (storage) => storage.load("k")))
              const shown = [failure.message, String(failure), JSON.stringify(failure), inspect(failure, { depth: 20 })]
              expect(shown.join("\n")).not.toContain("wr0ngword")
              expect(shown.join("\n")).not.toContain(Buffer.from("user:wr0ngword").toString("base64"))
              if (at === "a b") {
                expect(failure.message).toMatch(/HTTPS?_PROXY must be the URL of a proxy/)
              }
              if (at === proxy.at) {
                expect(failure.message).toMatch(/proxy.*407|407.*proxy/i)
              }
            }))
          }
        }
      }))
  })
}

it.scopedLive("S3Storage saves through a proxy", () =>
  Effect.gen(function*() {
    const proxy = yield* forwardProxy()
    const port = yield* portOf(http.createServer(object))
    yield* environment({ HTTP_PROXY: `http://${proxy.at}` })
    const storage = yield* S3Storage.make({ ...bucket, endpoint: `http://weights.invalid:${port}`, credentials })
    expect(yield* storage.save("k", content)).toMatchObject({ size: content.length })
    expect(proxy.requests).toContain(`PUT http://weights.invalid:${port}/models/k`)
  }))

it.scopedLive("NodeHttpClient uses a proxy as the documentation of HttpStorage says", () =>
  Effect.gen(function*() {
    const proxy = yield* forwardProxy()
    const port = yield* portOf(http.createServer(object))
    yield* environment({ HTTP_PROXY: `http://${proxy.at}` })
    const client = NodeHttpClient.layerUndiciWithoutDispatcher.pipe(
      Layer.provide(Layer.sync(NodeHttpClient.Dispatcher, () => new Undici.EnvHttpProxyAgent()))
    )
    yield* Effect.gen(function*() {
      const storage = yield* HttpStorage.make({ url: `http://weights.invalid:${port}`, static: true, retry })
      expect(print(yield* gather(storage.stream("k")))).toBe(print(content))
      expect(yield* Stream.runCount(storage.stream("k"))).toBeGreaterThan(0)
    }).pipe(Effect.provide(client))
    expect(proxy.requests[0]).toBe(`CONNECT weights.invalid:${port}`)
  }))
