/**
 * `push` and `pull`: the files of a model, from one storage to another.
 */
import * as Effect from "effect/Effect"
import * as Storage from "../Storage.js"
import * as ModelChunks from "../weights/ModelChunks.js"
import * as Places from "./places.js"
import { transfer } from "./transfer.js"

export const copyModel = (input: { readonly from: string; readonly to: string }) =>
  Effect.gen(function*() {
    const from = yield* Places.openFolder(input.from, "read")
    const files = new Set(yield* Effect.provideService(ModelChunks.files(from.key), Storage.Storage, from.storage))
    if (files.size === 0) return yield* Places.notFound(from, "files")
    const to = yield* Places.openFolder(input.to, "write")
    yield* Places.refuseOverlap(from, to)
    yield* transfer(yield* Places.folderOf(from), yield* Places.folderOf(to), { filter: (key) => files.has(key) })
  })
