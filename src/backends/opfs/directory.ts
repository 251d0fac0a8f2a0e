/**
 * The folders of a storage: one with its objects, and one with temporary files.
 */
import * as Effect from "effect/Effect"
import type { ObjectInfo } from "../../StorageBackend.js"
import * as E from "../../StorageError.js"
import type { Browser, FileHandle, FileSnapshot, FolderHandle } from "./browser.js"
import { call, failed, type FileSystemError, isMissing, isUnreadable } from "./errors.js"
import * as Header from "./header.js"
import { pathOf } from "./keyEncoding.js"
import { withLocks } from "./locks.js"

export interface Directory {
  /** The names of its folders within the file system, joined by `/`. */
  readonly path: string
  readonly browser: Browser
  readonly objects: FolderHandle
  readonly temporary: FolderHandle
}

/** Opens a directory, and creates it if it does not exist. */
export const open = (browser: Browser, path: string): Effect.Effect<Directory, FileSystemError> =>
  call(async () => {
    const folder = await openFolder(browser, path, true)
    return {
      path,
      browser,
      objects: await folder.getDirectoryHandle("objects", { create: true }),
      temporary: await folder.getDirectoryHandle("temporary", { create: true })
    }
  })

const openFolder = async (browser: Browser, path: string, create: boolean): Promise<FolderHandle> => {
  let folder = await browser.root()
  for (const name of path.split("/")) folder = await folder.getDirectoryHandle(name, { create })
  return folder
}

/** Runs an effect while nothing else changes the objects with these keys. */
export const exclusively = ({ browser, path }: Directory, ...keys: ReadonlyArray<string>) =>
  withLocks(browser, keys.map((key) => `surfing-weights/${path}/objects/${key}`))

/** The folder of a key's file, and the name of the file. */
export const locate = (
  { objects }: Directory,
  key: string,
  create: boolean
): Effect.Effect<{ readonly folder: FolderHandle; readonly name: string }, FileSystemError> =>
  call(async () => {
    const { file, folders } = pathOf(key)
    let folder = objects
    for (const name of folders) folder = await folder.getDirectoryHandle(name, { create })
    return { folder, name: file }
  })

/** An object that was found, of one version. */
export interface Found {
  readonly handle: FileHandle
  readonly file: FileSnapshot
  readonly info: ObjectInfo
  /** Where its bytes begin in the file. */
  readonly start: number
  /** The beginning of its bytes, as far as it was read. */
  readonly beginning: Uint8Array<ArrayBuffer>
  /** Where the file is not what was saved. */
  readonly damage?: E.CorruptObject
}

/** How often an object is looked at that is replaced meanwhile. */
const tries = 10

/** The bytes of a file that are read for its header, unless more are wanted. */
const headerRead = 1024

/** A file up to this size is read whole when it is looked at: a browser takes several times as long for a part of a file. */
const wholeRead = 64 * 1024

/** Looks at an object; reads `length` bytes of its file, or what its header takes. */
export const find = (
  directory: Directory,
  key: string,
  length = headerRead,
  left = tries
): Effect.Effect<Found, E.ObjectNotFound | E.CommonError> =>
  locate(directory, key, false).pipe(
    Effect.flatMap(({ folder, name }) => call(() => folder.getFileHandle(name))),
    Effect.catchAll((error) => isMissing(error) ? missing(directory, error) : failed(error)),
    Effect.flatMap((handle) =>
      Effect.catchAll(look(key, handle, length), (error) =>
        // It was replaced or removed meanwhile.
        left > 0 && isUnreadable(error) ? find(directory, key, length, left - 1) : failed(error))
    )
  )

const look = (key: string, handle: FileHandle, length: number): Effect.Effect<Found, FileSystemError> =>
  Effect.gen(function*() {
    const file = yield* call(() => handle.getFile())
    const read = yield* readPart(file, 0, file.size <= wholeRead ? file.size : length)
    const headerLength = Header.lengthOf(read) ?? 0
    const beginning = headerLength > read.byteLength ? yield* readPart(file, 0, headerLength) : read
    const header = Header.parse(beginning, file.size)
    const lastModified = new Date(file.lastModified)
    if (header === undefined) {
      const info = { key, size: file.size, lastModified, etag: "damaged" }
      const reason = `its file of ${file.size} bytes does not have the header and the size that it was saved with`
      const damage = new E.CorruptObject({ problem: "frame", reason })
      return { handle, file, info, start: 0, beginning: new Uint8Array(0), damage }
    }
    const { attributes, etag, size, start } = header
    return {
      handle,
      file,
      info: { key, size, lastModified, etag, attributes },
      start,
      beginning: beginning.subarray(start)
    }
  })

/** Fails with the damage of an object. */
export const intact = (found: Found): Effect.Effect<Found, E.CorruptObject> =>
  found.damage === undefined ? Effect.succeed(found) : Effect.fail(found.damage)

/** The metadata of an object, if there is one. */
export const existing = (directory: Directory, key: string): Effect.Effect<ObjectInfo | undefined, E.CommonError> =>
  find(directory, key).pipe(
    Effect.map(({ info }) => info),
    Effect.catchTag("ObjectNotFound", () => Effect.succeed(undefined))
  )

/** Bytes of a file, in one array. */
export const readPart = (
  file: Blob,
  start: number,
  end: number
): Effect.Effect<Uint8Array<ArrayBuffer>, FileSystemError> =>
  Effect.map(
    call(() => (start === 0 && end === file.size ? file : file.slice(start, end)).arrayBuffer()),
    (buffer) => new Uint8Array(buffer)
  )

/** Why a file was not found: there is no such object, or the directory itself is gone. */
export const missing = (
  { browser, path }: Directory,
  error: FileSystemError
): Effect.Effect<never, E.ObjectNotFound | E.CommonError> =>
  Effect.matchEffect(call(() => openFolder(browser, `${path}/objects`, false)), {
    onFailure: () => failed(error),
    onSuccess: () => new E.ObjectNotFound()
  })
