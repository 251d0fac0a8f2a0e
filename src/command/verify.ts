/**
 * `verify`: reads the chunks of a model again, and compares them with its manifest.
 */
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Stream from "effect/Stream"
import * as Storage from "../Storage.js"
import * as ModelChunks from "../weights/ModelChunks.js"
import { CommandFailed } from "./failures.js"
import * as Output from "./output.js"
import * as Places from "./places.js"
import * as Progress from "./progress.js"

export const verify = (input: { readonly place: string }) =>
  Effect.gen(function*() {
    const place = yield* Places.openFolder(input.place, "read")
    const tracker = new Progress.Tracker()
    const damaged: Array<string> = []
    const note = (event: ModelChunks.Event) =>
      Effect.gen(function*() {
        tracker.total = event.total
        if (event._tag === "Progress") return
        tracker.files++
        if (event._tag === "Verified") return yield* Output.event({ event: "verified", chunk: event.name })
        damaged.push(event.name)
        yield* Output.warn(event.error.message)
        yield* Output.event({ event: "damaged", chunk: event.name, message: event.error.message })
      })
    const verifying = Stream.runForEach(ModelChunks.verify(place.key), note).pipe(
      Effect.provideService(Storage.Storage, tracker.countingLoads(place.storage))
    )
    const outcome = yield* Effect.either(Progress.show(tracker, verifying))
    if (damaged.length > 0) {
      return yield* new CommandFailed({
        message: `${damaged.length} of ${Output.plural(tracker.files, "chunk")} do not match the manifest`
      })
    }
    if (Either.isLeft(outcome)) return yield* Effect.fail(outcome.left)
    yield* Output.event(
      { event: "done", chunks: tracker.files, bytes: tracker.total ?? 0 },
      `${Output.plural(tracker.files, "chunk")} verified (${Output.formatBytes(tracker.total ?? 0)})`
    )
  })
