/**
 * A page that reads a model from a hub.
 */
import { FetchHttpClient } from "@effect/platform"
import { Effect, Encoding, Layer, Stream } from "effect"
import * as ByteRange from "surfing-weights/ByteRange"
import * as HuggingFaceStorage from "surfing-weights/HuggingFaceStorage"
import * as Storage from "surfing-weights/Storage"
import { offer } from "./tasks.js"

const hashOf = (bytes: Uint8Array<ArrayBuffer>) =>
  Effect.map(
    Effect.promise(() => crypto.subtle.digest("SHA-256", bytes)),
    (digest) => Encoding.encodeHex(new Uint8Array(digest))
  )

/** The SHA-256 of each file, from a load and from a stream, and the end of each. */
const files = (options: HuggingFaceStorage.Options) =>
  Effect.flatMap(
    Storage.list(),
    Effect.forEach((key) =>
      Effect.gen(function*() {
        const chunks = yield* Stream.runCollect(Storage.stream(key))
        const streamed = new Uint8Array([...chunks].flatMap((chunk) => [...chunk]))
        const load = yield* hashOf(yield* Storage.load(key))
        return {
          key,
          load,
          stream: yield* hashOf(streamed),
          end: [...(yield* Storage.load(key, { range: ByteRange.last(3) }))]
        }
      })
    )
  ).pipe(Effect.provide(Layer.provide(HuggingFaceStorage.layer(options), FetchHttpClient.layer)))

offer({ files })
