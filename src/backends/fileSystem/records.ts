/**
 * Records of objects, in files of the hidden folder: `attributes/<two digits>/<hash of the key>-<identity of the file>`, and
 * `versions/…` for files with whole seconds. A record holds the attributes of an object, and where the file system keeps whole
 * seconds only, a part of its etag, so that two saves within a second can be told apart.
 *
 * A record belongs to one version of one object. It is written before the object is renamed into place, and removed once the
 * object is overwritten or removed. So at any moment a version has all of its attributes, and a file that another program changed
 * has none. What a killed process leaves, or what belongs to an object that another program changed, is abandoned: it is never
 * read, and removed by `sweep`.
 */
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Random from "effect/Random"
import * as Schema from "effect/Schema"
import mime from "mime"
import { randomBytes } from "node:crypto"
import type { Attributes, ObjectInfo } from "../../StorageBackend.js"
import type { AccessDenied, CommonError } from "../../StorageError.js"
import { isMissing, toReadError } from "./errors.js"
import * as nodeFs from "./nodeFs.js"
import * as Owner from "./owner.js"
import { type Directory, holdOwn, shortName, stat } from "./paths.js"
import * as Permissions from "./permissions.js"
import * as TemporaryFiles from "./temporaryFiles.js"
import { type FileStats, hasWholeTime, identityOf, infoOf, mayHaveRecord } from "./versions.js"

/** What a record holds: attributes, if there are any, and a part of the etag that differs for each save. */
export interface Record {
  readonly attributes: Attributes | undefined
  readonly stamp: string | undefined
}

/** A version of an object: its info, with all attributes, and what is recorded of it. */
export interface Version {
  readonly info: ObjectInfo
  readonly record: Record
}

/** Attributes, unless there are none. */
export const nonEmpty = (attributes: Attributes | undefined): Attributes | undefined =>
  attributes === undefined || Object.keys(attributes).length === 0 ? undefined : attributes

export const newStamp = (): string => randomBytes(6).toString("hex")

const nothing: Record = { attributes: undefined, stamp: undefined }

/** A version with this record; where its attributes have no content type, it is derived from the key. */
export const versionWith = (directory: Directory, key: string, stats: FileStats, record: Record): Version => {
  const { attributes: kept, stamp } = record
  // With the slash, a name without a dot is no extension.
  const derived = kept?.contentType === undefined ? mime.getType(`/${key}`) : null
  const attributes = derived === null ? kept : { ...kept, contentType: derived }
  const info = infoOf(directory, key, stats, stamp)
  return { info: attributes === undefined ? info : { ...info, attributes }, record }
}

/** The version that a file's stats show; `undefined` where it was overwritten and its record is gone. */
export const versionOf = (
  directory: Directory,
  key: string,
  stats: nodeFs.Stats
): Effect.Effect<Version | undefined, CommonError> =>
  mayHaveRecord(stats)
    ? Effect.catchTag(lookUp(directory, key, stats), "SystemError", (error) =>
      Effect.fail(toReadError(directory.hidden, error)))
    : Effect.succeed(versionWith(directory, key, stats, nothing))

/** The etag of that version. */
export const etagOf = (
  directory: Directory,
  key: string,
  stats: nodeFs.Stats
): Effect.Effect<string | undefined, CommonError> =>
  hasWholeTime(stats)
    ? Effect.map(versionOf(directory, key, stats), (version) => version?.info.etag)
    : Effect.succeed(infoOf(directory, key, stats, undefined).etag)

