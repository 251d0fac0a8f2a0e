/**
 * `split`: a safetensors model in chunks of one layer, or of some size, with a manifest.
 */
import * as Effect from "effect/Effect"
import * as Storage from "../Storage.js"
import * as ModelChunks from "../weights/ModelChunks.js"
import { UsageError } from "./failures.js"
import * as Output from "./output.js"
import * as Places from "./places.js"
import * as Progress from "./progress.js"
import { parseSize } from "./values.js"

export const split = (input: {
  readonly source: string
  readonly target: string
  readonly bytes: string | undefined
  readonly order: ReadonlyArray<string>
}) =>
  Effect.gen(function*() {
    const by = input.bytes === undefined ? "layer" as const : { bytes: yield* parseSize("bytes", input.bytes) }
    const model = yield* Places.open(input.source, "read")
    yield* Places.requireObject(model)
    const [source, target] = Places.inOneStorage(model, yield* Places.openFolder(input.target, "write"))
    if (!Places.isOneStorage(source, target)) {
      return yield* new UsageError({
        message: `the model and its chunks must be in one storage (got ${input.source} and ${input.target}); ` +
          "copy the model there first, or in a file system give a folder below that of the model"
      })
    }
    const tracker = new Progress.Tracker()
    const storage = yield* tracker.counting(target.storage)
    const { chunks } = yield* Progress.show(
      tracker,
      ModelChunks.split({
        source: source.key,
        target: target.key,
        by,
        order: input.order.length === 0 ? undefined : input.order
      }).pipe(Effect.provideService(Storage.Storage, storage))
    )
    for (const { key, name, size } of chunks) yield* Output.event({ event: "saved", chunk: name, key, size })
    yield* Output.event(
      { event: "done", chunks: chunks.length },
      `${Output.plural(chunks.length, "chunk")} and ${ModelChunks.manifestName} in ${input.target}`
    )
  })
