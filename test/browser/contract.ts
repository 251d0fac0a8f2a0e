/**
 * A page that does with a weight server what differs in a browser: it cannot send streams, nor ask for no encoding, and sees
 * only exposed headers. Its result is the text of the page.
 */
import { FetchHttpClient } from "@effect/platform"
import { Effect, Exit, Layer, Schedule, Stream } from "effect"
import * as HttpStorage from "surfing-weights/HttpStorage"
import * as Storage from "surfing-weights/Storage"

// The types of the web know a `Storage`, too.
declare const document: { getElementById: (id: string) => { textContent: string } | null }
declare const location: { readonly search: string }

const parameters = new URLSearchParams(location.search)

const attributes = {
  contentType: "application/x-npy",
  cacheControl: "no-store",
  contentEncoding: "gzip",
  metadata: { model: "bert", author: "J\u00fcrgen" }
}

const program = Effect.gen(function*() {
  // Not even gzip: to decode it fails.
  const encoded = new Uint8Array(100_000).fill(7)
  const saved = yield* Storage.save("encoded", encoded, { attributes })
  const loaded = yield* Storage.load("encoded")
  const opened = yield* Effect.scoped(Storage.open("encoded"))
  const beginning = Stream.make(new Uint8Array(1000), new Uint8Array(1000))
  const failing = [
    Storage.save("failing", Stream.concat(beginning, Stream.fail("mine"))),
    Storage.save("failing", Stream.concat(beginning, Stream.fail("mine")), { size: 2000 }),
    Storage.save("failing", Stream.concat(beginning, Stream.die("bug")))
  ]
  const exits = yield* Effect.forEach(failing, Effect.exit)
  const refused = yield* Effect.flip(HttpStorage.make({ url: parameters.get("refusing") ?? "", retry: Schedule.stop }))
  const stale = yield* Effect.flip(Storage.remove("encoded", { ifMatch: "another" }))
  return {
    attributes: [saved.attributes, (yield* Storage.head("encoded")).attributes, opened.info.attributes],
    isWhole: loaded.length === encoded.length && loaded.every((byte) => byte === 7),
    failed: exits.map(Exit.isFailure),
    refused: refused._tag,
    stale: stale._tag,
    keys: yield* Storage.list()
  }
})

const layer = HttpStorage.layer({ url: parameters.get("server") ?? "" })

void Effect.runPromise(Effect.provide(program, Layer.provideMerge(layer, FetchHttpClient.layer))).then(
  JSON.stringify,
  String
)
  .then(
    (text) => {
      const output = document.getElementById("output")
      if (output !== null) output.textContent = text
    }
  )
