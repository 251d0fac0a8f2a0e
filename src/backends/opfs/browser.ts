/**
 * What is used of browsers, declared here because the `DOM` types have a global `Storage`: the origin private file system
 * (https://fs.spec.whatwg.org) and Web Locks (https://w3c.github.io/web-locks), both on pages and in workers.
 */
import * as Effect from "effect/Effect"
import { UnsupportedOperation } from "../../StorageError.js"

export interface FolderHandle {
  readonly kind: "directory"
  readonly name: string
  readonly getDirectoryHandle: (name: string, options?: { readonly create: boolean }) => Promise<FolderHandle>
  readonly getFileHandle: (name: string, options?: { readonly create: boolean }) => Promise<FileHandle>
  readonly removeEntry: (name: string) => Promise<void>
  readonly values: () => AsyncIterable<FolderHandle | FileHandle>
}

export interface FileHandle {
  readonly kind: "file"
  readonly name: string
  /** The file as it is now. Once it is replaced, a read that has not begun fails; one that has begun goes on. */
  readonly getFile: () => Promise<FileSnapshot>
  readonly createWritable: () => Promise<FileWriter>
  /** Gives the file another name, in one step, also where another file has that name. */
  readonly move: (folder: FolderHandle, name: string) => Promise<void>
}

/** A `File`. */
export interface FileSnapshot extends Blob {
  /** In milliseconds. */
  readonly lastModified: number
}

/** What it writes is in the file once it is closed, and not before. */
interface FileWriter {
  readonly write: (data: {
    readonly type: "write"
    readonly position: number
    readonly data: Blob | Uint8Array<ArrayBuffer>
  }) => Promise<void>
  readonly truncate: (size: number) => Promise<void>
  readonly close: () => Promise<void>
  readonly abort: () => Promise<void>
}

export interface LockManager {
  /** Holds a lock until the promise of `hold` settles. With `ifAvailable`, `hold` gets `null` where others hold it. */
  readonly request: (
    name: string,
    options: { readonly signal: AbortSignal } | { readonly ifAvailable: true },
    hold: (lock: object | null) => Promise<void>
  ) => Promise<void>
}

/** What a storage needs of its browser. */
export interface Browser {
  readonly root: () => Promise<FolderHandle>
  readonly locks: LockManager
}

interface Globals {
  readonly navigator?: {
    readonly storage?: { readonly getDirectory?: (this: object) => Promise<FolderHandle> }
    readonly locks?: LockManager
  }
  readonly FileSystemFileHandle?: { readonly prototype: Partial<FileHandle> }
}

/** This browser. */
export const browser: Effect.Effect<Browser, UnsupportedOperation> = Effect.suspend(() => {
  const { FileSystemFileHandle, navigator } = globalThis as Globals
  const { locks, storage } = navigator ?? {}
  const getDirectory = storage?.getDirectory?.bind(storage)
  if (getDirectory === undefined || locks === undefined || FileSystemFileHandle === undefined) {
    return new UnsupportedOperation({
      reason:
        "there is no origin private file system here; use OpfsStorage in a browser, on a page of https:// or localhost"
    })
  }
  const { createWritable, move } = FileSystemFileHandle.prototype
  return createWritable === undefined || move === undefined
    ? new UnsupportedOperation({
      reason: "the origin private file system of this browser cannot save a file in one step; update the browser"
    })
    : Effect.succeed({ root: getDirectory, locks })
})
