/**
 * Copies the objects of a folder to another storage, for `cp`, `sync` and `mv`. What is there already is left as it is, so a
 * transfer that was broken off goes on when the command is given again, in the middle of a large object where `StorageMirror` can
 * resume its copy.
 */
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Stream from "effect/Stream"
import type * as Storage from "../Storage.js"
import type { StorageError } from "../StorageError.js"
import * as StorageMirror from "../wrappers/StorageMirror.js"
import { CommandFailed, type UsageError } from "./failures.js"
import * as Output from "./output.js"
import * as Progress from "./progress.js"

/** What a transfer did, in numbers. */
interface Counts {
  copied: number
  bytes: number
  unchanged: number
  removed: number
  failed: number
}

/** How many objects are copied at once: enough for small ones, and few enough for the parts of large ones. */
export const concurrency = 16

/** Copies a folder, and prints what was done. */
export const transfer = (
  from: Storage.Service,
  to: Storage.Service,
  options: StorageMirror.Options
): Effect.Effect<void, StorageError | CommandFailed | UsageError, Output.Output> =>
  Effect.gen(function*() {
    const settings = yield* Output.Output
    const tracker = new Progress.Tracker()
    const counts: Counts = { copied: 0, bytes: 0, unchanged: 0, removed: 0, failed: 0 }
    const whole = { concurrency, ...options }
    const isDry = options.dryRun === true

    const note = (event: StorageMirror.Event) =>
      Effect.gen(function*() {
        count(counts, event)
        tracker.files = counts.copied
        if (event._tag === "Unchanged") tracker.skip(event.size)
        if (event._tag === "Failed") yield* Output.warn(event.error.message)
        if (settings.json || (isDry && event._tag !== "Unchanged")) {
          yield* Output.event(toJson(event, isDry), describe(event))
        }
      })

    const sync = Stream.runForEach(StorageMirror.sync(from, yield* tracker.counting(to), whole), note)
    const outcome = yield* Effect.either(
      isDry ? sync : Progress.show(tracker, sync, estimate(from, whole, tracker))
    )
    if (Either.isLeft(outcome) && counts.failed === 0) return yield* Effect.fail(outcome.left)
    yield* Output.event({ event: isDry ? "plan" : "done", ...counts }, summarize(counts, isDry))
    if (counts.failed > 0) {
      return yield* new CommandFailed({
        message: `${
          Output.plural(counts.failed, "object")
        } could not be copied; give the command again to copy the rest`
      })
    }
  })

/** Finds out how many bytes there are to copy. It is an estimate: objects are copied while it is made. */
const estimate = (
  from: Storage.Service,
  { filter = () => true, prefix }: StorageMirror.Options,
  tracker: Progress.Tracker
): Effect.Effect<void> =>
  from.entries({ prefix }).pipe(
    Stream.runFold(0, (sum, { key, size }) => filter(key) ? sum + size : sum),
    Effect.match({
      onSuccess: (total) => {
        tracker.total = total - tracker.skipped
      },
      // Without it there is no time left to show; the transfer itself tells what is wrong.
      onFailure: () => {}
    })
  )

const count = (counts: Counts, event: StorageMirror.Event): void => {
  switch (event._tag) {
    case "Copied":
      counts.copied++
      counts.bytes += event.size
      break
    case "Unchanged":
      counts.unchanged++
      break
    case "Removed":
      counts.removed++
      break
    case "Failed":
      counts.failed++
  }
}

const toJson = (event: StorageMirror.Event, isDry: boolean): Output.Json => {
  const { _tag, ...fields } = event
  return {
    event: _tag.toLowerCase(),
    ...(isDry && { dryRun: true }),
    ...("error" in fields ? { key: fields.key, error: fields.error._tag, message: fields.error.message } : fields)
  }
}

const describe = StorageMirror.Event.$match({
  Copied: ({ key, size }) => `copy ${key} (${Output.formatBytes(size)})`,
  Unchanged: ({ key }) => `keep ${key}`,
  Removed: ({ key }) => `remove ${key}`,
  Failed: ({ key }) => `cannot compare ${key}`
})

const summarize = ({ bytes, copied, removed, unchanged }: Counts, isDry: boolean): string => {
  const changes = [
    `${Output.plural(copied, "object")} ${isDry ? "to copy" : "copied"} (${Output.formatBytes(bytes)})`,
    ...(removed > 0 ? [`${removed} ${isDry ? "to remove" : "removed"}`] : []),
    `${unchanged} unchanged`
  ]
  return changes.join(", ")
}
