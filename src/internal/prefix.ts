/**
 * A folder of a store as a store by itself: keys get the folder's prefix on the way in and lose it on the way out.
 */
import * as Effect from "effect/Effect"
import * as Stream from "effect/Stream"
import * as ObjectKey from "../ObjectKey.js"
import type { ListOptions, ObjectInfo, StorageBackend } from "../StorageBackend.js"
import * as E from "../StorageError.js"
import { withPlace } from "./errors.js"

/** `folder` is a valid key; the objects are those under `<folder>/`. */
export const prefixed = (inner: StorageBackend, folder: string, name: string): StorageBackend => {
  const prefix = `${folder}/`
  const { blob, saveResumable } = inner
  const strip = (key: string) => key.slice(prefix.length)
  const toInfo = (info: ObjectInfo): ObjectInfo => ({ ...info, key: strip(info.key) })
  const toError = <Err extends E.StorageError>(error: Err): Err =>
    error.key?.startsWith(prefix) === true ? withPlace(error, { key: strip(error.key) }) : error

  /** Runs an operation on the full keys, unless one of them is too long. */
  const on = <A, Err extends E.StorageError, R>(
    keys: ReadonlyArray<string>,
    run: () => Effect.Effect<A, Err, R>
  ): Effect.Effect<A, Err | E.InvalidKey, R> => {
    const error = keys.map((key) => tooLong(folder, key)).find((error) => error !== undefined)
    return error === undefined ? run() : Effect.fail(error)
  }

  const between = (operation: "copy" | "move"): StorageBackend["copy"] => (from, to, options) =>
    on([from, to], () =>
      Effect.mapBoth(inner[operation](prefix + from, prefix + to, options), {
        onSuccess: toInfo,
        onFailure: toError
      }))

  /** The listing in full; `undefined` where no key can begin so. */
  const within = ({ prefix: start = "", startAfter = "" }: ListOptions): ListOptions | undefined =>
    ObjectKey.isPrefix(prefix + start)
      ? { prefix: prefix + start, ...(startAfter !== "" && { startAfter: prefix + startAfter }) }
      : undefined

  const listing = <A, B>(
    options: ListOptions,
    list: (options: ListOptions) => Stream.Stream<A, E.ListError>,
    change: (item: A) => B
  ): Stream.Stream<B, E.ListError> => {
    const full = within(options)
    return full === undefined ? Stream.empty : Stream.mapBoth(list(full), { onSuccess: change, onFailure: toError })
  }

  return {
    name,
    location: `${inner.location ?? inner.name}/${prefix}`,
    capabilities: inner.capabilities,
    open: (key, options) =>
      on(
        [key],
        () => Effect.map(inner.open(prefix + key, options), (opened) => ({ ...opened, info: toInfo(opened.info) }))
      ),
    load: (key, options) => on([key], () => inner.load(prefix + key, options)),
    loadRanges: (key, ranges, options) => on([key], () => inner.loadRanges(prefix + key, ranges, options)),
    head: (key) => on([key], () => Effect.map(inner.head(prefix + key), toInfo)),
    save: (key, data, options) => on([key], () => Effect.map(inner.save(prefix + key, data, options), toInfo)),
    saveResumable: saveResumable &&
      ((key, data, options) => on([key], () => Effect.map(saveResumable(prefix + key, data, options), toInfo))),
    blob: blob && ((key, options) => on([key], () => blob(prefix + key, options))),
    entries: (options) => listing(options, inner.entries, toInfo),
    keys: (options) => listing(options, inner.keys, strip),
    listDirectory: (start) => {
      const full = within({ prefix: start })
      return full?.prefix === undefined
        ? Effect.succeed({ objects: [], prefixes: [] })
        : Effect.mapBoth(inner.listDirectory(full.prefix), {
          onSuccess: ({ objects, prefixes }) => ({ objects: objects.map(toInfo), prefixes: prefixes.map(strip) }),
          onFailure: toError
        })
    },
    remove: (key, options) => on([key], () => inner.remove(prefix + key, options)),
    removeAll: (keys) => {
      const refused = keys.flatMap((key) => tooLong(folder, key) ?? [])
      const long = new Set(refused.map(({ key }) => key))
      const rest = keys.filter((key) => !long.has(key)).map((key) => prefix + key)
      return Effect.map(inner.removeAll(rest), (failures) => [...refused, ...failures.map(toError)])
    },
    copy: between("copy"),
    move: between("move"),
    presign: (key, options) => on([key], () => inner.presign(prefix + key, options))
  }
}

const tooLong = (folder: string, key: string): E.InvalidKey | undefined => {
  const most = ObjectKey.maxBytes - ObjectKey.byteLength(folder) - 1
  // A UTF-16 unit is at most three bytes of UTF-8, so a short key needs no counting.
  const length = key.length * 3 <= most ? 0 : ObjectKey.byteLength(key)
  const reason = `a key in the folder ${JSON.stringify(folder)} must not exceed ${most} bytes (got ${length})`
  return length <= most ? undefined : new E.InvalidKey({ key, reason })
}
