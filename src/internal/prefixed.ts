/**
 * A folder of a store as a store of its own: every key goes in with the folder before it, and comes out without.
 */
import * as Effect from "effect/Effect"
import * as Stream from "effect/Stream"
import * as ObjectKey from "../ObjectKey.js"
import type { ListOptions, ObjectInfo, StorageBackend } from "../StorageBackend.js"
import * as E from "../StorageError.js"
import { Foreign } from "./foreign.js"
import * as Lending from "./lending.js"
import { relocate } from "./relocate.js"

/** `folder` is a valid key; the objects are those under `<folder>/`. */
export const prefixed = (inner: StorageBackend, folder: string, name: string): StorageBackend => {
  const prefix = `${folder}/`
  const longest = ObjectKey.maxBytes - ObjectKey.byteLength(prefix)

  const strip = (key: string) => key.slice(prefix.length)
  const toInfo = (info: ObjectInfo): ObjectInfo => ({ ...info, key: strip(info.key) })
  const toError = <Err extends E.StorageError>(error: Err): Err =>
    relocate(error, {
      backend: name,
      ...(error.key?.startsWith(prefix) === true && { key: strip(error.key) })
    })

  const tooLong = (operation: string, key: string): E.InvalidKey | undefined => {
    // A UTF-16 unit is at most three bytes of UTF-8, so a short key needs no counting.
    const length = key.length * 3 <= longest ? 0 : ObjectKey.byteLength(key)
    const reason = `it has ${length} bytes, and in the folder ${JSON.stringify(folder)} a key has at most ${longest}`
    return length <= longest ? undefined : new E.InvalidKey({ backend: name, operation, key, reason })
  }

  /** Runs an operation on a key, which it is given in full. */
  const on = <A, Err extends E.StorageError, R>(
    operation: string,
    key: string,
    run: (full: string) => Effect.Effect<A, Err, R>
  ): Effect.Effect<A, Err | E.InvalidKey, R> => {
    const error = tooLong(operation, key)
    return error === undefined ? Effect.mapError(run(prefix + key), toError) : Effect.fail(error)
  }

  /** From one key to another. */
  const between = (operation: "copy" | "move"): StorageBackend["copy"] => (from, to, options) => {
    const error = tooLong(operation, from) ?? tooLong(operation, to)
    return error === undefined
      ? Effect.mapBoth(inner[operation](prefix + from, prefix + to, options), {
        onSuccess: toInfo,
        onFailure: toError
      })
      : Effect.fail(error)
  }

  /** What to list in full; nothing where no key can begin so. */
  const within = ({ prefix: start = "", startAfter = "" }: ListOptions): ListOptions | undefined =>
    ObjectKey.isPrefix(prefix + start)
      ? { prefix: prefix + start, ...(startAfter !== "" && { startAfter: prefix + startAfter }) }
      : undefined

  return {
    name,
    capabilities: inner.capabilities,
    open: (key, options) =>
      on("open", key, (full) =>
        Effect.map(inner.open(full, options), ({ info, range, stream }) => ({
          info: toInfo(info),
          range,
          stream: Lending.map(stream, Stream.mapError(toError))
        }))),
    load: (key, options) => on("load", key, (full) => inner.load(full, options)),
    loadRanges: (key, ranges, options) => on("loadRanges", key, (full) => inner.loadRanges(full, ranges, options)),
    head: (key) => on("head", key, (full) => Effect.map(inner.head(full), toInfo)),
    save: (key, data, options) => {
      const error = tooLong("save", key)
      if (error !== undefined) return Effect.fail(error)
      // A source may fail with a failure of another storage, which is not of this place.
      const source = data instanceof Uint8Array ? data : Stream.mapError(data, (error) => new Foreign(error))
      return Effect.mapBoth(inner.save(prefix + key, source, options), {
        onSuccess: toInfo,
        onFailure: (error) => error instanceof Foreign ? error.error : toError(error)
      })
    },
    entries: (options) => {
      const full = within(options)
      return full === undefined
        ? Stream.empty
        : Stream.mapBoth(inner.entries(full), { onSuccess: toInfo, onFailure: toError })
    },
    keys: (options) => {
      const full = within(options)
      return full === undefined
        ? Stream.empty
        : Stream.mapBoth(inner.keys(full), { onSuccess: strip, onFailure: toError })
    },
    listDirectory: (start) => {
      const full = within({ prefix: start })
      return full?.prefix === undefined
        ? Effect.succeed({ objects: [], prefixes: [] })
        : Effect.mapBoth(inner.listDirectory(full.prefix), {
          onSuccess: ({ objects, prefixes }) => ({ objects: objects.map(toInfo), prefixes: prefixes.map(strip) }),
          onFailure: toError
        })
    },
    remove: (key) => on("remove", key, inner.remove),
    removeAll: (keys) => {
      const refused = keys.flatMap((key) => tooLong("removeAll", key) ?? [])
      const long = new Set(refused.map(({ key }) => key))
      const rest = long.size === 0 ? keys : keys.filter((key) => !long.has(key))
      return Effect.mapBoth(inner.removeAll(rest.map((key) => prefix + key)), {
        onSuccess: (failures) => [...refused, ...failures.map(toError)],
        onFailure: toError
      })
    },
    copy: between("copy"),
    move: between("move"),
    presign: (key, options) => on("presign", key, (full) => inner.presign(full, options))
  }
}
