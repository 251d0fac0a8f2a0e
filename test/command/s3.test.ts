/**
 * The command-line tool with a bucket, in processes of its own.
 */
import { describe, expect, it } from "@effect/vitest"
import { Effect } from "effect"
import * as fs from "node:fs"
import * as path from "node:path"
import { print, run, start } from "../support/command.js"
import { bucketUrls, credentials as env } from "../support/commandS3.js"
import { bytes, print as printBytes } from "../support/content.js"
import { temporaryDirectory } from "../support/directory.js"
import { text } from "../support/mirror.js"
import { ask, eventually } from "../support/weightServer.js"

describe("surfing-weights with a bucket", { concurrent: true }, () => {
  it.scopedLive("copies a folder there and back, lists it, and removes it", () =>
    Effect.gen(function*() {
      const { urlOf } = yield* bucketUrls
      const directory = yield* temporaryDirectory
      fs.mkdirSync(path.join(directory, "from"))
      const content = { "100% é+#.bin": bytes(100_000), "config.json": text("{}") }
      for (const [name, bytes] of Object.entries(content)) fs.writeFileSync(path.join(directory, "from", name), bytes)
      const of = (...args: ReadonlyArray<string>) => print(args, { env, cwd: directory })
      expect(yield* of("cp", "from", urlOf("bert/"))).toMatch(/^2 objects copied /)
      expect(yield* of("du", urlOf("bert"))).toMatch(/ in 2 objects\n$/)
      expect(yield* of("sync", urlOf("bert/"), "to")).toMatch(/^2 objects copied /)
      expect(yield* of("sync", urlOf("bert/"), "to")).toMatch(/^0 objects copied .*, 2 unchanged\n$/)
      for (const [name, bytes] of Object.entries(content)) {
        expect(printBytes(fs.readFileSync(path.join(directory, "to", name)))).toBe(printBytes(bytes))
      }
      yield* of("rm", urlOf("bert/"))
      expect(yield* of("ls", urlOf(""))).toBe("")
    }))

  it.scopedLive("signs URLs to load and to save, and says where there are none", () =>
    Effect.gen(function*() {
      const { urlOf } = yield* bucketUrls
      const put = yield* print(["presign", urlOf("a"), "--method", "PUT", "--expires", "1 minute"], { env })
      const saved = yield* Effect.promise(() => fetch(put.trim(), { method: "PUT", body: "content" }))
      expect(saved.status).toBe(200)
      const get = yield* print(["presign", urlOf("a"), "--expires", "1 minute"], { env })
      expect(yield* Effect.promise(() => fetch(get.trim()).then((response) => response.text()))).toBe("content")
      const refused = yield* run(["presign", "package.json"], { env })
      expect([refused.code, refused.stderr]).toEqual([1, expect.stringContaining("presigned URLs are not supported")])
    }))

  it.scopedLive("is served under another name, to pages of one origin, and clients are sent there", () =>
    Effect.gen(function*() {
      const { bucket, urlOf } = yield* bucketUrls
      yield* print(["cp", "-", urlOf("bert/config.json")], { env, input: text("{}") })
      const origin = "https://app.example"
      const options = ["--redirect", "1 minute", "--origin", origin, "--name", "weights"]
      const server = yield* start(["serve", urlOf("bert/"), "--port", "0", ...options], { env })
      let log = ""
      server.stderr.on("data", (bytes: Buffer) => log += bytes.toString())
      yield* eventually("the server", () => log.includes("listening on"))
      const port = Number(/127\.0\.0\.1:(\d+)/.exec(log)?.[1])
      const redirected = yield* ask({ port }, "GET", "/objects/config.json", { origin })
      expect([redirected.status, redirected.headers["access-control-allow-origin"]]).toEqual([307, origin])
      const location = redirected.headers.location ?? ""
      expect(yield* Effect.promise(() => fetch(location).then((response) => response.text()))).toBe("{}")
      const refused = yield* ask({ port }, "GET", "/objects/a%00", { origin: "https://other.example" })
      expect([refused.status, refused.headers["access-control-allow-origin"]]).toEqual([400, undefined])
      expect(refused.text).toContain("\"weights\"")
      expect(refused.text).not.toContain(bucket)
    }))
})
