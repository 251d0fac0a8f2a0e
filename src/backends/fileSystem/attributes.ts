/**
 * Attributes of objects, in files of the hidden folder: `attributes/<two digits>/<hash of the key>-<etag>`.
 *
 * Such a file belongs to one version of one object. It is written before the object is renamed into place, and removed once
 * the object is overwritten or removed. So at any moment a version has all of its attributes, and a file that another program
 * changed has none. What a killed process leaves, or what belongs to an object that another program changed, is abandoned: it is
 * never read, and removed by `sweep`.
 */
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Random from "effect/Random"
import * as Schema from "effect/Schema"
import mime from "mime"
import { createHash } from "node:crypto"
import type { Attributes, ObjectInfo } from "../../StorageBackend.js"
import type { AccessDenied, CommonError } from "../../StorageError.js"
import { isMissing, toReadError } from "./errors.js"
import * as nodeFs from "./nodeFs.js"
import * as Owner from "./owner.js"
import { type Directory, stat } from "./paths.js"
import * as TemporaryFiles from "./temporaryFiles.js"
import { etagOf, infoOf, mayHaveAttributes } from "./versions.js"

/** A version of an object: its info, with all attributes, and those of them that are kept with it. */
export interface Version {
  readonly info: ObjectInfo
  readonly kept: Attributes | undefined
}

/** Attributes, unless there are none. */
export const nonEmpty = (attributes: Attributes | undefined): Attributes | undefined =>
  attributes === undefined || Object.keys(attributes).length === 0 ? undefined : attributes

/** A version with these attributes; where they have no content type, it is derived from the key. */
export const versionWith = (key: string, stats: nodeFs.Stats, kept: Attributes | undefined): Version => {
  // With the slash, a name without a dot is no extension.
  const derived = kept?.contentType === undefined ? mime.getType(`/${key}`) : null
  const attributes = derived === null ? kept : { ...kept, contentType: derived }
  const info = infoOf(key, stats)
  return { info: attributes === undefined ? info : { ...info, attributes }, kept }
}

/** The version that a file's stats show; `undefined` where it was overwritten and its attributes are gone. */
export const versionOf = (
  directory: Directory,
  key: string,
  stats: nodeFs.Stats
): Effect.Effect<Version | undefined, CommonError> =>
  mayHaveAttributes(stats)
    ? Effect.catchTag(lookUp(directory, key, stats), "SystemError", (error) =>
      Effect.fail(toReadError(parentOf(directory), error)))
    : Effect.succeed(versionWith(key, stats, undefined))

const lookUp = (directory: Directory, key: string, stats: nodeFs.Stats) =>
  Effect.gen(function*() {
    const etag = etagOf(stats)
    const file = yield* readFile(pathOf(directory, key, etag))
    if (file?.key === key) {
      directory.attributesInUse = true
      return versionWith(key, stats, attributesOf(file))
    }
    const current = yield* orMissing(stat(directory, key))
    return current !== undefined && etagOf(current) === etag ? versionWith(key, stats, undefined) : undefined
  })

const orMissing = <A, E>(effect: Effect.Effect<A, E | nodeFs.SystemError>) =>
  Effect.catchIf(
    effect,
    (error) => error instanceof nodeFs.SystemError && isMissing(error),
    () => Effect.succeed(undefined)
  )

// The files

const File = Schema.parseJson(Schema.Struct({
  key: Schema.String,
  /** The process that wrote it, see `owner.ts`. */
  owner: Schema.String,
  attributes: Schema.Struct({
    contentType: Schema.optional(Schema.String),
    cacheControl: Schema.optional(Schema.String),
    contentDisposition: Schema.optional(Schema.String),
    contentEncoding: Schema.optional(Schema.String),
    contentLanguage: Schema.optional(Schema.String),
    /** Pairs, since a name may be `__proto__`. */
    metadata: Schema.optional(Schema.Array(Schema.Tuple(Schema.String, Schema.String)))
  })
}))

const decode = Schema.decodeOption(File)

const encode = Schema.encodeSync(File)

const attributesOf = ({ attributes: { metadata, ...fields } }: typeof File.Type): Attributes => ({
  ...fields,
  ...(metadata !== undefined && { metadata: Object.fromEntries(metadata) })
})

const parentOf = ({ hidden }: Directory): string => `${hidden}/attributes`

const pathOf = (directory: Directory, key: string, etag: string): string => {
  const hash = createHash("sha256").update(key).digest("hex").slice(0, 32)
  return `${parentOf(directory)}/${hash.slice(0, 2)}/${hash}-${etag}`
}