const lookUp = (directory: Directory, key: string, stats: nodeFs.Stats) =>
  Effect.gen(function*() {
    const file = yield* readFile(pathOf(directory, key, stats))
    const isFound = file?.key === key
    if (isFound && stats.dev === directory.inodesOn) {
      directory.recordsInUse = true
      return versionWith(directory, key, stats, recordOf(file))
    }
    const current = yield* orMissing(stat(directory, key))
    // The inodes of two files that exist differ everywhere.
    if (current === undefined || current.ino !== stats.ino) return undefined
    if (isFound) directory.recordsInUse = true
    return identityOf(directory, current) === identityOf(directory, stats)
      ? versionWith(directory, key, stats, isFound ? recordOf(file) : nothing)
      : undefined
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
  stamp: Schema.optional(Schema.String),
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

const recordOf = ({ attributes: { metadata, ...fields }, stamp }: typeof File.Type): Record => ({
  attributes: nonEmpty({ ...fields, ...(metadata !== undefined && { metadata: Object.fromEntries(metadata) }) }),
  stamp
})

/** The folders with records, in the hidden folder. */
export const recordFolders = ["attributes", "versions"] as const

const pathOf = (directory: Directory, key: string, stats: FileStats): string => {
  const hash = shortName(key)
  const parent = hasWholeTime(stats) ? "versions" : "attributes"
  return `${directory.hidden}/${parent}/${hash.slice(0, 2)}/${hash}-${identityOf(directory, stats)}`
}

/** Whether files with whole seconds may have records. */
export const areWholeInUse = (directory: Directory): Effect.Effect<boolean> =>
  Effect.isSuccess(nodeFs.stat(`${directory.hidden}/versions`))

const readFile = (path: string) =>
  nodeFs.readText(path).pipe(
    Effect.map((text) => Option.getOrUndefined(decode(text))),
    Effect.catchIf(isMissing, () => Effect.succeed(undefined))
  )

/** Keeps a record for a version of an object that is about to get its name; of nothing, makes sure that there is none. */
export const write = (
  directory: Directory,
  key: string,
  stats: FileStats,
  record: Record
): Effect.Effect<void, AccessDenied | nodeFs.SystemError> =>
  record.attributes === undefined && record.stamp === undefined
    ? remove(directory, key, stats)
    : Effect.scoped(writeRecord(directory, key, stats, record))

const writeRecord = (directory: Directory, key: string, stats: FileStats, { attributes = {}, stamp }: Record) =>
  Effect.gen(function*() {
    const path = pathOf(directory, key, stats)
    const folder = nodeFs.dirname(path)
    const file = yield* TemporaryFiles.create(directory, Permissions.permissionsOf(stats))
    const metadata = attributes.metadata && Object.entries(attributes.metadata)
    const text = encode({ key, owner: directory.owner, stamp, attributes: { ...attributes, metadata } })
    yield* nodeFs.write(file.descriptor, [new TextEncoder().encode(text)], 0)
    if (directory.durable) yield* nodeFs.sync(file.descriptor)
    yield* file.close
    const { created, held } = yield* Effect.catchIf(
      Effect.map(holdOwn(folder), (held) => ({ held, created: new Array<string>() })),
      (error) => error._tag === "SystemError" && error.code === "ENOENT",
      () =>
        Effect.map(makeFolder(directory, folder), (held) => ({
          held,
          created: [nodeFs.dirname(folder), directory.hidden, directory.path]
        }))
    )
    yield* TemporaryFiles.rename(file, held.at(nodeFs.basename(path)))
    if (directory.durable) {
      yield* Effect.forEach([held.at("."), ...created], nodeFs.syncFolder, { discard: true })
    }
    directory.recordsInUse = true
  })

const makeFolder = (directory: Directory, folder: string) =>
  Effect.gen(function*() {
    const parent = nodeFs.dirname(folder)
    const hidden = yield* holdOwn(directory.hidden)
    yield* Permissions.makeFolderLike(directory.path, hidden.at(nodeFs.basename(parent)))
    const heldParent = yield* holdOwn(parent)
    yield* Permissions.makeFolderLike(directory.path, heldParent.at(nodeFs.basename(folder)))
    return yield* holdOwn(folder)
  })

/** Removes the record of a version of an object that is gone. What cannot be removed is left for `sweep`. */
export const remove = (directory: Directory, key: string, stats: FileStats | undefined): Effect.Effect<void> =>
  stats !== undefined && mayHaveRecord(stats)
    ? Effect.ignore(unlinkOwn(pathOf(directory, key, stats)))
    : Effect.void

const unlinkOwn = (path: string) =>
  Effect.scoped(Effect.flatMap(holdOwn(nodeFs.dirname(path)), ({ at }) => nodeFs.unlink(at(nodeFs.basename(path)))))

/** The version of an object that is about to be overwritten or removed, for `remove`. */
export const outgoing = (directory: Directory, key: string): Effect.Effect<nodeFs.Stats | undefined> =>
  directory.recordsInUse || directory.keepsWholeSeconds === true
    ? Effect.orElseSucceed(stat(directory, key), () => undefined)
    : Effect.succeed(undefined)

// What is abandoned

/** How many files `sweep` looks at, at most, plus those of one folder. */
const sweepCount = 200

/** How many saves with records there are to each sweep of a folder. */
const sweepEvery = 16

/** What no version has after this time is abandoned even if its process lives, in milliseconds: 24 hours. */
const longest = 24 * 60 * 60 * 1000

let saves = 0

/** Removes what is abandoned: everything, where there is little; else a part, another each time. */
export const sweep = (directory: Directory): Effect.Effect<void> =>
  Effect.gen(function*() {
    const folders: Array<string> = []
    for (const name of recordFolders) {
      const parent = `${directory.hidden}/${name}`
      const names = yield* holdOwn(parent).pipe(
        Effect.flatMap((held) => nodeFs.readFolder(held.path)),
        Effect.scoped,
        Effect.orElseSucceed(() => undefined)
      )
      if (names !== undefined) directory.recordsInUse = true
      for (const { name } of names ?? []) folders.push(`${parent}/${name}`)
    }
    let seen = 0
    for (const folder of yield* Random.shuffle(folders)) {
      if (seen < sweepCount) seen += yield* sweepFolder(directory, folder)
    }
  }).pipe(Effect.ignore)

/** To be run after each save with a record: now and then it sweeps the folder, so that none grows without bound. */
export const sweepSometimes = (directory: Directory, key: string, stats: FileStats): Effect.Effect<void> =>
  Effect.suspend(() =>
    saves++ % sweepEvery === 0
      ? Effect.ignore(sweepFolder(directory, nodeFs.dirname(pathOf(directory, key, stats))))
      : Effect.void
  )

const sweepFolder = (directory: Directory, folder: string) =>
  Effect.gen(function*() {
    const held = yield* holdOwn(folder)
    const entries = (yield* nodeFs.readFolder(held.path)) ?? []
    for (const { name } of entries) {
      const path = held.at(name)
      if (yield* Effect.orElseSucceed(isAbandoned(directory, path, `${folder}/${name}`), () => false)) {
        yield* Effect.ignore(nodeFs.unlink(path))
      }
    }
    return entries.length
  }).pipe(Effect.scoped)

const isAbandoned = (directory: Directory, path: string, place: string) =>
  Effect.gen(function*() {
    if (!/\/[0-9a-f]{32}(?:-[0-9a-z]+){3}$/.test(place)) return false
    const writtenAt = Number((yield* nodeFs.lstat(path)).mtimeMs)
    const file = yield* readFile(path)
    // The writer first: once it is gone, it renames no more objects.
    const mayBeInUse = Date.now() - writtenAt < longest &&
      (file === undefined || !(yield* Owner.isGone(directory.owner, file.owner, writtenAt)))
    if (mayBeInUse || file === undefined) return !mayBeInUse
    const current = yield* orMissing(stat(directory, file.key))
    return current === undefined || pathOf(directory, file.key, current) !== place
  })
