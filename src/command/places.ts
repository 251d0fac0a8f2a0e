/**
 * Places as they are given to a command: the URL or path of an object or a folder, taken apart into a storage and a key.
 *
 * - A path: what is written is not synced to the disk, as with `cp` and the like, which is many times as fast for small objects;
 *   `file:///path?durability=full` syncs it. The storage is the nearest directory above with a hidden folder `.surfing-weights`, which keeps the
 *   attributes of objects; where there is none, the folder itself, or the folder of the object.
 * - `s3://bucket/key?options`: the bucket.
 * - `https://host/key`: the server at the root of the host; `https://host/path/objects/key`: the server at this path.
 *
 * `--key-file` and `--compress` add to the storages of URLs. In URLs, keys are percent-encoded where they have a `%`, `?` or `#`. A slash at the end means a folder.
 */
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import type * as Scope from "effect/Scope"
import * as fs from "node:fs"
import * as path from "node:path"
import { fileURLToPath } from "node:url"
import * as Storage from "../Storage.js"
import { ObjectNotFound, type StorageError } from "../StorageError.js"
import * as StoragePrefix from "../wrappers/StoragePrefix.js"
import { UsageError } from "./failures.js"
import { wrap, type Wrapping } from "./wrapping.js"

export interface Place {
  /** As it was given. */
  readonly text: string
  readonly storage: Storage.Service
  /** The key of the object, or of the folder without a slash at its end; empty for the root. */
  readonly key: string
  /** Whether it can only be a folder: the root, a directory, or a place with a slash at its end. */
  readonly isFolder: boolean
  /** The last name of the path. */
  readonly name: string
  /** The directory of the storage, where it is one. */
  readonly directory?: string
}

/** What a place is used for: a directory that is to be written is created. */
export type Access = "read" | "write"

/** Opens the storage of a place. */
export const open = (
  text: string,
  access: Access,
  isFolder = false
): Effect.Effect<Place, Storage.UrlError | UsageError, Scope.Scope | Wrapping> => {
  if (text.trim() === "") return Effect.fail(new UsageError({ message: "a place must be a URL or a path (got \"\")" }))
  // A single letter and a colon are a drive of Windows.
  const [, scheme] = /^([a-z][a-z0-9+.-]+):/i.exec(text) ?? []
  if (scheme === undefined) return openPath(text, text, access, isFolder)
  return Effect.flatMap(
    scheme.toLowerCase() === "file" ? openFileUrl(text, access, isFolder) : openUrl(text, isFolder),
    wrapped
  )
}

/** A place with what options add to its storage. Then it is in no directory, as a path there is the storage without that. */
const wrapped = ({ directory, ...place }: Place) =>
  Effect.map(
    wrap(place.storage),
    (storage): Place =>
      storage === undefined ? { ...place, ...(directory !== undefined && { directory }) } : { ...place, storage }
  )

/** Opens the storage of a place that is a folder, also where it does not end in a slash. */
export const openFolder = (text: string, access: Access) => open(text, access, true)

const openFileUrl = (text: string, access: Access, isFolder: boolean) =>
  Effect.flatMap(
    Effect.try({
      try: () => {
        const { href, search } = new URL(text)
        return { location: fileURLToPath(href), query: search }
      },
      catch: () => new UsageError({ message: `a file URL must be such as file:///directory (got ${text})` })
    }),
    ({ location, query }) => openPath(text, location, access, isFolder, query)
  )

const openPath = (
  text: string,
  location: string,
  access: Access,
  asFolder: boolean,
  query = ""
): Effect.Effect<Place, Storage.UrlError, Scope.Scope> =>
  Effect.gen(function*() {
    const absolute = path.resolve(location)
    const isFolder = asFolder || /[/\\]$/.test(location) || isDirectory(absolute)
    const root = rootOf(isFolder ? absolute : path.dirname(absolute), access)
    const key = path.relative(root, absolute).split(path.sep).join("/")
    const storage = yield* openDirectory(root, access, query)
    return { text, storage, key, isFolder, name: path.basename(absolute), directory: root }
  })

const openDirectory = (directory: string, access: Access, query: string) =>
  query === ""
    ? Effect.flatMap(
      Effect.promise(() => import("../backends/FileSystemStorage.js")),
      ({ make }) =>
        make({
          directory: path.relative(process.cwd(), directory) || ".",
          create: access === "write",
          durability: "relaxed"
        })
    )
    : Storage.fromUrl(`file://${directory.split(path.sep).map(encodeURIComponent).join("/")}${query}`)

const isDirectory = (location: string): boolean =>
  fs.statSync(location, { throwIfNoEntry: false })?.isDirectory() === true

/** The nearest directory with a hidden folder that can be used, or the folder itself. */
const rootOf = (folder: string, access: Access): string => {
  const mode = access === "write" ? fs.constants.W_OK : fs.constants.R_OK
  for (let directory = folder;; directory = path.dirname(directory)) {
    const hidden = path.join(directory, ".surfing-weights")
    if (isAccessible(hidden, mode) && isTrusted(hidden, directory)) return directory
    if (directory === path.dirname(directory)) return folder
  }
}