const readFile = (path: string): Effect.Effect<typeof File.Type | undefined, nodeFs.SystemError> =>
  nodeFs.readText(path).pipe(
    Effect.map((text) => Option.getOrUndefined(decode(text))),
    Effect.catchIf(isMissing, () => Effect.succeed(undefined))
  )

/** Keeps attributes for a version of an object that is about to get its name. */
export const write = (
  directory: Directory,
  key: string,
  stats: nodeFs.Stats,
  attributes: Attributes
): Effect.Effect<void, nodeFs.SystemError> =>
  Effect.gen(function*() {
    const path = pathOf(directory, key, etagOf(stats))
    const folder = nodeFs.dirname(path)
    const { descriptor, path: temporary } = yield* TemporaryFiles.create(directory)
    const metadata = attributes.metadata && Object.entries(attributes.metadata)
    const text = encode({ key, owner: directory.owner, attributes: { ...attributes, metadata } })
    yield* nodeFs.write(descriptor, [new TextEncoder().encode(text)], 0)
    if (directory.durable) yield* nodeFs.sync(descriptor)
    const rename = nodeFs.rename(temporary, path)
    const created = yield* Effect.catchIf(Effect.as(rename, []), nodeFs.hasCode("ENOENT"), () =>
      Effect.as(Effect.zipRight(nodeFs.makeFolders(folder), rename), [
        parentOf(directory),
        directory.hidden,
        directory.path
      ]))
    if (directory.durable) {
      yield* Effect.forEach([folder, ...created], nodeFs.syncFolder, { discard: true })
    }
    directory.attributesInUse = true
  }).pipe(Effect.scoped)

/** Removes the attributes of a version of an object that is gone. What cannot be removed is left for `sweep`. */
export const remove = (directory: Directory, key: string, stats: nodeFs.Stats | undefined): Effect.Effect<void> =>
  stats !== undefined && mayHaveAttributes(stats)
    ? Effect.ignore(nodeFs.unlink(pathOf(directory, key, etagOf(stats))))
    : Effect.void

/** The version of an object that is about to be overwritten or removed, for `remove`. */
export const outgoing = (directory: Directory, key: string): Effect.Effect<nodeFs.Stats | undefined> =>
  directory.attributesInUse
    ? Effect.orElseSucceed(stat(directory, key), () => undefined)
    : Effect.succeed(undefined)

// What is abandoned

/** How many files `sweep` looks at, at most, plus those of one folder. */
const sweepCount = 200

/** How many saves with attributes there are to each sweep of a folder. */
const sweepEvery = 16

/** What no version has after this time is abandoned even if its process lives, in milliseconds: 24 hours. */
const longest = 24 * 60 * 60 * 1000

let saves = 0

/** Removes what is abandoned: everything, where there is little; else a part, another each time. */
export const sweep = (directory: Directory): Effect.Effect<void> =>
  Effect.gen(function*() {
    const folders = (yield* nodeFs.readFolder(parentOf(directory))) ?? []
    directory.attributesInUse = true
    let seen = 0
    for (const { name } of yield* Random.shuffle(folders)) {
      if (seen < sweepCount) seen += yield* sweepFolder(directory, `${parentOf(directory)}/${name}`)
    }
  }).pipe(Effect.ignore)

/** To be run after each save with attributes: now and then it sweeps the folder, so that none grows without bound. */
export const sweepSometimes = (directory: Directory, key: string): Effect.Effect<void> =>
  Effect.suspend(() =>
    saves++ % sweepEvery === 0
      ? Effect.ignore(sweepFolder(directory, nodeFs.dirname(pathOf(directory, key, ""))))
      : Effect.void
  )

const sweepFolder = (directory: Directory, folder: string): Effect.Effect<number, nodeFs.SystemError> =>
  Effect.gen(function*() {
    const entries = (yield* nodeFs.readFolder(folder)) ?? []
    for (const { name } of entries) {
      const path = `${folder}/${name}`
      if (yield* Effect.orElseSucceed(isAbandoned(directory, path), () => false)) {
        yield* Effect.ignore(nodeFs.unlink(path))
      }
    }
    return entries.length
  })

const isAbandoned = (
  directory: Directory,
  path: string
): Effect.Effect<boolean, AccessDenied | nodeFs.SystemError> =>
  Effect.gen(function*() {
    const writtenAt = Number((yield* nodeFs.lstat(path)).mtimeMs)
    const file = yield* readFile(path)
    // The writer first: once it is gone, it renames no more objects.
    const mayBeInUse = Date.now() - writtenAt < longest &&
      (file === undefined || !(yield* Owner.isGone(directory.owner, file.owner, writtenAt)))
    if (mayBeInUse || file === undefined) return !mayBeInUse
    const current = yield* orMissing(stat(directory, file.key))
    return current === undefined || pathOf(directory, file.key, etagOf(current)) !== path
  })
