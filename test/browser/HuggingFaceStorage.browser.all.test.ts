/**
 * `HuggingFaceStorage` in a real browser, from a weight server of another origin that is a hub.
 */
import { describe, expect } from "@effect/vitest"
import { Effect } from "effect"
import { MemoryStorage } from "surfing-weights"
import { browser, inBrowser, openTab, pageOf, perform } from "../support/chromium.js"
import { files, hashes, model, saveModel } from "../support/hub.js"
import { serveOf } from "../support/weightServer.js"

describe("HuggingFaceStorage in Chromium", () => {
  inBrowser.scopedLive("lists, loads and streams a model of a hub at another origin", () =>
    Effect.gen(function*() {
      const memory = yield* MemoryStorage.make()
      yield* saveModel(memory)
      const address = yield* pageOf("test/browser/hub.ts")
      const { url } = yield* serveOf(memory, { hub: true, origins: [address] })
      const { context } = yield* browser
      const tab = yield* openTab(context, address)
      expect(yield* perform(tab, "files", { repo: model, endpoint: url })).toEqual(
        Object.entries(files).map(([key, bytes]) => ({
          key,
          load: hashes[key],
          stream: hashes[key],
          end: [...bytes.subarray(-3)]
        }))
      )
    }))
})
