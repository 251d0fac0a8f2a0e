/**
 * Files and folders of a model as JSON.
 *
 * Every file is one of Git LFS, whose id is its SHA-256. Its `oid` is that of the pointer that Git would have in its place.
 */
import * as Effect from "effect/Effect"
import * as Hash from "../../../internal/hash.js"
import * as ObjectKey from "../../../ObjectKey.js"
import type { LoadError } from "../../../StorageError.js"
import type { Hashes } from "./hashes.js"
import type { File, Repository } from "./repository.js"

export type Entry = File | { readonly folder: string }

/** How many files are described at once. */
const concurrency = 16

const encoder = new TextEncoder()

interface Identity {
  readonly oid: string
  readonly sha256: string
  readonly pointerSize: number
}

/** The hash of a file, and the pointer of Git LFS to it (https://github.com/git-lfs/git-lfs/blob/main/docs/spec.md). */
const identityOf = (hashes: Hashes, { info }: File): Effect.Effect<Identity, LoadError> =>
  Effect.gen(function*() {
    const sha256 = yield* hashes.of(info)
    const pointer = encoder.encode(
      `version https://git-lfs.github.com/spec/v1\noid sha256:${sha256}\nsize ${info.size}\n`
    )
    const blob = yield* Hash.make("sha1")
    blob.update(encoder.encode(`blob ${pointer.byteLength}\0`))
    blob.update(pointer)
    return { oid: Hash.hexDigest(blob), sha256, pointerSize: pointer.byteLength }
  })

/** A file among the siblings in the information about a model. */
export const siblingsJson = (
  hashes: Hashes,
  files: ReadonlyArray<File>
): Effect.Effect<ReadonlyArray<unknown>, LoadError> =>
  Effect.forEach(files, (file) =>
    Effect.map(identityOf(hashes, file), ({ oid, pointerSize, sha256 }) => ({
      rfilename: file.path,
      size: file.info.size,
      blobId: oid,
      lfs: { sha256, size: file.info.size, pointerSize }
    })), { concurrency })

/** Entries of a tree. With `isExpanded` each has the last commit, which is the only one. */
export const entriesJson = (
  hashes: Hashes,
  { commit, id, lastModified }: Repository,
  entries: ReadonlyArray<Entry>,
  isExpanded: boolean
): Effect.Effect<ReadonlyArray<unknown>, LoadError> => {
  const lastCommit = (date: Date) => isExpanded ? { lastCommit: { id: commit, title: "", date } } : {}
  const folderJson = (folder: string) =>
    Effect.map(Hash.load("sha1"), (newHash) => {
      const hash = newHash()
      hash.update(encoder.encode(`${id} ${commit} ${folder}`))
      return { type: "directory", oid: Hash.hexDigest(hash), size: 0, path: folder, ...lastCommit(lastModified) }
    })
  const fileJson = (file: File) =>
    Effect.map(identityOf(hashes, file), ({ oid, pointerSize, sha256 }) => ({
      type: "file",
      oid,
      size: file.info.size,
      path: file.path,
      lfs: { oid: sha256, size: file.info.size, pointerSize },
      ...lastCommit(file.info.lastModified)
    }))
  return Effect.forEach(entries, (entry) => "folder" in entry ? folderJson(entry.folder) : fileJson(entry), {
    concurrency
  })
}

/** What a page of a tree holds. */
export interface Selection {
  /** The folder, without a slash at its end; empty for the root. */
  readonly folder: string
  /** Whether deeper files and folders belong to it. */
  readonly isRecursive: boolean
  /** The place of the last entry before the page; empty for the first page. */
  readonly after: string
  readonly limit: number
}

/** The place of an entry in the order of paths. */
const placeOf = (entry: Entry): string => "folder" in entry ? `${entry.folder}/` : entry.path

/** Gathers a page from the files of a model, in their order. A folder comes before the first file in it. */
export class Page {
  readonly #selection: Selection
  readonly #prefix: string
  readonly #entries: Array<Entry> = []
  /** The path of the file before. */
  #before = ""
  #isFound: boolean
  #hasMore = false

  constructor(selection: Selection) {
    this.#selection = selection
    this.#prefix = selection.folder === "" ? "" : `${selection.folder}/`
    this.#isFound = selection.folder === ""
  }

  /** Whether there is such a folder. */
  get isFound(): boolean {
    return this.#isFound
  }

  get entries(): ReadonlyArray<Entry> {
    return this.#entries
  }

  /** The place after which the next page begins, if there is one. */
  get next(): string | undefined {
    const last = this.#entries.at(-1)
    return this.#hasMore && last !== undefined ? placeOf(last) : undefined
  }

  visit(file: File): void {
    if (!file.path.startsWith(this.#prefix)) return
    this.#isFound = true
    const before = this.#before
    this.#before = file.path
    const { isRecursive } = this.#selection
    for (
      let slash = file.path.indexOf("/", this.#prefix.length);
      slash !== -1;
      slash = file.path.indexOf("/", slash + 1)
    ) {
      if (!before.startsWith(file.path.slice(0, slash + 1))) this.#add({ folder: file.path.slice(0, slash) })
      if (!isRecursive) return
    }
    this.#add(file)
  }

  #add(entry: Entry): void {
    const { after, limit } = this.#selection
    if (after !== "" && ObjectKey.compare(placeOf(entry), after) <= 0) return
    if (this.#entries.length < limit) this.#entries.push(entry)
    else this.#hasMore = true
  }
}

/** Finds the files and folders with these paths. */
export class Paths {
  readonly #found = new Map<string, Entry | undefined>()

  constructor(paths: ReadonlyArray<string>) {
    for (const path of paths) this.#found.set(path, undefined)
  }

  get entries(): ReadonlyArray<Entry> {
    return [...this.#found.values()].filter((entry) => entry !== undefined)
  }

  visit(file: File): void {
    const { path } = file
    if (this.#found.has(path)) this.#found.set(path, file)
    for (let slash = path.indexOf("/"); slash !== -1; slash = path.indexOf("/", slash + 1)) {
      const folder = path.slice(0, slash)
      if (this.#found.has(folder) && this.#found.get(folder) === undefined) this.#found.set(folder, { folder })
    }
  }
}
