/**
 * Lists objects.
 */
import * as Arr from "effect/Array"
import * as Chunk from "effect/Chunk"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Stream from "effect/Stream"
import type * as StorageBackend from "../../StorageBackend.js"
import type { CommonError } from "../../StorageError.js"
import { checkDirectory, isMissing, listFailed } from "./errors.js"
import type * as nodeFs from "./nodeFs.js"
import { type Directory, stat } from "./paths.js"
import * as Records from "./records.js"
import { hasWholeTime, infoOf } from "./versions.js"
import * as Walk from "./walk.js"

/** How many objects are looked at at once. */
const statsAtOnce = 16

/** The methods of a backend that list objects. */
export const lister = (
  directory: Directory
): Pick<StorageBackend.StorageBackend, "entries" | "keys" | "listDirectory"> => ({
  entries: (options) =>
    listing(directory, Walk.keys(directory, options)).pipe(
      Stream.mapChunksEffect((keys) => Effect.map(describeAll(directory, keys), Chunk.unsafeFromArray))
    ),
  keys: (options) => listing(directory, Walk.keys(directory, options)),
  listDirectory: (prefix) =>
    Effect.gen(function*() {
      const names = yield* Stream.runCollect(listing(directory, Walk.children(directory, { prefix })))
      const [keys, prefixes] = Arr.partition(names, (name) => name.endsWith("/"))
      return { objects: yield* describeAll(directory, keys), prefixes }
    })
})

/**
 * A listing. Folders that are removed meanwhile are skipped, so the base directory is looked at before and after: its absence
 * must not be taken for an empty listing, nor for the end of one.
 */
const listing = (directory: Directory, names: Stream.Stream<string, nodeFs.SystemError>) =>
  Stream.execute(checkDirectory(directory)).pipe(
    Stream.concat(Stream.catchAll(names, (error) => Stream.execute(listFailed(directory)(error)))),
    Stream.concat(Stream.execute(checkDirectory(directory)))
  )

const describeAll = (directory: Directory, keys: Iterable<string>) =>
  Effect.gen(function*() {
    const files = Arr.getSomes(
      yield* Effect.forEach(keys, (key) => statFile(directory, key), { concurrency: statsAtOnce })
    )
    // Asked after the stats: a record is written before its file gets the name.
    if (!files.some(({ stats }) => hasWholeTime(stats)) || !(yield* Records.areWholeInUse(directory))) {
      return files.map(({ key, stats }) => infoOf(directory, key, stats, undefined))
    }
    const described = yield* Effect.forEach(files, ({ key, stats }) => describeRecorded(directory, key, stats), {
      concurrency: statsAtOnce
    })
    return Arr.getSomes(described)
  })

/** The file of a key that was listed, unless the object is gone. */
const statFile = (directory: Directory, key: string) =>
  stat(directory, key).pipe(
    Effect.map((stats) => stats.isFile() ? Option.some({ key, stats }) : Option.none()),
    // By now it is a link out of the directory.
    Effect.catchTag("AccessDenied", () => Effect.succeedNone),
    Effect.catchIf(isMissing, () => Effect.succeedNone),
    Effect.catchAll(listFailed(directory))
  )

/** Its info, where a part of the etag may be recorded. */
const describeRecorded = (
  directory: Directory,
  key: string,
  stats: nodeFs.Stats
): Effect.Effect<Option.Option<StorageBackend.ObjectInfo>, CommonError> =>
  Effect.gen(function*() {
    const version = yield* Effect.catchTag(
      Records.versionOf(directory, key, stats),
      "AccessDenied",
      // Who may not read an object, can see it in a listing all the same.
      () => Effect.succeed({ record: { stamp: undefined } })
    )
    // What else is recorded is not listed.
    if (version !== undefined) return Option.some(infoOf(directory, key, stats, version.record.stamp))
    // It was overwritten meanwhile.
    const file = yield* statFile(directory, key)
    return Option.isNone(file) ? Option.none() : yield* describeRecorded(directory, key, file.value.stats)
  })