/**
 * Whether a hidden folder is of this user, of root, or of whom its directory belongs to: anybody can put one into `/tmp`, and would
 * receive what is saved below it.
 */
const isTrusted = (hidden: string, directory: string): boolean => {
  const owner = fs.lstatSync(hidden, { throwIfNoEntry: false })?.uid
  return owner === 0 || owner === process.getuid?.() ||
    owner === fs.statSync(directory, { throwIfNoEntry: false })?.uid
}

const isAccessible = (location: string, mode: number): boolean => {
  try {
    fs.accessSync(location, mode)
    return true
  } catch {
    return false
  }
}

const openUrl = (text: string, asFolder: boolean): Effect.Effect<Place, Storage.UrlError, Scope.Scope> =>
  Effect.gen(function*() {
    const [, scheme = "", authority = "", rest = "", query = ""] =
      /^([^:]+):\/\/([^/?#]*)([^?#]*)(\?[^#]*)?/s.exec(text) ?? []
    const at = /^https?$/i.test(scheme) ? /^(.*?)\/objects(?:\/|$)(.*)$/s.exec(rest) : null
    const [base = "", encoded = ""] = at === null ? ["", rest.replace(/^\//, "")] : at.slice(1)
    const decoded = Option.getOrUndefined(Option.liftThrowable(decodeURIComponent)(encoded))
    const isKnown = /^(?:s3|https?)$/i.test(scheme)
    // What is wrong with the URL is told by the storage.
    if (!isKnown || decoded === undefined) {
      return { text, storage: yield* Storage.fromUrl(text), key: "", isFolder: true, name: "" }
    }
    const storage = yield* Storage.fromUrl(`${scheme}://${authority}${base}${query}`)
    const key = decoded.replace(/\/$/, "")
    const isFolder = asFolder || key === "" || decoded.endsWith("/")
    return { text, storage, key, isFolder, name: path.posix.basename(key) }
  })

/** Whether a place was given with a slash at the end of its path. */
export const endsInSlash = (text: string): boolean =>
  (/^[a-z][a-z0-9+.-]+:/i.test(text) ? text.replace(/[?#].*$/s, "") : text).endsWith("/")

/** What the keys in the folder of a place begin with. */
export const prefixOf = ({ key }: Place): string => key === "" ? "" : `${key}/`

/** The folder as a storage of its own. */
export const folderOf = ({ key, storage }: Place): Effect.Effect<Storage.Service, StorageError> =>
  key === "" ? Effect.succeed(storage) : StoragePrefix.make(storage, key)

/** The object at a place, if there is one. */
export const objectAt = (
  { isFolder, key, storage }: Place
): Effect.Effect<Storage.ObjectInfo | undefined, StorageError> =>
  isFolder
    ? Effect.succeed(undefined)
    : Effect.catchTag(storage.head(key), "ObjectNotFound", () => Effect.succeed(undefined))

/** The object at a place, which must be there. */
export const requireObject = (place: Place): Effect.Effect<Storage.ObjectInfo, StorageError | UsageError> =>
  place.isFolder
    ? Effect.fail(new UsageError({ message: `${place.text} is a folder; give the URL or path of an object` }))
    : place.storage.head(place.key)

/** The failure for a place with neither an object nor a folder. */
export const notFound = ({ key, storage }: Place, operation: string): ObjectNotFound =>
  new ObjectNotFound({ key, operation, backend: storage.backend.name })

/**
 * Two places, in one storage where the directory of one contains that of the other: what is moved is then renamed. A directory with
 * a hidden folder stays what it is, as the attributes of its objects are there.
 */
export const inOneStorage = (
  from: Place,
  to: Place
): readonly [from: Place, to: Place] => [within(from, to), within(to, from)]

const within = (inner: Place, outer: Place): Place => {
  if (inner.directory === undefined || outer.directory === undefined) return inner
  const between = path.relative(outer.directory, inner.directory)
  const isInside = between !== "" && !between.startsWith("..") && !path.isAbsolute(between)
  if (!isInside || isAccessible(path.join(inner.directory, ".surfing-weights"), fs.constants.F_OK)) return inner
  const key = [...between.split(path.sep), ...(inner.key === "" ? [] : [inner.key])].join("/")
  return { ...inner, storage: outer.storage, directory: outer.directory, key }
}

/** Whether two places are in one storage, which then can copy and move between them by itself. */
export const isOneStorage = ({ storage: one }: Place, { storage: other }: Place): boolean =>
  locationOf(one) === locationOf(other)

const locationOf = ({ backend }: Storage.Service): string => backend.location ?? backend.name

/** Fails where one folder lies in the other: a copy into its own source would not end. */
export const refuseOverlap = (from: Place, to: Place): Effect.Effect<void, UsageError> => {
  const [source, target] = [from, to].map((place) => `${locationOf(place.storage)}/${prefixOf(place)}`)
  return source !== undefined && target !== undefined && (source.startsWith(target) || target.startsWith(source))
    ? Effect.fail(new UsageError({ message: `neither folder may lie in the other (got ${from.text} and ${to.text})` }))
    : Effect.void
}
