/**
 * The names in a folder as segments of keys, in key order.
 */
import * as Effect from "effect/Effect"
import * as ObjectKey from "../../ObjectKey.js"
import { continuedText, decodeSegment, isPiece, isReserved, pieceText } from "./keyEncoding.js"
import * as nodeFs from "./nodeFs.js"

/** A folder whose own size says that it holds more than some 50,000 names is read in parts of that many. */
const largeFolder = 4 * 1024 * 1024
const part = 50_000

/** Names in a folder, in key order, those of folders with a `/` at the end. */
export interface Names {
  readonly names: ReadonlyArray<string>
  /** Those that may not be what they look like: links, and what the system could not decode. */
  readonly doubtful: ReadonlySet<string>
  /** The last of the names, where there are more than could be held. */
  readonly cutAfter: string | undefined
}

/** Reads the names in a folder that come after `after`: all, or of a large folder the first `part` of them. */
export const readNames = (path: string, after: string): Effect.Effect<Names, nodeFs.SystemError> =>
  Effect.suspend(() => {
    const collector = new Collector(after)
    return Effect.map(readInto(collector, path, ""), () => collector.result())
  })

/** Reads a folder, and those that continue its long names; `before` is the text of the name that it continues itself. */
const readInto = (collector: Collector, path: string, before: string): Effect.Effect<void, nodeFs.SystemError> =>
  Effect.gen(function*() {
    const pieces = new Map<string, string>()
    const entries = yield* nodeFs.readFolder(path, largeFolder)
    if (entries !== undefined) { for (const entry of entries) collector.add(entry, before, pieces) }
    else {
      yield* nodeFs.visitFolder(path, (entry) => {
        collector.add(entry, before, pieces)
        collector.trim()
      })
    }
    for (const [name, text] of pieces) yield* readInto(collector, `${path}/${name}`, text)
  })

// What cannot be part of a key, or does not sort like UTF-8: control characters, and from the surrogates on.
const special = /[\u0000-\u001f\u007f-\u009f\ud800-\uffff]/

class Collector {
  #names: Array<string> = []
  #cutAfter: string | undefined
  #isBeyondUtf16 = false
  readonly #doubtful = new Set<string>()
  readonly #after: string

  constructor(after: string) {
    this.#after = after
  }

  /** Adds what an entry of a folder means; a folder that continues a long name is put into `pieces`, with its text. */
  add({ kind, name }: nodeFs.Entry, before: string, pieces: Map<string, string>): void {
    if (isReserved(name) || kind === "other") return
    const text = before === "" ? name : continuedText(name)
    if (text === undefined) return
    if (kind === "folder" && isPiece(name)) {
      pieces.set(name, before + pieceText(text))
      return
    }
    const segment = decodeSegment(before + text, nodeFs.flavor)
    let isDoubtful = kind === "link"
    if (special.test(segment)) {
      if (ObjectKey.problem(segment) !== undefined) return
      this.#isBeyondUtf16 = true
      isDoubtful ||= segment.includes("\ufffd")
    }
    if (kind !== "folder") this.#addName(segment, isDoubtful)
    if (kind !== "file") this.#addName(`${segment}/`, isDoubtful)
  }

  #addName(name: string, isDoubtful: boolean): void {
    if (this.#after !== "" && ObjectKey.compare(name, this.#after) <= 0) return
    if (this.#cutAfter !== undefined && ObjectKey.compare(name, this.#cutAfter) > 0) return
    this.#names.push(name)
    if (isDoubtful) this.#doubtful.add(name)
  }

  /** Keeps the first names, where there are too many. */
  trim(): void {
    if (this.#names.length < 2 * part) return
    for (const name of this.#sorted().splice(part)) this.#doubtful.delete(name)
    this.#cutAfter = this.#names.at(-1)
  }

  #sorted(): Array<string> {
    return this.#isBeyondUtf16 ? this.#names.sort(ObjectKey.compare) : this.#names.sort()
  }

  result(): Names {
    return { names: this.#sorted(), doubtful: this.#doubtful, cutAfter: this.#cutAfter }
  }
}
