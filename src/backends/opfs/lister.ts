/**
 * Lists objects. A browser lists a folder in no order, so the names of all objects are read and sorted first.
 */
import * as Arr from "effect/Array"
import * as Chunk from "effect/Chunk"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Stream from "effect/Stream"
import * as ObjectKey from "../../ObjectKey.js"
import type { ListOptions, StorageBackend } from "../../StorageBackend.js"
import type { CommonError } from "../../StorageError.js"
import type { FolderHandle } from "./browser.js"
import { type Directory, find } from "./directory.js"
import { call, failed } from "./errors.js"
import { folderText, keyOf } from "./keyEncoding.js"

const pageSize = 128

/** How many objects are looked at at once. */
const looksAtOnce = 16

/** The methods of a backend that list objects. */
export const lister = (
  directory: Directory
): Pick<StorageBackend, "entries" | "keys" | "listDirectory"> => {
  const keys = (options: ListOptions) =>
    Stream.unwrap(
      Effect.map(sortedKeys(directory, options), (keys) =>
        Stream.fromChunks(...Arr.chunksOf(keys, pageSize).map(Chunk.unsafeFromArray)))
    )
  return {
    entries: (options) =>
      Stream.mapChunksEffect(keys(options), (page) => Effect.map(describe(directory, page), Chunk.unsafeFromArray)),
    keys,
    listDirectory: (prefix) =>
      Effect.gen(function*() {
        const objects: Array<string> = []
        const prefixes = new Set<string>()
        for (const key of yield* sortedKeys(directory, { prefix })) {
          const slash = key.indexOf("/", prefix.length)
          if (slash === -1) objects.push(key)
          else prefixes.add(key.slice(0, slash + 1))
        }
        return { objects: yield* describe(directory, objects), prefixes: [...prefixes] }
      })
  }
}

const sortedKeys = (
  { objects }: Directory,
  { prefix = "", startAfter = "" }: ListOptions
): Effect.Effect<Array<string>, CommonError> =>
  call(async () => {
    const keys: Array<string> = []
    await addKeys(objects, "", keys)
    return keys
      .filter((key) => key.startsWith(prefix) && (startAfter === "" || ObjectKey.compare(key, startAfter) > 0))
      .sort(ObjectKey.compare)
  }).pipe(Effect.catchTag("FileSystemError", failed))

const addKeys = async (folder: FolderHandle, before: string, keys: Array<string>): Promise<void> => {
  for await (const entry of folder.values()) {
    const { kind, name } = entry
    if (kind === "file") {
      const key = keyOf(before, name)
      if (key !== undefined && ObjectKey.problem(key) === undefined) keys.push(key)
    } else {
      const text = folderText(name)
      if (text !== undefined) await addKeys(entry, before + text, keys)
    }
  }
}

/** The metadata of objects, without those that were removed meanwhile. */
const describe = (directory: Directory, keys: Iterable<string>) =>
  Effect.map(
    Effect.forEach(
      keys,
      (key) =>
        find(directory, key).pipe(
          Effect.map(({ info }) => Option.some(info)),
          Effect.catchTag("ObjectNotFound", () => Effect.succeedNone)
        ),
      { concurrency: looksAtOnce }
    ),
    Arr.getSomes
  )
