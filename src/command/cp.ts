/**
 * `cp`: copies an object or the objects of a folder, also from standard input and to standard output (`-`).
 */
import * as NodeStream from "@effect/platform-node/NodeStream"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Stream from "effect/Stream"
import * as StorageMirror from "../wrappers/StorageMirror.js"
import { print } from "./cat.js"
import { CommandFailed, UsageError } from "./failures.js"
import * as Output from "./output.js"
import { selects } from "./patterns.js"
import * as Places from "./places.js"
import * as Progress from "./progress.js"
import { transfer } from "./transfer.js"

export const cp = (input: {
  readonly from: string
  readonly to: string
  readonly include: ReadonlyArray<string>
  readonly exclude: ReadonlyArray<string>
}) =>
  input.to === "-"
    ? print(input.from)
    : input.from === "-"
    ? fromStandardInput(input.to)
    : Effect.gen(function*() {
      const source = yield* Places.open(input.from, "read")
      const object = yield* Places.objectAt(source)
      if (object === undefined) yield* requireFolder(source, "cp")
      const [from, to] = Places.inOneStorage(source, yield* Places.open(input.to, "write", object === undefined))
      if (object !== undefined) return yield* copyObject(from, object.size, to)
      yield* Places.refuseOverlap(from, to)
      yield* transfer(yield* Places.folderOf(from), yield* Places.folderOf(to), {
        filter: selects(input.include, input.exclude)
      })
    })

/** Fails where a place that is no object is no folder either. */
export const requireFolder = (place: Places.Place, operation: string) =>
  place.isFolder && place.key === ""
    ? Effect.void
    : Effect.filterOrFail(
      Stream.runHead(place.storage.entries({ prefix: Places.prefixOf(place) })),
      Option.isSome,
      () => Places.notFound(place, operation)
    )

/** The key of an object that is copied or moved to a place. */
export const targetKey = (from: Places.Place, to: Places.Place): string =>
  to.isFolder ? Places.prefixOf(to) + from.name : to.key

const copyObject = (from: Places.Place, size: number, to: Places.Place) =>
  Effect.gen(function*() {
    const key = targetKey(from, to)
    if (Places.isOneStorage(from, to)) {
      yield* refuseItself(from, to, key)
      yield* to.storage.copy(from.key, key)
      return yield* Output.event({ event: "copied", key, size }, `copied ${Output.formatBytes(size)} to ${key}`)
    }
    const event = yield* sendObject(from, size, to, key)
    yield* Output.event(
      { event: event._tag.toLowerCase(), key, size },
      event._tag === "Copied" ? `copied ${Output.formatBytes(size)} to ${key}` : `${key} is unchanged`
    )
  })

/** Fails where an object would be copied or moved to its own key. */
export const refuseItself = (from: Places.Place, to: Places.Place, key: string): Effect.Effect<void, UsageError> =>
  key === from.key
    ? Effect.fail(
      new UsageError({ message: `an object cannot be copied or moved to itself (got ${from.text} and ${to.text})` })
    )
    : Effect.void

/** Copies an object to another storage, and shows the progress. */
export const sendObject = (from: Places.Place, size: number, to: Places.Place, key: string) =>
  Effect.gen(function*() {
    const tracker = new Progress.Tracker()
    tracker.total = size
    const storage = yield* tracker.counting(to.storage)
    return yield* Progress.show(
      tracker,
      StorageMirror.copyObject({ storage: from.storage, key: from.key }, { storage, key })
    )
  })

const fromStandardInput = (text: string) =>
  Effect.gen(function*() {
    const to = yield* Places.open(text, "write")
    if (to.isFolder) return yield* new UsageError({ message: `${text} is a folder; give the key of the object, too` })
    const tracker = new Progress.Tracker()
    // An async iterator could not be interrupted while it waits.
    const bytes = NodeStream.fromReadable<CommandFailed, Uint8Array>(
      () => process.stdin,
      (cause) => new CommandFailed({ message: "standard input could not be read", cause })
    )
    const storage = yield* tracker.counting(to.storage)
    const { size } = yield* Progress.show(tracker, storage.save(to.key, bytes))
    yield* Output.event({ event: "copied", key: to.key, size }, `copied ${Output.formatBytes(size)} to ${to.key}`)
  })
