/**
 * `OpfsStorage` in a real browser: on pages and in workers, in several tabs, in one that crashes, and as the second tier of a
 * cache.
 */
import { describe, expect } from "@effect/vitest"
import { Effect } from "effect"
import { createHash } from "node:crypto"
import { join, resolve } from "node:path"
import type { Page } from "playwright-core"
import { MemoryStorage } from "surfing-weights"
import { browser, inBrowser, openTab, pageOf, perform, performInWorker } from "../support/chromium.js"
import { pattern } from "../support/intercepting.js"
import { eventually, serveOf } from "../support/weightServer.js"

const expectShim = join(resolve(import.meta.dirname, "../.."), "test/runtimes/expect.ts")

const MiB = 1024 * 1024

/** A browser, and the address of its page. */
const setup = Effect.gen(function*() {
  const address = yield* pageOf("test/browser/opfs.ts", { vitest: expectShim, "@effect/vitest": expectShim })
  const { context } = yield* browser
  return { address, context, open: openTab(context, address) }
})

const protocol = (tab: Page) => Effect.promise(() => tab.context().newCDPSession(tab))

describe("OpfsStorage in Chromium", () => {
  inBrowser.scopedLive("keeps the contract, in a worker", () =>
    Effect.gen(function*() {
      const { open } = yield* setup
      expect(yield* performInWorker(yield* open, "contract")).toEqual({ rules: 141, broken: [] })
    }), 900_000)

  inBrowser.scopedLive(
    "lets one of two tabs save an object that does not exist, and loses no increment",
    () =>
      Effect.gen(function*() {
        const { open } = yield* setup
        const tabs = [yield* open, yield* open]
        const keys = Array.from({ length: 50 }, (_, index) => `claimed/${index}`)
        // In opposite orders, so that each is the first at some, and they meet.
        const claims = yield* Effect.forEach(
          tabs,
          (tab, fill) => perform(tab, "claim", { keys: fill === 0 ? keys : [...keys].reverse(), fill }),
          { concurrency: "unbounded" }
        )
        expect(claims.flat().sort()).toEqual([...keys].sort())
        for (const [fill, claimed] of claims.entries()) {
          expect(claimed).not.toEqual([])
          const [first] = claimed as ReadonlyArray<string>
          expect(yield* perform(yield* open, "load", { key: first })).toEqual({ size: 100_000, fill })
        }
        const [tab] = tabs
        if (tab === undefined) return
        yield* perform(tab, "save", { key: "number", size: 1, fill: "0".charCodeAt(0) })
        const times = 25
        yield* Effect.all([
          ...tabs.map((tab) => perform(tab, "increment", { key: "number", times })),
          performInWorker(tab, "increment", { key: "number", times })
        ], { concurrency: "unbounded" })
        expect(yield* perform(tab, "increment", { key: "number", times: 1 })).toBe(3 * times + 1)
      })
  )

  inBrowser.scopedLive(
    "leaves the old object whole where a tab crashes during a save, and reaps what the tab has left",
    () =>
      Effect.gen(function*() {
        const { open } = yield* setup
        const [saving, other] = [yield* open, yield* open]
        yield* perform(other, "save", { key: "k", size: MiB, fill: 7 })
        yield* Effect.forkScoped(Effect.exit(perform(saving, "saveForever", { key: "k" })))
        let names: unknown = []
        const look = Effect.map(perform(other, "temporary"), (found) => {
          names = found
        })
        yield* Effect.repeat(look, { until: () => Array.isArray(names) && names.length > 1, times: 1000 })
        expect(names).not.toEqual([])
        // Another storage does not take it for a leftover while it is written.
        expect(yield* perform(other, "list")).toEqual(["k"])
        yield* look
        expect(names).not.toEqual([])

        let hasCrashed = false
        saving.on("crash", () => hasCrashed = true)
        const session = yield* protocol(saving)
        void session.send("Page.crash").catch(() => {})
        yield* eventually("the crash", () => hasCrashed)
        expect(yield* perform(other, "load", { key: "k" })).toEqual({ size: MiB, fill: 7 })
        expect(yield* perform(other, "list")).toEqual(["k"])
        expect(yield* perform(other, "temporary")).toEqual([])
      })
  )

  inBrowser.scopedLive(
    "serves a cache after the page is loaded again, without a byte from the network",
    () =>
      Effect.gen(function*() {
        const { address, open } = yield* setup
        const memory = yield* MemoryStorage.make()
        const bytes = pattern(8 * MiB + 5)
        yield* memory.save("bert/model.onnx", bytes)
        const { connections, url: server } = yield* serveOf(memory, { origins: [address] })
        const sent = () => connections.reduce((sum, { bytesWritten }) => sum + bytesWritten, 0)
        const sha256 = createHash("sha256").update(bytes).digest("hex")
        const tab = yield* open
        const load = perform(tab, "loadCached", { server, key: "bert/model.onnx" })
        expect(yield* load).toEqual({ sha256, hits: 0, misses: 1, failures: 0, kept: 1 })
        expect(sent()).toBeGreaterThan(bytes.byteLength)
        const before = sent()
        yield* Effect.promise(() => tab.reload())
        yield* Effect.promise(() => tab.waitForFunction("globalThis.perform !== undefined"))
        expect(yield* load).toEqual({ sha256, hits: 1, misses: 0, failures: 0, kept: 1 })
        expect(yield* performInWorker(tab, "loadCached", { server, key: "bert/model.onnx" })).toMatchObject({
          sha256,
          hits: 1
        })
        expect(sent()).toBe(before)
      })
  )

  inBrowser.scopedLive(
    "fails with StorageFull beyond the quota and keeps the old object; a cache goes on without",
    () =>
      Effect.gen(function*() {
        const { address, open } = yield* setup
        const memory = yield* MemoryStorage.make()
        const bytes = pattern(8 * MiB)
        yield* memory.save("model.onnx", bytes)
        const { url: server } = yield* serveOf(memory, { origins: [address] })
        const tab = yield* open
        const session = yield* protocol(tab)
        yield* Effect.promise(() =>
          session.send("Storage.overrideQuotaForOrigin", { origin: address, quotaSize: 4 * MiB })
        )
        expect(yield* perform(tab, "save", { key: "k", size: MiB, fill: 1 })).toBe("saved")
        expect(yield* perform(tab, "save", { key: "k", size: 8 * MiB, fill: 2 })).toBe("StorageFull")
        // Chromium may also say that it gave up.
        expect(yield* perform(tab, "saveAborted", { key: "k", size: 8 * MiB, fill: 2 })).toBe("StorageFull")
        expect(yield* perform(tab, "saveAborted", { key: "k", size: MiB, fill: 2 })).toContain("the browser gave up")
        expect(yield* perform(tab, "load", { key: "k" })).toEqual({ size: MiB, fill: 1 })
        expect(yield* perform(tab, "temporary")).toEqual([])
        const sha256 = createHash("sha256").update(bytes).digest("hex")
        expect(yield* perform(tab, "loadCached", { server, key: "model.onnx" })).toMatchObject({
          sha256,
          failures: 1,
          kept: 0
        })
        // There is room for small objects.
        expect(yield* perform(tab, "save", { key: "small", size: MiB, fill: 3 })).toBe("saved")
      })
  )

  inBrowser.scopedLive("gives transformers.js blobs that stay on the disk", () =>
    Effect.gen(function*() {
      const { open } = yield* setup
      const expected = { isWhole: true, range: [8, 16], replaced: "NotReadableError" }
      const tab = yield* open
      expect(yield* perform(tab, "match")).toEqual(expected)
      expect(yield* performInWorker(tab, "match")).toEqual(expected)
    }))

  inBrowser.scopedLive("keeps an object of more than 2 GiB", () =>
    Effect.gen(function*() {
      const { open } = yield* setup
      const size = 2100
      const result = yield* performInWorker(yield* open, "large", { size })
      expect(result).toMatchObject({
        size: size * MiB,
        end: [size * MiB - 16, size * MiB - 8],
        read: size * MiB,
        wrong: 0
      })
    }))
})
