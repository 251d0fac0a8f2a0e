/**
 * A page that keeps the weights it loads on the disk of the browser: loaded again, it needs neither a byte of them from the
 * network nor the server. It shows how many bytes have come. examples/browser.md says how to serve it. The server and the key are in
 * the query, as for the other page.
 */
import { FetchHttpClient } from "@effect/platform"
import { Effect, Layer, Stream } from "effect"
// Imported one by one, so that the page contains no other module.
import * as HttpStorage from "surfing-weights/HttpStorage"
import * as OpfsStorage from "surfing-weights/OpfsStorage"
import * as Storage from "surfing-weights/Storage"
import * as StorageCache from "surfing-weights/StorageCache"

// What is used of the page, declared here because the `DOM` types have a global `Storage`.
declare const document: { getElementById: (id: string) => { textContent: string } | null }
declare const location: { readonly search: string }

const parameters = new URLSearchParams(location.search)

const show = (text: string) =>
  Effect.sync(() => {
    const output = document.getElementById("output")
    if (output !== null) output.textContent = text
  })

// #region layer
const WeightsLive = StorageCache.layer({
  // In memory. Larger objects are kept on the disk alone.
  capacity: 64 * 1024 ** 2,
  // Nobody saves other weights under these keys, so the server is not asked about an object that is here.
  freshness: "immutable",
  tier: { layer: OpfsStorage.layer(), capacity: 2 * 1024 ** 3 }
}).pipe(
  // Starts without a server, too.
  Layer.provide(HttpStorage.layer({ url: parameters.get("server") ?? "http://127.0.0.1:8765", verify: false })),
  Layer.provide(FetchHttpClient.layer)
)
// #endregion

// #region progress
const program = Effect.gen(function*() {
  const storage = Storage.withProgress(
    yield* Storage.Storage,
    ({ key, total, transferred }) => show(`${key}: ${transferred} of ${total} bytes`)
  )
  const chunks = yield* Stream.runCollect(storage.stream(parameters.get("key") ?? ""))
  const weights = new Blob(Array.from(chunks))
  const { hits } = yield* Effect.flatMap(StorageCache.StorageCache, (cache) => cache.statistics)
  return `Loaded ${weights.size} bytes from the ${hits === 0 ? "server" : "cache"}`
})
// #endregion

program.pipe(
  Effect.provide(WeightsLive),
  Effect.catchAll((error) => Effect.succeed(`Failed with ${error._tag}: ${error.message}`)),
  Effect.flatMap(show),
  Effect.runPromise
).catch((error: unknown) => Effect.runSync(show(`Failed: ${String(error)}`)))
