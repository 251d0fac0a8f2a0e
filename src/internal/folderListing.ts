/**
 * The keys of the files below a directory, in key order, whatever their number: one folder's names are held at a time
 * for each level, and of a folder too large for that a part.
 */
import * as Chunk from "effect/Chunk"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Stream from "effect/Stream"
import * as ObjectKey from "../ObjectKey.js"
import { continuedText, decodeSegment, encodeKey, isPiece, pieceText, reserved } from "./fileNames.js"
import * as files from "./files.js"

/** A directory to list. */
export interface Root {
  /** Its path, without symbolic links. */
  readonly path: string
  /** Whether links that lead out of it count. */
  readonly followLinks: boolean
}

/** The path of a key's file or, of a key prefix that ends in `/` or is empty, of its folder. */
export const pathOf = (root: Root, key: string): string =>
  key === "" ? root.path : `${root.path}/${encodeKey(key.endsWith("/") ? key.slice(0, -1) : key, files.flavor)}`

/** Whether a path without symbolic links is in the directory, or is it. */
export const isInside = (root: Root, realPath: string): boolean =>
  realPath === root.path || realPath.startsWith(root.path.endsWith(files.sep) ? root.path : root.path + files.sep)

/**
 * A folder being listed: the names in it that are still to come, in key order, those of folders with a `/` behind.
 */
interface Frame {
  /** What the keys below it start with: empty, or ending in `/`. */
  readonly prefix: string
  readonly realPath: string
  readonly names: ReadonlyArray<string>
  next: number
  /** Names that may not be what they look like: links, and what the system could not decode. */
  readonly doubtful: ReadonlySet<string>
  /** The last of the names, where there are more than could be held. */
  readonly cutAfter: string | undefined
}

/** Which keys to list. */
export interface Selection {
  readonly prefix?: string
  readonly startAfter?: string
}

/** The keys that start with `prefix` and come after `startAfter`, in key order. */
export const keys = (root: Root, selection: Selection): Stream.Stream<string, files.SystemError> =>
  walk(root, selection, true)

/** The same, but of the keys with a `/` behind the prefix only what is before it, once, with the `/`. */
export const children = (root: Root, selection: Selection): Stream.Stream<string, files.SystemError> =>
  walk(root, selection, false)

const walk = (
  root: Root,
  { prefix = "", startAfter = "" }: Selection,
  deep: boolean
): Stream.Stream<string, files.SystemError> =>
  Stream.fromPull(Effect.sync(() => {
    const stack: Array<Frame> = []
    const mayHold = (folder: string) =>
      (folder.startsWith(prefix) || prefix.startsWith(folder)) &&
      (ObjectKey.compare(folder, startAfter) > 0 || startAfter.startsWith(folder))
    // The segments are valid; all of them together may be too long for a key.
    const isWanted = (key: string) =>
      key.startsWith(prefix) &&
      (startAfter === "" || ObjectKey.compare(key, startAfter) > 0) &&
      (key.length * 3 <= ObjectKey.maxBytes || ObjectKey.problem(key) === undefined)

    const enter = (folder: string, realPath: string) =>
      Effect.map(readFrame(root, folder, realPath, ""), (frame) => void stack.push(frame))

    const start = Effect.gen(function*() {
      const folder = prefix.slice(0, prefix.lastIndexOf("/") + 1)
      const realPath = yield* orGone(files.realPath(pathOf(root, folder)), undefined)
      if (realPath !== undefined && (root.followLinks || isInside(root, realPath))) yield* enter(folder, realPath)
    })

    const page = Effect.gen(function*() {
      const found: Array<string> = []
      while (found.length < pageSize) {
        const frame = stack.at(-1)
        if (frame === undefined) break
        const name = frame.names[frame.next++]
        if (name === undefined) {
          stack.pop()
          if (frame.cutAfter !== undefined) {
            stack.push(yield* readFrame(root, frame.prefix, frame.realPath, frame.cutAfter))
          }
          continue
        }
        const key = frame.prefix + name
        if (!name.endsWith("/")) {
          if (isWanted(key) && (!frame.doubtful.has(name) || (yield* resolveFile(root, key)))) found.push(key)
        } else if (mayHold(key)) {
          const realPath = frame.doubtful.has(name)
            ? yield* resolveFolder(root, key, stack)
            : frame.realPath + files.sep + encodeKey(name.slice(0, -1), files.flavor)
          if (realPath === undefined) continue
          if (deep || !key.startsWith(prefix)) yield* enter(key, realPath)
          // A folder without objects is none.
          else if (Option.isSome(yield* Stream.runHead(keys(root, { prefix: key })))) found.push(key)
        }
      }
      return Chunk.unsafeFromArray(found)
    })

    let begun = false
    return Effect.suspend(() => {
      if (begun) return page
      begun = true
      return Effect.zipRight(start, page)
    }).pipe(
      Effect.mapError(Option.some),
      Effect.filterOrFail(Chunk.isNonEmpty, () => Option.none())
    )
  }))

