/**
 * A page that streams an object from a weight server and shows its SHA-256. examples/browser.md says how to serve it. The server
 * and the key are in the query: `?server=http://127.0.0.1:8765&key=layer_0.bin`. With `&write` it also saves objects.
 */
import { FetchHttpClient } from "@effect/platform"
import { Effect, Layer, Stream } from "effect"
// Imported one by one, so that the page contains no other module.
import * as HttpStorage from "surfing-weights/HttpStorage"
import * as Storage from "surfing-weights/Storage"

// What is used of the page, declared here because the `DOM` types have a global `Storage`.
declare const document: { getElementById: (id: string) => { textContent: string } | null }
declare const location: { readonly search: string }

const parameters = new URLSearchParams(location.search)
const key = parameters.get("key") ?? ""

// #region layer
const WeightsLive = HttpStorage.layer({ url: parameters.get("server") ?? "http://127.0.0.1:8765" }).pipe(
  Layer.provide(FetchHttpClient.layer)
)
// #endregion

const hex = (buffer: ArrayBuffer) =>
  Array.from(new Uint8Array(buffer), (byte) => byte.toString(16).padStart(2, "0")).join("")

const program = Effect.gen(function*() {
  const { size } = yield* Storage.head(key)
  const bytes = new Uint8Array(size)
  let at = 0
  yield* Stream.runForEach(Storage.stream(key), (chunk) =>
    Effect.sync(() => {
      bytes.set(chunk, at)
      at += chunk.byteLength
    }))
  const hash = yield* Effect.promise(() => crypto.subtle.digest("SHA-256", bytes))
  const keys = yield* Storage.list()
  return { key, size: at, sha256: hex(hash), keys }
})

/** Saves bytes and a stream, fails a precondition and removes an object, on a writable server. */
const writing = Effect.gen(function*() {
  const saved = yield* Storage.save("from-the-browser", new Uint8Array(1_000_000).fill(7), { ifNoneMatch: "*" })
  const again = yield* Storage.save("from-the-browser", new Uint8Array(1), { ifNoneMatch: "*" }).pipe(
    Effect.as("it was overwritten"),
    Effect.catchTag("ObjectAlreadyExists", ({ _tag }) => Effect.succeed(_tag))
  )
  const streamed = yield* Storage.save("streamed", Stream.make(new Uint8Array(10), new Uint8Array(5)))
  yield* Storage.remove("streamed")
  return { saved: saved.size, again, streamed: streamed.size }
})

const show = (result: unknown) => JSON.stringify(result, null, 2)

Effect.gen(function*() {
  const read = yield* program
  return show(parameters.has("write") ? { ...read, written: yield* writing } : read)
}).pipe(
  Effect.provide(WeightsLive),
  Effect.catchAll((error) => Effect.succeed(`Failed with ${error._tag}: ${error.message}`)),
  Effect.tap((text) =>
    Effect.sync(() => {
      const output = document.getElementById("output")
      if (output !== null) output.textContent = text
    })
  ),
  Effect.runPromise
).catch((error: unknown) => {
  const output = document.getElementById("output")
  if (output !== null) output.textContent = `Failed: ${String(error)}`
})
