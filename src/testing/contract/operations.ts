/**
 * Operations as data, and how random ones are generated.
 */
import * as Data from "effect/Data"
import * as FastCheck from "effect/FastCheck"
import * as ByteRange from "../../ByteRange.js"
import type { Attributes } from "../../StorageBackend.js"

interface Content {
  readonly seed: number
  readonly size: number
}

/** Which etag a precondition gives: the current one of the object, an earlier one, or one that no object ever had. */
export type Etag = "current" | "stale" | "unknown"

export type Operation = Data.TaggedEnum<{
  Save: {
    readonly key: string
    readonly content: Content
    readonly streamed: boolean
    readonly create: boolean
    readonly ifMatch: Etag | undefined
    readonly attributes: Attributes | undefined
  }
  SaveOfFailingSource: { readonly key: string; readonly content: Content }
  Load: {
    readonly key: string
    readonly by: "load" | "stream" | "loadRanges"
    readonly range: ByteRange.ByteRange | undefined
    readonly ifMatch: Etag | undefined
    readonly ifNoneMatch: Etag | undefined
  }
  Head: { readonly key: string }
  List: { readonly prefix: string; readonly startAfter: string }
  ListDirectory: { readonly prefix: string }
  Remove: { readonly key: string; readonly ifMatch: Etag | undefined }
  RemoveAll: { readonly keys: ReadonlyArray<string> }
  Relocate: {
    readonly by: "copy" | "move"
    readonly from: string
    readonly to: string
    readonly create: boolean
    readonly attributes: Attributes | undefined
  }
}>

export const Operation = Data.taggedEnum<Operation>()

export type OperationOf<Tag extends Operation["_tag"]> = Data.TaggedEnum.Value<Operation, Tag>

// Few, so that operations meet; some are folders of others, some resemble others.
const keys = [
  "a",
  "a/b",
  "a/b/c",
  "a-b",
  "a.b",
  "a0",
  "A",
  "b/c",
  "%41",
  "a%2Fb",
  " ",
  "é",
  "e\u0301",
  "\ufffd",
  "\u{1f600}",
  "..."
]
const prefixes = ["", "a", "a/", "a/b", "a/b/", "a-", "b/", "e", "%", "\ufffd", "zz", "../"]

// Mostly one of three, so that an operation often meets what several others have left.
const key = FastCheck.oneof(
  { weight: 2, arbitrary: FastCheck.constantFrom("a", "b/c", "é") },
  { weight: 1, arbitrary: FastCheck.constantFrom(...keys) }
)
const prefix = FastCheck.constantFrom(...prefixes)
const content = FastCheck.record({ seed: FastCheck.nat(5), size: FastCheck.constantFrom(0, 1, 2, 100, 5000) })
const create = FastCheck.constantFrom(false, false, false, true)
const etag = FastCheck.constantFrom<Array<Etag | undefined>>(
  undefined,
  undefined,
  undefined,
  "current",
  "stale",
  "unknown"
)
const attributes = FastCheck.constantFrom<Array<Attributes | undefined>>(
  undefined,
  undefined,
  { cacheControl: "no-store", contentLanguage: "en" },
  { contentType: "application/x-model", metadata: { author: "Noé" } }
)
const range = FastCheck.oneof(
  FastCheck.constant(undefined),
  FastCheck.tuple(FastCheck.nat(5100), FastCheck.integer({ min: 1, max: 5000 }))
    .map(([start, length]) => ByteRange.make(start, start + length)),
  FastCheck.constantFrom(0, 1, 99, 100, 5000).map(ByteRange.from),
  FastCheck.constantFrom(1, 2, 100, 6000).map(ByteRange.last)
)
const save = FastCheck.record({ key, content, streamed: FastCheck.boolean(), create, ifMatch: etag, attributes })
const load = FastCheck.record({
  key,
  by: FastCheck.constantFrom<Array<"load" | "stream" | "loadRanges">>("load", "stream", "loadRanges"),
  range,
  ifMatch: etag,
  ifNoneMatch: etag
})
const list = FastCheck.record({ prefix, startAfter: FastCheck.constantFrom(...keys, ...prefixes) })
const relocate = FastCheck.record({
  by: FastCheck.constantFrom<Array<"copy" | "move">>("copy", "move"),
  from: key,
  to: key,
  create,
  attributes
})

const any: FastCheck.Arbitrary<Operation> = FastCheck.oneof(
  { weight: 6, arbitrary: save.map(Operation.Save) },
  { weight: 1, arbitrary: FastCheck.record({ key, content }).map(Operation.SaveOfFailingSource) },
  { weight: 4, arbitrary: load.map(Operation.Load) },
  { weight: 1, arbitrary: FastCheck.record({ key }).map(Operation.Head) },
  { weight: 2, arbitrary: list.map(Operation.List) },
  { weight: 1, arbitrary: FastCheck.record({ prefix }).map(Operation.ListDirectory) },
  { weight: 2, arbitrary: FastCheck.record({ key, ifMatch: etag }).map(Operation.Remove) },
  { weight: 1, arbitrary: FastCheck.record({ keys: FastCheck.array(key, { maxLength: 4 }) }).map(Operation.RemoveAll) },
  { weight: 6, arbitrary: relocate.map(Operation.Relocate) }
)

// Without bias, which would make most of a few sequences too short for anything to go wrong.
const sequence = FastCheck.noBias(FastCheck.array(any, { maxLength: 60, size: "max" }))

/** All keys that operations have, and sequences of operations on these. */
export const operations = { keys, sequence }