const pageSize = 1024

/** A folder whose own size says that it holds more than some 50,000 names is read in parts of so many. */
const largeFolder = 4 * 1024 * 1024
const part = 50_000

// What may be no part of a key, or does not sort like UTF-8: control characters, and from half of a pair on.

const special = /[\u0000-\u001f\u007f-\u009f\ud800-\uffff]/

/** Reads the names in a folder that come after `after`: all, or of a large folder the first `part` of them. */
const readFrame = (
  root: Root,
  prefix: string,
  realPath: string,
  after: string
): Effect.Effect<Frame, files.SystemError> =>
  Effect.gen(function*() {
    let names: Array<string> = []
    const doubtful = new Set<string>()
    let beyondUtf16 = false
    let cutAfter: string | undefined
    const sort = () => beyondUtf16 ? names.sort(ObjectKey.compare) : names.sort()

    const add = (name: string, isDoubtful: boolean) => {
      if (after !== "" && ObjectKey.compare(name, after) <= 0) return
      if (cutAfter !== undefined && ObjectKey.compare(name, cutAfter) > 0) return
      names.push(name)
      if (isDoubtful) doubtful.add(name)
    }

    const visit = (before: string, pieces: Map<string, string>) => ({ kind, name }: files.Entry) => {
      if (name === reserved || kind === "other") return
      const text = before === "" ? name : continuedText(name)
      if (text === undefined) return
      if (kind === "folder" && isPiece(name)) {
        pieces.set(name, before + pieceText(text))
        return
      }
      const segment = decodeSegment(before + text, files.flavor)
      let isDoubtful = kind === "link"
      if (special.test(segment)) {
        if (ObjectKey.problem(segment) !== undefined) return
        beyondUtf16 = true
        isDoubtful ||= segment.includes("\ufffd")
      }
      if (kind !== "folder") add(segment, isDoubtful)
      if (kind !== "file") add(`${segment}/`, isDoubtful)
    }

    const trim = () => {
      if (names.length < 2 * part) return
      for (const name of sort().splice(part)) doubtful.delete(name)
      cutAfter = names.at(-1)
    }

    const read = (folder: string, before: string): Effect.Effect<void, files.SystemError> =>
      Effect.gen(function*() {
        const pieces = new Map<string, string>()
        const see = visit(before, pieces)
        const entries = yield* files.readFolder(folder, largeFolder)
        if (entries !== undefined) entries.forEach(see)
        else {
          yield* files.visitFolder(folder, (entry) => {
            see(entry)
            trim()
          })
        }
        for (const [name, text] of pieces) yield* read(`${folder}/${name}`, text)
      })

    yield* orGone(read(pathOf(root, prefix), ""), undefined)
    names = sort()
    return { prefix, realPath, names, next: 0, doubtful, cutAfter }
  })

/** Whether what looks like a file of this key is one: no dead link, none that leads where it should not. */
const resolveFile = (root: Root, key: string): Effect.Effect<boolean, files.SystemError> =>
  orGone(
    Effect.gen(function*() {
      const realPath = yield* files.realPath(pathOf(root, key))
      return (root.followLinks || isInside(root, realPath)) && (yield* files.stat(realPath)).isFile()
    }),
    false
  )

/** The same for a folder: its path without links, unless it leads where it should not or back to where it came from. */
const resolveFolder = (
  root: Root,
  prefix: string,
  stack: ReadonlyArray<Frame>
): Effect.Effect<string | undefined, files.SystemError> =>
  orGone(
    Effect.gen(function*() {
      const realPath = yield* files.realPath(pathOf(root, prefix))
      const loops = stack.some((frame) =>
        frame.realPath === realPath || frame.realPath.startsWith(realPath + files.sep)
      )
      return !loops && (root.followLinks || isInside(root, realPath)) && (yield* files.stat(realPath)).isDirectory()
        ? realPath
        : undefined
    }),
    undefined
  )

/** What is gone by the time that it is looked at was not there. */
const orGone = <A, B>(effect: Effect.Effect<A, files.SystemError>, gone: B): Effect.Effect<A | B, files.SystemError> =>
  Effect.catchIf(
    effect,
    ({ code }) => code === "ENOENT" || code === "ENOTDIR" || code === "ELOOP",
    () => Effect.succeed(gone)
  )
