/**
 * Storages by URL.
 */
import { HttpClient, HttpClientResponse } from "@effect/platform"
import { describe, expect, it } from "@effect/vitest"
import { Config, ConfigProvider, Effect, Layer } from "effect"
import * as fs from "node:fs"
import * as os from "node:os"
import * as path from "node:path"
import { pathToFileURL } from "node:url"
import { Storage } from "surfing-weights"

const directory = Effect.acquireRelease(
  Effect.sync(() => fs.mkdtempSync(path.join(os.tmpdir(), "storage url "))),
  (made) => Effect.sync(() => fs.rmSync(made, { recursive: true, force: true }))
)

const saved = Storage.save("a/b.bin", new Uint8Array([1, 2, 3]))

describe("a storage by URL", () => {
  it.scoped("is a directory by its path, or by a file: URL with options", () =>
    Effect.gen(function*() {
      const made = yield* directory
      yield* Effect.provide(saved, Storage.layerUrl(made))
      const url = `${pathToFileURL(made).href}?durability=relaxed`
      expect(url).toContain("storage%20url")
      expect(yield* Effect.provide(Storage.list(), Storage.layerUrl(url))).toEqual(["a/b.bin"])
      const storage = yield* Storage.fromUrl(url)
      expect(storage.backend.name).toBe(`FileSystem(${made})`)
    }))

  it.scoped("is StorageNotFound where the directory does not exist and create is false", () =>
    Effect.gen(function*() {
      const missing = `${yield* directory}/missing`
      const error = yield* Effect.flip(Storage.fromUrl(`${pathToFileURL(missing).href}?create=false`))
      expect(error._tag).toBe("StorageNotFound")
      expect(fs.existsSync(missing)).toBe(false)
    }))

  it.scoped("may name a directory relative to the working directory", () =>
    Effect.gen(function*() {
      const storage = yield* Storage.fromUrl("./test")
      expect(yield* storage.exists("storage/url.test.ts")).toBe(true)
    }))

  it.effect("is memory", () =>
    Effect.gen(function*() {
      expect(yield* Effect.provide(Effect.zipRight(saved, Storage.list()), Storage.layerUrl("memory:"))).toEqual([
        "a/b.bin"
      ])
    }))

  it.scoped("is another machine over HTTP, with the app's own client", () =>
    Effect.gen(function*() {
      const asked: Array<string> = []
      const client = HttpClient.make((request, url) =>
        Effect.sync(() => {
          asked.push(url.href)
          return HttpClientResponse.fromWeb(request, new Response("hello", { headers: { "content-length": "5" } }))
        })
      )
      const storage = yield* Effect.provideService(
        Storage.fromUrl("http://weights.test/models?static=true&idleTimeout=5 seconds"),
        HttpClient.HttpClient,
        client
      )
      expect(Buffer.from(yield* storage.load("bert/a b.bin")).toString()).toBe("hello")
      expect(asked).toEqual(["http://weights.test/models/bert/a%20b.bin"])
    }))

  it.scoped("is a bucket", () =>
    Effect.gen(function*() {
      const endpoint = encodeURIComponent("http://127.0.0.1:1")
      const env = { AWS_ACCESS_KEY_ID: "id", AWS_SECRET_ACCESS_KEY: "secret" }
      const before = { ...process.env }
      yield* Effect.acquireRelease(
        Effect.sync(() => Object.assign(process.env, env)),
        () => Effect.sync(() => (process.env = before))
      )
      const storage = yield* Storage.fromUrl(`s3://weights/models/?endpoint=${endpoint}&verify=false&partSize=16MiB`)
      expect(storage.backend.name).toBe("S3(weights/models)")
    }))

  it.effect("comes from the environment", () =>
    Effect.gen(function*() {
      const layer = Storage.layerUrlConfig(Config.string("STORAGE_URL")).pipe(
        Layer.provide(Layer.setConfigProvider(ConfigProvider.fromMap(new Map([["STORAGE_URL", "memory:"]]))))
      )
      yield* Effect.provide(saved, layer)
    }))

  it.effect.each<readonly [url: string, option: string, reason: string]>([
    [
      "ftp://host/",
      "url",
      "url must begin with file:, s3:, http:, https:, hf:, memory: or be the path of a directory (got ftp:)"
    ],
    ["s3://weights?token=abc", "token", "token must not be in a URL"],
    ["s3://weights?secretAccessKey=abc", "secretAccessKey", "must not be in a URL"],
    ["http://user:hidden@host/", "url", "url must not contain credentials"],
    ["s3://weights?partSize=big", "partSize", "partSize must be a size, for instance 8MiB (got \"big\")"],
    ["s3://weights?partSize=1MiB", "partSize", "partSize must be a whole number of bytes from 5 MiB to 2 GiB"],
    ["s3://weights?verify=yes", "verify", "verify must be true or false (got \"yes\")"],
    ["file:///tmp?colour=red", "colour", "colour is not an option"],
    ["file://server/share", "url", "must not name a host (got \"server\")"],
    ["memory:?size=3", "size", "size is not an option"],
    ["file:///%ff", "url", "percent-escape"]
  ])("%s is refused", ([url, option, reason]) =>
    Effect.gen(function*() {
      const error = yield* Effect.flip(Effect.scoped(Storage.fromUrl(url)))
      expect(error).toMatchObject({ _tag: "InvalidOptions", option })
      expect(error.message).toContain(reason)
      expect(error.message).not.toMatch(/abc|hidden/)
    }))
})
